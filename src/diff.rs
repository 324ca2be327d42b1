//! (what was remembered, what a poll saw) → (what to remember, what changed). Pure and total.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Change, ChangeKind, Gate, Missing, RunState, Snapshot, Status, Timestamp, Workspace, elapsed};
use crate::planted::{Bug, is_planted};

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
    /// See [`Change::unseen_since`].
    pub unseen_since: Option<Timestamp>,
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
        doubted: None,
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
    let is_confirmed = || old.doubted.as_ref().is_some_and(|doubted| !gone_backwards(doubted, &new));
    if gone_backwards(&old.snapshot, &new) && !is_confirmed() && !is_planted(Bug::BackwardsBelieved) {
        let state = RunState { doubted: Some(Box::new(new)), missing: None, ..old.clone() };
        return Some(Step { state, changes: Vec::new(), durable: false });
    }
    let gate = moved_gate(old, &new, context.at);
    let is_due = gate.as_ref().is_some_and(|gate| is_due(gate, context));
    if old.snapshot == new && gate == old.gate && !is_due && old.doubted.is_none() && old.missing.is_none() {
        return None;
    }
    let mut since = old.since.clone();
    let mut kinds = stage_changes(old, &new, &mut since, context.at);
    let mut state = RunState { snapshot: new, since, gate, doubted: None, missing: None, lost: false, ..old.clone() };
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
pub fn missing(old: &RunState, last_seen: Option<Timestamp>, context: Context<'_>) -> Step {
    let missing = match &old.missing {
        Some(before) => Missing { since: before.since, times: before.times.saturating_add(1) },
        None => Missing { since: last_seen.unwrap_or(context.at), times: 1 },
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
                unseen_since: context.unseen_since,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Stage;

    const GRACE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn workspace() -> Workspace {
        Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: 10000 }
    }

    /// `run("Running", "BUILD=Success PROD_CHECK=Init")`
    fn run(status: &str, stages: &str) -> Snapshot {
        let stages = stages.split_whitespace().enumerate().map(|(index, stage)| {
            let (code, status) = stage.split_once('=').unwrap();
            Stage {
                code: code.into(),
                name: String::new(),
                step: i64::try_from(index).unwrap() + 1,
                kind: if code == "BUILD" { "Build" } else { "Deploy" }.into(),
                status: status.into(),
                message: String::new(),
            }
        });
        Snapshot {
            id: "7b1e04c2-0000-4000-8000-000000000001".parse().unwrap(),
            description: "orders_daily v12".into(),
            creator: "1379".into(),
            status: status.into(),
            message: String::new(),
            created_at: Some(at(-100)),
            modified_at: None,
            stages: stages.collect(),
        }
    }

    /// What a subscriber would hear, one line a change.
    fn heard(changes: &[Change]) -> Vec<String> {
        let line = |change: &Change| match &change.kind {
            ChangeKind::Started => "started".to_owned(),
            ChangeKind::StageChanged { stage, from, to, took_ms } => {
                let took = took_ms.map(|ms| format!(" after {} s", ms / 1000)).unwrap_or_default();
                format!("{stage} {from} → {to}{took}")
            }
            ChangeKind::Waiting { stage, .. } => format!("{stage} waits"),
            ChangeKind::Finished { from, to, .. } => format!("finished {from} → {to}"),
            ChangeKind::Lost { .. } => "lost".to_owned(),
        };
        changes.iter().map(line).collect()
    }

    /// A watcher of one run: each call is a poll.
    struct Watcher {
        state: RunState,
    }

    impl Watcher {
        fn baseline(snapshot: Snapshot) -> Watcher {
            Watcher { state: baseline(snapshot, at(0)) }
        }

        fn poll(&mut self, seconds: i64, snapshot: Snapshot) -> Vec<String> {
            let workspace = workspace();
            let context =
                Context { workspace: &workspace, url: "", at: at(seconds), waiting_after: GRACE, unseen_since: None };
            self.take(seen(&self.state, snapshot, context))
        }

        fn denied(&mut self, seconds: i64) -> Vec<String> {
            let workspace = workspace();
            let context =
                Context { workspace: &workspace, url: "", at: at(seconds), waiting_after: GRACE, unseen_since: None };
            self.take(Some(missing(&self.state, None, context)))
        }

        fn take(&mut self, step: Option<Step>) -> Vec<String> {
            let Some(step) = step else { return Vec::new() };
            assert!(step.durable || step.changes.is_empty(), "a change that is not recorded is lost");
            if step.durable {
                assert_eq!(step.state.version, self.state.version + 1);
            }
            let sequences: Vec<i64> = step.changes.iter().map(|change| change.sequence).collect();
            let expected: Vec<i64> = (self.state.sequence + 1..=step.state.sequence).collect();
            assert_eq!(sequences, expected, "changes of a run are numbered without a gap");
            self.state = step.state;
            heard(&step.changes)
        }
    }

    #[test]
    fn a_run_of_three_stages_is_told_stage_by_stage() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Running CHECK=Init PROD=Init"));
        assert_eq!(watcher.poll(5, run("Running", "BUILD=Success CHECK=Init PROD=Init")), ["BUILD Running → Success"]);
        assert_eq!(watcher.poll(10, run("Running", "BUILD=Success CHECK=Running PROD=Init")), ["CHECK Init → Running"]);
        assert_eq!(
            watcher.poll(58, run("Running", "BUILD=Success CHECK=Success PROD=Running")),
            ["CHECK Running → Success after 48 s", "PROD Init → Running"]
        );
        assert_eq!(
            watcher.poll(100, run("Success", "BUILD=Success CHECK=Success PROD=Success")),
            ["PROD Running → Success after 42 s", "finished Running → Success"]
        );
        assert!(watcher.poll(105, run("Success", "BUILD=Success CHECK=Success PROD=Success")).is_empty());
    }

    #[test]
    fn a_start_nobody_saw_is_not_given_a_duration() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Success CHECK=Init"));
        assert_eq!(watcher.poll(5, run("Running", "BUILD=Success CHECK=Success")), ["CHECK Init → Success"]);
    }

    #[test]
    fn a_stage_waits_for_a_person_after_the_grace_time_and_says_so_once() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Running PROD=Init"));
        let waits = run("Running", "BUILD=Success PROD=Init");
        assert_eq!(watcher.poll(5, waits.clone()), ["BUILD Running → Success"]);
        assert!(watcher.poll(64, waits.clone()).is_empty(), "an automatic run would go on by itself meanwhile");
        assert_eq!(watcher.poll(65, waits.clone()), ["PROD waits"]);
        assert!(watcher.poll(600, waits).is_empty());
        assert_eq!(watcher.poll(605, run("Running", "BUILD=Success PROD=Running")), ["PROD Init → Running"]);
    }

    #[test]
    fn a_gate_that_stood_at_the_baseline_is_no_news() {
        let waits = run("Running", "BUILD=Success PROD=Init");
        let mut watcher = Watcher::baseline(waits.clone());
        assert!(watcher.poll(3600, waits).is_empty());
    }

    #[test]
    fn a_build_that_has_not_begun_waits_for_nobody() {
        let fresh = run("Running", "BUILD=Init PROD=Init");
        let mut watcher = Watcher::baseline(fresh.clone());
        assert!(watcher.poll(3600, fresh).is_empty());
    }

    #[test]
    fn a_status_gone_backwards_is_believed_the_second_time() {
        let ahead = run("Running", "BUILD=Success CHECK=Success PROD=Init");
        let behind = run("Running", "BUILD=Success CHECK=Running PROD=Init");
        let mut watcher = Watcher::baseline(ahead.clone());
        assert!(watcher.poll(5, behind.clone()).is_empty(), "one stale answer is no news");
        assert!(watcher.poll(10, ahead).is_empty(), "and neither is its end");
        assert!(watcher.poll(15, behind.clone()).is_empty());
        assert_eq!(watcher.poll(20, behind), ["CHECK Success → Running"], "a stage that really runs again is");
    }

    #[test]
    fn an_older_answer_does_not_confirm_an_old_one() {
        let behind = run("Running", "BUILD=Success CHECK=Running PROD=Init");
        let further_behind = run("Running", "BUILD=Running CHECK=Init PROD=Init");
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Success CHECK=Success PROD=Init"));
        assert!(watcher.poll(5, behind.clone()).is_empty());
        assert!(watcher.poll(10, further_behind).is_empty(), "the two don't agree");
        assert_eq!(watcher.poll(15, behind), ["CHECK Success → Running"], "it is at least that far");
    }

    #[test]
    fn an_unknown_status_is_told_as_it_came_and_ends_nothing() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Running PROD=Init"));
        assert_eq!(watcher.poll(5, run("Paused", "BUILD=Suspended PROD=Init")), ["BUILD Running → Suspended"]);
        assert!(!watcher.state.snapshot.status.is_terminal());
    }

    #[test]
    fn a_run_is_lost_only_after_three_denials_over_five_minutes() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Running"));
        for seconds in [0, 60, 120, 240] {
            assert!(watcher.denied(seconds).is_empty(), "not yet after {seconds} s");
        }
        assert_eq!(watcher.denied(300), ["lost"]);
        assert!(watcher.denied(400).is_empty(), "once is enough");
        assert_eq!(watcher.poll(500, run("Running", "BUILD=Success")), ["BUILD Running → Success"], "it may come back");
    }

    #[test]
    fn a_single_denial_is_forgotten() {
        let mut watcher = Watcher::baseline(run("Running", "BUILD=Running"));
        for seconds in (0..3600).step_by(120) {
            assert!(watcher.denied(seconds).is_empty());
            assert!(watcher.poll(seconds + 60, run("Running", "BUILD=Running")).is_empty());
        }
    }

    #[test]
    fn a_run_first_seen_at_its_end_started_and_finished() {
        let workspace = workspace();
        let context = Context { workspace: &workspace, url: "", at: at(0), waiting_after: GRACE, unseen_since: None };
        let step = started(run("Fail", "BUILD=Success PROD=Fail"), context);
        assert_eq!(heard(&step.changes), ["started", "finished Init → Fail"]);
    }

    fn any_status() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("Init".to_owned()),
            Just("Running".to_owned()),
            Just("Success".to_owned()),
            Just("Fail".to_owned()),
            Just("Termination".to_owned()),
            "[A-Za-z]{1,8}",
        ]
    }

    fn any_run() -> impl Strategy<Value = Snapshot> {
        (any_status(), prop::collection::vec(any_status(), 0..5)).prop_map(|(status, stages)| {
            let stages: Vec<String> = stages.iter().enumerate().map(|(i, status)| format!("S{i}={status}")).collect();
            run(&status, &stages.join(" "))
        })
    }

    proptest! {
        #[test]
        fn whatever_the_polls_show_changes_are_numbered_and_repeating_a_poll_is_silent(
            first in any_run(),
            polls in prop::collection::vec(any_run(), 0..12),
        ) {
            let mut watcher = Watcher::baseline(first);
            for (index, poll) in polls.into_iter().enumerate() {
                let seconds = i64::try_from(index).unwrap() * 10;
                watcher.poll(seconds, poll.clone());
                watcher.poll(seconds + 1, poll.clone());
                prop_assert!(watcher.poll(seconds + 2, poll.clone()).iter().all(|line| line.ends_with("waits")));
                prop_assert_eq!(&watcher.state.snapshot, &poll, "what is shown twice is believed");
            }
        }
    }
}
