//! Draining a replica: it takes nothing more, keeps what it has, and is told.

use super::StoreHarness;
use super::world::{MINUTE, Replica, TTL, World, ids, inline, task};
use crate::error::ErrorKind;
use crate::state::{Command, RunEvent};
use crate::store::{ClaimRequest, Heartbeat, ReplicaStatus};
use crate::task::{Progress, State};

async fn drain(w: &World<'_>, replica: &Replica) {
    w.store.drain(replica.id).await.unwrap();
}

async fn status(w: &World<'_>, replica: &Replica) -> ReplicaStatus {
    w.store.replicas().await.unwrap().into_iter().find(|status| status.id == replica.id).expect("it is listed")
}

/// From the answer on it is given nothing, however it asks, and no reason to ask again; others take what is due.
pub async fn it_claims_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, other) = (w.replica().await, w.replica().await);
    let first = w.run(&replica, task()).await;
    let due = w.add_all(vec![task(); 3]).await;
    drain(&w, &replica).await;
    for _ in 0..2 {
        let claim = w.claim(&replica, 9).await;
        assert_eq!((claim.tasks, claim.next_at), (vec![], None));
        let named = ClaimRequest { among: Some(due.clone()), ..replica.request(9) };
        assert_eq!(w.store.claim(named).await.unwrap().tasks, []);
        w.pass(MINUTE).await;
        w.beat(&replica).await;
    }
    assert_eq!(w.claim_ids(&other, 9).await, due);
    assert_eq!(w.get(&first.id).await, first);
}

/// Its heartbeats say so until it has left; those of others do not.
pub async fn its_heartbeats_say_so(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, other) = (w.replica().await, w.replica().await);
    assert!(!w.beat(&replica).await.drain);
    drain(&w, &replica).await;
    for _ in 0..3 {
        assert!(w.beat(&replica).await.drain);
        assert!(!w.beat(&other).await.drain);
        w.pass(MINUTE).await;
    }
}

/// It is listed as draining, and as alive as before.
pub async fn it_is_listed_as_draining(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, other) = (w.replica().await, w.replica().await);
    w.run(&replica, task()).await;
    let before = status(&w, &replica).await;
    assert!(!before.draining);
    drain(&w, &replica).await;
    assert_eq!(status(&w, &replica).await, ReplicaStatus { draining: true, ..before });
    assert!(!status(&w, &other).await.draining);
}

/// What it owns stays its own: it reports, hears of wishes, and ends its tasks as ever.
pub async fn it_ends_what_it_owns(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 3]).await;
    let [first, second, third] = w.claim(&replica, 3).await.tasks.try_into().unwrap();
    drain(&w, &replica).await;
    assert_eq!(w.beat_holding(&replica, &[&first, &second, &third]).await.owned, None);
    w.must(&first, RunEvent::Progress(Progress::default())).await;
    w.must(&first, RunEvent::Outcome(None)).await;
    assert_eq!(w.must(&first, RunEvent::Complete(inline())).await.record.state, State::Succeeded);
    w.command(&second.id, Command::Cancel).await;
    assert_eq!(w.beat(&replica).await.cancel, std::slice::from_ref(&second.id));
    assert_eq!(w.must(&second, RunEvent::Cancelled).await.record.state, State::Cancelled);
    assert_eq!(status(&w, &replica).await.owned, 1);
}

/// Once it has left, others adopt at once what it could not end, and it can no more be told anything.
pub async fn it_leaves_like_any_other(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&replica, task()).await;
    drain(&w, &replica).await;
    assert_eq!(w.rescue(&heir, vec![], 9).await.tasks, [], "as long as it lives its tasks are its own");
    assert_eq!(ids(&w.take_over(&replica, &heir).await), [running.id]);
    assert!(!w.beat(&heir).await.drain);
}

/// A claim whose answer was lost is repeated: what it took is not lost with the drain.
pub async fn a_claim_from_before_is_repeated(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task(); 4]).await;
    let request = replica.request(2);
    let claimed = w.store.claim(request.clone()).await.unwrap().tasks;
    drain(&w, &replica).await;
    assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks, claimed);
    w.must(&claimed[0], RunEvent::Complete(inline())).await;
    assert_eq!(w.store.claim(request).await.unwrap().tasks, claimed[1..]);
}

/// It adopts nothing and declares nobody dead; another does.
pub async fn it_rescues_nobody(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    let leaver = w.replica().await;
    let left = w.run(&leaver, task()).await;
    w.store.leave(leaver.id).await.unwrap();
    w.pass(TTL + MINUTE).await;
    let (replica, heir) = (w.replica().await, w.replica().await);
    let suspect = w.suspect(&owner).await;
    drain(&w, &replica).await;
    for suspects in [vec![suspect], vec![]] {
        let rescued = w.rescue(&replica, suspects, 9).await;
        assert!(rescued.dead.is_empty() && rescued.tasks.is_empty(), "{rescued:?}");
    }
    assert!(!status(&w, &owner).await.dead);
    let mut adopted = ids(&w.rescue(&heir, vec![suspect], 9).await.tasks);
    adopted.sort();
    let mut expected = vec![running.id, left.id];
    expected.sort();
    assert_eq!(adopted, expected);
}

/// Saying it again changes nothing.
pub async fn repeating_it_changes_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.run(&replica, task()).await;
    drain(&w, &replica).await;
    let once = status(&w, &replica).await;
    drain(&w, &replica).await;
    assert_eq!(status(&w, &replica).await, once);
    assert!(w.beat(&replica).await.drain);
}

/// Who is unknown, has left, or was declared dead cannot drain.
pub async fn who_is_not_there_cannot_drain(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (left, dead) = (w.replica().await, w.replica().await);
    w.run(&dead, task()).await;
    w.store.leave(left.id).await.unwrap();
    w.pass(TTL + MINUTE).await;
    let rescuer = w.replica().await;
    let suspect = w.suspect(&dead).await;
    w.rescue(&rescuer, vec![suspect], 0).await;
    for replica in [&Replica::unknown(), &left, &dead] {
        let error = w.store.drain(replica.id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(&replica.id.to_string()), "{error}");
    }
    assert!(!status(&w, &dead).await.draining && !status(&w, &rescuer).await.draining);
}

/// One whose heartbeat is late can be told; it hears of it when it renews, and claims nothing then.
pub async fn an_expired_replica_hears_of_it_later(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add(task()).await;
    w.pass(TTL + MINUTE).await;
    drain(&w, &replica).await;
    assert_eq!(w.store.claim(replica.request(1)).await.unwrap_err().kind(), ErrorKind::NotRegistered);
    assert!(w.beat(&replica).await.drain);
    assert_eq!(w.claim_ids(&replica, 1).await, []);
}

/// Whoever comes back under another id does not drain.
pub async fn a_fresh_registration_does_not_drain(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    drain(&w, &replica).await;
    w.store.leave(replica.id).await.unwrap();
    let beat = Heartbeat { replica: replica.id, holdings: None };
    assert_eq!(w.store.heartbeat(beat).await.unwrap_err().kind(), ErrorKind::NotRegistered);
    let fresh = w.replica().await;
    let id = w.add(task()).await;
    assert!(!w.beat(&fresh).await.drain && !status(&w, &fresh).await.draining);
    assert_eq!(w.claim_ids(&fresh, 9).await, [id]);
}
