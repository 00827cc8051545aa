//! Tasks to be taken in: which are new, and what the others are answered. Pure.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::store::Inserted;
use crate::task::{Name, NewTask, Payload, Start, State, TaskId, fingerprint};

/// A task to take in.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The id that its submitter gave; the others get theirs from their rows.
    pub(super) id: Option<TaskId>,
    pub(super) task: NewTask,
}

/// Tasks to take in.
pub(super) fn incoming(tasks: Vec<NewTask>) -> Vec<Incoming> {
    tasks.into_iter().map(|mut task| Incoming { id: task.id.take(), task }).collect()
}

/// Tasks of which some are to be made.
pub(super) struct Sorted<'i> {
    /// One for each task; `None`: its row is to be made, and it has the id that follows from that.
    answers: Vec<Option<Result<Inserted>>>,
    /// Of which rows are to be made.
    pub(super) new: Vec<&'i Incoming>,
}

impl Sorted<'_> {
    /// One answer each, now that rows were made. `ids` are those of the new tasks without a given id, in order.
    pub(super) fn answers(self, ids: impl IntoIterator<Item = Result<TaskId>>) -> Vec<Result<Inserted>> {
        let mut ids = ids.into_iter();
        let mut made = || ids.next().unwrap_or_else(|| Err(Error::internal("a row was not made"))).map(Inserted::New);
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(&mut made)).collect()
    }
}

/// Looks which tasks are new.
pub(super) fn sort_out<'i>(incoming: &'i [Incoming], known: &HashMap<TaskId, Known>) -> Sorted<'i> {
    let mut sorted = Sorted { answers: Vec::with_capacity(incoming.len()), new: Vec::with_capacity(incoming.len()) };
    let mut first: HashMap<&TaskId, &Incoming> = HashMap::new();
    for one in incoming {
        let (answer, is_new) = match (one.task.check(), &one.id) {
            (Err(e), _) => (Some(Err(e)), false),
            (Ok(()), None) => (None, true),
            (Ok(()), Some(id)) => match (known.get(id), first.get(id)) {
                (Some(known), _) => (Some(known.answer(id, &one.task)), false),
                (None, Some(first)) => (Some(twice(id, &first.task, &one.task)), false),
                (None, None) => {
                    first.insert(id, one);
                    (Some(Ok(Inserted::New(id.clone()))), true)
                }
            },
        };
        if is_new {
            sorted.new.push(one);
        }
        sorted.answers.push(answer);
    }
    sorted
}

/// What is known of an id.
pub(super) enum Known {
    Task { kind: Name, payload: Payload, state: State },
    Tombstone { hash: Vec<u8> },
}

impl Known {
    fn answer(&self, id: &TaskId, task: &NewTask) -> Result<Inserted> {
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
fn twice(id: &TaskId, first: &NewTask, again: &NewTask) -> Result<Inserted> {
    if first.kind != again.kind || first.payload != again.payload {
        return Err(conflict(id));
    }
    let state = if first.start == Start::Held { State::Held } else { State::Waiting };
    Ok(Inserted::Existing(id.clone(), state))
}

fn conflict(id: &TaskId) -> Error {
    let message = format!("the id {id} belongs to a task with another kind or payload; choose another id");
    Error::new(ErrorKind::Conflict, message)
}
