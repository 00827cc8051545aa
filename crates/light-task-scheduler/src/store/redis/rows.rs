//! Tasks as bytes; the prelude of the scripts says what is where.

use redis::Value;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{array, bytes, items, number, text};
use crate::error::{Error, Result};
use crate::task::{
    Attempt, Details, Handle, Name, NewTask, Options, Payload, Record, ReplicaId, ResultRef, Spec, State, Task, TaskId,
};

/// What an absent time is stored as.
const NEVER: i64 = i64::MIN;
/// Tells apart tasks of one id, see [`fingerprint`](crate::task::fingerprint).
const FINGERPRINT_BYTES: usize = 16;
/// The place in the order of claims that priority 0 has.
const RANK_OF_ZERO: i64 = i32::MAX as i64;
/// Separates queue and kind; names have no control characters.
const LANE_SEPARATOR: char = '\n';
/// What is longer is kept beside the record. A script pays for every byte of a record whenever it moves the task, about
/// as much for these in all as for what is kept apart.
const IN_RECORD_BYTES_MAX: usize = 200;

/// Whether a spec or a result is kept beside the record.
pub(super) fn is_large(bytes: &[u8]) -> bool {
    bytes.len() > IN_RECORD_BYTES_MAX
}

/// The names that the tasks of one answer share.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(String, Name, Name)>);

/// Fewer than these are looked through.
const NAMES_MAX: usize = 16;

impl Names {
    /// Queue and kind of a lane.
    fn lane(&mut self, text: &str) -> Result<(Name, Name)> {
        if let Some((_, queue, kind)) = self.0.iter().find(|known| known.0 == text) {
            return Ok((queue.clone(), kind.clone()));
        }
        let (queue, kind) = text.split_once(LANE_SEPARATOR).ok_or_else(|| unreadable("the lane of a task"))?;
        let (queue, kind) = (Name::new(queue)?, Name::new(kind)?);
        if self.0.len() < NAMES_MAX {
            self.0.push((text.to_owned(), queue.clone(), kind.clone()));
        }
        Ok((queue, kind))
    }
}

/// Queue and kind as scripts have them.
pub(super) fn lane(queue: &Name, kind: &Name) -> String {
    format!("{queue}{LANE_SEPARATOR}{kind}")
}

/// The place in the order of claims: the higher priority has the lower one.
pub(super) fn rank(priority: i32) -> i64 {
    RANK_OF_ZERO - i64::from(priority)
}

/// What never changes and no script looks at but for labels: length of the options, options, payload.
pub(super) fn spec(task: &NewTask) -> Result<Vec<u8>> {
    let options = task.options.as_ref().map(serde_json::to_vec).transpose();
    let options = options.map_err(|e| Error::invalid(format!("options as JSON: {e}")))?.unwrap_or_default();
    let length = u32::try_from(options.len()).map_err(|_| Error::invalid("the options are too long"))?;
    Ok([&length.to_be_bytes()[..], &options, task.payload.as_bytes()].concat())
}

/// Reads tasks.
pub(super) fn tasks(value: Value) -> Result<Vec<Task>> {
    Ok(found(value)?.into_iter().flatten().collect())
}

/// Reads what `tell` in the prelude answers: tasks, `None` where there is nothing but an id.
pub(super) fn found(value: Value) -> Result<Vec<Option<Task>>> {
    let [ids, records, numbers, moves, rest] = array(value)?;
    let (ids, records, numbers, moves) = (items(ids)?, items(records)?, items(numbers)?, items(moves)?);
    if records.len() != ids.len() || numbers.len() != ids.len() {
        return Err(broken());
    }
    let moves = moves.iter().map(|one| Move::read(bytes(one)?)).collect::<Result<Vec<_>>>()?;
    let (mut names, mut rest, mut found) =
        (Names::default(), Rest(items(rest)?.into_iter()), Vec::with_capacity(ids.len()));
    for ((id, record), place) in ids.iter().zip(&records).zip(&numbers) {
        let stored = match bytes(record)? {
            [] => None,
            record => Some(Stored::read(record)?),
        };
        let moved = number::<usize>(place)?.checked_sub(1).map(|at| moves.get(at).ok_or_else(broken)).transpose()?;
        let task = stored.map(|stored| task(&mut names, id, stored, moved, &mut rest)).transpose()?;
        found.push(task);
    }
    Ok(found)
}

