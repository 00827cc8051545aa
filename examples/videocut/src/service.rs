//! The micro-service: four calls, as in the original, that take and give JSON.
//!
//! | call | takes | gives |
//! |---|---|---|
//! | `POST /VideoCut` | `InputVideo`, `StartTime`, `EndTime`; header `Idempotency-Key` | `TaskId` |
//! | `POST /Status` | `TaskId` | `TaskId`, `Status`, `Reason`, `Progress` (in percent, while it runs) |
//! | `POST /GetOutputVideo` | `TaskId` | `TaskId`, `OutputVideo`, `Reason` |
//! | `POST /Stop` | `TaskId` | `Reason` |
//!
//! Other than the original it answers 404 for a cut that it does not know, 400 for what it will never cut and 503 while
//! it has no room; looking at a status changes nothing, and no name leads out of the media directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request as HttpRequest, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Result;
use crate::cuts::{Cuts, Refusal, Request, State};

/// Where the service says where it listens, in the data directory.
pub(crate) const URL_FILE: &str = "service.url";

struct Service {
    cuts: Arc<Cuts>,
    /// Ffmpegs at once.
    most: usize,
    /// Counts the calls, to tell whether anybody still asks.
    calls: AtomicU64,
}

/// Serves until it is asked to end by a signal, or is idle.
pub(crate) async fn serve(dir: &Path, listen: &str, idle: Option<u64>) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let cuts = Cuts::open(dir)?;
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).max(2);
    let service = Arc::new(Service { cuts, most, calls: AtomicU64::new(0) });
    let router = Router::new()
        .route("/VideoCut", post(video_cut))
        .route("/Status", post(status))
        .route("/GetOutputVideo", post(output_video))
        .route("/Stop", post(stop))
        .layer(middleware::from_fn_with_state(service.clone(), count))
        .with_state(service.clone());
    let listener =
        tokio::net::TcpListener::bind(listen).await.map_err(|error| format!("cannot listen at {listen}: {error}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let part = dir.join(".service.url.part");
    std::fs::write(&part, &url)?;
    std::fs::rename(part, dir.join(URL_FILE))?;
    axum::serve(listener, router).with_graceful_shutdown(until_idle(service, idle)).await?;
    Ok(())
}

/// Waits until nobody has asked for anything for a while, and nothing is cut.
async fn until_idle(service: Arc<Service>, idle: Option<u64>) {
    let Some(idle) = idle.map(Duration::from_secs) else { return std::future::pending().await };
    loop {
        let before = service.calls.load(Ordering::Relaxed);
        tokio::time::sleep(idle).await;
        if service.calls.load(Ordering::Relaxed) == before && !service.cuts.is_busy() {
            return;
        }
    }
}

async fn count(Shared(service): Shared<Arc<Service>>, request: HttpRequest, next: Next) -> Response {
    service.calls.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    task_id: String,
}

async fn video_cut(
    Shared(service): Shared<Arc<Service>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    match service.cuts.start(request, key, service.most) {
        Ok(id) => Json(json!({ "TaskId": id })).into_response(),
        Err(Refusal::Bad(reason)) => (StatusCode::BAD_REQUEST, Json(json!({ "Reason": reason }))).into_response(),
        Err(Refusal::Full) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "no room").into_response(),
        Err(Refusal::Broken(reason)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "Reason": reason }))).into_response()
        }
    }
}

async fn status(Shared(service): Shared<Arc<Service>>, Json(named): Json<Named>) -> Response {
    let Some(cut) = service.cuts.get(&named.task_id) else { return unknown(&named.task_id) };
    Json(json!({ "TaskId": cut.id, "Status": cut.state, "Reason": cut.reason, "Progress": service.cuts.far(&cut) }))
        .into_response()
}

async fn output_video(Shared(service): Shared<Arc<Service>>, Json(named): Json<Named>) -> Response {
    let Some(cut) = service.cuts.get(&named.task_id) else { return unknown(&named.task_id) };
    let answer: Value = match cut.state {
        State::Succeeded => json!({ "TaskId": cut.id, "OutputVideo": cut.output, "Reason": "" }),
        _ => json!({ "TaskId": cut.id, "OutputVideo": null, "Reason": "it has no output" }),
    };
    Json(answer).into_response()
}

async fn stop(Shared(service): Shared<Arc<Service>>, Json(named): Json<Named>) -> Response {
    match service.cuts.stop(&named.task_id) {
        None => unknown(&named.task_id),
        Some(State::Running) => Json(json!({ "Reason": "" })).into_response(),
        Some(_) => Json(json!({ "Reason": "it does not run any more" })).into_response(),
    }
}

fn unknown(id: &str) -> Response {
    let reason = format!("there is no cut `{id}`");
    (StatusCode::NOT_FOUND, Json(json!({ "TaskId": id, "Reason": reason }))).into_response()
}
