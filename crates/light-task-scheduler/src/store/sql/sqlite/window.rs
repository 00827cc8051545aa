//! What could be claimed next, for windows of candidates.

use rusqlite::{Connection, OptionalExtension};

use super::error::unreadable;
use super::list;
use super::names::{Lane, Names};
use super::rows;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::store::sql::ids::Place;
use crate::store::{BATCH_MAX, Candidate, Candidates, CandidatesRequest};
use crate::task::Name;

/// The first of a lane: the ready ones, and those that have become due since the last claim, which few are.
/// One statement, so that a claim in between that makes them ready shows none twice.
pub(super) const FIRST: &str = "SELECT rank, run_at, seq, id, created_at FROM (
        SELECT rank, run_at, seq, id, created_at FROM tasks INDEXED BY tasks_ready
        WHERE lane = ?1 AND stage = 1 ORDER BY rank, run_at, seq LIMIT ?3)
    UNION ALL SELECT rank, run_at, seq, id, created_at FROM (
        SELECT rank, run_at, seq, id, created_at FROM tasks INDEXED BY tasks_scheduled
        WHERE lane = ?1 AND stage = -1 AND run_at <= ?2 ORDER BY rank, run_at, seq LIMIT ?3)
    ORDER BY 1, 2, 3 LIMIT ?3";

/// The first due tasks of each lane that is asked for and not paused.
pub(super) fn candidates(
    connection: &Connection,
    names: &mut Names,
    request: &CandidatesRequest,
    now: Timestamp,
) -> Result<Candidates> {
    let mut tasks = Vec::new();
    let mut first = connection.prepare_cached(FIRST)?;
    for number in waiting(connection)? {
        let lane = names.lane(connection, number)?.clone();
        if !is_asked(&lane, request) || is_paused(connection, &lane.queue)? {
            continue;
        }
        let most = i64::try_from(request.per_lane.min(BATCH_MAX)).unwrap_or(i64::MAX);
        let mut rows = first.query([number, now.as_micros(), most])?;
        while let Some(row) = rows.next()? {
            let place = Place { seq: row.get(2)?, created_at: Timestamp::from_micros(row.get(4)?) };
            tasks.push(Candidate {
                id: rows::id(connection, names, row.get_ref(3)?, place)?,
                queue: lane.queue.clone(),
                kind: lane.kind.clone(),
                priority: i32::try_from(-row.get::<_, i64>(0)?).map_err(|e| unreadable("priority", e))?,
                run_at: Timestamp::from_micros(row.get(1)?),
                insertion: row.get::<_, i64>(2)?.cast_unsigned(),
            });
        }
    }
    tasks.sort_unstable_by_key(Candidate::rank);
    Ok(Candidates { tasks, now })
}

/// The lanes in which tasks wait.
fn waiting(connection: &Connection) -> Result<Vec<i64>> {
    const WAITING: &str = "SELECT DISTINCT lane FROM tallies WHERE stage IN (-1, 1)";
    let mut statement = connection.prepare_cached(WAITING)?;
    let lanes = statement.query_map([], |row| row.get(0))?;
    Ok(lanes.collect::<rusqlite::Result<_>>()?)
}

fn is_asked(lane: &Lane, request: &CandidatesRequest) -> bool {
    request.kinds.contains(&lane.kind) && (request.queues.is_empty() || request.queues.contains(&lane.queue))
}

fn is_paused(connection: &Connection, queue: &Name) -> Result<bool> {
    const SETTINGS: &str = "SELECT settings FROM queues WHERE name = ?1";
    let found: Option<String> =
        connection.prepare_cached(SETTINGS)?.query_row([queue.as_str()], |row| row.get(0)).optional()?;
    Ok(found.as_deref().map(list::settings).transpose()?.is_some_and(|settings| settings.paused))
}
