//! Every metric with its help text. One registry per process object, so that tests have their own.
//!
//! Labels are bounded: names of workspaces and channel kinds, outcomes; never a run id, a room or a URL.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Seconds = Gauge<f64, AtomicU64>;

pub struct Metrics {
    registry: Registry,
    /// Calls to a source's API.
    pub api_calls: Family<ApiCall, Counter>,
    /// Calls that could be made at once.
    pub api_budget: Gauge,
    /// Seconds since the last good poll.
    pub poll_lag: Family<OfWorkspace, Seconds>,
    pub changes: Family<OfKind, Counter>,
    pub attempts: Family<AttemptLabels, Counter>,
    /// Seconds from the poll that saw a change to its delivery.
    pub latency: Family<OfChannelKind, Histogram, fn() -> Histogram>,
    pub owed: Counter,
    pub deliveries: Family<OfState, Gauge>,
    pub open: Gauge,
    pub oldest_open: Seconds,
    pub subscriptions: Gauge,
    /// Destinations to which nothing is sent until a person acts.
    pub dead_destinations: Gauge,
    /// Destinations whose last attempts failed and that are tried again.
    pub failing_destinations: Gauge,
    /// 1 while the chat's gateway is connected.
    pub connected: Family<OfSurface, Gauge>,
    pub commands: Family<CommandLabels, Counter>,
    pub render_fallbacks: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiCall {
    /// ListPipelineRuns, GetPipelineRun, ListPipelineRunItems.
    pub action: &'static str,
    /// `ok` or [`crate::sources::SourceErrorKind::label`].
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfWorkspace {
    pub workspace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    pub channel_kind: &'static str,
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfChannelKind {
    pub channel_kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfState {
    /// `delivered`, `folded`, `suppressed`, `dead`, `open`.
    pub state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfSurface {
    pub surface: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommandLabels {
    pub command: &'static str,
    /// `ok`, `refused` (the asker's mistake), `denied` (they may not) or `failed` (ours).
    pub outcome: &'static str,
}

fn latency_histogram() -> Histogram {
    Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 21600.0])
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("callboard"),
            api_calls: Family::default(),
            api_budget: Gauge::default(),
            poll_lag: Family::default(),
            changes: Family::default(),
            attempts: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            owed: Counter::default(),
            deliveries: Family::default(),
            open: Gauge::default(),
            oldest_open: Gauge::default(),
            subscriptions: Gauge::default(),
            dead_destinations: Gauge::default(),
            failing_destinations: Gauge::default(),
            connected: Family::default(),
            commands: Family::default(),
            render_fallbacks: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("api_calls", "Calls to the pipeline API by action and outcome", self.api_calls.clone());
        r.register(
            "api_budget_calls_left",
            "Calls that could be made at once, of the region that has least",
            self.api_budget.clone(),
        );
        r.register("poll_lag_seconds", "Seconds since the last good poll of a workspace", self.poll_lag.clone());
        r.register("changes", "Changes recorded by kind", self.changes.clone());
        r.register("delivery_attempts", "Delivery attempts by channel kind and outcome", self.attempts.clone());
        r.register(
            "delivery_latency_seconds",
            "Seconds from the poll that saw a change to its delivery",
            self.latency.clone(),
        );
        r.register(
            "deliveries_owed",
            "Everything ever owed: a change for each subscription that asked for it, a notice for each destination",
            self.owed.clone(),
        );
        r.register(
            "deliveries",
            "What became of everything ever owed: delivered, dead, open (pending, in_flight or unknown), folded or \
             suppressed (superseded, by a message or by a person); together they are callboard_deliveries_owed_total",
            self.deliveries.clone(),
        );
        r.register("deliveries_open", "Deliveries that are pending, in_flight or unknown", self.open.clone());
        r.register(
            "oldest_open_delivery_seconds",
            "Age of the oldest delivery that is pending, in_flight or unknown",
            self.oldest_open.clone(),
        );
        r.register("subscriptions", "Subscriptions in the store", self.subscriptions.clone());
        r.register(
            "dead_destinations",
            "Destinations to which nothing is sent until a person acts",
            self.dead_destinations.clone(),
        );
        r.register(
            "failing_destinations",
            "Destinations whose last attempt failed and that are tried again by themselves",
            self.failing_destinations.clone(),
        );
        r.register("gateway_connected", "1 while the chat's gateway is connected", self.connected.clone());
        r.register("commands", "Chat commands by name and outcome", self.commands.clone());
        r.register(
            "render_fallbacks",
            "Messages sent as plain text because their template failed",
            self.render_fallbacks.clone(),
        );
    }

    /// Shows the attempts of a channel kind before the first one: an alert needs a series to look at.
    pub fn begin_at_zero(&self, channel_kind: &'static str, outcomes: &[&'static str]) {
        for &outcome in outcomes {
            drop(self.attempts.get_or_create(&AttemptLabels { channel_kind, outcome }));
        }
    }

    /// Shows the store's ledger. What it owes is set, not added: it counts over restarts.
    pub fn balance(&self, owed: u64, states: &[(&'static str, u64)]) {
        self.owed.inner().store(owed, Ordering::Relaxed);
        for &(state, count) in states {
            self.deliveries.get_or_create(&OfState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}
