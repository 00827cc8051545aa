//! `lts stats`, `lts failures` and `lts events`: how things stand, and what happens.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};

use crate::api::url_encoded;
use crate::cli::queue;
use crate::cli::target::{Reply, Target, TargetArgs};
use crate::exit::{OK, Result, UNREACHABLE};
use crate::output::{self, Form, FormArgs, Listing};

/// How often a server whose stream broke is asked for it again.
const AGAIN_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked before that is given up.
const AGAIN_MAX: u32 = 30;

/// How tasks are counted, in the order of their lives.
pub(crate) const STATES: [&str; 8] =
    ["held", "waiting", "scheduled", "running", "exporting", "succeeded", "failed", "cancelled"];

/// Shows how many tasks there are in each state, in all and queue by queue.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts stats
  lts stats --json | jq .totals.waiting")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Shows what failed alike: the newest failed tasks, gathered by what went wrong.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts failures
  lts failures queue:video 'created:<1d'")]
pub(crate) struct FailuresArgs {
    /// Only among these, as in `lts task ls`
    #[arg(value_name = "QUERY")]
    query: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Prints what happens, a JSON object a line: {"event": stats|tasks|changed|reset, "data": …}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts events -f
  lts events -f --topics tasks | jq -c .data[]

stats has the numbers of `lts stats`, at most once a second and when they have changed; tasks has the id and state of
tasks that have moved; changed says that something else has; reset that some events were missed.")]
pub(crate) struct EventsArgs {
    /// Go on until it is interrupted; else only the first one is printed
    #[arg(short, long)]
    follow: bool,
    /// Which: stats, tasks
    #[arg(long, value_name = "TOPICS", default_value = "stats,tasks")]
    topics: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `lts stats`.
pub(crate) async fn stats(args: StatsArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let stats = target.get("/api/v1/stats").await?;
    let queues: Vec<Value> = stats["queues"].as_array().cloned().unwrap_or_default();
    let form = args.form.form();
    match form {
        Form::Json | Form::Jsonl => output::one(form, "now", &stats, Vec::new)?,
        Form::Name => queue::listing().print(form, &queues)?,
        Form::Table | Form::Wide => {
            let totals = STATES.map(|state| (state.to_uppercase(), output::text(&stats["totals"][state])));
            let (heading, counts): (Vec<String>, Vec<String>) = totals.into_iter().unzip();
            output::table(&heading.iter().map(String::as_str).collect::<Vec<_>>(), &[counts])?;
            let shown: Vec<Value> = queues.into_iter().filter(queue::is_of_interest).collect();
            if !shown.is_empty() {
                output::line("")?;
                queue::listing().print(form, &shown)?;
            }
        }
    }
    Ok(OK)
}

/// Runs `lts failures`.
pub(crate) async fn failures(args: FailuresArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let failures = target.get(&format!("/api/v1/failures?q={}", url_encoded(&args.query.join(" ")))).await?;
    let groups = failures["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let queues = |group: &Value| {
        let names = group["queues"].as_array().into_iter().flatten().map(output::text);
        names.collect::<Vec<_>>().join(",")
    };
    Listing::new("sample_id")
        .column("COUNT", |group| output::text(&group["count"]))
        .column("KIND", |group| output::text(&group["kind"]))
        .column("QUEUES", queues)
        .wide("FIRST", |group| output::time_text(&group["first_at"]))
        .column("LAST", |group| output::time_text(&group["last_at"]))
        .column("SAMPLE", |group| output::text(&group["sample_id"]))
        .column("MESSAGE", |group| output::shortened(&output::text(&group["message"]), usize::MAX))
        .print(args.form.form(), groups)?;
    Ok(OK)
}

/// Runs `lts events`.
pub(crate) async fn events(args: EventsArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let mut stream = Stream::of(&target, &args.topics);
    loop {
        let event = stream.next().await?;
        output::json(&json!({ "event": event.name, "data": event.data }))?;
        if !args.follow {
            return Ok(OK);
        }
    }
}

/// Something that has happened.
#[derive(Debug, PartialEq)]
pub(crate) struct Happened {
    /// What: stats, tasks, changed, reset.
    pub(crate) name: String,
    /// What of it is known.
    pub(crate) data: Value,
}

/// The events of a target, taken up where they were when a connection breaks.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    target: &'a Target,
    path: String,
    reply: Option<Reply>,
    reader: Reader,
}

impl<'a> Stream<'a> {
    /// Nothing is asked yet.
    pub(crate) fn of(target: &'a Target, topics: &str) -> Self {
        let path = format!("/api/v1/events?topics={}", url_encoded(topics));
        Stream { target, path, reply: None, reader: Reader::default() }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Result<Happened> {
        let mut failed = 0;
        loop {
            if let Some(event) = self.reader.next() {
                return Ok(event);
            }
            match self.more().await {
                Err(problem) if problem.code != UNREACHABLE || failed >= AGAIN_MAX => return Err(problem),
                // The very first request says what is wrong at once.
                Err(problem) if self.reader.seen.is_none() && self.reader.silent => return Err(problem),
                Err(_) => {
                    failed += 1;
                    tokio::time::sleep(AGAIN_INTERVAL).await;
                }
                Ok(()) => {}
            }
        }
    }

    async fn more(&mut self) -> Result<()> {
        let reply = match &mut self.reply {
            Some(reply) => reply,
            none => {
                let seen = self.reader.seen.clone();
                let headers: Vec<(&str, &str)> = seen.iter().map(|seen| ("last-event-id", seen.as_str())).collect();
                none.insert(self.target.call(Method::GET, &self.path, None, &headers).await?)
            }
        };
        match reply.chunk().await {
            Ok(Some(chunk)) => self.reader.take(&chunk),
            ended => {
                self.reply = None;
                self.reader.broken();
                ended?;
                tokio::time::sleep(AGAIN_INTERVAL).await;
            }
        }
        Ok(())
    }
}

/// Reads server-sent events out of what comes.
#[derive(Debug)]
struct Reader {
    buffer: Vec<u8>,
    /// The id of the last event.
    seen: Option<String>,
    /// Nothing has come yet.
    silent: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { buffer: Vec::new(), seen: None, silent: true }
    }
}

impl Reader {
    fn take(&mut self, chunk: &[u8]) {
        self.silent = false;
        self.buffer.extend_from_slice(chunk);
    }

    /// What came of an event that will not be finished is nothing.
    fn broken(&mut self) {
        self.buffer.clear();
    }

    fn next(&mut self) -> Option<Happened> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            // Lines that begin with a colon only say that the server lives.
            let fields = block.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| !name.is_empty());
            let fields: BTreeMap<&str, &str> =
                fields.map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value))).collect();
            if let Some(id) = fields.get("id") {
                self.seen = Some((*id).to_owned());
            }
            let Some(name) = fields.get("event") else { continue };
            let data = fields.get("data").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
            return Some(Happened { name: (*name).to_owned(), data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = b": hello\n\nid: e-1\nevent: tasks\ndata: [1]\n\nevent: reset\ndata: {}\n\n";
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                reader.take(chunk);
                found.extend(std::iter::from_fn(|| reader.next()));
            }
            let names: Vec<&str> = found.iter().map(|event| event.name.as_str()).collect();
            assert_eq!((names, reader.seen.as_deref()), (vec!["tasks", "reset"], Some("e-1")));
            assert_eq!(found[0].data, json!([1]));
        }
    }
}
