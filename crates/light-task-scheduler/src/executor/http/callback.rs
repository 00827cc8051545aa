//! What services report by themselves: tokens bound to one execution, and the router that takes them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use serde_json::Value;

use super::exchange::Exchange;
use super::job::{Found, HttpJob, Service};
use super::protocol::{JobState, Reading, Seen, payload};
use super::{CallbackConfig, HttpExecutor, webhook};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::store::{Report, Said, Store};
use crate::task::{Failure, FailureKind, OUTPUT_BYTES_MAX, Outcome, Progress, TaskId};

/// How much of the code is in a token: 128 bits.
const CODE_BYTES: usize = 16;
/// The shortest key.
const KEY_BYTES_MIN: usize = 16;
/// How long the body of a report may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// What a message of ours is called in a CloudEvent, with what happened behind it: `io.lts.task.succeeded`.
const EVENT_TYPE: &str = "io.lts.task.";
/// The version of CloudEvents that is understood.
const EVENT_VERSION: &str = "1.0";

/// Where the job of one execution reports.
pub(super) async fn url(config: &CallbackConfig, found: &Found) -> Result<String> {
    let key = key(config).await?;
    Ok(format!("{}/{}", config.url.trim_end_matches('/'), token(&key, found)?))
}

/// What tokens are made with.
async fn key(config: &CallbackConfig) -> Result<String> {
    let key = config.key.reveal().await?;
    if key.len() < KEY_BYTES_MIN {
        return Err(Error::invalid(format!("the key of callbacks is shorter than {KEY_BYTES_MIN} characters")));
    }
    Ok(key)
}

/// Names an execution, and proves that we have named it.
fn token(key: &str, found: &Found) -> Result<String> {
    let name = format!("{}\0{}\0{}", found.namespace, found.execution, found.id);
    let code = code(key, name.as_bytes())?.finalize().into_bytes();
    let code = code.get(..CODE_BYTES).unwrap_or_default();
    Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(name), URL_SAFE_NO_PAD.encode(code)))
}

fn code(key: &str, name: &[u8]) -> Result<hmac::Hmac<sha2::Sha256>> {
    let mut code = webhook::keyed(key.as_bytes())?;
    code.update(name);
    Ok(code)
}

/// The execution that a token names; `None` if we have not made it.
fn read(key: &str, token: &str) -> Result<Option<(String, TaskId, u64)>> {
    let parts = token
        .split_once('.')
        .and_then(|(name, code)| Some((URL_SAFE_NO_PAD.decode(name).ok()?, URL_SAFE_NO_PAD.decode(code).ok()?)));
    let Some((name, given)) = parts.filter(|(_, given)| given.len() == CODE_BYTES) else { return Ok(None) };
    // Compared in constant time.
    if code(key, &name)?.verify_truncated_left(&given).is_err() {
        return Ok(None);
    }
    let name = String::from_utf8(name).ok();
    let parts = name.as_deref().and_then(|name| {
        let (namespace, rest) = name.split_once('\0')?;
        let (execution, id) = rest.split_once('\0')?;
        Some((format!("{namespace}/{id}/{execution}"), TaskId::new(id).ok()?, execution.parse().ok()?))
    });
    Ok(parts)
}

struct Receiver {
    exchange: Arc<Exchange>,
    config: CallbackConfig,
    store: Arc<dyn Store>,
}

impl CallbackConfig {
    /// Reads the key: whether there is one, and whether it is long enough. For a start that should not wait for the first
    /// job to find out.
    pub async fn check(&self) -> Result<()> {
        key(self).await.map(drop)
    }
}

impl HttpExecutor {
    /// What takes the reports of services, to be mounted where [`CallbackConfig::url`] leads. `None` without
    /// [callbacks](super::HttpConfig::callbacks). It needs no other protection: every URL has a token of its own.
    ///
    /// `POST /{token}` takes a document as the service answers for the state of a job, or a CloudEvent of the type
    /// `io.lts.task.succeeded`, `….failed` or `….progress`; `POST /{token}/succeeded`, `/failed` and `/progress` say
    /// by their path what happened. It answers 204 to whatever is authentic, also to what comes too late or twice, 404 to a
    /// token that is not ours, 401 to a missing or wrong signature, 400 to what cannot be read, 413 and 408 to what is longer
    /// than 4 MiB or takes longer than 30 s, 503 while the store fails.
    pub fn callbacks(&self, store: impl Into<Arc<dyn Store>>) -> Option<Router> {
        let config = self.0.config.callbacks.clone()?;
        let receiver = Receiver { exchange: self.0.clone(), config, store: store.into() };
        let router = Router::new()
            .route("/{token}", post(plain))
            .route("/{token}/{what}", post(named))
            .layer(DefaultBodyLimit::max(OUTPUT_BYTES_MAX))
            .with_state(Arc::new(receiver));
        Some(router)
    }
}

