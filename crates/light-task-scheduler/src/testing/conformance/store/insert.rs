//! Taking tasks in: every id once, nothing lost, nothing changed on the way.

use std::time::Duration;

use super::StoreHarness;
use super::world::{KIND, MINUTE, World, bytes, id, inline, name, task, task_as, texts};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::retry::RetryPolicy;
use crate::state::{Command, RunEvent};
use crate::store::{BATCH_MAX, Inserted, TOMBSTONE_TTL};
use crate::task::{
    LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, NewTask, PAYLOAD_BYTES_MAX, Payload, Record, Start, State,
    TASK_ID_BYTES_MAX, TaskId,
};

/// A task that was taken in can be read, with what was asked and a blank record.
pub async fn a_new_task_is_waiting(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task()).await;
    let kept = w.get(&id).await;
    assert_eq!(kept.id, id);
    assert_eq!((kept.spec.queue.as_str(), kept.spec.kind.as_str(), kept.spec.priority), ("default", KIND, 0));
    assert_eq!(kept.spec.payload, task().payload);
    let blank = Record { state: State::Waiting, run_at: kept.spec.created_at, ..Record::default() };
    assert_eq!(kept.record, blank);
}

/// Every field of a new task comes back as it was given.
pub async fn every_field_comes_back(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let policy = RetryPolicy {
        max_attempts: 7,
        min_delay: Duration::from_micros(1_500),
        max_delay: Duration::from_secs(86_400),
        factor: 1.25,
    };
    let deadline = w.now().await + Duration::new(3_600, 123_456_000);
    let new = NewTask::with_payload(name("kind é"), bytes(b"{\"a\":1}"))
        .id("job/1 with 'quotes'")
        .and_then(|task| task.queue("a queue"))
        .and_then(|task| task.label("team", "blue"))
        .and_then(|task| task.label("empty", ""))
        .unwrap()
        .priority(i32::MIN)
        .timeout(Duration::from_micros(1))
        .deadline(deadline)
        .retry(policy);
    let id = w.add(new.clone()).await;
    let kept = w.get(&id).await;
    assert_eq!(Some(kept.id), new.id);
    assert_eq!((kept.spec.queue, kept.spec.kind, kept.spec.payload), (new.queue, new.kind, new.payload));
    assert_eq!((kept.spec.priority, kept.spec.options), (i32::MIN, new.options));
}

/// A task without an id gets one, and no two the same.
pub async fn ids_are_made_where_there_is_none(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let mut made = w.add_all(vec![task(); 100]).await;
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 100);
}

/// `Start::After` counts from when the store took the task in.
pub async fn a_delay_counts_from_the_insertion(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task().start(Start::After(MINUTE))).await;
    let kept = w.get(&id).await;
    assert_eq!(kept.record.run_at, kept.spec.created_at + MINUTE);
}

/// `Start::At` is kept to the microsecond.
pub async fn a_start_time_is_kept(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let at = w.now().await + Duration::from_micros(3_600_000_001);
    let id = w.add(task().start(Start::At(at))).await;
    assert_eq!(w.get(&id).await.record.run_at, at);
}

/// The last time that can be written can be a start time, and a delay of for ever does not overflow.
pub async fn the_far_future_does_not_overflow(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let at = w.add(task().start(Start::At(Timestamp::MAX))).await;
    let after = w.add(task().start(Start::After(Duration::MAX))).await;
    for id in [at, after] {
        assert_eq!(w.get(&id).await.record.run_at, Timestamp::MAX);
    }
    let replica = w.replica().await;
    assert_eq!(w.claim_ids(&replica, 10).await, []);
}

/// I2: the same task again is the one that is there.
pub async fn the_same_again_is_the_existing_one(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a")).await;
    let before = w.get(&id).await;
    let again = w.insert(vec![task_as("a")]).await;
    assert_eq!(again[0].as_ref().unwrap(), &Inserted::Existing(id.clone(), State::Waiting));
    assert_eq!(w.get(&id).await, before);
}

