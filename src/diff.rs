//! (what was remembered, what a poll saw) → (what to remember, what changed). Pure and total.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Change, ChangeKind, Gate, Missing, RunState, Snapshot, Status, Timestamp, Workspace};

/// What a poll means for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub state: RunState,
    /// In stage order; the end of the run comes last.
    pub changes: Vec<Change>,
    /// Worth a write: the run moved. Otherwise only memory learns (a doubt, a missing answer, a modification time).
    pub durable: bool,
}

/// Facts that every change of one poll shares.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub workspace: &'a Workspace,
    /// The console's link to the run.
    pub url: &'a str,
    pub at: Timestamp,
    /// How long a stage stands still before it is said to wait for a person.
    pub waiting_after: Duration,
}

/// A run is lost when the source denied it this often …
pub const LOST_TIMES: u32 = 3;
/// … over at least this long: a single wrong answer closes nothing.
pub const LOST_AFTER: Duration = Duration::from_secs(300);

/// The silent baseline of a run: where it stands is no news, a stage that waits already included.
pub fn baseline(snapshot: Snapshot, at: Timestamp) -> RunState {
    let gate = snapshot.gate().map(|stage| Gate { stage: stage.code.clone(), since: at, told: true });
    RunState {
        snapshot,
        version: 1,
        sequence: 0,
        since: BTreeMap::new(),
        first_seen: at,
        gate,
        doubted: false,
        missing: None,
        lost: false,
    }
}

/// A run that appeared after its workspace's baseline. Stages already past Init are told inside that one change; an
/// end that was reached before the first sight is a second one.
pub fn started(snapshot: Snapshot, context: Context<'_>) -> Step {
    let mut state = baseline(snapshot, context.at);
    if let Some(gate) = &mut state.gate {
        gate.told = false;
    }
    let mut kinds = vec![ChangeKind::Started];
    if state.snapshot.status.is_terminal() {
        kinds.push(finished(&state.snapshot, Status::Init, context.at));
    }
    kinds.extend(waiting(&mut state.gate, context));
    step(state, kinds, context)
}

/// A known run, seen again. `None`: nothing at all is new.
pub fn seen(old: &RunState, new: Snapshot, context: Context<'_>) -> Option<Step> {
    let backwards = gone_backwards(&old.snapshot, &new);
    if backwards && !old.doubted {
        let state = RunState { doubted: true, missing: None, ..old.clone() };
        return Some(Step { state, changes: Vec::new(), durable: false });
    }
    let gate = moved_gate(old, &new, context.at);
    let is_due = gate.as_ref().is_some_and(|gate| is_due(gate, context));
    if old.snapshot == new && gate == old.gate && !is_due && !old.doubted && old.missing.is_none() {
        return None;
    }
    let mut since = old.since.clone();
    let mut kinds = stage_changes(old, &new, &mut since, context.at);
    let mut state = RunState { snapshot: new, since, gate, doubted: false, missing: None, lost: false, ..old.clone() };
    kinds.extend(waiting(&mut state.gate, context));
    let ended = state.snapshot.status.is_terminal() && state.snapshot.status != old.snapshot.status;
    if ended {
        kinds.push(finished(&state.snapshot, old.snapshot.status.clone(), context.at));
    }
    if kinds.is_empty() && alike(&old.snapshot, &state.snapshot) {
        return Some(Step { state, changes: Vec::new(), durable: false });
    }
    state.version += 1;
    Some(step(state, kinds, context))
}

/// The source said that there is no such run. Only an active run can be lost.
pub fn missing(old: &RunState, context: Context<'_>) -> Step {
    let missing = match &old.missing {
        Some(before) => Missing { since: before.since, times: before.times.saturating_add(1) },
        None => Missing { since: context.at, times: 1 },
    };
    let is_lost = missing.times >= LOST_TIMES && elapsed(missing.since, context.at) >= LOST_AFTER;
    let mut state = RunState { missing: Some(missing.clone()), ..old.clone() };
    if !is_lost || old.lost || old.snapshot.status.is_terminal() {
        return Step { state, changes: Vec::new(), durable: false };
    }
    state.version += 1;
    state.lost = true;
    step(state, vec![ChangeKind::Lost { last_seen: missing.since }], context)
}

