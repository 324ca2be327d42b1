//! The real channels against the sink: what arrives there, and what they say happened.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callboard::channels::http::{self, Platform};
use callboard::channels::{self, Channel, DIALECTS, Settings, console, dingtalk, discord, slack, webhook};
use callboard::model::{
    Change, ChangeKind, Content, Destination, Dialect, Folding, MOST_FOLDED, Message, Notice, NoticeKind, Outcome,
    Prefer, Snapshot, Stage, Status, Timestamp, Workspace,
};
use callboard::net::{self, Net};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::fake_dingtalk;
use crate::sink::{self, Answer, Sink};

const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SEC: &str = "SECfeedface";
const ROOM: &str = "123456789012345678";
const BOT_TOKEN: &str = "bot-token";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-24T08:00:10Z")
}

fn stage(code: &str, step: i64, status: Status, message: &str) -> Stage {
    let kind = if code == "PROD" { "Deploy" } else { "Check" };
    Stage { code: code.into(), name: format!("{code} stage"), step, kind: kind.into(), status, message: message.into() }
}

fn change(kind: ChangeKind) -> Change {
    let status = match &kind {
        ChangeKind::Finished { to, .. } => to.clone(),
        _ => Status::Running,
    };
    Change {
        workspace: Workspace { name: "warehouse".into(), region: "cn-shanghai".into(), project_id: 10000 },
        run: Snapshot {
            id: "7b1e04c2-20ec-4a7c-a214-54020f910000".parse().unwrap(),
            description: "orders_daily v12 <b> *bold* @everyone".into(),
            creator: "137946317766XXXX".into(),
            status,
            message: "the run's own words".into(),
            created_at: Some(at("2026-11-24T07:55:00Z")),
            modified_at: None,
            stages: vec![
                stage("PROD_CHECK", 1, Status::Success, ""),
                stage("PROD", 2, Status::Fail, "table \"ods_orders_di\"\ndoes not exist"),
            ],
        },
        url: "https://dataworks.example.com/run?id=7b1e04c2&x=(1)".into(),
        sequence: 4,
        at: at("2026-11-24T08:00:05.123Z"),
        unseen_since: None,
        kind,
    }
}

fn failed() -> ChangeKind {
    ChangeKind::StageChanged { stage: "PROD".into(), from: Status::Running, to: Status::Fail, took_ms: Some(190_000) }
}

/// As the renderer would write it.
fn message(dialect: Dialect, change: Change) -> Message {
    let Dialect { escape, escape_title, bold, link, .. } = dialect;
    let description = change.run.description.clone();
    let said = change.stage().map(|stage| stage.message.clone()).unwrap_or_default();
    Message {
        id: uuid::Uuid::from_u128(0x0193_5b7a_0000_7000_8000_0000_0000_0001),
        title: format!("❌ PROD failed · {}", escape_title(&description)),
        body: format!(
            "{} · Running → Fail\n“{}”\n{}",
            bold(&escape("Deploy")),
            escape(&said),
            link(&escape(&description), &change.url)
        ),
        plain: format!("❌ PROD failed · {description}\nDeploy · Running → Fail\n“{said}”"),
        tone: change.tone(),
        url: change.url.clone(),
        url_label: "Open in DataWorks".into(),
        buttons: Vec::new(),
        content: Content::Change(change),
    }
}

/// As the renderer would write it: a line for each change.
fn digest(dialect: Dialect, changes: Vec<Change>) -> Message {
    let lines = |escape: fn(&str) -> String, bold: fn(&str) -> String| -> Vec<String> {
        let line = |change: &Change| {
            let said = change.stage().map(|stage| stage.message.clone()).unwrap_or_default();
            format!("{} · PROD failed · “{}”", bold(&escape(&change.run.description)), escape(&said.replace('\n', " ")))
        };
        changes.iter().map(line).collect()
    };
    Message {
        title: format!("{} changes in 1 run", changes.len()),
        body: lines(dialect.escape, dialect.bold).join("\n"),
        plain: format!("{} changes in 1 run\n{}", changes.len(), lines(str::to_owned, str::to_owned).join("\n")),
        content: Content::Digest { changes, why: Folding::Rate },
        ..message(dialect, change(failed()))
    }
}

fn notices(reason: &str) -> Vec<Notice> {
    let (destination, since) = (Destination::Channel("ops".into()), at("2026-11-24T07:00:00Z"));
    let (surface, workspaces) = ("discord".to_owned(), vec!["warehouse".to_owned()]);
    let reason = reason.to_owned();
    let kinds = [
        NoticeKind::DestinationDead { destination: destination.clone(), reason: reason.clone() },
        NoticeKind::DestinationBack { destination: destination.clone(), since },
        NoticeKind::DestinationRefusing { destination: destination.clone(), reason: reason.clone() },
        NoticeKind::DestinationAccepting { destination, since },
        NoticeKind::BotDenied { surface: surface.clone(), reason: reason.clone() },
        NoticeKind::BotBack { surface, since },
        NoticeKind::SourceDenied { workspaces: workspaces.clone(), reason },
        NoticeKind::SourceBack { workspaces, since },
    ];
    kinds.map(|kind| Notice { at: at("2026-11-24T08:00:05.123Z"), kind }).to_vec()
}

/// As the renderer would write it.
fn notice(dialect: Dialect, reason: &str) -> Message {
    Message {
        title: "❌ Nothing is sent to ops".to_owned(),
        body: (dialect.escape)(reason),
        plain: format!("❌ Nothing is sent to ops\n{reason}"),
        url: String::new(),
        content: Content::Notice(notices(reason).swap_remove(0)),
        ..message(dialect, change(failed()))
    }
}

fn net_allowing(nets: &[&str], deadline: Duration) -> Net {
    let settings = net::Settings { allow_private: nets.iter().map(|net| net.parse().unwrap()).collect() };
    Net::with_deadline(&settings, deadline).unwrap()
}

fn net() -> Net {
    net_allowing(&["127.0.0.0/8"], Duration::from_secs(10))
}

fn build(settings: Value, net: &Net) -> Arc<dyn Channel> {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    assert_eq!(settings.check(), [], "{}", settings.kind());
    channels::build(&settings, None, net).unwrap()
}

/// One channel of a kind, where its messages arrive, and what else differs.
struct Party {
    channel: Arc<dyn Channel>,
    url: String,
    room: &'static str,
}

impl Party {
    async fn send(&self) -> Outcome {
        let message = message(self.channel.dialect(), change(failed()));
        self.channel.send(self.room, &message, now()).await
    }
}

