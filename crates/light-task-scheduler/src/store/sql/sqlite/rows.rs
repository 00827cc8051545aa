//! Tasks as rows: reading, writing and removing them. The only place that writes the table `tasks`.

use std::ops::RangeInclusive;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use super::error::unreadable;
use super::names::Names;
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::state::Moved;
use crate::store::sql::codec::{
    self, CANCEL_REQUESTED, HAS_REPORT, STOP_UNCONFIRMED, details_json, flags, inline_result, options_json, stage,
};
pub(super) use crate::store::sql::codec::{READY, SCHEDULED};
use crate::store::sql::ids::{self, Place};
use crate::task::{Details, Options, Payload, Record, Spec, State, Task, TaskId, fingerprint};

/// Larger bytes are kept beside the row, which is written again at every move.
const INLINE_BYTES_MAX: usize = 1_024;

/// The columns of a [`Stored`], in the order in which it reads them.
macro_rules! record_columns {
    () => {
        "seq, lane, stage, run_at, owner, claim, run, execution, generation, attempt, interruptions, lost_in_a_row, \
         flags, started_at, finished_at, details, output, result, id, created_at"
    };
}
/// Those of a whole task, in the order in which [`task`] reads them.
macro_rules! task_columns {
    () => {
        concat!(super::rows::record_columns!(), ", rank, options, payload")
    };
}
/// A row that has no id of its own, by the place that the id says: the same everywhere.
macro_rules! at_place {
    () => {
        " FROM tasks WHERE seq = ?1 AND created_at = ?2 AND id IS NULL"
    };
}
pub(super) use {at_place, record_columns, task_columns};

pub(super) const RECORD_BY_ID: &str = concat!("SELECT ", record_columns!(), " FROM tasks WHERE id = ?1");
pub(super) const TASK_AT_PLACE: &str = concat!("SELECT ", task_columns!(), at_place!());
pub(super) const TASK_BY_ID: &str = concat!("SELECT ", task_columns!(), " FROM tasks WHERE id = ?1");
pub(super) const RECORDS: &str = concat!("SELECT ", record_columns!(), " FROM tasks WHERE seq BETWEEN ?1 AND ?2");
pub(super) const TASKS: &str = concat!("SELECT ", task_columns!(), " FROM tasks WHERE seq BETWEEN ?1 AND ?2");
/// Whoever sees it fail rolls the transaction back. `OR FAIL` spares SQLite the copies of all the pages that it would
/// need to undo a part of the rows by itself.
pub(super) const SAVE: &str =
    "UPDATE OR FAIL tasks SET stage = ?3, run_at = coalesce(?4, run_at), owner = ?5, claim = ?6,
    run = ?7, execution = ?8, generation = ?9, attempt = ?10, interruptions = ?11, lost_in_a_row = ?12, flags = ?13,
    started_at = ?14, finished_at = ?15, details = ?16, output = ?17, result = ?18 WHERE seq BETWEEN ?1 AND ?2";

/// A record and where it is.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) lane: i64,
    pub(super) stage: i64,
    run_at: Timestamp,
    /// When it was created, if its id says its place.
    made_at: Option<Timestamp>,
    /// The number of the claim that took it, while that owner has it.
    pub(super) claim: Option<i64>,
    pub(super) has_report: bool,
    /// Whether output and result are beside the row.
    spilled: [bool; 2],
    pub(super) record: Record,
}

/// Which bytes beside a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Payload = 0,
    Output = 1,
    Result = 2,
}

fn blob_key(seq: i64, part: Part) -> i64 {
    seq * 4 + part as i64
}

