//! Function calls in this process.

use std::any::{Any, TypeId};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{self, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result, TaskError};
use crate::executor::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::task::{Failure, FailureKind, Handle, Name, NewTask, Outcome, Payload, Progress, Task};

/// How long an aborted handler gets to reach its next await point before it counts as not stoppable.
const ABORT_PATIENCE: Duration = Duration::from_millis(500);

type CallFuture = Pin<Box<dyn Future<Output = Result<Payload, TaskError>> + Send>>;
type HandlerFn = dyn Fn(Context, &Payload) -> CallFuture + Send + Sync;

struct Handler {
    call: Box<HandlerFn>,
    /// It runs on a thread, which nothing can end from outside: dropping its future would only hide it.
    blocking: bool,
}

/// Runs handlers of this process: async functions, and blocking ones on threads of their own.
///
/// One executor serves many kinds. A handler takes a [`Context`] and any payload that serde can read,
/// and returns any result that serde can write; `?` works on every error.
///
/// ```
/// use light_task_scheduler::{Context, FunctionExecutor};
///
/// let functions = FunctionExecutor::new()
///     .register("add", |_: Context, (a, b): (i64, i64)| async move { Ok(a + b) })
///     .register_blocking("digits", |_: Context, text: String| Ok(text.parse::<u64>()?));
/// ```
///
/// # Cancellation
///
/// It is cooperative: the context's token fires, the handler gets the grace to return, then an async
/// handler is dropped at its next await point. A blocking handler cannot be forced: it keeps its slot,
/// shown as `stop_unconfirmed`, until it returns.
///
/// # After a crash
///
/// A function dies with its process, so a run is never adopted: it is lost, and tried again.
#[derive(Default)]
pub struct FunctionExecutor {
    handlers: HashMap<Name, Handler>,
    runs: Arc<Mutex<HashMap<String, Live>>>,
}

