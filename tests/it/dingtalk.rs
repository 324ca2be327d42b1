//! DingTalk's robot against a model of DingTalk: what people read, and what the robot survives.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::channels::dingtalk::bot;
use callboard::channels::http::{self, Answer};
use callboard::channels::{Channel, DIALECTS};
use callboard::metrics::{Metrics, OfSurface};
use callboard::model::{Asker, Clock, Content, Draft, Outcome, Reply, Request, Text, Timestamp};
use callboard::net::{self, Net};
use callboard::render::{Reader, Renderer};
use callboard::surfaces::dingtalk::{DingTalk, Settings, Timing};
use callboard::surfaces::{Ask, INBOX_CAPACITY, Inbox, NoAnswer, Once, Surface};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bot::{Bot, PROJECT, Setup};
use crate::fake_dingtalk::{CLIENT_ID, CLIENT_SECRET, FakeDingTalk};

const ROOM: &str = "cid6KeBBLov+/w==";
const USER: &str = "manager7675";

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pauses shrunk; limits that a story does not reach on purpose are out of reach on a busy machine too.
fn brisk() -> Timing {
    Timing {
        late: PATIENCE,
        grace: PATIENCE,
        connect: PATIENCE,
        silence: Duration::from_secs(600),
        leaving: PATIENCE,
        pause_first: Duration::from_millis(1),
        pause_last: Duration::from_millis(20),
        settled: Duration::from_secs(60),
    }
}

fn clock() -> Clock {
    let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
    Arc::new(move || now)
}

/// What the store remembers, over restarts.
#[derive(Clone, Default)]
struct Memory {
    keys: Arc<Mutex<HashSet<String>>>,
    fails: bool,
}

impl Memory {
    fn once(&self) -> Once {
        let memory = self.clone();
        Arc::new(move |key, now, until| {
            assert!(now < until && key.len() < 250, "{key} is remembered for no time, or is long");
            let is_new = memory.keys.lock().unwrap().insert(key);
            let said = if memory.fails { Err(NoAnswer::Forgetful) } else { Ok(is_new) };
            Box::pin(async move { said })
        })
    }
}

struct Robot {
    stop: CancellationToken,
    inbox: Inbox,
    asks: mpsc::Receiver<Ask>,
    running: JoinHandle<Result<(), String>>,
    metrics: Arc<Metrics>,
}

impl Robot {
    fn start(dingtalk: &FakeDingTalk, timing: Timing) -> Robot {
        Robot::start_with(dingtalk, timing, &Memory::default())
    }

    fn start_with(dingtalk: &FakeDingTalk, timing: Timing, memory: &Memory) -> Robot {
        let settings = json!({ "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "api": dingtalk.url() });
        let settings: Settings = serde_json::from_value(settings).unwrap();
        assert!(settings.check().is_empty());
        let metrics = Arc::new(Metrics::new());
        let access = (settings.api.parse().unwrap(), settings.client_secret.read().unwrap());
        let network = net::Settings { allow_private: vec!["127.0.0.0/8".parse().unwrap()] };
        let net = Net::with_deadline(&network, PATIENCE).unwrap();
        let robot = DingTalk::new(&settings, access, net, Arc::clone(&metrics), memory.once(), bot::DIALECT);
        let robot = robot.with_timing(timing).with_clock(clock());
        let (inbox, asks) = Inbox::new();
        let stop = CancellationToken::new();
        let (door, token) = (inbox.clone(), stop.clone());
        let running = tokio::spawn(async move { robot.run(door, &[], token).await });
        Robot { stop, inbox, asks, running, metrics }
    }

    async fn command(&mut self) -> (Request, oneshot::Sender<Reply>) {
        let ask = timeout(PATIENCE, self.asks.recv()).await.expect("the command reaches the inbox");
        match ask.expect("the robot holds the inbox open") {
            Ask::Command { request, reply } => (request, reply),
            Ask::Suggest { .. } => panic!("nobody can be offered anything in DingTalk"),
        }
    }

    /// Answers the next command publicly with its own text.
    async fn echo(&mut self) -> Request {
        let (request, reply) = self.command().await;
        reply.send(public(&request.text)).expect("somebody waits for the answer");
        request
    }

    fn connected(&self) -> i64 {
        self.metrics.connected.get_or_create(&OfSurface { surface: "dingtalk" }).get()
    }

    async fn ended(self) -> Result<(), String> {
        timeout(PATIENCE, self.running).await.expect("the robot ends").expect("the robot does not panic")
    }

    async fn stopped(mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, &mut self.running).await.expect("the robot ends").expect("it does not panic");
        assert_eq!(ended, Ok(()), "a stop is no failure");
        assert_eq!(self.connected(), 0, "a stopped robot is still shown as connected");
        assert!(self.asks.try_recv().is_err(), "a command was asked that nobody expected");
    }
}

fn public(words: &str) -> Reply {
    Reply::to_room(Text::default().plain(words))
}

// ------------------------------------------------------------------------------------------------------- answering

#[tokio::test]
async fn a_mention_is_a_command_and_the_room_reads_the_answer() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    let said = dingtalk.write(ROOM, USER, " /watch 7b1e").await;
    let request = robot.echo().await;
    let asker = &request.asker;
    assert_eq!((asker.surface.as_str(), asker.room.as_str(), asker.user.as_str()), ("dingtalk", ROOM, USER));
    assert_eq!(request.text, "watch 7b1e");
    assert_eq!(said.answered().await, "watch 7b1e");
    assert_eq!(robot.connected(), 1, "the robot is connected but not shown as such");

