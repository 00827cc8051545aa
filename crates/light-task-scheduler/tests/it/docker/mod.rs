//! The Docker executor with a real engine; some tests start one of their own, to kill it.

mod engines;
mod failures;
mod logs;
mod options;
mod reaper;
mod restarts;
mod starts;
mod support;
