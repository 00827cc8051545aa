//! The directory of one run: who supervises it, what it wrote, how it ended.
//!
//! `run` is the only file that every run has. Lines are appended to it, and **the first line decides**: a
//! supervisor that reads back its own `born` line runs the command; one that finds `gone` there, written by
//! somebody who had to be sure that nothing runs, ends without having done anything. The supervisor holds a
//! lock on the file for as long as it lives, so that its life is known without trusting a process number.
//! The last line is the end of the run.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use super::wire::End;
use crate::results::{Stream, short_hash};

const RUN_FILE: &str = "run";
const ORDER_FILE: &str = "order.json";
const STOP_FILE: &str = "stop";
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
const GONE: &str = "gone";
const BORN: &str = "born ";
const END: &str = "end ";

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunDir(pub(super) PathBuf);

/// What a run's directory tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    /// There is no such directory, or nothing was written into it yet.
    Nothing,
    /// It never started and never will.
    Gone,
    /// This supervisor is alive.
    Alive(Pid),
    /// All of it has ended.
    Ended(Box<End>),
    /// Its supervisor died before its command ended.
    Orphaned,
}

impl RunDir {
    /// The directory of this execution. Different executions have different directories.
    pub(super) fn new(state_dir: &Path, namespace: &str, id: &str, execution: u64) -> Self {
        RunDir(state_dir.join(file_name(namespace)).join(format!("{}-{execution}", file_name(id))))
    }

    /// All directories of a namespace, each with the id and the execution that it is named after. Names that do not
    /// spell the id out are left out.
    pub(super) fn all(state_dir: &Path, namespace: &str) -> io::Result<Vec<(Self, String, u64)>> {
        let entries = match std::fs::read_dir(state_dir.join(file_name(namespace))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
            if let Some((id, execution)) = name
                && let (Some(id), Ok(execution)) = (spelled_out(id), execution.parse())
            {
                all.push((RunDir(path), id, execution));
            }
        }
        Ok(all)
    }

