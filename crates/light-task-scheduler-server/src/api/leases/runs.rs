//! What runs report: their beginning, their progress, their end, and what they write.
//!
//! [`apply`] takes whatever a scheduler has decided. The others are for workers that leave the decision to this server:
//! whether a failure is tried again, and when.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use light_task_scheduler::results::remote::{LogAnswer, LogPart, LogPiece, LogRequest, LogsOf};
use light_task_scheduler::results::{LOG_CHUNK_BYTES_MAX, LogKey};
use light_task_scheduler::retry::{Verdict, decide};
use light_task_scheduler::state::RunEvent;
use light_task_scheduler::store::remote::wire;
use light_task_scheduler::store::{Answer, Change};
use light_task_scheduler::task::{OUTPUT_BYTES_MAX, Token};
use light_task_scheduler::{
    Clock, Error, ErrorKind, Failure, FailureKind, Payload, Progress, ReplicaId, ResultRef, SystemClock, Task, TaskId,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{sent, told};
use crate::api::Api;
use crate::api::access::{Caller, Role};
use crate::api::body::Body;
use crate::api::problem::{Code, Problem, Result};

impl Api {
    /// Applies changes to the tasks that the caller may touch.
    async fn apply(&self, caller: &Caller, changes: Vec<Change>) -> Result<Json<Vec<wire::Answer>>> {
        let work = async |changes| Ok(self.store().apply(changes).await?);
        let answers = self.each_within_reach(caller, changes, |change| &change.id, Answer::Missing, work).await?;
        Ok(Json(sent(answers)))
    }
}

/// Applies what owners report, each item only under its lease.
///
/// An event is `{"started": handle}`, `{"progress": …}`,
/// `"stop_unconfirmed"`, `{"outcome": output}`, `{"complete": result}`, `{"retry": …}`, `{"release": …}`,
/// `{"fail": …}` or `"cancelled"`. Several for one task are applied in their order.
#[utoipa::path(post, path = "/api/v1/leases/apply", tag = "leases", operation_id = "lease_apply",
    request_body = Vec<wire::Change>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    Body(changes): Body<Vec<wire::Change>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let changes = told(changes.into_iter().map(TryInto::try_into).collect())?;
    Ok(api.apply(&caller, changes).await?)
}

/// A run that has succeeded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Completion {
    /// Which task.
    id: TaskId,
    /// Who owns it.
    owner: ReplicaId,
    /// The task's run number.
    run: u64,
    /// Its result, at most 4 MiB; none: `null`.
    #[serde(default)]
    result: Option<wire::Bytes>,
}

/// Ends runs that have succeeded, each under its lease; the result is kept with the task.
#[utoipa::path(post, path = "/api/v1/leases/complete", tag = "leases", operation_id = "lease_complete",
    request_body = Vec<Completion>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn complete(
    State(api): State<Api>,
    caller: Caller,
    Body(items): Body<Vec<Completion>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let mut changes = Vec::with_capacity(items.len());
    for (index, Completion { id, owner, run, result }) in items.into_iter().enumerate() {
        let result = result.map_or_else(Payload::null, |bytes| bytes.0);
        if result.len() > OUTPUT_BYTES_MAX {
            let what =
                format!("/{index}/result has {} bytes, more than {OUTPUT_BYTES_MAX}; nothing was done", result.len());
            return Err(Problem::new(Code::TooLarge, what).into());
        }
        changes.push(Change { id, token: Token { owner, run }, event: RunEvent::Complete(ResultRef::Inline(result)) });
    }
    Ok(api.apply(&caller, changes).await?)
}

/// A run that ended without success.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    /// Which task.
    id: TaskId,
    /// Who owns it.
    owner: ReplicaId,
    /// The task's run number.
    run: u64,
    /// Why.
    failure: wire::Failure,
}

