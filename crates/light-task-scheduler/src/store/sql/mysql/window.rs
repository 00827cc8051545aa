//! What could be claimed next, for windows of candidates.

use sqlx::Row;

use super::claim::names;
use super::lanes;
use super::rows;
use super::tx::{Tx, now};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::store::{BATCH_MAX, Candidate, Candidates, CandidatesRequest};

/// The lanes that are asked for and not paused, and the time.
const OPEN: &str = concat!(
    "SELECT ",
    now!(),
    ", l.id FROM (SELECT 1 AS one) AS o LEFT JOIN ({p}lanes AS l LEFT JOIN {p}queues AS q ON q.name = l.queue)
    ON l.kind IN ({*?*}) AND (? OR l.queue IN ({*?*})) AND COALESCE(q.paused, 0) = 0"
);
/// The first of a lane: the ready ones, and those that have become due since the last claim, which few are.
/// One statement, so that a claim in between that makes them ready shows none twice.
pub(super) const FIRST: &str =
    "(SELECT t.id, t.precedence, t.run_at, t.seq, t.created_at FROM {p}tasks AS t FORCE INDEX (tasks_ready)
        WHERE t.lane = ? AND t.stage = 1 AND t.run_at <= ? ORDER BY t.place, t.run_at, t.seq LIMIT ?)
    UNION ALL (SELECT t.id, t.precedence, t.run_at, t.seq, t.created_at FROM {p}tasks AS t FORCE INDEX (tasks_ready)
        WHERE t.lane = ? AND t.stage = -1 AND t.place = 0 AND t.run_at <= ?
        ORDER BY t.precedence, t.run_at, t.seq LIMIT ?)";

/// The first due tasks of each lane that is asked for and not paused.
pub(super) async fn candidates(tx: &mut Tx<'_>, request: &CandidatesRequest) -> Work<Candidates> {
    let most = request.per_lane.min(BATCH_MAX);
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let open = names(tx, OPEN, &request.kinds, &request.queues).fetch_all(tx.connection()).await?;
    let mut candidates = Candidates::default();
    for row in &open {
        candidates.now = tx.time(row.try_get(0)?);
        let Some(number) = row.try_get(1)? else { continue };
        let lane = lanes::lane(tx, number).await?;
        let mut query = tx.query(FIRST);
        for _ in 0..2 {
            query = query.bind(number).bind(candidates.now.as_micros()).bind(limit);
        }
        let mut first = Vec::new();
        for row in query.fetch_all(tx.connection()).await? {
            first.push(Candidate {
                id: rows::id(tx.shared.salt, &row, [0, 3, 4])?,
                queue: lane.queue.clone(),
                kind: lane.kind.clone(),
                priority: !row.try_get::<i32, _>(1)?,
                run_at: Timestamp::from_micros(row.try_get(2)?),
                insertion: row.try_get::<i64, _>(3)?.cast_unsigned(),
            });
        }
        first.sort_unstable_by_key(Candidate::rank);
        first.truncate(most);
        candidates.tasks.append(&mut first);
    }
    candidates.tasks.sort_unstable_by_key(Candidate::rank);
    Ok(candidates)
}
