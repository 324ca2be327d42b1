//! A store with a past, written by the store's own verbs before the program starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard::demo::dataworks::{RunSpec, World};
use callboard::model::{
    Change, ChangeKind, Destination, Outcome, Place, Plan, Queue, RunId, RunState, Scope, Selector, Snapshot, Stage,
    Status, Subscription, Timestamp, Workspace,
};
use callboard::store::{
    Announcement, NewDelivery, Next, Policy, Poll, Recorded, Role, Room, Settings, Settlement, Store, WorkspaceState,
    open,
};
use uuid::Uuid;

use crate::place::{PROJECT, name};

/// Changes of a run: its first stage begins before anybody looks, its end is the last.
pub const CHANGES: usize = 10;

fn workspace(project: i64) -> Workspace {
    Workspace { name: name(project), region: "cn-shanghai".to_owned(), project_id: project }
}

/// A run on its way through its stages.
pub struct Past {
    project: i64,
    snapshot: Snapshot,
    fails: bool,
    told: i64,
    bumped: i64,
}

impl Past {
    pub fn new(number: usize, fails: bool) -> Past {
        Past::of(PROJECT, number, fails)
    }

    pub fn of(project: i64, number: usize, fails: bool) -> Past {
        let id: RunId = format!("{number:08x}-20ec-4a7c-a214-{:012x}", fastrand::u64(..1 << 48)).parse().unwrap();
        let spec = RunSpec::standard(&format!("orders_daily v{number}"));
        let stages = spec.stages.iter().zip(1..).map(|(stage, step)| Stage {
            code: stage.code.clone(),
            name: stage.name.clone(),
            step,
            kind: stage.kind.clone(),
            status: if step == 1 { Status::Running } else { Status::Init },
            message: String::new(),
        });
        let snapshot = Snapshot {
            id,
            description: spec.description,
            creator: spec.creator,
            status: Status::Running,
            message: String::new(),
            created_at: Some(Timestamp::now()),
            modified_at: Some(Timestamp::now()),
            stages: stages.collect(),
        };
        Past { project, snapshot, fails, told: 0, bumped: 0 }
    }

    /// What happens next to it: nine times to a stage, then it ends.
    fn next(&mut self) -> ChangeKind {
        let end = if self.fails { Status::Fail } else { Status::Success };
        self.told += 1;
        let nth = usize::try_from(self.told).unwrap();
        if nth == CHANGES {
            self.snapshot.status = end.clone();
            return ChangeKind::Finished { from: Status::Running, to: end, took_ms: Some(480_000) };
        }
        let stage = self.snapshot.stages.get_mut(nth / 2).unwrap();
        let (from, to) = match stage.status {
            Status::Init => (Status::Init, Status::Running),
            _ if nth + 1 == CHANGES => (Status::Running, end),
            _ => (Status::Running, Status::Success),
        };
        stage.status = to.clone();
        ChangeKind::StageChanged { stage: stage.code.clone(), from, to, took_ms: Some(48_000) }
    }

    pub fn poll(&mut self, to: &[Destination], at: Timestamp) -> Poll {
        let kind = self.next();
        let change = Change {
            workspace: workspace(self.project),
            run: self.snapshot.clone(),
            url: "https://dataworks.data.aliyun.com/cn-shanghai/ide?defaultProjectId=10000".to_owned(),
            sequence: self.told,
            at,
            unseen_since: None,
            kind,
        };
        let urgent = change.is_urgent();
        let owed = |to: &Destination| NewDelivery {
            id: Uuid::now_v7(),
            run: self.snapshot.id.clone(),
            sequence: self.told,
            to: to.clone(),
            template: None,
            subscriptions: vec!["config:1".to_owned()],
            at,
            urgent,
            missed: false,
        };
        let key = workspace(self.project).key();
        Poll {
            workspace: Some(WorkspaceState { key: key.clone(), baseline_at: at, horizon: None, seen_at: Some(at) }),
            key,
            runs: vec![self.state(at)],
            deliveries: to.iter().map(owed).collect(),
            changes: vec![change],
            begun: Vec::new(),
            ended: vec![],
            forgotten: vec![],
        }
    }

