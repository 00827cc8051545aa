//! Servers of a test's own, which it may kill.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::store::redis::RedisOptions;
use light_task_scheduler::{
    Clock, MySqlStore, PostgresStore, RedisStore, Result, SqliteStore, Store, SystemClock, Timestamp,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::full::Disk;
use crate::support::Place;
use crate::witness::{Stopwatch, wait};

/// How often a server that is being started is asked whether it answers.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which store the programs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    MySql,
    Redis,
    CachedOverPostgres,
}

impl Kind {
    /// The script of its server, and where that writes its process number.
    fn script(self) -> Option<(&'static str, &'static str)> {
        match self {
            Kind::Sqlite => None,
            Kind::Postgres | Kind::CachedOverPostgres => Some(("postgres", "data/postmaster.pid")),
            Kind::MySql => Some(("mariadb", "pid")),
            Kind::Redis => Some(("redis", "redis.pid")),
        }
    }
}

/// A store to test on, with its server if it has one.
pub(crate) struct Home {
    kind: Kind,
    server: Option<Server>,
}

/// A time without a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    /// When it was killed.
    pub(crate) killed: Timestamp,
    /// When it answered again.
    pub(crate) back: Timestamp,
}

impl Home {
    pub(crate) fn new(kind: Kind) -> Self {
        Home { kind, server: kind.script().map(|(script, pid_file)| Server::start(script, pid_file, None)) }
    }

    /// With the server's data on a disk of its own, of this size.
    pub(crate) fn on_a_disk(kind: Kind, megabytes: u32) -> Self {
        let server = kind.script().map(|(script, pid_file)| Server::start(script, pid_file, Some(megabytes)));
        Home { kind, server }
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// What `--store` says.
    pub(crate) fn url(&self) -> String {
        let cached = if self.kind == Kind::CachedOverPostgres { "cached+" } else { "" };
        self.server.as_ref().map_or("sqlite:lts.db".to_owned(), |server| format!("{cached}{}", server.url))
    }

    /// Kills the server and starts it again; says when it was killed, and when it answered again.
    pub(crate) fn outage(&self, place: &Place) -> Outage {
        let server = self.server.as_ref().expect("there is a server");
        let killed = SystemClock.now();
        server.kill();
        std::thread::scope(|scope| {
            // A new client: it waits for no back-off of an old one. A server takes connections before it answers.
            let first = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let begun = Stopwatch::start();
                while let Err(error) = runtime.block_on(self.open(place)) {
                    assert!(error.is_retryable() && begun.elapsed() < PATIENCE, "{error}");
                    wait(LOOK);
                }
                SystemClock.now()
            });
            server.start_again();
            Outage { killed, back: first.join().unwrap() }
        })
    }

    /// Opens the store beside the programs that use it, to look at what it holds.
    pub(crate) async fn open(&self, place: &Place) -> Result<Arc<dyn Store>> {
        match &self.server {
            None => Ok(SqliteStore::open(place.path("lts.db"))?.into()),
            Some(server) => self.open_at(&server.url).await,
        }
    }

    /// Opens the store in the server at a URL.
    pub(crate) async fn open_at(&self, url: &str) -> Result<Arc<dyn Store>> {
        Ok(match self.kind {
            Kind::Sqlite => panic!("there is no server"),
            Kind::Postgres | Kind::CachedOverPostgres => PostgresStore::open(url).await?.into(),
            Kind::MySql => MySqlStore::open(url).await?.into(),
            Kind::Redis => {
                let options = RedisOptions { namespace: "lts".to_owned(), ..RedisOptions::default() };
                RedisStore::open_with(url, options).await?.into()
            }
        })
    }
}

/// A server of this test's own, as durable as it is by default.
pub(crate) struct Server {
    script: PathBuf,
    // Before the directory: it is unmounted before that is removed.
    _disk: Option<Disk>,
    directory: TempDir,
    pid_file: &'static str,
    pub(crate) url: String,
}

impl Server {
    fn start(name: &str, pid_file: &'static str, megabytes: Option<u32>) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers").join(name);
        let directory = TempDir::new().unwrap();
        // Some servers refuse to run as root: another user must get in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let disk = megabytes.map(|megabytes| Disk::mount(directory.path(), megabytes));
        let mut server = Server { script, _disk: disk, directory, pid_file, url: String::new() };
        server.url = server.run("start").lines().next().unwrap().split_once('=').unwrap().1.to_owned();
        server
    }

    fn run(&self, command: &str) -> String {
        let directory = self.directory.path().join("server");
        let output = Command::new(&self.script).arg(command).arg(directory).env_remove("FAST").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The host and the port.
    pub(crate) fn address(&self) -> String {
        let rest = self.url.split_once("://").unwrap().1;
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        rest.split('/').next().unwrap().to_owned()
    }

    /// The password, if there is one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.url.split_once("://").unwrap().1.rsplit_once('@')?.0.split_once(':').map(|(_, password)| password)
    }

    /// Kills it as a power failure would.
    pub(crate) fn kill(&self) {
        let file = self.directory.path().join("server").join(self.pid_file);
        let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().trim().parse::<i32>().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            std::thread::yield_now();
        }
    }

    /// Starts it where it was.
    pub(crate) fn start_again(&self) {
        let again = self.run("start");
        assert!(again.contains(&self.url), "it came back elsewhere: {again}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("stop");
    }
}
