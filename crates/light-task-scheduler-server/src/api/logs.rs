//! What tasks write: read in parts, or followed.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use light_task_scheduler::results::{LOG_CHUNK_BYTES_MAX, LogKey, Stream as LogStream};
use light_task_scheduler::{StoreExt, TaskId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::Caller;
use super::body::Params;
use super::events::{ALIVE_INTERVAL, LAST_EVENT_ID};
use super::problem::{Code, Problem, Result};

/// Most bytes in one answer (1 MiB); the rest is asked for by its offset.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How often a log that is followed is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the log is in all, in bytes.
const LENGTH_HEADER: HeaderName = HeaderName::from_static("x-log-length");

/// Which of the two streams of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamName {
    /// What it prints.
    Stdout,
    /// What it complains.
    Stderr,
}

impl From<StreamName> for LogStream {
    fn from(name: StreamName) -> Self {
        match name {
            StreamName::Stdout => LogStream::Stdout,
            StreamName::Stderr => LogStream::Stderr,
        }
    }
}

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParams {
    /// Which stream. Default: `stdout`, or both where it is followed.
    #[serde(default)]
    #[param(inline)]
    stream: Option<StreamName>,
    /// Which start of the task. Default: the last one.
    #[serde(default)]
    execution: Option<u64>,
    /// From which byte on.
    #[serde(default)]
    offset: u64,
    /// How many bytes, at most 1 MiB.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1_048_576)]
    limit: Option<u64>,
    /// Follows it until the task ends, as server-sent events: `log` with `{stream, execution, offset, text}`, then
    /// `end` with `{state}`.
    #[serde(default)]
    follow: bool,
}

/// What a task has written, as it is, or followed live.
///
/// `X-Log-Length` says how long the log is in all. A `Range` of bytes can be asked for.
#[utoipa::path(get, operation_id = "read_logs", path = "/api/v1/tasks/{id}/logs", tag = "tasks",
    params(("id" = String, Path), LogParams, ("Range" = Option<String>, Header)),
    responses(
        (status = 200, content((String = "text/plain"), (String = "text/event-stream"))),
        (status = 206, description = "a part of it", body = String, content_type = "text/plain"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = ["viewer"])))]
