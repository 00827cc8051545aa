//! The one integration binary: scheduler behaviour on real stores and executors.

mod scheduler;
mod simulation;
