//! Which tasks a claim takes, and in which order.

use super::StoreHarness;
use super::world::{KIND, MINUTE, World, concurrency, failure, ids, inline, name, paused, task, task_as, texts};
use crate::state::{Command, RunEvent};
use crate::store::{CandidatesRequest, ClaimRequest};
use crate::task::{FailureKind, NewTask, Start, State};

/// What was inserted first runs first, also within one call.
pub async fn insertion_orders_equals(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let mut expected = w.add_all((0..20).map(|_| task()).collect()).await;
    expected.extend(w.add_all((0..20).map(|_| task()).collect()).await);
    let mut claimed = w.claim_ids(&replica, 15).await;
    claimed.extend(w.claim_ids(&replica, 100).await);
    assert_eq!(claimed, expected);
}

/// The id says nothing about the order.
pub async fn ids_do_not_order(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let expected = ["z", "a", "m", "10", "9"];
    w.add_all(expected.iter().map(|id| task_as(id)).collect()).await;
    assert_eq!(texts(&w.claim_ids(&replica, 10).await), expected);
}

/// I12: of one priority, what became due first runs first, whenever it was inserted.
pub async fn the_due_time_goes_before_the_insertion(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add(task_as("third").start(Start::After(MINUTE * 3))).await;
    w.add(task_as("first").start(Start::After(MINUTE))).await;
    w.add(task_as("second").start(Start::After(MINUTE * 2))).await;
    w.pass(MINUTE * 4).await;
    w.add(task_as("fourth")).await;
    assert_eq!(texts(&w.claim_ids(&replica, 10).await), ["first", "second", "third", "fourth"]);
}

/// A retried task takes its place by its new time, not by its insertion.
pub async fn a_retried_task_queues_by_its_new_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let first = w.run(&replica, task_as("first")).await;
    w.add(task_as("second")).await;
    let at = w.now().await + MINUTE;
    w.must(&first, RunEvent::Retry(at, failure(FailureKind::Error))).await;
    w.pass(MINUTE * 2).await;
    assert_eq!(texts(&w.claim_ids(&replica, 10).await), ["second", "first"]);
}

/// I11: nothing is claimed before its time, and everything from it on.
pub async fn nothing_starts_before_its_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let at = w.now().await + MINUTE * 2;
    let ids = w.add_all(vec![task().start(Start::After(MINUTE * 2)), task().start(Start::At(at))]).await;
    assert_eq!(w.claim_ids(&replica, 10).await, []);
    w.pass(MINUTE).await;
    assert_eq!(w.claim_ids(&replica, 10).await, []);
    w.pass(MINUTE + MINUTE / 2).await;
    let mut claimed = w.claim_ids(&replica, 10).await;
    claimed.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(claimed, expected);
}

/// I11 for retries: the back-off is kept.
pub async fn a_retry_waits_for_its_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    let at = w.now().await + MINUTE * 2;
    let waiting = w.must(&running, RunEvent::Retry(at, failure(FailureKind::Error))).await;
    assert_eq!((waiting.record.state, waiting.record.run_at), (State::Waiting, at));
    w.pass(MINUTE).await;
    assert_eq!(w.claim_ids(&replica, 10).await, []);
    w.pass(MINUTE + MINUTE / 2).await;
    assert_eq!(w.claim_ids(&replica, 10).await, [running.id]);
}

/// A crowd of delayed tasks ahead does not hide one that is due.
pub async fn delayed_tasks_hide_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all((0..2_000).map(|_| task().priority(9).start(Start::After(MINUTE))).collect()).await;
    let due = w.add(task()).await;
    assert_eq!(w.claim_ids(&replica, 1).await, [due]);
}

/// A crowd of tasks of a kind that this replica cannot run does not hide one that it can.
pub async fn other_kinds_hide_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all((0..2_000).map(|_| NewTask::new("other", &1).unwrap().priority(9)).collect()).await;
    let due = w.add(task()).await;
    assert_eq!(w.claim_ids(&replica, 1).await, [due]);
}

