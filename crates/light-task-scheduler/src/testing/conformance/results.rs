//! The conformance suites of [`ResultStore`] and [`LogStore`].
//!
//! Implement [`Subject`] for what opens your store, and let the macros make one test per case:
//!
//! ```ignore
//! struct Mine(tempfile::TempDir);
//!
//! #[async_trait]
//! impl Subject<dyn ResultStore> for Mine {
//!     fn durable(&self) -> bool {
//!         true
//!     }
//!     async fn open(&self) -> Arc<dyn ResultStore> {
//!         Arc::new(MyResults::open(self.0.path()).await.unwrap())
//!     }
//! }
//!
//! light_task_scheduler::result_store_conformance!(mine, Mine(tempfile::tempdir().unwrap()));
//! ```

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]
#![allow(clippy::panic, reason = "a suite fails by panicking")]

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::ErrorKind;
use crate::results::{LOG_BYTES_MAX, LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, Stream};
use crate::task::{OUTPUT_BYTES_MAX, Payload, ResultRef, TASK_ID_BYTES_MAX, TaskId};

/// What a suite runs against: opens the store, and opens it again.
#[async_trait]
pub trait Subject<S: ?Sized + Send + Sync>: Send + Sync {
    /// Whether what was kept is still there when the store is opened again.
    fn durable(&self) -> bool;

    /// Opens the store on this subject's place; every call on the same place.
    async fn open(&self) -> Arc<S>;
}

/// Anything that opens a [`ResultStore`].
pub type ResultSubject<'a> = &'a dyn Subject<dyn ResultStore>;
/// Anything that opens a [`LogStore`].
pub type LogSubject<'a> = &'a dyn Subject<dyn LogStore>;

/// One `#[tokio::test]` per case of the result suite, in a module of this name; the expression makes a
/// fresh [`Subject`] for each.
#[macro_export]
macro_rules! result_store_conformance {
    ($name:ident, $subject:expr) => {
        $crate::conformance_cases!(
            $name,
            $subject,
            [
                a_result_comes_back_byte_by_byte,
                an_empty_result_is_a_result,
                the_largest_output_comes_back,
                saving_again_changes_nothing,
                executions_do_not_share_a_result,
                tasks_do_not_share_a_result,
                another_result_of_an_execution_replaces_none,
                a_result_that_was_never_saved_is_not_found,
                bytes_that_are_not_those_saved_are_an_error,
                deleting_twice_is_harmless,
                deleting_one_leaves_the_others,
                a_foreign_key_reaches_nothing,
                results_of_hostile_ids_stay_apart,
                concurrent_saves_of_one_result_agree,
                results_survive_reopening,
            ]
        );
    };
}

/// One `#[tokio::test]` per case of the log suite, in a module of this name; the expression makes a
/// fresh [`Subject`] for each.
#[macro_export]
macro_rules! log_store_conformance {
    ($name:ident, $subject:expr) => {
        $crate::conformance_cases!(
            $name,
            $subject,
            [
                a_log_comes_back_in_any_parts,
                writing_again_at_an_offset_changes_nothing,
                a_gap_is_refused,
                a_log_ends_at_its_limit,
                reading_past_the_end_gives_nothing,
                a_log_that_is_not_there_is_empty,
                one_read_gives_at_most_a_chunk,
                a_chunk_too_large_is_refused,
                streams_and_executions_are_apart,
                deleting_a_tasks_logs_leaves_those_of_others,
                logs_of_hostile_ids_stay_apart,
                logs_survive_reopening,
            ]
        );
    };
}

/// The part that both macros share.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($name:ident, $subject:expr, [$($case:ident),* $(,)?]) => {
        mod $name {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;

            $(
                #[tokio::test]
                async fn $case() {
                    let subject = $subject;
                    $crate::testing::conformance::results::$case(&subject).await;
                }
            )*
        }
    };
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

fn bytes(text: &str) -> Payload {
    Payload::from_bytes(text.as_bytes())
}

fn key(result: &ResultRef) -> &str {
    match result {
        ResultRef::Stored { key, .. } => key,
        ResultRef::Inline(_) => panic!("a result store answers with a key"),
    }
}

