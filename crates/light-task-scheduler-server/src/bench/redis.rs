//! A namespace on a Redis server, for the tasks of a benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult};

use light_task_scheduler::store::redis::RedisOptions;
use light_task_scheduler::{Error, RedisStore, Result, Store};

use super::ground::{Ground, Limit, fresh_name};
use super::redis_limit;
use crate::store_url::ServerUrl;

/// How long to wait for an answer: the disk of an always flushing server takes its time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A namespace that nobody else uses.
pub(super) struct Redis {
    server: ServerUrl,
    namespace: String,
    /// Whether anything is in it.
    used: AtomicBool,
}

impl Redis {
    pub(super) fn new(server: &ServerUrl) -> Result<Self> {
        if !["redis://", "valkey://"].iter().any(|scheme| server.url.starts_with(scheme)) {
            return Err(Error::invalid("the benchmark talks to one Redis server; give its own URL, redis://host:port"));
        }
        Ok(Redis { server: server.clone(), namespace: fresh_name(), used: AtomicBool::new(false) })
    }

    /// What is made, and where.
    pub(super) fn place(&self) -> String {
        format!("the namespace {} of {}", self.namespace, self.server.identity())
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connected = async {
            // As the store has it: what is written goes at once.
            let settings = TcpSettings::default().set_nodelay(true);
            let place = self.server.url.replacen("valkey://", "redis://", 1).into_connection_info()?;
            let client = Client::open(place.set_tcp_settings(settings))?;
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        connected.await.map_err(|error: redis::RedisError| {
            Error::unavailable(format!("cannot connect to {}: {error}", self.server.identity()))
        })
    }

    async fn open(&self) -> Result<RedisStore> {
        let options = RedisOptions { namespace: self.namespace.clone(), ..RedisOptions::default() };
        RedisStore::open_with(&self.server.url, options).await
    }
}

/// A number that the server tells of itself.
async fn told(connection: &mut MultiplexedConnection, section: &str, name: &str) -> RedisResult<f64> {
    let text: String = redis::cmd("INFO").arg(section).query_async(connection).await?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    found.ok_or_else(|| (redis::ErrorKind::UnexpectedReturnType, "the server does not tell it", name.to_owned()).into())
}

#[async_trait]
impl Ground for Redis {
    async fn fresh(&self) -> Result<Arc<dyn Store>> {
        self.remove().await?;
        self.used.store(true, Relaxed);
        Ok(self.open().await?.into())
    }

    async fn limit(&self, rows: u64) -> Result<Limit> {
        self.remove().await?;
        self.used.store(true, Relaxed);
        redis_limit::raw(&self.connect().await?, &self.namespace, rows)
            .await
            .map_err(|error| Error::internal(format!("the raw Redis benchmark failed: {error}")))
    }

    async fn bytes(&self) -> Result<f64> {
        let told = told(&mut self.connect().await?, "memory", "used_memory").await;
        told.map_err(|error| Error::internal(format!("cannot read how much memory Redis uses: {error}")))
    }

    async fn statements(&self, during: Duration) -> Result<Option<f64>> {
        let failed = |error| Error::internal(format!("cannot read what Redis counts: {error}"));
        let mut connection = self.connect().await?;
        // Not its count of commands: those of scripts are in it, and a script is one statement.
        let before = told(&mut connection, "stats", "total_reads_processed").await.map_err(failed)?;
        tokio::time::sleep(during).await;
        let after = told(&mut connection, "stats", "total_reads_processed").await.map_err(failed)?;
        // The second of our own questions is in its answer.
        Ok(Some((after - before - 1.0).max(0.0) / during.as_secs_f64()))
    }

    async fn remove(&self) -> Result<()> {
        if !self.used.swap(false, Relaxed) {
            return Ok(());
        }
        let left = |error| Error::internal(format!("cannot remove {}: {error}", self.place()));
        redis_limit::remove(&self.connect().await?, &self.namespace).await.map_err(|error| left(error.to_string()))?;
        self.open().await?.erase().await.map_err(|error| left(error.to_string()))
    }
}
