//! How SQL stores write records into rows: what does not depend on the database.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::task::{Attempt, Details, Failure, Handle, Options, Payload, Progress, Record, ResultRef, State};

/// The stage of a waiting task that has not been seen to be due; the other stages are the numbers of the states.
pub(super) const SCHEDULED: i64 = -1;
/// The stage of a waiting task that is due.
pub(super) const READY: i64 = State::Waiting as i64;

pub(super) const CANCEL_REQUESTED: i64 = 1;
pub(super) const STOP_UNCONFIRMED: i64 = 2;
pub(super) const HAS_REPORT: i64 = 4;

/// The stage of a record. A waiting task that is due now goes straight to the ready ones.
pub(super) fn stage(record: &Record, now: Timestamp) -> i64 {
    match record.state {
        State::Waiting if record.run_at > now => SCHEDULED,
        state => state as i64,
    }
}

/// The state of a stage.
pub(super) fn state(stage: i64) -> Result<State> {
    match stage {
        SCHEDULED => Ok(State::Waiting),
        _ => u8::try_from(stage).ok().and_then(State::from_number).ok_or_else(|| unreadable("stage", stage)),
    }
}

/// The column `flags`.
pub(super) fn flags(record: &Record, has_report: bool) -> i64 {
    let flag = |set: bool, flag| if set { flag } else { 0 };
    flag(record.cancel_requested, CANCEL_REQUESTED)
        | flag(record.stop_unconfirmed, STOP_UNCONFIRMED)
        | flag(has_report, HAS_REPORT)
}

/// The part of [`Details`] that is not in a column of its own; `None` if there is nothing.
pub(super) fn details_json(details: &Details) -> Option<Result<String>> {
    #[derive(Serialize)]
    struct Rest<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        handle: Option<&'a Handle>,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<&'a Progress>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a ResultRef>,
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<&'a Failure>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        attempts: &'a [Attempt],
    }
    let Details { handle, progress, output: _, result, failure, attempts } = details;
    let result = result.as_ref().filter(|result| matches!(result, ResultRef::Stored { .. }));
    let (handle, progress, failure) = (handle.as_ref(), progress.as_ref(), failure.as_ref());
    let rest = Rest { handle, progress, result, failure, attempts };
    let empty = handle.is_none() && progress.is_none() && result.is_none() && failure.is_none() && attempts.is_empty();
    (!empty).then(|| serde_json::to_string(&rest).map_err(|e| Error::internal(format!("details as JSON: {e}"))))
}

/// Puts together what [`details_json`] and the columns of bytes hold.
pub(super) fn details(
    json: Option<&[u8]>,
    output: Option<Payload>,
    result: Option<Payload>,
) -> Result<Option<Box<Details>>> {
    if json.is_none() && output.is_none() && result.is_none() {
        return Ok(None);
    }
    let mut details = match json {
        Some(json) => serde_json::from_slice(json).map_err(|e| unreadable("details of a task", e))?,
        None => Box::<Details>::default(),
    };
    details.output = output;
    details.result = result.map(ResultRef::Inline).or(details.result);
    Ok(Some(details))
}

/// The bytes of a result that is kept in the row.
pub(super) fn inline_result(details: &Details) -> Option<&Payload> {
    match &details.result {
        Some(ResultRef::Inline(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The column `options`.
pub(super) fn options_json(options: &Options) -> Result<String> {
    serde_json::to_string(options).map_err(|e| Error::invalid(format!("options as JSON: {e}")))
}

/// A row says what no program of ours has written.
pub(super) fn unreadable(what: &str, why: impl std::fmt::Display) -> Error {
    Error::internal(format!("the stored {what} cannot be read: {why}"))
}
