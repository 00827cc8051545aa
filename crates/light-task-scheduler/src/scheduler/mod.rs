//! The flow, the same for every store and executor: claim, start, watch, retry, save, report.
//!
//! ```text
//!            submit, cancel, …                                events
//!  user ───────────────────────▶ Scheduler ─────────────────────────────▶ subscribers, waiters
//!                                    │                                        ▲
//!          ┌──────────── claim ──────┴──────┐                                 │
//!          ▼                                ▼                                 │
//!   Store ◀──▶ dispatch ──▶ run: start ▶ watch ▶ outcome ▶ export ▶ finish ─▶ completer ──▶ Store
//!     ▲  ▲                        │        ▲
//!     │  └── leases: heartbeat,   ▼        │ reports, statuses
//!     │      rescue, adopt     Executor ───┘ (pushed; or asked for by watch)
//!     └───── housekeeping
//! ```

mod completer;
mod config;
mod core;
mod deadlines;
mod dispatch;
mod events;
mod export;
mod held;
mod housekeeping;
mod leases;
mod losses;
mod quick;
mod run;
mod shutdown;
mod slots;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Executor, FunctionExecutor};
use crate::results::ResultStore;
use crate::scheduler::core::{Core, Kind, Life, Pace, Replica};
use crate::scheduler::events::EventHub;
use crate::scheduler::held::Registry;
use crate::scheduler::leases::Ticker;
use crate::scheduler::losses::Acknowledged;
use crate::scheduler::slots::Slots;
use crate::state::Command;
use crate::store::{Inserted, Page, QueueCounts, QueueSettings, Store, StoreExt, TaskQuery};
use crate::task::{Name, NewTask, Payload, ReplicaId, ResultRef, State, Task, TaskId};

pub use config::{Config, Retention, Tracking};
pub use events::{EVENTS_KEPT, Events, Seen, TaskEvent};
pub use shutdown::Shutdown;

/// Takes tasks in, runs those of its kinds, and says what becomes of them. Cloning is cheap.
///
/// ```
/// use light_task_scheduler::{Context, FunctionExecutor, MemoryStore, NewTask, Scheduler};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), light_task_scheduler::Error> {
/// let functions = FunctionExecutor::new().register("add", |_: Context, (a, b): (i64, i64)| async move { Ok(a + b) });
/// let scheduler = Scheduler::builder(MemoryStore::fifo()).functions(functions).start().await?;
/// let task = scheduler.submit(NewTask::new("add", &(1, 2))?).await?;
/// assert_eq!(task.result::<i64>().await?, 3);
/// # Ok(())
/// # }
/// ```
///
/// When the last clone is dropped without [`shutdown`](Scheduler::shutdown), everything ends where it
/// stands, as in a crash: another replica, or the next start, rescues what was running.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.life.kill.cancel();
        self.core.life.closed.cancel();
    }
}

/// What a scheduler is made of. Only the store is required.
pub struct Builder {
    store: Arc<dyn Store>,
    kinds: HashMap<Name, Arc<dyn Executor>>,
    results: Option<Arc<dyn ResultStore>>,
    clock: Arc<dyn Clock>,
    config: Config,
    problems: Vec<String>,
}

impl Builder {
    /// Runs tasks of `kind` with this executor. One executor may serve many kinds.
    #[must_use]
    pub fn executor(mut self, kind: &str, executor: Arc<dyn Executor>) -> Self {
        match Name::new(kind) {
            Ok(kind) => {
                self.kinds.insert(kind, executor);
            }
            Err(problem) => self.problems.push(problem.to_string()),
        }
        self
    }

    /// Runs tasks of all kinds that have a function.
    #[must_use]
    pub fn functions(mut self, functions: FunctionExecutor) -> Self {
        let functions = Arc::new(functions);
        for kind in functions.kinds() {
            self.kinds.insert(kind, functions.clone());
        }
        self
    }

    /// Saves results there. Default: inline in the task's row, at most 4 MiB each.
    #[must_use]
    pub fn results(mut self, results: Arc<dyn ResultStore>) -> Self {
        self.results = Some(results);
        self
    }

