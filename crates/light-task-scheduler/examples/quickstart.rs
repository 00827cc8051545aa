//! The shortest program: a store in memory, a function, a task.
#![allow(clippy::print_stdout, reason = "an example shows its result")]
use light_task_scheduler::{Context, FunctionExecutor, MemoryStore, NewTask, Result, Scheduler, Shutdown};

#[tokio::main]
async fn main() -> Result<()> {
    let functions = FunctionExecutor::new().register("add", |_: Context, (a, b): (i64, i64)| async move { Ok(a + b) });
    let scheduler = Scheduler::builder(MemoryStore::fifo()).functions(functions).start().await?;

    let task = scheduler.submit(NewTask::new("add", &(1, 2))?).await?;
    println!("1 + 2 = {}", task.result::<i64>().await?);

    scheduler.shutdown(Shutdown::default()).await
}
