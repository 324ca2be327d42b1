//! What can be asked of the tracker: all of it from memory.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Freshness, Tracker, is_followed};
use crate::access::Access;
use crate::model::{Change, Destination, Match, RunId, RunState, Scope, Subscription, Timestamp, WorkspaceKey};

impl Tracker {
    /// Subscriptions owe only what these rules still allow.
    #[must_use]
    pub fn allowing(mut self, access: Arc<Access>) -> Tracker {
        self.access = access;
        self
    }

    pub fn state(&self, workspace: &WorkspaceKey, run: &RunId) -> Option<Arc<RunState>> {
        self.runs.get(&(workspace.clone(), run.clone())).map(|state| state.clone())
    }

    /// Known runs whose id begins like this.
    pub fn find(&self, beginning: &str) -> Vec<(WorkspaceKey, Arc<RunState>)> {
        let matches = self.runs.iter().filter(|entry| entry.key().1.as_str().starts_with(beginning));
        matches.map(|entry| (entry.key().0.clone(), entry.value().clone())).collect()
    }

    /// The runs on the newest page of a workspace, newest first; all that are known where another process looks at it.
    pub fn recent(&self, workspace: &WorkspaceKey) -> Vec<Arc<RunState>> {
        let Some(view) = self.workspaces.get(workspace).map(|view| view.clone()) else { return Vec::new() };
        let of = |runs: &mut dyn Iterator<Item = &RunId>| -> Vec<_> {
            runs.filter_map(|run| self.state(workspace, run)).collect()
        };
        if !view.elsewhere {
            return of(&mut view.page.iter());
        }
        let mut runs = of(&mut view.known.iter());
        runs.sort_by_key(|run| std::cmp::Reverse(run.snapshot.created_at));
        runs
    }

    pub fn is_elsewhere(&self, workspace: &WorkspaceKey) -> bool {
        self.workspaces.get(workspace).is_some_and(|view| view.elsewhere)
    }

    pub fn freshness(&self, workspace: &WorkspaceKey, run: Option<&RunId>) -> Freshness {
        let Some(view) = self.workspaces.get(workspace) else { return Freshness::default() };
        let stored = view.state.as_ref().and_then(|state| state.seen_at);
        let seen_at = match run {
            Some(run) if !view.page.contains(run) => view.seen_off_page.get(run).copied().or(stored),
            // Another process may have seen it since.
            _ => view.seen_at.max(stored),
        };
        Freshness { seen_at, failure: view.failure.clone(), waits_until: view.waits_until }
    }

    /// The workspace was looked at since then, by whoever polls it: by this process, as a rule.
    pub fn looked_since(&self, workspace: &WorkspaceKey, since: Timestamp) -> bool {
        let Some(view) = self.workspaces.get(workspace) else { return false };
        let stored = view.state.as_ref().filter(|_| view.elsewhere).and_then(|state| state.seen_at);
        view.seen_at.max(stored).is_some_and(|seen_at| seen_at >= since)
    }

    /// The workspace was polled, well or not, or can't be before its budget allows it.
    pub fn was_polled(&self, workspace: &WorkspaceKey) -> bool {
        let view = self.workspaces.get(workspace);
        view.is_some_and(|view| {
            view.seen_at.is_some() || view.failure.is_some() || view.waits_until.is_some() || view.elsewhere
        })
    }

    /// Active runs that somebody wants to hear of and that are not on the newest page, the one asked for longest ago
    /// first.
    pub fn off_page(&self, workspace: &WorkspaceKey) -> Vec<RunId> {
        let Some(view) = self.workspaces.get(workspace) else { return Vec::new() };
        let on_page: HashSet<&RunId> = view.page.iter().collect();
        let off_page = view.known.iter().filter(|run| !on_page.contains(run));
        let known: Vec<_> = off_page.map(|run| (view.asked_off_page.get(run).copied(), run.clone())).collect();
        drop(view);
        let mut runs: Vec<_> = known
            .into_iter()
            .filter(|(_, run)| self.state(workspace, run).is_some_and(|state| is_followed(&state)))
            .filter(|(_, run)| !self.interested(workspace, run).is_empty())
            .collect();
        runs.sort();
        runs.into_iter().map(|(_, run)| run).collect()
    }

