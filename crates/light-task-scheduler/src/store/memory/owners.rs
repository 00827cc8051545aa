//! Replicas and what they own: registration, claims, heartbeats and rescue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hashbrown::HashSet;

use super::data::Data;
use super::rows::Slot;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Event, step};
use crate::store::{
    BATCH_MAX, Candidate, Candidates, CandidatesRequest, Claim, ClaimRequest, Heartbeat, HeartbeatReply, Holdings,
    NewReplica, ReplicaStatus, Report, RescueRequest, Rescued, Said, Suspect, no_replica,
};
use crate::task::{Outcome, ReplicaId, State, Task, TaskId};

/// Most ids of dead replicas kept to refuse their registration. An older one counts as unknown, which is
/// as good as dead to everything but a registration; and ids are fresh UUIDs.
const DEAD_IDS_MAX: usize = 1_000;

/// A replica that is alive, or dead and still owns tasks.
#[derive(Debug)]
struct Replica {
    name: String,
    ttl: Duration,
    beat: u64,
    expires_at: Timestamp,
    dead: bool,
    draining: bool,
    /// What it owns; each row knows its index in here.
    owned: Vec<Slot>,
    claim_number: u64,
    /// What the last claim gave, by slot and insertion.
    claimed: Vec<(Slot, u64)>,
}

impl Replica {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now || self.expires_at > now + self.ttl
    }
}

/// What an execution has said of itself.
#[derive(Debug)]
pub(super) struct Posted {
    said: Said,
    /// The run whose owner has been told.
    told: Option<u64>,
}

impl Posted {
    pub(super) fn bytes(&self) -> u64 {
        let text = match &self.said {
            Said::Progress(progress) => progress.message.len(),
            Said::Ended(Outcome::Succeeded(output)) => output.as_ref().map_or(0, |output| output.len()),
            Said::Ended(Outcome::Failed(failure)) => failure.message.len(),
        };
        (size_of::<Posted>() + text) as u64
    }
}

/// All replicas, and the tasks without any owner.
#[derive(Debug, Default)]
pub(super) struct Owners {
    // Ordered, so that the same calls give the same answers; there are few.
    replicas: BTreeMap<ReplicaId, Replica>,
    ownerless: Vec<Slot>,
    dead_ids: VecDeque<ReplicaId>,
}

impl Owners {
    fn list(&mut self, owner: Option<ReplicaId>) -> &mut Vec<Slot> {
        match owner.and_then(|id| self.replicas.get_mut(&id)) {
            Some(replica) => &mut replica.owned,
            None => &mut self.ownerless,
        }
    }

    fn alive(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.get(&id).filter(|replica| !replica.dead)
    }

    /// Refuses who may not take tasks.
    fn check(&self, id: ReplicaId, now: Timestamp) -> Result<()> {
        let problem = match self.alive(id) {
            None => "is not registered or was declared dead; register under a new id",
            Some(replica) if replica.is_expired(now) => "is past its lease; send a heartbeat first",
            Some(_) => return Ok(()),
        };
        Err(Error::new(ErrorKind::NotRegistered, format!("replica {id} {problem}")))
    }

    fn is_draining(&self, id: ReplicaId) -> bool {
        self.alive(id).is_some_and(|replica| replica.draining)
    }

    /// Ends a registration for ever.
    fn bury(&mut self, id: ReplicaId) {
        let Some(replica) = self.replicas.get_mut(&id).filter(|replica| !replica.dead) else { return };
        replica.dead = true;
        replica.claimed = Vec::new();
        if self.dead_ids.len() >= DEAD_IDS_MAX {
            self.dead_ids.pop_front();
        }
        self.dead_ids.push_back(id);
        self.forget_if_done(id);
    }

    fn forget_if_done(&mut self, id: ReplicaId) {
        if self.replicas.get(&id).is_some_and(|replica| replica.dead && replica.owned.is_empty()) {
            self.replicas.remove(&id);
        }
    }

