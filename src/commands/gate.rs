//! What stands between a request and its effect.
//!
//! In this order: how often somebody asks (the inbox), that nothing secret was typed, a command that exists, a workspace
//! that the asker may know of, the role that the command takes; then only is read what was typed, and DataWorks is asked
//! last. So nobody learns from an answer, or from how long it takes, what they may not know.

use super::terms::WATCHES_PER_ROOM;
use super::{Call, CommandError, Context, help};
use crate::access::pasted::secret_in;
use crate::model::{
    Asker, CommandInfo, Decision, Destination, Entry, Reply, Request, Role, Subscription, Text, Workspace,
};

/// Watches of one person, in all rooms of a chat.
const WATCHES_PER_PERSON: usize = 50;

/// The answer to somebody who typed a secret: nothing of it is repeated, kept or obeyed.
pub fn secret(context: &Context, request: &Request) -> Option<Reply> {
    let what = secret_in(&request.text)?;
    context.audit.note(denied(request, "ask", "secret"));
    Some(Reply::to_asker(Text::default().plain(format!(
        "I did nothing: that looks like {what}, and a chat is no place for it. I keep it nowhere, but others may have \
         read it: take it out of use and make a new one. What I need to know as a secret is in my configuration."
    ))))
}

/// For the audit log.
pub fn denied(request: &Request, action: &str, reason: &str) -> Entry {
    entry(request, action.to_owned(), Decision::Denied, reason)
}

fn entry(request: &Request, action: String, decision: Decision, reason: &str) -> Entry {
    let Asker { surface, room, .. } = request.asker.clone();
    Entry {
        at: request.at,
        person: request.asker.person(),
        room: Destination::Room { surface, room }.to_string(),
        action,
        decision,
        reason: reason.to_owned(),
        count: 1,
    }
}

/// Whether the asker may use the command here at all, for whichever workspace.
pub fn admit(context: &Context, info: &CommandInfo, asker: &Asker) -> Result<(), CommandError> {
    if info.name == help::COMMAND.info.name {
        return Ok(());
    }
    let visible = context.visible(asker);
    if visible.is_empty() {
        return Err(nothing_is_open());
    }
    may(context, asker, &visible, info.role)
}

fn nothing_is_open() -> CommandError {
    CommandError::denied("workspace", "No workspace is open to you here. Whoever runs me can change that.")
}

/// For at least one of them, which the asker may know of.
fn may(context: &Context, asker: &Asker, workspaces: &[Workspace], role: Role) -> Result<(), CommandError> {
    let own = workspaces.iter().filter_map(|workspace| context.access.role(asker, &workspace.name)).max();
    if own >= Some(role) {
        return Ok(());
    }
    let of = match workspaces {
        [only] => format!(" of {}", only.name),
        _ => String::new(),
    };
    let own = own.map_or("nobody", Role::as_str);
    Err(CommandError::denied(
        "role",
        format!("That takes the role {}{of}, and here yours is {own}. Whoever runs me can change that.", role.as_str()),
    ))
}

/// Whether one more watch may begin there.
pub fn has_room(context: &Context, call: &Call<'_>, to: &Destination) -> Result<(), CommandError> {
    if context.tracker.count_of(&call.asker().person()) >= WATCHES_PER_PERSON {
        let said = format!(
            "You watch {WATCHES_PER_PERSON} runs already, over all rooms; stop some first. /watches lists those of a room."
        );
        return Err(CommandError::denied("quota", said));
    }
    if context.tracker.in_destination(to).len() >= WATCHES_PER_ROOM {
        let said = format!("This room watches {WATCHES_PER_ROOM} runs already; stop some first. /watches lists them.");
        return Err(CommandError::denied("quota", said));
    }
    Ok(())
}

impl Call<'_> {
    /// The workspaces that the asker may know of from here; at least one.
    pub fn visible(&self, context: &Context) -> Result<Vec<Workspace>, CommandError> {
        let visible = context.visible(self.asker());
        if visible.is_empty() { Err(nothing_is_open()) } else { Ok(visible) }
    }

    /// For a workspace that the asker may know of.
    pub fn needs(&self, context: &Context, workspace: &Workspace, role: Role) -> Result<(), CommandError> {
        may(context, self.asker(), std::slice::from_ref(workspace), role)
    }

    /// Of those that the asker may know of, the ones that the command may be used for; at least one.
    pub fn permitted(&self, context: &Context, all: Vec<Workspace>) -> Result<Vec<Workspace>, CommandError> {
        may(context, self.asker(), &all, self.info.role)?;
        let mut permitted = all;
        permitted.retain(|workspace| context.access.role(self.asker(), &workspace.name) >= Some(self.info.role));
        Ok(permitted)
    }

    /// Writes down who does what, right before it is done: where that fails, nothing is done. `about`, in few words of
    /// ours: `7b1e04c2 in warehouse`.
    pub async fn audit(&self, context: &Context, about: &str) -> Result<(), CommandError> {
        let action = format!("{} {about}", self.info.name);
        Ok(context.audit.record(entry(self.request, action, Decision::Allowed, "")).await?)
    }

    /// Why [`Call::may_stop`] says no.
    pub fn not_own(&self, context: &Context, subscription: &Subscription) -> CommandError {
        let workspace = context.workspace(subscription.scope.workspace());
        if let Some(Err(denied)) = workspace.map(|workspace| self.needs(context, workspace, Role::Watcher)) {
            return denied;
        }
        let text = Text::default()
            .plain("Somebody else began this watch; only they, or a moderator of this room, can stop it. ")
            .code("/watches")
            .plain(" lists what is watched here.");
        CommandError::Denied { reason: "not_own", text }
    }
}
