//! What others have written understands us, and we them: pygeoapi, a job service after OGC API - Processes, and the
//! package standardwebhooks.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::http::{Egress, HttpConfig, HttpExecutor, HttpJob, webhook};
use light_task_scheduler::{
    Clock, Config, Executor, FailureKind, MemoryStore, NewTask, RetryPolicy, Scheduler, Shutdown, State, Store,
    SystemClock, Task, Timestamp, Tracking,
};
use serde_json::{Value, json};

use super::faults::until;
use super::service::LIMIT;
use crate::servers;

/// How often the schedulers of these tests ask.
const ASK: Duration = Duration::from_millis(100);
/// For how long a job waits that is stopped, and one that is taken up by another scheduler.
const STOPPED_AFTER_S: f64 = 60.5;
const TAKEN_UP_AFTER_S: f64 = 4.5;

fn pygeoapi() -> String {
    servers::url("LTS_TEST_OGC_URL", "pygeoapi")
}

fn job(process: &str, input: &Value) -> NewTask {
    let url = format!("{}/processes/{process}", pygeoapi());
    NewTask::new("http", &HttpJob::at("ogc", url).input(input).unwrap()).unwrap()
}

async fn scheduler(store: &Arc<dyn Store>) -> Scheduler {
    let http = HttpConfig { open: true, egress: Egress::private(), ..HttpConfig::default() };
    let executor: Arc<dyn Executor> = Arc::new(HttpExecutor::new(http).unwrap());
    let config = Config { tracking: Tracking::Both(ASK), ..Config::default() };
    Scheduler::builder(store.clone()).executor("http", executor).config(config).start().await.unwrap()
}

fn store() -> Arc<dyn Store> {
    MemoryStore::fifo().into()
}

async fn ended(scheduler: &Scheduler, task: NewTask) -> Task {
    let handle = scheduler.submit(task).await.unwrap();
    tokio::time::timeout(LIMIT, handle.wait()).await.expect("an end in time").unwrap()
}

