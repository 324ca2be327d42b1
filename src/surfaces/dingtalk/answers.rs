//! From a message to the robot to what the conversation reads.
//!
//! An answer goes to the `sessionWebhook` that came with the message, which is a secret and good for some time
//! (<https://help.dingtalk.io/open/development/receive-message>). Everybody in a group reads it: DingTalk has no
//! answers that only the asker sees. It has no buttons there either, so what they would do stands in the text.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::stream::post;
use super::{NAME, Timing};
use crate::model::{Asker, Clock, Dialect, Reply, Request, Span, Text, Timestamp};
use crate::net::Net;
use crate::surfaces::{INBOX_CAPACITY, Inbox, NoAnswer, Once};
use crate::text::{clean_line_cut, cut, length};

/// A message that comes again within this does nothing.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// Characters of an id of DingTalk's, at most; its own have fewer than 100.
const ID_LIMIT: usize = 200;
/// Characters of what is typed, at most.
const TYPED_LIMIT: usize = 1000;
/// Of an answer that is for the asker alone, so many lines are shown to a group.
const LINES_IN_GROUPS: usize = 20;
const TITLE_LIMIT: usize = 60;
/// Attempts to hand over an answer that has certainly not arrived.
const TRIES: u32 = 3;

const OUTSIDER: &str = "No workspace is open to you here. Whoever runs me can change that.";
const TEXT_ONLY: &str = "I read text only, for example /watch with a run's id. /help says what I can do.";
const TOO_LATE: &str = "No answer came in time; ask again in a few minutes";
/// `errcode` of a busy DingTalk.
const BUSY: i64 = -1;

/// What answers need; shared by all of them.
pub(super) struct Desk {
    inbox: Inbox,
    once: Once,
    clock: Clock,
    net: Net,
    api: Url,
    dialect: Dialect,
    timing: Timing,
    /// Every answer on its way.
    pub(super) tasks: TaskTracker,
    /// Ends the answers that are not done in time at a stop.
    pub(super) over: CancellationToken,
}

/// A message to the robot, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    id: String,
    conversation: String,
    is_direct: bool,
    /// None: from outside the organisation.
    staff: Option<String>,
    /// None: a picture, a file and the like.
    typed: Option<String>,
    session: String,
    until: Timestamp,
}

impl Desk {
    pub(super) fn new(
        inbox: Inbox,
        once: Once,
        clock: Clock,
        net: Net,
        api: Url,
        dialect: Dialect,
        timing: Timing,
    ) -> Arc<Desk> {
        let (tasks, over) = (TaskTracker::new(), CancellationToken::new());
        Arc::new(Desk { inbox, once, clock, net, api, dialect, timing, tasks, over })
    }

