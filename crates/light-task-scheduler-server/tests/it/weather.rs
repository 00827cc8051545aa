//! Bad weather between the program and its store: lost replies, silence, refusals, wrong addresses and passwords, locks.
//! A clear error or a calm wait, nothing lost, nothing run twice, and no password anywhere.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::state::RunEvent;
use light_task_scheduler::store::{Answer, BATCH_MAX, Change, ClaimRequest, Heartbeat, NewReplica, TaskQuery};
use light_task_scheduler::{
    Name, NewTask, Payload, QueueSettings, ReplicaId, Result, ResultRef, State, Store, SystemClock, Task,
};

use crate::measured::{Bound, Times};
use crate::proxy::{Fate, Proxy};
use crate::servers::{Home, Kind};
use crate::support::Place;
use crate::witness::{Stopwatch, check, lines, wait};

/// How often a reply is lost to each of the calls.
const LOST_REPLIES: (&str, u64) = ("LTS_LOST_REPLIES", 5);
/// How many tasks each claim takes.
const CLAIM: usize = 3;
/// How long a call is repeated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// By when others can claim after one has fallen silent in the middle of a claim: the server gives its transaction up.
const SILENCE_BLOCKS_MAX: Duration = Duration::from_secs(15);
/// How much more may be asked of a store that does not answer than of one that works.
const STORM: u64 = 2;
/// How long the store does not answer.
const OUTAGE: Duration = Duration::from_secs(8);
const RESUMPTION: Bound = Bound::of(5, "first command after the way to the store was open again");
/// The exit codes for bad requests and for a store that cannot be reached.
const USAGE: i32 = 2;
const NO_STORE: i32 = 6;

/// The bytes that begin the end of a write.
fn commit(kind: Kind) -> &'static str {
    match kind {
        Kind::Redis => "EVALSHA",
        // As a whole statement: not that of a level of isolation.
        Kind::Postgres => "COMMIT\0",
        _ => "COMMIT",
    }
}

/// The bytes in the write of the ends of tasks, of which this is one. PostgreSQL's store needs one statement for
/// successes, which is a transaction by itself: nothing begins its commit, but the ids are in it.
fn ends(kind: Kind, id: &str) -> &str {
    if kind == Kind::Postgres { id } else { commit(kind) }
}

