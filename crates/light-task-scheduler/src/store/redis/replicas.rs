//! Replicas: registration, heartbeats, death and rescue.

use redis::Value;

use super::calls::{Calls, PART_ITEMS_MAX, objection};
use super::events;
use super::rows;
use super::script::SCRIPTS;
use crate::clock::micros;
use crate::database::home::{self, Home};
use crate::database::redis::error::unreadable;
use crate::database::redis::values::{array, bytes, items, number, text, texts, time};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{
    Heartbeat, HeartbeatReply, Holdings, NewReplica, ReplicaStatus, Report, RescueRequest, Rescued, Said, Suspect,
    no_replica,
};
use crate::task::{Outcome, Payload, ReplicaId, TaskId};

/// Most bytes of reports in one heartbeat's reply (16 MiB); the next one brings more.
const REPORT_BYTES_MAX: usize = 16 << 20;

/// Registers a replica under a fresh id.
pub(super) async fn register(calls: &Calls, replica: &NewReplica) -> Result<()> {
    let NewReplica { id, name, ttl, remote } = replica;
    let home = calls.home.as_ref().filter(|_| !remote).and_then(Home::to_text);
    let mut command = calls.command(&SCRIPTS.replica);
    command.arg("register").arg(id.to_string()).arg(name).arg(micros(*ttl)).arg(home.unwrap_or_default());
    match number::<u8>(&calls.write(&SCRIPTS.replica, &command).await?.body)? {
        1 => Ok(()),
        _ => Err(Error::new(ErrorKind::Conflict, format!("the replica id {id} was used before; make a fresh one"))),
    }
}

/// Renews a replica and tells it what it must know.
pub(super) async fn heartbeat(calls: &Calls, heartbeat: &Heartbeat) -> Result<HeartbeatReply> {
    let mut command = calls.command(&SCRIPTS.replica);
    command.arg("beat").arg(heartbeat.replica.to_string());
    command.arg(u8::from(heartbeat.holdings.is_some())).arg(REPORT_BYTES_MAX);
    let written = calls.beat(&SCRIPTS.replica, &command).await?;
    let [why, owned, cancel, reports, drain] = array(written.body)?;
    objection(heartbeat.replica, &why)?;
    let drain = number::<u8>(&drain)? == 1;
    let (now, epoch, op_seq) = (written.now, written.epoch, written.op_seq);
    let mut reply = HeartbeatReply { now, drain, epoch, op_seq, ..HeartbeatReply::default() };
    for id in texts(cancel)? {
        reply.cancel.push(TaskId::new(&id)?);
    }
    for one in items(reports)? {
        reply.reports.push(report(one)?);
    }
    if let Some(told) = heartbeat.holdings {
        let (owned, holdings) = owned_tasks(owned)?;
        reply.owned = (told != holdings).then_some(owned);
    }
    Ok(reply)
}

fn owned_tasks(value: Value) -> Result<(Vec<(TaskId, u64)>, Holdings)> {
    let (mut owned, mut holdings) = (Vec::new(), Holdings::default());
    for pair in items(value)?.chunks_exact(2) {
        let (id, run) = (TaskId::new(text(&pair[0])?)?, number(&pair[1])?);
        holdings.add(&id, run);
        owned.push((id, run));
    }
    Ok((owned, holdings))
}

fn report(value: Value) -> Result<Report> {
    let fields = items(value)?;
    let [id, execution, said, rest @ ..] = fields.as_slice() else { return Err(unreadable("a report")) };
    let mut said = serde_json::from_slice(bytes(said)?).map_err(|e| unreadable("a report").with_source(e))?;
    if let Said::Ended(Outcome::Succeeded(output)) = &mut said {
        *output = rest.first().map(|output| bytes(output).map(Payload::from_bytes)).transpose()?;
    }
    Ok(Report { id: TaskId::new(text(id)?)?, execution: number(execution)?, said })
}

