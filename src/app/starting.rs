//! From the address to the built service: who asks meanwhile is answered.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{App, AppError};
use crate::config::Config;
use crate::http;
use crate::model::Clock;

/// What is wrong with the store is said rather than what is wrong with the address, where it is known so soon.
const STORE_FIRST: Duration = Duration::from_secs(5);

/// Builds the service behind `server.listen`, which answers from the beginning on: that the process lives, and what its
/// start waits for. None: the stop came first.
pub async fn start(
    config: &Config,
    clock: Clock,
    stop: &CancellationToken,
) -> Result<Option<(App, TcpListener)>, AppError> {
    let building = App::build(config, None, clock);
    let listener = match listen(config).await {
        Ok(listener) => listener,
        // A second service has the same address, but hears of the store.
        Err(error) => {
            let built = tokio::time::timeout(STORE_FIRST, building).await;
            return Err(built.ok().and_then(Result::err).unwrap_or(error));
        }
    };
    let (listener, early) = twice(listener).map_err(|error| unusable(config, &error))?;
    let built = stop.child_token();
    tokio::spawn(http::serve_starting(early, config.store.shown(), built.clone()));
    let app = tokio::select! {
        app = building => Some(app),
        // The server of the store may be away for long.
        () = stop.cancelled() => None,
    };
    built.cancel();
    Ok(app.transpose()?.map(|app| (app, listener)))
}

/// Binds the address of `server.listen`.
pub async fn listen(config: &Config) -> Result<TcpListener, AppError> {
    TcpListener::bind(config.server.listen).await.map_err(|error| unusable(config, &error))
}

fn unusable(config: &Config, error: &std::io::Error) -> AppError {
    AppError::Listen { address: config.server.listen.to_string(), said: error.kind().to_string() }
}

/// Who connects waits at the socket, whichever of the two takes the next one.
fn twice(listener: TcpListener) -> std::io::Result<(TcpListener, TcpListener)> {
    let listener = listener.into_std()?;
    let early = TcpListener::from_std(listener.try_clone()?)?;
    Ok((TcpListener::from_std(listener)?, early))
}
