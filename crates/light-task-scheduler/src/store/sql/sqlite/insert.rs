//! Taking tasks in.

use super::rows::{self, Insertion, NewRow};
use super::tx::Tx;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Inserted, TOMBSTONE_TTL};
use crate::task::{NewTask, Record, Start, State, TaskId, fingerprint};

/// A task to take in, with its id.
pub(super) struct Incoming {
    pub(super) id: TaskId,
    /// Made here just now: nobody can have used it before.
    pub(super) fresh: bool,
    pub(super) task: NewTask,
}

/// Takes tasks in, one answer each.
pub(super) fn insert(tx: &mut Tx<'_>, incoming: &[Incoming]) -> Result<Vec<Result<Inserted>>> {
    let mut insertion = Insertion::new(tx.connection)?;
    incoming.iter().map(|one| insert_one(tx, &mut insertion, one)).collect()
}

/// The outer error is the store's, the inner one the task's.
fn insert_one(tx: &mut Tx<'_>, insertion: &mut Insertion<'_>, incoming: &Incoming) -> Result<Result<Inserted>> {
    let Incoming { id, fresh, task } = incoming;
    if let Err(e) = task.check() {
        return Ok(Err(e));
    }
    if !fresh && let Some(removed) = removed(tx, id, task)? {
        return Ok(removed);
    }
    let lane = match tx.names.find_lane(tx.connection, &task.queue, &task.kind)? {
        Some(lane) => lane,
        // Only a task that is really taken in may make a queue.
        None => match existing(tx, id, task)? {
            Some(answer) => return Ok(answer),
            None => tx.names.make_lane(tx.connection, &task.queue, &task.kind)?,
        },
    };
    let (state, run_at) = match task.start {
        Start::Now => (State::Waiting, tx.now),
        Start::At(time) => (State::Waiting, time),
        Start::After(delay) => (State::Waiting, tx.now + delay),
        Start::Held => (State::Held, tx.now),
    };
    let record = Record { state, run_at, ..Record::default() };
    let NewTask { payload, priority, options, .. } = task;
    let new = NewRow { id, lane, priority: *priority, payload, options: options.as_deref(), record };
    if insertion.insert(tx, &new)? {
        return Ok(Ok(Inserted::New(id.clone())));
    }
    Ok(existing(tx, id, task)?.unwrap_or_else(|| Err(conflict(id))))
}

/// The answer for an id that was used by a task which has been removed.
fn removed(tx: &Tx<'_>, id: &TaskId, task: &NewTask) -> Result<Option<Result<Inserted>>> {
    let Some((hash, removed_at)) = rows::tombstone(tx.connection, id)? else { return Ok(None) };
    if tx.now >= removed_at + TOMBSTONE_TTL {
        id.with_str(|id| tx.connection.prepare_cached("DELETE FROM tombstones WHERE id = ?1")?.execute([id]))?;
        return Ok(None);
    }
    let same = hash == fingerprint(&task.kind, &task.payload);
    Ok(Some(if same { Ok(Inserted::Removed(id.clone())) } else { Err(conflict(id)) }))
}

/// The answer for an id that a task has; `None` if none has it.
fn existing(tx: &mut Tx<'_>, id: &TaskId, task: &NewTask) -> Result<Option<Result<Inserted>>> {
    let mut statement = tx.connection.prepare_cached(rows::TASK_BY_ID)?;
    id.with_str(|id| statement.raw_bind_parameter(1, id))?;
    let found = rows::find_task(tx.connection, tx.names, &mut statement)?;
    Ok(found.map(|(_, found)| {
        let same = found.spec.kind == task.kind && found.spec.payload == task.payload;
        if same { Ok(Inserted::Existing(id.clone(), found.record.state)) } else { Err(conflict(id)) }
    }))
}

fn conflict(id: &TaskId) -> Error {
    let message = format!("the id {id} belongs to a task with another kind or payload; choose another id");
    Error::new(ErrorKind::Conflict, message)
}
