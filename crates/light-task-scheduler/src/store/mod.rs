//! Where tasks are kept: the [`Store`] contract and its values.
//!
//! A store keeps tasks, replicas and queue settings, and moves tasks from state to state. It holds no
//! rule of its own: it finds a record, calls [`state::step`](crate::state::step), and writes what that
//! made of it in the same atomic operation.
//!
//! A store exists when it passes the conformance suite
//! ([`testing::conformance`](crate::testing), feature `testing`), whole.

mod cached;
mod ext;
mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "remote")]
pub mod remote;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub mod sql;

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::rate::RateLimit;
use crate::state::{Command, Refusal, RunEvent};
use crate::task::{Name, NewTask, Outcome, Progress, ReplicaId, State, Task, TaskId, Token};

pub use cached::{CachedOptions, CachedStore};
pub use ext::StoreExt;
pub use memory::{MemoryOptions, MemoryStore};

/// Most items in one call of [`Store::insert`], [`Store::apply`], [`Store::command`] or [`Store::get`].
/// More is refused: a vector of this size is past the point where a larger one is faster.
pub const BATCH_MAX: usize = 10_000;
/// Most tasks in one page of [`Store::list`].
pub const PAGE_MAX: usize = 1_000;
/// How long the id of a removed task stays known, so that a late repeat of its insertion makes no second task.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Keeps tasks and moves them from state to state.
///
/// # What every method promises
///
/// - **Atomic and conditional.** Each item of a call is applied whole or not at all, against the
///   record as it is at that moment. A stale writer changes nothing.
/// - **Idempotent.** Repeating a call whose reply was lost changes nothing and answers as if it had been
///   the first one (`already`).
/// - **Run to completion.** Dropping the future of a call must leave either the old or the new state,
///   and no broken connection; callers nevertheless never drop one.
/// - **Ordered.** One answer per item, in the order of the items.
/// - **`Err`** means that the store itself failed: the caller cannot know whether the call took effect,
///   and repeats it. What is wrong with *one item* is in that item's answer.
///
/// The store's clock is the only wall clock that is compared, and it never goes back.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What this store can do beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Takes tasks in, at most [`BATCH_MAX`]. Accepted means: as durable as this store promises.
    ///
    /// The same id with the same kind and payload answers [`Inserted::Existing`] and changes nothing,
    /// also for [`TOMBSTONE_TTL`] after the task was removed ([`Inserted::Removed`]). With another kind or
    /// payload the item is refused as [`Conflict`](crate::ErrorKind::Conflict). A full store refuses the
    /// item as [`Full`](crate::ErrorKind::Full) and drops nothing.
    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>>;

    /// Takes up to `limit` due tasks for a replica, in order (priority high first, due time, insertion),
    /// within each queue's limit, rate and pause, in one atomic operation.
    ///
    /// Refused as [`NotRegistered`](crate::ErrorKind::NotRegistered) unless the replica is registered,
    /// not dead, and its heartbeat has not expired. Repeating the last claim number returns the tasks of
    /// that claim that the replica still owns and that still run, and takes none.
    ///
    /// Before that it fails the held and waiting tasks whose deadline has passed.
    ///
    /// One that [drains](Store::drain) is given nothing, and no time to ask again; but a repeated number is
    /// answered as ever, so that nothing is lost with an answer.
    ///
    /// With [`ClaimRequest::among`] only tasks named there are taken; everything else is as without it.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim>;

    /// What could be claimed next, for whoever keeps a window of it: of each lane (a queue and a kind) of the asked
    /// kinds and queues the first `per_lane` waiting tasks that are due, in the order of claims. Limits and
    /// rates are not looked at, paused queues are left out.
    ///
    /// A read: it reserves nothing, expires nothing and needs no replica. What it tells may be over at once; the claim
    /// [among](ClaimRequest::among) them checks everything again.
    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates>;

    /// Applies what owners report, at most [`BATCH_MAX`], each only with the current token.
    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>>;

    /// Applies what operators wish, at most [`BATCH_MAX`]. A priority that is wished is applied again when it is repeated;
    /// a time is `already` what was wished.
    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>>;

    /// Keeps reports pushed by executions for their owner, who gets them by heartbeat
    /// ([`HeartbeatReply::reports`]): a progress once, an outcome again and again until the run has ended.
    ///
    /// A report whose execution is not the current one of a running task is answered `false` and dropped.
    /// An outcome replaces an earlier progress; the first outcome of an execution is kept, later
    /// reports of it are answered `true` and dropped.
    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>>;

    /// Registers a replica under a fresh id; it must renew within `ttl`. Refused as
    /// [`Conflict`](crate::ErrorKind::Conflict) if the id was ever used.
    async fn register(&self, replica: NewReplica) -> Result<()>;

    /// Renews a replica and tells it what it must know.
    ///
    /// Refused as [`NotRegistered`](crate::ErrorKind::NotRegistered) if the replica is unknown or dead.
    /// One that has merely expired is renewed: nobody has declared it dead.
    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply>;

    /// Ends a replica's registration: it is dead from here on, and what it still owns can be adopted at once.
    async fn leave(&self, replica: ReplicaId) -> Result<()>;

    /// Has a replica come to its end, as an operator wishes: from here on it claims and adopts nothing, and its heartbeats
    /// tell it so ([`HeartbeatReply::drain`]). What it owns stays its own, and it reports and leaves as ever.
    ///
    /// It cannot be taken back, and repeating it changes nothing. A replica that registers under another id does not
    /// drain. Fails as [`NotFound`](crate::ErrorKind::NotFound) if the replica is unknown, dead, or has left.
    async fn drain(&self, replica: ReplicaId) -> Result<()>;

    /// The replicas that are alive, and the dead ones that still own tasks.
    async fn replicas(&self) -> Result<Vec<ReplicaStatus>>;

    /// Declares the suspects dead that still are what the rescuer saw (same `beat`, and expired or proven dead),
    /// then adopts up to `limit` tasks of the asked kinds and queues that have no living owner, oldest claim first.
    ///
    /// The rescuer must be registered and alive, as for a claim; one that [drains](Store::drain) declares nobody dead and
    /// adopts nothing. An owner counts as dead if it was
    /// declared dead, has left, or is unknown to the store.
    async fn rescue(&self, request: RescueRequest) -> Result<Rescued>;

    /// Reads tasks by id, at most [`BATCH_MAX`].
    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>>;

    /// Lists tasks, newest first, page by page. Payloads and outputs are included.
    ///
    /// A store that has no index of what is asked looks at a bounded number of tasks for a page: a page may be short,
    /// or empty, though there are more. The end is where [`Page::next`] is `None`.
    async fn list(&self, query: &TaskQuery) -> Result<Page>;

    /// How many tasks each queue has in each state.
    async fn counts(&self) -> Result<Vec<QueueCounts>>;

    /// Creates a queue or replaces its settings.
    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()>;

    /// Every queue that has settings or has ever had a task, by name.
    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>>;

    /// Housekeeping: removes ended tasks and old tombstones, and hands out the keys of stored results
    /// that nobody refers to any more. A key is handed out until it is confirmed.
    async fn sweep(&self, request: SweepRequest) -> Result<Sweep>;

    /// Waits until something may have changed since `seen`, and says what to pass next time.
    ///
    /// A hint, never needed for correctness: it may come late, twice or never. Dropping the future is harmless.
    async fn changed(&self, seen: Changes) -> Changes;
}

