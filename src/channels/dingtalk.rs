//! DingTalk: custom robots, and rooms that the robot of an application sits in (`bot`).
//!
//! <https://open.dingtalk.com/document/robots/custom-robot-access>, international edition
//! <https://help.dingtalk.io/open/development/custom-robots-send-group-messages>. Failure hides in HTTP 200: only
//! `errcode` 0 is success. A robot that sends more than 20 messages in a minute is muted for ten.

pub mod bot;

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::http::{self, Answer, Platform, Verdict};
use super::sign::Signer;
use super::text::{cut, escape_with, link_target};
use super::{Channel, Manner, check_url, foot, read_secret, read_url};
use crate::model::{Dialect, Message, Outcome, Pace, Repetitions, Terms, Timestamp};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::{clean, clean_line, json_bytes, length};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The robot's URL with its access token; it is a secret.
    pub url: Secret,
    /// The signing secret (SEC…), when the robot uses signatures.
    pub secret: Option<Secret>,
    /// A word the robot requires in every message, when it uses keywords.
    pub keyword: Option<String>,
    #[serde(flatten)]
    pub manner: Manner,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.manner.check();
        problems.extend(check_url(&self.url, looks_right, "https://oapi.dingtalk.com/robot/send?access_token=<token>"));
        if let Some(keyword) = &self.keyword
            && !(1..=KEYWORD_LIMIT).contains(&keyword.trim().chars().count())
        {
            let message =
                format!("a keyword has 1 to {KEYWORD_LIMIT} characters; leave the key out if the robot needs none");
            problems.push(Problem::new("keyword", message));
        }
        problems
    }
}

fn looks_right(url: &Url) -> bool {
    url.path().ends_with("/robot/send")
        && url.query_pairs().any(|(name, token)| name == "access_token" && !token.is_empty())
}

pub const ROBOT: Dialect =
    Dialect { kind: "dingtalk", escape, escape_title, bold, link, limit: TEXT_LIMIT, measure: json_bytes };

/// Backslashes before Markdown's own where it stands as such, entities for HTML, which DingTalk's Markdown also reads.
/// The zero-width space ends bare links such as `dingtalk://`.
fn escape(data: &str) -> String {
    escape_with(&clean(data), |c, place| match c {
        '\\' => Some("\\\\"),
        '`' => Some("\\`"),
        '*' => Some("\\*"),
        '_' if !place.inside_word() => Some("\\_"),
        '{' => Some("\\{"),
        '}' => Some("\\}"),
        '[' => Some("\\["),
        ']' => Some("\\]"),
        '(' => Some("\\("),
        ')' => Some("\\)"),
        '#' => Some("\\#"),
        '+' if place.begins_line => Some("\\+"),
        '-' if place.begins_line => Some("\\-"),
        '.' if place.begins_line => Some("\\."),
        '!' => Some("\\!"),
        '>' => Some("\\>"),
        '~' => Some("\\~"),
        '|' => Some("\\|"),
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        ':' if place.before_slash() => Some(":\u{200b}"),
        _ => None,
    })
}

fn escape_title(data: &str) -> String {
    escape(&clean_line(data))
}

fn bold(escaped: &str) -> String {
    if escaped.trim().is_empty() { escaped.to_owned() } else { format!("**{escaped}**") }
}

fn link(label: &str, url: &str) -> String {
    link_target(url).map_or_else(|| label.to_owned(), |target| format!("[{label}]({target})"))
}

/// Of the whole body, in bytes. The page for application robots names this number; custom robots take a little more.
pub const BODY_LIMIT: usize = 15_000;
/// What title, preview, link, keyword and frame leave of it in any case.
const TEXT_LIMIT: usize = 10_000;
const PREVIEW_LIMIT: usize = 300;
const BUTTON_LIMIT: usize = 100;
const URL_LIMIT: usize = 2000;
const KEYWORD_LIMIT: usize = 100;
/// What is not text: names of fields, punctuation, the msgUuid.
const FRAME: usize = 400;