/// Ids that try to leave their place, to hide, to be too long, or to be taken for one another.
fn hostile_ids() -> Vec<TaskId> {
    let long = "x".repeat(TASK_ID_BYTES_MAX - 1);
    let wide = "数".repeat(TASK_ID_BYTES_MAX / "数".len() - 1);
    let texts = [
        "..",
        ".",
        "../../escape",
        "/etc/passwd",
        "a/b",
        "a/b/1",
        "a%2fb",
        "a",
        "A",
        "a ",
        " a",
        "a.1",
        "a~",
        "~",
        "-rf",
        "é",
        "e\u{301}",
        "ａ",
        "'; DROP TABLE lts_results; --",
        "C:\\nul",
        "nul",
        "%",
        "*",
        "a\u{202e}b",
        "a\u{200b}",
    ];
    let mut ids: Vec<TaskId> = texts.into_iter().map(id).collect();
    // The same up to their last byte: a name that is merely cut would mix them up.
    ids.extend([format!("{long}1"), format!("{long}2"), format!("{wide}1"), format!("{wide}2")].iter().map(|t| id(t)));
    ids
}

/// What was saved is what is loaded, also when it is no text.
pub async fn a_result_comes_back_byte_by_byte(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let all = Payload::from_bytes((0..=u8::MAX).collect::<Vec<u8>>());
    let saved = store.save(&id("a"), 1, &all).await.unwrap();
    assert_eq!(store.load(&saved).await.unwrap(), all);
    let ResultRef::Stored { len, .. } = saved else { panic!("{saved:?}") };
    assert_eq!(len, 256);
}

/// No bytes are not no result.
pub async fn an_empty_result_is_a_result(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let saved = store.save(&id("a"), 1, &bytes("")).await.unwrap();
    assert_eq!(store.load(&saved).await.unwrap(), bytes(""));
}

/// As much as a task's row may hold.
pub async fn the_largest_output_comes_back(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let large: Vec<u8> = (0..OUTPUT_BYTES_MAX).map(|place| (place % 251) as u8).collect();
    let large = Payload::from_bytes(large);
    let saved = store.save(&id("a"), 1, &large).await.unwrap();
    assert!(store.load(&saved).await.unwrap() == large, "the bytes differ");
}

/// The reply to a save may be lost: the same save gives the same reference.
pub async fn saving_again_changes_nothing(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let first = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    let again = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(store.load(&first).await.unwrap(), bytes("one"));
}

/// A stale run's save harms nothing.
pub async fn executions_do_not_share_a_result(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let first = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    let second = store.save(&id("a"), 2, &bytes("two")).await.unwrap();
    let last = store.save(&id("a"), u64::MAX, &bytes("last")).await.unwrap();
    assert_ne!(key(&first), key(&second));
    assert_eq!(store.load(&first).await.unwrap(), bytes("one"));
    assert_eq!(store.load(&second).await.unwrap(), bytes("two"));
    assert_eq!(store.load(&last).await.unwrap(), bytes("last"));
}

/// Equal results of two tasks are two results: deleting one leaves the other.
pub async fn tasks_do_not_share_a_result(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let one = store.save(&id("a"), 1, &bytes("same")).await.unwrap();
    let other = store.save(&id("b"), 1, &bytes("same")).await.unwrap();
    assert_ne!(key(&one), key(&other));
    store.delete(key(&one)).await.unwrap();
    assert_eq!(store.load(&other).await.unwrap(), bytes("same"));
}

/// A late save of other bytes is refused or kept apart: the result that a task refers to stays readable.
pub async fn another_result_of_an_execution_replaces_none(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let first = store.save(&id("a"), 1, &bytes("first")).await.unwrap();
    if let Ok(late) = store.save(&id("a"), 1, &bytes("late")).await {
        assert_eq!(store.load(&late).await.unwrap(), bytes("late"));
    }
    assert_eq!(store.load(&first).await.unwrap(), bytes("first"));
}

