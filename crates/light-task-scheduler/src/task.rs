//! What a task is: plain values.
//!
//! A [`Task`] has three parts: its [`TaskId`], its [`Spec`] (what was asked; it never changes) and its
//! [`Record`] (what has happened; only [`state::step`](crate::state::step) changes it).

mod id;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::RetryPolicy;

pub(crate) use id::name_constant;
pub use id::{NAME_BYTES_MAX, Name, ReplicaId, TASK_ID_BYTES_MAX, TaskId};

/// Largest payload, in bytes (1 MiB).
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest output kept in a task's row, in bytes (4 MiB).
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// Longest error text kept per attempt, in bytes (8 KiB).
pub const ERROR_BYTES_MAX: usize = 8 << 10;
/// How many unsuccessful attempts a task remembers.
pub const ATTEMPTS_MAX: usize = 20;
/// Most labels on a task.
pub const LABELS_MAX: usize = 32;
/// Longest label value, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 128;
/// Longest handle of an executor, in bytes (4 KiB).
pub const HANDLE_BYTES_MAX: usize = 4 << 10;

/// Opaque bytes, JSON by convention: what goes into a task, and what comes out. Stores never parse them.
///
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(
    /// `None` is the JSON `null`, which most functions return: it needs neither memory nor a count.
    Option<Arc<[u8]>>,
);

const NULL: &[u8] = b"null";

impl Payload {
    /// Keeps the bytes as they are.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Payload(Some(bytes.into()).filter(|bytes| **bytes != *NULL))
    }

    /// The JSON `null`.
    pub const fn null() -> Self {
        Payload(None)
    }

    /// Encodes a value as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        serde_json::to_vec(value).map(Payload::from_bytes).map_err(|e| {
            Error::invalid(format!("a {} cannot be written as JSON: {e}", std::any::type_name::<T>())).with_source(e)
        })
    }

    /// Decodes JSON.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.as_bytes()).map_err(|e| {
            Error::invalid(format!("not the JSON of a {}: {e}", std::any::type_name::<T>())).with_source(e)
        })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(NULL)
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES: usize = 64;
        let shown = &self.as_bytes()[..self.len().min(SHOWN_BYTES)];
        let more = if shown.len() < self.len() { "…" } else { "" };
        write!(f, "{}{more}", String::from_utf8_lossy(shown))
    }
}

/// A task: its id, what was asked, and what has happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Unique in its store.
    pub id: TaskId,
    /// What was asked. Never changes.
    pub spec: Spec,
    /// What has happened. Changed by [`state::step`](crate::state::step) only.
    pub record: Record,
}

impl Task {
    /// The policy in force: the task's own, else the default of one attempt.
    pub fn retry_policy(&self) -> RetryPolicy {
        self.spec.options.as_ref().and_then(|options| options.retry).unwrap_or_default()
    }

    /// How long one attempt may run, if bounded.
    pub fn timeout(&self) -> Option<Duration> {
        self.spec.options.as_ref().and_then(|options| options.timeout)
    }
}

/// What was asked of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// The operational boundary it belongs to: limits, rate, pause.
    pub queue: Name,
    /// Names the executor, and the handler, that it needs.
    pub kind: Name,
    /// Its input. Not shown when a task is printed as JSON.
    #[serde(skip)]
    pub payload: Payload,
    /// Higher runs first.
    pub priority: i32,
    /// When the store took it in.
    pub created_at: Timestamp,
    /// What most tasks do not set.
    pub options: Option<Box<Options>>,
}

impl Spec {
    /// The time at which the whole task is given up, if bounded.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.options.as_ref().and_then(|options| options.deadline)
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.options.as_ref().and_then(|options| options.labels.get(name)).map(String::as_str)
    }
}

/// What most tasks do not set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long one attempt may run. Default: for ever.
    pub timeout: Option<Duration>,
    /// When the whole task is given up, running or not. Default: never.
    pub deadline: Option<Timestamp>,
    /// Default: one attempt.
    pub retry: Option<RetryPolicy>,
    /// For finding tasks again. At most [`LABELS_MAX`].
    pub labels: BTreeMap<Name, String>,
}

/// When a new task may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// As soon as there is a slot.
    #[default]
    Now,
    /// Not before this time, by the store's clock.
    At(Timestamp),
    /// Not before this long after the store has taken it in.
    After(Duration),
    /// Not before it is started by [`Command::Start`](crate::state::Command::Start).
    Held,
}

