//! What a template may say: a change as the variables of docs/templates.md, cleaned, in the words of a locale.

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use super::clean;
use super::words::{Words, abbreviation, brief, moment};
use crate::model::{Change, ChangeKind, Snapshot, Stage, Status, Timestamp, Workspace};

pub(super) const NAME: usize = 80;
const DESCRIPTION: usize = 120;
const ERROR: usize = 700;
const URL: usize = 2000;
/// Stages named in the message of a run that started.
const PAST: usize = 20;
/// A message this late says so.
const LATE_MS: i64 = 120_000;

/// In whose words and at whose time.
pub(super) struct View<'a> {
    pub(super) words: &'a Words,
    pub(super) zone: &'a TimeZone,
    pub(super) now: Timestamp,
}

/// The variables. Every name is always there; what does not apply is null, or an empty list.
#[derive(Debug, Default, Serialize)]
pub(super) struct Facts {
    pub(super) symbol: &'static str,
    pub(super) workspace: Option<Value>,
    pub(super) run: Option<Value>,
    pub(super) stage: Option<Value>,
    pub(super) from: Option<String>,
    pub(super) from_word: Option<String>,
    pub(super) to: Option<String>,
    pub(super) to_word: Option<String>,
    pub(super) unknown: Option<String>,
    pub(super) took: Option<String>,
    pub(super) error: Option<String>,
    pub(super) next: Option<String>,
    pub(super) next_name: Option<String>,
    pub(super) next_type: Option<String>,
    pub(super) next_type_word: Option<String>,
    pub(super) past: Vec<Value>,
    pub(super) waiting_since: Option<String>,
    pub(super) waited: Option<String>,
    pub(super) last_seen: Option<String>,
    pub(super) at: String,
    pub(super) zone: String,
    pub(super) unseen_since: Option<String>,
    pub(super) delayed: Option<String>,
    pub(super) url: String,
    pub(super) url_label: String,
    // Of digests.
    pub(super) late: Option<bool>,
    pub(super) present: Option<bool>,
    pub(super) state: Option<&'static str>,
    pub(super) state_word: Option<String>,
    pub(super) count: Option<usize>,
    pub(super) tally: Vec<Value>,
    pub(super) runs: Vec<Value>,
    // Of notices.
    pub(super) notice: Option<&'static str>,
    pub(super) destination: Option<String>,
    pub(super) bot: Option<String>,
    pub(super) workspaces: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) since: Option<String>,
    pub(super) lasted: Option<String>,
}

/// What a template may say of a change.
pub(super) fn facts(change: &Change, view: &View<'_>) -> Facts {
    let words = view.words;
    let moves = Moves::of(change);
    let stage = subject(change);
    let of_run = matches!(change.kind, ChangeKind::Finished { .. });
    let word =
        |status: &Status| clean::line(if of_run { words.run_status(status) } else { words.stage_status(status) }, NAME);
    let next = match moves.to {
        Some(Status::Success) if !of_run => stage.as_ref().and_then(|stage| change.run.next_after(&stage.code)),
        _ => None,
    };
    let (waiting_since, last_seen) = match &change.kind {
        ChangeKind::Waiting { since, .. } => (Some(*since), None),
        ChangeKind::Lost { last_seen } => (None, Some(*last_seen)),
        _ => (None, None),
    };
    Facts {
        symbol: change.tone().symbol(),
        workspace: Some(workspace(&change.workspace)),
        run: Some(run(&change.run, view)),
        stage: stage.as_ref().map(|stage| self::stage(stage, &change.run, words)),
        from: moves.from.map(status_text),
        from_word: moves.from.map(word),
        to: moves.to.map(status_text),
        to_word: moves.to.map(word),
        unknown: moves.to.filter(|to| matches!(to, Status::Unknown(_))).map(status_text),
        took: moves.took_ms.and_then(|took| words.duration(took)),
        error: moves.to.and_then(|to| error(to, &change.run, stage.as_ref())),
        next: next.map(|next| clean::line(&next.code, NAME)),
        next_name: next.and_then(telling_name),
        next_type: next.map(|next| clean::line(&next.kind, NAME)),
        next_type_word: next.map(|next| clean::line(words.stage_type(&next.kind), NAME)),
        past: past(&change.run, words),
        waiting_since: waiting_since.map(|since| moment(since, view.zone, view.now)),
        waited: waiting_since.and_then(|since| words.duration(millis_between(since, change.at))),
        last_seen: last_seen.map(|seen| moment(seen, view.zone, view.now)),
        at: moment(change.at, view.zone, view.now),
        zone: abbreviation(view.zone, view.now),
        unseen_since: change.unseen_since.map(|since| brief(since, view.zone, view.now)),
        delayed: delayed(change.at, view),
        url: url(&change.url),
        url_label: words.open.to_owned(),
        ..Facts::default()
    }
}

