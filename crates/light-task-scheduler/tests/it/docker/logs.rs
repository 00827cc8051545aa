//! What a container writes, on its way into a log store.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use light_task_scheduler::executor::docker::DockerExecutor;
use light_task_scheduler::executor::{Executor, Recovered, Run};
use light_task_scheduler::results::{LOG_BYTES_MAX, LOG_CHUNK_BYTES_MAX, LogKey, MemoryLogs, Stream};
use light_task_scheduler::{LogStore, Outcome};

use super::support::{executor, reporter, run_of, sh, start, until};

/// What a container has printed so far, as its engine has it.
pub(super) async fn printed(docker: &Docker, id: &str) -> String {
    let options = LogsOptionsBuilder::new().stdout(true).build();
    let mut parts = Box::pin(docker.logs(id, Some(options)));
    let mut text = String::new();
    while let Some(part) = parts.next().await {
        text.push_str(&part.unwrap().to_string());
    }
    text
}

fn key(run: &Run, stream: Stream) -> LogKey {
    LogKey { id: run.task.id.clone(), execution: run.task.record.execution, stream }
}

pub(super) async fn log(logs: &MemoryLogs, run: &Run, stream: Stream) -> Vec<u8> {
    let key = key(run, stream);
    let mut all = Vec::new();
    loop {
        let part = logs.read(&key, all.len() as u64, LOG_CHUNK_BYTES_MAX).await.unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend_from_slice(&part);
    }
}

fn logging(logs: &Arc<MemoryLogs>) -> DockerExecutor {
    executor().with_logs(logs.clone())
}

#[tokio::test]
async fn output_is_kept_byte_by_byte_and_is_whole_at_the_end() {
    let logs = Arc::new(MemoryLogs::new());
    let executor = logging(&logs);
    // Lines that are empty, no text, and longer than the engine keeps in one piece.
    let script = r#"printf 'a\n\n\377\376b\n'; head -c 40000 /dev/zero | tr '\0' x; echo oh >&2"#;
    let run = run_of("task", &sh(script));
    let (handle, mut reports) = start(&executor, &run).await;
    assert_eq!(reports.ended().await, Outcome::Succeeded(None));
    let mut expected = b"a\n\n\xff\xfeb\n".to_vec();
    expected.extend_from_slice(&[b'x'; 40_000]);
    let mut stdout = log(&logs, &run, Stream::Stdout).await;
    // Some engines end a log with a newline, whether the program did or not.
    if stdout.len() > expected.len() {
        assert_eq!(stdout.pop(), Some(b'\n'));
    }
    assert!(stdout == expected, "{} bytes: {:?}", stdout.len(), &stdout[..stdout.len().min(20)]);
    assert_eq!(log(&logs, &run, Stream::Stderr).await, b"oh\n");
    executor.release(&handle).await;
}

#[tokio::test]
async fn output_is_seen_while_it_runs_and_goes_on_with_another_owner() {
    let logs = Arc::new(MemoryLogs::new());
    let first = logging(&logs);
    let script = "i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.01; done";
    let run = run_of("task", &sh(script));
    let (handle, _reports) = start(&first, &run).await;
    let has = async |bytes| logs.len(&key(&run, Stream::Stdout)).await.unwrap() >= bytes;
    until("the first lines", async || has(50).await).await;
    // As a crash would: nothing is flushed, nobody follows any more.
    drop(first);
    let mut before = logs.len(&key(&run, Stream::Stdout)).await.unwrap();
    let mut owner = logging(&logs);
    loop {
        let (reporter, mut reports) = reporter();
        let recovered = owner.recover(run.clone(), Some(handle.clone()), reporter).await;
        assert!(matches!(recovered, Recovered::Attached(_)), "{recovered:?}");
        if before > 1_000 {
            assert_eq!(reports.ended().await, Outcome::Succeeded(None));
            break;
        }
        until("more lines", async || has(before + 50).await).await;
        before = logs.len(&key(&run, Stream::Stdout)).await.unwrap();
        owner = logging(&logs);
    }
    for (stream, word) in [(Stream::Stdout, "out"), (Stream::Stderr, "err")] {
        let expected: String = (0..400).map(|line| format!("{word} {line}\n")).collect();
        let text = String::from_utf8(log(&logs, &run, stream).await).unwrap();
        assert!(text == expected, "{word}: {} bytes for {}", text.len(), expected.len());
    }
    owner.release(&handle).await;
}

#[tokio::test]
async fn a_log_takes_only_so_much_and_the_end_comes_all_the_same() {
    let logs = Arc::new(MemoryLogs::with_bytes_max(4 * LOG_BYTES_MAX));
    let executor = logging(&logs);
    let bytes = LOG_BYTES_MAX + 100_000;
    let run = run_of("task", &sh(&format!("head -c {bytes} /dev/zero | tr '\\0' x; exit 4")));
    let (handle, mut reports) = start(&executor, &run).await;
    assert_eq!(super::support::failure(reports.ended().await).exit_code, Some(4));
    assert_eq!(logs.len(&key(&run, Stream::Stdout)).await.unwrap(), LOG_BYTES_MAX);
    executor.release(&handle).await;
}

#[tokio::test]
async fn a_release_saves_what_nobody_has_followed() {
    let logs = Arc::new(MemoryLogs::new());
    let first = executor();
    let run = run_of("task", &sh("echo hello"));
    let (handle, mut reports) = start(&first, &run).await;
    reports.ended().await;
    let second = logging(&logs);
    second.stop(&handle, Duration::ZERO).await;
    second.release(&handle).await;
    assert_eq!(log(&logs, &run, Stream::Stdout).await, b"hello\n");
}
