//! The main job, end to end.

use std::time::Duration;

use callboard::demo::dataworks::{Fault, Quirks, RunSpec};
use callboard::model::{Destination, RunId, Scope, Selector, Status, Subscription, WorkspaceKey};
use callboard::sources::dataworks::Action;

use crate::bot::{Bot, FASTEST, Kind, PROJECT, Setup};
use crate::sink::Answer;

const ALL: [(&str, Kind); 4] =
    [("chat", Kind::Discord), ("team", Kind::Slack), ("ops", Kind::DingTalk), ("hook", Kind::Webhook)];
const ROOM: &str = "discord:1";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A bot whose baseline is set, with one room that watches one run.
async fn watching(setup: Setup) -> (Bot, RunId) {
    let bot = Bot::start(setup).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let said = bot.say(ROOM, &format!("/watch {run}")).await;
    assert!(said.text.starts_with("Watching orders_daily v12 in warehouse"), "{said:?}");
    assert!(!said.private, "the room sees that it watches");
    (bot, run)
}

// --------------------------------------------------------------------------------------------------- what is told

#[tokio::test]
async fn a_run_of_five_stages_is_told_change_by_change_everywhere() {
    let mut bot = Bot::start(Setup { gateway: true, ..Setup::standing(&ALL) }).await;
    let run = bot.world.add_run(PROJECT, RunSpec::standard("orders_daily v12"));
    bot.turn().await;
    let answer = bot.say(ROOM, &format!("/watch {run}")).await;
    let expected =
        "Watching orders_daily v12 in warehouse (9e3779b1). Now: stage 1 of 5, BUILD_PACKAGE not started yet.";
    assert!(answer.text.starts_with(expected), "{answer:?}");
    let codes = ["BUILD_PACKAGE", "DEV_CHECK", "DEV", "PROD_CHECK", "PROD"];
    for _ in 0..10 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.turn().await;
    }
    let running = codes.map(|code| format!("▶️ {code} running · orders_daily v12"));
    let passed = codes.map(|code| format!("✅ {code} passed · orders_daily v12"));
    let stages = running.into_iter().zip(passed).flat_map(|(running, passed)| [running, passed]);
    let expected: Vec<String> = stages.chain(["✅ Run succeeded · orders_daily v12".to_owned()]).collect();
    for to in ["chat", "team", "ops", ROOM] {
        assert_eq!(bot.heard(to), expected, "{to}");
    }
    let moves = codes.map(|code| {
        let line = |change: &str| format!("run.stage.changed {code} {change} · orders_daily v12");
        [line("Init → Running"), line("Running → Success")]
    });
    let mut expected = moves.concat();
    expected.push("run.finished Running → Success · orders_daily v12".to_owned());
    assert_eq!(bot.heard("hook"), expected);
    bot.finish().await;
}

#[tokio::test]
async fn the_documented_sample_ends_as_the_right_messages() {
    let mut bot = Bot::start(Setup { workspaces: vec![("warehouse", 56_160)], ..Setup::with(&[]) }).await;
    bot.turn().await;
    let sample = include_str!("../data/get-pipeline-run-sample.json");
    let id = "a7ef0634-20ec-4a7c-a214-54020f91XXXX";
    let json = "application/json;charset=utf-8";
    bot.world.inject(Fault::body(200, json, sample), 1);
    let said = bot.say(ROOM, &format!("/watch {id}")).await;
    let expected =
        "Watching Description of the pipeline run in warehouse (a7ef0634). Now: stage 1 of 1, DEV_CHECK running.";
    assert!(said.text.starts_with(expected), "{said:?}");
    // It is on no page, so it is asked for after the list.
    let after = sample.replace("\"Running\"", "\"Fail\"");
    let list = serde_json::json!({ "RequestId": "1", "PagingInfo": { "PageNumber": 1, "PageSize": 100, "TotalCount": 0,
        "PipelineRuns": [] } });
    bot.world.inject(Fault::body(200, json, list.to_string()), 1);
    bot.world.inject(Fault::body(200, json, after), 1);
    bot.turn().await;
    let heard = bot.read_on(ROOM);
    let headlines: Vec<&str> = heard.iter().filter_map(|text| text.lines().next()).collect();
    let title = "Description of the pipeline run";
    assert_eq!(headlines, [format!("❌ DEV_CHECK failed · {title}"), format!("❌ Run failed · {title}")]);
    assert!(heard[0].contains("“Exception information XXX”"), "DataWorks' own words are missing: {}", heard[0]);
    bot.finish().await;
}