/// A crowd in a paused queue, or in one at its limit, does not hide a task of another queue.
pub async fn blocked_queues_hide_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.set("paused", paused()).await;
    w.set("full", concurrency(1)).await;
    w.run(&replica, task().queue("full").unwrap()).await;
    for queue in ["paused", "full"] {
        w.add_all((0..1_000).map(|_| task().queue(queue).unwrap().priority(9)).collect()).await;
    }
    let due = w.add(task().queue("free").unwrap()).await;
    assert_eq!(w.claim_ids(&replica, 1).await, [due]);
}

/// Only asked kinds are taken; the others stay for those who can run them.
pub async fn only_asked_kinds_are_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let kinds = ["a", "b", "c", "b", "a"];
    let all = w.add_all(kinds.iter().map(|kind| NewTask::new(kind, &1).unwrap()).collect()).await;
    let ask =
        |kinds: &[&str]| ClaimRequest { kinds: kinds.iter().map(|kind| name(kind)).collect(), ..replica.request(9) };
    let taken = w.store.claim(ask(&["b", "c", "nothing"])).await.unwrap();
    assert_eq!(ids(&taken.tasks), all[1..4]);
    assert_eq!(w.store.claim(ask(&[])).await.unwrap().tasks, [], "no kinds, no tasks");
    let rest = w.store.claim(ask(&["a"])).await.unwrap();
    assert_eq!(ids(&rest.tasks), [all[0].clone(), all[4].clone()]);
}

/// Only asked queues are taken; none named means all.
pub async fn only_asked_queues_are_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let queues = ["a", "b", "c", "b", "a"];
    let all = w.add_all(queues.iter().map(|queue| task().queue(queue).unwrap()).collect()).await;
    let ask = |queues: &[&str]| ClaimRequest {
        queues: queues.iter().map(|queue| name(queue)).collect(),
        ..replica.request(9)
    };
    let taken = w.store.claim(ask(&["c", "b", "nothing"])).await.unwrap();
    assert_eq!(ids(&taken.tasks), all[1..4]);
    let rest = w.store.claim(ask(&[])).await.unwrap();
    assert_eq!(ids(&rest.tasks), [all[0].clone(), all[4].clone()]);
}

/// One order over all queues and kinds: neither is preferred.
pub async fn queues_and_kinds_share_one_order(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let new = |at: usize| NewTask::new(["a", "b"][at % 2], &1).unwrap().queue(["q", "p", "r"][at % 3]).unwrap();
    let all = w.add_all((0..12).map(new).collect()).await;
    let ask = || ClaimRequest { kinds: vec![name("b"), name("a")], ..replica.request(5) };
    let mut taken = ids(&w.store.claim(ask()).await.unwrap().tasks);
    taken.extend(ids(&w.store.claim(ask()).await.unwrap().tasks));
    taken.extend(ids(&w.store.claim(ask()).await.unwrap().tasks));
    assert_eq!(taken, all);
}

/// A claim never takes more than it asks for.
pub async fn never_more_than_asked(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let all = w.add_all((0..5).map(|_| task()).collect()).await;
    assert_eq!(w.claim_ids(&replica, 0).await, []);
    assert_eq!(w.claim_ids(&replica, 3).await, all[..3]);
    assert_eq!(w.claim_ids(&replica, 3).await, all[3..]);
    assert_eq!(w.claim_ids(&replica, 3).await, []);
}

/// What a claim hands out is the row as it then is: owner, fence, execution and attempt moved by one.
pub async fn a_claim_moves_the_fence_and_counts_the_attempt(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task()).await;
    w.pass(MINUTE).await;
    let claim = w.claim(&replica, 1).await;
    let task = &claim.tasks[0];
    assert_eq!(*task, w.get(&id).await, "the answer is what is stored");
    let record = &task.record;
    assert_eq!((record.state, record.owner), (State::Running, Some(replica.id)));
    assert_eq!((record.run, record.execution, record.attempt, record.generation), (1, 1, 1, 0));
    assert_eq!(record.started_at, Some(claim.now), "stamped with the time that the claim answers");
    assert!(claim.now >= task.spec.created_at + MINUTE);
}

