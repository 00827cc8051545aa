//! Removes containers that nobody owns any more.
//!
//! One whose task has ended, is gone, or has been claimed anew since, has none who would ever stop or remove it, unless
//! its owner is just about to: so two looks must agree.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Shared;
use super::engine::Engine;
use super::names::{Execution, Found, LABEL_NAMESPACE};
use crate::executor::leftovers::unneeded;
use crate::store::Store;

/// How long a container without an owner is given to stop by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Looks for leftovers until it is dropped.
#[derive(Debug)]
pub(super) struct Reaper(AbortHandle);

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reaper {
    pub(super) fn start(shared: Arc<Shared>, namespace: String, store: Arc<dyn Store>) -> Self {
        let interval = shared.config.reap_interval;
        let task = tokio::spawn(async move {
            let mut suspects: HashSet<String> = HashSet::new();
            loop {
                suspects = look(&shared, &namespace, &*store, &suspects).await;
                tokio::time::sleep(interval).await;
            }
        });
        Reaper(task.abort_handle())
    }
}

/// Removes what was without an owner at the last look too, and answers what is so for the first time.
async fn look(shared: &Shared, namespace: &str, store: &dyn Store, before: &HashSet<String>) -> HashSet<String> {
    let mut suspects = HashSet::new();
    for engine in &shared.engines {
        let leftovers = match leftovers(shared, engine, namespace, store).await {
            Ok(leftovers) => leftovers,
            Err(why) => {
                tracing::debug!(engine = engine.address(), why, "leftovers cannot be looked for just now");
                continue;
            }
        };
        for found in leftovers {
            if !before.contains(&found.container) {
                suspects.insert(found.container);
                continue;
            }
            tracing::info!(run = %found.execution, container = found.container, "removing a container without an owner");
            let stopped = shared.stop(engine, &found, GRACE).await.map(|_| ());
            let removed = async { stopped.and(shared.release(&found).await) }.await;
            if let Err(why) = removed {
                tracing::warn!(run = %found.execution, why, "a container without an owner could not be removed");
                suspects.insert(found.container);
            }
        }
    }
    suspects
}

/// The containers of one engine that are ours and that no task owns.
async fn leftovers(
    shared: &Shared,
    engine: &Arc<Engine>,
    namespace: &str,
    store: &dyn Store,
) -> Result<Vec<Found>, String> {
    let identity = engine.client().await.map_err(|trouble| trouble.to_string())?.identity.clone();
    let label = format!("{LABEL_NAMESPACE}={namespace}");
    // The containers first: what is claimed later is in neither list.
    let all = engine.list("label", vec![label]).await.map_err(|trouble| trouble.to_string())?;
    let all = all.into_iter().filter_map(|container| {
        let execution = Execution::from_labels(&container.labels?)?;
        Some(Found { engine: identity.clone(), container: container.id?, execution })
    });
    // What is watched from here is released from here.
    let ours: Vec<Found> = all
        .filter(|found| found.execution.namespace == namespace && shared.watched(&found.execution).is_none())
        .collect();
    let left = unneeded(store, ours, |found| (&found.execution.id, found.execution.execution)).await;
    Ok(left.map_err(|error| error.to_string())?.into_iter().map(|left| left.found).collect())
}
