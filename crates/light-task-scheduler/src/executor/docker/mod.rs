//! Containers of one or several Docker engines, found again after a crash of the scheduler.
//!
//! ```text
//! scheduler ──┬── engine ──── container lts-ID-EXECUTION-HASH, labels lts.namespace, lts.task, lts.execution
//!             ├── engine        └── its state and its logs are kept until the outcome is stored
//!             └── engine
//! ```
//!
//! A container is named by its execution, so a start that was interrupted at any step is found again: what was made
//! and never started is started by whoever takes the task up. Nothing is removed before its outcome is safe. What an
//! engine says of a container is the only truth; streams of events, logs and ends are hints to look.

mod config;
mod create;
mod engine;
mod logs;
mod names;
mod policy;
mod reaper;
mod refusal;
mod spec;
mod verdict;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, ContainerSummaryStateEnum};
use bollard::query_parameters::LogsOptionsBuilder;
use tokio::task::AbortHandle;

use super::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::error::{Error, ErrorKind, Result};
use crate::results::{LogStore, Stream};
use crate::store::Store;
use crate::task::{Handle, Name, NewTask, Outcome, Payload};

pub use config::{DockerConfig, EngineConfig, Tls};
pub use policy::{Bind, Bound, DockerPolicy};
pub use spec::{
    ARGUMENTS_MAX, DockerSpec, EXECUTION_VARIABLE, LABEL_PREFIX, MEMORY_BYTES_MIN, Port, Protocol, Pull, Volume,
};
pub use verdict::ContainerResult;

use engine::{CONFLICT, Engine, NOT_FOUND, Place, Trouble};
use logs::Pump;
use names::{Execution, Found};
use reaper::Reaper;
use refusal::{busy, refused};
use verdict::{End, Seen, Verdict};
use watch::{Watched, copy_the_rest, judge_unwatched, removed, watch};

/// How much of a container's standard output is in its task's result (64 KiB).
pub const STDOUT_BYTES_MAX: usize = 64 << 10;
/// How many containers are asked about in one call.
const LIST_MAX: usize = 128;
/// How often a container is tried to be made, while an engine does not answer or is still busy with its name.
const CREATE_TRIES: u32 = 10;
/// How long until it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(300);
/// The number of no execution: the first is 1.
const NO_EXECUTION: u64 = 0;
/// How often a container that is to stop is looked at, and how long it may take to die when it is killed.
const STOP_LOOK: Duration = Duration::from_millis(50);
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Runs containers; see [`DockerSpec`] for the payload and [`ContainerResult`] for the result.
///
/// Runs are [adoptable](Executor::adoptable): a container goes on when the scheduler dies, and its exit code and
/// output are found by the next one, on whatever host, that has the same engines in its configuration.
#[derive(Debug)]
pub struct DockerExecutor {
    shared: Arc<Shared>,
    reaper: Option<Reaper>,
}

/// What the executor shares with its reaper.
#[derive(Debug)]
struct Shared {
    config: DockerConfig,
    /// Whether all engines see our files.
    local: bool,
    engines: Vec<Arc<Engine>>,
    logs: Option<Arc<dyn LogStore>>,
    /// The containers that are watched from here.
    active: Mutex<HashMap<Execution, Active>>,
}

#[derive(Debug)]
struct Active {
    watched: Arc<Watched>,
    task: AbortHandle,
}

impl DockerExecutor {
    /// An executor that keeps no logs: output is dropped when a run is released. No engine is asked before it is
    /// needed; one that is down is left out until it is back.
    pub fn new(config: DockerConfig) -> Result<Self> {
        config.check()?;
        let identities = Arc::new(Mutex::new(HashMap::new()));
        let engines = config.engines.iter();
        let engines = engines.map(|engine| Arc::new(Engine::new(engine.clone(), identities.clone()))).collect();
        let local = config.engines.iter().all(EngineConfig::is_local);
        let shared = Shared { config, local, engines, logs: None, active: Mutex::default() };
        Ok(DockerExecutor { shared: Arc::new(shared), reaper: None })
    }

    /// Whether any engine answers; the error says of each why it does not.
    pub async fn reach(&self) -> Result<()> {
        let mut why = Vec::new();
        for engine in &self.shared.engines {
            match engine.client().await {
                Ok(_) => return Ok(()),
                Err(trouble) => why.push(trouble.to_string()),
            }
        }
        Err(Error::unavailable(why.join("; ")))
    }

