//! Random operations.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::{prop_oneof, sample};

use crate::rate::RateLimit;
use crate::state::Command;
use crate::store::QueueSettings;
use crate::task::{FailureKind, Name};

/// How many replicas act at a time.
pub(super) const SLOTS: usize = 3;
pub(super) const QUEUES: [&str; 2] = ["a", "b"];
pub(super) const KINDS: [&str; 2] = ["x", "y"];
const TASKS: u8 = 8;
const OPS_MAX: usize = 60;

/// Names by a bit set.
pub(super) fn names(all: [&str; 2], set: u8) -> Vec<Name> {
    let chosen = all.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
    chosen.map(|(_, text)| Name::new(text).unwrap()).collect()
}

#[derive(Debug, Clone)]
pub(super) struct New {
    pub(super) id: u8,
    pub(super) payload: u8,
    pub(super) queue: usize,
    pub(super) kind: usize,
    pub(super) priority: i32,
    /// 0: held. 1 to 3: minutes of delay. 4: at a time. Else: now.
    pub(super) start: u8,
    pub(super) deadline: Option<u32>,
    pub(super) keep: bool,
}

/// Whose token a report carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenOp {
    Current,
    Earlier,
    Of(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    Started(Option<u8>),
    Progress(u64),
    Unconfirmed,
    Outcome(Option<u8>),
    CompleteInline(u8),
    CompleteStored,
    Retry(u32, FailureKind),
    Release(u32, FailureKind),
    Fail(FailureKind),
    Cancelled,
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    Progress(u64),
    Succeeded(Option<u8>),
    Failed,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Insert(Vec<New>),
    /// `among`: a set of task numbers.
    Claim {
        slot: usize,
        kinds: u8,
        queues: u8,
        limit: usize,
        among: Option<u8>,
    },
    Window {
        kinds: u8,
        queues: u8,
        per_lane: usize,
    },
    ClaimAgain {
        slot: usize,
    },
    Report {
        task: u8,
        token: TokenOp,
        event: Event,
    },
    Command {
        task: u8,
        command: Command,
    },
    /// `minutes`: from now on, and half a one; negative: in the past.
    Reschedule {
        task: u8,
        minutes: Option<i8>,
        priority: Option<i32>,
    },
    Post {
        task: u8,
        behind: i8,
        said: Said,
    },
    Beat {
        slot: usize,
        holdings: Option<bool>,
    },
    Look,
    Leave {
        slot: usize,
    },
    Drain {
        slot: usize,
    },
    Register {
        slot: usize,
    },
    Rescue {
        slot: usize,
        suspects: Vec<usize>,
        look: bool,
        kinds: u8,
        limit: usize,
    },
    Set {
        queue: usize,
        settings: QueueSettings,
    },
    Sweep {
        states: u8,
        minutes: Option<u32>,
        limit: usize,
        except: bool,
        confirm: bool,
    },
    Pass {
        minutes: u32,
    },
}

/// Sequences that begin with some tasks and end after at most [`OPS_MAX`] operations.
pub(super) fn sequence() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..=OPS_MAX)
}

fn new() -> impl Strategy<Value = New> {
    let place = (0..QUEUES.len(), 0..KINDS.len());
    let rare = prop_oneof![9 => Just(0), 1 => Just(1)];
    (0..TASKS, rare, place, -1..=1_i32, 0..12_u8, option::weighted(0.2, 0..6_u32), any::<bool>()).prop_map(
        |(id, payload, (queue, kind), priority, start, deadline, keep)| {
            // The kind hangs on the id mostly, so that repeats are not all conflicts.
            let kind = if payload == 0 { usize::from(id) % KINDS.len() } else { kind };
            New { id, payload, queue, kind, priority, start, deadline, keep }
        },
    )
}

