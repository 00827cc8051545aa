//! The Redis store passes the conformance suite, against the real server that `scripts/servers/redis` starts.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
#[cfg(target_os = "linux")]
use light_task_scheduler::ReplicaId;
use light_task_scheduler::store::redis::{RedisOptions, RedisStore};
use light_task_scheduler::store::{Capabilities, Store};
use light_task_scheduler::testing::conformance::store::StoreHarness;

#[cfg(target_os = "linux")]
use crate::homes::Homes;
use crate::servers::{SERVER_SEQUENCES, assert_consistent};

/// The server of the tests.
pub(crate) fn url() -> String {
    crate::servers::url("LTS_TEST_REDIS_URL", "redis")
}

/// A namespace that no other test uses.
pub(crate) fn namespace() -> String {
    crate::servers::fresh_name("test")
}

/// Removes what a test has left under this pattern.
pub(crate) fn remove_keys(pattern: &str) {
    let mut connection = redis::Client::open(url()).and_then(|client| client.get_connection()).expect("a connection");
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut connection).expect("keys");
    for key in keys {
        redis::cmd("UNLINK").arg(key).exec(&mut connection).expect("removed");
    }
}

/// A namespace of its own for every store, with a clock that can be stepped.
#[derive(Default)]
pub(crate) struct Redis {
    offset: Arc<AtomicI64>,
    stopped: bool,
    /// All that were opened; the last is the current one.
    namespaces: Mutex<Vec<String>>,
}

impl Redis {
    /// With a clock that stands still between its steps.
    pub(crate) fn stopped() -> Self {
        const SOME_DAY: i64 = 1_790_000_000_000_000;
        Redis { offset: Arc::new(AtomicI64::new(SOME_DAY)), stopped: true, namespaces: Mutex::default() }
    }

    async fn handle(&self, namespace: String) -> RedisStore {
        let clock_offset = self.offset.clone();
        let options = RedisOptions { namespace, clock_offset, clock_stopped: self.stopped, ..RedisOptions::default() };
        RedisStore::open_with(&url(), options).await.expect("a store")
    }
}

#[async_trait]
impl StoreHarness for Redis {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: true }
    }

    async fn open(&self) -> Arc<dyn Store> {
        let namespace = namespace();
        self.namespaces.lock().unwrap().push(namespace.clone());
        self.handle(namespace).await.into()
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        let namespace = self.namespaces.lock().unwrap().last().cloned()?;
        Some(self.handle(namespace).await.into())
    }

    async fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_micros()).unwrap(), SeqCst);
    }

    fn sequences(&self) -> u32 {
        SERVER_SEQUENCES
    }
}

impl Drop for Redis {
    /// Every case ends with a look at the indexes, and leaves nothing.
    fn drop(&mut self) {
        let namespaces = std::mem::take(&mut *self.namespaces.lock().unwrap());
        assert_consistent(async || {
            let mut problems = Vec::new();
            for namespace in namespaces {
                let store = self.handle(namespace).await;
                problems.extend(store.verify().await.expect("it can be read"));
                store.erase().await.expect("it can be erased");
            }
            problems
        });
    }
}

mod on_a_server {
    use super::*;

    light_task_scheduler::store_conformance!(
        real_time,
        Redis::default(),
        // The model's operations take no time: what comes of the milliseconds between them, it cannot know.
        model: Redis::stopped()
    );
}

/// A replica's row is a hash.
#[cfg(target_os = "linux")]
struct Rows(String);

#[cfg(target_os = "linux")]
impl Rows {
    fn ask<T: redis::FromRedisValue>(&self, command: &str, replica: ReplicaId, arguments: &[&str]) -> T {
        let mut connection = redis::Client::open(url()).and_then(|client| client.get_connection()).unwrap();
        let key = format!("{{lts:{}}}:rep:{replica}", self.0);
        redis::cmd(command).arg(key).arg("home").arg(arguments).query(&mut connection).unwrap()
    }
}

#[cfg(target_os = "linux")]
impl Homes for Rows {
    async fn read(&self, replica: ReplicaId) -> String {
        self.ask("HGET", replica, &[])
    }

    async fn write(&self, replica: ReplicaId, home: &str) {
        self.ask::<i64>("HSET", replica, &[home]);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_has_ended_on_this_host_is_rescued_at_once() {
    let redis = Redis::default();
    let (store, other) = (redis.open().await, redis.again().await.unwrap());
    let rows = Rows(redis.namespaces.lock().unwrap().last().unwrap().clone());
    crate::homes::who_has_ended_on_this_host_is_rescued_at_once([&*store, &*other], rows).await;
}
