//! The conformance suite for stores: a [`Store`] exists when it passes this suite, whole.
//!
//! Each case is a plain async function with one idea. [`store_conformance!`](crate::store_conformance)
//! turns the one list of them into tests with their own names, and adds a property test against an
//! independent [`model`]. A store author writes a [`StoreHarness`]:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use async_trait::async_trait;
//! use light_task_scheduler::store::{Capabilities, Store};
//! use light_task_scheduler::testing::{TestClock, conformance::store::StoreHarness};
//! # fn my_store(_: Arc<TestClock>) -> Arc<dyn Store> { unimplemented!() }
//!
//! struct MyHarness(Arc<TestClock>);
//!
//! #[async_trait]
//! impl StoreHarness for MyHarness {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities { priority: true, durable: false, shared: false, multi_host: false }
//!     }
//!     async fn open(&self) -> Arc<dyn Store> {
//!         my_store(self.0.clone())
//!     }
//!     async fn again(&self) -> Option<Arc<dyn Store>> {
//!         None
//!     }
//!     async fn advance(&self, by: Duration) {
//!         self.0.step(by);
//!     }
//! }
//!
//! light_task_scheduler::store_conformance!(MyHarness(Arc::new(TestClock::new(1))));
//! ```
//!
//! The tests need `tokio` (features `rt-multi-thread`, `macros`, `test-util`) as a development dependency.

pub mod claims;
pub mod commands;
pub mod deadlines;
pub mod drains;
pub mod handles;
pub mod insert;
pub mod limits;
mod list;
pub mod listing;
pub mod lookalikes;
pub mod model;
pub mod order;
pub mod parallel;
pub mod queues;
pub mod repeats;
pub mod replicas;
pub mod reports;
pub mod reschedule;
pub mod rescue;
pub mod restart;
pub mod retention;
pub mod transitions;
pub mod windows;
mod world;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::store::{Capabilities, Store};

pub use list::CASES;

/// What the suite needs to know of a store. Each case makes one harness and opens one store.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// What the store will say of itself: selects the cases.
    fn capabilities(&self) -> Capabilities;

    /// A fresh store: empty, and apart from every other.
    async fn open(&self) -> Arc<dyn Store>;

    /// Another handle on the data of the store opened last, as a second process would have it. The first
    /// handle may still be in use or have been dropped. `None` only if the store is neither durable nor shared.
    async fn again(&self) -> Option<Arc<dyn Store>>;

    /// The store's time passes by at least this, and by no more than some seconds above it. A store that takes
    /// its time from a database adds an offset; cases step whole minutes and never look at smaller differences.
    async fn advance(&self, by: Duration);

    /// How many random sequences of operations the comparison with the model tries. Fewer where each takes long:
    /// a run by hand can ask for more.
    fn sequences(&self) -> u32 {
        model::CASES
    }
}

/// The part of the contract that a case is about, where not every store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Every store.
    Any,
    /// [`Capabilities::priority`].
    Priority,
    /// Without [`Capabilities::priority`].
    Fifo,
    /// [`Capabilities::durable`].
    Durable,
    /// [`Capabilities::shared`].
    Shared,
}

impl Need {
    /// Whether a store with these capabilities has it.
    pub fn is_met(self, capabilities: Capabilities) -> bool {
        match self {
            Need::Any => true,
            Need::Priority => capabilities.priority,
            Need::Fifo => !capabilities.priority,
            Need::Durable => capabilities.durable,
            Need::Shared => capabilities.shared,
        }
    }
}

/// A case in progress.
pub type CaseFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One case of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is about.
    pub topic: &'static str,
    /// What it proves.
    pub name: &'static str,
    /// Which stores it applies to.
    pub need: Need,
    /// Runs it; panics where the store breaks the contract.
    pub run: for<'a> fn(&'a dyn StoreHarness) -> CaseFuture<'a>,
}

/// How many cases apply to a store, and which do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Cases of the suite.
    pub cases: usize,
    /// Those about something the store does not claim to have, with what that is.
    pub not_applicable: Vec<(&'static Case, Need)>,
}

impl PartialEq for Case {
    fn eq(&self, other: &Self) -> bool {
        (self.topic, self.name) == (other.topic, other.name)
    }
}

impl Eq for Case {}

/// Which cases apply to a store with these capabilities.
pub fn matrix(capabilities: Capabilities) -> Matrix {
    let other = CASES.iter().filter(|case| !case.need.is_met(capabilities));
    Matrix { cases: CASES.len(), not_applicable: other.map(|case| (case, case.need)).collect() }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = self.not_applicable.len();
        write!(f, "store conformance: {} cases, {} applicable, {other} not", self.cases, self.cases - other)?;
        for (case, need) in &self.not_applicable {
            write!(f, "\n  not applicable (needs {need:?}): {}::{}", case.topic, case.name)?;
        }
        Ok(())
    }
}

/// Runs one case by its names; one that does not apply says so. The tests of
/// [`store_conformance!`](crate::store_conformance) call it.
#[allow(clippy::print_stderr, reason = "the test runner shows it with the test")]
pub async fn run(harness: &dyn StoreHarness, topic: &str, name: &str) {
    let case = CASES.iter().find(|case| case.topic == topic && case.name == name);
    let case = case.unwrap_or_else(|| panic!("no case {topic}::{name}"));
    if case.need.is_met(harness.capabilities()) {
        (case.run)(harness).await;
    } else {
        eprintln!("not applicable: {topic}::{name} needs {:?}", case.need);
    }
}

/// On which threads a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One, with tokio's time standing still.
    OnePaused,
    /// One, in real time.
    One,
    /// Four, in real time.
    Four,
}

/// Runs one case on a runtime of its own: what a test of [`store_conformance!`](crate::store_conformance) does.
///
/// A function and not a part of the macro, so that hundreds of tests do not each compile a runtime's entry.
pub fn run_alone(threads: Threads, harness: &dyn Fn() -> Box<dyn StoreHarness>, topic: &str, name: &str) {
    let mut builder = match threads {
        Threads::OnePaused | Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Four => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads == Threads::Four {
        const WORKERS: usize = 4;
        builder.worker_threads(WORKERS);
    }
    builder.enable_all().start_paused(threads == Threads::OnePaused);
    builder.build().unwrap().block_on(async { run(&*harness(), topic, name).await });
}

/// Prints the [`Matrix`] of a harness, for the test script.
#[allow(clippy::print_stdout, reason = "the test script reads it")]
pub fn print_matrix(harness: &dyn StoreHarness) {
    println!("{}", matrix(harness.capabilities()));
}
