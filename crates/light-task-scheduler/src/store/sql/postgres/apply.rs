//! Moving tasks: what owners report, what operators wish, what executions push.

use std::collections::HashMap;

use sqlx::Row;

use super::quick;
use super::rows::{self, RECORD_COLUMNS, Stored, TASK_COLUMNS, record_columns, task_columns};
use super::tx::{Tx, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::{Error, Result};
use crate::state::{Command, Event, Moved, step};
use crate::store::{Answer, Change, Report, Said};
use crate::task::{Outcome, Record, State, Task, TaskId};

// Locked in the order of their ids, so that no two transactions wait for each other in a circle.
const RECORDS: &str = concat!(
    "SELECT ",
    record_columns!(),
    ", ",
    now!(),
    " FROM {s}.tasks AS t WHERE t.id = ANY($1) ORDER BY t.id FOR UPDATE"
);
const TASKS: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", ",
    now!(),
    " FROM {s}.tasks AS t WHERE t.id = ANY($1) ORDER BY t.id FOR UPDATE"
);
// The first outcome of an execution is kept; anything replaces a progress, or what an earlier execution said.
const KEEP: &str = "INSERT INTO {s}.reports AS r (task, execution, ended, said, output) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (task) DO UPDATE SET execution = excluded.execution, ended = excluded.ended,
    said = excluded.said, output = excluded.output, handed = NULL
    WHERE NOT r.ended OR r.execution <> excluded.execution";
const MARK: &str = "UPDATE {s}.tasks SET flags = flags | 4 WHERE seq = ANY($1)";

