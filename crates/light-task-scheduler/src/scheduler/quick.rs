//! Runs that end at their first poll: many of them in one go, their ends written as one batch.
//!
//! A spawn costs more than a short handler. A kind that has shown to be quick is therefore run by a helper, one
//! for all quick tasks of a large claim. The helper is not trusted, as a handler may block: it has a thread of its
//! own, because a blocked worker of the runtime could take the timers and a part of the queue with it; and if it
//! has not finished after [`PATIENCE`], the dispatcher takes the rest and gives each a task of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::executor::Started;
use crate::scheduler::completer::{self, Write};
use crate::scheduler::core::Core;
use crate::scheduler::held::{Held, Receiving};
use crate::scheduler::run::{self, Stage};
use crate::scheduler::slots::Slot;

/// From this many quick tasks in one claim on, a helper runs them.
pub(super) const BATCH_MIN: usize = 64;
/// How long a helper may take before the rest of its batch is taken from it.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// The quick tasks of one claim.
pub(super) struct Batch {
    work: Mutex<Work>,
    begun: Instant,
}

#[derive(Default)]
struct Work {
    /// Not begun yet.
    waiting: VecDeque<(Arc<Held>, Slot)>,
    /// Run to their end: to be written, with the slots that are held until then.
    ended: Vec<(Write, Slot)>,
}

impl Batch {
    /// Starts a helper.
    pub(super) fn spawn(core: &Arc<Core>, tasks: VecDeque<(Arc<Held>, Slot)>, receiving: Receiving) -> Arc<Batch> {
        let ended = Vec::with_capacity(tasks.len());
        let batch = Arc::new(Batch { work: Mutex::new(Work { waiting: tasks, ended }), begun: monotonic() });
        let (starter, helped) = (core.clone(), batch.clone());
        core.spawn(async move {
            let core = starter.clone();
            let helping = tokio::task::spawn_blocking(move || {
                help(&starter, &helped);
                helped
            });
            match helping.await {
                Ok(batch) => {
                    let ended = std::mem::take(&mut batch.work().ended);
                    write(&core, ended).await;
                }
                // The heartbeat finds what the helper had in hand: owned by this replica, and run by nobody.
                Err(error) => tracing::error!(%error, "a helper for quick tasks died"),
            }
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
        let Work { waiting, ended } = std::mem::take(&mut *self.work());
        for (held, slot) in waiting {
            let starting = run::starting(&held);
            run::spawn(core, held, slot, Stage::Starting(starting));
        }
        let writer = core.clone();
        core.spawn(async move { write(&writer, ended).await });
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(core: &Core, ended: Vec<(Write, Slot)>) {
    let (mut writes, slots): (Vec<_>, Vec<_>) = ended.into_iter().unzip();
    completer::flush(core, &mut writes).await;
    // The slots are free once the store knows that the runs have ended.
    drop(slots);
}

fn help(core: &Arc<Core>, batch: &Batch) {
    let mut clock = monotonic();
    let mut ended = None;
    while !core.life.kill.is_cancelled() {
        let next = {
            let mut work = batch.work();
            work.ended.extend(ended.take());
            work.waiting.pop_front()
        };
        let Some((held, slot)) = next else { return };
        ended = begin(core, held, slot, &mut clock);
    }
}

/// Starts a run and, if that ends it, says what is to be written. Otherwise the run is a task of its own now.
fn begin(core: &Arc<Core>, held: Arc<Held>, slot: Slot, clock: &mut Instant) -> Option<(Write, Slot)> {
    let mut starting = run::starting(&held);
    let polled = starting.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    let before = std::mem::replace(clock, monotonic());
    if let Some(kind) = core.kinds.get(&held.run.task.spec.kind) {
        kind.pace.observe(matches!(polled, Poll::Ready(Ok(Started::Ended(_)))), clock.duration_since(before));
    }
    let stage = match polled {
        Poll::Ready(Ok(Started::Ended(outcome))) if core.results.is_none() => {
            let event = run::settle(core, &held, outcome);
            return Some((Write { held, event, reply: None }, slot));
        }
        Poll::Ready(answer) => Stage::Started(answer),
        // The waker of this poll was a dummy: as a task of its own the start is polled again at once.
        Poll::Pending => Stage::Starting(starting),
    };
    run::spawn(core, held, slot, stage);
    None
}
