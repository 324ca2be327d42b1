//! The Discord bot against a model of Discord: what people see, and what the bot survives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callboard::metrics::{Metrics, OfSurface};
use callboard::model::{ArgInfo, Asker, CommandInfo, Reply, Request, Role, Suggestion, Text};
use callboard::surfaces::discord::{Discord, Settings, Timing};
use callboard::surfaces::{Ask, INBOX_CAPACITY, Inbox, Surface};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fake_discord::{FakeDiscord, Seen, TOKEN};

const COMMANDS: &[CommandInfo] = &[
    CommandInfo {
        name: "watch",
        about: "Follow a run and post each stage change here",
        args: &[
            ArgInfo { name: "run", about: "The run's id", required: true, completes_runs: true },
            ArgInfo { name: "workspace", about: "Where it runs", required: false, completes_runs: false },
        ],
        options: &[],
        role: Role::Watcher,
    },
    CommandInfo { name: "help", about: "Show what I can do", args: &[], options: &[], role: Role::Viewer },
];

const ROOM: &str = "1500000000000000001";
const USER: &str = "1600000000000000001";

/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pauses shrunk; limits that a story does not reach on purpose are out of reach on a busy machine too.
fn brisk() -> Timing {
    Timing {
        direct: PATIENCE,
        suggest: PATIENCE,
        first: PATIENCE,
        late: PATIENCE,
        life: PATIENCE,
        grace: PATIENCE,
        connect: PATIENCE,
        silence: Duration::from_secs(600),
        identify: Duration::ZERO,
        pause_first: Duration::from_millis(1),
        pause_last: Duration::from_millis(20),
        settled: Duration::from_secs(60),
    }
}

struct Bot {
    stop: CancellationToken,
    inbox: Inbox,
    asks: mpsc::Receiver<Ask>,
    running: JoinHandle<Result<(), String>>,
    metrics: Arc<Metrics>,
}

impl Bot {
    fn start(discord: &FakeDiscord, timing: Timing) -> Bot {
        Bot::start_with(discord, timing, TOKEN)
    }

    fn start_with(discord: &FakeDiscord, timing: Timing, token: &str) -> Bot {
        let settings: Settings =
            serde_json::from_value(json!({ "token": token, "api": discord.url() })).expect("settings");
        assert!(settings.check().is_empty());
        let metrics = Arc::new(Metrics::new());
        let token = settings.token.read().expect("a literal");
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().expect("a client");
        let bot = Discord::new(&settings, token, client, Arc::clone(&metrics)).with_timing(timing);
        let (inbox, asks) = Inbox::new();
        let stop = CancellationToken::new();
        let (door, token) = (inbox.clone(), stop.clone());
        let running = tokio::spawn(async move { bot.run(door, COMMANDS, token).await });
        Bot { stop, inbox, asks, running, metrics }
    }

    async fn ask(&mut self) -> Ask {
        let ask = timeout(PATIENCE, self.asks.recv()).await;
        ask.expect("the command reaches the inbox").expect("the bot holds the inbox open")
    }

    async fn command(&mut self) -> (Request, oneshot::Sender<Reply>) {
        match self.ask().await {
            Ask::Command { request, reply } => (request, reply),
            Ask::Suggest { .. } => panic!("a command was typed, suggestions were asked for"),
        }
    }

    /// Answers the next command publicly with its own text.
    async fn echo(&mut self) -> Request {
        let (request, reply) = self.command().await;
        reply.send(public(&request.text)).expect("somebody waits for the answer");
        request
    }

    fn connected(&self) -> i64 {
        self.metrics.connected.get_or_create(&OfSurface { surface: "discord" }).get()
    }

    async fn ended(self) -> Result<(), String> {
        timeout(PATIENCE, self.running).await.expect("the bot ends").expect("the bot does not panic")
    }

    async fn stopped(self) {
        let metrics = Arc::clone(&self.metrics);
        self.stop.cancel();
        assert_eq!(self.ended().await, Ok(()), "a stop is no failure");
        let connected = metrics.connected.get_or_create(&OfSurface { surface: "discord" }).get();
        assert_eq!(connected, 0, "a stopped bot is still shown as connected");
    }
}

fn public(words: &str) -> Reply {
    Reply::to_room(Text::default().plain(words))
}

