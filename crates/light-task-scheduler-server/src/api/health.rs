//! How the server does.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::access::{Caller, Role};
use super::problem::{Code, Problem, Result};

/// How long the store may take to answer before the server counts as not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// How the server does.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
}

/// Whether the process lives.
#[utoipa::path(get, operation_id = "is_alive", path = "/healthz", tag = "operations", responses((status = 200, body = Health)), security(()))]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether tasks can be taken in: the store answers.
#[utoipa::path(get, operation_id = "is_ready", path = "/readyz", tag = "operations",
    responses((status = 200, body = Health), (status = 503, body = Problem, content_type = "application/problem+json")),
    security(()))]
pub(crate) async fn ready(State(api): State<Api>) -> Result<Json<Health>, Response> {
    match tokio::time::timeout(READY_WITHIN, api.store().queues()).await {
        Ok(Ok(_)) => Ok(Json(Health { status: "ok" })),
        // What is wrong with it is no business of whoever has no credential.
        _ => Err(Problem::new(Code::Unavailable, "the store does not answer").into()),
    }
}

/// What this server is and can do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Capabilities {
    /// How this installation is called.
    name: String,
    /// The version of the program.
    version: &'static str,
    /// Nothing can be changed through it.
    read_only: bool,
    /// Anybody who reaches it may do everything.
    open: bool,
    /// It answers, but runs no tasks itself any more: an operator has it drain. Its workers and other servers go on.
    draining: bool,
    /// What the store can do.
    store: StoreCapabilities,
    /// Who asks.
    caller: CallerView,
}

/// What the store can do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreCapabilities {
    /// Higher priorities run first.
    priority: bool,
    /// What was accepted survives the end of the process.
    durable: bool,
    /// Several processes can use it at once.
    shared: bool,
    /// Workers may be on other hosts.
    multi_host: bool,
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallerView {
    /// The name of their token.
    name: String,
    /// What they may do.
    role: Role,
    /// In which queues; none: in all.
    queues: Option<Vec<String>>,
}

impl From<&Caller> for CallerView {
    fn from(caller: &Caller) -> Self {
        let queues = caller.queues.as_ref();
        CallerView {
            name: caller.name.to_string(),
            role: caller.role,
            queues: queues.map(|queues| queues.iter().map(ToString::to_string).collect()),
        }
    }
}

/// What this server is and can do, and as whom it sees you.
#[utoipa::path(get, operation_id = "read_capabilities", path = "/api/v1/capabilities", tag = "operations",
    responses((status = 200, body = Capabilities), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn capabilities(State(api): State<Api>, caller: Caller) -> Json<Capabilities> {
    let store = api.store().capabilities();
    let options = api.options();
    Json(Capabilities {
        name: options.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        read_only: options.read_only,
        open: api.is_open(),
        draining: api.source().is_draining(),
        store: StoreCapabilities {
            priority: store.priority,
            durable: store.durable,
            shared: store.shared,
            multi_host: store.multi_host,
        },
        caller: CallerView::from(&caller),
    })
}
