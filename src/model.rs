//! The nouns of Callboard (DESIGN 2). Pure: no IO, no clock, no randomness.
//!
//! Everything that crosses from one module to another is one of these values. Vendor JSON never gets this far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Tells the time, where a moment can't be an argument because it lies in the future.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Time between two instants, zero when the clock went backwards.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

// ---------------------------------------------------------------------------------------------- workspaces and runs

/// A DataWorks workspace as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workspace {
    pub name: String,
    pub region: String,
    pub project_id: i64,
}

impl Workspace {
    /// What identifies it for ever; the name may change with the configuration.
    pub fn key(&self) -> WorkspaceKey {
        WorkspaceKey(format!("{}/{}", self.region, self.project_id))
    }
}

/// `region/project_id`: the identity of a workspace in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkspaceKey(pub String);

impl fmt::Display for WorkspaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one deployment pipeline run: 1 to 64 of `A-Z a-z 0-9 - _ *`, as DataWorks shows it, trimmed.
///
/// The documentation's samples end in a line feed and mask digits with `*`; both are survived.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run id is 1 to 64 letters, digits and dashes, for example a7ef0634-20ec-4a7c-a214-54020f910000")]
pub struct NotARunId;

impl RunId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 characters: enough to tell runs apart in a chat.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<Self, NotARunId> {
        let id = text.trim();
        let fits = (1..=64).contains(&id.len());
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*'));
        if fits && plain { Ok(RunId(id.to_owned())) } else { Err(NotARunId) }
    }
}

impl TryFrom<String> for RunId {
    type Error = NotARunId;

    fn try_from(text: String) -> Result<Self, NotARunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The status of a run or a stage. Compared without regard to case, shown in the spelling of DESIGN 2;
/// a value nobody documented is kept as it came, is not terminal and never good news.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Init,
    Running,
    Success,
    Fail,
    Termination,
    Cancel,
    Unknown(String),
}

impl Status {
    pub fn as_str(&self) -> &str {
        match self {
            Status::Init => "Init",
            Status::Running => "Running",
            Status::Success => "Success",
            Status::Fail => "Fail",
            Status::Termination => "Termination",
            Status::Cancel => "Cancel",
            Status::Unknown(raw) => raw,
        }
    }

    /// Success, Fail, Termination, Cancel: nothing follows.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Status::Success | Status::Fail | Status::Termination | Status::Cancel)
    }
}

impl From<&str> for Status {
    fn from(text: &str) -> Status {
        let known = [Status::Init, Status::Running, Status::Success, Status::Fail, Status::Termination, Status::Cancel];
        let text = text.trim();
        known
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
            .unwrap_or_else(|| Status::Unknown(text.to_owned()))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Status::from(text.as_str()))
    }
}

/// One step of a run. Identified by `code`, ordered by `step` (from 1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub code: String,
    /// Human text in the console's language; may be empty.
    pub name: String,
    pub step: i64,
    /// Deploy, Check, Offline, Build, Delete, or whatever DataWorks says.
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Status,
    /// The failure text; empty when fine.
    pub message: String,
}

impl Stage {
    /// Build stages and the offline check start by themselves; every other stage may wait for a person.
    pub fn starts_by_itself(&self) -> bool {
        self.kind.eq_ignore_ascii_case("Build")
            || self.code.eq_ignore_ascii_case("BUILD_PACKAGE")
            || self.code.eq_ignore_ascii_case("OfflineCheck")
    }
}

/// A run as one poll saw it, stages in order of `step`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: RunId,
    pub description: String,
    /// Account or RAM user id, 16 to 18 digits, kept as text.
    pub creator: String,
    pub status: Status,
    /// The failure text of the run; empty when fine.
    pub message: String,
    pub created_at: Option<Timestamp>,
    /// For display only: it does not move on every stage change.
    pub modified_at: Option<Timestamp>,
    pub stages: Vec<Stage>,
}

