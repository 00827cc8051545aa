//! The example, run as a user runs it: with a real ffmpeg, killed in the middle, and stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
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

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let named = |line: &'_ &str| line.split_once(": ").is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(named).map(|line| &line[name.len() + 2..]).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Asks over a connection of its own.
fn ask(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body: answer.split_off(end + 4) }
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
        let answer = ask(&self.1, "POST", &format!("/{call}"), &[("host", "videocut")], &body.to_string());
        (answer.status, answer.json())
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

/// The program with its page.
struct Page(Child, String);

impl Page {
    fn start(place: &Path) -> Self {
        let mut command = videocut(place, &["--web", "--listen", "127.0.0.1:0", "--seconds", "6"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .map_while(|line| line.ok())
            .find_map(|line| Some(line.split("the page is at ").nth(1)?.split(',').next()?.to_owned()));
        Page(child, url.expect("it says where the page is"))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(&self.1, method, path, &[("host", "localhost")], body)
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, &body.to_string());
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.head, String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Makes a cut of the only video.
    fn cut(&self, from: f64, to: f64, held: bool) -> String {
        let video = self.json("GET", "/videos", &json!(null))["videos"][0]["id"].clone();
        let made = self.json("POST", "/cuts", &json!({"video": video, "from": from, "to": to, "held": held}));
        made["id"].as_str().unwrap().to_owned()
    }

    fn task(&self, id: &str, call: &str) -> Value {
        self.json("GET", &format!("/lts/api/v1/tasks/{id}{call}"), &json!(null))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_cut_is_made_played_and_deleted_as_the_page_does_it() {
    let place = TempDir::new().unwrap();
    let page = Page::start(place.path());
    let head = page.ask("GET", "/", "");
    assert!(head.header("content-security-policy").contains("default-src 'none'"), "{}", head.head);
    assert_eq!(page.ask("GET", "/web/main.js", "").header("content-type"), "text/javascript");
    assert_eq!(page.ask("GET", "/lts/", "").status, 200, "the console is beside it");
    let id = page.cut(1.0, 3.5, true);
    assert_eq!(page.task(&id, "")["state"], "held");
    assert_eq!(page.json("GET", &format!("/cuts/{id}"), &json!(null))["after"], json!(null));
    page.json("POST", &format!("/lts/api/v1/tasks/{id}/start"), &json!(null));
    assert_eq!(page.task(&id, "?wait=60s")["state"], "succeeded");
    let cut = page.json("GET", &format!("/cuts/{id}"), &json!(null));
    assert_eq!((&cut["from"], &cut["to"], &cut["before"]["name"]), (&json!(1.0), &json!(3.5), &json!("sample-6s.mp4")));
    let name = cut["after"]["name"].as_str().unwrap();
    let piece = fs::read(place.path().join("media").join(name)).unwrap();
    let media = format!("/media/{}", cut["after"]["id"].as_str().unwrap());
    let whole = page.ask("GET", &media, "");
    assert_eq!((whole.status, whole.body == piece), (200, true), "{}", whole.head);
    assert_eq!((whole.header("content-type"), whole.header("x-content-type-options")), ("video/mp4", "nosniff"));
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let size = piece.len();
    let last = size - 1;
    for (range, part) in [
        ("bytes=0-99".to_owned(), 0..100),
        (format!("bytes={}-", size - 10), size - 10..size),
        ("bytes=-7".to_owned(), size - 7..size),
        (format!("bytes=100-{}", 2 * size), 100..size),
    ] {
        let answer = ask(&page.1, "GET", &media, &[("host", "localhost"), ("range", &range)], "");
        assert_eq!((answer.status, answer.body == piece[part.clone()]), (206, true), "{range}: {}", answer.head);
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/{size}", part.start, part.end - 1), "{range}");
    }
    let beyond = ask(&page.1, "GET", &media, &[("host", "localhost"), ("range", &format!("bytes={size}-"))], "");
    assert_eq!(beyond.status, 416, "{last}: {}", beyond.head);
    assert_eq!(page.ask("DELETE", &format!("/lts/api/v1/tasks/{id}"), "").status, 204);
    assert_eq!(page.ask("GET", &format!("/cuts/{id}"), "").status, 404);
    assert_eq!(page.json("GET", "/lts/api/v1/tasks?q=kind:videocut", &json!(null))["tasks"], json!([]));
}

#[test]
fn the_page_opens_nothing_but_its_videos_and_answers_nobody_else() {
    let place = TempDir::new().unwrap();
    fs::create_dir_all(place.path().join("media/pieces")).unwrap();
    fs::write(place.path().join("secret.mp4"), "secret").unwrap();
    std::os::unix::fs::symlink(place.path().join("secret.mp4"), place.path().join("media/link.mp4")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path().join("media/pieces/passwd.mp4")).unwrap();
    fs::write(place.path().join("media/notes.txt"), "no video").unwrap();
    let page = Page::start(place.path());
    let videos = page.json("GET", "/videos", &json!(null))["videos"].clone();
    let names: Vec<&Value> = videos.as_array().unwrap().iter().map(|video| &video["name"]).collect();
    assert_eq!(names, ["sample-6s.mp4"]);
    for id in [
        "sample-6s.mp4",
        "..%2fsecret.mp4",
        "%2e%2e/secret.mp4",
        "../secret.mp4",
        "%2fetc%2fpasswd",
        "link.mp4",
        "pieces%2fpasswd.mp4",
        "%00",
        "..",
        "notes.txt",
    ] {
        for path in [format!("/media/{id}"), format!("/cuts/{id}"), format!("/web/{id}")] {
            let answer = page.ask("GET", &path, "");
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.head);
            assert!(!String::from_utf8_lossy(&answer.body).contains("secret\0"), "{path}");
        }
    }
    // Whatever a task says: what it names is not among the videos.
    let hostile = json!({"kind": "videocut", "held": true, "payload": {"service": "videocut",
        "input": {"InputVideo": "../secret.mp4", "StartTime": 0, "EndTime": 1}}});
    let id = page.json("POST", "/lts/api/v1/tasks", &hostile)["id"].as_str().unwrap().to_owned();
    let cut = page.json("GET", &format!("/cuts/{id}"), &json!(null));
    assert_eq!((&cut["before"], &cut["after"]), (&json!(null), &json!(null)));
    let wish = json!({"video": videos[0]["id"], "from": 0, "to": 1});
    for (key, value) in [("video", json!("../secret.mp4")), ("to", json!(0)), ("from", json!(-1)), ("to", json!(60))] {
        let mut wrong = wish.clone();
        wrong[key] = value;
        let answer = page.ask("POST", "/cuts", &wrong.to_string());
        assert!(matches!(answer.status, 400 | 404), "{wrong}: {}", answer.head);
    }
    let media = format!("/media/{}", videos[0]["id"].as_str().unwrap());
    for path in ["/", "/videos", &media] {
        assert_eq!(ask(&page.1, "GET", path, &[("host", "evil.example")], "").status, 403, "{path}");
    }
    let foreign = [("host", "localhost"), ("origin", "http://evil.example")];
    assert_eq!(ask(&page.1, "POST", "/cuts", &foreign, &wish.to_string()).status, 403);
    let listed = page.json("GET", "/lts/api/v1/tasks?q=kind:videocut", &json!(null));
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1, "{listed}");
    let output = videocut(place.path(), &["--web", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("for this host only"));
}