/// `keyword` is appended, as it was configured, to a text that doesn't hold it.
pub fn payload(message: &Message, keyword: Option<&str>) -> Value {
    let url = link_target(&message.url).filter(|url| length(url, json_bytes) <= URL_LIMIT);
    let button = cut(&clean_line(&message.url_label), BUTTON_LIMIT, json_bytes);
    let preview = clean_line(message.plain.lines().next().unwrap_or_default());
    let preview = if preview.is_empty() { foot(message).to_owned() } else { preview };
    let preview = cut(&preview, PREVIEW_LIMIT, json_bytes);

    let tail = keyword.map(|keyword| format!("\n\n{}", keyword.trim())).unwrap_or_default();
    let taken = [Some(&preview), url.as_ref(), Some(&button), Some(&tail)].into_iter().flatten();
    let taken: usize = taken.map(|text| length(text, json_bytes)).sum();
    let text = format!("#### {}\n\n{}", message.title.trim(), with_line_ends(message.body.trim()));
    let mut text = cut(text.trim(), BODY_LIMIT.saturating_sub(FRAME + taken), json_bytes);
    if !text.contains(tail.trim()) {
        text.push_str(&tail);
    }

    let id = message.id.to_string();
    match url {
        Some(url) if !button.is_empty() => json!({
            "msgtype": "actionCard",
            "actionCard": { "title": preview, "text": text, "singleTitle": button, "singleURL": url },
            "at": { "isAtAll": false },
            "msgUuid": id,
        }),
        _ => json!({
            "msgtype": "markdown",
            "markdown": { "title": preview, "text": text },
            "at": { "isAtAll": false },
            "msgUuid": id,
        }),
    }
}

/// A line ends in two spaces; a blank line stays one.
fn with_line_ends(body: &str) -> String {
    let lines: Vec<&str> = body.lines().map(str::trim_end).collect();
    lines.join("  \n")
}

pub const PLATFORM: Platform = Platform { accepted, refused: |_| None, wait, pause: |_| None };

const TOO_FAST: i64 = 130_101;
/// How long a robot is muted after more than 20 messages in a minute.
const PENALTY: Duration = Duration::from_secs(600);

fn errcode(answer: &Answer) -> Option<i64> {
    match answer.json().get("errcode")? {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_i64(),
    }
}

fn accepted(answer: &Answer) -> Verdict {
    let Some(code) = errcode(answer) else {
        return Verdict::Unknown(format!("it answers with status {} but not with DingTalk's errcode", answer.status));
    };
    match code {
        0 => Verdict::Delivered(None),
        -1 => Verdict::Retry("DingTalk is busy (errcode -1)".to_owned()),
        TOO_FAST => {
            Verdict::Limited { account: false, reason: "DingTalk asks for fewer messages (errcode 130101)".to_owned() }
        }
        310_000 => security(answer),
        90_030 => Verdict::Dead("the quota of DingTalk robot messages is used up (errcode 90030)".to_owned()),
        88 | 40_000..=40_999 | 300_001 | 400_101 => Verdict::Dead(format!(
            "DingTalk does not know the robot any more (errcode {code}); is it still in the group? Configure its URL anew"
        )),
        code => Verdict::Reject(format!("DingTalk does not accept this message (errcode {code})")),
    }
}

/// One code for all of the robot's security settings; only the words tell them apart.
fn security(answer: &Answer) -> Verdict {
    let json = answer.json();
    let said = json.get("errmsg").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["keyword", "关键词"]) {
        let reason = "the message lacks the keyword the DingTalk robot requires (errcode 310000); set keyword";
        return Verdict::Reject(reason.to_owned());
    }
    let reason = if says(&["ip ", "ip地址", "whitelist", "白名单"]) {
        "the DingTalk robot does not take messages from this machine's address (errcode 310000); add it to the robot"
    } else {
        "the DingTalk robot refuses the signature (errcode 310000); is the secret set and right, and this machine's \
         clock within an hour?"
    };
    Verdict::Dead(reason.to_owned())
}

fn wait(answer: &Answer) -> Option<f64> {
    let named = answer.json().get("wait").and_then(Value::as_f64).unwrap_or_default();
    (errcode(answer) == Some(TOO_FAST)).then(|| named.max(PENALTY.as_secs_f64()))
}

/// `[channels.NAME] kind = "dingtalk"`
pub struct Robot {
    url: Url,
    secret: Option<Secretive>,
    keyword: Option<String>,
    net: Net,
}

