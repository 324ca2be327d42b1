//! One request, one verdict: how every channel posts, and what an answer means.
//!
//! Whether a failed request may have arrived is decided by its body: while nothing has asked for it, not a byte of
//! the message left, and the attempt is a plain retry. From then on, no usable answer means *unknown*.
//!
//! Reasons are made of our own words, numbers and names from tables. Nothing a server said is repeated: it may
//! reflect the URL, which for most platforms is the secret.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use url::Url;

use crate::model::{Outcome, Timestamp};
use crate::net::{self, Net, Refused};

/// Of an answer no more is read than this.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// What became of a request.
#[derive(Debug)]
pub enum Exchange {
    Answered(Answer),
    /// It never left: [`Net`] refuses the address.
    Refused(Refused),
    /// It never left.
    NotSent(String),
    /// It left, at least in part, and no answer came.
    Lost(String),
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// As much as came, up to [`ANSWER_LIMIT`].
    pub body: Vec<u8>,
    /// The body did not come to its end.
    pub broken_off: bool,
}

impl Answer {
    /// The body as JSON; null if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The host has nothing to say, and said so to the end.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && !self.broken_off
    }
}

pub async fn post(net: &Net, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Exchange {
    let left = Arc::new(AtomicBool::new(false));
    let body = WatchedBody { rest: Some(body.into()), left: Arc::clone(&left) };
    let with_body = move |request: RequestBuilder| request.body(reqwest::Body::wrap(body));
    exchange(net, Method::POST, url, headers, with_body, &left).await
}

pub async fn get(net: &Net, url: &Url, headers: HeaderMap) -> Exchange {
    exchange(net, Method::GET, url, headers, |request| request, &AtomicBool::new(false)).await
}

/// Whether the host of `url` answers at all, asked by a `HEAD /`: it touches nothing, and shows that name, network
/// and certificate are in order. What the path and the secret are worth, only a message would show.
pub async fn reach(net: &Net, url: &Url) -> Result<(), String> {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    match exchange(net, Method::HEAD, &root, HeaderMap::new(), |request| request, &AtomicBool::new(false)).await {
        Exchange::Answered(_) => Ok(()),
        Exchange::Refused(refused) => Err(refused.to_string()),
        Exchange::NotSent(reason) | Exchange::Lost(reason) => Err(reason),
    }
}

async fn exchange(
    net: &Net,
    method: Method,
    url: &Url,
    headers: HeaderMap,
    with_body: impl FnOnce(RequestBuilder) -> RequestBuilder,
    left: &AtomicBool,
) -> Exchange {
    let client = match net.client_for(url) {
        Ok(client) => client,
        Err(refused) => return Exchange::Refused(refused),
    };
    let request = with_body(client.request(method, url.clone()).headers(headers));
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return failed(&error, left.load(Ordering::Acquire)),
    };
    let mut answer = Answer {
        status: response.status().as_u16(),
        headers: std::mem::take(response.headers_mut()),
        body: Vec::new(),
        broken_off: true,
    };
    // An answer that breaks off or drips past the deadline is judged by what came of it.
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                answer.broken_off = false;
                break;
            }
            Err(_) => break,
        };
        let room = ANSWER_LIMIT.saturating_sub(answer.body.len());
        answer.body.extend(chunk.iter().take(room));
        if chunk.len() >= room {
            break;
        }
    }
    Exchange::Answered(answer)
}

fn failed(error: &reqwest::Error, left: bool) -> Exchange {
    match net::refusal(error) {
        Some(refused) => Exchange::Refused(refused),
        None if left && !error.is_connect() => Exchange::Lost(net::explain(error)),
        None => Exchange::NotSent(net::explain(error)),
    }
}

