//! Hints that something may have changed, and the latest time handed out.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::store::Changes;

/// What the last commit that this handle knows of has left. Other processes' commits are learned by polling.
#[derive(Debug)]
pub(super) struct Hints {
    changes: watch::Sender<Changes>,
    now: Mutex<Timestamp>,
}

impl Hints {
    pub(super) fn new() -> Self {
        Hints { changes: watch::Sender::new(Changes::default()), now: Mutex::new(Timestamp::default()) }
    }

    /// Passes on what a transaction has seen. The counters only grow; an older view changes nothing.
    pub(super) fn publish(&self, seen: Changes, now: Timestamp) {
        self.changes.send_if_modified(|known| {
            let newer = seen.work > known.work || seen.wishes > known.wishes || seen.ends > known.ends;
            known.work = known.work.max(seen.work);
            known.wishes = known.wishes.max(seen.wishes);
            known.ends = known.ends.max(seen.ends);
            newer
        });
        self.advance(now);
    }

    /// The store's time: `now` unless a later one has been handed out.
    pub(super) fn advance(&self, now: Timestamp) -> Timestamp {
        let mut latest = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = now.max(*latest);
        *latest
    }

    /// The latest time handed out.
    pub(super) fn latest(&self) -> Timestamp {
        self.advance(Timestamp::from_micros(i64::MIN))
    }

    /// For waiting until the counters differ from those that were seen.
    pub(super) fn subscribe(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }
}
