//! Access to the pipeline API lost for hours and found again: few calls, one notice each to the operators, nothing lost.

use std::time::Duration;

use callboard::demo::dataworks::Fault;
use callboard::model::RunId;

use crate::bot::{Bot, Kind, PROJECT, Setup};

const ROOM: &str = "discord:1";
const DENIED: &str = "❌ DataWorks refuses access · warehouse";
const BACK: &str = "✅ DataWorks grants access again · warehouse";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn hours(n: u64) -> Duration {
    seconds(n * 3600)
}

/// With operators in `admins`, a standing subscription to `hook`, and a room that watches the run.
async fn watching(setup: Setup) -> (Bot, RunId) {
    let bot = Bot::start(setup).await;
    let run = bot.add("orders_daily v12");
    bot.turn().await;
    let said = bot.say(ROOM, &format!("/watch {run}")).await;
    assert!(said.text.starts_with("Watching orders_daily v12 in warehouse"), "{said:?}");
    (bot, run)
}

fn setup() -> Setup {
    let subscription =
        "[[subscriptions]]\nworkspace = \"warehouse\"\nchannels = [\"hook\"]\non = [\"stage\", \"finished\"]\n";
    let channels = [("hook", Kind::Webhook), ("admins", Kind::Slack)];
    Setup { waiting_after: "1d", ..Setup::with(&channels) }
        .and("[notices]\nchannels = [\"admins\"]\n")
        .and(subscription)
}

/// Enough of them are left to see every one of a few workspaces again.
const RECOVERY: Duration = Duration::from_secs(120);

#[tokio::test]
async fn refused_credentials_are_told_to_the_operators_alone_and_caught_up_on_in_one_message() {
    let (mut bot, run) = watching(setup()).await;
    bot.world.break_down(Fault::key_disabled());
    let before = bot.world.total_calls();
    bot.pass(hours(1)).await;
    assert_eq!(bot.heard("admins"), [DENIED]);
    for _ in 0..3 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.pass(hours(1)).await;
    }
    let calls = bot.world.total_calls() - before;
    assert!((200..=245).contains(&calls), "{calls} calls in four hours");
    for to in ["admins", "hook", ROOM] {
        assert!(bot.heard(to).is_empty(), "{to} was told of the outage");
    }
    let watches = bot.say(ROOM, "/watches").await.text;
    assert!(watches.contains("orders_daily v12"), "the watch is gone: {watches}");

    bot.world.recover();
    bot.pass(RECOVERY).await;
    assert_eq!(bot.heard("admins"), [BACK]);
    let caught_up = bot.read_on(ROOM);
    assert_eq!(caught_up.len(), 1, "what one run did is one message: {caught_up:#?}");
    assert!(caught_up[0].contains("orders_daily v12") && caught_up[0].contains("PROD_CHECK"), "{}", caught_up[0]);
    assert_eq!(bot.heard("hook").len(), 1);
    let changes = bot.requests("hook")[0].json()["data"]["changes"].as_array().map(Vec::len);
    assert_eq!(changes, Some(2), "BUILD_PACKAGE passed and PROD_CHECK runs, once each");
    assert_eq!(bot.take_logs("DataWorks refuses the credentials"), 1, "an outage is logged once");

    bot.world.advance(PROJECT, &run).unwrap();
    bot.turn().await;
    assert_eq!(bot.heard(ROOM), ["✅ PROD_CHECK passed · orders_daily v12"], "what follows is news again");
    assert_eq!(bot.heard("hook").len(), 1);
    bot.finish().await;
}

#[tokio::test]
async fn whoever_asks_while_the_key_is_refused_hears_why_without_a_call() {
    let (mut bot, run) = watching(setup()).await;
    bot.world.break_down(Fault::key_disabled());
    bot.pass(seconds(600)).await;
    assert_eq!(bot.heard("admins"), [DENIED]);
    let before = bot.world.total_calls();
    let said = bot.say(ROOM, "/watch 7b1e04c2-0000-4000-8000-000000000001").await;
    let expected = "DataWorks refuses my access for now: InvalidAccessKeyId.Inactive";
    assert!(said.private && said.text.starts_with(expected), "{said:?}");
    assert!(said.text.ends_with("Watches stay."), "{said:?}");
    let status = bot.say(ROOM, &format!("/status {run}")).await.text;
    assert!(status.contains("DataWorks has refused access for"), "{status}");
    assert!(status.contains("Watches stay, what is missed is told later."), "{status}");
    let runs = bot.say(ROOM, "/runs").await.text;
    assert!(runs.contains("DataWorks has refused access for"), "{runs}");
    let watched = bot.say("discord:2", &format!("/watch {run}")).await.text;
    assert!(watched.starts_with("Watching orders_daily v12") && watched.contains("refused access"), "{watched}");
    assert_eq!(bot.world.total_calls(), before, "an answer cost a call that was bound to be refused");
    // A minute after the last try, a person's question is as good a try as a poll.
    bot.step(seconds(61));
    bot.world.recover();
    let said = bot.say(ROOM, "/watch 7b1e04c2-0000-4000-8000-000000000001").await.text;
    assert!(said.starts_with("No run 7b1e04c2"), "{said}");
    bot.pass(RECOVERY).await;
    assert_eq!(bot.heard("admins"), [BACK]);
    bot.take_logs("DataWorks refuses the credentials");
    bot.finish().await;
}

