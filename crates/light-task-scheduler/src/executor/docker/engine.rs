//! One Docker engine: the way to it, what it says, and how it is left alone while it does not answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error as Cause;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, EventMessage};
use bollard::query_parameters as ask;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::config::{EngineConfig, Way};
use super::verdict::Restart;
use crate::clock::{Timestamp, monotonic};
use crate::results::Stream;

/// How long an engine may take to answer: starting a container on a busy disk takes seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to say who it is.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How long an engine that does not answer is left alone, at first and at most.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How many events an engine remembers, in memory only.
const EVENTS_REMEMBERED: usize = 256;
/// The longest last line of an output that is shown (1 KiB).
const COMPLAINT_BYTES_MAX: usize = 1 << 10;
/// Within how many last lines of both streams it is looked for.
const COMPLAINT_WITHIN_LINES: &str = "100";

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answers, or not in a way to be understood: nothing is known.
    Unreachable(String),
    /// The engine has answered with this status: the call has changed nothing, unless it says otherwise.
    Said(u16, String),
}

/// There is no such thing, and: the state forbids it.
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const CONFLICT: u16 = 409;

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Unreachable(why) | Trouble::Said(_, why) => f.write_str(why),
        }
    }
}

/// An engine of the pool.
#[derive(Debug)]
pub(super) struct Engine {
    config: EngineConfig,
    /// Held while somebody connects: the others wait for that.
    link: tokio::sync::Mutex<Option<Arc<Client>>>,
    health: Mutex<Health>,
    /// Grows whenever an engine that had answered does not any more.
    breaks: AtomicU64,
    /// The identities of the pool's engines, by their address.
    identities: Arc<Mutex<HashMap<String, String>>>,
}

#[derive(Debug, Default)]
struct Health {
    /// Failures in a row, the last, and until when no other try is made.
    failures: u32,
    last: String,
    leave_until: Option<Instant>,
    /// How many containers run here on our account.
    active: usize,
}

/// A connected engine.
#[derive(Debug)]
pub(super) struct Client {
    docker: Docker,
    /// Made once by an engine, and kept with its data.
    pub(super) identity: String,
    /// Whether containers live on while the engine is down.
    live_restore: bool,
}

/// A place for one container on an engine, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place(pub(super) Arc<Engine>);

impl Place {
    /// Takes a place, whether or not there is room.
    pub(super) fn take(engine: &Arc<Engine>) -> Self {
        engine.health().active += 1;
        Place(engine.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.health().active -= 1;
    }
}

impl Engine {
    pub(super) fn new(config: EngineConfig, identities: Arc<Mutex<HashMap<String, String>>>) -> Self {
        Engine {
            config,
            link: tokio::sync::Mutex::new(None),
            health: Mutex::default(),
            breaks: AtomicU64::new(0),
            identities,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.config.address
    }

    /// The part of its capacity that is in use, in thousandths; `None` if all is.
    pub(super) fn load(&self) -> Option<usize> {
        const WHOLE: usize = 1_000;
        let active = self.health().active;
        (active < self.config.capacity).then(|| active * WHOLE / self.config.capacity)
    }

    /// Takes a place if there is room.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut health = self.health();
        if health.active >= self.config.capacity {
            return None;
        }
        health.active += 1;
        Some(Place(self.clone()))
    }

    pub(super) fn breaks(&self) -> u64 {
        self.breaks.load(Ordering::Acquire)
    }

    /// The connected engine, or why there is none. An engine that has just failed is not asked again at once.
    pub(super) async fn client(&self) -> Result<Arc<Client>, Trouble> {
        let mut link = self.link.lock().await;
        if let Some(client) = link.as_ref() {
            return Ok(client.clone());
        }
        if let Some(last) = self.left_alone() {
            return Err(Trouble::Unreachable(last));
        }
        let greeted = tokio::time::timeout(GREET_WITHIN, self.greet()).await;
        let greeted = greeted.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
        match greeted.and_then(|client| self.identify(client)) {
            Ok(client) => {
                let client = Arc::new(client);
                *link = Some(client.clone());
                let mut health = self.health();
                (health.failures, health.leave_until) = (0, None);
                Ok(client)
            }
            Err(why) => Err(self.failed(&why)),
        }
    }

