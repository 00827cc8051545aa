//! Registration, heartbeats and what they tell.

use super::StoreHarness;
use super::world::{MINUTE, Replica, TTL, World, inline, task};
use crate::error::ErrorKind;
use crate::state::{Command, RunEvent};
use crate::store::{Heartbeat, Holdings, NewReplica, ReplicaStatus};

async fn status(w: &World<'_>, replica: &Replica) -> Option<ReplicaStatus> {
    w.store.replicas().await.unwrap().into_iter().find(|status| status.id == replica.id)
}

async fn beat_is_refused(w: &World<'_>, replica: &Replica) {
    let beat = Heartbeat { replica: replica.id, holdings: None };
    assert_eq!(w.store.heartbeat(beat).await.unwrap_err().kind(), ErrorKind::NotRegistered);
}

fn again(replica: &Replica) -> NewReplica {
    NewReplica { id: replica.id, name: "again".to_owned(), ttl: TTL, remote: false }
}

/// A replica is listed as it registered.
pub async fn a_replica_is_listed(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let now = w.now().await;
    let seen = status(&w, &replica).await.unwrap();
    assert_eq!((seen.name.as_str(), seen.owned), ("host:1", 0));
    assert!(!seen.expired && !seen.dead && !seen.proven_dead);
    assert!(seen.expires_at > now && seen.expires_at <= now + TTL);
}

/// Each heartbeat changes the beat and renews the lease.
pub async fn a_heartbeat_is_a_sign_of_life(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let before = status(&w, &replica).await.unwrap();
    w.pass(MINUTE).await;
    w.beat(&replica).await;
    let after = status(&w, &replica).await.unwrap();
    assert!(after.beat != before.beat && after.expires_at >= before.expires_at + MINUTE);
    assert_eq!(status(&w, &replica).await.unwrap().beat, after.beat, "reading changes nothing");
}

/// An id is good for one registration, whether it still lives, has left or was declared dead.
pub async fn an_id_registers_once(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (alive, left, dead) = (w.replica().await, w.replica().await, w.replica().await);
    w.store.leave(left.id).await.unwrap();
    w.pass(TTL + MINUTE).await;
    w.beat(&alive).await;
    let suspect = w.suspect(&dead).await;
    w.rescue(&alive, vec![suspect], 0).await;
    for replica in [&alive, &left, &dead] {
        let error = w.store.register(again(replica)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    w.beat(&alive).await;
    beat_is_refused(&w, &dead).await;
}

/// Who is unknown cannot renew.
pub async fn an_unknown_replica_cannot_beat(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    beat_is_refused(&w, &Replica::unknown()).await;
}

/// Who has left cannot renew, and leaving again does no harm.
pub async fn a_replica_that_left_cannot_beat(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.store.leave(replica.id).await.unwrap();
    beat_is_refused(&w, &replica).await;
    w.store.leave(replica.id).await.unwrap();
    assert!(status(&w, &replica).await.is_none_or(|status| status.dead));
}

/// Death is for ever: who was declared dead cannot renew.
pub async fn a_dead_replica_cannot_beat(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let dead = w.replica().await;
    w.pass(TTL + MINUTE).await;
    let rescuer = w.replica().await;
    let suspect = w.suspect(&dead).await;
    assert!(w.rescue(&rescuer, vec![suspect], 0).await.dead.contains(&dead.id));
    beat_is_refused(&w, &dead).await;
}

/// Who has merely expired renews: nobody has declared it dead.
pub async fn an_expired_replica_can_beat(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    w.pass(TTL * 10).await;
    assert!(status(&w, &replica).await.unwrap().expired);
    w.beat(&replica).await;
    assert!(!status(&w, &replica).await.unwrap().expired);
    assert!(matches!(w.report(&running, RunEvent::Complete(inline())).await, crate::store::Answer::Applied(_)));
}

/// An expired owner that nobody has declared dead still writes: its token is current.
pub async fn an_expired_owner_still_writes(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    w.pass(TTL * 10).await;
    w.must(&running, RunEvent::Complete(inline())).await;
}

/// The dead are listed as long as they own tasks, with how many; the others are not.
pub async fn the_dead_are_listed_while_they_own(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, idle, heir) = (w.replica().await, w.replica().await, w.replica().await);
    w.add_all(vec![task(); 3]).await;
    let tasks = w.claim(&owner, 3).await.tasks;
    w.must(&tasks[0], RunEvent::Outcome(None)).await;
    assert_eq!(status(&w, &owner).await.unwrap().owned, 3, "exporting counts too");
    w.store.leave(owner.id).await.unwrap();
    w.store.leave(idle.id).await.unwrap();
    let seen = status(&w, &owner).await.unwrap();
    assert_eq!((seen.dead, seen.owned), (true, 3));
    assert_eq!(status(&w, &idle).await, None);
    assert_eq!(w.rescue(&heir, vec![], 9).await.tasks.len(), 3);
    assert_eq!(status(&w, &owner).await, None);
    assert_eq!(status(&w, &heir).await.unwrap().owned, 3);
}

/// The wish to cancel a running task is told with every heartbeat until the task has ended.
pub async fn a_wish_to_cancel_is_told_until_the_end(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, other) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    assert!(w.beat(&owner).await.cancel.is_empty());
    w.command(&running.id, Command::Cancel).await;
    for _ in 0..3 {
        assert_eq!(w.beat(&owner).await.cancel, std::slice::from_ref(&running.id));
        assert!(w.beat(&other).await.cancel.is_empty(), "only its owner is told");
    }
    w.must(&running, RunEvent::Cancelled).await;
    assert!(w.beat(&owner).await.cancel.is_empty());
}

