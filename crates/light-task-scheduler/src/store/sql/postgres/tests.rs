//! What only this store has: the plans of its statements.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row};
use uuid::Uuid;

use super::*;
use crate::state::RunEvent;
use crate::store::NewReplica;
use crate::store::sql::ids;
use crate::store::sql::plan::Key;
use crate::task::{Payload, ResultRef, Start, State};

/// How many tasks wait: as many as make a scan of the table the worst plan by far.
const WAITING: usize = 20_000;

fn url() -> String {
    std::env::var("LTS_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("LTS_TEST_POSTGRES_URL is not set: run `eval \"$(FAST=1 scripts/servers/postgres start DIR)\"` first")
    })
}

/// A store with tables of its own.
async fn open() -> PostgresStore {
    open_with(PostgresOptions::default()).await
}

async fn open_with(options: PostgresOptions) -> PostgresStore {
    let schema = format!("t_{}", Uuid::new_v4().simple());
    let options = PostgresOptions { schema, connections: 2, ..options };
    PostgresStore::open_with(&url(), options).await.unwrap()
}

/// Removes its tables.
async fn close(store: &PostgresStore, mut connection: PgConnection) {
    let drop = store.inner.shared.database.with_schema("DROP SCHEMA {s} CASCADE");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The plan of a statement as text.
async fn plan<'q>(
    connection: &mut PgConnection,
    store: &PostgresStore,
    template: &str,
    bind: impl Fn(Bound<'q>) -> Bound<'q>,
) -> String {
    let sql = store.inner.shared.database.with_schema(template);
    let explain = format!("EXPLAIN (COSTS OFF) {sql}");
    let rows = bind(sqlx::query(AssertSqlSafe(explain))).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

type Bound<'q> = Query<'q, Postgres, PgArguments>;

/// The values of [`claim::LOOK`].
fn looking<'q>(query: Bound<'q>, floors: &[(i32, Key)]) -> Bound<'q> {
    let (lanes, ranks, run_ats, seqs) = claim::columns(floors);
    query.bind(vec!["k"]).bind(Vec::<String>::new()).bind(lanes).bind(ranks).bind(run_ats).bind(seqs)
}

/// The values of [`claim::LOOK_AGAIN`], of which nothing has moved.
fn looking_again<'q>(query: Bound<'q>, begins: &[(i32, Key)]) -> Bound<'q> {
    let (lanes, ranks, run_ats, seqs) = claim::columns(begins);
    let query = query.bind(lanes).bind(ranks).bind(run_ats).bind(seqs);
    query.bind(Vec::<i32>::new()).bind(Vec::<i16>::new()).bind(Vec::<i64>::new())
}

