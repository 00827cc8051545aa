//! Tasks as rows: reading, writing and removing them. The only place that writes the table `tasks`.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::tx::{Tx, bind_all, filled, text, texts};
use super::{aside, lanes};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::database::mysql::sql::{LIST_MAX, parts};
use crate::error::Result;
use crate::state::Moved;
use crate::store::sql::codec::{
    self, CANCEL_REQUESTED, HAS_REPORT, READY, SCHEDULED, STOP_UNCONFIRMED, details_json, inline_result, unreadable,
};
use crate::store::sql::ids::{self, Place};
use crate::store::sql::moves::{Change, Stored, keeps_report};
use crate::task::{Options, Payload, Record, ReplicaId, Spec, State, Task, TaskId, fingerprint};

/// The columns of a [`Stored`], in the order in which it reads them, of a table called `t`.
macro_rules! record_columns {
    () => {
        "t.seq, t.lane, t.stage, t.run_at, t.owner, t.claim, t.run, t.execution, t.generation, t.attempt, \
         t.interruptions, t.lost_in_a_row, t.flags, t.started_at, t.finished_at, t.details, t.output, t.result, t.id, t.created_at"
    };
}
/// Those of a whole task, in the order in which [`task`] reads them.
macro_rules! task_columns {
    () => {
        concat!(super::rows::record_columns!(), ", t.precedence, t.options, t.payload")
    };
}
pub(super) use {record_columns, task_columns};

/// The column `place` of the tasks that a replica has, from its id.
macro_rules! place_of {
    ($id:literal) => {
        concat!("CAST(CONV(HEX(RIGHT(", $id, ", 7)), 16, 10) AS SIGNED)")
    };
}
/// What is running or being exported, as `t`, with its lane as `l`: the tables of a `FROM`, to which conditions are added
/// by `WHERE`.
macro_rules! active {
    () => {
        "(SELECT 2 AS stage UNION ALL SELECT 3) AS s CROSS JOIN {p}lanes AS l \
         STRAIGHT_JOIN {p}tasks AS t FORCE INDEX (tasks_ready) ON t.lane = l.id AND t.stage = s.stage"
    };
}
pub(super) use {active, place_of};

/// Whether somebody has a task of this stage: whether it is among the [`active`].
pub(super) fn is_active(stage: i64) -> bool {
    [State::Running, State::Exporting].iter().any(|state| *state as i64 == stage)
}

/// How many columns a whole task has; what a statement selects beside it comes behind.
pub(super) const TASK_COLUMNS: usize = 23;
/// How many columns a record has.
pub(super) const RECORD_COLUMNS: usize = 20;
/// Where the columns of an [`id`] are among those of a record.
pub(super) const ID: [usize; 3] = [18, 0, 19];
/// Where [`precedence`] is among the columns of a whole task.
pub(super) const PRECEDENCE: usize = 20;

/// The owner of what nobody has.
const NOBODY: [u8; 16] = [0; 16];
/// Of the column `flags`: the result is [`NULL`], and its column empty, so that most ends leave rows as long as they were.
const NULL_RESULT: i64 = 8;
/// The result of most functions that have none.
const NULL: &[u8] = b"null";

// The rows are there and locked: an insertion that always meets them, as nothing else updates many rows with
// different values in one statement that both MariaDB and MySQL understand.
const SAVE: &str = "INSERT INTO {p}tasks (seq, stage, run_at, owner, claim, run, execution, generation, attempt,
        interruptions, lost_in_a_row, flags, started_at, finished_at, details, output, result,
        lane, precedence, created_at, id, payload)
    VALUES {*(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, NULL, '')*}
    ON DUPLICATE KEY UPDATE stage = VALUES(stage), run_at = VALUES(run_at), owner = VALUES(owner),
        claim = VALUES(claim), run = VALUES(run), execution = VALUES(execution), generation = VALUES(generation),
        attempt = VALUES(attempt), interruptions = VALUES(interruptions), lost_in_a_row = VALUES(lost_in_a_row),
        flags = VALUES(flags), started_at = VALUES(started_at), finished_at = VALUES(finished_at),
        details = VALUES(details), output = VALUES(output), result = VALUES(result)";
