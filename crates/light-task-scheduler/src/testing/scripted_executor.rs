//! An executor whose runs do what a script says, in a world that outlives replicas.
//!
//! A [`World`] is what really runs: an engine, a host, a service. Each replica gets its own
//! [`ScriptedExecutor`] on the same world. Runs of an adoptable executor survive their replica; those of
//! the other kind end with it ([`World::kill_host`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::task::{Failure, FailureKind, Handle, NewTask, Outcome, Payload, Progress, TaskId};

/// How a run ends if nobody stops it.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// So.
    Outcome(Outcome),
    /// It vanishes: nobody will ever know.
    Lost,
}

/// How a start goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Beginning {
    /// It runs.
    Runs,
    /// It has ended, as the script says, when the start answers.
    EndsAtOnce,
    /// No room.
    Busy(Duration),
    /// Never.
    Refused,
}

/// What one run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// How the start goes.
    pub beginning: Beginning,
    /// From the call until the run begins. A crash of the replica in between does not stop it.
    pub delay: Duration,
    /// From the beginning until the call is answered.
    pub reply_delay: Duration,
    /// How long it runs.
    pub lasts: Duration,
    /// How it ends.
    pub ending: Ending,
    /// The outcome does not carry the output: it is read by the handle.
    pub output_by_handle: bool,
    /// How long after its end it is pushed; each entry is one push.
    pub pushes: Vec<Duration>,
    /// Whether it pushes that it is under way, half-way.
    pub progress: bool,
    /// Whether one that has ended is pushed again when it is recovered.
    pub tells_when_recovered: bool,
    /// How long it ignores a stop.
    pub ignores_stop: Duration,
    /// How long it takes to stop.
    pub stop_takes: Duration,
}

impl Default for Script {
    /// A run that succeeds after a second, pushed once.
    fn default() -> Self {
        Script {
            beginning: Beginning::Runs,
            delay: Duration::ZERO,
            reply_delay: Duration::ZERO,
            lasts: Duration::from_secs(1),
            ending: Ending::Outcome(Outcome::Succeeded(None)),
            output_by_handle: false,
            pushes: vec![Duration::ZERO],
            progress: false,
            tells_when_recovered: false,
            ignores_stop: Duration::ZERO,
            stop_takes: Duration::ZERO,
        }
    }
}

/// Which method of an [`Executor`] was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum ExecutorCall {
    Start,
    Recover,
    Status,
    Output,
    Stop,
    Release,
}

/// Writes the scripts and watches the runs.
#[async_trait]
pub trait Director: Send + Sync + fmt::Debug {
    /// Before and after every call of a host's executor. Waiting delays the call.
    async fn passes(&self, host: u32, call: ExecutorCall);

    /// A start is asked for: what is its run to do?
    fn script(&self, host: u32, adoptable: bool, run: &Run) -> Script;

    /// A run begins. `again`: it had begun before, under the same name.
    fn begins(&self, host: u32, run: &Run, script: &Script, again: bool);

    /// What is left of a run is to be removed.
    fn releases(&self, live: &Live);

    /// Whether this host cannot reach the world just now.
    fn is_cut_off(&self, host: u32) -> bool;
}

/// A run in the world.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its task.
    pub id: TaskId,
    /// Which start of it.
    pub execution: u64,
    /// Who started it.
    pub host: u32,
    /// Whether it outlives its host.
    pub adoptable: bool,
    /// When it ends by itself.
    pub ends_at: Instant,
    /// When it was killed.
    pub killed_at: Option<Instant>,
    /// What is left of it was removed.
    pub released: bool,
    stop_asked_at: Option<Instant>,
    script: Script,
}

impl Live {
    /// Whether it runs now.
    pub fn is_alive(&self) -> bool {
        self.killed_at.is_none() && monotonic() < self.ends_at
    }

    /// How it ended by itself, if it did.
    pub fn ending(&self) -> Option<&Ending> {
        let by_itself = self.killed_at.is_none_or(|killed| killed >= self.ends_at);
        (by_itself && monotonic() >= self.ends_at).then_some(&self.script.ending)
    }

    /// What it puts out if it succeeds.
    pub fn output(&self) -> Payload {
        Payload::from_bytes(format!("\"{}#{}\"", self.id, self.execution).into_bytes())
    }

    /// How it ended, as its world knows it; `None` while it runs, and where nobody knows.
    fn end(&self) -> Option<Outcome> {
        if self.is_alive() {
            return None;
        }
        if self.killed_at.is_some() && self.ending().is_none() {
            return Some(Outcome::Failed(Failure::new(FailureKind::Error, "killed")));
        }
        self.outcome()
    }

    /// The outcome as it says it itself.
    fn outcome(&self) -> Option<Outcome> {
        match self.ending()? {
            Ending::Outcome(Outcome::Succeeded(_)) => {
                Some(Outcome::Succeeded((!self.script.output_by_handle).then(|| self.output())))
            }
            Ending::Outcome(failed) => Some(failed.clone()),
            Ending::Lost => None,
        }
    }
}

