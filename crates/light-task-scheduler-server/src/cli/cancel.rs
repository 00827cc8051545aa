//! `lts cancel`: stops tasks, and waits until they are.

use std::time::Duration;

use clap::Args;
use light_task_scheduler::{Command, Config, Name, Scheduler, Shutdown, State, Store, StoreExt, Task, TaskId};

use crate::cli::select::{StoreArgs, find_all};
use crate::duration::parse_duration;
use crate::exit::{CONFLICT, OK, Problem, Result, TIMED_OUT};
use crate::open::Opened;
use crate::output;

/// How often a task that is being stopped is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked whether anybody is there to stop it.
const OWNER_INTERVAL: Duration = Duration::from_millis(500);
/// A queue that nobody has: whoever serves it takes up what was left running, and nothing else.
const NO_QUEUE: &str = "lts-cancel-serves-none";

/// Cancels tasks: at once where they wait; where they run, the command is stopped first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts cancel 3f2a9c
  lts cancel 3f2a9c 77b1 --timeout 1m")]
pub(crate) struct CancelArgs {
    /// Their ids, or the beginnings of them
    #[arg(required = true)]
    ids: Vec<String>,
    /// How long to wait for running commands to stop
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
    /// Print a JSON object per task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: CancelArgs) -> Result<u8> {
    let opened = args.store.open().await?;
    let mut code = OK;
    let mut stopping = Vec::new();
    for task in find_all(&*opened.store, &args.ids).await? {
        match opened.store.order(&task.id, Command::Cancel).await {
            Ok(Some(State::Running)) => stopping.push(task.id),
            Ok(_) => tell(&task.id, "cancelled", args.json)?,
            Err(error) => {
                let problem = Problem::from(error);
                output::note(&format!("lts: {problem}"));
                code = problem.code;
            }
        }
    }
    if stopping.is_empty() {
        return Ok(code);
    }
    let mut helper = None;
    let waited = tokio::time::timeout(args.timeout, wait(&opened, &stopping, args.json, &mut helper)).await;
    if let Some(helper) = helper {
        helper.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await?;
    }
    match waited {
        Ok(all) => all.map(|all| if all { code } else { CONFLICT }),
        Err(_) => Err(Problem::new(
            TIMED_OUT,
            format!("the cancellation is stored, but not every command has stopped within {:?}", args.timeout),
        )),
    }
}

/// Waits until they have ended; whether all were cancelled.
async fn wait(opened: &Opened, ids: &[TaskId], json: bool, helper: &mut Option<Scheduler>) -> Result<bool> {
    let mut all = true;
    let mut next_owner_look = tokio::time::Instant::now();
    for id in ids {
        loop {
            let task = opened.store.task(id).await?;
            if task.record.state.is_terminal() {
                all &= task.record.state == State::Cancelled;
                tell(id, task.record.state.as_str(), json)?;
                break;
            }
            if helper.is_none() && tokio::time::Instant::now() >= next_owner_look {
                if is_abandoned(&*opened.store, &task).await? {
                    *helper = Some(take_up(opened).await?);
                }
                next_owner_look = tokio::time::Instant::now() + OWNER_INTERVAL;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(all)
}

/// Whether nobody is there who could stop this task's run.
async fn is_abandoned(store: &dyn Store, task: &Task) -> Result<bool> {
    let replicas = store.replicas().await?;
    let owner = replicas.iter().find(|replica| Some(replica.id) == task.record.owner);
    Ok(owner.is_none_or(|owner| owner.dead || owner.proven_dead))
}

/// A scheduler that starts nothing, but takes up what others have left running.
async fn take_up(opened: &Opened) -> Result<Scheduler> {
    let config = Config {
        queues: vec![Name::new(NO_QUEUE)?],
        replica_name: format!("lts cancel, pid {}", std::process::id()),
        ..Config::default()
    };
    opened.scheduler(config).await
}

/// Says what has become of a task.
pub(crate) fn tell(id: &TaskId, state: &str, json: bool) -> Result<()> {
    if json {
        output::json(&serde_json::json!({ "id": id, "state": state }))
    } else {
        output::line(&format!("{id} {state}"))
    }
}