/// Ids as a statement takes them, in order and each once.
pub(super) fn texts<'i>(ids: impl Iterator<Item = &'i TaskId>) -> Vec<String> {
    let mut texts: Vec<String> = ids.map(TaskId::to_string).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Records that were read and locked.
struct Locked {
    rows: Vec<Stored>,
    by_id: HashMap<TaskId, usize>,
    now: Timestamp,
}

impl Locked {
    async fn read(tx: &mut Tx<'_>, ids: Vec<String>) -> Work<Self> {
        let found = tx.query(RECORDS).bind(ids).fetch_all(tx.connection()).await?;
        let rows = found.iter().map(rows::stored).collect::<Work<Vec<_>>>()?;
        let by_id = rows.iter().enumerate().map(|(index, stored)| (stored.id.clone(), index)).collect();
        let last = found.last().map(|row| row.try_get(RECORD_COLUMNS)).transpose()?;
        Ok(Locked { rows, by_id, now: tx.time(last.unwrap_or(0)) })
    }

    fn get_mut(&mut self, id: &TaskId) -> Option<(usize, &mut Stored)> {
        let index = *self.by_id.get(id)?;
        Some((index, self.rows.get_mut(index)?))
    }
}

/// Applies what owners report.
pub(super) async fn apply(tx: &mut Tx<'_>, changes: &[Change]) -> Work<Vec<Answer>> {
    let mut answers = quick::complete(tx, changes).await?;
    if answers.iter().any(Option::is_none) {
        apply_rest(tx, changes, &mut answers).await?;
    }
    Ok(answers.into_iter().map(|answer| answer.unwrap_or(Answer::Missing)).collect())
}

/// Applies the changes that have no answer yet.
async fn apply_rest(tx: &mut Tx<'_>, changes: &[Change], answers: &mut [Option<Answer>]) -> Work<()> {
    let rest = || changes.iter().zip(answers.iter()).filter(|(_, answer)| answer.is_none()).map(|(change, _)| change);
    let mut locked = Locked::read(tx, texts(rest().map(|change| &change.id))).await?;
    let now = locked.now;
    let mut dirty = vec![false; locked.rows.len()];
    let mut left = Vec::new();
    for (change, answer) in changes.iter().zip(answers).filter(|(_, answer)| answer.is_none()) {
        let Some((index, stored)) = locked.get_mut(&change.id) else {
            *answer = Some(Answer::Missing);
            continue;
        };
        let event = Event::Run(change.token, change.event.clone());
        *answer = Some(match step(&mut stored.record, event, now) {
            Ok(moved) if moved.already => Answer::Already(stored.record.state),
            Ok(moved) => {
                dirty[index] = true;
                left.push(moved);
                Answer::Applied(Some(stored.record.state))
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    let changed: Vec<rows::Change<'_>> =
        locked.rows.iter().zip(dirty).filter(|(_, dirty)| *dirty).map(|(stored, _)| (stored, &stored.record)).collect();
    rows::save(tx, &changed, now).await?;
    rows::keep_garbage(tx, &left).await
}

/// What has become of a task in one call of [`command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unchanged,
    Changed,
    Removed,
}

/// Applies what operators wish.
pub(super) async fn command(tx: &mut Tx<'_>, commands: &[(TaskId, Command)]) -> Work<Vec<Answer>> {
    let found = tx.query(TASKS).bind(texts(commands.iter().map(|(id, _)| id))).fetch_all(tx.connection()).await?;
    let server: Option<i64> = found.last().map(|row| row.try_get(TASK_COLUMNS)).transpose()?;
    let now = tx.time(server.unwrap_or(0));
    let mut tasks: Vec<(Stored, Task)> = rows::tasks(tx, &found).await?;
    let by_id: HashMap<TaskId, usize> =
        tasks.iter().enumerate().map(|(index, (_, task))| (task.id.clone(), index)).collect();
    let mut fates = vec![Fate::Unchanged; tasks.len()];
    let (mut left, mut answers) = (Vec::new(), Vec::with_capacity(commands.len()));
    for (id, command) in commands {
        let index = by_id.get(id).copied().filter(|index| fates[*index] != Fate::Removed);
        let Some((index, (_, task))) = index.and_then(|index| Some((index, tasks.get_mut(index)?))) else {
            answers.push(Answer::Missing);
            continue;
        };
        answers.push(match step(&mut task.record, Event::Command(*command), now) {
            Ok(moved) if moved.already => Answer::Already(task.record.state),
            Ok(moved) => {
                fates[index] = if moved.removed { Fate::Removed } else { Fate::Changed };
                let answer = Answer::Applied((!moved.removed).then_some(task.record.state));
                hint(tx, *command, &moved, task.record.state);
                left.push(moved);
                answer
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    let changed: Vec<(&Stored, &Record)> = tasks
        .iter()
        .zip(&fates)
        .filter(|(_, fate)| **fate == Fate::Changed)
        .map(|((stored, task), _)| (stored, &task.record))
        .collect();
    rows::save(tx, &changed, now).await?;
    let removed: Vec<(Stored, Task)> =
        tasks.into_iter().zip(fates).filter(|(_, fate)| *fate == Fate::Removed).map(|(task, _)| task).collect();
    rows::remove(tx, &removed, now).await?;
    rows::keep_garbage(tx, &left).await?;
    Ok(answers)
}

/// What a command gives a hint of, beyond the change of state.
fn hint(tx: &mut Tx<'_>, command: Command, moved: &Moved, state: State) {
    match command {
        _ if moved.removed => {}
        Command::Cancel if state == State::Running => tx.hint.wishes = true,
        // Any replica may adopt the export.
        Command::RetryExport => tx.hint.work = true,
        _ => {}
    }
}

/// Keeps what executions push, until their owner fetches it.
pub(super) async fn post_reports(tx: &mut Tx<'_>, reports: &[Report]) -> Work<Vec<bool>> {
    let mut locked = Locked::read(tx, texts(reports.iter().map(|report| &report.id))).await?;
    let (mut kept, mut answers) = (Vec::new(), Vec::with_capacity(reports.len()));
    for report in reports {
        let current = locked
            .get_mut(&report.id)
            .filter(|(_, stored)| stored.record.state == State::Running && stored.record.execution == report.execution);
        let seq = current.map(|(_, stored)| stored.seq);
        if let Some(seq) = seq
            && keep(tx, seq, report).await?
        {
            kept.push(seq);
        }
        answers.push(seq.is_some());
    }
    if !kept.is_empty() {
        tx.query(MARK).bind(kept).execute(tx.connection()).await?;
        tx.hint.wishes = true;
    }
    Ok(answers)
}

async fn keep(tx: &mut Tx<'_>, seq: i64, report: &Report) -> Work<bool> {
    let output = match &report.said {
        Said::Ended(Outcome::Succeeded(Some(output))) => Some(output.as_bytes()),
        _ => None,
    };
    let said: Result<String> =
        serde_json::to_string(&report.said).map_err(|e| Error::invalid(format!("a report as JSON: {e}")));
    let ended = matches!(report.said, Said::Ended(_));
    let query = tx.query(KEEP).bind(seq).bind(report.execution.cast_signed()).bind(ended).bind(said?).bind(output);
    Ok(query.execute(tx.connection()).await?.rows_affected() > 0)
}