/// Repeats a call while the store is away.
async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> T {
    let begun = Stopwatch::start();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_retryable() && begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn task(id: &str) -> NewTask {
    NewTask::new("k", id).unwrap().id(id).unwrap()
}

pub(crate) async fn register(store: &dyn Store) -> ReplicaId {
    let id = ReplicaId::generate(&SystemClock);
    let replica = NewReplica { id, name: "r".to_owned(), ttl: Duration::from_secs(600), remote: false };
    patiently(|| store.register(replica.clone())).await;
    id
}

/// Claims all that waits.
pub(crate) async fn claim_all(store: &dyn Store, replica: ReplicaId) -> Vec<Task> {
    let request = ClaimRequest { limit: BATCH_MAX, ..request(replica, 1) };
    patiently(|| store.claim(request.clone())).await.tasks
}

fn request(replica: ReplicaId, number: u64) -> ClaimRequest {
    ClaimRequest { replica, number, kinds: vec![Name::new("k").unwrap()], queues: vec![], limit: CLAIM, among: None }
}

pub(crate) fn complete(task: &Task) -> Change {
    let event = RunEvent::Complete(ResultRef::Inline(Payload::from_bytes(*b"1")));
    Change { id: task.id.clone(), token: task.record.token().unwrap(), event }
}

async fn all(store: &dyn Store) -> Vec<Task> {
    store.list(&TaskQuery::default()).await.unwrap().tasks
}

/// The server has done what was asked, and the connection breaks before the answer arrives: whoever repeats the call
/// gets the same tasks, ends and insertions, once.
async fn replies_are_lost(kind: Kind) {
    let rounds: u64 = std::env::var(LOST_REPLIES.0).map_or(LOST_REPLIES.1, |text| text.parse().unwrap());
    let home = Home::new(kind);
    let server = home.server().unwrap();
    let proxy = Proxy::to(&server.address());
    let store = home.open_at(&proxy.url(&server.url, &server.address())).await.unwrap();
    let owner = register(&*store).await;
    let lose = || proxy.next(commit(kind), Fate::ReplyLost);
    // The scripts of Redis are known from then on.
    let warm = store.insert(vec![task("warm")]).await.unwrap();
    assert!(warm[0].is_ok());
    let warm = store.claim(request(owner, 1)).await.unwrap().tasks;
    store.apply(warm.iter().map(complete).collect()).await.unwrap();
    store.heartbeat(Heartbeat { replica: owner, holdings: None }).await.unwrap();
    for round in 0..rounds {
        lose();
        let batch = || (0..CLAIM).map(|n| task(&format!("{round}.{n}"))).collect();
        assert!(patiently(|| store.insert(batch())).await.iter().all(Result::is_ok));
        lose();
        let claimed = patiently(|| store.claim(request(owner, round + 2))).await.tasks;
        assert_eq!(claimed.len(), CLAIM, "the same claim takes the same tasks");
        lose();
        patiently(|| store.heartbeat(Heartbeat { replica: owner, holdings: None })).await;
        proxy.next(ends(kind, claimed[0].id.to_string().as_str()), Fate::ReplyLost);
        let answers = patiently(|| store.apply(claimed.iter().map(complete).collect())).await;
        assert!(answers.iter().all(|answer| answer.state() == Some(State::Succeeded)), "{answers:?}");
    }
    assert_eq!(proxy.happened(), rounds * 4, "every call has lost a reply");
    let tasks = all(&*store).await;
    assert_eq!(tasks.len() as u64, rounds * CLAIM as u64 + 1, "nothing is lost, nothing is there twice");
    for Task { id, record, .. } in &tasks {
        assert_eq!((record.state, record.attempt, record.run), (State::Succeeded, 1, 1), "{id}");
    }
    println!("counted: {} replies lost", proxy.happened());
}

/// A replica falls silent in the middle of a claim, with its locks held: others claim soon, also in the same queue;
/// it gets an error, and goes on when it can.
async fn one_falls_silent(kind: Kind) {
    let home = Home::new(kind);
    let server = home.server().unwrap();
    let proxy = Proxy::to(&server.address());
    let there = home.open_at(&server.url).await.unwrap();
    let silent = home.open_at(&proxy.url(&server.url, &server.address())).await.unwrap();
    let (one, other) = (register(&*silent).await, register(&*there).await);
    let limit = QueueSettings { concurrency: Some(2 * CLAIM as u32), ..QueueSettings::default() };
    there.set_queue(Name::new("default").unwrap(), limit).await.unwrap();
    // As above. Nothing that it has done is to be told to others, so the next commit that it asks for is that of its claim.
    silent.claim(request(one, 1)).await.unwrap();
    there.insert((0..2 * CLAIM).map(|n| task(&n.to_string())).collect()).await.unwrap();
    proxy.next(commit(kind), Fate::Silence);
    let call = tokio::spawn({
        let silent: Arc<dyn Store> = silent.clone();
        async move { silent.claim(request(one, 2)).await }
    });
    while proxy.happened() == 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let since = Stopwatch::start();
    let claimed = patiently(|| there.claim(request(other, 1))).await.tasks;
    let blocked = since.elapsed();
    assert_eq!(claimed.len(), CLAIM);
    assert!(blocked < SILENCE_BLOCKS_MAX, "one that is silent has blocked others for {blocked:?}");
    let error = call.await.unwrap().expect_err("nobody has answered");
    let noticed = since.elapsed();
    assert!(error.is_retryable() && noticed < PATIENCE, "{noticed:?}: {error}");
    let again = patiently(|| silent.claim(request(one, 2))).await.tasks;
    assert_eq!(again.len(), CLAIM, "it goes on");
    let both: Vec<Change> = claimed.iter().chain(&again).map(complete).collect();
    let answers = patiently(|| silent.apply(both.clone())).await;
    assert!(answers.iter().all(|answer| *answer == Answer::Applied(Some(State::Succeeded))), "{answers:?}");
    assert!(all(&*there).await.iter().all(|task| task.record.run == 1));
    println!("measured: others were blocked for {blocked:.1?}, the silence was noticed after {noticed:.1?}");
}

/// The way to the store is cut for a while: the batch waits, asks little, and goes on at once.
fn the_way_is_cut(kind: Kind) {
    const COMMANDS: u32 = 300;
    const LIMIT: usize = 4;
    let (home, place) = (Home::new(kind), Place::new());
    let server = home.server().unwrap();
    let proxy = Proxy::to(&server.address());
    let url = proxy.url(&server.url, &server.address());
    place.write("f", &lines(COMMANDS, Duration::from_millis(100)));
    // Not on the command line: there everybody on this host could read the password.
    let mut command = place.command(&["batch", "f", "--concurrency", &LIMIT.to_string()]);
    command.env("LTS_STORE", &url).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let batch = crate::support::Running::new(command.spawn().unwrap());
    let started = || place.read("witness").lines().filter(|line| line.starts_with("start")).count();
    while started() < LIMIT * 2 {
        wait(PAUSE);
    }
    no_password_in_processes(&place, server.password());
    let (before, since) = (proxy.asked(), Stopwatch::start());
    wait(OUTAGE / 2);
    let (normal, took) = (proxy.asked() - before, since.elapsed());
    proxy.refuse();
    let (before, since) = (proxy.asked(), Stopwatch::start());
    wait(OUTAGE);
    let (asked, cut) = (proxy.asked() - before, since.elapsed());
    let per_second = |n: u64, time: Duration| n as f64 / time.as_secs_f64();
    println!(
        "asked per second: {:.1} while it worked, {:.1} while cut off",
        per_second(normal, took),
        per_second(asked, cut)
    );
    assert!(per_second(asked, cut) <= per_second(normal * STORM, took), "a storm of retries");
    let held = started();
    proxy.admit();
    let since = Stopwatch::start();
    while started() == held {
        assert!(since.elapsed() < PATIENCE, "nothing is started any more");
        wait(Duration::from_millis(5));
    }
    Times::from_iter([since.elapsed()]).say(&RESUMPTION);
    let said = batch.end();
    assert_eq!((said.code, said.counts()), (0, [COMMANDS, COMMANDS, 0, 0]), "{said:?}");
    check(&place.read("witness"), COMMANDS, LIMIT);
    place.assert_no_process_stays();
    let shown = format!("{}{}", said.stdout, said.stderr);
    no_password(&shown, server.password());
    no_password_in_files(&place, server.password());
}

fn no_password(shown: &str, password: Option<&str>) {
    assert!(!password.is_some_and(|password| shown.contains(password)), "a password is shown: {shown}");
}

/// Neither the program nor what it starts has the password on its command line.
fn no_password_in_processes(place: &Place, password: Option<&str>) {
    let commands = place.processes();
    assert!(commands.len() > 1, "{commands:?}");
    commands.iter().for_each(|command| no_password(command, password));
}

/// Nor is it in any file that the program leaves.
fn no_password_in_files(place: &Place, password: Option<&str>) {
    let mut directories = vec![place.path("")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => directories.push(entry.path()),
                kind if kind.is_file() => {
                    no_password(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap()), password);
                }
                _ => {}
            }
        }
    }
}