/// A task to be taken in.
///
/// ```
/// use std::time::Duration;
/// use light_task_scheduler::{NewTask, RetryPolicy};
///
/// # fn main() -> Result<(), light_task_scheduler::Error> {
/// let task = NewTask::new("resize", &("cat.png", 640))?
///     .queue("images")?
///     .priority(5)
///     .timeout(Duration::from_secs(30))
///     .retry(RetryPolicy::attempts(3));
/// assert_eq!(task.kind.as_str(), "resize");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its id; one is made if there is none. Inserting the same id with the same kind and payload
    /// again returns the task that is there.
    pub id: Option<TaskId>,
    /// Default `default`.
    pub queue: Name,
    /// Names the executor it needs.
    pub kind: Name,
    /// Its input, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Payload,
    /// Higher runs first. Default 0.
    pub priority: i32,
    /// Default: now.
    pub start: Start,
    /// What most tasks do not set.
    pub options: Option<Box<Options>>,
}

impl NewTask {
    /// A task of `kind` whose payload is the JSON of `payload`.
    pub fn new<T: Serialize + ?Sized>(kind: &str, payload: &T) -> Result<Self> {
        Ok(NewTask::with_payload(Name::new(kind)?, Payload::json(payload)?))
    }

    /// A task of `kind` with these bytes as its payload.
    pub fn with_payload(kind: Name, payload: Payload) -> Self {
        // Every task of the default queue shares one name.
        static DEFAULT_QUEUE: LazyLock<Name> = LazyLock::new(|| name_constant("default"));
        let queue = DEFAULT_QUEUE.clone();
        NewTask { id: None, queue, kind, payload, priority: 0, start: Start::Now, options: None }
    }

    /// Sets the id.
    pub fn id(mut self, id: &str) -> Result<Self> {
        self.id = Some(TaskId::new(id)?);
        Ok(self)
    }

    /// Sets the queue.
    pub fn queue(mut self, queue: &str) -> Result<Self> {
        self.queue = Name::new(queue)?;
        Ok(self)
    }

    /// Sets the priority; higher runs first.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets when it may run.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Bounds each attempt.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options_mut().timeout = Some(timeout);
        self
    }

    /// Bounds the whole task.
    pub fn deadline(mut self, deadline: Timestamp) -> Self {
        self.options_mut().deadline = Some(deadline);
        self
    }

    /// Sets how often it is tried.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options_mut().retry = Some(retry);
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: &str, value: &str) -> Result<Self> {
        let name = Name::new(name)?;
        self.options_mut().labels.insert(name, value.to_owned());
        Ok(self)
    }

    fn options_mut(&mut self) -> &mut Options {
        self.options.get_or_insert_default()
    }

    /// Refuses what no store may take: every store calls this first.
    pub fn check(&self) -> Result<()> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            let len = self.payload.len();
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "the payload has {len} bytes, more than {PAYLOAD_BYTES_MAX}; store it elsewhere and pass a reference"
                ),
            ));
        }
        let Some(options) = &self.options else { return Ok(()) };
        let mut problems = options.retry.as_ref().map(RetryPolicy::problems).unwrap_or_default();
        if options.timeout == Some(Duration::ZERO) {
            problems.push("timeout is 0; leave it out for no timeout".to_owned());
        }
        if options.labels.len() > LABELS_MAX {
            problems.push(format!("{} labels, more than {LABELS_MAX}", options.labels.len()));
        }
        for (name, value) in &options.labels {
            if value.len() > LABEL_VALUE_BYTES_MAX {
                problems.push(format!("the label {name} has {} bytes, more than {LABEL_VALUE_BYTES_MAX}", value.len()));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }
}

/// Tells apart two tasks of one id, also after the first is gone: kept in its tombstone.
pub fn fingerprint(kind: &Name, payload: &Payload) -> [u8; 16] {
    let mut hash = Sha256::new();
    // The length separates kind from payload, so that no byte can move from one to the other.
    hash.update(u64::try_from(kind.as_str().len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(kind.as_str());
    hash.update(payload.as_bytes());
    let digest = hash.finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Waits for an explicit start.
    Held = 0,
    /// May run once `run_at` has come; delayed and retrying tasks too.
    #[default]
    Waiting = 1,
    /// Claimed by a replica.
    Running = 2,
    /// The run has succeeded and its output is being saved. Never executed again from here.
    Exporting = 3,
    /// Done; the result is readable.
    Succeeded = 4,
    /// Given up; the failure says why.
    Failed = 5,
    /// Stopped by wish.
    Cancelled = 6,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [State; 7] = [
        State::Held,
        State::Waiting,
        State::Running,
        State::Exporting,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
    ];

    /// The state with this number.
    pub fn from_number(number: u8) -> Option<State> {
        State::ALL.get(usize::from(number)).copied()
    }

    /// Whether nothing more happens without an operator.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }

    /// Whether a replica owns it.
    pub fn is_owned(self) -> bool {
        matches!(self, State::Running | State::Exporting)
    }

    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Waiting => "waiting",
            State::Running => "running",
            State::Exporting => "exporting",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        State::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let names = State::ALL.map(State::as_str).join(", ");
            Error::invalid(format!("`{text}` is not a state; the states are {names}"))
        })
    }
}

