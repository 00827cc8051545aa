//! The window of candidates passes the conformance suite in front of durable stores.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::CachedStore;
use light_task_scheduler::store::sql::Durability;
use light_task_scheduler::store::{CachedOptions, Capabilities, Store};
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::testing::conformance::store::StoreHarness;

use crate::store_sqlite::Sqlite;

/// Any store's harness, with a window in front of every handle.
struct Cached<H> {
    inner: H,
    /// By which the windows grow old: every step is longer than they are good for.
    clock: Arc<TestClock>,
}

impl<H: StoreHarness> Cached<H> {
    fn new(inner: H) -> Self {
        Cached { inner, clock: Arc::new(TestClock::new(1)) }
    }

    fn cached(&self, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        let options = CachedOptions { clock: self.clock.clone(), ..CachedOptions::default() };
        CachedStore::with_options(inner, options).expect("good options").into()
    }
}

#[async_trait]
impl<H: StoreHarness> StoreHarness for Cached<H> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.cached(self.inner.open().await)
    }

    async fn again(&self) -> Option<Arc<dyn Store>> {
        Some(self.cached(self.inner.again().await?))
    }

    async fn advance(&self, by: Duration) {
        self.inner.advance(by).await;
        self.clock.step(by);
    }

    fn sequences(&self) -> u32 {
        self.inner.sequences()
    }
}

mod over_sqlite {
    use super::*;

    light_task_scheduler::store_conformance!(
        Cached::new(Sqlite::new(Durability::Full)),
        model: Cached::new(Sqlite::new(Durability::Relaxed))
    );
}

#[cfg(feature = "redis")]
mod over_redis {
    use super::*;
    use crate::store_redis::Redis;

    light_task_scheduler::store_conformance!(
        real_time,
        Cached::new(Redis::default()),
        model: Cached::new(Redis::stopped())
    );
}

/// What goes wrong between a window and its store.
mod faults {
    use super::*;
    use light_task_scheduler::store::{Claim, ClaimRequest, NewReplica};
    use light_task_scheduler::testing::{Call, Fault, FaultScript, FaultyStore};
    use light_task_scheduler::{MemoryStore, Name, NewTask, ReplicaId, Result, SystemClock};

    struct World {
        store: CachedStore,
        script: Arc<FaultScript>,
        me: ReplicaId,
    }

    /// A store with so many tasks that claims name what they take.
    async fn open() -> World {
        let script = Arc::new(FaultScript::default());
        let store = CachedStore::new(FaultyStore::new(MemoryStore::fifo(), script.clone()));
        let me = ReplicaId::generate(&SystemClock);
        let ttl = Duration::from_secs(600);
        store.register(NewReplica { id: me, name: "me".to_owned(), ttl, remote: false }).await.unwrap();
        let new = |n: u32| NewTask::new("k", &n).unwrap();
        store.insert((0..1_000).map(new).collect()).await.unwrap();
        let world = World { store, script, me };
        for number in 1..=3 {
            assert_eq!(payloads(&world.claim(number).await.unwrap()), first(10 * (number as u32 - 1)));
        }
        world
    }

    impl World {
        async fn claim(&self, number: u64) -> Result<Claim> {
            let (kinds, queues) = (vec![Name::new("k").unwrap()], vec![]);
            let request = ClaimRequest { replica: self.me, number, kinds, queues, limit: 10, among: None };
            self.store.claim(request).await
        }
    }

    fn payloads(claim: &Claim) -> Vec<u32> {
        claim.tasks.iter().map(|task| task.spec.payload.parse().unwrap()).collect()
    }

    fn first(from: u32) -> Vec<u32> {
        (from..from + 10).collect()
    }

    #[tokio::test]
    async fn a_lost_reply_is_repeated_under_its_number() {
        let w = open().await;
        for number in [4, 5] {
            w.script.add(Call::Claim, Fault::FailAfter);
            w.claim(number).await.unwrap_err();
            let again = w.claim(number).await.unwrap();
            assert_eq!(payloads(&again), first(10 * (number as u32 - 1)));
            assert_eq!(w.claim(number).await.unwrap().tasks, again.tasks);
        }
        assert_eq!(payloads(&w.claim(6).await.unwrap()), first(50), "nothing was skipped");
    }

    #[tokio::test]
    async fn a_lost_call_takes_nothing() {
        let w = open().await;
        w.script.add(Call::Claim, Fault::FailBefore);
        w.claim(4).await.unwrap_err();
        assert_eq!(payloads(&w.claim(4).await.unwrap()), first(30));
        assert_eq!(payloads(&w.claim(5).await.unwrap()), first(40));
    }

    #[tokio::test]
    async fn a_window_that_cannot_be_read_holds_up_no_claim() {
        let w = open().await;
        for number in 4..=90 {
            w.script.add(Call::Candidates, if number % 2 == 0 { Fault::FailBefore } else { Fault::FailAfter });
            assert_eq!(payloads(&w.claim(number).await.unwrap()), first(10 * (number as u32 - 1)));
        }
    }

    #[tokio::test]
    async fn an_insertion_whose_answer_was_lost_is_claimed_once() {
        let w = open().await;
        let new = NewTask::new("k", &5_000).unwrap().id("again").unwrap();
        w.script.add(Call::Insert, Fault::FailAfter);
        w.store.insert(vec![new.clone()]).await.unwrap_err();
        w.store.insert(vec![new]).await.unwrap();
        let mut all = Vec::new();
        for number in 4..=110 {
            all.extend(payloads(&w.claim(number).await.unwrap()));
        }
        assert_eq!(all, (30..1_000).chain([5_000]).collect::<Vec<_>>());
    }
}

