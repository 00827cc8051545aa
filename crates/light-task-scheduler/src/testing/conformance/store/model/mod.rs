//! A property test: random operations on a store and on a reference model, the answers and the whole
//! visible state compared after each.

mod ops;
mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::test_runner::{Config, TestRunner};

use self::ops::{Event, Op, Said as SaidOp, TokenOp};
use self::reference::{LEASE, Member, Reference, Row};
use super::StoreHarness;
use super::world::{MINUTE, World, bytes, failure, name};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::state::{Command, RunEvent};
use crate::store::{
    CandidatesRequest, Change, Claim, ClaimRequest, Heartbeat, Holdings, NewReplica, Report, RescueRequest, Said,
    Suspect, SweepRequest, TaskQuery,
};
use crate::task::{
    FailureKind, Handle, NewTask, Outcome, Progress, ReplicaId, ResultRef, Start, State, Task, TaskId, Token,
};

/// How many random sequences [`check`] runs, unless the harness or the environment variable [`CASES_VARIABLE`] says
/// otherwise.
pub const CASES: u32 = 2_000;
/// Overrides [`CASES`].
pub const CASES_VARIABLE: &str = "LTS_MODEL_CASES";
/// How far the store's time may run ahead of the model's: what real time passes in one sequence.
const DRIFT: Duration = Duration::from_secs(20);
/// Half a minute: added where a time must never be met exactly.
const HALF: Duration = Duration::from_secs(30);

/// Compares a store with the model over many random sequences of operations, each on a fresh store.
/// A failing sequence is shrunk, and the shortest is printed.
///
/// `paused`: tokio's time stands still, as in the cases. Where it does not, the harness's store needs a clock of its
/// own that stands still between calls of [`advance`](StoreHarness::advance): what happens at one time is ordered by
/// insertion, in the store as in the model.
pub fn check<H: StoreHarness>(paused: bool, harness: impl Fn() -> H) {
    let told = std::env::var(CASES_VARIABLE).ok().and_then(|text| text.parse().ok());
    let cases = told.unwrap_or_else(|| harness().sequences());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&ops::sequence(), |ops| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build();
        runtime.unwrap().block_on(async {
            let harness = harness();
            let mut pair = Pair::open(&harness).await;
            for op in &ops {
                pair.step(op).await;
                pair.compare(op).await;
            }
        });
        Ok(())
    });
    if let Err(difference) = outcome {
        panic!("the store differs from the model: {difference}");
    }
}

/// A store and the model of it.
struct Pair<'a> {
    w: World<'a>,
    model: Reference,
    /// The replicas that operations name by number.
    slots: [ReplicaId; ops::SLOTS],
    /// What was seen of them: the beat, and how many beats they had sent by then.
    seen: BTreeMap<ReplicaId, (u64, u64)>,
    claims: BTreeMap<ReplicaId, u64>,
    registered: u8,
    keys: u32,
}

fn task_id(number: u8) -> TaskId {
    TaskId::new(&format!("t{number}")).unwrap()
}

impl<'a> Pair<'a> {
    async fn open(harness: &'a dyn StoreHarness) -> Self {
        let w = World::open(harness).await;
        let by_priority = w.store.capabilities().priority;
        let model = Reference::new(by_priority, w.now().await);
        let slots = [ReplicaId::from_bytes([0; 16]); ops::SLOTS];
        let (seen, claims) = (BTreeMap::new(), BTreeMap::new());
        let mut pair = Pair { w, model, slots, seen, claims, registered: 0, keys: 0 };
        for slot in 0..ops::SLOTS {
            pair.register(slot).await;
        }
        pair
    }

