//! An engine that is killed and comes back, with and without `live-restore`.

use light_task_scheduler::executor::docker::{Bind, DockerExecutor, DockerPolicy, DockerSpec, Volume};
use light_task_scheduler::executor::{Executor, Recovered, Status};
use light_task_scheduler::{FailureKind, Handle, Outcome};

use super::support::{OwnEngine, Reports, config, failure, fresh_namespace, reporter, run_in, sh, start, until};

/// The exit code of each container, if its engine leaves it alone.
const CODES: [i32; 4] = [3, 4, 5, 6];
/// What each does: one ends before the engine is killed, one while it is away, and two after; the last one answers the
/// engine's signal with success.
const SCRIPTS: [&str; 4] = [
    "exit 3",
    "echo up; until [ -e /gate/away ]; do sleep 0.05; done; exit 4",
    "echo up; until [ -e /gate/after ]; do sleep 0.05; done; exit 5",
    "trap 'exit 0' TERM; echo up; until [ -e /gate/after ]; do sleep 0.05; done; exit 6",
];

struct Begun {
    /// Where containers look for their turn to end.
    gate: tempfile::TempDir,
    executor: DockerExecutor,
    runs: Vec<(light_task_scheduler::executor::Run, Handle, Reports)>,
    /// The process of the one that ends while the engine is away.
    second: i64,
}

impl Begun {
    fn open(&self, name: &str) {
        std::fs::write(self.gate.path().join(name), "").unwrap();
    }
}

fn open(engine: &OwnEngine) -> DockerExecutor {
    let root = DockerPolicy { binds: vec![Bind { path: "/".into(), writable: false }], ..DockerPolicy::default() };
    DockerExecutor::new(config(vec![engine.config.clone()], root)).unwrap()
}

async fn begin(engine: &OwnEngine) -> Begun {
    let gate = tempfile::tempdir().unwrap();
    let source = gate.path().canonicalize().unwrap().to_str().unwrap().to_owned();
    let executor = open(engine);
    let namespace = fresh_namespace();
    let mut runs = Vec::new();
    for (number, script) in SCRIPTS.iter().enumerate() {
        let volumes = vec![Volume { source: source.clone(), target: "/gate".into(), writable: false }];
        let run = run_in(&namespace, &number.to_string(), 1, &DockerSpec { volumes, ..sh(script) });
        let (handle, reports) = start(&executor, &run).await;
        runs.push((run, handle, reports));
    }
    assert_eq!(failure(runs[0].2.ended().await).exit_code, Some(CODES[0]));
    let docker = engine.docker();
    let mut second = 0;
    for (at, (_, handle, _)) in runs.iter().enumerate().skip(1) {
        let id: serde_json::Value = serde_json::from_str(handle.as_str()).unwrap();
        let id = id["container"].as_str().unwrap().to_owned();
        until("it is up", async || super::logs::printed(&docker, &id).await.contains("up")).await;
        if at == 1 {
            second = docker.inspect_container(&id, None).await.unwrap().state.unwrap().pid.unwrap();
        }
    }
    Begun { gate, executor, runs, second }
}

/// Kills the engine, and lets the second container end while it is away.
async fn kill(engine: &OwnEngine, begun: &Begun) {
    engine.kill();
    unreachable_while_it_is_away(begun).await;
    begun.open("away");
    let process = std::path::PathBuf::from(format!("/proc/{}", begun.second));
    until("the second one ends", async || !process.exists()).await;
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
    kill(&engine, &begun).await;
    engine.start_again();
    begun.open("after");
    for (at, code) in CODES.into_iter().enumerate().skip(1) {
        let end = failure(begun.runs[at].2.ended().await);
        assert_eq!((end.exit_code, end.kind), (Some(code), FailureKind::Error), "{at}: {end:?}");
    }
    for (at, code) in CODES.into_iter().enumerate() {
        assert_eq!(failure(recovered_end(&engine, &begun, at).await).exit_code, Some(code), "{at}");
    }
}

#[tokio::test]
async fn without_live_restore_what_the_engine_killed_is_lost_and_the_rest_is_not() {
    let engine = OwnEngine::start(false);
    let mut begun = begin(&engine).await;
    kill(&engine, &begun).await;
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
    for (at, code) in CODES.into_iter().enumerate().take(2) {
        assert_eq!(failure(recovered_end(&engine, &begun, at).await).exit_code, Some(code), "{at}");
    }
}
