//! The simulated DataWorks: a model of workspaces whose runs advance, served over real HTTP by the wire form of the
//! API, and stricter than the vendor. Its own time passes by argument, see [`World::step`].

mod fault;
mod script;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{RunId, Status, Timestamp};
use crate::sources::Item;
use crate::sources::dataworks::Action;

pub use fault::{Fault, Quirks};
pub use script::{Act, Opens, Script};
pub use serve::serve;

/// The world. A clone is the same world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    calls: watch::Sender<u64>,
}

/// A verb named a workspace, a run or a stage that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulated DataWorks has no {0}")]
pub struct NoSuch(pub String);

/// A run to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Given by the world when absent.
    pub id: Option<RunId>,
    pub description: String,
    pub creator: String,
    pub status: Status,
    pub stages: Vec<StageSpec>,
    pub items: Vec<Item>,
    /// What happens to it as time passes; without one it moves only when told.
    pub script: Option<Script>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSpec {
    pub code: String,
    /// Build, Check, Deploy, Offline, Delete.
    pub kind: String,
    pub name: String,
}

impl RunSpec {
    /// BUILD_PACKAGE, PROD_CHECK, PROD: what a workspace in simple mode has. All Init.
    pub fn online(description: &str) -> RunSpec {
        RunSpec::of(description, &[("BUILD_PACKAGE", "Build"), ("PROD_CHECK", "Check"), ("PROD", "Deploy")])
    }

    /// The same with DEV_CHECK and DEV before: standard mode.
    pub fn standard(description: &str) -> RunSpec {
        let stages = [
            ("BUILD_PACKAGE", "Build"),
            ("DEV_CHECK", "Check"),
            ("DEV", "Deploy"),
            ("PROD_CHECK", "Check"),
            ("PROD", "Deploy"),
        ];
        RunSpec::of(description, &stages)
    }

    /// OfflineCheck, PROD_CHECK, PROD: something is taken offline.
    pub fn offline(description: &str) -> RunSpec {
        RunSpec::of(description, &[("OfflineCheck", "Check"), ("PROD_CHECK", "Check"), ("PROD", "Offline")])
    }

    /// Any stages, as (code, type).
    pub fn of(description: &str, stages: &[(&str, &str)]) -> RunSpec {
        let stage = |(code, kind): &(&str, &str)| StageSpec {
            code: (*code).to_owned(),
            kind: (*kind).to_owned(),
            name: stage_name(code).to_owned(),
        };
        RunSpec {
            id: None,
            description: description.to_owned(),
            creator: "1379463177660001".to_owned(),
            status: Status::Init,
            stages: stages.iter().map(stage).collect(),
            items: vec![Item { name: description.to_owned(), kind: "Node".to_owned() }],
            script: None,
        }
    }

    #[must_use]
    pub fn with_id(self, id: RunId) -> RunSpec {
        RunSpec { id: Some(id), ..self }
    }

    #[must_use]
    pub fn created_by(self, creator: &str) -> RunSpec {
        RunSpec { creator: creator.to_owned(), ..self }
    }

    #[must_use]
    pub fn with_items(self, items: Vec<Item>) -> RunSpec {
        RunSpec { items, ..self }
    }

    #[must_use]
    pub fn scripted(self, script: Script) -> RunSpec {
        RunSpec { script: Some(script), ..self }
    }
}

fn stage_name(code: &str) -> &str {
    match code {
        "BUILD_PACKAGE" => "Build the release package",
        "DEV_CHECK" => "Check before development",
        "DEV" => "Deploy to development",
        "PROD_CHECK" => "Check before production",
        "PROD" => "Deploy to production",
        "OfflineCheck" => "Check before taking offline",
        other => other,
    }
}

struct State {
    access_key_id: String,
    access_key_secret: String,
    security_token: Option<String>,
    token_expired: bool,
    /// Dates signatures are checked against; the world's own time is `now`.
    clock: fn() -> Timestamp,
    now: Timestamp,
    workspaces: BTreeMap<i64, Vec<Run>>,
    /// Of these the key's owner is no member.
    closed: BTreeSet<i64>,
    added: u64,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    quirks: Quirks,
    calls_per_second: Option<u64>,
    calls_per_day: Option<u64>,
    second: (i64, u64),
    day: (i64, u64),
    calls: HashMap<Action, u64>,
    refusals: Vec<String>,
    nonces: HashSet<String>,
}

struct Run {
    id: RunId,
    description: String,
    creator: String,
    status: Status,
    message: String,
    created_at: Timestamp,
    modified_at: Timestamp,
    stages: Vec<Stage>,
    items: Vec<Item>,
    progress: Option<script::Progress>,
}

struct Stage {
    spec: StageSpec,
    status: Status,
    /// Absent until it has run once, as in captured answers.
    message: Option<String>,
}

// ------------------------------------------------------------------------------------------------ making a world