    async fn step(&mut self, op: &Op) {
        match op {
            Op::Insert(new) => self.insert(new).await,
            Op::Claim { slot, kinds, queues, limit, among } => {
                let replica = self.slots[*slot];
                let number = self.claims.entry(replica).or_default();
                *number += 1;
                let number = *number;
                let (kinds, queues) = (ops::names(ops::KINDS, *kinds), ops::names(ops::QUEUES, *queues));
                // The highest first: the order of the names must not matter.
                let among = among.map(|set| (0..8).rev().filter(|n| set & (1 << n) != 0).map(task_id).collect());
                self.claim(ClaimRequest { replica, number, kinds, queues, limit: *limit, among }).await;
            }
            Op::Window { kinds, queues, per_lane } => self.window(*kinds, *queues, *per_lane).await,
            Op::ClaimAgain { slot } => {
                let last = self.model.members[&self.slots[*slot]].last.clone();
                if let Some((request, _)) = last {
                    self.claim(request).await;
                }
            }
            Op::Report { task, token, event } => self.report(*task, *token, event).await,
            Op::Command { task, command } => {
                self.command(*task, *command).await;
            }
            Op::Reschedule { task, minutes, priority } => {
                let at = |minutes: i8| match u32::try_from(minutes) {
                    Ok(minutes) => self.model.now + MINUTE * minutes + HALF,
                    Err(_) => Timestamp::default(),
                };
                let run_at = minutes.map(at);
                self.command(*task, Command::Reschedule { run_at, priority: *priority }).await;
            }
            Op::Post { task, behind, said } => self.post(*task, *behind, said).await,
            Op::Beat { slot, holdings } => self.beat(*slot, *holdings).await,
            Op::Look => self.look().await,
            Op::Leave { slot } => {
                self.model.members.get_mut(&self.slots[*slot]).unwrap().dead = true;
                self.w.store.leave(self.slots[*slot]).await.unwrap();
            }
            Op::Drain { slot } => {
                let replica = self.slots[*slot];
                let answer = self.w.store.drain(replica).await.map_err(|error| error.kind());
                assert_eq!(answer, self.model.drain(replica), "drain");
            }
            Op::Register { slot } => self.register(*slot).await,
            Op::Rescue { slot, suspects, look, kinds, limit } => {
                if *look {
                    self.look().await;
                }
                self.rescue(*slot, suspects, *kinds, *limit).await;
            }
            Op::Set { queue, settings } => {
                let queue = name(ops::QUEUES[*queue]);
                self.model.queues.insert(queue.clone(), *settings);
                self.w.store.set_queue(queue, *settings).await.unwrap();
            }
            Op::Sweep { states, minutes, limit, except, confirm } => {
                self.sweep(*states, *minutes, *limit, *except, *confirm).await;
            }
            Op::Pass { minutes } => {
                self.model.now = self.model.now + MINUTE * *minutes;
                self.w.pass(MINUTE * *minutes).await;
            }
        }
    }

    async fn command(&mut self, task: u8, command: Command) {
        let expected = self.model.command(&task_id(task), command);
        assert_eq!(self.w.command(&task_id(task), command).await, expected, "{command:?} of {task}");
    }

