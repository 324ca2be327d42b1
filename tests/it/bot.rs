//! The whole bot in a test: the real [`App`] on a real store, against models of everything around it over loopback,
//! with time that passes only when the test says so.
//!
//! ```ignore
//! let mut bot = Bot::start(Setup::with(&[("ops", Kind::Slack)])).await;
//! let run = bot.add("orders_daily v12");
//! bot.say("discord:1", &format!("/watch {run}")).await;
//! bot.world.advance(PROJECT, &run).unwrap();
//! bot.turn().await;                                              // a poll, then everything it owes
//! assert_eq!(bot.heard("discord:1"), ["▶️ BUILD_PACKAGE running · orders_daily v12"]);
//! bot.finish().await;
//! ```
//!
//! A life of the bot has a runtime of its own, so that a crash takes away whatever was under way, as a crash does. What
//! a test leaves unread fails it: a message, an open delivery, a complaint of a model, a warning in the log.

// So that clippy knows the helpers below for tests.
#![cfg(test)]

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::access;
use callboard::app::{self, App, Outages, Reload, Terminal};
use callboard::commands::{self, CATALOG};
use callboard::config::{self, Config};
use callboard::demo::dataworks::{RunSpec, World, serve};
use callboard::dispatcher::Dispatcher;
use callboard::http::Pages;
use callboard::metrics::Metrics;
use callboard::model::{
    Asker, Clock, Delivery, DeliveryState, Destination, Match, News, Place, Plan, Queue, Request, RunId, Subscription,
    Timestamp, Workspace,
};
use callboard::poller::Poller;
use callboard::store::{
    self, Announcement, DeliveryFilter, DeliveryRow, Policy, Role, Settlement, Store, StoreError, Told,
};
use callboard::surfaces::discord::{Discord, Timing};
use callboard::surfaces::{Inbox, NoAnswer, Surface, console, dingtalk};
use callboard::tracker::Tracker;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fake_dingtalk::{self, FakeDingTalk};
use crate::fake_discord::{self, FakeDiscord};
use crate::fake_slack::{self, FakeSlack};
use crate::sink::{Seen, Sink};

const KEY: &str = "LTAI-simulated-key";
const SECRET: &str = "simulated-access-key-secret";
/// The workspace `warehouse`.
pub const PROJECT: i64 = 10_000;
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const DINGTALK_SECRET: &str = "SECsimulated";
/// Between two polls of a workspace.
pub const FASTEST: Duration = Duration::from_secs(5);
/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Discord,
    Slack,
    DingTalk,
    Webhook,
}

