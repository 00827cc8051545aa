//! Reports pushed from outside: early, late, twice, foreign.

use super::StoreHarness;
use super::world::{MINUTE, Replica, World, bytes, failure, id, inline, task};
use crate::state::{Command, RunEvent};
use crate::store::{Report, Said};
use crate::task::{FailureKind, Outcome, Progress, Task};

fn progress(done: u64) -> Said {
    Said::Progress(Progress { done, total: 10, message: "'\0\u{2028}🦀".to_owned() })
}

fn success(output: &[u8]) -> Said {
    Said::Ended(Outcome::Succeeded(Some(bytes(output))))
}

fn failed() -> Said {
    Said::Ended(Outcome::Failed(failure(FailureKind::Error)))
}

fn report(task: &Task, said: Said) -> Report {
    Report { id: task.id.clone(), execution: task.record.execution, said }
}

async fn post(w: &World<'_>, report: Report) -> bool {
    let answers = w.store.post_reports(vec![report]).await.unwrap();
    assert_eq!(answers.len(), 1, "one answer per item");
    answers[0]
}

async fn fetch(w: &World<'_>, replica: &Replica) -> Vec<Said> {
    w.beat(replica).await.reports.into_iter().map(|report| report.said).collect()
}

/// A progress reaches the owner once, whole, and changes nothing by itself.
pub async fn a_progress_reaches_its_owner_once(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, other) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    let sent = report(&running, progress(1));
    assert!(post(&w, sent.clone()).await);
    assert_eq!(w.get(&running.id).await, running, "only the owner writes the progress");
    assert!(fetch(&w, &other).await.is_empty());
    assert_eq!(w.beat(&owner).await.reports, [sent]);
    assert!(fetch(&w, &owner).await.is_empty());
}

/// An outcome reaches the owner, whole, with every heartbeat until its run has ended, and changes nothing by
/// itself: a reply may be lost, or come before the owner knows the run.
pub async fn an_outcome_is_repeated_until_its_run_has_ended(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, other) = (w.replica().await, w.replica().await);
    for end in [
        RunEvent::Outcome(Some(bytes(b"1"))),
        RunEvent::Complete(inline()),
        RunEvent::Fail(failure(FailureKind::Error)),
    ] {
        let running = w.run(&owner, task()).await;
        let sent = report(&running, success(b"\0out\xff"));
        assert!(post(&w, sent.clone()).await);
        for _ in 0..3 {
            assert!(fetch(&w, &other).await.is_empty());
            assert_eq!(w.beat(&owner).await.reports, std::slice::from_ref(&sent));
        }
        assert_eq!(w.get(&running.id).await, running, "only the owner writes the outcome");
        w.must(&running, RunEvent::Started(None)).await;
        assert_eq!(w.beat(&owner).await.reports, [sent], "it still runs");
        w.must(&running, end.clone()).await;
        assert!(fetch(&w, &owner).await.is_empty(), "after {end:?}");
    }
}

/// What was said before does not keep back what comes after it.
pub async fn repeated_outcomes_leave_room_for_others(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let large = success(&vec![b'x'; crate::task::OUTPUT_BYTES_MAX]);
    for _ in 0..5 {
        let running = w.run(&owner, task()).await;
        assert!(post(&w, report(&running, large.clone())).await);
        fetch(&w, &owner).await;
    }
    let last = w.run(&owner, task()).await;
    assert!(post(&w, report(&last, progress(1))).await);
    assert!(fetch(&w, &owner).await.contains(&progress(1)));
}

/// Every kind of report comes through unchanged: progress, failure, success without an output.
pub async fn every_kind_of_report_comes_through(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let mut why = failure(FailureKind::Panic);
    why.exit_code = Some(139);
    why.retry_after = Some(MINUTE);
    why.fatal = true;
    let said =
        [progress(u64::MAX), Said::Ended(Outcome::Failed(why)), Said::Ended(Outcome::Succeeded(None)), success(b"")];
    for said in said {
        let running = w.run(&owner, task()).await;
        assert!(post(&w, report(&running, said.clone())).await);
        assert_eq!(fetch(&w, &owner).await, [said]);
        w.must(&running, RunEvent::Fail(failure(FailureKind::Error))).await;
    }
}

/// A report may come before the owner has stored the handle.
pub async fn an_early_report_is_kept(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    assert!(post(&w, report(&running, success(b"1"))).await);
    w.must(&running, RunEvent::Started(None)).await;
    assert_eq!(fetch(&w, &owner).await, [success(b"1")]);
}

/// A report for a task that is not there, or was never started, is dropped.
pub async fn a_report_without_a_run_is_dropped(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let waiting = w.get(&w.add(task()).await).await;
    for execution in [0, 1] {
        let foreign = Report { id: id("nothing"), execution, said: failed() };
        assert!(!post(&w, foreign).await);
        assert!(!post(&w, Report { execution, ..report(&waiting, failed()) }).await);
    }
    let owner = w.replica().await;
    assert_eq!(w.claim(&owner, 1).await.tasks.len(), 1);
    assert!(fetch(&w, &owner).await.is_empty(), "the run that came later hears nothing of it");
}

/// A report of another execution is dropped, be it past or to come.
pub async fn a_foreign_execution_is_dropped(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let first = w.run(&owner, task()).await;
    let now = w.now().await;
    w.must(&first, RunEvent::Release(now, failure(FailureKind::Lost))).await;
    let second = w.claim(&owner, 1).await.tasks.remove(0);
    assert!(!post(&w, report(&first, success(b"old"))).await);
    assert!(!post(&w, Report { execution: second.record.execution + 1, ..report(&second, success(b"new")) }).await);
    assert!(fetch(&w, &owner).await.is_empty());
    assert!(post(&w, report(&second, success(b"right"))).await);
}

