//! The loops: started together; when one ends or the stop comes, all end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{App, AppError, Outages};
use crate::audit::Audit;
use crate::dispatcher::Dispatcher;
use crate::model::{Clock, Timestamp, elapsed};
use crate::poller::Poller;
use crate::store::{Store, StoreError};
use crate::tracker::Tracker;
use crate::{commands, http};

/// Between two looks whether another process wrote to the store.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Others that write all the time are not listened to all the time.
const DEAF: Duration = Duration::from_millis(100);
/// Between two prunings of what ended long ago.
const PRUNING: Duration = Duration::from_secs(3600);
/// Ended deliveries are kept this long, to be asked about.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Sends under way may take this long when the process ends: longer than a send's deadline.
const GRACE: Duration = Duration::from_secs(12);
/// A loop sleeps no longer than this, whatever the clock says.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl App {
    /// Runs until `stop`, then lets what is under way end. `Err` when a part of it ended by itself.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<(), AppError> {
        let (pages, poller, dispatcher) =
            (Arc::clone(&self.pages), Arc::clone(&self.poller), Arc::clone(&self.dispatcher));
        let (store, audit, clock) =
            (Arc::clone(&self.store), Arc::clone(&self.commands.audit), Arc::clone(&self.clock));
        // Serves to the end, so that whoever asks meanwhile hears that this process is ending.
        let serving = CancellationToken::new();
        let mut server = tokio::spawn(http::serve(listener, Arc::clone(&pages), serving.clone()));
        let mut loops = self.loops(&stop);
        let first = tokio::select! {
            first = loops.join_next() => first,
            served = &mut server => {
                tracing::error!(?served, "the HTTP server ended");
                Some(Ok("the HTTP server"))
            }
        };
        let by_itself = !stop.is_cancelled();
        pages.drain();
        stop.cancel();
        let rest = async {
            while loops.join_next().await.is_some() {}
            poller.idle().await;
            dispatcher.idle().await;
        };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("something was still under way after {} s and is left behind", GRACE.as_secs());
        }
        if let Err(error) = audit.flush(clock()).await {
            tracing::warn!(%error, "the last denials are not in the audit log");
        }
        if let Err(error) = store.retire().await {
            tracing::debug!(%error, "others have to find out that this process ended");
        }
        serving.cancel();
        if !server.is_finished() {
            // It cuts what lingers by itself.
            drop(server.await);
        }
        if by_itself { ended(first) } else { Ok(()) }
    }

    fn loops(self, stop: &CancellationToken) -> JoinSet<&'static str> {
        let App { tracker, poller, dispatcher, outages, commands, store, clock, tending, asked, .. } = self;
        let mut loops: JoinSet<&'static str> = JoinSet::new();
        let polling = poll(Arc::clone(&poller), Arc::clone(&clock), stop.clone());
        loops.spawn(named("polling", polling));
        let delivering = deliver(Arc::clone(&dispatcher), Arc::clone(&tracker), Arc::clone(&clock), stop.clone());
        loops.spawn(named("delivery", delivering));
        loops.spawn(named("the store", verify(Arc::clone(&store), stop.clone())));
        let (looking, ending) = (Arc::clone(&tending), stop.clone());
        loops.spawn(named("tending", async move { looking.run(ending).await }));
        let told = (outages, Arc::clone(&commands.audit));
        let keeping = keep_house(store, tracker, poller, dispatcher, told, clock, stop.clone());
        loops.spawn(named("housekeeping", keeping));
        // Where no surface is configured, nobody else keeps the door open.
        let (ending, open) = (stop.clone(), self.inbox.clone());
        loops.spawn(named("commands", async move {
            let _open = open;
            tokio::select! {
                () = commands::serve(commands, asked) => {}
                () = ending.cancelled() => {}
            }
        }));
        for (name, surface) in self.surfaces {
            let (inbox, tending, stop) = (self.inbox.clone(), Arc::clone(&tending), stop.clone());
            loops.spawn(named(name, async move { tending.serve((name, surface), inbox, stop).await }));
        }
        loops
    }
}

