//! How answers say where a run stands.

use std::time::Duration;

use crate::model::{RunState, Snapshot, Stage, Status, Text, Timestamp, Workspace, elapsed};
use crate::text;
use crate::tracker::Freshness;

/// Text of strangers on one line.
pub use crate::text::clean_line as one_line;

/// An answer in characters: a message at Discord holds 2,000, and escapes need some.
pub const LENGTH: usize = 1_700;

/// Whether the answer holds so much more.
pub fn holds(text: &Text, more: &Text) -> bool {
    let length = |text: &Text| text.to_string().chars().count();
    length(text) + length(more) <= LENGTH
}

/// At most `limit` characters, with an ellipsis where something is missing.
pub fn cut(text: &str, limit: usize) -> String {
    text::cut(text, limit, text::characters)
}

/// The languages of answers: Chinese for those who set it in their chat, else English.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tongue {
    is_chinese: bool,
}

impl Tongue {
    /// By what the platform says of the asker: `zh-CN`, `en-US`.
    pub fn of(locale: &str) -> Tongue {
        Tongue { is_chinese: locale.get(..2).is_some_and(|language| language.eq_ignore_ascii_case("zh")) }
    }

    pub fn say(self, english: impl Into<String>, chinese: impl Into<String>) -> String {
        if self.is_chinese { chinese.into() } else { english.into() }
    }
}

/// `a, b and c`
pub fn list(names: &[String], tongue: Tongue) -> String {
    let (comma, and) = (tongue.say(", ", "、"), tongue.say(" and ", "和"));
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{}{and}{last}", rest.join(&comma)),
        _ => names.concat(),
    }
}

/// The time in UTC, with the date where it is not today's: `08:00 UTC`, `2026-11-27 08:00 UTC`
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    at.strftime(if day(at) == day(now) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" }).to_string()
}

/// `48 s`, `3 min 10 s`, `2 h 5 min`, `3 d 4 h`
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, 0) => format!("{m} min"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, 0, _) => format!("{h} h"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, 0, _, _) => format!("{d} d"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// `orders_daily v12`, else `run 7b1e04c2`
pub fn title(run: &Snapshot) -> String {
    if run.description.trim().is_empty() {
        format!("run {}", run.id.short())
    } else {
        cut(&one_line(&run.description), 80)
    }
}

/// The first line of an answer about one run: `orders_daily v12 in warehouse (7b1e04c2): stage 2 of 3, PROD running`
pub fn head(workspace: &Workspace, run: &RunState, url: String, now: Timestamp) -> Text {
    Text::default()
        .link(title(&run.snapshot), url)
        .plain(format!(" in {} (", workspace.name))
        .code(run.snapshot.id.short())
        .plain(format!("): {}", standing(run, now)))
}

/// One line of a list of runs: `orders_daily v12 · Running · warehouse · 7b1e04c2`
pub fn label(workspace: &Workspace, run: &Snapshot) -> String {
    let name = cut(&title(run), 48);
    cut(&format!("{name} · {} · {} · {}", run.status, workspace.name, run.id.short()), 100)
}

/// Where a run stands: `stage 2 of 3, PROD_CHECK running for 48 s`
pub fn standing(run: &RunState, now: Timestamp) -> String {
    let snapshot = &run.snapshot;
    if snapshot.status.is_terminal() {
        let said = ended(&snapshot.status);
        let why = one_line(&snapshot.message);
        return if why.is_empty() { said.to_owned() } else { format!("{said}: {}", cut(&why, 200)) };
    }
    let Some(stage) = snapshot.current() else {
        return format!("{}, no stages yet", snapshot.status);
    };
    let place = snapshot.position(&stage.code).unwrap_or(1);
    format!(
        "stage {place} of {}, {} {}",
        snapshot.stages.len(),
        cut(&one_line(&stage.code), 60),
        stage_words(run, stage, now)
    )
}

/// `running for 48 s`, `waits for someone to start it`, `passed`
pub fn stage_words(run: &RunState, stage: &Stage, now: Timestamp) -> String {
    // Only once it has stood still for the grace time: an automatic run goes on by itself.
    let is_gate = run.gate.as_ref().is_some_and(|gate| gate.told && gate.stage == stage.code);
    let since = run.since.get(&stage.code).map(|since| duration(elapsed(*since, now)));
    match (&stage.status, since) {
        (Status::Init, _) if is_gate => "waits for someone to start it".to_owned(),
        (Status::Init, _) => "not started yet".to_owned(),
        (Status::Running, Some(since)) => format!("running for {since}"),
        (Status::Running, None) => "running".to_owned(),
        (Status::Success, _) => "passed".to_owned(),
        (Status::Fail, _) => "failed".to_owned(),
        (Status::Termination, _) => "terminated".to_owned(),
        (Status::Cancel, _) => "cancelled".to_owned(),
        (Status::Unknown(raw), _) => format!("in a state I don't know: {}", cut(&one_line(raw), 40)),
    }
}

pub fn ended(status: &Status) -> &'static str {
    match status {
        Status::Success => "ended with Success",
        Status::Fail => "ended with Fail",
        Status::Termination => "was terminated",
        Status::Cancel => "was cancelled",
        _ => "has not ended",
    }
}

/// How old what we say is, and why it may be older than wished.
pub fn age(freshness: &Freshness, now: Timestamp) -> Text {
    let ago = |at: Timestamp| duration(elapsed(at, now));
    let text = match freshness.seen_at {
        Some(seen) => Text::default().plain(format!("Last seen {} ago.", ago(seen))),
        None => Text::default().plain("Not seen yet."),
    };
    let text = match freshness.waits_until.filter(|until| *until > now) {
        Some(until) => {
            text.plain(format!(" Calls are rationed; the next look is in {}.", duration(elapsed(now, until))))
        }
        None => text,
    };
    let Some(failure) = &freshness.failure else { return text };
    let (since, said) = (ago(failure.since), text::stopped(&cut(&failure.said, 300)));
    text.plain(match failure.denied {
        true => {
            format!(" DataWorks has refused access for {since}: {said} Watches stay, what is missed is told later.")
        }
        false => format!(" Polling has failed for {since}: {said}"),
    })
}
