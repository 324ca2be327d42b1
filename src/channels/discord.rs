//! Discord: webhooks, and rooms the bot sits in.
//!
//! One embed per message. Lengths are counted in UTF-16 units, the strictest reading of the limits in
//! <https://docs.discord.com/developers/resources/message#embed-object-embed-limits>. Nothing ever pings:
//! `allowed_mentions` is sent with every message, and data can't form markup.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::http::{self, Answer, Exchange, Platform, Verdict};
use super::text::{cut, escape_with, link_target};
use super::{Channel, Manner, check_url, foot, identity_of, read_url};
use crate::model::{Button, Dialect, Message, Outcome, Pace, Repetitions, Terms, Timestamp};
use crate::net::Net;
use crate::settings::{Problem, Secret};
use crate::text::{clean, clean_line, length, utf16};

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The webhook's URL; it is the secret.
    pub url: Secret,
    #[serde(flatten)]
    pub manner: Manner,
}

impl Settings {
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = self.manner.check();
        problems.extend(check_url(&self.url, looks_right, "https://discord.com/api/webhooks/<id>/<token>"));
        problems
    }
}

/// `/api/webhooks/<id>/<token>`, with or without a version, on whatever host: Discord is often reached by a proxy.
fn looks_right(url: &Url) -> bool {
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        [.., "webhooks", id, _token] => !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

pub const WEBHOOK: Dialect =
    Dialect { kind: "discord-webhook", escape, escape_title, bold, link, limit: DESCRIPTION_LIMIT, measure: utf16 };
pub const BOT: Dialect = Dialect { kind: "discord", ..WEBHOOK };

/// Backslashes before what <https://docs.discord.com/developers/reference#message-formatting> and Discord's markdown
/// read as markup, where it stands as such.
fn escape(data: &str) -> String {
    escape_with(&clean(data), |c, place| match c {
        '\\' => Some("\\\\"),
        '*' => Some("\\*"),
        '_' if !place.inside_word() => Some("\\_"),
        '~' => Some("\\~"),
        '`' => Some("\\`"),
        '|' => Some("\\|"),
        '>' => Some("\\>"),
        '#' => Some("\\#"),
        '[' => Some("\\["),
        ']' => Some("\\]"),
        '(' => Some("\\("),
        ')' => Some("\\)"),
        // Mentions, custom emoji, timestamps and commands all begin with it.
        '<' => Some("\\<"),
        ':' if place.before_slash() || place.before_name() => Some("\\:"),
        '-' if place.begins_line => Some("\\-"),
        '.' if place.begins_line => Some("\\."),
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
    link_target(url).map_or_else(|| label.to_owned(), |target| format!("[{label}](<{target}>)"))
}

/// Discord publishes no number for a room and asks to go by the headers of its answers
/// (<https://docs.discord.com/developers/topics/rate-limits>). This is what we dare before they say more; what they
/// say comes as the pause after a success, and as the wait of a 429.
const PACE: Pace = Pace { count: 5, window: Duration::from_secs(5) };
/// Discord keeps a nonce for "the past few minutes"; we trust it for so long.
/// <https://docs.discord.com/developers/resources/message#create-message>
const NONCE_KEPT: Duration = Duration::from_secs(90);
const TITLE_LIMIT: usize = 256;
const DESCRIPTION_LIMIT: usize = 4096;
const URL_LIMIT: usize = 2048;

/// Title, description and footer together stay below the sum of 6000 by their own limits.
pub fn payload(message: &Message) -> Value {
    let title = cut(message.title.trim(), TITLE_LIMIT, utf16);
    let description = cut(message.body.trim(), DESCRIPTION_LIMIT, utf16);
    let mut embed = json!({
        "color": message.tone.color(),
        "footer": { "text": foot(message) },
        "timestamp": message.content.at().to_string(),
    });
    let url = link_target(&message.url).filter(|url| length(url, utf16) <= URL_LIMIT);
    if let Some(fields) = embed.as_object_mut() {
        let optional = [("title", Some(title)), ("description", Some(description)), ("url", url)];
        for (name, value) in optional {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                fields.insert(name.to_owned(), value.into());
            }
        }
    }
    json!({ "embeds": [embed], "allowed_mentions": { "parse": [] } })
}

/// What answers to a webhook mean.
pub const PLATFORM: Platform = Platform { accepted, refused, wait, pause: exhausted };
/// What answers to the bot mean: some are about all of its rooms.
pub const BOT_PLATFORM: Platform = Platform { refused: refused_bot, ..PLATFORM };

/// With `wait=true`, and for bots always, the message comes back. A relay before Discord may keep it to itself: a 2xx
/// that says nothing, or says something that is no error, is a success too. A page of HTML comes from somebody else.
fn accepted(answer: &Answer) -> Verdict {
    let unknown = |what: &str| Verdict::Unknown(format!("it answers with status {} but {what}", answer.status));
    match answer.json() {
        Value::Object(said) if is_error(&said) => unknown("with an error of Discord's"),
        Value::Object(said) => Verdict::Delivered(said.get("id").and_then(Value::as_str).map(str::to_owned)),
        _ if answer.is_empty() => Verdict::Delivered(None),
        _ => unknown("not with the message"),
    }
}

/// <https://docs.discord.com/developers/reference#error-messages>
fn is_error(said: &Map<String, Value>) -> bool {
    let has = |name: &str| said.get(name).is_some_and(|value| !value.is_null());
    (has("code") && has("message")) || has("error") || has("errors") || has("retry_after")
}

/// <https://docs.discord.com/developers/topics/opcodes-and-status-codes#json>
fn refused(answer: &Answer) -> Option<Verdict> {
    let code = answer.json().get("code").and_then(Value::as_i64)?;
    let dead = |words: &str| Some(Verdict::Dead(format!("{words} (Discord's code {code})")));
    match code {
        10003 => dead("the Discord channel no longer exists"),
        10015 => dead("the Discord webhook no longer exists; make a new one and configure its URL"),
        50027 => dead("the Discord webhook's token is not valid; configure the URL anew"),
        50001 => dead("the bot can't see the Discord channel; give it View Channel there"),
        50013 => dead("the bot may not write in the Discord channel; give it Send Messages and Embed Links there"),
        220_001 => dead("the webhook belongs to a Discord forum; add thread_id=<id> to its URL"),
        20016 | 20028 | 20029 => {
            let reason = format!("Discord asks for fewer messages (code {code})");
            Some(Verdict::Limited { account: false, reason })
        }
        40005 | 50006 | 50035 | 50109 => {
            Some(Verdict::Reject(format!("Discord does not accept this message (code {code})")))
        }
        _ => None,
    }
}

/// A 401 refuses the token, with which the bot writes in every room. What is too much for the bot as a whole is so for
/// each of its rooms.
fn refused_bot(answer: &Answer) -> Option<Verdict> {
    let said = refused(answer);
    match (answer.status, said) {
        (401, _) => Some(Verdict::Denied(REFUSED_TOKEN.to_owned())),
        (429, None) => Some(Verdict::Limited {
            account: is_account_wide(answer),
            reason: "Discord asks the bot for fewer messages (status 429)".to_owned(),
        }),
        (_, Some(Verdict::Limited { reason, .. })) => {
            Some(Verdict::Limited { account: is_account_wide(answer), reason })
        }
        (_, said) => said,
    }
}

/// <https://docs.discord.com/developers/topics/rate-limits#global-rate-limit>. What is not JSON comes from the network
/// before Discord, which sees only one sender.
fn is_account_wide(answer: &Answer) -> bool {
    let said = answer.json();
    let scope = header(answer, "x-ratelimit-scope").unwrap_or_default();
    let named = scope == "global" || header(answer, "x-ratelimit-global") == Some("true");
    match scope {
        _ if named || said.get("global") == Some(&Value::Bool(true)) => true,
        "user" | "shared" => false,
        _ => !said.is_object(),
    }
}

/// <https://docs.discord.com/developers/topics/rate-limits#exceeding-a-rate-limit>
fn wait(answer: &Answer) -> Option<f64> {
    let body = answer.json().get("retry_after").and_then(Value::as_f64);
    let is_limited = answer.status == 429 || body.is_some() && (400..500).contains(&answer.status);
    if is_limited { body.or_else(|| exhausted(answer)) } else { None }
}

/// Seconds until the room takes messages again, when this one was the last it took:
/// <https://docs.discord.com/developers/topics/rate-limits#header-format>.
fn exhausted(answer: &Answer) -> Option<f64> {
    let is_last = header(answer, "x-ratelimit-remaining")? == "0";
    if is_last { http::seconds(header(answer, "x-ratelimit-reset-after")?) } else { None }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok().map(str::trim)
}

/// `[channels.NAME] kind = "discord-webhook"`
pub struct Webhook {
    url: Url,
    net: Net,
}

impl Webhook {
    pub fn new(settings: &Settings, net: &Net) -> Result<Webhook, Problem> {
        Ok(Webhook { url: read_url(&settings.url, net)?, net: net.clone() })
    }

    /// Without `wait=true` Discord says nothing of a message that could not be saved.
    fn waiting_url(&self) -> Url {
        let mut url = self.url.clone();
        let others = self.url.query_pairs().filter(|(name, _)| name != "wait");
        url.query_pairs_mut().clear().extend_pairs(others).append_pair("wait", "true");
        url
    }
}

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
        let exchange = http::post(&self.net, &self.waiting_url(), http::json_headers(), body).await;
        http::judge(exchange, &PLATFORM, now)
    }

    /// Discord tells what a webhook is to whoever has its URL. A relay that only takes messages shows at least that its
    /// host answers.
    async fn probe(&self) -> Result<(), String> {
        match http::get(&self.net, &self.url, HeaderMap::new()).await {
            Exchange::Answered(answer) if matches!(answer.status, 405 | 501) => Ok(()),
            exchange => http::probed(exchange, &PLATFORM),
        }
    }
}

