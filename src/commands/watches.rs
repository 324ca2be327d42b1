//! `/watches`: what this room watches, and what the asker has sent to channels.

use std::sync::Arc;

use futures_util::FutureExt;

use super::terms::{Terms, place};
use super::{Call, Command, CommandError, Context, target, words};
use crate::model::{CommandInfo, Reply, Role, Scope, Subscription, Text};

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
    let tongue = call.tongue();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        call.in_reach(context).into_iter().partition(|one| one.to == call.destination());
    let mut text = Text::default();
    if here.is_empty() {
        text = text
            .plain(tongue.say("This room watches nothing. Begin with ", "本房间没有关注。开始："))
            .code("/watch <run>")
            .plain(tongue.say("; ", "；"))
            .code("/runs")
            .plain(tongue.say(" lists recent runs.", " 列出最近的发布。"));
    } else {
        let count = here.len();
        text = text.plain(tongue.say(format!("This room watches {count}:"), format!("本房间关注 {count} 个：")));
        text = list(context, &call, text, &here);
    }
    if !elsewhere.is_empty() {
        text = text.line().plain(tongue.say("Sent to channels by you:", "您发往渠道的："));
        text = list(context, &call, text, &elsewhere);
    }
    Ok(Reply::to_asker(text))
}

/// The newest, as many as the message holds.
fn list(context: &Context, call: &Call<'_>, mut text: Text, watches: &[Arc<Subscription>]) -> Text {
    let mut left = watches.len();
    for subscription in watches.iter().rev() {
        let line = line(context, call, subscription);
        if !words::holds(&text, &line) {
            let more = call.tongue().say(format!("and {left} more"), format!("另有 {left} 个"));
            return text.line().plain(more);
        }
        text = text.line();
        text.0.extend(line.0);
        left -= 1;
    }
    text
}

fn line(context: &Context, call: &Call<'_>, subscription: &Subscription) -> Text {
    let (now, tongue) = (call.now(), call.tongue());
    let text = match &subscription.scope {
        Scope::Workspace { .. } | Scope::Next { .. } => target::name(context, subscription, tongue),
        Scope::Run { workspace, run } => {
            let name = target::workspace_of(context, subscription);
            let text = Text::default().code(run.short());
            match context.tracker.state(workspace, run) {
                Some(state) => text.plain(format!(
                    " {} in {name}: {}",
                    words::title(&state.snapshot),
                    words::standing(&state, now)
                )),
                None => text.plain(format!(" in {name}: not seen yet")),
            }
        }
    };
    let mut more = Vec::new();
    let terms = Terms::of(subscription);
    if !terms.is_usual() {
        more.push(terms.what(tongue));
    }
    if let Some(until) = subscription.until {
        let until = words::moment(until, now);
        more.push(tongue.say(format!("until {until}"), format!("到 {until}")));
    }
    if let Some(muted) = subscription.muted_at(now) {
        let until = words::moment(muted.until, now);
        more.push(tongue.say(format!("muted until {until}"), format!("静音到 {until}")));
    }
    if subscription.to != call.destination() {
        more.push(place(call, &subscription.to, tongue));
    }
    more.into_iter().fold(text, |text, more| text.plain(format!(" · {}", more.trim())))
}
