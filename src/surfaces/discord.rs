//! Discord: slash commands through its gateway, answered over HTTP. Messages to rooms go by `channels/discord`.

mod answers;
mod gateway;
mod localized;
mod markdown;
mod registration;
mod rest;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::answers::Desk;
use self::gateway::{End, Hear, Heard, Link};
use self::rest::{Call, Rest};
use super::{Inbox, Surface, backoff};
use crate::metrics::{Metrics, OfSurface};
use crate::model::{Clock, CommandInfo, Timestamp};
use crate::settings::{Problem, Secret};

pub const NAME: &str = "discord";

const BAD_TOKEN: &str = "Discord refused the bot's token. Put a valid one in discord.token: Developer Portal, your application, Bot, Reset Token";
const TOO_MANY_SERVERS: &str = "Discord ends every session of this bot before it begins and wants it split into shards (close code 4011), which Callboard does not do. Remove the bot behind discord.token from servers that do not need it, or give Callboard an application of its own";

/// Sessions in a row that Discord ended before they began, after which it is worth a word.
const SUSPICIOUS: u32 = 3;

/// `[discord]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The bot's token.
    pub token: Secret,
    /// Base URL, for tests and proxies.
    #[serde(default = "default_api")]
    pub api: String,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

fn default_api() -> String {
    "https://discord.com".to_owned()
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        problems.extend(crate::settings::check_base_url(&self.api).map(|message| Problem::new("api", message)));
        problems
    }
}

/// How long things may take. The defaults are meant for Discord itself; tests shrink them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A command may take so long before its answer is deferred.
    pub direct: Duration,
    /// Suggestions are looked for so long.
    pub suggest: Duration,
    /// The first response must arrive within this:
    /// <https://discord.com/developers/docs/interactions/receiving-and-responding#interaction-callback>
    pub first: Duration,
    /// A deferred command may take so long; under [`Timing::life`], so that its answer still gets through.
    pub late: Duration,
    /// An interaction can be answered for so long.
    pub life: Duration,
    /// From the stop to the end of `run`, at most.
    pub grace: Duration,
    /// For opening a connection to the gateway.
    pub connect: Duration,
    /// Neither an event nor an acknowledged heartbeat for so long: the connection is built anew. Twice Discord's
    /// heartbeat interval (41 s) must fit into its half.
    pub silence: Duration,
    /// Between two new sessions, at least: Discord allows one in 5 s, and 1000 a day.
    /// <https://discord.com/developers/docs/events/gateway#session-start-limit-object>
    pub identify: Duration,
    /// The first pause before connecting again; doubles with each failure up to the last.
    pub pause_first: Duration,
    pub pause_last: Duration,
    /// A session that lasted so long makes up for all failures before it.
    pub settled: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing {
            direct: Duration::from_millis(1500),
            suggest: seconds(2),
            first: seconds(3),
            late: seconds(14 * 60),
            life: seconds(15 * 60),
            grace: seconds(5),
            connect: seconds(30),
            silence: seconds(180),
            identify: seconds(5),
            pause_first: seconds(1),
            pause_last: seconds(300),
            settled: seconds(60),
        }
    }
}

/// The bot as a way in.
pub struct Discord {
    api: String,
    token: SecretString,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    timing: Timing,
    clock: Clock,
}

/// What `GET /gateway/bot` said.
struct Door {
    url: String,
    shards: u64,
    /// Sessions may be begun no sooner than after this.
    closed_for: Duration,
}

/// How an attempt to be connected ended.
enum Turn {
    Lost { reason: String, ready: bool, closed_for: Duration, shards: u64 },
    Stopped,
    Refused(String),
}

