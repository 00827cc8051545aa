//! Fifteen lines: a function, a queue in memory, a result.
use light_task_scheduler::{Context, FunctionExecutor, MemoryStore, NewTask, Scheduler, TaskError};

async fn add(_: Context, (a, b): (i64, i64)) -> Result<i64, TaskError> {
    Ok(a + b)
}

#[tokio::main]
async fn main() -> Result<(), light_task_scheduler::Error> {
    let functions = FunctionExecutor::new().register("add", add);
    let scheduler = Scheduler::builder(MemoryStore::fifo()).functions(functions).start().await?;
    let task = scheduler.submit(NewTask::new("add", &(1, 2))?).await?;
    println!("1 + 2 = {}", task.result::<i64>().await?);
    scheduler.shutdown(Default::default()).await
}
