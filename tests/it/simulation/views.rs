//! What the simulation sees of the store: the rows as they are, without asking the store's own questions.

use std::sync::Arc;

use callboard::model::{DeliveryState, News, RunId, RunState, Timestamp, WorkspaceKey};
use uuid::Uuid;

use super::world::{Key, World};
use crate::memory::{MemoryStore, Row, Truth};

/// An attempt under way.
#[derive(Debug, Clone)]
pub struct UnderWay {
    pub number: u64,
    pub attempt: usize,
    pub template: Option<String>,
    pub unknown_since: Option<Timestamp>,
}

/// A delivery, with what names it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub id: Uuid,
    pub number: u64,
    pub key: Key,
    pub state: DeliveryState,
    pub reason: String,
    pub created_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// How each attempt ended.
    pub outcomes: Vec<Option<String>>,
}

impl Seen {
    pub fn is_open(&self) -> bool {
        matches!(self.state, DeliveryState::Pending | DeliveryState::InFlight | DeliveryState::Unknown)
    }
}

fn key(row: &Row) -> Option<Key> {
    let change = row.news.change()?;
    Some((World::place_of(&row.to.to_string()), row.template.clone(), change.run.id.clone(), change.sequence))
}

fn under_way(truth: &Truth, to: &str) -> Option<UnderWay> {
    let mut found =
        truth.rows.iter().filter(|(_, row)| row.state == DeliveryState::InFlight && row.to.to_string() == to);
    let (number, row) = found.next()?;
    Some(UnderWay {
        number: *number,
        attempt: row.attempts.len(),
        template: row.template.clone(),
        unknown_since: row.unknown_since,
    })
}

pub fn in_flight(store: &MemoryStore, to: &str) -> Option<UnderWay> {
    store.look(|truth| under_way(truth, to))
}

/// Open deliveries of a destination.
pub fn open(store: &MemoryStore, to: &str) -> usize {
    store.look(|truth| truth.rows.values().filter(|row| row.is_open() && row.to.to_string() == to).count())
}

pub fn any_open(store: &MemoryStore) -> Option<String> {
    store.look(|truth| {
        let row = truth.rows.values().find(|row| row.is_open())?;
        Some(format!("{} to {}, {:?} until {}", row.key.2, row.to, row.state, row.next_at))
    })
}

/// Deliveries of changes.
pub fn all(store: &MemoryStore) -> Vec<Seen> {
    let seen = |(number, row): (&u64, &Row)| {
        Some(Seen {
            id: row.id,
            number: *number,
            key: key(row)?,
            state: row.state,
            reason: row.reason.clone().unwrap_or_default(),
            created_at: row.created_at,
            settled_at: row.settled_at,
            outcomes: row.attempts.iter().map(|attempt| attempt.outcome.clone()).collect(),
        })
    };
    store.look(|truth| truth.rows.iter().filter_map(seen).collect())
}

/// The outcome of an attempt; `None`: it has not ended.
pub fn outcome(store: &MemoryStore, number: u64, attempt: usize) -> Option<String> {
    store.look(|truth| truth.rows.get(&number)?.attempts.get(attempt - 1)?.outcome.clone())
}

/// Changes of runs in the order of their recording, from the `from`th on.
pub fn changes(store: &MemoryStore, from: u64) -> Vec<(u64, Arc<News>)> {
    let mut changes: Vec<_> = store.look(|truth| {
        let new = truth.changes.values().filter(|kept| kept.recorded > from && kept.news.change().is_some());
        new.map(|kept| (kept.recorded, Arc::clone(&kept.news))).collect()
    });
    changes.sort_by_key(|(recorded, _)| *recorded);
    changes
}

/// Notices by subject in order: whether each ends its trouble.
pub fn announced(store: &MemoryStore) -> Vec<(String, bool)> {
    store.look(|truth| {
        let notices = truth.changes.values().filter_map(|kept| match kept.news.as_ref() {
            News::Notice(notice) => Some((notice.kind.subject(), notice.kind.is_end())),
            News::Change(_) => None,
        });
        notices.collect()
    })
}

/// The last notice of this subject began a trouble.
pub fn in_trouble(store: &MemoryStore, subject: &str) -> bool {
    announced(store).iter().rfind(|(of, _)| of == subject).is_some_and(|(_, is_end)| !is_end)
}

pub fn run(store: &MemoryStore, workspace: &WorkspaceKey, run: &RunId) -> Option<RunState> {
    store.look(|truth| truth.runs.get(&(workspace.clone(), run.clone())).cloned())
}

pub fn has_in_flight(store: &MemoryStore) -> bool {
    store.look(|truth| truth.rows.values().any(|row| row.state == DeliveryState::InFlight))
}

pub fn dead(store: &MemoryStore) -> Vec<usize> {
    store.look(|truth| {
        let dead = truth.places.iter().filter(|(_, place)| place.dead.is_some());
        dead.map(|(name, _)| World::place_of(name)).collect()
    })
}

/// One of these may have been told already by an attempt that nobody knows the end of.
pub fn any_unknown(store: &MemoryStore, keys: &[Key]) -> bool {
    store.look(|truth| {
        let mut rows = truth.rows.values().filter(|row| row.is_open() && row.unknown_since.is_some());
        rows.any(|row| key(row).is_some_and(|key| keys.contains(&key)))
    })
}

/// What is urgent and could leave now, while the message under way to `to` tells a run in which nothing is.
pub fn overtaken(store: &MemoryStore, to: &str, now: Timestamp) -> Option<String> {
    store.look(|truth| {
        let here: Vec<&Row> = truth.rows.values().filter(|row| row.is_open() && row.to.to_string() == to).collect();
        let lead = here.iter().find(|row| row.state == DeliveryState::InFlight)?;
        let queue = |row: &Row| (row.key.0.clone(), row.key.1.clone());
        let is_urgent = |of: &(String, String)| here.iter().any(|row| queue(row) == *of && row.urgent);
        if is_urgent(&queue(lead)) {
            return None;
        }
        // In order of recording: of one change in two templates the first one goes first.
        let heads = here.iter().enumerate().filter(|(place, row)| {
            let goes_before =
                |(at, other): (usize, &&Row)| queue(other) == queue(row) && (other.key.2, at) < (row.key.2, *place);
            !here.iter().enumerate().any(goes_before)
                && row.carrier.is_none()
                && row.next_at <= now
                && row.state != DeliveryState::InFlight
        });
        let mut urgent = heads.map(|(_, row)| row).filter(|row| queue(row) != queue(lead) && is_urgent(&queue(row)));
        urgent.next().map(|row| format!("{} of {}", row.key.2, row.key.1))
    })
}
