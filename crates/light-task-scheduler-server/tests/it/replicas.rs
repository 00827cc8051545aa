//! Several replicas on one store, killed and halted at random, and so is the store's server: nothing is lost,
//! nothing runs twice, no limit is overrun, and all goes on soon.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::{Clock, State, SystemClock, Task, Timestamp};
use rustix::process::Signal;

use crate::measured::{Bound, Times};
use crate::observer::{Observer, Seen};
use crate::servers::{Home, Kind, Outage};
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
/// The lease of a replica, in seconds, unless the variable says otherwise.
const LEASE_SECONDS: (&str, u32) = ("LTS_LEASE_SECONDS", 3);
/// How long each command takes where a replica is halted.
const HALT_COMMAND: Duration = Duration::from_millis(500);
/// For how many leases a replica is halted.
const HALT_LEASES: u32 = 5;
/// How long after a halt began a write may be noted that was on its way to the server.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// The exit code for a store that cannot be reached.
const NO_STORE: i32 = 6;
/// Within so many leases, this time, and so many times as long as the commands take by themselves, all is done
/// after the last fault: beyond that something hangs.
const LAST_LEASES_MAX: u32 = 4;
const LAST_MAX: Duration = Duration::from_secs(30);
const LAST_WORK_MAX: u32 = 5;

/// By when the tasks of a killed replica are to have an owner again, by lease.
const RECOVERY: [(Duration, Bound); 2] = [
    (Duration::from_secs(3), Bound::of(10, "recovery after the kill of a replica, lease 3 s")),
    (Duration::from_secs(15), Bound::of(26, "recovery after the kill of a replica, lease 15 s")),
];
/// By when claims are to go on after a server has come back.
const RESUMPTION: Bound = Bound::of(5, "first claim after the server was back");

fn count((variable, otherwise): (&str, u32)) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn lease() -> Duration {
    Duration::from_secs(count(LEASE_SECONDS).into())
}

/// Replicas that share a batch.
struct Fleet {
    home: Arc<Home>,
    place: Arc<Place>,
    tasks: u32,
    replicas: Vec<Running>,
    watch: Observer,
    /// The killed ones, and when.
    killed: Vec<(u32, Timestamp)>,
    outages: Vec<Outage>,
}

impl Fleet {
    fn start(home: Home, tasks: u32, takes: Duration) -> Self {
        let (home, place) = (Arc::new(home), Arc::new(Place::new()));
        place.write("f", &lines(tasks, takes));
        let watch = Observer::start(home.clone(), place.clone());
        let (killed, outages) = (Vec::new(), Vec::new());
        let mut fleet = Fleet { home, place, tasks, replicas: Vec::new(), watch, killed, outages };
        for _ in 0..REPLICAS {
            let replica = fleet.replica();
            fleet.replicas.push(replica);
        }
        fleet
    }

    fn replica(&self) -> Running {
        let (limit, lease) = (LIMIT.to_string(), format!("{}s", lease().as_secs()));
        self.place.start(&["batch", "f", "--concurrency", &limit, "--lease", &lease, "--store", &self.home.url()])
    }

    fn kill(&mut self, number: u64) {
        let place = usize::try_from(number % REPLICAS as u64).unwrap();
        let fresh = self.replica();
        let old = std::mem::replace(&mut self.replicas[place], fresh);
        self.killed.push((old.pid(), SystemClock.now()));
        old.kill();
    }

    fn signal(&self, pid: u32, signal: Signal) {
        self.replicas.iter().find(|replica| replica.pid() == pid).unwrap().signal(signal);
    }

    /// Waits until all replicas have ended, looks at what they have done, and says what was measured.
    fn end(mut self, since: Stopwatch) -> (Seen, Vec<Task>) {
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
        let work = COMMAND * self.tasks / u32::try_from(LIMIT).unwrap();
        let most = LAST_MAX + lease() * LAST_LEASES_MAX + work * LAST_WORK_MAX;
        assert!(took < most, "{took:?} from the last fault to the end");
        println!("all done {took:.1?} after the last fault");
        check(&self.place.read("witness"), self.tasks, LIMIT);
        self.place.assert_no_process_stays();
        let (seen, tasks) = self.watch.end();
        assert!(seen.most_running <= LIMIT, "{} tasks ran at once in the store", seen.most_running);
        println!("{} looks at the store: at most {} tasks ran at once", seen.looks, seen.most_running);
        assert_eq!(tasks.len(), self.tasks as usize);
        assert!(tasks.iter().all(|task| task.record.state == State::Succeeded));
        let anew = tasks.iter().filter(|task| task.record.attempt > 1).count();
        println!("{anew} tasks were claimed anew: their first claim had led to no start");
        let freed = |(pid, at): &(u32, Timestamp)| Some((*at, seen.freed(*pid, *at)?));
        let freed: Vec<(Timestamp, Timestamp)> = self.killed.iter().filter_map(freed).collect();
        let recovery: Times = freed.iter().map(|(killed, freed)| recovery(&self.outages, *killed, *freed)).collect();
        if let Some((_, bound)) = RECOVERY.iter().find(|(of, _)| *of == lease()) {
            recovery.say(bound);
        }
        let resumption: Times = self.outages.iter().filter_map(|outage| resumption(&tasks, &freed, *outage)).collect();
        resumption.say(&RESUMPTION);
        (seen, tasks)
    }
}

/// How long it took from a kill until the tasks were free: from the end of the last outage that came between, for
/// nobody can take a task over from a store that does not answer.
fn recovery(outages: &[Outage], killed: Timestamp, freed: Timestamp) -> Duration {
    let between = outages.iter().map(|outage| outage.back).filter(|back| *back <= freed);
    freed.since(between.fold(killed, Timestamp::max))
}

