//! The real program, in temporary directories, on real commands.

#![allow(clippy::print_stdout, reason = "a test says what it did")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod batch;
mod bench;
mod callbacks;
mod cli_bulk;
mod cli_tasks;
mod cli_tools;
mod dev;
mod docker;
mod full;
mod history;
mod http;
mod input;
mod kills;
mod limits;
mod measured;
mod observer;
mod proxy;
mod real;
mod replicas;
mod run;
mod served;
mod servers;
mod serving;
mod store;
mod store_remote;
mod support;
mod tasks;
mod weather;
mod witness;
mod workers;
