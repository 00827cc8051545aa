//! Watching one container from the scheduler's side: it is started if it was not yet, its output is copied as it
//! comes, and its end is reported.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::engine::{Engine, NOT_FOUND, Place, Trouble};
use super::logs::{Broken, Pump};
use super::names::Found;
use super::refusal;
use super::spec::KILL;
use super::verdict::{self, End, Evidence, Restart, Seen, Verdict};
use tokio::sync::Notify;

use crate::executor::Reporter;
use crate::task::Outcome;

/// How long until an engine that did not answer, or said nothing new, is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long a hint of the end is waited for before the container is looked at all the same.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often the last of the output is tried to be saved before the end is reported without it.
const LAST_COPIES_MAX: u32 = 5;

/// A container that this executor has started or found again.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) found: Found,
    pub(super) place: Place,
    /// Started by us, on an engine that had broken this often by then; `None`: found, started by another.
    started_at_break: Option<u64>,
    /// As `breaks` of the engine when it was found or started.
    seen_at_break: u64,
    /// It was asked to stop.
    pub(super) stopping: AtomicBool,
    /// What its end means: decided once, so that all who ask are told the same.
    verdict: Mutex<Option<Verdict>>,
    /// All of its output is in the log store.
    copied: AtomicBool,
    /// Somebody has seen its end.
    end_seen: Notify,
}

impl Watched {
    pub(super) fn new(found: Found, place: Place, started_at_break: Option<u64>) -> Self {
        let seen_at_break = place.0.breaks();
        Watched {
            found,
            place,
            started_at_break,
            seen_at_break,
            stopping: AtomicBool::new(false),
            verdict: Mutex::new(None),
            copied: AtomicBool::new(false),
            end_seen: Notify::new(),
        }
    }

    /// Has it looked at by its watch, which saves its output and reports its end.
    pub(super) fn look_now(&self) {
        self.end_seen.notify_one();
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.place.0
    }

    pub(super) fn is_copied(&self) -> bool {
        self.copied.load(Ordering::Acquire)
    }

    fn said(&self) -> Option<Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the engine has failed to answer since it was asked for the container's start, or for the container.
    fn broke(&self) -> bool {
        self.engine().breaks() != self.started_at_break.unwrap_or(self.seen_at_break)
    }

    /// What its end means.
    pub(super) async fn judge(&self, end: &End) -> Result<Verdict, Trouble> {
        if let Some(said) = self.said() {
            return Ok(said);
        }
        let broke = self.broke();
        // An engine that has always answered since we started the container has nothing to tell.
        let mut evidence = match self.started_at_break {
            Some(_) if !broke => Evidence::default(),
            _ => gather(self.engine(), &self.found.container, end, broke).await?,
        };
        evidence.stopped |= self.stopping.load(Ordering::Acquire);
        let verdict = conclude(self.engine(), &self.found.container, end, evidence).await;
        Ok(self.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict).clone())
    }
}

/// What the end of a container means that nobody here watches.
pub(super) async fn judge_unwatched(engine: &Engine, container: &str, end: &End) -> Result<Verdict, Trouble> {
    let evidence = gather(engine, container, end, false).await?;
    Ok(conclude(engine, container, end, evidence).await)
}

async fn gather(engine: &Engine, container: &str, end: &End, broke: bool) -> Result<Evidence, Trouble> {
    let (stopped, restart): (bool, Restart) = engine.memory_of(container, &[KILL, end.stop_signal], broke).await?;
    Ok(Evidence { stopped, restart })
}

async fn conclude(engine: &Engine, container: &str, end: &End, evidence: Evidence) -> Verdict {
    let complaint = if end.code == 0 { String::new() } else { engine.complaint(container).await };
    verdict::judge(end, evidence, &complaint)
}

/// Watches a container until it has ended, and reports that.
pub(super) async fn watch(watched: Arc<Watched>, reporter: Reporter, pump: Option<Pump>) {
    let outcome = follow(&watched, pump.as_ref()).await;
    if let Some(pump) = &pump {
        copy_the_rest(&watched, pump).await;
    }
    reporter.ended(outcome);
}

async fn follow(watched: &Watched, pump: Option<&Pump>) -> Outcome {
    let (engine, container) = (watched.engine(), watched.found.container.as_str());
    loop {
        let trouble = match engine.inspect(container).await {
            Ok(found) => match verdict::look(&found) {
                Seen::Running => {
                    until_it_may_have_ended(watched, pump).await;
                    continue;
                }
                // It may have run: an engine that was killed can forget that it had started it.
                Seen::Created if watched.broke() => match engine.remove(container).await {
                    Ok(()) => return forgotten().outcome(),
                    Err(trouble) => trouble,
                },
                // The start was interrupted, or its answer was lost. Starting twice does nothing.
                Seen::Created if !watched.stopping.load(Ordering::Acquire) => match engine.start(container).await {
                    Ok(()) => continue,
                    Err(trouble) => trouble,
                },
                Seen::Created => Trouble::Unreachable("it is being removed".to_owned()),
                Seen::Unstartable(why) => return Outcome::Failed(refusal::of_start(&why)),
                Seen::Ended(end) => match watched.judge(&end).await {
                    Ok(verdict) => return verdict.outcome(),
                    Err(trouble) => trouble,
                },
                Seen::Unclear(why) => Trouble::Unreachable(why),
            },
            Err(Trouble::Said(NOT_FOUND, _)) => return removed().outcome(),
            Err(trouble) => trouble,
        };
        tracing::debug!(run = %watched.found.execution, %trouble, "a container cannot be followed just now");
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// How a container that is not there any more has ended: nobody knows.
pub(super) fn removed() -> Verdict {
    Verdict::Lost("the container is gone from its engine, and how it ended is unknown".to_owned())
}

/// How a container has ended of which the engine knows no start.
fn forgotten() -> Verdict {
    Verdict::Lost("the engine broke off while it started the container, and whether it ran is unknown".to_owned())
}

/// Copies output while there is some to come, or waits; returns when it is time to look.
async fn until_it_may_have_ended(watched: &Watched, pump: Option<&Pump>) {
    let (engine, container) = (watched.engine(), watched.found.container.as_str());
    let hint = async {
        if let Some(pump) = pump {
            // The output may have an end before the container has, or be more than a log takes.
            if let Err(why) = pump.copy(engine, container, true).await {
                tracing::debug!(run = %watched.found.execution, %why, "output cannot be copied just now");
                tokio::time::sleep(ASK_AGAIN).await;
                return;
            }
        }
        if engine.wait(container).await.is_err() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    // An engine may forget to answer. A log that is being followed is not given up for that: it would be told anew.
    tokio::pin!(hint);
    loop {
        tokio::select! {
            () = &mut hint => return,
            () = watched.end_seen.notified() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        match engine.inspect(container).await.map(|found| verdict::look(&found)) {
            Ok(Seen::Running) | Err(Trouble::Unreachable(_)) => {}
            _ => return,
        }
    }
}

/// Copies all output that is left, and gives up where that keeps failing. `false`: the log store does not take it, and
/// may do so later.
pub(super) async fn copy_the_rest(watched: &Watched, pump: &Pump) -> bool {
    let mut saved = true;
    for _ in 0..LAST_COPIES_MAX {
        match pump.copy(watched.engine(), &watched.found.container, false).await {
            Ok(()) => {
                watched.copied.store(true, Ordering::Release);
                return true;
            }
            Err(why) => {
                tracing::warn!(run = %watched.found.execution, %why, "output cannot be saved");
                saved = !matches!(why, Broken::Store(_));
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
    saved
}
