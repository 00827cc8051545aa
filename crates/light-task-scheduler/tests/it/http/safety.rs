//! Where calls may go, and who gets to see what.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use light_task_scheduler::executor::http::{Egress, HttpConfig, HttpExecutor, HttpJob, Secret, Service as Remote};
use light_task_scheduler::executor::{Started, Status};
use light_task_scheduler::{Executor, Name, NewTask};
use serde_json::json;

use super::service::{Service, protocol, serve};
use super::{config, task};

#[tokio::test]
async fn what_the_policy_does_not_allow_is_refused_before_and_at_the_connection() {
    let service = Service::start().await;
    let port = service.url.rsplit_once(':').unwrap().1.to_owned();
    for (url, early) in [
        (format!("http://127.0.0.1:{port}"), true),
        (format!("http://[::ffff:127.0.0.1]:{port}"), true),
        (format!("http://2130706433:{port}"), true),
        (format!("http://0x7f.1:{port}"), true),
        // A name: known to be bad only when it is resolved.
        (format!("http://localhost:{port}"), false),
    ] {
        let mut http = HttpConfig::default();
        http.services.insert(Name::new("jobs").unwrap(), Remote::new(protocol(), [url.as_str()]));
        let executor = HttpExecutor::new(http).unwrap();
        let prepared = executor.prepare(&task("succeed")).await;
        assert_eq!(prepared.is_err(), early, "{url}: {prepared:?}");
        let started = started(&executor, task("succeed")).await;
        assert!(started.contains("egress policy"), "{url}: {started}");
    }
    assert_eq!(service.asked(), 0);
}

/// Starts a task and says what came of it.
async fn started(executor: &HttpExecutor, task: NewTask) -> String {
    let run = super::run(task);
    let reporter = light_task_scheduler::executor::Reporter::new(Arc::new(|_| {}));
    format!("{:?}", executor.start(run, reporter).await)
}

#[tokio::test]
async fn a_redirect_does_not_lead_around_the_policy_or_carry_secrets_elsewhere() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let saw = seen.clone();
    let elsewhere = serve(Router::new().fallback(get(move |headers: HeaderMap| {
        saw.lock().unwrap().push(headers);
        async { r#"{"state": "running"}"# }
    })))
    .await;
    let service = Service::start().await;
    let mut http = config(&service);
    for service in http.services.values_mut() {
        service.headers.insert("Authorization".to_owned(), Secret::Text("Bearer hunter2".to_owned()));
        service.protocol.status.as_mut().unwrap().call.url = format!("{{+endpoint}}/away?to={elsewhere}/x");
    }
    let executor = HttpExecutor::new(http.clone()).unwrap();
    let run = super::run(task("until_stopped"));
    let reporter = light_task_scheduler::executor::Reporter::new(Arc::new(|_| {}));
    let Ok(Started::Running(handle)) = executor.start(run, reporter).await else { panic!("it does not run") };
    assert_eq!(executor.status(std::slice::from_ref(&handle)).await, [Status::Running(None)]);
    let headers = seen.lock().unwrap().pop().unwrap();
    assert!(!headers.contains_key("authorization"), "{headers:?}");
    // The metadata service of a cloud is never asked, whoever leads there.
    for service in http.services.values_mut() {
        service.protocol.status.as_mut().unwrap().call.url =
            "{+endpoint}/away?to=http://169.254.169.254/latest".to_owned();
    }
    let executor = HttpExecutor::new(http).unwrap();
    let answers = executor.status(std::slice::from_ref(&handle)).await;
    assert!(matches!(&answers[..], [Status::Unreachable(why)] if why.contains("egress policy")), "{answers:?}");
}

#[tokio::test]
async fn secrets_are_in_no_text_of_ours() {
    let service = Service::start().await;
    let mut http = config(&service);
    for service in http.services.values_mut() {
        service.headers.insert("Authorization".to_owned(), Secret::Text("Bearer hunter2".to_owned()));
        service.endpoints = vec!["http://127.0.0.1:1/base?token=hunter2".to_owned()];
    }
    let texts = [format!("{http:?}")];
    let executor = HttpExecutor::new(http).unwrap();
    let started = started(&executor, task("succeed")).await;
    // It cannot be reached, and its error shows where, but not the query.
    assert!(started.contains("127.0.0.1:1") && !started.contains("token=hunter2"), "{started}");
    for text in texts.iter().chain([&started, &format!("{executor:?}")]) {
        assert!(!text.contains("Bearer hunter2"), "{text}");
    }
}

#[tokio::test]
async fn tasks_name_their_own_services_only_where_they_may() {
    let service = Service::start().await;
    let own = |preset: &str| {
        let job = HttpJob::at(preset, service.url.as_str()).input(&json!({})).unwrap();
        NewTask::new("http", &job).unwrap()
    };
    let closed = HttpExecutor::new(config(&service)).unwrap();
    assert!(closed.prepare(&own("push")).await.is_err());
    let open = HttpExecutor::new(HttpConfig { open: true, ..config(&service) }).unwrap();
    open.prepare(&own("push")).await.unwrap();
    assert!(open.prepare(&own("psuh")).await.unwrap_err().to_string().contains("azure-lro"));
    let public = HttpExecutor::new(HttpConfig { open: true, ..HttpConfig::default() }).unwrap();
    assert!(public.prepare(&own("push")).await.unwrap_err().to_string().contains("egress"));
}

#[test]
fn a_bad_configuration_names_all_its_problems() {
    let mut http = HttpConfig {
        parallel: 0,
        egress: Egress { private: false, networks: vec!["x".to_owned()] },
        ..HttpConfig::default()
    };
    http.services.insert(Name::new("a").unwrap(), Remote::new(protocol(), ["no url", ""]));
    http.services.insert(Name::new("b").unwrap(), Remote::new(protocol(), Vec::<String>::new()));
    let message = HttpExecutor::new(http).unwrap_err().to_string();
    for word in ["parallel", "`x`", "service `a`", "no url", "service `b`", "no endpoints"] {
        assert!(message.contains(word), "{word} is missing in: {message}");
    }
}
