//! Which subscriptions somebody means by a word: a run, a workspace, `next`.

use std::sync::Arc;

use super::find::read;
use super::words::{self, Tongue};
use super::{Call, CommandError, Context};
use crate::model::{RunId, Scope, Subscription, Text, Workspace};

pub const NEXT: &str = "next";

type Found = Vec<Arc<Subscription>>;

/// What of `among` is meant, all of it about the same; at least one.
pub fn meant(
    context: &Context,
    call: &Call<'_>,
    word: &str,
    workspace: &str,
    among: &[Arc<Subscription>],
) -> Result<Found, CommandError> {
    if word.eq_ignore_ascii_case(NEXT) {
        return next(context, call, workspace, among);
    }
    if let Some(named) = named(&call.visible(context)?, word) {
        let scope = Scope::Workspace { workspace: named.key() };
        let found = of_scope(among, &scope);
        let said = || CommandError::User(nothing(context, word, among, call.tongue()));
        return if found.is_empty() { Err(said()) } else { Ok(found) };
    }
    let beginning = read(word)?.id;
    let begins =
        |one: &&Arc<Subscription>| one.scope.run().is_some_and(|run| run.as_str().starts_with(beginning.as_str()));
    // What is watched in this room goes before what was sent to a channel.
    let here = call.destination();
    let (mut here, elsewhere): (Vec<_>, Vec<_>) = among.iter().filter(begins).partition(|one| one.to == here);
    if here.is_empty() {
        here = elsewhere;
    }
    let Some(first) = here.first() else {
        return Err(CommandError::User(nothing(context, beginning.as_str(), among, call.tongue())));
    };
    let mut runs: Vec<&str> = here.iter().filter_map(|one| one.scope.run()).map(RunId::as_str).collect();
    runs.dedup();
    if runs.iter().any(|run| Some(*run) != first.scope.run().map(RunId::as_str)) {
        let count = runs.len();
        runs.truncate(10);
        let typed = words::cut(beginning.as_str(), 64);
        let said = format!("{count} watched runs begin with {typed}: {}. Type more of the id.", runs.join(", "));
        return Err(CommandError::user(said));
    }
    Ok(here.iter().filter(|one| one.scope == first.scope).map(|one| Arc::clone(one)).collect())
}

/// The workspace of that name.
pub fn named<'a>(visible: &'a [Workspace], word: &str) -> Option<&'a Workspace> {
    visible.iter().find(|workspace| workspace.name.eq_ignore_ascii_case(word))
}

fn of_scope(among: &[Arc<Subscription>], scope: &Scope) -> Found {
    among.iter().filter(|one| one.scope == *scope).cloned().collect()
}

fn next(
    context: &Context,
    call: &Call<'_>,
    workspace: &str,
    among: &[Arc<Subscription>],
) -> Result<Found, CommandError> {
    let visible = call.visible(context)?;
    let chosen = match workspace {
        "" => None,
        name => Some(named(&visible, name).ok_or_else(|| super::find::no_workspace(context, &visible, name))?.key()),
    };
    let waits = |one: &&Arc<Subscription>| matches!(&one.scope, Scope::Next { workspace } if chosen.as_ref().is_none_or(|key| key == workspace));
    let found: Found = among.iter().filter(waits).cloned().collect();
    let Some(first) = found.first() else {
        let said = "This room waits for no next run. Wait for one: /watch next; /watches lists what it watches.";
        return Err(CommandError::user(call.tongue().say(said, "本房间没有在等待下一次发布。开始等待：/watch next")));
    };
    if found.iter().any(|one| one.scope != first.scope) {
        let said = "This room waits for the next run of several workspaces; name one: ";
        return Err(CommandError::User(
            Text::default().plain(said).code(format!("next {}", workspace_of(context, first))),
        ));
    }
    Ok(found)
}

fn nothing(context: &Context, typed: &str, among: &[Arc<Subscription>], tongue: Tongue) -> Text {
    let text = Text::default()
        .plain(tongue.say("This room does not watch ", "本房间没有关注 "))
        .code(words::cut(typed, 64))
        .plain(tongue.say("; a watch ends by itself with its run. ", "；关注会随发布结束而自动结束。"))
        .code("/watches")
        .plain(tongue.say(" lists what it watches.", " 列出本房间的关注。"));
    let known: Vec<_> = context.tracker.find(typed).into_iter().map(|(workspace, _)| workspace).collect();
    let whole =
        among.iter().find(|one| matches!(&one.scope, Scope::Workspace { workspace } if known.contains(workspace)));
    match whole {
        Some(whole) => {
            let name = workspace_of(context, whole);
            text.plain(
                tongue.say(format!(" It watches every run in {name}: "), format!("本房间关注 {name} 的每次发布：")),
            )
            .code(format!("/unwatch {name}"))
        }
        None => text,
    }
}

/// Its workspace's name.
pub fn workspace_of(context: &Context, subscription: &Subscription) -> String {
    let key = subscription.scope.workspace();
    context.workspace(key).map_or_else(|| key.to_string(), |workspace| workspace.name.clone())
}

/// What it is about, in words: `orders_daily v12 (7b1e04c2)`, `every run in warehouse`
pub fn name(context: &Context, subscription: &Subscription, tongue: Tongue) -> Text {
    let workspace = workspace_of(context, subscription);
    match &subscription.scope {
        Scope::Run { workspace, run } => {
            let state = context.tracker.state(workspace, run);
            let title = state.map_or_else(|| format!("run {}", run.short()), |state| words::title(&state.snapshot));
            Text::default().plain(format!("{title} (")).code(run.short()).plain(")")
        }
        Scope::Workspace { .. } => {
            Text::default().plain(tongue.say(format!("every run in {workspace}"), format!("{workspace} 的每次发布")))
        }
        Scope::Next { .. } => Text::default()
            .plain(tongue.say(format!("the next run in {workspace}"), format!("{workspace} 的下一次发布"))),
    }
}

/// By which it is meant, as short as people type it, and as unmistakable as a button does.
pub fn word(context: &Context, subscription: &Subscription) -> (String, String) {
    let workspace = workspace_of(context, subscription);
    match &subscription.scope {
        Scope::Run { run, .. } => (run.short().to_owned(), run.to_string()),
        Scope::Workspace { .. } => (workspace.clone(), workspace),
        Scope::Next { .. } => (format!("{NEXT} {workspace}"), format!("{NEXT} {workspace}")),
    }
}

/// `7b1e04c2 in warehouse`, `every run of warehouse`: for the audit log, in words of ours alone.
pub fn about(context: &Context, subscription: &Subscription) -> String {
    let workspace = context.workspace(subscription.scope.workspace()).map_or("", |workspace| &workspace.name);
    match &subscription.scope {
        Scope::Run { run, .. } => format!("{} in {workspace}", run.short()),
        Scope::Workspace { .. } => format!("every run of {workspace}"),
        Scope::Next { .. } => format!("the next run of {workspace}"),
    }
}
