//! What the runs do, drawn when they are started.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::faults::Fault;
use super::gate::Gate;
use super::plan::KINDS;
use super::sim::Sim;
use crate::clock::monotonic;
use crate::executor::Run;
use crate::store::{Report, Said, Store};
use crate::task::{Failure, FailureKind, Outcome, TaskId};
use crate::testing::{Beginning, Director, Ending, ExecutorCall, FaultyStore, Live, Script};

/// How often a callback is sent until the store has taken it.
const CALLBACK_TRIES: u32 = 20;
const CALLBACK_RETRY: Duration = Duration::from_millis(500);
/// How far beyond the real ones the start is that a forged callback names.
const FORGED_AHEAD: u64 = 1_000;

pub(super) struct SimDirector {
    pub(super) sim: Arc<Sim>,
    /// The way of callbacks to the store.
    client: FaultyStore,
    gates: Mutex<BTreeMap<u32, Weak<Gate>>>,
    cut_off_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for SimDirector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDirector")
    }
}

impl SimDirector {
    pub(super) fn new(sim: Arc<Sim>, client: FaultyStore) -> Self {
        SimDirector { sim, client, gates: Mutex::default(), cut_off_until: Mutex::default() }
    }

    pub(super) fn add_host(&self, gate: &Arc<Gate>) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).insert(gate.host, Arc::downgrade(gate));
    }

    pub(super) fn cut_engine(&self, lasts: Duration) {
        *self.cut_off_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(monotonic() + lasts);
    }

    fn gate(&self, host: u32) -> Option<Arc<Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).get(&host)?.upgrade()
    }

    fn ending(&self) -> Ending {
        let draw = &self.sim.draw;
        let failed =
            |kind, fatal| Ending::Outcome(Outcome::Failed(Failure { fatal, ..Failure::new(kind, "said so itself") }));
        match draw.below(20) {
            0 | 1 => failed(FailureKind::Error, false),
            2 => failed(FailureKind::Error, true),
            3 => failed(FailureKind::Panic, false),
            // Where only pushes tell, nobody would ever know.
            4 if self.sim.is_stormy() && !self.sim.weather.reliable_pushes => Ending::Lost,
            _ => Ending::Outcome(Outcome::Succeeded(None)),
        }
    }

    /// What can go wrong with a start and a stop.
    fn trouble(&self, adoptable: bool, script: &mut Script) {
        let draw = &self.sim.draw;
        match draw.below(40) {
            0 => script.beginning = Beginning::Busy(draw.time(Duration::from_secs(2))),
            1 => script.beginning = Beginning::Refused,
            2 | 3 => script.beginning = Beginning::EndsAtOnce,
            4 | 5 => script.delay = draw.time(Duration::from_secs(8)),
            6 if adoptable => script.reply_delay = draw.time(Duration::from_secs(8)),
            _ => {}
        }
        if draw.chance(0.2) {
            script.ignores_stop = draw.time(Duration::from_secs(8));
        }
        if draw.chance(0.05) {
            script.lasts = Duration::from_secs(20);
        }
    }

    fn pushes(&self) -> Vec<Duration> {
        let draw = &self.sim.draw;
        let late = |draw: &super::draw::Draw| draw.time(Duration::from_secs(4));
        match draw.below(8) {
            0 if !self.sim.weather.reliable_pushes => {
                self.sim.count(Fault::PushLost);
                Vec::new()
            }
            1 => {
                self.sim.count(Fault::PushLate);
                vec![late(draw)]
            }
            2 => {
                self.sim.count(Fault::PushDuplicate);
                vec![Duration::ZERO, Duration::ZERO, late(draw)]
            }
            _ => vec![Duration::ZERO],
        }
    }

    /// Sends the end of a run, or a forgery, to the store instead of to its owner.
    fn call_back(&self, id: &TaskId, execution: u64, adoptable: bool, script: &Script) {
        let draw = &self.sim.draw;
        let only = adoptable && self.sim.weather.callbacks_only;
        let forged = !only && draw.chance(0.03);
        if !forged && !only && !draw.chance(0.1) {
            return;
        }
        let outcome = match &script.ending {
            Ending::Outcome(outcome) if !forged && script.output_by_handle => outcome.clone(),
            Ending::Outcome(Outcome::Failed(failure)) if !forged => Outcome::Failed(failure.clone()),
            _ if forged => Outcome::Failed(Failure::new(FailureKind::Error, "forged")),
            _ => return,
        };
        self.sim.count(if forged { Fault::PushForged } else { Fault::PushToStore });
        // A forgery names a start that never was.
        let execution = if forged { execution + FORGED_AHEAD } else { execution };
        let report = Report { id: id.clone(), execution, said: Said::Ended(outcome) };
        let (client, ends_at) = (self.client.clone(), monotonic() + if forged { Duration::ZERO } else { script.lasts });
        let (world, id) = (self.sim.world.clone(), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(ends_at).await;
            let ended = |live: Live| live.ending().is_some();
            if !forged && !world.find(&id, report.execution).is_some_and(ended) {
                return;
            }
            for _ in 0..CALLBACK_TRIES {
                if client.post_reports(vec![report.clone()]).await.is_ok() {
                    return;
                }
                tokio::time::sleep(CALLBACK_RETRY).await;
            }
        });
    }
}

