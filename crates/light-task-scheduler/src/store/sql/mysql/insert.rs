//! Taking tasks in.

use std::collections::HashMap;

use sqlx::Row;

use super::aside::{self, New};
use super::lanes;
use super::rows::{self, precedence};
use super::tx::{Tx, now, text, texts};
use crate::clock::Timestamp;
use crate::database::mysql::sql::parts;
use crate::database::mysql::{Trouble, Work};
use crate::error::Result;
use crate::store::sql::codec::{self, READY, SCHEDULED, options_json, unreadable};
use crate::store::sql::ids::{self, Place};
use crate::store::sql::incoming::{Incoming, Known, sort_out};
use crate::store::sql::lanes::Lane;
use crate::store::sql::texts::{label, label_name};
use crate::store::{Inserted, TOMBSTONE_TTL};
use crate::task::{Name, NewTask, Options, Payload, Start, State, TaskId};

/// The time, and how far apart the numbers of rows are.
const NOW: &str = concat!("SELECT ", now!(), ", CAST(@@auto_increment_increment AS SIGNED)");
/// What is known of tasks, which are found among these tables by this column.
macro_rules! tasks {
    ($tables:literal, $column:literal, $lock:literal) => {
        concat!(
            "SELECT t.id, l.kind, t.payload, t.stage, t.seq, t.created_at FROM ",
            $tables,
            " JOIN {p}lanes AS l ON l.id = t.lane WHERE ",
            $column,
            " IN ({*?*})",
            $lock
        )
    };
}
macro_rules! by_id {
    ($lock:literal) => {
        tasks!("{p}ids AS i STRAIGHT_JOIN {p}tasks AS t FORCE INDEX (PRIMARY) ON t.seq = i.task", "i.id", $lock)
    };
}
macro_rules! by_number {
    ($lock:literal) => {
        tasks!("{p}tasks AS t FORCE INDEX (PRIMARY)", "t.seq", $lock)
    };
}
/// The tombstones of tasks that had them.
macro_rules! tombstones {
    ($lock:literal) => {
        concat!("SELECT id, fingerprint, removed_at FROM {p}tombstones WHERE id IN ({*?*})", $lock)
    };
}
/// What is known of ids: by given ids, by numbers, and of removed tasks.
const KNOWN: [&str; 3] = [by_id!(""), by_number!(""), tombstones!("")];
/// The same as they are now, also in a transaction of somebody else's that sees an older state.
const KNOWN_NOW: [&str; 3] =
    [by_id!(" LOCK IN SHARE MODE"), by_number!(" LOCK IN SHARE MODE"), tombstones!(" LOCK IN SHARE MODE")];
const FORGET: &str = "DELETE FROM {p}tombstones WHERE id IN ({*?*})";
const INSERT: &str =
    "INSERT INTO {p}tasks (lane, stage, precedence, run_at, created_at, payload, id, deadline, options, labels)
    VALUES {*(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)*}";
/// The same without what none of the rows has: every value costs both sides.
const INSERT_PLAIN: &str = "INSERT INTO {p}tasks (lane, stage, precedence, run_at, created_at, payload)
    VALUES {*(?, ?, ?, ?, ?, ?)*}";

/// How to look up ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// As they are in what this transaction sees.
    Plain,
    /// As they are now: after another transaction was found to have used one.
    Locking,
}

/// Takes tasks in, one answer each.
pub(super) async fn insert(tx: &mut Tx<'_>, incoming: &[Incoming], look: Look) -> Work<Vec<Result<Inserted>>> {
    let row = tx.query(NOW).fetch_one(tx.connection()).await?;
    let (now, step) = (tx.time(row.try_get(0)?), row.try_get(1)?);
    let known = known(tx, incoming, look, now).await?;
    let sorted = sort_out(incoming, &known);
    let seqs = if sorted.new.is_empty() { Vec::new() } else { make_rows(tx, &sorted.new, now, step).await? };
    let salt = tx.shared.salt;
    Ok(sorted.answers(seqs.into_iter().map(|seq| ids::id(salt, Place { seq, created_at: now }))))
}

/// Looks up the ids that others may have used. Tombstones that are too old are removed.
async fn known(tx: &mut Tx<'_>, incoming: &[Incoming], look: Look, now: Timestamp) -> Work<HashMap<TaskId, Known>> {
    let given = texts(incoming.iter().filter_map(|one| one.id.as_ref()));
    let mut known = HashMap::new();
    let [tasks, made, tombstones] = match look {
        Look::Plain => KNOWN,
        Look::Locking => KNOWN_NOW,
    };
    let place = |one: &Incoming| Some(ids::place(tx.shared.salt, one.id.as_ref()?)?.seq);
    let mut seqs: Vec<i64> = incoming.iter().filter_map(place).collect();
    seqs.sort_unstable();
    let mut forgotten = Vec::new();
    // In this order, so that a task that is removed in between is found as one or the other. A task comes second: it
    // may have been taken in under the id of a tombstone that was too old.
    let mut found = tx.find_all(tasks, &given).await?;
    found.append(&mut tx.find_all(made, &seqs).await?);
    for row in tx.find_all(tombstones, &given).await? {
        let id: &[u8] = row.try_get(0)?;
        if now >= Timestamp::from_micros(row.try_get(2)?) + TOMBSTONE_TTL {
            forgotten.push(id.to_vec());
        } else {
            known.insert(TaskId::new(text(id)?)?, Known::Tombstone { hash: row.try_get(1)? });
        }
    }
    for row in &found {
        let task = Known::Task {
            kind: Name::new(text(row.try_get(1)?)?)?,
            payload: Payload::from_bytes(row.try_get::<&[u8], _>(2)?),
            state: codec::state(row.try_get(3)?)?,
        };
        known.entry(rows::id(tx.shared.salt, row, [0, 4, 5])?).or_insert(task);
    }
    tx.for_all(FORGET, &forgotten).await?;
    Ok(known)
}

