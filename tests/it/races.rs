//! `/watch` beside a poll, interleaved by hand at the store: whatever the order, no change is lost and the tracker goes
//! on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callboard::metrics::Metrics;
use callboard::model::{
    Change, Clock, Destination, RunId, RunState, Scope, Selector, Snapshot, Stage, Status, Subscription, Timestamp,
    Workspace, WorkspaceKey,
};
use callboard::store::{
    self, Announcement, Attempt, Claims, DeliveryFilter, DeliveryRow, Loaded, Moved, Overview, PlaceRow, Policy, Poll,
    Recorded, Role, Room, Settings, Settlement, Store, StoreError, Subscribed, Told,
};
use callboard::tracker::{Page, Sight, Spans, Tracker, Watched};
use tokio::sync::oneshot;

/// A verb of the store, held after it was committed and before its caller hears of it.
#[derive(Default)]
struct Hold(Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>);

/// The other end of a [`Hold`].
struct Held {
    committed: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Hold {
    /// The next call is held.
    fn next(&self) -> Held {
        let (commit, committed) = oneshot::channel();
        let (release, released) = oneshot::channel();
        *self.0.lock().unwrap() = Some((commit, released));
        Held { committed, release }
    }

    async fn pass(&self) {
        let held = self.0.lock().unwrap().take();
        if let Some((committed, released)) = held {
            let _ = committed.send(());
            let _ = released.await;
        }
    }
}

struct Holding {
    inner: Arc<dyn Store>,
    subscribed: Hold,
    amended: Hold,
    recorded: Hold,
}

#[async_trait]
impl Store for Holding {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load().await
    }
    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError> {
        let result = self.inner.subscribe(subscription, state).await;
        self.subscribed.pass().await;
        result
    }
    async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError> {
        self.inner.unsubscribe(id).await
    }
    async fn amend(&self, subscriptions: &[Subscription]) -> Result<Vec<String>, StoreError> {
        let result = self.inner.amend(subscriptions).await;
        self.amended.pass().await;
        result
    }
    async fn record(&self, poll: &Poll) -> Result<Recorded, StoreError> {
        let result = self.inner.record(poll).await;
        self.recorded.pass().await;
        result
    }
    async fn claim(&self, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Result<Claims, StoreError> {
        self.inner.claim(now, room, policy).await
    }
    async fn release(&self, under_way: &[(uuid::Uuid, u32)]) -> Result<(), StoreError> {
        self.inner.release(under_way).await
    }
    async fn settle(&self, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<(), StoreError> {
        self.inner.settle(settlement, policy).await
    }
    async fn announce(&self, announcement: &Announcement) -> Result<bool, StoreError> {
        self.inner.announce(announcement).await
    }
    async fn saw(&self, seen: &[(WorkspaceKey, Timestamp)]) -> Result<(), StoreError> {
        self.inner.saw(seen).await
    }
    async fn once(&self, key: &str, now: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        self.inner.once(key, now, until).await
    }
    async fn audit(&self, entries: &[callboard::model::Entry]) -> Result<(), StoreError> {
        self.inner.audit(entries).await
    }
    async fn audited(&self, filter: &store::AuditFilter) -> Result<store::Audited, StoreError> {
        self.inner.audited(filter).await
    }
    async fn places(&self) -> Result<Vec<PlaceRow>, StoreError> {
        self.inner.places().await
    }
    async fn revive(&self, to: &Destination, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.revive(to, now).await
    }
    async fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Result<Vec<Told>, StoreError> {
        self.inner.history(workspace, run, limit).await
    }
    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        self.inner.deliveries(filter).await
    }
    async fn delivery(&self, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>, StoreError> {
        self.inner.delivery(id).await
    }
    async fn retry(&self, id: uuid::Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.retry(id, now).await
    }
    async fn discard(&self, id: uuid::Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.discard(id, now).await
    }
    async fn overview(&self) -> Result<Overview, StoreError> {
        self.inner.overview().await
    }
    async fn moved(&self, since: Option<i64>) -> Result<Moved, StoreError> {
        self.inner.moved(since).await
    }
    async fn stirred(&self) {
        self.inner.stirred().await;
    }
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.inner.prune(before).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.inner.probe().await
    }

    async fn verify(&self) -> Result<(), StoreError> {
        self.inner.verify().await
    }

    async fn hold(&self, names: &[String]) -> Result<store::Held, StoreError> {
        self.inner.hold(names).await
    }

    async fn retire(&self) -> Result<(), StoreError> {
        self.inner.retire().await
    }

    async fn share(&self, name: &str, change: store::Sharing) -> Result<(), StoreError> {
        self.inner.share(name, change).await
    }

    fn clock(&self) -> Option<Clock> {
        self.inner.clock()
    }
}

/// A tracker of one run, which is known unless said otherwise.
struct Scene {
    store: Arc<Holding>,
    tracker: Arc<Tracker>,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn empty() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::of(format!("sqlite:{}/callboard.db", folder.path().display()));
        let inner = store::open(&settings, Role::Owner).await.unwrap();
        let (subscribed, amended, recorded) = (Hold::default(), Hold::default(), Hold::default());
        let store = Arc::new(Holding { inner, subscribed, amended, recorded });
        let link = Box::new(|_: &Workspace, _: &RunId| String::new());
        let (held, metrics) = (Arc::clone(&store) as Arc<dyn Store>, Arc::new(Metrics::new()));
        let spans = Spans { waiting_after: Duration::from_secs(3600), blind_after: Duration::from_secs(3600) };
        let tracker = Tracker::start(held, Vec::new(), link, spans, metrics).await.unwrap();
        Scene { store, tracker: Arc::new(tracker), _folder: folder }
    }

