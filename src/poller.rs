//! tick(now): takes the workspaces that are due, lists their runs, lets the tracker record what changed.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::meter::{CallError, Meter};
use crate::model::{RunId, RunState, Status, Timestamp, Workspace, WorkspaceKey, elapsed};
use crate::schedule::{Activity, Intervals, Purpose, Schedule};
use crate::sources::{SourceError, SourceErrorKind};
use crate::store::StoreError;
use crate::tracker::{Sight, Tracker};

/// Pages listed in one poll at most: behind them, runs are asked for one by one.
const PAGES: u32 = 5;
/// Runs asked for one by one in one poll at most; the others wait for the next.
const GETS: usize = 10;
/// Waiting longer than this for the budget is worth telling whoever asks.
const LONG: Duration = Duration::from_secs(60);

pub struct Poller {
    tracker: Arc<Tracker>,
    meter: Arc<Meter>,
    workspaces: HashMap<WorkspaceKey, Workspace>,
    schedule: Mutex<Schedule>,
    /// Workspaces whose last look had no call left for what is followed beyond the newest page.
    starved: Mutex<HashSet<WorkspaceKey>>,
    /// The credentials are refused, so nothing is polled but for one workspace now and then.
    refused: AtomicBool,
    /// The workspaces are this process's to poll for so long.
    until: Mutex<Option<Instant>>,
    tasks: TaskTracker,
    changed: Notify,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a fault of callboard's own broke off the poll; the log holds its message")]
    Broke,
}

impl PollError {
    fn is_denial(&self) -> bool {
        matches!(self, PollError::Call(CallError::Source(SourceError { kind: SourceErrorKind::Permission { .. }, .. })))
    }
}

impl Poller {
    pub fn new(
        tracker: Arc<Tracker>,
        meter: Arc<Meter>,
        workspaces: &[Workspace],
        intervals: Intervals,
        now: Timestamp,
    ) -> Poller {
        let workspaces: HashMap<_, _> = workspaces.iter().map(|w| (w.key(), w.clone())).collect();
        let schedule = Mutex::new(Schedule::new(intervals, workspaces.keys().cloned(), now));
        Poller {
            tracker,
            meter,
            workspaces,
            schedule,
            starved: Mutex::default(),
            refused: AtomicBool::new(false),
            until: Mutex::default(),
            tasks: TaskTracker::new(),
            changed: Notify::new(),
        }
    }

    /// Begins a poll of each workspace that is due; a slow one delays no other. Returns when the next is due.
    pub fn tick(self: &Arc<Self>, now: Timestamp) -> Option<Timestamp> {
        if self.is_out() {
            return None;
        }
        let refused_until = self.meter.refused_until(now);
        if refused_until.is_none() && self.refused.swap(false, Ordering::AcqRel) {
            self.begin_again(now);
        }
        let most = match refused_until {
            Some(until) if until > now => 0,
            Some(_) => 1,
            None => usize::MAX,
        };
        let due = self.with_schedule(|schedule| {
            schedule.pass(now);
            let mut due = schedule.due(now);
            due.truncate(most);
            due.iter().for_each(|key| schedule.began(key));
            due
        });
        for key in due {
            let poller = Arc::clone(self);
            self.tasks.spawn(async move {
                poller.poll(&key, now).await;
                poller.changed.notify_one();
            });
        }
        let next = self.with_schedule(|schedule| schedule.next_due());
        next.max(next.and(refused_until))
    }

    /// The credentials pass again: every workspace that was not seen meanwhile is due, one after another.
    fn begin_again(&self, now: Timestamp) {
        let failing = |key: &&WorkspaceKey| self.tracker.freshness(key, None).failure.is_some();
        let failing: Vec<_> = self.workspaces.keys().filter(failing).cloned().collect();
        tracing::info!(workspaces = failing.len(), "DataWorks accepts the credentials again; each is polled soon");
        self.with_schedule(|schedule| schedule.spread(&failing, now));
    }

    /// From now on these are polled here, and no others; until then, unless the word comes again.
    pub fn tend(&self, held: &HashSet<WorkspaceKey>, until: Option<Instant>) {
        let was_out = self.is_out();
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        let (mine, others): (Vec<_>, Vec<_>) = self.workspaces.keys().partition(|key| held.contains(*key));
        let resumed = self.with_schedule(|schedule| {
            others.into_iter().for_each(|key| schedule.rest(key));
            mine.into_iter().filter(|key| schedule.resume(key)).count()
        });
        if resumed > 0 || was_out {
            self.changed.notify_one();
        }
    }