/// The fence: names one ownership of one task. A write that carries another one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Who owns the run.
    pub owner: ReplicaId,
    /// The task's run number at the claim or adoption.
    pub run: u64,
}

/// Everything about a task that changes. See [`state`](crate::state) for how.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Record {
    /// Where it stands.
    pub state: State,
    /// Cancellation was asked for while it ran: whatever the run's outcome, it ends `cancelled`.
    pub cancel_requested: bool,
    /// The executor could not confirm that the run is dead; its slot is kept until it can.
    pub stop_unconfirmed: bool,
    /// Not before this time.
    pub run_at: Timestamp,
    /// The owner of the current run, or of the last one.
    pub owner: Option<ReplicaId>,
    /// Grows by one at every claim and adoption, and is never reset: the fence.
    pub run: u64,
    /// The value of `run` at the last claim: names what that start made.
    pub execution: u64,
    /// Grows by one at every requeue.
    pub generation: u32,
    /// Starts in this generation, counted at the claim, never refunded.
    pub attempt: u32,
    /// Those of them that do not count against the retry policy.
    pub interruptions: u32,
    /// Losses since the last attempt that ended otherwise.
    pub lost_in_a_row: u32,
    /// When the last attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it came to its terminal state.
    pub finished_at: Option<Timestamp>,
    /// What few tasks have at any one time.
    pub details: Option<Box<Details>>,
}

impl Record {
    /// The current fence, or the last one.
    pub fn token(&self) -> Option<Token> {
        self.owner.map(|owner| Token { owner, run: self.run })
    }

    /// How to find the run again.
    pub fn handle(&self) -> Option<&Handle> {
        self.details.as_ref()?.handle.as_ref()
    }

    /// What the run last said of itself.
    pub fn progress(&self) -> Option<&Progress> {
        self.details.as_ref()?.progress.as_ref()
    }

    /// The output that waits to be exported.
    pub fn output(&self) -> Option<&Payload> {
        self.details.as_ref()?.output.as_ref()
    }

    /// The result of a succeeded task.
    pub fn result(&self) -> Option<&ResultRef> {
        self.details.as_ref()?.result.as_ref()
    }

    /// Why the last unsuccessful attempt ended, or the task.
    pub fn failure(&self) -> Option<&Failure> {
        self.details.as_ref()?.failure.as_ref()
    }

    /// The last [`ATTEMPTS_MAX`] attempts that ended without success, oldest first.
    pub fn attempts(&self) -> &[Attempt] {
        self.details.as_ref().map_or(&[], |details| &details.attempts)
    }
}

/// The part of a [`Record`] that few tasks have at any one time; boxed to keep a million waiting tasks small.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// How the executor finds the run again.
    pub handle: Option<Handle>,
    /// What the run last said of itself.
    pub progress: Option<Progress>,
    /// The output, from the outcome until the result is saved. Not shown in JSON.
    #[serde(skip)]
    pub output: Option<Payload>,
    /// The result of a succeeded task.
    pub result: Option<ResultRef>,
    /// Why the last unsuccessful attempt ended, or the task.
    pub failure: Option<Failure>,
    /// The last attempts that ended without success.
    pub attempts: Vec<Attempt>,
}

/// A small value by which an executor finds a started run again: container id, remote job id, directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(Arc<str>);

impl Handle {
    /// Keeps the executor's text, at most [`HANDLE_BYTES_MAX`].
    pub fn new(text: &str) -> Result<Self> {
        if text.len() > HANDLE_BYTES_MAX {
            return Err(Error::invalid(format!("a handle has {} bytes, more than {HANDLE_BYTES_MAX}", text.len())));
        }
        Ok(Handle(text.into()))
    }

