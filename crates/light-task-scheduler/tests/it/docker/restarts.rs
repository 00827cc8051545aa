//! An engine that is killed and comes back, with and without `live-restore`.

use light_task_scheduler::executor::docker::{DockerExecutor, DockerPolicy};
use light_task_scheduler::executor::{Executor, Recovered, Status};
use light_task_scheduler::{FailureKind, Handle, Outcome};

use super::support::{OwnEngine, Reports, config, failure, fresh_namespace, reporter, run_in, sh, start, until};

/// What one container does, and how it ends if its engine leaves it alone.
const CONTAINERS: [(&str, Option<i32>); 4] = [
    // Ends before the engine is killed, while it is away, and after.
    ("exit 3", Some(3)),
    ("echo up; sleep 3; exit 4", Some(4)),
    ("echo up; sleep 12; exit 5", Some(5)),
    // Answers the engine's signal with success.
    ("trap 'exit 0' TERM; echo up; i=0; while [ $i -lt 120 ]; do sleep 0.1; i=$((i+1)); done; exit 6", Some(6)),
];

struct Begun {
    executor: DockerExecutor,
    runs: Vec<(light_task_scheduler::executor::Run, Handle, Reports)>,
}

fn open(engine: &OwnEngine) -> DockerExecutor {
    DockerExecutor::new(config(vec![engine.config.clone()], DockerPolicy::default())).unwrap()
}

async fn begin(engine: &OwnEngine) -> Begun {
    let executor = open(engine);
    let namespace = fresh_namespace();
    let mut runs = Vec::new();
    for (number, (script, _)) in CONTAINERS.iter().enumerate() {
        let run = run_in(&namespace, &number.to_string(), 1, &sh(script));
        let (handle, reports) = start(&executor, &run).await;
        runs.push((run, handle, reports));
    }
    assert_eq!(failure(runs[0].2.ended().await).exit_code, Some(3));
    let docker = engine.docker();
    for (_, handle, _) in &runs[1..] {
        let id: serde_json::Value = serde_json::from_str(handle.as_str()).unwrap();
        let id = id["container"].as_str().unwrap().to_owned();
        until("it is up", async || super::logs::printed(&docker, &id).await.contains("up")).await;
    }
    Begun { executor, runs }
}

/// Another replica, which has seen nothing of all this, comes to the same end.
async fn recovered_end(engine: &OwnEngine, begun: &Begun, at: usize) -> Outcome {
    let other = open(engine);
    let (run, handle, _) = &begun.runs[at];
    let (reporter, mut reports) = reporter();
    let recovered = other.recover(run.clone(), Some(handle.clone()), reporter).await;
    assert!(matches!(recovered, Recovered::Attached(_)), "{recovered:?}");
    reports.ended().await
}

async fn unreachable_while_it_is_away(begun: &Begun) {
    let handles: Vec<Handle> = begun.runs.iter().map(|(_, handle, _)| handle.clone()).collect();
    let statuses = begun.executor.status(&handles).await;
    assert!(statuses.iter().all(|status| matches!(status, Status::Unreachable(_))), "{statuses:?}");
}

#[tokio::test]
async fn with_live_restore_nothing_notices() {
    let engine = OwnEngine::start(true);
    let mut begun = begin(&engine).await;
    engine.kill();
    unreachable_while_it_is_away(&begun).await;
    // Longer than the second one runs: it ends while nobody is there to see.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    engine.start_again();
    for (at, (_, expected)) in CONTAINERS.iter().enumerate().skip(1) {
        let end = failure(begun.runs[at].2.ended().await);
        assert_eq!((end.exit_code, end.kind), (*expected, FailureKind::Error), "{at}: {end:?}");
        assert_eq!(failure(recovered_end(&engine, &begun, at).await).exit_code, *expected, "{at}");
    }
    assert_eq!(failure(recovered_end(&engine, &begun, 0).await).exit_code, Some(3));
}

#[tokio::test]
async fn without_live_restore_what_the_engine_killed_is_lost_and_the_rest_is_not() {
    let engine = OwnEngine::start(false);
    let mut begun = begin(&engine).await;
    engine.kill();
    unreachable_while_it_is_away(&begun).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    engine.start_again();
    let second = failure(begun.runs[1].2.ended().await);
    assert_eq!((second.exit_code, second.kind), (Some(4), FailureKind::Error), "it ended by itself: {second:?}");
    for at in [2, 3] {
        let lost = failure(begun.runs[at].2.ended().await);
        assert_eq!(lost.kind, FailureKind::Lost, "{at}: {lost:?}");
        assert!(lost.message.contains("the engine was restarted"), "{lost:?}");
        assert_eq!(failure(recovered_end(&engine, &begun, at).await).kind, FailureKind::Lost, "{at}");
        let handle = begun.runs[at].1.clone();
        assert!(matches!(begun.executor.status(&[handle]).await[..], [Status::Lost(_)]), "{at}");
    }
    for (at, expected) in [(0, Some(3)), (1, Some(4))] {
        assert_eq!(failure(recovered_end(&engine, &begun, at).await).exit_code, expected, "{at}");
    }
}
