//! An embedded SQLite store: one file, one writer, readers beside it.

mod faults;
mod link;
mod open;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use self::faults::Faults;
pub use self::link::SqliteLink;
use self::open::Found;
pub use self::open::migrate;
use super::sql::{Database, Engine, Filling, Link, Readers, Row, Session, Writer, blocking};
use super::{Held, Moved, Moves, Role, Sharing, StoreError};
use crate::model::{Clock, Destination};

pub struct Sqlite {
    // Closed before the writer, so that the writer, closing last, folds the log into the file.
    readers: Readers<SqliteLink>,
    writer: Writer<SqliteLink>,
    path: PathBuf,
    faults: Faults,
    recovered: Vec<(Destination, u64)>,
}

impl Sqlite {
    /// Opens `path`, and creates it where there is none. Within a tokio runtime.
    pub async fn open(path: &Path, role: Role) -> Result<Database<Sqlite>, StoreError> {
        let faults = Faults::about(&path.display().to_string());
        let (theirs, place) = (faults.clone(), path.to_owned());
        let Found { link, recovered } = blocking(move || open::open(&place, role, &theirs)).await??;
        let (theirs, place) = (faults.clone(), path.to_owned());
        let readers = Readers::new(faults.path(), move || open::read(&place, &theirs));
        let writer = Writer::start(link, faults.path());
        Ok(Database(Sqlite { readers, writer, path: path.to_owned(), faults, recovered }))
    }
}

/// The store at `path`, to be moved from: nobody else writes to it as long as this is held. What was under way when
/// its last process died is `unknown` in it, and its schema is the present one.
pub async fn origin(path: &Path) -> Result<SqliteLink, StoreError> {
    let faults = Faults::about(&path.display().to_string());
    if !path.is_file() {
        return Err(StoreError::Open(format!("there is no file {}", faults.path())));
    }
    let place = path.to_owned();
    let opening = move || {
        let Found { mut link, .. } = open::open(&place, Role::Owner, &faults)?;
        open::verify(&place, &faults)?;
        link.begin_writing()?;
        Ok(link)
    };
    blocking(opening).await?
}

#[async_trait]
impl Engine for Sqlite {
    type Link = SqliteLink;

    const FILLING: Filling = Filling { with_numbers: "", in_use: None, finish: None };

    fn name(&self) -> String {
        self.faults.path().to_owned()
    }

    fn writer(&self) -> &Writer<SqliteLink> {
        &self.writer
    }

    fn readers(&self) -> &Readers<SqliteLink> {
        &self.readers
    }

    fn recovered(&self) -> Vec<(Destination, u64)> {
        self.recovered.clone()
    }

    /// Writes what stands there already: it reaches the disk all the same, or fails as any write would.
    async fn probe(&self) -> Result<(), StoreError> {
        let same = |session: &dyn Session| {
            let schema: i64 = session.one("PRAGMA user_version", &[], |row| row.get(0))?;
            session.execute(&format!("PRAGMA user_version = {schema}"), &[]).map(drop)
        };
        self.writer.write(same).await
    }

    async fn verify(&self) -> Result<(), StoreError> {
        let (path, faults) = (self.path.clone(), self.faults.clone());
        blocking(move || open::verify(&path, &faults)).await?
    }

    async fn hold(&self, names: &[String]) -> Result<Held, StoreError> {
        Ok(Held::all(names))
    }