/// Several windows in front of one file, on real threads.
mod races {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use light_task_scheduler::state::RunEvent;
    use light_task_scheduler::store::sql::{SqliteOptions, SqliteStore};
    use light_task_scheduler::store::{Change, ClaimRequest, NewReplica, QueueSettings};
    use light_task_scheduler::{
        Command, ErrorKind, Name, NewTask, Payload, ReplicaId, Result, ResultRef, Start, State, SystemClock, Task,
    };

    const HANDLES: usize = 4;
    const TASKS: usize = 3_000;
    const LIMIT: usize = 5;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn complete(task: &Task) -> Change {
        let result = ResultRef::Inline(Payload::from_bytes(*b"1"));
        let token = task.record.token().unwrap();
        Change { id: task.id.clone(), token, event: RunEvent::Complete(result) }
    }

    /// Calls until the store has answered, as its users do: a stalled disk may hold it up for longer than it waits.
    async fn insist<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        }
    }

    /// Claims and completes until every task has ended; answers what it has claimed.
    async fn work(store: CachedStore, running: Arc<AtomicUsize>, done: Arc<AtomicUsize>) -> Vec<Task> {
        let me = ReplicaId::generate(&SystemClock);
        let ttl = Duration::from_secs(600);
        store.register(NewReplica { id: me, name: "me".to_owned(), ttl, remote: false }).await.unwrap();
        let (mut claimed, mut number) = (Vec::new(), 0);
        while done.load(SeqCst) < TASKS {
            number += 1;
            let (kinds, queues) = (vec![name("k")], vec![]);
            let request =
                ClaimRequest { replica: me, number, kinds, queues, limit: 1 + number as usize % 20, among: None };
            let tasks = insist(|| store.claim(request.clone())).await.tasks;
            let limited = tasks.iter().filter(|task| task.spec.queue == name("limited")).count();
            // Counted after the claim and before the end: never more than the store lets run.
            assert!(running.fetch_add(limited, SeqCst) + limited <= LIMIT, "more run than the limit");
            tokio::task::yield_now().await;
            running.fetch_sub(limited, SeqCst);
            let answers = insist(|| store.apply(tasks.iter().map(complete).collect())).await;
            // A cancellation that came while it ran is how it ended.
            let ended = [Some(State::Succeeded), Some(State::Cancelled)];
            assert!(answers.iter().all(|answer| ended.contains(&answer.state())), "{answers:?}");
            done.fetch_add(tasks.len(), SeqCst);
            claimed.extend(tasks);
        }
        claimed
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn each_task_goes_to_one_and_limits_are_exact() {
        let directory = tempfile::tempdir().unwrap();
        let handle = || {
            let options = SqliteOptions { durability: Durability::Relaxed, ..SqliteOptions::default() };
            let inner = SqliteStore::open_with(directory.path().join("tasks.db"), options).unwrap();
            // Small, so that it is read again and again; grown old now and then.
            let options = CachedOptions { window: 300, poll_interval: Duration::from_millis(20), ..Default::default() };
            CachedStore::with_options(inner, options).unwrap()
        };
        let store = handle();
        let limit = QueueSettings { concurrency: Some(LIMIT as u32), ..QueueSettings::default() };
        store.set_queue(name("limited"), limit).await.unwrap();
        let (running, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..HANDLES {
            workers.spawn(work(handle(), running.clone(), done.clone()));
        }
        for part in 0..TASKS / 100 {
            let new = |n: usize| {
                let queue = ["limited", "free", "other"][n % 3];
                let start = if n.is_multiple_of(7) { Start::After(Duration::from_millis(5)) } else { Start::Now };
                let new = NewTask::new("k", &n).unwrap().queue(queue).unwrap().start(start);
                new.priority((n % 4) as i32).id(&format!("{part}-{n}")).unwrap()
            };
            let answers = insist(|| store.insert((0..100).map(new).collect())).await;
            let ids = answers.into_iter().map(|answer| answer.unwrap().id().clone());
            // Some are cancelled while they are in everybody's window; those that still waited are run again.
            let some: Vec<_> = ids.filter(|id| id.with_str(|id| id.ends_with('3'))).collect();
            let order = || some.iter().map(|id| (id.clone(), Command::Cancel)).collect();
            let cancelled = insist(|| store.command(order())).await;
            let again = some.iter().zip(cancelled).filter(|(_, answer)| answer.state() == Some(State::Cancelled));
            let again: Vec<_> = again.map(|(id, _)| (id.clone(), Command::Requeue)).collect();
            insist(|| store.command(again.clone())).await;
        }
        let mut claimed = Vec::new();
        // Whoever fails first fails the test: the others would wait for its tasks.
        while let Some(worker) = workers.join_next().await {
            claimed.extend(worker.unwrap());
        }
        let ids: BTreeSet<_> = claimed.iter().map(|task| task.id.clone()).collect();
        assert_eq!((claimed.len(), ids.len()), (TASKS, TASKS), "each once, and all");
        assert!(claimed.iter().all(|task| task.record.run == 1));
    }
}
