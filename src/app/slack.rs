//! Slack put together: the bot's rooms as a way out, its commands as a way in.

use std::sync::Arc;

use super::{AppError, Ways};
use crate::access;
use crate::channels::Door;
use crate::channels::slack::{Access, BOT, Bot};
use crate::commands::CATALOG;
use crate::config::Config;
use crate::dispatcher::Outlet;
use crate::metrics::Metrics;
use crate::model::Clock;
use crate::net::Net;
use crate::settings::Problem;
use crate::store::Store;
use crate::surfaces::slack::{Means, NAME, Slack};
use crate::surfaces::{Hook, Inbox};

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

/// The rest with what Slack brings.
pub(super) fn add(
    mut ways: Ways,
    config: &Config,
    (net, metrics, clock): (&Net, &Arc<Metrics>, &Clock),
    (store, inbox, rules): (&Arc<dyn Store>, &Inbox, &Arc<access::Access>),
) -> Result<Ways, AppError> {
    let Some(settings) = &config.slack else { return Ok(ways) };
    if let Some(access) = slack_bot(config)? {
        let identity = access.identity();
        let bot = Arc::new(Bot::new(access, net.clone()));
        ways.outlets.doors.insert(NAME.to_owned(), Arc::clone(&bot) as Arc<dyn Door>);
        let (locale, timezone) = (settings.locale.clone(), settings.timezone.clone());
        let outlet = Outlet { identity, locale, timezone, ..Outlet::of(bot) };
        ways.outlets.rooms.insert(NAME.to_owned(), outlet);
    }
    let rules = Arc::clone(rules);
    let means = Means {
        inbox: inbox.clone(),
        commands: &CATALOG,
        dialect: BOT,
        store: Arc::clone(store),
        net: net.clone(),
        metrics: Arc::clone(metrics),
        clock: Arc::clone(clock),
        names_groups: Box::new(move || rules.names_roles(NAME)),
    };
    let slack = Arc::new(Slack::new(settings, means).map_err(|problem| problem.under("slack"))?);
    if slack.is_hook() {
        ways.hooks.insert(NAME, Arc::clone(&slack) as Arc<dyn Hook>);
    }
    if slack.is_linked() {
        ways.surfaces.push((NAME, slack));
    }
    Ok(ways)
}