fn private(words: &str) -> Reply {
    Reply::to_asker(Text::default().plain(words))
}

fn to_room(text: &str) -> Seen {
    Seen { text: text.to_owned(), ephemeral: false, buttons: Vec::new() }
}

fn to_asker(text: &str) -> Seen {
    Seen { text: text.to_owned(), ephemeral: true, buttons: Vec::new() }
}

// ------------------------------------------------------------------------------------------------------- answering

#[tokio::test]
async fn the_table_of_commands_is_what_people_can_type() {
    let discord = FakeDiscord::start().await;
    let bot = Bot::start(&discord, brisk());
    let commands = discord.until_commands(2).await;
    assert_eq!(bot.connected(), 1, "the bot is connected but not shown as such");
    let watch = commands.iter().find(|command| command["name"] == "watch").expect("/watch is registered");
    assert_eq!(watch["description"], "Follow a run and post each stage change here");
    assert_eq!(
        watch["options"],
        json!([
            { "type": 3, "name": "run", "description": "The run's id", "required": true, "autocomplete": true,
              "description_localizations": watch["options"][0]["description_localizations"] },
            { "type": 3, "name": "workspace", "description": "Where it runs",
              "description_localizations": { "zh-CN": "工作空间名称" } },
        ])
    );
    assert_eq!(watch["contexts"], json!([0, 1]), "in servers and in direct messages");
    assert_eq!(
        watch["default_member_permissions"],
        json!(null),
        "who may is for the rules, and for the server's admins"
    );
    bot.stopped().await;
}

/// Whatever people can type is explained in Chinese too.
#[tokio::test]
async fn every_command_and_every_word_of_it_is_registered_in_chinese() {
    let setup = crate::bot::Setup { gateway: true, ..crate::bot::Setup::with(&[]) };
    let bot = crate::bot::Bot::start(setup).await;
    let commands = bot.discord.until_commands(callboard::commands::CATALOG.len()).await;
    let mut missing = Vec::new();
    for command in &commands {
        let words = command["options"].as_array().cloned().unwrap_or_default();
        for described in std::iter::once(command).chain(&words) {
            if described["description_localizations"]["zh-CN"].as_str().is_none_or(str::is_empty) {
                missing.push(format!("/{} {}", command["name"], described["name"]));
            }
        }
    }
    assert!(missing.is_empty(), "no Chinese for {missing:?}");
    bot.finish().await;
}

#[tokio::test]
async fn a_button_is_typed_by_whoever_presses_it() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "watch", &[("run", "7b1e")]).await;
    let (_, reply) = bot.command().await;
    reply.send(public("Watching").button("Stop", "unwatch 7b1e").button("Mute", "mute 7b1e for:1h")).unwrap();
    let labels = |seen: Seen| seen.buttons.into_iter().map(|(label, _)| label).collect::<Vec<_>>();
    assert_eq!(labels(said.answered().await), ["Stop", "Mute"]);

    let pressed = discord.press(ROOM, "9", "Mute").await;
    let (request, reply) = bot.command().await;
    assert_eq!((request.text.as_str(), request.asker.user.as_str()), ("mute 7b1e for:1h", "9"));
    assert_eq!(request.asker.room, ROOM);
    reply.send(private("You may look, and no more")).unwrap();
    assert_eq!(pressed.answered().await, to_asker("You may look, and no more"));

    bot.stopped().await;
}

#[tokio::test]
async fn a_press_that_takes_long_is_answered_like_a_command_that_does() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, Timing { direct: Duration::ZERO, ..brisk() });
    let labels = |seen: Seen| seen.buttons.into_iter().map(|(label, _)| label).collect::<Vec<_>>();
    let said = discord.say(ROOM, USER, "watch", &[("run", "7b1e")]).await;
    let (_, reply) = bot.command().await;
    reply.send(public("Watching").button("Stop", "unwatch 7b1e")).unwrap();
    said.public().await;

    let slow = discord.press(ROOM, USER, "Stop").await;
    let (request, reply) = bot.command().await;
    assert_eq!(request.text, "unwatch 7b1e");
    slow.deferred().await;
    reply.send(public("Stopped").button("Undo", "unwatch undo 7b1e")).unwrap();
    assert_eq!(labels(slow.public().await), ["Undo"], "a late answer has its buttons too");
    bot.stopped().await;
}

