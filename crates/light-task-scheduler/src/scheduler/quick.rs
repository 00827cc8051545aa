//! Runs that end at their first poll: many of them in one go, their ends written as one batch.
//!
//! A spawn costs more than a short handler. A kind that has shown to be quick is therefore run by a helper, one
//! for all quick tasks of a large claim, from the start of the first to the write of their ends. What a run needs
//! is made when it starts and gone when it has ended. The helper is not trusted, as a handler may block: it has a
//! thread of its own, because a blocked worker of the runtime could take the timers and a part of the queue with
//! it; and if it has not finished after [`PATIENCE`], the dispatcher takes the rest and gives each a task of its own.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};
use std::time::Duration;
use std::vec;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::executor::{Reporter, Started};
use crate::scheduler::completer::{self, End};
use crate::scheduler::core::Core;
use crate::scheduler::held::{Held, Receiving};
use crate::scheduler::run::{self, Listed, Stage};
use crate::scheduler::slots::ManySlots;
use crate::store::Change;
use crate::task::Task;

/// From this many quick tasks in one claim on, a helper runs them.
pub(super) const BATCH_MIN: usize = 64;
/// How long a helper may take before the rest of its batch is taken from it.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// The quick tasks of one claim.
pub(super) struct Batch {
    work: Mutex<Work>,
    begun: Instant,
}

struct Work {
    /// Not begun yet.
    waiting: vec::IntoIter<Task>,
    /// Run to their end: to be written.
    ended: Vec<End>,
    /// One for each of both, and one for what the helper has in hand.
    slots: ManySlots,
}

impl Batch {
    /// Starts a helper.
    pub(super) fn spawn(core: &Arc<Core>, tasks: Vec<Task>, receiving: Receiving) -> Arc<Batch> {
        let (slots, ended) = (core.slots.take_many(tasks.len()), Vec::with_capacity(tasks.len()));
        let work = Mutex::new(Work { waiting: tasks.into_iter(), ended, slots });
        let batch = Arc::new(Batch { work, begun: monotonic() });
        let (core, helped, runtime) = (core.clone(), batch.clone(), Handle::current());
        // If it panics, the heartbeat finds what it had in hand: owned by this replica, and run by nobody.
        tokio::task::spawn_blocking(move || {
            help(&core, &helped, &runtime);
            let (ended, slots) = helped.take_ended();
            until_killed(&core, &runtime, completer::write_ends(&core, ended));
            // The slots are free once the store knows that the runs have ended.
            drop(slots);
            drop(receiving);
        });
        batch
    }

    /// Whether its helper seems to be stuck.
    pub(super) fn is_overdue(&self) -> bool {
        self.begun.elapsed() >= PATIENCE
    }

    /// Does without the helper: what has ended is written, what has not begun becomes tasks of their own.
    pub(super) fn take_over(&self, core: &Arc<Core>) {
        let waiting = std::mem::take(&mut self.work().waiting);
        for task in waiting {
            let kind = core.kinds.get(&task.spec.kind);
            let held = kind.and_then(|kind| core.hold(task, kind, true));
            let slot = self.work().slots.split_one();
            if let (Some(held), Some(slot)) = (held, slot) {
                let starting = run::starting(&held);
                run::spawn(core, held, slot, Stage::Starting(starting));
            }
        }
        let (ended, slots) = self.take_ended();
        let writer = core.clone();
        core.spawn(async move {
            completer::write_ends(&writer, ended).await;
            drop(slots);
        });
    }

    fn take_ended(&self) -> (Vec<End>, ManySlots) {
        let mut work = self.work();
        let ended = std::mem::take(&mut work.ended);
        let slots = work.slots.split(ended.len());
        (ended, slots)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a future on the thread of a helper. `None`: this scheduler has ended.
fn until_killed<F: Future>(core: &Core, runtime: &Handle, future: F) -> Option<F::Output> {
    runtime.block_on(core.life.kill.token().run_until_cancelled(future))
}

fn help(core: &Arc<Core>, batch: &Batch, runtime: &Handle) {
    let mut clock = monotonic();
    let mut ended = None;
    while !core.life.kill.is_cancelled() {
        let next = {
            let mut work = batch.work();
            work.ended.extend(ended.take());
            work.waiting.next()
        };
        let Some(task) = next else { return };
        ended = begin(core, task, batch, runtime, &mut clock);
    }
}

/// Starts a run and, if that ends it, says what is to be written. Otherwise the run is a task of its own now.
fn begin(core: &Arc<Core>, task: Task, batch: &Batch, runtime: &Handle, clock: &mut Instant) -> Option<End> {
    let kind = core.kinds.get(&task.spec.kind)?;
    let token = task.record.token()?;
    let (run, mailbox) = core.prepare(task, true)?;
    let mut starting = pin!(kind.executor.start(run.clone(), Reporter::new(mailbox.clone())));
    let polled = starting.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    let before = std::mem::replace(clock, monotonic());
    kind.pace.observe(matches!(polled, Poll::Ready(Ok(Started::Ended(_)))), clock.duration_since(before));
    if core.results.is_none()
        && let Poll::Ready(Ok(Started::Ended(outcome))) = polled
    {
        let event = run::settle(core, &run.task, outcome);
        let change = Change { id: run.task.id.clone(), token, event };
        return Some(End { change, generation: run.task.record.generation });
    }
    let held = Arc::new(Held { run, executor: kind.executor.clone(), mailbox, since: *clock });
    let listed = Listed::add(core, held.clone());
    let slot = batch.work().slots.split_one()?;
    let answer = match polled {
        Poll::Ready(answer) => Ok(answer),
        Poll::Pending => {
            // Not a quick kind any more. The start goes on here; the others do not wait for it.
            batch.take_over(core);
            until_killed(core, runtime, run::begin(core, &held, starting))?
        }
    };
    listed.spawn(slot, Stage::Begun(answer));
    None
}