/// Wrong addresses and passwords: one sentence that says what is wrong, the right exit code, and no password.
fn what_cannot_work_is_told(kind: Kind) {
    let (home, place) = (Home::new(kind), Place::new());
    let server = home.server().unwrap();
    place.write("f", "echo >> witness\n");
    let address = server.address();
    let scheme = server.url.split_once("://").unwrap().0;
    let database = if kind == Kind::Redis { "0" } else { server.url.rsplit_once('/').unwrap().1 };
    let wrong = |host: &str, name: &str| format!("{scheme}://lts:open-sesame@{host}/{name}");
    let nobody = "127.0.0.1:1";
    for (url, code, says) in
        [(wrong(&address, database), USAGE, "password"), (wrong(nobody, database), NO_STORE, nobody)]
    {
        for args in [&["batch", "f"][..], &["ls"], &["run", "true"]] {
            let output = place.command(args).env("LTS_STORE", &url).output().unwrap();
            let said = crate::support::said(output);
            assert_eq!(said.code, code, "{args:?}: {said:?}");
            assert!(said.stderr.contains(says) && said.stderr.lines().count() == 1, "{args:?}: {said:?}");
            no_password(&format!("{}{}", said.stdout, said.stderr), Some("open-sesame"));
        }
    }
    assert!(place.read("witness").is_empty());
    no_password_in_files(&place, Some("open-sesame"));
}

macro_rules! weather {
    ($name:ident, $kind:ident) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn lost_replies_lose_and_double_nothing() {
                replies_are_lost(Kind::$kind).await;
            }

            #[tokio::test]
            async fn one_that_falls_silent_blocks_nobody_for_long() {
                one_falls_silent(Kind::$kind).await;
            }

            #[test]
            fn a_batch_that_is_cut_off_waits_and_goes_on() {
                the_way_is_cut(Kind::$kind);
            }

            #[test]
            fn what_cannot_work_is_told_without_the_password() {
                what_cannot_work_is_told(Kind::$kind);
            }
        }
    };
}

weather!(postgres, Postgres);
weather!(mysql, MySql);
weather!(redis, Redis);

mod locked {
    use super::*;
    use rusqlite::Connection;

    /// How long a write waits for a lock, with something to spare.
    const LOCK: Duration = Duration::from_secs(17);

    fn lock(place: &Place) -> Connection {
        let connection = Connection::open(place.path("lts.db")).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    #[test]
    fn a_batch_waits_while_another_program_locks_its_file_and_loses_nothing() {
        let place = Place::new();
        place.write("f", &lines(20, Duration::from_millis(300)));
        let batch = place.start(&["batch", "f", "--concurrency", "2"]);
        while place.read("witness").is_empty() {
            wait(PAUSE);
        }
        let other = lock(&place);
        // What only reads goes on.
        let listed = place.lts(&["ls"]);
        assert_eq!(listed.code, 0, "{listed:?}");
        wait(LOCK);
        other.execute_batch("ROLLBACK").unwrap();
        let said = batch.end();
        assert_eq!((said.code, said.counts()), (0, [20, 20, 0, 0]), "{said:?}");
        check(&place.read("witness"), 20, 2);
    }

    #[test]
    fn a_batch_that_finds_its_file_locked_says_so() {
        let place = Place::new();
        place.write("f", "echo >> witness\n").write("g", "echo again >> witness\n");
        assert_eq!(place.lts(&["batch", "f"]).code, 0);
        let other = lock(&place);
        let mut batch = place.start(&["batch", "g"]);
        batch.hear("locked");
        other.execute_batch("ROLLBACK").unwrap();
        let said = batch.end();
        // It has waited for its turn, or said that it did not get it.
        assert!([0, NO_STORE].contains(&said.code), "{said:?}");
        assert_eq!(place.lts(&["batch", "g"]).code, 0);
        assert_eq!(place.read("witness"), "\nagain\n");
    }
}
