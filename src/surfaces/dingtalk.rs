//! DingTalk: commands through Stream mode, a connection from here to there, answered by the conversation's own
//! address. Messages to rooms go by `channels/dingtalk`.
//!
//! The callback over HTTP is left out: its signature does not cover the body
//! (<https://help.dingtalk.io/open/development/receive-message>).

mod answers;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::answers::Desk;
use self::stream::{Frame, NoDoor};
use super::socket::Socket;
use super::{Inbox, Once, Surface, backoff};
use crate::metrics::{Metrics, OfSurface};
use crate::model::{Clock, CommandInfo, Dialect, Timestamp};
use crate::net::Net;
use crate::settings::{Problem, Secret};

pub const NAME: &str = "dingtalk";

const BAD_CREDENTIALS: &str = "DingTalk refused the application's credentials. Put its Client ID and Client Secret into dingtalk.client_id and dingtalk.client_secret: developer console, your application, Credentials";

/// `[dingtalk]`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The application's Client ID.
    pub client_id: String,
    /// Its Client Secret.
    pub client_secret: Secret,
    /// The robot's code, where it is not the Client ID.
    pub robot_code: Option<String>,
    /// Base URL of the API, for tests, proxies and the international edition.
    #[serde(default = "default_api")]
    pub api: String,
    #[serde(default = "crate::settings::default_locale")]
    pub locale: String,
    #[serde(default = "crate::settings::default_timezone")]
    pub timezone: String,
}

fn default_api() -> String {
    "https://api.dingtalk.com".to_owned()
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = crate::settings::check_locale_and_timezone(&self.locale, &self.timezone);
        problems.extend(crate::settings::check_base_url(&self.api).map(|message| Problem::new("api", message)));
        let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if !is_word(&self.client_id) {
            let message = "is empty or holds spaces; copy the Client ID from the application's Credentials";
            problems.push(Problem::new("client_id", message));
        }
        if self.robot_code.as_deref().is_some_and(|code| !is_word(code)) {
            let message = "is empty or holds spaces; leave the key out if it is the Client ID, as it mostly is";
            problems.push(Problem::new("robot_code", message));
        }
        problems
    }

    pub fn robot_code(&self) -> &str {
        self.robot_code.as_deref().unwrap_or(&self.client_id)
    }
}

/// How long things may take. The defaults are meant for DingTalk itself; tests shrink them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A command may take so long.
    pub late: Duration,
    /// From the stop to the end of `run`, at most.
    pub grace: Duration,
    /// For opening a connection, and for handing over a frame.
    pub connect: Duration,
    /// Neither a frame nor the answer to a ping for so long: the connection is built anew. A ping is sent four times
    /// within.
    pub silence: Duration,
    /// A connection that DingTalk asked to leave is read for so long; it is dropped there after 10 s:
    /// <https://open-dingtalk.github.io/developerpedia/docs/learn/stream/protocol>
    pub leaving: Duration,
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
            late: seconds(15 * 60),
            grace: seconds(5),
            connect: seconds(30),
            silence: seconds(120),
            leaving: seconds(15),
            pause_first: seconds(1),
            pause_last: seconds(300),
            settled: seconds(60),
        }
    }
}

/// The robot as a way in.
pub struct DingTalk {
    api: Url,
    client_id: String,
    secret: SecretString,
    net: Net,
    metrics: Arc<Metrics>,
    once: Once,
    dialect: Dialect,
    timing: Timing,
    clock: Clock,
}

/// How a connection ended, or the attempt to have one.
enum Turn {
    Lost(String),
    /// DingTalk wants it built anew.
    Left(Box<Socket>),
    Stopped,
    Refused,
}

impl DingTalk {
    /// `api` and `secret` are those of `settings`, read; `once` remembers messages; `dialect` is how DingTalk writes.
    pub fn new(
        settings: &Settings,
        (api, secret): (Url, SecretString),
        net: Net,
        metrics: Arc<Metrics>,
        once: Once,
        dialect: Dialect,
    ) -> DingTalk {
        DingTalk {
            api,
            client_id: settings.client_id.clone(),
            secret,
            net,
            metrics,
            once,
            dialect,
            timing: Timing::default(),
            clock: Arc::new(Timestamp::now),
        }
    }

    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> DingTalk {
        self.timing = timing;
        self
    }

