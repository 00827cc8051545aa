//! Serves a router on a socket: bounded in connections and in the patience with slow ones, and ends in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use light_task_scheduler::Scheduler;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Api;
use crate::exit::{ERROR, Problem, Result};
use crate::output;

/// Most connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 20_000;
/// How long the head of a request may take to arrive, and a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How much of a connection is read ahead, in bytes: no head of a request may be longer.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long requests that are being answered may take once the server is to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long nothing is accepted after a failure that may last, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Open files beside the connections: the store, logs, commands.
const OTHER_FILES: u64 = 1_024;

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Takes the address, or says why not.
    pub(crate) async fn on(address: SocketAddr) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => Problem::new(
                ERROR,
                format!("{address} is taken by another program; stop it, or choose another with --listen"),
            ),
            _ => Problem::new(ERROR, format!("cannot listen on {address}: {error}")),
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Listening { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the API until `end`, then lets what is being answered come to its end.
    pub(crate) async fn serve(self, api: &Api, end: impl Future<Output = ()>) {
        allow_open_files();
        let service = TowerToHyperService::new(api.router());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        tokio::pin!(end);
        loop {
            let (stream, place) = tokio::select! {
                () = &mut end => break,
                accepted = self.accept(&places) => accepted,
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A connection that breaks is its client's affair.
                let _ = connection.await;
                drop(place);
            });
        }
        drop(self.listener);
        api.stop();
        let _ = tokio::time::timeout(DRAIN_WITHIN, graceful.shutdown()).await;
    }

    /// The next connection, once there is a place for it.
    async fn accept(&self, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
        let place = places.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are small: gathering them only delays them. Where it cannot be said, they are slower.
                    let _ = stream.set_nodelay(true);
                    return (stream, place);
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    output::note(&format!("cannot accept connections just now: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Says what becomes of a server whose scheduler an operator has drain. Never ends.
pub(crate) async fn tell_of_drain(scheduler: &Scheduler) {
    scheduler.draining().await;
    output::note("an operator has this server drain: it takes no more tasks, and waits for what runs");
    scheduler.ended().await;
    output::note("drained: it goes on answering, and runs tasks again when it is started again");
    std::future::pending().await
}

/// Whether only that one connection is concerned.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Lets this process open as many files as it has places for connections, as far as the system allows.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS_MAX as u64 + OTHER_FILES;
    let granted = limits.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limits.current.is_some_and(|current| current < granted) {
        // Refused: then there are fewer connections.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum: limits.maximum });
    }
}
