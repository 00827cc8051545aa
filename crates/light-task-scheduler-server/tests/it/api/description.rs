//! The description of the API, and what every answer has.

use axum::http::StatusCode;

use super::Site;

/// Where the description is kept: whoever changes the API sees by it what has changed for its users.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[tokio::test]
async fn the_kept_description_is_the_one_that_is_served() {
    let document = Site::open().await.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    if std::env::var_os("LTS_UPDATE_OPENAPI").is_some() {
        std::fs::write(KEPT, &text).unwrap();
    }
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(kept == text, "docs/openapi.json is not what the code says; run this test with LTS_UPDATE_OPENAPI=1");
}

#[tokio::test]
async fn every_operation_is_described_whole() {
    let document = Site::open().await.get("/openapi.json").await.json();
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(summary.ends_with('.'), "{method} {path} has no summary");
            assert!(operation["tags"].is_array(), "{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: another operation is called {id} too");
        }
    }
}

#[tokio::test]
async fn every_answer_is_hardened_and_every_failure_is_a_problem() {
    let site = Site::open().await;
    for path in ["/", "/tasks", "/api/v1/stats", "/openapi.json", "/nowhere", "/assets/0/../../etc/passwd", "/healthz"]
    {
        let answer = site.get(path).await;
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        if answer.status.is_client_error() {
            assert_eq!(answer.code(), "not_found", "{path}");
        }
    }
    assert_eq!(site.delete("/api/v1/stats").await.code(), "method_not_allowed");
    assert_eq!(site.get("/readyz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_page_names_every_operation_and_every_code() {
    let site = Site::open().await;
    let page = String::from_utf8(site.get("/docs").await.body).unwrap();
    let document = site.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (_, operation) in item.as_object().unwrap() {
            assert!(
                page.contains(&format!("<section id=\"{}\"", operation["operationId"].as_str().unwrap())),
                "{path}"
            );
        }
    }
    for code in document["components"]["schemas"]["Code"]["enum"].as_array().unwrap() {
        let code = code.as_str().unwrap();
        assert!(page.contains(&format!("<tr id=\"{code}\"")), "{code}");
    }
}

#[tokio::test]
async fn numbers_for_prometheus_name_queues_states_and_routes() {
    let site = Site::open().await;
    let id = site.submit(r#"{"kind": "ok", "queue": "video"}"#).await;
    site.ended(&id).await;
    let metrics = site.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        r#"lts_tasks{queue="video",state="succeeded"} 1"#,
        r#"lts_workers{state="alive"} 1"#,
        r#"lts_queue_paused{queue="video"} 0"#,
        r#"lts_http_requests_total{method="POST",route="/api/v1/tasks",status="201"} 1"#,
        r#"lts_http_request_duration_seconds_count{route="/api/v1/tasks/{id}"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
