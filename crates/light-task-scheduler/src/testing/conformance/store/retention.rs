//! Removing what is over: deletion, housekeeping, and results that nobody refers to any more.

use super::StoreHarness;
use super::world::{MINUTE, Replica, World, failure, id, inline, stored, task, task_as, texts};
use crate::state::{Command, RunEvent};
use crate::store::{Inserted, SweepRequest, TaskQuery};
use crate::task::{FailureKind, NewTask, Start, State, TaskId};

const TERMINAL: [State; 3] = [State::Succeeded, State::Failed, State::Cancelled];

/// Housekeeping of tombstones and result keys only.
pub(super) async fn sweep_garbage(w: &World<'_>) -> Vec<String> {
    confirm(w, &[]).await
}

async fn confirm(w: &World<'_>, keys: &[&str]) -> Vec<String> {
    let confirmed = keys.iter().map(|key| (*key).to_owned()).collect();
    let request = SweepRequest { limit: 1_000, confirmed, ..SweepRequest::default() };
    let mut garbage = w.store.sweep(request).await.unwrap().garbage;
    garbage.sort();
    garbage
}

/// Removes what ended in any way at least some minutes ago.
fn all_older_than(minutes: u32) -> SweepRequest {
    SweepRequest { states: TERMINAL.to_vec(), older_than: Some(MINUTE * minutes), limit: 1_000, ..Default::default() }
}

async fn end(w: &World<'_>, owner: &Replica, new: NewTask, event: RunEvent) -> TaskId {
    let running = w.run(owner, new).await;
    if event == RunEvent::Cancelled {
        w.command(&running.id, Command::Cancel).await;
    }
    w.must(&running, event).await.id
}

async fn left(w: &World<'_>) -> Vec<String> {
    let mut left = texts(&super::world::ids(&w.list(TaskQuery::default()).await));
    left.sort();
    left
}

/// A deleted task is gone from every view, and its slot in the counts too.
pub async fn a_deleted_task_is_gone(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let done = end(&w, &owner, task_as("t"), RunEvent::Complete(inline())).await;
    w.command(&done, Command::Delete).await;
    assert_eq!(w.find(&done).await, None);
    assert!(left(&w).await.is_empty());
    let counts = w.store.counts().await.unwrap();
    assert!(counts.iter().all(|queue| queue.by_state.iter().sum::<u64>() == 0));
    assert_eq!(w.command(&done, Command::Requeue).await, crate::store::Answer::Missing);
    assert_eq!(w.claim_ids(&owner, 9).await, []);
}

/// Only tasks in the asked states are swept.
pub async fn only_asked_states_are_swept(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    end(&w, &owner, task_as("succeeded"), RunEvent::Complete(inline())).await;
    end(&w, &owner, task_as("failed"), RunEvent::Fail(failure(FailureKind::Error))).await;
    end(&w, &owner, task_as("cancelled"), RunEvent::Cancelled).await;
    w.pass(MINUTE * 5).await;
    for (state, rest) in [
        (State::Failed, vec!["cancelled", "succeeded"]),
        (State::Cancelled, vec!["succeeded"]),
        (State::Succeeded, vec![]),
    ] {
        let sweep = w.store.sweep(SweepRequest { states: vec![state], ..all_older_than(1) }).await.unwrap();
        assert_eq!((sweep.removed, left(&w).await), (1, rest.iter().map(|id| (*id).to_owned()).collect()));
    }
}

/// A task that ended more recently than asked stays; the time counts from the end, not the creation.
pub async fn the_age_counts_from_the_end(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let old = w.run(&owner, task_as("ran for long")).await;
    end(&w, &owner, task_as("over for long"), RunEvent::Complete(inline())).await;
    w.pass(MINUTE * 5).await;
    w.must(&old, RunEvent::Complete(inline())).await;
    w.pass(MINUTE).await;
    assert_eq!(w.store.sweep(all_older_than(3)).await.unwrap().removed, 1);
    assert_eq!(left(&w).await, ["ran for long"]);
    assert_eq!(w.store.sweep(all_older_than(3)).await.unwrap().removed, 0);
    w.pass(MINUTE * 3).await;
    assert_eq!(w.store.sweep(all_older_than(3)).await.unwrap().removed, 1);
}

/// Without an age nothing is removed.
pub async fn without_an_age_nothing_is_swept(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    end(&w, &owner, task_as("t"), RunEvent::Complete(inline())).await;
    w.pass(MINUTE * 1_000).await;
    let sweep = w.store.sweep(SweepRequest { older_than: None, ..all_older_than(1) }).await.unwrap();
    assert_eq!((sweep.removed, left(&w).await), (0, vec!["t".to_owned()]));
}

