//! Who may claim, repeated claims, and when to ask again.

use std::time::Duration;

use super::StoreHarness;
use super::world::{KIND, MINUTE, Replica, TTL, World, concurrency, failure, ids, inline, name, paused, task};
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::{Claim, ClaimRequest, QueueSettings};
use crate::task::{FailureKind, NewTask, Start, State};

async fn refused(w: &World<'_>, replica: &Replica) {
    let before = w.list(Default::default()).await;
    let error = w.store.claim(replica.request(9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegistered, "{error}");
    assert_eq!(w.list(Default::default()).await, before, "a refused claim changes nothing");
}

/// Who is not registered gets nothing.
pub async fn an_unknown_replica_gets_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add(task()).await;
    refused(&w, &Replica::unknown()).await;
}

/// Who has left gets nothing.
pub async fn a_replica_that_left_gets_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add(task()).await;
    w.store.leave(replica.id).await.unwrap();
    refused(&w, &replica).await;
}

/// Whose lease has expired gets nothing until it has renewed it.
pub async fn an_expired_replica_gets_nothing_until_it_beats(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task()).await;
    w.pass(TTL + MINUTE).await;
    refused(&w, &replica).await;
    w.beat(&replica).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [id]);
}

/// Who was declared dead gets nothing, whatever its lease says.
pub async fn a_replica_declared_dead_gets_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let dead = w.replica().await;
    w.add(task()).await;
    w.pass(TTL + MINUTE).await;
    let rescuer = w.replica().await;
    let suspect = w.suspect(&dead).await;
    assert_eq!(w.rescue(&rescuer, vec![suspect], 0).await.dead, [dead.id]);
    refused(&w, &dead).await;
}

/// A lease renewed in time goes on for a whole ttl from the renewal.
pub async fn a_heartbeat_prolongs_the_lease(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    for _ in 0..3 {
        w.pass(TTL - MINUTE).await;
        w.beat(&replica).await;
    }
    w.pass(TTL - MINUTE).await;
    let id = w.add(task()).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [id]);
}

/// A claim whose reply was lost is repeated under its number: the same tasks, and no more.
pub async fn a_repeated_claim_returns_the_same_tasks(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 5]).await;
    let request = replica.request(3);
    let first = w.store.claim(request.clone()).await.unwrap();
    for _ in 0..3 {
        let again = w.store.claim(request.clone()).await.unwrap();
        assert_eq!(again.tasks, first.tasks, "in order, and unchanged");
    }
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 2, "a new number takes the rest");
}

/// A repeated claim that had taken nothing takes nothing, though tasks are due by now.
pub async fn a_repeated_empty_claim_takes_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let request = replica.request(3);
    assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks, []);
    let id = w.add(task()).await;
    assert_eq!(w.store.claim(request).await.unwrap().tasks, []);
    assert_eq!(w.state(&id).await, State::Waiting);
    assert_eq!(w.claim_ids(&replica, 3).await, [id]);
}

/// Of a repeated claim only what still runs under its owner is returned.
pub async fn a_repeated_claim_leaves_out_what_has_ended(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 5]).await;
    let request = replica.request(9);
    let first = w.store.claim(request.clone()).await.unwrap().tasks;
    let now = w.now().await;
    w.must(&first[0], RunEvent::Complete(inline())).await;
    w.must(&first[1], RunEvent::Fail(failure(FailureKind::Error))).await;
    w.must(&first[2], RunEvent::Retry(now, failure(FailureKind::Error))).await;
    let again = w.store.claim(request).await.unwrap().tasks;
    assert_eq!(ids(&again), ids(&first[3..]));
    assert_eq!(w.state(&first[2].id).await, State::Waiting, "the repeat does not claim it anew");
}

/// A task given back and claimed by another replica is not returned to the first.
pub async fn a_repeated_claim_leaves_out_what_others_own(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (a, b) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(); 2]).await;
    let request = a.request(9);
    let first = w.store.claim(request.clone()).await.unwrap().tasks;
    let now = w.now().await;
    w.must(&first[0], RunEvent::Release(now, failure(FailureKind::Drained))).await;
    assert_eq!(w.claim_ids(&b, 9).await, [first[0].id.clone()]);
    assert_eq!(w.store.claim(request).await.unwrap().tasks, first[1..]);
}

/// Claim numbers are each replica's own.
pub async fn claim_numbers_are_per_replica(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (a, b) = (w.replica().await, w.replica().await);
    let all = w.add_all(vec![task(); 2]).await;
    assert_eq!((w.claim_ids(&a, 1).await, a.last_claim()), (all[..1].to_vec(), 1));
    assert_eq!((w.claim_ids(&b, 1).await, b.last_claim()), (all[1..].to_vec(), 1));
}

