//! `/watch <run|workspace|next>`: from now on, what changes is posted here.

use std::sync::Arc;

use futures_util::FutureExt;

use super::find::{Found, find, names, no_workspace};
use super::terms::{self, FOR, OF_STAGES, ONLY, TO, Terms, place};
use super::{Call, Command, CommandError, Context, gate, target, words};
use crate::model::{
    ArgInfo, CommandInfo, Destination, Reply, Role, RunId, Scope, Selector, Snapshot, Subscription, Text, Workspace,
};
use crate::schedule::Purpose;
use crate::store::PlaceRow;
use crate::text::stopped;
use crate::tracker::{Sight, Watched};

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "watch",
        about: "Post each stage change of a run here until it ends; of a workspace, or of the next run",
        args: &[
            ArgInfo {
                name: "run",
                about: "the run's id, its beginning, or a link from the DataWorks console; a workspace; or next",
                required: true,
                completes_runs: true,
            },
            super::WORKSPACE,
        ],
        options: &[ONLY, OF_STAGES, FOR, TO],
        role: Role::Watcher,
    },
    run: |context, call| watch(context, call).boxed(),
};

async fn watch(context: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let (word, workspace) = (call.arg(0), call.arg(1));
    let visible = call.visible(context)?;
    if word.eq_ignore_ascii_case(target::NEXT) {
        let workspace = match (workspace, visible.as_slice()) {
            ("", [only]) => only,
            ("", several) => {
                let said = format!("The next run of which workspace? You may see {}. ", names(several));
                return Err(CommandError::User(Text::default().plain(said).code("/watch next <workspace>")));
            }
            (name, _) => target::named(&visible, name).ok_or_else(|| no_workspace(context, &visible, name))?,
        };
        return follow(context, &call, workspace, Scope::Next { workspace: workspace.key() }).await;
    }
    if workspace.is_empty()
        && let Some(workspace) = target::named(&visible, word)
    {
        return follow(context, &call, workspace, Scope::Workspace { workspace: workspace.key() }).await;
    }
    watch_run(context, &call).await
}

/// One run.
async fn watch_run(context: &Context, call: &Call<'_>) -> Result<Reply, CommandError> {
    let (now, tongue) = (call.now(), call.tongue());
    let Found { workspace, id, snapshot } = find(context, call, call.arg(0), call.arg(1)).await?;
    let key = workspace.key();
    let wish = wish(context, call, &workspace, Scope::Run { workspace: key.clone(), run: id.clone() }).await?;
    let (snapshot, is_fresh) = stand(context, call, &workspace, &id, snapshot).await?;
    Terms::of(&wish).fit(&snapshot)?;
    if is_fresh {
        context.tracker.observe(&workspace, Sight::of_run(snapshot.clone()), now).await?;
    }
    call.audit(context, &target::about(context, &wish)).await?;
    let watched = context.tracker.watch(wish.clone(), snapshot.clone()).await?;
    (context.hurry)(&key, now);
    let state = context.tracker.state(&key, &id);
    let url = context.meter.url(&workspace, &id);
    let name = Text::default()
        .link(words::title(&snapshot), url)
        .plain(tongue.say(format!(" in {} (", workspace.name), format!("（{}，", workspace.name)));
    let name = name.code(id.short()).plain(tongue.say(")", "）"));
    if watched == Watched::Ended {
        let status = state.map_or(snapshot.status, |state| state.snapshot.status.clone());
        let ended = words::ended(&status);
        let text = said("", name, &format!(" {ended}; there is nothing left to watch. Its stages: "));
        return Ok(Reply::to_asker(text.code(format!("/status {}", id.short()))));
    }
    let standing = state.map_or_else(String::new, |state| stopped(&words::standing(&state, now)));
    let now_so = tongue.say(format!(" Now: {standing}"), format!("现在：{standing}"));
    let mut reply = answer(context, call, watched, &wish, (name, &now_so)).await?;
    if !is_fresh {
        let age = words::age(&context.tracker.freshness(&key, Some(&id)), now);
        reply.text = reply.text.line().plain(age.to_string());
    }
    Ok(reply)
}

/// The answer says where the run stands now, so that is asked for; where the budget forbids it, what is known serves.
async fn stand(
    context: &Context,
    call: &Call<'_>,
    workspace: &Workspace,
    id: &RunId,
    found: Option<Snapshot>,
) -> Result<(Snapshot, bool), CommandError> {
    let fresh = match found {
        Some(snapshot) => Ok(snapshot),
        None => context.meter.get(workspace, id, Purpose::Command, call.now()).await,
    };
    match (fresh, context.tracker.state(&workspace.key(), id)) {
        (Ok(snapshot), _) => Ok((snapshot, true)),
        (Err(_), Some(state)) => Ok((state.snapshot.clone(), false)),
        (Err(error), None) => Err(CommandError::user(format!("I can't ask for {}: {error}", id.short()))),
    }
}

/// Every run of a workspace, or its next one.
async fn follow(
    context: &Context,
    call: &Call<'_>,
    workspace: &Workspace,
    scope: Scope,
) -> Result<Reply, CommandError> {
    let subscription = wish(context, call, workspace, scope).await?;
    call.audit(context, &target::about(context, &subscription)).await?;
    let watched = context.tracker.follow(subscription.clone()).await?;
    (context.hurry)(&workspace.key(), call.now());
    let name = target::name(context, &subscription, call.tongue());
    answer(context, call, watched, &subscription, (name, "")).await
}