fn why() -> impl Strategy<Value = FailureKind> {
    sample::select(vec![FailureKind::Error, FailureKind::Lost, FailureKind::Busy, FailureKind::Export])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => option::of(any::<u8>()).prop_map(Event::Started),
        1 => any::<u64>().prop_map(Event::Progress),
        1 => Just(Event::Unconfirmed),
        2 => option::of(any::<u8>()).prop_map(Event::Outcome),
        1 => any::<u8>().prop_map(Event::CompleteInline),
        2 => Just(Event::CompleteStored),
        2 => (0..4_u32, why()).prop_map(|(minutes, why)| Event::Retry(minutes, why)),
        1 => (0..4_u32, why()).prop_map(|(minutes, why)| Event::Release(minutes, why)),
        2 => why().prop_map(Event::Fail),
        1 => Just(Event::Cancelled),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        any::<u64>().prop_map(Said::Progress),
        option::of(any::<u8>()).prop_map(Said::Succeeded),
        Just(Said::Failed)
    ]
}

/// The rate of a queue, on or off. One per queue: when a smaller burst forgives an older debt is the store's affair.
fn settings() -> impl Strategy<Value = (usize, QueueSettings)> {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let rates =
        [RateLimit { count: 2, period: minutes(2), burst: 2 }, RateLimit { count: 1, period: minutes(3), burst: 1 }];
    let paused = prop_oneof![3 => Just(false), 1 => Just(true)];
    (0..QUEUES.len(), option::of(1..=3_u32), any::<bool>(), paused).prop_map(
        move |(queue, concurrency, limited, paused)| {
            (queue, QueueSettings { concurrency, rate: limited.then_some(rates[queue]), paused })
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let bits = || prop_oneof![3 => Just(3_u8), 1 => 0..4_u8];
    let token =
        prop_oneof![8 => Just(TokenOp::Current), 1 => Just(TokenOp::Earlier), 1 => slot().prop_map(TokenOp::Of)];
    let commands = vec![
        Command::Start,
        Command::Cancel,
        Command::Requeue,
        Command::Requeue,
        Command::RetryExport,
        Command::Delete,
    ];
    prop_oneof![
        5 => vec(new(), 1..5).prop_map(Op::Insert),
        7 => (slot(), bits(), bits(), 0..5_usize, option::weighted(0.3, any::<u8>()))
            .prop_map(|(slot, kinds, queues, limit, among)| Op::Claim { slot, kinds, queues, limit, among }),
        1 => (bits(), bits(), 0..4_usize)
            .prop_map(|(kinds, queues, per_lane)| Op::Window { kinds, queues, per_lane }),
        1 => slot().prop_map(|slot| Op::ClaimAgain { slot }),
        12 => (0..TASKS, token, event()).prop_map(|(task, token, event)| Op::Report { task, token, event }),
        6 => (0..TASKS, sample::select(commands)).prop_map(|(task, command)| Op::Command { task, command }),
        3 => (0..TASKS, option::weighted(0.8, -1..3_i8), option::of(-2..=2_i32))
            .prop_map(|(task, minutes, priority)| Op::Reschedule { task, minutes, priority }),
        3 => (0..TASKS, prop_oneof![5 => Just(0_i8), 1 => -1..2_i8], said())
            .prop_map(|(task, behind, said)| Op::Post { task, behind, said }),
        3 => (slot(), option::of(any::<bool>())).prop_map(|(slot, holdings)| Op::Beat { slot, holdings }),
        1 => Just(Op::Look),
        1 => slot().prop_map(|slot| Op::Leave { slot }),
        1 => slot().prop_map(|slot| Op::Drain { slot }),
        1 => slot().prop_map(|slot| Op::Register { slot }),
        3 => (slot(), vec(slot(), 0..3), any::<bool>(), bits(), 0..4_usize).prop_map(
            |(slot, suspects, look, kinds, limit)| Op::Rescue { slot, suspects, look, kinds, limit }),
        1 => settings().prop_map(|(queue, settings)| Op::Set { queue, settings }),
        1 => (any::<u8>(), option::of(0..3_u32), 0..5_usize, any::<bool>(), any::<bool>()).prop_map(
            |(states, minutes, limit, except, confirm)| Op::Sweep { states, minutes, limit, except, confirm }),
        4 => prop_oneof![6 => 1..4_u32, 1 => Just(11_u32)].prop_map(|minutes| Op::Pass { minutes }),
    ]
}
