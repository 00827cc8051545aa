//! One attempt, from its start to its final write: start → watch → outcome → export → final write → release.
//!
//! Every step is a small function; what they decide is decided by `retry::decide` and `state::step`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::executor::{Recovered, StartError, Started, Stopped};
use crate::retry::{self, Verdict};
use crate::scheduler::core::{Core, StoreRetry};
use crate::scheduler::deadlines::{self, Limit};
use crate::scheduler::export;
use crate::scheduler::held::Held;
use crate::scheduler::slots::Slot;
use crate::state::{Refusal, RunEvent};
use crate::store::Answer;
use crate::task::{Failure, FailureKind, Handle, OUTPUT_BYTES_MAX, Outcome, Progress, ResultRef, State, Task};

/// How often progress is written at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long until a stop that could not be confirmed is tried again.
const STOP_RETRY: Duration = Duration::from_secs(2);
/// How long until an executor that cannot tell is asked again about a run to recover.
const RECOVER_RETRY: Duration = Duration::from_secs(1);

/// What an executor answers to a start.
pub(super) type StartAnswer = Result<Started, StartError>;
/// A start under way.
pub(super) type Starting = Pin<Box<dyn Future<Output = StartAnswer> + Send>>;

/// Where a run is taken up.
pub(super) enum Stage {
    /// Claimed; the start has not been polled to its end.
    Starting(Starting),
    /// Claimed; the start has answered, or must not go on.
    Begun(Result<StartAnswer, Reason>),
    /// Adopted while it ran: it is to be found again.
    Recovering,
    /// Adopted while its result was being saved.
    Exporting,
}

/// How a run ended, before the store knows.
enum End {
    /// So it ended, and this is to be written. The handle is released once it is safe.
    Event(RunEvent, Option<Handle>),
    /// It is not ours any more.
    Lost(Option<Handle>),
    /// It goes on without us.
    Detached,
}

/// Makes a run a task of its own.
pub(super) fn spawn(core: &Arc<Core>, held: Arc<Held>, slot: Slot, stage: Stage) {
    // Registered here and not in the task: from now on the heartbeat counts it.
    Listed::add(core, held).spawn(slot, stage);
}

/// A run that is registered.
///
/// Strikes the run from the registry when it ends, however it ends: if its executor panicked, the next
/// heartbeats find that this replica owns a task it does not run, and take it up again.
pub(super) struct Listed {
    core: Arc<Core>,
    held: Arc<Held>,
}

impl Listed {
    pub(super) fn add(core: &Arc<Core>, held: Arc<Held>) -> Self {
        core.registry.add(&held);
        Listed { core: core.clone(), held }
    }

    pub(super) fn spawn(self, slot: Slot, stage: Stage) {
        let core = self.core.clone();
        core.spawn(async move { run(&self.core, &self.held, slot, stage).await });
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.core.registry.remove(&self.held);
        if let Some(kind) = self.core.kinds.get(&self.held.run.task.spec.kind) {
            kind.pushes.fetch_add(self.held.pushes(), Ordering::Relaxed);
        }
    }
}

/// The future that starts a run. It owns what it needs, so that it can be polled anywhere or become a task.
pub(super) fn starting(held: &Arc<Held>) -> Starting {
    let held = held.clone();
    Box::pin(async move { held.executor.start(held.run.clone(), held.reporter()).await })
}

async fn run(core: &Arc<Core>, held: &Arc<Held>, mut slot: Slot, stage: Stage) {
    let end = match stage {
        Stage::Exporting => {
            slot.exports();
            let record = &held.run.task.record;
            End::Event(RunEvent::Outcome(record.output().cloned()), record.handle().cloned())
        }
        Stage::Recovering => recover(core, held).await,
        Stage::Begun(answer) => begun_with(core, held, answer).await,
        Stage::Starting(mut starting) => {
            let begun = monotonic();
            let answer = begin(core, held, starting.as_mut()).await;
            // What an interrupted start holds is free again before its run is looked for.
            drop(starting);
            if let Some(kind) = core.kinds.get(&held.run.task.spec.kind) {
                kind.pace.observe(matches!(answer, Ok(Ok(Started::Ended(_)))), begun.elapsed());
            }
            begun_with(core, held, answer).await
        }
    };
    finish(core, held, slot, end).await;
}

