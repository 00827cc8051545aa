//! Where outputs go: [`ResultStore`] for results, [`LogStore`] for what runs write on the way.
//!
//! Without a result store, results are kept inline in the task's row. Both traits are small and
//! independent of the [`Store`](crate::store::Store).

mod directory;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "remote")]
pub mod remote;
#[cfg(feature = "sqlite")]
mod sql;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::task::{Payload, ResultRef, TaskId};

pub use directory::{DirectoryLogs, DirectoryResults};
pub use memory::{MemoryLogs, MemoryResults};
#[cfg(feature = "mysql")]
pub use mysql::{MySqlLogs, MySqlResults};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresLogs, PostgresResults};
#[cfg(feature = "redis")]
pub use redis::{RedisLogs, RedisResults};
#[cfg(feature = "remote")]
pub use remote::RemoteLogs;
#[cfg(feature = "sqlite")]
pub use sql::{SqliteLogs, SqliteResults};

/// Most bytes of log kept per execution and stream (10 MiB). What comes after is counted, not kept.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
/// Most bytes in one [`LogStore::append`] or [`LogStore::read`] (256 KiB).
pub const LOG_CHUNK_BYTES_MAX: usize = 256 << 10;

/// Keeps the results of tasks.
///
/// A result is immutable and keyed by (id, execution): a stale run's save makes another key and harms
/// nothing. The key that the task's row refers to is *the* result.
#[async_trait]
pub trait ResultStore: Send + Sync + fmt::Debug {
    /// Saves a result and says where. Saving the same (id, execution) again with the same bytes is
    /// harmless; it must be readable, whole, before this returns.
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef>;

    /// Reads a result by its key. Fails as [`NotFound`](crate::ErrorKind::NotFound) if it is not there and as
    /// [`Internal`](crate::ErrorKind::Internal) if its bytes are not those that were saved.
    async fn load(&self, result: &ResultRef) -> Result<Payload>;

    /// Deletes a result by its key; one that is not there is deleted already.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// The reference to `payload` under `key`.
pub fn stored(key: String, payload: &Payload) -> ResultRef {
    ResultRef::Stored { key, len: payload.len() as u64, hash: short_hash(payload.as_bytes()) }
}

/// Refuses bytes that are not those that were saved as `result`.
pub fn verify(result: &ResultRef, bytes: &[u8]) -> Result<()> {
    match result {
        ResultRef::Stored { key, len, hash } if bytes.len() as u64 != *len || short_hash(bytes) != *hash => {
            Err(Error::internal(format!(
                "the result `{key}` is damaged: it has {} bytes and the hash {}, not {len} and {hash}; requeue the task",
                bytes.len(),
                short_hash(bytes)
            )))
        }
        _ => Ok(()),
    }
}

/// The first 16 bytes of the SHA-256, in hexadecimal.
pub fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Which of the two streams of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What it prints.
    Stdout,
    /// What it complains.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Names one log: one stream of one execution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// Which stream.
    pub stream: Stream,
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} of task {} (execution {})", self.stream.as_str(), self.id, self.execution)
    }
}

/// Keeps the logs of runs as bytes addressed by offset, so that a writer that starts again after a
/// crash neither repeats nor loses any, and any replica can show them.
#[async_trait]
pub trait LogStore: Send + Sync + fmt::Debug {
    /// Writes at `offset`, which must not be past the end. What is there already is not written again;
    /// what goes past [`LOG_BYTES_MAX`] is dropped. Answers the log's length.
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64>;

    /// Reads up to `len` bytes (at most [`LOG_CHUNK_BYTES_MAX`]) from `offset`. Past the end, or where
    /// there is no such log: none.
    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>>;

    /// How long it is; 0 where there is none.
    async fn len(&self, log: &LogKey) -> Result<u64>;

    /// Deletes all logs of a task.
    async fn delete(&self, id: &TaskId) -> Result<()>;
}

/// What of `bytes`, meant for `offset`, a log of length `len` does not have yet and has room for: every
/// log store decides by this.
///
/// Fails as [`Invalid`](crate::ErrorKind::Invalid) for more than [`LOG_CHUNK_BYTES_MAX`] bytes, and as
/// [`Conflict`](crate::ErrorKind::Conflict) if `offset` is past the end.
pub fn unwritten<'a>(log: &LogKey, len: u64, offset: u64, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if bytes.len() > LOG_CHUNK_BYTES_MAX {
        return Err(Error::invalid(format!(
            "{} bytes for {log} in one call, more than {LOG_CHUNK_BYTES_MAX}; write them in parts",
            bytes.len()
        )));
    }
    if offset > len {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("{log} has {len} bytes and cannot be written at {offset}; write on from its end"),
        ));
    }
    let from = usize::try_from(len - offset).unwrap_or(usize::MAX).min(bytes.len());
    let room = usize::try_from(LOG_BYTES_MAX.saturating_sub(len)).unwrap_or(usize::MAX);
    let new = &bytes[from..];
    Ok(&new[..room.min(new.len())])
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("a read or write of results or logs did not finish").with_source(e))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unwritten_part_is_written() {
        let log = LogKey { id: TaskId::new("a").unwrap(), execution: 1, stream: Stream::Stdout };
        let of = |len, offset| unwritten(&log, len, offset, b"hello").map(<[u8]>::to_vec).map_err(|e| e.kind());
        assert_eq!(of(0, 0), Ok(b"hello".to_vec()));
        assert_eq!(of(2, 0), Ok(b"llo".to_vec()));
        assert_eq!(of(9, 0), Ok(vec![]));
        assert_eq!(of(2, 3), Err(ErrorKind::Conflict));
        assert_eq!(of(LOG_BYTES_MAX - 2, LOG_BYTES_MAX - 2), Ok(b"he".to_vec()));
        assert_eq!(of(LOG_BYTES_MAX, LOG_BYTES_MAX), Ok(vec![]));
        let large = vec![0; LOG_CHUNK_BYTES_MAX + 1];
        assert_eq!(unwritten(&log, 0, 0, &large).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn the_traits_are_object_safe() {
        fn _takes(_: &dyn ResultStore, _: &dyn LogStore) {}
    }
}
