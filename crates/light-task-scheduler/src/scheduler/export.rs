//! Saves the result of a run that has succeeded. It has a budget of its own and never re-runs the task.

use crate::error::{ErrorKind, Result};
use crate::scheduler::core::Core;
use crate::scheduler::held::Held;
use crate::state::RunEvent;
use crate::task::{Failure, FailureKind, Handle, OUTPUT_BYTES_MAX, Payload, ResultRef};

/// Saves `output`, or what the handle leads to, and says what is to be written.
pub(super) async fn export(core: &Core, held: &Held, handle: Option<&Handle>, mut output: Option<Payload>) -> RunEvent {
    let policy = &core.config.export_retry;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match save(core, held, handle, &mut output).await {
            Ok(result) => return RunEvent::Complete(result),
            Err(error) => error,
        };
        tracing::warn!(id = %held.id(), tries, %error, "a result could not be saved");
        let hopeless = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound);
        if hopeless || tries >= policy.max_attempts {
            let message = format!("the result could not be saved after {tries} tries: {error}");
            return RunEvent::Fail(Failure::new(FailureKind::Export, message));
        }
        tokio::time::sleep(policy.delay(tries, core.chance())).await;
    }
}

async fn save(core: &Core, held: &Held, handle: Option<&Handle>, output: &mut Option<Payload>) -> Result<ResultRef> {
    let payload = match (&*output, handle) {
        (Some(payload), _) => payload.clone(),
        (None, Some(handle)) => output.insert(held.executor.output(handle).await?).clone(),
        (None, None) => {
            return Err(crate::Error::new(ErrorKind::NotFound, "the run left neither an output nor a handle to it"));
        }
    };
    match &core.results {
        Some(results) => results.save(held.id(), held.execution(), &payload).await,
        None if payload.len() <= OUTPUT_BYTES_MAX => Ok(ResultRef::Inline(payload)),
        None => Err(crate::Error::invalid(format!(
            "the output has {} bytes, more than {OUTPUT_BYTES_MAX}: give the scheduler a result store",
            payload.len()
        ))),
    }
}
