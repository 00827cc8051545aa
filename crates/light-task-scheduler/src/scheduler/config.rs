//! How a scheduler behaves: one struct, checked once at start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::retry::RetryPolicy;
use crate::scheduler::Shutdown;
use crate::store::QueueSettings;
use crate::task::{Name, State};

/// How the end of a run is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracking {
    /// By asking the executor for the status of all runs, at this interval.
    Poll(Duration),
    /// By what runs push (the original's callback).
    Push,
    /// By both; whichever is first wins. While pushes arrive, polling stretches to eight times the interval.
    Both(Duration),
}

impl Tracking {
    /// The polling interval, if there is one.
    pub(super) fn poll_interval(self) -> Option<Duration> {
        match self {
            Tracking::Poll(interval) | Tracking::Both(interval) => Some(interval),
            Tracking::Push => None,
        }
    }

    /// Whether pushes of runs in this process are listened to.
    pub(super) fn listens(self) -> bool {
        !matches!(self, Tracking::Poll(_))
    }
}

/// Which ended tasks are removed, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// In these states.
    pub states: Vec<State>,
    /// Ended longer ago than this.
    pub older_than: Duration,
    /// Tasks with this label are never removed.
    pub except_label: Option<Name>,
}

/// How a scheduler behaves. Every field has a default; unknown fields are refused.
///
/// ```
/// use light_task_scheduler::Config;
///
/// let config = Config { concurrency: 4, ..Config::default() };
/// assert!(config.check().is_ok());
/// assert!(Config { concurrency: 0, ..Config::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sets apart the names that several installations make on one engine. Default `lts`.
    pub namespace: Name,
    /// How this replica is called for people. Default: `replica`.
    pub replica_name: String,
    /// How many tasks this replica runs at once, at least 1. Default 16.
    pub concurrency: usize,
    /// The queues it serves. Default: all.
    pub queues: Vec<Name>,
    /// Limits and rates stored at start, per queue; whether a queue is paused stays as it is, and `paused` is refused
    /// here. Default: none; what is stored stays.
    pub queue_settings: Vec<(Name, QueueSettings)>,
    /// How the ends of runs are learnt. Default: both, polling every second.
    pub tracking: Tracking,
    /// How long a heartbeat is good for; it is renewed at a third of it. 1 s at least. Default 15 s.
    /// The shorter, the sooner a dead replica's tasks are rescued: at most
    /// the ttl, an observation of a third of it plus 2 s (plus 1 s up to a ttl of 5 s), and two looks of at
    /// most 2 s: 26 s for a ttl of 15 s, 7 s for 3 s.
    pub ttl: Duration,
    /// The slow poll: how long news from the store may take with every hint lost. Default 1 s.
    pub store_poll: Duration,
    /// How long a run that is to be stopped may take to stop by itself. Default 5 s.
    pub stop_grace: Duration,
    /// How it ends when an operator has it drain ([`Store::drain`](crate::Store::drain)). Default: as
    /// [`Shutdown::default`].
    pub drain: Shutdown,
    /// How saving a result is retried, apart from the task's own attempts. Default: 10 attempts, 1 s to 1 min.
    pub export_retry: RetryPolicy,
    /// Removes ended tasks. Default: none are removed.
    pub retention: Option<Retention>,
    /// Run the heartbeat on a thread and a runtime of its own, so that busy handlers cannot starve it.
    /// Default true; the simulator turns it off.
    pub heartbeat_thread: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            namespace: crate::task::name_constant("lts"),
            replica_name: "replica".to_owned(),
            concurrency: 16,
            queues: Vec::new(),
            queue_settings: Vec::new(),
            tracking: Tracking::Both(Duration::from_secs(1)),
            ttl: Duration::from_secs(15),
            store_poll: Duration::from_secs(1),
            stop_grace: Duration::from_secs(5),
            drain: Shutdown::default(),
            export_retry: RetryPolicy {
                max_attempts: 10,
                max_delay: Duration::from_secs(60),
                ..RetryPolicy::default()
            },
            retention: None,
            heartbeat_thread: true,
        }
    }
}

