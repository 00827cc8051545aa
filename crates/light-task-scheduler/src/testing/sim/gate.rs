//! Everything that one process (a replica, or the client) does to the outside goes through its gate:
//! here it is delayed, cut off, frozen and killed.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::faults::Fault;
use super::fleet::Message;
use super::plan::TTL;
use super::sim::Sim;
use crate::clock::monotonic;
use crate::error::{Error, Result};
use crate::testing::{Call, StoreFaults};

/// How long a call takes to find out that the store cannot be reached.
const REFUSED_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) sim: Arc<Sim>,
    pub(super) host: u32,
    crash_at: Option<u64>,
    passed: AtomicU64,
    crashed: AtomicBool,
    trouble: Mutex<Trouble>,
    messages: mpsc::UnboundedSender<Message>,
}

#[derive(Debug, Default)]
struct Trouble {
    cut_off_until: Option<Instant>,
    hangs: bool,
    frozen_until: Option<Instant>,
    heartbeat_sent: Option<Instant>,
    lease_until: Option<Instant>,
}

impl Gate {
    pub(super) fn new(
        sim: &Arc<Sim>,
        host: u32,
        crash_at: Option<u64>,
        messages: &mpsc::UnboundedSender<Message>,
    ) -> Arc<Self> {
        Arc::new(Gate {
            sim: sim.clone(),
            host,
            crash_at,
            passed: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            trouble: Mutex::default(),
            messages: messages.clone(),
        })
    }

    /// The process is gone: nothing of it has an effect from here on.
    pub(super) fn crash(&self) {
        if self.crashed.swap(true, SeqCst) {
            return;
        }
        self.sim.note(&[1, self.host.into()], || format!("host {} crashes", self.host));
        for _ in 0..self.sim.world.kill_host(self.host) {
            self.sim.count(Fault::DiedWithReplica);
        }
        self.sim.check(|checker| {
            checker.host_gone(self.host);
            Ok(())
        });
        // An error means that the run is over.
        let _ = self.messages.send(Message::Crashed(self.host));
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.crashed.load(SeqCst)
    }

    pub(super) fn cut_off(&self, lasts: Duration, hangs: bool) {
        let mut trouble = self.trouble();
        (trouble.cut_off_until, trouble.hangs) = (Some(monotonic() + lasts), hangs);
    }

    pub(super) fn freeze(&self, lasts: Duration) {
        self.trouble().frozen_until = Some(monotonic() + lasts);
    }

    /// Until when this replica may believe that its lease is good.
    pub(super) fn lease_until(&self) -> Option<Instant> {
        self.trouble().lease_until
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the process may die, and where it waits while it is frozen.
    pub(super) async fn pass(&self, crash: Fault) {
        loop {
            if self.has_crashed() {
                pending::<()>().await;
            }
            let frozen_until = self.trouble().frozen_until.filter(|until| monotonic() < *until);
            let Some(until) = frozen_until else { break };
            tokio::time::sleep_until(until).await;
        }
        let passed = self.passed.fetch_add(1, SeqCst);
        if self.crash_at == Some(passed) && self.sim.is_stormy() {
            self.sim.count(crash);
            self.crash();
            pending::<()>().await;
        }
    }

    async fn network(&self, error: Fault, likelihood: f64) -> Result<()> {
        let (cut_off_until, hangs) = {
            let trouble = self.trouble();
            (trouble.cut_off_until.filter(|until| monotonic() < *until), trouble.hangs)
        };
        if let Some(until) = cut_off_until {
            self.sim.count(if hangs { Fault::PartitionHangs } else { Fault::PartitionErrors });
            tokio::time::sleep_until(if hangs { until } else { monotonic() + REFUSED_AFTER }).await;
            // A call that hung may go through in the end, long after.
            if !hangs || self.sim.draw.chance(0.5) {
                return Err(Error::unavailable("injected: the store cannot be reached"));
            }
        }
        if self.sim.strikes(self.sim.weather.latency, Fault::StoreLatency) {
            tokio::time::sleep(self.sim.draw.time(3 * TTL)).await;
        }
        if self.sim.strikes(likelihood, error) {
            tokio::time::sleep(self.sim.draw.time(REFUSED_AFTER)).await;
            return Err(Error::unavailable("injected: the connection broke"));
        }
        Ok(())
    }
}

#[async_trait]
impl StoreFaults for Gate {
    async fn before(&self, call: Call) -> Result<()> {
        if call == Call::Heartbeat {
            self.trouble().heartbeat_sent = Some(monotonic());
        }
        self.pass(Fault::CrashBeforeCall).await;
        let reached = self.network(Fault::StoreErrorBefore, self.sim.weather.error_before).await;
        if self.has_crashed() {
            pending::<()>().await;
        }
        reached
    }

    async fn after(&self, call: Call) -> Result<()> {
        let answered = self.network(Fault::StoreErrorAfter, self.sim.weather.error_after).await;
        self.pass(Fault::CrashBeforeReply).await;
        answered?;
        match call {
            Call::Heartbeat => {
                let mut trouble = self.trouble();
                trouble.lease_until = trouble.heartbeat_sent.map(|sent| sent + TTL);
            }
            Call::Claim => self.sim.check(|checker| {
                checker.claim_answered(self.host);
                Ok(())
            }),
            _ => {}
        }
        Ok(())
    }

    async fn before_hint(&self) {
        if self.has_crashed() {
            pending::<()>().await;
        }
        if self.sim.weather.hints_lost {
            self.sim.count(Fault::HintsLost);
            pending::<()>().await;
        }
        let cut_off_until = self.trouble().cut_off_until;
        if let Some(until) = cut_off_until {
            tokio::time::sleep_until(until).await;
        }
    }
}
