//! What is particular to the window; what every store must do is in the conformance suite.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use proptest::{prop_oneof, sample};

use super::*;
use crate::clock::Timestamp;
use crate::store::{MemoryOptions, MemoryStore};
use crate::task::{Failure, FailureKind, ResultRef};

const SECOND: Duration = Duration::from_secs(1);
const KINDS: [&str; 2] = ["x", "y"];
const QUEUES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Default)]
struct Hand(AtomicI64, AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst))
    }

    fn random(&self) -> u64 {
        self.1.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst)
    }
}

fn hand() -> Arc<Hand> {
    let clock = Hand::default();
    clock.0.store(3_600_000_000, SeqCst);
    Arc::new(clock)
}

fn pass(clock: &Hand, by: Duration) {
    clock.0.fetch_add(by.as_micros() as i64, SeqCst);
}

fn memory(clock: &Arc<Hand>) -> MemoryStore {
    MemoryStore::by_priority_with(MemoryOptions { clock: clock.clone(), ..MemoryOptions::default() })
}

fn cached(inner: MemoryStore, clock: &Arc<Hand>, window: usize) -> CachedStore {
    let options = CachedOptions { window, clock: clock.clone(), ..CachedOptions::default() };
    CachedStore::with_options(inner, options).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn id(number: usize) -> TaskId {
    TaskId::new(&format!("t{number:06}")).unwrap()
}

fn task(number: usize) -> NewTask {
    NewTask::new(KINDS[0], &1).unwrap().id(&id(number).to_string()).unwrap().queue(QUEUES[0]).unwrap()
}

/// One replica's view of a store.
struct Claimer {
    store: Arc<dyn Store>,
    me: ReplicaId,
    number: u64,
}

impl Claimer {
    async fn new(store: impl Into<Arc<dyn Store>>, me: u8) -> Claimer {
        let (store, me) = (store.into(), ReplicaId::from_bytes([me; 16]));
        store.register(NewReplica { id: me, name: "me".into(), ttl: SECOND * 1_000_000, remote: false }).await.unwrap();
        Claimer { store, me, number: 0 }
    }

    async fn insert(&self, tasks: Vec<NewTask>) {
        for part in tasks.chunks(BATCH_MAX) {
            let answers = self.store.insert(part.to_vec()).await.unwrap();
            assert!(answers.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))));
        }
    }

    async fn claim(&mut self, limit: usize) -> Claim {
        self.number += 1;
        self.repeat(limit).await
    }

    async fn repeat(&self, limit: usize) -> Claim {
        let kinds = KINDS.map(name).to_vec();
        let request = ClaimRequest { replica: self.me, number: self.number, kinds, queues: vec![], limit, among: None };
        self.store.claim(request).await.unwrap()
    }

    async fn claim_ids(&mut self, limit: usize) -> Vec<TaskId> {
        self.claim(limit).await.tasks.into_iter().map(|task| task.id).collect()
    }

    async fn complete(&self, tasks: &[Task]) {
        let done = |task: &Task| {
            let result = ResultRef::Inline(crate::task::Payload::from_bytes(*b"1"));
            Change { id: task.id.clone(), token: task.record.token().unwrap(), event: RunEvent::Complete(result) }
        };
        self.store.apply(tasks.iter().map(done).collect()).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<TaskId> {
    range.map(id).collect()
}

#[tokio::test]
async fn a_long_queue_is_drained_in_order_from_few_reads() {
    let clock = hand();
    let store = cached(memory(&clock), &clock, 1_000);
    let mut me = Claimer::new(store.clone(), 1).await;
    me.insert((0..20_000).map(task).collect()).await;
    let (mut claimed, mut reads, mut read_at_len) = (Vec::new(), 0, 0);
    for _ in 0..400 {
        claimed.extend(me.claim_ids(50).await);
        let window = store.window();
        assert!(window.len() <= 1_000);
        reads += usize::from(window.len() > read_at_len);
        read_at_len = window.len();
    }
    assert_eq!(claimed, numbers(0..20_000));
    assert!((15..40).contains(&reads), "{reads} reads");
}

#[tokio::test]
async fn a_full_queue_starves_no_other() {
    let clock = hand();
    let store = cached(memory(&clock), &clock, 1_000);
    let mut me = Claimer::new(store.clone(), 1).await;
    let limit = QueueSettings { concurrency: Some(1), ..QueueSettings::default() };
    store.set_queue(name(QUEUES[0]), limit).await.unwrap();
    me.insert((0..5_000).map(|n| task(n).priority(9)).collect()).await;
    me.insert((5_000..8_000).map(|n| task(n).queue(QUEUES[1]).unwrap()).collect()).await;
    let runs = me.claim(10).await.tasks;
    assert_eq!(runs[0].id, id(0));
    let mut next = 5_009;
    for _ in 0..200 {
        assert_eq!(me.claim_ids(10).await, numbers(next..next + 10));
        next += 10;
    }
    assert!(store.window().len() > 0, "the window was in use");
    me.complete(&runs[..1]).await;
    assert_eq!(me.claim_ids(10).await[0], id(1), "a free slot goes to the first at once");
}

#[tokio::test]
async fn what_others_insert_has_its_place_within_one_poll() {
    let clock = hand();
    let shared = memory(&clock);
    let mut me = Claimer::new(cached(shared.clone(), &clock, 1_000), 1).await;
    let other = Claimer::new(cached(shared, &clock, 1_000), 2).await;
    me.insert((0..2_000).map(task).collect()).await;
    for _ in 0..3 {
        me.claim(10).await;
    }
    other.insert(vec![task(9_000).priority(1)]).await;
    me.insert(vec![task(9_001).priority(2)]).await;
    assert_eq!(me.claim_ids(2).await, [id(9_001), id(30)], "its own insertion goes first at once");
    pass(&clock, CachedOptions::default().poll_interval);
    assert_eq!(me.claim_ids(2).await, [id(9_000), id(31)], "the other's after a poll");
}

#[tokio::test]
async fn what_others_have_taken_is_passed_over_and_nothing_is_left_behind() {
    let clock = hand();
    let shared = memory(&clock);
    let mut us = Vec::new();
    for me in 1..=4 {
        us.push(Claimer::new(cached(shared.clone(), &clock, 1_000), me).await);
    }
    us[0].insert((0..10_000).map(task).collect()).await;
    let (mut claimed, mut short) = (Vec::new(), 0);
    loop {
        let before = claimed.len();
        let mut is_due = false;
        for me in &mut us {
            let claim = me.claim(25).await;
            is_due |= claim.next_at.is_some_and(|at| at <= claim.now);
            short += usize::from(claim.tasks.len() < 25);
            claimed.extend(claim.tasks.into_iter().map(|task| task.id));
        }
        assert!(claimed.len() > before || !is_due, "they go on");
        if !is_due {
            break;
        }
    }
    claimed.sort();
    assert_eq!(claimed, numbers(0..10_000));
    assert!(short <= 30, "{short} claims came short");
}

#[tokio::test]
async fn a_claim_that_comes_short_says_so_and_the_next_is_whole() {
    let clock = hand();
    let shared = memory(&clock);
    let mut me = Claimer::new(cached(shared.clone(), &clock, 200), 1).await;
    let mut other = Claimer::new(shared, 2).await;
    me.insert((0..2_000).map(task).collect()).await;
    for _ in 0..2 {
        me.claim(5).await;
    }
    other.claim(500).await;
    let short = me.claim(5).await;
    assert_eq!(short.tasks, []);
    assert!(short.next_at.is_some_and(|at| at <= short.now), "more is due");
    assert_eq!(me.claim_ids(5).await, numbers(510..515));
}

#[tokio::test]
async fn while_few_wait_what_others_insert_is_found_at_once() {
    let clock = hand();
    let shared = memory(&clock);
    let mut me = Claimer::new(cached(shared.clone(), &clock, 1_000), 1).await;
    let other = Claimer::new(shared, 2).await;
    me.insert((0..30).map(task).collect()).await;
    for _ in 0..5 {
        me.claim(5).await;
    }
    other.insert((30..34).map(task).collect()).await;
    assert_eq!(me.claim_ids(10).await, numbers(25..34));
    other.insert(vec![task(34)]).await;
    assert_eq!(me.claim_ids(10).await, [id(34)]);
}

#[tokio::test]
async fn what_expires_is_replaced_by_what_comes_next() {
    let clock = hand();
    let mut me = Claimer::new(cached(memory(&clock), &clock, 200), 1).await;
    let deadline = clock.now() + Duration::from_millis(1);
    me.insert((0..110).map(|n| task(n).priority(1)).collect()).await;
    me.insert((110..200).map(|n| task(n).priority(1).deadline(deadline)).collect()).await;
    me.insert((200..400).map(|n| task(n).priority(1)).collect()).await;
    me.insert((400..900).map(|n| task(n).queue(QUEUES[1]).unwrap()).collect()).await;
    for round in 0..11 {
        assert_eq!(me.claim_ids(10).await, numbers(round * 10..round * 10 + 10));
    }
    pass(&clock, Duration::from_millis(2));
    let claim = me.claim(10).await;
    assert_eq!(claim.expired.len(), 90);
    let more = me.claim_ids(10).await;
    assert!(more[0] < id(400), "after one claim the order is right again: {more:?}");
}

#[tokio::test]
async fn many_lanes_need_no_memory() {
    let clock = hand();
    let store = cached(memory(&clock), &clock, 1_000);
    let mut me = Claimer::new(store.clone(), 1).await;
    me.insert((0..3_000).map(|n| task(n).queue(&format!("q{}", n % 300)).unwrap()).collect()).await;
    for round in 0..30 {
        assert_eq!(me.claim_ids(100).await, numbers(round * 100..round * 100 + 100));
        assert_eq!(store.window().len(), 0);
    }
}

#[test]
fn senseless_options_are_refused() {
    for (window, poll_interval) in [(0, SECOND), (BATCH_MAX + 1, SECOND), (1, Duration::ZERO)] {
        let options = CachedOptions { window, poll_interval, ..CachedOptions::default() };
        let refused = CachedStore::with_options(MemoryStore::fifo(), options).unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Invalid);
    }
}

