//! `lts queue`: limits, rates and pauses.

use clap::{Args, Subcommand};
use light_task_scheduler::{Name, QueueSettings, RateLimit, State, StoreExt};

use crate::batch::parse_name;
use crate::cli::select::StoreArgs;
use crate::duration::parse_rate;
use crate::exit::{OK, Problem, Result};
use crate::output;

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
        /// Also those that hold nothing unfinished and have no limits
        #[arg(long)]
        all: bool,
        /// Print a JSON object per queue
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
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
}

#[derive(Debug, Args)]
struct One {
    /// The queue
    #[arg(value_parser = parse_name)]
    queue: Name,
    /// Print its settings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: QueueArgs) -> Result<u8> {
    match args.ask {
        Ask::Ls { all, json, store } => list(all, json, &store).await,
        Ask::Pause(one) => change(&one, |settings| settings.paused = true).await,
        Ask::Resume(one) => change(&one, |settings| settings.paused = false).await,
        Ask::Set { one, concurrency, no_concurrency, rate, no_rate } => {
            if concurrency.is_none() && rate.is_none() && !no_concurrency && !no_rate {
                return Err(Problem::usage(
                    "nothing to set; give --concurrency, --rate, --no-concurrency or --no-rate",
                ));
            }
            change(&one, |settings| {
                settings.concurrency = if no_concurrency { None } else { concurrency.or(settings.concurrency) };
                settings.rate = if no_rate { None } else { rate.or(settings.rate) };
            })
            .await
        }
    }
}

async fn change(one: &One, edit: impl FnOnce(&mut QueueSettings)) -> Result<u8> {
    let opened = one.store.open().await?;
    let mut settings = opened.store.queue(&one.queue).await?;
    edit(&mut settings);
    opened.store.set_queue(one.queue.clone(), settings).await?;
    if one.json {
        output::json(&serde_json::json!({ "queue": one.queue, "settings": settings }))?;
    } else {
        output::line(&format!("{}: {}", one.queue, in_words(&settings)))?;
    }
    Ok(OK)
}

fn in_words(settings: &QueueSettings) -> String {
    let concurrency = settings.concurrency.map_or("any number at once".to_owned(), |n| format!("{n} at once"));
    let rate = settings.rate.map_or(String::new(), |rate| format!(", {} per {:?}", rate.count, rate.period));
    let paused = if settings.paused { ", paused" } else { "" };
    format!("{concurrency}{rate}{paused}")
}

async fn list(all: bool, json: bool, store: &StoreArgs) -> Result<u8> {
    let opened = store.open().await?;
    let counts = opened.store.counts().await?;
    let mut rows = Vec::new();
    for (queue, settings) in opened.store.queues().await? {
        let count = counts.iter().find(|count| count.queue == queue);
        let of = |state: State| count.map_or(0, |count| count.of(state));
        let unfinished: u64 = State::ALL.into_iter().filter(|state| !state.is_terminal()).map(of).sum();
        // Every batch and every run has had a queue of its own: those that are over are noise.
        if !all && unfinished == 0 && !settings.paused {
            continue;
        }
        if json {
            let by_state: serde_json::Map<_, _> =
                State::ALL.into_iter().map(|state| (state.to_string(), of(state).into())).collect();
            output::json(&serde_json::json!({ "queue": queue, "settings": settings, "counts": by_state }))?;
        }
        let numbers =
            [State::Waiting, State::Running, State::Succeeded, State::Failed].map(|state| of(state).to_string());
        rows.push([vec![queue.to_string()], numbers.to_vec(), vec![in_words(&settings)]].concat());
    }
    if !json {
        output::table(&["QUEUE", "WAITING", "RUNNING", "SUCCEEDED", "FAILED", "LIMITS"], &rows)?;
    }
    Ok(OK)
}