/// The place from which on a lane is looked at: its beginning.
fn from_first(query: Bound<'_>) -> Bound<'_> {
    let (_, ranks, run_ats, seqs) = claim::columns(&[(1, Key::FIRST)]);
    query.bind(ranks).bind(run_ats).bind(seqs)
}

/// A store in which tasks wait, are late and run, and who runs them.
async fn filled() -> (PostgresStore, ReplicaId) {
    let store = open().await;
    let task = |n: usize| NewTask::new("k", &n).unwrap().priority(i32::try_from(n % 3).unwrap());
    let late = Start::After(Duration::from_secs(9_999));
    store.insert((0..WAITING / 2).map(task).collect()).await.unwrap();
    store.insert((0..WAITING / 2).map(|n| task(n).start(late)).collect()).await.unwrap();
    let replica = ReplicaId::generate(&SystemClock);
    let new = NewReplica { id: replica, name: String::new(), ttl: Duration::from_secs(99), remote: false };
    store.register(new).await.unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = ClaimRequest { replica, number: 1, kinds, queues: vec![], limit: 50, among: None };
    assert_eq!(store.claim(request).await.unwrap().tasks.len(), 50);
    (store, replica)
}

/// The plans of what names its rows: candidates of a claim, and ends by number and by a given id.
async fn plans_by_number(c: &mut PgConnection, store: &PostgresStore, replica: ReplicaId) -> [String; 3] {
    let (lanes, now) = (vec![1], i64::MAX / 2);
    let end = || (vec![1_i64], vec![None::<String>], vec![None::<Vec<u8>>]);
    let among = plan(c, store, claim::AMONG, |q| q.bind(vec![1_i64]).bind(vec!["a"]).bind(lanes.clone()).bind(now));
    let among = among.await;
    let here = plan(c, store, quick::COMPLETE, |q| {
        let (numbers, details, results) = end();
        let q = q.bind(0_i64).bind(rows::uuid(replica)).bind(numbers.clone()).bind(numbers.clone());
        q.bind(numbers).bind(details).bind(results)
    });
    let here = here.await;
    let given = plan(c, store, quick::COMPLETE_GIVEN, |q| {
        let (numbers, details, results) = end();
        let q = q.bind(0_i64).bind(rows::uuid(replica)).bind(vec!["a"]).bind(numbers.clone());
        q.bind(numbers).bind(details).bind(results)
    });
    [among, here, given.await]
}

/// Every statement of a claim goes by its partial index, under the server's own settings: as behind a
/// pooler, and whether the tables were analyzed or not.
#[tokio::test]
async fn claims_go_by_their_indexes() {
    let (store, replica) = filled().await;
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    for analyzed in [false, true] {
        if analyzed {
            let analyze = store.inner.shared.database.with_schema("ANALYZE {s}.tasks, {s}.lanes");
            sqlx::raw_sql(AssertSqlSafe(analyze)).execute(&mut connection).await.unwrap();
        }
        let c = &mut connection;
        let (lanes, counts, now) = (vec![1], vec![50_i64], i64::MAX / 2);
        let look = plan(c, &store, claim::LOOK, |q| looking(q, &[])).await;
        let peek = plan(c, &store, claim::PEEK, |q| looking(q, &[]).bind(rows::uuid(replica))).await;
        let [among, here, given] = plans_by_number(c, &store, replica).await;
        let again = plan(c, &store, claim::LOOK_AGAIN, |q| looking_again(q, &[(1, Key::FIRST)])).await;
        let plans = [
            ("tasks_ready", look.clone()),
            ("tasks_scheduled", look.clone()),
            ("tasks_deadline", look),
            ("tasks_ready", peek.clone()),
            ("tasks_scheduled", peek.clone()),
            ("tasks_deadline", peek),
            ("tasks_active", plan(c, &store, replicas::PEEK, |q| q.bind(rows::uuid(replica))).await),
            ("tasks_ready", again.clone()),
            ("tasks_scheduled", again.clone()),
            ("tasks_deadline", again),
            (
                "tasks_ready",
                plan(c, &store, claim::HEADS, |q| from_first(q.bind(lanes.clone())).bind(counts.clone()).bind(now))
                    .await,
            ),
            ("tasks_scheduled", plan(c, &store, claim::PROMOTE, |q| q.bind(lanes.clone()).bind(now).bind(9_i64)).await),
            ("tasks_deadline", plan(c, &store, claim::OVERDUE, |q| q.bind(now).bind(9_i64)).await),
            ("tasks_active", plan(c, &store, claim::RUNNING, |q| q.bind(vec!["default"])).await),
            ("tasks_active", plan(c, &store, claim::CLAIMED, |q| q.bind(rows::uuid(replica)).bind(1_i64)).await),
            ("tasks_id", among.clone()),
            ("tasks_id", given.clone()),
            (
                "tasks_ready",
                plan(c, &store, quick::CLAIM, |q| {
                    from_first(q.bind(lanes.clone()).bind(now).bind(50_i64).bind(rows::uuid(replica)).bind(1_i64))
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
        let counts = plan(c, &store, list::COUNTS, |q| q.bind(0_i64)).await;
        assert!(counts.contains("tasks_scheduled") && !counts.contains("Seq Scan on tasks"), "{counts}");
        let old = plan(c, &store, sweep::OLD, |q| {
            let q = q.bind(0_i64).bind(9_i64).bind(now).bind(vec![4_i16]);
            q.bind(None::<String>).bind(9)
        });
        for plan in [among, here, given, old.await] {
            let by_number = ["on tasks_pkey", "using tasks_pkey on"].iter().any(|how| plan.contains(how));
            assert!(by_number && !plan.contains("Seq Scan on tasks"), "analyzed: {analyzed}\n{plan}");
        }
        for (index, plan) in plans {
            assert!(plan.contains(&format!("using {index} on")), "analyzed: {analyzed}, wanted {index}:\n{plan}");
            assert!(!plan.contains("Seq Scan on tasks"), "analyzed: {analyzed}\n{plan}");
        }
    }
    close(&store, connection).await;
}

/// What is old is removed, however much that stays or is dated ahead lies before it.
#[tokio::test]
async fn old_tasks_are_swept_wherever_they_are() {
    const TASKS: usize = 101_000;
    const MINUTE: Duration = Duration::from_secs(60);
    let offset = Arc::new(AtomicI64::default());
    let store = open_with(PostgresOptions { time_offset: offset.clone(), ..PostgresOptions::default() }).await;
    let held = |_| NewTask::new("k", &()).unwrap().start(Start::Held);
    let ended = async || {
        let id = store.insert(vec![held(0)]).await.unwrap().remove(0).unwrap().id().clone();
        store.command(vec![(id, Command::Cancel)]).await.unwrap();
        offset.fetch_add(10 * MINUTE.as_micros() as i64, std::sync::atomic::Ordering::SeqCst);
    };
    let sweep = async || {
        let states = vec![State::Cancelled];
        let request = SweepRequest { states, older_than: Some(MINUTE), limit: 10, ..SweepRequest::default() };
        store.sweep(request).await.unwrap().removed
    };
    for _ in 0..TASKS / 1_000 {
        store.insert((0..1_000).map(held).collect()).await.unwrap();
    }
    ended().await;
    assert_eq!([sweep().await, sweep().await, sweep().await], [0, 1, 0], "the second goes on behind the first");
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let ahead = store.inner.shared.database.with_schema("UPDATE {s}.tasks SET created_at = created_at * 2");
    sqlx::raw_sql(AssertSqlSafe(ahead)).execute(&mut connection).await.unwrap();
    ended().await;
    let mut sweeps = 0;
    while sweep().await == 0 {
        sweeps += 1;
        assert!(sweeps < TASKS / 1_000, "what is dated ahead hides what is old");
    }
    close(&store, connection).await;
}

/// How many pages a statement of a claim touches.
async fn pages<'q>(
    connection: &mut PgConnection,
    store: &PostgresStore,
    template: &str,
    bind: impl Fn(Bound<'q>) -> Bound<'q>,
) -> u64 {
    let sql = store.inner.shared.database.with_schema(template);
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}");
    let row = bind(sqlx::query(AssertSqlSafe(explain))).fetch_one(connection).await.unwrap();
    let text: String = row.try_get_unchecked(0).unwrap();
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap();
    let count = |name: &str| explained[0]["Plan"][name].as_u64().unwrap();
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// While a transaction is open that may see them, the index keeps the entries of all tasks that were claimed since.
/// Claims begin behind them all the same, and what comes before is found.
#[tokio::test]
async fn an_open_transaction_does_not_slow_claims() {
    const TASKS: usize = 50_000;
    const CLAIM: usize = 1_000;
    /// How much more a claim may touch at the end, in pages.
    const MORE: u64 = 5;
    let store = open().await;
    let replica = ReplicaId::generate(&SystemClock);
    let new = NewReplica { id: replica, name: String::new(), ttl: Duration::from_secs(999), remote: false };
    store.register(new).await.unwrap();
    for _ in 0..TASKS / BATCH_MAX {
        store.insert((0..BATCH_MAX).map(|n| NewTask::new("k", &n).unwrap()).collect()).await.unwrap();
    }
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let mut elsewhere = PgConnection::connect(&url()).await.unwrap();
    let seen = store.inner.shared.database.with_schema("SELECT count(*) FROM {s}.tasks");
    let mut open = elsewhere.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::query(AssertSqlSafe(seen)).fetch_one(&mut *open).await.unwrap();

    let request = |number, limit| ClaimRequest {
        replica,
        number,
        kinds: vec![Name::new("k").unwrap()],
        queues: vec![],
        limit,
        among: None,
    };
    let shared = &store.inner.shared;
    let first = pages(&mut connection, &store, claim::LOOK, |q| looking(q, &[])).await;
    let mut last = crate::clock::monotonic();
    let claims = TASKS / CLAIM - 1;
    for number in 1..=claims as u64 {
        last = crate::clock::monotonic();
        let claimed = store.claim(request(number, CLAIM)).await.unwrap().tasks;
        assert_eq!(claimed.len(), CLAIM);
    }
    let without = pages(&mut connection, &store, claim::LOOK, |q| looking(q, &[])).await;
    assert!(without > first * MORE * 10, "the entries are there: {without} pages, {first} before");
    // As at the time of the last claim: a test on a busy machine may reach the time of the next full look.
    let floors = shared.floors.looks(last).floors();
    let with = pages(&mut connection, &store, claim::LOOK, |q| looking(q, &floors)).await;
    assert!(with <= first * MORE, "{with} pages, {first} before, {without} without {floors:?}");

    let urgent = store.insert(vec![NewTask::new("k", "urgent").unwrap().priority(1)]).await.unwrap().remove(0).unwrap();
    let claimed = store.claim(request(claims as u64 + 1, 1)).await.unwrap().tasks;
    assert_eq!(claimed[0].id, *urgent.id(), "it goes before all that waits");
    open.rollback().await.unwrap();
    close(&store, connection).await;
}

/// The counts are sums of what every transaction has added, before and after the sweeper has put them together.
#[tokio::test]
async fn counts_are_those_of_the_rows() {
    const CALLS: i64 = 1 + tally::ROWS_MAX;
    let store = open().await;
    for n in 0..CALLS {
        store.insert(vec![NewTask::new("k", &n).unwrap()]).await.unwrap();
    }
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let rows = store.inner.shared.database.with_schema("SELECT count(*) FROM {s}.tallies");
    for most in [CALLS, 1] {
        let counts = store.counts().await.unwrap();
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[0].of(State::Waiting), CALLS as u64);
        let row = sqlx::query(AssertSqlSafe(rows.clone())).fetch_one(&mut connection).await.unwrap();
        assert!(row.get::<i64, _>(0) <= most, "put together");
        store.sweep(SweepRequest::default()).await.unwrap();
    }
    close(&store, connection).await;
}

fn claim_request(replica: ReplicaId, number: u64) -> ClaimRequest {
    ClaimRequest { replica, number, kinds: vec![Name::new("k").unwrap()], queues: vec![], limit: 9, among: None }
}

async fn register(store: &PostgresStore) -> ReplicaId {
    let replica = ReplicaId::generate(&SystemClock);
    let new = NewReplica { id: replica, name: String::new(), ttl: Duration::from_secs(999), remote: false };
    store.register(new).await.unwrap();
    replica
}

/// Reports the success of these tasks.
async fn complete(store: &PostgresStore, tasks: &[Task]) -> Vec<Answer> {
    let end = |task: &Task| Change {
        id: task.id.clone(),
        token: task.record.token().unwrap(),
        event: RunEvent::Complete(ResultRef::Inline(Payload::from_bytes(*b"1"))),
    };
    store.apply(tasks.iter().map(end).collect()).await.unwrap()
}

const SUCCEEDED: Answer = Answer::Applied(Some(State::Succeeded));

/// An id may say where a row is, and be another task's: the row is not the one, and the text is.
#[tokio::test]
async fn an_id_that_looks_like_one_made_here_is_a_task_of_its_own() {
    let store = open().await;
    let replica = register(&store).await;
    let made = store.insert(vec![NewTask::new("k", "made").unwrap()]).await.unwrap().remove(0).unwrap();
    let salt = store.inner.shared.salt;
    let place = ids::place(salt, made.id()).unwrap();
    let alike = ids::id(salt, ids::Place { created_at: place.created_at + Duration::from_micros(1), ..place }).unwrap();
    assert_eq!(store.get(std::slice::from_ref(&alike)).await.unwrap(), [None], "no task has it");
    let task = NewTask::new("k", "alike").unwrap().id(&alike.to_string()).unwrap();
    let answers = store.insert(vec![task.clone(), NewTask::new("k", "last").unwrap()]).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().id(), &alike);
    let last = answers[1].as_ref().unwrap().id();
    let again = store.insert(vec![task]).await.unwrap().remove(0).unwrap();
    assert_eq!(again, Inserted::Existing(alike.clone(), State::Waiting));

    let found = store.get(&[alike.clone(), made.id().clone(), last.clone()]).await.unwrap();
    let payloads: Vec<_> = found.into_iter().map(|task| task.unwrap().spec.payload).collect();
    assert_eq!(payloads, ["alike", "made", "last"].map(|text| NewTask::new("k", text).unwrap().payload));
    let begins = TaskQuery { id_prefix: Some(alike.to_string()), ..TaskQuery::default() };
    assert_eq!(store.list(&begins).await.unwrap().tasks.len(), 1);

    let tasks = store.claim(claim_request(replica, 1)).await.unwrap().tasks;
    // As a handle would say it of a row that was there before the database was put back to an earlier state.
    let mut stale = tasks.iter().find(|task| task.id == *last).unwrap().clone();
    let place = ids::place(salt, last).unwrap();
    stale.id = ids::id(salt, ids::Place { created_at: place.created_at + Duration::from_secs(1), ..place }).unwrap();
    assert_eq!(complete(&store, &[stale]).await, [Answer::Missing]);
    assert_eq!(complete(&store, &tasks).await, [SUCCEEDED; 3]);
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    close(&store, PgConnection::connect(&url()).await.unwrap()).await;
}

/// Tables from before ids said where rows are: what is there keeps its ids, and goes on beside new ones.
#[tokio::test]
async fn older_tables_are_brought_up_to_date() {
    const BEFORE_IDS: usize = 3;
    let schema = format!("t_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let steps = MIGRATIONS.steps[..BEFORE_IDS].concat();
    let older = format!(
        "CREATE SCHEMA {{s}}; CREATE TABLE {{s}}.versions (component text PRIMARY KEY, version integer NOT NULL);
        {steps}; INSERT INTO {{s}}.versions VALUES ('tasks', {BEFORE_IDS});
        INSERT INTO {{s}}.lanes (queue, kind) VALUES ('default', 'k');
        INSERT INTO {{s}}.tasks (run_at, created_at, lane, rank, stage, id, payload)
            VALUES (1, 1, 1, -1, 1, '01890000-0000-7000-8000-000000000001', '1');
        INSERT INTO {{s}}.tallies VALUES (1, 1, 1);
        INSERT INTO {{s}}.replicas (id, name, ttl, beat, expires_at, dead, claim)
            VALUES ('018bcfe5-6800-7000-8000-000000000001', '\"host\"', 1, 0, 1, false, 0)"
    );
    let older = older.replace("{s}", &format!("\"{schema}\""));
    sqlx::raw_sql(AssertSqlSafe(older)).execute(&mut connection).await.unwrap();

    let options = PostgresOptions { schema, connections: 2, ..PostgresOptions::default() };
    let store = PostgresStore::open_with(&url(), options).await.unwrap();
    let former = store.replicas().await.unwrap().remove(0);
    assert!(!former.draining, "nobody has wished it");
    store.drain(former.id).await.unwrap();
    assert!(store.replicas().await.unwrap()[0].draining);
    let new = store.insert(vec![NewTask::new("k", "new").unwrap()]).await.unwrap().remove(0).unwrap();
    let replica = register(&store).await;
    let tasks = store.claim(claim_request(replica, 1)).await.unwrap().tasks;
    let claimed: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
    assert_eq!(claimed, [TaskId::new("01890000-0000-7000-8000-000000000001").unwrap(), new.id().clone()]);
    assert_eq!(complete(&store, &tasks).await, [SUCCEEDED; 2]);
    assert_eq!(store.counts().await.unwrap()[0].of(State::Succeeded), 2);
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    close(&store, connection).await;
}
