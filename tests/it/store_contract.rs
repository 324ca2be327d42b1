//! What every store promises, whichever engine is behind it; then what only a file can get wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use callboard::model::{
    Change, ChangeKind, Delivery, DeliveryState, Destination, RunId, RunState, Scope, Selector, Snapshot, Stage,
    Status, Subscription, Timestamp, Workspace,
};
use callboard::store::{
    DeliveryFilter, NewDelivery, Next, Poll, Recorded, Role, Settings, Settlement, Store, StoreError, Subscribed,
    WorkspaceState, open,
};
use proptest::prelude::*;
use uuid::Uuid;

// ------------------------------------------------------------------------------------------------- the place and cast

/// A place for one store that is opened again and again. PostgreSQL will be another one.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("callboard.db")
    }

    fn settings(&self) -> Settings {
        Settings { url: format!("sqlite:{}", self.file().display()) }
    }

    async fn owner(&self) -> Arc<dyn Store> {
        self.open(Role::Owner).await.unwrap()
    }

    async fn guest(&self) -> Arc<dyn Store> {
        self.open(Role::Guest).await.unwrap()
    }

    async fn open(&self, role: Role) -> Result<Arc<dyn Store>, StoreError> {
        open(&self.settings(), role).await
    }

    async fn refusal(&self, role: Role) -> StoreError {
        match self.open(role).await {
            Ok(_) => panic!("a store opened that had to be refused to {role:?}"),
            Err(error) => error,
        }
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn warehouse() -> Workspace {
    Workspace { name: "warehouse".to_owned(), region: "cn-shanghai".to_owned(), project_id: 10_000 }
}

fn run_id(name: &str) -> RunId {
    name.parse().unwrap()
}

fn room(name: &str) -> Destination {
    Destination::from(name.to_owned())
}

fn state(run: &str, version: i64) -> RunState {
    let stage = Stage {
        code: "PROD".to_owned(),
        name: "Deploy".to_owned(),
        step: 1,
        kind: "Deploy".to_owned(),
        status: Status::Running,
        message: String::new(),
    };
    let snapshot = Snapshot {
        id: run_id(run),
        description: "orders_daily v12".to_owned(),
        creator: "137946317766".to_owned(),
        status: Status::Running,
        message: String::new(),
        created_at: Some(at(0)),
        modified_at: None,
        stages: vec![stage],
    };
    RunState {
        snapshot,
        version,
        sequence: version,
        since: BTreeMap::from([("PROD".to_owned(), at(1))]),
        first_seen: at(0),
        gate: None,
        doubted: false,
        missing: None,
        lost: false,
    }
}

fn change(run: &str, sequence: i64) -> Change {
    Change {
        workspace: warehouse(),
        run: state(run, 1).snapshot,
        url: "https://example.org/run".to_owned(),
        sequence,
        at: at(sequence),
        kind: ChangeKind::StageChanged {
            stage: "PROD".to_owned(),
            from: Status::Init,
            to: Status::Running,
            took_ms: Some(48_000),
        },
    }
}

fn owed(run: &str, sequence: i64, to: &str) -> NewDelivery {
    NewDelivery {
        id: Uuid::now_v7(),
        run: run_id(run),
        sequence,
        to: room(to),
        template: None,
        subscription: "a subscription".to_owned(),
        at: at(sequence),
    }
}

fn nothing() -> Poll {
    Poll {
        key: warehouse().key(),
        workspace: Some(WorkspaceState { key: warehouse().key(), baseline_at: at(0), horizon: None }),
        runs: vec![],
        changes: vec![],
        deliveries: vec![],
        ended: vec![],
        forgotten: vec![],
    }
}

/// A poll that moves `run` to `version` by one change, which it owes to each of `to`.
fn moved(run: &str, version: i64, to: &[&str]) -> Poll {
    Poll {
        runs: vec![state(run, version)],
        changes: vec![change(run, version)],
        deliveries: to.iter().map(|to| owed(run, version, to)).collect(),
        ..nothing()
    }
}

fn watch(id: &str, run: &str, to: &str) -> Subscription {
    Subscription {
        id: id.to_owned(),
        scope: Scope::Run { workspace: warehouse().key(), run: run_id(run) },
        to: room(to),
        on: Selector::watch(),
        stages: vec![],
        creators: vec![],
        template: None,
        by: "cli".to_owned(),
        created_at: at(0),
    }
}

fn settled(delivery: &Delivery, next: Next) -> Settlement {
    let outcome = match next {
        Next::Delivered => "delivered",
        Next::Pending { .. } => "retry",
        Next::Unknown { .. } => "unknown",
        Next::Dead => "dead",
    };
    Settlement {
        id: delivery.id,
        attempt: delivery.attempt,
        started_at: at(100),
        ended_at: at(101),
        outcome,
        reason: if outcome == "delivered" { String::new() } else { format!("the platform said {outcome}") },
        message_id: None,
        next,
    }
}

fn told(claimed: &[Delivery]) -> Vec<(String, String, i64)> {
    claimed.iter().map(|d| (d.to.to_string(), d.change.run.id.to_string(), d.change.sequence)).collect()
}

fn line(to: &str, run: &str, sequence: i64) -> (String, String, i64) {
    (to.to_owned(), run.to_owned(), sequence)
}

async fn record(store: &Arc<dyn Store>, poll: &Poll) {
    assert_eq!(store.record(poll).await.unwrap(), Recorded::Done, "the poll was refused");
}

async fn rows(store: &Arc<dyn Store>, filter: DeliveryFilter) -> Vec<callboard::store::DeliveryRow> {
    store
        .deliveries(&DeliveryFilter { limit: if filter.limit == 0 { 10_000 } else { filter.limit }, ..filter })
        .await
        .unwrap()
}

async fn states(store: &Arc<dyn Store>) -> Vec<(i64, DeliveryState)> {
    let rows = rows(store, DeliveryFilter::default()).await;
    rows.iter().rev().map(|row| (row.delivery.change.sequence, row.state)).collect()
}

// -------------------------------------------------------------------------------------------- runs and subscriptions

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart() {
    let place = Place::new();
    let store = place.owner().await;
    assert_eq!(store.load().await.unwrap(), callboard::store::Loaded::default());
    let standing = Subscription {
        id: "config:1".to_owned(),
        scope: Scope::Workspace { workspace: warehouse().key() },
        on: BTreeSet::from(Selector::ALL),
        template: Some("release".to_owned()),
        created_at: at(1),
        ..watch("", "r1", "ops")
    };
    store.subscribe(&watch("w1", "r1", "discord:1"), None).await.unwrap();
    store.subscribe(&standing, None).await.unwrap();
    let horizon = WorkspaceState { horizon: Some(at(-9)), ..nothing().workspace.unwrap() };
    record(&store, &Poll { workspace: Some(horizon.clone()), ..moved("r1", 1, &["ops"]) }).await;
    let before = store.load().await.unwrap();
    drop(store);

    let after = place.owner().await.load().await.unwrap();
    assert_eq!(after, before);
    assert_eq!(after.subscriptions, [watch("w1", "r1", "discord:1"), standing]);
    assert_eq!(after.runs, [(warehouse().key(), state("r1", 1))]);
    assert_eq!(after.workspaces, [horizon]);
}

#[tokio::test]
async fn a_poll_computed_from_an_old_state_writes_nothing() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &[])).await;
    record(&store, &moved("r1", 2, &[])).await;
    let before = store.load().await.unwrap();
    for stale in [1, 2, 4] {
        let mut poll = moved("r1", stale, &["ops"]);
        // A good run ahead of the stale one must not slip through.
        poll.runs.insert(0, state("r0", 1));
        poll.changes.push(change("r0", 1));
        poll.deliveries.push(owed("r0", 1, "ops"));
        assert_eq!(store.record(&poll).await.unwrap(), Recorded::Stale, "version {stale} after version 2");
    }
    assert_eq!(store.record(&moved("new", 2, &[])).await.unwrap(), Recorded::Stale, "a new run begins with version 1");
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(states(&store).await, []);
    assert_eq!(store.overview().await.unwrap().changes, 2);
}