    /// How it behaves. Default: [`Config::default`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where time and chance come from. Default: the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything, registers with the store, and starts. A scheduler without executors only takes
    /// tasks in and watches.
    pub async fn start(self) -> Result<Scheduler> {
        self.config.check()?;
        if !self.problems.is_empty() {
            return Err(Error::invalid(self.problems.join("; ")));
        }
        for (queue, settings) in &self.config.queue_settings {
            // A pause is an operator's act: a start neither makes nor ends one. Nothing is written where nothing
            // changes, as somebody may pause or resume the queue between the two calls.
            let stored = self.store.queue(queue).await?;
            let wanted = QueueSettings { paused: stored.paused, ..*settings };
            if wanted != stored {
                self.store.set_queue(queue.clone(), wanted).await?;
            }
        }
        let mut kind_names: Vec<Name> = self.kinds.keys().cloned().collect();
        kind_names.sort();
        let (completer, writes) = completer::Completer::channel();
        let id = ReplicaId::generate(&*self.clock);
        let kinds = self.kinds.into_iter();
        let acknowledged = Acknowledged::new(self.store.capabilities().multi_host);
        let core = Arc::new(Core {
            replica: Replica::new(id, self.clock.now()),
            slots: Arc::new(Slots::new(self.config.concurrency)),
            kinds: kinds
                .map(|(name, executor)| (name, Kind { executor, pace: Pace::default(), pushes: Default::default() }))
                .collect(),
            store: self.store,
            results: self.results,
            clock: self.clock,
            config: self.config,
            kind_names,
            hub: Arc::new(EventHub::new()),
            registry: Arc::new(Registry::default()),
            completer,
            acknowledged,
            life: Life::new(),
        });
        leases::register(&core, id).await?;
        core.spawn_loop(completer::complete(core.clone(), writes));
        start_loops(&core)?;
        Ok(Scheduler { inner: Arc::new(Inner { core }) })
    }
}

fn start_loops(core: &Arc<Core>) -> Result<()> {
    let ticker = Arc::new(Ticker::new());
    core.spawn(ticker.clone().tick(core.config.ttl));
    if core.config.heartbeat_thread {
        heartbeat_thread(core.clone(), ticker)?;
    } else {
        core.spawn(leases::beat(core.clone(), ticker));
    }
    core.spawn_beside(shutdown::once_wished(core.clone()));
    core.spawn_beside(housekeeping::sweep(core.clone()));
    core.spawn_beside(events::follow(core.hub.clone(), core.store.clone(), core.config.store_poll));
    if core.kind_names.is_empty() {
        return Ok(());
    }
    core.spawn_loop(leases::rescue(core.clone()));
    core.spawn_loop(dispatch::dispatch(core.clone()));
    if let Some(interval) = core.config.tracking.poll_interval() {
        for executor in executors(core) {
            core.spawn(watch::poll(core.clone(), executor, interval));
        }
    }
    Ok(())
}

/// The distinct executors, in the order of their first kind.
fn executors(core: &Core) -> Vec<Arc<dyn Executor>> {
    let mut distinct: Vec<Arc<dyn Executor>> = Vec::new();
    for executor in core.kind_names.iter().filter_map(|name| core.kinds.get(name)).map(|kind| &kind.executor) {
        if !distinct.iter().any(|known| Arc::ptr_eq(known, executor)) {
            distinct.push(executor.clone());
        }
    }
    distinct
}

/// Runs the heartbeat on a thread and a runtime of its own: busy handlers cannot starve it.
fn heartbeat_thread(core: Arc<Core>, ticker: Arc<Ticker>) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal("cannot start the heartbeat thread").with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().enable_io().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("lts-heartbeat".to_owned())
        .spawn(move || {
            let kill = core.life.kill.token();
            runtime.block_on(kill.run_until_cancelled_owned(leases::beat(core, ticker)));
        })
        .map(drop)
        .map_err(failed)
}

impl Scheduler {
    /// Begins a scheduler on a store.
    pub fn builder(store: impl Into<Arc<dyn Store>>) -> Builder {
        Builder {
            store: store.into(),
            kinds: HashMap::new(),
            results: None,
            clock: Arc::new(SystemClock),
            config: Config::default(),
            problems: Vec::new(),
        }
    }

    /// Takes one task in. When this returns, the task is as durable as the store promises.
    pub async fn submit(&self, task: NewTask) -> Result<TaskHandle> {
        let answer = self.insert(vec![task]).await?.into_iter().next();
        Ok(self.handle(answer.ok_or_else(Self::too_few_answers)??.id()))
    }

