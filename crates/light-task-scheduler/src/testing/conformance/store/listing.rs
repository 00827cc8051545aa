//! Listing and counting.

use std::collections::BTreeMap;

use super::StoreHarness;
use super::world::{MINUTE, World, failure, id, ids, inline, name, stored, task, task_as, texts};
use crate::state::{Command, RunEvent};
use crate::store::{PAGE_MAX, QueueCounts, TaskQuery};
use crate::task::{FailureKind, NewTask, Start, State, Task};

async fn listed(w: &World<'_>, query: TaskQuery) -> Vec<String> {
    texts(&ids(&w.list(query).await))
}

/// One task in every state, each under the state's name.
async fn one_in_every_state(w: &World<'_>) {
    let owner = w.replica().await;
    for event in [
        RunEvent::Outcome(Some(crate::Payload::from_bytes(*b"out"))),
        RunEvent::Complete(stored("k")),
        RunEvent::Fail(failure(FailureKind::Error)),
        RunEvent::Cancelled,
        RunEvent::StopUnconfirmed,
    ] {
        let id = match event {
            RunEvent::Outcome(_) => "exporting",
            RunEvent::Complete(_) => "succeeded",
            RunEvent::Fail(_) => "failed",
            RunEvent::Cancelled => "cancelled",
            _ => "running",
        };
        let running = w.run(&owner, task_as(id)).await;
        if event == RunEvent::Cancelled {
            w.command(&running.id, Command::Cancel).await;
        }
        w.must(&running, event).await;
    }
    w.add_all(vec![task_as("waiting"), task_as("held").start(Start::Held)]).await;
}

/// The newest insertion comes first, whatever has happened to the tasks since.
pub async fn the_newest_comes_first(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    one_in_every_state(&w).await;
    let expected = ["held", "waiting", "running", "cancelled", "failed", "succeeded", "exporting"];
    assert_eq!(listed(&w, TaskQuery::default()).await, expected);
}

/// What is listed is what is stored, payload and output included.
pub async fn the_list_shows_whole_tasks(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    one_in_every_state(&w).await;
    let tasks = w.list(TaskQuery::default()).await;
    let stored: Vec<Task> = w.store.get(&ids(&tasks)).await.unwrap().into_iter().flatten().collect();
    assert_eq!(tasks, stored);
}

/// By state: each alone, several together, none named means any.
pub async fn filters_by_state(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    one_in_every_state(&w).await;
    for state in State::ALL {
        let query = TaskQuery { states: vec![state], ..TaskQuery::default() };
        assert_eq!(listed(&w, query).await, [state.as_str()]);
    }
    let query = TaskQuery { states: vec![State::Failed, State::Held], ..TaskQuery::default() };
    assert_eq!(listed(&w, query).await, ["held", "failed"]);
}

/// By queue and kind, exactly and together.
pub async fn filters_by_queue_and_kind(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    for (id, queue, kind) in [("a", "q", "x"), ("b", "q", "y"), ("c", "Q", "x"), ("d", "q%", "x")] {
        w.add(NewTask::new(kind, &1).unwrap().id(id).unwrap().queue(queue).unwrap()).await;
    }
    let by = |queue: Option<&str>, kind: Option<&str>| TaskQuery {
        queue: queue.map(name),
        kind: kind.map(name),
        ..TaskQuery::default()
    };
    assert_eq!(listed(&w, by(Some("q"), None)).await, ["b", "a"]);
    assert_eq!(listed(&w, by(None, Some("x"))).await, ["d", "c", "a"]);
    assert_eq!(listed(&w, by(Some("q"), Some("x"))).await, ["a"]);
    assert!(listed(&w, by(Some("nothing"), None)).await.is_empty());
}

/// By label and value; several labels must all hold.
pub async fn filters_by_labels(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add(task_as("a").label("team", "blue").and_then(|task| task.label("env", "prod")).unwrap()).await;
    w.add(task_as("b").label("team", "blue").unwrap()).await;
    w.add(task_as("c").label("team", "Blue").unwrap()).await;
    w.add(task_as("d").label("env", "blue").unwrap()).await;
    w.add(task_as("e")).await;
    w.add(task_as("f").label("'\"%", "\\\"]}\u{2028}").unwrap()).await;
    let by = |labels: &[(&str, &str)]| TaskQuery {
        labels: labels.iter().map(|(label, value)| (name(label), (*value).to_owned())).collect(),
        ..TaskQuery::default()
    };
    assert_eq!(listed(&w, by(&[("team", "blue")])).await, ["b", "a"]);
    assert_eq!(listed(&w, by(&[("team", "blue"), ("env", "prod")])).await, ["a"]);
    assert_eq!(listed(&w, by(&[("'\"%", "\\\"]}\u{2028}")])).await, ["f"]);
    assert!(listed(&w, by(&[("team", "")])).await.is_empty());
    assert!(listed(&w, by(&[("team", "blu")])).await.is_empty());
}

