//! Tasks as bytes; the prelude of the scripts says what is where.

use redis::Value;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{bytes, items, text};
use crate::error::{Error, Result};
use crate::task::{
    Attempt, Details, Handle, Name, NewTask, Options, Payload, Record, ReplicaId, ResultRef, Spec, State, Task, TaskId,
};

/// What an absent time is stored as.
const NEVER: i64 = i64::MIN;
/// A replica's id as text has so many bytes.
const OWNER_BYTES: usize = 36;
/// Tells apart tasks of one id, see [`fingerprint`](crate::task::fingerprint).
const FINGERPRINT_BYTES: usize = 16;
/// The place in the order of claims that priority 0 has.
const RANK_OF_ZERO: i64 = i32::MAX as i64;
/// Separates queue and kind; names have no control characters.
const LANE_SEPARATOR: char = '\n';

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
pub(super) fn lane(task: &NewTask) -> String {
    format!("{}{LANE_SEPARATOR}{}", task.queue, task.kind)
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
    let mut names = Names::default();
    let told = items(value)?;
    told.chunks_exact(TOLD_ITEMS).filter_map(|told| task(&mut names, told).transpose()).collect()
}

/// How many items `tell` in the prelude answers for one task.
pub(super) const TOLD_ITEMS: usize = 5;

/// Reads one task; `None` if there is nothing but its id.
pub(super) fn task(names: &mut Names, told: &[Value]) -> Result<Option<Task>> {
    let [id, record, spec, result, details] = told else { return Err(unreadable("a task")) };
    if bytes(record)?.is_empty() {
        return Ok(None);
    }
    let details = match details {
        Value::Array(details) => details.as_slice(),
        _ => &[],
    };
    let head = head(bytes(record)?)?;
    let (options, payload) = split_spec(bytes(spec)?)?;
    let (queue, kind) = names.lane(head.lane)?;
    let mut record = head.record;
    let mut found = Details::default();
    for pair in details.chunks_exact(2) {
        take_detail(&mut found, text(&pair[0])?, &pair[1])?;
    }
    if head.has_result {
        found.result = Some(ResultRef::Inline(Payload::from_bytes(bytes(result)?)));
    }
    record.details = (found != Details::default()).then(|| Box::new(found));
    let spec = Spec { queue, kind, payload, priority: head.priority, created_at: head.created_at, options };
    Ok(Some(Task { id: TaskId::new(text(id)?)?, spec, record }))
}

struct Head<'a> {
    record: Record,
    has_result: bool,
    priority: i32,
    created_at: Timestamp,
    lane: &'a str,
}

/// Reads a record: the order of the parts is that of `FORMAT` in the prelude.
fn head(bytes: &[u8]) -> Result<Head<'_>> {
    let mut rest = Reader(bytes);
    let state = State::from_number(rest.byte()?).ok_or_else(broken)?;
    let (cancel_requested, stop_unconfirmed) = (rest.byte()? == 1, rest.byte()? == 1);
    let (_has_details, has_result) = (rest.byte()?, rest.byte()? == 1);
    let (_insertion, rank) = (rest.long()?, rest.int()?);
    let (run_at, _deadline, created_at) = (rest.time()?, rest.time()?, rest.time()?);
    let (owner, _claim) = (rest.owner()?, rest.long()?);
    let (run, execution) = (rest.long()?, rest.long()?);
    let (generation, attempt, interruptions, lost_in_a_row) = (rest.int()?, rest.int()?, rest.int()?, rest.int()?);
    let (started_at, finished_at) = (rest.time()?, rest.time()?);
    rest.take::<FINGERPRINT_BYTES>()?;
    let record = Record {
        state,
        cancel_requested,
        stop_unconfirmed,
        run_at: run_at.ok_or_else(broken)?,
        owner,
        run,
        execution,
        generation,
        attempt,
        interruptions,
        lost_in_a_row,
        started_at,
        finished_at,
        details: None,
    };
    let priority = i32::try_from(RANK_OF_ZERO - i64::from(rank)).map_err(|_| broken())?;
    let lane = std::str::from_utf8(rest.0).map_err(|_| broken())?;
    Ok(Head { record, has_result, priority, created_at: created_at.ok_or_else(broken)?, lane })
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

    fn byte(&mut self) -> Result<u8> {
        self.take().map(|[byte]| *byte)
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

    fn owner(&mut self) -> Result<Option<ReplicaId>> {
        let bytes: &[u8; OWNER_BYTES] = self.take()?;
        if bytes[0] == 0 {
            return Ok(None);
        }
        std::str::from_utf8(bytes).map_err(|_| broken())?.parse().map(Some)
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
        for len in [0, 1, 60, 148, 149] {
            assert!(head(&vec![0; len]).is_err() || len == 149, "{len} bytes");
        }
        assert!(head(&[9; 160]).is_err(), "no such state");
        assert!(split_spec(&[0, 0, 0, 9, 1]).is_err());
    }

    #[test]
    fn every_priority_has_its_rank() {
        assert_eq!((rank(i32::MAX), rank(0), rank(i32::MIN)), (0, RANK_OF_ZERO, i64::from(u32::MAX)));
    }
}
