//! A job service on loopback, with everything that a real one may do wrong, and a count of what it was asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::watch;

use light_task_scheduler::executor::http::Protocol;

/// How a start is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// The job is made, and the connection closed without an answer.
    LoseAnswer,
    /// No room, for one second.
    NoRoom,
    /// It is refused as it is.
    Refuse,
}

#[derive(Debug, Clone)]
struct Job {
    input: Value,
    key: String,
    callback: Option<String>,
    state: watch::Sender<&'static str>,
}

#[derive(Default)]
struct Shop {
    jobs: Mutex<HashMap<String, Job>>,
    spoils: Mutex<Vec<Spoil>>,
    made: AtomicU64,
    asked: AtomicU64,
    stopped: AtomicU64,
}

/// The service.
#[derive(Clone)]
pub(crate) struct Service {
    shop: Arc<Shop>,
    pub(crate) url: String,
}

/// How it is spoken to.
pub(crate) fn protocol() -> Protocol {
    serde_json::from_value(json!({
        "submit": {
            "call": {
                "method": "POST",
                "url": "{+url}/jobs",
                "headers": {"Idempotency-Key": "{key}", "X-Callback": "{callback}"},
                "body": "{input}",
            },
            "job": [{"pointer": "/id"}],
        },
        "status": {"call": {"method": "GET", "url": "{+endpoint}/jobs/{job}", "gone": [404]}},
        "output": {"method": "GET", "url": "{+endpoint}/jobs/{job}/output"},
        "stop": {"method": "POST", "url": "{+endpoint}/jobs/{job}/stop", "gone": [404]},
        "release": {"method": "DELETE", "url": "{+endpoint}/jobs/{job}", "gone": [404]},
        "find": {"call": {"method": "GET", "url": "{+endpoint}/jobs?key={key}"}, "job": "/id"},
        "reading": {
            "state": "/state",
            "states": {"running": "running", "done": "succeeded", "failed": "failed", "stopped": "cancelled"},
            "message": ["/message"],
            "progress": "/percent",
        },
    }))
    .unwrap()
}

impl Service {
    pub(crate) async fn start() -> Self {
        let shop = Arc::new(Shop::default());
        let router = Router::new()
            .route("/jobs", post(make).get(find))
            .route("/jobs/{id}", get(look).delete(remove))
            .route("/jobs/{id}/output", get(output))
            .route("/jobs/{id}/stop", post(stop))
            .route("/push", post(push))
            .route("/away", get(away))
            .with_state(shop.clone());
        Service { shop, url: serve(router).await }
    }

    /// Spoils the next starts, one by one.
    pub(crate) fn spoil(&self, spoils: &[Spoil]) {
        self.shop.spoils.lock().unwrap().extend(spoils.iter().rev());
    }

    /// How many jobs were made.
    pub(crate) fn made(&self) -> u64 {
        self.shop.made.load(SeqCst)
    }

    /// How many starts were asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.shop.asked.load(SeqCst)
    }

    /// How many stops were asked for.
    pub(crate) fn stopped(&self) -> u64 {
        self.shop.stopped.load(SeqCst)
    }

    /// How many jobs it knows.
    pub(crate) fn known(&self) -> usize {
        self.shop.jobs().len()
    }

    /// Ends all jobs that run.
    pub(crate) fn finish_all(&self) {
        for job in self.shop.jobs().values() {
            job.finish("done");
        }
    }

    /// The callback addresses that were handed in, oldest job first.
    pub(crate) fn callbacks(&self) -> Vec<String> {
        let jobs = self.shop.jobs();
        let mut named: Vec<_> = jobs.iter().filter_map(|(id, job)| Some((id.clone(), job.callback.clone()?))).collect();
        named.sort();
        named.into_iter().map(|(_, callback)| callback).collect()
    }
}

/// Serves a router on a free port of loopback, until the test's runtime ends.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Shop {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Job>> {
        self.jobs.lock().unwrap()
    }

    fn job(&self, id: &str) -> Result<Job, StatusCode> {
        self.jobs().get(id).cloned().ok_or(StatusCode::NOT_FOUND)
    }
}