/// By time of creation: from inclusive, before exclusive.
pub async fn filters_by_creation(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let mut times = vec![];
    for id in ["a", "b", "c"] {
        let id = w.add(task_as(id)).await;
        times.push(w.get(&id).await.spec.created_at);
        w.pass(MINUTE).await;
    }
    let between = |from: Option<usize>, before: Option<usize>| TaskQuery {
        created_from: from.map(|at| times[at]),
        created_before: before.map(|at| times[at]),
        ..TaskQuery::default()
    };
    assert_eq!(listed(&w, between(Some(1), None)).await, ["c", "b"]);
    assert_eq!(listed(&w, between(None, Some(1))).await, ["a"]);
    assert_eq!(listed(&w, between(Some(1), Some(2))).await, ["b"]);
    assert!(listed(&w, between(Some(1), Some(1))).await.is_empty());
}

/// By the beginning of the id: by its exact characters, patterns and case included, text and UUID alike.
pub async fn filters_by_id_prefix(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
    w.add_all(["ab", "aB", "a%b", "a_b", "a*", "é1", "é2", uuid].map(task_as).to_vec()).await;
    let by = |prefix: &str| TaskQuery { id_prefix: Some(prefix.to_owned()), ..TaskQuery::default() };
    assert_eq!(listed(&w, by("a%")).await, ["a%b"]);
    assert_eq!(listed(&w, by("a_")).await, ["a_b"]);
    assert_eq!(listed(&w, by("a*")).await, ["a*"]);
    assert_eq!(listed(&w, by("aB")).await, ["aB"]);
    assert_eq!(listed(&w, by("a")).await, ["a*", "a_b", "a%b", "aB", "ab"]);
    assert_eq!(listed(&w, by("é")).await, ["é2", "é1"]);
    assert_eq!(listed(&w, by("01890a5d-ac")).await, [uuid]);
    assert_eq!(listed(&w, by(uuid)).await, [uuid]);
    assert!(listed(&w, by("01890A5D")).await.is_empty());
    assert!(listed(&w, by("b")).await.is_empty());
    assert_eq!(listed(&w, by("")).await.len(), 8, "every id begins with nothing");
}

/// Every filter that is set must hold.
pub async fn all_filters_together(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let new = |id| task_as(id).queue("q").and_then(|task| task.label("l", "v")).unwrap();
    w.add_all(vec![new("x1"), new("x2").start(Start::Held), new("y1"), task_as("x3")]).await;
    let created = w.get(&id("x1")).await.spec.created_at;
    let query = TaskQuery {
        states: vec![State::Waiting],
        queue: Some(name("q")),
        kind: Some(name(super::world::KIND)),
        labels: vec![(name("l"), "v".to_owned())],
        created_from: Some(created),
        created_before: Some(created + MINUTE),
        id_prefix: Some("x".to_owned()),
        ..TaskQuery::default()
    };
    assert_eq!(listed(&w, query).await, ["x1"]);
}

/// Page by page gives the same as all at once, for every page size, filtered or not.
pub async fn pages_make_up_the_list(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let new = |n: usize| task().start(if n.is_multiple_of(3) { Start::Held } else { Start::Now });
    w.add_all((0..23).map(new).collect()).await;
    for states in [vec![], vec![State::Held]] {
        let query = TaskQuery { states, ..TaskQuery::default() };
        let whole = listed(&w, query.clone()).await;
        for limit in [1, 2, 5, 22, 23, 24] {
            let page = w.store.list(&TaskQuery { limit, ..query.clone() }).await.unwrap();
            assert!(page.tasks.len() <= limit);
            assert_eq!(listed(&w, TaskQuery { limit, ..query.clone() }).await, whole, "by {limit}");
        }
    }
}

/// A page has at most a thousand tasks, also when more are asked for.
pub async fn a_page_is_bounded(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add_all(vec![task(); PAGE_MAX + 5]).await;
    for limit in [0, PAGE_MAX, PAGE_MAX * 2, usize::MAX] {
        let page = w.store.list(&TaskQuery { limit, ..TaskQuery::default() }).await.unwrap();
        assert_eq!((page.tasks.len(), page.next.is_some()), (PAGE_MAX, true), "limit {limit}");
    }
    assert_eq!(listed(&w, TaskQuery::default()).await.len(), PAGE_MAX + 5);
}

