//! The launcher: a process with a single thread that makes a copy of itself for every command.
//!
//! The scheduler has many threads and cannot safely be copied, and executing a program anew for every
//! command would double its price. The launcher ends with the scheduler; its copies, the supervisors, do not.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::supervisor::{say, supervise};
use super::sys;
use super::wire::{Envelope, ORDER_BYTES_MAX, Order, WORD_BYTES_MAX, Word};

/// Set in the environment of a process that shall be a launcher.
pub(super) const LAUNCHER_VARIABLE: &str = "LTS_LAUNCHER";
/// What the launcher says first.
const READY: &[u8] = b"ready";
/// What it says instead if it has threads already.
const THREADS: &[u8] = b"threads";
/// How long a program may take to become a launcher.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Turns this process into the launcher of a scheduler's commands if a scheduler has started it as one; else
/// does nothing.
///
/// Call it first thing in `main`, before any thread is started (so not inside `#[tokio::main]`), in every
/// program that uses a [`ProcessExecutor`](super::ProcessExecutor) without naming another program as its
/// supervisor. As a launcher it never returns.
pub fn run_supervisor_if_asked() {
    if std::env::var_os(LAUNCHER_VARIABLE).is_some() {
        let code = i32::from(launch_until_told_to_end().is_err());
        sys::exit_now(code);
    }
}

fn launch_until_told_to_end() -> io::Result<()> {
    sys::close_inherited_files();
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    if std::fs::read_dir("/proc/self/task")?.count() > 1 {
        send(&socket, THREADS, SendFlags::NOSIGNAL)?;
        return Err(io::Error::other("a process with threads cannot be copied"));
    }
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // A Ctrl-C at the terminal is meant for the scheduler.
    rustix::process::setsid()?;
    let _ = rustix::thread::set_name(c"lts-launcher");
    sys::reap_children_automatically(true);
    let oom_counter = open_oom_counter();
    send(&socket, READY, SendFlags::NOSIGNAL)?;
    let mut buffer = vec![0; ORDER_BYTES_MAX];
    loop {
        let (read, channel) = match receive(&socket, &mut buffer) {
            Ok((0, _)) => return Ok(()),
            Ok((read, Some(channel))) => (read, channel),
            Ok((_, None)) => continue,
            Err(error) => return Err(error),
        };
        match sys::fork() {
            Ok(sys::Forked::Parent) => {}
            Ok(sys::Forked::Child) => {
                drop(socket);
                sys::reap_children_automatically(false);
                let _ = rustix::thread::set_name(c"lts-supervisor");
                let done =
                    read_order(&buffer[..read]).and_then(|order| supervise(&order, channel, oom_counter.as_ref()));
                sys::exit_now(i32::from(done.is_err()));
            }
            Err(error) => say(&channel, &Word::Busy(format!("no room for another process: {error}"))),
        }
    }
}

fn read_order(bytes: &[u8]) -> io::Result<Order> {
    match serde_json::from_slice(bytes)? {
        Envelope::Order(order) => Ok(*order),
        Envelope::ReadFrom(path) => match serde_json::from_slice(&std::fs::read(path)?)? {
            Envelope::Order(order) => Ok(*order),
            Envelope::ReadFrom(_) => Err(io::Error::other("the order leads to another file")),
        },
    }
}

/// The file in which the kernel counts what it kills in the memory group of this process.
fn open_oom_counter() -> Option<File> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let files = match controllers {
            "" => [format!("/sys/fs/cgroup{path}/memory.events"), String::new()],
            "memory" => [
                format!("/sys/fs/cgroup/memory{path}/memory.oom_control"),
                "/sys/fs/cgroup/memory/memory.oom_control".to_owned(),
            ],
            _ => return None,
        };
        files.iter().find_map(|file| File::open(file).ok())
    })
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut into = [io::IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let channel = files.next().and_then(|mut files| files.next());
    // An order that was cut is no order; its sender sees the channel close.
    if message.flags.contains(ReturnFlags::TRUNC) { Ok((message.bytes, None)) } else { Ok((message.bytes, channel)) }
}

/// The scheduler's side of a launcher. Dropping it ends the launcher; the supervisors live on.
#[derive(Debug)]
pub(super) struct Launcher {
    socket: AsyncFd<OwnedFd>,
    process: Child,
}

impl Launcher {
    /// Starts `program`, or this program, as a launcher.
    pub(super) async fn start(program: Option<&Path>) -> Result<Self, String> {
        let own = Path::new("/proc/self/exe");
        let shown = program.map_or("this program".to_owned(), |program| program.display().to_string());
        let unprepared = format!("{shown} does not call run_supervisor_if_asked() first thing in main");
        if std::env::var_os(LAUNCHER_VARIABLE).is_some() {
            return Err(unprepared);
        }
        let (ours, theirs) = sockets().map_err(|error| format!("no socket for the launcher: {error}"))?;
        let process = Command::new(program.unwrap_or(own))
            .env(LAUNCHER_VARIABLE, "1")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {shown} to supervise commands: {error}"))?;
        let socket = sys::awaitable(ours).map_err(|error| format!("cannot wait for the launcher: {error}"))?;
        let launcher = Launcher { socket, process };
        match tokio::time::timeout(READY_WITHIN, receive_word(&launcher.socket)).await {
            Ok(Ok(Some(word))) if word == READY => Ok(launcher),
            Ok(Ok(Some(word))) if word == THREADS => Err(format!("{unprepared}: it has started threads before")),
            _ => Err(unprepared),
        }
    }

    /// Sends an order and the socket on which to answer it.
    pub(super) async fn send(&self, order: &[u8], channel: &OwnedFd) -> io::Result<()> {
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let files = [channel.as_fd()];
                ancillary.push(SendAncillaryMessage::ScmRights(&files));
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                sendmsg(socket, &[io::IoSlice::new(order)], &mut ancillary, flags)?;
                Ok(())
            })
            .await
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // What it has not yet started is never started: `RunDir::look_for_good` tells whoever asks.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two ends of a connection that keeps messages apart.
pub(super) fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The next message, or `None` if nobody is left to send one.
pub(super) async fn receive_word(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Vec<u8>>> {
    socket
        .async_io(Interest::READABLE, |socket| {
            let mut buffer = [0; WORD_BYTES_MAX];
            match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => Ok(None),
                Ok((read, _)) => Ok(Some(buffer[..read].to_vec())),
                Err(error) => Err(error.into()),
            }
        })
        .await
}
