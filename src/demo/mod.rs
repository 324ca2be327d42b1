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
    pub name: &'static str,
    /// What will become of it, for the person who watches.
    pub fate: &'static str,
}

/// A person starts the stage that waits after this long.
const PERSON_COMES_AFTER: Duration = Duration::from_secs(9);

/// Three releases: one goes through, one fails, one waits for a person, who comes.
pub fn releases(world: &World) -> Vec<Release> {
    let seconds = Duration::from_secs;
    let goes_through = Script(vec![
        Act::new("BUILD_PACKAGE", seconds(3)),
        Act::new("PROD_CHECK", seconds(4)).after(seconds(1)),
        Act::new("PROD", seconds(5)).after(seconds(1)),
    ]);
    let fails = Script(vec![
        Act::new("BUILD_PACKAGE", seconds(5)),
        Act::new("PROD_CHECK", seconds(5)).after(seconds(1)),
        Act::new("PROD", seconds(4)).after(seconds(1)).failing("table ods_customer_di does not exist"),
    ]);
    let waits = Script(vec![
        Act::new("BUILD_PACKAGE", seconds(4)),
        Act::new("PROD_CHECK", seconds(3)).after(seconds(1)),
        Act::new("PROD", seconds(4)).after(PERSON_COMES_AFTER),
    ]);
    let scene = [
        ("7b1e04c2-5d0f-4c55-9e0b-2f6a1c9d8e01", "orders_daily v12", "goes through", goes_through),
        ("3f9a51d0-8a44-4b0e-b7c1-6d2e5f4a3b02", "customer_profile v7", "fails in production", fails),
        ("c40d7e18-19c2-4f7d-8a3e-0b5c6d7e8f03", "finance_report v3", "waits for a person", waits),
    ];
    let release = |(id, name, fate, script): (&str, &'static str, &'static str, Script)| {
        let spec = RunSpec::online(name).scripted(script);
        let spec = match id.parse() {
            Ok(id) => spec.with_id(id),
            Err(_) => spec,
        };
        Release { id: world.add_run(PROJECT_ID, spec), name, fate }
    };
    scene.into_iter().map(release).collect()
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
    let mut version = 13;
    loop {
        tokio::time::sleep(EVERY).await;
        let seconds = Duration::from_secs;
        let script = Script(vec![
            Act::new("BUILD_PACKAGE", seconds(5)),
            Act::new("PROD_CHECK", seconds(8)).after(seconds(2)),
            Act::new("PROD", seconds(10)).after(seconds(5)),
        ]);
        world.add_run(PROJECT_ID, RunSpec::online(&format!("orders_daily v{version}")).scripted(script));
        version += 1;
    }
}
