//! What owners report: every event in every situation, with the answer and its reason.
//!
//! The expected answers are written out in one table, `EXPECTED`, not computed.

use super::StoreHarness;
use super::world::{MINUTE, Replica, World, bytes, failure, id, inline, task_as, token};
use crate::clock::Timestamp;
use crate::state::{Command, Refusal, RunEvent};
use crate::store::Answer;
use crate::task::{FailureKind, Handle, Progress, Record, ReplicaId, Start, State, Task, Token};

/// An event, by its row of the table.
#[derive(Debug, Clone, Copy)]
enum Row {
    Started,
    Progress,
    StopUnconfirmed,
    Outcome,
    Complete,
    Retry,
    Release,
    Fail,
    Cancelled,
}

/// Where the task stands, by its column of the table; the reporter holds its current or last token.
#[derive(Debug, Clone, Copy)]
enum Column {
    Running,
    CancelWished,
    Exporting,
    AfterRetry,
    Succeeded,
    Failed,
    Cancelled,
}

const TO_RUNNING: Answer = Answer::Applied(Some(State::Running));
const TO_EXPORTING: Answer = Answer::Applied(Some(State::Exporting));
const TO_WAITING: Answer = Answer::Applied(Some(State::Waiting));
const TO_SUCCEEDED: Answer = Answer::Applied(Some(State::Succeeded));
const TO_FAILED: Answer = Answer::Applied(Some(State::Failed));
const TO_CANCELLED: Answer = Answer::Applied(Some(State::Cancelled));
const IN_EXPORTING: Answer = Answer::Refused(Refusal::Illegal(State::Exporting));
const OVER_WAITING: Answer = Answer::Refused(Refusal::Ended(State::Waiting));
const OVER_SUCCEEDED: Answer = Answer::Refused(Refusal::Ended(State::Succeeded));
const OVER_FAILED: Answer = Answer::Refused(Refusal::Ended(State::Failed));
const OVER_CANCELLED: Answer = Answer::Refused(Refusal::Ended(State::Cancelled));
const ALREADY_EXPORTING: Answer = Answer::Already(State::Exporting);
const ALREADY_WAITING: Answer = Answer::Already(State::Waiting);
const ALREADY_SUCCEEDED: Answer = Answer::Already(State::Succeeded);
const ALREADY_FAILED: Answer = Answer::Already(State::Failed);
const ALREADY_CANCELLED: Answer = Answer::Already(State::Cancelled);
const NOT_REQUESTED: Answer = Answer::Refused(Refusal::NotRequested);
const STALE: Answer = Answer::Refused(Refusal::Stale);

/// One row per event, one column per situation, both in the order of their declaration.
#[rustfmt::skip]
const EXPECTED: [[Answer; 7]; 9] = [
    //  running        cancel wished  exporting          after retry      succeeded          failed          cancelled
    [TO_RUNNING,    TO_RUNNING,    IN_EXPORTING,      OVER_WAITING,    OVER_SUCCEEDED,    OVER_FAILED,    OVER_CANCELLED],
    [TO_RUNNING,    TO_RUNNING,    IN_EXPORTING,      OVER_WAITING,    OVER_SUCCEEDED,    OVER_FAILED,    OVER_CANCELLED],
    [TO_RUNNING,    TO_RUNNING,    IN_EXPORTING,      OVER_WAITING,    OVER_SUCCEEDED,    OVER_FAILED,    OVER_CANCELLED],
    [TO_EXPORTING,  TO_CANCELLED,  ALREADY_EXPORTING, OVER_WAITING,    OVER_SUCCEEDED,    OVER_FAILED,    ALREADY_CANCELLED],
    [TO_SUCCEEDED,  TO_CANCELLED,  TO_SUCCEEDED,      OVER_WAITING,    ALREADY_SUCCEEDED, OVER_FAILED,    ALREADY_CANCELLED],
    [TO_WAITING,    TO_CANCELLED,  IN_EXPORTING,      ALREADY_WAITING, OVER_SUCCEEDED,    OVER_FAILED,    ALREADY_CANCELLED],
    [TO_WAITING,    TO_CANCELLED,  IN_EXPORTING,      ALREADY_WAITING, OVER_SUCCEEDED,    OVER_FAILED,    ALREADY_CANCELLED],
    [TO_FAILED,     TO_CANCELLED,  TO_FAILED,         OVER_WAITING,    OVER_SUCCEEDED,    ALREADY_FAILED, ALREADY_CANCELLED],
    [NOT_REQUESTED, TO_CANCELLED,  IN_EXPORTING,      OVER_WAITING,    OVER_SUCCEEDED,    OVER_FAILED,    ALREADY_CANCELLED],
];

