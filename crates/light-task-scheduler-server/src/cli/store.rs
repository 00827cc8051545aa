//! `lts store`: what a store is, and whether it is in order.

use clap::{Args, Subcommand};
use light_task_scheduler::inspection::Schema;
use light_task_scheduler::store::{QueueCounts, ReplicaStatus};
use light_task_scheduler::{Inspection, State};
use serde_json::{Map, Value, json};

use crate::cli::select::StoreArgs;
use crate::exit::{CONFLICT, ERROR, OK, Problem, Result};
use crate::output;
use crate::store_url::StoreUrl;

/// Shows what a store is, migrates and checks it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts store status
  lts store migrate --dry-run --store postgres://me@host/work
  lts store check --json

Whoever opens a store brings its schema up to date, unless its URL says migrate=false: then only
`lts store migrate` does. For a file that is sqlite:PATH?migrate=false.")]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Shows engine, versions, durability, size, replicas, and what is in it
    #[command(after_help = "Examples:
  lts store status
  lts store status --json | jq .current

Exit codes: 0 it can be used as it is, 3 there is none, 4 its schema is older or newer, 6 not reachable.")]
    Status(Asked),
    /// Brings its schema up to date
    #[command(after_help = "Examples:
  lts store migrate --dry-run
  lts store migrate --store postgres://me@host/work

Nobody need stop for it: it waits until it is alone with the schema, and a program of an older release that
still runs then says that the store is newer. Make a backup first.")]
    Migrate {
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        asked: Asked,
    },
    /// Looks for contradictions in it, and changes nothing
    #[command(after_help = "Examples:
  lts store check
  lts store check --json | jq -r .problems[]

It reads everything, which may take a while, and may be used while others work.
Exit codes: 0 there are none, 1 there are some, 4 its schema is older or newer.")]
    Check(Asked),
}

#[derive(Debug, Args)]
struct Asked {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: StoreCommand) -> Result<u8> {
    match args.ask {
        Ask::Status(asked) => status(&asked).await,
        Ask::Migrate { dry_run, asked } => migrate(dry_run, &asked).await,
        Ask::Check(asked) => check(&asked).await,
    }
}

/// What is in a store that can be used as it is.
struct Content {
    counts: Vec<QueueCounts>,
    replicas: Vec<ReplicaStatus>,
}

async fn status(asked: &Asked) -> Result<u8> {
    let url = asked.store.url();
    let inspection = url.inspect().await?;
    let content = if inspection.is_current() {
        let opened = url.clone().with_migration(false).open_existing().await?;
        Some(Content { counts: opened.store.counts().await?, replicas: opened.store.replicas().await? })
    } else {
        None
    };
    if asked.json {
        output::json(&as_json(url, &inspection, content.as_ref()))?;
    } else {
        print(url, &inspection, content.as_ref())?;
    }
    Ok(if inspection.is_current() { OK } else { CONFLICT })
}

fn as_json(url: &StoreUrl, inspection: &Inspection, content: Option<&Content>) -> Value {
    let by_state = |counts: &QueueCounts| -> Map<String, Value> {
        State::ALL.into_iter().map(|state| (state.to_string(), counts.of(state).into())).collect()
    };
    let queue = |counts: &QueueCounts| json!({ "queue": counts.queue, "counts": by_state(counts), "scheduled": counts.scheduled });
    let replica = |replica: &ReplicaStatus| {
        json!({ "id": replica.id, "name": replica.name, "alive": is_alive(replica), "owned": replica.owned,
            "expires_at": replica.expires_at })
    };
    json!({
        "store": url.to_string(),
        "engine": inspection.engine,
        "version": inspection.version,
        "durability": inspection.durability,
        "schemas": inspection.schemas,
        "current": inspection.is_current(),
        "bytes": inspection.bytes,
        "replicas": content.map(|content| content.replicas.iter().map(replica).collect::<Vec<_>>()),
        "queues": content.map(|content| content.counts.iter().map(queue).collect::<Vec<_>>()),
    })
}

fn is_alive(replica: &ReplicaStatus) -> bool {
    !(replica.dead || replica.proven_dead || replica.expired)
}

