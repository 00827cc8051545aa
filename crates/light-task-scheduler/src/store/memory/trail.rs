//! Two small memories: the order in which things happened, and who is no more.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::rows::Slot;
use crate::clock::Timestamp;
use crate::store::TOMBSTONE_TTL;
use crate::task::TaskId;

/// Slots by a key that only grows. Appending costs nothing; what is no longer true is skipped by
/// the reader and cleared away once it is more than half.
#[derive(Debug)]
pub(super) struct Trail<K> {
    entries: VecDeque<(K, Slot)>,
    stale: usize,
}

/// Below this many stale entries clearing is not worth it.
const STALE_MIN: usize = 1_024;

impl<K: Copy + Ord> Trail<K> {
    pub(super) fn new() -> Self {
        Trail { entries: VecDeque::new(), stale: 0 }
    }

    pub(super) fn push(&mut self, key: K, slot: Slot) {
        self.entries.push_back((key, slot));
    }

    /// Tells it that one of its entries is no longer true.
    pub(super) fn forget(&mut self, is_live: impl Fn(K, Slot) -> bool) {
        self.stale += 1;
        if self.stale >= STALE_MIN && self.stale * 2 > self.entries.len() {
            self.entries.retain(|(key, slot)| is_live(*key, *slot));
            self.stale = 0;
        }
    }

    /// Clears away what is stale at the old end.
    pub(super) fn trim(&mut self, is_live: impl Fn(K, Slot) -> bool) {
        while self.entries.front().is_some_and(|(key, slot)| !is_live(*key, *slot)) {
            self.entries.pop_front();
            self.stale = self.stale.saturating_sub(1);
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, Slot)> {
        self.entries.iter().copied()
    }

    /// Newest first, only those with a smaller key.
    pub(super) fn below(&self, key: K) -> impl Iterator<Item = (K, Slot)> {
        let end = self.entries.partition_point(|(other, _)| *other < key);
        self.entries.range(..end).rev().copied()
    }
}

/// Most ids of removed tasks kept, some 100 MB of them. Past it the oldest are forgotten before their time.
pub(super) const TOMBSTONES_MAX: usize = 1_000_000;

/// The ids of removed tasks, for [`TOMBSTONE_TTL`].
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    fingerprints: HashMap<TaskId, [u8; 16]>,
    by_age: VecDeque<(Timestamp, TaskId)>,
}

impl Tombstones {
    pub(super) fn get(&self, id: &TaskId) -> Option<&[u8; 16]> {
        self.fingerprints.get(id)
    }

    pub(super) fn add(&mut self, id: TaskId, fingerprint: [u8; 16], now: Timestamp) {
        self.expire(now);
        if self.by_age.len() >= TOMBSTONES_MAX {
            self.forget_oldest();
        }
        self.by_age.push_back((now, id.clone()));
        self.fingerprints.insert(id, fingerprint);
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        while self.by_age.front().is_some_and(|(since, _)| now.since(*since) >= TOMBSTONE_TTL) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_front() {
            self.fingerprints.remove(&id);
        }
    }
}
