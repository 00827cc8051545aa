//! Why a container cannot be: the engine's words, sorted.

use std::time::Duration;

use super::engine::{CONFLICT, NOT_FOUND, Trouble};
use crate::executor::StartError;
use crate::task::{Failure, FailureKind};

/// How long a start for which there was no room or no engine waits.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// The status of an engine that could not do what it understood.
const SERVER_ERROR: u16 = 500;

/// A failure that no second try can mend.
pub(super) fn refused(why: impl std::fmt::Display) -> StartError {
    StartError::Refused(fatal(why))
}

fn fatal(why: impl std::fmt::Display) -> Failure {
    Failure { fatal: true, ..Failure::new(FailureKind::Refused, why.to_string()) }
}

/// There is no room just now, or nobody to ask: the task is not charged.
pub(super) fn busy(message: impl Into<String>) -> StartError {
    StartError::Busy { message: message.into(), retry_after: BUSY_RETRY }
}

/// Why an image did not arrive.
pub(super) fn of_pull(image: &str, trouble: &Trouble) -> StartError {
    const NEVER: [&str; 5] =
        ["not found", "manifest unknown", "does not exist", "invalid reference", "no matching manifest"];
    let what = format!("the image {image} cannot be fetched: {trouble}");
    match trouble {
        Trouble::Unreachable(_) => busy(what),
        Trouble::Said(status, why) if *status == NOT_FOUND || NEVER.iter().any(|word| why.contains(word)) => {
            refused(what)
        }
        // The registry may be back for the next attempt.
        Trouble::Said(..) => StartError::Refused(Failure::new(FailureKind::Refused, what)),
    }
}

/// Why a container could not be made.
pub(super) fn of_create(image: &str, trouble: &Trouble) -> StartError {
    match trouble {
        Trouble::Unreachable(why) => busy(why.clone()),
        Trouble::Said(NOT_FOUND, why) if why.to_lowercase().contains("no such image") => {
            refused(format!("the engine has no image {image}, and it is not to be fetched"))
        }
        Trouble::Said(status, why) => StartError::Refused(sorted(*status, why)),
    }
}

/// Why a container that was made could not be started.
pub(super) fn of_start(why: &str) -> Failure {
    sorted(SERVER_ERROR, why)
}

fn sorted(status: u16, why: &str) -> Failure {
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["port is already allocated", "address already in use", "Bind for "]) {
        // Whoever has it may be gone for the next attempt.
        return Failure::new(FailureKind::Refused, format!("a port is taken: {why}"));
    }
    if has(&["id already in use"]) || has(&["shim"]) && has(&["file exists"]) {
        // What is under it has begun, and the engine knows nothing of it.
        let what = "the engine was killed while it started the container";
        return Failure::new(FailureKind::Lost, format!("{what}: {why}"));
    }
    if has(&["bind source path does not exist", "invalid mount config", "error mounting", "not a directory"]) {
        return fatal(format!("a volume cannot be mounted: {why}"));
    }
    if has(&["executable file not found", "exec format error", "no such file or directory", "permission denied"]) {
        return fatal(format!("the program cannot be started: {why}"));
    }
    if has(&["chdir to cwd"]) {
        return fatal(format!("the working directory cannot be entered: {why}"));
    }
    if has(&["unable to find user", "no matching entries in passwd", "unable to find group"]) {
        return fatal(format!("the image has no such user: {why}"));
    }
    if status == CONFLICT {
        return fatal(format!("the name of the container is taken: {why}"));
    }
    if status >= SERVER_ERROR {
        return Failure::new(FailureKind::Refused, format!("the engine cannot start the container: {why}"));
    }
    fatal(format!("the engine refuses the container: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_words_and_says_whether_to_try_again() {
        for (why, words, is_fatal) in [
            ("driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", "a port is taken", false),
            ("exec: \"x\": executable file not found in $PATH: unknown", "the program cannot be started", true),
            ("invalid mount config for type \"bind\": bind source path does not exist: /x", "a volume", true),
            ("unable to find user nobody2: no matching entries in passwd file", "no such user", true),
            ("no space left on device", "the engine cannot start", false),
        ] {
            let failure = of_start(why);
            assert!(failure.message.contains(words) && failure.message.contains(why), "{failure:?}");
            assert_eq!((failure.fatal, failure.kind), (is_fatal, FailureKind::Refused), "{why}");
        }
    }

    #[test]
    fn a_start_that_an_engine_has_begun_before_its_death_is_lost() {
        for why in ["id already in use", "failed to start shim: mkdir /run/moby/1: file exists: unknown"] {
            let failure = of_start(why);
            assert_eq!((failure.kind, failure.fatal), (FailureKind::Lost, false), "{why}");
        }
    }

    #[test]
    fn a_registry_that_fails_may_be_tried_again() {
        let of = |status, why: &str| match of_pull("a", &Trouble::Said(status, why.to_owned())) {
            StartError::Refused(failure) => failure.fatal,
            StartError::Busy { .. } => panic!("it has answered"),
        };
        assert!(of(404, "pull access denied") && of(500, "manifest unknown: manifest unknown"));
        assert!(!of(500, "dial tcp: lookup registry: i/o timeout"));
        assert!(matches!(of_pull("a", &Trouble::Unreachable("x".into())), StartError::Busy { .. }));
    }
}