    /// What tells when a command came; the machine's clock otherwise.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> DingTalk {
        self.clock = clock;
        self
    }

    async fn serve(&self, desk: &Arc<Desk>, stop: &CancellationToken) -> Result<(), String> {
        let Timing { pause_first, pause_last, settled, .. } = self.timing;
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let turn = self.connect(desk, stop).await;
            failures = if began.elapsed() >= settled { 1 } else { failures + 1 };
            let pause = backoff(failures, pause_first, pause_last, fastrand::f64());
            match turn {
                Turn::Stopped => return Ok(()),
                Turn::Refused => return Err(BAD_CREDENTIALS.to_owned()),
                Turn::Left(socket) => {
                    tracing::info!(retry_in_s = pause.as_secs_f32(), "DingTalk asks for a new connection");
                    self.leave(*socket, desk);
                }
                Turn::Lost(reason) => {
                    self.connected(false);
                    tracing::warn!(reason, retry_in_s = pause.as_secs_f32(), "disconnected from DingTalk");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self, desk: &Arc<Desk>, stop: &CancellationToken) -> Turn {
        let opened = tokio::select! {
            () = stop.cancelled() => return Turn::Stopped,
            opened = timeout(self.timing.connect, self.open()) => opened,
        };
        let mut socket = match opened {
            Ok(Ok(socket)) => socket,
            Ok(Err(NoDoor::Refused)) => return Turn::Refused,
            Ok(Err(NoDoor::Lost(reason))) => return Turn::Lost(reason),
            Err(_) => return Turn::Lost("DingTalk did not open a connection in time".to_owned()),
        };
        tracing::info!("connected to DingTalk");
        self.connected(true);
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = listen(&mut socket, desk, self.timing) => Some(ended),
        };
        match ended {
            Some(End::Lost(reason)) => Turn::Lost(reason),
            Some(End::Left) => Turn::Left(Box::new(socket)),
            None => {
                socket.close().await;
                Turn::Stopped
            }
        }
    }

    async fn open(&self) -> Result<Socket, NoDoor> {
        let url = stream::open_door(&self.net, &self.api, &self.client_id, &self.secret).await?;
        Socket::open(&url, &self.net).await.map_err(|error| NoDoor::Lost(error.to_string()))
    }

    /// What still comes over a connection that is to end is taken until it does.
    fn leave(&self, mut socket: Socket, desk: &Arc<Desk>) {
        let (timing, inner) = (self.timing, Arc::clone(desk));
        desk.spawn(async move {
            // However it ends: the new one counts.
            drop(timeout(timing.leaving, listen(&mut socket, &inner, timing)).await);
        });
    }

    fn connected(&self, connected: bool) {
        self.metrics.connected.get_or_create(&OfSurface { surface: NAME }).set(i64::from(connected));
    }
}

enum End {
    Left,
    Lost(String),
}

/// Takes what a connection brings until it ends.
async fn listen(socket: &mut Socket, desk: &Arc<Desk>, timing: Timing) -> End {
    let mut tick = tokio::time::interval(timing.silence / 4);
    loop {
        let heard = tokio::select! {
            // After a pause of this process, what came meanwhile counts before the silence does.
            biased;
            heard = socket.next() => heard,
            _ = tick.tick() => {
                if socket.silence() >= timing.silence {
                    return End::Lost("DingTalk is silent".to_owned());
                }
                match timeout(timing.connect, socket.ping()).await {
                    Ok(Ok(())) => continue,
                    _ => return End::Lost("a ping could not be sent".to_owned()),
                }
            }
        };
        let frame = match heard {
            Ok(Some(text)) => stream::read(&text),
            Ok(None) => return End::Lost("DingTalk closed the connection".to_owned()),
            Err(error) => return End::Lost(error.to_string()),
        };
        let (answer, message) = match frame {
            Frame::Ping { answer } => (answer, None),
            Frame::Message { answer, data } => (answer, Some(data)),
            Frame::Leave => return End::Left,
            Frame::Other => continue,
        };
        let answered = timeout(timing.connect, socket.send(answer)).await;
        // Here it is; whether DingTalk knows so is another matter, and a second copy does nothing.
        if let Some(data) = message {
            desk.hear(&data);
        }
        if !matches!(answered, Ok(Ok(()))) {
            return End::Lost("an acknowledgement could not be sent".to_owned());
        }
    }
}

#[async_trait]
impl Surface for DingTalk {
    async fn run(&self, inbox: Inbox, _: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String> {
        let (once, clock) = (Arc::clone(&self.once), Arc::clone(&self.clock));
        let desk = Desk::new(inbox, once, clock, self.net.clone(), self.api.clone(), self.dialect, self.timing);
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
    fn what_no_application_has_is_a_problem() {
        let keys = |changes: serde_json::Value| {
            let mut settings = json!({ "client_id": "ding1", "client_secret": "s" });
            settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let settings: Settings = serde_json::from_value(settings).unwrap();
            settings.check().into_iter().map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(json!({})), [""; 0]);
        assert_eq!(keys(json!({ "robot_code": "ding2", "api": "http://127.0.0.1:1" })), [""; 0]);
        assert_eq!(keys(json!({ "client_id": " ", "robot_code": "" })), ["client_id", "robot_code"]);
        assert_eq!(keys(json!({ "api": "api.dingtalk.com", "locale": "fr" })), ["locale", "api"]);
    }
}
