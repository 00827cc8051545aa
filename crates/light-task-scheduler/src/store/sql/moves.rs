//! Moving tasks whose rows are read and locked: what becomes of them, decided by [`step`]. Pure.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::state::{Command, Event, Moved, step};
use crate::store::sql::hints::Hint;
use crate::store::{self, Answer, Report, SweepRequest};
use crate::task::{Record, ReplicaId, State, Task, TaskId};

/// A record and where it is.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) lane: i32,
    pub(super) stage: i64,
    /// The number of the claim that took it, while that owner has it.
    pub(super) claim: Option<i64>,
    pub(super) has_report: bool,
    pub(super) id: TaskId,
    pub(super) record: Record,
}

/// A row as it was read, but with the claim number that it shall have, and what
/// [`step`](crate::state::step) made of its record.
pub(super) type Change<'a> = (&'a Stored, &'a Record);

/// Whether the report that is kept for it stays.
pub(super) fn keeps_report(was: &Stored, after: &Record) -> bool {
    was.has_report && after.state == State::Running
}

/// Adopts those of the locked tasks that have no living owner, and drops the others. `dead` has the dead owners, and
/// whether their process is proven dead from here. Answers which tasks such a process had claimed and nobody else.
pub(super) fn adopt(
    tasks: &mut Vec<(Stored, Task)>,
    owner: ReplicaId,
    dead: &HashMap<ReplicaId, bool>,
    now: Timestamp,
) -> Vec<TaskId> {
    let mut claimed_here = Vec::new();
    tasks.retain_mut(|(_, Task { id, record, .. })| {
        // Another rescuer may have adopted it since the dead were looked for: its replica lives.
        let Some(proven_here) = record.owner.map_or(Some(false), |owner| dead.get(&owner).copied()) else {
            return false;
        };
        let is_first_owner = record.run == record.execution;
        let is_adopted = step(record, Event::Adopt { owner }, now).is_ok();
        if is_adopted && proven_here && is_first_owner {
            claimed_here.push(id.clone());
        }
        is_adopted
    });
    claimed_here
}

/// Deletes those of the locked tasks that have ended before this time, as a sweep wishes, and drops the others: one may have
/// been run again since it was looked for. Answers what they leave behind.
pub(super) fn sweep(
    tasks: &mut Vec<(Stored, Task)>,
    request: &SweepRequest,
    before: Timestamp,
    now: Timestamp,
) -> Vec<Moved> {
    let mut left = Vec::new();
    tasks.retain_mut(|(_, Task { record, .. })| {
        let is_old = record.finished_at.is_some_and(|time| time < before) && request.states.contains(&record.state);
        let moved = if is_old { step(record, Event::Command(Command::Delete), now).ok() } else { None };
        left.extend(moved.clone());
        moved.is_some()
    });
    left
}

/// What [`apply`] made of the rows.
pub(super) struct Applied {
    pub(super) answers: Vec<Answer>,
    /// The places of the changed rows, and whether nothing but the end has changed: what [`is_end`] says.
    pub(super) changed: Vec<(usize, bool)>,
    pub(super) left: Vec<Moved>,
}

