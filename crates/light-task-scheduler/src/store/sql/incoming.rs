//! Tasks to be taken in: which are new, and what the others are answered. Pure.

use std::collections::HashMap;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Inserted;
use crate::task::{Name, NewTask, Payload, Start, State, TaskId, fingerprint};

/// A task to take in, with its id.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) id: TaskId,
    /// Made here just now: nobody can have used it before.
    pub(super) fresh: bool,
    pub(super) task: NewTask,
}

/// Gives ids to the tasks that have none.
pub(super) fn incoming(tasks: Vec<NewTask>, clock: &dyn Clock) -> Vec<Incoming> {
    let incoming = |mut task: NewTask| {
        let given = task.id.take();
        Incoming { fresh: given.is_none(), id: given.unwrap_or_else(|| TaskId::generate(clock)), task }
    };
    tasks.into_iter().map(incoming).collect()
}

/// One answer each, and the tasks of which rows are to be made.
pub(super) fn sort_out<'i>(
    incoming: &'i [Incoming],
    known: &HashMap<TaskId, Known>,
) -> (Vec<Result<Inserted>>, Vec<&'i Incoming>) {
    let mut new: Vec<&Incoming> = Vec::with_capacity(incoming.len());
    let mut first: HashMap<&TaskId, usize> = HashMap::with_capacity(incoming.len());
    let mut answers = Vec::with_capacity(incoming.len());
    for one in incoming {
        answers.push(if let Err(e) = one.task.check() {
            Err(e)
        } else if let Some(known) = known.get(&one.id) {
            known.answer(one)
        } else if let Some(index) = first.get(&one.id) {
            twice(new[*index], one)
        } else {
            first.insert(&one.id, new.len());
            new.push(one);
            Ok(Inserted::New(one.id.clone()))
        });
    }
    (answers, new)
}

/// What is known of an id.
pub(super) enum Known {
    Task { kind: Name, payload: Payload, state: State },
    Tombstone { hash: Vec<u8> },
}

impl Known {
    fn answer(&self, incoming: &Incoming) -> Result<Inserted> {
        let Incoming { id, task, .. } = incoming;
        match self {
            Known::Task { kind, payload, state } if *kind == task.kind && *payload == task.payload => {
                Ok(Inserted::Existing(id.clone(), *state))
            }
            Known::Tombstone { hash } if *hash == fingerprint(&task.kind, &task.payload) => {
                Ok(Inserted::Removed(id.clone()))
            }
            _ => Err(conflict(id)),
        }
    }
}

/// The answer for an id that came before in the same call.
fn twice(first: &Incoming, again: &Incoming) -> Result<Inserted> {
    if first.task.kind != again.task.kind || first.task.payload != again.task.payload {
        return Err(conflict(&again.id));
    }
    let state = if first.task.start == Start::Held { State::Held } else { State::Waiting };
    Ok(Inserted::Existing(again.id.clone(), state))
}

fn conflict(id: &TaskId) -> Error {
    let message = format!("the id {id} belongs to a task with another kind or payload; choose another id");
    Error::new(ErrorKind::Conflict, message)
}
