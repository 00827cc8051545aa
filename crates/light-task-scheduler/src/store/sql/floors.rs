//! Where the waiting tasks of a lane begin, so that a claim need not walk over those that have gone.
//!
//! A database keeps the index entries of tasks that have left their lane for as long as any transaction, of
//! anybody's, may still see them. While one is open for minutes, every claim would walk over all that was claimed
//! since it began. Once a look at a lane was dear for that reason, the next ones begin where that one ended.
//!
//! What is known here is a hint that may be late: a task of another process that goes before all that was seen, by a
//! higher priority or an older due time, is found by the next full look. There is one every [`FULL_LOOK_INTERVAL`],
//! and as soon as another process tells of work, but never so often that they take more than a small share of the
//! time. What this handle itself makes ready is known at once. Pure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Key;

/// A look at a lane that takes longer has walked over entries of tasks that have gone.
const DEAR: Duration = Duration::from_micros(500);
/// How long a lane goes without a full look, unless that is too dear.
const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Full looks at a lane take at most this share of the time: one in ten.
const SHARE: u32 = 10;

/// What is known of one lane.
#[derive(Debug, Clone, Copy)]
struct Floor {
    key: Key,
    /// When the last full look was, and how long it took.
    looked_at: Instant,
    took: Duration,
}

impl Floor {
    fn is_good(&self, foreign: Option<Instant>, now: Instant) -> bool {
        let age = now.duration_since(self.looked_at);
        let has_news = foreign.is_some_and(|heard| heard >= self.looked_at);
        age < self.took * SHARE || (age < FULL_LOOK_INTERVAL && !has_news)
    }
}

/// What a handle knows of its lanes.
#[derive(Debug, Default)]
pub(super) struct Floors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the lanes at which a look was dear.
    by_lane: HashMap<i32, Floor>,
    /// The first that became ready here, of each lane, while claims went on: they may not have seen it.
    arrived: HashMap<i32, Key>,
    /// Held by each claim that goes on.
    claims: Arc<()>,
    /// When another process last told of work.
    foreign: Option<Instant>,
}

/// What one claim learns of lanes.
#[derive(Debug)]
pub(super) struct Looks {
    begun: Instant,
    used: HashMap<i32, Floor>,
    seen: HashMap<i32, Floor>,
    _claim: Arc<()>,
}

impl Looks {
    /// From where on to look, for the lanes that need not be looked at from their beginning.
    pub(super) fn floors(&self) -> Vec<(i32, Key)> {
        self.used.iter().map(|(lane, floor)| (*lane, floor.key)).collect()
    }

    /// The look at a lane has taken so long and found this first.
    pub(super) fn looked(&mut self, lane: i32, first: Option<Key>, took: Duration) {
        let full = Floor { key: Key::FIRST, looked_at: self.begun, took };
        if let Some(floor) = self.used.get(&lane).copied().or((took >= DEAR).then_some(full)) {
            self.seen.insert(lane, Floor { key: first.unwrap_or(floor.key), ..floor });
        }
    }

    /// Something became ready in a lane, in the claim itself.
    pub(super) fn begin_anew(&mut self, lane: i32) {
        self.used.remove(&lane);
        self.seen.remove(&lane);
    }

    /// All of a lane before here is taken.
    pub(super) fn passed(&mut self, lane: i32, key: Key) {
        if let Some(floor) = self.seen.get_mut(&lane) {
            floor.key = key;
        }
    }
}

impl Floors {
    /// Begins a claim.
    pub(super) fn looks(&self, now: Instant) -> Looks {
        let mut known = self.known();
        if Arc::strong_count(&known.claims) == 1 {
            known.arrived.clear();
        }
        let good = known.by_lane.iter().filter(|(_, floor)| floor.is_good(known.foreign, now));
        let used = good.map(|(lane, floor)| (*lane, *floor)).collect();
        Looks { begun: now, used, seen: HashMap::new(), _claim: Arc::clone(&known.claims) }
    }

