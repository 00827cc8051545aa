//! What only the PostgreSQL store has: other people's transactions, and bad weather.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use light_task_scheduler::store::sql::{PostgresOptions, PostgresStore};
use light_task_scheduler::store::{Changes, ClaimRequest, Inserted, NewReplica, TaskQuery};
use light_task_scheduler::{
    Config, Context, Error, ErrorKind, FunctionExecutor, Name, NewTask, QueueSettings, ReplicaId, Result, Scheduler,
    Shutdown, State, Store, SystemClock, TaskId,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

#[cfg(target_os = "linux")]
use crate::homes::Homes;
use crate::servers::fresh_name;
use crate::store_postgres::{Schema, direct_url, execute};

async fn open(schema: &Schema) -> PostgresStore {
    try_open(&direct_url(), schema).await.unwrap()
}

async fn try_open(url: &str, schema: &Schema) -> Result<PostgresStore> {
    let options = PostgresOptions { schema: schema.0.clone(), connections: 4, ..PostgresOptions::default() };
    PostgresStore::open_with(url, options).await
}

fn task(id: &str) -> NewTask {
    NewTask::new("k", id).unwrap().id(id).unwrap()
}

async fn ids(store: &PostgresStore) -> Vec<String> {
    let page = store.list(&TaskQuery::default()).await.unwrap();
    page.tasks.iter().rev().map(|task| task.id.to_string()).collect()
}

/// The password in a URL.
fn password(url: &str) -> &str {
    url.split_once("//").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap().1
}

/// Checks an error's kind, and that it can be shown to anybody.
fn check(error: &Error, kind: ErrorKind, password: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    for shown in [error.to_string(), format!("{error:?}")] {
        assert!(!shown.contains(password), "{shown}");
        assert!(!shown.ends_with('.'), "{shown}");
    }
}

/// Ends every session that works in this schema, as a restart of the server would.
async fn cut_connections(pool: &PgPool, application: &str) -> i64 {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    sqlx::query(cut).bind(application).fetch_one(pool).await.unwrap().get(0)
}

mod transactions {
    use super::*;

    #[tokio::test]
    async fn a_commit_brings_the_tasks_and_a_rollback_takes_them() {
        let schema = Schema::fresh();
        let store = open(&schema).await;
        let pool = PgPool::connect(&direct_url()).await.unwrap();
        let mut kept = pool.begin().await.unwrap();
        let answers = store.insert_in(&mut kept, vec![task("kept"), task("kept"), task("two")]).await.unwrap();
        assert!(matches!(answers[0], Ok(Inserted::New(_))) && matches!(answers[1], Ok(Inserted::Existing(..))));
        assert_eq!(ids(&store).await, Vec::<String>::new(), "not before the commit");
        kept.commit().await.unwrap();
        assert_eq!(ids(&store).await, ["kept", "two"]);
        let mut undone = pool.begin().await.unwrap();
        store.insert_in(&mut undone, vec![task("undone").queue("q").unwrap()]).await.unwrap();
        undone.rollback().await.unwrap();
        assert_eq!(ids(&store).await, ["kept", "two"]);
        // The lane of what was undone is not known from then on, nor is its queue.
        assert_eq!(store.queues().await.unwrap().len(), 1);
        store.insert(vec![task("undone").queue("q").unwrap()]).await.unwrap();
        assert_eq!(ids(&store).await, ["kept", "two", "undone"]);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_commit_wakes_who_waits() {
        let schema = Schema::fresh();
        // No poll comes in between: only the notification can tell.
        let poll_interval = Duration::from_secs(3_600);
        let options = PostgresOptions { schema: schema.0.clone(), poll_interval, ..PostgresOptions::default() };
        let store = PostgresStore::open_with(&direct_url(), options).await.unwrap();
        let pool = PgPool::connect(&direct_url()).await.unwrap();
        // The first answer is that it listens.
        let seen = store.changed(Changes::default()).await;
        let mut transaction = pool.begin().await.unwrap();
        store.insert_in(&mut transaction, vec![task("a")]).await.unwrap();
        transaction.commit().await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(20), store.changed(seen)).await;
        assert_ne!(told.expect("a notification comes"), seen);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_refused_call_leaves_the_transaction_usable() {
        let schema = Schema::fresh();
        let store = open(&schema).await;
        store.insert(vec![task("there")]).await.unwrap();
        let pool = PgPool::connect(&direct_url()).await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        let other = NewTask::new("other", &1).unwrap().id("there").unwrap();
        let answers = store.insert_in(&mut transaction, vec![other, task("new")]).await.unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
        let rename = |from, to| format!("ALTER TABLE \"{}\".{from} RENAME TO {to}", schema.0);
        sqlx::raw_sql(AssertSqlSafe(rename("tombstones", "gone"))).execute(&mut *transaction).await.unwrap();
        let error = store.insert_in(&mut transaction, vec![task("broken")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        sqlx::raw_sql(AssertSqlSafe(rename("gone", "tombstones"))).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(ids(&store).await, ["there", "new"]);
        pool.close().await;
    }
}

mod bad_weather {
    use super::*;

    #[tokio::test]
    async fn a_wrong_password_is_told_and_not_shown() {
        let url = direct_url().replace(password(&direct_url()), "open-sesame");
        let error = PostgresStore::open(&url).await.unwrap_err();
        check(&error, ErrorKind::Invalid, "open-sesame");
        assert!(error.to_string().contains("password"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let error = PostgresStore::open("postgres://me:open-sesame@127.0.0.1:1/work").await.unwrap_err();
        check(&error, ErrorKind::Unavailable, "open-sesame");
        assert!(error.to_string().contains("127.0.0.1:1/work"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_database_is_named() {
        let url = direct_url();
        let base = url.rsplit_once('/').unwrap().0;
        let error = PostgresStore::open(&format!("{base}/nowhere")).await.unwrap_err();
        check(&error, ErrorKind::Invalid, password(&url));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_takes_no_writes_is_told_from_one_that_is_broken() {
        let url = direct_url();
        let (base, database) = (url.rsplit_once('/').unwrap().0, fresh_name("readonly"));
        let pool = PgPool::connect(&url).await.unwrap();
        let statement = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool);
        statement(format!("CREATE DATABASE {database}")).await.unwrap();
        let own = format!("{base}/{database}");
        PostgresStore::open(&own).await.unwrap();
        statement(format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await.unwrap();
        let fresh = try_open(&own, &Schema::fresh()).await.unwrap_err();
        check(&fresh, ErrorKind::Unavailable, password(&url));
        // The tables are there: what only reads goes on.
        let store = PostgresStore::open(&own).await.unwrap();
        assert_eq!(store.counts().await.unwrap(), []);
        check(&store.insert(vec![task("a")]).await.unwrap_err(), ErrorKind::Unavailable, password(&url));
        drop(store);
        statement(format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
        pool.close().await;
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_a_dropped_one_named() {
        let schema = Schema::fresh();
        let store = open(&schema).await;
        execute(format!("UPDATE \"{}\".versions SET version = 99", schema.0));
        let error = try_open(&direct_url(), &schema).await.unwrap_err();
        check(&error, ErrorKind::Incompatible, password(&direct_url()));
        assert!(error.to_string().contains("99"), "{error}");
        execute(format!("DROP SCHEMA \"{}\" CASCADE", schema.0));
        check(&store.insert(vec![task("a")]).await.unwrap_err(), ErrorKind::Incompatible, password(&direct_url()));
    }

    #[tokio::test]
    async fn bad_options_are_refused() {
        let bad = [
            PostgresOptions { schema: "pg_mine".to_owned(), ..PostgresOptions::default() },
            PostgresOptions { schema: String::new(), ..PostgresOptions::default() },
            PostgresOptions { connections: 0, ..PostgresOptions::default() },
            PostgresOptions { poll_interval: Duration::ZERO, ..PostgresOptions::default() },
        ];
        for options in bad {
            let error = PostgresStore::open_with(&direct_url(), options).await.unwrap_err();
            check(&error, ErrorKind::Invalid, password(&direct_url()));
        }
    }

    #[tokio::test]
    async fn lost_connections_are_replaced_without_an_error() {
        let schema = Schema::fresh();
        let application = fresh_name("app");
        let url = format!("{}?application_name={application}", direct_url());
        let store = try_open(&url, &schema).await.unwrap();
        let pool = PgPool::connect(&direct_url()).await.unwrap();
        for round in 0..5 {
            let calls = (0..4).map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.insert(vec![task(&format!("{round}.{n}"))]).await })
            });
            for call in calls.collect::<Vec<_>>() {
                assert!(matches!(call.await.unwrap().unwrap()[..], [Ok(Inserted::New(_))]));
            }
            assert!(cut_connections(&pool, &application).await > 0);
        }
        assert_eq!(ids(&store).await.len(), 20);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_dropped_call_is_done_whole_or_not_at_all_and_breaks_nothing() {
        let schema = Schema::fresh();
        let store = open(&schema).await;
        for n in 0..30 {
            let batch: Vec<NewTask> = (0..50).map(|m| task(&format!("{n}.{m}"))).collect();
            let mut call = Box::pin(store.insert(batch));
            // As far as it gets in some tens of microseconds, each time a little further.
            let _ = tokio::time::timeout(Duration::from_micros(n * 100), &mut call).await;
            drop(call);
        }
        let marker = [TaskId::new("29.0").unwrap()];
        while store.get(&marker).await.unwrap()[0].is_none() {
            tokio::task::yield_now().await;
        }
        let counts = store.counts().await.unwrap();
        assert_eq!(counts[0].by_state.iter().sum::<u64>() % 50, 0, "{counts:?}");
    }
}

/// A server of its own, which a test may kill.
struct Server {
    directory: tempfile::TempDir,
    url: String,
    tls: bool,
}

impl Server {
    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers/postgres")
    }

    fn start() -> Self {
        Server::start_with(false)
    }

    /// A server that takes nothing but TLS, or one that takes anything.
    fn start_with(tls: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server { directory, url: String::new(), tls };
        server.url = server.again();
        server
    }

    /// Starts it, anew after it was killed; the URL stays the same.
    fn again(&self) -> String {
        let tls = if self.tls { "1" } else { "" };
        let started =
            Command::new(Server::script()).env("TLS", tls).arg("start").arg(self.directory.path()).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let said = String::from_utf8(started.stdout).unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("export LTS_TEST_POSTGRES_URL="));
        line.expect("the script tells the URL").to_owned()
    }

    #[cfg(feature = "tls")]
    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn kill(&self) {
        let file = self.directory.path().join("data/postmaster.pid");
        let pid = std::fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        while Path::new("/proc").join(&pid).exists() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(Server::script()).arg("stop").arg(self.directory.path()).status();
        assert!(stopped.is_ok_and(|status| status.success()) || std::thread::panicking(), "the server stops");
    }
}

/// What was answered is there after a kill; while the server is away, calls fail as unavailable.
#[tokio::test]
async fn a_server_that_is_killed_and_started_again_has_lost_nothing() {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let store = PostgresStore::open(&server.url).await.unwrap();
    let mut accepted = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let id = format!("{round}.{n}");
            store.insert(vec![task(&id)]).await.unwrap().remove(0).unwrap();
            accepted.push(id);
        }
        server.kill();
        let error = store.insert(vec![task("never")]).await.unwrap_err();
        check(&error, ErrorKind::Unavailable, password(&server.url));
        assert_eq!(server.again(), server.url);
        // The first calls may still meet what is left of the old server.
        while let Err(error) = store.counts().await {
            assert!(error.is_retryable(), "{error}");
        }
    }
    let mut there = ids(&store).await;
    there.retain(|id| id != "never");
    assert_eq!(there, accepted);
}

/// A scheduler without work asks at most five times a second: counted in the server's log of all statements, from one
/// heartbeat to the one after the next. It finds work of others all the same.
#[tokio::test]
async fn an_idle_replica_asks_little_and_still_finds_work() {
    const STATEMENTS_PER_SECOND: u64 = 5;
    const HEARTBEATS: usize = 2;
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let mut connection = PgConnection::connect(&server.url).await.unwrap();
    sqlx::raw_sql("ALTER SYSTEM SET log_statement = 'all'").execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let functions = FunctionExecutor::new().register("k", async |_: Context, n: u32| Ok(n));
    let config = Config::default();
    let allowed = config.ttl.as_secs() / 3 * HEARTBEATS as u64 * STATEMENTS_PER_SECOND;
    let store = PostgresStore::open(&server.url).await.unwrap();
    let scheduler = Scheduler::builder(store).functions(functions).config(config).start().await.unwrap();
    let log = server.directory.path().join("postgres.log");
    let statements = loop {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        let is_statement = |line: &&str| line.contains("LOG:  statement: ") || line.contains("LOG:  execute ");
        let statements: Vec<&str> = text.lines().filter(is_statement).collect();
        let is_beat = |(_, line): &(usize, &&str)| line.contains("SET beat = beat + 1");
        let beats: Vec<usize> = statements.iter().enumerate().filter(is_beat).map(|(place, _)| place).collect();
        // Registering beats once; what a start asks is over with the beat after that.
        if let Some(end) = beats.get(1 + HEARTBEATS) {
            break (end - beats[1]) as u64;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(statements <= allowed, "{statements} statements, {allowed} are allowed");
    println!("counted: {statements} statements of an idle replica in {HEARTBEATS} heartbeats (PostgreSQL)");

    let other = PostgresStore::open(&server.url).await.unwrap();
    let task = other.insert(vec![NewTask::new("k", &7).unwrap()]).await.unwrap().remove(0).unwrap().id().clone();
    assert_eq!(scheduler.handle(&task).wait().await.unwrap().record.state, State::Succeeded);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_has_ended_on_this_host_is_rescued_at_once() {
    struct Rows(Schema);
    impl Homes for Rows {
        async fn read(&self, replica: ReplicaId) -> String {
            let mut connection = PgConnection::connect(&direct_url()).await.unwrap();
            let read = format!("SELECT home FROM \"{}\".replicas WHERE id = $1", self.0.0);
            let query = sqlx::query(AssertSqlSafe(read)).bind(Uuid::from_bytes(*replica.as_bytes()));
            let home = query.fetch_one(&mut connection).await.unwrap().get(0);
            connection.close().await.unwrap();
            home
        }

        async fn write(&self, replica: ReplicaId, home: &str) {
            let mut connection = PgConnection::connect(&direct_url()).await.unwrap();
            let write = format!("UPDATE \"{}\".replicas SET home = $2 WHERE id = $1", self.0.0);
            let query = sqlx::query(AssertSqlSafe(write)).bind(Uuid::from_bytes(*replica.as_bytes())).bind(home);
            query.execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
    let schema = Schema::fresh();
    let stores = [open(&schema).await, open(&schema).await];
    crate::homes::who_has_ended_on_this_host_is_rescued_at_once([&stores[0], &stores[1]], Rows(schema)).await;
}

/// What is done to the tables, and what is said of it.
const DAMAGE: &[(&str, &str)] = &[
    ("UPDATE {s}.tasks SET owner = NULL WHERE id = 'running'", "task running runs without an owner"),
    (
        "UPDATE {s}.tasks SET owner = gen_random_uuid() WHERE id = 'running'",
        "task running runs for a replica that is not there",
    ),
    ("UPDATE {s}.tasks SET claim = 77 WHERE id = 'running'", "task running was taken by a claim"),
    ("UPDATE {s}.tasks SET lane = 77 WHERE id = 'waiting'", "task waiting is of a queue and kind"),
    ("UPDATE {s}.tasks SET finished_at = 1 WHERE id = 'waiting'", "task waiting has ended without an end, or"),
    ("UPDATE {s}.tasks SET stage = 4 WHERE id = 'running'", "task running succeeded and has no result"),
    ("UPDATE {s}.tasks SET flags = 4 WHERE id = 'running'", "task running has a report that is not there"),
    (
        "INSERT INTO {s}.reports SELECT seq, 1, false, NULL, 'x', NULL FROM {s}.tasks WHERE id = 'waiting'",
        "task waiting has a report and",
    ),
    ("INSERT INTO {s}.reports VALUES (77, 1, false, NULL, 'x', NULL)", "1 reports are of tasks that are not there"),
    ("INSERT INTO {s}.tombstones VALUES ('waiting', '\\x00', 0)", "task waiting is there although it was removed"),
    (
        "DROP INDEX {s}.tasks_id; UPDATE {s}.tasks SET id = 'waiting' WHERE id = 'running'",
        "task waiting has an id that another task",
    ),
    ("UPDATE {s}.queues SET paused = true WHERE name = 'q'", "the columns of queue q are not its settings"),
];

#[tokio::test]
async fn verify_finds_what_was_broken_by_hand_and_nothing_else() {
    for (damage, says) in DAMAGE {
        let schema = Schema::fresh();
        let store = open(&schema).await;
        store.set_queue(Name::new("q").unwrap(), QueueSettings::default()).await.unwrap();
        let replica = ReplicaId::generate(&SystemClock);
        store
            .register(NewReplica { id: replica, name: "r".to_owned(), ttl: Duration::from_secs(60), remote: false })
            .await
            .unwrap();
        store.insert(vec![task("running")]).await.unwrap();
        let (kinds, queues) = (vec![Name::new("k").unwrap()], Vec::new());
        let request = ClaimRequest { replica, number: 1, kinds, queues, limit: 1, among: None };
        assert_eq!(store.claim(request).await.unwrap().tasks.len(), 1);
        store.insert(vec![task("waiting")]).await.unwrap();
        assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
        execute(damage.replace("{s}", &format!("\"{}\"", schema.0)));
        let found = store.verify().await.unwrap();
        assert!(found.iter().any(|problem| problem.contains(says)), "{damage}: {found:?}");
    }
}

/// Who opens without migrating makes nothing, and says what to do; looking makes nothing either.
#[tokio::test]
async fn an_operator_chooses_when_to_migrate() {
    let schema = Schema::fresh();
    let options =
        |migrate| PostgresOptions { schema: schema.0.clone(), connections: 2, migrate, ..PostgresOptions::default() };
    let url = direct_url();
    let inspect = async || PostgresStore::inspect(&url, &options(true)).await.unwrap();
    let found = inspect().await;
    assert_eq!((found.schemas[0].found, found.is_current()), (0, false));
    let not_migrated = format!("{url}?migrate=false");
    for (url, options) in [(&url, options(false)), (&not_migrated, options(true))] {
        let refused = PostgresStore::open_with(url, options).await.unwrap_err();
        check(&refused, ErrorKind::Incompatible, password(url));
        assert!(refused.to_string().contains("lts store migrate"), "{refused}");
    }
    assert_eq!(inspect().await.schemas[0].found, 0);
    PostgresStore::open_with(&url, options(true)).await.unwrap();
    let found = inspect().await;
    assert!(found.is_current() && found.bytes > Some(0), "{found:?}");
    assert!(found.durability.contains("fsync = off") || found.durability.starts_with("always"), "{found:?}");
    PostgresStore::open_with(&not_migrated, options(false)).await.unwrap();
    execute(format!("UPDATE \"{}\".versions SET version = 99", schema.0));
    assert_eq!(inspect().await.schemas[0].found, 99);
    let newer = PostgresStore::open_with(&url, options(true)).await.unwrap_err();
    check(&newer, ErrorKind::Incompatible, password(&url));
}

/// A server that takes nothing but TLS, whose certificate is trusted or not, and is of the name asked for or not.
#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_is_used_and_verified_as_the_url_says() {
    let server = tokio::task::spawn_blocking(|| Server::start_with(true)).await.unwrap();
    let (ca, other) = (server.file("ca.pem"), server.file("other.pem"));
    // By another name, which is not in the certificate.
    let by_name = server.url.replace("127.0.0.1", "localhost");
    for (url, query) in [
        (&server.url, String::new()),
        (&server.url, "sslmode=require".to_owned()),
        (&server.url, format!("sslmode=verify-full&sslrootcert={ca}")),
        (&by_name, format!("sslmode=verify-ca&sslrootcert={ca}")),
    ] {
        let store = PostgresStore::open(&format!("{url}?{query}")).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        store.insert(vec![task(if query.is_empty() { "none" } else { &query })]).await.unwrap().remove(0).unwrap();
        assert!(!ids(&store).await.is_empty());
    }
    let text = "certificate";
    for (url, query, kind, says) in [
        (&server.url, "sslmode=disable".to_owned(), ErrorKind::Invalid, "no encryption"),
        (&server.url, "sslmode=verify-full".to_owned(), ErrorKind::Unavailable, text),
        (&server.url, format!("sslmode=verify-ca&sslrootcert={other}"), ErrorKind::Unavailable, text),
        (&by_name, format!("sslmode=verify-full&sslrootcert={ca}"), ErrorKind::Unavailable, text),
        (&server.url, "sslmode=require&sslrootcert=/nowhere".to_owned(), ErrorKind::Invalid, "/nowhere cannot be read"),
        (&server.url, "ssl=true".to_owned(), ErrorKind::Invalid, "the parameter ssl in the URL is unknown"),
    ] {
        let refused = PostgresStore::open(&format!("{url}?{query}")).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{query}: {refused}");
        assert!(refused.to_string().contains(says), "{query}: {refused}");
        check(&refused, kind, password(&server.url));
    }
}
