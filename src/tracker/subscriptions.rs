//! What is done with subscriptions, in the store and then in memory; and what a poll does with them.

use std::sync::Arc;
use std::time::Duration;

use super::{Tracker, Watched};
use crate::diff;
use crate::model::{Change, RunState, Scope, Snapshot, Subscription, Timestamp, UNDONE_WITHIN, WorkspaceKey, elapsed};
use crate::planted::{Bug, is_planted};
use crate::store::{Poll, StoreError, Subscribed};

/// What is over stays for so long, so that another process which knows that it was extended is not contradicted.
const OVER_KEPT: Duration = Duration::from_secs(60);

impl Tracker {
    /// Adds a subscription to a run that was just observed. `snapshot` is where it stands.
    pub async fn watch(&self, subscription: Subscription, snapshot: Snapshot) -> Result<Watched, StoreError> {
        let Scope::Run { workspace, run } = subscription.scope.clone() else { return self.follow(subscription).await };
        let state = self
            .state(&workspace, &run)
            .map_or_else(|| diff::baseline(snapshot, subscription.created_at), |state| (*state).clone());
        if state.snapshot.status.is_terminal() {
            return Ok(Watched::Ended);
        }
        let id = subscription.id.clone();
        let Subscribed::New { run: stored } = self.heard(self.store.subscribe(&subscription, Some(&state)).await)?
        else {
            return Ok(Watched::Already);
        };
        {
            let mut reached = self.reached();
            reached.subscribed += 1;
            self.supersede(subscription);
            if let Some(stored) = stored {
                self.catch_up(&workspace, *stored);
            }
        }
        // A poll may have recorded the end before the subscription was there.
        if self.state(&workspace, &run).is_some_and(|state| state.snapshot.status.is_terminal()) {
            self.unsubscribe(&id).await?;
            return Ok(Watched::Ended);
        }
        Ok(Watched::New)
    }

    /// Adds a subscription to all runs of a workspace, or to the next one.
    pub async fn follow(&self, subscription: Subscription) -> Result<Watched, StoreError> {
        let stored = self.heard(self.store.subscribe(&subscription, None).await)?;
        if matches!(stored, Subscribed::Already { .. }) {
            return Ok(Watched::Already);
        }
        let mut reached = self.reached();
        reached.subscribed += 1;
        self.supersede(subscription);
        Ok(Watched::New)
    }

    /// Replaces subscriptions by what they are from now on. Says how many: those that ended, or found their run,
    /// meanwhile are left as they are.
    pub async fn amend(&self, subscriptions: Vec<Subscription>) -> Result<usize, StoreError> {
        // Memory takes them over in the order in which they were stored.
        let _turn = self.amending.lock().await;
        let amended = self.heard(self.store.amend(&subscriptions).await)?;
        let mut over = Vec::new();
        {
            let mut reached = self.reached();
            reached.subscribed += 1;
            for subscription in subscriptions.into_iter().filter(|one| amended.contains(&one.id)) {
                let run = subscription.scope.run().and_then(|run| self.state(subscription.scope.workspace(), run));
                if run.is_some_and(|run| run.snapshot.status.is_terminal()) {
                    over.push(subscription.id.clone());
                }
                // A poll may have moved it on just now.
                let known = self.subscriptions.get(&subscription.id).map(|known| Arc::clone(&known));
                if known.is_some_and(|known| known.is_same(&subscription)) {
                    self.add(Arc::new(subscription));
                }
            }
        }
        // A poll may have recorded the end of a run just before.
        for id in &over {
            self.unsubscribe(id).await?;
        }
        Ok(amended.len() - over.len())
    }

