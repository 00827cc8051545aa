//! Commands as child processes that survive a crash of the scheduler (Linux).
//!
//! ```text
//! scheduler ──socket──> launcher ──fork──> supervisor ──spawn──> command ──> whatever it starts
//!     └── one socket per run ──────────────────┘  └── STATE_DIR/NAMESPACE/ID-EXECUTION/{run,stdout,stderr}
//! ```
//!
//! Every command has a supervisor of its own: it holds the command's output and end, and ends only when
//! nothing of the command is left. It lives on when the scheduler is killed; whoever comes after finds it by
//! the run's directory. All that a command starts carries the variable `LTS_EXECUTION`, by which it is found
//! and killed even if somebody has killed the supervisor.
//!
//! A program that uses this executor calls [`run_supervisor_if_asked`] first thing in its `main`.

mod capture;
mod command;
mod launcher;
mod rundir;
mod supervisor;
mod sweeper;
mod sys;
mod tree;
mod watch;
mod wire;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::clock::monotonic;
use crate::error::{Error, ErrorKind, Result};
use crate::results::LogStore;
use crate::store::Store;
use crate::task::{Failure, FailureKind, Handle, Name, NewTask, Outcome, Payload, TaskId};

pub use command::{ARGUMENTS_MAX, CommandSpec, ENV_ALLOW_ALL, ENV_ALLOW_DEFAULT, EXECUTION_VARIABLE, Limits};
pub use launcher::run_supervisor_if_asked;
pub use wire::CommandResult;

use launcher::{Launcher, receive_word, sockets};
use rundir::{RunDir, Seen};
use sweeper::{Place, Sweeper, Watches, is_watched};
use watch::{Line, Pump, kill_marked, process_line, watch};
use wire::{Envelope, ORDER_BYTES_MAX, Order, Word};

/// How long a supervisor may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a start for which there was no room waits.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// How long past the grace a stop waits for the supervisor, and how long after forcing it.
const STOP_MARGIN: Duration = Duration::from_secs(2);
const FORCE_WAIT: Duration = Duration::from_secs(5);
/// How long past `orphan_after` a command without a scheduler may live at most: it is asked to stop, then killed.
const ORPHAN_MARGIN: Duration = Duration::from_secs(15);

/// How a [`ProcessExecutor`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Where each run has a directory until it is released. On a local disk, kept between starts of the
    /// scheduler, and the same for all schedulers of one store on this host: runs are adopted through it.
    pub state_dir: PathBuf,
    /// The program to start as launcher. Default: this program, which then must call
    /// [`run_supervisor_if_asked`] first thing in its `main`.
    pub supervisor: Option<PathBuf>,
    /// A command is stopped when no scheduler has been attached to it for so long. Default: never, it lives
    /// on. At least one second.
    ///
    /// To be set, and the same everywhere, if schedulers of one store run on several hosts: a command of a dead
    /// host can be reached from no other, but has ended by itself after this time. Until then a task whose
    /// command may be such a one is neither tried again nor given up.
    pub orphan_after: Option<Duration>,
    /// The programs that tasks may run, by their whole paths; a task must name one of them in just this way. Default:
    /// any. A program that runs others, such as a shell, lets tasks run anything.
    pub programs: Option<Vec<String>>,
    /// What is left of a run that no task needs any more is removed after it has not changed for so long; see
    /// [`ProcessExecutor::sweeping`]. Default ten minutes, at least one second.
    pub sweep_after: Duration,
}

impl ProcessConfig {
    /// The defaults, with runs kept in this directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        const SWEEP_AFTER_DEFAULT: Duration = Duration::from_secs(600);
        ProcessConfig {
            state_dir: state_dir.into(),
            supervisor: None,
            orphan_after: None,
            programs: None,
            sweep_after: SWEEP_AFTER_DEFAULT,
        }
    }
}

/// Runs commands; see [`CommandSpec`] for the payload and [`CommandResult`] for the result.
///
/// Runs are [adoptable](Executor::adoptable): a command goes on when the scheduler dies, and its exit code and
/// output are found by the next one on this host.
#[derive(Debug)]
pub struct ProcessExecutor {
    config: ProcessConfig,
    logs: Option<Arc<dyn LogStore>>,
    host: String,
    boot: String,
    launcher: tokio::sync::Mutex<Option<Launcher>>,
    watches: Watches,
    /// The runs that are out of reach, by their name, and since when that is known.
    elsewhere: Mutex<HashMap<String, Instant>>,
    sweeper: Option<Sweeper>,
}

