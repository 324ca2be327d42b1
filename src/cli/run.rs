//! `callboard run`

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Exit, Globals, fail, stop_signal};
use crate::app::{self, AppError};
use crate::config::Config;
use crate::model::Timestamp;

/// Follow the configured workspaces and post what changes, until told to stop
///
/// Ends well on Ctrl-C and SIGTERM: sends under way are finished, the rest waits in the store for the next start.
#[derive(Debug, Args)]
pub struct Run {}

impl Run {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_and_check(&app::beyond_the_shape) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        match serve(&config).await {
            Ok(()) => Exit::Done,
            Err(error @ AppError::Settings(_)) => fail(Exit::Misused, &error.to_string()),
            Err(error) => fail(Exit::Failed, &error.to_string()),
        }
    }
}

async fn serve(config: &Config) -> Result<(), AppError> {
    let stop = CancellationToken::new();
    stop_signal(stop.clone());
    let Some((app, listener)) = app::start(config, Arc::new(Timestamp::now), &stop).await? else {
        tracing::info!("callboard has stopped before it began");
        return Ok(());
    };
    let address =
        listener.local_addr().map_or_else(|_| config.server.listen.to_string(), |address| address.to_string());
    tracing::info!(
        board = format!("http://{address}/"),
        workspaces = app.workspaces.len(),
        channels = config.channels.len(),
        standing_subscriptions = config.subscriptions.len(),
        "callboard runs"
    );
    let result = app.run(listener, stop).await;
    tracing::info!("callboard has stopped");
    result
}
