//! What people can type, in one table. Help, registration at the chats and the README's table derive from it.
//!
//! A command is a file with a [`Command`]; what it answers stands beside it.

mod find;
mod gate;
mod help;
mod mute;
mod runs;
mod status;
mod target;
mod terms;
mod unwatch;
mod watch;
mod watches;
mod why;
mod words;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc};

use self::words::Tongue;
use crate::access::Access;
use crate::audit::Audit;
use crate::fate::Configuration;
use crate::meter::Meter;
use crate::metrics::{CommandLabels, Metrics};
use crate::model::{
    ArgInfo, Asker, CommandInfo, Destination, OptionInfo, Reply, Request, Role, RunState, Subscription, Suggestion,
    Text, Timestamp, Workspace, WorkspaceKey,
};
use crate::store::{Store, StoreError};
use crate::surfaces::Ask;
use crate::text;
use crate::tracker::Tracker;

const COUNT: usize = 9;

/// The one list.
const COMMANDS: [Command; COUNT] = [
    watch::COMMAND,
    unwatch::COMMAND,
    watches::COMMAND,
    mute::MUTE,
    mute::UNMUTE,
    status::COMMAND,
    why::COMMAND,
    runs::COMMAND,
    help::COMMAND,
];

/// What surfaces know of the commands.
pub static CATALOG: [CommandInfo; COUNT] = catalog();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks the bounds")]
const fn catalog() -> [CommandInfo; COUNT] {
    let mut infos = [COMMANDS[0].info; COUNT];
    let mut index = 0;
    while index < COUNT {
        infos[index] = COMMANDS[index].info;
        index += 1;
    }
    infos
}

/// The argument that several commands share.
const WORKSPACE: ArgInfo =
    ArgInfo { name: "workspace", about: "the workspace's name", required: false, completes_runs: false };

#[derive(Clone, Copy)]
struct Command {
    info: CommandInfo,
    run: for<'a> fn(&'a Context, Call<'a>) -> BoxFuture<'a, Result<Reply, CommandError>>,
}

/// One use of a command.
struct Call<'a> {
    request: &'a Request,
    /// In the order of the command's arguments; those not given are empty.
    args: Vec<&'a str>,
    /// The words of the form `name:value`, by the names of the command's options.
    options: Vec<(&'static str, &'a str)>,
    info: &'a CommandInfo,
}

impl<'a> Call<'a> {
    /// The argument at this place; empty when not given.
    fn arg(&self, index: usize) -> &'a str {
        self.args.get(index).copied().unwrap_or_default()
    }

    /// The value behind `name:`.
    fn option(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    fn asker(&self) -> &'a Asker {
        &self.request.asker
    }

    /// The language of the answer.
    fn tongue(&self) -> Tongue {
        Tongue::of(&self.request.locale)
    }

    /// Where later messages of this room go.
    fn destination(&self) -> Destination {
        let Asker { surface, room, .. } = self.asker();
        Destination::Room { surface: surface.clone(), room: room.clone() }
    }

    /// What this room has subscribed to, as far as the asker may know of it, oldest first.
    fn watched_here(&self, context: &Context) -> Vec<Arc<Subscription>> {
        let here = self.destination();
        self.reach(context, |one| one.to == here && one.is_live(self.now()))
    }

    /// What this room has subscribed to, and what the asker has sent to channels, where nobody can type, oldest first.
    fn in_reach(&self, context: &Context) -> Vec<Arc<Subscription>> {
        self.reach(context, |one| one.is_live(self.now()))
    }

    /// Of this room, or sent to a channel by the asker, as far as the asker may know of it: those that are meant.
    fn reach(&self, context: &Context, is_meant: impl Fn(&Subscription) -> bool) -> Vec<Arc<Subscription>> {
        let visible: Vec<WorkspaceKey> = context.visible(self.asker()).iter().map(Workspace::key).collect();
        let (here, person) = (self.destination(), self.asker().person());
        context.tracker.select(|one| {
            let is_sent = matches!(one.to, Destination::Channel(_)) && one.by == person;
            (one.to == here || is_sent) && visible.contains(one.scope.workspace()) && is_meant(one)
        })
    }

    /// One's own, and a moderator what anybody began.
    fn may_stop(&self, context: &Context, subscription: &Subscription) -> bool {
        let Some(workspace) = context.workspace(subscription.scope.workspace()) else { return false };
        let role = context.access.role(self.asker(), &workspace.name);
        let is_own = subscription.by == self.asker().person();
        role >= Some(Role::Moderator) || is_own && role >= Some(Role::Watcher)
    }

    fn now(&self) -> Timestamp {
        self.request.at
    }
}

