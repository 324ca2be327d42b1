//! Deliveries: list, show, retry, discard; and destinations that are to be tried again.

use axum::http::{Method, StatusCode};
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::tokens::TokenScope;
use super::{Answer, Call, Failure, Route, describe};
use crate::model::{DeliveryState, Destination, News, Timestamp};
use crate::store::{Attempt, DeliveryFilter, DeliveryRow};

/// Rows of a list, unless asked for another number.
const USUAL: usize = 50;
/// And at most.
const MOST: usize = 500;

pub(super) const LIST: Route = Route {
    method: Method::GET,
    path: "/deliveries",
    scope: TokenScope::ReadDeliveries,
    about: "List deliveries of the workspaces that the token opens, newest first",
    query: Some(describe::<Wanted>),
    body: None,
    answers: &[(200, "The deliveries", Some(describe::<Listed>))],
    run: |call| list(call).boxed(),
};

pub(super) const SHOW: Route = Route {
    method: Method::GET,
    path: "/deliveries/{id}",
    scope: TokenScope::ReadDeliveries,
    about: "Show a delivery with every attempt at it",
    query: None,
    body: None,
    answers: &[(200, "The delivery", Some(describe::<Shown>))],
    run: |call| show(call).boxed(),
};

pub(super) const RETRY: Route = Route {
    method: Method::POST,
    path: "/deliveries/{id}/retry",
    scope: TokenScope::WriteDeliveries,
    about: "Bring a dead delivery back",
    query: None,
    body: None,
    answers: &[(204, "It is pending again", None)],
    run: |call| retry(call).boxed(),
};

pub(super) const DISCARD: Route = Route {
    method: Method::POST,
    path: "/deliveries/{id}/discard",
    scope: TokenScope::WriteDeliveries,
    about: "Give up a delivery for good",
    query: None,
    body: None,
    answers: &[(204, "It is superseded", None)],
    run: |call| discard(call).boxed(),
};

