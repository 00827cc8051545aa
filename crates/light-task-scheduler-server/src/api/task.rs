//! A task as it is shown, and as it is submitted.

use std::collections::BTreeMap;

use light_task_scheduler::task::Attempt;
use light_task_scheduler::{
    Failure, FailureKind, Name, NewTask, Payload, Progress, ResultRef, RetryPolicy, Start, State, Task, TaskId,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::Span;
use crate::command::shown;

/// A task to take in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "process", "payload": {"argv": ["echo", "hi"]}, "timeout": "30s"}))]
pub(crate) struct Submission {
    /// Names the executor: `process`, `docker`, `http`, or what a worker of your own runs.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) kind: String,
    /// What the executor is given; kept as it is, at most 1 MiB.
    #[serde(default = "null")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(crate) payload: Box<RawValue>,
    /// Its id; one is made if there is none. The same id with the same kind and payload answers the task that is there.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// Default `default`.
    #[serde(default)]
    pub(crate) queue: Option<String>,
    /// Higher runs first. Default 0.
    #[serde(default)]
    pub(crate) priority: i32,
    /// How long one attempt may run: `90s`, `1h30m` or `PT90S`. Default: that of the queue, else for ever.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) timeout: Option<Span>,
    /// When the whole task is given up, running or not.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) deadline: Option<Timestamp>,
    /// How often it is tried. Default: that of the queue, else once.
    #[serde(default)]
    pub(crate) retry: Option<Retry>,
    /// For finding tasks again.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Not before it is started by `POST …/start`.
    #[serde(default)]
    pub(crate) held: bool,
    /// Not before this time.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) run_at: Option<Timestamp>,
    /// Not before so long from now.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) delay: Option<Span>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// How often a task is tried, and what is waited in between: a random time up to a bound that grows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Attempts in all, the first included.
    #[schema(minimum = 1)]
    pub(crate) max_attempts: u32,
    /// The bound of the first wait. Default `1s`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) min_delay: Option<Span>,
    /// The largest bound. Default `10m`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) max_delay: Option<Span>,
    /// What the bound is multiplied by after each attempt. Default 2.
    #[serde(default)]
    pub(crate) factor: Option<f64>,
}

impl From<Retry> for RetryPolicy {
    fn from(retry: Retry) -> Self {
        let default = RetryPolicy::default();
        RetryPolicy {
            max_attempts: retry.max_attempts,
            min_delay: retry.min_delay.map_or(default.min_delay, |span| span.0),
            max_delay: retry.max_delay.map_or(default.max_delay, |span| span.0),
            factor: retry.factor.unwrap_or(default.factor),
        }
    }
}

impl From<RetryPolicy> for Retry {
    fn from(policy: RetryPolicy) -> Self {
        Retry {
            max_attempts: policy.max_attempts,
            min_delay: Some(Span(policy.min_delay)),
            max_delay: Some(Span(policy.max_delay)),
            factor: Some(policy.factor),
        }
    }
}

impl Submission {
    /// The task that is asked for; or in words what is wrong.
    pub(crate) fn task(self) -> Result<NewTask, String> {
        let in_words = |error: light_task_scheduler::Error| error.to_string();
        let kind = Name::new(&self.kind).map_err(in_words)?;
        let payload = Payload::from_bytes(self.payload.get().as_bytes().to_vec());
        let mut task = NewTask::with_payload(kind, payload).priority(self.priority).start(self.start()?);
        if let Some(id) = &self.id {
            task.id = Some(TaskId::new(id).map_err(in_words)?);
        }
        if let Some(queue) = &self.queue {
            task = task.queue(queue).map_err(in_words)?;
        }
        if let Some(timeout) = self.timeout {
            task = task.timeout(timeout.0);
        }
        if let Some(deadline) = self.deadline {
            task = task.deadline(deadline);
        }
        if let Some(retry) = self.retry {
            task = task.retry(retry.into());
        }
        for (name, value) in &self.labels {
            task = task.label(name, value).map_err(in_words)?;
        }
        task.check().map_err(in_words)?;
        Ok(task)
    }

    fn start(&self) -> Result<Start, String> {
        match (self.held, self.run_at, self.delay) {
            (false, None, None) => Ok(Start::Now),
            (true, None, None) => Ok(Start::Held),
            (false, Some(at), None) => Ok(Start::At(at)),
            (false, None, Some(delay)) => Ok(Start::After(delay.0)),
            _ => Err("only one of held, run_at and delay can be given".to_owned()),
        }
    }
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskView {
    /// Unique in its store.
    #[schema(value_type = String)]
    id: TaskId,
    /// Names the executor.
    #[schema(value_type = String)]
    kind: Name,
    /// The operational boundary it belongs to.
    #[schema(value_type = String)]
    queue: Name,
    /// Where it stands: held, waiting, running, exporting, succeeded, failed or cancelled.
    #[schema(value_type = StateName)]
    state: State,
    /// The same for people: also scheduled, retrying, cancelling.
    phase: &'static str,
    /// Higher runs first.
    priority: i32,
    /// Its payload, as one would type it where it is a command.
    #[serde(skip_serializing_if = "String::is_empty")]
    summary: String,
    /// When it was taken in.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Not before this time.
    #[schema(value_type = String, format = DateTime)]
    run_at: Timestamp,
    /// When the last attempt began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Attempts so far, since it was last requeued.
    attempt: u32,
    /// Attempts that do not count: its host or its scheduler was lost.
    interruptions: u32,
    /// How often it is tried.
    retry: Retry,
    /// How long one attempt may run.
    #[schema(value_type = Option<String>)]
    timeout: Option<Span>,
    /// When it is given up.
    #[schema(value_type = Option<String>, format = DateTime)]
    deadline: Option<Timestamp>,
    /// For finding tasks again.
    labels: BTreeMap<String, String>,
    /// How far the run has come.
    progress: Option<ProgressView>,
    /// Why the last attempt ended, or the task.
    failure: Option<FailureView>,
    /// Somebody wants it stopped.
    cancel_requested: bool,
    /// It could not be confirmed dead; its slot is kept until it can.
    stop_unconfirmed: bool,
    /// Who runs it, or ran it last.
    #[schema(value_type = Option<String>)]
    worker: Option<String>,
    /// Grows with each start: names its logs.
    execution: u64,
    /// Grows with each requeue.
    generation: u32,
    /// How long its payload is, in bytes.
    payload_bytes: usize,
    /// Its payload; left out in lists. `null` where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// Its result, where it is short and JSON; left out in lists. See `GET …/result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    /// Where its result is.
    result_bytes: Option<u64>,
}

/// The names of the states.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `State`, which is the library's")]
pub(crate) enum StateName {
    /// Waits for an explicit start.
    Held,
    /// May run once its time has come.
    Waiting,
    /// Claimed by a worker.
    Running,
    /// The run has succeeded and its output is being saved.
    Exporting,
    /// Done.
    Succeeded,
    /// Given up.
    Failed,
    /// Stopped by wish.
    Cancelled,
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ProgressView {
    /// Units done.
    done: u64,
    /// Units in all; 0 if unknown.
    total: u64,
    /// A line for people.
    message: String,
}

/// Why an attempt ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct FailureView {
    /// To decide on: error, panic, timeout, deadline, lost, refused, busy, drained, export, poison, cancelled.
    #[schema(value_type = String)]
    kind: FailureKind,
    /// In words.
    message: String,
    /// No retry can mend it.
    fatal: bool,
    /// The exit code, or 128 + the signal.
    exit_code: Option<i32>,
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttemptView {
    /// Its number since the task was last requeued; the first is 1.
    attempt: u32,
    /// Names its logs.
    execution: u64,
    /// Who ran it.
    worker: Option<String>,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When its end was recorded; none: it runs.
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// How it ended: `succeeded`, `running`, or the kind of its failure.
    outcome: String,
    /// Why it ended.
    failure: Option<FailureView>,
}

/// Longest result that is shown within its task, in bytes: 64 KiB.
const RESULT_SHOWN_BYTES_MAX: usize = 64 << 10;

impl TaskView {
    /// For a list: without payload and result.
    pub(crate) fn brief(task: &Task, now: Timestamp) -> Self {
        let (spec, record) = (&task.spec, &task.record);
        let options = spec.options.as_deref();
        let labels = options.map(|options| &options.labels).into_iter().flatten();
        TaskView {
            id: task.id.clone(),
            kind: spec.kind.clone(),
            queue: spec.queue.clone(),
            state: record.state,
            phase: phase(task, now),
            priority: spec.priority,
            summary: shown(task),
            created_at: spec.created_at,
            run_at: record.run_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            attempt: record.attempt,
            interruptions: record.interruptions,
            retry: task.retry_policy().into(),
            timeout: task.timeout().map(Span),
            deadline: spec.deadline(),
            labels: labels.map(|(name, value)| (name.to_string(), value.clone())).collect(),
            progress: record.progress().map(ProgressView::from),
            failure: record.failure().map(FailureView::from),
            cancel_requested: record.cancel_requested,
            stop_unconfirmed: record.stop_unconfirmed,
            worker: record.owner.map(|owner| owner.to_string()),
            execution: record.execution,
            generation: record.generation,
            payload_bytes: spec.payload.len(),
            payload: None,
            result: None,
            result_bytes: record.result().map(|result| match result {
                ResultRef::Inline(output) => output.len() as u64,
                ResultRef::Stored { len, .. } => *len,
            }),
        }
    }

    /// With payload and result.
    pub(crate) fn whole(task: &Task, now: Timestamp) -> Self {
        let inline = match task.record.result() {
            Some(ResultRef::Inline(output)) if output.len() <= RESULT_SHOWN_BYTES_MAX => raw(output),
            _ => None,
        };
        TaskView { payload: raw(&task.spec.payload), result: inline, ..TaskView::brief(task, now) }
    }
}

/// The bytes as they are, if they are JSON: numbers of any size stay what they are.
pub(crate) fn raw(payload: &Payload) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(payload.as_bytes()).ok()?;
    RawValue::from_string(text.to_owned()).ok()
}

/// A state for people.
pub(crate) fn phase(task: &Task, now: Timestamp) -> &'static str {
    let record = &task.record;
    match record.state {
        State::Running if record.cancel_requested => "cancelling",
        State::Waiting if record.attempt > 0 => "retrying",
        State::Waiting if record.run_at > now => "scheduled",
        state => state.as_str(),
    }
}

/// The attempts of a task since it was last requeued, oldest first: those that failed, and the current or last one.
pub(crate) fn attempts(task: &Task) -> Vec<AttemptView> {
    let record = &task.record;
    let mut views: Vec<AttemptView> = record.attempts().iter().map(AttemptView::from).collect();
    let recorded = record.attempts().last().is_some_and(|last| last.execution == record.execution);
    if record.execution > 0 && !recorded && record.state != State::Waiting {
        views.push(AttemptView {
            attempt: record.attempt,
            execution: record.execution,
            worker: record.owner.map(|owner| owner.to_string()),
            started_at: record.started_at,
            ended_at: record.finished_at,
            outcome: record.state.to_string(),
            failure: record.failure().filter(|_| record.state == State::Failed).map(FailureView::from),
        });
    }
    views
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        let Progress { done, total, message } = progress;
        ProgressView { done: *done, total: *total, message: message.clone() }
    }
}

impl From<&Failure> for FailureView {
    fn from(failure: &Failure) -> Self {
        FailureView {
            kind: failure.kind,
            message: failure.message.clone(),
            fatal: failure.fatal,
            exit_code: failure.exit_code,
        }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        let outcome = serde_json::to_value(attempt.failure.kind).ok();
        AttemptView {
            attempt: attempt.attempt,
            execution: attempt.execution,
            worker: Some(attempt.replica.to_string()),
            started_at: Some(attempt.started_at),
            ended_at: Some(attempt.ended_at),
            outcome: outcome.and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default(),
            failure: Some(FailureView::from(&attempt.failure)),
        }
    }
}
