//! Stores in SQL databases.

mod sqlite;

pub use sqlite::SqliteStore;
