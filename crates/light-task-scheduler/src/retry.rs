//! When to try again, and when to give up. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::task::{Failure, FailureKind, Record};

/// How many infrastructure losses in a row a task survives. Past it the task fails as
/// [`FailureKind::Lost`], so that a task that kills its host comes to an end.
pub const LOST_IN_A_ROW_MAX: u32 = 5;

/// The shortest wait for an executor that had no room: below it, asking again is a busy loop.
pub const BUSY_DELAY_MIN: Duration = Duration::from_millis(100);

/// How often a task is tried, and how long to wait between the attempts.
///
/// The wait before attempt `n + 1` is a random time between zero and
/// `min(max_delay, min_delay × factor^(n-1))` ("full jitter": the attempts of many tasks that failed
/// together spread out).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. 1 means: never retried. Default 1.
    pub max_attempts: u32,
    /// The bound of the first wait. Default 1 s.
    pub min_delay: Duration,
    /// The largest bound. Default 10 min.
    pub max_delay: Duration,
    /// What the bound is multiplied by after each attempt. Default 2.
    pub factor: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            max_attempts: 1,
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(600),
            factor: 2.0,
        }
    }
}

impl RetryPolicy {
    /// The default back-off with `max_attempts` attempts in all.
    pub fn attempts(max_attempts: u32) -> Self {
        RetryPolicy { max_attempts, ..RetryPolicy::default() }
    }

    /// Every problem of this policy, in words.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.max_attempts == 0 {
            problems.push("retry.max_attempts is 0; 1 means one attempt and no retry".to_owned());
        }
        if !(self.factor.is_finite() && self.factor >= 1.0) {
            problems.push(format!("retry.factor is {}; it must be at least 1", self.factor));
        }
        if self.max_delay < self.min_delay {
            problems.push("retry.max_delay is shorter than retry.min_delay".to_owned());
        }
        problems
    }

    /// The wait after `failed` charged attempts have failed; `chance` is uniform in `0.0..1.0`.
    pub fn delay(&self, failed: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
        let bound = (self.min_delay.as_secs_f64() * self.factor.powi(exponent)).min(self.max_delay.as_secs_f64());
        Duration::try_from_secs_f64(bound * chance).unwrap_or(self.max_delay)
    }
}

/// What becomes of a task whose attempt ended without success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Wait, then try again; the attempt is charged.
    Retry(Timestamp),
    /// Try again; the attempt is an interruption and is not charged.
    Release(Timestamp),
    /// Give up.
    Fail,
}

/// Decides it. `chance` is uniform in `0.0..1.0` and spreads the retries.
///
/// Losses, refused starts of a busy executor and drains are interruptions: they charge nothing, but
/// losses in a row are capped by [`LOST_IN_A_ROW_MAX`]. A retry that could only start at or after the
/// task's deadline is not made.
pub fn decide(
    policy: &RetryPolicy,
    record: &Record,
    deadline: Option<Timestamp>,
    failure: &Failure,
    now: Timestamp,
    chance: f64,
) -> Verdict {
    let charged = record.attempt.saturating_sub(record.interruptions);
    let verdict = match failure.kind {
        FailureKind::Busy => Verdict::Release(now + failure.retry_after.unwrap_or_default().max(BUSY_DELAY_MIN)),
        // A run that says it was stopped, by whomever: if cancelling was the wish, the record says so and wins.
        FailureKind::Drained | FailureKind::Cancelled => Verdict::Release(now),
        FailureKind::Lost if record.lost_in_a_row < LOST_IN_A_ROW_MAX => {
            // The host may be in trouble: back off by the losses so far, not by the charged attempts.
            Verdict::Release(now + policy.delay(record.lost_in_a_row, chance))
        }
        FailureKind::Error | FailureKind::Panic | FailureKind::Timeout
            if !failure.fatal && charged < policy.max_attempts =>
        {
            Verdict::Retry(now + failure.retry_after.unwrap_or_else(|| policy.delay(charged, chance)))
        }
        _ => Verdict::Fail,
    };
    match (verdict, deadline) {
        (Verdict::Retry(at) | Verdict::Release(at), Some(deadline)) if at >= deadline => Verdict::Fail,
        _ => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(attempt: u32, interruptions: u32, lost_in_a_row: u32) -> Record {
        Record { attempt, interruptions, lost_in_a_row, ..Record::default() }
    }

    fn verdict(record: &Record, failure: &Failure) -> Verdict {
        decide(&RetryPolicy::attempts(3), record, None, failure, Timestamp::default(), 0.5)
    }

    #[test]
    fn attempts_are_charged_until_the_last() {
        let error = Failure::new(FailureKind::Error, "no");
        assert!(matches!(verdict(&after(1, 0, 0), &error), Verdict::Retry(_)));
        assert!(matches!(verdict(&after(2, 0, 0), &error), Verdict::Retry(_)));
        assert_eq!(verdict(&after(3, 0, 0), &error), Verdict::Fail);
        assert!(matches!(verdict(&after(3, 1, 0), &error), Verdict::Retry(_)), "an interruption is not charged");
    }

    #[test]
    fn fatal_refused_and_late_fail_at_once() {
        let mut fatal = Failure::new(FailureKind::Error, "no");
        fatal.fatal = true;
        assert_eq!(verdict(&after(1, 0, 0), &fatal), Verdict::Fail);
        for kind in [FailureKind::Refused, FailureKind::Deadline, FailureKind::Export, FailureKind::Poison] {
            assert_eq!(verdict(&after(1, 0, 0), &Failure::new(kind, "no")), Verdict::Fail);
        }
    }

    #[test]
    fn losses_in_a_row_are_capped_but_not_charged() {
        let lost = Failure::new(FailureKind::Lost, "host gone");
        assert!(matches!(verdict(&after(9, 9, LOST_IN_A_ROW_MAX - 1), &lost), Verdict::Release(_)));
        assert_eq!(verdict(&after(9, 9, LOST_IN_A_ROW_MAX), &lost), Verdict::Fail);
    }

    #[test]
    fn retry_after_replaces_the_back_off_and_the_deadline_ends_it() {
        let mut error = Failure::new(FailureKind::Error, "later");
        error.retry_after = Some(Duration::from_secs(7));
        let at = Timestamp::default() + Duration::from_secs(7);
        assert_eq!(verdict(&after(1, 0, 0), &error), Verdict::Retry(at));
        let policy = RetryPolicy::attempts(3);
        let record = after(1, 0, 0);
        assert_eq!(decide(&policy, &record, Some(at), &error, Timestamp::default(), 0.5), Verdict::Fail);
    }

    #[test]
    fn the_delay_doubles_to_its_cap_and_is_jittered() {
        let policy = RetryPolicy::attempts(99);
        let bounds: Vec<u64> = (1..=4).map(|n| policy.delay(n, 1.0).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8]);
        assert_eq!(policy.delay(u32::MAX, 1.0), policy.max_delay);
        assert_eq!(policy.delay(3, 0.0), Duration::ZERO);
        assert_eq!(policy.delay(3, 0.5), Duration::from_secs(2));
    }

    #[test]
    fn a_bad_policy_names_all_its_problems() {
        let bad = RetryPolicy {
            max_attempts: 0,
            factor: 0.5,
            min_delay: Duration::from_secs(2),
            max_delay: Duration::from_secs(1),
        };
        assert_eq!(bad.problems().len(), 3);
        assert!(RetryPolicy::default().problems().is_empty());
    }
}
