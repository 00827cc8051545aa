//! Tells what became of each task: the progress bar or plain lines, JSON, the job log, the output files.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use light_task_scheduler::results::{LOG_CHUNK_BYTES_MAX, LogKey, Stream};
use light_task_scheduler::{LogStore, ResultRef, State, Task, Timestamp};
use serde::{Deserialize, Serialize};

use crate::batch::joblog::Joblog;
use crate::batch::lines::{NAME_LABEL, file_stem};
use crate::command::{shown, signal_of};
use crate::duration::seconds;
use crate::exit::{ERROR, Problem, Result, USAGE};
use crate::output;

/// What the results of commands and containers have in common.
#[derive(Deserialize)]
struct Brief {
    exit_code: i32,
    wall_ms: u64,
}

/// What became of one task, as JSON shows it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Ended {
    /// The task.
    pub(crate) id: String,
    /// Its line in the file.
    pub(crate) line: u32,
    /// Its name, if its line gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// How it ended.
    pub(crate) state: State,
    /// The command, as one would type it.
    pub(crate) command: String,
    /// The exit code, or 128 + the signal; none if it never started.
    pub(crate) exit_code: Option<i32>,
    /// The signal that killed it.
    pub(crate) signal: Option<i32>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// When the last attempt began.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished_at: Option<Timestamp>,
    /// How long the last attempt took.
    pub(crate) seconds: f64,
    /// It had ended before this run of the batch began.
    pub(crate) earlier: bool,
}

impl Ended {
    fn of(task: &Task, line: u32, earlier: bool) -> Self {
        let record = &task.record;
        let failure = record.failure().filter(|_| record.state != State::Succeeded);
        let result = match record.result() {
            Some(ResultRef::Inline(payload)) => payload.parse::<Brief>().ok(),
            _ => None,
        };
        let took = match (&result, record.started_at, record.finished_at) {
            (Some(result), ..) => Duration::from_millis(result.wall_ms),
            (None, Some(start), Some(end)) => end.since(start),
            _ => Duration::ZERO,
        };
        Ended {
            id: task.id.to_string(),
            line,
            name: task.spec.label(NAME_LABEL).map(str::to_owned),
            state: record.state,
            command: shown(task),
            exit_code: result.map(|result| result.exit_code).or(failure.and_then(|failure| failure.exit_code)),
            signal: failure.and_then(signal_of),
            error: failure.map(|failure| failure.message.clone()),
            attempts: record.attempt,
            started_at: record.started_at,
            finished_at: record.finished_at,
            seconds: took.as_secs_f64(),
            earlier,
        }
    }

    fn in_words(&self) -> String {
        let why = self.error.as_deref().unwrap_or("no reason is known");
        let tries = if self.attempts > 1 { format!(", {} attempts", self.attempts) } else { String::new() };
        format!(
            "{}: line {}, id {}{tries}: {why} ({})",
            self.state,
            self.line,
            self.id,
            output::shortened(&self.command, 80)
        )
    }
}

/// How many tasks have come to which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// All of them.
    pub(crate) tasks: usize,
    /// Done.
    pub(crate) succeeded: usize,
    /// Given up.
    pub(crate) failed: usize,
    /// Stopped by wish.
    pub(crate) cancelled: usize,
}

impl Tally {
    /// Counts one more end.
    pub(crate) fn add(&mut self, state: State) {
        match state {
            State::Succeeded => self.succeeded += 1,
            State::Failed => self.failed += 1,
            _ => self.cancelled += 1,
        }
    }

    /// How many have ended.
    pub(crate) fn ended(&self) -> usize {
        self.succeeded + self.failed + self.cancelled
    }

    /// The last line.
    pub(crate) fn in_words(&self, took: Duration) -> String {
        let Tally { tasks, succeeded, failed, cancelled } = self;
        format!(
            "tasks: {tasks}  succeeded: {succeeded}  failed: {failed}  cancelled: {cancelled}  in {}",
            seconds(took)
        )
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    batch: &'a str,
    tasks: usize,
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    unfinished: usize,
    seconds: f64,
}

/// The directory for the output of tasks.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    directory: PathBuf,
    logs: Arc<dyn LogStore>,
}

