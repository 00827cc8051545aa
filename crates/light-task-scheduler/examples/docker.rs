//! Containers with bounds, a timeout and retries, at most two at once. Needs a Docker engine: the one that
//! `DOCKER_HOST` names, else the local one. `cargo run --features docker --example docker [IMAGE]`
#![allow(clippy::print_stdout, reason = "an example shows its result")]
use light_task_scheduler::executor::docker::{ContainerResult, DockerConfig, DockerSpec};
use light_task_scheduler::{
    Config, DockerExecutor, MemoryStore, Name, NewTask, QueueSettings, Result, RetryPolicy, Scheduler, Shutdown,
};
use std::{sync::Arc, time::Duration};

#[tokio::main]
async fn main() -> Result<()> {
    let image = std::env::args().nth(1).unwrap_or_else(|| "busybox:1".to_owned());
    let executor = DockerExecutor::new(DockerConfig::default())?;
    // Without this a task would wait until there is an engine.
    executor.reach().await?;
    let limit = QueueSettings { concurrency: Some(2), ..QueueSettings::default() };
    let config = Config { queue_settings: vec![(Name::new("default")?, limit)], ..Config::default() };
    let scheduler =
        Scheduler::builder(MemoryStore::fifo()).executor("docker", Arc::new(executor)).config(config).start().await?;

    let mut sums = Vec::new();
    for n in 1..=4 {
        let script = format!("echo $(({n} + {n}))");
        let sum = DockerSpec { memory_bytes: Some(64 << 20), ..DockerSpec::new(&image, ["sh", "-c", &script]) };
        let task = NewTask::new("docker", &sum)?.timeout(Duration::from_secs(60)).retry(RetryPolicy::attempts(3));
        sums.push(scheduler.submit(task).await?);
    }
    // As the first process of a container, `sleep` would not hear that it is to stop.
    let slow = DockerSpec { init: true, ..DockerSpec::new(&image, ["sleep", "1000"]) };
    let slow = NewTask::new("docker", &slow)?.timeout(Duration::from_secs(1)).retry(RetryPolicy::attempts(2));
    let slow = scheduler.submit(slow).await?;

    for (n, sum) in (1..).zip(&sums) {
        println!("{n} + {n} = {}", sum.result::<ContainerResult>().await?.stdout.trim());
    }
    let ended = slow.wait().await?.record;
    println!("the slow one: {} after {} attempts", ended.state, ended.attempt);
    scheduler.shutdown(Shutdown::default()).await
}
