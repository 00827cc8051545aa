//! `lts`: runs commands durably, with limits, retries and resumption; a program over the library's public API.

mod batch;
mod bench;
mod cli;
mod command;
mod duration;
mod exit;
mod interrupt;
mod open;
mod output;
mod store_url;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, before any thread is there: this process may have been started to supervise commands.
    light_task_scheduler::executor::process::run_supervisor_if_asked();
    ExitCode::from(cli::main())
}
