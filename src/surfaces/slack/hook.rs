//! Commands and presses by HTTPS: `POST /slack/commands` and `POST /slack/interactions`.
//!
//! Nothing of a request is read before its signature is right, and one that comes again does nothing, over restarts and
//! replicas: what is not Slack's, not of now or not for the first time gets 401.

use std::collections::HashMap;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use url::form_urlencoded;

use super::asked::{self, Asked};
use super::{Slack, signature};
use crate::surfaces::Hook;

/// A signature is remembered for longer than it is good, in seconds: from the beginning of its window to its end.
const REMEMBERED: i64 = 2 * signature::WINDOW + 60;

#[async_trait]
impl Hook for Slack {
    async fn receive(&self, action: &str, headers: &HeaderMap, body: &[u8]) -> Response<String> {
        let by = Instant::now() + self.timing.direct;
        let now = (self.desk.means.clock)();
        if !matches!(action, "commands" | "interactions") {
            return status(StatusCode::NOT_FOUND);
        }
        let genuine = self.verifier.as_ref().and_then(|verifier| verifier.verify(headers, body, now));
        let Some(signature) = genuine else { return status(StatusCode::UNAUTHORIZED) };
        if !is_form(headers) {
            return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match timeout_at(by, self.desk.is_first(&format!("slack:{signature}"), REMEMBERED)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return status(StatusCode::UNAUTHORIZED),
            Ok(Err(error)) => {
                tracing::error!(%error, "a command from Slack can't be told from a repeated one, and is not taken");
                return status(StatusCode::SERVICE_UNAVAILABLE);
            }
            Err(_) => return status(StatusCode::SERVICE_UNAVAILABLE),
        }
        let fields = fields(body);
        let field = |name: &str| fields.get(name).cloned().flatten();
        if field("ssl_check").is_some() {
            return status(StatusCode::OK);
        }
        if action == "commands" {
            let asked = asked::command(field, self.desk.means.commands);
            return self.command(asked, by).await;
        }
        let payload: Option<Value> = field("payload").and_then(|json| serde_json::from_str(&json).ok());
        let Some(payload) = payload else { return status(StatusCode::BAD_REQUEST) };
        // What is no press of ours is none of our business.
        if let Some(asked) = asked::press(&payload) {
            self.desk.answer_later(asked);
        }
        status(StatusCode::OK)
    }
}

impl Slack {
    async fn command(&self, asked: Option<Asked>, by: Instant) -> Response<String> {
        let Some(asked) = asked else { return status(StatusCode::BAD_REQUEST) };
        match self.desk.answer(asked, by).await {
            Some(body) => {
                let mut response = Response::new(body.to_string());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            None => status(StatusCode::OK),
        }
    }
}

fn status(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let kind = only.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// `None` for what is there twice: nobody knows which is meant.
fn fields(body: &[u8]) -> HashMap<String, Option<String>> {
    let mut fields = HashMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        fields.entry(name.into_owned()).and_modify(|seen| *seen = None).or_insert_with(|| Some(value.into_owned()));
    }
    fields
}
