//! Days on which messages don't arrive as they should: too many at once, nobody there, refused, unanswered, too late.

use std::time::Duration;

use callboard::demo::dataworks::{Fault, RunSpec};
use callboard::model::{DeliveryState, Destination, RunId, Timestamp};
use callboard::store::DeliveryFilter;
use serde_json::{Value, json};

use crate::bot::{Bot, FASTEST, Kind, PROJECT, Setup};
use crate::pages::Site;
use crate::sink::{Answer, Seen};

const ROOM: &str = "discord:1";
const RUNNING: &str = "▶️ BUILD_PACKAGE running · orders_daily v12";
const PASSED: &str = "✅ BUILD_PACKAGE passed · orders_daily v12";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn hours(n: u64) -> Duration {
    seconds(n * 3600)
}

/// A bot whose baseline is set, with `count` runs that have not begun. Waiting is told by nobody.
async fn with_runs(setup: Setup, count: usize) -> (Bot, Vec<RunId>) {
    let bot = Bot::start(Setup { waiting_after: "1d", ..setup }).await;
    let runs = (0..count).map(|n| bot.add(&format!("orders_{n:02}"))).collect();
    bot.turn().await;
    (bot, runs)
}

/// The same with one run, which the room watches.
async fn watching(setup: Setup) -> (Bot, RunId) {
    let bot = Bot::start(Setup { waiting_after: "1d", ..setup }).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let said = bot.say(ROOM, &format!("/watch {run}")).await;
    assert!(said.text.starts_with("Watching orders_daily v12 in warehouse"), "{said:?}");
    (bot, run)
}

/// When a robot of DingTalk was asked to post, by the bot's clock: it signs the moment.
fn signed_at(requests: &[Seen]) -> Vec<i64> {
    let moment = |seen: &Seen| seen.query.get("timestamp").and_then(|text| text.parse().ok());
    requests.iter().map(|seen| moment(seen).expect("a signed request")).collect()
}

/// In no window of a minute more than 18, however the windows lie.
fn assert_paced(requests: &[Seen]) {
    let at = signed_at(requests);
    for (first, later) in at.iter().zip(at.iter().skip(18)) {
        assert!(later - first >= 60_000, "19 messages within {} ms", later - first);
    }
}

/// DingTalk shows a headline over its text and in its list of chats; what is told is counted once.
fn without_headlines(messages: &[String]) -> String {
    let texts = messages.iter().map(|text| text.split_once('\n').map_or("", |(_, text)| text));
    texts.collect::<Vec<_>>().join("\n")
}

/// What a webhook was told: (run, sequence), in order.
fn told(requests: &[Seen]) -> Vec<(String, i64)> {
    let one = |change: &Value| {
        let data = &change["data"];
        let run = data["run"]["description"].as_str().unwrap_or_default().to_owned();
        (run, data["sequence"].as_i64().unwrap_or_default())
    };
    let all = requests.iter().map(Seen::json);
    all.flat_map(|json| match json["data"]["changes"].as_array() {
        Some(changes) => changes.iter().map(one).collect(),
        None => vec![one(&json)],
    })
    .collect()
}

// ------------------------------------------------------------------------------------------------- too many at once

