//! Starting beside another process, and with much to load.

use std::sync::Arc;

use callboard::diff;
use callboard::model::{
    Destination, RunState, Scope, Selector, Snapshot, Stage, Status, Subscription, Timestamp, Workspace,
};
use callboard::store::{Poll, Store, WorkspaceState};

use super::{PROJECT, Place};

#[tokio::test]
async fn a_second_process_on_the_same_store_says_so_and_leaves() {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    // The same store, by the same address or another one.
    for listen in [place.listen, crate::sink::closed_port().await] {
        let output = place.command(&["run"]).env("CALLBOARD__SERVER__LISTEN", listen.to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("is in use by another callboard; stop that one first"), "{said}");
    }
    assert!(place.answers("/readyz", 200).await, "the first one is not disturbed");
    place.stop(process).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let place = Place::new().await;
    let _other = tokio::net::TcpListener::bind(place.listen).await.unwrap();
    let (status, said) = place.refused().await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("can't listen on ") && said.contains("choose another server.listen"), "{said}");
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

async fn fill(store: Arc<dyn Store>, count: usize) {
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
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: at,
        })
        .collect();
    let state = WorkspaceState { key: workspace.key(), baseline_at: at, horizon: None, seen_at: None };
    let (changes, deliveries, ended, forgotten) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    store
        .record(&Poll {
            key: workspace.key(),
            workspace: Some(state),
            runs,
            changes,
            deliveries,
            begun: Vec::new(),
            ended,
            forgotten,
        })
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