#[tokio::test]
async fn the_oddest_way_of_writing_answers_tells_the_same() {
    let mut told = Vec::new();
    for quirks in [Quirks::default(), Quirks::all()] {
        let mut bot = Bot::start(Setup::standing(&ALL)).await;
        bot.world.set_quirks(quirks);
        bot.turn().await;
        let run = bot.add("orders_daily v12");
        bot.turn().await;
        for _ in 0..5 {
            bot.world.advance(PROJECT, &run).unwrap();
            bot.turn().await;
        }
        bot.world.fail(PROJECT, &run, "PROD", "table ods_orders_di does not exist").unwrap();
        bot.turn().await;
        told.push(ALL.map(|(name, _)| bot.read_on(name)));
        bot.finish().await;
    }
    assert_eq!(told[0][0].len(), 8, "{:#?}", told[0][0]);
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn first_sight_is_silent_and_what_comes_later_has_started() {
    let mut bot = Bot::start(Setup::standing(&ALL)).await;
    let old = bot.add("orders_daily v11");
    bot.world.advance(PROJECT, &old).unwrap();
    bot.turn().await;
    for (name, _) in ALL {
        assert!(bot.heard(name).is_empty(), "the baseline is no news to {name}");
    }
    let new = bot.add("orders_daily v12");
    for _ in 0..3 {
        bot.world.advance(PROJECT, &new).unwrap();
    }
    bot.turn().await;
    for name in ["chat", "team", "ops"] {
        let messages = bot.read_on(name);
        assert_eq!(messages.len(), 1, "{name}: {messages:#?}");
        assert!(messages[0].starts_with("▶️ Run started · orders_daily v12"), "{name}: {}", messages[0]);
        let past = "So far: BUILD_PACKAGE passed, PROD_CHECK running";
        assert!(messages[0].replace('\\', "").contains(past), "{name} is not told what went before: {}", messages[0]);
    }
    let stages = bot.requests("hook")[0].json()["data"]["stages"].clone();
    assert_eq!(stages[0]["status"], "Success");
    assert_eq!(bot.heard("hook"), ["run.started · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn a_stage_that_waits_for_a_person_is_told_after_the_grace_time_once() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    for _ in 0..2 {
        bot.world.advance(PROJECT, &run).unwrap();
    }
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["✅ BUILD_PACKAGE passed · orders_daily v12"]);
    bot.pass(seconds(14)).await;
    assert!(bot.heard(ROOM).is_empty(), "an automatic run would go on by itself meanwhile");
    bot.pass(seconds(20)).await;
    assert_eq!(bot.heard(ROOM), ["⏸️ PROD_CHECK waits for someone to start it · orders_daily v12"]);
    bot.pass(seconds(3600)).await;
    bot.world.trigger(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["▶️ PROD_CHECK running · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn the_ways_a_run_can_end_are_told_apart() {
    let mut bot = Bot::start(
        Setup::with(&[("hook", Kind::Webhook)])
            .and("[[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"hook\"]\non = [\"finished\"]\n"),
    )
    .await;
    bot.turn().await;
    for (status, headline) in [
        (Status::Success, "✅ Run succeeded · release"),
        (Status::Fail, "❌ Run failed · release"),
        (Status::Termination, "⏹️ Run terminated · release"),
        (Status::Cancel, "⏹️ Run cancelled · release"),
    ] {
        let run = bot.add("release");
        bot.world.set_run_status(PROJECT, &run, Status::Running).unwrap();
        bot.turn().await;
        bot.say(ROOM, &format!("/watch {run}")).await;
        bot.world.set_run_status(PROJECT, &run, status.clone()).unwrap();
        bot.turn().await;
        assert_eq!(bot.heard(ROOM), [headline]);
        assert_eq!(bot.heard("hook"), [format!("run.finished Running → {status} · release")]);
        let watches = bot.say(ROOM, "/watches").await.text;
        assert!(watches.starts_with("This room watches nothing"), "the watch outlives its run: {watches}");
    }
    bot.finish().await;
}

#[tokio::test]
async fn a_run_that_is_no_longer_found_is_lost_and_not_before_it_is_sure() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    bot.world.remove_run(PROJECT, &run).unwrap();
    bot.pass(seconds(280)).await;
    assert!(bot.heard(ROOM).is_empty(), "a run was given up too early");
    bot.pass(seconds(120)).await;
    assert_eq!(bot.heard(ROOM), ["❔ Run no longer found · orders_daily v12"]);
    assert!(bot.say(ROOM, "/watches").await.text.starts_with("This room watches nothing"));
    bot.finish().await;
}

#[tokio::test]
async fn a_run_that_vanished_blinds_nobody() {
    let (mut bot, vanished) = watching(Setup::with(&[])).await;
    let other = bot.world.add_run(PROJECT, RunSpec::online("other v1"));
    bot.say(ROOM, &format!("/watch {other}")).await;
    bot.world.remove_run(PROJECT, &vanished).unwrap();
    bot.turn().await;
    let before = bot.world.calls(Action::List);
    for _ in 0..3 {
        bot.world.advance(PROJECT, &other).unwrap();
        bot.turn().await;
    }
    assert!(bot.world.calls(Action::List) >= before + 3, "the workspace is listed no more");
    let expected = ["▶️ BUILD_PACKAGE running", "✅ BUILD_PACKAGE passed", "▶️ PROD_CHECK running"];
    assert_eq!(bot.heard(ROOM), expected.map(|said| format!("{said} · other v1")));
    bot.finish().await;
}

#[tokio::test]
async fn a_short_budget_is_shared_between_the_list_and_a_run_behind_it() {
    let mut bot = Bot::start(Setup { calls: ("5", "1000"), ..Setup::with(&[]) }).await;
    let run = bot.world.add_run(PROJECT, RunSpec::online("old v1"));
    bot.say(ROOM, &format!("/watch {run}")).await;
    for n in 0..100 {
        bot.world.add_run(PROJECT, RunSpec::online(&format!("newer v{n}")));
    }
    // The burst of the day is spent, and a call comes back every few minutes.
    bot.pass(seconds(2400)).await;
    let (lists, gets) = (bot.world.calls(Action::List), bot.world.calls(Action::Get));
    bot.pass(seconds(2400)).await;
    let (lists, gets) = (bot.world.calls(Action::List) - lists, bot.world.calls(Action::Get) - gets);
    assert!(gets > 5 && lists > 5, "{lists} lists and {gets} gets");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(seconds(600)).await;
    assert_eq!(bot.heard(ROOM), ["▶️ BUILD_PACKAGE running · old v1"]);
    bot.finish().await;
}

#[tokio::test]
async fn a_status_gone_backwards_is_believed_the_second_time() {
    let (mut bot, run) = watching(Setup { waiting_after: "1d", ..Setup::with(&[]) }).await;
    for _ in 0..2 {
        bot.world.advance(PROJECT, &run).unwrap();
    }
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["✅ BUILD_PACKAGE passed · orders_daily v12"]);
    bot.world.set_stage(PROJECT, &run, "BUILD_PACKAGE", Status::Running, "").unwrap();
    bot.turn().await;
    bot.world.set_stage(PROJECT, &run, "BUILD_PACKAGE", Status::Success, "").unwrap();
    bot.turn().await;
    assert!(bot.heard(ROOM).is_empty(), "one stale answer is no news");
    bot.world.set_stage(PROJECT, &run, "BUILD_PACKAGE", Status::Running, "").unwrap();
    bot.turn().await;
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["▶️ BUILD_PACKAGE running · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn several_changes_in_one_poll_come_in_the_order_of_the_stages() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    for (code, status) in
        [("PROD", Status::Running), ("BUILD_PACKAGE", Status::Success), ("PROD_CHECK", Status::Success)]
    {
        bot.world.set_stage(PROJECT, &run, code, status, "").unwrap();
    }
    bot.world.set_run_status(PROJECT, &run, Status::Running).unwrap();
    bot.turn().await;
    let title = "orders_daily v12";
    assert_eq!(
        bot.heard(ROOM),
        [
            format!("✅ BUILD_PACKAGE passed · {title}"),
            format!("✅ PROD_CHECK passed · {title}"),
            format!("▶️ PROD running · {title}")
        ]
    );
    bot.finish().await;
}

#[tokio::test]
async fn a_run_that_falls_off_the_first_page_is_followed_to_its_end() {
    let (mut bot, run) = watching(Setup::standing(&[("hook", Kind::Webhook)])).await;
    bot.heard("hook");
    for n in 0..130 {
        bot.step(seconds(1));
        bot.add(&format!("other {n}"));
    }
    bot.turn().await;
    // 100 of them are seen at once; those on further pages are old by then and no news.
    let started = bot.heard("hook");
    assert!(started.iter().all(|line| line.starts_with("run.started · other")), "{started:#?}");
    bot.world.finish(PROJECT, &run).unwrap();
    bot.turn().await;
    let heard = bot.heard(ROOM);
    assert_eq!(heard.last().map(String::as_str), Some("✅ Run succeeded · orders_daily v12"), "{heard:#?}");
    assert_eq!(heard.len(), 4);
    assert_eq!(bot.heard("hook").len(), 4);
    bot.finish().await;
}

// ------------------------------------------------------------------------------------------------- what people type

#[tokio::test]
async fn the_workspace_of_a_run_is_found_without_being_named() {
    let workspaces = vec![("warehouse", PROJECT), ("finance", 20_000), ("marketing", 30_000)];
    let mut bot = Bot::start(Setup { workspaces, ..Setup::with(&[]) }).await;
    bot.turn().await;
    let run = bot.world.add_run(30_000, RunSpec::online("campaign v3"));
    // Nobody has polled since: each workspace is asked.
    let said = bot.say(ROOM, &format!("/watch {run}")).await;
    assert!(said.text.starts_with("Watching campaign v3 in marketing"), "{said:?}");
    let calls = bot.world.calls(Action::Get);
    let said = bot.say("discord:2", &format!("/watch {run}")).await;
    assert!(said.text.starts_with("Watching campaign v3 in marketing"), "{said:?}");
    assert_eq!(bot.world.calls(Action::Get), calls + 1, "a known run is asked for in its own workspace only");
    bot.world.finish(30_000, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard(ROOM).len(), 4);
    assert_eq!(bot.heard("discord:2").len(), 4);
    bot.finish().await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_said_to_the_asker_alone() {
    let bot = Bot::start(Setup::with(&[])).await;
    let ended = bot.add("orders_daily v10");
    bot.world.finish(PROJECT, &ended).unwrap();
    let twins = ["7b1e04c2-0000-4000-8000-000000000001", "7b1e04c2-0000-4000-8000-000000000002"];
    for id in twins {
        bot.world.add_run(PROJECT, RunSpec::online("twin").with_id(id.parse().unwrap()));
    }
    bot.turn().await;
    for (text, expected) in [
        ("/watch 7b1e04c2".to_owned(), "2 runs begin with 7b1e04c2; type more of the id:"),
        (
            "/watch ffffffff-0000-4000-8000-000000000009".to_owned(),
            "No run ffffffff-0000-4000-8000-000000000009 in warehouse.",
        ),
        ("/watch not/an/id".to_owned(), "That is no run id"),
        ("/watch".to_owned(), "/watch needs"),
        (format!("/watch {ended} finance"), "I follow no workspace finance. I follow warehouse."),
        (
            format!("/watch {ended}"),
            "orders_daily v10 in warehouse (9e3779b1) ended with Success; there is nothing left",
        ),
        ("/wacth 7b1e".to_owned(), "There is no command /wacth. Did you mean /watch?"),
        ("/unwatch 7b1e04c2".to_owned(), "This room does not watch 7b1e04c2"),
    ] {
        let said = bot.say(ROOM, &text).await;
        assert!(said.text.starts_with(expected), "{text} → {}", said.text);
        assert!(said.private, "{text} → {}", said.text);
    }
    assert!(bot.say(ROOM, "/watches").await.text.starts_with("This room watches nothing"));
    bot.finish().await;
}

#[tokio::test]
async fn two_rooms_watch_the_same_run_and_one_of_them_stops() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    let again = bot.say(ROOM, &format!("/watch {}", run.short())).await;
    assert!(again.text.starts_with("This room watches orders_daily v12"), "{again:?}");
    bot.say("discord:2", &format!("/watch {run}")).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    for room in [ROOM, "discord:2"] {
        assert_eq!(bot.heard(room), ["▶️ BUILD_PACKAGE running · orders_daily v12"], "{room}");
    }
    let status = bot.say(ROOM, &format!("/status {run}")).await.text;
    assert!(status.contains("Watched here and in 1 other place"), "{status}");
    let said = bot.say(ROOM, &format!("/unwatch {}", run.short())).await;
    assert!(said.text.starts_with("No longer watching orders_daily v12"), "{said:?}");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert!(bot.heard(ROOM).is_empty(), "a room that stopped hears nothing more");
    assert_eq!(bot.heard("discord:2"), ["✅ BUILD_PACKAGE passed · orders_daily v12"]);
    bot.finish().await;
}

#[tokio::test]
async fn standing_subscriptions_tell_what_they_were_asked_for() {
    let setup = Setup::with(&[("prod", Kind::Webhook), ("mine", Kind::Webhook), ("alarm", Kind::Webhook)]).and(
        r#"
[[subscriptions]]
workspace = "warehouse"
channels = ["prod"]
on = ["stage"]
stages = ["prod"]

[[subscriptions]]
workspace = "warehouse"
channels = ["mine"]
on = ["started", "finished"]
creators = ["42"]

[[subscriptions]]
workspace = "warehouse"
channels = ["alarm"]
on = ["failed"]
"#,
    );
    let mut bot = Bot::start(setup).await;
    bot.turn().await;
    let theirs = bot.add("theirs");
    let mine = bot.world.add_run(PROJECT, RunSpec::online("mine").created_by("42"));
    bot.turn().await;
    bot.world.finish(PROJECT, &mine).unwrap();
    bot.world.fail(PROJECT, &theirs, "PROD_CHECK", "no such table").unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("prod"), ["run.stage.changed PROD Init → Success · mine"]);
    assert_eq!(bot.heard("mine"), ["run.started · mine", "run.finished Init → Success · mine"]);
    assert_eq!(
        bot.heard("alarm"),
        ["run.stage.changed PROD_CHECK Init → Fail · theirs", "run.finished Init → Fail · theirs"]
    );
    bot.finish().await;
}

// ------------------------------------------------------------------------------------------------- a bad DataWorks

#[tokio::test]
async fn while_polls_fail_nothing_is_said_and_everything_when_they_work_again() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    bot.world.break_down(Fault::internal_error());
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(seconds(1800)).await;
    assert!(bot.heard(ROOM).is_empty());
    let status = bot.say(ROOM, &format!("/status {run}")).await.text;
    assert!(status.contains("Last seen 30 min ago. Polling has failed for"), "{status}");
    bot.world.recover();
    bot.pass(seconds(301)).await;
    let told = bot.read_on(ROOM);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with("▶️ Now: running at BUILD_PACKAGE · orders_daily v12"), "no news after half an hour");
    assert!(told[0].contains("BUILD_PACKAGE"), "what was missed is named: {}", told[0]);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["✅ BUILD_PACKAGE passed · orders_daily v12"], "what follows is news again");
    let status = bot.say(ROOM, &format!("/status {run}")).await.text;
    assert!(!status.contains("failed for"), "{status}");
    assert_eq!(bot.take_logs("polling fails"), 1, "an outage is said once");
    bot.finish().await;
}