#[tokio::test]
async fn a_burst_is_a_few_messages_that_name_everything_although_the_process_dies_amid_them() {
    let setup = Setup::standing(&[("ops", Kind::DingTalk), ("hook", Kind::Webhook)]);
    let (mut bot, runs) = with_runs(setup, 12).await;
    let ops = bot.url("ops").to_owned();
    for run in &runs[..8] {
        bot.world.finish(PROJECT, run).unwrap();
    }
    for run in &runs[8..10] {
        bot.world.advance(PROJECT, run).unwrap();
        bot.world.advance(PROJECT, run).unwrap();
        bot.world.fail(PROJECT, run, "PROD_CHECK", "no such table").unwrap();
    }
    for run in &runs[10..] {
        bot.world.advance(PROJECT, run).unwrap();
    }
    // The robot takes the first message and never answers, and then the process is gone.
    bot.sink.answer(&ops, [Answer::Hang]);
    bot.poll().await;
    let before = bot.sink.seen().len();
    bot.begin_delivery().await;
    bot.sink.until_seen(before + 2).await;
    bot.restart().await;
    bot.pass(seconds(120)).await;

    let messages = bot.read_on("ops");
    assert!((2..=4).contains(&messages.len()), "40 changes in {} messages", messages.len());
    let mut first: Vec<&str> = messages[0].lines().filter(|line| line.contains("orders_")).take(2).collect();
    first.sort_unstable();
    assert!(first[0].contains("orders_08") && first[1].contains("orders_09"), "failures come first: {}", messages[0]);
    let all = without_headlines(&messages);
    for n in 0..12 {
        assert!(all.contains(&format!("orders_{n:02}")), "run {n} is not named:\n{all}");
    }
    let count = |what: &str| all.matches(what).count();
    assert_eq!(count("PROD_CHECK failed"), 2, "{all}");
    assert_eq!((count("BUILD_PACKAGE passed"), count("BUILD_PACKAGE running")), (10, 2), "{all}");
    assert_eq!((count("PROD_CHECK passed"), count("PROD passed")), (8, 8), "{all}");
    assert_paced(&bot.requests("ops"));
    let repeated = bot.requests("ops");
    assert_eq!(repeated[0].json()["msgUuid"], repeated[1].json()["msgUuid"], "the same message, once more");
    assert!(repeated[1].json().to_string().contains("↻"), "which may be a repetition, and says so");

    // A webhook takes everything one by one.
    assert_eq!(bot.heard("hook").len(), 40);
    assert!(bot.requests("hook").iter().all(|seen| seen.json()["type"] != "digest"), "the hook got a digest");
    bot.finish().await;
}

#[tokio::test]
async fn the_pace_holds_over_restarts_in_the_middle_of_a_minute() {
    let (mut bot, runs) = with_runs(Setup::standing(&[("ops", Kind::DingTalk)]), 12).await;
    for _ in 0..2 {
        for run in &runs {
            bot.world.advance(PROJECT, run).unwrap();
        }
        bot.poll().await;
        bot.deliver().await;
        bot.restart().await;
    }
    assert_eq!(bot.requests("ops").len(), 18, "twelve, and six of the next twelve");
    for run in &runs[..10] {
        bot.world.finish(PROJECT, run).unwrap();
    }
    for _ in 0..10 {
        bot.pass(seconds(5)).await;
        bot.restart().await;
    }
    bot.pass(seconds(120)).await;
    assert_paced(&bot.requests("ops"));
    let all = without_headlines(&bot.read_on("ops"));
    assert_eq!(all.matches("BUILD_PACKAGE running").count(), 12, "{all}");
    assert_eq!(all.matches("BUILD_PACKAGE passed").count(), 12, "{all}");
    assert_eq!(all.matches("PROD_CHECK passed").count(), 10, "{all}");
    bot.finish().await;
}

#[tokio::test]
async fn a_failure_overtakes_the_progress_of_other_runs_and_never_its_own() {
    let (mut bot, runs) = with_runs(Setup::standing(&[("team", Kind::Slack)]), 10).await;
    for run in &runs {
        bot.world.advance(PROJECT, run).unwrap();
    }
    bot.poll().await;
    bot.deliver().await;
    bot.heard("team");
    // Slack takes one message a second: nine wait when the last of them fails.
    bot.world.fail(PROJECT, &runs[0], "PROD_CHECK", "no such table").unwrap();
    bot.step(FASTEST);
    bot.tick().await;
    bot.deliver_all().await;
    let heard = bot.heard("team");
    let place = |headline: &str| {
        let at = heard.iter().position(|heard| heard == headline);
        at.unwrap_or_else(|| panic!("{headline} is missing: {heard:#?}"))
    };
    let own = ["▶️ BUILD_PACKAGE running · orders_00", "❌ PROD_CHECK failed · orders_00", "❌ Run failed · orders_00"];
    assert_eq!(own.map(place), [0, 1, 2], "what others do goes before a failure, or it overtakes its own run");
    assert_eq!(heard.len(), 11, "{heard:#?}");
    bot.finish().await;
}