    /// Answers in a task of its own.
    pub(super) fn hear(self: &Arc<Self>, data: &str) {
        let Some(heard) = read(data) else {
            return tracing::warn!("a message from DingTalk can't be read");
        };
        if self.tasks.len() >= INBOX_CAPACITY {
            return tracing::debug!("too many messages from DingTalk at once; this one is not answered");
        }
        let desk = Arc::clone(self);
        self.spawn(async move {
            if let Err(reason) = desk.answer(heard).await {
                tracing::warn!(reason, "an answer did not reach DingTalk");
            }
        });
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn answer(&self, heard: Heard) -> Result<(), String> {
        let now = (self.clock)();
        if heard.until <= now {
            return Err("the message came when its conversation took no answer any more".to_owned());
        }
        let url = self.session(&heard.session)?;
        let key = format!("{NAME}:{}", heard.id);
        let until = now.checked_add(REMEMBERED).unwrap_or(Timestamp::MAX);
        let reply = match (self.once)(key, now, until).await {
            Ok(true) => self.reply(&heard, now).await,
            Ok(false) => return Ok(()),
            Err(unknown) => private(unknown),
        };
        if heard.until <= (self.clock)() {
            return Err("it took longer than the conversation takes answers".to_owned());
        }
        self.say(&url, &answer(&reply, heard.is_direct, &self.dialect)).await
    }

    async fn reply(&self, heard: &Heard, at: Timestamp) -> Reply {
        let Some(staff) = &heard.staff else { return private(OUTSIDER) };
        let Some(typed) = &heard.typed else { return private(TEXT_ONLY) };
        // Messages to a person need the person's id; the conversation's is of no use there.
        let room = if heard.is_direct { format!("user:{staff}") } else { heard.conversation.clone() };
        let asker = Asker { surface: NAME.to_owned(), room, user: staff.clone(), roles: Vec::new() };
        let request = Request { asker, locale: String::new(), text: command(typed), at };
        match timeout(self.timing.late, self.inbox.ask(request)).await {
            Ok(reply) => reply.unwrap_or_else(|unanswered: NoAnswer| private(unanswered)),
            Err(_) => private(TOO_LATE),
        }
    }

    /// The address of a conversation, if it is DingTalk's: it came with the message, and what is sent there is read
    /// by whoever it belongs to.
    fn session(&self, text: &str) -> Result<Url, String> {
        let url: Url = text.parse().map_err(|_| "the conversation's address is no URL".to_owned())?;
        let host = url.host_str().unwrap_or_default();
        let is_of = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let is_dingtalks = url.scheme() == "https" && (is_of("dingtalk.com") || is_of("dingtalk.io"));
        let is_configured = url.scheme() == self.api.scheme() && url.host() == self.api.host();
        if is_dingtalks || is_configured { Ok(url) } else { Err("the conversation's address is not DingTalk's".into()) }
    }

    async fn say(&self, url: &Url, body: &Value) -> Result<(), String> {
        for tried in 1.. {
            let reason = match post(&self.net, url, body).await {
                Ok((_, said)) => match said.get("errcode").and_then(Value::as_i64) {
                    Some(0) => return Ok(()),
                    Some(BUSY) => "DingTalk is busy (errcode -1)".to_owned(),
                    Some(code) => return Err(format!("DingTalk does not take it (errcode {code})")),
                    None => return Err("DingTalk's answer could not be read".to_owned()),
                },
                Err(failure) if failure.never_left => failure.reason,
                Err(failure) => return Err(failure.reason),
            };
            if tried >= TRIES {
                return Err(reason);
            }
            tokio::time::sleep(self.timing.pause_first).await;
        }
        Ok(())
    }
}

fn private(words: impl ToString) -> Reply {
    Reply::to_asker(Text::default().plain(words.to_string()))
}

/// <https://help.dingtalk.io/open/development/receive-message>. None where it lacks what every message has.
fn read(data: &str) -> Option<Heard> {
    let data: Value = serde_json::from_str(data).ok()?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let field = |name: &str| data.get(name).and_then(text).filter(|text| !text.is_empty());
    let id = |name: &str| field(name).filter(|id| id.chars().count() <= ID_LIMIT && !id.contains(char::is_control));
    let typed = data.get("text").and_then(|said| said.get("content")).and_then(Value::as_str);
    Some(Heard {
        id: id("msgId")?,
        conversation: id("conversationId")?,
        is_direct: field("conversationType")? == "1",
        staff: id("senderStaffId"),
        typed: typed.filter(|_| field("msgtype").as_deref() == Some("text")).map(str::to_owned),
        session: field("sessionWebhook")?,
        until: Timestamp::from_millisecond(field("sessionWebhookExpiredTime")?.parse().ok()?).ok()?,
    })
}

/// What was typed, without the mention of the robot, where it is still there, and without the slash. A name may hold
/// spaces: behind a mention, the command is where the slash is.
fn command(typed: &str) -> String {
    let typed: String = typed.chars().take(TYPED_LIMIT).collect();
    let is_slash = |c: char| matches!(c, '/' | '／');
    let mut words: Vec<&str> = typed.split_whitespace().collect();
    if words.first().is_some_and(|word| word.starts_with('@')) {
        let begins = words.iter().position(|word| word.starts_with(is_slash)).unwrap_or_default();
        words.drain(..begins);
    }
    words.retain(|word| !word.starts_with('@'));
    words.join(" ").trim_start_matches(is_slash).to_owned()
}

/// The message object: <https://help.dingtalk.io/open/development/robot-message-type>. Nobody is pinged.
fn answer(reply: &Reply, is_direct: bool, dialect: &Dialect) -> Value {
    let title = clean_line_cut(&reply.text.to_string(), TITLE_LIMIT);
    let title = if title.is_empty() { "callboard".to_owned() } else { title };
    let most = if reply.private && !is_direct { LINES_IN_GROUPS } else { usize::MAX };
    let written = write(&reply.text, dialect);
    let mut lines: Vec<&str> = written.lines().map(str::trim_end).collect();
    if lines.len() > most {
        lines.truncate(most);
        lines.push("… the rest in a conversation with me alone");
    }
    json!({
        "msgtype": "markdown",
        "markdown": { "title": title, "text": lines.join("  \n") },
        "at": { "isAtAll": false },
    })
}

/// In DingTalk's markdown, data inert, cut to what a message holds. What is to be copied stands as it is: older clients
/// show code spans with their marks.
fn write(text: &Text, dialect: &Dialect) -> String {
    let mut written = String::new();
    for span in &text.0 {
        let piece = match span {
            Span::Plain(data) | Span::Code(data) => (dialect.escape)(data),
            Span::Bold(data) => (dialect.bold)(&(dialect.escape_title)(data)),
            Span::Link { label, url } => (dialect.link)(&(dialect.escape_title)(label), url),
        };
        let left = dialect.limit.saturating_sub(length(&written, dialect.measure));
        if length(&piece, dialect.measure) <= left {
            written.push_str(&piece);
            continue;
        }
        // No escape makes a text longer than six times what it was.
        let (Span::Plain(data) | Span::Code(data) | Span::Bold(data) | Span::Link { label: data, .. }) = span;
        written.push_str(&(dialect.escape)(&cut(data, left / 6, dialect.measure)));
        break;
    }
    if written.trim().is_empty() { "Nothing to show.".to_owned() } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{characters, json_bytes};
    use proptest::prelude::*;

    const DIALECT: Dialect = Dialect {
        kind: "test",
        escape: |data| data.replace('&', "&amp;").replace('*', "\\*"),
        escape_title: |data| data.replace('*', "\\*"),
        bold: |escaped| format!("**{escaped}**"),
        link: |label, url| format!("[{label}]({url})"),
        limit: 1000,
        measure: json_bytes,
    };

    #[test]
    fn a_command_is_found_behind_a_mention_and_without_one() {
        for (typed, expected) in [
            (" /watch 7b1e", "watch 7b1e"),
            ("watch 7b1e", "watch 7b1e"),
            ("@callboard /watch 7b1e", "watch 7b1e"),
            ("@callboard\u{2005}watch 7b1e", "watch 7b1e"),
            ("@Release Bot /watch 7b1e", "watch 7b1e"),
            ("／watch 7b1e @callboard", "watch 7b1e"),
            ("/watch 7b1e for:3d /runs", "watch 7b1e for:3d /runs"),
            ("@callboard", ""),
            (" \n ", ""),
        ] {
            assert_eq!(command(typed), expected, "{typed:?}");
        }
        assert_eq!(command(&"x".repeat(5000)).len(), TYPED_LIMIT);
    }

    #[test]
    fn a_message_is_read_as_the_vendor_shows_it() {
        let message = |changes: Value| {
            let mut message = json!({
                "conversationId": "cid6KeBBLov==", "atUsers": [{ "dingtalkId": "$:LWCP_v1:$x" }],
                "chatbotCorpId": "ding1", "chatbotUserId": "$:LWCP_v1:$y", "msgId": "msg0xs==", "senderNick": "Alice",
                "isAdmin": true, "senderStaffId": "manager7675", "sessionWebhookExpiredTime": 1_613_635_652_738_i64,
                "createAt": 1_613_630_252_678_i64, "senderCorpId": "ding1", "conversationType": "2",
                "senderId": "$:LWCP_v1:$z", "conversationTitle": "releases", "isInAtList": true,
                "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=x",
                "text": { "content": " /watch 7b1e" }, "msgtype": "text",
            });
            for (name, value) in changes.as_object().unwrap() {
                message[name] = value.clone();
            }
            read(&message.to_string())
        };
        let heard = message(json!({})).unwrap();
        assert_eq!(
            (heard.id.as_str(), heard.conversation.as_str(), heard.is_direct),
            ("msg0xs==", "cid6KeBBLov==", false)
        );
        assert_eq!(heard.staff.as_deref(), Some("manager7675"));
        assert_eq!(heard.typed.as_deref(), Some(" /watch 7b1e"));
        assert_eq!(heard.until.as_millisecond(), 1_613_635_652_738);

        assert!(message(json!({ "conversationType": "1" })).unwrap().is_direct);
        assert_eq!(message(json!({ "senderStaffId": null })).unwrap().staff, None);
        assert_eq!(message(json!({ "msgtype": "picture", "content": {} })).unwrap().typed, None);
        let as_text = message(json!({ "sessionWebhookExpiredTime": "1613635652738" }));
        assert_eq!(as_text, Some(heard));
        for lacking in ["msgId", "conversationId", "conversationType", "sessionWebhook", "sessionWebhookExpiredTime"] {
            assert_eq!(message(json!({ lacking: null })), None, "without {lacking}");
        }
        assert_eq!(message(json!({ "msgId": "x".repeat(ID_LIMIT + 1) })), None);
    }

    #[test]
    fn what_is_for_the_asker_alone_is_short_in_a_group() {
        let many = (0..50).fold(Text::default(), |text, n| text.plain(format!("line {n}")).line());
        let lines = |reply: &Reply, is_direct| {
            let body = answer(reply, is_direct, &DIALECT);
            body["markdown"]["text"].as_str().unwrap().lines().count()
        };
        assert_eq!(lines(&Reply::to_asker(many.clone()), false), LINES_IN_GROUPS + 1);
        assert_eq!(lines(&Reply::to_asker(many.clone()), true), 50);
        assert_eq!(lines(&Reply::to_room(many), false), 50);
        let empty = answer(&Reply::to_room(Text::default()), false, &DIALECT);
        assert_eq!(empty["markdown"], json!({ "title": "callboard", "text": "Nothing to show." }));
    }

    proptest! {
        #[test]
        fn no_answer_is_longer_than_a_message(plain in "[&*a-z\n]{0,1200}", bold in "\\PC{0,600}", code in "[&]{0,900}") {
            let text = Text::default().plain(plain).bold(bold).code(code).link("open", "https://x.example");
            let written = write(&text, &DIALECT);
            prop_assert!(length(&written, json_bytes) <= DIALECT.limit);
            prop_assert!(length(&written, characters) > 0);
        }

        #[test]
        fn no_message_is_too_much(data in any::<String>(), content in any::<String>()) {
            read(&data);
            let typed = command(&content);
            prop_assert!(!typed.starts_with('/') && typed.chars().count() <= TYPED_LIMIT);
        }
    }
}