/// Tells the poller that somebody waits for a workspace.
pub type Hurry = Box<dyn Fn(&WorkspaceKey, Timestamp) + Send + Sync>;

/// Whether messages would reach a room; what it says otherwise is for the asker.
pub type Admits = Box<dyn Fn(Destination) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What commands may use.
pub struct Context {
    pub tracker: Arc<Tracker>,
    pub meter: Arc<Meter>,
    pub metrics: Arc<Metrics>,
    pub workspaces: Vec<Workspace>,
    pub hurry: Hurry,
    pub store: Arc<dyn Store>,
    pub configuration: Configuration,
    pub access: Arc<Access>,
    pub admits: Admits,
    pub audit: Arc<Audit>,
}

impl Context {
    /// The workspaces that somebody may know of.
    fn visible(&self, asker: &Asker) -> Vec<Workspace> {
        let is_visible = |workspace: &&Workspace| self.access.role(asker, &workspace.name).is_some();
        self.workspaces.iter().filter(is_visible).cloned().collect()
    }

    fn workspace(&self, key: &WorkspaceKey) -> Option<&Workspace> {
        self.workspaces.iter().find(|workspace| workspace.key() == *key)
    }
}

/// Whose fault it was: what the asker can mend is said, what is ours is logged and answered neutrally.
#[derive(Debug)]
enum CommandError {
    User(Text),
    /// They may not; `reason` is one word.
    Denied {
        reason: &'static str,
        text: Text,
    },
    Internal(String),
}

impl CommandError {
    fn user(text: impl Into<String>) -> CommandError {
        CommandError::User(Text::default().plain(text))
    }

    fn denied(reason: &'static str, text: impl Into<String>) -> CommandError {
        CommandError::Denied { reason, text: Text::default().plain(text) }
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        match error {
            StoreError::Full => CommandError::user(
                "I can't remember anything new: my disk is full. Nothing was changed; tell whoever runs me.",
            ),
            other => CommandError::Internal(other.to_string()),
        }
    }
}

/// Commands answered side by side.
const CONCURRENCY: usize = 32;
/// Suggestions offered at most: Discord's limit,
/// <https://docs.discord.com/developers/interactions/receiving-and-responding>.
const SUGGESTIONS: usize = 25;
/// Workspaces whose list may be asked for while somebody types.
const REFRESHED: usize = 3;
/// A list this young is good enough for suggestions.
const SUGGESTED_FROM: Duration = Duration::from_secs(10);

/// Answers what comes through the inbox until it is closed.
pub async fn serve(context: Arc<Context>, mut inbox: mpsc::Receiver<Ask>) {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    while let Some(ask) = inbox.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            // Whoever asked may be gone; then nobody misses the answer.
            match ask {
                Ask::Command { request, reply } => drop(reply.send(answer(&context, &request).await)),
                Ask::Suggest { request, reply } => drop(reply.send(suggest(&context, &request).await)),
            }
            drop(place);
        });
    }
}

/// Runs one command.
pub async fn answer(context: &Context, request: &Request) -> Reply {
    if let Some(reply) = gate::secret(context, request) {
        return reply;
    }
    let mut typed = request.text.trim().trim_start_matches('/').split_whitespace();
    let name = typed.next().unwrap_or("help").to_ascii_lowercase();
    let Some(command) = COMMANDS.iter().find(|command| command.info.name == name) else {
        return Reply::to_asker(unknown(&name));
    };
    let admitted = gate::admit(context, &command.info, &request.asker);
    let read = admitted.and_then(|()| read(&command.info, typed).map_err(CommandError::User));
    let result = match read {
        Err(error) => Err(error),
        Ok((args, options)) => {
            let call = Call { request, args, options, info: &command.info };
            let run = AssertUnwindSafe((command.run)(context, call)).catch_unwind().await;
            run.unwrap_or_else(|_| Err(CommandError::Internal("it panicked".to_owned())))
        }
    };
    let (outcome, reply) = match result {
        Ok(reply) => ("ok", reply),
        Err(CommandError::User(text)) => ("refused", Reply::to_asker(text)),
        Err(CommandError::Denied { reason, text }) => {
            context.audit.note(gate::denied(request, command.info.name, reason));
            ("denied", Reply::to_asker(text))
        }
        Err(CommandError::Internal(said)) => ("failed", Reply::to_asker(apology(&command.info, &said))),
    };
    context.metrics.commands.get_or_create(&CommandLabels { command: command.info.name, outcome }).inc();
    reply
}