// ------------------------------------------------------------------------------------------------------- catching up

#[tokio::test]
async fn after_a_night_without_the_bot_each_run_is_one_message_about_where_it_stands() {
    let channels = [("team", Kind::Slack), ("hook", Kind::Webhook)];
    let (mut bot, runs) = with_runs(Setup::standing(&channels), 3).await;
    let said = bot.say(ROOM, &format!("/watch {}", runs[0])).await;
    assert!(said.text.starts_with("Watching"), "{said:?}");
    for run in &runs {
        bot.world.advance(PROJECT, run).unwrap();
    }
    bot.turn().await;
    for to in ["team", "hook", ROOM] {
        bot.heard(to);
    }
    bot.crash().await;
    bot.world.advance(PROJECT, &runs[0]).unwrap();
    bot.world.advance(PROJECT, &runs[0]).unwrap();
    bot.world.finish(PROJECT, &runs[1]).unwrap();
    bot.world.fail(PROJECT, &runs[2], "PROD_CHECK", "no such table").unwrap();
    let begun = bot.world.add_run(PROJECT, RunSpec::online("begun in the night"));
    bot.world.advance(PROJECT, &begun).unwrap();
    bot.step(hours(8));
    bot.revive().await;
    bot.pass(seconds(120)).await;

    let present = "▶️ Now: running at PROD_CHECK · orders_00";
    let mut team = bot.heard("team");
    team.sort();
    let ended = ["❌ Now: failed at PROD_CHECK · orders_02", "✅ Now: succeeded · orders_01"];
    assert!(team.iter().any(|line| line == present), "{team:#?}");
    for line in ended {
        assert!(team.iter().any(|heard| heard == line), "{line} is missing: {team:#?}");
    }
    assert_eq!(team.len(), 4, "one for each run: {team:#?}");
    assert!(team.iter().any(|line| line.contains("begun in the night")), "{team:#?}");
    let watched = bot.read_on(ROOM);
    assert_eq!(watched.len(), 1, "{watched:#?}");
    assert!(watched[0].starts_with(present), "{}", watched[0]);
    for missed in ["BUILD_PACKAGE passed", "PROD_CHECK running"] {
        assert!(watched[0].contains(missed), "{missed} is lost: {}", watched[0]);
    }
    let types: Vec<Value> = bot.requests("hook").iter().skip(3).map(|seen| seen.json()["type"].clone()).collect();
    assert_eq!(types, ["digest"; 4], "no old progress as news");
    assert_eq!(bot.heard("hook").len(), 4);

    bot.world.advance(PROJECT, &runs[0]).unwrap();
    bot.turn().await;
    let next = "✅ PROD_CHECK passed · orders_00";
    assert_eq!((bot.heard("team"), bot.heard(ROOM)), (vec![next.to_owned()], vec![next.to_owned()]), "news again");
    assert_eq!(bot.heard("hook"), ["run.stage.changed PROD_CHECK Running → Success · orders_00"]);
    bot.finish().await;
}

