//! Slack: incoming webhooks here, the bot and its rooms in `bot`.
//!
//! Limits: <https://docs.slack.dev/reference/block-kit/blocks/>. A block that is too long refuses the message, so
//! everything is cut here. The link stands in the text, not on a button: a click on a button would be sent to the
//! app, and an app that is only a webhook has nowhere to take it.

mod bot;

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

pub use self::bot::{Access, BOT, BOT_PLATFORM, Bot, Room, RoomSettings, bot_payload};
use super::http::{self, Answer, Platform, Verdict};
use super::text::{cut, escape_with, link_target};
use super::{Channel, Manner, check_url, foot, read_url};
use crate::model::{Dialect, Message, Outcome, Pace, Repetitions, Terms, Timestamp};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::{clean, clean_line, length, utf16};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The incoming webhook's URL; it is the secret.
    pub url: Secret,
    #[serde(flatten)]
    pub manner: Manner,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.manner.check();
        problems.extend(check_url(&self.url, looks_right, "https://hooks.slack.com/services/T…/B…/…"));
        problems
    }
}

fn looks_right(url: &Url) -> bool {
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty()).collect();
    matches!(segments.as_slice(), [.., "services", _team, _hook, _token])
}

pub const WEBHOOK: Dialect =
    Dialect { kind: "slack-webhook", escape, escape_title, bold, link, limit: SECTION_LIMIT, measure: utf16 };

/// Three characters have entities (<https://docs.slack.dev/messaging/formatting-message-text#escaping>), which also
/// kills every mention: those live in `<…>` only. The others have no escape; where they could pair, a zero-width space
/// after them keeps them from it, and one before `>` keeps it from the beginning of its line, where it would quote.
fn escape(data: &str) -> String {
    escape_with(&clean(data), |c, place| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("\u{200b}&gt;"),
        '*' => Some("*\u{200b}"),
        '_' if !place.inside_word() => Some("_\u{200b}"),
        '~' => Some("~\u{200b}"),
        '`' => Some("`\u{200b}"),
        _ => None,
    })
}

/// Headers are plain text: no markup to neutralise.
fn escape_title(data: &str) -> String {
    escape_entities(&clean_line(data))
}

fn escape_entities(data: &str) -> String {
    escape_with(data, |c, _| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}

fn bold(escaped: &str) -> String {
    if escaped.trim().is_empty() { escaped.to_owned() } else { format!("*{escaped}*") }
}

fn link(label: &str, url: &str) -> String {
    let label: String = label.chars().filter(|c| !matches!(c, '|' | '<' | '>' | '\n')).collect();
    match link_target(url) {
        Some(target) => format!("<{}|{label}>", target.replace('&', "&amp;")),
        None => label,
    }
}

const HEADER_LIMIT: usize = 150;
const SECTION_LIMIT: usize = 3000;
/// Fifty blocks would be taken; nobody reads as much.
const SECTIONS: usize = 4;
const TEXT_LIMIT: usize = 4000;

pub fn payload(message: &Message) -> Value {
    let title = cut(message.title.trim(), HEADER_LIMIT, utf16);
    let label = clean_line(&message.url_label);
    let foot = match link_target(&message.url) {
        Some(_) if !label.is_empty() => format!("{} · {}", escape(foot(message)), link(&escape(&label), &message.url)),
        _ => escape(foot(message)),
    };
    let mut blocks = Vec::new();
    if !title.is_empty() {
        blocks.push(json!({ "type": "header", "text": { "type": "plain_text", "text": title, "emoji": false } }));
    }
    blocks.extend(
        sections(message.body.trim())
            .into_iter()
            .map(|text| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } })),
    );
    let foot = cut(&foot, SECTION_LIMIT, utf16);
    blocks.push(json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": foot, "verbatim": true }] }));
    json!({
        "text": cut(&escape(&message.plain), TEXT_LIMIT, utf16),
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
        "link_names": false,
    })
}

/// What is too long for one section goes on in the next, at the end of a line: a digest has to name everything it
/// tells. What is too long for all of them is cut.
fn sections(body: &str) -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for line in body.lines() {
        let line = cut(line, SECTION_LIMIT, utf16);
        let is_last = sections.len() == SECTIONS;
        match sections.last_mut() {
            Some(last) if length(last, utf16) + 1 + length(&line, utf16) <= SECTION_LIMIT => {
                last.push('\n');
                last.push_str(&line);
            }
            Some(last) if is_last => {
                *last = cut(&format!("{last}\n{line}"), SECTION_LIMIT, utf16);
                break;
            }
            _ if line.trim().is_empty() => {}
            _ => sections.push(line),
        }
    }
    sections
}

pub const PLATFORM: Platform = Platform { accepted, refused, wait: |_| None, pause: |_| None };

