//! What replicas on one PostgreSQL promise each other.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::metrics::Metrics;
use callboard::model::{DeliveryState, Outcome, RunId, Timestamp, Workspace};
use callboard::settings::Span;
use callboard::store::{self, Loaded, Moves, Next, Part, Policy, Poll, Role, Settings, Settlement, Store, StoreError};
use callboard::tracker::{Spans, Tracker};
use futures_util::FutureExt;

use crate::postgres::{Database, Server};
use crate::results;
use crate::store_scene::{Rules, at, moved, nothing, room, run_id, state, warehouse, watch};

async fn replica(database: &Database) -> Arc<dyn Store> {
    store::open(&Settings::of(database.url()), Role::Owner).await.unwrap()
}

fn names() -> Vec<String> {
    (0..10).map(|n| format!("workspace:{n}")).chain(["surface:discord".to_owned()]).collect()
}

/// What each tends once nothing moves any more.
async fn settled(replicas: &[&Arc<dyn Store>]) -> Vec<BTreeSet<String>> {
    let mut before = Vec::new();
    loop {
        let mut held = Vec::new();
        for replica in replicas {
            held.push(replica.hold(&names()).await.unwrap().names);
        }
        if held == before {
            return held;
        }
        before = held;
    }
}

fn assert_shared(held: &[BTreeSet<String>]) {
    let all: BTreeSet<String> = held.iter().flatten().cloned().collect();
    assert_eq!(all.len(), names().len(), "something is tended by nobody: {held:?}");
    assert_eq!(held.iter().map(BTreeSet::len).sum::<usize>(), all.len(), "something is tended twice: {held:?}");
    let most = 10_usize.div_ceil(held.len()) + 1;
    assert!(held.iter().all(|held| held.len() <= most), "one has too much: {held:?}");
}

#[tokio::test]
async fn what_there_is_to_tend_is_shared_evenly_by_who_is_there() {
    let database = Database::create().await;
    let first = replica(&database).await;
    assert_shared(&settled(&[&first]).await);
    let (second, third) = (replica(&database).await, replica(&database).await);
    assert_shared(&settled(&[&first, &second, &third]).await);

    // One ends in good order, and the others need not wait for anything.
    third.retire().await.unwrap();
    drop(third);
    assert_shared(&settled(&[&first, &second]).await);

    // One falls silent: as long as its leases last, nobody touches what it tends.
    let before = settled(&[&first, &second]).await;
    assert_eq!(first.hold(&names()).await.unwrap().names, before[0]);
    database
        .execute(
            "UPDATE leases SET until = until - interval '6 s'; UPDATE replicas SET seen_at = seen_at - interval '6 s'",
        )
        .await;
    assert_shared(&settled(&[&first]).await);

    // It comes back, and finds out.
    let held = second.hold(&names()).await.unwrap().names;
    assert_eq!(held, BTreeSet::new(), "the other one tends everything now");
    assert_shared(&settled(&[&first, &second]).await);
}

