//! The physical limit on SQLite: raw batched statements on one narrow table, same durability, rows kept.

use std::path::Path;

use light_task_scheduler::store::sql::Durability;
use light_task_scheduler::{Error, Result};
use rusqlite::{Connection, params};

use super::PAYLOAD_BYTES;
use super::ground::Limit;
use super::measure::Watch;

/// Rows in one transaction.
const BATCH: u64 = 1_000;

const SCHEMA: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, state INTEGER NOT NULL DEFAULT 0,
                    priority INTEGER NOT NULL DEFAULT 0, run_at INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX t_claim ON t (state, priority, run_at, id);";

/// Measures in a new file.
pub(super) fn raw(path: &Path, rows: u64, durability: Durability) -> Result<Limit> {
    measure(path, rows, durability)
        .map_err(|error| Error::internal(format!("the raw SQLite benchmark failed: {error}")))
}

fn measure(path: &Path, rows: u64, durability: Durability) -> rusqlite::Result<Limit> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if durability == Durability::Relaxed { "NORMAL" } else { "FULL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.execute_batch(SCHEMA)?;
    let payload = [7_u8; PAYLOAD_BYTES];
    let watch = Watch::start();
    for _ in 0..rows / BATCH {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO t (payload) VALUES (?1)")?;
            for _ in 0..BATCH {
                insert.execute(params![payload])?;
            }
        }
        transaction.commit()?;
    }
    let enqueue = watch.rate(rows);
    let watch = Watch::start();
    for _ in 0..rows / BATCH {
        let claimed = claim(&mut connection)?;
        let transaction = connection.transaction()?;
        {
            let mut done = transaction.prepare_cached("UPDATE t SET state = 2 WHERE id = ?1")?;
            for id in claimed {
                done.execute(params![id])?;
            }
        }
        transaction.commit()?;
    }
    Ok(Limit { enqueue, drain: watch.rate(rows) })
}

fn claim(connection: &mut Connection) -> rusqlite::Result<Vec<i64>> {
    let transaction = connection.transaction()?;
    let claimed = {
        let mut claim = transaction.prepare_cached(
            "UPDATE t SET state = 1 WHERE id IN
                 (SELECT id FROM t WHERE state = 0 ORDER BY priority, run_at, id LIMIT ?1) RETURNING id, payload",
        )?;
        claim.query_map(params![BATCH as i64], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?
    };
    transaction.commit()?;
    Ok(claimed)
}
