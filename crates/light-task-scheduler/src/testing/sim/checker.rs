//! The rules that must hold after every step, written without a look at `state::step`.
//!
//! The checker keeps the last record of every task and compares it with the new one after each call of
//! the store that may have moved it. Rule names are those of the design's invariants (I1 to I15); P is for
//! the protocol between replica and store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::faults::Fault;
use super::plan::TTL;
use super::sim::Sim;
use crate::clock::{Timestamp, monotonic};
use crate::retry::LOST_IN_A_ROW_MAX;
use crate::state::{Command, RunEvent};
use crate::store::{Answer, Change, Claim, ClaimRequest, QueueSettings, Rescued, SweepRequest};
use crate::task::{FailureKind, Outcome, Record, ReplicaId, ResultRef, State, Task, TaskId, Token};
use crate::testing::{Ending, Live};

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// What happened.
    pub message: String,
}

pub(super) type Check = Result<(), Violation>;

pub(super) fn broken<T>(rule: &'static str, message: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { rule, message: message.into() })
}

/// Why a record may have changed.
pub(super) enum Cause<'a> {
    Insert,
    Claim(ReplicaId),
    Expire,
    Adopt(ReplicaId),
    Run(&'a Change, Answer),
    Command(Command, Answer),
}

/// What is known of a task.
#[derive(Debug)]
struct Known {
    task: Task,
    /// In this generation.
    claims: u32,
    releases: u32,
    losses_in_a_row: u32,
    has_ended: bool,
}

/// What is known of a registration.
#[derive(Debug)]
struct Member {
    host: u32,
    beat_at: Instant,
    dead: bool,
    drains: bool,
}

/// What is known of a process.
#[derive(Debug, Default)]
struct Host {
    id: Option<(ReplicaId, Option<Instant>)>,
    /// Others may have taken its tasks over while its runs go on.
    superseded: bool,
    gone: bool,
    last_claim: Option<LastClaim>,
}

#[derive(Debug)]
struct LastClaim {
    replica: ReplicaId,
    number: u64,
    gave: usize,
    answered: bool,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    known: BTreeMap<TaskId, Known>,
    accepted: BTreeSet<TaskId>,
    removed: BTreeSet<TaskId>,
    settings: BTreeMap<String, QueueSettings>,
    permits: BTreeMap<String, VecDeque<Timestamp>>,
    members: BTreeMap<ReplicaId, Member>,
    hosts: BTreeMap<u32, Host>,
}

impl Checker {
    pub(super) fn set_queue(&mut self, queue: &str, settings: QueueSettings) {
        self.settings.insert(queue.to_owned(), settings);
    }

    pub(super) fn accepted(&mut self, id: &TaskId) {
        self.accepted.insert(id.clone());
    }

    pub(super) fn registered(&mut self, host: u32, id: ReplicaId) {
        self.members.insert(id, Member { host, beat_at: monotonic(), dead: false, drains: false });
        self.hosts.entry(host).or_default().id = Some((id, Some(monotonic())));
    }

    pub(super) fn beat(&mut self, id: ReplicaId) -> Check {
        match self.members.get_mut(&id) {
            Some(member) if member.dead => {
                broken("P dead for ever", format!("the dead replica {id} renewed its lease"))
            }
            Some(member) => {
                member.beat_at = monotonic();
                Ok(())
            }
            None => broken("P dead for ever", format!("the unknown replica {id} renewed its lease")),
        }
    }

    /// An operator has it drain.
    pub(super) fn drains(&mut self, id: ReplicaId) {
        self.members.entry(id).and_modify(|member| member.drains = true);
    }

    /// Who drains is given nothing new.
    fn check_takes(&self, id: ReplicaId, tasks: &[Task]) -> Check {
        match self.members.get(&id).is_some_and(|member| member.drains) && !tasks.is_empty() {
            true => broken("P who drains takes nothing", format!("{id} drains and is given {}", tasks[0].id)),
            false => Ok(()),
        }
    }

