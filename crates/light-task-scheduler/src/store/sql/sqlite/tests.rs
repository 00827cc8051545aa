//! What only this store has: files, plans, locks and several processes' handles on one file.

use std::collections::HashSet;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::state::RunEvent;
use crate::store::Suspect;
use crate::task::{Failure, FailureKind, Handle, Payload, Record, ResultRef, Start, State, Token};

const TTL: Duration = Duration::from_secs(15);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn new_task(id: &str) -> NewTask {
    NewTask::new("k", id).unwrap().id(id).unwrap()
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

async fn register(store: &SqliteStore) -> ReplicaId {
    let id = ReplicaId::generate(&SystemClock);
    store.register(NewReplica { id, name: "test".to_owned(), ttl: TTL, remote: false }).await.unwrap();
    id
}

async fn claim(store: &SqliteStore, replica: ReplicaId, number: u64, limit: usize) -> Claim {
    let kinds = vec![name("k")];
    store.claim(ClaimRequest { replica, number, kinds, queues: Vec::new(), limit, among: None }).await.unwrap()
}

fn change(task: &Task, event: RunEvent) -> Change {
    Change { id: task.id.clone(), token: task.record.token().unwrap(), event }
}

fn inline(text: &str) -> RunEvent {
    RunEvent::Complete(ResultRef::Inline(Payload::from_bytes(text.as_bytes())))
}

/// The tallies as kept must be those of a recount.
fn recount(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let rows = |sql: &str| -> Vec<(i64, i64, i64)> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let kept = rows("SELECT stage, lane, n FROM tallies ORDER BY 1, 2");
    let counted = rows("SELECT stage, lane, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 1, 2");
    assert_eq!(kept, counted);
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn a_task_goes_its_way_and_survives_a_restart() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).unwrap();
    let big = "x".repeat(5_000);
    let tasks = vec![new_task("a").priority(3), new_task("b"), NewTask::new("k", &big).unwrap().id("c").unwrap()];
    let inserted = store.insert(tasks.clone()).await.unwrap();
    assert!(inserted.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))), "{inserted:?}");
    let again = store.insert(tasks).await.unwrap();
    assert!(again.iter().all(|answer| matches!(answer, Ok(Inserted::Existing(_, State::Waiting)))), "{again:?}");
    let replica = register(&store).await;
    let claimed = claim(&store, replica, 1, 10).await.tasks;
    assert_eq!(claimed.iter().map(|task| task.id.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(claim(&store, replica, 1, 10).await.tasks, claimed);
    assert_eq!(claimed[2].spec.payload.parse::<String>().unwrap(), big);
    let answers = store
        .apply(vec![
            change(&claimed[0], inline("1")),
            change(&claimed[1], RunEvent::Outcome(Some(Payload::from_bytes(big.as_bytes())))),
            change(&claimed[2], RunEvent::Started(Some(Handle::new("h").unwrap()))),
        ])
        .await
        .unwrap();
    assert_eq!(answers, [State::Succeeded, State::Exporting, State::Running].map(|state| Answer::Applied(Some(state))));
    drop(store);
    recount(&path);

    let store = SqliteStore::open(&path).unwrap();
    let found = store.get(&[id("a"), id("b"), id("c"), id("d")]).await.unwrap();
    let records: Vec<&Record> = found.iter().flatten().map(|task| &task.record).collect();
    assert_eq!(records[0].result(), Some(&ResultRef::Inline(Payload::from_bytes(*b"1"))));
    assert_eq!(records[1].output().unwrap().len(), 5_000);
    assert_eq!(records[2].handle().unwrap().as_str(), "h");
    assert!(found[3].is_none());
    let completed = store.apply(vec![change(&claimed[1], inline(&big)), change(&claimed[0], inline("1"))]).await;
    assert_eq!(completed.unwrap(), [Answer::Applied(Some(State::Succeeded)), Answer::Already(State::Succeeded)]);
    let removed = store.command(vec![(id("b"), Command::Delete)]).await.unwrap();
    assert_eq!(removed, [Answer::Applied(None)]);
    let again = store.insert(vec![new_task("b")]).await.unwrap().remove(0).unwrap();
    assert_eq!(again, Inserted::Removed(id("b")));
    let spilled =
        Connection::open(&path).unwrap().query_row("SELECT count(*) FROM blobs", [], |row| row.get::<_, i64>(0));
    assert_eq!(spilled.unwrap(), 1, "only the payload of c is left");
    drop(store);
    recount(&path);
}

fn kind_of(opened: Result<SqliteStore>) -> ErrorKind {
    let e = opened.unwrap_err();
    assert!(!e.to_string().ends_with('.'), "{e}");
    e.kind()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_with_their_reason() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    std::fs::write(&path, "a text that is long enough to be read as the header of a database, and is none at all")
        .unwrap();
    assert_eq!(kind_of(SqliteStore::open(&path)), ErrorKind::Incompatible);
    assert_eq!(kind_of(SqliteStore::open(path.join("below a file.db"))), ErrorKind::Invalid);
    assert_eq!(kind_of(SqliteStore::open(directory.path())), ErrorKind::Invalid);
    assert_eq!(kind_of(SqliteStore::open(":memory:")), ErrorKind::Invalid);

    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert_eq!(kind_of(SqliteStore::open(&foreign)), ErrorKind::Incompatible);
    let mode: String =
        Connection::open(&foreign).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete", "a file of another program is left as it was");
}

#[tokio::test]
async fn a_broken_file_fails_the_calls_and_not_the_store() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).unwrap();
    store.insert((0..500).map(|n| new_task(&format!("task {n}"))).collect()).await.unwrap();
    drop(store);
    // Everything but the first page, which holds the header and the schema.
    const PAGE: usize = 4_096;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[PAGE..].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let e = match SqliteStore::open(&path) {
        Ok(store) => store.insert(vec![new_task("one more")]).await.unwrap_err(),
        Err(e) => e,
    };
    assert_eq!(e.kind(), ErrorKind::Internal);
    assert!(e.to_string().contains("malformed"), "{e}");
}

