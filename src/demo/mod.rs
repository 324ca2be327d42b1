//! The simulated DataWorks, and what happens in it during the demo.

pub mod dataworks;

use std::time::Duration;

use crate::model::RunId;
use dataworks::{Act, RunSpec, Script, World};

/// The demo's one workspace.
pub const PROJECT_ID: i64 = 10_000;
pub const REGION: &str = "cn-shanghai";
/// What the simulated DataWorks accepts; nothing real.
pub const ACCESS_KEY_ID: &str = "demo-key-id";
pub const ACCESS_KEY_SECRET: &str = "demo-key-secret";

/// A release of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub id: RunId,
    pub name: String,
    /// What will become of it, for the person who watches.
    pub fate: &'static str,
}

/// A person starts the stage that waits after this long.
const PERSON_COMES_AFTER: Duration = Duration::from_secs(9);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three releases: one goes through, one fails, one waits for a person, who comes.
pub fn releases(world: &World) -> Vec<Release> {
    let ids = [
        "7b1e04c2-5d0f-4c55-9e0b-2f6a1c9d8e01",
        "3f9a51d0-8a44-4b0e-b7c1-6d2e5f4a3b02",
        "c40d7e18-19c2-4f7d-8a3e-0b5c6d7e8f03",
    ];
    ids.into_iter().zip(0..).map(|(id, number)| add(world, number, id.parse().ok())).collect()
}

/// One more release; those of the same number are the same, those of 0, 1 and 2 are [`releases`].
pub fn another(world: &World, number: u64) -> Release {
    add(world, number, None)
}

fn add(world: &World, number: u64, id: Option<RunId>) -> Release {
    let (object, first, fate, script) = match number % 3 {
        0 => ("orders_daily", 12, "goes through", goes_through()),
        1 => ("customer_profile", 7, "fails in production", fails()),
        _ => ("finance_report", 3, "waits for a person", waits()),
    };
    let name = format!("{object} v{}", first + number / 3);
    let spec = RunSpec { id, ..RunSpec::online(&name).scripted(script) };
    Release { id: world.add_run(PROJECT_ID, spec), name, fate }
}

fn goes_through() -> Script {
    Script(vec![
        Act::new("BUILD_PACKAGE", seconds(3)),
        Act::new("PROD_CHECK", seconds(4)).after(seconds(1)),
        Act::new("PROD", seconds(5)).after(seconds(1)),
    ])
}

fn fails() -> Script {
    Script(vec![
        Act::new("BUILD_PACKAGE", seconds(5)),
        Act::new("PROD_CHECK", seconds(5)).after(seconds(1)),
        Act::new("PROD", seconds(4)).after(seconds(1)).failing("table ods_customer_di does not exist"),
    ])
}

fn waits() -> Script {
    Script(vec![
        Act::new("BUILD_PACKAGE", seconds(4)),
        Act::new("PROD_CHECK", seconds(3)).after(seconds(1)),
        Act::new("PROD", seconds(4)).after(PERSON_COMES_AFTER),
    ])
}

/// Whether everything that was ever started has ended.
pub fn all_ended(world: &World) -> bool {
    let ended = |id: &RunId| world.look(PROJECT_ID, id).is_ok_and(|(status, _)| status.is_terminal());
    world.runs(PROJECT_ID).iter().all(ended)
}

/// Time passes in the simulated DataWorks as it does here, until the task is dropped.
pub async fn live(world: World) {
    const STEP: Duration = Duration::from_millis(100);
    let mut ticks = tokio::time::interval(STEP);
    loop {
        ticks.tick().await;
        world.step(STEP);
    }
}

/// A new release each minute, so that there is always something to follow.
pub async fn renew(world: World) {
    const EVERY: Duration = Duration::from_secs(60);
    for number in 3.. {
        tokio::time::sleep(EVERY).await;
        another(&world, number);
    }
}
