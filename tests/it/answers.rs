//! Why did I (not) get this? What the chat, the pages and the log answer while something is wrong.

use std::time::Duration;

use callboard::http;
use callboard::model::{Destination, Scope, Selector, Subscription, WorkspaceKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bot::{Bot, Kind, PROJECT, Setup};
use crate::sink::Answer;

async fn page(bot: &Bot, path: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, bot.pages(), stop.clone()));
    let text = reqwest::get(format!("{base}{path}")).await.unwrap().text().await.unwrap();
    stop.cancel();
    drop(serving.await);
    text
}

/// The lines of an answer after its first one.
fn lines(text: &str) -> Vec<String> {
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

fn has(why: &crate::bot::Answer, line: &str) -> bool {
    lines(&why.text).iter().any(|found| found == line)
}

#[tokio::test]
async fn a_room_that_is_gone_says_since_when_why_and_what_brings_it_back() {
    let mut bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let run = bot.add("orders_daily v12");
    bot.say("discord:1", &format!("/watch {run}")).await;
    bot.turn().await;
    bot.discord.delete_room("1");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let said = |why: &crate::bot::Answer, line: &str| assert!(has(why, line), "{line:?} is not said: {}", why.text);
    assert!(why.private);
    said(&why, "▶️ BUILD_PACKAGE running · 08:00:15 UTC");
    said(&why, "Pending; see below. Tried 08:00:15 dead.");
    said(&why, "Pending: BUILD_PACKAGE running goes first.");
    said(
        &why,
        "Nothing is sent to this room since 08:00:15: the Discord channel no longer exists (Discord's code 10003). Once \
         that is mended, whoever runs me sends what waits with callboard deliveries retry --to discord:1.",
    );

    let body: serde_json::Value = serde_json::from_str(&page(&bot, "/readyz").await).unwrap();
    let place = &body["destinations"][0];
    assert_eq!((&place["to"], &place["state"], &place["waiting"]), (&"discord:1".into(), &"dead".into(), &2.into()));
    assert_eq!(place["command"], "callboard deliveries retry --to discord:1");
    let board = page(&bot, "/").await;
    for said in ["Destinations in trouble", "discord:1", "2 messages wait", "callboard deliveries retry --to discord:1"]
    {
        assert!(board.contains(said), "the board does not say {said:?}: {board}");
    }
    let metrics = page(&bot, "/metrics").await;
    for line in [
        "callboard_dead_destinations 1",
        "callboard_failing_destinations 0",
        "callboard_deliveries{state=\"open\"} 2",
        "callboard_deliveries_owed_total 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing: {metrics}");
    }

    let room = Destination::from("discord:1".to_owned());
    for row in bot.open().await {
        assert!(bot.store().discard(row.id, bot.now()).await.unwrap());
    }
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let gone = "the Discord channel no longer exists (Discord's code 10003)";
    said(&why, &format!("Superseded: given up by whoever runs me. Tried 08:00:15 dead ({gone})."));
    assert!(bot.store().revive(&room, bot.now()).await.unwrap());
    assert!(!page(&bot, "/").await.contains("Destinations in trouble"), "what was brought back is no trouble");
    let metrics = page(&bot, "/metrics").await;
    assert!(metrics.contains("callboard_deliveries{state=\"suppressed\"} 2\n"), "{metrics}");
    assert!(metrics.contains("callboard_dead_destinations 0\n"), "{metrics}");
    assert_eq!(bot.take_logs("the destination refuses for good"), 1);
    assert!(bot.heard("discord:1").is_empty());
    assert_eq!(bot.discord.take_complaints().len(), 1, "one request found out, and no more were made");
    bot.finish().await;
}

#[tokio::test]
async fn what_waits_for_a_room_that_asked_for_a_pause_says_until_when() {
    let mut bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let run = bot.add("orders_daily v12");
    bot.say("discord:1", &format!("/watch {run}")).await;
    bot.turn().await;
    bot.discord.limit("/messages", 1, 40.0);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.poll().await;
    bot.deliver().await;
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let waits = "Pending; see below. Tried 08:00:15 limited.";
    let closed = "This room takes nothing before 08:00:55 (Discord asks the bot for fewer messages (status 429)).";
    assert!(has(&why, waits) && has(&why, closed), "{}", why.text);
    bot.pass(Duration::from_secs(60)).await;
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let said = "Delivered here 08:00:55. Tried 08:00:15 limited (Discord asks the bot for fewer messages \
                (status 429)), 08:00:55 delivered.";
    assert!(has(&why, said), "{}", why.text);
    assert_eq!(bot.heard("discord:1").len(), 1);
    assert!(!page(&bot, "/").await.contains("trouble"), "all is well again");
    assert_eq!(bot.take_logs("not delivered yet"), 1);
    bot.finish().await;
}

