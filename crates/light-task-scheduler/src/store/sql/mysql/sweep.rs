//! Housekeeping: retention, tombstones and results that nobody refers to any more.

use sqlx::Row;

use super::insert::element;
use super::rows::{self, task_columns};
use super::tx::{Tx, filled_len};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::store::sql::codec::unreadable;
use crate::store::sql::moves::{self, Stored};
use crate::store::sql::texts::label_name;
use crate::store::{Sweep, SweepRequest, TOMBSTONE_TTL};
use crate::task::Task;

/// Most old tombstones forgotten by one sweep.
const TOMBSTONES_MAX: i64 = 10_000;

/// Most lanes, each once for every state, in one statement.
const LANES_MAX: usize = 64;

/// The lanes and stages in which something has ended before a time, those with the oldest first.
pub(super) const OLDEST: &str = "SELECT l.id, CAST(s.stage AS SIGNED),
        (SELECT t.place FROM {p}tasks AS t FORCE INDEX (tasks_ready) WHERE t.lane = l.id AND t.stage = s.stage
            ORDER BY t.place LIMIT 1) AS oldest
    FROM (SELECT 4 AS stage UNION ALL SELECT 5 UNION ALL SELECT 6) AS s CROSS JOIN {p}lanes AS l
    HAVING oldest < ? ORDER BY oldest";
/// The first of each that have ended before a time and have not got a label, with their ends.
pub(super) const ENDED: &str = "{+(SELECT t.seq, t.place FROM {p}tasks AS t FORCE INDEX (tasks_ready)
    WHERE t.lane = ? AND t.stage = ? AND t.place < ? AND (? IS NULL OR t.labels IS NULL OR LOCATE(?, t.labels) = 0)
    ORDER BY t.place LIMIT ?)+}";
const LOCK: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*}) FOR UPDATE SKIP LOCKED"
);
const CONFIRM: &str = "DELETE FROM {p}garbage WHERE hash IN ({*UNHEX(SHA2(?, 256))*})";
const GARBAGE: &str = "SELECT name FROM {p}garbage LIMIT ?";
const OLD: &str = "SELECT id FROM {p}tombstones FORCE INDEX (tombstones_removed_at) WHERE removed_at < ?
    ORDER BY removed_at LIMIT ? FOR UPDATE SKIP LOCKED";
const FORGET: &str = "DELETE FROM {p}tombstones WHERE id IN ({*?*})";

/// How many rows are asked for.
fn most(request: &SweepRequest) -> i64 {
    i64::try_from(request.limit).unwrap_or(i64::MAX)
}

/// Removes what is older than asked, and tidies up.
pub(super) async fn sweep(tx: &mut Tx<'_>, request: &SweepRequest) -> Work<Sweep> {
    let now = tx.now().await?;
    let mut sweep = Sweep::default();
    if let Some(age) = request.older_than.filter(|_| !request.states.is_empty() && request.limit > 0) {
        sweep.removed = remove(tx, request, now, now - age).await?;
    }
    let confirmed: Vec<Vec<u8>> = request.confirmed.iter().map(|key| key.as_bytes().to_vec()).collect();
    tx.for_all(CONFIRM, &confirmed).await?;
    let oldest = (now - TOMBSTONE_TTL).as_micros();
    let old = tx.query(OLD).bind(oldest).bind(TOMBSTONES_MAX).fetch_all(tx.connection()).await?;
    let old = old.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
    tx.for_all(FORGET, &old).await?;
    for row in tx.query(GARBAGE).bind(most(request)).fetch_all(tx.connection()).await? {
        let key = String::from_utf8(row.try_get(0)?).map_err(|e| unreadable("key of a result", e))?;
        sweep.garbage.push(key);
    }
    Ok(sweep)
}

/// Removes what has ended before this time: the oldest first.
async fn remove(tx: &mut Tx<'_>, request: &SweepRequest, now: Timestamp, before: Timestamp) -> Work<u64> {
    let seqs = ended(tx, request, before).await?;
    let found = tx.find_all(LOCK, &seqs).await?;
    let mut tasks: Vec<(Stored, Task)> = rows::tasks(tx, &found).await?;
    let left = moves::sweep(&mut tasks, request, before, now);
    rows::remove(tx, &tasks, now).await?;
    rows::keep_garbage(tx, &left).await?;
    Ok(tasks.len() as u64)
}

/// The numbers of the tasks in these states that have ended before this time, as many as are asked for.
async fn ended(tx: &mut Tx<'_>, request: &SweepRequest, before: Timestamp) -> Work<Vec<i64>> {
    let exempt = request.except_label.as_ref().map(|name| element(&label_name(name)).into_bytes());
    let mut ends: Vec<(i64, i64)> = Vec::new();
    let oldest = tx.query(OLDEST).bind(before.as_micros()).fetch_all(tx.connection()).await?;
    let mut lanes = Vec::new();
    for row in &oldest {
        let (lane, stage): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        if request.states.iter().any(|state| *state as i64 == stage) {
            lanes.push((lane, stage));
        }
    }
    for part in lanes.chunks(LANES_MAX) {
        // None of any lane, to fill it up.
        let none = std::iter::repeat_n(&(0, 0), filled_len(part.len()) - part.len());
        let mut query = tx.listed(ENDED, part.len());
        for (lane, stage) in part.iter().chain(none) {
            query = query.bind(*lane).bind(*stage).bind(before.as_micros());
            query = query.bind(exempt.clone()).bind(exempt.clone()).bind(most(request));
        }
        for row in query.fetch_all(tx.connection()).await? {
            ends.push((row.try_get(1)?, row.try_get(0)?));
        }
        if ends.len() >= request.limit {
            break;
        }
    }
    ends.sort_unstable();
    ends.truncate(request.limit);
    let mut seqs: Vec<i64> = ends.into_iter().map(|(_, seq)| seq).collect();
    seqs.sort_unstable();
    Ok(seqs)
}
