//! The scheduler over the memory store and functions, in paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use light_task_scheduler::scheduler::{Seen, TaskEvent};
use light_task_scheduler::store::MemoryOptions;
use light_task_scheduler::testing::TestClock;
use light_task_scheduler::*;

fn config() -> Config {
    Config { heartbeat_thread: false, ..Config::default() }
}

fn store(clock: &Arc<TestClock>) -> MemoryStore {
    MemoryStore::by_priority_with(MemoryOptions { clock: clock.clone(), ..MemoryOptions::default() })
}

async fn scheduler(functions: FunctionExecutor, config: Config) -> Scheduler {
    let clock = Arc::new(TestClock::new(7));
    Scheduler::builder(store(&clock)).functions(functions).config(config).clock(clock).start().await.unwrap()
}

fn second() -> Duration {
    Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_function_returns_its_result() {
    let functions = FunctionExecutor::new().register("add", |_: Context, (a, b): (i64, i64)| async move { Ok(a + b) });
    let scheduler = scheduler(functions, config()).await;
    let task = scheduler.submit(NewTask::new("add", &(1, 2)).unwrap()).await.unwrap();
    assert_eq!(task.result::<i64>().await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failing_function_is_retried_and_then_fails() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let functions = FunctionExecutor::new().register("fail", move |_: Context, (): ()| {
        counted.fetch_add(1, SeqCst);
        async { Err::<(), _>(TaskError::new("no luck")) }
    });
    let scheduler = scheduler(functions, config()).await;
    let task = NewTask::new("fail", &()).unwrap().retry(RetryPolicy::attempts(3));
    let task = scheduler.submit(task).await.unwrap().wait().await.unwrap();
    assert_eq!(task.record.state, State::Failed);
    assert_eq!(calls.load(SeqCst), 3);
    assert_eq!(task.record.attempts().len(), 3);
    assert_eq!(task.record.failure().unwrap().message, "no luck");
}

#[tokio::test(start_paused = true)]
async fn fatal_errors_and_panics_and_bad_payloads() {
    let functions = FunctionExecutor::new()
        .register("fatal", |_: Context, (): ()| async { Err::<(), _>(TaskError::fatal("never")) })
        .register("panic", |_: Context, (): ()| async {
            if true {
                panic!("oh");
            }
            Ok(())
        });
    let scheduler = scheduler(functions, config()).await;
    for (kind, payload, expected, message) in [
        ("fatal", serde_json::json!(null), FailureKind::Error, "never"),
        ("panic", serde_json::json!(null), FailureKind::Panic, "oh"),
        ("fatal", serde_json::json!("text"), FailureKind::Error, "the payload is not the JSON"),
    ] {
        let task = NewTask::new(kind, &payload).unwrap().retry(RetryPolicy::attempts(1));
        let task = scheduler.submit(task).await.unwrap().wait().await.unwrap();
        let failure = task.record.failure().unwrap();
        assert_eq!(failure.kind, expected);
        assert!(failure.message.starts_with(message), "{}", failure.message);
    }
    let unknown = scheduler.submit(NewTask::new("nobody", &()).unwrap()).await.unwrap();
    assert_eq!(scheduler.get(unknown.id()).await.unwrap().record.state, State::Waiting, "others may run it");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_stops_the_run_and_is_retried() {
    let functions = FunctionExecutor::new().register("slow", |context: Context, (): ()| async move {
        if context.attempt() == 1 {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        Ok(context.attempt())
    });
    let scheduler = scheduler(functions, config()).await;
    let task = NewTask::new("slow", &()).unwrap().timeout(2 * second()).retry(RetryPolicy::attempts(2));
    let handle = scheduler.submit(task).await.unwrap();
    let task = handle.wait().await.unwrap();
    assert_eq!(task.record.state, State::Succeeded, "{task:?}");
    assert_eq!(task.record.attempts()[0].failure.kind, FailureKind::Timeout);
    assert_eq!(handle.result::<u32>().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_waiting_and_a_running_task() {
    let functions = FunctionExecutor::new().register("slow", |context: Context, (): ()| async move {
        context.cancelled().await;
        Err::<(), _>(TaskError::new("stopped"))
    });
    let scheduler = scheduler(functions, Config { concurrency: 1, ..config() }).await;
    let deadline = TestClock::new(0).now() + 5 * second();
    let task = || NewTask::new("slow", &()).unwrap().deadline(deadline).retry(RetryPolicy::attempts(9));
    let handles = scheduler.submit_many(vec![task(), task()]).await.unwrap();
    for handle in handles {
        let task = handle.unwrap().wait().await.unwrap();
        assert_eq!(task.record.failure().unwrap().kind, FailureKind::Deadline);
        assert!(task.record.attempt <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_stops_a_waiting_and_a_running_task() {
    let functions = FunctionExecutor::new().register("slow", |context: Context, (): ()| async move {
        context.cancelled().await;
        Ok("succeeds all the same")
    });
    let scheduler = scheduler(functions, Config { concurrency: 1, ..config() }).await;
    let mut events = scheduler.subscribe();
    let first = scheduler.submit(NewTask::new("slow", &()).unwrap()).await.unwrap();
    assert_eq!(events.next().await, Some(Seen::Event(TaskEvent { id: first.id().clone(), state: State::Running })));
    let second = scheduler.submit(NewTask::new("slow", &()).unwrap()).await.unwrap();
    scheduler.cancel(second.id()).await.unwrap();
    scheduler.cancel(first.id()).await.unwrap();
    for handle in [first, second] {
        assert_eq!(handle.wait().await.unwrap().record.state, State::Cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_rescheduled_to_now_runs_at_once_and_subscribers_see_both() {
    let functions = FunctionExecutor::new().register("work", |_: Context, (): ()| async { Ok(()) });
    let scheduler = scheduler(functions, config()).await;
    let mut events = scheduler.subscribe();
    let late = NewTask::new("work", &()).unwrap().start(Start::After(3_600 * second()));
    let late = scheduler.submit(late).await.unwrap();
    // Time that is paused goes on only when all wait: by then the dispatcher sleeps until the task is due.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begun = tokio::time::Instant::now();
    scheduler.reschedule(late.id(), Some(Timestamp::default()), Some(3)).await.unwrap();
    for state in [State::Waiting, State::Running, State::Succeeded] {
        assert_eq!(events.next().await, Some(Seen::Event(TaskEvent { id: late.id().clone(), state })));
    }
    assert!(begun.elapsed() < second(), "{:?}", begun.elapsed());
    let refused = scheduler.reschedule(late.id(), None, Some(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("not possible while the task is succeeded"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn never_more_run_than_the_limits_allow() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (now.clone(), most.clone());
    let functions = FunctionExecutor::new().register("work", move |_: Context, (): ()| {
        let (now, most) = (n.clone(), m.clone());
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            now.fetch_sub(1, SeqCst);
            Ok(())
        }
    });
    let queue = Name::new("narrow").unwrap();
    let settings = QueueSettings { concurrency: Some(2), ..QueueSettings::default() };
    let scheduler =
        scheduler(functions, Config { concurrency: 5, queue_settings: vec![(queue, settings)], ..config() }).await;
    let narrow: Vec<_> = (0..20).map(|_| NewTask::new("work", &()).unwrap().queue("narrow").unwrap()).collect();
    for handle in scheduler.submit_many(narrow).await.unwrap() {
        handle.unwrap().wait().await.unwrap();
    }
    assert_eq!(most.swap(0, SeqCst), 2);
    let wide: Vec<_> = (0..50).map(|_| NewTask::new("work", &()).unwrap()).collect();
    for handle in scheduler.submit_many(wide).await.unwrap() {
        handle.unwrap().wait().await.unwrap();
    }
    assert_eq!(most.load(SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn all_three_trackings_see_the_end() {
    for tracking in [Tracking::Push, Tracking::Poll(second()), Tracking::Both(second())] {
        let functions = FunctionExecutor::new().register("slow", |context: Context, (): ()| async move {
            context.progress(1, 2, "half");
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(5)
        });
        let scheduler = scheduler(functions, Config { tracking, ..config() }).await;
        let task = scheduler.submit(NewTask::new("slow", &()).unwrap()).await.unwrap();
        assert_eq!(task.result::<i32>().await.unwrap(), 5, "{tracking:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_then_gives_back() {
    let functions = FunctionExecutor::new()
        .register("short", |_: Context, (): ()| async {
            let _: () = tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        })
        .register("long", |context: Context, (): ()| async move {
            let _: () = context.cancelled().await;
            Ok(())
        })
        .register("stuck", |_: Context, (): ()| async {
            let _: () = tokio::time::sleep(Duration::from_secs(9_999)).await;
            Ok(())
        });
    let store = MemoryStore::fifo();
    let scheduler = Scheduler::builder(store.clone()).functions(functions).config(config()).start().await.unwrap();
    let mut events = scheduler.subscribe();
    let mut ids = Vec::new();
    for kind in ["short", "stuck"] {
        ids.push(scheduler.submit(NewTask::new(kind, &()).unwrap()).await.unwrap().id().clone());
        events.next().await;
    }
    scheduler.shutdown(Shutdown { grace: 10 * second(), hand_over: true }).await.unwrap();
    assert_eq!(store.task(&ids[0]).await.unwrap().record.state, State::Succeeded);
    let stuck = store.task(&ids[1]).await.unwrap();
    assert_eq!((stuck.record.state, stuck.record.interruptions), (State::Waiting, 1));
    assert_eq!(stuck.record.failure().unwrap().kind, FailureKind::Drained);
}

fn closed_gate() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(0))
}

/// A function that ends when it is let go, and one that never does.
fn gated(gate: &Arc<tokio::sync::Semaphore>) -> FunctionExecutor {
    let gate = gate.clone();
    let functions = FunctionExecutor::new().register("gated", move |_: Context, (): ()| {
        let gate = gate.clone();
        async move { gate.acquire().await.map(|permit| permit.forget()).map_err(|_| TaskError::new("no gate")) }
    });
    functions.register("stuck", |_: Context, (): ()| std::future::pending::<Result<(), TaskError>>())
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_an_operator_has_drain_ends_what_runs_and_leaves() {
    let gate = closed_gate();
    let store = MemoryStore::fifo();
    let start = || {
        let config = Config { concurrency: 1, ..config() };
        Scheduler::builder(store.clone()).functions(gated(&gate)).config(config).start()
    };
    let drained = start().await.unwrap();
    let mut events = drained.subscribe();
    let running = drained.submit(NewTask::new("gated", &()).unwrap()).await.unwrap();
    events.next().await;
    let waiting = drained.submit(NewTask::new("gated", &()).unwrap()).await.unwrap();
    let begun = tokio::time::Instant::now();
    store.drain(drained.replica()).await.unwrap();
    tokio::time::timeout(second(), drained.draining()).await.expect("the hint brings the heartbeat at once");
    assert!(drained.is_draining() && begun.elapsed() == Duration::ZERO);
    gate.add_permits(1);
    tokio::time::timeout(second(), drained.ended()).await.expect("it ends with its last run, not with the grace");
    let task = running.wait().await.unwrap();
    assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 1));
    assert_eq!(store.replicas().await.unwrap(), [], "it has left");
    assert_eq!(store.task(waiting.id()).await.unwrap().record.attempt, 0, "what waited still does");
    // Its users go on, with what another one runs.
    let other = start().await.unwrap();
    let late = drained.submit(NewTask::new("gated", &()).unwrap()).await.unwrap();
    gate.add_permits(2);
    for handle in [waiting, late] {
        let task = handle.wait().await.unwrap();
        assert_eq!((task.record.state, task.record.owner), (State::Succeeded, Some(other.replica())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_from_afar_gives_back_what_outlasts_its_grace() {
    let store = MemoryStore::fifo();
    let drain = Shutdown { grace: 10 * second(), hand_over: false };
    let config = Config { drain, ..config() };
    let scheduler = Scheduler::builder(store.clone()).functions(gated(&closed_gate())).config(config).start();
    let scheduler = scheduler.await.unwrap();
    let mut events = scheduler.subscribe();
    let stuck = scheduler.submit(NewTask::new("stuck", &()).unwrap()).await.unwrap();
    events.next().await;
    let begun = tokio::time::Instant::now();
    store.drain(scheduler.replica()).await.unwrap();
    tokio::time::timeout(60 * second(), scheduler.ended()).await.expect("it ends");
    assert!(scheduler.is_draining());
    assert!((10 * second()..20 * second()).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let task = store.task(stuck.id()).await.unwrap();
    assert_eq!((task.record.state, task.record.interruptions), (State::Waiting, 1));
    assert_eq!(task.record.failure().unwrap().kind, FailureKind::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_scheduler_is_rescued_by_another() {
    let functions = || {
        FunctionExecutor::new().register("once", |context: Context, (): ()| async move {
            if context.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(context.attempt())
        })
    };
    let clock = Arc::new(TestClock::new(3));
    let store = store(&clock);
    let start =
        || Scheduler::builder(store.clone()).functions(functions()).config(config()).clock(clock.clone()).start();
    let first = start().await.unwrap();
    let mut events = first.subscribe();
    let id = first.submit(NewTask::new("once", &()).unwrap()).await.unwrap().id().clone();
    events.next().await;
    let second = start().await.unwrap();
    let begun = tokio::time::Instant::now();
    drop(first);
    let handle = second.handle(&id);
    assert_eq!(handle.result::<u32>().await.unwrap(), 2);
    assert!(begun.elapsed() <= Duration::from_secs(27), "{:?}", begun.elapsed());
    let task = store.task(&id).await.unwrap();
    assert_eq!((task.record.attempt, task.record.interruptions), (2, 1));
}

/// Counts when it goes away.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn functions_die_with_their_scheduler_also_while_a_handle_lives() {
    let gone = Arc::new(AtomicUsize::new(0));
    let counted = gone.clone();
    let functions = FunctionExecutor::new().register("for-ever", move |_: Context, (): ()| {
        let guard = Gone(counted.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let scheduler = scheduler(functions, config()).await;
    let mut events = scheduler.subscribe();
    let handle = scheduler.submit(NewTask::new("for-ever", &()).unwrap()).await.unwrap();
    events.next().await;
    tokio::time::sleep(second()).await;
    assert_eq!(gone.load(SeqCst), 0, "it runs");
    drop(scheduler);
    tokio::time::sleep(second()).await;
    assert_eq!(gone.load(SeqCst), 1, "it was dropped, though {} lives", handle.id());
}
