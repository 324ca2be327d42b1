//! `/mute <run|workspace|here>`: for a while only what somebody must act on is posted; `/unmute` ends that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::{Call, Command, CommandError, Context, target, terms, words};
use crate::model::{ArgInfo, CommandInfo, Muted, OptionInfo, Reply, Role, Subscription, Text};

/// Unless it is said for how long.
const USUAL: Duration = Duration::from_secs(3600);
const LEAST: Duration = Duration::from_secs(300);
const MOST: Duration = Duration::from_secs(24 * 3600);

const WHAT: ArgInfo = ArgInfo {
    name: "run",
    about: "the run's id or its beginning; a workspace; next; or here for everything in this room",
    required: true,
    completes_runs: true,
};

pub const MUTE: Command = Command {
    info: CommandInfo {
        name: "mute",
        about: "For a while, post only what somebody must act on: failures, waits and ends",
        args: &[WHAT, super::WORKSPACE],
        options: &[OptionInfo { name: "for", about: "for how long, 5m to 24h; 1h if not said", example: "2h" }],
        role: Role::Watcher,
    },
    run: |context, call| mute(context, call).boxed(),
};

pub const UNMUTE: Command = Command {
    info: CommandInfo {
        name: "unmute",
        about: "Post everything again",
        args: &[WHAT, super::WORKSPACE],
        options: &[],
        role: Role::Watcher,
    },
    run: |context, call| unmute(context, call).boxed(),
};

/// What is to be muted or no longer, and by which word; only what the asker may stop.
struct Meant {
    all: Vec<Arc<Subscription>>,
    name: Text,
    short: String,
    exact: String,
}

fn meant(context: &Context, call: &Call<'_>) -> Result<Meant, CommandError> {
    let tongue = call.tongue();
    let (mut all, is_here) = match call.arg(0) {
        word if word.eq_ignore_ascii_case("here") => (call.watched_here(context), true),
        word => (target::meant(context, call, word, call.arg(1), &call.in_reach(context))?, false),
    };
    if all.is_empty() {
        return Err(CommandError::user(tongue.say("This room watches nothing.", "本房间没有关注。")));
    }
    all.retain(|one| call.may_stop(context, one));
    let Some(first) = all.first() else {
        let said = "Somebody else began this watch; only they, or a moderator of this room, can mute it or end that.";
        return Err(CommandError::denied("not_own", said));
    };
    if is_here {
        let name = match all.len() {
            1 => tongue.say("1 watch of this room", "本房间的 1 个关注"),
            count => tongue.say(format!("{count} watches of this room"), format!("本房间的 {count} 个关注")),
        };
        let (name, here) = (Text::default().plain(name), "here".to_owned());
        return Ok(Meant { all, name, short: here.clone(), exact: here });
    }
    let name = target::name(context, first, tongue);
    let (short, exact) = target::word(context, first);
    Ok(Meant { all, name, short, exact })
}

async fn mute(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let (now, tongue) = (call.now(), call.tongue());
    let span = call.option("for").map_or(Ok(USUAL), |typed| terms::span(typed, LEAST, MOST))?;
    let Meant { all, name, short, exact } = meant(context, &call)?;
    call.audit(context, &about(context, &all)).await?;
    let muted = Muted { until: now + span, by: call.asker().person() };
    let amended = all.iter().map(|one| Subscription { muted: Some(muted.clone()), ..(**one).clone() });
    if context.tracker.amend(amended.collect()).await? == 0 {
        return Err(ended());
    }
    let (span, until, by) = (words::duration(span), words::moment(muted.until, now), &call.asker().user);
    let mut text = Text::default().plain(tongue.say("Muted ", "已静音 "));
    text.0.extend(name.0);
    let text = text
        .plain(
            tongue.say(
                format!(" for {span}, until {until}, by {by}."),
                format!("，时长 {span}，到 {until}，操作者 {by}。"),
            ),
        )
        .line()
        .plain(tongue.say(
            "Until then I post only what somebody must act on: failures, waits and ends. What is held back is not \
             posted later. End it: ",
            "在此期间只发布需要处理的内容：失败、等待人工和结束。其余内容不会补发。取消静音：",
        ))
        .code(format!("/unmute {short}"));
    Ok(Reply::to_room(text).button(tongue.say("Unmute", "取消静音"), format!("unmute {exact}")))
}

async fn unmute(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let (now, tongue) = (call.now(), call.tongue());
    let Meant { all, name, short, .. } = meant(context, &call)?;
    // The time it was muted until stays known: `/why` tells what was held back.
    let unmuted = all.iter().filter_map(|one| {
        let muted = one.muted_at(now)?;
        let muted = Some(Muted { until: now, by: muted.by.clone() });
        Some(Subscription { muted, ..(**one).clone() })
    });
    let unmuted: Vec<_> = unmuted.collect();
    if unmuted.is_empty() {
        let mut text = Text::default().plain(tongue.say("Nothing is muted: ", "没有静音："));
        text.0.extend(name.0);
        let text = text.plain(tongue.say(". Mute: ", "。静音："));
        return Ok(Reply::to_asker(text.code(format!("/mute {short} for:1h"))));
    }
    call.audit(context, &about(context, &all)).await?;
    if context.tracker.amend(unmuted).await? == 0 {
        return Err(ended());
    }
    let mut text = Text::default().plain(tongue.say("No longer muted: ", "已取消静音："));
    text.0.extend(name.0);
    Ok(Reply::to_room(
        text.plain(
            tongue.say(
                ". What was held back is not posted later; /why tells of it.",
                "。期间的内容不会补发；/why 可查看。",
            ),
        ),
    ))
}

/// For the audit log.
fn about(context: &Context, all: &[Arc<Subscription>]) -> String {
    match all {
        [only] => target::about(context, only),
        several => format!("{} watches", several.len()),
    }
}

fn ended() -> CommandError {
    CommandError::user("It has just ended by itself, or found its run. /watches lists what goes on.")
}
