//! The one integration binary: scheduler behaviour on real stores and executors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod results;
mod scheduler;
