//! Housekeeping: retention, tombstones and results that nobody refers to any more.

use sqlx::Row;

use super::insert::element;
use super::list::numbers;
use super::rows::{self, task_columns};
use super::tx::Tx;
use crate::database::mysql::Work;
use crate::state::{Command, Event, step};
use crate::store::sql::codec::unreadable;
use crate::store::sql::moves::Stored;
use crate::store::sql::texts::label_name;
use crate::store::{Sweep, SweepRequest, TOMBSTONE_TTL};
use crate::task::Task;

/// Most old tombstones forgotten by one sweep.
const TOMBSTONES_MAX: i64 = 10_000;

const CONFIRM: &str = "DELETE FROM {p}garbage WHERE hash IN ({*UNHEX(SHA2(?, 256))*})";
const GARBAGE: &str = "SELECT name FROM {p}garbage LIMIT ?";
const OLD: &str = "SELECT id FROM {p}tombstones FORCE INDEX (tombstones_removed_at) WHERE removed_at < ?
    ORDER BY removed_at LIMIT ? FOR UPDATE SKIP LOCKED";
const FORGET: &str = "DELETE FROM {p}tombstones WHERE id IN ({*?*})";

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
                " FROM {{p}}tasks AS t FORCE INDEX (tasks_finished) WHERE t.finished_at < ? AND t.stage IN ({})
                AND (? IS NULL OR t.labels IS NULL OR LOCATE(?, t.labels) = 0)
                ORDER BY t.finished_at LIMIT ? FOR UPDATE SKIP LOCKED"
            ),
            numbers(&states)
        );
        let exempt = request.except_label.as_ref().map(|name| element(&label_name(name)).into_bytes());
        let query = tx.session.database().dynamic(&sql).bind((now - age).as_micros());
        let found = query.bind(exempt.clone()).bind(exempt).bind(limit).fetch_all(tx.connection()).await?;
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
    let confirmed: Vec<Vec<u8>> = request.confirmed.iter().map(|key| key.as_bytes().to_vec()).collect();
    tx.for_all(CONFIRM, &confirmed).await?;
    let oldest = (now - TOMBSTONE_TTL).as_micros();
    let old = tx.query(OLD).bind(oldest).bind(TOMBSTONES_MAX).fetch_all(tx.connection()).await?;
    let old = old.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
    tx.for_all(FORGET, &old).await?;
    for row in tx.query(GARBAGE).bind(limit).fetch_all(tx.connection()).await? {
        let key = String::from_utf8(row.try_get(0)?).map_err(|e| unreadable("key of a result", e))?;
        sweep.garbage.push(key);
    }
    Ok(sweep)
}
