//! What the cases are written with: one open store, and the few calls that most cases make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::StoreHarness;
use crate::clock::{SystemClock, Timestamp};
use crate::error::Result;
use crate::state::{Command, RunEvent};
use crate::store::{
    Answer, Change, Claim, ClaimRequest, Heartbeat, HeartbeatReply, Holdings, Inserted, NewReplica, QueueSettings,
    RescueRequest, Rescued, Store, Suspect, TaskQuery,
};
use crate::task::{Failure, FailureKind, Name, NewTask, Payload, ReplicaId, ResultRef, State, Task, TaskId, Token};

/// The unit in which cases let time pass: nothing real in a case takes as long.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// The lease of the replicas in the cases.
pub(super) const TTL: Duration = Duration::from_secs(600);
/// The kind of most tasks in the cases.
pub(super) const KIND: &str = "work";

/// An open store.
pub(super) struct World<'a> {
    pub(super) harness: &'a dyn StoreHarness,
    pub(super) store: Arc<dyn Store>,
}

/// A registered replica, which counts its claims.
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    claims: AtomicU64,
}

impl Replica {
    /// One that nobody has registered.
    pub(super) fn unknown() -> Self {
        Replica { id: ReplicaId::generate(&SystemClock), claims: AtomicU64::new(0) }
    }

    pub(super) fn last_claim(&self) -> u64 {
        self.claims.load(SeqCst)
    }

    /// A new claim of anything of [`KIND`].
    pub(super) fn request(&self, limit: usize) -> ClaimRequest {
        let number = self.claims.fetch_add(1, SeqCst) + 1;
        ClaimRequest { replica: self.id, number, kinds: vec![name(KIND)], queues: vec![], limit, among: None }
    }
}

impl<'a> World<'a> {
    pub(super) async fn open(harness: &'a dyn StoreHarness) -> Self {
        let store = harness.open().await;
        assert_eq!(store.capabilities(), harness.capabilities(), "the harness knows what the store can do");
        World { harness, store }
    }