const SAVE_ENDS: &str = "UPDATE {p}tasks SET stage = ?, finished_at = ?, lost_in_a_row = ?, flags = ?, details = ?,
    output = ?, result = ? WHERE seq IN ({*?*})";
/// From so many tasks with the same end on, one statement writes them.
const ENDS_MIN: usize = 8;
const SAVE_OWNED: &str = "UPDATE {p}tasks SET stage = ?, owner = ?, claim = ?, run = ?, execution = ?, attempt = ?,
    started_at = ? WHERE seq IN ({*?*})";
const FORGET_REPORTS: &str = "DELETE FROM {p}reports WHERE task IN ({*?*})";
const REMOVE: &str = "DELETE FROM {p}tasks WHERE seq IN ({*?*})";
const BURY: &str = "INSERT INTO {p}tombstones (id, fingerprint, removed_at) VALUES {*(?, ?, ?)*}
    ON DUPLICATE KEY UPDATE fingerprint = VALUES(fingerprint), removed_at = VALUES(removed_at)";
const KEEP_GARBAGE: &str = "INSERT INTO {p}garbage (hash, name) VALUES {*(UNHEX(SHA2(?, 256)), ?)*}
    ON DUPLICATE KEY UPDATE hash = VALUES(hash)";
const ANY_LIMIT: &str = "SELECT COUNT(*) FROM {p}queues WHERE limited = 1";

/// The column `precedence`: high priorities come first. Not the negative, which the lowest number does not have.
pub(super) fn precedence(priority: i32) -> i32 {
    !priority
}

/// The id of a task, from the columns `id`, `seq` and `created_at`.
pub(super) fn id(salt: i64, row: &MySqlRow, [given, seq, created_at]: [usize; 3]) -> Work<TaskId> {
    if let Some(given) = row.try_get::<Option<&[u8]>, _>(given)? {
        return Ok(TaskId::new(text(given)?)?);
    }
    let created_at = Timestamp::from_micros(row.try_get(created_at)?);
    Ok(ids::id(salt, Place { seq: row.try_get(seq)?, created_at })?)
}

/// The rows that a statement finds by a list of their numbers, of these ids; its first columns are those of a record.
pub(super) async fn find<'i>(
    tx: &mut Tx<'_>,
    template: &'static str,
    ids: impl Iterator<Item = &'i TaskId>,
) -> Work<Vec<MySqlRow>> {
    let (mut wanted, mut seqs, mut given) = (HashSet::new(), Vec::new(), Vec::new());
    for id in ids {
        match ids::place(tx.shared.salt, id) {
            Some(place) => seqs.push(place.seq),
            None => given.push(id),
        }
        wanted.insert(id);
    }
    let mut found = Vec::with_capacity(wanted.len());
    // Once more for those that only look as if they were made here.
    for _ in 0..2 {
        seqs.append(&mut given_seqs(tx, &given).await?);
        seqs.sort_unstable();
        seqs.dedup();
        for row in tx.find_all(template, &seqs).await? {
            if wanted.remove(&id(tx.shared.salt, &row, ID)?) {
                found.push(row);
            }
        }
        seqs.clear();
        given = wanted.iter().copied().filter(|id| ids::place(tx.shared.salt, id).is_some()).collect();
    }
    Ok(found)
}

/// The numbers of the rows that have these ids, and maybe others to which an id leads: both ways for each.
pub(super) async fn seqs(tx: &mut Tx<'_>, ids: &[TaskId]) -> Work<Vec<i64>> {
    let mut seqs = given_seqs(tx, &ids.iter().collect::<Vec<_>>()).await?;
    seqs.extend(ids.iter().filter_map(|id| Some(ids::place(tx.shared.salt, id)?.seq)));
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}

/// The numbers of the tasks with these given ids.
async fn given_seqs(tx: &mut Tx<'_>, ids: &[&TaskId]) -> Work<Vec<i64>> {
    let found = tx.find_all(aside::SEQS, &texts(ids.iter().copied())).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?)
}

