//! The embedded durable store.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct SqliteStore;