#[tokio::test]
async fn the_same_subscription_twice_is_one() {
    let place = Place::new();
    let store = place.owner().await;
    let state = state("r1", 1);
    let new = store.subscribe(&watch("w1", "r1", "ops"), Some(&state)).await.unwrap();
    assert_eq!(new, Subscribed::New { run: Some(Box::new(state.clone())) });
    let again = store.subscribe(&watch("w2", "r1", "ops"), Some(&state)).await.unwrap();
    assert_eq!(again, Subscribed::Already { id: "w1".to_owned() });
    assert_eq!(store.load().await.unwrap().runs[0].1.version, 1, "what changed nothing must not refuse a poll");

    let other_template = Subscription { template: Some("release".to_owned()), ..watch("w3", "r1", "ops") };
    assert_eq!(store.subscribe(&other_template, None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.subscribe(&watch("w4", "r2", "ops"), None).await.unwrap(), Subscribed::New { run: None });
    assert_eq!(store.subscribe(&watch("w5", "r1", "discord:1"), None).await.unwrap(), Subscribed::New { run: None });

    assert!(store.unsubscribe("w1").await.unwrap());
    assert!(!store.unsubscribe("w1").await.unwrap());
    assert_eq!(store.subscribe(&watch("w2", "r1", "ops"), None).await.unwrap(), Subscribed::New { run: None });
}

#[tokio::test]
async fn a_poll_that_did_not_know_of_a_new_subscription_is_refused() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &[])).await;
    store.subscribe(&watch("w1", "r1", "ops"), Some(&state("r1", 1))).await.unwrap();
    assert_eq!(store.record(&moved("r1", 2, &[])).await.unwrap(), Recorded::Stale);
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.runs[0].1, RunState { version: 2, ..state("r1", 1) }, "only the version moved");
    record(&store, &moved("r1", 3, &["ops"])).await;
    assert_eq!(told(&store.claim(at(99), 9, &[]).await.unwrap()), [line("ops", "r1", 3)]);
}

