//! Numbers for Prometheus: how many tasks there are, who works, and how the API does.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use light_task_scheduler::store::{QueueCounts, ReplicaStatus};
use light_task_scheduler::{Name, QueueSettings};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::access::Caller;
use super::problem::{Code, Problem, Result};
use super::queues::Counts;
use super::workers::state_of;
use super::{Api, STREAMS_MAX};

/// The bounds by which times of answers are told apart, in seconds.
const ANSWER_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];
/// The format of Prometheus that all its tools read.
const TEXT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// What is counted as it happens.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    requests: Family<Asked, Counter>,
    seconds: Family<Route, Histogram>,
}

impl Default for Meters {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(ANSWER_SECONDS);
        Meters { requests: Family::default(), seconds: Family::new_with_constructor(histogram) }
    }
}

/// Counts a request and measures its answer up to its headers: a stream goes on for as long as it likes.
pub(super) async fn measured(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let base = api.options().base_path.as_str();
    let route = path.strip_prefix(base).unwrap_or(path).to_owned();
    let method = request.method().to_string();
    let begun = Instant::now();
    let response = next.run(request).await;
    let meters = &api.shared.meters;
    meters.seconds.get_or_create(&Route { route: route.clone() }).observe(begun.elapsed().as_secs_f64());
    meters.requests.get_or_create(&Asked { method, route, status: response.status().as_u16() }).inc();
    response
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    queue: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: String,
}

/// How things stand, in the text format of Prometheus.
#[utoipa::path(get, operation_id = "read_metrics", path = "/metrics", tag = "operations",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn scrape(State(api): State<Api>, caller: Caller) -> Result<Response, Response> {
    caller.check_all_queues()?;
    let failed = Box::<Problem>::from;
    let store = api.store();
    let counts = store.counts().await.map_err(failed)?;
    let queues = store.queues().await.map_err(failed)?;
    let replicas = store.replicas().await.map_err(failed)?;
    let mut registry = Registry::with_prefix("lts");
    let build: Family<Build, Gauge> = Family::default();
    build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("build_info", "The program", build);
    tasks(&mut registry, &counts);
    limits(&mut registry, &queues);
    workers(&mut registry, &replicas);
    let streams: Gauge = Gauge::default();
    let open = STREAMS_MAX - api.shared.streams.available_permits();
    streams.set(i64::try_from(open).unwrap_or(i64::MAX));
    registry.register("streams", "Streams of events and logs that are open", streams);
    let meters = &api.shared.meters;
    registry.register("http_requests", "Requests that were answered", meters.requests.clone());
    let seconds = meters.seconds.clone();
    registry.register_with_unit("http_request_duration", "How long answers took", Unit::Seconds, seconds);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, TEXT_TYPE)], classic(&text)).into_response()),
        Err(error) => Err(Problem::new(Code::Internal, format!("the numbers cannot be written: {error}")).into()),
    }
}

/// OpenMetrics as the format before it: there a counter's own name ends with `_total`, and units and the end are not said.
fn classic(text: &str) -> String {
    let mut counters: Vec<&str> = Vec::new();
    for line in text.lines() {
        counters.extend(line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")));
    }
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(&name) => {
                classic.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// A name as the value of a label: the format wants these three escaped, and its writer leaves that to us.
fn label(name: &Name) -> String {
    name.as_str().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn tasks(registry: &mut Registry, counts: &[QueueCounts]) {
    let family: Family<InState, Gauge> = Family::default();
    for queue in counts {
        for (state, count) in Counts::from(queue).named() {
            let labels = InState { queue: label(&queue.queue), state: state.to_owned() };
            family.get_or_create(&labels).set(whole(count));
        }
    }
    registry.register("tasks", "Tasks, by queue and state", family);
}

fn limits(registry: &mut Registry, queues: &[(Name, QueueSettings)]) {
    let (paused, concurrency): (Family<OfQueue, Gauge>, Family<OfQueue, Gauge>) = Default::default();
    for (name, settings) in queues {
        let labels = OfQueue { queue: label(name) };
        paused.get_or_create(&labels).set(i64::from(settings.paused));
        if let Some(limit) = settings.concurrency {
            concurrency.get_or_create(&labels).set(i64::from(limit));
        }
    }
    registry.register("queue_paused", "Whether nothing of the queue is started", paused);
    registry.register("queue_concurrency_limit", "How many of the queue may run at once", concurrency);
}

fn workers(registry: &mut Registry, replicas: &[ReplicaStatus]) {
    let family: Family<OfState, Gauge> = Family::default();
    for state in ["alive", "expired", "dead"] {
        let count = replicas.iter().filter(|replica| state_of(replica) == state).count() as u64;
        family.get_or_create(&OfState { state: state.to_owned() }).set(whole(count));
    }
    registry.register("workers", "Who takes tasks", family);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(label(&Name::new(r#"a"b\c"#).unwrap()), r#"a\"b\\c"#);
    }

    #[test]
    fn counters_have_one_name() {
        let open = "# HELP a b c.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"y\"} 1\n# EOF\n";
        assert_eq!(classic(open), "# HELP a_total b c.\n# TYPE a_total counter\na_total{x=\"y\"} 1\n");
    }
}