/// The body of one attempt, of known length, that remembers whether anything asked for it.
struct WatchedBody {
    rest: Option<Bytes>,
    left: Arc<AtomicBool>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.left.store(true, Ordering::Release);
        Poll::Ready(self.rest.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What a `GET` that asks for the destination itself shows: any 2xx is well.
pub fn probed(exchange: Exchange, platform: &Platform) -> Result<(), String> {
    match exchange {
        Exchange::Answered(answer) if (200..300).contains(&answer.status) => Ok(()),
        exchange => match judge(exchange, platform, Timestamp::UNIX_EPOCH) {
            Outcome::Delivered { .. } => Ok(()),
            failed => Err(failed.reason().to_owned()),
        },
    }
}

/// What a platform says in its own way.
pub struct Platform {
    /// A 2xx: what it means.
    pub accepted: fn(&Answer) -> Verdict,
    /// A 4xx or 5xx: what its own codes say; `None` leaves it to the status.
    pub refused: fn(&Answer) -> Option<Verdict>,
    /// A wait named elsewhere than in the usual headers, in seconds.
    pub wait: fn(&Answer) -> Option<f64>,
    /// How long nothing more is taken after a success, in seconds.
    pub pause: fn(&Answer) -> Option<f64>,
}

/// An [`Outcome`] before the wait is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered(Option<String>),
    Retry(String),
    Limited { account: bool, reason: String },
    Reject(String),
    Dead(String),
    Denied(String),
    Unknown(String),
}

/// What an exchange means. The one table:
///
/// | status | outcome | why |
/// |---|---|---|
/// | 2xx | the platform's hook | for some, failure hides in a 200 |
/// | 3xx | dead | nothing is followed; the configured address is not the final one |
/// | 408, 425 | retry | a definite "not now" |
/// | 429 | limited | a definite "too many" |
/// | 401, 403, 404, 410 | dead | no message passes until a person acts |
/// | other 4xx | reject | this message will never pass |
/// | 5xx | unknown | the message was there; whether it was taken before the failure nobody says |
/// | 1xx, anything else | unknown | no answer to a POST |
///
/// What the platform says itself goes first, for 4xx and 5xx: its codes, and a bot's 401, which is denied, since the
/// token is that of all its rooms.
pub fn judge(exchange: Exchange, platform: &Platform, now: Timestamp) -> Outcome {
    match exchange {
        Exchange::Refused(refused) => Outcome::Dead { reason: refused.to_string() },
        Exchange::NotSent(reason) => Outcome::Retry { after: None, reason },
        Exchange::Lost(reason) => Outcome::Unknown { after: None, reason },
        Exchange::Answered(answer) => classify(&answer, platform, now),
    }
}

pub fn classify(answer: &Answer, platform: &Platform, now: Timestamp) -> Outcome {
    let verdict = match answer.status {
        200..=299 => (platform.accepted)(answer),
        400..=599 => (platform.refused)(answer).unwrap_or_else(|| by_status(answer.status)),
        status => by_status(status),
    };
    let after = || wait(answer, (platform.wait)(answer), now);
    match verdict {
        Verdict::Delivered(message_id) => {
            Outcome::Delivered { message_id, pause: (platform.pause)(answer).and_then(bounded) }
        }
        Verdict::Retry(reason) => Outcome::Retry { after: after(), reason },
        Verdict::Limited { account, reason } => Outcome::Limited { after: after(), account, reason },
        Verdict::Reject(reason) => Outcome::Reject { reason },
        Verdict::Dead(reason) => Outcome::Dead { reason },
        Verdict::Denied(reason) => Outcome::Denied { reason },
        Verdict::Unknown(reason) => Outcome::Unknown { after: after(), reason },
    }
}

fn by_status(status: u16) -> Verdict {
    match status {
        300..=399 => Verdict::Dead(format!(
            "it answers with a redirect (status {status}), which is not followed; configure the final address"
        )),
        401 | 403 => {
            Verdict::Dead(format!("it refuses the credentials (status {status}); check the URL and the secret"))
        }
        404 | 410 => Verdict::Dead(format!("it no longer exists (status {status}); configure a new URL")),
        429 => Verdict::Limited { account: false, reason: "it asks for fewer messages (status 429)".to_owned() },
        408 | 425 => Verdict::Retry(format!("it asks to try again (status {status})")),
        400..=499 => Verdict::Reject(format!("it does not accept this message (status {status})")),
        // The message was there, and nobody knows what became of it.
        500..=599 => {
            Verdict::Unknown(format!("it has a failure of its own (status {status}); it may have the message"))
        }
        _ => Verdict::Unknown(format!("it answers with status {status}, which says nothing")),
    }
}

const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest wait named anywhere in the answer, from 1 s to 24 h.
fn wait(answer: &Answer, named: Option<f64>, now: Timestamp) -> Option<Duration> {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = header("retry-after").and_then(|text| seconds(text).or_else(|| seconds_until(text, now)));
    let milliseconds = ["retry-after-ms", "x-ms-retry-after-ms"]
        .into_iter()
        .filter_map(|name| header(name).and_then(self::seconds))
        .map(|milliseconds| milliseconds / 1000.0);
    milliseconds.chain(seconds).chain(named).filter_map(bounded).max()
}

/// From 1 s to 24 h; `None` when it is no time at all.
fn bounded(seconds: f64) -> Option<Duration> {
    let is_time = seconds.is_finite() && seconds >= 0.0;
    is_time.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

/// A count of seconds, whole or not; negative and not finite ones are garbage.
pub fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

fn seconds_until(date: &str, now: Timestamp) -> Option<f64> {
    let then = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(then.duration_since(now).as_secs_f64().max(0.0))
}

/// Headers of a JSON body.
pub fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))])
}

