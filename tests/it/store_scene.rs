//! What the tests of stores play with: two kinds of store, a policy that does as it is told, a small cast.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use callboard::model::{
    Change, ChangeKind, Claimed, DeliveryState, Destination, Notice, NoticeKind, Outcome, Place, Plan, Queue, RunId,
    RunState, Scope, Selector, Snapshot, Stage, Status, Subscription, Timestamp, Workspace,
};
use callboard::store::{
    Announcement, Claims, DeliveryFilter, DeliveryRow, NewDelivery, Next, Policy, Poll, Recorded, Role, Room, Settings,
    Settlement, Store, StoreError, WorkspaceState, open,
};
use uuid::Uuid;

use crate::memory::MemoryStore;
use crate::postgres::Database;

// ------------------------------------------------------------------------------------------------- the place and cast

/// A place for one store that is opened again and again.
pub enum Ground {
    File(tempfile::TempDir),
    Postgres(Database),
    Memory(MemoryStore),
}

impl Ground {
    pub fn file() -> Ground {
        Ground::File(tempfile::tempdir().unwrap())
    }

    pub async fn postgres() -> Ground {
        Ground::Postgres(Database::create().await)
    }

    pub fn memory() -> Ground {
        Ground::Memory(MemoryStore::new())
    }

    pub fn folder(&self) -> PathBuf {
        match self {
            Ground::File(folder) => folder.path().to_owned(),
            Ground::Postgres(_) | Ground::Memory(_) => panic!("only a file has a folder"),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder().join("callboard.db")
    }

    pub fn settings(&self) -> Settings {
        match self {
            Ground::Postgres(database) => Settings::of(database.url()),
            _ => Settings::of(format!("sqlite:{}", self.path().display())),
        }
    }

    pub async fn owner(&self) -> Arc<dyn Store> {
        match self {
            Ground::File(_) => self.open(Role::Owner).await.unwrap(),
            Ground::Postgres(database) => {
                let store = self.open(Role::Owner).await.unwrap();
                // Whoever was there before has been silent for long, and this one has listened for as long.
                database.wait_half_an_hour().await;
                store.hold(&[]).await.unwrap();
                store
            }
            Ground::Memory(truth) => {
                let store = truth.guest();
                store.recover();
                Arc::new(store)
            }
        }
    }

    pub async fn guest(&self) -> Arc<dyn Store> {
        match self {
            Ground::File(_) | Ground::Postgres(_) => self.open(Role::Guest).await.unwrap(),
            Ground::Memory(truth) => Arc::new(truth.guest()),
        }
    }

    pub async fn open(&self, role: Role) -> Result<Arc<dyn Store>, StoreError> {
        open(&self.settings(), role).await
    }

    pub async fn refusal(&self, role: Role) -> StoreError {
        match self.open(role).await {
            Ok(_) => panic!("a store opened that had to be refused to {role:?}"),
            Err(error) => error,
        }
    }
}

/// A policy that does as the test says; otherwise everything leaves at once and by itself.
#[derive(Default)]
pub struct Rules {
    /// When a destination opens; `None`: not before a person acts.
    pub opens: Mutex<BTreeMap<Destination, Option<Timestamp>>>,
    pub plans: Mutex<BTreeMap<Destination, Plan>>,
    /// What the operators hear of at the next end of an attempt.
    pub notices: Mutex<Vec<Announcement>>,
    /// The lengths of `run` and the count of `waiting`, each time a plan was asked for.
    pub asked: Mutex<Vec<(usize, usize)>>,
    ids: Mutex<u128>,
}

impl Rules {
    pub fn plan_for(&self, to: &str, plan: Plan) {
        self.plans.lock().unwrap().insert(room(to), plan);
    }

    pub fn close(&self, to: &str, until: Option<Timestamp>) {
        self.opens.lock().unwrap().insert(room(to), until);
    }
}

impl Policy for Rules {
    fn at_once(&self, _: &Place) -> usize {
        usize::MAX
    }

    fn opens_at(&self, to: &Destination, place: &Place, account: Option<&Place>, now: Timestamp) -> Option<Timestamp> {
        assert_eq!(account.is_some(), to.account().is_some(), "{to}");
        let told = self.opens.lock().unwrap().get(to).copied().unwrap_or(Some(now));
        told.filter(|_| place.dead.is_none() && account.is_none_or(|account| account.dead.is_none()))
    }

