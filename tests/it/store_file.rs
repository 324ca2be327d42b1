//! What only a file can get wrong.

use callboard::model::DeliveryState;
use callboard::store::{Recorded, Role, Settings, StoreError, open};

use crate::store_scene::{Ground, Scene, at, moved, watch};

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
async fn only_a_file_is_a_store_so_far() {
    for (url, word) in [
        ("postgres://u:hunter2@db/x", "not built in yet"),
        ("mysql://u:hunter2@db/x", "sqlite:PATH"),
        ("callboard.db", "sqlite:PATH"),
        ("sqlite:", "PATH is a file"),
        ("sqlite::memory:", "PATH is a file"),
    ] {
        let settings = Settings { url: url.to_owned() };
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
    let settings = Settings { url: format!("sqlite:{}/no/such.db", place.folder().display()) };
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
