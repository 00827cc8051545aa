//! Taking tasks in.

use std::collections::HashMap;

use sqlx::Row;

use super::lanes;
use super::rows::{self, rank};
use super::tx::{Statement, Tx, has_id, now};
use crate::clock::{Timestamp, micros};
use crate::database::postgres::{Trouble, Work};
use crate::error::Result;
use crate::store::sql::codec::{self, READY, options_json, unreadable};
use crate::store::sql::ids::{self, Place};
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
    ", t.seq, t.created_at FROM {s}.tasks AS t JOIN {s}.lanes AS l ON l.id = t.lane WHERE ",
    has_id!(),
    " UNION ALL SELECT id, NULL, fingerprint, NULL, removed_at, ",
    now!(),
    ", NULL, NULL FROM {s}.tombstones WHERE id = ANY($2)"
);
const FORGET: &str = "DELETE FROM {s}.tombstones WHERE id = ANY($1)";
const REMOVED_SINCE: &str = "SELECT 1 FROM {s}.tombstones WHERE id = ANY($1) LIMIT 1";
// One time for all. `start`: 0 now, 1 at a time, 2 after a delay, 3 held.
const INSERT: &str = concat!(
    "WITH n AS MATERIALIZED (SELECT ",
    now!(),
    " + $1 AS now),
    new AS (INSERT INTO {s}.tasks (id, lane, stage, rank, run_at, created_at, payload, deadline, options, labels)
    SELECT u.id, u.lane, CASE WHEN u.start = 3 THEN 0 WHEN at > n.now THEN -1 ELSE 1 END, u.rank, at, n.now,
        u.payload, u.deadline, u.options, u.labels::text[]
    FROM n, unnest($3::text[], $4::integer[], $5::smallint[], $6::integer[], $7::bigint[], $8::bytea[], $9::bigint[],
        $10::text[], $11::text[]) AS u (id, lane, start, rank, time, payload, deadline, options, labels),
    LATERAL (SELECT CASE u.start WHEN 1 THEN u.time WHEN 2 THEN LEAST(n.now + u.time, GREATEST(n.now, $2)) ELSE n.now END
        AS at) AS due
    ON CONFLICT (id) WHERE id IS NOT NULL DO NOTHING RETURNING lane, stage, rank, run_at, id, seq),
    sums AS (SELECT lane, stage, count(*) AS n, min(rank) AS rank, min(run_at) AS run_at FROM new GROUP BY lane, stage),
    told AS (INSERT INTO {s}.tallies (lane, stage, n) SELECT lane, stage, n FROM sums)
    SELECT s.lane, s.stage, s.n, s.rank, s.run_at, n.now, CASE WHEN row_number() OVER () = 1
        THEN (SELECT array_agg(seq) FROM new WHERE id IS NULL) END FROM sums AS s, n"
);
/// Those that differ in nothing but their payloads, which most batches do: now, without an id or options.
const INSERT_ALIKE: &str = concat!(
    "WITH n AS MATERIALIZED (SELECT ",
    now!(),
    " + $1 AS now),
    new AS (INSERT INTO {s}.tasks (lane, stage, rank, run_at, created_at, payload)
        SELECT $2::integer, 1, $3::integer, n.now, n.now, u.payload FROM n, unnest($4::bytea[]) AS u (payload)
        RETURNING seq),
    told AS (INSERT INTO {s}.tallies (lane, stage, n) VALUES ($2, 1, cardinality($4)))
    SELECT $2, 1::smallint, s.n, $3, n.now, n.now, s.seqs FROM (SELECT count(*) AS n, array_agg(seq) AS seqs FROM new) AS s, n"
);

/// Takes tasks in, one answer each.
pub(super) async fn insert(tx: &mut Tx<'_>, incoming: &[Incoming]) -> Work<Vec<Result<Inserted>>> {
    let known = known(tx, incoming).await?;
    let sorted = sort_out(incoming, &known);
    let places = if sorted.new.is_empty() { Vec::new() } else { make_rows(tx, &sorted.new).await? };
    let salt = tx.shared.salt;
    Ok(sorted.answers(places.into_iter().map(|place| ids::id(salt, place))))
}

