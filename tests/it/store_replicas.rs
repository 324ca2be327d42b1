//! What replicas on one PostgreSQL promise each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use callboard::model::{DeliveryState, Outcome, Timestamp};
use callboard::settings::Span;
use callboard::store::{self, Next, Policy, Role, Settings, Settlement, Store, StoreError};

use crate::postgres::Database;
use crate::store_scene::{Rules, at, moved, room, watch};

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

#[tokio::test]
async fn replicas_hear_of_each_other_and_not_of_themselves() {
    let database = Database::create().await;
    let (first, second) = (replica(&database).await, replica(&database).await);
    first.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    assert_eq!(first.changed_elsewhere().await, Ok(false));
    assert_eq!(second.changed_elsewhere().await, Ok(true));
    assert_eq!(second.changed_elsewhere().await, Ok(false));
    second.record(&moved("r1", 1, &["ops"])).await.unwrap();
    assert_eq!(first.changed_elsewhere().await, Ok(true));
    assert_eq!(second.changed_elsewhere().await, Ok(false));
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
