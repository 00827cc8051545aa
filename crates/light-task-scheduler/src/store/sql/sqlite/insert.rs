//! Taking tasks in.

use super::rows::{self, Insertion, NewRow};
use super::tx::Tx;
use crate::error::{Error, ErrorKind, Result};
use crate::store::sql::ids;
use crate::store::{Inserted, TOMBSTONE_TTL};
use crate::task::{NewTask, Start, State, TaskId, fingerprint};

/// Takes tasks in, one answer each.
pub(super) fn insert(tx: &mut Tx<'_>, tasks: &[NewTask]) -> Result<Vec<Result<Inserted>>> {
    let mut insertion = Insertion::new(tx.connection)?;
    tasks.iter().map(|task| insert_one(tx, &mut insertion, task)).collect()
}

/// The outer error is the store's, the inner one the task's.
fn insert_one(tx: &mut Tx<'_>, insertion: &mut Insertion<'_>, task: &NewTask) -> Result<Result<Inserted>> {
    let id = task.id.as_ref();
    if let Err(e) = task.check() {
        return Ok(Err(e));
    }
    if let Some(id) = id
        && let Some(known) = known(tx, id, task)?
    {
        return Ok(known);
    }
    let lane = match tx.names.find_lane(tx.connection, &task.queue, &task.kind)? {
        Some(lane) => lane,
        // Only a task that is really taken in may make a queue.
        None => match id.map(|id| existing(tx, id, task)).transpose()?.flatten() {
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
    let NewTask { payload, priority, options, .. } = task;
    let new = NewRow { id, lane, priority: *priority, payload, options: options.as_deref(), state, run_at };
    match (insertion.insert(tx, &new)?, id) {
        (Some(_), Some(id)) => Ok(Ok(Inserted::New(id.clone()))),
        (Some(place), None) => Ok(ids::id(tx.names.salt(tx.connection)?, place).map(Inserted::New)),
        (None, Some(id)) => Ok(existing(tx, id, task)?.unwrap_or_else(|| Err(conflict(id)))),
        (None, None) => Err(Error::internal("a row without an id was refused for its id")),
    }
}

/// The answer for a given id that has left a trace outside the index of the ids.
fn known(tx: &mut Tx<'_>, id: &TaskId, task: &NewTask) -> Result<Option<Result<Inserted>>> {
    match removed(tx, id, task)? {
        // It may be an id that was made here.
        None if ids::place(tx.names.salt(tx.connection)?, id).is_some() => existing(tx, id, task),
        answer => Ok(answer),
    }
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
    let found = rows::Finder::tasks(tx.connection)?.task(tx.names, id)?;
    Ok(found.map(|(_, found)| {
        let same = found.spec.kind == task.kind && found.spec.payload == task.payload;
        if same { Ok(Inserted::Existing(id.clone(), found.record.state)) } else { Err(conflict(id)) }
    }))
}

fn conflict(id: &TaskId) -> Error {
    let message = format!("the id {id} belongs to a task with another kind or payload; choose another id");
    Error::new(ErrorKind::Conflict, message)
}
