//! Runs that end at their first poll: many of them in one task, their ends written as one batch.
//!
//! A spawn costs more than a short handler. A kind that has shown to be quick is therefore run by a helper
//! task, one for all quick tasks of a large claim. The helper is not trusted: if it has not finished after
//! [`PATIENCE`], because a handler blocks, the dispatcher takes the rest and gives each a task of its own.

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

/// The tasks of one claim that a helper has not begun yet.
pub(super) struct Batch {
    waiting: Mutex<VecDeque<(Arc<Held>, Slot)>>,
    begun: Instant,
}

impl Batch {
    /// Starts a helper.
    pub(super) fn spawn(core: &Arc<Core>, tasks: VecDeque<(Arc<Held>, Slot)>, receiving: Receiving) -> Arc<Batch> {
        let batch = Arc::new(Batch { waiting: Mutex::new(tasks), begun: monotonic() });
        let (core, helped) = (core.clone(), batch.clone());
        core.clone().spawn(async move {
            help(&core, &helped).await;
            drop(receiving);
        });
        batch
    }

    /// Whether its helper seems to be stuck.
    pub(super) fn is_overdue(&self) -> bool {
        self.begun.elapsed() >= PATIENCE
    }

    /// Takes what the helper has not begun yet.
    pub(super) fn take_rest(&self) -> VecDeque<(Arc<Held>, Slot)> {
        std::mem::take(&mut self.waiting())
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Arc<Held>, Slot)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn help(core: &Arc<Core>, batch: &Batch) {
    let mut writes = Vec::new();
    let mut slots = Vec::new();
    let mut clock = monotonic();
    loop {
        let next = batch.waiting().pop_front();
        let Some((held, slot)) = next else { break };
        begin(core, held, slot, &mut clock, &mut writes, &mut slots);
    }
    completer::flush(core, &mut writes).await;
    // The slots are free once the store knows that the runs have ended.
    drop(slots);
}

/// Starts a run and, if that ends it, leaves its end to be written.
fn begin(
    core: &Arc<Core>,
    held: Arc<Held>,
    slot: Slot,
    clock: &mut Instant,
    writes: &mut Vec<Write>,
    slots: &mut Vec<Slot>,
) {
    let mut starting = run::starting(&held);
    let polled = starting.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    let before = std::mem::replace(clock, monotonic());
    if let Some(kind) = core.kinds.get(&held.run.task.spec.kind) {
        kind.pace.observe(matches!(polled, Poll::Ready(Ok(Started::Ended(_)))), clock.duration_since(before));
    }
    match polled {
        Poll::Ready(Ok(Started::Ended(outcome))) if core.results.is_none() => {
            let event = run::settle(core, &held, outcome);
            writes.push(Write { held, event, reply: None });
            slots.push(slot);
        }
        Poll::Ready(answer) => run::spawn(core, held, slot, Stage::Started(answer)),
        // The waker of this poll was a dummy: as a task of its own the start is polled again at once.
        Poll::Pending => run::spawn(core, held, slot, Stage::Starting(starting)),
    }
}