impl Job {
    /// Ends it, if it runs, and reports that where it was asked to.
    fn finish(&self, state: &'static str) {
        let ended = self.state.send_if_modified(|now| {
            let runs = *now == "running";
            *now = if runs { state } else { now };
            runs
        });
        if let (true, Some(callback)) = (ended, self.callback.clone()) {
            let document = self.document();
            tokio::spawn(async move { report(&callback, document).await });
        }
    }

    fn document(&self) -> Value {
        json!({"state": *self.state.borrow(), "message": self.input["message"]})
    }
}

async fn report(url: &str, document: Value) {
    let client = super::client();
    client.post(url).header("content-type", "application/json").body(document.to_string()).send().await.unwrap();
}

async fn make(State(shop): State<Arc<Shop>>, headers: HeaderMap, Json(input): Json<Value>) -> Response {
    shop.asked.fetch_add(1, SeqCst);
    let spoil = shop.spoils.lock().unwrap().pop();
    match spoil {
        Some(Spoil::NoRoom) => {
            return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "no room").into_response();
        }
        Some(Spoil::Refuse) => return (StatusCode::UNPROCESSABLE_ENTITY, "no such layer").into_response(),
        Some(Spoil::LoseAnswer) | None => {}
    }
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let key = header("idempotency-key").unwrap_or_default();
    let known = shop.jobs().iter().find(|(_, job)| !key.is_empty() && job.key == key).map(|(id, _)| id.clone());
    let id = known.unwrap_or_else(|| {
        let id = format!("job/{:06}", shop.made.fetch_add(1, SeqCst));
        let job =
            Job { key, callback: header("x-callback"), state: watch::Sender::new("running"), input: input.clone() };
        shop.jobs().insert(id.clone(), job.clone());
        tokio::spawn(async move { work(&job).await });
        id
    });
    if spoil == Some(Spoil::LoseAnswer) {
        // The body breaks off: the connection is closed in the middle of the answer.
        let broken = tokio_stream_of_an_error();
        return Response::new(Body::from_stream(broken));
    }
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

/// A body that fails at once.
fn tokio_stream_of_an_error() -> impl futures_util::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures_util::stream::once(async { Err(std::io::Error::other("the answer is lost")) })
}

async fn work(job: &Job) {
    match job.input["work"].as_str().unwrap_or_default() {
        "succeed" => job.finish("done"),
        "fail" => job.finish("failed"),
        "progress" => {
            if let Some(callback) = &job.callback {
                report(&format!("{callback}/progress"), json!({"percent": 1})).await;
            }
            job.finish("done");
        }
        _ => {}
    }
}

async fn find(State(shop): State<Arc<Shop>>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let jobs = shop.jobs();
    let found = jobs.iter().find(|(_, job)| Some(&job.key) == query.get("key"));
    Json(found.map_or(json!({}), |(id, _)| json!({ "id": id })))
}

async fn look(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    Ok(Json(shop.job(&id)?.document()))
}

async fn output(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    let job = shop.job(&id)?;
    let done = *job.state.borrow() == "done";
    if done { Ok(Json(json!({ "of": id }))) } else { Err(StatusCode::NOT_FOUND) }
}

async fn stop(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<StatusCode, StatusCode> {
    shop.stopped.fetch_add(1, SeqCst);
    let job = shop.job(&id)?;
    if job.input["work"] != "deaf" {
        job.finish("stopped");
    }
    Ok(StatusCode::ACCEPTED)
}

async fn remove(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> StatusCode {
    shop.jobs().remove(&id);
    StatusCode::NO_CONTENT
}

/// Answers when the job is done: at once, or never.
async fn push(State(shop): State<Arc<Shop>>, Json(input): Json<Value>) -> Response {
    shop.made.fetch_add(1, SeqCst);
    match input["work"].as_str() {
        Some("succeed") => Json(json!({"pushed": true})).into_response(),
        Some("fail") => (StatusCode::INTERNAL_SERVER_ERROR, "it failed").into_response(),
        _ => std::future::pending().await,
    }
}

/// Leads to where the query says.
async fn away(Query(query): Query<HashMap<String, String>>) -> Response {
    (StatusCode::FOUND, [("location", query["to"].clone())]).into_response()
}

/// Long past anything that a test waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
