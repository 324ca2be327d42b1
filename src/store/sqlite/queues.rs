//! What the operations that write have in common: the order of a queue, how rows end, what is remembered of places.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::rows;
use super::statements as sql;
use crate::model::{Destination, Place};

/// The rows whose order holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    pub destination: String,
    pub workspace: String,
    pub run: String,
}

impl Queue {
    /// Columns 0 to 2.
    pub fn of_row(row: &Row<'_>) -> rusqlite::Result<Queue> {
        Queue::at(row, 0)
    }

    pub fn at(row: &Row<'_>, column: usize) -> rusqlite::Result<Queue> {
        Ok(Queue { destination: row.get(column)?, workspace: row.get(column + 1)?, run: row.get(column + 2)? })
    }

    /// To be called when a row of it was added, ended or brought back.
    pub fn mark_head(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Queue { destination, workspace, run } = self;
        let head: Option<(i64, i64)> = connection
            .prepare_cached(sql::QUEUE_HEAD)?
            .query_row(params![destination, workspace, run], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((number, lane)) = head {
            connection.prepare_cached(sql::MARK_HEAD)?.execute(params![destination, workspace, run, number, lane])?;
        }
        Ok(())
    }
}

/// A row as it is found by its id.
pub struct Found {
    pub number: i64,
    pub queue: Queue,
    pub state: String,
    pub attempt: u32,
}

impl Found {
    pub fn by_id(connection: &Connection, id: uuid::Uuid) -> rusqlite::Result<Option<Found>> {
        let read = |row: &Row<'_>| {
            Ok(Found { number: row.get(0)?, queue: Queue::at(row, 1)?, state: row.get(4)?, attempt: row.get(5)? })
        };
        connection.prepare_cached(sql::BY_EXACT_ID)?.query_row([id.to_string()], read).optional()
    }
}

/// How a row ends.
pub struct End<'a> {
    pub state: &'static str,
    /// Milliseconds.
    pub at: i64,
    pub reason: Option<&'a str>,
    pub message_id: Option<&'a str>,
}

impl End<'_> {
    pub fn dead(at: i64, reason: &str) -> End<'_> {
        End { state: "dead", at, reason: Some(reason), message_id: None }
    }

    pub fn of(&self, connection: &Connection, number: i64) -> rusqlite::Result<()> {
        let End { state, at, reason, message_id } = self;
        let ended = connection
            .prepare_cached(sql::END)?
            .query_row(params![number, state, at, reason, message_id], Queue::of_row)?;
        ended.mark_head(connection)
    }
}

/// The rows that the message of `number` tells beside its own, in order of recording.
pub fn bound(connection: &Connection, number: i64) -> rusqlite::Result<Vec<i64>> {
    connection.prepare_cached(sql::BOUND)?.query_map([number], |row| row.get(0))?.collect()
}

/// Nothing is bound to `number` any more: each waits for itself, and may have been told where an attempt at `number`
/// may have arrived. Says which rows.
pub fn free(connection: &Connection, number: i64) -> rusqlite::Result<Vec<i64>> {
    let freed = bound(connection, number)?;
    if !freed.is_empty() {
        connection.prepare_cached(sql::FREE_BOUND)?.execute([number])?;
        connection.prepare_cached(sql::UNFOLD)?.execute([number])?;
    }
    Ok(freed)
}

/// Ends a message for good, with everything it was to tell. Brought back, each leaves by itself.
pub fn die(connection: &Connection, number: i64, at: i64, reason: &str) -> rusqlite::Result<()> {
    let end = End::dead(at, reason);
    for told in free(connection, number)? {
        end.of(connection, told)?;
    }
    end.of(connection, number)
}

/// What was told by `number` as well.
pub fn end_bound(
    connection: &Connection,
    number: i64,
    at: i64,
    message_id: Option<&dyn ToSql>,
) -> rusqlite::Result<()> {
    let queues: BTreeSet<Queue> = connection
        .prepare_cached(sql::END_BOUND)?
        .query_map(params![number, at, message_id], Queue::of_row)?
        .collect::<rusqlite::Result<_>>()?;
    queues.iter().try_for_each(|queue| queue.mark_head(connection))
}

/// None: nothing is remembered. What can't be read is forgotten, so that it stops nobody.
pub fn place(connection: &Connection, to: &Destination) -> rusqlite::Result<Option<Place>> {
    let found = connection
        .prepare_cached(sql::PLACE)?
        .query_row([to.to_string()], |row| Ok(rows::json::<Place>(row, 0)))
        .optional()?;
    Ok(found.and_then(|place| {
        place.inspect_err(|error| tracing::error!(%to, %error, "what was remembered of it can't be read")).ok()
    }))
}

/// Writes what differs; nothing is remembered of a place like any other.
pub fn put_place(connection: &Connection, to: &Destination, before: &Place, place: &Place) -> rusqlite::Result<()> {
    if *place == Place::default() {
        connection.prepare_cached(sql::DROP_PLACE)?.execute([to.to_string()])?;
    } else if place != before {
        connection.prepare_cached(sql::PUT_PLACE)?.execute(params![to.to_string(), rows::to_json(place)?])?;
    }
    Ok(())
}
