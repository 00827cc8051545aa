//! What an API shows: a scheduler that runs tasks here, or a store whose tasks others run.

use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::scheduler::Events;
use light_task_scheduler::state::Command;
use light_task_scheduler::store::Inserted;
use light_task_scheduler::{
    Error, ErrorKind, NewTask, Payload, Result, ResultRef, Scheduler, State, Store, StoreExt, Task, TaskId,
};

/// How often a task that others run is looked at by who waits for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Where tasks are.
#[derive(Debug)]
pub(super) enum Source {
    /// They run here.
    Scheduler(Scheduler),
    /// Others run them.
    Store(Arc<dyn Store>),
}

impl Source {
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        match self {
            Source::Scheduler(scheduler) => scheduler.store(),
            Source::Store(store) => store,
        }
    }

    /// Whether a scheduler here runs nothing new any more.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self, Source::Scheduler(scheduler) if scheduler.is_draining())
    }

    /// Takes tasks in.
    pub(super) async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        match self {
            Source::Scheduler(scheduler) => scheduler.insert(tasks).await,
            Source::Store(store) => store.insert(tasks).await,
        }
    }

    /// Takes one task in.
    pub(super) async fn submit(&self, task: NewTask) -> Result<TaskId> {
        let answer = self.insert(vec![task]).await?.into_iter().next();
        Ok(answer.unwrap_or_else(|| Err(Error::internal("the store gave no answer")))?.id().clone())
    }

    /// What an operator wishes of a task. A scheduler knows what runs here.
    pub(super) async fn order(&self, id: &TaskId, command: Command) -> Result<()> {
        let scheduler = match self {
            Source::Scheduler(scheduler) => scheduler,
            Source::Store(store) => return store.order(id, command).await.map(drop),
        };
        match command {
            Command::Start => scheduler.start_held(id).await,
            Command::Cancel => scheduler.cancel(id).await,
            Command::Requeue => scheduler.requeue(id).await,
            Command::RetryExport => scheduler.retry_export(id).await,
            Command::Delete => scheduler.delete(id).await,
            Command::Reschedule { run_at, priority } => scheduler.reschedule(id, run_at, priority).await,
        }
    }

    /// The task once it has ended.
    pub(super) async fn ended(&self, id: &TaskId) -> Result<Task> {
        let store = match self {
            Source::Scheduler(scheduler) => return scheduler.handle(id).wait().await,
            Source::Store(store) => store,
        };
        loop {
            let task = store.task(id).await?;
            if task.record.state.is_terminal() {
                return Ok(task);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// The result of a task that has ended.
    pub(super) async fn output(&self, id: &TaskId) -> Result<Payload> {
        let store = match self {
            Source::Scheduler(scheduler) => return scheduler.handle(id).output().await,
            Source::Store(store) => store,
        };
        let task = store.task(id).await?;
        match (task.record.state, task.record.result()) {
            (State::Succeeded, Some(ResultRef::Inline(output))) => Ok(output.clone()),
            (State::Succeeded, _) => Err(Error::invalid("the result is in a result store; ask the server that has it")),
            (state, _) => Err(Error::new(ErrorKind::Conflict, format!("task {id} has no result: {state}"))),
        }
    }

    /// What happens on this replica; nothing does where others run the tasks.
    pub(super) fn subscribe(&self) -> Option<Events> {
        match self {
            Source::Scheduler(scheduler) => Some(scheduler.subscribe()),
            Source::Store(_) => None,
        }
    }
}
