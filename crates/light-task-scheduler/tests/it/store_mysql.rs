//! The MySQL store passes the conformance suite, on MariaDB.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::store::sql::{MySqlOptions, MySqlStore};
use light_task_scheduler::store::{Capabilities, Store};
use light_task_scheduler::testing::conformance::store::StoreHarness;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use crate::servers::{SERVER_SEQUENCES, assert_consistent, fresh_name, url};

/// The server, with a database that is always there.
pub(crate) fn server_url() -> String {
    url("LTS_TEST_MYSQL_URL", "mariadb")
}

/// A database of its own. It is removed when this goes out of scope, also when a test fails.
pub(crate) struct Database(String);

impl Database {
    pub(crate) fn fresh() -> Self {
        let name = fresh_name("lts");
        execute(format!("CREATE DATABASE {name}"));
        Database(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn url(&self) -> String {
        let url = server_url();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{}", self.0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {}", self.0);
        let dropped = std::panic::catch_unwind(|| execute(drop));
        if !std::thread::panicking() {
            dropped.expect("the database is dropped");
        }
    }
}

/// Executes statements on a connection and a thread of their own: the test's runtime may be ending.
pub(crate) fn execute(sql: String) {
    let work = async {
        let mut connection = MySqlConnection::connect(&server_url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
        scope.spawn(run).join().expect("the statement is executed");
    });
}

#[derive(Default)]
struct MariaDb {
    /// One for each store that was opened.
    databases: Mutex<Vec<Database>>,
    offset: Arc<AtomicI64>,
    stopped: bool,
}

impl MariaDb {
    /// With a clock that stands still between its steps.
    fn stopped() -> Self {
        const SOME_DAY: i64 = 1_790_000_000_000_000;
        MariaDb { offset: Arc::new(AtomicI64::new(SOME_DAY)), stopped: true, databases: Mutex::default() }
    }

    async fn handle(&self) -> MySqlStore {
        let url = self.databases.lock().unwrap().last().expect("a store was opened").url();
        self.at(&url).await
    }

    async fn at(&self, url: &str) -> MySqlStore {
        let options = MySqlOptions {
            connections: 4,
            time_offset: Arc::clone(&self.offset),
            time_stopped: self.stopped,
            ..MySqlOptions::default()
        };
        MySqlStore::open_with(url, options).await.expect("a store")
    }
}

#[async_trait]
impl StoreHarness for MariaDb {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: true }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.databases.lock().unwrap().push(Database::fresh());
        self.handle().await.into()
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        Some(self.handle().await.into())
    }

    async fn advance(&self, by: Duration) {
        self.offset.fetch_add(i64::try_from(by.as_micros()).expect("a short time"), SeqCst);
    }

    fn sequences(&self) -> u32 {
        SERVER_SEQUENCES
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let databases = std::mem::take(&mut *self.databases.lock().unwrap());
        assert_consistent(async || {
            let mut problems = Vec::new();
            for database in &databases {
                problems.extend(self.at(&database.url()).await.verify().await.expect("it can be read"));
            }
            problems
        });
    }
}

light_task_scheduler::store_conformance!(real_time, MariaDb::default(), model: MariaDb::stopped());
