//! Claiming: due tasks in order, within each queue's limit, rate and pause.

use std::collections::HashSet;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::aside;
use super::hints::{self, counter_columns};
use super::replicas::{self, Replica, replica_columns};
use super::rows::{self, PRECEDENCE, task_columns, uuid};
use super::tx::{Tx, bind_all, filled, filled_len, now, text};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::database::mysql::sql::LIST_MAX;
use crate::error::Error;
use crate::state::{Event, step};
use crate::store::sql::codec::unreadable;
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
/// Most lanes in one statement.
const LANES_MAX: usize = 64;

/// The lanes of the asked kinds and queues, each with its head and its next delayed task; the next deadline.
macro_rules! look {
    () => {
        "SELECT d.deadline, l.id, l.queue, l.kind, q.settings, q.tat,
        (SELECT t.run_at FROM {p}tasks AS t FORCE INDEX (tasks_ready) WHERE t.lane = l.id AND t.stage = 1
            ORDER BY t.place, t.run_at, t.seq LIMIT 1) AS ready,
        (SELECT t.run_at FROM {p}tasks AS t FORCE INDEX (tasks_ready) WHERE t.lane = l.id AND t.stage = -1
            AND t.place = 0 ORDER BY t.run_at LIMIT 1) AS scheduled
    FROM (SELECT MIN(deadline) AS deadline FROM {p}deadlines) AS d
    LEFT JOIN ({p}lanes AS l LEFT JOIN {p}queues AS q ON q.name = l.queue)
        ON l.kind IN ({*?*}) AND (? OR l.queue IN ({*?*}))"
    };
}
pub(super) const LOOK: &str = look!();
/// The same, with the replica and the counters behind the hints, as all of them are at one moment.
pub(super) const PEEK: &str = concat!(
    "SELECT v.*, ",
    counter_columns!(),
    ", ",
    replica_columns!(),
    " FROM {p}replicas AS r CROSS JOIN {p}hints AS h CROSS JOIN (",
    look!(),
    ") AS v WHERE r.id = ?"
);
/// Where in such a row what stands that [`LOOK`] does not have.
const COUNTERS: usize = 8;
const REPLICA: usize = 12;
/// Those of these tasks that have not run, locked.
pub(super) const OPEN: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*}) AND t.stage < 2 FOR UPDATE SKIP LOCKED"
);
pub(super) const DUE: &str = "{+(SELECT t.seq FROM {p}tasks AS t FORCE INDEX (tasks_ready)
    WHERE t.lane = ? AND t.stage = -1 AND t.place = 0 AND t.run_at <= ? ORDER BY t.run_at LIMIT ?
    FOR UPDATE SKIP LOCKED)+}";
const PROMOTE: &str = "UPDATE {p}tasks SET stage = 1 WHERE seq IN ({*?*})";
/// The first tasks of each lane that nobody else is about to take, locked.
pub(super) const HEADS: &str = concat!(
    "{+(SELECT ",
    task_columns!(),
    " FROM {p}tasks AS t FORCE INDEX (tasks_ready) WHERE t.lane = ? AND t.stage = 1 AND t.run_at <= ?
    ORDER BY t.place, t.run_at, t.seq LIMIT ? FOR UPDATE SKIP LOCKED)+}"
);
/// The tasks of these ids that may be claimed, locked.
pub(super) const AMONG: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*}) AND t.lane IN ({*?*}) AND t.stage = 1
    AND t.run_at <= ? FOR UPDATE SKIP LOCKED"
);
const GATES: &str = "SELECT name, settings, tat FROM {p}queues WHERE name IN ({*?*}) ORDER BY name FOR UPDATE";
pub(super) const RUNNING: &str = "SELECT l.queue, COUNT(*) FROM {p}lanes AS l
    JOIN {p}tasks AS t FORCE INDEX (tasks_ready) ON t.lane = l.id
    WHERE l.queue IN ({*?*}) AND t.stage = 2 GROUP BY l.queue";
pub(super) const CLAIMED: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {p}lanes AS l STRAIGHT_JOIN {p}tasks AS t FORCE INDEX (tasks_ready)
    ON t.lane = l.id AND t.stage = 2 AND t.place = ? AND t.owner = ? AND t.claim = ?"
);
const SAVE_CLAIM: &str = "UPDATE {p}replicas SET claim = ? WHERE id = ?";
const SAVE_RATE: &str = "UPDATE {p}queues SET tat = ? WHERE name = ?";

