//! Hints that something may have changed: what a handle knows of them, and what it has yet to tell others.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::store::Changes;

/// What is to be hinted at after the commit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) work: bool,
    pub(super) wishes: bool,
    pub(super) ends: bool,
}

/// What a handle knows of.
#[derive(Debug, Default)]
pub(super) struct Hints {
    changes: watch::Sender<Changes>,
    /// Not told yet.
    untold: Mutex<Hint>,
    to_tell: Notify,
    listening: AtomicBool,
}

impl Hints {
    /// Something was committed here.
    pub(super) fn raise(&self, hint: Hint) {
        if hint == Hint::default() {
            return;
        }
        self.publish(hint);
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.work |= hint.work;
        untold.wishes |= hint.wishes;
        untold.ends |= hint.ends;
        drop(untold);
        self.to_tell.notify_one();
    }

    /// Something was committed somewhere.
    pub(super) fn publish(&self, hint: Hint) {
        self.changes.send_if_modified(|known| {
            known.work += u64::from(hint.work);
            known.wishes += u64::from(hint.wishes);
            known.ends += u64::from(hint.ends);
            hint != Hint::default()
        });
    }

    /// Takes what other processes are to be told, as soon as there is something.
    pub(super) async fn untold(&self) -> Hint {
        loop {
            let hint = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
            if hint != Hint::default() {
                return hint;
            }
            self.to_tell.notified().await;
        }
    }

    /// For waiting until the counters differ from those that were seen.
    pub(super) fn subscribe(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Whether somebody waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.changes.receiver_count() > 0
    }

    /// Whether nobody listens for this handle yet; from now on somebody does.
    pub(super) fn begins_to_listen(&self) -> bool {
        !self.listening.swap(true, SeqCst)
    }
}
