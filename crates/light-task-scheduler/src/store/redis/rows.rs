//! Tasks as the fields of a hash; the prelude of the scripts says what each means.

use std::str::FromStr;

use redis::Value;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::driver::redis::error::unreadable;
use crate::driver::redis::values::{bytes, items, text};
use crate::error::Result;
use crate::task::{Attempt, Details, Handle, Name, Options, Payload, Record, ResultRef, Spec, State, Task, TaskId};

/// The names that the tasks of one answer share.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Name>);

/// Fewer than these are looked through.
const NAMES_MAX: usize = 16;

impl Names {
    fn name(&mut self, text: &str) -> Result<Name> {
        if let Some(known) = self.0.iter().find(|name| name.as_str() == text) {
            return Ok(known.clone());
        }
        let name = Name::new(text)?;
        if self.0.len() < NAMES_MAX {
            self.0.push(name.clone());
        }
        Ok(name)
    }
}

/// Reads tasks.
pub(super) fn tasks(value: Value) -> Result<Vec<Task>> {
    let mut names = Names::default();
    items(value)?.into_iter().filter_map(|flat| task(&mut names, flat).transpose()).collect()
}

/// Reads one task from its id, fields and values; `None` if it has no fields. A later field counts.
pub(super) fn task(names: &mut Names, flat: Value) -> Result<Option<Task>> {
    let flat = items(flat)?;
    let Some((id, fields)) = flat.split_first() else { return Err(unreadable("a task")) };
    if fields.is_empty() {
        return Ok(None);
    }
    let mut row = Row::default();
    for pair in fields.chunks_exact(2) {
        row.take(names, text(&pair[0])?, &pair[1])?;
    }
    row.finish(TaskId::new(text(id)?)?).map(Some)
}

#[derive(Default)]
struct Row {
    queue: Option<Name>,
    kind: Option<Name>,
    payload: Option<Payload>,
    priority: i32,
    created_at: Timestamp,
    options: Option<Box<Options>>,
    record: Record,
    details: Details,
}

impl Row {
    fn take(&mut self, names: &mut Names, field: &str, value: &Value) -> Result<()> {
        let record = &mut self.record;
        match field {
            "q" => self.queue = Some(names.name(text(value)?)?),
            "k" => self.kind = Some(names.name(text(value)?)?),
            "p" => self.payload = Some(payload(value)?),
            "pr" => self.priority = parsed(value)?,
            "ca" => self.created_at = time(value)?,
            "o" => self.options = Some(json(value)?),
            "s" => {
                record.state = State::from_number(parsed(value)?).ok_or_else(|| unreadable("the state of a task"))?;
            }
            "c" => record.cancel_requested = true,
            "u" => record.stop_unconfirmed = true,
            "ra" => record.run_at = time(value)?,
            "ow" => record.owner = Some(parsed(value)?),
            "r" => record.run = parsed(value)?,
            "x" => record.execution = parsed(value)?,
            "g" => record.generation = parsed(value)?,
            "a" => record.attempt = parsed(value)?,
            "i" => record.interruptions = parsed(value)?,
            "l" => record.lost_in_a_row = parsed(value)?,
            "sa" => record.started_at = Some(time(value)?),
            "fa" => record.finished_at = Some(time(value)?),
            _ => self.take_detail(field, value)?,
        }
        Ok(())
    }

    fn take_detail(&mut self, field: &str, value: &Value) -> Result<()> {
        let details = &mut self.details;
        match field {
            "h" => details.handle = Some(Handle::new(text(value)?)?),
            "pg" => details.progress = Some(json(value)?),
            "out" => details.output = Some(payload(value)?),
            "ri" => details.result = Some(ResultRef::Inline(payload(value)?)),
            "rr" => details.result = Some(json(value)?),
            "f" => details.failure = Some(json(value)?),
            "at" => details.attempts = text(value)?.lines().map(attempt).collect::<Result<_>>()?,
            // Places, report and what only scripts look at; also what a later release may add.
            _ => {}
        }
        Ok(())
    }

    fn finish(self, id: TaskId) -> Result<Task> {
        let (Some(queue), Some(kind), Some(payload)) = (self.queue, self.kind, self.payload) else {
            return Err(unreadable(&format!("the task {id}")));
        };
        let Row { priority, created_at, options, mut record, details, .. } = self;
        record.details = (details != Details::default()).then(|| Box::new(details));
        let spec = Spec { queue, kind, payload, priority, created_at, options };
        Ok(Task { id, spec, record })
    }
}

fn payload(value: &Value) -> Result<Payload> {
    bytes(value).map(Payload::from_bytes)
}

fn parsed<T: FromStr>(value: &Value) -> Result<T> {
    text(value)?.parse().map_err(|_| unreadable("a field of a task"))
}

fn time(value: &Value) -> Result<Timestamp> {
    parsed(value).map(Timestamp::from_micros)
}

fn json<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_slice(bytes(value)?).map_err(|e| unreadable("a field of a task").with_source(e))
}

/// Reads a line of the history: attempt, execution, replica, started, ended, failure.
fn attempt(line: &str) -> Result<Attempt> {
    let broken = || unreadable("the history of a task");
    let mut words = line.splitn(6, ' ');
    let mut word = || words.next().ok_or_else(broken);
    Ok(Attempt {
        attempt: word()?.parse().map_err(|_| broken())?,
        execution: word()?.parse().map_err(|_| broken())?,
        replica: word()?.parse()?,
        started_at: Timestamp::from_micros(word()?.parse().map_err(|_| broken())?),
        ended_at: Timestamp::from_micros(word()?.parse().map_err(|_| broken())?),
        failure: serde_json::from_str(word()?).map_err(|e| broken().with_source(e))?,
    })
}
