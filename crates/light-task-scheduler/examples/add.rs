//! The original's first example: a + b, where a quarter of the calls fail and a quarter take too long.
//! Two at a time, one second each, three retries; with polling, with callbacks, and with both.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::time::Duration;

use light_task_scheduler::{
    Config, Context, Error, FunctionExecutor, MemoryStore, NewTask, RetryPolicy, Scheduler, Shutdown, State, TaskError,
    Tracking,
};

/// How many sums.
const TASKS: i64 = 20;
/// How many at a time.
const LIMIT: usize = 2;
/// How long one attempt may take, and how much longer an overrun takes.
const TIMEOUT: Duration = Duration::from_millis(200);
const OVERRUN: Duration = Duration::from_secs(60);
/// The first attempt and three retries.
const ATTEMPTS: u32 = 4;

async fn add(context: Context, (a, b): (i64, i64)) -> Result<i64, TaskError> {
    // Which call goes wrong depends on the sum and the attempt only, so that every run prints the same.
    match (a * 7 + i64::from(context.attempt()) * 3) % 4 {
        0 => return Err(TaskError::new("no luck this time")),
        1 => tokio::time::sleep(OVERRUN).await,
        _ => {}
    }
    context.progress(1, 1, "added");
    Ok(a + b)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let interval = Duration::from_millis(20);
    for tracking in [Tracking::Poll(interval), Tracking::Push, Tracking::Both(interval)] {
        let functions = FunctionExecutor::new().register("add", add);
        let config = Config { concurrency: LIMIT, tracking, stop_grace: Duration::ZERO, ..Config::default() };
        let scheduler = Scheduler::builder(MemoryStore::fifo()).functions(functions).config(config).start().await?;

        let retry = RetryPolicy { min_delay: Duration::from_millis(10), ..RetryPolicy::attempts(ATTEMPTS) };
        let task = |n| Ok(NewTask::new("add", &(n, n + 1))?.timeout(TIMEOUT).retry(retry));
        let handles = scheduler.submit_many((0..TASKS).map(task).collect::<Result<_, Error>>()?).await?;

        let (mut succeeded, mut attempts) = (0, 0);
        for (n, handle) in handles.into_iter().enumerate() {
            let handle = handle?;
            let record = handle.wait().await?.record;
            attempts += record.attempt;
            if record.state == State::Succeeded {
                succeeded += 1;
                assert_eq!(handle.result::<i64>().await?, 2 * i64::try_from(n).unwrap_or_default() + 1);
            }
        }
        println!("{tracking:?}: {succeeded} of {TASKS} sums after {attempts} attempts");
        scheduler.shutdown(Shutdown::default()).await?;
    }
    Ok(())
}
