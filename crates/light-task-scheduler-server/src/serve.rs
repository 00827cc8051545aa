//! Serves a router on a socket, and ends in order.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::api::Api;
use crate::exit::{ERROR, Problem, Result};

/// How long requests that are being answered may take once the server is to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Takes the address, or says why not.
    pub(crate) async fn on(address: SocketAddr) -> Result<Self> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Problem::new(
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
    pub(crate) async fn serve(self, api: &Api, end: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
        let stopping = api.clone();
        let server = axum::serve(self.listener, api.router()).with_graceful_shutdown(async move {
            end.await;
            stopping.stop();
            let _ = ended.send(());
        });
        let overdue = async {
            let _ = has_ended.await;
            tokio::time::sleep(DRAIN_WITHIN).await;
        };
        tokio::select! {
            served = server => served.map_err(|error| Problem::new(ERROR, format!("cannot serve: {error}"))),
            () = overdue => Ok(()),
        }
    }
}
