//! What can go wrong: [`Error`] is ours, [`TaskError`] is what a handler returns.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What a caller may decide on. The text of an [`Error`] is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can never succeed as it is: a bad name, an empty command, a limit of zero.
    Invalid,
    /// No such task, queue, result or log.
    NotFound,
    /// The request contradicts what is stored: an id with another payload, a move the state forbids.
    Conflict,
    /// A bound was reached: the store is full, the payload too large, the disk full.
    Full,
    /// The other side cannot be reached or is busy; the same request may succeed later.
    Unavailable,
    /// The store was written by a program this one does not understand.
    Incompatible,
    /// This replica is no longer registered with the store: it must register anew.
    NotRegistered,
    /// Anything else: a broken file, a bug.
    Internal,
}

/// Any failure of this crate: a kind to decide on, a sentence to read, a source to debug.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says what happened, to what, and what to do: lower case, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None }
    }

    /// An [`ErrorKind::Invalid`] error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// An [`ErrorKind::Unavailable`] error.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// An [`ErrorKind::Internal`] error.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller may decide on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// How a handler failed, and whether to try again.
///
/// `?` turns any error into a retryable one. It deliberately does not implement
/// [`std::error::Error`]: that is what lets `?` accept every error type.
///
/// ```
/// use light_task_scheduler::TaskError;
///
/// fn parse(text: &str) -> Result<u32, TaskError> {
///     if text.is_empty() {
///         return Err(TaskError::fatal("nothing to parse"));
///     }
///     Ok(text.parse::<u32>()?)
/// }
/// assert!(parse("").unwrap_err().is_fatal());
/// assert!(!parse("x").unwrap_err().is_fatal());
/// ```
#[derive(Debug)]
pub struct TaskError {
    message: String,
    fatal: bool,
    retry_after: Option<Duration>,
}

impl TaskError {
    /// A failure that may be retried, by the task's retry policy.
    pub fn new(message: impl fmt::Display) -> Self {
        TaskError { message: message.to_string(), fatal: false, retry_after: None }
    }

    /// A failure that no retry can mend: the task fails now, whatever its policy.
    pub fn fatal(message: impl fmt::Display) -> Self {
        TaskError { message: message.to_string(), fatal: true, retry_after: None }
    }

    /// A failure to retry no sooner than after `delay`, in place of the policy's back-off.
    pub fn retry_after(delay: Duration, message: impl fmt::Display) -> Self {
        TaskError { message: message.to_string(), fatal: false, retry_after: Some(delay) }
    }

    /// Whether retrying is forbidden.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// The delay asked for, if any.
    pub fn delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: StdError> From<E> for TaskError {
    /// A retryable failure; the message holds the whole chain of causes.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(": ");
            message.push_str(&source.to_string());
            cause = source.source();
        }
        TaskError::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_error_keeps_the_chain_of_causes() {
        let error = Error::internal("the outside").with_source("the inside");
        assert_eq!(TaskError::from(error).message(), "the outside: the inside");
    }

    #[test]
    fn only_unavailable_is_retryable() {
        assert!(Error::unavailable("x").is_retryable());
        assert!(!Error::invalid("x").is_retryable());
    }
}
