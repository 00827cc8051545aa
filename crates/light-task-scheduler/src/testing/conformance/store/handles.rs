//! Two handles of one store, as two processes have them: one after the other, and at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::StoreHarness;
use super::world::{
    KIND, MINUTE, Replica, World, concurrency, failure, ids, inline, name, paused, stored, task, task_as, texts, token,
};
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::{
    Answer, CandidatesRequest, Change, ClaimRequest, Inserted, QueueSettings, RescueRequest, Store, SweepRequest,
    TaskQuery,
};
use crate::task::{FailureKind, Start, State, Task, TaskId};

fn rate(burst: u32) -> QueueSettings {
    let rate = RateLimit { count: 1, period: MINUTE * 4, burst };
    QueueSettings { rate: Some(rate), ..QueueSettings::default() }
}

/// Handles take turns.
pub mod in_turn {
    use super::*;

    /// Permits that one handle has spent are spent for the other.
    pub async fn a_rate_is_shared(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (ra, rb) = (a.replica().await, b.replica().await);
        a.set("default", rate(3)).await;
        let all = a.add_all(vec![task(); 9]).await;
        assert_eq!(a.claim_ids(&ra, 2).await, all[..2]);
        assert_eq!(b.claim_ids(&rb, 9).await, all[2..3]);
        assert_eq!(a.claim_ids(&ra, 9).await, []);
        a.pass(MINUTE * 5).await;
        assert_eq!(b.claim_ids(&rb, 9).await, all[3..4]);
        assert_eq!(a.claim_ids(&ra, 9).await, []);
    }

    /// A claim whose reply was lost with its connection is repeated over another.
    pub async fn a_claim_is_repeated_through_another(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        a.add_all(vec![task(); 5]).await;
        let request = replica.request(2);
        let first = a.store.claim(request.clone()).await.unwrap().tasks;
        assert_eq!(b.store.claim(request.clone()).await.unwrap().tasks, first);
        let next = replica.request(9);
        assert_eq!(b.store.claim(next.clone()).await.unwrap().tasks.len(), 3);
        assert_eq!(a.store.claim(next).await.unwrap().tasks.len(), 3);
    }

    /// What another handle brings about is found by the next claim, also by one after others that took nothing.
    pub async fn an_empty_claim_hides_nothing(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        let empty = async || {
            let claim = a.claim(&replica, 9).await;
            assert_eq!((claim.tasks, claim.expired), (vec![], vec![]));
            claim.next_at
        };
        assert_eq!((empty().await, empty().await), (None, None));
        let ready = b.add(task()).await;
        assert_eq!(a.claim_ids(&replica, 9).await, [ready]);
        empty().await;
        let delayed = b.add(task().start(Start::After(MINUTE))).await;
        assert_eq!(empty().await, Some(b.get(&delayed).await.record.run_at));
        a.pass(MINUTE).await;
        a.beat(&replica).await;
        assert_eq!(a.claim_ids(&replica, 9).await, [delayed]);
        empty().await;
        let deadline = b.now().await + MINUTE;
        let late = b.add(task().start(Start::After(MINUTE * 9)).deadline(deadline)).await;
        assert_eq!(empty().await, Some(deadline));
        a.pass(MINUTE * 2).await;
        a.beat(&replica).await;
        assert_eq!(a.claim(&replica, 9).await.expired, [late]);
        b.set("default", paused()).await;
        let held_up = b.add(task()).await;
        empty().await;
        empty().await;
        b.set("default", QueueSettings::default()).await;
        assert_eq!(a.claim_ids(&replica, 9).await, [held_up]);
        empty().await;
        b.store.leave(replica.id).await.unwrap();
        let refused = a.store.claim(replica.request(9)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotRegistered);
    }

    /// An outcome whose reply was lost with its connection is repeated over another.
    pub async fn an_outcome_is_repeated_through_another(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        let running = a.run(&replica, task()).await;
        a.must(&running, RunEvent::Outcome(None)).await;
        assert_eq!(b.report(&running, RunEvent::Outcome(None)).await, Answer::Already(State::Exporting));
        b.must(&running, RunEvent::Complete(stored("key"))).await;
        assert_eq!(a.report(&running, RunEvent::Complete(stored("key"))).await, Answer::Already(State::Succeeded));
    }