    /// Takes many tasks in, at most [`BATCH_MAX`](crate::store::BATCH_MAX), and answers for each.
    pub async fn submit_many(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<TaskHandle>>> {
        let answers = self.insert(tasks).await?.into_iter();
        Ok(answers.map(|answer| answer.map(|inserted| self.handle(inserted.id()))).collect())
    }

    /// As [`submit_many`](Scheduler::submit_many), and says of each task whether it is new.
    pub async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        let mut refused = HashMap::new();
        let mut accepted = Vec::with_capacity(tasks.len());
        let count = tasks.len();
        for (place, task) in tasks.into_iter().enumerate() {
            match self.prepare(&task).await {
                Ok(()) => accepted.push(task),
                Err(error) => {
                    refused.insert(place, error);
                }
            }
        }
        if accepted.is_empty() {
            return Ok((0..count).filter_map(|place| refused.remove(&place).map(Err)).collect());
        }
        let inserted = self.core().store.insert(accepted).await?;
        self.core().acknowledged.taken_in(inserted.iter().flatten().map(Inserted::id));
        if refused.is_empty() {
            return Ok(inserted);
        }
        let mut inserted = inserted.into_iter();
        let answer = |place| match refused.remove(&place) {
            Some(error) => Err(error),
            None => inserted.next().unwrap_or_else(|| Err(Self::too_few_answers())),
        };
        Ok((0..count).map(answer).collect())
    }

    fn too_few_answers() -> Error {
        Error::internal("the store answered fewer tasks than it was given")
    }

    /// A task of a kind that runs here is looked at by its executor; others are the business of other replicas.
    async fn prepare(&self, task: &NewTask) -> Result<()> {
        match self.core().kinds.get(&task.kind) {
            Some(kind) => kind.executor.prepare(task).await,
            None => Ok(()),
        }
    }

    /// A handle to a task that was submitted before, to wait for it.
    pub fn handle(&self, id: &TaskId) -> TaskHandle {
        let core = self.core();
        TaskHandle {
            id: id.clone(),
            store: core.store.clone(),
            results: core.results.clone(),
            hub: core.hub.clone(),
            store_poll: core.config.store_poll,
        }
    }

    /// Lets a held task run.
    pub async fn start_held(&self, id: &TaskId) -> Result<()> {
        self.core().store.order(id, Command::Start).await.map(drop)
    }

    /// Cancels a task: at once where it waits; where it runs, as soon as its run is confirmed dead.
    /// Fails as [`Conflict`](ErrorKind::Conflict) if it has succeeded or failed before.
    pub async fn cancel(&self, id: &TaskId) -> Result<()> {
        // Whatever runs here by the time of the answer may be a later run.
        let held = self.core().registry.get(id);
        let state = self.core().store.order(id, Command::Cancel).await?;
        match (state, held) {
            // It runs here: no need to wait for the heartbeat to say so.
            (Some(State::Running), Some(held)) => held.tell(|mail| mail.cancel = true),
            (Some(State::Cancelled), _) => self.core().hub.tell(id, State::Cancelled),
            _ => {}
        }
        Ok(())
    }

    /// Runs a task that has ended again, with a fresh budget of attempts.
    pub async fn requeue(&self, id: &TaskId) -> Result<()> {
        self.core().store.order(id, Command::Requeue).await.map(drop)
    }

    /// Tries again to save the result of a task whose export failed.
    pub async fn retry_export(&self, id: &TaskId) -> Result<()> {
        self.core().store.order(id, Command::RetryExport).await?;
        self.core().replica.rescue.notify_one();
        Ok(())
    }

    /// Lets a held or waiting task run at another time (one that has passed means now), or with another priority.
    /// `None`: as it is. A held task goes on being held until it is started, and runs then, but not before that time.
    ///
    /// Fails as [`Conflict`](ErrorKind::Conflict) if the task runs or has ended.
    pub async fn reschedule(&self, id: &TaskId, run_at: Option<Timestamp>, priority: Option<i32>) -> Result<()> {
        if let Some(state) = self.core().store.order(id, Command::Reschedule { run_at, priority }).await? {
            self.core().hub.tell(id, state);
        }
        Ok(())
    }

    /// Removes a held or ended task.
    pub async fn delete(&self, id: &TaskId) -> Result<()> {
        self.core().store.order(id, Command::Delete).await.map(drop)
    }

    /// Reads a task.
    pub async fn get(&self, id: &TaskId) -> Result<Task> {
        self.core().store.task(id).await
    }

    /// Lists tasks, newest first.
    pub async fn list(&self, query: &TaskQuery) -> Result<Page> {
        self.core().store.list(query).await
    }

