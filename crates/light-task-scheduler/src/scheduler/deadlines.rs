//! When a run must end. Derived from stored columns only, so that it survives a restart.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Timestamp, monotonic};
use crate::scheduler::core::Core;
use crate::task::{Failure, FailureKind, Task};

/// Longer than any program runs, and short enough for every timer.
pub(super) const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// The earlier of a run's two limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    /// When, on this process's clock.
    pub(super) at: Instant,
    /// Timeout of the attempt, or deadline of the task.
    pub(super) kind: FailureKind,
    /// How long the attempt may run at most.
    allowed: Duration,
}

impl Limit {
    /// What is said of a run that went past it.
    pub(super) fn message(&self) -> String {
        match self.kind {
            FailureKind::Deadline => "the deadline passed while it ran".to_owned(),
            _ => format!("it ran longer than its timeout of {:?}", self.allowed),
        }
    }

    /// The failure of a run that went past it and was stopped, with what that said in the end.
    pub(super) fn overrun(&self, said: &Failure) -> Failure {
        let message = format!("{}; when stopped it said: {}", self.message(), said.message);
        Failure { exit_code: said.exit_code, ..Failure::new(self.kind, message) }
    }
}

/// The limit of a run, if it has one.
pub(super) fn limit(core: &Core, task: &Task) -> Option<Limit> {
    let now = core.replica.store_now();
    let started = task.record.started_at.unwrap_or(now);
    let (end, kind) = first(started, task.timeout(), task.spec.deadline())?;
    let at = monotonic() + end.since(now).min(NEVER);
    Some(Limit { at, kind, allowed: end.since(started) })
}

/// Which of the two comes first, and when, on the store's clock.
fn first(
    started: Timestamp,
    timeout: Option<Duration>,
    deadline: Option<Timestamp>,
) -> Option<(Timestamp, FailureKind)> {
    let timeout = timeout.map(|timeout| (started + timeout, FailureKind::Timeout));
    let deadline = deadline.map(|deadline| (deadline, FailureKind::Deadline));
    timeout.into_iter().chain(deadline).min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_limit_counts() {
        let started = Timestamp::from_micros(1_000_000);
        let second = Duration::from_secs(1);
        assert_eq!(first(started, None, None), None);
        assert_eq!(first(started, Some(second), None), Some((started + second, FailureKind::Timeout)));
        let deadline = started + second / 2;
        assert_eq!(first(started, Some(second), Some(deadline)), Some((deadline, FailureKind::Deadline)));
        assert_eq!(
            first(started, Some(second), Some(started + 2 * second)),
            Some((started + second, FailureKind::Timeout))
        );
    }
}
