//! The one integration binary: everything against real stores, executors and processes.

#![allow(clippy::print_stdout, reason = "a test says what it has counted")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod blocked;
#[cfg(feature = "docker")]
mod docker;
mod examples;
mod executors;
#[cfg(all(target_os = "linux", any(feature = "mysql", feature = "postgres", feature = "redis")))]
mod homes;
#[cfg(feature = "callbacks")]
mod http;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "process")]
mod process;
#[cfg(all(feature = "redis", feature = "tls"))]
mod redis_tls;
#[cfg(feature = "redis")]
mod redis_weather;
mod results;
mod scheduler;
#[cfg(any(
    feature = "callbacks",
    feature = "docker",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
mod servers;
mod simulation;
mod starts;
#[cfg(feature = "sqlite")]
mod store_cached;
mod store_memory;
#[cfg(feature = "mysql")]
mod store_mysql;
#[cfg(feature = "postgres")]
mod store_postgres;
#[cfg(feature = "redis")]
mod store_redis;
#[cfg(feature = "sqlite")]
mod store_sqlite;
