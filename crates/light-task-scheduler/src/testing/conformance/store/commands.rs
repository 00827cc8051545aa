//! What operators wish: every command in every situation, with the answer and its reason, and what each does.

use super::StoreHarness;
use super::world::{KIND, MINUTE, World, bytes, concurrency, failure, id, inline, stored, task, task_as};
use crate::clock::Timestamp;
use crate::state::{Command, Refusal, RunEvent};
use crate::store::Answer;
use crate::task::{FailureKind, Handle, NewTask, ResultRef, Start, State, Task};

/// Where the task stands, by its column of the table.
#[derive(Debug, Clone, Copy)]
enum Column {
    Held,
    Waiting,
    Running,
    CancelWished,
    Exporting,
    Succeeded,
    Failed,
    ExportFailed,
    Cancelled,
}

const HELD: Answer = Answer::Applied(Some(State::Held));
const WAITING: Answer = Answer::Applied(Some(State::Waiting));
const RUNNING: Answer = Answer::Applied(Some(State::Running));
const EXPORTING: Answer = Answer::Applied(Some(State::Exporting));
const CANCELLED: Answer = Answer::Applied(Some(State::Cancelled));
const GONE: Answer = Answer::Applied(None);

const fn same(state: State) -> Answer {
    Answer::Already(state)
}

const fn no(state: State) -> Answer {
    Answer::Refused(Refusal::Illegal(state))
}

const fn late(state: State) -> Answer {
    Answer::Refused(Refusal::TooLate(state))
}

/// The answers in every situation, in the order of the columns.
#[rustfmt::skip]
fn expected(command: Command) -> [Answer; 9] {
    use State::*;
    match command {
        //                     held        waiting        running      wished        exporting       succeeded        failed        export failed cancelled
        Command::Start =>       [WAITING,   same(Waiting), no(Running), no(Running),   no(Exporting),   no(Succeeded),   no(Failed),   no(Failed),   no(Cancelled)],
        Command::Cancel =>      [CANCELLED, CANCELLED,     RUNNING,     same(Running), late(Exporting), late(Succeeded), late(Failed), late(Failed), same(Cancelled)],
        Command::Requeue =>     [no(Held),  no(Waiting),   no(Running), no(Running),   no(Exporting),   WAITING,         WAITING,      WAITING,      WAITING],
        Command::RetryExport => [no(Held),  no(Waiting),   no(Running), no(Running),   no(Exporting),   no(Succeeded),   no(Failed),   EXPORTING,    no(Cancelled)],
        Command::Reschedule { .. } =>
                                [HELD,      WAITING,       no(Running), no(Running),   no(Exporting),   no(Succeeded),   no(Failed),   no(Failed),   no(Cancelled)],
        Command::Delete =>      [GONE,      no(Waiting),   no(Running), no(Running),   no(Exporting),   GONE,            GONE,         GONE,         GONE],
    }
}

/// A task in that situation.
async fn bring(w: &World<'_>, column: Column) -> Task {
    let owner = w.replica().await;
    match column {
        Column::Held => return w.get(&w.add(task_as("t").start(Start::Held)).await).await,
        Column::Waiting => return w.get(&w.add(task_as("t")).await).await,
        _ => {}
    }
    let running = w.run(&owner, task_as("t")).await;
    let events = match column {
        Column::Held | Column::Waiting | Column::Running => vec![],
        Column::CancelWished | Column::Cancelled => {
            assert_eq!(w.command(&running.id, Command::Cancel).await, RUNNING);
            if matches!(column, Column::Cancelled) { vec![RunEvent::Cancelled] } else { vec![] }
        }
        Column::Exporting => vec![RunEvent::Outcome(None)],
        Column::Succeeded => vec![RunEvent::Complete(inline())],
        Column::Failed => vec![RunEvent::Fail(failure(FailureKind::Error))],
        Column::ExportFailed => vec![RunEvent::Outcome(None), RunEvent::Fail(failure(FailureKind::Export))],
    };
    for event in events {
        w.must(&running, event).await;
    }
    w.get(&running.id).await
}

async fn from(h: &dyn StoreHarness, command: Command, column: Column) {
    let w = World::open(h).await;
    let before = bring(&w, column).await;
    let answer = w.command(&before.id, command).await;
    assert_eq!(answer, expected(command)[column as usize], "{command:?} while {column:?}");
    let after = w.find(&before.id).await;
    match answer {
        Answer::Applied(None) => assert_eq!(after, None),
        Answer::Applied(state) => assert_eq!(after.map(|task| task.record.state), state),
        _ => assert_eq!(after, Some(before), "{answer:?} changes nothing"),
    }
}

