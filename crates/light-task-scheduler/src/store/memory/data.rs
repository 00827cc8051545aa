//! The plain data behind the mutex, and what keeps its parts in step: every change of a task goes
//! through [`Data::transition`], and every index is mended in [`Data::settle`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::MemoryOptions;
use super::lanes::Lanes;
use super::order::Place;
use super::owners::{Owners, Posted};
use super::rows::{Row, Rows, Seat, Slot, task_bytes};
use super::trail::{Tombstones, Trail};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Event, Moved, Refusal, step};
use crate::store::{Answer, Changes, Inserted};
use crate::task::{NewTask, Payload, Record, Spec, Start, State, Task, TaskId, fingerprint};

#[derive(Debug)]
pub(super) struct Data {
    /// The store's time; it never goes back.
    pub(super) now: Timestamp,
    pub(super) rows: Rows,
    pub(super) lanes: Lanes,
    pub(super) owners: Owners,
    /// Held and waiting tasks that have a deadline.
    pub(super) deadlines: BTreeSet<(Timestamp, u64, Slot)>,
    /// Running tasks that are wished to stop.
    pub(super) wished: BTreeSet<Slot>,
    /// What running tasks have said and their owners have not settled yet.
    pub(super) posted: BTreeMap<Slot, Posted>,
    /// All tasks by insertion.
    pub(super) inserted: Trail<u64>,
    /// Ended tasks by (end, insertion).
    pub(super) ended: Trail<(Timestamp, u64)>,
    pub(super) tombstones: Tombstones,
    /// Keys of results that nobody refers to any more.
    pub(super) garbage: BTreeSet<String>,
    pub(super) changes: Changes,
    /// Grows with every write.
    pub(super) op_seq: u64,
    /// What tasks, reports and garbage cost.
    pub(super) bytes: u64,
    seq: u64,
    priority: bool,
    options: MemoryOptions,
}

impl Data {
    pub(super) fn new(priority: bool, options: MemoryOptions) -> Self {
        Data {
            now: Timestamp::from_micros(i64::MIN),
            rows: Rows::new(),
            lanes: Lanes::default(),
            owners: Owners::default(),
            deadlines: BTreeSet::new(),
            wished: BTreeSet::new(),
            posted: BTreeMap::new(),
            inserted: Trail::new(),
            ended: Trail::new(),
            tombstones: Tombstones::default(),
            garbage: BTreeSet::new(),
            changes: Changes::default(),
            op_seq: 0,
            bytes: 0,
            seq: 0,
            priority,
            options,
        }
    }

    /// Reads the clock, which may have been stepped back.
    pub(super) fn tick(&mut self) {
        self.now = self.now.max(self.options.clock.now());
    }

    pub(super) fn insert(&mut self, task: NewTask) -> Result<Inserted> {
        task.check()?;
        if let Some(id) = &task.id
            && let Some(known) = self.known(id, &task)?
        {
            return Ok(known);
        }
        let id = task.id.unwrap_or_else(|| self.rows.fresh_id(&*self.options.clock));
        let bytes = task_bytes(&id, &task.payload, task.options.as_deref());
        self.check_room(bytes)?;
        let lane = self.lanes.lane(&task.queue, &task.kind)?;

        let (state, run_at) = match task.start {
            Start::Now => (State::Waiting, self.now),
            Start::At(at) => (State::Waiting, at),
            Start::After(delay) => (State::Waiting, self.now + delay),
            Start::Held => (State::Held, self.now),
        };
        self.seq += 1;
        let slot = self.rows.add(Row {
            id: id.clone(),
            payload: task.payload,
            options: task.options,
            record: Record { state, run_at, ..Record::default() },
            result: Payload::null(),
            created_at: self.now,
            seq: self.seq,
            lane,
            priority: task.priority,
            holding: 0,
        });
        self.op_seq += 1;
        self.bytes += bytes;
        self.inserted.push(self.seq, slot);
        self.lanes.count(lane, None, Some(state));
        self.await_start(slot);
        Ok(Inserted::New(id))
    }

