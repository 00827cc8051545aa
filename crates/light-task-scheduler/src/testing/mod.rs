//! What tests need: a clock that stands still, conformance suites, fault injection, the simulator.
//!
//! Compiled with feature `testing` only.

mod clock;
pub mod conformance;

pub use clock::{TEST_EPOCH, TestClock};