    let said = dingtalk.write("user:*", USER, "@callboard help").await;
    let request = robot.echo().await;
    assert_eq!(request.asker.room, format!("user:{USER}"), "later messages to a person need the person's id");
    assert_eq!(said.answered().await, "help");
    dingtalk.until_acknowledged().await;
    robot.stopped().await;
}

#[tokio::test]
async fn who_is_not_of_the_organisation_or_writes_no_text_asks_nothing() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let robot = Robot::start(&dingtalk, brisk());
    let refused = "No workspace is open to you here. Whoever runs me can change that.";
    assert_eq!(dingtalk.write_from_outside(ROOM, "/watch 7b1e").await.answered().await, refused);
    let picture = json!({ "msgtype": "picture", "content": { "downloadCode": "x" } });
    let said = dingtalk.send(ROOM, json!({ "senderStaffId": USER }), picture).await;
    assert!(said.answered().await.contains("/help says what I can do"));
    robot.stopped().await;
}

#[tokio::test]
async fn why_nobody_answers_is_said() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, Timing { late: Duration::from_millis(1), ..brisk() });
    let said = dingtalk.write(ROOM, USER, "/help").await;
    let _unanswered = robot.command().await;
    assert_eq!(said.answered().await, "No answer came in time; ask again in a few minutes");
    robot.stopped().await;
    dingtalk.until_alone().await;

    let robot = Robot::start(&dingtalk, brisk());
    // Each by somebody else, and none too soon after the other.
    let request = |number: i64| Request {
        asker: Asker { user: number.to_string(), room: number.to_string(), ..Asker::default() },
        locale: String::new(),
        text: "help".to_owned(),
        at: Timestamp::from_second(number).unwrap(),
    };
    let ask = |inbox: Inbox, request: Request| tokio::spawn(async move { inbox.ask(request).await });
    let others: Vec<_> =
        (0..INBOX_CAPACITY).zip(0..).map(|(_, number)| ask(robot.inbox.clone(), request(number))).collect();
    while robot.asks.len() < INBOX_CAPACITY {
        tokio::task::yield_now().await;
    }
    let busy = "I am busy with other commands; try again in a few seconds";
    assert_eq!(dingtalk.say(ROOM, USER, "/help").await, busy);
    robot.stop.cancel();
    assert_eq!(robot.ended().await, Ok(()));
    dingtalk.until_alone().await;
    others.into_iter().for_each(|other| other.abort());

    let robot = Robot::start_with(&dingtalk, brisk(), &Memory { fails: true, ..Memory::default() });
    let forgetful = "My memory does not answer just now, so nothing was done; try again in a minute";
    assert_eq!(dingtalk.say(ROOM, USER, "/watch 7b1e").await, forgetful);
    robot.stopped().await;
}