    /// How many tasks each queue has in each state.
    pub async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.core().store.counts().await
    }

    /// Stops claiming from a queue; what runs goes on.
    pub async fn pause(&self, queue: &Name) -> Result<()> {
        self.core().store.set_paused(queue, true).await
    }

    /// Claims from a queue again.
    pub async fn resume(&self, queue: &Name) -> Result<()> {
        self.core().store.set_paused(queue, false).await
    }

    /// What happens to tasks on this replica from now on.
    pub fn subscribe(&self) -> Events {
        self.core().hub.subscribe()
    }

    /// The store, for everything else.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core().store
    }

    /// Ends in order: claims nothing new, lets what runs go on for the grace, then stops or hands over the
    /// rest, writes the last words, and leaves the store. See [`Shutdown`].
    pub async fn shutdown(&self, how: Shutdown) -> Result<()> {
        let ended = shutdown::shutdown(self.core(), how).await;
        self.core().life.closed.cancel();
        ended
    }

    /// Who it is to the store, for [`Store::drain`] and [`Store::replicas`]. It changes if this replica was declared dead
    /// while it lived: then it has registered anew.
    pub fn replica(&self) -> ReplicaId {
        self.core().replica.id()
    }

    /// Whether it claims nothing any more: an operator has it [drain](Store::drain), or it was
    /// [shut down](Scheduler::shutdown). Everything else goes on: tasks are taken in and awaited, for others to run.
    pub fn is_draining(&self) -> bool {
        self.core().life.draining.is_cancelled()
    }

    /// Waits until it claims nothing any more.
    pub async fn draining(&self) {
        self.core().life.draining.cancelled().await;
    }

    /// Waits until it runs nothing any more and has left the store, because it has drained or was shut down.
    /// It also ends, without [draining](Scheduler::is_draining), if one of its loops panics.
    pub async fn ended(&self) {
        self.core().life.kill.token().cancelled().await;
    }

    fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    /// Slots taken, results being saved, runs held: all zero at rest. For the simulator.
    #[cfg(feature = "testing")]
    pub(crate) fn usage(&self) -> (usize, usize, usize) {
        let core = self.core();
        (core.config.concurrency - core.slots.free(), core.slots.exporting(), core.registry.all().len())
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("replica", &self.core().replica.id()).finish_non_exhaustive()
    }
}

/// A submitted task, to wait for. It keeps the store alive, but not the scheduler.
#[derive(Clone)]
pub struct TaskHandle {
    id: TaskId,
    store: Arc<dyn Store>,
    results: Option<Arc<dyn ResultStore>>,
    hub: Arc<EventHub>,
    store_poll: Duration,
}

impl TaskHandle {
    /// Its id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// Waits for its end, wherever it runs, and reads it. Dropping the future stops only the waiting.
    pub async fn wait(&self) -> Result<Task> {
        let waiter = self.hub.wait_for(&self.id);
        loop {
            let ended = waiter.bell.notified();
            tokio::pin!(ended);
            // Registered before the store is asked: an end in between rings.
            ended.as_mut().enable();
            match self.store.task(&self.id).await {
                Ok(task) if task.record.state.is_terminal() => return Ok(task),
                // A store that cannot answer now says nothing about the task: it is asked again.
                Err(error) if !error.is_retryable() => return Err(error),
                _ => {}
            }
            // The scheduler rings for ends on other replicas too; the poll goes on when it is gone.
            let _ = tokio::time::timeout(self.store_poll, ended).await;
        }
    }

    /// Waits for its end and reads its result.
    ///
    /// Fails as [`Conflict`](ErrorKind::Conflict), with the reason, if it failed or was cancelled.
    pub async fn result<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        self.output().await?.parse()
    }

    /// Waits for its end and reads its result as it is.
    pub async fn output(&self) -> Result<Payload> {
        let task = self.wait().await?;
        let record = &task.record;
        match (record.state, record.result()) {
            (State::Succeeded, Some(ResultRef::Inline(output))) => Ok(output.clone()),
            (State::Succeeded, Some(stored)) => match &self.results {
                Some(results) => results.load(stored).await,
                None => Err(Error::invalid("the result is in a result store, which this scheduler does not have")),
            },
            (state, _) => {
                let why = record.failure().map_or("", |failure| failure.message.as_str());
                Err(Error::new(ErrorKind::Conflict, format!("task {} has no result: {state}: {why}", self.id)))
            }
        }
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskHandle").field(&self.id).finish()
    }
}
