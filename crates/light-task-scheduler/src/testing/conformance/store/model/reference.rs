//! The reference model: a plain list of rows and the table of legal moves, written from the design and
//! sharing nothing with the state machine or the stores. Slow and obvious.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::state::{Command, Refusal, RunEvent};
use crate::store::{Answer, CandidatesRequest, ClaimRequest, Inserted, QueueSettings, Said, SweepRequest};
use crate::task::{FailureKind, Name, NewTask, Payload, ReplicaId, ResultRef, Start, State, TaskId, Token};

/// How long a lease is: never a whole number of minutes, so that no case ends exactly with it.
pub(super) const LEASE: Duration = Duration::from_secs(630);
const HISTORY: usize = 20;

/// A report pushed for the current execution.
#[derive(Debug, Clone)]
pub(super) struct Posted {
    pub(super) said: Said,
    pub(super) given_to: Option<u64>,
}

impl Posted {
    /// Whether the next heartbeat of the owner brings it: an outcome always, a progress once per run.
    pub(super) fn is_due(&self, run: u64) -> bool {
        matches!(self.said, Said::Ended(_)) || self.given_to != Some(run)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: TaskId,
    pub(super) queue: Name,
    pub(super) kind: Name,
    pub(super) payload: Payload,
    pub(super) priority: i32,
    pub(super) deadline: Option<Timestamp>,
    pub(super) keep: bool,
    pub(super) created: Timestamp,
    pub(super) state: State,
    pub(super) wished: bool,
    pub(super) unconfirmed: bool,
    /// Unknown while the task is held, unless it was given one: it is due from its start on.
    pub(super) run_at: Option<Timestamp>,
    pub(super) owner: Option<ReplicaId>,
    pub(super) run: u64,
    pub(super) execution: u64,
    pub(super) generation: u32,
    pub(super) attempt: u32,
    pub(super) interruptions: u32,
    pub(super) lost: u32,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    pub(super) handle: Option<String>,
    pub(super) progress: Option<u64>,
    pub(super) output: Option<Payload>,
    pub(super) result: Option<ResultRef>,
    pub(super) failure: Option<FailureKind>,
    /// Attempt, execution, replica, why.
    pub(super) history: Vec<(u32, u64, ReplicaId, FailureKind)>,
    pub(super) posted: Option<Posted>,
}

impl Row {
    fn owned(&self) -> bool {
        self.state == State::Running || self.state == State::Exporting
    }

    fn over(&self) -> bool {
        [State::Succeeded, State::Failed, State::Cancelled].contains(&self.state)
    }

    fn finish(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.finished = Some(now);
        self.unconfirmed = false;
        self.posted = None;
    }

    /// The run is over without success.
    fn remember(&mut self, why: FailureKind) {
        if why != FailureKind::Busy {
            self.history.push((self.attempt, self.execution, self.owner.unwrap(), why));
        }
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        self.failure = Some(why);
        self.handle = None;
        self.progress = None;
        self.posted = None;
        self.unconfirmed = false;
    }
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) dead: bool,
    pub(super) draining: bool,
    pub(super) until: Timestamp,
    pub(super) beats: u64,
    /// The last claim and what it took, with the fence.
    pub(super) last: Option<(ClaimRequest, Vec<(TaskId, u64)>)>,
}

/// A leaking bucket: the debt of a rate limit, and when it was this large.
#[derive(Debug, Clone, Default)]
struct Bucket {
    debt: Duration,
    at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Reference {
    by_priority: bool,
    pub(super) now: Timestamp,
    /// In the order of insertion.
    pub(super) rows: Vec<Row>,
    pub(super) tombstones: BTreeMap<TaskId, (Name, Payload)>,
    pub(super) members: BTreeMap<ReplicaId, Member>,
    pub(super) queues: BTreeMap<Name, QueueSettings>,
    buckets: BTreeMap<Name, Bucket>,
    pub(super) garbage: BTreeSet<String>,
}

impl Reference {
    pub(super) fn new(by_priority: bool, now: Timestamp) -> Self {
        Reference { by_priority, now, ..Reference::default() }
    }

