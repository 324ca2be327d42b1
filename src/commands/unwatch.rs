//! `/unwatch <run|workspace|next|all>`: stop what `/watch` began; `/unwatch undo` takes it up again.

use std::sync::Arc;

use futures_util::FutureExt;

use super::terms::WATCHES_PER_ROOM;
use super::{Call, Command, CommandError, Context, target};
use crate::model::{ArgInfo, CommandInfo, Reply, Role, Scope, Subscription, Text, Timestamp, UNDONE_WITHIN, elapsed};

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "unwatch",
        about: "Stop posting about a run, a workspace, the next run or all of them here; or undo that",
        args: &[
            ArgInfo {
                name: "run",
                about: "the run's id or its beginning; a workspace; next; all; or undo",
                required: true,
                completes_runs: true,
            },
            ArgInfo {
                name: "more",
                about: "behind next its workspace, behind undo what to take up again, behind all yes",
                required: false,
                completes_runs: false,
            },
        ],
        options: &[],
        role: Role::Watcher,
    },
    run: |context, call| unwatch(context, call).boxed(),
};

async fn unwatch(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    match call.arg(0).to_ascii_lowercase().as_str() {
        "all" => all(context, &call).await,
        "undo" => undo(context, &call).await,
        _ => one(context, &call).await,
    }
}

async fn one(context: &Context, call: &Call<'_>) -> Result<Reply, CommandError> {
    let tongue = call.tongue();
    // Several, where the command line added another beside the watch.
    let meant = target::meant(context, call, call.arg(0), call.arg(1), &call.in_reach(context))?;
    let mine: Vec<_> = meant.iter().filter(|one| call.may_stop(context, one)).cloned().collect();
    let Some(first) = mine.first().filter(|_| mine.len() == meant.len()) else {
        let others = meant.iter().find(|one| !call.may_stop(context, one));
        return Err(others.map_or_else(gone, |one| call.not_own(context, one)));
    };
    let name = target::name(context, first, tongue);
    let (short, exact) = match first.scope {
        Scope::Next { .. } => (target::NEXT.to_owned(), target::NEXT.to_owned()),
        _ => target::word(context, first),
    };
    call.audit(context, &target::about(context, first)).await?;
    if stop(context, &mine, call.now()).await? == 0 {
        return Err(gone());
    }
    let mut text = Text::default().plain(tongue.say("No longer watching ", "不再关注 "));
    text.0.extend(name.0);
    let text = text
        .plain(tongue.say(
            ". Messages already on their way may still arrive. Undo within 24 h: ",
            "。已在途中的消息仍可能到达。24 小时内可撤销：",
        ))
        .code(format!("/unwatch undo {short}"));
    Ok(Reply::to_room(text).button(tongue.say("Undo", "撤销"), format!("unwatch undo {exact}")))
}

fn gone() -> CommandError {
    CommandError::user("It has just ended by itself, or found its run. /watches lists what goes on.")
}

/// Says how many really stopped: some may have ended meanwhile.
async fn stop(context: &Context, meant: &[Arc<Subscription>], now: Timestamp) -> Result<usize, CommandError> {
    let stopped = meant.iter().map(|one| Subscription { stopped: Some(now), ..(**one).clone() });
    Ok(context.tracker.amend(stopped.collect()).await?)
}

