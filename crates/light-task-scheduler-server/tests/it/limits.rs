//! Four replicas keep one queue's limit and rate: in what the store has recorded, and as seen by the commands themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::{Name, QueueSettings, RateLimit, State};

use crate::history::{most_at_once, overrun};
use crate::observer::Observer;
use crate::servers::{Home, Kind};
use crate::support::Place;

const REPLICAS: usize = 4;
/// The limit and the rate of the queue.
const LIMIT: usize = 7;
const RATE: RateLimit = RateLimit { count: 50, period: Duration::from_secs(1), burst: 5 };
/// How many commands there are, unless `LTS_LIMIT_COMMANDS` says otherwise.
const COMMANDS_DEFAULT: u32 = 120;
/// The last of so many commands take so long, in seconds: then the limit binds, and before them the rate.
const LONG_ONE_OF: u32 = 3;
const LONG: f64 = 0.3;
const QUEUE: &str = "q";

/// A command that notes when it starts and when it ends, by the clock of this host.
fn line(task: u32, long: bool) -> String {
    let sleep = if long { format!("sleep {LONG}; ") } else { String::new() };
    let note = |what| format!("echo {what} {task} ${{EPOCHREALTIME/./}} >> witness");
    let argv = ["bash".to_owned(), "-c".to_owned(), format!("{}; {sleep}{}", note("start"), note("end"))];
    format!("{}\n", serde_json::json!({ "id": task.to_string(), "argv": argv }))
}

/// When each task started and ended, in microseconds, by its own account.
fn seen_from_outside(witness: &str) -> HashMap<String, (i64, i64)> {
    let mut times = HashMap::new();
    for line in witness.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, at] = words[..] else { panic!("half a line: {line:?}") };
        let (start, end) = times.entry(task.to_owned()).or_insert((0, 0));
        let time = if what == "start" { start } else { end };
        assert_eq!(std::mem::replace(time, at.parse().unwrap()), 0, "task {task} ran twice");
    }
    times
}

fn kept(kind: Kind) {
    let commands: u32 = std::env::var("LTS_LIMIT_COMMANDS").map_or(COMMANDS_DEFAULT, |text| text.parse().unwrap());
    let (home, place) = (Arc::new(Home::new(kind)), Arc::new(Place::new()));
    place.write(
        "f",
        &(0..commands).map(|task| line(task, task >= commands - commands / LONG_ONE_OF)).collect::<String>(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = QueueSettings { concurrency: Some(LIMIT as u32), rate: Some(RATE), paused: false };
        let store = home.open(&place).await.unwrap();
        store.set_queue(Name::new(QUEUE).unwrap(), settings).await.unwrap();
    });
    let observer = Observer::start(home.clone(), place.clone());
    let url = home.url();
    let args = ["batch", "f", "--queue", QUEUE, "--concurrency", "16", "--store", &url];
    let replicas: Vec<_> = (0..REPLICAS).map(|_| place.start(&args)).collect();
    for replica in replicas {
        let said = replica.end();
        assert_eq!((said.code, said.counts()), (0, [commands, commands, 0, 0]), "{said:?}");
    }
    let (seen, tasks) = observer.end();
    assert!(seen.most_running <= LIMIT, "{} ran at once in one look at the store", seen.most_running);
    assert!(tasks.iter().all(|task| task.record.state == State::Succeeded && task.record.attempt == 1));
    let micros = |at: Option<light_task_scheduler::Timestamp>| at.unwrap().as_micros();
    let stored: Vec<(i64, i64)> =
        tasks.iter().map(|task| (micros(task.record.started_at), micros(task.record.finished_at))).collect();
    let outside = seen_from_outside(&place.read("witness"));
    assert_eq!((stored.len(), outside.len()), (commands as usize, commands as usize));
    // What the store says is exact.
    let claims: Vec<i64> = stored.iter().map(|(claimed, _)| *claimed).collect();
    assert_eq!(overrun(&claims, RATE, 0), None, "by the stored claim times");
    assert_eq!(most_at_once(&stored), LIMIT, "by the stored times");
    // What the commands say is later by as much as a start takes, which differs from start to start.
    let late = tasks.iter().zip(&claims).map(|(task, claimed)| outside[&task.id.to_string()].0 - claimed);
    let (least, most) = late.fold((i64::MAX, i64::MIN), |(least, most), it| (least.min(it), most.max(it)));
    let starts: Vec<i64> = outside.values().map(|(start, _)| *start).collect();
    assert_eq!(overrun(&starts, RATE, most - least), None, "by the commands' own account, jitter {} us", most - least);
    let at_once = most_at_once(&outside.values().copied().collect::<Vec<_>>());
    assert!(at_once <= LIMIT, "{at_once} ran at once by their own account");
    let (first, last) = (claims.iter().min().unwrap(), claims.iter().max().unwrap());
    println!(
        "counted: {commands} commands on {REPLICAS} replicas in {:.1} s: at most {at_once} at once, \
         starts jittered by {:.1} ms",
        (last - first) as f64 / 1e6,
        (most - least) as f64 / 1e3
    );
}

#[test]
fn sqlite_keeps_a_limit_and_a_rate_over_four_replicas() {
    kept(Kind::Sqlite);
}

#[test]
fn postgres_keeps_a_limit_and_a_rate_over_four_replicas() {
    kept(Kind::Postgres);
}

#[test]
fn mysql_keeps_a_limit_and_a_rate_over_four_replicas() {
    kept(Kind::MySql);
}

#[test]
fn redis_keeps_a_limit_and_a_rate_over_four_replicas() {
    kept(Kind::Redis);
}

#[test]
fn cached_over_postgres_keeps_a_limit_and_a_rate_over_four_replicas() {
    kept(Kind::CachedOverPostgres);
}
