//! Replicas: registration, heartbeats, death and rescue.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::rows::{self, active, place_of, replica_id, task_columns, uuid};
use super::tx::{Tx, bind_all, filled, now, text};
use crate::clock::{Timestamp, micros};
use crate::database::home::{self, Home};
use crate::database::mysql::Work;
use crate::database::mysql::sql::LIST_MAX;
use crate::error::{Error, ErrorKind};
use crate::store::sql::codec::{CANCEL_REQUESTED, HAS_REPORT};
use crate::store::sql::moves::{self, Stored};
use crate::store::sql::texts;
use crate::store::{
    Heartbeat, HeartbeatReply, Holdings, NewReplica, ReplicaStatus, Report, RescueRequest, Rescued, Suspect, no_replica,
};
use crate::task::{Name, Record, ReplicaId, State};

/// Most bytes of reports in one heartbeat's reply (16 MiB); the next one brings more.
const REPORT_BYTES_MAX: i64 = 16 << 20;

/// The columns of a [`Replica`], in the order in which it reads them, of a table called `r`.
macro_rules! replica_columns {
    () => {
        concat!("r.id, r.name, r.ttl, r.beat, r.expires_at, r.dead, r.claim, r.home, r.draining, ", now!())
    };
}
pub(super) use replica_columns;

/// How many there are; what a statement selects beside them comes behind.
const REPLICA_COLUMNS: usize = 10;

const LIVING: &str = concat!("SELECT ", replica_columns!(), " FROM {p}replicas AS r WHERE r.id = ? FOR UPDATE");
// In the order of their ids, so that two rescuers do not wait for each other in a circle.
const LOCK: &str =
    concat!("SELECT ", replica_columns!(), " FROM {p}replicas AS r WHERE r.id IN ({*?*}) ORDER BY r.id FOR UPDATE");
pub(super) const ALL: &str = concat!(
    "SELECT ",
    replica_columns!(),
    ", COALESCE(o.n, 0) FROM {p}replicas AS r LEFT JOIN (SELECT t.place, COUNT(*) AS n FROM ",
    active!(),
    " GROUP BY t.place) AS o ON o.place = ",
    place_of!("r.id"),
    " WHERE r.dead = 0 OR o.n IS NOT NULL ORDER BY r.id"
);
/// A replica, and whether any task has no living owner.
pub(super) const PEEK: &str = concat!(
    "SELECT ",
    replica_columns!(),
    ", EXISTS (SELECT 1 FROM ",
    active!(),
    " LEFT JOIN (SELECT DISTINCT ",
    place_of!("o.id"),
    " AS place FROM {p}replicas AS o WHERE o.dead = 0) AS living ON living.place = t.place WHERE living.place IS NULL)
    FROM {p}replicas AS r WHERE r.id = ?"
);
/// Keeps all from registering that register in another transaction while the settings of a queue change.
const ENTRANCE: &str = concat!("SELECT ", now!(), " FROM {p}versions WHERE component = 'tasks' LOCK IN SHARE MODE");
const REGISTER: &str = "INSERT INTO {p}replicas (id, name, ttl, beat, expires_at, dead, claim, home)
    VALUES (?, ?, ?, 0, ?, 0, 0, ?)";
