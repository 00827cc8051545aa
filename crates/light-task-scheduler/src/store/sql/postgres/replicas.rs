//! Replicas: registration, heartbeats, death and rescue.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::rows::{self, task_columns, uuid};
use super::tx::{Tx, now};
use crate::clock::{Timestamp, micros};
use crate::database::home::{self, Home};
use crate::database::postgres::Work;
use crate::error::{Error, ErrorKind};
use crate::store::sql::codec::{CANCEL_REQUESTED, HAS_REPORT, unreadable};
use crate::store::sql::moves::{self, Stored};
use crate::store::sql::texts;
use crate::store::{
    Heartbeat, HeartbeatReply, Holdings, NewReplica, ReplicaStatus, Report, RescueRequest, Rescued, Suspect, no_replica,
};
use crate::task::{Record, ReplicaId, State};

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

// The shared lock keeps the queues' settings as they are until the commit: a pause that was answered is in force.
const LIVING: &str = concat!(
    "SELECT ",
    replica_columns!(),
    ", pg_advisory_xact_lock_shared($2) FROM {s}.replicas AS r WHERE r.id = $1 FOR NO KEY UPDATE"
);
// In the order of their ids, so that two rescuers do not wait for each other in a circle.
const LOCK: &str = concat!(
    "SELECT ",
    replica_columns!(),
    " FROM {s}.replicas AS r WHERE r.id = ANY($1) ORDER BY r.id FOR NO KEY UPDATE"
);
const ALL: &str = concat!(
    "SELECT ",
    replica_columns!(),
    ", coalesce(o.n, 0) FROM {s}.replicas AS r LEFT JOIN (SELECT owner, count(*) AS n FROM {s}.tasks
        WHERE stage IN (2, 3) AND owner IS NOT NULL GROUP BY owner) AS o ON o.owner = r.id
    WHERE NOT r.dead OR o.n IS NOT NULL ORDER BY r.id"
);
/// A replica, and whether any task has no living owner.
pub(super) const PEEK: &str = concat!(
    "SELECT ",
    replica_columns!(),
    ", EXISTS (SELECT 1 FROM {s}.tasks AS t WHERE t.stage IN (2, 3)
        AND NOT EXISTS (SELECT 1 FROM {s}.replicas AS o WHERE o.id = t.owner AND NOT o.dead))
    FROM {s}.replicas AS r WHERE r.id = $1"
);
const REGISTER: &str = concat!(
    "INSERT INTO {s}.replicas (id, name, ttl, beat, expires_at, dead, claim, home)
    VALUES ($1, $2, $3, 0, ",
    now!(),
    " + $4 + $3, false, 0, $5) ON CONFLICT (id) DO NOTHING"
);
const RENEW: &str = concat!(
    "UPDATE {s}.replicas SET beat = beat + 1, expires_at = ",
    now!(),
    " + $2 + ttl WHERE id = $1 AND NOT dead RETURNING draining, ",
    now!(),
    // What is written ahead of it is on the disk: it goes back if and only if acknowledged commits are lost.
    ", pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint"
);
const KNOWN: &str = "SELECT 1 FROM {s}.replicas WHERE id = $1";
// Lane by lane, as the index has it.
const OWNED: &str = "SELECT t.id, t.run, t.stage, t.flags, t.seq, t.created_at FROM {s}.lanes AS l
    JOIN {s}.tasks AS t ON t.lane = l.id WHERE t.owner = $1 AND t.stage IN (2, 3)";
// First those that were not given to this owner yet, then, as a reply may be lost, the outcomes that were.
const REPORTS: &str = "SELECT id, execution, said, output, run, task, again, created_at FROM (
    SELECT t.id, t.created_at, r.execution, r.said, r.output, t.run, r.task, t.run IS NOT DISTINCT FROM r.handed AS again,
        sum(coalesce(octet_length(r.output), 0) + octet_length(r.said))
            OVER (ORDER BY t.run IS NOT DISTINCT FROM r.handed, r.task) - coalesce(octet_length(r.output), 0)
            - octet_length(r.said) AS before
    FROM {s}.reports AS r JOIN {s}.tasks AS t ON t.seq = r.task
    WHERE t.owner = $1 AND t.stage = 2 AND t.execution = r.execution
        AND (r.ended OR t.run IS DISTINCT FROM r.handed)) AS found
    WHERE before < $2 ORDER BY again, task";
const HANDED: &str =
    "UPDATE {s}.reports AS r SET handed = u.run FROM unnest($1::bigint[], $2::bigint[]) AS u (task, run)
    WHERE r.task = u.task";