/// Rooms the bot sits in; the address is the channel's id.
pub struct Bot {
    api: Url,
    token: SecretString,
    net: Net,
}

impl Bot {
    /// `api` is the base URL: `https://discord.com`.
    pub fn new(api: Url, token: SecretString, net: Net) -> Bot {
        Bot { api, token, net }
    }

    /// As [`super::identity`], for the bot.
    pub fn identity(&self) -> String {
        identity_of(self.api.as_str(), self.token.expose_secret())
    }

    fn endpoint(&self, path: &[&str]) -> Url {
        let mut url = self.api.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v10"]).extend(path);
        }
        url
    }

    /// Discord wants bots to name themselves this way.
    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = http::json_headers();
        let token = format!("Bot {}", self.token.expose_secret());
        let agent = concat!("DiscordBot (callboard, ", env!("CARGO_PKG_VERSION"), ")");
        let fit = http::add(&mut headers, "authorization", &token, true)
            && http::add(&mut headers, "user-agent", agent, false);
        fit.then_some(headers)
    }
}

const REFUSED_TOKEN: &str = "Discord refuses the bot's token (status 401); put a valid one in discord.token";
const BAD_TOKEN: &str = "the Discord token holds characters no token has; configure it anew";

#[async_trait]
impl Channel for Bot {
    fn dialect(&self) -> Dialect {
        BOT
    }