/// Ends a replica's registration.
pub(super) async fn leave(calls: &Calls, replica: ReplicaId) -> Result<()> {
    let mut command = calls.command(&SCRIPTS.replica);
    command.arg("leave").arg(replica.to_string());
    calls.write(&SCRIPTS.replica, &command).await.map(drop)
}

/// Has a replica take nothing more.
pub(super) async fn drain(calls: &Calls, replica: ReplicaId) -> Result<()> {
    let mut command = calls.command(&SCRIPTS.replica);
    command.arg("drain").arg(replica.to_string());
    match number::<u8>(&calls.write(&SCRIPTS.replica, &command).await?.body)? {
        1 => Ok(()),
        _ => Err(no_replica(replica)),
    }
}

/// The replicas that are alive, and the dead ones that still own tasks.
pub(super) async fn replicas(calls: &Calls) -> Result<Vec<ReplicaStatus>> {
    let found = calls.read(&SCRIPTS.replicas, &calls.command(&SCRIPTS.replicas)).await?;
    let status = |value| {
        let [id, name, beat, expired, dead, expires_at, owned, home, drain] = array(value)?;
        Ok(ReplicaStatus {
            id: text(&id)?.parse()?,
            name: text(&name)?.to_owned(),
            beat: number(&beat)?,
            expired: number::<u8>(&expired)? == 1,
            proven_dead: is_proven_dead(calls, &home)?,
            dead: number::<u8>(&dead)? == 1,
            draining: number::<u8>(&drain)? == 1,
            expires_at: time(&expires_at)?,
            owned: number(&owned)?,
        })
    };
    items(found)?.into_iter().map(status).collect()
}

/// Whether the process of a replica with this home is gone, as this host can tell.
fn is_proven_dead(calls: &Calls, home: &Value) -> Result<bool> {
    Ok(home::proves_dead(calls.home.as_ref(), Some(text(home)?)))
}

/// Those of the suspects whose process is gone. A replica never moves: what was read stays true.
async fn proven_dead(calls: &Calls, suspects: &[Suspect]) -> Result<Vec<ReplicaId>> {
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    Ok(replicas(calls).await?.into_iter().filter(|known| known.proven_dead).map(|known| known.id).collect())
}

/// Declares suspects dead and adopts tasks without a living owner. Many tasks are adopted in parts.
pub(super) async fn rescue(calls: &Calls, request: RescueRequest) -> Result<Rescued> {
    let limit = request.limit.min(crate::store::BATCH_MAX);
    let mut rescued = Rescued::default();
    let proven = proven_dead(calls, &request.suspects).await?;
    loop {
        let part = (limit - rescued.tasks.len()).min(PART_ITEMS_MAX);
        let mut command = calls.command(&SCRIPTS.rescue);
        events::add_words(&mut command);
        command.arg(request.replica.to_string()).arg(part).arg(request.suspects.len());
        for suspect in &request.suspects {
            let is_proven = u8::from(proven.contains(&suspect.id));
            command.arg(suspect.id.to_string()).arg(suspect.beat).arg(is_proven);
        }
        for names in [&request.kinds, &request.queues] {
            command.arg(names.len());
            names.iter().for_each(|name| _ = command.arg(name.as_str()));
        }
        let written = calls.write(&SCRIPTS.rescue, &command).await?;
        let [why, dead, tasks, claimers] = array(written.body)?;
        objection(request.replica, &why)?;
        let tasks = rows::tasks(tasks)?;
        let taken = tasks.len();
        for claimer in items(claimers)?.chunks_exact(2) {
            if is_proven_dead(calls, &claimer[1])? {
                rescued.claimed_here.push(TaskId::new(text(&claimer[0])?)?);
            }
        }
        rescued.tasks.extend(tasks);
        rescued.now = written.now;
        rescued.dead = texts(dead)?.iter().map(|id| id.parse()).collect::<Result<_>>()?;
        if taken < part || taken == 0 || rescued.tasks.len() >= limit {
            return Ok(rescued);
        }
    }
}
