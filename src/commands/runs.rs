//! `/runs [workspace]`: recent runs, those still active first.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{Call, Command, CommandError, Context, find, words};
use crate::model::{CommandInfo, Reply, Role, Text, Tone};

/// Lines for one workspace at most.
const SHOWN: usize = 8;
/// Workspaces shown when none is named.
const WORKSPACES: usize = 4;
/// Runs that a button may watch: more would hide the list.
const BUTTONS: usize = 3;
/// A list this young is shown as it is.
const FRESH: Duration = Duration::from_secs(30);

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "runs",
        about: "List recent runs",
        args: &[super::WORKSPACE],
        options: &[],
        role: Role::Viewer,
    },
    run: |context, call| runs(context, call).boxed(),
};

async fn runs(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let name = call.arg(0);
    let visible = call.visible(context)?;
    let named = visible.iter().filter(|w| name.is_empty() || w.name.eq_ignore_ascii_case(name));
    let workspaces: Vec<_> = named.collect();
    if workspaces.is_empty() {
        return Err(find::no_workspace(context, &visible, name));
    }
    let mut text = Text::default();
    let mut buttons = Vec::new();
    let shown = workspaces.iter().take(WORKSPACES);
    join_all(shown.map(|workspace| find::refresh(context, workspace, FRESH, call.now()))).await;
    for (index, workspace) in workspaces.iter().take(WORKSPACES).enumerate() {
        let key = workspace.key();
        text = if index == 0 { text } else { text.line() };
        text = text.bold(workspace.name.clone()).plain(": ");
        text.0.extend(words::age(&context.tracker.freshness(&key, None), call.now()).0);
        let mut recent = context.tracker.recent(&key);
        recent.sort_by_key(|run| run.snapshot.status.is_terminal());
        if recent.is_empty() {
            text = text.line().plain("no runs");
        }
        for run in recent.iter().take(SHOWN) {
            if buttons.len() < BUTTONS && !run.snapshot.status.is_terminal() {
                buttons.push(run.snapshot.id.clone());
            }
            let symbol = Tone::of(&run.snapshot.status).symbol();
            let title = words::cut(&words::title(&run.snapshot), 60);
            let standing = words::cut(&words::standing(run, call.now()), 80);
            let line = Text::default().line().plain(format!("{symbol} ")).code(run.snapshot.id.short());
            let line = line.plain(format!(" {title}: {standing}"));
            if !words::holds(&text, &line) {
                break;
            }
            text.0.extend(line.0);
        }
    }
    if workspaces.len() > WORKSPACES {
        let others = workspaces.iter().skip(WORKSPACES).map(|w| w.name.as_str()).collect::<Vec<_>>().join(", ");
        text = text.line().plain(format!("Also: {}. Name one: ", words::cut(&others, 200))).code("/runs <workspace>");
    }
    Ok(buttons.into_iter().fold(Reply::to_asker(text), |reply, id| {
        let label = call.tongue().say(format!("Watch {}", id.short()), format!("关注 {}", id.short()));
        reply.button(label, format!("watch {id}"))
    }))
}