/// Everything that runs, or has run, by the name of its execution.
#[derive(Debug, Default)]
pub struct World {
    // `None`: proven never to have begun, and kept from beginning.
    runs: Mutex<BTreeMap<String, Option<Live>>>,
}

impl World {
    /// An empty world.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Ends what cannot outlive its host.
    pub fn kill_host(&self, host: u32) -> usize {
        let mut runs = self.runs();
        let dying = runs.values_mut().flatten().filter(|live| live.host == host && !live.adoptable && live.is_alive());
        dying.map(|live| live.killed_at = Some(monotonic())).count()
    }

    /// The runs of a task that are alive.
    pub fn alive(&self, id: &TaskId) -> Vec<Live> {
        let runs = self.runs();
        runs.values().flatten().filter(|live| live.id == *id && live.is_alive()).cloned().collect()
    }

    /// All runs that are alive.
    pub fn all_alive(&self) -> Vec<Live> {
        self.runs().values().flatten().filter(|live| live.is_alive()).cloned().collect()
    }

    /// One run.
    pub fn find(&self, id: &TaskId, execution: u64) -> Option<Live> {
        let runs = self.runs();
        runs.values().flatten().find(|live| live.id == *id && live.execution == execution).cloned()
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Option<Live>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, handle: &Handle) -> Option<Live> {
        self.runs().get(handle.as_str()).cloned().flatten()
    }

    fn change(&self, handle: &Handle, change: impl FnOnce(&mut Live)) {
        if let Some(Some(live)) = self.runs().get_mut(handle.as_str()) {
            change(live);
        }
    }
}

/// One host's way to the world.
#[derive(Debug, Clone)]
pub struct ScriptedExecutor {
    world: Arc<World>,
    director: Arc<dyn Director>,
    host: u32,
    adoptable: bool,
}

impl ScriptedExecutor {
    /// An executor of this host.
    pub fn new(world: Arc<World>, director: Arc<dyn Director>, host: u32, adoptable: bool) -> Self {
        ScriptedExecutor { world, director, host, adoptable }
    }

    /// Begins the run, unless somebody was told before that it never will.
    fn begin(&self, run: &Run, script: Script, reporter: &Reporter) -> Result<Handle, StartError> {
        let name = run.execution_name();
        let refused = |why: String| StartError::Refused(Failure::new(FailureKind::Refused, why));
        let handle = Handle::new(&name).map_err(|error| refused(error.to_string()))?;
        let known = self.world.runs().get(&name).map(Option::is_some);
        if known == Some(false) {
            return Err(refused(format!("{name} was declared gone")));
        }
        self.director.begins(self.host, run, &script, known == Some(true));
        if known.is_none() {
            let now = monotonic();
            let at_once = script.beginning == Beginning::EndsAtOnce;
            let live = Live {
                id: run.task.id.clone(),
                execution: run.task.record.execution,
                host: self.host,
                adoptable: self.adoptable,
                ends_at: if at_once { now } else { now + script.lasts },
                killed_at: None,
                released: false,
                stop_asked_at: None,
                script,
            };
            self.world.runs().insert(name, Some(live));
        }
        self.push(&handle, reporter);
        Ok(handle)
    }

    /// Lets the run push its end, as often as its script says.
    fn push(&self, handle: &Handle, reporter: &Reporter) {
        let Some(live) = self.world.get(handle) else { return };
        if live.script.progress {
            let (half, reporter) = (live.script.lasts / 2, reporter.clone());
            tokio::spawn(async move {
                tokio::time::sleep(half).await;
                reporter.progress(Progress { done: 1, total: 2, message: "half".to_owned() });
            });
        }
        for delay in live.script.pushes.clone() {
            let (world, handle, reporter) = (self.world.clone(), handle.clone(), reporter.clone());
            tokio::spawn(async move {
                tokio::time::sleep_until(live.ends_at.max(monotonic()) + delay).await;
                if let Some(outcome) = world.get(&handle).and_then(|live| live.end()) {
                    reporter.ended(outcome);
                }
            });
        }
    }

    async fn run(self, run: Run, reporter: Reporter, script: Script) -> Result<Started, StartError> {
        if !script.delay.is_zero() {
            tokio::time::sleep(script.delay).await;
        }
        if !self.adoptable {
            // It begins in the replica's own process: not if that has died meanwhile.
            self.director.passes(self.host, ExecutorCall::Start).await;
        }
        match script.beginning {
            Beginning::Busy(retry_after) => {
                return Err(StartError::Busy { message: "no room".to_owned(), retry_after });
            }
            Beginning::Refused => {
                return Err(StartError::Refused(Failure::new(FailureKind::Refused, "cannot run this")));
            }
            Beginning::Runs | Beginning::EndsAtOnce => {}
        }
        let (at_once, reply_delay) = (script.beginning == Beginning::EndsAtOnce, script.reply_delay);
        let handle = self.begin(&run, script, &reporter)?;
        if !reply_delay.is_zero() {
            tokio::time::sleep(reply_delay).await;
        }
        match self.world.get(&handle).and_then(|live| live.outcome()) {
            Some(outcome) if at_once => Ok(Started::Ended(outcome)),
            _ => Ok(Started::Running(handle)),
        }
    }

