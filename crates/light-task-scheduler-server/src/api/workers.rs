//! Workers: the replicas that take tasks from this store.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use light_task_scheduler::Timestamp;
use light_task_scheduler::store::ReplicaStatus;
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
