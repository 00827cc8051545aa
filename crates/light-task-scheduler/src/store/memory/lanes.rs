//! Queues, kinds and lanes: which waiting task is next.
//!
//! A *lane* is one (queue, kind) pair with the tasks that wait in it. A claim merges the lanes it asked for.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap};

use hashbrown::HashMap;

use super::order::{Order, Place};
use super::rows::Slot;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::store::QueueSettings;
use crate::task::{Name, State};

/// Most queues, kinds, and (queue, kind) pairs. They are remembered for the life of the store.
pub(super) const LANES_MAX: usize = 100_000;

/// A task whose time has not come, or had not when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    run_at: Timestamp,
    seq: u64,
    slot: Slot,
    priority: Reverse<i32>,
}

impl From<Place> for Delayed {
    fn from(Place { priority, run_at, seq, slot }: Place) -> Self {
        Delayed { run_at, seq, slot, priority }
    }
}

impl From<Delayed> for Place {
    fn from(Delayed { run_at, seq, slot, priority }: Delayed) -> Self {
        Place { priority, run_at, seq, slot }
    }
}

#[derive(Debug)]
struct Lane {
    queue: u32,
    kind: u32,
    ready: Order,
    // Kept apart so that a million delayed tasks cost a claim nothing.
    delayed: BTreeSet<Delayed>,
}

impl Lane {
    /// Makes ready what has become due.
    fn promote(&mut self, now: Timestamp) {
        while self.delayed.first().is_some_and(|first| first.run_at <= now) {
            self.delayed.pop_first().into_iter().for_each(|first| self.ready.insert(first.into()));
        }
    }
}

#[derive(Debug)]
struct Kind {
    name: Name,
    lanes: Vec<u32>,
}

/// A queue: its settings, and how many tasks it has in each state.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Name,
    pub(super) settings: QueueSettings,
    pub(super) by_state: [u64; State::ALL.len()],
    tat: Timestamp,
    lanes: Vec<u32>,
}

impl Queue {
    /// Whether neither pause nor limit keeps a task from starting.
    fn is_open(&self) -> bool {
        let running = self.by_state[State::Running as usize];
        let running = running.saturating_sub(u64::from(bug!(LimitOffByOne)));
        !self.settings.paused && self.settings.concurrency.is_none_or(|limit| running < u64::from(limit))
    }

    /// Takes the permit for one start, if there is one.
    fn admit(&mut self, now: Timestamp) -> bool {
        if !self.is_open() {
            return false;
        }
        let Some(rate) = &self.settings.rate else { return true };
        let grant = rate.take(self.tat, now, 1);
        self.tat = grant.tat;
        grant.granted == 1
    }

    /// When a task that is due at `run_at` may start; `None`: when something else changes.
    fn opens_at(&self, run_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if !self.is_open() {
            return None;
        }
        // Only asked, not stored: no permit is taken.
        let grant = self.settings.rate.as_ref().map(|rate| rate.take(self.tat, now, 1));
        Some(grant.filter(|grant| grant.granted == 0).map_or(run_at, |grant| grant.next))
    }
}

/// All queues, kinds and lanes, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) queues: Vec<Queue>,
    kinds: Vec<Kind>,
    lanes: Vec<Lane>,
    queue_numbers: HashMap<Name, u32>,
    kind_numbers: HashMap<Name, u32>,
    lane_numbers: HashMap<(u32, u32), u32>,
}

/// The first task of each lane that a claim asked for.
pub(super) type Heads = BinaryHeap<Reverse<(Place, u32)>>;

impl Lanes {
    /// The number of a queue, made if it is new. Refused as full past [`LANES_MAX`].
    pub(super) fn queue(&mut self, name: &Name) -> Result<u32> {
        if let Some(number) = self.queue_numbers.get(name) {
            return Ok(*number);
        }
        let number = next_number("queues", self.queues.len())?;
        let (settings, by_state) = (QueueSettings::default(), Default::default());
        let tat = Timestamp::default();
        self.queues.push(Queue { name: name.clone(), settings, by_state, tat, lanes: Vec::new() });
        self.queue_numbers.insert(name.clone(), number);
        Ok(number)
    }

    fn kind(&mut self, name: &Name) -> Result<u32> {
        if let Some(number) = self.kind_numbers.get(name) {
            return Ok(*number);
        }
        let number = next_number("kinds", self.kinds.len())?;
        self.kinds.push(Kind { name: name.clone(), lanes: Vec::new() });
        self.kind_numbers.insert(name.clone(), number);
        Ok(number)
    }

    /// The number of a lane, made if it is new. Refused as full past [`LANES_MAX`].
    pub(super) fn lane(&mut self, queue: &Name, kind: &Name) -> Result<u32> {
        let (queue, kind) = (self.queue(queue)?, self.kind(kind)?);
        if let Some(number) = self.lane_numbers.get(&(queue, kind)) {
            return Ok(*number);
        }
        let number = next_number("pairs of queue and kind", self.lanes.len())?;
        self.lanes.push(Lane { queue, kind, ready: Order::default(), delayed: BTreeSet::new() });
        self.lane_numbers.insert((queue, kind), number);
        self.queues[queue as usize].lanes.push(number);
        self.kinds[kind as usize].lanes.push(number);
        Ok(number)
    }

    pub(super) fn queue_of(&self, lane: u32) -> &Queue {
        &self.queues[self.lanes[lane as usize].queue as usize]
    }