/// What a [`Handle`] of ours holds: names only, so that no row of a store can lead us to foreign files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    host: String,
    boot: String,
    namespace: Name,
    id: TaskId,
    execution: u64,
}

impl Found {
    /// As [`Run::execution_name`].
    fn name(&self) -> String {
        Found::name_of(&self.namespace, &self.id, self.execution)
    }

    fn name_of(namespace: &Name, id: &TaskId, execution: u64) -> String {
        format!("{namespace}/{id}/{execution}")
    }
}

impl ProcessExecutor {
    /// An executor that keeps no logs: output is dropped when a run is released.
    pub fn new(mut config: ProcessConfig) -> Result<Self> {
        const AFTER_MIN: Duration = Duration::from_secs(1);
        if config.orphan_after.is_some_and(|after| after < AFTER_MIN) {
            return Err(Error::invalid("orphan_after is under a second; leave it out to let commands live on"));
        }
        if config.sweep_after < AFTER_MIN {
            return Err(Error::invalid("sweep_after is under a second; the default is ten minutes"));
        }
        // The launcher and an adopter may have another current directory.
        config.state_dir = std::path::absolute(&config.state_dir).map_err(|error| {
            Error::invalid(format!("{} is no directory for runs: {error}", config.state_dir.display()))
                .with_source(error)
        })?;
        Ok(ProcessExecutor {
            config,
            logs: None,
            host: host_id(),
            boot: read_line("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            launcher: tokio::sync::Mutex::new(None),
            watches: Watches::default(),
            elsewhere: Mutex::new(HashMap::new()),
            sweeper: None,
        })
    }

    /// Copies what commands write into this log store, while they run. To be called before
    /// [`sweeping`](Self::sweeping).
    pub fn with_logs(mut self, logs: Arc<dyn LogStore>) -> Self {
        self.logs = Some(logs);
        self
    }

    /// Refuses a program that tasks may not run.
    fn allowed(&self, spec: &CommandSpec) -> Result<()> {
        let program = spec.argv.first().map(String::as_str).unwrap_or_default();
        match &self.config.programs {
            Some(programs) if !programs.iter().any(|allowed| allowed == program) => Err(Error::invalid(format!(
                "the program {program:?} may not be run here; allowed are {}",
                if programs.is_empty() { "none".to_owned() } else { programs.join(", ") }
            ))),
            _ => Ok(()),
        }
    }

    /// Removes the directories of runs of this namespace that no task in this store needs any more: of a scheduler that
    /// died between an end and its release, and of failed exports whose task was deleted or requeued since. Nothing
    /// that is alive is stopped for it, except what an execution without a supervisor has left.
    ///
    /// Schedulers of different stores that share a [`state_dir`](ProcessConfig::state_dir) must differ in their
    /// namespace. Runs of tasks whose ids are too long to be spelled out in a directory's name, over about 120 bytes,
    /// are not swept. To be called in a tokio runtime.
    pub fn sweeping(mut self, namespace: &Name, store: Arc<dyn Store>) -> Self {
        let place = Place {
            state_dir: self.config.state_dir.clone(),
            namespace: namespace.clone(),
            after: self.config.sweep_after,
            logs: self.logs.clone(),
            watches: self.watches.clone(),
        };
        self.sweeper = Some(Sweeper::start(place, store));
        self
    }

    fn found(&self, run: &Run) -> Found {
        Found {
            host: self.host.clone(),
            boot: self.boot.clone(),
            namespace: run.namespace.clone(),
            id: run.task.id.clone(),
            execution: run.task.record.execution,
        }
    }

    fn dir(&self, found: &Found) -> RunDir {
        found.id.with_str(|id| RunDir::new(&self.config.state_dir, found.namespace.as_str(), id, found.execution))
    }

    /// The run behind a handle, or why it cannot be told from here.
    fn read(&self, handle: &Handle) -> Result<Found, String> {
        let found: Found = serde_json::from_str(handle.as_str())
            .map_err(|error| format!("{:?} is no handle of a command: {error}", handle.as_str()))?;
        if found.host != self.host {
            return Err(format!("the command runs on the host {}, this is {}", found.host, self.host));
        }
        Ok(found)
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run that is or may be on another host has ended by itself by now. Its scheduler was dead when
    /// this was asked for the first time.
    fn has_ended_elsewhere(&self, name: &str) -> bool {
        let Some(orphan_after) = self.config.orphan_after else { return false };
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *elsewhere.entry(name.to_owned()).or_insert_with(monotonic);
        let over = since.elapsed() >= orphan_after + ORPHAN_MARGIN;
        if over {
            elsewhere.remove(name);
        }
        over
    }

    fn watch(&self, found: &Found, dir: RunDir, line: Line, reporter: Reporter) {
        let name = found.name();
        let pump = self.pump(found, &dir);
        let task = tokio::spawn(watch(dir, name.clone(), line, reporter, pump));
        if let Some(before) = self.watches().insert(name, task.abort_handle()) {
            before.abort();
        }
    }

    /// Sends the order, and answers with the socket on which its supervisor talks.
    async fn order(&self, order: Order) -> Result<AsyncFd<OwnedFd>, StartError> {
        let order_file = RunDir(order.dir.clone()).order_file();
        let mut bytes = encode(&Envelope::Order(Box::new(order)))?;
        if bytes.len() > ORDER_BYTES_MAX {
            std::fs::write(&order_file, &bytes).map_err(|error| busy(format!("cannot write an order: {error}")))?;
            bytes = encode(&Envelope::ReadFrom(order_file))?;
        }
        let (ours, theirs) = sockets().map_err(|error| busy(format!("no socket for a command: {error}")))?;
        let ours = sys::awaitable(ours).map_err(|error| busy(format!("cannot wait for a command: {error}")))?;
        let mut launcher = self.launcher.lock().await;
        let mut fresh = false;
        loop {
            let sent = match launcher.as_ref() {
                Some(launcher) => launcher.send(&bytes, &theirs).await,
                None => {
                    let started = Launcher::start(self.config.supervisor.as_deref()).await.map_err(refused)?;
                    fresh = true;
                    launcher.insert(started).send(&bytes, &theirs).await
                }
            };
            match sent {
                Ok(()) => return Ok(ours),
                Err(error) => {
                    // It died; a new one is started once.
                    *launcher = None;
                    if fresh {
                        return Err(busy(format!("the launcher does not take orders: {error}")));
                    }
                }
            }
        }
    }

    /// Looks for a run of which it is unknown whether it started; see [`RunDir::look_for_good`].
    async fn find(&self, found: &Found, reporter: Reporter) -> Recovered {
        let dir = self.dir(found);
        let unreadable = |error: std::io::Error| {
            Recovered::Unreachable(format!("the directory {} cannot be read: {error}", dir.0.display()))
        };
        let line = loop {
            match dir.look_for_good() {
                Err(error) => return unreadable(error),
                Ok(Seen::Nothing | Seen::Gone) => return Recovered::Gone("the command never started".to_owned()),
                Ok(Seen::Ended(_)) => break Line::Over,
                Ok(Seen::Orphaned) => {
                    return match kill_marked(&found.name()).await {
                        Ok(()) => Recovered::Gone("the supervisor of the command was killed".to_owned()),
                        Err(why) => Recovered::Unreachable(why),
                    };
                }
                Ok(Seen::Alive(pid)) => match (process_line(&dir, pid), dir.attach()) {
                    (Ok(Some(process)), Ok(file)) => break Line::Process(process, file),
                    // It has ended between the two looks: the next one tells.
                    (Ok(None), _) => {}
                    (Err(error), _) | (_, Err(error)) => return unreadable(error),
                },
            }
        };
        match handle(found) {
            Ok(handle) => {
                self.watch(found, dir, line, reporter);
                Recovered::Attached(handle)
            }
            Err(error) => Recovered::Unreachable(error.to_string()),
        }
    }

    /// A start that may have been made already, or of which no answer came.
    async fn start_again(&self, found: &Found, reporter: Reporter, why: &str) -> Result<Started, StartError> {
        match self.find(found, reporter).await {
            Recovered::Attached(handle) => Ok(Started::Running(handle)),
            Recovered::Gone(_) => Err(busy(why.to_owned())),
            Recovered::Unreachable(why) => Err(busy(why)),
        }
    }

    async fn stop_run(&self, found: &Found, dir: &RunDir, grace: Duration) -> Stopped {
        if let Ok(Seen::Alive(pid)) = dir.look()
            && let Err(why) = self.stop_supervisor(dir, pid, grace).await
        {
            return Stopped::Unconfirmed(why);
        }
        match dir.look() {
            Ok(Seen::Ended(end)) if end.stopped && end.by_scheduler => Stopped::Confirmed(None),
            Ok(Seen::Ended(end)) => Stopped::Confirmed(Some(end.outcome())),
            Ok(Seen::Alive(_)) => Stopped::Unconfirmed("its supervisor is still alive".to_owned()),
            Ok(Seen::Nothing | Seen::Gone | Seen::Orphaned) => match kill_marked(&found.name()).await {
                Ok(()) => Stopped::Confirmed(None),
                Err(why) => Stopped::Unconfirmed(why),
            },
            Err(error) => Stopped::Unconfirmed(format!("{} cannot be read: {error}", dir.0.display())),
        }
    }

    fn pump(&self, found: &Found, dir: &RunDir) -> Option<Pump> {
        self.logs.clone().map(|logs| Pump::new(logs, dir.clone(), &found.id, found.execution))
    }

    /// Saves what is left of a run's output; `false` if the log store does not take it.
    async fn save_output(&self, found: &Found, dir: &RunDir) -> bool {
        match self.pump(found, dir) {
            Some(mut pump) => pump.copy_the_rest().await,
            None => true,
        }
    }

    async fn status_of(&self, found: &Found) -> Status {
        let dir = self.dir(found);
        let status = status_of(&dir, &found.name()).await;
        // Whoever hears of an end may read the output. Where it cannot be saved, the watch tries again, and tells.
        if let (Status::Ended(_), Some(mut pump)) = (&status, self.pump(found, &dir))
            && pump.copy().await.is_err()
            && is_watched(&self.watches, &found.name())
        {
            return Status::Running(None);
        }
        status
    }

    async fn stop_supervisor(&self, dir: &RunDir, pid: Pid, grace: Duration) -> Result<(), String> {
        let Some(process) =
            process_line(dir, pid).map_err(|error| format!("its supervisor cannot be watched: {error}"))?
        else {
            return Ok(());
        };
        // A supervisor that somebody has halted would not hear.
        let send = |signal| {
            pidfd_send_signal(process.get_ref(), signal).and(pidfd_send_signal(process.get_ref(), Signal::CONT))
        };
        let gone = async |wait| tokio::time::timeout(wait, process.readable()).await.is_ok();
        if !grace.is_zero() {
            dir.write_grace(grace).map_err(|error| format!("its supervisor cannot be told to stop: {error}"))?;
            if send(Signal::TERM).is_err() || gone(grace + STOP_MARGIN).await {
                return Ok(());
            }
        }
        if send(Signal::USR1).is_err() || gone(FORCE_WAIT).await {
            return Ok(());
        }
        Err(format!("the command did not die within {} s of being killed", FORCE_WAIT.as_secs()))
    }
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        self.sweeper.take();
        for (_, watch) in self.watches().drain() {
            watch.abort();
        }
    }
}

#[async_trait]
impl Executor for ProcessExecutor {
    fn adoptable(&self) -> bool {
        true
    }

