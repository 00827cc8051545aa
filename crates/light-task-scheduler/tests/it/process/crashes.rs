//! What is left when somebody is killed: the scheduler, the launcher, a supervisor.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use light_task_scheduler::executor::process::{ProcessConfig, ProcessExecutor};
use light_task_scheduler::executor::{Executor, Recovered, Run, Status, Stopped};
use light_task_scheduler::results::Stream;
use light_task_scheduler::{FailureKind, Handle, Name};

use super::logs::WatchedLogs;
use super::support::{
    Fifo, LIMIT, assert_nothing_left, config, executor, failure, kill_9, parent, reporter, result, run_of, sh, start,
};

const VICTIM_DIR: &str = "LTS_TEST_VICTIM_DIR";
const VICTIM_NAMESPACE: &str = "LTS_TEST_VICTIM_NAMESPACE";

/// In the process that a test starts to be killed: the directory to work in. Each of these tests plays both.
pub(super) fn victim_dir() -> Option<PathBuf> {
    std::env::var_os(VICTIM_DIR).map(PathBuf::from)
}

/// There too: the namespace of the test.
pub(super) fn victim_namespace() -> Name {
    Name::new(&std::env::var(VICTIM_NAMESPACE).unwrap()).unwrap()
}

/// Starts the calling test once more, as the scheduler that is going to be killed.
pub(super) fn start_victim(dir: &Path, namespace: &Name) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([std::thread::current().name().unwrap(), "--exact", "--nocapture"])
        .env(VICTIM_DIR, dir)
        .env(VICTIM_NAMESPACE, namespace.as_str())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the victim does: starts the command and waits to be killed.
async fn die_running(config: ProcessConfig, run: Run) {
    let namespace = victim_namespace();
    let executor = ProcessExecutor::new(config).unwrap();
    let (_handle, mut reports) = start(&executor, &Run { namespace, ..run }).await;
    reports.ended().await;
}

pub(super) fn kill_victim(mut victim: Child) {
    victim.kill().unwrap();
    victim.wait().unwrap();
}

/// A command that says its supervisor and ends when it is told to.
fn gated(dir: &Path) -> Run {
    let (fifo, gate) = (dir.join("fifo"), dir.join("gate"));
    let script = "echo before; echo $PPID >'FIFO'; read go <'GATE'; echo after; exit 5";
    let script = script.replace("FIFO", fifo.to_str().unwrap()).replace("GATE", gate.to_str().unwrap());
    run_of("task", 1, &sh(&script))
}

fn make_gate(dir: &Path) -> PathBuf {
    let gate = dir.join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    gate
}

