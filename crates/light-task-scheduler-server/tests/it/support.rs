//! A directory with a store in it, and the program to be run there.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use light_task_scheduler::store::{PAGE_MAX, TaskQuery};
use light_task_scheduler::{SqliteStore, Store, Task};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::witness::Stopwatch;

/// How long the last process of a place may take to end after the program has.
const PROCESSES_END_WITHIN: Duration = Duration::from_secs(5);

/// A temporary directory in which `lts` is run.
pub(crate) struct Place(TempDir);

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A pipe with a name: opening it waits for whoever opens the other end.
    pub(crate) fn fifo(&self, name: &str) {
        assert!(Command::new("mkfifo").arg(self.path(name)).status().unwrap().success());
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lts"));
        command.args(args).current_dir(self.0.path());
        for variable in ["LTS_STORE", "LTS_SERVER", "LTS_TOKEN", "LTS_CONTEXT", "LTS_LANG"] {
            command.env_remove(variable);
        }
        command.env("XDG_CONFIG_HOME", self.path("config"));
        // Where the commands of a server's tasks are kept.
        command.env("LTS_STATE_DIR", self.0.path().join("state")).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn lts(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// Starts the program and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running::new(child)
    }

    /// The tasks, as `lts ls --json` shows them.
    pub(crate) fn tasks(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let said = self.lts(&[&["ls", "--json", "--limit", "0"], args].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The tasks as the store has them.
    pub(crate) fn stored(&self) -> Vec<Task> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open(self.path("lts.db")).unwrap();
            let (mut tasks, mut query) = (Vec::new(), TaskQuery { limit: PAGE_MAX, ..TaskQuery::default() });
            loop {
                let page = store.list(&query).await.unwrap();
                tasks.extend(page.tasks);
                query.cursor = page.next;
                if query.cursor.is_none() {
                    return tasks;
                }
            }
        })
    }

    /// Waits until no process is left in this place, not for long: what ends, ends at once.
    pub(crate) fn assert_no_process_stays(&self) {
        let since = Stopwatch::start();
        while !self.processes().is_empty() {
            assert!(since.elapsed() < PROCESSES_END_WITHIN, "processes are left: {:?}", self.processes());
            std::thread::yield_now();
        }
    }

    /// The command lines of the processes of this place.
    pub(crate) fn processes(&self) -> Vec<String> {
        let command = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        self.pids().into_iter().map(command).filter(|command| !command.is_empty()).collect()
    }

    /// The processes of this place that are called so.
    pub(crate) fn processes_called(&self, name: &str) -> Vec<Pid> {
        let is_called = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim() == name);
        self.pids().into_iter().filter(is_called).filter_map(Pid::from_raw).collect()
    }

    fn pids(&self) -> Vec<i32> {
        let in_place = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.0.path());
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(in_place).collect()
    }
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        code: code(output.status),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

impl Said {
    /// Each line of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The counts of the summary line: tasks, succeeded, failed, cancelled.
    pub(crate) fn counts(&self) -> [u32; 4] {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("no summary: {self:?}"));
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            [words[0], words[2], words[4], words[6], words[8]],
            ["tasks:", "succeeded:", "failed:", "cancelled:", "in"]
        );
        [1, 3, 5, 7].map(|place| words[place].parse().unwrap())
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    heard: String,
}

impl Running {
    pub(crate) fn new(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Running { child, stderr, heard: String::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads stderr until a line has this in it, and answers the line.
    pub(crate) fn hear(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "{what:?} never came: {}", self.heard);
            self.heard.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    /// What it has said on stderr up to what was waited for.
    pub(crate) fn heard(&self) -> &str {
        &self.heard
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut self.heard).unwrap();
        Said { code: code(self.child.wait().unwrap()), stdout, stderr: self.heard }
    }

    /// Kills it as a power failure would, and waits until it is dead.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stdout(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    pub(crate) fn wait(mut self) -> i32 {
        code(self.child.wait().unwrap())
    }
}
