//! What the store asks while it claims and settles.

use uuid::Uuid;

use super::{Announcement, Settlement};
use crate::model::{Destination, Place, Plan, Queue, Timestamp};

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
