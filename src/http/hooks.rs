//! `POST /slack/commands` and the like: requests that chats send. Judged by their surface, which knows the signature;
//! here is only what holds for all: how much, how long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Pages;

/// Bytes of a body, at most: chats send a few kilobytes.
const LONGEST: usize = 64 * 1024;
/// A body that takes longer to come is given up.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn receive(
    State(pages): State<Arc<Pages>>,
    Path((surface, action)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(hook) = pages.hooks.get(surface.as_str()) else { return StatusCode::NOT_FOUND.into_response() };
    match read(body).await {
        Ok(body) => hook.receive(&action, &headers, &body).await.into_response(),
        Err(status) => status.into_response(),
    }
}

/// The whole of a body that is neither too long nor too slow.
pub async fn read(body: Body) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(PATIENCE, to_bytes(body, LONGEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
