//! `lts ls`: which tasks there are.

use clap::Args;
use light_task_scheduler::store::{PAGE_MAX, TaskQuery};
use light_task_scheduler::{Name, State, Task};

use crate::batch::lines::BATCH_LABEL;
use crate::batch::parse_name;
use crate::cli::select::{StoreArgs, parse_state};
use crate::command::shown;
use crate::exit::{OK, Problem, Result};
use crate::output;

/// Lists tasks, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts ls --state failed,cancelled
  lts ls --batch nightly --limit 0 --json")]
pub(crate) struct LsArgs {
    /// In these states: held, waiting, running, exporting, succeeded, failed, cancelled
    #[arg(long, value_delimiter = ',', value_parser = parse_state)]
    state: Vec<State>,
    /// Of this queue
    #[arg(long, value_parser = parse_name)]
    queue: Option<Name>,
    /// Of this kind
    #[arg(long, value_parser = parse_name)]
    kind: Option<Name>,
    /// With this label; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(Name, String)>,
    /// Of this batch
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    /// At most so many; 0: all
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Print a JSON object per task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Reads `name=value`.
pub(crate) fn parse_label(text: &str) -> Result<(Name, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((parse_name(name)?, value.to_owned()))
}

/// Runs it.
pub(crate) async fn run(args: LsArgs) -> Result<u8> {
    let opened = args.store.open().await?;
    let mut labels = args.label;
    if let Some(batch) = args.batch {
        labels.push((parse_name(BATCH_LABEL).map_err(Problem::usage)?, batch));
    }
    let mut query =
        TaskQuery { states: args.state, queue: args.queue, kind: args.kind, labels, ..TaskQuery::default() };
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut rows = Vec::new();
    let mut more = false;
    while left > 0 {
        query.limit = left.min(PAGE_MAX);
        let page = opened.store.list(&query).await?;
        left -= page.tasks.len();
        for task in &page.tasks {
            if args.json {
                output::json(&super::show::as_json(task)?)?;
            } else {
                rows.push(row(task));
            }
        }
        query.cursor = page.next;
        more = page.next.is_some();
        if !more {
            break;
        }
    }
    if !args.json {
        output::table(&["ID", "STATE", "QUEUE", "TRIES", "STARTED", "FINISHED", "COMMAND"], &rows)?;
        if more {
            output::note("there are more; --limit 0 shows all");
        }
    }
    Ok(OK)
}

fn row(task: &Task) -> Vec<String> {
    let record = &task.record;
    vec![
        task.id.to_string(),
        state_in_words(task),
        task.spec.queue.to_string(),
        record.attempt.to_string(),
        output::time(record.started_at),
        output::time(record.finished_at),
        output::shortened(&shown(task), usize::MAX),
    ]
}

/// A state, and what is special about it.
pub(crate) fn state_in_words(task: &Task) -> String {
    match (task.record.state, task.record.cancel_requested) {
        (State::Running, true) => "cancelling".to_owned(),
        (State::Waiting, _) if task.record.attempt > 0 => "retrying".to_owned(),
        (state, _) => state.to_string(),
    }
}
