//! The management page: cuts are made, started, stopped, deleted and listed there, and played before and after.
//!
//! The page is made of the console's parts, and works by the API of `lts`; both are mounted below `/lts` as they are. What
//! is about videos is here:
//!
//! | path | answers |
//! |---|---|
//! | `GET /` and `/web/{file}` | the page |
//! | `GET /videos` | the videos that can be cut: id, name, length |
//! | `POST /cuts` | takes `video` (an id), `from`, `to` in seconds, and `held`; gives the `id` of the task |
//! | `GET /cuts/{id}` | the ids of a cut's videos, before and after |
//! | `GET /media/{id}` | a video, also parts of it (`Range`) |
//!
//! No path of a request is ever opened: an id is looked up among those of the videos that are there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use light_task_scheduler::executor::http::HttpJob;
use light_task_scheduler::results::MemoryLogs;
use light_task_scheduler::task::Start;
use light_task_scheduler::{Scheduler, Shutdown, State as TaskState, TaskId};
use light_task_scheduler_server::api::{Admission, Api, ApiOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use crate::cuts::Request as Cut;
use crate::media::{Lengths, Video};
use crate::{Cutting, Result, media, schedule};

/// Where the API and the console are; the page's own files say so too.
const LTS: &str = "/lts";
/// How often the micro-service is asked whether it is there: sooner than it ends because nobody asks.
const KEEP: Duration = Duration::from_secs(5);
/// How long what is being answered may take once the program is to end.
const DRAIN: Duration = Duration::from_secs(2);
/// Nothing is loaded but from here, and nothing runs that stands within a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'";
const PAGE: &str = include_str!("../web/index.html");
/// The files of the page.
const FILES: [(&str, &str, &str); 6] = [
    ("main.js", "text/javascript", include_str!("../web/main.js")),
    ("form.js", "text/javascript", include_str!("../web/form.js")),
    ("cuts.js", "text/javascript", include_str!("../web/cuts.js")),
    ("page.css", "text/css", include_str!("../web/page.css")),
    ("en.json", "application/json", include_str!("../web/en.json")),
    ("zh-CN.json", "application/json", include_str!("../web/zh-CN.json")),
];

struct Site {
    scheduler: Scheduler,
    media: PathBuf,
    lengths: Lengths,
}

/// Serves until Ctrl-C or SIGTERM. What is being cut goes on, and is taken up by the next start.
pub(crate) async fn serve(cutting: &Cutting, listen: SocketAddr) -> Result<bool> {
    if !listen.ip().is_loopback() {
        return Err(format!("the page asks for no credentials, so it is for this host only, not for {listen}").into());
    }
    let listener =
        tokio::net::TcpListener::bind(listen).await.map_err(|error| format!("cannot listen at {listen}: {error}"))?;
    let media = media::directory(&cutting.dir);
    tokio::fs::create_dir_all(&media).await.map_err(|error| format!("cannot make {}: {error}", media.display()))?;
    if media::videos(&media).is_empty() {
        media::sample(&media, cutting.seconds).await?;
    }
    let service = schedule::find_service(&cutting.dir).await?;
    let scheduler = schedule::scheduler(cutting, &service).await?;
    let options = ApiOptions { name: "videocut".to_owned(), base_path: LTS.to_owned(), ..ApiOptions::default() };
    let api = Api::new(scheduler.clone(), Arc::new(MemoryLogs::default()), options);
    let site = Arc::new(Site { scheduler: scheduler.clone(), media, lengths: Lengths::default() });
    let keeper = tokio::spawn(keep(cutting.dir.clone()));
    schedule::note(&format!("the page is at http://{}, for this host only; Ctrl-C ends it", listener.local_addr()?));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ending = tokio_util::sync::CancellationToken::new();
    let serving = axum::serve(listener, router(site, &api)).with_graceful_shutdown(ending.clone().cancelled_owned());
    let serving = tokio::spawn(async move { serving.await });
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    ending.cancel();
    api.stop();
    keeper.abort();
    // A video that is being watched need not be seen to its end.
    let _ = tokio::time::timeout(DRAIN, serving).await;
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await?;
    Ok(true)
}

/// Keeps the micro-service there: it ends when nobody asks for anything, and it may be killed.
async fn keep(dir: PathBuf) {
    loop {
        tokio::time::sleep(KEEP).await;
        if let Err(error) = schedule::find_service(&dir).await {
            schedule::note(&error.to_string());
        }
    }
}

fn router(site: Arc<Site>, api: &Api) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/web/{file}", get(file))
        .route("/videos", get(videos))
        .route("/cuts", post(make))
        .route("/cuts/{id}", get(look))
        .route("/media/{id}", get(play))
        .layer(middleware::from_fn(guard))
        .with_state(site)
        .merge(api.router())
}