impl Discord {
    /// `client` follows no redirects and has the deadline of [`crate::net`]; `token` is `settings.token`, read.
    pub fn new(settings: &Settings, token: SecretString, client: reqwest::Client, metrics: Arc<Metrics>) -> Discord {
        Discord {
            api: settings.api.clone(),
            token,
            client,
            metrics,
            timing: Timing::default(),
            clock: Arc::new(Timestamp::now),
        }
    }

    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Discord {
        self.timing = timing;
        self
    }

    /// What tells when a command came; the machine's clock otherwise.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Discord {
        self.clock = clock;
        self
    }

    async fn serve(&self, desk: &Arc<Desk>, stop: &CancellationToken) -> Result<(), String> {
        let mut failures = 0;
        let mut unready = 0;
        loop {
            let began = Instant::now();
            let turn = self.connect(desk, stop).await;
            self.connected(false);
            let (reason, ready, closed_for, shards) = match turn {
                Turn::Stopped => return Ok(()),
                Turn::Refused(words) => return Err(words),
                Turn::Lost { reason, ready, closed_for, shards } => (reason, ready, closed_for, shards),
            };
            failures = if ready && began.elapsed() >= self.timing.settled { 1 } else { failures + 1 };
            unready = if ready { 0 } else { unready + 1 };
            if unready >= SUSPICIOUS && shards > 1 {
                return Err(TOO_MANY_SERVERS.to_owned());
            }
            let pace = self.timing.identify.saturating_sub(began.elapsed());
            let Timing { pause_first, pause_last, .. } = self.timing;
            let pause = backoff(failures, pause_first, pause_last, fastrand::f64()).max(pace).max(closed_for);
            tracing::warn!(reason, retry_in_s = pause.as_secs_f32(), "disconnected from Discord");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self, desk: &Arc<Desk>, stop: &CancellationToken) -> Turn {
        let lost = |reason: String| Turn::Lost { reason, ready: false, closed_for: Duration::ZERO, shards: 0 };
        let asked = tokio::select! {
            () = stop.cancelled() => return Turn::Stopped,
            asked = self.door(desk) => asked,
        };
        let door = match asked {
            Ok(Some(door)) => door,
            Ok(None) => return lost("Discord named no gateway; is discord.api right?".to_owned()),
            Err(failure) if failure.status() == 401 || failure == rest::Failure::Token => {
                return Turn::Refused(BAD_TOKEN.to_owned());
            }
            Err(failure) => return lost(failure.to_string()),
        };
        let Door { url, shards, closed_for } = door;
        if !closed_for.is_zero() {
            let reason = "Discord allows no more new sessions today".to_owned();
            return Turn::Lost { reason, ready: false, closed_for, shards: 0 };
        }
        // The token goes over this connection.
        if self.api.starts_with("https:") && !url.starts_with("wss:") {
            return lost("Discord named a gateway without encryption".to_owned());
        }
        let link = Link {
            url,
            api: self.api.clone(),
            token: self.token.clone(),
            client: self.client.clone(),
            connect: self.timing.connect,
            patience: self.timing.silence,
        };
        match gateway::serve(link, self.hear(desk), stop).await {
            End::Stopped => Turn::Stopped,
            End::Refused(words) => Turn::Refused(words.to_owned()),
            End::Lost { reason, ready } => Turn::Lost { reason: reason.to_owned(), ready, closed_for, shards },
        }
    }

    async fn door(&self, desk: &Desk) -> Result<Option<Door>, rest::Failure> {
        let ask = |path: &'static [&'static str]| Call {
            method: Method::GET,
            path,
            query: None,
            as_bot: true,
            body: None,
            repeatable: true,
            until: Instant::now() + self.timing.connect,
        };
        let answer = match desk.rest.call(ask(&["gateway", "bot"])).await {
            // Proxies in front of Discord often know the plain form alone.
            Err(failure) if failure.status() == 404 => desk.rest.call(ask(&["gateway"])).await?,
            answer => answer?,
        };
        Ok(read_door(&answer))
    }

    fn hear(&self, desk: &Arc<Desk>) -> Hear {
        let (desk, metrics) = (Arc::clone(desk), Arc::clone(&self.metrics));
        Arc::new(move |heard| match heard {
            Heard::Ready { application } => {
                tracing::info!("connected to Discord");
                set_connected(&metrics, true);
                desk.register(application);
            }
            Heard::Resumed => {
                tracing::info!("connected to Discord again, nothing was missed");
                set_connected(&metrics, true);
            }
            Heard::Silent => {
                tracing::warn!("Discord's gateway is silent");
                set_connected(&metrics, false);
            }
            Heard::Audible => set_connected(&metrics, true),
            Heard::Command(asked) => desk.command(asked),
            Heard::Autocomplete(asked) => desk.autocomplete(asked),
        })
    }

    fn connected(&self, connected: bool) {
        set_connected(&self.metrics, connected);
    }
}