impl Snapshot {
    pub fn stage(&self, code: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.code == code)
    }

    /// What a person calls this run: its description, else the short id.
    pub fn title(&self) -> &str {
        let description = self.description.trim();
        if description.is_empty() { self.id.short() } else { description }
    }

    /// 1-based place of the stage among all stages.
    pub fn position(&self, code: &str) -> Option<usize> {
        self.stages.iter().position(|s| s.code == code).map(|i| i + 1)
    }

    /// The stage that comes after this one.
    pub fn next_after(&self, code: &str) -> Option<&Stage> {
        self.stages.iter().skip_while(|s| s.code != code).nth(1)
    }

    /// The stage a person has to start: the run is Running, this is the first stage that is not Success, it is
    /// still Init and does not start by itself. RunMode Auto looks the same, so callers wait a grace time.
    pub fn gate(&self) -> Option<&Stage> {
        if self.status != Status::Running {
            return None;
        }
        let first = self.stages.iter().find(|s| s.status != Status::Success)?;
        (first.status == Status::Init && !first.starts_by_itself()).then_some(first)
    }

    /// The stage the run is at: the first that is not Success, else the last.
    pub fn current(&self) -> Option<&Stage> {
        self.stages.iter().find(|s| s.status != Status::Success).or(self.stages.last())
    }
}

/// What is remembered of a run between two polls. Moves only together with the deliveries its changes owe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    pub snapshot: Snapshot,
    /// Grows by one with every write; a write computed from an older version is refused.
    pub version: i64,
    /// The sequence number of the newest change; the first change of a run is 1.
    pub sequence: i64,
    /// When each stage (by code) was seen to enter its present status. No entry: that moment was not observed.
    pub since: BTreeMap<String, Timestamp>,
    /// When the run was first seen.
    pub first_seen: Timestamp,
    pub gate: Option<Gate>,
    /// A poll showed a status gone backwards; believed when a second poll shows it too.
    pub doubted: bool,
    /// How often in a row the source said that there is no such run, and when it was last seen.
    pub missing: Option<Missing>,
    /// It was told that the run is no longer visible; it is not followed any more.
    #[serde(default)]
    pub lost: bool,
}

/// A stage that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub stage: String,
    pub since: Timestamp,
    /// The waiting change has been told.
    pub told: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub since: Timestamp,
    pub times: u32,
}

// ------------------------------------------------------------------------------------------------------- changes

/// What differs between two snapshots, with the facts a message needs. Kept in the store as JSON (contract: a
/// change stored by one release is read by the next).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub workspace: Workspace,
    /// The run right after this change.
    pub run: Snapshot,
    /// Link to the console.
    pub url: String,
    /// Counts the changes of this run from 1.
    pub sequence: i64,
    /// When the poll saw it.
    pub at: Timestamp,
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// The kinds of change; the `type` of the generic webhook (DESIGN 3.3) and the name of the template derive from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ChangeKind {
    /// A run seen first after its workspace's baseline. Stages already past Init stand in `run.stages`.
    #[serde(rename = "run.started")]
    Started,
    #[serde(rename = "run.stage.changed")]
    StageChanged {
        /// The stage's code; the stage itself stands in `run.stages`.
        stage: String,
        from: Status,
        to: Status,
        /// How long the stage was in `from`, where its start was observed.
        took_ms: Option<i64>,
    },
    #[serde(rename = "run.waiting")]
    Waiting { stage: String, since: Timestamp },
    #[serde(rename = "run.finished")]
    Finished {
        from: Status,
        to: Status,
        /// From the run's creation, by DataWorks' clock, to the poll that saw the end.
        took_ms: Option<i64>,
    },
    #[serde(rename = "run.lost")]
    Lost { last_seen: Timestamp },
}

