//! Bad weather for the Redis store: servers of their own that refuse, fill up, die, come back, and fail over.

#![allow(clippy::disallowed_methods, reason = "a real server takes real time: it is asked until it is so")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use light_task_scheduler::results::{LogKey, LogStore, RedisLogs, RedisResults, ResultStore, Stream};
use light_task_scheduler::scheduler::Seen;
use light_task_scheduler::state::RunEvent;
use light_task_scheduler::store::redis::{Durability, RedisOptions, RedisStore};
use light_task_scheduler::store::{
    Answer, Change, Claim, ClaimRequest, Heartbeat, HeartbeatReply, Inserted, NewReplica, Store, SweepRequest,
    TaskQuery,
};
use light_task_scheduler::{
    Config, Context, ErrorKind, FunctionExecutor, Name, NewTask, Payload, QueueSettings, ReplicaId, Result, ResultRef,
    Scheduler, Shutdown, Start, State, SystemClock, Task, TaskId,
};
use tempfile::TempDir;

/// How long a server, a failover or a hint may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(60);

/// A Redis server of this test alone; killed when it is dropped.
struct Server {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
    process: Child,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = Server::spawn(&directory, port, &arguments);
        let server = Server { directory, port, arguments, process };
        server.wait();
        server
    }

    fn spawn(directory: &TempDir, port: u16, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        if let Some(("--sentinel", configuration)) = arguments.first().map(|it| (it.as_str(), &arguments[1])) {
            let path = directory.path().join("sentinel.conf");
            std::fs::write(&path, configuration).expect("a file");
            command.arg(path).arg("--sentinel");
        } else {
            command.args(["--save", ""]).args(arguments);
        }
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]).current_dir(directory.path());
        command.stdout(Stdio::null()).spawn().expect("redis-server is installed: see scripts/servers/redis")
    }

    fn wait(&self) {
        // Whatever it answers, also that it wants a password.
        until("the server answers", || match self.ask(&["PING"]) {
            Ok(_) => true,
            Err(e) => e.code() == Some("NOAUTH"),
        });
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn ask(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(PATIENCE)?;
        let mut asked = redis::Cmd::new();
        command.iter().for_each(|word| _ = asked.arg(*word));
        asked.query(&mut connection)
    }

    fn must(&self, command: &[&str]) -> redis::Value {
        self.ask(command).expect("the server obeys")
    }

    fn info(&self, section: &str) -> String {
        match self.must(&["INFO", section]) {
            redis::Value::BulkString(text) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("dead");
    }

    fn restart(&mut self) {
        self.process = Server::spawn(&self.directory, self.port, &self.arguments);
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks again and again until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

async fn refused(url: &str, options: RedisOptions) -> light_task_scheduler::Error {
    RedisStore::open_with(url, options).await.expect_err("it is refused")
}

fn strict() -> RedisOptions {
    RedisOptions { strict: true, ..RedisOptions::default() }
}

fn task(n: usize) -> NewTask {
    NewTask::new("work", &n).unwrap()
}

async fn replica(store: &dyn Store) -> ReplicaId {
    patiently(|| async {
        let id = ReplicaId::generate(&SystemClock);
        store.register(NewReplica { id, name: "host:1".to_owned(), ttl: TTL, remote: false }).await.map(|()| id)
    })
    .await
}

async fn beat(store: &dyn Store, replica: ReplicaId) -> Result<HeartbeatReply> {
    store.heartbeat(Heartbeat { replica, holdings: None }).await
}

async fn claim(store: &dyn Store, replica: ReplicaId, number: u64, limit: usize) -> Result<Claim> {
    let kinds = vec![Name::new("work").unwrap()];
    store.claim(ClaimRequest { replica, number, kinds, queues: vec![], limit, among: None }).await
}

fn complete(task: &Task) -> Change {
    let event = RunEvent::Complete(ResultRef::Inline(Payload::from_bytes(*b"1")));
    Change { id: task.id.clone(), token: task.record.token().unwrap(), event }
}

/// Calls again and again while the store is away.
async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(e) if e.is_retryable() && start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{:?}: {e}", e.kind()),
        }
    }
}

