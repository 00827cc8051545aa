//! What tests need: a clock that stands still, conformance suites, fault injection, the simulator.
//!
//! Compiled with feature `testing` only.

pub mod bugs;
mod clock;
pub mod conformance;
mod faulty_store;
mod scripted_executor;
pub mod sim;

pub use clock::{TEST_EPOCH, TestClock};
pub use faulty_store::{Call, Fault, FaultScript, FaultyStore, StoreFaults};
pub use scripted_executor::{Beginning, Director, Ending, ExecutorCall, Live, Script, ScriptedExecutor, World};
