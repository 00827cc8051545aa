//! The window: candidates read ahead, and which of them a claim names. It decides only; reading and claiming is
//! done by who owns it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::{Candidate, Candidates, CandidatesRequest, Claim, ClaimRequest};
use crate::task::{Name, TaskId};

/// Fewest tasks that a claim names in each lane above those that it wants: others may have taken some meanwhile.
const SLACK_MIN: usize = 16;
/// Of a lane's share of the window at most one in so many is named above what is wanted.
const SLACK_SHARE: usize = 2;
/// How many claims the first read is to last.
const FIRST_CLAIMS: usize = 4;
/// The lanes are counted again after this many poll intervals if they were too many for a window.
const COUNT_AGAIN: u32 = 16;
/// Own insertions are numbered from here until they are read back: the store's numbers are smaller.
const OWN_FROM: u64 = 1 << 63;

/// A place in the order of claims.
type Rank = (Reverse<i32>, Timestamp, u64);

/// The candidates of one queue and kind.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<Rank, TaskId>,
    /// Behind this place are more in the store. `None`: all are here.
    end: Option<Rank>,
}

/// A task that this process has just inserted, due now.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) queue: Name,
    pub(super) kind: Name,
    pub(super) priority: i32,
    /// `None`: by the store's time of the insertion.
    pub(super) run_at: Option<Timestamp>,
}

/// What to read, and when that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) request: CandidatesRequest,
    at: Timestamp,
    /// Only to count the lanes.
    counts: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    /// Most candidates.
    size: usize,
    /// How long they are good for.
    poll: Duration,
    /// Whose claims it serves.
    kinds: Vec<Name>,
    queues: Vec<Name>,
    lanes: BTreeMap<(Name, Name), Lane>,
    len: usize,
    /// When it was read, by this process's clock. `None`: it is not to be used.
    read_at: Option<Timestamp>,
    /// How many were read then, and how many of each lane.
    read: usize,
    width: usize,
    /// How many lanes there were when they were last counted, and when that was.
    lane_count: Option<(usize, Timestamp)>,
    /// The last claim has left tasks that it could have taken: without any a window is of no use.
    backlog: bool,
    /// How many a claim names in each lane above those that it wants.
    slack: usize,
    /// Microseconds by which the store's clock is ahead of this process's.
    ahead: i64,
    /// What was inserted since the read began that is under way. `None`: there is none, or it has become worthless.
    arrivals: Option<Vec<(TaskId, Arrival)>>,
    own: u64,
}

impl Window {
    pub(super) fn new(size: usize, poll: Duration) -> Self {
        Window {
            size,
            poll,
            kinds: Vec::new(),
            queues: Vec::new(),
            lanes: BTreeMap::new(),
            len: 0,
            read_at: None,
            read: 0,
            width: 0,
            lane_count: None,
            backlog: false,
            slack: SLACK_MIN,
            ahead: 0,
            arrivals: None,
            own: OWN_FROM,
        }
    }

    /// What to read before this claim. `None`: nothing, the claim can go on.
    pub(super) fn next_read(&mut self, request: &ClaimRequest, now: Timestamp) -> Option<Read> {
        self.turn_to(request);
        if !self.backlog || request.limit == 0 || request.among.is_some() || self.serves(request, now) {
            return None;
        }
        if self.is_fresh(now) && !self.is_dry(request) {
            // All that waits is here, and it is less than the claim wants: the store looks for itself.
            return None;
        }
        let too_old = |at: Timestamp| now < at || now.since(at) > self.poll * COUNT_AGAIN;
        let count = self.lane_count.filter(|(_, at)| !too_old(*at));
        let wanted = self.wanted(request);
        let per_lane = match count {
            None => 1,
            Some((lanes, _)) => {
                let most = self.size / lanes.max(1);
                if wanted > most {
                    return None;
                }
                self.next_width(wanted, most, now)
            }
        };
        self.arrivals = Some(Vec::new());
        let (kinds, queues) = (self.kinds.clone(), self.queues.clone());
        let request = CandidatesRequest { kinds, queues, per_lane };
        Some(Read { request, at: now, counts: count.is_none() })
    }