/// What a store can do beyond the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Claims order by priority first. Otherwise by due time and insertion only.
    pub priority: bool,
    /// What was accepted survives the end of this process.
    pub durable: bool,
    /// Several processes can use it at once.
    pub shared: bool,
    /// Replicas may be on different hosts. Then what a dead replica's host still runs ends by itself.
    pub multi_host: bool,
}

/// The answer for a task that was inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// Taken in, under this id.
    New(TaskId),
    /// The same task was there already; nothing changed.
    Existing(TaskId, State),
    /// The same task was there and has been removed since; nothing changed.
    Removed(TaskId),
}

impl Inserted {
    /// The task's id.
    pub fn id(&self) -> &TaskId {
        match self {
            Inserted::New(id) | Inserted::Existing(id, _) | Inserted::Removed(id) => id,
        }
    }
}

/// What a replica asks of [`Store::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Who asks.
    pub replica: ReplicaId,
    /// Grows by one for each new claim of this replica; the first is 1. Repeating it repeats the answer.
    pub number: u64,
    /// The kinds it can run.
    pub kinds: Vec<Name>,
    /// The queues it serves; empty: all.
    pub queues: Vec<Name>,
    /// How many slots it has free. 0 is allowed: expire what is overdue and say what is due next.
    pub limit: usize,
    /// `None`: any task. `Some`: only tasks among these, at most [`BATCH_MAX`], in any order; unknown ids
    /// and repetitions are ignored. Each is checked like any other (waiting and due, its kind and queue asked for,
    /// within limit and rate, not paused), they are taken in the order of claims, and
    /// [`Claim::next_at`] still speaks of every task of these kinds and queues: a time that has passed tells that
    /// something else is due. The store looks these tasks up and does not search for others to take.
    pub among: Option<Vec<TaskId>>,
}

