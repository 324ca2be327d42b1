//! Rooms that the robot of an application sits in: groups, by their conversation's id, and persons, as `user:ID`.
//!
//! <https://help.dingtalk.io/open/development/the-robot-sends-a-group-message>,
//! <https://help.dingtalk.io/open/development/chatbots-send-one-on-one-chat-messages-in-batches>. Messages look like
//! those of a custom robot. Nothing pings: a message of this kind can name nobody.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{PACE, ROBOT};
use crate::channels::http::{self, Answer, Exchange, Platform, Verdict};
use crate::channels::{Channel, identity_of};
use crate::model::{Dialect, Message, Outcome, Repetitions, Terms, Timestamp};
use crate::net::{DEADLINE, Net};

pub const DIALECT: Dialect = Dialect { kind: "dingtalk-bot", ..ROBOT };

/// What the robot posts, wherever. `msgParam` is JSON as text, of at most 15,000 bytes.
/// <https://help.dingtalk.io/open/development/robot-message-type>
pub fn payload(message: &Message) -> Value {
    let whole = super::payload(message, None);
    let of = |name: &str| whole.get(name).map(Value::to_string);
    match of("actionCard") {
        Some(card) => json!({ "msgKey": "sampleActionCard", "msgParam": card }),
        None => json!({ "msgKey": "sampleMarkdown", "msgParam": of("markdown").unwrap_or_default() }),
    }
}

pub const PLATFORM: Platform = Platform { accepted, refused, wait, pause: |_| None };

/// The codes that the pages above and <https://help.dingtalk.io/open/development/call-frequency-limit> name, and some
/// that users report; others go by their status.
fn refused(answer: &Answer) -> Option<Verdict> {
    let said = answer.json();
    let code = said.get("code").and_then(Value::as_str).unwrap_or_default();
    let dead = |words: &str| Some(Verdict::Dead(words.to_owned()));
    let denied = |words: &str| Some(Verdict::Denied(words.to_owned()));
    let limited = |reason: &str| Some(Verdict::Limited { account: true, reason: reason.to_owned() });
    match code {
        TOO_FAST_FOR_APP | TOO_FAST_FOR_ALL => limited("DingTalk asks for fewer calls (QpsLimit)"),
        SPENT => limited("the organisation's calls to DingTalk's API are used up this month (ApiCountLimitForOrg)"),
        "Forbidden.AccessDenied.AccessTokenPermissionDenied" => denied(
            "DingTalk allows the application no messages; give it the permission to send messages with the robot (qyapi_robot_sendmsg)",
        ),
        "InvalidAuthentication" => denied("DingTalk refuses the application's access token (InvalidAuthentication)"),
        "invalidParameter.robotCode.auth" => {
            denied("the robot belongs to another application; put the right one into dingtalk.robot_code")
        }
        "resource.not.found"
        | "invalidParameter.robotCode.notExsit"
        | "invalidParameter.robotCode.empty"
        | "invalidParameter.robotCode.invalid" => {
            dead("DingTalk finds no such robot here; is it still in the group, and is dingtalk.robot_code right?")
        }
        "invalidParameter.openConversationId.invalid"
        | "invalid.openConversationId"
        | "openConversationId.notExisted"
        | "group.disbanded" => dead("the DingTalk group is not there any more, or not the robot's"),
        "bot.stopped" | "template.stopped" => dead("the DingTalk robot is switched off"),
        "staffId.notExisted" => dead(GONE),
        code if code.starts_with("Forbidden.AccessDenied") => {
            denied("DingTalk refuses the application's calls (Forbidden); see to its permissions and its IP list")
        }
        _ => match answer.status {
            401 | 403 => Some(Verdict::Denied(format!("DingTalk refuses the application (status {})", answer.status))),
            404 => dead("DingTalk knows no such room or robot (status 404)"),
            429 => limited("DingTalk asks for fewer calls (status 429)"),
            _ => None,
        },
    }
}

const TOO_FAST_FOR_APP: &str = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi";
const TOO_FAST_FOR_ALL: &str = "Forbidden.AccessDenied.QpsLimitForApi";
const SPENT: &str = "Forbidden.AccessDenied.ApiCountLimitForOrg";
const GONE: &str = "DingTalk knows no such person in the organisation any more";
/// What the firewall in front of DingTalk's API answers, with status 200, to an address that called too often: it is
/// shut out for five minutes.
const SHUT_OUT: i64 = 1111;
const PENALTY: Duration = Duration::from_secs(300);
/// Nobody says when a month's calls are bought anew.
const SPENT_WAIT: Duration = Duration::from_secs(3600);