#[async_trait]
impl Director for SimDirector {
    async fn passes(&self, host: u32, _call: ExecutorCall) {
        match self.gate(host) {
            Some(gate) => gate.pass(Fault::CrashInExecutor).await,
            None => std::future::pending().await,
        }
    }

    fn script(&self, host: u32, adoptable: bool, run: &Run) -> Script {
        let (sim, task) = (&self.sim, &run.task);
        sim.note(&[30, host.into(), task.record.run], || format!("host {host} starts {}/{}", task.id, task.record.run));
        let lease_until = self.gate(host).and_then(|gate| gate.lease_until());
        sim.check(|checker| checker.asks_start(host, lease_until, &task.record, &task.id));
        let mut script = Script {
            lasts: sim.draw.time(Duration::from_secs(3)),
            ending: self.ending(),
            pushes: self.pushes(),
            output_by_handle: adoptable && (sim.weather.callbacks_only || sim.draw.chance(0.5)),
            progress: sim.draw.chance(0.2),
            tells_when_recovered: sim.weather.reliable_pushes,
            stop_takes: sim.draw.time(Duration::from_millis(1_500)),
            ..Script::default()
        };
        if task.spec.kind.as_str() == KINDS[2] {
            script.beginning = Beginning::EndsAtOnce;
            script.lasts = Duration::ZERO;
        } else if sim.is_stormy() {
            self.trouble(adoptable, &mut script);
        }
        if adoptable && sim.weather.callbacks_only {
            script.pushes = Vec::new();
        }
        if script.beginning == Beginning::EndsAtOnce && script.ending == Ending::Lost {
            script.ending = Ending::Outcome(Outcome::Succeeded(None));
        }
        for (happens, fault) in [
            (matches!(script.beginning, Beginning::Busy(_)), Fault::StartBusy),
            (script.beginning == Beginning::Refused, Fault::StartRefused),
            (!script.delay.is_zero(), Fault::StartSlow),
            (!script.reply_delay.is_zero(), Fault::StartReplySlow),
            (!script.ignores_stop.is_zero(), Fault::KillIgnored),
            (script.ending == Ending::Lost, Fault::RunLost),
        ] {
            if happens {
                sim.count(fault);
            }
        }
        match &script.ending {
            Ending::Outcome(Outcome::Failed(failure)) if failure.kind == FailureKind::Panic => {
                sim.count(Fault::RunPanicked);
            }
            Ending::Outcome(Outcome::Failed(_)) => sim.count(Fault::RunFailed),
            _ => {}
        }
        script
    }

    fn begins(&self, host: u32, run: &Run, script: &Script, again: bool) {
        let (sim, task) = (&self.sim, &run.task);
        let adoptable = task.spec.kind.as_str() == KINDS[0];
        sim.note(&[31, host.into(), task.record.run], || {
            format!("host {host}: {}/{} begins, {:?} {:?}", task.id, task.record.run, script.lasts, script.ending)
        });
        sim.check(|checker| checker.begins(sim, host, adoptable, task, again));
        self.call_back(&task.id, task.record.execution, adoptable, script);
    }

    fn releases(&self, live: &Live) {
        self.sim.note(&[32, live.execution], || format!("{}/{} is removed", live.id, live.execution));
        self.sim.check(|checker| checker.releases(live));
    }

    fn is_cut_off(&self, _host: u32) -> bool {
        let until = *self.cut_off_until.lock().unwrap_or_else(PoisonError::into_inner);
        let cut_off = until.is_some_and(|until| monotonic() < until);
        if cut_off {
            self.sim.count(Fault::EngineUnreachable);
        }
        cut_off
    }
}
