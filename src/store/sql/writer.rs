//! Group commit: one task takes everything that waits, runs it as one transaction and answers once that is durable.
//!
//! The batch runs in `spawn_blocking`, not on a thread of its own: tokio's paused clock stands still while a blocking
//! task runs, so that tests of hours of retrying run over this very store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::statements as sql;
use super::{Link, Result, Session};
use crate::store::StoreError;

/// Operations that may wait; the next one's caller waits instead.
const QUEUE: usize = 1_024;
/// Operations in one transaction …
const BATCH: usize = 128;
/// … which ends after this time, whatever is left: others may wait for their turn.
const TURN: Duration = Duration::from_millis(500);

/// Runs inside the transaction, or hears why there is none.
type Job = Box<dyn FnOnce(Answer<&dyn Link>) -> Ran + Send>;

type Answer<T> = std::result::Result<T, StoreError>;

/// An operation that ran but is not durable yet.
struct Ran {
    error: Option<StoreError>,
    /// Called once the commit is durable, or has failed.
    answer: Box<dyn FnOnce(Answer<()>) + Send>,
}

/// The writing connection; none once the store was closed or broke.
type Shared<L> = Arc<Mutex<Answer<L>>>;

/// Who runs a batch.
type AtWork = Arc<Mutex<Option<ThreadId>>>;

pub struct Writer<L> {
    queue: mpsc::Sender<Job>,
    shared: Shared<L>,
    at_work: AtWork,
    /// The store's, for errors.
    name: Arc<str>,
}

impl<L: Link> Writer<L> {
    /// Must be called within a tokio runtime.
    pub fn start(link: L, name: &str) -> Writer<L> {
        let (queue, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let shared: Shared<L> = Arc::new(Mutex::new(Ok(link)));
        let at_work = AtWork::default();
        let (theirs, worker) = (Arc::clone(&shared), Arc::clone(&at_work));
        tokio::spawn(async move {
            let mut jobs = Vec::with_capacity(BATCH);
            while waiting.recv_many(&mut jobs, BATCH).await > 0 {
                let batch = std::mem::take(&mut jobs);
                let (shared, worker) = (Arc::clone(&theirs), Arc::clone(&worker));
                // A batch that panicked rolled back, and its callers hear that nobody answered.
                let _ = tokio::task::spawn_blocking(move || {
                    note(&worker, Some(thread::current().id()));
                    run(&shared, batch);
                    note(&worker, None);
                })
                .await;
            }
        });
        Writer { queue, shared, at_work, name: name.into() }
    }

    /// Runs `operation` in a transaction and returns once it is durable. An operation that fails leaves no trace and
    /// disturbs no other one of its batch.
    pub async fn write<T, F>(&self, operation: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Session) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let name = Arc::clone(&self.name);
        let job: Job = Box::new(move |link| {
            let result = link.and_then(|link| guarded(link, operation).map_err(|fault| fault.about(&name)));
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

impl<L> Drop for Writer<L> {
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

fn lock<L>(shared: &Shared<L>) -> MutexGuard<'_, Answer<L>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn guarded<T>(link: &dyn Link, operation: impl FnOnce(&dyn Session) -> Result<T>) -> Result<T> {
    let session = link.session();
    session.execute(sql::SAVEPOINT, &[])?;
    let result = operation(session);
    // A full disk may have undone everything already; then there is no savepoint to go back to.
    if result.is_err() && !link.is_undone() {
        session.execute(sql::ROLLBACK_TO, &[])?;
    }
    if !link.is_undone() {
        session.execute(sql::RELEASE, &[])?;
    }
    result
}

fn run<L: Link>(shared: &Shared<L>, batch: Vec<Job>) {
    let mut held = lock(shared);
    let mut jobs = batch.into_iter().peekable();
    while jobs.peek().is_some() {
        match held.as_mut() {
            Ok(link) => {
                if transaction(link, &mut jobs) == Err(StoreError::Broken) {
                    *held = Err(StoreError::Broken);
                }
            }
            Err(error) => refuse(&mut jobs, error),
        }
    }
}

/// Runs jobs until none is left, the turn is over or the transaction is undone, commits and answers.
fn transaction(link: &mut dyn Link, jobs: &mut dyn Iterator<Item = Job>) -> Answer<()> {
    if let Err(error) = link.begin_writing() {
        refuse(jobs, &error);
        return Err(error);
    }
    let mut transaction = Begun { link, ended: false };
    let until = Instant::now() + TURN;
    let mut done: Vec<Ran> = Vec::new();
    for job in jobs {
        let ran = job(Ok(&*transaction.link));
        // A full disk or a read error may undo all that was not committed, not only this operation.
        let undone = transaction.link.is_undone();
        let error = ran.error.clone();
        done.push(ran);
        if undone {
            let error = error.unwrap_or_else(|| StoreError::Failed("the transaction was rolled back".to_owned()));
            answer(done, &Err(error.clone()));
            return Err(error);
        }
        if Instant::now() >= until {
            break;
        }
    }
    transaction.ended = true;
    let committed = transaction.link.commit();
    answer(done, &committed);
    committed
}

/// Rolled back, whatever ends it, an operation that panics too, unless it was committed.
struct Begun<'a> {
    link: &'a mut dyn Link,
    ended: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.link.roll_back();
        }
    }
}

fn answer(done: Vec<Ran>, committed: &Answer<()>) {
    done.into_iter().for_each(|ran| (ran.answer)(committed.clone()));
}

fn refuse(jobs: &mut dyn Iterator<Item = Job>, error: &StoreError) {
    answer(jobs.map(|job| job(Err(error.clone()))).collect(), &Err(error.clone()));
}
