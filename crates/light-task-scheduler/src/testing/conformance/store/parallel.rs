//! Many at once, on real threads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::StoreHarness;
use super::world::{KIND, Replica, World, concurrency, inline, name, task, task_as, token};
use crate::clock::Timestamp;
use crate::rate::RateLimit;
use crate::state::{Command, Refusal, RunEvent};
use crate::store::{Answer, Change, ClaimRequest, Inserted, QueueSettings, Store, TaskQuery};
use crate::task::{State, Task, TaskId};

const CLAIMERS: usize = 16;

async fn claim(store: &dyn Store, replica: &Replica, limit: usize) -> Vec<Task> {
    store.claim(replica.request(limit)).await.unwrap().tasks
}

fn complete(task: &Task) -> Change {
    Change { id: task.id.clone(), token: token(task), event: RunEvent::Complete(inline()) }
}

/// Runs one future per claimer at the same time, each with its own replica, and returns what they return.
async fn at_once<T, F>(w: &World<'_>, claimer: impl Fn(Arc<dyn Store>, Replica) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = Vec::new();
    for _ in 0..CLAIMERS {
        running.push(tokio::spawn(claimer(w.store.clone(), w.replica().await)));
    }
    let mut results = Vec::new();
    for claimer in running {
        results.push(claimer.await.expect("no claimer panics"));
    }
    results
}

/// I5: 16 claimers and 10,000 tasks: every task is claimed by exactly one, and ends once.
pub async fn every_task_is_claimed_once(h: &dyn StoreHarness) {
    const TASKS: usize = 10_000;
    let w = World::open(h).await;
    w.add_all(vec![task(); TASKS]).await;
    let claimed = at_once(&w, |store, replica| async move {
        let mut mine = Vec::new();
        loop {
            let tasks = claim(&*store, &replica, 37).await;
            if tasks.is_empty() {
                return mine;
            }
            let answers = store.apply(tasks.iter().map(complete).collect()).await.unwrap();
            assert!(answers.iter().all(|answer| *answer == Answer::Applied(Some(State::Succeeded))));
            mine.extend(tasks.into_iter().map(|task| task.id));
        }
    })
    .await;
    let all: Vec<TaskId> = claimed.into_iter().flatten().collect();
    assert_eq!(all.len(), TASKS);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), TASKS, "none twice");
    let counts = w.store.counts().await.unwrap();
    assert_eq!(counts[0].of(State::Succeeded), TASKS as u64);
}

/// Claims and operators race for the same tasks: what was moved far into the future is not claimed, and what was
/// claimed is not moved.
pub async fn what_is_moved_later_is_not_claimed(h: &dyn StoreHarness) {
    const TASKS: usize = 2_000;
    let w = World::open(h).await;
    let all = w.add_all(vec![task(); TASKS]).await;
    let next = Arc::new(AtomicUsize::new(0));
    let ends = at_once(&w, |store, replica| {
        // From the end, so that they meet the claims.
        let (all, next) = (all.clone(), next.clone());
        async move {
            let (mut claimed, mut moved) = (Vec::new(), Vec::new());
            loop {
                let tasks = claim(&*store, &replica, 7).await;
                claimed.extend(tasks.iter().map(|task| task.id.clone()));
                let from = next.fetch_add(5, SeqCst);
                let wished = all.iter().rev().skip(from).take(5);
                let later = Command::Reschedule { run_at: Some(Timestamp::MAX), priority: Some(1) };
                let wishes: Vec<_> = wished.map(|id| (id.clone(), later)).collect();
                if tasks.is_empty() && wishes.is_empty() {
                    return (claimed, moved);
                }
                let answers = store.command(wishes.clone()).await.unwrap();
                for ((id, _), answer) in wishes.into_iter().zip(answers) {
                    match answer {
                        Answer::Applied(Some(State::Waiting)) => moved.push(id),
                        Answer::Refused(Refusal::Illegal(State::Running)) => {}
                        other => panic!("{id}: {other:?}"),
                    }
                }
            }
        }
    })
    .await;
    let claimed: BTreeSet<TaskId> = ends.iter().flat_map(|(claimed, _)| claimed.clone()).collect();
    let moved: BTreeSet<TaskId> = ends.iter().flat_map(|(_, moved)| moved.clone()).collect();
    assert_eq!(claimed.intersection(&moved).count(), 0, "claimed before its time");
    assert_eq!(claimed.len() + moved.len(), TASKS, "each is one or the other");
    let counts = w.store.counts().await.unwrap();
    assert_eq!((counts[0].of(State::Running), counts[0].scheduled), (claimed.len() as u64, moved.len() as u64));
}

