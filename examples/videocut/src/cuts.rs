//! The cuts of the micro-service: one ffmpeg each, known by a file each, so that a restart of the service forgets none.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::Child;

use crate::{Result, media};

const MICROS_PER_S: f64 = 1e6;

/// How a cut stands, in the words of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    #[serde(rename = "分析中")]
    Running,
    #[serde(rename = "分析失败")]
    Failed,
    #[serde(rename = "分析成功")]
    Succeeded,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Request {
    /// A file in the media directory.
    pub(crate) input_video: String,
    /// In seconds.
    pub(crate) start_time: f64,
    /// In seconds. The original wrote it with a capital I.
    #[serde(alias = "EndTIme")]
    pub(crate) end_time: f64,
}

/// One cut, as its file keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) id: String,
    /// The idempotency key of its start; empty: it had none.
    pub(crate) key: String,
    pub(crate) request: Request,
    pub(crate) state: State,
    pub(crate) reason: String,
    /// Relative to the media directory.
    pub(crate) output: String,
    /// In milliseconds since 1970.
    pub(crate) started_at: u64,
    pub(crate) ended_at: Option<u64>,
}

/// Why a cut is not started.
pub(crate) enum Refusal {
    /// It never will be.
    Bad(String),
    /// All ffmpegs that may run do.
    Full,
    /// The service is in trouble.
    Broken(String),
}

/// All cuts.
pub(crate) struct Cuts {
    media: PathBuf,
    files: PathBuf,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    cuts: HashMap<String, Cut>,
    /// The process groups of those that run.
    groups: HashMap<String, Pid>,
    /// Those that are to end.
    stopped: Vec<String>,
}

impl Cuts {
    /// Takes up what an earlier service has left: what it cut when it died has failed, and its ffmpegs are ended.
    pub(crate) fn open(dir: &Path) -> Result<Arc<Self>> {
        let (media, files) = (media::directory(dir), dir.join("cuts"));
        for directory in [&media, &files, &media.join("pieces")] {
            std::fs::create_dir_all(directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        }
        let media = media.canonicalize()?;
        end_left_over(&media);
        let cuts = Cuts { media, files, all: Mutex::default() };
        for entry in std::fs::read_dir(&cuts.files)?.flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            let Ok(mut cut) = serde_json::from_str::<Cut>(&text) else { continue };
            if cut.state == State::Running {
                cut.end(State::Failed, "the service was started anew");
                let _ = std::fs::remove_file(cuts.progress(&cut));
                cuts.write(&cut)?;
            }
            cuts.all().cuts.insert(cut.id.clone(), cut);
        }
        Ok(Arc::new(cuts))
    }

