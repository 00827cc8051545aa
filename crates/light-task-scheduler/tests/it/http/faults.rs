//! Answers that are lost, endpoints without room, schedulers that die: nothing is started twice, nothing is lost.

use std::time::Duration;

use light_task_scheduler::executor::http::{HttpConfig, HttpExecutor, HttpJob, Protocol};
use light_task_scheduler::{
    Config, Executor, FailureKind, MemoryStore, NewTask, RetryPolicy, Scheduler, Shutdown, State, Store, Task, Tracking,
};
use serde_json::json;

use super::service::{LIMIT, Service, Spoil};
use super::{Name, config, task};

use std::sync::Arc;

/// How often the schedulers of these tests ask.
const ASK: Duration = Duration::from_millis(20);

async fn scheduler(store: &Arc<dyn Store>, http: HttpConfig) -> Scheduler {
    let config = Config { tracking: Tracking::Both(ASK), ..Config::default() };
    let executor: Arc<dyn Executor> = Arc::new(HttpExecutor::new(http).unwrap());
    Scheduler::builder(store.clone()).executor("http", executor).config(config).start().await.unwrap()
}

fn store() -> Arc<dyn Store> {
    MemoryStore::fifo().into()
}

async fn ended(scheduler: &Scheduler, task: NewTask) -> Task {
    let handle = scheduler.submit(task).await.unwrap();
    tokio::time::timeout(LIMIT, handle.wait()).await.expect("an end in time").unwrap()
}

/// The same service, but it cannot be asked for a job by its key.
fn without_find(service: &Service, idempotent: bool) -> HttpConfig {
    let mut http = config(service);
    for service in http.services.values_mut() {
        service.protocol.find = None;
        service.protocol.submit.idempotent = idempotent;
    }
    http
}

