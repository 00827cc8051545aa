//! Which engines there are, and how they are used.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::DockerPolicy;
use crate::error::{Error, Result};

/// Where an engine listens unless something else is said.
const ADDRESS_DEFAULT: &str = "unix:///var/run/docker.sock";
/// How many containers run at once on one engine unless something else is said.
const CAPACITY_DEFAULT: usize = 64;
/// How long an image may take to arrive unless something else is said.
const PULL_WITHIN_DEFAULT: Duration = Duration::from_secs(600);
/// How often leftovers are looked for unless something else is said: two looks and the removal fit into a minute.
const REAP_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// How a [`DockerExecutor`](super::DockerExecutor) works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// The engines; a container goes to the one of which the smallest part is in use. Default: one, where the
    /// variable `DOCKER_HOST` leads, else at `/var/run/docker.sock`.
    pub engines: Vec<EngineConfig>,
    /// What tasks may ask for.
    pub policy: DockerPolicy,
    /// Sets apart the containers of several stores on one engine, beside the scheduler's namespace: the same for
    /// all replicas of a store, and different for each store. Where leftovers are removed this must be so, or the
    /// replicas of one store remove the containers of another. Default: empty.
    pub installation: String,
    /// How long an image may take to arrive before its task is put back. Default 10 min.
    pub pull_within: Duration,
    /// How often leftovers are looked for, if they are; see
    /// [`DockerExecutor::reaping`](super::DockerExecutor::reaping). Default 15 s.
    pub reap_interval: Duration,
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// `unix:///path` or `tcp://host:port`.
    pub address: String,
    /// The files for TLS. Without them a `tcp` address is spoken to in the open: whoever can listen or answer there
    /// owns the engine's host.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Most containers that this executor runs there at once. Default 64.
    #[serde(default = "default_capacity")]
    pub capacity: usize,
}

/// Files in PEM by which an engine and its client know each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Who may vouch for the engine, beside those that this system trusts.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

fn default_capacity() -> usize {
    CAPACITY_DEFAULT
}

/// How an engine is reached.
pub(super) enum Way<'a> {
    Unix,
    Tcp,
    Tls(&'a Tls),
}

impl EngineConfig {
    /// The engine at this address, and nothing else set.
    pub fn new(address: impl Into<String>) -> Self {
        EngineConfig { address: address.into(), tls: None, capacity: CAPACITY_DEFAULT }
    }

    /// The engine that Docker's own variables name: `DOCKER_HOST`, and with `DOCKER_TLS_VERIFY` the files in
    /// `DOCKER_CERT_PATH`.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = variable("DOCKER_HOST").unwrap_or_else(|| ADDRESS_DEFAULT.to_owned());
        let certificates = variable("DOCKER_TLS_VERIFY").and(variable("DOCKER_CERT_PATH")).map(PathBuf::from);
        let tls = certificates.filter(|_| !address.starts_with("unix:")).map(|directory| Tls {
            ca: directory.join("ca.pem"),
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        });
        EngineConfig { tls, ..EngineConfig::new(address) }
    }

    pub(super) fn way(&self) -> Result<Way<'_>, String> {
        match self.address.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') && self.tls.is_none() => Ok(Way::Unix),
            Some(("tcp", place)) if !place.is_empty() => Ok(self.tls.as_ref().map_or(Way::Tcp, Way::Tls)),
            _ => Err(format!("{:?} is no address of an engine: unix:///path, or tcp://host:port", self.address)),
        }
    }

    /// Whether the engine sees the files that we see.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.way(), Ok(Way::Unix))
    }
}

impl Default for DockerConfig {
    fn default() -> Self {
        DockerConfig {
            engines: vec![EngineConfig::from_env()],
            policy: DockerPolicy::default(),
            installation: String::new(),
            pull_within: PULL_WITHIN_DEFAULT,
            reap_interval: REAP_INTERVAL_DEFAULT,
        }
    }
}

impl DockerConfig {
    /// Names every problem at once.
    pub fn check(&self) -> Result<()> {
        const INTERVAL_MIN: Duration = Duration::from_millis(100);
        let mut problems = Vec::new();
        if self.engines.is_empty() {
            problems.push("there are no engines".to_owned());
        }
        for (at, engine) in self.engines.iter().enumerate() {
            problems.extend(engine.way().err());
            if engine.capacity == 0 {
                problems.push(format!("the engine at {} has a capacity of 0", engine.address));
            }
            if self.engines[..at].iter().any(|other| other.address == engine.address) {
                problems.push(format!("the engine at {} is named twice", engine.address));
            }
        }
        if self.reap_interval < INTERVAL_MIN || self.pull_within < INTERVAL_MIN {
            problems.push(format!("reap_interval and pull_within must be at least {INTERVAL_MIN:?}"));
        }
        problems.extend(self.policy.check().err().map(|error| format!("policy: {error}")));
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_all_its_problems() {
        let engine = |address: &str, capacity| EngineConfig { capacity, ..EngineConfig::new(address) };
        let bad = DockerConfig {
            engines: vec![engine("npipe://x", 1), engine("unix:///a", 0), engine("unix:///a", 1), engine("tcp://", 1)],
            policy: DockerPolicy { images: vec![], ..DockerPolicy::default() },
            reap_interval: Duration::ZERO,
            ..DockerConfig::default()
        };
        let message = bad.check().unwrap_err().to_string();
        for part in ["npipe", "capacity", "twice", "\"tcp://\"", "policy: images", "reap_interval"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(DockerConfig { engines: vec![], ..DockerConfig::default() }.check().is_err());
        assert!(
            DockerConfig { engines: vec![EngineConfig::new("tcp://a:1")], ..DockerConfig::default() }.check().is_ok()
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<DockerConfig>(r#"{"engine":[]}"#).is_err());
        let config: DockerConfig = serde_json::from_str(r#"{"engines":[{"address":"unix:///a"}]}"#).unwrap();
        assert_eq!(config.engines[0].capacity, CAPACITY_DEFAULT);
    }
}