/// A key of the right form that was never saved.
pub async fn a_result_that_was_never_saved_is_not_found(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let saved = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    store.delete(key(&saved)).await.unwrap();
    assert_eq!(store.load(&saved).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Length and hash of the reference are checked, and a mismatch is never passed off as the result.
pub async fn bytes_that_are_not_those_saved_are_an_error(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let ResultRef::Stored { key, len, hash } = store.save(&id("a"), 1, &bytes("one")).await.unwrap() else {
        panic!("a result store answers with a key")
    };
    let other_len = ResultRef::Stored { key: key.clone(), len: len + 1, hash: hash.clone() };
    let other_hash = ResultRef::Stored { key, len, hash: hash.chars().rev().collect() };
    for wrong in [other_len, other_hash] {
        assert_eq!(store.load(&wrong).await.unwrap_err().kind(), ErrorKind::Internal, "{wrong:?}");
    }
}

/// A confirmed deletion may be lost, and is repeated.
pub async fn deleting_twice_is_harmless(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let saved = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    store.delete(key(&saved)).await.unwrap();
    store.delete(key(&saved)).await.unwrap();
    let again = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    assert_eq!(store.load(&again).await.unwrap(), bytes("one"));
}

/// Only what is named goes.
pub async fn deleting_one_leaves_the_others(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let first = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    let second = store.save(&id("a"), 11, &bytes("two")).await.unwrap();
    store.delete(key(&first)).await.unwrap();
    assert_eq!(store.load(&second).await.unwrap(), bytes("two"));
}

/// Keys of another store, or made up, are not there: they are neither read nor hold up the deletion of others.
pub async fn a_foreign_key_reaches_nothing(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let saved = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    let long = "k".repeat(10_000);
    for foreign in ["", ".", "..", "../x", "/etc/passwd", "a%b_", "%", "\0", &long] {
        let ResultRef::Stored { len, hash, .. } = saved.clone() else { panic!("{saved:?}") };
        let wrong = ResultRef::Stored { key: foreign.to_owned(), len, hash };
        assert_eq!(store.load(&wrong).await.unwrap_err().kind(), ErrorKind::NotFound, "{foreign:?}");
        store.delete(foreign).await.unwrap();
    }
    assert_eq!(store.load(&saved).await.unwrap(), bytes("one"));
}

/// Every id keeps its own result.
pub async fn results_of_hostile_ids_stay_apart(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let mut saved = Vec::new();
    for id in hostile_ids() {
        saved.push(store.save(&id, 1, &bytes(&id.to_string())).await.unwrap());
    }
    for (id, saved) in hostile_ids().iter().zip(&saved) {
        assert_eq!(store.load(saved).await.unwrap(), bytes(&id.to_string()), "{id}");
    }
    // Deleting every second one leaves the rest.
    for saved in saved.iter().step_by(2) {
        store.delete(key(saved)).await.unwrap();
    }
    for (place, (id, saved)) in hostile_ids().iter().zip(&saved).enumerate() {
        assert_eq!(store.load(saved).await.is_ok(), place % 2 == 1, "{id}");
    }
}

/// An owner and its adopter may export the same output at the same time.
pub async fn concurrent_saves_of_one_result_agree(subject: ResultSubject<'_>) {
    const SAVERS: usize = 16;
    const LEN: usize = 256 << 10;
    let store = subject.open().await;
    let large = Payload::from_bytes(vec![7; LEN]);
    let mut savers = tokio::task::JoinSet::new();
    for _ in 0..SAVERS {
        let (store, large) = (store.clone(), large.clone());
        savers.spawn(async move {
            let saved = store.save(&id("a"), 1, &large).await.unwrap();
            assert!(store.load(&saved).await.unwrap() == large, "what is saved is whole at once");
            saved
        });
    }
    let references = savers.join_all().await;
    assert!(references.iter().all(|reference| *reference == references[0]), "{references:?}");
}

/// What was saved before a restart is there after it, where the store is durable.
pub async fn results_survive_reopening(subject: ResultSubject<'_>) {
    let store = subject.open().await;
    let saved = store.save(&id("a"), 1, &bytes("one")).await.unwrap();
    drop(store);
    if subject.durable() {
        let store = subject.open().await;
        assert_eq!(store.load(&saved).await.unwrap(), bytes("one"));
        assert_eq!(store.save(&id("a"), 1, &bytes("one")).await.unwrap(), saved);
    }
}

fn log(task: &str) -> LogKey {
    LogKey { id: id(task), execution: 1, stream: Stream::Stdout }
}

async fn whole(store: &dyn LogStore, log: &LogKey) -> Vec<u8> {
    store.read(log, 0, LOG_CHUNK_BYTES_MAX).await.unwrap()
}

/// However it was written, it is read from any offset in any length.
pub async fn a_log_comes_back_in_any_parts(subject: LogSubject<'_>) {
    let store = subject.open().await;
    let text = b"one\ntwo\n\xff\0three";
    let mut len = 0;
    for part in [&text[..3], &text[3..4], &text[4..4], &text[4..]] {
        len = store.append(&log("a"), len, part).await.unwrap();
    }
    assert_eq!(len, text.len() as u64);
    assert_eq!(store.len(&log("a")).await.unwrap(), len);
    for from in 0..=text.len() {
        for to in from..=text.len() {
            let read = store.read(&log("a"), from as u64, to - from).await.unwrap();
            assert_eq!(read, &text[from..to], "{from}..{to}");
        }
    }
}

/// A writer that starts again after a crash repeats what it is not sure of.
pub async fn writing_again_at_an_offset_changes_nothing(subject: LogSubject<'_>) {
    let store = subject.open().await;
    assert_eq!(store.append(&log("a"), 0, b"hello ").await.unwrap(), 6);
    assert_eq!(store.append(&log("a"), 0, b"hello ").await.unwrap(), 6, "all of it was there");
    assert_eq!(store.append(&log("a"), 3, b"lo world").await.unwrap(), 11, "half of it was there");
    assert_eq!(store.append(&log("a"), 2, b"l").await.unwrap(), 11, "it was inside");
    assert_eq!(whole(&*store, &log("a")).await, b"hello world");
}

/// A hole would be read as something that the run wrote.
pub async fn a_gap_is_refused(subject: LogSubject<'_>) {
    let store = subject.open().await;
    assert!(!store.append(&log("a"), 1, b"x").await.unwrap_err().is_retryable());
    store.append(&log("a"), 0, b"abc").await.unwrap();
    assert!(!store.append(&log("a"), 4, b"x").await.unwrap_err().is_retryable());
    assert_eq!(whole(&*store, &log("a")).await, b"abc");
}

/// A run that never stops writing fills neither disk nor memory.
pub async fn a_log_ends_at_its_limit(subject: LogSubject<'_>) {
    let store = subject.open().await;
    // Chunks that do not divide the limit, so that the last one is cut.
    let chunk = vec![b'x'; LOG_CHUNK_BYTES_MAX - 1];
    let mut len = 0;
    while len < LOG_BYTES_MAX {
        let longer = store.append(&log("a"), len, &chunk).await.unwrap();
        assert!(longer > len, "stuck at {len}");
        len = longer;
    }
    assert_eq!(len, LOG_BYTES_MAX);
    assert_eq!(store.append(&log("a"), len, b"more").await.unwrap(), LOG_BYTES_MAX);
    assert_eq!(store.len(&log("a")).await.unwrap(), LOG_BYTES_MAX);
    assert_eq!(store.read(&log("a"), LOG_BYTES_MAX - 2, 10).await.unwrap(), b"xx");
}

/// A reader that follows a log asks at its end again and again.
pub async fn reading_past_the_end_gives_nothing(subject: LogSubject<'_>) {
    let store = subject.open().await;
    store.append(&log("a"), 0, b"abc").await.unwrap();
    for offset in [3, 4, LOG_BYTES_MAX, u64::from(u32::MAX), i64::MAX as u64] {
        assert_eq!(store.read(&log("a"), offset, 10).await.unwrap(), b"", "{offset}");
    }
    assert_eq!(store.read(&log("a"), 1, 0).await.unwrap(), b"");
}

/// Most tasks write nothing.
pub async fn a_log_that_is_not_there_is_empty(subject: LogSubject<'_>) {
    let store = subject.open().await;
    assert_eq!(store.len(&log("a")).await.unwrap(), 0);
    assert_eq!(whole(&*store, &log("a")).await, b"");
    store.delete(&id("a")).await.unwrap();
}

/// Whatever length is asked for.
pub async fn one_read_gives_at_most_a_chunk(subject: LogSubject<'_>) {
    let store = subject.open().await;
    let chunk = vec![b'x'; LOG_CHUNK_BYTES_MAX];
    let len = store.append(&log("a"), 0, &chunk).await.unwrap();
    store.append(&log("a"), len, b"more").await.unwrap();
    assert_eq!(store.read(&log("a"), 0, usize::MAX).await.unwrap().len(), LOG_CHUNK_BYTES_MAX);
    assert_eq!(store.read(&log("a"), 1, usize::MAX).await.unwrap().len(), LOG_CHUNK_BYTES_MAX);
}

/// Everything has a limit, and this one is refused, not cut: the writer would lose bytes without knowing.
pub async fn a_chunk_too_large_is_refused(subject: LogSubject<'_>) {
    let store = subject.open().await;
    let large = vec![b'x'; LOG_CHUNK_BYTES_MAX + 1];
    assert_eq!(store.append(&log("a"), 0, &large).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.len(&log("a")).await.unwrap(), 0);
}

/// Two streams, and two starts of one task, are four logs.
pub async fn streams_and_executions_are_apart(subject: LogSubject<'_>) {
    let store = subject.open().await;
    let logs: Vec<LogKey> = [1, 11, u64::MAX]
        .into_iter()
        .flat_map(|execution| Stream::ALL.map(|stream| LogKey { id: id("a"), execution, stream }))
        .collect();
    for log in &logs {
        store.append(log, 0, format!("{log:?}").as_bytes()).await.unwrap();
    }
    for log in &logs {
        assert_eq!(whole(&*store, log).await, format!("{log:?}").as_bytes());
    }
}

/// Both streams of all its executions, and nothing else.
pub async fn deleting_a_tasks_logs_leaves_those_of_others(subject: LogSubject<'_>) {
    let store = subject.open().await;
    for task in ["a", "ab", "b"] {
        for stream in Stream::ALL {
            for execution in 1..=2 {
                let log = LogKey { id: id(task), execution, stream };
                store.append(&log, 0, task.as_bytes()).await.unwrap();
            }
        }
    }
    store.delete(&id("a")).await.unwrap();
    store.delete(&id("a")).await.unwrap();
    for stream in Stream::ALL {
        for execution in 1..=2 {
            let of = |task| LogKey { id: id(task), execution, stream };
            assert_eq!(store.len(&of("a")).await.unwrap(), 0);
            assert_eq!(whole(&*store, &of("ab")).await, b"ab");
            assert_eq!(whole(&*store, &of("b")).await, b"b");
        }
    }
    assert_eq!(store.append(&log("a"), 0, b"new").await.unwrap(), 3, "a deleted log begins anew");
}

/// Every id keeps its own log.
pub async fn logs_of_hostile_ids_stay_apart(subject: LogSubject<'_>) {
    let store = subject.open().await;
    let logs: Vec<LogKey> =
        hostile_ids().into_iter().map(|id| LogKey { id, execution: 1, stream: Stream::Stderr }).collect();
    for log in &logs {
        store.append(log, 0, log.id.to_string().as_bytes()).await.unwrap();
    }
    for log in &logs {
        assert_eq!(whole(&*store, log).await, log.id.to_string().as_bytes(), "{log:?}");
    }
    for log in logs.iter().step_by(2) {
        store.delete(&log.id).await.unwrap();
    }
    for (place, log) in logs.iter().enumerate() {
        assert_eq!(store.len(log).await.unwrap() > 0, place % 2 == 1, "{log:?}");
    }
}

/// What was written before a restart is there after it, and is written on, where the store is durable.
pub async fn logs_survive_reopening(subject: LogSubject<'_>) {
    let store = subject.open().await;
    store.append(&log("a"), 0, b"before ").await.unwrap();
    drop(store);
    if subject.durable() {
        let store = subject.open().await;
        assert_eq!(store.append(&log("a"), 4, b"re after").await.unwrap(), 12);
        assert_eq!(whole(&*store, &log("a")).await, b"before after");
    }
}
