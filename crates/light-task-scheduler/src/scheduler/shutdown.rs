//! The orderly end of a scheduler.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::monotonic;
use crate::error::Result;
use crate::scheduler::core::{Core, StoreRetry};
use crate::scheduler::deadlines;

/// How long the last words may take beyond the stop grace: flushing and leaving, also with a stuck handler.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often runs that are to stop are told so.
const STOP_LOOK: Duration = Duration::from_millis(500);

/// How a scheduler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long what runs may go on before it is stopped or handed over. 0: not at all.
    pub grace: Duration,
    /// Leave runs that outlive this process for the next owner, instead of stopping them.
    pub hand_over: bool,
}

impl Default for Shutdown {
    /// Half a minute of grace, then runs that can be adopted are handed over.
    fn default() -> Self {
        Shutdown { grace: Duration::from_secs(30), hand_over: true }
    }
}

/// Ends within grace, stop grace and [`LAST_WORDS`], whatever a run does. Calling it again with a shorter
/// grace while it waits shortens the wait.
pub(super) async fn shutdown(core: &Arc<Core>, how: Shutdown) -> Result<()> {
    core.life.draining.cancel();
    idle_within(core, how.grace).await;
    // A claim that was answered late may still add runs: tell those too.
    let end = monotonic() + core.config.stop_grace + LAST_WORDS;
    while !is_idle(core) && !core.life.kill.is_cancelled() && monotonic() < end {
        for held in core.registry.all() {
            let detach = how.hand_over && held.executor.adoptable();
            held.tell(|mail| if detach { mail.detach = true } else { mail.drain = true });
        }
        idle_within(core, STOP_LOOK).await;
    }
    // What could not be stopped in time belongs to the next owner now, like after a crash.
    let left = tokio::time::timeout(LAST_WORDS, leave(core)).await;
    core.life.kill.cancel();
    left.unwrap_or_else(|_| {
        Err(crate::Error::unavailable("the store did not answer; this replica's lease will expire"))
    })
}

/// Ends, as it is configured, once an operator wishes so.
pub(super) async fn once_wished(core: Arc<Core>) {
    core.life.drain_wished.cancelled().await;
    tracing::info!(replica = %core.replica.id(), "an operator has this replica drain");
    match shutdown(&core, core.config.drain).await {
        Ok(()) => tracing::info!("drained: this replica has left"),
        Err(error) => tracing::warn!(%error, "drained, but this replica could not leave"),
    }
}

/// Leaves the store; one that cannot be reached is asked again.
async fn leave(core: &Core) -> Result<()> {
    let mut retry = StoreRetry::new();
    loop {
        match core.store.leave(core.replica.id()).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the store did not take the farewell; trying again");
            }
            left => return left,
        }
        retry.wait(core.chance()).await;
    }
}

fn is_idle(core: &Core) -> bool {
    core.registry.is_empty() && !core.registry.is_receiving()
}

/// Waits until nothing runs here, but not longer than `bound`, nor after the end of the scheduler.
async fn idle_within(core: &Core, bound: Duration) {
    let end = monotonic() + bound.min(deadlines::NEVER);
    let kill = core.life.kill.token();
    loop {
        let changed = core.registry.bell.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if is_idle(core) {
            return;
        }
        tokio::select! {
            biased;
            () = kill.cancelled() => return,
            () = changed => {}
            () = tokio::time::sleep_until(end) => return,
        }
    }
}