pub(super) const RETRY_DESTINATION: Route = Route {
    method: Method::POST,
    path: "/destinations/{id}/retry",
    scope: TokenScope::WriteDeliveries,
    about: "Forget what was against a destination (a channel's name, or surface:room) and send what waits for it; needs a token for all workspaces",
    query: None,
    body: None,
    answers: &[(204, "It is tried again", None)],
    run: |call| retry_destination(call).boxed(),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Only those in this state
    state: Option<DeliveryState>,
    /// Only those to this destination: a channel's name, or surface:room
    to: Option<String>,
    /// Only those of this run, by its whole id
    run: Option<String>,
    /// At most so many, up to 500; 50 otherwise
    limit: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Deliveries")]
struct Listed {
    deliveries: Vec<DeliveryView>,
}

/// A delivery as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
struct DeliveryView {
    #[schemars(with = "String")]
    id: Uuid,
    /// A channel's name, or surface:room.
    to: String,
    /// The name of the workspace, and the run's id; absent for notices.
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// What it tells: the `type` of the generic webhook.
    kind: &'static str,
    state: DeliveryState,
    attempts: u32,
    /// What the last attempt said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[schemars(with = "String")]
    created_at: Timestamp,
    /// When the next attempt is due, while open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    next_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    settled_at: Option<Timestamp>,
    /// Ids of the subscriptions that asked for it.
    subscriptions: Vec<String>,
    /// The delivery whose message tells it as well, or will.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    folded_into: Option<Uuid>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeliveryWithAttempts")]
struct Shown {
    #[serde(flatten)]
    delivery: DeliveryView,
    tried: Vec<AttemptView>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
struct AttemptView {
    attempt: u32,
    #[schemars(with = "String")]
    started_at: Timestamp,
    #[schemars(with = "Option<String>")]
    ended_at: Option<Timestamp>,
    /// delivered, retry, limited, rejected, dead, denied or unknown; absent while under way.
    outcome: Option<String>,
    reason: Option<String>,
}

/// None where the token may not see it: notices belong to all workspaces.
fn view(call: &Call<'_>, row: &DeliveryRow) -> Option<DeliveryView> {
    let delivery = &row.delivery;
    let (kind, change) = match &delivery.news {
        News::Change(change) => (change.kind.event_type(), Some(change)),
        News::Notice(_) => ("notice", None),
    };
    let is_open = match change {
        Some(change) => call.opened(&change.workspace.key()).is_some(),
        None => call.token.opens("*"),
    };
    is_open.then(|| DeliveryView {
        id: delivery.id,
        to: delivery.to.to_string(),
        workspace: change.map(|change| change.workspace.name.clone()),
        run: change.map(|change| change.run.id.to_string()),
        kind,
        state: row.state,
        attempts: delivery.attempt,
        reason: row.reason.clone(),
        created_at: delivery.created_at,
        next_at: row.next_at,
        settled_at: row.settled_at,
        subscriptions: row.subscriptions.clone(),
        folded_into: row.folded_into,
    })
}

async fn list(call: Call<'_>) -> Result<Answer, Failure> {
    let wanted: Wanted = call.query()?;
    let limit = wanted.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Failure::wrong(format!("limit: is 1 to {MOST}")));
    }
    let run = wanted.run.as_deref().map(str::parse).transpose();
    let run = run.map_err(|error: crate::model::NotARunId| Failure::wrong(format!("run: {error}")))?;
    // What the token may not see is among them.
    let looked_at = if call.token.opens("*") { limit } else { MOST };
    let to = wanted.to.map(Destination::from);
    let filter = DeliveryFilter { state: wanted.state, to, run, limit: looked_at };
    let rows = call.pages.store.deliveries(&filter).await?;
    let deliveries = rows.iter().filter_map(|row| view(&call, row)).take(limit).collect();
    Answer::of(StatusCode::OK, &Listed { deliveries })
}

async fn find(call: &Call<'_>) -> Result<(DeliveryView, Vec<Attempt>), Failure> {
    let found = match call.id.parse::<Uuid>() {
        Ok(id) => call.pages.store.delivery(&id.to_string()).await?,
        Err(_) => None,
    };
    let found = found.and_then(|(row, attempts)| Some((view(call, &row)?, attempts)));
    found.ok_or_else(|| Failure::not_found("delivery"))
}

async fn show(call: Call<'_>) -> Result<Answer, Failure> {
    let (delivery, attempts) = find(&call).await?;
    let tried = attempts.into_iter().map(|Attempt { attempt, started_at, ended_at, outcome, reason }| AttemptView {
        attempt,
        started_at,
        ended_at,
        outcome,
        reason,
    });
    Answer::of(StatusCode::OK, &Shown { delivery, tried: tried.collect() })
}

async fn retry(call: Call<'_>) -> Result<Answer, Failure> {
    let (delivery, _) = find(&call).await?;
    call.audit("retry").await?;
    if !call.pages.store.retry(delivery.id, call.now).await? {
        let said = format!("it is {}; only what is dead can be retried", delivery.state.as_str());
        return Err(Failure::conflict(said));
    }
    (call.pages.automation.wake)();
    Ok(Answer::empty())
}

async fn discard(call: Call<'_>) -> Result<Answer, Failure> {
    let (delivery, _) = find(&call).await?;
    call.audit("discard").await?;
    if !call.pages.store.discard(delivery.id, call.now).await? {
        let said = format!("it is {} already; nothing was changed", delivery.state.as_str());
        return Err(Failure::conflict(said));
    }
    (call.pages.automation.wake)();
    Ok(Answer::empty())
}

async fn retry_destination(call: Call<'_>) -> Result<Answer, Failure> {
    let to = Destination::from(call.id.clone());
    if call.token.opens("*") {
        call.audit("retry a destination").await?;
    }
    if !call.token.opens("*") || !call.pages.store.revive(&to, call.now).await? {
        return Err(Failure::not_found("destination that anything is remembered of"));
    }
    (call.pages.automation.wake)();
    Ok(Answer::empty())
}
