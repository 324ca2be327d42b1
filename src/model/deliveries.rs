//! Deliveries: one message owed to one destination, and how an attempt at it ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, Destination, Timestamp};

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

/// The life of a row.
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
