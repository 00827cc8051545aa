//! Tasks and queues as they are kept, for whoever has the store of this server as its own.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use light_task_scheduler::store::remote::wire;
use light_task_scheduler::store::{self, Answer, TaskQuery};
use light_task_scheduler::{NewTask, ResultRef, Task, TaskId};

use super::{sent, told};
use crate::api::Api;
use crate::api::access::{Caller, Role};
use crate::api::body::Body;
use crate::api::problem::{Problem, Result};

/// Most tasks in one page: they come whole.
const PAGE_MAX: usize = 100;
/// How many tasks are read at once, and after how many bytes of them no more are.
const READ_AT_ONCE: usize = 100;
const READ_BYTES: usize = 32 << 20;

/// Takes tasks in as they are; what is refused is said item by item.
#[utoipa::path(post, path = "/api/v1/leases/insert", tag = "leases", operation_id = "lease_insert",
    request_body = Vec<wire::NewTask>,
    responses(
        (status = 200, body = Vec<wire::Inserted>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn insert(
    State(api): State<Api>,
    caller: Caller,
    Body(tasks): Body<Vec<wire::NewTask>>,
) -> Result<Json<Vec<wire::Inserted>>, Response> {
    let mut tasks: Vec<NewTask> = sent(tasks);
    for task in &mut tasks {
        caller.check_queue(&task.queue)?;
        api.options().defaults.fill(task);
    }
    Ok(Json(sent(told(api.source().insert(tasks).await)?)))
}

/// Does what operators wish, task by task.
#[utoipa::path(post, path = "/api/v1/leases/commands", tag = "leases", operation_id = "lease_command",
    request_body = Vec<wire::Wish>,
    responses(
        (status = 200, body = Vec<wire::Answer>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn command(
    State(api): State<Api>,
    caller: Caller,
    Body(wishes): Body<Vec<wire::Wish>>,
) -> Result<Json<Vec<wire::Answer>>, Response> {
    let work = async |wishes: Vec<wire::Wish>| {
        let commands = wishes.into_iter().map(|wish| (wish.id, wish.command)).collect();
        Ok(api.store().command(commands).await?)
    };
    Ok(Json(sent(api.each_within_reach(&caller, wishes, |wish| &wish.id, Answer::Missing, work).await?)))
}

/// Reads tasks by id. Where they are large, not all are answered: ask again for those that follow the last answer.
#[utoipa::path(post, path = "/api/v1/leases/get", tag = "leases", operation_id = "lease_get",
    request_body = Vec<TaskId>,
    responses(
        (status = 200, body = Vec<Option<wire::Task>>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Body(ids): Body<Vec<TaskId>>,
) -> Result<Json<Vec<Option<wire::Task>>>, Response> {
    told(store::check_batch(ids.len()))?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for ids in ids.chunks(READ_AT_ONCE) {
        let tasks = told(api.store().get(ids).await)?.into_iter();
        let tasks: Vec<_> = tasks.map(|task| task.filter(|task| caller.may_use(&task.spec.queue))).collect();
        bytes += tasks.iter().flatten().map(size).sum::<usize>();
        found.extend(tasks.into_iter().map(|task| task.map(Into::into)));
        if bytes > READ_BYTES {
            break;
        }
    }
    Ok(Json(found))
}

/// How many bytes a task has that may be many.
fn size(task: &Task) -> usize {
    let result = match task.record.result() {
        Some(ResultRef::Inline(result)) => result.len(),
        _ => 0,
    };
    task.spec.payload.len() + task.record.output().map_or(0, |output| output.len()) + result
}

/// Lists tasks whole, newest first, at most 100 at once.
#[utoipa::path(post, path = "/api/v1/leases/list", tag = "leases", operation_id = "lease_list",
    request_body = wire::TaskQuery,
    responses(
        (status = 200, body = wire::Page),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Body(query): Body<wire::TaskQuery>,
) -> Result<Json<wire::Page>, Response> {
    let mut query = TaskQuery::from(query);
    query.queue.iter().try_for_each(|queue| caller.check_queue(queue))?;
    query.limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
    let page = told(api.store().list(&query).await)?;
    let tasks = page.tasks.into_iter().filter(|task| caller.may_use(&task.spec.queue));
    Ok(Json(wire::Page { tasks: sent(tasks), next: page.next.map(store::Cursor::insertion) }))
}

/// How many tasks each queue has in each state.
#[utoipa::path(get, path = "/api/v1/leases/counts", tag = "leases", operation_id = "lease_counts",
    responses(
        (status = 200, body = Vec<wire::QueueCounts>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn counts(State(api): State<Api>, caller: Caller) -> Result<Json<Vec<wire::QueueCounts>>, Response> {
    let counts = told(api.store().counts().await)?;
    Ok(Json(sent(counts.into_iter().filter(|counts| caller.may_use(&counts.queue)))))
}

/// Every queue and how it is operated.
#[utoipa::path(get, path = "/api/v1/leases/queues", tag = "leases", operation_id = "lease_queues",
    responses(
        (status = 200, body = Vec<wire::Queue>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn queues(State(api): State<Api>, caller: Caller) -> Result<Json<Vec<wire::Queue>>, Response> {
    let queues = told(api.store().queues().await)?;
    Ok(Json(sent(queues.into_iter().filter(|(queue, _)| caller.may_use(queue)))))
}

/// Creates a queue, or replaces its settings.
#[utoipa::path(post, path = "/api/v1/leases/queues", tag = "leases", operation_id = "lease_set_queue",
    request_body = wire::Queue,
    responses(
        (status = 200, description = "done"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn set_queue(
    State(api): State<Api>,
    caller: Caller,
    Body(queue): Body<wire::Queue>,
) -> Result<Json<()>, Response> {
    caller.check_queue(&queue.name)?;
    let (name, settings) = queue.into();
    Ok(Json(told(api.store().set_queue(name, settings).await)?))
}

/// Housekeeping. It is the server's own: a worker's asking for it does nothing.
#[utoipa::path(post, path = "/api/v1/leases/sweep", tag = "leases", operation_id = "lease_sweep",
    request_body = wire::SweepRequest,
    responses(
        (status = 200, body = wire::Sweep),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["worker"])))]
pub(crate) async fn sweep(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<wire::SweepRequest>,
) -> Result<Json<wire::Sweep>, Response> {
    if caller.role == Role::Worker {
        return Ok(Json(wire::Sweep::default()));
    }
    caller.check_all_queues()?;
    let store::Sweep { removed, garbage } = told(api.store().sweep(request.into()).await)?;
    Ok(Json(wire::Sweep { removed, garbage }))
}
