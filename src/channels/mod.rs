//! Ways out: one file per channel kind, and the one list of them.
//!
//! A channel only sends and says what happened. Retry, order, pacing, metrics and logging stand around it, in the
//! dispatcher, once.

pub mod console;
pub mod dingtalk;
pub mod discord;
pub mod http;
mod sign;
pub mod slack;
mod text;
pub mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use crate::model::{Dialect, Message, Outcome, Prefer, RunId, Terms, Timestamp};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::{characters, clean, clean_line};

/// A configured way out.
#[async_trait]
pub trait Channel: Send + Sync {
    fn dialect(&self) -> Dialect;

    /// One attempt, over within ten seconds. `address` is the room on channels that serve many, else empty.
    /// Nothing is retried here; `now` dates signatures.
    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome;

    /// How fast one destination may be used, and what becomes of a message sent twice.
    fn terms(&self) -> Terms;

    /// Whether the destination answers, without posting anything; `Err` says what to do. For `check --online`.
    async fn probe(&self) -> Result<(), String>;
}

/// A bot that can look whether it may write in a room.
#[async_trait]
pub trait Door: Send + Sync {
    /// Asked when somebody wants messages there; `Err` is for that person.
    async fn admits(&self, address: &str) -> Result<(), String>;
}

/// How each kind writes: those of `[channels.NAME]`, and the rooms bots sit in.
pub const DIALECTS: [Dialect; 8] = [
    discord::BOT,
    discord::WEBHOOK,
    slack::BOT,
    slack::WEBHOOK,
    dingtalk::bot::DIALECT,
    dingtalk::ROBOT,
    webhook::DIALECT,
    console::DIALECT,
];

/// `[channels.NAME]`, by `kind`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Settings {
    DiscordWebhook(discord::Settings),
    Slack(slack::RoomSettings),
    SlackWebhook(slack::Settings),
    Dingtalk(dingtalk::Settings),
    Webhook(webhook::Settings),
    Console(console::Settings),
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        match self {
            Settings::DiscordWebhook(settings) => settings.check(),
            Settings::Slack(settings) => settings.check(),
            Settings::SlackWebhook(settings) => settings.check(),
            Settings::Dingtalk(settings) => settings.check(),
            Settings::Webhook(settings) => settings.check(),
            Settings::Console(settings) => settings.check(),
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Settings::DiscordWebhook(_) => discord::WEBHOOK,
            Settings::Slack(_) => slack::BOT,
            Settings::SlackWebhook(_) => slack::WEBHOOK,
            Settings::Dingtalk(_) => dingtalk::ROBOT,
            Settings::Webhook(_) => webhook::DIALECT,
            Settings::Console(_) => console::DIALECT,
        }
    }

    pub fn kind(&self) -> &'static str {
        self.dialect().kind
    }

    fn manner(&self) -> &Manner {
        match self {
            Settings::DiscordWebhook(settings) => &settings.manner,
            Settings::Slack(settings) => &settings.manner,
            Settings::SlackWebhook(settings) => &settings.manner,
            Settings::Dingtalk(settings) => &settings.manner,
            Settings::Webhook(settings) => &settings.manner,
            Settings::Console(settings) => &settings.manner,
        }
    }

    pub fn locale(&self) -> &str {
        &self.manner().locale
    }

    pub fn timezone(&self) -> &str {
        &self.manner().timezone
    }

    pub fn prefer(&self) -> Prefer {
        self.manner().prefer
    }

    /// The URL, and the secret where there is one; `None` where one can't be read.
    fn secrets(&self) -> Option<(SecretString, Option<SecretString>)> {
        let (url, secret) = match self {
            Settings::DiscordWebhook(settings) => (&settings.url, None),
            Settings::SlackWebhook(settings) => (&settings.url, None),
            Settings::Dingtalk(settings) => (&settings.url, settings.secret.as_ref()),
            Settings::Webhook(settings) => (&settings.url, settings.secret.as_ref()),
            Settings::Slack(_) | Settings::Console(_) => return None,
        };
        Some((url.read().ok()?, secret.map(Secret::read).transpose().ok()?))
    }
}

// The keys every kind has. No docstring: it would become the description of each kind in the schema.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct Manner {
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
    /// What is worth more when nobody knows whether a message arrived.
    #[serde(default)]
    pub prefer: Prefer,
}

impl Manner {
    fn check(&self) -> Vec<Problem> {
        crate::settings::check_locale_and_timezone(&self.locale, &self.timezone)
    }
}

