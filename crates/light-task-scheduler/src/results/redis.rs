//! Results and logs in Redis: a key each, on the server of the tasks or on another.

use std::sync::LazyLock;

use async_trait::async_trait;
use redis::{Cmd, Value, cmd};

use super::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, short_hash, stored, unwritten, verify};
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{array, bytes, number, texts};
use crate::database::redis::{Link, Place, Script, check_namespace, server};
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Payload, ResultRef, TaskId};

static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("append.lua").to_owned()));

/// Connects, and refuses a server that may lose keys by itself.
async fn connect(url: &str, namespace: &str) -> Result<Link> {
    check_namespace(namespace)?;
    let link = Link::new(Place::parse(url)?);
    server::check(&link, false).await?;
    Ok(link)
}

/// Results as strings under `lts:NAMESPACE:result:`, spread over the nodes of a cluster. No key ever expires.
///
/// A saved result is as durable as the server is set; see [`Durability`](crate::store::redis::Durability).
#[derive(Debug)]
pub struct RedisResults {
    link: Link,
    prefix: String,
}

impl RedisResults {
    /// Results on the server at `url` under `namespace`; both and the errors are those of
    /// [`RedisStore`](crate::store::redis::RedisStore).
    pub async fn open(url: &str, namespace: &str) -> Result<Self> {
        let link = connect(url, namespace).await?;
        Ok(RedisResults { link, prefix: format!("lts:{namespace}:result:") })
    }

    fn command(&self, name: &str, key: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(format!("{}{key}", self.prefix));
        command
    }
}

#[async_trait]
impl ResultStore for RedisResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        // The key names the content: no save can replace a result by another one, and saving again mends it.
        let key = format!("{id}/{execution}/{}", short_hash(result.as_bytes()));
        self.link.send(self.command("SET", &key).arg(result.as_bytes())).await?;
        Ok(stored(key, result))
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        let key = match result {
            ResultRef::Inline(payload) => return Ok(payload.clone()),
            ResultRef::Stored { key, .. } => key,
        };
        match self.link.send(&self.command("GET", key)).await? {
            Value::BulkString(bytes) => {
                verify(result, &bytes)?;
                Ok(Payload::from_bytes(bytes))
            }
            Value::Nil => {
                let message = format!("no result `{key}` in redis at {}", self.link.place().shown());
                Err(Error::new(ErrorKind::NotFound, message))
            }
            _ => Err(unreadable("a result")),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.link.send(&self.command("UNLINK", key)).await.map(drop)
    }
}

/// Logs as strings under `lts:NAMESPACE:log:`, those of one task on one node of a cluster. No key ever expires.
///
/// What was appended is as durable as the server is set.
#[derive(Debug)]
pub struct RedisLogs {
    link: Link,
    prefix: String,
}

impl RedisLogs {
    /// Logs on the server at `url` under `namespace`; both and the errors are those of
    /// [`RedisStore`](crate::store::redis::RedisStore).
    pub async fn open(url: &str, namespace: &str) -> Result<Self> {
        let link = connect(url, namespace).await?;
        Ok(RedisLogs { link, prefix: format!("lts:{namespace}:log:") })
    }

    /// The set of a task's logs. An id may have any character in it, and the braces choose the node: so its hash.
    fn all_key(&self, id: &TaskId) -> String {
        format!("{}{{{}}}", self.prefix, id.with_str(|id| short_hash(id.as_bytes())))
    }

    fn key(&self, log: &LogKey) -> String {
        format!("{}:{}:{}", self.all_key(&log.id), log.execution, log.stream.as_str())
    }
}

#[async_trait]
impl LogStore for RedisLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        let (key, all) = (self.key(log), self.all_key(&log.id));
        // Most writers go on at the end; another length is learned from the answer.
        let mut len = offset;
        loop {
            let new = unwritten(log, len, offset, bytes)?;
            let mut command = APPEND.command(&[&key, &all]);
            if new.is_empty() {
                // Nothing to write if the length is right: ask for it.
                let is = self.len(log).await?;
                if is == len {
                    return Ok(len);
                }
                len = is;
                continue;
            }
            command.arg(len).arg(new);
            let [appended, is] = array(APPEND.run(&self.link, &command).await?)?;
            len = number(&is)?;
            if number::<u8>(&appended)? == 1 {
                return Ok(len);
            }
        }
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        let len = i64::try_from(len.min(LOG_CHUNK_BYTES_MAX)).unwrap_or(i64::MAX);
        let from = i64::try_from(offset).unwrap_or(i64::MAX);
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut command = cmd("GETRANGE");
        command.arg(self.key(log)).arg(from).arg(from.saturating_add(len - 1));
        bytes(&self.link.send(&command).await?).map(<[u8]>::to_vec)
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        number(&self.link.send(cmd("STRLEN").arg(self.key(log))).await?)
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        let all = self.all_key(id);
        let keys = texts(self.link.send(cmd("SMEMBERS").arg(&all)).await?)?;
        self.link.send(cmd("UNLINK").arg(&keys).arg(&all)).await.map(drop)
    }
}
