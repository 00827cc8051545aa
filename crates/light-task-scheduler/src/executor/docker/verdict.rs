//! What a container's state means for its task. Pure: the engine's words come in, an outcome goes out.

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use serde::{Deserialize, Serialize};

use super::spec::{KILL, SIGNAL_BASE, signal_in_words, signal_number};
use crate::clock::Timestamp;
use crate::task::{Failure, FailureKind, Outcome};

/// The signal that a container is asked to stop by if neither it nor its image says otherwise: SIGTERM.
const TERM: i64 = 15;
/// The exit code that an engine notes for a container that was gone when it came back.
const CODE_UNKNOWN: i64 = 255;

/// The result of a task whose container exited with code 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResult {
    /// 0.
    pub exit_code: i64,
    /// How long it ran, in milliseconds, by the engine's clock.
    pub wall_ms: u64,
    /// The id of the image that it ran.
    pub image: String,
    /// The beginning of what it wrote to its standard output, at most
    /// [`STDOUT_BYTES_MAX`](super::STDOUT_BYTES_MAX) bytes; what is no UTF-8 is replaced.
    pub stdout: String,
    /// Whether it wrote more than that. All of it, up to a log's limit, is in the log store.
    pub stdout_truncated: bool,
}

/// How a container stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// Made and never started.
    Created,
    /// It runs, or is halted.
    Running,
    /// The engine could not start it.
    Unstartable(String),
    /// It has ended.
    Ended(End),
    /// The engine's words make no sense to us.
    Unclear(String),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct End {
    pub(super) code: i64,
    pub(super) out_of_memory: bool,
    /// The engine's words, if it had to say something.
    pub(super) error: String,
    /// The number of the signal by which it is asked to stop.
    pub(super) stop_signal: i64,
    pub(super) wall_ms: u64,
    pub(super) image: String,
}

/// What is known of the engine beside the container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Evidence {
    /// It was asked to stop, or somebody killed it, before it ended.
    pub(super) stopped: bool,
    /// Whether the engine has been started anew since it started the container.
    pub(super) restart: Restart,
}

/// Whether the engine has been started anew since it started a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Restart {
    /// It has not, or nothing says so.
    #[default]
    None,
    /// It has, and the container has ended before, or while the engine was down.
    EndedBefore,
    /// It has, and it ended the container, as engines do that leave none alive while they are down.
    EndedByIt,
    /// It has, and which of the two cannot be told, or whether it has noted the exit code that there was.
    Unclear,
}

/// How a run ended, or that nobody knows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Its output is to be asked for if it succeeded.
    Outcome(Outcome),
    /// The engine has lost it.
    Lost(String),
}

impl Verdict {
    /// As one word.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Verdict::Outcome(outcome) => outcome,
            Verdict::Lost(why) => Outcome::Failed(Failure::new(FailureKind::Lost, why)),
        }
    }
}

/// Reads what an engine says of a container.
pub(super) fn look(found: &ContainerInspectResponse) -> Seen {
    use ContainerStateStatusEnum as Is;
    let Some(state) = &found.state else { return Seen::Unclear("the engine tells no state".to_owned()) };
    let error = state.error.clone().unwrap_or_default();
    match state.status {
        Some(Is::CREATED) if error.is_empty() => Seen::Created,
        Some(Is::CREATED) => Seen::Unstartable(error),
        Some(Is::RUNNING | Is::PAUSED | Is::RESTARTING | Is::STOPPING) => Seen::Running,
        Some(Is::EXITED | Is::DEAD | Is::REMOVING) => {
            let Some(code) = state.exit_code else {
                return Seen::Unclear("it has ended, and the engine tells no exit code".to_owned());
            };
            let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
            let wall_ms = match (time(&state.started_at), time(&state.finished_at)) {
                (Some(started), Some(finished)) => finished.since(started).as_millis(),
                _ => 0,
            };
            let signal = found.config.as_ref().and_then(|config| config.stop_signal.as_deref());
            Seen::Ended(End {
                code,
                out_of_memory: state.oom_killed == Some(true),
                error,
                stop_signal: signal.and_then(signal_number).unwrap_or(TERM),
                wall_ms: u64::try_from(wall_ms).unwrap_or(u64::MAX),
                image: found.image.clone().unwrap_or_default(),
            })
        }
        Some(Is::EMPTY) | None => Seen::Unclear("the engine tells no state".to_owned()),
    }
}

/// Decides what an end means. `complaint`: the last line that it wrote to its standard error, if any.
pub(super) fn judge(end: &End, evidence: Evidence, complaint: &str) -> Verdict {
    if let Some(why) = lost(end, evidence.restart) {
        return Verdict::Lost(why);
    }
    if end.code == 0 && !evidence.stopped {
        return Verdict::Outcome(Outcome::Succeeded(None));
    }
    let how = if end.out_of_memory { format!("{}, out of memory", in_words(end.code)) } else { in_words(end.code) };
    let (kind, message) = if evidence.stopped {
        (FailureKind::Cancelled, format!("stopped: {how}"))
    } else {
        let said = [end.error.as_str(), complaint].into_iter().find(|said| !said.is_empty());
        (FailureKind::Error, said.map_or_else(|| how.clone(), |said| format!("{how}: {said}")))
    };
    let exit_code = i32::try_from(end.code).ok();
    Verdict::Outcome(Outcome::Failed(Failure { exit_code, ..Failure::new(kind, message) }))
}

