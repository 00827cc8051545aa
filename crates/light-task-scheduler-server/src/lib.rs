//! `lts`: runs commands durably, with limits, retries and resumption; a program over the library's public API.
//!
//! The program is `main`; a program of your own can serve the same HTTP API and console beside what it serves
//! already: see [`api`].

#[allow(unused_qualifications, reason = "what `utoipa::path` writes names its parameters so")]
pub mod api;
mod batch;
mod bench;
mod callbacks;
mod cli;
mod command;
mod config;
mod demo;
mod duration;
mod exit;
mod interrupt;
mod open;
mod output;
mod patience;
mod serve;
mod store_url;

use std::process::ExitCode;

/// The program `lts`.
#[doc(hidden)]
pub fn main() -> ExitCode {
    // First of all, before any thread is there: this process may have been started to supervise commands.
    light_task_scheduler::executor::process::run_supervisor_if_asked();
    ExitCode::from(cli::main())
}
