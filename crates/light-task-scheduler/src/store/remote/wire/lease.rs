//! What workers ask, and what they are told.

use serde::{Deserialize, Serialize};

use super::{Event, Fault, NewTask, Report, Span, Task};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::rate::RateLimit;
use crate::state::{Command, Refusal};
use crate::store;
use crate::task::{self, Name, ReplicaId, State, TaskId, Token};

/// What a store behind a server can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hello {
    /// Higher priorities run first.
    pub priority: bool,
    /// What was accepted survives the end of the server.
    pub durable: bool,
    /// The queues that the token is for; none: all.
    #[serde(default)]
    pub queues: Option<Vec<Name>>,
}

/// A worker that registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewWorker {
    /// A fresh UUID, never used before.
    pub worker: ReplicaId,
    /// For people: host, process and version.
    pub name: String,
    /// How long a heartbeat is good for: renew at a third of it.
    pub ttl: Span,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its id.
    pub worker: ReplicaId,
}

/// What a worker takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Who asks.
    pub worker: ReplicaId,
    /// Grows by one for each new claim of this worker; the first is 1. Repeating it repeats the answer.
    pub number: u64,
    /// The kinds it can run.
    pub kinds: Vec<Name>,
    /// The queues it serves; empty: all that its token is for.
    #[serde(default)]
    pub queues: Vec<Name>,
    /// How many it has room for.
    pub limit: usize,
    /// Only among these tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<Vec<TaskId>>,
    /// Where there is nothing to take: answers only when it is worth asking again, or after this time, at most 60 s.
    /// Ask again with the next number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Span>,
}

/// What a worker has taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claim {
    /// The tasks, in order. `owner` and `run` of each are its lease.
    pub tasks: Vec<Task>,
    /// Tasks that were failed because their deadline has passed.
    #[serde(default)]
    pub expired: Vec<TaskId>,
    /// When to ask again without a hint.
    #[serde(default)]
    pub next_at: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

impl TryFrom<Claim> for store::Claim {
    type Error = Error;

    fn try_from(Claim { tasks, expired, next_at, now }: Claim) -> Result<Self> {
        Ok(store::Claim { tasks: all(tasks)?, expired, next_at, now })
    }
}

/// Values of the contract from the wire.
pub(in crate::store::remote) fn all<W, T: TryFrom<W, Error = Error>>(items: Vec<W>) -> Result<Vec<T>> {
    items.into_iter().map(T::try_from).collect()
}

/// What could be claimed next is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CandidatesRequest {
    /// Of these kinds.
    pub kinds: Vec<Name>,
    /// Of these queues; empty: all that the token is for.
    #[serde(default)]
    pub queues: Vec<Name>,
    /// At most this many of each pair of queue and kind.
    pub per_lane: usize,
}

/// What could be claimed next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidates {
    /// In the order of claims.
    pub tasks: Vec<Candidate>,
    /// The store's time.
    pub now: Timestamp,
}

/// A waiting task that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "each is the field of that name of the candidate")]
pub struct Candidate {
    pub id: TaskId,
    pub queue: Name,
    pub kind: Name,
    pub priority: i32,
    pub run_at: Timestamp,
    pub insertion: u64,
}

impl From<store::Candidates> for Candidates {
    fn from(store::Candidates { tasks, now }: store::Candidates) -> Self {
        let candidate = |candidate: store::Candidate| {
            let store::Candidate { id, queue, kind, priority, run_at, insertion } = candidate;
            Candidate { id, queue, kind, priority, run_at, insertion }
        };
        Candidates { tasks: tasks.into_iter().map(candidate).collect(), now }
    }
}

impl From<Candidates> for store::Candidates {
    fn from(Candidates { tasks, now }: Candidates) -> Self {
        let candidate = |candidate: Candidate| {
            let Candidate { id, queue, kind, priority, run_at, insertion } = candidate;
            store::Candidate { id, queue, kind, priority, run_at, insertion }
        };
        store::Candidates { tasks: tasks.into_iter().map(candidate).collect(), now }
    }
}

