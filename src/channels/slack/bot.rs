//! Slack through a bot: the rooms that people watch from, and `kind = "slack"`.
//!
//! Failure hides in a 200: what became of a message is said by `ok` and `error` in the body.
//! <https://docs.slack.dev/reference/methods/chat.postMessage>

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{PACE, WEBHOOK, payload};
use crate::channels::http::{self, Answer, Exchange, Platform, Verdict};
use crate::channels::{Channel, Door, Manner, identity_of};
use crate::model::{Button, Dialect, Message, Outcome, Repetitions, Terms, Timestamp};
use crate::net::Net;
use crate::settings::Problem;
use crate::text::{clean_line, cut, utf16};

pub const BOT: Dialect = Dialect { kind: "slack", ..WEBHOOK };

/// `[channels.NAME] kind = "slack"`
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomSettings {
    /// The id of the channel that the bot posts to, as "View channel details" shows it at its end.
    pub channel: String,
    #[serde(flatten)]
    pub manner: Manner,
}

impl RoomSettings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.manner.check();
        if !is_room(&self.channel) {
            let message = "is not the id of a Slack channel such as \"C0123456789\"; \"View channel details\" shows it at \
                           its end";
            problems.push(Problem::new("channel", message));
        }
        problems
    }
}

/// Channels, private ones, direct messages.
fn is_room(id: &str) -> bool {
    let plain = id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    plain && id.starts_with(['C', 'G', 'D']) && (2..=32).contains(&id.len())
}

/// Where the bot's API is, and the token that it takes.
#[derive(Clone)]
pub struct Access {
    /// `https://slack.com/api`
    pub api: Url,
    pub token: SecretString,
}

impl Access {
    /// As [`crate::channels::identity`], for the bot.
    pub fn identity(&self) -> String {
        identity_of(self.api.as_str(), self.token.expose_secret())
    }
}

/// Rooms the bot writes to; the address is the channel's id.
#[derive(Clone)]
pub struct Bot {
    access: Access,
    net: Net,
}

impl Bot {
    pub fn new(access: Access, net: Net) -> Bot {
        Bot { access, net }
    }

    fn method(&self, name: &str) -> Url {
        let mut url = self.access.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(name);
        }
        url
    }

    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = http::json_headers();
        let token = format!("Bearer {}", self.access.token.expose_secret());
        http::add(&mut headers, "authorization", &token, true).then_some(headers)
    }

    async fn call(&self, method: &str, body: &Value) -> Exchange {
        match self.headers() {
            Some(headers) => http::post(&self.net, &self.method(method), headers, body.to_string().into_bytes()).await,
            None => Exchange::NotSent(BAD_TOKEN.to_owned()),
        }
    }
}

/// What a method answered; else Slack's word for what is wrong, where it says one.
fn said(exchange: Exchange) -> Result<Value, Option<String>> {
    let Exchange::Answered(answer) = exchange else { return Err(None) };
    let said = answer.json();
    match said.get("ok") {
        Some(Value::Bool(true)) => Ok(said),
        _ => Err(said.get("error").and_then(Value::as_str).map(str::to_owned)),
    }
}

const BAD_TOKEN: &str = "slack.bot_token holds characters no token has; configure it anew";
const NOT_INSIDE: &str = "I am not a member of this conversation, so no message of mine would arrive. Type \
                          /invite @callboard here, then ask again";
const ARCHIVED: &str = "This channel is archived; no message arrives here until somebody brings it back";

#[async_trait]
impl Channel for Bot {
    fn dialect(&self) -> Dialect {
        BOT
    }

    /// `client_msg_id` is no key that apps could rely on, so a message sent twice is shown twice.
    fn terms(&self) -> Terms {
        Terms { paces: &[PACE], repetitions: Repetitions::Shown }
    }

    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome {
        if !is_room(address) {
            return Outcome::Dead { reason: "the room is not the id of a Slack channel".to_owned() };
        }
        if self.headers().is_none() {
            return Outcome::Denied { reason: BAD_TOKEN.to_owned() };
        }
        http::judge(self.call("chat.postMessage", &bot_payload(address, message)).await, &BOT_PLATFORM, now)
    }

    /// <https://docs.slack.dev/reference/methods/auth.test>
    async fn probe(&self) -> Result<(), String> {
        self.headers().ok_or(BAD_TOKEN)?;
        let exchange = self.call("auth.test", &json!({})).await;
        match http::judge(exchange, &BOT_PLATFORM, Timestamp::UNIX_EPOCH) {
            Outcome::Delivered { .. } => Ok(()),
            failed => Err(failed.reason().to_owned()),
        }
    }
}