    pub(super) fn row(&mut self, id: &TaskId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.id == *id)
    }

    pub(super) fn insert(&mut self, new: &NewTask) -> Result<Inserted, ErrorKind> {
        let id = new.id.clone().unwrap();
        let asked = (new.kind.clone(), new.payload.clone());
        if let Some(row) = self.row(&id) {
            let same = (row.kind.clone(), row.payload.clone()) == asked;
            return if same { Ok(Inserted::Existing(id, row.state)) } else { Err(ErrorKind::Conflict) };
        }
        if let Some(gone) = self.tombstones.get(&id) {
            return if *gone == asked { Ok(Inserted::Removed(id)) } else { Err(ErrorKind::Conflict) };
        }
        let run_at = match new.start {
            Start::Now => Some(self.now),
            Start::At(at) => Some(at),
            Start::After(delay) => Some(self.now + delay),
            Start::Held => None,
        };
        let options = new.options.clone().unwrap_or_default();
        self.queues.entry(new.queue.clone()).or_default();
        self.rows.push(Row {
            id: id.clone(),
            queue: new.queue.clone(),
            kind: asked.0,
            payload: asked.1,
            priority: new.priority,
            deadline: options.deadline,
            keep: !options.labels.is_empty(),
            created: self.now,
            state: if run_at.is_some() { State::Waiting } else { State::Held },
            wished: false,
            unconfirmed: false,
            run_at,
            owner: None,
            run: 0,
            execution: 0,
            generation: 0,
            attempt: 0,
            interruptions: 0,
            lost: 0,
            started: None,
            finished: None,
            handle: None,
            progress: None,
            output: None,
            result: None,
            failure: None,
            history: vec![],
            posted: None,
        });
        Ok(Inserted::New(id))
    }

