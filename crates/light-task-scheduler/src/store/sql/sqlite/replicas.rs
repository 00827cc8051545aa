//! Replicas: registration, heartbeats, death and rescue.

use rusqlite::{Connection, OptionalExtension, Row};

use super::error::unreadable;
use super::locks::Locks;
use super::names::Names;
use super::rows;
use super::tx::Tx;
use crate::clock::{Timestamp, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Event, step};
use crate::store::sql::ids::Place;
use crate::store::{
    Heartbeat, HeartbeatReply, Holdings, NewReplica, ReplicaStatus, Report, RescueRequest, Rescued, Said, Suspect,
    no_replica,
};
use crate::task::{Outcome, Payload, ReplicaId, State, Task};

/// Most bytes of reports in one heartbeat's reply (16 MiB); the next one brings more.
const REPORT_BYTES_MAX: usize = 16 << 20;

pub(super) const OWNED: &str = "SELECT id, run, stage, flags & 1, seq, created_at FROM tasks INDEXED BY tasks_active
    WHERE owner = ?1 AND stage IN (2, 3)";
pub(super) const NEXT_OWNER: &str = "SELECT owner FROM tasks INDEXED BY tasks_active
    WHERE owner > ?1 AND stage IN (2, 3) ORDER BY owner LIMIT 1";
pub(super) const HELD_BY: &str = "SELECT started_at, seq, lane FROM tasks INDEXED BY tasks_active
    WHERE owner IS ?1 AND stage IN (2, 3)";
const COLUMNS: &str = "SELECT key, id, name, ttl, beat, expires_at, dead, draining, claim, lock FROM replicas";

/// A replica's row.
pub(super) struct Replica {
    pub(super) key: i64,
    id: ReplicaId,
    name: String,
    ttl: i64,
    beat: i64,
    expires_at: i64,
    dead: bool,
    pub(super) draining: bool,
    pub(super) claim: i64,
    lock: Option<String>,
}

impl Replica {
    fn read(row: &Row<'_>) -> rusqlite::Result<(Self, String)> {
        let id = ReplicaId::from_bytes([0; 16]);
        let replica = Replica {
            key: row.get(0)?,
            id,
            name: row.get(2)?,
            ttl: row.get(3)?,
            beat: row.get(4)?,
            expires_at: row.get(5)?,
            dead: row.get(6)?,
            draining: row.get(7)?,
            claim: row.get(8)?,
            lock: row.get(9)?,
        };
        Ok((replica, row.get(1)?))
    }

    fn load(connection: &Connection, id: ReplicaId) -> Result<Option<Self>> {
        let mut statement = connection.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?;
        let found = statement.query_row([id.to_string()], Replica::read).optional()?;
        Ok(found.map(|(replica, _)| Replica { id, ..replica }))
    }

    fn all(connection: &Connection) -> Result<Vec<Self>> {
        let mut statement = connection.prepare_cached(&format!("{COLUMNS} ORDER BY key"))?;
        let found: Vec<_> = statement.query_map([], Replica::read)?.collect::<rusqlite::Result<_>>()?;
        found.into_iter().map(|(replica, id)| Ok(Replica { id: id.parse()?, ..replica })).collect()
    }

    /// Past its lease, or its lease ends later than any heartbeat could have made it.
    fn is_expired(&self, now: Timestamp) -> bool {
        let now = now.as_micros();
        now >= self.expires_at || self.expires_at > now.saturating_add(self.ttl)
    }
}

/// The replica, if it is registered and alive.
pub(super) fn living(tx: &Tx<'_>, id: ReplicaId) -> Result<Replica> {
    match Replica::load(tx.connection, id)? {
        Some(replica) if replica.dead => Err(not_registered(id, "was declared dead or has left")),
        Some(replica) if replica.is_expired(tx.now) => Err(not_registered(id, "has not renewed its lease in time")),
        Some(replica) => Ok(replica),
        None => Err(not_registered(id, "is unknown to the store")),
    }
}

fn not_registered(id: ReplicaId, why: &str) -> Error {
    Error::new(ErrorKind::NotRegistered, format!("the replica {id} {why}; register anew"))
}

/// Registers a replica under a fresh id.
pub(super) fn register(tx: &mut Tx<'_>, locks: &Locks, replica: &NewReplica) -> Result<()> {
    const REGISTER: &str = "INSERT INTO replicas (id, name, ttl, beat, expires_at, dead, claim, lock)
        VALUES (?1, ?2, ?3, 0, ?4, 0, 0, ?5)";
    let NewReplica { id, name, ttl, remote } = replica;
    if Replica::load(tx.connection, *id)?.is_some() {
        return Err(Error::new(ErrorKind::Conflict, format!("the replica id {id} was used before; make a fresh one")));
    }
    // The lock is this process's: it would tell when a server ends, not when those behind it do.
    let lock = if *remote { None } else { locks.take(*id) };
    let expires_at = tx.now + *ttl;
    tx.connection.prepare_cached(REGISTER)?.execute((
        id.to_string(),
        name,
        micros(*ttl),
        expires_at.as_micros(),
        lock,
    ))?;
    Ok(())
}

