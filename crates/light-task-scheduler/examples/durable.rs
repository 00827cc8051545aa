//! Tasks that survive a kill: start it, kill it, start it again.
#![allow(clippy::print_stdout, reason = "an example shows its result")]
use light_task_scheduler::{Context, FunctionExecutor, NewTask, Result, RetryPolicy, Scheduler, Shutdown, SqliteStore};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<()> {
    let functions = FunctionExecutor::new().register("square", |_: Context, n: u64| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(n * n)
    });
    let file = std::env::args().nth(1).unwrap_or_else(|| "durable.db".to_owned());
    let scheduler = Scheduler::builder(SqliteStore::open(file)?).functions(functions).start().await?;

    let mut tasks = Vec::new();
    for n in 0..100_u64 {
        // Killed and started again, this finds the tasks that are there by their ids.
        let task = NewTask::new("square", &n)?.id(&format!("square-{n}"))?.retry(RetryPolicy::attempts(3));
        tasks.push(scheduler.submit(task).await?);
    }
    for task in &tasks {
        println!("{} = {}", task.id(), task.result::<u64>().await?);
    }
    scheduler.shutdown(Shutdown::default()).await
}
