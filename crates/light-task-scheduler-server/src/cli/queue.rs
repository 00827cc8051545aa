//! `lts queue`: limits, rates and pauses.

use clap::{Args, Subcommand};
use light_task_scheduler::{Name, QueueSettings, RateLimit};
use serde_json::Value;

use crate::api::Settings;
use crate::batch::parse_name;
use crate::cli::act::Consent;
use crate::cli::target::{Target, TargetArgs, queue_path};
use crate::cli::watch::STATES;
use crate::duration::parse_rate;
use crate::exit::{ERROR, NOT_FOUND, OK, Problem, Result};
use crate::output::{self, Form, FormArgs, Listing};

/// Shows and changes queues.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts queue ls
  lts queue pause video
  lts queue set video --concurrency 2 --rate 10/m")]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Lists queues, what they hold, and their limits
    #[command(after_help = "Example:\n  lts queue ls --json")]
    Ls {
        /// Also those that hold nothing unfinished and are not paused
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        form: FormArgs,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Shows a queue
    #[command(after_help = "Example:\n  lts queue get video")]
    Get(One),
    /// Starts nothing more of a queue; what runs goes on
    #[command(after_help = "Example:\n  lts queue pause video")]
    Pause(One),
    /// Lets a paused queue go on
    #[command(after_help = "Example:\n  lts queue resume video")]
    Resume(One),
    /// Sets the limits of a queue, over all processes
    #[command(after_help = "Example:\n  lts queue set video --concurrency 2 --no-rate")]
    Set {
        #[command(flatten)]
        one: One,
        /// Commands at once
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        concurrency: Option<u32>,
        /// No limit of commands at once
        #[arg(long, conflicts_with = "concurrency")]
        no_concurrency: bool,
        /// Starts per time, for example 10/s
        #[arg(long, value_parser = parse_rate)]
        rate: Option<RateLimit>,
        /// No limit of starts per time
        #[arg(long, conflicts_with = "rate")]
        no_rate: bool,
    },
    /// Removes the tasks of a queue that have not begun
    #[command(after_help = "Example:\n  lts queue purge video --yes")]
    Purge(One),
}

#[derive(Debug, Args)]
struct One {
    /// The queue
    #[arg(value_parser = parse_name)]
    queue: Name,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs it.
pub(crate) async fn run(args: QueueArgs) -> Result<u8> {
    match args.ask {
        Ask::Ls { all, form, target } => list(all, form.form(), &target.open().await?).await,
        Ask::Get(one) => {
            let target = one.target.open().await?;
            let queue = target.get(&queue_path(one.queue.as_str(), "")).await?;
            output::one(one.form.form(), "name", &queue, || lines(&queue))?;
            Ok(OK)
        }
        Ask::Pause(one) => one.post("pause").await,
        Ask::Resume(one) => one.post("resume").await,
        Ask::Set { one, concurrency, no_concurrency, rate, no_rate } => {
            if concurrency.is_none() && rate.is_none() && !no_concurrency && !no_rate {
                return Err(Problem::usage(
                    "nothing to set; give --concurrency, --rate, --no-concurrency or --no-rate",
                ));
            }
            one.set(|settings| {
                settings.concurrency = if no_concurrency { None } else { concurrency.or(settings.concurrency) };
                settings.rate = if no_rate { None } else { rate.or(settings.rate) };
            })
            .await
        }
        Ask::Purge(one) => one.purge().await,
    }
}

impl One {
    async fn open(&self, what: &str) -> Result<Target> {
        let target = self.target.open().await?;
        self.consent.to(&target, &format!("{what} the queue {}", self.queue))?;
        Ok(target)
    }

    async fn post(&self, what: &str) -> Result<u8> {
        let target = self.open(what).await?;
        let queue = target.post(&queue_path(self.queue.as_str(), &format!("/{what}")), None).await?;
        self.told(&queue)
    }

    async fn set(&self, edit: impl FnOnce(&mut QueueSettings)) -> Result<u8> {
        let target = self.open("change").await?;
        let path = queue_path(self.queue.as_str(), "");
        let mut settings = match target.get(&path).await {
            Ok(queue) => settings(&queue)?,
            Err(problem) if problem.code == NOT_FOUND => QueueSettings::default(),
            Err(problem) => return Err(problem),
        };
        edit(&mut settings);
        let body = serde_json::to_value(Settings::from(settings)).unwrap_or_default();
        self.told(&target.put(&path, &body).await?)
    }

