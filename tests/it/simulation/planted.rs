//! Each planted mistake breaks a promise in some life.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use callboard::planted::{Bug, plant};

use super::life::live;
use super::scenario::Scenario;

/// In so many lives each has to show.
const LIVES: u64 = 6_000;

#[test]
fn every_planted_mistake_is_noticed() {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    plant(Some(*bug));
                    let noticed = (0..LIVES).find_map(|seed| Some((seed, live(&Scenario::of(seed), false).err()?)));
                    plant(None);
                    found.lock().unwrap().insert(format!("{bug:?}"), noticed);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    for (bug, noticed) in &found {
        match noticed {
            Some((seed, broken)) => println!("{bug}: seed {seed}: {}", broken.rule),
            None => println!("{bug}: nobody noticed it"),
        }
    }
    let unnoticed: Vec<_> = found.iter().filter(|(_, noticed)| noticed.is_none()).map(|(bug, _)| bug).collect();
    assert!(unnoticed.is_empty(), "nobody noticed {unnoticed:?} in {LIVES} lives");
    crate::results::record("planted mistakes", Bug::ALL.len(), Some(0), "each noticed");
}
