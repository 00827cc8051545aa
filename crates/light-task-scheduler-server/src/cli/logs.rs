//! `lts task logs`: what a task has written.

use std::time::Duration;

use clap::Args;
use light_task_scheduler::results::{LOG_CHUNK_BYTES_MAX, LogKey, Stream};
use light_task_scheduler::{LogStore, TaskId};
use serde_json::Value;

use crate::cli::target::{Target, TargetArgs, task_path};
use crate::exit::{NOT_FOUND, OK, Result, UNREACHABLE};
use crate::output;

/// How often new output is looked for in a store, and at a server.
const STORE_INTERVAL: Duration = Duration::from_millis(50);
const SERVER_INTERVAL: Duration = Duration::from_millis(250);

/// Shows what a task has written, its stdout on stdout and its stderr on stderr.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task logs 3f2a9c
  lts task logs -f --stdout 3f2a9c")]
pub(crate) struct LogsArgs {
    /// Its id, or the beginning of it
    id: String,
    /// Follow it until the task ends
    #[arg(short, long)]
    follow: bool,
    /// Only its stdout
    #[arg(long)]
    stdout: bool,
    /// Only its stderr, on stdout
    #[arg(long, conflicts_with = "stdout")]
    stderr: bool,
    /// Print a JSON object per piece: stream, offset, text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs it.
pub(crate) async fn run(args: LogsArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let found = target.find(&args.id).await?;
    let id = found["id"].as_str().unwrap_or_default();
    let mut tail = Tail::new(if args.json { Shown::Json } else { Shown::AsIs });
    if args.stdout {
        tail.streams = vec![Stream::Stdout];
    } else if args.stderr {
        tail.streams = vec![Stream::Stderr];
    }
    let logs = Logs::Of(&target, id);
    let execution = |task: &Value| task["execution"].as_u64().unwrap_or_default();
    if !args.follow {
        tail.copy(&logs, execution(&found)).await?;
        return Ok(OK);
    }
    let interval = if target.opened().is_some() { STORE_INTERVAL } else { SERVER_INTERVAL };
    let mut absent = 0;
    loop {
        match step(&target, &mut tail, id).await {
            Ok(true) => return Ok(OK),
            Ok(false) => absent = 0,
            // It may be starting again: it goes on where it was.
            Err(problem) if problem.code == UNREACHABLE && absent < ABSENT_MAX => absent += 1,
            Err(problem) => return Err(problem),
        }
        tokio::time::sleep(interval).await;
    }
}

/// So often a server may be missed in succession.
const ABSENT_MAX: u32 = 100;

/// Shows what is new; whether that was all.
async fn step(target: &Target, tail: &mut Tail, id: &str) -> Result<bool> {
    // Read before the look at the logs: what was written before the end is seen.
    let now = target.task(id).await?;
    tail.copy(&Logs::Of(target, id), now["execution"].as_u64().unwrap_or_default()).await?;
    Ok(!now["finished_at"].is_null())
}

/// Where logs are read.
pub(crate) enum Logs<'a> {
    /// There, of the task with this id.
    In(&'a dyn LogStore, &'a TaskId),
    /// Of this task of a server, or of a store by way of the API.
    Of(&'a Target, &'a str),
}

impl Logs<'_> {
    async fn read(&self, execution: u64, stream: Stream, offset: u64) -> Result<Vec<u8>> {
        match self {
            Logs::In(logs, id) => {
                let key = LogKey { id: (*id).clone(), execution, stream };
                Ok(logs.read(&key, offset, LOG_CHUNK_BYTES_MAX).await?)
            }
            Logs::Of(target, id) => {
                let name = serde_json::to_value(stream).unwrap_or_default();
                let name = name.as_str().unwrap_or_default();
                let part = format!("/logs?stream={name}&execution={execution}&offset={offset}");
                match target.bytes(&task_path(id, &part)).await {
                    // Nothing was written.
                    Err(problem) if problem.code == NOT_FOUND => Ok(Vec::new()),
                    read => read,
                }
            }
        }
    }
}

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As it is.
    AsIs,
    /// As JSON, in pieces.
    Json,
}

/// How far the logs of a task have been shown.
#[derive(Debug)]
pub(crate) struct Tail {
    shown: Shown,
    streams: Vec<Stream>,
    execution: u64,
    offsets: [u64; 2],
}

#[derive(serde::Serialize)]
struct Piece<'a> {
    execution: u64,
    stream: Stream,
    offset: u64,
    text: std::borrow::Cow<'a, str>,
}

impl Tail {
    /// Both streams, from their beginning.
    pub(crate) fn new(shown: Shown) -> Self {
        Tail { shown, streams: Stream::ALL.to_vec(), execution: 0, offsets: [0; 2] }
    }

    /// Shows what is new; a new start of the task is shown from its beginning.
    pub(crate) async fn copy(&mut self, logs: &Logs<'_>, execution: u64) -> Result<()> {
        if self.execution != execution {
            // The rest of the one before.
            if self.execution != 0 {
                self.copy_execution(logs).await?;
            }
            self.execution = execution;
            self.offsets = [0; 2];
        }
        self.copy_execution(logs).await
    }

    async fn copy_execution(&mut self, logs: &Logs<'_>) -> Result<()> {
        for stream in self.streams.clone() {
            loop {
                let offset = self.offsets[stream as usize];
                let read = logs.read(self.execution, stream, offset).await?;
                if read.is_empty() {
                    break;
                }
                self.offsets[stream as usize] += read.len() as u64;
                self.print(stream, offset, &read)?;
            }
        }
        Ok(())
    }

    fn print(&self, stream: Stream, offset: u64, read: &[u8]) -> Result<()> {
        if self.shown == Shown::Json {
            let text = String::from_utf8_lossy(read);
            return output::json(&Piece { execution: self.execution, stream, offset, text });
        }
        if stream == Stream::Stderr && self.streams.len() > 1 {
            output::complaint(read);
            return Ok(());
        }
        output::bytes(read)
    }
}
