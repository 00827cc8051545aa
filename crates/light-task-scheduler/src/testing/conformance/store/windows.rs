//! Windows: claims among named tasks, and what to name.

use super::StoreHarness;
use super::world::{
    KIND, MINUTE, Replica, World, bytes, concurrency, failure, id, ids, inline, name, paused, task, task_as, texts,
};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::{BATCH_MAX, Candidate, CandidatesRequest, Claim, ClaimRequest, QueueSettings};
use crate::task::{FailureKind, NewTask, Start, State, TaskId};

async fn claim_among(w: &World<'_>, replica: &Replica, limit: usize, names: &[TaskId]) -> Claim {
    w.store.claim(ClaimRequest { among: Some(names.to_vec()), ..replica.request(limit) }).await.unwrap()
}

async fn ids_among(w: &World<'_>, replica: &Replica, limit: usize, names: &[TaskId]) -> Vec<TaskId> {
    ids(&claim_among(w, replica, limit, names).await.tasks)
}

fn look_for(kinds: &[&str], queues: &[&str], per_lane: usize) -> CandidatesRequest {
    let names = |all: &[&str]| all.iter().map(|text| name(text)).collect();
    CandidatesRequest { kinds: names(kinds), queues: names(queues), per_lane }
}

async fn look(w: &World<'_>, per_lane: usize) -> Vec<TaskId> {
    look_at(w, look_for(&[KIND], &[], per_lane)).await
}

async fn look_at(w: &World<'_>, request: CandidatesRequest) -> Vec<TaskId> {
    w.store.candidates(request).await.unwrap().tasks.into_iter().map(|candidate| candidate.id).collect()
}

/// Due since `minutes` after 1970: the larger, the later in order.
fn due(minutes: u32, id: &str) -> NewTask {
    task_as(id).start(Start::At(Timestamp::from_micros(0) + MINUTE * minutes))
}

/// A claim among tasks takes no other, though others come first.
pub async fn only_named_tasks_are_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let all = w.add_all(vec![task(); 4]).await;
    let claim = claim_among(&w, &replica, 9, &all[2..3]).await;
    assert_eq!(ids(&claim.tasks), all[2..3]);
    let record = &claim.tasks[0].record;
    assert_eq!((record.state, record.run, record.attempt, record.owner), (State::Running, 1, 1, Some(replica.id)));
    assert_eq!(w.claim_ids(&replica, 9).await, [&all[..2], &all[3..]].concat(), "the others are there for all");
}

/// Among named tasks the order of claims decides what is taken, not that of the names.
pub async fn named_tasks_are_taken_in_order(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![due(5, "e"), due(3, "c"), due(3, "d"), due(1, "a"), due(2, "b")]).await;
    w.add(due(0, "first").queue("other").unwrap()).await;
    let named: Vec<TaskId> = ["d", "e", "c", "b", "first", "a"].map(id).to_vec();
    assert_eq!(texts(&ids_among(&w, &replica, 3, &named).await), ["first", "a", "b"]);
    assert_eq!(texts(&ids_among(&w, &replica, 9, &named).await), ["c", "d", "e"]);
}

/// A name that nobody has, or that was said before, is as if it had not been said.
pub async fn unknown_and_repeated_names_are_ignored(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("default", concurrency(2)).await;
    let all = w.add_all(vec![task(); 3]).await;
    let gone = w.add(task()).await;
    w.command(&gone, Command::Cancel).await;
    w.command(&gone, Command::Delete).await;
    let named = [all[0].clone(), id("nobody"), all[0].clone(), gone, all[1].clone(), all[0].clone()];
    assert_eq!(ids_among(&w, &replica, 2, &named).await, all[..2], "a repetition costs neither a slot nor a permit");
}

/// A claim among nothing takes nothing, and still expires what is overdue and says when to ask again.
pub async fn no_names_take_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let now = w.now().await;
    let overdue = w.add(task().deadline(now + MINUTE)).await;
    let far = w.add(task().start(Start::After(MINUTE * 9))).await;
    w.pass(MINUTE * 2).await;
    let claim = claim_among(&w, &replica, 9, &[]).await;
    assert_eq!((claim.tasks.len(), claim.expired), (0, vec![overdue]));
    assert_eq!(claim.next_at, Some(w.get(&far).await.record.run_at));
}

