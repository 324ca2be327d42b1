//! The truth: what must survive the process. A small trait of domain verbs and its implementations.
//!
//! Every verb is one transaction, durable when it returns.

mod policy;
mod postgres;
mod sql;
pub mod sqlite;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use uuid::Uuid;

pub use self::policy::{Announcement, Claims, Policy, Room};
use crate::model::{
    AuditRow, Change, ChangeKind, Clock, Delivery, DeliveryState, Destination, Entry, Folding, Link, Outcome, Place,
    RunId, RunState, Subscription, Timestamp, WorkspaceKey,
};
use crate::net::DEADLINE;
use crate::settings::{Problem, Secret, Span};

/// `[store]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE` for several replicas.
    pub url: Secret,
    /// Of several replicas: what one was sending when nothing more was heard of it may have arrived, and after so long
    /// another one sends it again. 15s at least.
    pub takeover_after: Span,
}

/// A send takes no longer than its deadline, and begins no longer after the last sign of life than a transaction may
/// last: by then it has ended, however it ended.
pub const SOONEST_TAKEOVER: Duration = DEADLINE.saturating_add(TRANSACTION);
/// What waits for somebody should not wait for long, and those who were heard of an hour ago are forgotten.
const LATEST_TAKEOVER: Duration = Duration::from_secs(600);
/// A server throws out whoever holds a transaction open and does nothing for so long.
pub const TRANSACTION: Duration = Duration::from_secs(5);

/// What the URL means.
enum Where {
    File(PathBuf),
    Server(SecretString),
}

impl Settings {
    pub fn of(url: impl Into<SecretString>) -> Settings {
        Settings { url: Secret::Literal(url.into()), takeover_after: Span(SOONEST_TAKEOVER) }
    }

    pub fn check(&self) -> Vec<Problem> {
        let checked = match self.at() {
            Ok(Where::Server(url)) => postgres::check(url.expose_secret()),
            Ok(Where::File(_)) => Ok(()),
            Err(said) => Err(said),
        };
        let mut problems: Vec<Problem> = checked.err().map(|said| Problem::new("url", said)).into_iter().collect();
        if !(SOONEST_TAKEOVER..=LATEST_TAKEOVER).contains(&self.takeover_after.0) {
            let said = format!(
                "must be from {SOONEST_TAKEOVER:?}, so that no send outlasts it, to {LATEST_TAKEOVER:?}, so that nobody waits \
                 for long"
            );
            problems.push(Problem::new("takeover_after", said));
        }
        problems
    }

    /// Whether there is a store to look into, with words for whoever expected one. A server says so by itself.
    pub fn exists(&self) -> Result<(), String> {
        let Where::File(path) = self.at()? else { return Ok(()) };
        let missing = || format!("there is no store at {} yet; `callboard run` makes it", path.display());
        if path.exists() { Ok(()) } else { Err(missing()) }
    }

    /// What it is, for people: nothing of it is secret.
    pub fn shown(&self) -> String {
        match self.at() {
            Ok(Where::File(path)) => path.display().to_string(),
            Ok(Where::Server(url)) => postgres::shown(url.expose_secret()),
            Err(_) => "the store".to_owned(),
        }
    }

    /// The error never repeats the URL: it may hold a password.
    fn at(&self) -> Result<Where, String> {
        let url = self.url.read().map_err(|error| error.to_string())?;
        let text = url.expose_secret().trim();
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Ok(Where::Server(text.into()));
        }
        let forms = "write \"sqlite:PATH\", where PATH is a file, or \"postgres://USER:PASSWORD@HOST/DATABASE\"";
        let path = text.strip_prefix("sqlite:").ok_or_else(|| format!("no such kind of store; {forms}"))?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path == ":memory:" {
            return Err(format!("a store is kept; {forms}"));
        }
        Ok(Where::File(PathBuf::from(path)))
    }
}