#[tokio::test]
async fn the_last_change_of_a_run_ends_its_watches_and_keeps_its_deliveries() {
    let place = Place::new();
    let store = place.owner().await;
    store.subscribe(&watch("w1", "r1", "ops"), Some(&state("r1", 1))).await.unwrap();
    store.subscribe(&watch("w2", "r2", "ops"), None).await.unwrap();
    let last = Poll { ended: vec!["w1".to_owned()], ..moved("r1", 2, &["ops"]) };
    record(&store, &last).await;
    assert_eq!(store.load().await.unwrap().subscriptions, [watch("w2", "r2", "ops")]);
    record(&store, &Poll { forgotten: vec![run_id("r1")], ..nothing() }).await;
    let known = store.load().await.unwrap().runs.len();
    assert_eq!(known, 1, "its sequence must not begin anew while its changes are kept");
    assert_eq!(told(&store.claim(at(99), 9, &[]).await.unwrap()), [line("ops", "r1", 2)]);
}

// --------------------------------------------------------------------------------------------------------- deliveries

#[tokio::test]
async fn a_change_is_owed_once_to_each_destination_and_template() {
    let place = Place::new();
    let store = place.owner().await;
    let mut poll = moved("r1", 1, &["ops", "ops", "discord:1"]);
    poll.deliveries.push(NewDelivery { template: Some("release".to_owned()), ..owed("r1", 1, "ops") });
    record(&store, &poll).await;
    record(&store, &Poll { deliveries: vec![owed("r1", 1, "ops")], ..nothing() }).await;
    assert_eq!(rows(&store, DeliveryFilter::default()).await.len(), 3);
}

#[tokio::test]
async fn one_destination_hears_of_one_run_in_order_and_one_at_a_time() {
    let place = Place::new();
    let store = place.owner().await;
    for version in 1..=3 {
        record(&store, &moved("r1", version, &["ops"])).await;
    }
    record(&store, &moved("r2", 1, &["ops", "discord:1"])).await;

    let first = store.claim(at(99), 9, &[]).await.unwrap();
    let mut heads = told(&first);
    heads.sort();
    assert_eq!(heads, [line("discord:1", "r2", 1), line("ops", "r1", 1)], "one at a time for each destination");
    assert_eq!(told(&store.claim(at(99), 9, &[]).await.unwrap()), [line("ops", "r2", 1)]);
    assert_eq!(store.claim(at(99), 9, &[]).await.unwrap(), [], "the first of r1 is still under way");
    assert_eq!(store.next_due(&[]).await.unwrap(), None);

    let r1 = first.iter().find(|d| d.change.run.id == run_id("r1")).unwrap();
    store.settle(&settled(r1, Next::Pending { at: at(500) })).await.unwrap();
    assert_eq!(store.claim(at(499), 9, &[]).await.unwrap(), [], "what follows must not overtake a retry");
    assert_eq!(store.next_due(&[]).await.unwrap(), Some(at(500)));

    let again = store.claim(at(500), 9, &[]).await.unwrap();
    assert_eq!(told(&again), [line("ops", "r1", 1)]);
    assert_eq!((again[0].id, again[0].attempt), (r1.id, 2));
    store.settle(&settled(&again[0], Next::Delivered)).await.unwrap();
    assert_eq!(told(&store.claim(at(500), 9, &[]).await.unwrap()), [line("ops", "r1", 2)]);
}

