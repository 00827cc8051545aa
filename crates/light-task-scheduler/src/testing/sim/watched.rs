//! The real store, with the judge looking at every call.

use std::sync::Arc;

use async_trait::async_trait;

use super::checker::{Cause, broken};
use super::faults::Fault;
use super::sim::Sim;
use crate::error::Result;
use crate::state::{Command, Refusal};
use crate::store::{
    Answer, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery, holding_hash,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

/// The store as one process sees it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) sim: Arc<Sim>,
    pub(super) host: u32,
}

impl Watched {
    fn look_at(&self, id: &TaskId, answer: Answer) {
        match answer {
            Answer::Refused(Refusal::NotRequested) => {
                self.sim.check(|_| broken("P wishes", format!("the run of {id} was cancelled, and nobody wished it")));
            }
            Answer::Refused(Refusal::Stale) => self.sim.count(Fault::StaleRefused),
            Answer::Refused(Refusal::TooLate(_)) => self.sim.count(Fault::CancelTooLate),
            Answer::Already(_) => self.sim.count(Fault::AlreadyApplied),
            _ => {}
        }
    }

    fn note(&self, op: u64, number: u64, line: impl FnOnce() -> String) {
        let host = self.host;
        self.sim.tick();
        self.sim.note(&[op, host.into(), number], || format!("host {host} {}", line()));
    }
}

fn digest(tasks: &[Task]) -> u64 {
    tasks.iter().fold(0, |sum, task| sum.rotate_left(7) ^ holding_hash(&task.id, task.record.run))
}

fn names(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|task| format!("{}/{}", task.id, task.record.run)).collect()
}

#[async_trait]
impl Store for Watched {
    fn capabilities(&self) -> Capabilities {
        self.sim.memory.capabilities()
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        let answers = self.sim.memory.insert(tasks).await?;
        for inserted in answers.iter().flatten() {
            let id = inserted.id();
            self.note(10, holding_hash(id, 0), || format!("insert {inserted:?}"));
            if !matches!(inserted, Inserted::New(_)) {
                self.sim.count(Fault::InsertRepeated);
            }
            self.sim.check(|checker| checker.moved(&self.sim, id, &Cause::Insert));
        }
        Ok(answers)
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        let answer = self.sim.memory.claim(request.clone()).await;
        let sum = answer.as_ref().map_or(1, |claim| digest(&claim.tasks));
        self.note(11, sum ^ request.number, || match &answer {
            Ok(claim) => format!("claim {} of {}: {:?}", request.number, request.limit, names(&claim.tasks)),
            Err(error) => format!("claim {}: {error}", request.number),
        });
        if let Ok(claim) = &answer {
            self.sim.check(|checker| checker.claimed(&self.sim, self.host, &request, claim));
        }
        answer
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        self.sim.memory.candidates(request).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(changes.len());
        // One by one, so that none hides behind the next: items of a call are independent.
        for change in changes {
            let answer = self.sim.memory.apply(vec![change.clone()]).await?.remove(0);
            let number = holding_hash(&change.id, change.token.run) ^ answer.state().map_or(0, |state| state as u64);
            self.note(12, number, || format!("{} {:?}: {answer:?}", change.id, change.event));
            self.look_at(&change.id, answer);
            self.sim.check(|checker| checker.moved(&self.sim, &change.id, &Cause::Run(&change, answer)));
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(commands.len());
        for (id, command) in commands {
            let answer = self.sim.memory.command(vec![(id.clone(), command)]).await?.remove(0);
            self.note(13, holding_hash(&id, number_of(command)), || format!("{command:?} {id}: {answer:?}"));
            self.look_at(&id, answer);
            self.sim.check(|checker| checker.moved(&self.sim, &id, &Cause::Command(command, answer)));
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        let answers = self.sim.memory.post_reports(reports.clone()).await?;
        self.note(14, answers.len() as u64, || format!("posts {reports:?}: {answers:?}"));
        Ok(answers)
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        let id = replica.id;
        let answer = self.sim.memory.register(replica).await;
        self.note(15, 0, || format!("registers as {id}: {answer:?}"));
        if answer.is_ok() {
            self.sim.check(|checker| {
                checker.registered(self.host, id);
                Ok(())
            });
        }
        answer
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        let id = heartbeat.replica;
        let answer = self.sim.memory.heartbeat(heartbeat).await;
        self.note(16, u64::from(answer.is_ok()), || match &answer {
            Ok(reply) => format!("beats; cancel {:?}, owned {:?}", reply.cancel, reply.owned),
            Err(error) => format!("beats: {error}"),
        });
        if answer.is_ok() {
            self.sim.check(|checker| checker.beat(id));
        }
        answer
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.note(17, 0, || "leaves".to_owned());
        self.sim.check(|checker| {
            checker.left(replica);
            Ok(())
        });
        self.sim.memory.leave(replica).await
    }

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.note(23, 0, || format!("has {replica} drain"));
        let answer = self.sim.memory.drain(replica).await;
        if answer.is_ok() {
            self.sim.check(|checker| {
                checker.drains(replica);
                Ok(())
            });
        }
        answer
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        let answer = self.sim.memory.replicas().await?;
        self.note(18, answer.len() as u64, || {
            let expired = answer.iter().filter(|status| status.expired).count();
            format!("looks at {} replicas, {expired} expired", answer.len())
        });
        Ok(answer)
    }

    async fn rescue(&self, request: RescueRequest) -> Result<Rescued> {
        let rescuer = request.replica;
        let answer = self.sim.memory.rescue(request).await;
        let sum = answer.as_ref().map_or(1, |rescued| digest(&rescued.tasks) ^ rescued.dead.len() as u64);
        self.note(19, sum, || match &answer {
            Ok(rescued) => format!("rescues; dead {:?}, adopts {:?}", rescued.dead, names(&rescued.tasks)),
            Err(error) => format!("rescues: {error}"),
        });
        if let Ok(rescued) = &answer {
            self.sim.check(|checker| checker.rescued(&self.sim, rescuer, rescued));
        }
        answer
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        let answer = self.sim.memory.get(ids).await?;
        self.note(20, answer.iter().flatten().fold(0, |sum, task| sum ^ task.record.run), || format!("gets {ids:?}"));
        Ok(answer)
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        self.sim.memory.list(query).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.sim.memory.counts().await
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        self.note(21, u64::from(settings.paused), || format!("sets queue {queue}: {settings:?}"));
        self.sim.check(|checker| {
            checker.set_queue(queue.as_str(), settings);
            Ok(())
        });
        self.sim.memory.set_queue(queue, settings).await
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        self.sim.memory.queues().await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        let answer = self.sim.memory.sweep(request.clone()).await?;
        self.note(22, answer.garbage.len() as u64, || format!("sweeps: {answer:?}"));
        self.sim.check(|checker| checker.swept(&self.sim, &request, answer.removed));
        Ok(answer)
    }

    async fn changed(&self, seen: Changes) -> Changes {
        self.sim.memory.changed(seen).await
    }
}

/// Tells commands apart.
fn number_of(command: Command) -> u64 {
    match command {
        Command::Start => 0,
        Command::Cancel => 1,
        Command::Requeue => 2,
        Command::RetryExport => 3,
        Command::Delete => 4,
        Command::Reschedule { run_at, priority } => {
            let at = run_at.map_or(1, |at| at.as_micros().cast_unsigned());
            5 ^ at.rotate_left(8) ^ priority.map_or(2, |priority| u64::from(priority.cast_unsigned())).rotate_left(40)
        }
    }
}