/// The shortest lease: below it a scheduling hiccup looks like a death.
const TTL_MIN: Duration = Duration::from_secs(1);
/// The shortest of the intervals: a poll of zero is a busy loop.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The longest of all times: a day is longer than any of them needs, and short enough for every timer.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The most slots: beyond it the batches of the stores would have to be split.
const CONCURRENCY_MAX: usize = crate::store::BATCH_MAX;
/// Added to a third of the ttl between the two reads of a rescue; the fast profile (ttl up to 5 s) waits less.
const OBSERVE_MARGIN: Duration = Duration::from_secs(2);
const OBSERVE_MARGIN_FAST: Duration = Duration::from_secs(1);
const FAST_TTL_MAX: Duration = Duration::from_secs(5);

impl Config {
    /// Names every problem at once.
    pub fn check(&self) -> Result<()> {
        let mut problems: Vec<String> = Vec::new();
        if self.concurrency == 0 || self.concurrency > CONCURRENCY_MAX {
            problems.push(format!("concurrency is {}; it must be 1 to {CONCURRENCY_MAX}", self.concurrency));
        }
        if self.ttl < TTL_MIN {
            problems.push(format!("ttl is {:?}; it must be at least {TTL_MIN:?}", self.ttl));
        }
        if self.store_poll < INTERVAL_MIN {
            problems.push(format!("store_poll is {:?}; it must be at least {INTERVAL_MIN:?}", self.store_poll));
        }
        if self.tracking.poll_interval().is_some_and(|interval| interval < INTERVAL_MIN) {
            problems.push(format!("the interval of tracking must be at least {INTERVAL_MIN:?}"));
        }
        let times = [
            ("ttl", self.ttl),
            ("store_poll", self.store_poll),
            ("stop_grace", self.stop_grace),
            ("the interval of tracking", self.tracking.poll_interval().unwrap_or_default()),
        ];
        for (name, time) in times.into_iter().filter(|(_, time)| *time > INTERVAL_MAX) {
            problems.push(format!("{name} is {time:?}; it must be at most {INTERVAL_MAX:?}"));
        }
        problems.extend(self.export_retry.problems().into_iter().map(|problem| format!("export_{problem}")));
        for (queue, settings) in &self.queue_settings {
            if let Err(problem) = settings.check() {
                problems.push(format!("queue {queue}: {problem}"));
            }
            if settings.paused {
                problems.push(format!("queue {queue}: a start pauses no queue; pause it when the scheduler runs"));
            }
        }
        if let Some(state) = self.retention.iter().flat_map(|r| &r.states).find(|state| !state.is_terminal()) {
            problems.push(format!("retention.states has `{state}`, which is not an end"));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }

    /// How often the lease is renewed and the others' leases are looked at.
    pub(super) fn beat_interval(&self) -> Duration {
        self.ttl / 3
    }

    /// How long the two looks of a rescue are apart.
    pub(super) fn observe(&self) -> Duration {
        self.beat_interval() + if self.ttl <= FAST_TTL_MAX { OBSERVE_MARGIN_FAST } else { OBSERVE_MARGIN }
    }

    /// How much earlier than the store this replica considers its own lease over.
    pub(super) fn lease_margin(&self) -> Duration {
        self.ttl / 10
    }

    /// Above this many results being saved, no new task is claimed.
    pub(super) fn exporting_max(&self) -> usize {
        2 * self.concurrency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_named_at_once() {
        let bad = Config {
            concurrency: 0,
            ttl: Duration::ZERO,
            store_poll: Duration::ZERO,
            tracking: Tracking::Poll(Duration::ZERO),
            export_retry: RetryPolicy::attempts(0),
            queue_settings: vec![(
                crate::task::name_constant("q"),
                QueueSettings { paused: true, ..QueueSettings::default() },
            )],
            ..Config::default()
        };
        let message = bad.check().unwrap_err().to_string();
        for word in ["concurrency", "ttl", "store_poll", "tracking", "export_retry", "pauses no queue"] {
            assert!(message.contains(word), "{word} is missing in: {message}");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"concurency": 3}"#).is_err());
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }
}