#[tokio::test]
async fn claims_take_what_waited_longest_up_to_the_limit_and_spare_the_excepted() {
    let place = Place::new();
    let store = place.owner().await;
    for (n, to) in ["a", "b", "c", "a", "b", "c"].iter().enumerate() {
        let run = format!("r{n}");
        let at = at(i64::try_from(n).unwrap());
        let delivery = NewDelivery { at, ..owed(&run, 1, to) };
        record(&store, &Poll { deliveries: vec![delivery], ..moved(&run, 1, &[]) }).await;
    }
    assert_eq!(store.claim(at(-1), 9, &[]).await.unwrap(), [], "nothing is due yet");
    assert_eq!(store.next_due(&[]).await.unwrap(), Some(at(0)));
    assert_eq!(store.claim(at(99), 0, &[]).await.unwrap(), []);
    let two = store.claim(at(99), 2, &[room("b")]).await.unwrap();
    assert_eq!(told(&two), [line("a", "r0", 1), line("c", "r2", 1)]);
    let due = store.claim(at(4), 9, &[]).await.unwrap();
    assert_eq!(told(&due), [line("b", "r1", 1), line("a", "r3", 1)]);
    assert_eq!(store.next_due(&[room("b")]).await.unwrap(), Some(at(5)), "what is spared is nobody's alarm");
    assert_eq!(told(&store.claim(at(99), 9, &[room("c"), room("nowhere")]).await.unwrap()), [line("b", "r4", 1)]);
}

#[tokio::test]
async fn a_dead_message_holds_nothing_up_and_can_be_brought_back() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["ops"])).await;
    record(&store, &moved("r1", 2, &["ops"])).await;
    let first = store.claim(at(99), 9, &[]).await.unwrap().remove(0);
    assert!(!store.retry(first.id, at(99)).await.unwrap(), "only a dead one can be retried");
    store.settle(&settled(&first, Next::Dead)).await.unwrap();
    assert_eq!(states(&store).await, [(1, DeliveryState::Dead), (2, DeliveryState::Pending)]);

    assert!(store.retry(first.id, at(200)).await.unwrap());
    assert_eq!(store.claim(at(199), 9, &[]).await.unwrap(), [], "the one brought back goes first again");
    let back = store.claim(at(200), 9, &[]).await.unwrap();
    assert_eq!((told(&back), back[0].attempt), (vec![line("ops", "r1", 1)], 2));
    store.settle(&settled(&back[0], Next::Dead)).await.unwrap();

    assert!(store.discard(first.id, at(300)).await.unwrap());
    assert!(!store.discard(first.id, at(300)).await.unwrap(), "it had ended already");
    assert!(!store.retry(first.id, at(300)).await.unwrap());
    let second = store.claim(at(300), 9, &[]).await.unwrap();
    assert_eq!(told(&second), [line("ops", "r1", 2)]);
    store.settle(&settled(&second[0], Next::Delivered)).await.unwrap();
    assert!(!store.discard(second[0].id, at(300)).await.unwrap(), "what was delivered stays delivered");
    assert!(!store.discard(Uuid::now_v7(), at(300)).await.unwrap());
}

#[tokio::test]
async fn discarding_what_waits_lets_the_next_one_go() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["ops"])).await;
    record(&store, &moved("r1", 2, &["ops"])).await;
    let first = rows(&store, DeliveryFilter::default()).await.pop().unwrap().delivery.id;
    assert!(store.discard(first, at(50)).await.unwrap());
    assert_eq!(told(&store.claim(at(99), 9, &[]).await.unwrap()), [line("ops", "r1", 2)]);
}

#[tokio::test]
async fn a_late_answer_changes_nothing() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["ops"])).await;
    let first = store.claim(at(10), 1, &[]).await.unwrap().remove(0);
    store.settle(&settled(&first, Next::Pending { at: at(20) })).await.unwrap();
    store.settle(&settled(&first, Next::Delivered)).await.unwrap();
    assert_eq!(states(&store).await, [(1, DeliveryState::Pending)], "that attempt had ended");
    let second = store.claim(at(20), 1, &[]).await.unwrap().remove(0);
    store.settle(&settled(&first, Next::Dead)).await.unwrap();
    assert_eq!(states(&store).await, [(1, DeliveryState::InFlight)], "that was an older attempt");
    store.settle(&settled(&second, Next::Delivered)).await.unwrap();
    store.settle(&Settlement { id: Uuid::now_v7(), ..settled(&second, Next::Dead) }).await.unwrap();
    assert_eq!(states(&store).await, [(1, DeliveryState::Delivered)]);
}

