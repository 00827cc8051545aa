//! Tasks, and what runs say of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::retry;
use crate::state;
use crate::store;
use crate::task::{self, FailureKind, Handle, Name, Payload, Progress, ReplicaId, State, TaskId};

/// Opaque bytes: `{"json": …}` where they are JSON, exactly as it stands there, else `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bytes(pub Payload);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_bytes();
        match serde_json::from_slice::<&RawValue>(bytes) {
            // White space around it would not come back.
            Ok(json) if json.get().len() == bytes.len() => {
                serializer.serialize_newtype_variant("Bytes", 0, "json", json)
            }
            _ => serializer.serialize_newtype_variant("Bytes", 1, "base64", &BASE64.encode(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Encoded {
            Json(Box<RawValue>),
            Base64(String),
        }
        match Encoded::deserialize(deserializer)? {
            Encoded::Json(json) => Ok(Bytes(Payload::from_bytes(json.get().as_bytes()))),
            Encoded::Base64(text) => {
                BASE64.decode(text).map(|bytes| Bytes(Payload::from_bytes(bytes))).map_err(D::Error::custom)
            }
        }
    }
}

/// A duration in seconds: `PT90S` or `1.5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, nanos) = (self.0.as_secs(), format!("{:09}", self.0.subsec_nanos()));
        match nanos.trim_end_matches('0') {
            "" => serializer.collect_str(&format_args!("PT{seconds}S")),
            fraction => serializer.collect_str(&format_args!("PT{seconds}.{fraction}S")),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NANOS_DIGITS: usize = 9;
        let text = String::deserialize(deserializer)?;
        let read = || {
            let number = text.strip_prefix("PT").unwrap_or(&text).strip_suffix(['S', 's'])?;
            let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
            if fraction.len() > NANOS_DIGITS || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            let nanos = format!("{fraction:0<NANOS_DIGITS$}").parse().ok()?;
            Some(Span(Duration::new(seconds.parse().ok()?, nanos)))
        };
        read().ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration in seconds such as PT90S or 1.5s")))
    }
}

/// How often a task is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseRetry))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the policy")]
pub struct Retry {
    pub max_attempts: u32,
    pub min_delay: Span,
    pub max_delay: Span,
    pub factor: f64,
}

/// What most tasks do not set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseOptions))]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long one attempt may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// When the whole task is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// How often it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// For finding it again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Name, String>,
}

impl From<task::Options> for Options {
    fn from(options: task::Options) -> Self {
        let retry = options.retry.map(|retry| Retry {
            max_attempts: retry.max_attempts,
            min_delay: Span(retry.min_delay),
            max_delay: Span(retry.max_delay),
            factor: retry.factor,
        });
        let task::Options { timeout, deadline, labels, .. } = options;
        Options { timeout: timeout.map(Span), deadline, retry, labels }
    }
}

impl From<Options> for task::Options {
    fn from(options: Options) -> Self {
        let retry = options.retry.map(|retry| retry::RetryPolicy {
            max_attempts: retry.max_attempts,
            min_delay: retry.min_delay.0,
            max_delay: retry.max_delay.0,
            factor: retry.factor,
        });
        let Options { timeout, deadline, labels, .. } = options;
        task::Options { timeout: timeout.map(|span| span.0), deadline, retry, labels }
    }
}

/// A task to be taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the field of that name of the task")]
pub struct NewTask {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    pub queue: Name,
    pub kind: Name,
    pub payload: Bytes,
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub start: Start,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
}

/// When a new task may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// As soon as there is a slot.
    #[default]
    Now,
    /// Not before this time.
    At(Timestamp),
    /// Not before this long after it was taken in.
    After(Span),
    /// Not before it is started.
    Held,
}

impl From<task::NewTask> for NewTask {
    fn from(task: task::NewTask) -> Self {
        let start = match task.start {
            task::Start::Now => Start::Now,
            task::Start::At(at) => Start::At(at),
            task::Start::After(delay) => Start::After(Span(delay)),
            task::Start::Held => Start::Held,
        };
        let options = task.options.map(|options| (*options).into());
        let task::NewTask { id, queue, kind, payload, priority, .. } = task;
        NewTask { id, queue, kind, payload: Bytes(payload), priority, start, options }
    }
}

impl From<NewTask> for task::NewTask {
    fn from(task: NewTask) -> Self {
        let start = match task.start {
            Start::Now => task::Start::Now,
            Start::At(at) => task::Start::At(at),
            Start::After(delay) => task::Start::After(delay.0),
            Start::Held => task::Start::Held,
        };
        let options = task.options.map(|options| Box::new(options.into()));
        let NewTask { id, queue, kind, payload, priority, .. } = task;
        task::NewTask { id, queue, kind, payload: payload.0, priority, start, options }
    }
}

/// Why an attempt, or a task, ended without success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseFailure))]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// To decide on: `error`, `panic`, `timeout`, `deadline`, `lost`, `refused`, `busy`, `drained`, `export`, `poison`
    /// or `cancelled`.
    #[serde(default = "error")]
    pub kind: FailureKind,
    /// In words.
    pub message: String,
    /// No retry can mend it.
    #[serde(default)]
    pub fatal: bool,
    /// Not to be retried sooner than after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
    /// The exit code, where it was a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

