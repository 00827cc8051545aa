//! The deterministic simulator: real schedulers over a real store, in a world where everything goes wrong.
//!
//! ```text
//!   plan (from the seed) ──▶ fleet ──▶ 3 × Scheduler ──▶ FaultyStore(gate) ──▶ Watched ──▶ MemoryStore
//!                              │            │                                    │
//!                              │            └─▶ ScriptedExecutor(gate) ─▶ World  ▼
//!                              └─ crash, freeze, cut off, step the clock ──▶  checker
//! ```
//!
//! One seed decides everything: a run is repeated exactly by its seed. Time is tokio's paused time.

mod checker;
mod director;
mod draw;
mod faults;
mod fleet;
mod gate;
mod plan;
mod results;
#[allow(clippy::module_inception, reason = "what a simulation shares is called so")]
mod sim;
mod watched;

use std::sync::atomic::Ordering;

use self::draw::Draw;
use self::fleet::Fleet;
use self::plan::Plan;
use self::sim::Sim;
use super::bugs::{self, Bug};
use crate::error::{Error, Result};

pub use checker::Violation;
pub use faults::{FAULTS, Fault, FaultCounts};

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// A bug to switch on.
    pub bug: Option<Bug>,
    /// Keep a line for every event.
    pub trace: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Over every call, every answer and every run: the same seed gives the same.
    pub hash: u64,
    /// How many calls reached the store.
    pub calls: u64,
    /// What went wrong, how often.
    pub faults: FaultCounts,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Simulates one schedule on this thread.
pub fn simulate(options: Options) -> Result<Outcome> {
    let failed = |error| Error::internal("cannot make a runtime").with_source(error);
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().map_err(failed)?;
    bugs::switch(options.bug);
    let outcome = runtime.block_on(run(options));
    drop(runtime);
    bugs::switch(None);
    outcome
}

async fn run(options: Options) -> Result<Outcome> {
    let draw = Draw::new(options.seed);
    let plan = Plan::draw(&draw)?;
    let sim = Sim::new(options.seed, draw, plan.weather, options.trace);
    let mut fleet = Fleet::new(&sim, plan.config.clone());
    fleet.carry_out(plan).await;
    let verdict = sim.verdict();
    Ok(Outcome {
        hash: verdict.hash,
        calls: sim.calls.load(Ordering::SeqCst),
        faults: verdict.faults,
        violation: verdict.violation,
        trace: verdict.trace,
    })
}
