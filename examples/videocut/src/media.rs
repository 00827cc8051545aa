//! Videos: where they may be, how one is made, and how long one is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;

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
