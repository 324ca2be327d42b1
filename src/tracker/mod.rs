//! What is known, in memory: runs as last seen, who wants what. Written through to the store, rebuilt from it.
//!
//! Every observation goes through [`Tracker::observe`]: compare with memory, record in one transaction, then move
//! memory. Nothing is locked over the store's IO. Instead each run carries a version, and a record computed from an
//! older one is refused as stale and computed again. Subscribing to a run bumps its version too, so a poll that did
//! not know the subscription yet can't record a change without it.

mod loading;
mod questions;
mod subscriptions;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use uuid::Uuid;

use self::loading::Reached;
use crate::access::Access;
use crate::diff::{self, Context, Step};
use crate::metrics::{Metrics, OfKind};
use crate::model::{
    Change, Match, RunId, RunState, Scope, Snapshot, Subscription, Timestamp, Workspace, WorkspaceKey, elapsed,
};
use crate::planted::{Bug, is_planted};
use crate::sources::Listing;
use crate::store::{NewDelivery, Poll, Recorded, Store, StoreError, WorkspaceState};

/// The console's link to a run.
pub type Link = Box<dyn Fn(&Workspace, &RunId) -> String + Send + Sync>;

/// How precisely the last sight of a workspace is kept.
const SIGHT_KEPT: Duration = Duration::from_secs(60);

/// What time means for changes.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    /// How long a stage stands still before it is said to wait for a person.
    pub waiting_after: Duration,
    /// What changed while a workspace was not looked at for longer is no news, but something to catch up on.
    pub blind_after: Duration,
}

/// A record that was refused as stale is computed again this often, with the store's truth in between.
const TRIES: usize = 5;

pub struct Tracker {
    store: Arc<dyn Store>,
    link: Link,
    spans: Spans,
    metrics: Arc<Metrics>,
    access: Arc<Access>,
    /// From the configuration; never in the store.
    standing: Vec<Arc<Subscription>>,
    runs: DashMap<(WorkspaceKey, RunId), Arc<RunState>>,
    workspaces: DashMap<WorkspaceKey, View>,
    subscriptions: DashMap<String, Arc<Subscription>>,
    by_scope: DashMap<Scope, Vec<Arc<Subscription>>>,
    reached: Mutex<Reached>,
    /// One amendment at a time.
    amending: tokio::sync::Mutex<()>,
    /// A reload was begun and has not succeeded since.
    behind: AtomicBool,
    owed: Notify,
}

/// A workspace as the polls see it.
#[derive(Debug, Clone, Default)]
struct View {
    state: Option<WorkspaceState>,
    /// Runs on the first page, newest first.
    page: Vec<RunId>,
    /// Runs in memory.
    known: HashSet<RunId>,
    seen_at: Option<Timestamp>,
    /// When runs that are not on the page were last seen.
    seen_off_page: HashMap<RunId, Timestamp>,
    /// When they were last asked for, found or not.
    asked_off_page: HashMap<RunId, Timestamp>,
    failure: Option<Failure>,
    /// The budget allows the next poll then.
    waits_until: Option<Timestamp>,
    /// Another process polls it: what is known of it comes from the store.
    elsewhere: bool,
}

/// Polls that fail since when, and what the last one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub since: Timestamp,
    pub said: String,
    /// The credentials are refused, or may not do this: a person has to act.
    pub denied: bool,
}

/// How old what we know of a run is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Freshness {
    pub seen_at: Option<Timestamp>,
    pub failure: Option<Failure>,
    /// The call budget allows the next look then.
    pub waits_until: Option<Timestamp>,
}

/// What one look at a workspace showed.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The first page of the list; `None` when single runs were asked for.
    pub page: Option<Page>,
    pub runs: Vec<Snapshot>,
    /// Runs the source denied.
    pub missing: Vec<RunId>,
}

#[derive(Debug, Clone)]
pub struct Page {
    pub ids: Vec<RunId>,
    /// Older runs may exist.
    pub full: bool,
}

impl Sight {
    /// The first page of a list, as the source gave it.
    pub fn of_page(listing: Listing) -> Sight {
        let Listing { runs, full } = listing;
        let page = Page { ids: runs.iter().map(|run| run.id.clone()).collect(), full };
        Sight { page: Some(page), runs, missing: Vec::new() }
    }

    /// One run that was asked for.
    pub fn of_run(run: Snapshot) -> Sight {
        Sight { page: None, runs: vec![run], missing: Vec::new() }
    }
}

/// How a subscription went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    New,
    Already,
    /// The run has ended: nothing will follow.
    Ended,
}