    /// The executor's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if unknown.
    pub total: u64,
    /// A line for people.
    pub message: String,
}

/// Where the result of a succeeded task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultRef {
    /// In the row itself.
    Inline(#[serde(skip, default = "empty_payload")] Payload),
    /// In a [`ResultStore`](crate::results::ResultStore).
    Stored {
        /// Its key there.
        key: String,
        /// Its length, in bytes.
        len: u64,
        /// The first 16 bytes of its SHA-256, in hexadecimal.
        hash: String,
    },
}

fn empty_payload() -> Payload {
    Payload::from_bytes([])
}

/// Why an attempt, or a task, ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The handler or the command said so.
    Error,
    /// The handler panicked.
    Panic,
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The task's deadline passed.
    Deadline,
    /// The run is gone and nobody knows how it ended: its host, container or service died.
    Lost,
    /// The executor will never run this: no such program, a payload it cannot read.
    Refused,
    /// The executor had no room; the start is tried again.
    Busy,
    /// The scheduler shut down before the run ended.
    Drained,
    /// The result could not be saved.
    Export,
    /// The task cannot be read.
    Poison,
    /// Stopped by wish.
    Cancelled,
}

/// Why, in a form to decide on and in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// To decide on.
    pub kind: FailureKind,
    /// In words, at most [`ERROR_BYTES_MAX`].
    pub message: String,
    /// No retry can mend it.
    #[serde(default)]
    pub fatal: bool,
    /// Not to be retried sooner than after this.
    #[serde(default)]
    pub retry_after: Option<Duration>,
    /// The exit code, or 128 + the signal, where the run was a command.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure; the message is cut at [`ERROR_BYTES_MAX`].
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > ERROR_BYTES_MAX {
            message.truncate(message.floor_char_boundary(ERROR_BYTES_MAX - "…".len()));
            message.push('…');
        }
        Failure { kind, message, fatal: false, retry_after: None, exit_code: None }
    }
}

/// How a run ended, as the run itself or its executor tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It succeeded. The output, or `None` where the executor is to be asked for it by the handle.
    Succeeded(#[serde(skip)] Option<Payload>),
    /// It ended without success.
    Failed(Failure),
}

/// One attempt that ended without success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number in its generation, the first is 1.
    pub attempt: u32,
    /// Names what it made.
    pub execution: u64,
    /// Who ran it at its end.
    pub replica: ReplicaId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When its end was recorded.
    pub ended_at: Timestamp,
    /// Why it ended.
    pub failure: Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_task_names_all_its_problems() {
        let bad = NewTask::new("x", &0).unwrap().timeout(Duration::ZERO).retry(RetryPolicy::attempts(0));
        let message = bad.check().unwrap_err().to_string();
        assert!(message.contains("timeout") && message.contains("max_attempts"), "{message}");
        let big = NewTask::with_payload(Name::new("x").unwrap(), Payload::from_bytes(vec![0; PAYLOAD_BYTES_MAX + 1]));
        assert_eq!(big.check().unwrap_err().kind(), ErrorKind::Full);
    }

    #[test]
    fn the_fingerprint_separates_kind_from_payload() {
        let ab = fingerprint(&Name::new("a").unwrap(), &Payload::from_bytes(*b"bc"));
        let abc = fingerprint(&Name::new("ab").unwrap(), &Payload::from_bytes(*b"c"));
        assert_ne!(ab, abc);
    }

    #[test]
    fn a_null_is_the_same_however_it_was_made() {
        let made = [Payload::null(), Payload::from_bytes(*b"null"), Payload::json(&()).unwrap()];
        assert!(made.iter().all(|null| *null == made[0] && null.as_bytes() == b"null" && null.parse::<()>().is_ok()));
        assert_ne!(made[0], Payload::from_bytes([]));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let failure = Failure::new(FailureKind::Error, "é".repeat(ERROR_BYTES_MAX));
        assert!(failure.message.len() <= ERROR_BYTES_MAX && failure.message.ends_with('…'));
    }

    #[test]
    fn states_keep_their_numbers_and_names() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(State::from_number(state as u8), Some(state));
            assert_eq!(state.as_str().parse::<State>().unwrap(), state);
        }
        assert_eq!(State::from_number(7), None);
    }

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<TaskId>() <= 24);
        assert!(size_of::<Record>() <= 128, "{}", size_of::<Record>());
        assert!(size_of::<Spec>() <= 88, "{}", size_of::<Spec>());
    }
}
