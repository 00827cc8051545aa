//! Values that a database or a script might take for others, cut, or stumble over.

use std::time::Duration;

use super::StoreHarness;
use super::world::{KIND, MINUTE, World, bytes, concurrency, failure, id, ids, name, paused, task, task_as, texts};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::state::{Command, RunEvent};
use crate::store::{
    BATCH_MAX, ClaimRequest, NewReplica, QueueSettings, Report, RescueRequest, Said, SweepRequest, TaskQuery,
};
use crate::task::{
    Failure, FailureKind, HANDLE_BYTES_MAX, Handle, NewTask, Outcome, Progress, ReplicaId, ResultRef, Start, State,
};

/// Texts that collations, encodings, templates and patterns treat in their own way.
const TEXTS: [&str; 14] = [
    "",
    " ",
    "a\0b",
    "\0",
    "'; DROP TABLE tasks; --",
    "\"\\\r\n\t%s{}$1:?%00",
    "🦀 \u{10ffff}\u{fffd}",
    "\u{feff}\u{2028}\u{202e}",
    "null",
    "[1,{\"a\":2}]",
    "NaN",
    "1e400",
    "00012",
    "trailing  ",
];

/// Names that are equal in one collation or another.
const ALIKE: [&str; 8] = ["a", "A", "a ", " a", "á", "a\u{301}", "ａ", "a%"];

/// Whatever an execution or its executor says of a failure is kept to the letter.
pub async fn hostile_failures_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for text in TEXTS {
        let mut why = Failure::new(FailureKind::Error, text);
        (why.exit_code, why.retry_after, why.fatal) = (Some(i32::MIN), Some(Duration::from_micros(1)), true);
        let running = w.run(&owner, task()).await;
        let now = w.now().await;
        let retried = w.must(&running, RunEvent::Retry(now, why.clone())).await;
        assert_eq!(retried.record.failure(), Some(&why));
        let again = w.claim(&owner, 1).await.tasks.remove(0);
        let failed = w.must(&again, RunEvent::Fail(why.clone())).await;
        assert_eq!(failed.record.failure(), Some(&why));
        assert!(failed.record.attempts().iter().all(|attempt| attempt.failure == why), "{:?}", failed.record);
    }
}

/// Handles and progress messages are kept to the letter, also by an adoption.
pub async fn hostile_handles_and_messages_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let longest = "🦀".repeat(HANDLE_BYTES_MAX / 4);
    let mut owner = w.replica().await;
    for text in TEXTS.into_iter().chain([longest.as_str()]) {
        let running = w.run(&owner, task()).await;
        w.must(&running, RunEvent::Started(Some(Handle::new(text).unwrap()))).await;
        let progress = Progress { done: u64::MAX, total: u64::MAX, message: text.to_owned() };
        w.must(&running, RunEvent::Progress(progress.clone())).await;
        let heir = w.replica().await;
        let adopted = w.take_over(&owner, &heir).await;
        assert_eq!(adopted[0].record.handle().map(Handle::as_str), Some(text));
        assert_eq!(adopted[0].record.progress(), Some(&progress));
        w.must(&adopted[0], RunEvent::Fail(failure(FailureKind::Error))).await;
        owner = heir;
    }
}

/// Reports with any text and any bytes reach the owner to the letter.
pub async fn hostile_reports_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for text in TEXTS {
        let progress = Progress { done: u64::MAX, total: 0, message: text.to_owned() };
        let fatal = Failure::new(FailureKind::Panic, text);
        for said in [
            Said::Progress(progress),
            Said::Ended(Outcome::Failed(fatal)),
            Said::Ended(Outcome::Succeeded(Some(bytes(text.as_bytes())))),
        ] {
            let running = w.run(&owner, task()).await;
            let report = Report { id: running.id.clone(), execution: running.record.execution, said };
            assert_eq!(w.store.post_reports(vec![report.clone()]).await.unwrap(), [true]);
            assert_eq!(w.beat(&owner).await.reports, [report]);
            w.must(&running, RunEvent::Fail(failure(FailureKind::Error))).await;
        }
    }
}