/// One step of the comparison of a cached store with the store alone.
#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<(i32, usize, usize, u8)>),
    Claim(usize),
    Repeat,
    Complete,
    Retry(bool),
    Command(usize, Command),
    Set(usize, Option<u32>, bool),
    Pass,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let new = (-2..=2_i32, 0..QUEUES.len(), 0..KINDS.len(), 0..16_u8);
    let commands = vec![Command::Cancel, Command::Cancel, Command::Requeue, Command::Start, Command::Delete];
    let op = prop_oneof![
        2 => vec(new, 1..60).prop_map(Op::Insert),
        1 => (-2..=2_i32, 1..60_usize).prop_map(|(priority, n)| Op::Insert(vec![(priority, 0, 0, 9); n])),
        12 => (0..7_usize).prop_map(Op::Claim),
        1 => Just(Op::Repeat),
        3 => Just(Op::Complete),
        1 => any::<bool>().prop_map(Op::Retry),
        4 => (any::<usize>(), sample::select(commands)).prop_map(|(at, command)| Op::Command(at, command)),
        1 => (0..QUEUES.len(), proptest::option::of(1..40_u32), any::<bool>())
            .prop_map(|(queue, limit, paused)| Op::Set(queue, limit, paused)),
        1 => Just(Op::Pass),
    ];
    vec(op, 20..80)
}

