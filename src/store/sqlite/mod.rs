//! An embedded SQLite store: one writer with group commit, readers beside it.

mod claims;
mod faults;
mod open;
mod prunes;
mod queues;
mod reads;
mod rows;
mod settles;
mod statements;
mod writer;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::faults::Faults;
use self::open::Found;
use self::statements as sql;
use self::writer::Writer;
use super::{
    Announcement, Attempt, Claims, DeliveryFilter, DeliveryRow, Loaded, Overview, PlaceRow, Policy, Poll, Recorded,
    Role, Room, Settlement, Store, StoreError, Subscribed, Told,
};
use crate::model::{Destination, RunId, RunState, Subscription, Timestamp, WorkspaceKey};

const READERS: usize = 2;
/// Rows that one transaction of [`Store::prune`] deletes.
const PRUNED_AT_ONCE: i64 = 500;

pub struct Sqlite {
    // Closed before the writer, so that the writer, closing last, folds the log into the file.
    readers: Readers,
    writer: Writer,
    faults: Faults,
    recovered: Vec<(Destination, u64)>,
    /// `PRAGMA data_version` of the writing connection at the last look.
    seen: AtomicI64,
}

impl Sqlite {
    /// Opens `path`, and creates it where there is none. Within a tokio runtime.
    pub async fn open(path: &Path, role: Role) -> Result<Sqlite, StoreError> {
        let faults = Faults::about(&path.display().to_string());
        let (theirs, place) = (faults.clone(), path.to_owned());
        let Found { opened, recovered } = blocking(move || open::open(&place, role, &theirs)).await??;
        let readers = Readers::of(path, &faults);
        let writer = Writer::start(opened, faults.clone());
        let seen = AtomicI64::new(writer.write(&faults, data_version).await?);
        Ok(Sqlite { readers, writer, faults, recovered, seen })
    }

    async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.write(&self.faults, operation).await
    }

    /// Lets `act` have what `find` finds, a little at a time; looking does not hold up the writer. Sums up what it says.
    async fn prune_by(
        &self,
        find: &'static str,
        act: fn(&Connection, &[i64], Timestamp) -> rusqlite::Result<u64>,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let (mut after, mut sum) = (0, 0);
        loop {
            let numbers = self.readers.read(move |open| reads::old(open, find, before, after, PRUNED_AT_ONCE)).await?;
            let Some(last) = numbers.last().copied() else { return Ok(sum) };
            after = last;
            sum += self.write(move |open| act(open, &numbers, before)).await?;
        }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.readers.read(reads::load).await
    }

    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError> {
        let (subscription, state) = (subscription.clone(), state.cloned());
        self.write(move |open| writes::subscribe(open, &subscription, state.as_ref())).await
    }

    async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write(move |open| writes::unsubscribe(open, &id)).await
    }

    async fn record(&self, poll: &Poll) -> Result<Recorded, StoreError> {
        let poll = poll.clone();
        self.write(move |open| writes::record(open, &poll)).await
    }

    async fn claim(&self, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Result<Claims, StoreError> {
        let policy = Arc::clone(policy);
        self.write(move |open| claims::claim(open, now, room, &policy)).await
    }

    async fn release(&self, under_way: &[Uuid]) -> Result<(), StoreError> {
        let under_way = under_way.to_vec();
        self.write(move |open| settles::release(open, &under_way)).await
    }

    async fn settle(&self, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<(), StoreError> {
        let (settlement, policy) = (settlement.clone(), Arc::clone(policy));
        self.write(move |open| settles::settle(open, &settlement, &policy)).await
    }

    async fn announce(&self, announcement: &Announcement) -> Result<bool, StoreError> {
        let announcement = announcement.clone();
        self.write(move |open| writes::announce(open, &announcement)).await
    }

    async fn saw(&self, seen: &[(WorkspaceKey, Timestamp)]) -> Result<(), StoreError> {
        let seen = seen.to_vec();
        self.write(move |open| writes::saw(open, &seen)).await
    }

    async fn places(&self) -> Result<Vec<PlaceRow>, StoreError> {
        self.readers.read(reads::places).await
    }

    async fn revive(&self, to: &Destination, now: Timestamp) -> Result<bool, StoreError> {
        let to = to.clone();
        self.write(move |open| writes::revive(open, &to, now)).await
    }

    async fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Result<Vec<Told>, StoreError> {
        let (workspace, run) = (workspace.clone(), run.clone());
        self.readers.read(move |open| reads::history(open, &workspace, &run, limit)).await
    }

    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |open| reads::deliveries(open, &filter)).await
    }

    async fn delivery(&self, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>, StoreError> {
        let id = id.trim().to_ascii_lowercase();
        self.readers.read(move |open| reads::delivery(open, &id)).await
    }

    async fn retry(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.write(move |open| writes::retry(open, id, now)).await
    }

    async fn discard(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.write(move |open| writes::discard(open, id, now)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write(probe).await
    }

    async fn verify(&self) -> Result<(), StoreError> {
        let (path, faults) = (self.readers.path.clone(), self.faults.clone());
        blocking(move || open::verify(&path, &faults)).await?
    }

    async fn overview(&self) -> Result<Overview, StoreError> {
        let overview = self.readers.read(reads::overview).await?;
        Ok(Overview { recovered: self.recovered.clone(), ..overview })
    }

    async fn changed_elsewhere(&self) -> Result<bool, StoreError> {
        let now = self.write(data_version).await?;
        Ok(self.seen.swap(now, Ordering::AcqRel) != now)
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let expired = self.prune_by(sql::FIND_EXPIRED, prunes::expire, before).await?;
        if expired > 0 {
            tracing::error!(
                expired,
                "messages waited too long and are given up; `callboard deliveries list` shows them"
            );
        }
        let deleted = self.prune_by(sql::FIND_OLD_DELIVERIES, prunes::delete_deliveries, before).await?;
        self.prune_by(sql::FIND_OLD_CHANGES, prunes::delete_changes, before).await?;
        self.write(move |open| prunes::forget_places(open, before)).await?;
        Ok(deleted)
    }
}

/// Asked on the writing connection, which itself never counts as somebody else.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached(sql::DATA_VERSION)?.query_row([], |row| row.get(0))
}

