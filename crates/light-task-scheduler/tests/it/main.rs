//! The integration tests, in one binary.

#[cfg(feature = "process")]
mod process;