#[tokio::test]
async fn a_throttled_answer_makes_fewer_calls() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    bot.heard(ROOM);
    let calls = |bot: &Bot| bot.world.calls(Action::List);
    let before = calls(&bot);
    bot.pass(seconds(60)).await;
    let usual = calls(&bot) - before;
    bot.world.break_down(Fault::throttled());
    let before = calls(&bot);
    bot.pass(seconds(60)).await;
    let throttled = calls(&bot) - before;
    assert!(throttled * 2 <= usual, "{throttled} calls in a minute when throttled, {usual} otherwise");
    bot.world.recover();
    bot.world.inject(Fault::throttled_for(90_000), 1);
    bot.pass(seconds(300)).await;
    bot.take_logs("polling fails");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(seconds(300)).await;
    assert_eq!(bot.heard(ROOM).first().map(String::as_str), Some("✅ BUILD_PACKAGE passed · orders_daily v12"));
    bot.heard(ROOM);
    bot.finish().await;
}

#[tokio::test]
async fn a_used_up_quota_is_left_alone_until_the_day_is_over() {
    let (mut bot, run) = watching(Setup::with(&[])).await;
    bot.world.inject(Fault::quota_gone(), 1);
    bot.poll().await;
    let before = bot.world.total_calls();
    bot.world.advance(PROJECT, &run).unwrap();
    // It is 16:00 in China.
    bot.pass(seconds(7 * 3600)).await;
    assert_eq!(bot.world.total_calls(), before, "calls were made although the day's quota is gone");
    let said = bot.say("discord:2", &format!("/watch {run}")).await.text;
    assert!(said.contains("Last seen"), "an answer from memory says how old it is: {said}");
    assert_eq!(bot.world.total_calls(), before);
    bot.pass(seconds(3600 + 600)).await;
    for room in [ROOM, "discord:2"] {
        assert_eq!(bot.heard(room), ["▶️ Now: running at BUILD_PACKAGE · orders_daily v12"], "{room}");
    }
    assert_eq!(bot.take_logs("polling fails"), 1);
    bot.finish().await;
}

