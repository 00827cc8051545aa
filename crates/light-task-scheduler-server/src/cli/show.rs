//! `lts show`: all about one task.

use clap::Args;
use light_task_scheduler::executor::process::CommandSpec;
use light_task_scheduler::{ResultRef, Task};
use serde_json::{Value, json};

use crate::cli::ls::state_in_words;
use crate::cli::select::{StoreArgs, find};
use crate::command::{shown, signal_of};
use crate::exit::{ERROR, OK, Problem, Result};
use crate::output;

/// Shows all about a task.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts show 3f2a9c
  lts show 3f2a9c --json")]
pub(crate) struct ShowArgs {
    /// Its id, or the beginning of it
    id: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: ShowArgs) -> Result<u8> {
    let opened = args.store.open().await?;
    let task = find(&*opened.store, &args.id).await?;
    if args.json {
        output::json(&as_json(&task)?)?
    } else {
        print(&task)?
    }
    Ok(OK)
}

/// A task with its command and its result.
pub(crate) fn as_json(task: &Task) -> Result<Value> {
    let mut value = serde_json::to_value(task)
        .map_err(|error| Problem::new(ERROR, format!("the task cannot be written as JSON: {error}")))?;
    if let Some(object) = value.as_object_mut() {
        object.insert("command".to_owned(), json!(shown(task)));
        object.insert("payload".to_owned(), task.spec.payload.parse::<Value>().unwrap_or(Value::Null));
        object.insert("result".to_owned(), result(task).unwrap_or(Value::Null));
    }
    Ok(value)
}

fn result(task: &Task) -> Option<Value> {
    match task.record.result()? {
        ResultRef::Inline(payload) => payload.parse().ok(),
        stored => serde_json::to_value(stored).ok(),
    }
}

fn print(task: &Task) -> Result<()> {
    let (spec, record) = (&task.spec, &task.record);
    let mut lines = vec![
        ("id", task.id.to_string()),
        ("state", state_in_words(task)),
        ("command", shown(task)),
        ("queue", spec.queue.to_string()),
        ("kind", spec.kind.to_string()),
        ("priority", spec.priority.to_string()),
        ("attempts", format!("{} of {}", record.attempt, task.retry_policy().max_attempts)),
        ("created", spec.created_at.to_string()),
    ];
    if let Ok(command) = spec.payload.parse::<CommandSpec>()
        && let Some(cwd) = command.cwd
    {
        lines.insert(3, ("directory", cwd.display().to_string()));
    }
    let times = [("started", record.started_at), ("finished", record.finished_at)];
    lines.extend(times.into_iter().filter_map(|(name, at)| Some((name, at?.to_string()))));
    if let Some(timeout) = task.timeout() {
        lines.push(("timeout", format!("{timeout:?}")));
    }
    for (name, value) in spec.options.iter().flat_map(|options| &options.labels) {
        lines.push(("label", format!("{name}={value}")));
    }
    if let Some(failure) = record.failure() {
        lines.push(("failure", failure.message.clone()));
        lines.extend(failure.exit_code.map(|code| ("exit code", code.to_string())));
        lines.extend(signal_of(failure).map(|signal| ("signal", signal.to_string())));
    }
    lines.extend(result(task).map(|result| ("result", result.to_string())));
    for attempt in record.attempts() {
        let (number, started, why) = (attempt.attempt, attempt.started_at, &attempt.failure.message);
        lines.push(("attempt", format!("{number}, started {started}, ended {}: {why}", attempt.ended_at)));
    }
    lines.into_iter().try_for_each(|(name, value)| output::line(&format!("{:<11}{value}", format!("{name}:"))))
}