/// Waits until a start has answered, or must not go on for this reason. Then it is dropped as by a crash: what it
/// may have made is to be found again.
pub(super) async fn begin<F: Future<Output = StartAnswer> + ?Sized>(
    core: &Core,
    held: &Held,
    mut starting: Pin<&mut F>,
) -> Result<StartAnswer, Reason> {
    // Most starts answer at once: those need no timer.
    if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(starting.as_mut().poll(context))).await {
        return Ok(answer);
    }
    let limit = deadlines::limit(core, &held.run.task);
    let limit_at = limit.as_ref().map_or_else(|| monotonic() + deadlines::NEVER, |limit| limit.at);
    loop {
        if let Some(reason) = held.interruption() {
            return Err(reason);
        }
        tokio::select! {
            biased;
            answer = starting.as_mut() => return Ok(answer),
            () = held.rung() => {}
            () = tokio::time::sleep_until(limit_at) => {
                let Some(limit) = limit else { continue };
                return Err(Reason::Limit(limit));
            }
        }
    }
}

async fn begun_with(core: &Arc<Core>, held: &Arc<Held>, answer: Result<StartAnswer, Reason>) -> End {
    match answer {
        Ok(answer) => started(core, held, answer).await,
        Err(reason) => stop(core, held, None, reason).await,
    }
}

async fn started(core: &Arc<Core>, held: &Arc<Held>, answer: StartAnswer) -> End {
    match answer {
        Ok(Started::Ended(outcome)) => End::Event(settle(core, &held.run.task, outcome), None),
        Ok(Started::Running(handle)) => {
            held.set_handle(&handle);
            if held.executor.adoptable() {
                // The name alone would find the run again; the handle finds it faster.
                core.completer.note(held, RunEvent::Started(Some(handle.clone()))).await;
            }
            watch(core, held, handle).await
        }
        Err(StartError::Refused(failure)) => End::Event(conclude(core, &held.run.task, failure), None),
        Err(StartError::Busy { message, retry_after }) => {
            let mut failure = Failure::new(FailureKind::Busy, message);
            failure.retry_after = Some(retry_after);
            End::Event(conclude(core, &held.run.task, failure), None)
        }
    }
}

/// Finds a run again that was started under another owner, or proves that there is none.
async fn recover(core: &Arc<Core>, held: &Arc<Held>) -> End {
    let stored = held.run.task.record.handle().cloned();
    let limit = deadlines::limit(core, &held.run.task);
    loop {
        match held.executor.recover(held.run.clone(), stored.clone(), held.reporter()).await {
            Recovered::Attached(handle) => {
                held.set_handle(&handle);
                if stored.as_ref() != Some(&handle) {
                    core.completer.note(held, RunEvent::Started(Some(handle.clone()))).await;
                }
                return watch(core, held, handle).await;
            }
            Recovered::Gone(why) => {
                let failure = Failure::new(FailureKind::Lost, why);
                return End::Event(conclude(core, &held.run.task, failure), stored);
            }
            // Unknown is neither success nor failure: the task keeps its slot until somebody can tell.
            Recovered::Unreachable(why) => tracing::debug!(id = %held.id(), why, "cannot recover a run yet"),
        }
        tokio::select! {
            biased;
            () = held.rung() => {}
            () = tokio::time::sleep(RECOVER_RETRY) => {}
        }
        let mail = held.read();
        let overrun = limit.filter(|limit| limit.at <= monotonic());
        match (stored.clone(), overrun) {
            _ if mail.lost => return End::Lost(stored),
            _ if mail.detach || mail.drain => return End::Detached,
            (stored, _) if mail.ended.is_some() => {
                return mail
                    .ended
                    .map_or(End::Detached, |outcome| End::Event(settle(core, &held.run.task, outcome), stored));
            }
            // Stopping needs a handle; without one the executor must first say whether there is a run at all.
            (Some(handle), _) if mail.cancel => return stop(core, held, Some(handle), Reason::Cancel).await,
            (Some(handle), Some(limit)) => return stop(core, held, Some(handle), Reason::Limit(limit)).await,
            _ => {}
        }
    }
}

