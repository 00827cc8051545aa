//! Cuts a video into pieces: a micro-service that runs ffmpeg, and a scheduler that starts, watches and stops its jobs.
//!
//! ```sh
//! cargo run --release -p videocut            # makes a sample video, has it cut into ten pieces, checks each
//! cargo run --release -p videocut -- --web   # a page on which cuts are made, watched and played
//! cargo run --release -p videocut -- service # only the micro-service
//! ```
//!
//! The two are processes of their own. Kill the scheduler with `kill -9` and start it again: the service goes on cutting
//! meanwhile, and the next scheduler asks for the jobs that it finds in its store instead of starting them again.

mod cuts;
mod media;
mod schedule;
mod service;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What goes wrong, in words for people.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(version, about = "Cuts a video into pieces, with a micro-service and a scheduler")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Serve a page on which cuts are made, started, stopped, deleted, listed and played.
    #[arg(long, conflicts_with_all = ["video", "pieces"])]
    web: bool,
    /// Where the page is served: on this host only.
    #[arg(long, default_value = "127.0.0.1:7601", requires = "web")]
    listen: SocketAddr,
    #[command(flatten)]
    cutting: Cutting,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the micro-service: /VideoCut, /Status, /GetOutputVideo, /Stop.
    Service(Serving),
}

#[derive(Debug, Args)]
struct Cutting {
    /// Where the videos, the store and the results are.
    #[arg(long, default_value = "videocut-data")]
    dir: PathBuf,
    /// The video, in DIR/media. Default: a sample that is made there.
    #[arg(long)]
    video: Option<String>,
    /// How long the sample is, in seconds.
    #[arg(long, default_value_t = 100)]
    seconds: u32,
    /// How many pieces.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pieces: u32,
    /// How many are cut at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// The durable store behind the window in memory: postgres://…, mysql://…. Default: DIR/tasks.db.
    #[arg(long, env = "VIDEOCUT_STORE", hide_env_values = true)]
    store: Option<String>,
}

#[derive(Debug, Args)]
struct Serving {
    /// Where the videos are: nothing outside is read or written.
    #[arg(long, default_value = "videocut-data")]
    dir: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8001")]
    listen: String,
    /// End when nobody has asked for anything for so many seconds. Default: never.
    #[arg(long)]
    idle: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Service(serving)) => {
            service::serve(&serving.dir, &serving.listen, serving.idle).await.map(|()| true)
        }
        None if arguments.web => web::serve(&arguments.cutting, arguments.listen).await,
        None => schedule::cut(&arguments.cutting).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "this is how a program says why it ends")]
            {
                eprintln!("videocut: {error}");
            }
            ExitCode::FAILURE
        }
    }
}
