//! What only this store has: the plans of its statements.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row};
use uuid::Uuid;

use super::*;
use crate::store::NewReplica;
use crate::task::Start;

/// How many tasks wait: as many as make a scan of the table the worst plan by far.
const WAITING: usize = 20_000;

fn url() -> String {
    std::env::var("LTS_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("LTS_TEST_POSTGRES_URL is not set: run `eval \"$(FAST=1 scripts/servers/postgres start DIR)\"` first")
    })
}

/// The plan of a statement as text.
async fn plan<'q>(
    connection: &mut PgConnection,
    store: &PostgresStore,
    template: &str,
    bind: impl Fn(Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments>,
) -> String {
    let sql = store.inner.shared.database.with_schema(template);
    let explain = format!("EXPLAIN (COSTS OFF) {sql}");
    let rows = bind(sqlx::query(AssertSqlSafe(explain))).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

/// Every statement of a claim goes by its partial index, under the server's own settings: as behind a
/// pooler, and whether the tables were analyzed or not.
#[tokio::test]
async fn claims_go_by_their_indexes() {
    let schema = format!("t_{}", Uuid::new_v4().simple());
    let options = PostgresOptions { schema: schema.clone(), connections: 2, ..PostgresOptions::default() };
    let store = PostgresStore::open_with(&url(), options).await.unwrap();
    let task = |n: usize| NewTask::new("k", &n).unwrap().priority(i32::try_from(n % 3).unwrap());
    let late = Start::After(Duration::from_secs(9_999));
    store.insert((0..WAITING / 2).map(task).collect()).await.unwrap();
    store.insert((0..WAITING / 2).map(|n| task(n).start(late)).collect()).await.unwrap();
    let replica = ReplicaId::generate(&SystemClock);
    store.register(NewReplica { id: replica, name: String::new(), ttl: Duration::from_secs(99) }).await.unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = ClaimRequest { replica, number: 1, kinds, queues: vec![], limit: 50, among: None };
    assert_eq!(store.claim(request).await.unwrap().tasks.len(), 50);

    let mut connection = PgConnection::connect(&url()).await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            let analyze = store.inner.shared.database.with_schema("ANALYZE {s}.tasks, {s}.lanes");
            sqlx::raw_sql(AssertSqlSafe(analyze)).execute(&mut connection).await.unwrap();
        }
        let c = &mut connection;
        let (lanes, counts, now) = (vec![1], vec![50_i64], i64::MAX / 2);
        let plans = [
            ("tasks_ready", plan(c, &store, claim::LOOK, |q| q.bind(vec!["k"]).bind(Vec::<String>::new())).await),
            ("tasks_scheduled", plan(c, &store, claim::LOOK, |q| q.bind(vec!["k"]).bind(Vec::<String>::new())).await),
            ("tasks_deadline", plan(c, &store, claim::LOOK, |q| q.bind(vec!["k"]).bind(Vec::<String>::new())).await),
            (
                "tasks_ready",
                plan(c, &store, claim::HEADS, |q| q.bind(lanes.clone()).bind(counts.clone()).bind(now)).await,
            ),
            ("tasks_scheduled", plan(c, &store, claim::PROMOTE, |q| q.bind(lanes.clone()).bind(now).bind(9_i64)).await),
            ("tasks_deadline", plan(c, &store, claim::OVERDUE, |q| q.bind(now).bind(9_i64)).await),
            ("tasks_active", plan(c, &store, claim::RUNNING, |q| q.bind(vec!["default"])).await),
            ("tasks_active", plan(c, &store, claim::CLAIMED, |q| q.bind(rows::uuid(replica)).bind(1_i64)).await),
            ("tasks_id", plan(c, &store, claim::AMONG, |q| q.bind(vec!["a"]).bind(lanes.clone()).bind(now)).await),
            (
                "tasks_ready",
                plan(c, &store, quick::CLAIM, |q| {
                    q.bind(lanes.clone()).bind(now).bind(50_i64).bind(rows::uuid(replica)).bind(1_i64)
                })
                .await,
            ),
            (
                "tasks_ready",
                plan(c, &store, window::FIRST, |q| {
                    q.bind(vec!["k"]).bind(Vec::<String>::new()).bind(50_i64).bind(0_i64)
                })
                .await,
            ),
        ];
        for (index, plan) in plans {
            assert!(plan.contains(&format!("using {index} on")), "analyzed: {analyzed}, wanted {index}:\n{plan}");
            assert!(!plan.contains("Seq Scan on tasks"), "analyzed: {analyzed}\n{plan}");
        }
    }
    let drop = store.inner.shared.database.with_schema("DROP SCHEMA {s} CASCADE");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
