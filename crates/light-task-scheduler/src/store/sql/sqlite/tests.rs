//! What only this store has: files, plans, locks and several processes' handles on one file.

use std::collections::HashSet;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::{Refusal, RunEvent};
use crate::store::{Holdings, Said, Suspect};
use crate::task::{
    Details, Failure, FailureKind, Handle, Outcome, Payload, Progress, Record, ResultRef, Start, State, Token,
};

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
    store.register(NewReplica { id, name: "test".to_owned(), ttl: TTL }).await.unwrap();
    id
}

async fn claim(store: &SqliteStore, replica: ReplicaId, number: u64, limit: usize) -> Claim {
    let kinds = vec![name("k")];
    store.claim(ClaimRequest { replica, number, kinds, queues: Vec::new(), limit }).await.unwrap()
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
