//! Containers that no task owns are stopped and removed, and no others.

use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::Executor;
use light_task_scheduler::executor::docker::{DockerConfig, DockerExecutor, DockerPolicy};
use light_task_scheduler::store::{ClaimRequest, NewReplica};
use light_task_scheduler::{MemoryStore, Name, NewTask, ReplicaId, Store, SystemClock, Task};

use super::support::{config, containers, docker, executor, fresh_namespace, run_in, spec, start, until};
use crate::servers;

/// A task that a replica has claimed.
async fn claimed(store: &MemoryStore) -> Task {
    let kind = Name::new("docker").unwrap();
    store.insert(vec![NewTask::new("docker", &spec(["sleep", "1000"])).unwrap()]).await.unwrap();
    let replica = ReplicaId::generate(&SystemClock);
    let ttl = Duration::from_secs(3_600);
    store.register(NewReplica { id: replica, name: "replica".to_owned(), ttl, remote: false }).await.unwrap();
    let claim = ClaimRequest { replica, number: 1, kinds: vec![kind], queues: vec![], limit: 1, among: None };
    store.claim(claim).await.unwrap().tasks.remove(0)
}

#[tokio::test]
async fn what_nobody_owns_is_removed_and_nothing_else() {
    let namespace = fresh_namespace();
    let store = Arc::new(MemoryStore::fifo());
    let task = claimed(&store).await;
    let (id, execution) = (task.id.to_string(), task.record.execution);
    let starter = executor();
    let sleep = spec(["sleep", "1000"]);
    let mut handles = Vec::new();
    // The owned one; one of an execution that was given up; one of a task that is gone; one of another namespace.
    for (namespace, id, execution) in [
        (&namespace, id.as_str(), execution),
        (&namespace, id.as_str(), execution + 1),
        (&namespace, "gone", 1),
        (&fresh_namespace(), "gone", 1),
    ] {
        handles.push(start(&starter, &run_in(namespace, id, execution, &sleep)).await.0);
    }
    let settings = config(vec![servers::docker_engine()], DockerPolicy::default());
    let settings = DockerConfig { reap_interval: Duration::from_millis(300), ..settings };
    let reaper = DockerExecutor::new(settings).unwrap().reaping(&namespace, store.clone());
    until("two are removed", async || containers(&docker(), &namespace).await.len() == 1).await;
    let owned: serde_json::Value = serde_json::from_str(handles[0].as_str()).unwrap();
    assert_eq!(containers(&docker(), &namespace).await, [owned["container"].as_str().unwrap()]);
    assert!(matches!(starter.status(&handles[3..]).await[..], [light_task_scheduler::executor::Status::Running(_)]));
    drop(reaper);
    for handle in &handles {
        starter.stop(handle, Duration::ZERO).await;
        starter.release(handle).await;
    }
}