/// A lease: names one ownership of one task. What is said under another one changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Which task.
    pub id: TaskId,
    /// Who owns it.
    pub owner: ReplicaId,
    /// The task's run number.
    pub run: u64,
    /// What happened.
    pub event: Event,
}

impl From<store::Change> for Change {
    fn from(store::Change { id, token, event }: store::Change) -> Self {
        Change { id, owner: token.owner, run: token.run, event: event.into() }
    }
}

impl TryFrom<Change> for store::Change {
    type Error = Error;

    fn try_from(Change { id, owner, run, event }: Change) -> Result<Self> {
        Ok(store::Change { id, token: Token { owner, run }, event: event.try_into()? })
    }
}

/// What became of one change or command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    /// What became of it.
    pub outcome: Applied,
    /// The state of the task, where it is known and the task is not removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// How one change or command was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// It is done.
    Applied,
    /// It had been done before.
    Already,
    /// There is no such task.
    Missing,
    /// Refused: the writer's lease is over. Stop the run.
    Stale,
    /// Refused: the writer's run has ended, and not in this way.
    Ended,
    /// Refused: not possible in this state.
    Illegal,
    /// Refused: its time has not come.
    NotDue,
    /// Refused: too late to cancel.
    TooLate,
    /// Refused: nobody asked to cancel it.
    NotRequested,
}

impl From<store::Answer> for Answer {
    fn from(answer: store::Answer) -> Self {
        let (outcome, state) = match answer {
            store::Answer::Applied(state) => (Applied::Applied, state),
            store::Answer::Already(state) => (Applied::Already, Some(state)),
            store::Answer::Missing => (Applied::Missing, None),
            store::Answer::Refused(refusal) => match refusal {
                Refusal::Stale => (Applied::Stale, None),
                Refusal::Ended(state) => (Applied::Ended, Some(state)),
                Refusal::Illegal(state) => (Applied::Illegal, Some(state)),
                Refusal::NotDue => (Applied::NotDue, None),
                Refusal::TooLate(state) => (Applied::TooLate, Some(state)),
                Refusal::NotRequested => (Applied::NotRequested, None),
            },
        };
        Answer { outcome, state }
    }
}

impl TryFrom<Answer> for store::Answer {
    type Error = Error;

    fn try_from(Answer { outcome, state }: Answer) -> Result<Self> {
        let known = || state.ok_or_else(|| Error::internal("the server answers without the state of the task"));
        Ok(match outcome {
            Applied::Applied => store::Answer::Applied(state),
            Applied::Already => store::Answer::Already(known()?),
            Applied::Missing => store::Answer::Missing,
            Applied::Stale => store::Answer::Refused(Refusal::Stale),
            Applied::Ended => store::Answer::Refused(Refusal::Ended(known()?)),
            Applied::Illegal => store::Answer::Refused(Refusal::Illegal(known()?)),
            Applied::NotDue => store::Answer::Refused(Refusal::NotDue),
            Applied::TooLate => store::Answer::Refused(Refusal::TooLate(known()?)),
            Applied::NotRequested => store::Answer::Refused(Refusal::NotRequested),
        })
    }
}

/// A worker's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Who.
    pub worker: ReplicaId,
    /// A digest of what it holds; none: it cannot tell just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdings: Option<Holdings>,
}

/// A digest of the tasks that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Holdings {
    /// How many.
    pub count: u64,
    /// In 16 hexadecimal digits, the XOR over all tasks of the 64-bit FNV-1a hash over the text of the id and then the
    /// eight bytes of the run, the lowest first.
    pub hash: String,
}

impl From<store::Holdings> for Holdings {
    fn from(store::Holdings { count, hash }: store::Holdings) -> Self {
        Holdings { count, hash: format!("{hash:016x}") }
    }
}

