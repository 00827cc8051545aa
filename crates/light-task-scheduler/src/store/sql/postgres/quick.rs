//! The two moves that nearly every task makes, without reading it first: a claim, and a success.
//!
//! Both are decided by [`step`] all the same. A success is what `step` makes of the record that a running task has
//! most of the time, and is written only where the row is so. A claim is made in the server, which answers what a row
//! had before and what no claim changes; the rest is not sent, as `step` makes the same of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{Decode, Encode, Postgres, Row, Type};
use tokio::task::JoinHandle;

use super::rows;
use super::tx::{Shared, Tx, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::{Error, Result};
use crate::state::{Event, RunEvent, step};
use crate::store::sql::codec::{CANCEL_REQUESTED, READY, STOP_UNCONFIRMED, details_json, inline_result, unreadable};
use crate::store::sql::ids;
use crate::store::{Answer, Change, Claim, ClaimRequest};
use crate::task::{Details, Record, ReplicaId, State, Task, TaskId};

/// What a claim takes of these lanes, from their heads on, if no queue of theirs lets less than the limit through.
/// By the place of the row on the disk, which stays as it is while the row is locked: one whose place has changed
/// since the statement began is not found, and is left to the next claim. As an array: a join would
/// look for each by itself. What comes back of a task is read by [`claimed`].
pub(super) const CLAIM: &str = "WITH picked AS MATERIALIZED (SELECT ARRAY(
        SELECT h.tid FROM unnest($1::integer[], $6::integer[], $7::bigint[], $8::bigint[])
            AS l (lane, rank, run_at, seq) CROSS JOIN LATERAL (
            SELECT r.ctid AS tid, r.rank, r.run_at, r.seq FROM {s}.tasks AS r WHERE r.lane = l.lane AND r.stage = 1
                AND (r.rank, r.run_at, r.seq) >= (l.rank, l.run_at, l.seq) AND r.run_at <= $2
                AND (r.deadline IS NULL OR r.deadline > $2)
            ORDER BY r.rank, r.run_at, r.seq LIMIT $3 FOR UPDATE SKIP LOCKED) AS h
        ORDER BY h.rank, h.run_at, h.seq LIMIT $3) AS tids),
    noted AS (UPDATE {s}.replicas SET claim = $5 WHERE id = $4 AND (SELECT cardinality(tids) > 0 FROM picked))
    UPDATE {s}.tasks AS t SET stage = 2, owner = $4, claim = $5, run = t.run + 1, execution = t.run + 1,
        attempt = t.attempt + 1, started_at = $2
    WHERE t.ctid = ANY((SELECT tids FROM picked)::tid[])
    RETURNING t.seq, t.lane, t.run_at, t.created_at, t.rank, t.payload, t.id, t.options, t.details, t.output, t.result,
        CASE WHEN t.run <> 1 OR t.attempt <> 1 OR t.generation <> 0 OR t.interruptions <> 0 OR t.lost_in_a_row <> 0
            OR t.flags <> 0
        THEN ARRAY[t.run, t.attempt, t.generation, t.interruptions, t.lost_in_a_row, t.flags] END";
/// What [`CLAIM`] leaves out: run, attempt, generation, interruptions, lost in a row and flags of a task's first run.
const FIRST_RUN: [i64; 6] = [1, 1, 0, 0, 0, 0];
/// Keys and what is written of the tasks that they name.
macro_rules! ends {
    ($type:literal, $name:literal) => {
        concat!(
            "unnest($3::",
            $type,
            ", $4::bigint[], $5::bigint[], $6::text[], $7::bytea[]) AS ",
            $name,
            " (key, created_at, run, details, result)"
        )
    };
}
/// Successes of running tasks of one owner, of which nothing is kept in `details`, of which nobody has wished a
/// cancellation and that have no report. Found by their numbers or ids: the sum keeps the planner from the index on what
/// runs, which it would read as a whole for each of them while it does not know better.
macro_rules! complete {
    ($ends:expr, $found:literal) => {
        concat!(
            "WITH done AS (UPDATE {s}.tasks AS t SET stage = 4, finished_at = (SELECT ",
            now!(),
            " + $1), lost_in_a_row = 0, flags = 0, details = u.details, result = u.result FROM ",
            $ends,
            " WHERE ",
            $found,
            " AND t.owner = $2 AND t.run = u.run AND t.stage + 0 = 2 AND t.flags & 5 = 0
        AND t.details IS NULL AND t.output IS NULL AND t.result IS NULL
    RETURNING u.key, t.lane),
    told AS (INSERT INTO {s}.tallies (lane, stage, n) SELECT d.lane, m.stage, m.n * d.n
        FROM (SELECT lane, count(*) AS n FROM done GROUP BY lane) AS d,
        (VALUES (2::smallint, -1), (4::smallint, 1)) AS m (stage, n))
    SELECT array_agg(key), EXISTS (SELECT 1 FROM {s}.queues WHERE limited) FROM done"
        )
    };
}
/// Those whose ids say where their rows are.
pub(super) const COMPLETE: &str =
    complete!(ends!("bigint[]", "u"), "t.seq = u.key AND t.created_at = u.created_at AND t.id IS NULL");
