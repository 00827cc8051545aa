//! Keeps this replica alive in the store's eyes, and takes over from those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{monotonic, new_uuid};
use crate::error::{ErrorKind, Result};
use crate::scheduler::core::{Core, StoreRetry, hinted};
use crate::scheduler::losses::Written;
use crate::scheduler::run::{self, Stage};
use crate::state::RunEvent;
use crate::store::{Change, Changes, Heartbeat, HeartbeatReply, NewReplica, ReplicaStatus, RescueRequest, Suspect};
use crate::task::{Failure, FailureKind, ReplicaId, State, Task, TaskId, Token};

/// The longest wait before a heartbeat that failed is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How many tasks are adopted in one operation.
const ADOPT_BATCH: usize = 200;
/// How soon a control loop that seemed stuck is looked at again.
const STUCK_LOOK: Duration = Duration::from_millis(100);
/// The longest time between two looks at the other replicas.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How often the control loop shows that it is not stuck, in parts of the ttl.
const TICKS_PER_TTL: u32 = 6;

/// Proves to the heartbeat that the runtime of the control loop is not stuck.
pub(super) struct Ticker {
    started: Instant,
    last_millis: AtomicU64,
}

impl Ticker {
    pub(super) fn new() -> Self {
        Ticker { started: monotonic(), last_millis: AtomicU64::new(0) }
    }

    /// Ticks for ever, on the runtime that is to be proven alive.
    pub(super) async fn tick(self: Arc<Self>, ttl: Duration) {
        loop {
            let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_millis.store(millis, Ordering::Release);
            tokio::time::sleep(ttl / TICKS_PER_TTL).await;
        }
    }

    fn is_stuck(&self, ttl: Duration) -> bool {
        let last = self.started + Duration::from_millis(self.last_millis.load(Ordering::Acquire));
        monotonic().duration_since(last) > ttl
    }
}

/// Registers this replica; answers how far the store's writes have come.
pub(super) async fn register(core: &Core, id: ReplicaId) -> Result<Written> {
    let sent = monotonic();
    let replica = NewReplica { id, name: core.config.replica_name.clone(), ttl: core.config.ttl, remote: false };
    core.store.register(replica).await?;
    let reply = core.store.heartbeat(Heartbeat { replica: id, holdings: None }).await?;
    core.replica.renew(lease_end(core, sent), reply.now);
    Ok(Written::of(&reply))
}

/// A lease counts from before the heartbeat was sent, and ends here a little before it ends in the store.
fn lease_end(core: &Core, sent: Instant) -> Instant {
    sent + core.config.ttl - core.config.lease_margin()
}

/// The heartbeat loop.
pub(super) async fn beat(core: Arc<Core>, ticker: Arc<Ticker>) {
    let mut heart = Heart { core, seen: Changes::default(), mismatched: BTreeMap::new(), written: None };
    let mut retry = StoreRetry::new();
    loop {
        let core = &heart.core;
        if ticker.is_stuck(core.config.ttl) {
            // A scheduler whose control loop is stuck must die in the store's eyes, so that others take over.
            tracing::error!("the control loop is stuck; no heartbeat is sent");
            // After a pause of the whole process it ticks again at once: then no time is to be lost.
            tokio::time::sleep(STUCK_LOOK).await;
            continue;
        }
        let wait = match heart.once().await {
            Ok(()) => {
                retry = StoreRetry::new();
                heart.core.config.beat_interval()
            }
            Err(error) => {
                tracing::warn!(%error, "a heartbeat failed; trying again");
                let longest = RECONNECT_MAX.min(heart.core.config.beat_interval());
                retry.next(heart.core.chance(), longest)
            }
        };
        heart.rest(wait).await;
    }
}

struct Heart {
    core: Arc<Core>,
    seen: Changes,
    /// What the last heartbeat found on one side only. Acted on when the next one finds it again.
    mismatched: BTreeMap<TaskId, u64>,
    /// What the last heartbeat was told of the store's writes.
    written: Option<Written>,
}