/// How the jobs stand that pygeoapi has of a process.
async fn jobs_of(process: &str) -> Vec<String> {
    let answer = super::client().get(format!("{}/jobs?f=json", pygeoapi())).send().await.unwrap();
    let all: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let ours = all["jobs"].as_array().unwrap().iter().filter(|job| job["processID"] == process);
    ours.map(|job| job["status"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn pygeoapi_does_a_job_and_tells_its_result() {
    let scheduler = scheduler(&store()).await;
    let task = ended(&scheduler, job("hello-world", &json!({"name": "everybody"}))).await;
    assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 1), "{:?}", task.record.failure());
    let result: Value = scheduler.handle(&task.id).result().await.unwrap();
    assert_eq!(result["value"], "Hello everybody!", "{result}");
}

#[tokio::test]
async fn what_pygeoapi_says_of_a_failure_is_told() {
    let scheduler = scheduler(&store()).await;
    let task = ended(&scheduler, job("hello-world", &json!({}))).await;
    let failure = task.record.failure().unwrap();
    assert_eq!((task.record.state, failure.kind), (State::Failed, FailureKind::Error));
    assert!(failure.message.contains("without a name"), "{failure:?}");
}

#[tokio::test]
async fn a_process_that_pygeoapi_does_not_know_is_asked_for_once() {
    let scheduler = scheduler(&store()).await;
    let task = ended(&scheduler, job("goodbye-world", &json!({})).retry(RetryPolicy::attempts(3))).await;
    assert_eq!((task.record.state, task.record.attempt), (State::Failed, 1));
    let failure = task.record.failure().unwrap();
    assert!(failure.message.contains("404") && failure.message.contains("NoSuchProcess"), "{failure:?}");
}

#[tokio::test]
async fn a_job_that_is_cancelled_is_dismissed_by_pygeoapi() {
    let scheduler = scheduler(&store()).await;
    let work = job("dismissed", &json!({"echoInput": "never", "pause": STOPPED_AFTER_S}));
    let handle = scheduler.submit(work).await.unwrap();
    until(|| async { !jobs_of("dismissed").await.is_empty() }).await;
    scheduler.cancel(handle.id()).await.unwrap();
    let task = tokio::time::timeout(LIMIT, handle.wait()).await.unwrap().unwrap();
    assert_eq!(task.record.state, State::Cancelled, "{:?}", task.record.failure());
    assert_eq!(jobs_of("dismissed").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_job_at_pygeoapi_is_asked_for_by_the_next_scheduler_and_not_started_again() {
    let store = store();
    let first = scheduler(&store).await;
    let work = job("recovered", &json!({"echoInput": "still here", "pause": TAKEN_UP_AFTER_S}));
    let id = first.submit(work).await.unwrap().id().clone();
    until(|| async {
        store.get(std::slice::from_ref(&id)).await.unwrap()[0].clone().unwrap().record.handle().is_some()
    })
    .await;
    first.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await.unwrap();
    let second = scheduler(&store).await;
    // The second one owns it, and pygeoapi has one job of it.
    until(|| async {
        let record = second.get(&id).await.unwrap().record;
        record.state == State::Running && record.run > record.execution
    })
    .await;
    assert_eq!(jobs_of("recovered").await.len(), 1);
    let task = tokio::time::timeout(LIMIT, second.handle(&id).wait()).await.unwrap().unwrap();
    assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 1), "{:?}", task.record.failure());
    let result: Value = second.handle(&id).result().await.unwrap();
    assert_eq!(result["value"], "still here", "{result}");
    second.shutdown(Shutdown::default()).await.unwrap();
    assert_eq!(jobs_of("recovered").await, Vec::<String>::new(), "none was left, and none was started beside it");
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &str = r#"{"state": "done", "message": "grüezi"}"#;
const MICROS_PER_S: i64 = 1_000_000;

/// Signs or verifies, as the first argument says: secret, id, seconds, body, signature.
const PACKAGE: &str = r"
import sys
from datetime import datetime, timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
what, secret, id, at, body = sys.argv[1:6]
if what == 'sign':
    print(Webhook(secret).sign(id, datetime.fromtimestamp(int(at), timezone.utc), body))
else:
    headers = {'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': sys.argv[6]}
    try:
        Webhook(secret).verify(body, headers)
        print('good')
    except WebhookVerificationError as error:
        print('bad:', error)
";

fn package(arguments: &[&str]) -> String {
    let python = servers::url("LTS_TEST_PYTHON", "pygeoapi");
    let output = Command::new(python).args(["-c", PACKAGE]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn now() -> (Timestamp, i64) {
    let now = SystemClock.now();
    (now, now.as_micros() / MICROS_PER_S)
}

#[test]
fn the_package_takes_what_we_sign_and_nothing_else() {
    let (_, at) = now();
    let verify = |id: &str, at: i64, body: &str, signature: &str| {
        package(&["verify", SECRET, id, &at.to_string(), body, signature])
    };
    let good = webhook::sign(SECRET, "m1", at, BODY.as_bytes()).unwrap();
    assert_eq!(verify("m1", at, BODY, &good), "good");
    assert!(verify("m1", at, &BODY.replace("done", "gone"), &good).starts_with("bad"), "a forged body");
    assert!(verify("m2", at, BODY, &good).starts_with("bad"), "another message's");
    let before = at - webhook::TOLERANCE_S - 60;
    let old = webhook::sign(SECRET, "m1", before, BODY.as_bytes()).unwrap();
    assert!(verify("m1", before, BODY, &old).contains("too old"));
}

#[test]
fn we_take_what_the_package_signs_and_nothing_else() {
    let (now, at) = now();
    let sign = |at: i64| package(&["sign", SECRET, "m1", &at.to_string(), BODY]);
    let verify = |id, at: i64, body: &str, signature: &str| {
        webhook::verify(SECRET, id, &at.to_string(), signature, body.as_bytes(), now)
    };
    let good = sign(at);
    verify("m1", at, BODY, &good).unwrap();
    verify("m1", at, &BODY.replace("done", "gone"), &good).unwrap_err();
    verify("m2", at, BODY, &good).unwrap_err();
    let before = at - webhook::TOLERANCE_S - 60;
    assert!(verify("m1", before, BODY, &sign(before)).unwrap_err().to_string().contains("five minutes"));
}