/// Each claim of a task has a higher fence, whoever makes it.
pub async fn the_fence_grows_with_every_claim(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let (a, b) = (w.replica().await, w.replica().await);
    w.add(task()).await;
    let now = w.now().await;
    for run in 1..=6 {
        let replica = if run % 2 == 0 { &a } else { &b };
        let running = w.claim(replica, 1).await.tasks.remove(0);
        let expected = (run, run, u32::try_from(run).unwrap());
        assert_eq!((running.record.run, running.record.execution, running.record.attempt), expected);
        w.must(&running, RunEvent::Retry(now, failure(FailureKind::Error))).await;
    }
}

/// Only waiting tasks are claimed: none that is held, owned or over.
pub async fn only_waiting_tasks_are_taken(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add(task().start(Start::Held)).await;
    for event in [
        None,
        Some(RunEvent::Outcome(None)),
        Some(RunEvent::Complete(inline())),
        Some(RunEvent::Fail(failure(FailureKind::Error))),
    ] {
        let running = w.run(&replica, task()).await;
        if let Some(event) = event {
            w.must(&running, event).await;
        }
    }
    let cancelled = w.add(task()).await;
    w.command(&cancelled, Command::Cancel).await;
    assert_eq!(w.claim_ids(&replica, 10).await, []);
    let other = w.replica().await;
    assert_eq!(w.claim_ids(&other, 10).await, []);
}

/// A requeued task takes its place by the time of the requeue.
pub async fn a_requeued_task_queues_at_the_end(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let first = w.run(&replica, task_as("first")).await;
    w.add(task_as("second")).await;
    w.must(&first, RunEvent::Fail(failure(FailureKind::Error))).await;
    w.pass(MINUTE).await;
    w.command(&first.id, Command::Requeue).await;
    assert_eq!(texts(&w.claim_ids(&replica, 10).await), ["second", "first"]);
}

/// Order where priorities count.
pub mod by_priority {
    use super::*;

