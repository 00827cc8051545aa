//! Tasks: submit, read, list, and what operators wish.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use light_task_scheduler::state::Command;
use light_task_scheduler::store::{BATCH_MAX, Inserted};
use light_task_scheduler::{Error, ErrorKind, NewTask, StoreExt, Task, TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::Caller;
use super::body::{self, Body, Params, Span, media_type};
use super::precondition::{IfMatch, Tagged, tag_of, tagged};
use super::problem::{Code, FieldError, Problem, Result};
use super::query::{Filter, WAIT_MAX, cursor_text, page_size, parse_cursor};
use super::task::{AttemptView, Submission, TaskView, attempts};

/// How many tasks a page has if nothing is asked.
const PAGE_DEFAULT: usize = 50;
/// Longest `Idempotency-Key`, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Where a request says by which key it may be repeated.
const KEY_HEADER: &str = "idempotency-key";
/// Says that an answer is that of an earlier request with the same key or id.
const REPLAYED_HEADER: &str = "idempotency-replayed";

/// Takes one task in.
///
/// With an `Idempotency-Key`, or an `id` of your own, the request can be repeated: the task that is there is
/// answered with 200 and `Idempotency-Replayed: true`. The key names the task for as long as its store remembers
/// it, a day beyond its removal; with another kind or payload it is refused.
#[utoipa::path(post, operation_id = "submit_task", path = "/api/v1/tasks", tag = "tasks", request_body = Submission,
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255)),
    responses(
        (status = 201, body = TaskView, headers(("Location" = String))),
        (status = 200, description = "the same task was there already", body = TaskView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Body(submission): Body<Submission>,
) -> Result<Response, Response> {
    let key = idempotency_key(&headers, &caller)?;
    let task = api.ready(submission, key.as_deref(), 0, &caller).map_err(Problem::invalid)?;
    caller.check_queue(&task.queue)?;
    let inserted = api.source().insert(vec![task]).await.map_err(Box::<Problem>::from)?;
    let inserted = inserted.into_iter().next().unwrap_or_else(|| Err(Error::internal("the store gave no answer")));
    let inserted = inserted.map_err(|error| refused(error, key.is_some()))?;
    let id = inserted.id().clone();
    let (status, replayed) = match inserted {
        Inserted::New(_) => (StatusCode::CREATED, false),
        Inserted::Existing(..) => (StatusCode::OK, true),
        Inserted::Removed(_) => {
            return Err(Problem::new(Code::Conflict, format!("task {id} has been here, and is removed")).into());
        }
    };
    let task = api.store().task(&id).await.map_err(Box::<Problem>::from)?;
    let mut response = (status, Json(TaskView::whole(&task, api.now()))).into_response();
    let location = HeaderValue::from_str(&format!(
        "{}/api/v1/tasks/{}",
        api.options().base_path,
        super::url_encoded(&id.to_string())
    ));
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    if replayed {
        response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn refused(error: Error, by_key: bool) -> Box<Problem> {
    match error.kind() {
        ErrorKind::Conflict if by_key => {
            Problem::new(Code::IdempotencyMismatch, "this Idempotency-Key was used for another task; take a fresh one")
        }
        _ => error.into(),
    }
}

/// The key by which a request may be repeated: apart for each credential.
fn idempotency_key(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>> {
    let Some(key) = headers.get(KEY_HEADER) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => Ok(Some(format!("{}\n{key}", caller.name))),
        _ => {
            Err(Problem::invalid(format!("the Idempotency-Key must be 1 to {KEY_BYTES_MAX} visible ASCII characters")))
        }
    }
}

impl Api {
    /// The task that is asked for, with the defaults of its queue and an id by which it can be asked for again.
    fn ready(
        &self,
        submission: Submission,
        key: Option<&str>,
        place: usize,
        caller: &Caller,
    ) -> Result<NewTask, String> {
        let mut task = submission.task()?;
        if !caller.may_use(&task.queue) {
            return Err(format!("this token is not for the queue {}", task.queue));
        }
        self.options().defaults.fill(&mut task);
        if let (None, Some(key)) = (&task.id, key) {
            let named = light_task_scheduler::results::short_hash(format!("{key}\n{place}").as_bytes());
            task.id = Some(TaskId::new(&format!("key-{named}")).map_err(|error| error.to_string())?);
        }
        Ok(task)
    }
}

/// What became of one task of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchItem {
    /// Its place in the batch, from 0.
    index: usize,
    /// `created`, `existing`, `removed`, or `refused`.
    outcome: &'static str,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// How many were taken in now.
    created: usize,
    /// How many were there before.
    existing: usize,
    /// How many were refused.
    refused: usize,
    /// One answer per task, in order.
    results: Vec<BatchItem>,
}

/// Takes many tasks in: a JSON array, or one JSON object a line (`application/x-ndjson`), at most 10,000 and 64 MiB.
///
/// A mistake in one of them refuses all, and names each; then nothing is taken in. What the store refuses is said
/// item by item. With an `Idempotency-Key` the whole batch can be repeated.
#[utoipa::path(post, operation_id = "submit_batch", path = "/api/v1/tasks/batch", tag = "tasks",
    request_body(content((Vec<Submission> = "application/json"), (String = "application/x-ndjson"))),
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255)),
    responses(
        (status = 200, body = BatchAnswer),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn submit_batch(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    bytes: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<BatchAnswer>, Response> {
    let bytes = bytes.map_err(|_| Problem::new(Code::TooLarge, "the batch is larger than 64 MiB; nothing was done"))?;
    let key = idempotency_key(&headers, &caller)?;
    let submissions = read_batch(&media_type(&headers), &bytes)?;
    if submissions.len() > BATCH_MAX {
        let count = submissions.len();
        return Err(
            Problem::new(Code::TooLarge, format!("{count} tasks, more than {BATCH_MAX}; send them in parts")).into()
        );
    }
    let mut tasks = Vec::with_capacity(submissions.len());
    let mut errors = Vec::new();
    for (index, submission) in submissions.into_iter().enumerate() {
        match submission.and_then(|submission| {
            let fault = |message| FieldError { pointer: format!("/{index}"), message };
            api.ready(submission, key.as_deref(), index, &caller).map_err(fault)
        }) {
            Ok(task) => tasks.push(task),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::of_fields(errors).into());
    }
    let inserted = api.source().insert(tasks).await.map_err(Box::<Problem>::from)?;
    let results: Vec<BatchItem> =
        inserted.into_iter().enumerate().map(|(index, answer)| item(index, answer, key.is_some())).collect();
    let count = |outcome| results.iter().filter(|item| item.outcome == outcome).count();
    let (created, existing, refused) = (count("created"), count("existing"), count("refused") + count("removed"));
    Ok(Json(BatchAnswer { created, existing, refused, results }))
}

fn item(index: usize, answer: light_task_scheduler::Result<Inserted>, by_key: bool) -> BatchItem {
    match answer {
        Ok(inserted) => {
            let outcome = match inserted {
                Inserted::New(_) => "created",
                Inserted::Existing(..) => "existing",
                Inserted::Removed(_) => "removed",
            };
            BatchItem { index, outcome, id: Some(inserted.id().to_string()), error: None }
        }
        Err(error) => BatchItem { index, outcome: "refused", id: None, error: Some(*refused(error, by_key)) },
    }
}

/// The tasks of a batch; an `Err` for each that cannot be read.
fn read_batch(kind: &str, bytes: &[u8]) -> Result<Vec<Result<Submission, FieldError>>> {
    if kind == "application/x-ndjson" || kind == "application/jsonl" {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        return Ok(lines.enumerate().map(|(index, line)| body::parse(line, &format!("/{index}"))).collect());
    }
    if !body::is_json(kind) {
        return Err(body::unknown_type(kind, "a JSON array, or application/x-ndjson"));
    }
    let items: Vec<Box<serde_json::value::RawValue>> =
        body::parse(bytes, "").map_err(|error| Problem::of_fields(vec![error]))?;
    let items = items.into_iter().enumerate();
    Ok(items.map(|(index, item)| body::parse(item.get().as_bytes(), &format!("/{index}"))).collect())
}

/// How a task is read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// Waits for its end, at most so long and at most 60 s: `10s`. Then answers how it stands.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

/// Reads a task; with `wait` once it has ended.
#[utoipa::path(get, operation_id = "read_task", path = "/api/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path), ReadParams, ("If-None-Match" = Option<String>, Header)),
    responses(
        (status = 200, body = TaskView, headers(("ETag" = String))),
        (status = 304, description = "it is as it was"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Params(params): Params<ReadParams>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let mut task = api.task(&id, &caller).await?;
    if let Some(wait) = params.wait.filter(|_| !task.record.state.is_terminal()) {
        task = api.ended_within(task, wait.0.min(WAIT_MAX)).await?;
    }
    let tag = etag(&task);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok((tagged(tag), Json(TaskView::whole(&task, api.now()))).into_response())
}

/// Changes with everything that changes of a task.
fn etag(task: &Task) -> String {
    tag_of(&(&task.record, task.spec.priority))
}

impl Api {
    /// A task that the caller may see.
    pub(crate) async fn task(&self, id: &str, caller: &Caller) -> Result<Task> {
        let missing = || Problem::not_found(format_args!("task {id}"));
        let task = self.store().task(&TaskId::new(id).map_err(|_| missing())?).await?;
        // Whoever may not see it learns nothing of it.
        if caller.may_use(&task.spec.queue) { Ok(task) } else { Err(missing()) }
    }

    /// How the task stands once it has ended, or the time is over, or the server stops.
    async fn ended_within(&self, task: Task, wait: std::time::Duration) -> Result<Task> {
        tokio::select! {
            ended = self.source().ended(&task.id) => Ok(ended?),
            () = tokio::time::sleep(wait) => Ok(self.store().task(&task.id).await?),
            () = self.stopping() => Ok(task),
        }
    }
}

/// Which tasks are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// A query such as `state:failed queue:video error:"no space" created:<1h`.
    #[serde(default)]
    q: String,
    /// Where the last page ended: its `next`.
    #[serde(default)]
    cursor: Option<String>,
    /// How many, 1 to 1000. Default 50.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A page of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskList {
    /// Newest first, without payloads and results.
    tasks: Vec<TaskView>,
    /// Where the next page begins; none: this was the last. A page may have fewer tasks than asked, or none, and
    /// still a next one.
    next: Option<String>,
}

/// Lists tasks, newest first.
#[utoipa::path(get, operation_id = "list_tasks", path = "/api/v1/tasks", tag = "tasks", params(ListParams),
    responses(
        (status = 200, body = TaskList, headers(("Link" = String))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Response> {
    let now = api.now();
    let filter = Filter::parse(&params.q, &caller, now)?;
    let limit = page_size(params.limit, PAGE_DEFAULT)?;
    let from = params.cursor.as_deref().map(parse_cursor).transpose()?;
    let found = filter.find(&**api.store(), from, limit, now).await?;
    let next = found.next.map(cursor_text);
    let tasks = found.tasks.iter().map(|task| TaskView::brief(task, now)).collect();
    let link = next.as_ref().and_then(|next| {
        let query = [("q", params.q.as_str()), ("cursor", next), ("limit", &limit.to_string())]
            .map(|(name, value)| format!("{name}={}", super::url_encoded(value)))
            .join("&");
        HeaderValue::from_str(&format!("<{}/api/v1/tasks?{query}>; rel=\"next\"", api.options().base_path)).ok()
    });
    let mut response = Json(TaskList { tasks, next }).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The attempts of a task since it was last requeued, oldest first.
#[utoipa::path(get, operation_id = "list_attempts", path = "/api/v1/tasks/{id}/attempts", tag = "tasks", params(("id" = String, Path)),
    responses(
        (status = 200, body = Vec<AttemptView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn list_attempts(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<AttemptView>>, Response> {
    Ok(Json(attempts(&api.task(&id, &caller).await?)))
}

/// The result of a task that has succeeded, as it is.
#[utoipa::path(get, operation_id = "read_result", path = "/api/v1/tasks/{id}/result", tag = "tasks", params(("id" = String, Path)),
    responses(
        (status = 200, description = "the bytes of the result", content((serde_json::Value = "application/json"), (Vec<u8> = "application/octet-stream"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn result(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    let task = api.task(&id, &caller).await?;
    if !task.record.state.is_terminal() {
        let state = task.record.state;
        return Err(Problem::new(Code::Conflict, format!("task {id} has no result yet: it is {state}")).into());
    }
    let output = api.source().output(&task.id).await.map_err(Box::<Problem>::from)?;
    let json = super::task::raw(&output).is_some();
    let kind = if json { "application/json" } else { "application/octet-stream" };
    // Never shown as a page of ours, whatever it is.
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, "attachment")];
    Ok((headers, output.as_bytes().to_vec()).into_response())
}

/// Declares an operation that moves one task.
macro_rules! wish {
    ($name:ident, $path:literal, $command:expr, $what:literal) => {
        #[doc = $what]
        #[utoipa::path(post, path = $path, tag = "tasks",
                                    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "only if this is its ETag right before the change")),
                                    responses(
                                        (status = 200, body = TaskView, headers(("ETag" = String))),
                                        (status = "4XX", body = Problem, content_type = "application/problem+json"),
                                        (status = "5XX", body = Problem, content_type = "application/problem+json")),
                                    security(("token" = ["operator"])))]
        pub(crate) async fn $name(
            State(api): State<Api>,
            caller: Caller,
            Path(id): Path<String>,
            seen: IfMatch,
        ) -> Result<(Tagged, Json<TaskView>), Response> {
            api.wish(&id, &caller, &seen, $command).await.map_err(Response::from)
        }
    };
}

wish!(
    cancel,
    "/api/v1/tasks/{id}/cancel",
    Command::Cancel,
    "Cancels a task: at once where it waits; where it runs, as soon as its run is confirmed dead.\n\nMay be repeated. A task that has succeeded or failed before is a conflict."
);
wish!(start, "/api/v1/tasks/{id}/start", Command::Start, "Lets a held task run.");
wish!(
    retry,
    "/api/v1/tasks/{id}/retry",
    Command::Requeue,
    "Runs a task that has ended again, with a fresh budget of attempts."
);
wish!(
    retry_export,
    "/api/v1/tasks/{id}/retry-export",
    Command::RetryExport,
    "Tries again to save the result of a task whose export failed; it is not run again."
);

/// When a task is to run, and before which others. What is left out stays as it is.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rescheduling {
    /// Not before this time. One that has passed means now; it lets no task that is due already go before others.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// Not before so long from now: `0s`, `90s`, `1h30m` or `PT90S`.
    #[serde(default, deserialize_with = "body::delay")]
    #[schema(value_type = Option<String>)]
    delay: Option<Duration>,
    /// Higher runs first, also in later attempts.
    #[serde(default)]
    priority: Option<i32>,
}

impl Rescheduling {
    /// What is wished; or in words what is wrong.
    pub(crate) fn command(self, now: Timestamp) -> Result<Command> {
        let run_at = match (self.run_at, self.delay) {
            (run_at, None) => run_at,
            (None, Some(delay)) => Some(now + delay),
            (Some(_), Some(_)) => return Err(Problem::invalid("only one of run_at and delay can be given")),
        };
        if run_at.is_none() && self.priority.is_none() {
            return Err(Problem::invalid("give run_at, delay or priority: there is nothing to change"));
        }
        Ok(Command::Reschedule { run_at, priority: self.priority })
    }
}

/// Lets a task run at another time, or before others.
///
/// The task is held or waits: for a slot, for its time, or to be tried again. A held task goes on being held. One that runs
/// or has ended is a conflict, and is not touched. May be repeated.
#[utoipa::path(post, operation_id = "reschedule", path = "/api/v1/tasks/{id}/reschedule", tag = "tasks",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "only if this is its ETag right before the change")),
    request_body = Rescheduling,
    responses(
        (status = 200, body = TaskView, headers(("ETag" = String))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn reschedule(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    seen: IfMatch,
    Body(to): Body<Rescheduling>,
) -> Result<(Tagged, Json<TaskView>), Response> {
    let command = to.command(api.now())?;
    api.wish(&id, &caller, &seen, command).await.map_err(Response::from)
}

impl Api {
    async fn wish(
        &self,
        id: &str,
        caller: &Caller,
        seen: &IfMatch,
        command: Command,
    ) -> Result<(Tagged, Json<TaskView>)> {
        let id = self.seen_task(id, caller, seen).await?;
        self.carry_out(&id, command).await?;
        let task = self.store().task(&id).await?;
        Ok((tagged(etag(&task)), Json(TaskView::whole(&task, self.now()))))
    }

    /// The id of a task that the caller may see, and that is what they have seen.
    async fn seen_task(&self, id: &str, caller: &Caller, seen: &IfMatch) -> Result<TaskId> {
        let task = self.task(id, caller).await?;
        seen.check(format_args!("task {id}"), Some(&etag(&task)))?;
        Ok(task.id)
    }

    /// What an operator wishes; the logs of a task go with it.
    pub(crate) async fn carry_out(&self, id: &TaskId, command: Command) -> light_task_scheduler::Result<()> {
        self.source().order(id, command).await?;
        if command == Command::Delete {
            self.logs().delete(id).await?;
        }
        Ok(())
    }
}

/// Removes a held or ended task, and its logs.
#[utoipa::path(delete, operation_id = "delete_task", path = "/api/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "only if this is its ETag right before the change")),
    responses(
        (status = 204),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    seen: IfMatch,
) -> Result<StatusCode, Response> {
    let id = api.seen_task(&id, &caller, &seen).await?;
    api.carry_out(&id, Command::Delete).await.map_err(Box::<Problem>::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What of a task is to be another in its clone. What is left out is as in the original.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<serde_json::value::RawValue>>,
    #[serde(default)]
    queue: Option<String>,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    timeout: Option<Span>,
    #[serde(default)]
    retry: Option<super::task::Retry>,
    /// Not before it is started by `POST …/start`.
    #[serde(default)]
    held: bool,
}

/// Submits a new task like this one, with changes.
#[utoipa::path(post, operation_id = "clone_task", path = "/api/v1/tasks/{id}/clone", tag = "tasks", params(("id" = String, Path)),
    request_body = Changes,
    responses(
        (status = 201, body = TaskView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn clone(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Body(changes): Body<Changes>,
) -> Result<(StatusCode, Json<TaskView>), Response> {
    let task = api.task(&id, &caller).await?;
    let copy = copy(&task, changes).map_err(Problem::invalid)?;
    caller.check_queue(&copy.queue)?;
    let id = api.source().submit(copy).await.map_err(Box::<Problem>::from)?;
    let task = api.store().task(&id).await.map_err(Box::<Problem>::from)?;
    Ok((StatusCode::CREATED, Json(TaskView::whole(&task, api.now()))))
}

fn copy(task: &Task, changes: Changes) -> Result<NewTask, String> {
    let in_words = |error: Error| error.to_string();
    let spec = &task.spec;
    let payload = match &changes.payload {
        Some(payload) => light_task_scheduler::Payload::from_bytes(payload.get().as_bytes().to_vec()),
        None => spec.payload.clone(),
    };
    let mut copy = NewTask::with_payload(spec.kind.clone(), payload);
    copy.queue = spec.queue.clone();
    copy.priority = changes.priority.unwrap_or(spec.priority);
    copy.options = spec.options.clone();
    // The original's last moment is no wish for its copy.
    copy.options.iter_mut().for_each(|options| options.deadline = None);
    if let Some(queue) = &changes.queue {
        copy = copy.queue(queue).map_err(in_words)?;
    }
    if let Some(timeout) = changes.timeout {
        copy = copy.timeout(timeout.0);
    }
    if let Some(retry) = changes.retry {
        copy = copy.retry(retry.into());
    }
    if changes.held {
        copy = copy.start(light_task_scheduler::Start::Held);
    }
    copy.check().map_err(in_words)?;
    Ok(copy)
}
