//! A database on a MariaDB or MySQL server, for the tasks of a benchmark.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row};

use light_task_scheduler::{Error, MySqlStore, Result, Store};

use super::ground::{Ground, Limit, fresh_name};
use super::mysql_limit;
use crate::store_url::ServerUrl;

/// A database of a name that nobody else uses.
pub(super) struct MySql {
    /// As the user has given it.
    server: ServerUrl,
    name: String,
    /// With that database in it.
    url: String,
    /// Whether it is there.
    made: AtomicBool,
}

impl MySql {
    pub(super) fn new(server: &ServerUrl) -> Self {
        let name = fresh_name();
        MySql { url: server.with_database(&name), server: server.clone(), name, made: AtomicBool::new(false) }
    }

    /// What is made, and where.
    pub(super) fn place(&self) -> String {
        format!("the database {} on the server of {}", self.name, self.server.identity())
    }

    async fn connect(&self) -> Result<MySqlConnection> {
        let options = MySqlConnectOptions::from_str(&self.server.url)
            .map_err(|error| Error::invalid(format!("not the URL of a MariaDB or MySQL server: {error}")))?;
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
        let otherwise = format!("cannot make {} for the benchmark (its user needs all rights on it)", self.place());
        self.execute(format!("CREATE DATABASE {}", self.name), &otherwise).await?;
        self.made.store(true, Relaxed);
        Ok(())
    }

    async fn size(&self) -> sqlx::Result<f64> {
        let options = MySqlConnectOptions::from_str(&self.url)?.disable_statement_logging();
        let mut connection = options.connect().await?;
        let tables = "SELECT CAST(table_name AS BINARY) FROM information_schema.tables WHERE table_schema = DATABASE()";
        for row in sqlx::query(tables).fetch_all(&mut connection).await? {
            // What the server knows of a table's size is as old as its last look at it.
            let analyze = format!("ANALYZE TABLE `{}`", String::from_utf8_lossy(row.try_get(0)?));
            sqlx::raw_sql(AssertSqlSafe(analyze)).fetch_all(&mut connection).await?;
        }
        let size = "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS DOUBLE)
            FROM information_schema.tables WHERE table_schema = DATABASE()";
        sqlx::query_scalar(size).fetch_one(&mut connection).await
    }
}

/// How many statements the server has got so far.
async fn questions(connection: &mut MySqlConnection) -> sqlx::Result<f64> {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Questions'").fetch_one(connection).await?;
    let text = row.try_get_unchecked::<String, _>(1)?;
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error) as _))
}

#[async_trait]
impl Ground for MySql {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        self.remove().await?;
        self.make().await?;
        Ok(Arc::new(MySqlStore::open(&self.url).await?))
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        self.remove().await?;
        self.make().await?;
        mysql_limit::raw(&self.url, rows).await
    }

    async fn bytes(&self) -> Result<f64> {
        let failed = |error| Error::internal(format!("cannot read the size of {}: {error}", self.place()));
        self.size().await.map_err(failed)
    }

    async fn statements(&self, during: Duration) -> Result<Option<f64>> {
        let failed = |error| Error::internal(format!("cannot read what the server counts: {error}"));
        let mut connection = self.connect().await?;
        let before = questions(&mut connection).await.map_err(failed)?;
        tokio::time::sleep(during).await;
        let after = questions(&mut connection).await.map_err(failed)?;
        // The second of our own questions is in its answer.
        Ok(Some((after - before - 1.0).max(0.0) / during.as_secs_f64()))
    }

    async fn remove(&self) -> Result<()> {
        if !self.made.swap(false, Relaxed) {
            return Ok(());
        }
        let otherwise = format!("cannot remove {}; drop it by hand", self.place());
        self.execute(format!("DROP DATABASE IF EXISTS {}", self.name), &otherwise).await
    }
}