/// I2: inserting again never resets a task, whatever has become of it.
pub async fn the_same_again_resets_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let running = w.run(&replica, task_as("a")).await;
    let again = w.insert(vec![task_as("a")]).await.remove(0).unwrap();
    assert_eq!(again, Inserted::Existing(id("a"), State::Running));
    assert_eq!(w.get(&running.id).await, running);
    w.must(&running, RunEvent::Complete(inline())).await;
    let again = w.insert(vec![task_as("a")]).await.remove(0).unwrap();
    assert_eq!(again, Inserted::Existing(id("a"), State::Succeeded));
    assert_eq!(w.claim_ids(&replica, 10).await, [], "it does not run again");
}

/// Only kind and payload tell tasks apart: what was asked first stands.
pub async fn other_options_under_the_same_id_change_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a")).await;
    let other = task_as("a").priority(9).queue("other").unwrap().timeout(MINUTE).start(Start::Held);
    let again = w.insert(vec![other]).await.remove(0).unwrap();
    assert_eq!(again, Inserted::Existing(id.clone(), State::Waiting));
    assert_eq!(w.get(&id).await.spec.queue.as_str(), "default");
}

/// An id with another payload is a conflict, and changes nothing.
pub async fn another_payload_is_a_conflict(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a")).await;
    let before = w.get(&id).await;
    let other = NewTask::new(KIND, &2).unwrap().id("a").unwrap();
    let answer = w.insert(vec![other]).await.remove(0);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(w.get(&id).await, before);
}

/// An id with another kind is a conflict, and changes nothing.
pub async fn another_kind_is_a_conflict(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a")).await;
    let before = w.get(&id).await;
    let other = NewTask::new("other", &1).unwrap().id("a").unwrap();
    let answer = w.insert(vec![other]).await.remove(0);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(w.get(&id).await, before);
}

/// The same id twice in one call is taken in once.
pub async fn twice_in_one_call_is_one_task(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let other = NewTask::new(KIND, &2).unwrap().id("a").unwrap();
    let answers = w.insert(vec![task_as("a"), task_as("a"), other]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Inserted::New(id("a")));
    assert_eq!(answers[1].as_ref().unwrap(), &Inserted::Existing(id("a"), State::Waiting));
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    let replica = w.replica().await;
    assert_eq!(w.claim_ids(&replica, 10).await, [id("a")]);
}

/// One bad item in a call spoils no other.
pub async fn each_item_has_its_own_answer(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add(task_as("there")).await;
    let huge = NewTask::with_payload(name(KIND), Payload::from_bytes(vec![0; PAYLOAD_BYTES_MAX + 1]));
    let conflict = NewTask::new(KIND, &2).unwrap().id("there").unwrap();
    let bad = task_as("bad").timeout(Duration::ZERO);
    let answers = w.insert(vec![task_as("a"), huge, conflict, bad, task_as("there"), task_as("b")]).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(|error| error.kind())).collect();
    let expected =
        [None, Some(ErrorKind::Full), Some(ErrorKind::Conflict), Some(ErrorKind::Invalid), None, None].to_vec();
    assert_eq!(kinds, expected);
    assert!(w.find(&id("a")).await.is_some() && w.find(&id("b")).await.is_some());
    assert_eq!(w.find(&id("bad")).await, None);
}

/// A call without items is allowed and does nothing.
pub async fn an_empty_call_does_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    assert!(w.insert(vec![]).await.is_empty());
    assert!(w.store.apply(vec![]).await.unwrap().is_empty());
    assert!(w.store.command(vec![]).await.unwrap().is_empty());
    assert!(w.store.get(&[]).await.unwrap().is_empty());
    assert!(w.store.post_reports(vec![]).await.unwrap().is_empty());
    assert!(w.store.counts().await.unwrap().iter().all(|queue| queue.by_state.iter().sum::<u64>() == 0));
}

/// The id of a deleted task stays known: a late repeat of its insertion makes no second task.
pub async fn a_deleted_task_is_remembered(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a").start(Start::Held)).await;
    w.command(&id, Command::Delete).await;
    let again = w.insert(vec![task_as("a")]).await.remove(0).unwrap();
    assert_eq!(again, Inserted::Removed(id.clone()));
    assert_eq!(w.find(&id).await, None);
}