/// What is still to be read of what is beside records.
struct Rest(std::vec::IntoIter<Value>);

impl Rest {
    /// The next one, if it was announced.
    fn next_if(&mut self, is_there: bool) -> Result<Option<Value>> {
        is_there.then(|| self.0.next().ok_or_else(broken)).transpose()
    }
}

fn task(names: &mut Names, id: &Value, stored: Stored<'_>, moved: Option<&Move<'_>>, rest: &mut Rest) -> Result<Task> {
    let Stored { head, priority, run_at, created_at, spec } = stored;
    let head = moved.map_or(&head, |moved| &moved.head);
    let mut record = head.record.clone();
    record.run_at = moved.and_then(|moved| moved.run_at).unwrap_or(run_at);
    let (spec_apart, result_apart) = (rest.next_if(head.has(SPEC_APART))?, rest.next_if(head.has(RESULT_APART))?);
    let mut found = Details::default();
    if let Some(details) = rest.next_if(head.has(DETAILS))? {
        for pair in items(details)?.chunks_exact(2) {
            take_detail(&mut found, text(&pair[0])?, &pair[1])?;
        }
    }
    let result = moved.and_then(|moved| moved.result);
    if let Some(result) = result_apart.as_ref().map(bytes).transpose()?.or(result) {
        found.result = Some(ResultRef::Inline(Payload::from_bytes(result)));
    }
    record.details = (found != Details::default()).then(|| Box::new(found));
    let (options, payload) = split_spec(spec_apart.as_ref().map(bytes).transpose()?.unwrap_or(spec))?;
    let (queue, kind) = names.lane(head.lane)?;
    let spec = Spec { queue, kind, payload, priority, created_at, options };
    Ok(Task { id: TaskId::new(text(id)?)?, spec, record })
}

// The flags of a record, as in the prelude.
const CANCEL_REQUESTED: u16 = 1;
const STOP_UNCONFIRMED: u16 = 2;
const DETAILS: u16 = 4;
const SPEC_APART: u16 = 8;
const DEADLINE: u16 = 16;
const RESULT_APART: u16 = 32;
const RESULT_INSIDE: u16 = 64;
const RUN: u16 = 128;
const LATER: u16 = 512;

/// What tasks that have gone the same way have alike.
struct Head<'a> {
    flags: u16,
    /// All but `run_at` and the details.
    record: Record,
    lane: &'a str,
}

impl<'a> Head<'a> {
    /// Reads it, in the order that the prelude describes.
    fn read(rest: &mut Reader<'a>) -> Result<Self> {
        let whole = rest.0.len();
        let head_bytes = usize::from(u16::from_be_bytes(*rest.take()?));
        let [state] = *rest.take()?;
        let flags = u16::from_be_bytes(*rest.take()?);
        let mut head = Head { flags, record: Record::default(), lane: "" };
        head.record.state = State::from_number(state).ok_or_else(broken)?;
        head.record.cancel_requested = head.has(CANCEL_REQUESTED);
        head.record.stop_unconfirmed = head.has(STOP_UNCONFIRMED);
        if head.has(RUN) {
            rest.run(&mut head.record)?;
        }
        let lane_bytes = head_bytes.checked_sub(whole - rest.0.len()).ok_or_else(broken)?;
        head.lane = std::str::from_utf8(rest.slice(lane_bytes)?).map_err(|_| broken())?;
        Ok(head)
    }

    /// Whether a flag is set.
    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Where a task stands that has moved.
struct Move<'a> {
    head: Head<'a>,
    run_at: Option<Timestamp>,
    result: Option<&'a [u8]>,
}

impl<'a> Move<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut rest = Reader(bytes);
        let head = Head::read(&mut rest)?;
        let run_at = if head.has(LATER) { rest.time()? } else { None };
        let result = if head.has(RESULT_INSIDE) {
            let length = usize::from(u16::from_be_bytes(*rest.take()?));
            Some(rest.slice(length)?)
        } else {
            None
        };
        Ok(Move { head, run_at, result })
    }
}

