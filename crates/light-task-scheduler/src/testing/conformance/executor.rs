//! The conformance suite of [`Executor`].
//!
//! Implement [`ExecutorHarness`] for what opens your executor and makes tasks for it, and let the macro make
//! one test per case:
//!
//! ```ignore
//! light_task_scheduler::executor_conformance!(mine, MyHarness::new());
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite fails by panicking")]

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use crate::clock::Timestamp;
use crate::executor::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use crate::store::Said;
use crate::task::{FailureKind, Handle, Name, NewTask, Outcome, Payload, Progress, Record, Spec, Task, TaskId};

/// Long past anything that a case waits for: only a broken executor gets here.
const LIMIT: Duration = Duration::from_secs(30);
/// A grace that is not meant to be used up.
const GRACE: Duration = Duration::from_secs(20);
/// A grace that is meant to be used up.
const SHORT_GRACE: Duration = Duration::from_millis(50);

/// What a task of the suite does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Succeeds, with an output; not before its start has been answered.
    Succeed,
    /// Fails; not before its start has been answered.
    Fail,
    /// Runs until it is asked to stop, and then ends.
    UntilStopped,
    /// Runs, and does not hear that it is asked to stop.
    Deaf,
    /// Says how far it has come: at least once with `done` 1, then succeeds.
    Progress,
    /// Can never run, as can be told by looking at it.
    Never,
}

/// What the suite needs of an executor. Each case makes one harness.
#[async_trait]
pub trait ExecutorHarness: Send + Sync {
    /// Opens the executor on this harness's place; every call on the same place, as a replica would that is
    /// started after another one has died, on the same host.
    async fn open(&self) -> Arc<dyn Executor>;

    /// A task that does this, or `None` if this executor has nothing of the kind.
    fn task(&self, work: Work) -> Option<NewTask>;

    /// Sets the runs of this harness apart from those of others that are tested at the same time.
    fn namespace(&self) -> Name;
}

/// Any harness.
pub type Harness<'a> = &'a dyn ExecutorHarness;

/// One `#[tokio::test]` per case, in a module of this name; the expression makes a fresh [`ExecutorHarness`]
/// for each.
#[macro_export]
macro_rules! executor_conformance {
    ($name:ident, $harness:expr) => {
        $crate::executor_conformance!(@cases $name, $harness, [
            a_success_is_pushed_with_its_output
            a_failure_is_pushed_in_words
            progress_is_pushed_before_the_end
            pushed_and_polled_agree
            the_end_is_pushed_once
            a_running_task_is_running
            looking_changes_nothing
            an_unknown_handle_does_not_fail_the_others
            no_handles_have_no_status
            the_output_can_be_read_again
            a_failure_has_no_output
            a_stop_is_confirmed
            a_deaf_run_is_killed_or_shown
            a_stop_without_grace_is_confirmed
            stopping_an_ended_run_tells_how_it_ended
            stopping_twice_is_harmless
            stopping_what_was_released_is_harmless
            releasing_twice_is_harmless
            executions_are_apart
            namespaces_are_apart
            hostile_ids_are_only_ids
            what_can_never_run_is_refused
            what_can_run_is_prepared
            what_never_started_is_gone_and_stays_so
            a_start_that_was_dropped_is_found_or_never_was
            a_start_cut_off_at_any_point_is_found_or_never_was
            another_replica_finds_a_live_run
            another_replica_finds_it_without_a_handle
            another_replica_finds_an_end
            another_replica_does_not_find_what_was_released
            two_hundred_runs_end_each_once
            two_hundred_run_at_once_until_they_are_stopped
        ]);
    };
    (@cases $name:ident, $harness:expr, [$($case:ident)*]) => {
        mod $name {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;

            $(
                #[tokio::test]
                async fn $case() {
                    let harness = $harness;
                    $crate::testing::conformance::executor::$case(&harness).await;
                }
            )*
        }
    };
}

