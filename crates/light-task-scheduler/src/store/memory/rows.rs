//! The rows: a slab of tasks, and the way from an id to its row.
//!
//! An id that nobody gave is a UUID of version 7 whose last 32 bits are the slot of its row: it leads there by
//! itself, and needs no index. A look into a large index is a wait for the memory, once or twice.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use hashbrown::{DefaultHashBuilder, HashTable};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp, new_uuid};
use crate::task::{Attempt, Details, Failure, Options, Payload, Record, ReplicaId, ResultRef, State, TaskId};

/// Where a row is in the slab. It is used again once the row is removed; with the row's `seq` it is unique.
pub(super) type Slot = u32;

/// A task as it is kept: queue and kind are in its lane, a public `Task` is made when one is handed out.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: TaskId,
    pub(super) payload: Payload,
    pub(super) options: Option<Box<Options>>,
    /// Without details if the task has succeeded and left nothing but an inline result.
    pub(super) record: Record,
    /// That result.
    pub(super) result: Payload,
    pub(super) created_at: Timestamp,
    /// The number of its insertion, from 1; 0 in a slot that is free.
    pub(super) seq: u64,
    pub(super) lane: u32,
    pub(super) priority: i32,
    /// Where its slot is in its owner's list, while it is owned.
    pub(super) holding: u32,
}

/// What the indexes beside the rows know of a row: taken before and after a move, it says what to mend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) state: State,
    /// Whose list it is in: `None` in nobody's, `Some(None)` in that of the ownerless.
    pub(super) holder: Option<Option<ReplicaId>>,
    /// It runs and is wished to stop.
    pub(super) wished: bool,
    /// What its details cost; the rest never changes.
    pub(super) bytes: u64,
}

impl Row {
    pub(super) fn seat(&self) -> Seat {
        let record = &self.record;
        Seat {
            state: record.state,
            holder: record.state.is_owned().then_some(record.owner),
            wished: record.state == State::Running && record.cancel_requested,
            bytes: match record.details.as_deref() {
                Some(details) => details_bytes(details),
                None if self.is_stowed() => (self.result.len() + SHARED_BYTES) as u64,
                None => 0,
            },
        }
    }

    /// After every move: spares a plain success the box for all that a record may have. Millions of them are kept.
    pub(super) fn stow(&mut self) {
        let is_plain = |details: &mut Box<Details>| {
            let Details { handle, progress, output, result, failure, attempts } = &**details;
            let others = handle.is_some() || progress.is_some() || output.is_some() || failure.is_some();
            matches!(result, Some(ResultRef::Inline(_))) && !others && attempts.is_empty()
        };
        self.result = match self.record.state {
            State::Succeeded => match self.record.details.take_if(is_plain).and_then(|details| details.result) {
                Some(ResultRef::Inline(result)) => result,
                _ => return,
            },
            _ => Payload::null(),
        };
    }

    fn is_stowed(&self) -> bool {
        self.record.state == State::Succeeded && self.record.details.is_none()
    }

    /// The record as it is handed out.
    pub(super) fn whole_record(&self) -> Record {
        let mut record = self.record.clone();
        if self.is_stowed() {
            let result = Some(ResultRef::Inline(self.result.clone()));
            record.details = Some(Box::new(Details { result, ..Details::default() }));
        }
        record
    }

    /// When it is given up if it has not run by then.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.options.as_ref()?.deadline
    }
}

/// The memory of a row and its places in the indexes, without what it points to: rounded up from measurements.
pub(super) const ROW_BYTES: u64 = 272;
/// The header of a shared allocation.
const SHARED_BYTES: usize = 16;
/// A UUID is in the row; a text is beside it, and this is the length of a UUID's.
const UUID_TEXT_BYTES: usize = 36;

/// What a task costs without its details.
pub(super) fn task_bytes(id: &TaskId, payload: &Payload, options: Option<&Options>) -> u64 {
    let id = id.with_str(|text| if text.len() == UUID_TEXT_BYTES { 0 } else { text.len() + SHARED_BYTES });
    let options = options.map_or(0, |options| {
        let labels = options.labels.iter().map(|(name, value)| name.as_str().len() + value.len() + LABEL_BYTES);
        size_of::<Options>() + labels.sum::<usize>()
    });
    ROW_BYTES + (payload.len() + SHARED_BYTES + id + options) as u64
}

/// The map entry, the name's shared header and the value's `String`.
const LABEL_BYTES: usize = 64;

