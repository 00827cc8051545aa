//! What a queue lets through: its limit of running tasks, its rate and its pause. Pure.

use crate::clock::Timestamp;
use crate::rate::RateLimit;
use crate::store::QueueSettings;

/// One queue during one claim.
#[derive(Debug)]
pub(super) struct Gate {
    settings: QueueSettings,
    tat: Timestamp,
    /// Free slots.
    slots: usize,
    /// Free permits.
    permits: usize,
    taken: usize,
}

impl Gate {
    /// A queue of which `running` tasks run, whose rate limit stands at `tat`, for a claim of up to `limit` tasks.
    pub(super) fn new(settings: QueueSettings, tat: Timestamp, running: u64, limit: usize, now: Timestamp) -> Self {
        let slots = match settings.concurrency {
            Some(most) => usize::try_from(u64::from(most).saturating_sub(running)).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let permits = settings.rate.map_or(usize::MAX, |rate| {
            let want = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
            rate.take(tat, now, want).granted as usize
        });
        Gate { settings, tat, slots, permits, taken: 0 }
    }

    /// How many more it lets through.
    pub(super) fn room(&self) -> usize {
        self.slots.min(self.permits)
    }

    /// One passes, if there is room.
    pub(super) fn pass(&mut self) -> bool {
        let open = self.room() > 0;
        if open {
            self.slots -= 1;
            self.permits -= 1;
            self.taken += 1;
        }
        open
    }

    /// When something that waits at this gate since `due` may pass, if time alone opens it.
    pub(super) fn opens_at(&self, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self.settings.rate {
            _ if self.slots == 0 => None,
            Some(rate) if self.permits == 0 => Some(rate.take(self.tat_after(rate, now), now, 0).next),
            _ => Some(due),
        }
    }

    /// What to store of the rate limit after this claim, if it has changed.
    pub(super) fn new_tat(&self, now: Timestamp) -> Option<Timestamp> {
        self.settings.rate.filter(|_| self.taken > 0).map(|rate| self.tat_after(rate, now))
    }

    fn tat_after(&self, rate: RateLimit, now: Timestamp) -> Timestamp {
        rate.take(self.tat, now, u32::try_from(self.taken).unwrap_or(u32::MAX)).tat
    }
}
