//! What owners, operators and executions say, as arguments of scripts, and the scripts' answers.

use std::sync::LazyLock;

use redis::{Cmd, Value};
use serde::Serialize;

use super::rows;
use crate::clock::Timestamp;
use crate::database::redis::error::unreadable;
use crate::database::redis::values::bytes;
use crate::error::{Error, Result};
use crate::state::{Command, Event, Refusal, RunEvent, step};
use crate::store::{Answer, Change, Report, Said};
use crate::task::{Failure, FailureKind, Outcome, Record, ReplicaId, ResultRef, State, TaskId, Token};

/// The failures that scripts write by themselves, as JSON; their words are those of [`step`].
struct Words {
    expired: String,
    cancelled_early: String,
    cancelled: String,
    cancelled_after_success: String,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let expired = Event::Expire { deadline: Timestamp::default() };
    Words {
        expired: words(Record::default(), expired),
        cancelled_early: words(Record::default(), Event::Command(Command::Cancel)),
        cancelled: cancelled_instead(RunEvent::Cancelled),
        cancelled_after_success: cancelled_instead(RunEvent::Outcome(None)),
    }
});

/// The failure that an event leaves in a record.
fn words(mut record: Record, event: Event) -> String {
    // Legal by the choice of record and event; else there is no failure, and an empty text says so.
    let _ = step(&mut record, event, Timestamp::default());
    record.failure().and_then(|failure| serde_json::to_string(failure).ok()).unwrap_or_default()
}

/// The failure of a task that was cancelled before its run reported this.
fn cancelled_instead(event: RunEvent) -> String {
    let owner = ReplicaId::from_bytes([0; 16]);
    let record = Record { state: State::Running, cancel_requested: true, owner: Some(owner), ..Record::default() };
    words(record, Event::Run(Token { owner, run: 0 }, event))
}

/// Adds what `step.lua` expects.
pub(super) fn add_words(command: &mut Cmd) {
    command.arg(&WORDS.expired).arg(&WORDS.cancelled_early);
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::invalid(format!("not to be written as JSON: {e}")).with_source(e))
}

/// Adds what `apply.lua` expects before the changes.
pub(super) fn add_apply_words(command: &mut Cmd) {
    command.arg(&WORDS.cancelled).arg(&WORDS.cancelled_after_success);
}

/// The name of an event in `apply.lua`.
fn event_name(event: &RunEvent) -> &'static str {
    match event {
        RunEvent::Started(Some(_)) => "S",
        RunEvent::Started(None) => "N",
        RunEvent::Progress(_) => "P",
        RunEvent::StopUnconfirmed => "U",
        RunEvent::Outcome(Some(_)) => "O",
        RunEvent::Outcome(None) => "E",
        RunEvent::Complete(ResultRef::Inline(bytes)) if rows::is_large(bytes.as_bytes()) => "c",
        RunEvent::Complete(ResultRef::Inline(_)) => "C",
        RunEvent::Complete(ResultRef::Stored { .. }) => "D",
        RunEvent::Retry(..) => "R",
        RunEvent::Release(..) => "L",
        RunEvent::Fail(_) => "F",
        RunEvent::Cancelled => "X",
    }
}

/// Whether two changes go into one group of `apply.lua`.
pub(super) fn are_alike(one: &Change, other: &Change) -> bool {
    one.token == other.token && event_name(&one.event) == event_name(&other.event)
}

/// Adds changes that are alike; there is at least one.
pub(super) fn add_group(command: &mut Cmd, group: &[Change]) -> Result<()> {
    let Change { token, event, .. } = &group[0];
    command.arg(event_name(event)).arg(token.owner.to_string()).arg(token.run).arg(group.len());
    for change in group {
        change.id.with_str(|id| _ = command.arg(id));
        add_arguments(command, &change.event)?;
    }
    Ok(())
}

fn add_arguments(command: &mut Cmd, event: &RunEvent) -> Result<()> {
    match event {
        RunEvent::Started(Some(handle)) => _ = command.arg(handle.as_str()),
        RunEvent::Progress(progress) => _ = command.arg(json(progress)?),
        RunEvent::Outcome(Some(bytes)) | RunEvent::Complete(ResultRef::Inline(bytes)) => {
            _ = command.arg(bytes.as_bytes())
        }
        RunEvent::Complete(result @ ResultRef::Stored { key, .. }) => _ = command.arg(json(result)?).arg(key.as_str()),
        RunEvent::Retry(at, failure) | RunEvent::Release(at, failure) => {
            add_failure(command, Some(*at), failure, event)?
        }
        RunEvent::Fail(failure) => add_failure(command, None, failure, event)?,
        RunEvent::Started(None) | RunEvent::StopUnconfirmed | RunEvent::Outcome(None) | RunEvent::Cancelled => {}
    }
    Ok(())
}

