//! What only the MySQL store has: other people's transactions, the limits of its statements, and bad weather.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use light_task_scheduler::store::sql::{MySqlOptions, MySqlStore};
use light_task_scheduler::store::{
    Changes, ClaimRequest, Inserted, NewReplica, RescueRequest, SweepRequest, TaskQuery,
};
use light_task_scheduler::{
    Config, Context, Error, ErrorKind, FunctionExecutor, Name, NewTask, Payload, QueueSettings, ReplicaId, Result,
    ResultRef, Scheduler, Shutdown, Start, State, Store, SystemClock, TaskId, Timestamp,
};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, MySqlPool, Row};

#[cfg(target_os = "linux")]
use crate::homes::Homes;
use crate::store_mysql::{Database, execute, server_url};

async fn open(database: &Database) -> MySqlStore {
    try_open(&database.url()).await.unwrap()
}

async fn try_open(url: &str) -> Result<MySqlStore> {
    MySqlStore::open_with(url, MySqlOptions { connections: 4, ..MySqlOptions::default() }).await
}

fn task(id: &str) -> NewTask {
    NewTask::new("k", id).unwrap().id(id).unwrap()
}

async fn ids(store: &MySqlStore) -> Vec<String> {
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

/// Registers a replica and claims for it.
async fn claim(store: &MySqlStore, limit: usize) -> Vec<String> {
    let replica = ReplicaId::generate(&SystemClock);
    store
        .register(NewReplica { id: replica, name: "r".to_owned(), ttl: Duration::from_secs(60), remote: false })
        .await
        .unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = ClaimRequest { replica, number: 1, kinds, queues: vec![], limit, among: None };
    store.claim(request).await.unwrap().tasks.iter().map(|task| task.id.to_string()).collect()
}

mod transactions {
    use super::*;

    #[tokio::test]
    async fn a_commit_brings_the_tasks_and_a_rollback_takes_them() {
        let database = Database::fresh();
        let store = open(&database).await;
        let pool = MySqlPool::connect(&database.url()).await.unwrap();
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
        let database = Database::fresh();
        let store = open(&database).await;
        let seen = Changes::default();
        let waiting = store.clone();
        let waiting = tokio::spawn(async move { waiting.changed(seen).await });
        // The first look finds what there is; one that differs from it wakes.
        let pool = MySqlPool::connect(&database.url()).await.unwrap();
        let mut n = 0;
        while !waiting.is_finished() {
            let mut transaction = pool.begin().await.unwrap();
            store.insert_in(&mut transaction, vec![task(&n.to_string())]).await.unwrap();
            transaction.commit().await.unwrap();
            n += 1;
        }
        assert_ne!(waiting.await.unwrap(), seen);
        pool.close().await;
    }

    #[tokio::test]
    async fn one_that_began_before_others_sees_what_they_have_taken_in() {
        let database = Database::fresh();
        let store = open(&database).await;
        let pool = MySqlPool::connect(&database.url()).await.unwrap();
        // REPEATABLE READ, the server's default: from its first read on it sees one state.
        let mut old = pool.begin().await.unwrap();
        sqlx::query("SELECT COUNT(*) FROM lts_tasks").fetch_one(&mut *old).await.unwrap();
        store.insert(vec![task("there").queue("q").unwrap()]).await.unwrap();
        let answers = store.insert_in(&mut old, vec![task("there"), task("new").queue("q").unwrap()]).await.unwrap();
        assert!(matches!(answers[0], Ok(Inserted::Existing(_, State::Waiting))), "{answers:?}");
        assert!(matches!(answers[1], Ok(Inserted::New(_))), "{answers:?}");
        old.commit().await.unwrap();
        assert_eq!(ids(&store).await, ["there", "new"]);
        pool.close().await;
    }

    #[tokio::test]
    async fn a_refused_call_leaves_the_transaction_usable() {
        let database = Database::fresh();
        let store = open(&database).await;
        store.insert(vec![task("there")]).await.unwrap();
        let pool = MySqlPool::connect(&database.url()).await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        store.insert_in(&mut transaction, vec![task("before")]).await.unwrap();
        let other = NewTask::new("other", &1).unwrap().id("there").unwrap();
        let answers = store.insert_in(&mut transaction, vec![other, task("new")]).await.unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
        // Now one that fails: another transaction holds the id for longer than this one waits.
        sqlx::query("SET SESSION innodb_lock_wait_timeout = 1").execute(&mut *transaction).await.unwrap();
        let mut holder = pool.begin().await.unwrap();
        store.insert_in(&mut holder, vec![task("held")]).await.unwrap();
        let error = store.insert_in(&mut transaction, vec![task("broken"), task("held")]).await.unwrap_err();
        check(&error, ErrorKind::Unavailable, password(&server_url()));
        holder.rollback().await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(ids(&store).await, ["there", "before", "new"]);
        pool.close().await;
    }
}

mod statements {
    use super::*;

    /// Bytes that no text type of a server keeps apart, and values at the edges of the columns.
    #[tokio::test]
    async fn what_is_stored_comes_back_as_it_was() {
        let database = Database::fresh();
        let store = open(&database).await;
        let ids = ["a", "A", "a ", "\u{e4}", "a\u{308}", "😀", "a%", "a_", "a\\", "'; DROP TABLE lts_tasks; --"];
        let everything: Vec<u8> = (0..=255).collect();
        let tasks = ids.map(|id| {
            let payload = Payload::from_bytes(everything.clone());
            let mut task = NewTask::with_payload(Name::new("k").unwrap(), payload).id(id).unwrap();
            task = task.label("l", "\0 \n ' \" \\ 😀").unwrap().priority(i32::MIN);
            task.start(Start::At(Timestamp::MAX))
        });
        let answers = store.insert(tasks.to_vec()).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))), "{answers:?}");
        let asked = ids.map(|id| TaskId::new(id).unwrap());
        for (found, new) in store.get(&asked).await.unwrap().into_iter().zip(&tasks) {
            let found = found.unwrap();
            assert_eq!(Some(&found.id), new.id.as_ref());
            assert_eq!((&found.spec.payload, found.spec.priority), (&new.payload, i32::MIN));
            assert_eq!(found.spec.options, new.options);
            assert_eq!(found.record.run_at, Timestamp::MAX);
        }
        let with_label = TaskQuery {
            labels: vec![(Name::new("l").unwrap(), "\0 \n ' \" \\ 😀".to_owned())],
            ..TaskQuery::default()
        };
        assert_eq!(store.list(&with_label).await.unwrap().tasks.len(), ids.len());
        let prefix = TaskQuery { id_prefix: Some("a".to_owned()), ..TaskQuery::default() };
        assert_eq!(store.list(&prefix).await.unwrap().tasks.len(), 6);
    }

    #[tokio::test]
    async fn more_than_one_statement_holds_is_taken_in_whole() {
        const TASKS: usize = 20;
        let database = Database::fresh();
        let store = open(&database).await;
        let large = Payload::from_bytes(vec![7; 1 << 20]);
        let tasks = vec![NewTask::with_payload(Name::new("k").unwrap(), large); TASKS];
        let answers = store.insert(tasks).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))));
        assert_eq!(claim(&store, TASKS).await.len(), TASKS);
    }
}

