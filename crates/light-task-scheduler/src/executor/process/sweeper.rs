//! Removes the directories of runs that nobody will ask for any more: of a scheduler that died between an end and its
//! release, and of failed exports whose task was deleted or requeued.
//!
//! An owner that is still about to release its run is not hurt: the same output is copied to the same place, and a
//! directory is removed once. It has long done so by the time that is waited for here.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Found;
use super::rundir::{RunDir, Seen};
use super::watch::{Pump, kill_marked};
use crate::error::{Error, Result};
use crate::executor::leftovers::{Unneeded, unneeded};
use crate::results::LogStore;
use crate::store::Store;
use crate::task::{Name, TaskId};

/// The runs watched from here, by their name.
pub(super) type Watches = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// Looks for leftovers until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper(AbortHandle);

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where to look.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state_dir: PathBuf,
    pub(super) namespace: Name,
    /// How long a directory must not have changed.
    pub(super) after: Duration,
    pub(super) logs: Option<Arc<dyn LogStore>>,
    pub(super) watches: Watches,
}

/// A directory that has not changed for long.
#[derive(Debug)]
struct Old {
    dir: RunDir,
    id: TaskId,
    execution: u64,
}

impl Sweeper {
    pub(super) fn start(place: Place, store: Arc<dyn Store>) -> Self {
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = place.sweep(&*store).await {
                    tracing::debug!(%error, "leftovers of commands cannot be looked for just now");
                }
                tokio::time::sleep(place.after).await;
            }
        });
        Sweeper(task.abort_handle())
    }
}

impl Place {
    async fn sweep(&self, store: &dyn Store) -> Result<()> {
        let (state_dir, namespace, after) = (self.state_dir.clone(), self.namespace.clone(), self.after);
        let old = tokio::task::spawn_blocking(move || old(&state_dir, &namespace, after));
        let old = old.await.map_err(io::Error::other).and_then(|old| old);
        let mut old = old.map_err(|error| {
            let place = self.state_dir.display();
            Error::unavailable(format!("the directory {place} cannot be read: {error}")).with_source(error)
        })?;
        old.retain(|old| !is_watched(&self.watches, &self.name(old)));
        for left in unneeded(store, old, |old| (&old.id, old.execution)).await? {
            let name = self.name(&left.found);
            match self.remove(left, &name).await {
                Ok(true) => tracing::info!(run = name, "removed what a command has left"),
                Ok(false) => {}
                Err(why) => tracing::warn!(run = name, why, "what a command has left could not be removed"),
            }
        }
        Ok(())
    }

    fn name(&self, old: &Old) -> String {
        Found::name_of(&self.namespace, &old.id, old.execution)
    }

    /// `false`: it is to stay, since something of it is alive.
    async fn remove(&self, left: Unneeded<Old>, name: &str) -> Result<bool, String> {
        let Unneeded { found: Old { dir, id, execution }, has_task } = left;
        match dir.look().map_err(|error| error.to_string())? {
            Seen::Alive(_) => return Ok(false),
            Seen::Orphaned => kill_marked(name).await?,
            Seen::Nothing | Seen::Gone | Seen::Ended(_) => {}
        }
        // The logs of a task that was deleted are gone with it.
        if let (Some(logs), true) = (&self.logs, has_task)
            && !Pump::new(logs.clone(), dir.clone(), &id, execution).copy_the_rest().await
        {
            return Err("its output cannot be saved".to_owned());
        }
        dir.remove();
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.remove(name);
        Ok(true)
    }
}

/// Whether somebody here still follows this run, and is to report its end.
pub(super) fn is_watched(watches: &Watches, name: &str) -> bool {
    let watches = watches.lock().unwrap_or_else(PoisonError::into_inner);
    watches.get(name).is_some_and(|watch| !watch.is_finished())
}

/// The directories of this namespace that have not changed for so long.
fn old(state_dir: &Path, namespace: &Name, after: Duration) -> io::Result<Vec<Old>> {
    let all = RunDir::all(state_dir, namespace.as_str())?.into_iter();
    let old = all.filter(|(dir, ..)| dir.unchanged_for().is_ok_and(|time| time >= after));
    Ok(old.filter_map(|(dir, id, execution)| Some(Old { dir, id: TaskId::new(&id).ok()?, execution })).collect())
}
