//! What is served over HTTP: health, metrics, the board. TLS and authentication are the reverse proxy's job; by default
//! only this machine can reach it.

mod api;
mod board;
mod health;
mod hooks;
mod tokens;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::api::{Automation, document};
pub use self::tokens::Token;
use crate::fate::Configuration;
use crate::meter::Meter;
use crate::metrics::Metrics;
use crate::model::{Clock, Timestamp, Workspace};
use crate::settings::Problem;
use crate::store::Store;
use crate::surfaces::Hook;
use crate::tracker::Tracker;

/// `[server]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the board, health, metrics and inbound commands are served: address and port. Port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Who may use `/api/v1`; none: nobody.
    #[serde(default)]
    pub tokens: Vec<tokens::Settings>,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let named_before = self.tokens.iter().take(index).any(|other| other.name == token.name);
            let repeated =
                named_before.then(|| Problem::new("name", "another token is called so; give each its own name"));
            let found = token.check().into_iter().chain(repeated);
            problems.extend(found.map(|problem| problem.under(&format!("tokens[{index}]"))));
        }
        problems
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address and port; write it like \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\""
        ))
    })
}

/// Connections that linger when the process stops are cut after this.
const GRACE: Duration = Duration::from_secs(2);

/// What the pages show.
pub struct Pages {
    pub tracker: Arc<Tracker>,
    pub meter: Arc<Meter>,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
    pub workspaces: Vec<Workspace>,
    /// Names of the chats that commands come from.
    pub surfaces: Vec<&'static str>,
    pub started_at: Timestamp,
    pub clock: Clock,
    pub draining: AtomicBool,
    pub configuration: Configuration,
    pub automation: Automation,
    /// Chats that send their requests by HTTP, by name.
    pub hooks: HashMap<&'static str, Arc<dyn Hook>>,
}

impl Pages {
    /// From now on `/readyz` says that this process ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

pub fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/", get(board::page))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/{surface}/{action}", post(hooks::receive))
        .merge(api::router())
        .with_state(pages)
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>, stop: CancellationToken) -> std::io::Result<()> {
    serve_until(stop, listener, router(pages)).await
}

/// Serves while there is nothing to show yet: the process lives, and its start waits for `store`.
pub async fn serve_starting(listener: TcpListener, store: String, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new().route("/healthz", get(health::alive)).fallback(health::starting).with_state(store);
    serve_until(stop, listener, router).await
}

async fn serve_until(stop: CancellationToken, listener: TcpListener, router: Router) -> std::io::Result<()> {
    let stopped = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = server => result,
        () = cut => Ok(()),
    }
}
