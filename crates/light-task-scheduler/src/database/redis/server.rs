//! What the server must be: checked when a store is opened.

use std::collections::BTreeMap;
use std::fmt;

use redis::{Value, cmd};

use super::error::unreadable;
use super::link::Link;
use super::values::{bytes, items, text};
use crate::error::{Error, ErrorKind, Result};

/// The oldest server that has what the scripts need: flags of scripts.
const VERSION_MIN: u32 = 7;
/// The only policy under which no key ever disappears by itself.
const POLICY: &str = "noeviction";

/// What "accepted" means, as the server is set.
///
/// Whatever it is set to: Redis replicates after it has answered, so a failover to a replica may lose
/// what was accepted last. That is found and told ([`HeartbeatReply::epoch`](crate::store::HeartbeatReply::epoch)), not prevented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// In the server's memory, or flushed when the system likes: the end of the server may take the last
    /// moments or, without any persistence, everything.
    Volatile,
    /// Survives the end of the server process; a power failure may take the last second or two.
    EverySecond,
    /// On the disk: survives a power failure of the server.
    Always,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Volatile => "volatile (no flushed append-only file)",
            Durability::EverySecond => "every second (appendfsync everysec)",
            Durability::Always => "always (appendfsync always)",
        })
    }
}

/// Refuses a server that would lose tasks; says how durable it is.
pub(crate) async fn check(link: &Link, strict: bool) -> Result<Durability> {
    let info = info(link).await?;
    let field = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    if info.is_empty() {
        return Err(unreadable("INFO"));
    }
    let version = field("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        let message = format!("the Redis server has version {version}; {VERSION_MIN} or newer is needed");
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    if field("role") == "slave" {
        return Err(Error::unavailable("the Redis server is a read-only replica; name its master or the sentinels"));
    }
    let policy = field("maxmemory_policy");
    if policy != POLICY {
        return Err(Error::invalid(format!(
            "the Redis server may evict tasks: its maxmemory-policy is {policy}; set it to {POLICY}"
        )));
    }
    let durability = durability(link, field("aof_enabled") == "1").await;
    if strict && durability != Durability::Always {
        return Err(Error::invalid(format!(
            "strict durability is demanded, but the Redis server is set to {durability}; \
             set appendonly yes and appendfsync always"
        )));
    }
    Ok(durability)
}

/// Which version the server has.
pub(crate) async fn version(link: &Link) -> Result<String> {
    Ok(info(link).await?.remove("redis_version").unwrap_or_default())
}

async fn info(link: &Link) -> Result<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    for section in ["server", "replication", "memory", "persistence"] {
        let answer = link.send(cmd("INFO").arg(section)).await?;
        let answer = any_node(answer);
        let lines = String::from_utf8_lossy(bytes(&answer)?).into_owned();
        let pairs = lines.lines().filter_map(|line| line.split_once(':'));
        fields.extend(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    }
    Ok(fields)
}

/// A cluster answers for every node; they are set up alike.
fn any_node(answer: Value) -> Value {
    match answer {
        Value::Map(nodes) => nodes.into_iter().next().map_or(Value::Nil, |(_, answer)| answer),
        answer => answer,
    }
}

async fn durability(link: &Link, aof: bool) -> Durability {
    if !aof {
        return Durability::Volatile;
    }
    // Some services do not let their users ask: then no more than the default is believed.
    let asked = link.send(cmd("CONFIG").arg("GET").arg("appendfsync")).await;
    let policy = asked.map(any_node).and_then(|answer| match answer {
        Value::Map(pairs) => pairs.first().map_or(Ok(String::new()), |(_, value)| text(value).map(str::to_owned)),
        answer => items(answer)?.get(1).map_or(Ok(String::new()), |value| text(value).map(str::to_owned)),
    });
    match policy.as_deref() {
        Ok("always") => Durability::Always,
        Ok("no") => Durability::Volatile,
        _ => Durability::EverySecond,
    }
}
