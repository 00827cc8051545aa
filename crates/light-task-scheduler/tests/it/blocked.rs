//! What takes long among quick tasks, a handler that blocks its thread or a start that waits, delays nobody else.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::executor::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use light_task_scheduler::*;
use tokio::sync::Notify;

/// How long the handler blocks if nobody ends it. The runtime under test takes no part in measuring it.
const BLOCKED_AT_MOST: Duration = Duration::from_secs(20);
/// Enough starts to earn a kind the batches of quick ones, even if the machine is busy in between.
const WARM_UP: usize = 5_000;
const TASKS: usize = 200;

/// Returns at once for `false`; for `true` it blocks until told, and notes if nobody told it.
fn functions(end: Receiver<()>, forgotten: Arc<AtomicBool>) -> FunctionExecutor {
    let end = Mutex::new(end);
    FunctionExecutor::new().register("maybe", move |_: Context, blocks: bool| {
        if blocks && end.lock().unwrap().recv_timeout(BLOCKED_AT_MOST).is_err() {
            forgotten.store(true, SeqCst);
        }
        async { Ok(()) }
    })
}

fn tasks(count: usize, blocking: Option<usize>) -> Vec<NewTask> {
    (0..count).map(|number| NewTask::new("maybe", &(Some(number) == blocking)).unwrap()).collect()
}

async fn all_end(tasks: impl IntoIterator<Item = TaskHandle>) {
    for task in tasks {
        assert_eq!(task.wait().await.unwrap().record.state, State::Succeeded);
    }
}

async fn one_blocks(concurrency: usize, position: usize) {
    let (tell, end) = mpsc::channel();
    let forgotten = Arc::new(AtomicBool::new(false));
    let config = Config { concurrency, ..Config::default() };
    let functions = functions(end, forgotten.clone());
    let builder = Scheduler::builder(MemoryStore::fifo()).functions(functions).config(config);
    let (_scheduler, blocked) = others_end(builder, position).await;
    assert!(!forgotten.load(SeqCst), "the others ended only after the blocked one");
    tell.send(()).unwrap();
    all_end([blocked]).await;
}

/// Makes the kind a quick one, then sees all tasks end but the one that takes long, and answers that one.
async fn others_end(builder: scheduler::Builder, position: usize) -> (Scheduler, TaskHandle) {
    let scheduler = builder.start().await.unwrap();
    all_end(scheduler.submit_many(tasks(WARM_UP, None)).await.unwrap().into_iter().map(Result::unwrap)).await;
    let submitted = scheduler.submit_many(tasks(TASKS, Some(position))).await.unwrap();
    let mut submitted: Vec<_> = submitted.into_iter().map(Result::unwrap).collect();
    let long = submitted.remove(position);
    all_end(submitted).await;
    (scheduler, long)
}

/// Ends at once for `false`; for `true` its start waits until it is opened.
#[derive(Debug, Default)]
struct Gate(Notify);

#[async_trait]
impl Executor for Gate {
    fn adoptable(&self) -> bool {
        false
    }

    async fn prepare(&self, _task: &NewTask) -> Result<()> {
        Ok(())
    }

    async fn start(&self, run: Run, _reporter: Reporter) -> Result<Started, StartError> {
        if run.task.spec.payload.parse().unwrap() {
            self.0.notified().await;
        }
        Ok(Started::Ended(Outcome::Succeeded(Some(Payload::null()))))
    }

    async fn recover(&self, _run: Run, _handle: Option<Handle>, _reporter: Reporter) -> Recovered {
        Recovered::Gone("nothing outlives its process".to_owned())
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        handles.iter().map(|_| Status::Lost("nothing runs".to_owned())).collect()
    }

    async fn output(&self, _handle: &Handle) -> Result<Payload> {
        Ok(Payload::null())
    }

    async fn stop(&self, _handle: &Handle, _grace: Duration) -> Stopped {
        Stopped::Confirmed(None)
    }

    async fn release(&self, _handle: &Handle) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_start_waits_delays_nobody() {
    let gate = Arc::new(Gate::default());
    let config = Config { concurrency: TASKS * 2, ..Config::default() };
    let builder = Scheduler::builder(MemoryStore::fifo()).executor("maybe", gate.clone()).config(config);
    let (scheduler, waiting) = others_end(builder, TASKS / 2).await;
    assert_eq!(scheduler.get(waiting.id()).await.unwrap().record.state, State::Running);
    gate.0.notify_one();
    all_end([waiting]).await;
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_many_quick_ones_blocks() {
    one_blocks(TASKS * 2, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_the_middle_blocks() {
    one_blocks(TASKS * 2, TASKS / 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_blocks_and_more_wait_than_slots_are_there() {
    one_blocks(TASKS / 2, TASKS / 4).await;
}