#[tokio::test]
async fn a_room_with_two_subscriptions_hears_which_filter_dropped_what() {
    let mut bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let narrow = Subscription {
        id: "narrow".to_owned(),
        scope: Scope::Workspace { workspace: WorkspaceKey(format!("cn-shanghai/{PROJECT}")) },
        to: Destination::from("discord:1".to_owned()),
        on: [Selector::Stage, Selector::Failed].into(),
        stages: vec!["PROD".to_owned()],
        creators: Vec::new(),
        template: None,
        by: "cli".to_owned(),
        roles: Vec::new(),
        until: None,
        muted: None,
        stopped: None,
        created_at: bot.now(),
    };
    bot.guest().await.subscribe(&narrow, None).await.unwrap();
    bot.keep_house().await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let whole = "the subscription to every run in warehouse";
    let expected = [
        "▶️ Run started · 08:00:10 UTC".to_owned(),
        format!("Not for {whole}: it takes only stage and failed."),
        "▶️ BUILD_PACKAGE running · 08:00:15 UTC".to_owned(),
        format!("Not for {whole}: it takes only stage PROD."),
        format!("Here since 08:00:05: {whole}, for stage and failed of stage PROD."),
        "Last seen 0 s ago.".to_owned(),
    ];
    assert_eq!(lines(&why.text), expected);
    bot.say("discord:1", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    let told = lines(&why.text);
    let at = told.iter().position(|line| line == "✅ BUILD_PACKAGE passed · 08:00:20 UTC").expect("it is told");
    assert_eq!(told[at + 1], "Delivered here 08:00:20, asked for by the watch of this run.");
    assert_eq!(told[at + 2], format!("Not for {whole}: it takes only stage PROD."));
    assert_eq!(bot.heard("discord:1"), ["✅ BUILD_PACKAGE passed · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn an_answer_fits_one_message_however_much_there_is_to_tell() {
    let mut bot = Bot::start(Setup::with(&[])).await;
    bot.turn().await;
    let run = bot.add("orders_daily v12");
    bot.say("discord:1", &format!("/watch {run}")).await;
    bot.turn().await;
    bot.discord.delete_room("1");
    for _ in 0..5 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.turn().await;
    }
    let why = bot.say("discord:1", &format!("/why {run}")).await;
    assert!(why.text.chars().count() <= 1_750, "{} characters: {}", why.text.chars().count(), why.text);
    assert!(why.text.contains("PROD running"), "the newest is there: {}", why.text);
    assert!(why.text.contains("the watch of this run"), "the end is there: {}", why.text);
    for row in bot.open().await {
        bot.store().discard(row.id, bot.now()).await.unwrap();
    }
    bot.take_logs("the destination refuses for good");
    assert!(bot.heard("discord:1").is_empty());
    assert_eq!(bot.discord.take_complaints().len(), 1, "one request found out, and no more were made");
    bot.finish().await;
}

#[tokio::test]
async fn what_waits_for_a_channel_that_was_taken_out_is_told_at_the_start() {
    let mut bot = Bot::start(Setup::standing(&[("audit", Kind::Webhook)])).await;
    bot.turn().await;
    let url = bot.url("audit").to_owned();
    bot.sink.answer(&url, [Answer::status(404)]);
    bot.add("orders_daily v12");
    bot.turn().await;
    assert_eq!(bot.take_logs("the destination refuses for good"), 1);
    bot.config.channels.remove("audit");
    bot.config.subscriptions.clear();
    bot.restart().await;
    assert_eq!(bot.take_logs("messages wait for a destination that is not in the configuration"), 1);
    let board = page(&bot, "/").await;
    assert!(board.contains("audit") && board.contains("it is not in the configuration"), "{board}");
    for row in bot.open().await {
        assert!(bot.store().discard(row.id, bot.now()).await.unwrap());
    }
    assert!(!page(&bot, "/").await.contains("audit"), "owed nothing, it is nobody's concern any more");
    bot.finish().await;
}