    async fn prepare(&self, task: &NewTask) -> Result<()> {
        let spec = task.payload.parse::<CommandSpec>()?;
        spec.check()?;
        self.allowed(&spec)
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        let spec: CommandSpec = run.task.spec.payload.parse().map_err(refused)?;
        spec.check().and_then(|()| self.allowed(&spec)).map_err(refused)?;
        let found = self.found(&run);
        let dir = self.dir(&found);
        match dir.create() {
            Ok(true) => {}
            Ok(false) => return self.start_again(&found, reporter, "this execution was given up before").await,
            Err(error) => return Err(busy(format!("no directory {} for the run: {error}", dir.0.display()))),
        }
        let orphan_after_ms =
            self.config.orphan_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let order = Order { dir: dir.0.clone(), execution: found.name(), spec, orphan_after_ms };
        let channel = match self.order(order).await {
            Ok(channel) => channel,
            Err(error) => {
                dir.remove();
                return Err(error);
            }
        };
        let word = tokio::time::timeout(ANSWER_WITHIN, receive_word(&channel)).await;
        let word = word.ok().and_then(Result::ok).flatten().and_then(|word| serde_json::from_slice(&word).ok());
        match word {
            Some(Word::Started) => {
                let handle = handle(&found).map_err(refused)?;
                self.watch(&found, dir, Line::Channel(channel), reporter);
                Ok(Started::Running(handle))
            }
            Some(Word::Refused(why)) => {
                dir.remove();
                Err(refused(why))
            }
            Some(Word::Busy(why)) => {
                dir.remove();
                Err(busy(why))
            }
            Some(Word::Ended(_)) | None => {
                self.start_again(&found, reporter, "the supervisor of the command did not answer").await
            }
        }
    }

