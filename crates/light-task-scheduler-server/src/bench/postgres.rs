//! A schema on a PostgreSQL server, for the tasks of a benchmark.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use light_task_scheduler::{Error, PostgresStore, Result, Store};

use super::ground::{Ground, Limit, fresh_name};
use super::postgres_limit;
use crate::store_url::ServerUrl;

/// What the server counts of its database. It has no count of statements: a transaction counts as one.
const TRANSACTIONS: &str =
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";

/// So late does a connection with little to do tell the server's counters what it has done before.
const COUNT_DELAY: Duration = Duration::from_secs(11);

/// A schema of a name that nobody else uses.
pub(super) struct Postgres {
    server: ServerUrl,
    schema: String,
    /// Whether it is there.
    made: AtomicBool,
}

impl Postgres {
    pub(super) fn new(server: &ServerUrl) -> Result<Self> {
        if server.parameter("pgbouncer").is_some_and(|value| !matches!(value, "false" | "0")) {
            return Err(Error::invalid(
                "the benchmark talks to PostgreSQL itself; give the server's own URL, without pgbouncer=",
            ));
        }
        Ok(Postgres {
            server: server.without(&["schema", "pgbouncer"]),
            schema: fresh_name(),
            made: AtomicBool::new(false),
        })
    }

    /// What is made, and where.
    pub(super) fn place(&self) -> String {
        format!("the schema {} of {}", self.schema, self.server.identity())
    }

    async fn connect(&self) -> Result<PgConnection> {
        let options = PgConnectOptions::from_str(&self.server.url)
            .map_err(|error| Error::invalid(format!("not the URL of a PostgreSQL server: {error}")))?;
        options
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|error| Error::unavailable(format!("cannot connect to {}: {error}", self.server.identity())))
    }

    async fn execute(&self, sql: String, otherwise: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        let _ = connection.close().await;
        match done {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::invalid(format!("{otherwise}: {error}"))),
        }
    }

    async fn make(&self) -> Result<()> {
        let otherwise =
            format!("cannot make {} for the benchmark (its user needs the right CREATE there)", self.place());
        self.execute(format!("CREATE SCHEMA {}", self.schema), &otherwise).await?;
        self.made.store(true, Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Ground for Postgres {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        self.remove().await?;
        self.make().await?;
        Ok(Arc::new(PostgresStore::open(&self.server.with_parameter("schema", &self.schema)).await?))
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        self.remove().await?;
        self.make().await?;
        postgres_limit::raw(&self.server.url, &self.schema, rows).await
    }

    async fn bytes(&self) -> Result<f64> {
        let size = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'";
        let mut connection = self.connect().await?;
        let bytes = sqlx::query_scalar(size).bind(&self.schema).fetch_one(&mut connection).await;
        bytes.map_err(|error| Error::internal(format!("cannot read the size of {}: {error}", self.place())))
    }

    async fn statements(&self, during: Duration) -> Result<Option<f64>> {
        let failed = |error| Error::internal(format!("cannot read what PostgreSQL counts: {error}"));
        let mut connection = self.connect().await?;
        tokio::time::sleep(COUNT_DELAY).await;
        let before: i64 = sqlx::query_scalar(TRANSACTIONS).fetch_one(&mut connection).await.map_err(failed)?;
        tokio::time::sleep(during).await;
        let after: i64 = sqlx::query_scalar(TRANSACTIONS).fetch_one(&mut connection).await.map_err(failed)?;
        // The first of our own questions is in the second answer.
        Ok(Some((after - before - 1).max(0) as f64 / during.as_secs_f64()))
    }

    async fn remove(&self) -> Result<()> {
        if !self.made.swap(false, Relaxed) {
            return Ok(());
        }
        let otherwise = format!("cannot remove {}; drop it by hand", self.place());
        self.execute(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema), &otherwise).await
    }
}