/// Slack says `ok`. A relay before it, or what only speaks like it, may say nothing or answer with JSON; a 2xx without
/// an error in it is a success too. A page of HTML comes from somebody else.
fn accepted(answer: &Answer) -> Verdict {
    let unknown = |what: &str| Verdict::Unknown(format!("it answers with status {} but {what}", answer.status));
    match answer.json() {
        Value::Object(said) if said.get("error").and_then(Value::as_str).is_some_and(is_too_many) => too_many(),
        Value::Object(said) if is_error(&said) => unknown("with an error of Slack's"),
        Value::Object(_) => Verdict::Delivered(None),
        _ if word(answer) == "ok" || answer.is_empty() => Verdict::Delivered(None),
        _ => unknown("not with Slack's \"ok\""),
    }
}

/// As Slack's other methods say it: <https://docs.slack.dev/apis/web-api/#responses>
fn is_error(said: &Map<String, Value>) -> bool {
    let has = |name: &str| said.get(name).is_some_and(|value| !value.is_null());
    said.get("ok").is_some_and(|ok| ok != &Value::Bool(true)) || has("error") || has("errors")
}

/// Slack spells it both ways: <https://docs.slack.dev/apis/web-api/rate-limits>.
fn is_too_many(word: &str) -> bool {
    matches!(word, "rate_limited" | "ratelimited")
}

fn too_many() -> Verdict {
    Verdict::Limited { account: false, reason: "Slack asks for fewer messages (rate_limited)".to_owned() }
}

/// The body of an answer is one word.
fn word(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).map(str::trim).unwrap_or_default()
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors>
fn refused(answer: &Answer) -> Option<Verdict> {
    const DEAD: [&str; 9] = [
        "no_service",
        "no_service_id",
        "no_team",
        "team_disabled",
        "channel_not_found",
        "channel_is_archived",
        "action_prohibited",
        "invalid_token",
        "posting_to_general_channel_denied",
    ];
    const REJECT: [&str; 5] =
        ["invalid_payload", "invalid_blocks", "user_not_found", "no_text", "too_many_attachments"];
    let said = word(answer);
    let among = |words: &[&'static str]| words.iter().copied().find(|word| *word == said);
    if let Some(word) = among(&DEAD) {
        return Some(Verdict::Dead(format!("Slack says {word}; make a new webhook and configure its URL")));
    }
    if let Some(word) = among(&REJECT) {
        return Some(Verdict::Reject(format!("Slack does not accept this message ({word})")));
    }
    if is_too_many(said) {
        return Some(too_many());
    }
    (said == "rollup_error").then(|| Verdict::Retry("Slack has a failure of its own (rollup_error)".to_owned()))
}

/// `[channels.NAME] kind = "slack-webhook"`
pub struct Webhook {
    url: Url,
    net: Net,
}

impl Webhook {
    pub fn new(settings: &Settings, net: &Net) -> Result<Webhook, Problem> {
        Ok(Webhook { url: read_url(&settings.url, net)?, net: net.clone() })
    }
}

/// One message a second; short bursts would pass, but nobody says how long: <https://docs.slack.dev/apis/web-api/rate-limits>.
const PACE: Pace = Pace { count: 1, window: Duration::from_secs(1) };

#[async_trait]
impl Channel for Webhook {
    fn dialect(&self) -> Dialect {
        WEBHOOK
    }

    fn terms(&self) -> Terms {
        Terms { paces: &[PACE], repetitions: Repetitions::Shown }
    }

    async fn send(&self, _address: &str, message: &Message, now: Timestamp) -> Outcome {
        let body = payload(message).to_string().into_bytes();
        http::judge(http::post(&self.net, &self.url, http::json_headers(), body).await, &PLATFORM, now)
    }

    /// Slack has nothing to ask of a webhook, so this shows only that its host answers.
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
    fn markup_in_data_is_neutral() {
        assert_eq!(escape("<!channel> *b* > q"), "&lt;!channel\u{200b}&gt; *\u{200b}b*\u{200b} \u{200b}&gt; q");
        assert_eq!(escape_title("a\n<b> *c*"), "a &lt;b&gt; *c*");
        assert_eq!(link("a|b", "https://x/?a=1&b=|"), "<https://x/?a=1&amp;b=%7C|ab>");
    }

    proptest! {
        #[test]
        fn data_is_inert(data in prop_oneof![any::<String>(), "[-\\\\*_~`|>#!<&;:@a1.\n]{0,40}"]) {
            let escaped = escape(&data);
            prop_assert!(!escaped.contains(['<', '>']));
            for bare in bare(&escaped).into_iter().filter(|bare| "*_~`".contains(bare.c)) {
                let in_word = bare.c == '_' && bare.between(|c| c.is_ascii_alphanumeric());
                prop_assert!(in_word || bare.after == Some('\u{200b}'), "{bare:?} is live");
            }
            prop_assert!(!escaped.lines().any(|line| line.starts_with("&gt;")));
        }
    }
}
