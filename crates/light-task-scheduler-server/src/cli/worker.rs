//! `lts worker`: runs the tasks of a server on this host.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use light_task_scheduler::store::ReplicaStatus;
use light_task_scheduler::{Config, Name, RemoteStore, Scheduler, Shutdown, Store};

use crate::api::state_of;
use crate::batch::parse_name;
use crate::cli::act::Consent;
use crate::cli::select::StoreArgs;
use crate::cli::target::{Target, TargetArgs};
use crate::command::{DOCKER_KIND, HTTP_KIND};
use crate::duration::parse_duration;
use crate::exit::{CONFLICT, NOT_FOUND, OK, Problem, Result};
use crate::interrupt::Interrupts;
use crate::open::{Executors, Opened, open_remote};
use crate::output::{self, Form, FormArgs};

/// How long an engine for containers may take to answer whether it is there.
const ENGINE_WITHIN: Duration = Duration::from_secs(5);

/// Runs tasks of a server on this host, and shows who runs tasks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts worker run --server http://tasks.example.org:7600 --queues gpu
  lts worker ls --server http://tasks.example.org:7600
  lts worker drain 0198c5 --server http://tasks.example.org:7600")]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Takes tasks of a server and runs them on this host
    #[command(after_help = "\
Ctrl-C takes nothing more and lets what runs come to its end, within --grace; what is left is stopped and given back. \
So does `lts worker drain`. Ctrl-C twice: at once. Workers of one server on one host name it by the same URL: then \
each can take over what another has left running.

Example:
  LTS_TOKEN=lts_… lts worker run --server https://tasks.example.org --queues gpu --kinds docker --concurrency 2")]
    Run(RunArgs),
    /// Lists who runs tasks, and the dead whose tasks are being taken over
    #[command(
        after_help = "Examples:\n  lts worker ls --server http://127.0.0.1:7600\n  lts worker ls --store ./lts.db"
    )]
    Ls(LsArgs),
    /// Has a worker take nothing more, and end once what it runs has ended, within its grace
    #[command(after_help = "\
It ends with the exit code 0, as after Ctrl-C; what outlasts its grace is given back, and runs elsewhere. Of a server that \
runs tasks itself only that ends: it goes on answering, and runs tasks again when it is started again.

Example:
  lts worker drain 0198c5 --server http://127.0.0.1:7600")]
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The server, such as http://host:7600
    #[arg(long, env = "LTS_SERVER", value_name = "URL")]
    server: String,
    /// A token of the role worker, if the server asks for one
    #[arg(long, env = "LTS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Only tasks of these queues [default: all that the token is for]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = parse_name)]
    queues: Vec<Name>,
    /// Only tasks of these kinds: process, docker, http [default: process, and docker where an engine answers]; with
    /// http the server's tasks call services from this host
    #[arg(long, value_name = "KINDS", value_delimiter = ',', hide_possible_values = true)]
    kinds: Vec<Kind>,
    /// How many tasks run at once [default: the number of cores]
    #[arg(short = 'j', long, value_name = "N")]
    concurrency: Option<usize>,
    /// How long this worker may be silent before others take over what it runs; at least 1s [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    lease: Option<Duration>,
    /// How long what runs may go on once this is to end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    grace: Duration,
    /// How it is called for people [default: host and process]
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// The server, such as http://host:7600
    #[arg(long, env = "LTS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// A token of the role worker, if the server asks for one
    #[arg(long, env = "LTS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print a JSON object per worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// Its id, or the beginning of it
    worker: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Process,
    Docker,
    Http,
}

/// Runs it.
pub(crate) async fn run(args: WorkerArgs) -> Result<u8> {
    match args.ask {
        Ask::Run(args) => work(args).await,
        Ask::Ls(args) => list(args).await,
        Ask::Drain(args) => drain(args).await,
    }
}

async fn work(args: RunArgs) -> Result<u8> {
    let (opened, store) = open_remote(&args.server, args.token.as_deref()).await?;
    check_queues(&store, &args.queues)?;
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let name = args.name.unwrap_or_else(|| format!("{}, pid {}", host_name(), std::process::id()));
    let mut config = Config {
        concurrency: args.concurrency.unwrap_or(cores),
        queues: args.queues,
        replica_name: name,
        drain: Shutdown { grace: args.grace, hand_over: false },
        ..Config::default()
    };
    let drain = config.drain;
    config.ttl = args.lease.unwrap_or(config.ttl);
    let mut interrupts = Interrupts::listen()?;
    let scheduler = start(&opened, &store, &args.kinds, config).await?;
    output::note(&format!("takes tasks of {}; Ctrl-C lets what runs end, a second one stops it", args.server));
    tokio::select! {
        () = interrupts.next() => {}
        () = scheduler.draining() => output::note("an operator has this worker drain"),
    }
    output::note("takes nothing more, and waits for what runs");
    let ending = scheduler.shutdown(drain);
    tokio::pin!(ending);
    tokio::select! {
        ended = &mut ending => ended?,
        () = interrupts.next() => {
            let at_once = scheduler.shutdown(Shutdown { grace: Duration::ZERO, ..drain });
            let (first, second) = tokio::join!(ending, at_once);
            first.and(second)?;
        }
    }
    Ok(OK)
}

