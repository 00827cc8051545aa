//! Taking tasks in.

use std::collections::HashMap;

use sqlx::Row;

use super::lanes;
use super::rows::rank;
use super::tx::{Tx, now, texts};
use crate::clock::{Timestamp, micros};
use crate::database::postgres::{Trouble, Work};
use crate::error::Result;
use crate::store::sql::codec::{self, READY, options_json, unreadable};
use crate::store::sql::incoming::{Incoming, Known, sort_out};
use crate::store::sql::lanes::Lane;
use crate::store::sql::plan::Key;
use crate::store::sql::texts::{label, label_name};
use crate::store::{Inserted, TOMBSTONE_TTL};
use crate::task::{Name, NewTask, Options, Payload, Start, TaskId};

// What is known of ids: the tasks that have them, and the tombstones of those that had them.
const KNOWN: &str = concat!(
    "SELECT t.id, l.kind, t.payload, t.stage, NULL::bigint, ",
    now!(),
    " FROM {s}.tasks AS t JOIN {s}.lanes AS l ON l.id = t.lane WHERE t.id = ANY($1)
    UNION ALL SELECT id, NULL, fingerprint, NULL, removed_at, ",
    now!(),
    " FROM {s}.tombstones WHERE id = ANY($1)"
);
const FORGET: &str = "DELETE FROM {s}.tombstones WHERE id = ANY($1)";
const REMOVED_SINCE: &str = "SELECT 1 FROM {s}.tombstones WHERE id = ANY($1) LIMIT 1";
// One time for all. `start`: 0 now, 1 at a time, 2 after a delay, 3 held.
macro_rules! insert {
    ($conflict:literal) => {
        concat!(
            "WITH n AS MATERIALIZED (SELECT ",
            now!(),
            " + $1 AS now)
,
    new AS (INSERT INTO {s}.tasks (id, lane, stage, rank, run_at, created_at, payload, deadline, options, labels)
    SELECT u.id, u.lane, CASE WHEN u.start = 3 THEN 0 WHEN at > n.now THEN -1 ELSE 1 END, u.rank, at, n.now,
        u.payload, u.deadline, u.options, u.labels::text[]
    FROM n, unnest($3::text[], $4::integer[], $5::smallint[], $6::integer[], $7::bigint[], $8::bytea[], $9::bigint[],
        $10::text[], $11::text[]) AS u (id, lane, start, rank, time, payload, deadline, options, labels),
    LATERAL (SELECT CASE u.start WHEN 1 THEN u.time WHEN 2 THEN LEAST(n.now + u.time, GREATEST(n.now, $2)) ELSE n.now END
        AS at) AS due",
            $conflict,
            " RETURNING lane, stage, rank, run_at),
    sums AS (SELECT lane, stage, count(*) AS n, min(rank) AS rank, min(run_at) AS run_at FROM new GROUP BY lane, stage),
    told AS (INSERT INTO {s}.tallies (lane, stage, n) SELECT lane, stage, n FROM sums)
    SELECT lane, stage, n, rank, run_at FROM sums"
        )
    };
}
/// Ids that may be taken.
const INSERT: &str = insert!(" ON CONFLICT (id) DO NOTHING");
/// Ids made here just now. Looking out for a conflict would cost a write of its own for each row.
const INSERT_FRESH: &str = insert!("");

/// Takes tasks in, one answer each.
pub(super) async fn insert(tx: &mut Tx<'_>, incoming: &[Incoming]) -> Work<Vec<Result<Inserted>>> {
    let known = known(tx, incoming).await?;
    let (answers, new) = sort_out(incoming, &known);
    if !new.is_empty() {
        make_rows(tx, &new).await?;
    }
    Ok(answers)
}

/// Looks up the ids that others may have used. Tombstones that are too old are removed.
async fn known(tx: &mut Tx<'_>, incoming: &[Incoming]) -> Work<HashMap<TaskId, Known>> {
    let given = texts(incoming.iter().filter(|one| !one.fresh).map(|one| &one.id));
    let mut known = HashMap::new();
    if given.is_empty() {
        return Ok(known);
    }
    let mut forgotten = Vec::new();
    for row in tx.query(KNOWN).bind(given).fetch_all(tx.connection()).await? {
        let (id, bytes): (&str, &[u8]) = (row.try_get(0)?, row.try_get(2)?);
        let kind: Option<&str> = row.try_get(1)?;
        let found = if let Some(kind) = kind {
            let state = codec::state(row.try_get::<Option<i16>, _>(3)?.unwrap_or_default().into())?;
            Known::Task { kind: Name::new(kind)?, payload: Payload::from_bytes(bytes), state }
        } else {
            let removed_at = row.try_get::<Option<i64>, _>(4)?.ok_or_else(|| unreadable("tombstone", id))?;
            if tx.time(row.try_get(5)?) >= Timestamp::from_micros(removed_at) + TOMBSTONE_TTL {
                forgotten.push(id.to_owned());
                continue;
            }
            Known::Tombstone { hash: bytes.to_vec() }
        };
        known.insert(TaskId::new(id)?, found);
    }
    if !forgotten.is_empty() {
        tx.query(FORGET).bind(forgotten).execute(tx.connection()).await?;
    }
    Ok(known)
}

/// Makes rows. Others may have used one of the ids in the meantime: then all is tried again.
async fn make_rows(tx: &mut Tx<'_>, new: &[&Incoming]) -> Work<()> {
    let lanes = numbers(tx, new).await?;
    let mut columns = Columns::default();
    for (one, lane) in new.iter().zip(lanes) {
        columns.push(one, lane)?;
    }
    let all_fresh = new.iter().all(|one| one.fresh);
    let inserted = columns.insert(tx, if all_fresh { INSERT_FRESH } else { INSERT }).await?;
    if usize::try_from(inserted) != Ok(new.len()) {
        return Err(Trouble::Again);
    }
    let given = texts(new.iter().filter(|one| !one.fresh).map(|one| &one.id));
    if !given.is_empty() {
        // From now on nobody can use these ids, so that this sees whoever has inserted and removed one before.
        let removed = tx.query(REMOVED_SINCE).bind(given).fetch_optional(tx.connection()).await?;
        if removed.is_some() {
            return Err(Trouble::Again);
        }
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

/// The rows to be made, column by column.
#[derive(Default)]
struct Columns<'t> {
    ids: Vec<String>,
    lanes: Vec<i32>,
    starts: Vec<i16>,
    ranks: Vec<i32>,
    times: Vec<i64>,
    payloads: Vec<&'t [u8]>,
    deadlines: Vec<Option<i64>>,
    options: Vec<Option<String>>,
    labels: Vec<Option<String>>,
}

impl<'t> Columns<'t> {
    fn push(&mut self, one: &'t Incoming, lane: i32) -> Result<()> {
        let NewTask { payload, priority, start, options, .. } = &one.task;
        let (start, time) = match start {
            Start::Now => (0, 0),
            Start::At(time) => (1, time.as_micros()),
            // Far from where adding the time overflows.
            Start::After(delay) => (2, micros(*delay).min(Timestamp::MAX.as_micros())),
            Start::Held => (3, 0),
        };
        let options = options.as_deref();
        self.ids.push(one.id.to_string());
        self.lanes.push(lane);
        self.starts.push(start);
        self.ranks.push(rank(*priority));
        self.times.push(time);
        self.payloads.push(payload.as_bytes());
        self.deadlines.push(options.and_then(|options| options.deadline).map(Timestamp::as_micros));
        self.options.push(options.map(options_json).transpose()?);
        self.labels.push(options.filter(|options| !options.labels.is_empty()).map(labels));
        Ok(())
    }

    /// Answers how many rows were made.
    async fn insert(self, tx: &mut Tx<'_>, statement: &'static str) -> Work<i64> {
        let query = tx
            .query(statement)
            .bind(tx.shared.offset())
            .bind(Timestamp::MAX.as_micros())
            .bind(self.ids)
            .bind(self.lanes)
            .bind(self.starts)
            .bind(self.ranks)
            .bind(self.times)
            .bind(self.payloads)
            .bind(self.deadlines)
            .bind(self.options)
            .bind(self.labels);
        let mut made = 0;
        for row in query.fetch_all(tx.connection()).await? {
            let (lane, stage, rank): (i32, i16, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
            made += row.try_get::<i64, _>(2)?;
            if i64::from(stage) == READY {
                let run_at = Timestamp::from_micros(row.try_get(4)?);
                tx.arrived.push((lane, Key { rank, run_at, ..Key::FIRST }));
            }
        }
        Ok(made)
    }
}

/// The column `labels` as PostgreSQL writes arrays: an array of arrays of different lengths cannot be bound.
fn labels(options: &Options) -> String {
    let elements = options.labels.iter().flat_map(|(name, value)| [label_name(name), label(name, value)]);
    let quoted = |element: String| format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", elements.map(quoted).collect::<Vec<_>>().join(","))
}
