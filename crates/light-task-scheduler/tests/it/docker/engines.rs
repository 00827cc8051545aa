//! Several engines: where a container goes, and what happens while some are full or away.

use std::time::Duration;

use light_task_scheduler::executor::docker::{DockerConfig, DockerExecutor, DockerPolicy, EngineConfig};
use light_task_scheduler::executor::{Executor, Recovered, StartError, Started, Status, Stopped};
use light_task_scheduler::{Handle, Name};

use super::support::{OwnEngine, config, containers, docker, fresh_namespace, reporter, run_in, run_of, spec, start};
use crate::servers;

fn with_capacity(config: &EngineConfig, capacity: usize) -> EngineConfig {
    EngineConfig { capacity, ..config.clone() }
}

fn open(engines: Vec<EngineConfig>) -> DockerExecutor {
    DockerExecutor::new(config(engines, DockerPolicy::default())).unwrap()
}

async fn start_sleep(executor: &DockerExecutor, namespace: &Name, id: &str) -> Handle {
    start(executor, &run_in(namespace, id, 1, &spec(["sleep", "1000"]))).await.0
}

#[tokio::test]
async fn containers_go_where_there_is_room() {
    let other = OwnEngine::start(false);
    // Nobody is at the third: it is passed over.
    let away = EngineConfig::new("unix:///nowhere/docker.sock");
    let executor = open(vec![away, with_capacity(&other.config, 4), with_capacity(&servers::docker_engine(), 2)]);
    let namespace = fresh_namespace();
    let mut handles = Vec::new();
    for (id, expected) in [("1", (1, 0)), ("2", (1, 1)), ("3", (2, 1)), ("4", (3, 1)), ("5", (3, 2)), ("6", (4, 2))] {
        handles.push(start_sleep(&executor, &namespace, id).await);
        let there = containers(&other.docker(), &namespace).await.len();
        assert_eq!((there, containers(&docker(), &namespace).await.len()), expected, "task {id}");
    }
    let seventh = run_in(&namespace, "7", 1, &spec(["sleep", "1000"]));
    let full = executor.start(seventh.clone(), reporter().0).await;
    assert!(matches!(full, Err(StartError::Busy { .. })), "{full:?}");
    assert!(executor.status(&handles).await.iter().all(|status| matches!(status, Status::Running(_))));
    // A place is free again when its container is released.
    assert!(matches!(executor.stop(&handles[0], Duration::ZERO).await, Stopped::Confirmed(_)));
    executor.release(&handles[0]).await;
    handles[0] = match executor.start(seventh, reporter().0).await {
        Ok(Started::Running(handle)) => handle,
        answer => panic!("there is room: {answer:?}"),
    };
    for handle in &handles {
        executor.stop(handle, Duration::ZERO).await;
        executor.release(handle).await;
    }
    assert!(containers(&docker(), &namespace).await.is_empty());
}

#[tokio::test]
async fn without_any_engine_a_start_waits_and_a_run_is_not_lost() {
    let away = open(vec![EngineConfig::new("unix:///nowhere/docker.sock")]);
    let run = run_of("task", &spec(["sleep", "1000"]));
    match away.start(run.clone(), reporter().0).await {
        Err(StartError::Busy { message, .. }) => assert!(message.contains("/nowhere/docker.sock"), "{message}"),
        answer => panic!("not busy: {answer:?}"),
    }
    let here = open(vec![servers::docker_engine()]);
    let (handle, _reports) = start(&here, &run).await;
    // Whoever cannot ask does not know, whatever it knows of the run.
    for known in [None, Some(handle.clone())] {
        let recovered = away.recover(run.clone(), known, reporter().0).await;
        assert!(matches!(recovered, Recovered::Unreachable(_)), "{recovered:?}");
    }
    assert!(matches!(away.status(std::slice::from_ref(&handle)).await[..], [Status::Unreachable(_)]));
    assert!(matches!(away.stop(&handle, Duration::ZERO).await, Stopped::Unconfirmed(_)));
    away.release(&handle).await;
    assert!(matches!(here.status(std::slice::from_ref(&handle)).await[..], [Status::Running(_)]));
    here.stop(&handle, Duration::ZERO).await;
    here.release(&handle).await;
}

#[tokio::test]
async fn a_run_is_not_gone_while_an_engine_that_may_have_it_is_away() {
    let away = EngineConfig::new("unix:///nowhere/docker.sock");
    let executor = open(vec![servers::docker_engine(), away]);
    let recovered = executor.recover(run_of("task", &spec(["true"])), None, reporter().0).await;
    assert!(matches!(recovered, Recovered::Unreachable(_)), "{recovered:?}");
}

#[tokio::test]
async fn one_engine_at_two_addresses_is_used_once() {
    let tcp = EngineConfig::new(servers::url("LTS_TEST_DOCKER_TCP", "docker"));
    let executor = open(vec![with_capacity(&servers::docker_engine(), 1), with_capacity(&tcp, 1)]);
    let namespace = fresh_namespace();
    let handle = start_sleep(&executor, &namespace, "1").await;
    match executor.start(run_in(&namespace, "2", 1, &spec(["true"])), reporter().0).await {
        Err(StartError::Busy { message, .. }) => assert!(message.contains("identity"), "{message}"),
        answer => panic!("its places were counted twice: {answer:?}"),
    }
    executor.stop(&handle, Duration::ZERO).await;
    executor.release(&handle).await;
}

#[tokio::test]
async fn installations_on_one_engine_are_apart() {
    let open = |installation: &str| {
        let config = config(vec![servers::docker_engine()], DockerPolicy::default());
        DockerExecutor::new(DockerConfig { installation: installation.to_owned(), ..config }).unwrap()
    };
    let run = run_of("task", &spec(["sleep", "1000"]));
    let (first, second) = (open("a"), open("b"));
    let (handle, _reports) = start(&first, &run).await;
    let recovered = second.recover(run.clone(), None, reporter().0).await;
    assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
    let (other, _other_reports) = start(&second, &run).await;
    assert_ne!(handle, other);
    for (executor, handle) in [(&first, &handle), (&second, &other)] {
        executor.stop(handle, Duration::ZERO).await;
        executor.release(handle).await;
    }
}

#[tokio::test]
async fn an_engine_behind_tls_lets_in_who_has_a_certificate() {
    let (engine, config) = OwnEngine::start_tls();
    let executor = open(vec![config.clone()]);
    let namespace = fresh_namespace();
    let handle = start_sleep(&executor, &namespace, "1").await;
    assert_eq!(containers(&engine.docker(), &namespace).await.len(), 1);
    executor.stop(&handle, Duration::ZERO).await;
    executor.release(&handle).await;
    let stranger = open(vec![EngineConfig { tls: None, ..config }]);
    assert!(stranger.reach().await.is_err(), "it talks to whoever comes");
}
