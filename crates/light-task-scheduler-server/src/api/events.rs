//! What happens, as it happens: one stream of events for each who watches.
//!
//! While nobody watches nothing is done. The numbers are counted at most once a second, and the ends of tasks gathered
//! over a quarter of one, for all watchers together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use light_task_scheduler::scheduler::{Events, Seen};
use light_task_scheduler::store::Changes;
use light_task_scheduler::{Clock, State as TaskState, SystemClock, TaskId};
use serde::Deserialize;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use utoipa::IntoParams;

use super::Api;
use super::access::Caller;
use super::body::Params;
use super::problem::{Problem, Result};
use super::stats::snapshot;

/// How often a silent stream says that it lives.
pub(crate) const ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Where a reader says what it has seen last.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";
/// Over what time the moves of tasks are gathered.
const GATHER: Duration = Duration::from_millis(250);
/// How far two counts are apart at least.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// After how long it is counted even if nothing is known to have changed: not every insertion is told, a held task's is not.
const RECOUNT: Duration = Duration::from_secs(5);
/// Most moves in one event; of more is only said that much has changed.
const MOVES_MAX: usize = 200;
/// How many events a reader can catch up on.
const KEPT: usize = 512;

/// What is said to all who watch.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Sets apart the numbers of two runs of the server.
    epoch: String,
    number: AtomicU64,
    sender: broadcast::Sender<Arc<Said>>,
    kept: Mutex<VecDeque<Arc<Said>>>,
    came: Notify,
}

#[derive(Debug)]
struct Said {
    number: u64,
    topic: Topic,
    data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    /// The numbers have changed.
    Stats,
    /// These tasks have moved.
    Tasks,
    /// Something has changed, and nobody knows what.
    Changed,
    /// Events were missed.
    Reset,
}

impl Topic {
    fn as_str(self) -> &'static str {
        match self {
            Topic::Stats => "stats",
            Topic::Tasks => "tasks",
            Topic::Changed => "changed",
            Topic::Reset => "reset",
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Feed {
            epoch: format!("{:016x}", SystemClock.random()),
            number: AtomicU64::new(0),
            sender: broadcast::Sender::new(KEPT),
            kept: Mutex::default(),
            came: Notify::new(),
        }
    }
}

impl Feed {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<Said>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, topic: Topic, data: String) {
        // The lock is held while it is sent: the order of the numbers is that of the events.
        let mut kept = self.kept();
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let said = Arc::new(Said { number, topic, data });
        kept.push_back(said.clone());
        if kept.len() > KEPT {
            kept.pop_front();
        }
        // Nobody listening is no failure.
        let _ = self.sender.send(said);
    }

    /// Begins to listen after what was seen last; the events in between, or `None` if they are forgotten.
    fn listen(&self, last: Option<&str>) -> (broadcast::Receiver<Arc<Said>>, Option<Vec<Arc<Said>>>) {
        let kept = self.kept();
        let receiver = self.sender.subscribe();
        self.came.notify_one();
        let Some(last) = last else { return (receiver, Some(Vec::new())) };
        let seen = last.split_once('-').filter(|(epoch, _)| *epoch == self.epoch);
        let seen: Option<u64> = seen.and_then(|(_, number)| number.parse().ok());
        let missed = seen.and_then(|seen| {
            let oldest = kept.front().map_or(self.number.load(Ordering::Relaxed) + 1, |said| said.number);
            (oldest <= seen + 1).then(|| kept.iter().filter(|said| said.number > seen).cloned().collect())
        });
        (receiver, missed)
    }
}

