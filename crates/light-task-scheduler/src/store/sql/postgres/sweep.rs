//! Housekeeping: retention, tombstones and results that nobody refers to any more.

use sqlx::Row;

use super::list::numbers;
use super::rows::{self, task_columns};
use super::tx::Tx;
use crate::database::postgres::Work;
use crate::state::{Command, Event, step};
use crate::store::sql::codec::unreadable;
use crate::store::sql::moves::Stored;
use crate::store::sql::tally::ROWS_MAX;
use crate::store::sql::texts::label_name;
use crate::store::{Sweep, SweepRequest, TOMBSTONE_TTL};
use crate::task::Task;

/// Most old tombstones forgotten by one sweep.
const TOMBSTONES_MAX: i64 = 10_000;

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
        let states: Vec<i64> = request.states.iter().map(|state| *state as i64).collect();
        let sql = format!(
            concat!(
                "SELECT ",
                task_columns!(),
                " FROM {{s}}.tasks AS t WHERE t.finished_at IS NOT NULL AND t.finished_at < $1 AND t.stage IN ({})
                AND ($2 IS NULL OR t.labels IS NULL OR NOT t.labels @> ARRAY[$2])
                ORDER BY t.finished_at LIMIT $3 FOR UPDATE SKIP LOCKED"
            ),
            numbers(&states)
        );
        let exempt = request.except_label.as_ref().map(label_name);
        let query = tx.session.database().dynamic(&sql).bind((now - age).as_micros()).bind(exempt).bind(limit);
        let found = query.fetch_all(tx.connection()).await?;
        let mut tasks: Vec<(Stored, Task)> = rows::tasks(tx, &found).await?;
        let mut left = Vec::new();
        tasks.retain_mut(|(_, task)| match step(&mut task.record, Event::Command(Command::Delete), now) {
            Ok(moved) => {
                left.push(moved);
                true
            }
            Err(_) => false,
        });
        rows::remove(tx, &tasks, now).await?;
        rows::keep_garbage(tx, &left).await?;
        sweep.removed = tasks.len() as u64;
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

/// Puts the rows of the tallies together, if there are many.
pub(super) async fn fold(tx: &mut Tx<'_>) -> Work<()> {
    tx.query(FOLD).bind(ROWS_MAX).execute(tx.connection()).await?;
    Ok(())
}
