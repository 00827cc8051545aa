//! Removes containers that nobody owns any more.
//!
//! A claim is stored before anything is made, so the store knows every execution that may have a container. One
//! whose task has ended, is gone, or has been claimed anew since, has none who would ever stop or remove it, unless
//! its owner is just about to: so two looks must agree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Shared;
use super::engine::Engine;
use super::names::{Execution, Found, LABEL_NAMESPACE};
use crate::error::Result;
use crate::store::Store;
use crate::task::{FailureKind, State, Task, TaskId};

/// How long a container without an owner is given to stop by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How many tasks the store is asked about in one call.
const ASK_MAX: usize = 256;

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
    let ours: Vec<Found> = all
        .filter(|found| found.execution.namespace == namespace && shared.watched(&found.execution).is_none())
        .collect();
    let mut left = Vec::new();
    for batch in ours.chunks(ASK_MAX) {
        let ids: Vec<TaskId> = batch.iter().map(|found| found.execution.id.clone()).collect();
        let tasks = store.get(&ids).await.map_err(|error| error.to_string())?;
        let tasks: HashMap<TaskId, Task> = tasks.into_iter().flatten().map(|task| (task.id.clone(), task)).collect();
        let owned =
            |found: &Found| tasks.get(&found.execution.id).is_some_and(|task| needs(task, found.execution.execution));
        left.extend(batch.iter().filter(|found| !owned(found)).cloned());
    }
    Ok(left)
}

/// Whether a task still needs what one of its executions made.
fn needs(task: &Task, execution: u64) -> bool {
    let record = &task.record;
    let export_may_be_tried_again =
        record.state == State::Failed && record.failure().is_some_and(|failure| failure.kind == FailureKind::Export);
    record.execution == execution && (record.state.is_owned() || export_may_be_tried_again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::task::{Details, Failure, NewTask, Record, Spec};

    fn task(state: State, failure: Option<FailureKind>) -> Task {
        let new = NewTask::new("docker", &()).unwrap();
        let created_at = Timestamp::default();
        let spec =
            Spec { queue: new.queue, kind: new.kind, payload: new.payload, priority: 0, created_at, options: None };
        let failure = failure.map(|kind| Failure::new(kind, "why"));
        let details = Some(Box::new(Details { failure, ..Details::default() }));
        let record = Record { state, execution: 7, details, ..Record::default() };
        Task { id: TaskId::new("a").unwrap(), spec, record }
    }

    #[test]
    fn a_container_is_needed_while_its_execution_is_owned_or_its_output_may_be_fetched() {
        for (state, failure, needed) in [
            (State::Running, None, true),
            (State::Exporting, None, true),
            (State::Failed, Some(FailureKind::Export), true),
            (State::Failed, Some(FailureKind::Error), false),
            (State::Waiting, Some(FailureKind::Export), false),
            (State::Succeeded, None, false),
            (State::Cancelled, None, false),
        ] {
            let task = task(state, failure);
            assert_eq!(needs(&task, 7), needed, "{state:?} {failure:?}");
            assert!(!needs(&task, 6), "an execution that was given up");
        }
    }
}