const LATER: Timestamp = Timestamp::from_micros(4_000_000_000_000_001);

impl Row {
    fn event(self) -> RunEvent {
        match self {
            Row::Started => RunEvent::Started(Some(Handle::new("container 7").unwrap())),
            Row::Progress => RunEvent::Progress(Progress { done: 3, total: 9, message: "third 🦀".to_owned() }),
            Row::StopUnconfirmed => RunEvent::StopUnconfirmed,
            Row::Outcome => RunEvent::Outcome(Some(bytes(b"\0out"))),
            Row::Complete => RunEvent::Complete(inline()),
            Row::Retry => RunEvent::Retry(LATER, failure(FailureKind::Error)),
            Row::Release => RunEvent::Release(LATER, failure(FailureKind::Lost)),
            Row::Fail => RunEvent::Fail(failure(FailureKind::Timeout)),
            Row::Cancelled => RunEvent::Cancelled,
        }
    }

    /// What the event leaves in a running task's record, beyond its state.
    fn check(self, before: &Record, after: &Record) {
        match self {
            Row::Started => assert_eq!(after.handle().map(Handle::as_str), Some("container 7")),
            Row::Progress => assert_eq!(after.progress().map(|it| (it.done, it.total)), Some((3, 9))),
            Row::StopUnconfirmed => assert!(after.stop_unconfirmed),
            Row::Outcome => assert_eq!(after.output(), Some(&bytes(b"\0out"))),
            Row::Complete => assert_eq!(after.result(), Some(&inline())),
            Row::Retry => assert_eq!((after.run_at, after.interruptions), (LATER, before.interruptions)),
            Row::Release => {
                assert_eq!((after.run_at, after.interruptions), (LATER, before.interruptions + 1));
                assert_eq!(after.lost_in_a_row, before.lost_in_a_row + 1);
            }
            Row::Fail => assert_eq!(after.failure(), Some(&failure(FailureKind::Timeout))),
            Row::Cancelled => {}
        }
        assert_eq!((after.run, after.execution), (before.run, before.execution), "only a claim moves the fence");
        assert_eq!((after.attempt, after.owner), (before.attempt, before.owner), "the owner stays in the row");
        assert_eq!(after.finished_at.is_some(), after.state.is_terminal());
        if matches!(self, Row::Retry | Row::Release | Row::Fail) {
            let last = after.attempts().last().expect("the attempt is remembered");
            assert_eq!((last.attempt, last.execution), (before.attempt, before.execution));
            assert_eq!((Some(last.replica), Some(last.started_at)), (before.owner, before.started_at));
            assert!(last.ended_at >= last.started_at + MINUTE, "the end is stamped by the store");
            assert_eq!(Some(&last.failure), after.failure());
        }
    }
}

/// A running task, its owner, and a token that was never its own.
struct Bench<'a> {
    w: World<'a>,
    owner: Replica,
    task: Task,
}

impl<'a> Bench<'a> {
    /// The task ran a minute ago, so that stamps can be told apart.
    async fn running(h: &'a dyn StoreHarness) -> Self {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let task = w.run(&owner, task_as("t")).await;
        w.pass(MINUTE).await;
        Bench { w, owner, task }
    }

    async fn at(h: &'a dyn StoreHarness, column: Column) -> Self {
        let bench = Bench::running(h).await;
        let events = match column {
            Column::Running => vec![],
            Column::Exporting => vec![RunEvent::Outcome(Some(bytes(b"1")))],
            Column::AfterRetry => vec![RunEvent::Retry(LATER, failure(FailureKind::Error))],
            Column::Succeeded => vec![RunEvent::Complete(inline())],
            Column::Failed => vec![RunEvent::Fail(failure(FailureKind::Error))],
            Column::CancelWished | Column::Cancelled => {
                assert_eq!(bench.w.command(&bench.task.id, Command::Cancel).await, TO_RUNNING);
                if matches!(column, Column::Cancelled) { vec![RunEvent::Cancelled] } else { vec![] }
            }
        };
        for event in events {
            bench.w.must(&bench.task, event).await;
        }
        bench
    }

