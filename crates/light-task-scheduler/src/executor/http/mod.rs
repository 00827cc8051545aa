//! Jobs of remote services over HTTP: started by one request, watched by asking, by callbacks, or by both.
//!
//! | file | idea |
//! |---|---|
//! | `protocol`, `presets/` | how a service is spoken to, as data, and what its answers mean |
//! | `template` | texts with places, of which requests are made |
//! | `job` | what a task says, what a service is, what a handle holds |
//! | `client`, `egress` | one bounded call, and where it may go |
//! | `endpoints` | which endpoints are left alone for a while |
//! | `exchange` | the calls of a protocol, and what follows from each answer |
//! | `live` | the runs of this process and whom to tell about them |
//! | `callback`, `webhook` | what services report by themselves, and how it is known to be theirs |
//!
//! # What is promised
//!
//! A start whose answer is lost is not made twice: it is repeated under the same idempotency key, or looked up by it. A
//! service that knows neither is not asked again; the task fails and says so, for a person to decide.
//! A job outlives the scheduler: its name is in the handle, and the next owner goes on asking.
//! [`Lost`](Status::Lost) means that the service itself says that there is no such job.

#[cfg(feature = "callbacks")]
mod callback;
mod client;
mod egress;
mod endpoints;
mod exchange;
mod job;
mod live;
mod protocol;
mod secret;
mod template;
pub mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::clock::monotonic;
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Failure, FailureKind, Handle, Name, NewTask, OUTPUT_BYTES_MAX, Outcome, Payload};

pub use egress::Egress;
pub use job::{HttpJob, Service};
pub use protocol::{Call, Find, JobName, JobState, Look, Method, Protocol, Reading, Submit};
pub use secret::Secret;

use exchange::{Exchange, Known, Site, Submitted};
use job::Found;

/// How long a stop waits for the end of a job at least, whatever the grace: a service needs an answer's time.
const STOP_WAIT_MIN: Duration = Duration::from_secs(2);
/// How often a stopped job is asked whether it has ended, first and at most.
const STOP_LOOK_FIRST: Duration = Duration::from_millis(50);
const STOP_LOOK_MAX: Duration = Duration::from_secs(1);

/// How an [`HttpExecutor`] works.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// The services that tasks can name.
    pub services: BTreeMap<Name, Service>,
    /// Whether tasks may name a preset and a URL of their own. Default: no.
    pub open: bool,
    /// Where calls may go, endpoints and redirects alike. Default: public addresses only.
    pub egress: Egress,
    /// Certificates that are trusted beside the system's: PEM files.
    pub roots: Vec<PathBuf>,
    /// How long one call may take, from the connection to the last byte. Default 10 s.
    pub call_within: Duration,
    /// The same for the call of a service that answers when the job is done. Default 10 min.
    pub push_within: Duration,
    /// How many jobs are asked for their status at once. Default 16; at least 1.
    pub parallel: usize,
    /// Where services may report by themselves. None: they are only asked.
    pub callbacks: Option<CallbackConfig>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            services: BTreeMap::new(),
            open: false,
            egress: Egress::default(),
            roots: Vec::new(),
            call_within: Duration::from_secs(10),
            push_within: Duration::from_secs(600),
            parallel: 16,
            callbacks: None,
        }
    }
}

/// Where services report to.
#[derive(Debug, Clone)]
pub struct CallbackConfig {
    /// The URL under which [`HttpExecutor::callbacks`] can be reached from the services.
    pub url: String,
    /// What tokens are made with: at least 16 characters, the same for every scheduler of one store.
    pub key: Secret,
}

/// Runs jobs of remote services; see [`HttpJob`] for the payload. The result is what the service says.
///
/// Runs are [adoptable](Executor::adoptable): a job goes on when the scheduler dies, and is asked for by the next one.
/// The exception is a service that answers only when the job is done ([`Submit::waits`]): its call dies with the
/// process, and is made again under the same key if the service takes one.
///
/// ```no_run
/// use light_task_scheduler::executor::http::{HttpConfig, HttpExecutor, Service};
/// use light_task_scheduler::Name;
///
/// # fn main() -> Result<(), light_task_scheduler::Error> {
/// let mut config = HttpConfig::default();
/// config.services.insert(Name::new("tiles")?, Service::preset("ogc", ["https://tiles.example.org"])?);
/// let executor = HttpExecutor::new(config)?;
/// # let _ = executor;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpExecutor(Arc<Exchange>);

impl HttpExecutor {
    /// Checks the configuration, all problems in one sentence. Files of certificates are read now.
    pub fn new(config: HttpConfig) -> Result<Self> {
        Ok(HttpExecutor(Arc::new(Exchange::new(config)?)))
    }

