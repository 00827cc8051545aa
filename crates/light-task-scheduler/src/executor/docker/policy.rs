//! What the administrator allows: whoever may give an engine any container to run owns the engine's host.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::{DockerSpec, MEMORY_BYTES_MIN, Pull};
use crate::error::{Error, Result};

/// The network without any other end.
pub(super) const NETWORK_NONE: &str = "none";
/// The network of the engine's host.
pub(super) const NETWORK_HOST: &str = "host";

/// What tasks may ask of an engine, and what they get if they ask for nothing.
///
/// The default is strict: no network, no files of the host, no rights, 256 MiB, one processor, 256 processes.
/// What no field here opens cannot be asked for at all: devices, capabilities, and namespaces of the host.
/// Containers never gain rights by a set-uid program, unless they are privileged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerPolicy {
    /// The images, as patterns in which `*` stands for any text, also with slashes. They are compared with what the
    /// task writes: `alpine` is not `docker.io/library/alpine`. Default: `*`, all.
    pub images: Vec<String>,
    /// Images may be fetched from registries. Default true.
    pub pull: bool,
    /// The parts of the engine's host that may be shown in containers. Default: none.
    pub binds: Vec<Bind>,
    /// The networks, by name; the first is that of tasks that name none. `host` gives a container all ports and
    /// connections of the engine's host. Default: `none`.
    pub networks: Vec<String>,
    /// Ports may be published. Default false.
    pub publish_ports: bool,
    /// Tasks may ask for all rights of the engine's host. Default false.
    pub privileged: bool,
    /// The kernel's capabilities that every container has, such as `CHOWN`; all others are taken away.
    /// Default: none.
    pub capabilities: Vec<String>,
    /// Bytes of memory: of those that ask for none, and at most. Defaults: 256 MiB, 4 GiB.
    pub memory_bytes: Bound<u64>,
    /// Processors: of those that ask for none, and at most. Defaults: 1, 64.
    pub cpus: Bound<f64>,
    /// Processes and threads: of those that ask for none, and at most. Defaults: 256, 4,096.
    pub pids: Bound<u32>,
}

/// What there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound<T> {
    /// For those who do not ask.
    pub default: T,
    /// At most.
    pub max: T,
}

/// A part of the engine's host that may be shown in containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// A directory, with all that is below it, or a file: absolute, without `..`.
    pub path: PathBuf,
    /// Containers may write there. Default false.
    #[serde(default)]
    pub writable: bool,
}

impl Default for DockerPolicy {
    fn default() -> Self {
        DockerPolicy {
            images: vec!["*".to_owned()],
            pull: true,
            binds: Vec::new(),
            networks: vec![NETWORK_NONE.to_owned()],
            publish_ports: false,
            privileged: false,
            capabilities: Vec::new(),
            memory_bytes: Bound { default: 256 << 20, max: 4 << 30 },
            cpus: Bound { default: 1.0, max: 64.0 },
            pids: Bound { default: 256, max: 4_096 },
        }
    }
}

/// A task that is allowed, with everything settled that it left open.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settled {
    pub(super) memory_bytes: u64,
    pub(super) cpus: f64,
    pub(super) pids: u32,
    pub(super) network: String,
    /// Source, target, and whether it may be written.
    pub(super) volumes: Vec<(String, String, bool)>,
}