async fn ids(store: &dyn Store) -> Vec<TaskId> {
    let query = TaskQuery::default();
    let tasks = patiently(|| store.list(&query)).await.tasks;
    tasks.into_iter().map(|task| task.id).collect()
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = Server::start(&["--requirepass", "se/cret"]);
    for url in [server.url(), format!("redis://:wr0ng@127.0.0.1:{}", server.port)] {
        let error = refused(&url, RedisOptions::default()).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("password") && !shown.contains("wr0ng"), "{shown}");
    }
    let store = RedisStore::open(&format!("redis://:se%2Fcret@127.0.0.1:{}", server.port)).await.unwrap();
    let shown = format!("{store:?}");
    assert!(!shown.contains("cret") && shown.contains(&server.port.to_string()), "{shown}");
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).unwrap().port();
    let error = refused(&format!("redis://127.0.0.1:{port}"), RedisOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[tokio::test]
async fn an_evicting_server_is_refused() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = refused(&server.url(), RedisOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("allkeys-lru") && error.to_string().contains("noeviction"), "{error}");
    assert_eq!(RedisResults::open(&server.url(), "n").await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_durability_is_told_and_can_be_demanded() {
    let second = ["--appendonly", "yes", "--appendfsync", "everysec"];
    for (arguments, durability) in
        [(&[][..], Durability::Volatile), (&second[..], Durability::EverySecond), (&ALWAYS[..], Durability::Always)]
    {
        let server = Server::start(arguments);
        assert_eq!(RedisStore::open(&server.url()).await.unwrap().durability(), durability);
        match RedisStore::open_with(&server.url(), strict()).await {
            Ok(store) => assert_eq!(store.durability(), Durability::Always),
            Err(e) => assert!(durability != Durability::Always && e.to_string().contains("appendfsync"), "{e}"),
        }
    }
}

#[tokio::test]
async fn data_of_another_layout_is_refused() {
    let server = Server::start(&[]);
    RedisStore::open(&server.url()).await.unwrap();
    server.must(&["HSET", "{lts:default}:meta", "version", "9"]);
    let error = refused(&server.url(), RedisOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("version 9"), "{error}");
}

#[tokio::test]
async fn a_replica_is_refused_and_a_demoted_master_waited_for() {
    let (master, other) = (Server::start(&[]), Server::start(&[]));
    other.must(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let error = refused(&other.url(), RedisOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("replica"), "{error}");
    let store = RedisStore::open(&master.url()).await.unwrap();
    other.must(&["REPLICAOF", "NO", "ONE"]);
    master.must(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let error = store.insert(vec![task(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("replica"), "{error}");
    master.must(&["REPLICAOF", "NO", "ONE"]);
    assert!(patiently(|| store.insert(vec![task(1)])).await[0].is_ok());
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start(&[]);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let owner = replica(&store).await;
    for number in 1..4 {
        server.must(&["SCRIPT", "FLUSH"]);
        store.insert(vec![task(1)]).await.unwrap();
        server.must(&["SCRIPT", "FLUSH"]);
        let tasks = claim(&store, owner, number, 9).await.unwrap().tasks;
        server.must(&["SCRIPT", "FLUSH"]);
        assert_eq!(store.apply(vec![complete(&tasks[0])]).await.unwrap(), [Answer::Applied(Some(State::Succeeded))]);
    }
}

#[tokio::test]
async fn a_full_server_takes_nothing_new_and_goes_on_with_what_it_has() {
    const BATCH: usize = 50;
    let server = Server::start(&[]);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let owner = replica(&store).await;
    store.insert((0..BATCH).map(task).collect()).await.unwrap();
    let used = server.info("memory").lines().find_map(|line| line.strip_prefix("used_memory:").map(str::to_owned));
    let limit = used.unwrap().trim().parse::<u64>().unwrap() + (2 << 20);
    server.must(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    let (mut accepted, mut refusals) = (BATCH, 0);
    while refusals == 0 {
        let large = || NewTask::with_payload(Name::new("work").unwrap(), Payload::from_bytes(vec![b'x'; 20_000]));
        for answer in store.insert((0..BATCH).map(|_| large()).collect()).await.unwrap() {
            match answer {
                Ok(_) => accepted += 1,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
                    assert!(e.to_string().contains("maxmemory"), "{e}");
                    refusals += 1;
                }
            }
        }
    }
    assert_eq!(ids(&store).await.len(), accepted, "what was refused is not there, what was accepted is");
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    let tasks = claim(&store, owner, 1, BATCH).await.unwrap().tasks;
    assert_eq!(tasks.len(), BATCH);
    beat(&store, owner).await.unwrap();
    assert_eq!(ids(&RedisStore::open(&server.url()).await.unwrap()).await.len(), accepted, "it can be opened");
    let answers = store.apply(tasks.iter().map(complete).collect()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Answer::Applied(Some(State::Succeeded))));
    server.must(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(store.insert(vec![task(1)]).await.unwrap()[0].is_ok());
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_server_comes_back_with_all_that_was_accepted() {
    const BATCH: usize = 20;
    let mut server = Server::start(&ALWAYS);
    let store = RedisStore::open_with(&server.url(), strict()).await.unwrap();
    let owner = replica(&store).await;
    let (mut accepted, mut ended) = (Vec::new(), 0);
    for round in 1..=6_u64 {
        let batch = || (0..BATCH).map(|n| task(n).id(&format!("{round}-{n}")).unwrap()).collect();
        if round % 2 == 0 {
            let (insert, ()) = tokio::join!(store.insert(batch()), async { server.kill() });
            accepted.extend(insert.into_iter().flatten().flatten().map(|it| it.id().clone()));
            assert!(store.insert(batch()).await.unwrap_err().is_retryable(), "nobody is there");
            server.restart();
        }
        // A repetition names the same tasks: those that were accepted are told as there.
        let answers = patiently(|| store.insert(batch())).await;
        accepted.extend(answers.into_iter().map(|answer| answer.unwrap().id().clone()));
        let tasks = patiently(|| claim(&store, owner, round, BATCH / 2)).await.tasks;
        assert_eq!(tasks.len(), BATCH / 2);
        let answers = patiently(|| store.apply(tasks.iter().map(complete).collect())).await;
        assert!(answers.iter().all(|answer| answer.state() == Some(State::Succeeded)), "{answers:?}");
        ended += tasks.len();
    }
    accepted.sort();
    accepted.dedup();
    assert_eq!(accepted.len(), 6 * BATCH);
    let found = store.get(&accepted).await.unwrap();
    assert!(found.iter().all(Option::is_some), "nothing is lost");
    let done = found.iter().flatten().filter(|task| task.record.state == State::Succeeded).count();
    assert_eq!(done, ended);
    assert_eq!(patiently(|| beat(&store, owner)).await.epoch, 0, "no acknowledged write was lost");
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
}

/// Passes everything on between a store and a server, except that it ends within the next answer once it is told to.
async fn cutting(server: u16) -> (String, Arc<AtomicBool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// The beginning of an answer of many values.
    const PASSED_BYTES: usize = 20;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let cut = Arc::new(AtomicBool::new(false));
    let told = cut.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let cut = told.clone();
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let asks = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    let is_last = cut.swap(false, SeqCst);
                    let passed = if is_last { PASSED_BYTES.min(read) } else { read };
                    if to_client.write_all(&buffer[..passed]).await.is_err() || is_last {
                        break;
                    }
                }
                asks.abort();
            });
        }
    });
    (url, cut)
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_asked_for_again() {
    let server = Server::start(&ALWAYS);
    let (url, cut) = cutting(server.port).await;
    let store = RedisStore::open_with(&url, strict()).await.unwrap();
    let inserted = store.insert((0..50).map(task).collect()).await.unwrap();
    let ids: Vec<TaskId> = inserted.into_iter().map(|inserted| inserted.unwrap().id().clone()).collect();
    cut.store(true, SeqCst);
    let error = store.get(&ids).await.unwrap_err();
    assert!(error.is_retryable() && error.kind() == ErrorKind::Unavailable, "{:?}: {error}", error.kind());
    assert!(patiently(|| store.get(&ids)).await.iter().all(Option::is_some));
}

/// Two schedulers share a queue with a limit, and go on when their server was killed and has come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedulers_outlive_their_server() {
    const TASKS: usize = 400;
    const LIMIT: u32 = 7;
    let mut server = Server::start(&ALWAYS);
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let starts: Arc<Vec<AtomicU32>> = Arc::new((0..TASKS).map(|_| AtomicU32::new(0)).collect());
    let functions = || {
        let (running, most, starts) = (running.clone(), most.clone(), starts.clone());
        FunctionExecutor::new().register("work", move |_: Context, n: usize| {
            let (running, most, starts) = (running.clone(), most.clone(), starts.clone());
            async move {
                starts[n].fetch_add(1, SeqCst);
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, SeqCst);
                Ok(n)
            }
        })
    };
    let limit = QueueSettings { concurrency: Some(LIMIT), ..QueueSettings::default() };
    let config = Config { queue_settings: vec![(Name::new("default").unwrap(), limit)], ..Config::default() };
    let mut schedulers = Vec::new();
    for _ in 0..2 {
        let store = RedisStore::open(&server.url()).await.unwrap();
        let builder = Scheduler::builder(store).functions(functions()).config(config.clone());
        schedulers.push(builder.start().await.unwrap());
    }
    let store = RedisStore::open(&server.url()).await.unwrap();
    store.insert((0..TASKS).map(task).collect()).await.unwrap();
    let succeeded = async |at_least: usize| {
        let start = Instant::now();
        loop {
            let done = patiently(|| store.counts()).await[0].of(State::Succeeded) as usize;
            if done >= at_least {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{done} tasks of {at_least} are done");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    succeeded(TASKS / 4).await;
    server.kill();
    server.restart();
    let back = Instant::now();
    succeeded(TASKS * 3 / 4).await;
    assert!(back.elapsed() < Duration::from_secs(10), "work goes on soon after the server is back");
    succeeded(TASKS).await;
    assert!(starts.iter().all(|starts| starts.load(SeqCst) == 1), "each ran once");
    assert!(most.load(SeqCst) <= LIMIT, "{} ran at once", most.load(SeqCst));
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    for scheduler in schedulers {
        scheduler.shutdown(Shutdown::default()).await.unwrap();
    }
}

#[tokio::test]
async fn lost_writes_are_told() {
    let mut server = Server::start(&[]);
    let store = RedisStore::open(&server.url()).await.unwrap();
    let owner = replica(&store).await;
    store.insert(vec![task(1)]).await.unwrap();
    let before = beat(&store, owner).await.unwrap();
    server.kill();
    server.restart();
    let error = loop {
        match beat(&store, owner).await {
            Err(e) if e.is_retryable() => tokio::task::yield_now().await,
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotRegistered, "the replica is lost too: {error}");
    let again = replica(&store).await;
    let after = beat(&store, again).await.unwrap();
    assert_eq!((before.epoch, after.epoch), (0, 1));
    assert!(after.op_seq > before.op_seq && after.now >= before.now);
    let other = RedisStore::open(&server.url()).await.unwrap();
    assert_eq!(beat(&other, again).await.unwrap().epoch, 1, "every handle learns of it");
}

#[tokio::test]
async fn a_hint_of_another_process_comes_without_polling() {
    let server = Server::start(&[]);
    let slow = RedisOptions { poll_interval: Duration::from_secs(3_600), ..RedisOptions::default() };
    let waiter = RedisStore::open_with(&server.url(), slow).await.unwrap();
    let other = RedisStore::open(&server.url()).await.unwrap();
    other.insert(vec![task(0)]).await.unwrap();
    let waits = tokio::spawn(async move {
        let first = waiter.changed(Default::default()).await;
        waiter.changed(first).await
    });
    let start = Instant::now();
    // The subscription takes a moment; a hint before it may be missed, those after it are not.
    while !waits.is_finished() {
        assert!(start.elapsed() < PATIENCE, "no hint came");
        other.insert(vec![task(1)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a store must do wherever its keys are.
async fn smoke(store: &RedisStore) {
    let owner = replica(store).await;
    let inserted = store.insert((0..300).map(task).collect()).await.unwrap();
    assert!(inserted.iter().all(|answer| matches!(answer, Ok(Inserted::New(_)))));
    let tasks = claim(store, owner, 1, 200).await.unwrap().tasks;
    assert_eq!(tasks.len(), 200);
    let answers = store.apply(tasks.iter().map(complete).collect()).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Answer::Applied(Some(State::Succeeded))));
    assert_eq!(store.list(&TaskQuery::default()).await.unwrap().tasks.len(), 300);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts[0].of(State::Succeeded), counts[0].of(State::Waiting)), (200, 100));
    beat(store, owner).await.unwrap();
    store.sweep(SweepRequest { limit: 9, ..SweepRequest::default() }).await.unwrap();
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cluster_keeps_each_namespace_on_one_of_its_nodes() {
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(&["--cluster-enabled", "yes"])).collect();
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let created = Command::new("redis-cli").args(["--cluster", "create"]).args(&hosts).arg("--cluster-yes").output();
    let created = created.expect("redis-cli is installed");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    for node in &nodes {
        until("the cluster is formed", || match node.must(&["CLUSTER", "INFO"]) {
            redis::Value::BulkString(text) => String::from_utf8_lossy(&text).contains("cluster_state:ok"),
            _ => false,
        });
    }
    let url = format!("redis+cluster://{}", hosts.join(","));
    for namespace in ["a", "b", "c", "d", "e", "f"] {
        let options = RedisOptions { namespace: namespace.to_owned(), ..RedisOptions::default() };
        smoke(&RedisStore::open_with(&url, options).await.unwrap()).await;
    }
    let used = nodes.iter().filter(|node| node.must(&["DBSIZE"]) != redis::Value::Int(0)).count();
    assert!(used > 1, "the namespaces are spread");
    let (results, logs) = (RedisResults::open(&url, "a").await.unwrap(), RedisLogs::open(&url, "a").await.unwrap());
    for n in 0..9_u64 {
        let id = TaskId::new(&format!("}}t{n}")).unwrap();
        let saved = results.save(&id, n, &Payload::from_bytes(*b"out")).await.unwrap();
        assert_eq!(results.load(&saved).await.unwrap().as_bytes(), b"out");
        let log = LogKey { id: id.clone(), execution: n, stream: Stream::Stdout };
        assert_eq!(logs.append(&log, 0, b"line").await.unwrap(), 4);
        logs.delete(&id).await.unwrap();
        assert_eq!(logs.len(&log).await.unwrap(), 0);
    }
}

/// A replica takes over that has not seen the last writes: Redis itself loses them, the store says so.
#[tokio::test]
async fn a_failover_is_followed_and_the_loss_told() {
    let mut master = Server::start(&[]);
    let other = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    until("the replica is in step", || other.info("replication").contains("master_link_status:up"));
    let configuration = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 3000\n",
        master.port
    );
    let sentinel = Server::start(&["--sentinel", &configuration]);
    until("the sentinel knows the replica", || match sentinel.must(&["SENTINEL", "REPLICAS", "main"]) {
        redis::Value::Array(replicas) => !replicas.is_empty(),
        _ => false,
    });
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let store = RedisStore::open(&url).await.unwrap();
    let owner = replica(&store).await;
    let kept = store.insert((0..10).map(task).collect()).await.unwrap();
    assert_eq!(beat(&store, owner).await.unwrap().epoch, 0);
    let offset = |server: &Server, field: &str| {
        let info = server.info("replication");
        info.lines().find_map(|line| line.strip_prefix(field).map(|it| it.trim().to_owned()))
    };
    until("the replica has it all", || offset(&master, "master_repl_offset:") == offset(&other, "slave_repl_offset:"));
    // From here on the replica cannot follow: it has no password.
    let mut admin = redis::Client::open(master.url()).and_then(|client| client.get_connection()).unwrap();
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "new"]).exec(&mut admin).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]).exec(&mut admin).unwrap();
    let lost = store.insert((0..10).map(task).collect()).await.unwrap();
    assert_eq!(beat(&store, owner).await.unwrap().epoch, 0);
    master.kill();
    let reply = patiently(|| beat(&store, owner)).await;
    assert_eq!(reply.epoch, 1, "acknowledged writes are gone, and that is told");
    let found = ids(&store).await;
    let is_there = |answer: &Result<Inserted>| found.contains(answer.as_ref().unwrap().id());
    assert!(kept.iter().all(is_there) && !lost.iter().any(is_there));
    assert_eq!(store.verify().await.unwrap(), Vec::<String>::new());
    smoke_after(&store).await;
}