impl Outputs {
    /// In this directory, which is created.
    pub(crate) fn open(directory: &Path, logs: Arc<dyn LogStore>) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|error| {
            Problem::new(USAGE, format!("cannot use the output directory {}: {error}", directory.display()))
        })?;
        Ok(Outputs { directory: directory.to_owned(), logs })
    }

    fn path(&self, task: &Task, stream: Stream) -> PathBuf {
        let stem = file_stem(&task.id, task.spec.label(NAME_LABEL));
        self.directory.join(format!("{stem}.{}", stream.as_str()))
    }

    /// Removes what an earlier run of a task wrote: it runs again.
    pub(crate) fn forget(&self, task: &Task) {
        for stream in Stream::ALL {
            // Nothing there is the usual case; what cannot be removed now cannot be replaced later, which says so.
            let _ = fs::remove_file(self.path(task, stream));
        }
    }

    /// Writes both files of an ended task, whole or not at all, stdout last: where it is, both are.
    async fn write(&self, task: &Task, again: bool) -> Result<()> {
        if !again && self.path(task, Stream::Stdout).exists() {
            return Ok(());
        }
        for stream in [Stream::Stderr, Stream::Stdout] {
            let path = self.path(task, stream);
            let failed = |error: io::Error| Problem::new(ERROR, format!("cannot write {}: {error}", path.display()));
            let key = LogKey { id: task.id.clone(), execution: task.record.execution, stream };
            let mut chunk = self.logs.read(&key, 0, LOG_CHUNK_BYTES_MAX).await?;
            let mut file = tempfile::Builder::new().prefix(".lts-").tempfile_in(&self.directory).map_err(failed)?;
            let mut offset = 0;
            while !chunk.is_empty() {
                file.write_all(&chunk).map_err(failed)?;
                offset += chunk.len() as u64;
                chunk = self.logs.read(&key, offset, LOG_CHUNK_BYTES_MAX).await?;
            }
            make_readable(file.as_file()).map_err(failed)?;
            file.persist(&path).map_err(|error| failed(error.error))?;
        }
        Ok(())
    }
}

/// A temporary file is its owner's only; output is as readable as any file, as far as the umask of most goes.
fn make_readable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const ALL_MAY_READ: u32 = 0o644;
    file.set_permissions(fs::Permissions::from_mode(ALL_MAY_READ))
}

/// Tells it all.
pub(crate) struct Reporter {
    /// One JSON object per task on stdout.
    pub(crate) json: bool,
    /// The job log.
    pub(crate) joblog: Option<Joblog>,
    /// The output files.
    pub(crate) outputs: Option<Outputs>,
    bar: Option<ProgressBar>,
}

impl Reporter {
    /// With a progress bar if stderr is a terminal.
    pub(crate) fn new(json: bool, joblog: Option<Joblog>, outputs: Option<Outputs>) -> Self {
        Reporter { json, joblog, outputs, bar: None }
    }

    /// Shows the bar, if there is to be one.
    pub(crate) fn begin(&mut self, tally: Tally) {
        if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(tally.tasks as u64), ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style());
            bar.set_position(tally.ended() as u64);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            self.bar = Some(bar);
        }
    }

    /// Whether the ends of successful tasks are to be told one by one.
    pub(crate) fn wants_all(&self) -> bool {
        self.json || self.joblog.is_some() || self.outputs.is_some()
    }

    /// Tells what became of these tasks.
    pub(crate) async fn ended(&mut self, tasks: &[(u32, Task)], earlier: bool) -> Result<()> {
        let ended: Vec<Ended> = tasks.iter().map(|(line, task)| Ended::of(task, *line, earlier)).collect();
        if let Some(outputs) = &self.outputs {
            for (_, task) in tasks {
                outputs.write(task, !earlier).await?;
            }
        }
        if let Some(joblog) = &mut self.joblog {
            joblog.append(&ended)?;
        }
        if self.json {
            let mut text = String::new();
            for task in &ended {
                text.push_str(&output::json_text(task)?);
                text.push('\n');
            }
            self.quietly(|| output::bytes(text.as_bytes()))?;
        }
        for task in ended.iter().filter(|task| task.state != State::Succeeded && !earlier) {
            self.note(&task.in_words());
        }
        Ok(())
    }

    /// Shows how far it is.
    pub(crate) fn progress(&self, tally: Tally, running: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} failed, {running} running", tally.failed));
            bar.set_position(tally.ended() as u64);
        }
    }

    /// Says something beside the data.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// The last line.
    pub(crate) fn end(&mut self, batch: &str, tally: Tally, took: Duration) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.json {
            return output::line(&tally.in_words(took));
        }
        let Tally { tasks, succeeded, failed, cancelled } = tally;
        let unfinished = tasks - tally.ended();
        output::json(&Summary { batch, tasks, succeeded, failed, cancelled, unfinished, seconds: took.as_secs_f64() })
    }

    fn quietly<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn style() -> ProgressStyle {
    const TEMPLATE: &str = "{bar:30} {pos}/{len} done, {msg}, {rate}, ETA {eta}";
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Nothing can be done about a text that cannot be written into memory.
        let _ = write!(out, "{:.1}/s", state.per_sec());
    };
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_line_is_the_promised_one() {
        let mut tally = Tally { tasks: 4, ..Tally::default() };
        [State::Succeeded, State::Failed, State::Cancelled].into_iter().for_each(|state| tally.add(state));
        let line = tally.in_words(Duration::from_millis(12_345));
        assert_eq!(line, "tasks: 4  succeeded: 1  failed: 1  cancelled: 1  in 12.3s");
        assert_eq!(tally.ended(), 3);
    }
}
