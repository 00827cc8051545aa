//! Submit, read, list and operate tasks.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use light_task_scheduler_server::api::ApiOptions;
use serde_json::json;

use super::{Site, request};

#[tokio::test]
async fn a_task_is_submitted_awaited_and_its_result_read() {
    let site = Site::open().await;
    let answer = site.post("/api/v1/tasks", r#"{"kind": "ok", "payload": {"n": 12345678901234567890123}}"#).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let place = answer.header("location").to_owned();
    let task = site.get(&format!("{place}?wait=60s")).await;
    assert_eq!(task.json()["state"], "succeeded");
    let whole = String::from_utf8(task.body).unwrap();
    assert!(whole.contains(r#""payload":{"n": 12345678901234567890123}"#), "a number has changed: {whole}");
    let result = site.get(&format!("{place}/result")).await;
    assert_eq!(result.header("content-type"), "application/json");
    assert_eq!(result.header("content-disposition"), "attachment");
    assert!(result.json().get("n").is_some());
}

#[tokio::test]
async fn a_request_may_be_repeated_by_its_key_or_by_its_own_id() {
    let site = Site::open().await;
    let submit = async |key: &str, payload: &str| {
        let request = request(Method::POST, "/api/v1/tasks").header("idempotency-key", key);
        site.send(request.body(Body::from(format!(r#"{{"kind": "ok", "payload": {payload}}}"#))).unwrap()).await
    };
    let (first, again) = (submit("a", "1").await, submit("a", "1").await);
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(submit("a", "2").await.code(), "idempotency_mismatch");
    assert_eq!(submit("b", "1").await.status, StatusCode::CREATED);
    assert_eq!(submit("", "1").await.code(), "invalid");

    let own = r#"{"kind": "ok", "payload": 1, "id": "mine"}"#;
    assert_eq!(site.post("/api/v1/tasks", own).await.status, StatusCode::CREATED);
    assert_eq!(site.post("/api/v1/tasks", own).await.status, StatusCode::OK);
    let other = r#"{"kind": "ok", "payload": 2, "id": "mine"}"#;
    assert_eq!(site.post("/api/v1/tasks", other).await.code(), "conflict");
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_leave_nothing() {
    let site = Site::open().await;
    for (body, why) in [
        (r#"{"kind": "ok", "prioritty": 1}"#, "did you mean `priority`"),
        (r#"{"kind": ""}"#, "1 to 100 bytes"),
        (r#"{"payload": 1}"#, "missing field `kind`"),
        (r#"{"kind": "ok", "timeout": "soon"}"#, "not a duration"),
        (r#"{"kind": "ok", "timeout": "0s"}"#, "zero"),
        (r#"{"kind": "ok", "held": true, "delay": "1s"}"#, "only one of"),
        (r#"{"kind": "ok", "retry": {"max_attempts": 0}}"#, "max_attempts"),
        (r#"{"kind": "ok""#, "EOF"),
        ("", "EOF"),
        ("[]", "invalid"),
    ] {
        let answer = site.post("/api/v1/tasks", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(why), "{body}: {detail}");
    }
    let request = request(Method::POST, "/api/v1/tasks").header("content-type", "text/xml");
    assert_eq!(site.send(request.body(Body::from("<task/>")).unwrap()).await.code(), "unsupported_media_type");
    let large = format!(r#"{{"kind": "ok", "payload": "{}"}}"#, "x".repeat(3 << 20));
    assert_eq!(site.post("/api/v1/tasks", large).await.code(), "too_large");
    assert_eq!(site.get("/api/v1/tasks").await.json()["tasks"], json!([]));
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let site = Site::open().await;
    let lines = async |text: &str| {
        let request = request(Method::POST, "/api/v1/tasks/batch").header("content-type", "application/x-ndjson");
        site.send(request.body(Body::from(text.to_owned())).unwrap()).await
    };
    let bad = lines("{\"kind\": \"ok\"}\n{\"kindd\": \"ok\"}\n{\"kind\": \"ok\", \"timeout\": \"x\"}\n").await;
    let errors = bad.json()["errors"].as_array().unwrap().clone();
    assert_eq!((bad.code().as_str(), errors.len()), ("invalid", 2));
    assert_eq!(errors[0]["pointer"], "/1/kindd");
    assert_eq!(site.get("/api/v1/tasks").await.json()["tasks"], json!([]));

    let good = lines("{\"kind\": \"ok\", \"id\": \"a\"}\n\n{\"kind\": \"ok\"}\n").await.json();
    assert_eq!((&good["created"], &good["refused"]), (&json!(2), &json!(0)));
    let array = site.post("/api/v1/tasks/batch", r#"[{"kind": "ok", "id": "a"}, {"kind": "bad", "id": "a"}]"#).await;
    let outcomes: Vec<_> =
        array.json()["results"].as_array().unwrap().iter().map(|item| item["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("existing"), json!("refused")]);
    let many = format!("[{}]", vec![r#"{"kind":"ok"}"#; 10_001].join(","));
    assert_eq!(site.post("/api/v1/tasks/batch", many).await.code(), "too_large");
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_none_is_missed() {
    let site = Site::open().await;
    let tasks = (0..25).map(|n| format!(r#"{{"kind": "ok", "held": true, "queue": "q{}", "id": "t{n}"}}"#, n % 2));
    site.post("/api/v1/tasks/batch", format!("[{}]", tasks.collect::<Vec<_>>().join(","))).await;
    let mut seen = Vec::new();
    let mut path = "/api/v1/tasks?q=queue:q1+state:held&limit=5".to_owned();
    loop {
        let answer = site.get(&path).await;
        let page = answer.json();
        seen.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        let link = answer.header("link").to_owned();
        if page["next"].is_null() {
            assert_eq!(link, "");
            break;
        }
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    let expected: Vec<String> = (0..25).rev().filter(|n| n % 2 == 1).map(|n| format!("t{n}")).collect();
    assert_eq!(seen, expected);
    for bad in ["limit=0", "limit=1001", "cursor=x", "q=state:done", "colour=red"] {
        assert_eq!(site.get(&format!("/api/v1/tasks?{bad}")).await.code(), "invalid", "{bad}");
    }
}

#[tokio::test]
async fn tasks_are_operated_as_their_state_allows() {
    let site = Site::open().await;
    let path = |id: &str, what: &str| format!("/api/v1/tasks/{id}/{what}");
    let bad = site.submit(r#"{"kind": "bad", "payload": "x", "retry": {"max_attempts": 3}}"#).await;
    let failed = site.ended(&bad).await;
    assert_eq!((&failed["state"], &failed["attempt"]), (&json!("failed"), &json!(1)), "a fatal error is not retried");
    assert!(failed["failure"]["message"].as_str().unwrap().contains("no use"));
    assert_eq!(site.get(&path(&bad, "attempts")).await.json()[0]["outcome"], "error");
    assert_eq!(site.post(&path(&bad, "cancel"), "").await.code(), "conflict");
    assert_eq!(site.get(&path(&bad, "result")).await.code(), "conflict");
    assert_eq!(site.post(&path(&bad, "retry"), "").await.json()["generation"], 1);

    let stuck = site.submit(r#"{"kind": "stuck"}"#).await;
    assert_eq!(site.get(&path(&stuck, "result")).await.code(), "conflict");
    assert_eq!(site.delete(&format!("/api/v1/tasks/{stuck}")).await.code(), "conflict");
    assert_eq!(site.post(&path(&stuck, "cancel"), "").await.status, StatusCode::OK);
    assert_eq!(site.ended(&stuck).await["state"], "cancelled");
    assert_eq!(site.post(&path(&stuck, "cancel"), "").await.status, StatusCode::OK, "it may be repeated");

    let held = site.submit(r#"{"kind": "ok", "payload": 1, "held": true, "labels": {"a": "b"}}"#).await;
    let copy = site.post(&path(&held, "clone"), r#"{"payload": 2}"#).await;
    assert_eq!((copy.status, &copy.json()["labels"]["a"]), (StatusCode::CREATED, &json!("b")));
    assert_eq!(site.ended(copy.json()["id"].as_str().unwrap()).await["result"], 2);
    assert_eq!(site.post(&path(&held, "start"), "").await.status, StatusCode::OK);
    assert_eq!(site.ended(&held).await["result"], 1);
    assert_eq!(site.delete(&format!("/api/v1/tasks/{held}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(site.get(&format!("/api/v1/tasks/{held}")).await.code(), "not_found");
    assert_eq!(site.post(&path("nobody", "cancel"), "").await.code(), "not_found");
}

#[tokio::test]
async fn a_task_that_waits_is_given_another_time_and_priority() {
    let site = Site::open().await;
    let to = async |id: &str, body: &str| site.post(&format!("/api/v1/tasks/{id}/reschedule"), body.to_owned()).await;
    let late = site.submit(r#"{"kind": "ok", "payload": 1, "delay": "1h"}"#).await;
    let tag = async || site.get(&format!("/api/v1/tasks/{late}")).await.header("etag").to_owned();
    let before = tag().await;
    let moved = to(&late, r#"{"run_at": "2100-01-01T00:00:00Z", "priority": -3}"#).await;
    assert_eq!(moved.status, StatusCode::OK);
    let moved = moved.json();
    assert_eq!((&moved["phase"], &moved["priority"]), (&json!("scheduled"), &json!(-3)));
    assert_eq!(moved["run_at"], "2100-01-01T00:00:00.000000Z");
    let after = tag().await;
    assert_ne!(after, before);
    assert_eq!(to(&late, r#"{"priority": 4}"#).await.json()["run_at"], moved["run_at"], "what is left out stays");
    assert_ne!(tag().await, after, "a priority is a change too");
    assert_eq!(to(&late, r#"{"delay": "0s"}"#).await.status, StatusCode::OK);
    assert_eq!(site.ended(&late).await["result"], 1, "it runs at once");
    assert_eq!(to(&late, r#"{"delay": "PT0S"}"#).await.code(), "conflict");
    assert_eq!(to("nobody", r#"{"delay": "0s"}"#).await.code(), "not_found");

    let held = site.submit(r#"{"kind": "ok", "held": true}"#).await;
    for wrong in ["{}", r#"{"delay": "1s", "run_at": "2100-01-01T00:00:00Z"}"#, r#"{"at": 1}"#, r#"{"priority": 1.5}"#]
    {
        assert_eq!(to(&held, wrong).await.code(), "invalid", "{wrong}");
    }
    assert_eq!(to(&held, r#"{"delay": "1h"}"#).await.json()["state"], "held");
    assert_eq!(site.post(&format!("/api/v1/tasks/{held}/start"), "").await.json()["phase"], "scheduled");
    let act = async |body: &str| site.post("/api/v1/task-actions", body.to_owned()).await;
    let moved = act(r#"{"action": "reschedule", "q": "", "reschedule": {"delay": "0s", "priority": 1}}"#).await.json();
    assert_eq!((&moved["matched"], &moved["changed"], &moved["skipped"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(site.ended(&held).await["priority"], 1);
    assert_eq!(act(r#"{"action": "reschedule", "q": ""}"#).await.code(), "invalid");
    assert_eq!(act(r#"{"action": "start", "q": "", "reschedule": {"priority": 1}}"#).await.code(), "invalid");
}

#[tokio::test]
async fn a_change_is_refused_if_what_was_seen_has_changed() {
    let site = Site::open().await;
    let ask = async |method: Method, path: &str, tag: &str, body: &str| {
        let builder = request(method, path).header("if-match", tag).header("content-type", "application/json");
        site.send(builder.body(Body::from(body.to_owned())).unwrap()).await
    };
    let id = site.submit(r#"{"kind": "ok", "payload": 1, "held": true}"#).await;
    let path = format!("/api/v1/tasks/{id}");
    let read = async || site.get(&path).await.header("etag").to_owned();
    let first = read().await;
    let below = |what: &str| format!("{path}/{what}");
    let moved = ask(Method::POST, &below("reschedule"), &first, r#"{"priority": 3}"#).await;
    let second = moved.header("etag").to_owned();
    assert_eq!((moved.status, &second), (StatusCode::OK, &read().await), "the answer says what to send next");
    let changes = [
        (Method::POST, below("start"), ""),
        (Method::POST, below("cancel"), ""),
        (Method::POST, below("retry"), ""),
        (Method::POST, below("retry-export"), ""),
        (Method::POST, below("reschedule"), r#"{"priority": 4}"#),
        (Method::DELETE, path.clone(), ""),
    ];
    for (method, path, body) in changes {
        let refused = ask(method.clone(), &path, &first, body).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::PRECONDITION_FAILED, "precondition_failed".into()));
        assert_eq!(read().await, second, "{method} {path} has done nothing");
    }
    let either = format!("{first}, {second}");
    assert_eq!(ask(Method::POST, &below("start"), &either, "").await.status, StatusCode::OK);
    site.ended(&id).await;
    assert_eq!(ask(Method::POST, &below("cancel"), "*", "").await.code(), "conflict", "what is forbidden stays so");
    assert_eq!(ask(Method::DELETE, &path, &second, "").await.code(), "precondition_failed");
    assert_eq!(ask(Method::DELETE, &path, &read().await, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(ask(Method::DELETE, &path, "*", "").await.code(), "not_found");

    let queue = "/api/v1/queues/q";
    assert_eq!(
        ask(Method::PUT, queue, "*", r#"{"concurrency": 1}"#).await.code(),
        "precondition_failed",
        "no such queue"
    );
    assert_eq!(site.get(queue).await.code(), "not_found");
    let put = async |body: &str| {
        let builder = request(Method::PUT, queue).header("content-type", "application/json");
        site.send(builder.body(Body::from(body.to_owned())).unwrap()).await
    };
    assert_eq!(put(r#"{"concurrency": 1}"#).await.status, StatusCode::OK);
    let first = site.get(queue).await.header("etag").to_owned();
    site.submit(r#"{"kind": "ok", "queue": "q", "held": true}"#).await;
    assert_eq!(site.get(queue).await.header("etag"), first, "its counts are no settings");
    let moved = ask(Method::PUT, queue, &first, r#"{"concurrency": 2}"#).await;
    assert_eq!(moved.status, StatusCode::OK);
    assert_eq!(ask(Method::PUT, queue, &first, r#"{"concurrency": 3}"#).await.code(), "precondition_failed");
    assert_eq!(site.get(queue).await.json()["settings"]["concurrency"], 2);
    assert_eq!(moved.header("etag"), site.get(queue).await.header("etag"));
}

#[tokio::test]
async fn many_are_counted_before_they_are_moved() {
    let site = Site::open().await;
    let tasks = (0..30).map(|n| format!(r#"{{"kind": "ok", "held": true, "queue": "q{}"}}"#, n % 3));
    site.post("/api/v1/tasks/batch", format!("[{}]", tasks.collect::<Vec<_>>().join(","))).await;
    let act = async |body: &str| site.post("/api/v1/task-actions", body.to_owned()).await.json();
    let counted = act(r#"{"action": "cancel", "q": "queue:q1", "dry_run": true}"#).await;
    assert_eq!((&counted["matched"], &counted["changed"]), (&json!(10), &json!(0)));
    let moved = act(r#"{"action": "cancel", "q": "queue:q1"}"#).await;
    assert_eq!((&moved["matched"], &moved["changed"]), (&json!(10), &json!(10)));
    // In parts, from where the last one stopped.
    let (mut deleted, mut next) = (0, json!(null));
    loop {
        let cursor = if next.is_null() { String::new() } else { format!(r#", "cursor": {next}"#) };
        let part = act(&format!(r#"{{"action": "delete", "q": "", "limit": 7{cursor}}}"#)).await;
        deleted += part["changed"].as_u64().unwrap();
        next = part["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!(deleted, 30);
    assert_eq!(site.post("/api/v1/task-actions", r#"{"action": "delete"}"#).await.code(), "invalid");
}

#[tokio::test]
async fn queues_are_limited_paused_and_purged() {
    let site = Site::open().await;
    let set = request(Method::PUT, "/api/v1/queues/slow")
        .body(Body::from(r#"{"concurrency": 1, "rate": {"count": 10, "period": "1m"}, "paused": true}"#));
    let queue = site.send(set.unwrap()).await.json();
    assert_eq!(
        queue["settings"],
        json!({"concurrency": 1, "rate": {"count": 10, "period": "PT60S", "burst": 1}, "paused": true})
    );
    let id = site.submit(r#"{"kind": "ok", "queue": "slow"}"#).await;
    assert_eq!(site.get("/api/v1/queues/slow").await.json()["counts"]["waiting"], 1);
    assert_eq!(site.post("/api/v1/queues/slow/resume", "").await.json()["settings"]["paused"], false);
    assert_eq!(site.ended(&id).await["state"], "succeeded");
    site.post("/api/v1/queues/slow/pause", "").await;
    site.submit(r#"{"kind": "ok", "queue": "slow"}"#).await;
    site.submit(r#"{"kind": "ok", "queue": "slow", "delay": "1h"}"#).await;
    assert_eq!(site.post("/api/v1/queues/slow/purge", "").await.json(), json!({"deleted": 2, "more": false}));
    assert_eq!(site.post("/api/v1/queues/slwo/pause", "").await.code(), "not_found");
    let zero = request(Method::PUT, "/api/v1/queues/slow").body(Body::from(r#"{"concurrency": 0}"#));
    assert_eq!(site.send(zero.unwrap()).await.code(), "invalid");
}

#[tokio::test]
async fn what_failed_alike_is_one_group() {
    let site = Site::open().await;
    for n in 0..4 {
        let id = site.submit(&format!(r#"{{"kind": "bad", "payload": {n}, "queue": "q{n}"}}"#)).await;
        site.ended(&id).await;
    }
    let id = site.submit(r#"{"kind": "bad", "payload": "other"}"#).await;
    site.ended(&id).await;
    let failures = site.get("/api/v1/failures").await.json();
    let groups = failures["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["count"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(groups[0]["queues"], json!(["q0", "q1", "q2", "q3"]));
}

#[tokio::test]
async fn under_a_base_path_everything_stays_below_it() {
    let site = Site::new(ApiOptions { base_path: "/lts".to_owned(), ..ApiOptions::default() }).await;
    let answer = site.post("/lts/api/v1/tasks", r#"{"kind": "ok", "held": true}"#).await;
    assert!(answer.header("location").starts_with("/lts/api/v1/tasks/"));
    for path in ["/lts", "/lts/", "/lts/tasks"] {
        let page = String::from_utf8(site.get(path).await.body).unwrap();
        assert!(page.contains(r#"<base href="/lts/">"#), "{path}: {page}");
    }
    assert_eq!(site.get("/tasks").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/lts/nowhere").await.code(), "not_found");
}
