//! One connection to Discord's gateway, from the first byte to its end. The only file that names serenity.
//!
//! serenity's `Client` is not used but the parts it is made of. Its queue of shards retries a failing connection every
//! five seconds for ever, says so to nobody, and lives on in its own task after the client was dropped, so that a
//! client built anew would answer every command twice. Here the runner of the one shard is ours: dropping it ends it,
//! and what happens next is decided by [`super::Discord`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use serenity::all::{
    CommandDataOption, CommandDataOptionValue, CommandInteraction, ComponentInteraction, ComponentInteractionDataKind,
    ConnectionStage, Event, Interaction, Member, ShardId, ShardInfo, User,
};
use serenity::gateway::{
    GatewayError, Shard, ShardManager, ShardManagerOptions, ShardMessenger, ShardRunner, ShardRunnerInfo,
    ShardRunnerMessage, ShardRunnerOptions,
};
use serenity::http::{Http, HttpBuilder};
use serenity::prelude::{Context, GatewayIntents, RawEventHandler, TypeMap};
use tokio::runtime;
use tokio::sync::{Mutex as AsyncMutex, RwLock};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::model::Asker;

const SHARD: ShardId = ShardId(0);
/// The close code of a bot that logs off.
const GOING: u16 = 1000;

/// What the gateway brings.
pub(super) enum Heard {
    /// A new session; the application whose commands these are.
    Ready {
        application: String,
    },
    /// The old session goes on, nothing was missed.
    Resumed,
    Command(Asked),
    Autocomplete(Asked),
    /// Neither an event nor an acknowledged heartbeat for a while.
    Silent,
    /// Alive after all.
    Audible,
}

/// Takes what the gateway brings; never blocks.
pub(super) type Hear = Arc<dyn Fn(Heard) + Send + Sync>;

/// An interaction, as far as it matters.
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) application: String,
    pub(super) command: String,
    /// Name and value as typed.
    pub(super) options: Vec<(String, String)>,
    /// The whole command, where a button was pressed.
    pub(super) pressed: Option<String>,
    pub(super) asker: Asker,
    /// The person's language as set in Discord.
    pub(super) locale: String,
}

/// What a connection needs to know.
pub(super) struct Link {
    /// From `GET /gateway/bot`.
    pub(super) url: String,
    pub(super) api: String,
    pub(super) token: SecretString,
    pub(super) client: reqwest::Client,
    /// For opening the connection.
    pub(super) connect: Duration,
    /// Silence after which the connection is given up.
    pub(super) patience: Duration,
}

/// How a connection ended.
pub(super) enum End {
    Stopped,
    Lost {
        reason: &'static str,
        /// The session was ready at some time.
        ready: bool,
    },
    /// A person must act.
    Refused(&'static str),
}

/// Serves one connection. Asked to stop it logs off, which takes as long as Discord takes to say goodbye: give it a
/// deadline. Dropping the future drops the connection.
pub(super) async fn serve(link: Link, hear: Hear, stop: &CancellationToken) -> End {
    let address = Arc::new(AsyncMutex::new(link.url.clone()));
    let listener =
        Arc::new(Listener { hear: Arc::clone(&hear), pulse: Pulse::default(), address: Arc::clone(&address) });
    let shard = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        opened = tokio::time::timeout(link.connect, open(&link, Arc::clone(&address))) => match opened {
            Ok(Some(shard)) => shard,
            Ok(None) => return End::Lost { reason: "the gateway could not be reached", ready: false },
            Err(_) => return End::Lost { reason: "the gateway did not answer", ready: false },
        },
    };
    let Some((runner, manager)) = assemble(&link, shard, &listener) else {
        return End::Lost { reason: "no connection could be set up", ready: false };
    };
    let messenger = ShardMessenger::new(&runner);
    let info = ShardRunnerInfo { latency: None, runner_tx: messenger.clone(), stage: ConnectionStage::Handshake };
    manager.runners.lock().await.insert(SHARD, info);

    let kill = CancellationToken::new();
    let _killed_when_dropped = kill.clone().drop_guard();
    let running = spawn(runner, kill);
    watch(running, &manager, &messenger, &listener, link.patience, stop).await
}

async fn open(link: &Link, address: Arc<AsyncMutex<String>>) -> Option<Shard> {
    // One shard serves a bot in up to 2500 servers.
    let only_shard: ShardInfo = serde_json::from_value(json!([0, 1])).ok()?;
    let token = format!("Bot {}", link.token.expose_secret());
    // Slash commands arrive without any intent, so none that needs Discord's permission is asked for.
    let opening = Shard::new(address, &token, only_shard, GatewayIntents::empty(), None);
    opening.with_subscriber(NoSubscriber::default()).await.ok()
}

