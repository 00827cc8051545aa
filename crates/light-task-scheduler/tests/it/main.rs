//! The one integration binary: scheduler behaviour on real stores and executors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scheduler;
