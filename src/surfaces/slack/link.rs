//! Socket Mode: the same over a connection of ours, for who has no public address.
//! <https://docs.slack.dev/apis/events-api/using-socket-mode>

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::answers::{Desk, private};
use super::asked;
use super::{NAME, Slack, read};
use crate::net;
use crate::surfaces::socket::Socket;
use crate::surfaces::{NoAnswer, backoff};

/// Acknowledgements of one connection that wait to be written, at most.
const ACKS: usize = 64;
/// An envelope that nobody acknowledged comes again, soon if at all; in seconds.
const REMEMBERED: i64 = 3600;
/// Bytes of an answer that are read, at most.
const ANSWER_LIMIT: usize = 64 * 1024;

/// How a connection, or the attempt at one, ended.
enum End {
    Stopped,
    /// Slack asked to come again, as it does every few hours.
    Asked,
    Lost {
        reason: String,
        ready: bool,
    },
    /// A person must act.
    Refused(String),
}

/// An acknowledgement to be written; `done` is dropped where it was not.
struct Ack {
    envelope: String,
    payload: Option<Value>,
    done: oneshot::Sender<()>,
}

impl Slack {
    pub(super) async fn serve(&self, token: &SecretString, stop: &CancellationToken) -> Result<(), String> {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let end = self.connect(token, stop).await;
            self.connected(false);
            let lasted = began.elapsed() >= self.timing.settled;
            let reason = match end {
                End::Stopped => return Ok(()),
                End::Refused(words) => return Err(words),
                End::Asked if lasted => {
                    failures = 0;
                    continue;
                }
                End::Asked => "Slack asked for another connection".to_owned(),
                End::Lost { reason, ready } => {
                    failures = if ready && lasted { 0 } else { failures };
                    reason
                }
            };
            failures += 1;
            let pause = backoff(failures, self.timing.pause_first, self.timing.pause_last, fastrand::f64());
            tracing::warn!(reason, retry_in_s = pause.as_secs_f32(), "disconnected from Slack");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self, token: &SecretString, stop: &CancellationToken) -> End {
        let lost = |reason: String| End::Lost { reason, ready: false };
        let opening = async {
            let url = self.door(token).await?;
            // Whoever knows the address is the app.
            if self.desk.api.scheme() == "https" && url.scheme() != "wss" {
                return Err(lost("Slack named an address without encryption".to_owned()));
            }
            Socket::open(&url, &self.desk.means.net).await.map_err(|error| lost(error.to_string()))
        };
        let opened = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            opened = timeout(self.timing.connect, opening) => opened,
        };
        match opened {
            Ok(Ok(socket)) => self.listen(socket, stop).await,
            Ok(Err(end)) => end,
            Err(_) => lost("no connection in time".to_owned()),
        }
    }

    /// Where to connect to: <https://docs.slack.dev/reference/methods/apps.connections.open>
    async fn door(&self, token: &SecretString) -> Result<Url, End> {
        let lost = |reason: &str| End::Lost { reason: reason.to_owned(), ready: false };
        let mut url = self.desk.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("apps.connections.open");
        }
        let client = self.desk.means.net.client_for(&url).map_err(|refused| End::Refused(refused.to_string()))?;
        let asked = client.post(url).bearer_auth(token.expose_secret()).send().await;
        let said = read(asked.map_err(|error| lost(&net::explain(&error)))?, ANSWER_LIMIT).await;
        match (said.get("ok"), said.get("url").and_then(Value::as_str).map(Url::parse)) {
            (Some(Value::Bool(true)), Some(Ok(url))) => Ok(url),
            (Some(Value::Bool(true)), _) => Err(lost("Slack named no address to connect to; is slack.api right?")),
            _ => Err(refusal(said.get("error").and_then(Value::as_str).unwrap_or_default())
                .map_or_else(|| lost("Slack opens no connection just now"), End::Refused)),
        }
    }

    async fn listen(&self, mut socket: Socket, stop: &CancellationToken) -> End {
        let (acks, mut acked) = mpsc::channel::<Ack>(ACKS);
        let mut ready = false;
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => {
                    socket.close().await;
                    return End::Stopped;
                }
                Some(Ack { envelope, payload, done }) = acked.recv() => {
                    let mut ack = json!({ "envelope_id": envelope });
                    if let (Some(fields), Some(payload)) = (ack.as_object_mut(), payload) {
                        fields.insert("payload".to_owned(), payload);
                    }
                    if let Err(error) = socket.send(ack.to_string()).await {
                        return End::Lost { reason: error.to_string(), ready };
                    }
                    // Whoever waits for it may be gone.
                    let _ = done.send(());
                    continue;
                }
                heard = socket.next_within(self.timing.silence) => heard,
            };
            let message: Value = match heard {
                Ok(Some(text)) => serde_json::from_str(&text).unwrap_or_default(),
                Ok(None) => return End::Lost { reason: "Slack closed the connection".to_owned(), ready },
                Err(error) => return End::Lost { reason: error.to_string(), ready },
            };
            match message.get("type").and_then(Value::as_str) {
                Some("hello") => {
                    ready = true;
                    self.connected(true);
                    tracing::info!(surface = NAME, "connected to Slack");
                }
                Some("disconnect") => {
                    socket.close().await;
                    return End::Asked;
                }
                Some(kind) => self.take(kind, &message, &acks),
                None => {}
            }
        }
    }

    /// One envelope, in a task of its own.
    fn take(&self, kind: &str, message: &Value, acks: &mpsc::Sender<Ack>) {
        let Some(envelope) = message.get("envelope_id").and_then(Value::as_str) else { return };
        let payload = message.get("payload").cloned().unwrap_or_default();
        let answers_with_ack = message.get("accepts_response_payload") == Some(&Value::Bool(true));
        let field = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        let asked = match kind {
            "slash_commands" => asked::command(field, self.desk.means.commands),
            "interactive" => asked::press(&payload),
            _ => None,
        };
        let (desk, acks, envelope) = (Arc::clone(&self.desk), acks.clone(), envelope.to_owned());
        let by = Instant::now() + self.timing.direct;
        let is_direct = kind == "slash_commands" && answers_with_ack;
        self.desk.tasks.spawn(async move {
            let key = format!("slack:envelope:{envelope}");
            let first = timeout_at(by, desk.is_first(&key, REMEMBERED)).await;
            match (asked, first.unwrap_or(Err(NoAnswer::Forgetful))) {
                (Some(asked), Ok(true)) if is_direct => answer(&desk, asked, by, &acks, envelope).await,
                (Some(asked), Ok(true)) => {
                    acknowledge(&acks, envelope, None).await;
                    desk.answer_later(asked);
                }
                // Whether it came before is not known: not done, and said so.
                (Some(asked), Err(unknown)) => {
                    let body = desk.body(&private(unknown));
                    let told = is_direct && acknowledge(&acks, envelope.clone(), Some(body.clone())).await;
                    if !told {
                        acknowledge(&acks, envelope, None).await;
                        desk.post(&asked, body).await;
                    }
                }
                _ => drop(acknowledge(&acks, envelope, None).await),
            }
        });
    }
}