#[tokio::test]
async fn commands_are_written_only_when_they_differ() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    discord.until_commands(2).await;
    discord.invalidate_session(false);
    discord.until_identified(2).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    said.answered().await;
    bot.stopped().await;

    let restarted = Bot::start(&discord, brisk());
    discord.until_commands_read(2).await;
    restarted.stopped().await;
    assert_eq!(discord.command_writes(), 1, "each write makes every client load the commands again");
}

#[tokio::test]
async fn the_room_sees_answers_and_only_the_asker_sees_mistakes() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());

    let said = discord.say(ROOM, USER, "watch", &[("workspace", "warehouse"), ("run", "7b1e")]).await;
    let (request, reply) = bot.command().await;
    assert_eq!(request.asker.surface, "discord");
    assert_eq!(request.asker.room, ROOM);
    assert_eq!(request.asker.user, USER);
    assert_eq!(request.text, "watch 7b1e warehouse", "arguments come in the order of the table");
    reply.send(public("Watching")).expect("somebody waits");
    assert_eq!(said.answered().await, to_room("Watching"));

    let said = discord.say(ROOM, USER, "watch", &[("run", "nonsense")]).await;
    let (_, reply) = bot.command().await;
    reply.send(private("No such run")).expect("somebody waits");
    assert_eq!(said.answered().await, to_asker("No such run"));
    bot.stopped().await;
}

#[tokio::test]
async fn a_slow_answer_is_deferred_and_then_seen_by_whom_it_is_for() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, Timing { direct: Duration::ZERO, ..brisk() });

    let said = discord.say(ROOM, USER, "watch", &[("run", "7b1e")]).await;
    let (_, reply) = bot.command().await;
    said.deferred().await;
    assert!(said.shown().is_empty(), "the asker sees that the bot thinks, and nothing else");
    reply.send(public("Watching")).expect("somebody waits");
    assert_eq!(said.public().await, to_room("Watching"));
    assert_eq!(said.shown().len(), 1, "the private copy is gone");

    let said = discord.say(ROOM, USER, "watch", &[("run", "nonsense")]).await;
    let (_, reply) = bot.command().await;
    said.deferred().await;
    reply.send(private("No such run")).expect("somebody waits");
    assert_eq!(said.answered().await, to_asker("No such run"));
    bot.stopped().await;
    assert_eq!(said.shown(), [to_asker("No such run")], "a mistake is never shown to the room");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_said_to_the_asker() {
    let discord = FakeDiscord::start().await;
    let late = Duration::from_millis(1);
    let mut bot = Bot::start(&discord, Timing { direct: Duration::ZERO, late, ..brisk() });
    let said = discord.say(ROOM, USER, "watch", &[("run", "7b1e")]).await;
    let _unanswered = bot.command().await;
    assert_eq!(said.answered().await, to_asker("No answer came in time; ask again in a few minutes"));
    bot.stopped().await;
}

#[tokio::test]
async fn a_full_inbox_is_said_to_the_asker() {
    let discord = FakeDiscord::start().await;
    let bot = Bot::start(&discord, brisk());
    // Each by somebody else, and none too soon after the other.
    let others: Vec<_> = (0..INBOX_CAPACITY)
        .map(|number| {
            let inbox = bot.inbox.clone();
            let request = Request {
                asker: Asker { user: number.to_string(), room: number.to_string(), ..Asker::default() },
                locale: String::new(),
                text: "help".to_owned(),
                at: jiff::Timestamp::from_second(i64::try_from(number).unwrap()).unwrap(),
            };
            tokio::spawn(async move { inbox.ask(request).await })
        })
        .collect();
    while bot.asks.len() < INBOX_CAPACITY {
        tokio::task::yield_now().await;
    }
    let seen = discord.slash(ROOM, USER, "help", &[]).await;
    assert_eq!(seen, to_asker("I am busy with other commands; try again in a few seconds"));
    bot.stopped().await;
    others.into_iter().for_each(|other| other.abort());
}

