//! Where jobs are: services with several endpoints, and jobs whose address is a URL with a query.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use light_task_scheduler::executor::http::{Egress, HttpConfig, HttpExecutor, HttpJob, Service as Remote};
use light_task_scheduler::executor::{Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use light_task_scheduler::{Executor, Name, NewTask};
use serde_json::{Value, json};
use std::time::Duration;

use super::service::{Service, Spoil, protocol, serve};
use super::{run, task};

/// How many starts are made: enough that each of two endpoints gets some.
const STARTS: u64 = 24;

fn nobody_listens() -> Reporter {
    Reporter::new(Arc::new(|_| {}))
}

fn numbered(execution: u64) -> Run {
    let mut run = run(task("until_stopped"));
    Arc::get_mut(&mut run.task).unwrap().record.execution = execution;
    run
}

/// Two endpoints of one service that share nothing, and how both are spoken to.
async fn two(find: bool) -> (Service, Service, HttpConfig) {
    let (one, other) = (Service::start().await, Service::start().await);
    let mut protocol = protocol();
    if !find {
        protocol.find = None;
        protocol.submit.idempotent = true;
    }
    let mut http = HttpConfig { egress: Egress::private(), ..HttpConfig::default() };
    let jobs = Remote::new(protocol, [one.url.as_str(), other.url.as_str()]);
    http.services.insert(Name::new("jobs").unwrap(), jobs);
    (one, other, http)
}

/// Starts jobs as schedulers do that die before they store the handle, one of which finds no room at an endpoint; then
/// each is taken up by another one, whose configuration names the endpoints the other way round.
async fn starts_whose_handles_are_lost(find: bool) {
    let (one, other, mut http) = two(find).await;
    let mut again = http.clone();
    again.services.values_mut().for_each(|service| service.endpoints.reverse());
    let mut busy = 0;
    for execution in 1..=STARTS {
        if execution % 4 == 0 {
            one.spoil(&[Spoil::NoRoom]);
        }
        let started = HttpExecutor::new(http.clone()).unwrap().start(numbered(execution), nobody_listens()).await;
        match started {
            Ok(Started::Running(_)) => {}
            Err(StartError::Busy { .. }) if !find => {
                busy += 1;
                continue;
            }
            other => panic!("not started: {other:?}"),
        }
        let next = HttpExecutor::new(again.clone()).unwrap();
        let recovered = next.recover(numbered(execution), None, nobody_listens()).await;
        let Recovered::Attached(handle) = recovered else { panic!("{execution} is not found: {recovered:?}") };
        let status = next.status(std::slice::from_ref(&handle)).await;
        assert!(matches!(&status[..], [Status::Running(_)]), "{execution}: {status:?}");
        let twice = next.recover(numbered(execution), None, nobody_listens()).await;
        assert!(matches!(&twice, Recovered::Attached(found) if *found == handle), "{execution}: {twice:?}");
    }
    assert_eq!(one.made() + other.made() + busy, STARTS, "each is made once");
    assert!(one.made() > 0 && other.made() > 0, "both endpoints get some: {} and {}", one.made(), other.made());
    // Where nobody was asked to start anything, nothing is found; and while an endpoint cannot be asked, nobody knows.
    if find {
        let next = HttpExecutor::new(http.clone()).unwrap();
        let never = next.recover(numbered(STARTS + 1), None, nobody_listens()).await;
        assert!(matches!(never, Recovered::Gone(_)), "{never:?}");
        for service in http.services.values_mut() {
            // Nobody listens on port 1.
            service.endpoints.push("http://127.0.0.1:1".to_owned());
        }
        let next = HttpExecutor::new(http).unwrap();
        let never = next.recover(numbered(STARTS + 1), None, nobody_listens()).await;
        assert!(matches!(never, Recovered::Unreachable(_)), "{never:?}");
    }
}

#[tokio::test]
async fn a_job_is_looked_up_at_each_endpoint_that_may_have_it() {
    starts_whose_handles_are_lost(true).await;
}

#[tokio::test]
async fn a_start_is_repeated_only_at_the_endpoint_that_knows_its_key() {
    starts_whose_handles_are_lost(false).await;
}

/// Long-running operations whose address needs its query: without it, nobody knows them.
#[derive(Clone, Default)]
struct Operations(Arc<Mutex<Vec<&'static str>>>);

const VERSION: &str = "2026-01-01";

impl Operations {
    async fn start(&self) -> String {
        let router = Router::new()
            .route("/render", post(Operations::make))
            .route("/operations/{number}", get(Operations::look).post(Operations::cancel))
            .with_state(self.clone());
        serve(router).await
    }

    async fn make(Shared(all): Shared<Operations>) -> impl IntoResponse {
        let mut all = all.0.lock().unwrap();
        all.push("Running");
        let address = format!("/operations/{}?api-version={VERSION}", all.len() - 1);
        (StatusCode::ACCEPTED, [("operation-location", address)])
    }

    async fn look(
        Shared(all): Shared<Operations>,
        Path(number): Path<usize>,
        Query(query): Query<HashMap<String, String>>,
    ) -> Result<Json<Value>, StatusCode> {
        let known = query.get("api-version").is_some_and(|version| version == VERSION);
        let state = all.0.lock().unwrap().get(number).copied().filter(|_| known);
        state.map(|state| Json(json!({ "status": state }))).ok_or(StatusCode::BAD_REQUEST)
    }

    async fn cancel(
        Shared(all): Shared<Operations>,
        Path(named): Path<String>,
        Query(query): Query<HashMap<String, String>>,
    ) -> StatusCode {
        let known = query.get("api-version").is_some_and(|version| version == VERSION);
        let number = named.strip_suffix(":cancel").and_then(|number| number.parse::<usize>().ok());
        let mut all = all.0.lock().unwrap();
        match number.and_then(|number| all.get_mut(number)).filter(|_| known) {
            Some(state) => {
                *state = "Canceled";
                StatusCode::ACCEPTED
            }
            None => StatusCode::BAD_REQUEST,
        }
    }
}

#[tokio::test]
async fn an_operation_whose_address_has_a_query_is_stopped() {
    let operations = Operations::default();
    let http = HttpConfig { open: true, egress: Egress::private(), ..HttpConfig::default() };
    let executor = HttpExecutor::new(http).unwrap();
    let job = HttpJob::at("azure-lro", operations.start().await).path("/render");
    let run = run(NewTask::new("http", &job).unwrap());
    let started = executor.start(run, nobody_listens()).await;
    let Ok(Started::Running(handle)) = started else { panic!("not started: {started:?}") };
    let stopped = executor.stop(&handle, Duration::ZERO).await;
    assert!(matches!(stopped, Stopped::Confirmed(_)), "{stopped:?}");
    assert_eq!(*operations.0.lock().unwrap(), ["Canceled"]);
}
