//! Proof of death: every replica holds a lock on a file of its own for as long as it lives.
//!
//! The lock belongs to the open file, not to the process: several handles in one process keep each
//! other out too, and the system releases it however the holder ends. The replica's row names the file by
//! device and inode, so that a copy of it, or none, proves nothing.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::task::ReplicaId;

/// The locks that this handle holds for its replicas.
#[derive(Debug)]
pub(super) struct Locks {
    directory: PathBuf,
    held: Mutex<HashMap<ReplicaId, (File, String)>>,
}

impl Locks {
    pub(super) fn new(directory: PathBuf) -> Self {
        Locks { directory, held: Mutex::new(HashMap::new()) }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ReplicaId, (File, String)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: ReplicaId) -> PathBuf {
        self.directory.join(format!("{id}.lock"))
    }

    /// Takes the lock of a replica and says how the file can be recognised. `None`: this file system has no
    /// such locks, and the replica's death is only known by its heartbeat.
    pub(super) fn take(&self, id: ReplicaId) -> Option<String> {
        if let Some((_, identity)) = self.held().get(&id) {
            return Some(identity.clone());
        }
        let file = OpenOptions::new().write(true).create_new(true).open(self.path(id)).ok()?;
        let identity = identity(&file).filter(|_| file.try_lock().is_ok());
        match &identity {
            Some(identity) => {
                self.held().insert(id, (file, identity.clone()));
            }
            None => self.remove(id),
        }
        identity
    }

    /// Gives up the lock of a replica that is dead in its row, and removes its file.
    pub(super) fn release(&self, id: ReplicaId) {
        self.held().remove(&id);
        self.remove(id);
    }

    /// Removes the file of a dead replica.
    pub(super) fn remove(&self, id: ReplicaId) {
        // One that stays is only litter: its replica is dead already.
        let _ = fs::remove_file(self.path(id));
    }

    /// Whether the replica cannot be alive: nobody holds the very file that it had locked.
    pub(super) fn proves_dead(&self, id: ReplicaId, locked: Option<&str>) -> bool {
        let Some(locked) = locked else { return false };
        let Ok(file) = File::open(self.path(id)) else { return false };
        if identity(&file).as_deref() != Some(locked) {
            return false;
        }
        // Shared, so that two who look at the same time do not keep each other out.
        match file.try_lock_shared() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        }
    }
}

#[cfg(unix)]
fn identity(file: &File) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &File) -> Option<String> {
    None
}