    /// Whether a replica may claim and rescue.
    pub(super) fn is_alive(&self, id: ReplicaId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.dead && self.now < member.until)
    }

    /// Whether a replica may take something: otherwise it is answered as if there were nothing to take.
    pub(super) fn takes(&self, id: ReplicaId) -> bool {
        !self.members[&id].draining
    }

    pub(super) fn drain(&mut self, id: ReplicaId) -> Result<(), ErrorKind> {
        let member = self.members.get_mut(&id).filter(|member| !member.dead).ok_or(ErrorKind::NotFound)?;
        member.draining = true;
        Ok(())
    }

    pub(super) fn overdue(&self) -> Vec<TaskId> {
        let may_expire = |row: &&Row| matches!(row.state, State::Held | State::Waiting);
        let rows = self.rows.iter().filter(may_expire);
        rows.filter(|row| row.deadline.is_some_and(|at| at <= self.now)).map(|row| row.id.clone()).collect()
    }

    pub(super) fn expire(&mut self, id: &TaskId) {
        let now = self.now;
        let row = self.row(id).unwrap();
        row.finish(State::Failed, now);
        row.failure = Some(FailureKind::Deadline);
    }

    /// What a repeated claim must return.
    pub(super) fn repeated(&self, replica: ReplicaId) -> Vec<TaskId> {
        let Some((_, taken)) = &self.members[&replica].last else { return vec![] };
        let still = |(id, run): &&(TaskId, u64)| {
            let row = self.rows.iter().find(|row| row.id == *id);
            row.is_some_and(|row| row.state == State::Running && row.owner == Some(replica) && row.run == *run)
        };
        taken.iter().filter(still).map(|(id, _)| id.clone()).collect()
    }

    fn asked(&self, request: &ClaimRequest, row: &Row) -> bool {
        request.kinds.contains(&row.kind) && (request.queues.is_empty() || request.queues.contains(&row.queue))
    }

    /// Whether a queue may start one more now; otherwise when the rate allows it, if only the rate forbids it.
    fn blocked(&self, queue: &Name) -> Option<Option<Timestamp>> {
        let settings = self.queues.get(queue).copied().unwrap_or_default();
        let running = self.rows.iter().filter(|row| row.queue == *queue && row.state == State::Running).count();
        if settings.paused || settings.concurrency.is_some_and(|limit| running >= limit as usize) {
            return Some(None);
        }
        let rate = settings.rate?;
        let interval = rate.period / rate.count;
        let room = interval * (rate.burst - 1);
        let debt = self.debt(queue);
        if debt <= room { None } else { Some(Some(self.now + (debt - room))) }
    }

    fn debt(&self, queue: &Name) -> Duration {
        let bucket = self.buckets.get(queue).cloned().unwrap_or_default();
        let leaked = bucket.debt.saturating_sub(self.now.since(bucket.at));
        match self.queues.get(queue).and_then(|settings| settings.rate) {
            Some(rate) => leaked.min(rate.period / rate.count * rate.burst),
            None => leaked,
        }
    }

    fn is_due(&self, row: &Row) -> bool {
        row.state == State::Waiting && row.run_at.unwrap() <= self.now
    }

    /// Puts waiting rows into the order of claims.
    fn order(&self, rows: &mut [usize]) {
        // The sort is stable: what is equal stays in the order of insertion.
        rows.sort_by_key(|at| {
            let row = &self.rows[*at];
            (if self.by_priority { -i64::from(row.priority) } else { 0 }, row.run_at)
        });
    }

    pub(super) fn candidates(&self, request: &CandidatesRequest) -> Vec<TaskId> {
        let asked = |row: &Row| {
            let paused = self.queues.get(&row.queue).is_some_and(|settings| settings.paused);
            let queue = request.queues.is_empty() || request.queues.contains(&row.queue);
            request.kinds.contains(&row.kind) && queue && !paused && self.is_due(row)
        };
        let mut due: Vec<usize> = (0..self.rows.len()).filter(|at| asked(&self.rows[*at])).collect();
        self.order(&mut due);
        let mut per_lane: BTreeMap<(&Name, &Name), usize> = BTreeMap::new();
        due.retain(|at| {
            let row = &self.rows[*at];
            let count = per_lane.entry((&row.queue, &row.kind)).or_default();
            *count += 1;
            *count <= request.per_lane
        });
        due.into_iter().map(|at| self.rows[at].id.clone()).collect()
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest) -> Vec<TaskId> {
        let mut due: Vec<usize> = (0..self.rows.len())
            .filter(|at| {
                let row = &self.rows[*at];
                let named = request.among.as_ref().is_none_or(|ids| ids.contains(&row.id));
                named && self.is_due(row) && self.asked(request, row)
            })
            .collect();
        self.order(&mut due);
        let mut taken = Vec::new();
        for at in due {
            let queue = self.rows[at].queue.clone();
            if taken.len() == request.limit || self.blocked(&queue).is_some() {
                continue;
            }
            if let Some(rate) = self.queues.get(&queue).and_then(|settings| settings.rate) {
                let debt = self.debt(&queue) + rate.period / rate.count;
                self.buckets.insert(queue, Bucket { debt, at: self.now });
            }
            let now = self.now;
            let row = &mut self.rows[at];
            row.state = State::Running;
            row.owner = Some(request.replica);
            row.run += 1;
            row.execution = row.run;
            row.attempt += 1;
            row.started = Some(now);
            taken.push((row.id.clone(), row.run));
        }
        let ids = taken.iter().map(|(id, _)| id.clone()).collect();
        self.members.get_mut(&request.replica).unwrap().last = Some((request.clone(), taken));
        ids
    }

    /// The latest that a claim may name as the time to ask again, and whether that may be now.
    pub(super) fn ask_again(&self, request: &ClaimRequest) -> (Option<Timestamp>, bool) {
        let mut times: Vec<Timestamp> = Vec::new();
        let mut leftover = false;
        for row in &self.rows {
            if matches!(row.state, State::Held | State::Waiting) {
                times.extend(row.deadline);
            }
            if row.state != State::Waiting || !self.asked(request, row) {
                continue;
            }
            let due = row.run_at.unwrap().max(self.now);
            match self.blocked(&row.queue) {
                None => {
                    leftover |= due == self.now;
                    times.push(due);
                }
                Some(Some(permit)) => times.push(due.max(permit)),
                Some(None) => {}
            }
        }
        (times.into_iter().min(), leftover)
    }

    pub(super) fn report(&mut self, id: &TaskId, token: Token, event: &RunEvent) -> Answer {
        let now = self.now;
        let Some(row) = self.row(id) else { return Answer::Missing };
        if row.owner != Some(token.owner) || row.run != token.run {
            return Answer::Refused(Refusal::Stale);
        }
        match row.state {
            State::Running => running(row, event, now),
            State::Exporting => exporting(row, event, now),
            state => {
                let leads_to: &[State] = match event {
                    RunEvent::Started(_) | RunEvent::Progress(_) | RunEvent::StopUnconfirmed => &[],
                    _ if state == State::Cancelled && row.wished => &[State::Cancelled],
                    RunEvent::Outcome(_) => &[State::Exporting],
                    RunEvent::Complete(_) => &[State::Succeeded],
                    RunEvent::Retry(..) | RunEvent::Release(..) => &[State::Waiting],
                    RunEvent::Fail(_) => &[State::Failed],
                    RunEvent::Cancelled => &[State::Cancelled],
                };
                let same = leads_to.contains(&state);
                if same { Answer::Already(state) } else { Answer::Refused(Refusal::Ended(state)) }
            }
        }
    }

    pub(super) fn command(&mut self, id: &TaskId, command: Command) -> Answer {
        let now = self.now;
        let Some(row) = self.row(id) else { return Answer::Missing };
        let state = row.state;
        let illegal = Answer::Refused(Refusal::Illegal(state));
        let next = match command {
            Command::Start => match state {
                State::Held => {
                    row.run_at = Some(row.run_at.map_or(now, |at| at.max(now)));
                    State::Waiting
                }
                State::Waiting => return Answer::Already(state),
                _ => return illegal,
            },
            Command::Cancel => match state {
                State::Held | State::Waiting => {
                    row.finished = Some(now);
                    row.failure = Some(FailureKind::Cancelled);
                    State::Cancelled
                }
                State::Running if !row.wished => {
                    row.wished = true;
                    State::Running
                }
                State::Running | State::Cancelled => return Answer::Already(state),
                _ => return Answer::Refused(Refusal::TooLate(state)),
            },
            Command::RetryExport if state == State::Failed && row.failure == Some(FailureKind::Export) => {
                row.finished = None;
                row.owner = None;
                State::Exporting
            }
            Command::Requeue if row.over() => {
                let old = row.clone();
                row.run_at = Some(now);
                (row.generation, row.attempt, row.interruptions, row.lost) = (old.generation + 1, 0, 0, 0);
                (row.owner, row.started, row.finished) = (None, None, None);
                (row.handle, row.progress, row.output, row.result, row.failure) = (None, None, None, None, None);
                (row.wished, row.unconfirmed) = (false, false);
                row.state = State::Waiting;
                self.give_up(old.result);
                return Answer::Applied(Some(State::Waiting));
            }
            Command::Reschedule { run_at, priority } if matches!(state, State::Held | State::Waiting) => {
                let due = |at: Option<Timestamp>| at.is_none_or(|at| at <= now);
                let same_time = match run_at {
                    None => true,
                    Some(_) if due(run_at) => due(row.run_at),
                    Some(_) => row.run_at == run_at,
                };
                if !same_time {
                    row.run_at = if due(run_at) { Some(now) } else { run_at };
                }
                row.priority = priority.unwrap_or(row.priority);
                return if same_time && priority.is_none() {
                    Answer::Already(state)
                } else {
                    Answer::Applied(Some(state))
                };
            }
            Command::Delete if row.over() || state == State::Held => {
                self.remove(id);
                return Answer::Applied(None);
            }
            _ => return illegal,
        };
        row.state = next;
        Answer::Applied(Some(next))
    }

    fn give_up(&mut self, result: Option<ResultRef>) {
        if let Some(ResultRef::Stored { key, .. }) = result {
            self.garbage.insert(key);
        }
    }

    pub(super) fn remove(&mut self, id: &TaskId) {
        let at = self.rows.iter().position(|row| row.id == *id).unwrap();
        let row = self.rows.remove(at);
        self.tombstones.insert(row.id, (row.kind, row.payload));
        self.give_up(row.result);
    }

    pub(super) fn post(&mut self, id: &TaskId, execution: u64, said: &Said) -> bool {
        let Some(row) = self.row(id) else { return false };
        if row.state != State::Running || row.execution != execution {
            return false;
        }
        let settled = row.posted.as_ref().is_some_and(|posted| matches!(posted.said, Said::Ended(_)));
        if !settled {
            row.posted = Some(Posted { said: said.clone(), given_to: None });
        }
        true
    }

    /// Which tasks have no living owner, the oldest claim first.
    pub(super) fn orphans(&self, kinds: &[Name]) -> Vec<&Row> {
        let lives = |owner: ReplicaId| self.members.get(&owner).is_some_and(|member| !member.dead);
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.owned() && kinds.contains(&row.kind)).collect();
        rows.retain(|row| !row.owner.is_some_and(lives));
        rows.sort_by_key(|row| row.started);
        rows
    }

    pub(super) fn adopt(&mut self, id: &TaskId, by: ReplicaId) {
        let row = self.row(id).unwrap();
        row.owner = Some(by);
        row.run += 1;
    }

    /// Which tasks a sweep may remove.
    pub(super) fn sweepable(&self, request: &SweepRequest) -> Vec<TaskId> {
        let Some(age) = request.older_than else { return vec![] };
        let rows = self.rows.iter().filter(|row| row.over() && request.states.contains(&row.state));
        let rows = rows.filter(|row| row.finished.unwrap() + age < self.now);
        rows.filter(|row| request.except_label.is_none() || !row.keep).map(|row| row.id.clone()).collect()
    }
}

