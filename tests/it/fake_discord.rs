//! A model of Discord over loopback: its HTTP interface, its gateway, and what people in its rooms see.
//!
//! It remembers everything, is stricter than Discord where Discord is lenient (every message must say which mentions
//! it allows, every limit is the narrowest reading), and misbehaves on command. What it had to refuse without having
//! been told to is a complaint, and a test that ends with a complaint fails.
//!
//! ```ignore
//! let discord = FakeDiscord::start().await;                       // point `discord.api` to discord.url()
//! let seen = discord.slash("100", "7", "watch", &[("run", "7b1e")]).await;
//! assert_eq!((seen.text.as_str(), seen.ephemeral), ("Watching", false));
//! let messages = discord.wait_for_messages("100", 1).await;       // what the bot posted to the room by itself
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::result_large_err)]

mod gateway;
mod http;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub const TOKEN: &str = "fake.discord-token";
pub const APPLICATION: &str = "1100000000000000001";
const BOT: &str = "1100000000000000002";

/// Nothing in these tests takes long; whoever waits longer waits for something that never happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message as a person reads it, in markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub text: String,
    /// Only the asker sees it.
    pub ephemeral: bool,
    /// Labels and ids of the buttons under it.
    pub buttons: Vec<(String, String)>,
}

/// A message that the bot posted to a room by itself.
#[derive(Debug, Clone)]
pub struct Posted {
    pub id: String,
    pub content: String,
    pub nonce: Option<String>,
    /// The whole request.
    pub body: Value,
}

pub struct FakeDiscord {
    shared: Arc<Shared>,
    _servers: JoinSet<()>,
}

struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
    http: SocketAddr,
    gateway: SocketAddr,
}

#[derive(Default)]
struct World {
    next_id: u64,
    /// Of persons who have not set Discord to English.
    languages: HashMap<String, String>,
    // HTTP
    commands: Vec<Value>,
    command_writes: usize,
    command_reads: usize,
    posted: HashMap<String, Vec<Posted>>,
    unknown_rooms: Vec<String>,
    limits: Vec<Limit>,
    limited: usize,
    interactions: HashMap<String, Interaction>,
    /// Every button shown so far: its room, its label, its id.
    buttons: Vec<(String, String, String)>,
    complaints: Vec<String>,
    down: bool,
    /// The token is refused where messages are posted.
    refuses: bool,
    /// So many posts are taken without a usable answer.
    silent: usize,
    /// Requests to post, refused ones too: the room and the nonce.
    posts: Vec<(String, String)>,
    // gateway
    heartbeat: Option<Duration>,
    hangs: bool,
    refuse_identify: Option<u16>,
    sessions: HashMap<String, Session>,
    session: Option<String>,
    connections: HashMap<u64, Connection>,
    identifies: usize,
    resumes: usize,
    attempts: usize,
    looked_up: usize,
    acked: usize,
    logged_off: usize,
    sessions_left: u64,
}

struct Limit {
    path_part: String,
    times: usize,
    retry_after: f64,
}

#[derive(Default)]
struct Session {
    sequence: u64,
    /// Every dispatch with its number, for those who resume.
    log: Vec<(u64, Value)>,
}

struct Connection {
    out: mpsc::UnboundedSender<Push>,
    ready: bool,
    acks: bool,
}

/// What the fake makes a connection do.
enum Push {
    Send(Value),
    Close(Option<u16>),
    /// The TCP connection is gone, nobody said goodbye.
    Cut,
    /// The TCP connection stays, nobody is there.
    Freeze,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unanswered,
    Loading { ephemeral: bool },
    Answered,
}

struct Interaction {
    id: String,
    room: String,
    autocomplete: bool,
    stage: Stage,
    deferred: bool,
    original: Option<Seen>,
    follow_ups: Vec<(String, Seen)>,
    choices: Option<Vec<(String, String)>>,
    expired: bool,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&World) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.world()) {
                    return found;
                }
                changes.changed().await.expect("the fake lives as long as the test");
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("never happened: {what}; complaints: {:?}", self.world().complaints))
    }
}

impl World {
    /// Snowflakes only grow.
    fn id(&mut self) -> String {
        self.next_id += 1;
        (1_200_000_000_000_000_000 + self.next_id).to_string()
    }

    fn complain(&mut self, complaint: impl Into<String>) {
        self.complaints.push(complaint.into());
    }

