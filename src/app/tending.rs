//! What this process tends of what several may share: which workspaces it polls, which surfaces it serves.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NamedSurface;
use crate::commands::CATALOG;
use crate::model::{Destination, Workspace, WorkspaceKey};
use crate::poller::Poller;
use crate::store::{Held, Store, StoreError};
use crate::surfaces::Inbox;
use crate::tracker::Tracker;

/// Between two times that a process says that it serves; several fit into a lease.
const INTERVAL: Duration = Duration::from_millis(1500);
/// An answer may wait for the turns of other replicas; one that takes longer may come after the lease.
const ANSWER: Duration = Duration::from_secs(4);

/// A surface that ended with a trouble that a person has to mend is tried again after it.
const REST: Duration = Duration::from_secs(300);

pub struct Tending {
    store: Arc<dyn Store>,
    tracker: Arc<Tracker>,
    poller: Arc<Poller>,
    workspaces: Vec<Workspace>,
    /// Everything there is to tend, as the store knows it.
    names: Vec<String>,
    held: watch::Sender<Held>,
    /// What this process can't tend until then: others may.
    resting: Mutex<HashMap<String, Instant>>,
    /// Told which deliveries of processes that fell silent are unknown now.
    recovered: Recovered,
}

pub type Recovered = Box<dyn Fn(&[(Destination, u64)]) + Send + Sync>;

fn of_workspace(key: &WorkspaceKey) -> String {
    format!("workspace:{}", key.0)
}

fn of_surface(name: &str) -> String {
    format!("surface:{name}")
}

impl Tending {
    pub fn new(
        store: Arc<dyn Store>,
        tracker: Arc<Tracker>,
        poller: Arc<Poller>,
        workspaces: Vec<Workspace>,
        surfaces: &[NamedSurface],
        recovered: Recovered,
    ) -> Tending {
        let names = workspaces.iter().map(|workspace| of_workspace(&workspace.key()));
        let names = names.chain(surfaces.iter().map(|(name, _)| of_surface(name))).collect();
        Tending {
            store,
            tracker,
            poller,
            workspaces,
            names,
            held: watch::Sender::default(),
            resting: Mutex::default(),
            recovered,
        }
    }

    /// Says that this process serves, and takes over what is its part.
    pub async fn look(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let held = self.store.hold(&self.wanted(asked)).await?;
        let keys = self.workspaces.iter().map(Workspace::key);
        let keys: HashSet<WorkspaceKey> = keys.filter(|key| held.names.contains(&of_workspace(key))).collect();
        self.tracker.tend(&self.workspaces, &keys);
        self.poller.tend(&keys, held.lasts.map(|lasts| asked + lasts));
        (self.recovered)(&held.recovered);
        self.held.send_if_modified(|known| std::mem::replace(known, held.clone()).names != held.names);
        Ok(())
    }

    fn wanted(&self, now: Instant) -> Vec<String> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.retain(|_, until| *until > now);
        self.names.iter().filter(|name| !resting.contains_key(*name)).cloned().collect()
    }

    /// Looks again and again until the end.
    pub async fn run(&self, stop: CancellationToken) {
        let mut heard = Instant::now();
        while tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_err() {
            let asked = Instant::now();
            match tokio::time::timeout(ANSWER, self.look()).await {
                Ok(Ok(())) => heard = asked,
                failed => {
                    tracing::debug!(?failed, "what this process may tend is not known");
                    let over = self.held.borrow().lasts.is_some_and(|lasts| heard + lasts <= asked);
                    self.held.send_if_modified(|held| over && !std::mem::take(&mut held.names).is_empty());
                }
            }
        }
    }

    /// Serves a surface while it is this process that does.
    pub async fn serve(&self, (name, surface): NamedSurface, inbox: Inbox, stop: CancellationToken) {
        let mine = of_surface(name);
        let mut told = String::new();
        while self.changes_to(&mine, true, &stop).await {
            let serving = stop.child_token();
            let running = surface.run(inbox.clone(), &CATALOG, serving.clone());
            tokio::pin!(running);
            let ended = tokio::select! {
                ended = &mut running => ended,
                true = self.changes_to(&mine, false, &stop) => {
                    tracing::info!(surface = name, "another process serves it now");
                    serving.cancel();
                    running.await
                }
            };
            match ended {
                Ok(()) if !serving.is_cancelled() => return,
                Ok(()) => {}
                Err(said) => {
                    // Another one's token may be good; and a person may mend it without a restart.
                    let until = Instant::now() + REST;
                    self.resting.lock().unwrap_or_else(PoisonError::into_inner).insert(mine.clone(), until);
                    if told != said {
                        tracing::error!(
                            surface = name,
                            again_in_s = REST.as_secs(),
                            "{said}; everything else goes on without it"
                        );
                    }
                    told = said;
                    self.changes_to(&mine, false, &stop).await;
                }
            }
        }
    }

    /// False at the stop. True once `name` is held, or is not, as asked.
    async fn changes_to(&self, name: &str, held: bool, stop: &CancellationToken) -> bool {
        let mut told = self.held.subscribe();
        tokio::select! {
            biased;
            // What is held still when everything ends is begun no more.
            () = stop.cancelled() => false,
            // The guard that is returned must not be kept.
            changed = async { told.wait_for(|now| now.names.contains(name) == held).await.is_ok() } => changed,
        }
    }
}
