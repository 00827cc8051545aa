//! What is left of runs that nobody will ask for: the sweeper.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::executor::process::{ProcessConfig, ProcessExecutor};
use light_task_scheduler::executor::{Executor, Recovered, Reporter, Run, StartError, Started, Status, Stopped};
use light_task_scheduler::results::Stream;
use light_task_scheduler::state::{Command, RunEvent};
use light_task_scheduler::store::{Change, ClaimRequest, NewReplica};
use light_task_scheduler::*;

use super::crashes::{kill_victim, start_victim, victim_dir, victim_namespace};
use super::logs::WatchedLogs;
use super::support::{Fifo, LIMIT, config, executor, namespace, sh, start};

const KIND: &str = "process";
/// The shortest that is allowed: the test waits for it, not the other way round.
const SWEEP_AFTER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Runs commands, and is never done with releasing one.
#[derive(Debug)]
struct DiesAtRelease(ProcessExecutor, std::path::PathBuf);

#[async_trait]
impl Executor for DiesAtRelease {
    fn adoptable(&self) -> bool {
        self.0.adoptable()
    }

    async fn prepare(&self, task: &NewTask) -> Result<()> {
        self.0.prepare(task).await
    }

    async fn start(&self, run: Run, reporter: Reporter) -> Result<Started, StartError> {
        self.0.start(run, reporter).await
    }

    async fn recover(&self, run: Run, handle: Option<Handle>, reporter: Reporter) -> Recovered {
        self.0.recover(run, handle, reporter).await
    }

    async fn status(&self, handles: &[Handle]) -> Vec<Status> {
        self.0.status(handles).await
    }

    async fn output(&self, handle: &Handle) -> Result<Payload> {
        self.0.output(handle).await
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Stopped {
        self.0.stop(handle, grace).await
    }

    async fn release(&self, _handle: &Handle) {
        std::fs::write(&self.1, "now\n").unwrap();
        std::future::pending().await
    }
}

fn store(dir: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(dir.join("tasks.db")).unwrap())
}

fn new_task(id: &str) -> NewTask {
    NewTask::new(KIND, &sh("echo out")).unwrap().id(id).unwrap()
}

/// The scheduler that is killed after it has written an end, and before it has released the run.
async fn die_at_release(dir: &Path) {
    let executor = DiesAtRelease(executor(&dir.join("runs")), dir.join("fifo"));
    let config = Config { namespace: victim_namespace(), ..Config::default() };
    let scheduler =
        Scheduler::builder(store(dir) as Arc<dyn Store>).executor(KIND, Arc::new(executor)).config(config).start();
    let scheduler = scheduler.await.unwrap();
    scheduler.submit(new_task("killed")).await.unwrap();
    std::future::pending().await
}

/// The directories of runs that are there, by the ids of their tasks.
fn left(runs: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    // There is one namespace.
    let namespace = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
    let entries = std::fs::read_dir(namespace).unwrap();
    let mut left: Vec<String> = entries.map(|entry| name(entry).rsplit_once('-').unwrap().0.to_owned()).collect();
    left.sort();
    left
}

async fn until_left(runs: &Path, expected: &[&str]) {
    let gone = async {
        while left(runs) != expected {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap_or_else(|_| panic!("there are {:?}", left(runs)));
}

/// Runs a task to its end by hand, as far as that its export has failed.
async fn fail_to_export(store: &dyn Store, runs: &Path, id: &str) {
    let replica = ReplicaId::generate(&SystemClock);
    store.register(NewReplica { id: replica, name: "r".to_owned(), ttl: LIMIT }).await.unwrap();
    store.insert(vec![new_task(id)]).await.unwrap();
    let kinds = vec![Name::new(KIND).unwrap()];
    let claim = ClaimRequest { replica, number: 1, kinds, queues: vec![], limit: 1, among: None };
    let task = Arc::new(store.claim(claim).await.unwrap().tasks.remove(0));
    let executor = executor(runs);
    let (_handle, mut reports) =
        start(&executor, &Run { namespace: namespace(), task: task.clone(), claimed_here: false }).await;
    reports.ended().await;
    let failure = Failure::new(FailureKind::Export, "no room");
    for event in [RunEvent::Outcome(None), RunEvent::Fail(failure)] {
        let change = Change { id: task.id.clone(), token: task.record.token().unwrap(), event };
        assert!(store.apply(vec![change]).await.unwrap()[0].state().is_some());
    }
}

#[tokio::test]
async fn what_nobody_needs_is_swept_and_nothing_else() {
    if let Some(dir) = victim_dir() {
        return die_at_release(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let store = store(dir.path());
    fail_to_export(&*store, &runs, "kept").await;
    let mut fifo = Fifo::new(dir.path());
    let victim = start_victim(dir.path(), &namespace());
    assert_eq!(fifo.line().await, "now");
    kill_victim(victim);
    let killed = store.get(&[TaskId::new("killed").unwrap()]).await.unwrap().remove(0).unwrap();
    assert_eq!(killed.record.state, State::Succeeded);
    assert_eq!(left(&runs), ["kept", "killed"]);

    let logs = WatchedLogs::new();
    let sweeping = ProcessConfig { sweep_after: SWEEP_AFTER, ..config(&runs) };
    let sweeping = ProcessExecutor::new(sweeping).unwrap().with_logs(logs.clone());
    let _sweeping = sweeping.sweeping(&namespace(), store.clone());
    // The other is older, and was looked at as well: it may be asked for when the export is tried again.
    until_left(&runs, &["kept"]).await;
    assert_eq!(logs.text("killed", Stream::Stdout), "out\n", "its output is not lost");
    let deleted = store.command(vec![(TaskId::new("kept").unwrap(), Command::Delete)]).await.unwrap();
    assert!(deleted[0] != store::Answer::Missing, "{deleted:?}");
    until_left(&runs, &[]).await;
    assert_eq!(logs.text("kept", Stream::Stdout), "", "what was deleted does not come back");
}
