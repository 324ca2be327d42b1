//! A store file with wrong bytes in it, or without some of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callboard::demo::dataworks::RunSpec;
use callboard::diff;
use callboard::model::{DeliveryState, Destination, RunId, Timestamp};
use callboard::render::Renderer;
use callboard::store::{self, NewDelivery, Policy, Poll, Recorded, Role, Room, Settings, Store, StoreError};
use uuid::Uuid;

use super::{PROJECT, Place, files, finish};
use crate::bot::Eager;
use crate::results;

/// A store that has seen some use, folded into one file, and what is in it.
struct Grown {
    place: Place,
    bytes: Vec<u8>,
    inventory: Inventory,
}

/// Rows, counted. What a row's text says may differ by a letter: nothing in the file guards that, and a text that can't
/// be read any more is given up with a line in the log when its turn comes.
#[derive(Debug, Clone, PartialEq)]
struct Inventory {
    runs: usize,
    workspaces: usize,
    changes: u64,
    deliveries: u64,
    /// Open ones that no dispatcher would ever get to see.
    stuck: u64,
}

impl Inventory {
    async fn of(store: &dyn Store) -> Result<Inventory, StoreError> {
        let (room, policy) = (Room { messages: 1_000, probes: 1_000 }, Arc::new(Eager) as Arc<dyn Policy>);
        store.claim(Timestamp::now(), room, &policy).await?;
        let (loaded, overview) = (store.load().await?, store.overview().await?);
        let count = |wanted: &dyn Fn(DeliveryState) -> bool| {
            overview.deliveries.iter().filter(|(state, _)| wanted(*state)).map(|(_, count)| count).sum()
        };
        Ok(Inventory {
            runs: loaded.runs.len(),
            workspaces: loaded.workspaces.len(),
            changes: overview.changes,
            deliveries: count(&|_| true),
            stuck: count(&|state| state == DeliveryState::Pending),
        })
    }
}

async fn grown() -> Grown {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let add = |n: usize| place.world.add_run(PROJECT, RunSpec::standard(&format!("release {n}")));
    let runs: Vec<RunId> = (0..10).map(add).collect();
    place.until("they are told", &mut process, async || place.told("run.started") >= runs.len()).await;
    finish(&place.world, &runs);
    place.drained(&runs, 1, &mut process).await;
    place.stop(process).await;
    let store = place.store().await;
    owe(store.as_ref(), 100).await;
    drop(store);
    let bytes = std::fs::read(place.home.join("callboard.db")).unwrap();
    let inventory = look(&place.home.join("callboard.db")).await.unwrap();
    // Looking claims them.
    std::fs::write(place.home.join("callboard.db"), &bytes).unwrap();
    assert_eq!(files(&place.home), ["callboard.db", "callboard.db.lock"], "the log is folded into the file");
    assert!(
        inventory.deliveries >= 150 && inventory.stuck == 0 && bytes.len() > 100_000,
        "{inventory:?}, {} bytes",
        bytes.len()
    );
    Grown { place, bytes, inventory }
}

/// One change, owed to many rooms.
async fn owe(store: &dyn Store, rooms: usize) {
    let (change, at) = (Renderer::samples().remove(0), Timestamp::now());
    let owed = |room: usize| NewDelivery {
        id: Uuid::now_v7(),
        run: change.run.id.clone(),
        sequence: change.sequence,
        to: Destination::from(format!("discord:{room}")),
        template: None,
        subscriptions: vec!["s".to_owned()],
        urgent: false,
        missed: false,
        at,
    };
    let poll = Poll {
        key: change.workspace.key(),
        workspace: None,
        runs: vec![diff::baseline(change.run.clone(), at)],
        deliveries: (0..rooms).map(owed).collect(),
        changes: vec![change],
        begun: Vec::new(),
        ended: Vec::new(),
        forgotten: Vec::new(),
    };
    assert_eq!(store.record(&poll).await.unwrap(), Recorded::Done);
}

/// What is done to the file.
fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> String {
    let length = bytes.len();
    // The first page says what the others are, so it gets more than its share.
    let at = if random.u8(..4) == 0 { random.usize(..100) } else { random.usize(..length) };
    match random.u8(..5) {
        0 => {
            bytes[at] ^= 1 << random.u8(..8);
            format!("one bit at {at}")
        }
        1 => {
            bytes[at] = bytes[at].wrapping_add(random.u8(1..));
            format!("one byte at {at}")
        }
        2 => {
            let end = length.min(at + random.usize(2..64));
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..));
            format!("bytes {at}..{end}")
        }
        3 => {
            let sector = at / 512 * 512;
            bytes[sector..length.min(sector + 512)].fill(0);
            format!("an empty sector at {sector}")
        }
        _ => {
            let rest = if random.bool() { random.usize(..length) } else { random.usize(..length / 512) * 512 };
            bytes.truncate(rest);
            format!("cut down to {rest}")
        }
    }
}

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A damaged copy beside the lock file of the original.
fn copy(bytes: &[u8], to: &Path) -> PathBuf {
    let path = to.join("callboard.db");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(to.join("callboard.db.lock"), [0]).unwrap();
    path
}

fn settings(path: &Path) -> Settings {
    Settings::of(format!("sqlite:{}", path.display()))
}

async fn look(path: &Path) -> Result<Inventory, StoreError> {
    let store: Arc<dyn Store> = store::open(&settings(path), Role::Owner).await?;
    store.verify().await?;
    Inventory::of(store.as_ref()).await
}