/// A replica's name is for people: any text is kept, but for the NUL that some databases have no place for.
pub async fn hostile_replica_names_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    for text in TEXTS.into_iter().filter(|text| !text.contains('\0')) {
        let id = ReplicaId::generate(&crate::clock::SystemClock);
        w.store.register(NewReplica { id, name: text.to_owned(), ttl: MINUTE, remote: false }).await.unwrap();
        let all = w.store.replicas().await.unwrap();
        let listed = all.iter().find(|replica| replica.id == id).expect("it is listed");
        assert_eq!(listed.name, text);
    }
}

/// Queues whose names look alike have each their own pause, limit, tasks and counts.
pub async fn queues_that_look_alike_are_apart(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    for queue in ALIKE {
        w.add_all(vec![task().queue(queue).unwrap(); 2]).await;
    }
    for queue in ALIKE {
        w.set(queue, paused()).await;
    }
    for queue in ALIKE {
        w.set(queue, concurrency(1)).await;
        let claimed = w.claim(&replica, 99).await.tasks;
        assert_eq!(claimed.len(), 1, "one of {queue:?} and none of the others");
        assert_eq!(claimed[0].spec.queue.as_str(), queue);
        let only = TaskQuery { queue: Some(name(queue)), ..TaskQuery::default() };
        assert_eq!(w.list(only).await.len(), 2);
    }
    let counts = w.store.counts().await.unwrap();
    assert_eq!(counts.len(), ALIKE.len());
    assert!(counts.iter().all(|it| it.of(State::Running) == 1 && it.of(State::Waiting) == 1), "{counts:?}");
    assert_eq!(w.store.queues().await.unwrap().len(), ALIKE.len());
}

/// Kinds whose names look alike are claimed and adopted each for itself.
pub async fn kinds_that_look_alike_are_apart(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let all = w.add_all(ALIKE.iter().map(|kind| NewTask::new(kind, &1).unwrap()).collect()).await;
    for (kind, expected) in ALIKE.iter().zip(&all) {
        let request = ClaimRequest { kinds: vec![name(kind)], ..owner.request(99) };
        assert_eq!(ids(&w.store.claim(request).await.unwrap().tasks), std::slice::from_ref(expected));
    }
    let heir = w.replica().await;
    w.store.leave(owner.id).await.unwrap();
    for (kind, expected) in ALIKE.iter().zip(&all) {
        let request =
            RescueRequest { replica: heir.id, suspects: vec![], kinds: vec![name(kind)], queues: vec![], limit: 99 };
        assert_eq!(ids(&w.store.rescue(request).await.unwrap().tasks), std::slice::from_ref(expected));
    }
}

/// Ids that look alike are tasks of their own: inserted, named in a claim, deleted and remembered each for itself.
pub async fn ids_that_look_alike_are_apart(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    w.add_all(ALIKE.iter().map(|text| task_as(text)).collect()).await;
    let request = ClaimRequest { among: Some(vec![id("A"), id("a ")]), ..replica.request(99) };
    assert_eq!(texts(&ids(&w.store.claim(request).await.unwrap().tasks)), ["A", "a "]);
    w.command(&id("a"), Command::Cancel).await;
    w.command(&id("a"), Command::Delete).await;
    let left = w.list(TaskQuery::default()).await;
    assert_eq!(left.len(), ALIKE.len() - 1);
    assert!(left.iter().all(|task| task.record.state != State::Cancelled), "no other was cancelled");
    let other = w.insert(vec![NewTask::new("other", &1).unwrap().id("b").unwrap(), task_as("B")]).await;
    assert!(other.iter().all(|answer| matches!(answer, Ok(crate::store::Inserted::New(_)))), "{other:?}");
    let gone = w.insert(vec![NewTask::new("other", &1).unwrap().id("a").unwrap()]).await.remove(0);
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::Conflict, "the tombstone is that of a");
}

