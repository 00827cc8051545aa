//! Claims tasks when slots are free, and starts them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Timestamp, monotonic};
use crate::error::ErrorKind;
use crate::scheduler::core::{Core, Kind, StoreRetry, hinted};
use crate::scheduler::deadlines;
use crate::scheduler::held::Receiving;
use crate::scheduler::quick::{self, Batch};
use crate::scheduler::run::{self, Stage};
use crate::state::RunEvent;
use crate::store::{Changes, Claim, ClaimRequest};
use crate::task::{Failure, FailureKind, State, Task};

/// The shortest wait between two claims that bring nothing, whatever the store says is due.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How long a task waits whose earlier run here has lost its owner and still ends.
const EARLIER_RUN_DELAY: Duration = Duration::from_secs(1);

/// The loop of the dispatcher.
pub(super) async fn dispatch(core: Arc<Core>) {
    let mut dispatcher = Dispatcher { core: core.clone(), number: 0, seen: Changes::default(), batches: Vec::new() };
    while !core.life.draining.is_cancelled() {
        dispatcher.turn().await;
        // A store in memory never makes us wait: let others have a turn.
        tokio::task::yield_now().await;
    }
}

struct Dispatcher {
    core: Arc<Core>,
    /// The number of the last claim.
    number: u64,
    seen: Changes,
    /// Batches of quick tasks whose helpers have not finished.
    batches: Vec<Weak<Batch>>,
}

impl Dispatcher {
    /// One turn: wait until a claim makes sense, claim, start what was claimed, wait for news.
    async fn turn(&mut self) {
        let core = self.core.clone();
        self.look_after_batches();
        if !self.may_claim().await || !self.may_start().await {
            return;
        }
        let limit = self.limit();
        // What changes from here on is news: it may or may not be in the claim.
        let seen = self.seen;
        let receiving = core.registry.receive();
        let claim = self.claim(limit).await;
        let claimed = claim.as_ref().map_or(0, |claim| claim.tasks.len());
        let next_at = claim.as_ref().and_then(|claim| claim.next_at.map(|at| instant(claim.now, at)));
        if let Some(claim) = claim {
            self.start(claim, receiving).await;
        } else {
            drop(receiving);
        }
        let full = claimed == limit;
        if !(full && core.slots.free() > 0 && claimed > 0) {
            self.wait(seen, full, next_at).await;
        }
    }

    /// Waits until the claims do not pause. False: it shuts down.
    async fn may_claim(&self) -> bool {
        tokio::select! {
            biased;
            () = self.core.life.draining.cancelled() => false,
            () = self.core.replica.claims() => true,
        }
    }

    /// Waits until this replica may start runs. False: it shuts down.
    async fn may_start(&self) -> bool {
        tokio::select! {
            biased;
            () = self.core.life.draining.cancelled() => false,
            () = self.core.replica.valid() => true,
        }
    }

    /// Does without the helpers that seem to be stuck.
    fn look_after_batches(&mut self) {
        self.batches.retain(|batch| {
            let Some(batch) = batch.upgrade() else { return false };
            let overdue = batch.is_overdue();
            if overdue {
                batch.take_over(&self.core);
            }
            !overdue
        });
    }

    /// How many tasks to claim now.
    fn limit(&self) -> usize {
        let core = &self.core;
        if core.slots.exporting() >= core.config.exporting_max() {
            return 0;
        }
        // Half of many slots at a time: one half runs while the ends of the other are written.
        let most =
            if core.config.concurrency < 2 * quick::BATCH_MIN { usize::MAX } else { core.config.concurrency / 2 };
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
                among: None,
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
                // What was claimed all the same is adopted by others once this replica has left.
                Err(_) if core.life.draining.is_cancelled() => return None,
                Err(error) => tracing::warn!(%error, "the store did not answer a claim; repeating it"),
            }
            self.number += u64::from(bug!(ClaimReplyForgotten));
            retry.wait(core.chance()).await;
        }
    }

    /// Starts what was claimed: each task as a task of its own, or many quick ones together.
    async fn start(&mut self, claim: Claim, receiving: Receiving) {
        let core = self.core.clone();
        for id in &claim.expired {
            core.hub.tell(id, State::Failed);
        }
        // A claim whose answer took longer than the lease starts nothing: its tasks may have another owner.
        let starts = bug!(StartPastLease) || self.may_start().await;
        let owner = core.replica.id();
        let many = claim.tasks.len() >= quick::BATCH_MIN;
        let mut batch = Vec::with_capacity(if many { claim.tasks.len() } else { 0 });
        for task in claim.tasks {
            if task.record.owner != Some(owner) && !bug!(StartPastLease) {
                // Claimed under an id that has died since: who rescues it adopts the task, maybe we.
                continue;
            }
            let Some(kind) = core.kinds.get(&task.spec.kind) else { continue };
            let is_quick = many && kind.pace.is_quick();
            let Some(task) = self.receive(task, kind, starts).await else { continue };
            if is_quick {
                batch.push(task);
            } else if let Some(held) = core.hold(task, kind, true) {
                let starting = run::starting(&held);
                run::spawn(&core, held, core.slots.take(), Stage::Starting(starting));
            }
        }
        if !batch.is_empty() {
            let batch = Batch::spawn(&core, batch, receiving);
            self.batches.push(Arc::downgrade(&batch));
        }
    }

    /// A claimed task as one to start now; `None` if it is not to be started.
    async fn receive(&self, task: Task, kind: &Kind, starts: bool) -> Option<Task> {
        let core = &self.core;
        let earlier = core.registry.get(&task.id);
        if let (Some(earlier), Some(token)) = (&earlier, task.record.token())
            && earlier.execution() == task.record.execution
        {
            // A claim that names a task this replica still runs re-owns that run; it never starts a second one.
            earlier.set_token(token);
            return None;
        }
        let (why, delay) = if !starts {
            let why = Failure::new(FailureKind::Drained, "the scheduler shut down before it started");
            (why, Duration::ZERO)
        } else if let Some(earlier) = earlier {
            // A run that this replica lost while it was cut off. Both must not run at once, and from here on
            // nobody else would find it.
            earlier.tell(|mail| mail.lost = true);
            (Failure::new(FailureKind::Busy, "an earlier run of it still ends here"), EARLIER_RUN_DELAY)
        } else {
            core.hub.tell(&task.id, State::Running);
            return Some(task);
        };
        let (held, at) = (core.hold(task, kind, true)?, core.replica.store_now() + delay);
        core.completer.note(&held, RunEvent::Release(at, why)).await;
        None
    }

    /// Waits until another claim may bring something.
    async fn wait(&mut self, seen: Changes, full: bool, next_at: Option<Instant>) {
        let core = &self.core;
        let poll = monotonic() + if bug!(NoSlowPoll) { deadlines::NEVER } else { core.config.store_poll };
        // While every slot is taken, only a free one is news; what is due now waits for that too.
        let poll = if self.batches.is_empty() { poll } else { poll.min(monotonic() + quick::PATIENCE) };
        let at = if full { poll } else { next_at.map_or(poll, |at| at.min(poll)).max(monotonic() + PAUSE_MIN) };
        let news = hinted(&*core.store, seen, |changes| changes.work);
        tokio::select! {
            biased;
            () = core.life.draining.cancelled() => {}
            () = core.slots.freed.notified() => {}
            now = news, if !full => self.seen = now,
            () = tokio::time::sleep_until(at) => {}
        }
    }
}

/// When it is `at` for a store whose time is `now`.
fn instant(now: Timestamp, at: Timestamp) -> Instant {
    monotonic() + at.since(now)
}
