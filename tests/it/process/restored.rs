//! An old copy of the database is restored, after more was told.

use std::collections::BTreeMap;

use callboard::demo::dataworks::RunSpec;
use callboard::model::RunId;
use serde_json::Value;

use super::{PROJECT, Place, Process, changes, finish};
use crate::postgres::Database;
use crate::sink::Answer;

const HOOKS: [&str; 2] = ["one", "two"];

/// Everything in the copy is as old as the copy.
const SEVEN_HOURS_LATER: &str = "
    UPDATE workspaces SET seen_at = seen_at - 25200000, baseline_at = baseline_at - 25200000;
    UPDATE changes SET at = at - 25200000;
    UPDATE deliveries SET created_at = created_at - 25200000, next_at = next_at - 25200000,
      settled_at = settled_at - 25200000, unknown_at = unknown_at - 25200000;
    UPDATE attempts SET started_at = started_at - 25200000, ended_at = ended_at - 25200000;
    DELETE FROM replicas; DELETE FROM leases";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_old_copy_tells_what_is_old_as_old_and_once_for_each_run() {
    let database = Database::create().await;
    let mut place = Place::at_server(database.url(), &HOOKS).await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let [moves, ends, rests] = ["moves", "ends", "rests"].map(|name| add(&place, name));
    for run in [&moves, &ends, &rests] {
        place.until("it is told", &mut process, async || heard(&place, "two", run) == [1]).await;
        advance(&place, &mut process, run).await;
    }
    settled(&place, &mut process).await;
    // One message of the copy has not left yet, and leaves later.
    place.sink.answer("/hooks/one", vec![Answer::status(503); 10_000]);
    advance(&place, &mut process, &moves).await;
    place.until("one waits", &mut process, async || place.sink.seen().len() > place.sink.accepted().len()).await;
    place.stop(process).await;
    let copy = database.copy().await;

    // Hours that the copy knows nothing of.
    place.sink.forget_answers("/hooks/one");
    let mut process = place.start();
    place.ready(&mut process).await;
    let begins = add(&place, "begins");
    advance(&place, &mut process, &moves).await;
    finish(&place.world, std::slice::from_ref(&ends));
    place.until("the end is told", &mut process, async || place.told("run.finished") == HOOKS.len()).await;
    place.until("the new one is told", &mut process, async || !heard(&place, "one", &begins).is_empty()).await;
    settled(&place, &mut process).await;
    place.stop(process).await;
    let known = place.sink.accepted().len();

    copy.execute(SEVEN_HOURS_LATER).await;
    place.move_to_server(copy.url());
    let mut process = place.start();
    place.ready(&mut process).await;
    // Each hook is told of the three runs that are not where the copy has them.
    let expected = known + HOOKS.len() * 3;
    place.until("the rest is caught up on", &mut process, async || place.sink.accepted().len() >= expected).await;
    settled(&place, &mut process).await;
    place.world.advance(PROJECT, &rests).unwrap();
    place.until("news is news again", &mut process, async || place.sink.accepted().len() >= expected + 2).await;
    settled(&place, &mut process).await;
    place.stop(process).await;

    let after = place.sink.accepted().split_off(known);
    let mut caught_up: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut fresh = Vec::new();
    for seen in &after {
        let json = seen.json();
        if json["type"] == "digest" {
            assert_eq!(json["data"]["why"], "late", "{json}");
            let runs: Vec<String> = changes(seen).iter().map(run_of).collect();
            let run = runs.first().unwrap().clone();
            assert!(runs.iter().all(|other| *other == run), "one message for each run: {json}");
            *caught_up.entry((seen.path.clone(), run)).or_default() += 1;
        } else {
            fresh.push(run_of(&json));
        }
    }
    let expected: BTreeMap<(String, String), usize> = HOOKS
        .iter()
        .flat_map(|hook| [&moves, &ends, &begins].map(|run| ((format!("/hooks/{hook}"), run.to_string()), 1)))
        .collect();
    assert_eq!(caught_up, expected, "what is old comes as one message for each run, at each destination");
    assert_eq!(fresh, [rests.to_string(), rests.to_string()], "only what is new is news");
    let ledger = place.store().await.overview().await.unwrap().ledger;
    assert!(ledger.is_balanced() && ledger.open == 0 && ledger.dead == 0, "{ledger:?}");
}

fn add(place: &Place, name: &str) -> RunId {
    place.world.add_run(PROJECT, RunSpec::standard(name))
}

/// Moves the run on until the hook that always works has heard of it.
async fn advance(place: &Place, process: &mut Process, run: &RunId) {
    let before = heard(place, "two", run).len();
    place.world.advance(PROJECT, run).unwrap();
    place.until("the next change is told", process, async || heard(place, "two", run).len() > before).await;
}

/// Nothing is owed any more.
async fn settled(place: &Place, process: &mut Process) {
    place
        .until("nothing is owed any more", process, async || {
            let metrics = place.page("/metrics").await.map(|(_, text)| text).unwrap_or_default();
            metrics.lines().any(|line| line == "callboard_deliveries_open 0")
        })
        .await;
}

fn run_of(change: &Value) -> String {
    change["data"]["run"]["id"].as_str().unwrap().to_owned()
}

/// The sequences of a run's changes that arrived there.
fn heard(place: &Place, hook: &str, run: &RunId) -> Vec<i64> {
    let accepted = place.sink.accepted();
    let here = accepted.iter().filter(|seen| seen.path == format!("/hooks/{hook}"));
    let changes = here.flat_map(changes).filter(|change| run_of(change) == run.as_str());
    changes.map(|change| change["data"]["sequence"].as_i64().unwrap()).collect()
}