#[tokio::test]
async fn runs_are_offered_while_a_person_types() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let typing = discord.autocomplete(ROOM, USER, "watch", &[("run", "7b")], "run");
    let offering = async {
        let Ask::Suggest { request, reply } = bot.ask().await else { panic!("suggestions are asked for") };
        assert_eq!(request.text, "watch 7b");
        let many =
            (0..30).map(|n| Suggestion { label: format!("orders_daily v{n} · Running"), value: format!("7b{n}") });
        reply.send(many.collect()).expect("somebody waits");
    };
    let (offered, ()) = tokio::join!(typing, offering);
    assert_eq!(offered.len(), 25, "Discord takes at most 25");
    assert_eq!(offered[0], ("orders_daily v0 · Running".to_owned(), "7b0".to_owned()));
    bot.stopped().await;
}

#[tokio::test]
async fn suggestions_that_come_too_late_are_none() {
    let discord = FakeDiscord::start().await;
    let bot = Bot::start(&discord, Timing { suggest: Duration::from_millis(1), ..brisk() });
    assert_eq!(discord.autocomplete(ROOM, USER, "watch", &[("run", "")], "run").await, []);
    bot.stopped().await;
}

#[tokio::test]
async fn data_in_answers_is_inert() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "help", &[]).await;
    let (_, reply) = bot.command().await;
    let hostile = "@everyone <@1> [free](https://evil.example) **loud**";
    let text = Text::default().bold(hostile).line().code("a`b").link("run", "https://dataworks.example/");
    reply.send(Reply::to_room(text)).expect("somebody waits");
    assert_eq!(
        said.answered().await.text,
        "**@everyone \\<@1\\> \\[free\\]\\(https\\://evil.example\\) \\*\\*loud\\*\\***\n`aˋb`[run](<https://dataworks.example/>)"
    );
    bot.stopped().await;
}

#[tokio::test]
async fn a_long_answer_is_cut_and_still_arrives() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "help", &[]).await;
    let (_, reply) = bot.command().await;
    reply.send(public(&"stage passed 😀 ".repeat(300))).expect("somebody waits");
    assert!(said.answered().await.text.ends_with('…'));
    bot.stopped().await;
}

#[tokio::test]
async fn a_rate_limit_delays_an_answer_and_loses_none() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    discord.limit("/callback", 2, 0.02);
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    assert_eq!(discord.limited(), 2);
    bot.stopped().await;
}

#[tokio::test]
async fn a_rate_limit_delays_a_deferred_answer_too() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, Timing { direct: Duration::ZERO, ..brisk() });
    discord.limit("/callback", 1, 0.02);
    discord.limit("/messages/@original", 1, 0.02);
    discord.limit("/webhooks/", 1, 0.02);
    let said = discord.say(ROOM, USER, "help", &[]).await;
    let (_, reply) = bot.command().await;
    said.deferred().await;
    reply.send(public("Here")).expect("somebody waits");
    assert_eq!(said.public().await, to_room("Here"));
    assert_eq!(discord.limited(), 3);
    bot.stopped().await;
}

#[tokio::test]
async fn an_asker_who_left_disturbs_nobody() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "help", &[]).await;
    said.expire();
    bot.echo().await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
    let complaints = discord.take_complaints();
    assert!(complaints.iter().all(|complaint| complaint.contains("10062")), "{complaints:?}");
}

#[tokio::test]
async fn answers_on_their_way_are_finished_at_a_stop() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "help", &[]).await;
    let (_, reply) = bot.command().await;
    bot.stop.cancel();
    discord.until_alone().await;
    reply.send(public("Still here")).expect("somebody waits");
    assert_eq!(bot.ended().await, Ok(()));
    assert_eq!(said.shown(), [to_room("Still here")]);
    assert_eq!(discord.logged_off(), 1, "the bot says goodbye, so that it shows as offline at once");
}

// ------------------------------------------------------------------------------------------------------ connection