#[tokio::test]
async fn a_delivery_tells_its_whole_story() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["discord:1"])).await;
    for next in [Next::Unknown { at: at(20) }, Next::Pending { at: at(30) }, Next::Delivered] {
        let claimed = store.claim(at(50), 1, &[]).await.unwrap().remove(0);
        store.settle(&settled(&claimed, next)).await.unwrap();
    }
    let id = rows(&store, DeliveryFilter::default()).await[0].delivery.id.to_string();
    let (row, attempts) = store.delivery(&id[..20].to_uppercase()).await.unwrap().expect("found by its beginning");
    assert_eq!(
        (row.state, row.next_at, row.settled_at, row.reason),
        (DeliveryState::Delivered, None, Some(at(101)), None)
    );
    assert_eq!((row.delivery.to, row.delivery.attempt), (room("discord:1"), 3));
    assert_eq!(row.delivery.change, change("r1", 1));
    let story: Vec<_> = attempts.iter().map(|a| (a.attempt, a.outcome.as_deref().unwrap())).collect();
    assert_eq!(story, [(1, "unknown"), (2, "retry"), (3, "delivered")]);
    assert_eq!((attempts[0].started_at, attempts[0].ended_at), (at(100), Some(at(101))));
    assert_eq!(attempts[0].reason.as_deref(), Some("the platform said unknown"));

    assert_eq!(store.delivery("").await.unwrap(), None);
    assert_eq!(store.delivery("%").await.unwrap(), None);
    assert_eq!(store.delivery(&Uuid::new_v4().to_string()).await.unwrap(), None);
    record(&store, &moved("r1", 2, &["discord:1"])).await;
    assert_eq!(store.delivery("0").await.unwrap(), None, "two begin like that");
}

#[tokio::test]
async fn lists_and_figures() {
    let place = Place::new();
    let store = place.owner().await;
    store.subscribe(&watch("w1", "r1", "a"), Some(&state("r1", 1))).await.unwrap();
    record(&store, &moved("r1", 2, &["a", "b"])).await;
    record(&store, &moved("r2", 1, &["a"])).await;
    let first = store.claim(at(99), 1, &[]).await.unwrap().remove(0);
    store.settle(&settled(&first, Next::Delivered)).await.unwrap();

    let newest = rows(&store, DeliveryFilter { limit: 1, ..DeliveryFilter::default() }).await;
    assert_eq!(newest[0].delivery.change.run.id, run_id("r2"));
    let to_a = rows(&store, DeliveryFilter { to: Some(room("a")), ..DeliveryFilter::default() }).await;
    assert_eq!(to_a.len(), 2);
    let of_r1 = DeliveryFilter { run: Some(run_id("r1")), ..DeliveryFilter::default() };
    assert_eq!(rows(&store, of_r1.clone()).await.len(), 2);
    let waiting = DeliveryFilter { state: Some(DeliveryState::Pending), to: Some(room("b")), ..of_r1 };
    assert_eq!(rows(&store, waiting).await.len(), 1);

    let overview = store.overview().await.unwrap();
    let counts: HashMap<_, _> = overview.deliveries.into_iter().collect();
    assert_eq!(counts, HashMap::from([(DeliveryState::Pending, 2), (DeliveryState::Delivered, 1)]));
    assert_eq!((overview.changes, overview.subscriptions), (2, 1));
    assert_eq!(overview.oldest_open, Some(at(2)));
    assert_eq!(overview.recovered, []);
}

#[tokio::test]
async fn what_ended_long_ago_is_pruned_and_nothing_else() {
    let place = Place::new();
    let store = place.owner().await;
    for to in ["a", "b", "c"] {
        record(&store, &moved(&format!("of-{to}"), 1, &[to])).await;
    }
    record(&store, &moved("silent", 1, &[])).await;
    let claimed = store.claim(at(50), 2, &[]).await.unwrap();
    let old = Settlement { ended_at: at(60), ..settled(&claimed[0], Next::Delivered) };
    let recent = Settlement { ended_at: at(90), ..settled(&claimed[1], Next::Dead) };
    store.settle(&old).await.unwrap();
    store.settle(&recent).await.unwrap();

    assert_eq!(store.prune(at(70)).await.unwrap(), 1);
    let left: BTreeSet<_> =
        rows(&store, DeliveryFilter::default()).await.into_iter().map(|row| row.state.as_str()).collect();
    assert_eq!(left, BTreeSet::from(["dead", "pending"]));
    assert_eq!(store.overview().await.unwrap().changes, 2, "a change goes with its last delivery");
    assert_eq!(store.delivery(&claimed[0].id.to_string()).await.unwrap(), None);
    assert_eq!(store.prune(at(70)).await.unwrap(), 0);
    assert_eq!(told(&store.claim(at(99), 9, &[]).await.unwrap()).len(), 1, "what is owed stays owed");
}

// --------------------------------------------------------------------------------------------- processes and restarts

