//! What could be claimed next, for windows of candidates.

use sqlx::Row;

use super::lanes;
use super::rows;
use super::tx::{Tx, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::store::{BATCH_MAX, Candidate, Candidates, CandidatesRequest};
use crate::task::Name;

/// The first of each lane: the ready ones, and those that have become due since the last claim, which few are.
/// One statement, so that a claim in between that makes them ready shows none twice.
pub(super) const FIRST: &str = concat!(
    "WITH n AS MATERIALIZED (SELECT ",
    now!(),
    " + $4 AS now)
    SELECT n.now, t.lane, t.id, t.rank, t.run_at, t.seq, t.created_at FROM n LEFT JOIN (
        {s}.lanes AS l LEFT JOIN {s}.queues AS q ON q.name = l.queue
        CROSS JOIN n AS m CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT r.lane, r.id, r.rank, r.run_at, r.seq, r.created_at FROM {s}.tasks AS r
                WHERE r.lane = l.id AND r.stage = 1 AND r.run_at <= m.now ORDER BY r.rank, r.run_at, r.seq LIMIT $3) AS ready
            UNION ALL SELECT * FROM (
                SELECT d.lane, d.id, d.rank, d.run_at, d.seq, d.created_at FROM {s}.tasks AS d
                WHERE d.lane = l.id AND d.stage = -1 AND d.run_at <= m.now ORDER BY d.rank, d.run_at, d.seq LIMIT $3) AS due
            ORDER BY rank, run_at, seq LIMIT $3) AS t)
    ON l.kind = ANY($1) AND (cardinality($2::text[]) = 0 OR l.queue = ANY($2)) AND NOT coalesce(q.paused, false)"
);

/// The first due tasks of each lane that is asked for and not paused.
pub(super) async fn candidates(tx: &mut Tx<'_>, request: &CandidatesRequest) -> Work<Candidates> {
    let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let most = i64::try_from(request.per_lane.min(BATCH_MAX)).unwrap_or(i64::MAX);
    let query = tx.query(FIRST).bind(texts(&request.kinds)).bind(texts(&request.queues)).bind(most);
    let found = query.bind(tx.shared.offset()).fetch_all(tx.connection()).await?;
    let mut candidates = Candidates::default();
    for row in &found {
        candidates.now = Timestamp::from_micros(row.try_get(0)?);
        let Some(number) = row.try_get(1)? else { continue };
        let lane = lanes::lane(tx, number).await?;
        candidates.tasks.push(Candidate {
            id: rows::id(tx.shared.salt, row, [2, 5, 6])?,
            queue: lane.queue,
            kind: lane.kind,
            priority: !row.try_get::<i32, _>(3)?,
            run_at: Timestamp::from_micros(row.try_get(4)?),
            insertion: row.try_get::<i64, _>(5)?.cast_unsigned(),
        });
    }
    candidates.tasks.sort_unstable_by_key(Candidate::rank);
    Ok(candidates)
}