/// A run that was started, and what it says.
struct Begun {
    run: Run,
    handle: Handle,
    said: UnboundedReceiver<Said>,
}

impl Begun {
    async fn next(&mut self) -> Said {
        tokio::time::timeout(LIMIT, self.said.recv()).await.expect("a report in time").expect("a report")
    }

    async fn end(&mut self) -> Outcome {
        loop {
            if let Said::Ended(outcome) = self.next().await {
                return outcome;
            }
        }
    }

    fn handles(&self) -> &[Handle] {
        std::slice::from_ref(&self.handle)
    }
}

fn listen() -> (Reporter, UnboundedReceiver<Said>) {
    let (push, said) = unbounded_channel();
    let report = move |what: Said| {
        // A case that has seen enough does not listen any more.
        let _ = push.send(what);
    };
    (Reporter::new(Arc::new(report)), said)
}

fn run(harness: Harness<'_>, new: NewTask, id: &str, execution: u64) -> Run {
    let spec = Spec {
        queue: new.queue,
        kind: new.kind,
        payload: new.payload,
        priority: new.priority,
        created_at: Timestamp::default(),
        options: new.options,
    };
    let record = Record { run: execution, execution, attempt: 1, ..Record::default() };
    let task = Arc::new(Task { id: TaskId::new(id).unwrap(), spec, record });
    Run { namespace: harness.namespace(), task, claimed_here: false }
}

fn task(harness: Harness<'_>, work: Work) -> NewTask {
    harness.task(work).unwrap_or_else(|| panic!("every executor has tasks of the kind {work:?}"))
}

async fn begin_run(executor: &dyn Executor, run: Run) -> Begun {
    let (reporter, said) = listen();
    match executor.start(run.clone(), reporter).await {
        Ok(Started::Running(handle)) => Begun { run, handle, said },
        other => panic!("it does not run: {other:?}"),
    }
}

async fn begin(harness: Harness<'_>, executor: &dyn Executor, work: Work) -> Begun {
    begin_run(executor, run(harness, task(harness, work), "task", 1)).await
}

async fn status(executor: &dyn Executor, begun: &Begun) -> Status {
    let mut answers = executor.status(begun.handles()).await;
    assert_eq!(answers.len(), 1, "one answer per handle");
    answers.remove(0)
}

/// Stops what a case leaves running.
async fn clean(executor: &dyn Executor, begun: &Begun) {
    executor.stop(&begun.handle, Duration::ZERO).await;
    executor.release(&begun.handle).await;
}

async fn output(executor: &dyn Executor, begun: &Begun, outcome: Outcome) -> Payload {
    match outcome {
        Outcome::Succeeded(Some(output)) => output,
        Outcome::Succeeded(None) => executor.output(&begun.handle).await.expect("an output"),
        Outcome::Failed(failure) => panic!("it failed: {failure:?}"),
    }
}

fn is_absent(status: &Status) -> bool {
    matches!(status, Status::Lost(_) | Status::Unreachable(_))
}

/// The end comes without being asked for, and the output is there.
pub async fn a_success_is_pushed_with_its_output(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Succeed).await;
    let outcome = begun.end().await;
    assert!(!output(&*executor, &begun, outcome).await.is_empty());
    executor.release(&begun.handle).await;
}

/// A failure says something, and is not mistaken for a loss.
pub async fn a_failure_is_pushed_in_words(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Fail).await;
    match begun.end().await {
        Outcome::Failed(failure) => {
            assert!(!failure.message.is_empty());
            assert!(!matches!(failure.kind, FailureKind::Lost | FailureKind::Cancelled), "{failure:?}");
        }
        Outcome::Succeeded(_) => panic!("it succeeded"),
    }
    executor.release(&begun.handle).await;
}

