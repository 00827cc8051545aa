//! The state machine: the one place that knows which moves are legal and what each does. Pure.
//!
//! ```text
//!            start              claim                outcome               complete
//!   held ──────────▶ waiting ──────────▶ running ──────────────▶ exporting ─────────▶ succeeded
//!     │               │   ▲  ◀────────── │  │ │                    │    ▲                  │
//!     │ cancel,expire │   │ retry,release│  │ └── complete ────────┼────┼───▶ succeeded    │
//!     ▼               ▼   │              │  │ fail                 │    │ retry export     │ requeue
//!   cancelled, failed     │    cancelled ◀──┘ └───▶ failed ◀───────┘────┘                  │
//!                         └──────────────────────── requeue ────────────────────────────────┘
//! ```
//!
//! A store's part is to find the record, call [`step`], and write what it made of it in one atomic
//! operation. [`step`] either changes the record and says how, or leaves it untouched and says why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::task::{
    ATTEMPTS_MAX, Attempt, Details, Failure, FailureKind, Handle, Payload, Progress, Record, ReplicaId, ResultRef,
    State, Token,
};

/// Something that wants to move a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A replica takes it to run it. The store has checked limit, rate and pause.
    Claim {
        /// The replica.
        owner: ReplicaId,
    },
    /// A live replica takes over a task without a living owner. The store has checked that.
    Adopt {
        /// The live replica.
        owner: ReplicaId,
    },
    /// Its deadline passed before it ran.
    Expire {
        /// The deadline.
        deadline: Timestamp,
    },
    /// Its owner reports; valid only with the current token.
    Run(Token, RunEvent),
    /// An operator wishes.
    Command(Command),
}

/// What the owner of a run reports.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// The executor has started it; the handle finds it again.
    Started(Option<Handle>),
    /// How far it has come.
    Progress(Progress),
    /// It was asked to stop and could not be confirmed dead; its slot stays taken.
    StopUnconfirmed,
    /// It has succeeded; the output is to be saved. `None`: any replica can read it by the handle.
    Outcome(Option<Payload>),
    /// It has succeeded and its result is readable.
    Complete(ResultRef),
    /// It ended without success; try again at that time, charged.
    Retry(Timestamp, Failure),
    /// It was interrupted; try again at that time, not charged.
    Release(Timestamp, Failure),
    /// It ended without success for good.
    Fail(Failure),
    /// It was cancelled by wish and is confirmed dead.
    Cancelled,
}

impl RunEvent {
    /// Whether it leads to another state.
    pub(crate) fn moves(&self) -> bool {
        self.target().is_some()
    }

    /// The state this event leads to, if it leads to another.
    fn target(&self) -> Option<State> {
        match self {
            RunEvent::Started(_) | RunEvent::Progress(_) | RunEvent::StopUnconfirmed => None,
            RunEvent::Outcome(_) => Some(State::Exporting),
            RunEvent::Complete(_) => Some(State::Succeeded),
            RunEvent::Retry(..) | RunEvent::Release(..) => Some(State::Waiting),
            RunEvent::Fail(_) => Some(State::Failed),
            RunEvent::Cancelled => Some(State::Cancelled),
        }
    }
}

/// What an operator may wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Let a held task run.
    Start,
    /// Stop it: at once where it waits, as soon as it is confirmed dead where it runs.
    Cancel,
    /// Run a task that has ended again, with a fresh budget of attempts.
    Requeue,
    /// Try again to save the result of a task whose export failed.
    RetryExport,
    /// Remove a held or ended task.
    Delete,
    /// Let a held or waiting task run at another time, or in another order. What is left out stays as it is.
    Reschedule {
        /// Not before this. A time that has passed means now; it lets no task that is due go before others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_at: Option<Timestamp>,
        /// Among the due tasks; it stays for all later attempts too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
    },
}

