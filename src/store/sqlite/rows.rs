//! Between rows and the nouns of the model.

use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Delivery, DeliveryState, Destination, RunState, Timestamp};
use crate::store::{Attempt, DeliveryRow};

type Cause = Box<dyn std::error::Error + Send + Sync>;

pub fn to_json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn unreadable(column: usize, cause: impl Into<Cause>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
}

pub fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

/// Anything that is made from its text.
pub fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: Into<Cause>,
{
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    text.parse().map_err(|error: T::Err| unreadable(column, error))
}

pub fn from_millisecond(at: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(at).map_err(|error| unreadable(0, error))
}

pub fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    from_millisecond(row.get(column)?)
}

pub fn maybe_moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get::<_, Option<i64>>(column)?.map(from_millisecond).transpose()
}

/// Columns 0 and 1: version and state.
pub fn run(row: &Row<'_>) -> rusqlite::Result<RunState> {
    Ok(RunState { version: row.get(0)?, ..json(row, 1)? })
}

pub fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<DeliveryState> {
    use DeliveryState::{Dead, Delivered, InFlight, Pending, Superseded, Unknown};
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    [Pending, InFlight, Delivered, Unknown, Dead, Superseded]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| unreadable(column, format!("{text:?} is no state of a delivery")))
}

/// The six columns of `CLAIM`, with which `DELIVERY_COLUMNS` begins too.
pub fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: parsed(row, 0)?,
        to: Destination::from(row.get::<_, String>(1)?),
        template: row.get(2)?,
        attempt: row.get(3)?,
        created_at: moment(row, 4)?,
        news: crate::model::News::Change(json(row, 5)?),
        unknown_since: None,
    })
}

pub fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let state = state(row, 6)?;
    let open = matches!(state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown);
    Ok(DeliveryRow {
        delivery: delivery(row)?,
        state,
        next_at: if open { maybe_moment(row, 7)? } else { None },
        reason: row.get(8)?,
        settled_at: maybe_moment(row, 9)?,
        subscriptions: Vec::new(),
        folded_into: None,
        folding: None,
    })
}

pub fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        attempt: row.get(0)?,
        started_at: moment(row, 1)?,
        ended_at: maybe_moment(row, 2)?,
        outcome: row.get(3)?,
        reason: row.get(4)?,
    })
}