/// Where there is progress, it comes first.
pub async fn progress_is_pushed_before_the_end(harness: Harness<'_>) {
    let Some(new) = harness.task(Work::Progress) else { return };
    let executor = harness.open().await;
    let mut begun = begin_run(&*executor, run(harness, new, "task", 1)).await;
    let mut done = Vec::new();
    loop {
        match begun.next().await {
            Said::Progress(Progress { done: units, .. }) => done.push(units),
            Said::Ended(outcome) => {
                assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
                break;
            }
        }
    }
    assert!(done.contains(&1), "{done:?}");
    executor.release(&begun.handle).await;
}

/// Whoever polls learns what was pushed.
pub async fn pushed_and_polled_agree(harness: Harness<'_>) {
    let executor = harness.open().await;
    for work in [Work::Succeed, Work::Fail] {
        let mut begun = begin(harness, &*executor, work).await;
        let pushed = begun.end().await;
        assert_eq!(status(&*executor, &begun).await, Status::Ended(pushed));
        executor.release(&begun.handle).await;
    }
}

/// A run has one end.
pub async fn the_end_is_pushed_once(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Succeed).await;
    begun.end().await;
    status(&*executor, &begun).await;
    executor.release(&begun.handle).await;
    drop(executor);
    // The executor was the only one who could still say anything.
    let more = tokio::time::timeout(LIMIT, begun.said.recv()).await.expect("the executor lets go of the reporter");
    assert_eq!(more, None);
}

/// While it runs, it says so.
pub async fn a_running_task_is_running(harness: Harness<'_>) {
    let executor = harness.open().await;
    let begun = begin(harness, &*executor, Work::UntilStopped).await;
    assert!(matches!(status(&*executor, &begun).await, Status::Running(_)));
    clean(&*executor, &begun).await;
}

/// A status has no effect on what it looks at.
pub async fn looking_changes_nothing(harness: Harness<'_>) {
    let executor = harness.open().await;
    let begun = begin(harness, &*executor, Work::UntilStopped).await;
    for _ in 0..10 {
        assert!(matches!(status(&*executor, &begun).await, Status::Running(_)));
    }
    assert!(matches!(executor.stop(&begun.handle, GRACE).await, Stopped::Confirmed(_)));
    let first = status(&*executor, &begun).await;
    assert_eq!(status(&*executor, &begun).await, first);
    executor.release(&begun.handle).await;
}

/// One bad handle never fails the batch, and answers are in order.
pub async fn an_unknown_handle_does_not_fail_the_others(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut ended = begin(harness, &*executor, Work::Succeed).await;
    let outcome = ended.end().await;
    let running = begin_run(&*executor, run(harness, task(harness, Work::UntilStopped), "other", 1)).await;
    let unknown = Handle::new("nobody's").unwrap();
    let handles = [unknown.clone(), running.handle.clone(), unknown, ended.handle.clone()];
    let answers = executor.status(&handles).await;
    assert_eq!(answers.len(), handles.len());
    assert!(is_absent(&answers[0]) && is_absent(&answers[2]), "{answers:?}");
    assert!(matches!(answers[1], Status::Running(_)), "{answers:?}");
    assert_eq!(answers[3], Status::Ended(outcome));
    clean(&*executor, &running).await;
    executor.release(&ended.handle).await;
}

/// An empty batch is no error.
pub async fn no_handles_have_no_status(harness: Harness<'_>) {
    assert!(harness.open().await.status(&[]).await.is_empty());
}

/// Reading an output does not use it up.
pub async fn the_output_can_be_read_again(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Succeed).await;
    let outcome = begun.end().await;
    let pushed = output(&*executor, &begun, outcome).await;
    for _ in 0..2 {
        assert_eq!(executor.output(&begun.handle).await.unwrap(), pushed);
    }
    executor.release(&begun.handle).await;
}

/// Only a success has an output.
pub async fn a_failure_has_no_output(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Fail).await;
    begun.end().await;
    assert!(executor.output(&begun.handle).await.is_err());
    executor.release(&begun.handle).await;
}