/// Lets in whom the API lets in, and tells a browser what not to do with the answer.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = match Admission::ThisHost.refusal(request.method(), request.headers()) {
        None => next.run(request).await,
        Some(refusal) => refusal,
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Why not, as the page's parts read it.
fn problem(status: StatusCode, code: &str, detail: impl ToString) -> Response {
    (status, Json(json!({ "code": code, "detail": detail.to_string() }))).into_response()
}

fn unknown(what: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
}

fn broken(error: impl ToString) -> Response {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
}

async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => unknown("file"),
    }
}

async fn videos(State(site): State<Arc<Site>>) -> Json<Value> {
    let mut shown = Vec::new();
    for video in media::videos(&site.media) {
        // One that cannot be read cannot be cut.
        if let Ok(seconds) = site.lengths.of(&video).await {
            shown.push(json!({ "id": video.id, "name": video.name, "seconds": seconds }));
        }
    }
    Json(json!({ "videos": shown, "directory": site.media.display().to_string() }))
}

/// A cut that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The id of a video.
    video: String,
    /// In seconds.
    from: f64,
    /// In seconds.
    to: f64,
    /// It waits until somebody starts it.
    #[serde(default)]
    held: bool,
}

async fn make(State(site): State<Arc<Site>>, Json(wish): Json<Wish>) -> Response {
    let videos = media::videos(&site.media);
    let Some(video) = videos.iter().find(|video| video.id == wish.video) else { return unknown("video") };
    let seconds = match site.lengths.of(video).await {
        Ok(seconds) => seconds,
        Err(error) => return broken(error),
    };
    if !(wish.from >= 0.0 && wish.to > wish.from && wish.to <= seconds + media::FRAME_S) {
        let detail = format!("`from` and `to` must be within the {seconds:.2} s of the video, and `to` behind `from`");
        return problem(StatusCode::BAD_REQUEST, "invalid", detail);
    }
    let task = match schedule::task(&video.name, wish.from, wish.to) {
        Ok(task) if wish.held => task.start(Start::Held),
        Ok(task) => task,
        Err(error) => return broken(error),
    };
    match site.scheduler.submit(task).await {
        Ok(task) => (StatusCode::CREATED, Json(json!({ "id": task.id() }))).into_response(),
        Err(error) => broken(error),
    }
}

async fn look(State(site): State<Arc<Site>>, Path(id): Path<String>) -> Response {
    let Ok(id) = TaskId::new(&id) else { return unknown("cut") };
    let Ok(task) = site.scheduler.get(&id).await else { return unknown("cut") };
    let job = task.spec.payload.parse::<HttpJob>().ok();
    let Some(cut) = job.and_then(|job| serde_json::from_value::<Cut>(job.input).ok()) else { return unknown("cut") };
    // Only what is among the videos that are there, whatever the task says.
    let named = |videos: Vec<Video>, name: &str| videos.into_iter().find(|video| video.name == name);
    let after = match task.record.state {
        TaskState::Succeeded => site.scheduler.handle(&id).result::<String>().await.ok(),
        // Its result would be waited for.
        _ => None,
    };
    let after = after.and_then(|name| named(media::pieces(&site.media), &name));
    let before = named(media::videos(&site.media), &cut.input_video);
    let shown = |video: Option<Video>| video.map(|video| json!({ "id": video.id, "name": video.name }));
    Json(json!({
        "from": cut.start_time, "to": cut.end_time, "before": shown(before), "after": shown(after), "state": task.record.state,
    }))
    .into_response()
}

async fn play(State(site): State<Arc<Site>>, Path(id): Path<String>, request: Request) -> Response {
    let videos = media::videos(&site.media).into_iter().chain(media::pieces(&site.media));
    let Some(video) = videos.into_iter().find(|video| video.id == id) else { return unknown("video") };
    let Ok(kind) = video.kind.parse() else { return broken("the type of the video is no type") };
    // It knows ranges, and that a file may have changed.
    match ServeFile::new_with_mime(&video.file, &kind).oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    }
}
