//! Results and logs.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct SqliteResults;

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct SqliteLogs;