/// How long after the end of an outage the first task was claimed; `None` if nothing was left to claim. While the
/// tasks of a killed replica fill the queue's limit nobody may claim: that time is the other measurement's.
fn resumption(tasks: &[Task], freed: &[(Timestamp, Timestamp)], outage: Outage) -> Option<Duration> {
    // One that was killed between its claim and the start of the command leaves a task that is claimed anew later.
    let claims = tasks.iter().flat_map(|Task { record, .. }| {
        record.attempts().iter().map(|attempt| attempt.started_at).chain(record.started_at)
    });
    let first = claims.filter(|at| *at > outage.killed).min()?;
    let filled = freed.iter().filter(|(killed, freed)| *killed < first && *freed <= first).map(|(_, freed)| *freed);
    Some(first.since(filled.fold(outage.back, Timestamp::max)))
}

fn killed(kind: Kind) {
    let mut moments = Moments::new();
    let home = Home::new(kind);
    let (kills, server_kills) = (count(KILLS), home.server().map_or(0, |_| count(SERVER_KILLS)));
    let faults = kills + server_kills;
    let commands = count(COMMANDS_PER_FAULT);
    let mut fleet = Fleet::start(home, faults.max(1) * commands, COMMAND);
    // The faults are spread over the time that the work takes.
    let gap = 2 * COMMAND * commands / u32::try_from(LIMIT).unwrap();
    for fault in 0..faults {
        moments.pass(gap);
        // Spread over the run, not all at its end.
        if (fault + 1) * server_kills / faults > fault * server_kills / faults {
            let outage = fleet.home.outage(&fleet.place);
            fleet.outages.push(outage);
        } else {
            fleet.kill(moments.number());
        }
    }
    fleet.end(Stopwatch::start());
    println!("counted: {kills} kills of a replica, {server_kills} of the server: each task ran once and ended once");
}

/// Whether a halted process is amid a write to an SQLite file: nobody else can write to it until it goes on.
///
/// Read from the kernel's list: to open the file here and close it again would end the locks of the observer.
fn keeps_the_file(pid: u32, shared: &Path) -> bool {
    /// The byte of the shared index that a writer locks.
    const WRITER: u64 = 120;
    while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {
        std::thread::yield_now();
    }
    let inode = fs::metadata(shared).unwrap().ino().to_string();
    fs::read_to_string("/proc/locks").unwrap().lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, "POSIX", _, "WRITE", owner, file, first, last]
            if owner == pid.to_string() && file.rsplit(':').next() == Some(&inode)
                && first.parse::<u64>().unwrap() <= WRITER && last.parse().map_or(true, |last: u64| last >= WRITER))
    })
}

/// A replica that stands still for longer than its lease writes nothing and starts nothing when it goes on.
fn halted(kind: Kind) {
    let halt = lease() * HALT_LEASES;
    // Enough that work is left when it goes on.
    let tasks = u32::try_from(halt.as_millis() / HALT_COMMAND.as_millis()).unwrap() * LIMIT as u32;
    let mut fleet = Fleet::start(Home::new(kind), tasks + count(COMMANDS_PER_FAULT), HALT_COMMAND);
    Moments::new().pass(lease());
    let pids: Vec<u32> = fleet.replicas.iter().map(Running::pid).collect();
    let (pid, halted) = loop {
        let (pid, halted) = fleet.watch.busiest(&pids, |pid| fleet.signal(pid, Signal::STOP));
        if !(matches!(kind, Kind::Sqlite) && keeps_the_file(pid, &fleet.place.path("lts.db-shm"))) {
            break (pid, halted);
        }
        fleet.signal(pid, Signal::CONT);
    };
    fleet.killed.push((pid, halted));
    wait(halt);
    fleet.signal(pid, Signal::CONT);
    let went_on = SystemClock.now();
    let (seen, tasks) = fleet.end(Stopwatch::start());
    let stale = seen.replicas(pid, halted);
    assert!(seen.freed(pid, halted).is_some_and(|freed| freed < went_on), "its tasks were taken over");
    let last = halted + ON_ITS_WAY;
    for Task { id, record, .. } in tasks.iter().filter(|task| task.record.owner.is_some_and(|id| stale.contains(&id))) {
        let late = |at: Option<Timestamp>| at.is_some_and(|at| at > last);
        assert!(!late(record.started_at) && !late(record.finished_at), "{id} was written by the halted: {record:?}");
    }
    let left = tasks.iter().filter(|task| task.record.started_at.is_some_and(|at| at > went_on)).count();
    assert!(left > 0, "work was left when it went on");
    println!("counted: a halt of {HALT_LEASES} leases: the halted wrote nothing and started nothing");
}

mod sqlite {
    use super::*;

    #[test]
    fn killed_replicas_lose_nothing() {
        killed(Kind::Sqlite);
    }

    #[test]
    fn a_halted_replica_does_no_harm() {
        halted(Kind::Sqlite);
    }
}

macro_rules! on_a_server {
    ($name:ident, $kind:ident) => {
        mod $name {
            use super::*;

            #[test]
            fn killed_replicas_and_servers_lose_nothing() {
                killed(Kind::$kind);
            }

            #[test]
            fn a_halted_replica_does_no_harm() {
                halted(Kind::$kind);
            }
        }
    };
}

on_a_server!(postgres, Postgres);
on_a_server!(mysql, MySql);
on_a_server!(redis, Redis);
on_a_server!(cached_over_postgres, CachedOverPostgres);
