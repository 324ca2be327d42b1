//! Ten thousand deliveries wait when the program starts, failures among them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use callboard::model::{Destination, Timestamp};

use crate::place::{Place, Way};
use crate::seed::{self, CHANGES, Past};
use crate::{load, results, verdict};

const FIRST: Duration = Duration::from_secs(2);
/// KiB.
const MEMORY: u64 = 100 * 1024;
const PATIENCE: Duration = Duration::from_secs(1_200);

/// `ROWS`: how many wait.
pub async fn measure() {
    let rows = results::cases("ROWS", 10_000);
    case("10,000 pending, some minutes old", rows, Duration::from_secs(120)).await;
    case("10,000 pending, eight hours old", rows, Duration::from_secs(8 * 3600)).await;
}

fn ways() -> Vec<Way> {
    [("webhook", 6), ("slack-webhook", 2), ("dingtalk", 2)]
        .iter()
        .flat_map(|(kind, count)| (0..*count).map(move |number| Way::of(kind, format!("{kind}-{number}"))))
        .collect()
}

/// The failing runs are the newest ones: what they say has everything else before it.
async fn case(name: &str, rows: usize, age: Duration) {
    let ways = ways();
    let place = Place::new(&ways, "5s", &["finished"]).await;
    let count = rows / ways.len() / CHANGES;
    let mut runs: Vec<Past> = (0..count).map(|number| Past::new(number, number + count / 20 >= count)).collect();
    let to: Vec<Destination> = ways.iter().map(|way| Destination::Channel(way.name.clone())).collect();
    seed::owe(&place.settings(), &mut runs, &to, Timestamp::now() - age, Duration::from_secs(60)).await;
    runs.iter().for_each(|run| run.show(&place.world));

    let began = Instant::now();
    let mut process = place.start();
    let mut told = Told::default();
    while !told.is_over(&place).await {
        tokio::time::sleep(Duration::from_millis(200)).await;
        told.read(&place, began);
        assert!(process.is_running() && began.elapsed() < PATIENCE, "{}", place.log());
    }
    let (drained, peak) = (began.elapsed(), process.memory("VmHWM").unwrap());
    process.signal("TERM");
    assert_eq!(process.exit(), Some(0), "{}", place.log());
    told.read(&place, began);

    let first = told.failures.values().min().copied().unwrap_or(Duration::MAX);
    println!("first message {:.2?}", told.first.unwrap_or_default());
    for (path, after) in &told.failures {
        println!("  first failure at {path}: {after:.2?}");
    }
    assert_eq!(told.failures.len(), ways.len(), "each hears of a failure");
    let result = format!(
        "{}first failure notice after {first:.2?}, {} MiB at most; webhooks drained after {:.1?}, all after {drained:.0?} \
         in {} messages ({})",
        verdict(first < FIRST && peak < MEMORY),
        peak >> 10,
        told.hooks_done.unwrap_or_default(),
        told.messages,
        load(),
    );
    results::record(name, rows, None, &result);
}

#[derive(Default)]
struct Told {
    first: Option<Duration>,
    /// The first failure notice at each destination.
    failures: BTreeMap<String, Duration>,
    /// When the last message arrived at a destination without a pace.
    hooks_done: Option<Duration>,
    messages: usize,
    paths: BTreeSet<String>,
}

impl Told {
    fn read(&mut self, place: &Place, began: Instant) {
        for arrival in place.sinks.take() {
            let after = arrival.at - began;
            self.first.get_or_insert(after);
            self.messages += 1;
            if arrival.is_failure() {
                self.failures.entry(arrival.path.clone()).or_insert(after);
            }
            if arrival.path.starts_with("/hooks/") {
                self.hooks_done = Some(after);
            }
            self.paths.insert(arrival.path);
        }
    }

    async fn is_over(&self, place: &Place) -> bool {
        // Asked only from time to time: the page counts in the store.
        self.messages > 0
            && place.sinks.count() == self.messages
            && place.metric("callboard_deliveries_open ").await == Some(0.0)
    }
}