/// Refuses at once what the server would refuse again and again.
fn check_queues(store: &RemoteStore, queues: &[Name]) -> Result<()> {
    let Some(allowed) = store.queues() else { return Ok(()) };
    match queues.iter().find(|queue| !allowed.contains(queue)) {
        None => Ok(()),
        Some(queue) => {
            let allowed: Vec<&str> = allowed.iter().map(Name::as_str).collect();
            let allowed = allowed.join(", ");
            Err(Problem::usage(format!("this token is not for the queue {queue}; it is for {allowed}")))
        }
    }
}

async fn start(opened: &Opened, store: &RemoteStore, kinds: &[Kind], config: Config) -> Result<Scheduler> {
    let asked = |kind| kinds.contains(&kind);
    // With a token for some queues, what belongs to tasks of the others seems to be nobody's.
    let whole = store.queues().is_none();
    let mut builder = Scheduler::builder(opened.store.clone());
    if asked(Kind::Process) || kinds.is_empty() {
        builder = opened.commands(builder, None, whole.then_some(&config.namespace))?;
    }
    // Whoever may submit tasks at the server would reach what this host reaches: only where that is wished.
    if asked(Kind::Http) {
        builder = builder.executor(HTTP_KIND, Arc::new(Executors::trusting(None).await?.http));
    }
    if asked(Kind::Docker) || kinds.is_empty() {
        let docker = match opened.containers() {
            Ok(docker) => match tokio::time::timeout(ENGINE_WITHIN, docker.reach()).await {
                Ok(reached) => reached.map(|()| docker).map_err(Problem::from),
                Err(_) => Err(Problem::usage(format!("no engine for containers answers within {ENGINE_WITHIN:?}"))),
            },
            Err(problem) => Err(problem),
        };
        builder = match docker {
            Ok(docker) if !whole => builder.executor(DOCKER_KIND, Arc::new(docker)),
            Ok(docker) => opened.reaped(builder, docker, &config.namespace),
            Err(problem) if asked(Kind::Docker) => return Err(problem),
            Err(_) => builder,
        };
    }
    Ok(builder.config(config).start().await?)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}

async fn list(args: LsArgs) -> Result<u8> {
    let workers = match &args.server {
        Some(server) => RemoteStore::open(server, args.token.as_deref()).await?.replicas().await?,
        None => args.store.url().open_existing().await?.store.replicas().await?,
    };
    if args.json {
        workers.iter().try_for_each(output::json)?;
    } else {
        let rows: Vec<Vec<String>> = workers.iter().map(row).collect();
        output::table(&["ID", "STATE", "RUNNING", "LEASE ENDS", "NAME"], &rows)?;
    }
    Ok(OK)
}

async fn drain(args: DrainArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let id = find(&target, &args.worker).await?;
    args.consent.to(&target, &format!("drain the worker {id}"))?;
    let worker = target.post(&format!("/api/v1/workers/{id}/drain"), None).await?;
    match args.form.form() {
        Form::Table | Form::Wide => output::line(&format!("{id}: draining, {} running", worker["running"]))?,
        form => output::one(form, "id", &worker, Vec::new)?,
    }
    Ok(OK)
}

/// The id of the only worker that lives and whose id begins so.
async fn find(target: &Target, text: &str) -> Result<String> {
    let workers = target.get("/api/v1/workers").await?;
    let alive = workers.as_array().into_iter().flatten().filter(|worker| worker["state"] != "dead");
    let ids: Vec<&str> = alive.filter_map(|worker| worker["id"].as_str()).filter(|id| id.starts_with(text)).collect();
    match ids.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Problem::new(NOT_FOUND, format!("there is no worker {text}; see `lts worker ls`"))),
        several => {
            let message = format!("several workers begin with {text}: {}", several.join(", "));
            Err(Problem::new(CONFLICT, message))
        }
    }
}

fn row(worker: &ReplicaStatus) -> Vec<String> {
    let lease_ends = output::time(Some(worker.expires_at));
    let state = state_of(worker);
    let state = if worker.draining && state == "alive" { "draining" } else { state };
    vec![worker.id.to_string(), state.to_owned(), worker.owned.to_string(), lease_ends, worker.name.clone()]
}
