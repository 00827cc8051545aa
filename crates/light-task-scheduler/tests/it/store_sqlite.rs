//! The SQLite store passes the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::SqliteStore;
use light_task_scheduler::store::sql::SqliteOptions;
use light_task_scheduler::store::{Capabilities, Store};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;

struct Sqlite {
    directory: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Sqlite {
    fn new() -> Self {
        Sqlite { directory: tempfile::tempdir().unwrap(), clock: Arc::new(TestClock::new(1)) }
    }

    fn handle(&self) -> Arc<dyn Store> {
        let options = SqliteOptions { clock: self.clock.clone(), ..SqliteOptions::default() };
        SqliteStore::open_with(self.directory.path().join("tasks.db"), options).unwrap().into()
    }
}

#[async_trait]
impl StoreHarness for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: false }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.handle()
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        Some(self.handle())
    }

    async fn advance(&self, by: Duration) {
        self.clock.step(by);
    }
}

light_task_scheduler::store_conformance!(Sqlite::new());