    async fn retire(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn clock(&self) -> Option<Clock> {
        None
    }

    async fn share(&self, _: &str, _: Sharing) -> Result<(), StoreError> {
        Err(StoreError::Failed("nobody else serves from it".to_owned()))
    }

    /// That somebody wrote is known, and not what.
    async fn moved(&self, since: Option<i64>) -> Result<Moved, StoreError> {
        let mark = self.writer.write(data_version).await?;
        Ok(Moved { mark, moves: if since == Some(mark) { Moves::None } else { Moves::All } })
    }

    async fn stirred(&self) {
        std::future::pending::<()>().await;
    }
}

/// Counts what other connections committed. Asked on the writing connection, which itself never counts as one.
fn data_version(session: &dyn Session) -> super::sql::Result<i64> {
    session.one("PRAGMA data_version", &[], |row: &Row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Scope, Subscription, Timestamp, WorkspaceKey};
    use crate::store::{Store, Subscribed};

    fn subscription(id: usize) -> Subscription {
        Subscription {
            id: id.to_string(),
            scope: Scope::Workspace { workspace: WorkspaceKey("cn-shanghai/10000".to_owned()) },
            to: Destination::Channel(format!("channel {id}")),
            on: std::iter::empty().collect(),
            stages: vec!["x".repeat(2_000)],
            creators: vec![],
            template: None,
            by: "cli".to_owned(),
            roles: Vec::new(),
            until: None,
            muted: None,
            stopped: None,
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    async fn allow_pages(store: &Database<Sqlite>, pages: i64) {
        let limit = move |session: &dyn Session| {
            session.one(&format!("PRAGMA max_page_count = {pages}"), &[], |row| row.get::<i64>(0))
        };
        store.0.writer.write(limit).await.unwrap();
    }

    /// Many writes at once until the disk is full: each that was acknowledged is there, each that was not has left
    /// nothing, and when there is room again everything goes on.
    #[tokio::test]
    async fn a_full_disk_refuses_writes_loses_nothing_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap());
        let mut acknowledged = 0;
        for round in 1..=3 {
            allow_pages(&store, 60 * round).await;
            let first = usize::try_from(round).unwrap() * 1_000;
            let tasks: Vec<_> = (first..first + 200)
                .map(|id| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.subscribe(&subscription(id), None).await })
                })
                .collect();
            let mut refused = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Ok(Subscribed::New { .. }) => acknowledged += 1,
                    Err(StoreError::Full) => refused += 1,
                    other => panic!("round {round}: {other:?}"),
                }
            }
            assert!(refused > 0, "the disk was never full in round {round}");
            assert_eq!(store.load().await.unwrap().subscriptions.len(), acknowledged, "in round {round}");
        }
        allow_pages(&store, 1_000_000).await;
        assert_eq!(store.subscribe(&subscription(1), None).await, Ok(Subscribed::New { run: None }));
        assert_eq!(store.load().await.unwrap().subscriptions.len(), acknowledged + 1);
        assert!(acknowledged > 0, "nothing was ever written");
    }

    #[tokio::test]
    async fn an_operation_that_panics_takes_no_other_one_with_it_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap();
        let broken: Result<(), _> = store.0.writer.write(|_| panic!("a mistake of ours")).await;
        assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
        assert_eq!(store.subscribe(&subscription(1), None).await, Ok(Subscribed::New { run: None }));
        let broken: Result<(), _> = store.0.readers.read(|_| panic!("a mistake of ours")).await;
        assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
        assert_eq!(store.load().await.unwrap().subscriptions, [subscription(1)]);
    }

    /// A claim whose claimer is gone at a stop: its policy knows the tracker, which knows the store.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_operation_that_holds_the_last_handle_of_its_store_gives_it_back_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = Arc::new(Sqlite::open(&path, Role::Owner).await.unwrap());
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let caller = tokio::spawn(async move {
            let held = Arc::clone(&store);
            let operation = move |_: &dyn Session| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                drop(held);
                Ok(())
            };
            store.0.writer.write(operation).await
        });
        has_begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while let Err(error) = Sqlite::open(&path, Role::Owner).await {
            assert!(tokio::time::Instant::now() < until, "the store is never given back: {error}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_does_not_read_back_is_damage_not_silence() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("s.db"), Role::Owner).await.unwrap();
        store.subscribe(&subscription(1), None).await.unwrap();
        store.0.writer.write(|session| session.execute("UPDATE subscriptions SET json = '{'", &[])).await.unwrap();
        let error = store.load().await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
