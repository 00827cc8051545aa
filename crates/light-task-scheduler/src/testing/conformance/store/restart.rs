//! What survives the end of a process, and what two of them share.

use std::collections::BTreeSet;

use super::StoreHarness;
use super::world::{
    MINUTE, Replica, World, bytes, concurrency, failure, id, ids, inline, name, paused, stored, task, task_as, texts,
};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::retry::RetryPolicy;
use crate::state::{Command, RunEvent};
use crate::store::{Inserted, NewReplica, QueueSettings, Report, Said, TaskQuery};
use crate::task::{Failure, FailureKind, Handle, Outcome, Progress, Start, State, Task};

/// Tasks in every state with every field set that the state allows.
async fn fill(w: &World<'_>, owner: &Replica) {
    let deadline = w.now().await + MINUTE * 10_000;
    let rich = |id: &str| {
        let new = task_as(id).queue("rich").and_then(|task| task.label("l", "v'\0\u{2028}")).unwrap();
        new.priority(-3).timeout(MINUTE).deadline(deadline).retry(RetryPolicy::attempts(5))
    };
    let mut why = Failure::new(FailureKind::Lost, "\0'🦀");
    (why.fatal, why.retry_after, why.exit_code) = (true, Some(MINUTE), Some(-1));
    let handle = RunEvent::Started(Some(Handle::new("handle\0'").unwrap()));
    let progress = RunEvent::Progress(Progress { done: 1, total: u64::MAX, message: "half".to_owned() });
    let ends = [
        ("running", vec![handle.clone(), progress.clone(), RunEvent::StopUnconfirmed]),
        ("exporting", vec![handle.clone(), RunEvent::Outcome(Some(bytes(b"\0\xff")))]),
        ("retrying", vec![handle, RunEvent::Release(deadline, why.clone())]),
        ("inline", vec![RunEvent::Complete(inline())]),
        ("stored", vec![RunEvent::Complete(stored("k'"))]),
        ("failed", vec![progress, RunEvent::Fail(why)]),
        ("export failed", vec![RunEvent::Outcome(Some(bytes(b"1"))), RunEvent::Fail(failure(FailureKind::Export))]),
        ("cancelled", vec![RunEvent::Cancelled]),
        ("requeued", vec![RunEvent::Fail(failure(FailureKind::Error))]),
        ("wished", vec![]),
    ];
    for (id, events) in ends {
        let running = w.run(owner, rich(id)).await;
        if id == "cancelled" || id == "wished" {
            w.command(&running.id, Command::Cancel).await;
        }
        w.pass(MINUTE / 10).await;
        for event in events {
            w.must(&running, event).await;
        }
    }
    w.command(&id("requeued"), Command::Requeue).await;
    w.add_all(vec![rich("waiting"), rich("held").start(Start::Held), rich("delayed").start(Start::After(MINUTE))])
        .await;
}

/// What survives the end of the process.
pub mod durable {
    use super::*;

    /// Every task comes back whole: every state, every field.
    pub async fn every_field_of_every_task(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        fill(&w, &owner).await;
        let before = w.list(TaskQuery::default()).await;
        assert_eq!(before.iter().map(|task| task.record.state).collect::<BTreeSet<_>>().len(), State::ALL.len());
        let w = w.restart().await;
        assert_eq!(w.list(TaskQuery::default()).await, before);
    }

