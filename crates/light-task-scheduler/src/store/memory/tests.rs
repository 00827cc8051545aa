//! What is particular to this store; what every store must do is in the conformance suite.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::order::Place;
use super::rows::{Row, task_bytes};
use super::trail::{Tombstones, Trail};
use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::state::RunEvent;
use crate::store::{Cursor, Said, Suspect, TOMBSTONE_TTL};
use crate::task::{Failure, FailureKind, Outcome, Payload, Progress, ResultRef, Start, State, Token};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Debug, Default)]
struct Hand(AtomicI64, AtomicU64);

impl Hand {
    fn step(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, SeqCst);
    }

    fn step_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_micros() as i64, SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst))
    }

    fn random(&self) -> u64 {
        self.1.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst)
    }
}

/// A store, its clock, and one replica.
struct World {
    store: MemoryStore,
    clock: Arc<Hand>,
    me: ReplicaId,
    claims: AtomicU64,
}

impl World {
    async fn new(priority: bool) -> World {
        World::bounded(priority, usize::MAX, u64::MAX).await
    }

    async fn bounded(priority: bool, tasks_max: usize, bytes_max: u64) -> World {
        let clock = Arc::new(Hand::default());
        clock.step(HOUR);
        let options = MemoryOptions { tasks_max, bytes_max, clock: clock.clone() };
        let me = ReplicaId::generate(&*clock);
        let store = MemoryStore::new(priority, options);
        store.register(NewReplica { id: me, name: "me".into(), ttl: 1_000 * HOUR, remote: false }).await.unwrap();
        World { store, clock, me, claims: AtomicU64::new(0) }
    }

    async fn insert(&self, task: NewTask) -> TaskId {
        self.try_insert(task).await.unwrap().id().clone()
    }

    async fn try_insert(&self, task: NewTask) -> Result<Inserted> {
        self.store.insert(vec![task]).await.unwrap().remove(0)
    }

    async fn claim(&self, limit: usize) -> Claim {
        let number = self.claims.fetch_add(1, SeqCst) + 1;
        self.claim_as(self.me, number, limit).await.unwrap()
    }

    async fn claim_as(&self, replica: ReplicaId, number: u64, limit: usize) -> Result<Claim> {
        let kinds = ["a", "b", "a"].map(name).to_vec();
        self.store.claim(ClaimRequest { replica, number, kinds, queues: vec![], limit, among: None }).await
    }

    async fn apply(&self, task: &Task, event: RunEvent) -> Answer {
        let token = task.record.token().unwrap();
        self.store.apply(vec![Change { id: task.id.clone(), token, event }]).await.unwrap()[0]
    }

    async fn command(&self, id: &TaskId, command: Command) -> Answer {
        self.store.command(vec![(id.clone(), command)]).await.unwrap()[0]
    }

    fn changes(&self) -> Changes {
        self.store.with(|data| data.changes)
    }

    fn audit(&self) {
        self.store.with(audit);
    }
}