/// Those with other ids, in the order of their numbers all the same.
pub(super) const COMPLETE_GIVEN: &str = complete!(
    concat!(
        "(SELECT i.seq, v.* FROM ",
        ends!("text[]", "v"),
        " JOIN {s}.tasks AS i ON i.id = v.key ORDER BY i.seq OFFSET 0) AS u"
    ),
    "t.seq = u.seq"
);

/// From so many claimed tasks on another thread reads their rows.
const READ_ASIDE_MIN: usize = 64;

/// The tasks of a claim, which another thread reads from their rows while the claim is committed: a thousand take as long
/// as that, and the next claim waits for both.
pub(super) struct Reading(JoinHandle<Work<Vec<Task>>>);

impl Reading {
    /// Waits for them.
    pub(super) async fn tasks(self) -> Work<Vec<Task>> {
        self.0.await.map_err(|e| Error::internal("claimed tasks were not read").with_source(e))?
    }
}

/// Claims up to `limit` of the first ready tasks of these lanes, in order, and notes the claim's number. Few are in the
/// claim then, many are being read.
pub(super) async fn claim(
    tx: &mut Tx<'_>,
    request: &ClaimRequest,
    (lanes, ranks, run_ats, seqs): (Vec<i32>, Vec<i32>, Vec<i64>, Vec<i64>),
    claim: &mut Claim,
) -> Work<Option<Reading>> {
    let query = tx
        .query(CLAIM)
        .bind(lanes)
        .bind(claim.now.as_micros())
        .bind(i64::try_from(request.limit).unwrap_or(i64::MAX))
        .bind(rows::uuid(request.replica))
        .bind(request.number.cast_signed())
        .bind(ranks)
        .bind(run_ats)
        .bind(seqs);
    let found = query.fetch_all(tx.connection()).await?;
    for row in &found {
        tx.tally.moved(row.try_get(1)?, READY, State::Running as i64);
    }
    let (shared, owner, now) = (Arc::clone(&tx.shared), request.replica, claim.now);
    if found.len() < READ_ASIDE_MIN {
        claim.tasks = read(&shared, &found, owner, now)?;
        return Ok(None);
    }
    Ok(Some(Reading(tokio::task::spawn_blocking(move || read(&shared, &found, owner, now)))))
}

/// The tasks that [`CLAIM`] has taken, in the order of claims.
fn read(shared: &Shared, rows: &[PgRow], owner: ReplicaId, now: Timestamp) -> Work<Vec<Task>> {
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        taken.push((row.try_get::<i64, _>(0)?, claimed(shared, row, owner, now)?));
    }
    taken.sort_by_key(|(seq, task)| (!task.spec.priority, task.record.run_at, *seq));
    Ok(taken.into_iter().map(|(_, task)| task).collect())
}

/// A task that [`CLAIM`] has taken: what [`step`] makes of what its row was.
fn claimed(shared: &Shared, row: &PgRow, owner: ReplicaId, now: Timestamp) -> Work<Task> {
    let id = rows::id(shared.salt, row, [6, 0, 3])?;
    let impossible = |why: &dyn Display| Error::internal(format!("the ready task {id} cannot be claimed: {why}"));
    let counts: Option<Vec<i64>> = row.try_get(11)?;
    let counts = counts.as_deref().unwrap_or(&FIRST_RUN);
    let &[run, attempt, generation, interruptions, lost_in_a_row, flags] = counts else {
        return Err(unreadable("counts of a task", counts.len()).into());
    };
    let counted = |count| i32::try_from(count).map(i32::cast_unsigned).map_err(|e| unreadable("count of a task", e));
    // The statement has counted both up.
    let before = |count: i64| count.checked_sub(1).ok_or_else(|| impossible(&"it has no run"));
    let mut record = Record {
        state: State::Waiting,
        cancel_requested: flags & CANCEL_REQUESTED != 0,
        stop_unconfirmed: flags & STOP_UNCONFIRMED != 0,
        run_at: Timestamp::from_micros(row.try_get(2)?),
        run: before(run)?.cast_unsigned(),
        generation: counted(generation)?,
        attempt: counted(before(attempt)?)?,
        interruptions: counted(interruptions)?,
        lost_in_a_row: counted(lost_in_a_row)?,
        details: rows::details(row, [8, 9, 10])?,
        ..Record::default()
    };
    step(&mut record, Event::Claim { owner }, now).map_err(|refusal| impossible(&refusal))?;
    let number = row.try_get(1)?;
    // The look that has found it knows its lane.
    let lane = shared.lanes.get(number).ok_or_else(|| unreadable("lane of a task", number))?;
    let spec = rows::spec(row, (&id, lane), [3, 4, 7, 5])?;
    Ok(Task { id, spec, record })
}