/// What hears the question ends, and then nothing runs.
pub async fn a_stop_is_confirmed(harness: Harness<'_>) {
    let executor = harness.open().await;
    let begun = begin(harness, &*executor, Work::UntilStopped).await;
    let stopped = tokio::time::timeout(GRACE / 2, executor.stop(&begun.handle, GRACE)).await;
    let stopped = stopped.expect("it does not wait out the grace of a run that has ended");
    assert!(matches!(stopped, Stopped::Confirmed(_)), "{stopped:?}");
    assert!(!matches!(status(&*executor, &begun).await, Status::Running(_)));
    executor.release(&begun.handle).await;
}

/// What does not hear the question is killed after the grace, or it is said that it still runs.
pub async fn a_deaf_run_is_killed_or_shown(harness: Harness<'_>) {
    let Some(new) = harness.task(Work::Deaf) else { return };
    let executor = harness.open().await;
    let begun = begin_run(&*executor, run(harness, new, "task", 1)).await;
    let stopped = executor.stop(&begun.handle, SHORT_GRACE).await;
    let running = matches!(status(&*executor, &begun).await, Status::Running(_));
    match stopped {
        Stopped::Confirmed(_) => assert!(!running, "it runs although its death was confirmed"),
        Stopped::Unconfirmed(why) => assert!(running && !why.is_empty()),
    }
}

/// No grace is no excuse.
pub async fn a_stop_without_grace_is_confirmed(harness: Harness<'_>) {
    let executor = harness.open().await;
    let begun = begin(harness, &*executor, Work::UntilStopped).await;
    let stopped = executor.stop(&begun.handle, Duration::ZERO).await;
    assert!(matches!(stopped, Stopped::Confirmed(_)), "{stopped:?}");
    assert!(!matches!(status(&*executor, &begun).await, Status::Running(_)));
    executor.release(&begun.handle).await;
}

/// A stop that comes too late does not hide the outcome.
pub async fn stopping_an_ended_run_tells_how_it_ended(harness: Harness<'_>) {
    let executor = harness.open().await;
    for work in [Work::Succeed, Work::Fail] {
        let mut begun = begin(harness, &*executor, work).await;
        let outcome = begun.end().await;
        assert_eq!(executor.stop(&begun.handle, GRACE).await, Stopped::Confirmed(Some(outcome)));
        executor.release(&begun.handle).await;
    }
}

/// Dead is dead.
pub async fn stopping_twice_is_harmless(harness: Harness<'_>) {
    let executor = harness.open().await;
    let begun = begin(harness, &*executor, Work::UntilStopped).await;
    for _ in 0..2 {
        let stopped = executor.stop(&begun.handle, GRACE).await;
        assert!(matches!(stopped, Stopped::Confirmed(_)), "{stopped:?}");
    }
    executor.release(&begun.handle).await;
}

/// So is what was cleaned up.
pub async fn stopping_what_was_released_is_harmless(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Succeed).await;
    begun.end().await;
    executor.release(&begun.handle).await;
    assert_eq!(executor.stop(&begun.handle, GRACE).await, Stopped::Confirmed(None));
}

/// A release may be repeated, and leaves nothing that looks alive.
pub async fn releasing_twice_is_harmless(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut begun = begin(harness, &*executor, Work::Succeed).await;
    begun.end().await;
    for _ in 0..2 {
        executor.release(&begun.handle).await;
        assert!(is_absent(&status(&*executor, &begun).await));
    }
}

/// Two starts of one task have nothing in common.
pub async fn executions_are_apart(harness: Harness<'_>) {
    let executor = harness.open().await;
    let new = task(harness, Work::UntilStopped);
    let first = begin_run(&*executor, run(harness, new.clone(), "task", 1)).await;
    let second = begin_run(&*executor, run(harness, new, "task", 2)).await;
    assert_ne!(first.handle, second.handle);
    clean(&*executor, &first).await;
    assert!(!matches!(status(&*executor, &first).await, Status::Running(_)));
    assert!(matches!(status(&*executor, &second).await, Status::Running(_)));
    clean(&*executor, &second).await;
}

