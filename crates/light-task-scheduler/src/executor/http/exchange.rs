//! The calls of a protocol, and what follows from each answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::client::{Answer, CallError, Client, Request, headers, origin, shown};
use super::endpoints::Endpoints;
use super::job::{Found, HttpJob, Service};
use super::live::Lives;
use super::protocol::{Call, JobName, Protocol, Seen, cut, payload};
use super::template::{Encoding, Variables, fill, fill_json};
use super::{ANSWER_BYTES_MAX, HttpConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Run, Status};
use crate::task::{Failure, FailureKind, Handle, Outcome, Payload};

/// How often a start without an answer is repeated under the same key before it is left to the next look.
const SUBMIT_TRIES: u32 = 3;
/// How long the first of these waits; each further one twice as long.
const SUBMIT_PAUSE: Duration = Duration::from_millis(200);

/// What one executor talks with.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) config: HttpConfig,
    pub(super) lives: Lives,
    services: BTreeMap<String, Arc<Service>>,
    presets: BTreeMap<&'static str, Protocol>,
    client: Client,
    endpoints: Endpoints,
}

/// One start of a job, and where it was or will be made.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) service: Arc<Service>,
    pub(super) found: Found,
    /// Known where the task is at hand; a handle does not have it.
    pub(super) input: Option<Arc<Value>>,
}

/// What became of a start.
#[derive(Debug)]
pub(super) enum Submitted {
    /// It runs under this name.
    Job(String),
    /// It has ended.
    Done(Outcome),
    /// It may run: the answer was lost, and can be found out later.
    Unknown,
    Busy(String, Duration),
    Failed(Failure),
}

/// What is known of the name of a job.
#[derive(Debug)]
pub(super) enum Known {
    Job(String),
    /// The service says that there is none.
    Nothing,
    /// Nobody will ever know.
    Never(Failure),
    /// Nobody knows just now.
    Later(String),
}

/// How a job ends that we have stopped.
pub(super) fn stopped() -> Failure {
    Failure::new(FailureKind::Cancelled, "it was stopped")
}

impl Exchange {
    pub(super) fn new(config: HttpConfig) -> Result<Self> {
        let mut problems = Vec::new();
        if config.parallel == 0 {
            problems.push("parallel is 0; 1 asks for one job after the other".to_owned());
        }
        if config.call_within.is_zero() || config.push_within.is_zero() {
            problems.push("call_within or push_within is 0; no call could be made".to_owned());
        }
        let rules = config.egress.rules().unwrap_or_else(|error| {
            problems.push(error.to_string());
            super::egress::Rules::default()
        });
        for (name, service) in &config.services {
            let mut say = |problem: String| problems.push(format!("service `{name}`: {problem}"));
            if service.endpoints.is_empty() {
                say("it has no endpoints".to_owned());
            }
            if let Err(error) = service.protocol.check() {
                say(error.to_string());
            }
            for endpoint in &service.endpoints {
                if let Err(error) = Url::parse(endpoint) {
                    say(format!("`{}` is no URL: {error}", cut(endpoint)));
                }
            }
        }
        let mut roots = Vec::new();
        for file in &config.roots {
            match std::fs::read(file) {
                Ok(pem) => roots.push(pem),
                Err(error) => problems.push(format!("cannot read certificates from {}: {error}", file.display())),
            }
        }
        if !problems.is_empty() {
            return Err(Error::invalid(problems.join("; ")));
        }
        let client = Client::new(rules, ANSWER_BYTES_MAX, &roots)?;
        let presets = Protocol::PRESETS.iter().map(|name| Ok((*name, Protocol::preset(name)?)));
        Ok(Exchange {
            lives: Lives::default(),
            services: config.services.iter().map(|(name, it)| (name.to_string(), Arc::new(it.clone()))).collect(),
            presets: presets.collect::<Result<_>>()?,
            client,
            endpoints: Endpoints::default(),
            config,
        })
    }

    /// Looks at a task before it is taken in.
    pub(super) fn prepare(&self, job: &HttpJob) -> Result<()> {
        let service = self.service_of(job)?;
        for endpoint in &service.endpoints {
            let text = format!("{}{}", endpoint.trim_end_matches('/'), job.path);
            let url = Url::parse(&text).map_err(|e| Error::invalid(format!("`{}` is no URL: {e}", cut(&text))))?;
            self.client.check(&url).map_err(|error| Error::invalid(error.message()))?;
        }
        Ok(())
    }

