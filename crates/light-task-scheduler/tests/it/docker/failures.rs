//! Every way to fail has words of its own.

use std::time::Duration;

use bollard::models::{ContainerCreateBody, NetworkCreateRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use light_task_scheduler::executor::docker::{
    Bind, DockerExecutor, DockerPolicy, DockerSpec, EngineConfig, Port, Protocol, Pull, STDOUT_BYTES_MAX, Volume,
};
use light_task_scheduler::executor::{Executor, StartError, Status, Stopped};
use light_task_scheduler::{FailureKind, Outcome};

use super::support::{
    LIMIT, config, containers, docker, end_of, executor, executor_with, failure, inspect, refusal, reporter, run_of,
    sh, spec, start, until,
};
use crate::servers;

#[tokio::test]
async fn a_success_has_its_output() {
    let (outcome, result) = end_of(&executor(), &sh("echo hello; echo warning >&2")).await;
    assert_eq!(outcome, Outcome::Succeeded(None));
    let result = result.unwrap();
    assert_eq!((result.exit_code, result.stdout.as_str(), result.stdout_truncated), (0, "hello\n", false));
    assert!(result.image.starts_with("sha256:"), "{result:?}");
    let lines = STDOUT_BYTES_MAX / 2 + 10;
    let (_, result) = end_of(&executor(), &sh(&format!("yes x | head -n {lines}"))).await;
    let result = result.unwrap();
    assert_eq!((result.stdout.len(), result.stdout_truncated), (STDOUT_BYTES_MAX, true));
}

#[tokio::test]
async fn an_exit_code_comes_with_the_last_complaint() {
    let failure = failure(end_of(&executor(), &sh("echo one >&2; echo no disk >&2; echo out; exit 3")).await.0);
    assert_eq!((failure.message.as_str(), failure.exit_code), ("exit code 3: no disk", Some(3)));
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Error, false));
}

#[tokio::test]
async fn a_container_that_needs_too_much_memory_is_told_apart() {
    let greedy = DockerSpec { memory_bytes: Some(16 << 20), ..spec(["tail", "/dev/zero"]) };
    let failure = failure(end_of(&executor(), &greedy).await.0);
    assert!(failure.message.contains("out of memory"), "{failure:?}");
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::Error, Some(137)));
}

#[tokio::test]
async fn an_image_that_is_missing_is_named() {
    let missing = DockerSpec { image: "nothing-of-the-kind:1".into(), ..sh("true") };
    let failure = refusal(&executor(), &missing).await;
    assert!(failure.fatal && failure.message.contains("no image nothing-of-the-kind:1"), "{failure:?}");
}

#[tokio::test]
async fn an_image_that_cannot_be_fetched_may_be_fetched_later() {
    // Nobody listens at port 1.
    for pull in [Pull::Missing, Pull::Always] {
        let unreachable = DockerSpec { image: "127.0.0.1:1/a/b:1".into(), pull, ..sh("true") };
        let failure = refusal(&executor(), &unreachable).await;
        assert!(failure.message.contains("127.0.0.1:1/a/b:1 cannot be fetched"), "{failure:?}");
        assert!(!failure.fatal, "the registry may come back");
    }
}

#[tokio::test]
async fn an_image_that_is_there_is_not_fetched() {
    let (outcome, _) = end_of(&executor(), &DockerSpec { pull: Pull::Missing, ..sh("true") }).await;
    assert_eq!(outcome, Outcome::Succeeded(None));
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let failure = refusal(&executor(), &spec(["no-such-program"])).await;
    assert!(failure.fatal && failure.message.contains("no-such-program"), "{failure:?}");
    assert_eq!(failure.kind, FailureKind::Refused);
}

