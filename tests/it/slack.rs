//! Slack both ways against a model of it: what people see, what only Slack may cause, and what the connection survives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use callboard::app;
use callboard::channels::{self, Channel, slack};
use callboard::commands::{CATALOG, usage};
use callboard::metrics::{Metrics, OfSurface};
use callboard::model::{Button, Content, Draft, Message, Outcome, Reply, Request, Text, Timestamp};
use callboard::net::Net;
use callboard::render::{Reader, Renderer};
use callboard::store::{self, Role, Store};
use callboard::surfaces::slack::manifest::manifest;
use callboard::surfaces::slack::{Means, Settings, Slack, Timing};
use callboard::surfaces::{Ask, Hook, Inbox, Surface};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bot::{Bot, Setup};
use crate::fake_slack::{APP_TOKEN, BOT_TOKEN, FakeSlack, SECRET, Seen, Signed};

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

// --------------------------------------------------------------------------------------------------- only Slack's own

fn hook(bot: &Bot) -> Arc<dyn Hook> {
    Arc::clone(&bot.pages().hooks["slack"])
}

async fn status(hook: &Arc<dyn Hook>, action: &str, headers: &HeaderMap, body: &[u8]) -> u16 {
    hook.receive(action, headers, body).await.status().as_u16()
}

/// Commands that were run so far.
fn ran(bot: &Bot) -> u64 {
    let metrics = bot.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with("callboard_commands_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn genuine(bot: &Bot) -> Vec<Signed> {
    let run = "7b1e04c2-20ec-4a7c-a214-54020f910000";
    vec![
        bot.slack.command("C1", "U7", "/watch", run, bot.now()).1,
        bot.slack.command("C1", "U7", "/callboard", "runs warehouse", bot.now()).1,
        bot.slack.pressed("C1", "U7", &format!("unwatch {run}"), bot.now()).1,
    ]
}

#[tokio::test]
async fn no_request_with_a_single_other_bit_does_anything() {
    let bot = Bot::start(Setup::with(&[]).with_slack()).await;
    let hook = hook(&bot);
    for request in genuine(&bot) {
        let headers = request.headers();
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..request.body.len() * 8 {
            let answered = status(&hook, request.action, &headers, &flipped(&request.body, bit)).await;
            assert_eq!(answered, 401, "bit {bit} of the body of {}", request.action);
        }
        for name in ["x-slack-signature", "x-slack-request-timestamp"] {
            let value = headers[name].as_bytes();
            for bit in 0..value.len() * 8 {
                let mut headers = headers.clone();
                // What no header can hold does not even arrive.
                let Ok(value) = HeaderValue::from_bytes(&flipped(value, bit)) else { continue };
                headers.insert(name, value);
                let answered = status(&hook, request.action, &headers, &request.body).await;
                assert_eq!(answered, 401, "bit {bit} of {name} of {}", request.action);
            }
        }
        assert_eq!(ran(&bot), 0, "a changed request had an effect");
    }
    let request = bot.slack.command("C1", "U7", "/runs", "", bot.now()).1;
    assert_eq!(status(&hook, "commands", &request.headers(), &request.body).await, 200, "an honest one is taken");
    assert_eq!(ran(&bot), 1);
    bot.finish().await;
}

#[tokio::test]
async fn a_request_counts_once_over_restarts() {
    let mut bot = Bot::start(Setup::with(&[]).with_slack()).await;
    let requests = genuine(&bot);
    for request in &requests {
        assert_eq!(status(&hook(&bot), request.action, &request.headers(), &request.body).await, 200);
    }
    for life in 0..4 {
        bot.restart().await;
        bot.step(Duration::from_secs(60));
        let hook = hook(&bot);
        for _ in 0..100 {
            for request in &requests {
                let again = status(&hook, request.action, &request.headers(), &request.body).await;
                assert_eq!(again, 401, "a replay in life {life}");
            }
        }
        assert_eq!(ran(&bot), 0, "a replay had an effect in life {life}");
    }
    bot.finish().await;
}

#[tokio::test]
async fn requests_of_another_time_are_refused() {
    let bot = Bot::start(Setup::with(&[]).with_slack()).await;
    for (apart, expected) in [(-3600, 401), (-301, 401), (-300, 200), (300, 200), (301, 401), (3600, 401)] {
        let at = bot.now() + jiff::SignedDuration::from_secs(apart);
        let (_, request) = bot.slack.command("C1", "U7", "/help", "", at);
        let answered = request.post(bot.site()).await.0;
        assert_eq!(answered, expected, "{apart} s apart");
    }
    assert_eq!(ran(&bot), 2);
    bot.finish().await;
}

#[tokio::test]
async fn odd_requests_are_refused_with_the_status_that_says_why() {
    let bot = Bot::start(Setup::with(&[]).with_slack()).await;
    let hook = hook(&bot);
    let fresh = || bot.slack.command("C1", "U7", "/help", "", bot.now()).1;
    let with = |change: &dyn Fn(&mut HeaderMap)| {
        let request = fresh();
        let mut headers = request.headers();
        change(&mut headers);
        (headers, request.body)
    };
    let text = |value: &'static str| HeaderValue::from_static(value);
    let cases = vec![
        (401, "no signature", with(&|headers| drop(headers.remove("x-slack-signature")))),
        (401, "no timestamp", with(&|headers| drop(headers.remove("x-slack-request-timestamp")))),
        (
            401,
            "a doubled signature",
            with(&|headers| {
                let value = headers["x-slack-signature"].clone();
                headers.append("x-slack-signature", value);
            }),
        ),
        (
            401,
            "a doubled timestamp",
            with(&|headers| {
                let value = headers["x-slack-request-timestamp"].clone();
                headers.append("x-slack-request-timestamp", value);
            }),
        ),
        (401, "another version", with(&|headers| drop(headers.insert("x-slack-signature", text("v1=00"))))),
        (415, "JSON", with(&|headers| drop(headers.insert("content-type", text("application/json"))))),
        (415, "no type", with(&|headers| drop(headers.remove("content-type")))),
        (415, "two types", with(&|headers| assert!(headers.append("content-type", text("text/plain"))))),
    ];
    for (expected, what, (headers, body)) in cases {
        assert_eq!(status(&hook, "commands", &headers, &body).await, expected, "{what}");
    }
    for (expected, action, fields) in [
        (400, "commands", vec![("command", "/watch"), ("text", "x"), ("user_id", "U1")]),
        (400, "commands", vec![("command", "/watch"), ("user_id", "U1"), ("user_id", "U2"), ("channel_id", "C1")]),
        (400, "commands", vec![("command", "/watch"), ("user_id", "<@U1>"), ("channel_id", "C1")]),
        (400, "interactions", vec![("payload", "{")]),
        (200, "interactions", vec![("payload", r#"{"type":"view_closed"}"#)]),
        (200, "commands", vec![("ssl_check", "1"), ("token", "x")]),
        (404, "elsewhere", vec![]),
    ] {
        let request = Signed::new(action, &fields, bot.now());
        assert_eq!(status(&hook, action, &request.headers(), &request.body).await, expected, "{action} {fields:?}");
    }
    let charset = with(&|headers| {
        headers.insert("content-type", text("application/x-www-form-urlencoded; charset=utf-8"));
    });
    assert_eq!(status(&hook, "commands", &charset.0, &charset.1).await, 200);
    assert_eq!(ran(&bot), 1, "one of them had an effect");
    bot.finish().await;
}

#[tokio::test]
async fn without_a_signing_secret_nothing_is_taken_by_https() {
    let slack = Some(format!("bot_token = \"{BOT_TOKEN}\""));
    let bot = Bot::start(Setup { slack, ..Setup::with(&[]) }).await;
    let (_, request) = bot.slack.command("C1", "U7", "/help", "", bot.now());
    assert_eq!(request.post(bot.site()).await.0, 404);
    bot.finish().await;
}

// --------------------------------------------------------------------------------------------- watching from Slack

#[tokio::test]
async fn a_press_is_the_command_of_whoever_presses() {
    let mut bot = Bot::start(Setup::with(&[]).with_slack()).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    bot.say("slack:C1", &format!("/watch {run}")).await;
    let pressed = bot.slack.press(bot.site(), "C1", "U8", &format!("unwatch {}", run.short()), bot.now()).await;
    let seen = pressed.answered().await;
    assert!(seen.text.starts_with("No longer watching"), "{seen:?}");
    assert!(!seen.ephemeral, "the room sees that its watch was ended");
    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("slack:C1"), [] as [&str; 0]);
    let pressed = bot.slack.press(bot.site(), "C1", "U8", "unwatch 00000000", bot.now()).await;
    assert!(pressed.answered().await.ephemeral, "a mistake is for whoever made it");
    bot.finish().await;
}

#[tokio::test]
async fn a_bot_that_may_not_post_promises_nothing() {
    let slack = Some(format!("signing_secret = \"{SECRET}\""));
    let bot = Bot::start(Setup { slack, ..Setup::with(&[]) }).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let answer = bot.say("slack:C1", &format!("/watch {run}")).await;
    assert!(answer.private && answer.text.contains("I need a token to post with"), "{answer:?}");
    let watches = bot.say("slack:C1", "/watches").await;
    assert!(watches.text.contains("watches nothing"), "{watches:?}");
    let status = bot.say("slack:C1", &format!("/callboard status {run}")).await;
    assert!(status.text.contains("orders_daily v12"), "what needs no message works: {status:?}");
    bot.finish().await;
}

#[tokio::test]
async fn a_watch_needs_the_bot_in_the_channel() {
    let mut bot = Bot::start(Setup::with(&[]).with_slack()).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    bot.slack.leave_out("C2", false);
    let watch = format!("/watch {run}");
    assert!(bot.say("slack:C2", &watch).await.text.starts_with("Watching"), "what is open to all is joined");
    assert!(bot.slack.is_member("C2"));

    bot.slack.leave_out("G3", true);
    let refused = bot.say("slack:G3", &watch).await;
    assert!(refused.private && refused.text.contains("/invite @callboard"), "{refused:?}");
    bot.slack.invite("G3");
    assert!(bot.say("slack:G3", &watch).await.text.starts_with("Watching"));
    bot.slack.archive("C4");
    assert!(bot.say("slack:C4", &watch).await.text.contains("archived"));

    // Where Slack does not say, the first message shows it.
    bot.slack.answer("conversations.info", 200, &[], r#"{"ok":false,"error":"missing_scope"}"#);
    bot.slack.leave_out("G5", true);
    assert!(bot.say("slack:G5", &watch).await.text.starts_with("Watching"));
    bot.world.advance(crate::bot::PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("slack:C2").len(), 1);
    assert_eq!(bot.heard("slack:G3").len(), 1);
    let why = bot.say("slack:G5", &format!("/why {run}")).await;
    assert!(why.text.contains("/invite @callboard"), "{why:?}");
    assert_eq!(bot.take_logs("slack:G5"), 1, "a person must act");
    bot.slack.invite("G5");
    let to = callboard::model::Destination::Room { surface: "slack".to_owned(), room: "G5".to_owned() };
    bot.store().revive(&to, bot.now()).await.unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("slack:G5").len(), 1, "nothing was lost meanwhile");
    bot.finish().await;
}

#[tokio::test]
async fn rights_by_a_user_group_are_asked_of_slack_and_denied_while_it_says_nothing() {
    let more = "[[access]]\nsurface = \"slack\"\nrooms = [\"*\"]\nworkspaces = [\"*\"]\nwatchers = [\"role:S1\"]\n";
    let mut bot = Bot::start(Setup::with(&[]).with_slack().and(more)).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let watch = format!("/watch {run}");
    bot.slack.answer("usergroups.list", 200, &[], r#"{"ok":false,"error":"missing_scope"}"#);
    let denied = bot.say("slack:C1", &watch).await;
    assert!(denied.private && denied.text.starts_with("No workspace is open to you"), "{denied:?}");
    assert_eq!(bot.take_logs("usergroups:read"), 1, "whoever runs it is told what is missing");
    bot.say("slack:C1", &watch).await;
    assert_eq!(bot.slack.calls("usergroups.list"), 1, "it is not asked for with each command");

    bot.slack.set_group("S1", &["U7C1"]);
    bot.restart().await;
    assert!(bot.say("slack:C1", &watch).await.text.starts_with("Watching"));
    assert!(bot.say("slack:C1", "/watches").await.text.contains("orders_daily v12"));
    assert_eq!(bot.slack.calls("usergroups.list"), 2);
    bot.slack.set_group("S1", &["U8"]);
    bot.restart().await;
    assert!(bot.say("slack:C1", &watch).await.text.starts_with("No workspace is open to you"));
    bot.finish().await;
}

#[tokio::test]
async fn channels_of_the_kind_slack_post_by_the_bot_and_wait_as_asked() {
    let more = "[channels.announcements]\nkind = \"slack\"\nchannel = \"C9\"\n[[subscriptions]]\n\
                workspace = \"warehouse\"\nchannels = [\"announcements\"]\non = [\"started\", \"finished\"]\n";
    let mut bot = Bot::start(Setup::with(&[]).with_slack().and(more)).await;
    bot.turn().await;
    bot.slack.answer("chat.postMessage", 429, &[("retry-after", "30")], "");
    bot.slack.answer("chat.postMessage", 200, &[], r#"{"ok":false,"error":"ratelimited"}"#);
    bot.add("orders_daily v12");
    bot.poll().await;
    bot.deliver().await;
    assert_eq!((bot.slack.calls("chat.postMessage"), bot.heard("slack:C9").len()), (1, 0));
    bot.step(Duration::from_secs(29));
    bot.deliver().await;
    assert_eq!(bot.slack.calls("chat.postMessage"), 1, "it asked for 30 s");
    bot.pass(Duration::from_secs(120)).await;
    assert_eq!(bot.heard("slack:C9"), ["▶️ Run started · orders_daily v12"]);
    bot.take_logs("");
    bot.finish().await;
}

fn net() -> Net {
    Net::new(&serde_json::from_value(json!({ "allow_private": ["127.0.0.0/8"] })).unwrap()).unwrap()
}

fn bot_of(slack: &FakeSlack, token: &str) -> slack::Bot {
    slack::Bot::new(slack::Access { api: slack.url().parse().unwrap(), token: token.to_owned().into() }, net())
}

fn message() -> Message {
    let change = Renderer::samples().into_iter().next().unwrap();
    let draft = Draft::of(uuid::Uuid::now_v7(), Content::Change(change.clone()));
    let reader = Reader { kind: "slack", locale: "en", timezone: "UTC", template: None };
    Renderer::load(&callboard::render::Settings::default(), &channels::DIALECTS)
        .0
        .render(&draft, &reader, change.at)
        .message
}

#[tokio::test]
async fn buttons_of_messages_name_the_command_they_stand_for() {
    let slack = FakeSlack::start().await;
    let buttons = vec![
        Button { label: "Unwatch".to_owned(), command: "unwatch 7b1e04c2".to_owned() },
        Button { label: "x".repeat(200), command: "why 7b1e04c2".to_owned() },
    ];
    let message = Message { buttons, ..message() };
    let outcome = bot_of(&slack, BOT_TOKEN).send("C1", &message, Timestamp::UNIX_EPOCH).await;
    assert!(matches!(&outcome, Outcome::Delivered { message_id: Some(_), .. }), "{outcome:?}");
    let posted = slack.messages("C1").remove(0);
    let row = posted["blocks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(row["elements"][0]["value"], "unwatch 7b1e04c2");
    assert_eq!(row["elements"][0]["text"]["text"], "Unwatch");
}

#[tokio::test]
async fn a_bot_is_probed_without_a_message() {
    let slack = FakeSlack::start().await;
    assert_eq!(bot_of(&slack, BOT_TOKEN).probe().await, Ok(()));
    let said = bot_of(&slack, "xoxb-stolen").probe().await.unwrap_err();
    assert!(said.contains("slack.bot_token") && !said.contains("stolen"), "{said}");
    assert_eq!(slack.rooms(), [] as [&str; 0]);
    slack.take_complaints();
}

// ---------------------------------------------------------------------------------------------- the surface by itself

/// Pauses shrunk; limits that a story does not reach on purpose are out of reach on a busy machine too.
fn brisk() -> Timing {
    Timing {
        direct: PATIENCE,
        late: PATIENCE,
        grace: PATIENCE,
        connect: PATIENCE,
        silence: Duration::from_secs(600),
        pause_first: Duration::from_millis(1),
        pause_last: Duration::from_millis(20),
        settled: Duration::from_secs(60),
    }
}

/// Slack's side of the bot, and a test that answers in place of the commands.
struct Party {
    surface: Arc<Slack>,
    stop: CancellationToken,
    asks: mpsc::Receiver<Ask>,
    running: JoinHandle<Result<(), String>>,
    metrics: Arc<Metrics>,
    _folder: tempfile::TempDir,
}

impl Party {
    async fn start(slack: &FakeSlack, timing: Timing) -> Party {
        Party::with_token(slack, timing, APP_TOKEN).await
    }

    async fn with_token(slack: &FakeSlack, timing: Timing, token: &str) -> Party {
        let settings = json!({ "signing_secret": SECRET, "app_token": token, "api": slack.url() });
        let settings: Settings = serde_json::from_value(settings).unwrap();
        assert_eq!(settings.check(), []);
        let folder = tempfile::tempdir().unwrap();
        let file = store::Settings::of(format!("sqlite:{}/callboard.db", folder.path().display()));
        let store: Arc<dyn Store> = store::open(&file, Role::Owner).await.unwrap();
        let (inbox, asks) = Inbox::new();
        let metrics = Arc::new(Metrics::new());
        let means = Means {
            inbox: inbox.clone(),
            commands: &CATALOG,
            dialect: slack::BOT,
            once: app::once(&store),
            net: net(),
            metrics: Arc::clone(&metrics),
            clock: Arc::new(Timestamp::now),
            names_groups: Box::new(|| true),
        };
        let surface = Arc::new(Slack::new(&settings, means).unwrap().with_timing(timing));
        let stop = CancellationToken::new();
        let (serving, token) = (Arc::clone(&surface), stop.clone());
        let running = tokio::spawn(async move { serving.run(inbox, &CATALOG, token).await });
        Party { surface, stop, asks, running, metrics, _folder: folder }
    }

    async fn command(&mut self) -> (Request, oneshot::Sender<Reply>) {
        match timeout(PATIENCE, self.asks.recv()).await.expect("the command arrives").expect("the inbox is open") {
            Ask::Command { request, reply } => (request, reply),
            Ask::Suggest { .. } => panic!("Slack has no suggestions"),
        }
    }

    /// Answers the next command publicly with its own text.
    async fn echo(&mut self) -> Request {
        let (request, reply) = self.command().await;
        reply.send(public(&request.text)).expect("somebody waits for the answer");
        request
    }

    fn connected(&self) -> i64 {
        self.metrics.connected.get_or_create(&OfSurface { surface: "slack" }).get()
    }

    async fn ended(self) -> Result<(), String> {
        timeout(PATIENCE, self.running).await.expect("it ends").expect("it does not panic")
    }

    async fn stopped(mut self) {
        assert!(self.asks.try_recv().is_err(), "a command was taken that nobody expected");
        let metrics = Arc::clone(&self.metrics);
        self.stop.cancel();
        assert_eq!(self.ended().await, Ok(()), "a stop is no failure");
        assert_eq!(metrics.connected.get_or_create(&OfSurface { surface: "slack" }).get(), 0);
    }
}

fn public(words: &str) -> Reply {
    Reply::to_room(Text::default().plain(words))
}

fn to_room(text: &str) -> Seen {
    Seen { text: text.to_owned(), ephemeral: false, buttons: Vec::new() }
}

#[tokio::test]
async fn an_answer_in_time_comes_with_the_acknowledgement() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, brisk()).await;
    let (envelope, said) = slack.slash_over_socket("C1", "U1", "/watch", "7b1e").await;
    let (request, reply) = party.command().await;
    assert_eq!(
        (request.text.as_str(), request.asker.room.as_str(), request.asker.user.as_str()),
        ("watch 7b1e", "C1", "U1")
    );
    assert_eq!(party.connected(), 1);
    let offered = Reply::to_asker(Text::default().plain("Watching")).button("Unwatch", "unwatch 7b1e");
    reply.send(offered).unwrap();
    let buttons = vec![("Unwatch".to_owned(), "unwatch 7b1e".to_owned())];
    let expected = Seen { text: "Watching".to_owned(), ephemeral: true, buttons };
    assert_eq!(slack.acked(&envelope).await, Some(expected));
    assert_eq!(said.shown(), []);
    party.stopped().await;
}

#[tokio::test]
async fn a_slow_answer_is_acknowledged_at_once_and_comes_later() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, Timing { direct: Duration::from_millis(50), ..brisk() }).await;
    let (envelope, said) = slack.slash_over_socket("C1", "U1", "/runs", "").await;
    let (_, reply) = party.command().await;
    assert_eq!(slack.acked(&envelope).await, None);
    slack.answer("response", 429, &[("retry-after", "0")], "");
    reply.send(public("Here")).unwrap();
    assert_eq!(said.answered().await, to_room("Here"), "a limit delays an answer and loses none");
    party.stopped().await;
}

#[tokio::test]
async fn a_slow_answer_by_https_comes_later_too() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, Timing { direct: Duration::from_millis(200), ..brisk() }).await;
    let (id, request) = slack.command("C1", "U1", "/runs", "", Timestamp::now());
    let response = party.surface.receive("commands", &request.headers(), &request.body).await;
    assert_eq!((response.status().as_u16(), response.body().as_str()), (200, ""));
    let (_, reply) = party.command().await;
    reply.send(public("Here")).unwrap();
    assert_eq!(slack.said(id).answered().await, to_room("Here"));
    party.stopped().await;
}

