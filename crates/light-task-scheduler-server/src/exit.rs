//! How the program ends: its exit codes, and the one sentence that goes with a failure.

use std::fmt;

use light_task_scheduler::{Error, ErrorKind};

/// All went well.
pub(crate) const OK: u8 = 0;
/// Something failed; for `batch`: not every task succeeded.
pub(crate) const ERROR: u8 = 1;
/// What was asked makes no sense: an option, a line of a batch, a file that cannot be read.
pub(crate) const USAGE: u8 = 2;
/// No such task or store.
pub(crate) const NOT_FOUND: u8 = 3;
/// It contradicts what is stored, or the state forbids it; the store is of another version.
pub(crate) const CONFLICT: u8 = 4;
/// The store cannot be reached, or is locked.
pub(crate) const UNREACHABLE: u8 = 6;
/// It took too long.
pub(crate) const TIMED_OUT: u8 = 7;
/// `run`: the command was cancelled by somebody else.
pub(crate) const CANCELLED: u8 = 11;
/// `run`: there is no such program, as shells have it.
pub(crate) const NO_PROGRAM: u8 = 127;
/// Ended by Ctrl-C (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;
/// Nobody reads what is printed (128 + SIGPIPE).
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Why the program fails, and with which code.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The exit code.
    pub(crate) code: u8,
    /// One sentence; empty: nothing is said.
    pub(crate) message: String,
}

/// `Result` with a [`Problem`].
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    /// A failure with this code.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Problem { code, message: message.into() }
    }

    /// A request that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Problem::new(USAGE, message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Invalid => USAGE,
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Incompatible => CONFLICT,
            ErrorKind::Unavailable => UNREACHABLE,
            _ => ERROR,
        };
        Problem::new(code, error.to_string())
    }
}
