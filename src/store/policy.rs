//! Claims and settlements: how much is taken, and what the store asks meanwhile.

use uuid::Uuid;

use super::Settlement;
use crate::model::{Claimed, Destination, Notice, Place, Plan, Queue, Timestamp};

/// How many messages a claim takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub messages: usize,
    /// Of these, for destinations whose last attempt failed: those that hang must not take all the room.
    pub probes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub claimed: Vec<Claimed>,
    /// When there may be more without anything else happening, the past included. None: nothing waits, or only for
    /// attempts under way, or for persons. What found no room waits for attempts under way.
    pub next_at: Option<Timestamp>,
}

/// What the store asks within a transaction. Pure: it decides by its arguments and by what was configured.
pub trait Policy: Send + Sync {
    /// From when on the destination takes a message, the past included. None: not before a person acts. `account` is
    /// what its bot's rooms have in common.
    fn opens_at(&self, to: &Destination, place: &Place, account: Option<&Place>, now: Timestamp) -> Option<Timestamp>;

    /// How many messages of a bot may be under way at once, all its rooms together.
    fn at_once(&self, account: &Place) -> usize;

    fn plan(&self, queue: &Queue<'_>, now: Timestamp) -> Plan;

    /// A message is about to leave.
    fn began(&self, to: &Destination, place: &mut Place, now: Timestamp);

    /// An attempt ended. Returns what the operators are told.
    fn ended(
        &self,
        settlement: &Settlement,
        to: &Destination,
        place: &mut Place,
        account: Option<&mut Place>,
    ) -> Vec<Announcement>;

    /// A new UUID v7, for a message under an id of its own.
    fn message_id(&self) -> Uuid;
}

/// A notice and to whom it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub notice: Notice,
    /// Each with the id of the delivery.
    pub to: Vec<(Uuid, Destination)>,
}
