//! Time and chance: the two things a program cannot compute.
//!
//! The core never asks the operating system for the time or for a random number; it asks a [`Clock`].
//! Tests and the simulator hand in a clock they control, so that a run can be repeated exactly.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A point in time: whole microseconds since 1970-01-01 UTC.
///
/// It is the only kind of time that is stored. [`fmt::Display`] and serde use RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest time that prints as RFC 3339 (the end of the year 9999).
    pub const MAX: Timestamp = Timestamp(253_402_207_200_000_000);

    /// From microseconds since 1970-01-01 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Timestamp(micros)
    }

    /// Microseconds since 1970-01-01 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

/// Whole microseconds of a duration, capped at what an `i64` holds (some 292,000 years).
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at [`Timestamp::MAX`].
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(micros(duration)).min(Timestamp::MAX.0.max(self.0)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(micros(duration)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = crate::Error;

    /// Reads RFC 3339, for example `2026-11-22T17:00:00Z`, and what else is printed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(micros) = text.strip_suffix("us").and_then(|number| number.parse().ok()) {
            return Ok(Timestamp(micros));
        }
        text.parse::<jiff::Timestamp>()
            .map(|time| Timestamp(time.as_microsecond()))
            .map_err(|e| crate::Error::invalid(format!("`{text}` is not a time such as 2026-11-22T17:00:00Z: {e}")))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where time and chance come from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock. It may step; only stores compare it, and they never let it go back.
    fn now(&self) -> Timestamp;

    /// Sixty-four random bits: jitter and ids, never secrets.
    fn random(&self) -> u64;
}

/// The real clock, and the real generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(micros(since)),
            Err(before) => Timestamp(-micros(before.duration())),
        }
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}

/// A fresh UUIDv7: ordered by the clock's time, unique by 74 random bits.
pub(crate) fn new_uuid(clock: &dyn Clock) -> Uuid {
    let millis = u64::try_from(clock.now().as_micros().max(0) / 1_000).unwrap_or(0);
    let mut random = [0; 10];
    random[..8].copy_from_slice(&clock.random().to_le_bytes());
    random[8..].copy_from_slice(&clock.random().to_le_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// A number in `0.0..1.0` from 53 random bits.
pub(crate) fn unit_random(clock: &dyn Clock) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (clock.random() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

/// Now on the monotonic clock. Tokio's, so that a paused test runtime owns it too.
pub(crate) fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_rfc_3339() {
        let time = Timestamp::from_micros(1_700_000_000_123_456);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456Z");
        for time in [time, Timestamp::MAX, Timestamp::from_micros(i64::MAX), Timestamp::from_micros(i64::MIN)] {
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn adding_saturates_at_the_last_printable_time() {
        assert_eq!(Timestamp::from_micros(5) + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }

    #[test]
    fn ids_are_ordered_by_time_and_random() {
        let first = new_uuid(&SystemClock);
        let second = new_uuid(&SystemClock);
        assert_eq!(first.get_version_num(), 7);
        assert_ne!(first, second);
    }

    #[test]
    fn unit_random_stays_below_one() {
        #[derive(Debug)]
        struct Highest;
        impl Clock for Highest {
            fn now(&self) -> Timestamp {
                Timestamp::default()
            }
            fn random(&self) -> u64 {
                u64::MAX
            }
        }
        assert!(unit_random(&Highest) < 1.0);
    }
}