#[tokio::test]
async fn data_in_answers_is_inert() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    let said = dingtalk.write(ROOM, USER, "/help").await;
    let (_, reply) = robot.command().await;
    let hostile = "@all [free](https://evil.example) ![x](https://evil.example/p.png) <font> dingtalk://x";
    let text = Text::default().plain(hostile).line().bold("**loud**").code("`now`").link("run", "https://d.example/");
    reply.send(Reply::to_room(text)).expect("somebody waits");
    said.answered().await;
    let answer = said.answers()[0]["markdown"].clone();
    assert_eq!(
        answer["text"],
        "@all \\[free\\]\\(https:\u{200b}//evil.example\\) \\!\\[x\\]\\(https:\u{200b}//evil.example/p.png\\) &lt;font\\> \
         dingtalk:\u{200b}//x  \n**\\*\\*loud\\*\\***\\`now\\`[run](https://d.example/)"
    );
    robot.stopped().await;
}

#[tokio::test]
async fn an_answer_goes_to_dingtalk_alone_and_only_while_it_is_taken() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    for elsewhere in ["https://evil.example/x", "https://dingtalk.com.evil.example/", "https://evildingtalk.com/", "no"]
    {
        let sender = json!({ "senderStaffId": USER, "sessionWebhook": elsewhere });
        dingtalk.send(ROOM, sender, json!({ "msgtype": "text", "text": { "content": "/help" } })).await;
    }
    let old = json!({ "senderStaffId": USER, "sessionWebhookExpiredTime": "1764000000000" });
    dingtalk.send(ROOM, old, json!({ "msgtype": "text", "text": { "content": "/help" } })).await;
    // None of these is asked: the next that is asked is the next that is written.
    let said = dingtalk.write(ROOM, USER, "/runs").await;
    let (request, reply) = robot.command().await;
    assert_eq!(request.text, "runs", "a command that could not be answered was carried out");
    said.expire();
    reply.send(public("late")).expect("somebody waits");
    let said = dingtalk.write(ROOM, USER, "/status").await;
    robot.echo().await;
    assert_eq!(said.answered().await, "status");
    robot.stopped().await;
}

#[tokio::test]
async fn an_answer_is_tried_again_while_dingtalk_is_busy() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    dingtalk.be_busy(2);
    let said = dingtalk.write(ROOM, USER, "/help").await;
    robot.echo().await;
    assert_eq!(said.answered().await, "help");
    robot.stopped().await;
    assert_eq!(said.answers().len(), 1);
}

#[tokio::test]
async fn a_message_that_comes_again_does_nothing() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let memory = Memory::default();
    let mut robot = Robot::start_with(&dingtalk, brisk(), &memory);
    let said = dingtalk.write(ROOM, USER, "/watch 7b1e").await;
    robot.echo().await;
    said.answered().await;
    dingtalk.redeliver(&said).await;
    dingtalk.until_acknowledged().await;
    robot.stopped().await;
    dingtalk.until_alone().await;

    let mut robot = Robot::start_with(&dingtalk, brisk(), &memory);
    dingtalk.redeliver(&said).await;
    let other = dingtalk.write(ROOM, USER, "/runs").await;
    assert_eq!(robot.echo().await.text, "runs", "a message is obeyed again after a restart");
    other.answered().await;
    dingtalk.until_acknowledged().await;
    robot.stopped().await;
    assert_eq!(said.answers().len(), 1);
}

// ------------------------------------------------------------------------------------------------------ connections

#[tokio::test]
async fn pings_are_echoed_and_babble_is_passed_over() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    dingtalk.until_opened(1).await;
    dingtalk.ping().await;
    for babble in
        [json!(null), json!("x"), json!({ "type": "EVENT", "headers": { "topic": "*" } }), json!({ "type": 5 })]
    {
        dingtalk.babble(&babble);
    }
    dingtalk.ping().await;
    let said = dingtalk.write(ROOM, USER, "/help").await;
    robot.echo().await;
    said.answered().await;
    robot.stopped().await;
    assert_eq!(dingtalk.opened(), 1);
}