/// Applies what owners report.
pub(super) fn apply(rows: &mut [Stored], changes: &[&store::Change], now: Timestamp) -> Applied {
    let by_id: HashMap<TaskId, usize> =
        rows.iter().enumerate().map(|(index, stored)| (stored.id.clone(), index)).collect();
    let mut before: Vec<Option<Record>> = vec![None; rows.len()];
    let mut applied = Applied { answers: Vec::with_capacity(changes.len()), changed: Vec::new(), left: Vec::new() };
    for change in changes {
        let found = by_id.get(&change.id).and_then(|index| Some((*index, rows.get_mut(*index)?)));
        let Some((index, stored)) = found else {
            applied.answers.push(Answer::Missing);
            continue;
        };
        let event = Event::Run(change.token, change.event.clone());
        let was = stored.record.clone();
        applied.answers.push(match step(&mut stored.record, event, now) {
            Ok(moved) if moved.already => Answer::Already(stored.record.state),
            Ok(moved) => {
                before[index].get_or_insert(was);
                applied.left.push(moved);
                Answer::Applied(Some(stored.record.state))
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    let changed = before.iter().enumerate();
    applied.changed =
        changed.filter_map(|(index, was)| Some((index, is_end(was.as_ref()?, &rows.get(index)?.record)))).collect();
    applied
}

/// Whether an execution has come to its end, and all else of the record is as it was: then few columns need be
/// written, which are the same for many tasks.
fn is_end(was: &Record, after: &Record) -> bool {
    let Record { state, cancel_requested, stop_unconfirmed, lost_in_a_row, finished_at, details, .. } = after.clone();
    let ended =
        Record { state, cancel_requested, stop_unconfirmed, lost_in_a_row, finished_at, details, ..was.clone() };
    state.is_terminal() && ended == *after
}

/// What [`command`] made of the tasks.
pub(super) struct Commanded {
    pub(super) answers: Vec<Answer>,
    pub(super) changed: Vec<(Stored, Task)>,
    pub(super) removed: Vec<(Stored, Task)>,
    /// Of the changed ones those that get another priority.
    pub(super) priorities: Vec<Priority>,
    pub(super) left: Vec<Moved>,
}

/// The priority that a row is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Priority {
    pub(super) seq: i64,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "only PostgreSQL notes where a claim may begin"))]
    pub(super) lane: i32,
    pub(super) priority: i32,
}

/// What has become of a task in one call of [`command`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unchanged,
    Changed,
    Removed,
}

/// Applies what operators wish.
pub(super) fn command(
    mut tasks: Vec<(Stored, Task)>,
    commands: &[(TaskId, Command)],
    now: Timestamp,
    hint: &mut Hint,
) -> Commanded {
    let by_id: HashMap<TaskId, usize> =
        tasks.iter().enumerate().map(|(index, (_, task))| (task.id.clone(), index)).collect();
    let mut fates = vec![Fate::Unchanged; tasks.len()];
    let (mut left, mut answers) = (Vec::new(), Vec::with_capacity(commands.len()));
    let mut wished: Vec<Option<i32>> = vec![None; tasks.len()];
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
                note(hint, *command, &moved, task.record.state);
                wished[index] = moved.priority.or(wished[index]);
                left.push(moved);
                answer
            }
            Err(refusal) => Answer::Refused(refusal),
        });
    }
    let mut commanded = Commanded { answers, changed: Vec::new(), removed: Vec::new(), priorities: Vec::new(), left };
    for ((task, fate), wished) in tasks.into_iter().zip(fates).zip(wished) {
        match fate {
            Fate::Unchanged => {}
            Fate::Changed => {
                let Stored { seq, lane, .. } = task.0;
                commanded.priorities.extend(wished.map(|priority| Priority { seq, lane, priority }));
                commanded.changed.push(task);
            }
            Fate::Removed => commanded.removed.push(task),
        }
    }
    commanded
}

/// What a command gives a hint of, beyond the change of state.
fn note(hint: &mut Hint, command: Command, moved: &Moved, state: State) {
    match command {
        _ if moved.removed => {}
        Command::Cancel if state == State::Running => hint.wishes = true,
        // Any replica may adopt the export.
        Command::RetryExport => hint.work = true,
        Command::Reschedule { .. } if state == State::Waiting => hint.work = true,
        _ => {}
    }
}

/// For each report the row of the running task whose execution it is of.
pub(super) fn current(rows: &[Stored], reports: &[Report]) -> Vec<Option<i64>> {
    let by_id: HashMap<&TaskId, &Stored> = rows.iter().map(|stored| (&stored.id, stored)).collect();
    let current = |report: &Report| {
        let Stored { seq, record, .. } = by_id.get(&report.id)?;
        (record.state == State::Running && record.execution == report.execution).then_some(*seq)
    };
    reports.iter().map(current).collect()
}
