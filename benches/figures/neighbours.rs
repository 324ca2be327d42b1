//! Two hundred destinations of which one is bad: what the others notice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use callboard::demo::dataworks::RunSpec;
use callboard::model::RunId;

use crate::place::{PROJECT, Place, Way, closed_port};
use crate::sinks::Manner;
use crate::{load, median, percentile, results, verdict};

const DESTINATIONS: usize = 200;
/// So many hear of each change.
const GROUP: usize = 10;
const BETWEEN: Duration = Duration::from_millis(50);
/// What happens before that is not counted: connections are made then.
const WARM_UP: Duration = Duration::from_secs(2);
/// In percent.
const MOST_GROWTH: f64 = 10.0;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bad {
    None,
    Mute,
    Refuses,
    Drips,
}

impl Bad {
    const ALL: [Bad; 4] = [Bad::None, Bad::Mute, Bad::Refuses, Bad::Drips];

    fn name(self) -> &'static str {
        match self {
            Bad::None => "all good",
            Bad::Mute => "one is mute",
            Bad::Refuses => "one refuses",
            Bad::Drips => "one drips",
        }
    }
}

/// `ROUNDS`: how often each case is played, one after the other in turn; `CHANGES`: how many changes each has.
pub async fn measure() {
    let (rounds, changes) = (results::cases("ROUNDS", 5), results::cases("CHANGES", 300));
    let mut figures: HashMap<&str, Vec<[f64; 2]>> = HashMap::new();
    for round in 0..rounds {
        // Begins with another one each time, so that a drift of the machine hits all alike.
        for place in 0..Bad::ALL.len() {
            let bad = *Bad::ALL.get((place + round) % Bad::ALL.len()).unwrap();
            let latencies = case(bad, changes).await;
            let both = [0.5, 0.99].map(|share| percentile(&latencies, share).as_secs_f64() * 1e3);
            println!("round {round}, {}: p50 {:.0} ms, p99 {:.0} ms, {}", bad.name(), both[0], both[1], load());
            figures.entry(bad.name()).or_default().push(both);
        }
    }
    let of = |bad: Bad, which: usize| {
        median(figures[bad.name()].iter().map(|both| both.get(which).copied().unwrap()).collect())
    };
    let quietest = |bad: Bad| figures[bad.name()].iter().map(|both| both[1]).fold(f64::INFINITY, f64::min);
    let good = of(Bad::None, 1);
    let mut said = vec![format!(
        "all good: p50 {:.0} ms, p99 {good:.0} ms, {:.0} ms in the quietest round",
        of(Bad::None, 0),
        quietest(Bad::None)
    )];
    let mut reached = true;
    for bad in Bad::ALL.into_iter().skip(1) {
        let growth = (of(bad, 1) / good - 1.0) * 100.0;
        reached &= growth <= MOST_GROWTH;
        said.push(format!("{}: p99 {:.0} ms ({growth:+.0} %), {:.0} ms", bad.name(), of(bad, 1), quietest(bad)));
    }
    let result = format!("{}{} ({})", verdict(reached), said.join("; "), load());
    results::record("one bad of 200 destinations", rounds * Bad::ALL.len(), None, &result);
}

/// From each change to each of its arrivals, sorted.
async fn case(bad: Bad, changes: usize) -> Vec<Duration> {
    let mut ways: Vec<Way> = (0..DESTINATIONS).map(|number| Way::of("webhook", format!("hook-{number}"))).collect();
    let last = ways.last_mut().unwrap();
    if bad == Bad::Refuses {
        last.url = Some(format!("http://{}/hooks/{}", closed_port().await, last.name));
    }
    let bad_path = last.path();
    let groups: Vec<&[Way]> = ways.chunks(GROUP).collect();
    let place = Place::in_groups(&groups, "20ms", &[]).await;
    let manner = match bad {
        Bad::Mute => Some(Manner::Mute),
        Bad::Drips => Some(Manner::Drip),
        Bad::None | Bad::Refuses => None,
    };
    place.sinks.behave(&bad_path, manner);
    let process = place.start();
    place.ready().await;
    let mut happened: HashMap<(String, String, String), Instant> = HashMap::new();
    let begin =
        |group: usize| place.world.add_run(PROJECT, RunSpec::standard("release").created_by(&group.to_string()));
    let mut runs: Vec<RunId> = (0..groups.len()).map(begin).collect();
    tokio::time::sleep(WARM_UP / 2).await;
    let mut next = tokio::time::interval(BETWEEN);
    let mut expected = 0;
    for change in 0..changes {
        next.tick().await;
        let group = change % groups.len();
        let run = &mut runs[group];
        advance(&place, run, &mut happened);
        expected += groups[group].iter().filter(|way| way.path() != bad_path).count();
        if place.world.look(PROJECT, run).unwrap().0.is_terminal() {
            // Seen for the first time before it moves on, a whole turn later.
            *run = begin(group);
        }
    }
    let end = Instant::now() + PATIENCE;
    let (mut latencies, mut arrived) = (Vec::new(), 0);
    let first = happened.values().min().copied().unwrap();
    while arrived < expected {
        assert!(Instant::now() < end, "{arrived} of {expected} arrived: {}", place.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
        for arrival in place.sinks.take().into_iter().filter(|arrival| arrival.path != bad_path) {
            for change in arrival.changes() {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let data = &change["data"];
                let key = (text(&data["run"]["id"]), text(&data["stage"]["code"]), text(&data["to"]));
                let at = happened[&key];
                arrived += 1;
                if at > first + WARM_UP {
                    latencies.push(arrival.at - at);
                }
            }
        }
    }
    drop(process);
    latencies.sort();
    latencies
}

fn advance(place: &Place, run: &RunId, happened: &mut HashMap<(String, String, String), Instant>) {
    let before = place.world.look(PROJECT, run).unwrap().1;
    let at = Instant::now();
    place.world.advance(PROJECT, run).unwrap();
    let after = place.world.look(PROJECT, run).unwrap().1;
    for (code, status) in after.into_iter().filter(|stage| !before.contains(stage)) {
        happened.insert((run.to_string(), code, status.to_string()), at);
    }
}