async fn missing(h: &dyn StoreHarness, command: Command) {
    let w = World::open(h).await;
    assert_eq!(w.command(&id("nothing"), command).await, Answer::Missing);
    assert!(w.list(Default::default()).await.is_empty(), "nothing is made of it");
}

/// Makes one module of cases per command.
macro_rules! command_cases {
    ($($module:ident = $command:expr;)*) => {$(
        #[doc = concat!("`", stringify!($command), "` in every situation.")]
        pub mod $module {
            use super::*;
            command_cases! { @from [$command]
                while_held: Held, while_waiting: Waiting, while_running: Running,
                while_a_cancel_is_wished: CancelWished, while_exporting: Exporting, after_success: Succeeded,
                after_failure: Failed, after_a_failed_export: ExportFailed, after_cancellation: Cancelled,
            }
            #[doc = concat!(stringify!($command), " of a task that does not exist.")]
            pub async fn of_a_missing_task(h: &dyn StoreHarness) {
                super::missing(h, $command).await;
            }
        }
    )*};
    (@from [$command:expr] $($case:ident: $column:ident,)*) => {$(
        #[doc = concat!(stringify!($command), " in the situation `", stringify!($column), "`: answer, reason and effect.")]
        pub async fn $case(h: &dyn StoreHarness) {
            super::from(h, $command, Column::$column).await;
        }
    )*};
}

command_cases! {
    command_start = Command::Start;
    command_cancel = Command::Cancel;
    command_requeue = Command::Requeue;
    command_retry_export = Command::RetryExport;
    command_delete = Command::Delete;
    command_reschedule = Command::Reschedule { run_at: Some(Timestamp::MAX), priority: Some(1) };
}

/// What the commands do beyond the state.
pub mod effects {
    use super::*;

    /// Once the wish is stored, a later success ends `cancelled` and leaves no result.
    pub async fn a_cancel_beats_a_later_success(h: &dyn StoreHarness) {
        for event in [RunEvent::Outcome(Some(bytes(b"1"))), RunEvent::Complete(stored("k"))] {
            let w = World::open(h).await;
            let owner = w.replica().await;
            let running = w.run(&owner, task()).await;
            w.command(&running.id, Command::Cancel).await;
            let ended = w.must(&running, event).await;
            assert_eq!((ended.record.state, ended.record.result()), (State::Cancelled, None));
            assert_eq!(ended.record.output(), None);
            assert_eq!(ended.record.failure().map(|failure| failure.kind), Some(FailureKind::Cancelled));
        }
    }