/// With nothing to come there is nothing to ask again for.
pub async fn without_work_there_is_no_next_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    assert_eq!(w.claim(&replica, 9).await.next_at, None);
    w.add(task()).await;
    let all = w.claim(&replica, 9).await;
    assert_eq!((all.tasks.len(), all.next_at), (1, None), "the only task was taken");
}

/// The next due time of a delayed task is told.
pub async fn the_next_delayed_task_is_told(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let far = w.add(task().start(Start::After(MINUTE * 9))).await;
    assert_eq!(w.claim(&replica, 9).await.next_at, Some(w.get(&far).await.record.run_at));
    let near = w.add(task().start(Start::After(MINUTE * 3))).await;
    assert_eq!(w.claim(&replica, 9).await.next_at, Some(w.get(&near).await.record.run_at));
    assert_eq!(w.claim(&replica, 0).await.next_at, Some(w.get(&near).await.record.run_at), "free slots or not");
}

/// A task that can be taken by nobody here is no reason to ask again.
pub async fn other_kinds_and_queues_are_no_reason_to_ask(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add(NewTask::new("other", &1).unwrap()).await;
    w.add(NewTask::new("other", &1).unwrap().start(Start::After(MINUTE))).await;
    w.add(task().queue("other").unwrap()).await;
    let request = ClaimRequest { queues: vec![name("mine")], ..replica.request(9) };
    let claim = w.store.claim(request).await.unwrap();
    assert_eq!((claim.tasks.len(), claim.next_at), (0, None));
}

/// The next deadline of a waiting or held task is told, of whatever kind.
pub async fn the_next_deadline_is_told(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let now = w.now().await;
    let deadline = now + MINUTE * 5;
    w.add(task().start(Start::Held).deadline(deadline)).await;
    w.add(task().start(Start::After(MINUTE * 30)).deadline(now + MINUTE * 7)).await;
    assert_eq!(w.claim(&replica, 9).await.next_at, Some(deadline));
}

/// While more is due than was asked for, the time to ask again has come.
pub async fn leftover_work_is_due_now(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 3]).await;
    for limit in [0, 1, 1] {
        let claim = w.claim(&replica, limit).await;
        assert!(claim.next_at.is_some_and(|at| at <= claim.now), "{:?} at {}", claim.next_at, claim.now);
    }
    assert_eq!(w.claim(&replica, 1).await.next_at, None);
}

fn is_no_busy_loop(claim: &Claim) {
    assert!(claim.tasks.is_empty());
    assert!(claim.next_at.is_none_or(|at| at > claim.now), "{:?} at {}", claim.next_at, claim.now);
}

/// Work held back by a full or paused queue is no reason to ask at once, for ever.
pub async fn blocked_work_is_not_due_now(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("full", concurrency(1)).await;
    w.set("paused", paused()).await;
    w.run(&replica, task().queue("full").unwrap()).await;
    w.add(task().queue("full").unwrap()).await;
    is_no_busy_loop(&w.claim(&replica, 9).await);
    w.add(task().queue("paused").unwrap()).await;
    is_no_busy_loop(&w.claim(&replica, 9).await);
    is_no_busy_loop(&w.claim(&replica, 0).await);
}

/// The next free rate permit is told, and it comes true.
pub async fn the_next_permit_is_told(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let rate = RateLimit { count: 1, period: MINUTE * 4, burst: 1 };
    w.set("default", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
    let replica = w.replica().await;
    let all = w.add_all(vec![task(); 2]).await;
    let claim = w.claim(&replica, 9).await;
    assert_eq!(ids(&claim.tasks), all[..1]);
    assert_eq!(claim.next_at, Some(claim.now + MINUTE * 4));
    w.pass(MINUTE).await;
    let early = w.claim(&replica, 9).await;
    assert_eq!((early.tasks.len(), early.next_at), (0, claim.next_at), "asking spends and moves nothing");
    w.pass(MINUTE * 3 + Duration::from_secs(1)).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[1..]);
}

/// A retried task is told like a delayed one.
pub async fn the_next_retry_is_told(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    let at = w.now().await + MINUTE * 2;
    w.must(&running, RunEvent::Retry(at, failure(FailureKind::Error))).await;
    assert_eq!(w.claim(&replica, 9).await.next_at, Some(at));
    w.command(&running.id, Command::Cancel).await;
    assert_eq!(w.claim(&replica, 9).await.next_at, None, "and no more once it is cancelled");
}

/// A claim of many tasks at once hands out each whole.
pub async fn a_large_claim_is_whole(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let new = |n: usize| NewTask::new(KIND, &n).unwrap();
    let all = w.add_all((0..5_000).map(new).collect()).await;
    let claim = w.claim(&replica, 5_000).await;
    assert_eq!(ids(&claim.tasks), all);
    for (n, task) in claim.tasks.iter().enumerate() {
        assert_eq!((task.spec.payload.parse::<usize>().unwrap(), task.record.run), (n, 1));
    }
}