    /// Numbers an event, keeps it for those who resume, and sends it to who is there.
    fn dispatch(&mut self, name: &str, data: &Value) {
        let Some(session) = self.session.as_ref().and_then(|id| self.sessions.get_mut(id)) else {
            return;
        };
        session.sequence += 1;
        let event = json!({ "op": 0, "t": name, "s": session.sequence, "d": data });
        session.log.push((session.sequence, event.clone()));
        self.push(|| Push::Send(event.clone()));
    }

    fn push(&self, make: impl Fn() -> Push) {
        for connection in self.connections.values().filter(|connection| connection.ready) {
            let _ = connection.out.send(make());
        }
    }

    fn is_connected(&self) -> bool {
        self.connections.values().any(|connection| connection.ready)
    }
}

impl FakeDiscord {
    pub async fn start() -> FakeDiscord {
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let gateway = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let shared = Arc::new(Shared {
            world: Mutex::new(World { sessions_left: 1000, ..World::default() }),
            changed: watch::Sender::new(0),
            http: http.local_addr().expect("an address"),
            gateway: gateway.local_addr().expect("an address"),
        });
        let mut servers = JoinSet::new();
        servers.spawn(http::serve(http, Arc::clone(&shared)));
        servers.spawn(gateway::serve(gateway, Arc::clone(&shared)));
        FakeDiscord { shared, _servers: servers }
    }