/// Speaks while somebody listens, until the API is stopped.
pub(super) async fn speak(
    api: std::sync::Weak<super::Shared>,
    feed: Arc<Feed>,
    stop: tokio_util::sync::CancellationToken,
) {
    loop {
        tokio::select! {
            () = feed.came.notified() => {}
            () = stop.cancelled() => return,
        }
        let Some(shared) = api.upgrade() else { return };
        let api = Api { shared };
        tokio::select! {
            () = watch(&api, &feed) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Watches the scheduler and the store until nobody listens any more.
async fn watch(api: &Api, feed: &Feed) {
    let mut events = api.source().subscribe();
    let mut tick = tokio::time::interval(GATHER);
    let mut moves: BTreeMap<TaskId, TaskState> = BTreeMap::new();
    let mut seen = Changes::default();
    // What a watcher is told first: that is up to date.
    let mut counted: Option<(Instant, String)> = None;
    let (mut much, mut elsewhere, mut uncounted) = (false, false, true);
    loop {
        tokio::select! {
            event = next_of(&mut events) => match event {
                Some(Seen::Event(event)) if moves.len() < MOVES_MAX => {
                    moves.insert(event.id, event.state);
                }
                Some(_) => much = true,
                None => return,
            },
            // At most once a tick: a busy store always has news.
            now = api.store().changed(seen), if !elsewhere => {
                seen = now;
                elsewhere = true;
            }
            _ = tick.tick() => {
                uncounted |= much || elsewhere || !moves.is_empty();
                if !moves.is_empty() && !much {
                    feed.say(Topic::Tasks, moves_text(&moves));
                } else if much || elsewhere {
                    feed.say(Topic::Changed, "{}".to_owned());
                }
                moves.clear();
                (much, elsewhere) = (false, false);
                uncounted |= counted.as_ref().is_some_and(|(at, _)| at.elapsed() >= RECOUNT);
                if uncounted && counted.as_ref().is_none_or(|(at, _)| at.elapsed() >= STATS_INTERVAL) {
                    uncounted = false;
                    say_stats(api, feed, &mut counted).await;
                }
                if feed.sender.receiver_count() == 0 {
                    return;
                }
            }
        }
    }
}

/// The next event of this replica; never, where nothing runs here.
async fn next_of(events: &mut Option<Events>) -> Option<Seen> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

fn moves_text(moves: &BTreeMap<TaskId, TaskState>) -> String {
    let moves: Vec<_> = moves.iter().map(|(id, state)| serde_json::json!({ "id": id, "state": state })).collect();
    serde_json::Value::Array(moves).to_string()
}

/// Counts, and says so if the numbers are others than before.
async fn say_stats(api: &Api, feed: &Feed, counted: &mut Option<(Instant, String)>) {
    let Ok(stats) = snapshot(api, &Caller::anybody()).await else { return };
    let (numbers, whole) = (stats.numbers(), serde_json::to_string(&stats).unwrap_or_default());
    if counted.as_ref().is_none_or(|(_, before)| *before != numbers) {
        feed.say(Topic::Stats, whole);
    }
    *counted = Some((Instant::now(), numbers));
}

/// What is watched.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParams {
    /// Which events, of `stats` and `tasks`. Default: both.
    #[serde(default)]
    topics: Option<String>,
}

/// What happens, as server-sent events.
///
/// `stats` has the numbers of `GET /api/v1/stats`, at most once a second; `tasks` a list of `{id, state}` of tasks that
/// have moved; `changed` says that something else has, and `reset` that events were missed: fetch anew what you show.
/// A stream that breaks is taken up by `Last-Event-ID`.
#[utoipa::path(get, operation_id = "stream_events", path = "/api/v1/events", tag = "operations",
    params(EventParams, ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn stream(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Params(params): Params<EventParams>,
) -> Result<Response, Response> {
    let place = api.stream_place()?;
    let topics: Vec<String> =
        params.topics.unwrap_or_else(|| "stats,tasks".into()).split(',').map(str::to_owned).collect();
    if let Some(unknown) = topics.iter().find(|topic| !matches!(topic.as_str(), "stats" | "tasks")) {
        return Err(Problem::invalid(format!("unknown topic `{unknown}`; known are stats and tasks")).into());
    }
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let (receiver, missed) = api.feed().listen(last);
    let mut watcher = Watcher { api, caller, topics, receiver, ready: VecDeque::new(), _place: place };
    match missed {
        Some(missed) => {
            for said in missed {
                watcher.take(&said).await;
            }
        }
        None => watcher.ready.push_back(watcher.event(Topic::Reset, "{}", None)),
    }
    if last.is_none() {
        watcher.begin().await?;
    }
    let stream = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<Event, std::convert::Infallible>(event), watcher))
    });
    let alive = KeepAlive::new().interval(ALIVE_INTERVAL);
    // A proxy that gathers what it passes on would hold events back.
    Ok(([("x-accel-buffering", "no")], Sse::new(stream).keep_alive(alive)).into_response())
}

/// Somebody who watches.
struct Watcher {
    api: Api,
    caller: Caller,
    topics: Vec<String>,
    receiver: broadcast::Receiver<Arc<Said>>,
    ready: VecDeque<Event>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Watcher {
    fn event(&self, topic: Topic, data: &str, number: Option<u64>) -> Event {
        let event = Event::default().event(topic.as_str()).data(data);
        match number {
            Some(number) => event.id(format!("{}-{number}", self.api.feed().epoch)),
            None => event,
        }
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.iter().any(|wanted| wanted == topic)
    }

    /// How things stand.
    async fn begin(&mut self) -> Result<()> {
        if self.wants("stats") {
            let stats = snapshot(&self.api, &self.caller).await?;
            let text = serde_json::to_string(&stats).unwrap_or_default();
            self.ready.push_back(self.event(Topic::Stats, &text, None));
        }
        Ok(())
    }

    /// Makes ready what this watcher may know of what is said to all.
    async fn take(&mut self, said: &Said) {
        let number = Some(said.number);
        let event = match said.topic {
            Topic::Stats if !self.wants("stats") => return,
            Topic::Tasks | Topic::Changed if !self.wants("tasks") => return,
            Topic::Tasks if self.caller.queues.is_some() => self.event(Topic::Changed, "{}", number),
            Topic::Stats if self.caller.queues.is_some() => match snapshot(&self.api, &self.caller).await {
                Ok(stats) => self.event(Topic::Stats, &serde_json::to_string(&stats).unwrap_or_default(), number),
                Err(_) => return,
            },
            topic => self.event(topic, &said.data, number),
        };
        self.ready.push_back(event);
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let said = tokio::select! {
                said = self.receiver.recv() => said,
                () = self.api.shared.stop.cancelled() => return None,
            };
            match said {
                Ok(said) => self.take(&said).await,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.ready.push_back(self.event(Topic::Reset, "{}", None));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_catches_up_on_what_is_kept_and_is_told_what_is_not() {
        let feed = Feed::default();
        for n in 0..10 {
            feed.say(Topic::Tasks, n.to_string());
        }
        let after = |last: &str| feed.listen(Some(last)).1.map(|missed| missed.len());
        assert_eq!(after(&format!("{}-7", feed.epoch)), Some(3));
        assert_eq!(after(&format!("{}-10", feed.epoch)), Some(0));
        assert_eq!(after("other-7"), None);
        assert_eq!(after("nonsense"), None);
        for n in 0..KEPT {
            feed.say(Topic::Tasks, n.to_string());
        }
        assert_eq!(after(&format!("{}-7", feed.epoch)), None);
        assert_eq!(feed.listen(None).1.map(|missed| missed.len()), Some(0));
    }
}
