//! Convenience over the [`Store`] contract: one task instead of many, one wish instead of a command.

use std::future::Future;

use crate::error::{Error, ErrorKind, Result};
use crate::state::Command;
use crate::store::{Answer, QueueSettings, Store};
use crate::task::{Name, State, Task, TaskId};

/// What users of a store like to type. Implemented for every [`Store`].
pub trait StoreExt: Store {
    /// Reads one task. Fails as [`ErrorKind::NotFound`] if there is none.
    fn task(&self, id: &TaskId) -> impl Future<Output = Result<Task>> + Send {
        async move { self.get(std::slice::from_ref(id)).await?.into_iter().next().flatten().ok_or_else(|| missing(id)) }
    }

    /// Applies one command and answers the state that the task is in now; `None`: it is removed.
    ///
    /// Fails as [`ErrorKind::NotFound`] or [`ErrorKind::Conflict`].
    fn order(&self, id: &TaskId, command: Command) -> impl Future<Output = Result<Option<State>>> + Send {
        async move {
            match self.command(vec![(id.clone(), command)]).await?.into_iter().next() {
                Some(Answer::Applied(state)) => Ok(state),
                Some(Answer::Already(state)) => Ok(Some(state)),
                Some(Answer::Refused(refusal)) => Err(Error::new(ErrorKind::Conflict, format!("task {id}: {refusal}"))),
                Some(Answer::Missing) => Err(missing(id)),
                None => Err(Error::internal("the store answered fewer commands than it was given")),
            }
        }
    }

    /// A queue's settings; the default for a queue that has none.
    fn queue(&self, queue: &Name) -> impl Future<Output = Result<QueueSettings>> + Send {
        async move {
            let queues = self.queues().await?;
            Ok(queues.into_iter().find(|(name, _)| name == queue).map(|(_, settings)| settings).unwrap_or_default())
        }
    }

    /// Pauses or resumes a queue; nothing of a paused queue is claimed, what runs goes on.
    fn set_paused(&self, queue: &Name, paused: bool) -> impl Future<Output = Result<()>> + Send {
        async move {
            let settings = self.queue(queue).await?;
            self.set_queue(queue.clone(), QueueSettings { paused, ..settings }).await
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

fn missing(id: &TaskId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no task {id}"))
}
