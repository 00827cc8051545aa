//! The store of a server, over HTTP: the tasks are kept there, and run wherever this is.
//!
//! | file | idea |
//! |---|---|
//! | `wire` | what goes over the wire, used by both sides |
//! | `schema` | how that is described in OpenAPI |
//!
//! Every method is one call. The server carries it out on its own store, so this one keeps whatever that one
//! promises; a call whose answer was lost is repeated like any other.

#[cfg(feature = "openapi")]
mod schema;
pub mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::IgnoredAny;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::remote::{ANSWER_WITHIN, Link};
use crate::error::{Error, Result};
use crate::state::Command;
use crate::store::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Cursor, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, PAGE_MAX, Page, QueueCounts, QueueSettings, ReplicaStatus, Report,
    RescueRequest, Rescued, Store, Sweep, SweepRequest, TaskQuery, check_batch,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

/// How long the server may take to answer a heartbeat: with another connection there is still time for one.
const PULSE_ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long one question for changes waits at the server.
const CHANGES_WAIT: Duration = Duration::from_secs(20);
/// How soon after a failure changes are asked for again.
const CHANGES_RETRY: Duration = Duration::from_secs(1);

/// Keeps tasks in the store of a server (`lts server`, or a program that serves the API): a [`Scheduler`] on it is a
/// worker of that server, on whatever host.
///
/// It needs no way to the database, only to the server. Where the server asks for a token, a worker's is enough for all
/// that a scheduler does; taking tasks in, commands, drains, and the settings of queues ask for an operator's. A token for some
/// queues sees and takes only their tasks. Tasks are large or many as the server's memory allows.
///
/// A server that cannot be reached is [`Unavailable`](crate::ErrorKind::Unavailable), a wrong token
/// [`Invalid`](crate::ErrorKind::Invalid). While it is away, what runs here goes on.
///
/// Cloning is cheap; clones share their connections.
///
/// [`Scheduler`]: https://docs.rs/light-task-scheduler/latest/light_task_scheduler/struct.Scheduler.html
///
/// ```no_run
/// use light_task_scheduler::{FunctionExecutor, RemoteStore, Scheduler};
///
/// # async fn run(functions: FunctionExecutor) -> Result<(), light_task_scheduler::Error> {
/// let store = RemoteStore::open("http://tasks.example.org:7600", Some("lts_…")).await?;
/// let worker = Scheduler::builder(store).functions(functions).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RemoteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    capabilities: Capabilities,
    queues: Option<Vec<Name>>,
    changes: watch::Sender<Changes>,
    /// Asks for changes while somebody waits for them.
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listener.abort();
        }
    }
}

impl RemoteStore {
    /// The store of the server at `url`, with a token if the server asks for one. Fails as the calls do.
    pub async fn open(url: &str, token: Option<&str>) -> Result<Self> {
        let link = Link::new(url, token)?;
        let wire::Hello { priority, durable, queues } = link.read("leases").await?;
        // Whatever the store is: it is shared through the server, and with whom is not known here.
        let capabilities = Capabilities { priority, durable, shared: true, multi_host: true };
        let changes = watch::Sender::new(Changes::default());
        let shared = Shared { link, capabilities, queues, changes, listener: Mutex::default() };
        Ok(RemoteStore { shared: Arc::new(shared) })
    }

    /// The queues that the token is for; `None`: all. Of others nothing is seen or taken.
    pub fn queues(&self) -> Option<&[Name]> {
        self.shared.queues.as_deref()
    }

    fn link(&self) -> &Link {
        &self.shared.link
    }

    /// Has somebody ask for changes.
    fn listen(&self) {
        let mut listener = self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.as_ref().is_none_or(JoinHandle::is_finished) {
            *listener = Some(tokio::spawn(listen(self.shared.link.clone(), self.shared.changes.clone())));
        }
    }
}

/// Asks for changes until nobody waits for them.
async fn listen(link: Arc<Link>, changes: watch::Sender<Changes>) {
    while changes.receiver_count() > 0 {
        let request = wire::ChangesRequest { seen: (*changes.borrow()).into(), wait: wire::Span(CHANGES_WAIT) };
        match link.call_within::<_, wire::Changes>(CHANGES_WAIT + ANSWER_WITHIN, "leases/changed", &request).await {
            Ok(now) => {
                changes.send_if_modified(|known| std::mem::replace(known, now.into()) != now.into());
            }
            // A hint may be missed: all are answered with something other than what they have seen in the end.
            Err(_) => tokio::time::sleep(CHANGES_RETRY).await,
        }
    }
}

impl From<RemoteStore> for Arc<dyn Store> {
    fn from(store: RemoteStore) -> Self {
        Arc::new(store)
    }
}

/// What is sent for values of the contract.
fn sent<T, W: From<T>>(items: impl IntoIterator<Item = T>) -> Vec<W> {
    items.into_iter().map(W::from).collect()
}