impl TryFrom<Holdings> for store::Holdings {
    type Error = Error;

    fn try_from(Holdings { count, hash }: Holdings) -> Result<Self> {
        const HEXADECIMAL: u32 = 16;
        let read = u64::from_str_radix(&hash, HEXADECIMAL);
        let hash = read.map_err(|_| Error::invalid(format!("`{hash}` is no hash in hexadecimal digits")))?;
        Ok(store::Holdings { count, hash })
    }
}

/// What a worker learns from its heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatReply {
    /// The store's time.
    pub now: Timestamp,
    /// Tasks it runs that are to be cancelled: stop them, then report `cancelled`.
    #[serde(default)]
    pub cancel: Vec<TaskId>,
    /// It is to take nothing more, and to leave once what it owns has ended.
    #[serde(default)]
    pub drain: bool,
    /// What running tasks of it have said of themselves elsewhere.
    #[serde(default)]
    pub reports: Vec<Report>,
    /// Where the digest is not right: what it owns.
    #[serde(default)]
    pub owned: Option<Vec<Owned>>,
    /// How often the store has lost writes.
    pub epoch: u64,
    /// Grows with the store's writes.
    pub op_seq: u64,
}

/// A task that a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Owned {
    /// Which.
    pub id: TaskId,
    /// Its run number.
    pub run: u64,
}

impl From<store::HeartbeatReply> for HeartbeatReply {
    fn from(reply: store::HeartbeatReply) -> Self {
        let store::HeartbeatReply { now, cancel, reports, drain, owned, epoch, op_seq } = reply;
        let reports = reports.into_iter().map(Into::into).collect();
        let owned = owned.map(|owned| owned.into_iter().map(|(id, run)| Owned { id, run }).collect());
        HeartbeatReply { now, cancel, drain, reports, owned, epoch, op_seq }
    }
}

impl From<HeartbeatReply> for store::HeartbeatReply {
    fn from(reply: HeartbeatReply) -> Self {
        let HeartbeatReply { now, cancel, drain, reports, owned, epoch, op_seq } = reply;
        let reports = reports.into_iter().map(Into::into).collect();
        let owned = owned.map(|owned| owned.into_iter().map(|Owned { id, run }| (id, run)).collect());
        store::HeartbeatReply { now, cancel, reports, drain, owned, epoch, op_seq }
    }
}

/// A worker as the store sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs, reason = "each is the field of that name of the status")]
pub struct WorkerStatus {
    pub worker: ReplicaId,
    pub name: String,
    pub beat: u64,
    pub expired: bool,
    pub proven_dead: bool,
    pub dead: bool,
    #[serde(default)]
    pub draining: bool,
    pub expires_at: Timestamp,
    pub owned: u64,
}

impl From<store::ReplicaStatus> for WorkerStatus {
    fn from(status: store::ReplicaStatus) -> Self {
        let store::ReplicaStatus { id, name, beat, expired, proven_dead, dead, draining, expires_at, owned } = status;
        WorkerStatus { worker: id, name, beat, expired, proven_dead, dead, draining, expires_at, owned }
    }
}

impl From<WorkerStatus> for store::ReplicaStatus {
    fn from(status: WorkerStatus) -> Self {
        let WorkerStatus { worker, name, beat, expired, proven_dead, dead, draining, expires_at, owned } = status;
        store::ReplicaStatus { id: worker, name, beat, expired, proven_dead, dead, draining, expires_at, owned }
    }
}

/// A worker takes over from the dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RescueRequest {
    /// The rescuer.
    pub worker: ReplicaId,
    /// Whom to declare dead: seen expired with this beat, twice.
    pub suspects: Vec<Suspect>,
    /// The kinds it can take over.
    pub kinds: Vec<Name>,
    /// The queues that it may take over from; empty: all that its token is for.
    #[serde(default)]
    pub queues: Vec<Name>,
    /// How many at most.
    pub limit: usize,
}

