//! The replicas, their crashes and restarts, the operators and the clients: one run from its first
//! action to rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::checker::broken;
use super::director::SimDirector;
use super::faults::Fault;
use super::gate::Gate;
use super::plan::{Action, KINDS, Plan, QUEUES, REPLICAS};
use super::sim::Sim;
use super::watched::Watched;
use crate::clock::monotonic;
use crate::error::ErrorKind;
use crate::scheduler::{Config, Scheduler, Shutdown};
use crate::state::Command;
use crate::store::{Store, StoreExt};
use crate::task::{Name, NewTask, State, TaskId};
use crate::testing::{FaultyStore, ScriptedExecutor};

/// How long after the last fault every task must have a living owner: holds up to 15 s, calls on their way up
/// to 9 s each, restarts, and the rescue itself, 8 s.
const RESCUE_WITHIN: Duration = Duration::from_secs(60);
/// How long everything may take to end once the faults have stopped.
const REST_WITHIN: Duration = Duration::from_secs(600);
/// How long after the last end everything must have been cleaned up.
const SETTLE: Duration = Duration::from_secs(25);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How long the last words of a replica may take.
const DRAIN_MARGIN: Duration = Duration::from_millis(4_100);
/// The process of clients and operators.
const CLIENT: u32 = 0;
/// How many calls a replica that is to die at a call survives at most.
const CRASH_WITHIN_CALLS: u64 = 600;

/// What a process tells the fleet.
#[derive(Debug)]
pub(super) enum Message {
    Crashed(u32),
    Up(u32, Option<Scheduler>),
    Drained(u32),
}

#[derive(Debug)]
struct Replica {
    gate: Arc<Gate>,
    scheduler: Option<Scheduler>,
    /// What users of this process are about. They die with it.
    users: JoinSet<()>,
    /// Ends the process once an operator has had it drain.
    leaver: JoinSet<()>,
}

pub(super) struct Fleet {
    sim: Arc<Sim>,
    director: Arc<SimDirector>,
    config: Config,
    replicas: Vec<Replica>,
    restarts: BTreeMap<Instant, Vec<usize>>,
    next_host: u32,
    sender: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
    client: FaultyStore,
    clients: JoinSet<()>,
    submitted: Vec<NewTask>,
}