fn error() -> FailureKind {
    FailureKind::Error
}

impl From<task::Failure> for Failure {
    fn from(failure: task::Failure) -> Self {
        let task::Failure { kind, message, fatal, retry_after, exit_code } = failure;
        Failure { kind, message, fatal, retry_after: retry_after.map(Span), exit_code }
    }
}

impl From<Failure> for task::Failure {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, fatal, retry_after, exit_code } = failure;
        let retry_after = retry_after.map(|span| span.0);
        // Whoever sent it may not have cut it.
        task::Failure { fatal, retry_after, exit_code, ..task::Failure::new(kind, message) }
    }
}

/// Where the result of a succeeded task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResultRef {
    /// In the task itself.
    Inline(Bytes),
    /// In a result store that the worker and the server share.
    Stored {
        /// Its key there.
        key: String,
        /// Its length, in bytes.
        len: u64,
        /// The first 16 bytes of its SHA-256, in hexadecimal.
        hash: String,
    },
}

impl From<task::ResultRef> for ResultRef {
    fn from(result: task::ResultRef) -> Self {
        match result {
            task::ResultRef::Inline(bytes) => ResultRef::Inline(Bytes(bytes)),
            task::ResultRef::Stored { key, len, hash } => ResultRef::Stored { key, len, hash },
        }
    }
}

impl From<ResultRef> for task::ResultRef {
    fn from(result: ResultRef) -> Self {
        match result {
            ResultRef::Inline(bytes) => task::ResultRef::Inline(bytes.0),
            ResultRef::Stored { key, len, hash } => task::ResultRef::Stored { key, len, hash },
        }
    }
}

/// One attempt that ended without success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseAttempt))]
#[allow(missing_docs, reason = "each is the field of that name of the attempt")]
pub struct Attempt {
    pub attempt: u32,
    pub execution: u64,
    pub replica: ReplicaId,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub failure: Failure,
}

/// What few tasks have at any one time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseDetails))]
#[serde(default)]
pub struct Details {
    /// How the executor finds the run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// What the run last said of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The output that waits to be saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Bytes>,
    /// The result of a succeeded task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultRef>,
    /// Why the last unsuccessful attempt ended, or the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The last attempts that ended without success.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// A task as it is kept: what was asked, and what has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseTask))]
#[allow(missing_docs, reason = "each is the field of that name of the task")]
pub struct Task {
    pub id: TaskId,
    pub queue: Name,
    pub kind: Name,
    pub payload: Bytes,
    pub priority: i32,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    pub state: State,
    #[serde(default)]
    pub cancel_requested: bool,
    #[serde(default)]
    pub stop_unconfirmed: bool,
    pub run_at: Timestamp,
    #[serde(default)]
    pub owner: Option<ReplicaId>,
    pub run: u64,
    pub execution: u64,
    pub generation: u32,
    pub attempt: u32,
    pub interruptions: u32,
    pub lost_in_a_row: u32,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

impl From<task::Task> for Task {
    fn from(task::Task { id, spec, record }: task::Task) -> Self {
        Task {
            id,
            queue: spec.queue,
            kind: spec.kind,
            payload: Bytes(spec.payload),
            priority: spec.priority,
            created_at: spec.created_at,
            options: spec.options.map(|options| (*options).into()),
            state: record.state,
            cancel_requested: record.cancel_requested,
            stop_unconfirmed: record.stop_unconfirmed,
            run_at: record.run_at,
            owner: record.owner,
            run: record.run,
            execution: record.execution,
            generation: record.generation,
            attempt: record.attempt,
            interruptions: record.interruptions,
            lost_in_a_row: record.lost_in_a_row,
            started_at: record.started_at,
            finished_at: record.finished_at,
            details: record.details.map(|details| (*details).into()),
        }
    }
}

impl TryFrom<Task> for task::Task {
    type Error = crate::Error;

    fn try_from(task: Task) -> crate::Result<Self> {
        let spec = task::Spec {
            queue: task.queue,
            kind: task.kind,
            payload: task.payload.0,
            priority: task.priority,
            created_at: task.created_at,
            options: task.options.map(|options| Box::new(options.into())),
        };
        let record = task::Record {
            state: task.state,
            cancel_requested: task.cancel_requested,
            stop_unconfirmed: task.stop_unconfirmed,
            run_at: task.run_at,
            owner: task.owner,
            run: task.run,
            execution: task.execution,
            generation: task.generation,
            attempt: task.attempt,
            interruptions: task.interruptions,
            lost_in_a_row: task.lost_in_a_row,
            started_at: task.started_at,
            finished_at: task.finished_at,
            details: task.details.map(|details| details.try_into().map(Box::new)).transpose()?,
        };
        Ok(task::Task { id: task.id, spec, record })
    }
}

impl From<task::Details> for Details {
    fn from(details: task::Details) -> Self {
        let attempt = |attempt: task::Attempt| {
            let task::Attempt { attempt, execution, replica, started_at, ended_at, failure } = attempt;
            Attempt { attempt, execution, replica, started_at, ended_at, failure: failure.into() }
        };
        Details {
            handle: details.handle.map(|handle| handle.as_str().to_owned()),
            progress: details.progress,
            output: details.output.map(Bytes),
            result: details.result.map(Into::into),
            failure: details.failure.map(Into::into),
            attempts: details.attempts.into_iter().map(attempt).collect(),
        }
    }
}

impl TryFrom<Details> for task::Details {
    type Error = crate::Error;

