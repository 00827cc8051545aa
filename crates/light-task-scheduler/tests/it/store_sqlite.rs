//! The SQLite store passes the conformance suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::store::sql::{Durability, SqliteOptions, SqliteStore};
use light_task_scheduler::store::{Capabilities, Store};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;
use tempfile::TempDir;

use crate::servers::assert_consistent;

pub(crate) struct Sqlite {
    directory: TempDir,
    /// How many files were made; each is of another store.
    files: AtomicU32,
    clock: Arc<TestClock>,
    durability: Durability,
}

impl Sqlite {
    pub(crate) fn new(durability: Durability) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Sqlite { directory, files: AtomicU32::new(0), clock: Arc::new(TestClock::new(1)), durability }
    }

    fn handle(&self) -> SqliteStore {
        self.file(self.files.load(SeqCst))
    }

    fn file(&self, number: u32) -> SqliteStore {
        let options =
            SqliteOptions { clock: self.clock.clone(), durability: self.durability, ..SqliteOptions::default() };
        SqliteStore::open_with(self.directory.path().join(format!("{number}.db")), options).expect("a store")
    }
}

#[async_trait]
impl StoreHarness for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: false }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.files.fetch_add(1, SeqCst);
        self.handle().into()
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        Some(self.handle().into())
    }

    async fn advance(&self, by: Duration) {
        self.clock.step(by);
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        assert_consistent(async || {
            let mut problems = Vec::new();
            for number in 1..=self.files.load(SeqCst) {
                problems.extend(self.file(number).verify().await.expect("it can be read"));
            }
            problems
        });
    }
}

mod on_disk {
    use super::*;

    light_task_scheduler::store_conformance!(
        Sqlite::new(Durability::Full),
        // Thousands of cases would mostly wait for the disk; what they look at is the same.
        model: Sqlite::new(Durability::Relaxed)
    );
}
