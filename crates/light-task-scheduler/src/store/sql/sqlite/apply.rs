//! Moving tasks: what owners report, what operators wish, what executions push.

use super::rows::{self, Finder, Found, Stored};
use super::tx::Tx;
use crate::error::{Error, Result};
use crate::state::{Command, Event, Moved, step};
use crate::store::{Answer, Change, Report, Said};
use crate::task::{Outcome, State, TaskId};

/// Applies what owners report.
pub(super) fn apply(tx: &mut Tx<'_>, changes: &[Change]) -> Result<Vec<Answer>> {
    let Found { mut records, places } = rows::records(tx, changes.iter().map(|change| &change.id))?;
    let mut moved_ones = vec![false; records.len()];
    let mut answers = Vec::with_capacity(changes.len());
    for (change, place) in changes.iter().zip(places) {
        let found = place.and_then(|place| Some((records.get_mut(place)?, moved_ones.get_mut(place)?)));
        let Some((stored, is_moved)) = found else {
            answers.push(Answer::Missing);
            continue;
        };
        let event = Event::Run(change.token, change.event.clone());
        answers.push(match step(&mut stored.record, event, tx.now) {
            Ok(moved) if moved.already => Answer::Already(stored.record.state),
            Ok(moved) => {
                rows::keep_garbage(tx, &moved)?;
                *is_moved = true;
                Answer::Applied(Some(stored.record.state))
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    let moved = records.iter().zip(moved_ones).filter(|(_, is_moved)| *is_moved);
    rows::save(tx, moved.map(|(stored, _)| (stored, &stored.record)))?;
    Ok(answers)
}

/// Applies what operators wish.
pub(super) fn command(tx: &mut Tx<'_>, commands: &[(TaskId, Command)]) -> Result<Vec<Answer>> {
    let mut by_id = Finder::tasks(tx.connection)?;
    let mut answers = Vec::with_capacity(commands.len());
    for (id, command) in commands {
        let Some((stored, mut task)) = by_id.task(tx.names, id)? else {
            answers.push(Answer::Missing);
            continue;
        };
        answers.push(match step(&mut task.record, Event::Command(*command), tx.now) {
            Ok(moved) if moved.already => Answer::Already(task.record.state),
            Ok(moved) => {
                rows::keep_garbage(tx, &moved)?;
                if moved.removed {
                    rows::remove(tx, &stored, &task)?;
                } else {
                    rows::save(tx, [(&stored, &task.record)])?;
                    if let Some(priority) = moved.priority {
                        rows::prioritise(tx, stored.seq, priority)?;
                    }
                    hint(tx, *command, task.record.state);
                }
                answer(&moved, task.record.state)
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    Ok(answers)
}

fn answer(moved: &Moved, state: State) -> Answer {
    Answer::Applied((!moved.removed).then_some(state))
}

/// What a command gives a hint of, beyond the change of state.
fn hint(tx: &mut Tx<'_>, command: Command, state: State) {
    match command {
        Command::Cancel if state == State::Running => tx.hint.wishes = true,
        // Any replica may adopt the export.
        Command::RetryExport => tx.hint.work = true,
        Command::Reschedule { .. } if state == State::Waiting => tx.hint.work = true,
        _ => {}
    }
}

/// Keeps what executions push, until their owner fetches it.
pub(super) fn post_reports(tx: &mut Tx<'_>, reports: &[Report]) -> Result<Vec<bool>> {
    let Found { records, places } = rows::records(tx, reports.iter().map(|report| &report.id))?;
    let mut answers = Vec::with_capacity(reports.len());
    for (report, place) in reports.iter().zip(places) {
        let is_current =
            |stored: &&Stored| stored.record.state == State::Running && stored.record.execution == report.execution;
        let current = place.and_then(|place| records.get(place)).filter(is_current);
        if let Some(stored) = current {
            keep(tx, stored.seq, report)?;
        }
        answers.push(current.is_some());
    }
    Ok(answers)
}

fn keep(tx: &mut Tx<'_>, seq: i64, report: &Report) -> Result<()> {
    // The first outcome of an execution is kept; anything replaces a progress, or what an earlier execution said.
    const KEEP: &str = "INSERT INTO reports (task, execution, ended, said, output) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (task) DO UPDATE SET execution = excluded.execution, ended = excluded.ended,
        said = excluded.said, output = excluded.output, handed = NULL
        WHERE reports.ended = 0 OR reports.execution <> excluded.execution";
    let output = match &report.said {
        Said::Ended(Outcome::Succeeded(Some(output))) => Some(output.as_bytes()),
        _ => None,
    };
    let said = serde_json::to_string(&report.said).map_err(|e| Error::invalid(format!("a report as JSON: {e}")))?;
    let ended = matches!(report.said, Said::Ended(_));
    let kept = (seq, report.execution.cast_signed(), ended, said, output);
    if tx.connection.prepare_cached(KEEP)?.execute(kept)? > 0 {
        rows::mark_reported(tx, seq)?;
        tx.hint.wishes = true;
    }
    Ok(())
}
