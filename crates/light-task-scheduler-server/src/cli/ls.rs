//! `lts task ls`: which tasks there are.

use clap::Args;
use light_task_scheduler::store::PAGE_MAX;
use light_task_scheduler::{Name, State};
use serde_json::Value;

use crate::api::{quoted, url_encoded};
use crate::batch::lines::BATCH_LABEL;
use crate::batch::parse_name;
use crate::cli::select::parse_state;
use crate::cli::target::TargetArgs;
use crate::exit::{OK, Result};
use crate::output::{self, Form, FormArgs, Listing};

/// Lists tasks, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task ls --state failed,cancelled
  lts task ls 'queue:video error:\"no space\" created:<1h' -o wide
  lts task ls --batch nightly --limit 0 --json")]
pub(crate) struct LsArgs {
    /// A query such as state:failed queue:video kind:process label.batch:x created:<1h attempt:>2 error:"no space"
    #[arg(value_name = "QUERY")]
    query: Vec<String>,
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
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Reads `name=value`.
pub(crate) fn parse_label(text: &str) -> Result<(Name, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((parse_name(name)?, value.to_owned()))
}

impl LsArgs {
    fn query(&self) -> String {
        let mut terms = vec![self.query.join(" ")];
        if !self.state.is_empty() {
            let states: Vec<&str> = self.state.iter().map(|state| state.as_str()).collect();
            terms.push(format!("state:{}", states.join(",")));
        }
        terms.extend(self.queue.iter().map(|queue| format!("queue:{queue}")));
        terms.extend(self.kind.iter().map(|kind| format!("kind:{kind}")));
        terms.extend(self.label.iter().map(|(name, value)| format!("label.{name}:{}", quoted(value))));
        terms.extend(self.batch.iter().map(|batch| format!("label.{BATCH_LABEL}:{}", quoted(batch))));
        terms.join(" ")
    }
}

/// Runs it.
pub(crate) async fn run(args: LsArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let (query, form) = (url_encoded(args.query().trim()), args.form.form());
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut kept = Vec::new();
    let mut cursor = String::new();
    loop {
        let limit = left.min(PAGE_MAX);
        let mut page = target.get(&format!("/api/v1/tasks?limit={limit}&q={query}{cursor}")).await?;
        let tasks: Vec<Value> = page["tasks"].as_array_mut().map(std::mem::take).unwrap_or_default();
        left = left.saturating_sub(tasks.len());
        match form {
            // However many there are: they are printed as they come.
            Form::Jsonl | Form::Name => listing().print(form, &tasks)?,
            _ => kept.extend(tasks),
        }
        match page["next"].as_str() {
            Some(next) if left > 0 => cursor = format!("&cursor={}", url_encoded(next)),
            next => {
                if !matches!(form, Form::Jsonl | Form::Name) {
                    listing().print(form, &kept)?;
                }
                if next.is_some() {
                    output::note("there are more; --limit 0 shows all");
                }
                return Ok(OK);
            }
        }
    }
}

fn listing() -> Listing {
    Listing::new("id")
        .column("ID", |task| output::text(&task["id"]))
        .column("STATE", |task| output::text(&task["phase"]))
        .column("QUEUE", |task| output::text(&task["queue"]))
        .wide("KIND", |task| output::text(&task["kind"]))
        .wide("PRIORITY", |task| output::text(&task["priority"]))
        .column("TRIES", |task| output::text(&task["attempt"]))
        .wide("CREATED", |task| output::time_text(&task["created_at"]))
        .column("STARTED", |task| output::time_text(&task["started_at"]))
        .column("FINISHED", |task| output::time_text(&task["finished_at"]))
        .wide("WORKER", |task| output::text(&task["worker"]))
        .wide("FAILURE", |task| output::shortened(&output::text(&task["failure"]["message"]), FAILURE_CHARS_MAX))
        .column("COMMAND", |task| output::shortened(&summary(task), usize::MAX))
}

/// How much of a failure a wide list shows.
const FAILURE_CHARS_MAX: usize = 60;

/// A task's command, as one would type it.
pub(crate) fn summary(task: &Value) -> String {
    task["summary"].as_str().map(output::printable).unwrap_or_default()
}