impl Heart {
    /// One heartbeat, and what it brings.
    async fn once(&mut self) -> Result<()> {
        let core = &self.core;
        let replica = core.replica.id();
        let sent = monotonic();
        let holdings = core.registry.holdings(replica);
        match core.store.heartbeat(Heartbeat { replica, holdings }).await {
            Ok(reply) => {
                core.replica.renew(lease_end(core, sent), reply.now);
                Written::follow(&mut self.written, Written::of(&reply), core);
                self.deliver(&reply, sent);
                self.compare(replica, reply.owned).await
            }
            Err(error) if error.kind() == ErrorKind::NotRegistered => {
                tracing::warn!(%replica, "this replica was declared dead; registering anew");
                let fresh = ReplicaId::from_bytes(*new_uuid(&*core.clock).as_bytes());
                core.replica.become_anew(fresh);
                self.mismatched.clear();
                let written = register(core, fresh).await?;
                Written::follow(&mut self.written, written, core);
                // Our own runs have a dead owner now: adopt them back before anybody else does.
                core.replica.rescue.notify_one();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn deliver(&self, reply: &HeartbeatReply, sent: Instant) {
        if reply.drain {
            self.core.life.drain_wished.cancel();
        }
        for id in &reply.cancel {
            // A run that came after the question may be a later one than the wish is for. If the wish is for it, the
            // next heartbeat brings it again.
            if let Some(held) = self.core.registry.get(id).filter(|held| held.since < sent) {
                held.tell(|mail| mail.cancel = true);
            }
        }
        for report in &reply.reports {
            if let Some(held) = self.core.registry.get(&report.id)
                && held.execution() == report.execution
            {
                held.deliver(report.said.clone());
            }
        }
    }

    /// Mends what the store and this replica see differently, once two heartbeats in a row say so.
    async fn compare(&mut self, replica: ReplicaId, owned: Option<Vec<(TaskId, u64)>>) -> Result<()> {
        let last = std::mem::take(&mut self.mismatched);
        let Some(owned) = owned else { return Ok(()) };
        let core = &self.core;
        let owned: BTreeMap<TaskId, u64> = owned.into_iter().collect();
        for held in core.registry.all() {
            let token = held.token();
            if token.owner != replica || owned.get(held.id()) == Some(&token.run) {
                continue;
            }
            if last.get(held.id()) == Some(&token.run) {
                tracing::warn!(id = %held.id(), "this replica runs a task that it does not own any more");
                held.tell(|mail| mail.lost = true);
            } else {
                self.mismatched.insert(held.id().clone(), token.run);
            }
        }
        if core.life.draining.is_cancelled() {
            // What this replica has let go of, for others to adopt, looks the same.
            return Ok(());
        }
        let mut orphans = Vec::new();
        for (id, run) in owned {
            if core.registry.get(&id).is_some_and(|held| held.token().run == run) {
                continue;
            }
            if last.get(&id) == Some(&run) && !core.registry.is_receiving() {
                orphans.push((id, Token { owner: replica, run }));
            } else {
                self.mismatched.insert(id, run);
            }
        }
        self.take_up(&orphans).await
    }

    /// Settles tasks that this replica owns and never received. What it claimed it has never started: it is
    /// given back. What it adopted may run: it is found again, as if the adoption had been answered now.
    async fn take_up(&self, orphans: &[(TaskId, Token)]) -> Result<()> {
        if orphans.is_empty() || bug!(MismatchIgnored) {
            return Ok(());
        }
        tracing::warn!(tasks = orphans.len(), "this replica owns tasks that it never received");
        let core = &self.core;
        let ids: Vec<TaskId> = orphans.iter().map(|(id, _)| id.clone()).collect();
        let mut unstarted = Vec::new();
        for ((id, token), task) in orphans.iter().zip(core.store.get(&ids).await?) {
            let Some(task) = task.filter(|task| task.record.token() == Some(*token)) else { continue };
            if task.record.state == State::Running && task.record.execution == token.run {
                let failure = Failure::new(FailureKind::Drained, "claimed, but the claim never arrived");
                let event = RunEvent::Release(core.replica.store_now(), failure);
                unstarted.push(Change { id: id.clone(), token: *token, event });
            } else if task.record.state.is_owned() {
                adopt(core, task, false);
            }
        }
        if !unstarted.is_empty() {
            core.store.apply(unstarted).await?;
        }
        Ok(())
    }

    /// Waits, but not past a hint that there are wishes.
    async fn rest(&mut self, wait: Duration) {
        let store = self.core.store.clone();
        let seen = self.seen;
        let wishes = hinted(&*store, seen, |changes| changes.wishes);
        if let Ok(now) = tokio::time::timeout(wait, wishes).await {
            self.seen = now;
        }
    }
}

/// The rescue loop: looks at the other replicas, declares dead who is, and adopts what they left.
pub(super) async fn rescue(core: Arc<Core>) {
    let mut watched = Watched::default();
    loop {
        core.replica.valid().await;
        match rescue_once(&core, &mut watched).await {
            // More is waiting to be adopted; a store in memory never makes us wait: let others have a turn.
            Ok(adopted) if adopted == ADOPT_BATCH => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(_) => {}
            Err(error) => {
                // No failed read may lie between the two that prove a death.
                watched = Watched::default();
                tracing::warn!(%error, "looking for dead replicas failed; trying again");
            }
        }
        tokio::select! {
            biased;
            () = core.replica.rescue.notified() => {}
            () = tokio::time::sleep(core.config.beat_interval().min(LOOK_MAX)) => {}
        }
    }
}

async fn rescue_once(core: &Arc<Core>, watched: &mut Watched) -> Result<usize> {
    if core.life.draining.is_cancelled() {
        return Ok(0);
    }
    let replica = core.replica.id();
    let statuses = core.store.replicas().await?;
    let suspects = watched.look(&statuses, replica, monotonic(), core.config.observe());
    let kinds = core.kind_names.clone();
    let request = RescueRequest { replica, suspects, kinds, queues: vec![], limit: ADOPT_BATCH };
    let receiving = core.registry.receive();
    let rescued = match core.store.rescue(request).await {
        Ok(rescued) => rescued,
        Err(error) if error.kind() == ErrorKind::NotRegistered => return Ok(0),
        Err(error) => return Err(error),
    };
    let adopted = rescued.tasks.len();
    let claimed_here: BTreeSet<TaskId> = rescued.claimed_here.into_iter().collect();
    for task in rescued.tasks {
        let is_here = claimed_here.contains(&task.id);
        adopt(core, task, is_here);
    }
    drop(receiving);
    if adopted < ADOPT_BATCH {
        disown(core).await?;
    }
    Ok(adopted)
}

/// Takes up an adopted task: goes on with our own run of it, or finds the run of its dead owner.
fn adopt(core: &Arc<Core>, task: Task, claimed_here: bool) {
    let Some(token) = task.record.token() else { return };
    if let Some(held) = core.registry.get(&task.id) {
        if held.execution() == task.record.execution {
            held.set_token(token);
            if task.record.cancel_requested {
                held.tell(|mail| mail.cancel = true);
            }
            return;
        }
        held.tell(|mail| mail.lost = true);
    }
    tracing::info!(id = %task.id, execution = task.record.execution, "adopting a task");
    core.hub.tell(&task.id, task.record.state);
    let stage = if task.record.state == State::Exporting { Stage::Exporting } else { Stage::Recovering };
    let Some(kind) = core.kinds.get(&task.spec.kind) else { return };
    if let Some(held) = core.hold(task, kind, claimed_here) {
        let stage = if bug!(AdoptionStartsAgain) { Stage::Starting(run::starting(&held)) } else { stage };
        run::spawn(core, held, core.slots.take(), stage);
    }
}

/// Gives up runs that this replica started under an id that has died, and that others have taken since.
async fn disown(core: &Core) -> Result<()> {
    let replica = core.replica.id();
    let mut ours = core.registry.all();
    ours.retain(|held| held.token().owner != replica);
    for batch in ours.chunks(ADOPT_BATCH) {
        let ids: Vec<TaskId> = batch.iter().map(|held| held.id().clone()).collect();
        for (held, task) in batch.iter().zip(core.store.get(&ids).await?) {
            let still_ours =
                task.is_some_and(|task| task.record.state.is_owned() && task.record.token() == Some(held.token()));
            if !still_ours {
                held.tell(|mail| mail.lost = true);
            }
        }
    }
    Ok(())
}

/// What a rescuer has seen of the others, and since when. Pure.
#[derive(Default)]
struct Watched(BTreeMap<ReplicaId, (u64, Instant)>);

impl Watched {
    /// Looks once more, and names those who are dead: proven so, or seen expired with the same beat for
    /// the whole time of observation.
    fn look(&mut self, all: &[ReplicaStatus], me: ReplicaId, now: Instant, observe: Duration) -> Vec<Suspect> {
        let before = std::mem::take(&mut self.0);
        let mut suspects = Vec::new();
        for status in all.iter().filter(|status| !status.dead && status.id != me) {
            let suspect = Suspect { id: status.id, beat: status.beat };
            if status.proven_dead {
                suspects.push(suspect);
            } else if status.expired {
                let since = match before.get(&status.id) {
                    Some((beat, since)) if *beat == status.beat => *since,
                    _ => now,
                };
                if now.duration_since(since) >= observe || bug!(RescueAfterOneLook) {
                    suspects.push(suspect);
                }
                self.0.insert(status.id, (status.beat, since));
            }
        }
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn status(beat: u64, expired: bool) -> ReplicaStatus {
        ReplicaStatus {
            id: ReplicaId::from_bytes([1; 16]),
            name: String::new(),
            beat,
            expired,
            proven_dead: false,
            dead: false,
            draining: false,
            expires_at: Timestamp::default(),
            owned: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_needs_two_looks_at_the_same_beat() {
        let (me, start, observe) = (ReplicaId::from_bytes([9; 16]), monotonic(), Duration::from_secs(7));
        let mut watched = Watched::default();
        assert!(watched.look(&[status(4, true)], me, start, observe).is_empty(), "one look proves nothing");
        assert!(watched.look(&[status(4, true)], me, start + observe / 2, observe).is_empty(), "too soon");
        assert_eq!(watched.look(&[status(4, true)], me, start + observe, observe).len(), 1);
        assert!(watched.look(&[status(5, true)], me, start + 2 * observe, observe).is_empty(), "it beat in between");
        assert!(watched.look(&[status(5, false)], me, start + 3 * observe, observe).is_empty(), "it lives");
        assert!(watched.look(&[status(5, true)], me, start + 4 * observe, observe).is_empty(), "seen anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proven_death_needs_one_look_and_nobody_suspects_himself() {
        let proven = ReplicaStatus { proven_dead: true, ..status(1, false) };
        let mut watched = Watched::default();
        let me = ReplicaId::from_bytes([9; 16]);
        assert_eq!(watched.look(std::slice::from_ref(&proven), me, monotonic(), Duration::MAX).len(), 1);
        assert!(watched.look(&[proven], ReplicaId::from_bytes([1; 16]), monotonic(), Duration::MAX).is_empty());
        let dead = ReplicaStatus { dead: true, ..status(1, true) };
        assert!(watched.look(&[dead], me, monotonic(), Duration::ZERO).is_empty(), "dead already");
    }
}
