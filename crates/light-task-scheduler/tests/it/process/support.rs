//! What the tests of the process executor share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::process::{CommandResult, CommandSpec, ProcessConfig, ProcessExecutor};
use light_task_scheduler::executor::{Executor, Reporter, Run, StartError, Started};
use light_task_scheduler::store::Said;
use light_task_scheduler::{Failure, Handle, Name, NewTask, Outcome, Payload, Record, Spec, Task, TaskId, Timestamp};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Long past anything that a test waits for: only a failing test gets here.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn config(dir: &Path) -> ProcessConfig {
    let supervisor = Some(PathBuf::from(env!("CARGO_BIN_EXE_lts-supervisor")));
    ProcessConfig { supervisor, ..ProcessConfig::new(dir) }
}

pub(super) fn executor(dir: &Path) -> ProcessExecutor {
    ProcessExecutor::new(config(dir)).unwrap()
}

/// Sets this test apart from those that run at the same time: processes are found by it.
pub(super) fn namespace() -> Name {
    let thread = std::thread::current();
    Name::new(&format!("{}-{}", std::process::id(), thread.name().unwrap_or("test"))).unwrap()
}

pub(super) fn run_of(id: &str, execution: u64, spec: &CommandSpec) -> Run {
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
    let task = Arc::new(Task { id: TaskId::new(id).unwrap(), spec, record });
    Run { namespace: namespace(), task, claimed_here: false }
}

pub(super) fn sh(script: &str) -> CommandSpec {
    CommandSpec::new(["sh", "-c", script])
}

/// A pipe with a name, by which a command tells the test where it is.
pub(super) struct Fifo {
    pub(super) path: PathBuf,
    lines: Lines<BufReader<Receiver>>,
}

impl Fifo {
    pub(super) fn new(dir: &Path) -> Self {
        let path = dir.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // Open for writing too, so that it does not end when a writer does.
        let pipe = OpenOptions::new().read_write(true).open_receiver(&path).unwrap();
        Fifo { path, lines: BufReader::new(pipe).lines() }
    }

    pub(super) async fn line(&mut self) -> String {
        tokio::time::timeout(LIMIT, self.lines.next_line()).await.expect("a line").unwrap().expect("a line")
    }

    /// A shell script in which `say` writes a line into this pipe.
    pub(super) fn script(&self, script: &str) -> CommandSpec {
        sh(&format!("say() {{ echo \"$*\" >'{}'; }}; {script}", self.path.display()))
    }
}

/// The processes that carry the mark of this run.
pub(super) fn marked(run: &Run) -> Vec<i32> {
    let mark = format!("LTS_EXECUTION={}", run.execution_name());
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// Nothing runs any more that the run has started.
pub(super) fn assert_nothing_left(run: &Run) {
    assert_eq!(marked(run), Vec::<i32>::new());
}

/// The parent of a process.
pub(super) fn parent(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned()
}

pub(super) fn kill_9(pid: &str) {
    assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

/// What a run pushes.
pub(super) struct Reports(UnboundedReceiver<Said>);

impl Reports {
    pub(super) async fn ended(&mut self) -> Outcome {
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

pub(super) fn reporter() -> (Reporter, Reports) {
    let (push, reports) = unbounded_channel();
    let push = Arc::new(move |said: Said| {
        let _ = push.send(said);
    });
    (Reporter::new(push), Reports(reports))
}

/// Starts a command that must start.
pub(super) async fn start(executor: &ProcessExecutor, run: &Run) -> (Handle, Reports) {
    let (reporter, reports) = reporter();
    match executor.start(run.clone(), reporter).await.expect("it starts") {
        Started::Running(handle) => (handle, reports),
        Started::Ended(outcome) => panic!("it ended at once: {outcome:?}"),
    }
}

/// Runs a command to its end.
pub(super) async fn end_of(executor: &ProcessExecutor, spec: &CommandSpec) -> Outcome {
    let run = run_of("task", 1, spec);
    let (handle, mut reports) = start(executor, &run).await;
    let outcome = reports.ended().await;
    executor.release(&handle).await;
    outcome
}

pub(super) async fn refusal(executor: &ProcessExecutor, spec: &CommandSpec) -> Failure {
    let run = run_of("task", 1, spec);
    match executor.start(run.clone(), reporter().0).await {
        Err(StartError::Refused(failure)) => failure,
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) fn result(outcome: &Outcome) -> CommandResult {
    match outcome {
        Outcome::Succeeded(Some(payload)) => Payload::parse(payload).unwrap(),
        other => panic!("no success: {other:?}"),
    }
}

pub(super) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Succeeded(_) => panic!("it succeeded"),
    }
}
