//! The small numbers that stand for pairs of queue and kind. Their rows are never changed nor removed, so
//! that what was once read from a commit stays true.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::task::Name;

/// A queue and a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) queue: Name,
    pub(super) kind: Name,
}

/// What is known already.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_number: HashMap<i32, Lane>,
    by_name: HashMap<Lane, i32>,
}

impl Lanes {
    /// The lane of a number, if it is known.
    pub(super) fn get(&self, number: i32) -> Option<Lane> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_number.get(&number).cloned()
    }

    /// The number of a lane, if it is known.
    pub(super) fn number(&self, lane: &Lane) -> Option<i32> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_name.get(lane).copied()
    }

    /// Keeps what was read. Only what is committed: what is rolled back may get another number later.
    pub(super) fn keep(&self, lanes: impl IntoIterator<Item = (i32, Lane)>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (number, lane) in lanes {
            known.by_name.insert(lane.clone(), number);
            known.by_number.insert(number, lane);
        }
    }
}