/// With the acknowledgement, where the answer is there in time and the connection still is.
async fn answer(desk: &Arc<Desk>, asked: asked::Asked, by: Instant, acks: &mpsc::Sender<Ack>, envelope: String) {
    let body = desk.answer(asked.clone(), by).await;
    let is_written = acknowledge(acks, envelope, body.clone()).await;
    if let Some(body) = body.filter(|_| !is_written) {
        desk.post(&asked, body).await;
    }
}

/// Whether it was written.
async fn acknowledge(acks: &mpsc::Sender<Ack>, envelope: String, payload: Option<Value>) -> bool {
    let (done, written) = oneshot::channel();
    acks.send(Ack { envelope, payload, done }).await.is_ok() && written.await.is_ok()
}

/// Words for what only a person can mend: <https://docs.slack.dev/reference/methods/apps.connections.open#errors>
fn refusal(word: &str) -> Option<String> {
    const TOKEN: [&str; 9] = [
        "invalid_auth",
        "not_authed",
        "account_inactive",
        "token_revoked",
        "token_expired",
        "not_allowed_token_type",
        "missing_scope",
        "no_permission",
        "access_denied",
    ];
    let known = TOKEN.iter().find(|known| **known == word)?;
    Some(format!(
        "Slack refused slack.app_token ({known}). Put a valid one there: https://api.slack.com/apps, your app, Basic \
         Information, App-Level Tokens, Generate, with the scope connections:write; and switch Socket Mode on"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_person_must_mend_ends_the_surface() {
        assert!(refusal("invalid_auth").unwrap().contains("slack.app_token"));
        for word in ["", "internal_error", "ratelimited", "<script>"] {
            assert_eq!(refusal(word), None, "{word}");
        }
    }
}
