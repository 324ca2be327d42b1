//! Subscriptions: who wants which changes where.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, ChangeKind, RunId, Status, Timestamp, WorkspaceKey};

/// What a subscription asks for.
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

impl Destination {
    /// What all rooms of a bot have in common: its credentials and some of its limits.
    pub fn account(&self) -> Option<Destination> {
        match self {
            Destination::Channel(_) => None,
            Destination::Room { surface, .. } => {
                Some(Destination::Room { surface: surface.clone(), room: String::new() })
            }
        }
    }
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

/// Whether a subscription asks for a change, and where not, what keeps it away: the first of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Match {
    Matched,
    /// Another run, or another workspace.
    NotScope,
    /// Another person's run.
    Creator,
    /// Another stage.
    Stage,
    /// Another kind of change.
    Selector,
}

impl Subscription {
    pub fn matches(&self, change: &Change) -> bool {
        self.explain(change) == Match::Matched
    }

    pub fn explain(&self, change: &Change) -> Match {
        let is_in_scope = match &self.scope {
            Scope::Run { workspace, run } => *run == change.run.id && *workspace == change.workspace.key(),
            Scope::Workspace { workspace } => *workspace == change.workspace.key(),
        };
        let is_of_stage = match change.stage() {
            Some(stage) if !self.stages.is_empty() => {
                self.stages.iter().any(|code| code.eq_ignore_ascii_case(&stage.code))
            }
            _ => true,
        };
        if !is_in_scope {
            Match::NotScope
        } else if !self.creators.is_empty() && !self.creators.contains(&change.run.creator) {
            Match::Creator
        } else if !is_of_stage {
            Match::Stage
        } else if !self.on.iter().any(|selector| selector.matches(change)) {
            Match::Selector
        } else {
            Match::Matched
        }
    }
}
