//! What the parts of one scheduler share.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp, monotonic, unit_random};
use crate::executor::{Executor, ReportSink, Run};
use crate::results::ResultStore;
use crate::scheduler::completer::Completer;
use crate::scheduler::config::Config;
use crate::scheduler::events::EventHub;
use crate::store::{Holdings, Said, Store};
use crate::task::{Handle, Name, Outcome, Progress, ReplicaId, Task, TaskId, Token};

/// First and longest wait between tries of a store that fails.
const STORE_RETRY_FIRST: Duration = Duration::from_millis(50);
const STORE_RETRY_MAX: Duration = Duration::from_secs(2);

/// One scheduler: what its loops and runs share.
pub(super) struct Core {
    pub(super) store: Arc<dyn Store>,
    pub(super) results: Option<Arc<dyn ResultStore>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: Config,
    pub(super) kinds: HashMap<Name, Kind>,
    pub(super) kind_names: Vec<Name>,
    pub(super) hub: Arc<EventHub>,
    pub(super) registry: Registry,
    pub(super) slots: Arc<Slots>,
    pub(super) replica: Replica,
    pub(super) completer: Completer,
    pub(super) life: Life,
}

impl Core {
    /// Starts a task of this scheduler: it ends at the latest when the scheduler is dropped or has shut down.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let kill = self.life.kill.clone();
        self.life.tracker.spawn(async move {
            kill.run_until_cancelled_owned(future).await;
        });
    }

    /// A claimed or adopted task, ready to run by an executor of its kind.
    pub(super) fn hold(&self, task: Task, kind: &Kind) -> Option<Arc<Held>> {
        let executor = kind.executor.clone();
        let token = task.record.token()?;
        let mail = Mail { token, cancel: task.record.cancel_requested, ..Mail::new(token) };
        let run = Run { namespace: self.config.namespace.clone(), task: Arc::new(task) };
        let listens = self.config.tracking.listens();
        Some(Arc::new(Held { run, executor, listens, mail: Mutex::new(mail), bell: Notify::new() }))
    }

    /// A number in `0.0..1.0`, for jitter.
    pub(super) fn chance(&self) -> f64 {
        unit_random(&*self.clock)
    }
}

/// A kind that this scheduler can run.
pub(super) struct Kind {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) pace: Pace,
}

/// Whether starts of a kind may be polled inside the dispatcher instead of in a task of their own.
///
/// It is worth much (a spawn costs more than a short handler), and it is dangerous: a handler that blocks
/// would delay every other task. So it is earned by a row of quick starts, and lost by one slow one.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU32);

/// How many quick starts in a row earn it.
const QUICK_STARTS: u32 = 64;
/// A start quicker than this is quick.
const QUICK_START: Duration = Duration::from_micros(20);

