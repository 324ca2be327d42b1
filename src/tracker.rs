//! What is known, in memory: runs as last seen, who wants what. Written through to the store, rebuilt from it.
//!
//! Every observation goes through [`Tracker::observe`]: compare with memory, record in one transaction, then move
//! memory. Nothing is locked over the store's IO. Instead each run carries a version, and a record computed from an
//! older one is refused as stale and computed again. Subscribing to a run bumps its version too, so a poll that did
//! not know the subscription yet can't record a change without it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::diff::{self, Context, Step};
use crate::metrics::{Metrics, OfKind};
use crate::model::{
    Change, Destination, RunId, RunState, Scope, Snapshot, Subscription, Timestamp, Workspace, WorkspaceKey,
};
use crate::store::{NewDelivery, Poll, Recorded, Store, StoreError, Subscribed, WorkspaceState};

/// The console's link to a run.
pub type Link = Box<dyn Fn(&Workspace, &RunId) -> String + Send + Sync>;

/// A record that was refused as stale is computed again this often, with the store's truth in between.
const TRIES: usize = 5;

pub struct Tracker {
    store: Arc<dyn Store>,
    link: Link,
    waiting_after: Duration,
    metrics: Arc<Metrics>,
    /// From the configuration; never in the store.
    standing: Vec<Arc<Subscription>>,
    runs: DashMap<(WorkspaceKey, RunId), Arc<RunState>>,
    workspaces: DashMap<WorkspaceKey, View>,
    subscriptions: DashMap<String, Arc<Subscription>>,
    by_scope: DashMap<Scope, Vec<Arc<Subscription>>>,
    /// Counts what was applied to memory, so that a reload does not undo what came in beside it.
    applied: Mutex<u64>,
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
    failure: Option<Failure>,
}

/// Polls that fail since when, and what the last one said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub since: Timestamp,
    pub said: String,
}

/// How old what we know of a run is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Freshness {
    pub seen_at: Option<Timestamp>,
    pub failure: Option<Failure>,
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