#[async_trait]
impl Store for RemoteStore {
    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        check_batch(tasks.len())?;
        // What no store may take has not always a form on the wire.
        let checked: Vec<Result<wire::NewTask>> = tasks.iter().map(wire::NewTask::checked).collect();
        let good: Vec<&wire::NewTask> = checked.iter().flatten().collect();
        let mut answers = self.link().call_each::<_, wire::Inserted>("leases/insert", &good).await?.into_iter();
        let missing = || Err(Error::internal("the server gave no answer"));
        let answer =
            |task: Result<_>| task.and_then(|_: wire::NewTask| answers.next().map_or_else(missing, Into::into));
        Ok(checked.into_iter().map(answer).collect())
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        request.check()?;
        let ClaimRequest { replica: worker, number, kinds, queues, limit, among } = request;
        let request = wire::ClaimRequest { worker, number, kinds, queues, limit, among, wait: None };
        self.link().call::<_, wire::Claim>("leases", &request).await?.try_into()
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        let CandidatesRequest { kinds, queues, per_lane } = request;
        let request = wire::CandidatesRequest { kinds, queues, per_lane };
        self.link().call::<_, wire::Candidates>("leases/candidates", &request).await.map(Into::into)
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        check_batch(changes.len())?;
        wire::all(self.link().call_each::<_, wire::Answer>("leases/apply", &sent::<_, wire::Change>(changes)).await?)
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        check_batch(commands.len())?;
        let wishes: Vec<wire::Wish> = commands.into_iter().map(|(id, command)| wire::Wish { id, command }).collect();
        wire::all(self.link().call_each::<_, wire::Answer>("leases/commands", &wishes).await?)
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        check_batch(reports.len())?;
        self.link().call_each("leases/reports", &sent::<_, wire::Report>(reports)).await
    }

    async fn register(&self, NewReplica { id: worker, name, ttl, .. }: NewReplica) -> Result<()> {
        let new = wire::NewWorker { worker, name, ttl: wire::Span(ttl) };
        self.link().call("leases/register", &new).await
    }

    async fn heartbeat(&self, Heartbeat { replica: worker, holdings }: Heartbeat) -> Result<HeartbeatReply> {
        let heartbeat = wire::Heartbeat { worker, holdings: holdings.map(Into::into) };
        let reply = self.link().call_within(PULSE_ANSWER_WITHIN, "leases/heartbeat", &heartbeat).await;
        reply.map(|reply: wire::HeartbeatReply| reply.into())
    }

    async fn leave(&self, worker: ReplicaId) -> Result<()> {
        self.link().call("leases/leave", &wire::Worker { worker }).await
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        // What an operator does, and not a worker: the call for people is the only one.
        let path = format!("workers/{replica}/drain");
        self.link().call::<_, IgnoredAny>(&path, &()).await.map(drop)
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        Ok(sent(self.link().read::<Vec<wire::WorkerStatus>>("leases/workers").await?))
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        let RescueRequest { replica: worker, suspects, kinds, queues, limit } = request;
        let suspects = suspects.into_iter().map(|one| wire::Suspect { worker: one.id, beat: one.beat }).collect();
        let request = wire::RescueRequest { worker, suspects, kinds, queues, limit };
        self.link().call::<_, wire::Rescued>("leases/rescue", &request).await?.try_into()
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        check_batch(ids.len())?;
        let mut found = Vec::with_capacity(ids.len());
        while found.len() < ids.len() {
            // The server answers as many as it likes to at once.
            let part: Vec<Option<wire::Task>> = self.link().call("leases/get", &ids[found.len()..]).await?;
            if part.is_empty() {
                return Err(Error::internal("the server gave no answer"));
            }
            for task in part {
                found.push(task.map(Task::try_from).transpose()?);
            }
        }
        Ok(found)
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
        let mut page = Page { tasks: Vec::new(), next: query.cursor };
        loop {
            let rest = TaskQuery { cursor: page.next, limit: limit - page.tasks.len(), ..query.clone() };
            let part: wire::Page = self.link().call("leases/list", &wire::TaskQuery::from(rest)).await?;
            page.tasks.extend(wire::all::<_, Task>(part.tasks)?);
            page.next = part.next.map(Cursor::at);
            if page.next.is_none() || page.tasks.len() >= limit {
                return Ok(page);
            }
        }
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        wire::all(self.link().read::<Vec<wire::QueueCounts>>("leases/counts").await?)
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        settings.check()?;
        self.link().call("leases/queues", &wire::Queue::from((queue, settings))).await
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        Ok(sent(self.link().read::<Vec<wire::Queue>>("leases/queues").await?))
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        let swept = self.link().call("leases/sweep", &wire::SweepRequest::from(request)).await;
        swept.map(|wire::Sweep { removed, garbage }| Sweep { removed, garbage })
    }

    async fn changed(&self, seen: Changes) -> Changes {
        let mut changes = self.shared.changes.subscribe();
        self.listen();
        match changes.wait_for(|known| *known != seen).await {
            Ok(now) => *now,
            // Only without a store.
            Err(_) => seen,
        }
    }
}

#[cfg(test)]
mod tests;
