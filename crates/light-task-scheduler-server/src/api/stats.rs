//! Numbers: how many tasks there are, and how that has changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use light_task_scheduler::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::body::Params;
use super::problem::{Problem, Result};
use super::queues::{Counts, QueueView, queues};
use super::{Api, Shared};

/// How often tasks are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// How many points a series has at most.
const POINTS_MAX: usize = 120;

/// How the numbers of tasks were at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    counts: Counts,
}

/// How the numbers of tasks have changed, as far back as the longest window: per window one ring of points, which
/// costs 40 KiB in all. It begins anew with the server.
#[derive(Debug, Default)]
pub(crate) struct History {
    rings: Mutex<BTreeMap<Window, VecDeque<Sample>>>,
}

/// How far back a series goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
pub(crate) enum Window {
    /// 15 minutes.
    #[default]
    #[serde(rename = "15m")]
    Quarter,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A day.
    #[serde(rename = "24h")]
    Day,
    /// A week.
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    const ALL: [Window; 4] = [Window::Quarter, Window::Hour, Window::Day, Window::Week];

    /// How far back it goes, in seconds.
    fn seconds(self) -> u64 {
        match self {
            Window::Quarter => 900,
            Window::Hour => 3_600,
            Window::Day => 86_400,
            Window::Week => 604_800,
        }
    }

    /// How far its points are apart.
    fn step(self) -> Duration {
        Duration::from_secs(self.seconds()) / u32::try_from(POINTS_MAX).unwrap_or(u32::MAX)
    }
}

impl History {
    /// Keeps a sample in each ring whose last one is old enough.
    fn add(&self, sample: Sample) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        for window in Window::ALL {
            let ring = rings.entry(window).or_default();
            let due = ring.back().is_none_or(|last| sample.at.since(last.at) >= window.step());
            if due {
                ring.push_back(sample);
            }
            if ring.len() > POINTS_MAX + 1 {
                ring.pop_front();
            }
        }
    }

    fn series(&self, window: Window) -> Vec<Point> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let samples: Vec<&Sample> = rings.get(&window).into_iter().flatten().collect();
        samples.windows(2).map(|pair| Point::between(pair[0], pair[1])).collect()
    }
}

/// Counts tasks again and again, until the API is gone or stopped.
pub(super) async fn count(shared: Weak<Shared>, stop: CancellationToken) {
    loop {
        let Some(api) = shared.upgrade() else { return };
        // A store that cannot answer leaves a gap.
        if let Ok(queues) = api.source.store().counts().await {
            let mut counts = Counts::default();
            queues.iter().for_each(|queue| counts += Counts::from(queue));
            let api = Api { shared: api };
            api.history().add(Sample { at: api.now(), counts });
        }
        tokio::select! {
            () = tokio::time::sleep(COUNT_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One point of a series.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Point {
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it is, in seconds.
    seconds: f64,
    /// How many succeeded in it. What retention removed meanwhile is missing.
    succeeded: u64,
    /// How many failed for good in it.
    failed: u64,
    /// How many were cancelled in it.
    cancelled: u64,
    /// How many waited at its end, also for their time.
    waiting: u64,
    /// How many ran at its end.
    running: u64,
}

impl Point {
    fn between(from: &Sample, to: &Sample) -> Point {
        let (before, after) = (&from.counts, &to.counts);
        Point {
            at: to.at,
            seconds: to.at.since(from.at).as_secs_f64(),
            succeeded: after.succeeded.saturating_sub(before.succeeded),
            failed: after.failed.saturating_sub(before.failed),
            cancelled: after.cancelled.saturating_sub(before.cancelled),
            waiting: after.waiting + after.scheduled,
            running: after.running + after.exporting,
        }
    }
}

/// The numbers of now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
    /// Over all queues.
    totals: Counts,
    /// Queue by queue.
    queues: Vec<QueueView>,
}

/// How many tasks there are in each state, in all and queue by queue.
#[utoipa::path(get, operation_id = "read_stats", path = "/api/v1/stats", tag = "operations",
    responses(
        (status = 200, body = Stats),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn read(State(api): State<Api>, caller: Caller) -> Result<Json<Stats>, Response> {
    Ok(Json(snapshot(&api, &caller).await?))
}

impl Stats {
    /// The numbers without the time.
    pub(crate) fn numbers(&self) -> String {
        serde_json::to_string(&self.queues).unwrap_or_default()
    }
}

/// The numbers of now, as the caller may see them.
pub(crate) async fn snapshot(api: &Api, caller: &Caller) -> Result<Stats> {
    let queues = queues(api, caller).await?;
    let mut totals = Counts::default();
    queues.iter().for_each(|queue| totals += queue.counts());
    Ok(Stats { now: api.now(), totals, queues })
}

/// Which series.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesParams {
    /// How far back: `15m`, `1h`, `24h` or `7d`. Default `15m`.
    #[serde(default)]
    #[param(inline)]
    window: Window,
}

/// A series.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    /// How far back it may go.
    window: Window,
    /// Oldest first, at most 120. It begins with the server.
    points: Vec<Point>,
}

/// How the numbers have changed since the server was started.
#[utoipa::path(get, operation_id = "read_time_series", path = "/api/v1/stats/timeseries", tag = "operations", params(SeriesParams),
    responses(
        (status = 200, body = Series),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn time_series(
    State(api): State<Api>,
    caller: Caller,
    Params(params): Params<SeriesParams>,
) -> Result<Json<Series>, Response> {
    // It is counted over all queues.
    caller.check_all_queues()?;
    Ok(Json(Series { window: params.window, points: api.history().series(params.window) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_what_happened_between_two_counts() {
        let history = History::default();
        for second in 0..2_000 {
            let counts = Counts { succeeded: second * 3, waiting: 5, ..Counts::default() };
            history.add(Sample { at: Timestamp::from_micros(second as i64 * 1_000_000), counts });
        }
        let quarter = history.series(Window::Quarter);
        assert_eq!(quarter.len(), POINTS_MAX);
        let step = Window::Quarter.step().as_secs_f64().ceil();
        assert!(quarter.iter().all(|point| point.seconds == step && point.succeeded == 3 * step as u64), "{quarter:?}");
        assert_eq!(history.series(Window::Hour).len(), 2_000 / 30 - 1 + usize::from(2_000 % 30 > 0));
    }
}
