//! Workspaces and runs: what is followed, as a poll saw it and as it is remembered.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

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

/// The status of a run or a stage. Compared without regard to case, shown in DataWorks' own spelling;
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
    /// What a poll showed in which a status had gone backwards; believed when the next poll shows it too, or more. Only
    /// memory knows it: after a restart two polls have to agree anew.
    #[serde(skip)]
    pub doubted: Option<Box<Snapshot>>,
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
