//! Claiming: due tasks in order, within each queue's limit, rate and pause.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use rusqlite::OptionalExtension;

use super::replicas;
use super::rows::{self, Finder, READY, SCHEDULED, Stored};
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::rate::RateLimit;
use crate::state::{Event, step};
use crate::store::{Claim, ClaimRequest, QueueSettings};
use crate::task::{Name, Task, TaskId};

/// Most overdue tasks failed by one claim; the next one goes on.
const EXPIRE_MAX: usize = 10_000;
/// Most delayed tasks of a lane that one claim moves to the ready ones: bounds how long others wait when
/// a huge number becomes due at once. Until the next claim has moved the rest, these go first.
const PROMOTE_MAX: usize = 100_000;
/// Fewest candidates read from a lane at a time.
const READ_AHEAD: usize = 16;

pub(super) const HEADS: &str = "SELECT rank, run_at, seq FROM tasks INDEXED BY tasks_ready
    WHERE lane = ?1 AND stage = 1 ORDER BY rank, run_at, seq LIMIT ?2 OFFSET ?3";
pub(super) const HEAD: &str = "SELECT lane, rank, run_at, seq FROM tasks WHERE id = ?1 AND stage = 1";
const HEAD_AT_PLACE: &str = concat!("SELECT lane, rank, run_at, seq", rows::at_place!(), " AND stage = 1");
pub(super) const PROMOTE: &str = "UPDATE tasks SET stage = 1 WHERE seq IN (
    SELECT seq FROM tasks INDEXED BY tasks_scheduled WHERE lane = ?1 AND stage = -1 AND run_at <= ?2
    ORDER BY run_at LIMIT ?3)";
pub(super) const NEXT_SCHEDULED: &str = "SELECT run_at FROM tasks INDEXED BY tasks_scheduled
    WHERE lane = ?1 AND stage = -1 ORDER BY run_at LIMIT 1";
pub(super) const NEXT_DEADLINE: &str = "SELECT deadline FROM tasks INDEXED BY tasks_deadline
    WHERE deadline IS NOT NULL AND stage < 2 ORDER BY deadline LIMIT 1";
pub(super) const OVERDUE: &str = "SELECT seq FROM tasks INDEXED BY tasks_deadline
    WHERE deadline IS NOT NULL AND deadline <= ?1 AND stage < 2 ORDER BY deadline LIMIT ?2";
pub(super) const CLAIMED: &str = "SELECT seq FROM tasks INDEXED BY tasks_active
    WHERE owner = ?1 AND claim = ?2 AND stage = 2 AND stage IN (2, 3) ORDER BY seq";

/// Takes up to `limit` due tasks for a replica.
pub(super) fn claim(tx: &mut Tx<'_>, request: &ClaimRequest) -> Result<Claim> {
    let replica = replicas::living(tx, request.replica)?;
    if replica.draining {
        let tasks = claimed_before(tx, replica.key, request.number)?;
        return Ok(Claim { tasks, now: tx.now, ..Claim::default() });
    }
    let expired = expire(tx)?;
    let mut claim = Claim { tasks: Vec::new(), expired, next_at: None, now: tx.now };
    tx.write_tallies()?;
    let mut lanes = open_lanes(tx, request)?;
    promote(tx, &mut lanes.lanes)?;
    let last = replica.claim.cast_unsigned().max(tx.names.last_empty_claim(replica.key));
    let repeated = request.number <= last;
    let limit = if repeated { 0 } else { request.limit };
    let mut picked = match &request.among {
        None => pick(tx, &mut lanes, limit)?,
        Some(ids) => pick_among(tx, &mut lanes, ids, limit)?,
    };
    if repeated {
        claim.tasks = claimed_before(tx, replica.key, request.number)?;
    } else {
        take(tx, request, picked.seqs, &mut claim)?;
        if claim.tasks.is_empty() {
            tx.names.note_empty_claim(replica.key, request.number);
        } else {
            let set = "UPDATE replicas SET claim = ?2 WHERE key = ?1";
            tx.connection.prepare_cached(set)?.execute([replica.key, request.number.cast_signed()])?;
        }
    }
    save_rates(tx, &lanes.gates)?;
    if request.among.is_some() {
        // What else is due: only the first of each lane is looked at.
        picked.next_at = pick(tx, &mut lanes, 0)?.next_at;
    }
    claim.next_at = [picked.next_at, next_scheduled(tx, &lanes.lanes)?, next_deadline(tx)?].into_iter().flatten().min();
    Ok(claim)
}