    /// Nobody has said for too long that the workspaces are still this process's to poll.
    fn is_out(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until <= Instant::now())
    }

    /// Resolves when no poll is under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Resolves when a workspace may have become due earlier than the last tick said.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Somebody subscribed to something here.
    pub fn hurry(&self, workspace: &WorkspaceKey, now: Timestamp) {
        self.with_schedule(|schedule| schedule.hurry(workspace, now));
        self.changed.notify_one();
    }

    async fn poll(&self, key: &WorkspaceKey, now: Timestamp) {
        let Some(workspace) = self.workspaces.get(key) else { return };
        let failing = self.tracker.freshness(key, None).failure;
        // A fault of ours must not leave the workspace unpolled for ever.
        let look = AssertUnwindSafe(self.look(workspace, now)).catch_unwind().await;
        match look.unwrap_or(Err(PollError::Broke)) {
            Ok(activity) => {
                if let Some(failure) = failing {
                    tracing::info!(workspace = workspace.name, failing_since = %failure.since, "polling works again");
                }
                self.with_schedule(|schedule| schedule.went(key, activity, now));
            }
            Err(PollError::Call(CallError::Budget { until, .. })) => {
                if elapsed(now, until) >= LONG {
                    self.tracker.poll_waits(key, until);
                }
                self.with_schedule(|schedule| schedule.postponed(key, until));
            }
            Err(PollError::Call(CallError::Refused { said, until })) => {
                self.refused(&said, now);
                self.with_schedule(|schedule| schedule.postponed(key, until));
            }
            Err(error) => {
                // Said once an outage, not once a poll.
                if failing.is_none() {
                    tracing::warn!(workspace = workspace.name, %error, "polling fails; watches stay, it is tried again");
                } else {
                    tracing::debug!(workspace = workspace.name, %error, "polling still fails");
                }
                let denied = error.is_denial();
                self.tracker.poll_failed(key, error.to_string(), denied, now);
                self.with_schedule(
                    |schedule| {
                        if denied { schedule.denied(key, now) } else { schedule.failed(key, now) }
                    },
                );
            }
        }
    }

    /// The credentials are refused, for every workspace alike. Said once an outage.
    fn refused(&self, said: &str, now: Timestamp) {
        if self.meter.refused_until(now).is_none() {
            // They passed meanwhile.
            return;
        }
        if !self.refused.swap(true, Ordering::AcqRel) {
            let hint = "polling stops; watches stay, and the credentials are tried once a minute";
            tracing::warn!(error = said, "DataWorks refuses the credentials: {hint}");
        }
        let mine = self.workspaces.keys().filter(|key| !self.tracker.is_elsewhere(key));
        mine.for_each(|key| self.tracker.poll_failed(key, said.to_owned(), true, now));
    }

    /// One look at a workspace: the newest page, then what is followed beyond it by the cheapest way. When the budget
    /// was gone after the last list, this look is for a run beyond it instead.
    async fn look(&self, workspace: &Workspace, now: Timestamp) -> Result<Activity, PollError> {
        let key = workspace.key();
        if self.starved().contains(&key)
            && let Some(id) = self.tracker.off_page(&key).into_iter().next()
        {
            let mut sight = Sight::default();
            self.get(workspace, id, Purpose::Poll, &mut sight, now).await?;
            self.starved().remove(&key);
            let changes = self.tracker.observe(workspace, sight, now).await?;
            return Ok(self.activity(&key, !changes.is_empty()));
        }
        let sight = Sight::of_page(self.meter.list(workspace, 1, Purpose::Poll, now).await?);
        let is_full = sight.page.as_ref().is_some_and(|page| page.full);
        // What the list shows must not wait for the calls that follow it.
        let mut changes = self.tracker.observe(workspace, sight, now).await?;
        let mut beyond = Sight::default();
        if let Err(CallError::Budget { .. }) = self.look_beyond(workspace, is_full, &mut beyond, now).await {
            self.starved().insert(key.clone());
        }
        changes.extend(self.tracker.observe(workspace, beyond, now).await?);
        Ok(self.activity(&key, !changes.is_empty()))
    }

    /// Adds the followed runs that are not on the newest page, until a call fails.
    async fn look_beyond(
        &self,
        workspace: &Workspace,
        is_full: bool,
        sight: &mut Sight,
        now: Timestamp,
    ) -> Result<(), CallError> {
        let mut wanted = self.tracker.off_page(&workspace.key());
        let mut more = is_full;
        let mut number = 1;
        // A further page is worth its call while it may hold more than one run that is followed.
        while more && wanted.len() > 1 && number < PAGES {
            number += 1;
            let listed = self.meter.list(workspace, number, Purpose::FollowUp, now).await?;
            let found: Vec<_> = listed.runs.into_iter().filter(|run| wanted.contains(&run.id)).collect();
            more = listed.full && found.len() > 1;
            wanted.retain(|id| found.iter().all(|run| run.id != *id));
            sight.runs.extend(found);
        }
        for id in wanted.into_iter().take(GETS) {
            self.get(workspace, id, Purpose::FollowUp, sight, now).await?;
        }
        Ok(())
    }

    async fn get(
        &self,
        workspace: &Workspace,
        id: RunId,
        purpose: Purpose,
        sight: &mut Sight,
        now: Timestamp,
    ) -> Result<(), CallError> {
        match self.meter.get(workspace, &id, purpose, now).await {
            Ok(run) => sight.runs.push(run),
            Err(CallError::Source(error)) if error.kind == SourceErrorKind::NoSuchRun => sight.missing.push(id),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn activity(&self, key: &WorkspaceKey, changed: bool) -> Activity {
        if !self.tracker.is_watched(key) {
            return Activity::Unwatched;
        }
        let active = self.tracker.active(key);
        // A run may hang for days: only one that shows a running stage, or may show a gate soon, is worth the haste.
        let moves = |run: &Arc<RunState>| match &run.gate {
            Some(gate) => !gate.told,
            None => run.snapshot.stages.iter().any(|stage| stage.status == Status::Running),
        };
        if changed || active.iter().any(moves) { Activity::Moving } else { Activity::Quiet }
    }

    fn starved(&self) -> MutexGuard<'_, HashSet<WorkspaceKey>> {
        self.starved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_schedule<T>(&self, act: impl FnOnce(&mut Schedule) -> T) -> T {
        act(&mut self.schedule.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
