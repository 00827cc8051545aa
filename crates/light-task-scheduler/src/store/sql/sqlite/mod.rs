//! The embedded durable store: one file, any number of processes on one host.
//!
//! | file | idea |
//! |---|---|
//! | `open` | connections, settings, migrations |
//! | `threads` | the writer, its group commit, the readers |
//! | `tx` | what the calls of one transaction share |
//! | `rows` | tasks as rows |
//! | `claimed` | records whose ends need no read |
//! | `names` | small numbers for names |
//! | `insert`, `claim`, `window`, `apply`, `replicas`, `list`, `sweep` | the methods of the contract |
//! | `locks` | proof of death |
//! | `hints` | `changed` |
//! | `verify` | what contradicts itself |

mod apply;
mod claim;
mod claimed;
mod error;
mod hints;
mod insert;
mod list;
mod locks;
mod names;
mod open;
mod replicas;
mod rows;
mod sweep;
mod threads;
mod tx;
mod verify;
mod window;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use self::hints::Hints;
use self::locks::Locks;
use self::threads::Threads;
use self::tx::Tx;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::state::Command;
use crate::store::{
    Answer, BATCH_MAX, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery, check_batch,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

/// What "accepted" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the disk: it survives a power failure (`synchronous = FULL`).
    #[default]
    Full,
    /// With the operating system: it survives the end of this process, but a power failure may take the
    /// last moments (`synchronous = NORMAL`). The file stays sound.
    Relaxed,
}

/// How to open a [`SqliteStore`].
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// What "accepted" means. Default [`Durability::Full`].
    pub durability: Durability,
    /// Where time and ids come from. Default [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// How often to look for changes by other processes, while somebody waits for any. Longer than 0,
    /// default 50 ms. Changes by this process are seen at once.
    pub poll_interval: Duration,
    /// Make the file if there is none, and bring an older schema up to date. Default `true`; without it such a file
    /// is refused as [`Incompatible`](crate::ErrorKind::Incompatible), so that an operator can choose the moment.
    pub migrate: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            durability: Durability::default(),
            clock: Arc::new(SystemClock),
            poll_interval: Duration::from_millis(50),
            migrate: true,
        }
    }
}

/// Keeps tasks in one SQLite file, shared by any number of processes on one host.
///
/// Calls that come at the same time are committed together, so that many callers share one flush of the
/// disk; each has waited for its own. Beside the file are SQLite's `-wal` and `-shm` and the directory
/// `-replicas`, in which every replica holds a lock while it lives. The file must be on a local disk.
///
/// Cloning is cheap; the file is closed when the last clone is dropped, which waits for the commit that runs.
///
/// ```
/// use light_task_scheduler::{NewTask, SqliteStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("tasks.db");
/// let store = SqliteStore::open(&path)?;
/// store.insert(vec![NewTask::new("greet", "world")?]).await?;
/// assert_eq!(store.counts().await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // Dropped before the locks: what was asked for is written while its replica still counts as alive.
    threads: Threads,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    poll_interval: Duration,
    /// Whose turn it is to look for the commits of other processes.
    looking: Mutex<()>,
    hints: Arc<Hints>,
    locks: Arc<Locks>,
}

impl Inner {
    /// Looks for the commits of other processes at every poll interval. Of all that wait one looks for all, until it
    /// waits no more.
    async fn look(&self) -> Infallible {
        let _turn = self.looking.lock().await;
        loop {
            tokio::time::sleep(self.poll_interval).await;
            // A hint may be missed; the next look tries again.
            if let Ok(changes) = self.threads.read(|connection, _| tx::changes(connection)).await {
                self.hints.publish(changes, Timestamp::default());
            }
        }
    }
}

