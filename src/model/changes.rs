//! Changes: what differs between two looks at a run.

use serde::{Deserialize, Serialize};

use super::{Snapshot, Stage, Status, Timestamp, Workspace};

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
    /// When its workspace was looked at before, where that was long ago: it happened at some moment in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_since: Option<Timestamp>,
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// The kinds of change; the `type` of the generic webhook and the name of the template derive from it.
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

    /// Somebody may have to act, or the run ended.
    pub fn is_urgent(&self) -> bool {
        match &self.kind {
            ChangeKind::Waiting { .. } | ChangeKind::Finished { .. } | ChangeKind::Lost { .. } => true,
            ChangeKind::StageChanged { to, .. } => *to == Status::Fail,
            ChangeKind::Started => false,
        }
    }

    /// Of what is urgent: something failed, waits, or is gone. It goes before what ended well.
    pub fn is_trouble(&self) -> bool {
        match &self.kind {
            ChangeKind::Waiting { .. } | ChangeKind::Lost { .. } => true,
            ChangeKind::StageChanged { to, .. } | ChangeKind::Finished { to, .. } => *to == Status::Fail,
            ChangeKind::Started => false,
        }
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