/// Every kind that posts, on one sink.
fn parties(sink: &Sink, net: &Net) -> Vec<Party> {
    let party = |settings: Value| Party {
        url: settings["url"].as_str().unwrap().to_owned(),
        channel: build(settings, net),
        room: "",
    };
    let dingtalk = sink.dingtalk("ops", Some(SEC), Some("release-bot"));
    let webhook = sink.webhook("ci", Some(WHSEC));
    let api = sink.discord_bot(ROOM, BOT_TOKEN);
    let bot = discord::Bot::new(api.parse().unwrap(), BOT_TOKEN.to_owned().into(), net.clone());
    let slack_api = sink.slack_bot("xoxb-token");
    let access = slack::Access { api: slack_api.parse().unwrap(), token: "xoxb-token".to_owned().into() };
    let slack_bot = slack::Bot::new(access, net.clone());
    vec![
        party(json!({ "kind": "discord-webhook", "url": sink.discord_webhook("1") })),
        party(json!({ "kind": "slack-webhook", "url": sink.slack("X") })),
        party(json!({ "kind": "dingtalk", "url": dingtalk, "secret": SEC, "keyword": "release-bot" })),
        party(json!({ "kind": "webhook", "url": webhook, "secret": WHSEC })),
        Party { channel: Arc::new(bot), url: format!("{api}/api/v10/channels/{ROOM}/messages"), room: ROOM },
        Party { channel: Arc::new(slack_bot), url: format!("{slack_api}/chat.postMessage"), room: "C0123456789" },
    ]
}

fn platforms() -> [(&'static str, Platform); 6] {
    [
        ("discord", discord::PLATFORM),
        ("slack", slack::PLATFORM),
        ("dingtalk", dingtalk::PLATFORM),
        ("webhook", webhook::PLATFORM),
        ("discord bot", discord::BOT_PLATFORM),
        ("slack bot", slack::BOT_PLATFORM),
    ]
}

// ------------------------------------------------------------------------------------------------ what is sent

#[tokio::test]
async fn every_kind_delivers_and_breaks_no_rule() {
    let (sink, net) = (Sink::start().await, net());
    for party in parties(&sink, &net) {
        let outcome = party.send().await;
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{}: {outcome:?}", party.channel.dialect().kind);
        assert_eq!(party.channel.probe().await, Ok(()), "{}", party.channel.dialect().kind);
    }
    assert_eq!(sink.complaints(), [] as [&str; 0]);
    assert_eq!(sink.accepted().len(), 6);
    // Slack's methods are all posts; only one of them is a message.
    let is_message = |seen: &&sink::Seen| seen.method == "POST" && !seen.path.ends_with("/auth.test");
    let posts = sink.seen().iter().filter(is_message).count();
    assert_eq!(posts, 6, "a probe posted");
    let agent = concat!("callboard/", env!("CARGO_PKG_VERSION"));
    assert_eq!(sink.seen()[0].header("user-agent"), agent);
}

#[tokio::test]
async fn a_repeated_attempt_is_recognised_where_the_platform_can() {
    let (sink, net) = (Sink::start().await, net());
    for party in parties(&sink, &net) {
        sink.answer(&party.url, [Answer::CutOff, Answer::Drop]);
        let kind = party.channel.dialect().kind;
        let first = party.send().await;
        // A status of success is enough for a receiver of Standard Webhooks, and nobody else.
        let expected = if kind == "webhook" { "delivered" } else { "unknown" };
        assert_eq!(first.label(), expected, "{kind}: {first:?}");
        assert_eq!(party.send().await.label(), "unknown", "{kind}");
        assert_eq!(party.send().await.label(), "delivered", "{kind}");
    }
    assert_eq!(sink.complaints(), [] as [&str; 0]);
    let accepted = sink.accepted();
    let copies = |path: &str| accepted.iter().filter(|seen| seen.path.contains(path)).count();
    let without = (copies("/webhooks/"), copies("/services/"), copies("/chat.postMessage"));
    assert_eq!(without, (3, 3, 3), "these have no key");
    assert_eq!((copies("/robot/"), copies("/hooks/"), copies("/channels/")), (1, 1, 1), "these have one");
}

#[tokio::test]
async fn a_dingtalk_robot_that_is_too_fast_pauses_for_ten_minutes() {
    let (sink, net) = (Sink::start().await, net());
    let party = parties(&sink, &net).swap_remove(2);
    for _ in 0..20 {
        assert_eq!(party.send().await.label(), "delivered");
    }
    let limited = party.send().await;
    let ten_minutes = Some(Duration::from_secs(600));
    assert!(matches!(limited, Outcome::Limited { after, account: false, .. } if after == ten_minutes), "{limited:?}");
}

#[test]
fn payloads_look_as_agreed() {
    let write = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let of = |dialect| message(dialect, change(failed()));
    insta::assert_snapshot!("discord", write(&discord::bot_payload(&of(discord::BOT))));
    insta::assert_snapshot!("slack", write(&slack::payload(&of(slack::WEBHOOK))));
    insta::assert_snapshot!("dingtalk", write(&dingtalk::payload(&of(dingtalk::ROBOT), Some("release-bot"))));
    let mut unlinked = of(dingtalk::ROBOT);
    unlinked.url = String::new();
    insta::assert_snapshot!("dingtalk_without_link", write(&dingtalk::payload(&unlinked, None)));
    insta::assert_snapshot!("console", console::lines(&of(console::DIALECT)).replace('\u{1b}', "ESC"));
}

#[test]
fn bodies_of_the_generic_webhook_look_as_agreed() {
    let mut unseen = change(failed());
    unseen.run.created_at = None;
    unseen.run.stages.clear();
    let since = at("2026-11-24T07:59:00Z");
    let kinds = [
        ChangeKind::Started,
        failed(),
        ChangeKind::Waiting { stage: "PROD".into(), since },
        ChangeKind::Finished { from: Status::Running, to: Status::Unknown("Paused".into()), took_ms: None },
        ChangeKind::Lost { last_seen: since },
    ];
    let bodies = kinds.into_iter().map(change).chain([unseen]).map(|change| webhook::body(&Content::Change(change)));
    let lines: Vec<String> = bodies.map(|body| String::from_utf8(body).unwrap()).collect();
    insta::assert_snapshot!("webhook", lines.join("\n"));
}

#[test]
fn digests_and_notices_look_as_agreed() {
    let write = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let of = |dialect| digest(dialect, vec![change(ChangeKind::Started), change(failed())]);
    insta::assert_snapshot!("discord_digest", write(&discord::bot_payload(&of(discord::BOT))));
    insta::assert_snapshot!("slack_digest", write(&slack::payload(&of(slack::WEBHOOK))));
    insta::assert_snapshot!("dingtalk_digest", write(&dingtalk::payload(&of(dingtalk::ROBOT), None)));
    let told = |dialect| notice(dialect, "it no longer exists (status 404); configure a new URL");
    insta::assert_snapshot!("discord_notice", write(&discord::payload(&told(discord::WEBHOOK))));
    insta::assert_snapshot!("slack_notice", write(&slack::payload(&told(slack::WEBHOOK))));
    insta::assert_snapshot!("dingtalk_notice", write(&dingtalk::payload(&told(dingtalk::ROBOT), None)));
    let late = Content::Digest { changes: vec![change(ChangeKind::Started), change(failed())], why: Folding::Late };
    let contents = notices("it refuses the credentials").into_iter().map(Content::Notice).chain([late]);
    let lines: Vec<String> = contents.map(|content| String::from_utf8(webhook::body(&content)).unwrap()).collect();
    insta::assert_snapshot!("webhook_digest_and_notices", lines.join("\n"));
}

/// A digest has to name everything it tells.
#[test]
fn a_long_digest_goes_on_in_a_second_section_of_slack() {
    let long = |number: usize| {
        let mut change = change(failed());
        change.run.description = format!("number {number:02} {}", "x".repeat(280));
        change
    };
    let payload = slack::payload(&digest(slack::WEBHOOK, (1..=MOST_FOLDED).map(long).collect()));
    assert_eq!(sink::check_slack(&payload), Ok(()));
    let shown = payload["blocks"].to_string();
    for number in 1..=MOST_FOLDED {
        assert!(shown.contains(&format!("number {number:02}")), "change {number} is missing: {shown}");
    }
    assert_eq!(payload["blocks"].as_array().unwrap().len(), 5, "a header, three sections and the foot");

    let endless = (1..=500).map(long).collect();
    let payload = slack::payload(&digest(slack::WEBHOOK, endless));
    assert_eq!(sink::check_slack(&payload), Ok(()));
    assert!(payload["blocks"][4]["text"]["text"].as_str().unwrap().ends_with('…'), "{payload}");
}

#[tokio::test]
async fn the_console_shows_no_escape_sequences_of_data() {
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);
    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let screen = Screen::default();
    let console = console::Console::new(Box::new(screen.clone()));
    let mut message = message(console::DIALECT, change(failed()));
    message.plain = "PROD failed \u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\r\nnext\u{202e}".into();
    assert_eq!(console.send("", &message, now()).await, delivered());
    let shown = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
    let colours = ["\u{1b}[31m", "\u{1b}[0m", "\u{1b}[2m", "\u{1b}[0m"];
    let rest = colours.iter().fold(shown.clone(), |text, colour| text.replacen(colour, "", 1));
    assert!(!rest.chars().any(|c| c.is_control() && c != '\n') && !rest.contains('\u{202e}'), "{shown:?}");
    assert!(rest.starts_with("❌ PROD failed"), "{shown:?}");
    assert!(
        rest.ends_with("\n   Open in DataWorks: https://dataworks.example.com/run?id=7b1e04c2&x=(1)\n\n"),
        "{shown:?}"
    );

    message.url_label = "Open\u{1b}[2J\nhere".into();
    assert!(console::lines(&message).contains("Open here: https://"), "{:?}", console::lines(&message));
    for url in ["javascript:alert(1)", "file:///etc/passwd", "", "\u{1b}]8;;x"] {
        message.url = url.into();
        assert!(!console::lines(&message).contains("Open"), "{url:?} is no address of the web");
    }
}