#[tokio::test]
async fn a_connection_that_is_lost_is_built_anew() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    for (turn, lose) in [FakeDingTalk::cut, FakeDingTalk::close].into_iter().enumerate() {
        dingtalk.until_opened(turn + 1).await;
        lose(&dingtalk);
        dingtalk.until_opened(turn + 2).await;
        let said = dingtalk.write(ROOM, USER, "/help").await;
        robot.echo().await;
        said.answered().await;
    }
    robot.stopped().await;
}

#[tokio::test]
async fn silence_ends_a_connection_and_answered_pings_do_not() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let robot = Robot::start(&dingtalk, Timing { silence: Duration::from_secs(2), ..brisk() });
    // Six pings take longer than the silence that ends a connection.
    dingtalk.until_signs(6).await;
    assert_eq!(dingtalk.opened(), 1, "a connection whose pings are answered was given up");
    dingtalk.freeze();
    dingtalk.until_opened(2).await;
    robot.stopped().await;
}

#[tokio::test]
async fn a_connection_that_is_to_be_left_is_read_until_it_ends() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    let first = dingtalk.write(ROOM, USER, "/help").await;
    robot.echo().await;
    first.answered().await;
    dingtalk.ask_to_leave();
    dingtalk.until_opened(2).await;
    assert_eq!(robot.connected(), 1, "two connections, and none is shown");
    let second = dingtalk.write(ROOM, USER, "/runs").await;
    assert_eq!(robot.echo().await.text, "runs");
    second.answered().await;
    // DingTalk picks any of the connections; over the old one it is heard as well, and once.
    dingtalk.redeliver_over_left(&second);
    dingtalk.until_acknowledged().await;
    dingtalk.drop_left();
    let third = dingtalk.write(ROOM, USER, "/status").await;
    assert_eq!(robot.echo().await.text, "status");
    third.answered().await;
    assert_eq!(dingtalk.opened(), 2);
    robot.stopped().await;
    assert_eq!(second.answers().len(), 1);
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    dingtalk.refuse_connections(true);
    let mut robot = Robot::start(&dingtalk, brisk());
    dingtalk.until_asked(3).await;
    assert_eq!(robot.connected(), 0);
    dingtalk.mislead(true);
    dingtalk.refuse_connections(false);
    dingtalk.until_asked(6).await;
    dingtalk.mislead(false);
    let said = dingtalk.write(ROOM, USER, "/help").await;
    robot.echo().await;
    said.answered().await;
    robot.stopped().await;
}

#[tokio::test]
async fn a_place_that_says_nothing_is_given_up() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    dingtalk.hang(true);
    let robot = Robot::start(&dingtalk, Timing { connect: Duration::from_millis(300), ..brisk() });
    dingtalk.until_asked(2).await;
    dingtalk.hang(false);
    dingtalk.until_opened(1).await;
    robot.stopped().await;
}

#[tokio::test]
async fn wrong_credentials_end_the_robot_with_what_to_do() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    dingtalk.refuse_credentials(true);
    let words = Robot::start(&dingtalk, brisk()).ended().await.expect_err("a person must act");
    assert!(words.contains("dingtalk.client_id") && words.contains("dingtalk.client_secret"), "{words}");
}

#[tokio::test]
async fn a_stop_ends_a_robot_that_never_connected() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    dingtalk.hang(true);
    let robot = Robot::start(&dingtalk, brisk());
    dingtalk.until_asked(1).await;
    robot.stopped().await;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_hold_no_secret_and_nothing_a_person_typed() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let dingtalk = FakeDingTalk::start(clock()).await;
    let mut robot = Robot::start(&dingtalk, brisk());
    let said = dingtalk.write(ROOM, USER, "/watch typed-by-a-person").await;
    robot.echo().await;
    said.answered().await;
    let away = json!({ "senderStaffId": USER, "sessionWebhook": "https://evil.example/webhook-canary" });
    dingtalk.send(ROOM, away, json!({ "msgtype": "text", "text": { "content": "/typed-by-a-person" } })).await;
    let said = dingtalk.write(ROOM, USER, "/help").await;
    robot.echo().await;
    said.answered().await;
    dingtalk.cut();
    dingtalk.until_opened(2).await;
    robot.stopped().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // The crates of WebSockets and HTTP are silenced by the filter that the service runs with.
    let ours: Vec<&str> = log.lines().filter(|line| line.contains(" callboard")).collect();
    assert!(ours.iter().any(|line| line.contains("connected to DingTalk")), "{log}");
    for secret in [CLIENT_SECRET, "typed-by-a-person", "ticket", "session%", "webhook-canary", USER] {
        let telling: Vec<_> = ours.iter().filter(|line| line.contains(secret)).collect();
        assert!(telling.is_empty(), "the log holds {secret}: {telling:#?}");
    }
}

