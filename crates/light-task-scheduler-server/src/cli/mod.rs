//! The command line: what can be asked, and how an answer becomes an exit code.

mod act;
mod cancel;
mod context;
mod dev;
mod doctor;
mod generate;
mod language;
mod logs;
mod ls;
mod queue;
mod run;
mod select;
mod server;
mod show;
mod store;
mod submit;
mod target;
mod task;
mod token;
mod top;
mod watch;
mod worker;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::batch::{self, BatchArgs};
use crate::bench::{self, BenchArgs};
use crate::exit::{ERROR, OK, Problem, Result};
use crate::output::{self, Form};

/// Threads that run the scheduler: commands run in processes of their own.
const WORKER_THREADS: usize = 2;

/// Runs commands durably: limits, retries, timeouts, and resumption after a crash.
#[derive(Debug, Parser)]
#[command(
    name = "lts",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  lts dev
  lts batch jobs.txt --concurrency 4
  lts run --timeout 10m -- make all
  lts task ls state:failed --server http://127.0.0.1:7600

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 not allowed, 6 server or store unreachable, 7 timed out;
`run` passes the command's own (128 + n on a signal); who waits for a task: 10 it failed, 11 it was cancelled.

LTS_LANG=zh-CN, or a locale that begins with zh, shows help in Chinese."
)]
struct Cli {
    #[command(subcommand)]
    command: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    Dev(dev::DevArgs),
    Server(server::ServerArgs),
    Batch(BatchArgs),
    Run(run::RunArgs),
    Task(task::TaskArgs),
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Retry(act::RetryArgs),
    Rm(act::RmArgs),
    Queue(queue::QueueArgs),
    Stats(watch::StatsArgs),
    Failures(watch::FailuresArgs),
    Top(top::TopArgs),
    Events(watch::EventsArgs),
    Store(store::StoreCommand),
    Token(token::TokenArgs),
    Context(context::ContextArgs),
    Config(server::ConfigArgs),
    Worker(worker::WorkerArgs),
    Doctor(doctor::DoctorArgs),
    Bench(BenchArgs),
    Completion(generate::CompletionArgs),
    Man(generate::ManArgs),
    #[command(name = "openapi")]
    OpenApi(generate::OpenApiArgs),
}

/// Does what the command line says; answers the exit code.
pub(crate) fn main() -> u8 {
    // Clap prints its own errors, and ends the program with code 2.
    let matches = language::in_users_language(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match answer(cli.command) {
        Ok(code) => code,
        Err(problem) => {
            tell(&problem, asks_for_json(&matches));
            problem.code
        }
    }
}

/// Says on stderr why the program fails.
fn tell(problem: &Problem, json: bool) {
    if problem.message.is_empty() {
        return;
    }
    if json {
        output::note(&problem.as_json().to_string());
    } else {
        output::note(&format!("lts: {}", output::printable(&problem.message)));
    }
}

/// Whether the command that was given is asked for JSON: then it fails in JSON too.
fn asks_for_json(matches: &ArgMatches) -> bool {
    if let Some((_, matches)) = matches.subcommand() {
        return asks_for_json(matches);
    }
    let json = matches!(matches.try_get_one::<bool>("json"), Ok(Some(true)));
    json || matches!(matches.try_get_one::<Form>("output"), Ok(Some(Form::Json | Form::Jsonl)))
}

fn answer(ask: Ask) -> Result<u8> {
    match ask {
        // These need no runtime.
        Ask::Bench(args) => return bench::run(&args).map(|()| OK),
        Ask::Completion(args) => return generate::completion(&args),
        Ask::Man(args) => return generate::man(&args),
        _ => {}
    }
    let runtime = runtime()?;
    let answer = runtime.block_on(concurrently(ask));
    // Nothing that still waits is worth waiting for: what must be kept is in the store.
    runtime.shutdown_background();
    answer
}

async fn concurrently(ask: Ask) -> Result<u8> {
    match ask {
        Ask::Dev(args) => dev::run(args).await,
        Ask::Server(args) => server::run(args).await,
        Ask::Token(args) => token::run(args).await,
        Ask::Context(args) => context::run(args).await,
        Ask::Config(args) => server::config(args).await,
        Ask::Batch(args) => batch::run(args).await,
        Ask::Run(args) => run::run(args).await,
        Ask::Task(args) => task::run(args).await,
        Ask::Ls(args) => ls::run(args).await,
        Ask::Show(args) => show::run(args).await,
        Ask::Logs(args) => logs::run(args).await,
        Ask::Cancel(args) => cancel::run(args).await,
        Ask::Retry(args) => act::retry(args).await,
        Ask::Rm(args) => act::rm(args).await,
        Ask::Queue(args) => queue::run(args).await,
        Ask::Stats(args) => watch::stats(args).await,
        Ask::Failures(args) => watch::failures(args).await,
        Ask::Top(args) => top::run(args).await,
        Ask::Doctor(args) => doctor::run(args).await,
        Ask::Events(args) => watch::events(args).await,
        Ask::Store(args) => store::run(args).await,
        Ask::Worker(args) => worker::run(args).await,
        Ask::OpenApi(_) => generate::openapi(),
        Ask::Bench(_) | Ask::Completion(_) | Ask::Man(_) => Ok(OK),
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Problem::new(ERROR, format!("cannot start: {error}")))
}