/// Reads the record from the first columns of a row.
pub(super) fn stored(connection: &Connection, names: &mut Names, row: &Row<'_>) -> Result<Stored> {
    let (seq, stage, flags): (i64, i64, i64) = (row.get(0)?, row.get(2)?, row.get(12)?);
    let owner = row.get::<_, Option<i64>>(4)?.map(|number| names.replica(connection, number)).transpose()?;
    let record = Record {
        state: codec::state(stage)?,
        cancel_requested: flags & CANCEL_REQUESTED != 0,
        stop_unconfirmed: flags & STOP_UNCONFIRMED != 0,
        run_at: Timestamp::from_micros(row.get(3)?),
        owner,
        run: row.get::<_, i64>(6)?.cast_unsigned(),
        execution: row.get::<_, i64>(7)?.cast_unsigned(),
        generation: row.get(8)?,
        attempt: row.get(9)?,
        interruptions: row.get(10)?,
        lost_in_a_row: row.get(11)?,
        started_at: row.get::<_, Option<i64>>(13)?.map(Timestamp::from_micros),
        finished_at: row.get::<_, Option<i64>>(14)?.map(Timestamp::from_micros),
        details: details(connection, seq, row)?,
    };
    let (lane, claim) = (row.get(1)?, row.get(5)?);
    let beside = |column| Ok::<_, Error>(matches!(row.get_ref(column)?, ValueRef::Integer(_)));
    let spilled = [beside(16)?, beside(17)?];
    let made_at = match row.get_ref(18)? {
        ValueRef::Null => Some(Timestamp::from_micros(row.get(19)?)),
        _ => None,
    };
    let (run_at, has_report) = (record.run_at, flags & HAS_REPORT != 0);
    Ok(Stored { seq, lane, stage, run_at, made_at, claim, has_report, spilled, record })
}

fn details(connection: &Connection, seq: i64, row: &Row<'_>) -> Result<Option<Box<Details>>> {
    let json = row.get_ref(15)?;
    let output = payload(connection, seq, Part::Output, row.get_ref(16)?)?;
    let result = payload(connection, seq, Part::Result, row.get_ref(17)?)?;
    let json = match json {
        ValueRef::Text(json) => Some(json),
        _ => None,
    };
    codec::details(json, output, result)
}

/// Bytes that are in the row or, if it says their length, beside it.
fn payload(connection: &Connection, seq: i64, part: Part, value: ValueRef<'_>) -> Result<Option<Payload>> {
    match value {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => Ok(Some(Payload::from_bytes(bytes))),
        ValueRef::Integer(_) => connection
            .prepare_cached("SELECT bytes FROM blobs WHERE key = ?1")?
            .query_row([blob_key(seq, part)], |row| Ok(Some(Payload::from_bytes(row.get_ref(0)?.as_blob()?))))
            .map_err(Error::from),
        _ => Err(unreadable("payload", "it is text or a fraction")),
    }
}

/// Reads a whole task.
pub(super) fn task(connection: &Connection, names: &mut Names, row: &Row<'_>) -> Result<(Stored, Task)> {
    let mut stored = stored(connection, names, row)?;
    let created_at = Timestamp::from_micros(row.get(19)?);
    let id = id(connection, names, row.get_ref(18)?, Place { seq: stored.seq, created_at })?;
    let options = match row.get_ref(21)? {
        ValueRef::Text(json) => Some(
            serde_json::from_slice::<Box<Options>>(json)
                .map_err(|e| unreadable("options of a task", format!("{id}: {e}")))?,
        ),
        _ => None,
    };
    let payload = payload(connection, stored.seq, Part::Payload, row.get_ref(22)?)?;
    let lane = names.lane(connection, stored.lane)?;
    let spec = Spec {
        queue: lane.queue.clone(),
        kind: lane.kind.clone(),
        payload: payload.ok_or_else(|| unreadable("payload", &id))?,
        priority: i32::try_from(-row.get::<_, i64>(20)?).map_err(|e| unreadable("priority", e))?,
        created_at,
        options,
    };
    let record = std::mem::take(&mut stored.record);
    Ok((stored, Task { id, spec, record }))
}

/// The id of the task at a place, whose column of it has this value.
pub(super) fn id(connection: &Connection, names: &mut Names, column: ValueRef<'_>, place: Place) -> Result<TaskId> {
    match column {
        ValueRef::Null => ids::id(names.salt(connection)?, place),
        text => TaskId::new(text.as_str().map_err(|e| unreadable("id of a task", e))?),
    }
}

pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str> {
    row.get_ref(column)?.as_str().map_err(|e| unreadable("text", e))
}

/// Finds rows by the ids of their tasks: by the place that an id says, or else in the index.
pub(super) struct Finder<'c> {
    connection: &'c Connection,
    at_place: CachedStatement<'c>,
    by_id: CachedStatement<'c>,
}

impl<'c> Finder<'c> {
    /// Finds whole tasks.
    pub(super) fn tasks(connection: &'c Connection) -> Result<Self> {
        Finder::new(connection, TASK_AT_PLACE, TASK_BY_ID)
    }

