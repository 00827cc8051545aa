//! Lost replies: whatever is sent again changes nothing more, and answers as the first did.

use super::StoreHarness;
use super::world::{MINUTE, World, bytes, concurrency, failure, ids, inline, name, stored, task, task_as, token};
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::{Answer, Change, Inserted, NewReplica, QueueSettings, Report, RescueRequest, Said, SweepRequest};
use crate::task::{FailureKind, Outcome, Progress, ResultRef, State, Task};

/// A batch of every end, sent again: each item answers that it had been applied, and nothing has moved.
pub async fn a_batch_of_ends_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let now = w.now().await;
    let broke = || failure(FailureKind::Error);
    let events = [
        RunEvent::Outcome(Some(bytes(b"1"))),
        RunEvent::Complete(inline()),
        RunEvent::Complete(stored("key")),
        RunEvent::Retry(now + MINUTE, broke()),
        RunEvent::Release(now + MINUTE, failure(FailureKind::Drained)),
        RunEvent::Fail(broke()),
    ];
    w.add_all(vec![task(); events.len()]).await;
    let tasks = w.claim(&owner, events.len()).await.tasks;
    let change =
        |(task, event): (&Task, &RunEvent)| Change { id: task.id.clone(), token: token(task), event: event.clone() };
    let batch: Vec<Change> = tasks.iter().zip(&events).map(change).collect();
    let first = w.store.apply(batch.clone()).await.unwrap();
    let after = w.store.get(&ids(&tasks)).await.unwrap();
    let counts = w.store.counts().await.unwrap();
    for _ in 0..2 {
        let again = w.store.apply(batch.clone()).await.unwrap();
        let expected: Vec<_> = first.iter().map(|answer| Answer::Already(answer.state().unwrap())).collect();
        assert_eq!(again, expected);
        assert_eq!(w.store.get(&ids(&tasks)).await.unwrap(), after);
        assert_eq!(w.store.counts().await.unwrap(), counts);
    }
}

/// Successes in one call are applied together where they are alike; each is answered and kept as it would be alone.
pub async fn successes_among_many_that_are_alike(h: &dyn StoreHarness) {
    const CANCELLED: usize = 3;
    const STALE: usize = 5;
    const SPOKEN: usize = 7;
    let w = World::open(h).await;
    let owner = w.replica().await;
    for is_pure in [true, false] {
        w.add_all(vec![task(); 20]).await;
        let tasks = w.claim(&owner, 20).await.tasks;
        let null = RunEvent::Complete(ResultRef::Inline(bytes(b"null")));
        let change = |task: &Task| Change { id: task.id.clone(), token: token(task), event: null.clone() };
        let mut batch: Vec<Change> = tasks.iter().map(change).collect();
        if !is_pure {
            w.command(&tasks[CANCELLED].id, Command::Cancel).await;
            batch[STALE].token.run += 1;
            w.must(&tasks[SPOKEN], RunEvent::StopUnconfirmed).await;
        }
        w.pass(MINUTE).await;
        let answers = w.store.apply(batch.clone()).await.unwrap();
        let now = w.now().await;
        for (n, (answer, task)) in answers.into_iter().zip(&tasks).enumerate() {
            let record = w.get(&task.id).await.record;
            let expected = match n {
                CANCELLED if !is_pure => State::Cancelled,
                STALE if !is_pure => {
                    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
                    assert_eq!((record.state, record.finished_at), (State::Running, None));
                    continue;
                }
                _ => State::Succeeded,
            };
            assert_eq!((answer, record.state), (Answer::Applied(Some(expected)), expected), "{n}");
            assert!(
                record.finished_at.is_some_and(|time| time >= task.record.started_at.unwrap() + MINUTE && time <= now)
            );
            assert!(!record.stop_unconfirmed && record.owner == task.record.owner, "{record:?}");
            let result = (expected == State::Succeeded).then(|| ResultRef::Inline(bytes(b"null")));
            assert_eq!(record.result(), result.as_ref(), "{n}");
        }
        let again = w.store.apply(batch).await.unwrap();
        let already = again.iter().filter(|answer| matches!(answer, Answer::Already(_))).count();
        assert_eq!(already, if is_pure { 20 } else { 19 });
    }
}

