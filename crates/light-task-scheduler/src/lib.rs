//! A task scheduling framework: any store, any executor, exact limits, and **no execution without an owner,
//! no slot without an execution**.
//!
//! Somebody has tasks: function calls, commands, and whatever else an [`Executor`] can run. A [`Scheduler`]
//! takes them in, keeps them in a [`Store`], starts them with bounded concurrency and rate, watches each until
//! it ends, enforces timeouts, retries with back-off, saves the result, and reports.
//!
//! ```
//! use std::time::Duration;
//! use light_task_scheduler::{
//!     Context, FunctionExecutor, MemoryStore, NewTask, RetryPolicy, Scheduler, Shutdown, TaskError,
//! };
//!
//! async fn resize(context: Context, (file, width): (String, u32)) -> Result<String, TaskError> {
//!     if width == 0 {
//!         return Err(TaskError::fatal("a picture has at least one column"));
//!     }
//!     context.progress(1, 1, "resized");
//!     Ok(format!("{width}px-{file}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), light_task_scheduler::Error> {
//! let functions = FunctionExecutor::new().register("resize", resize);
//! let scheduler = Scheduler::builder(MemoryStore::by_priority()).functions(functions).start().await?;
//! let task = NewTask::new("resize", &("cat.png", 640))?
//!     .timeout(Duration::from_secs(30))
//!     .retry(RetryPolicy::attempts(3));
//! let task = scheduler.submit(task).await?;
//! assert_eq!(task.result::<String>().await?, "640px-cat.png");
//! scheduler.shutdown(Shutdown::default()).await
//! # }
//! ```
//!
//! # What is where
//!
//! | you want to | look at |
//! |---|---|
//! | run tasks | [`Scheduler`], [`Config`], [`NewTask`], [`RetryPolicy`] |
//! | run functions | [`FunctionExecutor`] |
//! | run commands that outlive this program | `executor::process` (feature `process`) |
//! | run containers on Docker engines | `executor::docker` (feature `docker`) |
//! | keep tasks over a restart, or share them between processes | `SqliteStore` (feature `sqlite`) |
//! | share tasks between hosts | `PostgresStore` (feature `postgres`) |
//! | keep results and logs elsewhere | [`results`] |
//! | limit, pause or rate a queue | [`QueueSettings`], [`RateLimit`] |
//! | know every state and every move | [`state`] |
//! | write a store or an executor | [`store`], [`executor`], and the suites in `testing` (feature `testing`) |
//!
//! # What is guaranteed
//!
//! An accepted task is executed at least once and recorded to have ended exactly once. Every write of an owner
//! carries its claim on the task, and a write with an old claim changes nothing. Two runs of one task can overlap
//! only while a replica is cut off from the store for longer than its lease plus the observation of a rescuer;
//! where that would hurt, use the task's id or [`Context::idempotency_key`] at the other side.
//!
//! # Features
//!
//! Every feature only adds: `callbacks`, `docker`, `http`, `mysql`, `postgres`, `process`, `redis`, `sqlite`, `tls`,
//! `full` (these), and `testing`. None is on by default.

/// Whether a seeded bug is on: `false` at compile time, except where the simulator proves itself.
#[cfg(feature = "testing")]
macro_rules! bug {
    ($bug:ident) => {
        $crate::testing::bugs::is_on($crate::testing::bugs::Bug::$bug)
    };
}
#[cfg(not(feature = "testing"))]
macro_rules! bug {
    ($bug:ident) => {
        false
    };
}

pub mod clock;
#[cfg(any(feature = "http", all(feature = "redis", feature = "tls")))]
mod crypto;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod database;
pub mod error;
pub mod executor;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis", feature = "sqlite"))]
pub mod inspection;
pub mod rate;
pub mod results;
pub mod retry;
pub mod scheduler;
pub mod state;
pub mod store;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{Error, ErrorKind, Result, TaskError};
#[cfg(feature = "docker")]
pub use executor::docker::DockerExecutor;
#[cfg(feature = "http")]
pub use executor::http::HttpExecutor;
#[cfg(feature = "process")]
pub use executor::process::ProcessExecutor;
pub use executor::{Context, Executor, FunctionExecutor};
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis", feature = "sqlite"))]
pub use inspection::Inspection;
pub use rate::RateLimit;
pub use results::{LogStore, ResultStore};
pub use retry::RetryPolicy;
pub use scheduler::{Config, Scheduler, Shutdown, TaskHandle, Tracking};
pub use state::Command;
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
#[cfg(feature = "mysql")]
pub use store::sql::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::sql::PostgresStore;
#[cfg(feature = "sqlite")]
pub use store::sql::SqliteStore;
pub use store::{CachedStore, MemoryStore, QueueSettings, Store, StoreExt};
pub use task::{
    Failure, FailureKind, Handle, Name, NewTask, Outcome, Payload, Progress, Record, ReplicaId, ResultRef, Spec, Start,
    State, Task, TaskId,
};