fn assemble(link: &Link, shard: Shard, listener: &Arc<Listener>) -> Option<(ShardRunner, Arc<ShardManager>)> {
    let http = HttpBuilder::new(link.token.expose_secret())
        .client(link.client.clone())
        .proxy(link.api.clone())
        .ratelimiter_disabled(true)
        .build();
    let http = Arc::new(http);
    let data = Arc::new(RwLock::new(TypeMap::new()));
    let manager = manager_without_queue(&http, &data)?;
    // A runner that wants to identify anew asks its manager to restart it and waits five seconds for the queue. There
    // is none: say beforehand that it is done, so that the runner ends at once.
    manager.shutdown_finished(SHARD);
    let handler: Arc<dyn RawEventHandler> = Arc::clone(listener) as _;
    let runner = ShardRunner::new(ShardRunnerOptions {
        data,
        event_handlers: Vec::new(),
        raw_event_handlers: vec![handler],
        manager: Arc::clone(&manager),
        shard,
        http,
    });
    Some((runner, manager))
}

/// A runner needs a manager, and a manager starts a queue that connects by itself. It is started in a runtime that
/// never runs and is taken away at once, which drops the queue with it.
fn manager_without_queue(http: &Arc<Http>, data: &Arc<RwLock<TypeMap>>) -> Option<Arc<ShardManager>> {
    let nowhere = runtime::Builder::new_current_thread().build().ok()?;
    let manager = {
        let _entered = nowhere.enter();
        let (manager, _) = ShardManager::new(ShardManagerOptions {
            data: Arc::clone(data),
            event_handlers: Vec::new(),
            raw_event_handlers: Vec::new(),
            shard_index: 0,
            shard_init: 1,
            shard_total: 1,
            ws_url: Arc::new(AsyncMutex::new(String::new())),
            http: Arc::clone(http),
            intents: GatewayIntents::empty(),
            presence: None,
        });
        manager
    };
    nowhere.shutdown_background();
    Some(manager)
}

/// The runner on a thread of its own: after a close frame without a code it spins without yielding until its next
/// heartbeat fails, which must not hold up anybody else. What serenity logs there holds interaction tokens and what
/// people typed; nothing of it gets out.
/// Ends with words where a person must act.
fn spawn(mut runner: ShardRunner, kill: CancellationToken) -> JoinHandle<Option<&'static str>> {
    let handle = runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        tracing::subscriber::with_default(NoSubscriber::default(), || {
            handle.block_on(async {
                tokio::select! {
                    ended = runner.run() => ended.err().and_then(refusal),
                    () = kill.cancelled() => None,
                }
            })
        })
    })
}

async fn watch(
    mut running: JoinHandle<Option<&'static str>>,
    manager: &ShardManager,
    messenger: &ShardMessenger,
    listener: &Listener,
    patience: Duration,
    stop: &CancellationToken,
) -> End {
    let mut tick = tokio::time::interval((patience / 16).max(Duration::from_millis(10)));
    let mut latency = None;
    let mut silent = false;
    loop {
        tokio::select! {
            ended = &mut running => {
                let ready = listener.pulse.ready();
                return match ended {
                    Ok(Some(words)) => End::Refused(words),
                    Ok(None) => End::Lost { reason: "the connection was lost and could not be resumed", ready },
                    Err(_) => End::Lost { reason: "the connection's task failed", ready },
                };
            }
            () = stop.cancelled() => {
                messenger.send_to_shard(ShardRunnerMessage::Shutdown(SHARD, GOING));
                let _ = running.await;
                return End::Stopped;
            }
            _ = tick.tick() => {}
        }
        // An acknowledged heartbeat shows only in the latency it was measured by.
        let measured = manager.runners.lock().await.get(&SHARD).and_then(|runner| runner.latency);
        if measured.is_some() && measured != latency {
            latency = measured;
            listener.pulse.beat();
        }
        let silence = listener.pulse.silence();
        if silence >= patience {
            return End::Lost { reason: "neither an event nor a heartbeat came back", ready: listener.pulse.ready() };
        }
        let quiet = silence >= patience / 2;
        if quiet != silent {
            silent = quiet;
            (listener.hear)(if quiet { Heard::Silent } else { Heard::Audible });
        }
    }
}

