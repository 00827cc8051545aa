//! What everything in one simulated run shares: time, chance, the store, the world, and the judge.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::checker::{Check, Checker, Violation};
use super::draw::Draw;
use super::faults::{Fault, FaultCounts};
use super::plan::Weather;
use super::results::SimResults;
use crate::clock::{Clock, Timestamp, monotonic};
use crate::store::{MemoryOptions, MemoryStore, Store};
use crate::task::{Task, TaskId};
use crate::testing::{TestClock, World};

#[derive(Debug)]
pub(super) struct Sim {
    pub(super) draw: Draw,
    pub(super) clock: Arc<TestClock>,
    pub(super) memory: MemoryStore,
    pub(super) world: Arc<World>,
    pub(super) results: Arc<SimResults>,
    pub(super) weather: Weather,
    pub(super) failed: Notify,
    pub(super) calls: AtomicU64,
    begun: Instant,
    highest_micros: AtomicI64,
    stepped_back: Mutex<Duration>,
    is_stormy: AtomicBool,
    checker: Mutex<Checker>,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    hash: u64,
    lines: Option<Vec<String>>,
    faults: FaultCounts,
    violation: Option<Violation>,
}

/// What is left of a run once it is over.
pub(super) struct Verdict {
    pub(super) hash: u64,
    pub(super) faults: FaultCounts,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Vec<String>,
}

impl Sim {
    pub(super) fn new(seed: u64, draw: Draw, weather: Weather, traced: bool) -> Arc<Self> {
        let clock = Arc::new(TestClock::new(seed));
        let options = MemoryOptions { clock: clock.clone(), ..MemoryOptions::default() };
        let log = Log {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: traced.then(Vec::new),
            faults: FaultCounts::default(),
            violation: None,
        };
        Arc::new(Sim {
            draw,
            memory: MemoryStore::by_priority_with(options),
            clock,
            world: World::new(),
            results: Arc::default(),
            weather,
            failed: Notify::new(),
            calls: AtomicU64::new(0),
            begun: monotonic(),
            highest_micros: AtomicI64::new(i64::MIN),
            stepped_back: Mutex::default(),
            is_stormy: AtomicBool::new(true),
            checker: Mutex::default(),
            log: Mutex::new(log),
        })
    }

    /// Whether faults may be injected.
    pub(super) fn is_stormy(&self) -> bool {
        self.is_stormy.load(SeqCst)
    }

    /// Remembers how far the clock was stepped back.
    pub(super) fn draw_back(&self, step: Duration) {
        *self.stepped_back.lock().unwrap_or_else(PoisonError::into_inner) += step;
    }

    /// Steps the clock forward by as much as it was stepped back: until then the store's time stands still.
    pub(super) fn restore_clock(&self) {
        let step = std::mem::take(&mut *self.stepped_back.lock().unwrap_or_else(PoisonError::into_inner));
        self.clock.step(step);
    }

    pub(super) fn calm(&self) {
        self.is_stormy.store(false, SeqCst);
    }

    /// Whether a fault of this likelihood happens now; counts it.
    pub(super) fn strikes(&self, likelihood: f64, fault: Fault) -> bool {
        let strikes = self.is_stormy() && self.draw.chance(likelihood);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    pub(super) fn count(&self, fault: Fault) {
        self.log().faults.count(fault);
    }

    /// Adds an event to the hash, and to the trace if there is one.
    pub(super) fn note(&self, numbers: &[u64], line: impl FnOnce() -> String) {
        const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
        let elapsed = monotonic().duration_since(self.begun);
        let mut log = self.log();
        for number in numbers.iter().chain([&(elapsed.as_micros() as u64)]) {
            log.hash = (log.hash ^ number).wrapping_mul(PRIME).rotate_left(29);
        }
        if let Some(lines) = &mut log.lines {
            lines.push(format!("{:>9.3} {}", elapsed.as_secs_f64(), line()));
        }
    }

    /// Runs a check; the first rule that breaks ends the run.
    pub(super) fn check(&self, check: impl FnOnce(&mut Checker) -> Check) {
        let checked = check(&mut self.checker.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(violation) = checked {
            self.note(&[], || format!("BROKEN {}: {}", violation.rule, violation.message));
            self.log().violation.get_or_insert(violation);
            self.failed.notify_one();
        }
    }

    pub(super) fn ask<R>(&self, question: impl FnOnce(&Checker) -> R) -> R {
        question(&self.checker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.log().violation.is_some()
    }

    /// A task as it is in the store now.
    pub(super) fn peek(&self, id: &TaskId) -> Option<Task> {
        at_once(self.memory.get(std::slice::from_ref(id))).and_then(Result::ok)?.pop().flatten()
    }

    /// The store's time: the clock's, but it never goes back.
    pub(super) fn store_now(&self) -> Timestamp {
        Timestamp::from_micros(self.highest_micros.load(SeqCst))
    }

    /// A call reaches the store, which looks at the clock.
    pub(super) fn tick(&self) {
        self.calls.fetch_add(1, SeqCst);
        self.highest_micros.fetch_max(self.clock.now().as_micros(), SeqCst);
    }

    pub(super) fn verdict(&self) -> Verdict {
        let mut log = self.log();
        Verdict {
            hash: log.hash,
            faults: log.faults,
            violation: log.violation.take(),
            trace: log.lines.take().unwrap_or_default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of a future that never waits.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
