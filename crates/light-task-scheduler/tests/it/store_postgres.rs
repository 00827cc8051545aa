//! The PostgreSQL store passes the conformance suite, directly and behind PgBouncer.

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::store::sql::{PostgresOptions, PostgresStore};
use light_task_scheduler::store::{Capabilities, Store};
use light_task_scheduler::testing::conformance::store::StoreHarness;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::servers::{SERVER_SEQUENCES, assert_consistent, fresh_name, url};

/// The server itself.
pub(crate) fn direct_url() -> String {
    url("LTS_TEST_POSTGRES_URL", "postgres")
}

/// PgBouncer in front of it.
pub(crate) fn pooled_url() -> String {
    format!("{}?pgbouncer=true", url("LTS_TEST_PGBOUNCER_URL", "postgres"))
}

/// Removes a schema when it goes out of scope, also when a test fails.
pub(crate) struct Schema(pub(crate) String);

impl Schema {
    pub(crate) fn fresh() -> Self {
        Schema(fresh_name("t"))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.0);
        if std::thread::panicking() {
            let _ = try_execute(drop);
        } else {
            execute(drop);
        }
    }
}

/// Executes statements on a connection of their own. It blocks: not while a transaction of the test is in the way.
pub(crate) fn execute(sql: String) {
    try_execute(sql).unwrap();
}

/// On a thread with a runtime of its own: the test's is busy with the caller.
fn try_execute(sql: String) -> sqlx::Result<()> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&direct_url()).await?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
            connection.close().await
        })
    };
    std::thread::spawn(work).join().unwrap()
}

struct Postgres {
    url: String,
    /// One for each store that was opened.
    schemas: Mutex<Vec<Schema>>,
    offset: Arc<AtomicI64>,
    stopped: bool,
}

impl Postgres {
    fn new(url: String) -> Self {
        Postgres { url, schemas: Mutex::default(), offset: Arc::default(), stopped: false }
    }

    /// With a clock that stands still between its steps.
    fn stopped(url: String) -> Self {
        const SOME_DAY: i64 = 1_790_000_000_000_000;
        Postgres { url, schemas: Mutex::default(), offset: Arc::new(AtomicI64::new(SOME_DAY)), stopped: true }
    }

    async fn handle(&self) -> PostgresStore {
        let schema = self.schemas.lock().unwrap().last().expect("a store was opened").0.clone();
        self.in_schema(schema).await
    }

    async fn in_schema(&self, schema: String) -> PostgresStore {
        let options = PostgresOptions {
            schema,
            connections: 4,
            time_offset: Arc::clone(&self.offset),
            time_stopped: self.stopped,
            ..PostgresOptions::default()
        };
        PostgresStore::open_with(&self.url, options).await.expect("a store")
    }
}

#[async_trait]
impl StoreHarness for Postgres {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: true }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.schemas.lock().unwrap().push(Schema::fresh());
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

impl Drop for Postgres {
    fn drop(&mut self) {
        let schemas = std::mem::take(&mut *self.schemas.lock().unwrap());
        assert_consistent(async || {
            let mut problems = Vec::new();
            for schema in &schemas {
                let store = self.in_schema(schema.0.clone()).await;
                problems.extend(store.verify().await.expect("it can be read"));
            }
            problems
        });
    }
}

mod direct {
    use super::*;

    light_task_scheduler::store_conformance!(
        real_time,
        Postgres::new(direct_url()),
        model: Postgres::stopped(direct_url())
    );
}

/// Behind a pooler that gives each transaction another connection.
mod pooled {
    use super::*;
    use light_task_scheduler::testing::conformance::store::{CASES, Threads, run_alone};

    fn topic(topic: &'static str) {
        let cases: Vec<_> = CASES.iter().filter(|case| case.topic == topic).collect();
        assert!(!cases.is_empty(), "no case is about {topic}");
        for case in cases {
            run_alone(Threads::Four, &|| Box::new(Postgres::new(pooled_url())), case.topic, case.name);
        }
    }

    #[test]
    fn insert() {
        topic("insert");
    }

    #[test]
    fn claims() {
        topic("claims");
    }

    #[test]
    fn limits() {
        topic("limits");
    }

    #[test]
    fn reports() {
        topic("reports");
    }

    #[test]
    fn rescue() {
        topic("rescue");
    }

    #[test]
    fn listing() {
        topic("listing");
    }

    #[test]
    fn shared() {
        topic("shared");
    }

    #[test]
    fn parallel() {
        topic("parallel");
    }
}
