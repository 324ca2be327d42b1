//! `/status <run> [workspace]`: the stages of a run, how old the data is, who watches.

use futures_util::FutureExt;

use super::find::{Found, find};
use super::terms::Terms;
use super::{Call, Command, CommandError, Context, words};
use crate::diff;
use crate::model::{ArgInfo, CommandInfo, Reply, Role, RunState, Stage, Status, Text, Tone};
use crate::tracker::Freshness;

/// The stages in characters: the head and the foot need the rest of a message.
const STAGES_LENGTH: usize = 1_200;

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
    let mut watchers = context.tracker.watchers(&key, &id);
    watchers.retain(|one| one.is_live(now));
    let own = watchers.iter().find(|subscription| subscription.to == here).cloned();
    let is_here = own.is_some();
    let elsewhere = watchers.iter().filter(|one| one.to != here).count();
    let mut text = words::head(&workspace, &state, context.meter.url(&workspace, &id), now);
    text.0.extend(stages(&state, &call).0);
    text = text.line();
    text.0.extend(words::age(&freshness, now).0);
    text = text.plain(match (is_here, elsewhere) {
        (true, 0) => " Watched here.".to_owned(),
        (true, 1) => " Watched here and in 1 other place.".to_owned(),
        (true, more) => format!(" Watched here and in {more} other places."),
        (false, 0) => " Nobody watches it.".to_owned(),
        (false, 1) => " Not watched here, but in 1 other place.".to_owned(),
        (false, more) => format!(" Not watched here, but in {more} other places."),
    });
    if let Some(own) = &own {
        let terms = Terms::of(own);
        if !terms.is_usual() || own.until.is_some() {
            let (what, how_long) = (terms.what(call.tongue()), terms.how_long(&own.scope, now, call.tongue()));
            text = text.plain(format!(" I post {what} here {how_long}."));
        }
        if let Some(muted) = own.muted_at(now) {
            text = text.plain(format!(" Muted until {}.", words::moment(muted.until, now)));
        }
    }
    let reply = Reply::to_asker(text);
    let is_over = state.snapshot.status.is_terminal();
    Ok(if is_here || is_over {
        reply
    } else {
        reply.button(call.tongue().say("Watch", "关注"), format!("watch {id}"))
    })
}

/// As many as leave room for the rest.
fn stages(state: &RunState, call: &Call<'_>) -> Text {
    let mut text = Text::default();
    let stages = &state.snapshot.stages;
    for (index, stage) in stages.iter().enumerate() {
        let line = stage_line(state, stage, call);
        if text.to_string().chars().count() + line.to_string().chars().count() > STAGES_LENGTH {
            return text.line().plain(format!("and {} more stages", stages.len() - index));
        }
        text = text.line();
        text.0.extend(line.0);
    }
    text
}

fn stage_line(state: &RunState, stage: &Stage, call: &Call<'_>) -> Text {
    let symbol = match stage.status {
        Status::Init => "▫️",
        _ => Tone::of(&stage.status).symbol(),
    };
    let name = words::one_line(&stage.name);
    let name = if name.is_empty() { String::new() } else { format!(" ({})", words::cut(&name, 40)) };
    let words_of_stage = words::stage_words(state, stage, call.now());
    let code = words::cut(&words::one_line(&stage.code), 60);
    let text = Text::default().plain(format!("{symbol} ")).bold(code).plain(format!("{name} {words_of_stage}"));
    let why = words::one_line(&stage.message);
    if why.is_empty() { text } else { text.plain(format!(": {}", words::cut(&why, 200))) }
}
