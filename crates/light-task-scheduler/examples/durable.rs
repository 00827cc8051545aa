//! Twenty-five lines: tasks on SQLite that survive `kill -9`. Kill it while it counts, and start it again.
use std::time::Duration;

use light_task_scheduler::{Context, FunctionExecutor, NewTask, RetryPolicy, Scheduler, SqliteStore, TaskError};

async fn count(context: Context, to: u64) -> Result<u64, TaskError> {
    for done in 1..=to {
        tokio::time::sleep(Duration::from_millis(20)).await;
        context.progress(done, to, "counting");
    }
    Ok(to)
}

#[tokio::main]
async fn main() -> Result<(), light_task_scheduler::Error> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "counts.db".to_owned());
    let functions = FunctionExecutor::new().register("count", count);
    let scheduler = Scheduler::builder(SqliteStore::open(file)?).functions(functions).start().await?;
    // The same id again is the same task: a second start of this program finds it, done or not.
    let task = NewTask::new("count", &50)?.id("count-to-50")?.retry(RetryPolicy::attempts(3));
    let task = scheduler.submit(task).await?.wait().await?;
    println!("{} {} after {} attempt(s)", task.id, task.record.state, task.record.attempt);
    scheduler.shutdown(Default::default()).await
}
