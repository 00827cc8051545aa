//! A program that does nothing but supervise commands for a scheduler that cannot do so itself.

use light_task_scheduler::executor::process::run_supervisor_if_asked;

fn main() -> std::process::ExitCode {
    run_supervisor_if_asked();
    // Reached only when a person starts it: a scheduler never returns from the call above.
    std::process::ExitCode::from(2)
}
