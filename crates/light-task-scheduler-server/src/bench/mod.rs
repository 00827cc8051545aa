//! `lts bench`: how fast a store is on this machine, beside the physical limit measured in the same run.

mod limits;
mod load;
mod measure;
mod sqlite_limit;

use clap::{Args, ValueEnum};
use serde::Serialize;

use light_task_scheduler::{Error, Result};

use measure::Usage;

/// Bytes of payload of every task of a benchmark.
pub(crate) const PAYLOAD_BYTES: usize = 100;

/// `lts bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lts bench memory --tasks 1000000\n  lts bench sqlite --json")]
pub(crate) struct BenchArgs {
    /// Which store.
    store: Which,
    /// How many tasks. Default: 1,000,000 in memory, 200,000 on SQLite.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    tasks: Option<u64>,
    /// Commits of SQLite that survive a crash of the program but maybe not of the machine.
    #[arg(long)]
    relaxed: bool,
    /// Where the SQLite file of the benchmark is made (and removed). Default: the current directory.
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Memory,
    Sqlite,
}

/// What a benchmark found. `limit_…` is the physical limit, measured in the same run.
#[derive(Debug, Default, Serialize)]
struct Report {
    store: &'static str,
    tasks: u64,
    /// Vectors of 1,000 tasks.
    enqueue_per_s: f64,
    limit_enqueue_per_s: f64,
    /// One task a call, from 50 callers at once.
    enqueue_one_per_s: f64,
    limit_enqueue_one_per_s: f64,
    drain_per_s: f64,
    limit_drain_per_s: f64,
    pickup_p50_us: f64,
    pickup_p99_us: f64,
    bytes_per_waiting_task: f64,
    cpu_s: f64,
    peak_rss_mb: f64,
}

/// Runs a benchmark and prints what it found.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal("cannot start the runtime").with_source(error))?;
    let begun = Usage::now();
    let mut report = match args.store {
        Which::Memory => runtime.block_on(load::memory(args.tasks.unwrap_or(1_000_000)))?,
        Which::Sqlite => runtime.block_on(load::sqlite(args.tasks.unwrap_or(200_000), &args.dir, args.relaxed))?,
    };
    let usage = Usage::now();
    report.cpu_s = usage.cpu_s - begun.cpu_s;
    report.peak_rss_mb = usage.peak_rss_mb;
    print(&report, args.json)
}

#[allow(clippy::print_stdout, reason = "this is the command's output")]
fn print(report: &Report, json: bool) -> Result<()> {
    let share =
        |ours: f64, limit: f64| if limit > 0.0 { format!("{:.2} of {limit:.0}", ours / limit) } else { String::new() };
    println!("store                  {}", report.store);
    println!("tasks                  {}", report.tasks);
    println!(
        "enqueue, vectors       {:.0}/s  ({})",
        report.enqueue_per_s,
        share(report.enqueue_per_s, report.limit_enqueue_per_s)
    );
    println!(
        "enqueue, 50 callers    {:.0}/s  ({})",
        report.enqueue_one_per_s,
        share(report.enqueue_one_per_s, report.limit_enqueue_one_per_s)
    );
    println!(
        "drain                  {:.0}/s  ({})",
        report.drain_per_s,
        share(report.drain_per_s, report.limit_drain_per_s)
    );
    println!("pickup p50 / p99       {:.0} / {:.0} µs", report.pickup_p50_us, report.pickup_p99_us);
    println!("bytes per waiting task {:.0}", report.bytes_per_waiting_task);
    println!("cpu / peak memory      {:.2} s / {:.0} MB", report.cpu_s, report.peak_rss_mb);
    if json {
        let line = serde_json::to_string(report)
            .map_err(|error| Error::internal("the report is no JSON").with_source(error))?;
        println!("{line}");
    }
    Ok(())
}
