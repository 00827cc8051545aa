//! Claiming: due tasks in order, within each queue's limit, rate and pause.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::hints;
use super::quick::{self, Reading};
use super::replicas::{self, Replica, replica_columns};
use super::rows::{self, RANK, task_columns};
use super::tx::{Statement, Tx, has_id, now};
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::Error;
use crate::state::{Event, step};
use crate::store::sql::codec::{READY, SCHEDULED, unreadable};
use crate::store::sql::floors::Looks;
use crate::store::sql::gate::Gate;
use crate::store::sql::lanes::Lane;
use crate::store::sql::moves::Stored;
use crate::store::sql::plan::{Gates, Key, OpenLane, View};
use crate::store::sql::texts;
use crate::store::{Claim, ClaimRequest};
use crate::task::{Name, Record, Task, TaskId};

/// Most overdue tasks failed by one claim; the next one goes on.
const EXPIRE_MAX: i64 = 10_000;
/// Most delayed tasks of a lane that one claim moves to the ready ones: bounds how long others wait when
/// a huge number becomes due at once. Until the next claim has moved the rest, these go first.
const PROMOTE_MAX: i64 = 10_000;

/// The lanes of the asked kinds and queues, each with its head, how long that took to find, and its next delayed task;
/// the next deadline. The heads of some lanes are looked for from a given place on.
macro_rules! look {
    () => {
        "SELECT d.deadline, l.id, l.queue, l.kind, l.settings, l.tat, l.head, l.scheduled,
        (extract(epoch FROM l.ended - l.begun) * 1000000)::bigint FROM
    (SELECT (SELECT t.deadline FROM {s}.tasks AS t WHERE t.deadline IS NOT NULL AND t.stage < 2
        ORDER BY t.deadline LIMIT 1) AS deadline) AS d
    LEFT JOIN (SELECT l.id, l.queue, l.kind, q.settings, q.tat,
        clock_timestamp() AS begun,
        (SELECT ARRAY[t.rank, t.run_at, t.seq] FROM {s}.tasks AS t WHERE t.lane = l.id AND t.stage = 1
            AND (t.rank, t.run_at, t.seq) >= (coalesce(($4::integer[])[f.i], -2147483648),
                coalesce(($5::bigint[])[f.i], '-9223372036854775808'), coalesce(($6::bigint[])[f.i], 0))
            ORDER BY t.rank, t.run_at, t.seq LIMIT 1) AS head,
        clock_timestamp() AS ended,
        (SELECT t.run_at FROM {s}.tasks AS t WHERE t.lane = l.id AND t.stage = -1
            ORDER BY t.run_at LIMIT 1) AS scheduled
        FROM {s}.lanes AS l LEFT JOIN {s}.queues AS q ON q.name = l.queue
        CROSS JOIN LATERAL (SELECT array_position($3::integer[], l.id) AS i OFFSET 0) AS f
        WHERE l.kind = ANY($1) AND (cardinality($2::text[]) = 0 OR l.queue = ANY($2))) AS l ON true"
    };
}
pub(super) const LOOK: &str = look!();
/// The same, with the replica and the counters behind the hints, as all of them are at one moment.
pub(super) const PEEK: &str = concat!(
    "SELECT v.*, h.work, h.wishes, h.ends, ",
    replica_columns!(),
    " FROM {s}.replicas AS r CROSS JOIN {s}.hints AS h CROSS JOIN (",
    look!(),
    ") AS v WHERE r.id = $7"
);
/// Where in such a row what stands that [`LOOK`] does not have.
const COUNTERS: usize = 9;
const REPLICA: usize = 12;
/// The same lanes once more, their heads from where they were, after something was taken of them.
pub(super) const LOOK_AGAIN: &str = "WITH told AS (INSERT INTO {s}.tallies (lane, stage, n)
        SELECT * FROM unnest($5::integer[], $6::smallint[], $7::bigint[]))
    SELECT (SELECT t.deadline FROM {s}.tasks AS t WHERE t.deadline IS NOT NULL AND t.stage < 2
        ORDER BY t.deadline LIMIT 1), f.lane,
        (SELECT ARRAY[t.rank, t.run_at, t.seq] FROM {s}.tasks AS t WHERE t.lane = f.lane AND t.stage = 1
            AND (t.rank, t.run_at, t.seq) >= (f.rank, f.run_at, f.seq)
            ORDER BY t.rank, t.run_at, t.seq LIMIT 1),
        (SELECT t.run_at FROM {s}.tasks AS t WHERE t.lane = f.lane AND t.stage = -1 ORDER BY t.run_at LIMIT 1)
    FROM unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[]) AS f (lane, rank, run_at, seq)";