fn accepted(answer: &Answer) -> Verdict {
    let said = answer.json();
    if said.get("status").and_then(Value::as_i64) == Some(SHUT_OUT) {
        let reason = "DingTalk has shut this machine's address out for some minutes (status 1111)".to_owned();
        return Verdict::Limited { account: true, reason };
    }
    // Of the persons a message is for, which is one.
    let names = |list: &str| said.get(list).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    match said.get("processQueryKey").and_then(Value::as_str) {
        _ if names("invalidStaffIdList") => Verdict::Dead(GONE.to_owned()),
        _ if names("flowControlledStaffIdList") => {
            Verdict::Limited { account: false, reason: "DingTalk asks for fewer messages to this person".to_owned() }
        }
        _ if names("filteredStaffIdList") => {
            Verdict::Dead("DingTalk keeps the robot's messages from this person".to_owned())
        }
        Some(key) => Verdict::Delivered(Some(key.to_owned())),
        None => Verdict::Unknown(format!("it answers with status {} but not with the message's key", answer.status)),
    }
}

fn wait(answer: &Answer) -> Option<f64> {
    let said = answer.json();
    match said.get("code").and_then(Value::as_str) {
        // The limit is one of calls a second.
        Some(TOO_FAST_FOR_APP | TOO_FAST_FOR_ALL) => Some(1.0),
        Some(SPENT) => Some(SPENT_WAIT.as_secs_f64()),
        _ if said.get("status").and_then(Value::as_i64) == Some(SHUT_OUT) => Some(PENALTY.as_secs_f64()),
        _ => None,
    }
}

/// What answers to the request for an access token mean where they hold none.
const TOKEN_PLATFORM: Platform = Platform {
    accepted: |answer| match accepted(answer) {
        limited @ Verdict::Limited { .. } => limited,
        _ => Verdict::Retry("DingTalk answers with no access token".to_owned()),
    },
    refused: |answer| match refused(answer) {
        limited @ Some(Verdict::Limited { .. }) => limited,
        _ if matches!(answer.status, 408 | 425 | 500..) => None,
        _ => Some(Verdict::Denied(REFUSED.to_owned())),
    },
    wait,
    pause: |_| None,
};

const REFUSED: &str =
    "DingTalk refuses the application's credentials; put valid ones into dingtalk.client_id and dingtalk.client_secret";
const BAD_TOKEN: &str = "DingTalk's access token holds characters no header may hold";
const LATE: &str = "no whole answer in time";

/// Used for less than its two hours, since clocks differ:
/// <https://help.dingtalk.io/open/development/obtain-the-access-token-of-an-internal-app>.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);
const TOKEN_LIFE: Duration = Duration::from_secs(7200);

struct Token {
    text: SecretString,
    until: Timestamp,
}

pub struct Bot {
    api: Url,
    client_id: String,
    secret: SecretString,
    robot_code: String,
    net: Net,
    /// Fetched by whoever needs it first; the others wait.
    token: Mutex<Option<Token>>,
}

impl Bot {
    /// `api` is the base URL: `https://api.dingtalk.com`.
    pub fn new(api: Url, (client_id, secret): (&str, SecretString), robot_code: &str, net: Net) -> Bot {
        let (client_id, robot_code) = (client_id.to_owned(), robot_code.to_owned());
        Bot { api, client_id, secret, robot_code, net, token: Mutex::new(None) }
    }

    /// As [`crate::channels::identity`], for the bot.
    pub fn identity(&self) -> String {
        let who = format!("{} {} {}", self.api, self.client_id, self.robot_code);
        identity_of(&who, self.secret.expose_secret())
    }