    fn try_from(details: Details) -> crate::Result<Self> {
        let attempt = |attempt: Attempt| {
            let Attempt { attempt, execution, replica, started_at, ended_at, failure } = attempt;
            task::Attempt { attempt, execution, replica, started_at, ended_at, failure: failure.into() }
        };
        Ok(task::Details {
            handle: details.handle.map(|text| Handle::new(&text)).transpose()?,
            progress: details.progress,
            output: details.output.map(|bytes| bytes.0),
            result: details.result.map(Into::into),
            failure: details.failure.map(Into::into),
            attempts: details.attempts.into_iter().map(attempt).collect(),
        })
    }
}

/// What the owner of a run reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It has begun; the handle finds it again.
    Started(Option<String>),
    /// How far it has come.
    Progress(Progress),
    /// It could not be confirmed dead.
    StopUnconfirmed,
    /// It has succeeded; the output is to be saved. None: whoever has the handle can read it.
    Outcome(Option<Bytes>),
    /// It has succeeded and its result is readable.
    Complete(ResultRef),
    /// Try again at that time, charged.
    Retry(Again),
    /// It was interrupted; try again at that time, not charged.
    Release(Again),
    /// It has failed for good.
    Fail(Failure),
    /// It was cancelled by wish and is dead.
    Cancelled,
}

/// When to try again, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// Not before this time.
    pub at: Timestamp,
    /// Why it ended.
    pub failure: Failure,
}

impl From<state::RunEvent> for Event {
    fn from(event: state::RunEvent) -> Self {
        use state::RunEvent;
        match event {
            RunEvent::Started(handle) => Event::Started(handle.map(|handle| handle.as_str().to_owned())),
            RunEvent::Progress(progress) => Event::Progress(progress),
            RunEvent::StopUnconfirmed => Event::StopUnconfirmed,
            RunEvent::Outcome(output) => Event::Outcome(output.map(Bytes)),
            RunEvent::Complete(result) => Event::Complete(result.into()),
            RunEvent::Retry(at, failure) => Event::Retry(Again { at, failure: failure.into() }),
            RunEvent::Release(at, failure) => Event::Release(Again { at, failure: failure.into() }),
            RunEvent::Fail(failure) => Event::Fail(failure.into()),
            RunEvent::Cancelled => Event::Cancelled,
        }
    }
}

impl TryFrom<Event> for state::RunEvent {
    type Error = crate::Error;

    fn try_from(event: Event) -> crate::Result<Self> {
        use state::RunEvent;
        Ok(match event {
            Event::Started(handle) => RunEvent::Started(handle.map(|text| Handle::new(&text)).transpose()?),
            Event::Progress(progress) => RunEvent::Progress(progress),
            Event::StopUnconfirmed => RunEvent::StopUnconfirmed,
            Event::Outcome(output) => RunEvent::Outcome(output.map(|bytes| bytes.0)),
            Event::Complete(result) => RunEvent::Complete(result.into()),
            Event::Retry(Again { at, failure }) => RunEvent::Retry(at, failure.into()),
            Event::Release(Again { at, failure }) => RunEvent::Release(at, failure.into()),
            Event::Fail(failure) => RunEvent::Fail(failure.into()),
            Event::Cancelled => RunEvent::Cancelled,
        })
    }
}

/// What an execution says of itself, pushed from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = LeaseReport))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Which task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// What it says.
    pub said: Said,
}

/// The content of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// How far it has come.
    Progress(Progress),
    /// It has succeeded with this output; none: whoever has the handle can read it.
    Succeeded(Option<Bytes>),
    /// It ended without success.
    Failed(Failure),
}

impl From<store::Report> for Report {
    fn from(store::Report { id, execution, said }: store::Report) -> Self {
        let said = match said {
            store::Said::Progress(progress) => Said::Progress(progress),
            store::Said::Ended(task::Outcome::Succeeded(output)) => Said::Succeeded(output.map(Bytes)),
            store::Said::Ended(task::Outcome::Failed(failure)) => Said::Failed(failure.into()),
        };
        Report { id, execution, said }
    }
}

impl From<Report> for store::Report {
    fn from(Report { id, execution, said }: Report) -> Self {
        let said = match said {
            Said::Progress(progress) => store::Said::Progress(progress),
            Said::Succeeded(output) => store::Said::Ended(task::Outcome::Succeeded(output.map(|bytes| bytes.0))),
            Said::Failed(failure) => store::Said::Ended(task::Outcome::Failed(failure.into())),
        };
        store::Report { id, execution, said }
    }
}
