//! Results and logs.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct MemoryResults;

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct MemoryLogs;
