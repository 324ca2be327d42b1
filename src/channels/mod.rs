//! Ways out: one file per channel kind, and the one list of them.
//!
//! A channel only sends and says what happened. Retry, order, pacing, metrics and logging stand around it, in the
//! dispatcher, once.

use async_trait::async_trait;

use crate::model::{Dialect, Message, Outcome, Timestamp};

/// A configured way out.
#[async_trait]
pub trait Channel: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// One attempt, over within ten seconds. `address` is the room on channels that serve many, else empty.
    /// Nothing is retried here; `now` dates signatures.
    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome;

    /// Whether the destination answers, without posting anything; `Err` says what to do. For `check --online`.
    async fn probe(&self) -> Result<(), String>;
}