#[tokio::test]
async fn what_a_silent_replica_was_sending_is_unknown_and_its_late_answer_changes_nothing() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let policy: Arc<dyn Policy> = Arc::new(Rules::default());
    let everything = store::Room { messages: 10, probes: 10 };
    for replica in [&first, &second] {
        replica.hold(&names()).await.unwrap();
    }
    first.record(&moved("r1", 1, &["ops"])).await.unwrap();
    let claimed = first.claim(at(1), everything, &policy).await.unwrap().claimed.remove(0);

    // The other one leaves it alone: it may be on its way.
    assert_eq!(second.claim(at(2), everything, &policy).await.unwrap().claimed, []);
    second.release(&[]).await.unwrap();
    assert_eq!(second.hold(&names()).await.unwrap().recovered, []);

    // The database was away, so nobody was heard of: no reason to take anybody for dead.
    database.execute("UPDATE replicas SET seen_at = seen_at - interval '40 s'").await;
    assert_eq!(second.hold(&names()).await.unwrap().recovered, []);
    first.hold(&names()).await.unwrap();
    database.wait_half_an_hour().await;
    assert_eq!(second.hold(&names()).await.unwrap().recovered, [(room("ops"), 1)]);
    let again = second.claim(at(3), everything, &policy).await.unwrap().claimed.remove(0);
    assert_eq!((again.lead.id, again.lead.attempt), (claimed.lead.id, 2));
    assert!(again.lead.unknown_since.is_some(), "it may have arrived");

    let late = |attempt: u32, outcome: Outcome, next: Next| Settlement {
        id: claimed.lead.id,
        attempt,
        started_at: at(1),
        ended_at: at(4),
        chance: 0.5,
        outcome,
        next,
    };
    let refused = late(1, Outcome::Reject { reason: "no".to_owned() }, Next::Rejected);
    first.settle(&refused, &policy).await.unwrap();
    let (row, _) = second.delivery(&claimed.lead.id.to_string()).await.unwrap().unwrap();
    assert_eq!(row.state, DeliveryState::InFlight, "a late answer took it from whoever sends it now");
    let arrived = late(2, Outcome::Delivered { message_id: None, pause: None }, Next::Delivered);
    second.settle(&arrived, &policy).await.unwrap();
    let (row, attempts) = first.delivery(&claimed.lead.id.to_string()).await.unwrap().unwrap();
    assert_eq!((row.state, attempts.len()), (DeliveryState::Delivered, 2));
}

/// One that thinks that a sender may be silent for long is not taken for dead by another that is in a hurry, nor the
/// other way round.
#[tokio::test]
async fn where_replicas_differ_the_longer_silence_counts() {
    let policy: Arc<dyn Policy> = Arc::new(Rules::default());
    for patient_first in [true, false] {
        let database = Database::create().await;
        let patient = Settings { takeover_after: Span(Duration::from_secs(60)), ..Settings::of(database.url()) };
        let hurried = Settings::of(database.url());
        let (sender, other) = if patient_first { (&patient, &hurried) } else { (&hurried, &patient) };
        let sender = store::open(sender, Role::Owner).await.unwrap();
        let other = store::open(other, Role::Owner).await.unwrap();
        sender.hold(&names()).await.unwrap();
        other.hold(&names()).await.unwrap();
        sender.record(&moved("r1", 1, &["ops"])).await.unwrap();
        let claimed = sender.claim(at(1), store::Room { messages: 1, probes: 1 }, &policy).await.unwrap().claimed;
        assert_eq!(claimed.len(), 1);
        // Half a minute passes, in which only the other one was heard of.
        let pass = "UPDATE replicas SET since = since - interval '30 s', seen_at = CASE
            WHEN id = (SELECT max(id) FROM replicas) THEN seen_at ELSE seen_at - interval '30 s' END";
        database.execute(pass).await;
        assert_eq!(other.hold(&names()).await.unwrap().recovered, [], "patient first: {patient_first}");
        database.execute(pass).await;
        assert_eq!(other.hold(&names()).await.unwrap().recovered, [(room("ops"), 1)]);
    }
}

#[test]
fn a_send_never_outlasts_the_time_after_which_it_is_taken_over() {
    for (seconds, problems) in [(14, 1), (15, 0), (600, 0), (601, 1)] {
        let settings = Settings { takeover_after: Span(Duration::from_secs(seconds)), ..Settings::of("sqlite:x.db") };
        assert_eq!(settings.check().len(), problems, "{seconds} s");
    }
}

/// What `replica` hears at its next look.
async fn heard(replica: &Arc<dyn Store>, mark: &mut i64) -> Moves {
    let moved = replica.moved(Some(*mark)).await.unwrap();
    *mark = moved.mark;
    moved.moves
}

fn part(moves: Moves) -> Part {
    let Moves::Of(part) = moves else { panic!("nobody says what moved: {moves:?}") };
    *part
}

