//! The one door to a source: every call is paid for out of the account's budget and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics::{ApiCall, Metrics};
use crate::model::{RunId, Snapshot, Timestamp, Workspace, elapsed};
use crate::schedule::{Access, Budget, Limits, Purpose, Turn, Verdict, after};
use crate::sources::{Listing, Source, SourceError, SourceErrorKind};
use crate::store::Store;

/// Calls that can't be made later wait this long for their turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Under which all replicas keep whose turn it is to try refused credentials.
const TURN: &str = "access";
/// Several that wait for one turn don't spin for it.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

pub struct Meter {
    source: Arc<dyn Source>,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// Where all replicas keep the account's budgets together; none: in `books`.
    shared: Option<Arc<dyn Store>>,
    /// This process among all that share.
    me: String,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// By region: DataWorks counts per account and region. As they were last seen, where others spend them too.
    budgets: HashMap<String, Budget>,
    /// The credentials are the same for all of them.
    access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The credentials are refused, whatever the workspace: by this call, or by an earlier one and none was made. The
    /// next one may try them at `until`.
    #[error("{said}")]
    Refused { said: String, until: Timestamp },
    /// No call was made.
    #[error("calls to DataWorks are rationed; the next one in {region} is possible at {}", until.strftime("%Y-%m-%d %H:%M:%S UTC"))]
    Budget { region: String, until: Timestamp },
    /// No call was made: the store, where the replicas keep the budget together, did not answer.
    #[error("no call to DataWorks can be paid for: {0}")]
    Unpaid(String),
}

impl Meter {
    pub fn new(
        source: Arc<dyn Source>,
        limits: Limits,
        shared: Option<Arc<dyn Store>>,
        metrics: Arc<Metrics>,
    ) -> Meter {
        Meter { source, limits, metrics, shared, me: Uuid::now_v7().to_string(), books: Mutex::default() }
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
        self.books().budgets.get(region).and_then(Budget::blocked_until)
    }

