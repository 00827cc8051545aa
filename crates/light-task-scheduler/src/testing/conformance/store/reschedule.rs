//! Tasks that are given another time or priority before they run.

use std::time::Duration;

use super::StoreHarness;
use super::world::{MINUTE, World, concurrency, failure, id, name, paused, task, task_as, texts, token};
use crate::clock::Timestamp;
use crate::rate::RateLimit;
use crate::state::{Command, RunEvent};
use crate::store::{Answer, Changes, ClaimRequest, QueueSettings};
use crate::task::{FailureKind, Record, Start, State, Task, TaskId};

const WAITING: Answer = Answer::Applied(Some(State::Waiting));
const HELD: Answer = Answer::Applied(Some(State::Held));
/// A hint of what the same handle has done comes sooner.
const HINT_WITHIN: Duration = Duration::from_secs(30);

fn to(run_at: Timestamp) -> Command {
    Command::Reschedule { run_at: Some(run_at), priority: None }
}

/// A time that has passed.
fn now() -> Command {
    to(Timestamp::default())
}

fn with_priority(priority: i32) -> Command {
    Command::Reschedule { run_at: None, priority: Some(priority) }
}

/// A delayed task that is moved to now is claimed at once, and was not before.
pub async fn moved_earlier_it_runs_at_once(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task().start(Start::After(MINUTE * 60))).await;
    assert_eq!(w.claim_ids(&replica, 1).await, []);
    assert_eq!(w.command(&id, now()).await, WAITING);
    assert_eq!(w.claim_ids(&replica, 1).await, [id]);
}

/// I11: a task that was due is not claimed before its new time, and is from it on.
pub async fn moved_later_it_is_not_claimed_before(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let ids = w.add_all(vec![task(), task().start(Start::After(MINUTE))]).await;
    let at = w.now().await + MINUTE * 3;
    for id in &ids {
        assert_eq!(w.command(id, to(at)).await, WAITING);
        assert_eq!(w.get(id).await.record.run_at, at);
    }
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.pass(MINUTE * 2).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.pass(MINUTE * 2).await;
    assert_eq!(w.claim_ids(&replica, 9).await, ids);
}

/// Whoever has read candidates ahead and names one that was moved since does not get it too early.
pub async fn a_claim_among_names_waits_for_the_new_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task()).await;
    let at = w.now().await + MINUTE;
    let ask = || ClaimRequest { among: Some(vec![id.clone()]), ..replica.request(1) };
    w.command(&id, to(at)).await;
    assert_eq!(w.store.claim(ask()).await.unwrap().tasks, []);
    w.pass(MINUTE * 2).await;
    assert_eq!(w.store.claim(ask()).await.unwrap().tasks.len(), 1);
}

/// Who waits for work hears of a task that is moved to now.
pub async fn who_waits_hears_of_it(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task().start(Start::After(MINUTE * 60))).await;
    assert_eq!(w.claim_ids(&replica, 1).await, []);
    let before = w.store.changed(Changes::default()).await;
    assert_eq!(w.command(&id, now()).await, WAITING);
    let heard = async {
        let mut seen = before;
        while seen.work == before.work {
            seen = w.store.changed(seen).await;
        }
    };
    assert!(tokio::time::timeout(HINT_WITHIN, heard).await.is_ok(), "no hint of work came");
    assert_eq!(w.claim_ids(&replica, 1).await, [id]);
}

/// A claimer that got nothing is told to ask again at the new time.
pub async fn the_new_time_is_told_to_claimers(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task().start(Start::After(MINUTE * 60))).await;
    for minutes in [20, 10, 30] {
        let at = w.now().await + MINUTE * minutes;
        assert_eq!(w.command(&id, to(at)).await, WAITING);
        let next = w.claim(&replica, 1).await.next_at;
        assert!(next.is_some_and(|next| next <= at), "{next:?} is after {at}");
    }
}

/// A held task goes on being held; once started it waits for the time that it was given.
pub async fn a_held_task_stays_held_and_keeps_its_time(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let ids = w.add_all(vec![task().start(Start::Held), task().start(Start::Held)]).await;
    let at = w.now().await + MINUTE * 2;
    assert_eq!(w.command(&ids[0], to(at)).await, HELD);
    assert_eq!(w.command(&ids[1], now()).await, Answer::Already(State::Held));
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    for id in &ids {
        assert_eq!(w.command(id, Command::Start).await, WAITING);
    }
    assert_eq!(w.claim_ids(&replica, 9).await, [ids[1].clone()]);
    w.pass(MINUTE * 3).await;
    assert_eq!(w.claim_ids(&replica, 9).await, [ids[0].clone()]);
}