#[tokio::test]
async fn wrong_credentials_are_said_once_with_what_to_do() {
    let bot = Bot::start(Setup { secret: "not-the-secret", ..Setup::with(&[]) }).await;
    bot.pass(seconds(3600)).await;
    let said = bot.say(ROOM, "/watch 7b1e04c2-0000-4000-8000-000000000001").await;
    assert!(said.text.contains("check dataworks.credentials.access_key_secret"), "{said:?}");
    assert_eq!(bot.take_logs("check dataworks.credentials.access_key_secret"), 1);
    bot.finish().await;
}

// ----------------------------------------------------------------------------------------------- a bad destination

#[tokio::test]
async fn a_wait_that_a_destination_asks_for_is_obeyed_and_disturbs_nobody_else() {
    let (mut bot, run) = watching(Setup::standing(&[("team", Kind::Slack)])).await;
    let team = bot.url("team").to_owned();
    bot.sink.answer(&team, [Answer::text(429, &[("retry-after", "30")], "rate_limited"), Answer::status(500)]);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.poll().await;
    bot.deliver().await;
    assert_eq!(bot.heard(ROOM), ["▶️ BUILD_PACKAGE running · orders_daily v12"], "another destination waits too");
    bot.world.advance(PROJECT, &run).unwrap();
    bot.step(FASTEST);
    bot.tick().await;
    bot.pass(seconds(24)).await;
    assert_eq!(bot.requests("team").len(), 1, "a request before the 30 s are over");
    bot.pass(seconds(60)).await;
    assert!(bot.requests("team").len() >= 4);
    let expected = ["▶️ BUILD_PACKAGE running · orders_daily v12", "✅ BUILD_PACKAGE passed · orders_daily v12"];
    assert_eq!(bot.heard("team")[..2], expected, "the order of a run's changes is kept");
    bot.heard(ROOM);
    assert_eq!(bot.take_logs("not delivered yet"), 2);
    bot.finish().await;
}

