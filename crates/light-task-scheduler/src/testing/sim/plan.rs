//! What is going to happen in a run, as far as the seed alone decides it.

use std::time::Duration;

use super::draw::Draw;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::retry::RetryPolicy;
use crate::scheduler::{Config, Retention, Shutdown, Tracking};
use crate::store::QueueSettings;
use crate::task::{Name, NewTask, Start, State};
use crate::testing::TEST_EPOCH;
use crate::{RateLimit, state::Command};

/// How many replicas there are.
pub(super) const REPLICAS: usize = 3;
/// The lease of a replica.
pub(super) const TTL: Duration = Duration::from_secs(3);
/// How long faults go on.
const CHAOS: Duration = Duration::from_secs(40);
/// The kinds of tasks: one whose runs outlive their replica, one whose runs do not, one whose runs end at once.
pub(super) const KINDS: [&str; 3] = ["remote", "local", "quick"];
/// The queues; the first bounds nothing.
pub(super) const QUEUES: [&str; 3] = ["default", "narrow", "slow"];
const TASKS: std::ops::RangeInclusive<u64> = 20..=60;
const QUICK_CROWD: usize = 80;

/// Something that happens at a time of its own.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Submit(Box<NewTask>),
    /// By an operator: the task with this number.
    Order(usize, Command),
    /// A client repeats its insertion.
    Resubmit(usize),
    Pause(usize),
    Resume(usize),
    Crash(usize),
    Drain(usize, Duration, bool),
    /// By an operator, from afar.
    HaveDrain(usize),
    Partition(usize, Duration, bool),
    Freeze(usize, Duration),
    StepClock(Duration),
    StepClockBack(Duration),
    CutEngine(Duration),
    BreakResults(Duration),
}

/// How the store and the executors of a run behave, in chances per call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) error_before: f64,
    pub(super) error_after: f64,
    pub(super) latency: f64,
    pub(super) crash_at_call: f64,
    pub(super) hints_lost: bool,
    pub(super) reliable_pushes: bool,
    /// What outlives its replica is pushed to the store, and to nobody else.
    pub(super) callbacks_only: bool,
    pub(super) with_results: bool,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) actions: Vec<(Duration, Action)>,
    pub(super) weather: Weather,
    pub(super) config: Config,
    pub(super) chaos: Duration,
}

impl Plan {
    pub(super) fn draw(draw: &Draw) -> Result<Plan> {
        let tracking = match draw.below(10) {
            0 => Tracking::Push,
            1..4 => Tracking::Poll(Duration::from_secs(1)),
            _ => Tracking::Both(Duration::from_millis(700)),
        };
        let weather = Weather {
            error_before: draw.pick(&[0.0, 0.003, 0.02]),
            error_after: draw.pick(&[0.0, 0.003, 0.02]),
            latency: draw.pick(&[0.0, 0.003, 0.02]),
            crash_at_call: draw.pick(&[0.0, 0.3, 0.6]),
            hints_lost: draw.chance(0.15),
            reliable_pushes: tracking == Tracking::Push,
            callbacks_only: tracking == Tracking::Push && draw.chance(0.5),
            with_results: draw.chance(0.5),
        };
        let mut actions = Vec::new();
        tasks(draw, &mut actions)?;
        operators(draw, &mut actions);
        disasters(draw, &mut actions);
        // Stable: what was drawn first comes first.
        actions.sort_by_key(|(at, _)| *at);
        Ok(Plan { actions, weather, config: config(draw, tracking)?, chaos: CHAOS })
    }
}

fn config(draw: &Draw, tracking: Tracking) -> Result<Config> {
    let narrow = QueueSettings { concurrency: Some(draw.within(2, 4) as u32), ..QueueSettings::default() };
    let rate = RateLimit { count: 4, period: Duration::from_secs(1), burst: draw.within(1, 3) as u32 };
    let slow = QueueSettings { rate: Some(rate), concurrency: Some(5), ..QueueSettings::default() };
    let states = vec![State::Succeeded, State::Cancelled];
    let retention = Retention { states, older_than: Duration::from_secs(5), except_label: None };
    Ok(Config {
        heartbeat_thread: false,
        concurrency: draw.within(2, 8) as usize,
        queue_settings: vec![(Name::new(QUEUES[1])?, narrow), (Name::new(QUEUES[2])?, slow)],
        tracking,
        retention: draw.chance(0.3).then_some(retention),
        ttl: TTL,
        stop_grace: Duration::from_secs(1),
        drain: Shutdown { grace: Duration::from_secs(3), hand_over: true },
        export_retry: RetryPolicy {
            max_attempts: 3,
            min_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(1),
            ..RetryPolicy::default()
        },
        ..Config::default()
    })
}