/// What [`step`] did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moved {
    /// The same event had been applied before; nothing changed.
    pub already: bool,
    /// The task is to be removed.
    pub removed: bool,
    /// The key of a stored result that nobody refers to any more.
    pub garbage: Option<String>,
    /// The priority that the task is to have; it is no part of the record.
    pub priority: Option<i32>,
}

impl Moved {
    fn already() -> Self {
        Moved { already: true, ..Moved::default() }
    }
}

/// Why a move was refused; the record is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The writer does not own the current run. A normal event after a rescue.
    Stale,
    /// The writer's run has ended, and not in the way it reports now.
    Ended(State),
    /// No such move from this state.
    Illegal(State),
    /// The time for it has not come.
    NotDue,
    /// The run has succeeded or ended before the cancellation arrived.
    TooLate(State),
    /// Reported as cancelled, but nobody asked for it.
    NotRequested,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Stale => f.write_str("the writer no longer owns this run"),
            Refusal::Ended(state) => write!(f, "this run has already ended as {state}"),
            Refusal::Illegal(state) => write!(f, "not possible while the task is {state}"),
            Refusal::NotDue => f.write_str("not due yet"),
            Refusal::TooLate(state) => write!(f, "too late: the task is {state}"),
            Refusal::NotRequested => f.write_str("nobody asked to cancel this task"),
        }
    }
}

/// Moves a record, or says why not.
///
/// Repeating an event that has been applied changes nothing and answers `already`.
///
/// ```
/// use light_task_scheduler::state::{Command, Event, Refusal, step};
/// use light_task_scheduler::{Record, State, Timestamp};
///
/// let mut record = Record { state: State::Held, ..Record::default() };
/// step(&mut record, Event::Command(Command::Start), Timestamp::default()).unwrap();
/// assert_eq!(record.state, State::Waiting);
/// let refused = step(&mut record, Event::Command(Command::Delete), Timestamp::default());
/// assert_eq!(refused, Err(Refusal::Illegal(State::Waiting)));
/// ```
pub fn step(record: &mut Record, event: Event, now: Timestamp) -> Result<Moved, Refusal> {
    match event {
        Event::Claim { owner } => claim(record, owner, now),
        Event::Adopt { owner } => adopt(record, owner),
        Event::Expire { deadline } => expire(record, deadline, now),
        Event::Run(token, event) => run(record, token, event, now),
        Event::Command(command) => obey(record, command, now),
    }
}

fn claim(record: &mut Record, owner: ReplicaId, now: Timestamp) -> Result<Moved, Refusal> {
    if record.state != State::Waiting {
        return Err(Refusal::Illegal(record.state));
    }
    if record.run_at > now {
        return Err(Refusal::NotDue);
    }
    record.state = State::Running;
    record.owner = Some(owner);
    record.run += 1;
    record.execution = record.run;
    record.attempt += u32::from(!bug!(AttemptNotCounted));
    record.started_at = Some(now);
    Ok(Moved::default())
}

fn adopt(record: &mut Record, owner: ReplicaId) -> Result<Moved, Refusal> {
    if !record.state.is_owned() {
        return Err(Refusal::Illegal(record.state));
    }
    record.owner = Some(owner);
    record.run += 1;
    Ok(Moved::default())
}

fn expire(record: &mut Record, deadline: Timestamp, now: Timestamp) -> Result<Moved, Refusal> {
    if !matches!(record.state, State::Held | State::Waiting) {
        return Err(Refusal::Illegal(record.state));
    }
    if now < deadline {
        return Err(Refusal::NotDue);
    }
    end(record, State::Failed, now);
    let failure = Failure::new(FailureKind::Deadline, "the deadline passed before the task could run");
    details(record).failure = Some(failure);
    Ok(Moved::default())
}

