//! Reports that come early, twice, late, forged, or never, at whichever replica.

use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::http::{CallbackConfig, HttpConfig, HttpExecutor, Secret, webhook};
use light_task_scheduler::{
    Clock, Config, Executor, MemoryStore, Scheduler, State, Store, SystemClock, TaskHandle, Tracking,
};
use serde_json::json;

use super::service::{LIMIT, Service};
use super::{Door, KEY, config, task};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A scheduler that only listens, and where reports come in.
struct Listening {
    service: Service,
    scheduler: Scheduler,
    executor: HttpExecutor,
    store: Arc<dyn Store>,
    door: Door,
}

async fn listening(signed: bool) -> Listening {
    let service = Service::start().await;
    let door = Door::default();
    let callbacks = Some(CallbackConfig { url: door.open().await, key: Secret::Text(KEY.to_owned()) });
    let mut http = HttpConfig { callbacks, ..config(&service) };
    for service in http.services.values_mut() {
        service.signing = signed.then(|| Secret::Text(SECRET.to_owned()));
    }
    let store: Arc<dyn Store> = MemoryStore::fifo().into();
    let executor = HttpExecutor::new(http).unwrap();
    *door.0.lock().unwrap() = executor.callbacks(store.clone());
    let config = Config { tracking: Tracking::Push, ..Config::default() };
    let shared: Arc<dyn Executor> = Arc::new(executor.clone());
    let scheduler = Scheduler::builder(store.clone()).executor("http", shared).config(config).start().await.unwrap();
    Listening { service, scheduler, executor, store, door }
}

impl Listening {
    /// A job that runs, and where it reports.
    async fn begun(&self) -> (TaskHandle, String) {
        let handle = self.scheduler.submit(task("until_stopped")).await.unwrap();
        let begun = async {
            loop {
                if let Some(url) = self.service.callbacks().pop() {
                    return url;
                }
                tokio::task::yield_now().await;
            }
        };
        (handle, tokio::time::timeout(LIMIT, begun).await.unwrap())
    }

    async fn post(&self, url: &str, body: &str) -> u16 {
        super::client().post(url).body(body.to_owned()).send().await.unwrap().status().as_u16()
    }
}

async fn state(handle: &TaskHandle) -> State {
    tokio::time::timeout(LIMIT, handle.wait()).await.expect("an end in time").unwrap().record.state
}

#[tokio::test]
async fn a_report_ends_a_run_that_nobody_asks_for() {
    let here = listening(false).await;
    let handle = here.scheduler.submit(task("succeed")).await.unwrap();
    assert_eq!(state(&handle).await, State::Succeeded);
}

#[tokio::test]
async fn a_report_is_taken_twice_and_late_and_changes_nothing_more() {
    let here = listening(false).await;
    let (handle, url) = here.begun().await;
    for _ in 0..2 {
        assert_eq!(here.post(&url, r#"{"state": "failed", "message": "no"}"#).await, 204);
    }
    assert_eq!(state(&handle).await, State::Failed);
    assert_eq!(here.post(&format!("{url}/succeeded"), "{}").await, 204);
    assert_eq!(here.scheduler.get(handle.id()).await.unwrap().record.state, State::Failed);
}

#[tokio::test]
async fn a_forged_report_changes_nothing() {
    let here = listening(false).await;
    let (handle, url) = here.begun().await;
    let (_other, foreign) = here.begun().await;
    let cut = |url: &str| url.rsplit_once('.').map(|(name, code)| (name.to_owned(), code.to_owned())).unwrap();
    let forged = format!("{}.{}", cut(&url).0, cut(&foreign).1);
    if forged != url {
        assert_eq!(here.post(&forged, r#"{"state": "failed"}"#).await, 404);
    }
    assert_eq!(here.post(&format!("{}x", &url[..url.len() - 1]), r#"{"state": "failed"}"#).await, 404);
    assert_eq!(here.post(&url, "no json").await, 400);
    assert_eq!(here.post(&url, r#"{"state": "sleeping"}"#).await, 400);
    assert_eq!(here.scheduler.get(handle.id()).await.unwrap().record.state, State::Running);
}

#[tokio::test]
async fn where_reports_must_be_signed_an_unsigned_one_is_refused() {
    let here = listening(true).await;
    let (handle, url) = here.begun().await;
    assert_eq!(here.post(&format!("{url}/failed"), "{}").await, 401);
    let event = json!({
        "specversion": "1.0", "id": "e1", "source": "/jobs", "type": "io.lts.task.succeeded", "data": null,
    })
    .to_string();
    let at = SystemClock.now().as_micros() / 1_000_000;
    let signature = webhook::sign(SECRET, "e1", at, event.as_bytes()).unwrap();
    let signed = |body: String| {
        super::client()
            .post(&url)
            .header("webhook-id", "e1")
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", &signature)
            .body(body)
            .send()
    };
    assert_eq!(signed(event.replace("succeeded", "failed")).await.unwrap().status(), 401);
    assert_eq!(here.scheduler.get(handle.id()).await.unwrap().record.state, State::Running);
    assert_eq!(signed(event).await.unwrap().status(), 204);
    here.service.finish_all();
    assert_eq!(state(&handle).await, State::Succeeded);
}

#[tokio::test]
async fn a_report_to_another_replica_finds_its_way_through_the_store() {
    let here = listening(false).await;
    let (handle, url) = here.begun().await;
    // Another process with the same configuration: it knows nothing of the run.
    let callbacks = Some(CallbackConfig { url: String::new(), key: Secret::Text(KEY.to_owned()) });
    let other = HttpExecutor::new(HttpConfig { callbacks, ..config(&here.service) }).unwrap();
    *here.door.0.lock().unwrap() = other.callbacks(here.store.clone());
    assert_eq!(here.post(&url, r#"{"state": "failed", "message": "told elsewhere"}"#).await, 204);
    assert_eq!(state(&handle).await, State::Failed);
    drop(here.executor);
}

#[tokio::test]
async fn without_a_report_the_answer_to_a_question_is_enough() {
    let service = Service::start().await;
    let config = Config { tracking: Tracking::Both(Duration::from_millis(20)), ..Config::default() };
    let executor: Arc<dyn Executor> = Arc::new(HttpExecutor::new(super::config(&service)).unwrap());
    let scheduler =
        Scheduler::builder(MemoryStore::fifo()).executor("http", executor).config(config).start().await.unwrap();
    let handle = scheduler.submit(task("succeed")).await.unwrap();
    assert_eq!(state(&handle).await, State::Succeeded);
}