    /// What `discord.api` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.http)
    }

    // ---------------------------------------------------------------------------------------------- people

    /// Somebody types a slash command; returns once they see a text. Where the bot defers first and then answers the
    /// whole room, the asker sees a private copy for a moment: use [`FakeDiscord::say`] and [`Said::public`] there.
    pub async fn slash(&self, room: &str, user: &str, command: &str, options: &[(&str, &str)]) -> Seen {
        self.say(room, user, command, options).await.answered().await
    }

    /// Somebody types a slash command. Waits for the bot to be connected first.
    pub async fn say(&self, room: &str, user: &str, command: &str, options: &[(&str, &str)]) -> Said {
        self.shared.until("the bot connects to the gateway", |world| world.is_connected().then_some(())).await;
        self.say_while_away(room, user, command, options)
    }

    /// Somebody types a slash command whether the bot is there or not; a bot that resumes hears of it later.
    pub fn say_while_away(&self, room: &str, user: &str, command: &str, options: &[(&str, &str)]) -> Said {
        let options: Vec<_> =
            options.iter().map(|(name, value)| json!({ "type": 3, "name": name, "value": value })).collect();
        self.interact(2, room, user, &json!({ "name": command, "type": 1, "options": options }))
    }

    /// Somebody presses the button of that label that was shown in the room last.
    pub async fn press(&self, room: &str, user: &str, label: &str) -> Said {
        self.shared.until("the bot connects to the gateway", |world| world.is_connected().then_some(())).await;
        let id = {
            let world = self.shared.world();
            let shown = world.buttons.iter().rev().find(|(of, shown, _)| of == room && shown == label);
            let (_, _, id) = shown.unwrap_or_else(|| panic!("no button {label:?} in room {room}: {:?}", world.buttons));
            id.clone()
        };
        self.interact(3, room, user, &json!({ "component_type": 2, "custom_id": id }))
    }

    /// In which language people have Discord from now on.
    pub fn speak(&self, user: &str, locale: &str) {
        self.shared.change(|world| world.languages.insert(user.to_owned(), locale.to_owned()));
    }

    /// Somebody is typing the option `focused`; what is offered, as (name, value).
    pub async fn autocomplete(
        &self,
        room: &str,
        user: &str,
        command: &str,
        options: &[(&str, &str)],
        focused: &str,
    ) -> Vec<(String, String)> {
        self.shared.until("the bot connects to the gateway", |world| world.is_connected().then_some(())).await;
        let option = |&(name, value): &(&str, &str)| match name == focused {
            true => json!({ "type": 3, "name": name, "value": value, "focused": true }),
            false => json!({ "type": 3, "name": name, "value": value }),
        };
        let options: Vec<_> = options.iter().map(option).collect();
        let said = self.interact(4, room, user, &json!({ "name": command, "type": 1, "options": options }));
        said.look("suggestions are offered", |interaction| interaction.choices.clone()).await
    }

    fn interact(&self, kind: u8, room: &str, user: &str, data: &Value) -> Said {
        let token = self.shared.change(|world| {
            let id = world.id();
            // Real ones are base64 and may hold what paths read otherwise.
            let token = format!("aW50ZXJhY3Rpb24/{id}=");
            world.interactions.insert(
                token.clone(),
                Interaction {
                    id: id.clone(),
                    room: room.to_owned(),
                    autocomplete: kind == 4,
                    stage: Stage::Unanswered,
                    deferred: false,
                    original: None,
                    follow_ups: Vec::new(),
                    choices: None,
                    expired: false,
                },
            );
            let mut data = data.clone();
            let mut event_message = Value::Null;
            match kind {
                3 => event_message = http::message(&world.id(), "a message of the bot"),
                _ => drop(data.as_object_mut().expect("an object").insert("id".to_owned(), json!(world.id()))),
            }
            let locale = world.languages.get(user).map_or("en-US", String::as_str).to_owned();
            let mut event = gateway::interaction(kind, &id, &token, room, user, &locale, &data);
            if !event_message.is_null() {
                event["message"] = event_message;
            }
            world.dispatch("INTERACTION_CREATE", &event);
            token
        });
        Said { shared: Arc::clone(&self.shared), token }
    }

    // ----------------------------------------------------------------------------------------------- rooms

    /// What the bot posted to the room by itself (answers to commands are not among it).
    pub fn messages(&self, room: &str) -> Vec<Posted> {
        self.shared.world().posted.get(room).cloned().unwrap_or_default()
    }

    /// Rooms that something was posted to.
    pub fn rooms(&self) -> Vec<String> {
        self.shared.world().posted.keys().cloned().collect()
    }

    pub async fn wait_for_messages(&self, room: &str, count: usize) -> Vec<Posted> {
        let what = format!("{count} messages in room {room}");
        let enough = |world: &World| world.posted.get(room).filter(|posted| posted.len() >= count).cloned();
        self.shared.until(&what, enough).await
    }

    /// The room is deleted: posts to it fail with 10003.
    pub fn delete_room(&self, room: &str) {
        self.shared.change(|world| world.unknown_rooms.push(room.to_owned()));
    }

    // ------------------------------------------------------------------------------------------ misbehaviour

    /// The next `times` requests whose path contains `path_part` are answered 429.
    pub fn limit(&self, path_part: &str, times: usize, retry_after: f64) {
        let limit = Limit { path_part: path_part.to_owned(), times, retry_after };
        self.shared.change(|world| world.limits.push(limit));
    }

    /// Posts get 401 from now on, or no longer.
    pub fn refuse_token(&self, refuse: bool) {
        self.shared.change(|world| world.refuses = refuse);
    }

    /// The next `times` posts are taken, and answered with a failure of Discord's own.
    pub fn fall_silent(&self, times: usize) {
        self.shared.change(|world| world.silent = times);
    }

    /// Every request to post a message so far, whatever came of it: its room and its nonce.
    pub fn posts(&self) -> Vec<(String, String)> {
        self.shared.world().posts.clone()
    }

    /// How many requests were answered 429.
    pub fn limited(&self) -> usize {
        self.shared.world().limited
    }

    /// Discord is down: HTTP answers 503, the gateway hangs up on whoever calls. Open connections stay.
    pub fn refuse_connections(&self, refuse: bool) {
        self.shared.change(|world| world.down = refuse);
    }

    /// New gateway connections are taken and then nothing ever comes.
    pub fn hang(&self, hang: bool) {
        self.shared.change(|world| world.hangs = hang);
    }

    /// Every IDENTIFY ends in this close code.
    pub fn refuse_identify(&self, code: Option<u16>) {
        self.shared.change(|world| world.refuse_identify = code);
    }

    /// The connection breaks without a word.
    pub fn drop_gateway(&self) {
        self.shared.change(|world| world.push(|| Push::Cut));
    }

    /// The connection stays, but nobody listens or speaks any more.
    pub fn freeze_gateway(&self) {
        self.shared.change(|world| world.push(|| Push::Freeze));
    }

    /// The connection ends with this close code, or with none.
    pub fn close_gateway(&self, code: Option<u16>) {
        self.shared.change(|world| world.push(|| Push::Close(code)));
    }

    /// Op 7: please come again.
    pub fn ask_to_reconnect(&self) {
        self.shared.change(|world| world.push(|| Push::Send(json!({ "op": 7, "d": null }))));
    }

    /// Op 9; a session that cannot be resumed is forgotten.
    pub fn invalidate_session(&self, resumable: bool) {
        self.shared.change(|world| {
            if !resumable && let Some(session) = world.session.take() {
                world.sessions.remove(&session);
            }
            world.push(|| Push::Send(json!({ "op": 9, "d": resumable })));
        });
    }

    /// Sessions are forgotten without telling anybody: whoever resumes is sent back.
    pub fn forget_sessions(&self) {
        self.shared.change(|world| {
            world.sessions.clear();
            world.session = None;
        });
    }

    /// Heartbeats over the present connection are no longer acknowledged.
    pub fn stop_acking(&self) {
        self.shared.change(|world| world.connections.values_mut().for_each(|connection| connection.acks = false));
    }

    /// For connections made from now on; 41.25 s as with Discord otherwise.
    pub fn heartbeat_every(&self, interval: Duration) {
        self.shared.change(|world| world.heartbeat = Some(interval));
    }

    /// How many more sessions may be begun today.
    pub fn leave_sessions(&self, left: u64) {
        self.shared.change(|world| world.sessions_left = left);
    }

    // ------------------------------------------------------------------------------------------ observation

    pub async fn until_identified(&self, times: usize) {
        self.shared
            .until("a new session", |world| (world.identifies >= times && world.is_connected()).then_some(()))
            .await;
    }

    pub async fn until_resumed(&self, times: usize) {
        self.shared.until("a resumed session", |world| (world.resumes >= times).then_some(())).await;
    }

    /// TCP connections to the gateway so far, refused ones too.
    pub async fn until_attempts(&self, times: usize) {
        self.shared.until("an attempt to connect", |world| (world.attempts >= times).then_some(())).await;
    }

    /// The bot asked where the gateway is so often.
    pub async fn until_looked_up(&self, times: usize) {
        self.shared.until("the bot asks for the gateway", |world| (world.looked_up >= times).then_some(())).await;
    }

    /// Heartbeats acknowledged so far.
    pub async fn until_acks(&self, times: usize) {
        self.shared.until("heartbeats are acknowledged", |world| (world.acked >= times).then_some(())).await;
    }

    /// The bot is not connected.
    pub async fn until_alone(&self) {
        self.shared.until("the bot disconnects", |world| world.connections.is_empty().then_some(())).await;
    }

    /// Sessions begun so far.
    pub fn identifies(&self) -> usize {
        self.shared.world().identifies
    }

    /// Connections that ended with close code 1000 from the bot.
    pub fn logged_off(&self) -> usize {
        self.shared.world().logged_off
    }

    pub fn command_writes(&self) -> usize {
        self.shared.world().command_writes
    }

    /// The registered commands were asked for so often.
    pub async fn until_commands_read(&self, times: usize) {
        self.shared.until("the bot looks at its commands", |world| (world.command_reads >= times).then_some(())).await;
    }

    pub async fn until_commands(&self, count: usize) -> Vec<Value> {
        let registered = |world: &World| (world.commands.len() == count).then(|| world.commands.clone());
        self.shared.until("commands are registered", registered).await
    }

    /// What had to be refused so far; taken, it no longer fails the test.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.world().complaints)
    }
}