fn run(record: &mut Record, token: Token, event: RunEvent, now: Timestamp) -> Result<Moved, Refusal> {
    if record.token() != Some(token) && !bug!(NoFenceCheck) {
        return Err(Refusal::Stale);
    }
    match record.state {
        State::Running => running(record, event, now),
        State::Exporting => exporting(record, event, now),
        state => {
            // The owner stays in the row after the end, so that a repeated report is told from a stale one.
            let cancelled_instead = state == State::Cancelled && record.cancel_requested;
            match event.target() {
                Some(State::Waiting) if state == State::Waiting && bug!(RetryAppliedTwice) => {
                    running(record, event, now)
                }
                Some(target) if target == state || cancelled_instead => Ok(Moved::already()),
                _ => Err(Refusal::Ended(state)),
            }
        }
    }
}

fn running(record: &mut Record, event: RunEvent, now: Timestamp) -> Result<Moved, Refusal> {
    match event {
        RunEvent::Started(handle) => details(record).handle = handle,
        RunEvent::Progress(progress) => details(record).progress = Some(progress),
        RunEvent::StopUnconfirmed => record.stop_unconfirmed = true,
        RunEvent::Cancelled if !record.cancel_requested => return Err(Refusal::NotRequested),
        // The flag was stored first: whatever the run reports of its end, the task is cancelled.
        _ if record.cancel_requested && !bug!(SuccessBeatsCancel) => {
            let message = match &event {
                RunEvent::Retry(_, failure) | RunEvent::Release(_, failure) | RunEvent::Fail(failure) => {
                    format!("cancelled; the run had ended: {}", failure.message)
                }
                RunEvent::Outcome(_) | RunEvent::Complete(_) => "cancelled; the run had succeeded".to_owned(),
                _ => "cancelled".to_owned(),
            };
            unsuccessful(record, Failure::new(FailureKind::Cancelled, message), now);
            end(record, State::Cancelled, now);
        }
        RunEvent::Outcome(output) => {
            record.state = State::Exporting;
            record.stop_unconfirmed = false;
            details(record).output = output;
        }
        RunEvent::Complete(result) => complete(record, result, now),
        RunEvent::Retry(at, failure) => {
            record.lost_in_a_row = 0;
            wait(record, at, failure, now);
        }
        RunEvent::Release(at, failure) => {
            record.interruptions += 1;
            record.lost_in_a_row += u32::from(failure.kind == FailureKind::Lost);
            wait(record, at, failure, now);
        }
        RunEvent::Fail(failure) => {
            unsuccessful(record, failure, now);
            end(record, State::Failed, now);
        }
        RunEvent::Cancelled => return Err(Refusal::NotRequested),
    }
    Ok(Moved::default())
}

fn exporting(record: &mut Record, event: RunEvent, now: Timestamp) -> Result<Moved, Refusal> {
    match event {
        RunEvent::Outcome(_) => return Ok(Moved::already()),
        RunEvent::Complete(result) => complete(record, result, now),
        RunEvent::Fail(failure) if bug!(ExportFailureReruns) => wait(record, now, failure, now),
        RunEvent::Fail(failure) => {
            // Output and handle stay: `retry export` needs them.
            let kept = details(record).handle.clone();
            unsuccessful(record, failure, now);
            details(record).handle = kept;
            end(record, State::Failed, now);
        }
        _ => return Err(Refusal::Illegal(State::Exporting)),
    }
    Ok(Moved::default())
}

fn complete(record: &mut Record, result: ResultRef, now: Timestamp) {
    let details = details(record);
    details.result = Some(result);
    details.output = None;
    details.handle = None;
    details.failure = None;
    record.lost_in_a_row = 0;
    end(record, State::Succeeded, now);
}

fn wait(record: &mut Record, at: Timestamp, failure: Failure, now: Timestamp) {
    unsuccessful(record, failure, now);
    record.state = State::Waiting;
    record.stop_unconfirmed = false;
    record.run_at = at;
}

fn end(record: &mut Record, state: State, now: Timestamp) {
    record.state = state;
    record.stop_unconfirmed = false;
    record.finished_at = Some(now);
}

