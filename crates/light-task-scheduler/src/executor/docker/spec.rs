//! What a container is: the payload of a task of the Docker executor.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most arguments of a container: its entrypoint and command together.
pub const ARGUMENTS_MAX: usize = 10_000;
/// The prefix of the labels that the executor sets; a task's own must not begin with it.
pub const LABEL_PREFIX: &str = "lts.";
/// The variable that names the execution in a container: an idempotency key for whatever it calls.
pub const EXECUTION_VARIABLE: &str = "LTS_EXECUTION";
/// The least memory that Docker gives a container (6 MiB).
pub const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// A container to run to its end.
///
/// What of it is allowed, and what holds where it says nothing, is the administrator's
/// [`DockerPolicy`](super::DockerPolicy). Everything that was accepted is seen in `docker inspect`.
///
/// ```
/// use light_task_scheduler::NewTask;
/// use light_task_scheduler::executor::docker::DockerSpec;
///
/// # fn main() -> Result<(), light_task_scheduler::Error> {
/// let spec = DockerSpec { memory_bytes: Some(256 << 20), ..DockerSpec::new("busybox:1", ["echo", "hello"]) };
/// let task = NewTask::new("docker", &spec)?;
/// # let _ = task;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerSpec {
    /// The image: a name with a tag or a digest. Without a tag it is `latest`.
    pub image: String,
    /// Whether the image is fetched. Default: if it is missing.
    #[serde(default, skip_serializing_if = "Pull::is_default")]
    pub pull: Pull,
    /// The command, or the arguments of the entrypoint. Default: the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The program that is given `cmd`. Default: the image's. An empty list: none, `cmd` itself is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// How the container is called for people: its label `lts.name`, its host name, and, in a network made by a
    /// user, the name by which other containers find it. Its real name is made from the task's id, so that two
    /// executions never contend for it. Letters, digits, `_`, `.`, `-`; at most 63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Variables, beside those of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory to run in: absolute, in the container. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Bytes of memory, at least [`MEMORY_BYTES_MIN`]; no swap comes on top. Default: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processors, 0.01 at least; fractions are shares of one. Default: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads at once, 1 at least. Default: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Ports to publish on the engine's host. They need a network other than `none` and `host`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// The network: `none`, `bridge`, `host`, or the name of one. Default: the policy's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// No network at all, not even one of its own to talk to itself through. Goes with no `network` but `none`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// All rights of the engine's host. Refused unless the policy allows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Directories and files of the engine's host to show in the container, as far as the policy allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Puts the engine's `docker-init` before the program: it passes signals on, which the kernel keeps from a first
    /// process that has not asked for them, and buries orphans. A program that is not there then is an exit code of
    /// 127, where it is a refusal otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Labels of the container, at most 64. None may begin with [`LABEL_PREFIX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The user: a name or number, and perhaps `:` and a group. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The signal that asks it to stop, such as `SIGINT`. Default: the image's, else SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// Never: an engine without it refuses the task.
    Never,
    /// If the engine has no image of this name.
    #[default]
    Missing,
    /// Before every start.
    Always,
}

impl Pull {
    fn is_default(&self) -> bool {
        *self == Pull::default()
    }
}

/// A port to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// In the container.
    pub container: u16,
    /// On the engine's host. Default: one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// The host's address to listen at. Default: 127.0.0.1, so that only the host itself reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<std::net::IpAddr>,
    /// Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.container)
    }
}

/// A directory or file of the engine's host, shown in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// On the host: absolute, without `..`. It must be there.
    pub source: String,
    /// In the container: absolute.
    pub target: String,
    /// The container may write there, if the policy allows that too. Default: it may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writable: bool,
}

impl DockerSpec {
    /// A container of this image that runs this command, and nothing else set.
    pub fn new<S: Into<String>>(image: impl Into<String>, cmd: impl IntoIterator<Item = S>) -> Self {
        DockerSpec { image: image.into(), cmd: cmd.into_iter().map(Into::into).collect(), ..DockerSpec::default() }
    }

    /// Refuses what no engine could run, whatever its policy, all problems in one sentence.
    pub fn check(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }

