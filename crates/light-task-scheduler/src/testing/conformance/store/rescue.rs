//! Taking over the tasks of the dead, and of nobody else.

use super::StoreHarness;
use super::world::{KIND, MINUTE, Replica, TTL, World, bytes, failure, ids, inline, name, task};
use crate::error::ErrorKind;
use crate::state::{Refusal, RunEvent};
use crate::store::{Answer, ClaimRequest, RescueRequest, Suspect};
use crate::task::{FailureKind, Handle, NewTask, State};

async fn refused(w: &World<'_>, rescuer: &Replica, suspects: Vec<Suspect>) {
    let before = w.list(Default::default()).await;
    let request = RescueRequest { replica: rescuer.id, suspects, kinds: vec![name(KIND)], queues: vec![], limit: 9 };
    let error = w.store.rescue(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegistered, "{error}");
    assert_eq!(w.list(Default::default()).await, before, "a refused rescue changes nothing");
}

/// A dead replica's task is adopted: the same execution under a higher fence, by the rescuer.
pub async fn an_expired_owners_task_is_adopted(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    w.must(&running, RunEvent::Started(Some(Handle::new("h").unwrap()))).await;
    w.pass(TTL + MINUTE).await;
    let heir = w.replica().await;
    let suspect = w.suspect(&owner).await;
    let rescued = w.rescue(&heir, vec![suspect], 9).await;
    assert_eq!(rescued.dead, [owner.id]);
    let adopted = &rescued.tasks[0];
    assert_eq!(*adopted, w.get(&running.id).await, "the answer is what is stored");
    let (old, new) = (&running.record, &adopted.record);
    assert_eq!((new.state, new.owner, new.run), (State::Running, Some(heir.id), old.run + 1));
    assert_eq!((new.execution, new.attempt, new.started_at), (old.execution, old.attempt, old.started_at));
    assert_eq!(new.handle().map(Handle::as_str), Some("h"), "by which it is found again");
}

/// I6: once its task is adopted, the old owner's writes are stale; the adopter's are not.
pub async fn the_old_owner_is_fenced_off(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    let adopted = w.take_over(&owner, &heir).await.remove(0);
    let late = w.report(&running, RunEvent::Complete(inline())).await;
    assert_eq!(late, Answer::Refused(Refusal::Stale));
    assert_eq!(w.get(&running.id).await, adopted);
    assert_eq!(w.must(&adopted, RunEvent::Complete(inline())).await.record.state, State::Succeeded);
    assert_eq!(w.report(&running, RunEvent::Complete(inline())).await, Answer::Refused(Refusal::Stale));
}

/// A dead owner whose task nobody has adopted yet still holds the current token: its success counts.
pub async fn a_dead_owner_may_finish_what_nobody_adopted(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    w.store.leave(owner.id).await.unwrap();
    w.must(&running, RunEvent::Complete(inline())).await;
    assert_eq!(w.rescue(&heir, vec![], 9).await.tasks, []);
}

/// A suspect whose lease has not expired is spared, and so are its tasks.
pub async fn a_suspect_with_a_lease_is_spared(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, rescuer) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    let suspect = w.suspect(&owner).await;
    let rescued = w.rescue(&rescuer, vec![suspect], 9).await;
    assert!(rescued.dead.is_empty() && rescued.tasks.is_empty());
    assert_eq!(w.get(&running.id).await, running);
    w.beat(&owner).await;
}

/// A suspect that has beaten since it was seen is spared, even if it has expired again.
pub async fn a_suspect_that_beat_in_between_is_spared(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    w.pass(TTL + MINUTE).await;
    let suspect = w.suspect(&owner).await;
    w.beat(&owner).await;
    let rescuer = w.replica().await;
    assert!(w.rescue(&rescuer, vec![suspect], 9).await.dead.is_empty());
    w.pass(TTL + MINUTE).await;
    w.beat(&rescuer).await;
    let rescued = w.rescue(&rescuer, vec![suspect], 9).await;
    assert!(rescued.dead.is_empty() && rescued.tasks.is_empty(), "the beat is another one");
    assert_eq!(w.get(&running.id).await, running);
}

/// Expired alone is not dead: without being named a suspect, an owner keeps its tasks.
pub async fn who_is_not_suspected_is_spared(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    w.pass(TTL * 3).await;
    let rescuer = w.replica().await;
    let rescued = w.rescue(&rescuer, vec![], 9).await;
    assert!(rescued.dead.is_empty() && rescued.tasks.is_empty());
    assert_eq!(w.get(&running.id).await, running);
}