#[test]
fn there_is_a_dialect_for_each_kind() {
    let kinds = DIALECTS.map(|dialect| dialect.kind);
    assert_eq!(
        kinds,
        ["discord", "discord-webhook", "slack", "slack-webhook", "dingtalk-bot", "dingtalk", "webhook", "console"]
    );
    let settings: Settings = serde_json::from_value(json!({ "kind": "console", "locale": "zh-CN" })).unwrap();
    assert_eq!((settings.kind(), settings.locale(), settings.timezone()), ("console", "zh-CN", "UTC"));
}

/// How fast each kind takes messages, and what becomes of a message sent twice.
#[tokio::test]
async fn the_terms_are_those_of_the_vendors() {
    let (sink, net) = (Sink::start().await, net());
    let console = build(json!({ "kind": "console" }), &net);
    let told: Vec<String> = parties(&sink, &net)
        .into_iter()
        .map(|party| party.channel)
        .chain([console])
        .map(|channel| {
            let terms = channel.terms();
            let paces: Vec<String> =
                terms.paces.iter().map(|pace| format!("{} in {:?}", pace.count, pace.window)).collect();
            format!("{}: {}, {:?}", channel.dialect().kind, paces.join(" and "), terms.repetitions)
        })
        .collect();
    assert_eq!(
        told,
        [
            "discord-webhook: 5 in 5s, Shown",
            "slack-webhook: 1 in 1s, Shown",
            "dingtalk: 18 in 60s, Shown",
            "webhook: , Merged",
            "discord: 5 in 5s, MergedFor(90s)",
            "slack: 1 in 1s, Shown",
            "console: , Shown",
        ]
    );
}

/// By it the dispatcher sees that somebody configured a dead destination anew.
#[test]
fn a_destination_is_recognised_until_its_url_or_secret_changes() {
    let identity = |settings: Value| channels::identity(&serde_json::from_value::<Settings>(settings).unwrap(), None);
    let ops = |url: &str, secret: &str| json!({ "kind": "dingtalk", "url": url, "secret": secret });
    let known = identity(ops("https://x.example/canary", "SECcanary"));
    assert!(known.len() == 8 && known.bytes().all(|b| b.is_ascii_hexdigit()), "{known}");
    let mut elsewhere = ops("https://x.example/canary", "SECcanary");
    elsewhere["locale"] = "zh-CN".into();
    assert_eq!(identity(elsewhere), known, "only what it is reached by counts");
    let others = [
        ops("https://x.example/canary2", "SECcanary"),
        ops("https://x.example/canary", "SECcanary2"),
        ops("https://x.example/canarySEC", "canary"),
        json!({ "kind": "dingtalk", "url": "https://x.example/canary" }),
    ];
    for other in others {
        assert_ne!(identity(other.clone()), known, "{other}");
    }
    let unread = json!({ "kind": "slack-webhook", "url": { "env": "CALLBOARD_TEST_NOT_SET" } });
    for (settings, why) in [(unread, "it can't be read"), (json!({ "kind": "console" }), "it has none")] {
        assert_eq!(identity(settings), "", "{why}");
    }
    let bot = |token: &str| {
        discord::Bot::new("https://discord.com".parse().unwrap(), token.to_owned().into(), net()).identity()
    };
    assert_eq!((bot("a"), bot("a").len()), (bot("a"), 8));
    assert_ne!(bot("a"), bot("b"));
}