    /// Makes the call of a service that waits for the end of the job, as a task of its own.
    fn push(&self, site: Arc<Site>, name: String) {
        let exchange = self.0.clone();
        let named = name.clone();
        let call = tokio::spawn(async move {
            let outcome = exchange.push(&site).await;
            exchange.lives.end(&named, outcome);
        });
        self.0.lives.set_call(&name, call.abort_handle());
    }

    /// Starts a job, or finds the one that was started under the same key.
    async fn submit(&self, site: &Arc<Site>) -> Result<Started, StartError> {
        let name = site.found.name();
        let submitted = self.0.submit(site).await;
        if !matches!(submitted, Submitted::Job(_) | Submitted::Unknown) {
            self.0.lives.forget(&name);
        }
        match submitted {
            Submitted::Job(job) => running(&Found { job: Some(job), ..site.found.clone() }),
            // What there is under the key is found out later; the run keeps its slot meanwhile.
            Submitted::Unknown => running(&site.found),
            Submitted::Done(outcome) => Ok(Started::Ended(outcome)),
            Submitted::Busy(message, retry_after) => Err(StartError::Busy { message, retry_after }),
            Submitted::Failed(failure) => Err(StartError::Refused(failure)),
        }
    }

    /// Takes up a run whose job is known.
    async fn take_up(&self, site: &Site, job: String) -> Recovered {
        let name = site.found.name();
        match self.0.status(site, &job).await {
            Status::Lost(why) => {
                self.0.lives.forget(&name);
                return Recovered::Gone(why);
            }
            Status::Unreachable(why) => return Recovered::Unreachable(why),
            Status::Running(_) => {}
            Status::Ended(outcome) => {
                self.0.lives.end(&name, outcome);
            }
        }
        attached(&Found { job: Some(job), ..site.found.clone() })
    }

    /// How a run stands that is known to this process or can be asked for.
    async fn look(&self, handle: &Handle) -> Status {
        let Some(found) = Found::read(handle) else {
            return Status::Unreachable("the handle is not one of the HTTP executor".to_owned());
        };
        let name = found.name();
        if let Some(outcome) = self.0.lives.outcome(&name) {
            return Status::Ended(outcome);
        }
        let site = match self.0.site_of(found) {
            Ok(site) => site,
            Err(error) => return Status::Unreachable(error.to_string()),
        };
        if site.service.protocol.submit.waits {
            return match self.0.lives.has(&name) {
                true => Status::Running(None),
                false => Status::Lost("the process that made the call is gone".to_owned()),
            };
        }
        match self.0.job(&site).await {
            Known::Job(job) => self.0.status(&site, &job).await,
            Known::Nothing => Status::Lost("the service knows no job of this start".to_owned()),
            Known::Never(failure) => Status::Ended(Outcome::Failed(failure)),
            Known::Later(why) => Status::Unreachable(why),
        }
    }
}

fn running(found: &Found) -> Result<Started, StartError> {
    let handle = found.handle().map_err(|error| refused(&error))?;
    Ok(Started::Running(handle))
}

fn refused(error: &Error) -> StartError {
    StartError::Refused(Failure::new(FailureKind::Refused, error.to_string()))
}

#[async_trait]
impl Executor for HttpExecutor {
    fn adoptable(&self) -> bool {
        true
    }

    async fn prepare(&self, task: &NewTask) -> Result<()> {
        let job: HttpJob = task.payload.parse()?;
        self.0.prepare(&job)
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        let sites = self.0.sites(&run).map_err(|error| refused(&error))?;
        let mut why = "no endpoint of the service is well just now".to_owned();
        let mut retry_after = Duration::ZERO;
        for site in sites {
            retry_after = self.0.well_in(&site.service);
            if !self.0.is_well(&site.found.endpoint) {
                continue;
            }
            let name = site.found.name();
            // Before anything is sent: a report may come before the answer.
            self.0.lives.add(&name, reporter.clone(), &site);
            if site.service.protocol.submit.waits {
                self.push(site.clone(), name);
                return running(&site.found);
            }
            match self.submit(&site).await {
                // It has started nothing: the next one is tried.
                Err(StartError::Busy { message, .. }) => why = message,
                answer => return answer,
            }
            retry_after = self.0.well_in(&site.service);
        }
        Err(StartError::Busy { message: why, retry_after })
    }