#[tokio::test]
async fn what_a_dead_process_was_sending_is_unknown_and_sent_again() {
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["discord:1", "ops"])).await;
    record(&store, &moved("r1", 2, &["ops"])).await;
    let taken = store.claim(at(10), 9, &[]).await.unwrap();
    assert_eq!(taken.len(), 2);
    drop(store);

    let store = place.owner().await;
    let recovered = store.overview().await.unwrap().recovered;
    assert_eq!(recovered, [(room("discord:1"), 1), (room("ops"), 1)]);
    let (row, attempts) = store.delivery(&taken[0].id.to_string()).await.unwrap().unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (DeliveryState::Unknown, Some("the process ended while sending")));
    assert_eq!((attempts.len(), attempts[0].outcome.as_deref()), (1, Some("unknown")));
    assert_eq!((attempts[0].started_at, attempts[0].ended_at), (at(10), None), "nobody saw it end");

    store.settle(&settled(&taken[0], Next::Delivered)).await.unwrap();
    let again = store.claim(at(10), 9, &[]).await.unwrap();
    assert_eq!(again.iter().map(|d| (d.attempt, d.change.sequence)).collect::<Vec<_>>(), [(2, 1), (2, 1)]);
    for delivery in &again {
        store.settle(&settled(delivery, Next::Delivered)).await.unwrap();
    }
    drop(store);
    assert_eq!(place.owner().await.overview().await.unwrap().recovered, [], "they are counted once");
}

#[tokio::test]
async fn only_one_process_owns_the_store() {
    let place = Place::new();
    let first = place.owner().await;
    assert!(matches!(place.refusal(Role::Owner).await, StoreError::InUse(_)));
    drop(first);
    place.owner().await;
}

#[tokio::test]
async fn a_guest_writes_beside_the_owner_who_hears_of_it() {
    let place = Place::new();
    let owner = place.owner().await;
    record(&owner, &moved("r1", 1, &["ops"])).await;
    owner.claim(at(10), 1, &[]).await.unwrap();
    assert!(!owner.changed_elsewhere().await.unwrap(), "the owner's own writes are no news");

    let guest = place.guest().await;
    assert_eq!(states(&guest).await, [(1, DeliveryState::InFlight)], "a guest leaves what is under way alone");
    assert!(!owner.changed_elsewhere().await.unwrap(), "nobody wrote yet");
    guest.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    assert!(owner.changed_elsewhere().await.unwrap());
    assert!(!owner.changed_elsewhere().await.unwrap(), "told once");
    assert_eq!(owner.load().await.unwrap().subscriptions, [watch("w1", "r1", "ops")]);
    assert!(guest.unsubscribe("w1").await.unwrap());
    drop(guest);
    assert!(owner.changed_elsewhere().await.unwrap());
}

#[tokio::test]
async fn a_guest_alone_creates_the_store_and_the_owner_takes_it_over() {
    let place = Place::new();
    let guest = place.guest().await;
    guest.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    let owner = place.owner().await;
    assert_eq!(owner.load().await.unwrap().subscriptions.len(), 1);
    assert!(matches!(place.refusal(Role::Owner).await, StoreError::InUse(_)));
}