    async fn seen(status: &str, stage: &str) -> Scene {
        let scene = Scene::empty().await;
        scene.see(0, status, stage).await;
        scene
    }

    /// A poll shows the run like this.
    async fn see(&self, seconds: i64, status: &str, stage: &str) {
        let page = Some(Page { ids: vec![id()], full: false });
        let sight = Sight { page, runs: vec![run(status, stage)], missing: Vec::new() };
        let seen = self.tracker.observe(&workspace(), sight, at(seconds)).await;
        seen.unwrap_or_else(|error| panic!("a poll that shows {status}, PROD {stage} can't be recorded: {error}"));
    }

    fn watch(&self, room: &str, snapshot: Snapshot) -> tokio::task::JoinHandle<Watched> {
        let (tracker, subscription) = (Arc::clone(&self.tracker), subscription(room));
        tokio::spawn(async move { tracker.watch(subscription, snapshot).await.unwrap() })
    }

    /// What each room is owed, oldest first.
    async fn owed(&self, room: &str) -> Vec<String> {
        let filter = DeliveryFilter { to: Some(to(room)), limit: 100, ..DeliveryFilter::default() };
        let mut rows = self.store.deliveries(&filter).await.unwrap();
        rows.sort_by_key(|row| change_of(row).sequence);
        rows.iter().map(|row| format!("{} {}", change_of(row).kind.name(), change_of(row).run.status)).collect()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id() -> RunId {
    "7b1e04c2-0000-4000-8000-000000000001".parse().unwrap()
}

fn workspace() -> Workspace {
    Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: 10_000 }
}

fn to(room: &str) -> Destination {
    Destination::from(format!("discord:{room}"))
}

fn run(status: &str, stage: &str) -> Snapshot {
    let prod = Stage {
        code: "PROD".into(),
        name: String::new(),
        step: 1,
        kind: "Deploy".into(),
        status: Status::from(stage),
        message: String::new(),
    };
    Snapshot {
        id: id(),
        description: "orders_daily v12".into(),
        creator: "1".into(),
        status: Status::from(status),
        message: String::new(),
        created_at: Some(at(-10)),
        modified_at: None,
        stages: vec![prod],
    }
}

fn subscription(room: &str) -> Subscription {
    Subscription {
        id: format!("subscription-of-{room}"),
        scope: Scope::Run { workspace: workspace().key(), run: id() },
        to: to(room),
        on: Selector::watch(),
        stages: Vec::new(),
        creators: Vec::new(),
        template: None,
        by: "test".into(),
        roles: Vec::new(),
        until: None,
        muted: None,
        stopped: None,
        created_at: at(0),
    }
}

#[tokio::test]
async fn a_poll_between_the_store_and_the_memory_of_a_watch() {
    let scene = Scene::seen("Running", "Init").await;
    let held = scene.store.subscribed.next();
    let watching = scene.watch("1", run("Running", "Init"));
    held.committed.await.unwrap();
    // The watch is durable, and its task has not heard of it yet.
    scene.see(5, "Running", "Running").await;
    held.release.send(()).unwrap();
    assert_eq!(watching.await.unwrap(), Watched::New);
    scene.see(10, "Success", "Success").await;
    assert_eq!(scene.owed("1").await, ["stage Running", "stage Success", "finished Success"]);
    assert!(scene.tracker.in_destination(&to("1")).is_empty(), "the watch ends with its run");
}

#[tokio::test]
async fn a_reload_between_the_store_and_the_memory_of_a_watch() {
    let scene = Scene::seen("Running", "Init").await;
    let held = scene.store.subscribed.next();
    let watching = scene.watch("1", run("Running", "Init"));
    held.committed.await.unwrap();
    scene.tracker.reload().await.unwrap();
    held.release.send(()).unwrap();
    watching.await.unwrap();
    scene.see(5, "Running", "Running").await;
    scene.see(10, "Success", "Success").await;
    assert_eq!(scene.owed("1").await, ["stage Running", "stage Success", "finished Success"]);
}

#[tokio::test]
async fn another_process_subscribes_just_before() {
    let scene = Scene::seen("Running", "Init").await;
    let state = scene.tracker.state(&workspace().key(), &id()).unwrap();
    // Housekeeping has not looked since.
    scene.store.inner.subscribe(&subscription("2"), Some(&state)).await.unwrap();
    assert_eq!(scene.watch("1", run("Running", "Init")).await.unwrap(), Watched::New);
    scene.see(5, "Running", "Running").await;
    scene.see(10, "Success", "Success").await;
    for room in ["1", "2"] {
        assert_eq!(scene.owed(room).await, ["stage Running", "stage Success", "finished Success"], "room {room}");
    }
}

#[tokio::test]
async fn the_first_poll_of_a_workspace_beside_the_first_watch() {
    let scene = Scene::empty().await;
    let held = scene.store.subscribed.next();
    let watching = scene.watch("1", run("Running", "Init"));
    held.committed.await.unwrap();
    scene.see(1, "Running", "Init").await;
    held.release.send(()).unwrap();
    assert_eq!(watching.await.unwrap(), Watched::New);
    scene.see(5, "Running", "Running").await;
    scene.see(10, "Success", "Success").await;
    assert_eq!(scene.owed("1").await, ["stage Running", "stage Success", "finished Success"]);
}

#[tokio::test]
async fn a_watch_between_the_store_and_the_memory_of_the_poll_that_saw_the_end() {
    let scene = Scene::seen("Running", "Running").await;
    let held = scene.store.recorded.next();
    let (tracker, sight) = (Arc::clone(&scene.tracker), Sight::of_run(run("Success", "Success")));
    let polling = tokio::spawn(async move { tracker.observe(&workspace(), sight, at(5)).await.unwrap() });
    held.committed.await.unwrap();
    // The end is durable without this room, which asks while the poll has not heard of its success yet.
    let watched = scene.watch("1", run("Running", "Running")).await.unwrap();
    held.release.send(()).unwrap();
    polling.await.unwrap();
    assert_eq!(watched, Watched::Ended, "the room was promised messages that nobody will send");
    assert!(scene.tracker.in_destination(&to("1")).is_empty(), "a watch on an ended run stays for ever");
    assert!(scene.store.load().await.unwrap().subscriptions.is_empty(), "and over restarts too");
}

#[tokio::test]
async fn a_watch_between_the_store_and_the_memory_of_a_poll_that_saw_a_stage_move() {
    let scene = Scene::seen("Running", "Init").await;
    let held = scene.store.recorded.next();
    let (tracker, sight) = (Arc::clone(&scene.tracker), Sight::of_run(run("Running", "Running")));
    let polling = tokio::spawn(async move { tracker.observe(&workspace(), sight, at(5)).await.unwrap() });
    held.committed.await.unwrap();
    assert_eq!(scene.watch("1", run("Running", "Init")).await.unwrap(), Watched::New);
    held.release.send(()).unwrap();
    polling.await.unwrap();
    scene.see(10, "Success", "Success").await;
    let owed = scene.owed("1").await;
    assert!(owed.ends_with(&["stage Success".to_owned(), "finished Success".to_owned()]), "{owed:?}");
}

#[tokio::test]
async fn a_poll_between_the_store_and_the_memory_of_an_undo() {
    let scene = Scene::seen("Running", "Init").await;
    scene.watch("1", run("Running", "Init")).await.unwrap();
    let stopped = Subscription { stopped: Some(at(1)), ..subscription("1") };
    assert_eq!(scene.tracker.amend(vec![stopped]).await.unwrap(), 1);
    scene.see(5, "Running", "Running").await;
    assert!(scene.owed("1").await.is_empty(), "nothing comes of what was stopped");
    let held = scene.store.amended.next();
    let tracker = Arc::clone(&scene.tracker);
    let undoing = tokio::spawn(async move { tracker.amend(vec![subscription("1")]).await.unwrap() });
    held.committed.await.unwrap();
    // The undo is durable, and its task has not heard of it yet.
    scene.see(10, "Running", "Success").await;
    held.release.send(()).unwrap();
    assert_eq!(undoing.await.unwrap(), 1);
    scene.see(15, "Success", "Success").await;
    assert_eq!(scene.owed("1").await, ["stage Running", "finished Success"]);
    assert!(scene.store.load().await.unwrap().subscriptions.is_empty(), "it ends with its run");
}

#[tokio::test]
async fn an_undo_between_the_store_and_the_memory_of_the_poll_that_saw_the_end() {
    let scene = Scene::seen("Running", "Running").await;
    scene.watch("1", run("Running", "Running")).await.unwrap();
    let stopped = Subscription { stopped: Some(at(1)), ..subscription("1") };
    scene.tracker.amend(vec![stopped]).await.unwrap();
    scene.see(5, "Success", "Success").await;
    assert_eq!(scene.tracker.amend(vec![subscription("1")]).await.unwrap(), 0, "what is over can't go on");
    assert!(scene.store.load().await.unwrap().subscriptions.is_empty());
}

fn waiting(room: &str) -> Subscription {
    let mut on = Selector::watch();
    on.insert(Selector::Started);
    Subscription { on, scope: Scope::Next { workspace: workspace().key() }, ..subscription(room) }
}

/// The workspace is known, and the run has not begun.
async fn before_the_start() -> Scene {
    let scene = Scene::empty().await;
    let sight = Sight { page: Some(Page { ids: vec![], full: false }), runs: vec![], missing: vec![] };
    scene.tracker.observe(&workspace(), sight, at(0)).await.unwrap();
    scene
}

#[tokio::test]
async fn a_run_starts_between_the_store_and_the_memory_of_whoever_waits_for_it() {
    let scene = before_the_start().await;
    let held = scene.store.subscribed.next();
    let tracker = Arc::clone(&scene.tracker);
    let waits = tokio::spawn(async move { tracker.follow(waiting("1")).await.unwrap() });
    held.committed.await.unwrap();
    // Another process waits as well, and housekeeping has not looked since.
    scene.store.inner.subscribe(&waiting("2"), None).await.unwrap();
    scene.see(5, "Running", "Init").await;
    held.release.send(()).unwrap();
    assert_eq!(waits.await.unwrap(), Watched::New);
    scene.see(10, "Running", "Running").await;
    scene.see(15, "Success", "Success").await;
    for room in ["1", "2"] {
        let expected = ["started Running", "stage Running", "stage Success", "finished Success"];
        assert_eq!(scene.owed(room).await, expected, "room {room}");
        assert!(scene.tracker.in_destination(&to(room)).is_empty(), "the watch of room {room} ends with its run");
    }
    assert!(scene.store.load().await.unwrap().subscriptions.is_empty());
}

#[tokio::test]
async fn whoever_waits_no_longer_is_not_given_the_run_that_starts() {
    let scene = before_the_start().await;
    scene.tracker.follow(waiting("1")).await.unwrap();
    let stopped = Subscription { stopped: Some(at(1)), ..waiting("1") };
    scene.store.inner.amend(std::slice::from_ref(&stopped)).await.unwrap();
    scene.see(5, "Running", "Init").await;
    assert!(scene.owed("1").await.is_empty());
    assert_eq!(scene.store.load().await.unwrap().subscriptions, [stopped]);
}

#[tokio::test]
async fn what_is_amended_as_it_was_before_a_run_started_stays_with_the_run() {
    let scene = before_the_start().await;
    scene.tracker.follow(waiting("1")).await.unwrap();
    scene.see(5, "Running", "Init").await;
    let muted = callboard::model::Muted { until: at(3600), by: "discord:7".to_owned() };
    let old = Subscription { muted: Some(muted), ..waiting("1") };
    assert_eq!(scene.tracker.amend(vec![old]).await.unwrap(), 0, "it has found its run");
    scene.see(10, "Success", "Success").await;
    assert_eq!(scene.owed("1").await, ["started Running", "stage Success", "finished Success"]);
}

fn change_of(row: &DeliveryRow) -> &Change {
    row.delivery.news.change().expect("only changes are owed here")
}