impl Pace {
    pub(super) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= QUICK_STARTS
    }

    /// Tells it how a start went: whether the run had ended when it returned, and how long it took.
    pub(super) fn observe(&self, ended: bool, took: Duration) {
        if !(ended && took < QUICK_START) {
            self.0.store(0, Ordering::Relaxed);
        } else if !self.is_quick() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A task that this replica owns, and the mailbox of its run.
pub(super) struct Held {
    pub(super) run: Run,
    pub(super) executor: Arc<dyn Executor>,
    listens: bool,
    mail: Mutex<Mail>,
    bell: Notify,
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

impl Mail {
    fn new(token: Token) -> Self {
        Mail {
            token,
            handle: None,
            ended: None,
            progress: None,
            cancel: false,
            lost: false,
            drain: false,
            detach: false,
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
        change(&mut self.mail());
        self.bell.notify_one();
    }

    pub(super) fn set_handle(&self, handle: &Handle) {
        self.mail().handle = Some(handle.clone());
    }

    pub(super) fn set_token(&self, token: Token) {
        self.mail().token = token;
    }

    /// Tells how it ended, unless that is known already.
    pub(super) fn tell_ended(&self, outcome: Outcome) {
        self.tell(|mail| {
            mail.ended.get_or_insert(outcome);
        });
    }

    /// What has arrived; progress is taken, everything else stays true.
    pub(super) fn read(&self) -> Mail {
        let mut mail = self.mail();
        let progress = mail.progress.take();
        Mail { progress, ..mail.clone() }
    }

    /// Waits until something arrives; what arrived before the call counts.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportSink for Held {
    fn report(&self, said: Said) {
        if !self.listens {
            return;
        }
        match said {
            Said::Progress(progress) => self.tell(|mail| mail.progress = Some(progress)),
            Said::Ended(outcome) => self.tell_ended(outcome),
        }
    }
}

/// The tasks that this replica holds, as far as they have a task of their own.
#[derive(Default)]
pub(super) struct Registry {
    held: Mutex<HashMap<TaskId, Arc<Held>>>,
    /// How many claims are in flight, or in the dispatcher's hands with tasks that are not registered.
    pub(super) dispatching: AtomicUsize,
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

    /// A digest of what is held under `owner`; `None` while the dispatcher has more in its hands.
    pub(super) fn holdings(&self, owner: ReplicaId) -> Option<Holdings> {
        if self.dispatching.load(Ordering::SeqCst) > 0 {
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

/// How many tasks run here, and how many may.
pub(super) struct Slots {
    max: usize,
    used: AtomicUsize,
    exporting: AtomicUsize,
    /// Rung when one is given back.
    pub(super) freed: Notify,
}

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        Slots { max, used: AtomicUsize::new(0), exporting: AtomicUsize::new(0), freed: Notify::new() }
    }

    pub(super) fn free(&self) -> usize {
        // Adopted tasks take slots that are not there: they run already.
        self.max.saturating_sub(self.used.load(Ordering::SeqCst))
    }

    pub(super) fn exporting(&self) -> usize {
        self.exporting.load(Ordering::SeqCst)
    }

    pub(super) fn take(self: &Arc<Self>) -> Slot {
        self.used.fetch_add(1, Ordering::SeqCst);
        Slot { slots: self.clone(), exports: false }
    }
}

/// A taken slot; given back when dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    exports: bool,
}

impl Slot {
    /// The run has ended and its result is being saved: that needs no slot, but is counted.
    pub(super) fn exports(&mut self) {
        if !self.exports {
            self.exports = true;
            self.slots.exporting.fetch_add(1, Ordering::SeqCst);
            self.slots.used.fetch_sub(1, Ordering::SeqCst);
            self.slots.freed.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let count = if self.exports { &self.slots.exporting } else { &self.slots.used };
        count.fetch_sub(1, Ordering::SeqCst);
        self.slots.freed.notify_one();
    }
}

/// Who this scheduler is to the store, and until when it may start runs.
pub(super) struct Replica {
    lease: Mutex<Lease>,
    /// Rung when the lease was renewed.
    pub(super) renewed: Notify,
    /// Rung when there may be something to rescue at once.
    pub(super) rescue: Notify,
}

struct Lease {
    id: ReplicaId,
    valid_until: Option<Instant>,
    /// The store's time, and when it was that time here.
    store_time: (Timestamp, Instant),
}

impl Replica {
    pub(super) fn new(id: ReplicaId, now: Timestamp) -> Self {
        let lease = Lease { id, valid_until: None, store_time: (now, monotonic()) };
        Replica { lease: Mutex::new(lease), renewed: Notify::new(), rescue: Notify::new() }
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.lease().id
    }

    /// Whether this replica may start runs now: its heartbeat was answered lately.
    pub(super) fn is_valid(&self) -> bool {
        self.lease().valid_until.is_some_and(|until| monotonic() < until)
    }

    pub(super) fn renew(&self, until: Instant, store_now: Timestamp) {
        let mut lease = self.lease();
        lease.valid_until = Some(until);
        lease.store_time = (store_now, monotonic());
        drop(lease);
        self.renewed.notify_waiters();
    }

    /// The store does not know this replica any more, or never did: it goes on under a fresh id.
    pub(super) fn become_anew(&self, id: ReplicaId) {
        let mut lease = self.lease();
        lease.id = id;
        lease.valid_until = None;
    }

    pub(super) fn invalidate(&self) {
        self.lease().valid_until = None;
    }

    /// The store's time now, as far as can be told from here.
    pub(super) fn store_now(&self) -> Timestamp {
        let (then, at) = self.lease().store_time;
        then + monotonic().duration_since(at)
    }

    /// Waits until runs may be started.
    pub(super) async fn valid(&self) {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            renewed.as_mut().enable();
            if self.is_valid() {
                return;
            }
            renewed.await;
        }
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stages of a scheduler's end.
pub(super) struct Life {
    /// Nothing new is claimed.
    pub(super) draining: CancellationToken,
    /// Everything ends where it stands, as in a crash.
    pub(super) kill: CancellationToken,
    pub(super) tracker: TaskTracker,
}

impl Life {
    pub(super) fn new() -> Self {
        Life { draining: CancellationToken::new(), kill: CancellationToken::new(), tracker: TaskTracker::new() }
    }
}

/// Growing waits between tries of a store that fails, with jitter.
pub(super) struct StoreRetry(Duration);

impl StoreRetry {
    pub(super) fn new() -> Self {
        StoreRetry(STORE_RETRY_FIRST)
    }

    /// The next wait; `longest` caps it.
    pub(super) fn next(&mut self, chance: f64, longest: Duration) -> Duration {
        let bound = self.0.min(longest);
        self.0 = (self.0 * 2).min(STORE_RETRY_MAX);
        bound.mul_f64(0.5 + chance / 2.0)
    }

    pub(super) async fn wait(&mut self, chance: f64) {
        tokio::time::sleep(self.next(chance, STORE_RETRY_MAX)).await;
    }
}
