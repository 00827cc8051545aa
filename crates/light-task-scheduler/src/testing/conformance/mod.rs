//! Conformance suites: what every implementation of a trait must do, as tests that its author runs.

// A suite is test code that happens to be public: a broken promise is a panic, and says which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code, made public for store authors")]

pub mod executor;
pub mod results;
pub mod store;
