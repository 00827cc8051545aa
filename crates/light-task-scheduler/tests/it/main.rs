//! The integration tests, in one binary.

mod store_memory;
#[cfg(feature = "sqlite")]
mod store_sqlite;
