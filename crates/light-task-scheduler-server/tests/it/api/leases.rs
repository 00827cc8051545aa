//! Leases: what a worker in any language is told, what is fenced, and what a token for some queues reaches.

use axum::http::{Method, StatusCode};
use light_task_scheduler_server::api::Role;
use serde_json::{Value, json};

use super::access::{Guarded, token};

/// The worker of these tests, and the one that takes over from it.
const WORKER: &str = "0198c0de-0000-7000-8000-000000000001";
const HEIR: &str = "0198c0de-0000-7000-8000-000000000002";

/// A server, and a token for one queue.
struct Bound {
    guarded: Guarded,
    token: String,
}

impl Bound {
    async fn to(queue: &str) -> Self {
        let guarded = Guarded::new().await;
        let token = token(&guarded.file, Role::Worker, &[queue]);
        let bound = Bound { guarded, token };
        for worker in [WORKER, HEIR] {
            bound.done("register", json!({"worker": worker, "name": "w", "ttl": "60s"})).await;
        }
        bound
    }

    async fn say(&self, token: &str, path: &str, body: Value) -> super::Answer {
        self.guarded.ask(Method::POST, &format!("/api/v1/leases{path}"), Some(token), &body.to_string()).await
    }

    /// What the worker is answered.
    async fn done(&self, path: &str, body: Value) -> Value {
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        let answer = self.say(&self.token, &path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.json());
        answer.json()
    }