impl World {
    /// An empty world that accepts this one access key. Its time starts now.
    pub fn new(access_key_id: &str, access_key_secret: &str) -> World {
        let state = State {
            access_key_id: access_key_id.to_owned(),
            access_key_secret: access_key_secret.to_owned(),
            security_token: None,
            token_expired: false,
            clock: Timestamp::now,
            now: Timestamp::now(),
            workspaces: BTreeMap::new(),
            closed: BTreeSet::new(),
            added: 0,
            faults: VecDeque::new(),
            always: None,
            quirks: Quirks::default(),
            calls_per_second: None,
            calls_per_day: None,
            second: (0, 0),
            day: (0, 0),
            calls: HashMap::new(),
            refusals: Vec::new(),
            nonces: HashSet::new(),
        };
        World(Arc::new(Shared { state: Mutex::new(state), calls: watch::Sender::new(0) }))
    }

    /// Another start of its time.
    #[must_use]
    pub fn starting_at(self, now: Timestamp) -> World {
        self.state().now = now;
        self
    }

    /// Another clock for the dates of signatures than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> Timestamp) -> World {
        self.state().clock = clock;
        self
    }

    /// The key is a temporary one of STS: every request must bring this token.
    #[must_use]
    pub fn with_security_token(self, token: &str) -> World {
        self.state().security_token = Some(token.to_owned());
        self
    }

    /// Calls beyond these are throttled, refused ones included, by the world's own time; a day ends at midnight UTC+8.
    #[must_use]
    pub fn with_budget(self, calls_per_second: Option<u64>, calls_per_day: Option<u64>) -> World {
        {
            let mut state = self.state();
            state.calls_per_second = calls_per_second;
            state.calls_per_day = calls_per_day;
        }
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every verb leaves the state whole, also one that a test's panic cut short.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ----------------------------------------------------------------------------------------- what happens in DataWorks

impl World {
    /// A workspace without runs; [`World::add_run`] makes one where there is none.
    pub fn add_workspace(&self, project_id: i64) {
        self.state().workspaces.entry(project_id).or_default();
    }

    pub fn add_run(&self, project_id: i64, spec: RunSpec) -> RunId {
        let mut state = self.state();
        state.added += 1;
        let id = spec.id.unwrap_or_else(|| nth_id(state.added));
        let now = state.now;
        let stages = spec.stages.into_iter().map(|spec| Stage { spec, status: Status::Init, message: None }).collect();
        let run = Run {
            id: id.clone(),
            description: spec.description,
            creator: spec.creator,
            status: spec.status,
            message: String::new(),
            created_at: now,
            modified_at: now,
            stages,
            items: spec.items,
            progress: spec.script.map(script::Progress::new),
        };
        state.workspaces.entry(project_id).or_default().push(run);
        id
    }

    /// Sets a stage and nothing else; the run's own status is [`World::set_run_status`].
    pub fn set_stage(
        &self,
        project_id: i64,
        id: &RunId,
        code: &str,
        status: Status,
        message: &str,
    ) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| run.set_stage(code, status, message))
    }

    pub fn set_run_status(&self, project_id: i64, id: &RunId, status: Status) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| {
            run.status = status;
            Ok(())
        })
    }

    /// The next thing that happens when all goes well: the running stage succeeds, else the next one starts. The run
    /// is Running meanwhile and Success after its last stage.
    pub fn advance(&self, project_id: i64, id: &RunId) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| {
            run.advance();
            Ok(())
        })
    }

    /// [`World::advance`] until the run has succeeded.
    pub fn finish(&self, project_id: i64, id: &RunId) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| {
            while !run.status.is_terminal() {
                run.advance();
            }
            Ok(())
        })
    }

    /// A stage fails, and the run with it.
    pub fn fail(&self, project_id: i64, id: &RunId, code: &str, message: &str) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| {
            run.set_stage(code, Status::Fail, message)?;
            run.status = Status::Fail;
            run.message = message.to_owned();
            Ok(())
        })
    }

    /// A person starts the stage that waits; scripts with a gate go on.
    pub fn trigger(&self, project_id: i64, id: &RunId) -> Result<(), NoSuch> {
        self.change(project_id, id, |run| {
            match &mut run.progress {
                Some(progress) => progress.trigger(),
                None => run.advance(),
            }
            Ok(())
        })
    }

    /// It is as if it had never been.
    pub fn remove_run(&self, project_id: i64, id: &RunId) -> Result<(), NoSuch> {
        let mut state = self.state();
        let runs = state.workspaces.get_mut(&project_id).ok_or_else(|| NoSuch(format!("workspace {project_id}")))?;
        let before = runs.len();
        runs.retain(|run| run.id != *id);
        if runs.len() < before { Ok(()) } else { Err(NoSuch(format!("run {id}"))) }
    }

    /// Time passes: scripts go on, and a second's or a day's budget is there again.
    pub fn step(&self, elapsed: Duration) {
        let mut state = self.state();
        state.now = state.now.checked_add(elapsed).unwrap_or(state.now);
        let now = state.now;
        for run in state.workspaces.values_mut().flatten() {
            if run.play(elapsed) {
                run.modified_at = now;
            }
        }
    }

    /// The world's own time.
    pub fn now(&self) -> Timestamp {
        self.state().now
    }

    /// The runs of a workspace in the order of their coming.
    pub fn runs(&self, project_id: i64) -> Vec<RunId> {
        let state = self.state();
        state.workspaces.get(&project_id).into_iter().flatten().map(|run| run.id.clone()).collect()
    }

    /// Status of a run and of each of its stages, by code.
    pub fn look(&self, project_id: i64, id: &RunId) -> Result<(Status, Vec<(String, Status)>), NoSuch> {
        let state = self.state();
        let runs = state.workspaces.get(&project_id).ok_or_else(|| NoSuch(format!("workspace {project_id}")))?;
        let run = runs.iter().find(|run| run.id == *id).ok_or_else(|| NoSuch(format!("run {id}")))?;
        let stages = run.stages.iter().map(|stage| (stage.spec.code.clone(), stage.status.clone()));
        Ok((run.status.clone(), stages.collect()))
    }

    fn change(
        &self,
        project_id: i64,
        id: &RunId,
        change: impl FnOnce(&mut Run) -> Result<(), NoSuch>,
    ) -> Result<(), NoSuch> {
        let mut state = self.state();
        let now = state.now;
        let runs = state.workspaces.get_mut(&project_id).ok_or_else(|| NoSuch(format!("workspace {project_id}")))?;
        let run = runs.iter_mut().find(|run| run.id == *id).ok_or_else(|| NoSuch(format!("run {id}")))?;
        change(run)?;
        run.modified_at = now;
        Ok(())
    }
}

