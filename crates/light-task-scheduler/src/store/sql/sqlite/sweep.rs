//! Housekeeping: retention, tombstones and results that nobody refers to any more.

use rusqlite::Connection;

use super::list::numbers;
use super::locks::Locks;
use super::replicas;
use super::rows;
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::state::{Command, Event, step};
use crate::store::{Sweep, SweepRequest, TOMBSTONE_TTL};

/// Most old tombstones forgotten by one sweep.
const TOMBSTONES_MAX: i64 = 10_000;

/// The tasks that a sweep may remove, oldest end first. Looked for on a reading connection: it may take a while.
pub(super) fn candidates(connection: &Connection, request: &SweepRequest, now: Timestamp) -> Result<Vec<i64>> {
    let Some(age) = request.older_than else { return Ok(Vec::new()) };
    if request.states.is_empty() || request.limit == 0 {
        return Ok(Vec::new());
    }
    let states: Vec<i64> = request.states.iter().map(|state| *state as i64).collect();
    let sql = format!(
        "SELECT seq FROM tasks INDEXED BY tasks_finished
         WHERE finished_at IS NOT NULL AND finished_at < ?1 AND stage IN ({})
         AND (?2 IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(options, '$.labels') WHERE key = ?2))
         ORDER BY finished_at LIMIT ?3",
        numbers(&states)
    );
    let label = request.except_label.as_ref().map(ToString::to_string);
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    let found = connection
        .prepare_cached(&sql)?
        .query_map(((now - age).as_micros(), label, limit), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// Removes the candidates that still are what they were, and tidies up.
pub(super) fn sweep(tx: &mut Tx<'_>, locks: &Locks, request: &SweepRequest, candidates: &[i64]) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    for seq in candidates {
        sweep.removed += u64::from(remove(tx, request, *seq)?);
    }
    for key in &request.confirmed {
        tx.connection.prepare_cached("DELETE FROM garbage WHERE key = ?1")?.execute([key])?;
    }
    forget_tombstones(tx)?;
    replicas::tidy_locks(tx, locks)?;
    sweep.garbage = tx
        .connection
        .prepare_cached("SELECT key FROM garbage LIMIT ?1")?
        .query_map([i64::try_from(request.limit).unwrap_or(i64::MAX)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(sweep)
}

/// Removes one task, unless it was requeued or removed in the meantime.
fn remove(tx: &mut Tx<'_>, request: &SweepRequest, seq: i64) -> Result<bool> {
    let Some((stored, mut task)) = rows::task_at(tx, seq)? else { return Ok(false) };
    let limit = tx.now - request.older_than.unwrap_or_default();
    let old = task.record.finished_at.is_some_and(|finished_at| finished_at < limit);
    let exempt = request.except_label.as_ref().is_some_and(|label| task.spec.label(label.as_str()).is_some());
    if !old || exempt || !request.states.contains(&task.record.state) {
        return Ok(false);
    }
    let Ok(moved) = step(&mut task.record, Event::Command(Command::Delete), tx.now) else { return Ok(false) };
    rows::keep_garbage(tx, &moved)?;
    rows::remove(tx, &stored, &task)?;
    Ok(true)
}

fn forget_tombstones(tx: &Tx<'_>) -> Result<()> {
    const FORGET: &str = "DELETE FROM tombstones
        WHERE n IN (SELECT n FROM tombstones ORDER BY n LIMIT ?1) AND removed_at < ?2";
    let oldest = tx.now - TOMBSTONE_TTL;
    tx.connection.prepare_cached(FORGET)?.execute([TOMBSTONES_MAX, oldest.as_micros()])?;
    Ok(())
}