    fn plan(&self, queue: &Queue<'_>, _: Timestamp) -> Plan {
        assert_eq!(queue.run.first(), Some(&queue.head), "the head comes first");
        self.asked.lock().unwrap().push((queue.run.len(), queue.waiting));
        self.plans.lock().unwrap().get(queue.to).cloned().unwrap_or(Plan::Single)
    }

    fn began(&self, _: &Destination, place: &mut Place, now: Timestamp) {
        place.sent = vec![now];
    }

    fn ended(
        &self,
        settlement: &Settlement,
        _: &Destination,
        place: &mut Place,
        account: Option<&mut Place>,
    ) -> Vec<Announcement> {
        match (&settlement.outcome, account) {
            (Outcome::Delivered { .. }, _) => place.failures = 0,
            (Outcome::Denied { .. }, Some(account)) => account.failures += 1,
            _ => place.failures += 1,
        }
        std::mem::take(&mut *self.notices.lock().unwrap())
    }

    fn message_id(&self) -> Uuid {
        let mut ids = self.ids.lock().unwrap();
        *ids += 1;
        Uuid::from_u128(*ids)
    }
}

/// A store that is open, and how it is used.
pub struct Scene {
    pub ground: Ground,
    pub store: Arc<dyn Store>,
    pub rules: Arc<Rules>,
    pub policy: Arc<dyn Policy>,
}

impl Scene {
    pub async fn on(ground: Ground) -> Scene {
        let rules = Arc::new(Rules::default());
        Scene { store: ground.owner().await, ground, policy: Arc::clone(&rules) as Arc<dyn Policy>, rules }
    }

    /// The process dies and another one opens the store.
    pub async fn reopen(self) -> Scene {
        let Scene { ground, store, rules, policy } = self;
        drop(store);
        Scene { store: ground.owner().await, ground, rules, policy }
    }

    pub async fn record(&self, poll: &Poll) {
        assert_eq!(self.store.record(poll).await.unwrap(), Recorded::Done, "the poll was refused");
    }

    pub async fn claims(&self, now: Timestamp, room: Room) -> Claims {
        self.store.claim(now, room, &self.policy).await.unwrap()
    }

    pub async fn claim(&self, now: Timestamp, messages: usize) -> Vec<Claimed> {
        self.claims(now, Room { messages, probes: messages }).await.claimed
    }

    pub async fn only(&self, now: Timestamp) -> Claimed {
        let mut claimed = self.claim(now, 99).await;
        assert_eq!(claimed.len(), 1, "{:?}", told(&claimed));
        claimed.remove(0)
    }

    /// When there is more to do, where nothing is due or everything that is due is closed.
    pub async fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        let claims = self.claims(now, Room { messages: 99, probes: 99 }).await;
        assert_eq!(told(&claims.claimed), [], "something was due");
        claims.next_at
    }

    pub async fn settle(&self, message: &Claimed, next: Next) {
        self.store.settle(&settled(message, next), &self.policy).await.unwrap();
    }

    pub async fn rows(&self, filter: DeliveryFilter) -> Vec<DeliveryRow> {
        let limit = if filter.limit == 0 { 10_000 } else { filter.limit };
        self.store.deliveries(&DeliveryFilter { limit, ..filter }).await.unwrap()
    }

    /// Oldest first.
    pub async fn all(&self) -> Vec<DeliveryRow> {
        let mut rows = self.rows(DeliveryFilter::default()).await;
        rows.reverse();
        rows
    }

    pub async fn states(&self) -> Vec<(i64, DeliveryState)> {
        self.all().await.iter().map(|row| (sequence(row), row.state)).collect()
    }

    /// Nothing ever owed is missing from the books.
    pub async fn balance(&self) -> callboard::store::Ledger {
        let ledger = self.store.overview().await.unwrap().ledger;
        assert!(ledger.is_balanced(), "{ledger:?}");
        ledger
    }
}

pub fn sequence(row: &DeliveryRow) -> i64 {
    row.delivery.news.change().map_or(0, |change| change.sequence)
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn warehouse() -> Workspace {
    Workspace { name: "warehouse".to_owned(), region: "cn-shanghai".to_owned(), project_id: 10_000 }
}

pub fn run_id(name: &str) -> RunId {
    name.parse().unwrap()
}

pub fn room(name: &str) -> Destination {
    Destination::from(name.to_owned())
}

pub fn state(run: &str, version: i64) -> RunState {
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
        doubted: None,
        missing: None,
        lost: false,
    }
}