    /// I12: the higher priority goes first; then the due time, then the insertion.
    pub async fn priority_goes_first(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for (id, priority) in [("low", -5), ("a", 0), ("b", 0), ("high", 7), ("max", i32::MAX), ("min", i32::MIN)] {
            w.add(task_as(id).priority(priority)).await;
        }
        assert_eq!(texts(&w.claim_ids(&replica, 3).await), ["max", "high", "a"]);
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["b", "low", "min"]);
    }

    /// An earlier due time does not beat a higher priority once both are due.
    pub async fn priority_beats_the_due_time(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        w.add(task_as("early").start(Start::After(MINUTE))).await;
        w.add(task_as("high").priority(1).start(Start::After(MINUTE * 2))).await;
        w.pass(MINUTE * 3).await;
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["high", "early"]);
    }

    /// A high priority in one queue goes before a low one in another.
    pub async fn priority_counts_across_queues_and_kinds(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for (id, queue, kind, priority) in
            [("a", "q", "x", 1), ("b", "p", "y", 3), ("c", "q", "y", 2), ("d", "p", "x", 4), ("e", "r", "x", 2)]
        {
            let new = NewTask::new(kind, &1).unwrap().id(id).unwrap().queue(queue).unwrap();
            w.add(new.priority(priority)).await;
        }
        let ask = ClaimRequest { kinds: vec![name("x"), name("y")], ..replica.request(9) };
        assert_eq!(texts(&ids(&w.store.claim(ask).await.unwrap().tasks)), ["d", "b", "c", "e", "a"]);
    }

    /// Among tasks of mixed priorities and times that trickle in, every claim takes the best there is.
    pub async fn every_claim_takes_the_best_there_is(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for round in 0..30_i32 {
            let priorities = [round * 7 % 11, round * 5 % 13, round * 3 % 4];
            w.add_all(priorities.iter().map(|priority| task().priority(*priority)).collect()).await;
            let best = w.claim(&replica, 1).await.tasks.remove(0);
            for other in w.list(crate::store::TaskQuery { states: vec![State::Waiting], ..Default::default() }).await {
                assert!(other.spec.priority <= best.spec.priority, "{} waits behind {}", other.id, best.id);
            }
        }
    }

    /// Among named tasks the higher priority goes first.
    pub async fn named_tasks_go_by_priority(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for (id, priority) in [("low", -5), ("a", 0), ("b", 0), ("high", 7), ("max", i32::MAX), ("min", i32::MIN)] {
            w.add(task_as(id).priority(priority)).await;
        }
        let named: Vec<_> = ["low", "b", "a", "max", "min"].map(super::super::world::id).to_vec();
        for expected in [["max", "a"], ["b", "low"]] {
            let ask = ClaimRequest { among: Some(named.clone()), ..replica.request(2) };
            assert_eq!(texts(&ids(&w.store.claim(ask).await.unwrap().tasks)), expected);
        }
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["high", "min"]);
    }

    /// Candidates of the higher priority come first, in each lane and over all.
    pub async fn candidates_go_by_priority(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for (id, queue, priority) in
            [("a", "q", 1), ("b", "p", 3), ("c", "q", 2), ("d", "p", i32::MAX), ("e", "q", i32::MIN), ("f", "p", -1)]
        {
            w.add(task_as(id).queue(queue).unwrap().priority(priority)).await;
        }
        let ask = |per_lane| CandidatesRequest { kinds: vec![name(KIND)], queues: vec![], per_lane };
        let told = w.store.candidates(ask(9)).await.unwrap().tasks;
        let told: Vec<_> = told.iter().map(|candidate| (candidate.id.to_string(), candidate.priority)).collect();
        let expected = [("d", i32::MAX), ("b", 3), ("c", 2), ("a", 1), ("f", -1), ("e", i32::MIN)];
        assert_eq!(told, expected.map(|(id, priority)| (id.to_owned(), priority)));
        let told = w.store.candidates(ask(2)).await.unwrap().tasks;
        assert_eq!(texts(&told.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>()), ["d", "b", "c", "a"]);
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["d", "b", "c", "a", "f", "e"]);
    }

    /// A task that is due takes the place of its new priority at once, in the lane and over all.
    pub async fn a_new_priority_orders_at_once(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for (id, priority) in [("a", 0), ("b", 0), ("c", 5), ("d", 0), ("e", 0), ("f", -1)] {
            w.add(task_as(id).priority(priority)).await;
        }
        let to = |priority| Command::Reschedule { run_at: None, priority: Some(priority) };
        let wishes = [("d", i32::MAX), ("c", i32::MIN), ("b", -1), ("f", 0)];
        let wishes = wishes.map(|(id, priority)| (super::super::world::id(id), to(priority)));
        w.store.command(wishes.to_vec()).await.unwrap();
        assert_eq!(w.get(&super::super::world::id("d")).await.spec.priority, i32::MAX);
        let ask = CandidatesRequest { kinds: vec![name(KIND)], queues: vec![], per_lane: 2 };
        let told = w.store.candidates(ask).await.unwrap().tasks;
        assert_eq!(texts(&told.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>()), ["d", "a"]);
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["d", "a", "e", "f", "b", "c"]);
    }

    /// A task that is not due has its new priority once it is.
    pub async fn a_new_priority_of_what_is_not_due_orders_later(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        for id in ["a", "b", "c"] {
            w.add(task_as(id).start(Start::After(MINUTE))).await;
        }
        let to = Command::Reschedule { run_at: None, priority: Some(1) };
        w.command(&super::super::world::id("c"), to).await;
        assert_eq!(w.claim_ids(&replica, 9).await, []);
        w.pass(MINUTE * 2).await;
        w.add(task_as("d")).await;
        assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["c", "a", "b", "d"]);
    }
}

/// Order where priorities do not count.
pub mod fifo {
    use super::*;

    /// A store without priorities keeps the number and ignores it in the order.
    pub async fn priority_changes_nothing(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let replica = w.replica().await;
        w.add_all(vec![task_as("a").priority(-9), task_as("b").priority(9), task_as("c")]).await;
        let claimed = w.claim(&replica, 9).await.tasks;
        assert_eq!(texts(&ids(&claimed)), ["a", "b", "c"]);
        assert_eq!(claimed[1].spec.priority, 9);
        assert_eq!(claimed[1].spec.kind.as_str(), KIND);
    }
}