    /// Order is one: by time and insertion, whichever handle a task came in by.
    pub async fn the_order_is_one(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = b.replica().await;
        for n in 0..6 {
            let w = if n % 2 == 0 { &a } else { &b };
            w.add(task_as(&n.to_string())).await;
        }
        a.add(task_as("late").start(Start::After(MINUTE))).await;
        a.pass(MINUTE * 2).await;
        a.add(task_as("last")).await;
        assert_eq!(texts(&b.claim_ids(&replica, 99).await), ["0", "1", "2", "3", "4", "5", "late", "last"]);
        let listed = texts(&ids(&a.list(TaskQuery::default()).await));
        assert_eq!(listed, ["last", "late", "5", "4", "3", "2", "1", "0"]);
    }

    /// A page that one handle began is gone on with by the other.
    pub async fn a_cursor_is_good_everywhere(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let all = a.add_all(vec![task(); 7]).await;
        let query = |cursor| TaskQuery { limit: 3, cursor, ..TaskQuery::default() };
        let first = a.store.list(&query(None)).await.unwrap();
        let second = b.store.list(&query(first.next)).await.unwrap();
        let third = a.store.list(&query(second.next)).await.unwrap();
        let told: Vec<TaskId> = [first, second, third].iter().flat_map(|page| ids(&page.tasks)).collect();
        assert_eq!(told, all.into_iter().rev().collect::<Vec<_>>());
    }

    /// A candidate that one has seen and the other has taken is passed over; a pause and a limit hold at once.
    pub async fn candidates_go_stale(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (ra, rb) = (a.replica().await, b.replica().await);
        let all = a.add_all(vec![task(); 6]).await;
        let ask = CandidatesRequest { kinds: vec![name(KIND)], queues: vec![], per_lane: 9 };
        let seen = b.store.candidates(ask).await.unwrap().tasks.into_iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!(seen, all);
        assert_eq!(a.claim_ids(&ra, 2).await, all[..2]);
        a.command(&all[2], Command::Cancel).await;
        a.set("default", paused()).await;
        let among = |limit| ClaimRequest { among: Some(seen.clone()), ..rb.request(limit) };
        assert_eq!(b.store.claim(among(9)).await.unwrap().tasks, []);
        a.set("default", concurrency(3)).await;
        assert_eq!(ids(&b.store.claim(among(9)).await.unwrap().tasks), all[3..4]);
        a.set("default", QueueSettings::default()).await;
        assert_eq!(ids(&b.store.claim(among(9)).await.unwrap().tasks), all[4..]);
    }

    /// A heartbeat through one handle counts what was claimed through the other.
    pub async fn holdings_are_counted_everywhere(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        a.add_all(vec![task(); 2]).await;
        let tasks = a.claim(&replica, 2).await.tasks;
        let all: Vec<&Task> = tasks.iter().collect();
        assert_eq!(b.beat_holding(&replica, &all).await.owned, None);
        a.must(&tasks[0], RunEvent::Complete(inline())).await;
        assert_eq!(b.beat_holding(&replica, &all).await.owned, Some(vec![(tasks[1].id.clone(), 1)]));
        assert_eq!(a.beat_holding(&replica, &all[1..]).await.owned, None);
    }

    /// A lease renewed through one handle holds for claims through the other, and both see who is dead.
    pub async fn leases_are_shared(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (replica, other) = (a.replica().await, a.replica().await);
        a.pass(super::super::world::TTL - MINUTE).await;
        b.beat(&replica).await;
        a.pass(MINUTE * 2).await;
        let id = b.add(task()).await;
        assert_eq!(a.claim_ids(&replica, 9).await, [id]);
        let suspect = a.suspect(&other).await;
        assert_eq!(b.rescue(&replica, vec![suspect], 0).await.dead, [other.id]);
        a.store.claim(other.request(1)).await.unwrap_err();
    }