    /// Finds what two statements read, which bind the place and the id.
    pub(super) fn new(connection: &'c Connection, at_place: &str, by_id: &str) -> Result<Self> {
        let (at_place, by_id) = (connection.prepare_cached(at_place)?, connection.prepare_cached(by_id)?);
        Ok(Finder { connection, at_place, by_id })
    }

    /// Reads what the columns of this finder are for.
    pub(super) fn find<T>(
        &mut self,
        names: &mut Names,
        id: &TaskId,
        read: impl Fn(&Connection, &mut Names, &Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        if let Some(place) = ids::place(names.salt(self.connection)?, id) {
            self.at_place.raw_bind_parameter(1, place.seq)?;
            self.at_place.raw_bind_parameter(2, place.created_at.as_micros())?;
            if let Some(row) = self.at_place.raw_query().next()? {
                return read(self.connection, names, row).map(Some);
            }
        }
        id.with_str(|id| self.by_id.raw_bind_parameter(1, id))?;
        self.by_id.raw_query().next()?.map(|row| read(self.connection, names, row)).transpose()
    }

    /// A whole task.
    pub(super) fn task(&mut self, names: &mut Names, id: &TaskId) -> Result<Option<(Stored, Task)>> {
        self.find(names, id, task)
    }
}

/// The ranges of neighbours in these ascending numbers of rows: one statement can deal with all of a range.
fn ranges(seqs: &[i64]) -> impl Iterator<Item = RangeInclusive<i64>> {
    seqs.chunk_by(|seq, next| next - seq == 1).filter_map(|range| Some(*range.first()?..=*range.last()?))
}

/// Reads the rows of these ascending numbers, as far as they are there.
fn read<T>(
    tx: &mut Tx<'_>,
    sql: &str,
    seqs: &[i64],
    read: impl Fn(&Connection, &mut Names, &Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = tx.connection.prepare_cached(sql)?;
    let mut found = Vec::with_capacity(seqs.len());
    for range in ranges(seqs) {
        statement.raw_bind_parameter(1, *range.start())?;
        statement.raw_bind_parameter(2, *range.end())?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            found.push(read(tx.connection, tx.names, row)?);
        }
    }
    Ok(found)
}

/// Reads the tasks of these ascending numbers.
pub(super) fn tasks(tx: &mut Tx<'_>, seqs: &[i64]) -> Result<Vec<(Stored, Task)>> {
    read(tx, TASKS, seqs, task)
}

/// The task of a number.
pub(super) fn task_at(tx: &mut Tx<'_>, seq: i64) -> Result<Option<(Stored, Task)>> {
    Ok(tasks(tx, &[seq])?.pop())
}

/// Records that were looked for.
pub(super) struct Found {
    /// By their numbers, each once.
    pub(super) records: Vec<Stored>,
    /// For each id the place of its record.
    pub(super) places: Vec<Option<usize>>,
}

/// Reads the records of these tasks.
pub(super) fn records<'i>(tx: &mut Tx<'_>, ids: impl ExactSizeIterator<Item = &'i TaskId> + Clone) -> Result<Found> {
    let salt = tx.names.salt(tx.connection)?;
    let (mut records, mut unread) = (Vec::with_capacity(ids.len()), Vec::new());
    for place in ids.clone().filter_map(|id| ids::place(salt, id)) {
        match tx.claimed.take(place.seq) {
            Some(stored) => records.push(stored),
            None => unread.push(place.seq),
        }
    }
    unread.sort_unstable();
    unread.dedup();
    records.extend(read(tx, RECORDS, &unread, stored)?);
    by_number(&mut records);
    let mut by_id = tx.connection.prepare_cached(RECORD_BY_ID)?;
    let (mut seqs, mut others) = (Vec::with_capacity(ids.len()), Vec::new());
    for id in ids {
        let made_at = |place: &Place| at(&records, place.seq).and_then(|found| records.get(found)?.made_at);
        let made = ids::place(salt, id).filter(|place| made_at(place) == Some(place.created_at));
        seqs.push(if let Some(place) = made {
            Some(place.seq)
        } else {
            id.with_str(|id| by_id.raw_bind_parameter(1, id))?;
            let other = by_id.raw_query().next()?.map(|row| stored(tx.connection, tx.names, row)).transpose()?;
            let seq = other.as_ref().map(|stored| stored.seq);
            others.extend(other);
            seq
        });
    }
    records.extend(others);
    by_number(&mut records);
    let places = seqs.into_iter().map(|seq| at(&records, seq?)).collect();
    Ok(Found { records, places })
}

