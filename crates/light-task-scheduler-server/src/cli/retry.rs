//! `lts retry` and `lts rm`: what can be done with tasks that have ended.

use clap::Args;
use light_task_scheduler::{Command, StoreExt};

use crate::cli::cancel::tell;
use crate::cli::select::{StoreArgs, find_all};
use crate::exit::{OK, Problem, Result};
use crate::output;

/// Lets ended tasks run again, with fresh attempts; whoever serves their queue runs them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts retry 3f2a9c
  lts batch jobs.txt --retry-failed     all that failed of a batch, and runs them")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    tasks: TasksArgs,
}

/// Removes ended tasks and their logs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts rm 3f2a9c 77b1")]
pub(crate) struct RmArgs {
    #[command(flatten)]
    tasks: TasksArgs,
}

#[derive(Debug, Args)]
struct TasksArgs {
    /// Their ids, or the beginnings of them
    #[arg(required = true)]
    ids: Vec<String>,
    /// Print a JSON object per task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `lts retry`.
pub(crate) async fn retry(args: RetryArgs) -> Result<u8> {
    each(args.tasks, Command::Requeue, "waiting").await
}

/// Runs `lts rm`.
pub(crate) async fn rm(args: RmArgs) -> Result<u8> {
    each(args.tasks, Command::Delete, "removed").await
}

async fn each(args: TasksArgs, command: Command, done: &str) -> Result<u8> {
    let opened = args.store.open().await?;
    let mut code = OK;
    for task in find_all(&*opened.store, &args.ids).await? {
        match opened.store.order(&task.id, command).await {
            Ok(_) => {
                // The row first: a task without its log is better than a log without its task.
                if command == Command::Delete {
                    opened.logs.delete(&task.id).await?;
                }
                tell(&task.id, done, args.json)?;
            }
            Err(error) => {
                let problem = Problem::from(error);
                output::note(&format!("lts: {problem}"));
                code = problem.code;
            }
        }
    }
    Ok(code)
}