    /// The service that a job names.
    pub(super) fn service_of(&self, job: &HttpJob) -> Result<Arc<Service>> {
        job.check()?;
        self.service(job.service.as_ref().map(|name| name.as_str()), job.preset.as_deref(), job.url.as_deref())
    }

    fn service(&self, name: Option<&str>, preset: Option<&str>, url: Option<&str>) -> Result<Arc<Service>> {
        if let Some(name) = name {
            return self.services.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.services.keys().map(String::as_str).collect();
                Error::new(ErrorKind::NotFound, format!("there is no service `{name}`; there are {known:?}"))
            });
        }
        let (Some(preset), Some(url)) = (preset, url) else {
            return Err(Error::invalid("an HTTP job names no service"));
        };
        if !self.config.open {
            return Err(Error::invalid("this executor runs only jobs of the services of its configuration"));
        }
        match self.presets.get(preset) {
            Some(protocol) => Ok(Arc::new(Service::new(protocol.clone(), [url]))),
            // For its words.
            None => Protocol::preset(preset).map(|protocol| Arc::new(Service::new(protocol, [url]))),
        }
    }

    /// Whether an endpoint may be called just now.
    pub(super) fn is_well(&self, endpoint: &str) -> bool {
        self.endpoints.closed_for(&origin_of(endpoint)).is_none()
    }

    /// How long until one of the service's endpoints may be called.
    pub(super) fn well_in(&self, service: &Service) -> Duration {
        let left = |endpoint: &String| self.endpoints.closed_for(&origin_of(endpoint)).unwrap_or_default();
        service.endpoints.iter().map(left).min().unwrap_or_default()
    }

    /// A start at each endpoint where it may be made, in the order in which they are tried: the same for whoever starts it
    /// and for whoever looks for it later.
    pub(super) fn sites(&self, run: &Run) -> Result<Vec<Arc<Site>>> {
        let job: HttpJob = run.task.spec.payload.parse()?;
        let service = self.service_of(&job)?;
        let mut all: Vec<Found> = service.endpoints.iter().map(|endpoint| Found::new(run, &job, endpoint)).collect();
        all.sort_by_cached_key(Found::rank);
        if service.protocol.submit.idempotent && service.protocol.find.is_none() {
            // A key makes one job at one endpoint. A start that is repeated elsewhere would make another one.
            all.truncate(1);
        }
        let input = Arc::new(job.input);
        let site = |found| Arc::new(Site { service: service.clone(), found, input: Some(input.clone()) });
        Ok(all.into_iter().map(site).collect())
    }

    /// The start that a handle is of.
    pub(super) fn site_of(&self, found: Found) -> Result<Site> {
        let service = self.service(
            found.service.as_ref().map(|name| name.as_str()),
            found.preset.as_deref(),
            Some(found.endpoint.as_str()),
        )?;
        Ok(Site { service, found, input: None })
    }

    /// The start that a dead owner has made, or was about to make: where its handle says, or wherever it may have been.
    pub(super) fn sites_again(&self, run: &Run, handle: Option<&Handle>) -> Result<Vec<Arc<Site>>> {
        let Some(handle) = handle else { return self.sites(run) };
        let found = Found::read(handle).ok_or_else(|| Error::internal("the stored handle is none of ours"))?;
        let job: HttpJob = run.task.spec.payload.parse()?;
        let service = self.service_of(&job)?;
        Ok(vec![Arc::new(Site { service, found, input: Some(Arc::new(job.input)) })])
    }

    /// Starts a job.
    pub(super) async fn submit(&self, site: &Site) -> Submitted {
        let submit = &site.service.protocol.submit;
        let mut pause = SUBMIT_PAUSE;
        for attempt in 1.. {
            let answer = match self.call(&submit.call, site, None, self.config.call_within).await {
                Ok(answer) => answer,
                Err(CallError::Refused(why)) => return Submitted::Failed(Failure::new(FailureKind::Refused, why)),
                Err(CallError::Unsent(why)) => {
                    let pause = self.endpoints.unwell(&origin_of(&site.found.endpoint), None);
                    return Submitted::Busy(why, pause);
                }
                Err(CallError::Unanswered(why)) => {
                    if submit.idempotent && attempt < SUBMIT_TRIES {
                        tokio::time::sleep(pause).await;
                        pause *= 2;
                        continue;
                    }
                    return if submit.idempotent || site.service.protocol.find.is_some() {
                        Submitted::Unknown
                    } else {
                        Submitted::Failed(unknowable(&why))
                    };
                }
            };
            return self.submitted(site, &answer);
        }
        Submitted::Unknown
    }

    fn submitted(&self, site: &Site, answer: &Answer) -> Submitted {
        let submit = &site.service.protocol.submit;
        let at = origin_of(&site.found.endpoint);
        match judge(answer) {
            Judged::Busy => {
                let pause = self.endpoints.unwell(&at, answer.retry_after());
                return Submitted::Busy(said(answer), pause);
            }
            Judged::Gateway if !submit.idempotent && site.service.protocol.find.is_none() => {
                return Submitted::Failed(unknowable(&said(answer)));
            }
            Judged::Gateway => return Submitted::Unknown,
            Judged::Broken => return Submitted::Failed(Failure::new(FailureKind::Error, said(answer))),
            Judged::Refused => {
                let failure = Failure::new(FailureKind::Error, said(answer));
                return Submitted::Failed(Failure { fatal: true, ..failure });
            }
            Judged::Good => self.endpoints.well(&at),
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let header = |name: &str| {
            let value = answer.headers.get(name)?.to_str().ok()?;
            // An address, relative to that of the request.
            answer.url.join(value).ok().map(String::from)
        };
        if submit.done.contains(&answer.status) {
            return Submitted::Done(match payload(&answer.body) {
                Ok(output) => Outcome::Succeeded(Some(output)),
                Err(error) => Outcome::Failed(Failure::new(FailureKind::Error, error.to_string())),
            });
        }
        match submit.job.iter().find_map(|place: &JobName| place.read(header, &body)) {
            Some(job) => {
                self.lives.set_job(&site.found, &job);
                Submitted::Job(job)
            }
            None => Submitted::Failed(Failure {
                fatal: true,
                ..Failure::new(FailureKind::Error, format!("{} but does not say what the job is called", said(answer)))
            }),
        }
    }

    /// Makes the call of a service that answers when the job has been done.
    pub(super) async fn push(&self, site: &Site) -> Outcome {
        let submit = &site.service.protocol.submit;
        let at = origin_of(&site.found.endpoint);
        let mut pause = SUBMIT_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = |kind, why: String| Outcome::Failed(Failure::new(kind, why));
            let answer = match self.call(&submit.call, site, None, self.config.push_within).await {
                Ok(answer) => answer,
                Err(CallError::Refused(why)) => return failed(FailureKind::Refused, why),
                Err(CallError::Unsent(why)) => return busy(why, self.endpoints.unwell(&at, None)),
                Err(CallError::Unanswered(_)) if submit.idempotent && tries < SUBMIT_TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    continue;
                }
                Err(CallError::Unanswered(why)) => return failed(FailureKind::Error, why),
            };
            return match judge(&answer) {
                Judged::Busy => busy(said(&answer), self.endpoints.unwell(&at, answer.retry_after())),
                Judged::Gateway | Judged::Broken => failed(FailureKind::Error, said(&answer)),
                Judged::Refused => {
                    Outcome::Failed(Failure { fatal: true, ..Failure::new(FailureKind::Error, said(&answer)) })
                }
                Judged::Good => {
                    self.endpoints.well(&at);
                    match payload(&answer.body) {
                        Ok(output) => Outcome::Succeeded(Some(output)),
                        Err(error) => failed(FailureKind::Error, error.to_string()),
                    }
                }
            };
        }
    }

    /// What the service calls the job of a start.
    pub(super) async fn job(&self, site: &Site) -> Known {
        if let Some(job) = site.found.job.clone().or_else(|| self.lives.job(&site.found)) {
            return Known::Job(job);
        }
        if let Some(left) = self.endpoints.closed_for(&origin_of(&site.found.endpoint)) {
            return Known::Later(format!("the endpoint is left alone for another {left:.0?}"));
        }
        let protocol = &site.service.protocol;
        if let Some(find) = &protocol.find {
            return match self.ask(&find.call, site, None).await {
                Asked::Answer(answer) => {
                    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    match JobName::Pointer(find.job.clone()).read(|_| None, &document) {
                        Some(job) => {
                            self.lives.set_job(&site.found, &job);
                            Known::Job(job)
                        }
                        None => Known::Nothing,
                    }
                }
                Asked::Gone => Known::Nothing,
                Asked::Later(why) => Known::Later(why),
            };
        }
        let name = site.found.name();
        let input = site.input.clone().or_else(|| self.lives.site(&name)?.input.clone());
        let again = |input| Site { service: site.service.clone(), found: site.found.clone(), input: Some(input) };
        match (protocol.submit.idempotent, input.map(again)) {
            (true, Some(again)) => match self.submit(&again).await {
                Submitted::Job(job) => Known::Job(job),
                Submitted::Failed(failure) => Known::Never(failure),
                Submitted::Done(outcome) => {
                    self.lives.end(&name, outcome);
                    Known::Later("it has ended".to_owned())
                }
                Submitted::Unknown => Known::Later("the service has not answered the start".to_owned()),
                Submitted::Busy(why, _) => Known::Later(why),
            },
            (true, None) => Known::Later("the start is not known here; its owner will find out".to_owned()),
            (false, _) => Known::Never(unknowable("the scheduler ended before the answer was stored")),
        }
    }

    /// How a job stands.
    pub(super) async fn status(&self, site: &Site, job: &str) -> Status {
        let protocol = &site.service.protocol;
        let Some(look) = &protocol.status else { return Status::Running(None) };
        let answer = match self.ask(&look.call, site, Some(job)).await {
            Asked::Answer(answer) => answer,
            Asked::Gone => return Status::Lost("the service knows no such job".to_owned()),
            Asked::Later(why) => return Status::Unreachable(why),
        };
        let Ok(document) = serde_json::from_slice::<Value>(&answer.body) else {
            return Status::Unreachable(format!("{}, which is no JSON", said(&answer)));
        };
        match protocol.reading.read(&document, protocol.output.is_some()) {
            Seen::Running(progress) => Status::Running(progress),
            Seen::Ended(outcome) => Status::Ended(outcome),
            Seen::Unknown(why) => Status::Unreachable(why),
        }
    }

    /// The result of a job that has succeeded.
    pub(super) async fn output(&self, site: &Site, job: &str) -> Result<Payload> {
        let protocol = &site.service.protocol;
        let Some(output) = &protocol.output else {
            return match self.status(site, job).await {
                Status::Ended(Outcome::Succeeded(Some(output))) => Ok(output),
                Status::Unreachable(why) => Err(Error::unavailable(why)),
                _ => Err(Error::new(ErrorKind::NotFound, "the job has left no output")),
            };
        };
        let answer = match self.ask(output, site, Some(job)).await {
            Asked::Answer(answer) => answer,
            Asked::Gone => return Err(Error::new(ErrorKind::NotFound, "the service has no output of the job")),
            Asked::Later(why) => return Err(Error::unavailable(why)),
        };
        if protocol.output_at.is_empty() {
            return payload(&answer.body);
        }
        let document: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::invalid(format!("{}, which is no JSON", said(&answer))))?;
        match document.pointer(&protocol.output_at) {
            Some(result) if !result.is_null() => Payload::json(result),
            _ => Err(Error::new(
                ErrorKind::NotFound,
                format!("{}, which has nothing at {}", said(&answer), protocol.output_at),
            )),
        }
    }

    /// Asks the service to stop a job. `Err`: why it will not.
    pub(super) async fn stop(&self, site: &Site, job: &str) -> Result<(), String> {
        let Some(stop) = &site.service.protocol.stop else {
            return Err("the service has no way to stop a job".to_owned());
        };
        match self.ask(stop, site, Some(job)).await {
            Asked::Answer(_) | Asked::Gone => Ok(()),
            Asked::Later(why) => Err(why),
        }
    }

    /// Removes what the service keeps of a job.
    pub(super) async fn release(&self, site: &Site) {
        let job = site.found.job.clone().or_else(|| self.lives.job(&site.found));
        if let (Some(release), Some(job)) = (&site.service.protocol.release, job)
            && let Asked::Later(why) = self.ask(release, site, Some(&job)).await
        {
            tracing::debug!(id = %site.found.id, why, "a job that has ended stays at its service");
        }
    }

    /// Makes a call about a job.
    async fn ask(&self, call: &Call, site: &Site, job: Option<&str>) -> Asked {
        let at = origin_of(&site.found.endpoint);
        if let Some(left) = self.endpoints.closed_for(&at) {
            return Asked::Later(format!("the endpoint is left alone for another {left:.0?}"));
        }
        match self.call(call, site, job, self.config.call_within).await {
            Ok(answer) if call.gone.contains(&answer.status) => Asked::Gone,
            Ok(answer) if answer.is_success() => {
                self.endpoints.well(&at);
                Asked::Answer(answer)
            }
            Ok(answer) => {
                if let Judged::Busy | Judged::Gateway = judge(&answer) {
                    self.endpoints.unwell(&at, answer.retry_after());
                }
                Asked::Later(said(&answer))
            }
            Err(CallError::Refused(why)) => Asked::Later(why),
            Err(CallError::Unsent(why) | CallError::Unanswered(why)) => {
                self.endpoints.unwell(&at, None);
                Asked::Later(why)
            }
        }
    }

    async fn call(&self, call: &Call, site: &Site, job: Option<&str>, within: Duration) -> Result<Answer, CallError> {
        let request =
            self.request(call, site, job, within).await.map_err(|error| CallError::Refused(error.to_string()))?;
        self.client.call(request).await
    }

    async fn request(&self, call: &Call, site: &Site, job: Option<&str>, within: Duration) -> Result<Request> {
        let variables = self.variables(site, job).await?;
        let unset = || Error::invalid(format!("the URL `{}` of the protocol needs what is not known", call.url));
        let text = fill(&call.url, &variables, Encoding::Url).ok_or_else(unset)?;
        let url = Url::parse(&text).map_err(|e| Error::invalid(format!("`{}` is no URL: {e}", cut(&text))))?;
        let filled = call.headers.iter().filter_map(|(name, value)| {
            // What needs a callback address is left out if there is none.
            Some((name.as_str(), fill(value, &variables, Encoding::Plain)?))
        });
        let mut secrets = Vec::new();
        for (name, secret) in &site.service.headers {
            secrets.push((name.as_str(), secret.reveal().await?));
        }
        let body = call.body.as_ref().and_then(|body| fill_json(body, &variables));
        Ok(Request {
            method: call.method,
            url,
            headers: headers(filled)?,
            secrets: sensitive(headers(secrets)?),
            secrets_for: origin_of(&site.found.endpoint),
            body: body.map(|body| body.to_string().into_bytes()),
            within,
        })
    }

    async fn variables(&self, site: &Site, job: Option<&str>) -> Result<Variables> {
        let found = &site.found;
        let mut variables = Variables::default();
        variables.set("url", format!("{}{}", found.endpoint, found.path));
        variables.set("endpoint", found.endpoint.as_str());
        variables.set("path", found.path.as_str());
        variables.set("key", found.key());
        variables.set("id", found.id.to_string());
        if let Some(job) = job {
            let (path, query) = job.split_at(job.find(['?', '#']).unwrap_or(job.len()));
            variables.set("job", job);
            variables.set("job_path", path);
            variables.set("job_query", query);
        }
        if let Some(input) = &site.input {
            variables.set_input(input.as_ref().clone());
        }
        #[cfg(feature = "callbacks")]
        if let Some(config) = &self.config.callbacks {
            variables.set("callback", super::callback::url(config, found).await?);
        }
        Ok(variables)
    }
}

