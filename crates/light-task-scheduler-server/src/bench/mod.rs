//! `lts bench`: how fast a store is on this machine, beside the physical limit measured in the same run.
//!
//! | file | idea |
//! |---|---|
//! | `load`, `backlog` | what is measured: enqueue, drain, pickup, idleness; claims from few and from many tasks |
//! | `ground`; `postgres`, `mysql`, `redis` | where: places of the benchmark's own, made and removed |
//! | `…_limit` | the limit of each: raw batched statements |
//! | `measure` | the clock, this process, percentiles |

mod backlog;
mod ground;
mod load;
mod measure;
mod memory_limit;
mod mysql;
mod mysql_limit;
mod postgres;
mod postgres_limit;
mod redis;
mod redis_limit;
mod sqlite_limit;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use light_task_scheduler::store::sql::Durability;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::duration::parse_duration;
use crate::exit::{ERROR, INTERRUPTED, Problem, Result};
use crate::interrupt::Interrupts;
use crate::output;
use crate::store_url::{Engine, ServerUrl, StoreUrl};

use ground::{Cached, Ground, Memory, Sqlite};
use measure::Usage;

/// Bytes of payload of every task of a benchmark.
pub(crate) const PAYLOAD_BYTES: usize = 100;
/// Slots of the draining scheduler, unless it is said.
const CONCURRENCY: u32 = 1_000;
/// The same on PostgreSQL and MySQL: what a claim takes pays for the statements around it.
const CONCURRENCY_ON_SQL: u32 = 4_000;
/// How many tasks, unless it is said: what takes some seconds.
const TASKS_IN_MEMORY: u64 = 1_000_000;
const TASKS: u64 = 200_000;
/// How long calls of the benchmark that are under way may take after it was interrupted.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures how fast a store is here, beside the physical limit in the same run.
#[derive(Debug, Args)]
#[command(after_help = "\
The benchmark makes a schema, database, namespace or file of its own and removes it at the end; tasks that are there \
are not touched. A server should have nothing else to do meanwhile.

Examples:
  lts bench memory --tasks 1000000
  lts bench sqlite --json
  lts bench postgres --store postgres://me:secret@localhost/work
  lts bench cached --store redis://localhost")]
pub(crate) struct BenchArgs {
    /// Which store; `cached` is a window in memory in front of another one: SQLite, or what --store names
    store: Which,
    /// The server to measure on, by its URL as elsewhere; it must be running
    #[arg(long = "store", env = "LTS_STORE", hide_env_values = true, value_name = "URL")]
    url: Option<StoreUrl>,
    /// How many tasks [default: 1,000,000 in memory, else 200,000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    tasks: Option<u64>,
    /// How many tasks the draining scheduler runs at once; it claims at most half of them at a time [default: 4,000 on
    /// PostgreSQL and MySQL, else 1,000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    concurrency: Option<u32>,
    /// Commits of SQLite that survive a crash of the program but maybe not of the machine
    #[arg(long)]
    relaxed: bool,
    /// Where the SQLite file of the benchmark is made (and removed)
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// For how long to count the statements that an idle scheduler sends to the server
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    idle: Duration,
    /// Measure also what a claim of 100 costs with 10,000 tasks waiting and with this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(backlog::FEW..=10_000_000))]
    waiting: Option<u64>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Memory,
    Sqlite,
    Postgres,
    Mysql,
    Redis,
    Cached,
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    store: &'static str,
    tasks: u64,
    /// Slots of the scheduler.
    concurrency: usize,
    /// For how long to watch an idle scheduler.
    idle: Duration,
    /// How many tasks are many.
    waiting: Option<u64>,
}

/// What a benchmark found. `limit_…` is the physical limit, measured in the same run.
#[derive(Debug, Default, Serialize)]
struct Report {
    store: &'static str,
    tasks: u64,
    concurrency: usize,
    /// Vectors of 1,000 tasks.
    enqueue_per_s: f64,
    limit_enqueue_per_s: f64,
    /// One task a call, from 50 callers at once.
    enqueue_one_per_s: f64,
    drain_per_s: f64,
    limit_drain_per_s: f64,
    /// From `submit` returning, the task being safe, to the handler's first line.
    pickup_p50_us: f64,
    pickup_p99_us: f64,
    /// From the call of `submit` to there: the way into the store as well.
    start_p50_us: f64,
    start_p99_us: f64,
    /// On the disk of a server that keeps its tasks there, in memory otherwise.
    bytes_per_waiting_task: f64,
    /// What a scheduler with nothing to do asks of its server. PostgreSQL tells transactions, not statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_statements_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    /// A claim of 100 with 10,000 and with `waiting` tasks to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_few_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_many_us: Option<f64>,
    cpu_s: f64,
    peak_rss_mb: f64,
}

/// Runs a benchmark and prints what it found.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let ground = args.ground()?;
    let measured = measure(&*ground, args);
    // On a runtime of its own: nothing of the benchmark is under way any more that could still write.
    let removed = runtime()?.block_on(ground.remove());
    let report = measured.inspect_err(|_| {
        if let Err(left) = &removed {
            output::note(&format!("lts: {left}"));
        }
    })?;
    print(&report, args.json)?;
    Ok(removed?)
}

fn measure(ground: &dyn Ground, args: &BenchArgs) -> Result<Report> {
    let runtime = runtime()?;
    let begun = Usage::now();
    let measured = runtime.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            measured = load::measure(ground, args.wanted()) => measured.map_err(Problem::from),
            () = interrupts.next() => Err(Problem::new(INTERRUPTED, "")),
        }
    });
    runtime.shutdown_timeout(PATIENCE);
    let usage = Usage::now();
    Ok(Report { cpu_s: usage.cpu_s - begun.cpu_s, peak_rss_mb: usage.peak_rss_mb, ..measured? })
}