/// `DAMAGES=5500` for more. A panic anywhere fails the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_refused_or_still_holds_everything() {
    let (cases, seed) = (results::cases("DAMAGES", 200), results::seed());
    println!("SEED={seed} repeats the damages");
    let grown = grown().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut refused, mut harmless) = (BTreeMap::new(), 0);
    for case in 0..cases {
        let mut bytes = grown.bytes.clone();
        let what = damage(&mut bytes, &mut random);
        let told = format!("SEED={seed}, case {case}, {what}");
        let folder = tempfile::tempdir().unwrap();
        let path = copy(&bytes, folder.path());
        match look(&path).await {
            Ok(inventory) => {
                assert_eq!(inventory, grown.inventory, "{told}: something is missing and nobody says so");
                harmless += 1;
            }
            Err(error) => {
                let kind = match &error {
                    StoreError::Damaged { .. } => "damaged",
                    StoreError::Newer { .. } => "newer",
                    StoreError::Open(said) if said.contains("another program") => "another program's",
                    StoreError::Open(_) => "not to be opened",
                    other => panic!("{told}: {other}"),
                };
                *refused.entry(kind).or_insert(0) += 1;
            }
        }
    }
    println!("refused: {refused:?}, harmless: {harmless}");
    let refused: usize = refused.values().sum();
    let result = format!("{refused} refused, {harmless} harmless, 0 panics, 0 with something missing");
    results::record("a damaged store file", cases, Some(seed), &result);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_refuses_a_damaged_file_plainly_and_leaves_it_as_it_is() {
    let grown = grown().await;
    let path = grown.place.home.join("callboard.db");
    let empty_pages = |bytes: &mut Vec<u8>| bytes[4096..].iter_mut().for_each(|byte| *byte = 0);
    let cases: [(&str, Damage<'_>, &str); 6] = [
        ("cut in half", &|bytes| bytes.truncate(bytes.len() / 2), "is damaged"),
        ("cut down to nothing", &|bytes| bytes.clear(), "is damaged"),
        ("no database any more", &|bytes| bytes[..16].fill(b'x'), "is damaged"),
        ("empty pages", &empty_pages, "is damaged"),
        ("a page in another's place", &|bytes| bytes.copy_within(4096..8192, 12288), "is damaged"),
        ("a schema from the future", &|bytes| bytes[60] = 1, "a newer callboard"),
    ];
    for (what, damage, expected) in cases {
        let mut bytes = grown.bytes.clone();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let (status, said) = grown.place.refused().await;
        assert_eq!(status, Some(1), "{what}: {said}");
        assert!(said.contains(expected) && !said.contains("panicked"), "{what}: {said}");
        // A command beside the service opens what it needs, and may not meet the damage.
        let output = grown.place.command(&["deliveries", "list"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked") && output.status.code().is_some(), "{what}: {said}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{what}: the file was written to");
    }
    // The backup goes on as if nothing had been.
    std::fs::write(&path, &grown.bytes).unwrap();
    assert_eq!(look(&path).await, Ok(grown.inventory));
}

/// The start would take too long if it held each index against its table: that happens beside the service, which ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_ends_when_an_index_lacks_a_row() {
    let grown = grown().await;
    let path = grown.place.home.join("callboard.db");
    lose_index_row(&path);
    assert!(store::open(&settings(&path), Role::Guest).await.is_ok(), "nothing is seen at the start");
    let (status, said) = grown.place.refused().await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("is damaged") && !said.contains("panicked"), "{said}");
}

/// A row is written while the schema does not know of the index.
pub fn lose_index_row(path: &Path) {
    let open = || {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.pragma_update(None, "writable_schema", "on").unwrap();
        connection
    };
    open()
        .execute_batch(
            "CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'deliveries_due';
             DELETE FROM sqlite_schema WHERE name = 'deliveries_due';",
        )
        .unwrap();
    open()
        .execute_batch(
            "UPDATE deliveries SET next_at = next_at + 1;
             INSERT INTO sqlite_schema SELECT * FROM kept;
             DROP TABLE kept;",
        )
        .unwrap();
}

/// Everything a new store holds is in its log until that is folded into the file. Without a sound log the file looks
/// like one that nothing was ever written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_log_is_damaged_is_not_begun_anew() {
    let place = Place::new().await;
    let mut process = place.start();
    place.ready(&mut process).await;
    let run = place.world.add_run(PROJECT, RunSpec::online("release"));
    place.until("it is told", &mut process, async || place.told("run.started") == 1).await;
    process.kill();
    assert!(files(&place.home).contains(&"callboard.db-wal".to_owned()), "{:?}", files(&place.home));
    let log = place.home.join("callboard.db-wal");
    let sound = std::fs::read(&log).unwrap();
    let cases: [(&str, Damage<'_>); 3] = [
        ("its head is damaged", &|bytes| bytes[8] ^= 1),
        ("its first page is damaged", &|bytes| bytes[100] ^= 1),
        ("it is empty", &|bytes| bytes.clear()),
    ];
    for (what, damage) in cases {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(&log, &bytes).unwrap();
        let _gone_or_not = std::fs::remove_file(place.home.join("callboard.db-shm"));
        let (status, said) = place.refused().await;
        assert_eq!(status, Some(1), "{what}: {said}");
        assert!(said.contains("is damaged"), "{what}: {said}");
    }
    std::fs::write(&log, &sound).unwrap();
    let mut process = place.start();
    place.ready(&mut process).await;
    finish(&place.world, std::slice::from_ref(&run));
    place.drained(&[run], 1, &mut process).await;
    place.stop(process).await;
}
