//! How memory follows the store: everything at the start, and what other processes wrote since.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{TRIES, Tracker};
use crate::model::Subscription;
use crate::store::{Loaded, Moved, Moves, Part, StoreError};

/// What memory holds of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// Counts what came and went among the subscriptions, so that what was read does not undo what happened beside it.
    pub subscribed: u64,
    /// The last look at what others wrote. None: there was none yet.
    pub mark: Option<i64>,
}

impl Tracker {
    /// Takes over what other processes wrote to the store since the last time, all of it at first. Says whether there
    /// was anything.
    pub async fn take_over(&self) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let (before, is_behind) = (*self.reached(), self.is_behind());
            let Moved { mark, moves } = self.store.moved(before.mark).await?;
            match moves {
                Moves::None if !is_behind => {
                    self.reach(before.mark, mark);
                    return Ok(false);
                }
                Moves::Of(part) if !is_behind => {
                    let mut reached = self.reached();
                    if reached.mark >= Some(mark) {
                        // Somebody else took over as much meanwhile.
                        return Ok(true);
                    }
                    if *reached != before {
                        continue;
                    }
                    *reached = Reached { subscribed: before.subscribed + 1, mark: Some(mark) };
                    self.learn_part(*part);
                    return Ok(true);
                }
                _ => {
                    self.reload().await?;
                    self.reach(before.mark, mark);
                    return Ok(true);
                }
            }
        }
        Err(too_fast())
    }

    /// What is told twice does no harm: the mark stays where somebody else has set it meanwhile.
    fn reach(&self, before: Option<i64>, mark: i64) {
        let mut reached = self.reached();
        if reached.mark == before {
            reached.mark = Some(mark);
        }
    }

    /// Reads everything anew.
    pub async fn reload(&self) -> Result<(), StoreError> {
        self.behind.store(true, Ordering::Release);
        for _ in 0..TRIES {
            let before = self.reached().subscribed;
            let loaded = self.store.load().await?;
            let mut reached = self.reached();
            if reached.subscribed != before {
                continue;
            }
            reached.subscribed += 1;
            self.learn_all(loaded);
            self.behind.store(false, Ordering::Release);
            return Ok(());
        }
        Err(too_fast())
    }

    fn learn_all(&self, loaded: Loaded) {
        let ids = |all: &mut dyn Iterator<Item = &Subscription>| all.map(|one| one.id.clone()).collect::<HashSet<_>>();
        let stays = ids(&mut loaded.subscriptions.iter().chain(self.standing.iter().map(Arc::as_ref)));
        let gone = self.subscriptions.iter().map(|entry| entry.key().clone()).filter(|id| !stays.contains(id));
        let gone: Vec<String> = gone.collect();
        let stored: HashSet<_> =
            loaded.runs.iter().map(|(workspace, state)| (workspace.clone(), state.snapshot.id.clone())).collect();
        self.learn(loaded, &gone);
        self.standing.iter().for_each(|subscription| self.add(Arc::clone(subscription)));
        // Runs that whoever polls their workspace has forgotten.
        let mut elsewhere = HashSet::new();
        for mut view in self.workspaces.iter_mut().filter(|view| view.elsewhere) {
            let key = view.key().clone();
            view.known.retain(|run| stored.contains(&(key.clone(), run.clone())));
            elsewhere.insert(key);
        }
        if !elsewhere.is_empty() {
            self.runs.retain(|id, _| !elsewhere.contains(&id.0) || stored.contains(id));
        }
    }

    fn learn_part(&self, part: Part) {
        self.learn(part.loaded, &part.ended);
        for id in part.forgotten {
            if let Some(mut view) = self.workspaces.get_mut(&id.0).filter(|view| view.elsewhere) {
                view.known.remove(&id.1);
                self.runs.remove(&id);
            }
        }
    }

    fn learn(&self, loaded: Loaded, ended: &[String]) {
        for state in loaded.workspaces {
            let mut view = self.workspaces.entry(state.key.clone()).or_default();
            view.state = Some(state);
        }
        // A poll may look at any moment: what stays must not be gone in between.
        ended.iter().for_each(|id| self.remove(id));
        loaded.subscriptions.into_iter().for_each(|subscription| self.add(Arc::new(subscription)));
        // Only now: a version that a subscription counted up must not be seen before that subscription.
        for (workspace, state) in loaded.runs {
            // What memory alone knows of this version, a doubt above all, is not to be lost.
            if self.state(&workspace, &state.snapshot.id).is_none_or(|known| known.version < state.version) {
                self.remember(&workspace, state);
            }
        }
        self.owed.notify_one();
    }
}

fn too_fast() -> StoreError {
    StoreError::Failed("subscriptions change faster than they can be read".to_owned())
}
