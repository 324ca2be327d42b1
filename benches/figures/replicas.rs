//! Several replicas on one PostgreSQL, which syncs what it confirms, on this same machine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use callboard::demo::dataworks::RunSpec;
use callboard::model::{Destination, RunId, Timestamp};
use callboard::store::{Recorded, Role, Settings, open};

use crate::place::{PROJECT, Place, Process, Way, closed_port};
use crate::postgres::Server;
use crate::seed::{self, CHANGES, Past};
use crate::{load, median, percentile, results, verdict};

const REPLICAS: usize = 3;
const WORKSPACES: i64 = 200;
/// Until a dead one's workspaces are polled by others.
const TAKEN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(600);
/// For a replica that came to get its fair part.
const SHARING: Duration = Duration::from_secs(10);

/// `ROWS`: how many wait; `WATCHED`: runs; `TAKEOVERS`: replicas that die.
pub async fn measure() {
    let server = Server::start();
    delivery(&server).await;
    polling(&server).await;
    takeover(&server).await;
    recording(&server).await;
}

/// An empty database.
fn create(server: &Server, name: &str) -> String {
    server.execute(&format!("CREATE DATABASE {name}"));
    server.url_of(name)
}

fn hooks() -> Vec<Way> {
    (0..20).map(|number| Way::of("webhook", format!("hook-{number}"))).collect()
}

async fn start(place: &Place, count: usize) -> Vec<(SocketAddr, Process)> {
    let mut replicas = Vec::new();
    for _ in 0..count {
        let listen = closed_port().await;
        replicas.push((listen, place.start_at(listen)));
    }
    for (listen, _) in &replicas {
        place.ready_at(*listen).await;
    }
    replicas
}

