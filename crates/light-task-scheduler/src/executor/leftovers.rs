//! What executions have left behind, and whether anybody may still ask for it.
//!
//! A claim is stored before anything is made, so the store knows every execution that may have left something. What
//! was found before the store is asked, and is not needed by the answer, will never be needed.

use std::collections::HashMap;

use crate::error::Result;
use crate::store::Store;
use crate::task::{FailureKind, State, Task, TaskId};

/// How many tasks the store is asked about in one call.
const ASK_MAX: usize = 256;

/// Something that an execution has left and that no task needs any more.
#[derive(Debug)]
pub(super) struct Unneeded<T> {
    /// What was found.
    pub(super) found: T,
    /// Whether the store still has its task.
    #[cfg_attr(not(feature = "process"), allow(dead_code, reason = "only leftovers of commands ask for it"))]
    pub(super) has_task: bool,
}

/// Answers which of these no task needs any more; `execution` says whose each is.
pub(super) async fn unneeded<T>(
    store: &dyn Store,
    found: Vec<T>,
    execution: impl Fn(&T) -> (&TaskId, u64),
) -> Result<Vec<Unneeded<T>>> {
    let mut tasks: HashMap<TaskId, Task> = HashMap::new();
    for batch in found.chunks(ASK_MAX) {
        let ids: Vec<TaskId> = batch.iter().map(|found| execution(found).0.clone()).collect();
        tasks.extend(store.get(&ids).await?.into_iter().flatten().map(|task| (task.id.clone(), task)));
    }
    let judged = found.into_iter().filter_map(|found| {
        let (id, number) = execution(&found);
        let task = tasks.get(id);
        let has_task = task.is_some();
        (!task.is_some_and(|task| needs(task, number))).then_some(Unneeded { found, has_task })
    });
    Ok(judged.collect())
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
        let new = NewTask::new("k", &()).unwrap();
        let created_at = Timestamp::default();
        let spec =
            Spec { queue: new.queue, kind: new.kind, payload: new.payload, priority: 0, created_at, options: None };
        let failure = failure.map(|kind| Failure::new(kind, "why"));
        let details = Some(Box::new(Details { failure, ..Details::default() }));
        let record = Record { state, execution: 7, details, ..Record::default() };
        Task { id: TaskId::new("a").unwrap(), spec, record }
    }

    #[test]
    fn what_a_run_made_is_needed_while_it_is_owned_or_its_output_may_be_fetched() {
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