    /// The answer for a task that is, or was, there.
    fn known(&self, id: &TaskId, task: &NewTask) -> Result<Option<Inserted>> {
        let (same, answer) = if let Some(slot) = self.rows.find(id) {
            let row = &self.rows[slot];
            let same = *self.lanes.kind_of(row.lane) == task.kind && row.payload == task.payload;
            (same, Inserted::Existing(id.clone(), row.record.state))
        } else if let Some(removed) = self.tombstones.get(id) {
            (*removed == fingerprint(&task.kind, &task.payload), Inserted::Removed(id.clone()))
        } else {
            return Ok(None);
        };
        if same {
            return Ok(Some(answer));
        }
        let message = format!("task {id} is already known with another kind or payload; choose another id");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    fn check_room(&self, bytes: u64) -> Result<()> {
        let MemoryOptions { tasks_max, bytes_max, .. } = self.options;
        let full = |what| Err(Error::new(ErrorKind::Full, format!("the memory store is full: {what}")));
        if self.rows.len() >= tasks_max {
            return full(format!(
                "it holds {} tasks and tasks_max is {tasks_max}; remove ended tasks",
                self.rows.len()
            ));
        }
        if self.bytes.saturating_add(bytes) > bytes_max {
            let held = self.bytes;
            return full(format!("it holds {held} bytes, the task needs {bytes} and bytes_max is {bytes_max}"));
        }
        Ok(())
    }

    /// Moves one task by the rules of [`step`] and mends the indexes.
    pub(super) fn transition(&mut self, slot: Slot, event: Event) -> Result<Moved, Refusal> {
        let (before, place) = (self.rows[slot].seat(), self.place(slot));
        let moved = step(&mut self.rows[slot].record, event, self.now)?;
        if moved.already {
            return Ok(moved);
        }
        self.rows[slot].stow();
        if let Some(priority) = moved.priority {
            self.rows[slot].priority = priority;
        }
        if before.state == State::Waiting {
            self.lanes.unplace(self.rows[slot].lane, place);
        }
        self.settle(slot, before);
        if let Some(key) = &moved.garbage {
            self.bytes += if self.garbage.insert(key.clone()) { key.len() as u64 } else { 0 };
        }
        if moved.removed {
            self.remove(slot);
        }
        Ok(moved)
    }

    /// The same, as an answer; for a task that was looked for.
    pub(super) fn answer(&mut self, found: Option<Slot>, event: Event) -> Answer {
        let Some(slot) = found else { return Answer::Missing };
        match self.transition(slot, event) {
            Ok(moved) if moved.removed => Answer::Applied(None),
            Ok(moved) if moved.already => Answer::Already(self.rows[slot].record.state),
            Ok(_) => Answer::Applied(Some(self.rows[slot].record.state)),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Mends every index after a move, except for the order that a task which waited was taken from.
    pub(super) fn settle(&mut self, slot: Slot, before: Seat) {
        let row = &self.rows[slot];
        let (after, lane, seq) = (row.seat(), row.lane, row.seq);
        self.op_seq += 1;
        self.bytes = self.bytes - before.bytes + after.bytes;
        if before.holder != after.holder {
            before.holder.into_iter().for_each(|owner| self.release(owner, slot));
            after.holder.into_iter().for_each(|owner| self.hold(owner, slot));
        }
        if after.wished && !before.wished {
            self.wished.insert(slot);
            self.changes.wishes += 1;
        } else if before.wished && !after.wished {
            self.wished.remove(&slot);
        }
        if before.state == after.state {
            if after.state == State::Waiting {
                // Rescheduled: who shows it wants to hear of a later time too.
                self.changes.work += 1;
                self.await_start(slot);
            }
            return;
        }
        let let_in = self.lanes.count(lane, Some(before.state), Some(after.state));
        self.changes.work += u64::from(let_in);
        if before.state == State::Running {
            self.drop_posted(slot);
        }
        if before.state.is_terminal() {
            self.ended.forget(|key, slot| ended_live(&self.rows, key, slot));
        }
        if after.state.is_terminal() {
            self.ended.push((self.now, seq), slot);
            self.changes.ends += 1;
        }
        if is_pending(before.state) && !is_pending(after.state) {
            self.forget_deadline(slot);
        }
        self.await_start(slot);
    }

    /// Puts a task that waits for its start where it will be found.
    fn await_start(&mut self, slot: Slot) {
        let (row, place) = (&self.rows[slot], self.place(slot));
        if let Some(deadline) = row.deadline().filter(|_| is_pending(row.record.state)) {
            // The claimers sleep until the first deadline.
            self.changes.work += u64::from(self.deadlines.first().is_none_or(|first| deadline < first.0));
            self.deadlines.insert((deadline, row.seq, slot));
        }
        if row.record.state == State::Waiting {
            let news = self.lanes.place(row.lane, place, self.now);
            self.changes.work += u64::from(news);
        }
    }

    fn forget_deadline(&mut self, slot: Slot) {
        let row = &self.rows[slot];
        if let Some(deadline) = row.deadline() {
            self.deadlines.remove(&(deadline, row.seq, slot));
        }
    }

    pub(super) fn place(&self, slot: Slot) -> Place {
        let row = &self.rows[slot];
        let priority = if self.priority { row.priority } else { 0 };
        Place { priority: Reverse(priority), run_at: row.record.run_at, seq: row.seq, slot }
    }

    /// Removes a held or ended task and remembers its id.
    pub(super) fn remove(&mut self, slot: Slot) {
        let row = &self.rows[slot];
        let (id, lane, state) = (row.id.clone(), row.lane, row.record.state);
        let bytes = row.seat().bytes + task_bytes(&id, &row.payload, row.options.as_deref());
        let print = fingerprint(self.lanes.kind_of(lane), &row.payload);
        self.forget_deadline(slot);
        self.lanes.count(lane, Some(state), None);
        self.bytes -= bytes;
        self.rows.remove(slot);
        self.tombstones.add(id, print, self.now);
        self.inserted.forget(|seq, slot| self.rows.is_live(slot, seq));
        if state.is_terminal() {
            self.ended.forget(|key, slot| ended_live(&self.rows, key, slot));
        }
        // Somebody may await it.
        self.changes.ends += 1;
    }

    /// The task as it is handed out.
    pub(super) fn task(&self, slot: Slot) -> Task {
        let row = &self.rows[slot];
        Task {
            id: row.id.clone(),
            spec: Spec {
                queue: self.lanes.queue_of(row.lane).name.clone(),
                kind: self.lanes.kind_of(row.lane).clone(),
                payload: row.payload.clone(),
                priority: row.priority,
                created_at: row.created_at,
                options: row.options.clone(),
            },
            record: row.whole_record(),
        }
    }
}

fn is_pending(state: State) -> bool {
    matches!(state, State::Held | State::Waiting)
}

/// Whether the task still is in the end that this entry tells of.
pub(super) fn ended_live(rows: &Rows, (at, seq): (Timestamp, u64), slot: Slot) -> bool {
    rows.is_live(slot, seq) && rows[slot].record.finished_at == Some(at) && rows[slot].record.state.is_terminal()
}
