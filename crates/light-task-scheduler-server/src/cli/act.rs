//! `lts task start`, `retry`, `rm`, and what every wish has in common: of some tasks by their ids, or of many by a query.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use light_task_scheduler::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::submit::span;
use crate::cli::target::{Target, TargetArgs, task_path};
use crate::duration::parse_delay;
use crate::exit::{OK, Problem, Result};
use crate::output::{self, Form, FormArgs};

/// More tasks than this are not changed by a query without being asked: so many are what a list shows at once.
const UNASKED_MAX: u64 = 50;
/// How many tasks are changed by one request.
const STEP: u64 = 10_000;

/// Which tasks.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Their ids, or the beginnings of them
    #[arg(required_unless_present = "query", conflicts_with = "query")]
    pub(crate) ids: Vec<String>,
    /// All that this query finds, for example 'state:failed queue:video'
    #[arg(long = "where", value_name = "QUERY", id = "query")]
    query: Option<String>,
    /// With --where: at most so many
    #[arg(long, value_name = "N", requires = "query", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// With --where: only say how many they are
    #[arg(long, requires = "query")]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Whether changes are agreed to.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Do not ask first
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Consent {
    /// Asks before something is changed in production.
    pub(crate) fn to(self, target: &Target, what: &str) -> Result<()> {
        if self.yes || !target.chosen.production {
            return Ok(());
        }
        let context = target.chosen.context.as_deref().unwrap_or_default();
        ask(&format!("{what} in {context}, which is production"))
    }
}

/// Asks on a terminal; elsewhere nobody could answer.
fn ask(what: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Problem::usage(format!("this would {what}; --yes does it without being asked")));
    }
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{what}? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    // What cannot be read is no consent.
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Problem::usage("nothing was changed")),
    }
}

/// Something that is wished of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Cancel,
    Start,
    Retry,
    Delete,
    Reschedule(Rescheduling),
}

/// When a task is to run, and before which others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rescheduling {
    run_at: Option<Timestamp>,
    delay: Option<Duration>,
    priority: Option<i32>,
}

impl Rescheduling {
    /// As the API takes it.
    fn body(self) -> Value {
        let fields = [
            ("run_at", self.run_at.map(|at| at.to_string().into())),
            ("delay", self.delay.map(span)),
            ("priority", self.priority.map(Value::from)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>().into()
    }
}

impl Wish {
    /// As the API has it.
    fn word(self) -> &'static str {
        match self {
            Wish::Cancel => "cancel",
            Wish::Start => "start",
            Wish::Retry => "retry",
            Wish::Delete => "delete",
            Wish::Reschedule(_) => "reschedule",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Wish::Cancel => "cancelled",
            Wish::Start => "started",
            Wish::Retry => "retried",
            Wish::Delete => "removed",
            Wish::Reschedule(_) => "rescheduled",
        }
    }

    /// What the API is told beside that.
    fn body(self) -> Option<Value> {
        match self {
            Wish::Reschedule(to) => Some(to.body()),
            Wish::Cancel | Wish::Start | Wish::Retry | Wish::Delete => None,
        }
    }

    /// Has it done to one task; in which state this is then.
    pub(crate) async fn of(self, target: &Target, id: &str) -> Result<String> {
        if self == Wish::Delete {
            target.delete(&task_path(id, "")).await?;
            return Ok("removed".to_owned());
        }
        let task = target.post(&task_path(id, &format!("/{}", self.word())), self.body().as_ref()).await?;
        Ok(task["state"].as_str().unwrap_or_default().to_owned())
    }
}

/// Lets held tasks run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task start 3f2a9c
  lts task start --where 'queue:video' --dry-run")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Lets ended tasks run again, with fresh attempts; whoever serves their queue runs them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task retry 3f2a9c
  lts task retry --where 'state:failed queue:video created:<1d' --dry-run
  lts batch jobs.txt --retry-failed     all that failed of a batch, and runs them")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Lets held and waiting tasks run at another time, or before others; held ones go on being held.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task reschedule 3f2a9c --in 0s                    now: ends a delay or the wait for the next attempt
  lts task reschedule 3f2a9c --at 2030-01-01T06:00:00Z
  lts task reschedule --where 'queue:video state:waiting' --priority 5")]
pub(crate) struct RescheduleArgs {
    /// Not before this time; one that has passed means now
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<Timestamp>,
    /// Not before so long from now, for example 10m
    #[arg(long = "in", id = "delay", value_name = "DURATION", value_parser = parse_delay)]
    delay: Option<Duration>,
    /// Higher runs first, also in later attempts
    #[arg(long, value_name = "N", allow_negative_numbers = true, required_unless_present_any = ["at", "delay"])]
    priority: Option<i32>,
    #[command(flatten)]
    asked: Asked,
}

/// Removes held and ended tasks and their logs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task rm 3f2a9c 77b1
  lts task rm --where 'state:succeeded created:>30d' --yes")]
pub(crate) struct RmArgs {
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `lts task start`.
pub(crate) async fn start(args: StartArgs) -> Result<u8> {
    each(args.asked, Wish::Start).await
}

/// Runs `lts task retry`.
pub(crate) async fn retry(args: RetryArgs) -> Result<u8> {
    each(args.asked, Wish::Retry).await
}

/// Runs `lts task reschedule`.
pub(crate) async fn reschedule(args: RescheduleArgs) -> Result<u8> {
    let RescheduleArgs { at, delay, priority, asked } = args;
    each(asked, Wish::Reschedule(Rescheduling { run_at: at, delay, priority })).await
}

/// Runs `lts task rm`.
pub(crate) async fn rm(args: RmArgs) -> Result<u8> {
    each(args.asked, Wish::Delete).await
}

async fn each(args: Asked, wish: Wish) -> Result<u8> {
    let target = args.target.open().await?;
    let form = args.form.form();
    if let Some(code) = args.selection.by_query(&target, wish, form).await? {
        return Ok(code);
    }
    let (moved, code) = args.selection.by_ids(&target, wish).await?;
    moved.iter().try_for_each(|(id, state)| tell(id, state, form))?;
    Ok(code)
}

impl Selection {
    /// Has it done to the tasks that are named, as far as possible: in which states they are then, and the exit code.
    pub(crate) async fn by_ids(&self, target: &Target, wish: Wish) -> Result<(Vec<(String, String)>, u8)> {
        let ids = target.find_ids(&self.ids).await?;
        self.consent.to(target, &format!("{} {}", wish.word(), counted(ids.len() as u64)))?;
        let (mut moved, mut code) = (Vec::new(), OK);
        for id in ids {
            match wish.of(target, &id).await {
                Ok(state) => moved.push((id, state)),
                // Of several, what was done is told too.
                Err(problem) if self.ids.len() > 1 => {
                    output::note(&format!("lts: {problem}"));
                    code = problem.code;
                }
                Err(problem) => return Err(problem),
            }
        }
        Ok((moved, code))
    }

