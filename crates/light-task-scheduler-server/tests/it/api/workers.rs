//! Workers, seen and drained by the API.

use std::time::Duration;

use axum::http::StatusCode;
use light_task_scheduler::ReplicaId;
use serde_json::{Value, json};

use super::{Answer, Site};

/// Within this time everything here has happened, or something hangs.
const WITHIN: Duration = Duration::from_secs(60);

/// Looks until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let looked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, looked).await.expect("it is so in the end");
}

impl Site {
    async fn workers(&self) -> Vec<Value> {
        self.get("/api/v1/workers").await.json().as_array().unwrap().clone()
    }

    async fn drain(&self, id: &str) -> Answer {
        self.post(&format!("/api/v1/workers/{id}/drain"), "").await
    }

    /// Submits a task and waits until it is in this state.
    async fn submitted(&self, kind: &str, state: &str) -> String {
        let task = self.post("/api/v1/tasks", json!({ "kind": kind }).to_string()).await.json();
        let id = task["id"].as_str().unwrap().to_owned();
        until(async || self.get(&format!("/api/v1/tasks/{id}")).await.json()["state"] == state).await;
        id
    }
}

#[tokio::test]
async fn a_server_that_drains_ends_what_it_runs_and_goes_on_answering() {
    let site = Site::open().await;
    assert_eq!(site.get("/api/v1/capabilities").await.json()["draining"], false);
    let stuck = site.submitted("stuck", "running").await;
    let [worker] = site.workers().await.try_into().unwrap();
    assert_eq!((&worker["state"], &worker["draining"]), (&json!("alive"), &json!(false)));
    let id = worker["id"].as_str().unwrap();
    for _ in 0..2 {
        let drained = site.drain(id).await;
        assert_eq!(drained.status, StatusCode::OK, "repeating it is no error");
        let drained = drained.json();
        assert_eq!(
            (&drained["id"], &drained["draining"], &drained["running"]),
            (&worker["id"], &json!(true), &json!(1))
        );
    }
    let [seen] = site.workers().await.try_into().unwrap();
    assert_eq!((&seen["state"], &seen["draining"]), (&json!("alive"), &json!(true)));
    until(async || site.get("/api/v1/capabilities").await.json()["draining"] == true).await;
    let waiting = site.submitted("ok", "waiting").await;

    // Its last run ends: it leaves, and what is asked is answered still.
    site.post(&format!("/api/v1/tasks/{stuck}/cancel"), "").await;
    let ended = site.get(&format!("/api/v1/tasks/{stuck}?wait=30s")).await.json();
    assert_eq!(ended["state"], "cancelled");
    until(async || site.workers().await.is_empty()).await;
    assert_eq!(site.drain(id).await.code(), "not_found");
    assert_eq!(site.get(&format!("/api/v1/tasks/{waiting}")).await.json()["attempt"], 0);
    assert_eq!(site.get("/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_is_no_worker_cannot_drain() {
    let site = Site::open().await;
    let unknown = ReplicaId::from_bytes([7; 16]).to_string();
    for id in [unknown.as_str(), "nobody", "%2e%2e"] {
        let answer = site.drain(id).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{id}");
    }
    assert_eq!(site.workers().await[0]["draining"], false);
}
