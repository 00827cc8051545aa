//! Copying a container's output into a log store.
//!
//! An engine's logs have no offsets, but it keeps them whole until the container is removed, and tells them in the
//! same order every time. So a copy always begins at their beginning: what the log store has already is counted and
//! passed over, separately for each stream, and nothing is lost or repeated whoever copied before, and how far.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use tokio::time::Instant;

use super::engine::{Engine, Trouble};
use super::names::Execution;
use crate::clock::monotonic;
use crate::error::Result;
use crate::results::{LOG_BYTES_MAX, LOG_CHUNK_BYTES_MAX, LogKey, LogStore, Stream};

/// How long output is gathered before it is written.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

/// What has kept a copy from its end: what is missing comes with the next one.
#[derive(Debug)]
pub(super) enum Broken {
    /// The engine does not tell it.
    Engine(String),
    /// The log store does not take it.
    Store(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Engine(why) => f.write_str(why),
            Broken::Store(why) => write!(f, "the log store does not take it: {why}"),
        }
    }
}

impl From<crate::error::Error> for Broken {
    fn from(error: crate::error::Error) -> Self {
        Broken::Store(error.to_string())
    }
}

/// One stream on its way.
#[derive(Debug)]
struct Lane {
    key: LogKey,
    /// How far the engine has told it.
    told: u64,
    /// How much of it the log store has.
    stored: u64,
    /// What is to be written at `stored`.
    pending: Vec<u8>,
}

impl Lane {
    /// Takes a part of the stream; keeps what the log store does not have.
    fn take(&mut self, part: &[u8]) {
        let begin = self.told;
        self.told += part.len() as u64;
        let have = self.stored + self.pending.len() as u64;
        let known = usize::try_from(have.saturating_sub(begin)).unwrap_or(usize::MAX).min(part.len());
        let room = usize::try_from(LOG_BYTES_MAX.saturating_sub(have)).unwrap_or(usize::MAX);
        let new = &part[known..];
        self.pending.extend_from_slice(&new[..new.len().min(room)]);
    }

    async fn write(&mut self, logs: &dyn LogStore) -> Result<()> {
        let mut written = 0;
        for chunk in self.pending.chunks(LOG_CHUNK_BYTES_MAX) {
            logs.append(&self.key, self.stored, chunk).await?;
            self.stored += chunk.len() as u64;
            written += chunk.len();
        }
        self.pending.drain(..written);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.told >= LOG_BYTES_MAX
    }
}

/// Copies the output of one container.
#[derive(Debug)]
pub(super) struct Pump {
    logs: Arc<dyn LogStore>,
    execution: Execution,
}

impl Pump {
    pub(super) fn new(logs: Arc<dyn LogStore>, execution: Execution) -> Self {
        Pump { logs, execution }
    }

    /// Copies what there is, or as much as a log takes; with `follow` also what comes, until the container ends.
    pub(super) async fn copy(&self, engine: &Engine, container: &str, follow: bool) -> Result<(), Broken> {
        let mut lanes = Vec::new();
        for stream in Stream::ALL {
            let key = LogKey { id: self.execution.id.clone(), execution: self.execution.execution, stream };
            let stored = self.logs.len(&key).await?;
            lanes.push(Lane { key, told: 0, stored, pending: Vec::new() });
        }
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(follow);
        let source = engine.logs(container, options).await;
        let mut source = source.map_err(|trouble| Broken::Engine(trouble.to_string()))?;
        let mut write_at: Option<Instant> = None;
        loop {
            let next = tokio::select! {
                biased;
                next = source.next(engine) => Some(next),
                () = tokio::time::sleep_until(write_at.unwrap_or_else(monotonic)), if write_at.is_some() => None,
            };
            let ended = match next {
                Some(Ok(Some((stream, part)))) => {
                    let of_stream = lanes.iter_mut().filter(|lane| lane.key.stream == stream);
                    of_stream.for_each(|lane| lane.take(&part));
                    false
                }
                Some(Ok(None)) => true,
                Some(Err(Trouble::Unreachable(why) | Trouble::Said(_, why))) => return Err(Broken::Engine(why)),
                None => false,
            };
            let pending: usize = lanes.iter().map(|lane| lane.pending.len()).sum();
            let due = write_at.is_some_and(|at| at <= monotonic());
            if ended || due || pending >= LOG_CHUNK_BYTES_MAX {
                for lane in &mut lanes {
                    lane.write(&*self.logs).await?;
                }
                write_at = None;
            } else if pending > 0 && write_at.is_none() {
                write_at = Some(monotonic() + LOG_INTERVAL);
            }
            if ended || lanes.iter().all(|lane| lane.is_full() && lane.pending.is_empty()) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskId;

    fn lane(stored: u64) -> Lane {
        let key = LogKey { id: TaskId::new("a").unwrap(), execution: 1, stream: Stream::Stdout };
        Lane { key, told: 0, stored, pending: Vec::new() }
    }

    #[test]
    fn what_is_stored_is_passed_over() {
        for (stored, expected) in [(0, "hello world"), (2, "llo world"), (5, " world"), (8, "rld"), (11, ""), (99, "")]
        {
            let mut lane = lane(stored);
            for part in ["hello", " ", "world"] {
                lane.take(part.as_bytes());
            }
            assert_eq!(String::from_utf8_lossy(&lane.pending), expected, "{stored}");
            assert_eq!(lane.told, 11);
        }
    }

    #[test]
    fn a_log_has_an_end() {
        let mut lane = lane(LOG_BYTES_MAX - 2);
        lane.told = LOG_BYTES_MAX - 2;
        lane.take(b"hello");
        assert_eq!(lane.pending, b"he");
        assert!(lane.is_full());
    }
}