fn print(url: &StoreUrl, inspection: &Inspection, content: Option<&Content>) -> Result<()> {
    let schemas: Vec<String> = inspection.schemas.iter().map(in_words).collect();
    let mut lines = vec![
        format!("store       {url}"),
        format!("engine      {} {}", inspection.engine, inspection.version),
        format!("schema      {}", schemas.join(", ")),
        format!("durability  {}", inspection.durability),
    ];
    lines.extend(inspection.bytes.map(|bytes| format!("size        {}", size_in_words(bytes))));
    let Some(Content { counts, replicas }) = content else {
        output::line(&lines.join("\n"))?;
        output::note("lts: this program cannot use it as it is; see `lts store migrate --help`");
        return Ok(());
    };
    let alive = replicas.iter().filter(|replica| is_alive(replica)).count();
    lines.push(format!("replicas    {alive} alive, {} dead with tasks", replicas.len() - alive));
    output::line(&lines.join("\n"))?;
    let heading: Vec<String> = State::ALL.into_iter().map(|state| state.to_string().to_uppercase()).collect();
    let heading: Vec<&str> = ["QUEUE"].into_iter().chain(heading.iter().map(String::as_str)).collect();
    let row = |counts: &QueueCounts| -> Vec<String> {
        [counts.queue.to_string()].into_iter().chain(State::ALL.map(|state| counts.of(state).to_string())).collect()
    };
    output::line("")?;
    output::table(&heading, &counts.iter().map(row).collect::<Vec<_>>())
}

fn in_words(schema: &Schema) -> String {
    let Schema { component, found, needed } = schema;
    match found {
        found if found == needed => format!("{component} {found}"),
        0 => format!("{component} not made yet (version {needed} is needed)"),
        found => format!("{component} {found} (version {needed} is needed)"),
    }
}

fn size_in_words(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(bits, _)| bytes >> bits > 0) {
        Some((bits, unit)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << bits)),
        None => format!("{bytes} bytes"),
    }
}

async fn migrate(dry_run: bool, asked: &Asked) -> Result<u8> {
    let url = asked.store.url();
    let before = url.inspect().await?;
    if let Some(newer) = before.schemas.iter().find(|schema| schema.found > schema.needed) {
        let message = format!("{url} is of a newer release: {}; use that one", in_words(newer));
        return Err(Problem::new(CONFLICT, message));
    }
    if !dry_run && !before.is_current() {
        // Opening it does it, whatever its URL says for everybody else.
        drop(url.clone().with_migration(true).open_existing().await?);
        let after = url.inspect().await?;
        if let Some(schema) = after.schemas.iter().find(|schema| schema.found != schema.needed) {
            return Err(Problem::new(ERROR, format!("{url} was not migrated: {}", in_words(schema))));
        }
    }
    let outdated = before.schemas.iter().filter(|schema| schema.found != schema.needed);
    if asked.json {
        let steps: Vec<Value> = outdated
            .map(|schema| json!({ "component": schema.component, "from": schema.found, "to": schema.needed }))
            .collect();
        output::json(&json!({ "store": url.to_string(), "dry_run": dry_run, "steps": steps }))?;
        return Ok(OK);
    }
    if before.is_current() {
        output::line(&format!("{url} is up to date"))?;
    }
    for schema in outdated {
        let Schema { component, found, needed } = schema;
        let would = if dry_run { "would go" } else { "went" };
        output::line(&format!("{component}: {would} from version {found} to {needed}"))?;
    }
    Ok(OK)
}

async fn check(asked: &Asked) -> Result<u8> {
    let url = asked.store.url().clone().with_migration(false);
    let problems = url.verify().await?;
    if asked.json {
        let consistent = problems.is_empty();
        output::json(&json!({ "store": url.to_string(), "consistent": consistent, "problems": problems }))?;
    } else if problems.is_empty() {
        output::line(&format!("{url} is consistent"))?;
    } else {
        output::line(&problems.join("\n"))?;
        output::note(&format!("lts: {url} contradicts itself in {} places; restore a backup, or ask", problems.len()));
    }
    Ok(if problems.is_empty() { OK } else { ERROR })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1_023, 1_024, 1_536, 5 << 20, 3 << 30].map(size_in_words);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
