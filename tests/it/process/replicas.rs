//! Several replicas on one PostgreSQL: killed, paused, cut off, their server killed under them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callboard::model::RunId;

use super::{Books, Place, Process, finish, happen};
use crate::postgres::{Database, Server};
use crate::results;
use crate::sink::Answer;

const REPLICAS: usize = 3;
/// Several, so that what one dead replica had under way does not hold up everything.
const HOOKS: [&str; 4] = ["one", "two", "three", "four"];

struct Replica {
    listen: SocketAddr,
    process: Process,
}

/// The processes and everything around them.
struct Replicas {
    all: Vec<Replica>,
    place: Place,
}

impl Replicas {
    async fn start(place: Place) -> Replicas {
        let mut replicas = Replicas { all: Vec::new(), place };
        let mut listen = replicas.place.listen;
        for _ in 0..REPLICAS {
            let process = replicas.begin(listen);
            replicas.all.push(Replica { listen, process });
            listen = crate::sink::closed_port().await;
        }
        replicas.ready().await;
        replicas
    }

    fn begin(&self, listen: SocketAddr) -> Process {
        let mut command = self.place.command(&["run"]);
        command.env("CALLBOARD__SERVER__LISTEN", listen.to_string());
        // Each of them polls.
        command.env("CALLBOARD__DATAWORKS__POLL__FASTEST", "100ms").env("CALLBOARD__DATAWORKS__POLL__SLOWEST", "200ms");
        self.place.begin(command)
    }

    /// Each of them lives and can write to the store.
    async fn ready(&mut self) {
        for Replica { listen, process } in &mut self.all {
            let ready = async || self.place.page_at(*listen, "/readyz").await.is_some_and(|(status, _)| status == 200);
            self.place.until("each replica is ready", process, ready).await;
        }
    }

    /// Things happen for a while.
    async fn live(&self, time: Duration, runs: &mut Vec<RunId>, random: &mut fastrand::Rng) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            happen(&self.place.world, runs, random);
            tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await;
        }
    }

    /// `kill -9`
    fn kill(&mut self, index: usize) -> SocketAddr {
        let Replica { listen, process } = self.all.remove(index);
        process.kill();
        listen
    }

    fn restart(&mut self, index: usize, listen: SocketAddr) {
        let process = self.begin(listen);
        self.all.insert(index, Replica { listen, process });
    }

    /// All runs end and all is told; every replica has come through by itself and stops well. Then the books are closed.
    async fn end(mut self, runs: &[RunId], told: &str) -> Books {
        self.ready().await;
        finish(&self.place.world, runs);
        if let Some(Replica { process, .. }) = self.all.first_mut() {
            self.place.drained(runs, HOOKS.len(), process).await;
        }
        for Replica { process, .. } in self.all {
            self.place.stop(process).await;
        }
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
        replicas.live(lives, &mut runs, &mut random).await;
        let index = random.usize(..REPLICAS);
        let listen = replicas.kill(index);
        let away = Duration::from_millis(random.u64(0..1_000));
        replicas.live(away, &mut runs, &mut random).await;
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
        replicas.live(wakes, &mut runs, &mut random).await;
        let index = random.usize(..REPLICAS);
        replicas.all[index].process.signal("-STOP");
        let sleeps = Duration::from_millis(random.u64(16_000..20_000));
        replicas.live(sleeps, &mut runs, &mut random).await;
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
    let replicas = Replicas::start(Place::at_server(database.url(), &HOOKS).await).await;
    let mut runs = Vec::new();
    let mut terminated = 0;
    while terminated < terminations {
        let lives = Duration::from_micros(random.u64(0..200_000));
        replicas.live(lives, &mut runs, &mut random).await;
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
        replicas.live(lives, &mut runs, &mut random).await;
        server.kill();
        // One of them starts while there is no server.
        let index = random.usize(..REPLICAS);
        let listen = replicas.kill(index);
        replicas.restart(index, listen);
        let away = Duration::from_millis(random.u64(500..6_000));
        replicas.live(away, &mut runs, &mut random).await;
        server.start_again();
        replicas.ready().await;
    }
    let books = replicas.end(&runs, &format!("SEED={seed}")).await;
    results::record("replicas: `kill -9` of their server", crashes, Some(seed), &books.to_string());
}

#[tokio::test]
async fn a_start_while_the_server_is_away_waits_and_says_so_and_a_command_fails_at_once() {
    let nowhere = tempfile::tempdir().unwrap();
    let url = format!("postgres:///callboard?host={}&user=callboard&password=hunter2", nowhere.path().display());
    let place = Place::at_server(url, &["hook"]).await;
    let mut process = place.start();
    let waits = "the start waits for PostgreSQL";
    place.until("it says what it waits for", &mut process, async || place.log().contains(waits)).await;

    let output = place.command(&["deliveries", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the store can't be reached: PostgreSQL at "), "{said}");

    place.stop(process).await;
    let log = place.log();
    assert_eq!(log.matches(waits).count(), 1, "said once: {log}");
    assert!(!log.contains("hunter2") && !said.contains("hunter2"), "the password is told: {log} {said}");
}
