//! `lts worker run`: real workers of a server, killed, cut off from it, and refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::process::CommandSpec;
use light_task_scheduler::results::{LogKey, Stream};
use light_task_scheduler::{NewTask, ReplicaId, Scheduler, SqliteStore, State, Task, TaskId};
use light_task_scheduler_server::api::{Admission, NewToken, Role, TokenFile};

use crate::serving::{ANY_PORT, Serving};
use crate::support::{Place, Running};
use crate::witness::{Stopwatch, check, lines};

/// The lease of the workers: the shortest there is.
const LEASE: &str = "1s";
/// Within this time everything here has happened, or something hangs.
const WITHIN: Duration = Duration::from_secs(60);
/// The exit code for what makes no sense.
const USAGE: i32 = 2;
/// The exit code for what is not there.
const NOT_FOUND: i32 = 3;

fn shell(line: &str) -> NewTask {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    NewTask::new("process", &CommandSpec::new(argv)).unwrap()
}

/// A place, and a server over a file in it.
fn place() -> (Place, Serving) {
    let place = Place::new();
    let server = Serving::sqlite(&place.path("server.db"), ANY_PORT);
    (place, server)
}

fn worker(place: &Place, url: &str, more: &[&str]) -> Running {
    let args = ["worker", "run", "--server", url, "--lease", LEASE, "--kinds", "process", "--grace", "1s"];
    let mut worker = place.start(&[&args[..], more].concat());
    worker.hear("takes tasks of");
    worker
}

impl Serving {
    fn submit(&self, tasks: Vec<NewTask>) -> Vec<TaskId> {
        let inserted = self.wait(self.scheduler().insert(tasks)).unwrap();
        inserted.into_iter().map(|inserted| inserted.unwrap().id().clone()).collect()
    }

