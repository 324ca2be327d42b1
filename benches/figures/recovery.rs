//! From a start after `kill -9` to the first message that leaves.

use std::time::{Duration, Instant};

use callboard::demo::dataworks::RunSpec;

use crate::place::{PROJECT, Place, Way};
use crate::sinks::Manner;
use crate::{load, percentile, results, seed, verdict};

const TARGET: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// `KILLS`, and `HISTORY`: rows that were delivered before. It is killed while it waits for an answer, so that each
/// start finds something to send.
pub async fn measure() {
    let (kills, rows, seed) = (results::cases("KILLS", 100), results::cases("HISTORY", 10_000), results::seed());
    let mut random = fastrand::Rng::with_seed(seed);
    let ways: Vec<Way> = (0..3).map(|number| Way::of("webhook", format!("hook-{number}"))).collect();
    let place = Place::new(&ways, "100ms", &["started", "finished"]).await;
    let runs = seed::history(&place.settings(), rows).await;
    let mut process = place.start();
    place.ready().await;
    let (mut took, mut run) = (Vec::new(), place.world.add_run(PROJECT, RunSpec::standard("release")));
    for kill in 0..kills {
        // Some of it arrives, so that there is something in the log of the store as well.
        for _ in 0..3 {
            let before = place.sinks.count();
            if place.world.look(PROJECT, &run).unwrap().0.is_terminal() {
                run = place.world.add_run(PROJECT, RunSpec::standard(&format!("release {kill}")));
            } else {
                place.world.advance(PROJECT, &run).unwrap();
            }
            assert!(place.sinks.beyond(before, PATIENCE).await, "{}", place.log());
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..100))).await;
        let before = place.sinks.count();
        ways.iter().for_each(|way| place.sinks.behave(&way.path(), Some(Manner::Mute)));
        place.world.add_run(PROJECT, RunSpec::online(&format!("release {kill}")));
        assert!(place.sinks.beyond(before, PATIENCE).await, "{}", place.log());
        tokio::time::sleep(Duration::from_millis(random.u64(0..50))).await;
        process.kill();
        ways.iter().for_each(|way| place.sinks.behave(&way.path(), None));
        let before = place.sinks.count();
        place.sinks.take();
        let began = Instant::now();
        process = place.start();
        assert!(place.sinks.beyond(before, PATIENCE).await, "{}", place.log());
        took.extend(place.sinks.take().first().map(|first| first.at - began));
    }
    let size = place.store_file().metadata().unwrap().len() >> 20;
    took.sort();
    let [half, most, last] = [0.5, 0.99, 1.0].map(|share| percentile(&took, share));
    let result = format!(
        "{}median {half:.2?}, p99 {most:.2?}, longest {last:.2?} ({rows} delivered rows of {runs} runs, {size} MiB; {})",
        verdict(most < TARGET),
        load(),
    );
    results::record("from `kill -9` to the first send", kills, Some(seed), &result);
}