/// Reads the record from the first columns of a row.
pub(super) fn stored(salt: i64, row: &MySqlRow) -> Work<Stored> {
    let (stage, flags): (i64, i64) = (row.try_get(2)?, row.try_get(12)?);
    let payload = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<&[u8]>, _>(column)?.map(Payload::from_bytes));
    let time = |column| Ok::<_, sqlx::Error>(or_none(row.try_get(column)?).map(Timestamp::from_micros));
    let result = if flags & NULL_RESULT == 0 { payload(17)? } else { Some(Payload::from_bytes(NULL)) };
    let record = Record {
        state: codec::state(stage)?,
        cancel_requested: flags & CANCEL_REQUESTED != 0,
        stop_unconfirmed: flags & STOP_UNCONFIRMED != 0,
        run_at: Timestamp::from_micros(row.try_get(3)?),
        owner: owner(row.try_get(4)?)?,
        run: row.try_get::<i64, _>(6)?.cast_unsigned(),
        execution: row.try_get::<i64, _>(7)?.cast_unsigned(),
        generation: row.try_get::<i32, _>(8)?.cast_unsigned(),
        attempt: row.try_get::<i32, _>(9)?.cast_unsigned(),
        interruptions: row.try_get::<i32, _>(10)?.cast_unsigned(),
        lost_in_a_row: row.try_get::<i32, _>(11)?.cast_unsigned(),
        started_at: time(13)?,
        finished_at: time(14)?,
        details: codec::details(row.try_get(15)?, payload(16)?, result)?,
    };
    let (seq, lane, claim) = (row.try_get(0)?, row.try_get(1)?, or_none(row.try_get(5)?));
    let id = id(salt, row, ID)?;
    Ok(Stored { seq, lane, stage, claim, has_report: flags & HAS_REPORT != 0, id, record })
}

/// Reads a whole task. The record moves from the first to the second.
pub(super) async fn task(tx: &mut Tx<'_>, row: &MySqlRow) -> Work<(Stored, Task)> {
    let mut stored = stored(tx.shared.salt, row)?;
    let options = match row.try_get::<Option<&[u8]>, _>(21)? {
        Some(json) => Some(
            serde_json::from_slice::<Box<Options>>(json)
                .map_err(|e| unreadable("options of a task", format!("{}: {e}", stored.id)))?,
        ),
        None => None,
    };
    let lane = lanes::lane(tx, stored.lane).await?;
    let spec = Spec {
        queue: lane.queue,
        kind: lane.kind,
        payload: Payload::from_bytes(row.try_get::<&[u8], _>(22)?),
        priority: !row.try_get::<i32, _>(PRECEDENCE)?,
        created_at: Timestamp::from_micros(row.try_get(19)?),
        options,
    };
    let task = Task { id: stored.id.clone(), spec, record: std::mem::take(&mut stored.record) };
    Ok((stored, task))
}

/// Reads whole tasks.
pub(super) async fn tasks(tx: &mut Tx<'_>, rows: &[MySqlRow]) -> Work<Vec<(Stored, Task)>> {
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows {
        tasks.push(task(tx, row).await?);
    }
    Ok(tasks)
}

/// The columns of a record that are not plain numbers.
#[derive(PartialEq)]
pub(super) struct Wide {
    details: Option<String>,
    output: Option<Payload>,
    result: Option<Payload>,
    /// Of the column `flags` what says that the result is `null`.
    flag: i64,
}

impl Wide {
    pub(super) fn of(after: &Record) -> Result<Self> {
        let details = after.details.as_deref();
        let result = details.and_then(inline_result);
        let is_null = result.is_some_and(|result| result.as_bytes() == NULL);
        Ok(Wide {
            details: details.and_then(details_json).transpose()?,
            output: after.output().cloned(),
            result: result.filter(|_| !is_null).cloned(),
            flag: if is_null { NULL_RESULT } else { 0 },
        })
    }

    /// Whether there is nothing but the result `null`.
    pub(super) fn is_null_alone(&self) -> bool {
        self.flag == NULL_RESULT && self.details.is_none() && self.output.is_none()
    }

    fn bytes(&self) -> usize {
        let payload = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
        self.details.as_ref().map_or(0, String::len) + payload(&self.output) + payload(&self.result)
    }
}