async fn adopt(executor: &ProcessExecutor, run: &Run) -> (Handle, super::support::Reports) {
    let (reporter, reports) = reporter();
    match executor.recover(run.clone(), None, reporter).await {
        Recovered::Attached(handle) => (handle, reports),
        other => panic!("not adopted: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_outlives_its_scheduler_and_is_adopted() {
    if let Some(dir) = victim_dir() {
        return die_running(config(&dir), gated(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut fifo, gate) = (Fifo::new(dir.path()), make_gate(dir.path()));
    let run = gated(dir.path());
    let victim = start_victim(dir.path(), &run.namespace);
    let supervisor = fifo.line().await;
    kill_victim(victim);

    let logs = WatchedLogs::new();
    let executor = executor(dir.path()).with_logs(logs.clone());
    let (handle, mut reports) = adopt(&executor, &run).await;
    logs.until_bytes(7).await;
    assert_eq!(executor.status(std::slice::from_ref(&handle)).await, [Status::Running(None)]);
    assert!(Path::new("/proc").join(&supervisor).exists());
    std::fs::write(&gate, "go\n").unwrap();
    let failure = failure(reports.ended().await);
    assert_eq!((failure.exit_code, failure.kind), (Some(5), FailureKind::Error));
    assert_eq!(logs.text("task", Stream::Stdout), "before\nafter\n");
    assert!(matches!(executor.recover(run.clone(), Some(handle.clone()), reporter().0).await, Recovered::Attached(_)));
    executor.release(&handle).await;
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_found() {
    if let Some(dir) = victim_dir() {
        return die_running(config(&dir), gated(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut fifo, gate) = (Fifo::new(dir.path()), make_gate(dir.path()));
    let run = gated(dir.path());
    let victim = start_victim(dir.path(), &run.namespace);
    let supervisor = fifo.line().await;
    let ended = pidfd(&supervisor);
    kill_victim(victim);
    std::fs::write(&gate, "go\n").unwrap();
    wait_for(ended).await;
    let executor = executor(dir.path());
    let (_handle, mut reports) = adopt(&executor, &run).await;
    assert_eq!(failure(reports.ended().await).exit_code, Some(5));
}

#[tokio::test]
async fn an_adopted_command_is_stopped() {
    if let Some(dir) = victim_dir() {
        return die_running(config(&dir), gated(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut fifo, _gate) = (Fifo::new(dir.path()), make_gate(dir.path()));
    let run = gated(dir.path());
    let victim = start_victim(dir.path(), &run.namespace);
    fifo.line().await;
    kill_victim(victim);
    let executor = executor(dir.path());
    let (handle, mut reports) = adopt(&executor, &run).await;
    assert_eq!(executor.stop(&handle, LIMIT).await, Stopped::Confirmed(None));
    assert_eq!(failure(reports.ended().await).kind, FailureKind::Cancelled);
    assert_nothing_left(&run);
}

#[tokio::test]
async fn an_orphan_that_nobody_adopts_stops_itself() {
    let orphan_after = Some(Duration::from_secs(1));
    if let Some(dir) = victim_dir() {
        return die_running(ProcessConfig { orphan_after, ..config(&dir) }, gated(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut fifo, _gate) = (Fifo::new(dir.path()), make_gate(dir.path()));
    let run = gated(dir.path());
    let victim = start_victim(dir.path(), &run.namespace);
    let supervisor = pidfd(&fifo.line().await);
    kill_victim(victim);
    wait_for(supervisor).await;
    assert_nothing_left(&run);
}

#[tokio::test]
async fn an_orphan_that_is_adopted_goes_on() {
    let orphan_after = Some(Duration::from_secs(1));
    if let Some(dir) = victim_dir() {
        return die_running(ProcessConfig { orphan_after, ..config(&dir) }, gated(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut fifo, gate) = (Fifo::new(dir.path()), make_gate(dir.path()));
    let run = gated(dir.path());
    let victim = start_victim(dir.path(), &run.namespace);
    let supervisor = pidfd(&fifo.line().await);
    kill_victim(victim);
    let executor = executor(dir.path());
    let (_handle, mut reports) = adopt(&executor, &run).await;
    // Three times as long as it would have waited: that nothing happens can only be shown by waiting.
    let ended = tokio::time::timeout(Duration::from_secs(3), wait_for(supervisor)).await;
    assert!(ended.is_err(), "it ended although it was adopted");
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(failure(reports.ended().await).exit_code, Some(5));
}

#[tokio::test]
async fn the_next_start_replaces_a_killed_launcher() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let gate = make_gate(dir.path());
    let (_first, mut first) = start(&executor, &gated(dir.path())).await;
    let supervisor = fifo.line().await;
    let launcher = parent(&supervisor);
    let ended = pidfd(&launcher);
    kill_9(&launcher);
    wait_for(ended).await;
    let (_second, mut second) = start(&executor, &run_of("second", 1, &sh("true"))).await;
    result(&second.ended().await);
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(failure(first.ended().await).exit_code, Some(5), "the command did not notice");
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_command_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let run = run_of(
        "task",
        1,
        &fifo.script("trap '' TERM; (setsid sleep 1000 &); env -i sleep 1000 & say $PPID; sleep 1000"),
    );
    let (handle, mut reports) = start(&executor, &run).await;
    kill_9(&fifo.line().await);
    assert_eq!(failure(reports.ended().await).kind, FailureKind::Lost);
    assert_nothing_left(&run);
    assert!(matches!(&executor.status(std::slice::from_ref(&handle)).await[..], [Status::Lost(_)]));
    assert_eq!(executor.stop(&handle, LIMIT).await, Stopped::Confirmed(None));
    let recovered = executor.recover(run.clone(), Some(handle), reporter().0).await;
    assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
}

#[tokio::test]
async fn what_never_started_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let run = run_of("task", 1, &sh("true"));
    for _ in 0..2 {
        let recovered = executor.recover(run.clone(), None, reporter().0).await;
        assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
        let late = executor.start(run.clone(), reporter().0).await;
        assert!(late.is_err(), "a start that was given up is not made up for: {late:?}");
    }
}

#[tokio::test]
async fn a_program_that_does_not_supervise_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = ProcessConfig { supervisor: Some("/bin/true".into()), ..ProcessConfig::new(dir.path()) };
    let executor = ProcessExecutor::new(config).unwrap();
    let message = super::support::refusal(&executor, &sh("true")).await.message;
    assert!(message.contains("/bin/true does not call run_supervisor_if_asked()"), "{message}");
}

fn pidfd(pid: &str) -> std::os::fd::OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

async fn wait_for(process: std::os::fd::OwnedFd) {
    let ended = tokio::task::spawn_blocking(move || {
        let limit = rustix::event::Timespec::try_from(LIMIT).unwrap();
        let mut files = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut files, Some(&limit)).unwrap()
    });
    assert_eq!(ended.await.unwrap(), 1, "the process ends");
}