/// Labels are matched to the letter, in name and value.
pub async fn labels_that_look_alike_are_apart(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    for (n, text) in ALIKE.iter().enumerate() {
        w.add(task_as(&format!("value-{n}")).label("l", text).unwrap()).await;
        w.add(task_as(&format!("name-{n}")).label(text, "v").unwrap()).await;
    }
    for (n, text) in ALIKE.iter().enumerate() {
        for (label, value, expected) in [("l", *text, format!("value-{n}")), (*text, "v", format!("name-{n}"))] {
            let query = TaskQuery { labels: vec![(name(label), value.to_owned())], ..TaskQuery::default() };
            assert_eq!(texts(&ids(&w.list(query).await)), [expected]);
        }
    }
}

/// Label values may be any text, and each is found by exactly itself.
pub async fn hostile_label_values_are_found(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    for (n, text) in TEXTS.iter().enumerate() {
        w.add(task_as(&n.to_string()).label("quote\"'\\", text).unwrap()).await;
    }
    for (n, text) in TEXTS.iter().enumerate() {
        let labels = vec![(name("quote\"'\\"), (*text).to_owned())];
        let found = w.list(TaskQuery { labels, ..TaskQuery::default() }).await;
        assert_eq!(texts(&ids(&found)), [n.to_string()], "{text:?}");
    }
}

/// Keys of results that look alike are garbage each for itself, and a confirmation is of exactly one.
pub async fn result_keys_that_look_alike_are_apart(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    for key in ALIKE {
        let running = w.run(&owner, task()).await;
        let result = ResultRef::Stored { key: key.to_owned(), len: u64::from(u32::MAX), hash: "00".repeat(16) };
        let done = w.must(&running, RunEvent::Complete(result.clone())).await;
        assert_eq!(done.record.result(), Some(&result));
        w.command(&running.id, Command::Delete).await;
    }
    let ask = |confirmed: &[&str]| SweepRequest {
        limit: 99,
        confirmed: confirmed.iter().map(|key| (*key).to_owned()).collect(),
        ..SweepRequest::default()
    };
    assert_eq!(w.store.sweep(ask(&[])).await.unwrap().garbage.len(), ALIKE.len());
    let left = w.store.sweep(ask(&["A", "a%"])).await.unwrap().garbage;
    assert_eq!(left.len(), ALIKE.len() - 2);
    assert!(!left.iter().any(|key| key == "A" || key == "a%") && left.iter().any(|key| key == "a"), "{left:?}");
}

/// The largest and smallest priorities and times order as numbers and come back unchanged.
pub async fn extreme_numbers_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let before_all = Timestamp::from_micros(-1);
    for (n, priority) in [i32::MIN, -1, 0, 1, i32::MAX].into_iter().enumerate() {
        let new = task_as(&n.to_string()).priority(priority).start(Start::At(before_all));
        let kept = w.get(&w.add(new).await).await;
        assert_eq!((kept.spec.priority, kept.record.run_at), (priority, before_all));
    }
    let far = w.add(task().start(Start::At(Timestamp::MAX))).await;
    assert_eq!(w.get(&far).await.record.run_at, Timestamp::MAX);
    let claim = w.claim(&replica, usize::MAX).await;
    assert_eq!((claim.tasks.len(), claim.next_at), (5, Some(Timestamp::MAX)));
    let retried = w.must(&claim.tasks[0], RunEvent::Retry(Timestamp::MAX, failure(FailureKind::Error))).await;
    assert_eq!(retried.record.run_at, Timestamp::MAX);
}

/// A deadline before 1970 is over at once; one at the end of time never is.
pub async fn extreme_deadlines_hold(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let never = w.add(task().deadline(Timestamp::MAX)).await;
    let long_ago = w.add(task().deadline(Timestamp::from_micros(-1))).await;
    let claim = w.claim(&replica, 9).await;
    assert_eq!((ids(&claim.tasks), claim.expired), (vec![never], vec![long_ago]));
}

