//! The one integration binary: everything against real stores, executors and processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod results;
mod scheduler;