    async fn recover(&self, run: Run, handle: Option<Handle>, reporter: Reporter) -> Recovered {
        let sites = match self.0.sites_again(&run, handle.as_ref()) {
            Ok(sites) => sites,
            Err(error) => return Recovered::Unreachable(error.to_string()),
        };
        let Some(first) = sites.first() else {
            return Recovered::Unreachable("the service has no endpoint".to_owned());
        };
        let name = first.found.name();
        let submit = &first.service.protocol.submit;
        let lives = self.0.lives.has(&name);
        if submit.waits && !lives && !submit.idempotent {
            return Recovered::Gone("the process that made the call is gone".to_owned());
        }
        self.0.lives.add(&name, reporter, first);
        if submit.waits {
            if !lives {
                self.push(first.clone(), name);
            }
            return attached(&first.found);
        }
        let mut unknown = None;
        for site in &sites {
            match self.0.job(site).await {
                Known::Job(job) => return self.take_up(site, job).await,
                Known::Never(failure) => {
                    self.0.lives.end(&name, Outcome::Failed(failure));
                    return attached(&site.found);
                }
                Known::Nothing => {}
                Known::Later(why) => unknown = unknown.or(Some(why)),
            }
        }
        if let Some(why) = unknown {
            return Recovered::Unreachable(why);
        }
        self.0.lives.forget(&name);
        Recovered::Gone("the service knows no job of this start".to_owned())
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        let room = Arc::new(Semaphore::new(self.0.config.parallel));
        let mut looks = JoinSet::new();
        for (place, handle) in handles.iter().cloned().enumerate() {
            let (executor, room) = (self.clone(), room.clone());
            looks.spawn(async move {
                let _room = room.acquire_owned().await;
                (place, executor.look(&handle).await)
            });
        }
        let unknown = || Status::Unreachable("it was not asked".to_owned());
        let mut statuses: Vec<Status> = handles.iter().map(|_| unknown()).collect();
        while let Some(looked) = looks.join_next().await {
            if let Ok((place, status)) = looked
                && let Some(slot) = statuses.get_mut(place)
            {
                *slot = status;
            }
        }
        statuses
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        let missing = || Error::new(ErrorKind::NotFound, "the job has left no output");
        let found = Found::read(handle).ok_or_else(missing)?;
        match self.0.lives.outcome(&found.name()) {
            Some(Outcome::Succeeded(Some(output))) => return Ok(output),
            Some(Outcome::Failed(_)) => return Err(missing()),
            Some(Outcome::Succeeded(None)) | None => {}
        }
        let site = self.0.site_of(found)?;
        match self.0.job(&site).await {
            Known::Job(job) => self.0.output(&site, &job).await,
            Known::Later(why) => Err(Error::unavailable(why)),
            Known::Nothing | Known::Never(_) => Err(missing()),
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        let Some(found) = Found::read(handle) else { return Stopped::Confirmed(None) };
        let name = found.name();
        let site = match self.0.site_of(found) {
            Ok(site) => site,
            Err(error) => return Stopped::Unconfirmed(error.to_string()),
        };
        if site.service.protocol.submit.waits {
            // The call is the job: a service that answers when it is done ends it when nobody listens.
            return Stopped::Confirmed(self.0.lives.hang_up(&name));
        }
        match self.look(handle).await {
            Status::Ended(outcome) => return Stopped::Confirmed(Some(outcome)),
            Status::Lost(_) => return Stopped::Confirmed(None),
            Status::Running(_) | Status::Unreachable(_) => {}
        }
        let asked = match self.0.job(&site).await {
            Known::Job(job) => self.0.stop(&site, &job).await,
            Known::Later(why) => Err(why),
            Known::Nothing | Known::Never(_) => return Stopped::Confirmed(None),
        };
        let until = monotonic() + grace.max(STOP_WAIT_MIN);
        let mut pause = STOP_LOOK_FIRST;
        loop {
            let why = match self.look(handle).await {
                Status::Ended(outcome) => {
                    self.0.lives.end(&name, outcome.clone());
                    return Stopped::Confirmed(Some(outcome));
                }
                Status::Lost(_) => {
                    self.0.lives.end(&name, Outcome::Failed(exchange::stopped()));
                    return Stopped::Confirmed(None);
                }
                Status::Running(_) => asked.clone().err().unwrap_or_else(|| "the job goes on".to_owned()),
                Status::Unreachable(why) => why,
            };
            if monotonic() >= until {
                return Stopped::Unconfirmed(why);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STOP_LOOK_MAX);
        }
    }

    async fn release(&self, handle: &Handle) {
        let Some(found) = Found::read(handle) else { return };
        let name = found.name();
        if let Ok(site) = self.0.site_of(found) {
            self.0.release(&site).await;
        }
        self.0.lives.forget(&name);
    }
}

fn attached(found: &Found) -> Recovered {
    match found.handle() {
        Ok(handle) => Recovered::Attached(handle),
        Err(error) => Recovered::Unreachable(error.to_string()),
    }
}

impl fmt::Debug for HttpExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<&str> = self.0.config.services.keys().map(Name::as_str).collect();
        f.debug_struct("HttpExecutor").field("services", &services).finish_non_exhaustive()
    }
}

/// Most bytes of an answer: an output, and some room for what is around it.
const ANSWER_BYTES_MAX: usize = OUTPUT_BYTES_MAX + (64 << 10);