pub(super) const OVERDUE: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.tasks AS t WHERE t.deadline IS NOT NULL AND t.deadline <= $1 AND t.stage < 2
    ORDER BY t.deadline LIMIT $2 FOR UPDATE SKIP LOCKED"
);
pub(super) const PROMOTE: &str = "UPDATE {s}.tasks AS t SET stage = 1 FROM (
    SELECT due.seq FROM unnest($1::integer[]) AS l (lane) CROSS JOIN LATERAL (
        SELECT s.seq FROM {s}.tasks AS s WHERE s.lane = l.lane AND s.stage = -1 AND s.run_at <= $2
        ORDER BY s.run_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS due) AS due
    WHERE t.seq = due.seq AND t.stage = -1 RETURNING t.lane";
/// The first tasks of each lane, from its head on, that nobody else is about to take, locked.
pub(super) const HEADS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM unnest($1::integer[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS l (lane, rank, run_at, seq, n) CROSS JOIN LATERAL (
        SELECT * FROM {s}.tasks AS h WHERE h.lane = l.lane AND h.stage = 1
            AND (h.rank, h.run_at, h.seq) >= (l.rank, l.run_at, l.seq) AND h.run_at <= $6
        ORDER BY h.rank, h.run_at, h.seq LIMIT l.n FOR UPDATE SKIP LOCKED) AS t"
);
/// The tasks of these ids that may be claimed, locked. The sum keeps the planner from the index on all that is ready.
pub(super) const AMONG: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.tasks AS t WHERE ",
    has_id!(),
    " AND t.lane = ANY($3) AND t.stage + 0 = 1 AND t.run_at <= $4 FOR UPDATE SKIP LOCKED"
);
const GATES: &str = "SELECT name, settings, tat FROM {s}.queues WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE";
pub(super) const RUNNING: &str = "SELECT l.queue, count(*) FROM {s}.lanes AS l JOIN {s}.tasks AS t ON t.lane = l.id
    WHERE l.queue = ANY($1) AND t.stage IN (2, 3) AND t.stage = 2 GROUP BY l.queue";
pub(super) const CLAIMED: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.lanes AS l JOIN {s}.tasks AS t ON t.lane = l.id
    WHERE t.owner = $1 AND t.claim = $2 AND t.stage IN (2, 3) AND t.stage = 2 ORDER BY t.rank, t.run_at, t.seq"
);
const SAVE_CLAIM: &str = "UPDATE {s}.replicas SET claim = $2 WHERE id = $1";
const SAVE_RATES: &str = "UPDATE {s}.queues AS q SET tat = u.tat FROM unnest($1::text[], $2::bigint[]) AS u (name, tat)
    WHERE q.name = u.name";

