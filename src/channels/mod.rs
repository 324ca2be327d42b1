//! Ways out: one file per channel kind, and the one list of them.
//!
//! A channel only sends and says what happened. Retry, order, pacing, metrics and logging stand around it, in the
//! dispatcher, once.

pub mod console;
pub mod dingtalk;
pub mod discord;
pub mod slack;
pub mod webhook;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::Problem;

use crate::model::{Dialect, Message, Outcome, Pace, Timestamp};

/// A configured way out.
#[async_trait]
pub trait Channel: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// One attempt, over within ten seconds. `address` is the room on channels that serve many, else empty.
    /// Nothing is retried here; `now` dates signatures.
    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome;

    /// How fast one destination may be used; `None`: as fast as it answers.
    fn pace(&self) -> Option<Pace> {
        None
    }

    /// Whether the destination answers, without posting anything; `Err` says what to do. For `check --online`.
    async fn probe(&self) -> Result<(), String>;
}

/// `[channels.NAME]`, by `kind`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Settings {
    DiscordWebhook(discord::Settings),
    SlackWebhook(slack::Settings),
    Dingtalk(dingtalk::Settings),
    Webhook(webhook::Settings),
    Console(console::Settings),
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        match self {
            Settings::DiscordWebhook(settings) => settings.check(),
            Settings::SlackWebhook(settings) => settings.check(),
            Settings::Dingtalk(settings) => settings.check(),
            Settings::Webhook(settings) => settings.check(),
            Settings::Console(settings) => settings.check(),
        }
    }
}
