//! tick(now): claims due deliveries, renders each, sends it through its channel, settles what happened.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::channels::Channel;
use crate::delivery::{self, Pacer, Verdict};
use crate::metrics::{AttemptLabels, Metrics, OfChannelKind};
use crate::model::{Clock, Delivery, Destination, Message, Outcome, Pace, Timestamp, elapsed};
use crate::render::{Reader, Renderer};
use crate::store::{Next, Settlement, Store, StoreError};

/// Deliveries under way at most; one for each destination.
const CONCURRENCY: usize = 64;
/// No destination is closed for longer: a day and a little.
const LONGEST_CLOSURE: Duration = Duration::from_secs(25 * 3600);
/// Between two tries to write to a store that fails.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A way out with what its messages are written in.
#[derive(Clone)]
pub struct Outlet {
    pub channel: Arc<dyn Channel>,
    pub locale: String,
    pub timezone: String,
}

/// Every way out: configured channels by name, rooms by their surface.
#[derive(Clone, Default)]
pub struct Outlets {
    pub channels: HashMap<String, Outlet>,
    pub rooms: HashMap<String, Outlet>,
}

impl Outlets {
    /// The outlet of a destination and the address on it.
    pub fn find<'a>(&'a self, to: &'a Destination) -> Option<(&'a Outlet, &'a str)> {
        match to {
            Destination::Channel(name) => Some((self.channels.get(name)?, "")),
            Destination::Room { surface, room } => Some((self.rooms.get(surface)?, room)),
        }
    }

    /// The kind of each.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.channels.values().chain(self.rooms.values()).map(|outlet| outlet.channel.dialect().kind)
    }

    /// The metric label of a destination.
    pub fn kind(&self, to: &Destination) -> &'static str {
        self.find(to).map_or("none", |(outlet, _)| outlet.channel.dialect().kind)
    }
}

pub struct Dispatcher {
    store: Arc<dyn Store>,
    renderer: Arc<Renderer>,
    outlets: Outlets,
    metrics: Arc<Metrics>,
    clock: Clock,
    places: DashMap<Destination, Place>,
    tasks: TaskTracker,
    /// A destination is free again.
    freed: Notify,
    store_failed: Mutex<bool>,
}

/// What is known of a destination between its messages.
#[derive(Debug, Default)]
struct Place {
    busy: bool,
    pacer: Pacer,
    /// Failed attempts in a row.
    failures: u32,
    /// Nothing leaves before this moment, because the last attempt failed or the platform asked for it.
    closed_until: Option<Timestamp>,
    /// Nothing leaves until a person acts.
    dead: bool,
}

