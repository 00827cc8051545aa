//! A clock that moves only when it is told to.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::clock::{Clock, Timestamp, micros, monotonic};

/// Wall time follows tokio's clock, so that one `tokio::time::advance` in a paused runtime moves timers
/// *and* leases; [`step`](TestClock::step) moves the wall clock alone. Randomness comes from a seed.
#[derive(Debug)]
pub struct TestClock {
    /// `None`: it stands still.
    started: Option<tokio::time::Instant>,
    offset: AtomicI64,
    random: AtomicU64,
}

/// Where a test clock starts: 2023-11-14T22:13:20Z.
pub const TEST_EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

impl TestClock {
    /// A clock at [`TEST_EPOCH`] with a seeded generator.
    pub fn new(seed: u64) -> Self {
        TestClock { started: Some(monotonic()), offset: AtomicI64::new(0), random: AtomicU64::new(seed) }
    }

    /// A clock at [`TEST_EPOCH`] whose wall time stands still between its steps, whatever tokio's does: for a store
    /// that is served from another runtime, where time cannot be paused.
    pub fn stopped(seed: u64) -> Self {
        TestClock { started: None, ..TestClock::new(seed) }
    }

    /// Steps the wall clock forward, timers untouched.
    pub fn step(&self, by: Duration) {
        self.offset.fetch_add(micros(by), SeqCst);
    }

    /// Steps the wall clock back, timers untouched.
    pub fn step_back(&self, by: Duration) {
        self.offset.fetch_sub(micros(by), SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.started.map_or(0, |started| micros(monotonic().duration_since(started)));
        Timestamp::from_micros(TEST_EPOCH.as_micros() + elapsed + self.offset.load(SeqCst))
    }

    fn random(&self) -> u64 {
        // SplitMix64: each output is a bijective hash of a counter, so that concurrent callers never share one.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(STEP, SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