/// Appends the attempt to the row's history and forgets its run.
fn unsuccessful(record: &mut Record, failure: Failure, now: Timestamp) {
    let attempt = record.owner.map(|replica| Attempt {
        attempt: record.attempt,
        execution: record.execution,
        replica,
        started_at: record.started_at.unwrap_or(now),
        ended_at: now,
        failure: failure.clone(),
    });
    let details = details(record);
    // A busy executor says so again and again; that is no history worth keeping.
    if failure.kind != FailureKind::Busy {
        let surplus = (details.attempts.len() + 1).saturating_sub(ATTEMPTS_MAX);
        details.attempts.drain(..surplus);
        details.attempts.extend(attempt);
    }
    details.handle = None;
    details.progress = None;
    details.failure = Some(failure);
}

fn obey(record: &mut Record, command: Command, now: Timestamp) -> Result<Moved, Refusal> {
    let state = record.state;
    match (command, state) {
        (Command::Start, State::Held) => {
            record.state = State::Waiting;
            record.run_at = record.run_at.max(now);
        }
        (Command::Start, State::Waiting) => return Ok(Moved::already()),

        (Command::Cancel, State::Held | State::Waiting) => {
            end(record, State::Cancelled, now);
            details(record).failure = Some(Failure::new(FailureKind::Cancelled, "cancelled before it ran"));
        }
        (Command::Cancel, State::Running) if record.cancel_requested => return Ok(Moved::already()),
        (Command::Cancel, State::Running) => record.cancel_requested = true,
        (Command::Cancel, State::Cancelled) => return Ok(Moved::already()),
        (Command::Cancel, _) => return Err(Refusal::TooLate(state)),

        (Command::Requeue, _) if state.is_terminal() => return Ok(requeue(record, now)),
        (Command::RetryExport, State::Failed) if export_failed(record) => {
            record.state = State::Exporting;
            record.finished_at = None;
            record.owner = None;
        }
        (Command::Delete, State::Held) => return Ok(Moved { removed: true, ..Moved::default() }),
        (Command::Delete, _) if state.is_terminal() => {
            return Ok(Moved { removed: true, garbage: garbage(record), ..Moved::default() });
        }
        (Command::Reschedule { run_at, priority }, State::Held | State::Waiting) => {
            return Ok(reschedule(record, run_at, priority, now));
        }
        _ => return Err(Refusal::Illegal(state)),
    }
    Ok(Moved::default())
}

fn requeue(record: &mut Record, now: Timestamp) -> Moved {
    let moved = Moved { garbage: garbage(record), ..Moved::default() };
    let attempts = record.details.take().map(|details| details.attempts).unwrap_or_default();
    *record = Record {
        state: State::Waiting,
        run_at: now,
        run: if bug!(RunResetByRequeue) { 0 } else { record.run },
        execution: record.execution,
        generation: record.generation + 1,
        ..Record::default()
    };
    if !attempts.is_empty() {
        details(record).attempts = attempts;
    }
    moved
}

/// What is due stays in its place whichever time of the past is wished.
fn reschedule(record: &mut Record, run_at: Option<Timestamp>, priority: Option<i32>, now: Timestamp) -> Moved {
    let at = run_at.unwrap_or(record.run_at).max(now);
    let moves = at != record.run_at.max(now);
    if moves {
        record.run_at = at;
    }
    Moved { already: !moves && priority.is_none(), priority, ..Moved::default() }
}

fn export_failed(record: &Record) -> bool {
    record.failure().is_some_and(|failure| failure.kind == FailureKind::Export)
}

fn garbage(record: &Record) -> Option<String> {
    match record.result() {
        Some(ResultRef::Stored { key, .. }) => Some(key.clone()),
        _ => None,
    }
}

fn details(record: &mut Record) -> &mut Details {
    record.details.get_or_insert_default()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