/// What is not over is never swept, whatever states are asked for.
pub async fn what_is_not_over_is_never_swept(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let exporting = w.run(&owner, task_as("exporting")).await;
    w.must(&exporting, RunEvent::Outcome(None)).await;
    w.run(&owner, task_as("running")).await;
    let again = end(&w, &owner, task_as("requeued"), RunEvent::Complete(inline())).await;
    w.command(&again, Command::Requeue).await;
    w.add_all(vec![task_as("waiting"), task_as("held").start(Start::Held)]).await;
    w.pass(MINUTE * 100).await;
    let sweep = w.store.sweep(SweepRequest { states: State::ALL.to_vec(), ..all_older_than(1) }).await.unwrap();
    assert_eq!((sweep.removed, left(&w).await.len()), (0, 5));
}

/// Tasks that carry the exempting label stay, whatever its value.
pub async fn the_exempting_label_spares(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for (id, label) in [("spared", "keep"), ("empty value", "keep"), ("swept", "other"), ("bare", "")] {
        let value = if id == "empty value" { "" } else { "1" };
        let new = task_as(id);
        let new = if label.is_empty() { new } else { new.label(label, value).unwrap() };
        end(&w, &owner, new, RunEvent::Complete(inline())).await;
    }
    w.pass(MINUTE * 5).await;
    let request = SweepRequest { except_label: Some(super::world::name("keep")), ..all_older_than(1) };
    assert_eq!(w.store.sweep(request.clone()).await.unwrap().removed, 2);
    assert_eq!(left(&w).await, ["empty value", "spared"]);
    let few = SweepRequest { limit: 1, ..request };
    end(&w, &owner, task_as("later"), RunEvent::Complete(inline())).await;
    w.pass(MINUTE * 5).await;
    assert_eq!(w.store.sweep(few).await.unwrap().removed, 1, "the spared do not hide it");
}

/// A sweep removes no more than asked, and the next goes on.
pub async fn a_sweep_is_bounded(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let all = w.add_all(vec![task(); 25]).await;
    let wishes = all.iter().map(|id| (id.clone(), Command::Cancel)).collect();
    w.store.command(wishes).await.unwrap();
    w.pass(MINUTE * 5).await;
    for removed in [10, 10, 5, 0] {
        let sweep = w.store.sweep(SweepRequest { limit: 10, ..all_older_than(1) }).await.unwrap();
        assert_eq!(sweep.removed, removed);
    }
}

/// A swept task leaves a tombstone like a deleted one.
pub async fn a_swept_task_is_remembered(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    end(&w, &owner, task_as("t"), RunEvent::Complete(inline())).await;
    w.pass(MINUTE * 5).await;
    w.store.sweep(all_older_than(1)).await.unwrap();
    let again = w.insert(vec![task_as("t")]).await.remove(0).unwrap();
    assert_eq!(again, Inserted::Removed(id("t")));
}

/// A removed task's stored result is handed out as garbage until it is confirmed, then never again.
pub async fn garbage_is_told_until_confirmed(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for key in ["a", "b", "'c'; --\u{2028}"] {
        let done = end(&w, &owner, task(), RunEvent::Complete(stored(key))).await;
        assert!(confirm(&w, &[]).await.iter().all(|garbage| garbage != key), "it is still referred to");
        w.command(&done, Command::Delete).await;
    }
    let all = ["'c'; --\u{2028}", "a", "b"];
    assert_eq!(sweep_garbage(&w).await, all);
    assert_eq!(sweep_garbage(&w).await, all, "told again: the first reply may have been lost");
    assert_eq!(confirm(&w, &["a", "nothing"]).await, [all[0], "b"]);
    assert_eq!(confirm(&w, &[all[0], "b", "a"]).await, Vec::<String>::new());
    assert_eq!(sweep_garbage(&w).await, Vec::<String>::new());
}

/// A requeue gives up the stored result; a sweep of an ended task too; inline results leave no garbage.
pub async fn every_removal_of_a_result_is_garbage(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let requeued = end(&w, &owner, task(), RunEvent::Complete(stored("requeued"))).await;
    w.command(&requeued, Command::Requeue).await;
    assert_eq!(sweep_garbage(&w).await, ["requeued"]);
    w.command(&requeued, Command::Cancel).await;
    end(&w, &owner, task(), RunEvent::Complete(stored("swept"))).await;
    end(&w, &owner, task(), RunEvent::Complete(inline())).await;
    w.pass(MINUTE * 5).await;
    w.store.sweep(all_older_than(1)).await.unwrap();
    assert_eq!(sweep_garbage(&w).await, ["requeued", "swept"]);
}

/// Keys are handed out at most `limit` at a time.
pub async fn garbage_is_bounded(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for n in 0..7 {
        let done = end(&w, &owner, task(), RunEvent::Complete(stored(&format!("k{n}")))).await;
        w.command(&done, Command::Delete).await;
    }
    let mut told = std::collections::BTreeSet::new();
    let mut confirmed = vec![];
    for _ in 0..4 {
        let request = SweepRequest { limit: 2, confirmed, ..SweepRequest::default() };
        confirmed = w.store.sweep(request).await.unwrap().garbage;
        assert!(confirmed.len() <= 2);
        told.extend(confirmed.clone());
    }
    assert_eq!(told.len(), 7);
}