fn runtime() -> Result<Runtime> {
    let built = Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Problem::new(ERROR, format!("cannot start the runtime: {error}")))
}

impl Which {
    /// As it is called on the command line.
    fn name(self) -> &'static str {
        match self {
            Which::Memory => "memory",
            Which::Sqlite => "sqlite",
            Which::Postgres => "postgres",
            Which::Mysql => "mysql",
            Which::Redis => "redis",
            Which::Cached => "cached",
        }
    }
}

impl BenchArgs {
    fn wanted(&self) -> Wanted {
        let tasks = self.tasks.unwrap_or(if self.store == Which::Memory { TASKS_IN_MEMORY } else { TASKS });
        let (store, concurrency) = (self.store.name(), self.concurrency());
        Wanted { store, tasks, concurrency, idle: self.idle, waiting: self.waiting }
    }

    fn concurrency(&self) -> usize {
        let usual = if matches!(self.store, Which::Postgres | Which::Mysql) { CONCURRENCY_ON_SQL } else { CONCURRENCY };
        self.concurrency.unwrap_or(usual) as usize
    }

    /// Where the benchmark is to be; nothing is made yet.
    fn ground(&self) -> Result<Box<dyn Ground>> {
        let wanted = match self.store {
            Which::Memory => return Ok(Box::new(Memory { concurrency: self.concurrency() })),
            Which::Sqlite => return self.sqlite(),
            Which::Cached => return Ok(Box::new(Cached(self.behind_the_cache()?))),
            Which::Postgres => Engine::Postgres,
            Which::Mysql => Engine::MySql,
            Which::Redis => Engine::Redis,
        };
        match &self.url {
            Some(StoreUrl::Server(server)) if server.engine == wanted => on_a_server(server),
            Some(StoreUrl::Unusable(why)) => Err(Problem::usage(why)),
            Some(other) => Err(Problem::usage(format!("{other} is not a {} server", self.store.name()))),
            None => Err(Problem::usage(format!(
                "which server? Give its URL, --store {}://… or the variable LTS_STORE",
                self.store.name()
            ))),
        }
    }

    fn behind_the_cache(&self) -> Result<Box<dyn Ground>> {
        let url = match &self.url {
            Some(StoreUrl::Cached(inner)) => Some(&**inner),
            other => other.as_ref(),
        };
        match url {
            None | Some(StoreUrl::Sqlite(_)) => self.sqlite(),
            Some(StoreUrl::Server(server)) => on_a_server(server),
            Some(StoreUrl::Unusable(why)) => Err(Problem::usage(why)),
            Some(other) => Err(Problem::usage(format!("{other} is no store for a cache to stand in front of"))),
        }
    }

    /// Files of the benchmark's own, whatever file is named.
    fn sqlite(&self) -> Result<Box<dyn Ground>> {
        let durability = if self.relaxed { Durability::Relaxed } else { Durability::Full };
        Ok(Box::new(Sqlite::new(&self.dir, durability)?))
    }
}

/// Says what will be made, so that it is known if this program is killed.
fn on_a_server(server: &ServerUrl) -> Result<Box<dyn Ground>> {
    let (ground, place): (Box<dyn Ground>, String) = match server.engine {
        Engine::Postgres => {
            let ground = postgres::Postgres::new(server)?;
            let place = ground.place();
            (Box::new(ground), place)
        }
        Engine::MySql => {
            let ground = mysql::MySql::new(server);
            let place = ground.place();
            (Box::new(ground), place)
        }
        Engine::Redis => {
            let ground = redis::Redis::new(server)?;
            let place = ground.place();
            (Box::new(ground), place)
        }
    };
    output::note(&format!("lts: measuring in {place}, which is removed at the end"));
    Ok(ground)
}

#[allow(clippy::print_stdout, reason = "this is the command's output")]
fn print(report: &Report, json: bool) -> Result<()> {
    let share = |ours: f64, limit: f64| format!("{:.2} of {limit:.0}", ours / limit);
    println!("store                  {}", report.store);
    println!("tasks                  {}, {} at once", report.tasks, report.concurrency);
    println!(
        "enqueue, vectors       {:.0}/s  ({})",
        report.enqueue_per_s,
        share(report.enqueue_per_s, report.limit_enqueue_per_s)
    );
    println!("enqueue, 50 callers    {:.0}/s", report.enqueue_one_per_s);
    println!(
        "drain                  {:.0}/s  ({})",
        report.drain_per_s,
        share(report.drain_per_s, report.limit_drain_per_s)
    );
    println!("pickup p50 / p99       {:.0} / {:.0} µs", report.pickup_p50_us, report.pickup_p99_us);
    println!("submit to start        {:.0} / {:.0} µs", report.start_p50_us, report.start_p99_us);
    println!("bytes per waiting task {:.0}", report.bytes_per_waiting_task);
    if let Some(statements) = report.idle_statements_per_s {
        println!("idle                   {statements:.1} statements/s");
    }
    if let (Some(waiting), Some(few), Some(many)) = (report.waiting, report.claim_few_us, report.claim_many_us) {
        println!(
            "claim of 100           {few:.0} µs of {}, {many:.0} µs of {waiting} ({:.2} x)",
            backlog::FEW,
            many / few
        );
    }
    println!("cpu / peak memory      {:.2} s / {:.0} MB", report.cpu_s, report.peak_rss_mb);
    if json {
        let line = serde_json::to_string(report)
            .map_err(|error| Problem::new(ERROR, format!("the report is no JSON: {error}")))?;
        println!("{line}");
    }
    Ok(())
}