// ------------------------------------------------------------------------------------------------ what is posted

fn outcome(status: u16, body: &serde_json::Value) -> Outcome {
    let answer = Answer { status, body: body.to_string().into_bytes(), ..Answer::default() };
    http::classify(&answer, &bot::PLATFORM, Timestamp::UNIX_EPOCH)
}

#[test]
fn each_code_has_its_outcome() {
    for (status, body, label) in [
        (200, json!({ "processQueryKey": "p" }), "delivered"),
        (200, json!({ "processQueryKey": "p", "invalidStaffIdList": ["7"] }), "dead"),
        (200, json!({ "processQueryKey": "p", "filteredStaffIdList": ["7"] }), "dead"),
        (200, json!({ "processQueryKey": "p", "flowControlledStaffIdList": ["7"] }), "limited"),
        (200, json!({ "status": 1111, "wait": 5, "punish": "deny" }), "limited"),
        (200, json!("<html>"), "unknown"),
        (400, json!({ "code": "InvalidAuthentication" }), "denied"),
        (400, json!({ "code": "invalidParameter.robotCode.auth" }), "denied"),
        (400, json!({ "code": "invalidParameter.robotCode.notExsit" }), "dead"),
        (404, json!({ "code": "resource.not.found" }), "dead"),
        (400, json!({ "code": "invalidParameter.openConversationId.invalid" }), "dead"),
        (400, json!({ "code": "group.disbanded" }), "dead"),
        (400, json!({ "code": "bot.stopped" }), "dead"),
        (400, json!({ "code": "staffId.notExisted" }), "dead"),
        (400, json!({ "code": "invalidParameter.msgParam.invalid" }), "rejected"),
        (400, json!({}), "rejected"),
        (403, json!({ "code": "Forbidden.AccessDenied.QpsLimitForApi" }), "limited"),
        (403, json!({ "code": "Forbidden.AccessDenied.ApiCountLimitForOrg" }), "limited"),
        (403, json!({ "code": "Forbidden.AccessDenied.AccessTokenPermissionDenied" }), "denied"),
        (403, json!({ "code": "Forbidden.AccessDenied.IpNotInWhiteList" }), "denied"),
        (401, json!({}), "denied"),
        (429, json!({}), "limited"),
        (500, json!({ "code": "system.error" }), "unknown"),
        (503, json!({ "code": "ServiceUnavailable" }), "unknown"),
        (302, json!({}), "dead"),
    ] {
        assert_eq!(outcome(status, &body).label(), label, "{status} {body}");
    }
}

