//! Several replicas on one PostgreSQL: killed, paused, cut off, their server killed under them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callboard::demo::dataworks::Fault;
use callboard::model::RunId;

use super::{Books, PROJECT, Place, Process, finish, happen};
use crate::postgres::{Database, Server};
use crate::results;
use crate::sink::Answer;

const REPLICAS: usize = 3;
/// Several, so that what one dead replica had under way does not hold up everything.
const HOOKS: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];

/// Between two events at most. The second keeps the long form's books at a length that can be read.
const BUSY: Duration = Duration::from_millis(200);
const CALM: Duration = Duration::from_secs(2);

struct Replica {
    listen: SocketAddr,
    process: Process,
}

/// Variables of the environment, for each replica or for all.
type Environment<'a> = &'a [(&'a str, &'a str)];

/// The processes and everything around them.
struct Replicas {
    all: Vec<Replica>,
    place: Place,
}

impl Replicas {
    async fn start(place: Place) -> Replicas {
        Replicas::start_each(place, [&[]; REPLICAS]).await
    }

    /// Each with an environment of its own.
    async fn start_each(place: Place, each: [Environment<'_>; REPLICAS]) -> Replicas {
        let mut replicas = Replicas { all: Vec::new(), place };
        let mut listen = replicas.place.listen;
        for environment in each {
            let process = replicas.begin(listen, environment);
            replicas.all.push(Replica { listen, process });
            listen = crate::sink::closed_port().await;
        }
        replicas.ready().await;
        replicas
    }

    fn begin(&self, listen: SocketAddr, environment: Environment<'_>) -> Process {
        let mut command = self.place.command(&["run"]);
        command.env("CALLBOARD__SERVER__LISTEN", listen.to_string());
        // Each of them polls.
        command.env("CALLBOARD__DATAWORKS__POLL__FASTEST", "100ms").env("CALLBOARD__DATAWORKS__POLL__SLOWEST", "200ms");
        command.envs(environment.iter().copied());
        self.place.begin(command)
    }

    /// Each of them lives and can write to the store.
    async fn ready(&mut self) {
        for Replica { listen, process } in &mut self.all {
            let ready = async || self.place.page_at(*listen, "/readyz").await.is_some_and(|(status, _)| status == 200);
            self.place.until("each replica is ready", process, ready).await;
        }
    }

    /// Things happen for a while, in pauses of this length at most.
    async fn live(&self, time: Duration, longest: Duration, runs: &mut Vec<RunId>, random: &mut fastrand::Rng) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            happen(&self.place.world, runs, random);
            tokio::time::sleep(longest.mul_f64(random.f64())).await;
        }
    }

    /// `kill -9`
    fn kill(&mut self, index: usize) -> SocketAddr {
        let Replica { listen, process } = self.all.remove(index);
        process.kill();
        listen
    }

    fn restart(&mut self, index: usize, listen: SocketAddr) {
        let process = self.begin(listen, &[]);
        self.all.insert(index, Replica { listen, process });
    }

    /// Each of them has tried to send by a channel of this kind.
    async fn have_all_tried(&self, kind: &str) -> bool {
        self.have_tried(kind).await.into_iter().all(|tried| tried)
    }

    /// Which of them.
    async fn have_tried(&self, kind: &str) -> Vec<bool> {
        self.have_counted(&format!("callboard_delivery_attempts_total{{channel_kind=\"{kind}\"")).await
    }

    /// Each of them has counted something in a metric that begins so.
    async fn have_all_counted(&self, series: &str) -> bool {
        self.have_counted(series).await.into_iter().all(|counted| counted)
    }

    /// Which of them.
    async fn have_counted(&self, series: &str) -> Vec<bool> {
        let pages = self.all.iter().map(|replica| self.place.page_at(replica.listen, "/metrics"));
        let pages = futures_util::future::join_all(pages).await;
        let counts = |line: &str| line.starts_with(series) && !line.ends_with(" 0");
        pages.into_iter().map(|page| page.is_some_and(|(_, text)| text.lines().any(counts))).collect()
    }

    fn signal(&mut self, which: &[bool], name: &str) {
        let which = self.all.iter_mut().zip(which).filter(|(_, is_meant)| **is_meant);
        which.for_each(|(replica, _)| replica.process.signal(name));
    }

    async fn stop(&mut self) {
        for Replica { process, .. } in self.all.drain(..) {
            self.place.stop(process).await;
        }
    }

    /// All runs end and all is told; every replica has come through by itself and stops well. Then the books are closed.
    async fn end(&mut self, runs: &[RunId], told: &str) -> Books {
        self.ready().await;
        finish(&self.place.world, runs);
        if let Some(Replica { process, .. }) = self.all.first_mut() {
            self.place.drained(runs, HOOKS.len(), process).await;
        }
        self.stop().await;
        Books::closed(&self.place, told).await
    }
}