/// Makes rows, and answers the numbers of those that have no given id; the server's numbers are `step` apart. Others may
/// have used one of the ids in the meantime: then all is tried again.
async fn make_rows(tx: &mut Tx<'_>, new: &[&Incoming], now: Timestamp, step: i64) -> Work<Vec<i64>> {
    let lanes = numbers(tx, new).await?;
    let rows = new.iter().zip(lanes).map(|(one, lane)| NewRow::of(one, lane, now)).collect::<Result<Vec<_>>>()?;
    let (mut made, mut aside) = (Vec::with_capacity(new.len()), New::default());
    for part in parts(&rows, NewRow::bytes) {
        let are_plain = part.iter().all(NewRow::is_plain);
        let mut query = tx.rows(if are_plain { INSERT_PLAIN } else { INSERT }, part.len());
        for row in part {
            query = query
                .bind(row.lane)
                .bind(row.stage)
                .bind(row.precedence)
                .bind(row.run_at.as_micros())
                .bind(now.as_micros())
                .bind(row.payload.as_bytes());
            if are_plain {
                continue;
            }
            query = query
                .bind(row.id.map(|id| id.with_str(|id| id.as_bytes().to_vec())))
                .bind(row.deadline)
                .bind(row.options.as_ref().map(|json| json.as_bytes().to_vec()))
                .bind(row.labels.as_ref().map(|labels| labels.as_bytes().to_vec()));
        }
        // Of rows that are written out in one statement the numbers follow one another, and the first one is told.
        let seqs = (query.execute(tx.connection()).await?.last_insert_id().cast_signed()..).step_by(step as usize);
        for (row, seq) in part.iter().zip(seqs) {
            match row.id {
                None => made.push(seq),
                Some(_) => aside.with_id.push(seq),
            }
            if row.deadline.is_some() {
                aside.with_deadline.push(seq);
            }
            if aside::is_rare(row.stage) {
                aside.rare.push(seq);
            }
        }
    }
    aside::keep(tx, &aside).await?;
    let given = texts(new.iter().filter_map(|one| one.id.as_ref()));
    // From now on nobody can use these ids, so that this sees whoever has inserted and removed one before.
    if !tx.find_all(KNOWN_NOW[2], &given).await?.is_empty() {
        return Err(Trouble::Again);
    }
    tx.hint.work |= new.iter().any(|one| one.task.start != Start::Held);
    Ok(made)
}

/// The lanes of these tasks. Only a task that is really taken in may make a lane.
async fn numbers(tx: &mut Tx<'_>, new: &[&Incoming]) -> Work<Vec<i32>> {
    let mut lanes: HashMap<(&Name, &Name), Option<i32>> = HashMap::new();
    let mut missing = Vec::new();
    for NewTask { queue, kind, .. } in new.iter().map(|one| &one.task) {
        lanes.entry((queue, kind)).or_insert_with(|| {
            let lane = Lane { queue: queue.clone(), kind: kind.clone() };
            let number = tx.shared.lanes.number(&lane);
            if number.is_none() {
                missing.push(lane);
            }
            number
        });
    }
    let made = if missing.is_empty() { Vec::new() } else { lanes::make(tx, &missing).await? };
    for (number, lane) in &made {
        if let Some(place) = lanes.get_mut(&(&lane.queue, &lane.kind)) {
            *place = Some(*number);
        }
    }
    let number = |one: &&Incoming| {
        let known = lanes.get(&(&one.task.queue, &one.task.kind)).copied().flatten();
        known.ok_or_else(|| unreadable("lane", "it was not made").into())
    };
    let numbers = new.iter().map(number).collect();
    tx.made.extend(made);
    numbers
}

/// A row to be made.
struct NewRow<'t> {
    /// If it was given.
    id: Option<&'t TaskId>,
    lane: i32,
    stage: i64,
    precedence: i32,
    run_at: Timestamp,
    payload: &'t Payload,
    deadline: Option<i64>,
    options: Option<String>,
    labels: Option<String>,
}

impl<'t> NewRow<'t> {
    fn of(one: &'t Incoming, lane: i32, now: Timestamp) -> Result<Self> {
        let NewTask { payload, priority, start, options, .. } = &one.task;
        let run_at = match start {
            Start::Now | Start::Held => now,
            Start::At(time) => *time,
            Start::After(delay) => now + *delay,
        };
        let stage = match start {
            Start::Held => State::Held as i64,
            _ if run_at > now => SCHEDULED,
            _ => READY,
        };
        let options = options.as_deref();
        Ok(NewRow {
            id: one.id.as_ref(),
            lane,
            stage,
            precedence: precedence(*priority),
            run_at,
            payload,
            deadline: options.and_then(|options| options.deadline).map(Timestamp::as_micros),
            options: options.map(options_json).transpose()?,
            labels: options.filter(|options| !options.labels.is_empty()).map(labels),
        })
    }

    /// Whether it has nothing but what every row has.
    fn is_plain(&self) -> bool {
        self.id.is_none() && self.options.is_none()
    }

    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.payload.len() + text(&self.options) + text(&self.labels)
    }
}

/// What the column `labels` contains if the task has the label, or the name: an element between two line feeds,
/// which no element has in it.
pub(super) fn element(json: &str) -> String {
    format!("\n{json}\n")
}

/// The column `labels`.
fn labels(options: &Options) -> String {
    let elements = options.labels.iter().flat_map(|(name, value)| [label_name(name), label(name, value)]);
    elements.map(|json| element(&json)).collect()
}