/// Writes records.
pub(super) async fn save(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let wide = changes.iter().map(|(_, after)| Wide::of(after)).collect::<Result<Vec<_>>>()?;
    let all: Vec<(&Change<'_>, &Wide)> = changes.iter().zip(&wide).collect();
    for part in parts(&all, |(_, wide)| wide.bytes()) {
        let mut query = tx.rows(SAVE, part.len());
        for ((was, after), wide) in part {
            let bytes = |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.as_bytes().to_vec());
            query = query
                .bind(was.seq)
                .bind(codec::stage(after, now))
                .bind(after.run_at.as_micros())
                .bind(after.owner.map_or(NOBODY.to_vec(), uuid))
                .bind(was.claim.unwrap_or(0))
                .bind(after.run.cast_signed())
                .bind(after.execution.cast_signed())
                .bind(after.generation.cast_signed())
                .bind(after.attempt.cast_signed())
                .bind(after.interruptions.cast_signed())
                .bind(after.lost_in_a_row.cast_signed())
                .bind(codec::flags(after, keeps_report(was, after)) | wide.flag)
                .bind(or_zero(after.started_at))
                .bind(or_zero(after.finished_at))
                .bind(wide.details.as_ref().map(|json| json.as_bytes().to_vec()))
                .bind(bytes(&wide.output))
                .bind(bytes(&wide.result));
        }
        query.execute(tx.connection()).await?;
    }
    note(tx, changes, now).await
}

/// Writes records of which nothing but the end is new: those with the same end together.
pub(super) async fn save_ends(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    let end = |after: &Record| (after.state as i64, after.finished_at, after.lost_in_a_row, codec::flags(after, false));
    let mut groups: Vec<(Wide, Vec<Change<'_>>)> = Vec::new();
    let mut others = Vec::new();
    for change in changes {
        let wide = Wide::of(change.1)?;
        let same = |(known, group): &(Wide, Vec<Change<'_>>)| {
            *known == wide && group.first().is_some_and(|(_, first)| end(first) == end(change.1))
        };
        // Few, or the tasks have results of their own, and are written one by one.
        match groups.iter().position(same) {
            Some(place) => groups[place].1.push(*change),
            None if groups.len() < ENDS_MIN => groups.push((wide, vec![*change])),
            None => others.push(*change),
        }
    }
    for (wide, group) in groups {
        if group.len() < ENDS_MIN {
            others.extend(group);
            continue;
        }
        for part in group.chunks(LIST_MAX) {
            let Some((_, after)) = part.first() else { continue };
            let (stage, finished_at, lost_in_a_row, flags) = end(after);
            let seqs: Vec<i64> = part.iter().map(|(was, _)| was.seq).collect();
            let bytes = |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.as_bytes().to_vec());
            let query = tx
                .listed(SAVE_ENDS, seqs.len())
                .bind(stage)
                .bind(or_zero(finished_at))
                .bind(lost_in_a_row.cast_signed())
                .bind(flags | wide.flag)
                .bind(wide.details.as_ref().map(|json| json.as_bytes().to_vec()))
                .bind(bytes(&wide.output))
                .bind(bytes(&wide.result));
            bind_all(query, filled(&seqs, seqs.len())).execute(tx.connection()).await?;
        }
        note(tx, &group, now).await?;
    }
    save(tx, &others, now).await
}

/// Forgets reports of tasks that have left `running`, keeps up what is kept aside, and notes what these changes give a
/// hint of.
async fn note(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    let unsaid = changes.iter().filter(|(was, after)| was.has_report && !keeps_report(was, after));
    let unsaid: Vec<i64> = unsaid.map(|(was, _)| was.seq).collect();
    tx.for_all(FORGET_REPORTS, &unsaid).await?;
    aside::follow(tx, changes, now).await?;
    moved(tx, changes, now).await
}