/// What a process does with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The service: the only one at a time. Brings the schema up to date, and turns what a dead process left in flight
    /// into `unknown`.
    Owner,
    /// A command beside a service that may be running: reads, and writes what [`Store::moved`] shows.
    Guest,
}

/// Opens the store that `settings` name; call it within a tokio runtime. Dropping the last handle waits for the write
/// under way and gives the store back.
///
/// # Errors
/// [`StoreError::InUse`] for an owner beside another one, [`StoreError::Newer`], [`StoreError::Damaged`] (nothing was
/// written), [`StoreError::Full`], [`StoreError::Open`] for everything else. [`StoreError::Away`] for a guest whose server
/// can't be reached; an owner waits for it.
pub async fn open(settings: &Settings, role: Role) -> Result<Arc<dyn Store>, StoreError> {
    match settings.at().map_err(StoreError::Open)? {
        Where::File(path) => Ok(Arc::new(sqlite::Sqlite::open(&path, role).await?)),
        Where::Server(url) => {
            let takeover_after = settings.takeover_after.0;
            Ok(Arc::new(postgres::Postgres::open(url.expose_secret(), role, takeover_after).await?))
        }
    }
}

/// Moves everything from the SQLite store of one installation into the empty store that `to` names, in one transaction.
/// What was under way when `from` was last used is `unknown` in both from now on; otherwise `from` stays as it is.
///
/// # Errors
/// As [`open`], of either; [`StoreError::Taken`] where `to` holds anything, [`StoreError::InUse`] where a service runs on
/// it. [`StoreError::Away`]: the server went away, at the very end perhaps: whether `to` is taken then tells.
pub async fn migrate(from: &Settings, to: &Settings) -> Result<Copied, StoreError> {
    let Where::File(file) = from.at().map_err(StoreError::Open)? else {
        return Err(StoreError::Open("only an SQLite store is moved: sqlite:PATH".to_owned()));
    };
    let (to, takeover_after) = (to.at().map_err(StoreError::Open)?, to.takeover_after.0);
    if let Where::File(path) = &to
        && file.canonicalize().is_ok_and(|file| path.canonicalize().is_ok_and(|path| path == file))
    {
        let said = format!("{} is the store of the configuration; set store.url to the new one first", file.display());
        return Err(StoreError::Open(said));
    }
    let origin = sqlite::origin(&file).await?;
    match to {
        Where::File(path) => sql::fill(&sqlite::Sqlite::open(&path, Role::Owner).await?, origin).await,
        // As a guest, which does not wait for a server that is away.
        Where::Server(url) => {
            let server = postgres::Postgres::open(url.expose_secret(), Role::Guest, takeover_after).await?;
            sql::fill(&server, origin).await
        }
    }
}

