//! The two moves that nearly every task makes, without reading it first: a claim, and a success.
//!
//! Both are decided by [`step`] all the same. A success is what `step` makes of the record that a running task has
//! most of the time, and is written only where the row is so. A claim is made in the server, and every
//! row that it answers is compared with what `step` makes of it.

use std::collections::HashMap;

use sqlx::Row;

use super::rows::{self, task_columns};
use super::tx::{Tx, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::{Error, Result};
use crate::state::{Event, RunEvent, step};
use crate::store::sql::codec::{READY, details_json, inline_result};
use crate::store::{Answer, Change, ClaimRequest};
use crate::task::{Record, State, Task, TaskId};

/// What a claim takes of these lanes, from their heads on, if no queue of theirs lets less than the limit through.
/// By the place of the row on the disk, which stays as it is while the row is locked: one whose place has changed
/// since the statement began is not found, and is left to the next claim.
pub(super) const CLAIM: &str = concat!(
    "WITH picked AS MATERIALIZED (
        SELECT h.tid FROM unnest($1::integer[], $6::integer[], $7::bigint[], $8::bigint[])
            AS l (lane, rank, run_at, seq) CROSS JOIN LATERAL (
            SELECT r.ctid AS tid, r.rank, r.run_at, r.seq FROM {s}.tasks AS r WHERE r.lane = l.lane AND r.stage = 1
                AND (r.rank, r.run_at, r.seq) >= (l.rank, l.run_at, l.seq) AND r.run_at <= $2
                AND (r.deadline IS NULL OR r.deadline > $2)
            ORDER BY r.rank, r.run_at, r.seq LIMIT $3 FOR UPDATE SKIP LOCKED) AS h
        ORDER BY h.rank, h.run_at, h.seq LIMIT $3),
    noted AS (UPDATE {s}.replicas SET claim = $5 WHERE id = $4 AND EXISTS (SELECT 1 FROM picked))
    UPDATE {s}.tasks AS t SET stage = 2, owner = $4, claim = $5, run = t.run + 1, execution = t.run + 1,
        attempt = t.attempt + 1, started_at = $2
    FROM picked WHERE t.ctid = picked.tid RETURNING ",
    task_columns!()
);
/// Successes of running tasks of which nothing is kept in `details`, of which nobody has wished a cancellation and
/// that have no report. Found by their ids: the sum keeps the planner from the index on what runs, which it
/// would read as a whole for each of them while it does not know better.
pub(super) const COMPLETE: &str = concat!(
    "WITH done AS (UPDATE {s}.tasks AS t SET stage = 4, finished_at = n.now, lost_in_a_row = 0, flags = 0, details = u.details,
        result = u.result
    FROM (SELECT ",
    now!(),
    " + $1 AS now OFFSET 0) AS n,
        unnest($2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[]) AS u (id, owner, run, details, result)
    WHERE t.id = u.id AND t.owner = u.owner AND t.run = u.run AND t.stage + 0 = 2 AND t.flags & 5 = 0
        AND t.details IS NULL AND t.output IS NULL AND t.result IS NULL
    RETURNING t.id, t.lane),
    told AS (INSERT INTO {s}.tallies (lane, stage, n) SELECT d.lane, m.stage, m.n * d.n
        FROM (SELECT lane, count(*) AS n FROM done GROUP BY lane) AS d,
        (VALUES (2::smallint, -1), (4::smallint, 1)) AS m (stage, n))
    SELECT done.id, EXISTS (SELECT 1 FROM {s}.queues WHERE limited) FROM done"
);