/// Follows a started run until it has ended, is stopped, or is not ours any more.
async fn watch(core: &Arc<Core>, held: &Arc<Held>, handle: Handle) -> End {
    let limit = deadlines::limit(core, &held.run.task);
    let never = monotonic() + deadlines::NEVER;
    let mut unsaid: Option<Progress> = None;
    let mut said_at: Option<Instant> = None;
    loop {
        let mail = held.read();
        if mail.lost {
            return End::Lost(Some(handle));
        } else if let Some(outcome) = mail.ended {
            return End::Event(settle(core, &held.run.task, outcome), Some(handle));
        } else if mail.cancel {
            return stop(core, held, Some(handle), Reason::Cancel).await;
        } else if mail.detach && held.executor.adoptable() {
            return End::Detached;
        } else if mail.drain || mail.detach {
            return stop(core, held, Some(handle), Reason::Drain).await;
        }
        unsaid = mail.progress.or(unsaid);
        let may_say = said_at.map_or_else(monotonic, |at| at + PROGRESS_INTERVAL);
        if monotonic() >= may_say
            && let Some(progress) = unsaid.take()
        {
            // While the store is down, progress waits here, and watching goes on.
            unsaid = core.completer.try_progress(held, progress);
            said_at = Some(monotonic());
        }
        let say_at = if unsaid.is_some() { may_say } else { never };
        let limit_at = limit.as_ref().map_or(never, |limit| limit.at);
        tokio::select! {
            biased;
            () = held.rung() => {}
            () = tokio::time::sleep_until(limit_at) => {
                let Some(limit) = limit else { continue };
                return stop(core, held, Some(handle), Reason::Limit(limit)).await;
            }
            () = tokio::time::sleep_until(say_at) => {}
        }
    }
}

/// Why a run is stopped.
pub(super) enum Reason {
    Cancel,
    Limit(Limit),
    Drain,
}

/// Tries to stop a run. One whose start has not answered has no handle: first it is found, as after a crash.
async fn try_stop(core: &Core, held: &Held, handle: &mut Option<Handle>) -> Stopped {
    let found = match handle {
        Some(handle) => handle,
        None => match held.executor.recover(held.run.clone(), None, held.reporter()).await {
            Recovered::Attached(found) => {
                held.set_handle(&found);
                handle.insert(found)
            }
            Recovered::Gone(_) => return Stopped::Confirmed(None),
            Recovered::Unreachable(why) => return Stopped::Unconfirmed(why),
        },
    };
    held.executor.stop(found, core.config.stop_grace).await
}

/// Whether the store says that a run is ours. One that another replica has adopted, while this one was cut off and has
/// not heard of it, is not to be stopped only because this one ends. A store that does not answer is not waited for.
async fn is_ours(core: &Core, held: &Held) -> bool {
    let Ok(found) = core.store.get(std::slice::from_ref(held.id())).await else { return true };
    let token = found.into_iter().flatten().next().and_then(|task| task.record.token());
    token.is_some_and(|token| token == held.token() || token.owner == core.replica.id())
}