/// A report after the end is dropped, however the run ended.
pub async fn a_late_report_is_dropped(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let far = w.now().await + MINUTE * 1_000;
    let ends = [
        RunEvent::Outcome(None),
        RunEvent::Complete(inline()),
        RunEvent::Fail(failure(FailureKind::Timeout)),
        RunEvent::Retry(far, failure(FailureKind::Error)),
        RunEvent::Cancelled,
    ];
    for end in ends {
        let running = w.run(&owner, task()).await;
        if end == RunEvent::Cancelled {
            w.command(&running.id, Command::Cancel).await;
        }
        let ended = w.must(&running, end.clone()).await;
        assert!(!post(&w, report(&running, success(b"late"))).await, "after {end:?}");
        assert_eq!(w.get(&running.id).await, ended);
    }
    assert!(fetch(&w, &owner).await.is_empty());
}

/// A report that nobody fetched before its run ended does not reach the next run.
pub async fn an_unfetched_report_dies_with_its_run(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let first = w.run(&owner, task()).await;
    assert!(post(&w, report(&first, success(b"old"))).await);
    let now = w.now().await;
    w.must(&first, RunEvent::Release(now, failure(FailureKind::Lost))).await;
    assert!(fetch(&w, &owner).await.is_empty());
    w.claim(&owner, 1).await;
    assert!(fetch(&w, &owner).await.is_empty());
}

/// Of several outcomes of one execution the first is kept; the others are taken and dropped.
pub async fn the_first_outcome_wins(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    for said in [success(b"first"), failed(), success(b"first"), progress(9)] {
        assert!(post(&w, report(&running, said)).await);
    }
    assert_eq!(fetch(&w, &owner).await, [success(b"first")]);
}

/// After the outcome was handed out, later reports are taken and dropped; it is the first that is repeated.
pub async fn reports_after_a_fetched_outcome_are_dropped(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    assert!(post(&w, report(&running, success(b"first"))).await);
    assert_eq!(fetch(&w, &owner).await.len(), 1);
    for said in [failed(), success(b"first"), progress(9)] {
        assert!(post(&w, report(&running, said)).await);
        assert_eq!(fetch(&w, &owner).await, [success(b"first")]);
    }
}

/// An outcome replaces a progress that was not fetched yet; new progress after a fetch is news.
pub async fn an_outcome_replaces_progress(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    assert!(post(&w, report(&running, progress(1))).await);
    assert_eq!(fetch(&w, &owner).await, [progress(1)]);
    assert!(post(&w, report(&running, progress(2))).await);
    assert_eq!(fetch(&w, &owner).await, [progress(2)]);
    assert!(post(&w, report(&running, progress(3))).await);
    assert!(post(&w, report(&running, failed())).await);
    assert_eq!(fetch(&w, &owner).await, [failed()]);
}

/// The next owner of the same execution gets a report that the last one had fetched and not acted upon.
pub async fn an_adopter_gets_the_report_again(h: &dyn StoreHarness) {
    for (said, repeated) in [(progress(1), false), (success(b"1"), true)] {
        let w = World::open(h).await;
        let (owner, heir) = (w.replica().await, w.replica().await);
        let running = w.run(&owner, task()).await;
        assert!(post(&w, report(&running, said.clone())).await);
        assert_eq!(fetch(&w, &owner).await.len(), 1);
        let adopted = w.take_over(&owner, &heir).await.remove(0);
        assert_eq!(adopted.record.execution, running.record.execution);
        assert_eq!(fetch(&w, &heir).await, std::slice::from_ref(&said));
        assert_eq!(fetch(&w, &heir).await.len(), usize::from(repeated), "{said:?}");
    }
}

/// A report posted while the owner is dead, under the execution it knows, reaches the adopter.
pub async fn a_report_survives_the_death_of_its_owner(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    w.store.leave(owner.id).await.unwrap();
    assert!(post(&w, report(&running, success(b"1"))).await);
    w.rescue(&heir, vec![], 9).await;
    assert_eq!(fetch(&w, &heir).await, [success(b"1")]);
    assert!(post(&w, report(&running, failed())).await, "after the adoption too the execution is the same");
    assert_eq!(fetch(&w, &heir).await, [success(b"1")], "but the first outcome stands");
}

/// A batch of reports gives each its own answer.
pub async fn each_report_has_its_own_answer(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.add_all(vec![task(); 3]).await;
    let running = w.claim(&owner, 3).await.tasks;
    let foreign = Report { execution: 99, ..report(&running[1], failed()) };
    let sent =
        vec![report(&running[0], failed()), foreign, report(&running[2], progress(1)), report(&running[0], failed())];
    assert_eq!(w.store.post_reports(sent).await.unwrap(), [true, false, true, true]);
    let mut told: Vec<_> = w.beat(&owner).await.reports.into_iter().map(|report| report.id).collect();
    told.sort();
    let mut expected = vec![running[0].id.clone(), running[2].id.clone()];
    expected.sort();
    assert_eq!(told, expected);
}

/// A task requeued while an old execution still talks hears nothing of it.
pub async fn a_requeued_task_hears_nothing_old(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let first = w.run(&owner, task()).await;
    w.must(&first, RunEvent::Fail(failure(FailureKind::Lost))).await;
    w.command(&first.id, Command::Requeue).await;
    assert!(!post(&w, report(&first, success(b"old"))).await);
    let second = w.claim(&owner, 1).await.tasks.remove(0);
    assert!(second.record.execution > first.record.execution);
    assert!(!post(&w, report(&first, success(b"old"))).await);
    assert!(fetch(&w, &owner).await.is_empty());
}