    /// For how long neither it nor what is known of the run has changed, by the clock of the file system.
    pub(super) fn unchanged_for(&self) -> io::Result<Duration> {
        let changed_at = |path: &Path| std::fs::metadata(path)?.modified();
        let at = match changed_at(&self.0.join(RUN_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => changed_at(&self.0)?,
            run => run?.max(changed_at(&self.0)?),
        };
        // In the future: the clock was set back.
        Ok(at.elapsed().unwrap_or_default())
    }

    /// Makes the directory; `false` if it is there already.
    pub(super) fn create(&self) -> io::Result<bool> {
        let mut builder = DirBuilder::new();
        builder.mode(DIR_MODE);
        match builder.create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                builder.recursive(true).create(self.0.parent().unwrap_or(&self.0))?;
                builder.recursive(false).create(&self.0)
            }
            other => other,
        }
        .map(|()| true)
        .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(false) } else { Err(error) })
    }

    /// Looks, and changes nothing.
    pub(super) fn look(&self) -> io::Result<Seen> {
        match OpenOptions::new().read(true).write(true).open(self.0.join(RUN_FILE)) {
            Ok(file) => look_at(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Looks, and makes sure that a run that has not started by now never will.
    pub(super) fn look_for_good(&self) -> io::Result<Seen> {
        self.create()?;
        let mut file = self.run_file()?;
        if read_all(&file)?.is_empty() {
            file.write_all(format!("{GONE}\n").as_bytes())?;
        }
        look_at(&file)
    }

    /// Becomes the supervisor of this run for as long as the file is open; `None` if it is too late.
    pub(super) fn claim(&self, born_at: Duration) -> io::Result<Option<File>> {
        let mut file = self.run_file()?;
        if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let line = format!("{BORN}{} {}\n", rustix::process::getpid(), born_at.as_nanos());
        file.write_all(line.as_bytes())?;
        let first = read_all(&file)?;
        Ok((first == line.as_bytes()).then_some(file))
    }

    fn run_file(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(self.0.join(RUN_FILE))
    }

    /// Where an order too large for the socket is put.
    pub(super) fn order_file(&self) -> PathBuf {
        self.0.join(ORDER_FILE)
    }

    /// Where a stream's output is kept.
    pub(super) fn output_file(&self, stream: Stream) -> PathBuf {
        self.0.join(stream.as_str())
    }

    /// Tells the supervisor how long to wait between asking and killing.
    pub(super) fn write_grace(&self, grace: Duration) -> io::Result<()> {
        std::fs::write(self.0.join(STOP_FILE), grace.as_millis().to_string())
    }

    /// What [`write_grace`](Self::write_grace) has told, if anything.
    pub(super) fn grace(&self) -> Option<Duration> {
        std::fs::read_to_string(self.0.join(STOP_FILE)).ok()?.parse().ok().map(Duration::from_millis)
    }

    /// Marks the caller as the scheduler to which the run belongs, for as long as the file is open.
    pub(super) fn attach(&self) -> io::Result<File> {
        let file = self.run_file()?;
        rustix::fs::flock(&file, FlockOperation::LockShared)?;
        Ok(file)
    }

    /// Removes it in two calls if the run wrote nothing; else `false`, and nothing but `run` is removed.
    pub(super) fn remove_if_silent(&self) -> bool {
        let _ = std::fs::remove_file(self.0.join(RUN_FILE));
        match std::fs::remove_dir(&self.0) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Appends the end of the run.
pub(super) fn write_end(mut run_file: &File, end: &End) -> io::Result<()> {
    let mut line = END.as_bytes().to_vec();
    serde_json::to_writer(&mut line, end)?;
    line.push(b'\n');
    run_file.write_all(&line)
}

fn look_at(file: &File) -> io::Result<Seen> {
    // The lock first: once it is free, nothing more is written.
    let holder = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    let text = read_all(file)?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let first = lines.next();
    if first == Some(GONE) {
        return Ok(Seen::Gone);
    }
    if let Some(end) = lines.find_map(|line| line.strip_prefix(END)) {
        return serde_json::from_str(end).map(|end| Seen::Ended(Box::new(end))).map_err(io::Error::from);
    }
    Ok(match holder.map(|lock| lock.pid) {
        Some(Some(pid)) => Seen::Alive(pid),
        Some(None) => return Err(io::Error::other("the run is held by a process that cannot be seen from here")),
        None if first.is_none() => Seen::Nothing,
        None => Seen::Orphaned,
    })
}

fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    use std::io::Seek;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name for a file, the same for the same text and another for another.
fn file_name(text: &str) -> String {
    const KEPT_BYTES_MAX: usize = 120;
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    if name.len() > KEPT_BYTES_MAX {
        // `~` is in no name that is whole.
        name.truncate(KEPT_BYTES_MAX);
        name.push('~');
        name.push_str(&short_hash(text.as_bytes()));
    }
    name
}

/// The text that [`file_name`] made this name of, unless it was too long for that.
fn spelled_out(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (hex, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| file_name(text) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_unique_and_stay_inside() {
        let dir = |id: &str, execution| RunDir::new(Path::new("/s"), "n", id, execution).0;
        assert_eq!(dir("a b/..", 3), Path::new("/s/n/a%20b%2f..-3"));
        assert_eq!(dir("..", 1), Path::new("/s/n/%2e.-1"));
        assert_ne!(dir("a", 11), dir("a-1", 1));
        let long = "é".repeat(100);
        assert_ne!(dir(&long, 1), dir(&format!("{}x", &long[2..]), 1));
        assert!(dir(&long, 1).file_name().unwrap().len() < 255);
    }

    #[test]
    fn a_directory_tells_whose_it_is_unless_its_name_is_cut() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(RunDir::all(root.path(), "n/m").unwrap(), []);
        let long = "é".repeat(100);
        for (id, execution) in [("a", 1), ("a-1", 12), (".%é~ /b", 3), (&long, 4)] {
            RunDir::new(root.path(), "n/m", id, execution).create().unwrap();
            RunDir::new(root.path(), "other", id, execution).create().unwrap();
        }
        std::fs::create_dir(root.path().join("n%2fm/%zz-1")).unwrap();
        let mut all = RunDir::all(root.path(), "n/m").unwrap();
        all.sort_by_key(|(_, _, execution)| *execution);
        let dir = |id: &str, execution| (RunDir::new(root.path(), "n/m", id, execution), id.to_owned(), execution);
        assert_eq!(all, [dir("a", 1), dir(".%é~ /b", 3), dir("a-1", 12)]);
    }

    #[test]
    fn whoever_writes_the_first_line_decides() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::new(root.path(), "n", "a", 1);
        assert_eq!(dir.look().unwrap(), Seen::Nothing);
        assert_eq!(dir.look_for_good().unwrap(), Seen::Gone);
        assert!(dir.claim(Duration::ZERO).unwrap().is_none(), "too late to start");
        assert_eq!(dir.look().unwrap(), Seen::Gone);

        let dir = RunDir::new(root.path(), "n", "a", 2);
        assert!(dir.create().unwrap() && !dir.create().unwrap());
        let file = dir.claim(Duration::ZERO).unwrap().unwrap();
        assert!(dir.claim(Duration::from_nanos(1)).unwrap().is_none(), "a second start does nothing");
        assert_eq!(dir.look_for_good().unwrap(), Seen::Orphaned, "no lock is seen by the process that holds it");
        write_end(&file, &End { code: Some(7), ..End::default() }).unwrap();
        assert!(matches!(dir.look().unwrap(), Seen::Ended(end) if end.code == Some(7)));
    }

    #[test]
    fn a_directory_that_is_gone_is_not_made_again_by_a_late_start() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::new(root.path(), "n", "a", 1);
        assert!(dir.claim(Duration::ZERO).is_err());
        dir.remove();
        assert!(!dir.0.exists());
    }
}