/// Stops a run and does not return before it is dead, or not ours any more.
async fn stop(core: &Arc<Core>, held: &Arc<Held>, mut handle: Option<Handle>, reason: Reason) -> End {
    if matches!(reason, Reason::Drain) && held.executor.adoptable() && !is_ours(core, held).await {
        return End::Lost(handle);
    }
    let mut marked = false;
    loop {
        match try_stop(core, held, &mut handle).await {
            Stopped::Confirmed(outcome) => {
                // What it said itself, to the executor or by a push, is preferred to "it was stopped".
                let outcome = outcome.or(held.read().ended);
                return End::Event(stopped(core, &held.run.task, &reason, outcome), handle);
            }
            Stopped::Unconfirmed(_) if bug!(UnconfirmedIsDead) => {
                return End::Event(stopped(core, &held.run.task, &reason, None), handle);
            }
            Stopped::Unconfirmed(why) => {
                tracing::warn!(id = %held.id(), why, "a run could not be confirmed dead; its slot stays taken");
                if !marked {
                    marked = true;
                    core.completer.note(held, RunEvent::StopUnconfirmed).await;
                }
            }
        }
        tokio::select! {
            biased;
            () = held.rung() => {}
            () = tokio::time::sleep(STOP_RETRY) => {}
        }
        let mail = held.read();
        if mail.lost {
            return End::Lost(handle);
        }
        if mail.ended.is_some() {
            return End::Event(stopped(core, &held.run.task, &reason, mail.ended), handle);
        }
        if mail.detach {
            // Shutting down with a run that cannot be stopped: nothing more can be done from here.
            return End::Detached;
        }
    }
}

/// What becomes of a run that was stopped.
fn stopped(core: &Core, task: &Task, reason: &Reason, outcome: Option<Outcome>) -> RunEvent {
    match (reason, outcome) {
        (Reason::Cancel, _) => RunEvent::Cancelled,
        // It was done before it could be stopped.
        (_, Some(Outcome::Succeeded(output))) => settle(core, task, Outcome::Succeeded(output)),
        // It had been stopped by somebody else before its time was up, and was only found now.
        (Reason::Limit(_), Some(Outcome::Failed(said))) if said.kind == FailureKind::Drained => {
            conclude(core, task, said)
        }
        (Reason::Limit(limit), Some(Outcome::Failed(said))) => conclude(core, task, limit.overrun(&said)),
        (Reason::Limit(limit), None) => conclude(core, task, Failure::new(limit.kind, limit.message())),
        (Reason::Drain, _) => conclude(core, task, Failure::new(FailureKind::Drained, "the scheduler shut down")),
    }
}

/// What is to be written for a run that ended by itself.
pub(super) fn settle(core: &Core, task: &Task, outcome: Outcome) -> RunEvent {
    match outcome {
        Outcome::Failed(failure) if failure.kind == FailureKind::Cancelled => {
            // A scheduler stopped it and died before it could write why. If it was a wish, the record says so;
            // if its time was up, it must not be had again.
            let limit = deadlines::limit(core, task).filter(|limit| limit.at <= monotonic());
            conclude(core, task, limit.map_or(failure.clone(), |limit| limit.overrun(&failure)))
        }
        Outcome::Failed(failure) => conclude(core, task, failure),
        Outcome::Succeeded(Some(output)) if output.len() > OUTPUT_BYTES_MAX => {
            let message = format!("the output has {} bytes, more than {OUTPUT_BYTES_MAX}", output.len());
            RunEvent::Fail(Failure::new(FailureKind::Export, message))
        }
        Outcome::Succeeded(Some(output)) if core.results.is_none() => RunEvent::Complete(ResultRef::Inline(output)),
        Outcome::Succeeded(output) => RunEvent::Outcome(output),
    }
}

/// What is to be written for a run that ended without success.
fn conclude(core: &Core, task: &Task, failure: Failure) -> RunEvent {
    let now = core.replica.store_now();
    let verdict = retry::decide(&task.retry_policy(), &task.record, task.spec.deadline(), &failure, now, core.chance());
    match verdict {
        Verdict::Retry(at) => RunEvent::Retry(at, failure),
        Verdict::Release(at) => RunEvent::Release(at, failure),
        Verdict::Fail => RunEvent::Fail(failure),
    }
}

