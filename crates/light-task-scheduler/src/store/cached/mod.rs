//! The combination container: a window of candidates in memory, in front of any store.
//!
//! `window` decides what is read ahead and what a claim names; this file reads, claims and passes on.

mod window;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::window::{Arrival, Window};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::state::{Command, RunEvent};
use crate::store::{
    Answer, BATCH_MAX, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery,
};
use crate::task::{Name, NewTask, ReplicaId, Start, State, Task, TaskId};

/// Most reads before one claim: one that counts the lanes, one that finds more than there were, one that fits.
const READS_MAX: usize = 3;

/// How much a [`CachedStore`] reads ahead.
#[derive(Debug, Clone)]
pub struct CachedOptions {
    /// Most candidates in memory, about 200 bytes each: 1 to [`BATCH_MAX`], the default. Where the tasks wait in
    /// so many pairs of queue and kind that each would get fewer candidates than a claim asks for, there is no window.
    pub window: usize,
    /// How old the window gets while it is in use: a task inserted by another process, or one that has become due,
    /// is in it this much later at the latest. Longer than 0, default 200 ms.
    pub poll_interval: Duration,
    /// By what the window grows old. Default [`SystemClock`].
    pub clock: Arc<dyn Clock>,
}

impl Default for CachedOptions {
    fn default() -> Self {
        CachedOptions { window: BATCH_MAX, poll_interval: Duration::from_millis(200), clock: Arc::new(SystemClock) }
    }
}

/// Any store with a window of candidates in front of it: claims name what to take, and the store need not search.
///
/// It keeps every promise of the store behind it. Nothing is claimed ahead: a claim names candidates, and the
/// store takes of them, in one operation, what still waits and may start. Every write goes to the store first,
/// and all else is asked there. Three things are different:
///
/// - While more tasks wait than a claim takes, a task inserted by another process, or one that has become due,
///   has its place in the order after at most [`CachedOptions::poll_interval`]. What this process inserts has it
///   at once. While fewer wait, the store chooses itself, and the order is exact.
/// - If another process has taken what a claim names, the claim takes less than it could, and says so:
///   [`Claim::next_at`] has passed.
/// - Claims through one handle are made one after the other.
///
/// Any number of processes may have one of these, or none, in front of one store. One replica's claims go
/// through one handle. Cloning is cheap, and the clones are one handle.
///
/// ```
/// use light_task_scheduler::{CachedStore, MemoryStore, NewTask, Store};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), light_task_scheduler::Error> {
/// let store = CachedStore::new(MemoryStore::fifo());
/// store.insert(vec![NewTask::new("greet", "world")?]).await?;
/// assert_eq!(store.counts().await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CachedStore {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Store>,
    priority: bool,
    clock: Arc<dyn Clock>,
    window: Mutex<Window>,
    /// Held by the claim that is being made: two at once would name the same tasks.
    turn: tokio::sync::Mutex<()>,
}

impl CachedStore {
    /// In front of this store, with the default options.
    pub fn new(inner: impl Into<Arc<dyn Store>>) -> Self {
        CachedStore::make(inner.into(), CachedOptions::default())
    }

    /// In front of this store. Refused as [`Invalid`](crate::ErrorKind::Invalid) if the options make no sense.
    pub fn with_options(inner: impl Into<Arc<dyn Store>>, options: CachedOptions) -> Result<Self> {
        if !(1..=BATCH_MAX).contains(&options.window) {
            return Err(Error::invalid(format!("window is {}; it must be 1 to {BATCH_MAX}", options.window)));
        }
        if options.poll_interval.is_zero() {
            return Err(Error::invalid("poll_interval is 0; the default is 200 ms"));
        }
        Ok(CachedStore::make(inner.into(), options))
    }

    fn make(inner: Arc<dyn Store>, options: CachedOptions) -> Self {
        let CachedOptions { window, poll_interval, clock } = options;
        let window = Mutex::new(Window::new(window, poll_interval));
        let priority = inner.capabilities().priority;
        CachedStore { shared: Arc::new(Shared { inner, priority, clock, window, turn: tokio::sync::Mutex::default() }) }
    }