/// `REPLICA_KILLS=30` for more of them, `SEED=` for the same moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_lose_nothing_and_repeat_only_what_is_counted() {
    let (kills, seed) = (results::cases("REPLICA_KILLS", 5), results::seed());
    println!("SEED={seed} repeats the moments of the kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let mut replicas = Replicas::start(Place::at_server(database.url(), &HOOKS).await).await;
    let mut runs = Vec::new();
    for _ in 0..kills {
        let lives = Duration::from_millis(random.u64(0..2_000));
        replicas.live(lives, BUSY, &mut runs, &mut random).await;
        let index = random.usize(..REPLICAS);
        let listen = replicas.kill(index);
        let away = Duration::from_millis(random.u64(0..1_000));
        replicas.live(away, BUSY, &mut runs, &mut random).await;
        replicas.restart(index, listen);
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    assert!(
        books.unknown <= (kills * HOOKS.len()) as u64,
        "SEED={seed}: replicas that live were taken for dead: {books}"
    );
    results::record("replicas: `kill -9` of one of three", kills, Some(seed), &books.to_string());
}

/// Longer than others wait for a sign of life. `PAUSES=300` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_sleeps_and_wakes_up_changes_nothing_that_others_took_over() {
    let (pauses, seed) = (results::cases("PAUSES", 2), results::seed());
    println!("SEED={seed} repeats the moments of the pauses");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let mut replicas = Replicas::start(Place::at_server(database.url(), &HOOKS).await).await;
    let mut runs = Vec::new();
    for _ in 0..pauses {
        // So that most of the time something is under way.
        for hook in HOOKS {
            let late = (0..10).map(|_| Answer::Late(Duration::from_millis(random.u64(0..500))));
            replicas.place.sink.answer(&format!("/hooks/{hook}"), late.collect::<Vec<_>>());
        }
        let wakes = Duration::from_millis(random.u64(0..2_000));
        replicas.live(wakes, BUSY, &mut runs, &mut random).await;
        let index = random.usize(..REPLICAS);
        replicas.all[index].process.signal("-STOP");
        let sleeps = Duration::from_millis(random.u64(16_000..20_000));
        replicas.live(sleeps, CALM, &mut runs, &mut random).await;
        replicas.all[index].process.signal("-CONT");
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    assert!(
        books.unknown <= (pauses * HOOKS.len()) as u64,
        "SEED={seed}: replicas that live were taken for dead: {books}"
    );
    results::record(
        "replicas: SIGSTOP of one of three, longer than its silence is borne",
        pauses,
        Some(seed),
        &books.to_string(),
    );
}

/// `TERMINATIONS=500` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_off_under_load_cost_nothing() {
    let (terminations, seed) = (results::cases("TERMINATIONS", 30), results::seed());
    println!("SEED={seed} repeats the moments of the terminations");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let mut replicas = Replicas::start(Place::at_server(database.url(), &HOOKS).await).await;
    let mut runs = Vec::new();
    let mut terminated = 0;
    while terminated < terminations {
        let lives = Duration::from_micros(random.u64(0..200_000));
        replicas.live(lives, BUSY, &mut runs, &mut random).await;
        terminated += usize::from(database.cut_off_one().await);
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    assert_eq!((books.extra, books.unknown), (0, 0), "SEED={seed}: nobody died, so nothing may be in doubt");
    results::record("replicas: connections terminated by the server", terminations, Some(seed), &books.to_string());
}

/// `CRASHES=10` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_its_replicas_loses_nothing_and_they_go_on_by_themselves() {
    let (crashes, seed) = (results::cases("CRASHES", 1), results::seed());
    println!("SEED={seed} repeats the moments of the kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = Server::start();
    let mut replicas = Replicas::start(Place::at_server(server.url(), &HOOKS).await).await;
    let mut runs = Vec::new();
    for _ in 0..crashes {
        let lives = Duration::from_micros(random.u64(500_000..3_000_000));
        replicas.live(lives, BUSY, &mut runs, &mut random).await;
        server.kill();
        // One of them starts while there is no server.
        let index = random.usize(..REPLICAS);
        let listen = replicas.kill(index);
        replicas.restart(index, listen);
        let away = Duration::from_millis(random.u64(500..6_000));
        replicas.live(away, BUSY, &mut runs, &mut random).await;
        server.start_again();
        replicas.ready().await;
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    results::record("replicas: `kill -9` of their server", crashes, Some(seed), &books.to_string());
}

/// Where each replica tries by itself, each of them sends when the outage is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_that_every_replica_met_each_message_arrives_once() {
    let seed = results::seed();
    println!("SEED={seed} repeats what happens meanwhile");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let place = Place::at_server(database.url(), &HOOKS).await;
    let path = |hook: &str| format!("/hooks/{hook}");
    for hook in HOOKS {
        place.sink.answer(&path(hook), vec![Answer::status(503); 10_000]);
    }
    let mut replicas = Replicas::start(place).await;
    let mut runs = Vec::new();
    let patient_until = Instant::now() + super::PATIENCE;
    loop {
        let tried = replicas.have_tried("webhook").await;
        if tried.iter().all(|tried| *tried) {
            break;
        }
        assert!(Instant::now() < patient_until, "a replica never tries: {}", replicas.place.log());
        // Whose clock is ahead by a moment is the first each time: who has tried lets others go ahead, and for less long
        // than would make him suspect.
        replicas.signal(&tried, "-STOP");
        replicas.live(Duration::from_secs(2), BUSY, &mut runs, &mut random).await;
        replicas.signal(&tried, "-CONT");
    }
    let refused = replicas.place.sink.seen().len();
    assert_eq!(replicas.place.sink.accepted().len(), 0, "the outage lasts");
    let back: BTreeMap<String, usize> =
        HOOKS.map(|hook| (path(hook), replicas.place.sink.forget_answers(&path(hook)))).into();
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;

    let mut copies: BTreeMap<(String, String), usize> = BTreeMap::new();
    for seen in replicas.place.sink.seen().iter().filter(|seen| seen.order >= back[&seen.path]) {
        *copies.entry((seen.path.clone(), seen.header("webhook-id").to_owned())).or_default() += 1;
    }
    let more: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(more.is_empty(), "SEED={seed}: these came more than once: {more:?}");
    assert_eq!(copies.len(), books.messages, "SEED={seed}: each message came once it could");
    let result = format!("{refused} tries during it; {} messages after it, one copy of each", books.messages);
    results::record("replicas: an outage that all three met", 1, Some(seed), &result);
}

/// `PACED=100` for more messages, which come at 18 a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_gets_no_more_from_three_replicas_than_from_one() {
    const SECRET: &str = "SECsimulated";
    const MINUTE_MS: i64 = 60_000;
    let (messages, seed) = (results::cases("PACED", 22), results::seed());
    println!("SEED={seed} repeats what happens");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let place = Place::at_server(database.url(), &["hook"]).await;
    let url = place.sink.dingtalk("robot", Some(SECRET), None);
    place.configure(&format!(
        "[channels.robot]\nkind = \"dingtalk\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n\
         [[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"robot\"]\non = [\"started\", \"stage\", \"finished\"]\n"
    ));
    let mut replicas = Replicas::start(place).await;
    let mut runs = Vec::new();
    let mut patient_until = Instant::now() + 2 * super::PATIENCE;
    // By the clock that signed them.
    let arrived = |replicas: &Replicas| -> Vec<i64> {
        let seen = replicas.place.sink.seen().into_iter().filter(|seen| url.contains(&seen.path));
        seen.map(|seen| seen.query["timestamp"].parse().unwrap()).collect()
    };
    let mut seen = 0;
    while seen < messages || !replicas.have_all_tried("dingtalk").await {
        replicas.live(Duration::from_millis(500), BUSY, &mut runs, &mut random).await;
        let now = arrived(&replicas).len();
        if now > seen {
            (seen, patient_until) = (now, Instant::now() + 2 * super::PATIENCE);
        }
        assert!(Instant::now() < patient_until, "no message any more, or not from all: {}", replicas.place.log());
    }
    replicas.stop().await;

    let mut moments = arrived(&replicas);
    moments.sort_unstable();
    for window in moments.windows(19) {
        assert!(window[18] - window[0] >= MINUTE_MS, "SEED={seed}: 19 in a minute: {window:?}");
    }
    assert_eq!(replicas.place.sink.complaints(), Vec::<String>::new(), "SEED={seed}");
    let ledger = replicas.place.store().await.overview().await.unwrap().ledger;
    assert!(ledger.is_balanced() && ledger.dead == 0, "SEED={seed}: {ledger:?}");
    let result = format!("{} messages, never more than 18 in 60 s", moments.len());
    results::record("replicas: the pace of a robot", messages, Some(seed), &result);
}