    async fn greet(&self) -> Result<Client, String> {
        let seconds = ANSWER_WITHIN.as_secs();
        let address = &self.config.address;
        let docker = match self.config.way()? {
            Way::Unix => Docker::connect_with_unix(address, seconds, API_DEFAULT_VERSION),
            Way::Tcp => Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION),
            Way::Tls(tls) => {
                Docker::connect_with_ssl(address, &tls.key, &tls.cert, &tls.ca, seconds, API_DEFAULT_VERSION)
            }
        };
        let words = |error: Cause| in_words(&error);
        let docker = docker.map_err(words)?.negotiate_version().await.map_err(words)?;
        let info = docker.info().await.map_err(words)?;
        let identity = info.id.filter(|id| !id.is_empty()).ok_or("it has no identity")?;
        Ok(Client { docker, identity, live_restore: info.live_restore_enabled == Some(true) })
    }

    /// Two addresses of one engine would count its containers twice; two engines of one identity would each be
    /// taken for proof that a container of the other is gone.
    fn identify(&self, client: Client) -> Result<Client, String> {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let address = identities.entry(client.identity.clone()).or_insert_with(|| self.config.address.clone());
        if *address == self.config.address {
            Ok(client)
        } else {
            Err(format!("it has the identity of {address}; each engine needs one of its own, and one address"))
        }
    }

    fn left_alone(&self) -> Option<String> {
        let health = self.health();
        health.leave_until.is_some_and(|until| monotonic() < until).then(|| health.last.clone())
    }

    fn failed(&self, why: &str) -> Trouble {
        let mut health = self.health();
        let wait = BACK_OFF_FIRST.saturating_mul(1 << health.failures.min(8)).min(BACK_OFF_MAX);
        health.failures += 1;
        health.leave_until = Some(monotonic() + wait);
        health.last = self.in_full(why);
        Trouble::Unreachable(health.last.clone())
    }

    fn in_full(&self, why: &str) -> String {
        format!("the engine at {} cannot be reached: {why}", self.config.address)
    }

    /// Makes one call, in bounded time.
    pub(super) async fn call<T, F>(&self, client: &Arc<Client>, call: F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Cause>>,
    {
        match tokio::time::timeout(ANSWER_WITHIN, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.trouble(client, error).await),
            Err(_) => Err(self.trouble(client, Cause::RequestTimeoutError).await),
        }
    }

