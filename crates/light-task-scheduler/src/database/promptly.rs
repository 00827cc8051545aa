//! Sends what is written to a database server at once.
//!
//! sqlx 0.9.0 leaves TCP gathering small packets (`TCP_NODELAY` is not set; launchbadge/sqlx#4335), so that a statement
//! behind one that is not answered waits for a delayed acknowledgement, 40 ms here. It neither offers the option nor shows
//! its sockets; so the sockets of this process are looked through for those to the server's port, once per new connection.
//! To be removed with the next release of sqlx.

use std::os::fd::OwnedFd;

use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{SocketAddrAny, getpeername};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Lets this process's connections to this port send at once. Where the system does not allow the look, as some sandboxes
/// do not, they stay as they are: slower, and just as right.
pub(crate) fn send_at_once(port: u16) {
    let sockets = sockets().unwrap_or_default();
    for socket in sockets.iter().filter(|socket| leads_to(socket, port)) {
        // Not a TCP socket after all: nothing to set.
        let _ = set_tcp_nodelay(socket, true);
    }
}

/// The sockets of this process, each by a descriptor of its own: what is closed meanwhile cannot become another file.
fn sockets() -> Option<Vec<OwnedFd>> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
    let sockets = entries.filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
    });
    let numbers = sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(numbers.filter_map(|number| pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).ok()).collect())
}

fn leads_to(socket: &OwnedFd, port: u16) -> bool {
    let peer: Option<SocketAddrAny> = getpeername(socket).ok().flatten();
    peer.and_then(|peer| std::net::SocketAddr::try_from(peer).ok()).is_some_and(|peer| peer.port() == port)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_the_port_send_at_once_and_others_do_not() {
        let [server, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let connect = |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = (connect(&server), connect(&other));
        assert!(!ours.nodelay().unwrap());
        send_at_once(server.local_addr().unwrap().port());
        assert!(ours.nodelay().unwrap());
        assert!(!theirs.nodelay().unwrap());
    }
}