    /// A second handle on the same data.
    pub(super) async fn again(&self) -> World<'a> {
        let store = self.harness.again().await.expect("a durable or shared store can be opened again");
        World { harness: self.harness, store }
    }

    /// The same data after the only handle was closed.
    pub(super) async fn restart(self) -> World<'a> {
        let harness = self.harness;
        drop(self);
        let store = harness.again().await.expect("a durable store can be opened again");
        World { harness, store }
    }

    pub(super) async fn pass(&self, by: Duration) {
        self.harness.advance(by).await;
    }

    pub(super) async fn now(&self) -> Timestamp {
        let replica = self.replica().await;
        let now = self.beat(&replica).await.now;
        self.store.leave(replica.id).await.unwrap();
        now
    }

    pub(super) async fn replica(&self) -> Replica {
        let replica = Replica::unknown();
        let new = NewReplica { id: replica.id, name: "host:1".to_owned(), ttl: TTL, remote: false };
        self.store.register(new).await.unwrap();
        replica
    }

    pub(super) async fn insert(&self, tasks: Vec<NewTask>) -> Vec<Result<Inserted>> {
        let expected = tasks.len();
        let answers = self.store.insert(tasks).await.unwrap();
        assert_eq!(answers.len(), expected, "one answer per item");
        answers
    }

    /// Inserts a task that must be new.
    pub(super) async fn add(&self, task: NewTask) -> TaskId {
        match self.insert(vec![task]).await.remove(0) {
            Ok(Inserted::New(id)) => id,
            other => panic!("not taken in as new: {other:?}"),
        }
    }

    pub(super) async fn add_all(&self, tasks: Vec<NewTask>) -> Vec<TaskId> {
        let answers = self.insert(tasks).await;
        let new = |answer| match answer {
            Ok(Inserted::New(id)) => id,
            other => panic!("not taken in as new: {other:?}"),
        };
        answers.into_iter().map(new).collect()
    }

    pub(super) async fn claim(&self, replica: &Replica, limit: usize) -> Claim {
        self.store.claim(replica.request(limit)).await.unwrap()
    }

    pub(super) async fn claim_ids(&self, replica: &Replica, limit: usize) -> Vec<TaskId> {
        ids(&self.claim(replica, limit).await.tasks)
    }

    /// Inserts a task and claims it.
    pub(super) async fn run(&self, replica: &Replica, task: NewTask) -> Task {
        let id = self.add(task).await;
        let mut claimed = self.claim(replica, 1).await.tasks;
        assert_eq!(ids(&claimed), [id], "the only due task is claimed");
        claimed.remove(0)
    }

    pub(super) async fn apply(&self, id: &TaskId, token: Token, event: RunEvent) -> Answer {
        let answers = self.store.apply(vec![Change { id: id.clone(), token, event }]).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per item");
        answers[0]
    }

    /// Applies an event with the token that the task has in hand.
    pub(super) async fn report(&self, task: &Task, event: RunEvent) -> Answer {
        self.apply(&task.id, token(task), event).await
    }

    /// Applies an event that must be applied.
    pub(super) async fn must(&self, task: &Task, event: RunEvent) -> Task {
        let answer = self.report(task, event.clone()).await;
        assert!(matches!(answer, Answer::Applied(_)), "{event:?}: {answer:?}");
        self.get(&task.id).await
    }

    pub(super) async fn command(&self, id: &TaskId, command: Command) -> Answer {
        let answers = self.store.command(vec![(id.clone(), command)]).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per item");
        answers[0]
    }

    pub(super) async fn find(&self, id: &TaskId) -> Option<Task> {
        let mut tasks = self.store.get(std::slice::from_ref(id)).await.unwrap();
        assert_eq!(tasks.len(), 1, "one answer per item");
        tasks.remove(0)
    }

    pub(super) async fn get(&self, id: &TaskId) -> Task {
        self.find(id).await.unwrap_or_else(|| panic!("task {id} is gone"))
    }

    pub(super) async fn state(&self, id: &TaskId) -> State {
        self.get(id).await.record.state
    }

    pub(super) async fn beat(&self, replica: &Replica) -> HeartbeatReply {
        self.store.heartbeat(Heartbeat { replica: replica.id, holdings: None }).await.unwrap()
    }

    pub(super) async fn beat_holding(&self, replica: &Replica, held: &[&Task]) -> HeartbeatReply {
        let mut holdings = Holdings::default();
        held.iter().for_each(|task| holdings.add(&task.id, task.record.run));
        self.store.heartbeat(Heartbeat { replica: replica.id, holdings: Some(holdings) }).await.unwrap()
    }

    /// What a rescuer sees of a replica.
    pub(super) async fn suspect(&self, replica: &Replica) -> Suspect {
        let all = self.store.replicas().await.unwrap();
        let seen = all.into_iter().find(|status| status.id == replica.id).expect("the replica is listed");
        Suspect { id: seen.id, beat: seen.beat }
    }

    pub(super) async fn rescue(&self, rescuer: &Replica, suspects: Vec<Suspect>, limit: usize) -> Rescued {
        let request = RescueRequest { replica: rescuer.id, suspects, kinds: vec![name(KIND)], queues: vec![], limit };
        self.store.rescue(request).await.unwrap()
    }

    /// Ends a replica's registration and has its tasks adopted by another.
    pub(super) async fn take_over(&self, from: &Replica, to: &Replica) -> Vec<Task> {
        self.store.leave(from.id).await.unwrap();
        self.rescue(to, vec![], 1_000).await.tasks
    }

    pub(super) async fn set(&self, queue: &str, settings: QueueSettings) {
        self.store.set_queue(name(queue), settings).await.unwrap();
    }

    /// Every task, page by page.
    pub(super) async fn list(&self, query: TaskQuery) -> Vec<Task> {
        let (mut query, mut tasks) = (query, Vec::new());
        loop {
            let page = self.store.list(&query).await.unwrap();
            tasks.extend(page.tasks);
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return tasks,
            }
        }
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A task of [`KIND`] with the payload `1`.
pub(super) fn task() -> NewTask {
    NewTask::new(KIND, &1).unwrap()
}

/// One under this id.
pub(super) fn task_as(id: &str) -> NewTask {
    task().id(id).unwrap()
}

pub(super) fn bytes(bytes: &[u8]) -> Payload {
    Payload::from_bytes(bytes)
}

pub(super) fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

pub(super) fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

/// The ids as text, to compare with literals.
pub(super) fn texts(ids: &[TaskId]) -> Vec<String> {
    ids.iter().map(TaskId::to_string).collect()
}

pub(super) fn token(task: &Task) -> Token {
    task.record.token().expect("the task is owned")
}

pub(super) fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "it broke")
}

pub(super) fn inline() -> ResultRef {
    ResultRef::Inline(bytes(b"2"))
}

pub(super) fn stored(key: &str) -> ResultRef {
    ResultRef::Stored { key: key.to_owned(), len: 3, hash: "00ff00ff00ff00ff00ff00ff00ff00ff".to_owned() }
}

/// A limit of running tasks.
pub(super) fn concurrency(limit: u32) -> QueueSettings {
    QueueSettings { concurrency: Some(limit), ..QueueSettings::default() }
}

pub(super) fn paused() -> QueueSettings {
    QueueSettings { paused: true, ..QueueSettings::default() }
}
