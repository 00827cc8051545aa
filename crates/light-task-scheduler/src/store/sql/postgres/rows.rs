//! Tasks as rows: reading, writing and removing them. The only place that writes the table `tasks`.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::lanes;
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::Result;
use crate::state::Moved;
use crate::store::sql::codec::{
    self, CANCEL_REQUESTED, HAS_REPORT, READY, SCHEDULED, STOP_UNCONFIRMED, details_json, inline_result, unreadable,
};
use crate::store::sql::ids::{self, Place};
use crate::store::sql::lanes::Lane;
use crate::store::sql::moves::{Change, Stored, keeps_report};
use crate::store::sql::plan::Key;
use crate::task::{Details, Options, Payload, Record, ReplicaId, Spec, State, Task, TaskId, fingerprint};

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
        concat!(super::rows::record_columns!(), ", t.rank, t.options, t.payload")
    };
}
pub(super) use {record_columns, task_columns};

/// How many columns a whole task has; what a statement selects beside it comes behind.
pub(super) const TASK_COLUMNS: usize = 23;
/// How many columns a record has.
pub(super) const RECORD_COLUMNS: usize = 20;
/// Where the columns of an [`id`] are among those of a record.
pub(super) const ID: [usize; 3] = [18, 0, 19];
/// Where [`rank`] is among the columns of a whole task.
pub(super) const RANK: usize = 20;

const SAVE: &str = "UPDATE {s}.tasks AS t SET stage = u.stage, run_at = u.run_at, owner = u.owner, claim = u.claim,
    run = u.run, execution = u.execution, generation = u.generation, attempt = u.attempt,
    interruptions = u.interruptions, lost_in_a_row = u.lost_in_a_row, flags = u.flags, started_at = u.started_at,
    finished_at = u.finished_at, details = u.details, output = u.output, result = u.result
    FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::integer[], $9::integer[], $10::integer[], $11::integer[], $12::smallint[], $13::bigint[], $14::bigint[],
        $15::text[], $16::bytea[], $17::bytea[])
    AS u (seq, stage, run_at, owner, claim, run, execution, generation, attempt, interruptions, lost_in_a_row, flags,
        started_at, finished_at, details, output, result) WHERE t.seq = u.seq";
const SAVE_OWNED: &str = "UPDATE {s}.tasks AS t SET stage = u.stage, owner = $1, claim = $2, run = u.run,
    execution = u.execution, attempt = u.attempt, started_at = u.started_at
    FROM unnest($3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::integer[], $8::bigint[])
    AS u (seq, stage, run, execution, attempt, started_at) WHERE t.seq = u.seq";
const FORGET_REPORTS: &str = "DELETE FROM {s}.reports WHERE task = ANY($1)";
const REMOVE: &str = "WITH gone AS (DELETE FROM {s}.tasks WHERE seq = ANY($1)),
    unsaid AS (DELETE FROM {s}.reports WHERE task = ANY($1))
    INSERT INTO {s}.tombstones (id, fingerprint, removed_at)
    SELECT id, fingerprint, $4 FROM unnest($2::text[], $3::bytea[]) AS u (id, fingerprint)
    ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint, removed_at = excluded.removed_at";
const KEEP_GARBAGE: &str = "INSERT INTO {s}.garbage (key) SELECT * FROM unnest($1::bytea[]) ON CONFLICT DO NOTHING";
const ANY_LIMIT: &str = "SELECT EXISTS (SELECT 1 FROM {s}.queues WHERE limited)";

/// The column `rank`: high priorities come first. Not the negative, which the lowest number does not have.
pub(super) fn rank(priority: i32) -> i32 {
    !priority
}

/// The id of a task, from the columns `id`, `seq` and `created_at`.
pub(super) fn id(salt: i64, row: &PgRow, [given, seq, created_at]: [usize; 3]) -> Work<TaskId> {
    if let Some(given) = row.try_get::<Option<&str>, _>(given)? {
        return Ok(TaskId::new(given)?);
    }
    let created_at = Timestamp::from_micros(row.try_get(created_at)?);
    Ok(ids::id(salt, Place { seq: row.try_get(seq)?, created_at })?)
}