const LEAVE: &str = "UPDATE {s}.replicas SET dead = true WHERE id = $1 AND NOT dead";
const DRAIN: &str = "UPDATE {s}.replicas SET draining = true WHERE id = $1 AND NOT dead";
const BURY: &str = "UPDATE {s}.replicas SET dead = true WHERE id = ANY($1)";
const DEAD_OWNERS: &str = "SELECT DISTINCT t.owner, r.home FROM {s}.tasks AS t
    LEFT JOIN {s}.replicas AS r ON r.id = t.owner
    WHERE t.stage IN (2, 3) AND t.owner IS NOT NULL AND (r.id IS NULL OR r.dead)";
// Owners by value, not by a join: a row that another rescuer has adopted meanwhile is checked again when its
// lock is had, and only what is said of the row itself.
pub(super) const ORPHANS: &str = concat!(
    "SELECT ",
    task_columns!(),
    " FROM {s}.lanes AS l JOIN {s}.tasks AS t ON t.lane = l.id
    WHERE l.kind = ANY($1) AND t.stage IN (2, 3) AND (t.owner = ANY($2) OR t.owner IS NULL)
        AND (cardinality($4::text[]) = 0 OR l.queue = ANY($4))
    ORDER BY t.started_at NULLS FIRST, t.seq LIMIT $3 FOR UPDATE OF t SKIP LOCKED"
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
    pub(super) fn read(tx: &Tx<'_>, row: &PgRow, first: usize) -> Work<Self> {
        Ok(Replica {
            id: ReplicaId::from_bytes(row.try_get::<Uuid, _>(first)?.into_bytes()),
            name: serde_json::from_str(row.try_get(first + 1)?).map_err(|e| unreadable("name of a replica", e))?,
            ttl: row.try_get(first + 2)?,
            beat: row.try_get(first + 3)?,
            expires_at: row.try_get(first + 4)?,
            dead: row.try_get(first + 5)?,
            claim: row.try_get(first + 6)?,
            home: row.try_get(first + 7)?,
            draining: row.try_get(first + 8)?,
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

fn not_registered(id: ReplicaId, why: &str) -> Error {
    Error::new(ErrorKind::NotRegistered, format!("the replica {id} {why}; register anew"))
}

/// The replica, if it is registered and alive. Until the commit nobody can declare it dead, and the settings
/// of no queue change.
pub(super) async fn living(tx: &mut Tx<'_>, id: ReplicaId) -> Work<Replica> {
    let query = tx.query(LIVING).bind(uuid(id)).bind(super::list::settings_lock(tx));
    match query.fetch_optional(tx.connection()).await? {
        Some(row) => Replica::read(tx, &row, 0)?.check_living(),
        None => Err(not_registered(id, "is unknown to the store").into()),
    }
}

/// Registers a replica under a fresh id.
pub(super) async fn register(tx: &mut Tx<'_>, replica: &NewReplica) -> Work<()> {
    let NewReplica { id, name, ttl, remote } = replica;
    let name = serde_json::Value::from(name.as_str()).to_string();
    let query = tx.query(REGISTER).bind(uuid(*id)).bind(name).bind(micros(*ttl)).bind(tx.shared.offset());
    // One that comes through a server lives elsewhere than this process.
    let home = tx.shared.home.as_ref().filter(|_| !remote);
    let query = query.bind(home.and_then(Home::to_text));
    if query.execute(tx.connection()).await?.rows_affected() == 0 {
        let message = format!("the replica id {id} was used before; make a fresh one");
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    Ok(())
}

/// Renews a replica and tells it what it must know.
pub(super) async fn heartbeat(tx: &mut Tx<'_>, heartbeat: &Heartbeat) -> Work<HeartbeatReply> {
    let id = uuid(heartbeat.replica);
    let query = tx.query(RENEW).bind(id).bind(tx.shared.offset());
    let Some(renewed) = query.fetch_optional(tx.connection()).await? else {
        let known = tx.query(KNOWN).bind(id).fetch_optional(tx.connection()).await?;
        let why = if known.is_some() { "was declared dead or has left" } else { "is unknown to the store" };
        return Err(not_registered(heartbeat.replica, why).into());
    };
    let mut reply = HeartbeatReply {
        now: tx.time(renewed.try_get(1)?),
        drain: renewed.try_get(0)?,
        op_seq: renewed.try_get::<i64, _>(2)?.cast_unsigned(),
        ..HeartbeatReply::default()
    };
    let (mut owned, mut holdings, mut has_report) = (Vec::new(), Holdings::default(), false);
    for row in tx.query(OWNED).bind(id).fetch_all(tx.connection()).await? {
        let id = rows::id(tx.shared.salt, &row, [0, 4, 5])?;
        let run = row.try_get::<i64, _>(1)?.cast_unsigned();
        let (stage, flags): (i16, i16) = (row.try_get(2)?, row.try_get(3)?);
        holdings.add(&id, run);
        if i64::from(flags) & CANCEL_REQUESTED != 0 && stage == State::Running as i16 {
            reply.cancel.push(id.clone());
        }
        has_report |= i64::from(flags) & HAS_REPORT != 0;
        owned.push((id, run));
    }
    if heartbeat.holdings.is_some_and(|told| told != holdings) {
        reply.owned = Some(owned);
    }
    if has_report {
        reply.reports = hand_out_reports(tx, id).await?;
    }
    Ok(reply)
}

async fn hand_out_reports(tx: &mut Tx<'_>, owner: Uuid) -> Work<Vec<Report>> {
    let (mut reports, mut tasks, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let found = tx.query(REPORTS).bind(owner).bind(REPORT_BYTES_MAX).fetch_all(tx.connection()).await?;
    for row in &found {
        reports.push(report(tx.shared.salt, row)?);
        if !row.try_get::<bool, _>(6)? {
            tasks.push(row.try_get::<i64, _>(5)?);
            runs.push(row.try_get::<i64, _>(4)?);
        }
    }
    if !tasks.is_empty() {
        tx.query(HANDED).bind(tasks).bind(runs).execute(tx.connection()).await?;
    }
    Ok(reports)
}

fn report(salt: i64, row: &PgRow) -> Work<Report> {
    let id = rows::id(salt, row, [0, 5, 7])?;
    let (execution, said): (i64, &str) = (row.try_get(1)?, row.try_get(2)?);
    Ok(texts::report(id, execution.cast_unsigned(), said.as_bytes(), row.try_get(3)?)?)
}

/// Ends a replica's registration.
pub(super) async fn leave(tx: &mut Tx<'_>, id: &ReplicaId) -> Work<()> {
    let left = tx.query(LEAVE).bind(uuid(*id)).execute(tx.connection()).await?;
    tx.hint.work |= left.rows_affected() > 0;
    Ok(())
}

/// Has a replica take nothing more. A claim of it that is under way holds the row until its commit.
pub(super) async fn drain(tx: &mut Tx<'_>, id: ReplicaId) -> Work<()> {
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
    let Some(row) = found.filter(|row| row.try_get(REPLICA_COLUMNS).is_ok_and(|orphaned: bool| !orphaned)) else {
        return Ok(None);
    };
    let living = Replica::read(tx, &row, 0)?.check_living();
    Ok(living.ok().map(|replica| Rescued { now: replica.now, ..Rescued::default() }))
}

/// Declares suspects dead and adopts tasks without a living owner.
pub(super) async fn rescue(tx: &mut Tx<'_>, request: &RescueRequest) -> Work<Rescued> {
    let mut ids: Vec<Uuid> = request.suspects.iter().map(|suspect| uuid(suspect.id)).collect();
    ids.push(uuid(request.replica));
    let mut known = HashMap::new();
    for row in tx.query(LOCK).bind(ids).fetch_all(tx.connection()).await? {
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
        tx.query(BURY).bind(buried).execute(tx.connection()).await?;
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
    if request.limit == 0 {
        return Ok(());
    }
    let kinds: Vec<&str> = request.kinds.iter().map(|kind| kind.as_str()).collect();
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    let mut dead = HashMap::new();
    for row in tx.query(DEAD_OWNERS).fetch_all(tx.connection()).await? {
        let owner = ReplicaId::from_bytes(row.try_get::<Uuid, _>(0)?.into_bytes());
        dead.insert(owner, home::proves_dead(tx.shared.home.as_ref(), row.try_get(1)?));
    }
    let owners: Vec<Uuid> = dead.keys().map(|owner| uuid(*owner)).collect();
    let queues: Vec<&str> = request.queues.iter().map(|queue| queue.as_str()).collect();
    let query = tx.query(ORPHANS).bind(kinds).bind(owners).bind(limit).bind(queues);
    let found = query.fetch_all(tx.connection()).await?;
    let mut adopted = rows::tasks(tx, &found).await?;
    rescued.claimed_here = moves::adopt(&mut adopted, request.replica, &dead, rescued.now);
    let changes: Vec<(&Stored, &Record)> = adopted.iter().map(|(stored, task)| (stored, &task.record)).collect();
    // The numbers of the former owner's claims mean nothing to the new one.
    rows::save_owned(tx, &changes, request.replica, None).await?;
    rescued.tasks = adopted.into_iter().map(|(_, task)| task).collect();
    Ok(())
}