    /// Keeps what a claim has learnt, now that it is committed.
    pub(super) fn keep(&self, looks: Looks) {
        let mut known = self.known();
        for (lane, floor) in looks.seen {
            let key = known.arrived.get(&lane).map_or(floor.key, |arrived| floor.key.min(*arrived));
            known.by_lane.insert(lane, Floor { key, ..floor });
        }
    }

    /// Something was made ready here, none of it before this place.
    pub(super) fn arrived(&self, lane: i32, first: Key) {
        let mut known = self.known();
        known.arrived.entry(lane).and_modify(|known| *known = first.min(*known)).or_insert(first);
        if let Some(floor) = known.by_lane.get_mut(&lane) {
            floor.key = floor.key.min(first);
        }
    }

    /// Another process tells of work.
    pub(super) fn heard(&self, now: Instant) {
        self.known().foreign = Some(now);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    const LANE: i32 = 7;
    const MILLI: Duration = Duration::from_millis(1);

    fn key(rank: i32, run_at: i64) -> Key {
        Key { rank, run_at: Timestamp::from_micros(run_at), seq: 1 }
    }

    /// A claim that looks at the lane and passes up to a place.
    fn claim(floors: &Floors, now: Instant, took: Duration, passed: Key) -> Vec<(i32, Key)> {
        let mut looks = floors.looks(now);
        let used = looks.floors();
        looks.looked(LANE, Some(key(0, 0)), took);
        looks.passed(LANE, passed);
        floors.keep(looks);
        used
    }

    #[test]
    fn a_lane_that_is_quickly_seen_has_no_floor() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        claim(&floors, now, DEAR / 2, key(0, 5));
        assert_eq!(floors.looks(now).floors(), []);
    }

    #[test]
    fn a_dear_lane_is_looked_at_from_where_the_last_claim_ended_until_the_next_full_look() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        assert_eq!(claim(&floors, now, DEAR, key(0, 5)), []);
        assert_eq!(claim(&floors, now + MILLI, DEAR / 9, key(0, 9)), [(LANE, key(0, 5))]);
        let late = now + FULL_LOOK_INTERVAL;
        assert_eq!(floors.looks(late - MILLI).floors(), [(LANE, key(0, 9))]);
        assert_eq!(floors.looks(late).floors(), [], "counted from the full look, not from the last one");
    }

    #[test]
    fn full_looks_take_a_small_share_of_the_time() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        claim(&floors, now, FULL_LOOK_INTERVAL, key(0, 5));
        floors.heard(now + MILLI);
        assert_eq!(floors.looks(now + FULL_LOOK_INTERVAL * (SHARE - 1)).floors(), [(LANE, key(0, 5))]);
        assert_eq!(floors.looks(now + FULL_LOOK_INTERVAL * SHARE).floors(), []);
    }

    #[test]
    fn foreign_work_makes_the_next_look_a_full_one() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        claim(&floors, now, DEAR, key(0, 5));
        floors.heard(now + MILLI);
        assert_eq!(floors.looks(now + DEAR * SHARE).floors(), []);
    }

    #[test]
    fn what_is_made_ready_here_lowers_the_floor_at_once() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        claim(&floors, now, DEAR, key(0, 5));
        floors.arrived(LANE, key(0, 6));
        assert_eq!(floors.looks(now).floors(), [(LANE, key(0, 5))], "behind it: nothing is hidden");
        floors.arrived(LANE, key(-1, 6));
        assert_eq!(floors.looks(now).floors(), [(LANE, key(-1, 6))]);
    }

    #[test]
    fn what_is_made_ready_while_a_claim_goes_on_is_not_hidden_by_it() {
        let (floors, now) = (Floors::default(), crate::clock::monotonic());
        let mut looks = floors.looks(now);
        looks.looked(LANE, Some(key(0, 5)), DEAR);
        floors.arrived(LANE, key(0, 3));
        floors.keep(looks);
        assert_eq!(floors.looks(now).floors(), [(LANE, key(0, 3))]);
    }
}