/// Of several suspects each is judged for itself.
pub async fn each_suspect_is_judged_for_itself(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (dead, beaten) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(); 3]).await;
    let lost = w.claim_ids(&dead, 1).await;
    w.claim(&beaten, 1).await;
    w.pass(TTL + MINUTE).await;
    let suspects = [w.suspect(&dead).await, w.suspect(&beaten).await];
    w.beat(&beaten).await;
    let (alive, rescuer) = (w.replica().await, w.replica().await);
    w.claim(&alive, 1).await;
    let suspects = vec![suspects[1], w.suspect(&alive).await, suspects[0]];
    let rescued = w.rescue(&rescuer, suspects, 9).await;
    assert_eq!(rescued.dead, [dead.id]);
    assert_eq!(ids(&rescued.tasks), lost);
}

/// A rescue whose reply was lost can be repeated: the dead are named again, nothing is adopted twice.
pub async fn a_repeated_rescue_names_the_dead_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.run(&owner, task()).await;
    w.pass(TTL + MINUTE).await;
    let rescuer = w.replica().await;
    let suspect = w.suspect(&owner).await;
    let first = w.rescue(&rescuer, vec![suspect], 9).await;
    let again = w.rescue(&rescuer, vec![suspect], 9).await;
    assert_eq!((first.dead, first.tasks.len()), (vec![owner.id], 1));
    assert_eq!((again.dead, again.tasks.len()), (vec![owner.id], 0));
    assert_eq!(w.beat_holding(&rescuer, &[]).await.owned.map(|owned| owned.len()), Some(1), "found by its holdings");
}

/// Only asked kinds are adopted; the others wait for a replica that can run them.
pub async fn only_asked_kinds_are_adopted(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(), NewTask::new("other", &1).unwrap()]).await;
    let request = ClaimRequest { kinds: vec![name("other"), name(KIND)], ..owner.request(9) };
    let both = w.store.claim(request).await.unwrap().tasks;
    w.store.leave(owner.id).await.unwrap();
    let rescue = |kinds| RescueRequest { replica: heir.id, suspects: vec![], kinds, queues: vec![], limit: 9 };
    assert_eq!(w.store.rescue(rescue(vec![])).await.unwrap().tasks, []);
    assert_eq!(ids(&w.store.rescue(rescue(vec![name("other")])).await.unwrap().tasks), ids(&both[1..]));
    assert_eq!(ids(&w.store.rescue(rescue(vec![name(KIND)])).await.unwrap().tasks), ids(&both[..1]));
}

/// Who may adopt from some queues only leaves the others alone.
pub async fn only_asked_queues_are_adopted(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(), task().queue("a").unwrap(), task().queue("b").unwrap()]).await;
    let all = w.claim(&owner, 9).await.tasks;
    w.store.leave(owner.id).await.unwrap();
    let rescue = |queues: &[&str]| RescueRequest {
        replica: heir.id,
        suspects: vec![],
        kinds: vec![name(KIND)],
        queues: queues.iter().map(|queue| name(queue)).collect(),
        limit: 9,
    };
    assert_eq!(w.store.rescue(rescue(&["nobody's"])).await.unwrap().tasks, []);
    assert_eq!(ids(&w.store.rescue(rescue(&["b", "nobody's"])).await.unwrap().tasks), ids(&all[2..]));
    assert_eq!(ids(&w.store.rescue(rescue(&[])).await.unwrap().tasks), ids(&all[..2]));
}

/// Adoption is bounded by the limit and goes by the oldest claim; 0 only declares the dead.
pub async fn the_oldest_claims_are_adopted_first(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let mut expected = w.add_all((0..5).map(|_| task().priority(1)).collect()).await;
    expected.reverse();
    // The last inserted is claimed first, so that insertion and claim order differ.
    for id in expected.iter().rev().take(4) {
        w.command(id, crate::Command::Cancel).await;
    }
    let first = w.claim_ids(&owner, 1).await;
    for id in expected.iter().skip(1) {
        w.pass(MINUTE).await;
        w.command(id, crate::Command::Requeue).await;
        assert_eq!(w.claim_ids(&owner, 1).await, std::slice::from_ref(id));
    }
    assert_eq!(first, expected[..1]);
    w.store.leave(owner.id).await.unwrap();
    assert_eq!(w.rescue(&heir, vec![], 0).await.tasks, []);
    assert_eq!(ids(&w.rescue(&heir, vec![], 2).await.tasks), expected[..2]);
    assert_eq!(ids(&w.rescue(&heir, vec![], 9).await.tasks), expected[2..]);
}

