//! `lts batch`: every line of a file is a task; all of them are run, whatever dies on the way.
//!
//! ```text
//! file ─▶ roster: read, check, look up ─▶ feed: insert, requeue ─▶ Store ◀─▶ Scheduler
//!                       │                        │ News                │ News
//!                       └────────▶ follow: who has ended? ◀────────────┘
//!                                        └─▶ report: bar, lines, JSON, job log, output files
//! ```

mod feed;
mod follow;
mod joblog;
pub(crate) mod lines;
mod plan;
mod report;
mod roster;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use light_task_scheduler::{Config, Name, QueueSettings, RateLimit, Scheduler, Shutdown, State, StoreExt};

use crate::batch::follow::Follower;
use crate::batch::joblog::Joblog;
use crate::batch::lines::{Defaults, batch_of, current_directory};
use crate::batch::plan::{Mode, Todo, decide};
use crate::batch::report::{Outputs, Reporter, Tally};
use crate::batch::roster::Roster;
use crate::duration::{parse_duration, parse_rate};
use crate::exit::{self, Problem, Result};
use crate::open::Opened;
use crate::output;
use crate::store_url::{STORE_DEFAULT, StoreUrl};

/// Most commands at once.
const CONCURRENCY_MAX: i64 = 10_000;

/// Runs every line of a file as a command, durably.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is a shell command, or a JSON object such as
  {\"argv\": [\"gzip\", \"-9\", \"a.txt\"], \"id\": \"a\", \"timeout\": \"30s\", \"retries\": 3}
with the fields argv (or command: a shell line), id, name, priority, timeout, retries, env, cwd, stdin, labels, \
rlimits; or, in place of what is for commands, docker for a container or http for a job of a remote service:
  {\"docker\": {\"image\": \"busybox\", \"cmd\": [\"ls\", \"/\"], \"memory_bytes\": 16777216}, \"id\": \"b\"}
  {\"http\": {\"preset\": \"ogc\", \"url\": \"http://localhost:5000/processes/hello-world\", \"input\": {\"name\": \"me\"}}}
Blank lines and lines that begin with # are skipped.

Run it again after a crash, a kill or Ctrl-C: it goes on where it was. What is finished is not run again,
what still runs is waited for.

Examples:
  lts batch jobs.txt
  lts batch jobs.txt --concurrency 4 --timeout 10m --retries 2 --output out --joblog jobs.tsv
  seq 100 | sed 's/^/sleep 0.1; echo /' | lts batch - --rate 10/s")]
pub(crate) struct BatchArgs {
    /// The file; - for stdin
    file: PathBuf,
    /// Commands at once [default: the number of cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONCURRENCY_MAX))]
    concurrency: Option<u32>,
    /// Starts per time, for example 10/s or 600/m
    #[arg(long, value_parser = parse_rate)]
    rate: Option<RateLimit>,
    /// How long each attempt may take, for example 30s or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Attempts beyond the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// The queue [default: one of the batch's own]; limits of an existing queue hold
    #[arg(long, value_parser = parse_name)]
    queue: Option<Name>,
    /// The batch's name [default: a hash of the file]
    #[arg(long, value_parser = parse_name)]
    name: Option<Name>,
    /// How long this program may be silent before others that run the same batch take over what it runs; at
    /// least 1s. Only where several machines share a store does it matter: on one, a death is noticed at once
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    lease: Option<Duration>,
    /// Cancel the rest when a task has failed
    #[arg(long, conflicts_with = "keep_going")]
    fail_fast: bool,
    /// Go on when a task has failed (the default)
    #[arg(long)]
    keep_going: bool,
    /// Run those again that failed or were cancelled before
    #[arg(long, conflicts_with = "again")]
    retry_failed: bool,
    /// Run all of them again
    #[arg(long)]
    again: bool,
    /// Write the output of each task to DIR/ID.stdout and DIR/ID.stderr
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Append a tab-separated line per ended task to this file
    #[arg(long, value_name = "FILE")]
    joblog: Option<PathBuf>,
    /// Print a JSON object per ended task, and a summary object last
    #[arg(long)]
    json: bool,
    /// The store: a path, sqlite:PATH, postgres://…, mysql://…, redis://…, cached+ before one of them, or
    /// memory: (nothing survives)
    #[arg(long, env = "LTS_STORE", hide_env_values = true, value_name = "URL", default_value = STORE_DEFAULT)]
    store: StoreUrl,
}

/// Reads a name on the command line.
pub(crate) fn parse_name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

/// What the follower of a batch hears.
#[derive(Debug)]
pub(crate) enum News {
    /// So many tasks are in the store.
    Fed(usize),
    /// This task came to this state.
    Came(usize, State),
    /// This task was removed less than a day ago and cannot run under its id.
    Removed(usize),
    /// Some news were lost.
    Missed,
}

impl BatchArgs {
    fn mode(&self) -> Mode {
        match (self.again, self.retry_failed) {
            (true, _) => Mode::Again,
            (_, true) => Mode::RetryFailed,
            _ => Mode::Resume,
        }
    }

    fn source(&self) -> String {
        if self.file.as_os_str() == "-" { "stdin".to_owned() } else { self.file.display().to_string() }
    }

    fn read_file(&self) -> Result<Vec<u8>> {
        let unreadable = |error| Problem::usage(format!("cannot read {}: {error}", self.source()));
        if self.file.as_os_str() != "-" {
            return std::fs::read(&self.file).map_err(unreadable);
        }
        let mut file = Vec::new();
        std::io::stdin().lock().read_to_end(&mut file).map_err(unreadable)?;
        Ok(file)
    }

    /// At least one, as far as the system tells.
    fn concurrency(&self) -> u32 {
        self.concurrency.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
        })
    }
}

/// Runs the command; answers the exit code.
pub(crate) async fn run(args: BatchArgs) -> Result<u8> {
    let begun = tokio::time::Instant::now();
    let file = args.read_file()?;
    let batch = args.name.as_ref().map_or_else(|| batch_of(&file), ToString::to_string);
    let own_queue = Name::new(&format!("batch-{batch}"))?;
    let queue = args.queue.clone().unwrap_or(own_queue);
    let cwd = current_directory().map_err(Problem::usage)?;
    let defaults =
        Defaults { batch: batch.clone(), queue: queue.clone(), timeout: args.timeout, retries: args.retries, cwd };
    let mut roster = Roster::read(file, &args.source(), defaults)?;
    let opened = args.store.open().await?;
    let survey = roster.survey(&*opened.store, args.mode(), &args.source()).await?;
    let outputs = args.output.as_deref().map(|dir| Outputs::open(dir, opened.logs.clone())).transpose()?;
    let joblog = args.joblog.as_deref().map(Joblog::open).transpose()?;
    let reporter = Reporter::new(args.json, joblog, outputs.clone());
    if survey.other_options {
        reporter.note(
            "note: tasks that are there already keep their timeout and retries; give the batch another --name to change them",
        );
    }
    let mut follower = Follower::new(Arc::new(roster), opened.store.clone(), reporter, args.fail_fast);
    follower.take_over(args.mode()).await?;
    if follower.tally().ended() == follower.tally().tasks {
        say_done(&follower, &batch);
        return follower.finish(&batch, begun.elapsed());
    }
    let mut queues = survey.queues;
    queues.insert(queue.clone());
    let scheduler = start(&args, &opened, &batch, &queue, queues).await?;
    let outcome = follower.follow(&scheduler, &opened, args.mode(), outputs).await;
    // What went wrong is told after the summary, which shows how far it came.
    let code = follower.finish(&batch, begun.elapsed());
    outcome.and(code)
}

fn say_done(follower: &Follower, batch: &str) {
    let Tally { tasks, succeeded, .. } = follower.tally();
    let what = match tasks - succeeded {
        0 if tasks == 0 => return follower.note("there are no tasks in the file"),
        0 => "--again runs it once more",
        _ => "--retry-failed runs what did not succeed, --again all of it",
    };
    follower.note(&format!("batch {batch} is done already: {succeeded} of {tasks} succeeded; {what}"));
}

/// Starts the scheduler that serves the batch.
async fn start(
    args: &BatchArgs,
    opened: &Opened,
    batch: &str,
    queue: &Name,
    queues: BTreeSet<Name>,
) -> Result<Scheduler> {
    let before = opened.store.queue(queue).await?;
    if before.paused {
        output::note(&format!("note: the queue {queue} is paused; `lts queue resume {queue}` lets it go on"));
    }
    let mut config = Config {
        concurrency: usize::try_from(args.concurrency()).unwrap_or(usize::MAX),
        replica_name: format!("lts batch {batch}, pid {}", std::process::id()),
        queues: queues.into_iter().collect(),
        drain: Shutdown { grace: follow::DRAIN_GRACE, hand_over: false },
        ..Config::default()
    };
    config.ttl = args.lease.unwrap_or(config.ttl);
    if args.queue.is_none() {
        // The batch's own queue: its limits are those of its latest run. The exact limit of the queue also
        // counts what an earlier run has left running.
        let settings = QueueSettings { concurrency: Some(args.concurrency()), rate: args.rate, paused: false };
        config.queue_settings.push((queue.clone(), settings));
    } else if args.rate.is_some() {
        config.queue_settings.push((queue.clone(), QueueSettings { rate: args.rate, paused: false, ..before }));
    }
    opened.scheduler(config).await
}

impl Follower {
    /// Tells about the tasks that have ended before, and are not run again.
    async fn take_over(&mut self, mode: Mode) -> Result<()> {
        let ended: Vec<(usize, State)> = self
            .entries()
            .iter()
            .enumerate()
            .filter_map(|(place, entry)| match decide(entry.found, mode) {
                Todo::Done(state) => Some((place, state)),
                _ => None,
            })
            .collect();
        self.ended(ended, true).await
    }

    /// The last line, and the exit code.
    fn finish(&mut self, batch: &str, took: Duration) -> Result<u8> {
        let tally = self.tally();
        self.end(batch, took)?;
        Ok(match tally.tasks - tally.ended() {
            0 if tally.succeeded == tally.tasks => exit::OK,
            0 => exit::ERROR,
            _ => exit::INTERRUPTED,
        })
    }
}