fn running(row: &mut Row, event: &RunEvent, now: Timestamp) -> Answer {
    let next = match event {
        RunEvent::Started(handle) => {
            row.handle = handle.as_ref().map(|handle| handle.as_str().to_owned());
            State::Running
        }
        RunEvent::Progress(progress) => {
            row.progress = Some(progress.done);
            State::Running
        }
        RunEvent::StopUnconfirmed => {
            row.unconfirmed = true;
            State::Running
        }
        _ if row.wished => {
            row.remember(FailureKind::Cancelled);
            State::Cancelled
        }
        RunEvent::Cancelled => return Answer::Refused(Refusal::NotRequested),
        RunEvent::Outcome(output) => {
            row.output = output.clone();
            row.posted = None;
            row.unconfirmed = false;
            State::Exporting
        }
        RunEvent::Complete(result) => return complete(row, result, now),
        RunEvent::Retry(at, why) => {
            row.remember(why.kind);
            row.lost = 0;
            row.run_at = Some(*at);
            State::Waiting
        }
        RunEvent::Release(at, why) => {
            row.remember(why.kind);
            row.interruptions += 1;
            row.lost += u32::from(why.kind == FailureKind::Lost);
            row.run_at = Some(*at);
            State::Waiting
        }
        RunEvent::Fail(why) => {
            row.remember(why.kind);
            State::Failed
        }
    };
    row.state = next;
    if row.over() {
        row.finish(next, now);
    }
    Answer::Applied(Some(next))
}

fn exporting(row: &mut Row, event: &RunEvent, now: Timestamp) -> Answer {
    match event {
        RunEvent::Outcome(_) => Answer::Already(State::Exporting),
        RunEvent::Complete(result) => complete(row, result, now),
        RunEvent::Fail(why) => {
            let handle = row.handle.clone();
            row.remember(why.kind);
            row.handle = handle;
            row.finish(State::Failed, now);
            Answer::Applied(Some(State::Failed))
        }
        _ => Answer::Refused(Refusal::Illegal(State::Exporting)),
    }
}

fn complete(row: &mut Row, result: &ResultRef, now: Timestamp) -> Answer {
    row.result = Some(result.clone());
    (row.output, row.handle, row.failure, row.lost) = (None, None, None, 0);
    row.finish(State::Succeeded, now);
    Answer::Applied(Some(State::Succeeded))
}