/// Rows that [`migrate`] moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    pub workspaces: u64,
    pub runs: u64,
    pub subscriptions: u64,
    pub changes: u64,
    pub deliveries: u64,
    /// Of the deliveries, those that are still to be sent.
    pub open: u64,
    pub attempts: u64,
    pub destinations: u64,
    /// Rows of the audit log.
    pub audited: u64,
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Everything the tracker keeps in memory.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// Adds a subscription. On a run, `state` is where it stands now: inserted when the store does not know the run,
    /// else its version is bumped, so that a poll computed before this subscription is refused and computed again.
    /// The same scope, destination and template once more is [`Subscribed::Already`] and changes nothing, unless the
    /// present one was stopped or is over by then: the new one takes its place.
    ///
    /// After [`Subscribed::New`] the caller keeps the run as it says, unless it knows a newer version by now. A run that
    /// has ended meanwhile shows there, and the subscription is the caller's to take back.
    async fn subscribe(&self, subscription: &Subscription, state: Option<&RunState>) -> Result<Subscribed, StoreError>;

    /// False when there was none.
    async fn unsubscribe(&self, id: &str) -> Result<bool, StoreError>;

    /// Replaces stored subscriptions, each the one of its id where that still has the same scope, destination and
    /// template, and says which ones. Their runs are counted up as by [`Store::subscribe`].
    async fn amend(&self, subscriptions: &[Subscription]) -> Result<Vec<String>, StoreError>;

    /// What one poll of a workspace changed, all or nothing: run states, changes, the deliveries they owe, the
    /// subscriptions they end, those that were waiting for the run that starts. `Stale` when any run has moved on since
    /// its state was read, or others wait for the run that starts: nothing was written.
    async fn record(&self, poll: &Poll) -> Result<Recorded, StoreError>;

    /// Takes messages that may leave now and turns their deliveries in flight, for which `attempt` is counted up: one
    /// for each destination that has nothing in flight and that `policy` calls open, its turn going to the oldest open
    /// delivery of a run that is due, urgent ones first. Over all destinations urgent ones come first, then what has
    /// been due longest. What `policy` folds into a message stays pending, bound to it, until the message has ended.
    async fn claim(&self, now: Timestamp, room: Room, policy: &Arc<dyn Policy>) -> Result<Claims, StoreError>;

    /// A claim failed, or so it seemed: what this process has in flight beside `under_way` (ids and their attempts) was
    /// claimed without its claimer hearing of it. Nothing of it left; it is pending again, with its attempt recorded as one that has to be repeated.
    async fn release(&self, under_way: &[(Uuid, u32)]) -> Result<(), StoreError>;

    /// Records how an attempt ended and what `policy` makes of it for the destination. Changes nothing when that attempt
    /// is no longer in flight, unless it was only taken for lost, and arrived.
    ///
    /// The folded share the fate of their lead: delivered makes them superseded by it, dead makes them dead. A rejected
    /// lead that has folded ones is pending again, like them, and none of them is folded any more.
    async fn settle(&self, settlement: &Settlement, policy: &Arc<dyn Policy>) -> Result<(), StoreError>;

    /// Records a notice and the deliveries it owes, unless it repeats the last one of its subject, or ends a trouble that
    /// was never told. Says whether it did.
    async fn announce(&self, announcement: &Announcement) -> Result<bool, StoreError>;

    /// When workspaces were last seen, so that a later start knows what it missed. Unknown ones are skipped.
    async fn saw(&self, seen: &[(WorkspaceKey, Timestamp)]) -> Result<(), StoreError>;

    /// Every destination of which something is remembered or to which something is owed, by name.
    async fn places(&self) -> Result<Vec<PlaceRow>, StoreError>;

    /// A person acted: what is remembered of the destination's failures is forgotten, and everything open for it is due
    /// at `now`; for a bot ([`Destination::account`]), everything open for its rooms. False when nothing is remembered of it and nothing is owed to it.
    async fn revive(&self, to: &Destination, now: Timestamp) -> Result<bool, StoreError>;

    /// The newest changes of a run, `limit` at most, oldest first, with what became of each.
    async fn history(&self, workspace: &WorkspaceKey, run: &RunId, limit: usize) -> Result<Vec<Told>, StoreError>;

    /// Deliveries, newest first.
    async fn deliveries(&self, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, StoreError>;

    /// One delivery with its attempts. `id` may be an unambiguous beginning, or, where none begins like that, an
    /// unambiguous ending; an ambiguous one finds none.
    async fn delivery(&self, id: &str) -> Result<Option<(DeliveryRow, Vec<Attempt>)>, StoreError>;

    /// Brings a dead delivery back, due at `now`, and nothing else that was folded with it. False when it was not dead.
    async fn retry(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Gives up a delivery for good that waits or is dead: `superseded`. What its message was to tell as well waits for
    /// itself again. False when it had already ended otherwise, when it is under way, and when it is folded into a
    /// message that is under way or may have arrived: such a message keeps its words.
    async fn discard(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Remembers `key` until then. False where it is remembered already: what must happen once has happened.
    async fn once(&self, key: &str, now: Timestamp, until: Timestamp) -> Result<bool, StoreError>;

    /// Appends to the audit log, in this order.
    async fn audit(&self, entries: &[Entry]) -> Result<(), StoreError>;

    /// Rows of the audit log with the ends of its chain, on one snapshot.
    async fn audited(&self, filter: &AuditFilter) -> Result<Audited, StoreError>;

    /// Fails when the store can't be written.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Looks through all of it for damage that opening it does not find, beside everything else.
    async fn verify(&self) -> Result<(), StoreError>;

    /// Says that this process serves, and takes its fair part of `names`, each `KIND:NAME`: what it may tend for a while.
    /// To be called again well within that while. All of them where no other process can share the store.
    async fn hold(&self, names: &[String]) -> Result<Held, StoreError>;

    /// This process serves no more: what it holds is given back.
    async fn retire(&self) -> Result<(), StoreError>;

    /// The clock that everybody who shares the store goes by. None: no other process serves from it.
    fn clock(&self) -> Option<Clock>;

    /// Lets `change` replace what all who serve keep under `name`, one after another. Fails where nobody shares the store.
    async fn share(&self, name: &str, change: Sharing) -> Result<(), StoreError>;

    /// Figures for metrics and the board.
    async fn overview(&self) -> Result<Overview, StoreError>;

    /// What other processes wrote since a look whose mark was `since`; without one, everything is to be loaded.
    async fn moved(&self, since: Option<i64>) -> Result<Moved, StoreError>;

    /// Resolves when another process is said to have written since the last call. Not everything is said: look all the
    /// same from time to time. Never, where nobody says anything.
    async fn stirred(&self);

    /// Deletes deliveries that ended before `before`, with their attempts, and older changes that no delivery is left
    /// of; what was created before it and is still open becomes dead. Forgets destinations that nothing
    /// is owed to and nothing happened to since ([`Place::is_forgettable`]). Rows of the audit log are kept for 370 days
    /// longer. In small steps, so that nobody waits long. Says
    /// how many deliveries went.
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Makes of what is kept, if anything is, what is kept from now on.
pub type Sharing = Box<dyn FnOnce(Option<&str>) -> String + Send>;

/// What a process may tend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    pub names: BTreeSet<String>,
    /// From the call on. None: for good.
    pub lasts: Option<Duration>,
    /// Deliveries that another process took with it when it fell silent, now `unknown`.
    pub recovered: Vec<(Destination, u64)>,
}

impl Held {
    /// By whoever has the store for itself.
    pub fn all(names: &[String]) -> Held {
        Held { names: names.iter().cloned().collect(), lasts: None, recovered: Vec::new() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub person: Option<String>,
    /// Only what was not allowed.
    pub denied: bool,
    /// Oldest first, behind that number; else newest first.
    pub after: Option<i64>,
    /// At most this many rows.
    pub limit: usize,
}

/// Part of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audited {
    pub rows: Vec<AuditRow>,
    /// Behind the last row that was deleted because of its age.
    pub anchor: Link,
    /// Behind the newest row.
    pub head: Link,
}

/// What the tracker starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    pub subscriptions: Vec<Subscription>,
    pub runs: Vec<(WorkspaceKey, RunState)>,
    pub workspaces: Vec<WorkspaceState>,
}

/// What other processes wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// How far this look reaches, for the next one.
    pub mark: i64,
    pub moves: Moves,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moves {
    None,
    /// Of what the tracker keeps, this, or nothing.
    Of(Box<Part>),
    /// Nobody knows what: load everything.
    All,
}

/// What moved, as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    pub loaded: Loaded,
    /// Ids of subscriptions that are no more.
    pub ended: Vec<String>,
    /// Runs that the store does not know any more.
    pub forgotten: Vec<(WorkspaceKey, RunId)>,
}

/// What is remembered of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceState {
    pub key: WorkspaceKey,
    /// The first successful list.
    pub baseline_at: Timestamp,
    /// The oldest creation time on the newest full page: an unknown run older than this is no news.
    pub horizon: Option<Timestamp>,
    /// The last good poll, to the minute.
    pub seen_at: Option<Timestamp>,
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
    /// What waited for the next run ([`Scope::Next`](crate::model::Scope)), as it is from now on, in the order of ids.
    pub begun: Vec<Subscription>,
    /// Ids of subscriptions that end.
    pub ended: Vec<String>,
    /// Runs to forget: ended, and fallen off the list.
    pub forgotten: Vec<RunId>,
}