    /// While the credentials are refused: when the next call may try them, the past included.
    pub fn refused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.books().access.refused(now).map(|(_, until)| until)
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
        let paid_at = self.pay(region, purpose, now).await?;
        let began = Instant::now();
        let result = call.await;
        let now = after(paid_at, began.elapsed());
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        self.metrics.api_calls.get_or_create(&ApiCall { action, outcome }).inc();
        let answered = verdict(&result);
        // What others hear of has to be worth it.
        if (self.shared.is_none() || answered != Verdict::Answered)
            && let Err(error) = self.budget(region, now, move |budget| budget.answered(answered, now)).await
        {
            tracing::debug!(%error, "others do not hear how a call was answered");
        }
        let result = result.map_err(|error| match error.kind {
            SourceErrorKind::Credentials { .. } => {
                let said = error.to_string();
                CallError::Refused { until: self.books().access.denied(said.clone(), now), said }
            }
            _ => CallError::Source(error),
        });
        let passes_again = proves_access(&result) && self.books().access.passed(paid_at);
        if passes_again && let Err(error) = self.turn(move |_, me| (Turn::pass(me, now), true)).await {
            tracing::debug!(%error, "others do not hear that the credentials pass again");
        }
        result
    }

    /// Lets `act` see and change whose turn it is to try refused credentials; whether it is that of this process, which
    /// it always is where there is no other one.
    async fn turn(
        &self,
        act: impl FnOnce(Option<Turn>, &str) -> (Turn, bool) + Send + 'static,
    ) -> Result<bool, CallError> {
        let Some(store) = &self.shared else { return Ok(true) };
        let me = self.me.clone();
        let decide = move |kept: Option<&str>| {
            let (turn, mine) = act(kept.and_then(|kept| serde_json::from_str(kept).ok()), &me);
            (serde_json::to_string(&turn).unwrap_or_default(), mine)
        };
        share(store.as_ref(), TURN, decide).await
    }

    /// Takes a call out of the budget; returns when that was. Whoever can't come back later waits a little for it.
    async fn pay(&self, region: &str, purpose: Purpose, mut now: Timestamp) -> Result<Timestamp, CallError> {
        let mut patience = if purpose == Purpose::Poll { Duration::ZERO } else { PATIENCE };
        loop {
            let until = match self.take(region, purpose, now).await {
                Ok(()) => return Ok(now),
                Err(CallError::Budget { until, .. }) => until,
                Err(error) => return Err(error),
            };
            let wait = elapsed(now, until).max(SHORTEST_WAIT);
            if wait > patience {
                return Err(CallError::Budget { region: region.to_owned(), until });
            }
            tokio::time::sleep(wait).await;
            patience -= wait;
            now = after(now, wait);
        }
    }
    /// Lets `act` see and change the budget of a region.
    async fn budget<T: Send + 'static>(
        &self,
        region: &str,
        now: Timestamp,
        act: impl FnOnce(&mut Budget) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let limits = self.limits;
        let Some(store) = &self.shared else {
            let mut books = self.books();
            let result = act(books.budgets.entry(region.to_owned()).or_insert_with(|| Budget::new(limits, now)));
            self.measure(&books);
            return Ok(result);
        };
        let spend = move |kept: Option<&str>| {
            let kept = kept.and_then(|kept| serde_json::from_str::<Budget>(kept).ok());
            let mut budget = kept.map_or_else(|| Budget::new(limits, now), |kept| kept.under(limits));
            let result = act(&mut budget);
            (serde_json::to_string(&budget).unwrap_or_default(), (result, budget))
        };
        let (result, budget) = share(store.as_ref(), &format!("budget:{region}"), spend).await?;
        let mut books = self.books();
        books.budgets.insert(region.to_owned(), budget);
        self.measure(&books);
        Ok(result)
    }

    /// A call that begins now, or why there is none.
    async fn take(&self, region: &str, purpose: Purpose, now: Timestamp) -> Result<(), CallError> {
        let refused = self.books().access.refused(now).map(|(said, until)| (said.to_owned(), until));
        if let Some((said, until)) = refused {
            if until > now {
                return Err(CallError::Refused { said, until });
            }
            if !self.turn(move |kept, me| Turn::take(kept, me, now)).await? {
                return Err(CallError::Refused { said, until: self.books().access.wait(now) });
            }
        }
        let taken = self.budget(region, now, move |budget| budget.take(purpose, now)).await?;
        taken.map_err(|until| CallError::Budget { region: region.to_owned(), until })?;
        self.books().access.began(now);
        Ok(())
    }

    fn measure(&self, books: &Books) {
        if let Some(left) = books.budgets.values().filter_map(Budget::left).min() {
            self.metrics.api_budget.set(i64::try_from(left).unwrap_or(i64::MAX));
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets `change` make of what is kept under `name` what is kept from now on. Returns what it says, once that is durable.
async fn share<T: Send + 'static>(
    store: &dyn Store,
    name: &str,
    change: impl FnOnce(Option<&str>) -> (String, T) + Send + 'static,
) -> Result<T, CallError> {
    let (tell, told) = oneshot::channel();
    let change = Box::new(move |kept: Option<&str>| {
        let (text, result) = change(kept);
        drop(tell.send(result));
        text
    });
    store.share(name, change).await.map_err(|error| CallError::Unpaid(error.to_string()))?;
    told.await.map_err(|_| CallError::Unpaid("nobody answered".to_owned()))
}

fn verdict<T>(result: &Result<T, SourceError>) -> Verdict {
    match result.as_ref().map_err(|error| &error.kind) {
        Err(SourceErrorKind::Throttled { after, .. }) => Verdict::Throttled { after: *after },
        Err(SourceErrorKind::QuotaGone { .. }) => Verdict::QuotaGone,
        _ => Verdict::Answered,
    }
}

/// Whoever answers so has checked the credentials and found them good. What else may go wrong shows nothing of them.
fn proves_access<T>(result: &Result<T, CallError>) -> bool {
    match result {
        Ok(_) => true,
        Err(CallError::Source(error)) => {
            matches!(error.kind, SourceErrorKind::Permission { .. } | SourceErrorKind::NoSuchRun)
        }
        Err(_) => false,
    }
}