    /// What one handle removes the other remembers, and garbage confirmed by one is no more told by the other.
    pub async fn tombstones_and_garbage_are_shared(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        let running = a.run(&replica, task_as("t")).await;
        b.must(&running, RunEvent::Complete(stored("key"))).await;
        b.command(&running.id, Command::Delete).await;
        assert_eq!(a.insert(vec![task_as("t")]).await.remove(0).unwrap(), Inserted::Removed(running.id));
        let ask = |confirmed| SweepRequest { limit: 9, confirmed, ..SweepRequest::default() };
        assert_eq!(a.store.sweep(ask(vec![])).await.unwrap().garbage, ["key"]);
        assert!(b.store.sweep(ask(vec!["key".to_owned()])).await.unwrap().garbage.is_empty());
        assert!(a.store.sweep(ask(vec![])).await.unwrap().garbage.is_empty());
    }

    /// Time and the counter of writes go forward, whichever handle is asked.
    pub async fn time_and_write_counter_are_one(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let replica = a.replica().await;
        let mut last = a.beat(&replica).await;
        for n in 0..10 {
            let w = if n % 2 == 0 { &b } else { &a };
            w.add(task()).await;
            let next = w.beat(&replica).await;
            assert!(next.now >= last.now && next.op_seq > last.op_seq && next.epoch == last.epoch, "{next:?}");
            last = next;
        }
    }

    /// A slot that one handle frees is free for the other, and counts agree.
    pub async fn counts_are_shared(h: &dyn StoreHarness) {
        let a = World::open(h).await;
        let b = a.again().await;
        let (ra, rb) = (a.replica().await, b.replica().await);
        a.set("default", concurrency(1)).await;
        a.add_all(vec![task(); 6]).await;
        for n in 0..6 {
            let (mine, theirs) = if n % 2 == 0 { ((&a, &ra), (&b, &rb)) } else { ((&b, &rb), (&a, &ra)) };
            let running = mine.0.claim(mine.1, 9).await.tasks.remove(0);
            assert_eq!(theirs.0.claim_ids(theirs.1, 9).await, []);
            theirs.0.must(&running, RunEvent::Complete(inline())).await;
            assert_eq!(mine.0.store.counts().await.unwrap(), theirs.0.store.counts().await.unwrap());
        }
        assert_eq!(a.store.counts().await.unwrap()[0].of(State::Succeeded), 6);
    }
}

/// Handles work at the same time, on real threads.
pub mod at_once {
    use super::*;

    const HANDLES: usize = 3;

    /// Runs one future per handle, each with its own replica, and returns what they return.
    async fn on_each<T, F>(w: &World<'_>, work: impl Fn(Arc<dyn Store>, Replica) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut running = Vec::new();
        for _ in 0..HANDLES {
            let other = w.again().await;
            let replica = other.replica().await;
            running.push((other.store, replica));
        }
        let running: Vec<_> = running.into_iter().map(|(store, replica)| tokio::spawn(work(store, replica))).collect();
        let mut results = Vec::new();
        for handle in running {
            results.push(handle.await.expect("no handle panics"));
        }
        results
    }

    /// Claims until nothing that is due is left.
    async fn drain(store: &dyn Store, replica: &Replica, limit: usize) -> Vec<Task> {
        let mut mine = Vec::new();
        loop {
            let claim = store.claim(replica.request(limit)).await.unwrap();
            if claim.tasks.is_empty() && claim.next_at.is_none_or(|at| at > claim.now) {
                return mine;
            }
            mine.extend(claim.tasks);
        }
    }

    /// I5: every task goes to one handle.
    pub async fn every_task_is_claimed_once(h: &dyn StoreHarness) {
        const TASKS: usize = 1_000;
        let w = World::open(h).await;
        w.add_all(vec![task(); TASKS]).await;
        let claimed = on_each(&w, |store, replica| async move { ids(&drain(&*store, &replica, 17).await) }).await;
        let claimed: Vec<TaskId> = claimed.into_iter().flatten().collect();
        assert_eq!((claimed.len(), claimed.into_iter().collect::<BTreeSet<_>>().len()), (TASKS, TASKS));
    }

