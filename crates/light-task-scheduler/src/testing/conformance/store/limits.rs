//! Limits, pauses and rates of queues.

use std::time::Duration;

use super::StoreHarness;
use super::world::{MINUTE, World, concurrency, failure, ids, inline, paused, stored, task, task_as, texts};
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::QueueSettings;
use crate::task::{FailureKind, State};

/// `count` starts per `count` minutes: one a minute, with a burst.
fn per_minute(burst: u32) -> QueueSettings {
    let rate = RateLimit { count: 1, period: MINUTE, burst };
    QueueSettings { rate: Some(rate), ..QueueSettings::default() }
}

/// I10: a queue never runs more than its limit, however many are asked for.
pub async fn a_limit_is_exact(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", concurrency(3)).await;
    let (a, b) = (w.replica().await, w.replica().await);
    w.add_all((0..10).map(|_| task()).collect()).await;
    let first = w.claim(&a, 2).await.tasks;
    assert_eq!(first.len(), 2);
    assert_eq!(w.claim_ids(&b, 10).await.len(), 1, "over all replicas");
    assert_eq!(w.claim_ids(&a, 10).await, []);
    w.must(&first[0], RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&b, 10).await.len(), 1, "an end frees one slot");
}

/// Every way in which a run can end frees its slot, once.
pub async fn every_end_frees_its_slot(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", concurrency(1)).await;
    let replica = w.replica().await;
    let later = w.now().await + MINUTE * 1_000;
    let ends = [
        RunEvent::Outcome(None),
        RunEvent::Complete(stored("k")),
        RunEvent::Fail(failure(FailureKind::Error)),
        RunEvent::Retry(later, failure(FailureKind::Error)),
        RunEvent::Release(later, failure(FailureKind::Drained)),
        RunEvent::Cancelled,
    ];
    w.add_all(vec![task(); ends.len() + 2]).await;
    for end in ends {
        let running = w.claim(&replica, 9).await.tasks;
        assert_eq!(running.len(), 1, "before {end:?}");
        if end == RunEvent::Cancelled {
            w.command(&running[0].id, Command::Cancel).await;
        }
        w.must(&running[0], end.clone()).await;
        w.report(&running[0], end).await;
    }
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 1, "the repeated reports freed nothing more");
}

/// Exporting holds no slot, and completing it frees none twice.
pub async fn exporting_holds_no_slot(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", concurrency(1)).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 3]).await;
    let first = w.claim(&replica, 9).await.tasks.remove(0);
    w.must(&first, RunEvent::Outcome(None)).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 1);
    w.must(&first, RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [], "the slot was free already");
}

/// A slot stays taken while its owner is dead, and when the task is adopted.
pub async fn a_dead_owner_frees_no_slot(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", concurrency(1)).await;
    let (a, b) = (w.replica().await, w.replica().await);
    w.run(&a, task()).await;
    w.add(task()).await;
    w.store.leave(a.id).await.unwrap();
    assert_eq!(w.claim_ids(&b, 9).await, []);
    let adopted = w.rescue(&b, vec![], 9).await.tasks.remove(0);
    assert_eq!(w.claim_ids(&b, 9).await, []);
    w.must(&adopted, RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&b, 9).await.len(), 1);
}

/// A limit takes in what already runs; a lowered one stops no run and lets none start until there is room.
pub async fn a_limit_set_later_counts_what_runs(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 6]).await;
    let running = w.claim(&replica, 3).await.tasks;
    w.set("default", concurrency(2)).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.must(&running[0], RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [], "two still run");
    w.must(&running[1], RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 1);
    w.set("default", QueueSettings::default()).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 2, "no limit, all the rest");
}

/// Each queue has its own limit, and one claim fills them all.
pub async fn limits_are_per_queue(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("a", concurrency(1)).await;
    w.set("b", concurrency(2)).await;
    let replica = w.replica().await;
    let new = |n: usize| task_as(&n.to_string()).queue(["a", "b", "c"][n % 3]).unwrap();
    w.add_all((0..12).map(new).collect()).await;
    let claimed = texts(&w.claim_ids(&replica, 6).await);
    assert_eq!(claimed, ["0", "1", "2", "4", "5", "8"], "in order, each queue up to its limit");
}

