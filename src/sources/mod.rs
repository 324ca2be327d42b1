//! What is followed: one file or folder per pipeline API, and the one list of them.

pub mod dataworks;

use std::time::Duration;

use async_trait::async_trait;

use crate::model::{RunId, Snapshot, Workspace};

/// A pipeline API, read only. Never retries by itself: the poller's next tick is the retry.
#[async_trait]
pub trait Source: Send + Sync {
    /// One page of the newest runs of a workspace with all their stages. Pages count from 1 and hold up to
    /// [`PAGE_SIZE`] runs; the last page is shorter.
    async fn list(&self, workspace: &Workspace, page: u32) -> Result<Listing, SourceError>;

    /// One run.
    async fn get(&self, workspace: &Workspace, run: &RunId) -> Result<Snapshot, SourceError>;

    /// What a run deploys, by name; one page.
    async fn items(&self, workspace: &Workspace, run: &RunId) -> Result<Vec<Item>, SourceError>;

    /// Link to the run in the vendor's console.
    fn url(&self, workspace: &Workspace, run: &RunId) -> String;
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub runs: Vec<Snapshot>,
    /// The vendor's page was full, whatever of it could be read: older runs may follow.
    pub full: bool,
}

/// Runs a list call returns at most.
pub const PAGE_SIZE: usize = 100;

/// One object that a run deploys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: String,
    pub kind: String,
}

/// Why a call failed, in the terms of whoever must react. `request_id` is the vendor's, for its support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}", request_id.as_deref().map(|id| format!(" (RequestId {id})")).unwrap_or_default())]
pub struct SourceError {
    pub kind: SourceErrorKind,
    pub request_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceErrorKind {
    #[error("DataWorks asks to slow down: {said}")]
    Throttled { after: Option<Duration>, said: String },
    #[error("the account's daily call quota is used up: {said}")]
    QuotaGone { said: String },
    /// Wrong, expired or missing credentials. `hint` says what to do.
    #[error("{said}; {hint}")]
    Credentials { said: String, hint: String },
    /// The credentials are good, but may not do this.
    #[error("{said}; {hint}")]
    Permission { said: String, hint: String },
    #[error("no such run, or the key may not see it")]
    NoSuchRun,
    /// Timeouts, resets, DNS, 5xx: the next poll may work.
    #[error("no usable answer from DataWorks: {said}")]
    Transient { said: String },
    /// An answer that makes no sense, or a call that is wrong on our side.
    #[error("DataWorks answered something unexpected: {said}")]
    Broken { said: String },
}

impl SourceErrorKind {
    /// The metric label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            SourceErrorKind::Throttled { .. } => "throttled",
            SourceErrorKind::QuotaGone { .. } => "quota_gone",
            SourceErrorKind::Credentials { .. } => "credentials",
            SourceErrorKind::Permission { .. } => "permission",
            SourceErrorKind::NoSuchRun => "no_such_run",
            SourceErrorKind::Transient { .. } => "transient",
            SourceErrorKind::Broken { .. } => "broken",
        }
    }
}
