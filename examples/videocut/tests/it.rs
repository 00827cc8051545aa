//! The example, run as a user runs it: with a real ffmpeg, killed in the middle, and stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Long past anything that a test waits for.
const LIMIT: Duration = Duration::from_secs(120);
const PIECES: usize = 10;

fn videocut(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_videocut"));
    command.args(arguments).arg("--dir").arg(dir).stdin(Stdio::null()).env_remove("VIDEOCUT_STORE");
    command
}

/// Looks again and again, for as long as a test may take.
#[allow(clippy::disallowed_methods, reason = "real processes take real time")]
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "it did not come about in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The service's own records of its cuts.
fn cuts(dir: &Path) -> Vec<Value> {
    let files = fs::read_dir(dir.join("cuts")).into_iter().flatten().flatten();
    let texts = files.filter(|file| !file.file_name().to_string_lossy().starts_with('.')).map(|file| file.path());
    texts.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

/// The processes that work in a directory of videos.
fn ffmpegs(dir: &Path) -> Vec<String> {
    let media = dir.join("media").canonicalize().unwrap().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    commands.filter(|command| command.starts_with("ffmpeg") && command.contains(&media)).collect()
}

/// No piece was cut twice at the same time.
fn assert_never_twice_at_once(cuts: &[Value]) {
    for (place, one) in cuts.iter().enumerate() {
        for other in &cuts[place + 1..] {
            if one["request"] == other["request"] {
                let (first, second) =
                    if one["started_at"].as_u64() < other["started_at"].as_u64() { (one, other) } else { (other, one) };
                assert!(first["ended_at"].as_u64() <= second["started_at"].as_u64(), "{first} and {second}");
            }
        }
    }
}

#[test]
fn ten_pieces_are_cut_and_right() {
    let place = TempDir::new().unwrap();
    let output = videocut(place.path(), &["--seconds", "20"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("10 of 10 pieces are right"), "{said}");
    assert_eq!(cuts(place.path()).len(), PIECES);
    let results = fs::read_dir(place.path().join("results")).unwrap().count();
    assert!(results > 0, "the paths of the pieces are in the result store");
    // Once more: all is there already, and nothing is cut again.
    let again = videocut(place.path(), &["--seconds", "20"]).output().unwrap();
    assert!(again.status.success());
    assert_eq!(cuts(place.path()).len(), PIECES);
}

#[test]
fn a_killed_scheduler_finds_its_pieces_again() {
    let place = TempDir::new().unwrap();
    let arguments = ["--seconds", "400"];
    let mut first = videocut(place.path(), &arguments).stdout(Stdio::null()).spawn().unwrap();
    // In the middle: some are done, some are being cut.
    until(|| {
        let done = cuts(place.path()).iter().filter(|cut| cut["state"] == "分析成功").count();
        (done >= 2 && !ffmpegs(place.path()).is_empty()).then_some(())
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let output = videocut(place.path(), &arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let cuts = cuts(place.path());
    assert_never_twice_at_once(&cuts);
    assert_eq!(cuts.len(), PIECES, "none is cut a second time: {cuts:?}");
}

/// The service alone.
struct Service(Child, String);

impl Service {
    fn start(place: &Path) -> Self {
        fs::create_dir_all(place.join("media")).unwrap();
        let child = videocut(place, &["service", "--listen", "127.0.0.1:0"]).spawn().unwrap();
        let url = until(|| fs::read_to_string(place.join("service.url")).ok());
        Service(child, url)
    }

    /// The status and the body of an answer.
    fn post(&self, call: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.1.strip_prefix("http://").unwrap()).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "POST /{call} HTTP/1.1\r\nhost: videocut\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A video that takes long to cut.
fn long_video(place: &Path) {
    let file = place.join("media/long.mp4");
    let source = "testsrc2=duration=600:size=320x180:rate=25";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-f", "lavfi", "-i", source, "-c:v", "mpeg4"]).arg(file);
    assert!(ffmpeg.status().unwrap().success());
}

#[test]
fn a_stopped_cut_leaves_no_process_and_no_file() {
    let place = TempDir::new().unwrap();
    fs::create_dir_all(place.path().join("media")).unwrap();
    long_video(place.path());
    let service = Service::start(place.path());
    let (status, cut) = service.post("VideoCut", &json!({"InputVideo": "long.mp4", "StartTime": 0, "EndTIme": 600}));
    assert_eq!(status, 200, "{cut}");
    assert_eq!(ffmpegs(place.path()).len(), 1);
    assert_eq!(service.post("Stop", &cut).0, 200);
    until(|| ffmpegs(place.path()).is_empty().then_some(()));
    let ended = until(|| Some(service.post("Status", &cut).1).filter(|said| said["Status"] == "分析失败"));
    assert_eq!(ended["Reason"], "it was stopped");
    assert_eq!(fs::read_dir(place.path().join("media/pieces")).unwrap().count(), 0);
    // A service that dies leaves an ffmpeg behind; the next one ends it.
    let (_, cut) = service.post("VideoCut", &json!({"InputVideo": "long.mp4", "StartTime": 0, "EndTime": 600}));
    fs::remove_file(place.path().join("service.url")).unwrap();
    drop(service);
    assert_eq!(ffmpegs(place.path()).len(), 1);
    let service = Service::start(place.path());
    until(|| ffmpegs(place.path()).is_empty().then_some(()));
    assert_eq!(service.post("Status", &cut).1["Reason"], "the service was started anew");
}

#[test]
fn no_name_leads_out_of_the_media_directory() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("secret.mp4"), "x").unwrap();
    let service = Service::start(place.path());
    std::os::unix::fs::symlink(place.path().join("secret.mp4"), place.path().join("media/link.mp4")).unwrap();
    for name in ["../secret.mp4", "link.mp4", "/etc/passwd", "", ".", "none.mp4", "-i"] {
        let (status, said) = service.post("VideoCut", &json!({"InputVideo": name, "StartTime": 0, "EndTime": 1}));
        assert_eq!(status, 400, "{name}: {said}");
    }
    assert_eq!(service.post("Status", &json!({"TaskId": "../../x"})).0, 404);
    assert!(cuts(place.path()).is_empty());
}