#[test]
fn what_is_worth_more_is_no_loss_unless_configured() {
    for kind in ["discord-webhook", "slack-webhook", "dingtalk", "webhook", "console"] {
        let mut settings = json!({ "kind": kind });
        if kind != "console" {
            settings["url"] = "https://x.example/".into();
        }
        let read = |settings: &Value| serde_json::from_value::<Settings>(settings.clone());
        assert_eq!(read(&settings).unwrap().prefer(), Prefer::NoLoss, "{kind}");
        settings["prefer"] = "no_duplicate".into();
        assert_eq!(read(&settings).unwrap().prefer(), Prefer::NoDuplicate, "{kind}");
        settings["prefer"] = "nothing".into();
        assert!(read(&settings).is_err(), "{kind} takes any word");
        settings["prefer"] = "no_loss".into();
        settings["surprise"] = 1.into();
        assert!(read(&settings).is_err(), "{kind} takes any key");
    }
}

fn delivered() -> Outcome {
    Outcome::Delivered { message_id: None, pause: None }
}

fn text() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        any::<String>(),
        "[-\\\\*_~`|>#!<&;:@a1. \\[\\](){}\n]{0,60}",
        Just("<!channel> <@U1> @everyone [x](https://evil.example)".to_owned()),
        Just("👩‍👩‍👧‍👦e\u{301}中文\u{202e}\u{1b}[31m".to_owned()),
    ];
    (prop::collection::vec(pieces, 0..4), prop_oneof![8 => Just(1_usize), 1 => Just(200)])
        .prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_data_breaks_a_limit_or_comes_alive(description in text(), said in text(), label in text(), url in text(), keyword in "[a-z.*-]{1,20}") {
        let of = |dialect: Dialect| {
            let mut change = change(failed());
            change.run.description = description.clone();
            change.run.stages[1].message = said.clone();
            let mut message = message(dialect, change);
            message.url_label = label.clone();
            if !url.is_empty() {
                message.url = format!("https://x.example/{url}");
            }
            message
        };
        prop_assert_eq!(sink::check_discord(&discord::bot_payload(&of(discord::BOT))), Ok(()));
        prop_assert_eq!(sink::check_slack(&slack::payload(&of(slack::WEBHOOK))), Ok(()));
        let payload = dingtalk::payload(&of(dingtalk::ROBOT), Some(&keyword));
        prop_assert_eq!(sink::check_dingtalk(&payload), Ok(()));
        prop_assert!(payload.to_string().contains(&keyword), "the keyword is missing");
        prop_assert_eq!(fake_dingtalk::check(&dingtalk::bot::payload(&of(dingtalk::bot::DIALECT))), Ok(()));
        let body = webhook::body(&of(webhook::DIALECT).content);
        prop_assert_eq!(&body, &webhook::body(&of(webhook::DIALECT).content));
        prop_assert_eq!(console::lines(&of(console::DIALECT)).matches('\u{1b}').count(), 4, "the title, and the link");
    }

    #[test]
    fn no_digest_and_no_notice_breaks_a_limit(
        texts in prop::collection::vec((text(), text()), 1..=MOST_FOLDED),
        reason in text(),
        all_kinds in any::<bool>(),
    ) {
        let changes: Vec<Change> = texts.iter().enumerate().map(|(number, (description, said))| {
            let kind = if all_kinds && number % 2 == 0 { ChangeKind::Started } else { failed() };
            let mut change = change(kind);
            change.run.description = description.clone();
            change.run.stages[1].message = said.clone();
            change
        }).collect();
        for of in [&(|dialect| digest(dialect, changes.clone())) as &dyn Fn(Dialect) -> Message, &|dialect| notice(dialect, &reason)] {
            prop_assert_eq!(sink::check_discord(&discord::bot_payload(&of(discord::BOT))), Ok(()));
            prop_assert_eq!(sink::check_slack(&slack::payload(&of(slack::WEBHOOK))), Ok(()));
            prop_assert_eq!(sink::check_dingtalk(&dingtalk::payload(&of(dingtalk::ROBOT), Some("release"))), Ok(()));
            prop_assert_eq!(fake_dingtalk::check(&dingtalk::bot::payload(&of(dingtalk::bot::DIALECT))), Ok(()));
            let body = webhook::body(&of(webhook::DIALECT).content);
            prop_assert!(body.len() < 20_000, "{} bytes", body.len());
            prop_assert_eq!(&body, &webhook::body(&of(webhook::DIALECT).content));
        }
    }
}

/// Every text as long as DataWorks' are kept, of characters that JSON writes longest.
#[test]
fn no_body_of_the_generic_webhook_reaches_its_limit() {
    for worst in ["\u{1}", "中"] {
        let of = |bytes: usize| worst.repeat(bytes / worst.len());
        let grow = |mut change: Change| {
            change.run.id = "7".repeat(64).parse().unwrap();
            change.workspace.name = "w".repeat(32);
            (change.workspace.project_id, change.sequence) = (i64::MIN, i64::MIN);
            (change.run.description, change.run.creator, change.run.message) = (of(1024), of(128), of(4096));
            change.run.status = Status::Unknown(of(128));
            change.url = format!("https://x.example/{}", "x".repeat(3_000));
            let stage = |number: usize| Stage {
                code: if number == 0 { "PROD".to_owned() } else { format!("{}#{number}", of(128)) },
                name: of(1024),
                step: i64::MIN,
                kind: of(128),
                status: Status::Unknown(of(128)),
                message: of(4096),
            };
            change.run.stages = (0..256).map(stage).collect();
            change
        };
        let odd = || Status::Unknown(of(128));
        let (stage, since) = ("PROD".to_owned(), now());
        let kinds = [
            ChangeKind::Started,
            ChangeKind::StageChanged { stage: stage.clone(), from: odd(), to: odd(), took_ms: None },
            ChangeKind::StageChanged { stage: of(128), from: odd(), to: odd(), took_ms: None },
            ChangeKind::Waiting { stage, since },
            ChangeKind::Finished { from: odd(), to: odd(), took_ms: None },
            ChangeKind::Lost { last_seen: since },
        ];
        let changes = kinds.map(|kind| grow(change(kind))).to_vec();
        let digest = |changes| Content::Digest { changes, why: Folding::Rate };
        let mixed = changes.iter().cycle().take(MOST_FOLDED).cloned().collect();
        let longest = vec![changes[1].clone(); MOST_FOLDED];
        let contents = changes.into_iter().map(Content::Change).chain([digest(mixed), digest(longest)]);
        for content in contents {
            let bytes = webhook::body(&content).len();
            assert!(bytes < 20_000, "{} of {worst:?} has {bytes} bytes", content.event_type());
        }
    }
    for notice in notices(&"\u{1}".repeat(4096)) {
        let notice = match notice.kind {
            NoticeKind::SourceDenied { reason, .. } => {
                Notice { kind: NoticeKind::SourceDenied { workspaces: vec!["w".repeat(32); 5_000], reason }, ..notice }
            }
            _ => notice,
        };
        assert!(webhook::body(&Content::Notice(notice.clone())).len() < 20_000, "{notice:?}");
    }
}