#[tokio::test]
async fn replicas_hear_of_what_others_moved_and_of_nothing_else() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let mut marks = [first.moved(None).await.unwrap().mark, second.moved(None).await.unwrap().mark];
    first.record(&moved("r0", 1, &[])).await.unwrap();
    first.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    assert_eq!(heard(&first, &mut marks[0]).await, Moves::None, "its own");
    let news = part(heard(&second, &mut marks[1]).await);
    let workspace = nothing().workspace.unwrap();
    let loaded = Loaded {
        subscriptions: vec![watch("w1", "r1", "ops")],
        runs: vec![(warehouse().key(), state("r0", 1))],
        workspaces: vec![workspace],
    };
    assert_eq!(news, Part { loaded, ..Part::default() });
    assert_eq!(heard(&second, &mut marks[1]).await, Moves::None, "told once");

    second.record(&moved("r1", 1, &["ops"])).await.unwrap();
    first.subscribe(&watch("w2", "r2", "ops"), None).await.unwrap();
    second.unsubscribe("w1").await.unwrap();
    let news = part(heard(&first, &mut marks[0]).await);
    assert_eq!(news.ended, ["w1"]);
    assert_eq!(news.loaded.subscriptions, [], "its own is no news");
    assert_eq!(news.loaded.runs, [(warehouse().key(), state("r1", 1))], "and what did not move neither");

    second.record(&Poll { runs: vec![state("r9", 1)], ..nothing() }).await.unwrap();
    second.record(&Poll { forgotten: vec![run_id("r9")], ..nothing() }).await.unwrap();
    let news = part(heard(&first, &mut marks[0]).await);
    assert_eq!((news.forgotten, news.loaded.runs), (vec![(warehouse().key(), run_id("r9"))], vec![]));
}

#[tokio::test]
async fn who_did_not_look_for_long_loads_everything_and_who_looked_and_heard_nothing_does_not() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let mut mark = second.moved(None).await.unwrap().mark;
    let late = mark;
    first.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    part(heard(&second, &mut mark).await);
    let hour = "UPDATE moves SET at = at - interval '1 hour'";
    database.execute(hour).await;
    first.hold(&[]).await.unwrap();
    first.subscribe(&watch("w2", "r1", "dev"), None).await.unwrap();
    first.hold(&[]).await.unwrap();
    assert_eq!(second.moved(Some(late)).await.unwrap().moves, Moves::All, "what it missed is forgotten");
    assert_eq!(part(heard(&second, &mut mark).await).loaded.subscriptions, [watch("w2", "r1", "dev")]);
}

async fn tracker(store: &Arc<dyn Store>) -> Tracker {
    let link = Box::new(|_: &Workspace, _: &RunId| String::new());
    let spans = Spans { waiting_after: Duration::from_secs(3600), blind_after: Duration::from_secs(3600) };
    Tracker::start(Arc::clone(store), Vec::new(), link, spans, Arc::new(Metrics::new())).await.unwrap()
}

/// Who hears of which run, and how far each is.
fn knowledge(tracker: &Tracker) -> Vec<(String, BTreeSet<String>, Option<i64>)> {
    let key = warehouse().key();
    let of = |run: RunId| {
        let watchers = tracker.watchers(&key, &run).iter().map(|subscription| subscription.id.clone()).collect();
        (run.to_string(), watchers, tracker.state(&key, &run).map(|state| state.version))
    };
    (0..5).map(|number| of(run_id(&format!("r{number}")))).collect()
}