/// The secret is both the key and the second line of what is signed.
struct Secretive {
    text: secrecy::SecretString,
    signer: Signer,
}

impl Robot {
    pub fn new(settings: &Settings, net: &Net) -> Result<Robot, Problem> {
        let secret = match &settings.secret {
            Some(secret) => {
                let text = read_secret("secret", secret)?;
                let signer = Signer::new(text.expose_secret().as_bytes())
                    .ok_or_else(|| Problem::new("secret", "is empty; leave the key out if the robot does not sign"))?;
                Some(Secretive { text, signer })
            }
            None => None,
        };
        let url = read_url(&settings.url, net)?;
        Ok(Robot { url, secret, keyword: settings.keyword.clone(), net: net.clone() })
    }

    /// <https://open.dingtalk.com/document/robots/customize-robot-security-settings>
    fn signed_url(&self, now: Timestamp) -> Url {
        let mut url = self.url.clone();
        if let Some(Secretive { text, signer }) = &self.secret {
            let timestamp = now.as_millisecond().to_string();
            let sign = signer.sign(&[timestamp.as_bytes(), b"\n", text.expose_secret().as_bytes()]);
            url.query_pairs_mut().append_pair("timestamp", &timestamp).append_pair("sign", &sign);
        }
        url
    }
}

/// A tenth under the limit of 20 a minute, behind which the robot is blocked for ten minutes:
/// <https://help.dingtalk.io/open/development/custom-robots-send-group-messages>.
const PACE: Pace = Pace { count: 18, window: Duration::from_secs(60) };

#[async_trait]
impl Channel for Robot {
    fn dialect(&self) -> Dialect {
        ROBOT
    }

    /// The page above promises that a `msgUuid` is taken once, but only for the international edition; nothing rests
    /// on it.
    fn terms(&self) -> Terms {
        Terms { paces: &[PACE], repetitions: Repetitions::Shown }
    }

    async fn send(&self, _address: &str, message: &Message, now: Timestamp) -> Outcome {
        let body = payload(message, self.keyword.as_deref()).to_string().into_bytes();
        let exchange = http::post(&self.net, &self.signed_url(now), http::json_headers(), body).await;
        http::judge(exchange, &PLATFORM, now)
    }

    /// DingTalk has nothing to ask of a robot, so this shows only that its host answers.
    async fn probe(&self) -> Result<(), String> {
        http::reach(&self.net, &self.url).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::text::tests::bare;
    use proptest::prelude::*;

    #[test]
    fn lines_end_in_two_spaces() {
        assert_eq!(with_line_ends("a\nb\n\nc"), "a  \nb  \n  \nc");
    }

    #[test]
    fn the_signature_is_the_one_others_compute() {
        let secret = Secretive { text: "SECtest".to_owned().into(), signer: Signer::new(b"SECtest").unwrap() };
        let net = Net::new(&crate::net::Settings::default()).unwrap();
        let url = "https://oapi.dingtalk.com/robot/send?access_token=t".parse().unwrap();
        let robot = Robot { url, secret: Some(secret), keyword: None, net };
        let url = robot.signed_url(Timestamp::from_millisecond(1_700_000_000_000).unwrap());
        // Computed with Python's hmac and urllib.
        let expected = "access_token=t&timestamp=1700000000000&sign=aZLLrriXgn05YbwaGR7knYsLeJADjr9NwLaNNKpxh4g%3D";
        assert_eq!(url.query().unwrap(), expected);
    }

    proptest! {
        #[test]
        fn data_is_inert(data in prop_oneof![any::<String>(), "[-\\\\*_~`|>#!+.\\[\\](){}<&:@a1\n]{0,40}"]) {
            for bare in bare(&escape(&data)) {
                let is_live = match bare.c {
                    '_' => !bare.between(|c| c.is_ascii_alphanumeric()),
                    ':' => bare.after == Some('/'),
                    '+' | '-' | '.' => bare.line.chars().all(|c| c.is_ascii_digit() || c == ' '),
                    c => "`*{}[]()#!><~|".contains(c),
                };
                prop_assert!(!is_live, "{bare:?} is live");
            }
        }
    }
}