async fn delivery(server: &Server) {
    let rows = results::cases("ROWS", 10_000);
    let mut rates = Vec::new();
    for replicas in [1, REPLICAS] {
        let ways = hooks();
        let place = Place::shared(create(server, &format!("delivery_{replicas}")), 1, &ways, "5s").await;
        let count = rows / ways.len() / CHANGES;
        let mut runs: Vec<Past> = (0..count).map(|number| Past::new(number, false)).collect();
        let to: Vec<Destination> = ways.iter().map(|way| Destination::Channel(way.name.clone())).collect();
        let minutes_ago = Timestamp::now() - Duration::from_secs(120);
        seed::owe(&place.settings(), &mut runs, &to, minutes_ago, Duration::from_secs(60)).await;
        runs.iter().for_each(|run| run.show(&place.world));

        let running = start(&place, replicas).await;
        let (mut told, mut moments) = (0, Vec::new());
        let end = Instant::now() + PATIENCE;
        while told < rows {
            assert!(Instant::now() < end, "{told} of {rows} arrived: {}", place.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
            for arrival in place.sinks.take() {
                told += arrival.changes().len();
                moments.push(arrival.at);
            }
        }
        let took = moments.iter().max().unwrap().duration_since(*moments.iter().min().unwrap());
        rates.push(told as f64 / took.as_secs_f64());
        drop(running);
    }
    let result = format!(
        "{}{:.0} a second with three, {:.0} with one ({})",
        verdict(rates[1] >= rates[0]),
        rates[1],
        rates[0],
        load()
    );
    results::record("replicas: delivery, three against one", rows, None, &result);
}

/// 200 workspaces that are due each second.
async fn polling(server: &Server) {
    let span = Duration::from_secs(20);
    let mut rates = Vec::new();
    for replicas in [1, REPLICAS] {
        let url = create(server, &format!("polling_{replicas}"));
        let place = Place::shared(url, WORKSPACES, &hooks(), "1s").await;
        let running = start(&place, replicas).await;
        tokio::time::sleep(SHARING).await;
        let before = place.world.total_calls();
        tokio::time::sleep(span).await;
        rates.push((place.world.total_calls() - before) as f64 / span.as_secs_f64());
        drop(running);
    }
    let result = format!(
        "{}{:.1} calls a second with three, {:.1} with one ({})",
        // One call more or less lies in where the span begins.
        verdict(rates[1] >= rates[0] - 10.0),
        rates[1],
        rates[0],
        load()
    );
    results::record("replicas: polling of 200 workspaces, three against one", 200, None, &result);
}

/// Something changes everywhere in the moment in which one dies; the last change to arrive is one of its workspaces.
async fn takeover(server: &Server) {
    let deaths = results::cases("TAKEOVERS", 5);
    let place = Place::shared(create(server, "takeover"), WORKSPACES, &hooks()[..1], "1s").await;
    let projects = PROJECT..PROJECT + WORKSPACES;
    let add = |project: i64| (project, place.world.add_run(project, RunSpec::standard("orders_daily")));
    let mut runs: Vec<(i64, RunId)> = projects.clone().map(add).collect();
    let mut replicas = start(&place, REPLICAS).await;
    let mut took = Vec::new();
    for _ in 0..deaths {
        tokio::time::sleep(SHARING).await;
        place.sinks.take();
        let before = place.sinks.count();
        let (listen, dies) = replicas.remove(0);
        dies.kill();
        let began = Instant::now();
        for (project, run) in &runs {
            place.world.advance(*project, run).unwrap();
        }
        assert!(place.sinks.beyond(before + runs.len() - 1, PATIENCE).await, "{}", place.log());
        let last = place.sinks.take().iter().map(|arrival| arrival.at).max().unwrap();
        took.push(last - began);
        replicas.push((listen, place.start_at(listen)));
        place.ready_at(listen).await;
        let ended = |(project, run): &(i64, RunId)| place.world.look(*project, run).unwrap().0.is_terminal();
        if runs.iter().any(ended) {
            runs = projects.clone().map(add).collect();
        }
    }
    took.sort();
    let [half, last] = [0.5, 1.0].map(|share| percentile(&took, share));
    let result = format!(
        "{}a change in its workspaces arrives after {half:.1?}, {last:.1?} at most, a poll each second included ({})",
        verdict(last < TAKEN),
        load()
    );
    results::record("replicas: takeover of 200 workspaces' third from a dead one", deaths, None, &result);
}

/// Changes of watched runs, one after another, as the store records them.
async fn recording(server: &Server) {
    let watched = results::cases("WATCHED", 10_000);
    let url = create(server, "recording");
    let settings = Settings::of(url);
    let to = Destination::Channel("hook-0".to_owned());
    let mut runs: Vec<Past> = (0..watched)
        .map(|number| Past::of(PROJECT + i64::try_from(number).unwrap() % WORKSPACES, number, false))
        .collect();
    let store = open(&settings, Role::Owner).await.unwrap();
    let mut subscribing = Vec::new();
    for run in &mut runs {
        assert_eq!(store.record(&run.poll(&[], Timestamp::now())).await.unwrap(), Recorded::Done);
        let (store, (subscription, state)) = (store.clone(), run.watch(&to));
        subscribing.push(tokio::spawn(async move { store.subscribe(&subscription, Some(&state)).await.unwrap() }));
    }
    for task in subscribing {
        task.await.unwrap();
    }
    runs.iter_mut().for_each(Past::bump);
    drop(store);
    let commits = || -> f64 {
        let asked = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'recording'";
        server.execute(asked).parse().unwrap()
    };
    let store = open(&settings, Role::Owner).await.unwrap();
    let (before, mut took) = (commits(), Vec::new());
    let changes = watched / 5;
    for run in runs.iter_mut().take(changes) {
        let poll = run.poll(std::slice::from_ref(&to), Timestamp::now());
        let began = Instant::now();
        assert_eq!(store.record(&poll).await.unwrap(), Recorded::Done);
        took.push(began.elapsed());
    }
    drop(store);
    // What the connections did is counted once they are closed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (commits() - before) / changes as f64;
    let per_second = median(took.iter().map(|took| 1.0 / took.as_secs_f64()).collect());
    took.sort();
    let [half, most] = [0.5, 0.99].map(|share| percentile(&took, share));
    let result = format!(
        "{}{each:.2} transactions a change; {half:.1?} median, {most:.1?} p99, {per_second:.0} a second one by one ({})",
        // Opening and closing are a few.
        verdict(each < 1.02),
        load()
    );
    results::record("replicas: a change recorded at 10,000 watched runs in 200 workspaces", changes, None, &result);
}
