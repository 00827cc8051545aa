//! A task scheduling framework: any store, any executor, exact limits.

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
pub mod error;
pub mod executor;
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
pub use executor::{Context, Executor, FunctionExecutor};
pub use rate::RateLimit;
pub use results::{LogStore, ResultStore};
pub use retry::RetryPolicy;
pub use scheduler::{Config, Scheduler, Shutdown, TaskHandle, Tracking};
pub use state::Command;
#[cfg(feature = "sqlite")]
pub use store::sql::SqliteStore;
pub use store::{MemoryStore, QueueSettings, Store, StoreExt};
pub use task::{
    Failure, FailureKind, Handle, Name, NewTask, Outcome, Payload, Progress, Record, ReplicaId, ResultRef, Spec, Start,
    State, Task, TaskId,
};