/// Puts records into the order of their numbers, each once.
fn by_number(records: &mut Vec<Stored>) {
    records.sort_by_key(|stored| stored.seq);
    records.dedup_by_key(|stored| stored.seq);
}

/// The place of a number among ascending ones.
fn at(records: &[Stored], seq: i64) -> Option<usize> {
    records.binary_search_by_key(&seq, |stored| stored.seq).ok()
}

/// The values that a save writes into a row.
#[derive(PartialEq)]
struct Values<'r> {
    stage: i64,
    /// `None`: as it was. So tasks that came at different times can be written together.
    run_at: Option<i64>,
    owner: Option<i64>,
    claim: Option<i64>,
    run: i64,
    execution: i64,
    generation: u32,
    attempt: u32,
    interruptions: u32,
    lost_in_a_row: u32,
    flags: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    details: Option<String>,
    output: ToSqlOutput<'r>,
    result: ToSqlOutput<'r>,
}

impl<'r> Values<'r> {
    /// What is beside the row is written here.
    fn new(tx: &mut Tx<'_>, before: &Stored, after: &'r Record) -> Result<Self> {
        let seq = before.seq;
        let details = after.details.as_deref();
        let output = put(tx, seq, Part::Output, details.and_then(|details| details.output.as_ref()))?;
        let result = put(tx, seq, Part::Result, details.and_then(inline_result))?;
        for (part, was, is) in [(Part::Output, before.spilled[0], &output), (Part::Result, before.spilled[1], &result)]
        {
            if was && !matches!(is, ToSqlOutput::Owned(Value::Integer(_))) {
                tx.connection.prepare_cached("DELETE FROM blobs WHERE key = ?1")?.execute([blob_key(seq, part)])?;
            }
        }
        Ok(Values {
            stage: stage(after, tx.now),
            run_at: (after.run_at != before.run_at).then(|| after.run_at.as_micros()),
            owner: after.owner.map(|id| tx.names.replica_number(tx.connection, id)).transpose()?,
            claim: before.claim,
            run: after.run.cast_signed(),
            execution: after.execution.cast_signed(),
            generation: after.generation,
            attempt: after.attempt,
            interruptions: after.interruptions,
            lost_in_a_row: after.lost_in_a_row,
            flags: flags(after, keeps_report(before, after)),
            started_at: after.started_at.map(Timestamp::as_micros),
            finished_at: after.finished_at.map(Timestamp::as_micros),
            details: details.and_then(details_json).transpose()?,
            output,
            result,
        })
    }

    fn write(self, statement: &mut CachedStatement<'_>, seqs: RangeInclusive<i64>) -> Result<()> {
        let set = statement;
        set.raw_bind_parameter(1, *seqs.start())?;
        set.raw_bind_parameter(2, *seqs.end())?;
        set.raw_bind_parameter(3, self.stage)?;
        set.raw_bind_parameter(4, self.run_at)?;
        set.raw_bind_parameter(5, self.owner)?;
        set.raw_bind_parameter(6, self.claim)?;
        set.raw_bind_parameter(7, self.run)?;
        set.raw_bind_parameter(8, self.execution)?;
        set.raw_bind_parameter(9, self.generation)?;
        set.raw_bind_parameter(10, self.attempt)?;
        set.raw_bind_parameter(11, self.interruptions)?;
        set.raw_bind_parameter(12, self.lost_in_a_row)?;
        set.raw_bind_parameter(13, self.flags)?;
        set.raw_bind_parameter(14, self.started_at)?;
        set.raw_bind_parameter(15, self.finished_at)?;
        set.raw_bind_parameter(16, self.details)?;
        set.raw_bind_parameter(17, self.output)?;
        set.raw_bind_parameter(18, self.result)?;
        set.raw_execute()?;
        Ok(())
    }
}

