//! What chats are made of: their way in, their way out, and what they may ask of the store.

use std::sync::Arc;

use futures_util::FutureExt;
use secrecy::SecretString;
use url::Url;

use super::AppError;
use crate::channels::dingtalk::bot;
use crate::dispatcher::Outlet;
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::net::Net;
use crate::settings::{Problem, SecretError};
use crate::store::Store;
use crate::surfaces::dingtalk::{DingTalk, Settings};
use crate::surfaces::{NoAnswer, Once, Surface};

/// What must happen once is remembered in the store.
pub(super) fn once(store: &Arc<dyn Store>) -> Once {
    let store = Arc::clone(store);
    Arc::new(move |key, now, until| {
        let store = Arc::clone(&store);
        let asked = async move {
            store.once(&key, now, until).await.map_err(|error| {
                tracing::warn!(%error, "whether a request came before is not known, so it is not answered");
                NoAnswer::Forgetful
            })
        };
        asked.boxed()
    })
}

/// The rooms that DingTalk's robot sits in, and its way in.
pub(super) fn dingtalk(
    settings: &Settings,
    net: &Net,
    metrics: &Arc<Metrics>,
    clock: &Clock,
    once: Once,
) -> Result<(Outlet, Arc<dyn Surface>), AppError> {
    let bot = dingtalk_bot(settings, net)?;
    let outlet = Outlet {
        identity: bot.identity(),
        locale: settings.locale.clone(),
        timezone: settings.timezone.clone(),
        ..Outlet::of(Arc::new(bot))
    };
    let access = dingtalk_access(settings)?;
    // Refused here as the Discord bot's address is: at the start, not at the first message.
    net.guard().check(&access.0).map_err(|refused| Problem::new("dingtalk.api", refused.to_string()))?;
    let surface = DingTalk::new(settings, access, net.clone(), Arc::clone(metrics), once, bot::DIALECT);
    Ok((outlet, Arc::new(surface.with_clock(Arc::clone(clock)))))
}

/// The rooms that DingTalk's robot sits in, as a way out.
pub fn dingtalk_bot(settings: &Settings, net: &Net) -> Result<bot::Bot, AppError> {
    let (api, secret) = dingtalk_access(settings)?;
    Ok(bot::Bot::new(api, (&settings.client_id, secret), settings.robot_code(), net.clone()))
}

fn dingtalk_access(settings: &Settings) -> Result<(Url, SecretString), AppError> {
    let wrong = |key: &str, said: String| Problem::new(key, said);
    let secret = settings.client_secret.read();
    let secret = secret.map_err(|error: SecretError| wrong("dingtalk.client_secret", error.to_string()))?;
    let api = settings.api.parse().map_err(|error: url::ParseError| wrong("dingtalk.api", error.to_string()))?;
    Ok((api, secret))
}