    /// Active runs of a workspace that somebody wants to hear of.
    pub fn active(&self, workspace: &WorkspaceKey) -> Vec<Arc<RunState>> {
        let known = self.workspaces.get(workspace).map(|view| view.known.clone()).unwrap_or_default();
        let states = known.iter().filter_map(|run| self.state(workspace, run));
        let wanted = states.filter(|state| !self.interested(workspace, &state.snapshot.id).is_empty());
        wanted.filter(|state| is_followed(state)).collect()
    }

    /// Somebody wants something from this workspace.
    pub fn is_watched(&self, workspace: &WorkspaceKey) -> bool {
        let is_on = |one: &Subscription| one.stopped.is_none() && one.scope.workspace() == workspace;
        self.subscriptions.iter().any(|one| is_on(&one))
    }

    /// The workspaces that somebody wants something from.
    pub fn watched(&self) -> HashSet<WorkspaceKey> {
        let going = self.subscriptions.iter().filter(|one| one.stopped.is_none());
        going.map(|one| one.scope.workspace().clone()).collect()
    }

    /// Subscriptions of all kinds, standing ones included.
    pub fn count(&self) -> usize {
        self.subscriptions.iter().filter(|one| one.stopped.is_none()).count()
    }

    /// Subscriptions on this one run.
    pub fn watchers(&self, workspace: &WorkspaceKey, run: &RunId) -> Vec<Arc<Subscription>> {
        let mut found = self.of_scope(&Scope::Run { workspace: workspace.clone(), run: run.clone() });
        found.retain(|one| one.stopped.is_none());
        found
    }

    /// Those that were stopped included.
    pub fn of_scope(&self, scope: &Scope) -> Vec<Arc<Subscription>> {
        self.by_scope.get(scope).map(|found| found.clone()).unwrap_or_default()
    }

    /// Subscriptions on this run or on its whole workspace.
    pub fn interested(&self, workspace: &WorkspaceKey, run: &RunId) -> Vec<Arc<Subscription>> {
        let mut found = self.watchers(workspace, run);
        let standing = self.of_scope(&Scope::Workspace { workspace: workspace.clone() });
        found.extend(standing.into_iter().filter(|one| one.stopped.is_none()));
        found
    }

    pub fn subscription(&self, id: &str) -> Option<Arc<Subscription>> {
        self.subscriptions.get(id).map(|found| found.clone())
    }

    /// The one that sends the same to the same place.
    pub fn same(&self, other: &Subscription) -> Option<Arc<Subscription>> {
        self.of_scope(&other.scope).into_iter().find(|own| own.is_same(other))
    }

    /// As [`Subscription::explain`], by the rights of now.
    pub fn explain(&self, subscription: &Subscription, change: &Change) -> Match {
        match subscription.explain(change) {
            Match::Matched if !self.access.still_allows(subscription, &change.workspace.name) => Match::NotAllowed,
            found => found,
        }
    }

    /// What a destination has subscribed to, oldest first.
    pub fn in_destination(&self, to: &Destination) -> Vec<Arc<Subscription>> {
        self.select(|one| one.to == *to && one.stopped.is_none())
    }

    /// Subscriptions, those that were stopped included, oldest first.
    pub fn select(&self, is_meant: impl Fn(&Subscription) -> bool) -> Vec<Arc<Subscription>> {
        let meant = self.subscriptions.iter().filter(|entry| is_meant(entry));
        let mut found: Vec<_> = meant.map(|entry| entry.value().clone()).collect();
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found
    }

    /// How many of them a person began ([`Subscription::by`]), in all rooms, and has not stopped.
    pub fn count_of(&self, person: &str) -> usize {
        self.subscriptions.iter().filter(|one| one.by == person && one.stopped.is_none()).count()
    }
}