fn set_connected(metrics: &Metrics, connected: bool) {
    metrics.connected.get_or_create(&OfSurface { surface: NAME }).set(i64::from(connected));
}

/// <https://discord.com/developers/docs/events/gateway#get-gateway-bot>
fn read_door(answer: &Value) -> Option<Door> {
    let url = answer.get("url")?.as_str()?.to_owned();
    let shards = answer.get("shards").and_then(Value::as_u64).unwrap_or(1);
    let limit = answer.get("session_start_limit");
    let number = |name: &str| limit.and_then(|limit| limit.get(name)).and_then(Value::as_u64);
    let closed_for = match (number("remaining"), number("reset_after")) {
        // Never more than a day, whatever is said: that is the period of the budget.
        (Some(0), Some(ms)) => Duration::from_millis(ms.clamp(1_000, 86_400_000)),
        _ => Duration::ZERO,
    };
    Some(Door { url, shards, closed_for })
}

#[async_trait]
impl Surface for Discord {
    async fn run(&self, inbox: Inbox, commands: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String> {
        let rest = Rest::new(self.client.clone(), &self.api, self.token.clone());
        let desk = Desk::new(rest, inbox, commands, self.timing, Arc::clone(&self.clock));
        let _answers_end_with_this = desk.over.clone().drop_guard();
        self.connected(false);
        let mut serving = std::pin::pin!(self.serve(&desk, &stop));
        let early = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = &mut serving => Some(ended),
        };
        let deadline = Instant::now() + self.timing.grace;
        let result = match early {
            Some(ended) => ended,
            // Logging off; dropped with the function where Discord does not say goodbye in time.
            None => timeout_at(deadline, serving).await.unwrap_or(Ok(())),
        };
        self.connected(false);
        desk.tasks.close();
        let _ = timeout_at(deadline, desk.tasks.wait()).await;
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spent_session_budget_is_waited_for() {
        let door = |remaining: u64| {
            let limit =
                json!({ "total": 1000, "remaining": remaining, "reset_after": 14_400_000, "max_concurrency": 1 });
            read_door(&json!({ "url": "wss://gateway.discord.gg", "shards": 1, "session_start_limit": limit })).unwrap()
        };
        assert_eq!(door(1).closed_for, Duration::ZERO);
        assert_eq!(door(0).closed_for, Duration::from_secs(4 * 3600));
        assert!(read_door(&json!({ "url": 5 })).is_none());
    }

    #[test]
    fn a_base_that_is_no_url_is_a_problem() {
        let settings = |api: &str| Settings {
            token: serde_json::from_value(json!("t")).unwrap(),
            api: api.to_owned(),
            locale: "en".to_owned(),
            timezone: "UTC".to_owned(),
        };
        assert!(settings("https://discord.com").check().is_empty());
        assert!(settings("http://127.0.0.1:8080").check().is_empty());
        for wrong in ["discord.com", "wss://gateway.discord.gg", ""] {
            assert_eq!(settings(wrong).check().first().map(|p| p.key.as_str()), Some("api"), "{wrong:?}");
        }
    }
}