impl Drop for FakeDiscord {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let complaints = self.take_complaints();
            assert!(complaints.is_empty(), "Discord had to refuse something: {complaints:#?}");
        }
    }
}

/// A command somebody typed, and what came of it.
pub struct Said {
    shared: Arc<Shared>,
    token: String,
}

impl Said {
    /// The first text that the asker sees instead of "thinking".
    pub async fn answered(&self) -> Seen {
        self.look("the command is answered", |interaction| shown(interaction).into_iter().next()).await
    }

    /// The asker sees "thinking".
    pub async fn deferred(&self) {
        self.look("the command is deferred", |interaction| interaction.deferred.then_some(())).await;
    }

    /// The answer that the whole room sees, once nothing private is left beside it.
    pub async fn public(&self) -> Seen {
        let only_public = |interaction: &Interaction| {
            let shown = shown(interaction);
            let settled = !shown.is_empty() && shown.iter().all(|seen| !seen.ephemeral);
            settled.then(|| shown.first().cloned()).flatten()
        };
        self.look("the room sees the answer", only_public).await
    }

    /// Every text that is there now.
    pub fn shown(&self) -> Vec<Seen> {
        self.shared.world().interactions.get(&self.token).map(shown).unwrap_or_default()
    }

    /// The asker waited too long: Discord no longer knows the interaction.
    pub fn expire(&self) {
        self.shared.change(|world| {
            if let Some(interaction) = world.interactions.get_mut(&self.token) {
                interaction.expired = true;
            }
        });
    }

    async fn look<T>(&self, what: &str, mut look: impl FnMut(&Interaction) -> Option<T>) -> T {
        self.shared.until(what, |world| world.interactions.get(&self.token).and_then(&mut look)).await
    }
}

fn shown(interaction: &Interaction) -> Vec<Seen> {
    let follow_ups = interaction.follow_ups.iter().map(|(_, seen)| seen.clone());
    interaction.original.clone().into_iter().chain(follow_ups).collect()
}
