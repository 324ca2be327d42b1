//! Slack: slash commands and buttons, by HTTPS ([`hook`]) or over Socket Mode ([`link`]); both, where both are
//! configured. Messages to rooms go by `channels/slack`.

mod answers;
mod asked;
mod blocks;
mod groups;
mod hook;
mod link;
pub mod manifest;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::answers::Desk;
use self::groups::Groups;
use self::signature::Verifier;
use super::{Inbox, Once, Surface};
use crate::metrics::{Metrics, OfSurface};
use crate::model::{Clock, CommandInfo, Dialect};
use crate::net::Net;
use crate::settings::{Problem, Secret};

pub const NAME: &str = "slack";

/// `[slack]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Takes commands by HTTPS, at `/slack/commands` and `/slack/interactions`: the app's signing secret.
    pub signing_secret: Option<Secret>,
    /// Takes commands over Socket Mode, which needs no public address: the app-level token (`xapp-…`).
    pub app_token: Option<Secret>,
    /// Posts what a /watch asked for, and serves channels of the kind `slack`: the bot's token (`xoxb-…`).
    pub bot_token: Option<Secret>,
    /// Base URL, for tests and proxies.
    #[serde(default = "default_api")]
    pub api: String,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

fn default_api() -> String {
    "https://slack.com/api".to_owned()
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        problems.extend(crate::settings::check_base_url(&self.api).map(|message| Problem::new("api", message)));
        if self.signing_secret.is_none() && self.app_token.is_none() && self.bot_token.is_none() {
            let message = "does nothing: give it signing_secret (commands by HTTPS) or app_token (commands over Socket \
                           Mode), and bot_token (messages)";
            problems.push(Problem::new("", message));
        }
        for (key, token, other) in [("app_token", &self.app_token, "xoxb-"), ("bot_token", &self.bot_token, "xapp-")] {
            let read = token.as_ref().and_then(|token| token.read().ok());
            if read.is_some_and(|token| token.expose_secret().starts_with(other)) {
                problems.push(Problem::new(key, "holds the other token; app_token is xapp-…, bot_token is xoxb-…"));
            }
        }
        problems
    }
}

/// How long things may take. The defaults are meant for Slack itself; tests shrink them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From the arrival of a command to the answer that goes back at once; later ones go by its `response_url`. Slack
    /// waits 3 s: <https://docs.slack.dev/interactivity/implementing-slash-commands#responding_to_commands>
    pub direct: Duration,
    /// A command may take so long; a `response_url` lives for 30 min.
    pub late: Duration,
    /// From the stop to the end of `run`, at most.
    pub grace: Duration,
    /// For opening a connection.
    pub connect: Duration,
    /// Not even a ping for so long: the connection is built anew. Slack pings several times a minute.
    pub silence: Duration,
    /// The first pause before connecting again; doubles with each failure up to the last.
    pub pause_first: Duration,
    pub pause_last: Duration,
    /// A connection that lasted so long makes up for all failures before it.
    pub settled: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing {
            direct: Duration::from_millis(2500),
            late: seconds(25 * 60),
            grace: seconds(5),
            connect: seconds(30),
            silence: seconds(120),
            pause_first: seconds(1),
            pause_last: seconds(300),
            settled: seconds(60),
        }
    }
}

/// Whether rights are given to user groups.
pub type NamesGroups = Box<dyn Fn() -> bool + Send + Sync>;

/// What Slack's commands need of the rest.
pub struct Means {
    pub inbox: Inbox,
    pub commands: &'static [CommandInfo],
    /// How text is written there.
    pub dialect: Dialect,
    pub once: Once,
    pub net: Net,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub names_groups: NamesGroups,
}

/// The app as a way in.
pub struct Slack {
    desk: Arc<Desk>,
    verifier: Option<Verifier>,
    app_token: Option<SecretString>,
    timing: Timing,
    metrics: Arc<Metrics>,
}

impl Slack {
    /// Reads the secrets; the problem's key is relative to `[slack]`.
    pub fn new(settings: &Settings, means: Means) -> Result<Slack, Problem> {
        let read = |key: &str, secret: &Option<Secret>| {
            let read = secret.as_ref().map(Secret::read).transpose();
            read.map_err(|error| Problem::new(key, error.to_string()))
        };
        let api: Url = settings.api.parse().map_err(|_| Problem::new("api", "is not a URL"))?;
        let verifier = read("signing_secret", &settings.signing_secret)?.and_then(|secret| Verifier::new(&secret));
        let metrics = Arc::clone(&means.metrics);
        let timing = Timing::default();
        let groups = read("bot_token", &settings.bot_token)?.map(|token| Groups::new(&api, token, means.net.clone()));
        Ok(Slack {
            desk: Arc::new(Desk::new(means, api, groups, timing)),
            verifier,
            app_token: read("app_token", &settings.app_token)?,
            timing,
            metrics,
        })
    }

    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Slack {
        if let Some(desk) = Arc::get_mut(&mut self.desk) {
            desk.timing = timing;
        }
        self.timing = timing;
        self
    }

    /// Takes requests by HTTPS.
    pub fn is_hook(&self) -> bool {
        self.verifier.is_some()
    }

    /// Connects by itself.
    pub fn is_linked(&self) -> bool {
        self.app_token.is_some()
    }

    fn connected(&self, connected: bool) {
        self.metrics.connected.get_or_create(&OfSurface { surface: NAME }).set(i64::from(connected));
    }
}

#[async_trait]
impl Surface for Slack {
    /// Commands go through the inbox it was made with, as those by HTTPS do.
    async fn run(&self, _: Inbox, _: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String> {
        let Some(token) = &self.app_token else {
            stop.cancelled().await;
            return Ok(());
        };
        self.connected(false);
        let result = self.serve(token, &stop).await;
        self.connected(false);
        self.desk.tasks.close();
        // Answers that are not done in time are left behind.
        let _ = timeout(self.timing.grace, self.desk.tasks.wait()).await;
        self.desk.tasks.reopen();
        result
    }
}

/// The answer as JSON, read up to so many bytes; null where it is none.
async fn read(mut response: reqwest::Response, limit: usize) -> Value {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > limit {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(settings: &Value) -> Vec<String> {
        let settings: Settings = serde_json::from_value(settings.clone()).unwrap();
        settings.check().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn what_is_missing_or_mixed_up_is_said() {
        for fine in [
            json!({ "signing_secret": "s" }),
            json!({ "app_token": "xapp-1", "bot_token": "xoxb-1" }),
            json!({ "bot_token": "xoxb-1" }),
            json!({ "signing_secret": "s", "app_token": "xapp-1" }),
        ] {
            assert_eq!(problems(&fine), [] as [&str; 0], "{fine}");
        }
        assert_eq!(problems(&json!({})), [""]);
        assert_eq!(problems(&json!({ "app_token": "xoxb-1", "bot_token": "xapp-1" })), ["app_token", "bot_token"]);
        assert_eq!(problems(&json!({ "bot_token": "x", "api": "wss://x" })), ["api"]);
    }
}