    async fn insert(&mut self, new: &[ops::New]) {
        let now = self.model.now;
        let make = |new: &ops::New| {
            let mut task = NewTask::with_payload(name(ops::KINDS[new.kind]), bytes(&[new.payload]));
            task.id = Some(task_id(new.id));
            task = task.queue(ops::QUEUES[new.queue]).unwrap().priority(new.priority).start(match new.start {
                0 => Start::Held,
                1..4 => Start::After(MINUTE * u32::from(new.start)),
                4 => Start::At(now + MINUTE + HALF),
                _ => Start::Now,
            });
            if let Some(minutes) = new.deadline {
                task = task.deadline(now + MINUTE * minutes + HALF);
            }
            if new.keep { task.label("keep", "").unwrap() } else { task }
        };
        let tasks: Vec<NewTask> = new.iter().map(make).collect();
        let expected: Vec<_> = tasks.iter().map(|task| self.model.insert(task)).collect();
        let answers = self.w.insert(tasks).await;
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.kind())).collect();
        assert_eq!(answers, expected, "insert");
    }

    async fn claim(&mut self, request: ClaimRequest) {
        let answer = self.w.store.claim(request.clone()).await;
        if !self.model.is_alive(request.replica) {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotRegistered);
            return;
        }
        let claim = answer.unwrap();
        let last = &self.model.members[&request.replica].last;
        let repeats = last.as_ref().is_some_and(|(last, _)| last.number == request.number);
        let takes = self.model.takes(request.replica);
        let (mut overdue, mut told) = (self.model.overdue(), claim.expired.clone());
        overdue.sort();
        told.sort();
        // A repeated claim, or one of who drains, may or may not look at deadlines.
        assert!(told == overdue || (repeats || !takes) && told.is_empty(), "expired: {told:?}, overdue: {overdue:?}");
        told.iter().for_each(|id| self.model.expire(id));
        let expected = match (repeats, takes) {
            (true, _) => self.model.repeated(request.replica),
            (false, true) => self.model.claim(&request),
            (false, false) => vec![],
        };
        assert_eq!(super::world::ids(&claim.tasks), expected, "claim");
        for task in &claim.tasks {
            let row = self.model.row(&task.id).unwrap();
            same(row, task);
        }
        if !takes {
            assert_eq!(claim.next_at, None, "who drains need not ask again");
        } else if !repeats {
            self.check_next(&request, &claim);
        }
    }

    async fn window(&mut self, kinds: u8, queues: u8, per_lane: usize) {
        let (kinds, queues) = (ops::names(ops::KINDS, kinds), ops::names(ops::QUEUES, queues));
        let request = CandidatesRequest { kinds, queues, per_lane };
        let told = self.w.store.candidates(request.clone()).await.unwrap().tasks;
        let expected = self.model.candidates(&request);
        let ids: Vec<_> = told.iter().map(|candidate| candidate.id.clone()).collect();
        assert_eq!(ids, expected, "{request:?}");
        for candidate in told {
            let by_priority = self.w.store.capabilities().priority;
            let row = self.model.row(&candidate.id).unwrap();
            assert_eq!((&candidate.queue, &candidate.kind), (&row.queue, &row.kind));
            assert_eq!(candidate.priority, if by_priority { row.priority } else { 0 });
            assert!(near(candidate.run_at, row.run_at.unwrap()), "{candidate:?}");
        }
    }

    /// Not later than needed, and no busy loop.
    fn check_next(&self, request: &ClaimRequest, claim: &Claim) {
        let (latest, leftover) = self.model.ask_again(request);
        if let Some(latest) = latest {
            let next = claim.next_at;
            assert!(next.is_some_and(|next| next <= latest + DRIFT), "next: {next:?}, needed: {latest}");
        }
        if !leftover {
            assert!(claim.next_at.is_none_or(|next| next > claim.now), "{:?} is a busy loop", claim.next_at);
        }
    }

    async fn report(&mut self, task: u8, token: TokenOp, event: &Event) {
        let id = task_id(task);
        let now = self.model.now;
        let row = self.model.row(&id);
        let (owner, run) = row.map_or((None, 0), |row| (row.owner, row.run));
        let owner = owner.unwrap_or(self.slots[0]);
        let token = match token {
            TokenOp::Current => Token { owner, run },
            TokenOp::Earlier => Token { owner, run: run.saturating_sub(1) },
            TokenOp::Of(slot) => Token { owner: self.slots[slot], run },
        };
        let later = |minutes: u32| now + MINUTE * minutes;
        let event = match event {
            Event::Started(n) => RunEvent::Started(n.map(|n| Handle::new(&n.to_string()).unwrap())),
            Event::Progress(done) => RunEvent::Progress(Progress { done: *done, ..Progress::default() }),
            Event::Unconfirmed => RunEvent::StopUnconfirmed,
            Event::Outcome(output) => RunEvent::Outcome(output.map(|byte| bytes(&[byte]))),
            Event::CompleteInline(byte) => RunEvent::Complete(ResultRef::Inline(bytes(&[*byte]))),
            Event::CompleteStored => {
                self.keys += 1;
                RunEvent::Complete(super::world::stored(&format!("k{}", self.keys)))
            }
            Event::Retry(minutes, kind) => RunEvent::Retry(later(*minutes), failure(*kind)),
            Event::Release(minutes, kind) => RunEvent::Release(later(*minutes), failure(*kind)),
            Event::Fail(kind) => RunEvent::Fail(failure(*kind)),
            Event::Cancelled => RunEvent::Cancelled,
        };
        let expected = self.model.report(&id, token, &event);
        let change = Change { id, token, event };
        let answers = self.w.store.apply(vec![change.clone()]).await.unwrap();
        assert_eq!(answers, [expected], "{change:?}");
    }

    async fn post(&mut self, task: u8, behind: i8, said: &SaidOp) {
        let id = task_id(task);
        let execution = self.model.row(&id).map_or(0, |row| row.execution).saturating_add_signed(behind.into());
        let said = match said {
            SaidOp::Progress(done) => Said::Progress(Progress { done: *done, ..Progress::default() }),
            SaidOp::Succeeded(output) => Said::Ended(Outcome::Succeeded(output.map(|byte| bytes(&[byte])))),
            SaidOp::Failed => Said::Ended(Outcome::Failed(failure(FailureKind::Error))),
        };
        let expected = self.model.post(&id, execution, &said);
        let report = Report { id, execution, said };
        assert_eq!(self.w.store.post_reports(vec![report.clone()]).await.unwrap(), [expected], "{report:?}");
    }

    async fn register(&mut self, slot: usize) {
        self.registered += 1;
        let id = ReplicaId::from_bytes([self.registered; 16]);
        self.slots[slot] = id;
        let until = self.model.now + LEASE;
        self.model.members.insert(id, Member { dead: false, draining: false, until, beats: 0, last: None });
        self.w.store.register(NewReplica { id, name: "model".to_owned(), ttl: LEASE, remote: false }).await.unwrap();
    }

    async fn beat(&mut self, slot: usize, right: Option<bool>) {
        let replica = self.slots[slot];
        let rows: Vec<&Row> = self.model.rows.iter().filter(|row| row.owner == Some(replica)).collect();
        let rows: Vec<&Row> = rows.into_iter().filter(|row| row.state.is_owned()).collect();
        let mut owned: Vec<_> = rows.iter().map(|row| (row.id.clone(), row.run)).collect();
        let mut cancel: Vec<_> = rows.iter().filter(|row| row.wished).map(|row| row.id.clone()).collect();
        let mut holdings = Holdings::default();
        owned.iter().for_each(|(id, run)| holdings.add(id, *run));
        if right == Some(false) {
            holdings.hash ^= 1;
        }
        let beat = Heartbeat { replica, holdings: right.map(|_| holdings) };
        let reply = self.w.store.heartbeat(beat).await;
        let now = self.model.now;
        let member = self.model.members.get_mut(&replica).unwrap();
        if member.dead {
            assert_eq!(reply.unwrap_err().kind(), ErrorKind::NotRegistered);
            return;
        }
        let mut reply = reply.unwrap();
        member.beats += 1;
        member.until = now + LEASE;
        assert_eq!(reply.drain, member.draining, "whether it drains");
        assert!(near(reply.now, now), "now {} for {now}", reply.now);
        owned.sort();
        cancel.sort();
        reply.cancel.sort();
        assert_eq!(reply.cancel, cancel, "wishes to cancel");
        let told = reply.owned.map(|mut told| {
            told.sort();
            told
        });
        assert_eq!(told, (right == Some(false)).then_some(owned), "what is owned");
        self.check_reports(replica, reply.reports);
    }

    fn check_reports(&mut self, replica: ReplicaId, reports: Vec<Report>) {
        let mut told: BTreeMap<TaskId, Report> =
            reports.into_iter().map(|report| (report.id.clone(), report)).collect();
        for row in self.model.rows.iter_mut().filter(|row| row.owner == Some(replica)) {
            // Whether an unfetched report survives the outcome is the store's affair: the owner ignores it.
            if row.state == State::Exporting {
                told.remove(&row.id);
            }
            let Some(posted) = row.posted.as_mut().filter(|posted| posted.is_due(row.run)) else { continue };
            posted.given_to = Some(row.run);
            let report = told.remove(&row.id).expect("the report is handed out");
            assert_eq!((report.execution, report.said), (row.execution, posted.said.clone()));
        }
        assert!(told.is_empty(), "handed out for no reason: {told:?}");
    }

    async fn look(&mut self) {
        for status in self.w.store.replicas().await.unwrap() {
            // The one that asked for the time at the start has left.
            let Some(member) = self.model.members.get(&status.id) else { continue };
            assert_eq!((status.dead, status.draining), (member.dead, member.draining), "{status:?}");
            assert!(status.dead || status.expired != self.model.is_alive(status.id), "{status:?}");
            self.seen.insert(status.id, (status.beat, member.beats));
        }
        let alive = self.model.members.values().filter(|member| !member.dead).count();
        let listed = self.w.store.replicas().await.unwrap().iter().filter(|status| !status.dead).count();
        assert_eq!(listed, alive);
    }

    async fn rescue(&mut self, slot: usize, suspects: &[usize], kinds: u8, limit: usize) {
        let replica = self.slots[slot];
        let known =
            suspects.iter().filter_map(|slot| self.seen.get(&self.slots[*slot]).map(|it| (self.slots[*slot], *it)));
        let known: BTreeMap<ReplicaId, (u64, u64)> = known.collect();
        let suspects = known.iter().map(|(id, (beat, _))| Suspect { id: *id, beat: *beat }).collect();
        let kinds = ops::names(ops::KINDS, kinds);
        let request = RescueRequest { replica, suspects, kinds: kinds.clone(), queues: vec![], limit };
        let answer = self.w.store.rescue(request).await;
        if !self.model.is_alive(replica) {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotRegistered);
            return;
        }
        let rescued = answer.unwrap();
        if !self.model.takes(replica) {
            assert!(rescued.dead.is_empty() && rescued.tasks.is_empty(), "who drains rescues nobody: {rescued:?}");
            return;
        }
        let mut dead = Vec::new();
        for (id, (_, beats)) in known {
            let expired = !self.model.is_alive(id);
            let member = self.model.members.get_mut(&id).unwrap();
            member.dead |= expired && member.beats == beats;
            if member.dead {
                dead.push(id);
            }
        }
        let mut told = rescued.dead;
        told.sort();
        assert_eq!(told, dead, "the dead");
        self.check_adopted(replica, &kinds, limit, &rescued.tasks);
    }

    /// Claims of one minute are equally old: the store chooses among them.
    fn check_adopted(&mut self, by: ReplicaId, kinds: &[crate::Name], limit: usize, tasks: &[Task]) {
        let orphans: Vec<_> =
            self.model.orphans(kinds).into_iter().map(|row| (row.started.unwrap(), row.id.clone())).collect();
        assert_eq!(tasks.len(), limit.min(orphans.len()), "adopted");
        for ((started, _), task) in orphans.iter().zip(tasks) {
            assert!(orphans.iter().any(|(at, id)| at == started && *id == task.id), "{} is older", task.id);
        }
        for task in tasks {
            self.model.adopt(&task.id, by);
            same(self.model.row(&task.id).unwrap(), task);
        }
    }

    async fn sweep(&mut self, states: u8, minutes: Option<u32>, limit: usize, except: bool, confirm: bool) {
        let request = SweepRequest {
            states: State::ALL.into_iter().filter(|state| states & (1 << *state as u8) != 0).collect(),
            older_than: minutes.map(|minutes| MINUTE * minutes + HALF),
            except_label: except.then(|| name("keep")),
            limit,
            confirmed: if confirm { self.model.garbage.iter().take(1).cloned().collect() } else { vec![] },
        };
        let sweepable = self.model.sweepable(&request);
        request.confirmed.iter().for_each(|key| {
            self.model.garbage.remove(key);
        });
        let before = self.model.garbage.len();
        let sweep = self.w.store.sweep(request).await.unwrap();
        assert_eq!(sweep.removed as usize, limit.min(sweepable.len()), "removed");
        let found = self.w.store.get(&sweepable).await.unwrap();
        let gone: Vec<&TaskId> =
            sweepable.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(id, _)| id).collect();
        assert_eq!(gone.len(), sweep.removed as usize, "what was removed is gone");
        gone.into_iter().for_each(|id| self.model.remove(id));
        assert!(sweep.garbage.len() <= limit && sweep.garbage.len() >= limit.min(before), "{:?}", sweep.garbage);
        assert!(sweep.garbage.iter().all(|key| self.model.garbage.contains(key)), "{:?}", sweep.garbage);
    }

    /// The whole visible state.
    async fn compare(&mut self, op: &Op) {
        let tasks = self.w.list(TaskQuery::default()).await;
        let ids: Vec<_> = tasks.iter().map(|task| &task.id).collect();
        let expected: Vec<_> = self.model.rows.iter().rev().map(|row| &row.id).collect();
        assert_eq!(ids, expected, "the tasks after {op:?}");
        for (row, task) in self.model.rows.iter().rev().zip(&tasks) {
            same(row, task);
        }
        let mut counts: BTreeMap<_, ([u64; State::ALL.len()], u64)> = BTreeMap::new();
        for row in &self.model.rows {
            let count = counts.entry(row.queue.clone()).or_default();
            count.0[row.state as usize] += 1;
            count.1 += u64::from(row.state == State::Waiting && row.run_at.unwrap() > self.model.now);
        }
        let told = self.w.store.counts().await.unwrap().into_iter();
        let told = told.filter(|count| count.by_state.iter().sum::<u64>() > 0);
        let told: BTreeMap<_, _> = told.map(|it| (it.queue, (it.by_state, it.scheduled))).collect();
        assert_eq!(told, counts, "the counts after {op:?}");
        let queues: Vec<_> = self.model.queues.iter().map(|(queue, settings)| (queue.clone(), *settings)).collect();
        assert_eq!(self.w.store.queues().await.unwrap(), queues, "the queues after {op:?}");
    }
}

