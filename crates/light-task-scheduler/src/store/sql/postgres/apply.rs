//! Moving tasks: what owners report, what operators wish, what executions push.

use sqlx::Row;

use super::rows::{self, RECORD_COLUMNS, TASK_COLUMNS, record_columns, task_columns};
use super::tx::{Tx, has_id, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::state::Command;
use crate::store::sql::moves::{self, Applied, Commanded, Priority, Stored};
use crate::store::sql::plan::Key;
use crate::store::sql::texts;
use crate::store::{Answer, Change, Report};
use crate::task::TaskId;

// Locked in the order of their numbers, so that no two transactions wait for each other in a circle.
const RECORDS: &str = concat!(
    "SELECT ",
    record_columns!(),
    ", ",
    now!(),
    " FROM {s}.tasks AS t WHERE ",
    has_id!(),
    " ORDER BY t.seq FOR UPDATE"
);
const TASKS: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", ",
    now!(),
    " FROM {s}.tasks AS t WHERE ",
    has_id!(),
    " ORDER BY t.seq FOR UPDATE"
);
// The first outcome of an execution is kept; anything replaces a progress, or what an earlier execution said.
const KEEP: &str = "INSERT INTO {s}.reports AS r (task, execution, ended, said, output) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (task) DO UPDATE SET execution = excluded.execution, ended = excluded.ended,
    said = excluded.said, output = excluded.output, handed = NULL
    WHERE NOT r.ended OR r.execution <> excluded.execution";
const PRIORITISE: &str = "UPDATE {s}.tasks AS t SET rank = u.rank
    FROM unnest($1::bigint[], $2::integer[]) AS u (seq, rank) WHERE t.seq = u.seq";
const MARK: &str = "UPDATE {s}.tasks SET flags = flags | 4 WHERE seq = ANY($1)";

/// Records that were read and locked, and the store's time.
async fn lock<'i>(tx: &mut Tx<'_>, ids: impl Iterator<Item = &'i TaskId> + Clone) -> Work<(Vec<Stored>, Timestamp)> {
    let found = tx.of_ids(RECORDS, ids).fetch_all(tx.connection()).await?;
    let salt = tx.shared.salt;
    let rows = found.iter().map(|row| rows::stored(salt, row)).collect::<Work<Vec<_>>>()?;
    let last = found.last().map(|row| row.try_get(RECORD_COLUMNS)).transpose()?;
    Ok((rows, tx.time(last.unwrap_or(0))))
}

/// Applies what owners report, as far as it has no answer yet: the rows are read and locked first.
pub(super) async fn apply_rest(tx: &mut Tx<'_>, changes: &[Change], answers: &[Option<Answer>]) -> Work<Vec<Answer>> {
    let rest: Vec<&Change> =
        changes.iter().zip(answers).filter(|(_, answer)| answer.is_none()).map(|(change, _)| change).collect();
    let (mut locked, now) = lock(tx, rest.iter().map(|change| &change.id)).await?;
    let Applied { answers: late, changed, left } = moves::apply(&mut locked, &rest, now);
    let changed: Vec<moves::Change<'_>> =
        changed.into_iter().filter_map(|(index, _)| locked.get(index)).map(|stored| (stored, &stored.record)).collect();
    rows::save(tx, &changed, now).await?;
    rows::keep_garbage(tx, &left).await?;
    let mut late = late.into_iter();
    let answer = |answer: &Option<Answer>| answer.or_else(|| late.next()).unwrap_or(Answer::Missing);
    Ok(answers.iter().map(answer).collect())
}

/// Applies what operators wish.
pub(super) async fn command(tx: &mut Tx<'_>, commands: &[(TaskId, Command)]) -> Work<Vec<Answer>> {
    let found = tx.of_ids(TASKS, commands.iter().map(|(id, _)| id)).fetch_all(tx.connection()).await?;
    let server: Option<i64> = found.last().map(|row| row.try_get(TASK_COLUMNS)).transpose()?;
    let now = tx.time(server.unwrap_or(0));
    let Commanded { answers, changed, removed, priorities, left } =
        moves::command(rows::tasks(tx, &found).await?, commands, now, &mut tx.hint);
    let changed: Vec<moves::Change<'_>> = changed.iter().map(|(stored, task)| (stored, &task.record)).collect();
    rows::save(tx, &changed, now).await?;
    prioritise(tx, &priorities).await?;
    rows::remove(tx, &removed, now).await?;
    rows::keep_garbage(tx, &left).await?;
    Ok(answers)
}

/// Gives tasks another priority.
async fn prioritise(tx: &mut Tx<'_>, wished: &[Priority]) -> Work<()> {
    if wished.is_empty() {
        return Ok(());
    }
    let (seqs, ranks): (Vec<i64>, Vec<i32>) =
        wished.iter().map(|wished| (wished.seq, rows::rank(wished.priority))).unzip();
    tx.query(PRIORITISE).bind(seqs).bind(ranks).execute(tx.connection()).await?;
    tx.arrived.extend(wished.iter().map(|wished| (wished.lane, Key::FIRST)));
    Ok(())
}

/// Keeps what executions push, until their owner fetches it.
pub(super) async fn post_reports(tx: &mut Tx<'_>, reports: &[Report]) -> Work<Vec<bool>> {
    let (locked, _) = lock(tx, reports.iter().map(|report| &report.id)).await?;
    let current = moves::current(&locked, reports);
    let mut kept = Vec::new();
    for (report, seq) in reports.iter().zip(&current) {
        if let Some(seq) = seq
            && keep(tx, *seq, report).await?
        {
            kept.push(*seq);
        }
    }
    if !kept.is_empty() {
        tx.query(MARK).bind(kept).execute(tx.connection()).await?;
        tx.hint.wishes = true;
    }
    Ok(current.iter().map(Option::is_some).collect())
}

async fn keep(tx: &mut Tx<'_>, seq: i64, report: &Report) -> Work<bool> {
    let (said, output, ended) = texts::said(&report.said)?;
    let query = tx.query(KEEP).bind(seq).bind(report.execution.cast_signed()).bind(ended).bind(said).bind(output);
    Ok(query.execute(tx.connection()).await?.rows_affected() > 0)
}