/// Neither have tasks of the same id in two installations.
pub async fn namespaces_are_apart(harness: Harness<'_>) {
    let executor = harness.open().await;
    let new = task(harness, Work::UntilStopped);
    let here = begin_run(&*executor, run(harness, new.clone(), "task", 1)).await;
    let other = Name::new(&format!("{}-2", harness.namespace())).unwrap();
    let there = Run { namespace: other, ..run(harness, new, "task", 1) };
    let there = begin_run(&*executor, there).await;
    assert_ne!(here.handle, there.handle);
    clean(&*executor, &here).await;
    assert!(matches!(status(&*executor, &there).await, Status::Running(_)));
    clean(&*executor, &there).await;
}

/// No id leads out of its place, or into another's.
pub async fn hostile_ids_are_only_ids(harness: Harness<'_>) {
    let executor = harness.open().await;
    let long = "é".repeat(100);
    let ids = ["..", ".", "../../task", "/", "a/1", "a b;$(x)`y`'\"", "-rf", "%2e%2e", long.as_str()];
    let mut all = Vec::new();
    for id in ids {
        all.push(begin_run(&*executor, run(harness, task(harness, Work::Succeed), id, 1)).await);
    }
    for begun in &mut all {
        let outcome = begun.end().await;
        assert!(matches!(outcome, Outcome::Succeeded(_)), "{}: {outcome:?}", begun.run.task.id);
        executor.release(&begun.handle).await;
    }
}

/// What can never run is told early, and again at its start.
pub async fn what_can_never_run_is_refused(harness: Harness<'_>) {
    let executor = harness.open().await;
    let new = task(harness, Work::Never);
    assert!(executor.prepare(&new).await.is_err());
    let started = executor.start(run(harness, new, "task", 1), listen().0).await;
    match started {
        Err(StartError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Refused),
        other => panic!("not refused: {other:?}"),
    }
}

/// What can run is taken in.
pub async fn what_can_run_is_prepared(harness: Harness<'_>) {
    let executor = harness.open().await;
    for work in [Work::Succeed, Work::Fail, Work::UntilStopped] {
        executor.prepare(&task(harness, work)).await.unwrap();
    }
}

/// A claim whose owner died before the start is free again.
pub async fn what_never_started_is_gone_and_stays_so(harness: Harness<'_>) {
    let executor = harness.open().await;
    for _ in 0..2 {
        let run = run(harness, task(harness, Work::Succeed), "task", 1);
        let recovered = executor.recover(run, None, listen().0).await;
        assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
    }
}

/// The same of a start that is given up while its owner lives on.
pub async fn a_start_that_was_dropped_is_found_or_never_was(harness: Harness<'_>) {
    const POINTS: u64 = 4;
    let executor = harness.open().await;
    for point in 1..=POINTS {
        let run = run(harness, task(harness, Work::UntilStopped), &format!("dropped-{point}"), 1);
        cut_off(executor.start(run.clone(), listen().0), point).await;
        if let Recovered::Attached(handle) = settled(&*executor, &run).await {
            let stopped = executor.stop(&handle, GRACE).await;
            assert!(matches!(stopped, Stopped::Confirmed(_)), "dropped at {point}: {stopped:?}");
            executor.release(&handle).await;
        }
    }
}

