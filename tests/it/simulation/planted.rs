//! Each planted mistake breaks a promise in some life.

use std::collections::BTreeMap;

use callboard::planted::{Bug, plant};

use super::life::live;
use super::scenario::Scenario;

/// In so many lives each has to show.
const LIVES: u64 = 3_000;

#[test]
fn every_planted_mistake_is_noticed() {
    let (mut noticed, mut unnoticed) = (BTreeMap::new(), Vec::new());
    for bug in Bug::ALL {
        plant(Some(bug));
        let found = (0..LIVES).find_map(|seed| Some((seed, live(&Scenario::of(seed), false).err()?)));
        plant(None);
        match found {
            Some((seed, broken)) => drop(noticed.insert(format!("{bug:?}"), (seed, broken.rule))),
            None => unnoticed.push(bug),
        }
    }
    for (bug, (seed, rule)) in &noticed {
        println!("{bug}: seed {seed}: {rule}");
    }
    assert!(unnoticed.is_empty(), "nobody noticed {unnoticed:?} in {LIVES} lives");
    crate::results::record("planted mistakes", Bug::ALL.len(), Some(0), "each noticed");
}
