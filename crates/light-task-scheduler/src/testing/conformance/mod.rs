//! Conformance suites: what every store, result store and log store must do, one function per case.
//!
//! A backend exists when it passes its suite, whole. A bug found in one backend becomes a case for all.

pub mod executor;
pub mod results;
