//! Results and logs in this process's memory: nothing survives its end.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, Stream, short_hash, stored, unwritten, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Payload, ResultRef, TaskId};

/// How many bytes are kept unless another bound is given (1 GiB).
const BYTES_MAX: u64 = 1 << 30;

/// Results in memory.
///
/// Bounded, by default at 1 GiB: a full store refuses the next result as [`Full`](crate::ErrorKind::Full) and drops
/// nothing. Cloning is cheap, and the clones are one store.
#[derive(Clone)]
pub struct MemoryResults {
    kept: Shared<HashMap<String, Payload>>,
}

impl MemoryResults {
    /// An empty store with the default bound.
    pub fn new() -> Self {
        MemoryResults::with_bytes_max(BYTES_MAX)
    }

    /// An empty store of at most this many bytes of results.
    pub fn with_bytes_max(bytes_max: u64) -> Self {
        MemoryResults { kept: Kept::new(bytes_max) }
    }
}

#[async_trait]
impl ResultStore for MemoryResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        // The key names the content: no save can replace a result by another one.
        let key = format!("{id}/{execution}/{}", short_hash(result.as_bytes()));
        let mut kept = lock(&self.kept);
        if !kept.items.contains_key(&key) {
            kept.take("results", result.len())?;
            kept.items.insert(key.clone(), result.clone());
        }
        drop(kept);
        Ok(stored(key, result))
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        let key = match result {
            ResultRef::Inline(payload) => return Ok(payload.clone()),
            ResultRef::Stored { key, .. } => key,
        };
        let found = lock(&self.kept).items.get(key).cloned();
        let payload = found
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no result `{key}` in this process's memory")))?;
        verify(result, payload.as_bytes())?;
        Ok(payload)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut kept = lock(&self.kept);
        let freed = kept.items.remove(key).map_or(0, |payload| payload.len());
        kept.bytes -= freed as u64;
        Ok(())
    }
}

/// Logs in memory.
///
/// Bounded, by default at 1 GiB over all logs: a full store refuses the next bytes as
/// [`Full`](crate::ErrorKind::Full) and drops nothing. Cloning is cheap, and the clones are one store.
#[derive(Clone)]
pub struct MemoryLogs {
    // Ordered, so that the logs of one task are neighbours.
    kept: Shared<BTreeMap<LogKey, Vec<u8>>>,
}

impl MemoryLogs {
    /// An empty store with the default bound.
    pub fn new() -> Self {
        MemoryLogs::with_bytes_max(BYTES_MAX)
    }

    /// An empty store of at most this many bytes of logs.
    pub fn with_bytes_max(bytes_max: u64) -> Self {
        MemoryLogs { kept: Kept::new(bytes_max) }
    }
}

#[async_trait]
impl LogStore for MemoryLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        let mut kept = lock(&self.kept);
        let len = kept.items.get(log).map_or(0, Vec::len) as u64;
        let new = unwritten(log, len, offset, bytes)?;
        if new.is_empty() {
            return Ok(len);
        }
        kept.take("logs", new.len())?;
        kept.items.entry(log.clone()).or_default().extend_from_slice(new);
        Ok(len + new.len() as u64)
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        let kept = lock(&self.kept);
        let all = kept.items.get(log).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        let rest = &all[from..];
        Ok(rest[..len.min(LOG_CHUNK_BYTES_MAX).min(rest.len())].to_vec())
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        Ok(lock(&self.kept).items.get(log).map_or(0, Vec::len) as u64)
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        let mut kept = lock(&self.kept);
        let first = LogKey { id: id.clone(), execution: 0, stream: Stream::Stdout };
        let logs = kept.items.range(first..).map(|(log, _)| log).take_while(|log| log.id == *id);
        for log in logs.cloned().collect::<Vec<_>>() {
            let freed = kept.items.remove(&log).map_or(0, |bytes| bytes.len());
            kept.bytes -= freed as u64;
        }
        Ok(())
    }
}

/// What is kept, how many bytes it has, and how many it may have.
struct Kept<Items> {
    items: Items,
    bytes: u64,
    bytes_max: u64,
}

type Shared<Items> = Arc<Mutex<Kept<Items>>>;

impl<Items: Default> Kept<Items> {
    fn new(bytes_max: u64) -> Shared<Items> {
        Arc::new(Mutex::new(Kept { items: Items::default(), bytes: 0, bytes_max }))
    }