type Reply = (StatusCode, String);

async fn plain(State(receiver): State<Arc<Receiver>>, Path(token): Path<String>, request: Request) -> Reply {
    receive(&receiver, &token, None, request).await
}

async fn named(
    State(receiver): State<Arc<Receiver>>,
    Path((token, what)): Path<(String, String)>,
    request: Request,
) -> Reply {
    receive(&receiver, &token, Some(&what), request).await
}

async fn receive(receiver: &Receiver, token: &str, what: Option<&str>, request: Request) -> Reply {
    match take(receiver, token, what, request).await {
        Ok(()) => (StatusCode::NO_CONTENT, String::new()),
        Err((status, why)) => (status, why),
    }
}

async fn take(receiver: &Receiver, token: &str, what: Option<&str>, request: Request) -> Result<(), Reply> {
    let unavailable = |error: Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let key = key(&receiver.config).await.map_err(unavailable)?;
    // Before the body: whoever has no token of ours cannot make us keep any.
    let Some((name, id, execution)) = read(&key, token).map_err(unavailable)? else {
        return Err((StatusCode::NOT_FOUND, "this token is not one of ours".to_owned()));
    };
    let headers = request.headers().clone();
    let body = body(request).await?;
    let Some(service) = service(receiver, &name, &id).await.map_err(unavailable)? else { return Ok(()) };
    authenticate(&service, &headers, &body).await?;
    let said = interpret(&service, what, &body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let Some(said) = said else { return Ok(()) };
    // The owner may be this process; if not, the store brings it there.
    if !receiver.exchange.lives.tell(&name, &said) {
        receiver.store.post_reports(vec![Report { id, execution, said }]).await.map_err(unavailable)?;
    }
    Ok(())
}

async fn body(request: Request) -> Result<Bytes, Reply> {
    match tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, &())).await {
        Ok(read) => read.map_err(|rejection| (rejection.status(), rejection.body_text())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, format!("the report did not come within {BODY_WITHIN:?}"))),
    }
}

/// The service of an execution. `None`: its task is gone or names no service any more, so nothing can be said of it.
async fn service(receiver: &Receiver, name: &str, id: &TaskId) -> Result<Option<Arc<Service>>> {
    if let Some(site) = receiver.exchange.lives.site(name) {
        return Ok(Some(site.service.clone()));
    }
    let task = receiver.store.get(std::slice::from_ref(id)).await?.into_iter().flatten().next();
    let job = task.and_then(|task| task.spec.payload.parse::<HttpJob>().ok());
    Ok(job.and_then(|job| receiver.exchange.service_of(&job).ok()))
}