    /// What has no living owner.
    fn orphans(&self) -> impl Iterator<Item = Slot> {
        let dead = self.replicas.values().filter(|replica| replica.dead).flat_map(|replica| &replica.owned);
        self.ownerless.iter().chain(dead).copied()
    }

    /// How many tasks are in any list.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.ownerless.len() + self.replicas.values().map(|replica| replica.owned.len()).sum::<usize>()
    }
}

impl Data {
    /// Puts a task into its owner's list.
    pub(super) fn hold(&mut self, owner: Option<ReplicaId>, slot: Slot) {
        let list = self.owners.list(owner);
        self.rows[slot].holding = list.len() as u32;
        list.push(slot);
    }

    /// Takes a task out of its owner's list.
    pub(super) fn release(&mut self, owner: Option<ReplicaId>, slot: Slot) {
        let holding = self.rows[slot].holding;
        let list = self.owners.list(owner);
        list.swap_remove(holding as usize);
        if let Some(moved) = list.get(holding as usize) {
            self.rows[*moved].holding = holding;
        }
        if list.is_empty() {
            owner.into_iter().for_each(|id| self.owners.forget_if_done(id));
        }
    }

    pub(super) fn register(&mut self, NewReplica { id, name, ttl, .. }: NewReplica) -> Result<()> {
        if self.owners.replicas.contains_key(&id) || self.owners.dead_ids.contains(&id) {
            let message = format!("replica id {id} was used before; register under a new id");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let replica = Replica {
            name,
            ttl,
            beat: 0,
            expires_at: self.now + ttl,
            dead: false,
            draining: false,
            owned: Vec::new(),
            claim_number: 0,
            claimed: Vec::new(),
        };
        self.owners.replicas.insert(id, replica);
        self.op_seq += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, id: ReplicaId) {
        self.owners.bury(id);
        self.op_seq += 1;
    }

    pub(super) fn drain(&mut self, id: ReplicaId) -> Result<()> {
        let replica = self.owners.replicas.get_mut(&id).filter(|replica| !replica.dead);
        replica.ok_or_else(|| no_replica(id))?.draining = true;
        self.op_seq += 1;
        self.changes.wishes += 1;
        Ok(())
    }

    pub(super) fn replicas(&self) -> Vec<ReplicaStatus> {
        let status = |(id, replica): (&ReplicaId, &Replica)| ReplicaStatus {
            id: *id,
            name: replica.name.clone(),
            beat: replica.beat,
            expired: replica.is_expired(self.now),
            proven_dead: false,
            dead: replica.dead,
            draining: replica.draining,
            expires_at: replica.expires_at,
            owned: replica.owned.len() as u64,
        };
        self.owners.replicas.iter().map(status).collect()
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest) -> Result<Claim> {
        self.owners.check(request.replica, self.now)?;
        if self.owners.is_draining(request.replica) && !bug!(DrainerClaims) {
            return Ok(Claim { tasks: self.repeat(request), now: self.now, ..Claim::default() });
        }
        let expired = self.expire();
        let lanes = self.lanes.asked(&request.kinds, &request.queues);
        let mut heads = self.lanes.heads(&lanes, self.now);
        let last = self.owners.alive(request.replica).map_or(0, |replica| replica.claim_number);
        let tasks = if request.number > last {
            let mut among = request.among.as_ref().map(|ids| self.among(ids, &lanes).into_iter());
            let mut claimed = Vec::new();
            while claimed.len() < request.limit
                && let Some(slot) = match &mut among {
                    None => self.lanes.pick(&mut heads, self.now),
                    Some(named) => named.find(|slot| self.pick_named(*slot)),
                }
            {
                claimed.extend(self.start(slot, request.replica).then_some((slot, self.rows[slot].seq)));
            }
            let tasks = claimed.iter().map(|(slot, _)| self.task(*slot)).collect();
            if let Some(replica) = self.owners.replicas.get_mut(&request.replica) {
                (replica.claim_number, replica.claimed) = (request.number, claimed);
            }
            tasks
        } else {
            self.repeat(request)
        };
        let deadline = self.deadlines.first().map(|(deadline, ..)| *deadline);
        let next_at = self.lanes.next_at(&lanes, self.now).into_iter().chain(deadline).min();
        Ok(Claim { tasks, expired, next_at, now: self.now })
    }

    /// Those of the named tasks that are in these lanes, in the order of claims.
    fn among(&self, ids: &[TaskId], lanes: &[u32]) -> Vec<Slot> {
        let lanes: HashSet<u32> = lanes.iter().copied().collect();
        let found = ids.iter().filter_map(|id| self.rows.find(id));
        let mut slots: Vec<Slot> = found.filter(|slot| lanes.contains(&self.rows[*slot].lane)).collect();
        slots.sort_unstable_by_key(|slot| self.place(*slot));
        slots.dedup();
        slots
    }

    /// Takes a named task out of the order, if it may start now.
    fn pick_named(&mut self, slot: Slot) -> bool {
        let (lane, place) = (self.rows[slot].lane, self.place(slot));
        self.lanes.pick_one(lane, place, self.now)
    }

    pub(super) fn candidates(&mut self, request: &CandidatesRequest) -> Candidates {
        let lanes = self.lanes.asked(&request.kinds, &request.queues);
        // Makes ready what is due.
        self.lanes.heads(&lanes, self.now);
        let per_lane = request.per_lane.min(BATCH_MAX);
        let first = lanes.iter().flat_map(|lane| self.lanes.first(*lane, per_lane));
        let mut tasks: Vec<Candidate> = first.map(|slot| self.candidate(slot)).collect();
        tasks.sort_unstable_by_key(Candidate::rank);
        Candidates { tasks, now: self.now }
    }

    fn candidate(&self, slot: Slot) -> Candidate {
        let (row, place) = (&self.rows[slot], self.place(slot));
        Candidate {
            id: row.id.clone(),
            queue: self.lanes.queue_of(row.lane).name.clone(),
            kind: self.lanes.kind_of(row.lane).clone(),
            priority: place.priority.0,
            run_at: place.run_at,
            insertion: place.seq,
        }
    }

    /// Fails what has waited past its deadline.
    fn expire(&mut self) -> Vec<TaskId> {
        let mut expired = Vec::new();
        while let Some((deadline, seq, slot)) = self.deadlines.first().copied().filter(|first| first.0 <= self.now) {
            if self.transition(slot, Event::Expire { deadline }).is_ok() {
                expired.push(self.rows[slot].id.clone());
            }
            // Settled already, unless the move was refused; then it must not be tried for ever.
            self.deadlines.remove(&(deadline, seq, slot));
        }
        expired
    }

    /// Claims a task that has been taken out of the order.
    fn start(&mut self, slot: Slot, owner: ReplicaId) -> bool {
        let before = self.rows[slot].seat();
        let moved = step(&mut self.rows[slot].record, Event::Claim { owner }, self.now);
        debug_assert!(moved.is_ok(), "the order holds due, waiting tasks only: {moved:?}");
        if moved.is_ok() {
            self.settle(slot, before);
        }
        moved.is_ok()
    }

    /// What is left of the last claim. An older claim's repeat has come too late to be answered.
    fn repeat(&self, request: &ClaimRequest) -> Vec<Task> {
        let Some(replica) = self.owners.alive(request.replica).filter(|r| r.claim_number == request.number) else {
            return Vec::new();
        };
        let is_ours = |slot: Slot, seq: u64| {
            let record = &self.rows[slot].record;
            self.rows.is_live(slot, seq) && record.state == State::Running && record.owner == Some(request.replica)
        };
        replica.claimed.iter().filter(|(slot, seq)| is_ours(*slot, *seq)).map(|(slot, _)| self.task(*slot)).collect()
    }

    pub(super) fn heartbeat(&mut self, Heartbeat { replica: id, holdings }: Heartbeat) -> Result<HeartbeatReply> {
        let now = self.now;
        let Some(replica) = self.owners.replicas.get_mut(&id).filter(|replica| !replica.dead) else {
            let message = format!("replica {id} is not registered or was declared dead; register under a new id");
            return Err(Error::new(ErrorKind::NotRegistered, message));
        };
        replica.beat += 1;
        replica.expires_at = now + replica.ttl;
        let drain = replica.draining;
        self.op_seq += 1;

        let rows = &self.rows;
        let owned = holdings.and_then(|said| {
            let mut held = Holdings::default();
            replica.owned.iter().for_each(|slot| held.add(&rows[*slot].id, rows[*slot].record.run));
            let list = || replica.owned.iter().map(|slot| (rows[*slot].id.clone(), rows[*slot].record.run)).collect();
            (held != said).then(list)
        });
        let is_ours = |slot: &Slot| rows[*slot].record.owner == Some(id);
        let cancel = self.wished.iter().filter(|slot| is_ours(slot)).map(|slot| rows[*slot].id.clone()).collect();
        let mut reports = Vec::new();
        for (slot, posted) in self.posted.iter_mut().filter(|(slot, _)| is_ours(slot)) {
            let record = &rows[*slot].record;
            // The reply may be lost: an end is said until it has been understood.
            if posted.told != Some(record.run) || matches!(posted.said, Said::Ended(_)) {
                posted.told = Some(record.run);
                let (id, said) = (rows[*slot].id.clone(), posted.said.clone());
                reports.push(Report { id, execution: record.execution, said });
            }
        }
        Ok(HeartbeatReply { now, cancel, reports, drain, owned, epoch: 0, op_seq: self.op_seq })
    }

    pub(super) fn post(&mut self, report: Report) -> bool {
        let Some(slot) = self.rows.find(&report.id) else { return false };
        let record = &self.rows[slot].record;
        if record.state != State::Running || record.execution != report.execution {
            return false;
        }
        let has_ended = |posted: &Posted| matches!(posted.said, Said::Ended(_));
        if self.posted.get(&slot).is_some_and(has_ended) {
            return true;
        }
        self.drop_posted(slot);
        let posted = Posted { said: report.said, told: None };
        self.bytes += posted.bytes();
        self.posted.insert(slot, posted);
        self.changes.wishes += 1;
        self.op_seq += 1;
        true
    }

    pub(super) fn drop_posted(&mut self, slot: Slot) {
        if let Some(posted) = self.posted.remove(&slot) {
            self.bytes -= posted.bytes();
        }
    }

    pub(super) fn rescue(&mut self, request: &RescueRequest) -> Result<Rescued> {
        self.owners.check(request.replica, self.now)?;
        if self.owners.is_draining(request.replica) {
            return Ok(Rescued { now: self.now, ..Rescued::default() });
        }
        let is_dead = |data: &mut Data, suspect: &Suspect| {
            let Some(replica) = data.owners.alive(suspect.id) else { return true };
            let unchanged = replica.beat == suspect.beat && replica.is_expired(data.now);
            let confirmed = unchanged || bug!(RescueWithoutRecheck);
            if confirmed {
                data.owners.bury(suspect.id);
                data.op_seq += 1;
            }
            confirmed
        };
        let suspects = request.suspects.iter();
        let dead = suspects.filter(|suspect| is_dead(self, suspect)).map(|suspect| suspect.id).collect();

        let is_asked = |slot: &Slot| {
            let lane = self.rows[*slot].lane;
            request.asks_for(self.lanes.kind_of(lane), &self.lanes.queue_of(lane).name)
        };
        let mut orphans: Vec<Slot> = self.owners.orphans().filter(is_asked).collect();
        orphans.sort_unstable_by_key(|slot| (self.rows[*slot].record.started_at, self.rows[*slot].seq));
        orphans.truncate(request.limit);
        orphans.retain(|slot| self.transition(*slot, Event::Adopt { owner: request.replica }).is_ok());
        let tasks = orphans.into_iter().map(|slot| self.task(slot)).collect();
        Ok(Rescued { dead, tasks, now: self.now, ..Rescued::default() })
    }
}
