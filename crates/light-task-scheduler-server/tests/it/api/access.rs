//! Whom the API lets in: every route with every credential, as its description says.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use light_task_scheduler::Name;
use light_task_scheduler_server::api::{Admission, ApiOptions, NewToken, Role, TokenFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, Site, request};

/// A server with a token of each role.
pub(super) struct Guarded {
    pub(super) site: Site,
    tokens: Vec<(Role, String)>,
    pub(super) file: Arc<TokenFile>,
    _directory: TempDir,
}

impl Guarded {
    pub(super) async fn new() -> Guarded {
        let directory = tempfile::tempdir().unwrap();
        let file = Arc::new(TokenFile::open(directory.path().join("tokens.json")).unwrap());
        let tokens = Role::ALL.map(|role| (role, token(&file, role, &[]))).to_vec();
        let options = ApiOptions { admission: Admission::Tokens(file.clone()), ..ApiOptions::default() };
        Guarded { site: Site::new(options).await, tokens, file, _directory: directory }
    }

    pub(super) async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Answer {
        let mut request = request(method, path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.site.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) fn of(&self, role: Role) -> &str {
        &self.tokens.iter().find(|(known, _)| *known == role).unwrap().1
    }
}

pub(super) fn token(file: &TokenFile, role: Role, queues: &[&str]) -> String {
    let queues = queues.iter().map(|queue| Name::new(queue).unwrap()).collect();
    let new = NewToken { name: role.as_str().to_owned(), role, queues, expires_at: None };
    file.create(new).unwrap().1
}

/// Every operation of the description: method, path, and the role that it asks for, if any.
fn operations(document: &Value) -> Vec<(Method, String, Option<Role>)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let scope = operation["security"][0]["token"][0].as_str();
            let role = scope.map(|name| Role::ALL.into_iter().find(|role| role.as_str() == name).unwrap());
            assert!(operation["security"].is_array(), "{method} {path} does not say what it asks for");
            // A name that nothing has: whoever is let in finds nothing.
            operations.push((method, path.replace('{', "no-").replace('}', ""), role));
        }
    }
    operations
}

#[tokio::test]
async fn every_route_lets_in_whom_its_description_names_and_nobody_else() {
    let guarded = Guarded::new().await;
    let document = guarded.site.get("/openapi.json").await.json();
    let operations = operations(&document);
    assert!(operations.len() > 25, "{}", operations.len());
    for (method, path, asked) in operations {
        // A stream does not end; that it begins is asked for elsewhere.
        if path == "/api/v1/events" {
            continue;
        }
        let nobody = guarded.ask(method.clone(), &path, None, "{").await.status;
        let forged = guarded.ask(method.clone(), &path, Some("lts_00_00"), "{").await.status;
        match asked {
            Some(_) => {
                assert_eq!((nobody, forged), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED), "{method} {path}")
            }
            None => assert_ne!(nobody, StatusCode::UNAUTHORIZED, "{method} {path}"),
        }
        for (role, token) in &guarded.tokens {
            let status = guarded.ask(method.clone(), &path, Some(token), "{").await.status;
            let let_in = asked.is_none_or(|asked| role.covers(asked));
            assert_eq!(status != StatusCode::FORBIDDEN, let_in, "{method} {path} as {role:?}: {status}");
            assert!(!status.is_server_error(), "{method} {path} as {role:?}: {status}");
        }
    }
}