/// A place with a workspace for each of the replicas.
async fn with_a_workspace_for_each(database: &Database) -> Place {
    let place = Place::at_server(database.url(), &["hook"]).await;
    for (name, project) in ["finance", "marketing"].into_iter().zip(PROJECT + 1..) {
        place.world.add_workspace(project);
        place.configure(&format!(
            "[[workspaces]]\nname = \"{name}\"\nregion = \"cn-shanghai\"\nproject_id = {project}\n"
        ));
    }
    place
}

/// Each of them alone would like to spend all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_all_replicas_stay_within_the_budget_of_one() {
    const A_SECOND: u64 = 8;
    const A_DAY: u64 = 200;
    // Of the day's calls polls may spend 60 at once; the rest is for commands, or comes over the day.
    const AT_ONCE: u64 = 60;
    let database = Database::create().await;
    let place = with_a_workspace_for_each(&database).await;
    let _ = place.world.clone().with_budget(None, Some(AT_ONCE + 20));
    let (second, day) = (A_SECOND.to_string(), A_DAY.to_string());
    let budget = [
        ("CALLBOARD__DATAWORKS__BUDGET__CALLS_PER_SECOND", second.as_str()),
        ("CALLBOARD__DATAWORKS__BUDGET__CALLS_PER_DAY", day.as_str()),
    ];
    let began = Instant::now();
    let replicas = Replicas::start_each(place, [&budget; REPLICAS]).await;
    let world = &replicas.place.world;
    let patient_until = Instant::now() + super::PATIENCE;
    while world.total_calls() < AT_ONCE - 5 || !replicas.have_all_counted("callboard_api_calls_total").await {
        let (calls, seconds) = (world.total_calls(), began.elapsed().as_secs());
        assert!(calls <= A_SECOND * (seconds + 1), "{calls} calls in {seconds} s");
        assert!(Instant::now() < patient_until, "{calls} calls, or not from all: {}", replicas.place.log());
        tokio::time::sleep(super::LOOK).await;
    }
    // Nobody finds more than what is left.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = world.total_calls();
    assert!(calls <= AT_ONCE + 1, "{calls} calls");
    assert_eq!(world.refusals(), Vec::<String>::new(), "DataWorks had to refuse calls");
    results::record(
        "replicas: one budget of calls",
        1,
        None,
        &format!("{calls} calls of three replicas, none refused"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_refused_to_all_replicas_is_told_once_and_tried_by_one_of_them_a_minute() {
    let database = Database::create().await;
    let place = with_a_workspace_for_each(&database).await;
    place.configure("[notices]\nchannels = [\"hook\"]\n");
    let mut replicas = Replicas::start(place).await;
    let world = replicas.place.world.clone();
    let patient = 3 * super::PATIENCE;
    let notices = |replicas: &Replicas| -> Vec<String> {
        let seen = replicas.place.sink.accepted().into_iter().map(|seen| seen.json());
        let notices = seen.filter(|json| json["type"] == "notice");
        notices.map(|json| json["data"]["notice"].as_str().unwrap().to_owned()).collect()
    };
    let until = async |replicas: &Replicas, what: &str, happened: &dyn Fn(&Replicas) -> bool| {
        let end = Instant::now() + patient;
        while !happened(replicas) {
            assert!(Instant::now() < end, "never happened: {what}: {}", replicas.place.log());
            tokio::time::sleep(super::LOOK).await;
        }
    };

    world.break_down(Fault::key_disabled());
    let before = world.total_calls();
    until(&replicas, "the notice", &|replicas| !notices(replicas).is_empty()).await;
    let refused = world.total_calls() - before;
    // What was on its way is answered well, or is the first to be refused.
    assert!(refused <= 2 * REPLICAS as u64, "each finds out by one call: {refused}");
    let known = world.total_calls();
    until(&replicas, "the first of them tries", &|_| world.total_calls() > known).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.total_calls() - known, 1, "one tries for all");

    world.recover();
    let polled = [PROJECT, PROJECT + 1, PROJECT + 2].map(|project| {
        world.add_run(project, callboard::demo::dataworks::RunSpec::online("after"));
        project
    });
    until(&replicas, "all workspaces are polled again", &|replicas| {
        replicas.place.told("run.started") >= 1 && world.total_calls() > known + 3 * polled.len() as u64
    })
    .await;
    until(&replicas, "the end is told", &|replicas| notices(replicas).len() >= 2).await;
    // Whoever finds out later has nothing to add.
    tokio::time::sleep(Duration::from_secs(8)).await;
    replicas.ready().await;
    assert_eq!(notices(&replicas), ["source.denied", "source.back"]);
    replicas.stop().await;
}

/// For longer than anybody waits for a sign of life. `NETWORK_CUTS=20` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_before_one_replica_costs_nothing_and_it_comes_back_by_itself() {
    let (cuts, seed) = (results::cases("NETWORK_CUTS", 1), results::seed());
    println!("SEED={seed} repeats the moments of the cuts");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let wires = [database.wire().await, database.wire().await, database.wire().await];
    let environments = wires.each_ref().map(|wire| [("CALLBOARD__STORE__URL", wire.url.as_str())]);
    let place = Place::at_server(database.url(), &HOOKS).await;
    let mut replicas = Replicas::start_each(place, environments.each_ref().map(|one| one.as_slice())).await;
    let mut runs = Vec::new();
    for _ in 0..cuts {
        for hook in HOOKS {
            let late = (0..10).map(|_| Answer::Late(Duration::from_millis(random.u64(0..500))));
            replicas.place.sink.answer(&format!("/hooks/{hook}"), late.collect::<Vec<_>>());
        }
        let lives = Duration::from_millis(random.u64(0..2_000));
        replicas.live(lives, BUSY, &mut runs, &mut random).await;
        let wire = &wires[random.usize(..REPLICAS)];
        wire.cut();
        replicas.live(Duration::from_secs(20), CALM, &mut runs, &mut random).await;
        let before = replicas.place.sink.accepted().len();
        replicas.live(Duration::from_secs(10), CALM, &mut runs, &mut random).await;
        assert!(replicas.place.sink.accepted().len() > before, "SEED={seed}: the others don't go on");
        wire.mend();
        replicas.ready().await;
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    assert!(
        books.unknown <= (cuts * HOOKS.len()) as u64,
        "SEED={seed}: more is in doubt than one replica had under way: {books}"
    );
    results::record("replicas: the network of one of three cut for 30 s", cuts, Some(seed), &books.to_string());
}

#[tokio::test]
async fn a_start_while_the_server_is_away_waits_and_says_so_and_a_command_fails_at_once() {
    let nowhere = tempfile::tempdir().unwrap();
    let url = format!("postgres:///callboard?host={}&user=callboard&password=hunter2", nowhere.path().display());
    let place = Place::at_server(url, &["hook"]).await;
    let mut process = place.start();
    let waits = "the start waits for PostgreSQL";
    place.until("it says what it waits for", &mut process, async || place.log().contains(waits)).await;
    assert!(place.answers("/healthz", 200).await, "it lives: nobody needs to start it again");
    let (status, page) = place.page("/readyz").await.unwrap();
    assert_eq!(status, 503, "{page}");
    assert!(page.contains("the start waits for PostgreSQL at ") && !page.contains("hunter2"), "{page}");
    assert!(place.answers("/metrics", 503).await, "there is nothing to show yet");

    let output = place.command(&["deliveries", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the store can't be reached: PostgreSQL at "), "{said}");

    place.stop(process).await;
    let log = place.log();
    assert_eq!(log.matches(waits).count(), 1, "said once: {log}");
    assert!(!log.contains("hunter2") && !said.contains("hunter2"), "the password is told: {log} {said}");
}