impl Run {
    fn set_stage(&mut self, code: &str, status: Status, message: &str) -> Result<(), NoSuch> {
        let stage = self.stages.iter_mut().find(|stage| stage.spec.code == code);
        let stage = stage.ok_or_else(|| NoSuch(format!("stage {code}")))?;
        stage.message = (status != Status::Init).then(|| message.to_owned());
        stage.status = status;
        Ok(())
    }

    fn advance(&mut self) {
        let next = self.stages.iter_mut().find(|stage| stage.status != Status::Success);
        if let Some(stage) = next {
            stage.status = if stage.status == Status::Running { Status::Success } else { Status::Running };
            stage.message = Some(String::new());
        }
        let done = self.stages.iter().all(|stage| stage.status == Status::Success);
        self.status = if done { Status::Success } else { Status::Running };
    }
}

/// Looks like the vendor's ids, differs in the first 8 characters, and is the same in every run of a program.
fn nth_id(n: u64) -> RunId {
    let start = u32::try_from(n % (1 << 32)).unwrap_or_default().wrapping_mul(0x9E37_79B1);
    let id = format!("{start:08x}-20ec-4a7c-a214-{n:012x}").parse();
    // Hexadecimal digits and dashes are an id; the fall back would be one as well.
    id.unwrap_or_else(|_| nth_id(0))
}

// ------------------------------------------------------------------------------------ what tests do and ask

impl World {
    /// The next `times` calls that are signed well are answered by this fault, after those injected before.
    pub fn inject(&self, fault: Fault, times: usize) {
        self.state().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Every call is answered by this fault until [`World::recover`].
    pub fn break_down(&self, fault: Fault) {
        self.state().always = Some(fault);
    }

    /// No more faults.
    pub fn recover(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.always = None;
    }

    /// How answers are written from now on.
    pub fn set_quirks(&self, quirks: Quirks) {
        self.state().quirks = quirks;
    }

    /// The key's owner is a member of the workspace no more, or is one again.
    pub fn set_member(&self, project_id: i64, is_member: bool) {
        let mut state = self.state();
        if is_member {
            state.closed.remove(&project_id);
        } else {
            state.closed.insert(project_id);
        }
    }

    /// The access key has another secret from now on.
    pub fn rotate_secret(&self, access_key_secret: &str) {
        self.state().access_key_secret = access_key_secret.to_owned();
    }

    /// From now on the security token has expired.
    pub fn expire_security_token(&self) {
        self.state().token_expired = true;
    }

    /// Calls of this action, whatever their answer. A request that names no action counts for none.
    pub fn calls(&self, action: Action) -> u64 {
        self.state().calls.get(&action).copied().unwrap_or_default()
    }

    /// Requests that came in, whatever their answer.
    pub fn total_calls(&self) -> u64 {
        *self.0.calls.borrow()
    }

    /// Waits until that many requests have come in since the beginning.
    pub async fn wait_for_calls(&self, total: u64) {
        let mut calls = self.0.calls.subscribe();
        // The sender lives as long as this world, so waiting can't fail.
        let _ = calls.wait_for(|calls| *calls >= total).await;
    }

    /// The codes of all refusals so far, those of faults not among them: a correct client that stays within its
    /// budget causes none but for unknown runs. The newest 1,000.
    pub fn refusals(&self) -> Vec<String> {
        self.state().refusals.clone()
    }
}
