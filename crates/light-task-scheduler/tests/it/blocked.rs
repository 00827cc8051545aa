//! A handler that blocks its thread, against the rules for async functions, delays nobody else.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use light_task_scheduler::*;

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
    let scheduler = Scheduler::builder(MemoryStore::fifo()).functions(functions).config(config).start().await.unwrap();
    all_end(scheduler.submit_many(tasks(WARM_UP, None)).await.unwrap().into_iter().map(Result::unwrap)).await;

    let submitted = scheduler.submit_many(tasks(TASKS, Some(position))).await.unwrap();
    let mut submitted: Vec<_> = submitted.into_iter().map(Result::unwrap).collect();
    let blocked = submitted.remove(position);
    all_end(submitted).await;
    assert!(!forgotten.load(SeqCst), "the others ended only after the blocked one");
    tell.send(()).unwrap();
    all_end([blocked]).await;
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
