//! Opening the file: whose it is, whether it is whole, and which schema it has. Nothing is written before all three
//! are known.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::faults::Faults;
use super::link::SqliteLink;
use crate::model::Destination;
use crate::store::sql::{Link, recover};
use crate::store::{Role, StoreError};

/// Numbered from 1, forward only; `PRAGMA user_version` says how many a file has seen.
const MIGRATIONS: [&str; 2] =
    [include_str!("../migrations/sqlite/0001_init.sql"), include_str!("../migrations/sqlite/0002_folding.sql")];

/// Every version before it can corrupt a WAL file when a checkpoint meets a commit: <https://sqlite.org/wal.html>.
const OLDEST_SOUND_SQLITE: i32 = 3_051_003;

/// An open file and what was found in it.
pub struct Found {
    pub link: SqliteLink,
    /// Deliveries that a process took with it when it died, by destination.
    pub recovered: Vec<(Destination, u64)>,
}

pub fn open(path: &Path, role: Role, faults: &Faults) -> Result<Found, StoreError> {
    if rusqlite::version_number() < OLDEST_SOUND_SQLITE {
        return Err(StoreError::Open(format!(
            "SQLite {} can corrupt its files; build with 3.51.3 or newer",
            rusqlite::version()
        )));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(StoreError::Open(format!(
            "the folder {} does not exist; create it or change store.url",
            folder.display()
        )));
    }
    match role {
        Role::Owner => {
            let lock = Lock::take(path, faults)?;
            lock.prepare(path, faults)?;
            check(path, &lock, faults)?;
            let mut connection = write(path, faults)?;
            migrate(&mut connection).map_err(|error| faults.of_opening(&error))?;
            lock.mark()?;
            let mut link = SqliteLink { connection, faults: faults.clone(), _lock: Some(lock.file) };
            link.begin_writing()?;
            let recovered =
                recover(link.session(), link.session().replica()).map_err(|fault| fault.about(faults.path()))?;
            link.commit()?;
            fold_when_closed(&link.connection, true).map_err(|error| faults.of_opening(&error))?;
            Ok(Found { link, recovered })
        }
        Role::Guest => {
            if !path.exists() || schema(&reading(path, faults)?, faults)? < known() {
                // Held only for this moment: a service that runs keeps its own schema.
                let lock = Lock::take(path, faults)?;
                lock.prepare(path, faults)?;
                check(path, &lock, faults)?;
                migrate(&mut write(path, faults)?).map_err(|error| faults.of_opening(&error))?;
                lock.mark()?;
            }
            let connection = write(path, faults)?;
            fold_when_closed(&connection, true).map_err(|error| faults.of_opening(&error))?;
            let link = SqliteLink { connection, faults: faults.clone(), _lock: None };
            Ok(Found { link, recovered: Vec::new() })
        }
    }
}

/// A connection that only reads.
pub fn read(path: &Path, faults: &Faults) -> Result<SqliteLink, StoreError> {
    let connection = reading(path, faults)?;
    Ok(SqliteLink { connection, faults: faults.clone(), _lock: None })
}

fn reading(path: &Path, faults: &Faults) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    connect().map_err(|error| faults.of_opening(&error))
}

fn write(path: &Path, faults: &Faults) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        // KiB, as a negative number. It fills with whatever was written last and is never given back, so every service
        // comes to hold all of it: enough for the indexes of a backlog, and no more.
        connection.pragma_update(None, "cache_size", -4_096)?;
        // A sync that failed while opening must not be tried again by closing.
        fold_when_closed(&connection, false)?;
        Ok(connection)
    };
    connect().map_err(|error| faults.of_opening(&error))
}

/// Whether closing folds the log into the file.
fn fold_when_closed(connection: &Connection, does: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !does).map(drop)
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The schema a file has; newer than ours is an error.
fn schema(connection: &Connection, faults: &Faults) -> Result<i64, StoreError> {
    let found = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| faults.of_opening(&error))?;
    if found > known() {
        return Err(StoreError::Newer { path: faults.path().to_owned(), found, known: known() });
    }
    Ok(found)
}

/// Looks at every page without writing to it. What it passes over, [`verify`] finds.
fn check(path: &Path, lock: &Lock, faults: &Faults) -> Result<(), StoreError> {
    // A file that died while it was created has to be rolled back first, which only a writer can do.
    let connection = if beside(path, "-journal").exists() { write(path, faults)? } else { reading(path, faults)? };
    look_through(&connection, "PRAGMA quick_check(1)", faults)?;
    if schema(&connection, faults)? == 0 {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| faults.of_opening(&error))?;
        if tables > 0 {
            return Err(StoreError::Open(format!(
                "{} is a database of another program; give callboard a file of its own",
                faults.path()
            )));
        }
        // Until the log is folded into the file for the first time, the log alone holds everything, and SQLite passes
        // over a log with a damaged head.
        if lock.is_marked().map_err(|error| StoreError::Open(format!("{}: {error}", faults.path())))? {
            return Err(faults.damaged("it holds nothing, although callboard has written to it".to_owned()));
        }
    }
    Ok(())
}

/// Holds every index against its table. Takes five times as long as the check at the start, which passes over an index
/// that lacks a row, and a delivery that no index shows is never sent.
pub fn verify(path: &Path, faults: &Faults) -> Result<(), StoreError> {
    look_through(&reading(path, faults)?, "PRAGMA integrity_check(1)", faults)
}

fn look_through(connection: &Connection, pragma: &str, faults: &Faults) -> Result<(), StoreError> {
    let said: String = connection.query_row(pragma, [], |row| row.get(0)).map_err(|error| faults.of_opening(&error))?;
    if said == "ok" { Ok(()) } else { Err(faults.damaged(said)) }
}

/// Brings an older file, or an empty one, to the present schema.
pub fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let seen: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (number, migration) in (1_i64..).zip(MIGRATIONS).filter(|(number, _)| *number > seen) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// `PATH.lock`: held by the one process that owns the store. Not empty once the store has its schema, so that a file
/// that lost everything is noticed.
struct Lock {
    file: File,
}

impl Lock {
    fn take(path: &Path, faults: &Faults) -> Result<Lock, StoreError> {
        let name = beside(path, ".lock");
        let unusable = |error: &std::io::Error| StoreError::Open(format!("{}: {error}", name.display()));
        let file = private().create(true).truncate(false).open(&name).map_err(|error| unusable(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(faults.path().to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(&error)),
        }
    }

    /// Creates the file where there is none.
    fn prepare(&self, path: &Path, faults: &Faults) -> Result<(), StoreError> {
        let unusable = |error: std::io::Error| StoreError::Open(format!("{}: {error}", faults.path()));
        let length = match path.metadata() {
            Ok(file) if file.is_file() => file.len(),
            Ok(_) => return Err(StoreError::Open(format!("{} is not a file", faults.path()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.file.set_len(0).and_then(|()| self.file.sync_all()).map_err(unusable)?;
                private().create_new(true).open(path).map_err(unusable)?;
                0
            }
            Err(error) => return Err(unusable(error)),
        };
        if length == 0 && self.is_marked().map_err(unusable)? {
            return Err(faults.damaged("it is empty, although callboard has written to it".to_owned()));
        }
        Ok(())
    }

    fn is_marked(&self) -> std::io::Result<bool> {
        Ok(self.file.metadata()?.len() > 0)
    }

    fn mark(&self) -> Result<(), StoreError> {
        self.file
            .set_len(1)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| StoreError::Open(format!("its lock file: {error}")))
    }
}

/// Only the owner may read and write what the store holds.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
