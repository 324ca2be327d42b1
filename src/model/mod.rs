//! The nouns of Callboard. Pure: no IO, no clock, no randomness.
//!
//! Everything that crosses from one module to another is one of these values. Vendor JSON never gets this far.

mod access;
mod audit;
mod changes;
mod chat;
mod deliveries;
mod messages;
mod notices;
mod runs;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

pub use jiff::Timestamp;

pub use access::{AUTOMATION, Asker, Role};
pub use audit::{AuditRow, Decision, Denials, Entry, Link, Misfit};
pub use changes::{Change, ChangeKind, Tone};
pub use chat::{ArgInfo, Button, CommandInfo, OptionInfo, Reply, Request, Span, Suggestion, Text};
pub use deliveries::{
    Claimed, Dead, Delivery, DeliveryState, Folding, MOST_COUNTED, MOST_FOLDED, News, Outcome, Pace, Place, Plan,
    Prefer, Queue, Repetitions, Terms, Waiting,
};
pub use messages::{Content, Dialect, Draft, Message};
pub use notices::{Notice, NoticeKind};
pub use runs::{Gate, Missing, NotARunId, RunId, RunState, Snapshot, Stage, Status, Workspace, WorkspaceKey};
pub use subscriptions::{Destination, Match, Muted, Scope, Selector, Subscription, UNDONE_WITHIN};

/// Tells the time, where a moment can't be an argument because it lies in the future.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Time between two instants, zero when the clock went backwards.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