pub(crate) async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let task = api.task(&id, &caller).await?;
    if params.follow {
        let place = api.stream_place()?;
        let tail = Tail::new(api, task.id, &params, &headers, place);
        return Ok(Sse::new(follow(tail)).keep_alive(KeepAlive::new().interval(ALIVE_INTERVAL)).into_response());
    }
    let stream = params.stream.map_or(LogStream::Stdout, LogStream::from);
    let key = LogKey { id: task.id, execution: params.execution.unwrap_or(task.record.execution), stream };
    let len = api.logs().len(&key).await.map_err(Box::<Problem>::from)?;
    let asked = headers.get(header::RANGE).map(|range| parse_range(range, len)).transpose()?.flatten();
    let (from, to) = asked.unwrap_or_else(|| {
        let limit = params.limit.unwrap_or(ANSWER_BYTES_MAX).min(ANSWER_BYTES_MAX);
        (params.offset.min(len), params.offset.saturating_add(limit).min(len))
    });
    let bytes = read_part(&api, &key, from, to).await?;
    let mut response = bytes.into_response();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(header::ACCEPT_RANGES, "bytes");
    set(LENGTH_HEADER, &len.to_string());
    if asked.is_some() {
        set(header::CONTENT_RANGE, &format!("bytes {from}-{}/{len}", to.saturating_sub(1)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn read_part(api: &Api, key: &LogKey, from: u64, to: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(LOG_CHUNK_BYTES_MAX);
        let read = api.logs().read(key, at, wanted).await?;
        if read.is_empty() {
            break;
        }
        at += read.len() as u64;
        bytes.extend(read);
    }
    Ok(bytes)
}

/// The part of so long a log that a `Range` asks for, end exclusive; `None`: what is not understood is ignored, as the
/// standard wants it.
fn parse_range(range: &HeaderValue, len: u64) -> Result<Option<(u64, u64)>> {
    let text = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")).filter(|text| !text.contains(','));
    let Some((first, last)) = text.and_then(|text| text.trim().split_once('-')) else { return Ok(None) };
    let part = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => (first, len),
        (None, Some(last)) if first.is_empty() => (len.saturating_sub(last), len),
        _ => return Ok(None),
    };
    if part.0 >= len {
        return Err(Problem::new(Code::RangeNotSatisfiable, format!("the log has {len} bytes")));
    }
    Ok(Some((part.0, part.1.min(part.0 + ANSWER_BYTES_MAX))))
}

/// How far a log has been followed.
struct Tail {
    api: Api,
    id: TaskId,
    streams: Vec<LogStream>,
    execution: u64,
    offsets: [u64; 2],
    /// What is to be said before the next look.
    ready: std::collections::VecDeque<Event>,
    ended: bool,
    _place: tokio::sync::OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Piece<'a> {
    stream: LogStream,
    execution: u64,
    offset: u64,
    text: &'a str,
}

impl Tail {
    fn new(
        api: Api,
        id: TaskId,
        params: &LogParams,
        headers: &HeaderMap,
        place: tokio::sync::OwnedSemaphorePermit,
    ) -> Self {
        // Where this reader was before its connection broke.
        let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let numbers: Option<Vec<u64>> = last.and_then(|id| id.split(':').map(|part| part.parse().ok()).collect());
        let (execution, offsets) = match numbers.as_deref() {
            Some([execution, stdout, stderr]) => (*execution, [*stdout, *stderr]),
            _ => (params.execution.unwrap_or_default(), [params.offset; 2]),
        };
        let streams = params.stream.map_or(LogStream::ALL.to_vec(), |stream| vec![stream.into()]);
        Tail { api, id, streams, execution, offsets, ready: Default::default(), ended: false, _place: place }
    }

    /// Reads what is new.
    async fn look(&mut self) -> Result<()> {
        // Before the look at the logs: what was written before the end is seen.
        let task = self.api.store().task(&self.id).await?;
        if self.execution != task.record.execution {
            // The rest of the start before.
            if self.execution != 0 {
                self.look_at_logs(true).await?;
            }
            self.execution = task.record.execution;
            self.offsets = [0; 2];
        }
        let ended = task.record.state.is_terminal();
        self.look_at_logs(ended).await?;
        if ended {
            self.ended = true;
            let said = serde_json::json!({ "state": task.record.state });
            self.ready.push_back(Event::default().event("end").data(said.to_string()));
        }
        Ok(())
    }

    async fn look_at_logs(&mut self, last: bool) -> Result<()> {
        for stream in self.streams.clone() {
            let key = LogKey { id: self.id.clone(), execution: self.execution, stream };
            let offset = self.offsets[stream as usize];
            let bytes = read_part(&self.api, &key, offset, offset + ANSWER_BYTES_MAX).await?;
            let whole = if last { bytes.len() } else { whole_letters(&bytes) };
            if whole == 0 {
                continue;
            }
            self.offsets[stream as usize] += whole as u64;
            let text = String::from_utf8_lossy(&bytes[..whole]);
            let piece = Piece { stream, execution: self.execution, offset, text: &text };
            let [stdout, stderr] = self.offsets;
            let event = Event::default().event("log").id(format!("{}:{stdout}:{stderr}", self.execution));
            self.ready.push_back(event.data(serde_json::to_string(&piece).unwrap_or_default()));
        }
        Ok(())
    }
}

/// How many of these bytes end with a whole letter: what was written of the next one is not all there yet.
fn whole_letters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn follow(tail: Tail) -> impl Stream<Item = std::result::Result<Event, std::convert::Infallible>> {
    futures_util::stream::unfold(tail, |mut tail| async move {
        loop {
            if let Some(event) = tail.ready.pop_front() {
                return Some((Ok(event), tail));
            }
            if tail.ended {
                return None;
            }
            // A store that cannot answer now is asked again; a task that is gone has no more to say.
            if let Err(problem) = tail.look().await
                && problem.code == Code::NotFound
            {
                return None;
            }
            if tail.ready.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                    () = tail.api.stopping() => return None,
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        let of = |text: &'static str| parse_range(&HeaderValue::from_static(text), 10).map_err(|problem| problem.code);
        assert_eq!(of("bytes=2-4"), Ok(Some((2, 5))));
        assert_eq!(of("bytes=2-99"), Ok(Some((2, 10))));
        assert_eq!(of("bytes=2-"), Ok(Some((2, 10))));
        assert_eq!(of("bytes=-3"), Ok(Some((7, 10))));
        assert_eq!(of("bytes=10-"), Err(Code::RangeNotSatisfiable));
        for ignored in ["bytes=4-2", "bytes=1-2,4-5", "lines=1-2", "bytes=x-"] {
            assert_eq!(of(ignored), Ok(None), "{ignored}");
        }
    }

    #[test]
    fn letters_are_not_cut() {
        assert_eq!(whole_letters("aé".as_bytes()), 3);
        assert_eq!(whole_letters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_letters(b"a\xff"), 2);
    }
}