/// What ended first, by itself.
fn ended(first: Option<Result<&'static str, JoinError>>) -> Result<(), AppError> {
    match first {
        Some(Ok(name)) => Err(AppError::Ended(name)),
        Some(Err(error)) => {
            tracing::error!(%error, "a part of the service broke");
            Err(AppError::Ended("a part of the service"))
        }
        None => Ok(()),
    }
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

async fn poll(poller: Arc<Poller>, clock: Clock, stop: CancellationToken) {
    loop {
        let next = poller.tick(clock());
        tokio::select! {
            () = stop.cancelled() => return,
            () = poller.changed() => {}
            () = sleep_until(next, &clock) => {}
        }
    }
}

async fn deliver(dispatcher: Arc<Dispatcher>, tracker: Arc<Tracker>, clock: Clock, stop: CancellationToken) {
    loop {
        let next = dispatcher.tick(clock()).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tracker.owed() => {}
            () = dispatcher.freed() => {}
            () = sleep_until(next, &clock) => {}
        }
    }
}

/// Looks through the store once. Returns when it is damaged, or at the stop.
async fn verify(store: Arc<dyn Store>, stop: CancellationToken) {
    match store.verify().await {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, "the service ends");
            return;
        }
        Err(error) => tracing::warn!(%error, "the store could not be looked through"),
        Ok(()) => {}
    }
    stop.cancelled().await;
}

/// Takes over what another process wrote to the store, tells outages, and forgets what ended long ago.
async fn keep_house(
    store: Arc<dyn Store>,
    tracker: Arc<Tracker>,
    poller: Arc<Poller>,
    dispatcher: Arc<Dispatcher>,
    (outages, audit): (Arc<Outages>, Arc<Audit>),
    clock: Clock,
    stop: CancellationToken,
) {
    let mut looked_at = clock();
    let mut pruned_at = looked_at;
    let mut failing = false;
    while rest(store.as_ref(), &stop).await {
        let now = clock();
        let kept = async {
            take_over(&tracker, &poller, &dispatcher, now).await?;
            tracker.keep_sight().await?;
            tracker.sweep(now).await?;
            if outages.look(now).await? {
                dispatcher.wake();
            }
            audit.flush(now).await?;
            // A clock that jumped says nothing about how long messages have waited.
            if elapsed(looked_at, now) >= PRUNING {
                pruned_at = now;
            }
            looked_at = now;
            if elapsed(pruned_at, now) >= PRUNING {
                pruned_at = now;
                store.prune(now.checked_sub(KEPT).unwrap_or(Timestamp::MIN)).await?;
            }
            Ok::<(), StoreError>(())
        };
        let kept = kept.await;
        if kept == Err(StoreError::Broken) {
            tracing::error!(error = %StoreError::Broken, "the service ends");
            return;
        }
        match &kept {
            // Said once an outage.
            Err(error) if !failing => tracing::warn!(%error, "changes of other processes are not seen for now"),
            Ok(()) if failing => tracing::info!("changes of other processes are seen again"),
            _ => {}
        }
        failing = kept.is_err();
    }
}

/// Until it is time to look, or another process is said to have written. False at the stop.
async fn rest(store: &dyn Store, stop: &CancellationToken) -> bool {
    let told = async {
        tokio::time::sleep(DEAF).await;
        store.stirred().await;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = told => true,
        () = tokio::time::sleep(HOUSEKEEPING) => true,
    }
}

/// Takes over what another process wrote to the store since the last look.
pub async fn take_over(
    tracker: &Tracker,
    poller: &Poller,
    dispatcher: &Dispatcher,
    now: Timestamp,
) -> Result<(), StoreError> {
    let watched = tracker.watched();
    if tracker.take_over().await? {
        // Nobody waits for the long interval of a workspace that nobody watched.
        tracker.watched().difference(&watched).for_each(|workspace| poller.hurry(workspace, now));
        dispatcher.wake();
    }
    Ok(())
}

async fn sleep_until(next: Option<Timestamp>, clock: &Clock) {
    let wait = next.map_or(LONGEST_SLEEP, |next| elapsed(clock(), next));
    tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
}