const RENEW: &str = "UPDATE {p}replicas SET beat = beat + 1, expires_at = ? + ttl WHERE id = ? AND dead = 0";
/// The last thing in a heartbeat, as all heartbeats write this row.
const COUNT_WRITE: &str = "UPDATE {p}hints SET writes = LAST_INSERT_ID(writes + 1)";
const KNOWN: &str = "SELECT 1 FROM {p}replicas WHERE id = ?";
/// The time, whether a replica is to take nothing more, and what it holds: one row at least.
pub(super) const OWNED: &str = concat!(
    "SELECT ",
    now!(),
    ", t.seq, t.run, t.stage, t.flags, t.id, t.created_at, o.draining FROM
        (SELECT COALESCE((SELECT r.draining FROM {p}replicas AS r WHERE r.id = ?), 0) AS draining) AS o
    LEFT JOIN (",
    active!(),
    ") ON t.place = ? AND t.owner = ?"
);
// First those that were not given to this owner yet, then, as a reply may be lost, the outcomes that were.
pub(super) const REPORTS: &str =
    "SELECT t.id, r.execution, r.said, r.output, t.run, r.task, f.again, t.created_at FROM (
        SELECT s.task, s.again, SUM(s.bytes) OVER (ORDER BY s.again, s.task) - s.bytes AS ahead FROM (
            SELECT r.task, CASE WHEN r.handed <=> t.run THEN 1 ELSE 0 END AS again,
                LENGTH(r.said) + COALESCE(LENGTH(r.output), 0) AS bytes
            FROM {p}lanes AS l STRAIGHT_JOIN {p}tasks AS t FORCE INDEX (tasks_ready)
                ON t.lane = l.id AND t.stage = 2 AND t.place = ? AND t.owner = ?
            STRAIGHT_JOIN {p}reports AS r ON r.task = t.seq
            WHERE t.execution = r.execution
                AND (r.ended = 1 OR NOT r.handed <=> t.run)) AS s) AS f
    JOIN {p}reports AS r ON r.task = f.task JOIN {p}tasks AS t ON t.seq = f.task
    WHERE f.ahead < ? ORDER BY f.again, f.task";
const HANDED: &str = "UPDATE {p}reports SET handed = ? WHERE task IN ({*?*})";
const LEAVE: &str = "UPDATE {p}replicas SET dead = 1 WHERE id = ? AND dead = 0";
const DRAIN: &str = "UPDATE {p}replicas SET draining = 1 WHERE id = ? AND dead = 0";
const BURY: &str = "UPDATE {p}replicas SET dead = 1 WHERE id IN ({*?*})";
const DEAD_HOLDERS: &str = concat!(
    "SELECT DISTINCT t.owner, r.home FROM ",
    active!(),
    " LEFT JOIN {p}replicas AS r ON r.id = t.owner WHERE r.id IS NULL OR r.dead = 1"
);
// Read first and locked after: a locking read that sorts would lock all that it sorts.
pub(super) const ORPHANS: &str = concat!(
    "SELECT t.seq FROM ",
    active!(),
    " WHERE t.place IN ({*?*}) AND t.owner IN ({*?*}) AND l.kind IN ({*?*}) AND (? OR l.queue IN ({*?*}))
    ORDER BY t.started_at, t.seq LIMIT ?"
);
const LOCK_ORPHANS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {p}tasks AS t WHERE t.seq IN ({*?*}) AND t.stage IN (2, 3) FOR UPDATE SKIP LOCKED"
);

/// A replica's row.
pub(super) struct Replica {
    id: ReplicaId,
    name: String,
    ttl: i64,
    beat: i64,
    expires_at: i64,
    dead: bool,
    /// It is to take nothing more.
    pub(super) draining: bool,
    /// The number of its last claim that took something.
    pub(super) claim: i64,
    /// Where it lives.
    home: Option<String>,
    /// The store's time when it was read.
    pub(super) now: Timestamp,
}

impl Replica {
    /// Reads one whose columns begin there in a row.
    pub(super) fn read(tx: &Tx<'_>, row: &MySqlRow, first: usize) -> Work<Self> {
        Ok(Replica {
            id: replica_id(row.try_get(first)?)?,
            name: text(row.try_get(first + 1)?)?.to_owned(),
            ttl: row.try_get(first + 2)?,
            beat: row.try_get(first + 3)?,
            expires_at: row.try_get(first + 4)?,
            dead: row.try_get::<i64, _>(first + 5)? != 0,
            claim: row.try_get(first + 6)?,
            home: home(row, first + 7)?,
            draining: row.try_get::<i64, _>(first + 8)? != 0,
            now: tx.time(row.try_get(first + 9)?),
        })
    }

    /// Whether its process is gone, as this host can tell.
    fn is_proven_dead(&self, tx: &Tx<'_>) -> bool {
        home::proves_dead(tx.shared.home.as_ref(), self.home.as_deref())
    }

    /// Past its lease, or its lease ends later than any heartbeat could have made it.
    fn is_expired(&self) -> bool {
        let now = self.now.as_micros();
        now >= self.expires_at || self.expires_at > now.saturating_add(self.ttl)
    }

