//! Between rows and the nouns of the model.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::session::{Result, Row, unreadable};
use crate::model::{Delivery, DeliveryState, Destination, Folding, News, RunState, Timestamp, WorkspaceKey};
use crate::store::{Attempt, DeliveryRow, StoreError, WorkspaceState};

pub fn to_json<T: Serialize>(value: &T) -> Result<String> {
    let unwritable = |error: serde_json::Error| StoreError::Failed(error.to_string());
    Ok(serde_json::to_string(value).map_err(unwritable)?)
}

pub fn json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T> {
    let text = row.text(column)?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

/// Anything that is made from its text.
pub fn parsed<T>(row: &Row, column: usize) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = row.text(column)?;
    text.parse().map_err(|error| unreadable(column, error))
}

pub fn from_millisecond(at: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(at).map_err(|error| unreadable(0, error))
}

pub fn moment(row: &Row, column: usize) -> Result<Timestamp> {
    from_millisecond(row.get(column)?)
}

pub fn maybe_moment(row: &Row, column: usize) -> Result<Option<Timestamp>> {
    row.get::<Option<i64>>(column)?.map(from_millisecond).transpose()
}

/// Columns 0 and 1: version and state.
pub fn run(row: &Row) -> Result<RunState> {
    Ok(RunState { version: row.get(0)?, ..json(row, 1)? })
}

/// The columns of `ALL_WORKSPACES`.
pub fn workspace(row: &Row) -> Result<WorkspaceState> {
    Ok(WorkspaceState {
        key: WorkspaceKey(row.get(0)?),
        baseline_at: moment(row, 1)?,
        horizon: maybe_moment(row, 2)?,
        seen_at: maybe_moment(row, 3)?,
    })
}

pub fn state(row: &Row, column: usize) -> Result<DeliveryState> {
    use DeliveryState::{Dead, Delivered, InFlight, Pending, Superseded, Unknown};
    let text = row.text(column)?;
    [Pending, InFlight, Delivered, Unknown, Dead, Superseded]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| unreadable(column, format!("{text:?} is no state of a delivery")))
}

/// Whether a row of `changes` in this workspace is a notice.
pub const OF_NOTICES: &str = "";

/// The ten columns of `DELIVERY`, with which `DELIVERY_COLUMNS` begins too.
pub fn delivery(row: &Row) -> Result<Delivery> {
    let is_notice = row.text(6)? == OF_NOTICES;
    Ok(Delivery {
        id: parsed(row, 0)?,
        to: Destination::from(row.get::<String>(1)?),
        template: row.get(2)?,
        attempt: row.get(3)?,
        tries: row.get(8)?,
        created_at: moment(row, 4)?,
        unknown_since: maybe_moment(row, 5)?,
        told_elsewhere: row.get(9)?,
        news: if is_notice { News::Notice(json(row, 7)?) } else { News::Change(json(row, 7)?) },
    })
}

pub fn delivery_row(row: &Row) -> Result<DeliveryRow> {
    let state = state(row, 10)?;
    let folded_into = row.get::<Option<String>>(15)?.map(|id| id.parse()).transpose();
    let folded_into = folded_into.map_err(|error| unreadable(15, error))?;
    let waits = matches!(state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown);
    Ok(DeliveryRow {
        delivery: delivery(row)?,
        state,
        next_at: if waits && folded_into.is_none() { maybe_moment(row, 11)? } else { None },
        reason: row.get(12)?,
        settled_at: maybe_moment(row, 13)?,
        subscriptions: subscriptions(&row.get::<String>(14)?),
        folded_into,
        folding: folding(row, 16)?,
    })
}

/// No id of a subscription has a comma.
pub fn subscriptions(text: &str) -> Vec<String> {
    text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

pub fn folding(row: &Row, column: usize) -> Result<Option<Folding>> {
    match row.get::<Option<String>>(column)?.as_deref() {
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

pub fn attempt(row: &Row) -> Result<Attempt> {
    Ok(Attempt {
        attempt: row.get(0)?,
        started_at: moment(row, 1)?,
        ended_at: maybe_moment(row, 2)?,
        outcome: row.get(3)?,
        reason: row.get(4)?,
    })
}
