//! The truth: what must survive the process. A small trait of domain verbs and its implementations.
//!
//! Every verb is one transaction, durable when it returns.

pub mod sqlite;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use crate::model::{
    Change, Delivery, DeliveryState, Destination, RunId, RunState, Subscription, Timestamp, WorkspaceKey,
};
use crate::settings::Problem;

/// `[store]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `sqlite:PATH`.
    pub url: String,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        self.path().err().map(|said| Problem::new("url", said)).into_iter().collect()
    }

    /// Whether there is a store to look into, with words for whoever expected one.
    pub fn exists(&self) -> Result<(), String> {
        let path = self.path()?;
        let missing = || format!("there is no store at {} yet; `callboard run` makes it", path.display());
        if path.exists() { Ok(()) } else { Err(missing()) }
    }

    /// The file that `url` names. The error never repeats the URL: it may hold a password.
    fn path(&self) -> Result<&Path, String> {
        let url = self.url.trim();
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return Err("PostgreSQL is not built in yet; write \"sqlite:PATH\"".to_owned());
        }
        let path = url.strip_prefix("sqlite:").ok_or("store.url is \"sqlite:PATH\"; nothing else is built in")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" {
            return Err("store.url is \"sqlite:PATH\", where PATH is a file".to_owned());
        }
        Ok(Path::new(path))
    }
}

/// What a process does with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The service: the only one at a time. Brings the schema up to date, and turns what a dead process left in flight
    /// into `unknown`.
    Owner,
    /// A command beside a service that may be running: reads, and writes what [`Store::changed_elsewhere`] shows.
    Guest,
}

