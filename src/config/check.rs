//! What the shape can't say: the modules' own checks, and what must agree between sections.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{item_of, join, nearest};
use super::{Config, StandingSubscription};
use crate::settings::{Problem, quoted};
use crate::{access, channels, surfaces};

/// Keys are full paths. `follows`: it is for a service, which has nothing to do without a workspace.
pub(super) fn all(config: &Config, follows: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(config.server.check().into_iter().map(|problem| problem.under("server")));
    problems.extend(config.store.check().into_iter().map(|problem| problem.under("store")));
    problems.extend(config.dataworks.check().into_iter().map(|problem| problem.under("dataworks")));
    problems.extend(config.discord.iter().flat_map(|discord| discord.check()).map(|problem| problem.under("discord")));
    problems.extend(config.slack.iter().flat_map(|slack| slack.check()).map(|problem| problem.under("slack")));
    let dingtalk = config.dingtalk.iter().flat_map(|dingtalk| dingtalk.check());
    problems.extend(dingtalk.map(|problem| problem.under("dingtalk")));
    if follows && config.workspaces.is_empty() {
        let message = "no workspace is given; add [[workspaces]] with name, region and project_id";
        problems.push(Problem::new("workspaces", message));
    }
    workspaces(config, &mut problems);
    channels(config, &mut problems);
    for (index, standing) in config.subscriptions.iter().enumerate() {
        let found = subscription(config, standing);
        problems.extend(found.into_iter().map(|problem| problem.under(&item_of("subscriptions", index))));
    }
    repeated_subscriptions(config, &mut problems);
    for (index, entry) in config.access.iter().enumerate() {
        let found = access(config, entry);
        problems.extend(found.into_iter().map(|problem| problem.under(&item_of("access", index))));
    }
    problems.extend(named_channels(config, &config.notices.channels).into_iter().map(|found| found.under("notices")));
    problems
}

fn workspaces(config: &Config, problems: &mut Vec<Problem>) {
    let mut names = BTreeMap::new();
    let mut projects = BTreeMap::new();
    for (index, workspace) in config.workspaces.iter().enumerate() {
        let path = item_of("workspaces", index);
        let mut problem = |key: &str, message: String| problems.push(Problem::new(join(&path, key), message));
        let name = &workspace.name;
        if name.is_empty() || name.chars().count() > 64 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            problem("name", "a name is 1 to 64 characters without spaces".to_owned());
        } else if let Some(first) = names.insert(name.clone(), index) {
            problem("name", format!("{name:?} is the name of workspaces[{first}] too; give each its own"));
        }
        let region = &workspace.region;
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            problem("region", format!("{} is not a region such as \"cn-shanghai\"", quoted(region)));
        }
        if workspace.project_id < 1 {
            problem("project_id", "must be above 0; DataWorks shows it in the address of the workspace".to_owned());
        } else if let Some(first) = projects.insert((region, workspace.project_id), index) {
            problem("project_id", format!("workspaces[{first}] is the same project in the same region"));
        }
    }
}

fn channels(config: &Config, problems: &mut Vec<Problem>) {
    for (name, settings) in &config.channels {
        let path = join("channels", name);
        if !is_simple(name) {
            let message = "a channel's name is 1 to 32 of a-z, 0-9, _ and -";
            problems.push(Problem::new(path.clone(), message));
        }
        problems.extend(settings.check().into_iter().map(|problem| problem.under(&path)));
        let has_bot = config.slack.as_ref().is_some_and(|slack| slack.bot_token.is_some());
        if matches!(settings, channels::Settings::Slack(_)) && !has_bot {
            problems.push(Problem::new(join(&path, "kind"), channels::NO_BOT));
        }
    }
}

fn subscription(config: &Config, standing: &StandingSubscription) -> Vec<Problem> {
    let mut problems = Vec::new();
    let names: Vec<&str> = config.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    if !names.is_empty() && !names.contains(&standing.workspace.as_str()) {
        problems.push(Problem::new("workspace", unknown("workspace", &standing.workspace, &names)));
    }
    if standing.channels.is_empty() {
        problems.push(Problem::new("channels", "is empty; name at least one of [channels]"));
    }
    problems.extend(named_channels(config, &standing.channels));
    if standing.on.is_empty() {
        let all = crate::model::Selector::ALL.map(crate::model::Selector::as_str).join(", ");
        problems.push(Problem::new("on", format!("is empty, so nothing would ever be sent; use any of {all}")));
    }
    for (list, key) in [(&standing.stages, "stages"), (&standing.creators, "creators")] {
        for index in (0..).zip(list).filter(|(_, text)| text.trim().is_empty()).map(|(index, _)| index) {
            problems.push(Problem::new(item_of(key, index), "is empty"));
        }
    }
    if standing.template.as_deref().is_some_and(|name| !is_simple(name)) {
        problems.push(Problem::new("template", "the name of a template set is 1 to 32 of a-z, 0-9, _ and -"));
    }
    problems
}

fn access(config: &Config, entry: &access::Settings) -> Vec<Problem> {
    let mut problems = entry.check();
    let surface = entry.surface.as_str();
    if !surfaces::NAMES.contains(&surface) {
        problems.push(Problem::new("surface", unknown("chat", surface, &surfaces::NAMES)));
    }
    let names: Vec<&str> = config.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    for (index, name) in entry.workspaces.iter().enumerate().filter(|(_, name)| *name != "*") {
        if !names.is_empty() && !names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            problems.push(Problem::new(item_of("workspaces", index), unknown("workspace", name, &names)));
        }
    }
    problems.extend(named_channels(config, &entry.channels));
    problems
}

/// Each is configured, and named once.
fn named_channels(config: &Config, named: &[String]) -> Vec<Problem> {
    let known: Vec<&str> = config.channels.keys().map(String::as_str).collect();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, channel) in named.iter().enumerate() {
        let key = item_of("channels", index);
        if !known.contains(&channel.as_str()) {
            problems.push(Problem::new(key, unknown("channel", channel, &known)));
        } else if !seen.insert(channel) {
            problems.push(Problem::new(key, format!("{channel:?} is named twice")));
        }
    }
    problems
}

fn repeated_subscriptions(config: &Config, problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for (index, standing) in config.subscriptions.iter().enumerate() {
        for channel in standing.channels.iter().collect::<BTreeSet<_>>() {
            let says = (
                &standing.workspace,
                channel,
                &standing.on,
                sorted(&standing.stages),
                sorted(&standing.creators),
                &standing.template,
            );
            if let Some(first) = seen.insert(says, index) {
                let message = format!("says the same as subscriptions[{first}] for the channel {channel:?}; drop one");
                problems.push(Problem::new(item_of("subscriptions", index), message));
            }
        }
    }
}

fn sorted(list: &[String]) -> BTreeSet<&str> {
    list.iter().map(String::as_str).collect()
}

/// 1 to 32 of `a-z 0-9 _ -`: safe in a path, in a label, and beside the `:` of a room.
fn is_simple(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let name_shown = quoted(name);
    match nearest(name, known.iter().copied()) {
        Some(close) => format!("there is no {what} {name_shown}; did you mean {close:?}?"),
        None if known.is_empty() => format!("there is no {what} {name_shown}; none is configured"),
        None => format!("there is no {what} {name_shown}; there are {}", known.join(", ")),
    }
}
