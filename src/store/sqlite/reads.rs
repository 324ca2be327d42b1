//! The operations that only read, each on one snapshot of the file.

use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql};

use super::statements as sql;
use super::{rows, writes};
use crate::model::{Destination, Timestamp, WorkspaceKey};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow, Loaded, Overview, WorkspaceState};

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
                seen_at: None,
            })
        })?,
    })
}

pub fn next_due(connection: &Connection, except: &[Destination]) -> rusqlite::Result<Option<Timestamp>> {
    let earliest = writes::due(connection, except)?.into_iter().map(|(_, next_at)| next_at).min();
    earliest.map(rows::from_millisecond).transpose()
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
    let found = all(connection, &statement, [id], |row| Ok((rows::delivery_row(row)?, row.get::<_, i64>(10)?)))?;
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
    Ok(Overview {
        deliveries: all(connection, sql::COUNT_BY_STATE, [], |row| {
            Ok((rows::state(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?,
        oldest_open: oldest.optional()?.flatten(),
        changes: count(sql::COUNT_CHANGES)?,
        subscriptions: count(sql::COUNT_SUBSCRIPTIONS)?,
        recovered: Vec::new(),
        ledger: Default::default(),
    })
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
