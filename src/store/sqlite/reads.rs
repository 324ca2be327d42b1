//! The operations that only read, each on one snapshot of the file.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params};

use super::rows;
use super::statements as sql;
use crate::model::{Change, DeliveryState, Destination, Place, RunId, Timestamp, WorkspaceKey};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow, Ledger, Loaded, Overview, PlaceRow, Told, WorkspaceState};

fn all<T, P: Params>(
    connection: &Connection,
    statement: &str,
    parameters: P,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(statement)?.query_map(parameters, read)?.collect()
}

pub fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    Ok(Loaded {
        subscriptions: all(connection, sql::ALL_SUBSCRIPTIONS, [], |row| rows::json(row, 0))?,
        runs: all(connection, sql::ALL_RUNS, [], |row| Ok((WorkspaceKey(row.get(2)?), rows::run(row)?)))?,
        workspaces: all(connection, sql::ALL_WORKSPACES, [], |row| {
            Ok(WorkspaceState {
                key: WorkspaceKey(row.get(0)?),
                baseline_at: rows::moment(row, 1)?,
                horizon: rows::maybe_moment(row, 2)?,
                seen_at: rows::maybe_moment(row, 3)?,
            })
        })?,
    })
}

/// The destinations from `first` to `last` by name, both included, to which something is owed, and how much.
pub fn open_between(connection: &Connection, first: &str, last: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    all(connection, sql::OPEN_BETWEEN, [first, last], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub fn places(connection: &Connection) -> rusqlite::Result<Vec<PlaceRow>> {
    let mut places: BTreeMap<String, (Place, u64)> = BTreeMap::new();
    let remembered = all(connection, sql::ALL_PLACES, [], |row| {
        Ok((row.get::<_, String>(0)?, rows::json::<Place>(row, 1).unwrap_or_default()))
    })?;
    places.extend(remembered.into_iter().map(|(name, place)| (name, (place, 0))));
    let open = all(connection, sql::OPEN_BY_DESTINATION, [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    for (name, open) in open {
        places.entry(name).or_default().1 = open;
    }
    let row = |(name, (place, open))| PlaceRow { to: Destination::from(name), place, open };
    Ok(places.into_iter().map(row).collect())
}

/// Changes that can't be read are left out, as everywhere.
pub fn history(
    connection: &Connection,
    workspace: &WorkspaceKey,
    run: &RunId,
    limit: usize,
) -> rusqlite::Result<Vec<Told>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let newest = all(connection, sql::NEWEST_CHANGES, params![workspace.0, run.as_str(), limit], |row| {
        Ok((row.get::<_, i64>(0)?, rows::json::<Change>(row, 1)))
    })?;
    let owed = format!("{} {}", sql::DELIVERY_COLUMNS, sql::OF_CHANGE);
    let mut told = Vec::new();
    for (sequence, change) in newest.into_iter().rev() {
        let Ok(change) = change else { continue };
        let mut deliveries = Vec::new();
        for (row, number) in all(connection, &owed, params![workspace.0, run.as_str(), sequence], numbered)? {
            deliveries.push((row, all(connection, sql::ATTEMPTS, [number], rows::attempt)?));
        }
        told.push(Told { change, deliveries });
    }
    Ok(told)
}

fn numbered(row: &Row<'_>) -> rusqlite::Result<(DeliveryRow, i64)> {
    Ok((rows::delivery_row(row)?, row.get(15)?))
}

pub fn deliveries(connection: &Connection, filter: &DeliveryFilter) -> rusqlite::Result<Vec<DeliveryRow>> {
    let state = filter.state.map(|state| state.as_str().to_owned());
    let to = filter.to.as_ref().map(ToString::to_string);
    let run = filter.run.as_ref().map(ToString::to_string);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let mut conditions = Vec::new();
    let mut parameters: Vec<&dyn ToSql> = Vec::new();
    for (column, value) in [("state", &state), ("destination", &to), ("run", &run)] {
        if let Some(value) = value {
            parameters.push(value);
            conditions.push(format!("d.{column} = ?{}", parameters.len()));
        }
    }
    if run.is_some() {
        conditions.push("d.workspace <> ''".to_owned());
    }
    parameters.push(&limit);
    let given = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let statement = format!("{} {given} ORDER BY d.number DESC LIMIT ?{}", sql::DELIVERY_COLUMNS, parameters.len());
    let found = all(connection, &statement, parameters.as_slice(), |row| Ok(rows::delivery_row(row)))?;
    let readable = |row: rusqlite::Result<DeliveryRow>| match row {
        Err(rusqlite::Error::FromSqlConversionFailure(..)) => None,
        row => Some(row),
    };
    found.into_iter().filter_map(readable).collect()
}

pub fn delivery(connection: &Connection, id: &str) -> rusqlite::Result<Option<(DeliveryRow, Vec<Attempt>)>> {
    if id.is_empty() {
        return Ok(None);
    }
    let statement = format!("{} {}", sql::DELIVERY_COLUMNS, sql::BY_ID);
    let mut found = all(connection, &statement, [id], numbered)?;
    if found.is_empty() {
        // A person typed the end of an id: looking at each of them is soon enough.
        let by_ending = format!("{} WHERE substr(d.id, -length(?1)) = ?1 LIMIT 2", sql::DELIVERY_COLUMNS);
        found = all(connection, &by_ending, [id], numbered)?;
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((row, number)), None) => Ok(Some((row, all(connection, sql::ATTEMPTS, [number], rows::attempt)?))),
        _ => Ok(None),
    }
}

/// All but what was recovered.
pub fn overview(connection: &Connection) -> rusqlite::Result<Overview> {
    let count = |statement: &str| -> rusqlite::Result<u64> {
        Ok(connection.prepare_cached(statement)?.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    let oldest = connection.prepare_cached(sql::OLDEST_OPEN)?.query_row([], |row| rows::maybe_moment(row, 0));
    let deliveries = all(connection, sql::COUNT_BY_STATE, [], |row| {
        Ok((rows::state(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let ledger = ledger(connection, &deliveries, count(sql::COUNT_TOLD)?)?;
    Ok(Overview {
        deliveries,
        ledger,
        oldest_open: oldest.optional()?.flatten(),
        changes: count(sql::COUNT_CHANGES)?,
        subscriptions: count(sql::COUNT_SUBSCRIPTIONS)?,
        recovered: Vec::new(),
    })
}

/// What was deleted since is counted in the table, everything else by its rows.
fn ledger(connection: &Connection, rows: &[(DeliveryState, u64)], told: u64) -> rusqlite::Result<Ledger> {
    let [owed, merged, delivered, folded, suppressed, dead] =
        connection.prepare_cached(sql::LEDGER)?.query_row([], |row| {
            let mut columns = [0; 6];
            for (index, column) in columns.iter_mut().enumerate() {
                *column = row.get::<_, i64>(index)?.unsigned_abs();
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
pub fn old(
    connection: &Connection,
    statement: &str,
    before: Timestamp,
    after: i64,
    limit: i64,
) -> rusqlite::Result<Vec<i64>> {
    all(connection, statement, (before.as_millisecond(), after, limit), |row| row.get(0))
}
