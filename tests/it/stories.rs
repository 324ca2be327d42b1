//! The main job, end to end.

use std::time::Duration;

use callboard::demo::dataworks::RunSpec;

use crate::bot::{Bot, Kind, PROJECT, Setup};

const ALL: [(&str, Kind); 4] =
    [("chat", Kind::Discord), ("team", Kind::Slack), ("ops", Kind::DingTalk), ("hook", Kind::Webhook)];

#[tokio::test]
async fn a_run_of_five_stages_is_told_change_by_change_everywhere() {
    let mut bot = Bot::start(Setup { gateway: true, ..Setup::standing(&ALL) }).await;
    let run = bot.world.add_run(PROJECT, RunSpec::standard("orders_daily v12"));
    bot.turn().await;
    let answer = bot.say("discord:1", &format!("/watch {run}")).await;
    assert!(
        answer.text.starts_with("Watching orders_daily v12 in warehouse (9e3779b1). Now: stage 1 of 5"),
        "{answer:?}"
    );
    for _ in 0..10 {
        bot.world.advance(PROJECT, &run).unwrap();
        bot.turn().await;
        bot.step(Duration::from_secs(1));
    }
    let mut expected = Vec::new();
    for code in ["BUILD_PACKAGE", "DEV_CHECK", "DEV", "PROD_CHECK", "PROD"] {
        expected.push(format!("▶️ {code} running · orders_daily v12"));
        expected.push(format!("✅ {code} passed · orders_daily v12"));
    }
    expected.push("✅ Run succeeded · orders_daily v12".to_owned());
    for to in ["chat", "team", "ops", "discord:1"] {
        assert_eq!(bot.heard(to), expected, "{to}");
    }
    assert_eq!(bot.heard("hook").len(), 11);
    bot.finish().await;
}