#[tokio::test]
async fn a_broken_connection_is_resumed_and_nothing_is_missed() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    discord.until_commands(2).await;
    let breaks: [fn(&FakeDiscord); 4] = [
        FakeDiscord::drop_gateway,
        |discord| discord.close_gateway(Some(4000)),
        FakeDiscord::ask_to_reconnect,
        |discord| discord.invalidate_session(true),
    ];
    for (n, break_it) in breaks.into_iter().enumerate() {
        break_it(&discord);
        let said = discord.say_while_away(ROOM, USER, "watch", &[("run", "7b1e")]);
        discord.until_resumed(n + 1).await;
        bot.echo().await;
        assert_eq!(said.answered().await, to_room("watch 7b1e"));
    }
    assert_eq!(discord.identifies(), 1, "sessions are resumed, not begun anew");
    assert_eq!(bot.connected(), 1);
    bot.stopped().await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_anew() {
    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    discord.until_identified(1).await;
    discord.invalidate_session(false);
    discord.until_identified(2).await;
    discord.forget_sessions();
    discord.drop_gateway();
    discord.until_identified(3).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let discord = FakeDiscord::start().await;
    discord.refuse_connections(true);
    let mut bot = Bot::start(&discord, brisk());
    discord.refuse_connections(false);
    discord.until_identified(1).await;

    discord.refuse_connections(true);
    discord.drop_gateway();
    discord.until_attempts(2).await;
    discord.refuse_connections(false);
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
}

#[tokio::test]
async fn heartbeats_that_nobody_answers_end_the_connection() {
    let discord = FakeDiscord::start().await;
    discord.heartbeat_every(Duration::from_millis(50));
    let mut bot = Bot::start(&discord, brisk());
    discord.until_identified(1).await;
    discord.stop_acking();
    discord.until_identified(2).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
}

#[tokio::test]
async fn the_watchdog_ends_a_resume_that_hangs() {
    let discord = FakeDiscord::start().await;
    discord.heartbeat_every(Duration::from_millis(50));
    let short = Timing { silence: Duration::from_secs(2), connect: Duration::from_millis(100), ..brisk() };
    let mut bot = Bot::start(&discord, short);
    discord.until_identified(1).await;
    discord.hang(true);
    discord.drop_gateway();
    // The resume hangs in the second; only the watchdog leads to a third.
    discord.until_attempts(3).await;
    discord.hang(false);
    discord.until_identified(2).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"), "the bot built anew answers");
    bot.stopped().await;
}

#[tokio::test]
async fn acknowledged_heartbeats_keep_the_watchdog_quiet() {
    let discord = FakeDiscord::start().await;
    discord.heartbeat_every(Duration::from_millis(50));
    let mut bot = Bot::start(&discord, Timing { silence: Duration::from_secs(3), ..brisk() });
    discord.until_identified(1).await;
    discord.until_acks(8).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    said.answered().await;
    assert_eq!(discord.identifies(), 1, "a quiet connection is not a dead one");
    bot.stopped().await;
}

#[tokio::test]
async fn a_close_without_a_code_holds_up_nobody() {
    let discord = FakeDiscord::start().await;
    discord.heartbeat_every(Duration::from_millis(50));
    let mut bot = Bot::start(&discord, brisk());
    discord.until_identified(1).await;
    discord.close_gateway(None);
    discord.until_alone().await;
    discord.until_identified(2).await;
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
}