#[tokio::test]
async fn many_tasks_write_at_once_and_each_hears_its_own_answer() {
    let place = Place::new();
    let store = place.owner().await;
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let run = format!("r{n}");
                for version in 1..=20 {
                    record(&store, &moved(&run, version, &["ops"])).await;
                    let stale = store.record(&moved(&run, version, &["ops"])).await.unwrap();
                    assert_eq!(stale, Recorded::Stale, "a neighbour's success is not mine");
                    let unknown_change = Poll { deliveries: vec![owed(&run, 9_999, "ops")], ..nothing() };
                    let failed = store.record(&unknown_change).await;
                    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counts = store.overview().await.unwrap();
    assert_eq!((counts.changes, counts.deliveries), (640, vec![(DeliveryState::Pending, 640)]));
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_the_store_works() {
    let place = Place::new();
    let ticking = tokio::spawn(async {
        let mut ticker = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            ticker.tick().await;
        }
    });
    let before = tokio::time::Instant::now();
    let store = place.owner().await;
    for version in 1..=50 {
        record(&store, &moved("r1", version, &["ops"])).await;
        store.next_due(&[]).await.unwrap();
    }
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    ticking.abort();
}

// ------------------------------------------------------------------------------------------- what a file can get wrong

#[tokio::test]
async fn only_a_file_is_a_store_so_far() {
    for (url, word) in [
        ("postgres://u:hunter2@db/x", "not built in yet"),
        ("mysql://u:hunter2@db/x", "sqlite:PATH"),
        ("callboard.db", "sqlite:PATH"),
        ("sqlite:", "PATH is a file"),
        ("sqlite::memory:", "PATH is a file"),
    ] {
        let settings = Settings { url: url.to_owned() };
        let Err(error) = open(&settings, Role::Owner).await else { panic!("{url} opened") };
        let said = error.to_string();
        assert!(
            matches!(error, StoreError::Open(_)) && said.contains(word) && !said.contains("hunter2"),
            "{url}: {said}"
        );
        assert_eq!(settings.check().len(), 1, "{url}");
    }
    assert_eq!(Place::new().settings().check(), []);
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let place = Place::new();
    let settings = Settings { url: format!("sqlite:{}/no/such.db", place.folder.path().display()) };
    for role in [Role::Owner, Role::Guest] {
        let Err(error) = open(&settings, role).await else { panic!("opened in a folder that is not there") };
        assert!(error.to_string().contains("/no does not exist"), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_user_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.owner().await;
    record(&store, &moved("r1", 1, &["ops"])).await;
    for file in std::fs::read_dir(place.folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

/// A store with something in it, closed.
async fn filled() -> Place {
    let place = Place::new();
    let store = place.owner().await;
    for n in 0..50 {
        record(&store, &moved(&format!("r{n}"), 1, &["ops"])).await;
    }
    drop(store);
    assert!(!place.folder.path().join("callboard.db-wal").exists(), "closing folds the log into the file");
    place
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = filled().await;
    rusqlite::Connection::open(place.file()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for role in [Role::Owner, Role::Guest] {
        let error = place.refusal(role).await;
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let place = Place::new();
    rusqlite::Connection::open(place.file()).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let error = place.refusal(Role::Owner).await;
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("no database at all", |bytes| *bytes = b"these are my notes".repeat(500)),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut off in the first page", |bytes| bytes.truncate(700)),
        ("cut to nothing", Vec::clear),
        ("a page overwritten", |bytes| bytes[4_096 * 5..4_096 * 6].fill(0x5a)),
    ];
    for (what, harm) in harms {
        let place = filled().await;
        let mut bytes = std::fs::read(place.file()).unwrap();
        harm(&mut bytes);
        std::fs::write(place.file(), &bytes).unwrap();
        let error = place.refusal(Role::Owner).await;
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert!(std::fs::read(place.file()).unwrap() == bytes, "{what}: the file was touched");
    }
}

#[tokio::test]
async fn a_store_that_was_moved_away_begins_anew() {
    let place = filled().await;
    std::fs::remove_file(place.file()).unwrap();
    assert_eq!(place.owner().await.load().await.unwrap().runs, []);
}

/// What a killed process leaves: the file and its log as they are on disk, no orderly close.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (place, left_behind) = (Place::new(), Place::new());
    let store = place.owner().await;
    for version in 1..=5 {
        record(&store, &moved("r1", version, &["ops"])).await;
    }
    assert_eq!(store.claim(at(99), 9, &[]).await.unwrap().len(), 1);
    for ending in ["", "-wal", ".lock"] {
        let name = format!("callboard.db{ending}");
        std::fs::copy(place.folder.path().join(&name), left_behind.folder.path().join(&name)).unwrap();
    }
    let survivor = left_behind.owner().await;
    let mut expected = vec![(1, DeliveryState::Unknown)];
    expected.extend((2..=5).map(|sequence| (sequence, DeliveryState::Pending)));
    assert_eq!(states(&survivor).await, expected);
    assert_eq!(survivor.load().await.unwrap(), store.load().await.unwrap());
}

#[tokio::test]
async fn a_process_that_died_while_creating_the_file_does_no_harm() {
    let place = Place::new();
    std::fs::write(place.file(), b"").unwrap();
    std::fs::write(place.folder.path().join("callboard.db.lock"), b"").unwrap();
    place.owner().await;
}

// ---------------------------------------------------------------------------------------------------- any order of it

#[derive(Debug, Clone)]
enum Step {
    Record { run: usize, to: Vec<usize> },
    RecordAgain { run: usize },
    Claim { limit: usize, except: Option<usize> },
    Settle { which: usize, how: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, prop::collection::vec(0..3_usize, 0..3)).prop_map(|(run, to)| Step::Record { run, to }),
        1 => (0..3_usize).prop_map(|run| Step::RecordAgain { run }),
        4 => (1..5_usize, prop::option::of(0..3_usize)).prop_map(|(limit, except)| Step::Claim { limit, except }),
        5 => (0..8_usize, 0..4_usize).prop_map(|(which, how)| Step::Settle { which, how }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// What must be so, kept beside the store in the simplest way.
#[derive(Default)]
struct Model {
    now: i64,
    versions: [i64; 3],
    /// By (destination, run): the sequences owed, and how far they got.
    owed: BTreeMap<(usize, usize), BTreeMap<i64, DeliveryState>>,
    in_flight: Vec<Delivery>,
}

const ROOMS: [&str; 3] = ["ops", "discord:1", "slack:C1"];
const RUNS: [&str; 3] = ["r0", "r1", "r2"];

impl Model {
    fn place_of(delivery: &Delivery) -> (usize, usize) {
        let to = ROOMS.iter().position(|name| room(name) == delivery.to).unwrap();
        (to, RUNS.iter().position(|name| run_id(name) == delivery.change.run.id).unwrap())
    }

    async fn step(&mut self, place: &Place, store: &mut Option<Arc<dyn Store>>, step: &Step) {
        self.now += 10;
        let open = Arc::clone(store.as_ref().unwrap());
        match step {
            Step::Record { run, to } => {
                self.versions[*run] += 1;
                let names: Vec<&str> = to.iter().map(|to| ROOMS[*to]).collect();
                record(&open, &moved(RUNS[*run], self.versions[*run], &names)).await;
                for to in to {
                    self.owed.entry((*to, *run)).or_default().insert(self.versions[*run], DeliveryState::Pending);
                }
            }
            Step::RecordAgain { run } => {
                let again = moved(RUNS[*run], self.versions[*run].max(1), &ROOMS);
                let expected = if self.versions[*run] == 0 { return } else { Recorded::Stale };
                assert_eq!(open.record(&again).await.unwrap(), expected);
            }
            Step::Claim { limit, except } => {
                let spared: Vec<Destination> = except.iter().map(|to| room(ROOMS[*to])).collect();
                let claimed = open.claim(at(self.now), *limit, &spared).await.unwrap();
                assert!(claimed.len() <= *limit, "more than asked for");
                for delivery in claimed {
                    let (to, run) = Model::place_of(&delivery);
                    assert_ne!(Some(to), *except, "an excepted destination was claimed");
                    let queue = self.owed.get_mut(&(to, run)).unwrap();
                    let head = queue.iter().find(|(_, state)| is_open(**state)).unwrap();
                    assert_eq!(*head.0, delivery.change.sequence, "claimed out of order");
                    assert_ne!(*head.1, DeliveryState::InFlight, "claimed twice");
                    queue.insert(delivery.change.sequence, DeliveryState::InFlight);
                    self.in_flight.push(delivery);
                }
            }
            Step::Settle { which, how } => {
                if self.in_flight.is_empty() {
                    return;
                }
                let delivery = self.in_flight.remove(which % self.in_flight.len());
                let soon = at(self.now + 15);
                let (next, state) = match how {
                    0 => (Next::Delivered, DeliveryState::Delivered),
                    1 => (Next::Pending { at: soon }, DeliveryState::Pending),
                    2 => (Next::Unknown { at: soon }, DeliveryState::Unknown),
                    _ => (Next::Dead, DeliveryState::Dead),
                };
                open.settle(&settled(&delivery, next)).await.unwrap();
                let queue = self.owed.get_mut(&Model::place_of(&delivery)).unwrap();
                queue.insert(delivery.change.sequence, state);
            }
            Step::Restart => {
                drop(open);
                *store = None;
                *store = Some(place.owner().await);
                for delivery in self.in_flight.drain(..) {
                    let queue = self.owed.get_mut(&Model::place_of(&delivery)).unwrap();
                    queue.insert(delivery.change.sequence, DeliveryState::Unknown);
                }
            }
        }
    }

    /// Each (destination, change) has exactly one row, in the state it must be in, and there is no other row.
    async fn compare(&self, store: &Arc<dyn Store>) {
        let mut found: BTreeMap<(usize, usize), BTreeMap<i64, DeliveryState>> = BTreeMap::new();
        for row in rows(store, DeliveryFilter::default()).await {
            let queue = found.entry(Model::place_of(&row.delivery)).or_default();
            let twice = queue.insert(row.delivery.change.sequence, row.state);
            assert_eq!(twice, None, "a second row for the same change and destination");
        }
        assert_eq!(found, self.owed);
    }

    /// Once nothing fails any more, everything arrives.
    async fn drain(&mut self, store: &Arc<dyn Store>) {
        for delivery in self.in_flight.drain(..) {
            store.settle(&settled(&delivery, Next::Delivered)).await.unwrap();
        }
        while let Some(due) = store.next_due(&[]).await.unwrap() {
            let claimed = store.claim(due, 9, &[]).await.unwrap();
            assert!(!claimed.is_empty(), "something was due and could not be claimed");
            for delivery in claimed {
                store.settle(&settled(&delivery, Next::Delivered)).await.unwrap();
            }
        }
        let open = rows(store, DeliveryFilter::default()).await.into_iter().filter(|row| is_open(row.state)).count();
        assert_eq!(open, 0, "nothing may stay behind");
    }
}

fn is_open(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let mut store = Some(place.owner().await);
            let mut model = Model::default();
            for step in &steps {
                model.step(&place, &mut store, step).await;
                model.compare(store.as_ref().unwrap()).await;
            }
            model.drain(store.as_ref().unwrap()).await;
        });
    }
}