/// Reads the record from the first columns of a row.
pub(super) fn stored(salt: i64, row: &PgRow) -> Work<Stored> {
    let (stage, flags) = (i64::from(row.try_get::<i16, _>(2)?), i64::from(row.try_get::<i16, _>(12)?));
    let owner: Option<Uuid> = row.try_get(4)?;
    let record = Record {
        state: codec::state(stage)?,
        cancel_requested: flags & CANCEL_REQUESTED != 0,
        stop_unconfirmed: flags & STOP_UNCONFIRMED != 0,
        run_at: Timestamp::from_micros(row.try_get(3)?),
        owner: owner.map(|id| ReplicaId::from_bytes(id.into_bytes())),
        run: row.try_get::<i64, _>(6)?.cast_unsigned(),
        execution: row.try_get::<i64, _>(7)?.cast_unsigned(),
        generation: row.try_get::<i32, _>(8)?.cast_unsigned(),
        attempt: row.try_get::<i32, _>(9)?.cast_unsigned(),
        interruptions: row.try_get::<i32, _>(10)?.cast_unsigned(),
        lost_in_a_row: row.try_get::<i32, _>(11)?.cast_unsigned(),
        started_at: row.try_get::<Option<i64>, _>(13)?.map(Timestamp::from_micros),
        finished_at: row.try_get::<Option<i64>, _>(14)?.map(Timestamp::from_micros),
        details: details(row, [15, 16, 17])?,
    };
    let (seq, lane, claim) = (row.try_get(0)?, row.try_get(1)?, row.try_get(5)?);
    let id = id(salt, row, ID)?;
    Ok(Stored { seq, lane, stage, claim, has_report: flags & HAS_REPORT != 0, id, record })
}

/// Reads the details from the columns `details`, `output` and `result`.
pub(super) fn details(row: &PgRow, [json, output, result]: [usize; 3]) -> Work<Option<Box<Details>>> {
    let bytes = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<&[u8]>, _>(column)?.map(Payload::from_bytes));
    let json: Option<&str> = row.try_get(json)?;
    Ok(codec::details(json.map(str::as_bytes), bytes(output)?, bytes(result)?)?)
}

/// Reads a whole task. The record moves from the first to the second.
pub(super) async fn task(tx: &mut Tx<'_>, row: &PgRow) -> Work<(Stored, Task)> {
    let mut stored = stored(tx.shared.salt, row)?;
    let lane = lanes::lane(tx, stored.lane).await?;
    let spec = spec(row, (&stored.id, lane), [19, RANK, 21, 22])?;
    let task = Task { id: stored.id.clone(), spec, record: std::mem::take(&mut stored.record) };
    Ok((stored, task))
}

/// Reads what a submitter gave, from the columns `created_at`, `rank`, `options` and `payload`.
pub(super) fn spec(
    row: &PgRow,
    (id, lane): (&TaskId, Lane),
    [created_at, rank, options, payload]: [usize; 4],
) -> Work<Spec> {
    let options = match row.try_get::<Option<&str>, _>(options)? {
        Some(json) => Some(
            serde_json::from_str::<Box<Options>>(json)
                .map_err(|e| unreadable("options of a task", format!("{id}: {e}")))?,
        ),
        None => None,
    };
    Ok(Spec {
        queue: lane.queue,
        kind: lane.kind,
        payload: Payload::from_bytes(row.try_get::<&[u8], _>(payload)?),
        priority: !row.try_get::<i32, _>(rank)?,
        created_at: Timestamp::from_micros(row.try_get(created_at)?),
        options,
    })
}

/// Reads whole tasks.
pub(super) async fn tasks(tx: &mut Tx<'_>, rows: &[PgRow]) -> Work<Vec<(Stored, Task)>> {
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows {
        tasks.push(task(tx, row).await?);
    }
    Ok(tasks)
}

/// Writes records.
pub(super) async fn save(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let stages: Vec<i16> = changes.iter().map(|(_, after)| codec::stage(after, now) as i16).collect();
    let flags: Vec<i16> =
        changes.iter().map(|(was, after)| codec::flags(after, keeps_report(was, after)) as i16).collect();
    let details = |(_, after): &Change<'_>| after.details.as_deref().and_then(details_json).transpose();
    let json: Vec<Option<String>> = changes.iter().map(details).collect::<Result<_>>()?;
    let output = |(_, after): &Change<'_>| after.output().map(|bytes| bytes.as_bytes().to_vec());
    let result = |(_, after): &Change<'_>| {
        after.details.as_deref().and_then(inline_result).map(|bytes| bytes.as_bytes().to_vec())
    };
    let query = tx
        .query(SAVE)
        .bind(column(changes, |(was, _)| was.seq))
        .bind(stages)
        .bind(column(changes, |(_, after)| after.run_at.as_micros()))
        .bind(column(changes, |(_, after)| after.owner.map(uuid)))
        .bind(column(changes, |(was, _)| was.claim))
        .bind(column(changes, |(_, after)| after.run.cast_signed()))
        .bind(column(changes, |(_, after)| after.execution.cast_signed()))
        .bind(column(changes, |(_, after)| after.generation.cast_signed()))
        .bind(column(changes, |(_, after)| after.attempt.cast_signed()))
        .bind(column(changes, |(_, after)| after.interruptions.cast_signed()))
        .bind(column(changes, |(_, after)| after.lost_in_a_row.cast_signed()))
        .bind(flags)
        .bind(column(changes, |(_, after)| after.started_at.map(Timestamp::as_micros)))
        .bind(column(changes, |(_, after)| after.finished_at.map(Timestamp::as_micros)))
        .bind(json)
        .bind(column(changes, output))
        .bind(column(changes, result));
    query.execute(tx.connection()).await?;
    let unsaid: Vec<i64> = changes
        .iter()
        .filter(|(was, after)| was.has_report && !keeps_report(was, after))
        .map(|(was, _)| was.seq)
        .collect();
    if !unsaid.is_empty() {
        tx.query(FORGET_REPORTS).bind(unsaid).execute(tx.connection()).await?;
    }
    moved(tx, changes, now).await
}