    /// What no engine could run, whatever the policy.
    pub(super) fn problems(&self) -> Vec<String> {
        const CPUS_MIN: f64 = 0.01;
        const LABELS_MAX: usize = 64;
        let mut problems = Vec::new();
        let mut refuse = |bad: bool, why: String| {
            if bad {
                problems.push(why);
            }
        };
        let image = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        refuse(
            self.image.is_empty() || !self.image.chars().all(image),
            format!("{:?} is no name of an image", self.image),
        );
        let arguments = self.cmd.len() + self.entrypoint.as_ref().map_or(0, Vec::len);
        refuse(arguments > ARGUMENTS_MAX, format!("{arguments} arguments, more than {ARGUMENTS_MAX}"));
        let mut texts = self.cmd.iter().chain(self.entrypoint.iter().flatten()).chain(self.env.values());
        refuse(texts.any(|text| text.contains('\0')), "an argument or a variable has a NUL character".to_owned());
        refuse(
            self.entrypoint.as_ref().and_then(|entrypoint| entrypoint.first()).is_some_and(String::is_empty),
            "the program's name in entrypoint is empty".to_owned(),
        );
        refuse(
            self.cmd.first().is_some_and(String::is_empty) && self.entrypoint.as_ref().is_some_and(Vec::is_empty),
            "the program's name in cmd is empty".to_owned(),
        );
        if let Some(name) = &self.name {
            refuse(!is_host_name(name), format!("{name:?} is no name for a container"));
        }
        for name in self.env.keys() {
            refuse(name.is_empty() || name.contains(['=', '\0']), format!("{name:?} is no name of a variable"));
            refuse(
                name == EXECUTION_VARIABLE,
                format!("{EXECUTION_VARIABLE} is set by the scheduler and by nobody else"),
            );
        }
        if let Some(dir) = &self.working_dir {
            refuse(!dir.starts_with('/') || dir.contains('\0'), format!("working_dir {dir:?} is not absolute"));
        }
        if let Some(bytes) = self.memory_bytes {
            refuse(bytes < MEMORY_BYTES_MIN, format!("memory_bytes is {bytes}, less than {MEMORY_BYTES_MIN}"));
        }
        if let Some(cpus) = self.cpus {
            refuse(!cpus.is_finite() || cpus < CPUS_MIN, format!("cpus is {cpus}, less than {CPUS_MIN}"));
        }
        refuse(self.pids == Some(0), "pids is 0".to_owned());
        refuse(self.labels.len() > LABELS_MAX, format!("{} labels, more than {LABELS_MAX}", self.labels.len()));
        for name in self.labels.keys() {
            refuse(
                name.is_empty() || name.starts_with(LABEL_PREFIX),
                format!("the label {name:?} is empty or begins with {LABEL_PREFIX}"),
            );
        }
        if let Some(user) = &self.user {
            let user_like = |c: char| c.is_ascii_alphanumeric() || "_.-:".contains(c);
            refuse(user.is_empty() || !user.chars().all(user_like), format!("{user:?} is no user"));
        }
        if let Some(signal) = &self.stop_signal {
            refuse(!is_signal(signal), format!("stop_signal {signal:?} is no signal such as SIGTERM"));
        }
        self.network_problems(&mut problems);
        problems
    }

    fn network_problems(&self, problems: &mut Vec<String>) {
        if self.network_disabled && !matches!(self.network.as_deref(), None | Some("none")) {
            problems.push("network_disabled contradicts network".to_owned());
        }
        for port in &self.ports {
            if port.container == 0 || port.host == Some(0) {
                problems.push(format!("the port {port} has the number 0"));
            }
        }
        for volume in &self.volumes {
            if !volume.target.starts_with('/') || volume.target == "/" || volume.target.contains('\0') {
                problems.push(format!("the target {:?} of a volume is not absolute, or is /", volume.target));
            }
        }
    }
}

fn is_host_name(name: &str) -> bool {
    const LENGTH_MAX: usize = 63;
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    name.len() <= LENGTH_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

/// Whether this names a signal that asks for an end: one with a name, SIGKILL excepted, which asks nothing.
fn is_signal(text: &str) -> bool {
    signal_number(text).is_some_and(|number| number != KILL)
}

/// The number of SIGKILL, and what a shell adds to the number of a signal in an exit code.
pub(super) const KILL: i64 = 9;
pub(super) const SIGNAL_BASE: i64 = 128;
/// The signals that a container may be asked to stop by, and SIGKILL, with their numbers on Linux.
const SIGNALS: [(&str, i64); 9] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
    ("SIGKILL", KILL),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGWINCH", 28),
];

/// The number of a signal, by name with or without `SIG`, or by number.
pub(super) fn signal_number(text: &str) -> Option<i64> {
    let found = SIGNALS
        .iter()
        .find(|(name, number)| *name == text || name.strip_prefix("SIG") == Some(text) || number.to_string() == text);
    found.map(|(_, number)| *number)
}

/// A signal in words.
pub(super) fn signal_in_words(number: i64) -> String {
    match SIGNALS.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("{number} {name}"),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_names_all_its_problems() {
        let bad = DockerSpec {
            image: "a b".into(),
            cmd: vec!["a\0".into()],
            name: Some("-x".into()),
            env: BTreeMap::from([("A=B".into(), "x".into()), (EXECUTION_VARIABLE.into(), "y".into())]),
            working_dir: Some("here".into()),
            memory_bytes: Some(1),
            cpus: Some(f64::NAN),
            pids: Some(0),
            ports: vec![Port { container: 0, host: None, host_ip: None, protocol: Protocol::Udp }],
            network: Some("bridge".into()),
            network_disabled: true,
            volumes: vec![Volume { source: "/a".into(), target: "/".into(), writable: false }],
            labels: BTreeMap::from([("lts.task".into(), "x".into())]),
            user: Some("a b".into()),
            stop_signal: Some("SIGKILL".into()),
            ..DockerSpec::default()
        };
        let problems = bad.problems();
        for part in [
            "image",
            "NUL",
            "\"-x\"",
            "A=B",
            "set by the scheduler",
            "working_dir",
            "memory_bytes",
            "cpus",
            "pids",
            "0/udp",
            "network_disabled",
            "target",
            "label",
            "user",
            "stop_signal",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert!(DockerSpec::new("busybox", ["true", ""]).problems().is_empty(), "an empty argument is an argument");
    }

    #[test]
    fn unknown_fields_are_refused() {
        for bad in [
            r#"{"image":"a","devices":[]}"#,
            r#"{"image":"a","volumes":[{"source":"/a","target":"/b","mode":"rw"}]}"#,
            r#"{"image":"a","ports":[{"container":1,"hostPort":2}]}"#,
            r#"{"cmd":["a"]}"#,
        ] {
            assert!(serde_json::from_str::<DockerSpec>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(["SIGTERM", "TERM", "15"].map(signal_number), [Some(15); 3]);
        assert_eq!(signal_number("SIGSOMETHING"), None);
        assert_eq!((signal_in_words(9), signal_in_words(77)), ("9 SIGKILL".to_owned(), "77".to_owned()));
    }
}
