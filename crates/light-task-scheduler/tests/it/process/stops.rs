//! Stopping a command, and all that it has started.

use std::time::Duration;

use light_task_scheduler::FailureKind;
use light_task_scheduler::executor::{Executor, Status, Stopped};

use super::support::{Fifo, LIMIT, assert_nothing_left, end_of, executor, failure, marked, result, run_of, sh, start};

/// Much longer than a polite stop takes.
const GRACE: Duration = LIMIT;

#[tokio::test]
async fn a_polite_command_is_asked_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let run = run_of("task", 1, &fifo.script("trap 'say bye; exit 0' TERM; say ready; while :; do :; done"));
    let (handle, mut reports) = start(&executor, &run).await;
    assert_eq!(fifo.line().await, "ready");
    let stopped = tokio::time::timeout(GRACE / 2, executor.stop(&handle, GRACE)).await;
    assert_eq!(stopped.expect("long before the grace is over"), Stopped::Confirmed(None));
    assert_eq!(fifo.line().await, "bye");
    let failure = failure(reports.ended().await);
    assert_eq!(failure.kind, FailureKind::Cancelled, "a stopped command has not succeeded, whatever its exit code");
    assert_nothing_left(&run);
    assert_eq!(executor.stop(&handle, GRACE).await, Stopped::Confirmed(None), "stopping again is harmless");
    executor.release(&handle).await;
    assert_eq!(executor.stop(&handle, GRACE).await, Stopped::Confirmed(None));
}

#[tokio::test]
async fn a_command_that_ignores_the_question_is_killed_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let run = run_of("task", 1, &fifo.script("trap '' TERM; say ready; while :; do sleep 1000; done"));
    let (handle, mut reports) = start(&executor, &run).await;
    assert_eq!(fifo.line().await, "ready");
    assert_eq!(executor.stop(&handle, Duration::from_millis(50)).await, Stopped::Confirmed(None));
    assert_eq!(failure(reports.ended().await).exit_code, Some(137));
    assert_nothing_left(&run);
}

#[tokio::test]
async fn those_who_left_the_group_die_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    // A child, a session of its own, a double fork in a session of its own without our mark, all deaf.
    let script = "trap '' TERM; sleep 1000 & setsid sh -c 'sleep 1000' & \
        (setsid sh -c '(env -i sleep 1000 & echo $! >pid) ; sleep 1000' &) ; until test -s pid; do :; done; say $(cat pid); sleep 1000";
    let mut spec = fifo.script(script);
    spec.cwd = Some(dir.path().into());
    let run = run_of("task", 1, &spec);
    let (handle, _reports) = start(&executor, &run).await;
    let unmarked = fifo.line().await;
    assert!(marked(&run).len() >= 4);
    assert_eq!(executor.stop(&handle, Duration::from_millis(50)).await, Stopped::Confirmed(None));
    assert_nothing_left(&run);
    assert!(!std::path::Path::new("/proc").join(unmarked).exists());
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let run =
        run_of("task", 1, &sh("(setsid sleep 1000 >/dev/null 2>&1 &); (trap '' TERM; setsid sleep 1000 &); exit 4"));
    let (_handle, mut reports) = start(&executor, &run).await;
    assert_eq!(failure(reports.ended().await).exit_code, Some(4));
    assert_nothing_left(&run);
}

#[tokio::test]
async fn a_storm_of_forks_is_stilled() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let run = run_of(
        "task",
        1,
        &fifo.script("trap '' TERM; n=0; while :; do setsid sleep 1000 & n=$((n+1)); test $n = 50 && say ready; done"),
    );
    let (handle, _reports) = start(&executor, &run).await;
    assert_eq!(fifo.line().await, "ready");
    assert_eq!(executor.stop(&handle, Duration::ZERO).await, Stopped::Confirmed(None));
    assert_nothing_left(&run);
}

#[tokio::test]
async fn a_stop_that_comes_too_late_tells_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let run = run_of("task", 1, &sh("exit 6"));
    let (handle, mut reports) = start(&executor, &run).await;
    let outcome = reports.ended().await;
    assert_eq!(executor.stop(&handle, GRACE).await, Stopped::Confirmed(Some(outcome.clone())));
    assert_eq!(executor.status(&[handle]).await, [Status::Ended(outcome)]);
}

#[tokio::test]
async fn a_halted_command_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut fifo = Fifo::new(dir.path());
    let executor = executor(dir.path());
    let run = run_of("task", 1, &fifo.script("say ready; kill -STOP $$"));
    let (handle, _reports) = start(&executor, &run).await;
    assert_eq!(fifo.line().await, "ready");
    assert_eq!(executor.stop(&handle, GRACE).await, Stopped::Confirmed(None));
    assert_nothing_left(&run);
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = end_of(&executor(dir.path()), &sh("exec >&- 2>&-; sleep 0.05; exit 0")).await;
    assert!(result(&outcome).wall_ms >= 50);
}
