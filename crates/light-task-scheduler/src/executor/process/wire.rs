//! What scheduler and supervisor tell each other, and what an end means.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::command::CommandSpec;
use crate::task::{Failure, FailureKind, Outcome, Payload};

/// Largest order sent through the launcher's socket (64 KiB); a larger one goes through a file.
pub(super) const ORDER_BYTES_MAX: usize = 64 << 10;
/// Largest message of a supervisor (16 KiB): its texts are cut far below this.
pub(super) const WORD_BYTES_MAX: usize = 16 << 10;

/// What the launcher is sent, together with the socket on which the supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Envelope {
    /// Do this.
    Order(Box<Order>),
    /// Do what is in this file: an order too large for the socket.
    ReadFrom(PathBuf),
}

/// One command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The run's directory; it exists.
    pub(super) dir: PathBuf,
    /// Namespace, id and execution: put into the environment of all that the command starts.
    pub(super) execution: String,
    /// The command.
    pub(super) spec: CommandSpec,
    /// Kill the command if no scheduler has been attached for so long.
    pub(super) orphan_after_ms: Option<u64>,
}

/// What a supervisor says to the scheduler that ordered it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Word {
    /// The command runs.
    Started,
    /// It can never run.
    Refused(String),
    /// There was no room to start it.
    Busy(String),
    /// It has ended, and with it everything that it started.
    Ended(End),
}

/// How a command ended; the last line of its run's file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct End {
    /// Its exit code, if it exited.
    pub(super) code: Option<i32>,
    /// The signal that killed it, if one did.
    pub(super) signal: Option<i32>,
    /// It was asked to stop before it ended.
    pub(super) stopped: bool,
    /// By a scheduler; not by somebody else's signal, or for want of any scheduler.
    pub(super) by_scheduler: bool,
    /// The kernel killed a process of this group for want of memory while it ran, and it was killed.
    pub(super) out_of_memory: bool,
    /// It never started: why.
    pub(super) refused: Option<String>,
    pub(super) wall_ms: u64,
    pub(super) user_ms: u64,
    pub(super) sys_ms: u64,
    pub(super) max_rss_kib: u64,
    pub(super) stdout_bytes: u64,
    pub(super) stderr_bytes: u64,
    /// The last line that it complained.
    pub(super) last_line: String,
}

/// The result of a task whose command exited with code 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// 0.
    pub exit_code: i32,
    /// None.
    pub signal: Option<i32>,
    /// How long it ran, in milliseconds.
    pub wall_ms: u64,
    /// Processor time that it and its children spent in programs, in milliseconds.
    pub user_ms: u64,
    /// Processor time that the kernel spent for them, in milliseconds.
    pub sys_ms: u64,
    /// The most memory that the largest of them had, in KiB.
    pub max_rss_kib: u64,
    /// What it wrote to its standard output, kept or not.
    pub stdout_bytes: u64,
    /// What it wrote to its standard error, kept or not.
    pub stderr_bytes: u64,
}

impl End {
    /// What this end means for the task.
    pub(super) fn outcome(&self) -> Outcome {
        let code = self.exit_code();
        if let Some(why) = &self.refused {
            return Outcome::Failed(Failure { fatal: true, ..Failure::new(FailureKind::Refused, why) });
        }
        if self.code == Some(0) && !self.stopped {
            return match Payload::json(&self.result()) {
                Ok(payload) => Outcome::Succeeded(Some(payload)),
                Err(error) => Outcome::Failed(Failure::new(FailureKind::Error, error.to_string())),
            };
        }
        let how = self.in_words();
        let (kind, message) = if self.stopped && self.by_scheduler {
            (FailureKind::Cancelled, format!("stopped: {how}"))
        } else if self.stopped {
            (FailureKind::Drained, format!("stopped, not by a scheduler: {how}"))
        } else if self.last_line.is_empty() {
            (FailureKind::Error, how)
        } else {
            (FailureKind::Error, format!("{how}: {}", self.last_line))
        };
        Outcome::Failed(Failure { exit_code: Some(code), ..Failure::new(kind, message) })
    }

    fn in_words(&self) -> String {
        match self.signal {
            Some(signal) if self.out_of_memory => {
                format!("killed by signal {}, out of memory", signal_in_words(signal))
            }
            Some(signal) => format!("killed by signal {}", signal_in_words(signal)),
            None => format!("exit code {}", self.exit_code()),
        }
    }

    /// As a shell tells it: 128 + n for a signal.
    fn exit_code(&self) -> i32 {
        const SIGNAL_BASE: i32 = 128;
        self.code.or(self.signal.map(|signal| SIGNAL_BASE + signal)).unwrap_or(SIGNAL_BASE)
    }

    fn result(&self) -> CommandResult {
        CommandResult {
            exit_code: self.exit_code(),
            signal: self.signal,
            wall_ms: self.wall_ms,
            user_ms: self.user_ms,
            sys_ms: self.sys_ms,
            max_rss_kib: self.max_rss_kib,
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
        }
    }
}

fn signal_in_words(signal: i32) -> String {
    const NAMES: [(i32, &str); 16] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU (the limit cpu_s)"),
        (libc::SIGXFSZ, "SIGXFSZ (the limit file_bytes)"),
    ];
    match NAMES.iter().find(|(number, _)| *number == signal) {
        Some((_, name)) => format!("{signal} {name}"),
        None => signal.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(end: End) -> Failure {
        match end.outcome() {
            Outcome::Failed(failure) => failure,
            Outcome::Succeeded(_) => panic!("it succeeded"),
        }
    }

    #[test]
    fn an_end_says_code_signal_and_last_line() {
        let three = failure(End { code: Some(3), last_line: "no disk".into(), ..End::default() });
        assert_eq!((three.message.as_str(), three.exit_code), ("exit code 3: no disk", Some(3)));
        let killed = failure(End { signal: Some(9), out_of_memory: true, ..End::default() });
        assert_eq!(
            (killed.message.as_str(), killed.exit_code),
            ("killed by signal 9 SIGKILL, out of memory", Some(137))
        );
    }

    #[test]
    fn a_stopped_command_never_succeeds() {
        for (by_scheduler, kind) in [(true, FailureKind::Cancelled), (false, FailureKind::Drained)] {
            let stopped = failure(End { code: Some(0), stopped: true, by_scheduler, ..End::default() });
            assert_eq!((stopped.kind, stopped.exit_code), (kind, Some(0)));
        }
        assert!(matches!(End { code: Some(0), ..End::default() }.outcome(), Outcome::Succeeded(Some(_))));
    }
}