/// Opens the store that `settings` name; call it within a tokio runtime. Dropping the last handle waits for the write
/// under way and gives the store back.
///
/// # Errors
/// [`StoreError::InUse`] for an owner beside another one, [`StoreError::Newer`], [`StoreError::Damaged`] (nothing was
/// written), [`StoreError::Full`], [`StoreError::Open`] for everything else.
pub async fn open(settings: &Settings, role: Role) -> Result<Arc<dyn Store>, StoreError> {
    let path = settings.path().map_err(StoreError::Open)?;
    Ok(Arc::new(sqlite::Sqlite::open(path, role).await?))
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Everything the tracker keeps in memory.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// Adds a subscription. On a run, `state` is where it stands now: inserted when the store does not know the run,
    /// else its version is bumped, so that a poll computed before this subscription is refused and computed again.
    /// The same scope, destination and template once more is [`Subscribed::Already`] and changes nothing.
    ///
    /// After [`Subscribed::New`] the caller keeps the run as it says, unless it knows a newer version by now. A run that
    /// has ended meanwhile shows there, and the subscription is the caller's to take back.
    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError>;

    /// False when there was none.
    async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError>;

    /// What one poll of a workspace changed, all or nothing: run states, changes, the deliveries they owe, the
    /// subscriptions they end. `Stale` when any run has moved on since its state was read: nothing was written.
    async fn record(&self, poll: &Poll) -> Result<Recorded, StoreError>;

    /// Takes up to `limit` deliveries that are due and turns them in flight: at most one for each destination, none of
    /// the destinations in `except`, and only the oldest open one of each (destination, run). `attempt` is counted up.
    /// What has been due longest comes first.
    async fn claim(&self, now: Timestamp, limit: usize, except: &[Destination]) -> Result<Vec<Delivery>, StoreError>;

    /// Records how an attempt ended. Changes nothing when that attempt is no longer in flight.
    async fn settle(&self, settlement: &Settlement) -> Result<(), StoreError>;

    /// When the next delivery can be claimed, the past included, destinations in `except` left out: the earliest among
    /// those with no older open one of their destination and run. None when nothing waits, or only for attempts under
    /// way.
    async fn next_due(&self, except: &[Destination]) -> Result<Option<Timestamp>, StoreError>;

    /// Deliveries, newest first.
    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError>;

    /// One delivery with its attempts. `id` may be an unambiguous beginning; an ambiguous one finds none.
    async fn delivery(&self, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>, StoreError>;

    /// Brings a dead delivery back, due at `now`. False when it was not dead.
    async fn retry(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Gives up an open or dead delivery for good: `superseded`. False when it had already ended otherwise.
    async fn discard(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Fails when the store can't be written.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Figures for metrics and the board.
    async fn overview(&self) -> Result<Overview, StoreError>;

    /// Whether another process wrote to the store since the last call: reload what is kept in memory.
    async fn changed_elsewhere(&self) -> Result<bool, StoreError>;

    /// Deletes deliveries that ended before `before`, with their attempts, and older changes that no delivery is left
    /// of. In small steps, so that nobody waits long. Says how many deliveries went.
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// What the tracker starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    pub subscriptions: Vec<Subscription>,
    pub runs: Vec<(WorkspaceKey, RunState)>,
    pub workspaces: Vec<WorkspaceState>,
}

/// What is remembered of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceState {
    pub key: WorkspaceKey,
    /// The first successful list.
    pub baseline_at: Timestamp,
    /// The oldest creation time on the newest full page: an unknown run older than this is no news.
    pub horizon: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribed {
    /// With the run as the store has it now; `None` where no `state` was given.
    New {
        run: Option<Box<RunState>>,
    },
    Already {
        id: String,
    },
}

/// What one poll changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    pub key: WorkspaceKey,
    /// Only of a poll that listed the workspace.
    pub workspace: Option<WorkspaceState>,
    /// Each with the version it was computed from plus one; version 1 is a run the store does not know yet.
    pub runs: Vec<RunState>,
    pub changes: Vec<Change>,
    pub deliveries: Vec<NewDelivery>,
    /// Ids of subscriptions that end.
    pub ended: Vec<String>,
    /// Runs to forget: ended, and fallen off the list.
    pub forgotten: Vec<RunId>,
}

/// A message owed. Unique by (destination, template, workspace, run, sequence): recorded twice, it is owed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    pub id: Uuid,
    pub run: RunId,
    pub sequence: i64,
    pub to: Destination,
    pub template: Option<String>,
    /// The subscription that asked first.
    pub subscription: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Done,
    Stale,
}

/// How an attempt ended and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub id: Uuid,
    /// The attempt that [`Store::claim`] counted; a settlement of an older one changes nothing.
    pub attempt: u32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// [`crate::model::Outcome::label`].
    pub outcome: &'static str,
    /// For people; no URL, no secret.
    pub reason: String,
    pub message_id: Option<String>,
    pub next: Next,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Delivered,
    /// Certainly not delivered.
    Pending {
        at: Timestamp,
    },
    /// May have been delivered; tried again all the same.
    Unknown {
        at: Timestamp,
    },
    Dead,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    pub state: Option<DeliveryState>,
    pub to: Option<Destination>,
    pub run: Option<RunId>,
    /// At most this many rows.
    pub limit: usize,
}

/// A row of `callboard deliveries list`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeliveryRow {
    #[serde(flatten)]
    pub delivery: Delivery,
    pub state: DeliveryState,
    /// When the next attempt is due, while open.
    pub next_at: Option<Timestamp>,
    /// What the last attempt said.
    pub reason: Option<String>,
    pub settled_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Attempt {
    pub attempt: u32,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<String>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Overview {
    /// Rows per state.
    pub deliveries: Vec<(DeliveryState, u64)>,
    /// When the oldest open delivery was created.
    pub oldest_open: Option<Timestamp>,
    pub changes: u64,
    pub subscriptions: u64,
    /// Deliveries found in flight when this process opened the store, now `unknown`. Stays the same while it is open.
    pub recovered: Vec<(Destination, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is in use by another callboard; stop that one first, or give this one its own store.url")]
    InUse(String),
    #[error("{path} was written by a newer callboard (schema {found}, this one knows {known}); run that version")]
    Newer { path: String, found: i64, known: i64 },
    #[error("{path} is damaged ({said}); move it away and restore a backup. Nothing was changed")]
    Damaged { path: String, said: String },
    #[error("the store's disk is full")]
    Full,
    /// Nobody knows what the disk holds: only a new process may look again.
    #[error("the store's disk refused to sync; see to the disk, then start again")]
    Broken,
    #[error("the store can't be opened: {0}")]
    Open(String),
    #[error("the store failed: {0}")]
    Failed(String),
}
