//! Calls to Discord's HTTP interface, with what a limit asks for.
//!
//! The gateway library's own HTTP client is not used: with its rate limiter on it ignores the base URL, with it off it drops the
//! `retry_after` of a 429, and its tracing spans hold interaction tokens and what people typed.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

/// Attempts of one call, at most.
const TRIES: u32 = 5;
/// Bytes of an answer that are read, at most: 100 commands of 8000 characters fit.
const BODY_LIMIT: usize = 4 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Discord asks for this form: <https://discord.com/developers/docs/reference#user-agent>
const AGENT: &str = concat!("DiscordBot (callboard, ", env!("CARGO_PKG_VERSION"), ")");

pub(super) struct Rest {
    client: reqwest::Client,
    api: String,
    token: SecretString,
}

/// One call. `path` holds the segments after `/api/v10/`.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: Option<(&'static str, &'static str)>,
    /// Send the bot's token. The endpoints of an interaction carry their own.
    pub(super) as_bot: bool,
    pub(super) body: Option<Value>,
    /// A second arrival does no harm, so an attempt with unknown outcome is repeated too.
    pub(super) repeatable: bool,
    /// No attempt begins after this.
    pub(super) until: Instant,
}

/// Why a call failed. Holds neither a URL nor what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("Discord answered {status} (code {code})")]
    Answered {
        status: u16,
        /// Discord's error code, 0 where it gave none:
        /// <https://discord.com/developers/docs/topics/opcodes-and-status-codes#json>
        code: i64,
    },
    #[error("Discord was not reached: {0}")]
    Unreached(&'static str),
    #[error("Discord's answer could not be read")]
    Garbled,
    #[error("discord.token holds characters that no token has")]
    Token,
    #[error("discord.api is not a URL that paths can be added to")]
    Api,
}

impl Failure {
    pub(super) fn code(&self) -> i64 {
        match self {
            Failure::Answered { code, .. } => *code,
            _ => 0,
        }
    }

    pub(super) fn status(&self) -> u16 {
        match self {
            Failure::Answered { status, .. } => *status,
            _ => 0,
        }
    }

    /// Trying the same again later cannot help.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Failure::Token | Failure::Api) || (matches!(self.status(), 400..=499) && self.status() != 429)
    }
}

/// What one attempt came to.
enum Attempt {
    Done(Value),
    /// Worth another try after so long; None: after the usual pause.
    Again(Failure, Option<Duration>),
    Failed(Failure),
}

impl Rest {
    pub(super) fn new(client: reqwest::Client, api: &str, token: SecretString) -> Rest {
        Rest { client, api: api.trim_end_matches('/').to_owned(), token }
    }

    /// The parsed answer, null where it has no body.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, Failure> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let (failure, after) = match self.attempt(&call).await {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Failed(failure) => return Err(failure),
                Attempt::Again(failure, after) => (failure, after),
            };
            let wait = after.unwrap_or(pause);
            let in_time = Instant::now().checked_add(wait).is_some_and(|next| next <= call.until);
            if tries >= TRIES || !in_time {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            tries += 1;
            pause *= 2;
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Attempt {
        let mut url = match self.url(call.path) {
            Ok(url) => url,
            Err(failure) => return Attempt::Failed(failure),
        };
        if let Some((name, value)) = call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = self.client.request(call.method.clone(), url).header(USER_AGENT, AGENT);
        if call.as_bot {
            match self.authorization() {
                Ok(value) => request = request.header(AUTHORIZATION, value),
                Err(failure) => return Attempt::Failed(failure),
            }
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => read(response, call.repeatable).await,
            Err(error) if error.is_connect() => Attempt::Again(Failure::Unreached("no connection"), None),
            Err(error) => {
                let failure = Failure::Unreached(if error.is_timeout() { "no answer in time" } else { "broken off" });
                if call.repeatable { Attempt::Again(failure, None) } else { Attempt::Failed(failure) }
            }
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = Url::parse(&self.api).map_err(|_| Failure::Api)?;
        url.path_segments_mut().map_err(|()| Failure::Api)?.pop_if_empty().extend(["api", "v10"]).extend(path);
        Ok(url)
    }

    fn authorization(&self) -> Result<HeaderValue, Failure> {
        let mut value =
            HeaderValue::from_str(&format!("Bot {}", self.token.expose_secret())).map_err(|_| Failure::Token)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

async fn read(response: Response, repeatable: bool) -> Attempt {
    let status = response.status();
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(seconds);
    let body = match bounded(response).await {
        Ok(body) => body,
        Err(failure) if repeatable && status.is_success() => return Attempt::Again(failure, None),
        Err(_) => Vec::new(),
    };
    let answer: Option<Value> = if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&body).ok() };
    if status.is_success() {
        return answer.map_or(Attempt::Failed(Failure::Garbled), Attempt::Done);
    }
    let field = |name: &str| answer.as_ref().and_then(|answer| answer.get(name));
    let code = field("code").and_then(Value::as_i64).unwrap_or_default();
    let failure = Failure::Answered { status: status.as_u16(), code };
    if status.as_u16() == 429 {
        // The body has fractions, the header whole seconds: https://discord.com/developers/docs/topics/rate-limits
        let precise = field("retry_after").and_then(Value::as_f64).and_then(to_duration);
        return Attempt::Again(failure, precise.or(header));
    }
    if status.is_server_error() && repeatable { Attempt::Again(failure, header) } else { Attempt::Failed(failure) }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Garbled)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(Failure::Garbled);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().and_then(to_duration)
}

fn to_duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_added_to_any_base() {
        let rest = |api: &str| Rest::new(reqwest::Client::new(), api, "x".to_owned().into());
        let path = ["webhooks", "1", "a/b?c", "messages", "@original"];
        for (api, url) in [
            ("https://discord.com", "https://discord.com/api/v10/webhooks/1/a%2Fb%3Fc/messages/@original"),
            ("http://127.0.0.1:1/", "http://127.0.0.1:1/api/v10/webhooks/1/a%2Fb%3Fc/messages/@original"),
            ("http://proxy/discord", "http://proxy/discord/api/v10/webhooks/1/a%2Fb%3Fc/messages/@original"),
        ] {
            assert_eq!(rest(api).url(&path).unwrap().as_str(), url);
        }
        assert_eq!(rest("nonsense").url(&path), Err(Failure::Api));
    }

    #[test]
    fn what_cannot_pass_later_is_final() {
        assert!(Failure::Answered { status: 401, code: 0 }.is_final());
        assert!(!Failure::Answered { status: 429, code: 0 }.is_final());
        assert!(!Failure::Answered { status: 503, code: 0 }.is_final());
        assert!(!Failure::Unreached("no connection").is_final());
    }
}
