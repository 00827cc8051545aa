//! The supervisor: one small process per command, which owns the command, its output and its end.
//!
//! It is a copy of the launcher, has one thread, and outlives the scheduler. What the command starts and
//! leaves behind becomes its child (it is a subreaper), so that it ends only when nothing is left.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, setsid, wait};
use rustix::time::{ClockId, clock_gettime};

use super::capture::Capture;
use super::command::CommandSpec;
use super::rundir::{RunDir, write_end};
use super::wire::{End, Order, Word};
use super::{sys, tree};
use crate::results::Stream;

/// How long what a command leaves behind is given between being asked and being killed.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// How long a command is given where nobody has said.
pub(super) const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// How often what does not die is killed again: it may have started something in between.
const KILL_AGAIN: Duration = Duration::from_millis(5);
/// How often an orphan looks whether somebody has come for it.
const ORPHAN_LOOK: Duration = Duration::from_secs(1);
/// The signals that ask for a stop.
const STOP_SIGNALS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
/// The signal that asks to kill now.
const KILL_SIGNAL: i32 = libc::SIGUSR1;

/// Runs one command to its end. `channel` leads to the scheduler that ordered it, if that lives.
///
/// `oom_counter` is the file in which the kernel counts what it killed for want of memory.
pub(super) fn supervise(order: &Order, channel: OwnedFd, oom_counter: Option<&File>) -> io::Result<()> {
    let dir = RunDir(order.dir.clone());
    let started_at = boot_time();
    // Before the run can be seen, so that whoever stops it is heard.
    let asked = [&STOP_SIGNALS[..], &[KILL_SIGNAL]].concat();
    sys::note_signals(&asked);
    let Some(run_file) = dir.claim(started_at)? else { return Ok(()) };
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let heard = [&asked[..], &[libc::SIGCHLD]].concat();
    let signals = sys::signal_file(&heard)?;
    // The command inherits what is blocked: nothing.
    sys::block_signals(&[]);
    let kills_before = oom_kills(oom_counter);
    let (child, stdout, stderr) = match spawn(order, &dir) {
        Ok(spawned) => spawned,
        Err(word) => {
            // Busy leaves no end: whoever comes later finds that nothing runs, and tries again.
            if let Word::Refused(why) = &word {
                write_end(&run_file, &End { refused: Some(why.clone()), ..End::default() })?;
            }
            say(&channel, &word);
            return Ok(());
        }
    };
    sys::block_signals(&heard);
    say(&channel, &Word::Started);
    let orphan_after = order.orphan_after_ms.map(Duration::from_millis);
    let mut watch = Supervised {
        dir,
        child,
        signals: signals.into(),
        stdout,
        stderr,
        channel,
        run_file: &run_file,
        status: None,
        stopped: false,
        by_scheduler: false,
        kill_at: None,
        killing: false,
        orphan_after,
        attached_at: started_at,
    };
    for signal in asked.into_iter().filter(|&signal| sys::was_noted(signal)) {
        watch.obey(signal);
    }
    let mut end = watch.until_all_has_ended()?;
    end.out_of_memory = end.signal == Some(libc::SIGKILL) && !end.stopped && oom_kills(oom_counter) > kills_before;
    end.wall_ms = millis(boot_time().saturating_sub(started_at));
    write_end(&run_file, &end)?;
    say(&watch.channel, &Word::Ended(end));
    Ok(())
}

struct Supervised<'a> {
    dir: RunDir,
    child: Pid,
    signals: File,
    stdout: Capture,
    stderr: Capture,
    channel: OwnedFd,
    run_file: &'a File,
    /// How the command itself ended, once it has.
    status: Option<rustix::process::WaitStatus>,
    /// It was asked to stop before it ended.
    stopped: bool,
    /// By a scheduler: it has left word how long the command may take, or sent the signal that only it sends.
    by_scheduler: bool,
    /// When asking turns into killing, on the clock since boot.
    kill_at: Option<Duration>,
    killing: bool,
    orphan_after: Option<Duration>,
    /// When a scheduler was last known to be there.
    attached_at: Duration,
}