fn tasks(draw: &Draw, actions: &mut Vec<(Duration, Action)>) -> Result<()> {
    let count = draw.within(*TASKS.start(), *TASKS.end()) as usize;
    for number in 0..count {
        let (at, task) = task(draw, number)?;
        actions.push((at, Action::Submit(Box::new(task))));
    }
    // Enough quick ones in a row, now and then, that the dispatcher polls them itself.
    if draw.chance(0.05) {
        for number in count..count + QUICK_CROWD {
            let task = NewTask::new(KINDS[2], &number)?.id(&format!("t{number:03}"))?;
            actions.push((Duration::from_secs(1), Action::Submit(Box::new(task))));
        }
    }
    Ok(())
}

fn task(draw: &Draw, number: usize) -> Result<(Duration, NewTask)> {
    let kind = KINDS[draw.below(20) as usize / 9];
    let queue = QUEUES[(draw.below(10) as usize).saturating_sub(4).div_ceil(3)];
    let mut task = NewTask::new(kind, &number)?.id(&format!("t{number:03}"))?.queue(queue)?;
    task = task.priority(draw.below(3) as i32);
    let at = draw.time(CHAOS / 2);
    if draw.chance(0.6) {
        let retry = RetryPolicy {
            max_attempts: draw.within(2, 4) as u32,
            min_delay: Duration::from_millis(300),
            max_delay: Duration::from_secs(3),
            ..RetryPolicy::default()
        };
        task = task.retry(retry);
    }
    if draw.chance(0.4) {
        task = task.timeout(draw.time(Duration::from_secs(5)) + Duration::from_millis(500));
    }
    if draw.chance(0.15) {
        let deadline: Timestamp = TEST_EPOCH + at + draw.time(Duration::from_secs(20));
        task = task.deadline(deadline);
    }
    task = match draw.below(10) {
        0 => task.start(Start::Held),
        1 | 2 => task.start(Start::After(draw.time(Duration::from_secs(10)))),
        _ => task,
    };
    Ok((at, task))
}

fn operators(draw: &Draw, actions: &mut Vec<(Duration, Action)>) {
    let number = |draw: &Draw| draw.below(*TASKS.end()) as usize;
    let many = |most: u64| 0..draw.below(most + 1);
    for (command, most) in [
        (Command::Cancel, 15),
        (Command::Requeue, 10),
        (Command::Delete, 4),
        (Command::RetryExport, 20),
        (Command::Start, 12),
    ] {
        for _ in many(most) {
            actions.push((draw.time(CHAOS), Action::Order(number(draw), command)));
        }
    }
    for _ in many(8) {
        let (at, to) = (draw.time(CHAOS), draw.time(CHAOS));
        let run_at = draw.chance(0.8).then(|| TEST_EPOCH + to);
        let priority = draw.chance(0.5).then(|| draw.below(5) as i32);
        actions.push((at, Action::Order(number(draw), Command::Reschedule { run_at, priority })));
    }
    for _ in many(3) {
        actions.push((draw.time(CHAOS), Action::Resubmit(number(draw))));
    }
    for _ in many(2) {
        let (queue, at) = (draw.below(QUEUES.len() as u64) as usize, draw.time(CHAOS));
        actions.push((at, Action::Pause(queue)));
        actions.push((at + draw.time(Duration::from_secs(10)), Action::Resume(queue)));
    }
}

fn disasters(draw: &Draw, actions: &mut Vec<(Duration, Action)>) {
    let replica = |draw: &Draw| draw.below(REPLICAS as u64) as usize;
    let long = |draw: &Draw| draw.time(Duration::from_secs(14)) + Duration::from_secs(1);
    let times = |draw: &Draw, most: u64| 0..draw.below(most + 1);
    for _ in times(draw, 3) {
        actions.push((draw.time(CHAOS), Action::Crash(replica(draw))));
    }
    for _ in times(draw, 1) {
        let grace = draw.time(Duration::from_secs(4));
        actions.push((draw.time(CHAOS), Action::Drain(replica(draw), grace, draw.chance(0.5))));
    }
    for _ in times(draw, 2) {
        actions.push((draw.time(CHAOS), Action::Partition(replica(draw), long(draw), draw.chance(0.5))));
    }
    for _ in times(draw, 2) {
        actions.push((draw.time(CHAOS), Action::Freeze(replica(draw), long(draw))));
    }
    if draw.chance(0.3) {
        let step = draw.pick(&[1, 4, 20, 3_600]);
        actions.push((draw.time(CHAOS), Action::StepClock(Duration::from_secs(step))));
    }
    if draw.chance(0.2) {
        let step = draw.pick(&[1, 4, 20, 3_600]);
        actions.push((draw.time(CHAOS), Action::StepClockBack(Duration::from_secs(step))));
    }
    for _ in times(draw, 2) {
        actions.push((draw.time(CHAOS), Action::CutEngine(draw.time(Duration::from_secs(8)))));
    }
    for _ in times(draw, 2) {
        actions.push((draw.time(CHAOS), Action::BreakResults(draw.time(Duration::from_secs(15)))));
    }
    for _ in times(draw, 1) {
        actions.push((draw.time(CHAOS), Action::HaveDrain(replica(draw))));
    }
}
