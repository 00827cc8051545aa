//! Final writes: collected into batches, and repeated until the store has answered.
//!
//! A run hands its last word over and waits; the completer's life is its own. While one batch is being
//! written the next one fills, so batches are as large as the load makes them, and no timer delays a
//! single write.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::scheduler::core::{Core, StoreRetry};
use crate::scheduler::held::Held;
use crate::state::RunEvent;
use crate::store::{Answer, Change};
use crate::task::{Progress, State};

/// How many writes wait before those who hand over more have to.
const QUEUE_MAX: usize = 4_096;
/// How many are written at once.
const BATCH_MAX: usize = 1_000;

/// One write, and whom to tell the answer.
pub(super) struct Write {
    pub(super) held: Arc<Held>,
    pub(super) event: RunEvent,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
}

/// The way to the completer.
pub(super) struct Completer(mpsc::Sender<Write>);

impl Completer {
    pub(super) fn channel() -> (Completer, mpsc::Receiver<Write>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Completer(sender), receiver)
    }

    /// Writes, and waits for the answer of the store. `None`: this scheduler has ended.
    pub(super) async fn write(&self, held: &Arc<Held>, event: RunEvent) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Write { held: held.clone(), event, reply: Some(reply) }).await.ok()?;
        answer.await.ok()
    }

    /// Hands progress over unless too much waits already; then it comes back.
    pub(super) fn try_progress(&self, held: &Arc<Held>, progress: Progress) -> Option<Progress> {
        let write = Write { held: held.clone(), event: RunEvent::Progress(progress), reply: None };
        match self.0.try_send(write) {
            Err(mpsc::error::TrySendError::Full(Write { event: RunEvent::Progress(progress), .. })) => Some(progress),
            _ => None,
        }
    }

    /// Hands a write over whose answer nobody needs.
    pub(super) async fn note(&self, held: &Arc<Held>, event: RunEvent) {
        // An error means that this scheduler has ended: the next owner will see for itself.
        let _ = self.0.send(Write { held: held.clone(), event, reply: None }).await;
    }
}

/// The loop of the completer.
pub(super) async fn complete(core: Arc<Core>, mut queue: mpsc::Receiver<Write>) {
    let mut writes = Vec::new();
    while queue.recv_many(&mut writes, BATCH_MAX).await > 0 {
        flush(&core, &mut writes).await;
    }
}

/// Writes a batch, however long the store takes to take it, and empties it.
pub(super) async fn flush(core: &Core, writes: &mut Vec<Write>) {
    if writes.is_empty() {
        return;
    }
    let mut retry = StoreRetry::new();
    let answers = loop {
        let change = |write: &Write| Change {
            id: write.held.id().clone(),
            token: write.held.token(),
            event: write.event.clone(),
        };
        match core.store.apply(writes.iter().map(change).collect()).await {
            Ok(answers) => break answers,
            // The batch may have been applied with its reply lost: repeating it is harmless.
            Err(error) => {
                tracing::warn!(writes = writes.len(), %error, "the store did not take final writes; trying again")
            }
        }
        retry.wait(core.chance()).await;
    };
    let end = |(write, answer): (&Write, &Answer)| {
        let generation = write.held.run.task.record.generation;
        let has_ended = answer.state().is_some_and(State::is_terminal);
        has_ended.then(|| (write.held.id().clone(), write.held.token().run, generation))
    };
    core.acknowledged.ended(writes.iter().zip(&answers).filter_map(end));
    for (write, answer) in writes.drain(..).zip(answers) {
        match answer {
            Answer::Applied(Some(state)) if write.event.moves() => core.hub.tell(write.held.id(), state),
            // Applied before, with the reply lost: nobody was told.
            Answer::Already(state) if state.is_terminal() => core.hub.tell(write.held.id(), state),
            _ => {}
        }
        if let Some(reply) = write.reply {
            // An error means that the run has ended with its scheduler.
            let _ = reply.send(answer);
        }
    }
}