impl Tracker {
    /// Rebuilt from the store.
    pub async fn start(
        store: Arc<dyn Store>,
        standing: Vec<Subscription>,
        link: Link,
        spans: Spans,
        metrics: Arc<Metrics>,
    ) -> Result<Tracker, StoreError> {
        let tracker = Tracker {
            store,
            link,
            spans,
            metrics,
            access: Arc::default(),
            standing: standing.into_iter().map(Arc::new).collect(),
            runs: DashMap::new(),
            workspaces: DashMap::new(),
            subscriptions: DashMap::new(),
            by_scope: DashMap::new(),
            reached: Mutex::default(),
            amending: tokio::sync::Mutex::new(()),
            behind: AtomicBool::new(false),
            owed: Notify::new(),
        };
        tracker.take_over().await?;
        Ok(tracker)
    }

    /// Resolves when deliveries were recorded since the last call.
    pub async fn owed(&self) {
        self.owed.notified().await;
    }

    /// The last reload or write did not succeed: memory may lack what the store holds.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// A write that failed may have been committed all the same: the store is read again soon.
    fn heard<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.behind.store(true, Ordering::Release);
        }
        result
    }

    fn reached(&self) -> MutexGuard<'_, Reached> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what a poll saw with what was remembered and records the difference, if there is one, together with
    /// the deliveries it owes. Returns the changes.
    pub async fn observe(&self, workspace: &Workspace, sight: Sight, at: Timestamp) -> Result<Vec<Change>, StoreError> {
        for nth in 0..TRIES {
            let Compared { poll, soft } = self.compare(workspace, &sight, at);
            let recorded = match &poll {
                Some(poll) if is_planted(Bug::MemoryAheadOfStore) => {
                    self.store.record(poll).await.unwrap_or(Recorded::Done)
                }
                Some(poll) => match self.heard(self.store.record(poll).await) {
                    Ok(recorded) => recorded,
                    Err(error) => {
                        // What is not for the store was seen all the same: a doubt that this look ended must not be
                        // confirmed by the next one.
                        soft.into_iter().for_each(|state| self.remember(&workspace.key(), state));
                        return Err(error);
                    }
                },
                None => Recorded::Done,
            };
            match recorded {
                Recorded::Done => return Ok(self.apply(workspace, sight, poll, soft, at)),
                // Mostly somebody else has moved it. It may also be a subscription that memory has not heard of yet.
                Recorded::Stale if nth == 0 && self.take_over().await? => {}
                Recorded::Stale => self.reload().await?,
            }
        }
        Err(StoreError::Failed(format!("{} is being written by too many at once", workspace.name)))
    }

    fn compare(&self, workspace: &Workspace, sight: &Sight, at: Timestamp) -> Compared {
        let key = workspace.key();
        let known = self.workspaces.get(&key).and_then(|view| view.state.clone());
        let state = WorkspaceState {
            key: key.clone(),
            baseline_at: known.as_ref().map_or(at, |state| state.baseline_at),
            horizon: known.as_ref().and_then(|state| state.horizon).max(horizon(sight)),
            seen_at: if sight.page.is_some() { Some(at) } else { known.as_ref().and_then(|state| state.seen_at) },
        };
        let waiting_after = self.spans.waiting_after;
        let mut hard = Vec::new();
        let mut soft = Vec::new();
        let mut take = |step: Step| if step.durable { hard.push(step) } else { soft.push(step.state) };
        for snapshot in &sight.runs {
            let url = (self.link)(workspace, &snapshot.id);
            let unseen_since = self.unseen_since(&key, &snapshot.id, at);
            let context = Context { workspace, url: &url, at, waiting_after, unseen_since };
            match (self.state(&key, &snapshot.id), &known) {
                (Some(old), _) => diff::seen(&old, snapshot.clone(), context).into_iter().for_each(&mut take),
                // Runs that surface from behind the first page are old, not new.
                (None, Some(state)) if !(snapshot.created_at.is_some() && snapshot.created_at < state.horizon) => {
                    take(diff::started(snapshot.clone(), context));
                }
                (None, None) if sight.page.is_none() => {}
                (None, _) => {
                    let state = diff::baseline(snapshot.clone(), at);
                    take(Step { state, changes: Vec::new(), durable: true });
                }
            }
        }
        for run in &sight.missing {
            let Some(old) = self.state(&key, run) else { continue };
            let url = (self.link)(workspace, run);
            let context = Context { workspace, url: &url, at, waiting_after, unseen_since: None };
            take(diff::missing(&old, self.freshness(&key, Some(run)).seen_at, context));
        }
        let is_first = known.is_none() && sight.page.is_some();
        if hard.is_empty() && !is_first {
            return Compared { poll: None, soft };
        }
        let changes: Vec<Change> = hard.iter().flat_map(|step| step.changes.iter().cloned()).collect();
        let begun = self.begun_by(&key, &changes);
        let poll = Poll {
            deliveries: self.owed_for(&changes, &begun),
            ended: self.ended_by(&changes, &begun),
            begun,
            forgotten: self.forgotten(&state, sight),
            key,
            workspace: sight.page.is_some().then_some(state),
            runs: hard.into_iter().map(|step| step.state).collect(),
            changes,
        };
        Compared { poll: Some(poll), soft }
    }

    /// When the run was looked at before, where that is so long ago that nobody can say when it changed.
    fn unseen_since(&self, workspace: &WorkspaceKey, run: &RunId, at: Timestamp) -> Option<Timestamp> {
        let seen_at = self.freshness(workspace, Some(run)).seen_at?;
        (elapsed(seen_at, at) > self.spans.blind_after).then_some(seen_at)
    }

    /// One message for each change, destination and template set, however many subscriptions ask for it.
    fn owed_for(&self, changes: &[Change], begun: &[Subscription]) -> Vec<NewDelivery> {
        let mut owed: Vec<NewDelivery> = Vec::new();
        for change in changes {
            let first = owed.len();
            let interested = self.interested(&change.workspace.key(), &change.run.id);
            for subscription in interested.iter().map(Arc::as_ref).chain(begun) {
                let is_asked = self.explain(subscription, change) == Match::Matched;
                if !is_asked || (is_planted(Bug::OneSubscriptionOnly) && owed.len() > first) {
                    continue;
                }
                let mut of_change = owed.iter_mut().skip(first);
                let same = of_change.find(|owed| owed.to == subscription.to && owed.template == subscription.template);
                if let Some(same) = same {
                    same.subscriptions.push(subscription.id.clone());
                    continue;
                }
                owed.push(NewDelivery {
                    id: Uuid::now_v7(),
                    run: change.run.id.clone(),
                    sequence: change.sequence,
                    to: subscription.to.clone(),
                    template: subscription.template.clone(),
                    subscriptions: vec![subscription.id.clone()],
                    at: change.at,
                    urgent: change.is_urgent(),
                    missed: change.unseen_since.is_some(),
                });
            }
        }
        owed
    }

    /// Runs that ended and fell behind the horizon: should they surface again, the horizon tells that they are old.
    fn forgotten(&self, state: &WorkspaceState, sight: &Sight) -> Vec<RunId> {
        let Some(page) = sight.page.as_ref().filter(|page| page.full) else { return Vec::new() };
        let Some(view) = self.workspaces.get(&state.key) else { return Vec::new() };
        let on_page: HashSet<&RunId> = page.ids.iter().collect();
        let is_old = |run: &&RunId| {
            let run = self.state(&state.key, run);
            run.is_some_and(|run| run.snapshot.status.is_terminal() && run.snapshot.created_at < state.horizon)
        };
        view.known.iter().filter(|run| !on_page.contains(run)).filter(is_old).cloned().collect()
    }

    fn apply(
        &self,
        workspace: &Workspace,
        sight: Sight,
        poll: Option<Poll>,
        soft: Vec<RunState>,
        at: Timestamp,
    ) -> Vec<Change> {
        let key = workspace.key();
        soft.into_iter().for_each(|state| self.remember(&key, state));
        let mut view = self.workspaces.entry(key.clone()).or_default();
        let on_page: Option<HashSet<&RunId>> = sight.page.as_ref().map(|page| page.ids.iter().collect());
        for run in &sight.runs {
            if on_page.as_ref().is_none_or(|page| !page.contains(&run.id)) {
                view.seen_off_page.insert(run.id.clone(), at);
                view.asked_off_page.insert(run.id.clone(), at);
            }
        }
        for run in &sight.missing {
            view.asked_off_page.insert(run.clone(), at);
        }
        if let Some(page) = sight.page {
            view.seen_at = Some(at);
            view.failure = None;
            view.waits_until = None;
            view.page = page.ids;
        }
        let Some(poll) = poll else { return Vec::new() };
        if poll.workspace.is_some() {
            if view.state.is_none() {
                let runs = view.page.len();
                tracing::info!(
                    workspace = workspace.name,
                    runs,
                    "seen for the first time; what is there now is no news"
                );
            }
            view.state = poll.workspace;
        }
        for run in &poll.forgotten {
            view.known.remove(run);
            view.seen_off_page.remove(run);
            view.asked_off_page.remove(run);
            self.runs.remove(&(key.clone(), run.clone()));
        }
        drop(view);
        poll.runs.into_iter().for_each(|state| self.remember(&key, state));
        if !(poll.begun.is_empty() && poll.ended.is_empty()) {
            let mut reached = self.reached();
            reached.subscribed += 1;
            poll.begun.into_iter().for_each(|begun| self.add(Arc::new(begun)));
            poll.ended.iter().for_each(|id| self.remove(id));
        }
        for change in &poll.changes {
            self.metrics.changes.get_or_create(&OfKind { kind: change.kind.name() }).inc();
        }
        if !poll.deliveries.is_empty() {
            self.owed.notify_one();
        }
        poll.changes
    }

    /// A poll that failed changes nothing but is remembered.
    pub fn poll_failed(&self, workspace: &WorkspaceKey, said: String, denied: bool, at: Timestamp) {
        let mut view = self.workspaces.entry(workspace.clone()).or_default();
        let since = view.failure.as_ref().map_or(at, |failure| failure.since);
        view.failure = Some(Failure { since, said, denied });
    }

    /// The call budget allows the next poll at `until`.
    pub fn poll_waits(&self, workspace: &WorkspaceKey, until: Timestamp) {
        self.workspaces.entry(workspace.clone()).or_default().waits_until = Some(until);
    }

    /// Which workspaces this process polls: what it knew of the others' polls is old from now on.
    pub fn tend(&self, workspaces: &[Workspace], held: &HashSet<WorkspaceKey>) {
        for key in workspaces.iter().map(Workspace::key) {
            let elsewhere = !held.contains(&key);
            let mut view = self.workspaces.entry(key).or_default();
            if elsewhere {
                (view.failure, view.waits_until) = (None, None);
                view.page.clear();
                view.seen_off_page.clear();
                view.asked_off_page.clear();
            }
            view.elsewhere = elsewhere;
        }
    }

    /// Keeps when workspaces were seen last, to the minute, so that a later start knows what it missed.
    pub async fn keep_sight(&self) -> Result<(), StoreError> {
        let is_older = |kept: Option<Timestamp>, seen_at| kept.is_none_or(|kept| elapsed(kept, seen_at) >= SIGHT_KEPT);
        let sights = self.workspaces.iter().filter_map(|entry| {
            let (seen_at, kept) = (entry.seen_at?, entry.state.as_ref()?.seen_at);
            // Those that are half as old go with them: one write a minute, whatever the number.
            let half = kept.is_none_or(|kept| elapsed(kept, seen_at) >= SIGHT_KEPT / 2);
            half.then(|| (entry.key().clone(), seen_at, is_older(kept, seen_at)))
        });
        let sights: Vec<_> = sights.collect();
        if !sights.iter().any(|(_, _, is_older)| *is_older) {
            return Ok(());
        }
        let moved: Vec<_> = sights.into_iter().map(|(workspace, seen_at, _)| (workspace, seen_at)).collect();
        self.store.saw(&moved).await?;
        for (workspace, seen_at) in moved {
            if let Some(state) = self.workspaces.entry(workspace).or_default().state.as_mut() {
                state.seen_at = Some(seen_at);
            }
        }
        Ok(())
    }

    // ----------------------------------------------------------------------------------------------------- memory

    fn remember(&self, workspace: &WorkspaceKey, state: RunState) {
        let id = state.snapshot.id.clone();
        self.workspaces.entry(workspace.clone()).or_default().known.insert(id.clone());
        let mut entry = self.runs.entry((workspace.clone(), id)).or_insert_with(|| Arc::new(state.clone()));
        if state.version >= entry.version {
            *entry = Arc::new(state);
        }
    }
}

struct Compared {
    /// What is worth a write.
    poll: Option<Poll>,
    /// What only memory learns.
    soft: Vec<RunState>,
}

fn is_followed(state: &RunState) -> bool {
    !state.snapshot.status.is_terminal() && !state.lost
}

/// The oldest creation time on a full page.
fn horizon(sight: &Sight) -> Option<Timestamp> {
    let page = sight.page.as_ref().filter(|page| page.full)?;
    let on_page = sight.runs.iter().filter(|run| page.ids.contains(&run.id));
    on_page.filter_map(|run| run.created_at).min()
}
