//! tick(now): claims what is due, renders each message, sends it through its channel, settles what happened.

mod rules;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use self::rules::{Outlet, Outlets, Rules};
use crate::access::Access;
use crate::audit::Audit;
use crate::delivery::{self, Verdict};
use crate::metrics::{AttemptLabels, Metrics, OfChannelKind};
use crate::model::{Claimed, Clock, Decision, Delivery, Destination, Draft, Entry, News, Outcome, Timestamp};
use crate::planted::{Bug, is_planted};
use crate::render::{Reader, Rendered};
use crate::store::{Next, Policy, Room, Settlement, Store, StoreError};
use crate::tracker::Tracker;

/// Messages under way at most; one for each destination.
const CONCURRENCY: usize = 64;
/// Of these, to destinations whose last attempt failed: those that hang hold up no others.
const PROBES: usize = 16;
/// Between two tries to write to a store that fails.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// What was claimed longer ago is not sent: others may have taken this process for dead meanwhile.
const FRESH: Duration = Duration::from_secs(3);

/// `[notices]`
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Channels that hear of every trouble of Callboard's own.
    #[serde(default)]
    pub channels: Vec<String>,
}

/// Puts a draft into words.
pub type Wording = Box<dyn Fn(&Draft, &Reader<'_>, Timestamp) -> Rendered + Send + Sync>;

pub struct Dispatcher {
    store: Arc<dyn Store>,
    wording: Wording,
    outlets: Arc<Outlets>,
    rules: Arc<Rules>,
    policy: Arc<dyn Policy>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: TaskTracker,
    /// By the id of the delivery that leads each: whether it is a probe.
    under_way: Mutex<HashMap<(Uuid, u32), bool>>,
    /// The last claim seemed to fail; what it claimed all the same must be given back.
    unheard: AtomicBool,
    /// A destination is free again.
    freed: Notify,
    store_failed: Mutex<bool>,
    /// Bots whose credentials were refused last: said once.
    denied: Mutex<HashSet<String>>,
    /// Who may hear of what. None: everybody.
    rights: Option<(Arc<Access>, Arc<Audit>)>,
    /// A message has ended.
    ended: Notify,
}

impl Dispatcher {
    pub fn new(
        store: Arc<dyn Store>,
        wording: Wording,
        outlets: Outlets,
        tracker: Arc<Tracker>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Dispatcher {
        let outlets = Arc::new(outlets);
        let rules = Arc::new(Rules::new(Arc::clone(&outlets), tracker, clock()));
        Dispatcher {
            store,
            wording,
            outlets,
            policy: Arc::clone(&rules) as Arc<dyn Policy>,
            rules,
            metrics,
            clock,
            tasks: TaskTracker::new(),
            under_way: Mutex::default(),
            unheard: AtomicBool::new(false),
            freed: Notify::new(),
            store_failed: Mutex::new(false),
            denied: Mutex::default(),
            rights: None,
            ended: Notify::new(),
        }
    }

    /// What a room may not know of any more is withheld, and written down.
    #[must_use]
    pub fn minding(mut self, access: Arc<Access>, audit: Arc<Audit>) -> Dispatcher {
        self.rights = Some((access, audit));
        self
    }

    /// Begins every message that may leave. Returns when there may be more to do.
    pub async fn tick(self: &Arc<Self>, now: Timestamp) -> Option<Timestamp> {
        self.rules.pass(now);
        let result = self.begin(now).await;
        self.note_store(&result);
        result.unwrap_or_else(|_| Some(now + STORE_RETRY))
    }

    async fn begin(self: &Arc<Self>, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        if self.unheard.load(Ordering::Acquire) {
            let under_way: Vec<(Uuid, u32)> = self.under_way().keys().copied().collect();
            self.store.release(&under_way).await?;
            self.unheard.store(false, Ordering::Release);
        }
        let room = self.room();
        if room.messages == 0 {
            return Ok(None);
        }
        let claims = self.store.claim(now, room, &self.policy).await;
        self.unheard.store(claims.is_err(), Ordering::Release);
        let (claims, heard) = (claims?, Instant::now());
        for claimed in claims.claimed {
            self.under_way().insert((claimed.lead.id, claimed.lead.attempt), claimed.probe);
            let dispatcher = Arc::clone(self);
            self.tasks.spawn(async move { dispatcher.deliver(claimed, heard).await });
        }
        Ok(claims.next_at)
    }

    fn room(&self) -> Room {
        let under_way = self.under_way();
        let probes = under_way.values().filter(|is_probe| **is_probe).count();
        Room { messages: CONCURRENCY.saturating_sub(under_way.len()), probes: PROBES.saturating_sub(probes) }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<(Uuid, u32), bool>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when a message has ended since the last call: its destination may take the next one.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Resolves when nothing is under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Resolves when all that is under way now has ended, whatever begins meanwhile.
    pub async fn passed(&self) {
        let before: Vec<(Uuid, u32)> = self.under_way().keys().copied().collect();
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if !before.iter().any(|message| self.under_way().contains_key(message)) {
                return;
            }
            ended.await;
        }
    }

    /// Somebody else wrote to the store: look again.
    pub fn wake(&self) {
        self.freed.notify_one();
    }

    /// `heard`: when the claim was.
    async fn deliver(&self, claimed: Claimed, heard: Instant) {
        let started_at = (self.clock)();
        // A fault of ours must not leave the destination busy for ever.
        let attempt = if heard.elapsed() > FRESH {
            Ok(Outcome::Retry { after: None, reason: "this process stood still before it could send".to_owned() })
        } else if let Some(outcome) = self.withheld(&claimed, started_at).await {
            Ok(outcome)
        } else {
            AssertUnwindSafe(self.attempt(&claimed, started_at)).catch_unwind().await
        };
        let outcome = attempt.unwrap_or_else(|_| Outcome::Unknown {
            after: None,
            reason: "a fault of callboard's own broke off the attempt; the log holds its message".to_owned(),
        });
        let ended_at = (self.clock)();
        let chance = fastrand::f64();
        let verdict = delivery::follow_up(&outcome, claimed.lead.tries + 1, ended_at, chance);
        self.count(&claimed, &outcome, ended_at);
        self.note_access(&claimed.lead.to, &outcome);
        self.log(&claimed, &outcome, &verdict);
        let (id, attempt) = (claimed.lead.id, claimed.lead.attempt);
        let next = next(verdict);
        self.settle(&Settlement { id, attempt, started_at, ended_at, chance, outcome, next }).await;
        self.under_way().remove(&(id, attempt));
        self.ended.notify_waiters();
        self.freed.notify_one();
    }

    /// What of it the room may not know of any more, written down before that ends it. A message of several falls apart,
    /// so that the others go.
    async fn withheld(&self, claimed: &Claimed, now: Timestamp) -> Option<Outcome> {
        let (access, audit) = self.rights.as_ref()?;
        let to = &claimed.lead.to;
        let told = std::iter::once(&claimed.lead).chain(&claimed.folded);
        let change =
            told.filter_map(|told| told.news.change()).find(|one| !access.may_hear(to, &one.workspace.name))?;
        if !claimed.folded.is_empty() {
            let reason = "it held something that this room may not know of any more".to_owned();
            return Some(Outcome::Withheld { reason });
        }
        let entry = Entry {
            at: now,
            person: "callboard".to_owned(),
            room: to.to_string(),
            action: format!("send {} in {}", change.run.id.short(), change.workspace.name),
            decision: Decision::Withheld,
            reason: "workspace".to_owned(),
            count: 1,
        };
        while let Err(error) = audit.record(entry.clone()).await {
            tracing::debug!(%to, %error, "what is withheld can't be written down yet");
            if error == StoreError::Broken {
                break;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
        Some(Outcome::Withheld { reason: format!("this room may not know of {} any more", change.workspace.name) })
    }

    async fn attempt(&self, claimed: &Claimed, now: Timestamp) -> Outcome {
        let to = &claimed.lead.to;
        let Some((outlet, address)) = self.outlets.find(to) else {
            return Outcome::Dead { reason: format!("{to} is not in the configuration any more") };
        };
        // Nothing has left yet when our own wording breaks.
        let written = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let reader = Reader {
                kind: outlet.channel.dialect().kind,
                locale: &outlet.locale,
                timezone: &outlet.timezone,
                template: claimed.lead.template.as_deref(),
            };
            (self.wording)(&self.rules.draft(claimed, now), &reader, now)
        }));
        let Ok(Rendered { mut message, fell_back }) = written else {
            let reason = "a fault of callboard's own broke off the wording; the log holds its message";
            return Outcome::Reject { reason: reason.to_owned() };
        };
        if fell_back {
            self.metrics.render_fallbacks.inc();
        }
        // What the configuration subscribed to, nobody can stop from a chat.
        if matches!(to, Destination::Channel(_)) {
            message.buttons.clear();
        }
        if is_planted(Bug::RetryWithinAttempt) {
            drop(outlet.channel.send(address, &message, now).await);
        }
        outlet.channel.send(address, &message, now).await
    }

    /// What happened must not be forgotten: while the store fails, the destination waits.
    async fn settle(&self, settlement: &Settlement) {
        while let Err(error) = self.store.settle(settlement, &self.policy).await {
            tracing::debug!(id = %settlement.id, %error, "what happened can't be recorded yet");
            if error == StoreError::Broken || is_planted(Bug::SettleOnce) {
                return;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    fn count(&self, claimed: &Claimed, outcome: &Outcome, now: Timestamp) {
        let channel_kind = self.outlets.kind(&claimed.lead.to);
        let labels = AttemptLabels { channel_kind, outcome: outcome.label() };
        self.metrics.attempts.get_or_create(&labels).inc();
        if matches!(outcome, Outcome::Delivered { .. }) {
            let latency = self.metrics.latency.get_or_create(&OfChannelKind { channel_kind });
            for told in std::iter::once(&claimed.lead).chain(&claimed.folded) {
                latency.observe(now.duration_since(told.news.at()).as_secs_f64().max(0.0));
            }
        }
    }

    /// An outcome is logged once, here, with what follows from it.
    fn log(&self, claimed: &Claimed, outcome: &Outcome, verdict: &Verdict) {
        let Delivery { to, id, attempt, news, .. } = &claimed.lead;
        let more = claimed.folded.len();
        let (what, run, about) = match news {
            News::Change(change) => (change.kind.name(), Some(change.run.id.short()), None),
            News::Notice(notice) => (notice.kind.name(), None, Some(notice.kind.about())),
        };
        match (outcome, verdict) {
            (Outcome::Delivered { .. }, _) => {
                tracing::info!(%to, run, about, what, more, attempt, %id, "delivered");
            }
            (Outcome::Dead { reason }, _) => tracing::error!(
                %to, run, about, what, more, attempt, %id, reason,
                "the destination refuses for good; nothing more is sent to it. Mend it, then `callboard deliveries \
                 retry --to {to}` sends what waits"
            ),
            (Outcome::Denied { reason }, _) => tracing::debug!(%to, reason, "the bot's credentials are refused"),
            (Outcome::Withheld { reason }, _) => {
                tracing::warn!(%to, run, about, what, more, attempt, %id, reason, "withheld");
            }
            // When, is for the destination to say: `callboard deliveries list` knows.
            (Outcome::Limited { reason, .. }, _) => {
                tracing::warn!(%to, run, about, what, more, attempt, %id, reason, "not delivered yet; the destination waits");
            }
            (failed, Verdict::Again { at, .. }) => {
                let reason = failed.reason();
                tracing::warn!(%to, run, about, what, more, attempt, %id, reason, not_before = %at, "not delivered yet");
            }
            (failed, _) => {
                let reason = failed.reason();
                tracing::error!(
                    %to, run, about, what, more, attempt, %id, reason, "given up; `callboard deliveries show` tells more"
                );
            }
        }
    }

    /// Says once that a bot's credentials are refused, and once that they pass again.
    fn note_access(&self, to: &Destination, outcome: &Outcome) {
        let Destination::Room { surface, .. } = to else { return };
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Denied { reason } if denied.insert(surface.clone()) => tracing::error!(
                %to, reason, "the bot's credentials are refused; what is owed to its rooms waits, tried again by itself"
            ),
            Outcome::Delivered { .. } if denied.remove(surface) => {
                tracing::info!(%to, "the bot's credentials pass again");
            }
            _ => {}
        }
    }

    /// Says once that the store fails, and once that it works again.
    fn note_store<T>(&self, result: &Result<T, StoreError>) {
        let mut failed = self.store_failed.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) if !*failed => tracing::error!(%error, "deliveries wait for the store"),
            Ok(_) if *failed => tracing::info!("the store works again"),
            _ => {}
        }
        *failed = result.is_err();
    }
}

fn next(verdict: Verdict) -> Next {
    match verdict {
        Verdict::Delivered => Next::Delivered,
        Verdict::Again { at, unknown: false } => Next::Pending { at },
        Verdict::Again { at, unknown: true } => Next::Unknown { at },
        Verdict::Rejected => Next::Rejected,
        Verdict::GivenUp => Next::Dead,
    }
}