impl ClaimRequest {
    /// Refuses a request that names too many tasks: every store calls this first.
    pub fn check(&self) -> Result<()> {
        check_batch(self.among.as_ref().map_or(0, Vec::len))
    }
}

/// What a window asks of [`Store::candidates`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidatesRequest {
    /// Of these kinds.
    pub kinds: Vec<Name>,
    /// Of these queues; empty: all.
    pub queues: Vec<Name>,
    /// At most this many of each pair of queue and kind, at most [`BATCH_MAX`]: more is taken as that. 0 is allowed.
    pub per_lane: usize,
}

/// The answer to [`Store::candidates`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// What may be claimed, over all lanes in the order of claims (that of [`Candidate::rank`]).
    pub tasks: Vec<Candidate>,
    /// The store's time.
    pub now: Timestamp,
}

/// A waiting task that is due, as far as its place in the order of claims goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which task.
    pub id: TaskId,
    /// Its queue.
    pub queue: Name,
    /// Its kind.
    pub kind: Name,
    /// Its priority; 0 in a store without the capability.
    pub priority: i32,
    /// Since when it may run.
    pub run_at: Timestamp,
    /// The store's number of its insertion: grows with every one.
    pub insertion: u64,
}

impl Candidate {
    /// What claims are ordered by, first to last: priority high first, due time, insertion.
    pub fn rank(&self) -> (Reverse<i32>, Timestamp, u64) {
        (Reverse(self.priority), self.run_at, self.insertion)
    }
}

/// The answer to [`Store::claim`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claim {
    /// The claimed tasks, in order; `record` is as it is after the claim.
    pub tasks: Vec<Task>,
    /// Tasks of any queue that were failed because their deadline has passed.
    pub expired: Vec<TaskId>,
    /// When to ask again even without a hint: the next task of these kinds and queues becomes due, the next
    /// deadline passes, or the next rate permit is free. It may have passed already: more tasks are due
    /// than were taken, and a limit other than `limit` does not hold them back. `None`: only a hint,
    /// a free slot or the slow poll brings news.
    pub next_at: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// One report of an owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which task.
    pub id: TaskId,
    /// The fence: only the current owner's current run may write.
    pub token: Token,
    /// What happened.
    pub event: RunEvent,
}

/// What became of one change or command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Applied; the task is now in this state. `None`: it is removed.
    Applied(Option<State>),
    /// The same change had been applied before; the task is in this state.
    Already(State),
    /// Refused; nothing changed.
    Refused(Refusal),
    /// There is no such task.
    Missing,
}

impl Answer {
    /// The state that the task is in after an applied or repeated change.
    pub fn state(self) -> Option<State> {
        match self {
            Answer::Applied(state) => state,
            Answer::Already(state) => Some(state),
            Answer::Refused(_) | Answer::Missing => None,
        }
    }
}

/// What an execution says of itself, pushed from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// What it says.
    pub said: Said,
}

/// The content of a [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// How far it has come.
    Progress(Progress),
    /// How it ended.
    Ended(Outcome),
}

/// A replica that registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplica {
    /// Fresh, never used before.
    pub id: ReplicaId,
    /// For people: host, pid and version.
    pub name: String,
    /// How long a heartbeat is good for.
    pub ttl: Duration,
    /// It reaches the store through a server: what the process of that server holds, such as a lock on a file, proves
    /// nothing of its life or death.
    pub remote: bool,
}

/// A replica's sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub replica: ReplicaId,
    /// How many tasks it holds, running and exporting, and the [`holding_hash`] of them. `None`: it cannot
    /// tell just now, because a claim or a final write is in flight.
    pub holdings: Option<Holdings>,
}