/// A handler that did not finish at its first poll.
#[derive(Debug)]
struct Live {
    cancel: CancellationToken,
    abort: Option<AbortHandle>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl FunctionExecutor {
    /// An executor without handlers.
    pub fn new() -> Self {
        FunctionExecutor::default()
    }

    /// Adds an async handler for a kind. A kind registered twice has the later handler.
    ///
    /// # Panics
    ///
    /// If `kind` is not a valid [`Name`]: it is a constant of the program.
    #[must_use]
    pub fn register<P, R, F, Fut>(self, kind: &str, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.with(kind, false, move |context, payload| match parse(payload) {
            Ok(value) => {
                let call = handler(context, value);
                Box::pin(async move { encode(&call.await?) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        })
    }

    /// Adds a blocking handler for a kind; each call runs on a thread of tokio's blocking pool.
    ///
    /// # Panics
    ///
    /// As [`register`](FunctionExecutor::register).
    #[must_use]
    pub fn register_blocking<P, R, F>(self, kind: &str, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Context, P) -> Result<R, TaskError> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        self.with(kind, true, move |context, payload| match parse(payload) {
            Ok(value) => {
                let handler = handler.clone();
                let thread = tokio::task::spawn_blocking(move || encode(&handler(context, value)?));
                Box::pin(async move {
                    match thread.await {
                        Ok(answer) => answer,
                        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                        Err(error) => Err(TaskError::new(error)),
                    }
                })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        })
    }

    #[allow(clippy::expect_used, reason = "documented: a kind is a constant of the program")]
    fn with<F>(mut self, kind: &str, blocking: bool, call: F) -> Self
    where
        F: Fn(Context, &Payload) -> CallFuture + Send + Sync + 'static,
    {
        let kind = Name::new(kind).expect("a kind is a valid name");
        self.handlers.insert(kind, Handler { call: Box::new(call), blocking });
        self
    }

    /// The kinds that have a handler.
    pub fn kinds(&self) -> Vec<Name> {
        let mut kinds: Vec<Name> = self.handlers.keys().cloned().collect();
        kinds.sort();
        kinds
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a handler go on as a task of its own, and keeps how to watch and stop it.
    fn detach(&self, name: String, call: Caught, blocking: bool, context: Context) {
        let (sender, outcome) = watch::channel(None);
        let cancel = context.cancel().clone();
        let task = tokio::spawn(async move {
            let outcome = call.await;
            // Stored before it is pushed: whoever reacts to the push finds it.
            sender.send_replace(Some(outcome.clone()));
            context.0.reporter.ended(outcome);
        });
        self.runs().insert(name, Live { cancel, abort: (!blocking).then(|| task.abort_handle()), outcome });
    }
}

fn parse<P: DeserializeOwned>(payload: &Payload) -> Result<P, TaskError> {
    payload.parse().map_err(|error| TaskError::fatal(format!("the payload is {error}")))
}

fn encode<R: Serialize + 'static>(result: &R) -> Result<Payload, TaskError> {
    // Most functions return nothing, and do so often.
    if TypeId::of::<R>() == TypeId::of::<()>() {
        return Ok(Payload::null());
    }
    Payload::json(result).map_err(TaskError::fatal)
}

#[async_trait]
impl Executor for FunctionExecutor {
    fn adoptable(&self) -> bool {
        false
    }

    async fn prepare(&self, task: &NewTask) -> Result<()> {
        if self.handlers.contains_key(&task.kind) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, format!("no function is registered for the kind `{}`", task.kind)))
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        let Some(handler) = self.handlers.get(&run.task.spec.kind) else {
            let message = format!("no function is registered for the kind `{}`", run.task.spec.kind);
            return Err(StartError::Refused(Failure::new(FailureKind::Refused, message)));
        };
        let context = Context(Arc::new(Call { task: run.task.clone(), reporter, cancel: OnceLock::new() }));
        let shared = context.clone();
        // The call itself may panic before there is a future.
        let call = match catch_unwind(AssertUnwindSafe(|| (handler.call)(context, &run.task.spec.payload))) {
            Ok(call) => call,
            Err(panic) => return Ok(Started::Ended(Outcome::Failed(panicked(&*panic)))),
        };
        // Most handlers that are worth batching finish at their first poll: those need no task of their own.
        // One that does not is polled again when it has become one, so the waker of this poll is never needed.
        let mut call = Caught(call);
        if let Poll::Ready(outcome) = Pin::new(&mut call).poll(&mut task::Context::from_waker(Waker::noop())) {
            return Ok(Started::Ended(outcome));
        }
        let name = run.execution_name();
        let handle = Handle::new(&name)
            .map_err(|error| StartError::Refused(Failure::new(FailureKind::Refused, error.to_string())))?;
        self.detach(name, call, handler.blocking, shared);
        Ok(Started::Running(handle))
    }

    async fn recover(&self, run: Run, _handle: Option<Handle>, _reporter: Reporter) -> Recovered {
        let name = run.execution_name();
        match Handle::new(&name) {
            Ok(handle) if self.runs().contains_key(&name) => Recovered::Attached(handle),
            _ => Recovered::Gone("the process that ran the function is gone".to_owned()),
        }
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        let runs = self.runs();
        let status = |handle: &Handle| match runs.get(handle.as_str()) {
            None => Status::Lost("this process runs no such function".to_owned()),
            Some(live) => match live.outcome.borrow().clone() {
                Some(outcome) => Status::Ended(outcome),
                None if live.outcome.has_changed().is_err() => Status::Ended(Outcome::Failed(dropped())),
                None => Status::Running(None),
            },
        };
        handles.iter().map(status).collect()
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        let outcome = self.runs().get(handle.as_str()).and_then(|live| live.outcome.borrow().clone());
        match outcome {
            Some(Outcome::Succeeded(Some(output))) => Ok(output),
            _ => Err(Error::new(ErrorKind::NotFound, format!("the function {} left no output", handle.as_str()))),
        }
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        let found = self.runs().get(handle.as_str()).map(|live| {
            live.cancel.cancel();
            (live.outcome.clone(), live.abort.clone())
        });
        let Some((mut outcome, abort)) = found else { return Stopped::Confirmed(None) };
        if let Ok(ended) = tokio::time::timeout(grace, outcome.wait_for(Option::is_some)).await {
            return Stopped::Confirmed(ended.ok().and_then(|outcome| outcome.clone()));
        }
        if let Some(abort) = abort {
            abort.abort();
        }
        match tokio::time::timeout(ABORT_PATIENCE, outcome.wait_for(Option::is_some)).await {
            Ok(ended) => Stopped::Confirmed(ended.ok().and_then(|outcome| outcome.clone())),
            Err(_) => Stopped::Unconfirmed("the handler ignores cancellation".to_owned()),
        }
    }

    async fn release(&self, handle: &Handle) {
        self.runs().remove(handle.as_str());
    }
}

impl Drop for FunctionExecutor {
    /// Functions die with what ran them: dropping the executor cancels and aborts all of them.
    fn drop(&mut self) {
        for live in self.runs().values() {
            live.cancel.cancel();
            if let Some(abort) = &live.abort {
                abort.abort();
            }
        }
    }
}

impl fmt::Debug for FunctionExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionExecutor").field("kinds", &self.kinds()).finish_non_exhaustive()
    }
}