impl ChangeKind {
    /// Every kind by the name of its template.
    pub const NAMES: [&'static str; 5] = ["started", "stage", "waiting", "finished", "lost"];

    pub fn name(&self) -> &'static str {
        match self {
            ChangeKind::Started => "started",
            ChangeKind::StageChanged { .. } => "stage",
            ChangeKind::Waiting { .. } => "waiting",
            ChangeKind::Finished { .. } => "finished",
            ChangeKind::Lost { .. } => "lost",
        }
    }

    /// The `type` of the generic webhook.
    pub fn event_type(&self) -> &'static str {
        match self {
            ChangeKind::Started => "run.started",
            ChangeKind::StageChanged { .. } => "run.stage.changed",
            ChangeKind::Waiting { .. } => "run.waiting",
            ChangeKind::Finished { .. } => "run.finished",
            ChangeKind::Lost { .. } => "run.lost",
        }
    }
}

impl Change {
    /// The stage this change is about.
    pub fn stage(&self) -> Option<&Stage> {
        match &self.kind {
            ChangeKind::StageChanged { stage, .. } | ChangeKind::Waiting { stage, .. } => self.run.stage(stage),
            _ => None,
        }
    }

    /// The change ends its run: subscriptions on the run end with it.
    pub fn ends_run(&self) -> bool {
        matches!(self.kind, ChangeKind::Finished { .. } | ChangeKind::Lost { .. })
    }

    /// How the change should feel to a reader: picks colour and symbol.
    pub fn tone(&self) -> Tone {
        match &self.kind {
            ChangeKind::Started => Tone::Progress,
            ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => Tone::of(to),
            ChangeKind::Waiting { .. } => Tone::Waiting,
            ChangeKind::Lost { .. } => Tone::Unknown,
        }
    }
}

/// How a status should feel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    Progress,
    Good,
    Bad,
    Waiting,
    Stopped,
    Unknown,
}

impl Tone {
    pub fn of(status: &Status) -> Tone {
        match status {
            Status::Init | Status::Running => Tone::Progress,
            Status::Success => Tone::Good,
            Status::Fail => Tone::Bad,
            Status::Termination | Status::Cancel => Tone::Stopped,
            Status::Unknown(_) => Tone::Unknown,
        }
    }

    /// Never alone: every message says the state in words too.
    pub fn symbol(self) -> &'static str {
        match self {
            Tone::Progress => "▶️",
            Tone::Good => "✅",
            Tone::Bad => "❌",
            Tone::Waiting => "⏸️",
            Tone::Stopped => "⏹️",
            Tone::Unknown => "❔",
        }
    }

    /// 0xRRGGBB.
    pub fn color(self) -> u32 {
        match self {
            Tone::Progress => 0x3B_82_F6,
            Tone::Good => 0x16_A3_4A,
            Tone::Bad => 0xDC_26_26,
            Tone::Waiting => 0xF5_9E_0B,
            Tone::Stopped => 0x6B_72_80,
            Tone::Unknown => 0xA8_55_F7,
        }
    }
}

// ------------------------------------------------------------------------------------------------- subscriptions

/// What a subscription asks for (DESIGN 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// A run seen first after its workspace's baseline.
    Started,
    /// Any change of a stage's status.
    Stage,
    /// A person must act.
    Waiting,
    /// A stage or the run went to Fail.
    Failed,
    /// The run ended with Success.
    Succeeded,
    /// The run ended, however.
    Finished,
    /// The run ended with Termination or Cancel.
    Stopped,
}

impl Selector {
    pub const ALL: [Selector; 7] = [
        Selector::Started,
        Selector::Stage,
        Selector::Waiting,
        Selector::Failed,
        Selector::Succeeded,
        Selector::Finished,
        Selector::Stopped,
    ];