/// I12: of one priority the new times decide.
pub async fn the_new_time_orders_among_equals(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    for (minutes, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        w.add(task_as(id).start(Start::After(MINUTE * minutes))).await;
    }
    let base = w.now().await;
    let half = MINUTE / 2;
    w.command(&id("a"), to(base + MINUTE * 3 + half)).await;
    w.command(&id("d"), to(base + MINUTE + half)).await;
    w.pass(MINUTE * 5).await;
    w.add(task_as("e")).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["d", "b", "c", "a", "e"]);
}

/// A task that is due is neither delayed nor let before others by another time of the past.
pub async fn what_is_due_keeps_its_place(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    for id in ["a", "b", "c"] {
        w.add(task_as(id)).await;
        w.pass(MINUTE).await;
    }
    let before = w.get(&id("b")).await;
    for command in [now(), to(before.spec.created_at), to(w.now().await)] {
        assert_eq!(w.command(&id("b"), command).await, Answer::Already(State::Waiting));
        assert_eq!(w.get(&id("b")).await, before);
    }
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["a", "b", "c"]);
}

/// The same wish again, as after a lost answer, changes nothing.
pub async fn repeated_it_changes_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task().start(Start::After(MINUTE))).await;
    let at = w.now().await + MINUTE * 5;
    for command in [to(at), now(), Command::Reschedule { run_at: None, priority: None }] {
        let first = w.command(&id, command).await;
        assert!(first == WAITING || command == Command::Reschedule { run_at: None, priority: None }, "{first:?}");
        let after = w.get(&id).await;
        assert_eq!(w.command(&id, command).await, Answer::Already(State::Waiting));
        assert_eq!(w.get(&id).await, after);
    }
    w.command(&id, with_priority(4)).await;
    let after = w.get(&id).await;
    w.command(&id, with_priority(4)).await;
    assert_eq!(w.get(&id).await, after, "nor does the same priority");
}

/// Fence, generation, budget, history and what was submitted stay: only time and priority are others.
pub async fn nothing_else_of_the_task_changes(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let new = task_as("t").queue("q").and_then(|task| task.label("l", "v")).unwrap().timeout(MINUTE);
    let first = w.run(&replica, new).await;
    let later = w.now().await + MINUTE * 60;
    w.must(&first, RunEvent::Release(later, failure(FailureKind::Lost))).await;
    let before = w.get(&id("t")).await;
    let at = w.now().await + MINUTE;
    let wish = Command::Reschedule { run_at: Some(at), priority: Some(-7) };
    assert_eq!(w.command(&id("t"), wish).await, WAITING);
    let after = w.get(&id("t")).await;
    let mut spec = before.spec.clone();
    spec.priority = -7;
    assert_eq!(after, Task { spec, record: Record { run_at: at, ..before.record.clone() }, ..before });
    // The old owner's late report finds the same as before.
    let late = w.apply(&id("t"), token(&first), RunEvent::Release(later, failure(FailureKind::Lost))).await;
    assert_eq!(late, Answer::Already(State::Waiting));
    w.pass(MINUTE * 2).await;
    let again = w.claim(&replica, 1).await.tasks.remove(0);
    assert_eq!((again.record.run, again.record.execution), (first.record.run + 1, first.record.run + 1));
}

/// Pause, limit and rate hold for what was moved to now as for everything.
pub async fn it_takes_no_slot_and_no_permit(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rate = RateLimit { count: 1, period: MINUTE * 10, burst: 1 };
    w.set("paused", paused()).await;
    w.set("full", concurrency(1)).await;
    w.set("rated", QueueSettings { rate: Some(rate), ..QueueSettings::default() }).await;
    for queue in ["full", "rated"] {
        w.run(&replica, task().queue(queue).unwrap()).await;
    }
    for queue in ["paused", "full", "rated"] {
        let id = w.add(task_as(queue).queue(queue).unwrap().start(Start::After(MINUTE * 60))).await;
        let wish = Command::Reschedule { run_at: Some(Timestamp::default()), priority: Some(9) };
        assert_eq!(w.command(&id, wish).await, WAITING);
    }
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    w.pass(MINUTE * 9 + MINUTE * 2).await;
    w.beat(&replica).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["rated"]);
    w.set("paused", QueueSettings::default()).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["paused"]);
}

/// A task that is moved beyond its deadline fails at that.
pub async fn a_deadline_still_holds(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let deadline = w.now().await + MINUTE * 2;
    let id = w.add(task().deadline(deadline)).await;
    assert_eq!(w.command(&id, to(deadline + MINUTE * 9)).await, WAITING);
    w.pass(MINUTE * 3).await;
    let claim = w.claim(&replica, 9).await;
    assert_eq!((claim.tasks, claim.expired), (vec![], vec![id.clone()]));
    assert_eq!(w.state(&id).await, State::Failed);
}

