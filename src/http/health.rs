//! `/healthz`: the process lives. `/readyz`: it does its work. `/metrics`: the figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Pages;
use crate::fate::{self, Condition};
use crate::metrics::{OfSurface, OfWorkspace};
use crate::model::{DeliveryState, Timestamp};
use crate::store::{Ledger, Overview, StoreError};

/// Destinations named in the body of `/readyz`.
const NAMED: usize = 50;

pub async fn alive() -> &'static str {
    "ok\n"
}

/// Before there is a store to be asked.
pub async fn starting(State(store): State<String>) -> Response {
    let body = json!({ "ready": false, "draining": false, "store": format!("the start waits for {store}") });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// 200 once the store can be written and each workspace was polled, well or not; 503 before that and while ending.
/// Throttling and failing polls show in the body alone: restarting would not mend them.
pub async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let now = (pages.clock)();
    let draining = pages.draining.load(Ordering::Relaxed);
    let store = pages.store.probe().await;
    let workspaces: Vec<_> = pages
        .workspaces
        .iter()
        .map(|workspace| {
            let freshness = pages.tracker.freshness(&workspace.key(), None);
            json!({
                "name": workspace.name,
                "polled": pages.tracker.was_polled(&workspace.key()),
                "elsewhere": pages.tracker.is_elsewhere(&workspace.key()),
                "seen_at": freshness.seen_at,
                "seconds_since_seen": freshness.seen_at.map(|seen| now.duration_since(seen).as_secs()),
                "failing_since": freshness.failure.as_ref().map(|failure| failure.since),
                "error": freshness.failure.map(|failure| failure.said),
                "calls_blocked_until": pages.meter.blocked_until(&workspace.region),
            })
        })
        .collect();
    let connected =
        |surface: &&'static str| pages.metrics.connected.get(&OfSurface { surface }).map(|gauge| gauge.get());
    let surfaces =
        pages.surfaces.iter().map(|surface| json!({ "name": surface, "connected": connected(surface) == Some(1) }));
    let surfaces: Vec<_> = surfaces.collect();
    let polled = pages.workspaces.iter().all(|workspace| pages.tracker.was_polled(&workspace.key()));
    let ready = store.is_ok() && polled && !draining;
    let destinations = destinations(&pages, now).await.unwrap_or_default();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": ready,
        "draining": draining,
        "store": store.err().map_or_else(|| "ok".to_owned(), |error| error.to_string()),
        "workspaces": workspaces,
        "surfaces": surfaces,
        "destinations": destinations,
    });
    (status, Json(body)).into_response()
}

/// Those in trouble: the condition of each, what waits for it and the command that helps.
async fn destinations(pages: &Pages, now: Timestamp) -> Result<Vec<Value>, StoreError> {
    let places = pages.store.places().await?;
    let troubled = fate::troubled(&places, &pages.configuration, now).into_iter().take(NAMED);
    let said = troubled.map(|(row, condition)| {
        let mut value = json!(condition);
        if let Some(object) = value.as_object_mut() {
            object.insert("to".to_owned(), json!(row.to));
            object.insert("waiting".to_owned(), json!(row.open));
            object.insert("command".to_owned(), json!(condition.remedy(&row.to)));
        }
        value
    });
    Ok(said.collect())
}

pub async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    if let Err(error) = measure(&pages, (pages.clock)()).await {
        // The other figures are needed all the more.
        tracing::debug!(%error, "the store's figures are old");
    }
    match pages.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written; the log says why\n").into_response()
        }
    }
}

/// Gauges that are read off when somebody asks.
async fn measure(pages: &Pages, now: Timestamp) -> Result<(), StoreError> {
    for workspace in &pages.workspaces {
        let labels = OfWorkspace { workspace: workspace.name.clone() };
        if pages.tracker.is_elsewhere(&workspace.key()) {
            pages.metrics.poll_lag.remove(&labels);
            continue;
        }
        // Never seen is as old as this process.
        let seen_at = pages.tracker.freshness(&workspace.key(), None).seen_at.unwrap_or(pages.started_at);
        pages.metrics.poll_lag.get_or_create(&labels).set(now.duration_since(seen_at).as_secs_f64().max(0.0));
    }
    let Overview { deliveries, oldest_open, subscriptions, ledger, .. } = pages.store.overview().await?;
    let Ledger { owed, delivered, folded, suppressed, dead, open } = ledger;
    let states =
        [("delivered", delivered), ("folded", folded), ("suppressed", suppressed), ("dead", dead), ("open", open)];
    pages.metrics.balance(owed, &states);
    let places = pages.store.places().await?;
    let troubled = fate::troubled(&places, &pages.configuration, now);
    let count = |is: fn(&Condition) -> bool| {
        i64::try_from(troubled.iter().filter(|(_, condition)| is(condition)).count()).unwrap_or(i64::MAX)
    };
    pages.metrics.dead_destinations.set(count(|condition| matches!(condition, Condition::Dead { .. })));
    let fails = |condition: &Condition| matches!(condition, Condition::Closed { .. } | Condition::Failing { .. });
    pages.metrics.failing_destinations.set(count(fails));
    let still = [DeliveryState::Pending, DeliveryState::InFlight, DeliveryState::Unknown];
    let count: u64 = deliveries.iter().filter(|(state, _)| still.contains(state)).map(|(_, count)| count).sum();
    pages.metrics.open.set(i64::try_from(count).unwrap_or(i64::MAX));
    let age = oldest_open.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0));
    pages.metrics.oldest_open.set(age);
    pages.metrics.subscriptions.set(i64::try_from(subscriptions).unwrap_or(i64::MAX));
    Ok(())
}