    /// Has it done to all tasks of the query, if one is given.
    pub(crate) async fn by_query(&self, target: &Target, wish: Wish, form: Form) -> Result<Option<u8>> {
        let Some(query) = &self.query else { return Ok(None) };
        let bulk = Bulk { target, wish, query, limit: self.limit.unwrap_or(u64::MAX) };
        let found = bulk.run(true).await?;
        if self.dry_run {
            told(wish, &found, form)?;
            return Ok(Some(OK));
        }
        let what = format!("{} {} of `{query}`", wish.word(), counted(found.matched));
        if found.matched > 0 && !self.consent.yes {
            let asked = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
            if asked || found.matched > UNASKED_MAX {
                ask(&what)?;
            } else {
                self.consent.to(target, &what)?;
            }
        }
        told(wish, &bulk.run(false).await?, form)?;
        Ok(Some(OK))
    }
}

/// What becomes of many tasks.
#[derive(Debug, Default)]
struct Acted {
    matched: u64,
    changed: u64,
    skipped: u64,
    dry_run: bool,
}

struct Bulk<'a> {
    target: &'a Target,
    wish: Wish,
    query: &'a str,
    limit: u64,
}

impl Bulk<'_> {
    async fn run(&self, dry_run: bool) -> Result<Acted> {
        let mut acted = Acted { dry_run, ..Acted::default() };
        let mut cursor = Value::Null;
        loop {
            let limit = STEP.min(self.limit - acted.matched);
            let mut body = json!({ "action": self.wish.word(), "q": self.query, "dry_run": dry_run, "limit": limit,
                "cursor": cursor });
            if let Some(told) = self.wish.body() {
                body[self.wish.word()] = told;
            }
            let reply = self.target.post("/api/v1/task-actions", Some(&body)).await?;
            let number = |field: &str| reply[field].as_u64().unwrap_or_default();
            acted.matched += number("matched");
            acted.changed += number("changed");
            acted.skipped += number("skipped");
            cursor = reply["next"].clone();
            if cursor.is_null() || acted.matched >= self.limit {
                return Ok(acted);
            }
        }
    }
}

fn counted(tasks: u64) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

fn told(wish: Wish, acted: &Acted, form: Form) -> Result<()> {
    let Acted { matched, changed, skipped, dry_run } = acted;
    let value = json!({ "action": wish.word(), "matched": matched, "changed": changed, "skipped": skipped,
        "dry_run": dry_run });
    match form {
        Form::Json | Form::Jsonl => output::json(&value),
        _ if *dry_run => output::line(&format!("{} would be {}", counted(*matched), wish.done())),
        _ if matched > changed => {
            output::line(&format!("{} {}, {} had moved meanwhile", counted(*changed), wish.done(), matched - changed))
        }
        _ => output::line(&format!("{} {}", counted(*changed), wish.done())),
    }
}

/// Says what has become of a task.
pub(crate) fn tell(id: &str, state: &str, form: Form) -> Result<()> {
    match form {
        Form::Json | Form::Jsonl => output::json(&json!({ "id": id, "state": state })),
        Form::Name => output::line(id),
        Form::Table | Form::Wide => output::line(&format!("{id} {state}")),
    }
}