impl DockerPolicy {
    /// Names every problem of the policy itself.
    pub fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.images.is_empty() {
            problems.push("images is empty: no task could run".to_owned());
        }
        if self.networks.is_empty() {
            problems.push("networks is empty; `none` is the network of those who need none".to_owned());
        }
        for bind in self.binds.iter().filter(|bind| !is_plain(&bind.path)) {
            problems.push(format!("the bind {} is not absolute, or has `..` in it", bind.path.display()));
        }
        if self.memory_bytes.default < MEMORY_BYTES_MIN || self.memory_bytes.max < self.memory_bytes.default {
            problems.push(format!("memory_bytes must be {MEMORY_BYTES_MIN} at least, and max not below default"));
        }
        if !self.cpus.max.is_finite() || self.cpus.default <= 0.0 || self.cpus.max < self.cpus.default {
            problems.push("cpus must be above 0, and max not below default".to_owned());
        }
        if self.pids.default == 0 || self.pids.max < self.pids.default {
            problems.push("pids must be above 0, and max not below default".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }

    /// Settles a task, or refuses it with every problem named. `local`: the engines share our file system, so that
    /// links in the sources of volumes can be followed before anybody else does.
    pub(super) fn settle(&self, spec: &DockerSpec, local: bool) -> Result<Settled> {
        let mut problems = spec.problems();
        if !self.images.iter().any(|pattern| matches(pattern, &spec.image)) {
            problems.push(format!("the image {} is not allowed", spec.image));
        }
        if !self.pull && spec.pull == Pull::Always {
            problems.push("images may not be fetched, and pull is always".to_owned());
        }
        if spec.privileged && !self.privileged {
            problems.push("privileged is not allowed".to_owned());
        }
        if !spec.ports.is_empty() && !self.publish_ports {
            problems.push("ports may not be published".to_owned());
        }
        let memory_bytes = bounded("memory_bytes", spec.memory_bytes, self.memory_bytes, &mut problems);
        let cpus = bounded("cpus", spec.cpus, self.cpus, &mut problems);
        let pids = bounded("pids", spec.pids, self.pids, &mut problems);
        let network = match &spec.network {
            None if spec.network_disabled => NETWORK_NONE.to_owned(),
            None => self.networks.first().cloned().unwrap_or_else(|| NETWORK_NONE.to_owned()),
            Some(network) => {
                if network != NETWORK_NONE && !self.networks.contains(network) {
                    problems.push(format!("the network {network:?} is not allowed"));
                }
                network.clone()
            }
        };
        if !spec.ports.is_empty() && [NETWORK_NONE, NETWORK_HOST].contains(&network.as_str()) {
            problems.push(format!("ports can be published only with a network other than {network:?}"));
        }
        let mut volumes = Vec::new();
        for volume in &spec.volumes {
            match self.source(&volume.source, volume.writable, local) {
                Ok(source) => volumes.push((source, volume.target.clone(), volume.writable)),
                Err(why) => problems.push(why),
            }
        }
        if problems.is_empty() {
            Ok(Settled { memory_bytes, cpus, pids, network, volumes })
        } else {
            Err(Error::invalid(problems.join("; ")))
        }
    }

    /// Where a volume really comes from, or why it may not.
    fn source(&self, source: &str, writable: bool, local: bool) -> Result<String, String> {
        let written = Path::new(source);
        if !is_plain(written) || source.contains('\0') {
            return Err(format!("the source {source:?} of a volume is not absolute, or has `..` in it"));
        }
        let real = if local {
            written.canonicalize().map_err(|error| format!("the source {source:?} of a volume: {error}"))?
        } else {
            written.components().collect()
        };
        // A rule for a link is a rule for what it leads to: that is the administrator's own.
        let ruled = |bind: &Bind| {
            let path = if local { bind.path.canonicalize().ok() } else { Some(bind.path.clone()) };
            path.is_some_and(|path| real.starts_with(path)) && (bind.writable || !writable)
        };
        if self.binds.iter().any(ruled) {
            return real.to_str().map(str::to_owned).ok_or_else(|| format!("the source {source:?} is no text"));
        }
        let how = if writable { "written" } else { "shown" };
        Err(if real == written {
            format!("{source} may not be {how} in a container")
        } else {
            format!("{source} leads to {}, which may not be {how} in a container", real.display())
        })
    }
}

fn bounded<T: PartialOrd + Copy + std::fmt::Display>(
    name: &str,
    asked: Option<T>,
    bound: Bound<T>,
    problems: &mut Vec<String>,
) -> T {
    let value = asked.unwrap_or(bound.default);
    if value > bound.max {
        problems.push(format!("{name} is {value}, more than the {} allowed", bound.max));
    }
    value
}

/// Whether a path is absolute and leads nowhere but down.
fn is_plain(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Whether a pattern, in which `*` stands for any text, describes the whole of a text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::executor::docker::spec::{Port, Protocol, Volume};

    fn volume(source: impl AsRef<Path>, writable: bool) -> DockerSpec {
        let source = source.as_ref().to_str().unwrap().to_owned();
        DockerSpec { volumes: vec![Volume { source, target: "/in".into(), writable }], ..DockerSpec::new("a", ["b"]) }
    }

    #[test]
    fn the_default_is_strict_and_names_all_it_refuses() {
        let greedy = DockerSpec {
            privileged: true,
            network: Some("host".into()),
            memory_bytes: Some(1 << 40),
            cpus: Some(65.0),
            pids: Some(100_000),
            ..volume("/etc", false)
        };
        let message = DockerPolicy::default().settle(&greedy, true).unwrap_err().to_string();
        for part in ["privileged", "\"host\"", "memory_bytes", "cpus", "pids", "/etc"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let port = Port { container: 80, host: None, host_ip: None, protocol: Protocol::Tcp };
        let server = DockerSpec { network: Some("web".into()), ports: vec![port], ..DockerSpec::new("a", ["b"]) };
        let message = DockerPolicy::default().settle(&server, true).unwrap_err().to_string();
        assert!(message.contains("ports") && message.contains("\"web\""), "{message}");
        let open = DockerPolicy { publish_ports: true, networks: vec!["web".into()], ..DockerPolicy::default() };
        assert_eq!(open.settle(&server, true).unwrap().network, "web");
        let unsaid = DockerSpec { network: None, ..server.clone() };
        assert_eq!(open.settle(&unsaid, true).unwrap().network, "web");
        for nowhere in
            [DockerSpec { network: Some("none".into()), ..server }, DockerSpec { network_disabled: true, ..unsaid }]
        {
            let message = open.settle(&nowhere, true).unwrap_err().to_string();
            assert!(message.contains("other than \"none\""), "{message}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_settled() {
        let settled = DockerPolicy::default().settle(&DockerSpec::new("a", ["b"]), true).unwrap();
        assert_eq!((settled.memory_bytes, settled.cpus, settled.pids), (256 << 20, 1.0, 256));
        assert_eq!((settled.network.as_str(), settled.volumes.len()), ("none", 0));
    }

    #[test]
    fn images_are_allowed_by_pattern() {
        let policy = DockerPolicy {
            images: vec!["registry.example/team/*:v1.*".into(), "busybox".into()],
            ..DockerPolicy::default()
        };
        let allowed = |image: &str| policy.settle(&DockerSpec::new(image, ["x"]), true).is_ok();
        assert!(allowed("registry.example/team/a/b:v1.2") && allowed("busybox"));
        for other in ["busybox:1", "xbusybox", "registry.example/other/a:v1.2", "registry.example/team/a:v2"] {
            assert!(!allowed(other), "{other}");
        }
    }

    #[test]
    fn volumes_stay_within_what_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["data/sub", "data-2", "out"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        symlink("/etc", root.join("data/escape")).unwrap();
        symlink(root.join("data/sub"), root.join("data/inside")).unwrap();
        let binds =
            vec![Bind { path: root.join("data"), writable: false }, Bind { path: root.join("out"), writable: true }];
        let policy = DockerPolicy { binds, ..DockerPolicy::default() };
        let settle = |path: &str, writable| policy.settle(&volume(root.join(path), writable), true);
        for good in ["data", "data/sub", "data/inside", "out"] {
            assert!(settle(good, false).is_ok(), "{good}");
        }
        let real = root.join("data/sub").to_str().unwrap().to_owned();
        assert_eq!(settle("data/inside", false).unwrap().volumes[0].0, real, "the engine is given no link to follow");
        assert!(settle("out", true).is_ok());
        for bad in ["data-2", "data/escape", "data/escape/passwd", "data/../data", "data/nothing", ""] {
            let message = settle(bad, false).unwrap_err().to_string();
            assert!(message.contains("source") || message.contains("may not be shown"), "{bad}: {message}");
        }
        assert!(settle("data", true).unwrap_err().to_string().contains("may not be written"));
        // Far away no link can be followed, but the text is held to the rules.
        assert!(policy.settle(&volume(root.join("data/escape"), false), false).is_ok());
        for bad in ["data/../../etc", "data-2"] {
            assert!(policy.settle(&volume(root.join(bad), false), false).is_err(), "{bad}");
        }
        assert!(policy.settle(&volume("relative", false), false).is_err());
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        let bad = DockerPolicy {
            images: vec![],
            networks: vec![],
            binds: vec![Bind { path: "a/..".into(), writable: false }],
            memory_bytes: Bound { default: 1, max: 1 },
            cpus: Bound { default: 2.0, max: 1.0 },
            pids: Bound { default: 0, max: 0 },
            ..DockerPolicy::default()
        };
        let message = bad.check().unwrap_err().to_string();
        for part in ["images", "networks", "a/..", "memory_bytes", "cpus", "pids"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(DockerPolicy::default().check().is_ok());
        assert!(serde_json::from_str::<DockerPolicy>(r#"{"devices":["/dev/kvm"]}"#).is_err());
    }
}