#[async_trait]
impl Door for Bot {
    /// A slash command works where the bot is no member, and what it posts there later is refused. So it looks, and
    /// joins what is open to all: <https://docs.slack.dev/reference/methods/conversations.info>. Where Slack does not
    /// say, the first message will show.
    async fn admits(&self, address: &str) -> Result<(), String> {
        let Some(mut headers) = self.headers() else { return Ok(()) };
        // A method that reads takes no JSON.
        headers.remove(CONTENT_TYPE);
        let mut url = self.method("conversations.info");
        url.query_pairs_mut().append_pair("channel", address);
        let room = match said(http::get(&self.net, &url, headers).await) {
            Ok(said) => said.get("channel").cloned().unwrap_or_default(),
            Err(Some(word)) if word == "channel_not_found" => return Err(NOT_INSIDE.to_owned()),
            Err(_) => return Ok(()),
        };
        let is = |name: &str| room.get(name) == Some(&Value::Bool(true));
        match (is("is_archived"), is("is_member") || is("is_im"), is("is_private")) {
            (true, _, _) => Err(ARCHIVED.to_owned()),
            (false, true, _) => Ok(()),
            (false, false, true) => Err(NOT_INSIDE.to_owned()),
            (false, false, false) => {
                let joined = self.call("conversations.join", &json!({ "channel": address })).await;
                said(joined).map(drop).map_err(|_| NOT_INSIDE.to_owned())
            }
        }
    }
}

/// One room of the bot: `[channels.NAME] kind = "slack"`.
pub struct Room {
    bot: Bot,
    channel: String,
}

impl Room {
    pub fn new(settings: &RoomSettings, bot: Bot) -> Room {
        Room { bot, channel: settings.channel.clone() }
    }
}

#[async_trait]
impl Channel for Room {
    fn dialect(&self) -> Dialect {
        self.bot.dialect()
    }

    fn terms(&self) -> Terms {
        self.bot.terms()
    }

    async fn send(&self, _address: &str, message: &Message, now: Timestamp) -> Outcome {
        self.bot.send(&self.channel, message, now).await
    }

    async fn probe(&self) -> Result<(), String> {
        self.bot.probe().await
    }
}

/// <https://docs.slack.dev/reference/block-kit/block-elements/button-element>: 75 characters of text; and 25 elements a row.
const LABEL_LIMIT: usize = 75;
const BUTTONS: usize = 25;

/// As the webhook's, with the room and the buttons. To press one is to type its value.
pub fn bot_payload(channel: &str, message: &Message) -> Value {
    let mut payload = payload(message);
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("channel".to_owned(), channel.into());
        let blocks = fields.get_mut("blocks").and_then(Value::as_array_mut);
        if let Some(blocks) = blocks.filter(|_| !message.buttons.is_empty()) {
            blocks.push(actions(&message.buttons));
        }
    }
    payload
}

fn actions(buttons: &[Button]) -> Value {
    let element = |(Button { label, command }, number): (&Button, usize)| {
        let label = cut(&clean_line(label), LABEL_LIMIT, utf16);
        let text = json!({ "type": "plain_text", "text": label, "emoji": false });
        json!({ "type": "button", "action_id": format!("command-{number}"), "text": text, "value": command })
    };
    json!({ "type": "actions", "elements": buttons.iter().zip(0..BUTTONS).map(element).collect::<Vec<_>>() })
}

/// What answers to the bot mean.
pub const BOT_PLATFORM: Platform = Platform { accepted, refused, wait: |_| None, pause: |_| None };

fn accepted(answer: &Answer) -> Verdict {
    let said = answer.json();
    match (said.get("ok"), said.get("error").and_then(Value::as_str)) {
        (Some(Value::Bool(true)), _) => Verdict::Delivered(said.get("ts").and_then(Value::as_str).map(str::to_owned)),
        (Some(Value::Bool(false)), Some(word)) => verdict(word),
        _ => Verdict::Unknown(format!("it answers with status {} but not as Slack's API does", answer.status)),
    }
}

fn refused(answer: &Answer) -> Option<Verdict> {
    let said = answer.json();
    match (answer.status, said.get("error").and_then(Value::as_str)) {
        (429, _) => Some(too_many()),
        (_, Some(word)) => Some(verdict(word)),
        (401, None) => Some(Verdict::Denied(
            "Slack refuses the bot's token (status 401); put a valid one in slack.bot_token".to_owned(),
        )),
        _ => None,
    }
}

fn too_many() -> Verdict {
    Verdict::Limited { account: false, reason: "Slack asks the bot for fewer messages (ratelimited)".to_owned() }
}

