//! `lts task cancel`: stops tasks, and waits until they are; and `lts task wait`.

use std::time::Duration;

use clap::Args;
use light_task_scheduler::{Config, Name, Scheduler, Shutdown};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::act::{Selection, Wish, tell};
use crate::cli::target::{Target, TargetArgs, task_path};
use crate::duration::parse_duration;
use crate::exit::{self, CONFLICT, OK, Problem, Result, TIMED_OUT, UNREACHABLE};
use crate::open::Opened;
use crate::output::{Form, FormArgs};

/// How long a server is asked to wait with its answer; a look at a store takes as long as it is looked after owners.
const SERVER_WAIT: &str = "20s";
const STORE_WAIT: &str = "500ms";
/// How long a server that is not there is waited for: it may be starting again.
const ABSENCE_MAX: Duration = Duration::from_secs(30);
/// How often such a server is asked.
const ABSENCE_INTERVAL: Duration = Duration::from_millis(500);
/// A queue that nobody has: whoever serves it takes up what was left running, and nothing else.
const NO_QUEUE: &str = "lts-cancel-serves-none";

/// Cancels tasks: at once where they wait; where they run, the command is stopped first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task cancel 3f2a9c
  lts task cancel 3f2a9c 77b1 --timeout 1m
  lts task cancel --where 'queue:video state:waiting' --dry-run")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    selection: Selection,
    /// How long to wait for running commands to stop
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "30s")]
    timeout: Duration,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Waits until tasks have ended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts task wait 3f2a9c
  lts task wait 3f2a9c 77b1 --timeout 10m && echo both succeeded

Exit codes: 0 all succeeded, 10 one has failed, 11 one was cancelled, 7 not all have ended in time.")]
pub(crate) struct WaitArgs {
    /// Their ids, or the beginnings of them
    #[arg(required = true)]
    ids: Vec<String>,
    /// How long to wait [default: for ever]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `lts task cancel`.
pub(crate) async fn run(args: CancelArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let form = args.form.form();
    if let Some(code) = args.selection.by_query(&target, Wish::Cancel, form).await? {
        return Ok(code);
    }
    let (moved, code) = args.selection.by_ids(&target, Wish::Cancel).await?;
    let (stopping, stopped): (Vec<_>, Vec<_>) = moved.into_iter().partition(|(_, state)| state == "running");
    stopped.iter().try_for_each(|(id, state)| tell(id, state, form))?;
    if stopping.is_empty() {
        return Ok(code);
    }
    let mut helper = None;
    let waited = tokio::time::timeout(args.timeout, stopped_all(&target, &stopping, form, &mut helper)).await;
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
async fn stopped_all(
    target: &Target,
    tasks: &[(String, String)],
    form: Form,
    helper: &mut Option<Scheduler>,
) -> Result<bool> {
    let mut all = true;
    for (id, _) in tasks {
        let task = loop {
            let task = look(target, id).await?;
            if has_ended(&task) {
                break task;
            }
            if let (None, Some(opened)) = (&helper, target.opened())
                && is_abandoned(opened, &task).await?
            {
                *helper = Some(take_up(opened).await?);
            }
        };
        let state = task["state"].as_str().unwrap_or_default();
        all &= state == "cancelled";
        tell(id, state, form)?;
    }
    Ok(all)
}

/// How a task stands, once it has ended or a while has passed.
async fn look(target: &Target, id: &str) -> Result<Value> {
    let wait = if target.opened().is_some() { STORE_WAIT } else { SERVER_WAIT };
    let path = task_path(id, &format!("?wait={wait}"));
    let mut absent_since: Option<Instant> = None;
    loop {
        match target.get(&path).await {
            Err(problem) if problem.code == UNREACHABLE => {
                if absent_since.get_or_insert_with(Instant::now).elapsed() > ABSENCE_MAX {
                    return Err(problem);
                }
                tokio::time::sleep(ABSENCE_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}

fn has_ended(task: &Value) -> bool {
    matches!(task["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

/// The task once it has ended; `None`: that took too long.
pub(crate) async fn ended(target: &Target, id: &str, within: Option<Duration>) -> Result<Option<Value>> {
    let ended = async {
        loop {
            let task = look(target, id).await?;
            if has_ended(&task) {
                return Ok(task);
            }
        }
    };
    match within {
        Some(within) => tokio::time::timeout(within, ended).await.ok().transpose(),
        None => ended.await.map(Some),
    }
}

/// What a task that has ended means for who waits for it.
pub(crate) fn code_of(task: &Value) -> u8 {
    match task["state"].as_str() {
        Some("succeeded") => OK,
        Some("cancelled") => exit::CANCELLED,
        _ => exit::FAILED,
    }
}

/// Runs `lts task wait`.
pub(crate) async fn wait(args: WaitArgs) -> Result<u8> {
    let target = args.target.open().await?;
    let until = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut codes = Vec::new();
    for id in target.find_ids(&args.ids).await? {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(task) = ended(&target, &id, left).await? else {
            return Err(Problem::new(
                TIMED_OUT,
                format!("task {id} has not ended within {:?}", args.timeout.unwrap_or_default()),
            ));
        };
        tell(&id, task["state"].as_str().unwrap_or_default(), args.form.form())?;
        codes.push(code_of(&task));
    }
    let worst = [exit::FAILED, exit::CANCELLED].into_iter().find(|code| codes.contains(code));
    Ok(worst.unwrap_or(OK))
}

/// Whether nobody is there who could stop this task's run.
async fn is_abandoned(opened: &Opened, task: &Value) -> Result<bool> {
    let replicas = opened.store.replicas().await?;
    let owner = replicas.iter().find(|replica| task["worker"] == replica.id.to_string());
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