/// Fails what is overdue.
fn expire(tx: &mut Tx<'_>) -> Result<Vec<TaskId>> {
    let overdue: Vec<i64> = tx
        .connection
        .prepare_cached(OVERDUE)?
        .query_map((tx.now.as_micros(), EXPIRE_MAX as i64), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut expired = Vec::new();
    for seq in overdue {
        expired.extend(expire_one(tx, seq)?);
    }
    Ok(expired)
}

fn expire_one(tx: &mut Tx<'_>, seq: i64) -> Result<Option<TaskId>> {
    let Some((stored, mut task)) = rows::task_at(tx, seq)? else { return Ok(None) };
    let deadline = task.spec.deadline().unwrap_or(Timestamp::MAX);
    if step(&mut task.record, Event::Expire { deadline }, tx.now).is_err() {
        return Ok(None);
    }
    rows::save(tx, [(&stored, &task.record)])?;
    Ok(Some(task.id))
}

/// A lane from which may be claimed.
struct OpenLane {
    number: i64,
    gate: usize,
    ready: bool,
    scheduled: i64,
    /// Candidates in order: rank, due time, number.
    heads: VecDeque<Head>,
    /// How many were read.
    read: usize,
    exhausted: bool,
}

type Head = (i64, i64, i64);

/// What a queue lets through.
struct Gate {
    queue: Name,
    settings: QueueSettings,
    tat: Timestamp,
    /// Free slots.
    slots: usize,
    /// Free permits.
    permits: usize,
    taken: usize,
}

impl Gate {
    fn is_open(&self) -> bool {
        self.slots > 0 && self.permits > 0
    }

    /// Lets one through an open gate.
    fn pass(&mut self) {
        self.slots -= 1;
        self.permits -= 1;
        self.taken += 1;
    }

    /// When something that waits at this gate may pass, if time alone opens it.
    fn opens_at(&self, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self.settings.rate {
            _ if self.slots == 0 => None,
            Some(rate) if self.permits == 0 => Some(rate.take(self.tat_after(rate, now), now, 0).next),
            _ => Some(due),
        }
    }

    fn tat_after(&self, rate: RateLimit, now: Timestamp) -> Timestamp {
        rate.take(self.tat, now, u32::try_from(self.taken).unwrap_or(u32::MAX)).tat
    }
}

struct OpenLanes {
    lanes: Vec<OpenLane>,
    gates: Vec<Gate>,
}

/// The lanes of the asked kinds and queues that have waiting tasks and are not paused.
fn open_lanes(tx: &mut Tx<'_>, request: &ClaimRequest) -> Result<OpenLanes> {
    const WAITING: &str = "SELECT lane, stage, n FROM tallies WHERE stage IN (-1, 1) ORDER BY lane";
    let mut open = OpenLanes { lanes: Vec::new(), gates: Vec::new() };
    let mut statement = tx.connection.prepare_cached(WAITING)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, stage, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let lane = tx.names.lane(tx.connection, number)?;
        let asked =
            request.kinds.contains(&lane.kind) && (request.queues.is_empty() || request.queues.contains(&lane.queue));
        if !asked {
            continue;
        }
        if open.lanes.last().is_none_or(|last: &OpenLane| last.number != number) {
            let queue = lane.queue.clone();
            let known = open.gates.iter().position(|gate| gate.queue == queue);
            let gate = match known {
                Some(gate) => gate,
                None => {
                    open.gates.push(gate(tx, queue, request.limit)?);
                    open.gates.len() - 1
                }
            };
            let heads = VecDeque::new();
            open.lanes.push(OpenLane { number, gate, ready: false, scheduled: 0, heads, read: 0, exhausted: false });
        }
        if let Some(lane) = open.lanes.last_mut() {
            lane.ready |= stage == READY;
            lane.scheduled += if stage == SCHEDULED { count } else { 0 };
        }
    }
    let gates = &open.gates;
    open.lanes.retain(|lane| gates.get(lane.gate).is_some_and(|gate| !gate.settings.paused));
    Ok(open)
}

