//! What only a file can get wrong.

use callboard::model::{ChangeKind, DeliveryState, Plan, Status, Timestamp};
use callboard::store::{Next, Recorded, Role, Room, Settings, StoreError, open};
use uuid::Uuid;

use crate::store_scene::{Ground, Scene, at, change, folded, line, moved, run_id, told, warehouse, watch};

#[tokio::test]
async fn only_one_process_owns_the_store() {
    let place = Ground::file();
    let first = place.owner().await;
    assert!(matches!(place.refusal(Role::Owner).await, StoreError::InUse(_)));
    drop(first);
    place.owner().await;
}

#[tokio::test]
async fn a_guest_alone_creates_the_store_and_the_owner_takes_it_over() {
    let place = Ground::file();
    let guest = place.guest().await;
    guest.subscribe(&watch("w1", "r1", "ops"), None).await.unwrap();
    let owner = place.owner().await;
    assert_eq!(owner.load().await.unwrap().subscriptions.len(), 1);
    assert!(matches!(place.refusal(Role::Owner).await, StoreError::InUse(_)));
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_the_store_works() {
    let place = Ground::file();
    let ticking = tokio::spawn(async {
        let mut ticker = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            ticker.tick().await;
        }
    });
    let before = tokio::time::Instant::now();
    let scene = Scene::on(place).await;
    for version in 1..=50 {
        scene.record(&moved("r1", version, &["ops"])).await;
        scene.next_at(at(-1)).await;
    }
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    ticking.abort();
}