/// Writes what [`step`](crate::state::step) made of records, in ascending order of the rows. Each row is as it was
/// read, but with the claim number that it shall have. Neighbours that get the same values share a statement: most
/// of a batch of claims or of ends does, and it halves the cost.
pub(super) fn save<'r>(tx: &mut Tx<'_>, changes: impl IntoIterator<Item = (&'r Stored, &'r Record)>) -> Result<()> {
    let mut statement = tx.connection.prepare_cached(SAVE)?;
    let mut alike: Option<(RangeInclusive<i64>, Values<'r>)> = None;
    for (before, after) in changes {
        let values = Values::new(tx, before, after)?;
        tx.claimed.forget(before.seq);
        if before.has_report && !keeps_report(before, after) {
            tx.connection.prepare_cached("DELETE FROM reports WHERE task = ?1")?.execute([before.seq])?;
        }
        moved(tx, before, values.stage)?;
        alike = match alike {
            Some((seqs, same)) if seqs.end() + 1 == before.seq && same == values => {
                Some((*seqs.start()..=before.seq, same))
            }
            others => {
                if let Some((seqs, values)) = others {
                    values.write(&mut statement, seqs)?;
                }
                Some((before.seq..=before.seq, values))
            }
        };
    }
    if let Some((seqs, values)) = alike {
        values.write(&mut statement, seqs)?;
    }
    Ok(())
}

/// Remembers a record that [`save`] has just written, for what its owner will report. Not worth it if the record is
/// large, or if the row would be found by an id that does not say its place.
pub(super) fn remember(tx: &mut Tx<'_>, before: &Stored, after: &Record) {
    if before.made_at.is_some() && after.details.is_none() {
        let (stage, has_report) = (stage(after, tx.now), keeps_report(before, after));
        let (run_at, spilled, record) = (after.run_at, [false; 2], after.clone());
        tx.claimed.keep(Stored { stage, run_at, has_report, spilled, record, ..*before });
    }
}

/// Whether the report that is kept for it stays.
fn keeps_report(before: &Stored, after: &Record) -> bool {
    before.has_report && after.state == State::Running
}

/// Keeps tallies and hints right.
fn moved(tx: &mut Tx<'_>, before: &Stored, stage: i64) -> Result<()> {
    if stage == before.stage {
        return Ok(());
    }
    tx.tally(before.lane, before.stage, -1);
    tx.tally(before.lane, stage, 1);
    if before.stage == State::Running as i64 {
        tx.slot_freed()?;
    }
    tx.hint.work |= matches!(stage, READY | SCHEDULED);
    tx.hint.ends |= (State::Succeeded as i64..=State::Cancelled as i64).contains(&stage);
    Ok(())
}

/// A task has another priority.
pub(super) fn prioritise(tx: &Tx<'_>, seq: i64, priority: i32) -> Result<()> {
    tx.connection.prepare_cached("UPDATE tasks SET rank = ?2 WHERE seq = ?1")?.execute([seq, rank(priority)])?;
    Ok(())
}

/// The column `rank`: high priorities come first.
fn rank(priority: i32) -> i64 {
    -i64::from(priority)
}

/// A task now has a report, kept in the table `reports`.
pub(super) fn mark_reported(tx: &mut Tx<'_>, seq: i64) -> Result<()> {
    const MARK: &str = "UPDATE tasks SET flags = flags | ?2 WHERE seq = ?1";
    tx.connection.prepare_cached(MARK)?.execute([seq, HAS_REPORT])?;
    tx.claimed.forget(seq);
    Ok(())
}

/// What to write into a column for these bytes; long ones go beside the row.
fn put<'p>(tx: &Tx<'_>, seq: i64, part: Part, bytes: Option<&'p Payload>) -> Result<ToSqlOutput<'p>> {
    const PUT: &str = "INSERT INTO blobs (key, bytes) VALUES (?1, ?2)
        ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes WHERE bytes <> excluded.bytes";
    let Some(bytes) = bytes else { return Ok(ToSqlOutput::Owned(Value::Null)) };
    if bytes.len() <= INLINE_BYTES_MAX {
        return Ok(ToSqlOutput::Borrowed(ValueRef::Blob(bytes.as_bytes())));
    }
    tx.connection.prepare_cached(PUT)?.execute((blob_key(seq, part), bytes.as_bytes()))?;
    Ok(ToSqlOutput::Owned(Value::Integer(i64::try_from(bytes.len()).unwrap_or(i64::MAX))))
}

/// A row to be made.
pub(super) struct NewRow<'a> {
    /// `None`: it says its own id.
    pub(super) id: Option<&'a TaskId>,
    pub(super) lane: i64,
    pub(super) priority: i32,
    pub(super) payload: &'a Payload,
    pub(super) options: Option<&'a Options>,
    pub(super) state: State,
    pub(super) run_at: Timestamp,
}