#[tokio::test]
async fn a_job_is_asked_for_until_it_ends_and_then_removed() {
    let service = Service::start().await;
    let scheduler = scheduler(&store(), config(&service)).await;
    let task = ended(&scheduler, task("succeed")).await;
    assert_eq!(task.record.state, State::Succeeded);
    let output: serde_json::Value = scheduler.handle(&task.id).result().await.unwrap();
    assert_eq!(output, json!({"of": "job/000000"}));
    scheduler.shutdown(Shutdown::default()).await.unwrap();
    assert_eq!((service.made(), service.known()), (1, 0));
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_not_doubled() {
    for http in [|s: &Service| config(s), |s: &Service| without_find(s, true)] {
        let service = Service::start().await;
        service.spoil(&[Spoil::LoseAnswer]);
        let scheduler = scheduler(&store(), http(&service)).await;
        let task = ended(&scheduler, task("succeed")).await;
        assert_eq!((task.record.state, task.record.attempt, service.made()), (State::Succeeded, 1, 1));
    }
}

#[tokio::test]
async fn where_nobody_can_find_out_a_person_must() {
    let service = Service::start().await;
    service.spoil(&[Spoil::LoseAnswer]);
    let scheduler = scheduler(&store(), without_find(&service, false)).await;
    let task = ended(&scheduler, task("succeed").retry(RetryPolicy::attempts(5))).await;
    assert_eq!((task.record.state, task.record.attempt, service.made()), (State::Failed, 1, 1));
    assert!(task.record.failure().unwrap().message.contains("look there"), "{:?}", task.record.failure());
}

#[tokio::test]
async fn an_endpoint_without_room_burns_no_attempt() {
    let service = Service::start().await;
    service.spoil(&[Spoil::NoRoom, Spoil::NoRoom]);
    let scheduler = scheduler(&store(), config(&service)).await;
    let task = ended(&scheduler, task("succeed")).await;
    assert_eq!((task.record.state, task.record.attempt, task.record.interruptions), (State::Succeeded, 3, 2));
    assert_eq!((service.asked(), service.made()), (3, 1));
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    let service = Service::start().await;
    service.spoil(&[Spoil::Refuse]);
    let scheduler = scheduler(&store(), config(&service)).await;
    let task = ended(&scheduler, task("succeed").retry(RetryPolicy::attempts(5))).await;
    assert_eq!((task.record.state, service.asked()), (State::Failed, 1));
    let failure = task.record.failure().unwrap();
    assert!(failure.message.contains("422") && failure.message.contains("no such layer"), "{failure:?}");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_passed_over() {
    let service = Service::start().await;
    let mut http = config(&service);
    for service in http.services.values_mut() {
        // Nobody listens on port 1.
        service.endpoints.insert(0, "http://127.0.0.1:1".to_owned());
    }
    let scheduler = scheduler(&store(), http).await;
    let handles: Vec<_> = scheduler.submit_many((0..20).map(|_| task("succeed")).collect()).await.unwrap();
    for handle in handles {
        let task = tokio::time::timeout(LIMIT, handle.unwrap().wait()).await.unwrap().unwrap();
        assert_eq!(task.record.state, State::Succeeded, "{:?}", task.record.failure());
    }
    assert_eq!(service.made(), 20);
}

#[tokio::test]
async fn a_job_outlives_its_scheduler_and_is_asked_for_by_the_next() {
    let service = Service::start().await;
    let store = store();
    let first = scheduler(&store, config(&service)).await;
    let handle = first.submit(task("until_stopped")).await.unwrap();
    let id = handle.id().clone();
    until(|| async {
        store.get(std::slice::from_ref(&id)).await.unwrap()[0].clone().unwrap().record.handle().is_some()
    })
    .await;
    first.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await.unwrap();
    let second = scheduler(&store, config(&service)).await;
    service.finish_all();
    let task = tokio::time::timeout(LIMIT, second.handle(&id).wait()).await.unwrap().unwrap();
    assert_eq!((task.record.state, task.record.attempt, service.made()), (State::Succeeded, 1, 1));
}

#[tokio::test]
async fn a_cancelled_job_is_stopped_and_a_deaf_one_is_shown() {
    let service = Service::start().await;
    let store = store();
    let scheduler = scheduler(&store, config(&service)).await;
    let handle = scheduler.submit(task("until_stopped")).await.unwrap();
    until(|| async { service.made() == 1 }).await;
    scheduler.cancel(handle.id()).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, handle.wait()).await.unwrap().unwrap();
    assert_eq!((ended.record.state, service.stopped()), (State::Cancelled, 1));
    let deaf = scheduler.submit(task("deaf").timeout(Duration::from_millis(100))).await.unwrap();
    until(|| async { scheduler.get(deaf.id()).await.unwrap().record.stop_unconfirmed }).await;
    service.finish_all();
    let ended = tokio::time::timeout(LIMIT, deaf.wait()).await.unwrap().unwrap();
    assert!(ended.record.state.is_terminal());
}

#[tokio::test]
async fn a_push_ends_with_its_answer() {
    let service = Service::start().await;
    let mut http = config(&service);
    let url = format!("{}/push", service.url);
    let push = light_task_scheduler::executor::http::Service::new(Protocol::preset("push").unwrap(), [url]);
    http.services.insert(Name::new("push").unwrap(), push);
    let scheduler = scheduler(&store(), http).await;
    let push = |work| {
        let job = HttpJob::new("push").unwrap().input(&json!({ "work": work })).unwrap();
        NewTask::new("http", &job).unwrap()
    };
    let task = ended(&scheduler, push("succeed")).await;
    let output: serde_json::Value = scheduler.handle(&task.id).result().await.unwrap();
    assert_eq!(output, json!({"pushed": true}));
    let task = ended(&scheduler, push("fail")).await;
    assert_eq!(task.record.failure().unwrap().kind, FailureKind::Error);
    let task = ended(&scheduler, push("never").timeout(Duration::from_millis(200))).await;
    assert_eq!(task.record.failure().unwrap().kind, FailureKind::Timeout);
}

/// Looks again and again, for as long as a test may take.
pub(super) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    tokio::time::timeout(LIMIT, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it holds in time");
}