#[tokio::test]
async fn a_full_disk_stores_nothing_by_halves() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).unwrap();
    store.insert(vec![new_task("before")]).await.unwrap();
    let limit = |pages: i64| {
        move |tx: &mut Tx<'_>| {
            let set: i64 =
                tx.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0))?;
            Ok(set)
        }
    };
    store.write(1, limit(100)).await.unwrap();
    let large =
        |n: usize| NewTask::with_payload(name("k"), Payload::from_bytes(vec![7; 100_000])).id(&format!("{n}")).unwrap();
    let e = store.insert((0..50).map(large).collect()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
    let listed = store.list(&TaskQuery::default()).await.unwrap().tasks;
    assert_eq!(listed.len(), 1, "nothing of the failed call is there");
    store.insert(vec![new_task("small")]).await.unwrap();
    store.write(1, limit(1 << 20)).await.unwrap();
    store.insert((0..50).map(large).collect()).await.unwrap();
    drop(store);
    recount(&path);
}

#[tokio::test]
async fn a_call_that_fails_leaves_the_others_of_its_group_alone() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("tasks.db")).unwrap();
    // The first call holds the writer until the others have queued up behind it, so that they become one group.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let first = store.write(1, move |_| {
        let _ = wait.recv();
        Ok(())
    });
    let bad = store.write(1, |tx| {
        tx.connection.execute("INSERT INTO garbage VALUES ('half')", [])?;
        Err::<(), _>(Error::unavailable("no"))
    });
    let good = store.insert(vec![new_task("a")]);
    let release = async {
        tokio::task::yield_now().await;
        drop(go);
    };
    let (first, bad, good, ()) = tokio::join!(biased; first, bad, good, release);
    first.unwrap();
    assert_eq!(bad.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(matches!(good.unwrap()[0], Ok(Inserted::New(_))));
    let garbage = store.sweep(SweepRequest { limit: 9, ..SweepRequest::default() }).await.unwrap().garbage;
    assert!(garbage.is_empty(), "{garbage:?}");
}