/// Writes records that a replica has claimed or adopted: less than [`save`] does, as these moves touch less, and
/// those that get the same values together.
pub(super) async fn save_owned(
    tx: &mut Tx<'_>,
    changes: &[Change<'_>],
    owner: ReplicaId,
    claim: Option<u64>,
) -> Work<()> {
    let values = |after: &Record| (after.state as i64, after.run, after.execution, after.attempt, after.started_at);
    let mut sorted: Vec<&Change<'_>> = changes.iter().collect();
    sorted.sort_by_key(|(was, after)| (values(after), was.seq));
    for group in sorted.chunk_by(|(_, a), (_, b)| values(a) == values(b)) {
        for part in group.chunks(LIST_MAX) {
            let Some((_, after)) = part.first() else { continue };
            let seqs: Vec<i64> = part.iter().map(|(was, _)| was.seq).collect();
            let query = tx
                .listed(SAVE_OWNED, seqs.len())
                .bind(after.state as i64)
                .bind(uuid(owner))
                .bind(claim.map_or(0, u64::cast_signed))
                .bind(after.run.cast_signed())
                .bind(after.execution.cast_signed())
                .bind(after.attempt.cast_signed())
                .bind(or_zero(after.started_at));
            bind_all(query, filled(&seqs, seqs.len())).execute(tx.connection()).await?;
        }
    }
    Ok(())
}

/// A replica's id as a column takes it.
pub(super) fn uuid(id: ReplicaId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Where a replica's tasks are in the index: its id's last seven bytes, which are random. The column `place` of what it
/// has, and what [`place_of`] says.
pub(super) fn place(id: ReplicaId) -> i64 {
    let mut last = [0; 8];
    last[1..].copy_from_slice(&id.as_bytes()[9..]);
    i64::from_be_bytes(last)
}

/// What is in a column that has a zero where there is nothing.
fn or_none(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

/// A time as a column takes it that has a zero where there is none.
fn or_zero(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_micros)
}

/// Who has a task, from a column.
pub(super) fn owner(bytes: &[u8]) -> Work<Option<ReplicaId>> {
    if bytes == NOBODY { Ok(None) } else { replica_id(bytes).map(Some) }
}

/// A replica's id from a column.
pub(super) fn replica_id(bytes: &[u8]) -> Work<ReplicaId> {
    let bytes = bytes.try_into().map_err(|_| unreadable("id of a replica", format!("{} bytes", bytes.len())))?;
    Ok(ReplicaId::from_bytes(bytes))
}

/// Notes what these changes give a hint of.
async fn moved(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    let mut slot_freed = false;
    for (was, after) in changes {
        let stage = codec::stage(after, now);
        if stage == was.stage {
            continue;
        }
        slot_freed |= was.stage == State::Running as i64;
        tx.hint.work |= matches!(stage, READY | SCHEDULED);
        tx.hint.ends |= after.state.is_terminal();
    }
    if slot_freed { self::slot_freed(tx).await } else { Ok(()) }
}

/// Tasks do not run any more: somebody may wait for their slots.
pub(super) async fn slot_freed(tx: &mut Tx<'_>) -> Work<()> {
    if !tx.hint.work {
        let row = tx.query(ANY_LIMIT).fetch_one(tx.connection()).await?;
        tx.hint.work = row.try_get::<i64, _>(0)? > 0;
    }
    Ok(())
}

/// Removes tasks and leaves tombstones.
pub(super) async fn remove(tx: &mut Tx<'_>, removed: &[(Stored, Task)], now: Timestamp) -> Work<()> {
    if removed.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = removed.iter().map(|(stored, _)| stored.seq).collect();
    aside::remove(tx, removed).await?;
    tx.for_all(REMOVE, &seqs).await?;
    tx.for_all(FORGET_REPORTS, &seqs).await?;
    let mut buried: Vec<&Task> = removed.iter().map(|(_, task)| task).collect();
    buried.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    for part in parts(&buried, |_| 0) {
        let mut query = tx.rows(BURY, part.len());
        for task in part {
            let hash = fingerprint(&task.spec.kind, &task.spec.payload);
            query = query.bind(task.id.to_string().into_bytes()).bind(hash.to_vec()).bind(now.as_micros());
        }
        query.execute(tx.connection()).await?;
    }
    tx.hint.ends = true;
    Ok(())
}

/// Keeps the keys of results that moves have left behind.
pub(super) async fn keep_garbage(tx: &mut Tx<'_>, moved: &[Moved]) -> Work<()> {
    let mut keys: Vec<&[u8]> = moved.iter().filter_map(|moved| moved.garbage.as_deref().map(str::as_bytes)).collect();
    keys.sort_unstable();
    for part in parts(&keys, |key| 2 * key.len()) {
        let query = tx.rows(KEEP_GARBAGE, part.len());
        let twice = part.iter().flat_map(|key| [key.to_vec(), key.to_vec()]);
        bind_all(query, twice).execute(tx.connection()).await?;
    }
    Ok(())
}