/// Applies the successes among these changes that can be applied without reading; the others have no answer.
pub(super) async fn complete(tx: &mut Tx<'_>, changes: &[Change]) -> Work<Vec<Option<Answer>>> {
    let mut answers = vec![None; changes.len()];
    let mut times: HashMap<&TaskId, usize> = HashMap::with_capacity(changes.len());
    changes.iter().for_each(|change| *times.entry(&change.id).or_default() += 1);
    let Some(owner) = changes.first().map(|change| change.token.owner) else { return Ok(answers) };
    let (mut here, mut given) = (Ends::default(), Ends::default());
    for (place, Change { id, token, event }) in changes.iter().enumerate() {
        // What is said twice of a task is left to those who look.
        if !matches!(event, RunEvent::Complete(_)) || times.get(id) != Some(&1) || token.owner != owner {
            continue;
        }
        let mut record =
            Record { state: State::Running, owner: Some(token.owner), run: token.run, ..Record::default() };
        if step(&mut record, Event::Run(*token, event.clone()), Timestamp::default()).is_err() {
            continue;
        }
        let details = record.details.unwrap_or_default();
        match ids::place(tx.shared.salt, id) {
            Some(row) => here.push(row.seq, row.created_at, token.run, &details, place)?,
            None => given.push(id.to_string(), Timestamp::default(), token.run, &details, place)?,
        }
    }
    here.write(tx, COMPLETE, owner, &mut answers).await?;
    given.write(tx, COMPLETE_GIVEN, owner, &mut answers).await?;
    Ok(answers)
}

/// Successes of tasks that are found by a key.
struct Ends<K> {
    /// By their keys, so that they are locked in this order, as everywhere.
    by_key: BTreeMap<K, End>,
}

/// The end of one task.
struct End {
    created_at: Timestamp,
    run: u64,
    details: Option<String>,
    result: Option<Vec<u8>>,
    /// Where its answer belongs.
    place: usize,
}

impl<K> Default for Ends<K> {
    fn default() -> Self {
        Ends { by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Ends<K>
where
    Vec<K>: for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'r> Decode<'r, Postgres>,
{
    fn push(&mut self, key: K, created_at: Timestamp, run: u64, details: &Details, place: usize) -> Result<()> {
        let result = inline_result(details).map(|bytes| bytes.as_bytes().to_vec());
        let details = details_json(details).transpose()?;
        self.by_key.insert(key, End { created_at, run, details, result, place });
        Ok(())
    }

    async fn write(
        &mut self,
        tx: &mut Tx<'_>,
        statement: &'static str,
        owner: ReplicaId,
        answers: &mut [Option<Answer>],
    ) -> Work<()> {
        if self.by_key.is_empty() {
            return Ok(());
        }
        let column = |value: fn(&End) -> i64| self.by_key.values().map(value).collect::<Vec<i64>>();
        let query = tx
            .query(statement)
            .bind(tx.shared.offset())
            .bind(rows::uuid(owner))
            .bind(self.by_key.keys().cloned().collect::<Vec<K>>())
            .bind(column(|end| end.created_at.as_micros()))
            .bind(column(|end| end.run.cast_signed()))
            .bind(self.by_key.values_mut().map(|end| end.details.take()).collect::<Vec<_>>())
            .bind(self.by_key.values_mut().map(|end| end.result.take()).collect::<Vec<_>>());
        let row = query.fetch_one(tx.connection()).await?;
        let done: Vec<K> = row.try_get::<Option<_>, _>(0)?.unwrap_or_default();
        for end in done.iter().filter_map(|key| self.by_key.get(key)) {
            if let Some(answer) = answers.get_mut(end.place) {
                *answer = Some(Answer::Applied(Some(State::Succeeded)));
            }
        }
        tx.hint.ends |= !done.is_empty();
        tx.hint.work |= !done.is_empty() && row.try_get::<bool, _>(1)?;
        Ok(())
    }
}