/// Everything in this room that the asker may stop. Asks first.
async fn all(context: &Context, call: &Call<'_>) -> Result<Reply, CommandError> {
    let tongue = call.tongue();
    let here = call.watched_here(context);
    let mine: Vec<_> = here.iter().filter(|one| call.may_stop(context, one)).cloned().collect();
    let (count, others) = (mine.len(), here.len() - mine.len());
    if here.is_empty() {
        return Err(CommandError::user(tongue.say("This room watches nothing.", "本房间没有关注。")));
    }
    if count == 0 {
        let said = "Others began what this room watches; only they, or a moderator, can stop it.";
        return Err(CommandError::denied("not_own", said));
    }
    let kept = match others {
        0 => String::new(),
        others => tongue.say(format!(" {others} that others began go on."), format!("其他人的 {others} 个继续。")),
    };
    if !call.arg(1).eq_ignore_ascii_case("yes") {
        let watches = if count == 1 { "1 watch".to_owned() } else { format!("all {count} watches") };
        let text = Text::default()
            .plain(tongue.say(
                format!("This would stop {watches} of this room.{kept} To do it: "),
                format!("这将停止本房间的 {count} 个关注。{kept}确认："),
            ))
            .code("/unwatch all yes");
        let label = tongue.say(format!("Stop {count}"), format!("停止 {count} 个"));
        return Ok(Reply::to_asker(text).button(label, "unwatch all yes"));
    }
    call.audit(context, &format!("all, {count}")).await?;
    let stopped = stop(context, &mine, call.now()).await?;
    let watches = if stopped == 1 { "watch" } else { "watches" };
    let text = Text::default()
        .plain(tongue.say(
            format!("Stopped {stopped} {watches} of this room.{kept} Undo within 24 h: "),
            format!("已停止本房间的 {stopped} 个关注。{kept}24 小时内可撤销："),
        ))
        .code("/unwatch undo");
    Ok(Reply::to_room(text).button(tongue.say("Undo", "撤销"), "unwatch undo"))
}

/// What was stopped last, or what is named.
async fn undo(context: &Context, call: &Call<'_>) -> Result<Reply, CommandError> {
    let (now, tongue) = (call.now(), call.tongue());
    let mut stopped = call.reach(context, |one| {
        let is_over = one.until.is_some_and(|until| until <= now);
        !is_over && one.stopped.is_some_and(|at| elapsed(at, now) < UNDONE_WITHIN)
    });
    stopped.retain(|one| call.may_stop(context, one));
    let Some(last) = stopped.iter().filter_map(|one| one.stopped).max() else {
        return Err(CommandError::user(tongue.say(
            "There is nothing to undo here: what was stopped within the last 24 h and has not ended since can be taken up again.",
            "这里没有可以撤销的操作：24 小时内停止且尚未结束的关注可以恢复。",
        )));
    };
    let waits = |one: &Arc<Subscription>| matches!(one.scope, Scope::Next { .. });
    let meant: Vec<_> = match call.arg(1) {
        "" => stopped.into_iter().filter(|one| one.stopped == Some(last)).collect(),
        target::NEXT => {
            let last = stopped.iter().filter(|one| waits(one)).filter_map(|one| one.stopped).max();
            stopped.into_iter().filter(|one| waits(one) && one.stopped == last).collect()
        }
        word => target::meant(context, call, word, "", &stopped)?,
    };
    let Some(first) = meant.first().cloned() else { return Err(CommandError::user("There is nothing to undo here.")) };
    if context.tracker.in_destination(&first.to).len() + meant.len() > WATCHES_PER_ROOM {
        return Err(CommandError::user(format!(
            "This room would watch more than {WATCHES_PER_ROOM} runs; stop some first. /watches lists them."
        )));
    }
    let again: Vec<_> = meant.iter().map(|one| Subscription { stopped: None, ..(**one).clone() }).collect();
    let keys: Vec<_> = again.iter().map(|one| one.scope.workspace().clone()).collect();
    call.audit(context, &format!("undo, {}", target::about(context, &first))).await?;
    let count = context.tracker.amend(again).await?;
    keys.iter().for_each(|key| (context.hurry)(key, now));
    if count == 0 {
        return Err(CommandError::user("It has ended meanwhile; there is nothing left to watch."));
    }
    let missed = tongue.say("What changed meanwhile is not posted later. ", "期间的变化不会补发。");
    if meant.len() > 1 {
        let text = Text::default()
            .plain(tongue.say(format!("Watching {count} again. {missed}"), format!("已恢复 {count} 个关注。{missed}")))
            .code("/watches")
            .plain(tongue.say(" lists them.", " 列出它们。"));
        return Ok(Reply::to_room(text));
    }
    let (short, exact) = target::word(context, &first);
    let mut text = Text::default().plain(tongue.say("Watching ", "继续关注 "));
    text.0.extend(target::name(context, &first, tongue).0);
    let text = text.plain(tongue.say(format!(" again. {missed}Stop: "), format!("。{missed}停止：")));
    let reply = Reply::to_room(text.code(format!("/unwatch {short}")));
    Ok(reply.button(tongue.say("Stop", "停止"), format!("unwatch {exact}")))
}
