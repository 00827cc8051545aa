//! `lts task`: everything about tasks, under one name. What is typed most has a short name too: `lts ls` is `lts task ls`.

use clap::{Args, Subcommand};

use super::{act, cancel, logs, ls, show, submit};
use crate::exit::Result;

/// Submits, shows and operates tasks.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task submit process '{\"argv\": [\"echo\", \"hi\"]}' --wait
  lts task ls state:failed
  lts task retry --where 'state:failed queue:video' --dry-run")]
pub(crate) struct TaskArgs {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    Submit(submit::SubmitArgs),
    Ls(ls::LsArgs),
    Get(show::ShowArgs),
    Wait(cancel::WaitArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
    Start(act::StartArgs),
    Retry(act::RetryArgs),
    Reschedule(act::RescheduleArgs),
    Clone(submit::CloneArgs),
    Rm(act::RmArgs),
}

/// Runs it.
pub(crate) async fn run(args: TaskArgs) -> Result<u8> {
    match args.ask {
        Ask::Submit(args) => submit::submit(args).await,
        Ask::Ls(args) => ls::run(args).await,
        Ask::Get(args) => show::run(args).await,
        Ask::Wait(args) => cancel::wait(args).await,
        Ask::Logs(args) => logs::run(args).await,
        Ask::Cancel(args) => cancel::run(args).await,
        Ask::Start(args) => act::start(args).await,
        Ask::Retry(args) => act::retry(args).await,
        Ask::Reschedule(args) => act::reschedule(args).await,
        Ask::Clone(args) => submit::clone(args).await,
        Ask::Rm(args) => act::rm(args).await,
    }
}