/// Looks up the ids that others may have used. Tombstones that are too old are removed.
async fn known(tx: &mut Tx<'_>, incoming: &[Incoming]) -> Work<HashMap<TaskId, Known>> {
    let given = incoming.iter().filter_map(|one| one.id.as_ref());
    let mut known = HashMap::new();
    if given.clone().next().is_none() {
        return Ok(known);
    }
    let mut forgotten = Vec::new();
    for row in tx.of_ids(KNOWN, given).fetch_all(tx.connection()).await? {
        let (id, bytes): (_, &[u8]) = (rows::id(tx.shared.salt, &row, [0, 6, 7])?, row.try_get(2)?);
        let kind: Option<&str> = row.try_get(1)?;
        let found = if let Some(kind) = kind {
            let state = codec::state(row.try_get::<Option<i16>, _>(3)?.unwrap_or_default().into())?;
            Known::Task { kind: Name::new(kind)?, payload: Payload::from_bytes(bytes), state }
        } else {
            let removed_at = row.try_get::<Option<i64>, _>(4)?.ok_or_else(|| unreadable("tombstone", &id))?;
            if tx.time(row.try_get(5)?) >= Timestamp::from_micros(removed_at) + TOMBSTONE_TTL {
                forgotten.push(id.to_string());
                continue;
            }
            Known::Tombstone { hash: bytes.to_vec() }
        };
        known.insert(id, found);
    }
    if !forgotten.is_empty() {
        tx.query(FORGET).bind(forgotten).execute(tx.connection()).await?;
    }
    Ok(known)
}

/// Makes rows, and answers where those are that have no given id. Others may have used one of the ids in the meantime:
/// then all is tried again.
async fn make_rows(tx: &mut Tx<'_>, new: &[&Incoming]) -> Work<Vec<Place>> {
    let lanes = numbers(tx, new).await?;
    let (made, places) = match alike(new, &lanes) {
        Some((lane, rank)) => {
            let payloads: Vec<&[u8]> = new.iter().map(|one| one.task.payload.as_bytes()).collect();
            let query = tx.query(INSERT_ALIKE).bind(tx.shared.offset()).bind(lane).bind(rank).bind(payloads);
            made(tx, query).await?
        }
        None => {
            let mut columns = Columns::default();
            for (one, lane) in new.iter().zip(lanes) {
                columns.push(one, lane)?;
            }
            let query = columns.statement(tx);
            made(tx, query).await?
        }
    };
    if usize::try_from(made) != Ok(new.len()) {
        return Err(Trouble::Again);
    }
    let given = texts(new);
    if !given.is_empty() {
        // From now on nobody can use these ids, so that this sees whoever has inserted and removed one before.
        let removed = tx.query(REMOVED_SINCE).bind(given).fetch_optional(tx.connection()).await?;
        if removed.is_some() {
            return Err(Trouble::Again);
        }
    }
    tx.hint.work |= new.iter().any(|one| one.task.start != Start::Held);
    Ok(places)
}

/// The given ids.
fn texts(new: &[&Incoming]) -> Vec<String> {
    new.iter().filter_map(|one| one.id.as_ref()).map(TaskId::to_string).collect()
}

/// The lane and the rank of tasks that differ in nothing but their payloads.
fn alike(new: &[&Incoming], lanes: &[i32]) -> Option<(i32, i32)> {
    let (first, lane) = (new.first()?.task.priority, *lanes.first()?);
    let is_plain = |(one, of): (&&Incoming, &i32)| {
        let NewTask { priority, start, options, .. } = &one.task;
        *of == lane && *priority == first && *start == Start::Now && options.is_none() && one.id.is_none()
    };
    new.iter().zip(lanes).all(is_plain).then_some((lane, rank(first)))
}

/// Executes a statement that makes rows. Answers how many were made, and where those are that have no given id.
async fn made(tx: &mut Tx<'_>, query: Statement<'_>) -> Work<(i64, Vec<Place>)> {
    let (mut made, mut places) = (0, Vec::new());
    for row in query.fetch_all(tx.connection()).await? {
        let (lane, stage, rank): (i32, i16, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        made += row.try_get::<i64, _>(2)?;
        if i64::from(stage) == READY {
            let run_at = Timestamp::from_micros(row.try_get(4)?);
            tx.arrived.push((lane, Key { rank, run_at, ..Key::FIRST }));
        }
        let created_at = Timestamp::from_micros(row.try_get(5)?);
        let seqs: Vec<i64> = row.try_get::<Option<_>, _>(6)?.unwrap_or_default();
        places.extend(seqs.into_iter().map(|seq| Place { seq, created_at }));
    }
    Ok((made, places))
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
    ids: Vec<Option<String>>,
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
        self.ids.push(one.id.as_ref().map(TaskId::to_string));
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

    fn statement(self, tx: &Tx<'_>) -> Statement<'t> {
        tx.query(INSERT)
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
            .bind(self.labels)
    }
}

/// The column `labels` as PostgreSQL writes arrays: an array of arrays of different lengths cannot be bound.
fn labels(options: &Options) -> String {
    let elements = options.labels.iter().flat_map(|(name, value)| [label_name(name), label(name, value)]);
    let quoted = |element: String| format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", elements.map(quoted).collect::<Vec<_>>().join(","))
}