/// How a subscription to a run went.
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
        waiting_after: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Tracker, StoreError> {
        let tracker = Tracker {
            store,
            link,
            waiting_after,
            metrics,
            standing: standing.into_iter().map(Arc::new).collect(),
            runs: DashMap::new(),
            workspaces: DashMap::new(),
            subscriptions: DashMap::new(),
            by_scope: DashMap::new(),
            applied: Mutex::new(0),
            owed: Notify::new(),
        };
        tracker.reload().await?;
        Ok(tracker)
    }

    /// Resolves when deliveries were recorded since the last call.
    pub async fn owed(&self) {
        self.owed.notified().await;
    }

    /// Takes over what another process wrote to the store.
    pub async fn reload(&self) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let before = self.applied_so_far();
            let loaded = self.store.load().await?;
            let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
            if *applied != before {
                continue;
            }
            *applied += 1;
            for state in loaded.workspaces {
                let mut view = self.workspaces.entry(state.key.clone()).or_default();
                view.state = Some(state);
            }
            for (workspace, state) in loaded.runs {
                self.remember(&workspace, state);
            }
            self.subscriptions.clear();
            self.by_scope.clear();
            let stored = loaded.subscriptions.into_iter().map(Arc::new);
            stored.chain(self.standing.iter().cloned()).for_each(|subscription| self.add(subscription));
            self.owed.notify_one();
            return Ok(());
        }
        Ok(())
    }

    fn applied_so_far(&self) -> u64 {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what a poll saw with what was remembered and records the difference, if there is one, together with
    /// the deliveries it owes. Returns the changes.
    pub async fn observe(&self, workspace: &Workspace, sight: Sight, at: Timestamp) -> Result<Vec<Change>, StoreError> {
        for _ in 0..TRIES {
            let Compared { poll, soft } = self.compare(workspace, &sight, at);
            let recorded = match &poll {
                Some(poll) => self.store.record(poll).await?,
                None => Recorded::Done,
            };
            match recorded {
                Recorded::Done => return Ok(self.apply(workspace, sight, poll, soft, at)),
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
        };
        let mut hard = Vec::new();
        let mut soft = Vec::new();
        let mut take = |step: Step| if step.durable { hard.push(step) } else { soft.push(step.state) };
        for snapshot in &sight.runs {
            let url = (self.link)(workspace, &snapshot.id);
            let context = Context { workspace, url: &url, at, waiting_after: self.waiting_after };
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
            let context = Context { workspace, url: &url, at, waiting_after: self.waiting_after };
            take(diff::missing(&old, context));
        }
        let is_first = known.is_none() && sight.page.is_some();
        if hard.is_empty() && !is_first {
            return Compared { poll: None, soft };
        }
        let changes: Vec<Change> = hard.iter().flat_map(|step| step.changes.iter().cloned()).collect();
        let poll = Poll {
            deliveries: self.owed_for(&changes),
            ended: self.ended_by(&changes),
            forgotten: self.forgotten(&state, sight),
            workspace: state,
            runs: hard.into_iter().map(|step| step.state).collect(),
            changes,
        };
        Compared { poll: Some(poll), soft }
    }

    /// One message for each change, destination and template set, however many subscriptions ask for it.
    fn owed_for(&self, changes: &[Change]) -> Vec<NewDelivery> {
        let mut owed = Vec::new();
        for change in changes {
            let mut reached = HashSet::new();
            for subscription in self.interested(&change.workspace.key(), &change.run.id) {
                let place = (subscription.to.clone(), subscription.template.clone());
                if subscription.matches(change) && reached.insert(place) {
                    owed.push(NewDelivery {
                        id: Uuid::now_v7(),
                        run: change.run.id.clone(),
                        sequence: change.sequence,
                        to: subscription.to.clone(),
                        template: subscription.template.clone(),
                        subscription: subscription.id.clone(),
                        at: change.at,
                    });
                }
            }
        }
        owed
    }

    fn ended_by(&self, changes: &[Change]) -> Vec<String> {
        let ended = changes.iter().filter(|change| change.ends_run());
        ended.flat_map(|change| self.watchers(&change.workspace.key(), &change.run.id)).map(|s| s.id.clone()).collect()
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
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        *applied += 1;
        soft.into_iter().for_each(|state| self.remember(&key, state));
        let mut view = self.workspaces.entry(key.clone()).or_default();
        let on_page: Option<HashSet<&RunId>> = sight.page.as_ref().map(|page| page.ids.iter().collect());
        for run in &sight.runs {
            if on_page.as_ref().is_none_or(|page| !page.contains(&run.id)) {
                view.seen_off_page.insert(run.id.clone(), at);
            }
        }
        if let Some(page) = sight.page {
            view.seen_at = Some(at);
            view.failure = None;
            view.page = page.ids;
        }
        let Some(poll) = poll else { return Vec::new() };
        view.state = Some(poll.workspace);
        for run in &poll.forgotten {
            view.known.remove(run);
            view.seen_off_page.remove(run);
            self.runs.remove(&(key.clone(), run.clone()));
        }
        drop(view);
        poll.runs.into_iter().for_each(|state| self.remember(&key, state));
        poll.ended.iter().for_each(|id| self.remove(id));
        for change in &poll.changes {
            self.metrics.changes.get_or_create(&OfKind { kind: change.kind.name() }).inc();
        }
        if !poll.deliveries.is_empty() {
            self.owed.notify_one();
        }
        poll.changes
    }

    /// A poll that failed changes nothing but is remembered.
    pub fn poll_failed(&self, workspace: &WorkspaceKey, said: String, at: Timestamp) {
        let mut view = self.workspaces.entry(workspace.clone()).or_default();
        let since = view.failure.as_ref().map_or(at, |failure| failure.since);
        view.failure = Some(Failure { since, said });
    }

    /// Adds a subscription to a run that was just observed. `snapshot` is where it stands.
    pub async fn watch(&self, subscription: Subscription, snapshot: Snapshot) -> Result<Watched, StoreError> {
        let Scope::Run { workspace, run } = subscription.scope.clone() else { return Ok(Watched::Already) };
        let state = self
            .state(&workspace, &run)
            .map_or_else(|| diff::baseline(snapshot, subscription.created_at), |state| (*state).clone());
        if state.snapshot.status.is_terminal() {
            return Ok(Watched::Ended);
        }
        let id = subscription.id.clone();
        if let Subscribed::Already { .. } = self.store.subscribe(&subscription, Some(&state)).await? {
            return Ok(Watched::Already);
        }
        let was_known = self.state(&workspace, &run).is_some();
        {
            let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
            *applied += 1;
            self.add(Arc::new(subscription));
            if was_known {
                self.bump(&workspace, &run);
            } else {
                self.remember(&workspace, state);
            }
        }
        // A poll may have recorded the end while the subscription was on its way.
        if self.state(&workspace, &run).is_some_and(|state| state.snapshot.status.is_terminal()) {
            self.unsubscribe(&id).await?;
            return Ok(Watched::Ended);
        }
        Ok(Watched::New)
    }

    pub async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError> {
        let existed = self.store.unsubscribe(id).await?;
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        *applied += 1;
        self.remove(id);
        Ok(existed)
    }

    // -------------------------------------------------------------------------------------------------- questions

    pub fn state(&self, workspace: &WorkspaceKey, run: &RunId) -> Option<Arc<RunState>> {
        self.runs.get(&(workspace.clone(), run.clone())).map(|state| state.clone())
    }

    /// Known runs whose id begins like this.
    pub fn find(&self, beginning: &str) -> Vec<(WorkspaceKey, Arc<RunState>)> {
        let matches = self.runs.iter().filter(|entry| entry.key().1.as_str().starts_with(beginning));
        matches.map(|entry| (entry.key().0.clone(), entry.value().clone())).collect()
    }

    /// The runs on the newest page of a workspace, newest first.
    pub fn recent(&self, workspace: &WorkspaceKey) -> Vec<Arc<RunState>> {
        let page = self.workspaces.get(workspace).map(|view| view.page.clone()).unwrap_or_default();
        page.iter().filter_map(|run| self.state(workspace, run)).collect()
    }

    pub fn freshness(&self, workspace: &WorkspaceKey, run: Option<&RunId>) -> Freshness {
        let Some(view) = self.workspaces.get(workspace) else { return Freshness::default() };
        let seen_at = match run {
            Some(run) if !view.page.contains(run) => view.seen_off_page.get(run).copied(),
            _ => view.seen_at,
        };
        Freshness { seen_at, failure: view.failure.clone() }
    }

    /// Each configured workspace was polled, well or not.
    pub fn was_polled(&self, workspace: &WorkspaceKey) -> bool {
        self.workspaces.get(workspace).is_some_and(|view| view.seen_at.is_some() || view.failure.is_some())
    }

    /// Active runs that somebody wants to hear of and that are not on the page.
    pub fn off_page(&self, workspace: &WorkspaceKey, page: &[RunId]) -> Vec<RunId> {
        let Some(view) = self.workspaces.get(workspace) else { return Vec::new() };
        let on_page: HashSet<&RunId> = page.iter().collect();
        let known: Vec<RunId> = view.known.iter().filter(|run| !on_page.contains(run)).cloned().collect();
        drop(view);
        let mut runs: Vec<RunId> = known
            .into_iter()
            .filter(|run| self.state(workspace, run).is_some_and(|state| is_followed(&state)))
            .filter(|run| !self.interested(workspace, run).is_empty())
            .collect();
        runs.sort();
        runs
    }

    /// Active runs of a workspace that somebody wants to hear of.
    pub fn active(&self, workspace: &WorkspaceKey) -> Vec<Arc<RunState>> {
        let known = self.workspaces.get(workspace).map(|view| view.known.clone()).unwrap_or_default();
        let states = known.iter().filter_map(|run| self.state(workspace, run));
        states.filter(|state| is_followed(state)).collect()
    }

    /// Somebody wants something from this workspace.
    pub fn is_watched(&self, workspace: &WorkspaceKey) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.scope.workspace() == workspace)
    }

    /// The workspaces that somebody wants something from.
    pub fn watched(&self) -> HashSet<WorkspaceKey> {
        self.subscriptions.iter().map(|subscription| subscription.scope.workspace().clone()).collect()
    }

    /// Subscriptions on this one run.
    pub fn watchers(&self, workspace: &WorkspaceKey, run: &RunId) -> Vec<Arc<Subscription>> {
        let scope = Scope::Run { workspace: workspace.clone(), run: run.clone() };
        self.by_scope.get(&scope).map(|found| found.clone()).unwrap_or_default()
    }

    /// Subscriptions on this run or on its whole workspace.
    pub fn interested(&self, workspace: &WorkspaceKey, run: &RunId) -> Vec<Arc<Subscription>> {
        let standing = self.by_scope.get(&Scope::Workspace { workspace: workspace.clone() });
        let mut found = self.watchers(workspace, run);
        found.extend(standing.map(|found| found.clone()).unwrap_or_default());
        found
    }

    /// What a destination has subscribed to, oldest first.
    pub fn in_destination(&self, to: &Destination) -> Vec<Arc<Subscription>> {
        let mut found: Vec<_> =
            self.subscriptions.iter().filter(|entry| entry.to == *to).map(|entry| entry.value().clone()).collect();
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found
    }

    pub fn destinations(&self) -> BTreeSet<Destination> {
        self.subscriptions.iter().map(|entry| entry.to.clone()).collect()
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

    fn bump(&self, workspace: &WorkspaceKey, run: &RunId) {
        if let Some(mut entry) = self.runs.get_mut(&(workspace.clone(), run.clone())) {
            let version = entry.version + 1;
            *entry = Arc::new(RunState { version, ..(**entry).clone() });
        }
    }

    fn add(&self, subscription: Arc<Subscription>) {
        self.remove(&subscription.id);
        self.by_scope.entry(subscription.scope.clone()).or_default().push(subscription.clone());
        self.subscriptions.insert(subscription.id.clone(), subscription);
    }

    fn remove(&self, id: &str) {
        let Some((_, subscription)) = self.subscriptions.remove(id) else { return };
        if let Some(mut scope) = self.by_scope.get_mut(&subscription.scope) {
            scope.retain(|other| other.id != id);
        }
        self.by_scope.remove_if(&subscription.scope, |_, left| left.is_empty());
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