    async fn recover(&self, run: Run, handle: Option<Handle>, reporter: Reporter) -> Recovered {
        let found = self.found(&run);
        // Nobody has noted where it was started, or whether.
        let is_unknown = handle.is_none() && self.config.orphan_after.is_some() && !self.dir(&found).0.exists();
        let unreachable = match handle.map(|handle| self.read(&handle)) {
            Some(Err(why)) => Some(why),
            None if is_unknown && !run.claimed_here => Some("it may have been started on another host".to_owned()),
            _ => None,
        };
        match unreachable {
            Some(why) if self.has_ended_elsewhere(&found.name()) => {
                Recovered::Gone(format!("{why}; without its scheduler it has been stopped by now"))
            }
            Some(why) => Recovered::Unreachable(why),
            None => match self.find(&found, reporter).await {
                // On this host, but maybe by a scheduler that keeps its runs elsewhere.
                Recovered::Gone(why) if is_unknown => match kill_marked(&found.name()).await {
                    Ok(()) => Recovered::Gone(why),
                    Err(why) => Recovered::Unreachable(why),
                },
                recovered => recovered,
            },
        }
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        let mut answers = Vec::with_capacity(handles.len());
        for handle in handles {
            answers.push(match self.read(handle) {
                Ok(found) => self.status_of(&found).await,
                Err(why) => Status::Unreachable(why),
            });
        }
        answers
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        let found = self.read(handle).map_err(Error::unavailable)?;
        match self.dir(&found).look() {
            Ok(Seen::Ended(end)) => match end.outcome() {
                Outcome::Succeeded(Some(payload)) => Ok(payload),
                _ => Err(Error::new(ErrorKind::NotFound, format!("{} did not succeed", found.name()))),
            },
            Ok(_) => Err(Error::new(ErrorKind::NotFound, format!("{} has not ended, or was released", found.name()))),
            Err(error) => {
                Err(Error::unavailable(format!("{} cannot be read: {error}", found.name())).with_source(error))
            }
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        let found = match self.read(handle) {
            Ok(found) => found,
            Err(_) if self.has_ended_elsewhere(handle.as_str()) => return Stopped::Confirmed(None),
            Err(why) => return Stopped::Unconfirmed(why),
        };
        let dir = self.dir(&found);
        let stopped = self.stop_run(&found, &dir, grace).await;
        if matches!(stopped, Stopped::Confirmed(_)) {
            self.save_output(&found, &dir).await;
        }
        stopped
    }

    async fn release(&self, handle: &Handle) {
        let Ok(found) = self.read(handle) else { return };
        if let Some(watch) = self.watches().remove(&found.name()) {
            watch.abort();
        }
        let dir = self.dir(&found);
        if dir.remove_if_silent() {
            return;
        }
        // What cannot be saved now stays, and is saved when leftovers are swept.
        if self.save_output(&found, &dir).await {
            dir.remove();
        }
    }
}

async fn status_of(dir: &RunDir, execution: &str) -> Status {
    match dir.look() {
        Ok(Seen::Alive(_)) => Status::Running(None),
        Ok(Seen::Ended(end)) => Status::Ended(end.outcome()),
        Ok(Seen::Nothing) => Status::Lost("the command was released, or never started".to_owned()),
        Ok(Seen::Gone) => Status::Lost("the command never started".to_owned()),
        Ok(Seen::Orphaned) => {
            let name = execution.to_owned();
            match tokio::task::spawn_blocking(move || tree::marked(&name)).await {
                Ok(Ok(left)) if left.is_empty() => Status::Lost("the supervisor of the command was killed".to_owned()),
                Ok(Ok(_)) => Status::Running(None),
                Ok(Err(error)) => Status::Unreachable(format!("the processes cannot be listed: {error}")),
                Err(error) => Status::Unreachable(format!("the search for its processes failed: {error}")),
            }
        }
        Err(error) => Status::Unreachable(format!("{} cannot be read: {error}", dir.0.display())),
    }
}

fn handle(found: &Found) -> Result<Handle> {
    let text = serde_json::to_string(found)
        .map_err(|error| Error::internal(format!("a handle cannot be written: {error}")).with_source(error))?;
    Handle::new(&text)
}

fn encode(envelope: &Envelope) -> Result<Vec<u8>, StartError> {
    serde_json::to_vec(envelope).map_err(|error| refused(format!("the command cannot be handed on: {error}")))
}

fn refused(why: impl std::fmt::Display) -> StartError {
    StartError::Refused(Failure { fatal: true, ..Failure::new(FailureKind::Refused, why.to_string()) })
}

fn busy(message: String) -> StartError {
    StartError::Busy { message, retry_after: BUSY_RETRY }
}

/// Names this host: a process number means nothing on another one.
fn host_id() -> String {
    read_line("/etc/machine-id").unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn read_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ClaimRequest, MemoryStore, NewReplica, Store};
    use crate::task::ReplicaId;