    /// Forgets what is over, and what was stopped so long ago that nobody takes it up again.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let is_past = |at: Option<Timestamp>, kept| at.is_some_and(|at| elapsed(at, now) >= kept);
        let is_over =
            |one: &Subscription| is_past(one.until, OVER_KEPT) || is_past(one.stopped, UNDONE_WITHIN + OVER_KEPT);
        let over = self.subscriptions.iter().filter(|one| is_over(one)).map(|one| one.id.clone());
        for id in over.collect::<Vec<_>>() {
            self.unsubscribe(&id).await?;
        }
        Ok(())
    }

    pub async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError> {
        let existed = self.heard(self.store.unsubscribe(id).await)?;
        let mut reached = self.reached();
        reached.subscribed += 1;
        self.remove(id);
        Ok(existed)
    }

    // ------------------------------------------------------------------------------------------------------- polls

    /// What waited for the next run has found it.
    pub(super) fn begun_by(&self, workspace: &WorkspaceKey, changes: &[Change]) -> Vec<Subscription> {
        let Some(start) = Poll::next_run(changes) else { return Vec::new() };
        let waiting = self.of_scope(&Scope::Next { workspace: workspace.clone() });
        let mut begun: Vec<_> = waiting.iter().filter_map(|one| one.taking(&start.run.id, start.at)).collect();
        begun.sort_by(|a, b| a.id.cmp(&b.id));
        begun
    }

    pub(super) fn ended_by(&self, changes: &[Change], begun: &[Subscription]) -> Vec<String> {
        if is_planted(Bug::WatchOutlivesRun) {
            return Vec::new();
        }
        let ended = changes.iter().filter(|change| change.ends_run());
        let of = |change: &Change| {
            let (workspace, run) = (change.workspace.key(), change.run.id.clone());
            let just_begun = begun.iter().filter(|one| one.scope.run() == Some(&run)).map(|one| one.id.clone());
            let just_begun: Vec<String> = just_begun.collect();
            // Those that were stopped as well: what is over can't be taken up again.
            let known = match is_planted(Bug::EndsTooMuch) {
                true => self.interested(&workspace, &run),
                false => self.of_scope(&Scope::Run { workspace, run }),
            };
            known.into_iter().map(|one| one.id.clone()).chain(just_begun).collect::<Vec<_>>()
        };
        ended.flat_map(of).collect()
    }

    // ------------------------------------------------------------------------------------------------------ memory

    /// Takes over a run as a subscription left it in the store. Where somebody else moved the run meanwhile, memory keeps an older version than
    /// the store, so that the next record is refused and memory learns first what else is new: another process may
    /// have subscribed too. Never a newer one, which would be refused for ever.
    fn catch_up(&self, workspace: &WorkspaceKey, stored: RunState) {
        match self.state(workspace, &stored.snapshot.id) {
            Some(known) if known.version + 1 == stored.version => {
                self.remember(workspace, RunState { version: stored.version, ..(*known).clone() });
            }
            None if stored.version == 1 => self.remember(workspace, stored),
            _ => self.remember(workspace, RunState { version: stored.version - 1, ..stored }),
        }
    }

    /// Adds one, or puts it in the place of what it was before. A poll that looks meanwhile finds one of the two, and
    /// perhaps both.
    pub(super) fn add(&self, subscription: Arc<Subscription>) {
        let (id, scope) = (subscription.id.clone(), subscription.scope.clone());
        let before = self.subscriptions.insert(id.clone(), Arc::clone(&subscription));
        if before.as_ref() == Some(&subscription) {
            return;
        }
        let mut of_scope = self.by_scope.entry(scope.clone()).or_default();
        match of_scope.iter_mut().find(|one| one.id == id) {
            Some(place) => *place = subscription,
            None => of_scope.push(subscription),
        }
        drop(of_scope);
        if let Some(before) = before.filter(|before| before.scope != scope) {
            self.leave(&before);
        }
    }

    /// Adds one that took the place of what was stopped or is over.
    fn supersede(&self, subscription: Subscription) {
        let of_scope = self.of_scope(&subscription.scope);
        let old = of_scope.iter().filter(|old| old.id != subscription.id && old.is_same(&subscription));
        old.for_each(|old| self.remove(&old.id));
        // A poll may have learned of it, and moved it on, just now.
        if !self.subscriptions.contains_key(&subscription.id) {
            self.add(Arc::new(subscription));
        }
    }

    pub(super) fn remove(&self, id: &str) {
        if let Some((_, subscription)) = self.subscriptions.remove(id) {
            self.leave(&subscription);
        }
    }

    /// It is of its scope no more.
    fn leave(&self, subscription: &Subscription) {
        if let Some(mut scope) = self.by_scope.get_mut(&subscription.scope) {
            scope.retain(|other| other.id != subscription.id);
        }
        self.by_scope.remove_if(&subscription.scope, |_, left| left.is_empty());
    }
}
