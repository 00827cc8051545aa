//! How a task is really run: the [`Executor`] contract and its values.
//!
//! (Not to be confused with an async executor: this one runs tasks of users, as function calls,
//! commands, containers or jobs of a remote service.)
//!
//! An executor starts one attempt, tells how it stands, stops it, reads its output and cleans up. It
//! takes no decision: retries, timeouts, limits and final states belong to the scheduler.

#[cfg(feature = "docker")]
pub mod docker;
mod function;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "docker", feature = "process"))]
mod leftovers;
#[cfg(feature = "process")]
pub mod process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::store::Said;
use crate::task::{Failure, Handle, Name, NewTask, Outcome, Payload, Progress, Task};

pub use function::{Context, FunctionExecutor};

/// Runs tasks of the kinds it is registered for.
///
/// Everything that a start makes is named by the [`Run`]'s `(namespace, id, execution)`, so that a start
/// that was interrupted is found again and never doubled.
#[async_trait]
pub trait Executor: Send + Sync + fmt::Debug {
    /// Whether a run outlives this process and can be re-attached, here or by another replica.
    fn adoptable(&self) -> bool;

    /// Looks at a task before it is taken in, and refuses early what could never run.
    async fn prepare(&self, task: &NewTask) -> Result<()>;

    /// Starts an attempt. The claim is stored before; what is started here has an owner.
    ///
    /// Called at most once per execution by one owner. After a crash, [`recover`](Executor::recover)
    /// is called instead. It is too, without a handle, after this call was dropped: that happens when the task is
    /// cancelled or its time is over before the start has answered. What it had begun by then may go on or not,
    /// but must be found again.
    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError>;

    /// Finds a started run again after its owner died; `handle` is what was stored, if anything.
    ///
    /// Without a handle the start may or may not have happened: the executor looks for what it would
    /// have made. It answers [`Recovered::Gone`] only on positive proof that nothing runs and nothing
    /// will, from the same engine, host boot or service.
    async fn recover(&self, run: Run, handle: Option<Handle>, reporter: Reporter) -> Recovered;

    /// How these runs stand, one answer per handle in order. Reading a status changes nothing, and one
    /// bad handle never fails the others.
    ///
    /// An end, whether it is answered here, by [`stop`](Executor::stop) or reported, is told once what the run has
    /// written is in the log store, or does not get there in bearable time: whoever hears of it reads the log.
    async fn status(&self, handles: &[Handle]) -> Vec<Status>;

    /// The output of a run that succeeded. May be called again, also by another replica.
    async fn output(&self, handle: &Handle) -> Result<Payload>;

    /// Ends a run: asks it, waits for `grace`, then forces it, then confirms that all of it is dead.
    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped;

    /// Removes what is left of an ended run. Called once its outcome is safe; may be called again.
    async fn release(&self, handle: &Handle);
}

/// One attempt, as an executor sees it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Sets apart the names of several installations on one engine.
    pub namespace: Name,
    /// The task.
    pub task: Arc<Task>,
    /// Whether its claim is known to have been made on this host, by this process or by one that has ended: what it
    /// has started is here or nowhere. If not, [`recover`](Executor::recover) without a handle may be asked of a
    /// run of any host.
    pub claimed_here: bool,
}

impl Run {
    /// Names what this start makes, unique in its engine: namespace, id and execution.
    pub fn execution_name(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.task.id, self.task.record.execution)
    }
}

/// The answer to [`Executor::start`].
#[derive(Debug)]
pub enum Started {
    /// It runs. The handle finds it again.
    Running(Handle),
    /// It has ended already: nothing is left to watch, stop or release.
    Ended(Outcome),
}

/// Why a start failed. Nothing runs.
#[derive(Debug, Clone, PartialEq)]
pub enum StartError {
    /// No room just now: the task goes back and is not charged.
    Busy {
        /// In words.
        message: String,
        /// Not to be tried again sooner.
        retry_after: Duration,
    },
    /// This can never run: the task fails.
    Refused(Failure),
}

/// The answer to [`Executor::recover`].
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// It runs, or its end can be read: watched by this handle from here on.
    Attached(Handle),
    /// Proven: nothing of it runs, and how it ended is unknown.
    Gone(String),
    /// Nobody can tell just now: the task keeps its slot, and the executor is asked again.
    Unreachable(String),
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It runs.
    Running(Option<Progress>),
    /// It has ended.
    Ended(Outcome),
    /// Proven: it is gone, and how it ended is unknown.
    Lost(String),
    /// Nobody can tell just now.
    Unreachable(String),
}

/// The answer to [`Executor::stop`].
#[derive(Debug, Clone, PartialEq)]
pub enum Stopped {
    /// All of it is dead. If it ended by itself before it was forced, this is how.
    Confirmed(Option<Outcome>),
    /// It may still run. The slot stays taken and the stop is tried again.
    Unconfirmed(String),
}

/// Takes what a run says of itself. Any `Fn(Said)` is one.
pub trait ReportSink: Send + Sync {
    /// Takes one report. Must not block.
    fn report(&self, said: Said);
}

impl<F: Fn(Said) + Send + Sync> ReportSink for F {
    fn report(&self, said: Said) {
        self(said);
    }
}

/// Handed to a run: by it the run pushes progress and its end to the scheduler (the original's callback).
///
/// Pushing never blocks and never fails; what comes after the end is dropped.
#[derive(Clone)]
pub struct Reporter(Arc<dyn ReportSink>);

impl Reporter {
    /// A reporter for one execution.
    pub fn new(sink: Arc<dyn ReportSink>) -> Self {
        Reporter(sink)
    }

    /// Says how far the run has come.
    pub fn progress(&self, progress: Progress) {
        self.0.report(Said::Progress(progress));
    }

    /// Says how the run ended.
    pub fn ended(&self, outcome: Outcome) {
        self.0.report(Said::Ended(outcome));
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executor_is_object_safe() {
        fn _takes(_: &dyn Executor) {}
    }
}