#[tokio::test]
async fn a_press_is_acknowledged_before_it_is_answered() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, brisk()).await;
    let (envelope, said) = slack.press_over_socket("C1", "U1", "unwatch 7b1e").await;
    let (request, reply) = party.command().await;
    assert_eq!(slack.acked(&envelope).await, None);
    assert_eq!(request.text, "unwatch 7b1e");
    reply.send(public("No longer")).unwrap();
    assert_eq!(said.answered().await, to_room("No longer"));
    party.stopped().await;
}

#[tokio::test]
async fn an_envelope_that_comes_again_is_acknowledged_and_not_done_again() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, brisk()).await;
    let (envelope, _) = slack.slash_over_socket("C1", "U1", "/runs", "").await;
    party.echo().await;
    slack.acked(&envelope).await;
    let again = json!({
        "envelope_id": envelope, "type": "slash_commands", "accepts_response_payload": true,
        "payload": { "command": "/runs", "text": "", "user_id": "U1", "channel_id": "C1" },
    });
    slack.send(&again);
    assert_eq!(slack.acked_times(&envelope, 2).await[1], None);
    slack.send(&json!({ "envelope_id": "event-1", "type": "events_api", "payload": {} }));
    assert_eq!(slack.acked("event-1").await, None, "what is not asked for is acknowledged all the same");
    party.stopped().await;
}

