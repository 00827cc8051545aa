//! The real program, in temporary directories, on real commands.

#![allow(clippy::print_stdout, reason = "a test says what it did")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod batch;
mod docker;
mod input;
mod kills;
mod replicas;
mod run;
mod support;
mod tasks;
mod witness;