/// Writes records that a replica has claimed or adopted: less than [`save`] does, as these moves touch less.
pub(super) async fn save_owned(
    tx: &mut Tx<'_>,
    changes: &[Change<'_>],
    owner: ReplicaId,
    claim: Option<u64>,
) -> Work<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let query = tx
        .query(SAVE_OWNED)
        .bind(uuid(owner))
        .bind(claim.map(u64::cast_signed))
        .bind(column(changes, |(was, _)| was.seq))
        .bind(column(changes, |(_, after)| after.state as i16))
        .bind(column(changes, |(_, after)| after.run.cast_signed()))
        .bind(column(changes, |(_, after)| after.execution.cast_signed()))
        .bind(column(changes, |(_, after)| after.attempt.cast_signed()))
        .bind(column(changes, |(_, after)| after.started_at.map(Timestamp::as_micros)));
    query.execute(tx.connection()).await?;
    changes.iter().for_each(|(was, after)| tx.tally.moved(was.lane, was.stage, after.state as i64));
    Ok(())
}

fn column<T>(changes: &[Change<'_>], value: impl Fn(&Change<'_>) -> T) -> Vec<T> {
    changes.iter().map(value).collect()
}

/// A replica's id as a column takes it.
pub(super) fn uuid(id: ReplicaId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// Notes what these changes give a hint of.
async fn moved(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    let mut slot_freed = false;
    for (was, after) in changes {
        let stage = codec::stage(after, now);
        if stage == was.stage {
            continue;
        }
        tx.tally.moved(was.lane, was.stage, stage);
        if stage == READY {
            tx.arrived.push((was.lane, Key::FIRST));
        }
        slot_freed |= was.stage == State::Running as i64;
        tx.hint.work |= matches!(stage, READY | SCHEDULED);
        tx.hint.ends |= after.state.is_terminal();
    }
    if slot_freed && !tx.hint.work {
        // Somebody may wait for its slot.
        let row = tx.query(ANY_LIMIT).fetch_one(tx.connection()).await?;
        tx.hint.work = row.try_get(0)?;
    }
    Ok(())
}

/// Removes tasks and leaves tombstones.
pub(super) async fn remove(tx: &mut Tx<'_>, removed: &[(Stored, Task)], now: Timestamp) -> Work<()> {
    if removed.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = removed.iter().map(|(stored, _)| stored.seq).collect();
    let ids: Vec<String> = removed.iter().map(|(_, task)| task.id.to_string()).collect();
    let hashes: Vec<Vec<u8>> =
        removed.iter().map(|(_, task)| fingerprint(&task.spec.kind, &task.spec.payload).to_vec()).collect();
    let query = tx.query(REMOVE).bind(seqs).bind(ids).bind(hashes).bind(now.as_micros());
    query.execute(tx.connection()).await?;
    removed.iter().for_each(|(stored, _)| tx.tally.add(stored.lane, stored.stage, -1));
    tx.hint.ends = true;
    Ok(())
}

/// Keeps the keys of results that moves have left behind.
pub(super) async fn keep_garbage(tx: &mut Tx<'_>, moved: &[Moved]) -> Work<()> {
    let keys: Vec<&[u8]> = moved.iter().filter_map(|moved| moved.garbage.as_deref().map(str::as_bytes)).collect();
    if !keys.is_empty() {
        tx.query(KEEP_GARBAGE).bind(keys).execute(tx.connection()).await?;
    }
    Ok(())
}
