//! The window of candidates passes the conformance suite in front of durable stores.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::CachedStore;
use light_task_scheduler::store::sql::Durability;
use light_task_scheduler::store::{CachedOptions, Capabilities, Store};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;

use crate::store_sqlite::Sqlite;

/// Any store's harness, with a window in front of every handle.
struct Cached<H> {
    inner: H,
    /// By which the windows grow old: every step is longer than they are good for.
    clock: Arc<TestClock>,
}

impl<H: StoreHarness> Cached<H> {
    fn new(inner: H) -> Self {
        Cached { inner, clock: Arc::new(TestClock::new(1)) }
    }

    fn cached(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        let options = CachedOptions { clock: self.clock.clone(), ..CachedOptions::default() };
        CachedStore::with_options(inner, options).expect("good options").into()
    }
}

#[async_trait]
impl<H: StoreHarness> StoreHarness for Cached<H> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.cached(self.inner.open().await)
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        Some(self.cached(self.inner.again().await?))
    }

    async fn advance(&self, by: Duration) {
        self.inner.advance(by).await;
        self.clock.step(by);
    }
}

mod over_sqlite {
    use super::*;

    light_task_scheduler::store_conformance!(
        Cached::new(Sqlite::new(Durability::Full)),
        model: Cached::new(Sqlite::new(Durability::Relaxed))
    );
}
