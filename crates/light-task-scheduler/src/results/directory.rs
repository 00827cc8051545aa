//! Results and logs.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct DirectoryResults;

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct DirectoryLogs;
