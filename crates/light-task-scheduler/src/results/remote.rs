//! Logs in a server, over HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::database::remote::{Fault, Link};
use crate::error::{Error, Result};
use crate::results::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, Stream, unwritten};
use crate::task::TaskId;

/// A piece of a log, on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogPiece {
    /// The task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// `stdout` or `stderr`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub stream: Stream,
    /// Where it begins; not past the end of the log. What is there already is not written again.
    pub offset: u64,
    /// What is to be written, at most 256 KiB.
    pub data: LogData,
}

/// Bytes of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogData {
    /// As text.
    Text(String),
    /// What is no text, in base64.
    Base64(String),
}

impl From<&[u8]> for LogData {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => LogData::Text(text.to_owned()),
            Err(_) => LogData::Base64(BASE64.encode(bytes)),
        }
    }
}

impl LogData {
    /// The bytes.
    pub fn bytes(self) -> Result<Vec<u8>> {
        match self {
            LogData::Text(text) => Ok(text.into_bytes()),
            LogData::Base64(text) => {
                BASE64.decode(text).map_err(|error| Error::invalid(format!("the piece of a log is no base64: {error}")))
            }
        }
    }
}

/// What became of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogAnswer {
    /// Written: the length of the log.
    Len(u64),
    /// Not written.
    Refused(Fault),
}

/// A part of a log is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogRequest {
    /// The task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// `stdout` or `stderr`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub stream: Stream,
    /// From where.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes at most; 0 asks for the length alone.
    #[serde(default)]
    pub limit: usize,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogPart {
    /// The length of the whole log.
    pub len: u64,
    /// What there is of the part.
    pub data: LogData,
}

/// All logs of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogsOf {
    /// The task.
    pub id: TaskId,
}

/// Keeps logs in a server, beside the tasks that a [`RemoteStore`](crate::RemoteStore) leads to.
#[derive(Debug, Clone)]
pub struct RemoteLogs {
    link: Arc<Link>,
}

impl RemoteLogs {
    /// The logs of the server at `url`, with a token if the server asks for one. Nothing is sent yet.
    pub fn open(url: &str, token: Option<&str>) -> Result<Self> {
        Ok(RemoteLogs { link: Link::new(url, token)? })
    }

    async fn part(&self, log: &LogKey, offset: u64, limit: usize) -> Result<LogPart> {
        let LogKey { id, execution, stream } = log.clone();
        self.link.call("leases/logs/read", &LogRequest { id, execution, stream, offset, limit }).await
    }
}

#[async_trait]
impl LogStore for RemoteLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        // Refuses what is too long before it is sent.
        unwritten(log, offset, offset, bytes)?;
        let LogKey { id, execution, stream } = log.clone();
        let piece = LogPiece { id, execution, stream, offset, data: bytes.into() };
        match self.link.call_each("leases/logs", &[piece]).await?.pop() {
            Some(LogAnswer::Len(len)) => Ok(len),
            Some(LogAnswer::Refused(fault)) => Err(fault.into()),
            None => Err(Error::internal("the server gave no answer")),
        }
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.part(log, offset, len.min(LOG_CHUNK_BYTES_MAX)).await?.data.bytes()
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        Ok(self.part(log, 0, 0).await?.len)
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        self.link.call("leases/logs/delete", &LogsOf { id: id.clone() }).await
    }
}