/// I8: an exporting task is adopted as exporting, with its output; it never runs again.
pub async fn an_exporting_task_is_adopted_too(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    w.must(&running, RunEvent::Outcome(Some(bytes(b"out")))).await;
    let adopted = w.take_over(&owner, &heir).await.remove(0);
    assert_eq!((adopted.record.state, adopted.record.output()), (State::Exporting, Some(&bytes(b"out"))));
    assert_eq!((adopted.record.run, adopted.record.execution), (running.record.run + 1, running.record.execution));
    assert_eq!(w.claim_ids(&heir, 9).await, []);
    w.must(&adopted, RunEvent::Complete(inline())).await;
}

/// Who leaves hands its tasks over at once, without a suspicion and without waiting.
pub async fn a_leaver_hands_over_at_once(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    w.store.leave(owner.id).await.unwrap();
    assert_eq!(ids(&w.rescue(&heir, vec![], 9).await.tasks), [running.id]);
}

/// Nothing that is held, waiting or over is adopted, whoever owned it last.
pub async fn only_owned_states_are_adopted(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    let later = w.now().await + MINUTE * 1_000;
    for event in [
        RunEvent::Complete(inline()),
        RunEvent::Fail(failure(FailureKind::Error)),
        RunEvent::Retry(later, failure(FailureKind::Error)),
    ] {
        let running = w.run(&owner, task()).await;
        w.must(&running, event).await;
    }
    w.add(task()).await;
    w.add(task().start(crate::Start::Held)).await;
    w.store.leave(owner.id).await.unwrap();
    assert_eq!(w.rescue(&heir, vec![], 9).await.tasks, []);
}

/// Two rescuers never adopt the same task.
pub async fn two_rescuers_share_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, a, b) = (w.replica().await, w.replica().await, w.replica().await);
    w.add_all(vec![task(); 10]).await;
    w.claim(&owner, 10).await;
    w.store.leave(owner.id).await.unwrap();
    let mut adopted = ids(&w.rescue(&a, vec![], 6).await.tasks);
    adopted.extend(ids(&w.rescue(&b, vec![], 6).await.tasks));
    assert_eq!(adopted.len(), 10);
    adopted.sort();
    adopted.dedup();
    assert_eq!(adopted.len(), 10);
}

/// Adopters die too: a chain of adoptions keeps the execution and moves the fence each time.
pub async fn a_chain_of_adoptions_keeps_the_execution(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let mut owner = w.replica().await;
    let first = w.run(&owner, task()).await;
    for step in 1..=5 {
        let heir = w.replica().await;
        let adopted = w.take_over(&owner, &heir).await.remove(0);
        let record = &adopted.record;
        assert_eq!((record.run, record.execution, record.attempt), (1 + step, first.record.execution, 1));
        owner = heir;
    }
}

/// After an adoption and a retry the next claim is a new execution above every fence before.
pub async fn a_claim_after_an_adoption_is_a_new_execution(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    w.run(&owner, task()).await;
    let adopted = w.take_over(&owner, &heir).await.remove(0);
    let now = w.now().await;
    w.must(&adopted, RunEvent::Release(now, failure(FailureKind::Lost))).await;
    let again = w.claim(&heir, 1).await.tasks.remove(0).record;
    assert_eq!((again.run, again.execution, again.attempt, again.interruptions), (3, 3, 2, 1));
}

/// Who is unknown, has left or has expired cannot rescue, nor declare anybody dead.
pub async fn a_rescuer_must_be_alive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, left, late) = (w.replica().await, w.replica().await, w.replica().await);
    w.run(&owner, task()).await;
    w.store.leave(left.id).await.unwrap();
    w.pass(TTL + MINUTE).await;
    let suspect = w.suspect(&owner).await;
    for rescuer in [&Replica::unknown(), &left, &late] {
        refused(&w, rescuer, vec![suspect]).await;
    }
    w.beat(&owner).await;
}

/// A rescuer that names itself, being alive, is spared.
pub async fn a_rescuer_does_not_bury_itself(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let rescuer = w.replica().await;
    let running = w.run(&rescuer, task()).await;
    let me = w.suspect(&rescuer).await;
    let rescued = w.rescue(&rescuer, vec![me], 9).await;
    assert!(rescued.dead.is_empty() && rescued.tasks.is_empty());
    w.must(&running, RunEvent::Complete(inline())).await;
}

/// A suspect that the store has never heard of does no harm.
pub async fn an_unknown_suspect_does_no_harm(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, rescuer) = (w.replica().await, w.replica().await);
    let running = w.run(&owner, task()).await;
    let suspect = Suspect { id: Replica::unknown().id, beat: 0 };
    assert_eq!(w.rescue(&rescuer, vec![suspect], 9).await.tasks, []);
    assert_eq!(w.get(&running.id).await, running);
}
