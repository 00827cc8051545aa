//! Watching one run from the scheduler's side: its end is reported at once, its output copied as it comes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;

use super::launcher::receive_word;
use super::rundir::{RunDir, Seen};
use super::tree;
use super::wire::{End, Word};
use crate::error::Result;
use crate::executor::Reporter;
use crate::results::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, Stream};
use crate::task::{Failure, FailureKind, Outcome, TaskId};

/// How often output is copied while there is some.
const LOG_INTERVAL: Duration = Duration::from_millis(200);
/// How rarely it is looked for while there is none.
const LOG_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How often the last of the output is tried to be saved before the end is reported without it.
const LAST_COPIES_MAX: u32 = 5;
/// How long is waited for killed processes to be gone, and how often is looked.
const KILL_WAIT: Duration = Duration::from_secs(5);
const KILL_LOOK: Duration = Duration::from_millis(10);

/// How the end of a supervisor is noticed.
#[derive(Debug)]
pub(super) enum Line {
    /// It was ordered by us and talks to us.
    Channel(AsyncFd<OwnedFd>),
    /// It was found: we watch its process, and hold the file that shows it that we are here.
    Process(AsyncFd<OwnedFd>, #[expect(dead_code, reason = "held, not used")] File),
    /// It has ended.
    Over,
}

impl Line {
    /// The end that the supervisor tells, or `None` when it is gone and its file is to be read.
    async fn end(&mut self) -> Option<End> {
        match self {
            Line::Channel(channel) => loop {
                match receive_word(channel).await {
                    Ok(Some(word)) => {
                        if let Ok(Word::Ended(end)) = serde_json::from_slice(&word) {
                            return Some(end);
                        }
                    }
                    Ok(None) | Err(_) => return None,
                }
            },
            Line::Process(process, _) => {
                let _ = process.readable().await;
                None
            }
            Line::Over => None,
        }
    }
}

/// Watches a run until it has ended, and reports that.
pub(super) async fn watch(dir: RunDir, execution: String, mut line: Line, reporter: Reporter, mut pump: Option<Pump>) {
    let end = match &mut pump {
        None => line.end().await,
        Some(pump) => {
            let mut interval = LOG_INTERVAL;
            loop {
                tokio::select! {
                    biased;
                    end = line.end() => break end,
                    () = tokio::time::sleep(interval) => {}
                }
                // A log store that fails is tried again: nothing is lost, the file keeps it.
                let copied = pump.copy().await.unwrap_or(true);
                interval = if copied { LOG_INTERVAL } else { (interval * 2).min(LOG_INTERVAL_MAX) };
            }
        }
    };
    let silent = end.as_ref().is_some_and(|end| end.stdout_bytes == 0 && end.stderr_bytes == 0);
    let outcome = match end {
        Some(end) => end.outcome(),
        None => read_outcome(&dir, &execution).await,
    };
    if let Some(pump) = pump.as_mut().filter(|_| !silent) {
        pump.copy_the_rest().await;
    }
    reporter.ended(outcome);
}

/// How a run ended whose supervisor is gone. Returns only when nothing of it runs any more.
async fn read_outcome(dir: &RunDir, execution: &str) -> Outcome {
    loop {
        let lost = |why: &str| Outcome::Failed(Failure::new(FailureKind::Lost, why));
        match dir.look() {
            Ok(Seen::Ended(end)) => return end.outcome(),
            Ok(Seen::Nothing) => return lost("the directory of the run is gone, and how the command ended is unknown"),
            Ok(Seen::Gone) => return lost("the command never started"),
            Ok(Seen::Alive(_)) | Err(_) => {}
            Ok(Seen::Orphaned) => {
                if kill_marked(execution).await.is_ok() {
                    return lost("the supervisor of the command was killed, and how the command ended is unknown");
                }
            }
        }
        // It is about to end, or a process of it resists being killed.
        tokio::time::sleep(LOG_INTERVAL).await;
    }
}

/// Kills all that carries the mark of this execution; an error says what resists.
pub(super) async fn kill_marked(execution: &str) -> Result<(), String> {
    let wait_until = crate::clock::monotonic() + KILL_WAIT;
    loop {
        let name = execution.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let found = tree::marked(&name)?;
            tree::signal_all(&found, Signal::KILL);
            Ok::<_, io::Error>(found)
        });
        let left = match found.await {
            Ok(Ok(found)) if found.is_empty() => return Ok(()),
            Ok(Ok(found)) => format!("{} processes of it do not die, one is {}", found.len(), found[0]),
            Ok(Err(error)) => format!("the processes of this host cannot be listed: {error}"),
            Err(error) => format!("the search for its processes failed: {error}"),
        };
        if crate::clock::monotonic() >= wait_until {
            return Err(left);
        }
        tokio::time::sleep(KILL_LOOK).await;
    }
}

/// Something that becomes readable when this supervisor ends; `None` if it has ended.
pub(super) fn process_line(dir: &RunDir, pid: Pid) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
    // The lock is still held by the same number, so the number was not given to another process.
    if dir.look()? != Seen::Alive(pid) {
        return Ok(None);
    }
    super::sys::awaitable(process).map(Some)
}

/// Copies a run's output into a log store.
#[derive(Debug)]
pub(super) struct Pump {
    logs: Arc<dyn LogStore>,
    dir: RunDir,
    keys: [LogKey; 2],
    /// How far each is copied, once known.
    copied: [Option<u64>; 2],
}

impl Pump {
    pub(super) fn new(logs: Arc<dyn LogStore>, dir: RunDir, id: &TaskId, execution: u64) -> Self {
        let keys = Stream::ALL.map(|stream| LogKey { id: id.clone(), execution, stream });
        Pump { logs, dir, keys, copied: [None; 2] }
    }

    /// Copies what is new; whether there was any.
    pub(super) async fn copy(&mut self) -> Result<bool> {
        let mut any = false;
        for (key, copied) in self.keys.iter().zip(&mut self.copied) {
            let path = self.dir.output_file(key.stream);
            let Ok(len) = std::fs::metadata(&path).map(|found| found.len()) else { continue };
            // Somebody may have copied a part before.
            let mut at = match *copied {
                Some(at) => at,
                None => self.logs.len(key).await?,
            };
            if at < len
                && let Ok(file) = File::open(&path)
            {
                let mut buffer = vec![0; LOG_CHUNK_BYTES_MAX];
                while at < len {
                    match file.read_at(&mut buffer, at) {
                        Ok(read) if read > 0 => {
                            let end = self.logs.append(key, at, &buffer[..read]).await?;
                            if end <= at {
                                break;
                            }
                            at = end;
                            any = true;
                        }
                        _ => break,
                    }
                }
            }
            *copied = Some(at);
        }
        Ok(any)
    }

    /// Copies all that is left; gives up on a log store that keeps failing, which is answered by `false`.
    pub(super) async fn copy_the_rest(&mut self) -> bool {
        for _ in 0..LAST_COPIES_MAX {
            match self.copy().await {
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(run = %self.dir.0.display(), %error, "output cannot be saved");
                    tokio::time::sleep(LOG_INTERVAL).await;
                }
            }
        }
        false
    }
}