/// Where there is room, nothing is shortened for the sake of a digest.
#[test]
fn the_changes_of_a_digest_are_the_same_objects_as_by_themselves() {
    let changes = vec![change(ChangeKind::Started), change(failed()), change(ChangeKind::Lost { last_seen: now() })];
    let read = |content: &Content| serde_json::from_slice::<Value>(&webhook::body(content)).unwrap();
    let alone: Vec<Value> = changes.iter().map(|change| read(&Content::Change(change.clone()))).collect();
    let together = read(&Content::Digest { changes, why: Folding::Late });
    assert_eq!(together["data"]["changes"], Value::from(alone));
    assert_eq!(together["data"]["why"], "late");
}

// ------------------------------------------------------------------------------------------- what answers mean

/// The outcome of each status with an empty body, as ranges.
#[test]
fn the_table_of_all_statuses() {
    let mut table = String::new();
    for (kind, platform) in platforms() {
        let label = |status| http::classify(&http::Answer { status, ..Default::default() }, &platform, now()).label();
        let mut first = 100;
        for status in 100..=599 {
            if status == 599 || label(status) != label(status + 1) {
                table.push_str(&format!("{kind} {first}-{status} {}\n", label(status)));
                first = status + 1;
            }
        }
    }
    insta::assert_snapshot!("statuses", table);
}

#[test]
fn each_code_of_a_platform_has_its_outcome() {
    let discord = |code: i64| json!({ "code": code, "message": "m" }).to_string();
    assert_outcomes(vec![
        (0, 200, json!({ "id": "9" }).to_string(), "delivered"),
        (0, 204, String::new(), "delivered"),
        (0, 200, String::new(), "delivered"),
        (0, 200, "{}".into(), "delivered"),
        (0, 202, json!({ "queued": true }).to_string(), "delivered"),
        (0, 200, discord(50013), "unknown"),
        (0, 200, json!({ "errors": ["no"] }).to_string(), "unknown"),
        (0, 200, json!({ "retry_after": 3, "global": false }).to_string(), "unknown"),
        (0, 200, "[]".into(), "unknown"),
        (0, 200, " ".into(), "unknown"),
        (0, 200, "ok".into(), "unknown"),
        (0, 200, "<html>proxy</html>".into(), "unknown"),
        (0, 404, discord(10015), "dead"),
        (0, 404, discord(10003), "dead"),
        (0, 401, discord(50027), "dead"),
        (0, 401, discord(0), "dead"),
        (0, 403, discord(50001), "dead"),
        (0, 403, discord(50013), "dead"),
        (0, 400, discord(220_001), "dead"),
        (0, 400, discord(50035), "rejected"),
        (0, 400, discord(50006), "rejected"),
        (0, 429, discord(20016), "limited"),
        (0, 403, discord(20028), "limited"),
        (0, 400, discord(20029), "limited"),
        (4, 200, json!({ "id": "9" }).to_string(), "delivered"),
        (4, 401, discord(0), "denied"),
        (4, 401, "<html>proxy</html>".into(), "denied"),
        (4, 403, discord(50001), "dead"),
        (4, 403, discord(50013), "dead"),
        (4, 404, discord(10003), "dead"),
        (4, 400, discord(50035), "rejected"),
        (4, 429, discord(20016), "limited"),
        (4, 403, discord(20028), "limited"),
        (1, 200, "ok".into(), "delivered"),
        (1, 200, "ok\n".into(), "delivered"),
        (1, 200, String::new(), "delivered"),
        (1, 204, String::new(), "delivered"),
        (1, 200, "{}".into(), "delivered"),
        (1, 200, json!({ "ok": true }).to_string(), "delivered"),
        (1, 200, json!({ "ok": "false" }).to_string(), "unknown"),
        (1, 200, json!({ "error": "invalid_auth" }).to_string(), "unknown"),
        (1, 200, "[]".into(), "unknown"),
        (1, 200, "<html>ok</html>".into(), "unknown"),
        (1, 200, json!({ "ok": false }).to_string(), "unknown"),
        (1, 404, "no_service".into(), "dead"),
        (1, 404, "channel_not_found".into(), "dead"),
        (1, 410, "channel_is_archived".into(), "dead"),
        (1, 403, "action_prohibited".into(), "dead"),
        (1, 403, "invalid_token".into(), "dead"),
        (1, 400, "invalid_blocks".into(), "rejected"),
        (1, 400, "no_text".into(), "rejected"),
        (1, 404, "user_not_found".into(), "rejected"),
        (1, 500, "rollup_error".into(), "retry"),
        (1, 429, "rate_limited".into(), "limited"),
        (1, 400, "rate_limited".into(), "limited"),
        (1, 200, json!({ "ok": false, "error": "ratelimited" }).to_string(), "limited"),
    ]);
}

