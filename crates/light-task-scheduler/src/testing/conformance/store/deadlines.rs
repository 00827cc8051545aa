//! Deadlines of tasks that have not run.

use super::StoreHarness;
use super::world::{MINUTE, Replica, World, concurrency, failure, inline, paused, task, task_as, texts};
use crate::state::{Command, RunEvent};
use crate::task::{FailureKind, NewTask, Start, State};

async fn deadline_in(w: &World<'_>, minutes: u32) -> crate::Timestamp {
    w.now().await + MINUTE * minutes
}

async fn expired(w: &World<'_>, replica: &Replica) -> Vec<String> {
    let claim = w.claim(replica, 9).await;
    assert_eq!(claim.tasks, [], "nothing overdue is claimed");
    let mut expired = texts(&claim.expired);
    expired.sort();
    expired
}

/// A waiting task whose deadline has passed fails at the next claim, which says so once.
pub async fn a_waiting_task_expires(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task_as("t").start(Start::After(MINUTE * 9)).deadline(deadline_in(&w, 2).await)).await;
    assert!(expired(&w, &replica).await.is_empty());
    w.pass(MINUTE * 3).await;
    assert_eq!(expired(&w, &replica).await, ["t"]);
    let record = w.get(&id).await.record;
    assert_eq!(record.state, State::Failed);
    assert_eq!(record.failure().map(|failure| failure.kind), Some(FailureKind::Deadline));
    assert!(record.finished_at.is_some() && record.attempts().is_empty(), "it never ran");
    assert!(expired(&w, &replica).await.is_empty(), "told once");
}

/// A held task whose deadline has passed fails too.
pub async fn a_held_task_expires(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task_as("t").start(Start::Held).deadline(deadline_in(&w, 2).await)).await;
    w.pass(MINUTE * 3).await;
    assert_eq!(expired(&w, &replica).await, ["t"]);
    assert_eq!(w.state(&id).await, State::Failed);
}

/// A task that is due and overdue at once fails; it does not start.
pub async fn an_overdue_task_does_not_start(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let past = w.now().await;
    w.add(task_as("late").deadline(past)).await;
    w.add(task_as("ok").deadline(past + MINUTE * 5)).await;
    w.pass(MINUTE).await;
    let claim = w.claim(&replica, 9).await;
    assert_eq!((texts(&claim.expired), claim.tasks.len()), (vec!["late".to_owned()], 1));
}

/// Overdue tasks expire whatever their kind and queue, paused or full, and without a free slot.
pub async fn expiry_needs_no_slot_kind_or_queue(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("paused", paused()).await;
    w.set("full", concurrency(1)).await;
    w.run(&replica, task().queue("full").unwrap()).await;
    let deadline = deadline_in(&w, 2).await;
    w.add(task_as("paused").queue("paused").unwrap().deadline(deadline)).await;
    w.add(task_as("full").queue("full").unwrap().deadline(deadline)).await;
    w.add(NewTask::new("other", &1).unwrap().id("other").unwrap().deadline(deadline)).await;
    w.pass(MINUTE * 3).await;
    let claim = w.claim(&replica, 0).await;
    let mut told = texts(&claim.expired);
    told.sort();
    assert_eq!(told, ["full", "other", "paused"]);
}

/// A running or exporting task does not expire in the store: its owner stops it.
pub async fn an_owned_task_does_not_expire(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let deadline = deadline_in(&w, 2).await;
    let running = w.run(&replica, task().deadline(deadline)).await;
    let exporting = w.run(&replica, task().deadline(deadline)).await;
    w.must(&exporting, RunEvent::Outcome(None)).await;
    w.pass(MINUTE * 3).await;
    assert!(expired(&w, &replica).await.is_empty());
    assert_eq!(w.must(&exporting, RunEvent::Complete(inline())).await.record.state, State::Succeeded);
    assert_eq!(w.must(&running, RunEvent::Complete(inline())).await.record.state, State::Succeeded);
}

/// A task that waits for its retry expires, and keeps its history.
pub async fn a_retrying_task_expires(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let now = w.now().await;
    let running = w.run(&replica, task_as("t").deadline(now + MINUTE * 2)).await;
    w.must(&running, RunEvent::Retry(now + MINUTE * 60, failure(FailureKind::Error))).await;
    w.pass(MINUTE * 3).await;
    assert_eq!(expired(&w, &replica).await, ["t"]);
    let record = w.get(&running.id).await.record;
    assert_eq!((record.attempts().len(), record.attempt), (1, 1));
    assert_eq!(record.failure().map(|failure| failure.kind), Some(FailureKind::Deadline));
}

/// Nothing that is over expires, and a requeued task past its deadline fails again.
pub async fn a_requeue_does_not_move_the_deadline(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task_as("t").deadline(deadline_in(&w, 2).await)).await;
    w.command(&id, Command::Cancel).await;
    w.pass(MINUTE * 3).await;
    assert!(expired(&w, &replica).await.is_empty(), "it is over already");
    w.command(&id, Command::Requeue).await;
    assert_eq!(expired(&w, &replica).await, ["t"]);
}

/// Many tasks overdue at once all fail, each told once.
pub async fn a_crowd_expires_at_once(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let deadline = deadline_in(&w, 2).await;
    w.add_all((0..3_000).map(|_| task().start(Start::After(MINUTE * 60)).deadline(deadline)).collect()).await;
    w.pass(MINUTE * 3).await;
    let mut told = std::collections::BTreeSet::new();
    // A store may do it in parts, but each part says at once that there is more.
    for _ in 0..30 {
        let claim = w.claim(&replica, 0).await;
        let more = claim.next_at.is_some_and(|at| at <= claim.now);
        for id in claim.expired {
            assert!(told.insert(id), "told once");
        }
        if !more {
            break;
        }
    }
    assert_eq!(told.len(), 3_000);
    let failed = crate::store::TaskQuery { states: vec![State::Failed], ..Default::default() };
    assert_eq!(w.list(failed).await.len(), 3_000);
}