/// A deleted id with another payload is still a conflict.
pub async fn a_deleted_task_with_another_payload_is_a_conflict(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a").start(Start::Held)).await;
    w.command(&id, Command::Delete).await;
    let other = NewTask::new(KIND, &2).unwrap().id("a").unwrap();
    assert_eq!(w.insert(vec![other]).await.remove(0).unwrap_err().kind(), ErrorKind::Conflict);
}

/// After a day a deleted id is free again, once housekeeping has run.
pub async fn a_tombstone_expires(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let id = w.add(task_as("a").start(Start::Held)).await;
    w.command(&id, Command::Delete).await;
    w.pass(TOMBSTONE_TTL - MINUTE).await;
    super::retention::sweep_garbage(&w).await;
    let early = w.insert(vec![task_as("a")]).await.remove(0).unwrap();
    assert_eq!(early, Inserted::Removed(id.clone()), "a minute early");
    w.pass(MINUTE * 2).await;
    super::retention::sweep_garbage(&w).await;
    let late = w.insert(vec![task_as("a")]).await.remove(0).unwrap();
    assert_eq!(late, Inserted::New(id.clone()), "a minute late");
    assert_eq!(w.state(&id).await, State::Waiting);
}

/// A payload of exactly the limit is kept byte for byte; one byte more is refused.
pub async fn the_payload_limit_is_exact(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let largest: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let id = w.add(NewTask::with_payload(name(KIND), bytes(&largest))).await;
    assert!(w.get(&id).await.spec.payload.as_bytes() == largest, "1 MiB comes back as it was");
    let larger = NewTask::with_payload(name(KIND), Payload::from_bytes(vec![0; PAYLOAD_BYTES_MAX + 1]));
    assert_eq!(w.insert(vec![larger]).await.remove(0).unwrap_err().kind(), ErrorKind::Full);
}

/// Payloads are opaque bytes: empty, NUL, broken UTF-8, quotes and exotic separators survive.
pub async fn hostile_payloads_survive(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let hostile: [&[u8]; 9] = [
        b"",
        b"\0",
        b"a\0b\0",
        b"\xff\xfe\xc3\x28",
        "🦀\u{2028}\u{2029}\u{feff}".as_bytes(),
        b"'; DROP TABLE tasks; --",
        b"\"\\\r\n%s{}$1:?",
        b"\xed\xa0\x80",
        &[0x80; 1_000],
    ];
    let payload_of = |raw: &&[u8]| NewTask::with_payload(name(KIND), bytes(raw));
    let ids = w.add_all(hostile.iter().map(payload_of).collect()).await;
    for (id, raw) in ids.iter().zip(hostile) {
        assert_eq!(w.get(id).await.spec.payload.as_bytes(), raw);
    }
    let replica = w.replica().await;
    let claimed = w.claim(&replica, 100).await.tasks;
    let payloads: Vec<&[u8]> = claimed.iter().map(|task| task.spec.payload.as_bytes()).collect();
    assert_eq!(payloads, hostile, "as they are handed to the executor");
}

/// Ids are opaque text: what looks like a statement, a pattern, a path or a UUID is only an id.
pub async fn hostile_ids_are_only_ids(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let longest = "x".repeat(TASK_ID_BYTES_MAX);
    let longest_in_wide_characters = "🦀".repeat(TASK_ID_BYTES_MAX / 4);
    let hostile = [
        "'; DROP TABLE tasks; --",
        "\"quoted\\\"",
        "%",
        "_",
        "../../etc/passwd",
        "a:b:{c}",
        " ",
        "a ",
        "A",
        "a",
        "é",
        "e\u{301}",
        "\u{2028}",
        "🦀",
        "0",
        "00",
        "null",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "01890a5dac96774bbcceb302099a8057",
        &longest,
        &longest_in_wide_characters,
    ];
    let ids = w.add_all(hostile.iter().map(|id| task_as(id)).collect()).await;
    assert_eq!(texts(&ids), hostile);
    for text in hostile {
        assert_eq!(w.get(&id(text)).await.id.to_string(), text);
    }
    let replica = w.replica().await;
    assert_eq!(texts(&w.claim_ids(&replica, 100).await), hostile);
    let running = w.get(&id("'; DROP TABLE tasks; --")).await;
    w.must(&running, RunEvent::Complete(inline())).await;
    let others = hostile.iter().skip(1).map(|text| id(text)).collect::<Vec<_>>();
    for task in w.store.get(&others).await.unwrap() {
        assert_eq!(task.unwrap().record.state, State::Running, "no other was touched");
    }
}

