//! The process executor with real commands.

mod commands;
mod support;
