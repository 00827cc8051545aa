//! What the tests of the process executor share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::process::{CommandResult, CommandSpec, ProcessConfig, ProcessExecutor};
use light_task_scheduler::executor::{Executor, Reporter, Run, StartError, Started};
use light_task_scheduler::store::Said;
use light_task_scheduler::{Failure, Handle, Name, NewTask, Outcome, Payload, Record, Spec, Task, TaskId, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Long past anything that a test waits for: only a failing test gets here.
pub const LIMIT: Duration = Duration::from_secs(30);

pub fn config(dir: &Path) -> ProcessConfig {
    let supervisor = Some(PathBuf::from(env!("CARGO_BIN_EXE_lts-supervisor")));
    ProcessConfig { supervisor, ..ProcessConfig::new(dir) }
}

pub fn executor(dir: &Path) -> ProcessExecutor {
    ProcessExecutor::new(config(dir)).unwrap()
}

pub fn run_of(id: &str, execution: u64, spec: &CommandSpec) -> Run {
    let new = NewTask::new("process", spec).unwrap();
    let spec = Spec {
        queue: new.queue,
        kind: new.kind,
        payload: new.payload,
        priority: 0,
        created_at: Timestamp::default(),
        options: None,
    };
    let record = Record { run: execution, execution, attempt: 1, ..Record::default() };
    Run { namespace: Name::new("test").unwrap(), task: Arc::new(Task { id: TaskId::new(id).unwrap(), spec, record }) }
}

pub fn sh(script: &str) -> CommandSpec {
    CommandSpec::new(["sh", "-c", script])
}

/// What a run pushes.
pub struct Reports(UnboundedReceiver<Said>);

impl Reports {
    pub async fn ended(&mut self) -> Outcome {
        tokio::time::timeout(LIMIT, async {
            loop {
                if let Said::Ended(outcome) = self.0.recv().await.expect("an end") {
                    return outcome;
                }
            }
        })
        .await
        .expect("the run ends")
    }
}

pub fn reporter(run: &Run) -> (Reporter, Reports) {
    let (push, reports) = unbounded_channel();
    let push = Arc::new(move |report: light_task_scheduler::store::Report| {
        let _ = push.send(report.said);
    });
    (Reporter::new(run.task.id.clone(), run.task.record.execution, push), Reports(reports))
}

/// Starts a command that must start.
pub async fn start(executor: &ProcessExecutor, run: &Run) -> (Handle, Reports) {
    let (reporter, reports) = reporter(run);
    match executor.start(run.clone(), reporter).await.expect("it starts") {
        Started::Running(handle) => (handle, reports),
        Started::Ended(outcome) => panic!("it ended at once: {outcome:?}"),
    }
}

/// Runs a command to its end.
pub async fn end_of(executor: &ProcessExecutor, spec: &CommandSpec) -> Outcome {
    let run = run_of("task", 1, spec);
    let (handle, mut reports) = start(executor, &run).await;
    let outcome = reports.ended().await;
    executor.release(&handle).await;
    outcome
}

pub async fn refusal(executor: &ProcessExecutor, spec: &CommandSpec) -> Failure {
    let run = run_of("task", 1, spec);
    match executor.start(run.clone(), reporter(&run).0).await {
        Err(StartError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn result(outcome: &Outcome) -> CommandResult {
    match outcome {
        Outcome::Succeeded(Some(payload)) => Payload::parse(payload).unwrap(),
        other => panic!("no success: {other:?}"),
    }
}

pub fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Succeeded(_) => panic!("it succeeded"),
    }
}