/// Makes rows, unless their id is taken.
pub(super) struct Insertion<'c> {
    statement: CachedStatement<'c>,
}

impl<'c> Insertion<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        const INSERT: &str =
            "INSERT INTO tasks (seq, lane, stage, rank, run_at, created_at, payload, id, deadline, options)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) WHERE id IS NOT NULL DO NOTHING";
        Ok(Insertion { statement: connection.prepare_cached(INSERT)? })
    }

    /// Where the row is now. `None`: there is a task of this id already.
    pub(super) fn insert(&mut self, tx: &mut Tx<'_>, new: &NewRow<'_>) -> Result<Option<Place>> {
        let set = &mut self.statement;
        let place = Place { seq: tx.seq + 1, created_at: tx.now };
        let stage = if new.state == State::Waiting && new.run_at > tx.now { SCHEDULED } else { new.state as i64 };
        let spilled = new.payload.len() > INLINE_BYTES_MAX;
        set.raw_bind_parameter(1, place.seq)?;
        set.raw_bind_parameter(2, new.lane)?;
        set.raw_bind_parameter(3, stage)?;
        set.raw_bind_parameter(4, rank(new.priority))?;
        set.raw_bind_parameter(5, new.run_at.as_micros())?;
        set.raw_bind_parameter(6, place.created_at.as_micros())?;
        if spilled {
            set.raw_bind_parameter(7, i64::try_from(new.payload.len()).unwrap_or(i64::MAX))?;
        } else {
            set.raw_bind_parameter(7, new.payload.as_bytes())?;
        }
        match new.id {
            Some(id) => id.with_str(|id| set.raw_bind_parameter(8, id))?,
            None => set.raw_bind_parameter(8, Value::Null)?,
        }
        set.raw_bind_parameter(9, new.options.and_then(|options| options.deadline).map(Timestamp::as_micros))?;
        set.raw_bind_parameter(10, new.options.map(options_json).transpose()?)?;
        if set.raw_execute()? == 0 {
            return Ok(None);
        }
        tx.seq = place.seq;
        if spilled {
            put(tx, place.seq, Part::Payload, Some(new.payload))?;
        }
        tx.tally(new.lane, stage, 1);
        tx.hint.work |= matches!(stage, READY | SCHEDULED);
        Ok(Some(place))
    }
}

/// Removes a task and leaves a tombstone.
pub(super) fn remove(tx: &mut Tx<'_>, stored: &Stored, task: &Task) -> Result<()> {
    const TOMBSTONE: &str = "INSERT OR REPLACE INTO tombstones (id, fingerprint, removed_at) VALUES (?1, ?2, ?3)";
    let hash = fingerprint(&task.spec.kind, &task.spec.payload);
    let connection = tx.connection;
    connection.prepare_cached("DELETE FROM tasks WHERE seq = ?1")?.execute([stored.seq])?;
    let (first, last) = (blob_key(stored.seq, Part::Payload), blob_key(stored.seq, Part::Result));
    connection.prepare_cached("DELETE FROM blobs WHERE key BETWEEN ?1 AND ?2")?.execute([first, last])?;
    if stored.has_report {
        connection.prepare_cached("DELETE FROM reports WHERE task = ?1")?.execute([stored.seq])?;
    }
    let id = task.id.to_string();
    connection.prepare_cached(TOMBSTONE)?.execute((id, &hash[..], tx.now.as_micros()))?;
    tx.tally(stored.lane, stored.stage, -1);
    tx.hint.ends = true;
    Ok(())
}

/// Keeps the key of a result that a move has left behind.
pub(super) fn keep_garbage(tx: &Tx<'_>, moved: &Moved) -> Result<()> {
    if let Some(key) = &moved.garbage {
        tx.connection.prepare_cached("INSERT OR IGNORE INTO garbage (key) VALUES (?1)")?.execute([key])?;
    }
    Ok(())
}

/// The fingerprint and the time of removal of a task that is gone.
pub(super) fn tombstone(connection: &Connection, id: &TaskId) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let mut statement = connection.prepare_cached("SELECT fingerprint, removed_at FROM tombstones WHERE id = ?1")?;
    let found = id.with_str(|id| {
        statement.query_row([id], |row| Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?)))).optional()
    })?;
    Ok(found)
}