/// Whether a claim would find nothing, as one statement tells: then this is its answer. What is to be done otherwise,
/// if only to refuse the claim, [`claim`] does.
pub(super) async fn peek(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Option<Claim>> {
    let heard = tx.shared.hints.work();
    let mut looks = tx.shared.floors.looks(crate::clock::monotonic());
    let query = looking(tx, PEEK, request, &looks).bind(rows::uuid(request.replica));
    let found = query.fetch_all(tx.connection()).await?;
    let Some(first) = found.first() else { return Ok(None) };
    let Ok(replica) = Replica::read(tx, first, REPLICA)?.check_living() else { return Ok(None) };
    let hint = tx.shared.hints.looked(hints::counters(first, COUNTERS)?, crate::clock::monotonic());
    hints::publish(&tx.shared, hint);
    let view = view(tx, &found, &mut looks)?;
    tx.looks = Some(looks);
    if replica.draining
        || request.number <= replica.claim.cast_unsigned().max(tx.shared.empty_claims.last(request.replica))
        || !view.is_quiet(replica.now)
    {
        return Ok(None);
    }
    tx.shared.empty_claims.note(request.replica, request.number, heard);
    let next_at = view.next_at(&Gates::new(&view, request.limit, replica.now), replica.now);
    Ok(Some(Claim { next_at, now: replica.now, ..Claim::default() }))
}

/// Takes up to `limit` due tasks for a replica. What is still being read of them belongs to the claim once it is committed.
pub(super) async fn claim(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<(Claim, Option<Reading>)> {
    let heard = tx.shared.hints.work();
    let replica = replicas::living(tx, request.replica).await?;
    let now = replica.now;
    if replica.draining {
        return Ok((Claim { tasks: claimed_before(tx, request).await?, now, ..Claim::default() }, None));
    }
    let mut claim = Claim { tasks: Vec::new(), expired: Vec::new(), next_at: None, now };
    let mut reading = None;
    let mut looks = tx.shared.floors.looks(crate::clock::monotonic());
    let mut view = look(tx, request, &mut looks).await?;
    if view.deadline.is_some_and(|deadline| deadline <= now) {
        claim.expired = expire(tx, now).await?;
        view = look(tx, request, &mut looks).await?;
    }
    let due = view.due(now);
    if !due.is_empty() {
        promote(tx, due, now, &mut looks).await?;
        view = look(tx, request, &mut looks).await?;
    }
    let (mut gates, now) = open(tx, &view, request.limit, now).await?;
    claim.now = now;
    let last = replica.claim.cast_unsigned().max(tx.shared.empty_claims.last(request.replica));
    if request.number <= last {
        claim.tasks = claimed_before(tx, request).await?;
    } else {
        reading = take(tx, request, &view, &mut gates, &mut claim).await?;
        if claim.tasks.is_empty() && reading.is_none() {
            tx.shared.empty_claims.note(request.replica, request.number, heard);
        } else {
            save_rates(tx, &gates, now).await?;
            look_again(tx, &mut view, &mut looks).await?;
        }
    }
    tx.looks = Some(looks);
    claim.next_at = view.next_at(&gates, now);
    Ok((claim, reading))
}

/// Places in lanes, column by column.
pub(super) fn columns(places: &[(i32, Key)]) -> (Vec<i32>, Vec<i32>, Vec<i64>, Vec<i64>) {
    let column = |value: fn(&(i32, Key)) -> i64| places.iter().map(value).collect();
    let (run_ats, seqs) = (column(|(_, key)| key.run_at.as_micros()), column(|(_, key)| key.seq));
    let (lanes, ranks) = places.iter().map(|(lane, key)| (*lane, key.rank)).unzip();
    (lanes, ranks, run_ats, seqs)
}

/// A place in a lane, if there is one.
fn key(row: &PgRow, column: usize) -> Work<Option<Key>> {
    let Some(key) = row.try_get::<Option<Vec<i64>>, _>(column)? else { return Ok(None) };
    let [rank, run_at, seq] = key[..] else { return Err(unreadable("place of a task", key.len()).into()) };
    let rank = i32::try_from(rank).map_err(|e| unreadable("rank of a task", e))?;
    Ok(Some(Key { rank, run_at: Timestamp::from_micros(run_at), seq }))
}

fn time(row: &PgRow, column: usize) -> Work<Option<Timestamp>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
}

/// Sees what waits in the same lanes now, and writes down what has moved.
async fn look_again(tx: &mut Tx<'_>, view: &mut View, looks: &mut Looks) -> Work<()> {
    let (lanes, ranks, run_ats, seqs) = columns(&view.begins());
    let (told, stages, counts) = tx.tally.take();
    let query = tx.query(LOOK_AGAIN).bind(lanes).bind(ranks).bind(run_ats).bind(seqs);
    let found = query.bind(told).bind(stages).bind(counts).fetch_all(tx.connection()).await?;
    for row in &found {
        view.deadline = time(row, 0)?;
        let (number, ready): (i32, _) = (row.try_get(1)?, key(row, 2)?);
        if let Some(first) = ready {
            looks.passed(number, first);
        }
        if let Some(lane) = view.lanes.iter_mut().find(|lane| lane.number == number) {
            (lane.ready, lane.scheduled) = (ready, time(row, 3)?);
        }
    }
    Ok(())
}

/// Sees what waits.
async fn look(tx: &mut Tx<'_>, request: &ClaimRequest, looks: &mut Looks) -> Work<View> {
    let query = looking(tx, LOOK, request, looks);
    let found = query.fetch_all(tx.connection()).await?;
    view(tx, &found, looks)
}

/// A statement with the values of [`LOOK`].
fn looking<'q>(tx: &Tx<'_>, template: &'static str, request: &ClaimRequest, looks: &Looks) -> Statement<'q> {
    let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let (lanes, ranks, run_ats, seqs) = columns(&looks.floors());
    let query = tx.query(template).bind(texts(&request.kinds)).bind(texts(&request.queues));
    query.bind(lanes).bind(ranks).bind(run_ats).bind(seqs)
}

/// What the rows of a look tell.
fn view(tx: &Tx<'_>, found: &[PgRow], looks: &mut Looks) -> Work<View> {
    let mut view = View::default();
    for row in found {
        view.deadline = time(row, 0)?;
        let Some(number) = row.try_get(1)? else { continue };
        let lane = match tx.shared.lanes.get(number) {
            Some(lane) => lane,
            None => {
                let lane = Lane { queue: Name::new(row.try_get(2)?)?, kind: Name::new(row.try_get(3)?)? };
                tx.shared.lanes.keep([(number, lane.clone())]);
                lane
            }
        };
        let settings = row.try_get::<Option<&str>, _>(4)?.map(|json| texts::settings(json.as_bytes())).transpose()?;
        if settings.is_some_and(|settings| settings.paused) {
            continue;
        }
        let (ready, took) = (key(row, 6)?, row.try_get::<i64, _>(8)?.max(0).cast_unsigned());
        looks.looked(number, ready, Duration::from_micros(took));
        view.lanes.push(OpenLane {
            number,
            queue: lane.queue,
            settings,
            tat: time(row, 5)?.unwrap_or_default(),
            ready,
            scheduled: time(row, 7)?,
        });
    }
    Ok(view)
}

/// Locks the queues that have a limit or a rate: then what runs of them only gets less until the commit. The time of
/// the claim is what it is then: not before a slot was free that this claim had to wait for.
async fn open(tx: &mut Tx<'_>, view: &View, limit: usize, now: Timestamp) -> Work<(Gates, Timestamp)> {
    let mut gates = Gates::new(view, limit, now);
    let guarded: Vec<&str> = view.guarded().iter().map(|name| name.as_str()).collect();
    if guarded.is_empty() {
        return Ok((gates, now));
    }
    let locked = tx.query(GATES).bind(&guarded).fetch_all(tx.connection()).await?;
    let counted = tx.query(RUNNING).bind(&guarded).fetch_all(tx.connection()).await?;
    let now = tx.now().await?;
    let mut running: HashMap<&str, i64> = HashMap::new();
    for row in &counted {
        running.insert(row.try_get(0)?, row.try_get(1)?);
    }
    for row in &locked {
        let (name, json): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let tat = Timestamp::from_micros(row.try_get(2)?);
        let running = running.get(name).copied().unwrap_or(0).cast_unsigned();
        gates.set(Name::new(name)?, Gate::new(texts::settings(json.as_bytes())?, tat, running, limit, now));
    }
    Ok((gates, now))
}

/// Writes what the rate limits have counted.
async fn save_rates(tx: &mut Tx<'_>, gates: &Gates, now: Timestamp) -> Work<()> {
    let (names, tats): (Vec<&str>, Vec<i64>) =
        gates.new_tats(now).into_iter().map(|(queue, tat)| (queue.as_str(), tat.as_micros())).unzip();
    if !names.is_empty() {
        tx.query(SAVE_RATES).bind(names).bind(tats).execute(tx.connection()).await?;
    }
    Ok(())
}

/// Fails what is overdue.
async fn expire(tx: &mut Tx<'_>, now: Timestamp) -> Work<Vec<TaskId>> {
    let query = tx.query(OVERDUE).bind(now.as_micros()).bind(EXPIRE_MAX);
    let found = query.fetch_all(tx.connection()).await?;
    let tasks = rows::tasks(tx, &found).await?;
    expire_these(tx, tasks, now).await
}

async fn expire_these(tx: &mut Tx<'_>, mut tasks: Vec<(Stored, Task)>, now: Timestamp) -> Work<Vec<TaskId>> {
    tasks.retain_mut(|(_, task)| {
        let deadline = task.spec.deadline().unwrap_or(Timestamp::MAX);
        step(&mut task.record, Event::Expire { deadline }, now).is_ok()
    });
    let changes: Vec<(&Stored, &Record)> = tasks.iter().map(|(stored, task)| (stored, &task.record)).collect();
    rows::save(tx, &changes, now).await?;
    Ok(tasks.into_iter().map(|(_, task)| task.id).collect())
}

/// Moves what has become due to the ready ones, so that a delayed task of high priority never hides them.
async fn promote(tx: &mut Tx<'_>, lanes: Vec<i32>, now: Timestamp, looks: &mut Looks) -> Work<()> {
    let query = tx.query(PROMOTE).bind(&lanes).bind(now.as_micros()).bind(PROMOTE_MAX);
    for row in query.fetch_all(tx.connection()).await? {
        tx.tally.moved(row.try_get(0)?, SCHEDULED, READY);
    }
    for lane in lanes {
        looks.begin_anew(lane);
        tx.arrived.push((lane, Key::FIRST));
    }
    Ok(())
}

/// Claims the first ready tasks of all lanes, as far as the gates let them through.
async fn take(
    tx: &mut Tx<'_>,
    request: &ClaimRequest,
    view: &View,
    gates: &mut Gates,
    claim: &mut Claim,
) -> Work<Option<Reading>> {
    let rooms = gates.rooms(view, request.limit);
    if rooms.is_empty() || request.among.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    if request.among.is_none() && gates.are_open() {
        return quick::claim(tx, request, columns(&view.begins()), claim).await;
    }
    let mut heads = match &request.among {
        None => heads(tx, view, &rooms, claim.now).await?,
        Some(ids) => {
            let lanes: Vec<i32> = rooms.iter().map(|(lane, _)| *lane).collect();
            let query = tx.of_ids(AMONG, ids.iter()).bind(lanes).bind(claim.now.as_micros());
            let asked: HashSet<&TaskId> = ids.iter().collect();
            let mut found = Vec::with_capacity(ids.len());
            for row in query.fetch_all(tx.connection()).await? {
                // Where an id leads may be another task's row.
                if asked.contains(&rows::id(tx.shared.salt, &row, rows::ID)?) {
                    found.push(row);
                }
            }
            found
        }
    };
    sort(&mut heads)?;
    // What is locked and not picked is free again with the commit.
    let mut picked = Vec::new();
    for head in heads {
        if picked.len() == request.limit {
            break;
        }
        let number: i32 = head.try_get(1)?;
        let lane = tx.shared.lanes.get(number).ok_or_else(|| unreadable("lane of a task", number))?;
        if gates.pass(&lane.queue) {
            picked.push(head);
        }
    }
    let tasks = rows::tasks(tx, &picked).await?;
    take_these(tx, request, tasks, claim).await?;
    Ok(None)
}

/// Locks the first of each lane, as many as there is room for.
async fn heads(tx: &mut Tx<'_>, view: &View, rooms: &[(i32, usize)], now: Timestamp) -> Work<Vec<PgRow>> {
    let rooms: HashMap<i32, usize> = rooms.iter().copied().collect();
    let begins: Vec<(i32, Key)> = view.begins().into_iter().filter(|(lane, _)| rooms.contains_key(lane)).collect();
    let counts: Vec<i64> = begins.iter().map(|(lane, _)| i64::try_from(rooms[lane]).unwrap_or(i64::MAX)).collect();
    let (lanes, ranks, run_ats, seqs) = columns(&begins);
    let query = tx.query(HEADS).bind(lanes).bind(ranks).bind(run_ats).bind(seqs).bind(counts);
    Ok(query.bind(now.as_micros()).fetch_all(tx.connection()).await?)
}

/// Into the order of claims: by rank, due time and number.
fn sort(heads: &mut [PgRow]) -> Work<()> {
    let key = |row: &PgRow| {
        Ok::<_, sqlx::Error>((row.try_get::<i32, _>(RANK)?, row.try_get::<i64, _>(3)?, row.try_get::<i64, _>(0)?))
    };
    if let Some(Err(e)) = heads.iter().map(key).find(Result::is_err) {
        return Err(e.into());
    }
    heads.sort_by_cached_key(|row| key(row).unwrap_or_default());
    Ok(())
}

/// Claims tasks that are locked and may be claimed.
async fn take_these(
    tx: &mut Tx<'_>,
    request: &ClaimRequest,
    tasks: Vec<(Stored, Task)>,
    claim: &mut Claim,
) -> Work<()> {
    let overdue = |task: &Task| task.spec.deadline().is_some_and(|deadline| deadline <= claim.now);
    let (late, mut taken): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(_, task)| overdue(task));
    claim.expired.extend(expire_these(tx, late, claim.now).await?);
    for (_, task) in &mut taken {
        if let Err(refusal) = step(&mut task.record, Event::Claim { owner: request.replica }, claim.now) {
            return Err(Error::internal(format!("the ready task {} cannot be claimed: {refusal}", task.id)).into());
        }
    }
    let changes: Vec<(&Stored, &Record)> = taken.iter().map(|(stored, task)| (stored, &task.record)).collect();
    rows::save_owned(tx, &changes, request.replica, Some(request.number)).await?;
    if !changes.is_empty() {
        let query = tx.query(SAVE_CLAIM).bind(rows::uuid(request.replica)).bind(request.number.cast_signed());
        query.execute(tx.connection()).await?;
    }
    claim.tasks = taken.into_iter().map(|(_, task)| task).collect();
    Ok(())
}

/// The tasks of an earlier claim that its replica still runs.
async fn claimed_before(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Vec<Task>> {
    let query = tx.query(CLAIMED).bind(rows::uuid(request.replica)).bind(request.number.cast_signed());
    let found = query.fetch_all(tx.connection()).await?;
    Ok(rows::tasks(tx, &found).await?.into_iter().map(|(_, task)| task).collect())
}