pub(super) fn workspace(workspace: &Workspace) -> Value {
    json!({
        "name": clean::line(&workspace.name, NAME),
        "project_id": workspace.project_id.to_string(),
        "region": clean::line(&workspace.region, NAME),
    })
}

/// How long ago that is, where a message about it counts as late.
pub(super) fn delayed(at: Timestamp, view: &View<'_>) -> Option<String> {
    let late = millis_between(at, view.now);
    (late > LATE_MS).then(|| view.words.duration(late)).flatten()
}

/// The link to the run, fit for a message.
pub(super) fn url(raw: &str) -> String {
    clean::line(raw, URL)
}

pub(super) fn status_text(status: &Status) -> String {
    clean::line(status.as_str(), NAME)
}

/// From where to where, and how long it took.
struct Moves<'a> {
    from: Option<&'a Status>,
    to: Option<&'a Status>,
    took_ms: Option<i64>,
}

impl<'a> Moves<'a> {
    fn of(change: &'a Change) -> Moves<'a> {
        match &change.kind {
            ChangeKind::StageChanged { from, to, took_ms, .. } | ChangeKind::Finished { from, to, took_ms } => {
                Moves { from: Some(from), to: Some(to), took_ms: *took_ms }
            }
            _ => Moves { from: None, to: None, took_ms: None },
        }
    }
}

/// The stage the message is about: the one that changed or waits; for a run that ended otherwise than well, or was
/// lost, the one it was at.
fn subject(change: &Change) -> Option<Stage> {
    match &change.kind {
        ChangeKind::StageChanged { stage, to: status, .. } => Some(named(change, stage, status.clone())),
        ChangeKind::Waiting { stage, .. } => Some(named(change, stage, Status::Init)),
        ChangeKind::Finished { to: Status::Success, .. } | ChangeKind::Started => None,
        ChangeKind::Finished { to, .. } => {
            change.run.stages.iter().find(|stage| stage.status == *to).or(change.run.current()).cloned()
        }
        ChangeKind::Lost { .. } => change.run.current().cloned(),
    }
}

/// A change names a stage of its run; one that does not is still told, by the code alone.
fn named(change: &Change, code: &str, status: Status) -> Stage {
    change.run.stage(code).cloned().unwrap_or_else(|| Stage {
        code: code.to_owned(),
        name: String::new(),
        step: 0,
        kind: String::new(),
        status,
        message: String::new(),
    })
}

pub(super) fn run(run: &Snapshot, view: &View<'_>) -> Value {
    let title = match clean::line(&run.description, DESCRIPTION) {
        description if description.is_empty() => run.id.short().to_owned(),
        description => description,
    };
    json!({
        "id": run.id.as_str(),
        "short": run.id.short(),
        "title": title,
        "description": clean::line(&run.description, DESCRIPTION),
        "creator": clean::line(&run.creator, NAME),
        "status": status_text(&run.status),
        "status_word": clean::line(view.words.run_status(&run.status), NAME),
        "message": clean::block(&run.message, ERROR),
        "stages": run.stages.len(),
        "created_at": run.created_at.map(|at| moment(at, view.zone, view.now)),
    })
}

pub(super) fn stage(stage: &Stage, run: &Snapshot, words: &Words) -> Value {
    json!({
        "code": clean::line(&stage.code, NAME),
        "name": telling_name(stage),
        "type": clean::line(&stage.kind, NAME),
        "type_word": clean::line(words.stage_type(&stage.kind), NAME),
        "status": status_text(&stage.status),
        "status_word": clean::line(words.stage_status(&stage.status), NAME),
        "step": stage.step,
        "position": run.position(&stage.code),
        "count": run.stages.len(),
        "message": clean::block(&stage.message, ERROR),
    })
}

/// The name of a stage where it says more than its code.
fn telling_name(stage: &Stage) -> Option<String> {
    let name = clean::line(&stage.name, NAME);
    (!name.is_empty() && !name.eq_ignore_ascii_case(stage.code.trim())).then_some(name)
}

/// Stages already past Init.
fn past(run: &Snapshot, words: &Words) -> Vec<Value> {
    run.stages
        .iter()
        .filter(|stage| stage.status != Status::Init)
        .take(PAST)
        .map(|stage| {
            json!({
                "code": clean::line(&stage.code, NAME),
                "name": telling_name(stage),
                "status": status_text(&stage.status),
                "status_word": clean::line(words.stage_status(&stage.status), NAME),
            })
        })
        .collect()
}

/// DataWorks' own words on why it went wrong or stopped: of the stage, else of the run.
pub(super) fn error(to: &Status, run: &Snapshot, stage: Option<&Stage>) -> Option<String> {
    if matches!(to, Status::Init | Status::Running | Status::Success) {
        return None;
    }
    let of_stage = stage.map(|stage| stage.message.as_str()).unwrap_or_default();
    [of_stage, run.message.as_str()].into_iter().map(|text| clean::block(text, ERROR)).find(|text| !text.is_empty())
}

pub(super) fn millis_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond().saturating_sub(from.as_millisecond())
}