pub fn change(run: &str, sequence: i64) -> Change {
    Change {
        workspace: warehouse(),
        run: state(run, 1).snapshot,
        url: "https://example.org/run".to_owned(),
        sequence,
        at: at(sequence),
        unseen_since: None,
        kind: ChangeKind::StageChanged {
            stage: "PROD".to_owned(),
            from: Status::Init,
            to: Status::Running,
            took_ms: Some(48_000),
        },
    }
}

pub fn owed(run: &str, sequence: i64, to: &str) -> NewDelivery {
    NewDelivery {
        id: Uuid::now_v7(),
        run: run_id(run),
        sequence,
        to: room(to),
        template: None,
        subscriptions: vec!["a subscription".to_owned()],
        at: at(sequence),
        urgent: false,
        missed: false,
    }
}

pub fn nothing() -> Poll {
    Poll {
        key: warehouse().key(),
        workspace: Some(WorkspaceState { key: warehouse().key(), baseline_at: at(0), horizon: None, seen_at: None }),
        runs: vec![],
        changes: vec![],
        deliveries: vec![],
        begun: Vec::new(),
        ended: vec![],
        forgotten: vec![],
    }
}

/// A poll that moves `run` to `version` by one change, which it owes to each of `to`.
pub fn moved(run: &str, version: i64, to: &[&str]) -> Poll {
    Poll {
        runs: vec![state(run, version)],
        changes: vec![change(run, version)],
        deliveries: to.iter().map(|to| owed(run, version, to)).collect(),
        ..nothing()
    }
}

pub fn watch(id: &str, run: &str, to: &str) -> Subscription {
    Subscription {
        id: id.to_owned(),
        scope: Scope::Run { workspace: warehouse().key(), run: run_id(run) },
        to: room(to),
        on: Selector::watch(),
        stages: vec![],
        creators: vec![],
        template: None,
        by: "cli".to_owned(),
        roles: Vec::new(),
        until: None,
        muted: None,
        stopped: None,
        created_at: at(0),
    }
}

pub fn outcome(next: Next) -> Outcome {
    let said = |outcome: &str| format!("the platform said {outcome}");
    match next {
        Next::Delivered => Outcome::Delivered { message_id: None, pause: None },
        Next::Pending { .. } => Outcome::Retry { after: None, reason: said("retry") },
        Next::Unknown { .. } => Outcome::Unknown { after: None, reason: said("unknown") },
        Next::Rejected => Outcome::Reject { reason: said("rejected") },
        Next::Dead => Outcome::Dead { reason: said("dead") },
    }
}

pub fn settled(message: &Claimed, next: Next) -> Settlement {
    Settlement {
        id: message.lead.id,
        attempt: message.lead.attempt,
        started_at: at(100),
        ended_at: at(101),
        chance: 0.5,
        outcome: outcome(next),
        next,
    }
}

pub fn told(claimed: &[Claimed]) -> Vec<(String, String, i64)> {
    let told = |claimed: &Claimed| {
        let change = claimed.lead.news.change().expect("a change");
        (claimed.lead.to.to_string(), change.run.id.to_string(), change.sequence)
    };
    claimed.iter().map(told).collect()
}

/// `r1 1`, in order of recording.
pub fn folded(claimed: &Claimed) -> Vec<String> {
    let folded = claimed.folded.iter().filter_map(|delivery| delivery.news.change());
    folded.map(|change| format!("{} {}", change.run.id, change.sequence)).collect()
}

pub fn line(to: &str, run: &str, sequence: i64) -> (String, String, i64) {
    (to.to_owned(), run.to_owned(), sequence)
}

/// A trouble of `destination` begins, or ends; `to` are told.
pub fn notice(destination: &str, is_end: bool, seconds: i64, to: &[&str]) -> Announcement {
    let destination = room(destination);
    let kind = if is_end {
        NoticeKind::DestinationBack { destination, since: at(0) }
    } else {
        NoticeKind::DestinationDead { destination, reason: "404".to_owned() }
    };
    let to = to.iter().map(|to| (Uuid::now_v7(), room(to))).collect();
    Announcement { notice: Notice { at: at(seconds), kind }, to }
}
