//! The real program: started, killed, stopped and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use callboard::demo::dataworks::{RunSpec, World, serve};
use callboard::diff;
use callboard::model::{
    Destination, RunId, RunState, Scope, Selector, Snapshot, Stage, Status, Subscription, Timestamp, Workspace,
};
use callboard::store::{self, DeliveryFilter, Poll, Role, Settings, Store, StoreError, WorkspaceState};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sink::Sink;

const PROJECT: i64 = 10_000;
const KEY: &str = "LTAI-simulated-key";
const SECRET: &str = "simulated-access-key-secret";
/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that another process does.
const LOOK: Duration = Duration::from_millis(5);

/// Everything around the process.
struct Place {
    world: World,
    sink: Sink,
    listen: SocketAddr,
    folder: tempfile::TempDir,
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Place {
    async fn new() -> Place {
        let world = World::new(KEY, SECRET);
        world.add_workspace(PROJECT);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        let sink = Sink::start().await;
        let hook = sink.webhook("hook", None);
        let listen = crate::sink::closed_port().await;
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            r#"
[server]
listen = "{listen}"
[store]
url = "sqlite:{folder}/callboard.db"
[dataworks]
endpoint = "{endpoint}"
credentials = {{ access_key_id = "{KEY}", access_key_secret = "{SECRET}" }}
poll = {{ fastest = "10ms", slowest = "20ms", waiting_after = "1d" }}
budget = {{ edition = "enterprise", calls_per_second = 1000, calls_per_day = 100000000 }}
[[workspaces]]
name = "warehouse"
region = "cn-shanghai"
project_id = {PROJECT}
[channels.hook]
kind = "webhook"
url = "{hook}"
[[subscriptions]]
workspace = "warehouse"
channels = ["hook"]
on = ["started", "stage", "finished"]
[network]
allow_private = ["127.0.0.0/8"]
"#,
            folder = folder.path().display()
        );
        std::fs::write(folder.path().join("callboard.toml"), config).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Place { world, sink, listen, folder, http, _stop: stop.drop_guard() }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log.txt")
    }

    fn start(&self) -> Process {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.arg("--config").arg(self.folder.path().join("callboard.toml")).arg("run");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(Some(command.spawn().unwrap()))
    }

