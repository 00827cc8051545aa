//! The one integration binary: everything against real stores, executors and processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod blocked;
mod examples;
mod executors;
#[cfg(feature = "process")]
mod process;
mod results;
mod scheduler;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod servers;
mod simulation;
mod store_memory;
#[cfg(feature = "mysql")]
mod store_mysql;
#[cfg(feature = "postgres")]
mod store_postgres;
#[cfg(feature = "sqlite")]
mod store_sqlite;