    /// Sorts an error, and forgets a connection that is broken.
    pub(super) async fn trouble(&self, client: &Arc<Client>, error: Cause) -> Trouble {
        match error {
            Cause::DockerResponseServerError { status_code, message } => Trouble::Said(status_code, message),
            Cause::DockerStreamError { error } => Trouble::Said(0, error),
            error @ (Cause::IOError { .. }
            | Cause::HyperResponseError { .. }
            | Cause::HyperLegacyError { .. }
            | Cause::SocketNotFoundError(_)) => {
                let mut link = self.link.lock().await;
                // One break is one failure, however many calls it cuts off.
                if link.as_ref().is_some_and(|current| Arc::ptr_eq(current, client)) {
                    *link = None;
                    self.breaks.fetch_add(1, Ordering::AcqRel);
                    return self.failed(&in_words(&error));
                }
                Trouble::Unreachable(self.in_full(&in_words(&error)))
            }
            // Slow, or in words of a version that we do not know: the connection is as good as any other.
            error => Trouble::Unreachable(format!("the engine at {}: {error}", self.config.address)),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls. Containers go by id or name; both are of letters that need no escape.
impl Engine {
    pub(super) async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Trouble> {
        let client = self.client().await?;
        self.call(&client, client.docker.inspect_container(name, None)).await
    }

    /// All containers, ended ones too, that pass the filter.
    pub(super) async fn list(&self, filter: &str, values: Vec<String>) -> Result<Vec<ContainerSummary>, Trouble> {
        let client = self.client().await?;
        let filters = HashMap::from([(filter.to_owned(), values)]);
        let options = ask::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.call(&client, client.docker.list_containers(Some(options))).await
    }

    /// Makes a container; answers its id and what the engine had to remark.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(String, Vec<String>), Trouble> {
        let client = self.client().await?;
        let options = ask::CreateContainerOptionsBuilder::new().name(name).build();
        let made = self.call(&client, client.docker.create_container(Some(options), body)).await?;
        Ok((made.id, made.warnings))
    }

    /// Starts it; nothing happens if it runs.
    pub(super) async fn start(&self, id: &str) -> Result<(), Trouble> {
        let client = self.client().await?;
        self.call(&client, client.docker.start_container(id, None)).await
    }

    pub(super) async fn kill(&self, id: &str, signal: &str) -> Result<(), Trouble> {
        let client = self.client().await?;
        let options = ask::KillContainerOptionsBuilder::new().signal(signal).build();
        self.call(&client, client.docker.kill_container(id, Some(options))).await
    }

    /// Kills and removes it, with the volumes that have no name; one that is not there is removed already.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Trouble> {
        let client = self.client().await?;
        let options = ask::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call(&client, client.docker.remove_container(id, Some(options))).await {
            Err(Trouble::Said(NOT_FOUND, _)) => Ok(()),
            other => other,
        }
    }

    /// Returns when the container may have ended: a hint. The exit code comes by `inspect`.
    pub(super) async fn wait(&self, id: &str) -> Result<(), Trouble> {
        let client = self.client().await?;
        let options = ask::WaitContainerOptionsBuilder::new().condition("not-running").build();
        match Box::pin(client.docker.wait_container(id, Some(options))).next().await {
            // It is an error to this client if the container fails; it is none to us.
            None | Some(Ok(_) | Err(Cause::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(self.trouble(&client, error).await),
        }
    }

    /// The logs of a container, from their beginning.
    pub(super) async fn logs(&self, id: &str, options: ask::LogsOptionsBuilder) -> Result<Logs, Trouble> {
        let client = self.client().await?;
        let stream = Box::pin(client.docker.logs(id, Some(options.build())));
        Ok(Logs { client, stream })
    }

    /// The last line of its standard error, cut; empty if there is none near the end of its output, or it cannot be
    /// read.
    pub(super) async fn complaint(&self, id: &str) -> String {
        // The engine counts lines of both streams, whichever is asked for.
        let options = ask::LogsOptionsBuilder::new().stderr(true).tail(COMPLAINT_WITHIN_LINES);
        let Ok(mut logs) = self.logs(id, options).await else { return String::new() };
        let mut last = String::new();
        while let Ok(Ok(Some((_, line)))) = tokio::time::timeout(ANSWER_WITHIN, logs.next(self)).await {
            let line = String::from_utf8_lossy(&line[..line.len().min(COMPLAINT_BYTES_MAX)]);
            if !line.trim().is_empty() {
                last = line.trim().to_owned();
            }
        }
        last
    }

    pub(super) async fn has_image(&self, image: &str) -> Result<bool, Trouble> {
        let client = self.client().await?;
        match self.call(&client, client.docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(Trouble::Said(NOT_FOUND, _)) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// Fetches an image; takes as long as it takes.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Trouble> {
        let client = self.client().await?;
        // Without a tag all of them would be fetched.
        let name = image.rsplit('/').next().unwrap_or(image);
        let whole = if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
        let options = ask::CreateImageOptionsBuilder::new().from_image(&whole).build();
        let mut steps = Box::pin(client.docker.create_image(Some(options), None, None));
        while let Some(step) = steps.next().await {
            match step {
                Ok(step) => {
                    if let Some(error) = step.error_detail {
                        return Err(Trouble::Said(0, error.message.unwrap_or_default()));
                    }
                }
                Err(error) => return Err(self.trouble(&client, error).await),
            }
        }
        Ok(())
    }

    /// What this engine remembers of a container: whether somebody has killed it, by one of these signals, and
    /// whether the engine was started anew since it started the container. `broke`: it did not answer meanwhile.
    pub(super) async fn memory_of(&self, id: &str, signals: &[i64], broke: bool) -> Result<(bool, Restart), Trouble> {
        let client = self.client().await?;
        let own = self.events(&client, Some(id)).await?;
        let is = |event: &&EventMessage, action: &str| event.action.as_deref() == Some(action);
        let signal = |event: &EventMessage| event.actor.as_ref()?.attributes.as_ref()?.get("signal")?.parse().ok();
        let killed = own
            .iter()
            .filter(|event| is(event, "kill"))
            .any(|event| signal(event).is_some_and(|signal| signals.contains(&signal)));
        let knows = |action: &str| own.iter().any(|event| is(&event, action));
        if knows("start") {
            return Ok((killed, Restart::None));
        }
        // It has forgotten the start, or was started since: only an engine that has not had much to remember is sure.
        let sure = self.events(&client, None).await?.len() < EVENTS_REMEMBERED;
        let restart = match (knows("die"), client.live_restore) {
            _ if !sure && !broke => Restart::None,
            (true, true) => Restart::None,
            // An engine that was killed after it had taken an end, and before it had written it down, notes code 0.
            (false, _) if broke => Restart::Unclear,
            (false, _) => Restart::EndedBefore,
            (true, false) if sure => Restart::EndedByIt,
            (true, false) => Restart::Unclear,
        };
        Ok((killed, restart))
    }

    /// What the engine remembers since it was started: the last events of one container, or of all.
    async fn events(&self, client: &Arc<Client>, container: Option<&str>) -> Result<Vec<EventMessage>, Trouble> {
        // Its own clock: the stream ends where it is told, and must not wait for the future.
        let now = self.call(client, client.docker.info()).await?.system_time.unwrap_or_default();
        let now: Timestamp = now.parse().map_err(|_| {
            Trouble::Unreachable(format!("the engine at {} does not tell its time", self.config.address))
        })?;
        let micros = now.as_micros();
        let until = format!("{}.{:06}000", micros / 1_000_000, micros % 1_000_000);
        let mut options = ask::EventsOptionsBuilder::new().since("1").until(&until);
        if let Some(container) = container {
            options = options.filters(&HashMap::from([("container", vec![container])]));
        }
        let mut stream = Box::pin(client.docker.events(Some(options.build())));
        let all = async {
            let mut events = Vec::new();
            while let Some(event) = stream.next().await {
                events.push(event?);
            }
            Ok(events)
        };
        self.call(client, all).await
    }
}

/// A container's output as it comes.
pub(super) struct Logs {
    client: Arc<Client>,
    stream: futures_util::stream::BoxStream<'static, Result<bollard::container::LogOutput, Cause>>,
}

impl Logs {
    /// The next part and its stream; `None` at the end.
    pub(super) async fn next(&mut self, engine: &Engine) -> Result<Option<(Stream, Vec<u8>)>, Trouble> {
        use bollard::container::LogOutput::{Console, StdErr, StdIn, StdOut};
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(StdOut { message })) => Ok(Some((Stream::Stdout, message.to_vec()))),
            Some(Ok(StdErr { message })) => Ok(Some((Stream::Stderr, message.to_vec()))),
            // A frame that was cut off: what was in it comes with the next try.
            Some(Ok(Console { .. } | StdIn { .. })) => {
                Err(Trouble::Unreachable(format!("the engine at {} has broken off a log", engine.address())))
            }
            Some(Err(error)) => Err(engine.trouble(&self.client, error).await),
        }
    }
}

/// An error with its causes: the outermost alone often says nothing.
fn in_words(error: &Cause) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}
