//! Removes what is over: ended tasks by the retention rule, and stored results that nobody refers to.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::scheduler::core::Core;
use crate::store::SweepRequest;

/// How often it looks.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How many tasks and results it removes in one operation.
const SWEEP_BATCH: usize = 1_000;

/// The housekeeping loop.
pub(super) async fn sweep(core: Arc<Core>) {
    loop {
        match sweep_once(&core).await {
            // A full batch: there is more; let others have a turn first.
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "housekeeping failed; trying again later"),
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

async fn sweep_once(core: &Core) -> Result<bool> {
    let mut request = SweepRequest { limit: SWEEP_BATCH, ..SweepRequest::default() };
    if let Some(retention) = &core.config.retention {
        request.states = retention.states.clone();
        request.older_than = Some(retention.older_than);
        request.except_label = retention.except_label.clone();
    }
    let swept = core.store.sweep(request).await?;
    let Some(results) = &core.results else { return Ok(swept.removed == SWEEP_BATCH as u64) };
    let full = swept.removed.max(swept.garbage.len() as u64) == SWEEP_BATCH as u64;
    let mut confirmed = Vec::with_capacity(swept.garbage.len());
    for key in swept.garbage {
        // A key is confirmed only once its result is deleted; a crash in between deletes it again.
        match results.delete(&key).await {
            Ok(()) => confirmed.push(key),
            Err(error) => tracing::warn!(key, %error, "a result could not be deleted; it is tried again later"),
        }
    }
    let full = full && !confirmed.is_empty();
    if !confirmed.is_empty() {
        core.store.sweep(SweepRequest { confirmed, ..SweepRequest::default() }).await?;
    }
    Ok(full)
}
