//! Every option that is accepted is seen in `docker inspect`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{HostConfig, NetworkCreateRequest, RestartPolicyNameEnum};
use light_task_scheduler::Executor;
use light_task_scheduler::executor::docker::{Bind, DockerPolicy, DockerSpec, Port, Protocol, Volume};
use light_task_scheduler::{Handle, NewTask};

use super::support::{containers, docker, executor, executor_with, inspect, run_of, sh, spec, start};
use crate::servers;

async fn clean(executor: &dyn Executor, handle: &Handle) {
    executor.stop(handle, std::time::Duration::ZERO).await;
    executor.release(handle).await;
}

#[tokio::test]
async fn every_option_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().canonicalize().unwrap();
    let volume = |target: &str, writable| Volume {
        source: source.to_str().unwrap().to_owned(),
        target: target.to_owned(),
        writable,
    };
    let asked = DockerSpec {
        entrypoint: Some(vec!["/bin/sh".into(), "-c".into()]),
        name: Some("my-name".into()),
        env: BTreeMap::from([("A".into(), "b=c d".into())]),
        working_dir: Some("/tmp".into()),
        memory_bytes: Some(33 << 20),
        cpus: Some(0.25),
        pids: Some(17),
        volumes: vec![volume("/read", false), volume("/write", true)],
        labels: BTreeMap::from([("team".into(), "a".into())]),
        user: Some("65534:65534".into()),
        stop_signal: Some("SIGINT".into()),
        init: true,
        ..spec(["sleep 1000"])
    };
    let policy = DockerPolicy {
        binds: vec![Bind { path: source.clone(), writable: true }],
        capabilities: vec!["CHOWN".into()],
        ..DockerPolicy::default()
    };
    let executor = executor_with(policy);
    executor.prepare(&NewTask::new("docker", &asked).unwrap()).await.unwrap();
    let run = run_of("task", &asked);
    let (handle, _reports) = start(&executor, &run).await;
    let seen = inspect(&docker(), &run.namespace).await;
    let (config, host) = (seen.config.unwrap(), seen.host_config.unwrap());
    assert_eq!(config.image, Some(servers::docker_image()));
    assert_eq!(config.entrypoint, asked.entrypoint);
    assert_eq!(config.cmd, Some(asked.cmd));
    assert_eq!(config.hostname.as_deref(), Some("my-name"));
    let env = config.env.unwrap();
    assert!(env.contains(&"A=b=c d".to_owned()), "{env:?}");
    assert!(env.contains(&format!("LTS_EXECUTION={}/task/1", run.namespace)), "{env:?}");
    assert_eq!(config.working_dir.as_deref(), Some("/tmp"));
    assert_eq!(config.user.as_deref(), Some("65534:65534"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    let labels = config.labels.unwrap();
    let expected = [("team", "a"), ("lts.name", "my-name"), ("lts.task", "task"), ("lts.execution", "1")];
    assert!(expected.iter().all(|(name, value)| labels.get(*name).map(String::as_str) == Some(value)), "{labels:?}");
    bounds_are_seen(&host);
    let mounts: HashMap<_, _> =
        seen.mounts.unwrap().into_iter().map(|mount| (mount.destination.clone(), mount)).collect();
    for (target, writable) in [("/read", false), ("/write", true)] {
        let mount = &mounts[&Some(target.to_owned())];
        assert_eq!((mount.typ.as_deref(), mount.rw), (Some("bind"), Some(writable)), "{target}");
        assert_eq!(mount.source.as_deref(), source.to_str());
    }
    clean(&executor, &handle).await;
    assert!(containers(&docker(), &run.namespace).await.is_empty());
}

fn bounds_are_seen(host: &HostConfig) {
    assert_eq!((host.memory, host.memory_swap), (Some(33 << 20), Some(33 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(250_000_000), Some(17)));
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host.cap_add, Some(vec!["CHOWN".to_owned()]));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!((host.privileged, host.auto_remove, host.init), (Some(false), Some(false), Some(true)));
    assert_eq!(host.restart_policy.as_ref().unwrap().name, Some(RestartPolicyNameEnum::NO));
    assert!(host.devices.as_ref().is_none_or(Vec::is_empty));
}

#[tokio::test]
async fn what_is_not_asked_for_is_bounded_all_the_same() {
    let executor = executor();
    let run = run_of("task", &spec(["sleep", "1000"]));
    let (handle, _reports) = start(&executor, &run).await;
    let host = inspect(&docker(), &run.namespace).await.host_config.unwrap();
    assert_eq!((host.memory, host.memory_swap), (Some(256 << 20), Some(256 << 20)));
    assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_000_000_000), Some(256)));
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    clean(&executor, &handle).await;
}