    /// Looks at a task until it is as it should be.
    fn until(&self, id: &TaskId, what: &str, is_so: impl Fn(&Task) -> bool) -> Task {
        let since = Stopwatch::start();
        self.wait(async {
            loop {
                let task = self.scheduler().get(id).await.unwrap();
                if is_so(&task) {
                    return task;
                }
                assert!(since.elapsed() < WITHIN, "not {what}: {:?}", task.record);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn ended(&self, id: &TaskId) -> Task {
        self.until(id, "ended", |task| task.record.state.is_terminal())
    }

    fn running(&self, id: &TaskId) -> Task {
        self.until(id, "running", |task| task.record.state == State::Running && task.record.handle().is_some())
    }
}

/// Commands that leave a trace: each waits for the one before, so that none is missed by a look at the end.
fn traced(place: &Place, tasks: u32, takes: Duration) -> Vec<NewTask> {
    let directory = place.path("");
    let line = |line: &str| shell(&format!("cd '{}'; {line}", directory.display()));
    lines(tasks, takes).lines().map(line).collect()
}

#[test]
fn two_workers_share_a_servers_queue() {
    const TASKS: u32 = 12;
    let (place, server) = place();
    let workers: Vec<Running> = (0..2).map(|_| worker(&place, &server.url(), &["--concurrency", "2"])).collect();
    let ids = server.submit(traced(&place, TASKS, Duration::from_millis(300)));
    let ended: Vec<Task> = ids.iter().map(|id| server.ended(id)).collect();
    assert!(ended.iter().all(|task| task.record.state == State::Succeeded && task.record.attempt == 1), "{ended:?}");
    let owners: BTreeSet<Option<ReplicaId>> = ended.iter().map(|task| task.record.owner).collect();
    assert_eq!(owners.len(), 2, "both have run some");
    check(&place.read("witness"), TASKS, 4);
    let listed = place.lts(&["worker", "ls", "--json", "--server", &server.url()]);
    assert_eq!(listed.json().iter().filter(|one| one["dead"] == false).count(), 3, "two, and the server: {listed:?}");
    for worker in workers {
        worker.signal(rustix::process::Signal::TERM);
        assert_eq!(worker.end().code, 0);
    }
    place.assert_no_process_stays();
}

#[test]
fn a_worker_that_an_operator_has_drain_ends_what_it_runs_and_leaves() {
    let (place, server) = place();
    place.fifo("go");
    let url = server.url();
    let args =
        ["worker", "run", "--server", url.as_str(), "--kinds", "process", "--concurrency", "1", "--grace", "60s"];
    let mut worker = place.start(&args);
    worker.hear("takes tasks of");
    let line = |line: &str| shell(&format!("cd '{}'; {line}", place.path("").display()));
    let ids = server.submit(vec![line("cat go")]);
    let owner = server.running(&ids[0]).record.owner.unwrap().to_string();
    let waiting = server.submit(vec![line("true")]).remove(0);

    let drain = |worker: &str| place.lts(&["worker", "drain", worker, "--server", &url]);
    let drained = drain(&owner);
    assert_eq!((drained.code, drained.stdout.contains("draining, 1 running")), (0, true), "{drained:?}");
    worker.hear("an operator has this worker drain");
    let listed = place.lts(&["worker", "ls", "--server", &url]).stdout;
    let row = listed.lines().find(|row| row.starts_with(&owner)).unwrap();
    assert!(row.contains("draining"), "{listed}");
    // A second wish changes nothing; the beginning of an id is enough where it is the only one.
    assert_eq!(drain(&owner[..owner.len() - 1]).code, 0);

    std::fs::write(place.path("go"), "done").unwrap();
    assert_eq!(worker.end().code, 0);
    let task = server.ended(&ids[0]);
    assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 1), "{:?}", task.record);
    assert_eq!(server.wait(server.scheduler().get(&waiting)).unwrap().record.attempt, 0, "it took nothing more");
    let gone = drain(&owner);
    assert_eq!((gone.code, gone.stderr.contains("there is no worker")), (NOT_FOUND, true), "{gone:?}");
    place.assert_no_process_stays();
}

#[test]
fn a_command_of_a_killed_worker_is_taken_over_by_another() {
    let (place, server) = place();
    place.fifo("go");
    let first = worker(&place, &server.url(), &[]);
    let line = format!(
        "cd '{}'; echo begun; echo start 0 $$ >> witness; cat go; echo end 0 $$ >> witness",
        place.path("").display()
    );
    let id = server.submit(vec![shell(&line)]).remove(0);
    let before = server.running(&id);
    first.kill();
    let second = worker(&place, &server.url(), &[]);
    let after = server.until(&id, "taken over", |task| task.record.owner != before.record.owner);
    assert_eq!((after.record.execution, after.record.attempt), (before.record.execution, 1), "it is the same run");
    std::fs::write(place.path("go"), "done").unwrap();
    assert_eq!(server.ended(&id).record.state, State::Succeeded);
    check(&place.read("witness"), 1, 1);
    let log = LogKey { id, execution: before.record.execution, stream: Stream::Stdout };
    assert_eq!(
        server.wait(server.logs().read(&log, 0, 99)).unwrap(),
        b"begun\ndone",
        "its log is whole, at the server"
    );
    second.kill();
}

#[test]
fn a_command_that_died_with_its_worker_is_tried_again_by_another() {
    let (place, server) = place();
    let mark = place.path("mark");
    let first = worker(&place, &server.url(), &[]);
    // The first try waits for its death.
    let line = format!(
        "cd '{0}'; [ -e '{1}' ] || {{ touch '{1}'; exec sleep 1000; }}",
        place.path("").display(),
        mark.display()
    );
    let id = server.submit(vec![shell(&line)]).remove(0);
    server.running(&id);
    let since = Stopwatch::start();
    while place.processes_called("sleep").is_empty() {
        assert!(since.elapsed() < WITHIN, "it never slept: {:?}", place.processes());
        std::thread::yield_now();
    }
    // As when the power fails: first all that would tell how it ended.
    let supervisors: Vec<_> =
        place.processes_called("lts").into_iter().chain(place.processes_called("lts-supervisor")).collect();
    first.kill();
    for pid in supervisors.into_iter().chain(place.processes_called("sleep")) {
        // Some have ended with the first.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let second = worker(&place, &server.url(), &[]);
    let task = server.ended(&id);
    assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 2), "{:?}", task.record);
    second.kill();
    place.assert_no_process_stays();
}

#[test]
fn a_server_that_is_started_again_loses_nothing_and_runs_nothing_twice() {
    const TASKS: u32 = 8;
    let (place, server) = place();
    let (url, address) = (server.url(), server.address());
    let workers: Vec<Running> = (0..2).map(|_| worker(&place, &url, &["--concurrency", "2"])).collect();
    let ids = server.submit(traced(&place, TASKS, Duration::from_secs(1)));
    server.until(&ids[0], "running", |task| task.record.state == State::Running);
    let alive = replicas(server.scheduler(), &server);
    drop(server);
    let server = Serving::sqlite(&place.path("server.db"), &address);
    for id in &ids {
        let task = server.ended(id);
        assert_eq!((task.record.state, task.record.attempt), (State::Succeeded, 1), "{:?}", task.record);
    }
    check(&place.read("witness"), TASKS, 4);
    // Their lives are not tied to the server's.
    let after = replicas(server.scheduler(), &server);
    assert!(alive.iter().filter(|id| after.contains(id)).count() >= 2, "{alive:?} {after:?}");
    workers.into_iter().for_each(Running::kill);
}

fn replicas(scheduler: &Scheduler, server: &Serving) -> Vec<ReplicaId> {
    let all = server.wait(scheduler.store().replicas()).unwrap();
    all.into_iter().filter(|replica| !replica.dead && !replica.proven_dead).map(|replica| replica.id).collect()
}

#[test]
fn a_cancel_at_the_server_kills_the_whole_tree_at_the_worker() {
    let (place, server) = place();
    let worker = worker(&place, &server.url(), &[]);
    let line =
        format!("cd '{}'; trap '' TERM; sleep 1000 & (setsid sleep 1000 &) ; sleep 1000", place.path("").display());
    let id = server.submit(vec![shell(&line)]).remove(0);
    let since = Stopwatch::start();
    while place.processes_called("sleep").len() < 3 {
        assert!(since.elapsed() < WITHIN, "{:?}", place.processes());
        std::thread::yield_now();
    }
    server.wait(server.scheduler().cancel(&id)).unwrap();
    assert_eq!(server.ended(&id).record.state, State::Cancelled);
    assert_eq!(place.processes_called("sleep"), []);
    worker.kill();
}

#[test]
fn a_wrong_token_and_one_for_another_queue_are_refused_in_a_sentence() {
    let place = Place::new();
    let tokens = Arc::new(TokenFile::open(place.path("tokens.json")).unwrap());
    let token = |role, queues: &[&str]| {
        let queues = queues.iter().map(|queue| queue.parse().unwrap()).collect();
        tokens.create(NewToken { name: "test".to_owned(), role, queues, expires_at: None }).unwrap().1
    };
    let store = SqliteStore::open(place.path("server.db")).unwrap();
    let (viewer, worker_of_a) = (token(Role::Viewer, &[]), token(Role::Worker, &["a"]));
    let server = Serving::start(store.into(), Admission::Tokens(tokens.clone()), ANY_PORT);
    let refused = |token: Option<&str>, queues: &str, sentence: &str| {
        let mut args = vec!["worker", "run", "--server"];
        let url = server.url();
        args.extend([url.as_str(), "--queues", queues]);
        args.extend(token.into_iter().flat_map(|token| ["--token", token]));
        let said = place.lts(&args);
        assert_eq!((said.code, said.stderr.lines().count()), (USAGE, 1), "{said:?}");
        assert!(said.stderr.contains(sentence), "{said:?}");
    };
    refused(None, "a", "send a token");
    refused(Some("lts_000000000000_0"), "a", "this token is not known here");
    refused(Some(&viewer), "a", "is viewer, and this asks for worker");
    refused(Some(&worker_of_a), "b", "this token is not for the queue b; it is for a");

    let worker = worker(&place, &server.url(), &["--token", &worker_of_a]);
    let ids = server.submit(vec![shell("true").queue("b").unwrap(), shell("true").queue("a").unwrap()]);
    assert_eq!(server.ended(&ids[1]).record.state, State::Succeeded);
    assert_eq!(server.wait(server.scheduler().get(&ids[0])).unwrap().record.state, State::Waiting, "not its queue");
    worker.kill();
}