#[test]
fn each_code_of_dingtalk_has_its_outcome_and_a_webhook_has_its_status() {
    let dingtalk = |code: i64, said: &str| json!({ "errcode": code, "errmsg": said }).to_string();
    assert_outcomes(vec![
        (2, 200, dingtalk(0, "ok"), "delivered"),
        (2, 200, json!({ "errcode": "0" }).to_string(), "delivered"),
        (2, 200, json!({ "errcode": null }).to_string(), "unknown"),
        (2, 200, json!({ "errcode": 0.5 }).to_string(), "unknown"),
        (2, 200, "[]".into(), "unknown"),
        (2, 200, String::new(), "unknown"),
        (2, 200, "<html>proxy</html>".into(), "unknown"),
        (2, 200, dingtalk(-1, "system busy"), "retry"),
        (2, 200, dingtalk(130_101, "send too fast"), "limited"),
        (2, 200, dingtalk(310_000, "keywords not in content"), "rejected"),
        (2, 200, dingtalk(310_000, "关键词不匹配"), "rejected"),
        (2, 200, dingtalk(310_000, "sign not match"), "dead"),
        (2, 200, dingtalk(310_000, "invalid timestamp"), "dead"),
        (2, 200, dingtalk(310_000, "ip 1.2.3.4 not in whitelist"), "dead"),
        (2, 200, dingtalk(300_001, "token is not exist"), "dead"),
        (2, 200, dingtalk(40_035, "bad"), "dead"),
        (2, 200, dingtalk(90_030, "webhook over limit"), "dead"),
        (2, 200, dingtalk(460_101, "message too long"), "rejected"),
        (3, 200, "<html>anything</html>".into(), "delivered"),
        (3, 410, String::new(), "dead"),
    ]);
}

/// Place in [`platforms`], status and body of an answer, and the outcome.
fn assert_outcomes(cases: Vec<(usize, u16, String, &str)>) {
    for (platform, status, body, expected) in cases {
        let answer = http::Answer { status, body: body.clone().into_bytes(), ..Default::default() };
        let (kind, platform) = &platforms()[platform];
        let outcome = http::classify(&answer, platform, now());
        assert_eq!(outcome.label(), expected, "{kind} {status} {body}: {outcome:?}");
    }
}