#[test]
fn what_concerns_the_application_makes_all_rooms_wait_for_as_long_as_it_lasts() {
    for (status, body, account, seconds) in [
        (403, json!({ "code": "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi" }), true, Some(1)),
        (403, json!({ "code": "Forbidden.AccessDenied.ApiCountLimitForOrg" }), true, Some(3600)),
        (200, json!({ "status": 1111, "wait": 5 }), true, Some(300)),
        (200, json!({ "processQueryKey": "p", "flowControlledStaffIdList": ["7"] }), false, None),
    ] {
        let expected = (account, seconds.map(Duration::from_secs));
        match outcome(status, &body) {
            Outcome::Limited { after, account, .. } => assert_eq!((account, after), expected, "{status} {body}"),
            other => panic!("{status} {body} is {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_room_that_is_none_is_told_without_a_request() {
    let dingtalk = FakeDingTalk::start(clock()).await;
    let net = Net::new(&net::Settings { allow_private: vec!["127.0.0.0/8".parse().unwrap()] }).unwrap();
    let access = (CLIENT_ID, CLIENT_SECRET.to_owned().into());
    let robot = bot::Bot::new(dingtalk.url().parse().unwrap(), access, "robot", net);
    let (renderer, _) = Renderer::load(&callboard::render::Settings::default(), &DIALECTS);
    let draft = Draft::of(uuid::Uuid::nil(), Content::Change(Renderer::samples().remove(0)));
    let reader = Reader { kind: "dingtalk-bot", locale: "en", timezone: "UTC", template: None };
    let message = renderer.render(&draft, &reader, Renderer::samples_at()).message;
    for address in ["", "user:", "cid 1", "cid\n", &"x".repeat(201)] {
        let outcome = robot.send(address, &message, clock()()).await;
        assert_eq!(outcome.label(), "dead", "{address:?}");
    }
    assert_eq!((dingtalk.tokens_given(), dingtalk.posts()), (0, 0));
    assert_eq!(robot.probe().await, Ok(()));
    dingtalk.refuse_credentials(true);
    let other = bot::Bot::new(
        dingtalk.url().parse().unwrap(),
        (CLIENT_ID, "another".to_owned().into()),
        "robot",
        Net::new(&net::Settings { allow_private: vec!["127.0.0.0/8".parse().unwrap()] }).unwrap(),
    );
    assert!(other.probe().await.unwrap_err().contains("dingtalk.client_secret"));
    assert_ne!(robot.identity(), other.identity(), "another secret is another bot");
    dingtalk.refuse_connections(true);
    assert_eq!(other.send("cid1", &message, clock()()).await.label(), "retry", "nothing left, so nothing is unknown");
}

// ---------------------------------------------------------------------------------------------------- the whole bot

async fn whole() -> Bot {
    let bot = Bot::start(Setup { dingtalk: true, ..Setup::with(&[]) }).await;
    bot.turn().await;
    bot
}

const STAGE: &str = "▶️ BUILD_PACKAGE running · orders_daily v12";
const PASSED: &str = "✅ BUILD_PACKAGE passed · orders_daily v12";

#[tokio::test]
async fn a_watch_is_told_in_the_group_over_restarts_and_a_token_is_fetched_once() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    assert!(bot.say("dingtalk:cid1", &format!("/watch {run}")).await.text.starts_with("Watching orders_daily v12"));
    assert!(bot.say("dingtalk:cid2", &format!("/watch {run}")).await.text.starts_with("Watching orders_daily v12"));
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), [STAGE]);
    assert_eq!(bot.heard("dingtalk:cid2"), [STAGE]);
    assert_eq!(bot.dingtalk.tokens_given(), 1, "two messages, one token");
    bot.dingtalk.void_tokens();
    bot.restart().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), [PASSED]);
    assert_eq!(bot.heard("dingtalk:cid2"), [PASSED]);
    bot.finish().await;
}

#[tokio::test]
async fn a_token_that_ends_is_replaced_and_one_that_became_void_too() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    bot.say("dingtalk:cid1", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.pass(Duration::from_secs(7000)).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), [STAGE, PASSED]);
    assert_eq!(
        (bot.dingtalk.tokens_given(), bot.dingtalk.posts()),
        (2, 2),
        "the old token was used to its last second"
    );

    bot.dingtalk.void_tokens();
    bot.world.set_stage(PROJECT, &run, "PROD_CHECK", "Running".into(), "").unwrap();
    bot.turn().await;
    bot.pass(Duration::from_secs(60)).await;
    assert_eq!(bot.heard("dingtalk:cid1"), ["▶️ PROD_CHECK running · orders_daily v12"]);
    assert_eq!(bot.dingtalk.tokens_given(), 3);
    bot.take_logs("the next try has a new one");
    bot.world.set_run_status(PROJECT, &run, "Cancel".into()).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), ["⏹️ Run cancelled · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn a_person_alone_with_the_robot_is_told_too() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    bot.say("dingtalk:user:7", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:user:7"), [STAGE]);
    let posted = bot.dingtalk.messages("user:7");
    let card = (posted[0].key.as_str(), posted[0].param["singleTitle"].as_str());
    assert_eq!(card, ("sampleActionCard", Some("Open in DataWorks")), "a message leads to DataWorks by its button");
    bot.finish().await;
}

