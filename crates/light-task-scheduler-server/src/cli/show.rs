//! `lts task get`: all about one task.

use clap::Args;
use serde_json::Value;

use crate::cli::ls::summary;
use crate::cli::target::{TargetArgs, task_path};
use crate::command::signal_in;
use crate::exit::{OK, Result};
use crate::output::{self, FormArgs, text};

/// Shows all about a task.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task get 3f2a9c
  lts task get 3f2a9c --json | jq .attempts")]
pub(crate) struct ShowArgs {
    /// Its id, or the beginning of it
    id: String,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs it.
pub(crate) async fn run(args: ShowArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let found = target.find(&args.id).await?;
    let id = found["id"].as_str().unwrap_or_default();
    let mut task = target.task(id).await?;
    task["attempts"] = target.get(&task_path(id, "/attempts")).await?;
    output::one(args.form.form(), "id", &task, || lines(&task))?;
    Ok(OK)
}

fn lines(task: &Value) -> Vec<(String, String)> {
    let mut lines = vec![
        ("id", text(&task["id"])),
        ("state", text(&task["phase"])),
        ("command", summary(task)),
        ("queue", text(&task["queue"])),
        ("kind", text(&task["kind"])),
        ("priority", text(&task["priority"])),
        ("attempts", format!("{} of {}", text(&task["attempt"]), text(&task["retry"]["max_attempts"]))),
        ("created", text(&task["created_at"])),
    ];
    if let Some(cwd) = task["payload"]["cwd"].as_str() {
        lines.insert(3, ("directory", output::printable(cwd)));
    }
    for (name, field) in [
        ("started", "started_at"),
        ("finished", "finished_at"),
        ("timeout", "timeout"),
        ("deadline", "deadline"),
        ("worker", "worker"),
    ] {
        lines.extend((!task[field].is_null()).then(|| (name, text(&task[field]))));
    }
    for (name, value) in task["labels"].as_object().into_iter().flatten() {
        lines.push(("label", format!("{name}={}", text(value))));
    }
    if let Some(progress) = task["progress"].as_object() {
        let message = progress.get("message").map(text).unwrap_or_default();
        lines.push((
            "progress",
            format!("{} of {} {message}", text(&task["progress"]["done"]), text(&task["progress"]["total"])),
        ));
    }
    let failure = &task["failure"];
    if failure.is_object() {
        lines.push(("failure", text(&failure["message"])));
        lines.extend((!failure["exit_code"].is_null()).then(|| ("exit code", text(&failure["exit_code"]))));
        lines.extend(signal(failure).map(|signal| ("signal", signal.to_string())));
    }
    lines.extend((!task["result"].is_null()).then(|| ("result", task["result"].to_string())));
    for attempt in task["attempts"].as_array().into_iter().flatten().filter(|attempt| attempt["failure"].is_object()) {
        let [number, started, ended] = ["attempt", "started_at", "ended_at"].map(|field| text(&attempt[field]));
        let why = text(&attempt["failure"]["message"]);
        lines.push(("attempt", format!("{number}, started {started}, ended {ended}: {why}")));
    }
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn signal(failure: &Value) -> Option<i32> {
    let code = failure["exit_code"].as_i64().and_then(|code| i32::try_from(code).ok());
    signal_in(code, failure["message"].as_str().unwrap_or_default())
}
