//! The process executor with real commands.

mod commands;
mod crashes;
#[cfg(feature = "sqlite")]
mod leftovers;
mod logs;
mod stops;
mod support;