/// The close codes after which Discord forbids to reconnect:
/// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes>.
/// serenity keeps 4010 to 4012 to itself; the caller guesses at them from a session that never gets ready.
fn refusal(error: serenity::Error) -> Option<&'static str> {
    let serenity::Error::Gateway(error) = error else {
        return None;
    };
    match error {
        GatewayError::InvalidAuthentication => Some(super::BAD_TOKEN),
        GatewayError::DisallowedGatewayIntents => Some(
            "Discord does not allow this bot the intents it asked for (close code 4014). Callboard asks for none: check that discord.api points to Discord and discord.token belongs to a bot of yours",
        ),
        GatewayError::InvalidGatewayIntents => Some(
            "Discord does not know the intents this bot asked for (close code 4013). Callboard asks for none: check that discord.api points to Discord, and update callboard",
        ),
        _ => None,
    }
}

/// When the connection last showed life.
struct Pulse(Mutex<(Instant, bool)>);

impl Default for Pulse {
    fn default() -> Self {
        Pulse(Mutex::new((Instant::now(), false)))
    }
}

impl Pulse {
    fn with<T>(&self, look: impl FnOnce(&mut (Instant, bool)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn beat(&self) {
        self.with(|pulse| pulse.0 = Instant::now());
    }

    fn begin(&self) {
        self.with(|pulse| *pulse = (Instant::now(), true));
    }

    fn silence(&self) -> Duration {
        self.with(|pulse| pulse.0.elapsed())
    }

    fn ready(&self) -> bool {
        self.with(|pulse| pulse.1)
    }
}

struct Listener {
    hear: Hear,
    pulse: Pulse,
    /// Where the runner connects to when it resumes.
    address: Arc<AsyncMutex<String>>,
}

#[serenity::async_trait]
impl RawEventHandler for Listener {
    async fn raw_event(&self, _context: Context, event: Event) {
        self.pulse.beat();
        match event {
            Event::Ready(event) => {
                // serenity would resume at the address it began with; Discord wants this one.
                *self.address.lock().await = event.ready.resume_gateway_url;
                self.pulse.begin();
                (self.hear)(Heard::Ready { application: event.ready.application.id.to_string() });
            }
            Event::Resumed(_) => (self.hear)(Heard::Resumed),
            Event::InteractionCreate(event) => match event.interaction {
                Interaction::Command(command) => self.pass_on(&command, Heard::Command),
                Interaction::Autocomplete(command) => self.pass_on(&command, Heard::Autocomplete),
                Interaction::Component(press) => self.pass_press(&press),
                _ => {}
            },
            _ => {}
        }
    }
}

impl Listener {
    fn pass_on(&self, interaction: &CommandInteraction, kind: fn(Asked) -> Heard) {
        let room = interaction.channel_id.to_string();
        let Some(asker) = asker(interaction.member.as_deref(), &interaction.user, room) else { return };
        (self.hear)(kind(Asked {
            id: interaction.id.to_string(),
            token: interaction.token.clone(),
            application: interaction.application_id.to_string(),
            command: interaction.data.name.clone(),
            options: interaction.data.options.iter().filter_map(typed).collect(),
            pressed: None,
            asker,
            locale: interaction.locale.clone(),
        }));
    }

    /// A button of ours was pressed, which holds a command:
    /// <https://docs.discord.com/developers/components/reference#button>.
    fn pass_press(&self, press: &ComponentInteraction) {
        if !matches!(press.data.kind, ComponentInteractionDataKind::Button) {
            return;
        }
        let Some(asker) = asker(press.member.as_ref(), &press.user, press.channel_id.to_string()) else { return };
        let pressed = press.data.custom_id.clone();
        (self.hear)(Heard::Command(Asked {
            id: press.id.to_string(),
            token: press.token.clone(),
            application: press.application_id.to_string(),
            command: pressed.split_whitespace().next().unwrap_or_default().to_owned(),
            options: Vec::new(),
            pressed: Some(pressed),
            asker,
            locale: press.locale.clone(),
        }));
    }
}

/// Without a person serenity fills in a default one, whose rights must not be anybody's.
fn asker(member: Option<&Member>, user: &User, room: String) -> Option<Asker> {
    let person = member.map_or(user, |member| &member.user);
    let roles = member.iter().flat_map(|member| &member.roles).map(ToString::to_string).collect();
    let asker = Asker { surface: super::NAME.to_owned(), room, user: person.id.to_string(), roles };
    (!person.name.is_empty()).then_some(asker)
}

/// Only text is ever registered as an option.
fn typed(option: &CommandDataOption) -> Option<(String, String)> {
    match &option.value {
        CommandDataOptionValue::String(value) | CommandDataOptionValue::Autocomplete { value, .. } => {
            Some((option.name.clone(), value.clone()))
        }
        _ => None,
    }
}
