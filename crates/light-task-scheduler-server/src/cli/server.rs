//! `lts server`: the HTTP API, the console and a scheduler, as configured; and `lts config`.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use light_task_scheduler::Shutdown;

use crate::api::{Admission, Api, ApiOptions, TokenFile};
use crate::config::{Flags, Settings};
use crate::exit::{OK, Result};
use crate::interrupt::Interrupts;
use crate::open::{Executors, services};
use crate::output;
use crate::serve::{Listening, tell_of_drain};

/// How long tasks that run may go on when the server is asked to end; the rest is handed over to the next start.
const GRACE: Duration = Duration::from_secs(1);

/// Serves the HTTP API and the console, and runs tasks, as a file of settings, LTS_… variables and options say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts server --config /etc/lts.toml
  lts server --listen 0.0.0.0:7600 --tokens /var/lib/lts/tokens.json --store postgres://db/lts")]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Checks and shows the settings of a server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts config check --config /etc/lts.toml
  lts config show --origin")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Says whether they make sense; opens nothing
    Check {
        #[command(flatten)]
        flags: Flags,
    },
    /// Shows what holds
    Show {
        /// Also where each comes from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs `lts server`.
pub(crate) async fn run(args: ServerArgs) -> Result<u8> {
    serve(&args.flags.settle(variable)?).await
}

/// Runs `lts config`.
pub(crate) async fn config(args: ConfigArgs) -> Result<u8> {
    match args.ask {
        Ask::Check { flags } => {
            let settings = flags.settle(variable)?;
            let path =
                settings.path.map_or_else(|| "no file of settings".to_owned(), |path| path.display().to_string());
            output::line(&format!("ok: {path}"))?;
        }
        Ask::Show { origin, flags } => show(&flags.settle(variable)?, origin)?,
    }
    Ok(OK)
}

fn show(settings: &Settings, origin: bool) -> Result<()> {
    let callbacks = &settings.callbacks;
    // Only where it is: nothing shows a secret.
    let key = callbacks.key.value.as_ref().map(|key| format!("{key:?}")).unwrap_or_default();
    let rows = [
        ("listen", settings.listen.value.to_string(), &settings.listen.origin),
        ("store", settings.store().to_string(), &settings.store.origin),
        ("tokens", settings.tokens.value.clone().unwrap_or_default(), &settings.tokens.origin),
        ("base_path", settings.base_path.value.clone(), &settings.base_path.origin),
        ("name", settings.name.value.clone(), &settings.name.origin),
        ("read_only", settings.read_only.value.to_string(), &settings.read_only.origin),
        ("concurrency", settings.concurrency.value.to_string(), &settings.concurrency.origin),
        ("queues", settings.queues.value.join(","), &settings.queues.origin),
        ("http.callbacks.url", callbacks.url.value.clone().unwrap_or_default(), &callbacks.url.origin),
        ("http.callbacks.key", key, &callbacks.key.origin),
    ];
    let row = |(name, value, from): (&str, String, &String)| {
        let mut row = vec![name.to_owned(), value];
        row.extend(origin.then(|| from.clone()));
        row
    };
    let heading: &[&str] = if origin { &["SETTING", "VALUE", "ORIGIN"] } else { &["SETTING", "VALUE"] };
    output::table(heading, &rows.map(row))
}

/// Serves until it is asked to end.
async fn serve(settings: &Settings) -> Result<u8> {
    // Before the store is opened: a second server on this port must not touch it.
    let listening = Listening::on(settings.listen.value).await?;
    let admission = match &settings.tokens.value {
        Some(path) => Admission::Tokens(Arc::new(TokenFile::open(path)?)),
        None => Admission::ThisHost,
    };
    let opened = settings.store().open().await?;
    let executors = Executors {
        none: settings.concurrency.value == 0,
        programs: settings.programs(),
        docker: settings.docker().map(std::path::Path::to_owned),
        http: services(settings.http()?).await?,
    };
    let callbacks = executors.http.callbacks(opened.store.clone());
    let scheduler = opened.scheduler_with(settings.scheduler()?, executors).await?;
    let mut interrupts = Interrupts::listen()?;
    let options = ApiOptions {
        name: settings.name.value.clone(),
        base_path: settings.base_path.value.clone(),
        read_only: settings.read_only.value,
        admission,
        defaults: settings.defaults()?,
        callbacks,
    };
    let address = listening.address();
    let guard = if settings.tokens.value.is_some() { "by tokens" } else { "open to everybody on this host" };
    let api = Api::new(scheduler.clone(), opened.logs.clone(), options);
    output::note(&format!("lts server listens on http://{address}{}, {guard}", settings.base_path.value));
    tokio::select! {
        () = listening.serve(&api, interrupts.next()) => {}
        () = tell_of_drain(&scheduler) => {}
    }
    scheduler.shutdown(Shutdown { grace: GRACE, hand_over: true }).await?;
    Ok(OK)
}
