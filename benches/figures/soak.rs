//! Memory while everything around goes wrong again and again.

use std::time::{Duration, Instant};

use callboard::demo::dataworks::{Fault, RunSpec, World};
use callboard::model::RunId;
use rusqlite::Connection;

use crate::place::{PROJECT, Place, Process, Way};
use crate::sinks::Manner;
use crate::{load, median, results, verdict};

const FAULT_EVERY: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(250);
/// Growth from the second quarter to the last that still counts as flat, in KiB.
const FLAT: f64 = 1024.0;

/// The store's cache (`cache_size` in the store) fills first, and the memory of the first page's runs: in two minutes.
const LONG_ENOUGH: Duration = Duration::from_secs(1_200);

/// `SOAK`: seconds. A fault begins every half second and lasts up to two.
pub async fn measure() {
    let (seconds, seed) = (results::cases("SOAK", 90), results::seed());
    let mut random = fastrand::Rng::with_seed(seed);
    let kinds = [("webhook", 6), ("slack-webhook", 2), ("dingtalk", 1), ("discord-webhook", 1)];
    let ways = kinds.iter().flat_map(|(kind, count)| (0..*count).map(move |n| Way::of(kind, format!("{kind}-{n}"))));
    let ways: Vec<Way> = ways.collect();
    let place = Place::new(&ways, "100ms", &["started", "finished"]).await;
    let mut process = place.start();
    place.ready().await;
    let (began, total) = (Instant::now(), Duration::from_secs(seconds as u64));
    let mut ending: Vec<(Instant, Trouble)> = Vec::new();
    let (mut samples, mut runs, mut faults) = (Vec::new(), Vec::new(), 0_usize);
    let (mut next_fault, mut looked) = (began, began);
    while began.elapsed() < total {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        // Were all runs of one moment, none of them could be told to be old, and each would have to be remembered.
        place.world.step(now - looked);
        looked = now;
        ending.retain_mut(|(end, trouble)| {
            now < *end || {
                trouble.end(&place, &process);
                false
            }
        });
        for _ in 0..4 {
            happen(&place.world, &mut runs, &mut random);
        }
        if now >= next_fault {
            next_fault += FAULT_EVERY;
            faults += 1;
            let lasts = Duration::from_millis(random.u64(100..2_000));
            ending.push((now + lasts, Trouble::begin(&place, &process, &ways, &mut random)));
        }
        assert!(process.is_running(), "{}", place.log());
        samples.extend(process.memory("VmRSS").map(|kib| (began.elapsed().as_secs_f64(), kib as f64)));
        // Nothing is kept here either.
        place.sinks.take();
    }
    ending.iter_mut().for_each(|(_, trouble)| trouble.end(&place, &process));
    let messages = place.sinks.count();
    let owed = place.metric("callboard_deliveries_owed_total ").await.unwrap_or_default();
    let dead = place.metric("callboard_dead_destinations ").await.unwrap_or_default();
    let peak = process.memory("VmHWM").unwrap();
    process.signal("TERM");
    assert_eq!(process.exit(), Some(0), "{}", place.log());

    let part = |from: f64, to: f64| {
        let inside = samples.iter().filter(|(at, _)| (from..to).contains(&(at / total.as_secs_f64())));
        median(inside.map(|(_, kib)| *kib).collect())
    };
    for tenth in 0..10 {
        println!(
            "  {:>4} s: {:.1} MiB",
            seconds * tenth / 10,
            part(tenth as f64 / 10.0, (tenth + 1) as f64 / 10.0) / 1024.0
        );
    }
    let grown = part(0.75, 1.01) - part(0.25, 0.5);
    let slope = slope(samples.iter().filter(|(at, _)| *at > total.as_secs_f64() / 4.0));
    let result = format!(
        "{}{seconds} s, {} runs, {owed} owed, {messages} requests, {dead} destinations dead at the end: {:.1} MiB in the second quarter, {:+.0} KiB from there to the last, \
         slope {:+.1} KiB a minute, {} MiB at most ({})",
        if total < LONG_ENOUGH { "too short to judge: " } else { verdict(grown < FLAT) },
        runs.len(),
        part(0.25, 0.5) / 1024.0,
        grown,
        slope * 60.0,
        peak >> 10,
        load(),
    );
    results::record("memory with a fault every 500 ms", faults, Some(seed), &result);
}

/// Least squares, KiB a second.
fn slope<'a>(samples: impl Iterator<Item = &'a (f64, f64)>) -> f64 {
    let samples: Vec<&(f64, f64)> = samples.collect();
    let count = samples.len() as f64;
    let (x, y) = samples.iter().fold((0.0, 0.0), |(x, y), (at, kib)| (x + at / count, y + kib / count));
    let (over, under) = samples
        .iter()
        .fold((0.0, 0.0), |(over, under), (at, kib)| (over + (at - x) * (kib - y), under + (at - x) * (at - x)));
    over / under
}

/// A run begins or moves on; a tenth of them fail.
fn happen(world: &World, runs: &mut Vec<RunId>, random: &mut fastrand::Rng) {
    let recent = runs.iter().rev().take(20);
    let active: Vec<&RunId> = recent.filter(|run| !world.look(PROJECT, run).unwrap().0.is_terminal()).collect();
    match active.get(random.usize(0..5)) {
        None => runs.push(world.add_run(PROJECT, RunSpec::standard(&format!("release {}", runs.len())))),
        Some(run) if random.u8(0..100) == 0 => world.fail(PROJECT, run, "PROD", "table not found").unwrap(),
        Some(run) => world.advance(PROJECT, run).unwrap(),
    }
}

enum Trouble {
    Sink(String),
    DataWorks,
    Stopped,
    Locked(Option<Connection>),
}

impl Trouble {
    fn begin(place: &Place, process: &Process, ways: &[Way], random: &mut fastrand::Rng) -> Trouble {
        match random.u8(0..10) {
            0..6 => {
                let path = random.choice(ways).unwrap().path();
                let manners = [Manner::Mute, Manner::Drip, Manner::Down, Manner::Full, Manner::Slow, Manner::Garbage];
                place.sinks.behave(&path, random.choice(manners));
                Trouble::Sink(path)
            }
            6 => {
                let faults = [
                    Fault::internal_error(),
                    Fault::throttled(),
                    Fault::throttled_for(300),
                    Fault::Hang,
                    Fault::BreakOff,
                    Fault::garbage(),
                ];
                place.world.break_down(random.choice(faults).unwrap());
                Trouble::DataWorks
            }
            7 => {
                process.signal("STOP");
                Trouble::Stopped
            }
            _ => {
                let connection = Connection::open(place.store_file()).unwrap();
                connection.busy_timeout(Duration::ZERO).unwrap();
                // It may be locked already: then that one is enough.
                let locked = connection.execute_batch("BEGIN IMMEDIATE").is_ok();
                Trouble::Locked(locked.then_some(connection))
            }
        }
    }

    fn end(&mut self, place: &Place, process: &Process) {
        match self {
            Trouble::Sink(path) => place.sinks.behave(path, None),
            Trouble::DataWorks => place.world.recover(),
            Trouble::Stopped => process.signal("CONT"),
            Trouble::Locked(connection) => drop(connection.take()),
        }
    }
}
