//! `lts run`: one command, followed live; ends as the command ends.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use light_task_scheduler::executor::docker::DockerSpec;
use light_task_scheduler::executor::http::HttpJob;
use light_task_scheduler::executor::process::CommandSpec;
use light_task_scheduler::{
    Clock, Config, FailureKind, Name, NewTask, RetryPolicy, Scheduler, Shutdown, State, StoreExt, SystemClock, Task,
    TaskId,
};
use tokio::time::Instant;

use crate::api::TaskView;
use crate::batch::lines::current_directory;
use crate::batch::parse_name;
use crate::cli::logs::{Logs, Shown, Tail};
use crate::cli::ls::parse_label;
use crate::cli::select::StoreArgs;
use crate::command::{DOCKER_KIND, HTTP_KIND, KIND, inherit_environment};
use crate::duration::parse_duration;
use crate::exit::{self, Problem, Result};
use crate::interrupt::Interrupts;
use crate::open::Opened;
use crate::output;

/// How often new output is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long after a Ctrl-C a second one still means: leave it running.
const DETACH_WINDOW: Duration = Duration::from_secs(1);
/// How many letters of an id, from its end, name a run's own queue: its beginning is the time.
const QUEUE_ID_LETTERS: usize = 12;

/// Runs one command, container or job of a remote service, durably, shows its output, and exits with its exit code.
///
/// Ctrl-C cancels it; Ctrl-C twice leaves it running, for `lts ls`, `lts logs -f` and `lts cancel`, and
/// whatever lts runs next on this store takes it up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts run -- make all
  lts run --timeout 10m --retries 2 -- ./backup.sh --full
  lts run -- sh -c 'exit 7'; echo $?     prints 7
  lts run --docker busybox -- ls /
  lts run --http ogc --url http://localhost:5000/processes/hello-world --input '{\"name\": \"me\"}'

Containers run on the engine that DOCKER_HOST names, or on those in the file that LTS_DOCKER_CONFIG names; unless
that file allows more, they have no network, no files of the host, and bounded memory.")]
pub(crate) struct RunArgs {
    /// The command and its arguments; no shell is involved unless it names one
    #[arg(required_unless_present = "http", trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
    /// How long each attempt may take, for example 30s or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Attempts beyond the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// The queue, whose limits hold [default: one of its own]
    #[arg(long, value_parser = parse_name)]
    queue: Option<Name>,
    /// The task's id [default: a fresh one]
    #[arg(long)]
    id: Option<String>,
    /// Higher runs first
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    priority: i32,
    /// Run the command in a container of this image
    #[arg(long, value_name = "IMAGE", conflicts_with = "stdin")]
    docker: Option<String>,
    /// Run a job of the remote service at URL, which is spoken to as this preset says: aip-151, azure-lro, ogc, push, video-v1
    #[arg(long, value_name = "PRESET", requires = "url", conflicts_with_all = ["command", "docker", "stdin", "env", "cwd"])]
    http: Option<String>,
    /// Where the service is
    #[arg(long, requires = "http")]
    url: Option<String>,
    /// What the job works on
    #[arg(long, value_name = "JSON", requires = "http", value_parser = parse_json)]
    input: Option<serde_json::Value>,
    /// Another variable for the command; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// The directory to run in [default: this one]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A label, to find it again; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(Name, String)>,
    /// The file that it reads as its stdin; - for ours [default: nothing]
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Print the ended task as JSON on stderr, after the output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))
}

impl RunArgs {
    fn task(&self) -> Result<NewTask> {
        let task = match (&self.http, &self.docker) {
            (Some(preset), _) => self.job(preset)?,
            (_, Some(image)) => self.container(image)?,
            _ => self.command()?,
        };
        self.with_options(task)
    }

    fn job(&self, preset: &str) -> Result<NewTask> {
        let job = HttpJob::at(preset, self.url.as_deref().unwrap_or_default());
        Ok(NewTask::new(HTTP_KIND, &job.input(&self.input)?)?)
    }

    fn container(&self, image: &str) -> Result<NewTask> {
        let mut spec = DockerSpec::new(image, self.command.clone());
        spec.env = BTreeMap::from_iter(self.env.clone());
        spec.working_dir = self.cwd.as_ref().map(|cwd| cwd.display().to_string());
        spec.check()?;
        Ok(NewTask::new(DOCKER_KIND, &spec)?)
    }

    fn command(&self) -> Result<NewTask> {
        let mut spec = CommandSpec::new(self.command.clone());
        let here = current_directory().map_err(Problem::usage)?;
        spec.cwd = Some(self.cwd.as_ref().map_or_else(|| here.clone(), |cwd| here.join(cwd)));
        spec.env = BTreeMap::from_iter(self.env.clone());
        spec.stdin = self.stdin.as_ref().map(read_stdin).transpose()?;
        inherit_environment(&mut spec);
        Ok(NewTask::new(KIND, &spec)?)
    }