fn unknown(name: &str) -> Text {
    let nearest = text::nearest(name, COMMANDS.iter().map(|command| command.info.name));
    let said = Text::default().plain("There is no command ").code(format!("/{}", words::cut(name, 32))).plain(". ");
    match nearest {
        Some(nearest) => said.plain("Did you mean ").code(format!("/{nearest}")).plain("?"),
        None => said.code("/help").plain(" lists what I can do."),
    }
}

/// The words behind a command's name.
type Words<'a> = (Vec<&'a str>, Vec<(&'static str, &'a str)>);

/// Which words are arguments and which are options, or what is wrong with them.
fn read<'a>(info: &CommandInfo, typed: impl Iterator<Item = &'a str>) -> Result<Words<'a>, Text> {
    let (mut args, mut options) = (Vec::new(), Vec::new());
    for word in typed {
        // A link holds a colon too.
        let named = word.split_once(':').filter(|(_, value)| !value.starts_with("//"));
        let Some((name, value)) = named.filter(|_| !info.options.is_empty()) else {
            args.push(word);
            continue;
        };
        let said = Text::default().code(words::cut(&format!("{name}:"), 32));
        let Some(option) = info.options.iter().find(|option| option.name.eq_ignore_ascii_case(name)) else {
            let nearest = text::nearest(name, info.options.iter().map(|option| option.name));
            let meant = nearest.map_or_else(String::new, |nearest| format!(" Did you mean {nearest}:?"));
            return Err(said.plain(" is nothing that I know.").plain(meant).plain(" Usage: ").code(usage(info)));
        };
        if value.is_empty() || options.iter().any(|(own, _)| *own == option.name) {
            let wrong = if value.is_empty() {
                " needs a value behind the colon, for example "
            } else {
                " is given twice; write it once, like "
            };
            return Err(said.plain(wrong).code(format!("{}:{}", option.name, option.example)).plain("."));
        }
        options.push((option.name, value));
    }
    misuse(info, &args).map_or(Ok((args, options)), Err)
}

/// What is wrong with the arguments, if anything.
fn misuse(info: &CommandInfo, args: &[&str]) -> Option<Text> {
    let missing = info.args.get(args.len()..).unwrap_or_default().iter().find(|arg| arg.required);
    let usage = |text: Text| text.plain(" Usage: ").code(usage(info));
    if let Some(missing) = missing {
        return Some(usage(
            Text::default().code(format!("/{}", info.name)).plain(" needs ").plain(missing.about).plain("."),
        ));
    }
    (args.len() > info.args.len())
        .then(|| usage(Text::default().code(format!("/{}", info.name)).plain(" takes fewer words than that.")))
}

/// `/watch <run> [workspace] [for:3d]`
pub fn usage(info: &CommandInfo) -> String {
    let arg = |arg: &ArgInfo| if arg.required { format!(" <{}>", arg.name) } else { format!(" [{}]", arg.name) };
    let option = |option: &OptionInfo| format!(" [{}:{}]", option.name, option.example);
    let name = std::iter::once(format!("/{}", info.name));
    name.chain(info.args.iter().map(arg)).chain(info.options.iter().map(option)).collect()
}

/// Our fault: told neutrally, with a reference that finds the log line.
fn apology(info: &CommandInfo, said: &str) -> Text {
    let reference: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
    tracing::error!(command = info.name, reference, error = said, "a command failed");
    Text::default().plain("That went wrong on my side. Whoever runs me finds it in the log as ").code(reference)
}

/// Runs that match the last word typed, newest first; those still active before the ended ones.
async fn suggest(context: &Context, request: &Request) -> Vec<Suggestion> {
    let typed = request.text.split_whitespace().nth(1).unwrap_or_default().to_lowercase();
    // Where nobody watches, the polls come too seldom to show what has just begun.
    let visible = context.visible(&request.asker);
    let mut stalest: Vec<&Workspace> = visible.iter().collect();
    stalest.sort_by_key(|workspace| context.tracker.freshness(&workspace.key(), None).seen_at);
    let refreshed = stalest.into_iter().take(REFRESHED);
    join_all(refreshed.map(|workspace| find::refresh(context, workspace, SUGGESTED_FROM, request.at))).await;
    let mut found = Vec::new();
    for workspace in &visible {
        for run in context.tracker.recent(&workspace.key()) {
            let label = words::label(workspace, &run.snapshot);
            if label.to_lowercase().contains(&typed) || run.snapshot.id.as_str().starts_with(&typed) {
                found.push((run.snapshot.status.is_terminal(), std::cmp::Reverse(run.snapshot.created_at), label, run));
            }
        }
    }
    found.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    found.truncate(SUGGESTIONS);
    let suggestion =
        |(_, _, label, run): (_, _, String, Arc<RunState>)| Suggestion { label, value: run.snapshot.id.to_string() };
    found.into_iter().map(suggestion).collect()
}