impl Dispatcher {
    pub fn new(
        store: Arc<dyn Store>,
        renderer: Arc<Renderer>,
        outlets: Outlets,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Dispatcher {
        Dispatcher {
            store,
            renderer,
            outlets,
            metrics,
            clock,
            places: DashMap::new(),
            tasks: TaskTracker::new(),
            freed: Notify::new(),
            store_failed: Mutex::new(false),
        }
    }

    /// Begins every delivery that is due and whose destination is free. Returns when there may be more to do.
    pub async fn tick(self: &Arc<Self>, now: Timestamp) -> Option<Timestamp> {
        let result = self.begin(now).await;
        self.note_store(&result);
        result.unwrap_or_else(|_| Some(now + STORE_RETRY))
    }

    async fn begin(self: &Arc<Self>, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let (closed, _) = self.closed(now);
        let free = CONCURRENCY.saturating_sub(self.busy());
        if free > 0 {
            for delivery in self.store.claim(now, free, &closed).await? {
                self.places.entry(delivery.to.clone()).or_default().busy = true;
                let dispatcher = Arc::clone(self);
                self.tasks.spawn(async move { dispatcher.deliver(delivery).await });
            }
        }
        if self.busy() >= CONCURRENCY {
            return Ok(None);
        }
        let (closed, reopens) = self.closed(now);
        let due = self.store.next_due(&closed).await?;
        Ok([due, reopens].into_iter().flatten().min())
    }

    fn busy(&self) -> usize {
        self.places.iter().filter(|place| place.busy).count()
    }

    /// Resolves when a delivery has ended since the last call: its destination may take the next one.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Resolves when nothing is under way.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// A person acted: destinations that failed or were given up are tried again.
    pub fn revive(&self) {
        for mut place in self.places.iter_mut() {
            place.dead = false;
            place.failures = 0;
            place.closed_until = None;
        }
        self.measure_dead();
        self.freed.notify_one();
    }

    /// Destinations that take nothing now, and when the first of them that waits for time takes something again.
    fn closed(&self, now: Timestamp) -> (Vec<Destination>, Option<Timestamp>) {
        let mut closed = Vec::new();
        let mut reopens: Option<Timestamp> = None;
        for entry in &self.places {
            let place = entry.value();
            let paced = self.pace(entry.key()).map_or(Timestamp::MIN, |pace| place.pacer.ready_at(pace));
            let open_at = paced.max(place.closed_until.unwrap_or(Timestamp::MIN));
            // A moment further away than any wait was set by a clock that was ahead.
            let waits = open_at > now && elapsed(now, open_at) < LONGEST_CLOSURE;
            if place.busy || place.dead || waits {
                closed.push(entry.key().clone());
            }
            if waits && !place.busy && !place.dead {
                reopens = Some(reopens.map_or(open_at, |earliest| earliest.min(open_at)));
            }
        }
        (closed, reopens)
    }

    fn pace(&self, to: &Destination) -> Option<Pace> {
        self.outlets.find(to).and_then(|(outlet, _)| outlet.channel.pace())
    }

    async fn deliver(&self, delivery: Delivery) {
        let started_at = (self.clock)();
        // A fault of ours must not leave the destination busy for ever.
        let attempt = AssertUnwindSafe(self.attempt(&delivery, started_at)).catch_unwind().await;
        let outcome = attempt.unwrap_or_else(|_| Outcome::Unknown {
            after: None,
            reason: "a fault of callboard's own broke off the attempt; the log holds its message".to_owned(),
        });
        let ended_at = (self.clock)();
        let verdict = delivery::follow_up(&outcome, delivery.attempt, ended_at, fastrand::f64());
        self.count(&delivery, &outcome, ended_at);
        log(&delivery, &outcome, &verdict);
        self.settle(&settlement(&delivery, &outcome, &verdict, started_at, ended_at)).await;
        self.free(&delivery.to, &outcome, &verdict, ended_at);
    }

    async fn attempt(&self, delivery: &Delivery, now: Timestamp) -> Outcome {
        match self.outlets.find(&delivery.to) {
            Some((outlet, address)) => {
                // Nothing has left yet when our own wording breaks.
                let written = std::panic::catch_unwind(AssertUnwindSafe(|| self.message(delivery, outlet, now)));
                let Ok(message) = written else {
                    let reason = "a fault of callboard's own broke off the wording; the log holds its message";
                    return Outcome::Reject { reason: reason.to_owned() };
                };
                outlet.channel.send(address, &message, now).await
            }
            None => Outcome::Dead { reason: format!("{} is not in the configuration any more", delivery.to) },
        }
    }

    /// What happened must not be forgotten: while the store fails, the destination waits.
    async fn settle(&self, settlement: &Settlement) {
        while let Err(error) = self.store.settle(settlement).await {
            tracing::debug!(id = %settlement.id, %error, "what happened can't be recorded yet");
            if error == StoreError::Broken {
                return;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    fn message(&self, delivery: &Delivery, outlet: &Outlet, now: Timestamp) -> Message {
        let reader = Reader {
            kind: outlet.channel.dialect().kind,
            locale: &outlet.locale,
            timezone: &outlet.timezone,
            template: delivery.template.as_deref(),
        };
        let rendered = self.renderer.render(delivery.id, &delivery.change, &reader, now);
        if rendered.fell_back {
            self.metrics.render_fallbacks.inc();
        }
        rendered.message
    }

    fn free(&self, to: &Destination, outcome: &Outcome, verdict: &Verdict, now: Timestamp) {
        let pace = self.pace(to);
        let mut place = self.places.entry(to.clone()).or_default();
        place.busy = false;
        if let Some(pace) = pace {
            place.pacer.sent(pace, now);
        }
        place.failures = match outcome {
            Outcome::Retry { .. } | Outcome::Unknown { .. } => place.failures.saturating_add(1),
            _ => 0,
        };
        place.closed_until = delivery::closed_until(outcome, place.failures, now, fastrand::f64());
        place.dead = *verdict == Verdict::DeadDestination;
        drop(place);
        self.measure_dead();
        self.freed.notify_one();
    }

    fn count(&self, delivery: &Delivery, outcome: &Outcome, now: Timestamp) {
        let channel_kind = self.outlets.find(&delivery.to).map_or("none", |(outlet, _)| outlet.channel.dialect().kind);
        let labels = AttemptLabels { channel_kind, outcome: outcome.label() };
        self.metrics.attempts.get_or_create(&labels).inc();
        if matches!(outcome, Outcome::Delivered { .. }) {
            let latency = now.duration_since(delivery.change.at).as_secs_f64().max(0.0);
            self.metrics.latency.get_or_create(&OfChannelKind { channel_kind }).observe(latency);
        }
    }

    fn measure_dead(&self) {
        let dead = self.places.iter().filter(|place| place.dead).count();
        self.metrics.dead_destinations.set(i64::try_from(dead).unwrap_or(i64::MAX));
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

fn settlement(
    delivery: &Delivery,
    outcome: &Outcome,
    verdict: &Verdict,
    started_at: Timestamp,
    ended_at: Timestamp,
) -> Settlement {
    let (reason, message_id) = match outcome {
        Outcome::Delivered { message_id } => (String::new(), message_id.clone()),
        Outcome::Retry { reason, .. }
        | Outcome::Unknown { reason, .. }
        | Outcome::Reject { reason }
        | Outcome::Dead { reason } => (reason.clone(), None),
    };
    let next = match verdict {
        Verdict::Delivered => Next::Delivered,
        Verdict::Again { at, unknown: false } => Next::Pending { at: *at },
        Verdict::Again { at, unknown: true } => Next::Unknown { at: *at },
        Verdict::Dead | Verdict::DeadDestination => Next::Dead,
    };
    let attempt = delivery.attempt;
    Settlement { id: delivery.id, attempt, started_at, ended_at, outcome: outcome.label(), reason, message_id, next }
}

/// A failure is logged once, here, with what follows from it.
fn log(delivery: &Delivery, outcome: &Outcome, verdict: &Verdict) {
    let (to, id, attempt) = (&delivery.to, delivery.id, delivery.attempt);
    let change = delivery.change.kind.name();
    let run = delivery.change.run.id.short();
    match (outcome, verdict) {
        (Outcome::Delivered { .. }, _) => tracing::info!(%to, run, change, attempt, %id, "delivered"),
        (Outcome::Retry { reason, .. } | Outcome::Unknown { reason, .. }, Verdict::Again { at, .. }) => {
            tracing::warn!(%to, run, change, attempt, %id, reason, again_at = %at, "not delivered yet");
        }
        (Outcome::Dead { reason }, _) => {
            tracing::error!(
                %to, run, change, attempt, %id, reason,
                "the destination refuses for good; nothing more is sent to it. \
                 Mend it, then `callboard deliveries retry dead` brings back what is dead"
            );
        }
        (Outcome::Retry { reason, .. } | Outcome::Unknown { reason, .. } | Outcome::Reject { reason }, _) => {
            tracing::error!(%to, run, change, attempt, %id, reason, "given up; `callboard deliveries show` tells more");
        }
    }
}