#[tokio::test]
async fn an_outage_of_hours_loses_nothing_and_is_no_storm() {
    let (mut bot, run) = watching(Setup { waiting_after: "1d", ..Setup::standing(&[("hook", Kind::Webhook)]) }).await;
    let hook = bot.url("hook").to_owned();
    bot.sink.answer(&hook, std::iter::repeat_n(Answer::status(503), 1000));
    for _ in 0..6 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.poll().await;
    }
    bot.pass(seconds(6 * 3600)).await;
    let requests = bot.requests("hook");
    assert!((8..=20).contains(&requests.len()), "{} requests in six hours of outage", requests.len());
    assert!(requests.iter().all(|seen| seen.body == requests[0].body), "what may have arrived is repeated as it was");
    assert_eq!(bot.open().await.len(), 7, "six stage changes and the end");
    assert_eq!(bot.heard(ROOM).len(), 7);
    bot.sink.forget_answers(&hook);
    bot.pass(seconds(5 * 3600)).await;
    let told: Vec<_> = bot.requests("hook").split_off(requests.len());
    assert_eq!(told.len(), 2, "the one that may have arrived, and all the others together");
    let before = "run.stage.changed BUILD_PACKAGE Init → Running · orders_daily v12";
    assert_eq!(bot.heard("hook").first().map(String::as_str), Some(before));
    let missed = told[1].json()["data"]["changes"].as_array().cloned().unwrap_or_default();
    let missed: Vec<&str> = missed.iter().filter_map(|change| change["data"]["to"].as_str()).collect();
    assert_eq!(missed, ["Success", "Running", "Success", "Running", "Success", "Success"], "each by name, in order");
    bot.take_logs("not delivered yet");
    bot.finish().await;
}