/// The steps of a plan, one a line.
fn plan(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = std::iter::repeat_n(1, statement.parameter_count());
    let steps = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    steps.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn hot_statements_use_their_indexes_and_never_sort() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    drop(SqliteStore::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    for (sql, index) in [
        (claim::HEADS, "COVERING INDEX tasks_ready (lane=?)"),
        (claim::HEAD, "INDEX tasks_id (id=?)"),
        (claim::PROMOTE, "COVERING INDEX tasks_scheduled (lane=? AND run_at<?)"),
        (claim::NEXT_SCHEDULED, "COVERING INDEX tasks_scheduled (lane=?)"),
        (claim::NEXT_DEADLINE, "INDEX tasks_deadline"),
        (claim::OVERDUE, "INDEX tasks_deadline (deadline>? AND deadline<?)"),
        (replicas::OWNED, "INDEX tasks_active (owner=?)"),
        (replicas::NEXT_OWNER, "INDEX tasks_active (owner>?)"),
        (replicas::HELD_BY, "INDEX tasks_active (owner=?)"),
        (rows::RECORD_BY_ID, "INDEX tasks_id (id=?)"),
        (rows::TASK_AT_PLACE, "INTEGER PRIMARY KEY (rowid=?)"),
        (rows::RECORDS, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (rows::TASKS, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (rows::SAVE, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (claim::CLAIMED, "INDEX tasks_active (owner=?)"),
    ] {
        let plan = plan(&connection, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    // A window's reading sorts what has become due since the last claim and what it answers, never all that is ready.
    let first = plan(&connection, window::FIRST);
    for step in ["USING INDEX tasks_ready (lane=?)\nSCAN", "USING INDEX tasks_scheduled (lane=? AND run_at<?)"] {
        assert!(first.contains(step), "{first}");
    }
    // No temporary table either: it would cost more than the write itself.
    let mut statement = connection.prepare(&format!("EXPLAIN {}", rows::SAVE)).unwrap();
    let values = std::iter::repeat_n(1, statement.parameter_count());
    let steps = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(1)).unwrap();
    assert!(steps.map(Result::unwrap).all(|step| step != "OpenEphemeral"));
}

#[tokio::test]
async fn no_statement_of_a_claim_is_planned_again() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("tasks.db")).unwrap();
    let replica = register(&store).await;
    store.insert((0..9).map(|n| new_task(&n.to_string())).collect()).await.unwrap();
    for number in 1..4 {
        assert_eq!(claim(&store, replica, number, number as usize).await.tasks.len(), number as usize);
    }
    for sql in [claim::HEADS, claim::OVERDUE, rows::TASKS, rows::SAVE] {
        let planned = store.write(1, move |tx| {
            Ok(tx.connection.prepare_cached(sql)?.get_status(rusqlite::StatementStatus::RePrepare))
        });
        assert_eq!(planned.await.unwrap(), 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn two_handles_and_eight_threads_never_see_a_busy_file() {
    const EACH: usize = 40;
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let options = SqliteOptions { durability: Durability::Relaxed, ..SqliteOptions::default() };
    let handles = [0, 1].map(|_| SqliteStore::open_with(&path, options.clone()).unwrap());
    let work = (0..8).map(|worker| {
        let store = handles[worker % 2].clone();
        tokio::spawn(async move {
            let replica = register(&store).await;
            let mut done = Vec::new();
            for round in 0..EACH {
                let tasks = (0..5).map(|n| new_task(&format!("{worker}/{round}/{n}"))).collect();
                store.insert(tasks).await.unwrap();
                let claimed = claim(&store, replica, round as u64 + 1, 5).await.tasks;
                let changes = claimed.iter().map(|task| change(task, inline("1"))).collect();
                let answers = store.apply(changes).await.unwrap();
                assert!(answers.iter().all(|answer| *answer == Answer::Applied(Some(State::Succeeded))));
                done.extend(claimed.into_iter().map(|task| task.id));
            }
            done
        })
    });
    let mut done = Vec::new();
    for worker in work.collect::<Vec<_>>() {
        done.extend(worker.await.unwrap());
    }
    assert_eq!(done.len(), 8 * EACH * 5);
    assert_eq!(done.iter().collect::<HashSet<_>>().len(), done.len(), "each was claimed once");
    drop(handles);
    recount(&path);
}

#[tokio::test]
async fn a_replica_whose_lock_is_free_is_proven_dead_and_rescued_at_once() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let (first, second) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let (dying, living) = (register(&first).await, register(&second).await);
    first.insert(vec![new_task("a")]).await.unwrap();
    claim(&first, dying, 1, 1).await;
    let status = |replicas: Vec<ReplicaStatus>, id| replicas.into_iter().find(|replica| replica.id == id).unwrap();
    assert!(!status(second.replicas().await.unwrap(), dying).proven_dead);
    let kinds = vec![name("k")];
    let request = RescueRequest {
        replica: living,
        suspects: vec![Suspect { id: dying, beat: 0 }],
        kinds,
        queues: vec![],
        limit: 9,
    };
    assert_eq!(second.rescue(request.clone()).await.unwrap().dead, [], "it lives");

    // The lock goes with the handle, as it would with the process; the row says that it lives.
    drop(first);
    let seen = status(second.replicas().await.unwrap(), dying);
    assert!(seen.proven_dead && !seen.expired && !seen.dead && seen.owned == 1, "{seen:?}");
    assert!(!status(second.replicas().await.unwrap(), living).proven_dead);
    let rescued = second.rescue(request).await.unwrap();
    assert_eq!((rescued.dead, rescued.tasks.len()), (vec![dying], 1));
    assert_eq!(rescued.tasks[0].record.token(), Some(Token { owner: living, run: 2 }));

    let locks = || std::fs::read_dir(open::lock_directory(&path)).unwrap().count();
    assert_eq!(locks(), 3, "one for opening, two of replicas");
    second.sweep(SweepRequest::default()).await.unwrap();
    second.leave(living).await.unwrap();
    assert_eq!(locks(), 1);
}

#[tokio::test]
async fn a_lock_file_that_is_missing_or_another_proves_nothing() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let (first, second) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let replica = register(&first).await;
    let lock = open::lock_directory(&path).join(format!("{replica}.lock"));
    std::fs::rename(&lock, lock.with_extension("kept")).unwrap();
    assert!(!second.replicas().await.unwrap()[0].proven_dead, "missing");
    std::fs::write(&lock, "").unwrap();
    assert!(!second.replicas().await.unwrap()[0].proven_dead, "another file of that name");
}

#[tokio::test]
async fn changes_of_another_handle_are_seen_and_told_apart() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let (mine, theirs) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let replica = register(&theirs).await;
    let before = mine.changed(Changes { work: u64::MAX, ..Changes::default() }).await;
    theirs.insert(vec![new_task("a")]).await.unwrap();
    let inserted = mine.changed(before).await;
    assert_eq!(inserted, Changes { work: before.work + 1, ..before });
    let task = claim(&theirs, replica, 1, 1).await.tasks.remove(0);
    theirs.heartbeat(Heartbeat { replica, holdings: None }).await.unwrap();
    theirs.apply(vec![change(&task, inline("1"))]).await.unwrap();
    let ended = mine.changed(inserted).await;
    assert_eq!(ended, Changes { ends: inserted.ends + 1, ..inserted }, "a claim and a heartbeat are no news");
}

#[derive(Debug)]
struct SetClock(std::sync::atomic::AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}

#[tokio::test]
async fn time_does_not_go_back_over_a_restart() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let clock = Arc::new(SetClock(5_000_000.into()));
    let options = SqliteOptions { clock: clock.clone(), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(&path, options.clone()).unwrap();
    store.insert(vec![new_task("a")]).await.unwrap();
    drop(store);
    clock.0.store(1_000_000, std::sync::atomic::Ordering::SeqCst);
    let store = SqliteStore::open_with(&path, options).unwrap();
    let replica = register(&store).await;
    let claimed = claim(&store, replica, 1, 1).await;
    assert_eq!(claimed.now, Timestamp::from_micros(5_000_000));
    assert_eq!(claimed.tasks.len(), 1, "what was due stays due");
}

/// Version 1 as it was released must stay readable for ever, with rows in every state.
#[tokio::test]
async fn rows_of_schema_version_1_are_read_in_every_state() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("../migrations/sqlite/0001_tasks.sql")).unwrap();
    connection.execute_batch(include_str!("version_1_rows.sql")).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).unwrap();
    let tasks = store.list(&TaskQuery::default()).await.unwrap().tasks;
    let found: Vec<(String, State)> = tasks.iter().map(|task| (task.id.to_string(), task.record.state)).collect();
    let states = [State::Waiting].into_iter().chain(State::ALL.into_iter().rev());
    let expected: Vec<(String, State)> = [
        "retrying",
        "cancelled",
        "failed",
        "succeeded",
        "exporting",
        "running",
        "018bcfe5-6800-7000-8000-050000000002",
        "held",
    ]
    .map(str::to_owned)
    .into_iter()
    .zip(states)
    .collect();
    assert_eq!(found, expected);
    assert_eq!(tasks[0].record.attempts().len(), 1);
    assert_eq!(tasks[0].spec.label("team"), Some("red"));
    assert_eq!(tasks[2].record.failure().unwrap().kind, FailureKind::Error);
    assert!(matches!(tasks[3].record.result(), Some(ResultRef::Stored { len: 3, .. })));
    assert_eq!(tasks[4].record.output().unwrap().as_bytes(), b"out");
    assert_eq!(tasks[5].record.handle().unwrap().as_str(), "h");
    let counts = store.counts().await.unwrap();
    assert_eq!((counts[0].by_state, counts[0].scheduled), ([1, 2, 1, 1, 1, 1, 1], 0), "the retry is due by now");
    let replica = register(&store).await;
    let former: ReplicaId = "018bcfe5-6800-7000-8000-000000000001".parse().unwrap();
    let seen = |all: Vec<ReplicaStatus>| all.into_iter().find(|status| status.id == former).unwrap().draining;
    assert!(!seen(store.replicas().await.unwrap()), "nobody has wished it");
    store.drain(former).await.unwrap();
    assert!(seen(store.replicas().await.unwrap()));
    assert_eq!(claim(&store, replica, 1, usize::MAX).await.tasks.len(), 2);
    drop(store);
    recount(&path);
}

