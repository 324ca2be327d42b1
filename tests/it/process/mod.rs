//! The real program against a simulated DataWorks and a sink: started, killed, starved, stopped and started again.

pub mod damage;
mod disk;
mod kills;
mod moving;
mod nth;
mod replicas;
mod restored;
mod sinks;
mod starts;
mod stops;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::demo::dataworks::{RunSpec, World, serve};
use callboard::model::{DeliveryState, RunId};
use callboard::store::{self, DeliveryFilter, Role, Settings, Store, StoreError};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::sink::{Seen, Sink};

const PROJECT: i64 = 10_000;
const KEY: &str = "LTAI-simulated-key";
const SECRET: &str = "simulated-access-key-secret";
/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that another process does.
const LOOK: Duration = Duration::from_millis(15);

/// Everything around the process.
struct Place {
    world: World,
    sink: Sink,
    listen: SocketAddr,
    folder: tempfile::TempDir,
    /// Where the store's file is, unless it is at a server.
    home: PathBuf,
    /// `store.url` of a server.
    server: Option<String>,
    /// What comes before the program on its command line.
    prefix: Vec<String>,
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Place {
    /// One webhook, `hook`, that is told everything.
    async fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("store");
        std::fs::create_dir(&home).unwrap();
        Place::of(folder, home, &["hook"]).await
    }

    /// Webhooks of these names, each told everything.
    async fn with_hooks(hooks: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("store");
        std::fs::create_dir(&home).unwrap();
        Place::of(folder, home, hooks).await
    }

    /// The same, with the store at this server.
    async fn at_server(url: String, hooks: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        Place::with_store(folder, home, Some(url), hooks).await
    }

    async fn of(folder: tempfile::TempDir, home: PathBuf, hooks: &[&str]) -> Place {
        Place::with_store(folder, home, None, hooks).await
    }

    async fn with_store(folder: tempfile::TempDir, home: PathBuf, server: Option<String>, hooks: &[&str]) -> Place {
        let store = server.clone().unwrap_or_else(|| format!("sqlite:{}/callboard.db", home.display()));
        let world = World::new(KEY, SECRET);
        world.add_workspace(PROJECT);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        let sink = Sink::start().await;
        let listen = crate::sink::closed_port().await;
        let mut config = format!(
            r#"
[server]
listen = "{listen}"
[store]
url = "{store}"
[dataworks]
endpoint = "{endpoint}"
credentials = {{ access_key_id = "{KEY}", access_key_secret = "{SECRET}" }}
poll = {{ fastest = "10ms", slowest = "20ms", waiting_after = "1d" }}
budget = {{ edition = "enterprise", calls_per_second = 1000, calls_per_day = 100000000 }}
[[workspaces]]
name = "warehouse"
region = "cn-shanghai"
project_id = {PROJECT}
[[subscriptions]]
workspace = "warehouse"
channels = {hooks:?}
on = ["started", "stage", "finished"]
[network]
allow_private = ["127.0.0.0/8"]
"#
        );
        for hook in hooks {
            let url = sink.webhook(hook, None);
            config += &format!("[channels.{hook}]\nkind = \"webhook\"\nurl = \"{url}\"\n");
        }
        std::fs::write(folder.path().join("callboard.toml"), config).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Place { world, sink, listen, folder, home, server, prefix: Vec::new(), http, _stop: stop.drop_guard() }
    }

