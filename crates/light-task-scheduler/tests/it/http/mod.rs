//! The HTTP executor against a job service on loopback, under the scheduler; and its place in the executor suite.

mod callbacks;
mod faults;
mod foreign;
mod places;
mod safety;
mod service;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use light_task_scheduler::executor::Run;
use light_task_scheduler::executor::http::{CallbackConfig, Egress, HttpConfig, HttpExecutor, HttpJob, Secret};
use light_task_scheduler::testing::conformance::executor::{ExecutorHarness, Work};
use light_task_scheduler::{Executor, MemoryStore, Name, NewTask, Record, Spec, Task, TaskId, Timestamp};
use serde_json::json;
use tower::ServiceExt;

use service::{Service, protocol, serve};

/// A key for callbacks.
const KEY: &str = "a key of more than sixteen characters";

/// A client for what the tests call themselves.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// One service, called `jobs`, on loopback.
fn config(service: &Service) -> HttpConfig {
    let mut config = HttpConfig { egress: Egress::private(), ..HttpConfig::default() };
    let jobs = light_task_scheduler::executor::http::Service::new(protocol(), [service.url.as_str()]);
    config.services.insert(Name::new("jobs").unwrap(), jobs);
    config
}

fn task(work: &str) -> NewTask {
    let job = HttpJob::new("jobs").unwrap().input(&json!({"work": work, "message": "so it is"})).unwrap();
    NewTask::new("http", &job).unwrap()
}

/// A start of a task.
fn run(new: NewTask) -> Run {
    let spec = Spec {
        queue: new.queue,
        kind: new.kind,
        payload: new.payload,
        priority: new.priority,
        created_at: Timestamp::default(),
        options: new.options,
    };
    let record = Record { run: 1, execution: 1, attempt: 1, ..Record::default() };
    let task = Task { id: TaskId::new("task").unwrap(), spec, record };
    Run { namespace: Name::new("test").unwrap(), task: Arc::new(task), claimed_here: false }
}

/// Where callbacks come in: handed on to whichever executor was opened last, as a load balancer would.
#[derive(Clone, Default)]
struct Door(Arc<Mutex<Option<Router>>>);

impl Door {
    async fn open(&self) -> String {
        let door = self.clone();
        serve(Router::new().fallback(move |request: Request| {
            let router = door.0.lock().unwrap().clone().unwrap();
            async move { router.oneshot(request).await }
        }))
        .await
    }

    fn lead_to(&self, executor: &HttpExecutor) {
        *self.0.lock().unwrap() = executor.callbacks(MemoryStore::fifo());
    }
}

/// The place of one case of the executor suite.
pub(crate) struct Remote {
    service: tokio::sync::OnceCell<(Service, String)>,
    door: Door,
}

impl Remote {
    pub(crate) fn new() -> Self {
        Remote { service: tokio::sync::OnceCell::new(), door: Door::default() }
    }
}

#[async_trait]
impl ExecutorHarness for Remote {
    async fn open(&self) -> Arc<dyn Executor> {
        let made = self.service.get_or_init(|| async { (Service::start().await, self.door.open().await) });
        let (service, url) = made.await;
        let callbacks = Some(CallbackConfig { url: url.clone(), key: Secret::Text(KEY.to_owned()) });
        let executor = HttpExecutor::new(HttpConfig { callbacks, ..config(service) }).unwrap();
        self.door.lead_to(&executor);
        Arc::new(executor)
    }

    fn task(&self, work: Work) -> Option<NewTask> {
        Some(match work {
            Work::Succeed => task("succeed"),
            Work::Fail => task("fail"),
            Work::UntilStopped => task("until_stopped"),
            Work::Deaf => task("deaf"),
            Work::Progress => task("progress"),
            Work::Never => NewTask::new("http", &HttpJob::new("nobody").unwrap()).unwrap(),
        })
    }

    fn namespace(&self) -> Name {
        Name::new("test").unwrap()
    }
}