/// Whether a claim would find nothing, as one statement tells: then this is its answer. What is to be done otherwise,
/// if only to refuse the claim, [`claim`] does.
pub(super) async fn peek(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Option<Claim>> {
    let heard = tx.shared.hints.work();
    let query = names(tx, PEEK, &request.kinds, &request.queues).bind(uuid(request.replica));
    let found = query.fetch_all(tx.connection()).await?;
    let Some(first) = found.first() else { return Ok(None) };
    let Ok(replica) = Replica::read(tx, first, REPLICA)?.check_living() else { return Ok(None) };
    tx.shared.hints.publish(tx.shared.hints.looked(hints::counters(first, COUNTERS)?, crate::clock::monotonic()));
    let view = view(tx, &found)?;
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

/// Takes up to `limit` due tasks for a replica.
pub(super) async fn claim(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Claim> {
    let heard = tx.shared.hints.work();
    let replica = replicas::living(tx, request.replica).await?;
    let now = replica.now;
    if replica.draining {
        return Ok(Claim { tasks: claimed_before(tx, request).await?, now, ..Claim::default() });
    }
    let mut claim = Claim { tasks: Vec::new(), expired: Vec::new(), next_at: None, now };
    let mut view = look(tx, request).await?;
    if view.deadline.is_some_and(|deadline| deadline <= now) {
        claim.expired = expire(tx, now).await?;
        view = look(tx, request).await?;
    }
    let due = view.due(now);
    if !due.is_empty() {
        promote(tx, &due, now).await?;
        view = look(tx, request).await?;
    }
    let (mut gates, now) = open(tx, &view, request.limit, now).await?;
    claim.now = now;
    let last = replica.claim.cast_unsigned().max(tx.shared.empty_claims.last(request.replica));
    if request.number <= last {
        claim.tasks = claimed_before(tx, request).await?;
    } else {
        take(tx, request, &view, &mut gates, &mut claim).await?;
        if claim.tasks.is_empty() {
            tx.shared.empty_claims.note(request.replica, request.number, heard);
        } else {
            let query = tx.query(SAVE_CLAIM).bind(request.number.cast_signed()).bind(uuid(request.replica));
            query.execute(tx.connection()).await?;
            // Few: queues with a rate limit of which something was taken.
            for (queue, tat) in gates.new_tats(now) {
                let query = tx.query(SAVE_RATE).bind(tat.as_micros()).bind(queue.as_str().as_bytes());
                query.execute(tx.connection()).await?;
            }
            view = look(tx, request).await?;
        }
    }
    claim.next_at = view.next_at(&gates, now);
    Ok(claim)
}

/// Sees what waits.
async fn look(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<View> {
    let query = names(tx, LOOK, &request.kinds, &request.queues);
    let found = query.fetch_all(tx.connection()).await?;
    view(tx, &found)
}

/// What the rows of a look tell.
fn view(tx: &Tx<'_>, found: &[MySqlRow]) -> Work<View> {
    let time = |row: &MySqlRow, column| {
        Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
    };
    let mut view = View::default();
    for row in found {
        view.deadline = time(row, 0)?;
        let Some(number) = row.try_get(1)? else { continue };
        let lane = match tx.shared.lanes.get(number) {
            Some(lane) => lane,
            None => {
                let (queue, kind) = (Name::new(text(row.try_get(2)?)?)?, Name::new(text(row.try_get(3)?)?)?);
                let lane = Lane { queue, kind };
                tx.shared.lanes.keep([(number, lane.clone())]);
                lane
            }
        };
        let settings = row.try_get::<Option<&[u8]>, _>(4)?.map(texts::settings).transpose()?;
        if settings.is_some_and(|settings| settings.paused) {
            continue;
        }
        view.lanes.push(OpenLane {
            number,
            queue: lane.queue,
            settings,
            tat: time(row, 5)?.unwrap_or_default(),
            ready: time(row, 6)?.map(|run_at| Key { run_at, ..Key::FIRST }),
            scheduled: time(row, 7)?,
        });
    }
    Ok(view)
}

/// A statement with a list of kinds, whether all queues are asked for, and a list of queues.
pub(super) fn names<'q>(
    tx: &Tx<'_>,
    template: &'static str,
    kinds: &[Name],
    queues: &[Name],
) -> super::tx::Statement<'q> {
    // A list needs something in it; nothing has an empty name.
    let texts = |names: &[Name]| match names {
        [] => vec![Vec::new()],
        names => names.iter().map(|name| name.as_str().as_bytes().to_vec()).collect(),
    };
    let len = kinds.len().max(queues.len()).max(1);
    let query = bind_all(tx.listed(template, len), filled(&texts(kinds), len)).bind(queues.is_empty());
    bind_all(query, filled(&texts(queues), len))
}

/// Locks the queues that have a limit or a rate: then what runs of them only gets less until the commit. The time of
/// the claim is what it is then: not before a slot was free that this claim had to wait for.
async fn open(tx: &mut Tx<'_>, view: &View, limit: usize, now: Timestamp) -> Work<(Gates, Timestamp)> {
    let mut gates = Gates::new(view, limit, now);
    let guarded: Vec<Vec<u8>> = view.guarded().iter().map(|name| name.as_str().as_bytes().to_vec()).collect();
    if guarded.is_empty() {
        return Ok((gates, now));
    }
    let locked = tx.find_all(GATES, &guarded).await?;
    let counted = tx.find_all(RUNNING, &guarded).await?;
    let now = tx.now().await?;
    let mut running = std::collections::HashMap::new();
    for row in &counted {
        running.insert(row.try_get::<&[u8], _>(0)?, row.try_get::<i64, _>(1)?);
    }
    for row in &locked {
        let name: &[u8] = row.try_get(0)?;
        let settings = texts::settings(row.try_get(1)?)?;
        let tat = Timestamp::from_micros(row.try_get(2)?);
        let running = running.get(name).copied().unwrap_or(0).cast_unsigned();
        gates.set(Name::new(text(name)?)?, Gate::new(settings, tat, running, limit, now));
    }
    Ok((gates, now))
}

/// Fails what is overdue.
async fn expire(tx: &mut Tx<'_>, now: Timestamp) -> Work<Vec<TaskId>> {
    // The tasks are locked before the rows that are kept aside of them, as everywhere.
    let query = tx.query(aside::OVERDUE).bind(now.as_micros()).bind(EXPIRE_MAX);
    let overdue = query.fetch_all(tx.connection()).await?;
    let overdue = overdue.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let found = tx.find_all(OPEN, &overdue).await?;
    let mut tasks = rows::tasks(tx, &found).await?;
    tasks.sort_by_key(|(stored, task)| (task.spec.deadline(), stored.seq));
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
async fn promote(tx: &mut Tx<'_>, lanes: &[i32], now: Timestamp) -> Work<()> {
    for part in lanes.chunks(LANES_MAX) {
        let rooms: Vec<(i32, i64)> = part.iter().map(|lane| (*lane, PROMOTE_MAX)).collect();
        let found = of_lanes(tx, DUE, &rooms, now).await?;
        let seqs = found.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        tx.for_all(PROMOTE, &seqs).await?;
    }
    Ok(())
}

/// What a statement finds that looks at lanes, of each at most so many rows.
async fn of_lanes(
    tx: &mut Tx<'_>,
    template: &'static str,
    lanes: &[(i32, i64)],
    now: Timestamp,
) -> Work<Vec<MySqlRow>> {
    let mut query = tx.listed(template, lanes.len());
    // To fill it up: none of any lane.
    let none = std::iter::repeat_n(&(0, 0), filled_len(lanes.len()) - lanes.len());
    for (lane, most) in lanes.iter().chain(none) {
        query = query.bind(*lane).bind(now.as_micros()).bind(*most);
    }
    Ok(query.fetch_all(tx.connection()).await?)
}

/// Claims the first ready tasks of all lanes, as far as the gates let them through.
async fn take(tx: &mut Tx<'_>, request: &ClaimRequest, view: &View, gates: &mut Gates, claim: &mut Claim) -> Work<()> {
    let rooms = gates.rooms(view, request.limit);
    if rooms.is_empty() {
        return Ok(());
    }
    let mut heads = match &request.among {
        None => heads(tx, &rooms, claim.now).await?,
        Some(ids) => among(tx, ids, &rooms, claim.now).await?,
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
    take_these(tx, request, tasks, claim).await
}

async fn heads(tx: &mut Tx<'_>, rooms: &[(i32, usize)], now: Timestamp) -> Work<Vec<MySqlRow>> {
    let rooms: Vec<(i32, i64)> =
        rooms.iter().map(|(lane, room)| (*lane, i64::try_from(*room).unwrap_or(i64::MAX))).collect();
    let mut heads = Vec::new();
    for part in rooms.chunks(LANES_MAX) {
        heads.append(&mut of_lanes(tx, HEADS, part, now).await?);
    }
    Ok(heads)
}

async fn among(tx: &mut Tx<'_>, ids: &[TaskId], rooms: &[(i32, usize)], now: Timestamp) -> Work<Vec<MySqlRow>> {
    let lanes: Vec<i32> = rooms.iter().map(|(lane, _)| *lane).collect();
    let mut found = Vec::new();
    let asked: HashSet<&TaskId> = ids.iter().collect();
    for part in rows::seqs(tx, ids).await?.chunks(LIST_MAX) {
        let len = part.len().max(lanes.len());
        let query = bind_all(tx.listed(AMONG, len), filled(part, len));
        let query = bind_all(query, filled(&lanes, len)).bind(now.as_micros());
        for row in query.fetch_all(tx.connection()).await? {
            // Where an id leads may be another task's row.
            if asked.contains(&rows::id(tx.shared.salt, &row, rows::ID)?) {
                found.push(row);
            }
        }
    }
    Ok(found)
}

/// Into the order of claims: by priority, due time and number.
fn sort(heads: &mut [MySqlRow]) -> Work<()> {
    let key = |row: &MySqlRow| {
        Ok::<_, sqlx::Error>((row.try_get::<i32, _>(PRECEDENCE)?, row.try_get::<i64, _>(3)?, row.try_get::<i64, _>(0)?))
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
    aside::claimed(tx, &taken).await?;
    claim.tasks = taken.into_iter().map(|(_, task)| task).collect();
    Ok(())
}

/// The tasks of an earlier claim that its replica still runs.
async fn claimed_before(tx: &mut Tx<'_>, request: &ClaimRequest) -> Work<Vec<Task>> {
    let query = tx
        .query(CLAIMED)
        .bind(rows::place(request.replica))
        .bind(uuid(request.replica))
        .bind(request.number.cast_signed());
    let mut found = query.fetch_all(tx.connection()).await?;
    sort(&mut found)?;
    Ok(rows::tasks(tx, &found).await?.into_iter().map(|(_, task)| task).collect())
}
