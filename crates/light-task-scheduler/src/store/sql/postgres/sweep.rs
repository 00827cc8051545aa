//! Housekeeping: retention, tombstones and results that nobody refers to any more.
//!
//! No index says what has ended when: it would cost every task, at its end, a tenth of the work. Tasks are numbered as
//! they come, so that the old ones are the first. A sweep reads on from the first until it meets only such as came in
//! too lately to be old, or has read enough. What may lie behind, as behind many that stay, or that a wrong clock has
//! dated ahead, is found by a second walk, which goes on where the one of the last sweep has ended.

use std::sync::atomic::Ordering::SeqCst;

use sqlx::Row;

use super::rows::{self, task_columns};
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::store::sql::codec::unreadable;
use crate::store::sql::moves::{self, Stored};
use crate::store::sql::tally::ROWS_MAX;
use crate::store::sql::texts::label_name;
use crate::store::{Sweep, SweepRequest, TOMBSTONE_TTL};
use crate::task::Task;

/// How many tasks are looked at by one statement: a millisecond, where they are in memory.
const WINDOW: i64 = 5_000;
/// Most of these statements in one walk.
const WINDOWS_MAX: usize = 10;
/// Most old tombstones forgotten by one sweep.
const TOMBSTONES_MAX: i64 = 10_000;

/// Of the tasks behind a number: those that are to be removed, the last of all that were looked at, how many these are,
/// and whether any of them came in long enough ago.
pub(super) const OLD: &str =
    "SELECT (array_agg(l.seq ORDER BY l.seq) FILTER (WHERE l.finished_at < $3 AND l.stage = ANY($4)
        AND ($5::text IS NULL OR l.labels IS NULL OR NOT l.labels @> ARRAY[$5])))[1:$6], max(l.seq), count(*),
        bool_or(l.created_at < $3)
    FROM (SELECT t.seq, t.created_at, t.finished_at, t.stage, t.labels FROM {s}.tasks AS t WHERE t.seq > $1
        ORDER BY t.seq LIMIT $2) AS l";
const LOCK: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.tasks AS t WHERE t.seq = ANY($1) ORDER BY t.seq FOR UPDATE SKIP LOCKED"
);
const FOLD: &str = "WITH gone AS (DELETE FROM {s}.tallies WHERE (SELECT count(*) FROM {s}.tallies) > $1
        RETURNING lane, stage, n)
    INSERT INTO {s}.tallies (lane, stage, n) SELECT lane, stage, sum(n) FROM gone GROUP BY lane, stage
    HAVING sum(n) <> 0";
const CONFIRM: &str = "DELETE FROM {s}.garbage WHERE key = ANY($1)";
const GARBAGE: &str = "SELECT key FROM {s}.garbage LIMIT $1";
const FORGET: &str = "DELETE FROM {s}.tombstones WHERE id IN (
    SELECT id FROM {s}.tombstones WHERE removed_at < $1 ORDER BY removed_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// Removes what is older than asked, and tidies up.
pub(super) async fn sweep(tx: &mut Tx<'_>, request: &SweepRequest) -> Work<Sweep> {
    let now = tx.now().await?;
    let mut sweep = Sweep::default();
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    if let Some(age) = request.older_than.filter(|_| !request.states.is_empty() && request.limit > 0) {
        sweep.removed = remove(tx, request, now, now - age).await?;
    }
    if !request.confirmed.is_empty() {
        let confirmed: Vec<&[u8]> = request.confirmed.iter().map(|key| key.as_bytes()).collect();
        tx.query(CONFIRM).bind(confirmed).execute(tx.connection()).await?;
    }
    fold(tx).await?;
    let oldest = now - TOMBSTONE_TTL;
    tx.query(FORGET).bind(oldest.as_micros()).bind(TOMBSTONES_MAX).execute(tx.connection()).await?;
    for row in tx.query(GARBAGE).bind(limit).fetch_all(tx.connection()).await? {
        let key = String::from_utf8(row.try_get(0)?).map_err(|e| unreadable("key of a result", e))?;
        sweep.garbage.push(key);
    }
    Ok(sweep)
}

/// Removes tasks that have ended before this time.
async fn remove(tx: &mut Tx<'_>, request: &SweepRequest, now: Timestamp, before: Timestamp) -> Work<u64> {
    let mut old = Vec::new();
    let first = walk(tx, request, before, 0, &mut old).await?;
    if old.len() < request.limit
        && let Some(passed) = first
    {
        let from = tx.shared.swept.load(SeqCst).max(passed);
        let second = walk(tx, request, before, from, &mut old).await?;
        tx.shared.swept.store(second.unwrap_or(0), SeqCst);
    }
    if old.is_empty() {
        return Ok(0);
    }
    let found = tx.query(LOCK).bind(old).fetch_all(tx.connection()).await?;
    let mut tasks: Vec<(Stored, Task)> = rows::tasks(tx, &found).await?;
    let left = moves::sweep(&mut tasks, request, before, now);
    rows::remove(tx, &tasks, now).await?;
    rows::keep_garbage(tx, &left).await?;
    Ok(tasks.len() as u64)
}

/// Looks for what is old behind a number, and answers up to which it has found all that is; `None`: to the last.
async fn walk(
    tx: &mut Tx<'_>,
    request: &SweepRequest,
    before: Timestamp,
    mut from: i64,
    old: &mut Vec<i64>,
) -> Work<Option<i64>> {
    let states: Vec<i16> = request.states.iter().map(|state| *state as i16).collect();
    let exempt = request.except_label.as_ref().map(label_name);
    for _ in 0..WINDOWS_MAX {
        let room = i32::try_from(request.limit - old.len()).unwrap_or(i32::MAX);
        let query = tx.query(OLD).bind(from).bind(WINDOW).bind(before.as_micros());
        let row = query.bind(&states).bind(&exempt).bind(room).fetch_one(tx.connection()).await?;
        let (found, last): (Option<Vec<i64>>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let (count, has_old): (i64, Option<bool>) = (row.try_get(2)?, row.try_get(3)?);
        old.extend(found.unwrap_or_default());
        let Some(last) = last.filter(|_| count == WINDOW) else { return Ok(None) };
        if old.len() >= request.limit {
            break;
        }
        from = last;
        if has_old == Some(false) {
            break;
        }
    }
    Ok(Some(from))
}

/// Puts the rows of the tallies together, if there are many.
pub(super) async fn fold(tx: &mut Tx<'_>) -> Work<()> {
    tx.query(FOLD).bind(ROWS_MAX).execute(tx.connection()).await?;
    Ok(())
}
