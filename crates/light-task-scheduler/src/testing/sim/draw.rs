//! Chance from one seed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A seeded generator that may be shared.
#[derive(Debug)]
pub(super) struct Draw(Mutex<fastrand::Rng>);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Draw(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    fn with<R>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> R) -> R {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.with(|rng| rng.u64(..bound.max(1)))
    }

    /// A number from `low` to `high`.
    pub(super) fn within(&self, low: u64, high: u64) -> u64 {
        self.with(|rng| rng.u64(low..=high))
    }

    /// Whether something of this likelihood happens. What is impossible draws nothing.
    pub(super) fn chance(&self, likelihood: f64) -> bool {
        likelihood > 0.0 && self.with(fastrand::Rng::f64) < likelihood
    }

    /// A time below `longest`, in whole milliseconds.
    pub(super) fn time(&self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(longest.as_millis() as u64))
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
