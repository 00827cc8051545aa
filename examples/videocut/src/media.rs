//! Videos: where they may be, how one is made, and how long one is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use light_task_scheduler::results::short_hash;

use tokio::process::Command;

use crate::Result;

/// What browsers may be able to play, by the ending of its name.
const KINDS: [(&str, &str); 5] = [
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mkv", "video/x-matroska"),
];
/// The directory of what was cut, in that of the videos.
const PIECES: &str = "pieces";
/// How long a frame is, in seconds: lengths are only as exact as that.
pub(crate) const FRAME_S: f64 = 0.04;

/// A video that is there.
#[derive(Debug, Clone)]
pub(crate) struct Video {
    /// Names it without being a path.
    pub(crate) id: String,
    /// Relative to the media directory.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Its type, as a browser is told it.
    pub(crate) kind: &'static str,
}

/// The videos that can be cut, by name.
pub(crate) fn videos(media: &Path) -> Vec<Video> {
    listed(media, "")
}

/// What was cut of them.
pub(crate) fn pieces(media: &Path) -> Vec<Video> {
    listed(media, PIECES)
}

fn listed(media: &Path, below: &str) -> Vec<Video> {
    let entries = std::fs::read_dir(media.join(below)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.'));
    let mut videos: Vec<Video> = names
        .filter_map(|name| {
            let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
            let kind = KINDS.iter().find(|(known, _)| *known == ending)?.1;
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            // A link may lead out.
            let file = inside(media, &name).ok()?;
            Some(Video { id: short_hash(name.as_bytes()), name, file, kind })
        })
        .collect();
    videos.sort_by(|one, other| one.name.cmp(&other.name));
    videos
}

/// How long videos are: each file is asked once for as long as it does not change.
#[derive(Debug, Default)]
pub(crate) struct Lengths(Mutex<HashMap<PathBuf, (SystemTime, f64)>>);

impl Lengths {
    pub(crate) async fn of(&self, video: &Video) -> Result<f64> {
        let changed = tokio::fs::metadata(&video.file).await?.modified()?;
        let known = |lengths: &Self| lengths.0.lock().unwrap_or_else(PoisonError::into_inner).get(&video.file).copied();
        if let Some((_, seconds)) = known(self).filter(|(at, _)| *at == changed) {
            return Ok(seconds);
        }
        let seconds = length(&video.file).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(video.file.clone(), (changed, seconds));
        Ok(seconds)
    }
}

/// The directory of videos under the data directory.
pub(crate) fn directory(dir: &Path) -> PathBuf {
    dir.join("media")
}

/// A file that must be under the media directory, whatever its name says.
pub(crate) fn inside(media: &Path, name: &str) -> Result<PathBuf> {
    let root =
        media.canonicalize().map_err(|error| format!("there is no media directory {}: {error}", media.display()))?;
    // Resolves links and `..`: what counts is where the file really is.
    let file =
        root.join(name).canonicalize().map_err(|error| format!("there is no video `{name}`: {}", error.kind()))?;
    if !file.starts_with(&root) || !file.is_file() {
        return Err(format!("`{name}` is not a file in the media directory").into());
    }
    Ok(file)
}

/// Makes a video of moving colours, unless it is there.
pub(crate) async fn sample(media: &Path, seconds: u32) -> Result<String> {
    let name = format!("sample-{seconds}s.mp4");
    let file = media.join(&name);
    if file.exists() {
        return Ok(name);
    }
    let source = format!("testsrc2=duration={seconds}:size=320x180:rate=25");
    let part = media.join(format!(".{name}.{}.mp4", std::process::id()));
    run(ffmpeg().args(["-f", "lavfi", "-i", &source]).args(ENCODING).arg(&part)).await?;
    // Whole or not there.
    tokio::fs::rename(&part, &file).await?;
    Ok(name)
}

/// How videos are encoded here: small, and a key frame every second, so that a cut is exact.
pub(crate) const ENCODING: [&str; 10] =
    ["-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-pix_fmt", "yuv420p", "-g", "25"];

/// `ffmpeg`, quiet and without questions.
pub(crate) fn ffmpeg() -> Command {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]).stdin(Stdio::null());
    ffmpeg
}

/// How long a video is, in seconds.
pub(crate) async fn length(file: &Path) -> Result<f64> {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]).arg(file);
    let said = run(&mut ffprobe).await?;
    said.trim().parse().map_err(|_| format!("ffprobe says that {} is `{}` long", file.display(), said.trim()).into())
}

/// Runs a program to its end and answers what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.map_err(|error| {
        format!("cannot run {program}: {error}; install it first (on Debian: apt-get install ffmpeg)")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
