//! Deliveries: one message owed to one destination, and how an attempt at it ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Change, Destination, Notice, Timestamp, WorkspaceKey};

/// What one delivery tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are changes")]
pub enum News {
    Change(Change),
    Notice(Notice),
}

impl News {
    /// When it was seen.
    pub fn at(&self) -> Timestamp {
        match self {
            News::Change(change) => change.at,
            News::Notice(notice) => notice.at,
        }
    }

    /// Somebody may have to act, or the run ended: goes before progress.
    pub fn is_urgent(&self) -> bool {
        match self {
            News::Change(change) => change.is_urgent(),
            News::Notice(_) => true,
        }
    }

    pub fn change(&self) -> Option<&Change> {
        match self {
            News::Change(change) => Some(change),
            News::Notice(_) => None,
        }
    }
}

/// One message owed to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// A UUID v7.
    pub id: Uuid,
    pub to: Destination,
    pub template: Option<String>,
    #[serde(flatten)]
    pub news: News,
    /// Attempts begun so far, this one included once it is claimed.
    pub attempt: u32,
    /// Of these, those that failed and count for its schedule: waiting for a destination costs none.
    pub tries: u32,
    pub created_at: Timestamp,
    /// When the first attempt began that may have arrived although nobody knows.
    pub unknown_since: Option<Timestamp>,
    /// That attempt was of a message under another id, so that nobody recognises this one as its repetition.
    #[serde(skip)]
    pub told_elsewhere: bool,
}

/// The life of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Pending,
    InFlight,
    Delivered,
    /// The last attempt may or may not have arrived; tried again like a pending one, and counted.
    Unknown,
    Dead,
    /// Told by another message, or given up by a person.
    Superseded,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::InFlight => "in_flight",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Unknown => "unknown",
            DeliveryState::Dead => "dead",
            DeliveryState::Superseded => "superseded",
        }
    }
}

/// Why one message tells several changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Folding {
    /// The destination's rate can't carry them one by one.
    Rate,
    /// They are late: what was missed of one run, and where it stands now.
    Late,
}

/// A message that is about to leave, and the deliveries it stands for. Constant over retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What the platform may recognise a repetition by: the `webhook-id`, Discord's nonce and DingTalk's msgUuid derive
    /// from it.
    pub message_id: Uuid,
    pub lead: Delivery,
    /// Deliveries told by the same message, in order of recording.
    pub folded: Vec<Delivery>,
    pub folding: Option<Folding>,
    /// The last attempt at this destination failed.
    pub probe: bool,
}

/// What a destination waits for, where the claim of its next message is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue<'a> {
    pub to: &'a Destination,
    pub place: &'a Place,
    /// Whose turn it is.
    pub head: Waiting,
    /// Of the head's run, the head first, in order: what one message may tell together, at most [`MOST_FOLDED`].
    pub run: Vec<Waiting>,
    /// How many deliveries wait here that a digest may tell; counted up to [`MOST_COUNTED`].
    pub waiting: usize,
}

/// One message tells no more changes than this: each is named, within every platform's limits.
pub const MOST_FOLDED: usize = 20;
pub const MOST_COUNTED: usize = 200;

/// A delivery that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub workspace: WorkspaceKey,
    pub created_at: Timestamp,
    pub urgent: bool,
    /// Its change was found after a time without sight of its workspace.
    pub missed: bool,
    pub attempt: u32,
    pub unknown_since: Option<Timestamp>,
    /// See [`Delivery`].
    pub told_elsewhere: bool,
}

/// How the message is made whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Not before this moment.
    Hold(Timestamp),
    /// By itself; with the rows it had, where it was tried before.
    Single,
    /// With what waits of the same run, `rows` in all.
    CatchUp { rows: usize },
    /// With what waits for the same destination, `rows` in all: urgent runs first, each in its order.
    Digest { rows: usize },
    /// Never again; the reason is for people.
    GiveUp { reason: &'static str },
}

