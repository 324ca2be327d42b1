//! What `callboard store migrate-from` refuses, and that it moves everything or nothing. That what was moved is the store
//! it was, random stores show (`store_random.rs`).

use callboard::model::{Decision, DeliveryState, Entry};
use callboard::store::{self, AuditFilter, Copied, DeliveryFilter, Next, Role, Settings, Store, StoreError};

use crate::postgres::Database;
use crate::process::damage::lose_index_row;
use crate::store_scene::{Ground, Scene, at, moved, watch};

const EACH: [&str; 9] =
    ["workspaces", "runs", "subscriptions", "changes", "deliveries", "attempts", "destinations", "audit", "seen"];

/// More than is in memory at a time, with a message under way and one that arrived.
async fn grown() -> Ground {
    let scene = Scene::on(Ground::file()).await;
    for version in 1..=450 {
        scene.record(&moved("r1", version, &["ops"])).await;
    }
    scene.record(&moved("r2", 1, &["dev"])).await;
    scene.store.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    scene.rules.close("dev", None);
    scene.settle(&scene.only(at(1)).await, Next::Delivered).await;
    scene.only(at(2)).await;
    for action in ["watch r1 in warehouse", "unwatch r1 in warehouse"] {
        let (person, room) = ("discord:7".to_owned(), "discord:1".to_owned());
        let (action, reason) = (action.to_owned(), String::new());
        let entry = Entry { at: at(3), person, room, action, decision: Decision::Allowed, reason, count: 1 };
        scene.store.audit(&[entry]).await.unwrap();
    }
    assert!(scene.store.once("slack:1", at(3), at(900)).await.unwrap());
    scene.ground
}

async fn rows(store: &dyn Store) -> Vec<store::DeliveryRow> {
    store.deliveries(&DeliveryFilter { limit: 10_000, ..DeliveryFilter::default() }).await.unwrap()
}

async fn refusal(from: &Ground, to: &Settings) -> StoreError {
    store::migrate(&from.settings(), to).await.expect_err("it moved")
}

#[tokio::test]
async fn a_grown_store_moves_as_a_whole_and_what_was_under_way_is_unknown() {
    let (from, database) = (grown().await, Database::create().await);
    let to = Settings::of(database.url());
    let counts = store::migrate(&from.settings(), &to).await.unwrap();
    let expected = Copied {
        workspaces: 1,
        runs: 2,
        subscriptions: 1,
        changes: 451,
        deliveries: 451,
        open: 450,
        attempts: 2,
        destinations: 1,
        audited: 2,
    };
    assert_eq!(counts, expected);

    let (before, after) = (from.owner().await, store::open(&to, Role::Owner).await.unwrap());
    assert_eq!(rows(after.as_ref()).await, rows(before.as_ref()).await);
    let log = AuditFilter { after: Some(0), limit: 10, ..AuditFilter::default() };
    assert_eq!(after.audited(&log).await.unwrap(), before.audited(&log).await.unwrap(), "it is one chain");
    assert!(!after.once("slack:1", at(4), at(900)).await.unwrap(), "what came before the move counts as come");
    let unknown = rows(after.as_ref()).await.iter().filter(|row| row.state == DeliveryState::Unknown).count();
    assert_eq!(unknown, 1, "what was under way may have arrived");
    // What comes next has a place of its own.
    let scene = Scene { store: after, ..Scene::on(Ground::Postgres(database)).await };
    scene.record(&moved("r3", 1, &["dev"])).await;
    assert_eq!(scene.all().await.len(), 452);
    assert!(scene.balance().await.is_balanced());
}

#[tokio::test]
async fn a_move_that_breaks_off_leaves_nothing_and_can_be_made_again() {
    let (from, database) = (grown().await, Database::create().await);
    let to = Settings::of(database.url());
    drop(store::open(&to, Role::Guest).await.unwrap());
    database.execute("ALTER TABLE deliveries ADD CONSTRAINT broken CHECK (number < 300)").await;
    let error = refusal(&from, &to).await;
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    for table in EACH {
        database.execute(&format!("DO $$ BEGIN ASSERT NOT EXISTS (SELECT 1 FROM {table}), '{table}'; END $$")).await;
    }
    database.execute("ALTER TABLE deliveries DROP CONSTRAINT broken").await;
    assert_eq!(store::migrate(&from.settings(), &to).await.map(|moved| moved.deliveries), Ok(451));
}

#[tokio::test]
async fn a_store_that_holds_anything_is_no_place_to_move_to() {
    let from = grown().await;
    let database = Database::create().await;
    let to = Settings::of(database.url());
    let guest = store::open(&to, Role::Guest).await.unwrap();
    guest.subscribe(&watch("w9", "r9", "ops"), None).await.unwrap();
    let error = refusal(&from, &to).await;
    assert!(matches!(error, StoreError::Taken { what: "subscriptions", .. }), "{error}");
    assert!(error.to_string().ends_with("holds subscriptions already; give it an empty one"), "{error}");
    assert_eq!(guest.load().await.unwrap().subscriptions.len(), 1, "what it held is untouched");

    // The second time finds what the first one brought.
    let database = Database::create().await;
    let to = Settings::of(database.url());
    store::migrate(&from.settings(), &to).await.unwrap();
    assert!(matches!(refusal(&from, &to).await, StoreError::Taken { .. }));

    // An empty one on which a replica has just begun.
    let database = Database::create().await;
    let to = Settings::of(database.url());
    let replica = store::open(&to, Role::Owner).await.unwrap();
    assert!(matches!(refusal(&from, &to).await, StoreError::InUse(_)));
    replica.retire().await.unwrap();
    assert!(store::migrate(&from.settings(), &to).await.is_ok(), "it has gone");
}

#[tokio::test]
async fn a_store_that_is_in_use_newer_damaged_or_missing_stays_where_it_is() {
    let target = Ground::file();
    let from = grown().await;
    let owner = from.owner().await;
    assert!(matches!(refusal(&from, &target.settings()).await, StoreError::InUse(_)));
    drop(owner);

    let error = refusal(&from, &from.settings()).await.to_string();
    assert!(error.contains("is the store of the configuration; set store.url to the new one first"), "{error}");

    let error = refusal(&Ground::file(), &target.settings()).await.to_string();
    assert!(error.contains("there is no file "), "{error}");
    assert!(!target.path().exists(), "nothing was made for it");

    let newer = grown().await;
    rusqlite::Connection::open(newer.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(refusal(&newer, &target.settings()).await, StoreError::Newer { found: 99, .. }));

    // An index that lacks rows: what it does not show would stay behind unsent.
    let damaged = grown().await;
    lose_index_row(&damaged.path());
    let error = refusal(&damaged, &target.settings()).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(!target.path().exists(), "nothing was made for it");
}
