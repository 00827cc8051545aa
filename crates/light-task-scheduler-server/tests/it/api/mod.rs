//! The HTTP API, asked as a router: what it answers, whom it lets in, and that its description tells the truth.

mod access;
mod description;
mod follow;
mod leases;
mod tasks;
mod workers;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use light_task_scheduler::results::MemoryLogs;
use light_task_scheduler::{Config, Context, FunctionExecutor, MemoryStore, RetryPolicy, Scheduler, TaskError};
use light_task_scheduler_server::api::{Api, ApiOptions};
use serde_json::Value;
use tower::ServiceExt;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A server without a socket.
pub(crate) struct Site {
    pub(crate) api: Api,
    pub(crate) logs: Arc<MemoryLogs>,
    router: axum::Router,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// What runs: `ok` succeeds, `bad` fails for good, `flaky` fails until its last attempt, `stuck` waits to be cancelled.
fn functions() -> FunctionExecutor {
    FunctionExecutor::new()
        .register("ok", |_: Context, payload: Value| async move { Ok(payload) })
        .register("bad", |_: Context, payload: Value| async move {
            Err::<Value, _>(TaskError::fatal(format!("no use: {payload}")))
        })
        .register("stuck", |context: Context, _: Value| async move {
            context.cancelled().await;
            Err::<Value, _>(TaskError::new("stopped"))
        })
}

impl Site {
    pub(crate) async fn new(options: ApiOptions) -> Site {
        let config = Config { export_retry: RetryPolicy::attempts(1), ..Config::default() };
        let scheduler =
            Scheduler::builder(MemoryStore::by_priority()).functions(functions()).config(config).start().await.unwrap();
        let logs = Arc::new(MemoryLogs::default());
        let api = Api::new(scheduler, logs.clone(), options);
        let router = api.router();
        Site { api, logs, router }
    }

    pub(crate) async fn open() -> Site {
        Site::new(ApiOptions::default()).await
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.raw(request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, ANSWER_BYTES_MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path).body(Body::empty()).unwrap()).await
    }

    /// Submits a task and answers its id.
    pub(crate) async fn submit(&self, body: &str) -> String {
        let answer = self.post("/api/v1/tasks", body.to_owned()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.json());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The task once it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let task = self.get(&format!("/api/v1/tasks/{id}?wait=60s")).await.json();
        assert!(task["finished_at"].is_string(), "{task}");
        task
    }
}

/// A request from this host.
pub(crate) fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:7600")
}