/// Renews a replica and tells it what it must know.
pub(super) fn heartbeat(tx: &mut Tx<'_>, heartbeat: &Heartbeat) -> Result<HeartbeatReply> {
    const RENEW: &str = "UPDATE replicas SET beat = beat + 1, expires_at = ?2 WHERE key = ?1";
    let replica = match Replica::load(tx.connection, heartbeat.replica)? {
        Some(replica) if !replica.dead => replica,
        Some(_) => return Err(not_registered(heartbeat.replica, "was declared dead or has left")),
        None => return Err(not_registered(heartbeat.replica, "is unknown to the store")),
    };
    let expires_at = tx.now.as_micros().saturating_add(replica.ttl);
    tx.connection.prepare_cached(RENEW)?.execute([replica.key, expires_at])?;
    let mut reply = HeartbeatReply {
        now: tx.now,
        epoch: tx.epoch.cast_unsigned(),
        op_seq: tx.op_seq.cast_unsigned(),
        drain: replica.draining,
        ..HeartbeatReply::default()
    };
    let (mut owned, mut holdings) = (Vec::new(), Holdings::default());
    let mut statement = tx.connection.prepare_cached(OWNED)?;
    let mut found = statement.query([replica.key])?;
    while let Some(row) = found.next()? {
        let place = Place { seq: row.get(4)?, created_at: Timestamp::from_micros(row.get(5)?) };
        let id = rows::id(tx.connection, tx.names, row.get_ref(0)?, place)?;
        let run = row.get::<_, i64>(1)?.cast_unsigned();
        holdings.add(&id, run);
        if row.get(3)? && row.get::<_, i64>(2)? == State::Running as i64 {
            reply.cancel.push(id.clone());
        }
        owned.push((id, run));
    }
    if heartbeat.holdings.is_some_and(|told| told != holdings) {
        reply.owned = Some(owned);
    }
    reply.reports = hand_out_reports(tx, replica.key)?;
    Ok(reply)
}

/// The reports for running tasks of this owner: first those that it has not been given yet, then, as a reply
/// may be lost, the outcomes that it has been given. So these never keep back what is new.
fn hand_out_reports(tx: &mut Tx<'_>, owner: i64) -> Result<Vec<Report>> {
    const REPORTS: &str = "SELECT tasks.id, reports.execution, said, reports.output, tasks.run, seq, created_at
        FROM reports JOIN tasks ON seq = task
        WHERE owner = ?1 AND stage = 2 AND tasks.execution = reports.execution
        AND (handed IS tasks.run) = ?2 AND ended >= ?2";
    const HANDED: &str = "UPDATE reports SET handed = ?2 WHERE task = ?1";
    let mut statement = tx.connection.prepare_cached(REPORTS)?;
    let (mut reports, mut handed, mut bytes) = (Vec::new(), Vec::new(), 0);
    for again in [false, true] {
        let mut rows = statement.query((owner, again))?;
        while bytes < REPORT_BYTES_MAX
            && let Some(row) = rows.next()?
        {
            let (report, size) = report(tx.connection, tx.names, row)?;
            bytes += size;
            reports.push(report);
            if !again {
                handed.push([row.get::<_, i64>(5)?, row.get(4)?]);
            }
        }
    }
    for one in handed {
        tx.connection.prepare_cached(HANDED)?.execute(one)?;
    }
    Ok(reports)
}

/// Reads a report, and tells how large its output is.
fn report(connection: &Connection, names: &mut Names, row: &Row<'_>) -> Result<(Report, usize)> {
    let place = Place { seq: row.get(5)?, created_at: Timestamp::from_micros(row.get(6)?) };
    let id = rows::id(connection, names, row.get_ref(0)?, place)?;
    let mut said = serde_json::from_str(rows::text(row, 2)?).map_err(|e| unreadable("report", e))?;
    let output = row.get_ref(3)?.as_blob_or_null().map_err(|e| unreadable("report", e))?;
    if let Said::Ended(Outcome::Succeeded(place)) = &mut said {
        *place = output.map(Payload::from_bytes);
    }
    let execution = row.get::<_, i64>(1)?.cast_unsigned();
    Ok((Report { id, execution, said }, output.map_or(0, <[u8]>::len)))
}

/// Ends a replica's registration.
pub(super) fn leave(tx: &mut Tx<'_>, id: ReplicaId) -> Result<()> {
    let set = "UPDATE replicas SET dead = 1, lock = NULL WHERE id = ?1 AND dead = 0";
    if tx.connection.prepare_cached(set)?.execute([id.to_string()])? > 0 {
        tx.hint.work = true;
    }
    Ok(())
}

/// Has a replica take nothing more.
pub(super) fn drain(tx: &mut Tx<'_>, id: ReplicaId) -> Result<()> {
    let set = "UPDATE replicas SET draining = 1 WHERE id = ?1 AND dead = 0";
    if tx.connection.prepare_cached(set)?.execute([id.to_string()])? == 0 {
        return Err(no_replica(id));
    }
    tx.hint.wishes = true;
    Ok(())
}

