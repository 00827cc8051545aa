//! A way to a server that can be made bad: it counts what goes through, loses replies, falls silent, or refuses.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// What is read at once: a request of a client is one such piece, or a few.
const PIECE_BYTES: usize = 64 << 10;

/// What becomes of a request that has certain bytes in it. It happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server does it; the connection breaks before the client hears of it.
    ReplyLost,
    /// It does not arrive, and nobody is told: both ends of the connection stay open, and nothing passes any more.
    Silence,
}

#[derive(Debug, Default)]
struct State {
    refusing: AtomicBool,
    armed: Mutex<Option<(Vec<u8>, Fate)>>,
    happened: AtomicU64,
    /// Connections that were made or tried, and requests that came.
    asked: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// A proxy on this host.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: String,
    state: Arc<State>,
}

impl Proxy {
    /// Leads to `server`, a host and a port.
    pub(crate) fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, server) = (Arc::<State>::default(), server.to_owned());
        let shared = state.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.asked.fetch_add(1, SeqCst);
                if !shared.refusing.load(SeqCst)
                    && let Ok(server) = TcpStream::connect(&server)
                {
                    connect(&shared, client, server);
                }
            }
        });
        Proxy { address, state }
    }

    /// The URL of a server, through here.
    pub(crate) fn url(&self, url: &str, server: &str) -> String {
        url.replacen(server, &self.address, 1)
    }

    /// Decides on the next request that has these bytes in it.
    pub(crate) fn next(&self, bytes: &str, fate: Fate) {
        *lock(&self.state.armed) = Some((bytes.as_bytes().to_owned(), fate));
    }

    /// How many requests have met a fate.
    pub(crate) fn happened(&self) -> u64 {
        self.state.happened.load(SeqCst)
    }

    /// Breaks all connections, and every new one.
    pub(crate) fn refuse(&self) {
        self.state.refusing.store(true, SeqCst);
        for stream in lock(&self.state.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn admit(&self) {
        self.state.refusing.store(false, SeqCst);
    }

    /// How many connections were tried and requests made until now.
    pub(crate) fn asked(&self) -> u64 {
        self.state.asked.load(SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets everything pass both ways, each in a thread.
fn connect(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let twin = |stream: &TcpStream| stream.try_clone().unwrap();
    lock(&state.open).extend([twin(&client), twin(&server)]);
    let fate = Arc::new(Mutex::new(None));
    let (from, to) = ((twin(&client), twin(&server)), (client, server));
    let (requests, replies) = ((state.clone(), fate.clone()), fate);
    std::thread::spawn(move || pass_requests(&requests.0, &requests.1, from.0, from.1));
    std::thread::spawn(move || pass_replies(&replies, to.1, to.0));
}

fn pass_requests(state: &State, fate: &Mutex<Option<Fate>>, mut client: TcpStream, mut server: TcpStream) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = client.read(&mut piece) {
        state.asked.fetch_add(1, SeqCst);
        let piece = &piece[..read];
        {
            let mut armed = lock(&state.armed);
            let meets = |(bytes, _): &mut (Vec<u8>, Fate)| piece.windows(bytes.len()).any(|part| part == &bytes[..]);
            if let Some((_, met)) = armed.take_if(meets) {
                *lock(fate) = Some(met);
                state.happened.fetch_add(1, SeqCst);
            }
        }
        if *lock(fate) != Some(Fate::Silence) && server.write_all(piece).is_err() {
            break;
        }
    }
    if *lock(fate) != Some(Fate::Silence) {
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
}

fn pass_replies(fate: &Mutex<Option<Fate>>, mut server: TcpStream, mut client: TcpStream) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = server.read(&mut piece) {
        match *lock(fate) {
            Some(Fate::ReplyLost) => break,
            Some(Fate::Silence) => {}
            None if client.write_all(&piece[..read]).is_err() => break,
            None => {}
        }
    }
    if *lock(fate) != Some(Fate::Silence) {
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
}
