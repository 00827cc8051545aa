//! The job log: one tab-separated line per ended task, as GNU parallel writes it, appended to by every run.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::batch::report::Ended;
use crate::exit::{ERROR, Problem, Result, USAGE};
use crate::output::shortened;

const HEADING: &str = "Seq\tId\tStart\tRuntime\tExit\tSignal\tState\tCommand\n";
/// Longest command shown, in characters.
const COMMAND_CHARS_MAX: usize = 4_096;
/// The exit code of a task that has none: it never started, or was cancelled before.
const NO_EXIT_CODE: i32 = -1;

/// An open job log.
#[derive(Debug)]
pub(crate) struct Joblog {
    path: PathBuf,
    file: File,
    /// Id and start of what an earlier run has written.
    written: HashSet<(String, String)>,
}

impl Joblog {
    /// Opens it, creates it with its heading, or refuses a file that is something else.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed =
            |error: io::Error| Problem::new(USAGE, format!("cannot use the job log {}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        // A run that was killed may have left half a line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole > 0 && !text.starts_with(HEADING) || whole == 0 && !HEADING.starts_with(&*text) {
            return Err(Problem::usage(format!("{} is not a job log of lts; choose another file", path.display())));
        }
        if whole < text.len() {
            file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        }
        let written = text[..whole].lines().skip(1).filter_map(|line| {
            let mut fields = line.split('\t').skip(1);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        });
        let written = written.collect();
        let mut log = Joblog { path: path.to_owned(), file, written };
        if whole == 0 {
            log.write(HEADING)?;
        }
        Ok(log)
    }

    /// Appends these tasks, except those that an earlier run has written.
    pub(crate) fn append(&mut self, ended: &[Ended]) -> Result<()> {
        let mut text = String::new();
        for task in ended {
            let (id, start) = (task.id.replace('\t', " "), start(task));
            if !self.written.contains(&(id.clone(), start.clone())) {
                let exit = task.exit_code.unwrap_or(NO_EXIT_CODE);
                let command = shortened(&task.command, COMMAND_CHARS_MAX);
                text.push_str(&format!(
                    "{}\t{id}\t{start}\t{:.3}\t{exit}\t{}\t{}\t{command}\n",
                    task.line,
                    task.seconds,
                    task.signal.unwrap_or(0),
                    task.state
                ));
            }
        }
        if text.is_empty() { Ok(()) } else { self.write(&text) }
    }

    /// In one call: two processes that append get whole lines.
    fn write(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| Problem::new(ERROR, format!("cannot write the job log {}: {error}", self.path.display())))
    }
}

fn start(task: &Ended) -> String {
    task.started_at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use light_task_scheduler::{State, Timestamp};

    fn ended(id: &str, second: i64) -> Ended {
        Ended {
            id: id.to_owned(),
            line: 1,
            state: State::Succeeded,
            command: "a\tb".to_owned(),
            exit_code: Some(0),
            started_at: Some(Timestamp::from_micros(second * 1_000_000)),
            seconds: 0.25,
            ..Ended::default()
        }
    }

    #[test]
    fn what_was_written_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Joblog::open(&path).unwrap().append(&[ended("x", 1)]).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"1\thalf a li").unwrap();
        Joblog::open(&path).unwrap().append(&[ended("x", 1), ended("y", 1), ended("x", 2)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1], "1\tx\t1970-01-01T00:00:01.000000Z\t0.250\t0\t0\tsucceeded\ta b");
        assert!(lines[2].starts_with("1\ty\t") && lines[3].contains("00:00:02"));
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for text in ["my notes\n", "notes"] {
            std::fs::write(&path, text).unwrap();
            assert!(Joblog::open(&path).unwrap_err().message.contains("not a job log"));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