/// The same calls of a cached store and of a store alone.
struct Twins {
    both: [Claimer; 2],
    clock: Arc<Hand>,
    known: usize,
    running: Vec<Task>,
    last: usize,
}

impl Twins {
    async fn step(&mut self, op: &Op) {
        match op {
            Op::Insert(new) => {
                let tasks: Vec<NewTask> = new.iter().enumerate().map(|(n, new)| self.new_task(n, new)).collect();
                self.known += tasks.len();
                for twin in &self.both {
                    twin.insert(tasks.clone()).await;
                }
            }
            Op::Claim(limit) => {
                self.last = *limit;
                let [cached, alone] = &mut self.both;
                let (cached, alone) = (cached.claim(*limit).await, alone.claim(*limit).await);
                assert_eq!(cached, alone);
                self.running.extend(cached.tasks);
            }
            Op::Repeat if self.both[0].number == 0 => {}
            Op::Repeat => {
                let [cached, alone] = &self.both;
                assert_eq!(cached.repeat(self.last).await, alone.repeat(self.last).await);
            }
            Op::Complete => {
                let half: Vec<Task> = self.running.drain(..self.running.len().div_ceil(2)).collect();
                for twin in &self.both {
                    twin.complete(&half).await;
                }
            }
            Op::Retry(now) => {
                let Some(task) = self.running.pop() else { return };
                let at = self.clock.now() + if *now { Duration::ZERO } else { SECOND };
                let event = RunEvent::Retry(at, Failure::new(FailureKind::Error, "again"));
                let change = Change { id: task.id.clone(), token: task.record.token().unwrap(), event };
                for twin in &self.both {
                    twin.store.apply(vec![change.clone()]).await.unwrap();
                }
            }
            Op::Command(at, command) => {
                let from = at % self.known.max(1);
                let some = (from..from + 60).map(|n| (id(n), *command)).collect::<Vec<_>>();
                let [cached, alone] = &self.both;
                let answers = cached.store.command(some.clone()).await.unwrap();
                assert_eq!(answers, alone.store.command(some).await.unwrap());
            }
            Op::Set(queue, concurrency, paused) => {
                let settings = QueueSettings { concurrency: *concurrency, paused: *paused, rate: None };
                for twin in &self.both {
                    twin.store.set_queue(name(QUEUES[*queue]), settings).await.unwrap();
                }
            }
            Op::Pass => pass(&self.clock, SECOND * 2),
        }
    }