/// I10: under contention a queue runs up to its limit, and never above it, in any snapshot and by the times that are
/// stored: a claim that waited for a slot does not say that it was made before the slot was free.
pub async fn a_limit_is_exact_under_contention(h: &dyn StoreHarness) {
    const LIMIT: usize = 5;
    const TASKS: usize = 400;
    let w = World::open(h).await;
    w.set("default", concurrency(5)).await;
    w.add_all(vec![task(); TASKS]).await;
    let running = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    at_once(&w, |store, replica| {
        let (running, done) = (running.clone(), done.clone());
        async move {
            while done.load(SeqCst) < TASKS {
                for task in claim(&*store, &replica, 3).await {
                    // Counted after the claim and before the end: never more than the store lets run.
                    assert!(running.fetch_add(1, SeqCst) < LIMIT, "more run than the limit");
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, SeqCst);
                    let answers = store.apply(vec![complete(&task)]).await.unwrap();
                    assert_eq!(answers, [Answer::Applied(Some(State::Succeeded))]);
                    done.fetch_add(1, SeqCst);
                }
                let counts = store.counts().await.unwrap();
                assert!(counts[0].of(State::Running) <= LIMIT as u64, "{counts:?}");
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    assert_eq!(done.load(SeqCst), TASKS);
    let found = w.store.list(&TaskQuery { limit: TASKS, ..TaskQuery::default() }).await.unwrap().tasks;
    let times = |task: &Task| [(task.record.started_at, 1), (task.record.finished_at, -1)];
    let mut events: Vec<_> = found.iter().flat_map(times).collect();
    // At one moment an end comes before a claim.
    events.sort_unstable();
    let mut running = 0;
    for (at, change) in events {
        running += change;
        assert!(running <= LIMIT as i32, "{running} ran at once at {at:?}");
    }
}

/// A burst is shared exactly by claimers that come at once.
pub async fn a_burst_is_exact_under_contention(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let rate = RateLimit { count: 1, period: std::time::Duration::from_secs(3_600), burst: 7 };
    w.set("default", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
    w.add_all(vec![task(); 100]).await;
    let claimed = at_once(&w, |store, replica| async move { claim(&*store, &replica, 2).await.len() }).await;
    assert_eq!(claimed.iter().sum::<usize>(), 7);
}

/// I2: one id inserted by many at once is one task.
pub async fn one_id_inserted_by_many_is_one_task(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let answers = at_once(&w, |store, _| async move {
        let batch = (0..50).map(|n| task_as(&format!("t{n}"))).collect();
        store.insert(batch).await.unwrap().into_iter().map(Result::unwrap).collect::<Vec<_>>()
    })
    .await;
    let new = answers.iter().flatten().filter(|answer| matches!(answer, Inserted::New(_))).count();
    assert_eq!((new, w.list(TaskQuery::default()).await.len()), (50, 50));
}

/// I4: owner and operators race to end every task; each ends once, and all agree how.
pub async fn a_race_of_success_and_cancel_has_one_winner(h: &dyn StoreHarness) {
    const TASKS: usize = 300;
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.add_all(vec![task(); TASKS]).await;
    let tasks = w.claim(&owner, TASKS).await.tasks;
    let (completer, canceller) = (w.store.clone(), w.store.clone());
    let mine = tasks.clone();
    let completes = tokio::spawn(async move {
        let mut answers = Vec::new();
        for task in mine {
            answers.extend(completer.apply(vec![complete(&task)]).await.unwrap());
        }
        answers
    });
    let theirs = tasks.clone();
    let cancels = tokio::spawn(async move {
        let mut answers = Vec::new();
        for task in theirs.iter().rev() {
            answers.extend(canceller.command(vec![(task.id.clone(), Command::Cancel)]).await.unwrap());
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

/// Rescuers and a leaving owner at once: every task is adopted by one, under one fence.
pub async fn rescuers_at_once_share_nothing(h: &dyn StoreHarness) {
    const TASKS: usize = 500;
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.add_all(vec![task(); TASKS]).await;
    assert_eq!(w.claim(&owner, TASKS).await.tasks.len(), TASKS);
    w.store.leave(owner.id).await.unwrap();
    let adopted = at_once(&w, |store, replica| async move {
        let mut mine = Vec::new();
        loop {
            let request = crate::store::RescueRequest {
                replica: replica.id,
                suspects: vec![],
                kinds: vec![name(KIND)],
                queues: vec![],
                limit: 7,
            };
            let tasks = store.rescue(request).await.unwrap().tasks;
            if tasks.is_empty() {
                return mine;
            }
            assert!(tasks.iter().all(|task| task.record.run == 2 && task.record.owner == Some(replica.id)));
            mine.extend(tasks.into_iter().map(|task| task.id));
        }
    })
    .await;
    let all: Vec<TaskId> = adopted.into_iter().flatten().collect();
    assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<_>>().len()), (TASKS, TASKS));
}

/// Claims at once among the same tasks: each task goes to one, and none stays.
pub async fn claims_among_the_same_tasks_share_nothing(h: &dyn StoreHarness) {
    const TASKS: usize = 300;
    let w = World::open(h).await;
    let all = w.add_all(vec![task(); TASKS]).await;
    let claimed = at_once(&w, |store, replica| {
        let all = all.clone();
        async move {
            let mut mine = Vec::new();
            loop {
                let request = ClaimRequest { among: Some(all.clone()), ..replica.request(7) };
                let tasks = store.claim(request).await.unwrap().tasks;
                if tasks.is_empty() {
                    return mine;
                }
                mine.extend(super::world::ids(&tasks));
            }
        }
    })
    .await;
    let claimed: Vec<TaskId> = claimed.into_iter().flatten().collect();
    assert_eq!((claimed.len(), claimed.into_iter().collect::<BTreeSet<_>>().len()), (TASKS, TASKS));
}

/// The same claim sent many times at once is one claim.
pub async fn one_claim_sent_many_times_is_one_claim(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    w.add_all(vec![task(); 100]).await;
    let request: ClaimRequest = owner.request(5);
    let claimed = at_once(&w, |store, _| {
        let request = request.clone();
        async move { super::world::ids(&store.claim(request).await.unwrap().tasks) }
    })
    .await;
    assert!(claimed.iter().all(|ids| *ids == claimed[0]) && claimed[0].len() == 5);
    assert_eq!(w.store.counts().await.unwrap()[0].of(State::Running), 5);
}