impl SqliteStore {
    /// Opens a file with the default options, and creates it if there is none.
    ///
    /// Fails as [`Invalid`](crate::ErrorKind::Invalid) if the file or its directory cannot be written, as
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is something else or of a newer release, as
    /// [`Full`](crate::ErrorKind::Full) if the disk is full, as
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another process has locked it for long, and as
    /// [`Internal`](crate::ErrorKind::Internal) if it is broken. Opening waits for the disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        SqliteStore::open_with(path, SqliteOptions::default())
    }

    /// Opens a file.
    pub fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self> {
        let SqliteOptions { durability, clock, poll_interval, migrate } = options;
        if poll_interval.is_zero() {
            return Err(Error::invalid("poll_interval is 0; the default is 50 ms"));
        }
        let path = open::absolute(path.as_ref())?;
        let writer = open::writer(&path, durability, migrate)?;
        let hints = Arc::new(Hints::new());
        let threads = Threads::start(writer, Arc::clone(&hints), || open::reader(&path))?;
        let locks = Arc::new(Locks::new(open::lock_directory(&path)));
        Ok(SqliteStore {
            inner: Arc::new(Inner { threads, path, clock, poll_interval, looking: Mutex::default(), hints, locks }),
        })
    }

    /// Looks at a file without opening it as a store: nothing is made or migrated. Waits for the disk.
    ///
    /// Fails as [`NotFound`](crate::ErrorKind::NotFound) if there is no such file, and else as opening it does.
    pub fn inspect(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Inspection> {
        open::inspect(&open::absolute(path.as_ref())?, options)
    }

    /// Looks for contradictions in the file and between the tasks and all that is kept of them, and answers a
    /// sentence for each; there should be none. Reads everything; may be used at any time, and keeps nobody waiting.
    pub async fn verify(&self) -> Result<Vec<String>> {
        verify::verify(self.inner.path.clone()).await
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Runs `work` in the next transaction.
    async fn write<T: Send + 'static>(
        &self,
        items: usize,
        work: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = &self.inner;
        inner.threads.write(inner.clock.now(), items, false, work).await
    }

    /// The store's time for a read.
    fn now(&self) -> Timestamp {
        self.inner.hints.advance(self.inner.clock.now())
    }
}

impl From<SqliteStore> for Arc<dyn Store> {
    fn from(store: SqliteStore) -> Self {
        Arc::new(store)
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: false }
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        check_batch(tasks.len())?;
        self.write(tasks.len(), move |tx| insert::insert(tx, &tasks)).await
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<Claim> {
        request.check()?;
        // More come with the next claim: its time has passed already.
        request.limit = request.limit.min(BATCH_MAX);
        self.write(request.limit, move |tx| claim::claim(tx, &request)).await
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        let now = self.now();
        self.inner.threads.read(move |connection, names| window::candidates(connection, names, &request, now)).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        check_batch(changes.len())?;
        self.write(changes.len(), move |tx| apply::apply(tx, &changes)).await
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        check_batch(commands.len())?;
        self.write(commands.len(), move |tx| apply::command(tx, &commands)).await
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        check_batch(reports.len())?;
        self.write(reports.len(), move |tx| apply::post_reports(tx, &reports)).await
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        let (id, locks) = (replica.id, Arc::clone(&self.inner.locks));
        let registered = self.write(1, move |tx| replicas::register(tx, &locks, &replica)).await;
        if registered.as_ref().is_err_and(|e| e.kind() != crate::ErrorKind::Conflict) {
            self.inner.locks.release(id);
        }
        registered
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        let inner = &self.inner;
        // Before everything that waits already: a replica must not die of its store being busy.
        inner.threads.write(inner.clock.now(), 1, true, move |tx| replicas::heartbeat(tx, &heartbeat)).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.write(1, move |tx| replicas::leave(tx, replica)).await?;
        self.inner.locks.release(replica);
        Ok(())
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.write(1, move |tx| replicas::drain(tx, replica)).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        let (now, locks) = (self.now(), Arc::clone(&self.inner.locks));
        self.inner.threads.read(move |connection, _| replicas::replicas(connection, &locks, now)).await
    }

    async fn rescue(&self, mut request: RescueRequest) -> Result<Rescued> {
        request.limit = request.limit.min(BATCH_MAX);
        let locks = Arc::clone(&self.inner.locks);
        self.write(request.limit, move |tx| replicas::rescue(tx, &locks, &request)).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        check_batch(ids.len())?;
        let ids = ids.to_vec();
        self.inner.threads.read(move |connection, names| list::get(connection, names, &ids)).await
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        let query = query.clone();
        self.inner.threads.read(move |connection, names| list::list(connection, names, &query)).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        let now = self.now();
        self.inner.threads.read(move |connection, _| list::counts(connection, now)).await
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        settings.check()?;
        self.write(1, move |tx| list::set_queue(tx, &queue, &settings)).await
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        self.inner.threads.read(|connection, _| list::queues(connection)).await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        let (now, locks) = (self.now(), Arc::clone(&self.inner.locks));
        let (found, request) = self
            .inner
            .threads
            .read(move |connection, _| Ok((sweep::candidates(connection, &request, now)?, request)))
            .await?;
        self.write(found.len(), move |tx| sweep::sweep(tx, &locks, &request, &found)).await
    }

    async fn changed(&self, seen: Changes) -> Changes {
        let inner = &self.inner;
        let mut known = inner.hints.subscribe();
        loop {
            let now = *known.borrow_and_update();
            if now != seen {
                return now;
            }
            tokio::select! {
                // The sender lives as long as this store.
                _ = known.changed() => {}
                _ = inner.look() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
