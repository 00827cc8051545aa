//! Stores in SQL databases.

mod sqlite;

pub use sqlite::{Durability, SqliteOptions, SqliteStore};
