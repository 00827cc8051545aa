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
/// There is no valid token, or it is not for this.
pub(crate) const FORBIDDEN: u8 = 5;
/// The server or the store cannot be reached, or is locked.
pub(crate) const UNREACHABLE: u8 = 6;
/// It took too long.
pub(crate) const TIMED_OUT: u8 = 7;
/// `wait`: the task has failed.
pub(crate) const FAILED: u8 = 10;
/// `run`, `wait`: it was cancelled by somebody else.
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
    /// The same as a server says it, if one has.
    pub(crate) body: Option<Box<serde_json::Value>>,
}

/// `Result` with a [`Problem`].
pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    /// A failure with this code.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), body: None }
    }

    /// The problem details (RFC 9457): those of the server, or what comes closest.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        if let Some(body) = &self.body {
            return (**body).clone();
        }
        let (code, status) = match self.code {
            USAGE => ("invalid", Some(400)),
            NOT_FOUND => ("not_found", Some(404)),
            CONFLICT => ("conflict", Some(409)),
            FORBIDDEN => ("forbidden", Some(403)),
            UNREACHABLE => ("unavailable", Some(503)),
            TIMED_OUT => ("timed_out", None),
            _ => ("internal", Some(500)),
        };
        serde_json::json!({ "type": "about:blank", "title": code.replace('_', " "), "status": status,
            "detail": self.message, "code": code })
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
