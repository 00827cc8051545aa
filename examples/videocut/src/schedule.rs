//! The scheduler: has the service cut a video into pieces, a few at a time, and looks at each of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{Table, presets};
use light_task_scheduler::executor::http::{Egress, HttpConfig, HttpExecutor, HttpJob, Service};
use light_task_scheduler::results::DirectoryResults;
use light_task_scheduler::task::LABEL_VALUE_BYTES_MAX;
use light_task_scheduler::{
    CachedStore, Config, MySqlStore, Name, NewTask, PostgresStore, QueueSettings, RetryPolicy, Scheduler, Shutdown,
    SqliteStore, State, Store, Task, TaskHandle, Tracking,
};
use serde_json::json;

use crate::{Cutting, Result, media, service};

/// How long a piece may take, and how often it is tried.
const TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
/// How often the service is asked how its cuts stand.
const ASK: Duration = Duration::from_millis(100);
/// How much the length of a piece may be off: two frames.
const TOLERANCE_S: f64 = 0.08;
/// How long a service that nobody asks lives on: long enough to outlive a scheduler that is killed and started again.
const SERVICE_IDLE_S: u64 = 20;
/// How long a service that was started may take to say where it listens.
const SERVICE_WITHIN: Duration = Duration::from_secs(10);
const SERVICE_LOOK: Duration = Duration::from_millis(20);
const SERVICE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long one letter may be in UTF-8.
const LETTER_BYTES_MAX: usize = 4;
/// The queue, and the kind of the tasks.
const QUEUE: &str = "video";
const KIND: &str = "videocut";

/// One piece, and what became of it.
struct Piece {
    number: u32,
    from: f64,
    to: f64,
    task: TaskHandle,
}

/// Cuts, waits, checks, and prints a table. True: every piece is right.
pub(crate) async fn cut(cutting: &Cutting) -> Result<bool> {
    let media = media::directory(&cutting.dir);
    tokio::fs::create_dir_all(&media).await.map_err(|error| format!("cannot make {}: {error}", media.display()))?;
    let video = match &cutting.video {
        Some(video) => video.clone(),
        None => {
            note(&format!("a sample of {} s, in {}", cutting.seconds, media.display()));
            media::sample(&media, cutting.seconds).await?
        }
    };
    let length = media::length(&media::inside(&media, &video)?).await?;
    let url = find_service(&cutting.dir).await?;
    note(&format!(
        "the service is at {url}, a process of its own; {} pieces, {} at once",
        cutting.pieces, cutting.limit
    ));
    let scheduler = scheduler(cutting, &url).await?;
    let step = length / f64::from(cutting.pieces);
    let mut pieces = Vec::new();
    for number in 0..cutting.pieces {
        let (from, to) = (step * f64::from(number), step * f64::from(number + 1));
        // Named by what it is: started again, the program finds its tasks instead of making new ones.
        let id = format!("{video}: piece {} of {}", number + 1, cutting.pieces);
        let task = scheduler.submit(task(&video, from, to)?.id(&id)?).await?;
        pieces.push(Piece { number: number + 1, from, to, task });
    }
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(["piece", "from", "to", "state", "tries", "seconds", "file"]);
    let mut right = 0;
    for piece in &pieces {
        let task = piece.task.wait().await?;
        note(&format!("piece {} of {}: {}", piece.number, cutting.pieces, task.record.state));
        let (row, is_right) = look(piece, &task, &media).await;
        table.add_row(row);
        right += u32::from(is_right);
    }
    scheduler.shutdown(Shutdown::default()).await?;
    #[allow(clippy::print_stdout, reason = "this is what the program is for")]
    {
        println!("{table}\n{right} of {} pieces are right", cutting.pieces);
    }
    Ok(right == cutting.pieces)
}

/// A cut of a video.
pub(crate) fn task(video: &str, from: f64, to: f64) -> Result<NewTask> {
    let job = HttpJob::new(KIND)?.input(&json!({ "InputVideo": video, "StartTime": from, "EndTime": to }))?;
    let task = NewTask::new(KIND, &job)?.queue(QUEUE)?.timeout(TIMEOUT).retry(RetryPolicy::attempts(ATTEMPTS));
    let task = task.label("from", &from.to_string())?.label("to", &to.to_string())?;
    // For the eye: in a list there are labels, and no payloads.
    let shown: String = video.chars().take(LABEL_VALUE_BYTES_MAX / LETTER_BYTES_MAX).collect();
    Ok(task.label("video", &shown)?)
}