    pub(super) fn left(&mut self, id: ReplicaId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.dead = true;
            self.hosts.entry(member.host).or_default().superseded = true;
        }
    }

    pub(super) fn host_gone(&mut self, host: u32) {
        self.hosts.entry(host).or_default().gone = true;
    }

    /// A claim has been carried out.
    pub(super) fn claimed(&mut self, sim: &Sim, host: u32, request: &ClaimRequest, claim: &Claim) -> Check {
        if self.members.get(&request.replica).is_none_or(|member| member.dead) {
            return broken("I5", format!("{} claims and is not alive", request.replica));
        }
        for id in &claim.expired {
            sim.count(Fault::DeadlineExpired);
            self.moved(sim, id, &Cause::Expire)?;
        }
        let last = self.hosts.entry(host).or_default().last_claim.take();
        let repeats = last.as_ref().is_some_and(|l| l.replica == request.replica && l.number == request.number);
        if let Some(last) = last.filter(|last| last.replica == request.replica && !repeats)
            && !last.answered
            && last.gave > 0
        {
            let message = format!("claim {} of host {host} was never answered and is not repeated", last.number);
            return broken("P claims repeat", message);
        }
        let gave = claim.tasks.len();
        self.hosts.entry(host).or_default().last_claim =
            Some(LastClaim { replica: request.replica, number: request.number, gave, answered: false });
        if repeats {
            sim.count(Fault::ClaimRepeated);
            return Ok(());
        }
        self.check_takes(request.replica, &claim.tasks)?;
        if gave > request.limit {
            return broken("I10", format!("{gave} tasks for {} slots", request.limit));
        }
        self.check_order(request, claim)?;
        for task in &claim.tasks {
            self.moved(sim, &task.id, &Cause::Claim(request.replica))?;
            self.check_queue(task, claim.now)?;
        }
        Ok(())
    }

    /// The answer to the last claim has arrived: its tasks, or that the replica must register.
    pub(super) fn claim_answered(&mut self, host: u32) {
        if let Some(last) = self.hosts.entry(host).or_default().last_claim.as_mut() {
            last.answered = true;
        }
    }

    fn check_order(&self, request: &ClaimRequest, claim: &Claim) -> Check {
        let rank = |task: &Task| (std::cmp::Reverse(task.spec.priority), self.before(task).map(|r| r.run_at));
        if let Some(pair) = claim.tasks.windows(2).find(|pair| rank(&pair[0]) > rank(&pair[1])) {
            return broken("I12", format!("{} was claimed before {}", pair[0].id, pair[1].id));
        }
        // Whatever waits in a queue without bounds and ranks before what was taken from it must have been taken.
        let Some(last) = claim.tasks.iter().rfind(|task| self.is_unbounded(task.spec.queue.as_str())) else {
            return Ok(());
        };
        let skipped = self.known.values().map(|known| &known.task).find(|task| {
            let due = task.record.state == State::Waiting && task.record.run_at <= claim.now;
            let overdue = task.spec.deadline().is_some_and(|deadline| deadline <= claim.now);
            let asked = request.kinds.contains(&task.spec.kind) && task.spec.queue == last.spec.queue;
            let taken = claim.tasks.iter().any(|other| other.id == task.id);
            let named = request.among.as_ref().is_none_or(|ids| ids.contains(&task.id));
            due && asked && named && !overdue && !taken && rank(task) < rank(last)
        });
        skipped.map_or(Ok(()), |task| broken("I12", format!("{} was claimed, {} skipped", last.id, task.id)))
    }

    fn before(&self, task: &Task) -> Option<&Record> {
        self.known.get(&task.id).map(|known| &known.task.record)
    }

    fn is_unbounded(&self, queue: &str) -> bool {
        self.settings.get(queue).is_none_or(|s| s.concurrency.is_none() && s.rate.is_none() && !s.paused)
    }

    /// Limit, pause and rate of the queue of a task that has just been claimed.
    fn check_queue(&mut self, task: &Task, now: Timestamp) -> Check {
        let queue = task.spec.queue.as_str();
        let Some(settings) = self.settings.get(queue) else { return Ok(()) };
        if settings.paused {
            return broken("I10", format!("{} was claimed from the paused queue {queue}", task.id));
        }
        let running =
            |known: &&Known| known.task.spec.queue.as_str() == queue && known.task.record.state == State::Running;
        let count = self.known.values().filter(running).count();
        if let Some(limit) = settings.concurrency.filter(|limit| count > *limit as usize) {
            return broken("I10", format!("{count} run in {queue}, its limit is {limit}"));
        }
        if let Some(rate) = settings.rate {
            let permits = self.permits.entry(queue.to_owned()).or_default();
            permits.push_back(now);
            while permits.front().is_some_and(|first| now.since(*first) >= rate.period) {
                permits.pop_front();
            }
            if permits.len() > (rate.count + rate.burst) as usize {
                return broken("I10", format!("{} starts of {queue} in {:?}", permits.len(), rate.period));
            }
        }
        Ok(())
    }

    /// A rescue has been carried out.
    pub(super) fn rescued(&mut self, sim: &Sim, rescuer: ReplicaId, rescued: &Rescued) -> Check {
        for id in &rescued.dead {
            let Some(member) = self.members.get_mut(id).filter(|member| !member.dead) else { continue };
            member.dead = true;
            sim.count(Fault::DeclaredDead);
            let silent = monotonic().duration_since(member.beat_at);
            let host = self.hosts.entry(member.host).or_default();
            if host.gone {
                continue;
            }
            sim.count(Fault::DeclaredDeadAlive);
            host.superseded = true;
            if silent < OBSERVED_MIN {
                let message = format!("host {} was declared dead {silent:?} after its heartbeat", member.host);
                return broken("P two looks", message);
            }
        }
        self.check_takes(rescuer, &rescued.tasks)?;
        for task in &rescued.tasks {
            sim.count(Fault::Adopted);
            self.moved(sim, &task.id, &Cause::Adopt(rescuer))?;
        }
        Ok(())
    }

    /// Housekeeping has removed tasks, as many as it says, and only such as have ended long enough ago.
    pub(super) fn swept(&mut self, sim: &Sim, request: &SweepRequest, removed: u64) -> Check {
        let gone: Vec<TaskId> = self.known.keys().filter(|id| sim.peek(id).is_none()).cloned().collect();
        for id in &gone {
            sim.count(Fault::Retired);
            let Some(known) = self.known.remove(id) else { continue };
            let record = &known.task.record;
            let age = record.finished_at.map(|at| sim.store_now().since(at));
            let old_enough = age.is_some_and(|age| request.older_than.is_some_and(|than| age > than));
            if !request.states.contains(&record.state) || !old_enough {
                return broken("I1", format!("{id} was retired as {}, {age:?} after its end", record.state));
            }
            self.removed.insert(id.clone());
        }
        if gone.len() as u64 == removed {
            return Ok(());
        }
        broken("I1", format!("{removed} tasks were retired, {} are gone", gone.len()))
    }

    /// Compares a task with what it was before.
    pub(super) fn moved(&mut self, sim: &Sim, id: &TaskId, cause: &Cause) -> Check {
        let after = sim.peek(id);
        match (self.known.get_mut(id), after) {
            (None, None) => Ok(()),
            (None, Some(task)) => {
                let record = &task.record;
                let fresh = record.run == 0 && record.attempt == 0 && record.owner.is_none();
                if !matches!(cause, Cause::Insert) || !fresh || self.removed.contains(id) {
                    return broken("I2", format!("{id} appeared as {record:?}"));
                }
                let known = Known { task, claims: 0, releases: 0, losses_in_a_row: 0, has_ended: false };
                self.known.insert(id.clone(), known);
                Ok(())
            }
            (Some(known), None) => {
                let state = known.task.record.state;
                let deleted = matches!(cause, Cause::Command(Command::Delete, Answer::Applied(None)));
                if !deleted || !(state == State::Held || state.is_terminal()) {
                    return broken("I1", format!("{id} is gone; it was {state}"));
                }
                sim.count(Fault::Deleted);
                self.known.remove(id);
                self.removed.insert(id.clone());
                Ok(())
            }
            (Some(_), Some(task)) => self.changed(sim, task, cause),
        }
    }

    fn changed(&mut self, sim: &Sim, task: Task, cause: &Cause) -> Check {
        let Some(mut known) = self.known.remove(&task.id) else { return Ok(()) };
        let before = std::mem::replace(&mut known.task, task);
        let checked = self.check_change(sim, &mut known, &before.record, cause);
        self.known.insert(before.id, known);
        checked
    }

    fn check_change(&self, sim: &Sim, known: &mut Known, b: &Record, cause: &Cause) -> Check {
        let (id, a) = (known.task.id.clone(), known.task.record.clone());
        let refused = match cause {
            Cause::Run(_, answer) | Cause::Command(_, answer) => !matches!(answer, Answer::Applied(_)),
            Cause::Insert => true,
            Cause::Claim(_) | Cause::Expire | Cause::Adopt(_) => false,
        };
        if refused {
            let rule = if matches!(cause, Cause::Insert) { "I2" } else { "I6" };
            return if a == *b { Ok(()) } else { broken(rule, format!("{id} changed although it was refused")) };
        }
        if a.run < b.run || a.generation < b.generation {
            return broken("I5", format!("{id}: run {} became {}", b.run, a.run));
        }
        match cause {
            Cause::Claim(replica) => self.check_claim(sim, known, b, &a, *replica)?,
            Cause::Adopt(replica) => self.check_adoption(&id, b, &a, *replica)?,
            Cause::Run(change, _) => self.check_run(sim, known, b, &a, change)?,
            Cause::Command(command, _) => self.check_command(sim, known, b, &a, *command)?,
            Cause::Expire => {
                let deadline = known.task.spec.deadline().is_some_and(|deadline| deadline <= sim.store_now());
                let pending = matches!(b.state, State::Held | State::Waiting);
                if !pending || a.state != State::Failed || !deadline {
                    return broken("I3", format!("{id} expired from {}", b.state));
                }
            }
            Cause::Insert => {}
        }
        if a.state.is_terminal() && !b.state.is_terminal() {
            if known.has_ended {
                return broken("I4", format!("{id} ended twice in generation {}", a.generation));
            }
            known.has_ended = true;
        }
        if a.attempt != known.claims || a.interruptions != known.releases {
            let message = format!(
                "{id}: attempt {} and interruptions {} after {} claims and {} releases",
                a.attempt, a.interruptions, known.claims, known.releases
            );
            return broken("I9", message);
        }
        Ok(())
    }

    fn check_claim(&self, sim: &Sim, known: &mut Known, b: &Record, a: &Record, replica: ReplicaId) -> Check {
        let id = &known.task.id;
        if b.state != State::Waiting || a.state != State::Running {
            return broken("I3", format!("{id} was claimed: {} to {}", b.state, a.state));
        }
        if b.run_at > sim.store_now() {
            return broken("I11", format!("{id} was claimed before its time"));
        }
        if a.run != b.run + 1 || a.execution != a.run || a.owner != Some(replica) || a.attempt != b.attempt + 1 {
            return broken("I5", format!("{id} was claimed by {replica} and is {a:?}"));
        }
        self.no_live_run(sim, id)?;
        known.claims += 1;
        let charged = known.claims.saturating_sub(known.releases);
        let most = known.task.retry_policy().max_attempts;
        if charged > most || known.losses_in_a_row > LOST_IN_A_ROW_MAX {
            return broken("I9", format!("{id}: start {charged} of {most}"));
        }
        Ok(())
    }

    fn check_adoption(&self, id: &TaskId, b: &Record, a: &Record, replica: ReplicaId) -> Check {
        if !b.state.is_owned() || a.state != b.state {
            return broken("I3", format!("{id} was adopted: {} to {}", b.state, a.state));
        }
        if b.owner.and_then(|owner| self.members.get(&owner)).is_some_and(|owner| !owner.dead) {
            return broken("I5", format!("{id} was adopted from an owner that lives"));
        }
        if a.run != b.run + 1 || a.execution != b.execution || a.owner != Some(replica) {
            return broken("I5", format!("{id} was adopted by {replica} and is {a:?}"));
        }
        Ok(())
    }

    fn check_run(&self, sim: &Sim, known: &mut Known, b: &Record, a: &Record, change: &Change) -> Check {
        let (id, event) = (&change.id, &change.event);
        if b.owner.map(|owner| Token { owner, run: b.run }) != Some(change.token) {
            return broken("I6", format!("a stale {event:?} was applied to {id}"));
        }
        let expected = match (b.state, event) {
            (State::Running, RunEvent::Started(_) | RunEvent::Progress(_) | RunEvent::StopUnconfirmed) => {
                State::Running
            }
            (State::Running, _) if b.cancel_requested => State::Cancelled,
            (State::Running, RunEvent::Outcome(_)) => State::Exporting,
            (State::Running | State::Exporting, RunEvent::Complete(_)) => State::Succeeded,
            (State::Running, RunEvent::Retry(..) | RunEvent::Release(..)) => State::Waiting,
            (State::Running | State::Exporting, RunEvent::Fail(_)) => State::Failed,
            (state, _) => return broken("I3", format!("{event:?} was applied to {id}, which was {state}")),
        };
        if a.state != expected {
            let rule = match b.state {
                State::Exporting => "I8",
                _ if b.cancel_requested => "I13",
                _ => "I3",
            };
            return broken(rule, format!("{id} went from {} to {} by {event:?}", b.state, a.state));
        }
        if b.state == State::Running && a.state != State::Running {
            self.no_live_run(sim, id)?;
        }
        self.check_verdict(sim, known, b, a, event)?;
        match a.state {
            State::Succeeded => check_result(sim, id, a),
            State::Exporting => check_truth(sim, id, a.execution),
            _ => Ok(()),
        }
    }

    /// Counts retries and releases, and whether giving up was right.
    fn check_verdict(&self, sim: &Sim, known: &mut Known, b: &Record, a: &Record, event: &RunEvent) -> Check {
        let max_attempts = known.task.retry_policy().max_attempts;
        let (RunEvent::Retry(_, failure) | RunEvent::Release(_, failure) | RunEvent::Fail(failure)) = event else {
            return Ok(());
        };
        match failure.kind {
            FailureKind::Timeout => sim.count(Fault::TimedOut),
            FailureKind::Deadline => sim.count(Fault::DeadlineRunning),
            FailureKind::Export => sim.count(Fault::ExportFailed),
            _ => {}
        }
        if a.state == State::Waiting && matches!(event, RunEvent::Release(..)) {
            known.releases += 1;
            known.losses_in_a_row += u32::from(failure.kind == FailureKind::Lost);
        } else if a.state == State::Waiting {
            known.losses_in_a_row = 0;
        }
        let charged = known.claims.saturating_sub(known.releases);
        let charges = matches!(failure.kind, FailureKind::Error | FailureKind::Panic | FailureKind::Timeout);
        let bounded = known.task.spec.deadline().is_some();
        if a.state == State::Failed && charges && !failure.fatal && !bounded && charged < max_attempts {
            let message = format!("{} was given up after {charged} of {max_attempts} attempts", known.task.id);
            return broken("I9", message);
        }
        if a.state == State::Failed && b.state == State::Running && failure.kind == FailureKind::Export {
            return broken("I8", format!("{} failed to export before it exported", known.task.id));
        }
        Ok(())
    }

    fn check_command(&self, sim: &Sim, known: &mut Known, b: &Record, a: &Record, command: Command) -> Check {
        let id = known.task.id.clone();
        let legal = match (command, b.state) {
            (Command::Start, State::Held) => a.state == State::Waiting,
            (Command::Cancel, State::Held | State::Waiting) => a.state == State::Cancelled,
            (Command::Cancel, State::Running) => a.state == State::Running && a.cancel_requested,
            (Command::Requeue, state) if state.is_terminal() => {
                a.state == State::Waiting && a.generation == b.generation + 1 && a.attempt == 0 && !a.cancel_requested
            }
            (Command::RetryExport, State::Failed) => a.state == State::Exporting && a.owner.is_none(),
            (Command::Reschedule { .. }, State::Held | State::Waiting) => {
                *a == Record { run_at: a.run_at, ..b.clone() }
            }
            _ => false,
        };
        if !legal {
            return broken("I3", format!("{command:?} took {id} from {} to {}", b.state, a.state));
        }
        match command {
            Command::Cancel if a.state == State::Cancelled => {
                sim.count(Fault::CancelWaiting);
                self.no_live_run(sim, &id)?;
            }
            Command::Cancel => sim.count(Fault::CancelRunning),
            Command::Requeue => {
                sim.count(Fault::Requeued);
                (known.claims, known.releases, known.losses_in_a_row, known.has_ended) = (0, 0, 0, false);
            }
            Command::RetryExport => {
                sim.count(Fault::ExportRetried);
                known.has_ended = false;
            }
            Command::Start => sim.count(Fault::HeldStarted),
            Command::Reschedule { .. } => sim.count(Fault::Rescheduled),
            Command::Delete => {}
        }
        Ok(())
    }

    /// Nothing of the task may run now, except in a process that was given up while it lived.
    fn no_live_run(&self, sim: &Sim, id: &TaskId) -> Check {
        match sim.world.alive(id).iter().find(|live| !self.may_overlap(live)) {
            Some(live) => broken("I14", format!("{id} moves on while its execution {} still runs", live.execution)),
            None => Ok(()),
        }
    }

    fn may_overlap(&self, live: &Live) -> bool {
        !live.adoptable && self.hosts.get(&live.host).is_some_and(|host| host.superseded)
    }

    /// A replica asks for a start: is it its own task, and its lease good?
    pub(super) fn asks_start(&self, host: u32, lease_until: Option<Instant>, record: &Record, id: &TaskId) -> Check {
        let (current, registered_at) = self.hosts.get(&host).and_then(|host| host.id).unzip();
        let just_registered = registered_at.flatten() == Some(monotonic());
        if record.owner != current && !just_registered {
            return broken("P start", format!("host {host} starts {id}, claimed by {:?}", record.owner));
        }
        if lease_until.is_none_or(|until| until < monotonic()) && !just_registered {
            return broken("P start", format!("host {host} starts {id} past its lease"));
        }
        Ok(())
    }

    /// A run begins.
    pub(super) fn begins(&self, sim: &Sim, host: u32, adoptable: bool, task: &Task, again: bool) -> Check {
        let (id, execution) = (&task.id, task.record.execution);
        if again {
            return broken("I8", format!("execution {execution} of {id} was started twice"));
        }
        if let Some(other) = sim.world.alive(id).iter().find(|live| !self.may_overlap(live)) {
            return broken("I14", format!("{id} starts again while its execution {} runs", other.execution));
        }
        let superseded = !adoptable && self.hosts.get(&host).is_some_and(|host| host.superseded);
        let stored = sim.peek(id).map(|task| task.record);
        let is_owned = |record: &Record| record.state == State::Running && record.execution == execution;
        if !superseded && !stored.as_ref().is_some_and(is_owned) {
            return broken("I15", format!("execution {execution} of {id} begins, the store has {stored:?}"));
        }
        Ok(())
    }

    /// What is left of a run is removed.
    pub(super) fn releases(&self, live: &Live) -> Check {
        let Some(known) = self.known.get(&live.id) else { return Ok(()) };
        let record = &known.task.record;
        if record.execution != live.execution || self.may_overlap(live) {
            return Ok(());
        }
        if record.state.is_owned() {
            let state = record.state;
            return broken("P outcome first", format!("{} is {state} and its run is removed", live.id));
        }
        let kept = record.state == State::Failed && record.failure().is_some_and(|f| f.kind == FailureKind::Export);
        if kept && record.output().is_none() {
            return broken("I7", format!("{} waits for its export, and its output is removed", live.id));
        }
        Ok(())
    }

    /// Everything, once nothing moves any more.
    pub(super) fn at_rest(&mut self, sim: &Sim) -> Check {
        for id in &self.accepted {
            if !self.known.contains_key(id) && !self.removed.contains(id) {
                return broken("I1", format!("{id} was accepted and is gone"));
            }
        }
        if let Some(live) = sim.world.all_alive().first() {
            return broken("I15", format!("{} runs without a task", live.id));
        }
        for known in self.known.values() {
            let (id, record) = (&known.task.id, &known.task.record);
            if sim.peek(id).is_none_or(|task| task.record != *record) {
                return broken("I3", format!("{id} changed unseen"));
            }
            if !record.state.is_terminal() {
                return broken("liveness", format!("{id} is {record:?}"));
            }
            if record.state == State::Succeeded {
                check_result(sim, id, record)?;
            }
        }
        Ok(())
    }

    /// No task may be left with an owner whose process is gone, so long after the last crash.
    pub(super) fn all_rescued(&self) -> Check {
        let is_gone = |owner: ReplicaId| {
            let host = self.members.get(&owner).and_then(|member| self.hosts.get(&member.host));
            host.is_none_or(|host| host.gone)
        };
        let orphaned = |known: &&Known| {
            let record = &known.task.record;
            record.state.is_owned() && record.owner.is_none_or(is_gone)
        };
        match self.known.values().find(orphaned) {
            Some(known) => broken("rescue", format!("{} still has a dead owner", known.task.id)),
            None => Ok(()),
        }
    }

    /// Whether every task has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.known.values().all(|known| known.task.record.state.is_terminal())
    }

    /// The tasks that have not ended.
    pub(super) fn open(&self) -> Vec<(TaskId, State)> {
        let open = self.known.values().filter(|known| !known.task.record.state.is_terminal());
        open.map(|known| (known.task.id.clone(), known.task.record.state)).collect()
    }
}

/// A living replica must be seen silent at least so long before it may be declared dead.
const OBSERVED_MIN: Duration = Duration::from_millis(TTL.as_millis() as u64 / 3 + 1_000);

/// A success must have happened in the world.
fn check_truth(sim: &Sim, id: &TaskId, execution: u64) -> Check {
    let live = sim.world.find(id, execution);
    match live.as_ref().and_then(Live::ending) {
        Some(Ending::Outcome(Outcome::Succeeded(_))) => Ok(()),
        other => broken("I7", format!("execution {execution} of {id} counts as a success; it ended as {other:?}")),
    }
}

/// A success has a readable result, and it is the right one.
fn check_result(sim: &Sim, id: &TaskId, record: &Record) -> Check {
    check_truth(sim, id, record.execution)?;
    let found = match record.result() {
        Some(ResultRef::Inline(payload)) => Some(payload.clone()),
        Some(ResultRef::Stored { key, .. }) => sim.results.read(key),
        None => None,
    };
    let expected = sim.world.find(id, record.execution).map(|live| live.output());
    if found.is_none() || found != expected {
        return broken("I7", format!("the result of {id} is {found:?}, not {expected:?}"));
    }
    Ok(())
}
