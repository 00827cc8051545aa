//! The way to the server: one multiplexed connection, made anew when it breaks.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{error, needs_new_connection};
use super::place::{Place, Way};
use crate::clock::monotonic;
use crate::error::Result;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an answer: longer than the disk of an always flushing server takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon after a failed connection to try the next: bounds what a server that is down is asked.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// One connection to the place, shared by all callers.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// Which connection this is: a caller that saw an older one break leaves the newer one alone.
    number: u64,
    connection: Option<Connection>,
    failed: Option<(Instant, RedisError)>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection {}", self.number)
    }
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects with the first call.
    pub(crate) fn new(place: Place) -> Self {
        Link { place, current: Mutex::default() }
    }

    /// Where it leads.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.try_send(command).await.map_err(|e| error(self.place.shown(), e))
    }

    /// The same with the error as it came.
    pub(crate) async fn try_send(&self, command: &Cmd) -> RedisResult<Value> {
        let (number, mut connection) = self.connection().await?;
        let sent = match &mut connection {
            Connection::One(one) => one.req_packed_command(command).await,
            Connection::Cluster(cluster) => cluster.req_packed_command(command).await,
        };
        let sent = sent.and_then(Value::extract_error);
        if sent.as_ref().is_err_and(needs_new_connection) {
            let mut current = self.current.lock().await;
            if current.number == number {
                current.connection = None;
            }
        }
        sent
    }

    async fn connection(&self) -> RedisResult<(u64, Connection)> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.number, connection.clone()));
        }
        if let Some((when, why)) = &current.failed
            && when.elapsed() < RECONNECT_DELAY
        {
            return Err(why.clone());
        }
        match connect(&self.place).await {
            Ok(connection) => {
                current.number += 1;
                current.connection = Some(connection.clone());
                current.failed = None;
                Ok((current.number, connection))
            }
            Err(why) => {
                current.failed = Some((monotonic(), why.clone()));
                Err(why)
            }
        }
    }
}

async fn connect(place: &Place) -> RedisResult<Connection> {
    if let Way::Cluster = place.way() {
        let client = ClusterClient::builder(place.nodes().to_vec())
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .build()?;
        return client.get_async_connection().await.map(Connection::Cluster);
    }
    let config = config();
    let client = node(place).await?;
    client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
}

/// How connections behave.
pub(crate) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
}

/// The node to talk to: the only one, the master, or any of a cluster.
pub(crate) async fn node(place: &Place) -> RedisResult<Client> {
    let nodes = place.nodes();
    match place.way() {
        Way::Sentinels { master } => {
            let mut sentinels = Sentinel::build(nodes.iter().map(Place::without_login).collect())?;
            let login = nodes.first().map(|node| node.redis_settings().clone()).unwrap_or_default();
            let info = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
            sentinels.async_master_for(master, Some(&info)).await
        }
        Way::Direct | Way::Cluster => {
            let first = nodes.first().cloned().ok_or((redis::ErrorKind::EmptySentinelList, "no node is named"))?;
            Client::open(first)
        }
    }
}
