//! What is done about a server that says nothing: the network may have lost a connection without telling anybody.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;

/// How long the server may take to answer what a call asks: longer than any call of ours works, also where it waits
/// for others.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to answer a heartbeat: with another connection there is still time for one.
pub(crate) const PULSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server keeps a transaction in which nothing more is asked, and with it its locks: whoever asks is
/// gone, or stands still. Ours ask without a pause.
pub(crate) const IDLE_TRANSACTION_MAX: Duration = Duration::from_secs(5);
/// How long after a silence no connection that is given back is used again. The one that was silent is among
/// them; it may be in the middle of anything.
const DISTRUST: Duration = Duration::from_secs(5);

/// Whether connections of a pool are to be trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust(Arc<Mutex<Option<Instant>>>);

impl Trust {
    /// Does work on a connection; `None`: it was given up after `most`.
    pub(crate) async fn within<T>(&self, most: Duration, work: impl Future<Output = T>) -> Option<T> {
        // Dropped last, and with it the connection is given back: by then it is known not to be trusted.
        let work = std::pin::pin!(work);
        let done = tokio::time::timeout(most, work).await.ok();
        if done.is_none() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic() + DISTRUST);
        }
        done
    }

    /// Whether a connection that is given back now may be used again; else it is closed without another word.
    pub(crate) fn check(&self) -> Result<bool, sqlx::Error> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if until.is_some_and(|until| monotonic() < until) {
            return Err(silence());
        }
        Ok(true)
    }
}

fn silence() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the server did not answer in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_silence_connections_are_not_used_again_for_a_while() {
        struct Connection<'a>(&'a Trust, &'a Mutex<Vec<bool>>);
        impl Drop for Connection<'_> {
            fn drop(&mut self) {
                self.1.lock().unwrap().push(self.0.check().is_ok());
            }
        }
        let (trust, trusted) = (Trust::default(), Mutex::default());
        let take = || Connection(&trust, &trusted);
        let quick = async {
            let _connection = take();
            7
        };
        assert_eq!(trust.within(ANSWER_TIMEOUT, quick).await, Some(7));
        let silent = async {
            let _connection = take();
            std::future::pending::<()>().await;
        };
        assert_eq!(trust.within(ANSWER_TIMEOUT, silent).await, None);
        tokio::time::advance(DISTRUST).await;
        drop(take());
        assert_eq!(*trusted.lock().unwrap(), [true, false, true]);
    }
}
