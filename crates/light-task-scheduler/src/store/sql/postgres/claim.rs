//! Claiming: due tasks in order, within each queue's limit, rate and pause.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::apply::texts;
use super::lanes::Lane;
use super::quick;
use super::replicas;
use super::rows::{self, Stored, task_columns};
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::database::postgres::Work;
use crate::error::Error;
use crate::state::{Event, step};
use crate::store::sql::codec::unreadable;
use crate::store::sql::gate::Gate;
use crate::store::{Claim, ClaimRequest, QueueSettings};
use crate::task::{Name, Record, Task, TaskId};

/// Most overdue tasks failed by one claim; the next one goes on.
const EXPIRE_MAX: i64 = 10_000;
/// Most delayed tasks of a lane that one claim moves to the ready ones: bounds how long others wait when
/// a huge number becomes due at once. Until the next claim has moved the rest, these go first.
const PROMOTE_MAX: i64 = 10_000;

/// The lanes of the asked kinds and queues, each with its head and its next delayed task; the next deadline.
pub(super) const LOOK: &str = "SELECT d.deadline, l.id, l.queue, l.kind, l.settings, l.tat, l.ready, l.scheduled FROM
    (SELECT (SELECT t.deadline FROM {s}.tasks AS t WHERE t.deadline IS NOT NULL AND t.stage < 2
        ORDER BY t.deadline LIMIT 1) AS deadline) AS d
    LEFT JOIN (SELECT l.id, l.queue, l.kind, q.settings, q.tat,
        (SELECT t.run_at FROM {s}.tasks AS t WHERE t.lane = l.id AND t.stage = 1
            ORDER BY t.rank, t.run_at, t.seq LIMIT 1) AS ready,
        (SELECT t.run_at FROM {s}.tasks AS t WHERE t.lane = l.id AND t.stage = -1
            ORDER BY t.run_at LIMIT 1) AS scheduled
        FROM {s}.lanes AS l LEFT JOIN {s}.queues AS q ON q.name = l.queue
        WHERE l.kind = ANY($1) AND (cardinality($2::text[]) = 0 OR l.queue = ANY($2))) AS l ON true";
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
    WHERE t.seq = due.seq AND t.stage = -1";
/// The first tasks of each lane that nobody else is about to take, locked.
pub(super) const HEADS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM unnest($1::integer[], $2::bigint[]) AS l (lane, n) CROSS JOIN LATERAL (
        SELECT * FROM {s}.tasks AS h WHERE h.lane = l.lane AND h.stage = 1 AND h.run_at <= $3
        ORDER BY h.rank, h.run_at, h.seq LIMIT l.n FOR UPDATE SKIP LOCKED) AS t"
);
/// The tasks of these ids that may be claimed, locked. The sum keeps the planner from the index on all that is ready.
pub(super) const AMONG: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.tasks AS t WHERE t.id = ANY($1) AND t.lane = ANY($2) AND t.stage + 0 = 1 AND t.run_at <= $3
    FOR UPDATE SKIP LOCKED"
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