/// What a task is, and where it stood first.
struct Stored<'a> {
    head: Head<'a>,
    priority: i32,
    run_at: Timestamp,
    created_at: Timestamp,
    /// Empty if it is apart.
    spec: &'a [u8],
}

impl<'a> Stored<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut rest = Reader(bytes);
        let head = Head::read(&mut rest)?;
        let (_insertion, rank) = (rest.long()?, rest.int()?);
        let (run_at, created_at) = (rest.time()?.ok_or_else(broken)?, rest.time()?.ok_or_else(broken)?);
        if head.has(DEADLINE) {
            rest.time()?;
        }
        rest.take::<FINGERPRINT_BYTES>()?;
        let priority = i32::try_from(RANK_OF_ZERO - i64::from(rank)).map_err(|_| broken())?;
        Ok(Stored { head, priority, run_at, created_at, spec: rest.0 })
    }
}

fn broken() -> Error {
    unreadable("the record of a task")
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const LEN: usize>(&mut self) -> Result<&'a [u8; LEN]> {
        let (part, rest) = self.0.split_first_chunk().ok_or_else(broken)?;
        self.0 = rest;
        Ok(part)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length).ok_or_else(broken)?;
        self.0 = rest;
        Ok(part)
    }

    fn int(&mut self) -> Result<u32> {
        self.take().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn long(&mut self) -> Result<u64> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn time(&mut self) -> Result<Option<Timestamp>> {
        let micros = self.take().map(|bytes| i64::from_be_bytes(*bytes))?;
        Ok((micros != NEVER).then(|| Timestamp::from_micros(micros)))
    }

    /// What only a task has that was ever claimed.
    fn run(&mut self, record: &mut Record) -> Result<()> {
        let owner: &[u8; 16] = self.take()?;
        record.owner = (*owner != [0; 16]).then(|| ReplicaId::from_bytes(*owner));
        let _claim = self.long()?;
        (record.run, record.execution) = (self.long()?, self.long()?);
        (record.generation, record.attempt) = (self.int()?, self.int()?);
        (record.interruptions, record.lost_in_a_row) = (self.int()?, self.int()?);
        (record.started_at, record.finished_at) = (self.time()?, self.time()?);
        Ok(())
    }
}

fn split_spec(spec: &[u8]) -> Result<(Option<Box<Options>>, Payload)> {
    let broken = || unreadable("the spec of a task");
    let (length, rest) = spec.split_first_chunk().ok_or_else(broken)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| broken())?;
    let (options, payload) = rest.split_at_checked(length).ok_or_else(broken)?;
    let options = (!options.is_empty()).then(|| serde_json::from_slice(options)).transpose();
    Ok((options.map_err(|e| broken().with_source(e))?, Payload::from_bytes(payload)))
}

fn take_detail(details: &mut Details, field: &str, value: &Value) -> Result<()> {
    match field {
        "h" => details.handle = Some(Handle::new(text(value)?)?),
        "pg" => details.progress = Some(json(value)?),
        "out" => details.output = Some(Payload::from_bytes(bytes(value)?)),
        "rr" => details.result = Some(json(value)?),
        "f" => details.failure = Some(json(value)?),
        "at" => details.attempts = text(value)?.lines().map(attempt).collect::<Result<_>>()?,
        // The report, and what only scripts look at; also what a later release may add.
        _ => {}
    }
    Ok(())
}

fn json<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_slice(bytes(value)?).map_err(|e| unreadable("the details of a task").with_source(e))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_cut_short_is_refused() {
        let lane = b"default\nnoop";
        let head = [0, 5 + u8::try_from(lane.len()).unwrap(), 1, 0, 0];
        let whole = [&head[..], lane, &[0; 8 + 4 + 8 + 8 + FINGERPRINT_BYTES]].concat();
        for len in 0..whole.len() {
            assert!(Stored::read(&whole[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Stored::read(&whole).unwrap().head.lane.as_bytes(), lane);
        assert!(Stored::read(&[&[0, head[1], 9], &whole[3..]].concat()).is_err(), "no such state");
        assert!(split_spec(&[0, 0, 0, 9, 1]).is_err());
    }

    #[test]
    fn every_priority_has_its_rank() {
        assert_eq!((rank(i32::MAX), rank(0), rank(i32::MIN)), (0, RANK_OF_ZERO, i64::from(u32::MAX)));
    }
}
