//! A task's container in the words of the engine.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::names::{Execution, LABEL_NAME};
use super::policy::{DockerPolicy, NETWORK_HOST, NETWORK_NONE, Settled};
use super::spec::{DockerSpec, EXECUTION_VARIABLE};

/// Keeps what containers write byte by byte; the other drivers replace what is no UTF-8.
const LOG_DRIVER: &str = "local";
/// Past this the engine would cut off the beginning of a log, by which its offsets are counted: never.
const LOG_SIZE_MAX: &str = "1000g";
/// Parts of a processor in one.
const NANOS: f64 = 1e9;

/// The container of an execution.
pub(super) fn body(
    spec: &DockerSpec,
    settled: &Settled,
    policy: &DockerPolicy,
    execution: &Execution,
) -> ContainerCreateBody {
    let mut labels: HashMap<String, String> =
        spec.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    labels.extend(execution.labels());
    labels.extend(spec.name.clone().map(|name| (LABEL_NAME.to_owned(), name)));
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    env.push(format!("{EXECUTION_VARIABLE}={execution}"));
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: (!spec.cmd.is_empty()).then(|| spec.cmd.clone()),
        // The engine takes an empty list for none given; a list of nothing is how it is told to forget the image's.
        entrypoint: spec.entrypoint.clone().map(|words| if words.is_empty() { vec![String::new()] } else { words }),
        hostname: spec.name.clone().filter(|_| settled.network != NETWORK_HOST),
        env: Some(env),
        working_dir: spec.working_dir.clone(),
        labels: Some(labels),
        user: spec.user.clone(),
        stop_signal: spec.stop_signal.clone(),
        network_disabled: spec.network_disabled.then_some(true),
        exposed_ports: (!spec.ports.is_empty()).then(|| spec.ports.iter().map(ToString::to_string).collect()),
        networking_config: alias(spec, settled),
        host_config: Some(host_config(spec, settled, policy)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &DockerSpec, settled: &Settled, policy: &DockerPolicy) -> HostConfig {
    let memory = i64::try_from(settled.memory_bytes).unwrap_or(i64::MAX);
    let mounts = settled.volumes.iter().map(|(source, target, writable)| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.clone()),
        target: Some(target.clone()),
        read_only: Some(!writable),
        ..Mount::default()
    });
    HostConfig {
        memory: Some(memory),
        // Together with swap: none.
        memory_swap: Some(memory),
        nano_cpus: Some((settled.cpus * NANOS).round() as i64),
        pids_limit: Some(i64::from(settled.pids)),
        network_mode: Some(settled.network.clone()),
        port_bindings: (!spec.ports.is_empty()).then(|| port_bindings(spec)),
        privileged: spec.privileged.then_some(true),
        mounts: (!settled.volumes.is_empty()).then(|| mounts.collect()),
        cap_drop: (!spec.privileged).then(|| vec!["ALL".to_owned()]),
        cap_add: (!spec.privileged && !policy.capabilities.is_empty()).then(|| policy.capabilities.clone()),
        security_opt: (!spec.privileged).then(|| vec!["no-new-privileges".to_owned()]),
        // What has ended stays ended, and stays until its outcome is stored.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        auto_remove: Some(false),
        init: spec.init.then_some(true),
        log_config: Some(HostConfigLogConfig {
            typ: Some(LOG_DRIVER.to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE_MAX.to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
                ("compress".to_owned(), "false".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn port_bindings(spec: &DockerSpec) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let ip = port.host_ip.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
        let binding = PortBinding {
            host_ip: Some(ip.to_string()),
            host_port: Some(port.host.map_or_else(String::new, |port| port.to_string())),
        };
        bindings.entry(port.to_string()).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

/// The name by which others find it, where names are served: in networks made by users.
fn alias(spec: &DockerSpec, settled: &Settled) -> Option<NetworkingConfig> {
    const NAMELESS: [&str; 4] = [NETWORK_NONE, NETWORK_HOST, "bridge", "default"];
    let name = spec.name.clone().filter(|_| !NAMELESS.contains(&settled.network.as_str()))?;
    let endpoint = EndpointSettings { aliases: Some(vec![name]), ..EndpointSettings::default() };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(settled.network.clone(), endpoint)])) })
}

/// The bounds that an engine has not taken over: some leave out what their kernel does not have, and say so
/// only in a remark.
pub(super) fn ignored(asked: &HostConfig, found: &ContainerInspectResponse) -> Vec<&'static str> {
    let none = HostConfig::default();
    let found = found.host_config.as_ref().unwrap_or(&none);
    [
        ("memory", asked.memory != found.memory),
        ("swap", asked.memory_swap != found.memory_swap),
        ("cpus", asked.nano_cpus != found.nano_cpus),
        ("pids", asked.pids_limit != found.pids_limit),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskId;

    fn host_config_of(privileged: bool) -> HostConfig {
        let spec = DockerSpec { privileged, ..DockerSpec::new("a", ["b"]) };
        let policy = DockerPolicy { privileged: true, ..DockerPolicy::default() };
        let settled = policy.settle(&spec, true).unwrap();
        let execution = Execution { namespace: "n".into(), id: TaskId::new("i").unwrap(), execution: 1 };
        body(&spec, &settled, &policy, &execution).host_config.unwrap()
    }

    #[test]
    fn only_a_privileged_container_keeps_its_rights() {
        let host = host_config_of(true);
        assert_eq!((host.privileged, host.cap_drop, host.security_opt), (Some(true), None, None));
        let host = host_config_of(false);
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    }

    #[test]
    fn a_bound_that_an_engine_leaves_out_is_noticed() {
        let asked = host_config_of(false);
        let found = |host: HostConfig| ContainerInspectResponse { host_config: Some(host), ..Default::default() };
        assert_eq!(ignored(&asked, &found(asked.clone())), Vec::<&str>::new());
        assert_eq!(ignored(&asked, &found(HostConfig { memory: Some(0), ..asked.clone() })), ["memory"]);
        assert_eq!(ignored(&asked, &ContainerInspectResponse::default()), ["memory", "swap", "cpus", "pids"]);
    }
}