    /// A room that asks for it by its id.
    pub fn watch(&self, to: &Destination) -> (Subscription, RunState) {
        let scope = Scope::Run { workspace: workspace(self.project).key(), run: self.snapshot.id.clone() };
        let subscription = Subscription {
            id: Uuid::now_v7().to_string(),
            scope,
            to: to.clone(),
            on: Selector::watch(),
            stages: vec![],
            creators: vec![],
            template: None,
            by: "somebody".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: Timestamp::now(),
        };
        (subscription, self.state(Timestamp::now()))
    }

    /// The store counted its version up, for a subscription.
    pub fn bump(&mut self) {
        self.bumped += 1;
    }

    fn state(&self, at: Timestamp) -> RunState {
        RunState {
            snapshot: self.snapshot.clone(),
            version: self.told + self.bumped,
            sequence: self.told,
            since: BTreeMap::new(),
            first_seen: at,
            gate: None,
            doubted: None,
            missing: None,
            lost: false,
        }
    }

    /// The simulated DataWorks shows it as it ended.
    pub fn show(&self, world: &World) {
        let Snapshot { id, description, stages, .. } = &self.snapshot;
        world.add_run(self.project, RunSpec::standard(description).with_id(id.clone()));
        for stage in stages {
            world.set_stage(self.project, id, &stage.code, stage.status.clone(), "").unwrap();
        }
        world.set_run_status(self.project, id, self.snapshot.status.clone()).unwrap();
    }
}

/// Everything that happened to `runs`, spread evenly over `span` from `from` on, as they went on side by side; each
/// change is owed to each of `to`.
pub async fn owe(settings: &Settings, runs: &mut [Past], to: &[Destination], from: Timestamp, span: Duration) {
    let store = open(settings, Role::Owner).await.unwrap();
    let step = span / u32::try_from(runs.len() * CHANGES).unwrap();
    let mut at = from;
    for _ in 0..CHANGES {
        for run in &mut *runs {
            at += step;
            assert_eq!(store.record(&run.poll(to, at)).await.unwrap(), Recorded::Done);
        }
    }
}

/// As many deliveries that arrived long ago, each run's to two of twenty destinations.
pub async fn history(settings: &Settings, rows: usize) -> usize {
    let store = open(settings, Role::Owner).await.unwrap();
    let at = Timestamp::now() - Duration::from_secs(3 * 86_400);
    let runs = rows / (2 * CHANGES);
    let recording: Vec<_> = (0..runs)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let to = [0, 1].map(|other| Destination::Channel(format!("team-{}", (number + other * 7) % 20)));
                let mut run = Past::new(number, number % 20 == 19);
                for _ in 0..CHANGES {
                    store.record(&run.poll(&to, at)).await.unwrap();
                }
            })
        })
        .collect();
    for task in recording {
        task.await.unwrap();
    }
    deliver(&store, at).await;
    runs
}

async fn deliver(store: &Arc<dyn Store>, at: Timestamp) {
    let policy: Arc<dyn Policy> = Arc::new(OneByOne);
    loop {
        let claims = store.claim(at, Room { messages: 64, probes: 16 }, &policy).await.unwrap();
        if claims.claimed.is_empty() {
            return;
        }
        let settling = claims.claimed.into_iter().map(|message| {
            let (store, policy) = (Arc::clone(store), Arc::clone(&policy));
            tokio::spawn(async move {
                let settlement = Settlement {
                    id: message.lead.id,
                    attempt: message.lead.attempt,
                    started_at: at,
                    ended_at: at,
                    chance: 0.5,
                    outcome: Outcome::Delivered { message_id: None, pause: None },
                    next: Next::Delivered,
                };
                store.settle(&settlement, &policy).await.unwrap();
            })
        });
        for task in settling.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}

/// Everything leaves at once and by itself.
struct OneByOne;

impl Policy for OneByOne {
    fn at_once(&self, _: &Place) -> usize {
        usize::MAX
    }

    fn opens_at(&self, _: &Destination, _: &Place, _: Option<&Place>, now: Timestamp) -> Option<Timestamp> {
        Some(now)
    }
    fn plan(&self, _: &Queue<'_>, _: Timestamp) -> Plan {
        Plan::Single
    }
    fn began(&self, _: &Destination, _: &mut Place, _: Timestamp) {}
    fn ended(&self, _: &Settlement, _: &Destination, _: &mut Place, _: Option<&mut Place>) -> Vec<Announcement> {
        Vec::new()
    }
    fn message_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
