//! An embedded SQLite store: one writer with group commit, readers beside it.