/// The adopter of a task is told of a wish that was stored before.
pub async fn a_wish_to_cancel_goes_to_the_adopter(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    w.command(&running.id, Command::Cancel).await;
    let adopted = w.take_over(&owner, &heir).await.remove(0);
    assert!(adopted.record.cancel_requested);
    assert_eq!(w.beat(&heir).await.cancel, [running.id]);
}

/// As long as the holdings agree, nothing is listed.
pub async fn matching_holdings_list_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    assert_eq!(w.beat_holding(&replica, &[]).await.owned, None);
    w.add_all(vec![task(); 3]).await;
    let held = w.claim(&replica, 3).await.tasks;
    w.must(&held[1], RunEvent::Outcome(None)).await;
    assert_eq!(w.beat_holding(&replica, &[&held[2], &held[0], &held[1]]).await.owned, None, "exporting counts");
    w.must(&held[1], RunEvent::Complete(inline())).await;
    assert_eq!(w.beat_holding(&replica, &[&held[0], &held[2]]).await.owned, None);
}

/// On a mismatch every task that the store says it owns is listed with its run.
pub async fn other_holdings_list_what_is_owned(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, other) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(); 4]).await;
    let held = w.claim(&replica, 3).await.tasks;
    w.claim(&other, 1).await;
    w.must(&held[1], RunEvent::Outcome(None)).await;
    let mut expected: Vec<_> = held.iter().map(|task| (task.id.clone(), task.record.run)).collect();
    expected.sort();
    let wrong_hash = Heartbeat { replica: replica.id, holdings: Some(Holdings { count: 3, hash: 1 }) };
    for reply in [
        w.beat_holding(&replica, &[]).await,
        w.beat_holding(&replica, &[&held[0], &held[1]]).await,
        w.store.heartbeat(wrong_hash).await.unwrap(),
    ] {
        let mut owned = reply.owned.expect("a mismatch is answered");
        owned.sort();
        assert_eq!(owned, expected);
    }
}

/// A replica that holds what it does not own is told that it owns nothing.
pub async fn holding_what_is_not_owned_is_a_mismatch(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    w.must(&running, RunEvent::Fail(super::world::failure(crate::FailureKind::Error))).await;
    assert_eq!(w.beat_holding(&replica, &[&running]).await.owned, Some(vec![]));
}

/// A replica that cannot tell its holdings is not corrected.
pub async fn unknown_holdings_list_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.run(&replica, task()).await;
    assert_eq!(w.beat(&replica).await.owned, None);
}

/// The store's write counter never goes back, and moves with writes; its epoch stays.
pub async fn the_write_counter_moves_forward(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let mut last = w.beat(&replica).await;
    for _ in 0..5 {
        w.add(task()).await;
        let next = w.beat(&replica).await;
        assert!(next.op_seq > last.op_seq && next.epoch == last.epoch, "{} then {}", last.op_seq, next.op_seq);
        last = next;
    }
}

/// The store's time never goes back from one answer to the next.
pub async fn the_stores_time_never_goes_back(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let mut last = w.beat(&replica).await.now;
    for _ in 0..10 {
        let claim = w.claim(&replica, 0).await.now;
        let rescue = w.rescue(&replica, vec![], 0).await.now;
        let beat = w.beat(&replica).await.now;
        assert!([last, claim, rescue, beat].is_sorted());
        last = beat;
    }
}