/// Ends runs without success, each under its lease.
///
/// By the retry policy of each task, it is tried again, or has failed:
/// `state` of the answer says which.
#[utoipa::path(post, path = "/api/v1/leases/fail", tag = "leases", operation_id = "lease_fail",
    request_body = Vec<Failed>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn fail(
    State(api): State<Api>,
    caller: Caller,
    Body(items): Body<Vec<Failed>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let ids: Vec<TaskId> = items.iter().map(|item| item.id.clone()).collect();
    let tasks = told(api.store().get(&ids).await)?;
    let change = |(Failed { id, owner, run, failure }, task): (Failed, Option<Task>)| {
        let token = Token { owner, run };
        let event = match task {
            Some(task) if task.record.token() == Some(token) => decided(&api, &task, failure.into()),
            // Whatever is said of it: it is refused.
            _ => RunEvent::Fail(failure.into()),
        };
        Change { id, token, event }
    };
    let changes = items.into_iter().zip(tasks).map(change).collect();
    Ok(api.apply(&caller, changes).await?)
}

/// What becomes of a run that ended so.
fn decided(api: &Api, task: &Task, failure: Failure) -> RunEvent {
    use light_task_scheduler::State;
    match task.record.state {
        // It has been decided: this is a repetition.
        State::Waiting => return RunEvent::Retry(task.record.run_at, failure),
        State::Running => {}
        _ => return RunEvent::Fail(failure),
    }
    let chance = f64::from(u32::try_from(SystemClock.random() >> u32::BITS).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0);
    match decide(&task.retry_policy(), &task.record, task.spec.deadline(), &failure, api.now(), chance) {
        Verdict::Retry(at) => RunEvent::Retry(at, failure),
        Verdict::Release(at) => RunEvent::Release(at, failure),
        Verdict::Fail => RunEvent::Fail(failure),
    }
}

/// How far a run has come.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progressed {
    /// Which task.
    id: TaskId,
    /// Who owns it.
    owner: ReplicaId,
    /// The task's run number.
    run: u64,
    /// How far.
    progress: Progress,
}

/// Notes how far runs have come, each under its lease.
#[utoipa::path(post, path = "/api/v1/leases/progress", tag = "leases", operation_id = "lease_progress",
    request_body = Vec<Progressed>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn progress(
    State(api): State<Api>,
    caller: Caller,
    Body(items): Body<Vec<Progressed>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let change = |Progressed { id, owner, run, progress }| Change {
        id,
        token: Token { owner, run },
        event: RunEvent::Progress(progress),
    };
    Ok(api.apply(&caller, items.into_iter().map(change).collect()).await?)
}

/// A run that is given back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Released {
    /// Which task.
    id: TaskId,
    /// Who owns it.
    owner: ReplicaId,
    /// The task's run number.
    run: u64,
    /// Not to be started again sooner than after this.
    #[serde(default)]
    after: wire::Span,
    /// Why.
    #[serde(default)]
    message: String,
}

/// Gives tasks back, each under its lease, for somebody else to run.
///
/// It is an interruption, not charged to the task. The run must have ended.
#[utoipa::path(post, path = "/api/v1/leases/release", tag = "leases", operation_id = "lease_release",
    request_body = Vec<Released>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn release(
    State(api): State<Api>,
    caller: Caller,
    Body(items): Body<Vec<Released>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let now = api.now();
    let change = |Released { id, owner, run, after, message }| {
        // Beyond this nobody waits.
        const AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);
        let event = RunEvent::Release(now + after.0.min(AFTER_MAX), Failure::new(FailureKind::Drained, message));
        Change { id, token: Token { owner, run }, event }
    };
    Ok(api.apply(&caller, items.into_iter().map(change).collect()).await?)
}

