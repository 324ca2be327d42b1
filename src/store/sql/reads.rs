//! The operations that only read, each on one snapshot.

use std::collections::BTreeMap;

use super::rows;
use super::session::{Fault, Result, Row, Session, Value, values};
use super::statements as sql;
use crate::model::{Change, DeliveryState, Destination, Place, RunId, Timestamp, WorkspaceKey};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow, Ledger, Loaded, Overview, PlaceRow, Told};

pub fn load(session: &dyn Session) -> Result<Loaded> {
    Ok(Loaded {
        subscriptions: session.all(sql::ALL_SUBSCRIPTIONS, &[], |row| rows::json(row, 0))?,
        runs: session.all(sql::ALL_RUNS, &[], |row| Ok((WorkspaceKey(row.get(2)?), rows::run(row)?)))?,
        workspaces: session.all(sql::ALL_WORKSPACES, &[], rows::workspace)?,
    })
}

/// The destinations from `first` to `last` by name, both included, to which something is owed, and how much.
pub fn open_between(session: &dyn Session, first: &str, last: &str) -> Result<Vec<(String, i64)>> {
    session.all(sql::OPEN_BETWEEN, values![first, last], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub fn places(session: &dyn Session) -> Result<Vec<PlaceRow>> {
    let mut places: BTreeMap<String, (Place, u64)> = BTreeMap::new();
    let remembered = session.all(sql::ALL_PLACES, &[], |row| {
        Ok((row.get::<String>(0)?, rows::json::<Place>(row, 1).unwrap_or_default()))
    })?;
    places.extend(remembered.into_iter().map(|(name, place)| (name, (place, 0))));
    let open = session
        .all(sql::OPEN_BY_DESTINATION, &[], |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?.unsigned_abs())))?;
    for (name, open) in open {
        places.entry(name).or_default().1 = open;
    }
    let row = |(name, (place, open))| PlaceRow { to: Destination::from(name), place, open };
    Ok(places.into_iter().map(row).collect())
}

/// Changes that can't be read are left out, as everywhere.
pub fn history(session: &dyn Session, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Result<Vec<Told>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let newest = session.all(sql::NEWEST_CHANGES, values![workspace.0, run.as_str(), limit], |row| {
        Ok((row.get::<i64>(0)?, rows::json::<Change>(row, 1)))
    })?;
    let owed = format!("{} {}", sql::DELIVERY_COLUMNS, sql::OF_CHANGE);
    let mut told = Vec::new();
    for (sequence, change) in newest.into_iter().rev() {
        let Ok(change) = change else { continue };
        let mut deliveries = Vec::new();
        for (row, number) in session.all(&owed, values![workspace.0, run.as_str(), sequence], numbered)? {
            deliveries.push((row, session.all(sql::ATTEMPTS, values![number], rows::attempt)?));
        }
        told.push(Told { change, deliveries });
    }
    Ok(told)
}

fn numbered(row: &Row) -> Result<(DeliveryRow, i64)> {
    Ok((rows::delivery_row(row)?, row.get(17)?))
}

pub fn deliveries(session: &dyn Session, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>> {
    let state = filter.state.map(|state| state.as_str().to_owned());
    let to = filter.to.as_ref().map(ToString::to_string);
    let run = filter.run.as_ref().map(ToString::to_string);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut conditions = Vec::new();
    let mut parameters: Vec<Value> = Vec::new();
    for (column, value) in [("state", &state), ("destination", &to), ("run", &run)] {
        if let Some(value) = value {
            parameters.push(value.into());
            conditions.push(format!("d.{column} = ?{}", parameters.len()));
        }
    }
    if run.is_some() {
        conditions.push("d.workspace <> ''".to_owned());
    }
    parameters.push(limit.into());
    let given = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let statement = format!("{} {given} ORDER BY d.number DESC LIMIT ?{}", sql::DELIVERY_COLUMNS, parameters.len());
    let found = session.all(&statement, &parameters, |row| Ok(rows::delivery_row(row)))?;
    let readable = |row: Result<DeliveryRow>| match row {
        Err(Fault::Unreadable(_)) => None,
        row => Some(row),
    };
    found.into_iter().filter_map(readable).collect()
}

pub fn delivery(session: &dyn Session, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>> {
    if id.is_empty() {
        return Ok(None);
    }
    let statement = format!("{} {}", sql::DELIVERY_COLUMNS, sql::BY_ID);
    let mut found = session.all(&statement, values![id], numbered)?;
    if found.is_empty() {
        // A person typed the end of an id: looking at each of them is soon enough.
        let statement = format!("{} {}", sql::DELIVERY_COLUMNS, sql::BY_END_OF_ID);
        found = session.all(&statement, values![id], numbered)?;
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((row, number)), None) => Ok(Some((row, session.all(sql::ATTEMPTS, values![number], rows::attempt)?))),
        _ => Ok(None),
    }
}

/// All but what was recovered.
pub fn overview(session: &dyn Session) -> Result<Overview> {
    let count =
        |statement: &str| -> Result<u64> { Ok(session.one(statement, &[], |row| row.get::<i64>(0))?.unsigned_abs()) };
    let oldest_open = session.one(sql::OLDEST_OPEN, &[], |row| rows::maybe_moment(row, 0))?;
    let deliveries =
        session.all(sql::COUNT_BY_STATE, &[], |row| Ok((rows::state(row, 0)?, row.get::<i64>(1)?.unsigned_abs())))?;
    let ledger = ledger(session, &deliveries, count(sql::COUNT_TOLD)?)?;
    Ok(Overview {
        deliveries,
        ledger,
        oldest_open,
        changes: count(sql::COUNT_CHANGES)?,
        subscriptions: count(sql::COUNT_SUBSCRIPTIONS)?,
        recovered: Vec::new(),
    })
}

/// What was deleted since is counted in the table, everything else by its rows.
fn ledger(session: &dyn Session, rows: &[(DeliveryState, u64)], told: u64) -> Result<Ledger> {
    let [owed, merged, delivered, folded, suppressed, dead] = session.one(sql::LEDGER, &[], |row| {
        let mut columns = [0; 6];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = row.get::<i64>(index)?.unsigned_abs();
        }
        Ok(columns)
    })?;
    let mut ledger = Ledger { owed, delivered, folded: folded + told, suppressed: suppressed + merged, dead, open: 0 };
    for (state, count) in rows {
        match state {
            DeliveryState::Delivered => ledger.delivered += count,
            DeliveryState::Superseded => ledger.suppressed += count.saturating_sub(told),
            DeliveryState::Dead => ledger.dead += count,
            DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown => ledger.open += count,
        }
    }
    Ok(ledger)
}

/// Up to `limit` numbers after `after` of what is older than `before`.
pub fn old(session: &dyn Session, statement: &str, before: Timestamp, after: i64, limit: i64) -> Result<Vec<i64>> {
    session.all(statement, values![before.as_millisecond(), after, limit], |row| row.get(0))
}
