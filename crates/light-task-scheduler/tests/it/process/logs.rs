//! What a command writes, on its way into a log store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use light_task_scheduler::results::{LOG_BYTES_MAX, LogKey, LogStore, Stream};
use light_task_scheduler::{Result, TaskId};
use tokio::sync::watch;

use super::support::{Fifo, LIMIT, end_of, executor, result, run_of, sh, start};
use light_task_scheduler::executor::{Executor, Status, Stopped};

/// A log store that tells how much it has and how often it was asked.
#[derive(Debug)]
pub(super) struct WatchedLogs {
    logs: Mutex<BTreeMap<LogKey, Vec<u8>>>,
    pub(super) calls: Mutex<u64>,
    bytes: watch::Sender<usize>,
    /// While it is shut, it answers nobody.
    open: watch::Sender<bool>,
}

impl WatchedLogs {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(WatchedLogs {
            logs: Mutex::default(),
            calls: Mutex::default(),
            bytes: watch::Sender::new(0),
            open: watch::Sender::new(true),
        })
    }

    pub(super) async fn until_bytes(&self, bytes: usize) {
        let mut seen = self.bytes.subscribe();
        tokio::time::timeout(LIMIT, seen.wait_for(|have| *have >= bytes)).await.expect("output").unwrap();
    }

    pub(super) fn text(&self, id: &str, stream: Stream) -> String {
        let key = LogKey { id: TaskId::new(id).unwrap(), execution: 1, stream };
        String::from_utf8_lossy(self.logs.lock().unwrap().get(&key).map_or(&[], Vec::as_slice)).into_owned()
    }
}

#[async_trait]
impl LogStore for WatchedLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        *self.calls.lock().unwrap() += 1;
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let mut logs = self.logs.lock().unwrap();
        let kept = logs.entry(log.clone()).or_default();
        assert!(offset <= kept.len() as u64, "a hole in the log");
        let known = kept.len() - offset as usize;
        kept.extend_from_slice(&bytes[known.min(bytes.len())..]);
        let len = kept.len() as u64;
        self.bytes.send_replace(logs.values().map(Vec::len).sum());
        Ok(len)
    }

    async fn read(&self, _: &LogKey, _: u64, _: usize) -> Result<Vec<u8>> {
        unreachable!("the executor only writes")
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        *self.calls.lock().unwrap() += 1;
        Ok(self.logs.lock().unwrap().get(log).map_or(0, |kept| kept.len() as u64))
    }

    async fn delete(&self, _: &TaskId) -> Result<()> {
        unreachable!("the executor only writes")
    }
}

#[tokio::test]
async fn output_is_seen_while_the_command_runs_and_whole_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Fifo::new(dir.path());
    let logs = WatchedLogs::new();
    let executor = executor(dir.path()).with_logs(logs.clone());
    let script = format!("echo hello; read go <'{}'; echo bye; echo late >&2", gate.path.display());
    let run = run_of("task", 1, &sh(&script));
    let (handle, mut reports) = start(&executor, &run).await;
    logs.until_bytes(6).await;
    assert_eq!(logs.text("task", Stream::Stdout), "hello\n");
    std::fs::write(&gate.path, "go\n").unwrap();
    result(&reports.ended().await);
    assert_eq!(logs.text("task", Stream::Stdout), "hello\nbye\n");
    assert_eq!(logs.text("task", Stream::Stderr), "late\n");
    executor.release(&handle).await;
    assert_eq!(logs.text("task", Stream::Stdout), "hello\nbye\n");
}

#[tokio::test]
async fn no_end_is_told_before_the_output_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut begun = Fifo::new(dir.path());
    let logs = WatchedLogs::new();
    logs.open.send_replace(false);
    let executor = executor(dir.path()).with_logs(logs.clone());
    for (id, stopped) in [("ends", false), ("stopped", true)] {
        let rest = if stopped { "sleep 600" } else { "exit 0" };
        let run = run_of(id, 1, &sh(&format!("echo hello; echo {id} >'{}'; {rest}", begun.path.display())));
        let (handle, _reports) = start(&executor, &run).await;
        assert_eq!(begun.line().await, id);
        let told = async {
            if stopped {
                assert!(matches!(executor.stop(&handle, Duration::ZERO).await, Stopped::Confirmed(None)));
            } else {
                while !matches!(executor.status(std::slice::from_ref(&handle)).await[0], Status::Ended(_)) {
                    tokio::task::yield_now().await;
                }
            }
            logs.text(id, Stream::Stdout)
        };
        let opens = async {
            let namespace = run.namespace.as_str().replace(':', "%3a");
            let file = dir.path().join(format!("{namespace}/{id}-1/run"));
            while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\nend ")) {
                tokio::task::yield_now().await;
            }
            logs.open.send_replace(true);
        };
        let (text, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(told, opens) }).await.expect("it ends");
        assert_eq!(text, "hello\n", "{id}");
        logs.open.send_replace(false);
    }
}

#[tokio::test]
async fn a_silent_command_does_not_touch_the_log_store() {
    let dir = tempfile::tempdir().unwrap();
    let logs = WatchedLogs::new();
    result(&end_of(&executor(dir.path()).with_logs(logs.clone()), &sh("true")).await);
    assert_eq!(*logs.calls.lock().unwrap(), 0);
}

#[tokio::test]
async fn too_much_output_is_cut_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = WatchedLogs::new();
    let spec = sh("head -c 11000000 /dev/zero | tr '\\0' x");
    let outcome = end_of(&executor(dir.path()).with_logs(logs.clone()), &spec).await;
    assert_eq!(result(&outcome).stdout_bytes, 11_000_000);
    let text = logs.text("task", Stream::Stdout);
    assert!(text.len() as u64 <= LOG_BYTES_MAX && text.len() as u64 > LOG_BYTES_MAX - 1000);
    assert!(text.ends_with("were not kept; the limit is 10485760]\n"), "{}", &text[text.len() - 100..]);
}
