//! The store over HTTP passes the conformance suite, over a real server with a store in memory and one with a file.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::results::LogStore;
use light_task_scheduler::store::sql::{Durability, SqliteOptions};
use light_task_scheduler::store::{Capabilities, MemoryOptions};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;
use light_task_scheduler::{MemoryStore, RemoteStore, SqliteStore, Store};
use light_task_scheduler_server::api::Admission;
use tempfile::TempDir;

use crate::serving::{ANY_PORT, Bare, Serving};

/// How many sequences are compared with the model: each has a server of its own.
const SEQUENCES: u32 = 100;

/// What keeps the tasks behind the server.
trait Behind: Send + Sync {
    fn is_durable(&self) -> bool;
    /// A fresh store.
    fn open(&self, clock: Arc<TestClock>) -> Arc<dyn Store>;
    /// The same store, opened once more; `None`: it is in the server that has it.
    fn again(&self, clock: Arc<TestClock>) -> Option<Arc<dyn Store>>;
}

struct Memory;

impl Behind for Memory {
    fn is_durable(&self) -> bool {
        false
    }

    fn open(&self, clock: Arc<TestClock>) -> Arc<dyn Store> {
        Arc::new(MemoryStore::by_priority_with(MemoryOptions { clock, ..MemoryOptions::default() }))
    }

    fn again(&self, _: Arc<TestClock>) -> Option<Arc<dyn Store>> {
        None
    }
}

struct Sqlite {
    directory: TempDir,
    files: AtomicU32,
}

impl Sqlite {
    fn new() -> Self {
        Sqlite { directory: TempDir::new().unwrap(), files: AtomicU32::new(0) }
    }

    fn file(&self, clock: Arc<TestClock>) -> SqliteStore {
        let options = SqliteOptions { clock, durability: Durability::Relaxed, ..SqliteOptions::default() };
        let file = self.directory.path().join(format!("{}.db", self.files.load(SeqCst)));
        SqliteStore::open_with(file, options).unwrap()
    }
}

impl Behind for Sqlite {
    fn is_durable(&self) -> bool {
        true
    }

    fn open(&self, clock: Arc<TestClock>) -> Arc<dyn Store> {
        self.files.fetch_add(1, SeqCst);
        self.file(clock).into()
    }

    fn again(&self, clock: Arc<TestClock>) -> Option<Arc<dyn Store>> {
        Some(self.file(clock).into())
    }
}

struct Remote<B> {
    behind: B,
    clock: Arc<TestClock>,
    servers: Mutex<Vec<Serving>>,
}

impl<B: Behind> Remote<B> {
    fn new(behind: B) -> Self {
        Remote { behind, clock: Arc::new(TestClock::new(1)), servers: Mutex::default() }
    }

    /// With a clock that stands still between its steps.
    fn stopped(behind: B) -> Self {
        Remote { clock: Arc::new(TestClock::stopped(1)), ..Remote::new(behind) }
    }

    fn serve(&self, store: Arc<dyn Store>) {
        let server = Serving::start(Bare::around(store), Admission::ThisHost, ANY_PORT);
        self.servers.lock().unwrap().push(server);
    }

    /// A handle on what the last server has.
    async fn handle(&self) -> Arc<dyn Store> {
        let url = self.servers.lock().unwrap().last().unwrap().url();
        RemoteStore::open(&url, None).await.unwrap().into()
    }
}

#[async_trait]
impl<B: Behind> StoreHarness for Remote<B> {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: self.behind.is_durable(), shared: true, multi_host: true }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.serve(self.behind.open(self.clock.clone()));
        self.handle().await
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        if let Some(store) = self.behind.again(self.clock.clone()) {
            self.serve(store);
        }
        Some(self.handle().await)
    }

    async fn advance(&self, by: Duration) {
        self.clock.step(by);
    }

    fn sequences(&self) -> u32 {
        SEQUENCES
    }
}

mod over_memory {
    use super::*;

    light_task_scheduler::store_conformance!(real_time, Remote::new(Memory), model: Remote::stopped(Memory));
}

mod over_sqlite {
    use super::*;

    light_task_scheduler::store_conformance!(
        real_time,
        Remote::new(Sqlite::new()),
        model: Remote::stopped(Sqlite::new())
    );
}

mod logs {
    use light_task_scheduler::results::{LogKey, RemoteLogs, Stream};
    use light_task_scheduler::{ErrorKind, TaskId};

    use super::*;

    #[tokio::test]
    async fn are_written_by_offset_and_read_back() {
        let server = Serving::start(Memory.open(Arc::new(TestClock::new(1))), Admission::ThisHost, ANY_PORT);
        let logs = RemoteLogs::open(&server.url(), None).unwrap();
        let log = LogKey { id: TaskId::new("a").unwrap(), execution: 1, stream: Stream::Stderr };
        assert_eq!(logs.append(&log, 0, b"caf\xc3").await.unwrap(), 4);
        assert_eq!(logs.append(&log, 2, b"f\xc3\xa9\n").await.unwrap(), 6, "what is there is not written again");
        assert_eq!(logs.append(&log, 9, b"x").await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!((logs.len(&log).await.unwrap(), logs.read(&log, 3, 9).await.unwrap()), (6, b"\xc3\xa9\n".to_vec()));
        assert_eq!(server.logs().read(&log, 0, 9).await.unwrap(), "caf\u{e9}\n".as_bytes());
        logs.delete(&log.id).await.unwrap();
        assert_eq!(logs.len(&log).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let server = Serving::start(Memory.open(Arc::new(TestClock::new(1))), Admission::ThisHost, ANY_PORT);
        let (url, store) = (server.url(), RemoteStore::open(&server.url(), None).await.unwrap());
        drop(server);
        let error = store.counts().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&url), "{error}");
        assert_eq!(RemoteStore::open(&url, None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
