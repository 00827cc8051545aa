//! The way to the server: multiplexed connections, made anew when they break.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value};
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{error, needs_new_connection};
use super::place::{Place, Way};
use crate::clock::monotonic;
use crate::error::Result;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for an answer: longer than the disk of an always flushing server takes.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// How soon after a failed connection to try the next: bounds what a server that is down is asked.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// One connection to the place for each runtime that asks, shared by all its callers: what drives a connection
/// lives on its runtime, and one that is stuck or has ended must not take the heartbeats of another with it.
#[derive(Debug)]
pub(crate) struct Link {
    place: Place,
    timeout: Duration,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// How many connections were made.
    made: u64,
    /// By runtime: which one it is, so that a caller that saw an older one break leaves the newer one alone.
    connections: HashMap<Option<runtime::Id>, (u64, Connection)>,
    failed: Option<(Instant, RedisError)>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} connections", self.connections.len())
    }
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects with the first call; waits so long for each answer.
    pub(crate) fn new(place: Place, timeout: Duration) -> Self {
        Link { place, timeout, current: Mutex::default() }
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
        let runtime = runtime::Handle::try_current().ok().map(|handle| handle.id());
        let (number, mut connection) = self.connection(runtime).await?;
        let sent = match &mut connection {
            Connection::One(one) => one.req_packed_command(command).await,
            Connection::Cluster(cluster) => cluster.req_packed_command(command).await,
        };
        let sent = sent.and_then(Value::extract_error);
        if sent.as_ref().is_err_and(needs_new_connection) {
            let mut current = self.current.lock().await;
            if current.connections.get(&runtime).is_some_and(|(is, _)| *is == number) {
                current.connections.remove(&runtime);
            }
        }
        sent
    }

    async fn connection(&self, runtime: Option<runtime::Id>) -> RedisResult<(u64, Connection)> {
        let mut current = self.current.lock().await;
        if let Some(known) = current.connections.get(&runtime) {
            return Ok(known.clone());
        }
        if let Some((when, why)) = &current.failed
            && when.elapsed() < RECONNECT_DELAY
        {
            return Err(why.clone());
        }
        match connect(&self.place, self.timeout).await {
            Ok(connection) => {
                current.made += 1;
                let made = (current.made, connection);
                current.connections.insert(runtime, made.clone());
                current.failed = None;
                Ok(made)
            }
            Err(why) => {
                current.failed = Some((monotonic(), why.clone()));
                Err(why)
            }
        }
    }
}

async fn connect(place: &Place, timeout: Duration) -> RedisResult<Connection> {
    if let Way::Cluster = place.way() {
        let client = ClusterClient::builder(place.nodes().to_vec())
            .tcp_settings(promptly())
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(timeout)
            .build()?;
        return client.get_async_connection().await.map(Connection::Cluster);
    }
    let config = config(timeout);
    let client = node(place).await?;
    client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
}

/// How connections behave.
pub(crate) fn config(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(Some(timeout))
}

/// What is written goes at once: a small command would otherwise wait until the server has answered the one before.
fn promptly() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// The node to talk to: the only one, the master, or any of a cluster.
pub(crate) async fn node(place: &Place) -> RedisResult<Client> {
    let nodes = place.nodes();
    let client = match place.way() {
        Way::Sentinels { master } => {
            let mut sentinels = Sentinel::build(nodes.iter().map(Place::without_login).collect())?;
            let login = nodes.first().map(|node| node.redis_settings().clone()).unwrap_or_default();
            let info = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
            sentinels.async_master_for(master, Some(&info)).await?
        }
        Way::Direct | Way::Cluster => {
            let first = nodes.first().cloned().ok_or((redis::ErrorKind::EmptySentinelList, "no node is named"))?;
            Client::open(first)?
        }
    };
    Client::open(client.get_connection_info().clone().set_tcp_settings(promptly()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_goes_at_once() {
        let client = node(&Place::parse("redis://me:secret@localhost:7000/3").unwrap()).await.unwrap();
        assert!(client.get_connection_info().tcp_settings().nodelay());
        assert_eq!(client.get_connection_info().redis_settings().db(), 3);
    }
}
