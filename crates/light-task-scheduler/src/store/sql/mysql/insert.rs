//! Taking tasks in.

use std::collections::HashMap;

use sqlx::Row;

use super::lanes;
use super::rows::nice;
use super::tx::{Tx, text, texts};
use crate::clock::Timestamp;
use crate::database::mysql::sql::parts;
use crate::database::mysql::{Trouble, Work};
use crate::error::Result;
use crate::store::sql::codec::{self, READY, SCHEDULED, options_json, unreadable};
use crate::store::sql::incoming::{Incoming, Known, sort_out};
use crate::store::sql::lanes::Lane;
use crate::store::sql::texts::{label, label_name};
use crate::store::{Inserted, TOMBSTONE_TTL};
use crate::task::{Name, NewTask, Options, Payload, Start, State, TaskId};

// What is known of ids: the tasks that have them, and the tombstones of those that had them.
const TASKS: &str = "SELECT t.id, l.kind, t.payload, t.stage FROM {p}tasks AS t FORCE INDEX (tasks_id)
    JOIN {p}lanes AS l ON l.id = t.lane WHERE t.id IN ({*?*})";
const TOMBSTONES: &str = "SELECT id, fingerprint, removed_at FROM {p}tombstones WHERE id IN ({*?*})";
// The same as they are now, also in a transaction of somebody else's that sees an older state.
const TASKS_NOW: &str = "SELECT t.id, l.kind, t.payload, t.stage FROM {p}tasks AS t FORCE INDEX (tasks_id)
    JOIN {p}lanes AS l ON l.id = t.lane WHERE t.id IN ({*?*}) LOCK IN SHARE MODE";
const TOMBSTONES_NOW: &str =
    "SELECT id, fingerprint, removed_at FROM {p}tombstones WHERE id IN ({*?*}) LOCK IN SHARE MODE";
const FORGET: &str = "DELETE FROM {p}tombstones WHERE id IN ({*?*})";
const INSERT: &str =
    "INSERT INTO {p}tasks (id, lane, stage, nice, run_at, created_at, payload, deadline, options, labels)
    VALUES {*(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)*}";

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
    let now = tx.now().await?;
    let known = known(tx, incoming, look, now).await?;
    let (answers, new) = sort_out(incoming, &known);
    if !new.is_empty() {
        make_rows(tx, &new, now).await?;
    }
    Ok(answers)
}

/// Looks up the ids that others may have used. Tombstones that are too old are removed.
async fn known(tx: &mut Tx<'_>, incoming: &[Incoming], look: Look, now: Timestamp) -> Work<HashMap<TaskId, Known>> {
    let given = texts(incoming.iter().filter(|one| !one.fresh).map(|one| &one.id));
    let mut known = HashMap::new();
    let (tasks, tombstones) = match look {
        Look::Plain => (TASKS, TOMBSTONES),
        Look::Locking => (TASKS_NOW, TOMBSTONES_NOW),
    };
    let mut forgotten = Vec::new();
    // In this order, so that a task that is removed in between is found as one or the other. A task comes second: it
    // may have been taken in under the id of a tombstone that was too old.
    let found = tx.find_all(tasks, &given).await?;
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
        known.entry(TaskId::new(text(row.try_get(0)?)?)?).or_insert(task);
    }
    tx.for_all(FORGET, &forgotten).await?;
    Ok(known)
}

/// Makes rows. Others may have used one of the ids in the meantime: then all is tried again.
async fn make_rows(tx: &mut Tx<'_>, new: &[&Incoming], now: Timestamp) -> Work<()> {
    let lanes = numbers(tx, new).await?;
    let rows = new.iter().zip(lanes).map(|(one, lane)| NewRow::of(one, lane, now)).collect::<Result<Vec<_>>>()?;
    for part in parts(&rows, NewRow::bytes) {
        let mut query = tx.rows(INSERT, part.len());
        for row in part {
            query = query
                .bind(row.id.as_bytes().to_vec())
                .bind(row.lane)
                .bind(row.stage)
                .bind(row.nice)
                .bind(row.run_at.as_micros())
                .bind(now.as_micros())
                .bind(row.payload.as_bytes())
                .bind(row.deadline)
                .bind(row.options.as_ref().map(|json| json.as_bytes().to_vec()))
                .bind(row.labels.as_ref().map(|labels| labels.as_bytes().to_vec()));
        }
        query.execute(tx.connection()).await?;
    }
    let given = texts(new.iter().filter(|one| !one.fresh).map(|one| &one.id));
    // From now on nobody can use these ids, so that this sees whoever has inserted and removed one before.
    if !tx.find_all(TOMBSTONES_NOW, &given).await?.is_empty() {
        return Err(Trouble::Again);
    }
    tx.hint.work |= new.iter().any(|one| one.task.start != Start::Held);
    Ok(())
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
    id: String,
    lane: i32,
    stage: i64,
    nice: i32,
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
            id: one.id.to_string(),
            lane,
            stage,
            nice: nice(*priority),
            run_at,
            payload,
            deadline: options.and_then(|options| options.deadline).map(Timestamp::as_micros),
            options: options.map(options_json).transpose()?,
            labels: options.filter(|options| !options.labels.is_empty()).map(labels),
        })
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