fn add_failure(command: &mut Cmd, at: Option<Timestamp>, failure: &Failure, event: &RunEvent) -> Result<()> {
    let at = at.map(|at| at.as_micros().to_string()).unwrap_or_default();
    command.arg(at).arg(kind_name(failure.kind)?).arg(json(failure)?).arg(cancelled_instead(event.clone()));
    Ok(())
}

/// The name of a kind of failure, as in its JSON.
fn kind_name(kind: FailureKind) -> Result<String> {
    Ok(json(&kind)?.trim_matches('"').to_owned())
}

/// What of an event may be large.
pub(super) fn size(event: &RunEvent) -> usize {
    match event {
        RunEvent::Outcome(Some(bytes)) | RunEvent::Complete(ResultRef::Inline(bytes)) => bytes.len(),
        RunEvent::Retry(_, failure) | RunEvent::Release(_, failure) | RunEvent::Fail(failure) => {
            2 * failure.message.len()
        }
        _ => 0,
    }
}

/// The name of a command in `command.lua`.
fn command_name(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Cancel => "cancel",
        Command::Requeue => "requeue",
        Command::RetryExport => "export",
        Command::Delete => "delete",
        Command::Reschedule { .. } => "reschedule",
    }
}

/// Adds what `command.lua` expects of a command.
pub(super) fn add_command(arguments: &mut Cmd, id: &TaskId, command: Command) {
    id.with_str(|id| _ = arguments.arg(id).arg(command_name(command)));
    let (run_at, priority) = match command {
        Command::Reschedule { run_at, priority } => (run_at, priority),
        _ => (None, None),
    };
    arguments.arg(run_at.map(|at| at.as_micros().to_string()).unwrap_or_default());
    arguments.arg(priority.map(|priority| rows::rank(priority).to_string()).unwrap_or_default());
}

/// Adds a report; answers how many bytes its output has.
pub(super) fn add_report(command: &mut Cmd, report: &Report) -> Result<usize> {
    let output = match &report.said {
        Said::Ended(Outcome::Succeeded(Some(output))) => Some(output.as_bytes()),
        _ => None,
    };
    report.id.with_str(|id| command.arg(id).arg(report.execution));
    command.arg(u8::from(matches!(report.said, Said::Ended(_)))).arg(json(&report.said)?);
    command.arg(u8::from(output.is_some())).arg(output.unwrap_or_default());
    Ok(output.map_or(0, <[u8]>::len))
}

/// The answers of a script to so many items: for each a letter, and the number of a state or a space.
pub(super) fn answers<T>(told: &Value, items: usize, read: impl Fn(u8, u8) -> Result<T>) -> Result<Vec<T>> {
    let (told, rest) = bytes(told)?.as_chunks();
    if told.len() != items || !rest.is_empty() {
        return Err(unreadable("an answer"));
    }
    told.iter().map(|&[letter, state]| read(letter, state)).collect()
}

/// The state in an answer.
pub(super) fn state(digit: u8) -> Result<State> {
    State::from_number(digit.wrapping_sub(b'0')).ok_or_else(|| unreadable("an answer"))
}

/// Reads what became of a change or a command.
pub(super) fn answer(letter: u8, digit: u8) -> Result<Answer> {
    Ok(match letter {
        b'a' => Answer::Applied(Some(state(digit)?)),
        b'r' => Answer::Applied(None),
        b'y' => Answer::Already(state(digit)?),
        b'e' => Answer::Refused(Refusal::Ended(state(digit)?)),
        b'i' => Answer::Refused(Refusal::Illegal(state(digit)?)),
        b't' => Answer::Refused(Refusal::TooLate(state(digit)?)),
        b's' => Answer::Refused(Refusal::Stale),
        b'n' => Answer::Refused(Refusal::NotRequested),
        b'm' => Answer::Missing,
        _ => return Err(unreadable("an answer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_get_the_words_of_the_state_machine() {
        assert!(WORDS.expired.contains("deadline") && WORDS.cancelled_early.contains("before it ran"));
        assert!(WORDS.cancelled_after_success.contains("the run had succeeded"));
        let failed = cancelled_instead(RunEvent::Fail(Failure::new(FailureKind::Error, "broken")));
        assert!(failed.contains("the run had ended: broken"), "{failed}");
        assert_eq!(kind_name(FailureKind::Busy).unwrap(), "busy");
        assert_eq!(kind_name(FailureKind::Lost).unwrap(), "lost");
        assert_eq!(kind_name(FailureKind::Export).unwrap(), "export");
    }
}