#[tokio::test]
async fn a_destination_that_is_gone_gets_one_request() {
    let (mut bot, run) = watching(Setup::standing(&[("chat", Kind::Discord)])).await;
    let chat = bot.url("chat").to_owned();
    bot.sink
        .answer(&chat, [Answer::json(404, &[], serde_json::json!({ "code": 10015, "message": "Unknown Webhook" }))]);
    for _ in 0..4 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.turn().await;
    }
    for _ in 0..24 {
        bot.step(seconds(3600));
        bot.deliver().await;
    }
    bot.turn().await;
    assert_eq!(bot.requests("chat").len(), 1);
    assert_eq!(bot.heard(ROOM).len(), 4 + 1, "four changes, and PROD waits; other destinations are unaffected");
    assert_eq!(bot.take_logs("refuses for good"), 1);
    assert_eq!(bot.open().await.len(), 5, "what is owed to it waits for a person");
    // A person mends it and brings it back; the service hears of it.
    let chat = Destination::Channel("chat".to_owned());
    assert!(bot.guest().await.revive(&chat, bot.now()).await.unwrap());
    bot.keep_house().await;
    bot.pass(seconds(60)).await;
    let told = bot.read_on("chat");
    assert_eq!(told.len(), 1, "a day later nothing of it is news any more: {told:#?}");
    for stage in ["BUILD_PACKAGE", "PROD_CHECK", "PROD"] {
        assert!(told[0].contains(stage), "{stage} is lost: {}", told[0]);
    }
    bot.finish().await;
}