    fn new_task(&self, n: usize, &(priority, queue, kind, start): &(i32, usize, usize, u8)) -> NewTask {
        let new = NewTask::new(KINDS[kind], &1).unwrap().queue(QUEUES[queue]).unwrap().priority(priority);
        new.id(&id(self.known + n).to_string()).unwrap().start(match start {
            0 => Start::Held,
            1 => Start::After(SECOND),
            2 => Start::At(self.clock.now() - SECOND * 2),
            3 => Start::At(self.clock.now() + SECOND),
            _ => Start::Now,
        })
    }
}

/// For one claimer nothing is different, however small the window.
#[test]
fn one_claimer_sees_no_difference() {
    const CASES: u32 = 300;
    let named = AtomicU64::new(0);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(ops(), 50..400_usize), |(ops, window)| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let clock = hand();
            let store = cached(memory(&clock), &clock, window);
            let both = [Claimer::new(store.clone(), 1).await, Claimer::new(memory(&clock), 1).await];
            let mut twins = Twins { both, clock, known: 0, running: vec![], last: 0 };
            // Longer than the window: most of it is behind its end.
            let long = (0..700).map(|n| (2 - n / 140, n as usize % 2, 0, 9)).collect();
            for op in std::iter::once(&Op::Insert(long)).chain(&ops) {
                twins.step(op).await;
                assert!(store.window().len() <= window);
                named.fetch_add(u64::from(matches!(op, Op::Claim(_)) && store.window().len() > 0), SeqCst);
            }
        });
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    assert!(named.load(SeqCst) > u64::from(CASES), "the window was in use for {} claims only", named.load(SeqCst));
}