impl Poll {
    /// The run that whoever waits for the next one gets: of those that start, the oldest.
    pub fn next_run(changes: &[Change]) -> Option<&Change> {
        let started = changes.iter().filter(|change| change.kind == ChangeKind::Started);
        started.min_by_key(|change| (change.run.created_at, &change.run.id))
    }
}

/// A message owed. Unique by (destination, template, workspace, run, sequence): recorded twice, it is owed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    pub id: Uuid,
    pub run: RunId,
    pub sequence: i64,
    pub to: Destination,
    pub template: Option<String>,
    /// Ids of the subscriptions that asked for it, at least one: several make one message.
    pub subscriptions: Vec<String>,
    pub at: Timestamp,
    /// Goes before what is not; among these, trouble ([`Change::is_trouble`]) before what ended well.
    pub urgent: bool,
    /// Found after a time without sight of the workspace: no news, but something to catch up on.
    pub missed: bool,
}

/// What is remembered of a destination, and how much it is owed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlaceRow {
    pub to: Destination,
    pub place: Place,
    /// Open deliveries.
    pub open: u64,
}

/// A change and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub change: Change,
    pub deliveries: Vec<(DeliveryRow, Vec<Attempt>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Done,
    Stale,
}

/// How an attempt ended and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub id: Uuid,
    /// The attempt that [`Store::claim`] counted; a settlement of an older one changes nothing.
    pub attempt: u32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// Uniform in 0..1.
    pub chance: f64,
    pub outcome: Outcome,
    pub next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// This message is refused for good.
    Rejected,
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
    /// Ids of the subscriptions that asked for it.
    pub subscriptions: Vec<String>,
    /// The delivery whose message tells it as well, or will.
    pub folded_into: Option<Uuid>,
    /// It tells others as well, for this reason.
    pub folding: Option<Folding>,
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
    pub ledger: Ledger,
    /// Deliveries that this process found in flight from dead ones, now `unknown`: when it opened the store, and since
    /// where several share it.
    pub recovered: Vec<(Destination, u64)>,
}

