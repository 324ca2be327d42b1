//! `/watches`: what this room watches.

use futures_util::FutureExt;

use super::{Call, Command, CommandError, Context, words};
use crate::model::{CommandInfo, Reply, Role, Scope, Text};

/// Lines shown at most; a chat message holds no more.
const SHOWN: usize = 15;

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "watches",
        about: "List what this room watches",
        args: &[],
        options: &[],
        role: Role::Viewer,
    },
    run: |context, call| watches(context, call).boxed(),
};

#[expect(clippy::unused_async, reason = "the table's signature")]
async fn watches(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let here = call.watched_here(context);
    if here.is_empty() {
        let text = Text::default().plain("This room watches nothing. Begin with ").code("/watch <run>").plain("; ");
        return Ok(Reply::to_asker(text.code("/runs").plain(" lists recent runs.")));
    }
    let mut text = Text::default().plain(format!("This room watches {}:", here.len()));
    for subscription in here.iter().rev().take(SHOWN) {
        let workspace = context.workspace(subscription.scope.workspace());
        let name = workspace.map_or_else(|| subscription.scope.workspace().to_string(), |w| w.name.clone());
        text = match &subscription.scope {
            Scope::Workspace { .. } => text.line().plain(format!("every run in {name}")),
            Scope::Run { workspace, run } => {
                let text = text.line().code(run.short());
                match context.tracker.state(workspace, run) {
                    Some(state) => text.plain(format!(
                        " {} in {name}: {}",
                        words::title(&state.snapshot),
                        words::standing(&state, call.now())
                    )),
                    None => text.plain(format!(" in {name}: not seen yet")),
                }
            }
        };
    }
    if here.len() > SHOWN {
        text = text.line().plain(format!("and {} more", here.len() - SHOWN));
    }
    Ok(Reply::to_asker(text))
}
