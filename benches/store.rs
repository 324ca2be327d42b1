//! What the store can carry: `cargo bench --bench store`. Figures are durable operations, one sync for each commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that fails must stop")]

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard::model::{
    Change, ChangeKind, Destination, Outcome, Place, Plan, Queue, RunState, Snapshot, Stage, Status, Timestamp,
    Workspace, WorkspaceKey,
};
use callboard::store::{
    Announcement, NewDelivery, Next, Policy, Poll, Recorded, Role, Room, Settings, Settlement, Store, WorkspaceState,
    open,
};
use divan::Bencher;
use divan::counter::ItemsCount;
use tokio::runtime::Runtime;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// A store in a folder of its own. Dropped in order: the store needs its runtime and its folder.
struct Bench {
    store: Arc<dyn Store>,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        // Beside the build, not in /tmp, which may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let settings = Settings::of(format!("sqlite:{}", folder.path().join("bench.db").display()));
        let store = runtime.block_on(open(&settings, Role::Owner)).unwrap();
        Bench { store, runtime, _folder: folder }
    }

    /// `tasks` tasks each record `each` polls of a run of their own.
    fn record(&self, tasks: usize, each: i64) {
        self.runtime.block_on(async {
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    let (store, run) = (Arc::clone(&self.store), Uuid::new_v4().to_string());
                    tokio::spawn(async move {
                        for version in 1..=each {
                            let recorded = store.record(&poll(&run, version)).await.unwrap();
                            assert_eq!(recorded, Recorded::Done);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    fn claim_and_settle(&self, count: usize) {
        self.runtime.block_on(async {
            let mut left = count;
            let policy: Arc<dyn Policy> = Arc::new(OneByOne);
            while left > 0 {
                let room = Room { messages: left.min(64), probes: 16 };
                let claimed = self.store.claim(now(), room, &policy).await.unwrap().claimed;
                left -= claimed.len();
                let settling = claimed.into_iter().map(|message| {
                    let (store, policy) = (Arc::clone(&self.store), Arc::clone(&policy));
                    tokio::spawn(async move {
                        let settlement = Settlement {
                            id: message.lead.id,
                            attempt: message.lead.attempt,
                            started_at: now(),
                            ended_at: now(),
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
        });
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
    fn began(&self, _: &Destination, place: &mut Place, now: Timestamp) {
        place.sent = vec![now];
    }
    fn ended(&self, _: &Settlement, _: &Destination, _: &mut Place, _: Option<&mut Place>) -> Vec<Announcement> {
        Vec::new()
    }
    fn message_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn workspace() -> Workspace {
    Workspace { name: "warehouse".to_owned(), region: "cn-shanghai".to_owned(), project_id: 10_000 }
}

/// About 1 KB as JSON.
fn snapshot(run: &str) -> Snapshot {
    let stage = |step: i64| Stage {
        code: format!("STAGE_{step}"),
        name: "Publish to production".to_owned(),
        step,
        kind: "Deploy".to_owned(),
        status: Status::Running,
        message: String::new(),
    };
    Snapshot {
        id: run.parse().unwrap(),
        description: "orders_daily v12, with the new partition".to_owned(),
        creator: "137946317766".to_owned(),
        status: Status::Running,
        message: String::new(),
        created_at: Some(now()),
        modified_at: Some(now()),
        stages: (1..=5).map(stage).collect(),
    }
}

fn poll(run: &str, version: i64) -> Poll {
    let snapshot = snapshot(run);
    let since = snapshot.stages.iter().map(|stage| (stage.code.clone(), now())).collect::<BTreeMap<_, _>>();
    let change = Change {
        workspace: workspace(),
        run: snapshot.clone(),
        url: "https://dataworks.example/run".to_owned(),
        sequence: version,
        at: now(),
        unseen_since: None,
        kind: ChangeKind::StageChanged {
            stage: "STAGE_1".to_owned(),
            from: Status::Init,
            to: Status::Running,
            took_ms: Some(48_000),
        },
    };
    let owed = NewDelivery {
        id: Uuid::now_v7(),
        run: snapshot.id.clone(),
        sequence: version,
        to: Destination::Channel("ops".to_owned()),
        template: None,
        subscriptions: vec!["config:1".to_owned()],
        at: now(),
        urgent: false,
        missed: false,
    };
    let state = RunState {
        snapshot,
        version,
        sequence: version,
        since,
        first_seen: now(),
        gate: None,
        doubted: None,
        missing: None,
        lost: false,
    };
    let key: WorkspaceKey = workspace().key();
    Poll {
        workspace: Some(WorkspaceState { key: key.clone(), baseline_at: now(), horizon: None, seen_at: None }),
        key,
        runs: vec![state],
        changes: vec![change],
        deliveries: vec![owed],
        begun: Vec::new(),
        ended: vec![],
        forgotten: vec![],
    }
}

/// One change and one delivery in each commit.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn record_by_one_task(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    bencher.counter(ItemsCount::new(200_u32)).bench_local(|| bench.record(1, 200));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn record_by_32_tasks(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    bencher.counter(ItemsCount::new(3_200_u32)).bench_local(|| bench.record(32, 100));
}

/// From a backlog of the given length to one destination.
#[divan::bench(sample_count = 10, sample_size = 1, args = [1_000, 20_000])]
fn claim_and_settle(bencher: Bencher<'_, '_>, backlog: usize) {
    let bench = Bench::new();
    bench.record(backlog / 10, 10);
    bencher
        .counter(ItemsCount::new(1_000_u32))
        .with_inputs(|| bench.record(100, 10))
        .bench_local_values(|()| bench.claim_and_settle(1_000));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn load_10_000_runs(bencher: Bencher<'_, '_>) {
    let bench = Bench::new();
    bench.record(10_000, 1);
    bencher.bench_local(|| bench.runtime.block_on(bench.store.load()).unwrap().runs.len());
}
