//! Hints that something may have changed: what a handle knows of them, and what it has yet to tell others.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::Changes;

/// What is to be hinted at after the commit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) work: bool,
    pub(super) wishes: bool,
    pub(super) ends: bool,
}

impl Hint {
    pub(super) const ALL: Hint = Hint { work: true, wishes: true, ends: true };
}

/// The counters behind the hints in the store: of work, wishes and ends, and a fourth that tells of work too.
pub(super) type Counters = [i64; 4];

/// A look is late by this part of the time between two, so that a claim that polls does it instead: it
/// looks at the counters too.
const PATIENCE: u32 = 5;

/// What a handle knows of.
#[derive(Debug, Default)]
pub(super) struct Hints {
    changes: watch::Sender<Changes>,
    /// The counters at the last look, and when that was.
    seen: Mutex<Option<(Counters, Instant)>>,
    /// Not told yet.
    untold: Mutex<Hint>,
    to_tell: Notify,
    listening: AtomicBool,
}

impl Hints {
    /// Something was committed here.
    pub(super) fn raise(&self, hint: Hint) {
        if hint == Hint::default() {
            return;
        }
        self.publish(hint);
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.work |= hint.work;
        untold.wishes |= hint.wishes;
        untold.ends |= hint.ends;
        drop(untold);
        self.to_tell.notify_one();
    }

    /// Something was committed somewhere.
    pub(super) fn publish(&self, hint: Hint) {
        self.changes.send_if_modified(|known| {
            known.work += u64::from(hint.work);
            known.wishes += u64::from(hint.wishes);
            known.ends += u64::from(hint.ends);
            hint != Hint::default()
        });
    }

    /// Somebody has looked at the counters. Answers what has happened since the look before; before the first one
    /// anything may have.
    pub(super) fn looked(&self, counters: Counters, now: Instant) -> Hint {
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace((counters, now));
        before.map_or(Hint::ALL, |(before, _)| Hint {
            work: counters[0] != before[0] || counters[3] != before[3],
            wishes: counters[1] != before[1],
            ends: counters[2] != before[2],
        })
    }

    /// When to look next, if the last try was then and a handle is to look so often.
    pub(super) fn next_look(&self, last_try: Instant, interval: Duration) -> Instant {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map_or(last_try, |(_, at)| at.max(last_try)) + interval + interval / PATIENCE
    }

    /// How often work was heard of.
    pub(super) fn work(&self) -> u64 {
        self.changes.borrow().work
    }

    /// Takes what other processes are to be told, as soon as there is something.
    pub(super) async fn untold(&self) -> Hint {
        loop {
            let hint = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
            if hint != Hint::default() {
                return hint;
            }
            self.to_tell.notified().await;
        }
    }

    /// For waiting until the counters differ from those that were seen.
    pub(super) fn subscribe(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Whether somebody waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.changes.receiver_count() > 0
    }

    /// Whether nobody listens for this handle yet; from now on somebody does.
    pub(super) fn begins_to_listen(&self) -> bool {
        !self.listening.swap(true, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_tells_what_has_changed_since_the_one_before() {
        let (hints, now) = (Hints::default(), crate::clock::monotonic());
        assert_eq!(hints.looked([1, 1, 1, 0], now), Hint::ALL);
        assert_eq!(hints.looked([1, 1, 1, 0], now), Hint::default());
        assert_eq!(hints.looked([1, 2, 1, 0], now), Hint { wishes: true, ..Hint::default() });
        assert_eq!(hints.looked([1, 2, 2, 9], now), Hint { work: true, ends: true, ..Hint::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_in_between_puts_off_the_next_look() {
        const INTERVAL: Duration = Duration::from_millis(500);
        let (hints, start) = (Hints::default(), crate::clock::monotonic());
        let first = hints.next_look(start, INTERVAL);
        assert!(first > start + INTERVAL && first < start + 2 * INTERVAL);
        hints.looked([0; 4], start + INTERVAL);
        assert_eq!(hints.next_look(start, INTERVAL), first + INTERVAL);
        assert_eq!(hints.next_look(start + 2 * INTERVAL, INTERVAL), first + 2 * INTERVAL, "a try that failed");
    }
}