    fn terms(&self) -> Terms {
        Terms { paces: &[PACE], repetitions: Repetitions::MergedFor(NONCE_KEPT) }
    }

    async fn send(&self, address: &str, message: &Message, now: Timestamp) -> Outcome {
        if !(1..=20).contains(&address.len()) || !address.bytes().all(|b| b.is_ascii_digit()) {
            return Outcome::Dead { reason: "the room is not the id of a Discord channel".to_owned() };
        }
        let Some(headers) = self.headers() else { return Outcome::Denied { reason: BAD_TOKEN.to_owned() } };
        let url = self.endpoint(&["channels", address, "messages"]);
        let body = bot_payload(message).to_string().into_bytes();
        http::judge(http::post(&self.net, &url, headers, body).await, &BOT_PLATFORM, now)
    }

    /// Asks what the bot asks anyway when it starts; a relay may know only the address without the bot's share.
    /// <https://docs.discord.com/developers/events/gateway#get-gateway-bot>
    async fn probe(&self) -> Result<(), String> {
        let headers = self.headers().ok_or(BAD_TOKEN)?;
        let ask = |path: &[&str]| {
            let (url, headers) = (self.endpoint(path), headers.clone());
            async move { http::get(&self.net, &url, headers).await }
        };
        let exchange = match ask(&["gateway", "bot"]).await {
            Exchange::Answered(answer) if answer.status == 404 => ask(&["gateway"]).await,
            exchange => exchange,
        };
        http::probed(exchange, &BOT_PLATFORM)
    }
}