/// The answer to a call about a job.
enum Asked {
    Answer(Answer),
    Gone,
    Later(String),
}

/// What an HTTP status means for a start.
enum Judged {
    Good,
    /// No room: nothing was started.
    Busy,
    /// Something in between has lost the answer.
    Gateway,
    /// The service is in trouble; another attempt may do better.
    Broken,
    /// Not as it is.
    Refused,
}

fn judge(answer: &Answer) -> Judged {
    match answer.status {
        200..=299 => Judged::Good,
        429 | 503 => Judged::Busy,
        502 | 504 => Judged::Gateway,
        408 | 425 | 500.. => Judged::Broken,
        _ => Judged::Refused,
    }
}

fn busy(why: String, retry_after: Duration) -> Outcome {
    Outcome::Failed(Failure { retry_after: Some(retry_after), ..Failure::new(FailureKind::Busy, why) })
}

/// A start of which nobody will ever know whether it took place.
fn unknowable(why: &str) -> Failure {
    let message = format!(
        "the service may have taken the job, but its answer was lost ({why}), and it has no way to find out; look there, \
         then retry the task"
    );
    Failure { fatal: true, ..Failure::new(FailureKind::Error, message) }
}

/// What a service answered, in words.
fn said(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let text = cut(body.trim());
    let colon = if text.is_empty() { "" } else { ": " };
    format!("{} answered {}{colon}{text}", shown(&answer.url), answer.status)
}

fn origin_of(endpoint: &str) -> String {
    Url::parse(endpoint).map_or_else(|_| endpoint.to_owned(), |url| origin(&url))
}

fn sensitive(mut headers: HeaderMap) -> HeaderMap {
    for value in headers.values_mut() {
        value.set_sensitive(true);
    }
    headers
}
