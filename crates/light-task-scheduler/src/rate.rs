//! Rate limits: the generic cell rate algorithm (GCRA). Pure.
//!
//! A limit of `count` starts per `period` with a `burst` is kept as one number, the *theoretical arrival
//! time* (TAT): when the bucket would be full again. It lives in the queue's row, so that all replicas
//! share one limit and a crash can leak nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, micros};

/// At most `count` starts per `period`, of which up to `burst` may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Starts per period, at least 1.
    pub count: u32,
    /// The period, longer than zero.
    pub period: Duration,
    /// How many may start at once after a quiet time, at least 1.
    pub burst: u32,
}

impl RateLimit {
    /// `count` starts per second, evenly spread (a burst of one).
    pub fn per_second(count: u32) -> Self {
        RateLimit { count, period: Duration::from_secs(1), burst: 1 }
    }

    /// Every problem of this limit, in words.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.count == 0 {
            problems.push("rate.count is 0; pause the queue instead".to_owned());
        }
        if self.burst == 0 {
            problems.push("rate.burst is 0; 1 spreads the starts evenly".to_owned());
        }
        if self.period.is_zero() {
            problems.push("rate.period is 0".to_owned());
        }
        problems
    }

    /// Microseconds between two evenly spread starts, at least 1.
    pub(crate) fn interval(&self) -> i64 {
        (micros(self.period) / i64::from(self.count.max(1))).max(1)
    }

    /// How far the stored number may be ahead of now, in microseconds: a full burst.
    pub(crate) fn window(&self) -> i64 {
        self.interval().saturating_mul(i64::from(self.burst.max(1)))
    }

    /// Takes up to `want` starts at `now`. `tat` is the stored number (any value at first).
    pub fn take(&self, tat: Timestamp, now: Timestamp, want: u32) -> Grant {
        let interval = self.interval();
        let window = self.window();
        let now = now.as_micros();
        // A clock that was stepped back must not block the queue: the debt is never more than a full bucket.
        let tat = tat.as_micros().clamp(now, now.saturating_add(window));
        let free = (now.saturating_add(window) - tat) / interval;
        let granted = u32::try_from(free).unwrap_or(u32::MAX).min(want);
        let tat = tat.saturating_add(interval.saturating_mul(i64::from(granted)));
        Grant {
            granted,
            tat: Timestamp::from_micros(tat),
            next: Timestamp::from_micros(tat.saturating_sub(window - interval).max(now)),
        }
    }
}

/// What [`RateLimit::take`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many may start now.
    pub granted: u32,
    /// The number to store.
    pub tat: Timestamp,
    /// When the next one may start.
    pub next: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn spreads_evenly_with_a_burst_of_one() {
        let limit = RateLimit::per_second(10);
        let first = limit.take(at(0), at(100 * SECOND), 5);
        assert_eq!(first.granted, 1);
        assert_eq!(first.next, at(100 * SECOND + SECOND / 10));
        assert_eq!(limit.take(first.tat, at(100 * SECOND + SECOND / 10 - 1), 5).granted, 0);
        assert_eq!(limit.take(first.tat, first.next, 5).granted, 1);
    }

    #[test]
    fn a_burst_is_spent_and_refills() {
        let limit = RateLimit { count: 10, period: Duration::from_secs(1), burst: 4 };
        let grant = limit.take(at(0), at(SECOND), 9);
        assert_eq!(grant.granted, 4);
        assert_eq!(limit.take(grant.tat, at(SECOND), 1).granted, 0);
        assert_eq!(limit.take(grant.tat, at(SECOND + SECOND / 5), 9).granted, 2);
    }

    #[test]
    fn a_clock_stepped_back_costs_at_most_one_full_bucket() {
        let limit = RateLimit::per_second(1);
        let grant = limit.take(at(0), at(1_000 * SECOND), 1);
        let back = limit.take(grant.tat, at(10 * SECOND), 1);
        assert_eq!(back.granted, 0);
        assert_eq!(back.next, at(11 * SECOND));
        assert_eq!(limit.take(back.tat, at(11 * SECOND), 1).granted, 1);
    }

    #[test]
    fn never_more_than_count_plus_burst_in_any_window() {
        let limit = RateLimit { count: 7, period: Duration::from_secs(1), burst: 3 };
        let (mut tat, mut starts) = (at(0), Vec::new());
        for step in 0..4_000 {
            let now = at(step * 1_003);
            let grant = limit.take(tat, now, 2);
            tat = grant.tat;
            starts.extend(std::iter::repeat_n(now.as_micros(), grant.granted as usize));
        }
        for (i, start) in starts.iter().enumerate() {
            let within = starts[i..].iter().take_while(|other| **other < start + SECOND).count();
            assert!(within <= 10, "{within} starts in one second");
        }
        assert!(starts.len() >= 28, "{} starts in 4 s", starts.len());
    }
}