    fn with_options(&self, task: NewTask) -> Result<NewTask> {
        let id = match &self.id {
            Some(id) => TaskId::new(id)?,
            None => TaskId::generate(&SystemClock),
        };
        let own_queue = || {
            let text = id.to_string();
            let from = text.char_indices().rev().nth(QUEUE_ID_LETTERS - 1).map_or(0, |(at, _)| at);
            Name::new(&format!("run-{}", &text[from..]))
        };
        let mut task = task.priority(self.priority);
        task.queue = self.queue.clone().map_or_else(own_queue, Ok)?;
        task.id = Some(id);
        for (name, value) in &self.label {
            task = task.label(name.as_str(), value)?;
        }
        if let Some(timeout) = self.timeout {
            task = task.timeout(timeout);
        }
        Ok(if self.retries > 0 { task.retry(RetryPolicy::attempts(self.retries.saturating_add(1))) } else { task })
    }
}

fn read_stdin(path: &PathBuf) -> Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Problem::usage(format!("cannot read {} as text: {error}", path.display())))?;
    Ok(text)
}

/// Runs it.
pub(crate) async fn run(args: RunArgs) -> Result<u8> {
    let task = args.task()?;
    task.check()?;
    let opened = args.store.open_or_create().await?;
    if args.docker.is_some() {
        // A task would wait for an engine, and say nothing: whoever has mistyped its address wants to know.
        opened.containers()?.reach().await?;
    }
    let config = Config {
        concurrency: 1,
        queues: vec![task.queue.clone()],
        replica_name: format!("lts run, pid {}", std::process::id()),
        ..Config::default()
    };
    let mut interrupts = Interrupts::listen()?;
    let scheduler = opened.scheduler(config).await?;
    let handle = match scheduler.submit(task).await {
        Ok(handle) => handle,
        Err(error) => {
            scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await?;
            return Err(error.into());
        }
    };
    let ended = follow(&scheduler, &opened, handle.id(), &mut interrupts).await;
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await?;
    match ended? {
        Some((task, cancelled)) => {
            if args.http.is_some() && task.record.state == State::Succeeded {
                let result = scheduler.handle(&task.id).output().await?;
                output::line(&String::from_utf8_lossy(result.as_bytes()))?;
            }
            if args.json {
                output::note(&output::json_text(&TaskView::whole(&task, SystemClock.now()))?);
            }
            Ok(if cancelled { exit::INTERRUPTED } else { code_of(&task) })
        }
        None => {
            let id = handle.id();
            output::note(&format!("detached: it goes on; see `lts logs -f {id}`, stop it with `lts cancel {id}`"));
            Ok(exit::INTERRUPTED)
        }
    }
}

/// Follows the task to its end. `None`: it was left running. The flag: we have cancelled it.
async fn follow(
    scheduler: &Scheduler,
    opened: &Opened,
    id: &TaskId,
    interrupts: &mut Interrupts,
) -> Result<Option<(Task, bool)>> {
    let handle = scheduler.handle(id);
    let ended = handle.wait();
    tokio::pin!(ended);
    let mut tail = Tail::new(Shown::AsIs);
    let mut cancel_at: Option<Instant> = None;
    let (mut cancelled, mut drained) = (false, false);
    loop {
        tokio::select! {
            biased;
            task = &mut ended => {
                let task = task?;
                tail.copy(&Logs::In(&*opened.logs, &task.id), task.record.execution).await?;
                let ours = cancelled && task.record.state == State::Cancelled;
                return Ok(Some((task, ours)));
            }
            () = interrupts.next() => {
                if cancel_at.is_some() {
                    return Ok(None);
                }
                let window = DETACH_WINDOW.as_secs();
                output::note(&format!("cancelling; Ctrl-C again within {window} s leaves it running instead"));
                cancel_at = Some(Instant::now() + DETACH_WINDOW);
            }
            () = tokio::time::sleep_until(cancel_at.unwrap_or_else(Instant::now)), if cancel_at.is_some() && !cancelled => {
                cancelled = true;
                // Refused: it has just ended, and that is how it ended.
                let _ = scheduler.cancel(id).await;
            }
            () = scheduler.ended(), if !drained => drained = true,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                let task = opened.store.task(id).await?;
                tail.copy(&Logs::In(&*opened.logs, &task.id), task.record.execution).await?;
                if drained && !task.record.state.is_terminal() {
                    output::note("an operator had this process drain before the task has ended");
                    return Ok(None);
                }
            }
        }
    }
}

/// The command's own exit code, or what comes closest.
fn code_of(task: &Task) -> u8 {
    let failure = match (task.record.state, task.record.failure()) {
        (State::Succeeded, _) => return exit::OK,
        (State::Failed, Some(failure)) => failure,
        _ => {
            output::note(&format!("lts: task {} was cancelled", task.id));
            return exit::CANCELLED;
        }
    };
    // The command has said itself what went wrong, unless it was stopped or never began.
    match (failure.kind, failure.exit_code) {
        (FailureKind::Error, Some(code)) => return u8::try_from(code).unwrap_or(exit::ERROR),
        _ => output::note(&format!("lts: {}", failure.message)),
    }
    match failure.kind {
        FailureKind::Timeout | FailureKind::Deadline => exit::TIMED_OUT,
        FailureKind::Refused => exit::NO_PROGRAM,
        _ => exit::ERROR,
    }
}