/// What is remembered of a destination between its messages. Kept in the store as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The last sends, oldest first, as many as the pace looks back on.
    pub sent: Vec<Timestamp>,
    /// Failed attempts in a row.
    pub failures: u32,
    pub failing_since: Option<Timestamp>,
    /// What the last failed attempt said.
    pub said: Option<String>,
    /// Nothing leaves before this moment: the last attempt failed, or the platform asked for it.
    pub closed_until: Option<Timestamp>,
    /// The least time between two messages, in milliseconds, learned from answers that asked for fewer.
    pub spacing_ms: u64,
    /// The last requests that were refused, oldest first: platforms ban who insists.
    pub refused: Vec<Timestamp>,
    /// The messages that were refused for good since one passed, each once; no more than make a trouble.
    pub rejected: Vec<Uuid>,
    /// Since when these are a trouble.
    pub rejecting_since: Option<Timestamp>,
    /// Nothing leaves until a person acts.
    pub dead: Option<Dead>,
    /// A person acted on what was dead since then, and no message has passed yet.
    pub returning: Option<Timestamp>,
}

impl Place {
    /// Nothing happened to it since `before`, and nothing is wrong with it: it is remembered for nothing.
    pub fn is_forgettable(&self, before: Timestamp) -> bool {
        let troubles = [self.failing_since, self.rejecting_since, self.returning];
        let is_well = self.dead.is_none() && self.rejected.is_empty() && troubles.iter().all(Option::is_none);
        let mut moments = self.sent.iter().chain(&self.refused).chain(&self.closed_until);
        is_well && moments.all(|moment| *moment < before)
    }

    /// A person acted: as if it had never failed.
    pub fn revive(&mut self) {
        self.returning = self.dead.take().map(|dead| dead.since).or(self.returning);
        self.failures = 0;
        self.failing_since = None;
        self.said = None;
        self.closed_until = None;
        self.spacing_ms = 0;
        self.refused.clear();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    pub since: Timestamp,
    pub reason: String,
    /// What the configuration of the destination was recognised by; another one is worth a try.
    pub identity: String,
}

/// What a channel reports of one attempt. `reason` is for people; it never holds a URL or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A positive answer was parsed. `pause`: the platform takes nothing more for so long.
    Delivered { message_id: Option<String>, pause: Option<Duration> },
    /// Certainly not delivered; worth another try, not before `after` where the platform said so.
    Retry { after: Option<Duration>, reason: String },
    /// Certainly not delivered: too many messages. `account`: all rooms of the bot have to wait, not only this one.
    Limited { after: Option<Duration>, account: bool, reason: String },
    /// This message will never pass.
    Reject { reason: String },
    /// This destination will not work until a person acts.
    Dead { reason: String },
    /// No room of the bot can be reached: its credentials are refused.
    Denied { reason: String },
    /// It was not even tried: its room may not know of it any more. Says nothing of the destination.
    Withheld { reason: String },
    /// It may or may not have arrived (bytes were handed over, no usable answer came).
    Unknown { after: Option<Duration>, reason: String },
}

impl Outcome {
    pub const LABELS: [&'static str; 8] =
        ["delivered", "retry", "limited", "rejected", "dead", "denied", "withheld", "unknown"];

    /// It uses up one of the tries that a message has: it is not the destination alone that was in the way.
    pub fn is_try(&self) -> bool {
        matches!(self, Outcome::Retry { .. } | Outcome::Unknown { .. })
    }

    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Retry { .. } => "retry",
            Outcome::Limited { .. } => "limited",
            Outcome::Reject { .. } => "rejected",
            Outcome::Dead { .. } => "dead",
            Outcome::Denied { .. } => "denied",
            Outcome::Withheld { .. } => "withheld",
            Outcome::Unknown { .. } => "unknown",
        }
    }

    /// Why it failed; empty where it did not.
    pub fn reason(&self) -> &str {
        match self {
            Outcome::Delivered { .. } => "",
            Outcome::Retry { reason, .. }
            | Outcome::Limited { reason, .. }
            | Outcome::Reject { reason }
            | Outcome::Dead { reason }
            | Outcome::Denied { reason }
            | Outcome::Withheld { reason }
            | Outcome::Unknown { reason, .. } => reason,
        }
    }
}

/// On which terms a channel takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// All of them hold. None: as fast as it answers.
    pub paces: &'static [Pace],
    pub repetitions: Repetitions,
}

/// How fast one destination may be used: `count` messages in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub count: usize,
    pub window: Duration,
}

/// What becomes of a message that arrives twice under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetitions {
    /// People see it twice.
    Shown,
    /// The platform recognises it, for so long after the first.
    MergedFor(Duration),
    /// The receiver recognises it whenever it comes.
    Merged,
}

/// What is worth more to a destination when nobody knows whether a message arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// Sent again, marked as a possible repetition.
    #[default]
    NoLoss,
    /// Not sent again; `callboard deliveries` shows it as dead.
    NoDuplicate,
}
