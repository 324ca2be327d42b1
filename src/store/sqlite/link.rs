//! A connection to the file.

use std::fs::File;

use rusqlite::{Connection, Statement, ToSql, types};

use super::faults::{Faults, sync_failed};
use crate::store::StoreError;
use crate::store::sql::{Fault, Link, Origin, Result, Row, Session, Value};

/// Closed before the lock is given back.
pub struct SqliteLink {
    pub connection: Connection,
    pub faults: Faults,
    pub _lock: Option<File>,
}

impl SqliteLink {
    fn run(&self, batch: &str) -> std::result::Result<(), StoreError> {
        self.connection.execute_batch(batch).map_err(|error| self.faults.of(&error))
    }

    fn prepared<T>(&self, statement: &str, run: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let ran = self.connection.prepare_cached(statement).and_then(|mut statement| run(&mut statement));
        ran.map_err(|error| Fault::Store(self.faults.of(&error)))
    }
}

impl Session for SqliteLink {
    fn execute(&self, statement: &str, values: &[Value]) -> Result<u64> {
        let values = rusqlite::params_from_iter(values);
        let touched = self.prepared(statement, |statement| statement.execute(values))?;
        Ok(u64::try_from(touched).unwrap_or(u64::MAX))
    }

    fn query(&self, statement: &str, values: &[Value]) -> Result<Vec<Row>> {
        self.prepared(statement, |statement| {
            let columns = statement.column_count();
            let read = |row: &rusqlite::Row<'_>| {
                let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| value(row, column)).collect();
                values.map(Row)
            };
            statement.query_map(rusqlite::params_from_iter(values), read)?.collect()
        })
    }

    /// The only one.
    fn replica(&self) -> i64 {
        0
    }

    fn beat(&self) -> Result<()> {
        Ok(())
    }
}

impl Origin for SqliteLink {
    fn session(&self) -> &dyn Session {
        self
    }

    fn each(&self, statement: &str, at_once: usize, take: &mut dyn FnMut(&[Row]) -> Result<()>) -> Result<()> {
        let of = |error: rusqlite::Error| Fault::Store(self.faults.of(&error));
        let mut statement = self.connection.prepare(statement).map_err(of)?;
        let columns = statement.column_count();
        let mut found = statement.query([]).map_err(of)?;
        let mut rows = Vec::with_capacity(at_once);
        while let Some(row) = found.next().map_err(of)? {
            let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| value(row, column)).collect();
            rows.push(Row(values.map_err(of)?));
            if rows.len() == at_once {
                take(&rows)?;
                rows.clear();
            }
        }
        if rows.is_empty() { Ok(()) } else { take(&rows) }
    }

    fn name(&self) -> &str {
        self.faults.path()
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<types::ToSqlOutput<'_>> {
        Ok(types::ToSqlOutput::Borrowed(match self {
            Value::Null => types::ValueRef::Null,
            Value::Integer(value) => types::ValueRef::Integer(*value),
            Value::Text(value) => types::ValueRef::Text(value.as_bytes()),
        }))
    }
}

/// The tables are strict, so that nothing else is met in a sound file.
fn value(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Value> {
    match row.get_ref(column)? {
        types::ValueRef::Null => Ok(Value::Null),
        types::ValueRef::Integer(value) => Ok(Value::Integer(value)),
        types::ValueRef::Text(_) => row.get(column).map(Value::Text),
        other => Err(rusqlite::Error::InvalidColumnType(column, String::new(), other.data_type())),
    }
}

impl Link for SqliteLink {
    fn begin_writing(&mut self) -> std::result::Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE")
    }

    fn begin_reading(&mut self) -> std::result::Result<(), StoreError> {
        self.run("BEGIN")
    }

    fn session(&self) -> &dyn Session {
        self
    }

    fn is_undone(&self) -> bool {
        self.connection.is_autocommit()
    }

    fn commit(&mut self) -> std::result::Result<(), StoreError> {
        let committed = self.connection.execute_batch("COMMIT").map_err(|error| {
            // Nobody knows what the disk holds.
            if sync_failed(&error) { StoreError::Broken } else { self.faults.of(&error) }
        });
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    fn roll_back(&mut self) {
        if !self.is_undone()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::debug!(%error, "a transaction can't be rolled back");
        }
    }
}
