//! A PostgreSQL with a past: what runs for each change and each message costs the same, however much there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard::model::Timestamp;
use callboard::store::{self, Moves, Next, Policy, Recorded, Role, Room, Settings, Store};

use crate::postgres::Database;
use crate::store_scene::{Rules, at, change, moved, settled, state, watch};

/// 10,000 watched runs in 200 workspaces, eleven changes of each told to one of 200 destinations, the last one of each
/// fifth run not yet; planted behind the store's back.
async fn plant(database: &Database) {
    let (state, change) =
        (serde_json::to_string(&state("r", 1)).unwrap(), serde_json::to_string(&change("r", 1)).unwrap());
    let subscription = serde_json::to_string(&watch("w", "r", "ops")).unwrap();
    let (workspace, run, to) = ("'cn-shanghai/' || 20000 + r % 200", "'run-' || r", "'team-' || r % 200");
    let statements = [
        "INSERT INTO workspaces SELECT 'cn-shanghai/' || w, 0 FROM generate_series(20000, 20199) AS w".to_owned(),
        format!("INSERT INTO runs SELECT {workspace}, {run}, 1, '{state}' FROM generate_series(1, 10000) AS r"),
        format!(
            "INSERT INTO subscriptions SELECT 'w-' || r, {workspace}, {run}, {to}, NULL, '{subscription}', r
             FROM generate_series(1, 10000) AS r"
        ),
        "INSERT INTO destinations SELECT 'team-' || d, '{}' FROM generate_series(0, 199) AS d".to_owned(),
        format!(
            "INSERT INTO changes (workspace, run, sequence, at, json)
             SELECT {workspace}, {run}, n, 0, '{change}' FROM generate_series(1, 10000) AS r, generate_series(1, 11) AS n"
        ),
        format!(
            "INSERT INTO deliveries (id, workspace, run, sequence, destination, subscription, state, head, next_at, created_at,
               settled_at)
             SELECT gen_random_uuid(), {workspace}, {run}, n, {to}, 'w-' || r, CASE WHEN waits THEN 'pending' ELSE 'delivered' END,
               waits::int, 0, 0, CASE WHEN waits THEN NULL ELSE 0 END
             FROM generate_series(1, 10000) AS r, generate_series(1, 11) AS n, LATERAL (SELECT n = 11 AND r % 5 = 0 AS waits) AS w"
        ),
        "INSERT INTO attempts SELECT number, 1, 0, 0, 'delivered' FROM deliveries WHERE state = 'delivered'".to_owned(),
        "ANALYZE".to_owned(),
    ];
    for statement in statements {
        database.execute(&statement).await;
    }
}

/// How often each table was read from end to end so far.
async fn scans(database: &Database) -> Vec<(String, i64)> {
    let until = Instant::now() + Duration::from_secs(60);
    // A connection says what it did when it ends.
    let connected = "SELECT count(*)::text FROM pg_stat_activity
        WHERE application_name = 'callboard' AND datname = current_database()";
    while database.rows(connected).await != [["0"]] {
        assert!(Instant::now() < until, "the store keeps its connections");
    }
    let rows = database.rows("SELECT relname::text, seq_scan::text FROM pg_stat_user_tables ORDER BY relname").await;
    rows.into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect()
}

#[tokio::test]
async fn no_verb_reads_a_table_from_end_to_end_and_a_change_is_one_transaction() {
    let database = Database::create().await;
    let settings = Settings::of(database.url());
    drop(store::open(&settings, Role::Owner).await.unwrap());
    plant(&database).await;
    let before = scans(&database).await;

    let store: Arc<dyn Store> = store::open(&settings, Role::Owner).await.unwrap();
    let other: Arc<dyn Store> = store::open(&settings, Role::Owner).await.unwrap();
    let policy: Arc<dyn Policy> = Arc::new(Rules::default());
    let mut mark = other.moved(None).await.unwrap().mark;
    // Often enough for plans that fit every value.
    for round in 1..=12 {
        let (run, to) = (format!("fresh-{round}"), format!("team-{round}"));
        store.subscribe(&watch(&format!("w{round}"), &run, &to), None).await.unwrap();
        for version in 1..=2 {
            assert_eq!(store.record(&moved(&run, version, &[&to, "ops"])).await.unwrap(), Recorded::Done);
            let written = format!(
                "SELECT count(DISTINCT xmin::text)::text, count(*)::text FROM (
                   SELECT xmin FROM runs WHERE run = '{run}'
                   UNION ALL SELECT xmin FROM changes WHERE run = '{run}' AND sequence = {version}
                   UNION ALL SELECT xmin FROM deliveries WHERE run = '{run}' AND sequence = {version}) AS rows"
            );
            assert_eq!(database.rows(&written).await, [["1", "4"]], "a change is not one transaction");
        }
        let moved = other.moved(Some(mark)).await.unwrap();
        mark = moved.mark;
        let Moves::Of(part) = moved.moves else { panic!("{:?}", moved.moves) };
        assert_eq!((part.loaded.runs.len(), part.loaded.subscriptions.len()), (1, 1), "what moved and nothing else");
        store.hold(&[]).await.unwrap();
        let claimed = store.claim(at(100), Room { messages: 8, probes: 8 }, &policy).await.unwrap().claimed;
        assert_eq!(claimed.len(), 8);
        for (message, nth) in claimed.iter().zip(0..) {
            let later = Next::Pending { at: at(1_000) };
            let next = if nth % 4 == 0 { later } else { Next::Delivered };
            store.settle(&settled(message, next), &policy).await.unwrap();
        }
        assert!(store.unsubscribe(&format!("w{round}")).await.unwrap());
    }
    store.saw(&[(crate::store_scene::warehouse().key(), Timestamp::now())]).await.unwrap();
    drop((store, other));

    // All others have a few rows.
    let big = ["attempts", "changes", "deliveries", "moves", "runs", "subscriptions"];
    let grown = |scans: Vec<(String, i64)>| -> Vec<(String, i64)> {
        scans.into_iter().filter(|(table, _)| big.contains(&table.as_str())).collect()
    };
    assert_eq!(grown(scans(&database).await), grown(before), "these are read from end to end");
}
