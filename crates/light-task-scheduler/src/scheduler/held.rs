//! The tasks that this replica holds, and how one speaks with their runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::executor::{Executor, ReportSink, Reporter, Run};
use crate::scheduler::run::Reason;
use crate::store::{Holdings, Said};
use crate::task::{Handle, Outcome, Progress, ReplicaId, TaskId, Token};

/// A task that this replica owns.
pub(super) struct Held {
    pub(super) run: Run,
    pub(super) executor: Arc<dyn Executor>,
    pub(super) mailbox: Arc<Mailbox>,
    /// Since when.
    pub(super) since: Instant,
}

/// Where a run hears from others, and where what it reports arrives. A thing of its own, so that the
/// reporter in a handler's hands does not keep the executor alive that runs the handler.
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    bell: Notify,
    /// Whether pushes of runs in this process are listened to.
    listens: bool,
    /// How much has been pushed.
    pushes: AtomicU64,
}

/// What others have to say to a run. Read as a whole; the run decides what comes first.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    /// The current fence. It changes if this replica had to register anew and has adopted its own run.
    token: Token,
    handle: Option<Handle>,
    /// How it ended; the first word counts.
    pub(super) ended: Option<Outcome>,
    pub(super) progress: Option<Progress>,
    /// Cancellation is wished.
    pub(super) cancel: bool,
    /// Another owner, or none: nothing may be written any more.
    pub(super) lost: bool,
    /// The scheduler shuts down: stop and give back.
    pub(super) drain: bool,
    /// The scheduler shuts down: leave it running for the next owner.
    pub(super) detach: bool,
}

impl Mailbox {
    pub(super) fn new(token: Token, cancel: bool, listens: bool) -> Self {
        let mail =
            Mail { token, handle: None, ended: None, progress: None, cancel, lost: false, drain: false, detach: false };
        Mailbox { mail: Mutex::new(mail), bell: Notify::new(), listens, pushes: AtomicU64::new(0) }
    }

    fn tell(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.mail());
        self.bell.notify_one();
    }

    fn take(&self, said: Said) {
        self.tell(|mail| match said {
            Said::Progress(progress) => mail.progress = Some(progress),
            // How it ended: the first word counts.
            Said::Ended(outcome) => {
                mail.ended.get_or_insert(outcome);
            }
        });
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportSink for Mailbox {
    fn report(&self, said: Said) {
        if self.listens {
            self.pushes.fetch_add(1, Ordering::Relaxed);
            self.take(said);
        }
    }
}

impl Held {
    pub(super) fn id(&self) -> &TaskId {
        &self.run.task.id
    }

    pub(super) fn execution(&self) -> u64 {
        self.run.task.record.execution
    }

    pub(super) fn token(&self) -> Token {
        self.mail().token
    }

    pub(super) fn handle(&self) -> Option<Handle> {
        self.mail().handle.clone()
    }

    /// Tells the run something, and wakes it.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Mail)) {
        self.mailbox.tell(change);
    }

    /// Hands over what an execution said outside this process.
    pub(super) fn deliver(&self, said: Said) {
        self.mailbox.take(said);
    }

    /// What the run is given to report with.
    pub(super) fn reporter(&self) -> Reporter {
        Reporter::new(self.mailbox.clone())
    }

    /// How much the run has pushed.
    pub(super) fn pushes(&self) -> u64 {
        self.mailbox.pushes.load(Ordering::Relaxed)
    }

    pub(super) fn set_handle(&self, handle: &Handle) {
        self.mail().handle = Some(handle.clone());
    }

    pub(super) fn set_token(&self, token: Token) {
        self.mail().token = token;
    }

    /// Why a start that has not answered must not go on, if there is a reason. What can be left to the next owner
    /// may go on, and so may what has another owner: that one looks for it.
    pub(super) fn interruption(&self) -> Option<Reason> {
        let mail = self.mail();
        match (mail.cancel, mail.drain) {
            (true, _) => Some(Reason::Cancel),
            (_, true) => Some(Reason::Drain),
            _ => None,
        }
    }

    /// What has arrived; progress is taken, everything else stays true.
    pub(super) fn read(&self) -> Mail {
        let mut mail = self.mail();
        let progress = mail.progress.take();
        Mail { progress, ..mail.clone() }
    }

    /// Waits until something arrives; what arrived before the call counts.
    pub(super) async fn rung(&self) {
        self.mailbox.bell.notified().await;
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mailbox.mail()
    }
}

/// The tasks that this replica holds, as far as they have a task of their own.
#[derive(Default)]
pub(super) struct Registry {
    held: Mutex<HashMap<TaskId, Arc<Held>>>,
    /// How many claims and rescues are in flight, or have tasks in their hands that are not registered.
    in_hands: AtomicUsize,
    /// Rung when a run is added or removed.
    pub(super) bell: Notify,
}

impl Registry {
    pub(super) fn add(&self, held: &Arc<Held>) {
        self.held().insert(held.id().clone(), held.clone());
        self.bell.notify_waiters();
    }

    pub(super) fn remove(&self, held: &Arc<Held>) {
        let mut all = self.held();
        if all.get(held.id()).is_some_and(|present| Arc::ptr_eq(present, held)) {
            all.remove(held.id());
        }
        drop(all);
        self.bell.notify_waiters();
    }

    pub(super) fn get(&self, id: &TaskId) -> Option<Arc<Held>> {
        let held = self.held();
        // Quick runs are never registered: a scheduler of those need not even hash the id.
        if held.is_empty() { None } else { held.get(id).cloned() }
    }

    /// All of them, by id: the order must not depend on a hash.
    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        let mut all: Vec<_> = self.held().values().cloned().collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// Says that tasks may come to this replica that are not registered yet, until the guard is dropped.
    pub(super) fn receive(self: &Arc<Self>) -> Receiving {
        self.in_hands.fetch_add(1, Ordering::SeqCst);
        Receiving(self.clone())
    }

    /// Whether tasks may be on their way that are not registered.
    pub(super) fn is_receiving(&self) -> bool {
        self.in_hands.load(Ordering::SeqCst) > 0
    }

    /// A digest of what is held under `owner`; `None` while more may be on its way.
    pub(super) fn holdings(&self, owner: ReplicaId) -> Option<Holdings> {
        if self.is_receiving() {
            return None;
        }
        let mut holdings = Holdings::default();
        for held in self.held().values() {
            let token = held.token();
            if token.owner == owner {
                holdings.add(held.id(), token.run);
            }
        }
        Some(holdings)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TaskId, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tasks are on their way to this replica.
pub(super) struct Receiving(Arc<Registry>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.in_hands.fetch_sub(1, Ordering::SeqCst);
        self.0.bell.notify_waiters();
    }
}