    fn told(&self, queue: &Value) -> Result<u8> {
        match self.form.form() {
            Form::Table | Form::Wide => {
                output::line(&format!("{}: {}", self.queue, in_words(&settings(queue)?)))?;
            }
            form => output::one(form, "name", queue, Vec::new)?,
        }
        Ok(OK)
    }

    async fn purge(&self) -> Result<u8> {
        let target = self.open("purge").await?;
        let mut deleted = 0;
        loop {
            let purged = target.post(&queue_path(self.queue.as_str(), "/purge"), None).await?;
            deleted += purged["deleted"].as_u64().unwrap_or_default();
            if purged["more"] != true {
                break;
            }
        }
        match self.form.form() {
            Form::Json | Form::Jsonl => output::json(&serde_json::json!({ "name": self.queue, "deleted": deleted }))?,
            Form::Name => output::line(self.queue.as_str())?,
            Form::Table | Form::Wide => output::line(&format!("{}: {deleted} removed", self.queue))?,
        }
        Ok(OK)
    }
}

fn settings(queue: &Value) -> Result<QueueSettings> {
    serde_json::from_value::<Settings>(queue["settings"].clone())
        .map(QueueSettings::from)
        .map_err(|error| Problem::new(ERROR, format!("the settings of the queue are not understood: {error}")))
}

/// The limits of a queue, for people.
pub(crate) fn limits(queue: &Value) -> String {
    settings(queue).map_or_else(|problem| problem.message, |settings| in_words(&settings))
}

fn in_words(settings: &QueueSettings) -> String {
    let concurrency = settings.concurrency.map_or("any number at once".to_owned(), |n| format!("{n} at once"));
    let rate = settings.rate.map_or(String::new(), |rate| format!(", {} per {:?}", rate.count, rate.period));
    let paused = if settings.paused { ", paused" } else { "" };
    format!("{concurrency}{rate}{paused}")
}

fn lines(queue: &Value) -> Vec<(String, String)> {
    let mut lines = vec![("name".to_owned(), output::text(&queue["name"])), ("limits".to_owned(), limits(queue))];
    lines.extend(STATES.map(|state| (state.to_owned(), output::text(&queue["counts"][state]))));
    lines
}

/// How queues are listed.
pub(crate) fn listing() -> Listing {
    Listing::new("name")
        .column("QUEUE", |queue| output::text(&queue["name"]))
        .wide("HELD", |queue| output::text(&queue["counts"]["held"]))
        .column("WAITING", |queue| output::text(&queue["counts"]["waiting"]))
        .wide("SCHEDULED", |queue| output::text(&queue["counts"]["scheduled"]))
        .column("RUNNING", |queue| output::text(&queue["counts"]["running"]))
        .wide("EXPORTING", |queue| output::text(&queue["counts"]["exporting"]))
        .column("SUCCEEDED", |queue| output::text(&queue["counts"]["succeeded"]))
        .column("FAILED", |queue| output::text(&queue["counts"]["failed"]))
        .wide("CANCELLED", |queue| output::text(&queue["counts"]["cancelled"]))
        .column("LIMITS", limits)
}

/// Whether a queue has something to be done, or waits for somebody. Every batch and every run has had a queue of its
/// own: those that are over are noise.
pub(crate) fn is_of_interest(queue: &Value) -> bool {
    let over = ["succeeded", "failed", "cancelled"];
    let unfinished: u64 =
        STATES.iter().filter(|state| !over.contains(state)).filter_map(|state| queue["counts"][state].as_u64()).sum();
    unfinished > 0 || queue["settings"]["paused"] == true
}

async fn list(all: bool, form: Form, target: &Target) -> Result<u8> {
    let queues = target.get("/api/v1/queues").await?;
    let queues = queues.as_array().into_iter().flatten();
    let queues: Vec<Value> = queues.filter(|queue| all || is_of_interest(queue)).cloned().collect();
    listing().print(form, &queues)?;
    Ok(OK)
}