/// The last page says so.
pub async fn the_last_page_has_no_next(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    assert_eq!(w.store.list(&TaskQuery::default()).await.unwrap().next, None);
    w.add_all(vec![task(); 3]).await;
    let page = w.store.list(&TaskQuery { limit: 4, ..TaskQuery::default() }).await.unwrap();
    assert_eq!((page.tasks.len(), page.next), (3, None));
}

/// Insertions and removals between two pages neither repeat nor hide what was there.
pub async fn a_cursor_is_stable(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add_all((0..10).map(|n| task_as(&format!("t{n}"))).collect()).await;
    let first = w.store.list(&TaskQuery { limit: 4, ..TaskQuery::default() }).await.unwrap();
    assert_eq!(texts(&ids(&first.tasks)), ["t9", "t8", "t7", "t6"]);
    w.add_all(vec![task_as("new")]).await;
    for gone in ["t6", "t4"] {
        w.command(&id(gone), Command::Cancel).await;
        w.command(&id(gone), Command::Delete).await;
    }
    let owner = w.replica().await;
    w.claim(&owner, 3).await;
    let rest = TaskQuery { cursor: first.next, ..TaskQuery::default() };
    assert_eq!(listed(&w, rest).await, ["t5", "t3", "t2", "t1", "t0"]);
}

/// Counts know every state and what of the waiting is not due yet.
pub async fn counts_know_every_state(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    one_in_every_state(&w).await;
    w.add(task().start(Start::After(MINUTE * 2))).await;
    w.add(task().queue("other").unwrap()).await;
    let find = |counts: Vec<QueueCounts>, queue: &str| {
        counts.into_iter().find(|counts| counts.queue.as_str() == queue).expect("the queue is counted")
    };
    let counts = w.store.counts().await.unwrap();
    let default = find(counts.clone(), "default");
    assert_eq!((default.by_state, default.scheduled), ([1, 2, 1, 1, 1, 1, 1], 1));
    assert_eq!(find(counts, "other").by_state, [0, 1, 0, 0, 0, 0, 0]);
    w.pass(MINUTE * 3).await;
    assert_eq!(find(w.store.counts().await.unwrap(), "default").scheduled, 0, "it is due by now");
}

/// I20: after a long walk of all kinds of moves the counts equal a recount of the rows.
pub async fn counts_equal_a_recount(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rng = &mut fastrand::Rng::with_seed(7);
    let mut claimed: Vec<Task> = vec![];
    for _ in 0..400 {
        match rng.u8(0..8) {
            0..3 => {
                let start = rng.choice([Start::Now, Start::Held, Start::After(MINUTE)]).unwrap();
                w.add(task().queue(rng.choice(["a", "b"]).unwrap()).unwrap().start(start)).await;
            }
            3 => claimed.extend(w.claim(&replica, 3).await.tasks),
            4 | 5 if !claimed.is_empty() => {
                let task = claimed.swap_remove(rng.usize(..claimed.len()));
                let now = task.record.started_at.unwrap();
                let events = [
                    RunEvent::Complete(inline()),
                    RunEvent::Outcome(None),
                    RunEvent::Fail(failure(FailureKind::Error)),
                    RunEvent::Retry(now, failure(FailureKind::Error)),
                ];
                w.report(&task, rng.choice(events).unwrap()).await;
            }
            6 => {
                w.pass(MINUTE / 2).await;
                w.beat(&replica).await;
            }
            _ => {
                let all = w.list(TaskQuery { limit: 50, ..TaskQuery::default() }).await;
                let Some(task) = rng.choice(all) else { continue };
                let command = rng.choice([Command::Start, Command::Cancel, Command::Requeue, Command::Delete]).unwrap();
                w.command(&task.id, command).await;
            }
        }
    }
    let mut recount: BTreeMap<String, [u64; 7]> = BTreeMap::new();
    for task in w.list(TaskQuery::default()).await {
        recount.entry(task.spec.queue.to_string()).or_default()[task.record.state as usize] += 1;
    }
    let counts = w.store.counts().await.unwrap();
    let counts: BTreeMap<_, _> = counts.into_iter().map(|it| (it.queue.to_string(), it.by_state)).collect();
    assert_eq!(counts, recount);
}
