//! What the operations that write have in common: the order of a queue, how rows end, what is remembered of places.

use std::collections::BTreeSet;

use super::rows;
use super::session::{Result, Row, Session, values};
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
    pub fn of_row(row: &Row) -> Result<Queue> {
        Queue::at(row, 0)
    }

    pub fn at(row: &Row, column: usize) -> Result<Queue> {
        Ok(Queue { destination: row.get(column)?, workspace: row.get(column + 1)?, run: row.get(column + 2)? })
    }

    /// To be called when a row of it was added, ended or brought back.
    pub fn mark_head(&self, session: &dyn Session) -> Result<()> {
        let Queue { destination, workspace, run } = self;
        let head: Option<(i64, i64)> = session
            .first(sql::QUEUE_HEAD, values![destination, workspace, run], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some((number, lane)) = head {
            session.execute(sql::MARK_HEAD, values![destination, workspace, run, number, lane])?;
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
    pub fn by_id(session: &dyn Session, id: uuid::Uuid) -> Result<Option<Found>> {
        let read = |row: &Row| {
            Ok(Found { number: row.get(0)?, queue: Queue::at(row, 1)?, state: row.get(4)?, attempt: row.get(5)? })
        };
        session.first(sql::BY_EXACT_ID, values![id.to_string()], read)
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

    pub fn of(&self, session: &dyn Session, number: i64) -> Result<()> {
        let End { state, at, reason, message_id } = self;
        let ended = session.one(sql::END, values![number, state, at, reason, message_id], Queue::of_row)?;
        ended.mark_head(session)
    }
}

/// The rows that the message of `number` tells beside its own, in order of recording.
pub fn bound(session: &dyn Session, number: i64) -> Result<Vec<i64>> {
    session.all(sql::BOUND, values![number], |row| row.get(0))
}

/// Nothing is bound to `number` any more: each waits for itself, and may have been told where an attempt at `number`
/// may have arrived. Says which rows.
pub fn free(session: &dyn Session, number: i64) -> Result<Vec<i64>> {
    let freed = bound(session, number)?;
    if !freed.is_empty() {
        session.execute(sql::FREE_BOUND, values![number])?;
        session.execute(sql::UNFOLD, values![number])?;
    }
    Ok(freed)
}

/// Ends a message for good, with everything it was to tell. Brought back, each leaves by itself.
pub fn die(session: &dyn Session, number: i64, at: i64, reason: &str) -> Result<()> {
    let end = End::dead(at, reason);
    for told in free(session, number)? {
        end.of(session, told)?;
    }
    end.of(session, number)
}

/// What was told by `number` as well.
pub fn end_bound(session: &dyn Session, number: i64, at: i64, message_id: Option<&str>) -> Result<()> {
    let told = session.all(sql::END_BOUND, values![number, at, message_id], Queue::of_row)?;
    let queues: BTreeSet<Queue> = told.into_iter().collect();
    queues.iter().try_for_each(|queue| queue.mark_head(session))
}

/// None: nothing is remembered.
pub fn place(session: &dyn Session, to: &Destination) -> Result<Option<Place>> {
    let found = session.first(sql::PLACE, values![to.to_string()], |row| place_at(row, 0, to))?;
    Ok(found.flatten())
}

/// What can't be read is forgotten, so that it stops nobody.
pub fn place_at(row: &Row, column: usize, to: &Destination) -> Result<Option<Place>> {
    if row.get::<Option<String>>(column)?.is_none() {
        return Ok(None);
    }
    let place = rows::json::<Place>(row, column);
    Ok(place.inspect_err(|error| tracing::error!(%to, %error, "what was remembered of it can't be read")).ok())
}

/// Writes what differs; nothing is remembered of a place like any other.
pub fn put_place(session: &dyn Session, to: &Destination, before: &Place, place: &Place) -> Result<()> {
    if *place == Place::default() {
        session.execute(sql::DROP_PLACE, values![to.to_string()])?;
    } else if place != before {
        session.execute(sql::PUT_PLACE, values![to.to_string(), rows::to_json(place)?])?;
    }
    Ok(())
}
