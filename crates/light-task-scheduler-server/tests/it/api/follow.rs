//! Logs and events, read in parts and followed.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use futures_util::StreamExt;
use light_task_scheduler::results::{LogKey, Stream};
use light_task_scheduler::{LogStore, TaskId};

use super::{Site, request};

/// Reads a stream of events until one is as asked for, and answers all that came.
async fn until(response: axum::response::Response, last: impl Fn(&str) -> bool) -> Vec<String> {
    let mut chunks = response.into_body().into_data_stream();
    let (mut text, mut events) = (String::new(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            events.push(event.to_owned());
            text = rest.to_owned();
            if last(&events[events.len() - 1]) {
                return events;
            }
        }
    }
    events
}

#[tokio::test]
async fn a_log_is_read_in_parts() {
    let site = Site::open().await;
    let id = site.submit(r#"{"kind": "ok"}"#).await;
    let execution = site.ended(&id).await["execution"].as_u64().unwrap();
    let key = LogKey { id: TaskId::new(&id).unwrap(), execution, stream: Stream::Stdout };
    site.logs.append(&key, 0, b"0123456789").await.unwrap();
    let path = format!("/api/v1/tasks/{id}/logs");
    let whole = site.get(&path).await;
    assert_eq!((whole.body.as_slice(), whole.header("x-log-length")), (b"0123456789".as_slice(), "10"));
    assert_eq!(site.get(&format!("{path}?offset=3&limit=2")).await.body, b"34");
    assert_eq!(site.get(&format!("{path}?stream=stderr")).await.body, b"");
    let range = async |range: &str| {
        site.send(request(Method::GET, &path).header("range", range).body(Body::empty()).unwrap()).await
    };
    let part = range("bytes=-4").await;
    assert_eq!((part.status, part.body.as_slice()), (StatusCode::PARTIAL_CONTENT, b"6789".as_slice()));
    assert_eq!(part.header("content-range"), "bytes 6-9/10");
    assert_eq!(range("bytes=10-").await.code(), "range_not_satisfiable");
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let site = Site::open().await;
    let id = site.submit(r#"{"kind": "stuck"}"#).await;
    while site.get(&format!("/api/v1/tasks/{id}")).await.json()["state"] != "running" {
        tokio::task::yield_now().await;
    }
    let path = format!("/api/v1/tasks/{id}/logs?follow=true");
    let response = site.raw(request(Method::GET, &path).body(Body::empty()).unwrap()).await;
    let key = LogKey { id: TaskId::new(&id).unwrap(), execution: 1, stream: Stream::Stderr };
    // A letter in two parts is told when it is whole.
    site.logs.append(&key, 0, &"é!".as_bytes()[..1]).await.unwrap();
    site.logs.append(&key, 1, &"é!".as_bytes()[1..]).await.unwrap();
    let stop = async { site.post(&format!("/api/v1/tasks/{id}/cancel"), "").await };
    let (events, _) = tokio::join!(until(response, |event| event.starts_with("event: end")), stop);
    let all = events.concat();
    assert!(all.contains(r#""text":"é!""#) && all.contains(r#"{"state":"cancelled"}"#), "{events:?}");
}

#[tokio::test]
async fn events_tell_what_moves_and_how_many_there_are() {
    let site = Site::open().await;
    let response = site.raw(request(Method::GET, "/api/v1/events").body(Body::empty()).unwrap()).await;
    let id = site.submit(r#"{"kind": "ok"}"#).await;
    let ended = format!(r#"{{"id":"{id}","state":"succeeded"}}"#);
    let events = until(response, |event| event.contains(&ended)).await;
    assert!(events[0].starts_with("event: stats"), "{events:?}");
    let last = events.last().unwrap();
    let number = last.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();

    // Whoever comes back is told what came after.
    let other = site.submit(r#"{"kind": "ok"}"#).await;
    site.ended(&other).await;
    let again = request(Method::GET, "/api/v1/events").header("last-event-id", number).body(Body::empty()).unwrap();
    let events = until(site.raw(again).await, |event| event.contains(&other)).await;
    assert!(!events.concat().contains(&id) && !events.concat().contains("event: reset"), "{events:?}");
    let stranger = request(Method::GET, "/api/v1/events").header("last-event-id", "x-1").body(Body::empty()).unwrap();
    assert!(until(site.raw(stranger).await, |_| true).await[0].starts_with("event: reset"));
}

#[tokio::test]
async fn a_stopped_server_ends_its_streams() {
    let site = Site::open().await;
    let response = site.raw(request(Method::GET, "/api/v1/events").body(Body::empty()).unwrap()).await;
    let id = site.submit(r#"{"kind": "ok", "held": true}"#).await;
    let log = request(Method::GET, &format!("/api/v1/tasks/{id}/logs?follow=true")).body(Body::empty()).unwrap();
    let log = site.raw(log).await;
    site.api.stop();
    tokio::join!(until(response, |_| false), until(log, |_| false));
}

#[tokio::test]
async fn a_task_that_nobody_tells_of_is_counted_all_the_same() {
    let site = Site::open().await;
    let response = site.raw(request(Method::GET, "/api/v1/events").body(Body::empty()).unwrap()).await;
    site.submit(r#"{"kind": "ok", "held": true}"#).await;
    let events = until(response, |event| event.starts_with("event: stats") && event.contains(r#""held":1"#)).await;
    assert!(events.last().unwrap().contains(r#""held":1"#), "{events:?}");
}