/// A release sent again after the task was claimed anew is stale, whoever has it now.
pub async fn a_release_sent_again_after_the_next_claim(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (a, b) = (w.replica().await, w.replica().await);
    for next in [&a, &b] {
        let running = w.run(&a, task()).await;
        let event = RunEvent::Release(w.now().await, failure(FailureKind::Drained));
        w.must(&running, event.clone()).await;
        let taken = w.claim(next, 1).await.tasks.remove(0);
        assert_eq!(taken.id, running.id);
        let late = w.report(&running, event).await;
        assert_eq!(late, Answer::Refused(crate::state::Refusal::Stale));
        assert_eq!(w.get(&taken.id).await, taken, "the new run goes on");
        w.must(&taken, RunEvent::Complete(inline())).await;
    }
}

/// A vector of insertions sent again, some of which have moved on meanwhile, makes no second task.
pub async fn insertions_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let batch: Vec<_> = ["waits", "runs", "ended", "gone"].map(task_as).to_vec();
    let all = w.add_all(batch.clone()).await;
    let tasks = w.claim(&replica, 9).await.tasks;
    let now = w.now().await;
    w.must(&tasks[0], RunEvent::Release(now, failure(FailureKind::Drained))).await;
    w.must(&tasks[2], RunEvent::Complete(inline())).await;
    w.must(&tasks[3], RunEvent::Complete(inline())).await;
    w.command(&all[3], Command::Delete).await;
    let before = w.list(Default::default()).await;
    for _ in 0..2 {
        let again: Vec<_> = w.insert(batch.clone()).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            again,
            [
                Inserted::Existing(all[0].clone(), State::Waiting),
                Inserted::Existing(all[1].clone(), State::Running),
                Inserted::Existing(all[2].clone(), State::Succeeded),
                Inserted::Removed(all[3].clone()),
            ]
        );
        assert_eq!(w.list(Default::default()).await, before);
    }
}

/// A claim sent again takes neither a slot nor a permit more.
pub async fn a_claim_sent_again_spends_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rate = RateLimit { count: 1, period: MINUTE, burst: 4 };
    w.set("default", QueueSettings { rate: Some(rate), ..concurrency(3) }).await;
    let all = w.add_all(vec![task(); 9]).await;
    let request = replica.request(2);
    let first = w.store.claim(request.clone()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks, first.tasks);
    }
    let third = w.claim(&replica, 9).await.tasks;
    assert_eq!(ids(&third), all[2..3], "the third slot was free");
    w.must(&third[0], RunEvent::Complete(inline())).await;
    assert_eq!(w.claim_ids(&replica, 9).await, all[3..4], "and the fourth permit");
}

/// A claim sent again after its owner was declared dead and its tasks were adopted gives nothing back.
pub async fn a_claim_sent_again_by_the_dead(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(); 3]).await;
    let request = owner.request(2);
    assert_eq!(w.store.claim(request.clone()).await.unwrap().tasks.len(), 2);
    assert_eq!(w.take_over(&owner, &heir).await.len(), 2);
    let before = w.list(Default::default()).await;
    assert_eq!(w.store.claim(request).await.unwrap_err().kind(), ErrorKind::NotRegistered);
    assert_eq!(w.list(Default::default()).await, before);
}

/// A rescue sent again adopts what it had not, and never a task twice.
pub async fn a_rescue_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (owner, heir) = (w.replica().await, w.replica().await);
    w.add_all(vec![task(); 3]).await;
    w.claim(&owner, 3).await;
    w.pass(super::world::TTL + MINUTE).await;
    w.beat(&heir).await;
    let suspects = vec![w.suspect(&owner).await];
    let request =
        RescueRequest { replica: heir.id, suspects, kinds: vec![name(super::world::KIND)], queues: vec![], limit: 2 };
    let first = w.store.rescue(request.clone()).await.unwrap();
    let again = w.store.rescue(request.clone()).await.unwrap();
    assert_eq!((first.tasks.len(), again.tasks.len()), (2, 1));
    assert_eq!((first.dead, again.dead), (vec![owner.id], vec![owner.id]));
    assert!(w.store.rescue(request).await.unwrap().tasks.is_empty());
    for task in w.list(Default::default()).await {
        assert_eq!((task.record.owner, task.record.run, task.record.execution), (Some(heir.id), 2, 1));
    }
}