    /// What was rescheduled comes back with its new time and priority, and in its new place.
    pub async fn a_new_time_and_priority(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.add_all(vec![task_as("first"), task_as("second").start(Start::After(MINUTE)), task_as("third")]).await;
        w.pass(MINUTE / 2).await;
        let at = w.now().await + MINUTE * 2;
        let later = Command::Reschedule { run_at: Some(at), priority: Some(3) };
        let now = Command::Reschedule { run_at: Some(Timestamp::default()), priority: None };
        w.store.command(vec![(id("first"), later), (id("second"), now)]).await.unwrap();
        let before = w.list(TaskQuery::default()).await;
        let w = w.restart().await;
        assert_eq!(w.list(TaskQuery::default()).await, before);
        let first = w.get(&id("first")).await;
        assert_eq!((first.record.run_at, first.spec.priority), (at, 3));
        let replica = w.replica().await;
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["third", "second"]);
        w.pass(MINUTE * 3).await;
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["first"]);
    }

    /// Counts, queues and their settings come back.
    pub async fn counts_and_queues(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        fill(&w, &owner).await;
        let rate = RateLimit { count: 3, period: MINUTE, burst: 2 };
        w.set("set", QueueSettings { concurrency: Some(2), rate: Some(rate), paused: true }).await;
        let (counts, queues) = (w.store.counts().await.unwrap(), w.store.queues().await.unwrap());
        let w = w.restart().await;
        assert_eq!(w.store.counts().await.unwrap(), counts);
        assert_eq!(w.store.queues().await.unwrap(), queues);
    }

    /// Waiting tasks run in the same order, delayed ones not before their time.
    pub async fn the_order_of_what_waits(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let expected = w.add_all((0..50).map(|_| task()).collect()).await;
        w.add(task().start(Start::After(MINUTE * 5))).await;
        let w = w.restart().await;
        let replica = w.replica().await;
        assert_eq!(w.claim_ids(&replica, 99).await, expected);
        let later = w.add(task()).await;
        assert_eq!(w.claim_ids(&replica, 99).await, [later]);
    }

    /// Ids stay known, removed ones too: a batch that is sent again makes no second task.
    pub async fn ids_and_tombstones(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.add_all(vec![task_as("there"), task_as("gone").start(Start::Held)]).await;
        w.command(&id("gone"), Command::Delete).await;
        let w = w.restart().await;
        let answers: Vec<_> = w.insert(vec![task_as("there"), task_as("gone")]).await.into_iter().flatten().collect();
        assert_eq!(answers, [Inserted::Existing(id("there"), State::Waiting), Inserted::Removed(id("gone"))]);
    }

    /// A running task stays owned over the restart; its old owner is listed and it can be adopted with its handle.
    pub async fn ownership_and_adoption(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Started(Some(Handle::new("h").unwrap()))).await;
        let w = w.restart().await;
        let heir = w.replica().await;
        assert_eq!(w.claim_ids(&heir, 9).await, [], "it runs: it is not started again");
        w.pass(super::super::world::TTL + MINUTE).await;
        w.beat(&heir).await;
        let suspect = w.suspect(&owner).await;
        let rescued = w.rescue(&heir, vec![suspect], 9).await;
        assert_eq!(rescued.dead, [owner.id]);
        let record = &rescued.tasks[0].record;
        assert_eq!((record.run, record.execution), (running.record.run + 1, running.record.execution));
        assert_eq!(record.handle().map(Handle::as_str), Some("h"));
    }

    /// A limit counts what ran before the restart.
    pub async fn a_limit_counts_what_ran_before(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.set("default", concurrency(2)).await;
        let owner = w.replica().await;
        w.add_all(vec![task(); 5]).await;
        assert_eq!(w.claim_ids(&owner, 9).await.len(), 2);
        let w = w.restart().await;
        let other = w.replica().await;
        assert_eq!(w.claim_ids(&other, 9).await, []);
    }

    /// A spent rate stays spent.
    pub async fn a_rate_stays_spent(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let rate = RateLimit { count: 1, period: MINUTE * 10, burst: 2 };
        w.set("default", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
        w.add_all(vec![task(); 5]).await;
        let owner = w.replica().await;
        assert_eq!(w.claim_ids(&owner, 9).await.len(), 2);
        let w = w.restart().await;
        let other = w.replica().await;
        assert_eq!(w.claim_ids(&other, 9).await, []);
    }

    /// The dead stay dead, and used ids used.
    pub async fn the_dead_stay_dead(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let left = w.replica().await;
        w.store.leave(left.id).await.unwrap();
        let w = w.restart().await;
        let again = NewReplica { id: left.id, name: "again".to_owned(), ttl: MINUTE, remote: false };
        assert_eq!(w.store.register(again).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(w.store.claim(left.request(1)).await.unwrap_err().kind(), ErrorKind::NotRegistered);
    }

    /// Who was told to drain is told again, and claims nothing.
    pub async fn who_drains_goes_on_draining(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        w.add(task()).await;
        w.store.drain(replica.id).await.unwrap();
        let w = w.restart().await;
        assert_eq!(w.claim_ids(&replica, 1).await, []);
        assert!(w.beat(&replica).await.drain);
        let other = w.replica().await;
        assert_eq!(w.claim_ids(&other, 1).await.len(), 1);
    }

    /// Posted reports and unconfirmed garbage are not lost.
    pub async fn reports_and_garbage(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let owner = w.replica().await;
        let done = w.run(&owner, task()).await;
        w.must(&done, RunEvent::Complete(stored("k"))).await;
        w.command(&done.id, Command::Delete).await;
        let running = w.run(&owner, task()).await;
        let said = Said::Ended(Outcome::Succeeded(Some(bytes(b"\0out"))));
        let report = Report { id: running.id.clone(), execution: running.record.execution, said };
        w.store.post_reports(vec![report.clone()]).await.unwrap();
        w.store.leave(owner.id).await.unwrap();
        let w = w.restart().await;
        let heir = w.replica().await;
        w.rescue(&heir, vec![], 9).await;
        assert_eq!(w.beat(&heir).await.reports, [report]);
        assert_eq!(super::super::retention::sweep_garbage(&w).await, ["k"]);
    }

    /// The store's time and its write counter go on from where they were.
    pub async fn time_and_write_counter_go_on(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        w.add(task()).await;
        w.pass(MINUTE).await;
        let before = w.beat(&replica).await;
        let w = w.restart().await;
        let other = w.replica().await;
        let after = w.beat(&other).await;
        assert!(after.now >= before.now && after.op_seq > before.op_seq && after.epoch == before.epoch);
    }
}

/// What two processes share.
pub mod shared {
    use super::*;

    /// What one has taken in the other sees, claims and ends; the first sees the end.
    pub async fn both_see_one_store(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let id = a.add(task_as("t")).await;
        assert_eq!(
            b.insert(vec![task_as("t")]).await.remove(0).unwrap(),
            Inserted::Existing(id.clone(), State::Waiting)
        );
        let replica = b.replica().await;
        let running = b.claim(&replica, 9).await.tasks.remove(0);
        assert_eq!(a.get(&id).await, running);
        a.command(&id, Command::Cancel).await;
        assert_eq!(b.beat(&replica).await.cancel, std::slice::from_ref(&id));
        b.must(&running, RunEvent::Cancelled).await;
        assert_eq!(a.state(&id).await, State::Cancelled);
        assert_eq!(a.list(TaskQuery::default()).await, b.list(TaskQuery::default()).await);
    }

    /// Claims through two handles never share a task, and keep one order.
    pub async fn claims_are_exclusive(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (ra, rb) = (a.replica().await, b.replica().await);
        let all = a.add_all((0..40).map(|_| task()).collect()).await;
        let mut claimed = vec![];
        for _ in 0..5 {
            claimed.extend(a.claim_ids(&ra, 4).await);
            claimed.extend(b.claim_ids(&rb, 4).await);
        }
        assert_eq!(claimed, all);
    }

    /// Limits and pauses set through one handle hold for the other at once, and exactly.
    pub async fn limits_are_exact_across_handles(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (ra, rb) = (a.replica().await, b.replica().await);
        a.set("default", concurrency(3)).await;
        b.add_all(vec![task(); 9]).await;
        let first = a.claim(&ra, 2).await.tasks;
        assert_eq!(b.claim_ids(&rb, 9).await.len(), 1);
        assert_eq!(a.claim_ids(&ra, 9).await.len(), 0);
        a.must(&first[0], RunEvent::Complete(inline())).await;
        a.set("default", paused()).await;
        assert_eq!(b.claim_ids(&rb, 9).await.len(), 0);
        b.set("default", concurrency(3)).await;
        assert_eq!(b.claim_ids(&rb, 9).await.len(), 1);
    }

    /// Registrations, heartbeats and rescues through two handles are about the same replicas.
    pub async fn rescue_works_across_handles(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (owner, heir) = (a.replica().await, b.replica().await);
        let running = a.run(&owner, task()).await;
        let suspect = b.suspect(&owner).await;
        assert!(b.rescue(&heir, vec![suspect], 9).await.dead.is_empty(), "it lives");
        a.store.leave(owner.id).await.unwrap();
        let adopted = b.rescue(&heir, vec![], 9).await.tasks;
        assert_eq!(ids(&adopted), std::slice::from_ref(&running.id));
        let late = a.report(&running, RunEvent::Complete(inline())).await;
        assert_eq!(late, crate::store::Answer::Refused(crate::state::Refusal::Stale));
        b.must(&adopted[0], RunEvent::Complete(inline())).await;
    }

    /// A report posted through one handle reaches the owner that beats through the other.
    pub async fn reports_cross_handles(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let owner = a.replica().await;
        let running: Task = a.run(&owner, task()).await;
        let said = Said::Ended(Outcome::Succeeded(None));
        let report = Report { id: running.id.clone(), execution: running.record.execution, said };
        assert_eq!(b.store.post_reports(vec![report.clone()]).await.unwrap(), [true]);
        assert_eq!(a.beat(&owner).await.reports, [report]);
    }

    /// A time or priority given through one handle holds for claims through the other.
    pub async fn a_new_time_holds_for_both(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = b.replica().await;
        a.add_all(vec![task_as("now"), task_as("later"), task_as("soon").start(Start::After(MINUTE))]).await;
        // Whatever the other handle remembers of what it has seen must not count.
        assert_eq!(b.claim(&replica, 0).await.tasks, []);
        let run_at = Some(b.now().await + MINUTE * 2);
        let later = Command::Reschedule { run_at, priority: None };
        let now = Command::Reschedule { run_at: Some(Timestamp::default()), priority: None };
        a.store.command(vec![(id("later"), later), (id("soon"), now)]).await.unwrap();
        assert_eq!(texts(&b.claim_ids(&replica, 9).await), ["now", "soon"]);
        b.pass(MINUTE * 3).await;
        assert_eq!(texts(&b.claim_ids(&replica, 9).await), ["later"]);
    }

    /// A drain that is wished through one handle holds for what the replica does through the other.
    pub async fn a_drain_holds_for_both(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = b.replica().await;
        a.add_all(vec![task(); 2]).await;
        // Whatever the other handle remembers of what it has seen must not count.
        assert_eq!(b.claim(&replica, 1).await.tasks.len(), 1);
        a.store.drain(replica.id).await.unwrap();
        assert_eq!(b.claim_ids(&replica, 1).await, []);
        assert!(b.beat(&replica).await.drain && a.beat(&replica).await.drain);
        b.store.leave(replica.id).await.unwrap();
        assert_eq!(a.store.drain(replica.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Work taken in through one handle is found through the other, by a hint or by asking again.
    pub async fn a_hint_or_a_poll_finds_the_others_work(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = b.replica().await;
        let wait = std::time::Duration::from_secs(1);
        let hint = tokio::time::timeout(wait, b.store.changed(Default::default()));
        let (_, id) = tokio::join!(hint, a.add(task().queue("q").unwrap()));
        assert_eq!(b.claim_ids(&replica, 9).await, [id]);
        assert!(b.store.queues().await.unwrap().iter().any(|(queue, _)| *queue == name("q")));
    }
}
