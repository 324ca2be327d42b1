//! `/status <run> [workspace]`: the stages of a run, how old the data is, who watches.

use futures_util::FutureExt;

use super::find::{Found, find};
use super::{Call, Command, CommandError, Context, words};
use crate::diff;
use crate::model::{ArgInfo, CommandInfo, Reply, Role, RunState, Status, Text, Tone};
use crate::tracker::Freshness;

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "status",
        about: "Show where a run stands, stage by stage",
        args: &[
            ArgInfo {
                name: "run",
                about: "the run's id, its beginning, or a link",
                required: true,
                completes_runs: true,
            },
            super::WORKSPACE,
        ],
        options: &[],
        role: Role::Viewer,
    },
    run: |context, call| status(context, call).boxed(),
};

async fn status(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let now = call.now();
    let Found { workspace, id, snapshot } = find(context, &call, call.arg(0), call.arg(1)).await?;
    let key = workspace.key();
    let known = context.tracker.state(&key, &id);
    let (state, freshness) = match (snapshot, known) {
        (_, Some(state)) => ((*state).clone(), context.tracker.freshness(&key, Some(&id))),
        (Some(snapshot), None) => {
            (diff::baseline(snapshot, now), Freshness { seen_at: Some(now), ..Freshness::default() })
        }
        (None, None) => return Err(CommandError::Internal("a run was found but is not known".to_owned())),
    };
    let here = call.destination();
    let watchers = context.tracker.watchers(&key, &id);
    let is_here = watchers.iter().any(|subscription| subscription.to == here);
    let elsewhere = watchers.len() - usize::from(is_here);
    let mut text = words::head(&workspace, &state, context.meter.url(&workspace, &id), now);
    text.0.extend(stages(&state, &call).0);
    text = text.line();
    text.0.extend(words::age(&freshness, now).0);
    text = text.plain(match (is_here, elsewhere) {
        (true, 0) => " Watched here.".to_owned(),
        (true, more) => format!(" Watched here and in {more} other places."),
        (false, 0) => " Nobody watches it.".to_owned(),
        (false, more) => format!(" Not watched here, but in {more} other places."),
    });
    Ok(Reply::to_asker(text))
}

fn stages(state: &RunState, call: &Call<'_>) -> Text {
    state.snapshot.stages.iter().fold(Text::default(), |text, stage| {
        let symbol = match stage.status {
            Status::Init => "▫️",
            _ => Tone::of(&stage.status).symbol(),
        };
        let name = words::one_line(&stage.name);
        let name = if name.is_empty() { String::new() } else { format!(" ({})", words::cut(&name, 40)) };
        let words_of_stage = words::stage_words(state, stage, call.now());
        let code = words::cut(&words::one_line(&stage.code), 60);
        let text = text.line().plain(format!("{symbol} ")).bold(code).plain(format!("{name} {words_of_stage}"));
        let why = words::one_line(&stage.message);
        if why.is_empty() { text } else { text.plain(format!(": {}", words::cut(&why, 200))) }
    })
}