#[tokio::test]
async fn waiting_for_changes_writes_nothing_and_reports_none() {
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let store = SqliteStore::open(&path).unwrap();
    let seen = store.changed(Changes { work: u64::MAX, ..Changes::default() }).await;
    let log = path.with_extension("db-wal");
    let before = std::fs::metadata(&log).unwrap().len();
    let waited = tokio::time::timeout(Duration::from_millis(300), store.changed(seen)).await;
    assert!(waited.is_err(), "nothing has changed");
    assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
}

#[tokio::test]
async fn a_page_is_short_rather_than_late() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("tasks.db")).unwrap();
    let labelled = |id: &str| new_task(id).label("team", "blue").unwrap();
    // The oldest are the ones that are looked for, behind more than a page looks at.
    store.insert((0..10).map(|n| labelled(&format!("blue-{n}"))).collect()).await.unwrap();
    store.insert(vec![new_task("held").start(Start::Held)]).await.unwrap();
    let more = usize::try_from(list::LOOKED_AT_MAX).unwrap();
    for at in (0..more).step_by(1_000) {
        store.insert((at..at + 1_000).map(|n| new_task(&format!("other-{n}"))).collect()).await.unwrap();
    }
    let blue = TaskQuery { labels: vec![(name("team"), "blue".to_owned())], ..TaskQuery::default() };
    let first = store.list(&blue).await.unwrap();
    assert!(first.tasks.is_empty() && first.next.is_some(), "it stops where it has looked at enough: {first:?}");
    let second = store.list(&TaskQuery { cursor: first.next, ..blue.clone() }).await.unwrap();
    assert_eq!((second.tasks.len(), second.next), (10, None));
    // Ids that begin so are many, in the order of their insertion.
    let others = TaskQuery { id_prefix: Some("o".to_owned()), limit: 2, ..TaskQuery::default() };
    let found: Vec<TaskId> = store.list(&others).await.unwrap().tasks.into_iter().map(|task| task.id).collect();
    assert_eq!(found, [id(&format!("other-{}", more - 1)), id(&format!("other-{}", more - 2))]);
    // What an index has is found, however far away, and what is nowhere is known not to be there.
    for (state, count) in [(State::Held, 1), (State::Failed, 0), (State::Running, 0), (State::Succeeded, 0)] {
        let page = store.list(&TaskQuery { states: vec![state], ..TaskQuery::default() }).await.unwrap();
        assert_eq!((page.tasks.len(), page.next), (count, None), "{state:?}");
    }
}