    /// An outcome stored before the wish wins: the task succeeds.
    pub async fn an_outcome_beats_a_later_cancel(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Outcome(None)).await;
        let answer = w.command(&running.id, Command::Cancel).await;
        assert_eq!(answer, Answer::Refused(Refusal::TooLate(State::Exporting)));
        let ended = w.must(&running, RunEvent::Complete(inline())).await;
        assert_eq!((ended.record.state, ended.record.cancel_requested), (State::Succeeded, false));
    }

    /// I13: a task that was cancelled before it ran never starts.
    pub async fn a_cancelled_task_never_starts(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let ids = w.add_all(vec![task(), task().start(Start::Held), task().start(Start::After(MINUTE))]).await;
        for id in &ids {
            assert_eq!(w.command(id, Command::Cancel).await, CANCELLED);
            let ended = w.get(id).await.record;
            assert!(ended.finished_at.is_some());
            assert_eq!(ended.failure().map(|failure| failure.kind), Some(FailureKind::Cancelled));
        }
        w.pass(MINUTE * 2).await;
        assert_eq!(w.claim_ids(&owner, 10).await, []);
        assert_eq!(w.command(&ids[1], Command::Start).await, no(State::Cancelled));
    }

    /// A running task that is to be cancelled keeps its slot until it is confirmed dead.
    pub async fn a_wish_to_cancel_frees_no_slot(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.set("default", concurrency(1)).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        let next = w.add(task()).await;
        w.command(&running.id, Command::Cancel).await;
        assert_eq!(w.claim_ids(&owner, 10).await, []);
        w.must(&running, RunEvent::StopUnconfirmed).await;
        assert_eq!(w.claim_ids(&owner, 10).await, [], "nor while the stop is unconfirmed");
        w.must(&running, RunEvent::Cancelled).await;
        assert_eq!(w.claim_ids(&owner, 10).await, [next]);
    }

    /// A storm of cancellations over tasks in every state gives each its own right answer.
    pub async fn a_cancellation_storm(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let all = w.add_all((0..400).map(|_| task()).collect()).await;
        let running = w.claim(&owner, 200).await.tasks;
        for task in &running[..100] {
            w.must(task, RunEvent::Outcome(None)).await;
        }
        let wishes = |all: &[_]| all.iter().map(|id: &crate::TaskId| (id.clone(), Command::Cancel)).collect();
        let first = w.store.command(wishes(&all)).await.unwrap();
        let second = w.store.command(wishes(&all)).await.unwrap();
        for (at, (first, second)) in first.into_iter().zip(second).enumerate() {
            let (expected, repeat) = match at {
                0..100 => (late(State::Exporting), late(State::Exporting)),
                100..200 => (RUNNING, same(State::Running)),
                _ => (CANCELLED, same(State::Cancelled)),
            };
            assert_eq!((first, second), (expected, repeat), "item {at}");
        }
        assert_eq!(w.beat(&owner).await.cancel.len(), 100, "the owner is told of those that run");
        assert_eq!(w.claim_ids(&owner, 500).await, []);
    }

    /// A requeue is a fresh generation with a fresh budget, the old fence, and the old history.
    pub async fn a_requeue_keeps_the_fence_and_starts_a_generation(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Started(Some(Handle::new("h").unwrap()))).await;
        let failed = w.must(&running, RunEvent::Fail(failure(FailureKind::Lost))).await.record;
        w.pass(MINUTE).await;
        w.command(&running.id, Command::Requeue).await;
        let queued = w.get(&running.id).await.record;
        assert_eq!((queued.run, queued.execution, queued.generation), (failed.run, failed.execution, 1));
        assert_eq!((queued.attempt, queued.interruptions, queued.lost_in_a_row), (0, 0, 0));
        assert_eq!((queued.owner, queued.started_at, queued.finished_at), (None, None, None));
        assert_eq!((queued.handle(), queued.failure(), queued.result()), (None, None, None));
        assert_eq!(queued.attempts(), failed.attempts(), "the history stays");
        assert!(queued.run_at > failed.finished_at.unwrap(), "due from the requeue on");
        let again = w.claim(&owner, 1).await.tasks.remove(0).record;
        assert_eq!((again.run, again.execution, again.attempt), (failed.run + 1, failed.run + 1, 1));
    }

    /// A wish to cancel belongs to its generation: a requeued task runs.
    pub async fn a_requeue_forgets_the_wish_to_cancel(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        w.command(&running.id, Command::Cancel).await;
        w.must(&running, RunEvent::Cancelled).await;
        w.command(&running.id, Command::Requeue).await;
        let again = w.claim(&owner, 1).await.tasks.remove(0);
        assert!(!again.record.cancel_requested && w.beat(&owner).await.cancel.is_empty());
        let ended = w.must(&again, RunEvent::Complete(inline())).await;
        assert_eq!(ended.record.state, State::Succeeded);
    }

    /// `retry export` brings the kept output and handle to whoever adopts the task; nothing runs again.
    pub async fn a_retried_export_needs_no_second_run(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Started(Some(Handle::new("h").unwrap()))).await;
        w.must(&running, RunEvent::Outcome(Some(bytes(b"\0out")))).await;
        let failed = w.must(&running, RunEvent::Fail(failure(FailureKind::Export))).await;
        assert_eq!(failed.record.output(), Some(&bytes(b"\0out")), "kept until delete or requeue");
        w.command(&running.id, Command::RetryExport).await;
        assert_eq!(w.claim_ids(&owner, 10).await, [], "I8: it is not executed again");
        let adopted = w.rescue(&owner, vec![], 10).await.tasks.remove(0);
        assert_eq!((adopted.record.state, adopted.record.finished_at), (State::Exporting, None));
        assert_eq!((adopted.record.execution, adopted.record.attempt), (running.record.execution, 1));
        assert_eq!(adopted.record.handle().map(Handle::as_str), Some("h"));
        assert_eq!(adopted.record.output(), Some(&bytes(b"\0out")));
        let ended = w.must(&adopted, RunEvent::Complete(inline())).await.record;
        assert_eq!((ended.state, ended.failure(), ended.output()), (State::Succeeded, None, None));
    }

    /// I7: a succeeded task carries its result, inline to the byte or as a reference.
    pub async fn a_result_comes_back_as_it_was_given(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let results =
            [ResultRef::Inline(bytes(b"")), ResultRef::Inline(bytes(b"\0\xff")), stored("results/'k' \u{2028}🦀")];
        for result in results {
            let running = w.run(&owner, task()).await;
            let ended = w.must(&running, RunEvent::Complete(result.clone())).await;
            assert_eq!(ended.record.result(), Some(&result));
            assert_eq!((ended.record.handle(), ended.record.failure()), (None, None));
        }
    }

    /// The largest output that fits a row comes back as it was.
    pub async fn an_output_of_the_largest_size_comes_back(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        let output: Vec<u8> = (0..crate::task::OUTPUT_BYTES_MAX).map(|at| (at % 253) as u8).collect();
        let exporting = w.must(&running, RunEvent::Outcome(Some(bytes(&output)))).await;
        assert!(exporting.record.output().unwrap().as_bytes() == output);
        let ended = w.must(&running, RunEvent::Complete(ResultRef::Inline(bytes(&output)))).await;
        assert!(ended.record.result() == Some(&ResultRef::Inline(bytes(&output))));
    }

    /// Handles, progress, messages and all fields of a failure survive, hostile characters included.
    pub async fn handle_progress_and_failure_come_back_as_given(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        let hostile = "'; --\0\u{2028}🦀\"\\";
        let handle = Handle::new(&format!("{hostile}{}", "h".repeat(4_000))).unwrap();
        let progress = crate::Progress { done: u64::MAX, total: u64::MAX, message: hostile.to_owned() };
        let started = w.must(&running, RunEvent::Started(Some(handle.clone()))).await;
        assert_eq!(started.record.handle(), Some(&handle));
        let moved = w.must(&running, RunEvent::Progress(progress.clone())).await;
        assert_eq!((moved.record.handle(), moved.record.progress()), (Some(&handle), Some(&progress)));
        let mut why = crate::Failure::new(FailureKind::Panic, hostile.repeat(200));
        why.fatal = true;
        why.retry_after = Some(std::time::Duration::from_micros(1_500_001));
        why.exit_code = Some(-9);
        let ended = w.must(&running, RunEvent::Fail(why.clone())).await.record;
        assert_eq!(ended.failure(), Some(&why));
        assert_eq!(ended.attempts()[0].failure, why);
        assert_eq!((ended.handle(), ended.progress()), (None, None), "the run is over");
    }

    /// The history keeps the last twenty attempts, oldest first, and leaves out a busy executor.
    pub async fn the_history_of_attempts_is_bounded(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let id = w.add(task()).await;
        let now = w.now().await;
        for n in 0..25 {
            for kind in [FailureKind::Busy, FailureKind::Error] {
                let running = w.claim(&owner, 1).await.tasks.remove(0);
                let why = crate::Failure::new(kind, n.to_string());
                w.must(&running, RunEvent::Release(now, why)).await;
            }
        }
        let record = w.get(&id).await.record;
        let kept: Vec<_> = record.attempts().iter().map(|attempt| attempt.failure.message.clone()).collect();
        assert_eq!(kept, (5..25).map(|n: u32| n.to_string()).collect::<Vec<_>>());
        assert_eq!((record.attempt, record.interruptions, record.run), (50, 50, 50));
        let executions: Vec<_> = record.attempts().iter().map(|attempt| attempt.execution).collect();
        assert!(executions.is_sorted());
    }

    /// A batch of commands acts on each task for itself.
    pub async fn each_command_has_its_own_answer(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.add_all(vec![task_as("held").start(Start::Held), task_as("waiting")]).await;
        w.add(NewTask::new(KIND, &2).unwrap().id("other").unwrap()).await;
        let commands = vec![
            (id("held"), Command::Start),
            (id("nothing"), Command::Cancel),
            (id("waiting"), Command::Delete),
            (id("waiting"), Command::Cancel),
            (id("waiting"), Command::Delete),
        ];
        let answers = w.store.command(commands).await.unwrap();
        assert_eq!(answers, [WAITING, Answer::Missing, no(State::Waiting), CANCELLED, GONE]);
        assert_eq!(w.state(&id("other")).await, State::Waiting);
    }
}