/// A digest of the tasks that a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// How many.
    pub count: u64,
    /// The XOR over all of [`holding_hash`].
    pub hash: u64,
}

impl Holdings {
    /// Adds one held task.
    pub fn add(&mut self, id: &TaskId, run: u64) {
        self.count += 1;
        self.hash ^= holding_hash(id, run);
    }
}

/// The hash of one held task: FNV-1a over the id's text and the run, the same in every store and release.
pub fn holding_hash(id: &TaskId, run: u64) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = id.with_str(|text| text.as_bytes().iter().fold(OFFSET, add));
    run.to_le_bytes().iter().fold(hash, add)
}

/// What a replica learns from its heartbeat.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeartbeatReply {
    /// The store's time.
    pub now: Timestamp,
    /// Tasks it runs whose cancellation is wished; repeated until they have ended.
    pub cancel: Vec<TaskId>,
    /// Reports pushed for running tasks it owns. A progress is handed out once per owner and run. An
    /// outcome is repeated by every heartbeat of the current owner until the run has ended (has left
    /// [`State::Running`]): a reply may be lost, or come before the run is known, and
    /// nobody asks again.
    pub reports: Vec<Report>,
    /// An operator wishes that it takes nothing more and leaves once what it owns has ended; repeated until it has left.
    pub drain: bool,
    /// On a mismatch of the holdings: every task the store says it owns, with its run.
    pub owned: Option<Vec<(TaskId, u64)>>,
    /// Counts how often the store lost acknowledged writes, as far as it knows.
    pub epoch: u64,
    /// Grows with the store's writes; backwards within an epoch means that it lost some.
    pub op_seq: u64,
}

/// A replica as the store sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaStatus {
    /// Who.
    pub id: ReplicaId,
    /// For people.
    pub name: String,
    /// How many heartbeats it has sent; a changed number is a sign of life.
    pub beat: u64,
    /// Past its lease, or its lease ends more than a ttl ahead (the store's clock was stepped).
    pub expired: bool,
    /// Proven dead without waiting: by a lock that it would hold if it lived, or because its process was one of this
    /// host and has ended.
    pub proven_dead: bool,
    /// Declared dead, or has left.
    pub dead: bool,
    /// It was told to take nothing more and to leave ([`Store::drain`]).
    pub draining: bool,
    /// When its lease ends.
    pub expires_at: Timestamp,
    /// How many tasks it owns.
    pub owned: u64,
}

/// A replica that a rescuer believes dead, as it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Who.
    pub id: ReplicaId,
    /// The beat that the rescuer saw, twice.
    pub beat: u64,
}

/// What a rescuer asks of [`Store::rescue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RescueRequest {
    /// The rescuer.
    pub replica: ReplicaId,
    /// Whom to declare dead.
    pub suspects: Vec<Suspect>,
    /// The kinds it can adopt.
    pub kinds: Vec<Name>,
    /// The queues that it may adopt from; empty: all.
    pub queues: Vec<Name>,
    /// How many tasks to adopt at most. 0 is allowed.
    pub limit: usize,
}

impl RescueRequest {
    /// Whether a task of this kind in this queue may be adopted.
    pub fn asks_for(&self, kind: &Name, queue: &Name) -> bool {
        self.kinds.contains(kind) && (self.queues.is_empty() || self.queues.contains(queue))
    }
}

/// The answer to [`Store::rescue`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rescued {
    /// The suspects that are dead now.
    pub dead: Vec<ReplicaId>,
    /// The adopted tasks; `record` is as it is after the adoption.
    pub tasks: Vec<Task>,
    /// Of these the ones of which it is known that a process of this very host has claimed them, which nobody has
    /// adopted before, and which has ended: what it started is here or nowhere. A store of one host names none.
    pub claimed_here: Vec<TaskId>,
    /// The store's time.
    pub now: Timestamp,
}

/// Which tasks to list. Every filter that is set must hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskQuery {
    /// In one of these states; empty: any.
    pub states: Vec<State>,
    /// Of this queue.
    pub queue: Option<Name>,
    /// Of this kind.
    pub kind: Option<Name>,
    /// With these labels.
    pub labels: Vec<(Name, String)>,
    /// Created at or after.
    pub created_from: Option<Timestamp>,
    /// Created before.
    pub created_before: Option<Timestamp>,
    /// Whose id begins so.
    pub id_prefix: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
    /// At most this many, at most [`PAGE_MAX`]; 0 means [`PAGE_MAX`].
    pub limit: usize,
}

