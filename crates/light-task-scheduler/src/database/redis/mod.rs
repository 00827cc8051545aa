//! The way to a Redis server: its URL, its connection, its scripts, and what it must be.

pub(crate) mod error;
pub(crate) mod link;
pub(crate) mod place;
pub(crate) mod script;
pub(crate) mod server;
mod tls;
pub(crate) mod values;

pub(crate) use link::Link;
pub(crate) use place::Place;
pub(crate) use script::Script;

use crate::error::{Error, Result};

/// Longest namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 100;

/// Refuses a namespace that could not be a part of keys.
pub(crate) fn check_namespace(namespace: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if namespace.is_empty() || namespace.len() > NAMESPACE_BYTES_MAX || !namespace.chars().all(allowed) {
        return Err(Error::invalid(format!(
            "the namespace {namespace:?} must have 1 to {NAMESPACE_BYTES_MAX} letters, digits, dots, hyphens or underscores"
        )));
    }
    Ok(())
}
