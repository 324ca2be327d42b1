//! Slack put together: the rooms of the bot as a way out, the app's commands as a way in.

use std::sync::Arc;

use super::{AppError, Shared, Ways, once};
use crate::channels::Door;
use crate::channels::slack::{Access, BOT, Bot};
use crate::commands::CATALOG;
use crate::config::Config;
use crate::dispatcher::Outlet;
use crate::settings::Problem;
use crate::surfaces::Hook;
use crate::surfaces::slack::{Means, NAME, Slack};

pub(super) fn add(ways: &mut Ways, shared: &Shared<'_>) -> Result<(), AppError> {
    let Some(settings) = &shared.config.slack else { return Ok(()) };
    if let Some(access) = slack_bot(shared.config)? {
        let identity = access.identity();
        let bot = Arc::new(Bot::new(access, shared.net.clone()));
        ways.outlets.doors.insert(NAME.to_owned(), Arc::clone(&bot) as Arc<dyn Door>);
        let (locale, timezone) = (settings.locale.clone(), settings.timezone.clone());
        let outlet = Outlet { identity, locale, timezone, ..Outlet::of(bot) };
        ways.outlets.rooms.insert(NAME.to_owned(), outlet);
    }
    let rules = Arc::clone(shared.access);
    let means = Means {
        inbox: shared.inbox.clone(),
        commands: &CATALOG,
        dialect: BOT,
        once: once(shared.store),
        net: shared.net.clone(),
        metrics: Arc::clone(shared.metrics),
        clock: Arc::clone(shared.clock),
        names_groups: Box::new(move || rules.names_roles(NAME)),
    };
    let slack = Arc::new(Slack::new(settings, means).map_err(|problem| problem.under("slack"))?);
    if slack.is_hook() {
        ways.hooks.insert(NAME, Arc::clone(&slack) as Arc<dyn Hook>);
    }
    if slack.is_linked() {
        ways.surfaces.push((NAME, slack));
    }
    Ok(())
}

/// The access of the Slack bot, if there is one.
pub fn slack_bot(config: &Config) -> Result<Option<Access>, Problem> {
    let slack = config.slack.as_ref();
    let Some((settings, token)) = slack.and_then(|slack| Some((slack, slack.bot_token.as_ref()?))) else {
        return Ok(None);
    };
    let token = token.read().map_err(|error| Problem::new("slack.bot_token", error.to_string()))?;
    let api = settings.api.parse().map_err(|error: url::ParseError| Problem::new("slack.api", error.to_string()))?;
    Ok(Some(Access { api, token }))
}