/// A name does not override the kinds and queues that are asked for.
pub async fn named_tasks_of_other_kinds_and_queues_are_not_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let new = |kind: &str, queue: &str| NewTask::new(kind, &1).unwrap().queue(queue).unwrap();
    let all = w.add_all(vec![new("other", "mine"), new(KIND, "theirs"), new(KIND, "mine")]).await;
    let request = ClaimRequest { queues: vec![name("mine")], among: Some(all.clone()), ..replica.request(9) };
    assert_eq!(ids(&w.store.claim(request).await.unwrap().tasks), all[2..]);
    assert_eq!(w.state(&all[0]).await, State::Waiting);
    assert_eq!(w.state(&all[1]).await, State::Waiting);
}

/// What is held, owned by somebody, or over is not taken by its name.
pub async fn named_tasks_that_do_not_wait_are_not_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (replica, other) = (w.replica().await, w.replica().await);
    let running = w.run(&other, task()).await;
    let own = w.run(&replica, task()).await;
    let exporting = w.run(&other, task()).await;
    w.must(&exporting, RunEvent::Outcome(Some(bytes(b"1")))).await;
    let done = w.run(&other, task()).await;
    w.must(&done, RunEvent::Complete(inline())).await;
    let failed = w.run(&other, task()).await;
    w.must(&failed, RunEvent::Fail(failure(FailureKind::Error))).await;
    let cancelled = w.add(task()).await;
    w.command(&cancelled, Command::Cancel).await;
    let held = w.add(task().start(Start::Held)).await;
    let named = [running.id, own.id, exporting.id, done.id, failed.id, cancelled, held];
    let before = w.store.get(&named).await.unwrap();
    let claim = claim_among(&w, &replica, 9, &named).await;
    assert_eq!((claim.tasks, claim.next_at), (vec![], None));
    assert_eq!(w.store.get(&named).await.unwrap(), before, "nothing has changed");
}

/// A delayed or retrying task is not taken by its name before its time, and is then.
pub async fn named_tasks_wait_for_their_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let retried = w.run(&replica, task()).await;
    let at = w.now().await + MINUTE * 4;
    w.must(&retried, RunEvent::Retry(at, failure(FailureKind::Error))).await;
    let delayed = w.add(task().start(Start::After(MINUTE * 2))).await;
    let named = [retried.id.clone(), delayed.clone()];
    assert_eq!(ids_among(&w, &replica, 9, &named).await, []);
    w.pass(MINUTE * 3).await;
    let claim = claim_among(&w, &replica, 9, &named).await;
    assert_eq!((ids(&claim.tasks), claim.next_at), (vec![delayed], Some(at)));
    w.pass(MINUTE * 2).await;
    assert_eq!(ids_among(&w, &replica, 9, &named).await, [retried.id]);
}

/// A named task of a paused queue stays.
pub async fn a_pause_holds_named_tasks(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let stays = w.add(task().queue("paused").unwrap()).await;
    let goes = w.add(task()).await;
    w.set("paused", paused()).await;
    let claim = claim_among(&w, &replica, 9, &[stays.clone(), goes.clone()]).await;
    assert_eq!((ids(&claim.tasks), claim.next_at), (vec![goes], None));
    w.set("paused", QueueSettings::default()).await;
    let named = [stays];
    assert_eq!(ids_among(&w, &replica, 9, &named).await, named);
}

/// A limit counts named tasks like others, and a full queue keeps no other from being taken.
pub async fn a_limit_holds_named_tasks(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("full", concurrency(2)).await;
    let full = w.add_all((0..4).map(|_| task().queue("full").unwrap()).collect()).await;
    let free = w.add_all(vec![task(); 2]).await;
    let runs = w.claim(&replica, 1).await.tasks.remove(0);
    let named = [&full[..], &free[..]].concat();
    let claim = claim_among(&w, &replica, 9, &named).await;
    assert_eq!(ids(&claim.tasks), [full[1].clone(), free[0].clone(), free[1].clone()]);
    assert_eq!(claim.next_at, None, "only an end frees a slot");
    w.must(&runs, RunEvent::Complete(inline())).await;
    assert_eq!(ids_among(&w, &replica, 9, &named).await, [full[2].clone()]);
}

