//! `lts logs`: what a task has written.

use std::time::Duration;

use clap::Args;
use light_task_scheduler::results::{LOG_CHUNK_BYTES_MAX, LogKey, Stream};
use light_task_scheduler::{LogStore, StoreExt, Task};

use crate::cli::select::{StoreArgs, find};
use crate::exit::{OK, Result};
use crate::output;

/// How often new output is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Shows what a task has written, its stdout on stdout and its stderr on stderr.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts logs 3f2a9c
  lts logs -f --stdout 3f2a9c")]
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
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: LogsArgs) -> Result<u8> {
    let opened = args.store.open().await?;
    let task = find(&*opened.store, &args.id).await?;
    let mut tail = Tail::new(if args.json { Shown::Json } else { Shown::AsIs });
    if args.stdout {
        tail.streams = vec![Stream::Stdout];
    } else if args.stderr {
        tail.streams = vec![Stream::Stderr];
    }
    if !args.follow {
        tail.copy(&*opened.logs, &task).await?;
        return Ok(OK);
    }
    loop {
        // Read before the look: what was written before the end is seen.
        let now = opened.store.task(&task.id).await?;
        tail.copy(&*opened.logs, &now).await?;
        if now.record.state.is_terminal() {
            return Ok(OK);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
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
    pub(crate) async fn copy(&mut self, logs: &dyn LogStore, task: &Task) -> Result<()> {
        if self.execution != task.record.execution {
            // The rest of the one before.
            if self.execution != 0 {
                self.copy_execution(logs, task).await?;
            }
            self.execution = task.record.execution;
            self.offsets = [0; 2];
        }
        self.copy_execution(logs, task).await
    }

    async fn copy_execution(&mut self, logs: &dyn LogStore, task: &Task) -> Result<()> {
        for stream in self.streams.clone() {
            let key = LogKey { id: task.id.clone(), execution: self.execution, stream };
            loop {
                let offset = self.offsets[stream as usize];
                let read = logs.read(&key, offset, LOG_CHUNK_BYTES_MAX).await?;
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