fn gate(tx: &Tx<'_>, queue: Name, limit: usize) -> Result<Gate> {
    const SETTINGS: &str = "SELECT settings, tat FROM queues WHERE name = ?1";
    const RUNNING: &str = "SELECT coalesce(sum(n), 0) FROM tallies JOIN lanes ON lanes.id = tallies.lane
        WHERE stage = 2 AND queue = ?1";
    let found = tx
        .connection
        .prepare_cached(SETTINGS)?
        .query_row([queue.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    let (settings, tat) = match found {
        Some((json, tat)) => (super::list::settings(&json)?, Timestamp::from_micros(tat)),
        None => (QueueSettings::default(), Timestamp::default()),
    };
    let slots = match settings.concurrency {
        Some(most) => {
            let running: i64 = tx.connection.prepare_cached(RUNNING)?.query_row([queue.as_str()], |row| row.get(0))?;
            usize::try_from(i64::from(most) - running).unwrap_or(0)
        }
        None => usize::MAX,
    };
    let permits = settings.rate.map_or(usize::MAX, |rate| {
        let want = u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
        rate.take(tat, tx.now, want).granted as usize
    });
    Ok(Gate { queue, settings, tat, slots, permits, taken: 0 })
}

/// Moves what has become due to the ready ones, so that a delayed task of high priority never hides them.
fn promote(tx: &mut Tx<'_>, lanes: &mut [OpenLane]) -> Result<()> {
    let mut promote = tx.connection.prepare_cached(PROMOTE)?;
    for lane in lanes.iter_mut().filter(|lane| lane.scheduled > 0) {
        let moved = promote.execute((lane.number, tx.now.as_micros(), PROMOTE_MAX as i64))?;
        let moved = i64::try_from(moved).unwrap_or(i64::MAX);
        if moved > 0 {
            lane.ready = true;
            lane.scheduled -= moved;
            tx.tally(lane.number, SCHEDULED, -moved);
            tx.tally(lane.number, READY, moved);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Picked {
    seqs: Vec<i64>,
    /// When something that was left may be claimed, if time alone makes it so.
    next_at: Option<Timestamp>,
}

/// Merges the lanes by (rank, due time, number), up to `limit` and to what the gates let through.
fn pick(tx: &Tx<'_>, open: &mut OpenLanes, limit: usize) -> Result<Picked> {
    let OpenLanes { lanes, gates } = open;
    let lanes_ready = lanes.iter().filter(|lane| lane.ready).count().max(1);
    let chunk = (limit / lanes_ready + READ_AHEAD).min(limit + 1);
    let mut heap = BinaryHeap::new();
    for (index, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.ready) {
        heap.extend(next_head(tx, lane, chunk)?.map(|head| Reverse((head, index))));
    }
    let mut picked = Picked::default();
    while let Some(Reverse((head, index))) = heap.pop() {
        let Some(lane) = lanes.get_mut(index) else { continue };
        let Some(gate) = gates.get_mut(lane.gate) else { continue };
        let (_, run_at, seq) = head;
        if picked.seqs.len() < limit && gate.is_open() {
            gate.pass();
            picked.seqs.push(seq);
            heap.extend(next_head(tx, lane, chunk)?.map(|head| Reverse((head, index))));
        } else if let Some(at) = gate.opens_at(Timestamp::from_micros(run_at), tx.now) {
            picked.next_at = Some(picked.next_at.map_or(at, |next| next.min(at)));
        }
    }
    Ok(picked)
}

/// The same among the tasks of these ids.
fn pick_among(tx: &mut Tx<'_>, open: &mut OpenLanes, ids: &[TaskId], limit: usize) -> Result<Picked> {
    let OpenLanes { lanes, gates } = open;
    let gates_of: HashMap<i64, usize> = lanes.iter().map(|lane| (lane.number, lane.gate)).collect();
    let mut by_id = Finder::new(tx.connection, HEAD_AT_PLACE, HEAD)?;
    let mut named: Vec<(Head, usize)> = Vec::new();
    for id in ids.iter().filter(|_| limit > 0) {
        let found = by_id.find(tx.names, id, |_, _, row| {
            let gate = gates_of.get(&row.get(0)?);
            gate.map(|gate| Ok::<_, Error>(((row.get(1)?, row.get(2)?, row.get(3)?), *gate))).transpose()
        })?;
        named.extend(found.flatten());
    }
    named.sort_unstable();
    named.dedup();
    let mut picked = Picked::default();
    for ((_, _, seq), gate) in named {
        let Some(gate) = gates.get_mut(gate).filter(|gate| gate.is_open()) else { continue };
        if picked.seqs.len() < limit {
            gate.pass();
            picked.seqs.push(seq);
        }
    }
    Ok(picked)
}

fn next_head(tx: &Tx<'_>, lane: &mut OpenLane, chunk: usize) -> Result<Option<Head>> {
    if lane.heads.is_empty() && !lane.exhausted {
        let mut statement = tx.connection.prepare_cached(HEADS)?;
        let mut rows = statement.query([lane.number, chunk as i64, lane.read as i64])?;
        while let Some(row) = rows.next()? {
            lane.heads.push_back((row.get(0)?, row.get(1)?, row.get(2)?));
        }
        lane.read += lane.heads.len();
        lane.exhausted = lane.heads.len() < chunk;
    }
    Ok(lane.heads.pop_front())
}

/// Claims the picked tasks.
fn take(tx: &mut Tx<'_>, request: &ClaimRequest, mut seqs: Vec<i64>, claim: &mut Claim) -> Result<()> {
    seqs.sort_unstable();
    let mut taken = Vec::with_capacity(seqs.len());
    for (mut stored, mut task) in rows::tasks(tx, &seqs)? {
        if task.spec.deadline().is_some_and(|deadline| deadline <= tx.now) {
            claim.expired.extend(expire_one(tx, stored.seq)?);
            continue;
        }
        step(&mut task.record, Event::Claim { owner: request.replica }, tx.now)
            .map_err(|refusal| Error::internal(format!("the ready task {} cannot be claimed: {refusal}", task.id)))?;
        stored.claim = Some(request.number.cast_signed());
        taken.push((stored, task));
    }
    rows::save(tx, taken.iter().map(|(stored, task)| (stored, &task.record)))?;
    taken.iter().for_each(|(stored, task)| rows::remember(tx, stored, &task.record));
    claim.tasks = in_order(taken);
    Ok(())
}

/// The tasks of an earlier claim that its replica still runs.
fn claimed_before(tx: &mut Tx<'_>, owner: i64, number: u64) -> Result<Vec<Task>> {
    let seqs: Vec<i64> = tx
        .connection
        .prepare_cached(CLAIMED)?
        .query_map([owner, number.cast_signed()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(in_order(rows::tasks(tx, &seqs)?))
}

/// In the order in which they are claimed.
fn in_order(mut tasks: Vec<(Stored, Task)>) -> Vec<Task> {
    tasks.sort_by_key(|(stored, task)| (Reverse(task.spec.priority), task.record.run_at, stored.seq));
    tasks.into_iter().map(|(_, task)| task).collect()
}

fn save_rates(tx: &Tx<'_>, gates: &[Gate]) -> Result<()> {
    for gate in gates.iter().filter(|gate| gate.taken > 0) {
        if let Some(rate) = gate.settings.rate {
            let tat = gate.tat_after(rate, tx.now).as_micros();
            let set = "UPDATE queues SET tat = ?2 WHERE name = ?1";
            tx.connection.prepare_cached(set)?.execute((gate.queue.as_str(), tat))?;
        }
    }
    Ok(())
}

fn next_scheduled(tx: &Tx<'_>, lanes: &[OpenLane]) -> Result<Option<Timestamp>> {
    let mut statement = tx.connection.prepare_cached(NEXT_SCHEDULED)?;
    let mut next: Option<i64> = None;
    for lane in lanes.iter().filter(|lane| lane.scheduled > 0) {
        let run_at: Option<i64> = statement.query_row([lane.number], |row| row.get(0)).optional()?;
        next = next.into_iter().chain(run_at).min();
    }
    Ok(next.map(Timestamp::from_micros))
}

fn next_deadline(tx: &Tx<'_>) -> Result<Option<Timestamp>> {
    let next = tx.connection.prepare_cached(NEXT_DEADLINE)?.query_row([], |row| row.get(0)).optional()?;
    Ok(next.map(Timestamp::from_micros))
}