/// A call whose panics are outcomes.
struct Caught(CallFuture);

impl Future for Caught {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Outcome> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(output))) => Poll::Ready(Outcome::Succeeded(Some(output))),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Outcome::Failed(failed(&error))),
            Err(panic) => Poll::Ready(Outcome::Failed(panicked(&*panic))),
        }
    }
}

fn failed(error: &TaskError) -> Failure {
    Failure { fatal: error.is_fatal(), retry_after: error.delay(), ..Failure::new(FailureKind::Error, error.message()) }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::new(FailureKind::Panic, said.unwrap_or("the handler panicked"))
}

fn dropped() -> Failure {
    Failure::new(FailureKind::Lost, "the handler was dropped before it returned")
}

/// What a handler knows of its run, and how it speaks with the scheduler. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context(Arc<Call>);

#[derive(Debug)]
struct Call {
    task: Arc<Task>,
    reporter: Reporter,
    /// Made when first asked for: a handler that ends at its first poll never needs one.
    cancel: OnceLock<CancellationToken>,
}

impl Context {
    /// The task.
    pub fn task(&self) -> &Task {
        &self.0.task
    }

    fn cancel(&self) -> &CancellationToken {
        self.0.cancel.get_or_init(CancellationToken::new)
    }

    /// Which start of the task this is, the first in its generation is 1.
    pub fn attempt(&self) -> u32 {
        self.0.task.record.attempt
    }

    /// The same for every repeat that could double a side effect of *this* start, and different for the
    /// next: hand it to other services as their idempotency key.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.0.task.id, self.0.task.record.execution)
    }

    /// Says how far the run has come. Cheap; written to the store at most about once a second.
    pub fn progress(&self, done: u64, total: u64, message: impl Into<String>) {
        self.0.reporter.progress(Progress { done, total, message: message.into() });
    }

    /// Whether the run is asked to stop: cancelled, timed out, or its scheduler shuts down.
    pub fn is_cancelled(&self) -> bool {
        self.cancel().is_cancelled()
    }

    /// Waits until the run is asked to stop.
    pub async fn cancelled(&self) {
        self.cancel().cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_kinds_are_listed_in_order() {
        let functions = FunctionExecutor::new()
            .register("b", |_: Context, (): ()| async { Ok(()) })
            .register_blocking("a", |_: Context, (): ()| Ok(()));
        assert_eq!(functions.kinds().iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }
}