/// Queue, kind and label names are opaque text too.
pub async fn hostile_names_are_only_names(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let hostile = ["'; --", "%", "\u{2028}", "🦀", "a b", " ", "A", "a", &"n".repeat(NAME_BYTES_MAX)];
    for text in hostile {
        let new = NewTask::new(text, &1).unwrap().queue(text).and_then(|task| task.label(text, "\0'\u{2028}")).unwrap();
        let kept = w.get(&w.add(new).await).await;
        assert_eq!((kept.spec.queue.as_str(), kept.spec.kind.as_str()), (text, text));
        assert_eq!(kept.spec.label(text), Some("\0'\u{2028}"));
    }
    let counts = w.store.counts().await.unwrap();
    assert_eq!(counts.len(), hostile.len(), "no two names are the same queue");
}

/// Labels up to their limits are kept; beyond them the task is refused.
pub async fn label_limits_are_exact(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let many = |count: usize| {
        (0..count).fold(task(), |task, n| task.label(&format!("l{n}"), &"v".repeat(LABEL_VALUE_BYTES_MAX)).unwrap())
    };
    let kept = w.get(&w.add(many(LABELS_MAX)).await).await;
    assert_eq!(kept.spec.options.unwrap().labels.len(), LABELS_MAX);
    let long = task().label("l", &"v".repeat(LABEL_VALUE_BYTES_MAX + 1)).unwrap();
    for answer in w.insert(vec![many(LABELS_MAX + 1), long]).await {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// A task whose retry policy makes no sense is refused.
pub async fn a_bad_retry_policy_is_refused(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let answer = w.insert(vec![task().retry(RetryPolicy::attempts(0))]).await.remove(0);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A full batch is taken; one item more is refused as a whole and takes nothing.
pub async fn the_batch_limit_is_exact(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let error = w.store.insert(vec![task(); BATCH_MAX + 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(w.list(Default::default()).await.is_empty());
    assert_eq!(w.add_all(vec![task(); BATCH_MAX]).await.len(), BATCH_MAX);
    let ids = vec![id("x"); BATCH_MAX + 1];
    assert_eq!(w.store.get(&ids).await.unwrap_err().kind(), ErrorKind::Invalid);
    let commands = ids.iter().map(|id| (id.clone(), Command::Cancel)).collect();
    assert_eq!(w.store.command(commands).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Reading keeps the order asked for, repeats included, and says what is missing.
pub async fn get_answers_in_the_order_asked(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.add_all(vec![task_as("a"), task_as("b")]).await;
    let asked: Vec<TaskId> = ["b", "nothing", "a", "b"].map(id).to_vec();
    let found = w.store.get(&asked).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|task| task.map(|task| task.id.to_string())).collect();
    assert_eq!(found, [Some("b".to_owned()), None, Some("a".to_owned()), Some("b".to_owned())]);
}

/// A held task does not run before it is started, and then at once.
pub async fn a_held_task_waits_for_its_start(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let id = w.add(task().start(Start::Held)).await;
    assert_eq!(w.state(&id).await, State::Held);
    w.pass(MINUTE).await;
    assert_eq!(w.claim_ids(&replica, 1).await, []);
    w.command(&id, Command::Start).await;
    let started = w.get(&id).await;
    assert!(started.record.run_at >= started.spec.created_at + MINUTE, "it is due from its start on");
    assert_eq!(w.claim_ids(&replica, 1).await, [id]);
}

/// The store's time is what a task is stamped with, and it passes.
pub async fn creation_is_stamped_by_the_store(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let first = w.get(&w.add(task()).await).await.spec.created_at;
    w.pass(MINUTE).await;
    let second = w.get(&w.add(task()).await).await.spec.created_at;
    assert!(second >= first + MINUTE && second < first + MINUTE * 2, "{first} then {second}");
}