/// What became of everything ever owed, what was deleted since included. Nothing gets lost between its lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Ledger {
    /// Pairs of a change and a subscription that asked for it, and of a notice and a destination.
    pub owed: u64,
    pub delivered: u64,
    /// Told by a message that was delivered for another.
    pub folded: u64,
    /// One message served several subscriptions, or a person gave it up.
    pub suppressed: u64,
    pub dead: u64,
    /// Pending, in flight or unknown.
    pub open: u64,
}

impl Ledger {
    pub fn is_balanced(&self) -> bool {
        self.owed == self.delivered + self.folded + self.suppressed + self.dead + self.open
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is in use by another callboard; stop that one first, or give this one its own store.url")]
    InUse(String),
    #[error("{path} was written by a newer callboard (schema {found}, this one knows {known}); run that version")]
    Newer { path: String, found: i64, known: i64 },
    #[error("{path} is damaged ({said}); move it away and restore a backup")]
    Damaged { path: String, said: String },
    #[error("{path} holds {what} already; give it an empty one")]
    Taken { path: String, what: &'static str },
    #[error("the store's disk is full")]
    Full,
    /// Nobody knows what the disk holds: only a new process may look again.
    #[error("the store's disk refused to sync; see to the disk, then start again")]
    Broken,
    #[error("the store can't be opened: {0}")]
    Open(String),
    /// Its server does not answer, or not yet. It is worth to ask again.
    #[error("the store can't be reached: {0}")]
    Away(String),
    #[error("the store failed: {0}")]
    Failed(String),
}