    const ORPHAN_AFTER: Duration = Duration::from_secs(30);

    async fn run() -> (Run, Reporter) {
        struct Nobody;
        impl crate::executor::ReportSink for Nobody {
            fn report(&self, _: crate::store::Said) {}
        }
        let store = MemoryStore::fifo();
        let kind = Name::new("command").unwrap();
        let spec = CommandSpec::new(vec!["true".to_owned()]);
        store.insert(vec![NewTask::new("command", &spec).unwrap()]).await.unwrap();
        let replica = ReplicaId::generate(&crate::clock::SystemClock);
        let ttl = Duration::from_secs(15);
        store.register(NewReplica { id: replica, name: "replica".to_owned(), ttl, remote: false }).await.unwrap();
        let claim = ClaimRequest { replica, number: 1, kinds: vec![kind], queues: vec![], limit: 1, among: None };
        let task = store.claim(claim).await.unwrap().tasks.remove(0);
        let run = Run { namespace: Name::new("lts").unwrap(), task: Arc::new(task), claimed_here: false };
        (run, Reporter::new(Arc::new(Nobody)))
    }

    fn executor(directory: &std::path::Path, host: &str, orphan_after: Option<Duration>) -> ProcessExecutor {
        let config = ProcessConfig { orphan_after, ..ProcessConfig::new(directory) };
        let mut executor = ProcessExecutor::new(config).unwrap();
        executor.host = host.to_owned();
        executor
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_of_another_host_is_gone_only_when_it_must_have_ended_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (run, reporter) = run().await;
        let there = executor(directory.path(), "there", Some(ORPHAN_AFTER));
        let noted = handle(&there.found(&run)).unwrap();
        for handle in [None, Some(noted.clone())] {
            let here = executor(&directory.path().join("here"), "here", Some(ORPHAN_AFTER));
            let begun = monotonic();
            loop {
                match here.recover(run.clone(), handle.clone(), reporter.clone()).await {
                    Recovered::Gone(_) => break,
                    Recovered::Unreachable(_) => tokio::time::advance(Duration::from_secs(1)).await,
                    Recovered::Attached(_) => panic!("there is nothing to attach to"),
                }
            }
            assert!(begun.elapsed() >= ORPHAN_AFTER + ORPHAN_MARGIN, "{:?}", begun.elapsed());
        }
        let here = executor(&directory.path().join("here"), "here", Some(ORPHAN_AFTER));
        assert!(matches!(here.stop(&noted, Duration::ZERO).await, Stopped::Unconfirmed(_)));
        tokio::time::advance(ORPHAN_AFTER + ORPHAN_MARGIN).await;
        assert_eq!(here.stop(&noted, Duration::ZERO).await, Stopped::Confirmed(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_was_claimed_on_this_host_and_never_started_is_gone_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (run, reporter) = run().await;
        let here = executor(directory.path(), "here", Some(ORPHAN_AFTER));
        let elsewhere = here.recover(run.clone(), None, reporter.clone()).await;
        assert!(matches!(elsewhere, Recovered::Unreachable(_)), "{elsewhere:?}");
        let recovered = here.recover(Run { claimed_here: true, ..run }, None, reporter).await;
        assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_that_time_a_run_of_another_host_stays_out_of_reach() {
        let directory = tempfile::tempdir().unwrap();
        let (run, reporter) = run().await;
        let noted = handle(&executor(directory.path(), "there", None).found(&run)).unwrap();
        let here = executor(directory.path(), "here", None);
        for _ in 0..2 {
            let recovered = here.recover(run.clone(), Some(noted.clone()), reporter.clone()).await;
            assert!(matches!(recovered, Recovered::Unreachable(_)), "{recovered:?}");
            tokio::time::advance(Duration::from_secs(86_400)).await;
        }
        assert!(matches!(here.recover(run, None, reporter).await, Recovered::Gone(_)), "it was never started here");
    }
}