/// What is configured.
#[derive(Debug, Clone)]
pub struct Setup {
    pub workspaces: Vec<(&'static str, i64)>,
    pub channels: Vec<(&'static str, Kind)>,
    /// More of the configuration, as it would stand in the file.
    pub more: String,
    /// Channels that prefer a loss to a repetition.
    pub lossy: Vec<&'static str>,
    /// Commands come over Discord's gateway, otherwise straight into the inbox.
    pub gateway: bool,
    /// Lines of `[slack]`, beside its address; commands come by HTTPS. None: no such section.
    pub slack: Option<String>,
    /// DingTalk's robot is configured, and connected.
    pub dingtalk: bool,
    pub waiting_after: &'static str,
    /// The access key's secret, or a table that says where it is.
    pub secret: &'static str,
    pub calls: (&'static str, &'static str),
}

impl Setup {
    pub fn with(channels: &[(&'static str, Kind)]) -> Setup {
        Setup {
            workspaces: vec![("warehouse", PROJECT)],
            channels: channels.to_vec(),
            more: String::new(),
            lossy: Vec::new(),
            gateway: false,
            slack: None,
            dingtalk: false,
            waiting_after: "20s",
            secret: SECRET,
            calls: ("1000", "10000000"),
        }
    }

    /// A standing subscription of all those channels on every change of `warehouse`.
    pub fn standing(channels: &[(&'static str, Kind)]) -> Setup {
        let names: Vec<String> = channels.iter().map(|(name, _)| format!("{name:?}")).collect();
        Setup::with(channels).and(&format!(
            "[[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [{}]\non = [\"started\", \"stage\", \"waiting\", \
             \"finished\"]\n",
            names.join(", ")
        ))
    }

    /// Slack with everything that commands by HTTPS and messages need.
    #[must_use]
    pub fn with_slack(self) -> Setup {
        let slack = format!("signing_secret = \"{}\"\nbot_token = \"{}\"", fake_slack::SECRET, fake_slack::BOT_TOKEN);
        Setup { slack: Some(slack), ..self }
    }

    #[must_use]
    pub fn and(mut self, more: &str) -> Setup {
        self.more.push_str(more);
        self
    }
}

/// What somebody who typed a command reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub private: bool,
    /// The labels of its buttons.
    pub buttons: Vec<String>,
}

pub struct Bot {
    pub world: World,
    pub sink: Sink,
    pub discord: FakeDiscord,
    pub slack: FakeSlack,
    pub dingtalk: FakeDingTalk,
    pub config: Config,
    setup: Setup,
    /// The configuration as it would stand in the file.
    text: String,
    urls: BTreeMap<String, String>,
    now: Arc<Mutex<Timestamp>>,
    logs: Logs,
    life: Option<Life>,
    terminal: Arc<Screen>,
    read: HashMap<String, usize>,
    /// When a watch was last taken up again or changed.
    amended_at: Mutex<Timestamp>,
    finished: bool,
    folder: tempfile::TempDir,
    _stop: DropGuard,
}

/// From a start to a stop or a crash.
struct Life {
    runtime: Option<Runtime>,
    dying: Arc<AtomicBool>,
    store: Arc<dyn Store>,
    tracker: Arc<Tracker>,
    poller: Arc<Poller>,
    dispatcher: Arc<Dispatcher>,
    outages: Arc<Outages>,
    metrics: Arc<Metrics>,
    inbox: Inbox,
    commands: Arc<commands::Context>,
    reload: Arc<Reload>,
    workspaces: Vec<Workspace>,
    pages: Arc<Pages>,
    typed: mpsc::Sender<String>,
    /// Where its pages and its hooks are.
    site: String,
}

impl Bot {
    pub async fn start(setup: Setup) -> Bot {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        let world = World::new(KEY, SECRET).starting_at(now);
        for (_, project) in &setup.workspaces {
            world.add_workspace(*project);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        let sink = Sink::start().await;
        let discord = FakeDiscord::start().await;
        let slack = FakeSlack::start().await;
        let now = Arc::new(Mutex::new(now));
        let clock = Arc::clone(&now);
        let dingtalk = FakeDingTalk::start(Arc::new(move || *clock.lock().unwrap())).await;
        let folder = tempfile::tempdir().unwrap();
        let urls = mount(&setup, &sink);
        let mut text = configuration(&setup, &endpoint, &discord.url(), folder.path(), &urls);
        text.push_str(&setup.slack.as_ref().map_or_else(String::new, |more| slack.section(more)));
        if setup.dingtalk {
            text.push_str(&fake_dingtalk::configuration(&dingtalk.url()));
        }
        let config = config::parse("the test", &text, []).unwrap_or_else(|invalid| panic!("{}", invalid.lines()));
        let mut bot = Bot {
            world,
            sink,
            discord,
            slack,
            dingtalk,
            config,
            setup,
            text,
            urls,
            now,
            logs: Logs::default(),
            life: None,
            terminal: Arc::default(),
            read: HashMap::new(),
            amended_at: Mutex::default(),
            finished: false,
            folder,
            _stop: stop.drop_guard(),
        };
        bot.revive().await;
        bot
    }

    // ------------------------------------------------------------------------------------------------ life and death

    /// The process is gone from one moment to the next.
    pub async fn crash(&mut self) {
        let mut life = self.life.take().expect("the bot is alive");
        let runtime = life.runtime.take().expect("a life has a runtime");
        life.dying.store(true, Ordering::Release);
        drop(life);
        runtime.shutdown_background();
        if self.setup.gateway {
            self.discord.until_alone().await;
        }
        self.dingtalk.until_alone().await;
    }

    /// The process starts again, on the same store.
    pub async fn revive(&mut self) {
        assert!(self.life.is_none(), "the bot is alive already");
        let dying = Arc::new(AtomicBool::new(false));
        let dispatch = self.logs.dispatch(Arc::clone(&dying));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
            .build()
            .unwrap();
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || *now.lock().unwrap());
        let (config, screen, gateway) = (self.config.clone(), Arc::clone(&self.terminal), self.setup.gateway);
        let building = runtime.spawn(build(config, screen, clock, gateway));
        let (parts, typed, site) = building.await.expect("the bot does not panic");
        let App {
            store,
            tracker,
            poller,
            dispatcher,
            outages,
            metrics,
            inbox,
            workspaces,
            pages,
            commands,
            reload,
            ..
        } = parts;
        let runtime = Some(runtime);
        self.life = Some(Life {
            runtime,
            dying,
            store,
            tracker,
            poller,
            dispatcher,
            outages,
            metrics,
            inbox,
            commands,
            reload,
            workspaces,
            pages,
            typed,
            site,
        });
    }

    pub async fn restart(&mut self) {
        self.crash().await;
        self.revive().await;
    }

    /// Somebody writes another URL into the file and starts the service again. What was heard there so far is forgotten.
    pub async fn move_channel(&mut self, name: &str) {
        let (old, kind) = (self.url(name).to_owned(), self.channel(name).1);
        let new = mounted(&self.sink, &format!("{name}-anew"), 200 + self.urls.len(), kind);
        self.text = self.text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        self.config = config::parse("the test", &self.text, []).unwrap_or_else(|invalid| panic!("{}", invalid.lines()));
        self.urls.insert(name.to_owned(), new);
        self.read.remove(name);
        self.restart().await;
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("the bot is alive")
    }

    /// Within the bot's own runtime, where what it spawns dies with it.
    async fn within<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.life().runtime.as_ref().expect("a life has a runtime");
        let working = tokio::time::timeout(PATIENCE, runtime.spawn(work)).await;
        working.expect("the bot gets on with it").expect("the bot does not panic")
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.life().store)
    }

    pub fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.life().pages)
    }

    pub fn tracker(&self) -> Arc<Tracker> {
        Arc::clone(&self.life().tracker)
    }

    pub fn commands(&self) -> Arc<commands::Context> {
        Arc::clone(&self.life().commands)
    }

    /// Somebody writes other rules of access into the file and tells the service; done when it says so.
    pub async fn reload(&mut self, entries: Vec<access::Settings>) {
        self.config.access = entries;
        let (reload, config) = (Arc::clone(&self.life().reload), self.config.clone());
        self.within(async move { reload.take(Ok(config)).await }).await;
    }

    /// Somebody tells the service to look at a file that is broken.
    pub async fn reload_broken(&self) {
        let reload = Arc::clone(&self.life().reload);
        let broken = config::parse("the test", "[[access]]\nrooms = 1", []);
        self.within(async move { reload.take(broken).await }).await;
    }

    pub fn dispatcher(&self) -> Arc<Dispatcher> {
        Arc::clone(&self.life().dispatcher)
    }

    /// The address of its pages and hooks.
    pub fn site(&self) -> &str {
        &self.life().site
    }

    /// Another process beside the service.
    pub async fn guest(&self) -> Arc<dyn Store> {
        store::open(&self.config.store, Role::Guest).await.unwrap()
    }

    /// What housekeeping does each second.
    pub async fn keep_house(&self) {
        let (tracker, dispatcher) = (self.tracker(), self.dispatcher());
        let (poller, outages, now) = (Arc::clone(&self.life().poller), Arc::clone(&self.life().outages), self.now());
        let commands = self.commands();
        self.within(async move {
            app::take_over(&tracker, &poller, &dispatcher, now).await?;
            tracker.keep_sight().await?;
            tracker.sweep(now).await?;
            outages.look(now).await?;
            commands.audit.flush(now).await
        })
        .await
        .unwrap();
    }

    // ----------------------------------------------------------------------------------------------------------- time

    pub fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    /// Time passes here and in DataWorks, and the bot does nothing.
    pub fn step(&self, span: Duration) {
        let mut now = self.now.lock().unwrap();
        *now += span;
        self.world.step(span);
    }

    /// What is due now is polled. Says when the next poll is due.
    pub async fn tick(&self) -> Option<Timestamp> {
        let (poller, now) = (Arc::clone(&self.life().poller), self.now());
        self.within(async move {
            poller.tick(now);
            poller.idle().await;
            poller.tick(now)
        })
        .await
    }

    /// Each workspace is polled once, as soon as the schedule allows it where polls work.
    pub async fn poll(&self) {
        for workspace in &self.life().workspaces {
            self.life().poller.hurry(&workspace.key(), self.now());
        }
        self.step(FASTEST);
        self.tick().await;
    }

    /// Everything that is due now is sent. Says when more may be.
    pub async fn deliver(&self) -> Option<Timestamp> {
        let (dispatcher, metrics, now) = (self.dispatcher(), Arc::clone(&self.life().metrics), self.now());
        let store = self.store();
        let (next, ledger) = self
            .within(async move {
                loop {
                    let before = attempts(&metrics, "");
                    let next = dispatcher.tick(now).await;
                    dispatcher.idle().await;
                    if attempts(&metrics, "") == before {
                        return (next, store.overview().await.unwrap().ledger);
                    }
                }
            })
            .await;
        assert!(ledger.is_balanced(), "something owed is in no line of the ledger: {ledger:?}");
        next
    }

    /// What is due is begun and not waited for.
    pub async fn begin_delivery(&self) {
        let (dispatcher, now) = (self.dispatcher(), self.now());
        self.within(async move { dispatcher.tick(now).await }).await;
    }

    /// A poll, then everything that it owes, as fast as the destinations take it.
    pub async fn turn(&self) {
        self.poll().await;
        self.deliver_all().await;
    }

    /// Everything owed is sent, as fast as the destinations take it: for a minute at most.
    pub async fn deliver_all(&self) {
        let end = self.now() + Duration::from_secs(60);
        while let Some(next) = self.deliver().await.filter(|next| *next <= end) {
            self.advance_to(next);
        }
    }

    /// Time passes and the bot does what it does, as its loops would.
    pub async fn pass(&self, span: Duration) {
        let end = self.now() + span;
        loop {
            let poll = self.tick().await;
            self.keep_house().await;
            let delivery = self.deliver().await;
            let next = [poll, delivery].into_iter().flatten().min().unwrap_or(end);
            if next >= end {
                self.advance_to(end);
                self.tick().await;
                self.keep_house().await;
                self.deliver().await;
                return;
            }
            self.advance_to(next.max(self.now() + Duration::from_millis(1)));
        }
    }

    fn advance_to(&self, moment: Timestamp) {
        self.step(Duration::try_from(moment.duration_since(self.now())).unwrap_or_default());
    }

    // --------------------------------------------------------------------------------------------------------- people

    /// A run of three stages that has not begun.
    pub fn add(&self, description: &str) -> RunId {
        self.world.add_run(PROJECT, RunSpec::online(description))
    }

    /// Somebody types a command in a room of Discord (`discord:1`) or DingTalk (`dingtalk:cid1`), or in the terminal
    /// (`console`).
    pub async fn say(&self, room: &str, text: &str) -> Answer {
        // A person for each room: what one of them may ask is bounded.
        let user = room.split_once(':').map_or("7".to_owned(), |(_, room)| format!("7{room}"));
        self.say_as(&user, room, text).await
    }

    /// The same by the person with that id.
    pub async fn say_as(&self, user: &str, room: &str, text: &str) -> Answer {
        self.heed(self.answer(user, room, text).await)
    }

    fn heed(&self, answer: Answer) -> Answer {
        let gap = ["What changed meanwhile is not posted", "期间的变化不会补发", "Changed the watch", "已更改关注"];
        if gap.iter().any(|words| answer.text.contains(words)) {
            *self.amended_at.lock().unwrap() = self.now();
        }
        answer
    }

    async fn answer(&self, user: &str, room: &str, text: &str) -> Answer {
        match room.split_once(':') {
            Some(("discord", room)) if self.setup.gateway => self.say_in_discord(user, room, text).await,
            Some(("slack", room)) if self.setup.slack.is_some() => self.say_in_slack(user, room, text).await,
            Some(("dingtalk", room)) => {
                // Alone with the robot writes whoever the room is named after.
                let user = room.strip_prefix("user:").unwrap_or(user);
                let text = self.dingtalk.say(room, user, text).await;
                Answer { text, private: false, buttons: Vec::new() }
            }
            Some((surface, room)) => {
                let (surface, room) = (surface.to_owned(), room.to_owned());
                let asker = Asker { surface, room, user: user.to_owned(), roles: Vec::new() };
                self.ask(asker, text).await.unwrap()
            }
            None => {
                let before = self.terminal.answers();
                self.life().typed.send(text.to_owned()).await.unwrap();
                Answer { text: self.terminal.answer_after(before).await, private: false, buttons: Vec::new() }
            }
        }
    }

    pub async fn ask(&self, asker: Asker, text: &str) -> Result<Answer, NoAnswer> {
        let request = Request { asker, locale: String::new(), text: text.to_owned(), at: self.now() };
        let inbox = self.life().inbox.clone();
        let reply = self.within(async move { inbox.ask(request).await }).await?;
        let text = anstream::adapter::strip_str(&console::written(&reply.text)).to_string();
        let buttons = reply.buttons.into_iter().map(|button| button.label).collect();
        Ok(Answer { text, private: reply.private, buttons })
    }

    /// All of these ask at once. What each hears, in that order.
    pub async fn flood(&self, askers: Vec<(Asker, &'static str)>) -> Vec<Result<(), NoAnswer>> {
        let (inbox, at) = (self.life().inbox.clone(), self.now());
        let request =
            |(asker, text): (Asker, &str)| Request { asker, locale: String::new(), text: text.to_owned(), at };
        let requests: Vec<Request> = askers.into_iter().map(request).collect();
        self.within(async move {
            let asks = requests.into_iter().map(|request| inbox.ask(request));
            futures_util::future::join_all(asks).await.into_iter().map(|answer| answer.map(drop)).collect()
        })
        .await
    }

    /// Somebody presses the button of that label that was last shown in a room of Discord.
    pub async fn press_as(&self, user: &str, room: &str, label: &str) -> Answer {
        let room = room.strip_prefix("discord:").unwrap_or_else(|| panic!("{room} has no buttons"));
        self.heed(read(self.discord.press(room, user, label).await.answered().await))
    }

    async fn say_in_discord(&self, user: &str, room: &str, text: &str) -> Answer {
        let mut words = text.trim_start_matches('/').split_whitespace();
        let name = words.next().unwrap_or_default();
        let info = CATALOG.iter().find(|info| info.name == name);
        let info = info.unwrap_or_else(|| panic!("Discord lets nobody type /{name}: it is not registered"));
        let named = |word: &&str| {
            word.split_once(':').is_some_and(|(name, _)| info.options.iter().any(|option| option.name == name))
        };
        let (named, args): (Vec<&str>, Vec<&str>) = words.partition(|word| named(word));
        assert!(args.len() <= info.args.len(), "Discord has no form for all of {text:?}");
        let mut options: Vec<(&str, &str)> = info.args.iter().map(|arg| arg.name).zip(args).collect();
        options.extend(named.into_iter().filter_map(|word| word.split_once(':')));
        read(self.discord.slash(room, user, name, &options).await)
    }

    async fn say_in_slack(&self, user: &str, room: &str, text: &str) -> Answer {
        let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
        assert!(!["/status", "/mute", "/help"].contains(&command), "at Slack {command} is Slack's own");
        let said = self.slack.slash(self.site(), room, &format!("U{user}"), command, rest, self.now()).await;
        let seen = said.answered().await;
        Answer { text: seen.text, private: seen.ephemeral, buttons: Vec::new() }
    }

    // ------------------------------------------------------------------------------------------------- what was heard

    /// The headlines of the messages that came since the last call, in order.
    pub fn heard(&mut self, to: &str) -> Vec<String> {
        self.read_on(to).iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// The same with their bodies.
    pub fn read_on(&mut self, to: &str) -> Vec<String> {
        let all = self.all(to);
        let from = self.read.insert(to.to_owned(), all.len()).unwrap_or(0);
        all.get(from..).unwrap_or_default().to_vec()
    }

    fn all(&self, to: &str) -> Vec<String> {
        match to.split_once(':') {
            Some(("discord", room)) => {
                self.discord.messages(room).iter().map(|posted| embed(&posted.body)).collect::<Vec<_>>()
            }
            Some(("slack", room)) => {
                let messages = self.slack.messages(room);
                messages.iter().map(|body| fake_slack::readable(body["text"].as_str().unwrap())).collect()
            }
            Some(("dingtalk", room)) => {
                self.dingtalk.messages(room).iter().map(|posted| fake_dingtalk::readable(&posted.text())).collect()
            }
            Some((surface, _)) => panic!("no model of {surface}"),
            None if to == console::NAME => self.terminal.messages(),
            None => {
                let (path, kind) = self.channel(to);
                let accepted = self.sink.accepted();
                accepted.iter().filter(|seen| seen.path == path).map(|seen| written(kind, seen)).collect()
            }
        }
    }

    /// Every request to a channel, refused and repeated ones too.
    pub fn requests(&self, name: &str) -> Vec<Seen> {
        let (path, _) = self.channel(name);
        self.sink.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    pub fn url(&self, name: &str) -> &str {
        self.urls.get(name).unwrap_or_else(|| panic!("no channel {name}"))
    }

    fn channel(&self, name: &str) -> (String, Kind) {
        let kind = self.setup.channels.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.unwrap_or_else(|| panic!("no channel {name}"));
        (self.url(name).parse::<url::Url>().unwrap().path().to_owned(), *kind)
    }

    /// Attempts so far whose labels hold `label`.
    pub fn attempts(&self, label: &str) -> u64 {
        attempts(&self.life().metrics, label)
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.life().metrics.encode().unwrap()
    }

    /// Deliveries that are still owed.
    pub async fn open(&self) -> Vec<Delivery> {
        let store = self.store();
        let filter = DeliveryFilter { limit: 100_000, ..DeliveryFilter::default() };
        let rows = self.within(async move { store.deliveries(&filter).await }).await.unwrap();
        let open = [DeliveryState::Pending, DeliveryState::InFlight, DeliveryState::Unknown];
        rows.into_iter().filter(|row| open.contains(&row.state)).map(|row| row.delivery).collect()
    }

    /// Nothing got lost between its books: the ledger is balanced and holds what the rows hold, and every change is owed
    /// to every subscription that asks for it.
    async fn balance(&self) {
        let (store, tracker) = (self.store(), self.tracker());
        let of_world = |workspace: &Workspace| {
            let runs = self.world.runs(workspace.project_id);
            runs.into_iter().map(|run| (workspace.key(), run)).collect::<Vec<_>>()
        };
        let runs: Vec<_> = self.life().workspaces.iter().flat_map(of_world).collect();
        let standing = self.config.standing(self.now());
        let tracker_now = self.tracker();
        let allowed = |one: &Subscription, change: &_| tracker_now.explain(one, change) == Match::Matched;
        let amended_at = *self.amended_at.lock().unwrap();
        let (rows, ledger, histories, watches) = self
            .within(async move {
                let filter = DeliveryFilter { limit: 100_000, ..DeliveryFilter::default() };
                let rows = store.deliveries(&filter).await.unwrap();
                let mut histories = Vec::new();
                for (workspace, run) in runs {
                    histories.extend(store.history(&workspace, &run, 10_000).await.unwrap());
                }
                let loaded = store.load().await.unwrap();
                for one in &loaded.subscriptions {
                    let known = tracker.select(|known| known == one);
                    assert!(known.len() == 1, "the tracker does not know of {one:?}");
                }
                (rows, store.overview().await.unwrap().ledger, histories, loaded.subscriptions)
            })
            .await;
        assert!(ledger.is_balanced(), "something owed is in no line of the ledger: {ledger:?}");
        let pairs = |row: &DeliveryRow| if row.delivery.news.change().is_some() { row.subscriptions.len() } else { 1 };
        let owed: usize = rows.iter().map(pairs).sum();
        assert_eq!(ledger.owed, owed as u64, "the ledger against the rows: {ledger:?}");
        for Told { change, deliveries } in &histories {
            // What was taken up again, or asks for something else by now, had a gap before.
            let is_later = |one: &&Subscription| one.created_at.max(amended_at) < change.at;
            let watches = watches.iter().filter(is_later);
            for asks in standing.iter().chain(watches).filter(|one| allowed(one, change)) {
                let of_it = deliveries.iter().filter(|(row, _)| row.subscriptions.contains(&asks.id));
                let (kind, run) = (change.kind.name(), &change.run.id);
                assert_eq!(of_it.count(), 1, "{kind} ({}) of {run} is owed to {}, once", change.sequence, asks.to);
            }
        }
    }

    /// Warnings and errors that hold `text`; taken, they no longer fail the test.
    pub fn take_logs(&self, text: &str) -> usize {
        let mut lines = self.logs.0.lock().unwrap();
        let before = lines.len();
        lines.retain(|line| !line.contains(text));
        before - lines.len()
    }

    // ------------------------------------------------------------------------------------------------------ the end

    /// Nothing may be left unread, owed, complained of or warned about.
    pub async fn finish(mut self) {
        let open = self.open().await;
        self.balance().await;
        let rooms: Vec<String> = self.discord.rooms().iter().map(|room| format!("discord:{room}")).collect();
        let in_slack = self.slack.rooms().into_iter().map(|room| format!("slack:{room}"));
        let channels = self.setup.channels.iter().map(|(name, _)| (*name).to_owned());
        let in_dingtalk = self.dingtalk.rooms().into_iter().map(|room| format!("dingtalk:{room}"));
        let rooms = rooms.into_iter().chain(in_slack).chain(in_dingtalk);
        let places: Vec<String> = channels.chain(rooms).chain([console::NAME.to_owned()]).collect();
        self.finished = true;
        for to in places {
            let unread = self.heard(&to);
            assert!(unread.is_empty(), "{to} got messages that nobody expected: {unread:#?}");
        }
        let open: Vec<String> = open.iter().map(|row| format!("{} to {}", named(&row.news), row.to)).collect();
        assert!(open.is_empty(), "still owed at the end: {open:#?}");
        let complaints = self.sink.complaints();
        assert!(complaints.is_empty(), "a chat platform was sent something wrong: {complaints:#?}");
        let logs = std::mem::take(&mut *self.logs.0.lock().unwrap());
        assert!(logs.is_empty(), "warnings that nobody expected: {logs:#?}");
        self.crash().await;
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        // A runtime may not be dropped within another one.
        if let Some(runtime) = self.life.take().and_then(|mut life| life.runtime.take()) {
            runtime.shutdown_background();
        }
        if !std::thread::panicking() {
            assert!(self.finished, "the test ends without bot.finish(), so nobody looked for what it left behind");
        } else if let Ok(logs) = self.logs.0.lock() {
            eprintln!("the bot's warnings so far: {logs:#?}\nits store: {}", self.folder.path().display());
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- building

fn read(seen: fake_discord::Seen) -> Answer {
    let buttons = seen.buttons.into_iter().map(|(label, _)| label).collect();
    Answer { text: readable(&seen.text), private: seen.ephemeral, buttons }
}

fn mount(setup: &Setup, sink: &Sink) -> BTreeMap<String, String> {
    let mut urls = BTreeMap::new();
    for (number, (name, kind)) in setup.channels.iter().enumerate() {
        urls.insert((*name).to_owned(), mounted(sink, name, 100 + number, *kind));
    }
    urls
}

fn mounted(sink: &Sink, name: &str, number: usize, kind: Kind) -> String {
    match kind {
        Kind::Discord => sink.discord_webhook(&number.to_string()),
        Kind::Slack => sink.slack(name),
        Kind::DingTalk => sink.dingtalk(name, Some(DINGTALK_SECRET), None),
        Kind::Webhook => sink.webhook(name, Some(WEBHOOK_SECRET)),
    }
}

fn configuration(
    setup: &Setup,
    dataworks: &str,
    discord: &str,
    folder: &std::path::Path,
    urls: &BTreeMap<String, String>,
) -> String {
    let Setup { waiting_after, secret, calls: (per_second, per_day), .. } = setup;
    let secret = if secret.starts_with('{') { (*secret).to_owned() } else { format!("{secret:?}") };
    let mut text = format!(
        r#"
[server]
listen = "127.0.0.1:0"

[store]
url = "sqlite:{folder}/callboard.db"

[dataworks]
endpoint = "{dataworks}"
credentials = {{ access_key_id = "{KEY}", access_key_secret = {secret} }}
poll = {{ fastest = "5s", slowest = "60s", waiting_after = "{waiting_after}" }}
budget = {{ edition = "enterprise", calls_per_second = {per_second}, calls_per_day = {per_day} }}

[network]
allow_private = ["127.0.0.0/8"]

[discord]
token = "{token}"
api = "{discord}"
"#,
        folder = folder.display(),
        token = fake_discord::TOKEN,
    );
    for (name, project) in &setup.workspaces {
        let lines = format!("\n[[workspaces]]\nname = \"{name}\"\nregion = \"cn-shanghai\"\nproject_id = {project}\n");
        text.push_str(&lines);
    }
    for (name, kind) in &setup.channels {
        let (kind, more) = match kind {
            Kind::Discord => ("discord-webhook", String::new()),
            Kind::Slack => ("slack-webhook", String::new()),
            Kind::DingTalk => ("dingtalk", format!("secret = \"{DINGTALK_SECRET}\"\n")),
            Kind::Webhook => ("webhook", format!("secret = \"{WEBHOOK_SECRET}\"\n")),
        };
        let more = if setup.lossy.contains(name) { more + "prefer = \"no_duplicate\"\n" } else { more };
        text.push_str(&format!("\n[channels.{name}]\nkind = \"{kind}\"\nurl = \"{}\"\n{more}", urls[*name]));
    }
    text + "\n" + &setup.more
}

/// Builds the bot in its own runtime and starts what takes commands.
async fn build(
    config: Config,
    screen: Arc<Screen>,
    clock: Clock,
    gateway: bool,
) -> (App, mpsc::Sender<String>, String) {
    let until = tokio::time::Instant::now() + PATIENCE;
    let (mut app, typed) = loop {
        let (typed, lines) = mpsc::channel(8);
        let page = |answers| Box::new(Page { screen: Arc::clone(&screen), answers, text: Vec::new() });
        let terminal = Terminal {
            surface: Arc::new(console::Console::new(lines, page(true)).with_clock(Arc::clone(&clock))),
            channel: Arc::new(callboard::channels::console::Console::new(page(false))),
        };
        match App::build(&config, Some(terminal), Arc::clone(&clock)).await {
            Ok(app) => break (app, typed),
            // What a crash left behind lets go of the store when its threads notice.
            Err(app::AppError::Store(StoreError::InUse(_))) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("the bot does not start: {error}"),
        }
    };
    let (_, nobody) = mpsc::channel(1);
    let asked = std::mem::replace(&mut app.asked, nobody);
    tokio::spawn(commands::serve(Arc::clone(&app.commands), asked));
    for (name, surface) in std::mem::take(&mut app.surfaces) {
        if name == console::NAME || name == dingtalk::NAME {
            let inbox = app.inbox.clone();
            tokio::spawn(async move { surface.run(inbox, &CATALOG, CancellationToken::new()).await });
        }
    }
    if gateway {
        let settings = config.discord.as_ref().expect("Discord is configured");
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
        let token = settings.token.read().unwrap();
        let bot = Discord::new(settings, token, client, Arc::clone(&app.metrics)).with_timing(brisk());
        let (bot, inbox) = (bot.with_clock(clock), app.inbox.clone());
        tokio::spawn(async move { bot.run(inbox, &CATALOG, CancellationToken::new()).await });
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(callboard::http::serve(listener, Arc::clone(&app.pages), CancellationToken::new()));
    (app, typed, site)
}

/// Pauses shrunk; limits that no story reaches on purpose are out of reach on a busy machine too.
fn brisk() -> Timing {
    Timing {
        direct: PATIENCE,
        suggest: PATIENCE,
        first: PATIENCE,
        late: PATIENCE,
        life: PATIENCE,
        grace: PATIENCE,
        connect: PATIENCE,
        silence: Duration::from_secs(600),
        identify: Duration::ZERO,
        pause_first: Duration::from_millis(1),
        pause_last: Duration::from_millis(20),
        settled: Duration::from_secs(60),
    }
}

fn attempts(metrics: &Metrics, label: &str) -> u64 {
    let text = metrics.encode().unwrap();
    let lines =
        text.lines().filter(|line| line.starts_with("callboard_delivery_attempts_total") && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

// ------------------------------------------------------------------------------------------------- what people read

fn written(kind: Kind, seen: &Seen) -> String {
    let json = seen.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().replace('\u{200b}', "");
    match kind {
        Kind::Discord => embed(&json),
        Kind::Slack => text(&json["text"]),
        Kind::DingTalk => {
            let card = json["msgtype"].as_str().unwrap_or_default();
            format!("{}\n{}", text(&json[card]["title"]), text(&json[card]["text"]))
        }
        Kind::Webhook => {
            let data = &json["data"];
            let mut line = text(&json["type"]);
            if data["stage"].is_object() {
                line += &format!(" {}", text(&data["stage"]["code"]));
            }
            if data["to"].is_string() {
                line += &format!(" {} → {}", text(&data["from"]), text(&data["to"]));
            }
            format!("{line} · {}", text(&data["run"]["description"]))
        }
    }
}

fn embed(body: &serde_json::Value) -> String {
    let embed = &body["embeds"][0];
    let part = |name: &str| readable(embed[name].as_str().unwrap_or_default());
    format!("{}\n{}", part("title"), part("description"))
}

/// Discord's markdown as a person sees it: no escapes, no marks, links by their labels.
pub fn readable(markdown: &str) -> String {
    let mut text = String::new();
    let mut characters = markdown.replace("**", "").chars().collect::<Vec<_>>().into_iter().peekable();
    let (mut in_label, mut in_code) = (false, false);
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            '`' => in_code = !in_code,
            '[' if !in_code => in_label = true,
            ']' if in_label => {
                in_label = false;
                if characters.peek() == Some(&'(') {
                    characters.by_ref().find(|c| *c == ')');
                }
            }
            other => text.push(other),
        }
    }
    text
}

/// What stands on the terminal.
#[derive(Default)]
struct Screen {
    answers: Mutex<Vec<String>>,
    messages: Mutex<Vec<String>>,
    more: tokio::sync::Notify,
}

impl Screen {
    fn answers(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    async fn answer_after(&self, count: usize) -> String {
        let waiting = async {
            loop {
                let more = self.more.notified();
                if let Some(text) = self.answers.lock().unwrap().get(count) {
                    return text.clone();
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the terminal answers")
    }

    fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap().clone()
    }
}

/// One writer to the terminal; a flush ends a text.
struct Page {
    screen: Arc<Screen>,
    answers: bool,
    text: Vec<u8>,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned();
        let text = anstream::adapter::strip_str(&text).to_string();
        let texts = if self.answers { &self.screen.answers } else { &self.screen.messages };
        texts.lock().unwrap().push(text.trim().to_owned());
        self.screen.more.notify_waiters();
        Ok(())
    }
}

/// Warnings and errors of all lives.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    /// What is said while `dying` is not heard: a dead process says nothing.
    fn dispatch(&self, dying: Arc<AtomicBool>) -> tracing::Dispatch {
        let logs = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .without_time()
            .with_writer(move || if dying.load(Ordering::Acquire) { Logs::default() } else { logs.clone() })
            .finish();
        tracing::Dispatch::new(subscriber)
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).trim().to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn named(news: &News) -> &'static str {
    match news {
        News::Change(change) => change.kind.name(),
        News::Notice(notice) => notice.kind.name(),
    }
}

/// Every destination takes everything at once, one by one.
pub struct Eager;

impl Policy for Eager {
    fn at_once(&self, _: &Place) -> usize {
        usize::MAX
    }

    fn opens_at(&self, _: &Destination, _: &Place, _: Option<&Place>, _: Timestamp) -> Option<Timestamp> {
        Some(Timestamp::MIN)
    }
    fn plan(&self, _: &Queue<'_>, _: Timestamp) -> Plan {
        Plan::Single
    }
    fn began(&self, _: &Destination, _: &mut Place, _: Timestamp) {}
    fn ended(&self, _: &Settlement, _: &Destination, _: &mut Place, _: Option<&mut Place>) -> Vec<Announcement> {
        Vec::new()
    }
    fn message_id(&self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
}
