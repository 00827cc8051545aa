//! `lts dev`: everything in one process, to try it out and to develop against.

use std::net::SocketAddr;

use clap::Args;
use light_task_scheduler::{Config, Shutdown};

use crate::api::{Api, ApiOptions};
use crate::callbacks::{CallbackFlags, CallbackTable};
use crate::cli::select::StoreArgs;
use crate::config::{LISTEN_DEFAULT, Sources, concurrency_default, is_this_host};
use crate::demo;
use crate::exit::{OK, Problem, Result};
use crate::interrupt::Interrupts;
use crate::open::Executors;
use crate::output;
use crate::serve::{Listening, tell_of_drain};

/// Serves the HTTP API and the console, and runs tasks, all in this process; on ./lts.db, for this host only.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts dev
  lts dev --demo
  lts dev --listen 127.0.0.1:0 --store memory:")]
pub(crate) struct DevArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "LTS_LISTEN", value_name = "ADDRESS", default_value = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// How many tasks run at once [default: twice the cores, at least 4]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Begin with tasks to look at
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    callbacks: CallbackFlags,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs it.
pub(crate) async fn run(args: DevArgs) -> Result<u8> {
    if !is_this_host(args.listen.ip()) {
        return Err(Problem::usage(format!(
            "`lts dev` asks for no credentials, so it listens on this host only, not on {}; use `lts server` with tokens",
            args.listen
        )));
    }
    let sources = Sources { variable: &|name| std::env::var(name).ok(), file: None };
    let callbacks = args.callbacks.settle(&sources, &CallbackTable::default()).config("")?;
    let executors = Executors::trusting(callbacks).await?;
    // Before the store is opened: a second one on this port must not touch it.
    let listening = Listening::on(args.listen).await?;
    let opened = args.store.open_or_create().await?;
    let config = Config {
        concurrency: args.concurrency.unwrap_or_else(concurrency_default),
        replica_name: format!("lts dev, pid {}", std::process::id()),
        ..Config::default()
    };
    let options = ApiOptions { callbacks: executors.http.callbacks(opened.store.clone()), ..ApiOptions::default() };
    let scheduler = opened.scheduler_with(config, executors).await?;
    let mut interrupts = Interrupts::listen()?;
    let api = Api::new(scheduler.clone(), opened.logs.clone(), options);
    if args.demo {
        demo::fill(&scheduler).await?;
    }
    greet(listening.address());
    tokio::select! {
        () = listening.serve(&api, interrupts.next()) => {}
        () = tell_of_drain(&scheduler) => {}
    }
    // Whatever still runs goes on, and is taken up by the next start.
    scheduler.shutdown(Shutdown { grace: std::time::Duration::ZERO, hand_over: true }).await?;
    Ok(OK)
}

fn greet(address: SocketAddr) {
    let curl =
        format!(r#"curl http://{address}/api/v1/tasks -d '{{"kind":"process","payload":{{"argv":["echo","hi"]}}}}'"#);
    output::note(&format!(
        "lts dev listens on http://{address}\n\n  try: {curl}\n\nopen to everybody on this host: no tokens; Ctrl-C ends it, and what runs goes on with the next start"
    ));
}