/// Keeps what executions say of themselves for their owner, whose heartbeat brings it.
///
/// `false`: not the current
/// execution of a running task.
#[utoipa::path(post, path = "/api/v1/leases/reports", tag = "leases", operation_id = "lease_report",
    request_body = Vec<wire::Report>,
    responses(
        (status = 200, body = Vec<bool>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn report(
    State(api): State<Api>,
    caller: Caller,
    Body(reports): Body<Vec<wire::Report>>,
) -> Result<Json<Vec<bool>>, Response> {
    let work = async |reports: Vec<wire::Report>| Ok(api.store().post_reports(sent(reports)).await?);
    Ok(Json(api.each_within_reach(&caller, reports, |report| &report.id, false, work).await?))
}

impl Api {
    /// Why a worker may not write to this log: it is of no run that there was in its queues.
    fn log_refusal(&self, caller: &Caller, task: Option<&Task>, piece: &LogPiece) -> Option<Error> {
        if caller.role != Role::Worker {
            return None;
        }
        match task {
            Some(task) if caller.may_use(&task.spec.queue) && piece.execution <= task.record.execution => None,
            Some(task) if caller.may_use(&task.spec.queue) => {
                let what = format!("task {} has had no execution {}", piece.id, piece.execution);
                Some(Error::new(ErrorKind::Conflict, what))
            }
            _ => Some(Error::new(ErrorKind::NotFound, format!("there is no task {}", piece.id))),
        }
    }
}

/// Writes to the logs of runs, at offsets.
///
/// What is there already is not written again. Each execution has logs of its
/// own, so one that is over harms no other.
#[utoipa::path(post, path = "/api/v1/leases/logs", tag = "leases", operation_id = "lease_append_logs",
    request_body = Vec<LogPiece>,
    responses(
        (status = 200, body = Vec<LogAnswer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn append_logs(
    State(api): State<Api>,
    caller: Caller,
    Body(pieces): Body<Vec<LogPiece>>,
) -> Result<Json<Vec<LogAnswer>>, Response> {
    let ids: Vec<TaskId> = pieces.iter().map(|piece| piece.id.clone()).collect();
    let tasks = if caller.role == Role::Worker { told(api.store().get(&ids).await)? } else { vec![None; ids.len()] };
    let mut answers = Vec::with_capacity(pieces.len());
    for (piece, task) in pieces.into_iter().zip(tasks) {
        let written = match api.log_refusal(&caller, task.as_ref(), &piece) {
            Some(refusal) => Err(refusal),
            None => write(&api, piece).await,
        };
        answers.push(written.map_or_else(|error| LogAnswer::Refused(error.into()), LogAnswer::Len));
    }
    Ok(Json(answers))
}

async fn write(api: &Api, piece: LogPiece) -> light_task_scheduler::Result<u64> {
    let LogPiece { id, execution, stream, offset, data } = piece;
    api.logs().append(&LogKey { id, execution, stream }, offset, &data.bytes()?).await
}

/// Reads a part of a log, and says how long it is.
#[utoipa::path(post, path = "/api/v1/leases/logs/read", tag = "leases", operation_id = "lease_read_log",
    request_body = LogRequest,
    responses(
        (status = 200, body = LogPart),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn read_log(
    State(api): State<Api>,
    caller: Caller,
    Body(LogRequest { id, execution, stream, offset, limit }): Body<LogRequest>,
) -> Result<Json<LogPart>, Response> {
    if !api.within_reach(&caller, std::slice::from_ref(&id)).await?.contains(&true) {
        return Err(Problem::not_found(format_args!("task {id}")).into());
    }
    let log = LogKey { id, execution, stream };
    let len = told(api.logs().len(&log).await)?;
    let limit = limit.min(LOG_CHUNK_BYTES_MAX);
    let data = if limit == 0 { Vec::new() } else { told(api.logs().read(&log, offset, limit).await)? };
    Ok(Json(LogPart { len, data: data.as_slice().into() }))
}

/// Deletes all logs of a task.
#[utoipa::path(post, path = "/api/v1/leases/logs/delete", tag = "leases", operation_id = "lease_delete_logs",
    request_body = LogsOf,
    responses(
        (status = 200, description = "done"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn delete_logs(
    State(api): State<Api>,
    caller: Caller,
    Body(LogsOf { id }): Body<LogsOf>,
) -> Result<Json<()>, Response> {
    if !api.within_reach(&caller, std::slice::from_ref(&id)).await?.contains(&true) {
        return Err(Problem::not_found(format_args!("task {id}")).into());
    }
    Ok(Json(told(api.logs().delete(&id).await)?))
}
