//! What SQLite says, in the words of [`StoreError`].

use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// Knows which file the errors are about.
#[derive(Clone)]
pub struct Faults {
    path: Arc<str>,
}

impl Faults {
    pub fn about(path: &str) -> Faults {
        Faults { path: path.into() }
    }

    pub fn of(&self, error: &rusqlite::Error) -> StoreError {
        match error {
            // A value that does not read back as what it was written as.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => self.damaged(error.to_string()),
            _ => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => StoreError::Full,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.damaged(error.to_string()),
                _ => StoreError::Failed(error.to_string()),
            },
        }
    }

    /// While opening: what is neither damage nor a full disk keeps it from being opened.
    pub fn of_opening(&self, error: &rusqlite::Error) -> StoreError {
        match self.of(error) {
            StoreError::Failed(said) => StoreError::Open(format!("{}: {said}", self.path)),
            other => other,
        }
    }

    pub fn damaged(&self, said: String) -> StoreError {
        StoreError::Damaged { path: self.path.to_string(), said }
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Whether a commit failed because the disk did not confirm it.
pub fn sync_failed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}
