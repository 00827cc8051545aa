//! Moving tasks: what owners report, what operators wish, what executions push.

use std::collections::HashMap;

use sqlx::Row;

use super::quick;
use super::rows::{self, RECORD_COLUMNS, TASK_COLUMNS, record_columns, task_columns};
use super::tx::{Tx, now};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::database::mysql::sql::parts;
use crate::state::Command;
use crate::store::sql::moves::{self, Applied, Commanded, Priority, Stored};
use crate::store::sql::texts;
use crate::store::{Answer, Change, Report, Said};
use crate::task::TaskId;

// Locked in the order of their numbers, so that no two transactions wait for each other in a circle.
pub(super) const RECORDS: &str = concat!(
    "SELECT ",
    record_columns!(),
    ", ",
    now!(),
    " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*}) ORDER BY t.seq FOR UPDATE"
);
const TASKS: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", ",
    now!(),
    " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*}) ORDER BY t.seq FOR UPDATE"
);
const SAID: &str = "SELECT task, execution, ended FROM {p}reports WHERE task IN ({*?*})";
const KEEP: &str = "INSERT INTO {p}reports (task, execution, ended, said, output) VALUES {*(?, ?, ?, ?, ?)*}
    ON DUPLICATE KEY UPDATE execution = VALUES(execution), ended = VALUES(ended), said = VALUES(said),
        output = VALUES(output), handed = NULL";
const PRIORITISE: &str = "UPDATE {p}tasks SET precedence = ? WHERE seq = ?";
const MARK: &str = "UPDATE {p}tasks SET flags = flags | 4 WHERE seq IN ({*?*})";

/// Records that were read and locked, and the store's time.
async fn lock<'i>(tx: &mut Tx<'_>, ids: impl Iterator<Item = &'i TaskId>) -> Work<(Vec<Stored>, Timestamp)> {
    let found = rows::find(tx, RECORDS, ids).await?;
    let salt = tx.shared.salt;
    let rows = found.iter().map(|row| rows::stored(salt, row)).collect::<Work<Vec<_>>>()?;
    let last = found.last().map(|row| row.try_get(RECORD_COLUMNS)).transpose()?;
    Ok((rows, tx.time(last.unwrap_or(0))))
}

/// Applies what owners report.
pub(super) async fn apply(tx: &mut Tx<'_>, changes: &[Change]) -> Work<Vec<Answer>> {
    let answers = quick::complete(tx, changes).await?;
    let rest = changes.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
    let rest: Vec<&Change> = rest.map(|(change, _)| change).collect();
    let mut late = if rest.is_empty() { Vec::new() } else { apply_rest(tx, &rest).await? }.into_iter();
    Ok(answers.into_iter().map(|answer| answer.or_else(|| late.next()).unwrap_or(Answer::Missing)).collect())
}

/// Applies what has to be read and locked first.
async fn apply_rest(tx: &mut Tx<'_>, changes: &[&Change]) -> Work<Vec<Answer>> {
    let (mut locked, now) = lock(tx, changes.iter().map(|change| &change.id)).await?;
    let Applied { answers, changed, left } = moves::apply(&mut locked, changes, now);
    let changed = |ends: bool| -> Vec<moves::Change<'_>> {
        let those = changed.iter().filter(|(_, is_end)| *is_end == ends);
        those.filter_map(|(index, _)| locked.get(*index)).map(|stored| (stored, &stored.record)).collect()
    };
    rows::save_ends(tx, &changed(true), now).await?;
    rows::save(tx, &changed(false), now).await?;
    rows::keep_garbage(tx, &left).await?;
    Ok(answers)
}

/// Applies what operators wish.
pub(super) async fn command(tx: &mut Tx<'_>, commands: &[(TaskId, Command)]) -> Work<Vec<Answer>> {
    let found = rows::find(tx, TASKS, commands.iter().map(|(id, _)| id)).await?;
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
    for Priority { seq, priority, .. } in wished {
        let query = tx.query(PRIORITISE).bind(rows::precedence(*priority)).bind(*seq);
        query.execute(tx.connection()).await?;
    }
    Ok(())
}

/// Keeps what executions push, until their owner fetches it.
pub(super) async fn post_reports(tx: &mut Tx<'_>, reports: &[Report]) -> Work<Vec<bool>> {
    let (locked, _) = lock(tx, reports.iter().map(|report| &report.id)).await?;
    let current = moves::current(&locked, reports);
    let seqs: Vec<i64> = current.iter().flatten().copied().collect();
    // What is kept for these, whose rows are locked: nobody else changes it.
    let mut kept: HashMap<i64, (u64, bool)> = HashMap::new();
    for row in tx.find_all(SAID, &seqs).await? {
        let (execution, ended): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        kept.insert(row.try_get(0)?, (execution.cast_unsigned(), ended != 0));
    }
    let mut new: HashMap<i64, &Report> = HashMap::new();
    for (report, seq) in reports.iter().zip(&current) {
        let Some(seq) = seq else { continue };
        // The first outcome of an execution is kept; anything replaces a progress, or what an earlier one said.
        if kept.get(seq).is_none_or(|(execution, ended)| !ended || *execution != report.execution) {
            kept.insert(*seq, (report.execution, matches!(report.said, Said::Ended(_))));
            new.insert(*seq, report);
        }
    }
    keep(tx, new).await?;
    Ok(current.iter().map(Option::is_some).collect())
}

async fn keep(tx: &mut Tx<'_>, new: HashMap<i64, &Report>) -> Work<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(new.len());
    for (seq, report) in new {
        let (said, output, ended) = texts::said(&report.said)?;
        rows.push((seq, report.execution, ended, said, output));
    }
    rows.sort_unstable_by_key(|(seq, ..)| *seq);
    for part in parts(&rows, |(.., said, output)| said.len() + output.map_or(0, <[u8]>::len)) {
        let mut query = tx.rows(KEEP, part.len());
        for (seq, execution, ended, said, output) in part {
            let (said, output) = (said.as_bytes().to_vec(), output.map(<[u8]>::to_vec));
            query = query.bind(*seq).bind(execution.cast_signed()).bind(*ended).bind(said).bind(output);
        }
        query.execute(tx.connection()).await?;
    }
    let seqs: Vec<i64> = rows.iter().map(|(seq, ..)| *seq).collect();
    tx.for_all(MARK, &seqs).await?;
    tx.hint.wishes = true;
    Ok(())
}
