//! The command line: what can be asked, and how an answer becomes an exit code.

mod cancel;
mod dev;
mod language;
mod logs;
mod ls;
mod queue;
mod retry;
mod run;
mod select;
mod server;
mod show;
mod store;
mod token;
mod worker;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::batch::{self, BatchArgs};
use crate::bench::{self, BenchArgs};
use crate::exit::{ERROR, OK, Problem, Result};
use crate::output;

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

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 6 store unreachable, 7 timed out;
`run` passes the command's own (128 + n on a signal).

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
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Retry(retry::RetryArgs),
    Rm(retry::RmArgs),
    Queue(queue::QueueArgs),
    Store(store::StoreCommand),
    Token(token::TokenArgs),
    Config(server::ConfigArgs),
    Worker(worker::WorkerArgs),
    Bench(BenchArgs),
}

/// Does what the command line says; answers the exit code.
pub(crate) fn main() -> u8 {
    // Clap prints its own errors, and ends the program with code 2.
    let matches = language::in_users_language(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match answer(cli.command) {
        Ok(code) => code,
        Err(problem) => {
            if !problem.message.is_empty() {
                output::note(&format!("lts: {problem}"));
            }
            problem.code
        }
    }
}

fn answer(ask: Ask) -> Result<u8> {
    if let Ask::Bench(args) = ask {
        return bench::run(&args).map(|()| OK);
    }
    let runtime = runtime()?;
    let answer = runtime.block_on(async {
        match ask {
            Ask::Dev(args) => dev::run(args).await,
            Ask::Server(args) => server::run(args).await,
            Ask::Token(args) => token::run(args).await,
            Ask::Config(args) => server::config(args).await,
            Ask::Batch(args) => batch::run(args).await,
            Ask::Run(args) => run::run(args).await,
            Ask::Ls(args) => ls::run(args).await,
            Ask::Show(args) => show::run(args).await,
            Ask::Logs(args) => logs::run(args).await,
            Ask::Cancel(args) => cancel::run(args).await,
            Ask::Retry(args) => retry::retry(args).await,
            Ask::Rm(args) => retry::rm(args).await,
            Ask::Queue(args) => queue::run(args).await,
            Ask::Store(args) => store::run(args).await,
            Ask::Worker(args) => worker::run(args).await,
            Ask::Bench(_) => Ok(OK),
        }
    });
    // Nothing that still waits is worth waiting for: what must be kept is in the store.
    runtime.shutdown_background();
    answer
}

fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Problem::new(ERROR, format!("cannot start: {error}")))
}