#[tokio::test]
async fn after_hours_without_the_chat_each_run_is_one_message_and_the_order_stays() {
    let (mut bot, runs) = with_runs(Setup::standing(&[("hook", Kind::Webhook), ("team", Kind::Slack)]), 2).await;
    let team = bot.url("team").to_owned();
    bot.sink.answer(&team, std::iter::repeat_n(Answer::status(408), 1000));
    for _ in 0..3 {
        for run in &runs {
            bot.world.advance(PROJECT, run).unwrap();
        }
        bot.turn().await;
    }
    bot.pass(hours(3)).await;
    assert!(bot.requests("team").len() <= 20, "{} requests in three hours", bot.requests("team").len());
    bot.sink.forget_answers(&team);
    bot.pass(hours(2)).await;
    let heard = bot.read_on("team");
    assert_eq!(heard.len(), 2, "one for each run: {heard:#?}");
    for text in &heard {
        assert!(text.contains("Now: running at PROD_CHECK"), "{text}");
        let at: Vec<_> = ["BUILD_PACKAGE running", "BUILD_PACKAGE passed", "PROD_CHECK running"]
            .iter()
            .map(|missed| text.find(missed).unwrap_or_else(|| panic!("{missed} is lost: {text}")))
            .collect();
        assert!(at.is_sorted(), "out of order: {text}");
    }
    let hook = told(&bot.requests("hook"));
    assert_eq!(hook.len(), 6);
    assert_eq!(bot.heard("hook").len(), 6, "another destination is not disturbed");
    bot.take_logs("not delivered yet");
    bot.finish().await;
}

// ---------------------------------------------------------------------------------------------------- nobody is there

const GONE: &str = "❌ Messages to chat have stopped";
const BACK: &str = "✅ Messages to chat go out again";

fn with_siblings() -> Setup {
    let channels = [("chat", Kind::Discord), ("team", Kind::Slack), ("admins", Kind::Slack)];
    Setup::with(&channels).and("[notices]\nchannels = [\"admins\"]\n").and(
        "[[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"chat\", \"team\"]\non = [\"stage\", \"finished\"]\n",
    )
}

/// `chat` is deleted, a change is owed to it, and it refuses it for good. Everybody else has read what they got.
async fn with_chat_gone() -> (Bot, RunId) {
    let (mut bot, runs) = with_runs(with_siblings(), 1).await;
    let chat = bot.url("chat").to_owned();
    let gone = || Answer::json(404, &[], json!({ "code": 10015, "message": "Unknown Webhook" }));
    bot.sink.answer(&chat, std::iter::repeat_with(gone).take(1000));
    bot.world.advance(PROJECT, &runs[0]).unwrap();
    bot.turn().await;
    assert_eq!(bot.requests("chat").len(), 1);
    assert_eq!(bot.take_logs("refuses for good"), 1);
    assert_eq!(bot.heard("admins"), [GONE], "the operators hear of it");
    assert_eq!(bot.heard("team"), ["▶️ BUILD_PACKAGE running · orders_00", GONE], "and who hears the same elsewhere");
    (bot, runs[0].clone())
}

#[tokio::test]
async fn a_channel_that_was_deleted_is_left_alone_and_shown_until_somebody_brings_it_back() {
    let (mut bot, run) = with_chat_gone().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.restart().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(hours(1)).await;
    assert_eq!(bot.requests("chat").len(), 1, "a restart is no reason to try again");
    assert_eq!(bot.heard("team").len(), 2, "its sibling goes on, and hears of the trouble once");

    let site = Site::of(&bot).await;
    let (status, body) = site.ready().await;
    assert_eq!(status, 200, "a destination that is gone does not take the bot out of service: {body}");
    let shown = body["destinations"].as_array().cloned().unwrap_or_default();
    assert_eq!(shown.len(), 1, "{body}");
    assert_eq!(
        (&shown[0]["to"], &shown[0]["state"], &shown[0]["waiting"]),
        (&json!("chat"), &json!("dead"), &json!(3))
    );
    assert_eq!(shown[0]["command"], "callboard deliveries retry --to chat");
    let board = site.get("/").await.text().await.unwrap();
    assert!(board.contains("callboard deliveries retry --to chat"), "the board does not say what helps: {board}");
    let metrics = site.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("callboard_dead_destinations 1"), "{metrics}");

    // What `callboard deliveries retry --to chat` does beside the service.
    let chat = bot.url("chat").to_owned();
    bot.sink.forget_answers(&chat);
    let name = Destination::Channel("chat".to_owned());
    assert!(bot.guest().await.revive(&name, bot.now()).await.unwrap());
    bot.keep_house().await;
    bot.pass(seconds(60)).await;
    let heard = bot.read_on("chat");
    assert_eq!(heard.len(), 1, "what is worth telling an hour later is one message: {heard:#?}");
    assert!(heard[0].starts_with("▶️ Now: running at PROD_CHECK · orders_00"), "{}", heard[0]);
    for missed in ["BUILD_PACKAGE running", "BUILD_PACKAGE passed", "PROD_CHECK running"] {
        assert!(heard[0].contains(missed), "{missed} is lost: {}", heard[0]);
    }
    assert_eq!((bot.heard("admins"), bot.heard("team")), (vec![BACK.to_owned()], vec![BACK.to_owned()]));
    let metrics = site.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("callboard_dead_destinations 0"), "{metrics}");
    bot.finish().await;
}

