//! The process executor with real commands.

mod commands;
mod crashes;
mod logs;
mod stops;
mod support;