/// The back-off of a task that failed can be cut short.
pub async fn a_retrying_task_can_go_on_now(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task()).await;
    let later = w.now().await + MINUTE * 60;
    w.must(&running, RunEvent::Retry(later, failure(FailureKind::Error))).await;
    assert_eq!(w.claim_ids(&replica, 9).await, []);
    assert_eq!(w.command(&running.id, now()).await, WAITING);
    let again = w.claim(&replica, 9).await.tasks.remove(0);
    assert_eq!((again.id, again.record.attempt), (running.id, 2));
}

/// Who counts sees a task go from the waiting to the scheduled ones and back.
pub async fn the_counts_follow(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let ids = w.add_all(vec![task(); 3]).await;
    let count = async || {
        let counts = w.store.counts().await.unwrap().remove(0);
        (counts.of(State::Waiting), counts.scheduled)
    };
    assert_eq!(count().await, (3, 0));
    let at = w.now().await + MINUTE * 5;
    w.command(&ids[0], to(at)).await;
    w.command(&ids[1], to(at + MINUTE)).await;
    w.command(&ids[1], with_priority(1)).await;
    assert_eq!(count().await, (3, 2));
    w.command(&ids[1], now()).await;
    assert_eq!(count().await, (3, 1));
    w.pass(MINUTE * 6).await;
    assert_eq!(count().await, (3, 0));
}

/// One call moves many, in both directions.
pub async fn a_crowd_moves_at_once(h: &dyn StoreHarness) {
    const CROWD: usize = 1_500;
    let w = World::open(h).await;
    let replica = w.replica().await;
    let due = w.add_all(vec![task(); CROWD]).await;
    let delayed = w.add_all(vec![task().start(Start::After(MINUTE * 2)); CROWD]).await;
    let at = w.now().await + MINUTE * 4;
    let later = due.iter().map(|id| (id.clone(), Command::Reschedule { run_at: Some(at), priority: Some(1) }));
    let sooner = delayed.iter().map(|id| (id.clone(), now()));
    let answers = w.store.command(later.chain(sooner).collect()).await.unwrap();
    assert_eq!(answers, vec![WAITING; 2 * CROWD]);
    assert_eq!(w.claim_ids(&replica, 2 * CROWD).await, delayed);
    w.pass(MINUTE * 5).await;
    assert_eq!(w.claim_ids(&replica, 2 * CROWD).await, due);
}

/// Wishes of one call are obeyed in their order.
pub async fn several_times_in_one_call(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(vec![task_as("a").start(Start::Held), task_as("b"), task_as("c"), task_as("d")]).await;
    let at = w.now().await + MINUTE * 2;
    let of = |text: &str, command| (id(text), command);
    let commands = vec![
        of("a", to(at)),
        of("a", Command::Start),
        of("a", with_priority(2)),
        of("b", to(at)),
        of("b", now()),
        of("c", with_priority(5)),
        of("c", with_priority(-5)),
        of("d", with_priority(1)),
        of("d", Command::Cancel),
        of("d", to(at)),
        of("d", Command::Delete),
    ];
    let answers = w.store.command(commands).await.unwrap();
    assert_eq!(answers[..9], [HELD, WAITING, WAITING, WAITING, WAITING, WAITING, WAITING, WAITING, CANCELLED]);
    assert!(matches!(answers[9], Answer::Refused(_)) && answers[10] == Answer::Applied(None), "{answers:?}");
    let priorities = [w.get(&id("a")).await.spec.priority, w.get(&id("c")).await.spec.priority];
    assert_eq!(priorities, [2, -5]);
    let mut claimed: Vec<TaskId> = w.claim_ids(&replica, 9).await;
    claimed.sort();
    assert_eq!(texts(&claimed), ["b", "c"]);
    w.pass(MINUTE * 3).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["a"]);
}

const CANCELLED: Answer = Answer::Applied(Some(State::Cancelled));

/// The new priority belongs to the task: it survives retries, and a requeue.
pub async fn the_priority_stays_for_later_attempts(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task_as("t").queue("q").unwrap()).await;
    w.command(&id, with_priority(6)).await;
    let running = w.claim(&replica, 1).await.tasks.remove(0);
    assert_eq!(running.spec.priority, 6);
    w.must(&running, RunEvent::Fail(failure(FailureKind::Error))).await;
    w.command(&id, Command::Requeue).await;
    let request = ClaimRequest { queues: vec![name("q")], ..replica.request(1) };
    let again = w.store.claim(request).await.unwrap().tasks.remove(0);
    assert_eq!((again.spec.priority, w.get(&id).await.spec.priority), (6, 6));
}