    async fn submit(&self, queue: &str, more: Value) -> String {
        let mut body = json!({"kind": "foreign", "queue": queue, "payload": {"a": 1}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let admin = self.guarded.of(Role::Admin);
        let answer = self.guarded.ask(Method::POST, "/api/v1/tasks", Some(admin), &body.to_string()).await;
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    async fn claim(&self, number: u64) -> Vec<Value> {
        let claim = json!({"worker": WORKER, "number": number, "kinds": ["foreign"], "limit": 9});
        self.done("", claim).await["tasks"].as_array().unwrap().clone()
    }

    async fn state(&self, id: &str) -> Value {
        let admin = Some(self.guarded.of(Role::Admin));
        self.guarded.ask(Method::GET, &format!("/api/v1/tasks/{id}"), admin, "").await.json()
    }
}

/// What is said under the lease of a claimed task.
fn under(task: &Value, more: Value) -> Value {
    let mut item = json!({"id": task["id"], "owner": task["owner"], "run": task["run"]});
    item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([item])
}

#[tokio::test]
async fn a_worker_claims_reports_and_completes_and_repeats_without_harm() {
    let bound = Bound::to("a").await;
    let id = bound.submit("a", json!({})).await;
    let claimed = bound.claim(1).await;
    assert_eq!((claimed.len(), &claimed[0]["id"], &claimed[0]["payload"]), (1, &json!(id), &json!({"json": {"a": 1}})));
    assert_eq!(bound.claim(1).await, claimed, "its answer may have been lost");
    assert!(bound.claim(2).await.is_empty());
    let task = &claimed[0];
    let progress = under(task, json!({"progress": {"done": 1, "total": 2, "message": "half"}}));
    assert_eq!(bound.done("progress", progress).await[0]["outcome"], "applied");
    assert_eq!(bound.state(&id).await["progress"]["message"], "half");
    let log = json!([{"id": id, "execution": 1, "stream": "stdout", "offset": 0, "data": {"text": "hello"}}]);
    for _ in 0..2 {
        assert_eq!(bound.done("logs", log.clone()).await, json!([{"len": 5}]));
    }
    let mut stale = under(task, json!({"result": {"json": 2}}));
    stale[0]["run"] = json!(7);
    assert_eq!(bound.done("complete", stale).await[0]["outcome"], "stale");
    for outcome in ["applied", "already"] {
        let answer = bound.done("complete", under(task, json!({"result": {"json": [1, 2]}}))).await;
        assert_eq!(answer[0], json!({"outcome": outcome, "state": "succeeded"}));
    }
    assert_eq!(bound.state(&id).await["result"], json!([1, 2]));
}

#[tokio::test]
async fn the_server_decides_whether_a_failure_is_tried_again() {
    let bound = Bound::to("a").await;
    let id = bound.submit("a", json!({"retry": {"max_attempts": 2, "min_delay": "1h", "max_delay": "1h"}})).await;
    let task = bound.claim(1).await.remove(0);
    for outcome in ["applied", "already"] {
        let answer = bound.done("fail", under(&task, json!({"failure": {"message": "no"}}))).await;
        assert_eq!(answer[0], json!({"outcome": outcome, "state": "waiting"}));
    }
    assert_eq!(bound.state(&id).await["failure"]["message"], "no");
    let fatal = bound.submit("a", json!({"retry": {"max_attempts": 9}})).await;
    let task = bound.claim(2).await.remove(0);
    let answer = bound.done("fail", under(&task, json!({"failure": {"message": "never", "fatal": true}}))).await;
    assert_eq!((&task["id"], &answer[0]["state"]), (&json!(fatal), &json!("failed")));
    let given_back = bound.submit("a", json!({})).await;
    let task = bound.claim(3).await.remove(0);
    assert_eq!(bound.done("release", under(&task, json!({"message": "later"}))).await[0]["state"], "waiting");
    assert_eq!(bound.state(&given_back).await["interruptions"], 1);
}

#[tokio::test]
async fn a_heartbeat_brings_the_wish_to_cancel() {
    let bound = Bound::to("a").await;
    let id = bound.submit("a", json!({})).await;
    let task = bound.claim(1).await.remove(0);
    let admin = Some(bound.guarded.of(Role::Admin));
    bound.guarded.ask(Method::POST, &format!("/api/v1/tasks/{id}/cancel"), admin, "").await;
    let beat = json!({"worker": WORKER, "holdings": {"count": 0, "hash": "0000000000000000"}});
    let reply = bound.done("heartbeat", beat).await;
    assert_eq!((&reply["cancel"], &reply["owned"]), (&json!([id]), &json!([{"id": id, "run": 1}])));
    assert_eq!(bound.done("apply", under(&task, json!({"event": "cancelled"}))).await[0]["state"], "cancelled");
    let unknown = json!({"worker": "0198c0de-0000-7000-8000-000000000009"});
    assert_eq!(bound.say(&bound.token, "/heartbeat", unknown).await.code(), "not_registered");
}

#[tokio::test]
async fn a_claim_that_waits_is_answered_when_there_is_work() {
    let bound = Bound::to("a").await;
    let waiting = json!({"worker": WORKER, "number": 1, "kinds": ["foreign"], "limit": 9, "wait": "60s"});
    // In this order on one thread: the claim finds nothing, and waits.
    let (empty, id) = tokio::join!(bound.done("", waiting), async {
        tokio::task::yield_now().await;
        bound.submit("a", json!({})).await
    });
    let tasks = empty["tasks"].as_array().unwrap().clone();
    let tasks = if tasks.is_empty() { bound.claim(2).await } else { tasks };
    assert_eq!(tasks[0]["id"], json!(id));
}

#[tokio::test]
async fn a_token_for_some_queues_reaches_their_tasks_only() {
    let bound = Bound::to("a").await;
    let (mine, other) = (bound.submit("a", json!({})).await, bound.submit("b", json!({})).await);
    let claimed = bound.claim(1).await;
    assert_eq!((claimed.len(), &claimed[0]["id"]), (1, &json!(mine)));
    let foreign = json!({"worker": WORKER, "number": 2, "kinds": ["foreign"], "queues": ["b"], "limit": 9});
    assert_eq!(bound.say(&bound.token, "", foreign).await.code(), "forbidden");

    // Somebody who may do everything takes the other one.
    let admin = bound.guarded.of(Role::Admin);
    let claim = json!({"worker": WORKER, "number": 2, "kinds": ["foreign"], "limit": 9});
    let theirs = bound.say(admin, "", claim).await.json()["tasks"][0].clone();
    assert_eq!(theirs["id"], json!(other));
    assert_eq!(bound.done("get", json!([mine, other])).await[1], Value::Null);
    assert_eq!(bound.done("complete", under(&theirs, json!({}))).await[0], json!({"outcome": "missing"}));
    let report = json!([{"id": other, "execution": 1, "said": {"progress": {"done": 1}}}]);
    assert_eq!(bound.done("reports", report).await, json!([false]));
    let piece = |id: &str, execution| json!({"id": id, "execution": execution, "stream": "stdout", "offset": 0, "data": {"text": "x"}});
    let written =
        bound.done("logs", json!([piece(&other, 1), piece("nobody", 1), piece(&mine, 2), piece(&mine, 1)])).await;
    let codes: Vec<&Value> = written.as_array().unwrap().iter().map(|one| &one["refused"]["code"]).collect();
    assert_eq!(codes, [&json!("not_found"), &json!("not_found"), &json!("conflict"), &Value::Null]);
    let read = json!({"id": other, "execution": 1, "stream": "stdout", "limit": 9});
    assert_eq!(bound.say(&bound.token, "/logs/read", read).await.code(), "not_found");

    // The owner leaves: of what it held, the heir gets what its token is for.
    bound.done("leave", json!({"worker": WORKER})).await;
    let rescue = json!({"worker": HEIR, "suspects": [], "kinds": ["foreign"], "limit": 9});
    let rescued = bound.done("rescue", rescue).await;
    let tasks = rescued["tasks"].as_array().unwrap();
    assert_eq!((tasks.len(), &tasks[0]["id"], &tasks[0]["run"]), (1, &json!(mine), &json!(2)));
    assert_eq!(bound.done("complete", under(&claimed[0], json!({}))).await[0]["outcome"], "stale");
}

#[tokio::test]
async fn a_worker_neither_takes_tasks_in_nor_removes_any() {
    let bound = Bound::to("a").await;
    let id = bound.submit("a", json!({"held": true})).await;
    let sweep = json!({"states": ["held", "succeeded"], "older_than": "PT0S", "limit": 9});
    assert_eq!(bound.done("sweep", sweep).await, json!({"removed": 0, "garbage": []}));
    for (path, body) in [
        ("/insert", json!([{"queue": "a", "kind": "foreign", "payload": {"json": 1}}])),
        ("/commands", json!([{"id": id, "command": "delete"}])),
        ("/queues", json!({"name": "a", "paused": true})),
        ("/logs/delete", json!({"id": id})),
    ] {
        assert_eq!(bound.say(&bound.token, path, body).await.code(), "forbidden", "{path}");
    }
    assert_eq!(bound.state(&id).await["state"], "held");
}
