//! The memory store passes the conformance suite, in both its orders.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::MemoryStore;
use light_task_scheduler::store::{Capabilities, MemoryOptions, Store};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;

struct Memory {
    priority: bool,
    clock: Arc<TestClock>,
}

impl Memory {
    fn new(priority: bool) -> Self {
        Memory { priority, clock: Arc::new(TestClock::new(1)) }
    }
}

#[async_trait]
impl StoreHarness for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: self.priority, durable: false, shared: false, multi_host: false }
    }

    async fn open(&self) -> Arc<dyn Store> {
        let options = MemoryOptions { clock: self.clock.clone(), ..MemoryOptions::default() };
        let open = if self.priority { MemoryStore::by_priority_with } else { MemoryStore::fifo_with };
        Arc::new(open(options))
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        None
    }

    async fn advance(&self, by: Duration) {
        self.clock.step(by);
    }
}

mod fifo {
    use super::*;

    light_task_scheduler::store_conformance!(Memory::new(false));
}

mod by_priority {
    use super::*;

    light_task_scheduler::store_conformance!(Memory::new(true));
}