#[tokio::test]
async fn a_connection_that_ends_is_built_anew() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, brisk()).await;
    slack.until_connected(1).await;
    let ends: [fn(&FakeSlack); 4] = [
        |slack| slack.ask_to_reconnect("warning"),
        |slack| slack.ask_to_reconnect("refresh_requested"),
        FakeSlack::close_connections,
        FakeSlack::cut_connections,
    ];
    for (n, end) in ends.into_iter().enumerate() {
        end(&slack);
        slack.until_connected(n + 2).await;
        let (envelope, _) = slack.slash_over_socket("C1", "U1", "/runs", "").await;
        party.echo().await;
        assert_eq!(slack.acked(&envelope).await, Some(to_room("runs")));
    }
    party.stopped().await;
}

#[tokio::test]
async fn an_answer_whose_connection_broke_comes_by_its_address() {
    let slack = FakeSlack::start().await;
    let mut party = Party::start(&slack, brisk()).await;
    let (_, said) = slack.slash_over_socket("C1", "U1", "/runs", "").await;
    let (_, reply) = party.command().await;
    slack.cut_connections();
    slack.until_connected(2).await;
    reply.send(public("Here")).unwrap();
    assert_eq!(said.answered().await, to_room("Here"));
    party.stopped().await;
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let slack = FakeSlack::start().await;
    let party = Party::start(&slack, Timing { silence: Duration::from_millis(100), ..brisk() }).await;
    slack.until_connected(3).await;
    party.stopped().await;
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let slack = FakeSlack::start().await;
    for body in ["", "<html>", r#"{"ok":false,"error":"internal_error"}"#, r#"{"ok":true}"#] {
        slack.answer("apps.connections.open", 503, &[], body);
    }
    let mut party = Party::start(&slack, brisk()).await;
    let (envelope, _) = slack.slash_over_socket("C1", "U1", "/runs", "").await;
    party.echo().await;
    slack.acked(&envelope).await;
    assert_eq!(slack.calls("apps.connections.open"), 5);
    party.stopped().await;
}

