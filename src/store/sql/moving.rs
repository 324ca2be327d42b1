//! A whole store copied into an empty one, row by row.

use std::fmt::Write as _;

use super::reads;
use super::session::{Fault, Result, Row, Session, Value};
use super::{Database, Engine};
use crate::store::{Copied, Ledger, StoreError};

/// Rows that are in memory at a time.
const AT_ONCE: usize = 200;

/// What is moved from: a store that nobody writes to meanwhile.
pub trait Origin: Send + 'static {
    fn session(&self) -> &dyn Session;

    /// Hands on what a statement without parameters finds, `AT_ONCE` rows at a time.
    fn each(&self, statement: &str, at_once: usize, take: &mut dyn FnMut(&[Row]) -> Result<()>) -> Result<()>;

    /// Of the store, for errors.
    fn name(&self) -> &str;
}

/// How rows come into an engine with the numbers they had.
pub struct Filling {
    /// Stands before `VALUES`.
    pub with_numbers: &'static str,
    /// Finds something where a service lives.
    pub in_use: Option<&'static str>,
    /// Run once all rows are there.
    pub finish: Option<&'static str>,
}

/// A table, its columns, and the order in which its rows were made. Each stands behind those that it refers to.
const TABLES: [(&str, &str, &str); 9] = [
    ("workspaces", "key, baseline_at, horizon, seen_at", "key"),
    ("runs", "workspace, run, version, state", "workspace, run"),
    ("subscriptions", "id, workspace, run, destination, template, json, created_at", "created_at, id"),
    ("changes", "workspace, run, sequence, at, json", "rowid"),
    (
        "deliveries",
        "number, id, workspace, run, sequence, destination, template, subscription, state, head, lane, urgent, missed, \
         attempt, tries, owner, next_at, created_at, unknown_at, settled_at, reason, message_id, carrier, folding, \
         wire_id, alone",
        "number",
    ),
    ("attempts", "delivery, attempt, started_at, ended_at, outcome, reason", "delivery, attempt"),
    ("destinations", "destination, place", "destination"),
    ("audit", "number, at, person, room, action, decision, reason, count, hash", "number"),
    ("seen", "key, until", "key"),
];
const AUDIT_ENDS: &str = "SELECT name, number, hash FROM audit_ends";
const PUT_AUDIT_END: &str = "UPDATE audit_ends SET number = ?2, hash = ?3 WHERE name = ?1";
const LEDGER_COLUMNS: &str = "SELECT owed, merged, delivered, folded, suppressed, dead FROM ledger WHERE id = 1";
const PUT_LEDGER: &str = "
    UPDATE ledger SET owed = ?1, merged = ?2, delivered = ?3, folded = ?4, suppressed = ?5, dead = ?6 WHERE id = 1";

/// One transaction: everything or nothing.
pub async fn fill<E: Engine>(target: &Database<E>, origin: impl Origin) -> std::result::Result<Copied, StoreError> {
    let name = target.0.name();
    target.0.writer().write(move |session| fill_within(session, &name, &E::FILLING, &origin)).await
}

fn fill_within(session: &dyn Session, name: &str, filling: &Filling, origin: &dyn Origin) -> Result<Copied> {
    refuse_what_is_there(session, name, filling)?;
    let mut counts = Vec::with_capacity(TABLES.len());
    for (table, columns, order) in TABLES {
        counts.push(copy(session, filling, origin, (table, columns, order))?);
    }
    let ledger: Vec<Row> = of(origin, origin.session().query(LEDGER_COLUMNS, &[]))?;
    for Row(values) in &ledger {
        session.execute(PUT_LEDGER, values)?;
    }
    for Row(values) in &of(origin, origin.session().query(AUDIT_ENDS, &[]))? {
        session.execute(PUT_AUDIT_END, values)?;
    }
    if let Some(statement) = filling.finish {
        session.query(statement, &[])?;
    }
    let (before, after) = (of(origin, reads::overview(origin.session()))?, reads::overview(session)?);
    if before != after {
        let said = format!("what arrived in {name} is not what left {}; nothing was moved", origin.name());
        return Err(StoreError::Failed(said).into());
    }
    let [workspaces, runs, subscriptions, changes, deliveries, attempts, destinations, audited, _] =
        counts.try_into().unwrap_or_default();
    let Ledger { open, .. } = after.ledger;
    Ok(Copied { workspaces, runs, subscriptions, changes, deliveries, open, attempts, destinations, audited })
}

/// What goes wrong where the rows come from is about that store.
fn of<T>(origin: &dyn Origin, result: Result<T>) -> Result<T> {
    result.map_err(|fault| Fault::Store(fault.about(origin.name())))
}

fn refuse_what_is_there(session: &dyn Session, name: &str, filling: &Filling) -> Result<()> {
    if let Some(statement) = filling.in_use
        && session.exists(statement, &[])?
    {
        return Err(StoreError::InUse(name.to_owned()).into());
    }
    for (table, ..) in TABLES {
        if session.exists(&format!("SELECT 1 FROM {table} LIMIT 1"), &[])? {
            return Err(StoreError::Taken { path: name.to_owned(), what: table }.into());
        }
    }
    if session.exists("SELECT 1 FROM ledger WHERE owed > 0", &[])? {
        return Err(StoreError::Taken { path: name.to_owned(), what: "a ledger" }.into());
    }
    Ok(())
}

/// Says how many rows there were.
fn copy(
    session: &dyn Session,
    filling: &Filling,
    origin: &dyn Origin,
    (table, columns, order): (&str, &str, &str),
) -> Result<u64> {
    let mut copied = 0;
    let mut refused = None;
    let all = format!("SELECT {columns} FROM {table} ORDER BY {order}");
    let width = columns.split(',').count();
    let each = origin.each(&all, AT_ONCE, &mut |rows| {
        let values: Vec<Value> = rows.iter().flat_map(|Row(values)| values.iter().cloned()).collect();
        let insert = insert(table, columns, filling.with_numbers, rows.len(), width);
        copied += session.execute(&insert, &values).inspect_err(|fault| refused = Some(fault.clone()))?;
        Ok(())
    });
    match (each, refused) {
        (Ok(()), _) => Ok(copied),
        // Not where it was read, but where it was written.
        (Err(_), Some(fault)) => Err(fault),
        (Err(fault), None) => of(origin, Err(fault)),
    }
}

/// `INSERT INTO t (a, b) VALUES (?1, ?2), (?3, ?4)`
fn insert(table: &str, columns: &str, with_numbers: &str, rows: usize, width: usize) -> String {
    let mut statement = format!("INSERT INTO {table} ({columns}) {with_numbers} VALUES ");
    for row in 0..rows {
        statement.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..width {
            let before = if column == 0 { "" } else { ", " };
            // Writing to a String can't fail.
            let _ = write!(statement, "{before}?{}", row * width + column + 1);
        }
        statement.push(')');
    }
    statement
}