#[tokio::test]
async fn only_a_file_or_a_server_is_a_store() {
    for (url, word) in [
        ("postgres://u:hunter2@db:port/x", "no address of a PostgreSQL"),
        ("mysql://u:hunter2@db/x", "sqlite:PATH"),
        ("callboard.db", "sqlite:PATH"),
        ("sqlite:", "PATH is a file"),
        ("sqlite::memory:", "PATH is a file"),
    ] {
        let settings = Settings::of(url.to_owned());
        let Err(error) = open(&settings, Role::Owner).await else { panic!("{url} opened") };
        let said = error.to_string();
        assert!(
            matches!(error, StoreError::Open(_)) && said.contains(word) && !said.contains("hunter2"),
            "{url}: {said}"
        );
        assert_eq!(settings.check().len(), 1, "{url}");
    }
    assert_eq!(Ground::file().settings().check(), []);
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let place = Ground::file();
    let settings = Settings::of(format!("sqlite:{}/no/such.db", place.folder().display()));
    for role in [Role::Owner, Role::Guest] {
        let Err(error) = open(&settings, role).await else { panic!("opened in a folder that is not there") };
        assert!(error.to_string().contains("/no does not exist"), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_user_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let place = Ground::file();
    let store = place.owner().await;
    assert_eq!(store.record(&moved("r1", 1, &["ops"])).await.unwrap(), Recorded::Done);
    for file in std::fs::read_dir(place.folder()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

/// A store with something in it, closed.
async fn filled() -> Ground {
    let place = Ground::file();
    let store = place.owner().await;
    for n in 0..50 {
        assert_eq!(store.record(&moved(&format!("r{n}"), 1, &["ops"])).await.unwrap(), Recorded::Done);
    }
    drop(store);
    assert!(!place.folder().join("callboard.db-wal").exists(), "closing folds the log into the file");
    place
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = filled().await;
    rusqlite::Connection::open(place.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for role in [Role::Owner, Role::Guest] {
        let error = place.refusal(role).await;
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let place = Ground::file();
    rusqlite::Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let error = place.refusal(Role::Owner).await;
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("no database at all", |bytes| *bytes = b"these are my notes".repeat(500)),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("cut off in the first page", |bytes| bytes.truncate(700)),
        ("cut to nothing", Vec::clear),
        ("a page overwritten", |bytes| bytes[4_096 * 5..4_096 * 6].fill(0x5a)),
    ];
    for (what, harm) in harms {
        let place = filled().await;
        let mut bytes = std::fs::read(place.path()).unwrap();
        harm(&mut bytes);
        std::fs::write(place.path(), &bytes).unwrap();
        let error = place.refusal(Role::Owner).await;
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        assert!(std::fs::read(place.path()).unwrap() == bytes, "{what}: the file was touched");
    }
}

#[tokio::test]
async fn a_store_that_was_moved_away_begins_anew() {
    let place = filled().await;
    std::fs::remove_file(place.path()).unwrap();
    assert_eq!(place.owner().await.load().await.unwrap().runs, []);
}

/// What a killed process leaves: the file and its log as they are on disk, no orderly close.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (scene, left_behind) = (Scene::on(Ground::file()).await, Ground::file());
    for version in 1..=5 {
        scene.record(&moved("r1", version, &["ops"])).await;
    }
    scene.only(at(99)).await;
    for ending in ["", "-wal", ".lock"] {
        let name = format!("callboard.db{ending}");
        std::fs::copy(scene.ground.folder().join(&name), left_behind.folder().join(&name)).unwrap();
    }
    let survivor = Scene::on(left_behind).await;
    let mut expected = vec![(1, DeliveryState::Unknown)];
    expected.extend((2..=5).map(|sequence| (sequence, DeliveryState::Pending)));
    assert_eq!(survivor.states().await, expected);
    assert_eq!(survivor.store.load().await.unwrap(), scene.store.load().await.unwrap());
}

#[tokio::test]
async fn a_process_that_died_while_creating_the_file_does_no_harm() {
    let place = Ground::file();
    std::fs::write(place.path(), b"").unwrap();
    std::fs::write(place.folder().join("callboard.db.lock"), b"").unwrap();
    place.owner().await;
}

/// A file as the first release left it: two changes of one run owed to a channel, the second one a failure; one attempt
/// that may have arrived; one under way.
const FIRST_SCHEMA: &str = include_str!("../../src/store/migrations/sqlite/0001_init.sql");

#[tokio::test]
async fn a_file_of_the_first_release_is_taken_over_with_all_it_owes() {
    let place = Ground::file();
    let old = rusqlite::Connection::open(place.path()).unwrap();
    old.execute_batch(FIRST_SCHEMA).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let failed = |run: &str| {
        let mut change = change(run, 2);
        let ChangeKind::StageChanged { to, .. } = &mut change.kind else { panic!("a stage changes") };
        *to = Status::Fail;
        change
    };
    for (number, change, to, state, head) in [
        (1, change("r1", 1), "ops", "unknown", 1),
        (2, failed("r1"), "ops", "pending", 0),
        (3, change("r2", 1), "ops", "pending", 1),
        (4, change("r3", 1), "dev", "in_flight", 1),
        (5, change("r4", 1), "dev", "delivered", 0),
    ] {
        let (run, json) = (change.run.id.as_str(), serde_json::to_string(&change).unwrap());
        let (key, sequence, ms) = (warehouse().key().0, change.sequence, at(change.sequence).as_millisecond());
        let id = Uuid::from_u128(number).to_string();
        old.execute("INSERT INTO changes VALUES (?1, ?2, ?3, ?4, ?5)", (&key, run, sequence, ms, json)).unwrap();
        let columns = "number, id, workspace, run, sequence, destination, subscription, state, head, attempt, next_at, \
                       created_at, settled_at";
        let row =
            format!("INSERT INTO deliveries ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'w1', ?7, ?8, 1, ?9, ?9, ?9)");
        let number = i64::try_from(number).unwrap();
        old.execute(&row, rusqlite::params![number, id, key, run, sequence, to, state, head, ms]).unwrap();
        let outcome = (state == "unknown").then_some("unknown");
        let attempt = "INSERT INTO attempts (delivery, attempt, started_at, outcome) VALUES (?1, 1, ?2, ?3)";
        old.execute(attempt, rusqlite::params![number, ms + 7, outcome]).unwrap();
    }
    drop(old);

    let scene = Scene::on(place).await;
    let ledger = scene.balance().await;
    assert_eq!((ledger.owed, ledger.delivered, ledger.open), (5, 1, 4));
    let since: Vec<_> = scene.all().await.into_iter().map(|row| row.delivery.unknown_since).collect();
    let known = |ms: i64| Some(Timestamp::from_millisecond(at(1).as_millisecond() + ms).unwrap());
    assert_eq!(since, [known(7), None, None, known(7), None], "when each may first have arrived");
    let first = scene.claim(at(99), 1).await;
    assert_eq!(told(&first), [line("ops", "r1", 1)], "what stands before a failure goes first");
    scene.settle(&first[0], Next::Delivered).await;
    assert_eq!(told(&scene.claim(at(99), 9).await), [line("ops", "r1", 2), line("dev", "r3", 1)]);
    assert_eq!(scene.all().await[0].subscriptions, ["w1"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_given_up_and_stops_nothing_else() {
    let scene = Scene::on(Ground::file()).await;
    for run in ["r1", "r2", "r3", "r4"] {
        scene.record(&moved(run, 1, &["ops"])).await;
    }
    scene.record(&moved("r1", 2, &["ops"])).await;
    scene.rules.plan_for("ops", Plan::Digest { rows: 20 });
    let breaks = |run: &str| {
        let file = rusqlite::Connection::open(scene.ground.path()).unwrap();
        let broken = file.execute("UPDATE changes SET json = '{' WHERE run = ?1 AND sequence = 1", [run]).unwrap();
        assert_eq!(broken, 1);
    };
    breaks("r1");
    breaks("r3");
    let claims = scene.claims(at(50), Room { messages: 9, probes: 9 }).await;
    assert_eq!((claims.claimed.len(), claims.next_at), (0, Some(at(50))), "the head is broken, and there is more");
    let digest = scene.only(at(50)).await;
    assert_eq!(
        (told(std::slice::from_ref(&digest)), folded(&digest)),
        (vec![line("ops", "r2", 1)], vec!["r4 1".to_owned(), "r1 2".to_owned()])
    );
    scene.settle(&digest, Next::Unknown { at: at(60) }).await;
    breaks("r2");
    let claims = scene.claims(at(60), Room { messages: 9, probes: 9 }).await;
    assert_eq!((claims.claimed.len(), claims.next_at), (0, Some(at(60))));
    let rest = scene.only(at(60)).await;
    assert_eq!(rest.lead.unknown_since, Some(at(100)), "its lead may have told it");
    let ledger = scene.balance().await;
    assert_eq!((ledger.owed, ledger.dead, ledger.open), (5, 3, 2));
    let of_r1 = scene.store.history(&warehouse().key(), &run_id("r1"), 9).await.unwrap();
    assert_eq!(of_r1.len(), 1, "what can be read is shown");
}