#[tokio::test]
async fn a_volume_that_is_missing_is_named() {
    let volume = Volume { source: "/nowhere/at/all".into(), target: "/in".into(), writable: false };
    let policy =
        DockerPolicy { binds: vec![Bind { path: "/nowhere".into(), writable: false }], ..DockerPolicy::default() };
    // An engine that does not share our files, so that only itself can say what is there.
    let far = EngineConfig::new(servers::url("LTS_TEST_DOCKER_TCP", "docker"));
    let executor = DockerExecutor::new(config(vec![far], policy)).unwrap();
    let failure = refusal(&executor, &DockerSpec { volumes: vec![volume], ..sh("true") }).await;
    assert!(failure.message.contains("a volume cannot be mounted"), "{failure:?}");
    assert!(!std::path::Path::new("/nowhere").exists(), "the engine has not made it");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let network = servers::fresh_name("net");
    let docker = docker();
    let request = NetworkCreateRequest { name: network.clone(), ..NetworkCreateRequest::default() };
    docker.create_network(request).await.unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Some(taken.local_addr().unwrap().port());
    let policy = DockerPolicy { networks: vec![network.clone()], publish_ports: true, ..DockerPolicy::default() };
    let ports = vec![Port { container: 80, host, host_ip: None, protocol: Protocol::Tcp }];
    let failure = refusal(&executor_with(policy), &DockerSpec { ports, ..sh("true") }).await;
    assert!(failure.message.contains("a port is taken") && !failure.fatal, "{failure:?}");
    docker.remove_network(&network).await.unwrap();
}

#[tokio::test]
async fn a_name_that_another_has_is_not_taken_for_ours() {
    let executor = executor();
    let run = run_of("task", &spec(["sleep", "1000"]));
    let (handle, _reports) = start(&executor, &run).await;
    let name = inspect(&docker(), &run.namespace).await.name.unwrap();
    executor.stop(&handle, Duration::ZERO).await;
    executor.release(&handle).await;
    // Somebody else's, without our labels.
    let (image, cmd) = (Some(servers::docker_image()), Some(vec!["true".to_owned()]));
    let body = ContainerCreateBody { image, cmd, ..ContainerCreateBody::default() };
    let options = CreateContainerOptionsBuilder::new().name(name.trim_start_matches('/')).build();
    let other = docker().create_container(Some(options), body).await.unwrap().id;
    match executor.start(run.clone(), reporter().0).await {
        Err(StartError::Refused(failure)) => assert!(failure.message.contains("name"), "{failure:?}"),
        answer => panic!("not refused: {answer:?}"),
    }
    assert!(docker().inspect_container(&other, None).await.is_ok(), "the other container is left alone");
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker().remove_container(&other, Some(force)).await.unwrap();
}

#[tokio::test]
async fn a_container_that_somebody_removes_is_lost() {
    let executor = executor();
    let run = run_of("task", &spec(["sleep", "1000"]));
    let (handle, mut reports) = start(&executor, &run).await;
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    let id = containers(&docker(), &run.namespace).await.remove(0);
    docker().remove_container(&id, Some(force)).await.unwrap();
    // The engine kills before it removes: whoever looks in between sees the exit code of that.
    let failure = failure(reports.ended().await);
    assert!(failure.kind == FailureKind::Lost || failure.exit_code == Some(137), "{failure:?}");
    assert!(matches!(executor.status(std::slice::from_ref(&handle)).await[..], [Status::Lost(_)]));
}

#[tokio::test]
async fn what_ends_well_because_it_was_stopped_has_not_succeeded() {
    let executor = executor();
    let run = run_of("task", &sh("trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"));
    let (handle, mut reports) = start(&executor, &run).await;
    let docker = docker();
    let id = containers(&docker, &run.namespace).await.remove(0);
    until("it traps", async || super::logs::printed(&docker, &id).await.contains("ready")).await;
    assert_eq!(executor.stop(&handle, LIMIT).await, Stopped::Confirmed(None));
    assert_eq!(failure(reports.ended().await).kind, FailureKind::Cancelled);
    executor.release(&handle).await;
}

#[tokio::test]
async fn a_stop_uses_the_signal_that_was_asked_for() {
    let executor = executor();
    let script = "trap 'exit 41' INT; trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let run = run_of("task", &DockerSpec { stop_signal: Some("SIGINT".into()), ..sh(script) });
    let (handle, mut reports) = start(&executor, &run).await;
    let docker = docker();
    let id = containers(&docker, &run.namespace).await.remove(0);
    until("it traps", async || super::logs::printed(&docker, &id).await.contains("ready")).await;
    assert_eq!(executor.stop(&handle, LIMIT).await, Stopped::Confirmed(None));
    assert_eq!(failure(reports.ended().await).exit_code, Some(41));
    executor.release(&handle).await;
}