    pub(super) fn check_living(self) -> Work<Self> {
        match self {
            replica if replica.dead => Err(not_registered(replica.id, "was declared dead or has left").into()),
            replica if replica.is_expired() => {
                Err(not_registered(replica.id, "has not renewed its lease in time").into())
            }
            replica => Ok(replica),
        }
    }
}

/// Where a replica lives, if that is known.
fn home(row: &MySqlRow, column: usize) -> Work<Option<String>> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(text).transpose()?.map(str::to_owned))
}

fn not_registered(id: ReplicaId, why: &str) -> Error {
    Error::new(ErrorKind::NotRegistered, format!("the replica {id} {why}; register anew"))
}

/// The replica, if it is registered and alive. Until the commit nobody can declare it dead, and the settings
/// of no queue change: whoever changes them locks every replica that is not dead.
pub(super) async fn living(tx: &mut Tx<'_>, id: ReplicaId) -> Work<Replica> {
    let query = tx.query(LIVING).bind(uuid(id));
    match query.fetch_optional(tx.connection()).await? {
        Some(row) => Replica::read(tx, &row, 0)?.check_living(),
        None => Err(not_registered(id, "is unknown to the store").into()),
    }
}

/// Registers a replica under a fresh id.
pub(super) async fn register(tx: &mut Tx<'_>, replica: &NewReplica) -> Work<()> {
    let NewReplica { id, name, ttl, remote } = replica;
    let row = tx.query(ENTRANCE).fetch_one(tx.connection()).await?;
    let now = tx.time(row.try_get(0)?);
    if tx.query(KNOWN).bind(uuid(*id)).fetch_optional(tx.connection()).await?.is_some() {
        let message = format!("the replica id {id} was used before; make a fresh one");
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    let ttl = micros(*ttl);
    let query = tx.query(REGISTER).bind(uuid(*id)).bind(name.clone().into_bytes()).bind(ttl);
    let query = query.bind(now.as_micros().saturating_add(ttl));
    // One that comes through a server lives elsewhere than this process.
    let home = tx.shared.home.as_ref().filter(|_| !remote);
    let home = home.and_then(Home::to_text).map(String::into_bytes);
    query.bind(home).execute(tx.connection()).await?;
    Ok(())
}

/// Renews a replica and tells it what it must know.
pub(super) async fn heartbeat(tx: &mut Tx<'_>, heartbeat: &Heartbeat) -> Work<HeartbeatReply> {
    let id = uuid(heartbeat.replica);
    let query = tx.query(OWNED).bind(id.clone()).bind(rows::place(heartbeat.replica)).bind(id.clone());
    let held = query.fetch_all(tx.connection()).await?;
    let now = held.first().map(|row| row.try_get(0)).transpose()?;
    let now = tx.time(now.unwrap_or(0));
    let query = tx.query(RENEW).bind(now.as_micros()).bind(id.clone());
    if query.execute(tx.connection()).await?.rows_affected() == 0 {
        let known = tx.query(KNOWN).bind(id).fetch_optional(tx.connection()).await?;
        let why = if known.is_some() { "was declared dead or has left" } else { "is unknown to the store" };
        return Err(not_registered(heartbeat.replica, why).into());
    }
    let drain = held.first().map(|row| row.try_get::<i64, _>(7)).transpose()?;
    let mut reply = HeartbeatReply { now, drain: drain == Some(1), ..HeartbeatReply::default() };
    let (mut owned, mut holdings, mut has_report) = (Vec::new(), Holdings::default(), false);
    for row in &held {
        if row.try_get::<Option<i64>, _>(1)?.is_none() {
            continue;
        }
        let (id, run) = (rows::id(tx.shared.salt, row, [5, 1, 6])?, row.try_get::<i64, _>(2)?.cast_unsigned());
        let (stage, flags): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        holdings.add(&id, run);
        if flags & CANCEL_REQUESTED != 0 && stage == State::Running as i64 {
            reply.cancel.push(id.clone());
        }
        has_report |= flags & HAS_REPORT != 0;
        owned.push((id, run));
    }
    if heartbeat.holdings.is_some_and(|told| told != holdings) {
        reply.owned = Some(owned);
    }
    if has_report {
        reply.reports = hand_out_reports(tx, heartbeat.replica).await?;
    }
    // Of all writes it counts the heartbeats and the hints: fewer than before means that the server has lost some.
    let counted = tx.query(COUNT_WRITE).execute(tx.connection()).await?;
    reply.op_seq = counted.last_insert_id();
    Ok(reply)
}

async fn hand_out_reports(tx: &mut Tx<'_>, owner: ReplicaId) -> Work<Vec<Report>> {
    let (mut reports, mut handed) = (Vec::new(), Vec::new());
    let found = tx
        .query(REPORTS)
        .bind(rows::place(owner))
        .bind(uuid(owner))
        .bind(REPORT_BYTES_MAX)
        .fetch_all(tx.connection())
        .await?;
    for row in &found {
        let id = rows::id(tx.shared.salt, row, [0, 5, 7])?;
        let execution = row.try_get::<i64, _>(1)?.cast_unsigned();
        reports.push(texts::report(id, execution, row.try_get(2)?, row.try_get(3)?)?);
        if row.try_get::<i64, _>(6)? == 0 {
            handed.push((row.try_get::<i64, _>(5)?, row.try_get::<i64, _>(4)?));
        }
    }
    // Each with the run that it was given to: mostly one and the same.
    handed.sort_unstable_by_key(|(task, run)| (*run, *task));
    for group in handed.chunk_by(|(_, a), (_, b)| a == b) {
        for part in group.chunks(LIST_MAX) {
            let Some((_, run)) = part.first() else { continue };
            let tasks: Vec<i64> = part.iter().map(|(task, _)| *task).collect();
            let query = tx.listed(HANDED, tasks.len()).bind(*run);
            bind_all(query, filled(&tasks, tasks.len())).execute(tx.connection()).await?;
        }
    }
    Ok(reports)
}

/// Ends a replica's registration.
pub(super) async fn leave(tx: &mut Tx<'_>, id: &ReplicaId) -> Work<()> {
    let left = tx.query(LEAVE).bind(uuid(*id)).execute(tx.connection()).await?;
    tx.hint.work |= left.rows_affected() > 0;
    Ok(())
}

/// Has a replica take nothing more. A claim of it that is under way holds the row until its commit.
pub(super) async fn drain(tx: &mut Tx<'_>, id: ReplicaId) -> Work<()> {
    // Rows that were found count, changed or not.
    if tx.query(DRAIN).bind(uuid(id)).execute(tx.connection()).await?.rows_affected() == 0 {
        return Err(no_replica(id).into());
    }
    tx.hint.wishes = true;
    Ok(())
}

/// The replicas that are alive, and the dead ones that still own tasks.
pub(super) async fn replicas(tx: &mut Tx<'_>) -> Work<Vec<ReplicaStatus>> {
    let mut statuses = Vec::new();
    for row in tx.query(ALL).fetch_all(tx.connection()).await? {
        let replica = Replica::read(tx, &row, 0)?;
        statuses.push(ReplicaStatus {
            id: replica.id,
            beat: replica.beat.cast_unsigned(),
            expired: replica.is_expired(),
            proven_dead: !replica.dead && replica.is_proven_dead(tx),
            dead: replica.dead,
            draining: replica.draining,
            expires_at: Timestamp::from_micros(replica.expires_at),
            owned: row.try_get::<i64, _>(REPLICA_COLUMNS)?.cast_unsigned(),
            name: replica.name,
        });
    }
    Ok(statuses)
}

/// Whether a rescue without suspects would find nothing, as one statement tells: then this is its answer.
pub(super) async fn peek(tx: &mut Tx<'_>, request: &RescueRequest) -> Work<Option<Rescued>> {
    let found = tx.query(PEEK).bind(uuid(request.replica)).fetch_optional(tx.connection()).await?;
    let Some(row) = found.filter(|row| row.try_get(REPLICA_COLUMNS).is_ok_and(|orphaned: i64| orphaned == 0)) else {
        return Ok(None);
    };
    let living = Replica::read(tx, &row, 0)?.check_living();
    Ok(living.ok().map(|replica| Rescued { now: replica.now, ..Rescued::default() }))
}

/// Declares suspects dead and adopts tasks without a living owner.
pub(super) async fn rescue(tx: &mut Tx<'_>, request: &RescueRequest) -> Work<Rescued> {
    let mut ids: Vec<Vec<u8>> = request.suspects.iter().map(|suspect| uuid(suspect.id)).collect();
    ids.push(uuid(request.replica));
    ids.sort_unstable();
    let mut known = HashMap::new();
    for row in tx.find_all(LOCK, &ids).await? {
        let replica = Replica::read(tx, &row, 0)?;
        known.insert(replica.id, replica);
    }
    let rescuer = match known.remove(&request.replica) {
        Some(replica) => replica.check_living()?,
        None => return Err(not_registered(request.replica, "is unknown to the store").into()),
    };
    let mut rescued = Rescued { now: rescuer.now, ..Rescued::default() };
    if rescuer.draining {
        return Ok(rescued);
    }
    let mut buried = Vec::new();
    for suspect in &request.suspects {
        let replica = known.get(&suspect.id);
        if suspect.id != request.replica && is_dead(tx, replica, suspect) {
            rescued.dead.push(suspect.id);
            buried.extend(replica.filter(|replica| !replica.dead).map(|replica| uuid(replica.id)));
        }
    }
    if !buried.is_empty() {
        tx.for_all(BURY, &buried).await?;
        tx.hint.work = true;
    }
    adopt(tx, request, &mut rescued).await?;
    Ok(rescued)
}

/// Whether the suspect is dead, now that nobody else can change its row.
fn is_dead(tx: &Tx<'_>, replica: Option<&Replica>, suspect: &Suspect) -> bool {
    let still = |replica: &Replica| replica.beat.cast_unsigned() == suspect.beat && replica.is_expired();
    replica.is_none_or(|replica| replica.dead || still(replica) || replica.is_proven_dead(tx))
}

async fn adopt(tx: &mut Tx<'_>, request: &RescueRequest, rescued: &mut Rescued) -> Work<()> {
    if request.limit == 0 || request.kinds.is_empty() {
        return Ok(());
    }
    let mut dead = HashMap::new();
    for row in tx.query(DEAD_HOLDERS).fetch_all(tx.connection()).await? {
        let home = home(&row, 1)?;
        dead.insert(replica_id(row.try_get(0)?)?, home::proves_dead(tx.shared.home.as_ref(), home.as_deref()));
    }
    let orphans = orphans(tx, request, dead.keys().copied()).await?;
    let mut found = tx.find_all(LOCK_ORPHANS, &orphans).await?;
    found.sort_by_cached_key(|row| (row.try_get::<i64, _>(13).ok(), row.try_get::<i64, _>(0).ok()));
    let mut adopted = rows::tasks(tx, &found).await?;
    rescued.claimed_here = moves::adopt(&mut adopted, request.replica, &dead, rescued.now);
    let changes: Vec<(&Stored, &Record)> = adopted.iter().map(|(stored, task)| (stored, &task.record)).collect();
    // The numbers of the former owner's claims mean nothing to the new one.
    rows::save_owned(tx, &changes, request.replica, None).await?;
    rescued.tasks = adopted.into_iter().map(|(_, task)| task).collect();
    Ok(())
}

/// The oldest tasks of the asked kinds that dead replicas hold.
async fn orphans(tx: &mut Tx<'_>, request: &RescueRequest, dead: impl Iterator<Item = ReplicaId>) -> Work<Vec<i64>> {
    let (places, owners): (Vec<i64>, Vec<Vec<u8>>) = dead.map(|id| (rows::place(id), uuid(id))).unzip();
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    // A list needs something in it; nothing has an empty name.
    let bytes = |names: &[Name]| match names {
        [] => vec![Vec::new()],
        names => names.iter().map(|name| name.as_str().as_bytes().to_vec()).collect(),
    };
    let (kinds, queues) = (bytes(&request.kinds), bytes(&request.queues));
    let len = owners.len().max(kinds.len()).max(queues.len());
    let query = bind_all(tx.listed(ORPHANS, len), filled(&places, len));
    let query = bind_all(query, filled(&owners, len));
    let query = bind_all(query, filled(&kinds, len)).bind(request.queues.is_empty());
    let query = bind_all(query, filled(&queues, len)).bind(i64::try_from(request.limit).unwrap_or(i64::MAX));
    let found = query.fetch_all(tx.connection()).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