/// What is asked for, if the asker may.
async fn wish(
    context: &Context,
    call: &Call<'_>,
    workspace: &Workspace,
    scope: Scope,
) -> Result<Subscription, CommandError> {
    call.needs(context, workspace, Role::Watcher)?;
    let mut terms = Terms::read(call)?;
    if matches!(scope, Scope::Next { .. }) {
        terms.on.insert(Selector::Started);
    }
    let to = terms::destination(context, call, workspace)?;
    // Nothing is promised that could not arrive.
    (context.admits)(to.clone()).await.map_err(CommandError::user)?;
    // Somebody may just have mended what it had been given up for.
    let is_dead = |row: &PlaceRow| row.to == to && row.place.dead.is_some();
    if context.store.places().await?.iter().any(is_dead) {
        context.store.revive(&to, call.now()).await?;
    }
    gate::has_room(context, call, &to)?;
    Ok(terms.put(Subscription {
        id: uuid::Uuid::now_v7().to_string(),
        scope,
        to,
        on: Selector::watch(),
        stages: Vec::new(),
        creators: Vec::new(),
        template: None,
        by: call.asker().person(),
        roles: call.asker().roles.clone(),
        until: None,
        muted: None,
        stopped: None,
        created_at: call.now(),
    }))
}

/// What is so from now on, for how long, and how to stop it. `about` is what is watched, and how it stands.
async fn answer(
    context: &Context,
    call: &Call<'_>,
    watched: Watched,
    wish: &Subscription,
    (name, standing): (Text, &str),
) -> Result<Reply, CommandError> {
    let (now, tongue) = (call.now(), call.tongue());
    let (short, exact) = target::word(context, wish);
    let dot = tongue.say(".", "。");
    let (stop, promise) = (format!("/unwatch {short}"), promise(call, wish));
    let known = || {
        let same = context.tracker.of_scope(&wish.scope);
        same.into_iter().find(|one| one.is_same(wish) && one.is_live(now))
    };
    let text = match (watched, known()) {
        (Watched::Already, Some(known)) if !Terms::of(&known).is_same(&Terms::of(wish)) => {
            change(context, call, &known, wish, (name, standing)).await?.line()
        }
        (Watched::Already, _) => {
            let waits = matches!(wish.scope, Scope::Next { .. });
            let room = if waits { "This room waits for " } else { "This room watches " };
            let before = tongue.say(room, if waits { "本房间已在等待 " } else { "本房间已关注 " });
            said(&before, name, &tongue.say(format!(" already.{standing}"), format!("。{standing}"))).line()
        }
        _ => {
            let waits = matches!(wish.scope, Scope::Next { .. });
            let begin = if waits { "Waiting for " } else { "Watching " };
            let before = tongue.say(begin, if waits { "正在等待 " } else { "正在关注 " });
            said(&before, name, &format!("{dot}{standing}")).line().plain(promise)
        }
    };
    if matches!(&wish.to, Destination::Room { .. } if wish.to != call.destination()) {
        let text = text.plain(tongue.say("Stop it there: ", "请在那里停止：")).code(stop);
        return Ok(Reply::to_room(text));
    }
    let text = text.plain(tongue.say("Stop: ", "停止：")).code(stop);
    Ok(Reply::to_room(text)
        .button(tongue.say("Stop", "停止"), format!("unwatch {exact}"))
        .button(tongue.say("Mute 1 h", "静音 1 小时"), format!("mute {exact} for:1h")))
}

/// `I post each stage change here until it ends. `
fn promise(call: &Call<'_>, wish: &Subscription) -> String {
    let (now, tongue) = (call.now(), call.tongue());
    let terms = Terms::of(wish);
    let (what, how_long) = (terms.what(tongue), terms.how_long(&wish.scope, now, tongue));
    let place = place(call, &wish.to, tongue);
    let start = if matches!(wish.scope, Scope::Next { .. }) {
        ("its start, then ", "发布它的开始，并")
    } else {
        ("", "")
    };
    tongue.say(
        format!("I post {}{what} {place} {how_long}. ", start.0),
        format!("我会{place}{}{what}，{how_long}。", start.1),
    )
}

/// Watching again under other terms changes the watch.
async fn change(
    context: &Context,
    call: &Call<'_>,
    known: &Arc<Subscription>,
    wish: &Subscription,
    (name, standing): (Text, &str),
) -> Result<Text, CommandError> {
    let tongue = call.tongue();
    let described = |one: &Subscription| {
        let terms = Terms::of(one);
        tongue.say(
            format!("{} {}", terms.what(tongue), terms.how_long(&one.scope, call.now(), tongue)),
            format!("{}，{}", terms.what(tongue), terms.how_long(&one.scope, call.now(), tongue)),
        )
    };
    if !call.may_stop(context, known) {
        let before = tongue.say("This room watches ", "本房间已关注 ");
        let after = tongue.say(format!(" already: {}. ", described(known)), format!("：{}。", described(known)));
        let text = said(&before, name, &after);
        return Err(CommandError::User(
            text.plain("Somebody else began it; only they, or a moderator of this room, can change it."),
        ));
    }
    let changed = Terms::of(wish).put((**known).clone());
    if context.tracker.amend(vec![changed]).await? == 0 {
        return Err(CommandError::user("It has just ended, or found its run. Type it once more to see how it stands."));
    }
    let text = said(
        &tongue.say("Changed the watch of ", "已更改关注 "),
        name,
        &tongue.say(format!(".{standing}"), format!("。{standing}")),
    );
    let (before, after) = (described(known), described(wish));
    Ok(text.line().plain(
        tongue.say(
            format!("Until now I posted {before}; from now on {after}."),
            format!("此前{before}；现在起{after}。"),
        ),
    ))
}

fn said(before: &str, name: Text, after: &str) -> Text {
    let mut text = Text::default().plain(before);
    text.0.extend(name.0);
    text.plain(after)
}
