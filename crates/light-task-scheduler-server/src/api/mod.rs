//! The HTTP API: a router over a [`Scheduler`], to be served by `lts` or mounted in a program of your own.
//!
//! ```
//! use std::sync::Arc;
//! use light_task_scheduler::results::MemoryLogs;
//! use light_task_scheduler::{MemoryStore, Scheduler};
//! use light_task_scheduler_server::api::{Api, ApiOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let scheduler = Scheduler::builder(MemoryStore::by_priority()).start().await?;
//! let options = ApiOptions { base_path: "/tasks".to_owned(), ..ApiOptions::default() };
//! let api = Api::new(scheduler, Arc::new(MemoryLogs::default()), options);
//! let app: axum::Router = axum::Router::new().merge(api.router());
//! # let _ = app;
//! # Ok(())
//! # }
//! ```

mod access;
mod actions;
mod body;
mod callbacks;
mod console;
mod docs;
mod events;
mod health;
mod leases;
mod logs;
mod metrics;
mod openapi;
mod pack;
mod precondition;
mod problem;
mod query;
mod queues;
mod session;
mod source;
mod stats;
mod task;
mod tasks;
mod tokens;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use light_task_scheduler::{Clock, LogStore, Name, NewTask, RetryPolicy, Scheduler, Store, SystemClock, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use access::Caller;
pub use access::Role;
pub(crate) use body::{Span, in_words};
pub(crate) use callbacks::CALLBACKS_PATH;
use problem::{Code, Problem, Result};
pub(crate) use query::quoted;
pub(crate) use queues::Settings;
pub use session::Admission;
use source::Source;
pub(crate) use task::{Retry, TaskView};
pub use tokens::{NewToken, Token, TokenFile};
pub(crate) use workers::state_of;

/// Largest body of most requests, in bytes: a payload of 1 MiB and what is around it.
const BODY_BYTES_MAX: usize = 2 << 20;
/// Largest body of a batch, in bytes (64 MiB).
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Most streams of events and logs that are open at once.
const STREAMS_MAX: usize = 1_000;

/// How the API behaves.
#[derive(Debug, Clone, Default)]
pub struct ApiOptions {
    /// How this installation is called for people.
    pub name: String,
    /// Under which path everything is served, for example `/lts`; empty: at the root.
    pub base_path: String,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Who is let in.
    pub admission: Admission,
    /// What tasks get that do not say it themselves.
    pub defaults: Defaults,
    /// What takes the reports of remote services, at `/api/v1/callbacks` below the base path:
    /// [`HttpExecutor::callbacks`](light_task_scheduler::executor::http::HttpExecutor::callbacks), whose
    /// [`url`](light_task_scheduler::executor::http::CallbackConfig::url) must lead there. None: none are taken.
    pub callbacks: Option<Router>,
}

/// What the tasks of a queue get that do not say it themselves.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// By queue.
    pub queues: BTreeMap<Name, QueueDefaults>,
}

/// What a task gets that does not say it itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueueDefaults {
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
    /// How often it is tried.
    pub retry: Option<RetryPolicy>,
}

impl Defaults {
    fn fill(&self, task: &mut NewTask) {
        let Some(defaults) = self.queues.get(&task.queue) else { return };
        if defaults.timeout.is_none() && defaults.retry.is_none() {
            return;
        }
        let options = task.options.get_or_insert_default();
        options.timeout = options.timeout.or(defaults.timeout);
        options.retry = options.retry.or(defaults.retry);
    }
}

