//! The store in Redis: any number of processes on any number of hosts.
//!
//! | file | idea |
//! |---|---|
//! | `lua/` | the scripts; `prelude.lua` says which keys there are and what is in them |
//! | `script`, `compose` | the list of them, and how their texts are made from the files |
//! | `calls` | what every call shares: time, write counter, hints |
//! | `rows`, `events` | tasks, changes and answers on the wire |
//! | `intake`, `tasks`, `claims`, `replicas`, `keeping` | the methods of the contract |
//! | `hints` | `changed` |
//!
//! Every transition is one script, which Redis runs whole or not at all: the scripts decide by `step.lua`,
//! which is [`state::step`](crate::state::step) in Lua and held to it by the conformance suite.

mod calls;
mod claims;
mod compose;
mod events;
mod hints;
mod intake;
mod keeping;
mod replicas;
mod rows;
mod script;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;

use self::calls::Calls;
use crate::database::redis::check_namespace;
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::state::Command;
use crate::store::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

pub use crate::database::redis::server::Durability;

/// How to open a [`RedisStore`].
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Keeps apart what shares a server: 1 to 100 letters, digits, `.`, `_` or `-`. Default `default`.
    pub namespace: String,
    /// Refuse a server that is not set to [`Durability::Always`]. Default: take it as it is.
    pub strict: bool,
    /// Begin a new namespace if there is none, and bring an older layout up to date. Default `true`; without it such
    /// a namespace is refused as [`Incompatible`](crate::ErrorKind::Incompatible).
    pub migrate: bool,
    /// How often to ask whether anything has changed while somebody waits for it, beside the published
    /// hints. Longer than 0, default 1 s.
    pub poll_interval: Duration,
    /// Microseconds added to the server's time: only for tests, which cannot wait.
    #[doc(hidden)]
    pub clock_offset: Arc<AtomicI64>,
    /// The offset is the time, which stands still otherwise: only for tests that compare every moment.
    #[doc(hidden)]
    pub clock_stopped: bool,
}

impl Default for RedisOptions {
    fn default() -> Self {
        RedisOptions {
            namespace: "default".to_owned(),
            strict: false,
            migrate: true,
            poll_interval: Duration::from_secs(1),
            clock_offset: Arc::default(),
            clock_stopped: false,
        }
    }
}

impl RedisOptions {
    fn check(&self) -> Result<()> {
        check_namespace(&self.namespace)?;
        if self.poll_interval.is_zero() {
            return Err(Error::invalid("poll_interval is 0; the default is 1 s"));
        }
        Ok(())
    }
}

/// Keeps tasks in Redis (7 or newer) or Valkey, shared by any number of processes on any number of hosts.
///
/// The server's time is the store's time. All keys of a namespace carry one hash tag, so that a cluster
/// keeps them on one node; none ever expires. A server above its `maxmemory` takes no new tasks
/// ([`Full`](crate::ErrorKind::Full)), but those that it has are claimed and ended as ever.
///
/// Cloning is cheap; clones share their connections, one for each runtime that they are used on.
///
/// ```no_run
/// use light_task_scheduler::store::redis::RedisStore;
/// use light_task_scheduler::{NewTask, Store};
///
/// # async fn run() -> Result<(), light_task_scheduler::Error> {
/// let store = RedisStore::open("redis://localhost").await?;
/// store.insert(vec![NewTask::new("greet", "world")?]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RedisStore {
    calls: Arc<Calls>,
}

impl RedisStore {
    /// Opens a store with the default options.
    ///
    /// The forms of a URL are `redis://[user:password@]host[:port][/database]`,
    /// `redis+sentinel://[user:password@]host:port,host:port/master` and
    /// `redis+cluster://[user:password@]host:port,host:port`; `valkey` says the same as `redis`.
    ///
    /// With feature `tls`, `rediss://` (or `valkeys://`) demands TLS to one server: its certificate must be for the
    /// host of the URL and of an authority that the system trusts, or of one in the file (PEM) that `?ssl-ca=FILE`
    /// names. `ssl-cert=FILE` and `ssl-key=FILE` are this program's own, for a server that asks for them.
    ///
    /// Fails as [`Invalid`](crate::ErrorKind::Invalid) if the URL or a file cannot be read, the password is wrong, the
    /// server may evict keys, or it is less durable than demanded; as
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it cannot be reached, is not trusted, or is a replica; as
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is too old or the data is of a newer release.
    pub async fn open(url: &str) -> Result<Self> {
        RedisStore::open_with(url, RedisOptions::default()).await
    }

    /// Opens a store.
    pub async fn open_with(url: &str, options: RedisOptions) -> Result<Self> {
        options.check()?;
        let calls = Calls::open(url, options).await?;
        Ok(RedisStore { calls: Arc::new(calls) })
    }

    /// Looks at a server and a namespace without opening it as a store: nothing is made or migrated. Fails as
    /// opening it does.
    pub async fn inspect(url: &str, options: &RedisOptions) -> Result<Inspection> {
        options.check()?;
        calls::inspect(url, options).await
    }

    /// What "accepted" means on this server, as it was set when the store was opened.
    pub fn durability(&self) -> Durability {
        self.calls.durability()
    }

    /// Looks for contradictions between the tasks and the indexes that lead to them, and answers a sentence
    /// for each; there should be none. Reads everything, a part at a time; may be used at any time.
    pub async fn verify(&self) -> Result<Vec<String>> {
        keeping::verify(&self.calls).await
    }

    /// Removes everything of this namespace: tasks, queues, replicas, tombstones. Nobody may use it meanwhile.
    pub async fn erase(&self) -> Result<()> {
        keeping::erase(&self.calls).await
    }
}

impl From<RedisStore> for Arc<dyn Store> {
    fn from(store: RedisStore) -> Self {
        Arc::new(store)
    }
}

#[async_trait]
impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: true }
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        intake::insert(&self.calls, tasks).await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        claims::claim(&self.calls, request).await
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        claims::candidates(&self.calls, &request).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        tasks::apply(&self.calls, &changes).await
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        tasks::command(&self.calls, &commands).await
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        tasks::post_reports(&self.calls, &reports).await
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        replicas::register(&self.calls, &replica).await
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        replicas::heartbeat(&self.calls, &heartbeat).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        replicas::leave(&self.calls, replica).await
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        replicas::drain(&self.calls, replica).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        replicas::replicas(&self.calls).await
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        replicas::rescue(&self.calls, request).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        tasks::get(&self.calls, ids).await
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        tasks::list(&self.calls, query).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        keeping::counts(&self.calls).await
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        keeping::set_queue(&self.calls, &queue, &settings).await
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        keeping::queues(&self.calls).await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        keeping::sweep(&self.calls, &request).await
    }

    async fn changed(&self, seen: Changes) -> Changes {
        self.calls.changed(seen).await
    }
}
