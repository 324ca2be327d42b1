//! `callboard run`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{Exit, Globals, environment, fail, stop_signal};
use crate::app::{self, AppError, Reload};
use crate::config::{self, Config};
use crate::model::Timestamp;

/// Follow the configured workspaces and post what changes, until told to stop
///
/// Reads `[[access]]` anew on SIGHUP, and nothing else of the configuration.
/// Ends well on Ctrl-C and SIGTERM: sends under way are finished, the rest waits in the store for the next start.
#[derive(Debug, Args)]
pub struct Run {}

impl Run {
    pub async fn run(self, globals: &Globals) -> Exit {
        let config = match globals.load_and_check(&app::beyond_the_shape) {
            Ok(config) => config,
            Err(exit) => return exit,
        };
        match serve(&config, globals).await {
            Ok(()) => Exit::Done,
            Err(error @ AppError::Settings(_)) => fail(Exit::Misused, &error.to_string()),
            Err(error) => fail(Exit::Failed, &error.to_string()),
        }
    }
}

async fn serve(config: &Config, globals: &Globals) -> Result<(), AppError> {
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
    let (reload, file) = (Arc::clone(&app.reload), globals.config.clone());
    let reloading = tokio::spawn(reload_on_signal(reload, file));
    let result = app.run(listener, stop).await;
    reloading.abort();
    tracing::info!("callboard has stopped");
    result
}

/// Reads the configuration again whenever the process is told that it changed.
async fn reload_on_signal(reload: Arc<Reload>, file: Option<PathBuf>) {
    #[cfg(unix)]
    {
        let Ok(mut hung_up) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) else { return };
        while hung_up.recv().await.is_some() {
            reload.take(config::load_and_check(file.as_deref(), environment(), &app::beyond_the_shape)).await;
        }
    }
    #[cfg(not(unix))]
    drop((reload, file));
}