/// `SEED=` for the same.
#[tokio::test]
async fn whoever_takes_over_what_moved_knows_what_one_knows_who_starts_anew() {
    let seed = results::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let (ours, others) = (tracker(&first).await, tracker(&second).await);
    ours.tend(&[warehouse()], &HashSet::new());
    for step in 0..80 {
        let (whose, number) = (if random.bool() { "ours" } else { "theirs" }, random.u8(0..10));
        let (run, id) = (format!("r{}", number % 5), format!("{whose}-{number}"));
        let version = others.state(&warehouse().key(), &run_id(&run)).map_or(0, |state| state.version);
        let snapshot = state(&run, 1).snapshot;
        match random.u8(0..6) {
            // Its own watches come and go beside.
            0 if whose == "ours" => drop(ours.watch(watch(&id, &run, &id), snapshot).await.unwrap()),
            0 => drop(others.watch(watch(&id, &run, &id), snapshot).await.unwrap()),
            1 => drop(ours.unsubscribe(&id).await.unwrap()),
            2 => drop(others.unsubscribe(&id).await.unwrap()),
            3 => drop(second.record(&Poll { forgotten: vec![run_id(&run)], ..nothing() }).await.unwrap()),
            _ => drop(second.record(&Poll { runs: vec![state(&run, version + 1)], ..nothing() }).await.unwrap()),
        }
        others.reload().await.unwrap();
        if random.bool() {
            ours.take_over().await.unwrap();
            let anew = tracker(&second).await;
            assert_eq!(knowledge(&ours), knowledge(&anew), "SEED={seed}, after step {step}");
        }
    }
}

#[tokio::test]
async fn what_one_writes_the_others_are_told_at_once() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let told = async |replica: &Arc<dyn Store>, what: &str| {
        let told = tokio::time::timeout(Duration::from_secs(30), replica.stirred()).await;
        assert!(told.is_ok(), "nobody said it: {what}");
    };
    // Each listens, and looks for what came before.
    told(&first, "the first listens").await;
    told(&second, "the second listens").await;
    first.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    told(&second, "a subscription").await;
    assert!(first.stirred().now_or_never().is_none(), "it is told of what it wrote itself");
    second.record(&moved("r1", 1, &["ops"])).await.unwrap();
    told(&first, "a change").await;
    let command = store::open(&Settings::of(database.url()), Role::Guest).await.unwrap();
    command.revive(&room("ops"), at(20)).await.unwrap();
    told(&first, "what a command did").await;
    told(&second, "what a command did").await;

    // Whoever is cut off listens again by himself.
    while database.cut_off_one().await {}
    told(&first, "it listens again").await;
    second.unsubscribe("w1").await.unwrap();
    told(&first, "after it was cut off").await;
}

#[tokio::test]
async fn everybody_goes_by_the_clock_of_the_database() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    let clocks = [first.clock().unwrap(), second.clock().unwrap()];
    let apart = (clocks[0]().as_millisecond() - clocks[1]().as_millisecond()).abs();
    assert!(apart < 1_000, "{apart} ms apart");
    assert!((clocks[0]().as_second() - Timestamp::now().as_second()).abs() < 5, "it is the same machine here");
}

/// As when the other one of a pair became the primary.
#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_left_and_asked_anew() {
    let server = Server::start();
    let settings = Settings::of(server.url());
    let store = store::open(&settings, Role::Owner).await.unwrap();
    store.probe().await.unwrap();
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    server.execute("SELECT pg_reload_conf()");
    let until = Instant::now() + Duration::from_secs(30);
    let refused = loop {
        match store.probe().await {
            Ok(()) => assert!(Instant::now() < until, "it goes on writing"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, StoreError::Away(said) if said.contains("takes no writes")), "{refused}");
    let Err(refused) = store.probe().await else { panic!("it writes again") };
    assert!(matches!(&refused, StoreError::Away(said) if said.contains("does not allow writes")), "{refused}");
    let Err(refused) = store::open(&settings, Role::Guest).await else { panic!("a command can write") };
    assert!(matches!(refused, StoreError::Away(_)), "{refused}");

    server.execute("ALTER SYSTEM RESET default_transaction_read_only");
    server.execute("SELECT pg_reload_conf()");
    while let Err(error) = store.probe().await {
        assert!(Instant::now() < until, "it does not write again: {error}");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_callboard_is_refused_and_a_missing_one_is_named() {
    let database = Database::create().await;
    drop(replica(&database).await);
    database.execute("UPDATE schema SET version = 99").await;
    for role in [Role::Owner, Role::Guest] {
        let Err(error) = store::open(&Settings::of(database.url()), role).await else { panic!("{role:?} opened it") };
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    }
}
