//! The audit log: appended to, read, and cut off at its old end.

use super::rows;
use super::session::{Result, Row, Session, Value, unreadable, values};
use super::statements as sql;
use crate::model::{AuditRow, Decision, Entry, Link, Timestamp};
use crate::store::{AuditFilter, Audited};

/// So much longer than everything else, which is kept for 30 days.
const LONGER_MS: i64 = 370 * 86_400_000;
const ANCHOR: &str = "anchor";
const HEAD: &str = "head";

pub fn append(session: &dyn Session, entries: &[Entry]) -> Result<()> {
    let mut head = end(session, HEAD)?;
    for entry in entries {
        let row = head.append(entry.clone());
        let Entry { at, person, room, action, decision, reason, count } = &row.entry;
        let (at, decision) = (at.as_millisecond(), decision.as_str());
        let values = values![row.number, at, person, room, action, decision, reason, count, row.hash];
        session.execute(sql::INSERT_AUDIT, values)?;
        head = row.link();
    }
    put_end(session, HEAD, &head)
}

pub fn read(session: &dyn Session, filter: &AuditFilter) -> Result<Audited> {
    let mut conditions = Vec::new();
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(after) = filter.after {
        parameters.push(after.into());
        conditions.push(format!("number > ?{}", parameters.len()));
    }
    if let Some(person) = &filter.person {
        parameters.push(person.into());
        conditions.push(format!("person = ?{}", parameters.len()));
    }
    if filter.denied {
        conditions.push("decision <> 'allowed'".to_owned());
    }
    parameters.push(i64::try_from(filter.limit).unwrap_or(i64::MAX).into());
    let given = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let order = if filter.after.is_some() { "" } else { " DESC" };
    let limit = parameters.len();
    let statement = format!("{} {given} ORDER BY number{order} LIMIT ?{limit}", sql::AUDIT_COLUMNS);
    let rows = session.all(&statement, &parameters, audit_row)?;
    Ok(Audited { rows, anchor: end(session, ANCHOR)?, head: end(session, HEAD)? })
}

/// Deletes up to `limit` of the oldest rows, as long as they are old; the hash of the last one is kept. Says how many.
pub fn prune(session: &dyn Session, before: Timestamp, limit: i64) -> Result<u64> {
    let before = before.as_millisecond().saturating_sub(LONGER_MS);
    let oldest = session.all(sql::OLDEST_AUDITED, values![limit], |row| {
        Ok((row.get::<i64>(1)?, Link { number: row.get(0)?, hash: row.get(2)? }))
    })?;
    let Some((_, last)) = oldest.into_iter().take_while(|(at, _)| *at < before).last() else { return Ok(0) };
    put_end(session, ANCHOR, &last)?;
    session.execute(sql::DELETE_AUDITED, values![last.number])
}

fn end(session: &dyn Session, name: &str) -> Result<Link> {
    session.one(sql::AUDIT_END, values![name], |row| Ok(Link { number: row.get(0)?, hash: row.get(1)? }))
}

fn put_end(session: &dyn Session, name: &str, link: &Link) -> Result<()> {
    session.execute(sql::PUT_AUDIT_END, values![name, link.number, link.hash]).map(drop)
}

fn audit_row(row: &Row) -> Result<AuditRow> {
    let text = row.text(5)?;
    let decision = Decision::ALL.into_iter().find(|decision| decision.as_str() == text);
    let entry = Entry {
        at: rows::moment(row, 1)?,
        person: row.get(2)?,
        room: row.get(3)?,
        action: row.get(4)?,
        decision: decision.ok_or_else(|| unreadable(5, "it is no decision"))?,
        reason: row.get(6)?,
        count: row.get(7)?,
    };
    Ok(AuditRow { number: row.get(0)?, entry, hash: row.get(8)? })
}