#[tokio::test]
async fn restarts_in_an_outage_tell_nothing_twice_and_lose_nothing() {
    let (mut bot, run) = watching(setup()).await;
    bot.pass(seconds(120)).await;
    bot.world.break_down(Fault::key_disabled());
    bot.pass(hours(1)).await;
    for _ in 0..3 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.restart().await;
        bot.pass(hours(1)).await;
    }
    assert_eq!(bot.heard("admins"), [DENIED], "an outage is told once, whatever happens to the process");
    // It ends while the process is away.
    bot.crash().await;
    bot.world.recover();
    bot.step(seconds(300));
    bot.revive().await;
    bot.pass(RECOVERY).await;
    let told = bot.read_on("admins");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].starts_with(BACK), "{}", told[0]);
    // The last good look was after 08:02; it is kept to the minute.
    assert!(told[0].contains("08:01 UTC"), "when it began: {}", told[0]);
    assert_eq!(bot.read_on(ROOM).len(), 1);
    assert_eq!(bot.heard("hook").len(), 1);
    bot.restart().await;
    bot.pass(seconds(600)).await;
    assert!(bot.take_logs("DataWorks refuses the credentials") <= 4, "once for each process");
    bot.finish().await;
}

#[tokio::test]
async fn two_hundred_workspaces_cost_no_more_than_one_and_come_back_one_after_another() {
    let names: Vec<&'static str> = (0..200).map(|n| &*format!("w{n:03}").leak()).collect();
    let workspaces: Vec<_> = names.iter().copied().zip(20_000..).collect();
    let subscriptions: String = names
        .iter()
        .map(|name| format!("[[subscriptions]]\nworkspace = {name:?}\nchannels = [\"hook\"]\non = [\"finished\"]\n"))
        .collect();
    let channels = [("hook", Kind::Webhook), ("admins", Kind::Slack)];
    let setup = Setup { workspaces, calls: ("50", "10000000"), ..Setup::with(&channels) };
    let mut bot = Bot::start(setup.and("[notices]\nchannels = [\"admins\"]\n").and(&subscriptions)).await;
    bot.pass(seconds(30)).await;
    bot.world.break_down(Fault::key_disabled());
    let before = bot.world.total_calls();
    bot.pass(hours(6)).await;
    let calls = bot.world.total_calls() - before;
    assert!((300..=400).contains(&calls), "{calls} calls in six hours");
    let told = bot.heard("admins");
    assert!(told.len() == 1 && told[0].starts_with("❌ DataWorks refuses access · w000"), "{told:#?}");

    bot.world.recover();
    let mut before = bot.world.total_calls();
    let mut busiest = 0;
    for _ in 0..125 {
        bot.pass(seconds(1)).await;
        busiest = busiest.max(bot.world.total_calls() - before);
        before = bot.world.total_calls();
    }
    // Four a second come back, and those that are back are polled as usual; the budget would allow fifty.
    assert!(busiest <= 15, "{busiest} calls in one second");
    let told = bot.heard("admins");
    assert!(told.len() == 1 && told[0].starts_with("✅ DataWorks grants access again · w000"), "{told:#?}");
    assert_eq!(bot.take_logs("DataWorks refuses the credentials"), 1);
    bot.finish().await;
}

#[tokio::test]
async fn a_workspace_without_permission_slows_only_itself() {
    let setup = Setup { workspaces: vec![("warehouse", PROJECT), ("finance", 20_000)], ..setup() };
    let (mut bot, run) = watching(setup).await;
    bot.pass(seconds(700)).await;
    bot.world.set_member(20_000, false);
    bot.pass(hours(6)).await;
    let denied = bot.world.refusals().iter().filter(|code| *code == "NoPermission").count();
    assert!((36..=90).contains(&denied), "{denied} calls to a workspace that may not be seen, in six hours");
    assert_eq!(bot.heard("admins"), ["❌ DataWorks refuses access · finance"]);
    bot.world.advance(PROJECT, &run).unwrap();
    bot.pass(seconds(61)).await;
    assert_eq!(bot.heard(ROOM), ["▶️ BUILD_PACKAGE running · orders_daily v12"], "the other workspace is not late");
    assert_eq!(bot.heard("hook").len(), 1);
    bot.world.set_member(20_000, true);
    bot.pass(seconds(660)).await;
    assert_eq!(bot.heard("admins"), ["✅ DataWorks grants access again · finance"]);
    assert_eq!(bot.take_logs("polling fails"), 1);
    bot.finish().await;
}

#[tokio::test]
async fn a_secret_rotated_in_its_file_counts_within_a_minute_and_no_run_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "simulated-access-key-secret\n").unwrap();
    let secret = format!("{{ file = {file:?} }}").leak();
    let (mut bot, run) = watching(Setup { secret, ..setup() }).await;
    for n in 0..3 {
        let secret = format!("rotated-{n}");
        bot.world.rotate_secret(&secret);
        bot.pass(seconds(30)).await;
        std::fs::write(&file, &secret).unwrap();
        bot.world.advance(PROJECT, &run).unwrap();
        bot.pass(seconds(62)).await;
        assert_eq!(bot.heard(ROOM).len(), 1, "after rotation {n}");
    }
    assert_eq!(bot.heard("hook").len(), 3);
    let refused = bot.world.refusals().iter().filter(|code| *code == "SignatureDoesNotMatch").count();
    assert!((3..=6).contains(&refused), "{refused} refused calls");
    assert_eq!(bot.take_logs("DataWorks refuses the credentials"), 3);
    assert_eq!(bot.heard("admins").len() % 2, 0, "what began has ended");
    bot.finish().await;
}