/// Whoever dies while it starts something leaves a run that is found, or none, now and later.
pub async fn a_start_cut_off_at_any_point_is_found_or_never_was(harness: Harness<'_>) {
    const POINTS_MAX: u64 = 1_000;
    let mut point = 1;
    while point < POINTS_MAX {
        let first = harness.open().await;
        let run = run(harness, task(harness, Work::UntilStopped), "task", point);
        let through = cut_off(first.start(run.clone(), listen().0), point).await;
        drop(first);
        let second = harness.open().await;
        match settled(&*second, &run).await {
            Recovered::Attached(handle) => {
                let stopped = second.stop(&handle, GRACE).await;
                assert!(matches!(stopped, Stopped::Confirmed(_)), "cut off at {point}: {stopped:?}");
                second.release(&handle).await;
            }
            gone => assert!(!(through && second.adoptable()), "cut off at {point}, it was started: {gone:?}"),
        }
        let later = settled(&*second, &run).await;
        assert!(matches!(later, Recovered::Gone(_)), "cut off at {point}: {later:?}");
        if through {
            return;
        }
        // Close together where starts are short, further apart where they are long.
        point += 1 + point / 8;
    }
    panic!("no start is polled {POINTS_MAX} times");
}

/// Polls a future so often and no more; whether it has come to its end.
async fn cut_off<T>(future: impl Future<Output = T>, polls: u64) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(false) } else { Poll::Pending }
        }
    })
    .await
}

/// What has become of a run, once somebody can tell.
async fn settled(executor: &dyn Executor, run: &Run) -> Recovered {
    let asked = async {
        loop {
            match executor.recover(run.clone(), None, listen().0).await {
                Recovered::Unreachable(_) => tokio::time::sleep(SHORT_GRACE).await,
                known => return known,
            }
        }
    };
    tokio::time::timeout(LIMIT, asked).await.expect("somebody can tell")
}

/// A run outlives its owner, or is proven to be gone.
pub async fn another_replica_finds_a_live_run(harness: Harness<'_>) {
    find_a_live_run(harness, true).await;
}

/// So does one whose owner died between the start and the storing of its handle.
pub async fn another_replica_finds_it_without_a_handle(harness: Harness<'_>) {
    find_a_live_run(harness, false).await;
}

async fn find_a_live_run(harness: Harness<'_>, with_handle: bool) {
    let first = harness.open().await;
    let begun = begin(harness, &*first, Work::UntilStopped).await;
    drop(first);
    let second = harness.open().await;
    let (reporter, said) = listen();
    let known = with_handle.then(|| begun.handle.clone());
    let recovered = second.recover(begun.run.clone(), known, reporter).await;
    if !second.adoptable() {
        assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
        return;
    }
    let Recovered::Attached(handle) = recovered else { panic!("not found: {recovered:?}") };
    let mut begun = Begun { handle, said, ..begun };
    assert!(matches!(status(&*second, &begun).await, Status::Running(_)));
    let stopped = second.stop(&begun.handle, GRACE).await;
    assert!(matches!(stopped, Stopped::Confirmed(_)), "{stopped:?}");
    begun.end().await;
    second.release(&begun.handle).await;
}

/// An end that nobody has stored is found, with its output.
pub async fn another_replica_finds_an_end(harness: Harness<'_>) {
    let first = harness.open().await;
    let mut begun = begin(harness, &*first, Work::Succeed).await;
    let outcome = begun.end().await;
    let expected = output(&*first, &begun, outcome.clone()).await;
    drop(first);
    let second = harness.open().await;
    let (reporter, said) = listen();
    let recovered = second.recover(begun.run.clone(), Some(begun.handle.clone()), reporter).await;
    if !second.adoptable() {
        assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
        return;
    }
    let Recovered::Attached(handle) = recovered else { panic!("not found: {recovered:?}") };
    let mut begun = Begun { handle, said, ..begun };
    assert_eq!(begun.end().await, outcome);
    assert_eq!(second.output(&begun.handle).await.unwrap(), expected);
    second.release(&begun.handle).await;
}

/// What was released has not ended anew.
pub async fn another_replica_does_not_find_what_was_released(harness: Harness<'_>) {
    let first = harness.open().await;
    let mut begun = begin(harness, &*first, Work::Succeed).await;
    begun.end().await;
    first.release(&begun.handle).await;
    drop(first);
    let second = harness.open().await;
    let recovered = second.recover(begun.run.clone(), Some(begun.handle.clone()), listen().0).await;
    assert!(matches!(recovered, Recovered::Gone(_)), "{recovered:?}");
}