/// Claims up to `limit` of the first ready tasks of these lanes, in order, and notes the claim's number.
pub(super) async fn claim(
    tx: &mut Tx<'_>,
    request: &ClaimRequest,
    (lanes, ranks, run_ats, seqs): (Vec<i32>, Vec<i32>, Vec<i64>, Vec<i64>),
    now: Timestamp,
) -> Work<Vec<Task>> {
    let query = tx
        .query(CLAIM)
        .bind(lanes)
        .bind(now.as_micros())
        .bind(i64::try_from(request.limit).unwrap_or(i64::MAX))
        .bind(rows::uuid(request.replica))
        .bind(request.number.cast_signed())
        .bind(ranks)
        .bind(run_ats)
        .bind(seqs);
    let found = query.fetch_all(tx.connection()).await?;
    let mut claimed = rows::tasks(tx, &found).await?;
    for (stored, task) in &claimed {
        tx.tally.moved(stored.lane, READY, stored.stage);
        check_claim(&task.record, request, now).map_err(|why| {
            Error::internal(format!(
                "the claim of the task {} is not what the state machine makes of it: {why}",
                task.id
            ))
        })?;
    }
    claimed.sort_by_key(|(stored, task)| (!task.spec.priority, task.record.run_at, stored.seq));
    Ok(claimed.into_iter().map(|(_, task)| task).collect())
}

/// Whether the server has made of a record what [`step`] makes of it. All that it overwrites, `step` does too, so
/// that the record before can be had from the one after.
fn check_claim(after: &Record, request: &ClaimRequest, now: Timestamp) -> Result<(), String> {
    let run = after.run.checked_sub(1).ok_or("the run is 0")?;
    let attempt = after.attempt.checked_sub(1).ok_or("the attempt is 0")?;
    let mut record = Record { state: State::Waiting, run, attempt, ..after.clone() };
    step(&mut record, Event::Claim { owner: request.replica }, now).map_err(|refusal| refusal.to_string())?;
    if record == *after { Ok(()) } else { Err(format!("{after:?} in place of {record:?}")) }
}

/// Applies the successes among these changes that can be applied without reading; the others have no answer.
pub(super) async fn complete(tx: &mut Tx<'_>, changes: &[Change]) -> Work<Vec<Option<Answer>>> {
    let mut answers = vec![None; changes.len()];
    let mut times: HashMap<&TaskId, usize> = HashMap::with_capacity(changes.len());
    changes.iter().for_each(|change| *times.entry(&change.id).or_default() += 1);
    // What is said twice of a task is left to those who look.
    let is_quick = |change: &Change| matches!(change.event, RunEvent::Complete(_)) && times.get(&change.id) == Some(&1);
    let mut quick: Vec<(String, usize)> = changes
        .iter()
        .enumerate()
        .filter(|(_, change)| is_quick(change))
        .map(|(n, change)| (change.id.to_string(), n))
        .collect();
    if quick.is_empty() {
        return Ok(answers);
    }
    // Locked in the order of their ids, as everywhere.
    quick.sort_unstable();
    let (mut ids, mut owners, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut details, mut results) = (Vec::new(), Vec::new());
    let mut places = HashMap::with_capacity(quick.len());
    for (id, place) in quick {
        let Some(Change { token, event, .. }) = changes.get(place) else { continue };
        let mut record =
            Record { state: State::Running, owner: Some(token.owner), run: token.run, ..Record::default() };
        if step(&mut record, Event::Run(*token, event.clone()), Timestamp::default()).is_err() {
            continue;
        }
        let made = record.details.unwrap_or_default();
        details.push(details_json(&made).transpose()?);
        results.push(inline_result(&made).map(|bytes| bytes.as_bytes().to_vec()));
        owners.push(rows::uuid(token.owner));
        runs.push(token.run.cast_signed());
        places.insert(id.clone(), place);
        ids.push(id);
    }
    let query =
        tx.query(COMPLETE).bind(tx.shared.offset()).bind(ids).bind(owners).bind(runs).bind(details).bind(results);
    for row in query.fetch_all(tx.connection()).await? {
        if let Some(answer) = places.get(row.try_get::<&str, _>(0)?).and_then(|place| answers.get_mut(*place)) {
            *answer = Some(Answer::Applied(Some(State::Succeeded)));
        }
        tx.hint.ends = true;
        tx.hint.work |= row.try_get::<bool, _>(1)?;
    }
    Ok(answers)
}