/// A place in a listing. Pass back what [`Page::next`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(u64);

impl Cursor {
    /// The place behind a store's insertion number.
    pub fn at(insertion: u64) -> Self {
        Cursor(insertion)
    }

    /// The insertion number behind which this place is.
    pub fn insertion(self) -> u64 {
        self.0
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// Newest insertion first.
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Cursor>,
}

/// How many tasks a queue has in each state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// The queue.
    pub queue: Name,
    /// By the number of the state; `waiting` includes `scheduled`.
    pub by_state: [u64; State::ALL.len()],
    /// Those of the waiting whose time has not come (delayed or retrying).
    pub scheduled: u64,
}

impl QueueCounts {
    /// How many in this state.
    pub fn of(&self, state: State) -> u64 {
        self.by_state[state as usize]
    }
}

/// How a queue is operated. The default bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// At most this many running at once, over all replicas, exactly. `None`: unbounded. 0 is refused:
    /// pause the queue instead.
    pub concurrency: Option<u32>,
    /// At most this many starts per time, over all replicas.
    pub rate: Option<RateLimit>,
    /// Nothing of it is claimed.
    pub paused: bool,
}

impl QueueSettings {
    /// Refuses settings that make no sense: every store calls this first.
    pub fn check(&self) -> Result<()> {
        let mut problems = self.rate.as_ref().map(RateLimit::problems).unwrap_or_default();
        if self.concurrency == Some(0) {
            problems.push("concurrency is 0; pause the queue instead".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }
}

/// What [`Store::sweep`] is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepRequest {
    /// Remove tasks in these states …
    pub states: Vec<State>,
    /// … that ended longer ago than this. `None`: remove none.
    pub older_than: Option<Duration>,
    /// Only tasks without this label: a store's user can exempt tasks from retention.
    pub except_label: Option<Name>,
    /// At most this many.
    pub limit: usize,
    /// Result keys that were handed out before and are deleted now.
    pub confirmed: Vec<String>,
}

/// What [`Store::sweep`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sweep {
    /// How many tasks were removed.
    pub removed: u64,
    /// Keys of results to delete, then to confirm; at most `limit`.
    pub garbage: Vec<String>,
}

/// Counters of what may have changed; compare only for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// Tasks may have become claimable.
    pub work: u64,
    /// Cancellations or the drain of a replica were wished, or reports posted: an early heartbeat brings them.
    pub wishes: u64,
    /// A task ended that somebody may await.
    pub ends: u64,
}

/// The answer to a wish for a replica that is not there.
pub(crate) fn no_replica(id: ReplicaId) -> Error {
    let message = format!("there is no replica {id}: it never registered, has left, or was declared dead");
    Error::new(ErrorKind::NotFound, message)
}

/// Refuses a call with more than [`BATCH_MAX`] items: every store calls this first.
pub fn check_batch(items: usize) -> Result<()> {
    if items > BATCH_MAX {
        return Err(Error::invalid(format!("{items} items in one call, more than {BATCH_MAX}; send them in parts")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_object_safe() {
        fn _takes(_: &dyn Store) {}
    }

    #[test]
    fn holdings_do_not_depend_on_the_order() {
        let ids = ["a", "b", "ab"].map(|id| TaskId::new(id).unwrap());
        let (mut forward, mut backward) = (Holdings::default(), Holdings::default());
        ids.iter().for_each(|id| forward.add(id, 1));
        ids.iter().rev().for_each(|id| backward.add(id, 1));
        assert_eq!(forward, backward);
        assert_ne!(holding_hash(&ids[0], 1), holding_hash(&ids[0], 2));
        // Workers in other languages reckon with this.
        assert_eq!(holding_hash(&ids[0], 1), 0xdedf_9f98_2e43_402d);
    }

    #[test]
    fn queue_settings_name_all_their_problems() {
        let rate = RateLimit { count: 0, period: Duration::ZERO, burst: 0 };
        let bad = QueueSettings { concurrency: Some(0), rate: Some(rate), paused: false };
        let message = bad.check().unwrap_err().to_string();
        for word in ["rate.count", "rate.burst", "rate.period", "concurrency"] {
            assert!(message.contains(word), "{word} is missing in: {message}");
        }
    }
}
