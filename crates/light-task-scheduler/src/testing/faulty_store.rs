//! A store between which and its client things go wrong.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::state::Command;
use crate::store::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

/// Which method of a [`Store`] was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Insert,
    Claim,
    Candidates,
    Apply,
    Command,
    PostReports,
    Register,
    Heartbeat,
    Leave,
    Drain,
    Replicas,
    Rescue,
    Get,
    List,
    Counts,
    SetQueue,
    Queues,
    Sweep,
}

/// Decides what goes wrong. Waiting in a method delays the call; never returning hangs it.
#[async_trait]
pub trait StoreFaults: Send + Sync + fmt::Debug {
    /// Before the store sees the call. An error fails it without any effect.
    async fn before(&self, call: Call) -> Result<()>;

    /// After the store has carried the call out. An error loses the answer: the client cannot know.
    async fn after(&self, call: Call) -> Result<()>;

    /// Before a hint ([`Store::changed`]) is asked for. Never returning loses all hints.
    async fn before_hint(&self);
}

/// Any store, with faults between it and its client.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<dyn StoreFaults>,
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: impl Into<Arc<dyn Store>>, faults: Arc<dyn StoreFaults>) -> Self {
        FaultyStore { inner: inner.into(), faults }
    }
}

impl From<FaultyStore> for Arc<dyn Store> {
    fn from(store: FaultyStore) -> Self {
        Arc::new(store)
    }
}

/// Carries a call out between its two chances to fail.
macro_rules! faulty {
    ($self:ident, $call:ident, $carry_out:expr) => {{
        $self.faults.before(Call::$call).await?;
        let answer = $carry_out.await;
        $self.faults.after(Call::$call).await?;
        answer
    }};
}

#[async_trait]
impl Store for FaultyStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        faulty!(self, Insert, self.inner.insert(tasks))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        faulty!(self, Claim, self.inner.claim(request))
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        faulty!(self, Candidates, self.inner.candidates(request))
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        faulty!(self, Apply, self.inner.apply(changes))
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        faulty!(self, Command, self.inner.command(commands))
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        faulty!(self, PostReports, self.inner.post_reports(reports))
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        faulty!(self, Register, self.inner.register(replica))
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        faulty!(self, Heartbeat, self.inner.heartbeat(heartbeat))
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        faulty!(self, Leave, self.inner.leave(replica))
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        faulty!(self, Drain, self.inner.drain(replica))
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        faulty!(self, Replicas, self.inner.replicas())
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        faulty!(self, Rescue, self.inner.rescue(request))
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        faulty!(self, Get, self.inner.get(ids))
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        faulty!(self, List, self.inner.list(query))
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        faulty!(self, Counts, self.inner.counts())
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        faulty!(self, SetQueue, self.inner.set_queue(queue, settings))
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        faulty!(self, Queues, self.inner.queues())
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        faulty!(self, Sweep, self.inner.sweep(request))
    }

    async fn changed(&self, seen: Changes) -> Changes {
        self.faults.before_hint().await;
        self.inner.changed(seen).await
    }
}

/// One thing that goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    FailBefore,
    /// It has its effect, and its answer is lost.
    FailAfter,
    /// It is carried out this much later.
    DelayBefore(Duration),
    /// It is answered this much later.
    DelayAfter(Duration),
}

/// Faults from a list: each call takes the first that is meant for its method.
#[derive(Debug, Default)]
pub struct FaultScript {
    faults: Mutex<VecDeque<(Call, Fault)>>,
}

impl FaultScript {
    /// Lets the next call of this method, that has none yet, go wrong.
    pub fn add(&self, call: Call, fault: Fault) {
        self.faults().push_back((call, fault));
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, VecDeque<(Call, Fault)>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, call: Call, is_now: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults();
        let place = faults.iter().position(|(other, _)| *other == call)?;
        let (_, fault) = faults[place];
        if !is_now(fault) {
            return None;
        }
        faults.remove(place);
        Some(fault)
    }
}

#[async_trait]
impl StoreFaults for FaultScript {
    async fn before(&self, call: Call) -> Result<()> {
        match self.take(call, |fault| matches!(fault, Fault::FailBefore | Fault::DelayBefore(_))) {
            Some(Fault::DelayBefore(delay)) => tokio::time::sleep(delay).await,
            Some(_) => return Err(Error::unavailable("injected: the call did not reach the store")),
            None => {}
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<()> {
        match self.take(call, |fault| matches!(fault, Fault::FailAfter | Fault::DelayAfter(_))) {
            Some(Fault::DelayAfter(delay)) => tokio::time::sleep(delay).await,
            Some(_) => return Err(Error::unavailable("injected: the answer of the store was lost")),
            None => {}
        }
        Ok(())
    }

    async fn before_hint(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, StoreExt};

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_has_its_effect_and_a_lost_call_has_none() {
        let script = Arc::new(FaultScript::default());
        let store = FaultyStore::new(MemoryStore::fifo(), script.clone());
        let task = NewTask::new("k", &1).unwrap().id("a").unwrap();
        script.add(Call::Insert, Fault::FailBefore);
        script.add(Call::Insert, Fault::FailAfter);
        assert!(store.insert(vec![task.clone()]).await.is_err());
        assert!(store.task(&TaskId::new("a").unwrap()).await.is_err());
        assert!(store.insert(vec![task.clone()]).await.is_err());
        let answer = store.insert(vec![task]).await.unwrap().pop().unwrap().unwrap();
        assert!(matches!(answer, Inserted::Existing(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_delays() {
        let script = Arc::new(FaultScript::default());
        let store = FaultyStore::new(MemoryStore::fifo(), script.clone());
        let begun = tokio::time::Instant::now();
        script.add(Call::Counts, Fault::DelayBefore(Duration::from_secs(3)));
        store.counts().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }
}