/// Who leaves again, or was never there, does no harm.
pub async fn leaving_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (gone, stays) = (w.replica().await, w.replica().await);
    let running = w.run(&stays, task()).await;
    for _ in 0..2 {
        w.store.leave(gone.id).await.unwrap();
    }
    w.store.leave(super::world::Replica::unknown().id).await.unwrap();
    w.beat(&stays).await;
    w.must(&running, RunEvent::Complete(inline())).await;
}

/// A registration sent again is refused, and the first one stands.
pub async fn registering_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    let again = NewReplica { id: replica.id, name: "again".to_owned(), ttl: MINUTE, remote: false };
    assert_eq!(w.store.register(again).await.unwrap_err().kind(), ErrorKind::Conflict);
    w.pass(MINUTE * 2).await;
    w.must(&running, RunEvent::Complete(inline())).await;
    let id = w.add(task()).await;
    assert_eq!(w.claim_ids(&replica, 1).await, [id], "its lease is still the first one");
}

/// Every command sent again answers that it had been obeyed, and moves nothing more.
pub async fn commands_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task()).await;
    for (command, after) in
        [(Command::Cancel, State::Cancelled), (Command::Requeue, State::Waiting), (Command::Cancel, State::Cancelled)]
    {
        assert_eq!(w.command(&id, command).await, Answer::Applied(Some(after)));
        let before = w.get(&id).await;
        let again = w.command(&id, command).await;
        assert!(!matches!(again, Answer::Applied(_)), "{command:?} again: {again:?}");
        assert_eq!(w.get(&id).await, before, "{command:?} again");
    }
    assert_eq!(w.command(&id, Command::Delete).await, Answer::Applied(None));
    assert_eq!(w.command(&id, Command::Delete).await, Answer::Missing);
}

/// A report sent again is answered as the first, and reaches the owner as one.
pub async fn reports_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let running = w.run(&owner, task()).await;
    let report = |said| Report { id: running.id.clone(), execution: running.record.execution, said };
    let progress = report(Said::Progress(Progress { done: 3, ..Progress::default() }));
    let end = report(Said::Ended(Outcome::Succeeded(Some(bytes(b"1")))));
    for sent in [progress, end] {
        for _ in 0..2 {
            assert_eq!(w.store.post_reports(vec![sent.clone(), sent.clone()]).await.unwrap(), [true, true]);
        }
        assert_eq!(w.beat(&owner).await.reports, [sent]);
    }
    w.must(&running, RunEvent::Complete(inline())).await;
    assert_eq!(w.beat(&owner).await.reports, []);
}

/// A confirmation of garbage sent again, or of a key that nobody knows, removes nothing else.
pub async fn a_confirmation_sent_again(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for key in ["one", "two"] {
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Complete(stored(key))).await;
        w.command(&running.id, Command::Delete).await;
    }
    let confirmed = vec!["one".to_owned(), "nobody's".to_owned()];
    for _ in 0..2 {
        let request = SweepRequest { limit: 9, confirmed: confirmed.clone(), ..SweepRequest::default() };
        assert_eq!(w.store.sweep(request).await.unwrap().garbage, ["two"]);
    }
}

/// Two ends of one task and one of another in one call: what the store collects for the others outlasts the second
/// move of the one.
pub async fn a_task_that_moves_twice_among_others(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.add_all(vec![task(); 3]).await;
    let tasks = w.claim(&owner, 3).await.tasks;
    let change = |at: usize, event: RunEvent| Change { id: tasks[at].id.clone(), token: token(&tasks[at]), event };
    let batch = vec![
        change(0, RunEvent::Complete(inline())),
        change(1, RunEvent::Outcome(Some(bytes(b"1")))),
        change(1, RunEvent::Complete(inline())),
        change(2, RunEvent::Complete(inline())),
    ];
    w.store.apply(batch).await.unwrap();
    for task in &tasks {
        let found = w.get(&task.id).await;
        assert_eq!((found.record.state, found.record.result()), (State::Succeeded, Some(&inline())));
    }
    assert_eq!(w.store.counts().await.unwrap()[0].of(State::Succeeded), 3);
}