#[tokio::test]
async fn made_ids_lead_to_their_tasks() {
    const TASKS: usize = 300;
    let directory = directory();
    let path = directory.path().join("tasks.db");
    let clock = Arc::new(crate::testing::TestClock::new(1));
    let options = SqliteOptions { clock: clock.clone(), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(&path, options).unwrap();
    let mut ids = Vec::new();
    for second in 0..TASKS {
        if second % 3 == 0 {
            clock.step(Duration::from_secs(1));
        }
        let mut task = NewTask::new("k", &second).unwrap();
        if second == 7 {
            task = task.id("00-given").unwrap();
        }
        ids.push(store.insert(vec![task]).await.unwrap().remove(0).unwrap().id().clone());
    }
    let found = store.get(&ids).await.unwrap();
    for (number, task) in found.iter().enumerate() {
        let task = task.as_ref().unwrap();
        assert_eq!((&task.id, task.spec.payload.parse::<usize>().unwrap()), (&ids[number], number));
    }
    let list = async |query: TaskQuery| -> Vec<TaskId> {
        store.list(&query).await.unwrap().tasks.into_iter().map(|task| task.id).collect()
    };
    let text = ids[150].to_string();
    for length in 1..=text.len() {
        let prefix = text[..length].to_owned();
        let expected: Vec<TaskId> =
            ids.iter().rev().filter(|id| id.to_string().starts_with(&prefix)).cloned().collect();
        assert_eq!(list(TaskQuery { id_prefix: Some(prefix), ..TaskQuery::default() }).await, expected, "{length}");
    }
    assert_eq!(list(TaskQuery { id_prefix: Some("00-".to_owned()), ..TaskQuery::default() }).await, ids[7..8]);
    let from = found[60].as_ref().unwrap().spec.created_at;
    let spanned = TaskQuery {
        created_from: Some(from),
        created_before: Some(from + Duration::from_secs(2)),
        ..TaskQuery::default()
    };
    assert_eq!(list(spanned).await, ids[60..66].iter().rev().cloned().collect::<Vec<_>>());

    // Given back, a made id is known; removed, it is never made again, although no time has passed.
    let last = ids[TASKS - 1].clone();
    let same = NewTask::new("k", &(TASKS - 1)).unwrap().id(&last.to_string()).unwrap();
    let answer = store.insert(vec![same.clone()]).await.unwrap().remove(0).unwrap();
    assert_eq!(answer, Inserted::Existing(last.clone(), State::Waiting));
    let removed = vec![(last.clone(), Command::Cancel), (last.clone(), Command::Delete)];
    assert_eq!(store.command(removed).await.unwrap()[1], Answer::Applied(None));
    assert_eq!(store.insert(vec![same]).await.unwrap().remove(0).unwrap(), Inserted::Removed(last.clone()));
    let next = store.insert(vec![NewTask::new("k", &0).unwrap()]).await.unwrap().remove(0).unwrap();
    assert_ne!(*next.id(), last);
    assert!(store.get(&[last]).await.unwrap()[0].is_none());
    drop(store);
    recount(&path);
}

/// A file with tasks whose ids are made there, the same in every file; every fifth has an id of its own.
async fn same_tasks(path: &Path, clock: &Arc<SetClock>, replica: ReplicaId) -> [SqliteStore; 2] {
    let options = SqliteOptions { clock: clock.clone(), ..SqliteOptions::default() };
    let stores = [0, 1].map(|_| SqliteStore::open_with(path, options.clone()).unwrap());
    let salt = |tx: &mut Tx<'_>| Ok(tx.connection.execute("UPDATE meta SET salt = 5", [])?);
    stores[0].write(1, salt).await.unwrap();
    let task = |n: usize| NewTask::new("k", &n).unwrap().priority(i32::try_from(n / 20).unwrap());
    let tasks = (0..60).map(|n| if n % 5 == 4 { task(n).id(&format!("t{n}")).unwrap() } else { task(n) });
    stores[0].insert(tasks.collect()).await.unwrap();
    stores[0].register(NewReplica { id: replica, name: "test".to_owned(), ttl: TTL, remote: false }).await.unwrap();
    stores
}

fn any_event(task: &Task) -> RunEvent {
    let failure = || Failure::new(FailureKind::Error, "no");
    let large = || Payload::from_bytes(vec![fastrand::u8(..2); 2_000]);
    match fastrand::u8(..12) {
        0 => RunEvent::Started(Some(Handle::new("h").unwrap())),
        1 => RunEvent::Outcome(Some(large())),
        2 => RunEvent::Complete(ResultRef::Inline(large())),
        3 => RunEvent::Retry(task.record.run_at, failure()),
        4 => RunEvent::Fail(failure()),
        5 => RunEvent::Cancelled,
        6 => inline(if fastrand::bool() { "1" } else { "2" }),
        _ => inline("null"),
    }
}

/// Reads, moves and writes of many rows at once, and records that are remembered, give what one write after the
/// other gives, each through a handle that must read what the other has written.
#[tokio::test]
async fn batches_through_one_handle_are_single_writes_through_two() {
    for seed in 0..40 {
        fastrand::seed(seed);
        let directories = [directory(), directory()];
        let clock = Arc::new(SetClock(1_000_000.into()));
        let replica = ReplicaId::generate(&*clock);
        let batched = same_tasks(&directories[0].path().join("tasks.db"), &clock, replica).await[0].clone();
        let singly = same_tasks(&directories[1].path().join("tasks.db"), &clock, replica).await;
        let mut claimed = Vec::new();
        for round in 0..8_u64 {
            clock.0.fetch_add(1_000_000, std::sync::atomic::Ordering::SeqCst);
            let taken = claim(&batched, replica, round + 1, 20).await.tasks;
            assert_eq!(taken, claim(&singly[0], replica, round + 1, 20).await.tasks, "seed {seed}, round {round}");
            claimed.extend(taken);
            singly[1].heartbeat(Heartbeat { replica, holdings: None }).await.unwrap();
            let wished: Vec<_> =
                claimed.iter().filter(|_| fastrand::u8(..10) == 0).map(|task| task.id.clone()).collect();
            for (n, id) in wished.into_iter().enumerate() {
                let cancel = vec![(id, Command::Cancel)];
                assert_eq!(
                    batched.command(cancel.clone()).await.unwrap(),
                    singly[n % 2].command(cancel).await.unwrap()
                );
            }
            fastrand::shuffle(&mut claimed);
            let changes: Vec<Change> = (0..claimed.len())
                .map(|n| &claimed[if fastrand::u8(..9) == 0 { fastrand::usize(..=n) } else { n }])
                .map(|task| change(task, any_event(task)))
                .collect();
            let answers = batched.apply(changes.clone()).await.unwrap();
            for (n, (change, answer)) in changes.into_iter().zip(answers).enumerate() {
                let said = format!("seed {seed}, round {round}: {change:?}");
                assert_eq!(singly[n % 2].apply(vec![change]).await.unwrap(), [answer], "{said}");
            }
            claimed.truncate(10);
            let all = batched.list(&TaskQuery::default()).await.unwrap().tasks;
            let same = singly[1].list(&TaskQuery::default()).await.unwrap().tasks;
            assert_eq!(all, same, "seed {seed}, round {round}");
        }
        drop((batched, singly));
        directories.iter().for_each(|directory| recount(&directory.path().join("tasks.db")));
    }
}

/// What is done to a file, and what is said of it.
const DAMAGE: &[(&str, &str)] = &[
    ("UPDATE tasks SET owner = NULL WHERE id = 'running'", "task running runs without an owner"),
    ("UPDATE tasks SET owner = 77 WHERE id = 'running'", "task running runs for a replica that is not there"),
    ("UPDATE tasks SET claim = 77 WHERE id = 'running'", "task running was taken by a claim"),
    ("UPDATE tasks SET execution = 77 WHERE id = 'running'", "task running has an execution after its run"),
    ("UPDATE tasks SET lane = 77 WHERE id = 'waiting'", "task waiting is of a queue and kind"),
    ("UPDATE tasks SET stage = 9 WHERE id = 'waiting'", "task waiting is in no state"),
    ("UPDATE tasks SET finished_at = NULL WHERE id = 'done'", "task done has ended without an end"),
    ("UPDATE tasks SET result = NULL WHERE id = 'done'", "task done succeeded and has no result"),
    ("UPDATE tasks SET flags = 4 WHERE id = 'running'", "task running has a report that is not there"),
    ("INSERT INTO reports SELECT seq, 1, 0, NULL, '', NULL FROM tasks WHERE id = 'done'", "task done has a report and"),
    ("INSERT INTO reports VALUES (77, 1, 0, NULL, '', NULL)", "1 reports are of tasks that are not there"),
    ("INSERT INTO tombstones VALUES (1, 'waiting', x'00', 0)", "task waiting is there although it was removed"),
    ("UPDATE tallies SET n = 77 WHERE stage = 1", "is 77 instead of 1"),
    ("DELETE FROM blobs", "bytes of task big are missing"),
    ("UPDATE blobs SET bytes = x'00'", "bytes of task big are missing or cut"),
    ("INSERT INTO blobs VALUES (1, x'00')", "1 values are kept of tasks that do not have them"),
    ("UPDATE meta SET seq = 1", "tasks have numbers that were never given"),
    ("DROP INDEX tasks_rare", "index tasks_rare is missing"),
    ("PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'tasks_ready'", "the file is broken"),
];

#[tokio::test]
async fn verify_finds_what_was_broken_by_hand_and_nothing_else() {
    let directory = directory();
    for (at, (damage, says)) in DAMAGE.iter().enumerate() {
        let path = directory.path().join(format!("{at}.db"));
        let store = SqliteStore::open(&path).unwrap();
        let replica = register(&store).await;
        store.insert(vec![new_task("done"), new_task("running")]).await.unwrap();
        let tasks = claim(&store, replica, 1, 2).await.tasks;
        store.apply(vec![change(&tasks[0], inline("1"))]).await.unwrap();
        let big = NewTask::new("k", &"x".repeat(5_000)).unwrap().id("big").unwrap();
        store.insert(vec![new_task("waiting"), big.queue("q").unwrap().start(Start::Held)]).await.unwrap();
        assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
        drop(store);
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let found = SqliteStore::open(&path).unwrap().verify().await.unwrap();
        assert!(found.iter().any(|problem| problem.contains(says)), "{damage}: {found:?}");
    }
}
