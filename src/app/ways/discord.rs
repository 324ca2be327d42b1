//! Discord put together: the rooms of the bot as a way out, its commands as a way in.

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::{AppError, Shared, Ways};
use crate::channels::discord::Bot;
use crate::dispatcher::Outlet;
use crate::net::{Net, Refused};
use crate::settings::{Problem, SecretError};
use crate::surfaces::discord::{Discord, NAME, Settings};

pub(super) fn add(ways: &mut Ways, shared: &Shared<'_>) -> Result<(), AppError> {
    let Some(settings) = &shared.config.discord else { return Ok(()) };
    let (api, token) = access(settings)?;
    let refused = |said: Refused| Problem::new("discord.api", said.to_string());
    let client = shared.net.client_for(&api).map_err(refused)?.clone();
    let bot = Bot::new(api, token.clone(), shared.net.clone());
    let (locale, timezone) = (settings.locale.clone(), settings.timezone.clone());
    let outlet = Outlet { identity: bot.identity(), locale, timezone, ..Outlet::of(Arc::new(bot)) };
    ways.outlets.rooms.insert(NAME.to_owned(), outlet);
    let surface = Discord::new(settings, token, client, Arc::clone(shared.metrics));
    ways.surfaces.push((NAME, Arc::new(surface.with_clock(Arc::clone(shared.clock)))));
    Ok(())
}

/// The rooms that the Discord bot sits in, as a way out.
pub fn discord_bot(settings: &Settings, net: &Net) -> Result<Bot, AppError> {
    let (api, token) = access(settings)?;
    Ok(Bot::new(api, token, net.clone()))
}

fn access(settings: &Settings) -> Result<(Url, SecretString), AppError> {
    let wrong = |key: &str, said: String| Problem::new(key, said);
    let token = settings.token.read().map_err(|error: SecretError| wrong("discord.token", error.to_string()))?;
    let api = settings.api.parse().map_err(|error: url::ParseError| wrong("discord.api", error.to_string()))?;
    Ok((api, token))
}