    /// Counts bytes that are about to be kept, or refuses them.
    fn take(&mut self, what: &str, len: usize) -> Result<()> {
        let bytes = self.bytes.saturating_add(len as u64);
        if bytes > self.bytes_max {
            let Kept { bytes, bytes_max, .. } = self;
            let message = format!(
                "the memory for {what} is full: it holds {bytes} bytes, {len} more are to be kept and bytes_max is {bytes_max}"
            );
            return Err(Error::new(ErrorKind::Full, message));
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No operation panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryResults {
    fn default() -> Self {
        MemoryResults::new()
    }
}

impl Default for MemoryLogs {
    fn default() -> Self {
        MemoryLogs::new()
    }
}

impl fmt::Debug for MemoryResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryResults").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLogs").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::LOG_BYTES_MAX;

    fn id(text: &str) -> TaskId {
        TaskId::new(text).unwrap()
    }

    fn payload(bytes: &[u8]) -> Payload {
        Payload::from_bytes(bytes)
    }

    fn log(task: &str, execution: u64, stream: Stream) -> LogKey {
        LogKey { id: id(task), execution, stream }
    }

    fn kind<T: fmt::Debug>(result: Result<T>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_result_is_read_back_until_it_is_deleted() {
        let results = MemoryResults::new();
        let saved = results.save(&id("a"), 1, &payload(b"one")).await.unwrap();
        assert_eq!(results.save(&id("a"), 1, &payload(b"one")).await.unwrap(), saved);
        let other = results.save(&id("a"), 1, &payload(b"two")).await.unwrap();
        assert_eq!(results.load(&saved).await.unwrap(), payload(b"one"), "no save replaces another");
        assert_eq!(results.clone().load(&other).await.unwrap(), payload(b"two"), "clones are one store");
        let ResultRef::Stored { key, len, .. } = saved.clone() else { panic!("{saved:?}") };
        let damaged = ResultRef::Stored { key: key.clone(), len, hash: "0".into() };
        assert_eq!(kind(results.load(&damaged).await), ErrorKind::Internal);
        results.delete(&key).await.unwrap();
        results.delete(&key).await.unwrap();
        assert_eq!(kind(results.load(&saved).await), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn results_are_bounded_and_give_their_room_back() {
        let results = MemoryResults::with_bytes_max(5);
        let ResultRef::Stored { key, .. } = results.save(&id("a"), 1, &payload(b"four")).await.unwrap() else {
            panic!("not stored")
        };
        results.save(&id("a"), 1, &payload(b"four")).await.unwrap();
        assert_eq!(kind(results.save(&id("b"), 1, &payload(b"two")).await), ErrorKind::Full);
        results.delete(&key).await.unwrap();
        results.save(&id("b"), 1, &payload(b"fives")).await.unwrap();
    }

    #[tokio::test]
    async fn a_log_is_written_once_and_read_in_parts() {
        let logs = MemoryLogs::new();
        let (out, other) = (log("a", 1, Stream::Stdout), log("a", 1, Stream::Stderr));
        assert_eq!(logs.append(&out, 0, b"hello").await.unwrap(), 5);
        assert_eq!(logs.append(&out, 3, b"lo, you").await.unwrap(), 10, "what is there is not written again");
        assert_eq!(kind(logs.append(&out, 11, b"!").await), ErrorKind::Conflict);
        assert_eq!(logs.read(&out, 5, 3).await.unwrap(), b", y");
        assert_eq!(logs.read(&out, 8, 99).await.unwrap(), b"ou");
        assert_eq!(logs.read(&out, u64::MAX, 99).await.unwrap(), b"");
        assert_eq!((logs.len(&out).await.unwrap(), logs.len(&other).await.unwrap()), (10, 0));
    }

    #[tokio::test]
    async fn a_log_ends_at_its_bound() {
        let (logs, out) = (MemoryLogs::new(), log("a", 1, Stream::Stdout));
        let chunk = vec![b'x'; LOG_CHUNK_BYTES_MAX - 1];
        let mut len = 0;
        while len < LOG_BYTES_MAX {
            len = logs.append(&out, len, &chunk).await.unwrap();
        }
        assert_eq!(len, LOG_BYTES_MAX);
        assert_eq!(logs.append(&out, len, b"more").await.unwrap(), LOG_BYTES_MAX);
        let read = logs.read(&out, 0, usize::MAX).await.unwrap();
        assert_eq!(read.len(), LOG_CHUNK_BYTES_MAX);
    }

    #[tokio::test]
    async fn deleting_takes_all_logs_of_one_task_and_their_room() {
        let logs = MemoryLogs::with_bytes_max(8);
        for (task, execution, stream) in
            [("a", 1, Stream::Stdout), ("b", 1, Stream::Stdout), ("b", 7, Stream::Stderr), ("ba", 1, Stream::Stdout)]
        {
            logs.append(&log(task, execution, stream), 0, b"xy").await.unwrap();
        }
        assert_eq!(kind(logs.append(&log("c", 1, Stream::Stdout), 0, b"z").await), ErrorKind::Full);
        logs.delete(&id("b")).await.unwrap();
        assert_eq!(logs.len(&log("b", 7, Stream::Stderr)).await.unwrap(), 0);
        assert_eq!(logs.len(&log("a", 1, Stream::Stdout)).await.unwrap(), 2);
        assert_eq!(logs.len(&log("ba", 1, Stream::Stdout)).await.unwrap(), 2);
        assert_eq!(logs.append(&log("c", 1, Stream::Stdout), 0, b"four").await.unwrap(), 4);
    }
}