    fn status_of(&self, handle: &Handle) -> Status {
        if self.director.is_cut_off(self.host) {
            return Status::Unreachable("the engine does not answer".to_owned());
        }
        match self.world.get(handle) {
            Some(live) if live.is_alive() => Status::Running(None),
            Some(live) => live.end().map_or_else(|| Status::Lost("it is gone".to_owned()), Status::Ended),
            None => Status::Lost("there is no such run".to_owned()),
        }
    }

    async fn stop_once(&self, handle: &Handle, grace: Duration) -> Stopped {
        let Some(live) = self.world.get(handle) else { return Stopped::Confirmed(None) };
        if !live.is_alive() {
            return Stopped::Confirmed(live.outcome());
        }
        self.world.change(handle, |live| _ = live.stop_asked_at.get_or_insert_with(monotonic));
        let asked_at = live.stop_asked_at.unwrap_or_else(monotonic);
        let ignores = monotonic() < asked_at + live.script.ignores_stop;
        tokio::time::sleep(if ignores { grace } else { live.script.stop_takes.min(grace) }).await;
        let Some(live) = self.world.get(handle) else { return Stopped::Confirmed(None) };
        if ignores && live.is_alive() {
            return Stopped::Unconfirmed("it ignores the kill".to_owned());
        }
        if live.is_alive() {
            self.world.change(handle, |live| live.killed_at = Some(monotonic()));
        }
        Stopped::Confirmed(live.outcome())
    }
}

#[async_trait]
impl Executor for ScriptedExecutor {
    fn adoptable(&self) -> bool {
        self.adoptable
    }

    async fn prepare(&self, _task: &NewTask) -> Result<()> {
        Ok(())
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        let script = self.director.script(self.host, self.adoptable, &run);
        self.director.passes(self.host, ExecutorCall::Start).await;
        let answer = if self.adoptable && !script.delay.is_zero() {
            // The request is on its way: it arrives whatever becomes of who has sent it.
            match tokio::spawn(self.clone().run(run, reporter, script)).await {
                Ok(answer) => answer,
                Err(error) => Err(StartError::Refused(Failure::new(FailureKind::Refused, error.to_string()))),
            }
        } else {
            self.clone().run(run, reporter, script).await
        };
        self.director.passes(self.host, ExecutorCall::Start).await;
        answer
    }

    async fn recover(&self, run: Run, _handle: Option<Handle>, reporter: Reporter) -> Recovered {
        self.director.passes(self.host, ExecutorCall::Recover).await;
        if self.adoptable && self.director.is_cut_off(self.host) {
            return Recovered::Unreachable("the engine does not answer".to_owned());
        }
        let name = run.execution_name();
        let Ok(handle) = Handle::new(&name) else { return Recovered::Gone("it never had a name".to_owned()) };
        let found = self.world.get(&handle);
        let answer = match found {
            Some(live) if !self.adoptable && live.host != self.host => {
                Recovered::Gone("its process is gone".to_owned())
            }
            Some(live) if live.released || live.ending() == Some(&Ending::Lost) => {
                Recovered::Gone("it is gone".to_owned())
            }
            Some(live) => {
                self.push(&handle, &reporter);
                if let (Some(outcome), true) = (live.end(), live.script.tells_when_recovered) {
                    reporter.ended(outcome);
                }
                Recovered::Attached(handle)
            }
            None => {
                // Proven gone means also: nothing will run that was on its way.
                self.world.runs().insert(name, None);
                Recovered::Gone("it never began".to_owned())
            }
        };
        self.director.passes(self.host, ExecutorCall::Recover).await;
        answer
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        self.director.passes(self.host, ExecutorCall::Status).await;
        handles.iter().map(|handle| self.status_of(handle)).collect()
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        self.director.passes(self.host, ExecutorCall::Output).await;
        if self.director.is_cut_off(self.host) {
            return Err(Error::unavailable("the engine does not answer"));
        }
        match self.world.get(handle) {
            Some(live) if live.released => Err(Error::new(ErrorKind::NotFound, "it was removed")),
            Some(live) => Ok(live.output()),
            None => Err(Error::new(ErrorKind::NotFound, "there is no such run")),
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        self.director.passes(self.host, ExecutorCall::Stop).await;
        if self.adoptable && self.director.is_cut_off(self.host) {
            tokio::time::sleep(grace).await;
            return Stopped::Unconfirmed("the engine does not answer".to_owned());
        }
        let answer = self.stop_once(handle, grace).await;
        self.director.passes(self.host, ExecutorCall::Stop).await;
        answer
    }

    async fn release(&self, handle: &Handle) {
        self.director.passes(self.host, ExecutorCall::Release).await;
        if let Some(live) = self.world.get(handle) {
            self.director.releases(&live);
            self.world.change(handle, |live| live.released = true);
        }
    }
}
