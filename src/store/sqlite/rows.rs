//! Between rows and the nouns of the model.

use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Delivery, DeliveryState, Destination, Folding, News, RunState, Timestamp};
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

/// Whether a row of `changes` in this workspace is a notice.
pub const OF_NOTICES: &str = "";

/// The eight columns of `DELIVERY`, with which `DELIVERY_COLUMNS` begins too.
pub fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let is_notice = row.get_ref(6)?.as_str().map_err(|error| unreadable(6, error))? == OF_NOTICES;
    Ok(Delivery {
        id: parsed(row, 0)?,
        to: Destination::from(row.get::<_, String>(1)?),
        template: row.get(2)?,
        attempt: row.get(3)?,
        tries: row.get("tries")?,
        created_at: moment(row, 4)?,
        unknown_since: maybe_moment(row, 5)?,
        told_elsewhere: row.get("told_elsewhere")?,
        news: if is_notice { News::Notice(json(row, 7)?) } else { News::Change(json(row, 7)?) },
    })
}

pub fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let state = state(row, 8)?;
    let folded_into = row.get::<_, Option<String>>(13)?.map(|id| id.parse()).transpose();
    let folded_into = folded_into.map_err(|error| unreadable(13, error))?;
    let waits = matches!(state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown);
    Ok(DeliveryRow {
        delivery: delivery(row)?,
        state,
        next_at: if waits && folded_into.is_none() { maybe_moment(row, 9)? } else { None },
        reason: row.get(10)?,
        settled_at: maybe_moment(row, 11)?,
        subscriptions: subscriptions(&row.get::<_, String>(12)?),
        folded_into,
        folding: folding(row, 14)?,
    })
}

/// No id of a subscription has a comma.
pub fn subscriptions(text: &str) -> Vec<String> {
    text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

pub fn folding(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Folding>> {
    match row.get_ref(column)?.as_str_or_null().map_err(|error| unreadable(column, error))? {
        None => Ok(None),
        Some("rate") => Ok(Some(Folding::Rate)),
        Some("late") => Ok(Some(Folding::Late)),
        Some(other) => Err(unreadable(column, format!("{other:?} is no reason to fold"))),
    }
}

pub fn folding_name(folding: Option<Folding>) -> Option<&'static str> {
    folding.map(|folding| match folding {
        Folding::Rate => "rate",
        Folding::Late => "late",
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
