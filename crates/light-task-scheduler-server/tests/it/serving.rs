//! A server of this program in this process: any store, on a port of this host.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::results::MemoryLogs;
use light_task_scheduler::state::Command;
use light_task_scheduler::store::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Sweep, SweepRequest, TaskQuery,
};
use light_task_scheduler::{LogStore, Name, NewTask, ReplicaId, Result, Scheduler, SqliteStore, Store, Task, TaskId};
use light_task_scheduler_server::api::{Admission, Api, ApiOptions};
use tokio::runtime::Runtime;

/// Where a server listens if it does not matter.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// How long the threads of a server may take to end: each stops where it waits next.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A server that serves. Dropping it ends it as a crash would.
pub(crate) struct Serving {
    address: SocketAddr,
    scheduler: Scheduler,
    logs: Arc<dyn LogStore>,
    // Threads of its own: the test's may be standing still.
    runtime: Option<Runtime>,
}

impl Serving {
    pub(crate) fn start(store: Arc<dyn Store>, admission: Admission, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let logs: Arc<dyn LogStore> = Arc::new(MemoryLogs::default());
        let (address, shown) = (address.to_owned(), logs.clone());
        let begun = runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap();
            let scheduler = Scheduler::builder(store).start().await.unwrap();
            let api = Api::new(scheduler.clone(), shown, ApiOptions { admission, ..ApiOptions::default() });
            tokio::spawn(async move { axum::serve(listener, api.router()).await });
            (address, scheduler)
        });
        // Not blocked on: the caller may be on a runtime itself.
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn(async move { tell.send(begun.await.unwrap()) });
        let (address, scheduler) = told.recv().unwrap();
        Serving { address, scheduler, logs, runtime: Some(runtime) }
    }

    /// Over a file, for whoever asks.
    pub(crate) fn sqlite(file: &Path, address: &str) -> Self {
        Serving::start(SqliteStore::open(file).unwrap().into(), Admission::ThisHost, address)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    pub(crate) fn logs(&self) -> &Arc<dyn LogStore> {
        &self.logs
    }

    /// Waits on the server's own threads.
    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(what)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Until its threads have ended the address is taken: the next server may want it at once. By a thread, as the
            // caller may be on a runtime itself, where this wait is refused.
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(ENDS_WITHIN));
            ending.join().unwrap();
        }
    }
}

/// A store as those see it who come through the server: without the server's own replica, which a case of the suite
/// does not expect. Everything else is the store's.
#[derive(Debug)]
pub(crate) struct Bare {
    inner: Arc<dyn Store>,
    own: Mutex<Option<ReplicaId>>,
}

impl Bare {
    pub(crate) fn around(inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Bare { inner, own: Mutex::default() })
    }

    fn is_own(&self, id: ReplicaId) -> bool {
        *self.own.lock().unwrap() == Some(id)
    }
}

#[async_trait]
impl Store for Bare {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        self.inner.insert(tasks).await
    }
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        self.inner.claim(request).await
    }
    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        self.inner.candidates(request).await
    }
    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        self.inner.apply(changes).await
    }
    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        self.inner.command(commands).await
    }
    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        self.inner.post_reports(reports).await
    }
    async fn register(&self, replica: NewReplica) -> Result<()> {
        if replica.remote {
            return self.inner.register(replica).await;
        }
        *self.own.lock().unwrap() = Some(replica.id);
        Ok(())
    }
    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        if self.is_own(heartbeat.replica) {
            return Ok(HeartbeatReply::default());
        }
        self.inner.heartbeat(heartbeat).await
    }
    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.inner.leave(replica).await
    }
    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.inner.drain(replica).await
    }
    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        self.inner.replicas().await
    }
    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        self.inner.rescue(request).await
    }
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        self.inner.get(ids).await
    }
    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        self.inner.list(query).await
    }
    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.inner.counts().await
    }
    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        self.inner.set_queue(queue, settings).await
    }
    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        self.inner.queues().await
    }
    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        self.inner.sweep(request).await
    }
    async fn changed(&self, seen: Changes) -> Changes {
        self.inner.changed(seen).await
    }
}
