//! The store in this process's memory: plain data behind one mutex.
//!
//! ```text
//!   mod.rs (public face) ──▶ data.rs (rows, indexes, every move) ◀── owners.rs (claim, heartbeat, rescue)
//!                               │       │         │             ◀── views.rs (list, counts, sweep)
//!                            rows.rs  lanes.rs  trail.rs
//!                                      order.rs
//! ```

mod data;
mod lanes;
mod order;
mod owners;
mod rows;
mod trail;
mod views;

#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::data::Data;
use super::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, PAGE_MAX, Page, QueueCounts, QueueSettings, ReplicaStatus, Report,
    RescueRequest, Rescued, Store, Sweep, SweepRequest, TaskQuery, check_batch,
};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::state::{Command, Event};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

/// How a [`MemoryStore`] is bounded, and where it takes the time from.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// Most tasks it holds, ended ones included. Default 10,000,000; at most `u32::MAX`.
    pub tasks_max: usize,
    /// Most bytes that its tasks cost, as it estimates them: rows, payloads, outputs, failures, reports.
    /// Checked when a task is inserted; what a task says later is always kept. Default 4 GiB.
    pub bytes_max: u64,
    /// Default: the [`SystemClock`].
    pub clock: Arc<dyn Clock>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions { tasks_max: 10_000_000, bytes_max: 4 << 30, clock: Arc::new(SystemClock) }
    }
}

/// Keeps tasks in this process's memory: nothing survives its end.
///
/// It is bounded by [`MemoryOptions`]: a full store refuses new tasks and drops nothing. Cloning is cheap, and
/// the clones are one store.
///
/// ```
/// use light_task_scheduler::store::{Inserted, Store};
/// use light_task_scheduler::{MemoryStore, NewTask};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), light_task_scheduler::Error> {
/// let store = MemoryStore::by_priority();
/// let answers = store.insert(vec![NewTask::new("resize", &("cat.png", 640))?.priority(5)]).await?;
/// assert!(matches!(answers[0], Ok(Inserted::New(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    priority: bool,
    data: Mutex<Data>,
    changed: Notify,
}

impl MemoryStore {
    /// A store that claims by due time and insertion, whatever the priorities.
    pub fn fifo() -> Self {
        MemoryStore::fifo_with(MemoryOptions::default())
    }

    /// A store that claims by priority (high first), due time and insertion.
    pub fn by_priority() -> Self {
        MemoryStore::by_priority_with(MemoryOptions::default())
    }

    /// [`MemoryStore::fifo`] with bounds and a clock.
    pub fn fifo_with(options: MemoryOptions) -> Self {
        MemoryStore::new(false, options)
    }

    /// [`MemoryStore::by_priority`] with bounds and a clock.
    pub fn by_priority_with(options: MemoryOptions) -> Self {
        MemoryStore::new(true, options)
    }

    fn new(priority: bool, mut options: MemoryOptions) -> Self {
        // Rows are numbered by an u32.
        options.tasks_max = options.tasks_max.min(u32::MAX as usize);
        let data = Mutex::new(Data::new(priority, options));
        MemoryStore { inner: Arc::new(Inner { priority, data, changed: Notify::new() }) }
    }

    /// Runs one operation at the store's time, then wakes who waits for changes, if there are any.
    fn with<R>(&self, operation: impl FnOnce(&mut Data) -> R) -> R {
        // A panic inside an operation is a bug; the other tasks' data is still worth more than none.
        let mut data = self.inner.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.tick();
        let before = data.changes;
        let answer = operation(&mut data);
        let has_changed = data.changes != before;
        drop(data);
        if has_changed {
            self.inner.changed.notify_waiters();
        }
        answer
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("priority", &self.inner.priority).finish_non_exhaustive()
    }
}

impl From<MemoryStore> for Arc<dyn Store> {
    fn from(store: MemoryStore) -> Self {
        Arc::new(store)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: self.inner.priority, durable: false, shared: false, multi_host: false }
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        check_batch(tasks.len())?;
        Ok(self.with(|data| {
            data.tombstones.expire(data.now);
            tasks.into_iter().map(|task| data.insert(task)).collect()
        }))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        request.check()?;
        self.with(|data| data.claim(&request))
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        Ok(self.with(|data| data.candidates(&request)))
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        check_batch(changes.len())?;
        Ok(self.with(|data| {
            // All looked up before any moves: the memory is waited for once for several. An owner removes no task.
            let slots: Vec<_> = changes.iter().map(|change| data.rows.find(&change.id)).collect();
            let apply = |(slot, change): (_, Change)| data.answer(slot, Event::Run(change.token, change.event));
            slots.into_iter().zip(changes).map(apply).collect()
        }))
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        check_batch(commands.len())?;
        let obey = |data: &mut Data, (id, command): (TaskId, Command)| {
            data.answer(data.rows.find(&id), Event::Command(command))
        };
        Ok(self.with(|data| commands.into_iter().map(|command| obey(data, command)).collect()))
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        check_batch(reports.len())?;
        Ok(self.with(|data| reports.into_iter().map(|report| data.post(report)).collect()))
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        self.with(|data| data.register(replica))
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        self.with(|data| data.heartbeat(heartbeat))
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.with(|data| data.leave(replica));
        Ok(())
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.with(|data| data.drain(replica))
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        Ok(self.with(|data| data.replicas()))
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        self.with(|data| data.rescue(&request))
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        check_batch(ids.len())?;
        let get = |data: &Data, id: &TaskId| data.rows.find(id).map(|slot| data.task(slot));
        Ok(self.with(|data| ids.iter().map(|id| get(data, id)).collect()))
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
        let mut page = Page::default();
        let mut below = Some(query.cursor.map_or(u64::MAX, |cursor| cursor.insertion()));
        // In parts, so that a filter that few of millions of tasks pass holds nobody up.
        while let Some(from) = below {
            below = self.with(|data| data.scan(query, limit, from, &mut page));
            if below.is_some() {
                tokio::task::yield_now().await;
            }
        }
        Ok(page)
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        Ok(self.with(Data::counts))
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        self.with(|data| data.set_queue(&queue, settings))
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        Ok(self.with(|data| data.queues()))
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        Ok(self.with(|data| data.sweep(&request)))
    }

    async fn changed(&self, seen: Changes) -> Changes {
        loop {
            let mut notified = pin!(self.inner.changed.notified());
            // Listen first, look second: a change in between is not missed.
            notified.as_mut().enable();
            let now = self.with(|data| data.changes);
            if now != seen {
                return now;
            }
            notified.await;
        }
    }
}