/// How many runs there are at once, and how many of them are started or stopped at a time.
const RUNS: u64 = 200;
const HANDS: usize = 16;

/// Starts [`RUNS`] tasks of these kinds in turn.
async fn begin_many(harness: Harness<'_>, executor: &Arc<dyn Executor>, works: &[Work]) -> Vec<Begun> {
    let works = works.iter().cycle();
    let runs = (1..=RUNS).zip(works).map(|(execution, work)| run(harness, task(harness, *work), "task", execution));
    let start = |executor: Arc<dyn Executor>, run| async move { begin_run(&*executor, run).await };
    by_many_hands(executor, runs.collect(), start).await
}

/// Does something with each of many, [`HANDS`] at a time.
async fn by_many_hands<T: Send + 'static, R: Send + 'static, F: Future<Output = R> + Send + 'static>(
    executor: &Arc<dyn Executor>,
    all: Vec<T>,
    act: impl Fn(Arc<dyn Executor>, T) -> F,
) -> Vec<R> {
    let mut under_way = JoinSet::new();
    let mut done = Vec::with_capacity(all.len());
    for one in all {
        if under_way.len() == HANDS {
            done.extend(under_way.join_next().await.map(|joined| joined.expect("a case fails by itself")));
        }
        under_way.spawn(act(executor.clone(), one));
    }
    done.extend(under_way.join_all().await);
    done
}

/// Nobody says anything more.
async fn assert_silent(all: Vec<Begun>) {
    for mut begun in all {
        let more = tokio::time::timeout(LIMIT, begun.said.recv()).await.expect("the executor lets go of the reporter");
        assert_eq!(more, None);
    }
}

/// Runs do not get into each other's way.
pub async fn two_hundred_runs_end_each_once(harness: Harness<'_>) {
    let executor = harness.open().await;
    let mut all = begin_many(harness, &executor, &[Work::Succeed, Work::Fail]).await;
    for begun in &mut all {
        let outcome = begun.end().await;
        // Taken in turn, from the first.
        let succeeds = begun.run.task.record.execution % 2 == 1;
        assert_eq!(matches!(outcome, Outcome::Succeeded(_)), succeeds, "{outcome:?}");
        executor.release(&begun.handle).await;
    }
    drop(executor);
    assert_silent(all).await;
}

/// Each of many that run at the same time is there, and is stopped, alone.
pub async fn two_hundred_run_at_once_until_they_are_stopped(harness: Harness<'_>) {
    let executor = harness.open().await;
    let all = begin_many(harness, &executor, &[Work::UntilStopped]).await;
    let handles: Vec<Handle> = all.iter().map(|begun| begun.handle.clone()).collect();
    for (handle, status) in handles.iter().zip(executor.status(&handles).await) {
        assert!(matches!(status, Status::Running(_)), "{handle:?}: {status:?}");
    }
    let stop = |executor: Arc<dyn Executor>, handle: Handle| async move { executor.stop(&handle, GRACE).await };
    let (stopped, left) = handles.split_at(handles.len() / 2);
    for said in by_many_hands(&executor, stopped.to_vec(), stop).await {
        assert!(matches!(said, Stopped::Confirmed(_)), "{said:?}");
    }
    for (place, status) in executor.status(&handles).await.into_iter().enumerate() {
        assert_eq!(matches!(status, Status::Running(_)), place >= stopped.len(), "{place}: {status:?}");
    }
    by_many_hands(&executor, left.to_vec(), stop).await;
    let mut all = all;
    for begun in &mut all {
        begun.end().await;
        executor.release(&begun.handle).await;
    }
    drop(executor);
    assert_silent(all).await;
}
