//! A thread that drives all connections of one database handle.
//!
//! The caller's runtime may be busy, paused or gone: what was asked for is carried out all the same, so
//! that a dropped future never leaves a connection in the middle of a transaction, and a heartbeat never
//! waits for somebody's handler.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// How long what runs may go on when the handle is closed.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// Carries out work on its own thread. Dropping it ends the thread, soon.
#[derive(Debug)]
pub(crate) struct Engine {
    runtime: Handle,
    // Dropping it wakes the thread.
    closing: oneshot::Sender<std::convert::Infallible>,
}

impl Engine {
    /// Starts the thread. `last` is carried out when the engine is dropped.
    pub(crate) fn start<F>(last: impl FnOnce() -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = ()>,
    {
        let failed = |e| Error::internal("the thread for a database cannot be started").with_source(e);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (closing, closed) = oneshot::channel();
        let work = move || {
            runtime.block_on(async {
                // The sender sends nothing: it is dropped.
                let _ = closed.await;
                let _ = tokio::time::timeout(CLOSING_TIME, last()).await;
            });
        };
        std::thread::Builder::new().name("lts-database".to_owned()).spawn(work).map_err(failed)?;
        Ok(Engine { runtime: handle, closing })
    }

    /// Carries out `work` to its end, even if the future of this call is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.runtime.spawn(work).await {
            Ok(done) => done,
            Err(e) => Err(Error::internal("a database call did not finish").with_source(e)),
        }
    }

    /// Lets `work` run beside everything else until the engine is dropped.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        debug_assert!(!self.closing.is_closed(), "the engine runs until it is dropped");
        self.runtime.spawn(work);
    }
}