    fn inner(&self) -> &dyn Store {
        &*self.shared.inner
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.shared.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads ahead, if that serves this claim.
    async fn read_ahead(&self, request: &ClaimRequest) {
        for _ in 0..READS_MAX {
            let now = self.shared.clock.now();
            let Some(read) = self.window().next_read(request, now) else { return };
            // If it fails, the claim will say why.
            let candidates = self.inner().candidates(read.request.clone()).await.ok();
            let failed = candidates.is_none();
            self.window().fill(&read, candidates);
            if failed {
                return;
            }
        }
    }

    /// What of these tasks is due now, if it is taken in.
    fn arrivals(&self, tasks: &[NewTask]) -> Vec<Option<Arrival>> {
        let now = self.shared.clock.now();
        let store_time = self.window().store_time(now);
        let arrival = |task: &NewTask| {
            let run_at = match task.start {
                Start::Now | Start::After(Duration::ZERO) => None,
                Start::At(at) if at <= store_time => Some(at),
                Start::At(_) | Start::After(_) | Start::Held => return None,
            };
            let priority = if self.shared.priority { task.priority } else { 0 };
            Some(Arrival { queue: task.queue.clone(), kind: task.kind.clone(), priority, run_at })
        };
        tasks.iter().map(arrival).collect()
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore").field("inner", &self.shared.inner).finish_non_exhaustive()
    }
}

impl From<CachedStore> for Arc<dyn Store> {
    fn from(store: CachedStore) -> Self {
        Arc::new(store)
    }
}

#[async_trait]
impl Store for CachedStore {
    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        let arrivals = self.arrivals(&tasks);
        let answers = self.inner().insert(tasks).await?;
        let mut window = self.window();
        for (arrival, answer) in arrivals.into_iter().zip(&answers) {
            if let (Some(arrival), Ok(Inserted::New(id))) = (arrival, answer) {
                window.arrive(id.clone(), arrival);
            }
        }
        drop(window);
        Ok(answers)
    }

    /// The number of the claim is the store's: repeating it repeats the answer, whatever is named.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        let _turn = self.shared.turn.lock().await;
        self.read_ahead(&request).await;
        let names = self.window().names(&request, self.shared.clock.now());
        let named = names.is_some();
        let among = names.or_else(|| request.among.clone());
        let claim = self.inner().claim(ClaimRequest { among, ..request.clone() }).await;
        match &claim {
            Ok(claim) => self.window().settle(&request, named, claim),
            // Nobody knows what it has taken.
            Err(_) => self.window().forget(),
        }
        claim
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        self.inner().candidates(request).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        let comes_back = |change: &Change| match change.event {
            RunEvent::Retry(at, _) | RunEvent::Release(at, _) => Some(at),
            _ => None,
        };
        let first = changes.iter().filter_map(comes_back).min();
        let answers = self.inner().apply(changes).await?;
        if let Some(at) = first {
            let mut window = self.window();
            if window.is_due_soon(at, self.shared.clock.now()) {
                window.forget();
            }
        }
        Ok(answers)
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        let ids: Vec<TaskId> = commands.iter().map(|(id, _)| id.clone()).collect();
        let answers = self.inner().command(commands).await?;
        let moved = |to: State| {
            let moved = ids.iter().zip(&answers).filter(move |(_, answer)| answer.state() == Some(to));
            moved.map(|(id, _)| id.clone()).collect::<HashSet<_>>()
        };
        let mut window = self.window();
        window.remove(&moved(State::Cancelled));
        if !moved(State::Waiting).is_empty() {
            window.forget();
        }
        drop(window);
        Ok(answers)
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        self.inner().post_reports(reports).await
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        self.inner().register(replica).await
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        self.inner().heartbeat(heartbeat).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.inner().leave(replica).await
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.inner().drain(replica).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        self.inner().replicas().await
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        self.inner().rescue(request).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        self.inner().get(ids).await
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        self.inner().list(query).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.inner().counts().await
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        self.inner().set_queue(queue, settings).await?;
        self.window().forget();
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        self.inner().queues().await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        self.inner().sweep(request).await
    }

    async fn changed(&self, seen: Changes) -> Changes {
        self.inner().changed(seen).await
    }
}

#[cfg(test)]
mod tests;