    /// A burst is shared exactly.
    pub async fn a_burst_is_exact(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        w.set("default", rate(11)).await;
        w.add_all(vec![task(); 100]).await;
        let claimed = on_each(&w, |store, replica| async move { drain(&*store, &replica, 3).await.len() }).await;
        assert_eq!(claimed.iter().sum::<usize>(), 11);
    }

    /// I10: never more run than the limit says, and in the end all have run.
    pub async fn a_limit_is_exact(h: &dyn StoreHarness) {
        const LIMIT: usize = 4;
        const TASKS: usize = 200;
        let w = World::open(h).await;
        w.set("default", concurrency(4)).await;
        w.add_all(vec![task(); TASKS]).await;
        let (running, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        on_each(&w, |store, replica| {
            let (running, done) = (running.clone(), done.clone());
            async move {
                while done.load(SeqCst) < TASKS {
                    for task in store.claim(replica.request(3)).await.unwrap().tasks {
                        // Counted after the claim and before the end: never more than the store lets run.
                        assert!(running.fetch_add(1, SeqCst) < LIMIT, "more run than the limit");
                        tokio::task::yield_now().await;
                        running.fetch_sub(1, SeqCst);
                        let event = RunEvent::Complete(inline());
                        let change = Change { id: task.id.clone(), token: token(&task), event };
                        let answers = store.apply(vec![change]).await.unwrap();
                        assert_eq!(answers, [Answer::Applied(Some(State::Succeeded))]);
                        done.fetch_add(1, SeqCst);
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        assert_eq!(w.store.counts().await.unwrap()[0].of(State::Succeeded), TASKS as u64);
    }

    /// I2: one id inserted through all handles is one task, and all are told the same.
    pub async fn one_id_is_one_task(h: &dyn StoreHarness) {
        let w = World::open(h).await;
        let turns = Arc::new(AtomicUsize::new(0));
        let answers = on_each(&w, |store, _| {
            // Some in the other direction: two transactions that lock in different orders.
            let mut batch: Vec<_> = (0..40).map(|n| task_as(&format!("t{n}"))).collect();
            if turns.fetch_add(1, SeqCst) % 2 == 1 {
                batch.reverse();
            }
            async move { store.insert(batch).await.unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>() }
        })
        .await;
        let new = answers.iter().flatten().filter(|answer| matches!(answer, Inserted::New(_))).count();
        assert_eq!((new, w.list(TaskQuery::default()).await.len()), (40, 40));
    }

    /// I6: an owner that completes and a rescuer that adopts: one of them has each task, and both know who.
    pub async fn completion_and_adoption_have_one_winner(h: &dyn StoreHarness) {
        const TASKS: usize = 60;
        let w = World::open(h).await;
        let (other, owner) = (w.again().await, w.replica().await);
        let heir = other.replica().await;
        w.add_all(vec![task(); TASKS]).await;
        let tasks = w.claim(&owner, TASKS).await.tasks;
        w.store.leave(owner.id).await.unwrap();
        let (completer, rescuer) = (w.store.clone(), other.store.clone());
        let mine = tasks.clone();
        let completes = tokio::spawn(async move {
            let mut answers = Vec::new();
            for task in mine.iter().rev() {
                let event = RunEvent::Complete(inline());
                let change = Change { id: task.id.clone(), token: token(task), event };
                answers.extend(completer.apply(vec![change]).await.unwrap());
            }
            answers.reverse();
            answers
        });
        let adopts = tokio::spawn(async move {
            let mut adopted = BTreeSet::new();
            loop {
                let request = RescueRequest { replica: heir.id, suspects: vec![], kinds: vec![name(KIND)], limit: 2 };
                let tasks = rescuer.rescue(request).await.unwrap().tasks;
                if tasks.is_empty() {
                    return adopted;
                }
                assert!(tasks.iter().all(|task| task.record.run == 2 && task.record.execution == 1));
                adopted.extend(ids(&tasks));
            }
        });
        let (completes, adopted) = (completes.await.unwrap(), adopts.await.unwrap());
        for (task, complete) in tasks.iter().zip(completes) {
            let expected = if adopted.contains(&task.id) {
                assert_eq!(complete, Answer::Refused(crate::state::Refusal::Stale));
                State::Running
            } else {
                assert_eq!(complete, Answer::Applied(Some(State::Succeeded)));
                State::Succeeded
            };
            assert_eq!(w.state(&task.id).await, expected);
        }
    }

    /// I13: owners that complete and operators that cancel in opposite orders: each task ends once, and all agree how.
    pub async fn completion_and_cancellation_have_one_winner(h: &dyn StoreHarness) {
        const TASKS: usize = 60;
        let w = World::open(h).await;
        let (other, owner) = (w.again().await, w.replica().await);
        w.add_all(vec![task(); TASKS]).await;
        let tasks = w.claim(&owner, TASKS).await.tasks;
        let change =
            |task: &Task| Change { id: task.id.clone(), token: token(task), event: RunEvent::Complete(inline()) };
        let changes: Vec<Vec<Change>> = tasks.chunks(5).map(|part| part.iter().map(change).collect()).collect();
        let commands: Vec<Vec<(TaskId, Command)>> = tasks
            .rchunks(7)
            .map(|part| part.iter().rev().map(|it| (it.id.clone(), Command::Cancel)).collect())
            .collect();
        let (completer, canceller) = (w.store.clone(), other.store.clone());
        let completes = tokio::spawn(async move {
            let mut answers = Vec::new();
            for part in changes {
                answers.extend(completer.apply(part).await.unwrap());
            }
            answers
        });
        let cancels = tokio::spawn(async move {
            let mut answers = Vec::new();
            for part in commands {
                answers.extend(canceller.command(part).await.unwrap());
            }
            answers.reverse();
            answers
        });
        let (completes, cancels) = (completes.await.unwrap(), cancels.await.unwrap());
        for ((task, complete), cancel) in tasks.iter().zip(completes).zip(cancels) {
            let ended = w.state(&task.id).await;
            assert_eq!(complete, Answer::Applied(Some(ended)), "the owner learns how it ended");
            match cancel {
                Answer::Applied(Some(State::Running)) => assert_eq!(ended, State::Cancelled),
                other => assert_eq!((other.state(), ended), (None, State::Succeeded), "{other:?}"),
            }
        }
    }

    /// Tasks that come in while others claim are all claimed, each once, none left behind.
    pub async fn what_comes_in_meanwhile_is_claimed(h: &dyn StoreHarness) {
        const TASKS: usize = 300;
        let w = World::open(h).await;
        let inserter = w.again().await.store;
        let claimed = Arc::new(AtomicUsize::new(0));
        let inserts = tokio::spawn(async move {
            for n in 0..TASKS / 10 {
                let new = |m: usize| task_as(&format!("{n}-{m}")).queue(["a", "b"][m % 2]).unwrap();
                let answers = inserter.insert((0..10).map(new).collect()).await.unwrap();
                assert!(answers.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))));
            }
        });
        let taken = on_each(&w, |store, replica| {
            let claimed = claimed.clone();
            async move {
                let mut mine = Vec::new();
                while claimed.load(SeqCst) < TASKS {
                    let tasks = store.claim(replica.request(4)).await.unwrap().tasks;
                    claimed.fetch_add(tasks.len(), SeqCst);
                    mine.extend(ids(&tasks));
                    tokio::task::yield_now().await;
                }
                mine
            }
        })
        .await;
        inserts.await.unwrap();
        let taken: Vec<TaskId> = taken.into_iter().flatten().collect();
        assert_eq!((taken.len(), taken.into_iter().collect::<BTreeSet<_>>().len()), (TASKS, TASKS));
    }

    /// Rescuers through several handles: every task is adopted by one, under one fence.
    pub async fn rescuers_share_nothing(h: &dyn StoreHarness) {
        const TASKS: usize = 120;
        let w = World::open(h).await;
        let owner = w.replica().await;
        w.add_all(vec![task(); TASKS]).await;
        w.claim(&owner, TASKS).await;
        w.store.leave(owner.id).await.unwrap();
        let adopted = on_each(&w, |store, replica| async move {
            let mut mine = Vec::new();
            loop {
                let request =
                    RescueRequest { replica: replica.id, suspects: vec![], kinds: vec![name(KIND)], limit: 7 };
                let tasks = store.rescue(request).await.unwrap().tasks;
                if tasks.is_empty() {
                    return mine;
                }
                assert!(tasks.iter().all(|task| task.record.run == 2 && task.record.owner == Some(replica.id)));
                mine.extend(ids(&tasks));
            }
        })
        .await;
        let adopted: Vec<TaskId> = adopted.into_iter().flatten().collect();
        assert_eq!((adopted.len(), adopted.into_iter().collect::<BTreeSet<_>>().len()), (TASKS, TASKS));
    }

    /// One task removed by all is removed once, and its result is garbage once.
    pub async fn a_removal_is_one(h: &dyn StoreHarness) {
        const TASKS: usize = 40;
        let w = World::open(h).await;
        let owner = w.replica().await;
        w.add_all(vec![task(); TASKS]).await;
        let tasks = w.claim(&owner, TASKS).await.tasks;
        for (n, task) in tasks.iter().enumerate() {
            w.must(task, RunEvent::Complete(stored(&format!("k{n}")))).await;
        }
        let commands: Vec<_> = tasks.iter().map(|task| (task.id.clone(), Command::Delete)).collect();
        let removed = on_each(&w, |store, _| {
            let commands = commands.clone();
            async move {
                let answers = store.command(commands).await.unwrap();
                assert!(answers.iter().all(|it| matches!(it, Answer::Applied(None) | Answer::Missing)), "{answers:?}");
                answers.into_iter().filter(|answer| *answer == Answer::Applied(None)).count()
            }
        })
        .await;
        assert_eq!(removed.iter().sum::<usize>(), TASKS);
        let garbage = w.store.sweep(SweepRequest { limit: 99, ..SweepRequest::default() }).await.unwrap().garbage;
        assert_eq!(garbage.len(), TASKS);
        assert_eq!(w.store.counts().await.unwrap().iter().map(|it| it.by_state.iter().sum::<u64>()).sum::<u64>(), 0);
    }

    /// Retries, releases and requeues through all handles leave every count right.
    pub async fn counts_stay_right(h: &dyn StoreHarness) {
        const TASKS: usize = 60;
        let w = World::open(h).await;
        let all = w.add_all(vec![task(); TASKS]).await;
        on_each(&w, |store, replica| {
            let all = all.clone();
            async move {
                for round in 0..12 {
                    let claim = store.claim(replica.request(9)).await.unwrap();
                    let change = |(n, task): (usize, &Task)| {
                        let event = match (n + round) % 4 {
                            0 => RunEvent::Retry(claim.now, failure(FailureKind::Error)),
                            1 => RunEvent::Release(claim.now, failure(FailureKind::Drained)),
                            2 => RunEvent::Fail(failure(FailureKind::Error)),
                            _ => RunEvent::Complete(inline()),
                        };
                        Change { id: task.id.clone(), token: token(task), event }
                    };
                    store.apply(claim.tasks.iter().enumerate().map(change).collect()).await.unwrap();
                    let again = all.iter().skip(round).step_by(5).map(|id| (id.clone(), Command::Requeue)).collect();
                    store.command(again).await.unwrap();
                }
            }
        })
        .await;
        let mut recount = [0; State::ALL.len()];
        for task in w.list(TaskQuery::default()).await {
            recount[task.record.state as usize] += 1;
        }
        assert_eq!(recount.iter().sum::<u64>(), TASKS as u64);
        assert_eq!(w.store.counts().await.unwrap()[0].by_state, recount);
        assert_eq!(recount[State::Running as usize], 0);
    }
}