/// Writes what stands there already: it reaches the disk all the same, or fails as any write would.
fn probe(connection: &Connection) -> rusqlite::Result<()> {
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", schema)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Failed("it stopped half-way".to_owned()))
}

/// Up to [`READERS`] connections, opened when first needed.
struct Readers {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    path: PathBuf,
    faults: Faults,
}

impl Readers {
    fn of(path: &Path, faults: &Faults) -> Readers {
        Readers {
            free: Arc::new(Semaphore::new(READERS)),
            idle: Arc::default(),
            path: path.to_owned(),
            faults: faults.clone(),
        }
    }

    /// Runs `operation` on one snapshot of the file.
    async fn read<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Failed("it is closed".to_owned()))?;
        let (idle, path, faults) = (Arc::clone(&self.idle), self.path.clone(), self.faults.clone());
        blocking(move || {
            let _held_until_done = permit;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = kept.map_or_else(|| open::read(&path, &faults), Ok)?;
            let snapshot = connection.transaction().map_err(|error| faults.of(&error))?;
            let result = operation(&snapshot).map_err(|error| faults.of(&error));
            drop(snapshot);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scope;

    fn subscription(id: usize) -> Subscription {
        Subscription {
            id: id.to_string(),
            scope: Scope::Workspace { workspace: WorkspaceKey("cn-shanghai/10000".to_owned()) },
            to: Destination::Channel(format!("channel {id}")),
            on: std::iter::empty().collect(),
            stages: vec!["x".repeat(2_000)],
            creators: vec![],
            template: None,
            by: "cli".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    async fn allow_pages(store: &Sqlite, pages: i64) {
        let limit = move |open: &Connection| {
            open.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
        };
        store.write(limit).await.unwrap();
    }

    /// Many writes at once until the disk is full: each that was acknowledged is there, each that was not has left
    /// nothing, and when there is room again everything goes on.
    #[tokio::test]
    async fn a_full_disk_refuses_writes_loses_nothing_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap());
        let mut acknowledged = 0;
        for round in 1..=3 {
            allow_pages(&store, 60 * round).await;
            let first = usize::try_from(round).unwrap() * 1_000;
            let tasks: Vec<_> = (first..first + 200)
                .map(|id| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.subscribe(&subscription(id), None).await })
                })
                .collect();
            let mut refused = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Ok(Subscribed::New { .. }) => acknowledged += 1,
                    Err(StoreError::Full) => refused += 1,
                    other => panic!("round {round}: {other:?}"),
                }
            }
            assert!(refused > 0, "the disk was never full in round {round}");
            assert_eq!(store.load().await.unwrap().subscriptions.len(), acknowledged, "in round {round}");
        }
        allow_pages(&store, 1_000_000).await;
        assert_eq!(store.subscribe(&subscription(1), None).await, Ok(Subscribed::New { run: None }));
        assert_eq!(store.load().await.unwrap().subscriptions.len(), acknowledged + 1);
        assert!(acknowledged > 0, "nothing was ever written");
    }

    #[tokio::test]
    async fn an_operation_that_panics_takes_no_other_one_with_it_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap();
        let broken: Result<(), _> = store.write(|_| panic!("a mistake of ours")).await;
        assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
        assert_eq!(store.subscribe(&subscription(1), None).await, Ok(Subscribed::New { run: None }));
        let broken: Result<(), _> = store.readers.read(|_| panic!("a mistake of ours")).await;
        assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
        assert_eq!(store.load().await.unwrap().subscriptions, [subscription(1)]);
    }

    /// A claim whose claimer is gone at a stop: its policy knows the tracker, which knows the store.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_operation_that_holds_the_last_handle_of_its_store_gives_it_back_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = Arc::new(Sqlite::open(&path, Role::Owner).await.unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let caller = tokio::spawn(async move {
            let held = Arc::clone(&store);
            let operation = move |_: &Connection| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                drop(held);
                Ok(())
            };
            store.write(operation).await
        });
        has_begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while let Err(error) = Sqlite::open(&path, Role::Owner).await {
            assert!(tokio::time::Instant::now() < until, "the store is never given back: {error}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_does_not_read_back_is_damage_not_silence() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap();
        store.subscribe(&subscription(1), None).await.unwrap();
        store.write(|open| open.execute("UPDATE subscriptions SET json = '{'", [])).await.unwrap();
        let error = store.load().await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