/// Adds a header; `false` when the value can't be one.
pub fn add(headers: &mut HeaderMap, name: &'static str, value: &str, sensitive: bool) -> bool {
    let Ok(mut value) = HeaderValue::from_str(value) else { return false };
    value.set_sensitive(sensitive);
    headers.insert(HeaderName::from_static(name), value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(name: &'static str, value: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        assert!(add(&mut headers, name, value, false), "{value:?}");
        let now = "2026-11-24T08:00:00Z".parse().unwrap();
        wait(&Answer { status: 429, headers, ..Answer::default() }, None, now).map(|wait| wait.as_millis() as u64)
    }

    #[test]
    fn every_form_of_a_wait_is_understood() {
        for (name, value, expected) in [
            ("retry-after", "7", Some(7_000)),
            ("retry-after", " 7 ", Some(7_000)),
            ("retry-after", "2.5", Some(2_500)),
            ("retry-after", "0", Some(1_000)),
            ("retry-after", "0.3", Some(1_000)),
            ("retry-after", "1e300", Some(86_400_000)),
            ("retry-after", "99999999999999999999", Some(86_400_000)),
            ("retry-after", "Tue, 24 Nov 2026 08:00:30 GMT", Some(30_000)),
            ("retry-after", "Tue, 24 Nov 2026 07:00:00 GMT", Some(1_000)),
            ("retry-after", "Tue, 24 Nov 2099 07:00:00 GMT", Some(86_400_000)),
            ("retry-after-ms", "1500", Some(1_500)),
            ("x-ms-retry-after-ms", "2500", Some(2_500)),
            ("retry-after", "-5", None),
            ("retry-after", "NaN", None),
            ("retry-after", "inf", None),
            ("retry-after", "soon", None),
            ("retry-after", "", None),
        ] {
            assert_eq!(after(name, value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn the_longest_of_several_waits_counts() {
        let mut answer = Answer { status: 429, ..Answer::default() };
        add(&mut answer.headers, "retry-after", "2", false);
        add(&mut answer.headers, "retry-after-ms", "3000", false);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(wait(&answer, Some(4.0), now), Some(Duration::from_secs(4)));
        assert_eq!(wait(&answer, Some(f64::NAN), now), Some(Duration::from_secs(3)));
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_a_second_or_longer_than_a_day(value in "[ -~]{0,40}") {
            if let Some(ms) = after("retry-after", &value) {
                prop_assert!((1_000..=86_400_000).contains(&ms));
            }
        }
    }
}