#[tokio::test]
async fn another_url_in_the_configuration_brings_a_deleted_channel_back() {
    let (mut bot, run) = with_chat_gone().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("team").len(), 1);
    bot.move_channel("chat").await;
    bot.pass(seconds(60)).await;
    assert_eq!(
        bot.heard("chat"),
        ["▶️ BUILD_PACKAGE running · orders_00", "✅ BUILD_PACKAGE passed · orders_00"],
        "it was gone for seconds: all of it is news"
    );
    assert_eq!((bot.heard("admins"), bot.heard("team")), (vec![BACK.to_owned()], vec![BACK.to_owned()]));
    bot.finish().await;
}

#[tokio::test]
async fn a_bot_whose_token_is_refused_tells_the_operators_once_and_hammers_nobody() {
    let setup = Setup::with(&[("admins", Kind::Slack)]).and("[notices]\nchannels = [\"admins\"]\n");
    let (mut bot, run) = watching(setup).await;
    let rooms: Vec<String> = (2..=30).map(|room| format!("discord:{room}")).collect();
    for room in &rooms {
        assert!(bot.say(room, &format!("/watch {run}")).await.text.starts_with("Watching"));
    }
    bot.discord.refuse_token(true);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(seconds(600)).await;
    let requests = bot.discord.posts().len();
    assert!((2..=10).contains(&requests), "{requests} requests in ten minutes to 30 rooms");
    assert_eq!(bot.heard("admins"), ["❌ The discord bot is refused"]);
    assert_eq!(bot.take_logs("credentials are refused"), 1);
    let watches = bot.say(ROOM, "/watches").await.text;
    assert!(watches.contains("orders_daily v12"), "the watch is gone: {watches}");
    bot.restart().await;
    bot.pass(seconds(600)).await;
    assert!(bot.heard("admins").is_empty(), "a restart tells it again");
    bot.take_logs("credentials are refused");

    bot.discord.refuse_token(false);
    bot.pass(seconds(900)).await;
    assert_eq!(bot.heard("admins"), ["✅ The discord bot works again"]);
    for room in rooms.iter().map(String::as_str).chain([ROOM]) {
        assert_eq!(bot.heard(room), ["▶️ Now: running at BUILD_PACKAGE · orders_daily v12"], "{room}");
    }
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    for room in rooms.iter().map(String::as_str).chain([ROOM]) {
        assert_eq!(bot.heard(room), [PASSED], "{room}");
    }
    bot.finish().await;
}

// ---------------------------------------------------------------------------------------------- nobody knows whether

