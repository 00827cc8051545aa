//! The order of the ready tasks of a lane.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use super::rows::Slot;
use crate::clock::Timestamp;

/// A task that may run now. The order is the order of claims; a store without priorities has 0 everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Reverse<i32>,
    pub(super) run_at: Timestamp,
    pub(super) seq: u64,
    pub(super) slot: Slot,
}

/// The slot of a place that was taken out of the middle of a row; no task has it.
const GONE: Slot = Slot::MAX;

/// Below this many places clearing a row, or giving its memory back, is not worth it.
const ROW_MIN: usize = 1_024;

/// Ready tasks in the order of claims.
///
/// Most tasks come in that order: they stand in a row, where coming and going costs next to nothing. One that
/// comes before the last of the row, as its priority is higher, has its place in a tree.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Sorted; the first and the last are not gone.
    row: VecDeque<Place>,
    /// How many in the row are gone.
    gone: usize,
    tree: BTreeSet<Place>,
}

impl Order {
    pub(super) fn insert(&mut self, place: Place) {
        if self.row.back().is_some_and(|last| *last > place) {
            self.tree.insert(place);
        } else {
            self.row.push_back(place);
        }
    }

    pub(super) fn first(&self) -> Option<Place> {
        self.row.front().into_iter().chain(self.tree.first()).min().copied()
    }

    pub(super) fn pop_first(&mut self) {
        if self.first() == self.tree.first().copied() {
            self.tree.pop_first();
        } else {
            self.row.pop_front();
            self.tidy();
        }
    }

    pub(super) fn contains(&self, place: Place) -> bool {
        self.row.binary_search(&place).is_ok() || self.tree.contains(&place)
    }

    /// Answers whether it was there.
    pub(super) fn remove(&mut self, place: Place) -> bool {
        let Ok(index) = self.row.binary_search(&place) else { return self.tree.remove(&place) };
        self.row[index].slot = GONE;
        self.gone += 1;
        if self.gone >= ROW_MIN && self.gone * 2 > self.row.len() {
            self.row.retain(|place| place.slot != GONE);
            self.gone = 0;
        }
        self.tidy();
        true
    }

    /// Clears both ends of the row, and gives the memory of an empty one back.
    fn tidy(&mut self) {
        while self.row.front().is_some_and(|place| place.slot == GONE) {
            self.row.pop_front();
            self.gone -= 1;
        }
        while self.row.back().is_some_and(|place| place.slot == GONE) {
            self.row.pop_back();
            self.gone -= 1;
        }
        if self.row.is_empty() && self.row.capacity() > ROW_MIN {
            self.row = VecDeque::new();
        }
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        let mut row = self.row.iter().filter(|place| place.slot != GONE).copied().peekable();
        let mut tree = self.tree.iter().copied().peekable();
        std::iter::from_fn(move || match (row.peek(), tree.peek()) {
            (Some(first), Some(other)) if other < first => tree.next(),
            (Some(_), _) => row.next(),
            (None, _) => tree.next(),
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.row.len() - self.gone + self.tree.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain tree, with few enough places that all cases meet.
    #[test]
    fn it_is_a_sorted_set() {
        let random = fastrand::Rng::with_seed(1);
        let mut random = random;
        let (mut order, mut model) = (Order::default(), BTreeSet::new());
        for seq in 0..200_000 {
            let place = Place {
                priority: Reverse(i32::from(random.u8(..100) == 0)),
                run_at: Timestamp::from_micros(seq as i64 + random.i64(..3)),
                seq,
                slot: seq as Slot,
            };
            match random.u8(..100) {
                // Growing for a while, then shrinking.
                0..60 if seq % 50_000 < 30_000 => {
                    order.insert(place);
                    model.insert(place);
                }
                0..70 => {
                    order.pop_first();
                    model.pop_first();
                }
                _ => {
                    let some = model.range(place..).next().or_else(|| model.iter().nth(random.usize(..50))).copied();
                    let one = some.unwrap_or(place);
                    assert_eq!(order.contains(one), model.contains(&one));
                    assert_eq!(order.remove(one), model.remove(&one));
                    assert!(!order.contains(one) && !order.remove(one));
                }
            }
            assert_eq!(order.first(), model.first().copied());
            assert_eq!(order.len(), model.len());
            if seq % 1_000 == 0 {
                assert!(order.iter().eq(model.iter().copied()));
            }
        }
    }
}
