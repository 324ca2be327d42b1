//! DingTalk put together: the rooms of its robot as a way out, its commands as a way in.

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::{AppError, Shared, Ways, once};
use crate::channels::dingtalk::bot;
use crate::dispatcher::Outlet;
use crate::net::Net;
use crate::settings::{Problem, SecretError};
use crate::surfaces::dingtalk::{DingTalk, NAME, Settings};

pub(super) fn add(ways: &mut Ways, shared: &Shared<'_>) -> Result<(), AppError> {
    let Some(settings) = &shared.config.dingtalk else { return Ok(()) };
    let bot = dingtalk_bot(settings, shared.net)?;
    let (locale, timezone) = (settings.locale.clone(), settings.timezone.clone());
    let outlet = Outlet { identity: bot.identity(), locale, timezone, ..Outlet::of(Arc::new(bot)) };
    ways.outlets.rooms.insert(NAME.to_owned(), outlet);
    let access = access(settings)?;
    // Refused here as the Discord bot's address is: at the start, not at the first message.
    let refused = |said: crate::net::Refused| Problem::new("dingtalk.api", said.to_string());
    shared.net.guard().check(&access.0).map_err(refused)?;
    let (net, metrics) = (shared.net.clone(), Arc::clone(shared.metrics));
    let surface = DingTalk::new(settings, access, net, metrics, once(shared.store), bot::DIALECT);
    ways.surfaces.push((NAME, Arc::new(surface.with_clock(Arc::clone(shared.clock)))));
    Ok(())
}

/// The rooms that DingTalk's robot sits in, as a way out.
pub fn dingtalk_bot(settings: &Settings, net: &Net) -> Result<bot::Bot, AppError> {
    let (api, secret) = access(settings)?;
    Ok(bot::Bot::new(api, (&settings.client_id, secret), settings.robot_code(), net.clone()))
}

fn access(settings: &Settings) -> Result<(Url, SecretString), AppError> {
    let wrong = |key: &str, said: String| Problem::new(key, said);
    let secret = settings.client_secret.read();
    let secret = secret.map_err(|error: SecretError| wrong("dingtalk.client_secret", error.to_string()))?;
    let api = settings.api.parse().map_err(|error: url::ParseError| wrong("dingtalk.api", error.to_string()))?;
    Ok((api, secret))
}
