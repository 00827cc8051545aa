//! What a claim sees of the lanes and queues, and what follows from it. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::gate::Gate;
use crate::clock::Timestamp;
use crate::store::QueueSettings;
use crate::task::{Name, ReplicaId};

/// The place of a ready task in its lane: the smallest is claimed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The priority, its bits turned over.
    pub(super) rank: i32,
    pub(super) run_at: Timestamp,
    pub(super) seq: i64,
}

impl Key {
    /// Before every task.
    pub(super) const FIRST: Key = Key { rank: i32::MIN, run_at: Timestamp::from_micros(i64::MIN), seq: i64::MIN };
}

/// A lane from which may be claimed.
pub(super) struct OpenLane {
    pub(super) number: i32,
    pub(super) queue: Name,
    pub(super) settings: Option<QueueSettings>,
    /// Where the queue's rate limit stands.
    pub(super) tat: Timestamp,
    /// Its first ready task.
    pub(super) ready: Option<Key>,
    /// The due time of its next delayed task.
    pub(super) scheduled: Option<Timestamp>,
}

/// What waits.
#[derive(Default)]
pub(super) struct View {
    /// Of the asked kinds and queues, without the paused ones.
    pub(super) lanes: Vec<OpenLane>,
    /// The next deadline of any task that has not run.
    pub(super) deadline: Option<Timestamp>,
}

impl View {
    /// Where the ready tasks of each lane begin.
    #[cfg(feature = "postgres")]
    pub(super) fn begins(&self) -> Vec<(i32, Key)> {
        self.lanes.iter().filter_map(|lane| Some((lane.number, lane.ready?))).collect()
    }

    /// The lanes with delayed tasks that have become due.
    pub(super) fn due(&self, now: Timestamp) -> Vec<i32> {
        let due = |lane: &&OpenLane| lane.scheduled.is_some_and(|at| at <= now);
        self.lanes.iter().filter(due).map(|lane| lane.number).collect()
    }

    /// The queues with ready tasks that have a limit or a rate, in order, each once.
    pub(super) fn guarded(&self) -> Vec<&Name> {
        let has_gate = |lane: &&OpenLane| {
            let settings = lane.settings.unwrap_or_default();
            lane.ready.is_some() && (settings.concurrency.is_some() || settings.rate.is_some())
        };
        let mut queues: Vec<&Name> = self.lanes.iter().filter(has_gate).map(|lane| &lane.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// Whether a claim finds nothing to do, whatever it may take.
    pub(super) fn is_quiet(&self, now: Timestamp) -> bool {
        let is_ready = |lane: &OpenLane| lane.ready.is_some();
        let is_over = self.deadline.is_some_and(|deadline| deadline <= now);
        !is_over && !self.lanes.iter().any(is_ready) && self.due(now).is_empty()
    }

    /// When time alone will have changed what can be claimed.
    pub(super) fn next_at(&self, gates: &Gates, now: Timestamp) -> Option<Timestamp> {
        let ready = |lane: &OpenLane| gates.by_queue.get(&lane.queue)?.opens_at(lane.ready?.run_at, now);
        let lanes = self.lanes.iter().flat_map(|lane| [ready(lane), lane.scheduled]);
        lanes.chain([self.deadline]).flatten().min()
    }
}

/// The gates of the queues in a view.
pub(super) struct Gates {
    by_queue: HashMap<Name, Gate>,
}

impl Gates {
    /// Gates as the view shows them, as if nothing ran: right for those that are not [guarded](View::guarded).
    pub(super) fn new(view: &View, limit: usize, now: Timestamp) -> Self {
        let ready = view.lanes.iter().filter(|lane| lane.ready.is_some());
        let gate = |lane: &OpenLane| Gate::new(lane.settings.unwrap_or_default(), lane.tat, 0, limit, now);
        Gates { by_queue: ready.map(|lane| (lane.queue.clone(), gate(lane))).collect() }
    }

    /// A guarded queue as it is now that its row is locked.
    pub(super) fn set(&mut self, queue: Name, gate: Gate) {
        self.by_queue.insert(queue, gate);
    }

    /// The lanes of which something may be taken, and at most how many.
    pub(super) fn rooms(&self, view: &View, limit: usize) -> Vec<(i32, usize)> {
        let ready = view.lanes.iter().filter(|lane| lane.ready.is_some());
        let room = |lane: &OpenLane| (lane.number, self.by_queue.get(&lane.queue).map_or(0, Gate::room).min(limit));
        ready.map(room).filter(|(_, room)| *room > 0).collect()
    }

    /// Whether none of them holds anything back.
    #[cfg(feature = "postgres")]
    pub(super) fn are_open(&self) -> bool {
        self.by_queue.values().all(|gate| gate.room() == usize::MAX)
    }

    /// One task of a queue passes, if there is room.
    pub(super) fn pass(&mut self, queue: &Name) -> bool {
        self.by_queue.get_mut(queue).is_some_and(Gate::pass)
    }

    /// Where the rate limits stand that have counted something.
    pub(super) fn new_tats(&self, now: Timestamp) -> Vec<(&Name, Timestamp)> {
        self.by_queue.iter().filter_map(|(queue, gate)| Some((queue, gate.new_tat(now)?))).collect()
    }
}

/// The last claim of each replica that took nothing. Kept in memory only, to save a commit: a replica claims
/// through one handle, and one that has lost its memory is another replica.
#[derive(Debug, Default)]
pub(super) struct EmptyClaims(Mutex<HashMap<ReplicaId, Empty>>);

/// A claim that took nothing.
#[derive(Debug, Clone, Copy)]
struct Empty {
    number: u64,
    /// How often work had been heard of when it began.
    heard: u64,
}

impl EmptyClaims {
    /// Notes that a claim of a replica took nothing, which began after work had been heard of so often.
    pub(super) fn note(&self, replica: ReplicaId, number: u64, heard: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(replica, Empty { number, heard });
    }

    /// The number of the last claim of a replica that took nothing.
    pub(super) fn last(&self, replica: ReplicaId) -> u64 {
        self.of(replica).map_or(0, |empty| empty.number)
    }

    /// Whether the claim before this one took nothing and no work was heard of since: then it most likely takes nothing
    /// either. Claims are numbered one by one.
    pub(super) fn is_quiet(&self, replica: ReplicaId, number: u64, heard: u64) -> bool {
        self.of(replica).is_some_and(|empty| empty.number.saturating_add(1) == number && empty.heard == heard)
    }

    fn of(&self, replica: ReplicaId) -> Option<Empty> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&replica).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn only_the_claim_after_an_empty_one_is_expected_to_be_empty() {
        let (claims, replica) = (EmptyClaims::default(), ReplicaId::generate(&SystemClock));
        assert!(!claims.is_quiet(replica, 1, 0), "nothing is known");
        claims.note(replica, 1, 0);
        assert!(claims.is_quiet(replica, 2, 0));
        assert!(!claims.is_quiet(replica, 2, 1), "work was heard of");
        assert!(!claims.is_quiet(replica, 3, 0), "the second has taken something");
    }
}