// -------------------------------------------------------------------------------------------------------- restarts

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing_and_repeats_nothing() {
    let (mut bot, run) = watching(Setup { waiting_after: "1d", ..Setup::standing(&ALL) }).await;
    for n in 0..6 {
        bot.world.advance(PROJECT, &run).unwrap();
        if n % 2 == 0 {
            bot.restart().await;
        }
        bot.poll().await;
        if n % 3 == 0 {
            bot.restart().await;
        }
        bot.deliver_all().await;
        bot.restart().await;
    }
    for name in ["chat", "team", "ops", "hook", ROOM] {
        assert_eq!(bot.heard(name).len(), 7, "{name}");
    }
    assert_eq!(bot.requests("hook").len(), 7, "what was settled is not sent again");
    bot.finish().await;
}

#[tokio::test]
async fn what_was_being_sent_when_the_process_died_is_unknown_and_sent_again_under_the_same_id() {
    let (mut bot, run) = watching(Setup::standing(&[("hook", Kind::Webhook)])).await;
    let hook = bot.url("hook").to_owned();
    bot.sink.answer(&hook, [Answer::Hang]);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.poll().await;
    // Not waited for: the answer never comes.
    bot.begin_delivery().await;
    bot.sink.until_seen(1).await;
    bot.restart().await;
    let recovered = bot.store().overview().await.unwrap().recovered;
    assert!(recovered.contains(&(Destination::Channel("hook".to_owned()), 1)), "{recovered:?}");
    bot.deliver_all().await;
    let requests = bot.requests("hook");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body, "a receiver compares bytes");
    assert_eq!(bot.heard("hook").len(), 1, "who looks at the id hears it once");
    assert_eq!(bot.heard(ROOM).len(), 1);
    assert!(bot.metrics().contains(r#"outcome="unknown""#), "unknown outcomes are counted over restarts too");
    bot.finish().await;
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_message_arrived_is_an_unknown_outcome() {
    let (mut bot, run) = watching(Setup::standing(&[("team", Kind::Slack)])).await;
    let team = bot.url("team").to_owned();
    bot.sink.answer(&team, [Answer::Drop]);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    let copies = u64::try_from(bot.heard("team").len()).unwrap();
    assert!(copies - 1 <= bot.attempts(r#"outcome="unknown""#), "more copies than unknown outcomes");
    bot.heard(ROOM);
    bot.take_logs("not delivered yet");
    bot.finish().await;
}

// ------------------------------------------------------------------------------------------------ another process

#[tokio::test]
async fn what_another_process_subscribes_is_taken_over() {
    let (mut bot, run) = watching(Setup::with(&[("hook", Kind::Webhook)])).await;
    let workspace = WorkspaceKey(format!("cn-shanghai/{PROJECT}"));
    let subscription = Subscription {
        id: "11111111-0000-7000-8000-000000000001".to_owned(),
        scope: Scope::Workspace { workspace },
        to: Destination::Channel("hook".to_owned()),
        on: Selector::ALL.into_iter().collect(),
        stages: Vec::new(),
        creators: Vec::new(),
        template: None,
        by: "cli".to_owned(),
        roles: Vec::new(),
        until: None,
        muted: None,
        stopped: None,
        created_at: bot.now(),
    };
    bot.guest().await.subscribe(&subscription, None).await.unwrap();
    bot.keep_house().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard("hook"), ["run.stage.changed BUILD_PACKAGE Init → Running · orders_daily v12"]);
    bot.guest().await.unsubscribe(&subscription.id).await.unwrap();
    bot.keep_house().await;
    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert!(bot.heard("hook").is_empty());
    assert_eq!(bot.heard(ROOM).len(), 2, "a room is not disturbed by other processes");
    bot.finish().await;
}
