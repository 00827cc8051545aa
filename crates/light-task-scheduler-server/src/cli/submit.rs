//! `lts task submit` and `lts task clone`: new tasks.

use std::io::Read;
use std::time::Duration;

use axum::http::Method;
use clap::Args;
use light_task_scheduler::Name;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::batch::parse_name;
use crate::cli::act::{Consent, tell};
use crate::cli::cancel::{code_of, ended};
use crate::cli::ls::parse_label;
use crate::cli::target::{Target, TargetArgs, task_path};
use crate::duration::parse_duration;
use crate::exit::{OK, Problem, Result, TIMED_OUT};
use crate::output::{Form, FormArgs, json_text};

/// Submits a task; whoever serves its queue runs it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task submit process '{\"argv\": [\"echo\", \"hi\"]}' --wait
  lts task submit process @job.json --queue video --retries 3 --label batch=nightly
  generate | lts task submit process - --idempotency-key 2026-11-26")]
pub(crate) struct SubmitArgs {
    /// What runs it: process, docker, http, or a kind of a worker of your own
    kind: String,
    /// What it works on, as JSON; - for stdin, @FILE for a file
    #[arg(default_value = "null", hide_default_value = true)]
    payload: String,
    /// Its id [default: a fresh one]
    #[arg(long)]
    id: Option<String>,
    /// A label, to find it again; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(Name, String)>,
    /// Not before this time
    #[arg(long, value_name = "TIME", conflicts_with_all = ["delay", "held"])]
    run_at: Option<String>,
    /// Not before so long from now, for example 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "held")]
    delay: Option<Duration>,
    /// Submitting it again with this key answers the same task
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// Submits a task like another one, with changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task clone 3f2a9c
  lts task clone 3f2a9c --payload @better.json --wait")]
pub(crate) struct CloneArgs {
    /// Its id, or the beginning of it
    task: String,
    /// Another payload, as JSON; - for stdin, @FILE for a file
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
struct Options {
    /// The queue
    #[arg(long, value_parser = parse_name)]
    queue: Option<Name>,
    /// Higher runs first
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
    /// How long each attempt may take, for example 30s or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Attempts beyond the first
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// Not before it is started by `lts task start`
    #[arg(long)]
    held: bool,
    /// Wait until it has ended, and exit as `lts task wait` does
    #[arg(long)]
    wait: bool,
    /// Wait at most so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    wait_timeout: Option<Duration>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// What is sent: the payload as it was given, whatever numbers it has.
#[derive(Serialize)]
struct Sent {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// A payload as it is given: JSON, `-` or `@FILE`.
fn payload(text: &str) -> Result<Box<RawValue>> {
    let read = |what: &str, read: std::io::Result<String>| {
        read.map_err(|error| Problem::usage(format!("cannot read {what}: {error}")))
    };
    let (what, json) = match text.strip_prefix('@') {
        Some(file) => (file, read(file, std::fs::read_to_string(file))?),
        None if text == "-" => {
            let mut given = String::new();
            let result = std::io::stdin().lock().read_to_string(&mut given);
            ("stdin", read("stdin", result.map(|_| given))?)
        }
        None => ("the payload", text.to_owned()),
    };
    serde_json::from_str(&json).map_err(|error| Problem::usage(format!("{what} is no JSON: {error}")))
}

/// As the API takes it; shorter than a microsecond is nothing there.
pub(crate) fn span(duration: Duration) -> Value {
    format!("{}ms", duration.as_secs_f64() * 1e3).into()
}

impl Options {
    /// What is the same in a new task and in a changed one.
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("queue", self.queue.as_ref().map(|queue| queue.as_str().into()));
        set("priority", self.priority.map(Into::into));
        set("timeout", self.timeout.map(span));
        set("retry", self.retries.map(|retries| json!({ "max_attempts": u64::from(retries) + 1 })));
        set("held", self.held.then_some(true.into()));
        fields
    }

    /// Says what was made, and how it ended if that is asked for.
    async fn told(&self, target: &Target, task: &Value) -> Result<u8> {
        let id = task["id"].as_str().unwrap_or_default();
        let tell = |task: &Value| match self.form.form() {
            Form::Table | Form::Wide => tell(id, task["phase"].as_str().unwrap_or_default(), Form::Table),
            form => crate::output::one(form, "id", task, Vec::new),
        };
        if !self.wait {
            tell(task)?;
            return Ok(OK);
        }
        match ended(target, id, self.wait_timeout).await? {
            Some(task) => {
                tell(&task)?;
                Ok(code_of(&task))
            }
            None => {
                let within = self.wait_timeout.unwrap_or_default();
                Err(Problem::new(TIMED_OUT, format!("task {id} has not ended within {within:?}")))
            }
        }
    }
}

/// Runs `lts task submit`.
pub(crate) async fn submit(args: SubmitArgs) -> Result<u8> {
    let mut body = args.options.fields();
    body.insert("kind".to_owned(), args.kind.into());
    let payload = Some(payload(&args.payload)?);
    body.extend(args.id.map(|id| ("id".to_owned(), id.into())));
    body.extend(args.run_at.map(|at| ("run_at".to_owned(), at.into())));
    body.extend(args.delay.map(|delay| ("delay".to_owned(), span(delay))));
    let labels: Map<String, Value> =
        args.label.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect();
    body.insert("labels".to_owned(), labels.into());
    let target = args.options.target.open_or_create().await?;
    args.options.consent.to(&target, "submit a task")?;
    let headers: Vec<(&str, &str)> = args.idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
    let body = json_text(&Sent { payload, fields: body })?;
    let task = target.call(Method::POST, "/api/v1/tasks", Some(body), &headers).await?.json().await?;
    args.options.told(&target, &task).await
}

/// Runs `lts task clone`.
pub(crate) async fn clone(args: CloneArgs) -> Result<u8> {
    let payload = args.payload.as_deref().map(payload).transpose()?;
    let body = json_text(&Sent { payload, fields: args.options.fields() })?;
    let target = args.options.target.open().await?;
    let found = target.find(&args.task).await?;
    args.options.consent.to(&target, "submit a task")?;
    let id = found["id"].as_str().unwrap_or_default();
    let path = task_path(id, "/clone");
    let task = target.call(Method::POST, &path, Some(body), &[]).await?.json().await?;
    args.options.told(&target, &task).await
}
