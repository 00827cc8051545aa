//! Which endpoints are called just now: one that has no room or cannot be reached is left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;

/// The first and the longest time that an endpoint is left alone, where it does not say for how long.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest time that is believed if the endpoint says one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The health of endpoints, by what is before the path of their URLs.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Mutex<HashMap<String, Health>>);

#[derive(Debug, Clone, Copy)]
struct Health {
    failures: u32,
    until: Instant,
}

impl Endpoints {
    /// For how long an endpoint is still left alone; `None`: it may be called.
    pub(super) fn closed_for(&self, origin: &str) -> Option<Duration> {
        let until = self.lock(|all| all.get(origin).map(|health| health.until))?;
        let left = until.saturating_duration_since(monotonic());
        (!left.is_zero()).then_some(left)
    }

    /// It has answered, and had room.
    pub(super) fn well(&self, origin: &str) {
        self.lock(|all| all.remove(origin));
    }

    /// It cannot be reached, or has no room: for how long to leave it alone.
    pub(super) fn unwell(&self, origin: &str, asked: Option<Duration>) -> Duration {
        self.lock(|all| {
            let now = monotonic();
            let before = all.get(origin).copied();
            // Calls that were under way together fail together: that is one failure, not many.
            let failures = match before {
                Some(health) if health.until > now => health.failures.saturating_sub(1),
                Some(health) => health.failures,
                None => 0,
            };
            let grown = BACKOFF_FIRST.saturating_mul(1_u32 << failures.min(16)).min(BACKOFF_MAX);
            let pause = asked.map_or(grown, |asked| asked.clamp(BACKOFF_FIRST, RETRY_AFTER_MAX));
            let until = before.map_or(now + pause, |health| health.until.max(now + pause));
            all.insert(origin.to_owned(), Health { failures: failures.saturating_add(1), until });
            pause
        })
    }

    fn lock<R>(&self, use_it: impl FnOnce(&mut HashMap<String, Health>) -> R) -> R {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_left_alone_for_longer_and_longer_until_it_is_well() {
        let endpoints = Endpoints::default();
        assert_eq!(endpoints.closed_for("a"), None);
        for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000].map(Duration::from_millis) {
            assert_eq!(endpoints.unwell("a", None), pause);
            assert_eq!(endpoints.unwell("a", None), pause, "what was under way together fails together");
            assert!(endpoints.closed_for("a").is_some() && endpoints.closed_for("b").is_none());
            tokio::time::advance(pause).await;
            assert_eq!(endpoints.closed_for("a"), None);
        }
        assert_eq!(endpoints.unwell("a", Some(Duration::from_secs(7))), Duration::from_secs(7));
        endpoints.well("a");
        assert_eq!(endpoints.closed_for("a"), None);
        assert_eq!(endpoints.unwell("a", Some(Duration::MAX)), RETRY_AFTER_MAX);
    }
}