/// A worker that is believed dead, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the status")]
pub struct Suspect {
    pub worker: ReplicaId,
    pub beat: u64,
}

/// What a rescuer has taken over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rescued {
    /// The suspects that are dead now.
    pub dead: Vec<ReplicaId>,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The store's time.
    pub now: Timestamp,
}

impl TryFrom<Rescued> for store::Rescued {
    type Error = Error;

    fn try_from(Rescued { dead, tasks, now }: Rescued) -> Result<Self> {
        // What the server knows of its own host says nothing of the worker's.
        Ok(store::Rescued { dead, tasks: all(tasks)?, claimed_here: Vec::new(), now })
    }
}

/// What became of a task that was to be taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Inserted {
    /// Taken in.
    New(TaskId),
    /// The same task was there.
    Existing(Known),
    /// The same task was there, and has been removed.
    Removed(TaskId),
    /// Not taken in.
    Refused(Fault),
}

/// A task that was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Known {
    /// Which.
    pub id: TaskId,
    /// How it stands.
    pub state: State,
}

impl From<Result<store::Inserted>> for Inserted {
    fn from(inserted: Result<store::Inserted>) -> Self {
        match inserted {
            Ok(store::Inserted::New(id)) => Inserted::New(id),
            Ok(store::Inserted::Existing(id, state)) => Inserted::Existing(Known { id, state }),
            Ok(store::Inserted::Removed(id)) => Inserted::Removed(id),
            Err(error) => Inserted::Refused(error.into()),
        }
    }
}

impl From<Inserted> for Result<store::Inserted> {
    fn from(inserted: Inserted) -> Self {
        match inserted {
            Inserted::New(id) => Ok(store::Inserted::New(id)),
            Inserted::Existing(Known { id, state }) => Ok(store::Inserted::Existing(id, state)),
            Inserted::Removed(id) => Ok(store::Inserted::Removed(id)),
            Inserted::Refused(fault) => Err(fault.into()),
        }
    }
}

/// What an operator wishes of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseWish))]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Which task.
    pub id: TaskId,
    /// `start`, `cancel`, `requeue`, `retry_export`, `delete`, or `{"reschedule": {"run_at", "priority"}}`, of which what
    /// is left out stays as it is.
    pub command: Command,
}

/// Which tasks are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the query")]
pub struct TaskQuery {
    pub states: Vec<State>,
    pub queue: Option<Name>,
    pub kind: Option<Name>,
    pub labels: Vec<(Name, String)>,
    pub created_from: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub id_prefix: Option<String>,
    pub cursor: Option<u64>,
    /// At most this many; a server may give fewer, and then says where the next page begins.
    pub limit: usize,
}

impl From<store::TaskQuery> for TaskQuery {
    fn from(query: store::TaskQuery) -> Self {
        let cursor = query.cursor.map(store::Cursor::insertion);
        let store::TaskQuery { states, queue, kind, labels, created_from, created_before, id_prefix, limit, .. } =
            query;
        TaskQuery { states, queue, kind, labels, created_from, created_before, id_prefix, cursor, limit }
    }
}

impl From<TaskQuery> for store::TaskQuery {
    fn from(query: TaskQuery) -> Self {
        let cursor = query.cursor.map(store::Cursor::at);
        let TaskQuery { states, queue, kind, labels, created_from, created_before, id_prefix, limit, .. } = query;
        store::TaskQuery { states, queue, kind, labels, created_from, created_before, id_prefix, cursor, limit }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeasePage))]
pub struct Page {
    /// Newest first.
    pub tasks: Vec<Task>,
    /// Where the next page begins.
    #[serde(default)]
    pub next: Option<u64>,
}

/// How many tasks a queue has in each state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseCounts))]
pub struct QueueCounts {
    /// The queue.
    pub queue: Name,
    /// By the number of the state: held, waiting, running, exporting, succeeded, failed, cancelled.
    pub by_state: Vec<u64>,
    /// Those of the waiting whose time has not come.
    pub scheduled: u64,
}