// By <https://docs.slack.dev/reference/methods/chat.postMessage#errors>.
const TOKEN: &[&str] = &[
    "invalid_auth",
    "not_authed",
    "token_revoked",
    "token_expired",
    "account_inactive",
    "not_allowed_token_type",
    "access_denied",
    "org_login_required",
    "team_access_not_granted",
];
const RIGHTS: &[&str] = &["missing_scope", "no_permission", "ekm_access_denied"];
const ABSENT: &[&str] = &["not_in_channel", "channel_not_found"];
const CLOSED: &[&str] = &[
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
    "restricted_action_non_threadable_channel",
    "messages_tab_disabled",
    "cannot_dm_bot",
];
const UNFIT: &[&str] = &[
    "invalid_blocks",
    "invalid_blocks_format",
    "msg_too_long",
    "msg_blocks_too_long",
    "no_text",
    "invalid_arguments",
    "invalid_arg_name",
    "invalid_array_arg",
    "invalid_json",
    "json_not_object",
    "too_many_attachments",
];
const LATER: &[&str] = &["service_unavailable", "request_timeout", "team_added_to_org"];
/// Both may come after the message was posted; so they are no plain retry.
const HALF_DONE: &[&str] = &["fatal_error", "internal_error"];

/// Only words of these tables are repeated.
fn verdict(word: &str) -> Verdict {
    let is = |words: &[&str]| words.contains(&word);
    match word {
        _ if is(TOKEN) => {
            Verdict::Denied(format!("Slack refuses the bot's token ({word}); put a valid one in slack.bot_token"))
        }
        _ if is(RIGHTS) => Verdict::Denied(format!(
            "Slack does not let the bot post ({word}); give its app the scopes of `callboard slack manifest` and install \
             it again"
        )),
        _ if is(ABSENT) => Verdict::Dead(format!(
            "the bot is not in the Slack channel, or there is no such channel ({word}); type /invite @callboard there"
        )),
        "is_archived" => Verdict::Dead("the Slack channel is archived; bring it back or choose another".to_owned()),
        _ if is(CLOSED) => {
            Verdict::Dead(format!("Slack does not let the bot post in this channel ({word}); allow it there"))
        }
        _ if is(UNFIT) => Verdict::Reject(format!("Slack does not accept this message ({word})")),
        "ratelimited" | "rate_limited" => too_many(),
        "message_limit_exceeded" => Verdict::Limited {
            account: true,
            reason: "the Slack workspace sends too many messages (message_limit_exceeded)".to_owned(),
        },
        _ if is(LATER) => Verdict::Retry(format!("Slack asks to try again ({word})")),
        _ if is(HALF_DONE) => {
            Verdict::Unknown(format!("Slack has a failure of its own ({word}); it may have the message"))
        }
        _ => Verdict::Reject("Slack does not accept this message, for a reason that is not known here".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn said(error: &str) -> Outcome {
        let body = json!({ "ok": false, "error": error }).to_string().into_bytes();
        http::classify(&Answer { status: 200, body, ..Answer::default() }, &BOT_PLATFORM, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_slack_says_becomes_what_follows() {
        for (word, label) in [
            ("invalid_auth", "denied"),
            ("token_revoked", "denied"),
            ("account_inactive", "denied"),
            ("missing_scope", "denied"),
            ("not_in_channel", "dead"),
            ("channel_not_found", "dead"),
            ("is_archived", "dead"),
            ("invalid_blocks", "rejected"),
            ("msg_too_long", "rejected"),
            ("ratelimited", "limited"),
            ("rate_limited", "limited"),
            ("service_unavailable", "retry"),
            ("internal_error", "unknown"),
            ("fatal_error", "unknown"),
            ("something new", "rejected"),
        ] {
            assert_eq!(said(word).label(), label, "{word}");
            assert!(!said("<@U1> something new").reason().contains("<@U1>"), "a server's words are not repeated");
        }
        for word in ["not_in_channel", "channel_not_found"] {
            assert!(said(word).reason().contains("/invite @callboard"), "{word}: what to do is not said");
        }
    }

    #[test]
    fn a_wait_in_the_headers_is_heeded() {
        let headers = HeaderMap::from_iter([(reqwest::header::RETRY_AFTER, HeaderValue::from_static("7"))]);
        for (status, body) in [(429, ""), (200, r#"{"ok":false,"error":"ratelimited"}"#)] {
            let answer = Answer { status, headers: headers.clone(), body: body.into(), broken_off: false };
            let outcome = http::classify(&answer, &BOT_PLATFORM, Timestamp::UNIX_EPOCH);
            let Outcome::Limited { after, account, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!((after.map(|after| after.as_secs()), account), (Some(7), false));
        }
    }

    #[test]
    fn what_is_no_answer_of_slacks_is_unknown() {
        for body in ["", "ok", "<html>", "{}", r#"{"ok":"true"}"#, r#"{"ok":false}"#] {
            let answer = Answer { status: 200, body: body.into(), ..Answer::default() };
            assert_eq!(http::classify(&answer, &BOT_PLATFORM, Timestamp::UNIX_EPOCH).label(), "unknown", "{body}");
        }
    }

    #[test]
    fn rooms_are_ids() {
        for (id, right) in
            [("C0123456789", true), ("G012", true), ("D1", true), ("#general", false), ("c012", false), ("U012", false)]
        {
            assert_eq!(is_room(id), right, "{id}");
        }
    }
}