#[tokio::test]
async fn a_room_that_is_gone_is_dead_alone() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    let rooms = ["cid1", "cid2", "cid3", "user:7"];
    for room in rooms {
        bot.say(&format!("dingtalk:{room}"), &format!("/watch {run}")).await;
    }
    bot.dingtalk.throw_out("cid2");
    bot.dingtalk.dissolve("cid3");
    bot.dingtalk.dissolve("user:7");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), [STAGE]);
    for (room, why) in [
        ("dingtalk:cid2", "is it still in the group"),
        ("dingtalk:cid3", "the DingTalk group is not there any more"),
        ("dingtalk:user:7", "no such person"),
    ] {
        let said = bot.say(room, &format!("/why {run}")).await.text;
        assert!(said.contains(why), "{room} is not told that {why}: {said}");
        assert!(bot.take_logs(room) > 0, "nobody hears of {room}");
    }
    for row in bot.open().await {
        assert!(bot.store().discard(row.id, bot.now()).await.unwrap());
    }
    bot.finish().await;
}

#[tokio::test]
async fn too_many_calls_make_every_room_wait_and_lose_nothing() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    for room in ["dingtalk:cid1", "dingtalk:cid2"] {
        bot.say(room, &format!("/watch {run}")).await;
    }
    bot.dingtalk.throttle(2);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.pass(Duration::from_secs(60)).await;
    assert_eq!(bot.heard("dingtalk:cid1"), [STAGE]);
    assert_eq!(bot.heard("dingtalk:cid2"), [STAGE]);
    bot.take_logs("DingTalk asks for fewer calls");
    bot.finish().await;
}

#[tokio::test]
async fn refused_credentials_hold_messages_back_and_heal_by_themselves() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    bot.say("dingtalk:cid1", &format!("/watch {run}")).await;
    bot.dingtalk.refuse_credentials(true);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("dingtalk:cid1"), [""; 0]);
    assert!(bot.take_logs("dingtalk.client_secret") > 0, "nobody hears of the refused credentials");
    bot.dingtalk.refuse_credentials(false);
    bot.pass(Duration::from_secs(600)).await;
    assert_eq!(bot.heard("dingtalk:cid1").len(), 1, "what waited is told");
    bot.take_logs("");
    bot.finish().await;
}

#[tokio::test]
async fn what_may_have_arrived_is_repeated_with_a_mark() {
    let mut bot = whole().await;
    let run = bot.add("orders_daily v12");
    bot.say("dingtalk:cid1", &format!("/watch {run}")).await;
    bot.dingtalk.fall_silent(1);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.pass(Duration::from_secs(120)).await;
    let told = bot.read_on("dingtalk:cid1");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("may be a repetition"), "{told:?}");
    bot.take_logs("");
    bot.finish().await;
}

#[tokio::test]
async fn what_is_too_much_for_a_group_comes_in_one_message() {
    let mut bot = whole().await;
    let runs: Vec<_> = (0..28).map(|n| bot.add(&format!("table_{n}"))).collect();
    for (run, person) in runs.iter().zip(100..) {
        bot.say_as(&person.to_string(), "dingtalk:cid1", &format!("/watch {run}")).await;
    }
    for run in &runs {
        bot.world.advance(PROJECT, run).unwrap();
    }
    bot.turn().await;
    bot.pass(Duration::from_secs(180)).await;
    let told = bot.read_on("dingtalk:cid1").join("\n");
    for n in 0..28 {
        assert!(told.contains(&format!("table_{n}")), "table_{n} is not told:\n{told}");
    }
    bot.finish().await;
}

/// Who may not know of any workspace reads the same as who is not of the organisation.
#[tokio::test]
async fn outsiders_read_what_everybody_reads_who_may_see_nothing() {
    let more = "[[access]]\nsurface = \"dingtalk\"\nrooms = [\"cid9\"]\nworkspaces = [\"*\"]\nviewers = [\"*\"]\n";
    let bot = Bot::start(Setup { dingtalk: true, ..Setup::with(&[]).and(more) }).await;
    bot.turn().await;
    let insider = bot.say("dingtalk:cid1", "/runs").await.text;
    let outsider = bot.dingtalk.write_from_outside("cid9", "/runs").await.answered().await;
    assert_eq!(insider, outsider);
    bot.finish().await;
}
