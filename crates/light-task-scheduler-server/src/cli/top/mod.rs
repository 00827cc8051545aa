//! `lts top`: queues, what runs and what failed, live in the terminal.

mod state;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::api::url_encoded;
use crate::cli::act::Wish;
use crate::cli::target::{Target, TargetArgs, queue_path};
use crate::duration::parse_duration;
use crate::exit::{ERROR, OK, Problem, Result};
use state::{App, Seen, Step};

/// How many tasks a pane shows at most.
const SHOWN_MAX: usize = 200;
/// How often it is looked whether a key was pressed, at least: so soon the reader of keys ends with the program.
const KEY_WITHIN: Duration = Duration::from_millis(200);
/// How many keys and looks may be waiting.
const WAITING_MAX: usize = 64;

/// Shows queues, running tasks and failures live in the terminal, and operates them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts top
  lts top --server http://127.0.0.1:7600 --interval 5s

Keys: tab next pane, arrows or j k select, p pause or resume the queue, c cancel the task, r retry the task,
/ filter as in `lts task ls`, q quit.")]
pub(crate) struct TopArgs {
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs it.
pub(crate) async fn run(args: TopArgs) -> Result<u8> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Problem::usage(
            "`lts top` draws on a terminal, and this is none; `lts stats` and `lts events -f` print the same as text",
        ));
    }
    let target = Arc::new(args.target.open().await?);
    let mut app = App::new(&target.shown(), target.chosen.production);
    // Before the screen is taken: what does not work at all is said as ever.
    app.take(Ok(look(&target, "").await?));
    let mut terminal =
        ratatui::try_init().map_err(|error| Problem::new(ERROR, format!("the terminal cannot be used: {error}")))?;
    let shown = show(&mut terminal, &mut app, &target, args.interval).await;
    ratatui::restore();
    shown.map(|()| OK)
}

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    target: &Arc<Target>,
    interval: Duration,
) -> Result<()> {
    let mut keys = keys();
    let (looks, mut looked) = mpsc::channel(WAITING_MAX);
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut looking = false;
    loop {
        terminal
            .draw(|frame| view::render(frame, app))
            .map_err(|error| Problem::new(ERROR, format!("the terminal cannot be drawn on: {error}")))?;
        let step = tokio::select! {
            key = keys.recv() => match key {
                Some(key) => app.press(key),
                None => Some(Step::Quit),
            },
            Some(look) = looked.recv() => {
                looking = false;
                app.take(look);
                None
            }
            // A slow server is not asked again before it has answered.
            _ = tick.tick() => (!looking).then_some(Step::Look),
        };
        let (target, looks, filter) = (target.clone(), looks.clone(), app.filter().to_owned());
        match step {
            None => {}
            Some(Step::Quit) => return Ok(()),
            Some(step) => {
                looking = true;
                // Apart from the keys: those are answered at once, however long this takes.
                tokio::spawn(async move {
                    let said = act(&target, step).await;
                    let look = match said {
                        Ok(said) => look(&target, &filter).await.map(|seen| Seen { said, ..seen }),
                        Err(problem) => Err(problem),
                    };
                    let _ = looks.send(look.map_err(|problem| problem.message)).await;
                });
            }
        }
    }
}

/// What is pressed, read on a thread of its own.
fn keys() -> mpsc::Receiver<KeyEvent> {
    let (pressed, keys) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        while !pressed.is_closed() {
            match event::poll(KEY_WITHIN).and_then(|ready| if ready { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if pressed.blocking_send(key).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    keys
}

/// Does what was asked for; what to say of it.
async fn act(target: &Target, step: Step) -> Result<Option<String>> {
    let said = match step {
        Step::Quit | Step::Look => return Ok(None),
        Step::Pause(queue) => {
            target.post(&queue_path(&queue, "/pause"), None).await?;
            format!("{queue} is paused")
        }
        Step::Resume(queue) => {
            target.post(&queue_path(&queue, "/resume"), None).await?;
            format!("{queue} goes on")
        }
        Step::Cancel(id) => format!("{id}: {}", told(Wish::Cancel.of(target, &id).await?)),
        Step::Retry(id) => format!("{id}: {}", told(Wish::Retry.of(target, &id).await?)),
    };
    Ok(Some(said))
}

fn told(state: String) -> String {
    if state == "running" { "is being stopped".to_owned() } else { state }
}

/// Looks at everything that is shown.
async fn look(target: &Target, filter: &str) -> Result<Seen> {
    let list = async |states: &str| -> Result<Vec<Value>> {
        let query = url_encoded(&format!("state:{states} {filter}"));
        let mut page = target.get(&format!("/api/v1/tasks?limit={SHOWN_MAX}&q={query}")).await?;
        Ok(page["tasks"].as_array_mut().map(std::mem::take).unwrap_or_default())
    };
    let stats = target.get("/api/v1/stats").await?;
    Ok(Seen { stats, running: list("running,exporting").await?, failed: list("failed").await?, said: None })
}
