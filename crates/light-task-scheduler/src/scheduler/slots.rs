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

    /// Takes many, of which each may become a [`Slot`] of its own.
    pub(super) fn take_many(self: &Arc<Self>, count: usize) -> ManySlots {
        self.used.fetch_add(count, Ordering::SeqCst);
        ManySlots { slots: self.clone(), count }
    }
}

/// Taken slots that are given back together, when dropped.
pub(super) struct ManySlots {
    slots: Arc<Slots>,
    count: usize,
}

impl ManySlots {
    /// One of them, if there is one.
    pub(super) fn split_one(&mut self) -> Option<Slot> {
        self.count = self.count.checked_sub(1)?;
        Some(Slot { slots: self.slots.clone(), exports: false })
    }

    /// So many of them, or as many as there are.
    pub(super) fn split(&mut self, count: usize) -> ManySlots {
        let count = count.min(self.count);
        self.count -= count;
        ManySlots { slots: self.slots.clone(), count }
    }
}

impl Drop for ManySlots {
    fn drop(&mut self) {
        if self.count > 0 {
            self.slots.used.fetch_sub(self.count, Ordering::SeqCst);
            self.slots.freed.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_taken_together_may_be_given_back_apart() {
        let slots = Arc::new(Slots::new(10));
        let mut many = slots.take_many(5);
        let (one, two) = (many.split_one(), many.split(2));
        assert_eq!(slots.free(), 5);
        drop(one);
        drop(two);
        assert_eq!(slots.free(), 8);
        assert!(many.split(9).split_one().is_some(), "no more than there are");
        assert_eq!((many.split_one().is_none(), slots.free()), (true, 10));
    }
}