impl Fleet {
    pub(super) fn new(sim: &Arc<Sim>, config: Config) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let gate = Gate::new(sim, CLIENT, None, &sender);
        let client = view(sim, &gate);
        let director = Arc::new(SimDirector::new(sim.clone(), client.clone()));
        let mut fleet = Fleet {
            sim: sim.clone(),
            director,
            config,
            replicas: Vec::new(),
            restarts: BTreeMap::new(),
            next_host: CLIENT + 1,
            sender,
            inbox,
            client,
            clients: JoinSet::new(),
            submitted: Vec::new(),
        };
        fleet.replicas = (0..REPLICAS).map(|_| fleet.launch()).collect();
        fleet
    }

    /// Carries the plan out, then waits for rest, then judges.
    pub(super) async fn carry_out(&mut self, plan: Plan) {
        let begun = monotonic();
        for (at, action) in plan.actions {
            self.live_until(begun + at.min(plan.chaos)).await;
            if self.sim.has_failed() {
                return;
            }
            self.act(action);
        }
        self.live_until(begun + plan.chaos).await;
        self.calm().await;
        let (end, rescued_by) = (monotonic() + REST_WITHIN, monotonic() + RESCUE_WITHIN);
        let mut looked = false;
        while !self.sim.has_failed() && !self.is_at_rest() {
            if monotonic() >= end {
                let open = self.sim.ask(|checker| checker.open());
                self.sim.check(|_| broken("liveness", format!("not ended in time: {open:?}")));
                return;
            }
            self.live_until(monotonic() + LOOK).await;
            if !looked && monotonic() >= rescued_by {
                looked = true;
                self.sim.check(|checker| checker.all_rescued());
            }
        }
        self.live_until(monotonic() + SETTLE).await;
        if !self.sim.has_failed() {
            self.judge();
        }
    }

    fn is_at_rest(&mut self) -> bool {
        while self.clients.try_join_next().is_some() {}
        let all_up = self.replicas.iter().all(|replica| replica.scheduler.is_some());
        all_up && self.clients.is_empty() && self.sim.ask(|checker| checker.all_ended())
    }

    fn judge(&mut self) {
        self.sim.check(|checker| checker.at_rest(&self.sim));
        for replica in &mut self.replicas {
            while replica.users.try_join_next().is_some() {}
            if !replica.users.is_empty() {
                let message = format!("{} users of host {} still wait", replica.users.len(), replica.gate.host);
                self.sim.check(|_| broken("waiters", message));
            }
            let Some(usage) = replica.scheduler.as_ref().map(Scheduler::usage) else { continue };
            if usage != (0, 0, 0) {
                let message = format!("host {} has (slots, exports, runs) {usage:?} at rest", replica.gate.host);
                self.sim.check(|_| broken("slots", message));
            }
        }
    }

    /// Begins a replica in a process of its own.
    fn launch(&mut self) -> Replica {
        let sim = &self.sim;
        let host = self.next_host;
        self.next_host += 1;
        let crash_at = sim.draw.chance(sim.weather.crash_at_call).then(|| sim.draw.below(CRASH_WITHIN_CALLS));
        let gate = Gate::new(sim, host, crash_at, &self.sender);
        self.director.add_host(&gate);
        let executor =
            |adoptable| Arc::new(ScriptedExecutor::new(sim.world.clone(), self.director.clone(), host, adoptable));
        let local = executor(false);
        let mut builder = Scheduler::builder(view(sim, &gate))
            .executor(KINDS[0], executor(true))
            .executor(KINDS[1], local.clone())
            .executor(KINDS[2], local)
            .config(self.config.clone())
            .clock(sim.clock.clone());
        if sim.weather.with_results {
            builder = builder.results(sim.results.clone());
        }
        let sender = self.sender.clone();
        let mut users = JoinSet::new();
        users.spawn(async move {
            let scheduler = builder.start().await.ok();
            // An error means that the run is over.
            let _ = sender.send(Message::Up(host, scheduler));
        });
        Replica { gate, scheduler: None, users, leaver: JoinSet::new() }
    }

    /// Lets time pass, and looks after the replicas meanwhile. Ends early when a rule is broken.
    async fn live_until(&mut self, until: Instant) {
        while !self.sim.has_failed() {
            let restart = self.restarts.keys().next().copied().unwrap_or(until).min(until);
            tokio::select! {
                biased;
                () = self.sim.failed.notified() => return,
                message = self.inbox.recv() => {
                    if let Some(message) = message {
                        self.take(message);
                    }
                }
                () = tokio::time::sleep_until(restart) => {
                    let due: Vec<Instant> = self.restarts.range(..=monotonic()).map(|(at, _)| *at).collect();
                    for at in due {
                        for index in self.restarts.remove(&at).unwrap_or_default() {
                            self.replicas[index] = self.launch();
                        }
                    }
                    if monotonic() >= until {
                        return;
                    }
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let (Message::Crashed(host) | Message::Up(host, _) | Message::Drained(host)) = &message;
        let Some(index) = self.replicas.iter().position(|replica| replica.gate.host == *host) else { return };
        match message {
            Message::Up(_, Some(scheduler)) => self.replicas[index].scheduler = Some(scheduler),
            Message::Up(_, None) => {
                self.sim.count(Fault::StartFailed);
                self.replicas[index].gate.crash();
            }
            Message::Drained(_) => self.replicas[index].gate.crash(),
            Message::Crashed(_) => {
                let replica = &mut self.replicas[index];
                replica.scheduler = None;
                replica.users.abort_all();
                replica.leaver.abort_all();
                let at = monotonic() + Duration::from_millis(1) + self.sim.draw.time(Duration::from_secs(5));
                self.restarts.entry(at).or_default().push(index);
            }
        }
    }

    fn act(&mut self, action: Action) {
        if !matches!(action, Action::Submit(_) | Action::Order(..)) {
            self.sim.note(&[2], || format!("{action:?}"));
        }
        match action {
            Action::Submit(task) => self.submit(*task),
            Action::Order(number, command) => self.order(number, command),
            Action::Resubmit(number) => {
                if let Some(task) = self.submitted.get(number).cloned() {
                    self.submit(task);
                }
            }
            Action::Pause(queue) => self.set_paused(queue, true),
            Action::Resume(queue) => self.set_paused(queue, false),
            Action::Crash(index) => {
                self.sim.count(Fault::CrashAtTime);
                self.replicas[index].gate.crash();
            }
            Action::Drain(index, grace, hand_over) => self.drain(index, Shutdown { grace, hand_over }),
            Action::HaveDrain(index) => self.have_drain(index),
            Action::Partition(index, lasts, hangs) => self.replicas[index].gate.cut_off(lasts, hangs),
            Action::Freeze(index, lasts) => {
                self.sim.count(Fault::Pause);
                self.replicas[index].gate.freeze(lasts);
            }
            Action::StepClock(step) => {
                self.sim.count(Fault::ClockForward);
                self.sim.clock.step(step);
            }
            Action::StepClockBack(step) => {
                self.sim.count(Fault::ClockBack);
                // What the store may have seen of the time it does not unsee.
                self.sim.tick();
                self.sim.clock.step_back(step);
                self.sim.draw_back(step);
            }
            Action::CutEngine(lasts) => self.director.cut_engine(lasts),
            Action::BreakResults(lasts) => {
                self.sim.count(Fault::ResultsFailed);
                self.sim.results.break_until(monotonic() + lasts);
            }
        }
    }

    /// A client that repeats its insertion until it is accepted.
    fn submit(&mut self, task: NewTask) {
        self.submitted.push(task.clone());
        self.wait_for(&task);
        let (client, sim) = (self.client.clone(), self.sim.clone());
        self.clients.spawn(async move {
            loop {
                match client.insert(vec![task.clone()]).await.map(|mut answers| answers.pop()) {
                    Ok(Some(Ok(inserted))) => {
                        return sim.check(|checker| {
                            checker.accepted(inserted.id());
                            Ok(())
                        });
                    }
                    Ok(answer) => return sim.check(|_| broken("I1", format!("an insertion was answered {answer:?}"))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
    }

    /// Sometimes somebody submits the task to a replica too, and waits there for its end.
    fn wait_for(&mut self, task: &NewTask) {
        if !self.sim.draw.chance(0.2) {
            return;
        }
        let (task, sim) = (task.clone(), self.sim.clone());
        let replica = &mut self.replicas[self.sim.draw.below(REPLICAS as u64) as usize];
        let Some(scheduler) = replica.scheduler.clone() else { return };
        replica.users.spawn(async move {
            let Ok(handle) = scheduler.submit(task).await else { return };
            drop(scheduler);
            // An error: the store failed, or the task is gone.
            let Ok(ended) = handle.wait().await else { return };
            sim.count(Fault::Awaited);
            if !ended.record.state.is_terminal() {
                sim.check(|_| broken("waiters", format!("{} was awaited and is {}", ended.id, ended.record.state)));
            }
        });
    }

    /// An operator gives an order to some replica that is up, else to the store.
    fn order(&mut self, number: usize, command: Command) {
        let Ok(id) = TaskId::new(&format!("t{number:03}")) else { return };
        let index = self.sim.draw.below(REPLICAS as u64) as usize;
        let Some(scheduler) = self.replicas[index].scheduler.clone() else {
            let client = self.client.clone();
            self.clients.spawn(async move { _ = client.order(&id, command).await });
            return;
        };
        self.replicas[index].users.spawn(async move {
            // Whatever the answer is: the judge looks at what it did.
            _ = match command {
                Command::Start => scheduler.start_held(&id).await,
                Command::Cancel => scheduler.cancel(&id).await,
                Command::Requeue => scheduler.requeue(&id).await,
                Command::RetryExport => scheduler.retry_export(&id).await,
                Command::Delete => scheduler.delete(&id).await,
                Command::Reschedule { run_at, priority } => scheduler.reschedule(&id, run_at, priority).await,
            };
        });
    }

    fn set_paused(&mut self, queue: usize, paused: bool) {
        let (Ok(queue), client) = (Name::new(QUEUES[queue]), self.client.clone()) else { return };
        self.sim.count(Fault::QueuePaused);
        self.clients.spawn(async move { while client.set_paused(&queue, paused).await.is_err() {} });
    }

    fn drain(&mut self, index: usize, how: Shutdown) {
        let replica = &mut self.replicas[index];
        let Some(scheduler) = replica.scheduler.clone() else { return };
        self.sim.count(if how.hand_over { Fault::HandOver } else { Fault::Drain });
        let (sender, host) = (self.sender.clone(), replica.gate.host);
        let (sim, begun) = (self.sim.clone(), monotonic());
        let bound = how.grace + self.config.stop_grace + DRAIN_MARGIN;
        replica.users.spawn(async move {
            // Whatever the answer is: the process ends.
            _ = scheduler.shutdown(how).await;
            let took = begun.elapsed();
            sim.count(Fault::DrainInTime);
            if took > bound {
                sim.check(|_| broken("drain", format!("host {host} took {took:?} to drain, more than {bound:?}")));
            }
            let _ = sender.send(Message::Drained(host));
        });
    }

    /// An operator has a replica drain, and repeats it until it is answered.
    fn have_drain(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let Some(scheduler) = replica.scheduler.clone() else { return };
        let (client, id) = (self.client.clone(), scheduler.replica());
        self.clients.spawn(async move {
            while let Err(error) = client.drain(id).await {
                if error.kind() == ErrorKind::NotFound {
                    // It has died, and maybe come back under another id.
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let (sender, host, sim) = (self.sender.clone(), replica.gate.host, self.sim.clone());
        replica.leaver.spawn(async move {
            scheduler.ended().await;
            sim.count(Fault::DrainedFromAfar);
            let _ = sender.send(Message::Drained(host));
        });
    }

    /// The faults stop, and operators settle what only they can.
    async fn calm(&mut self) {
        self.sim.calm();
        self.sim.restore_clock();
        while !self.clients.is_empty() && !self.sim.has_failed() {
            self.live_until(monotonic() + LOOK).await;
            while self.clients.try_join_next().is_some() {}
        }
        for queue in 0..QUEUES.len() {
            self.set_paused(queue, false);
        }
        for (id, state) in self.sim.ask(|checker| checker.open()) {
            if state == State::Held {
                let client = self.client.clone();
                self.clients.spawn(async move { _ = client.order(&id, Command::Start).await });
            }
        }
    }
}

/// The store as a process sees it, through its gate.
fn view(sim: &Arc<Sim>, gate: &Arc<Gate>) -> FaultyStore {
    let watched: Arc<dyn Store> = Arc::new(Watched { sim: sim.clone(), host: gate.host });
    FaultyStore::new(watched, gate.clone())
}
