//! Starts that hang, wishes and settings that come late: the scheduler over the memory store, in paused time.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::executor::{Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use light_task_scheduler::testing::{Call, Fault, FaultScript, FaultyStore};
use light_task_scheduler::*;
use tokio::sync::Notify;

/// How often a stop cannot be confirmed before it is.
const UNCONFIRMED: u32 = 2;

/// Starts that never answer, though something has begun.
#[derive(Debug, Default)]
struct Hangs {
    /// The executions that have begun, as their handles.
    begun: Mutex<Vec<Handle>>,
    stops: AtomicU32,
    released: AtomicU32,
    /// Told at every start.
    started: Notify,
}

#[async_trait]
impl Executor for Hangs {
    fn adoptable(&self) -> bool {
        true
    }

    async fn prepare(&self, _task: &NewTask) -> Result<()> {
        Ok(())
    }

    async fn start(&self, run: Run, _reporter: Reporter) -> Result<Started, StartError> {
        self.begun.lock().unwrap().push(Handle::new(&run.execution_name()).unwrap());
        self.started.notify_one();
        std::future::pending().await
    }

    async fn recover(&self, run: Run, handle: Option<Handle>, _reporter: Reporter) -> Recovered {
        assert_eq!(handle, None, "no start has answered");
        let handle = Handle::new(&run.execution_name()).unwrap();
        assert!(self.begun.lock().unwrap().contains(&handle));
        Recovered::Attached(handle)
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        handles.iter().map(|_| Status::Running(None)).collect()
    }

    async fn output(&self, _handle: &Handle) -> Result<Payload> {
        Err(Error::new(ErrorKind::NotFound, "it has none"))
    }

    async fn stop(&self, _handle: &Handle, _grace: Duration) -> Stopped {
        if self.stops.fetch_add(1, SeqCst) < UNCONFIRMED {
            return Stopped::Unconfirmed("it is deaf".to_owned());
        }
        Stopped::Confirmed(None)
    }

    async fn release(&self, _handle: &Handle) {
        self.released.fetch_add(1, SeqCst);
    }
}

fn config() -> Config {
    Config { heartbeat_thread: false, concurrency: 1, ..Config::default() }
}

/// A scheduler with one slot, whose kind `hangs` hangs, and whose kind `next` waits for the slot.
async fn hanging() -> (Scheduler, Arc<Hangs>) {
    let hangs = Arc::new(Hangs::default());
    let next = FunctionExecutor::new().register("next", |_: Context, (): ()| async { Ok(()) });
    let builder = Scheduler::builder(MemoryStore::fifo()).executor("hangs", hangs.clone()).functions(next);
    (builder.config(config()).start().await.unwrap(), hangs)
}

fn new_task(kind: &str) -> NewTask {
    NewTask::new(kind, &()).unwrap().retry(RetryPolicy::attempts(1))
}

/// Waits until the stop was tried in vain, and checks that the slot is still taken; then until the next task has it.
async fn is_stopped_before_the_slot_is_free(scheduler: &Scheduler, hangs: &Hangs, hung: &TaskHandle) -> Task {
    let next = scheduler.submit(new_task("next")).await.unwrap();
    loop {
        let task = scheduler.get(hung.id()).await.unwrap();
        let waits = scheduler.get(next.id()).await.unwrap().record.state == State::Waiting;
        if task.record.state != State::Running {
            break;
        }
        assert!(waits, "the slot is taken until the stop is confirmed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(hangs.stops.load(SeqCst), UNCONFIRMED + 1);
    assert_eq!(next.wait().await.unwrap().record.state, State::Succeeded);
    assert_eq!(hangs.released.load(SeqCst), 1);
    hung.wait().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_ends_with_its_timeout() {
    let (scheduler, hangs) = hanging().await;
    let hung = scheduler.submit(new_task("hangs").timeout(Duration::from_secs(5))).await.unwrap();
    hangs.started.notified().await;
    let task = is_stopped_before_the_slot_is_free(&scheduler, &hangs, &hung).await;
    assert_eq!(task.record.failure().unwrap().kind, FailureKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_cancelled() {
    let (scheduler, hangs) = hanging().await;
    let hung = scheduler.submit(new_task("hangs")).await.unwrap();
    hangs.started.notified().await;
    scheduler.cancel(hung.id()).await.unwrap();
    let task = is_stopped_before_the_slot_is_free(&scheduler, &hangs, &hung).await;
    assert_eq!(task.record.state, State::Cancelled);
}

/// The answer to a heartbeat is late: meanwhile the run that was to be cancelled has ended, and another one began.
#[tokio::test(start_paused = true)]
async fn a_late_wish_does_not_hit_a_later_run() {
    let script = Arc::new(FaultScript::default());
    let memory = MemoryStore::fifo();
    let store = FaultyStore::new(memory.clone(), script.clone());
    let (calls, end_first) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (counted, ended) = (calls.clone(), end_first.clone());
    let functions = FunctionExecutor::new().register("k", move |context: Context, (): ()| {
        let (call, ended) = (counted.fetch_add(1, SeqCst) + 1, ended.clone());
        async move {
            if call == 1 {
                ended.notified().await;
            } else {
                tokio::select! {
                    () = context.cancelled() => return Err(TaskError::fatal("the wish was not for this run")),
                    () = tokio::time::sleep(Duration::from_secs(30)) => {}
                }
            }
            Ok(call)
        }
    });
    let scheduler = Scheduler::builder(store).functions(functions).config(config()).start().await.unwrap();
    let mut events = scheduler.subscribe();
    let task = scheduler.submit(new_task("k")).await.unwrap();
    events.next().await;
    script.add(Call::Heartbeat, Fault::DelayAfter(Duration::from_secs(3)));
    // Not through the scheduler: as another process does it.
    memory.order(task.id(), Command::Cancel).await.unwrap();
    // The heartbeat that the wish has brought about is on its way back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    end_first.notify_one();
    assert_eq!(task.wait().await.unwrap().record.state, State::Cancelled);
    memory.order(task.id(), Command::Requeue).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.load(SeqCst), 2, "the second run runs before the answer comes");
    let ended = task.wait().await.unwrap();
    assert_eq!(ended.record.state, State::Succeeded, "{:?}", ended.record);
    assert_eq!(calls.load(SeqCst), 2, "the second run was not stopped and tried again");
}

#[tokio::test(start_paused = true)]
async fn a_start_leaves_a_queue_paused_or_not() {
    let store = MemoryStore::fifo();
    let (paused, open) = (Name::new("paused").unwrap(), Name::new("open").unwrap());
    store.set_paused(&paused, true).await.unwrap();
    let settings = QueueSettings { concurrency: Some(3), ..QueueSettings::default() };
    let config = Config { queue_settings: vec![(paused.clone(), settings), (open.clone(), settings)], ..config() };
    let _scheduler = Scheduler::builder(store.clone()).config(config).start().await.unwrap();
    assert_eq!(store.queue(&paused).await.unwrap(), QueueSettings { paused: true, ..settings });
    assert_eq!(store.queue(&open).await.unwrap(), settings);
}
