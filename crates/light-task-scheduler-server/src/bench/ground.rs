//! Where a benchmark's tasks are: a place that it makes for itself and removes, whatever else the store holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use light_task_scheduler::store::MemoryOptions;
use light_task_scheduler::store::sql::{Durability, SqliteOptions};
use light_task_scheduler::{CachedStore, Clock, Error, MemoryStore, Result, SqliteStore, Store, SystemClock};

use super::measure::rss_bytes;
use super::{PAYLOAD_BYTES, memory_limit, sqlite_limit};

/// What the store can do without a scheduler: rows per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Taken in, in vectors.
    pub(super) enqueue: f64,
    /// Claimed and marked as done.
    pub(super) drain: f64,
}

impl Limit {
    /// The best of each.
    pub(super) fn best(self, other: Limit) -> Limit {
        Limit { enqueue: self.enqueue.max(other.enqueue), drain: self.drain.max(other.drain) }
    }
}

/// A place for the tasks of a benchmark.
#[async_trait]
pub(super) trait Ground: Send + Sync {
    /// An empty store. What was in the one before is removed: nobody uses it any more.
    async fn fresh(&self) -> Result<Arc<dyn Store>>;

    /// Measures what this place can do with so many rows.
    async fn limit(&self, rows: u64) -> Result<Limit>;

    /// How much its tasks take: on the disk of a server if it keeps them there, in memory otherwise.
    async fn bytes(&self) -> Result<f64>;

    /// How many statements a second the server gets in this time, but for the benchmark's own question; none without
    /// a server.
    async fn statements(&self, during: Duration) -> Result<Option<f64>>;

    /// Removes all that was made.
    async fn remove(&self) -> Result<()>;
}

/// A name that nothing else on a server has.
pub(super) fn fresh_name() -> String {
    format!("lts_bench_{:016x}", SystemClock.random())
}

/// This process.
#[derive(Debug)]
pub(super) struct Memory {
    /// How many jobs the limit has under way at once.
    pub(super) concurrency: usize,
}

#[async_trait]
impl Ground for Memory {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        Ok(MemoryStore::by_priority_with(MemoryOptions::default()).into())
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        let drain = memory_limit::spawned(rows, self.concurrency).await;
        Ok(Limit { enqueue: memory_limit::sent(rows, &[7; PAYLOAD_BYTES]), drain })
    }

    async fn bytes(&self) -> Result<f64> {
        Ok(rss_bytes())
    }

    async fn statements(&self, _: Duration) -> Result<Option<f64>> {
        Ok(None)
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}

/// SQLite files in a directory of their own, which goes with this value.
#[derive(Debug)]
pub(super) struct Sqlite {
    files: TempDir,
    durability: Durability,
    opened: AtomicU64,
}

impl Sqlite {
    pub(super) fn new(dir: &Path, durability: Durability) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("lts-bench-").tempdir_in(dir).map_err(|error| {
            Error::invalid(format!("cannot make a directory for the benchmark in {}: {error}", dir.display()))
        })?;
        Ok(Sqlite { files, durability, opened: AtomicU64::new(0) })
    }

    fn file(&self) -> PathBuf {
        self.files.path().join(format!("{}.db", self.opened.fetch_add(1, Relaxed)))
    }
}

#[async_trait]
impl Ground for Sqlite {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        let options = SqliteOptions { durability: self.durability, ..SqliteOptions::default() };
        Ok(SqliteStore::open_with(self.file(), options)?.into())
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        sqlite_limit::raw(&self.file(), rows, self.durability)
    }

    async fn bytes(&self) -> Result<f64> {
        Ok(rss_bytes())
    }

    async fn statements(&self, _: Duration) -> Result<Option<f64>> {
        Ok(None)
    }

    async fn remove(&self) -> Result<()> {
        Ok(())
    }
}

/// Another ground with a window in memory in front of it.
pub(super) struct Cached(pub(super) Box<dyn Ground>);

#[async_trait]
impl Ground for Cached {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(CachedStore::new(self.0.fresh().await?)))
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        self.0.limit(rows).await
    }

    async fn bytes(&self) -> Result<f64> {
        self.0.bytes().await
    }

    async fn statements(&self, during: Duration) -> Result<Option<f64>> {
        self.0.statements(during).await
    }

    async fn remove(&self) -> Result<()> {
        self.0.remove().await
    }
}