#[tokio::test]
async fn networks_and_ports_are_seen_where_they_are_allowed() {
    let network = servers::fresh_name("net");
    let docker = docker();
    let request = NetworkCreateRequest { name: network.clone(), ..NetworkCreateRequest::default() };
    docker.create_network(request).await.unwrap();
    let policy = DockerPolicy {
        networks: vec!["none".into(), "host".into(), network.clone()],
        publish_ports: true,
        ..DockerPolicy::default()
    };
    let executor = executor_with(policy);
    let port = Port { container: 53, host: None, host_ip: None, protocol: Protocol::Udp };
    let connected = DockerSpec {
        network: Some(network.clone()),
        name: Some("server".into()),
        ports: vec![port],
        ..spec(["sleep", "1000"])
    };
    let run = run_of("task", &connected);
    let (handle, _reports) = start(&executor, &run).await;
    let seen = inspect(&docker, &run.namespace).await;
    assert_eq!(seen.host_config.unwrap().network_mode, Some(network.clone()));
    let settings = seen.network_settings.unwrap();
    let bound = settings.ports.unwrap()["53/udp"].clone().unwrap();
    assert_eq!(bound[0].host_ip.as_deref(), Some("127.0.0.1"));
    assert!(bound[0].host_port.as_ref().unwrap().parse::<u16>().unwrap() > 0);
    let aliases = settings.networks.unwrap()[&network].aliases.clone().unwrap();
    assert!(aliases.contains(&"server".to_owned()), "{aliases:?}");
    clean(&executor, &handle).await;

    let host = DockerSpec { network: Some("host".into()), ..spec(["sleep", "1000"]) };
    let run = run_of("task", &host);
    let (handle, _reports) = start(&executor, &run).await;
    let seen = inspect(&docker, &run.namespace).await.host_config.unwrap();
    assert_eq!(seen.network_mode.as_deref(), Some("host"));
    clean(&executor, &handle).await;

    let disabled = DockerSpec { network_disabled: true, ..spec(["sleep", "1000"]) };
    let run = run_of("task", &disabled);
    let (handle, _reports) = start(&executor, &run).await;
    let seen = inspect(&docker, &run.namespace).await;
    assert_eq!(seen.config.unwrap().network_disabled, Some(true));
    clean(&executor, &handle).await;
    docker.remove_network(&network).await.unwrap();
}

#[tokio::test]
async fn an_entrypoint_may_be_taken_away() {
    let executor = executor();
    let run = run_of("task", &DockerSpec { entrypoint: Some(vec![]), ..spec(["sleep", "1000"]) });
    let (handle, _reports) = start(&executor, &run).await;
    let seen = inspect(&docker(), &run.namespace).await;
    assert_eq!((seen.path.as_deref(), seen.args), (Some("sleep"), Some(vec!["1000".to_owned()])));
    clean(&executor, &handle).await;
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_refused_when_the_task_is_taken_in() {
    let greedy = DockerSpec {
        privileged: true,
        network: Some("host".into()),
        memory_bytes: Some(1 << 50),
        volumes: vec![Volume { source: "/etc".into(), target: "/in".into(), writable: false }],
        ..sh("true")
    };
    let executor = executor();
    let message = executor.prepare(&NewTask::new("docker", &greedy).unwrap()).await.unwrap_err().to_string();
    for part in ["privileged", "host", "memory_bytes", "/etc"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let failure = super::support::refusal(&executor, &greedy).await;
    assert!(failure.fatal && failure.message == message, "{failure:?}");
}