/// Where one room's answer means that the bot's other rooms have to wait too.
#[test]
fn what_is_too_much_for_the_bot_is_told_from_what_is_too_much_for_a_room() {
    let said = |global: bool| json!({ "message": "slow down", "retry_after": 2.5, "global": global }).to_string();
    let scope = |scope| vec![("x-ratelimit-scope", scope)];
    let code = json!({ "code": 20029, "message": "slow down" }).to_string();
    for (headers, body, account) in [
        (vec![], said(false), false),
        (vec![], said(true), true),
        (scope("user"), said(false), false),
        (scope("shared"), said(false), false),
        (scope("shared"), String::new(), false),
        (scope("global"), said(false), true),
        (vec![("x-ratelimit-global", "true")], said(false), true),
        (vec![("x-ratelimit-global", "true"), ("x-ratelimit-scope", "user")], said(true), true),
        (vec![], code.clone(), false),
        (scope("global"), code, true),
        (vec![], "error code: 1015".to_owned(), true),
        (vec![], String::new(), true),
    ] {
        let answer = answer(429, &headers, &body);
        let of = |platform| match http::classify(&answer, platform, now()) {
            Outcome::Limited { account, .. } => account,
            other => panic!("{headers:?} {body}: {other:?}"),
        };
        assert_eq!(of(&discord::BOT_PLATFORM), account, "{headers:?} {body}");
        assert!(!of(&discord::PLATFORM), "a webhook stands for itself: {headers:?} {body}");
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> http::Answer {
    let mut answer = http::Answer { status, body: body.as_bytes().to_vec(), ..Default::default() };
    for (name, value) in headers {
        answer.headers.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    answer
}

fn pause(platform: &Platform, remaining: &str, reset_after: &str) -> Option<u128> {
    let headers = [("x-ratelimit-remaining", remaining), ("x-ratelimit-reset-after", reset_after)];
    match http::classify(&answer(200, &headers, r#"{"id":"9"}"#), platform, now()) {
        Outcome::Delivered { pause, .. } => pause.map(|pause| pause.as_millis()),
        other => panic!("{remaining:?} {reset_after:?}: {other:?}"),
    }
}

#[test]
fn the_last_message_that_a_room_takes_says_how_long_to_pause() {
    for (remaining, reset_after, expected) in [
        ("0", "2.5", Some(2_500)),
        (" 0 ", " 2.5 ", Some(2_500)),
        ("0", "0.25", Some(1_000)),
        ("0", "0", Some(1_000)),
        ("0", "1e300", Some(86_400_000)),
        ("0", "-1", None),
        ("0", "NaN", None),
        ("0", "inf", None),
        ("0", "soon", None),
        ("0", "", None),
        ("1", "2.5", None),
        ("", "2.5", None),
    ] {
        for platform in [discord::PLATFORM, discord::BOT_PLATFORM] {
            assert_eq!(pause(&platform, remaining, reset_after), expected, "{remaining:?} {reset_after:?}");
        }
        assert_eq!(pause(&webhook::PLATFORM, remaining, reset_after), None, "these headers are Discord's");
    }
    let bare = http::classify(&answer(204, &[], ""), &discord::PLATFORM, now());
    assert_eq!(bare, delivered(), "an answer without headers");
}

proptest! {
    #[test]
    fn no_pause_is_shorter_than_a_second_or_longer_than_a_day(
        remaining in prop_oneof![3 => Just("0".to_owned()), 1 => "[ -~]{0,10}"],
        reset_after in prop_oneof!["[ -~]{0,40}", "-?[0-9]{1,30}(\\.[0-9]{0,10})?(e[0-9]{1,3})?"],
    ) {
        let paused = pause(&discord::PLATFORM, &remaining, &reset_after);
        let well = reset_after.trim().parse().is_ok_and(|seconds: f64| seconds.is_finite() && seconds >= 0.0);
        prop_assert_eq!(paused.is_some(), remaining.trim() == "0" && well);
        prop_assert!(paused.is_none_or(|ms| (1_000..=86_400_000).contains(&ms)), "{paused:?}");
    }
}

#[test]
fn nothing_said_counts_only_when_it_was_said_to_the_end() {
    let broken_off = http::Answer { status: 200, broken_off: true, ..Default::default() };
    for (kind, platform) in platforms().into_iter().filter(|(kind, _)| !["dingtalk", "webhook"].contains(kind)) {
        assert_eq!(http::classify(&broken_off, &platform, now()).label(), "unknown", "{kind}");
    }
}

#[tokio::test]
async fn a_probe_of_discord_takes_a_relay_for_what_it_is() {
    let (sink, net) = (Sink::start().await, net());
    let url = sink.discord_webhook("1");
    let hook = build(json!({ "kind": "discord-webhook", "url": url }), &net);
    for status in [405, 501] {
        sink.answer(&url, [Answer::status(status)]);
        assert_eq!(hook.probe().await, Ok(()), "a relay that only takes messages answers {status}");
    }
    for status in [401, 404, 500] {
        sink.answer(&url, [Answer::status(status)]);
        assert!(hook.probe().await.is_err(), "{status}");
    }

    let api = sink.discord_bot(ROOM, BOT_TOKEN);
    let bot = discord::Bot::new(api.parse().unwrap(), BOT_TOKEN.to_owned().into(), net);
    let (share, plain) = (format!("{api}/api/v10/gateway/bot"), format!("{api}/api/v10/gateway"));
    let gateway = || Answer::json(200, &[], json!({ "url": "wss://gateway.example" }));
    sink.answer(&share, [gateway(), Answer::status(404), Answer::status(404), Answer::status(401)]);
    sink.answer(&plain, [gateway(), Answer::status(404)]);
    assert_eq!(bot.probe().await, Ok(()));
    assert_eq!(bot.probe().await, Ok(()), "a relay that knows only the plain address");
    assert!(bot.probe().await.is_err(), "neither address is there");
    assert!(bot.probe().await.is_err(), "the token is wrong");
    let asked: Vec<String> = sink.seen().iter().skip(5).map(|seen| seen.path.clone()).collect();
    let expected = ["/gateway/bot", "/gateway/bot", "/gateway", "/gateway/bot", "/gateway", "/gateway/bot"];
    assert_eq!(asked, expected.map(|path| format!("/api/v10{path}")));
}

#[tokio::test]
async fn waits_are_heard_in_every_form() {
    let (sink, net) = (Sink::start().await, net());
    let empty = json!({});
    let parties = parties(&sink, &net);
    let cases = [
        (1, Answer::json(429, &[("retry-after", "7")], empty.clone()), Some(7_000)),
        (3, Answer::json(503, &[("retry-after", "Tue, 24 Nov 2026 08:01:10 GMT")], empty.clone()), Some(60_000)),
        (3, Answer::json(504, &[("retry-after", "3")], empty.clone()), Some(3_000)),
        (3, Answer::json(429, &[("retry-after", "soon")], empty.clone()), None),
        (0, Answer::json(429, &[("retry-after", "1")], json!({ "retry_after": 1.337, "global": false })), Some(1_337)),
        (
            4,
            Answer::json(429, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset-after", "2.5")], empty),
            Some(2_500),
        ),
        (2, Answer::json(200, &[], json!({ "errcode": 130_101, "status": 1111, "wait": 5 })), Some(600_000)),
    ];
    for (party, answer, expected) in cases {
        let party = &parties[party];
        sink.answer(&party.url, [answer.clone()]);
        let outcome = party.send().await;
        let (Outcome::Limited { after, .. } | Outcome::Unknown { after, .. }) = outcome else {
            panic!("{answer:?} is not tried again: {outcome:?}")
        };
        assert_eq!(after.map(|wait| wait.as_millis()), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn statuses_over_the_wire_mean_the_same_for_every_kind() {
    let (sink, net) = (Sink::start().await, net());
    for party in parties(&sink, &net) {
        let kind = party.channel.dialect().kind;
        for (status, expected) in [
            (400, "rejected"),
            (401, if ["discord", "slack"].contains(&kind) { "denied" } else { "dead" }),
            (403, "dead"),
            (404, "dead"),
            (408, "retry"),
            (410, "dead"),
            (429, "limited"),
            (500, "unknown"),
            (503, "unknown"),
            (504, "unknown"),
        ] {
            sink.answer(&party.url, [Answer::status(status)]);
            let outcome = party.send().await;
            assert_eq!(outcome.label(), expected, "{kind} {status}: {outcome:?}");
        }
        sink.answer(&party.url, [Answer::json(302, &[("location", &sink.base())], json!({}))]);
        let before = sink.seen().len();
        let outcome = party.send().await;
        assert!(matches!(&outcome, Outcome::Dead { reason } if reason.contains("redirect")), "{kind}: {outcome:?}");
        assert_eq!(sink.seen().len(), before + 1, "{kind} followed a redirect");
    }
}

// ---------------------------------------------------------------------------------------- when no answer comes

#[tokio::test]
async fn silence_after_the_message_left_is_unknown() {
    let net = net_allowing(&["127.0.0.0/8"], Duration::from_millis(300));
    let sink = Sink::start().await;
    for party in parties(&sink, &net) {
        sink.answer(&party.url, [Answer::Hang]);
        let outcome = party.send().await;
        assert_eq!(outcome.label(), "unknown", "{}: {outcome:?}", party.channel.dialect().kind);
    }
    let party = parties(&sink, &net).swap_remove(1);
    sink.answer(&party.url, [Answer::Drip]);
    assert_eq!(party.send().await.label(), "unknown", "an answer without end");
}

#[tokio::test]
async fn a_connection_that_breaks_is_unknown_and_one_that_was_never_made_is_not() {
    let net = net();
    let at = |address| build(json!({ "kind": "webhook", "url": format!("http://{address}/x") }), &net);
    let message = message(webhook::DIALECT, change(failed()));
    let broken = at(sink::slamming().await).send("", &message, now()).await;
    assert_eq!(broken.label(), "unknown", "{broken:?}");
    let refused = at(sink::closed_port().await).send("", &message, now()).await;
    assert_eq!(refused, Outcome::Retry { after: None, reason: "the connection was refused".into() });
    let plain = Sink::start().await;
    let tls = build(json!({ "kind": "webhook", "url": plain.base().replace("http:", "https:") + "/x" }), &net);
    let tls = tls.send("", &message, now()).await;
    assert_eq!((tls.label(), plain.seen().len()), ("retry", 0), "no TLS there: {tls:?}");
    let nameless = build(json!({ "kind": "webhook", "url": "https://nowhere.invalid/x" }), &net);
    let nameless = nameless.send("", &message, now()).await;
    assert_eq!(nameless, Outcome::Retry { after: None, reason: "the host's name can't be resolved".into() });
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (sink, net) = (Sink::start().await, net());
    let party = parties(&sink, &net).swap_remove(3);
    sink.answer(&party.url, [Answer::Flood]);
    assert_eq!(party.send().await.label(), "delivered");
    // What stands in socket buffers comes on top of what is read.
    assert!(sink.poured() < 32 << 20, "{} bytes were poured", sink.poured());
}

// -------------------------------------------------------------------------------------------- where it may go

#[tokio::test]
async fn private_addresses_are_refused_unless_allowed() {
    let sink = Sink::start().await;
    let port: u16 = sink.base().rsplit(':').next().unwrap().parse().unwrap();
    let url = |host: &str| json!({ "kind": "webhook", "url": format!("http://{host}:{port}/hooks/ci") });
    sink.webhook("ci", None);
    let message = message(webhook::DIALECT, change(failed()));

    let closed = net_allowing(&[], Duration::from_secs(10));
    for host in ["127.0.0.1", "0x7f.1", "[::1]", "localhost"] {
        let settings: Settings = serde_json::from_value(url(host)).unwrap();
        let problem = channels::build(&settings, None, &closed).err().unwrap();
        assert_eq!(problem.key, "url");
        assert!(problem.message.contains("network.allow_private"), "{host}: {}", problem.message);
    }
    // Another network is allowed, so only the resolver can tell.
    let elsewhere = net_allowing(&["10.0.0.0/8"], Duration::from_secs(10));
    for settings in [url("localhost"), json!({ "kind": "webhook", "url": "https://localhost/hooks/ci" })] {
        let outcome = build(settings, &elsewhere).send("", &message, now()).await;
        assert!(
            matches!(&outcome, Outcome::Dead { reason } if reason.contains("network.allow_private")),
            "{outcome:?}"
        );
    }
    assert_eq!(sink.seen().len(), 0, "something was reached");

    let outcome = build(url("localhost"), &net()).send("", &message, now()).await;
    assert_eq!(outcome, delivered());
}

#[test]
fn wrong_settings_are_told_with_their_key() {
    let told = |settings: Value| -> Vec<(String, String)> {
        let settings: Settings = serde_json::from_value(settings).unwrap();
        settings.check().into_iter().map(|problem| (problem.key, problem.message)).collect()
    };
    for (settings, key) in [
        (json!({ "kind": "slack-webhook", "url": "https://discord.com/api/webhooks/1/canary" }), "url"),
        (json!({ "kind": "discord-webhook", "url": "https://discord.com/channels/1/canary" }), "url"),
        (json!({ "kind": "dingtalk", "url": "https://oapi.dingtalk.com/robot/send" }), "url"),
        (json!({ "kind": "webhook", "url": "canary" }), "url"),
        (json!({ "kind": "webhook", "url": "ftp://canary.example/" }), "url"),
        (json!({ "kind": "webhook", "url": "https://x.example/", "secret": "whsec_canary!" }), "secret"),
        (json!({ "kind": "webhook", "url": "https://x.example/", "secret": "canarycanary" }), "secret"),
        (
            json!({ "kind": "dingtalk", "url": "https://oapi.dingtalk.com/robot/send?access_token=1", "keyword": " " }),
            "keyword",
        ),
    ] {
        let problems = told(settings.clone());
        assert_eq!(problems.len(), 1, "{settings}: {problems:?}");
        assert_eq!(problems[0].0, key, "{settings}");
        assert!(!problems[0].1.contains("canary"), "a secret is told: {problems:?}");
    }
    let signed = |bytes: usize, prefix: &str| {
        let secret = format!("{prefix}{}", STANDARD.encode(vec![7; bytes]));
        told(json!({ "kind": "webhook", "url": "https://x.example/", "secret": secret }))
    };
    for (bytes, prefix) in [(24, ""), (24, "whsec_"), (32, ""), (64, "whsec_")] {
        assert_eq!(signed(bytes, prefix), [], "{bytes} bytes after {prefix:?}");
    }
    for bytes in [2, 23, 65] {
        let said = signed(bytes, "").remove(0).1;
        assert!(said.contains(&format!("of {bytes} bytes")) && said.contains("openssl rand -base64 32"), "{said}");
    }
    let unset = json!({ "kind": "webhook", "url": { "env": "CALLBOARD_TEST_NOT_SET" } });
    assert_eq!(told(unset), [], "what can't be read is reported elsewhere");
}

// --------------------------------------------------------------------------------------------------- canaries

/// A server that reflects everything, and every failure there is: no reason names the URL or a secret.
#[tokio::test]
async fn no_reason_holds_a_url_or_a_secret() {
    let reflected = "canary https://host.example/canary?token=canary";
    let mut headers = HeaderMap::new();
    for name in ["location", "retry-after", "server"] {
        headers.insert(name, HeaderValue::from_static("https://host.example/canary"));
    }
    let bodies = [
        reflected.to_owned(),
        json!({ "code": 50035, "message": reflected, "errors": reflected }).to_string(),
        json!({ "code": reflected, "errcode": 310_000, "errmsg": reflected }).to_string(),
        json!({ "id": 1, "errcode": 424_242, "errmsg": reflected }).to_string(),
    ];
    for (kind, platform) in platforms() {
        for status in 100..=599 {
            for body in &bodies {
                let answer = http::Answer {
                    status,
                    headers: headers.clone(),
                    body: body.clone().into_bytes(),
                    broken_off: false,
                };
                let outcome = http::classify(&answer, &platform, now());
                assert!(!format!("{outcome:?}").contains("canary"), "{kind} {status}: {outcome:?}");
            }
        }
    }

    let net = net_allowing(&["127.0.0.0/8"], Duration::from_millis(300));
    let (slammed, closed) = (sink::slamming().await, sink::closed_port().await);
    let message = message(webhook::DIALECT, change(failed()));
    for base in [
        format!("http://{slammed}"),
        format!("http://{closed}"),
        format!("https://{slammed}"),
        "https://canary.invalid".to_owned(),
        "https://canary.localhost".to_owned(),
    ] {
        let url = format!("{base}/canary/robot/send?access_token=canary");
        let channel = build(json!({ "kind": "dingtalk", "url": url, "secret": "SECcanary" }), &net);
        let outcome = channel.send("", &message, now()).await;
        let probe = channel.probe().await;
        assert!(!outcome.reason().is_empty(), "{outcome:?}");
        assert!(!format!("{outcome:?} {probe:?}").contains("canary"), "{outcome:?} {probe:?}");
    }
}

#[tokio::test]
async fn a_bot_sends_only_to_channel_ids() {
    let (sink, net) = (Sink::start().await, net());
    let party = parties(&sink, &net).swap_remove(4);
    let message = message(discord::BOT, change(failed()));
    for room in ["", "../users/@me", "1/2", "１２３", "123456789012345678901"] {
        assert_eq!(party.channel.send(room, &message, now()).await.label(), "dead", "{room:?}");
    }
    assert_eq!(sink.seen().len(), 0);
}