#[tokio::test]
async fn a_token_for_some_queues_sees_no_others() {
    let guarded = Guarded::new().await;
    let admin = guarded.of(Role::Admin);
    for queue in ["a", "b", "c"] {
        let body = format!(r#"{{"kind": "ok", "held": true, "queue": "{queue}", "id": "in-{queue}"}}"#);
        assert_eq!(guarded.ask(Method::POST, "/api/v1/tasks", Some(admin), &body).await.status, StatusCode::CREATED);
    }
    let bound = token(&guarded.file, Role::Operator, &["a", "c"]);
    let ask = async |method, path: &str, body: &str| guarded.ask(method, path, Some(&bound), body).await;
    let listed = ask(Method::GET, "/api/v1/tasks", "").await.json();
    let ids: Vec<_> = listed["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect();
    assert_eq!(ids, [json!("in-c"), json!("in-a")]);
    let stats = ask(Method::GET, "/api/v1/stats", "").await.json();
    assert_eq!(stats["totals"]["held"], 2);
    assert_eq!(ask(Method::GET, "/api/v1/tasks/in-b", "").await.code(), "not_found");
    assert_eq!(ask(Method::POST, "/api/v1/tasks/in-b/cancel", "").await.code(), "not_found");
    assert_eq!(ask(Method::DELETE, "/api/v1/tasks/in-b", "").await.code(), "not_found");
    assert_eq!(ask(Method::GET, "/api/v1/tasks?q=queue:b", "").await.code(), "forbidden");
    assert_eq!(ask(Method::GET, "/api/v1/stats/timeseries", "").await.code(), "forbidden");
    assert_eq!(ask(Method::POST, "/api/v1/queues/b/pause", "").await.code(), "forbidden");
    assert_eq!(ask(Method::POST, "/api/v1/queues/b/purge", "").await.code(), "forbidden");
    assert_eq!(ask(Method::GET, "/api/v1/queues/b", "").await.code(), "not_found");
    // A worker runs tasks of others too.
    assert_eq!(ask(Method::POST, "/api/v1/workers/any/drain", "").await.code(), "forbidden");
    assert_ne!(ask(Method::POST, "/api/v1/tasks", r#"{"kind": "ok", "queue": "b"}"#).await.status, StatusCode::CREATED);
    assert_ne!(ask(Method::POST, "/api/v1/tasks/in-a/clone", r#"{"queue": "b"}"#).await.status, StatusCode::CREATED);
    let acted =
        ask(Method::POST, "/api/v1/task-actions", r#"{"action": "delete", "ids": ["in-a", "in-b"]}"#).await.json();
    assert_eq!((&acted["changed"], &acted["skipped"]), (&json!(1), &json!(1)));
    let acted = ask(Method::POST, "/api/v1/task-actions", r#"{"action": "delete", "q": ""}"#).await.json();
    assert_eq!(acted["changed"], 1);
    assert_eq!(guarded.ask(Method::GET, "/api/v1/tasks/in-b", Some(admin), "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_browser_signs_in_and_out() {
    let guarded = Guarded::new().await;
    let body = json!({"token": guarded.of(Role::Operator)}).to_string();
    let signed_in = guarded.ask(Method::POST, "/api/v1/session", None, &body).await;
    assert_eq!(signed_in.json()["role"], "operator");
    let cookie = signed_in.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = cookie.split(';').next().unwrap().to_owned();
    let ask = async |method: Method, path: &str| {
        let request = request(method, path).header("cookie", format!("theme=dark; {session}"));
        guarded.site.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(ask(Method::GET, "/api/v1/stats").await, StatusCode::OK);
    assert_eq!(ask(Method::GET, "/api/v1/tokens").await, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::DELETE, "/api/v1/session").await, StatusCode::NO_CONTENT);
    assert_eq!(ask(Method::GET, "/api/v1/stats").await, StatusCode::UNAUTHORIZED);
    let wrong = guarded.ask(Method::POST, "/api/v1/session", None, r#"{"token": "lts_0_0"}"#).await;
    assert_eq!(wrong.code(), "unauthenticated");
}

#[tokio::test]
async fn tokens_are_made_told_once_and_revoked() {
    let guarded = Guarded::new().await;
    let admin = guarded.of(Role::Admin).to_owned();
    let made =
        guarded.ask(Method::POST, "/api/v1/tokens", Some(&admin), r#"{"name": "ci", "role": "viewer"}"#).await.json();
    let text = made["token"].as_str().unwrap();
    assert_eq!(guarded.ask(Method::GET, "/api/v1/stats", Some(text), "").await.status, StatusCode::OK);
    let listed = guarded.ask(Method::GET, "/api/v1/tokens", Some(&admin), "").await;
    assert_eq!(listed.json().as_array().unwrap().len(), Role::ALL.len() + 1);
    let secret = text.rsplit('_').next().unwrap();
    assert!(!String::from_utf8_lossy(&listed.body).contains(secret), "a secret is told again");
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(guarded.ask(Method::DELETE, &path, Some(&admin), "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(guarded.ask(Method::GET, "/api/v1/stats", Some(text), "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_open_server_answers_no_foreign_page() {
    let site = Site::open().await;
    let rebound = request(Method::GET, "/api/v1/tasks").header("host", "evil.example");
    // The first one counts for the router; a browser sends one.
    let mut rebound = rebound.body(Body::empty()).unwrap();
    rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
    assert_eq!(site.send(rebound).await.code(), "forbidden");
    let foreign = request(Method::POST, "/api/v1/tasks").header("origin", "http://evil.example");
    assert_eq!(site.send(foreign.body(Body::from(r#"{"kind": "ok"}"#)).unwrap()).await.code(), "forbidden");
    assert_eq!(site.get("/api/v1/tasks").await.json()["tasks"], json!([]));
}

#[tokio::test]
async fn a_read_only_server_changes_nothing() {
    let site = Site::new(ApiOptions { read_only: true, ..ApiOptions::default() }).await;
    assert_eq!(site.post("/api/v1/tasks", r#"{"kind": "ok"}"#).await.code(), "forbidden");
    assert_eq!(site.get("/api/v1/tasks").await.status, StatusCode::OK);
}
