//! Lua scripts, sent by their hash.

use redis::{Cmd, RedisResult, ServerErrorKind, Value, cmd};

use super::error::error;
use super::link::Link;
use crate::error::Result;

/// A script and its hash.
#[derive(Debug)]
pub(crate) struct Script {
    code: String,
    hash: String,
}

impl Script {
    /// The script with this text.
    pub(crate) fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Script { code, hash }
    }

    /// The command that runs it with these keys; arguments are added.
    pub(crate) fn command(&self, keys: &[&str]) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len()).arg(keys);
        command
    }

    /// Runs it; a server that has not seen it yet, or has forgotten it, gets it first.
    pub(crate) async fn run(&self, link: &Link, command: &Cmd) -> Result<Value> {
        self.try_run(link, command).await.map_err(|e| error(link.place().shown(), e))
    }

    async fn try_run(&self, link: &Link, command: &Cmd) -> RedisResult<Value> {
        match link.try_send(command).await {
            Err(e) if e.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                link.try_send(cmd("SCRIPT").arg("LOAD").arg(&self.code)).await?;
                link.try_send(command).await
            }
            sent => sent,
        }
    }

    /// Its text.
    #[cfg(test)]
    pub(crate) fn code(&self) -> &str {
        &self.code
    }
}