    /// Copies what containers write into this log store, while they run. To be called before
    /// [`reaping`](Self::reaping).
    pub fn with_logs(mut self, logs: Arc<dyn LogStore>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.logs = Some(logs);
        }
        self
    }

    /// Stops and removes containers of this namespace that no task in this store owns any more, within a minute by
    /// default: those of a start that was cut off after its task was given up, and of tasks that are gone.
    ///
    /// Two stores on one engine must differ in their schedulers' namespace, or in
    /// [`DockerConfig::installation`]. To be called in a tokio runtime.
    pub fn reaping(mut self, namespace: &Name, store: Arc<dyn Store>) -> Self {
        let namespace = names::full_namespace(namespace, &self.shared.config.installation);
        self.reaper = Some(Reaper::start(self.shared.clone(), namespace, store));
        self
    }
}

impl Drop for DockerExecutor {
    fn drop(&mut self) {
        self.reaper.take();
        for (_, active) in self.shared.active().drain() {
            active.task.abort();
        }
    }
}

impl Shared {
    fn active(&self) -> MutexGuard<'_, HashMap<Execution, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self, execution: &Execution) -> Option<Arc<Watched>> {
        self.active().get(execution).map(|active| active.watched.clone())
    }

    /// Whether the output of an ended container is still to be saved by its watch, which then reports the end too. It
    /// is told to look at once.
    fn is_being_saved(&self, found: &Found) -> bool {
        let active = self.active();
        let active = active.get(&found.execution).filter(|active| !active.task.is_finished());
        let active = active.filter(|active| self.logs.is_some() && !active.watched.is_copied());
        active.inspect(|active| active.watched.look_now()).is_some()
    }

    fn pump(&self, execution: &Execution) -> Option<Pump> {
        self.logs.clone().map(|logs| Pump::new(logs, execution.clone()))
    }

    /// The container that was started or found is followed from here on.
    fn watch(&self, found: Found, place: Place, started_at_break: Option<u64>, reporter: Reporter) {
        let execution = found.execution.clone();
        let watched = Arc::new(Watched::new(found, place, started_at_break));
        let pump = self.pump(&execution);
        let task = tokio::spawn(watch(watched.clone(), reporter, pump)).abort_handle();
        if let Some(before) = self.active().insert(execution, Active { watched, task }) {
            before.task.abort();
        }
    }

    /// A place on the engine of which the smallest part is in use; engines that do not answer are passed over.
    async fn reserve(&self) -> Result<Place, StartError> {
        let mut by_load: Vec<_> = self.engines.iter().filter_map(|engine| Some((engine.load()?, engine))).collect();
        by_load.sort_by_key(|(load, _)| *load);
        let mut why = "every engine has as many containers as it may have".to_owned();
        for (_, engine) in by_load {
            match engine.client().await {
                // It may have filled up meanwhile.
                Ok(_) => match engine.reserve() {
                    Some(place) => return Ok(place),
                    None => continue,
                },
                Err(trouble) => why = trouble.to_string(),
            }
        }
        Err(busy(why))
    }

    /// The engine that a handle names, if it answers.
    async fn engine(&self, identity: &str) -> Result<Arc<Engine>, String> {
        let mut why = format!("the engine {identity} is not in the configuration");
        for engine in &self.engines {
            match engine.client().await {
                Ok(client) if client.identity == identity => return Ok(engine.clone()),
                Ok(_) => {}
                Err(trouble) => why = trouble.to_string(),
            }
        }
        Err(why)
    }

    /// Looks for a container of which nobody has noted where it is, or whether.
    async fn search(&self, execution: &Execution, image: &str) -> Result<Option<(Arc<Engine>, Found)>, String> {
        let mut silent = None;
        for engine in &self.engines {
            match self.find_or_rule_out(engine, execution, image).await {
                Ok(Some(found)) => return Ok(Some((engine.clone(), found))),
                Ok(None) => {}
                Err(trouble) => silent = Some(trouble.to_string()),
            }
        }
        silent.map_or(Ok(None), |why| Err(format!("its container may be there: {why}")))
    }

    /// The container of an execution on one engine, or the certainty that there is none.
    ///
    /// The engine may be busy with a call that a dead owner has made, and show nothing of it yet; but it has taken
    /// the name. So where nothing is found the name is taken, for a container that is nobody's, and given back.
    async fn find_or_rule_out(
        &self,
        engine: &Engine,
        execution: &Execution,
        image: &str,
    ) -> Result<Option<Found>, Trouble> {
        let name = execution.container_name();
        let nobody = Execution { execution: NO_EXECUTION, ..execution.clone() };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // It is never run, but without any the name is not looked at.
            cmd: Some(vec!["true".to_owned()]),
            labels: Some(HashMap::from(nobody.labels())),
            ..ContainerCreateBody::default()
        };
        for _ in 0..CREATE_TRIES {
            if let Some(found) = self.look_at(engine, execution).await? {
                return Ok(Some(found));
            }
            match engine.create(&name, body.clone()).await {
                Ok((container, _)) => return engine.remove(&container).await.map(|()| None),
                Err(Trouble::Said(CONFLICT, _)) => tokio::time::sleep(TRY_AGAIN).await,
                // Without the image there is no container of it either.
                Err(Trouble::Said(NOT_FOUND, _)) => return Ok(None),
                Err(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Unreachable(format!("the engine at {} is busy with the name {name}", engine.address())))
    }

    /// The container of an execution on one engine.
    async fn look_at(&self, engine: &Engine, execution: &Execution) -> Result<Option<Found>, Trouble> {
        let client = engine.client().await?;
        match engine.inspect(&execution.container_name()).await {
            Ok(there) => {
                let labels = there.config.and_then(|config| config.labels).unwrap_or_default();
                if Execution::from_labels(&labels).as_ref() != Some(execution) {
                    return Ok(None);
                }
                let container = there.id.unwrap_or_default();
                let identity = client.identity.clone();
                Ok(Some(Found { engine: identity, container, execution: execution.clone() }))
            }
            Err(Trouble::Said(NOT_FOUND, _)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Sees to it that the engine has the image.
    async fn fetch(&self, engine: &Engine, spec: &DockerSpec) -> Result<(), StartError> {
        let wanted = match spec.pull {
            _ if !self.config.policy.pull => false,
            Pull::Never => false,
            Pull::Missing => !engine.has_image(&spec.image).await.map_err(|trouble| busy(trouble.to_string()))?,
            Pull::Always => true,
        };
        if !wanted {
            return Ok(());
        }
        match tokio::time::timeout(self.config.pull_within, engine.pull(&spec.image)).await {
            Ok(pulled) => pulled.map_err(|trouble| refusal::of_pull(&spec.image, &trouble)),
            Err(_) => Err(busy(format!("the image {} did not arrive in time", spec.image))),
        }
    }

    /// Makes the container, or finds it made by a call whose answer was lost; the flag: it may have been started.
    async fn create(
        &self,
        engine: &Engine,
        execution: &Execution,
        spec: &DockerSpec,
        body: ContainerCreateBody,
    ) -> Result<(Found, bool), StartError> {
        let name = execution.container_name();
        for _ in 0..CREATE_TRIES {
            let client = engine.client().await;
            let trouble = match engine.create(&name, body.clone()).await {
                Ok((container, remarks)) => {
                    let identity = client.map_err(|trouble| busy(trouble.to_string()))?.identity.clone();
                    if !remarks.is_empty() {
                        self.compare(engine, &container, &body).await?;
                    }
                    return Ok((Found { engine: identity, container, execution: execution.clone() }, false));
                }
                Err(Trouble::Said(CONFLICT, why)) => match self.look_at(engine, execution).await {
                    Ok(Some(found)) => return Ok((found, true)),
                    Ok(None) => return Err(refusal::of_create(&spec.image, &Trouble::Said(CONFLICT, why))),
                    Err(trouble) => trouble,
                },
                Err(trouble @ Trouble::Said(..)) => return Err(refusal::of_create(&spec.image, &trouble)),
                Err(trouble) => trouble,
            };
            tracing::debug!(run = %execution, %trouble, "a container could not be made; trying again");
            tokio::time::sleep(TRY_AGAIN).await;
        }
        // It may have been made, but nobody will start it: the reaper removes it.
        Err(busy(format!("{} does not answer", engine.address())))
    }

    /// Refuses a container of which the engine has left something out.
    async fn compare(&self, engine: &Engine, container: &str, body: &ContainerCreateBody) -> Result<(), StartError> {
        let found = engine.inspect(container).await.map_err(|trouble| busy(trouble.to_string()))?;
        let asked = body.host_config.clone().unwrap_or_default();
        let ignored = create::ignored(&asked, &found);
        if ignored.is_empty() {
            return Ok(());
        }
        let _ = engine.remove(container).await;
        Err(refused(format!("the engine at {} cannot bound {}", engine.address(), ignored.join(", "))))
    }

    async fn stop(&self, engine: &Engine, found: &Found, grace: Duration) -> Result<Option<Outcome>, String> {
        let watched = self.watched(&found.execution);
        let container = found.container.as_str();
        let words = |trouble: Trouble| trouble.to_string();
        let (mut asked, mut forced) = (None, None);
        loop {
            let now = crate::clock::monotonic();
            let there = match engine.inspect(container).await {
                Ok(there) => there,
                Err(Trouble::Said(NOT_FOUND, _)) => return Ok(None),
                Err(trouble) => return Err(trouble.to_string()),
            };
            match verdict::look(&there) {
                Seen::Ended(_) if asked.is_some() => return Ok(None),
                Seen::Ended(end) => return self.verdict(engine, found, &end).await.map_err(words).map(by_itself),
                // What is gone cannot be started any more, whoever is about to.
                Seen::Created | Seen::Unstartable(_) => {
                    engine.remove(container).await.map_err(words)?;
                    return Ok(None);
                }
                Seen::Running if asked.is_none() => {
                    let stopping =
                        |so| watched.iter().for_each(|watched| watched.stopping.store(so, Ordering::Release));
                    stopping(true);
                    let signal = there.config.and_then(|config| config.stop_signal);
                    let signal = signal.filter(|signal| !signal.is_empty()).unwrap_or_else(|| "SIGTERM".to_owned());
                    let signal = if grace.is_zero() { "SIGKILL".to_owned() } else { signal };
                    match engine.kill(container, &signal).await {
                        Ok(()) => asked = Some(now),
                        // It has ended by itself just now: the next look tells how.
                        Err(Trouble::Said(CONFLICT, _)) => stopping(false),
                        Err(trouble) => return Err(trouble.to_string()),
                    }
                }
                Seen::Running if asked.is_some_and(|at| now >= at + grace) && forced.is_none() => {
                    match engine.kill(container, "SIGKILL").await {
                        Ok(()) | Err(Trouble::Said(CONFLICT, _)) => forced = Some(now),
                        Err(trouble) => return Err(trouble.to_string()),
                    }
                }
                Seen::Running if forced.is_some_and(|at| now >= at + KILL_WAIT) => {
                    return Err(format!("the container did not die within {} s of being killed", KILL_WAIT.as_secs()));
                }
                Seen::Running => {}
                Seen::Unclear(why) => return Err(why),
            }
            tokio::time::sleep(STOP_LOOK).await;
        }
    }

    /// What an end means, whether the container is watched or not.
    async fn verdict(&self, engine: &Engine, found: &Found, end: &End) -> Result<Verdict, Trouble> {
        match self.watched(&found.execution) {
            Some(watched) if watched.found.container == found.container => watched.judge(end).await,
            _ => judge_unwatched(engine, &found.container, end).await,
        }
    }

    /// How one container stands that does not simply run.
    async fn status_of(&self, engine: &Engine, found: &Found) -> Status {
        let words = |trouble: Trouble| Status::Unreachable(trouble.to_string());
        match engine.inspect(&found.container).await {
            Ok(there) => match verdict::look(&there) {
                Seen::Created | Seen::Running => Status::Running(None),
                Seen::Unstartable(why) => Status::Ended(Outcome::Failed(refusal::of_start(&why))),
                // Whoever hears of an end may read the output, which is on its way.
                Seen::Ended(_) if self.is_being_saved(found) => Status::Running(None),
                Seen::Ended(end) => self.verdict(engine, found, &end).await.map_or_else(words, status),
                Seen::Unclear(why) => Status::Unreachable(why),
            },
            Err(Trouble::Said(NOT_FOUND, _)) => status(removed()),
            Err(trouble) => words(trouble),
        }
    }

    /// How the containers of one engine stand, asked together.
    async fn statuses(&self, identity: &str, found: &[Found]) -> Vec<Status> {
        let unreachable = |why: String| vec![Status::Unreachable(why); found.len()];
        let engine = match self.engine(identity).await {
            Ok(engine) => engine,
            Err(why) => return unreachable(why),
        };
        let ids = found.iter().map(|found| found.container.clone()).collect();
        let running: Vec<String> = match engine.list("id", ids).await {
            Ok(list) => {
                let running = |state: &ContainerSummaryStateEnum| {
                    matches!(state, ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
                };
                let list = list.into_iter().filter(|container| container.state.as_ref().is_some_and(running));
                list.filter_map(|container| container.id).collect()
            }
            Err(trouble @ Trouble::Said(..)) => return unreachable(trouble.to_string()),
            // One state that this client does not know spoils the whole list, and no other answer.
            Err(Trouble::Unreachable(_)) => Vec::new(),
        };
        let mut answers = Vec::with_capacity(found.len());
        for found in found {
            answers.push(match running.contains(&found.container) {
                true => Status::Running(None),
                false => self.status_of(&engine, found).await,
            });
        }
        answers
    }

    async fn output(&self, found: &Found) -> Result<Payload> {
        let unavailable = |trouble: Trouble| Error::unavailable(trouble.to_string());
        let none = |why: &str| Error::new(ErrorKind::NotFound, format!("{}: {why}", found.execution));
        let engine = self.engine(&found.engine).await.map_err(Error::unavailable)?;
        let there = match engine.inspect(&found.container).await {
            Err(Trouble::Said(NOT_FOUND, _)) => return Err(none("its container was removed")),
            there => there.map_err(unavailable)?,
        };
        let Seen::Ended(end) = verdict::look(&there) else { return Err(none("it has not ended")) };
        let verdict = self.verdict(&engine, found, &end).await.map_err(unavailable)?;
        if !matches!(verdict, Verdict::Outcome(Outcome::Succeeded(_))) {
            return Err(none("it did not succeed"));
        }
        let options = LogsOptionsBuilder::new().stdout(true);
        let mut logs = engine.logs(&found.container, options).await.map_err(unavailable)?;
        let mut stdout = Vec::new();
        while stdout.len() <= STDOUT_BYTES_MAX
            && let Some((stream, part)) = logs.next(&engine).await.map_err(unavailable)?
        {
            if stream == Stream::Stdout {
                stdout.extend_from_slice(&part);
            }
        }
        let stdout_truncated = stdout.len() > STDOUT_BYTES_MAX;
        stdout.truncate(STDOUT_BYTES_MAX);
        Payload::json(&ContainerResult {
            exit_code: end.code,
            wall_ms: end.wall_ms,
            image: end.image,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stdout_truncated,
        })
    }

    /// Saves what is left of its output, and removes it.
    async fn release(&self, found: &Found) -> Result<(), String> {
        let active = self.active().remove(&found.execution);
        if let Some(active) = &active {
            active.task.abort();
        }
        let engine = self.engine(&found.engine).await?;
        let watched = active.map_or_else(|| unwatched(found.clone(), &engine), |active| active.watched);
        if !self.save_output(&watched).await {
            return Err("its output cannot be saved just now".to_owned());
        }
        engine.remove(&found.container).await.map_err(|trouble| trouble.to_string())
    }

    /// Saves what is left of the output of a container that has ended; `false` if the log store does not take it.
    async fn save_output(&self, watched: &Watched) -> bool {
        let Found { container, execution, .. } = &watched.found;
        match self.pump(execution) {
            Some(pump) if !watched.is_copied() => match watched.engine().inspect(container).await {
                Err(Trouble::Said(NOT_FOUND, _)) => true,
                _ => copy_the_rest(watched, &pump).await,
            },
            _ => true,
        }
    }
}

/// A container that was started or found by another.
fn unwatched(found: Found, engine: &Arc<Engine>) -> Arc<Watched> {
    Arc::new(Watched::new(found, Place::take(engine), None))
}

/// How it ended, if it ended by itself.
fn by_itself(verdict: Verdict) -> Option<Outcome> {
    match verdict {
        Verdict::Outcome(outcome) => Some(outcome),
        Verdict::Lost(_) => None,
    }
}

fn status(verdict: Verdict) -> Status {
    match verdict {
        Verdict::Outcome(outcome) => Status::Ended(outcome),
        Verdict::Lost(why) => Status::Lost(why),
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    fn adoptable(&self) -> bool {
        true
    }

    async fn prepare(&self, task: &NewTask) -> Result<()> {
        let spec = task.payload.parse::<DockerSpec>()?;
        self.shared.config.policy.settle(&spec, self.shared.local).map(|_| ())
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        let shared = &self.shared;
        let spec: DockerSpec = run.task.spec.payload.parse().map_err(refused)?;
        let policy = &shared.config.policy;
        let settled = policy.settle(&spec, shared.local).map_err(refused)?;
        let execution = Execution::of(&run, &shared.config.installation);
        let place = shared.reserve().await?;
        let engine = place.0.clone();
        shared.fetch(&engine, &spec).await?;
        let body = create::body(&spec, &settled, policy, &execution);
        let breaks = engine.breaks();
        let (found, known) = shared.create(&engine, &execution, &spec, body).await?;
        let handle = found.handle().map_err(refused)?;
        // What was there already may have run and ended: the watch starts it only if it never has.
        if !known && let Err(Trouble::Said(_, why)) = engine.start(&found.container).await {
            let _ = engine.remove(&found.container).await;
            return Err(StartError::Refused(refusal::of_start(&why)));
        }
        // Without an answer it may run: then it has an owner.
        shared.watch(found, place, (!known).then_some(breaks), reporter);
        Ok(Started::Running(handle))
    }

    async fn recover(&self, run: Run, handle: Option<Handle>, reporter: Reporter) -> Recovered {
        let shared = &self.shared;
        let execution = Execution::of(&run, &shared.config.installation);
        let never = || Recovered::Gone("its container was never made, or was removed".to_owned());
        let (engine, found) = match handle.map(|handle| Found::read(&handle)) {
            Some(Err(why)) => return Recovered::Unreachable(why),
            Some(Ok(found)) => match shared.engine(&found.engine).await {
                Ok(engine) => (engine, found),
                Err(why) => return Recovered::Unreachable(why),
            },
            None => {
                let Ok(spec) = run.task.spec.payload.parse::<DockerSpec>() else { return never() };
                match shared.search(&execution, &spec.image).await {
                    Ok(Some(there)) => there,
                    Ok(None) => return never(),
                    Err(why) => return Recovered::Unreachable(why),
                }
            }
        };
        match engine.inspect(&found.container).await {
            Ok(_) => {}
            Err(Trouble::Said(NOT_FOUND, _)) => return never(),
            Err(trouble) => return Recovered::Unreachable(trouble.to_string()),
        }
        match found.handle() {
            Ok(handle) => {
                // It runs whether there is room or not.
                shared.watch(found, Place::take(&engine), None, reporter);
                Recovered::Attached(handle)
            }
            Err(error) => Recovered::Unreachable(error.to_string()),
        }
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        let mut answers = vec![Status::Unreachable(String::new()); handles.len()];
        let mut by_engine: HashMap<String, Vec<(usize, Found)>> = HashMap::new();
        for (at, handle) in handles.iter().enumerate() {
            match Found::read(handle) {
                Ok(found) => by_engine.entry(found.engine.clone()).or_default().push((at, found)),
                Err(why) => answers[at] = Status::Unreachable(why),
            }
        }
        for (identity, found) in by_engine {
            for batch in found.chunks(LIST_MAX) {
                let (places, batch): (Vec<usize>, Vec<Found>) = batch.iter().cloned().unzip();
                for (at, status) in places.into_iter().zip(self.shared.statuses(&identity, &batch).await) {
                    answers[at] = status;
                }
            }
        }
        answers
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        let found = Found::read(handle).map_err(Error::unavailable)?;
        self.shared.output(&found).await
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        let stop = async {
            let found = Found::read(handle)?;
            let engine = self.shared.engine(&found.engine).await?;
            let outcome = self.shared.stop(&engine, &found, grace).await?;
            let watched = self.shared.watched(&found.execution);
            self.shared.save_output(&watched.unwrap_or_else(|| unwatched(found, &engine))).await;
            Ok(outcome)
        };
        stop.await.map_or_else(Stopped::Unconfirmed, Stopped::Confirmed)
    }

    async fn release(&self, handle: &Handle) {
        let Ok(found) = Found::read(handle) else { return };
        if let Err(why) = self.shared.release(&found).await {
            // The reaper comes back to it.
            tracing::warn!(run = %found.execution, why, "an ended container could not be removed");
        }
    }
}