/// Time between two instants, zero when the clock went backwards.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

fn step(mut state: RunState, kinds: Vec<ChangeKind>, context: Context<'_>) -> Step {
    let changes = kinds
        .into_iter()
        .map(|kind| {
            state.sequence += 1;
            Change {
                workspace: context.workspace.clone(),
                run: state.snapshot.clone(),
                url: context.url.to_owned(),
                sequence: state.sequence,
                at: context.at,
                kind,
            }
        })
        .collect();
    Step { state, changes, durable: true }
}

fn stage_changes(
    old: &RunState,
    new: &Snapshot,
    since: &mut BTreeMap<String, Timestamp>,
    at: Timestamp,
) -> Vec<ChangeKind> {
    let mut kinds = Vec::new();
    for stage in &new.stages {
        let from = old.snapshot.stage(&stage.code).map_or(Status::Init, |before| before.status.clone());
        if from == stage.status {
            continue;
        }
        let entered = since.insert(stage.code.clone(), at);
        let took_ms = match from {
            Status::Init => None,
            _ => entered.map(|entered| milliseconds(elapsed(entered, at))),
        };
        kinds.push(ChangeKind::StageChanged { stage: stage.code.clone(), from, to: stage.status.clone(), took_ms });
    }
    since.retain(|code, _| new.stage(code).is_some());
    kinds
}

fn finished(run: &Snapshot, from: Status, at: Timestamp) -> ChangeKind {
    // DataWorks' own times where they differ, since both are by one clock; its modification time moves at the end.
    let end = match (run.created_at, run.modified_at) {
        (Some(created), Some(modified)) if modified > created => modified,
        _ => at,
    };
    let took_ms = run.created_at.filter(|created| *created <= end).map(|created| milliseconds(elapsed(created, end)));
    ChangeKind::Finished { from, to: run.status.clone(), took_ms }
}

/// The gate after this poll: the same one goes on, another one begins now.
fn moved_gate(old: &RunState, new: &Snapshot, at: Timestamp) -> Option<Gate> {
    let stage = new.gate()?;
    match &old.gate {
        Some(gate) if gate.stage == stage.code => Some(gate.clone()),
        _ => Some(Gate { stage: stage.code.clone(), since: at, told: false }),
    }
}

fn is_due(gate: &Gate, context: Context<'_>) -> bool {
    !gate.told && elapsed(gate.since, context.at) >= context.waiting_after
}

/// The waiting change, once a gate has stood for the grace time.
fn waiting(gate: &mut Option<Gate>, context: Context<'_>) -> Option<ChangeKind> {
    let gate = gate.as_mut().filter(|gate| is_due(gate, context))?;
    gate.told = true;
    Some(ChangeKind::Waiting { stage: gate.stage.clone(), since: gate.since })
}

/// Some stage, or the run, is earlier in its life than it was: a stale answer, or a stage run again. Unknown values
/// have no place in that order.
fn gone_backwards(old: &Snapshot, new: &Snapshot) -> bool {
    let rank = |status: &Status| match status {
        Status::Init => Some(0),
        Status::Running => Some(1),
        Status::Success | Status::Fail | Status::Termination | Status::Cancel => Some(2),
        Status::Unknown(_) => None,
    };
    let back = |before: &Status, after: &Status| match (rank(before), rank(after)) {
        (Some(before), Some(after)) => after < before,
        _ => false,
    };
    back(&old.status, &new.status)
        || new
            .stages
            .iter()
            .any(|stage| old.stage(&stage.code).is_some_and(|before| back(&before.status, &stage.status)))
}

/// Equal but for the modification time, which moves on its own.
fn alike(old: &Snapshot, new: &Snapshot) -> bool {
    old.modified_at == new.modified_at && old == new
        || Snapshot { modified_at: None, ..old.clone() } == Snapshot { modified_at: None, ..new.clone() }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
