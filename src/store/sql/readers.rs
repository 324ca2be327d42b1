//! Reading beside the writer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::{Link, Result, Session};
use crate::store::StoreError;

const READERS: usize = 2;

type Open<L> = Arc<dyn Fn() -> std::result::Result<L, StoreError> + Send + Sync>;

/// Up to [`READERS`] connections, opened when first needed.
pub struct Readers<L> {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<L>>>,
    open: Open<L>,
    /// The store's, for errors.
    name: Arc<str>,
}

impl<L: Link> Readers<L> {
    pub fn new(
        name: &str,
        open: impl Fn() -> std::result::Result<L, StoreError> + Send + Sync + 'static,
    ) -> Readers<L> {
        Readers {
            free: Arc::new(Semaphore::new(READERS)),
            idle: Arc::default(),
            open: Arc::new(open),
            name: name.into(),
        }
    }

    /// Runs `operation` on one snapshot of the store.
    pub async fn read<T, F>(&self, operation: F) -> std::result::Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Session) -> Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Failed("it is closed".to_owned()))?;
        let (idle, open, name) = (Arc::clone(&self.idle), Arc::clone(&self.open), Arc::clone(&self.name));
        blocking(move || {
            let _held_until_done = permit;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut link = kept.map_or_else(|| open(), Ok)?;
            link.begin_reading()?;
            let result = operation(link.session()).map_err(|fault| fault.about(&name));
            link.roll_back();
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
            result
        })
        .await?
    }
}

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Failed("it stopped half-way".to_owned()))
}
