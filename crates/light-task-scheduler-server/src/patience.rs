//! Waits out the outages of a store: a server that is restarted must not end a batch.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use light_task_scheduler::{Error, ErrorKind};
use tokio::time::Instant;

use crate::interrupt::Interrupts;
use crate::output;

/// First and longest wait between tries.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long an outage may last. What runs goes on after that too, and the same command takes it up.
const OUTAGE_MAX: Duration = Duration::from_secs(3_600);

/// A call of a store.
type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Makes a call, and makes it again while the store cannot be reached, until it answers or somebody interrupts.
///
/// Only for calls that may be repeated when just their reply was lost.
pub(crate) async fn patiently<'a, T>(call: impl Fn() -> Call<'a, T>) -> Result<T, Error> {
    let begun = Instant::now();
    let mut interrupts = None;
    let mut wait = WAIT_FIRST;
    loop {
        let error = match call().await {
            Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() < OUTAGE_MAX => error,
            answer => {
                if interrupts.is_some() && answer.is_ok() {
                    output::note("the store answers again");
                }
                return answer;
            }
        };
        if interrupts.is_none() {
            output::note(&format!("waiting for the store: {error}"));
            interrupts = Interrupts::listen().ok();
        }
        let Some(interrupts) = &mut interrupts else { return Err(error) };
        tokio::select! {
            biased;
            () = interrupts.next() => return Err(error),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(WAIT_MAX),
        }
    }
}