/// A rate counts named tasks like others, and spends permits only on what is taken.
pub async fn a_rate_holds_named_tasks(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rate = RateLimit { count: 1, period: MINUTE * 4, burst: 2 };
    w.set("default", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
    let all = w.add_all(vec![task(); 4]).await;
    assert_eq!(ids_among(&w, &replica, 9, &all[3..]).await, all[3..]);
    let claim = claim_among(&w, &replica, 9, &all).await;
    assert_eq!(ids(&claim.tasks), all[..1], "one permit of the burst was left");
    assert!(claim.next_at.is_some_and(|at| at > claim.now), "{:?} at {}", claim.next_at, claim.now);
    w.pass(MINUTE * 5).await;
    assert_eq!(ids_among(&w, &replica, 9, &all).await, all[1..2]);
}

/// A named task past its deadline expires and is not taken.
pub async fn an_overdue_named_task_expires(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let overdue = w.add(task().deadline(w.now().await + MINUTE)).await;
    w.pass(MINUTE * 2).await;
    let claim = claim_among(&w, &replica, 9, std::slice::from_ref(&overdue)).await;
    assert_eq!((claim.tasks, claim.expired), (vec![], vec![overdue.clone()]));
    assert_eq!(w.state(&overdue).await, State::Failed);
}

/// The number of a claim decides, whatever names come with a repetition.
pub async fn a_repeat_takes_no_other_names(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let all = w.add_all(vec![task(); 4]).await;
    let request = ClaimRequest { among: Some(all[1..3].to_vec()), ..replica.request(9) };
    let first = w.store.claim(request.clone()).await.unwrap().tasks;
    assert_eq!(ids(&first), all[1..3]);
    assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks, first);
    for among in [None, Some(all.clone()), Some(vec![])] {
        let again = ClaimRequest { among, ..request.clone() };
        assert_eq!(w.store.claim(again).await.unwrap().tasks, first);
    }
    let none = ClaimRequest { among: Some(vec![]), ..replica.request(9) };
    assert_eq!(w.store.claim(none.clone()).await.unwrap().tasks, []);
    let again = ClaimRequest { among: Some(all.clone()), ..none };
    assert_eq!(w.store.claim(again).await.unwrap().tasks, [], "an empty claim repeats too");
    assert_eq!(ids_among(&w, &replica, 9, &all).await, [all[0].clone(), all[3].clone()]);
}

/// A claim among few tasks tells that others are due, so that a window knows that it is old.
pub async fn other_due_work_is_told(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let all = w.add_all(vec![task(); 2]).await;
    let claim = claim_among(&w, &replica, 9, &all[..1]).await;
    assert_eq!(ids(&claim.tasks), all[..1]);
    assert!(claim.next_at.is_some_and(|at| at <= claim.now), "{:?} at {}", claim.next_at, claim.now);
    let claim = claim_among(&w, &replica, 9, &all).await;
    assert_eq!((ids(&claim.tasks), claim.next_at), (all[1..].to_vec(), None));
}