    pub(super) fn kind_of(&self, lane: u32) -> &Name {
        &self.kinds[self.lanes[lane as usize].kind as usize].name
    }

    /// Counts a task that came (`None` before), moved, or is gone (`None` after). Answers whether
    /// the move has let waiting tasks of a full queue start.
    pub(super) fn count(&mut self, lane: u32, before: Option<State>, after: Option<State>) -> bool {
        let queue = &mut self.queues[self.lanes[lane as usize].queue as usize];
        let was_open = queue.is_open();
        if let Some(state) = before {
            queue.by_state[state as usize] -= 1;
        }
        if let Some(state) = after {
            queue.by_state[state as usize] += 1;
        }
        !was_open && queue.is_open() && queue.by_state[State::Waiting as usize] > 0
    }

    /// Puts a waiting task in its order. Answers whether a claimer should hear of it.
    pub(super) fn place(&mut self, lane: u32, place: Place, now: Timestamp) -> bool {
        let lane = &mut self.lanes[lane as usize];
        if place.run_at <= now {
            lane.ready.insert(place);
            return self.queues[lane.queue as usize].is_open();
        }
        // The claimers sleep until the first one's time.
        let is_first = lane.delayed.first().is_none_or(|first| place.run_at < first.run_at);
        lane.delayed.insert(place.into());
        is_first
    }

    /// Takes a task that no longer waits out of the order.
    pub(super) fn unplace(&mut self, lane: u32, place: Place) {
        let lane = &mut self.lanes[lane as usize];
        if !lane.ready.remove(place) {
            lane.delayed.remove(&place.into());
        }
    }

    /// The lanes of these kinds and queues (none: all), without those of paused queues.
    pub(super) fn asked(&self, kinds: &[Name], queues: &[Name]) -> Vec<u32> {
        let mut kinds: Vec<u32> = kinds.iter().filter_map(|kind| self.kind_numbers.get(kind).copied()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let lanes = kinds.iter().flat_map(|kind| &self.kinds[*kind as usize].lanes).copied();
        let is_asked = |queue: &Queue| !queue.settings.paused && (queues.is_empty() || queues.contains(&queue.name));
        lanes.filter(|lane| is_asked(self.queue_of(*lane))).collect()
    }

    /// Promotes what has become due in these lanes and answers their first tasks.
    pub(super) fn heads(&mut self, lanes: &[u32], now: Timestamp) -> Heads {
        let mut heads = Vec::with_capacity(lanes.len());
        for number in lanes {
            let lane = &mut self.lanes[*number as usize];
            lane.promote(now);
            heads.extend(lane.ready.first().map(|first| Reverse((first, *number))));
        }
        heads.into()
    }

    /// Takes the next task that may start out of the order, with its permit.
    pub(super) fn pick(&mut self, heads: &mut Heads, now: Timestamp) -> Option<Slot> {
        loop {
            let mut head = heads.peek_mut()?;
            let Reverse((place, number)) = *head;
            let lane = &mut self.lanes[number as usize];
            if !self.queues[lane.queue as usize].admit(now) {
                PeekMut::pop(head);
                continue;
            }
            lane.ready.pop_first();
            match lane.ready.first() {
                Some(next) => *head = Reverse((next, number)),
                None => _ = PeekMut::pop(head),
            }
            return Some(place.slot);
        }
    }

    /// Takes this task out of the order, with its permit, if it is ready and may start.
    pub(super) fn pick_one(&mut self, number: u32, place: Place, now: Timestamp) -> bool {
        let lane = &mut self.lanes[number as usize];
        lane.ready.contains(place) && self.queues[lane.queue as usize].admit(now) && lane.ready.remove(place)
    }

    /// The first `most` ready tasks of a lane; heads makes ready what is due.
    pub(super) fn first(&self, number: u32, most: usize) -> impl Iterator<Item = Slot> {
        self.lanes[number as usize].ready.iter().take(most).map(|place| place.slot)
    }

    /// When there will be something to claim in these lanes, as far as time alone decides it.
    pub(super) fn next_at(&self, lanes: &[u32], now: Timestamp) -> Option<Timestamp> {
        let next = |number: &u32| {
            let lane = &self.lanes[*number as usize];
            let ready = lane.ready.first().and_then(|first| self.queue_of(*number).opens_at(first.run_at, now));
            let delayed = lane.delayed.first().map(|first| first.run_at);
            ready.into_iter().chain(delayed).min()
        };
        lanes.iter().filter_map(next).min()
    }

    /// How many of a queue's waiting tasks are not due.
    pub(super) fn delayed(&mut self, queue: usize, now: Timestamp) -> u64 {
        let mut delayed = 0;
        for number in &self.queues[queue].lanes {
            let lane = &mut self.lanes[*number as usize];
            lane.promote(now);
            delayed += lane.delayed.len() as u64;
        }
        delayed
    }

    /// How many tasks wait, by the orders themselves.
    #[cfg(test)]
    pub(super) fn placed(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ready.len() + lane.delayed.len()).sum()
    }
}

fn next_number(what: &str, len: usize) -> Result<u32> {
    if len >= LANES_MAX {
        let message = format!("the store knows {len} {what}, its limit; use fewer names");
        return Err(Error::new(ErrorKind::Full, message));
    }
    Ok(len as u32)
}