/// Whoever asks for more than there is gets what there is.
pub async fn extreme_limits_are_no_error(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let owner = w.replica().await;
    let all = w.add_all(vec![task(); 5]).await;
    let page = w.store.list(&TaskQuery { limit: usize::MAX, ..TaskQuery::default() }).await.unwrap();
    assert_eq!(page.tasks.len(), 5);
    assert_eq!(w.claim_ids(&owner, usize::MAX).await, all);
    w.store.leave(owner.id).await.unwrap();
    let heir = w.replica().await;
    let adopted = w.rescue(&heir, vec![], usize::MAX).await.tasks;
    assert_eq!(adopted.len(), 5);
    for running in &adopted {
        w.must(running, RunEvent::Fail(failure(FailureKind::Error))).await;
    }
    let sweep = |older_than| SweepRequest {
        states: State::ALL.to_vec(),
        older_than: Some(older_than),
        limit: usize::MAX,
        ..SweepRequest::default()
    };
    assert_eq!(w.store.sweep(sweep(Duration::MAX)).await.unwrap().removed, 0, "nothing is that old");
    w.pass(MINUTE).await;
    assert_eq!(w.store.sweep(sweep(Duration::ZERO)).await.unwrap().removed, 5);
}

/// A limit and a rate as large as the numbers go bound nothing, and come back unchanged.
pub async fn extreme_settings_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let rate = crate::rate::RateLimit { count: u32::MAX, period: Duration::from_secs(3_600), burst: u32::MAX };
    let settings = QueueSettings { concurrency: Some(u32::MAX), rate: Some(rate), paused: false };
    w.set("default", settings).await;
    assert_eq!(w.store.queues().await.unwrap(), [(name("default"), settings)]);
    let all = w.add_all(vec![task(); 50]).await;
    assert_eq!(w.claim_ids(&replica, 99).await, all);
    let slow = crate::rate::RateLimit { count: 1, period: Duration::from_secs(100 * 366 * 86_400), burst: 1 };
    w.set("slow", QueueSettings { rate: Some(slow), ..QueueSettings::default() }).await;
    let two = w.add_all(vec![task().queue("slow").unwrap(); 2]).await;
    let claim = w.claim(&replica, 9).await;
    assert_eq!(ids(&claim.tasks), two[..1]);
    assert!(claim.next_at.is_some_and(|at| at > claim.now + MINUTE * 1_000_000), "{:?}", claim.next_at);
}

/// Every call for many items refuses one more than a batch, and answers none with none.
pub async fn every_batch_is_bounded(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let many = || vec![id("t"); BATCH_MAX + 1];
    let commands = many().into_iter().map(|id| (id, Command::Cancel)).collect();
    assert_eq!(w.store.command(commands).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(w.store.get(&many()).await.unwrap_err().kind(), ErrorKind::Invalid);
    let said = || Said::Progress(Progress::default());
    let reports = many().into_iter().map(|id| Report { id, execution: 1, said: said() }).collect();
    assert_eq!(w.store.post_reports(reports).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(w.store.command(vec![]).await.unwrap(), []);
    assert_eq!(w.store.apply(vec![]).await.unwrap(), []);
    assert_eq!(w.store.get(&[]).await.unwrap(), []);
    assert!(w.store.post_reports(vec![]).await.unwrap().is_empty());
    assert_eq!(w.store.get(&many()[1..]).await.unwrap().len(), BATCH_MAX);
}

/// A kind, a queue and an id of the same text are three different things.
pub async fn the_same_text_in_every_place_is_no_confusion(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let new = NewTask::new(KIND, &1).unwrap().id(KIND).unwrap().queue(KIND).unwrap().label(KIND, KIND).unwrap();
    w.add(new).await;
    w.add(NewTask::new("other", &1).unwrap().id("x").unwrap().queue(KIND).unwrap()).await;
    w.add(task_as("y").queue("other").unwrap()).await;
    let request = ClaimRequest { queues: vec![name(KIND)], ..replica.request(9) };
    assert_eq!(texts(&ids(&w.store.claim(request).await.unwrap().tasks)), [KIND]);
    w.set(KIND, paused()).await;
    assert_eq!(texts(&w.claim_ids(&replica, 9).await), ["y"]);
}