mod bad_weather {
    use super::*;

    #[tokio::test]
    async fn a_wrong_password_is_told_and_not_shown() {
        let url = server_url().replace(password(&server_url()), "open-sesame");
        let error = MySqlStore::open(&url).await.unwrap_err();
        check(&error, ErrorKind::Invalid, "open-sesame");
        assert!(error.to_string().contains("password"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let error = MySqlStore::open("mysql://me:open-sesame@127.0.0.1:1/work").await.unwrap_err();
        check(&error, ErrorKind::Unavailable, "open-sesame");
        assert!(error.to_string().contains("127.0.0.1:1/work"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_database_is_named() {
        let url = server_url();
        let base = url.rsplit_once('/').unwrap().0;
        let error = MySqlStore::open(&format!("{base}/nowhere")).await.unwrap_err();
        check(&error, ErrorKind::Invalid, password(&url));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_dropped_tables_are_named() {
        let database = Database::fresh();
        let store = open(&database).await;
        let name = database.url().rsplit_once('/').unwrap().1.to_owned();
        execute(format!("UPDATE {name}.lts_versions SET version = 99"));
        let error = try_open(&database.url()).await.unwrap_err();
        check(&error, ErrorKind::Incompatible, password(&server_url()));
        assert!(error.to_string().contains("99"), "{error}");
        execute(format!("DROP TABLE {name}.lts_tasks"));
        check(&store.insert(vec![task("a")]).await.unwrap_err(), ErrorKind::Incompatible, password(&server_url()));
    }

    /// A statement that makes a table commits by itself: what was made before an interruption is no hindrance.
    #[tokio::test]
    async fn tables_that_were_made_half_are_made_whole() {
        let database = Database::fresh();
        drop(open(&database).await);
        let name = database.url().rsplit_once('/').unwrap().1.to_owned();
        execute(format!("UPDATE {name}.lts_versions SET version = 3; DROP TABLE {name}.lts_reports"));
        let store = open(&database).await;
        store.insert(vec![task("a")]).await.unwrap().remove(0).unwrap();
        assert_eq!(claim(&store, 1).await, ["a"]);
    }

    #[tokio::test]
    async fn replicas_from_before_there_were_drains_do_not_drain() {
        let database = Database::fresh();
        let store = open(&database).await;
        assert_eq!(claim(&store, 1).await, Vec::<String>::new());
        drop(store);
        let name = database.url().rsplit_once('/').unwrap().1.to_owned();
        let before = format!("UPDATE {name}.lts_versions SET version = 3");
        execute(format!("{before}; ALTER TABLE {name}.lts_replicas DROP COLUMN draining"));
        let store = open(&database).await;
        let former = store.replicas().await.unwrap().remove(0);
        assert!(!former.draining, "nobody has wished it");
        store.drain(former.id).await.unwrap();
        assert!(store.replicas().await.unwrap()[0].draining);
    }

    #[tokio::test]
    async fn two_that_make_the_tables_at_once_do_not_harm_each_other() {
        let database = Database::fresh();
        let url = database.url();
        let opened = (0..4).map(|_| {
            let url = url.clone();
            tokio::spawn(async move { try_open(&url).await })
        });
        for store in opened.collect::<Vec<_>>() {
            store.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn bad_options_are_refused() {
        let bad = [
            MySqlOptions { prefix: "a`; DROP".to_owned(), ..MySqlOptions::default() },
            MySqlOptions { prefix: "x".repeat(41), ..MySqlOptions::default() },
            MySqlOptions { connections: 0, ..MySqlOptions::default() },
            MySqlOptions { poll_interval: Duration::ZERO, ..MySqlOptions::default() },
        ];
        for options in bad {
            let error = MySqlStore::open_with(&server_url(), options).await.unwrap_err();
            check(&error, ErrorKind::Invalid, password(&server_url()));
        }
    }

    #[tokio::test]
    async fn lost_connections_are_replaced_without_an_error() {
        let database = Database::fresh();
        let store = open(&database).await;
        let name = database.url().rsplit_once('/').unwrap().1.to_owned();
        for round in 0..5 {
            let calls = (0..4).map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.insert(vec![task(&format!("{round}.{n}"))]).await })
            });
            for call in calls.collect::<Vec<_>>() {
                assert!(matches!(call.await.unwrap().unwrap()[..], [Ok(Inserted::New(_))]));
            }
            assert!(cut_connections(&name).await > 0);
        }
        assert_eq!(ids(&store).await.len(), 20);
    }

    /// Ends every session that works in this database, as a restart of the server would.
    async fn cut_connections(database: &str) -> usize {
        let mut connection = MySqlConnection::connect(&server_url()).await.unwrap();
        let sessions = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?";
        let found = sqlx::query(sessions).bind(database).fetch_all(&mut connection).await.unwrap();
        for row in &found {
            let kill = format!("KILL {}", row.try_get::<i64, _>(0).unwrap());
            // One may have ended by itself.
            let _ = sqlx::raw_sql(AssertSqlSafe(kill)).execute(&mut connection).await;
        }
        connection.close().await.unwrap();
        found.len()
    }

    #[tokio::test]
    async fn a_dropped_call_is_done_whole_or_not_at_all_and_breaks_nothing() {
        let database = Database::fresh();
        let store = open(&database).await;
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
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers/mariadb")
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
        let line = said.lines().find_map(|line| line.strip_prefix("export LTS_TEST_MYSQL_URL="));
        line.expect("the script tells the URL").to_owned()
    }

    #[cfg(feature = "tls")]
    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).unwrap().trim().to_owned();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        while Path::new("/proc").join(&pid).join("exe").exists() {
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

/// What was answered is there after a kill; while the server is away, calls fail as unavailable. A server that
/// takes no writes is told from one that is broken.
#[tokio::test]
async fn a_server_that_is_killed_and_started_again_has_lost_nothing() {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let store = MySqlStore::open(&server.url).await.unwrap();
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

    let mut connection = MySqlConnection::connect(&server.url).await.unwrap();
    // A user without the right to write in spite of it, as all but administrators are.
    for statement in
        ["CREATE USER reader IDENTIFIED BY 'open-sesame'", "GRANT ALL ON lts.* TO reader", "SET GLOBAL read_only = ON"]
    {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    let url = server.url.replace("lts:", "reader:").replace(password(&server.url), "open-sesame");
    let store = MySqlStore::open(&url).await.unwrap();
    assert_eq!(store.counts().await.unwrap().len(), 1);
    check(&store.insert(vec![task("a")]).await.unwrap_err(), ErrorKind::Unavailable, "open-sesame");
    drop(store);
    sqlx::raw_sql("SET GLOBAL read_only = OFF").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What a server has counted since it was started.
async fn counted(connection: &mut MySqlConnection, name: &str) -> u64 {
    let asked = format!("SHOW GLOBAL STATUS LIKE '{name}'");
    let row = sqlx::raw_sql(AssertSqlSafe(asked)).fetch_one(connection).await.unwrap();
    row.try_get_unchecked::<String, _>(1).unwrap().parse().unwrap()
}

/// Calls of one task each are written in groups, several at a time. None may undo another one, nor prepare a statement
/// for a single use: closing it costs what TCP delays an acknowledgement by.
#[tokio::test]
async fn groups_of_small_calls_meet_no_deadlock_and_keep_their_statements() {
    const CALLERS: usize = 50;
    const CALLS: usize = 20;
    const QUEUES: usize = 5;
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    // As two processes have them.
    let stores = [MySqlStore::open(&server.url).await.unwrap(), MySqlStore::open(&server.url).await.unwrap()];
    let of_queue = |task: NewTask, n: usize| task.queue(&format!("q{}", n % QUEUES)).unwrap();
    let first = |n| of_queue(NewTask::new("k", &n).unwrap(), n);
    stores[0].insert((0..QUEUES).map(first).collect()).await.unwrap();
    let mut connection = MySqlConnection::connect(&server.url).await.unwrap();
    let mut before = Vec::new();
    for name in ["Innodb_deadlocks", "Com_stmt_close"] {
        before.push(counted(&mut connection, name).await);
    }
    let callers = (0..CALLERS).map(|caller| {
        let store = stores[caller % stores.len()].clone();
        tokio::spawn(async move {
            for call in 0..CALLS {
                // With an id of the caller's, or one that is made here.
                let own = (call % 2 == 0).then(|| task(&format!("{caller}.{call}")));
                let new = own.unwrap_or_else(|| NewTask::new("k", &call).unwrap());
                let new = new.queue(&format!("q{}", (caller + call) % QUEUES)).unwrap();
                store.insert(vec![new]).await.unwrap().remove(0).unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let there: u64 = stores[0].counts().await.unwrap().iter().map(|queue| queue.of(State::Waiting)).sum();
    assert_eq!(there, (CALLERS * CALLS + QUEUES) as u64);
    let mut after = Vec::new();
    for name in ["Innodb_deadlocks", "Com_stmt_close"] {
        after.push(counted(&mut connection, name).await);
    }
    assert_eq!(after, before, "deadlocks, and statements that were closed");
    connection.close().await.unwrap();
}

/// A scheduler without work asks at most five times a second: counted by the server from one heartbeat to the one
/// after the next. It finds work of others all the same.
#[tokio::test]
async fn an_idle_replica_asks_little_and_still_finds_work() {
    const STATEMENTS_PER_SECOND: u64 = 5;
    const HEARTBEATS: i64 = 2;
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let functions = FunctionExecutor::new().register("k", async |_: Context, n: u32| Ok(n));
    let config = Config::default();
    let allowed = config.ttl.as_secs() / 3 * HEARTBEATS.unsigned_abs() * STATEMENTS_PER_SECOND;
    let store = MySqlStore::open(&server.url).await.unwrap();
    let scheduler = Scheduler::builder(store).functions(functions).config(config).start().await.unwrap();
    let mut connection = MySqlConnection::connect(&server.url).await.unwrap();
    let mut asked = 0;
    let mut beat_of = async |connection: &mut MySqlConnection, least: i64| loop {
        let row = sqlx::raw_sql("SELECT CAST(beat AS SIGNED) FROM lts_replicas").fetch_one(&mut *connection).await;
        asked += 1;
        let beat = row.unwrap().try_get_unchecked::<i64, _>(0).unwrap();
        if beat >= least {
            return (beat, asked);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // Registering beats once; what a start asks is over with the beat after that.
    let (beat, own) = beat_of(&mut connection, 2).await;
    let before = counted(&mut connection, "Questions").await - own;
    let (_, own) = beat_of(&mut connection, beat + HEARTBEATS).await;
    // The first question of how many there were is in the second answer.
    let statements = counted(&mut connection, "Questions").await - own - 1 - before;
    assert!(statements > 0 && statements <= allowed, "{statements} statements, {allowed} are allowed");
    println!("counted: {statements} statements of an idle replica in {HEARTBEATS} heartbeats (MariaDB)");

    let other = MySqlStore::open(&server.url).await.unwrap();
    let task = other.insert(vec![NewTask::new("k", &7).unwrap()]).await.unwrap().remove(0).unwrap().id().clone();
    assert_eq!(scheduler.handle(&task).wait().await.unwrap().record.state, State::Succeeded);
    scheduler.shutdown(Shutdown::default()).await.unwrap();
    connection.close().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_has_ended_on_this_host_is_rescued_at_once() {
    struct Rows(Database);
    impl Homes for Rows {
        async fn read(&self, replica: ReplicaId) -> String {
            let mut connection = MySqlConnection::connect(&self.0.url()).await.unwrap();
            let query = sqlx::query("SELECT home FROM lts_replicas WHERE id = ?").bind(replica.as_bytes().to_vec());
            let home: Vec<u8> = query.fetch_one(&mut connection).await.unwrap().get(0);
            connection.close().await.unwrap();
            String::from_utf8(home).unwrap()
        }

        async fn write(&self, replica: ReplicaId, home: &str) {
            let mut connection = MySqlConnection::connect(&self.0.url()).await.unwrap();
            let query = sqlx::query("UPDATE lts_replicas SET home = ? WHERE id = ?").bind(home.as_bytes());
            query.bind(replica.as_bytes().to_vec()).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
    let database = Database::fresh();
    let stores = [open(&database).await, open(&database).await];
    crate::homes::who_has_ended_on_this_host_is_rescued_at_once([&stores[0], &stores[1]], Rows(database)).await;
}

/// What is done to the tables, and what is said of it.
const DAMAGE: &[(&str, &str)] = &[
    ("UPDATE lts_tasks SET owner = REPEAT(x'00', 16) WHERE id = 'running'", "task running runs without an owner"),
    (
        "UPDATE lts_tasks SET started_at = 0 WHERE id = 'running'",
        "task running runs without an owner, a run or a start",
    ),
    (
        "UPDATE lts_tasks SET owner = REPEAT(x'01', 16) WHERE id = 'running'",
        "task running runs for a replica that is not there",
    ),
    ("UPDATE lts_tasks SET claim = 77 WHERE id = 'running'", "task running was taken by a claim"),
    ("UPDATE lts_tasks SET lane = 77 WHERE id = 'waiting'", "task waiting is of a queue and kind"),
    ("UPDATE lts_tasks SET finished_at = 1 WHERE id = 'waiting'", "task waiting has ended without an end, or"),
    ("UPDATE lts_tasks SET stage = 4 WHERE id = 'running'", "task running succeeded and has no result"),
    ("UPDATE lts_tasks SET flags = 4 WHERE id = 'running'", "task running has a report that is not there"),
    (
        "INSERT INTO lts_reports SELECT seq, 1, 0, NULL, 'x', NULL FROM lts_tasks WHERE id = 'waiting'",
        "task waiting has a report and",
    ),
    ("INSERT INTO lts_reports VALUES (77, 1, 0, NULL, 'x', NULL)", "1 reports are of tasks that are not there"),
    (
        "INSERT INTO lts_tombstones VALUES ('waiting', REPEAT(x'00', 16), 0)",
        "task waiting is there although it was removed",
    ),
    ("UPDATE lts_tasks SET id = 'waiting' WHERE id = 'running'", "task waiting has an id that another task"),
    ("DELETE FROM lts_ids WHERE id = 'waiting'", "task waiting is not found by its id"),
    ("UPDATE lts_ids SET id = 'other' WHERE id = 'waiting'", "1 ids lead to tasks that do not have them"),
    ("UPDATE lts_tasks SET deadline = 1 WHERE id = 'waiting'", "task waiting has a deadline that no claim sees"),
    ("INSERT INTO lts_deadlines SELECT seq, 1 FROM lts_tasks WHERE id = 'running'", "1 deadlines are of tasks that do"),
    ("UPDATE lts_tasks SET stage = 0 WHERE id = 'waiting'", "task waiting is not listed among those of its state"),
    ("INSERT INTO lts_rare SELECT 5, seq FROM lts_tasks WHERE id = 'waiting'", "1 tasks are listed among those of a"),
    ("UPDATE lts_tasks SET flags = 8 WHERE id = 'waiting'", "task waiting has the result null and"),
    ("UPDATE lts_queues SET paused = 1 WHERE name = 'q'", "the columns of queue q are not its settings"),
];

#[tokio::test]
async fn verify_finds_what_was_broken_by_hand_and_nothing_else() {
    for (damage, says) in DAMAGE {
        let database = Database::fresh();
        let store = open(&database).await;
        store.set_queue(Name::new("q").unwrap(), QueueSettings::default()).await.unwrap();
        store.insert(vec![task("running")]).await.unwrap();
        assert_eq!(claim(&store, 1).await, ["running"]);
        store.insert(vec![task("waiting")]).await.unwrap();
        assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
        execute(format!("USE {}; {damage}", database.name()));
        let found = store.verify().await.unwrap();
        assert!(found.iter().any(|problem| problem.contains(says)), "{damage}: {found:?}");
        // The connection was given back in order.
        store.set_queue(Name::new("after").unwrap(), QueueSettings::default()).await.unwrap();
    }
}

/// The tables as each earlier release has made them, one step after the other.
const STEPS: [&str; 4] = [
    include_str!("../../src/store/sql/migrations/mysql/0001_tasks.sql"),
    include_str!("../../src/store/sql/migrations/mysql/0002_homes.sql"),
    include_str!("../../src/store/sql/migrations/mysql/0003_ids.sql"),
    include_str!("../../src/store/sql/migrations/mysql/0004_drains.sql"),
];
/// Tasks in every state, as those releases have written them: what each has of lane, stage, place in order, times and the
/// rest. The owner is a replica that is dead.
const OLD_ROWS: &str = "INSERT INTO lts_lanes VALUES (1, 'default', 'k');
    INSERT INTO lts_replicas (id, name, ttl, beat, expires_at, dead, claim) VALUES (REPEAT(x'07', 16), 'old', 1, 1, 1, 1, 3);
    INSERT INTO lts_tasks (id, lane, stage, nice, run_at, created_at, payload, deadline, owner, claim, run, execution,
        attempt, started_at, finished_at, details, result, flags, options) VALUES
    ('held', 1, 0, -1, 1, 1, '1', NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL),
    ('later', 1, -1, -1, 9000000000000000, 1, '1', NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL),
    ('ready', 1, 1, -1, 1, 1, '1', NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL),
    ('first', 1, 1, -6, 1, 1, '1', NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL),
    ('overdue', 1, 1, -1, 1, 1, '1', 5, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, 0, '{\"deadline\":\"1970-01-01T00:00:00.000005Z\"}'),
    ('running', 1, 2, -1, 1, 1, '1', NULL, REPEAT(x'07', 16), 3, 1, 1, 1, 2, NULL, NULL, NULL, 0, NULL),
    ('nobody', 1, 3, -1, 1, 1, '1', NULL, NULL, NULL, 1, 1, 1, 2, NULL, NULL, 'null', 0, NULL),
    ('succeeded', 1, 4, -1, 1, 1, '1', NULL, NULL, NULL, 1, 1, 1, 2, 3, NULL, 'null', 0, NULL),
    ('failed', 1, 5, -1, 1, 1, '1', NULL, NULL, NULL, 1, 1, 1, 2, 4, NULL, NULL, 0, NULL),
    ('cancelled', 1, 6, -1, 1, 1, '1', NULL, NULL, NULL, 0, 0, 0, NULL, 5, NULL, NULL, 1, NULL);";

/// Tasks in every state are what they were once the tables of an earlier release have become those of this one, also
/// when that is interrupted after any of its statements.
#[tokio::test]
async fn tables_of_every_earlier_release_become_those_of_this_one() {
    for steps in 1..=STEPS.len() {
        let database = Database::fresh();
        let statements = STEPS[..steps].iter().flat_map(|step| step.split(";\n"));
        let statements: Vec<&str> = statements.filter(|statement| !statement.trim().is_empty()).collect();
        let (made, sql) = (statements.len(), statements.join(";\n").replace("{p}", "lts_"));
        execute(format!(
            "USE {}; {sql};
            CREATE TABLE lts_versions (component VARBINARY(100) NOT NULL PRIMARY KEY, version INT NOT NULL);
            INSERT INTO lts_versions VALUES ('tasks', {made}); {OLD_ROWS}",
            database.name()
        ));
        check_old_tasks(&open(&database).await).await;
        // As if it had been interrupted before it could note the last statement, or the one before it …
        for version in made..made + 6 {
            execute(format!("UPDATE {}.lts_versions SET version = {version}", database.name()));
            assert_eq!(open(&database).await.verify().await.unwrap(), Vec::<String>::new(), "from {version}");
        }
    }
}

async fn check_old_tasks(store: &MySqlStore) {
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    let of = async |state| {
        let page = store.list(&TaskQuery { states: vec![state], ..TaskQuery::default() }).await.unwrap();
        page.tasks.iter().map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    let expected: [&[&str]; 7] = [
        &["held"],
        &["overdue", "first", "ready", "later"],
        &["running"],
        &["nobody"],
        &["succeeded"],
        &["failed"],
        &["cancelled"],
    ];
    for (state, ids) in State::ALL.into_iter().zip(expected) {
        assert_eq!(of(state).await, ids, "{state:?}");
    }
    let known = ["succeeded", "held", "nobody"].map(|id| TaskId::new(id).unwrap());
    let tasks = store.get(&known).await.unwrap();
    let [ended, held, exported] = &tasks[..] else { panic!("{tasks:?}") };
    let ended = &ended.as_ref().unwrap().record;
    assert_eq!(ended.finished_at, Some(Timestamp::from_micros(3)));
    assert_eq!(ended.result(), Some(&ResultRef::Inline(Payload::from_bytes(&b"null"[..]))));
    let held = &held.as_ref().unwrap().record;
    assert_eq!((held.owner, held.started_at, held.finished_at), (None, None, None));
    assert_eq!(exported.as_ref().unwrap().record.owner, None);
    assert!(matches!(store.insert(vec![task("held")]).await.unwrap()[..], [Err(_)]), "of another payload");
    assert_eq!(claim(store, 9).await, ["first", "ready"]);
    assert_eq!(of(State::Failed).await, ["failed", "overdue"]);
    let replica = ReplicaId::generate(&SystemClock);
    let new = NewReplica { id: replica, name: "r".to_owned(), ttl: Duration::from_secs(60), remote: false };
    store.register(new).await.unwrap();
    let kinds = vec![Name::new("k").unwrap()];
    let request = RescueRequest { replica, suspects: vec![], kinds, queues: vec![], limit: 9 };
    let mut rescued: Vec<_> =
        store.rescue(request).await.unwrap().tasks.iter().map(|task| task.id.to_string()).collect();
    rescued.sort();
    assert_eq!(rescued, ["nobody", "running"]);
    let states = vec![State::Succeeded, State::Cancelled, State::Failed];
    let old = SweepRequest { states, older_than: Some(Duration::from_secs(60)), limit: 2, ..SweepRequest::default() };
    assert_eq!(store.sweep(old).await.unwrap().removed, 2, "the oldest first");
    assert_eq!((of(State::Succeeded).await.len(), of(State::Cancelled).await.len()), (0, 1));
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
}

/// Who opens without migrating makes nothing, and says what to do; looking makes nothing either.
#[tokio::test]
async fn an_operator_chooses_when_to_migrate() {
    let database = Database::fresh();
    let url = database.url();
    let options = |migrate| MySqlOptions { connections: 2, migrate, ..MySqlOptions::default() };
    let inspect = async || MySqlStore::inspect(&url, &options(true)).await.unwrap();
    let found = inspect().await;
    assert_eq!((found.schemas[0].found, found.is_current()), (0, false));
    let not_migrated = format!("{url}?migrate=false");
    for (url, options) in [(&url, options(false)), (&not_migrated, options(true))] {
        let refused = MySqlStore::open_with(url, options).await.unwrap_err();
        check(&refused, ErrorKind::Incompatible, password(url));
        assert!(refused.to_string().contains("lts store migrate"), "{refused}");
    }
    assert_eq!(inspect().await.schemas[0].found, 0);
    MySqlStore::open_with(&url, options(true)).await.unwrap();
    let found = inspect().await;
    assert!(found.is_current() && found.bytes > Some(0) && found.engine == "MariaDB", "{found:?}");
    MySqlStore::open_with(&not_migrated, options(false)).await.unwrap();
    execute(format!("UPDATE {}.lts_versions SET version = version - 1", database.name()));
    let older = MySqlStore::open_with(&url, options(false)).await.unwrap_err();
    check(&older, ErrorKind::Incompatible, password(&url));
    assert!(older.to_string().contains("lts store migrate"), "{older}");
    MySqlStore::open_with(&url, options(true)).await.unwrap();
    assert!(inspect().await.is_current());
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
        (&server.url, "ssl-mode=required".to_owned()),
        (&server.url, format!("ssl-mode=verify_identity&ssl-ca={ca}")),
        (&by_name, format!("ssl-mode=verify_ca&ssl-ca={ca}")),
    ] {
        let store = MySqlStore::open(&format!("{url}?{query}")).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        store.insert(vec![task(if query.is_empty() { "none" } else { &query })]).await.unwrap().remove(0).unwrap();
        assert!(!ids(&store).await.is_empty());
    }
    let text = "certificate";
    for (url, query, kind, says) in [
        (&server.url, "ssl-mode=disabled".to_owned(), ErrorKind::Invalid, "Access denied"),
        (&server.url, "ssl-mode=verify_identity".to_owned(), ErrorKind::Unavailable, text),
        (&server.url, format!("ssl-mode=verify_ca&ssl-ca={other}"), ErrorKind::Unavailable, text),
        (&by_name, format!("ssl-mode=verify_identity&ssl-ca={ca}"), ErrorKind::Unavailable, text),
        (&server.url, "ssl-mode=required&ssl-ca=/nowhere".to_owned(), ErrorKind::Invalid, "/nowhere cannot be read"),
        (
            &server.url,
            "sslrootcert=x".to_owned(),
            ErrorKind::Invalid,
            "the parameter sslrootcert in the URL is unknown",
        ),
    ] {
        let refused = MySqlStore::open(&format!("{url}?{query}")).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{query}: {refused}");
        assert!(refused.to_string().contains(says), "{query}: {refused}");
        check(&refused, kind, password(&server.url));
    }
}