    /// Reads more ahead when it ran dry before its time, less when most of it has grown old.
    fn next_width(&self, wanted: usize, most: usize, now: Timestamp) -> usize {
        let width = if self.width == 0 {
            wanted.saturating_mul(FIRST_CLAIMS)
        } else if self.is_fresh(now) {
            self.width * 2
        } else if self.len > self.read / 2 {
            self.width / 2
        } else {
            self.width
        };
        width.clamp(wanted, most)
    }

    /// How many candidates it holds.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.len, self.lanes.values().map(|lane| lane.waiting.len()).sum::<usize>());
        self.len
    }

    /// Takes in what was read; `None`: it could not be read.
    pub(super) fn fill(&mut self, read: &Read, candidates: Option<Candidates>) {
        let arrivals = self.arrivals.take();
        self.forget();
        let Some(candidates) = candidates else { return };
        self.ahead = candidates.now.as_micros() - read.at.as_micros();
        let per_lane = read.request.per_lane;
        for Candidate { id, queue, kind, priority, run_at, insertion } in candidates.tasks {
            let lane = self.lanes.entry((queue, kind)).or_default();
            let rank = (Reverse(priority), run_at, insertion);
            lane.waiting.insert(rank, id);
            lane.end = (lane.waiting.len() == per_lane).then_some(rank);
            self.len += 1;
        }
        self.lane_count = Some((self.lanes.len(), read.at));
        (self.read, self.width) = (self.len, if read.counts { 0 } else { per_lane });
        let Some(arrivals) = arrivals.filter(|_| !read.counts && self.len <= self.size) else {
            // Too many: the next read asks for as many as there is room for. Or something changed meanwhile.
            return self.forget();
        };
        self.read_at = Some(read.at);
        arrivals.into_iter().for_each(|(id, arrival)| self.place(id, arrival));
    }

    /// The tasks that a claim is to name, out of every lane the first ones: one whose queue is full hides no
    /// other. `None`: the store is to look for itself.
    pub(super) fn names(&self, request: &ClaimRequest, now: Timestamp) -> Option<Vec<TaskId>> {
        let wanted = self.wanted(request);
        let first = |lane: &Lane| lane.waiting.values().take(wanted).cloned().collect::<Vec<_>>();
        self.serves(request, now).then(|| self.lanes.values().flat_map(first).collect())
    }

    /// Learns from the answer to a claim. `named`: it was among the names of this window.
    pub(super) fn settle(&mut self, request: &ClaimRequest, named: bool, claim: &Claim) {
        let is_due = claim.next_at.is_some_and(|at| at <= claim.now);
        if request.limit == 0 {
            self.backlog |= is_due;
            return;
        }
        self.backlog = is_due;
        if !named {
            self.slack = (self.slack / 2).max(SLACK_MIN);
            return self.forget();
        }
        self.remove(&claim.expired.iter().cloned().collect());
        let taken: HashSet<&TaskId> = claim.tasks.iter().map(|task| &task.id).collect();
        let lanes = claim.tasks.iter().map(|task| (task.spec.queue.clone(), task.spec.kind.clone()));
        let lanes: HashSet<(Name, Name)> = lanes.collect();
        let wanted = self.wanted(request);
        let mut gone = 0;
        for key in lanes {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            // A claim takes in order. So what comes before one that it took and was not taken is over.
            let last = lane.waiting.iter().take(wanted).rfind(|(_, id)| taken.contains(id)).map(|(rank, _)| *rank);
            let Some(last) = last else { continue };
            let mut rest = lane.waiting.split_off(&last);
            rest.pop_first();
            gone += lane.waiting.len() + 1;
            lane.waiting = rest;
        }
        self.len -= gone;
        let most = (self.size / SLACK_SHARE / self.lanes.len().max(1)).max(SLACK_MIN);
        if taken.len() < request.limit && is_due {
            // Something else is due: others have taken what was named here, or brought what is not here.
            self.slack = (self.slack * 2).min(most);
            self.forget();
        } else {
            let over = gone.saturating_sub(taken.len());
            // It shrinks slowly: right after a read nobody has taken anything yet.
            self.slack = (over * 2).max(self.slack - self.slack / 8).clamp(SLACK_MIN, most);
        }
    }

    /// A task of this process has come.
    pub(super) fn arrive(&mut self, id: TaskId, arrival: Arrival) {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.push((id.clone(), arrival.clone()));
        }
        self.arrivals.take_if(|arrivals| arrivals.len() > self.size);
        self.place(id, arrival);
    }

    fn place(&mut self, id: TaskId, arrival: Arrival) {
        let Arrival { queue, kind, priority, run_at } = arrival;
        if self.read_at.is_none() || !self.kinds.contains(&kind) || !self.is_asked(&queue) {
            return;
        }
        self.own += 1;
        // What is inserted now is due after all that was due when the window was read.
        let rank = (Reverse(priority), run_at.unwrap_or(Timestamp::MAX), self.own);
        let lane = self.lanes.entry((queue, kind)).or_default();
        if lane.end.is_some_and(|end| rank > end) {
            return;
        }
        lane.waiting.insert(rank, id);
        self.len += 1;
        if self.len > self.size {
            lane.waiting.pop_last();
            self.len -= 1;
            lane.end = lane.waiting.last_key_value().map(|(rank, _)| *rank);
            if lane.end.is_none() {
                self.forget();
            }
        }
    }

    /// Tasks of this window that are over, as this process knows.
    pub(super) fn remove(&mut self, ids: &HashSet<TaskId>) {
        if ids.is_empty() {
            return;
        }
        for lane in self.lanes.values_mut() {
            let before = lane.waiting.len();
            lane.waiting.retain(|_, id| !ids.contains(id));
            self.len -= before - lane.waiting.len();
        }
    }

    /// Some tasks may come before those that are here.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        (self.len, self.read_at) = (0, None);
        // Also before those that are being read.
        self.arrivals = None;
    }

    /// Whether a task that may run at this time is due, or is within a poll.
    pub(super) fn is_due_soon(&self, run_at: Timestamp, now: Timestamp) -> bool {
        run_at <= self.store_time(now) + self.poll
    }

    /// The store's time, as far as is known here.
    pub(super) fn store_time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_micros(now.as_micros().saturating_add(self.ahead))
    }

    fn turn_to(&mut self, request: &ClaimRequest) {
        if self.kinds != request.kinds || self.queues != request.queues {
            self.forget();
            (self.kinds, self.queues) = (request.kinds.clone(), request.queues.clone());
            (self.width, self.lane_count) = (0, None);
        }
    }

    fn is_asked(&self, queue: &Name) -> bool {
        self.queues.is_empty() || self.queues.contains(queue)
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.read_at.is_some_and(|at| now >= at && now.since(at) < self.poll)
    }

    /// Whether some lane has fewer candidates left than a claim may take, while there are more in the store.
    fn is_dry(&self, request: &ClaimRequest) -> bool {
        let wanted = self.wanted(request);
        self.lanes.values().any(|lane| lane.end.is_some() && lane.waiting.len() < wanted)
    }

    fn serves(&self, request: &ClaimRequest, now: Timestamp) -> bool {
        let asked = request.among.is_none() && request.limit > 0;
        asked && self.is_fresh(now) && self.len >= request.limit && !self.is_dry(request)
    }

    /// How many of each lane a claim names.
    fn wanted(&self, request: &ClaimRequest) -> usize {
        request.limit.saturating_add(self.slack)
    }
}