/// Buttons in a row, characters of a label and of a button's id:
/// <https://docs.discord.com/developers/components/reference#button>
const BUTTONS_LIMIT: usize = 5;
const LABEL_LIMIT: usize = 80;
const BUTTON_ID_LIMIT: usize = 100;

/// A row of buttons, each with its command as its id, which comes back when it is pressed.
fn components(buttons: &[Button]) -> Vec<Value> {
    let fitting = buttons.iter().filter(|button| length(&button.command, utf16) <= BUTTON_ID_LIMIT);
    let button = |button: &Button| {
        let label = cut(&button.label, LABEL_LIMIT, utf16);
        json!({ "type": 2, "style": 2, "label": label, "custom_id": button.command })
    };
    let row: Vec<Value> = fitting.take(BUTTONS_LIMIT).map(button).collect();
    if row.is_empty() { Vec::new() } else { vec![json!({ "type": 1, "components": row })] }
}

/// As [`payload`], with buttons and with a nonce: for some minutes Discord answers a second message of the same nonce with the first.
/// <https://docs.discord.com/developers/resources/message#create-message>
pub fn bot_payload(message: &Message) -> Value {
    let mut payload = payload(message);
    if let Some(fields) = payload.as_object_mut() {
        fields.insert("nonce".to_owned(), nonce(message.id).into());
        fields.insert("enforce_nonce".to_owned(), true.into());
        if !message.buttons.is_empty() {
            fields.insert("components".to_owned(), components(&message.buttons).into());
        }
    }
    payload
}

/// The id in base 36: 128 bits fit exactly into the 25 characters a nonce may have.
fn nonce(id: uuid::Uuid) -> String {
    let mut rest = id.as_u128();
    let mut digits = Vec::new();
    while rest > 0 {
        digits.push(char::from_digit((rest % 36) as u32, 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::text::tests::bare;
    use proptest::prelude::*;

    #[test]
    fn nonces_fit_and_differ() {
        assert_eq!(nonce(uuid::Uuid::from_u128(u128::MAX)).len(), 25);
        assert_ne!(nonce(uuid::Uuid::from_u128(36)), nonce(uuid::Uuid::from_u128(37)));
    }

    #[test]
    fn webhook_urls_are_recognised() {
        for (url, right) in [
            ("https://discord.com/api/webhooks/1/x", true),
            ("https://discord.com/api/v10/webhooks/1/x?thread_id=2", true),
            ("https://proxy.example/discord/api/webhooks/1/x", true),
            ("https://discord.com/channels/1/2", false),
            ("https://discord.com/api/webhooks/1", false),
            ("https://hooks.slack.com/services/T/B/X", false),
        ] {
            assert_eq!(looks_right(&url.parse().unwrap()), right, "{url}");
        }
    }

    proptest! {
        /// Every character that could begin markup where it stands is behind a backslash of ours.
        #[test]
        fn data_is_inert(data in prop_oneof![any::<String>(), "[-\\\\*_~`|>#\\[\\]()<:@a1.\n]{0,40}"]) {
            for bare in bare(&escape(&data)) {
                let is_live = match bare.c {
                    '_' => !bare.between(|c| c.is_ascii_alphanumeric()),
                    ':' => bare.after.is_some_and(|c| c.is_ascii_alphabetic() || "/+-".contains(c)),
                    '-' | '.' => bare.line.chars().all(|c| c.is_ascii_digit() || c == ' '),
                    c => "*~`|>#[]()<".contains(c),
                };
                prop_assert!(!is_live, "{bare:?} is live");
            }
            prop_assert!(!escape_title(&data).contains('\n'));
        }
    }
}