/// The store goes on.
async fn smoke_after(store: &RedisStore) {
    let owner = replica(store).await;
    let tasks = claim(store, owner, 1, 99).await.unwrap().tasks;
    assert_eq!(tasks.len(), 10);
    let answers = store.apply(tasks.iter().map(complete).collect()).await.unwrap();
    assert!(answers.iter().all(|answer| answer.state() == Some(State::Succeeded)));
}

/// What a scheduler knows that its store has lost is named, and nothing starts until whoever ran it has seen that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_names_what_was_lost_and_pauses_its_claims() {
    const TTL: Duration = Duration::from_secs(8);
    let mut server = Server::start(&[]);
    let functions = FunctionExecutor::new().register("work", |_: Context, n: usize| async move { Ok(n) });
    let config = Config { ttl: TTL, ..Config::default() };
    let store = RedisStore::open(&server.url()).await.unwrap();
    let scheduler = Scheduler::builder(store).functions(functions).config(config).start().await.unwrap();
    let mut events = scheduler.subscribe();
    let done = scheduler.submit(task(1)).await.unwrap();
    done.wait().await.unwrap();
    let waiting = scheduler.submit_many((2..5).map(|n| task(n).start(Start::Held)).collect()).await.unwrap();
    let mut known: Vec<TaskId> = waiting.into_iter().map(|handle| handle.unwrap().id().clone()).collect();
    known.push(done.id().clone());
    server.kill();
    // Nothing was written to the disk: all is lost.
    server.restart();
    let mut lost = Vec::new();
    // The end of a task is a write of its own.
    while lost.len() < known.len() + 1 {
        match tokio::time::timeout(PATIENCE, events.next()).await.expect("the losses are told in time") {
            Some(Seen::Lost(id)) => lost.push(id),
            Some(_) => {}
            None => panic!("the scheduler has ended"),
        }
    }
    lost.dedup();
    for ids in [&mut lost, &mut known] {
        ids.sort();
        ids.dedup();
    }
    assert_eq!(lost, known);
    let after = scheduler.submit(task(9)).await.unwrap();
    let after = after.wait().await.unwrap();
    let waited = after.record.started_at.unwrap().since(after.spec.created_at);
    // As long as the ttl, less what it took to tell.
    assert!(waited > TTL / 8, "it was claimed after {waited:?}");
    scheduler.shutdown(Shutdown::default()).await.unwrap();
}
