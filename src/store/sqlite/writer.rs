//! Group commit: one task takes everything that waits, runs it as one transaction and answers once that is durable.
//!
//! The batch runs in `spawn_blocking`, not on a thread of its own: tokio's paused clock stands still while a blocking
//! task runs, so that tests of hours of retrying run over this very store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::faults::{Faults, sync_failed};
use super::open::Opened;
use super::statements as sql;
use crate::store::StoreError;

/// Operations that may wait; the next one's caller waits instead.
const QUEUE: usize = 1_024;
/// Operations in one transaction.
const BATCH: usize = 128;

/// Runs inside the transaction, or hears why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Ran + Send>;

/// An operation that ran but is not durable yet.
struct Ran {
    error: Option<StoreError>,
    /// Called once the commit is durable, or has failed.
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// The writing connection; none once the store was closed or broke.
type Shared = Arc<Mutex<Result<Opened, StoreError>>>;

/// Who runs a batch.
type AtWork = Arc<Mutex<Option<ThreadId>>>;

pub struct Writer {
    queue: mpsc::Sender<Job>,
    shared: Shared,
    at_work: AtWork,
}

impl Writer {
    /// Must be called within a tokio runtime.
    pub fn start(opened: Opened, faults: Faults) -> Writer {
        let (queue, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let shared: Shared = Arc::new(Mutex::new(Ok(opened)));
        let at_work = AtWork::default();
        let (theirs, worker) = (Arc::clone(&shared), Arc::clone(&at_work));
        tokio::spawn(async move {
            let mut jobs = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut jobs, BATCH).await > 0 {
                let batch = std::mem::take(&mut jobs);
                let (shared, worker, faults) = (Arc::clone(&theirs), Arc::clone(&worker), faults.clone());
                // A batch that panicked rolled back, and its callers hear that nobody answered.
                let _ = tokio::task::spawn_blocking(move || {
                    note(&worker, Some(thread::current().id()));
                    run(&shared, &faults, batch);
                    note(&worker, None);
                })
                .await;
            }
        });
        Writer { queue, shared, at_work }
    }

    /// Runs `operation` in a transaction and returns once it is durable. An operation that fails leaves no trace and
    /// disturbs no other one of its batch.
    pub async fn write<T, F>(&self, faults: &Faults, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let faults = faults.clone();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|open| guarded(open, operation).map_err(|error| faults.of(&error)));
            Ran {
                error: result.as_ref().err().cloned(),
                answer: Box::new(move |committed| {
                    // The caller may have gone; what it asked for is done all the same.
                    let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
                }),
            }
        });
        self.queue.send(job).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(StoreError::Failed("an operation ended without an answer".to_owned())))
    }
}

impl Drop for Writer {
    /// Waits for the batch under way, then closes the file and gives the lock back, so that whoever opens next can.
    ///
    /// An operation may hold the last handle of its own store, by way of the policy: then the file is closed when its
    /// batch ends, which can't be waited for from within.
    fn drop(&mut self) {
        let at_work = *self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work == Some(thread::current().id()) {
            return;
        }
        *lock(&self.shared) = Err(closed());
    }
}

fn note(at_work: &AtWork, worker: Option<ThreadId>) {
    *at_work.lock().unwrap_or_else(PoisonError::into_inner) = worker;
}

fn closed() -> StoreError {
    StoreError::Failed("it is closed".to_owned())
}

fn lock(shared: &Shared) -> MutexGuard<'_, Result<Opened, StoreError>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guarded<T>(
    connection: &Connection,
    operation: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached(sql::SAVEPOINT)?.execute([])?;
    let result = operation(connection);
    // A full disk may have rolled everything back already; then there is no savepoint to go back to.
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached(sql::ROLLBACK_TO)?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached(sql::RELEASE)?.execute([])?;
    }
    result
}

fn run(shared: &Shared, faults: &Faults, batch: Vec<Job>) {
    let mut held = lock(shared);
    let mut jobs = batch.into_iter().peekable();
    while jobs.peek().is_some() {
        match held.as_mut() {
            Ok(opened) => {
                if transaction(&mut opened.connection, faults, &mut jobs) == After::Broken {
                    *held = Err(StoreError::Broken);
                }
            }
            Err(error) => refuse(&mut jobs, error),
        }
    }
}

#[derive(PartialEq)]
enum After {
    Usable,
    /// A sync failed: nobody knows what the disk holds, so only a new process may look again.
    Broken,
}

/// Runs jobs until none is left or the transaction is lost, commits and answers.
fn transaction(connection: &mut Connection, faults: &Faults, jobs: &mut dyn Iterator<Item = Job>) -> After {
    let transaction = match Transaction::new(connection, TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            refuse(jobs, &faults.of(&error));
            return After::Usable;
        }
    };
    let mut done: Vec<Ran> = Vec::new();
    for job in jobs {
        let ran = job(Ok(&transaction));
        // A full disk or a read error may roll back all that was not committed, not only this operation.
        let lost = transaction.is_autocommit();
        let error = ran.error.clone();
        done.push(ran);
        if lost {
            let error = error.unwrap_or_else(|| StoreError::Failed("the transaction was rolled back".to_owned()));
            answer(done, &Err(error));
            return After::Usable;
        }
    }
    let committed = transaction.commit();
    let after = if committed.as_ref().err().is_some_and(sync_failed) { After::Broken } else { After::Usable };
    answer(done, &committed.map_err(|error| faults.of(&error)));
    after
}

fn answer(done: Vec<Ran>, committed: &Result<(), StoreError>) {
    done.into_iter().for_each(|ran| (ran.answer)(committed.clone()));
}

fn refuse(jobs: &mut dyn Iterator<Item = Job>, error: &StoreError) {
    answer(jobs.map(|job| job(Err(error.clone()))).collect(), &Err(error.clone()));
}
