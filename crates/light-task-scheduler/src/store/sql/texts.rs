//! Labels, settings and reports as text: what the stores of servers share beyond the codec.

use super::codec::unreadable;
use crate::error::{Error, Result};
use crate::store::{QueueSettings, Report, Said};
use crate::task::{Name, Outcome, Payload, TaskId};

/// One element of the column `labels` for a label's name: JSON, because a value may have any character in it,
/// also the ones that a database cannot keep or that separate elements.
pub(super) fn label_name(name: &Name) -> String {
    serde_json::Value::from(name.as_str()).to_string()
}

/// One element of the column `labels` for a label.
pub(super) fn label(name: &Name, value: &str) -> String {
    serde_json::Value::from(vec![name.as_str(), value]).to_string()
}

/// The columns of a report: JSON without the bytes of the output, those, and whether it is an outcome.
pub(super) fn said(said: &Said) -> Result<(String, Option<&[u8]>, bool)> {
    let json = serde_json::to_string(said).map_err(|e| Error::invalid(format!("a report as JSON: {e}")))?;
    let output = match said {
        Said::Ended(Outcome::Succeeded(Some(output))) => Some(output.as_bytes()),
        _ => None,
    };
    Ok((json, output, matches!(said, Said::Ended(_))))
}

/// Puts a report together from [`said`]'s columns.
pub(super) fn report(id: TaskId, execution: u64, json: &[u8], output: Option<&[u8]>) -> Result<Report> {
    let mut said = serde_json::from_slice(json).map_err(|e| unreadable("report", e))?;
    if let Said::Ended(Outcome::Succeeded(place)) = &mut said {
        *place = output.map(Payload::from_bytes);
    }
    Ok(Report { id, execution, said })
}

/// Reads a queue's settings.
pub(super) fn settings(json: &[u8]) -> Result<QueueSettings> {
    serde_json::from_slice(json).map_err(|e| unreadable("settings of a queue", e))
}