    /// More of the configuration.
    fn configure(&self, more: &str) {
        let path = self.folder.path().join("callboard.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, config + more).unwrap();
    }

    /// The same place, with its store at this server from now on.
    fn move_to_server(&mut self, url: String) {
        let path = self.folder.path().join("callboard.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let before = self.server.clone().unwrap_or_else(|| format!("sqlite:{}/callboard.db", self.home.display()));
        let moved = config.replace(&before, &url);
        assert_ne!(moved, config, "the store is not where it was looked for");
        std::fs::write(path, moved).unwrap();
        self.server = Some(url);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap_or_default()
    }

    /// `callboard` with the configuration of this place.
    fn command(&self, args: &[&str]) -> Command {
        let mut line = self.prefix.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_callboard")]);
        let mut command = Command::new(line.next().unwrap());
        command.args(line).arg("--config").arg(self.folder.path().join("callboard.toml")).args(args).env_clear();
        // Nothing here speaks TLS, and a third of a start is the reading of authorities.
        command.env("SSL_CERT_FILE", "/dev/null");
        command
    }

    /// What a command of the command line prints as JSON.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn start(&self) -> Process {
        self.begin(self.command(&["run"]))
    }

    /// Starts the service where it should leave by itself: its exit status and what it said.
    async fn refused(&self) -> (Option<i32>, String) {
        let before = self.log().len();
        let status = self.start().exit().await;
        (status.code(), self.log().split_off(before))
    }

    fn begin(&self, mut command: Command) -> Process {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log.txt"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.unwrap());
        Process(Some(command.spawn().unwrap()))
    }

    async fn page(&self, path: &str) -> Option<(u16, String)> {
        self.page_at(self.listen, path).await
    }

    async fn page_at(&self, listen: SocketAddr, path: &str) -> Option<(u16, String)> {
        let answer = self.http.get(format!("http://{listen}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    async fn answers(&self, path: &str, expected: u16) -> bool {
        self.page(path).await.is_some_and(|(status, _)| status == expected)
    }

    /// Returns how long it took.
    async fn ready(&self, process: &mut Process) -> Duration {
        let began = Instant::now();
        self.until("the process is ready", process, async || self.answers("/readyz", 200).await).await;
        began.elapsed()
    }

    async fn until(&self, what: &str, process: &mut Process, mut look: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !look().await {
            assert!(process.ended().is_none(), "the process ended before {what}: {}", self.log());
            assert!(Instant::now() < end, "never happened: {what}: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Each of these runs' ends is told everywhere, and nothing is owed any more. However much is owed, there is always a
    /// next message.
    async fn drained(&self, runs: &[RunId], hooks: usize, process: &mut Process) {
        loop {
            // Counted first: the last message may come while the others are looked through.
            let before = self.sink.accepted().len();
            if self.told("run.finished") >= runs.len() * hooks {
                break;
            }
            self.until("the next message", process, async || self.sink.accepted().len() > before).await;
        }
        self.until("nothing is owed any more", process, async || {
            let metrics = self.page("/metrics").await.map(|(_, text)| text).unwrap_or_default();
            metrics.lines().any(|line| line == "callboard_deliveries_open 0")
        })
        .await;
    }

    /// How many changes of this type the readers of all hooks have seen.
    fn told(&self, kind: &str) -> usize {
        self.sink.accepted().iter().flat_map(changes).filter(|change| change["type"] == kind).count()
    }

    fn settings(&self) -> Settings {
        let file = || format!("sqlite:{}/callboard.db", self.home.display());
        Settings::of(self.server.clone().unwrap_or_else(file))
    }

    /// Once no process holds it.
    async fn store(&self) -> Arc<dyn Store> {
        loop {
            match store::open(&self.settings(), Role::Owner).await {
                Ok(store) => return store,
                Err(StoreError::InUse(_)) => tokio::time::sleep(LOOK).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Asks the process to stop, and expects that it does so well.
    async fn stop(&self, mut process: Process) {
        process.terminate();
        assert_eq!(process.exit().await.code(), Some(0), "{}", self.log());
    }
}

struct Process(Option<Child>);

impl Process {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was started")
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child().try_wait().unwrap()
    }

    /// `kill -9`
    fn kill(mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
        self.0 = None;
    }

    fn terminate(&mut self) {
        self.signal("-TERM");
    }

    fn signal(&mut self, name: &str) {
        let id = self.child().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    async fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < end, "the process does not end");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The sink's book against the store's.
#[derive(Debug, Default)]
struct Books {
    messages: usize,
    /// Deliveries told by the message of another.
    folded: usize,
    /// Beyond the first of each message.
    extra: u64,
    /// Attempts whose outcome is unknown.
    unknown: u64,
}

impl Books {
    /// Reads both once nothing runs, and checks the promise. `told` repeats the case in a message of failure.
    async fn closed(place: &Place, told: &str) -> Books {
        // A message is led by the delivery of its first change.
        let mut copies: BTreeMap<(String, String, i64), u64> = BTreeMap::new();
        for seen in place.sink.seen() {
            let first = &changes(&seen)[0]["data"];
            let run = first["run"]["id"].as_str().unwrap_or_default().to_owned();
            *copies.entry((seen.path, run, first["sequence"].as_i64().unwrap_or_default())).or_default() += 1;
        }
        let store = place.store().await;
        let filter = DeliveryFilter { limit: 100_000, ..DeliveryFilter::default() };
        let mut books = Books::default();
        let rows = store.deliveries(&filter).await.unwrap();
        let delivered: BTreeMap<Uuid, bool> = rows
            .iter()
            .filter(|row| row.state == DeliveryState::Delivered)
            .map(|row| (row.delivery.id, row.folding.is_some()))
            .collect();
        for row in &rows {
            let id = row.delivery.id.to_string();
            let change = row.delivery.news.change().unwrap();
            let leads = (format!("/hooks/{}", row.delivery.to), change.run.id.to_string(), change.sequence);
            if row.state == DeliveryState::Superseded {
                // That its change is in the digest, in its place, is seen below: nothing arrived with a gap.
                let lead = row.folded_into.and_then(|lead| delivered.get(&lead));
                assert_eq!(lead, Some(&true), "{told}: {id} is told by no digest that was delivered");
                assert_eq!(copies.remove(&leads), None, "{told}: {id} was sent by itself, and nobody knows of it");
                books.folded += 1;
                continue;
            }
            let (_, attempts) = store.delivery(&id).await.unwrap().unwrap();
            let unknown =
                attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("unknown")).count() as u64;
            let copies = copies.remove(&leads).unwrap_or(0);
            assert_eq!(row.state, DeliveryState::Delivered, "{told}: {id}");
            assert!(copies >= 1, "{told}: {id} counts as delivered and was never sent");
            assert!(copies - 1 <= unknown, "{told}: {copies} copies of {id}, but {unknown} unknown outcomes");
            assert!(copies <= attempts.len() as u64, "{told}: {id} was sent without its intent on record");
            books.messages += 1;
            books.unknown += unknown;
            books.extra += copies - 1;
        }
        assert!(copies.is_empty(), "{told}: messages that are not in the store: {copies:?}");
        let ledger = store.overview().await.unwrap().ledger;
        assert!(ledger.is_balanced() && ledger.open == 0, "{told}: {ledger:?}");
        assert_eq!(place.sink.complaints(), Vec::<String>::new(), "{told}");
        told_without_gap(place, told);
        books
    }

    fn add(&mut self, other: &Books) {
        self.messages += other.messages;
        self.folded += other.folded;
        self.extra += other.extra;
        self.unknown += other.unknown;
    }
}

impl std::fmt::Display for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Books { messages, folded, extra, unknown } = self;
        write!(
            f,
            "{messages} messages with {folded} more changes folded into them, 0 lost, {extra} extra copies, {unknown} unknown outcomes"
        )
    }
}

/// The changes that a message holds: one, or those of a digest.
fn changes(seen: &Seen) -> Vec<Value> {
    let json = seen.json();
    match json["data"]["changes"].as_array() {
        Some(changes) if json["type"] == "digest" => changes.clone(),
        _ => vec![json],
    }
}

/// At each hook, each run's changes arrived in order, from 1 on, and each stage's statuses join.
fn told_without_gap(place: &Place, told: &str) {
    let mut last: BTreeMap<(String, String, String), String> = BTreeMap::new();
    let mut next: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (hook, change) in place.sink.accepted().iter().flat_map(|seen| {
        let hook = seen.path.clone();
        changes(seen).into_iter().map(move |change| (hook.clone(), change))
    }) {
        let data = &change["data"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let run = text(&data["run"]["id"]);
        let sequence = next.entry((hook.clone(), run.clone())).or_insert(1);
        assert_eq!(data["sequence"], *sequence, "{told}: {hook} hears of run {run} with a gap or out of order");
        *sequence += 1;
        if data["stage"].is_object() {
            let key = (hook, run, text(&data["stage"]["code"]));
            if let Some(before) = last.insert(key.clone(), text(&data["to"])) {
                assert_eq!(before, text(&data["from"]), "{told}: {key:?} jumps");
            }
        }
    }
}

/// A run begins, moves on, or ends.
fn happen(world: &World, runs: &mut Vec<RunId>, random: &mut fastrand::Rng) {
    let active: Vec<&RunId> = runs.iter().filter(|run| !world.look(PROJECT, run).unwrap().0.is_terminal()).collect();
    // Beyond the newest 100 a run would have to be followed by other calls.
    if active.len() < 3 && (runs.len() < 60 || active.is_empty()) {
        let run = world.add_run(PROJECT, RunSpec::standard(&format!("release {}", runs.len())));
        runs.push(run);
    } else if let Some(run) = active.get(random.usize(..active.len().max(1))) {
        world.advance(PROJECT, run).unwrap();
    }
}

fn finish(world: &World, runs: &[RunId]) {
    runs.iter().for_each(|run| world.finish(PROJECT, run).unwrap());
}

/// The files that the store leaves, by name.
fn files(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
