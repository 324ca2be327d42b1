//! Destinations that misbehave, each in its own way and all at once, beside one that does not.

use std::time::Duration;

use callboard::demo::dataworks::RunSpec;
use callboard::model::Timestamp;
use serde_json::{Value, json};

use super::{PROJECT, Place, Process};
use crate::results;
use crate::sink::Answer;

/// What one destination answers to its first message, and what the store then says of that.
struct Case {
    name: &'static str,
    answer: Answer,
    outcome: &'static str,
    /// A piece of the reason.
    reason: &'static str,
    /// The shortest and the longest wait until the next attempt, in seconds.
    wait: Option<(f64, f64)>,
}

fn case(name: &'static str, answer: Answer, outcome: &'static str, reason: &'static str) -> Case {
    Case { name, answer, outcome, reason, wait: None }
}

/// Without a wait that the sink asks for: 5 s, a fifth more or less.
const OWN: (f64, f64) = (4.0, 6.0);
const DAY: f64 = 86_400.0;

fn asked_to_wait() -> Vec<Case> {
    let at = |hours: i64| {
        let when = Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        when.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    let waits: [(&str, Option<String>, (f64, f64)); 14] = [
        ("absent", None, OWN),
        ("seconds", Some("30".into()), (30.0, 30.0)),
        ("zero", Some("0".into()), OWN),
        ("float", Some("12.5".into()), (12.5, 12.5)),
        ("tiny", Some("0.001".into()), OWN),
        ("date", Some(at(1)), (3_500.0, 3_600.0)),
        ("past", Some(at(-1)), OWN),
        ("far", Some(at(24 * 400)), (DAY, DAY)),
        ("negative", Some("-5".into()), OWN),
        ("too-many", Some("99999999999999999999".into()), (DAY, DAY)),
        ("exponent", Some("1e300".into()), (DAY, DAY)),
        ("endless", Some("inf".into()), OWN),
        ("garbage", Some("in a moment".into()), OWN),
        ("empty", Some(String::new()), OWN),
    ];
    let case = |(name, value, wait): (&'static str, Option<String>, (f64, f64))| {
        let headers: Vec<_> = value.iter().map(|value| ("retry-after", value.as_str())).collect();
        let answer = Answer::json(429, &headers, json!({}));
        Case { wait: Some(wait), ..self::case(name, answer, "limited", "asks for fewer messages") }
    };
    waits.into_iter().map(case).collect()
}

fn cases(elsewhere: &str) -> Vec<Case> {
    let html = "<!doctype html><title>Sign in</title>".repeat(50);
    let huge = "x".repeat(64 << 20);
    let to = |status, location: &str| Answer::json(status, &[("location", location)], json!({}));
    let mut all = vec![
        case("mute", Answer::Hang, "unknown", ""),
        case("slammed", Answer::Drop, "unknown", ""),
        case("broken-off", Answer::CutOff, "delivered", ""),
        // The status of success is there, and a receiver of Standard Webhooks says it with that alone.
        case("dripping", Answer::Drip, "delivered", ""),
        case("flooding", Answer::Flood, "delivered", ""),
        case("html", Answer::text(200, &[("content-type", "text/html")], &html), "delivered", ""),
        case("huge", Answer::text(200, &[], &huge), "delivered", ""),
        case("huge-failure", Answer::text(500, &[], &huge), "unknown", "status 500"),
        case("garbage-failure", Answer::text(502, &[], "\u{0}\u{7f}\u{1b}[2J{{{"), "unknown", "status 502"),
        case("gone", Answer::text(410, &[], &html), "dead", "no longer exists"),
        case("picky", Answer::status(422), "rejected", "does not accept this message"),
        case("odd", Answer::status(299), "delivered", ""),
        case("moved", to(301, elsewhere), "dead", "redirect"),
        case("found", to(302, elsewhere), "dead", "redirect"),
        case("see-other", to(303, elsewhere), "dead", "redirect"),
        case("kept", to(307, elsewhere), "dead", "redirect"),
        case("permanent", to(308, elsewhere), "dead", "redirect"),
        case("inward", to(307, "http://169.254.169.254/latest/meta-data"), "dead", "redirect"),
        case("nowhere", Answer::status(302), "dead", "redirect"),
        case("not-modified", Answer::status(304), "dead", "redirect"),
    ];
    all.extend(asked_to_wait());
    all
}

/// The most memory the process has ever had, in bytes.
fn peak(process: &mut Process) -> u64 {
    let path = format!("/proc/{}/status", process.child().id());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The first message of a destination as `callboard deliveries show` tells it.
fn shown(place: &Place, hook: &str) -> Value {
    let rows = place.json(&["deliveries", "list", "--to", hook]);
    let id = rows.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    place.json(&["deliveries", "show", &id])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_destination_has_its_outcome_and_troubles_no_other() {
    const GOOD: &str = "good";
    // Bodies that are read to the end, and what an allocator keeps.
    const MORE_MEMORY: u64 = 48 << 20;
    let names: Vec<&str> = cases("").iter().map(|case| case.name).chain([GOOD]).collect();
    let place = Place::with_hooks(&names).await;
    let elsewhere = place.sink.webhook("elsewhere", None);
    let cases = cases(&elsewhere);
    for case in &cases {
        place.sink.answer(&format!("/hooks/{}", case.name), [case.answer.clone()]);
    }
    let mut process = place.start();
    place.ready(&mut process).await;
    let before = peak(&mut process);
    let run = place.world.add_run(PROJECT, RunSpec::online("release"));
    place.until("each has its first message", &mut process, async || place.sink.seen().len() >= names.len()).await;

    // The mute one holds its message for ten seconds. The good one hears of the whole run meanwhile.
    place.world.finish(PROJECT, &run).unwrap();
    let told = async || {
        let accepted = place.sink.accepted();
        let good = accepted.iter().filter(|seen| seen.path == "/hooks/good");
        good.filter(|seen| seen.json()["type"] == "run.finished").count() == 1
    };
    place.until("the good one hears how it ended", &mut process, told).await;
    let row = shown(&place, "mute");
    assert_eq!(row["state"], "in_flight", "the good one had to wait for it: {row}");

    for case in &cases {
        let mut row = Value::Null;
        let settled = async || {
            row = shown(&place, case.name);
            !row["attempts"][0]["outcome"].is_null()
        };
        place.until(case.name, &mut process, settled).await;
        check(case, &row);
    }
    let grown = peak(&mut process) - before;
    assert!(grown < MORE_MEMORY, "{grown} bytes more than before");
    let followed = place.sink.seen().into_iter().filter(|seen| seen.path == "/hooks/elsewhere").count();
    assert_eq!(followed, 0, "a redirect was followed");
    place.stop(process).await;
    let log = place.log();
    assert!(!log.contains("/hooks/") && !log.contains("169.254"), "an address is in the log: {log}");
    let result = format!("each with its outcome on record, 0 redirects followed, {} MiB more memory", grown >> 20);
    results::record("destinations that misbehave", cases.len(), None, &result);
}

fn check(case: &Case, row: &Value) {
    let name = case.name;
    let first = &row["attempts"][0];
    assert_eq!(first["outcome"], case.outcome, "{name}: {row}");
    let reason = first["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(case.reason), "{name}: {row}");
    assert!(reason.is_empty() == (case.outcome == "delivered"), "{name}: a failure has a reason: {row}");
    assert!(!reason.contains("://"), "{name}: a reason with an address: {row}");
    let Some((shortest, longest)) = case.wait else { return };
    let moment = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let ended = moment(&first["ended_at"]);
    // It is the destination that waits. A short wait may be over by now; then the second attempt tells when it began.
    let (next, late) = match (&row["attempts"][1], &row["destination"]["until"]) {
        (Value::Null, Value::Null) => return assert!(longest < 60.0, "{name}: it does not wait: {row}"),
        (Value::Null, until) => (moment(until), 0.01),
        (second, _) => (moment(&second["started_at"]), Duration::from_secs(60).as_secs_f64()),
    };
    let waited = next.duration_since(ended).as_secs_f64();
    assert!((shortest - 0.01..=longest + late).contains(&waited), "{name}: waits {waited} s: {row}");
}