#[tokio::test]
async fn what_may_have_arrived_is_repeated_with_a_mark_or_given_up_as_the_channel_prefers() {
    let channels = [("team", Kind::Slack), ("lossy", Kind::Slack), ("hook", Kind::Webhook)];
    let (mut bot, run) = watching(Setup { lossy: vec!["lossy"], ..Setup::standing(&channels) }).await;
    for (name, _) in channels {
        let url = bot.url(name).to_owned();
        bot.sink.answer(&url, [Answer::Drop]);
    }
    bot.discord.fall_silent(1);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.poll().await;
    bot.pass(seconds(30)).await;

    let team = bot.read_on("team");
    assert_eq!(team.len(), 2, "no loss: {team:#?}");
    assert!(team.iter().all(|text| text.starts_with(RUNNING)), "{team:#?}");
    let mark = |request: &Seen| request.json()["blocks"].to_string().contains("↻");
    assert_eq!(bot.requests("team").iter().map(mark).collect::<Vec<_>>(), [false, true], "a repetition says so");

    assert_eq!(bot.requests("lossy").len(), 1, "no duplicate");
    assert_eq!(bot.heard("lossy"), [RUNNING]);
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), limit: 10, ..DeliveryFilter::default() };
    let dead = bot.store().deliveries(&dead).await.unwrap();
    assert_eq!(dead.len(), 1, "what is given up is shown: {dead:#?}");
    assert_eq!(dead[0].delivery.to, Destination::Channel("lossy".to_owned()));
    let reason = dead[0].reason.clone().unwrap_or_default();
    assert!(reason.contains("prefers a loss to a repetition"), "{reason}");
    assert_eq!(bot.take_logs("given up"), 1, "and said once");

    let hook = bot.requests("hook");
    assert_eq!(hook.len(), 2);
    assert_eq!((&hook[0].body, hook[0].header("webhook-id")), (&hook[1].body, hook[1].header("webhook-id")));
    assert_eq!(bot.heard("hook").len(), 1, "who looks at the id hears it once");

    let posts = bot.discord.posts();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0], posts[1], "the same nonce, so Discord shows it once");
    let room = bot.read_on(ROOM);
    assert_eq!(room.len(), 1);
    assert!(room[0].starts_with(RUNNING) && !room[0].contains('↻'), "{}", room[0]);

    // What is given up holds nothing up.
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    for to in ["team", "lossy", ROOM] {
        assert_eq!(bot.heard(to), [PASSED], "{to}");
    }
    assert_eq!(bot.heard("hook").len(), 1);
    bot.take_logs("not delivered yet");
    bot.finish().await;
}

#[tokio::test]
async fn discord_says_that_it_takes_nothing_more_and_the_next_message_waits() {
    let (mut bot, runs) = with_runs(Setup::standing(&[("chat", Kind::Discord)]), 2).await;
    let chat = bot.url("chat").to_owned();
    let headers = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset-after", "12.5")];
    bot.sink.answer(&chat, [Answer::json(200, &headers, json!({ "id": "1" }))]);
    for run in &runs {
        bot.world.advance(PROJECT, run).unwrap();
    }
    bot.poll().await;
    let began: Timestamp = bot.now();
    let next = bot.deliver().await.expect("one waits");
    assert_eq!(bot.requests("chat").len(), 1, "the second one was sent although nothing more is taken");
    assert_eq!(next, began + Duration::from_millis(12_500));
    bot.pass(seconds(13)).await;
    assert_eq!(bot.requests("chat").len(), 2);
    assert_eq!(bot.heard("chat"), ["▶️ BUILD_PACKAGE running · orders_00"]);
    bot.finish().await;
}

#[tokio::test]
async fn what_is_owed_before_a_blind_time_and_after_it_comes_in_order() {
    let (mut bot, run) = watching(Setup::standing(&[("hook", Kind::Webhook)])).await;
    let hook = bot.url("hook").to_owned();
    bot.sink.answer(&hook, std::iter::repeat_n(Answer::text(429, &[("retry-after", "3600")], ""), 1));
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.world.break_down(Fault::internal_error());
    bot.world.advance(PROJECT, &run).unwrap();
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(hours(2)).await;
    bot.world.recover();
    bot.pass(seconds(600)).await;
    let order: Vec<i64> = told(&bot.requests("hook")).into_iter().skip(1).map(|(_, sequence)| sequence).collect();
    assert_eq!(order, [1, 2, 3], "each once, in order");
    bot.heard("hook");
    bot.heard(ROOM);
    bot.take_logs("not delivered yet");
    bot.take_logs("polling fails");
    bot.finish().await;
}
