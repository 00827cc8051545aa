//! Workers: the replicas that take tasks from this store.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use light_task_scheduler::store::ReplicaStatus;
use light_task_scheduler::{ReplicaId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::problem::{Problem, Result};

/// Somebody who takes tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkerView {
    /// Its id.
    id: String,
    /// For people: host, process and version, as it says.
    name: String,
    /// `alive`, `expired` (its heartbeat is late), or `dead` (its tasks are being taken over).
    state: &'static str,
    /// It takes nothing more, and leaves once what it holds has ended.
    draining: bool,
    /// How many heartbeats it has sent.
    beats: u64,
    /// When its lease ends.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// How many tasks it holds.
    running: u64,
}

/// Whether it lives, in a word.
pub(crate) fn state_of(replica: &ReplicaStatus) -> &'static str {
    match (replica.dead || replica.proven_dead, replica.expired) {
        (true, _) => "dead",
        (false, true) => "expired",
        (false, false) => "alive",
    }
}

impl From<ReplicaStatus> for WorkerView {
    fn from(replica: ReplicaStatus) -> Self {
        WorkerView {
            id: replica.id.to_string(),
            state: state_of(&replica),
            name: replica.name,
            draining: replica.draining,
            beats: replica.beat,
            expires_at: replica.expires_at,
            running: replica.owned,
        }
    }
}

/// Lists who takes tasks, and the dead whose tasks are being taken over.
#[utoipa::path(get, operation_id = "list_workers", path = "/api/v1/workers", tag = "workers",
    responses(
        (status = 200, body = Vec<WorkerView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn list(State(api): State<Api>, _: Caller) -> Result<Json<Vec<WorkerView>>, Response> {
    let replicas = api.store().replicas().await.map_err(Box::<Problem>::from)?;
    Ok(Json(replicas.into_iter().map(WorkerView::from).collect()))
}

/// Has a worker take nothing more, let what it runs come to its end within its grace, and leave.
///
/// It cannot be taken back, and repeating it changes nothing: a worker that is started anew takes tasks again.
#[utoipa::path(post, operation_id = "drain_worker", path = "/api/v1/workers/{id}/drain", tag = "workers",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = WorkerView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn drain(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<WorkerView>, Response> {
    // It may run tasks of any queue.
    caller.check_all_queues()?;
    Ok(Json(drained(&api, &id).await?))
}

async fn drained(api: &Api, text: &str) -> Result<WorkerView> {
    let missing = || Problem::not_found(format_args!("worker {text}: it never was, has left, or was declared dead"));
    let id: ReplicaId = text.parse().map_err(|_| missing())?;
    // Once it has been told it may be gone before it is looked at.
    let seen = api.store().replicas().await?.into_iter().find(|replica| replica.id == id).ok_or_else(missing)?;
    api.store().drain(id).await?;
    Ok(ReplicaStatus { draining: true, ..seen }.into())
}