    /// What a `/watch` means.
    pub fn watch() -> BTreeSet<Selector> {
        BTreeSet::from([Selector::Stage, Selector::Waiting, Selector::Finished])
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Selector::Started => "started",
            Selector::Stage => "stage",
            Selector::Waiting => "waiting",
            Selector::Failed => "failed",
            Selector::Succeeded => "succeeded",
            Selector::Finished => "finished",
            Selector::Stopped => "stopped",
        }
    }

    pub fn matches(self, change: &Change) -> bool {
        match (self, &change.kind) {
            (Selector::Started, ChangeKind::Started)
            | (Selector::Stage, ChangeKind::StageChanged { .. })
            | (Selector::Waiting, ChangeKind::Waiting { .. })
            | (Selector::Finished, ChangeKind::Finished { .. } | ChangeKind::Lost { .. }) => true,
            (Selector::Failed, ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. }) => {
                *to == Status::Fail
            }
            (Selector::Succeeded, ChangeKind::Finished { to, .. }) => *to == Status::Success,
            (Selector::Stopped, ChangeKind::Finished { to, .. }) => matches!(to, Status::Termination | Status::Cancel),
            _ => false,
        }
    }
}

/// Where messages go: a configured channel (`ops`) or a room a bot sits in (`discord:123456789012345678`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Destination {
    Channel(String),
    Room { surface: String, room: String },
}

impl From<String> for Destination {
    fn from(text: String) -> Destination {
        match text.split_once(':') {
            Some((surface, room)) => Destination::Room { surface: surface.to_owned(), room: room.to_owned() },
            None => Destination::Channel(text),
        }
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Channel(name) => f.write_str(name),
            Destination::Room { surface, room } => write!(f, "{surface}:{room}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum Scope {
    /// One run; the subscription ends with it.
    Run { workspace: WorkspaceKey, run: RunId },
    /// Every run of a workspace.
    Workspace { workspace: WorkspaceKey },
}

impl Scope {
    pub fn workspace(&self) -> &WorkspaceKey {
        match self {
            Scope::Run { workspace, .. } | Scope::Workspace { workspace } => workspace,
        }
    }
}

/// Who wants which changes where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// A UUID; for standing ones from the configuration `config:` and a digest of what they say.
    pub id: String,
    #[serde(flatten)]
    pub scope: Scope,
    pub to: Destination,
    pub on: BTreeSet<Selector>,
    /// Only changes of these stages (by code, any case); empty: all. Changes of the run itself always pass.
    #[serde(default)]
    pub stages: Vec<String>,
    /// Only runs of these creators; empty: all.
    #[serde(default)]
    pub creators: Vec<String>,
    /// Another template set than the default.
    #[serde(default)]
    pub template: Option<String>,
    /// Who asked: `config`, `cli`, or `discord:<user id>`.
    pub by: String,
    pub created_at: Timestamp,
}

impl Subscription {
    pub fn matches(&self, change: &Change) -> bool {
        let scope = match &self.scope {
            Scope::Run { workspace, run } => *run == change.run.id && *workspace == change.workspace.key(),
            Scope::Workspace { workspace } => *workspace == change.workspace.key(),
        };
        let stage = match change.stage() {
            Some(stage) if !self.stages.is_empty() => {
                self.stages.iter().any(|code| code.eq_ignore_ascii_case(&stage.code))
            }
            _ => true,
        };
        let creator = self.creators.is_empty() || self.creators.contains(&change.run.creator);
        scope && stage && creator && self.on.iter().any(|selector| selector.matches(change))
    }
}

// ----------------------------------------------------------------------------------------------------- deliveries

/// One message owed to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// A UUID v7; constant over retries: the `webhook-id`, Discord's nonce and DingTalk's msgUuid derive from it.
    pub id: uuid::Uuid,
    pub to: Destination,
    pub template: Option<String>,
    pub change: Change,
    /// Attempts begun so far, this one included once it is claimed.
    pub attempt: u32,
    pub created_at: Timestamp,
}

/// The life of a row (DESIGN 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Pending,
    InFlight,
    Delivered,
    /// The last attempt may or may not have arrived; tried again like a pending one, and counted.
    Unknown,
    Dead,
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