/// Writes the end, saves the result where that is still to be done, and cleans up.
async fn finish(core: &Arc<Core>, held: &Arc<Held>, mut slot: Slot, end: End) {
    let (event, handle) = match end {
        End::Event(event, handle) => (event, handle),
        End::Lost(handle) => return abandon(core, held, handle).await,
        End::Detached => return,
    };
    let output = match &event {
        RunEvent::Outcome(output) => Some(output.clone()),
        _ => None,
    };
    let exports = output.is_some();
    if let (Some(handle), true) = (&handle, bug!(ReleaseBeforeOutcome)) {
        held.executor.release(handle).await;
    }
    let answer = write_end(core, held, event).await;
    let answer = match (answer, output) {
        (Some(Answer::Applied(Some(State::Exporting)) | Answer::Already(State::Exporting)), Some(output)) => {
            slot.exports();
            let event = export::export(core, held, handle.as_ref(), output).await;
            write_end(core, held, event).await
        }
        (answer, _) => answer,
    };
    drop(slot);
    let state = match answer {
        Some(Answer::Applied(state)) => state,
        Some(Answer::Already(state)) => Some(state),
        Some(Answer::Missing) => None,
        // The next owner cannot reach a run of this process: what it left goes with it.
        Some(Answer::Refused(_)) if !held.executor.adoptable() => None,
        // A new owner, or the end of this scheduler: what is left belongs to the next one.
        Some(Answer::Refused(_)) | None => return,
    };
    // A failed export may be tried again, and then needs what the handle leads to.
    let kept = exports && state == Some(State::Failed) && !bug!(ExportOutputReleased);
    if let (Some(handle), false) = (handle, kept) {
        // The end is safe: remove what the run left.
        held.executor.release(&handle).await;
    }
}

/// Writes the end of a run with the fence in force. If this replica had to register anew meanwhile, and has
/// adopted its own run under the new id, the write is made again: a known outcome is never dropped for that.
async fn write_end(core: &Core, held: &Arc<Held>, event: RunEvent) -> Option<Answer> {
    loop {
        let token = held.token();
        let answer = core.completer.write(held, event.clone()).await;
        if answer != Some(Answer::Refused(Refusal::Stale)) {
            return answer;
        }
        if held.token() == token {
            let found = core.store.get(std::slice::from_ref(held.id())).await.ok()?.into_iter().flatten().next();
            let ours =
                found.filter(|task| task.record.execution == held.execution()).and_then(|task| task.record.token());
            match ours {
                Some(fresh) if fresh != token && fresh.owner == core.replica.id() => held.set_token(fresh),
                _ => return answer,
            }
        }
    }
}

/// Ends a run that is not ours any more, unless another owner has adopted that very run: then its end, and
/// what it leaves, are that owner's business, also after the end.
async fn abandon(core: &Core, held: &Held, handle: Option<Handle>) {
    let Some(handle) = handle else { return };
    if held.executor.adoptable() {
        let adopted = |task: &Task| task.record.execution == held.execution();
        let mut retry = StoreRetry::new();
        // Until the store has said whether another owner has adopted this run, it is neither killed nor left.
        let tasks = loop {
            match core.store.get(std::slice::from_ref(held.id())).await {
                Ok(tasks) => break tasks,
                Err(error) => tracing::warn!(id = %held.id(), %error, "cannot tell who owns a run; asking again"),
            }
            retry.wait(core.chance()).await;
        };
        if tasks.iter().flatten().any(adopted) {
            return;
        }
    }
    while let Stopped::Unconfirmed(why) = held.executor.stop(&handle, core.config.stop_grace).await {
        tracing::warn!(id = %held.id(), why, "a run that lost its owner could not be confirmed dead");
        tokio::time::sleep(STOP_RETRY).await;
    }
    held.executor.release(&handle).await;
}