/// By what a destination is recognised whose configuration may have changed since: 8 hexadecimal digits of the SHA-256
/// of its URL and secret, which lead back to neither. Empty for a kind that has none, and where they can't be read.
/// `slack` is the bot's access, for its rooms.
pub fn identity(settings: &Settings, slack: Option<&slack::Access>) -> String {
    if let (Settings::Slack(room), Some(access)) = (settings, slack) {
        return identity_of(&room.channel, &access.identity());
    }
    let Some((url, secret)) = settings.secrets() else { return String::new() };
    identity_of(url.expose_secret(), secret.as_ref().map_or("", |secret| secret.expose_secret()))
}

fn identity_of(url: &str, secret: &str) -> String {
    let digest = Sha256::new().chain_update(url).chain_update([0]).chain_update(secret).finalize();
    hex::encode(digest.get(..4).unwrap_or_default())
}

/// What stands under a message: the run, where it is about one.
fn foot(message: &Message) -> &str {
    message.content.run().map_or("callboard", RunId::as_str)
}

/// Reads the secrets and makes the channel; `slack` is the bot's access, for its rooms. Sends nothing; the problem's key
/// is relative to `[channels.NAME]`.
pub fn build(settings: &Settings, slack: Option<&slack::Access>, net: &Net) -> Result<Arc<dyn Channel>, Problem> {
    Ok(match settings {
        Settings::Slack(settings) => {
            let access = slack.ok_or_else(|| Problem::new("kind", NO_BOT))?;
            Arc::new(slack::Room::new(settings, slack::Bot::new(access.clone(), net.clone())))
        }
        Settings::DiscordWebhook(settings) => Arc::new(discord::Webhook::new(settings, net)?),
        Settings::SlackWebhook(settings) => Arc::new(slack::Webhook::new(settings, net)?),
        Settings::Dingtalk(settings) => Arc::new(dingtalk::Robot::new(settings, net)?),
        Settings::Webhook(settings) => Arc::new(webhook::Webhook::new(settings, net)?),
        Settings::Console(_) => Arc::new(console::Console::new(Box::new(anstream::stdout()))),
    })
}

/// What is wrong with a room of Slack's while there is no bot.
pub const NO_BOT: &str =
    "posts with the Slack bot, which has no token; add bot_token to [slack], or use kind = \"slack-webhook\"";

/// No markup at all: data only loses what acts unseen.
const PLAIN: Dialect = Dialect {
    kind: "",
    escape: clean,
    escape_title: clean_line,
    bold: str::to_owned,
    link: |label, url| match (label.is_empty(), url.is_empty()) {
        (true, _) => url.to_owned(),
        (_, true) => label.to_owned(),
        _ => format!("{label} ({url})"),
    },
    limit: usize::MAX,
    measure: characters,
};

fn read_secret(key: &str, secret: &Secret) -> Result<SecretString, Problem> {
    secret.read().map_err(|error| Problem::new(key, error.to_string()))
}

/// The URL of a channel, fit to be sent to as far as that shows without resolving its host.
fn read_url(secret: &Secret, net: &Net) -> Result<Url, Problem> {
    let url = parse_url(read_secret("url", secret)?.expose_secret())?;
    net.guard().check(&url).map_err(|refused| Problem::new("url", refused.to_string()))?;
    Ok(url)
}

fn parse_url(text: &str) -> Result<Url, Problem> {
    let url: Url = text.parse().map_err(|_| Problem::new("url", "is not a URL; it begins with https://"))?;
    match url.scheme() {
        "https" | "http" if url.has_host() => Ok(url),
        _ => Err(Problem::new("url", "is not a URL of the web; it begins with https://")),
    }
}

/// What is wrong with a URL that can be read now; one that can't is somebody else's to report. Only on the public
/// web does a URL have to look like the platform's: what is reached by http, by another port or by an address is a
/// proxy or a test, and whether it may be reached is for `network.allow_private`.
fn check_url(secret: &Secret, looks_right: fn(&Url) -> bool, example: &str) -> Option<Problem> {
    let url = match parse_url(secret.read().ok()?.expose_secret()) {
        Ok(url) => url,
        Err(problem) => return Some(problem),
    };
    let public = url.scheme() == "https" && url.port().is_none() && matches!(url.host(), Some(Host::Domain(_)));
    let wrong = public && !looks_right(&url);
    wrong.then(|| Problem::new("url", format!("does not look like this kind's URLs, for example {example}")))
}
