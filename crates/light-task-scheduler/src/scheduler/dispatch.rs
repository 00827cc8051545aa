//! Claims tasks when slots are free, and starts them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Timestamp, monotonic};
use crate::error::ErrorKind;
use crate::executor::{Reporter, Started};
use crate::scheduler::completer::{self, Write};
use crate::scheduler::core::{Core, Held, Slot, StoreRetry};
use crate::scheduler::run::{self, Stage, Starting};
use crate::store::{Changes, Claim, ClaimRequest};
use crate::task::{State, Task};

/// The shortest wait between two claims that bring nothing, whatever the store says is due.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// From this many ends of quick runs on, another task writes them.
const PARALLEL_FLUSH_MIN: usize = 64;

/// The loop of the dispatcher.
pub(super) async fn dispatch(core: Arc<Core>) {
    let mut dispatcher = Dispatcher { core: core.clone(), number: 0, seen: Changes::default() };
    while !core.life.draining.is_cancelled() {
        dispatcher.turn().await;
        // A store in memory never makes us wait: let others have a turn.
        tokio::task::yield_now().await;
    }
}

/// Shows the heartbeat, while it lives, that the dispatcher holds tasks that are not registered.
struct Hands(Arc<Core>);

impl Hands {
    fn full(core: &Arc<Core>) -> Self {
        core.registry.dispatching.fetch_add(1, Ordering::SeqCst);
        Hands(core.clone())
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        self.0.registry.dispatching.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the quick runs of one claim leave to be done.
struct Quick {
    /// When the last of them ended.
    clock: Instant,
    writes: Vec<Write>,
    /// Given back when their ends are written.
    slots: Vec<Slot>,
}

struct Dispatcher {
    core: Arc<Core>,
    /// The number of the last claim.
    number: u64,
    seen: Changes,
}

impl Dispatcher {
    /// One turn: wait until a claim makes sense, claim, start what was claimed, wait for news.
    async fn turn(&mut self) {
        let core = self.core.clone();
        tokio::select! {
            biased;
            () = core.life.draining.cancelled() => return,
            () = core.replica.valid() => {}
        }
        let limit = self.limit();
        // What changes from here on is news: it may or may not be in the claim.
        let seen = self.seen;
        let hands = Hands::full(&core);
        let claim = self.claim(limit).await;
        let claimed = claim.as_ref().map_or(0, |claim| claim.tasks.len());
        let next_at = claim.as_ref().and_then(|claim| claim.next_at.map(|at| instant(claim.now, at)));
        if let Some(claim) = claim {
            self.start(claim, hands).await;
        } else {
            drop(hands);
        }
        let full = claimed == limit;
        if !(full && core.slots.free() > 0 && claimed > 0) {
            self.wait(seen, full, next_at).await;
        }
    }

    /// How many tasks to claim now.
    fn limit(&self) -> usize {
        let core = &self.core;
        if core.slots.exporting() >= core.config.exporting_max() {
            return 0;
        }
        // Half of many slots at a time: one half runs while the ends of the other are written.
        let most =
            if core.config.concurrency < 2 * PARALLEL_FLUSH_MIN { usize::MAX } else { core.config.concurrency / 2 };
        core.slots.free().min(most)
    }

    /// Claims, repeating the same claim until the store has answered. `None`: this replica must register anew.
    async fn claim(&mut self, limit: usize) -> Option<Claim> {
        let core = &self.core;
        self.number += 1;
        let mut retry = StoreRetry::new();
        loop {
            let replica = core.replica.id();
            let request = ClaimRequest {
                replica,
                number: self.number,
                kinds: core.kind_names.clone(),
                queues: core.config.queues.clone(),
                limit,
            };
            match core.store.claim(request).await {
                Ok(claim) => return Some(claim),
                Err(error) if error.kind() == ErrorKind::NotRegistered => {
                    // The heartbeat finds out why, and renews or registers.
                    if core.replica.id() == replica {
                        core.replica.invalidate();
                        core.replica.rescue.notify_one();
                    }
                    return None;
                }
                Err(error) => tracing::warn!(%error, "the store did not answer a claim; repeating it"),
            }
            retry.wait(core.chance()).await;
        }
    }

    /// Starts what was claimed. Quick kinds are polled right here, and their ends are written as one batch.
    async fn start(&self, claim: Claim, hands: Hands) {
        let core = &self.core;
        for id in &claim.expired {
            core.hub.tell(id, State::Failed);
        }
        // A claim whose answer took longer than the lease starts nothing: its tasks may have another owner.
        core.replica.valid().await;
        let owner = core.replica.id();
        let mut quick = Quick { clock: monotonic(), writes: Vec::new(), slots: Vec::new() };
        for task in claim.tasks {
            if task.record.owner == Some(owner) {
                self.begin(task, &mut quick);
            }
            // Else it was claimed under an id that has died since: who rescues it adopts the task, maybe we.
        }
        if quick.writes.len() < PARALLEL_FLUSH_MIN {
            completer::flush(core, &mut quick.writes).await;
            return;
        }
        // While another thread writes these ends, this one claims and starts the next tasks.
        let core = core.clone();
        self.core.spawn(async move {
            completer::flush(&core, &mut quick.writes).await;
            drop((quick, hands));
        });
    }

    fn begin(&self, task: Task, quick: &mut Quick) {
        let core = &self.core;
        // A claim that names a task this replica still runs re-owns that run; it never starts a second one.
        if let (Some(held), Some(token)) = (core.registry.get(&task.id), task.record.token())
            && held.execution() == task.record.execution
        {
            held.set_token(token);
            return;
        }
        core.hub.tell(&task.id, State::Running);
        let Some(kind) = core.kinds.get(&task.spec.kind) else { return };
        let Some(held) = core.hold(task, kind) else { return };
        let slot = core.slots.take();
        let mut starting = starting(&held);
        if !kind.pace.is_quick() {
            return run::spawn(core, held, slot, Stage::Starting(starting));
        }
        let polled = starting.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
        let before = std::mem::replace(&mut quick.clock, monotonic());
        kind.pace.observe(matches!(polled, Poll::Ready(Ok(Started::Ended(_)))), quick.clock.duration_since(before));
        match polled {
            Poll::Ready(Ok(Started::Ended(outcome))) if core.results.is_none() => {
                let event = run::settle(core, &held, outcome);
                quick.writes.push(Write { held, event, reply: None });
                quick.slots.push(slot);
            }
            Poll::Ready(answer) => run::spawn(core, held, slot, Stage::Started(answer)),
            Poll::Pending => run::spawn(core, held, slot, Stage::Starting(starting)),
        }
    }

    /// Waits until another claim may bring something.
    async fn wait(&mut self, seen: Changes, full: bool, next_at: Option<Instant>) {
        let core = &self.core;
        let poll = monotonic() + core.config.store_poll;
        // While every slot is taken, only a free one is news; what is due now waits for that too.
        let at = if full { poll } else { next_at.map_or(poll, |at| at.min(poll)).max(monotonic() + PAUSE_MIN) };
        let news = async {
            let mut seen = seen;
            loop {
                let now = core.store.changed(seen).await;
                if now.work != seen.work {
                    return now;
                }
                seen = now;
            }
        };
        tokio::select! {
            biased;
            () = core.life.draining.cancelled() => {}
            () = core.slots.freed.notified() => {}
            now = news, if !full => self.seen = now,
            () = tokio::time::sleep_until(at) => {}
        }
    }
}

/// The future that starts a run. It owns what it needs, so that it can be polled here or become a task.
pub(super) fn starting(held: &Arc<Held>) -> Starting {
    let held = held.clone();
    Box::pin(async move {
        let reporter = Reporter::new(held.clone());
        held.executor.start(held.run.clone(), reporter).await
    })
}

/// When it is `at` for a store whose time is `now`.
fn instant(now: Timestamp, at: Timestamp) -> Instant {
    monotonic() + at.since(now)
}
