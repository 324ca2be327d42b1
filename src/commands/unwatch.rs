//! `/unwatch <run>`: stop what `/watch` began in this room.

use std::sync::Arc;

use futures_util::FutureExt;

use super::find::read;
use super::{Call, Command, CommandError, Context, words};
use crate::model::{ArgInfo, CommandInfo, Reply, Role, RunId, Scope, Subscription, Text};

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "unwatch",
        about: "Stop posting about a run here",
        args: &[ArgInfo { name: "run", about: "the run's id or its beginning", required: true, completes_runs: true }],
        options: &[],
        role: Role::Watcher,
    },
    run: |context, call| unwatch(context, call).boxed(),
};

async fn unwatch(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let meant = read(call.arg(0))?.id;
    let typed = meant.as_str();
    let here = call.watched_here(context);
    let mut meant = here.iter().filter_map(|subscription| {
        let run = run_of(subscription)?;
        run.as_str().starts_with(typed).then_some((subscription, run))
    });
    let Some((subscription, run)) = meant.next() else {
        return Err(CommandError::User(unclear(typed, &here)));
    };
    if meant.any(|(_, other)| other != run) {
        return Err(CommandError::User(unclear(typed, &here)));
    }
    if !call.may_stop(context, subscription) {
        return Err(call.not_own(context, subscription));
    }
    let workspace = context.workspace(subscription.scope.workspace()).map_or("", |workspace| &workspace.name);
    call.audit(context, &format!("{} in {workspace}", run.short())).await?;
    // Several, where the command line added another beside the watch.
    for same in here.iter().filter(|other| other.scope == subscription.scope) {
        context.tracker.unsubscribe(&same.id).await?;
    }
    let state = context.tracker.state(subscription.scope.workspace(), run);
    let name = state.map_or_else(|| format!("run {}", run.short()), |state| words::title(&state.snapshot));
    let text = Text::default()
        .plain(format!("No longer watching {name} ("))
        .code(run.short())
        .plain("). Messages already on their way may still arrive. Again: ")
        .code(format!("/watch {}", run.short()));
    Ok(Reply::to_room(text))
}

fn run_of(subscription: &Subscription) -> Option<&RunId> {
    match &subscription.scope {
        Scope::Run { run, .. } => Some(run),
        Scope::Workspace { .. } => None,
    }
}

fn unclear(typed: &str, here: &[Arc<Subscription>]) -> Text {
    let matching = here.iter().filter_map(|s| run_of(s)).filter(|run| run.as_str().starts_with(typed));
    let runs: Vec<&str> = matching.map(RunId::as_str).take(10).collect();
    let typed = words::cut(typed, 64);
    if runs.is_empty() {
        return Text::default()
            .plain("This room does not watch ")
            .code(typed)
            .plain("; a watch ends by itself with its run. ")
            .code("/watches")
            .plain(" lists what it watches.");
    }
    Text::default().plain(format!(
        "{} watched runs begin with {typed}: {}. Type more of the id.",
        runs.len(),
        runs.join(", ")
    ))
}