/// Takes up to `limit` due tasks for a replica.
pub(super) async fn claim(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Claim> {
    let replica = replicas::living(tx, request.replica).await?;
    let now = replica.now;
    let mut claim = Claim { tasks: Vec::new(), expired: Vec::new(), next_at: None, now };
    let mut view = View::look(tx, request).await?;
    if view.deadline.is_some_and(|deadline| deadline <= now) {
        claim.expired = expire(tx, now).await?;
        view = View::look(tx, request).await?;
    }
    if view.lanes.iter().any(|lane| lane.scheduled.is_some_and(|at| at <= now)) {
        promote(tx, &view, now).await?;
        view = View::look(tx, request).await?;
    }
    let (mut gates, now) = Gates::open(tx, &view, request.limit, now).await?;
    claim.now = now;
    let last = replica.claim.cast_unsigned().max(tx.shared.last_empty_claim(request.replica));
    if request.number <= last {
        claim.tasks = claimed_before(tx, request).await?;
    } else {
        take(tx, request, &view, &mut gates, &mut claim).await?;
        if claim.tasks.is_empty() {
            tx.shared.note_empty_claim(request.replica, request.number);
        } else {
            gates.save(tx, now).await?;
            view = View::look(tx, request).await?;
        }
    }
    claim.next_at = view.next_at(&gates, now);
    Ok(claim)
}

/// A lane from which may be claimed.
struct OpenLane {
    number: i32,
    queue: Name,
    settings: Option<QueueSettings>,
    tat: Timestamp,
    /// The due time of its first ready task.
    ready: Option<Timestamp>,
    /// The due time of its next delayed task.
    scheduled: Option<Timestamp>,
}

/// What waits.
struct View {
    /// Of the asked kinds and queues, without the paused ones.
    lanes: Vec<OpenLane>,
    /// The next deadline of any task that has not run.
    deadline: Option<Timestamp>,
}

impl View {
    async fn look(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Self> {
        let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        let query = tx.query(LOOK).bind(texts(&request.kinds)).bind(texts(&request.queues));
        let found = query.fetch_all(tx.connection()).await?;
        let time = |row: &PgRow, column| {
            Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
        };
        let mut view = View { lanes: Vec::new(), deadline: None };
        for row in &found {
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
            let settings = row.try_get::<Option<&str>, _>(4)?.map(super::list::settings).transpose()?;
            if settings.is_some_and(|settings| settings.paused) {
                continue;
            }
            let tat = time(row, 5)?.unwrap_or_default();
            view.lanes.push(OpenLane {
                number,
                queue: lane.queue,
                settings,
                tat,
                ready: time(row, 6)?,
                scheduled: time(row, 7)?,
            });
        }
        Ok(view)
    }

    /// When time alone will have changed what can be claimed.
    fn next_at(&self, gates: &Gates, now: Timestamp) -> Option<Timestamp> {
        let ready = |lane: &OpenLane| gates.of(&lane.queue)?.opens_at(lane.ready?, now);
        let lanes = self.lanes.iter().flat_map(|lane| [ready(lane), lane.scheduled]);
        lanes.chain([self.deadline]).flatten().min()
    }
}

/// The gates of the queues in a view.
struct Gates {
    by_queue: HashMap<Name, Gate>,
}

impl Gates {
    /// Locks the queues that have a limit or a rate: then what runs of them only gets less until the commit. The
    /// time of the claim is what it is then: not before a slot was free that this claim had to wait for.
    async fn open(tx: &mut Tx<'_>, view: &View, limit: usize, now: Timestamp) -> Work<(Self, Timestamp)> {
        let mut by_queue = HashMap::new();
        let mut guarded = Vec::new();
        for lane in view.lanes.iter().filter(|lane| lane.ready.is_some()) {
            let settings = lane.settings.unwrap_or_default();
            if settings.concurrency.is_some() || settings.rate.is_some() {
                guarded.push(lane.queue.as_str().to_owned());
            }
            by_queue.entry(lane.queue.clone()).or_insert_with(|| Gate::new(settings, lane.tat, 0, limit, now));
        }
        if guarded.is_empty() {
            return Ok((Gates { by_queue }, now));
        }
        let locked = tx.query(GATES).bind(&guarded).fetch_all(tx.connection()).await?;
        let counted = tx.query(RUNNING).bind(&guarded).fetch_all(tx.connection()).await?;
        let now = tx.now().await?;
        let mut running: HashMap<&str, i64> = HashMap::new();
        for row in &counted {
            running.insert(row.try_get(0)?, row.try_get(1)?);
        }
        for row in &locked {
            let name: &str = row.try_get(0)?;
            let (queue, settings) = (Name::new(name)?, super::list::settings(row.try_get(1)?)?);
            let tat = Timestamp::from_micros(row.try_get(2)?);
            let running = running.get(name).copied().unwrap_or(0).cast_unsigned();
            by_queue.insert(queue, Gate::new(settings, tat, running, limit, now));
        }
        Ok((Gates { by_queue }, now))
    }

    fn of(&self, queue: &Name) -> Option<&Gate> {
        self.by_queue.get(queue)
    }

    /// Writes what the rate limits have counted.
    async fn save(&self, tx: &mut Tx<'_>, now: Timestamp) -> Work<()> {
        let (mut names, mut tats) = (Vec::new(), Vec::new());
        for (queue, gate) in &self.by_queue {
            if let Some(tat) = gate.new_tat(now) {
                names.push(queue.as_str());
                tats.push(tat.as_micros());
            }
        }
        if !names.is_empty() {
            tx.query(SAVE_RATES).bind(names).bind(tats).execute(tx.connection()).await?;
        }
        Ok(())
    }
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
async fn promote(tx: &mut Tx<'_>, view: &View, now: Timestamp) -> Work<()> {
    let due = |lane: &&OpenLane| lane.scheduled.is_some_and(|at| at <= now);
    let lanes: Vec<i32> = view.lanes.iter().filter(due).map(|lane| lane.number).collect();
    tx.query(PROMOTE).bind(lanes).bind(now.as_micros()).bind(PROMOTE_MAX).execute(tx.connection()).await?;
    Ok(())
}

/// Claims the first ready tasks of all lanes, as far as the gates let them through.
async fn take(tx: &mut Tx<'_>, request: &ClaimRequest, view: &View, gates: &mut Gates, claim: &mut Claim) -> Work<()> {
    let (mut lanes, mut counts) = (Vec::new(), Vec::new());
    for lane in view.lanes.iter().filter(|lane| lane.ready.is_some()) {
        let room = gates.of(&lane.queue).map_or(0, Gate::room).min(request.limit);
        if room > 0 {
            lanes.push(lane.number);
            counts.push(i64::try_from(room).unwrap_or(i64::MAX));
        }
    }
    if lanes.is_empty() || request.among.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    if request.among.is_none() && gates.by_queue.values().all(|gate| gate.room() == usize::MAX) {
        claim.tasks = quick::claim(tx, request, lanes, claim.now).await?;
        return Ok(());
    }
    let query = match &request.among {
        None => tx.query(HEADS).bind(lanes).bind(counts),
        Some(ids) => tx.query(AMONG).bind(texts(ids.iter())).bind(lanes),
    };
    let mut heads = query.bind(claim.now.as_micros()).fetch_all(tx.connection()).await?;
    sort(&mut heads)?;
    // What is locked and not picked is free again with the commit.
    let mut picked = Vec::new();
    for head in heads {
        if picked.len() == request.limit {
            break;
        }
        let number: i32 = head.try_get(1)?;
        let lane = tx.shared.lanes.get(number).ok_or_else(|| unreadable("lane of a task", number))?;
        if gates.by_queue.get_mut(&lane.queue).is_some_and(Gate::pass) {
            picked.push(head);
        }
    }
    let tasks = rows::tasks(tx, &picked).await?;
    take_these(tx, request, tasks, claim).await
}

/// Into the order of claims: by rank, due time and number.
fn sort(heads: &mut [PgRow]) -> Work<()> {
    let key = |row: &PgRow| {
        Ok::<_, sqlx::Error>((row.try_get::<i32, _>(19)?, row.try_get::<i64, _>(3)?, row.try_get::<i64, _>(0)?))
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