/// Every index must say what the rows say.
fn audit(data: &mut Data) {
    let rows = || data.rows.iter().map(|(_, row)| row);
    let count = |is: &dyn Fn(&Row) -> bool| rows().filter(|row| is(row)).count();
    for (number, queue) in data.lanes.queues.iter().enumerate() {
        for state in State::ALL {
            let rows = count(&|row| data.lanes.queue_of(row.lane).name == queue.name && row.record.state == state);
            assert_eq!(queue.by_state[state as usize], rows as u64, "queue {number}, {state}");
        }
    }
    let pending = |row: &Row| matches!(row.record.state, State::Held | State::Waiting);
    assert_eq!(data.rows.len(), rows().count());
    assert!(data.rows.iter().all(|(slot, row)| data.rows.find(&row.id) == Some(slot)));
    assert_eq!(data.lanes.placed(), count(&|row| row.record.state == State::Waiting));
    assert_eq!(data.owners.held(), count(&|row| row.record.state.is_owned()));
    assert_eq!(data.deadlines.len(), count(&|row| pending(row) && row.deadline().is_some()));
    assert_eq!(data.wished.len(), count(&|row| row.record.state == State::Running && row.record.cancel_requested));
    assert!(data.posted.keys().all(|slot| data.rows[*slot].record.state == State::Running));
    let live = data.inserted.iter().filter(|(seq, slot)| data.rows.is_live(*slot, *seq)).count();
    assert_eq!(live, data.rows.len());
    let ended = data.ended.iter().filter(|(key, slot)| data::ended_live(&data.rows, *key, *slot)).count();
    assert!(ended >= count(&|row| row.record.state.is_terminal()));
    let fixed = |row: &Row| task_bytes(&row.id, &row.payload, row.options.as_deref()) + row.seat().bytes;
    let rows_bytes: u64 = rows().map(fixed).sum();
    let garbage: usize = data.garbage.iter().map(String::len).sum();
    let posted: u64 = data.posted.values().map(owners::Posted::bytes).sum();
    assert_eq!(data.bytes, rows_bytes + garbage as u64 + posted);
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn task(kind: &str) -> NewTask {
    NewTask::with_payload(name(kind), Payload::from_bytes(*b"1"))
}

fn failure() -> Failure {
    Failure::new(FailureKind::Error, "broken")
}

fn inline() -> RunEvent {
    RunEvent::Complete(ResultRef::Inline(Payload::from_bytes(*b"done")))
}

#[test]
fn what_waits_is_small() {
    assert!(size_of::<Row>() <= 200, "{}", size_of::<Row>());
    assert_eq!(size_of::<Row>(), size_of::<Option<Row>>(), "no room for more");
    assert!(size_of::<Place>() <= 24, "{}", size_of::<Place>());
}

#[tokio::test]
async fn an_id_leads_to_its_row_whoever_has_made_it() {
    let w = World::new(false).await;
    let fresh = w.insert(task("a").start(Start::Held)).await;
    // They end in the slot of another, in their own, and in none.
    for slot in [0, 2, 99] {
        let given = format!("01890a5d-ac96-774b-bcce-{slot:012x}");
        assert!(matches!(w.try_insert(task("a").id(&given).unwrap()).await, Ok(Inserted::New(_))));
        assert!(matches!(w.try_insert(task("a").id(&given).unwrap()).await, Ok(Inserted::Existing(..))));
        w.audit();
    }
    assert_eq!(w.try_insert(task("a").id(&fresh.to_string()).unwrap()).await.unwrap().id(), &fresh);
    assert_eq!(w.command(&fresh, Command::Delete).await, Answer::Applied(None));
    assert_eq!(w.command(&fresh, Command::Delete).await, Answer::Missing);
    let next = w.insert(task("a")).await;
    assert!(next != fresh && w.store.get(&[fresh, next]).await.unwrap()[1].is_some());
    w.audit();
}

#[tokio::test]
async fn a_full_store_refuses_and_drops_nothing() {
    let w = World::bounded(false, 2, u64::MAX).await;
    let first = w.insert(task("a").id("first").unwrap().start(Start::Held)).await;
    w.insert(task("a")).await;
    let refused = w.try_insert(task("a")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("tasks_max is 2"), "{refused}");
    let again = w.try_insert(task("a").id("first").unwrap()).await.unwrap();
    assert_eq!(again, Inserted::Existing(first.clone(), State::Held), "what is there is found in a full store too");
    assert_eq!(w.command(&first, Command::Delete).await, Answer::Applied(None));
    w.insert(task("a")).await;
    w.audit();
}

#[tokio::test]
async fn bytes_are_bounded_and_given_back() {
    let payload = |len| NewTask::with_payload(name("a"), Payload::from_bytes(vec![0; len]));
    let w = World::bounded(false, usize::MAX, 4_096).await;
    let big = w.insert(payload(3_000)).await;
    let refused = w.try_insert(payload(1_000)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("bytes_max is 4096"), "{refused}");
    assert!(w.store.queues().await.unwrap().len() == 1, "a refused task leaves nothing behind");

    let claimed = w.claim(1).await.tasks.remove(0);
    let output = RunEvent::Outcome(Some(Payload::from_bytes(vec![0; 5_000])));
    assert_eq!(w.apply(&claimed, output).await, Answer::Applied(Some(State::Exporting)), "outputs are never refused");
    assert_eq!(w.apply(&claimed, inline()).await, Answer::Applied(Some(State::Succeeded)));
    w.audit();
    w.command(&big, Command::Delete).await;
    assert_eq!(w.store.with(|data| data.bytes), 0);
}

#[tokio::test]
async fn the_two_orders_differ_by_priority_only() {
    for (priority, expected) in [(false, ["low", "high", "late"]), (true, ["high", "low", "late"])] {
        let w = World::new(priority).await;
        let late = Start::At(w.clock.now() + SECOND);
        w.insert(task("a").id("late").unwrap().start(late)).await;
        w.insert(task("a").id("low").unwrap()).await;
        w.insert(task("b").id("high").unwrap().priority(1)).await;
        assert_eq!(w.store.capabilities().priority, priority);
        w.clock.step(SECOND);
        let claim = w.claim(9).await;
        let ids: Vec<String> = claim.tasks.iter().map(|task| task.id.to_string()).collect();
        assert_eq!(ids, expected);
        assert_eq!(claim.tasks.iter().map(|task| task.spec.priority).sum::<i32>(), 1, "the priority itself is kept");
    }
}

#[tokio::test]
async fn a_claim_says_when_to_ask_again() {
    let w = World::new(true).await;
    let now = w.clock.now();
    assert_eq!(w.claim(1).await.next_at, None);
    w.insert(task("a").start(Start::After(HOUR))).await;
    assert_eq!(w.claim(1).await.next_at, Some(now + HOUR));
    w.insert(task("other kind").start(Start::After(SECOND))).await;
    assert_eq!(w.claim(1).await.next_at, Some(now + HOUR));
    w.insert(task("other kind").start(Start::Held).deadline(now + 9 * SECOND)).await;
    assert_eq!(w.claim(1).await.next_at, Some(now + 9 * SECOND), "a deadline of any kind");
    w.insert(task("a")).await;
    assert_eq!(w.claim(0).await.next_at, Some(now), "more is due than was taken");

    let full = QueueSettings { concurrency: Some(1), ..QueueSettings::default() };
    w.store.set_queue(name("default"), full).await.unwrap();
    w.insert(task("a")).await;
    assert_eq!(w.claim(5).await.tasks.len(), 1);
    assert_eq!(w.claim(5).await.next_at, Some(now + 9 * SECOND), "a full queue opens by a hint, not by time");
}

#[tokio::test]
async fn the_next_permit_is_told_once_the_rate_is_spent() {
    let w = World::new(false).await;
    let rate = Some(crate::rate::RateLimit::per_second(1));
    w.store.set_queue(name("default"), QueueSettings { rate, ..QueueSettings::default() }).await.unwrap();
    w.insert(task("a")).await;
    w.insert(task("b")).await;
    let claim = w.claim(5).await;
    assert_eq!((claim.tasks.len(), claim.next_at), (1, Some(w.clock.now() + SECOND)));
    w.clock.step(SECOND);
    assert_eq!(w.claim(5).await.tasks.len(), 1);
}

#[tokio::test]
async fn hints_move_when_there_is_news_and_only_then() {
    let w = World::new(false).await;
    let seen = std::cell::Cell::new(w.changes());
    let news = || {
        let (before, now) = (seen.replace(w.changes()), w.changes());
        (now.work != before.work, now.wishes != before.wishes, now.ends != before.ends)
    };
    let (work, wishes, ends, nothing) =
        ((true, false, false), (false, true, false), (false, false, true), (false, false, false));
    let limit = |concurrency| QueueSettings { concurrency, ..QueueSettings::default() };

    let held = w.insert(task("a").start(Start::Held)).await;
    assert_eq!(news(), nothing, "held");
    w.command(&held, Command::Start).await;
    assert_eq!(news(), work, "started");
    w.insert(task("a").start(Start::After(HOUR))).await;
    assert_eq!(news(), work, "the first delayed one moves the alarm clock");
    let last = w.insert(task("a").start(Start::After(2 * HOUR))).await;
    assert_eq!(news(), nothing, "a later one does not");
    let claimed = w.claim(9).await.tasks.remove(0);
    assert_eq!(news(), nothing, "a claim");
    w.store.set_queue(name("default"), limit(Some(1))).await.unwrap();
    assert_eq!(news(), work, "settings");
    w.insert(task("a")).await;
    assert_eq!(news(), nothing, "a full queue");
    w.command(&held, Command::Cancel).await;
    assert_eq!(news(), wishes, "a wish");
    w.command(&held, Command::Cancel).await;
    assert_eq!(news(), nothing, "the same wish");
    let report = Report { id: held, execution: 1, said: Said::Progress(Progress::default()) };
    w.store.post_reports(vec![report]).await.unwrap();
    assert_eq!(news(), wishes, "a report");
    w.apply(&claimed, RunEvent::Cancelled).await;
    assert_eq!(news(), (true, false, true), "an end that frees the only slot");
    w.command(&last, Command::Cancel).await;
    assert_eq!(news(), ends, "an end");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_changes_is_woken() {
    let w = World::new(false).await;
    let seen = w.changes();
    assert_eq!(w.store.changed(Changes { work: 99, ..seen }).await, seen, "what was missed comes at once");
    let store = w.store.clone();
    let waiting = tokio::spawn(async move { store.changed(seen).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    w.insert(task("a")).await;
    assert_ne!(tokio::time::timeout(SECOND, waiting).await.unwrap().unwrap(), seen);
}

#[tokio::test]
async fn the_clock_never_goes_back() {
    let w = World::new(false).await;
    let before = w.claim(0).await.now;
    w.clock.step_back(HOUR / 2);
    w.insert(task("a")).await;
    let claim = w.claim(1).await;
    assert_eq!((claim.now, claim.tasks[0].spec.created_at), (before, before));
}

#[tokio::test]
async fn a_repeated_claim_takes_nothing_new() {
    let w = World::new(false).await;
    let [stays, ends] = [w.insert(task("a")).await, w.insert(task("a")).await];
    let first = w.claim(2).await;
    w.insert(task("a")).await;
    assert_eq!(w.claim_as(w.me, 1, 5).await.unwrap().tasks, first.tasks);
    w.apply(&first.tasks[1], inline()).await;
    // Its slot is used again, by a task that was not claimed then.
    w.command(&ends, Command::Delete).await;
    w.insert(task("a")).await;
    let repeated = async || {
        let tasks = w.claim_as(w.me, 1, 5).await.unwrap().tasks;
        tasks.into_iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(repeated().await, std::slice::from_ref(&stays));

    // Nor if it came to run here without a claim.
    let dead = ReplicaId::generate(&*w.clock);
    w.store.register(NewReplica { id: dead, name: String::new(), ttl: SECOND, remote: false }).await.unwrap();
    let theirs = w.claim_as(dead, 1, 5).await.unwrap().tasks;
    w.store.leave(dead).await.unwrap();
    let request = RescueRequest { replica: w.me, suspects: vec![], kinds: vec![name("a")], queues: vec![], limit: 5 };
    let rescued = w.store.rescue(request).await.unwrap().tasks;
    assert!(rescued.iter().map(|task| &task.id).eq(theirs.iter().map(|task| &task.id)), "{rescued:?}");
    assert_eq!(repeated().await, [stays]);
    w.insert(task("a")).await;
    assert_eq!(w.claim(5).await.tasks.len(), 1);
    assert_eq!(w.claim_as(w.me, 1, 5).await.unwrap().tasks, [], "an older claim is not answered any more");
}

#[tokio::test]
async fn pages_join_without_gap_or_overlap_past_the_scan_bound() {
    const TASKS: usize = 10_000;
    let w = World::new(false).await;
    let tasks = (0..TASKS).map(|i| task(if i % 8 == 7 { "a" } else { "b" }).id(&i.to_string()).unwrap()).collect();
    w.store.insert(tasks).await.unwrap();
    for (kind, expected) in [(None, TASKS), (Some(name("a")), TASKS / 8), (Some(name("none")), 0)] {
        let mut query = TaskQuery { kind, limit: 700, ..TaskQuery::default() };
        let mut numbers: Vec<usize> = Vec::new();
        loop {
            let page = w.store.list(&query).await.unwrap();
            assert!(page.tasks.len() == 700 || page.next.is_none());
            numbers.extend(page.tasks.iter().map(|task| task.id.to_string().parse::<usize>().unwrap()));
            let Some(next) = page.next else { break };
            query.cursor = Some(next);
        }
        assert_eq!(numbers.len(), expected);
        assert!(numbers.is_sorted_by(|a, b| a > b), "newest first");
    }
    let exact = TaskQuery { cursor: Some(Cursor::at(6)), limit: 5, ..TaskQuery::default() };
    assert_eq!(w.store.list(&exact).await.unwrap().next, None, "a page that is just full is the last");
}

#[tokio::test]
async fn churn_leaves_no_trace_but_tombstones() {
    let w = World::new(false).await;
    w.insert(task("never claimed")).await;
    for _ in 0..20 {
        w.store.insert((0..500).map(|_| task("a")).collect()).await.unwrap();
        for task in w.claim(500).await.tasks {
            w.apply(&task, inline()).await;
        }
        w.clock.step(SECOND);
        let states = vec![State::Succeeded];
        let sweep = SweepRequest { states, older_than: Some(Duration::ZERO), limit: 500, ..SweepRequest::default() };
        assert_eq!(w.store.sweep(sweep).await.unwrap().removed, 500);
        w.audit();
    }
    w.store.with(|data| {
        assert_eq!(data.rows.slots(), 501);
        assert!(data.inserted.iter().count() < 3_000, "{}", data.inserted.iter().count());
        assert_eq!(data.ended.iter().count(), 0);
    });
}

#[test]
fn tombstones_are_forgotten_in_time() {
    let at = Timestamp::from_micros;
    let id = |text: &str| TaskId::new(text).unwrap();
    let mut tombstones = Tombstones::default();
    tombstones.add(id("a"), [1; 16], at(0));
    tombstones.add(id("b"), [2; 16], at(5));
    tombstones.expire(at(0) + TOMBSTONE_TTL);
    assert_eq!((tombstones.get(&id("a")), tombstones.get(&id("b"))), (None, Some(&[2; 16])));
}

#[test]
fn a_trail_clears_away_what_is_stale() {
    let mut trail = Trail::new();
    (0..10_000_u64).for_each(|key| trail.push(key, 0));
    for gone in 0..9_000 {
        trail.forget(|key, _| key > gone);
    }
    assert!(trail.iter().count() < 3_000);
    assert_eq!(trail.below(9_500).next(), Some((9_499, 0)));
}

#[tokio::test]
async fn names_are_bounded() {
    let w = World::new(false).await;
    for number in 0..lanes::LANES_MAX {
        w.store.with(|data| data.lanes.queue(&name(&number.to_string()))).unwrap();
    }
    let refused = w.try_insert(task("a").queue("one more").unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(w.store.get(&[]).await.unwrap().is_empty());
    w.insert(task("a").queue("0").unwrap()).await;
}

/// A walk at random through everything a store can be asked; after each step every index must agree with the
/// rows, and the limited queue's limit must hold.
#[tokio::test]
async fn every_index_stays_exact_on_a_random_walk() {
    for seed in 0..20 {
        let mut walk = Walk::new(seed).await;
        for _ in 0..400 {
            walk.step().await;
            walk.w.audit();
            let counts = walk.w.store.counts().await.unwrap();
            let limited = counts.iter().find(|counts| counts.queue == name("limited")).unwrap();
            assert!(limited.of(State::Running) <= 3, "{limited:?}");
        }
        assert!(walk.w.changes().ends > 0, "seed {seed} ended nothing");
    }
}

struct Walk {
    w: World,
    random: fastrand::Rng,
    replicas: Vec<(ReplicaId, u64)>,
    ids: Vec<TaskId>,
}

impl Walk {
    async fn new(seed: u64) -> Walk {
        let w = World::new(seed.is_multiple_of(2)).await;
        let limited = QueueSettings { concurrency: Some(3), ..QueueSettings::default() };
        w.store.set_queue(name("limited"), limited).await.unwrap();
        let mut walk = Walk { w, random: fastrand::Rng::with_seed(seed), replicas: vec![], ids: vec![] };
        walk.register().await;
        walk
    }

    async fn register(&mut self) {
        let id = ReplicaId::generate(&*self.w.clock);
        self.w.store.register(NewReplica { id, name: String::new(), ttl: 20 * SECOND, remote: false }).await.unwrap();
        self.replicas.push((id, 0));
    }

    async fn step(&mut self) {
        let store = self.w.store.clone();
        let replica = self.random.usize(..self.replicas.len());
        let (me, number) = self.replicas[replica];
        match self.random.u8(..20) {
            0..5 => self.insert().await,
            5..9 => {
                let again = self.random.u8(..4) == 0;
                self.replicas[replica].1 += u64::from(!again);
                _ = self.w.claim_as(me, number + u64::from(!again), self.random.usize(..4)).await;
            }
            9..13 => self.apply().await,
            13..15 => {
                use Command::{Cancel, Delete, Requeue, RetryExport, Start};
                let Some(id) = self.random.choice(&self.ids).cloned() else { return };
                let command = self.random.choice([Cancel, Delete, Requeue, RetryExport, Start]).unwrap();
                self.w.command(&id, command).await;
            }
            15 => self.post().await,
            16 => {
                let forward = Duration::from_millis(self.random.u64(..8_000));
                self.w.clock.step(forward);
                self.w.clock.step_back(Duration::from_millis(self.random.u64(..1_000)));
            }
            17 => {
                let suspects = store.replicas().await.unwrap().into_iter().map(|r| Suspect { id: r.id, beat: r.beat });
                let (suspects, kinds) = (suspects.collect(), vec![name("a")]);
                _ = store.rescue(RescueRequest { replica: me, suspects, kinds, queues: vec![], limit: 2 }).await;
            }
            18 => {
                let holdings = self.random.bool().then(Default::default);
                let refused = store.heartbeat(Heartbeat { replica: me, holdings }).await.is_err();
                if refused || self.random.u8(..3) == 0 {
                    store.leave(me).await.unwrap();
                    self.replicas.swap_remove(replica);
                    self.register().await;
                }
                if self.replicas.len() < 3 {
                    self.register().await;
                }
            }
            _ => {
                let states = vec![State::Succeeded, State::Cancelled];
                let confirmed = store.sweep(SweepRequest { limit: 1, ..Default::default() }).await.unwrap().garbage;
                let older_than = Some(10 * SECOND);
                let request =
                    SweepRequest { states, older_than, limit: 3, confirmed, except_label: Some(name("keep")) };
                store.sweep(request).await.unwrap();
            }
        }
    }

    async fn insert(&mut self) {
        let delay = Duration::from_millis(self.random.u64(..5_000));
        let start = self.random.choice([Start::Now, Start::After(delay), Start::Held]).unwrap();
        let kind = self.random.choice(["a", "b"]).unwrap();
        let queue = self.random.choice(["limited", "default"]).unwrap();
        let mut task = task(kind).queue(queue).unwrap().priority(self.random.i32(-1..2)).start(start);
        if self.random.bool() {
            task = task.deadline(self.w.clock.now() + delay * 4);
        }
        if self.random.u8(..4) == 0 {
            task = task.id(&self.random.u8(..20).to_string()).unwrap().label("keep", "").unwrap();
        }
        self.ids.extend(self.w.try_insert(task).await.ok().map(|inserted| inserted.id().clone()));
    }

    async fn apply(&mut self) {
        let Some(id) = self.random.choice(&self.ids).cloned() else { return };
        let Some(task) = self.w.store.get(&[id]).await.unwrap().remove(0) else { return };
        let Some(Token { owner, run }) = task.record.token() else { return };
        let token = Token { owner, run: run - u64::from(self.random.u8(..5) == 0) };
        let at = self.w.clock.now() + SECOND;
        let event = match self.random.u8(..9) {
            0 => RunEvent::Outcome(Some(Payload::from_bytes(vec![0; 50]))),
            1 => inline(),
            2 => RunEvent::Complete(ResultRef::Stored { key: format!("{}-{run}", task.id), len: 1, hash: "0".into() }),
            3 => RunEvent::Retry(at, failure()),
            4 => RunEvent::Release(self.w.clock.now(), failure()),
            5 => RunEvent::Fail(Failure::new(FailureKind::Export, "no room")),
            6 => RunEvent::Cancelled,
            7 => RunEvent::Progress(Progress { message: "half".into(), ..Default::default() }),
            _ => RunEvent::Started(None),
        };
        self.w.store.apply(vec![Change { id: task.id, token, event }]).await.unwrap();
    }

    async fn post(&mut self) {
        let Some(id) = self.random.choice(&self.ids).cloned() else { return };
        let Some(task) = self.w.store.get(&[id]).await.unwrap().remove(0) else { return };
        let said = match self.random.bool() {
            true => Said::Progress(Progress { message: "some".into(), ..Default::default() }),
            false => Said::Ended(Outcome::Failed(failure())),
        };
        let report = Report { id: task.id, execution: task.record.execution, said };
        let taken = self.w.store.post_reports(vec![report]).await.unwrap()[0];
        assert_eq!(taken, task.record.state == State::Running);
    }
}