    /// Reports with a token and compares answer, reason and record.
    async fn expect(&self, row: Row, token: Token, expected: Answer) {
        let before = self.w.get(&self.task.id).await;
        let answer = self.w.apply(&self.task.id, token, row.event()).await;
        assert_eq!(answer, expected, "{row:?} while {}", before.record.state);
        let after = self.w.get(&self.task.id).await;
        assert_eq!(after.spec, before.spec, "what was asked never changes");
        match answer {
            Answer::Applied(state) => assert_eq!(Some(after.record.state), state),
            _ => assert_eq!(after, before, "{answer:?} changes nothing"),
        }
    }
}

async fn from(h: &dyn StoreHarness, row: Row, column: Column) {
    let bench = Bench::at(h, column).await;
    let before = bench.w.get(&bench.task.id).await.record;
    bench.expect(row, token(&bench.task), EXPECTED[row as usize][column as usize]).await;
    if matches!(column, Column::Running) && !matches!(row, Row::Cancelled) {
        row.check(&before, &bench.w.get(&bench.task.id).await.record);
    }
}

/// A run of the same owner that has been claimed again since.
async fn by_an_earlier_run(h: &dyn StoreHarness, row: Row) {
    let bench = Bench::running(h).await;
    let now = bench.w.now().await;
    bench.w.must(&bench.task, RunEvent::Release(now, failure(FailureKind::Drained))).await;
    let again = bench.w.claim(&bench.owner, 1).await.tasks.remove(0);
    assert_eq!((again.record.run, again.record.owner), (bench.task.record.run + 1, bench.task.record.owner));
    bench.expect(row, token(&bench.task), STALE).await;
}

/// A replica that lives, with the right run number, but does not own it.
async fn by_another_owner(h: &dyn StoreHarness, row: Row) {
    let bench = Bench::running(h).await;
    let other = bench.w.replica().await;
    bench.expect(row, Token { owner: other.id, ..token(&bench.task) }, STALE).await;
    let future = Token { run: bench.task.record.run + 1, ..token(&bench.task) };
    bench.expect(row, future, STALE).await;
}

/// A task that nobody has ever owned.
async fn to_an_unowned_task(h: &dyn StoreHarness, row: Row) {
    let w = World::open(h).await;
    w.add_all(vec![task_as("held").start(Start::Held), task_as("waiting")]).await;
    for text in ["held", "waiting"] {
        let before = w.get(&id(text)).await;
        for run in [0, 1] {
            let token = Token { owner: ReplicaId::from_bytes([0; 16]), run };
            assert_eq!(w.apply(&id(text), token, row.event()).await, STALE, "{text}");
        }
        assert_eq!(w.get(&id(text)).await, before);
    }
}

/// A task that is not there.
async fn to_a_missing_task(h: &dyn StoreHarness, row: Row) {
    let w = World::open(h).await;
    let token = Token { owner: w.replica().await.id, run: 1 };
    assert_eq!(w.apply(&id("nothing"), token, row.event()).await, Answer::Missing);
    assert_eq!(w.find(&id("nothing")).await, None);
}

/// The reply was lost and the report is repeated: nothing changes, and the answer is a success.
async fn repeated(h: &dyn StoreHarness, row: Row) {
    let wished = matches!(row, Row::Cancelled);
    let bench = Bench::at(h, if wished { Column::CancelWished } else { Column::Running }).await;
    let first = bench.w.report(&bench.task, row.event()).await;
    let between = bench.w.get(&bench.task.id).await;
    let second = bench.w.report(&bench.task, row.event()).await;
    let repeats = matches!(row, Row::Started | Row::Progress | Row::StopUnconfirmed);
    let state = first.state().expect("the first is applied");
    assert_eq!(second, if repeats { first } else { Answer::Already(state) });
    assert_eq!(bench.w.get(&bench.task.id).await, between, "the repeat changes nothing");
}

/// Twice in one call is as good as twice in two.
async fn twice_in_one_call(h: &dyn StoreHarness, row: Row) {
    let wished = matches!(row, Row::Cancelled);
    let bench = Bench::at(h, if wished { Column::CancelWished } else { Column::Running }).await;
    let change = crate::store::Change { id: bench.task.id.clone(), token: token(&bench.task), event: row.event() };
    let answers = bench.w.store.apply(vec![change.clone(), change]).await.unwrap();
    let repeats = matches!(row, Row::Started | Row::Progress | Row::StopUnconfirmed);
    let state = answers[0].state().expect("the first is applied");
    assert_eq!(answers[1], if repeats { answers[0] } else { Answer::Already(state) });
    assert!(bench.w.get(&bench.task.id).await.record.attempts().len() <= 1, "counted once");
}