/// As many tasks as a batch may have can be named, and not one more.
pub async fn the_number_of_names_is_bounded(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let last = w.add(task()).await;
    let mut names: Vec<TaskId> = (1..BATCH_MAX).map(|n| id(&format!("nobody-{n}"))).collect();
    names.push(last);
    assert_eq!(ids_among(&w, &replica, 9, &names).await, names[BATCH_MAX - 1..]);
    names.push(id("one-more"));
    let request = ClaimRequest { among: Some(names), ..replica.request(9) };
    assert_eq!(w.store.claim(request).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// What can be claimed is told in the order in which it would be, with its place in that order.
pub async fn candidates_come_in_the_order_of_claims(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![due(5, "e"), due(3, "c"), due(3, "d"), due(1, "a")]).await;
    w.add_all(vec![due(2, "b").queue("other").unwrap(), due(4, "x").queue("other").unwrap()]).await;
    let told = w.store.candidates(look_for(&[KIND], &[], 9)).await.unwrap();
    assert!(told.tasks.is_sorted_by_key(Candidate::rank), "{told:?}");
    assert!(told.now >= w.get(&id("e")).await.spec.created_at);
    let others: Vec<_> = told.tasks.iter().filter(|it| it.queue == name("other")).map(|it| it.id.clone()).collect();
    assert_eq!(texts(&others), ["b", "x"]);
    for candidate in &told.tasks {
        let task = w.get(&candidate.id).await;
        assert_eq!((&candidate.queue, &candidate.kind), (&task.spec.queue, &task.spec.kind));
        assert_eq!(candidate.run_at, task.record.run_at);
    }
    let told: Vec<TaskId> = told.tasks.into_iter().map(|candidate| candidate.id).collect();
    assert_eq!(texts(&told), ["a", "b", "c", "d", "x", "e"]);
    assert_eq!(w.claim_ids(&replica, 9).await, told);
}

/// Each pair of queue and kind has its share, so that a long one hides no other.
pub async fn candidates_are_bounded_per_lane(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let new = |kind: &str, queue: &str| NewTask::new(kind, &1).unwrap().queue(queue).unwrap();
    let long = w.add_all(vec![new("x", "a"); 9]).await;
    let (other_kind, other_queue) = (w.add(new("y", "a")).await, w.add(new("x", "b")).await);
    let request = look_for(&["x", "y"], &[], 2);
    assert_eq!(look_at(&w, request).await, [&long[..2], &[other_kind, other_queue]].concat());
    assert_eq!(look_at(&w, look_for(&["x", "y"], &[], 0)).await, []);
    assert_eq!(look_at(&w, look_for(&["x", "y"], &[], usize::MAX)).await.len(), 11);
}

/// Other kinds and queues are no candidates; no queue means all, no kind none.
pub async fn candidates_are_of_the_asked_kinds_and_queues(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let new = |kind: &str, queue: &str| NewTask::new(kind, &1).unwrap().queue(queue).unwrap();
    let all = w.add_all(vec![new("x", "a"), new("x", "b"), new("y", "a"), new("y", "b")]).await;
    assert_eq!(look_at(&w, look_for(&["x"], &["b"], 9)).await, all[1..2]);
    assert_eq!(look_at(&w, look_for(&["y"], &[], 9)).await, all[2..]);
    assert_eq!(look_at(&w, look_for(&["x", "unheard-of", "x"], &["a", "unheard-of", "a"], 9)).await, all[..1]);
    assert_eq!(look_at(&w, look_for(&[], &[], 9)).await, []);
}

/// What is held, delayed, owned or over is no candidate.
pub async fn only_due_waiting_tasks_are_candidates(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    assert_eq!(look(&w, 9).await, [], "of an empty store");
    w.run(&replica, task()).await;
    let exporting = w.run(&replica, task()).await;
    w.must(&exporting, RunEvent::Outcome(Some(bytes(b"1")))).await;
    let done = w.run(&replica, task()).await;
    w.must(&done, RunEvent::Complete(inline())).await;
    let cancelled = w.add(task()).await;
    w.command(&cancelled, Command::Cancel).await;
    w.add(task().start(Start::Held)).await;
    w.add(task().start(Start::After(MINUTE))).await;
    let retried = w.run(&replica, task()).await;
    let now = w.now().await;
    w.must(&retried, RunEvent::Retry(now + MINUTE, failure(FailureKind::Error))).await;
    let released = w.run(&replica, task()).await;
    w.must(&released, RunEvent::Release(now, failure(FailureKind::Drained))).await;
    assert_eq!(look(&w, 9).await, [released.id]);
}

/// Time alone makes a candidate, without a claim in between.
pub async fn a_task_that_has_become_due_is_a_candidate(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task_as("later").start(Start::After(MINUTE * 2)), task_as("now")]).await;
    w.add_all(vec![task_as("latest").start(Start::After(MINUTE * 9)), task_as("soon").start(Start::After(MINUTE))])
        .await;
    assert_eq!(texts(&look(&w, 9).await), ["now"]);
    w.pass(MINUTE * 3).await;
    assert_eq!(texts(&look(&w, 9).await), ["now", "soon", "later"]);
    assert_eq!(texts(&look(&w, 2).await), ["now", "soon"]);
    let named = look(&w, 9).await;
    assert_eq!(ids_among(&w, &replica, 9, &named).await, named);
}

/// A paused queue has no candidates; one that is full, or has spent its rate, has: that can change at any moment.
pub async fn paused_queues_have_no_candidates_full_ones_do(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rate = RateLimit { count: 1, period: MINUTE * 4, burst: 1 };
    w.set("full", QueueSettings { rate: Some(rate), ..concurrency(1) }).await;
    w.run(&replica, task().queue("full").unwrap()).await;
    let full = w.add(task().queue("full").unwrap()).await;
    let unpaused = w.add(task().queue("paused").unwrap()).await;
    w.set("paused", paused()).await;
    let both = [full, unpaused];
    assert_eq!(look(&w, 9).await, both[..1]);
    w.set("paused", QueueSettings::default()).await;
    assert_eq!(look(&w, 9).await, both);
}

/// Looking takes, expires and reserves nothing.
pub async fn looking_changes_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (one, other) = (w.replica().await, w.replica().await);
    let overdue = w.add(task().deadline(w.now().await + MINUTE)).await;
    let all = w.add_all(vec![task(); 3]).await;
    w.pass(MINUTE * 2).await;
    let before = w.list(Default::default()).await;
    for _ in 0..2 {
        let told = look(&w, 9).await;
        assert_eq!(told.into_iter().filter(|id| *id != overdue).collect::<Vec<_>>(), all);
    }
    assert_eq!(w.list(Default::default()).await, before);
    assert_eq!(w.claim_ids(&other, 2).await, all[..2], "whoever comes first takes them");
    assert_eq!(ids_among(&w, &one, 9, &all).await, all[2..], "what was taken meanwhile is left out");
}