#[tokio::test]
async fn a_wrong_token_ends_it_with_what_to_do() {
    let slack = FakeSlack::start().await;
    let words = Party::with_token(&slack, brisk(), "xapp-stolen").await.ended().await.unwrap_err();
    assert!(words.contains("slack.app_token") && words.contains("connections:write"), "{words}");
    assert!(!words.contains("stolen"), "{words}");
    assert_eq!(slack.take_complaints().len(), 1, "a refused token is not tried again");
}

#[tokio::test]
async fn a_stop_ends_one_that_never_connected() {
    let slack = FakeSlack::start().await;
    for _ in 0..1000 {
        slack.answer("apps.connections.open", 503, &[], "");
    }
    let party = Party::start(&slack, brisk()).await;
    slack.until_called("apps.connections.open", 2).await;
    party.stopped().await;
}

// --------------------------------------------------------------------------------------------------------- the manifest

/// What Slack would refuse, by <https://docs.slack.dev/reference/app-manifest>.
#[test]
fn the_manifest_leads_to_every_command_and_holds_none_that_slack_refuses() {
    let base = "https://callboard.example.com/base/".parse().unwrap();
    for (base, is_https) in [(Some(&base), true), (None, false)] {
        let manifest = manifest(&CATALOG, usage, base);
        let slash = manifest["features"]["slash_commands"].as_array().unwrap();
        let names: Vec<&str> = slash.iter().map(|command| command["command"].as_str().unwrap()).collect();
        for refused in ["/status", "/mute", "/remind", "/invite"] {
            assert!(!names.contains(&refused), "Slack refuses a manifest with {refused}");
        }
        let hint = slash[0]["usage_hint"].as_str().unwrap();
        assert_eq!(names[0], "/callboard");
        for info in &CATALOG {
            assert!(hint.split([' ', '|']).any(|word| word == info.name), "/callboard does not tell of {}", info.name);
            let is_own = names.contains(&format!("/{}", info.name).as_str());
            assert!(is_own || ["status", "mute", "help"].contains(&info.name), "{} is missing", info.name);
        }
        for command in slash {
            assert!(command["command"].as_str().unwrap().len() <= 32 && command["should_escape"] == true, "{command}");
            assert!((1..=2000).contains(&command["description"].as_str().unwrap().len()), "{command}");
            assert!(command["usage_hint"].as_str().is_none_or(|hint| (1..=1000).contains(&hint.len())), "{command}");
            let url = is_https.then_some("https://callboard.example.com/base/slack/commands");
            assert_eq!(command["url"].as_str(), url, "{command}");
        }
        let settings = &manifest["settings"];
        assert_eq!(settings["socket_mode_enabled"], !is_https);
        assert_eq!(settings["interactivity"]["is_enabled"], true);
        let url = is_https.then_some("https://callboard.example.com/base/slack/interactions");
        assert_eq!(settings["interactivity"]["request_url"].as_str(), url);
        let scopes: Vec<&Value> = manifest["oauth_config"]["scopes"]["bot"].as_array().unwrap().iter().collect();
        for scope in ["commands", "chat:write"] {
            assert!(scopes.contains(&&json!(scope)), "the scope {scope} is missing");
        }
    }
}