/// What a channel reports of one attempt. `reason` is for people; it never holds a URL or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A positive answer was parsed.
    Delivered { message_id: Option<String> },
    /// Certainly not delivered; worth another try, not before `after` where the platform said so.
    Retry { after: Option<Duration>, reason: String },
    /// This message will never pass.
    Reject { reason: String },
    /// This destination will not work until a person acts.
    Dead { reason: String },
    /// It may or may not have arrived (bytes were handed over, no usable answer came).
    Unknown { after: Option<Duration>, reason: String },
}

impl Outcome {
    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Retry { .. } => "retry",
            Outcome::Reject { .. } => "rejected",
            Outcome::Dead { .. } => "dead",
            Outcome::Unknown { .. } => "unknown",
        }
    }
}

/// How fast one destination may be used: `count` messages in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub count: usize,
    pub window: Duration,
}

// ------------------------------------------------------------------------------------------------------- messages

/// A rendered change, in the dialect of the channel kind that will send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The delivery's id, constant over retries.
    pub id: uuid::Uuid,
    /// One line, escaped for the dialect's headline.
    pub title: String,
    /// Lines in the dialect's markup, data escaped.
    pub body: String,
    /// Title and body with no markup at all: notification previews, fallbacks, terminals.
    pub plain: String,
    pub tone: Tone,
    pub url: String,
    /// Words of the link to `url`, in the channel's locale.
    pub url_label: String,
    pub change: Change,
}

/// How a channel kind writes text. Owned by the channel, handed to the renderer as a value.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// The channel kind, as in the configuration: `slack-webhook`.
    pub kind: &'static str,
    /// Makes data inert inside `body`: no mention, no markup, no link.
    pub escape: fn(&str) -> String,
    /// Makes data inert inside `title`, where platforms read other markup than in the body.
    pub escape_title: fn(&str) -> String,
    /// Bold text around something already escaped.
    pub bold: fn(&str) -> String,
    /// A link from an escaped label and a URL of ours.
    pub link: fn(&str, &str) -> String,
}

// ------------------------------------------------------------------------------------------------ chat: in and out

/// A command as a surface received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `discord`, `console`, …
    pub surface: String,
    /// The room's id on that surface.
    pub room: String,
    /// The person's id on that surface, verified by the platform.
    pub user: String,
    /// Name and arguments as typed, without the slash: `watch 7b1e04c2-…`.
    pub text: String,
    pub at: Timestamp,
}

/// What the asker reads. Built from spans so that data can never become markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub text: Text,
    /// Only the asker sees it.
    pub private: bool,
}

/// Text with a little structure; each surface writes it in its own dialect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<Span>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    Plain(String),
    Bold(String),
    Code(String),
    Link { label: String, url: String },
}

impl Text {
    #[must_use]
    pub fn plain(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Plain(text.into()));
        self
    }

    #[must_use]
    pub fn bold(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Bold(text.into()));
        self
    }

    #[must_use]
    pub fn code(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span::Code(text.into()));
        self
    }

    #[must_use]
    pub fn link(mut self, label: impl Into<String>, url: impl Into<String>) -> Self {
        self.0.push(Span::Link { label: label.into(), url: url.into() });
        self
    }

    #[must_use]
    pub fn line(self) -> Self {
        self.plain("\n")
    }
}

impl fmt::Display for Text {
    /// Without any markup.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|span| match span {
            Span::Plain(text) | Span::Bold(text) | Span::Code(text) => f.write_str(text),
            Span::Link { label, url } => write!(f, "{label} ({url})"),
        })
    }
}

/// What surfaces know of a command: registration, help and the README's table come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInfo {
    pub name: &'static str,
    /// One line, imperative, no full stop, at most 100 characters (Discord's limit).
    pub about: &'static str,
    pub args: &'static [ArgInfo],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgInfo {
    pub name: &'static str,
    pub about: &'static str,
    pub required: bool,
    /// Surfaces that can, offer recent runs while the person types.
    pub completes_runs: bool,
}

/// One line that a surface offers while the person types an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    pub label: String,
    pub value: String,
}
