//! A service that began on SQLite goes on on PostgreSQL.

use callboard::demo::dataworks::RunSpec;

use super::{PROJECT, Place, changes, finish};
use crate::postgres::Database;
use crate::sink::Answer;

#[tokio::test]
async fn a_watch_made_on_sqlite_hears_of_the_next_change_on_postgres_once() {
    let mut place = Place::new().await;
    // Somebody asked for it in the store, not in the configuration.
    let url = place.sink.webhook("watcher", None);
    place.configure(&format!("[channels.watcher]\nkind = \"webhook\"\nurl = \"{url}\"\n"));
    let mut process = place.start();
    place.ready(&mut process).await;
    let run = place.world.add_run(PROJECT, RunSpec::standard("moves on"));
    place.until("the run is told", &mut process, async || place.told("run.started") == 1).await;
    let added = ["subscriptions", "add", "--workspace", "warehouse", "--to", "watcher", "--run", run.as_str()];
    let added = place.command(&added).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));

    // While it runs, it keeps its store.
    let database = Database::create().await;
    let file = format!("sqlite:{}/callboard.db", place.home.display());
    place.move_to_server(database.url());
    let moved = place.command(&["store", "migrate-from", &file]).output().unwrap();
    let said = String::from_utf8_lossy(&moved.stderr);
    assert_eq!(moved.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another callboard; stop that one first"), "{said}");

    // One message can't leave before the stop, and goes with it.
    place.sink.answer("/hooks/hook", vec![Answer::status(503); 1_000]);
    place.world.advance(PROJECT, &run).unwrap();
    place.until("one try fails", &mut process, async || place.sink.seen().len() > place.sink.accepted().len()).await;
    place.until("the watcher hears of it", &mut process, async || heard(&place, "watcher") == [2]).await;
    place.stop(process).await;
    let counts = place.json(&["store", "migrate-from", &file]);
    assert_eq!([&counts["subscriptions"], &counts["runs"], &counts["open"]], [1, 1, 1], "{counts}");

    place.sink.forget_answers("/hooks/hook");
    let mut process = place.start();
    place.ready(&mut process).await;
    // The server of the tests does not sync: the service says so, and not each command beside it.
    let listed = place.command(&["deliveries", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success() && !said.contains("fsync"), "{said}");
    assert_eq!(place.log().matches("runs with fsync off").count(), 1, "{}", place.log());

    place.world.advance(PROJECT, &run).unwrap();
    place.until("the watcher hears of the next", &mut process, async || heard(&place, "watcher") == [2, 3]).await;
    finish(&place.world, std::slice::from_ref(&run));
    place.drained(&[run], 2, &mut process).await;
    place.stop(process).await;
    let (hook, watcher) = (heard(&place, "hook"), heard(&place, "watcher"));
    let last = i64::try_from(hook.len()).unwrap();
    assert_eq!(hook, (1..=last).collect::<Vec<_>>(), "each change once, over the move");
    assert_eq!(watcher, (2..=last).collect::<Vec<_>>(), "each change since it was asked for once, over the move");
    let ledger = place.store().await.overview().await.unwrap().ledger;
    assert!(ledger.is_balanced() && ledger.open == 0 && ledger.dead == 0, "{ledger:?}");
    assert_eq!(place.sink.complaints(), Vec::<String>::new());
}

/// The sequences of the changes that arrived there, in order.
fn heard(place: &Place, hook: &str) -> Vec<i64> {
    let accepted = place.sink.accepted();
    let here = accepted.iter().filter(|seen| seen.path == format!("/hooks/{hook}"));
    here.flat_map(changes).map(|change| change["data"]["sequence"].as_i64().unwrap()).collect()
}