async fn authenticate(service: &Service, headers: &HeaderMap, body: &[u8]) -> Result<(), Reply> {
    let Some(secret) = &service.signing else { return Ok(()) };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secret = secret.reveal().await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let (id, at, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    webhook::verify(&secret, id, at, signature, body, SystemClock.now())
        .map_err(|error| (StatusCode::UNAUTHORIZED, error.to_string()))
}

/// What a report says. `None`: nothing that counts, such as that the job runs.
fn interpret(service: &Service, what: Option<&str>, body: &[u8]) -> Result<Option<Said>, String> {
    let document = serde_json::from_slice::<Value>(body).ok();
    let protocol = &service.protocol;
    let fetched = protocol.output.is_some();
    let event = document.as_ref().and_then(event);
    let (what, document) = match (what, event) {
        (None, Some((what, data))) => (Some(what.to_owned()), Some(data)),
        (what, _) => (what.map(str::to_owned), document),
    };
    let reading = &protocol.reading;
    let Some(what) = what else {
        let document = document.ok_or("the report is no JSON")?;
        return Ok(match reading.read(&document, fetched) {
            Seen::Running(progress) => progress.map(Said::Progress),
            Seen::Ended(outcome) => Some(Said::Ended(outcome)),
            Seen::Unknown(why) => return Err(why),
        });
    };
    match what.as_str() {
        "succeeded" if fetched => Ok(Some(Said::Ended(Outcome::Succeeded(None)))),
        "succeeded" => {
            let output = match &document {
                Some(document) => reading.result(document),
                None => payload(body).map_err(|error| error.to_string())?,
            };
            Ok(Some(Said::Ended(Outcome::Succeeded(Some(output)))))
        }
        "failed" => Ok(Some(Said::Ended(Outcome::Failed(failure(reading, document.as_ref()))))),
        "progress" => Ok(document.as_ref().and_then(|document| progress(reading, document)).map(Said::Progress)),
        _ => Err("a report says `succeeded`, `failed` or `progress`".to_owned()),
    }
}

/// The kind and the data of a CloudEvent of ours.
fn event(document: &Value) -> Option<(&str, Value)> {
    document.get("specversion").and_then(Value::as_str).filter(|version| *version == EVENT_VERSION)?;
    let what = document.get("type")?.as_str()?.strip_prefix(EVENT_TYPE)?;
    Some((what, document.get("data").cloned().unwrap_or_default()))
}

/// A failure in the words of a document, whatever it says of the state.
fn failure(reading: &Reading, document: Option<&Value>) -> Failure {
    let failing = Reading { state: String::new(), absent: Some(JobState::Failed), ..reading.clone() };
    match document.map(|document| failing.read(document, true)) {
        Some(Seen::Ended(Outcome::Failed(failure))) => failure,
        _ => Failure::new(FailureKind::Error, "the service says that the job has failed"),
    }
}

fn progress(reading: &Reading, document: &Value) -> Option<Progress> {
    let running = Reading { state: String::new(), absent: Some(JobState::Running), ..reading.clone() };
    match running.read(document, true) {
        Seen::Running(progress) => progress,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::http::{Protocol, Secret};
    use crate::task::{Name, Payload};

    fn found(id: &str, execution: u64) -> Found {
        Found {
            service: None,
            preset: None,
            endpoint: String::new(),
            path: String::new(),
            job: None,
            namespace: Name::new("ns").unwrap(),
            id: TaskId::new(id).unwrap(),
            execution,
        }
    }

    #[tokio::test]
    async fn a_token_names_one_execution_and_nobody_can_make_one() {
        let ours = "sixteen characters";
        let config =
            |key: &str| CallbackConfig { url: "http://host/callbacks/".to_owned(), key: Secret::Text(key.to_owned()) };
        let made = url(&config(ours), &found("a/é b", 7)).await.unwrap();
        let token = made.strip_prefix("http://host/callbacks/").unwrap();
        let (name, id, execution) = read(ours, token).unwrap().unwrap();
        assert_eq!((name.as_str(), id.to_string().as_str(), execution), ("ns/a/é b/7", "a/é b", 7));
        assert!(read("another key of 16", token).unwrap().is_none());
        let (named, code) = token.split_once('.').unwrap();
        let other = super::token(ours, &found("a/é b", 8)).unwrap();
        assert!(read(ours, &format!("{}.{code}", other.split_once('.').unwrap().0)).unwrap().is_none());
        for forged in
            ["", ".", named, &format!("{named}."), &format!("{named}.AAAA"), &format!("{named}.{}", &code[1..])]
        {
            assert!(read(ours, forged).unwrap().is_none(), "{forged}");
        }
        assert!(token.len() < 1_000);
        assert!(url(&config("short"), &found("a", 1)).await.is_err());
    }

    #[test]
    fn reports_are_read_by_their_path_their_event_or_their_document() {
        let ogc = Service::new(Protocol::preset("ogc").unwrap(), ["http://host"]);
        let read = |what, body: Value| interpret(&ogc, what, body.to_string().as_bytes());
        assert_eq!(read(Some("succeeded"), json!({"any": 1})), Ok(Some(Said::Ended(Outcome::Succeeded(None)))));
        let failed = |said: Result<Option<Said>, String>| match said {
            Ok(Some(Said::Ended(Outcome::Failed(failure)))) => failure.message,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(read(Some("failed"), json!({"message": "bad"}))), "bad");
        assert_eq!(failed(read(None, json!({"status": "failed", "message": "worse"}))), "worse");
        let data = json!({"message": "worst"});
        let event = json!({"specversion": "1.0", "id": "1", "source": "x", "type": "io.lts.task.failed", "data": data});
        assert_eq!(failed(read(None, event)), "worst");
        assert_eq!(read(None, json!({"status": "running"})), Ok(None));
        let half = read(Some("progress"), json!({"progress": 50}));
        assert!(matches!(half, Ok(Some(Said::Progress(Progress { done: 50, .. })))), "{half:?}");
        assert!(read(Some("finished"), json!({})).is_err());
        assert!(interpret(&ogc, None, b"no json").is_err());
        let push = Service::new(Protocol::preset("push").unwrap(), ["http://host"]);
        let output = interpret(&push, Some("succeeded"), b"text");
        assert_eq!(output, Ok(Some(Said::Ended(Outcome::Succeeded(Some(Payload::from_bytes(*b"\"text\"")))))));
    }
}