/// The replicas that are alive, and the dead ones that still own tasks.
pub(super) fn replicas(connection: &Connection, locks: &Locks, now: Timestamp) -> Result<Vec<ReplicaStatus>> {
    const COUNT: &str = "SELECT count(*) FROM tasks INDEXED BY tasks_active WHERE owner = ?1 AND stage IN (2, 3)";
    let mut statuses = Vec::new();
    for replica in Replica::all(connection)? {
        let owned: i64 = connection.prepare_cached(COUNT)?.query_row([replica.key], |row| row.get(0))?;
        if replica.dead && owned == 0 {
            continue;
        }
        statuses.push(ReplicaStatus {
            id: replica.id,
            beat: replica.beat.cast_unsigned(),
            expired: replica.is_expired(now),
            proven_dead: !replica.dead && locks.proves_dead(replica.id, replica.lock.as_deref()),
            dead: replica.dead,
            draining: replica.draining,
            expires_at: Timestamp::from_micros(replica.expires_at),
            owned: owned.cast_unsigned(),
            name: replica.name,
        });
    }
    Ok(statuses)
}

/// Declares suspects dead and adopts tasks without a living owner.
pub(super) fn rescue(tx: &mut Tx<'_>, locks: &Locks, request: &RescueRequest) -> Result<Rescued> {
    let mut rescued = Rescued { now: tx.now, ..Rescued::default() };
    if living(tx, request.replica)?.draining {
        return Ok(rescued);
    }
    for suspect in &request.suspects {
        if declare_dead(tx, locks, suspect)? {
            rescued.dead.push(suspect.id);
        }
    }
    let mut orphans = Vec::new();
    for owner in dead_owners(tx.connection)? {
        let mut statement = tx.connection.prepare_cached(HELD_BY)?;
        let mut rows = statement.query([owner])?;
        while let Some(row) = rows.next()? {
            let lane = tx.names.lane(tx.connection, row.get(2)?)?;
            if request.asks_for(&lane.kind, &lane.queue) {
                orphans.push((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?));
            }
        }
    }
    orphans.sort_unstable();
    orphans.truncate(request.limit);
    for (_, seq) in orphans {
        rescued.tasks.extend(adopt(tx, seq, request.replica)?);
    }
    Ok(rescued)
}

/// Whether the suspect is dead now.
fn declare_dead(tx: &mut Tx<'_>, locks: &Locks, suspect: &Suspect) -> Result<bool> {
    let Some(replica) = Replica::load(tx.connection, suspect.id)? else { return Ok(true) };
    if replica.dead {
        return Ok(true);
    }
    let unchanged = replica.beat.cast_unsigned() == suspect.beat;
    let gone = replica.is_expired(tx.now) || locks.proves_dead(suspect.id, replica.lock.as_deref());
    if !(unchanged && gone) {
        return Ok(false);
    }
    tx.connection.prepare_cached("UPDATE replicas SET dead = 1 WHERE key = ?1")?.execute([replica.key])?;
    tx.hint.work = true;
    Ok(true)
}

/// The owners of running and exporting tasks that are dead; `None` stands for none at all.
fn dead_owners(connection: &Connection) -> Result<Vec<Option<i64>>> {
    let mut owners = vec![None];
    let mut next = connection.prepare_cached(NEXT_OWNER)?;
    let mut last = i64::MIN;
    while let Some(owner) = next.query_row([last], |row| row.get(0)).optional()? {
        let is_dead = connection
            .prepare_cached("SELECT dead FROM replicas WHERE key = ?1")?
            .query_row([owner], |row| row.get(0))
            .optional()?
            .unwrap_or(true);
        owners.extend(is_dead.then_some(Some(owner)));
        last = owner;
    }
    Ok(owners)
}

fn adopt(tx: &mut Tx<'_>, seq: i64, owner: ReplicaId) -> Result<Option<Task>> {
    let Some((mut stored, mut task)) = rows::task_at(tx, seq)? else { return Ok(None) };
    if step(&mut task.record, Event::Adopt { owner }, tx.now).is_err() {
        return Ok(None);
    }
    // The numbers of the former owner's claims mean nothing to the new one.
    stored.claim = None;
    rows::save(tx, [(&stored, &task.record)])?;
    Ok(Some(task))
}

/// Removes the lock files of replicas that were declared dead.
pub(super) fn tidy_locks(tx: &Tx<'_>, locks: &Locks) -> Result<()> {
    let dead: Vec<String> = tx
        .connection
        .prepare_cached("SELECT id FROM replicas WHERE dead = 1 AND lock IS NOT NULL LIMIT 100")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in dead {
        locks.remove(id.parse()?);
        tx.connection.prepare_cached("UPDATE replicas SET lock = NULL WHERE id = ?1")?.execute([id])?;
    }
    Ok(())
}