/// A report from before a requeue.
async fn after_a_requeue(h: &dyn StoreHarness, row: Row) {
    let bench = Bench::at(h, Column::Failed).await;
    assert_eq!(bench.w.command(&bench.task.id, Command::Requeue).await, TO_WAITING);
    bench.expect(row, token(&bench.task), STALE).await;
    let again = bench.w.claim(&bench.owner, 1).await.tasks.remove(0);
    assert!(again.record.run > bench.task.record.run, "the fence is never reset");
    bench.expect(row, token(&bench.task), STALE).await;
}

/// The owner before an adoption writes nothing more; the adopter writes as the owner did.
async fn after_an_adoption(h: &dyn StoreHarness, row: Row) {
    let bench = Bench::running(h).await;
    let adopter = bench.w.replica().await;
    let adopted = bench.w.take_over(&bench.owner, &adopter).await.remove(0);
    bench.expect(row, token(&bench.task), STALE).await;
    bench.expect(row, Token { owner: adopter.id, ..token(&bench.task) }, STALE).await;
    bench.expect(row, token(&adopted), EXPECTED[row as usize][Column::Running as usize]).await;
}

/// After `retry export` nobody owns the task until it is adopted.
async fn after_a_retried_export(h: &dyn StoreHarness, row: Row) {
    let bench = Bench::at(h, Column::Exporting).await;
    bench.w.must(&bench.task, RunEvent::Fail(failure(FailureKind::Export))).await;
    assert_eq!(bench.w.command(&bench.task.id, Command::RetryExport).await, TO_EXPORTING);
    bench.expect(row, token(&bench.task), STALE).await;
    let adopter = bench.w.replica().await;
    let adopted = bench.w.rescue(&adopter, vec![], 10).await.tasks.remove(0);
    bench.expect(row, token(&adopted), EXPECTED[row as usize][Column::Exporting as usize]).await;
}

/// Makes one module of cases per event.
macro_rules! event_cases {
    ($($module:ident = $row:ident;)*) => {$(
        #[doc = concat!("`RunEvent::", stringify!($row), "` in every situation.")]
        pub mod $module {
            use super::{Column, Row, StoreHarness};
            event_cases! { @from $row
                from_running: Running, "from running, with what it leaves in the record",
                with_a_cancel_wished: CancelWished, "after the wish to cancel was stored",
                while_exporting: Exporting, "while the result is being saved",
                after_a_retry: AfterRetry, "after the run was given back",
                after_success: Succeeded, "after the task succeeded",
                after_failure: Failed, "after the task failed",
                after_cancellation: Cancelled, "after the task was cancelled",
            }
            event_cases! { @with $row
                by_an_earlier_run, "by an earlier run of the same owner",
                by_another_owner, "by a replica that does not own the task",
                to_an_unowned_task, "to a task that was never claimed",
                to_a_missing_task, "to a task that does not exist",
                repeated, "repeated because its reply was lost",
                twice_in_one_call, "twice in one call",
                after_a_requeue, "from before a requeue",
                after_an_adoption, "from before an adoption, and by the adopter",
                after_a_retried_export, "after an export is retried",
            }
        }
    )*};
    (@from $row:ident $($case:ident: $column:ident, $doc:literal,)*) => {$(
        #[doc = concat!(stringify!($row), " ", $doc, ".")]
        pub async fn $case(h: &dyn StoreHarness) {
            super::from(h, Row::$row, Column::$column).await;
        }
    )*};
    (@with $row:ident $($case:ident, $doc:literal,)*) => {$(
        #[doc = concat!(stringify!($row), " ", $doc, ".")]
        pub async fn $case(h: &dyn StoreHarness) {
            super::$case(h, Row::$row).await;
        }
    )*};
}

event_cases! {
    run_started = Started;
    run_progress = Progress;
    run_stop_unconfirmed = StopUnconfirmed;
    run_outcome = Outcome;
    run_complete = Complete;
    run_retry = Retry;
    run_release = Release;
    run_fail = Fail;
    run_cancelled = Cancelled;
}