fn details_bytes(details: &Details) -> u64 {
    let failure = |failure: &Failure| failure.message.len();
    let attempt = |attempt: &Attempt| size_of::<Attempt>() + failure(&attempt.failure);
    let bytes = size_of::<Details>()
        + details.handle.as_ref().map_or(0, |handle| handle.as_str().len() + SHARED_BYTES)
        + details.progress.as_ref().map_or(0, |progress| progress.message.len())
        + details.output.as_ref().map_or(0, |output| output.len() + SHARED_BYTES)
        + details.result.as_ref().map_or(0, |result| match result {
            ResultRef::Inline(output) => output.len() + SHARED_BYTES,
            ResultRef::Stored { key, hash, .. } => key.len() + hash.len(),
        })
        + details.failure.as_ref().map_or(0, failure)
        + details.attempts.iter().map(attempt).sum::<usize>();
    bytes as u64
}

/// Where a UUID leads, whoever has made it.
fn slot_in(id: &TaskId) -> Option<Slot> {
    id.as_uuid().map(|uuid| uuid.as_u128() as Slot)
}

/// All rows. Indexing is by slots that an index holds or that [`Rows::find`] gave.
#[derive(Debug)]
pub(super) struct Rows {
    rows: Vec<Row>,
    free: Vec<Slot>,
    /// Those whose ids do not lead to them.
    // Slots only: 5 bytes a bucket, and the ids are compared in the rows. The hash is seeded, ids may be hostile.
    by_id: HashTable<Slot>,
    hasher: DefaultHashBuilder,
    empty: Payload,
}

impl Rows {
    pub(super) fn new() -> Self {
        Rows {
            rows: Vec::new(),
            free: Vec::new(),
            by_id: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            empty: Payload::from_bytes([]),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    pub(super) fn find(&self, id: &TaskId) -> Option<Slot> {
        let direct = slot_in(id).filter(|slot| {
            let row = self.rows.get(*slot as usize);
            row.is_some_and(|row| row.seq != 0 && row.id == *id)
        });
        if direct.is_some() || self.by_id.is_empty() {
            return direct;
        }
        self.by_id.find(self.hasher.hash_one(id), |slot| self[*slot].id == *id).copied()
    }

    /// A fresh id that leads to the row that is added next.
    pub(super) fn fresh_id(&self, clock: &dyn Clock) -> TaskId {
        let slot = self.free.last().map_or(self.rows.len(), |slot| *slot as usize);
        let random = new_uuid(clock).as_u128() & !u128::from(Slot::MAX);
        TaskId::from_uuid(Uuid::from_u128(random | slot as u128))
    }

    /// Whether the row of that insertion is still in that slot.
    pub(super) fn is_live(&self, slot: Slot, seq: u64) -> bool {
        self[slot].seq == seq
    }

    /// Adds a row whose id is not there.
    pub(super) fn add(&mut self, row: Row) -> Slot {
        let slot = match self.free.pop() {
            Some(slot) => {
                self[slot] = row;
                slot
            }
            None => {
                self.rows.push(row);
                (self.rows.len() - 1) as Slot
            }
        };
        if slot_in(&self[slot].id) != Some(slot) {
            let (rows, hasher) = (&self.rows, &self.hasher);
            let hash = |slot: &Slot| hasher.hash_one(&rows[*slot as usize].id);
            self.by_id.insert_unique(hash(&slot), slot, hash);
        }
        slot
    }

    /// Empties a slot. Its id lingers until the slot is used again.
    pub(super) fn remove(&mut self, slot: Slot) {
        if slot_in(&self[slot].id) != Some(slot) {
            let hash = self.hasher.hash_one(&self[slot].id);
            if let Ok(entry) = self.by_id.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
        }
        let empty = self.empty.clone();
        let row = &mut self[slot];
        (row.seq, row.payload, row.options, row.record) = (0, empty, None, Record::default());
        row.result = Payload::null();
        self.free.push(slot);
    }

    /// How many slots there are, free ones included.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.rows.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Row)> {
        (0..).zip(&self.rows).filter(|(_, row)| row.seq != 0)
    }
}

impl Index<Slot> for Rows {
    type Output = Row;

    fn index(&self, slot: Slot) -> &Row {
        &self.rows[slot as usize]
    }
}

impl IndexMut<Slot> for Rows {
    fn index_mut(&mut self, slot: Slot) -> &mut Row {
        &mut self.rows[slot as usize]
    }
}