/// Requeue and start do not go around the limit.
pub async fn commands_take_no_slot(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", concurrency(1)).await;
    let replica = w.replica().await;
    let first = w.run(&replica, task()).await;
    w.must(&first, RunEvent::Complete(inline())).await;
    w.command(&first.id, Command::Requeue).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 1);
    let held = w.add(task().start(crate::Start::Held)).await;
    w.command(&held, Command::Start).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
}

/// Nothing of a paused queue is claimed; what runs goes on; resumed, all is as before.
pub async fn a_paused_queue_starts_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    w.set("default", paused()).await;
    let waiting = w.add(task()).await;
    let other = w.add(task().queue("other").unwrap()).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [other]);
    assert_eq!(w.must(&running, RunEvent::Complete(inline())).await.record.state, State::Succeeded);
    w.set("default", QueueSettings::default()).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [waiting]);
}

/// A queue can be paused before it has ever had a task.
pub async fn an_unknown_queue_can_be_paused(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("later", paused()).await;
    w.add(task().queue("later").unwrap()).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
}

/// A burst of one spreads the starts evenly.
pub async fn a_rate_spreads_starts(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", per_minute(1)).await;
    let replica = w.replica().await;
    let all = w.add_all((0..4).map(|_| task()).collect()).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[..1]);
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.pass(MINUTE / 2).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [], "half a minute early");
    w.pass(MINUTE / 2).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[1..2]);
    w.pass(MINUTE * 8).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[2..3], "a quiet time saves up no more than the burst");
}

/// A burst may be spent at once and refills with time.
pub async fn a_burst_is_spent_and_refills(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", per_minute(3)).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 20]).await;
    assert_eq!(w.claim_ids(&replica, 2).await.len(), 2);
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 1);
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 0);
    w.pass(MINUTE * 2).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 2);
    w.pass(MINUTE * 7).await;
    assert_eq!(w.claim_ids(&replica, 9).await.len(), 3);
}

/// Replicas share one rate.
pub async fn replicas_share_one_rate(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", per_minute(2)).await;
    let (a, b, c) = (w.replica().await, w.replica().await, w.replica().await);
    w.add_all(vec![task(); 9]).await;
    let started = [w.claim(&a, 1).await, w.claim(&b, 9).await, w.claim(&c, 9).await];
    assert_eq!(started.map(|claim| claim.tasks.len()), [1, 1, 0]);
}

/// A permit is spent by a start only: not by an empty claim, a full queue, or a repeated claim.
pub async fn a_permit_is_spent_by_a_start_only(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", QueueSettings { concurrency: Some(1), ..per_minute(2) }).await;
    let replica = w.replica().await;
    for _ in 0..5 {
        assert_eq!(w.claim_ids(&replica, 9).await, []);
    }
    let all = w.add_all(vec![task(); 4]).await;
    let request = replica.request(9);
    let first = w.store.claim(request.clone()).await.unwrap().tasks;
    assert_eq!(ids(&first), all[..1]);
    for _ in 0..5 {
        assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks.len(), 1);
        assert_eq!(w.claim_ids(&w.replica().await, 9).await, [], "the queue is full");
    }
    let running = w.get(&all[0]).await;
    w.must(&running, RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[1..2], "the second permit was not lost");
}

/// A retried run needs a permit like any start.
pub async fn a_retry_needs_a_permit(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("default", per_minute(1)).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    let now = w.now().await;
    w.must(&running, RunEvent::Retry(now, failure(FailureKind::Error))).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.pass(MINUTE + Duration::from_secs(1)).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [running.id]);
}

/// A queue at its rate holds up no other.
pub async fn a_rate_holds_up_its_own_queue_only(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("slow", per_minute(1)).await;
    let replica = w.replica().await;
    let new = |n: usize| task_as(&n.to_string()).queue(["slow", "fast"][n % 2]).unwrap();
    w.add_all((0..8).map(new).collect()).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["0", "1", "3", "5", "7"]);
}
