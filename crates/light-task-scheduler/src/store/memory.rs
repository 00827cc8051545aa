//! The store in this process's memory.

/// Placeholder while it is being built.
#[derive(Debug)]
pub struct MemoryStore;