/// The API of one scheduler. Cloning is cheap.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    logs: Arc<dyn LogStore>,
    options: ApiOptions,
    /// Ends what waits and what streams.
    stop: CancellationToken,
    history: stats::History,
    feed: Arc<events::Feed>,
    meters: metrics::Meters,
    /// One for each stream that may be open at once.
    streams: Arc<Semaphore>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Api {
    /// An API over this scheduler, which shows these logs.
    ///
    /// Must be called within a runtime: it counts tasks in the background, until it is [stopped](Api::stop).
    pub fn new(scheduler: Scheduler, logs: Arc<dyn LogStore>, options: ApiOptions) -> Self {
        let api = Api::over(Source::Scheduler(scheduler), logs, options);
        tokio::spawn(stats::count(Arc::downgrade(&api.shared), api.shared.stop.clone()));
        api
    }

    /// An API over a store whose tasks others run: it counts nothing in the background.
    pub(crate) fn over_store(store: Arc<dyn Store>, logs: Arc<dyn LogStore>) -> Self {
        let options = ApiOptions { admission: Admission::Everybody, ..ApiOptions::default() };
        Api::over(Source::Store(store), logs, options)
    }

    fn over(source: Source, logs: Arc<dyn LogStore>, options: ApiOptions) -> Self {
        let history = stats::History::default();
        let (feed, streams) = (Arc::new(events::Feed::default()), Arc::new(Semaphore::new(STREAMS_MAX)));
        let (stop, meters) = (CancellationToken::new(), metrics::Meters::default());
        let shared = Shared { source, logs, options, stop, history, feed, meters, streams };
        let api = Api { shared: Arc::new(shared) };
        let (weak, stop) = (Arc::downgrade(&api.shared), api.shared.stop.clone());
        tokio::spawn(events::speak(weak, api.shared.feed.clone(), stop));
        api
    }

    /// Everything that is served, at its [base path](ApiOptions::base_path): to be merged into the router of a program, which
    /// may have other paths of its own.
    pub fn router(&self) -> Router {
        let base = self.options().base_path.as_str();
        if base.is_empty() {
            return self.at_root();
        }
        // What is nested has a root without a slash only, and addresses are relative to the one with it.
        let root = Router::new()
            .route(&format!("{base}/"), get(console::index))
            .layer(middleware::map_response(console::hardened))
            .with_state(self.clone());
        Router::new().nest(base, self.at_root()).merge(root)
    }

    /// Everything that is served, as at the root of an address.
    fn at_root(&self) -> Router {
        let (router, document) = self.described();
        let document = openapi::finished(document, self.options());
        router
            .merge(openapi::router(&document, self.options()))
            .merge(console::router())
            .fallback(async |request: Request| {
                let path = request.uri().path().to_owned();
                Problem::new(Code::NotFound, format!("there is nothing at {path}; see /docs")).into_response()
            })
            .method_not_allowed_fallback(async |request: Request| {
                let method = request.method().to_string();
                Problem::new(Code::MethodNotAllowed, format!("{method} is not possible here")).into_response()
            })
            .layer(middleware::map_response(console::hardened))
            .with_state(self.clone())
    }

    /// Ends whatever waits or streams, so that a server can end: connections with long answers never end by themselves.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    fn described(&self) -> (Router<Api>, utoipa::openapi::OpenApi) {
        let router = OpenApiRouter::with_openapi(openapi::head());
        let router = self.tasks(router);
        let router = self.operations(router);
        let router = self.leases(router);
        let measured = middleware::from_fn_with_state(self.clone(), metrics::measured);
        router.route_layer(measured).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).split_for_parts()
    }

    fn tasks(&self, router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
        let batch = self.guarded(routes!(tasks::submit_batch));
        let batch = (batch.0, batch.1, batch.2.layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)));
        router
            .routes(self.guarded(routes!(tasks::list, tasks::submit)))
            .routes(batch)
            .routes(self.guarded(routes!(tasks::read, tasks::delete)))
            .routes(self.guarded(routes!(tasks::cancel)))
            .routes(self.guarded(routes!(tasks::start)))
            .routes(self.guarded(routes!(tasks::retry)))
            .routes(self.guarded(routes!(tasks::retry_export)))
            .routes(self.guarded(routes!(tasks::reschedule)))
            .routes(self.guarded(routes!(tasks::clone)))
            .routes(self.guarded(routes!(tasks::list_attempts)))
            .routes(self.guarded(routes!(tasks::result)))
            .routes(self.guarded(routes!(logs::read)))
            .routes(self.guarded(routes!(actions::act)))
            .routes(self.guarded(routes!(actions::failures)))
    }

    fn operations(&self, router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
        router
            .routes(self.guarded(routes!(queues::list)))
            .routes(self.guarded(routes!(queues::read, queues::set)))
            .routes(self.guarded(routes!(queues::pause)))
            .routes(self.guarded(routes!(queues::resume)))
            .routes(self.guarded(routes!(actions::purge)))
            .routes(self.guarded(routes!(workers::list)))
            .routes(self.guarded(routes!(workers::drain)))
            .routes(self.guarded(routes!(stats::read)))
            .routes(self.guarded(routes!(stats::time_series)))
            .routes(self.guarded(routes!(events::stream)))
            .routes(self.guarded(routes!(session::sign_in, session::sign_out)))
            .routes(self.guarded(routes!(session::list_tokens, session::create_token)))
            .routes(self.guarded(routes!(session::revoke_token)))
            .routes(self.guarded(routes!(health::capabilities)))
            .routes(self.guarded(routes!(callbacks::report)))
            .routes(self.guarded(routes!(callbacks::report_as)))
            .routes(self.guarded(routes!(metrics::scrape)))
            .routes(self.guarded(routes!(health::alive)))
            .routes(self.guarded(routes!(health::ready)))
    }

    fn leases(&self, router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
        let groups = [
            routes!(leases::hello, leases::claim),
            routes!(leases::register),
            routes!(leases::leave),
            routes!(leases::heartbeat),
            routes!(leases::workers),
            routes!(leases::rescue),
            routes!(leases::candidates),
            routes!(leases::changed),
            routes!(leases::runs::apply),
            routes!(leases::runs::complete),
            routes!(leases::runs::fail),
            routes!(leases::runs::progress),
            routes!(leases::runs::release),
            routes!(leases::runs::report),
            routes!(leases::runs::append_logs),
            routes!(leases::runs::read_log),
            routes!(leases::runs::delete_logs),
            routes!(leases::tasks::insert),
            routes!(leases::tasks::command),
            routes!(leases::tasks::get),
            routes!(leases::tasks::list),
            routes!(leases::tasks::counts),
            routes!(leases::tasks::queues, leases::tasks::set_queue),
            routes!(leases::tasks::sweep),
        ];
        groups.into_iter().fold(router, |router, group| {
            let (schemas, paths, methods) = self.guarded(group);
            router.routes((schemas, paths, methods.layer(DefaultBodyLimit::max(BATCH_BYTES_MAX))))
        })
    }

    /// Lets only those through whom the description of an operation admits.
    fn guarded(&self, (schemas, paths, methods): UtoipaMethodRouter<Api>) -> UtoipaMethodRouter<Api> {
        let rules = access::rules(&paths);
        (schemas, paths, methods.layer(middleware::from_fn_with_state((self.clone(), rules), access::guard)))
    }

    /// Who asks.
    fn caller(&self, request: &Request) -> Result<Caller> {
        self.options().admission.caller(request.method(), request.headers())
    }

    /// Whether it asks for no credentials.
    fn is_open(&self) -> bool {
        !matches!(self.options().admission, Admission::Tokens(_))
    }

    fn source(&self) -> &Source {
        &self.shared.source
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.shared.source.store()
    }

    fn logs(&self) -> &Arc<dyn LogStore> {
        &self.shared.logs
    }

    fn options(&self) -> &ApiOptions {
        &self.shared.options
    }

    fn history(&self) -> &stats::History {
        &self.shared.history
    }

    fn feed(&self) -> &events::Feed {
        &self.shared.feed
    }

    /// A place among the streams, for as long as it is kept.
    fn stream_place(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.shared.streams.clone().try_acquire_owned();
        place.map_err(|_| Problem::new(Code::TooManyRequests, format!("{STREAMS_MAX} streams are open already")))
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// Resolves when the API is stopped.
    async fn stopping(&self) {
        self.shared.stop.cancelled().await;
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("source", &self.shared.source).finish_non_exhaustive()
    }
}

/// The description of the API, as a server at the root of its address gives it. Must be called within a runtime.
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    let store = light_task_scheduler::MemoryStore::by_priority();
    let api = Api::over_store(Arc::new(store), Arc::new(light_task_scheduler::results::MemoryLogs::default()));
    openapi::finished(api.described().1, api.options())
}

/// A value as it may stand in a URL's query.
pub(crate) fn url_encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
