//! What the parts of one scheduler share.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp, monotonic, unit_random};
use crate::executor::{Executor, Run};
use crate::results::ResultStore;
use crate::scheduler::completer::Completer;
use crate::scheduler::config::Config;
use crate::scheduler::events::EventHub;
use crate::scheduler::held::{Held, Mailbox, Registry};
use crate::scheduler::losses::Acknowledged;
use crate::scheduler::slots::Slots;
use crate::store::{Changes, Store};
use crate::task::{Name, ReplicaId, Task};

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
    pub(super) registry: Arc<Registry>,
    pub(super) slots: Arc<Slots>,
    pub(super) replica: Replica,
    pub(super) completer: Completer,
    pub(super) acknowledged: Acknowledged,
    pub(super) life: Life,
}

impl Core {
    /// Starts a task of this scheduler: it ends at the latest when the scheduler is dropped or has shut down.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        spawn_until(self.life.kill.token(), future);
    }

    /// Starts a task of this scheduler that its users need also when nothing runs here any more: it ends when they are
    /// done with the scheduler.
    pub(super) fn spawn_beside(&self, future: impl Future<Output = ()> + Send + 'static) {
        spawn_until(self.life.closed.clone(), future);
    }

    /// A claimed or adopted task, ready to run by an executor of its kind; see [`Run::claimed_here`].
    pub(super) fn hold(&self, task: Task, kind: &Kind, claimed_here: bool) -> Option<Arc<Held>> {
        let (run, mailbox) = self.prepare(task, claimed_here)?;
        Some(Arc::new(Held { run, executor: kind.executor.clone(), mailbox, since: monotonic() }))
    }

    /// What a claimed or adopted task needs for its run, beside an executor.
    pub(super) fn prepare(&self, task: Task, claimed_here: bool) -> Option<(Run, Arc<Mailbox>)> {
        let token = task.record.token()?;
        let mailbox = Mailbox::new(token, task.record.cancel_requested, self.config.tracking.listens());
        let run = Run { namespace: self.config.namespace.clone(), task: Arc::new(task), claimed_here };
        Some((run, Arc::new(mailbox)))
    }

    /// Starts one of the loops that a scheduler cannot be without: if it panics, the scheduler ends as in a
    /// crash, and others take over, instead of holding tasks that nobody works on.
    pub(super) fn spawn_loop(&self, future: impl Future<Output = ()> + Send + 'static) {
        struct EndsWithPanic(Kill);
        impl Drop for EndsWithPanic {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    tracing::error!("a loop of the scheduler panicked; the scheduler ends");
                    self.0.cancel();
                }
            }
        }
        let guard = EndsWithPanic(self.life.kill.clone());
        self.spawn(async move {
            let _guard = guard;
            future.await;
        });
    }

    /// A number in `0.0..1.0`, for jitter.
    pub(super) fn chance(&self) -> f64 {
        unit_random(&*self.clock)
    }
}

fn spawn_until(end: CancellationToken, future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        end.run_until_cancelled_owned(future).await;
    });
}

/// A kind that this scheduler can run.
pub(super) struct Kind {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) pace: Pace,
    /// How much its runs have pushed that have ended.
    pub(super) pushes: AtomicU64,
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
    /// Nothing is claimed before that.
    claims_from: Option<Instant>,
    /// The store's time, and when it was that time here.
    store_time: (Timestamp, Instant),
}

impl Replica {
    pub(super) fn new(id: ReplicaId, now: Timestamp) -> Self {
        let lease = Lease { id, valid_until: None, claims_from: None, store_time: (now, monotonic()) };
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

    /// Claims nothing for so long.
    pub(super) fn pause_claims(&self, pause: Duration) {
        self.lease().claims_from = Some(monotonic() + pause);
    }

    /// Waits until the claims do not pause.
    pub(super) async fn claims(&self) {
        let paused_until = || self.lease().claims_from.filter(|from| monotonic() < *from);
        while let Some(from) = paused_until() {
            tokio::time::sleep_until(from).await;
        }
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
    /// An operator wishes that it drains.
    pub(super) drain_wished: CancellationToken,
    /// Nothing new is claimed.
    pub(super) draining: CancellationToken,
    /// Everything that claims or runs tasks ends where it stands, as in a crash.
    pub(super) kill: Kill,
    /// Nobody uses the scheduler any more.
    pub(super) closed: CancellationToken,
}

impl Life {
    pub(super) fn new() -> Self {
        let (drain_wished, draining, closed) = Default::default();
        Life { drain_wished, draining, kill: Kill::default(), closed }
    }
}

/// The sudden end of everything. Asked before every quick start, so asking takes no lock.
#[derive(Clone, Default)]
pub(super) struct Kill {
    token: CancellationToken,
    done: Arc<AtomicBool>,
}

impl Kill {
    pub(super) fn cancel(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// To wait for it.
    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

/// Waits for a hint of one kind since `seen`, and says what to pass next time. Hints of other kinds are passed over.
pub(super) async fn hinted(store: &dyn Store, mut seen: Changes, kind: fn(&Changes) -> u64) -> Changes {
    loop {
        let now = store.changed(seen).await;
        if kind(&now) != kind(&seen) {
            return now;
        }
        seen = now;
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