#[tokio::test]
async fn a_stop_ends_a_bot_that_never_connected() {
    let discord = FakeDiscord::start().await;
    discord.hang(true);
    let bot = Bot::start(&discord, brisk());
    discord.until_attempts(1).await;
    bot.stopped().await;

    let down = FakeDiscord::start().await;
    down.refuse_connections(true);
    Bot::start(&down, brisk()).stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_discord_that_says_nothing() {
    let discord = FakeDiscord::start().await;
    let bot = Bot::start(&discord, Timing { grace: Duration::from_millis(100), ..brisk() });
    discord.until_commands(2).await;
    discord.freeze_gateway();
    bot.stopped().await;
}

#[tokio::test]
async fn a_wrong_token_ends_the_bot_with_what_to_do() {
    let discord = FakeDiscord::start().await;
    let refused = Bot::start_with(&discord, brisk(), "stolen").ended().await;
    let words = refused.expect_err("a wrong token is for a person to mend");
    assert!(words.contains("discord.token") && words.contains("Reset Token"), "{words}");
    assert!(!words.contains("stolen"));
    let complaints = discord.take_complaints();
    assert_eq!(complaints.len(), 1, "a refused token is not tried again: {complaints:?}");
    assert!(complaints[0].contains("401"));
}

#[tokio::test]
async fn a_refused_session_ends_the_bot_with_what_to_do() {
    for (code, part) in [(4004, "discord.token"), (4013, "4013"), (4014, "4014")] {
        let discord = FakeDiscord::start().await;
        discord.refuse_identify(Some(code));
        let words = Bot::start(&discord, brisk()).ended().await.expect_err("Discord forbids to come again");
        assert!(words.contains(part) && words.contains("discord."), "{code}: {words}");
    }
}

#[tokio::test]
async fn a_spent_budget_of_sessions_is_not_overdrawn() {
    let discord = FakeDiscord::start().await;
    discord.leave_sessions(0);
    let bot = Bot::start(&discord, brisk());
    discord.until_looked_up(1).await;
    bot.stopped().await;
    assert_eq!(discord.identifies(), 0, "Discord resets the token of a bot that begins too many sessions");
}

#[tokio::test]
async fn other_close_codes_are_no_reason_to_give_up() {
    let discord = FakeDiscord::start().await;
    discord.refuse_identify(Some(4002));
    let mut bot = Bot::start(&discord, brisk());
    discord.until_attempts(4).await;
    discord.refuse_identify(None);
    let said = discord.say(ROOM, USER, "help", &[]).await;
    bot.echo().await;
    assert_eq!(said.answered().await, to_room("help"));
    bot.stopped().await;
}

// ------------------------------------------------------------------------------------------------------- the model

#[tokio::test]
async fn the_model_of_rooms_keeps_posts_and_refuses_bad_ones() {
    let discord = FakeDiscord::start().await;
    let client = reqwest::Client::new();
    let post = async |room: &str, token: &str, body: serde_json::Value| {
        let url = format!("{}/api/v10/channels/{room}/messages", discord.url());
        let request = client.post(url).header("authorization", format!("Bot {token}")).json(&body);
        request.send().await.expect("loopback").status().as_u16()
    };
    let good =
        json!({ "content": "PROD passed", "nonce": "n1", "enforce_nonce": true, "allowed_mentions": { "parse": [] } });
    assert_eq!(post(ROOM, TOKEN, good.clone()).await, 200);
    assert_eq!(post(ROOM, TOKEN, good.clone()).await, 200);
    let posted = discord.wait_for_messages(ROOM, 1).await;
    assert_eq!(posted.len(), 1, "the same nonce is the same message");
    assert_eq!((posted[0].content.as_str(), posted[0].nonce.as_deref()), ("PROD passed", Some("n1")));
    assert_eq!(posted[0].body, good);
    assert!(discord.take_complaints().is_empty());

    assert_eq!(post(ROOM, "wrong", good.clone()).await, 401);
    assert_eq!(post(ROOM, TOKEN, json!({ "content": "@everyone" })).await, 400);
    assert_eq!(post(ROOM, TOKEN, json!({ "content": " ", "allowed_mentions": { "parse": [] } })).await, 400);
    discord.delete_room(ROOM);
    assert_eq!(post(ROOM, TOKEN, good).await, 404);
    assert_eq!(discord.messages(ROOM).len(), 1);
    assert_eq!(discord.take_complaints().len(), 4, "each refusal is kept");
}

// ------------------------------------------------------------------------------------------------------------ logs

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_hold_no_token_and_nothing_a_person_typed() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let discord = FakeDiscord::start().await;
    let mut bot = Bot::start(&discord, brisk());
    let said = discord.say(ROOM, USER, "watch", &[("run", "typed-by-a-person")]).await;
    said.expire();
    bot.echo().await;
    discord.drop_gateway();
    discord.until_resumed(1).await;
    bot.stopped().await;
    discord.take_complaints();

    drop(guard);
    let logs = String::from_utf8_lossy(&captured.0.lock().expect("no panic")).into_owned();
    let ours = logs.lines().filter(|line| !line.contains("axum")).collect::<Vec<_>>();
    assert!(ours.iter().any(|line| line.contains("connected to Discord")), "nothing was captured: {logs}");
    for line in ours {
        for secret in [TOKEN, "typed-by-a-person", "aW50ZXJhY3Rpb24"] {
            assert!(!line.contains(secret), "{secret:?} in a log line: {line}");
        }
    }
}
