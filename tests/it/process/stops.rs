//! SIGTERM: what is under way is finished, and nothing is left in doubt.

use std::time::{Duration, Instant};

use callboard::demo::dataworks::RunSpec;
use callboard::model::DeliveryState;
use callboard::store::DeliveryFilter;
use futures_util::StreamExt;

use super::{Books, PROJECT, Place, finish};
use crate::results;
use crate::sink::Answer;

#[tokio::test]
async fn a_stop_ends_well_and_in_time() {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    assert!(place.answers("/healthz", 200).await);
    let began = Instant::now();
    place.stop(process).await;
    let took = began.elapsed();
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(14), "a supervisor would have killed it after {took:?}");
}

/// Each time several messages are under way, to sinks that take up to three seconds to answer. `STOPS=2000` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_send_leaves_nothing_in_doubt() {
    let (stops, seed) = (results::cases("STOPS", 12), results::seed());
    println!("SEED={seed} repeats the moments of the stops");
    let one = |number: u64| stopped_while_sending(seed.wrapping_add(number));
    let all: Vec<Books> = futures_util::stream::iter((0..stops as u64).map(one)).buffer_unordered(16).collect().await;
    let mut books = Books::default();
    all.iter().for_each(|one| books.add(one));
    assert_eq!((books.extra, books.unknown), (0, 0), "SEED={seed}");
    results::record("SIGTERM in the middle of a send", stops, Some(seed), &books.to_string());
}

async fn stopped_while_sending(seed: u64) -> Books {
    let mut random = fastrand::Rng::with_seed(seed);
    let told = format!("SEED={seed}");
    let hooks = ["one", "two", "three"];
    let place = Place::with_hooks(&hooks).await;
    let mut process = place.start();
    place.ready(&mut process).await;
    for hook in hooks {
        let late = Duration::from_millis(random.u64(1_000..3_000));
        place.sink.answer(&format!("/hooks/{hook}"), [Answer::Late(late)]);
    }
    let run = place.world.add_run(PROJECT, RunSpec::online("stopped"));
    place.sink.until_seen(random.usize(1..=hooks.len())).await;
    tokio::time::sleep(Duration::from_millis(random.u64(0..1_000))).await;
    // A change that waits for the one before it is not begun any more.
    place.world.advance(PROJECT, &run).unwrap();
    process.terminate();
    assert_eq!(process.exit().await.code(), Some(0), "{told}: {}", place.log());

    let store = place.store().await;
    let rows = store.deliveries(&DeliveryFilter { limit: 100, ..DeliveryFilter::default() }).await.unwrap();
    for row in &rows {
        let known = matches!(row.state, DeliveryState::Delivered | DeliveryState::Pending);
        assert!(known, "{told}: the stop left a message {}", row.state.as_str());
    }
    let delivered = rows.iter().filter(|row| row.state == DeliveryState::Delivered).count();
    assert_eq!(delivered, place.sink.seen().len(), "{told}: what arrived is not what the store knows of");
    assert!(delivered > 0, "{told}: nothing was under way");
    drop(store);

    let mut process = place.start();
    place.ready(&mut process).await;
    finish(&place.world, std::slice::from_ref(&run));
    place.drained(&[run], hooks.len(), &mut process).await;
    place.stop(process).await;
    Books::closed(&place, &told).await
}
