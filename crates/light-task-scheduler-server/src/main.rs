//! The program `lts`; see the library of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    light_task_scheduler_server::main()
}
