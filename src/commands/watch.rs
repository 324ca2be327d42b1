//! `/watch <run> [workspace]`: from now on, each stage change of a run is posted here.

use futures_util::FutureExt;

use super::find::{Found, find};
use super::{Call, Command, CommandError, Context, gate, words};
use crate::model::{ArgInfo, CommandInfo, Reply, Role, Scope, Selector, Subscription, Text};
use crate::schedule::Purpose;
use crate::text::stopped;
use crate::tracker::{Sight, Watched};

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "watch",
        about: "Post each stage change of a run here until it ends",
        args: &[
            ArgInfo {
                name: "run",
                about: "the run's id, its beginning, or a link from the DataWorks console",
                required: true,
                completes_runs: true,
            },
            super::WORKSPACE,
        ],
        options: &[],
        role: Role::Watcher,
    },
    run: |context, call| watch(context, call).boxed(),
};

async fn watch(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let now = call.now();
    let Found { workspace, id, snapshot } = find(context, &call, call.arg(0), call.arg(1)).await?;
    call.needs(context, &workspace, Role::Watcher)?;
    // Nothing is promised that could not arrive.
    (context.admits)(call.destination()).await.map_err(CommandError::user)?;
    let key = workspace.key();
    gate::has_room(context, &call)?;
    // The answer says where the run stands now, so that is asked for; where the budget forbids it, what is known serves.
    let fresh = match snapshot {
        Some(snapshot) => Ok(snapshot),
        None => context.meter.get(&workspace, &id, Purpose::Command, now).await,
    };
    let (snapshot, is_fresh) = match (fresh, context.tracker.state(&key, &id)) {
        (Ok(snapshot), _) => (snapshot, true),
        (Err(_), Some(state)) => (state.snapshot.clone(), false),
        (Err(error), None) => return Err(CommandError::user(format!("I can't ask for {}: {error}", id.short()))),
    };
    if is_fresh {
        context.tracker.observe(&workspace, Sight::of_run(snapshot.clone()), now).await?;
    }
    call.audit(context, &format!("{} in {}", id.short(), workspace.name)).await?;
    let subscription = Subscription {
        id: uuid::Uuid::now_v7().to_string(),
        scope: Scope::Run { workspace: key.clone(), run: id.clone() },
        to: call.destination(),
        on: Selector::watch(),
        stages: Vec::new(),
        creators: Vec::new(),
        template: None,
        by: call.asker().person(),
        roles: call.asker().roles.clone(),
        until: None,
        muted: None,
        stopped: None,
        created_at: now,
    };
    let watched = context.tracker.watch(subscription, snapshot.clone()).await?;
    (context.hurry)(&key, now);
    let state = context.tracker.state(&key, &id);
    let standing = state.map_or_else(String::new, |state| stopped(&words::standing(&state, now)));
    let url = context.meter.url(&workspace, &id);
    let name = Text::default().link(words::title(&snapshot), url).plain(format!(" in {} (", workspace.name));
    let name = name.code(id.short()).plain(")");
    let stop = format!("/unwatch {}", id.short());
    let text = match watched {
        Watched::New => said("Watching ", name, &format!(". Now: {standing}"))
            .line()
            .plain("I post each stage change here until it ends. Stop: ")
            .code(stop),
        Watched::Already => {
            said("This room watches ", name, &format!(" already. Now: {standing}")).line().plain("Stop: ").code(stop)
        }
        Watched::Ended => {
            let status =
                context.tracker.state(&key, &id).map_or(snapshot.status, |state| state.snapshot.status.clone());
            let ended = words::ended(&status);
            said("", name, &format!(" {ended}; there is nothing left to watch. Its stages: "))
                .code(format!("/status {}", id.short()))
        }
    };
    let text = if is_fresh { text } else { text.line().plain(stale(context, &call, &key, &id)) };
    Ok(if watched == Watched::Ended { Reply::to_asker(text) } else { Reply::to_room(text) })
}

fn stale(context: &Context, call: &Call<'_>, key: &crate::model::WorkspaceKey, id: &crate::model::RunId) -> String {
    words::age(&context.tracker.freshness(key, Some(id)), call.now()).to_string()
}

fn said(before: &str, name: Text, after: &str) -> Text {
    let mut text = Text::default().plain(before);
    text.0.extend(name.0);
    text.plain(after)
}
