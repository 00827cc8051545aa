//! Asks executors how their runs stand, in batches, and only while there are any.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::executor::{Executor, Status};
use crate::scheduler::core::Core;
use crate::scheduler::held::Held;
use crate::store::Said;
use crate::task::{Failure, FailureKind, Outcome};

/// How many runs are asked about in one call.
const STATUS_BATCH_MAX: usize = 256;
/// How far the interval stretches, in multiples, while asking brings no news.
const STRETCH_MAX: u32 = 8;

/// The polling loop of one executor. Where its runs push, asking is only the safety net, and is done less and
/// less often until it brings news that no push has brought.
pub(super) async fn poll(core: Arc<Core>, executor: Arc<dyn Executor>, interval: Duration) {
    let mut stretch = 1;
    let mut pushed = 0;
    loop {
        tokio::time::sleep(interval * stretch).await;
        let runs = runs_of(&core, &executor).await;
        let mut news = false;
        for batch in runs.chunks(STATUS_BATCH_MAX) {
            news |= ask(&*executor, batch).await;
        }
        let pushes = pushes_of(&core, &executor);
        stretch = if pushes > pushed && !news { (stretch * 2).min(STRETCH_MAX) } else { 1 };
        pushed = pushes;
    }
}

/// How much the runs of an executor have pushed so far.
fn pushes_of(core: &Core, executor: &Arc<dyn Executor>) -> u64 {
    let running = core.registry.all();
    let running = running.iter().filter(|held| Arc::ptr_eq(&held.executor, executor));
    let kinds = core.kinds.values().filter(|kind| Arc::ptr_eq(&kind.executor, executor));
    let ended = kinds.map(|kind| kind.pushes.load(Ordering::Relaxed));
    running.map(|held| held.pushes()).chain(ended).sum()
}

/// The started runs of an executor; waits until there are some.
async fn runs_of(core: &Core, executor: &Arc<dyn Executor>) -> Vec<Arc<Held>> {
    loop {
        let changed = core.registry.bell.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let mut runs = core.registry.all();
        runs.retain(|held| Arc::ptr_eq(&held.executor, executor) && held.handle().is_some());
        if !runs.is_empty() || !core.registry.is_empty() {
            return runs;
        }
        changed.await;
    }
}

/// Asks about one batch and tells each run its answer; whether any had ended.
async fn ask(executor: &dyn Executor, batch: &[Arc<Held>]) -> bool {
    let handles: Vec<_> = batch.iter().filter_map(|held| held.handle()).collect();
    let mut news = false;
    for (held, status) in batch.iter().zip(executor.status(&handles).await) {
        match status {
            Status::Running(None) => {}
            Status::Running(Some(progress)) => held.deliver(Said::Progress(progress)),
            Status::Ended(outcome) => {
                news = true;
                held.deliver(Said::Ended(outcome));
            }
            Status::Lost(_) if bug!(LostIsSuccess) => held.deliver(Said::Ended(Outcome::Succeeded(None))),
            Status::Lost(why) => {
                news = true;
                held.deliver(Said::Ended(Outcome::Failed(Failure::new(FailureKind::Lost, why))));
            }
            // Nobody knows: that changes nothing, and is bounded by timeout and deadline.
            Status::Unreachable(why) => tracing::debug!(id = %held.id(), why, "a run cannot be reached"),
        }
    }
    news
}
