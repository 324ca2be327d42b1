//! The one door to a source: every call is paid for out of the account's budget and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{ApiCall, Metrics};
use crate::model::{RunId, Snapshot, Timestamp, Workspace, elapsed};
use crate::schedule::{Budget, Limits, Purpose, Verdict, after};
use crate::sources::{Listing, Source, SourceError, SourceErrorKind};

/// Calls that can't be made later wait this long for their turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Several that wait for one turn don't spin for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

pub struct Meter {
    source: Arc<dyn Source>,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// By region: DataWorks counts per account and region.
    budgets: Mutex<HashMap<String, Budget>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No call was made.
    #[error("calls to DataWorks are rationed; the next one in {region} is possible at {}", until.strftime("%Y-%m-%d %H:%M:%S UTC"))]
    Budget { region: String, until: Timestamp },
}

impl Meter {
    pub fn new(source: Arc<dyn Source>, limits: Limits, metrics: Arc<Metrics>) -> Meter {
        Meter { source, limits, metrics, budgets: Mutex::default() }
    }

    pub async fn list(
        &self,
        workspace: &Workspace,
        page: u32,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Listing, CallError> {
        let call = self.source.list(workspace, page);
        self.paid(workspace, "ListPipelineRuns", purpose, now, call).await
    }

    pub async fn get(
        &self,
        workspace: &Workspace,
        run: &RunId,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Snapshot, CallError> {
        self.paid(workspace, "GetPipelineRun", purpose, now, self.source.get(workspace, run)).await
    }

    pub fn url(&self, workspace: &Workspace, run: &RunId) -> String {
        self.source.url(workspace, run)
    }

    /// Until when a region's calls are stopped, because it asked for it.
    pub fn blocked_until(&self, region: &str) -> Option<Timestamp> {
        let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.get(region).and_then(Budget::blocked_until)
    }

    async fn paid<T>(
        &self,
        workspace: &Workspace,
        action: &'static str,
        purpose: Purpose,
        now: Timestamp,
        call: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, CallError> {
        let region = &workspace.region;
        let now = self.pay(region, purpose, now).await?;
        let began = Instant::now();
        let result = call.await;
        let now = after(now, began.elapsed());
        let (outcome, verdict) = match &result {
            Ok(_) => ("ok", Verdict::Answered),
            Err(error) => (error.kind.label(), verdict(&error.kind)),
        };
        self.metrics.api_calls.get_or_create(&ApiCall { action, outcome }).inc();
        self.with_budget(region, now, |budget| budget.answered(verdict, now));
        Ok(result?)
    }

    /// Takes a call out of the budget; returns when that was. Whoever can't come back later waits a little for it.
    async fn pay(&self, region: &str, purpose: Purpose, mut now: Timestamp) -> Result<Timestamp, CallError> {
        let mut patience = if purpose == Purpose::Poll { Duration::ZERO } else { PATIENCE };
        loop {
            let Err(until) = self.with_budget(region, now, |budget| budget.take(purpose, now)) else { return Ok(now) };
            let wait = elapsed(now, until).max(SHORTEST_WAIT);
            if wait > patience {
                return Err(CallError::Budget { region: region.to_owned(), until });
            }
            tokio::time::sleep(wait).await;
            patience -= wait;
            now = after(now, wait);
        }
    }

    fn with_budget<T>(&self, region: &str, now: Timestamp, act: impl FnOnce(&mut Budget) -> T) -> T {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = budgets.entry(region.to_owned()).or_insert_with(|| Budget::new(self.limits, now));
        let result = act(budget);
        let least = budgets.values().filter_map(Budget::left).min();
        if let Some(left) = least {
            self.metrics.api_budget.set(i64::try_from(left).unwrap_or(i64::MAX));
        }
        result
    }
}

fn verdict(kind: &SourceErrorKind) -> Verdict {
    match kind {
        SourceErrorKind::Throttled { after, .. } => Verdict::Throttled { after: *after },
        SourceErrorKind::QuotaGone { .. } => Verdict::QuotaGone,
        _ => Verdict::Answered,
    }
}