    fn endpoint(&self, path: &[&str]) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1.0").extend(path);
        }
        url
    }

    /// The token, and whether it was fetched for this.
    async fn token(&self, now: Timestamp) -> Result<(SecretString, bool), Outcome> {
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| now < token.until) {
            return Ok((token.text.clone(), false));
        }
        let body = json!({ "appKey": self.client_id, "appSecret": self.secret.expose_secret() });
        let url = self.endpoint(&["oauth2", "accessToken"]);
        let exchange = http::post(&self.net, &url, http::json_headers(), body.to_string().into_bytes()).await;
        if let Exchange::Answered(answer) = &exchange
            && let Some(token) = read_token(answer, now)
        {
            let text = token.text.clone();
            *kept = Some(token);
            return Ok((text, true));
        }
        Err(match http::judge(exchange, &TOKEN_PLATFORM, now) {
            // Whatever became of the request, no message left.
            Outcome::Unknown { after, reason } => Outcome::Retry { after, reason },
            outcome => outcome,
        })
    }

    /// The next one fetches it anew, unless somebody has already.
    async fn forget(&self, refused: &SecretString) {
        let mut kept = self.token.lock().await;
        if kept.as_ref().is_some_and(|token| token.text.expose_secret() == refused.expose_secret()) {
            *kept = None;
        }
    }

    async fn post(&self, room: &Room<'_>, message: &Message, now: Timestamp) -> Outcome {
        let until = Instant::now() + DEADLINE;
        let (token, is_fresh) = match timeout_at(until, self.token(now)).await {
            Ok(Ok(token)) => token,
            Ok(Err(outcome)) => return outcome,
            Err(_) => return Outcome::Retry { after: None, reason: "no access token in time".to_owned() },
        };
        let Some(headers) = headers(&token) else { return Outcome::Denied { reason: BAD_TOKEN.to_owned() } };
        let mut body = payload(message);
        let (path, to, id) = match room {
            Room::Group(id) => (["robot", "groupMessages", "send"], "openConversationId", json!(id)),
            Room::Person(id) => (["robot", "oToMessages", "batchSend"], "userIds", json!([id])),
        };
        if let Some(fields) = body.as_object_mut() {
            fields.insert("robotCode".to_owned(), self.robot_code.clone().into());
            fields.insert(to.to_owned(), id);
        }
        let url = self.endpoint(&path);
        let sending = http::post(&self.net, &url, headers, body.to_string().into_bytes());
        let exchange = timeout_at(until, sending).await.unwrap_or_else(|_| Exchange::Lost(LATE.to_owned()));
        let outcome = http::judge(exchange, &PLATFORM, now);
        if !matches!(outcome, Outcome::Denied { .. }) {
            return outcome;
        }
        self.forget(&token).await;
        if is_fresh {
            return outcome;
        }
        Outcome::Retry {
            after: None,
            reason: "DingTalk refuses the access token; the next try has a new one".to_owned(),
        }
    }
}

/// None where it is no token, or one that has ended.
fn read_token(answer: &Answer, now: Timestamp) -> Option<Token> {
    let said = answer.json();
    let text = said.get("accessToken").and_then(Value::as_str).filter(|text| !text.is_empty())?;
    let lasts = said.get("expireIn").and_then(Value::as_u64).map_or(TOKEN_LIFE, Duration::from_secs).min(TOKEN_LIFE);
    let until = now.checked_add(lasts.saturating_sub(TOKEN_MARGIN)).ok()?;
    Some(Token { text: text.to_owned().into(), until })
}

fn headers(token: &SecretString) -> Option<HeaderMap> {
    let mut headers = http::json_headers();
    http::add(&mut headers, "x-acs-dingtalk-access-token", token.expose_secret(), true).then_some(headers)
}

enum Room<'a> {
    Group(&'a str),
    Person(&'a str),
}

/// Characters of an id, at most; DingTalk's own have fewer than 100.
const ID_LIMIT: usize = 200;

fn room(address: &str) -> Option<Room<'_>> {
    let person = address.strip_prefix("user:");
    let id = person.unwrap_or(address);
    let fits = (1..=ID_LIMIT).contains(&id.chars().count()) && !id.contains(|c: char| c.is_control() || c == ' ');
    fits.then_some(if person.is_some() { Room::Person(id) } else { Room::Group(id) })
}

#[async_trait]
impl Channel for Bot {
    fn dialect(&self) -> Dialect {
        DIALECT
    }

    /// No pace of a room is published for this kind; what is, for custom robots, is a careful one.
    fn terms(&self) -> Terms {
        Terms { paces: &[PACE], repetitions: Repetitions::Shown }
    }

    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome {
        match room(address) {
            Some(room) => self.post(&room, message, now).await,
            None => Outcome::Dead { reason: "the room is neither a DingTalk conversation nor user:ID".to_owned() },
        }
    }

    /// Whether the credentials are good for an access token; whether the robot may post, only a message shows.
    async fn probe(&self) -> Result<(), String> {
        self.token(Timestamp::UNIX_EPOCH).await.map(drop).map_err(|outcome| outcome.reason().to_owned())
    }
}
