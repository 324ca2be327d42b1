//! A deterministic simulation of delivery: the real tracker and dispatcher on a model of the store, with everything that
//! can go wrong around them, from a seed. After every step all promises are checked; at the end the faults stop, and
//! everything owed has to arrive.
//!
//! `SEEDS` says how many lives are lived, `SEED` which one is lived with its trace printed. A life that breaks a promise
//! is shortened as far as it still does, printed, and kept in `regressions.txt`, which is lived first ever after.

mod life;
mod oracle;
#[cfg(feature = "planted-bugs")]
mod planted;
mod scenario;
mod views;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::life::live;
use self::scenario::Scenario;

/// Lives that broke a promise once, with the events that are needed for it.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub rule: String,
    pub trace: Vec<String>,
}

impl Broken {
    /// The promise without what differs from life to life.
    fn promise(&self) -> &str {
        self.rule.split(':').next().unwrap_or_default()
    }
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(50_000)
}

#[test]
fn no_promise_is_broken_in_any_life() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        let scenario = Scenario::of(seed);
        let broken = live(&scenario, true);
        let trace = broken.as_ref().err().map(|broken| broken.trace.join("\n")).unwrap_or_default();
        panic!("{:#?}\n{trace}\n{:?}", scenario.events, broken.map_err(|broken| broken.rule));
    }
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let scenario: Scenario = serde_json::from_str(line).expect("a scenario");
        if let Err(broken) = live(&scenario, true) {
            panic!("it happens again: {line}\n{}\n{}", broken.trace.join("\n"), broken.rule);
        }
    }
    let (seeds, counts) = (seeds(), Mutex::new(BTreeMap::new()));
    if let Some((scenario, broken)) = search(0, seeds, &counts) {
        let (scenario, broken) = shortened(scenario, broken);
        panic!("{}", story(&scenario, &broken));
    }
    let counts = counts.into_inner().unwrap();
    crate::results::record("simulation", usize::try_from(seeds).unwrap(), Some(0), "no promise broken");
    // A simulation in which nothing happens proves nothing.
    for what in life::WHAT_MUST_HAPPEN {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "{what} never happened in {seeds} lives: {counts:?}");
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in 0..200 {
        let scenario = Scenario::of(seed);
        assert_eq!(life::trace(&scenario), life::trace(&scenario), "seed {seed}");
    }
}

/// Lives the lives of `from..to` on every core, up to the first one that breaks a promise.
fn search(from: u64, to: u64, counts: &Mutex<BTreeMap<&'static str, u64>>) -> Option<(Scenario, Broken)> {
    let next = AtomicU64::new(from);
    let (over, found) = (AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut own = BTreeMap::new();
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let scenario = Scenario::of(seed);
                    match live(&scenario, false) {
                        Ok(counted) => {
                            for (what, count) in counted {
                                *own.entry(what).or_insert(0) += count;
                            }
                        }
                        Err(broken) => {
                            over.store(true, Ordering::Relaxed);
                            found.lock().unwrap().get_or_insert((scenario, broken));
                        }
                    }
                }
                let mut counts = counts.lock().unwrap();
                for (what, count) in own {
                    *counts.entry(what).or_insert(0) += count;
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// The same promise broken with as few events as possible.
fn shortened(scenario: Scenario, broken: Broken) -> (Scenario, Broken) {
    let promise = broken.promise().to_owned();
    let (mut scenario, mut broken) = (scenario, broken);
    let mut size = scenario.events.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < scenario.events.len() {
            let mut fewer = scenario.clone();
            let to = (from + size).min(fewer.events.len());
            fewer.events.drain(from..to);
            match live(&fewer, true) {
                Err(still) if still.promise() == promise => (scenario, broken) = (fewer, still),
                _ => from += size,
            }
        }
        size /= 2;
    }
    if let Err(traced) = live(&scenario, true) {
        broken = traced;
    }
    (scenario, broken)
}

fn story(scenario: &Scenario, broken: &Broken) -> String {
    let line = serde_json::to_string(scenario).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/simulation/regressions.txt");
    let kept = std::fs::OpenOptions::new().append(true).open(file);
    let kept = kept.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
    let mut story = format!("{}\n\nsubscriptions: {:?}\n", broken.rule, scenario.subscriptions);
    for event in &scenario.events {
        let _ = writeln!(story, "  {event:?}");
    }
    let _ = write!(story, "\n{}\n\nkept in regressions.txt: {line} ({kept:?})", broken.trace.join("\n"));
    story
}