/// Tells whoever watches how far it is.
#[allow(clippy::print_stderr, reason = "this is where people look")]
pub(crate) fn note(what: &str) {
    eprintln!("videocut: {what}");
}

/// A piece's row in the table, and whether it is right.
async fn look(piece: &Piece, task: &Task, media: &Path) -> ([String; 7], bool) {
    let file = match task.record.state {
        State::Succeeded => piece.task.result::<String>().await.map_err(|error| error.to_string()),
        _ => Err(task.record.failure().map_or_else(String::new, |failure| failure.message.clone())),
    };
    let length = match &file {
        Ok(file) => media::length(&media.join(file)).await.map_err(|error| error.to_string()),
        Err(_) => Err(String::new()),
    };
    let is_right = length.as_ref().is_ok_and(|length| (length - (piece.to - piece.from)).abs() <= TOLERANCE_S);
    let row = [
        piece.number.to_string(),
        format!("{:.2}", piece.from),
        format!("{:.2}", piece.to),
        task.record.state.to_string(),
        task.record.attempt.to_string(),
        length.map_or_else(|why| why, |length| format!("{length:.2}")),
        file.unwrap_or_else(|why| why),
    ];
    (row, is_right)
}

pub(crate) async fn scheduler(cutting: &Cutting, url: &str) -> Result<Scheduler> {
    let mut http = HttpConfig { egress: Egress::private(), ..HttpConfig::default() };
    http.services.insert(Name::new(KIND)?, Service::preset("video-v1", [url])?);
    let limit = QueueSettings { concurrency: Some(cutting.limit), ..QueueSettings::default() };
    let config =
        Config { queue_settings: vec![(Name::new(QUEUE)?, limit)], tracking: Tracking::Both(ASK), ..Config::default() };
    let results = DirectoryResults::open(cutting.dir.join("results")).await?;
    let scheduler = Scheduler::builder(CachedStore::new(store(cutting).await?))
        .executor(KIND, Arc::new(HttpExecutor::new(http)?))
        .results(Arc::new(results))
        .config(config)
        .start()
        .await?;
    Ok(scheduler)
}

/// The durable store behind the window.
async fn store(cutting: &Cutting) -> Result<Arc<dyn Store>> {
    match cutting.store.as_deref() {
        None => Ok(SqliteStore::open(cutting.dir.join("tasks.db"))?.into()),
        Some(url) if url.starts_with("postgres") => Ok(PostgresStore::open(url).await?.into()),
        Some(url) if url.starts_with("mysql") || url.starts_with("mariadb") => Ok(MySqlStore::open(url).await?.into()),
        // Not shown: there may be a password in it.
        Some(_) => Err("the store is neither postgres://… nor mysql://…".into()),
    }
}

/// The URL of the service that runs on this directory, or of one that is started now, as a process of its own.
pub(crate) async fn find_service(dir: &Path) -> Result<String> {
    let file = dir.join(service::URL_FILE);
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    if answers(&known) {
        return Ok(known);
    }
    // At the address of the one before, if there was one: jobs in the store are asked for there.
    let listen = known.strip_prefix("http://").unwrap_or("127.0.0.1:0");
    let _ = std::fs::remove_file(&file);
    let log = std::fs::File::create(dir.join("service.log"))?;
    Command::new(std::env::current_exe()?)
        .arg("service")
        .arg("--dir")
        .arg(dir)
        .args(["--listen", listen, "--idle", &SERVICE_IDLE_S.to_string()])
        // A group of its own: what ends this program does not end the service.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start the service: {error}"))?;
    let listening = async {
        loop {
            match std::fs::read_to_string(&file) {
                Ok(url) if answers(&url) => return url,
                _ => tokio::time::sleep(SERVICE_LOOK).await,
            }
        }
    };
    tokio::time::timeout(SERVICE_WITHIN, listening)
        .await
        .map_err(|_| format!("the service did not start; see {}", dir.join("service.log").display()).into())
}

/// Whether a service answers there. It is asked something, which also keeps it from ending because nobody asks.
fn answers(url: &str) -> bool {
    let ask = |address: &SocketAddr| -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(address, SERVICE_ANSWERS_WITHIN)?;
        stream.set_read_timeout(Some(SERVICE_ANSWERS_WITHIN))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_exact(&mut [0])
    };
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.is_some_and(|address| ask(&address).is_ok())
}
