//! Queues: how deep they are, their limits, and whether they are paused.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use light_task_scheduler::store::QueueCounts;
use light_task_scheduler::{Name, QueueSettings, RateLimit, State as TaskState, StoreExt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::body::{Body, Span};
use super::precondition::{IfMatch, Tagged, tag_of, tagged};
use super::problem::{Problem, Result};

/// How many tasks there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(crate) struct Counts {
    /// Wait for an explicit start.
    pub(crate) held: u64,
    /// May run now.
    pub(crate) waiting: u64,
    /// Wait for their time: delayed, or to be tried again.
    pub(crate) scheduled: u64,
    /// Run.
    pub(crate) running: u64,
    /// Have succeeded; their results are being saved.
    pub(crate) exporting: u64,
    /// Done.
    pub(crate) succeeded: u64,
    /// Given up.
    pub(crate) failed: u64,
    /// Stopped by wish.
    pub(crate) cancelled: u64,
}

impl Counts {
    /// Each with its name.
    pub(crate) fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("held", self.held),
            ("waiting", self.waiting),
            ("scheduled", self.scheduled),
            ("running", self.running),
            ("exporting", self.exporting),
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
        ]
    }
}

impl From<&QueueCounts> for Counts {
    fn from(counts: &QueueCounts) -> Self {
        Counts {
            held: counts.of(TaskState::Held),
            waiting: counts.of(TaskState::Waiting).saturating_sub(counts.scheduled),
            scheduled: counts.scheduled,
            running: counts.of(TaskState::Running),
            exporting: counts.of(TaskState::Exporting),
            succeeded: counts.of(TaskState::Succeeded),
            failed: counts.of(TaskState::Failed),
            cancelled: counts.of(TaskState::Cancelled),
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.held += other.held;
        self.waiting += other.waiting;
        self.scheduled += other.scheduled;
        self.running += other.running;
        self.exporting += other.exporting;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
    }
}

/// At most so many starts per period.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// Starts per period.
    #[schema(minimum = 1)]
    count: u32,
    /// The period. Default `1s`.
    #[serde(default = "second")]
    #[schema(value_type = Option<String>)]
    period: Span,
    /// How many may start at once after a quiet time. Default 1: evenly spread.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    burst: u32,
}

fn second() -> Span {
    Span(Duration::from_secs(1))
}

fn one() -> u32 {
    1
}

/// How a queue is operated.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// At most so many run at once, over all workers, exactly. None: unbounded.
    #[schema(minimum = 1)]
    concurrency: Option<u32>,
    /// At most so many start per time, over all workers. None: unbounded.
    rate: Option<Rate>,
    /// Nothing of it is started.
    paused: bool,
}

impl From<QueueSettings> for Settings {
    fn from(settings: QueueSettings) -> Self {
        let rate = |rate: RateLimit| Rate { count: rate.count, period: Span(rate.period), burst: rate.burst };
        Settings { concurrency: settings.concurrency, rate: settings.rate.map(rate), paused: settings.paused }
    }
}

impl From<Settings> for QueueSettings {
    fn from(settings: Settings) -> Self {
        let rate = |rate: Rate| RateLimit { count: rate.count, period: rate.period.0, burst: rate.burst };
        QueueSettings { concurrency: settings.concurrency, rate: settings.rate.map(rate), paused: settings.paused }
    }
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// Its name.
    name: String,
    /// How many tasks it has in each state.
    counts: Counts,
    /// How it is operated.
    settings: Settings,
}

impl QueueView {
    /// How many tasks it has in each state.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn tag(&self) -> Tagged {
        tagged(tag_of(&self.settings))
    }
}

/// Every queue that the caller may see, by name.
pub(crate) async fn queues(api: &Api, caller: &Caller) -> Result<Vec<QueueView>> {
    let (settings, counts) = (api.store().queues().await?, api.store().counts().await?);
    let of = |name: &Name| counts.iter().find(|counts| counts.queue == *name).map(Counts::from).unwrap_or_default();
    let seen = settings.into_iter().filter(|(name, _)| caller.may_use(name));
    Ok(seen
        .map(|(name, settings)| QueueView { counts: of(&name), settings: settings.into(), name: name.to_string() })
        .collect())
}

/// Lists the queues.
#[utoipa::path(get, operation_id = "list_queues", path = "/api/v1/queues", tag = "queues",
    responses(
        (status = 200, body = Vec<QueueView>),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn list(State(api): State<Api>, caller: Caller) -> Result<Json<Vec<QueueView>>, Response> {
    Ok(Json(queues(&api, &caller).await?))
}

/// Reads a queue. The `ETag` is that of its settings, whatever its counts are.
#[utoipa::path(get, operation_id = "read_queue", path = "/api/v1/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses(
        (status = 200, body = QueueView, headers(("ETag" = String))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<(Tagged, Json<QueueView>), Response> {
    let queue = queue(&api, &caller, &name).await?;
    Ok((queue.tag(), Json(queue)))
}

async fn queue(api: &Api, caller: &Caller, name: &str) -> Result<QueueView> {
    let found = queues(api, caller).await?.into_iter().find(|queue| queue.name == name);
    found.ok_or_else(|| Problem::not_found(format_args!("queue {name}")))
}

/// Creates a queue, or replaces its settings; what is left out is unbounded and not paused.
#[utoipa::path(put, operation_id = "set_queue", path = "/api/v1/queues/{name}", tag = "queues",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "only if this is its ETag right before the change")),
    request_body = Settings,
    responses(
        (status = 200, body = QueueView, headers(("ETag" = String))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn set(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    seen: IfMatch,
    Body(settings): Body<Settings>,
) -> Result<(Tagged, Json<QueueView>), Response> {
    let queue_name = allowed(&caller, &name)?;
    if seen.is_given() {
        let known = api.store().queues().await.map_err(Box::<Problem>::from)?;
        let known = known.into_iter().find(|(known, _)| *known == queue_name);
        let tag = known.map(|(_, settings)| tag_of(&Settings::from(settings)));
        seen.check(format_args!("queue {name}"), tag.as_deref())?;
    }
    api.store().set_queue(queue_name, settings.into()).await.map_err(Box::<Problem>::from)?;
    let queue = queue(&api, &caller, &name).await?;
    Ok((queue.tag(), Json(queue)))
}

/// Stops starting tasks of a queue; what runs goes on.
#[utoipa::path(post, operation_id = "pause_queue", path = "/api/v1/queues/{name}/pause", tag = "queues", params(("name" = String, Path)),
    responses(
        (status = 200, body = QueueView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<QueueView>, Response> {
    Ok(Json(set_paused(&api, &caller, &name, true).await?))
}

/// Starts tasks of a queue again.
#[utoipa::path(post, operation_id = "resume_queue", path = "/api/v1/queues/{name}/resume", tag = "queues", params(("name" = String, Path)),
    responses(
        (status = 200, body = QueueView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["operator"])))]
pub(crate) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<QueueView>, Response> {
    Ok(Json(set_paused(&api, &caller, &name, false).await?))
}

async fn set_paused(api: &Api, caller: &Caller, name: &str, paused: bool) -> Result<QueueView> {
    let queue_name = allowed(caller, name)?;
    // A queue that nobody knows is a mistyped one.
    queue(api, caller, name).await?;
    api.store().set_paused(&queue_name, paused).await?;
    queue(api, caller, name).await
}

fn allowed(caller: &Caller, name: &str) -> Result<Name> {
    let name = Name::new(name)?;
    caller.check_queue(&name)?;
    Ok(name)
}