impl From<store::QueueCounts> for QueueCounts {
    fn from(store::QueueCounts { queue, by_state, scheduled }: store::QueueCounts) -> Self {
        QueueCounts { queue, by_state: by_state.to_vec(), scheduled }
    }
}

impl TryFrom<QueueCounts> for store::QueueCounts {
    type Error = Error;

    fn try_from(QueueCounts { queue, by_state, scheduled }: QueueCounts) -> Result<Self> {
        let by_state = by_state.try_into().map_err(|_| Error::internal("the server counts other states"))?;
        Ok(store::QueueCounts { queue, by_state, scheduled })
    }
}

/// A queue and how it is operated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseQueue))]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Its name.
    pub name: Name,
    /// At most this many running at once.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// At most this many starts per time.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Nothing of it is claimed.
    #[serde(default)]
    pub paused: bool,
}

/// At most `count` starts per `period`, of which up to `burst` may come at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseRate))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the limit")]
pub struct Rate {
    pub count: u32,
    pub period: Span,
    pub burst: u32,
}

impl From<(Name, store::QueueSettings)> for Queue {
    fn from((name, settings): (Name, store::QueueSettings)) -> Self {
        let store::QueueSettings { concurrency, rate, paused } = settings;
        let rate = rate.map(|RateLimit { count, period, burst }| Rate { count, period: Span(period), burst });
        Queue { name, concurrency, rate, paused }
    }
}

impl From<Queue> for (Name, store::QueueSettings) {
    fn from(Queue { name, concurrency, rate, paused }: Queue) -> Self {
        let rate = rate.map(|Rate { count, period, burst }| RateLimit { count, period: period.0, burst });
        (name, store::QueueSettings { concurrency, rate, paused })
    }
}

/// Housekeeping is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the request")]
pub struct SweepRequest {
    pub states: Vec<State>,
    pub older_than: Option<Span>,
    pub except_label: Option<Name>,
    pub limit: usize,
    pub confirmed: Vec<String>,
}

/// What housekeeping did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sweep {
    /// How many tasks were removed.
    pub removed: u64,
    /// Keys of results to delete.
    pub garbage: Vec<String>,
}

impl From<store::SweepRequest> for SweepRequest {
    fn from(request: store::SweepRequest) -> Self {
        let older_than = request.older_than.map(Span);
        let store::SweepRequest { states, except_label, limit, confirmed, .. } = request;
        SweepRequest { states, older_than, except_label, limit, confirmed }
    }
}

impl From<SweepRequest> for store::SweepRequest {
    fn from(request: SweepRequest) -> Self {
        let older_than = request.older_than.map(|span| span.0);
        let SweepRequest { states, except_label, limit, confirmed, .. } = request;
        store::SweepRequest { states, older_than, except_label, limit, confirmed }
    }
}

/// Counters of what may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseChanges))]
#[serde(default, deny_unknown_fields)]
pub struct Changes {
    /// Tasks may have become claimable.
    pub work: u64,
    /// Cancellations were wished or reports posted.
    pub wishes: u64,
    /// A task ended.
    pub ends: u64,
}

/// A change is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ChangesRequest {
    /// What the last answer said.
    pub seen: Changes,
    /// Answers after this time at the latest, at most 60 s.
    pub wait: Span,
}

impl From<store::Changes> for Changes {
    fn from(store::Changes { work, wishes, ends }: store::Changes) -> Self {
        Changes { work, wishes, ends }
    }
}

impl From<Changes> for store::Changes {
    fn from(Changes { work, wishes, ends }: Changes) -> Self {
        store::Changes { work, wishes, ends }
    }
}

impl NewTask {
    /// The task, if it may be taken in at all.
    pub fn checked(task: &task::NewTask) -> Result<NewTask> {
        task.check()?;
        Ok(task.clone().into())
    }
}
