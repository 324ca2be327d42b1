//! The way to the audit log: what is allowed is written before it happens, what is denied soon after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Denials, Entry, Timestamp};
use crate::store::{Store, StoreError};
use crate::text::clean_line_cut;

/// Characters kept of a field.
const LENGTH: usize = 120;

pub struct Audit {
    store: Arc<dyn Store>,
    /// Shared with those who deny and must not wait, the inbox above all.
    denials: Arc<Mutex<Denials>>,
}

impl Audit {
    pub fn new(store: Arc<dyn Store>, denials: Arc<Mutex<Denials>>) -> Audit {
        Audit { store, denials }
    }

    /// Durable when it returns. Where it fails, what it is about must not happen.
    pub async fn record(&self, entry: Entry) -> Result<(), StoreError> {
        self.store.audit(&[cleaned(entry)]).await
    }

    /// Written with the next [`Audit::flush`], so that a denial takes no longer than any other answer; several of a
    /// minute are one row.
    pub fn note(&self, entry: Entry) {
        self.denials().note(cleaned(entry));
    }

    /// Writes the denials that are due.
    pub async fn flush(&self, now: Timestamp) -> Result<(), StoreError> {
        let due = self.denials().take(now);
        if due.is_empty() {
            return Ok(());
        }
        let written = self.store.audit(&due).await;
        if written.is_err() {
            self.denials().put_back(due);
        }
        written
    }

    fn denials(&self) -> MutexGuard<'_, Denials> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cleaned(entry: Entry) -> Entry {
    let clean = |text: &str| clean_line_cut(text, LENGTH);
    let (person, room) = (clean(&entry.person), clean(&entry.room));
    Entry { person, room, action: clean(&entry.action), reason: clean(&entry.reason), ..entry }
}
