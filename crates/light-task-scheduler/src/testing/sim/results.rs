//! A result store that fails for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::error::{Error, ErrorKind, Result};
use crate::results::{ResultStore, stored};
use crate::task::{Payload, ResultRef, TaskId};

#[derive(Debug, Default)]
pub(super) struct SimResults {
    kept: Mutex<BTreeMap<String, Payload>>,
    broken_until: Mutex<Option<Instant>>,
}

impl SimResults {
    pub(super) fn break_until(&self, until: Instant) {
        *self.broken_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| monotonic() < until)
    }

    pub(super) fn read(&self, key: &str) -> Option<Payload> {
        self.kept().get(key).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Payload>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        if self.is_broken() { Err(Error::unavailable("injected: the result store is down")) } else { Ok(()) }
    }
}

#[async_trait]
impl ResultStore for SimResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        self.check()?;
        let key = format!("{id}/{execution}");
        self.kept().insert(key.clone(), result.clone());
        Ok(stored(key, result))
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        self.check()?;
        let found = match result {
            ResultRef::Inline(payload) => Some(payload.clone()),
            ResultRef::Stored { key, .. } => self.read(key),
        };
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such result"))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.check()?;
        self.kept().remove(key);
        Ok(())
    }
}
