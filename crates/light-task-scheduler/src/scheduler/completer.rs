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
use crate::task::{Progress, ResultRef, State, TaskId, Token};

/// How many writes wait before those who hand over more have to.
const QUEUE_MAX: usize = 4_096;
/// How many are written at once.
const BATCH_MAX: usize = 1_000;
/// How many bytes of outputs and results are written at once (16 MiB), unless one alone has more.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// One write, and whom to tell the answer.
pub(super) struct Write {
    held: Arc<Held>,
    event: RunEvent,
    reply: Option<oneshot::Sender<Answer>>,
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

/// Writes a batch and empties it.
async fn flush(core: &Core, writes: &mut Vec<Write>) {
    let answers = apply(core, writes).await;
    for (write, answer) in writes.drain(..).zip(answers) {
        tell(core, write.held.id(), &write.event, &answer);
        if let Some(reply) = write.reply {
            // An error means that the run has ended with its scheduler.
            let _ = reply.send(answer);
        }
    }
}

/// Writes the ends of runs that nobody waits for.
pub(super) async fn write_ends(core: &Core, ends: Vec<End>) {
    let answers = apply(core, &ends).await;
    for (end, answer) in ends.iter().zip(&answers) {
        tell(core, &end.change.id, &end.change.event, answer);
    }
}

/// The end of a run that nobody waits for.
pub(super) struct End {
    pub(super) change: Change,
    /// That of the run.
    pub(super) generation: u32,
}

/// What is written.
trait Written {
    fn id(&self) -> &TaskId;
    /// As it is now: the fence may change between two tries.
    fn token(&self) -> Token;
    fn event(&self) -> &RunEvent;
    fn generation(&self) -> u32;
}

impl Written for Write {
    fn id(&self) -> &TaskId {
        self.held.id()
    }

    fn token(&self) -> Token {
        self.held.token()
    }

    fn event(&self) -> &RunEvent {
        &self.event
    }

    fn generation(&self) -> u32 {
        self.held.run.task.record.generation
    }
}

impl Written for End {
    fn id(&self) -> &TaskId {
        &self.change.id
    }

    fn token(&self) -> Token {
        self.change.token
    }

    fn event(&self) -> &RunEvent {
        &self.change.event
    }

    fn generation(&self) -> u32 {
        self.generation
    }
}

/// Has them all applied, however long the store takes to take them, in calls of a bounded size.
async fn apply<W: Written>(core: &Core, writes: &[W]) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(writes.len());
    while let Some((_, rest)) = writes.split_at_checked(answers.len()).filter(|(_, rest)| !rest.is_empty()) {
        let (part, _) = rest.split_at(part(rest.iter().map(|write| bytes(write.event()))));
        answers.extend(apply_part(core, part).await);
    }
    answers
}

async fn apply_part<W: Written>(core: &Core, writes: &[W]) -> Vec<Answer> {
    let change = |write: &W| Change { id: write.id().clone(), token: write.token(), event: write.event().clone() };
    let mut retry = StoreRetry::new();
    let answers = loop {
        match core.store.apply(writes.iter().map(change).collect()).await {
            Ok(answers) => break answers,
            // They may have been applied with the reply lost: repeating them is harmless.
            Err(error) => {
                tracing::warn!(writes = writes.len(), %error, "the store did not take final writes; trying again")
            }
        }
        retry.wait(core.chance()).await;
    };
    let end = |(write, answer): (&W, &Answer)| {
        let has_ended = answer.state().is_some_and(State::is_terminal);
        has_ended.then(|| (write.id().clone(), write.token().run, write.generation()))
    };
    core.acknowledged.ended(writes.iter().zip(&answers).filter_map(end));
    answers
}

/// How many of the writes of these sizes go into one call.
fn part(sizes: impl Iterator<Item = usize>) -> usize {
    let mut total = 0_usize;
    let fits = |(place, size): &(usize, usize)| {
        total = total.saturating_add(*size);
        *place == 0 || total <= BATCH_BYTES_MAX
    };
    sizes.enumerate().take_while(fits).count()
}

/// How many bytes of a user's are in an event.
fn bytes(event: &RunEvent) -> usize {
    match event {
        RunEvent::Outcome(Some(output)) | RunEvent::Complete(ResultRef::Inline(output)) => output.len(),
        _ => 0,
    }
}

/// Tells who follows the task what it has come to by a write.
fn tell(core: &Core, id: &TaskId, event: &RunEvent, answer: &Answer) {
    match answer {
        Answer::Applied(Some(state)) if event.moves() => core.hub.tell(id, *state),
        // Applied before, with the reply lost: nobody was told.
        Answer::Already(state) if state.is_terminal() => core.hub.tell(id, *state),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_bounded_by_bytes_and_takes_one_write_at_least() {
        const LARGE: usize = 4 << 20;
        assert_eq!(part([LARGE; 1_000].into_iter()), BATCH_BYTES_MAX / LARGE);
        assert_eq!(part([1, 2, 3].into_iter()), 3);
        assert_eq!(part([BATCH_BYTES_MAX + 1, 1].into_iter()), 1);
        assert_eq!(part([1, BATCH_BYTES_MAX, 1].into_iter()), 1);
        assert_eq!(part(std::iter::empty()), 0);
    }
}
