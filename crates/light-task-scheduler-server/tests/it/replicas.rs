//! Several replicas on one store, killed and halted at random, and so is the store's server: nothing is lost,
//! nothing runs twice, no limit is overrun.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Place, Running};
use crate::witness::{Moments, Stopwatch, check, lines, wait};

/// How many replicas share the work.
const REPLICAS: usize = 3;
/// How many commands run at once, over all replicas.
const LIMIT: usize = 7;
/// How long each command takes.
const COMMAND: Duration = Duration::from_millis(100);
/// How many commands there are for each fault, unless the variable says otherwise: it shall find some running.
const COMMANDS_PER_FAULT: (&str, u32) = ("LTS_COMMANDS_PER_FAULT", 25);
/// How often a replica is killed, and how often the server, unless the variables say otherwise.
const KILLS: (&str, u32) = ("LTS_KILLS", 2);
const SERVER_KILLS: (&str, u32) = ("LTS_SERVER_KILLS", 1);
/// The lease of a replica in these tests.
const LEASE: Duration = Duration::from_secs(3);
/// For how many leases a replica is halted.
const HALT_LEASES: u32 = 5;
/// The exit code for a store that cannot be reached.
const NO_STORE: i32 = 6;
/// Within this time of the last fault all is done: a dead replica's tasks are taken up within 10 s of its death.
const RECOVERY_MAX: Duration = Duration::from_secs(40);

fn count((variable, otherwise): (&str, u32)) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// A server of this test's own, as durable as it is by default.
struct Server {
    script: PathBuf,
    directory: TempDir,
    pid_file: &'static str,
    url: String,
}

impl Server {
    fn start(name: &str, pid_file: &'static str) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers").join(name);
        let directory = TempDir::new().unwrap();
        // Some servers refuse to run as root: another user must get in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Server { script, directory, pid_file, url: String::new() };
        server.url = server.run("start").lines().next().unwrap().split_once('=').unwrap().1.to_owned();
        server
    }

    fn run(&self, command: &str) -> String {
        let directory = self.directory.path().join("server");
        let output = Command::new(&self.script).arg(command).arg(directory).env_remove("FAST").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills it as a power failure would, and starts it again.
    fn kill(&self) {
        let file = self.directory.path().join("server").join(self.pid_file);
        let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().trim().parse::<i32>().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            std::thread::yield_now();
        }
        let again = self.run("start");
        assert!(again.contains(&self.url), "it came back elsewhere: {again}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("stop");
    }
}

/// Replicas that share a batch.
struct Fleet {
    place: Place,
    store: String,
    tasks: u32,
    replicas: Vec<Running>,
}

impl Fleet {
    fn start(store: &str, tasks: u32) -> Self {
        let place = Place::new();
        place.write("f", &lines(tasks, COMMAND));
        let mut fleet = Fleet { place, store: store.to_owned(), tasks, replicas: Vec::new() };
        for _ in 0..REPLICAS {
            let replica = fleet.replica();
            fleet.replicas.push(replica);
        }
        fleet
    }

    fn replica(&self) -> Running {
        let (limit, lease) = (LIMIT.to_string(), format!("{}s", LEASE.as_secs()));
        self.place.start(&["batch", "f", "--concurrency", &limit, "--lease", &lease, "--store", &self.store])
    }

    fn kill(&mut self, number: u64) {
        let place = usize::try_from(number % REPLICAS as u64).unwrap();
        let fresh = self.replica();
        std::mem::replace(&mut self.replicas[place], fresh).kill();
    }

    /// Waits until all replicas have ended, and looks at what they have done.
    fn end(mut self, since: Stopwatch) {
        for place in 0..REPLICAS {
            let mut said = self.replicas.remove(0).end();
            // One that was started while there was no server has said so, and is started again.
            if said.code == NO_STORE && said.stdout.is_empty() {
                said = self.replica().end();
            }
            println!("replica {place}: {}", said.stderr);
            assert_eq!((said.code, said.counts()), (0, [self.tasks, self.tasks, 0, 0]), "{said:?}");
        }
        let took = since.elapsed();
        assert!(took < RECOVERY_MAX, "{took:?} from the last fault to the end");
        println!("all done {took:.1?} after the last fault");
        check(&self.place.read("witness"), self.tasks, LIMIT);
        self.place.assert_no_process_stays();
    }
}

fn killed(store: &str, server: Option<&Server>) {
    let mut moments = Moments::new();
    let (kills, server_kills) = (count(KILLS), server.map_or(0, |_| count(SERVER_KILLS)));
    let faults = kills + server_kills;
    let commands = count(COMMANDS_PER_FAULT);
    let mut fleet = Fleet::start(store, faults.max(1) * commands);
    // The faults are spread over the time that the work takes.
    let gap = 2 * COMMAND * commands / u32::try_from(LIMIT).unwrap();
    for fault in 0..faults {
        moments.pass(gap);
        match server {
            // Spread over the run, not all at its end.
            Some(server) if (fault + 1) * server_kills / faults > fault * server_kills / faults => server.kill(),
            _ => fleet.kill(moments.number()),
        }
    }
    fleet.end(Stopwatch::start());
    println!("counted: {kills} kills of a replica, {server_kills} of the server: each task ran once and ended once");
}

/// A replica that stands still for longer than its lease writes nothing and starts nothing when it goes on.
fn halted(store: &str) {
    let fleet = Fleet::start(store, 4 * count(COMMANDS_PER_FAULT));
    Moments::new().pass(LEASE / 10);
    fleet.replicas[0].signal(Signal::STOP);
    wait(LEASE * HALT_LEASES);
    fleet.replicas[0].signal(Signal::CONT);
    fleet.end(Stopwatch::start());
}

mod sqlite {
    use super::*;

    #[test]
    fn killed_replicas_lose_nothing() {
        killed("sqlite:lts.db", None);
    }

    #[test]
    fn a_halted_replica_does_no_harm() {
        halted("sqlite:lts.db");
    }
}

macro_rules! on_a_server {
    ($name:ident, $script:literal, $pid_file:literal, $prefix:literal) => {
        mod $name {
            use super::*;

            #[test]
            fn killed_replicas_and_servers_lose_nothing() {
                let server = Server::start($script, $pid_file);
                killed(&format!("{}{}", $prefix, server.url), Some(&server));
            }

            #[test]
            fn a_halted_replica_does_no_harm() {
                let server = Server::start($script, $pid_file);
                halted(&format!("{}{}", $prefix, server.url));
            }
        }
    };
}

on_a_server!(postgres, "postgres", "data/postmaster.pid", "");
on_a_server!(mysql, "mariadb", "pid", "");
on_a_server!(redis, "redis", "redis.pid", "");
on_a_server!(cached_over_postgres, "postgres", "data/postmaster.pid", "cached+");
