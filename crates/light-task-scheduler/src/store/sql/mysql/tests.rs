//! How the server carries out the statements: needs the server that `scripts/servers/mariadb` starts.

use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};

use super::{MySqlStore, apply, aside, claim, list, quick, replicas, sweep, window};
use crate::clock::SystemClock;
use crate::database::mysql::sql::{with_prefix, with_repeated};
use crate::store::{ClaimRequest, NewReplica, Store};
use crate::task::{Name, NewTask, ReplicaId, Start, State};

/// Executes a statement on the server of the tests.
async fn execute(sql: String) {
    let mut connection = MySqlConnection::connect(&url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn url() -> String {
    let hint = "LTS_TEST_MYSQL_URL is not set: run `eval \"$(FAST=1 scripts/servers/mariadb start DIR)\"` first";
    std::env::var("LTS_TEST_MYSQL_URL").expect(hint)
}

/// A store with some thousand tasks in every stage.
async fn full_store(url: &str) -> MySqlStore {
    let store = MySqlStore::open(url).await.unwrap();
    let task = |n: i32| NewTask::new("k", &n).unwrap().queue(&format!("q{}", n % 3)).unwrap().priority(n % 5);
    store.insert((0..3_000).map(task).collect()).await.unwrap();
    store.insert(vec![task(0).priority(-1).id("a").unwrap()]).await.unwrap();
    let replica = ReplicaId::generate(&SystemClock);
    store
        .register(NewReplica { id: replica, name: "r".to_owned(), ttl: Duration::from_secs(600), remote: false })
        .await
        .unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = ClaimRequest { replica, number: 1, kinds, queues: vec![], limit: 1_000, among: None };
    assert_eq!(store.claim(request).await.unwrap().tasks.len(), 1_000);
    let later = |n| task(n).start(Start::After(Duration::from_secs(3_600))).deadline(crate::Timestamp::MAX);
    store.insert((0..1_000).map(later).collect()).await.unwrap();
    store
}

/// What the server says of a statement, with every placeholder filled by a number or, in quotes, a text.
async fn explained(connection: &mut MySqlConnection, template: &str, values: &[&str]) -> Vec<MySqlRow> {
    let mut sql = with_prefix(&with_repeated(template, 1), "lts_");
    for value in values {
        sql = sql.replacen('?', value, 1);
    }
    assert!(!sql.contains('?'), "{sql}");
    sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn claims_and_reports_follow_an_index_and_sort_nothing() {
    const NOW: &str = "9000000000000000";
    let name = format!("lts_{}", uuid::Uuid::new_v4().simple());
    execute(format!("CREATE DATABASE {name}")).await;
    let own = format!("{}/{name}", url().rsplit_once('/').unwrap().0);
    let store = full_store(&own).await;
    let mut connection = MySqlConnection::connect(&own).await.unwrap();
    let statements: [(&str, &[&str]); 20] = [
        (claim::PEEK, &["'k'", "1", "''", "'0123456789abcdef'"]),
        (replicas::PEEK, &["'0123456789abcdef'"]),
        (claim::LOOK, &["'k'", "1", "''"]),
        (aside::OVERDUE, &[NOW, "100"]),
        (claim::OPEN, &["1"]),
        (claim::DUE, &["1", NOW, "100"]),
        (claim::HEADS, &["1", NOW, "100"]),
        (claim::AMONG, &["1", "1", NOW]),
        (aside::SEQS, &["'a'"]),
        (aside::FORGET_IDS, &["1"]),
        (claim::RUNNING, &["'q0'"]),
        (claim::CLAIMED, &["7", "'0123456789abcdef'", "1"]),
        (apply::RECORDS, &["1"]),
        (quick::COMPLETE, &["1", "0", "1", "5", "'0123456789abcdef'", "1"]),
        (replicas::OWNED, &["'0123456789abcdef'", "7", "'0123456789abcdef'"]),
        (replicas::ALL, &[]),
        (replicas::REPORTS, &["7", "'0123456789abcdef'", "100"]),
        (replicas::ORPHANS, &["7", "'0123456789abcdef'", "'k'", "1", "''", "100"]),
        (sweep::OLDEST, &[NOW]),
        (sweep::ENDED, &["1", "4", NOW, "NULL", "NULL", "100"]),
    ];
    let mut seen = 0;
    for (template, values) in statements {
        for row in explained(&mut connection, template, values).await {
            let text = |column: &str| {
                let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(column).unwrap().unwrap_or_default();
                String::from_utf8(bytes).unwrap()
            };
            // The table of tasks is called `t` everywhere, and those aside `i` and `d`.
            if ["t", "i", "d"].contains(&text("table").as_str()) {
                seen += 1;
                let (kind, extra) = (text("type"), text("Extra"));
                assert!(!["ALL", "index"].contains(&kind.as_str()), "{kind}, {extra}: {template}");
                assert!(!extra.contains("filesort") && !extra.contains("temporary"), "{kind}, {extra}: {template}");
            }
        }
    }
    assert!(seen >= statements.len(), "{seen}");
    // The delayed ones of a window, few, are the one thing that is sorted.
    let window = explained(&mut connection, window::FIRST, &["1", NOW, "9", "1", NOW, "9"]).await;
    let extras = window.iter().map(|row| row.try_get_unchecked::<Option<String>, _>("Extra").unwrap());
    assert_eq!(extras.filter(|extra| extra.as_deref().is_some_and(|extra| extra.contains("filesort"))).count(), 1);
    // Few tasks of a large table are listed by a table of their own, in its order, and those that run by their stage.
    for (states, first) in [([State::Failed], "r"), ([State::Running], "l")] {
        let listed = format!("SELECT t.seq FROM {} WHERE t.seq < ? ORDER BY t.seq DESC LIMIT 9", list::tables(&states));
        let rows = explained(&mut connection, &listed, &[NOW]).await;
        let text =
            |row: &MySqlRow, column| row.try_get_unchecked::<Option<String>, _>(column).unwrap().unwrap_or_default();
        assert!(rows.iter().any(|row| text(row, "table") == first), "{listed}");
        for row in rows.iter().filter(|row| ["r", "t"].contains(&text(row, "table").as_str())) {
            assert!(!["ALL", "index"].contains(&text(row, "type").as_str()), "{listed}");
            assert!(!text(row, "Extra").contains("filesort"), "{listed}");
        }
    }
    connection.close().await.unwrap();
    drop(store);
    execute(format!("DROP DATABASE {name}")).await;
}