impl Supervised<'_> {
    fn until_all_has_ended(&mut self) -> io::Result<End> {
        while !self.reap()? {
            self.sleep()?;
            self.hear_signals();
            // Once each: a command that never stops talking must not keep the rest from being done.
            self.stdout.copy();
            self.stderr.copy();
            self.look_at_the_time();
        }
        self.stdout.finish();
        self.stderr.finish();
        let usage = sys::children_usage();
        Ok(End {
            code: self.status.and_then(rustix::process::WaitStatus::exit_status),
            signal: self.status.and_then(rustix::process::WaitStatus::terminating_signal),
            stopped: self.stopped,
            by_scheduler: self.by_scheduler,
            user_ms: millis(usage.user),
            sys_ms: millis(usage.system),
            max_rss_kib: usage.max_rss_kib,
            stdout_bytes: self.stdout.bytes,
            stderr_bytes: self.stderr.bytes,
            last_line: self.stderr.last_line(),
            ..End::default()
        })
    }

    /// Waits for a signal, output, the end of the scheduler, or the next thing to do by the clock.
    fn sleep(&self) -> io::Result<()> {
        let mut files = Vec::with_capacity(4);
        files.push(PollFd::new(&self.signals, PollFlags::IN));
        files.extend(self.stdout.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        files.extend(self.stderr.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let timeout = if self.killing {
            Some(KILL_AGAIN)
        } else {
            let kill = self.kill_at.map(|at| at.saturating_sub(boot_time()));
            let orphan = self.orphan_after.map(|after| after.min(ORPHAN_LOOK));
            kill.into_iter().chain(orphan).min()
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn hear_signals(&mut self) {
        let mut info = [0; sys::SIGNAL_INFO_BYTES];
        while let Ok(read) = self.signals.read(&mut info) {
            if read < size_of::<u32>() {
                break;
            }
            let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            self.obey(number);
        }
    }

    fn obey(&mut self, signal: i32) {
        if signal == KILL_SIGNAL {
            self.by_scheduler = true;
            self.kill();
        } else if STOP_SIGNALS.contains(&signal) {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.stopped |= self.status.is_none();
        let grace = self.dir.grace();
        self.by_scheduler |= grace.is_some();
        self.ask(grace.unwrap_or(GRACE_DEFAULT));
    }

    fn ask(&mut self, grace: Duration) {
        if self.killing {
            return;
        }
        self.kill_at = Some(boot_time() + grace);
        tree::signal_all(&tree::descendants(getpid()).unwrap_or_default(), Signal::TERM);
    }

    fn kill(&mut self) {
        self.stopped |= self.status.is_none();
        self.killing = true;
        // The group dies as one, faster than it can fork; what has left the group is found one by one.
        if self.status.is_none() {
            let _ = kill_process_group(self.child, Signal::KILL);
        }
        tree::signal_all(&tree::descendants(getpid()).unwrap_or_default(), Signal::KILL);
    }

    /// Collects what has ended; whether nothing is left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.child && self.status.is_none() => self.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
                Ok(None) => break,
            }
        }
        if self.status.is_some() && self.kill_at.is_none() {
            // The command is over, and what it has left behind has no owner any more.
            self.ask(LEFTOVER_GRACE);
        }
        Ok(false)
    }

    fn look_at_the_time(&mut self) {
        let now = boot_time();
        if self.killing || self.kill_at.is_some_and(|at| at <= now) {
            self.kill();
        }
        if let Some(after) = self.orphan_after {
            if self.is_attached() {
                self.attached_at = now;
            } else if now.saturating_sub(self.attached_at) >= after && !self.killing {
                self.stop();
                self.orphan_after = None;
            }
        }
    }

    /// Whether the scheduler that ordered the command lives, or another has come for it.
    fn is_attached(&self) -> bool {
        let mut channel = [PollFd::new(&self.channel, PollFlags::empty())];
        let here = matches!(poll(&mut channel, Some(&Timespec::default())), Ok(0));
        here || match flock(self.run_file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = flock(self.run_file, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }
}

fn spawn(order: &Order, dir: &RunDir) -> Result<(Pid, Capture, Capture), Word> {
    let spec = &order.spec;
    let env = spec.environment(std::env::vars_os(), &order.execution);
    let program = spec.program(&env).map_err(Word::Refused)?;
    let busy = |error: io::Error| Word::Busy(format!("no room to start a command: {error}"));
    let (stdout_read, stdout) = output_pipe().map_err(busy)?;
    let (stderr_read, stderr) = output_pipe().map_err(busy)?;
    let mut command = Command::new(program);
    command.arg0(&spec.argv[0]).args(&spec.argv[1..]).env_clear().envs(env).process_group(0);
    command.stdin(input(spec).map_err(busy)?).stdout(stdout).stderr(stderr);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let limits = spec.rlimits.set();
    if !limits.is_empty() || spec.nice.is_some() {
        sys::limit(&mut command, limits.iter().map(|&(resource, _, value)| (resource, value)).collect(), spec.nice);
    }
    let child = command.spawn().map_err(|error| explain(&error, spec))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Word::Busy("the command has no process number".to_owned()))?;
    Ok((
        pid,
        Capture::new(stdout_read, dir.output_file(Stream::Stdout)),
        Capture::new(stderr_read, dir.output_file(Stream::Stderr)),
    ))
}

/// A pipe of which only the end that is read does not block.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// The launcher's standard input is the null device, which the command inherits unless it has a text to read.
fn input(spec: &CommandSpec) -> io::Result<Stdio> {
    let Some(text) = &spec.stdin else { return Ok(Stdio::inherit()) };
    let file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    // Written at an offset, so that the command reads from the beginning.
    file.write_all_at(text.as_bytes(), 0)?;
    Ok(file.into())
}

fn explain(error: &io::Error, spec: &CommandSpec) -> Word {
    let name = spec.argv.first().map_or("", String::as_str);
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
            Word::Busy(format!("no room to start {name}: {error}"))
        }
        Some(Errno::NOENT) => Word::Refused(format!("no such program, or no interpreter for it: {name}")),
        Some(Errno::ACCESS) => Word::Refused(format!("not allowed to execute: {name}")),
        Some(Errno::NOEXEC) => {
            Word::Refused(format!("not a program: {name}; a script begins with a line such as #!/bin/sh"))
        }
        Some(Errno::TOOBIG) => Word::Refused(format!("arguments and environment of {name} are too long together")),
        Some(Errno::PERM) if !spec.rlimits.set().is_empty() || spec.nice.is_some() => {
            let over: Vec<String> = spec
                .rlimits
                .set()
                .into_iter()
                .filter_map(|(resource, limit, value)| {
                    let most = rustix::process::getrlimit(resource).maximum?;
                    (value > most).then(|| format!("{limit} is {value}, more than the {most} allowed here"))
                })
                .collect();
            Word::Refused(format!("not allowed to set the limits of {name}: {}", over.join("; ")))
        }
        _ => Word::Refused(format!("cannot start {name}: {error}")),
    }
}

/// Tells the scheduler. It may be gone: then whoever comes reads the run's file.
pub(super) fn say(channel: &impl AsFd, word: &Word) {
    if let Ok(text) = serde_json::to_vec(word) {
        let _ = send(channel, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// How often the kernel has killed in this memory group; 0 where that cannot be read.
fn oom_kills(counter: Option<&File>) -> u64 {
    let mut buffer = [0; 512];
    let read = counter.and_then(|file| file.read_at(&mut buffer, 0).ok()).unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..read]);
    let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Time since boot, sleep included: it neither steps nor is it ever set.
fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
