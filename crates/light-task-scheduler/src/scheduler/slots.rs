//! How many tasks run here, and how many may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The slots of this replica.
pub(super) struct Slots {
    max: usize,
    used: AtomicUsize,
    exporting: AtomicUsize,
    /// Rung when one is given back.
    pub(super) freed: Notify,
}

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        Slots { max, used: AtomicUsize::new(0), exporting: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(super) fn free(&self) -> usize {
        // Adopted tasks take slots that are not there: they run already.
        self.max.saturating_sub(self.used.load(Ordering::SeqCst))
    }

    pub(super) fn exporting(&self) -> usize {
        self.exporting.load(Ordering::SeqCst)
    }

    pub(super) fn take(self: &Arc<Self>) -> Slot {
        self.used.fetch_add(1, Ordering::SeqCst);
        Slot { slots: self.clone(), exports: false }
    }
}

/// A taken slot; given back when dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    exports: bool,
}

impl Slot {
    /// The run has ended and its result is being saved: that needs no slot, but is counted.
    pub(super) fn exports(&mut self) {
        if !self.exports {
            self.exports = true;
            self.slots.exporting.fetch_add(1, Ordering::SeqCst);
            self.slots.used.fetch_sub(1, Ordering::SeqCst);
            self.slots.freed.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let count = if self.exports { &self.slots.exporting } else { &self.slots.used };
        count.fetch_sub(1, Ordering::SeqCst);
        self.slots.freed.notify_one();
    }
}