    /// Starts a cut; the same key again answers with the same cut.
    pub(crate) fn start(self: &Arc<Self>, request: Request, key: &str, most: usize) -> Result<String, Refusal> {
        let input =
            media::inside(&self.media, &request.input_video).map_err(|error| Refusal::Bad(error.to_string()))?;
        if !(request.start_time >= 0.0 && request.end_time > request.start_time && request.end_time.is_finite()) {
            return Err(Refusal::Bad("EndTime must be after StartTime, and both at least 0".to_owned()));
        }
        let mut all = self.all();
        if let Some(known) = all.cuts.values().find(|cut| !key.is_empty() && cut.key == key) {
            return Ok(known.id.clone());
        }
        if all.groups.len() >= most {
            return Err(Refusal::Full);
        }
        // Random, not made of input and range: two cuts of one piece do not write into one file.
        let id = format!("work-{}", uuid::Uuid::new_v4().simple());
        let cut = Cut {
            output: format!("pieces/{id}.mp4"),
            key: key.to_owned(),
            state: State::Running,
            reason: String::new(),
            started_at: now(),
            ended_at: None,
            id: id.clone(),
            request,
        };
        // Known before it runs: what is started has a file to be found by.
        self.write(&cut).map_err(|error| Refusal::Broken(error.to_string()))?;
        let ffmpeg = self.ffmpeg(&input, &cut).map_err(|error| Refusal::Broken(error.to_string()))?;
        if let Some(group) = ffmpeg.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            all.groups.insert(id.clone(), group);
        }
        all.cuts.insert(id.clone(), cut);
        drop(all);
        let (cuts, watched) = (self.clone(), id.clone());
        tokio::spawn(async move { cuts.watch(&watched, ffmpeg).await });
        Ok(id)
    }

    /// How a cut stands.
    pub(crate) fn get(&self, id: &str) -> Option<Cut> {
        self.all().cuts.get(id).cloned()
    }

    /// How far a cut is that runs, in percent.
    pub(crate) fn far(&self, cut: &Cut) -> Option<f64> {
        let told = std::fs::read_to_string(self.progress(cut)).ok()?;
        let micros: f64 = told.lines().rev().find_map(|line| line.strip_prefix("out_time_us=")?.parse().ok())?;
        let whole = cut.request.end_time - cut.request.start_time;
        Some((micros / MICROS_PER_S / whole * 100.0).clamp(0.0, 100.0).floor())
    }

    /// Ends a cut with all that it has started, and waits for that. `None`: there is no such cut.
    pub(crate) fn stop(&self, id: &str) -> Option<State> {
        let mut all = self.all();
        let state = all.cuts.get(id)?.state;
        if let Some(group) = all.groups.get(id).copied() {
            all.stopped.push(id.to_owned());
            // It has nothing to put in order: its file is thrown away.
            let _ = kill_process_group(group, Signal::KILL);
        }
        Some(state)
    }

    /// Whether anything is being cut.
    pub(crate) fn is_busy(&self) -> bool {
        !self.all().groups.is_empty()
    }

    fn ffmpeg(&self, input: &Path, cut: &Cut) -> Result<Child> {
        let (from, length) = (cut.request.start_time, cut.request.end_time - cut.request.start_time);
        let mut ffmpeg = media::ffmpeg();
        // Before `-i`: skips to the place instead of decoding everything before it.
        ffmpeg.args(["-ss", &from.to_string(), "-i"]).arg(input).args(["-t", &length.to_string()]);
        ffmpeg.arg("-progress").arg(self.progress(cut)).args(media::ENCODING).arg(self.part(cut));
        // A group of its own, so that all of it can be ended.
        ffmpeg.process_group(0).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        Ok(ffmpeg.spawn().map_err(|error| format!("cannot run ffmpeg: {error}; install it first"))?)
    }

    async fn watch(&self, id: &str, ffmpeg: Child) {
        let output = ffmpeg.wait_with_output().await;
        let Some(mut cut) = self.get(id) else { return };
        let part = self.part(&cut);
        let (mut state, mut reason) = match output {
            Ok(output) if output.status.success() => (State::Succeeded, String::new()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let signal = output.status.signal().map(|signal| format!("it was ended by signal {signal}"));
                (State::Failed, signal.unwrap_or(said))
            }
            Err(error) => (State::Failed, format!("cannot wait for ffmpeg: {error}")),
        };
        if state == State::Succeeded
            && let Err(error) = std::fs::rename(&part, self.media.join(&cut.output))
        {
            (state, reason) = (State::Failed, format!("cannot keep the piece: {error}"));
        }
        let mut all = self.all();
        if state == State::Failed {
            let _ = std::fs::remove_file(&part);
            if all.stopped.iter().any(|stopped| stopped == id) {
                reason = "it was stopped".to_owned();
            }
        }
        cut.end(state, &reason);
        let _ = std::fs::remove_file(self.progress(&cut));
        // If it cannot be written, the next service takes it for a cut that died with this one.
        let _ = self.write(&cut);
        all.stopped.retain(|stopped| stopped != id);
        all.groups.remove(id);
        all.cuts.insert(id.to_owned(), cut);
    }

    /// Where ffmpeg tells how far it is: a file, so that it does not matter to it whether this service lives.
    fn progress(&self, cut: &Cut) -> PathBuf {
        self.files.join(format!(".{}.progress", cut.id))
    }

    fn part(&self, cut: &Cut) -> PathBuf {
        self.media.join("pieces").join(format!(".{}.part.mp4", cut.id))
    }

    /// Writes a cut's file, whole or not at all.
    fn write(&self, cut: &Cut) -> Result<()> {
        let (file, part) = (self.files.join(format!("{}.json", cut.id)), self.files.join(format!(".{}.part", cut.id)));
        std::fs::write(&part, serde_json::to_vec(cut)?)?;
        Ok(std::fs::rename(part, file)?)
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cut {
    fn end(&mut self, state: State, reason: &str) {
        self.state = state;
        reason.clone_into(&mut self.reason);
        self.ended_at = Some(now());
    }
}

/// Ends the ffmpegs that an earlier service has left, known by the hidden file that they write.
fn end_left_over(media: &Path) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    let ours = format!("{}/pieces/.work-", media.display());
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_ours = command.split(|byte| *byte == 0).any(|argument| argument.starts_with(ours.as_bytes()));
        if is_ours {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a program of its own shows its own times")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
