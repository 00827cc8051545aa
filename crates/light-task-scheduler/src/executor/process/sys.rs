//! The few calls that no safe wrapper offers. Everything unsafe of this crate is in this file.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::io::unix::AsyncFd;

/// The answer to [`fork`].
pub(super) enum Forked {
    /// In the process that called.
    Parent,
    /// In the new process.
    Child,
}

/// Makes a copy of this process, which must have a single thread.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the launcher checks at its start that it has one thread and starts none, so the copy has no
    // lock held by a thread that is missing in it, and may do all that its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        _ => Ok(Forked::Parent),
    }
}

/// Ends this process at once, without running what was registered for its exit.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Whether ended children vanish by themselves (`true`) or wait to be asked for.
pub(super) fn reap_children_automatically(automatically: bool) {
    let disposition = if automatically { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: sets one of the two constant dispositions, no handler of ours is involved.
    unsafe { libc::signal(libc::SIGCHLD, disposition) };
}

/// Closes every descriptor from 3 up.
///
/// Only for the first moment of a process, before anything of it has opened a file.
pub(super) fn close_inherited_files() {
    const FIRST: u32 = 3;
    // SAFETY: the caller owns no descriptor yet, so none that is in use is closed. A kernel without the call
    // (before 5.9) leaves them open, which leaks what the parent leaked and breaks nothing.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, 0) };
}

/// The signals that have come since [`note_signals`], one bit each.
static NOTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: libc::c_int) {
    NOTED.fetch_or(1 << signal, Ordering::SeqCst);
}

/// From here on these signals, all under 32, are noted instead of ending this process. Unlike blocking or
/// ignoring them, this does not pass on to a program that is started.
pub(super) fn note_signals(signals: &[i32]) {
    // SAFETY: an all-zero action is a valid value to initialise, and the handler only sets bits of a lock-free
    // atomic, which is allowed at any point of the program.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        for &signal in signals {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Whether this signal was noted.
pub(super) fn was_noted(signal: i32) -> bool {
    NOTED.load(Ordering::SeqCst) & (1 << signal) != 0
}

/// Opens a file from which these signals are read once they are [blocked](block_signals).
pub(super) fn signal_file(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the pointer is to a local value, and the descriptor that is answered is new and owned by nobody else.
    unsafe {
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Keeps these signals, and no others, from interrupting this process. Programs that it starts inherit that.
pub(super) fn block_signals(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: the pointer is to a local value; with these arguments the call cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero signal set is a valid value to initialise, and the pointers are to this local value.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// The size of one message of a [`signal_file`], and where in it the signal's number is: the first field.
pub(super) const SIGNAL_INFO_BYTES: usize = size_of::<libc::signalfd_siginfo>();

/// What all ended and reaped children of this process have used together.
pub(super) struct Usage {
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// Of the largest of them, in KiB.
    pub(super) max_rss_kib: u64,
}

/// What the reaped children have used.
pub(super) fn children_usage() -> Usage {
    // SAFETY: `rusage` is plain numbers, for which zero is valid; the call writes to this local value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }
}

/// Makes a file one that can be awaited.
pub(super) fn awaitable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file from its making to its drop, and nobody here replaces the
    // one that is put in.
    Ok(unsafe { AsyncFd::register(file) }?)
}

/// Makes `command` set these limits, and its niceness, just before it executes its program.
pub(super) fn limit(command: &mut Command, limits: Vec<(Resource, u64)>, nice: Option<u8>) {
    let set = move || {
        for &(resource, value) in &limits {
            rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?;
        }
        if let Some(nice) = nice {
            rustix::process::setpriority_process(None::<Pid>, i32::from(nice))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls on values it owns, neither allocates nor locks, and so may run
    // between fork and exec.
    unsafe { command.pre_exec(set) };
}