fn near(told: Timestamp, model: Timestamp) -> bool {
    told >= model && told <= model + DRIFT
}

fn both_near(told: Option<Timestamp>, model: Option<Timestamp>) -> bool {
    match (told, model) {
        (Some(told), Some(model)) => near(told, model),
        (told, model) => told == model,
    }
}

/// Whether a task is what the model says it is, field by field.
fn same(row: &Row, task: &Task) {
    let (spec, record) = (&task.spec, &task.record);
    assert_eq!((&task.id, &spec.queue, &spec.kind), (&row.id, &row.queue, &row.kind));
    assert_eq!((&spec.payload, spec.priority, spec.deadline()), (&row.payload, row.priority, row.deadline));
    assert_eq!(spec.label("keep").is_some(), row.keep);
    let id = &row.id;
    assert_eq!(record.state, row.state, "the state of {id}");
    let fence = (record.owner, record.run, record.execution);
    assert_eq!(fence, (row.owner, row.run, row.execution), "the fence of {id}");
    let budget = (record.generation, record.attempt, record.interruptions, record.lost_in_a_row);
    assert_eq!(budget, (row.generation, row.attempt, row.interruptions, row.lost), "the budget of {id}");
    let flags = (record.cancel_requested, record.stop_unconfirmed);
    assert_eq!(flags, (row.wished, row.unconfirmed), "the flags of {id}");
    assert_eq!(record.handle().map(Handle::as_str), row.handle.as_deref(), "the handle of {id}");
    assert_eq!(record.progress().map(|progress| progress.done), row.progress, "the progress of {id}");
    assert_eq!((record.output(), record.result()), (row.output.as_ref(), row.result.as_ref()), "what {id} made");
    assert_eq!(record.failure().map(|failure| failure.kind), row.failure, "the failure of {id}");
    let attempts = record.attempts().iter();
    let history: Vec<_> = attempts.map(|it| (it.attempt, it.execution, it.replica, it.failure.kind)).collect();
    assert_eq!(history, row.history, "the history of {id}");
    assert!(near(spec.created_at, row.created), "{id} was created at {}", spec.created_at);
    assert!(
        row.run_at.is_none_or(|at| near(record.run_at, at)),
        "{id} may run at {}, not {:?}",
        record.run_at,
        row.run_at
    );
    assert!(both_near(record.started_at, row.started), "{id} started at {:?}", record.started_at);
    assert!(both_near(record.finished_at, row.finished), "{id} finished at {:?}", record.finished_at);
}
