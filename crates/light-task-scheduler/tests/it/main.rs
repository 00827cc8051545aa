//! The one integration binary: everything against real stores, executors and processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "process")]
mod process;
mod results;
mod scheduler;