/// Why an end is the engine's and not the task's, if it is.
fn lost(end: &End, restart: Restart) -> Option<String> {
    let of_an_engine = [SIGNAL_BASE + KILL, SIGNAL_BASE + end.stop_signal, CODE_UNKNOWN].contains(&end.code);
    let word = in_words(end.code);
    match restart {
        _ if end.out_of_memory => None,
        Restart::EndedByIt => Some(format!("the engine was restarted and stopped the container ({word})")),
        Restart::EndedBefore if of_an_engine => {
            Some(format!("the engine was restarted, and the container died with it ({word})"))
        }
        Restart::Unclear if of_an_engine || end.code == 0 => {
            Some(format!("the engine was restarted, and how the container ended is uncertain ({word})"))
        }
        Restart::None | Restart::EndedBefore | Restart::Unclear => None,
    }
}

/// An exit code as a shell means it. Whether the program has exited with it or was killed, Docker does not tell.
fn in_words(code: i64) -> String {
    const SIGNAL_MAX: i64 = 64;
    match code - SIGNAL_BASE {
        signal @ 1..=SIGNAL_MAX => format!("exit code {code} (signal {})", signal_in_words(signal)),
        _ => format!("exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerConfig, ContainerState};

    use super::*;

    fn inspected(status: ContainerStateStatusEnum, code: Option<i64>, error: &str) -> ContainerInspectResponse {
        let state = ContainerState {
            status: Some(status),
            exit_code: code,
            error: Some(error.to_owned()),
            started_at: Some("2026-01-01T00:00:00Z".into()),
            finished_at: Some("2026-01-01T00:00:01.5Z".into()),
            ..ContainerState::default()
        };
        let config = ContainerConfig { stop_signal: Some("SIGINT".into()), ..ContainerConfig::default() };
        ContainerInspectResponse { state: Some(state), config: Some(config), ..ContainerInspectResponse::default() }
    }

    fn end(code: i64) -> End {
        End { code, stop_signal: TERM, ..End::default() }
    }

    fn failure(verdict: Verdict) -> Failure {
        match verdict.outcome() {
            Outcome::Failed(failure) => failure,
            Outcome::Succeeded(_) => panic!("it succeeded"),
        }
    }

    #[test]
    fn a_state_is_read_as_it_is() {
        use ContainerStateStatusEnum as Is;
        assert_eq!(look(&inspected(Is::CREATED, Some(0), "")), Seen::Created);
        assert_eq!(look(&inspected(Is::CREATED, Some(127), "no x")), Seen::Unstartable("no x".into()));
        for status in [Is::RUNNING, Is::PAUSED, Is::RESTARTING] {
            assert_eq!(look(&inspected(status, Some(0), "")), Seen::Running);
        }
        let Seen::Ended(end) = look(&inspected(Is::EXITED, Some(3), "")) else { panic!("it has ended") };
        assert_eq!((end.code, end.stop_signal, end.wall_ms), (3, 2, 1_500));
    }

    #[test]
    fn an_unknown_exit_is_no_success() {
        use ContainerStateStatusEnum as Is;
        for found in [inspected(Is::EXITED, None, ""), inspected(Is::EMPTY, Some(0), ""), Default::default()] {
            assert!(matches!(look(&found), Seen::Unclear(_)), "{found:?}");
        }
    }

    #[test]
    fn an_end_is_told_in_words() {
        let none = Evidence::default();
        assert_eq!(judge(&end(0), none, "warning"), Verdict::Outcome(Outcome::Succeeded(None)));
        let three = failure(judge(&end(3), none, "no disk"));
        assert_eq!((three.message.as_str(), three.exit_code), ("exit code 3: no disk", Some(3)));
        let killed = failure(judge(&End { out_of_memory: true, ..end(137) }, none, ""));
        assert_eq!(killed.message, "exit code 137 (signal 9 SIGKILL), out of memory");
        assert_eq!(killed.kind, FailureKind::Error);
    }

    #[test]
    fn what_was_stopped_has_not_succeeded() {
        let stopped = Evidence { stopped: true, ..Evidence::default() };
        for code in [0, 143] {
            assert_eq!(failure(judge(&end(code), stopped, "")).kind, FailureKind::Cancelled, "{code}");
        }
    }

    #[test]
    fn what_an_engine_has_ended_is_lost() {
        let lost = |code, restart| {
            let evidence = Evidence { restart, ..Evidence::default() };
            matches!(judge(&end(code), evidence, ""), Verdict::Lost(_))
        };
        // A container that an engine stops at its start may answer with success.
        for code in [0, 1, 137, 143] {
            assert!(lost(code, Restart::EndedByIt), "{code}");
            assert!(!lost(code, Restart::None), "{code}");
        }
        for code in [137, 143, 255] {
            assert!(lost(code, Restart::EndedBefore) && lost(code, Restart::Unclear), "{code}");
        }
        assert!(!lost(0, Restart::EndedBefore), "it has succeeded, and then the engine died");
        assert!(lost(0, Restart::Unclear));
        assert!(!lost(3, Restart::EndedBefore) && !lost(3, Restart::Unclear));
        let out_of_memory = End { out_of_memory: true, ..end(137) };
        let evidence = Evidence { restart: Restart::EndedBefore, ..Evidence::default() };
        assert!(matches!(judge(&out_of_memory, evidence, ""), Verdict::Outcome(_)));
    }
}
