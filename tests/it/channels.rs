//! The real channels against the sink: what arrives there, and what they say happened.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::channels::http::{self, Platform};
use callboard::channels::{self, Channel, DIALECTS, Settings, console, dingtalk, discord, slack, webhook};
use callboard::model::{
    Change, ChangeKind, Content, Dialect, Message, Outcome, Snapshot, Stage, Status, Timestamp, Workspace,
};
use callboard::net::{self, Net};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

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
        content: Content::Change(change),
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
    channels::build(&settings, net).unwrap()
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
    vec![
        party(json!({ "kind": "discord-webhook", "url": sink.discord_webhook("1") })),
        party(json!({ "kind": "slack-webhook", "url": sink.slack("X") })),
        party(json!({ "kind": "dingtalk", "url": dingtalk, "secret": SEC, "keyword": "release-bot" })),
        party(json!({ "kind": "webhook", "url": webhook, "secret": WHSEC })),
        Party { channel: Arc::new(bot), url: format!("{api}/api/v10/channels/{ROOM}/messages"), room: ROOM },
    ]
}

fn platforms() -> [(&'static str, Platform); 4] {
    [
        ("discord", discord::PLATFORM),
        ("slack", slack::PLATFORM),
        ("dingtalk", dingtalk::PLATFORM),
        ("webhook", webhook::PLATFORM),
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
    assert_eq!(sink.accepted().len(), 5);
    let posts = sink.seen().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(posts, 5, "a probe posted");
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
    assert_eq!((copies("/webhooks/"), copies("/services/")), (3, 3), "these have no key");
    assert_eq!((copies("/robot/"), copies("/hooks/"), copies("/channels/")), (1, 1, 1), "these have one");
}

#[tokio::test]
async fn a_dingtalk_robot_that_is_too_fast_pauses_for_ten_minutes() {
    let (sink, net) = (Sink::start().await, net());
    let party = parties(&sink, &net).swap_remove(2);
    for _ in 0..20 {
        assert_eq!(party.send().await.label(), "delivered");
    }
    assert!(matches!(party.send().await, Outcome::Retry { after: Some(wait), .. } if wait == Duration::from_secs(600)));
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
    assert_eq!(console.send("", &message, now()).await, Outcome::Delivered { message_id: None, pause: None });
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
    assert_eq!(kinds, ["discord", "discord-webhook", "slack-webhook", "dingtalk", "webhook", "console"]);
    let settings: Settings = serde_json::from_value(json!({ "kind": "console", "locale": "zh-CN" })).unwrap();
    assert_eq!((settings.kind(), settings.locale(), settings.timezone()), ("console", "zh-CN", "UTC"));
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
        let body = webhook::body(&of(webhook::DIALECT).content);
        prop_assert_eq!(&body, &webhook::body(&of(webhook::DIALECT).content));
        prop_assert_eq!(console::lines(&of(console::DIALECT)).matches('\u{1b}').count(), 4, "the title, and the link");
    }
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
        (0, 429, discord(20016), "retry"),
        (0, 403, discord(20028), "retry"),
        (0, 400, discord(20029), "retry"),
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
        (2, 200, dingtalk(130_101, "send too fast"), "retry"),
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

#[test]
fn nothing_said_counts_only_when_it_was_said_to_the_end() {
    let broken_off = http::Answer { status: 200, broken_off: true, ..Default::default() };
    for (kind, platform) in platforms().into_iter().take(2) {
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
        let (Outcome::Retry { after, .. } | Outcome::Unknown { after, .. }) = party.send().await else {
            panic!("{answer:?} is not tried again")
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
            (401, "dead"),
            (404, "dead"),
            (410, "dead"),
            (429, "retry"),
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
        let problem = channels::build(&settings, &closed).err().unwrap();
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
    assert_eq!(outcome, Outcome::Delivered { message_id: None, pause: None });
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