    async fn page(&self, path: &str) -> Option<(u16, String)> {
        let answer = self.http.get(format!("http://{}{path}", self.listen)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Returns how long it took.
    async fn ready(&self, process: &mut Process) -> Duration {
        let began = Instant::now();
        self.until("the process is ready", process, async || {
            self.page("/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        began.elapsed()
    }

    async fn until(&self, what: &str, process: &mut Process, mut look: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !look().await {
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(process.ended().is_none(), "the process ended before {what}: {}", log());
            assert!(Instant::now() < end, "never happened: {what}: {}", log());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn settings(&self) -> Settings {
        Settings { url: format!("sqlite:{}/callboard.db", self.folder.path().display()) }
    }

    /// Once no process holds it.
    async fn store(&self) -> std::sync::Arc<dyn Store> {
        loop {
            match store::open(&self.settings(), Role::Owner).await {
                Ok(store) => return store,
                Err(StoreError::InUse(_)) => tokio::time::sleep(LOOK).await,
                Err(error) => panic!("{error}"),
            }
        }
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
        let id = self.child().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
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

/// What the store says was owed and what became of it.
async fn rows(place: &Place) -> Vec<(String, u64)> {
    let store = place.store().await;
    let filter = DeliveryFilter { limit: 100_000, ..DeliveryFilter::default() };
    let mut rows = Vec::new();
    for row in store.deliveries(&filter).await.unwrap() {
        let id = row.delivery.id.to_string();
        let (_, attempts) = store.delivery(&id).await.unwrap().unwrap();
        let unknown = attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("unknown")).count();
        rows.push((id, unknown as u64));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_repeats_only_what_it_counts() {
    const KILLS: usize = 25;
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} repeats the moments of the kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let mut runs: Vec<RunId> = Vec::new();
    for kill in 0..KILLS {
        // Things happen while it lives, and go on happening while it is dead.
        let life = Instant::now() + Duration::from_micros(random.u64(1_000..250_000));
        while Instant::now() < life {
            happen(&place.world, &mut runs, &mut random);
            tokio::time::sleep(Duration::from_millis(random.u64(0..6))).await;
        }
        process.kill();
        happen(&place.world, &mut runs, &mut random);
        process = place.start();
        if kill % 5 == 4 {
            place.ready(&mut process).await;
        }
    }
    place.ready(&mut process).await;
    for run in &runs {
        place.world.finish(PROJECT, run).unwrap();
    }
    let finished = |place: &Place| {
        let accepted = place.sink.accepted();
        accepted.iter().filter(|seen| seen.json()["type"] == "run.finished").count()
    };
    let expected = runs.len();
    place.until("every run's end is told", &mut process, async || finished(&place) >= expected).await;
    place
        .until("nothing is owed any more", &mut process, async || {
            let metrics = place.page("/metrics").await.map(|(_, text)| text).unwrap_or_default();
            metrics.lines().any(|line| line == "callboard_deliveries_open 0")
        })
        .await;
    process.terminate();
    assert_eq!(process.exit().await.code(), Some(0));

    let mut copies: BTreeMap<String, u64> = BTreeMap::new();
    for seen in place.sink.seen() {
        *copies.entry(seen.header("webhook-id").to_owned()).or_default() += 1;
    }
    let (mut unknown_total, mut extra) = (0, 0);
    for (id, unknown) in rows(&place).await {
        let copies = copies.remove(&id).unwrap_or(0);
        assert!(copies >= 1, "SEED={seed}: {id} was recorded and never sent");
        assert!(copies - 1 <= unknown, "SEED={seed}: {copies} copies of {id}, but {unknown} unknown outcomes");
        unknown_total += unknown;
        extra += copies - 1;
    }
    assert!(copies.is_empty(), "SEED={seed}: messages that are not in the store: {copies:?}");
    println!(
        "{} messages, {extra} extra copies, {unknown_total} unknown outcomes, {KILLS} kills",
        place.sink.accepted().len()
    );
    told_without_gap(&place, seed);
}

/// A run begins, moves on, or ends.
fn happen(world: &World, runs: &mut Vec<RunId>, random: &mut fastrand::Rng) {
    let active: Vec<&RunId> = runs.iter().filter(|run| !world.look(PROJECT, run).unwrap().0.is_terminal()).collect();
    if active.len() < 3 && runs.len() < 60 {
        let run = world.add_run(PROJECT, RunSpec::standard(&format!("release {}", runs.len())));
        runs.push(run);
    } else if let Some(run) = active.get(random.usize(..active.len().max(1))) {
        world.advance(PROJECT, run).unwrap();
    }
}

/// Each run's changes arrived, in order, from 1 to its end, and each stage's statuses join.
fn told_without_gap(place: &Place, seed: u64) {
    let mut last: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for seen in place.sink.accepted() {
        let data = &seen.json()["data"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let run = text(&data["run"]["id"]);
        let sequence = next.entry(run.clone()).or_insert(1);
        assert_eq!(data["sequence"], *sequence, "SEED={seed}: run {run} is told with a gap or out of order");
        *sequence += 1;
        if data["stage"].is_object() {
            let key = (run, text(&data["stage"]["code"]));
            if let Some(before) = last.insert(key.clone(), text(&data["to"])) {
                assert_eq!(before, text(&data["from"]), "SEED={seed}: {key:?} jumps");
            }
        }
    }
}

#[tokio::test]
async fn a_stop_ends_well_and_in_time() {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    assert_eq!(place.page("/healthz").await.map(|(status, _)| status), Some(200));
    let began = Instant::now();
    process.terminate();
    assert_eq!(process.exit().await.code(), Some(0));
    let took = began.elapsed();
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(14), "a supervisor would have killed it after {took:?}");
}

#[tokio::test]
async fn a_second_process_on_the_same_store_says_so_and_leaves() {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    // Another port, the same store.
    let other = crate::sink::closed_port().await;
    let output = Command::new(env!("CARGO_BIN_EXE_callboard"))
        .arg("--config")
        .arg(place.folder.path().join("callboard.toml"))
        .arg("run")
        .env_clear()
        .env("CALLBOARD__SERVER__LISTEN", other.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another callboard; stop that one first"), "{said}");
    assert_eq!(place.page("/readyz").await.map(|(status, _)| status), Some(200), "the first one is not disturbed");
    process.terminate();
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn with_ten_thousand_watched_runs_it_is_ready_at_once() {
    const RUNS: usize = 10_000;
    let place = Place::new().await;
    fill(place.store().await, RUNS).await;
    let mut process = place.start();
    let took = place.ready(&mut process).await;
    // No test asserts a time; this one tells it, and the benchmark of the store measures the loading.
    println!("ready after {took:?} with {RUNS} watched runs in the store");
    let metrics = place.page("/metrics").await.unwrap().1;
    assert!(metrics.contains(&format!("callboard_subscriptions {RUNS}\n")), "{metrics}");
    process.kill();
}

async fn fill(store: std::sync::Arc<dyn Store>, count: usize) {
    let workspace = Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: PROJECT };
    let at: Timestamp = Timestamp::now();
    let runs: Vec<RunState> = (0..count).map(|n| diff::baseline(snapshot(n, at), at)).collect();
    let subscriptions: Vec<Subscription> = runs
        .iter()
        .enumerate()
        .map(|(n, run)| Subscription {
            id: format!("subscription-{n}"),
            scope: Scope::Run { workspace: workspace.key(), run: run.snapshot.id.clone() },
            to: Destination::Room { surface: "discord".into(), room: (n % 200 + 1).to_string() },
            on: Selector::watch(),
            stages: Vec::new(),
            creators: Vec::new(),
            template: None,
            by: "discord:7".into(),
            created_at: at,
        })
        .collect();
    let state = WorkspaceState { key: workspace.key(), baseline_at: at, horizon: None, seen_at: None };
    let (changes, deliveries, ended, forgotten) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    store
        .record(&Poll { key: workspace.key(), workspace: Some(state), runs, changes, deliveries, ended, forgotten })
        .await
        .unwrap();
    // Together, so that the store commits them in groups.
    let writes = subscriptions.iter().map(|subscription| store.subscribe(subscription, None));
    let results = futures_util::future::join_all(writes).await;
    assert!(results.iter().all(Result::is_ok));
}

fn snapshot(n: usize, at: Timestamp) -> Snapshot {
    let stage = |step: i64, code: &str| Stage {
        code: code.into(),
        name: format!("Stage {code}"),
        step,
        kind: "Deploy".into(),
        status: if step == 1 { Status::Running } else { Status::Init },
        message: String::new(),
    };
    Snapshot {
        id: format!("{n:08x}-20ec-4a7c-a214-54020f910000").parse().unwrap(),
        description: format!("release {n}"),
        creator: "1379463177660001".into(),
        status: Status::Running,
        message: String::new(),
        created_at: Some(at),
        modified_at: Some(at),
        stages: vec![stage(1, "BUILD_PACKAGE"), stage(2, "PROD_CHECK"), stage(3, "PROD")],
    }
}
