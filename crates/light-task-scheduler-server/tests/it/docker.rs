//! Containers by `lts`, on a real engine; scheduler and engine are killed while they run.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{Place, Running, Said, said};
use crate::witness::{Moments, Stopwatch, wait};

/// How many containers there are, and how often the scheduler is killed, unless the variables say otherwise.
const TASKS: (&str, u32) = ("LTS_DOCKER_TASKS", 6);
const KILLS: (&str, u32) = ("LTS_DOCKER_KILLS", 3);
/// The same where the engine is killed.
const ENGINE_TASKS: (&str, u32) = ("LTS_DOCKERD_TASKS", 6);
const ENGINE_KILLS: (&str, u32) = ("LTS_DOCKERD_KILLS", 1);
/// How many lines a container prints, and how long it takes for each.
const LINES: u32 = 30;
const LINE_SECONDS: &str = "0.1";
/// Containers at once.
const LIMIT: &str = "4";
/// The exit code of each third container.
const CODE: u32 = 3;
/// The latest moment of a kill after the last one.
const KILL_MAX: Duration = Duration::from_secs(2);
/// Within this time of the last fault nothing is left.
const CLEAN_WITHIN: Duration = Duration::from_secs(60);

fn count((variable, otherwise): (&str, u32)) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `eval \"$(TCP=1 scripts/servers/docker start DIR)\"` first"))
}

/// A place whose containers run on an engine, and may write into its directory `out`.
struct Dock {
    place: Place,
    engine: String,
    image: String,
}

impl Dock {
    fn new(engine: &str, image: &str) -> Self {
        let place = Place::new();
        fs::create_dir(place.path("out")).unwrap();
        let policy = serde_json::json!({
            "engines": [{ "address": engine, "capacity": 1_000 }],
            "policy": { "binds": [{ "path": place.path("out"), "writable": true }] },
            "reap_interval": { "secs": 0, "nanos": 500_000_000 },
        });
        place.write("docker.json", &policy.to_string());
        Dock { place, engine: engine.to_owned(), image: image.to_owned() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.env("LTS_DOCKER_CONFIG", self.place.path("docker.json"));
        command
    }

    fn lts(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    fn start(&self, args: &[&str]) -> Running {
        let child: Child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running::new(child)
    }

    /// Writes the batch: each container notes its start, prints its lines, and each third fails.
    fn write_batch(&self, tasks: u32) {
        let lines = (0..tasks).map(|task| {
            let code = if task % 3 == 2 { CODE } else { 0 };
            let script = format!(
                "echo $LTS_EXECUTION >>/out/starts; i=0; while [ $i -lt {LINES} ]; do echo line $i of {task}; \
                 i=$((i+1)); sleep {LINE_SECONDS}; done; exit {code}"
            );
            let out = self.place.path("out");
            let spec = serde_json::json!({
                "image": self.image, "pull": "never", "cmd": ["sh", "-c", script],
                "volumes": [{ "source": out, "target": "/out", "writable": true }],
            });
            format!("{}\n", serde_json::json!({ "docker": spec, "id": format!("task-{task}") }))
        });
        self.place.write("f", &lines.collect::<String>());
    }

    fn batch(&self) -> [&'static str; 7] {
        ["batch", "f", "--concurrency", LIMIT, "--output", "logs", "--json"]
    }

    /// How often each task was started.
    fn starts(&self) -> HashMap<String, usize> {
        let mut starts = HashMap::new();
        for line in self.place.read("out/starts").lines() {
            let task = line.split('/').nth(1).unwrap_or_else(|| panic!("half a line: {line:?}"));
            *starts.entry(task.to_owned()).or_default() += 1;
        }
        starts
    }

    /// Looks at what has become of the batch; answers how many starts were one too many, and how many lines are lost.
    fn check(&self, tasks: u32, said: &Said) -> (usize, u32) {
        let summary = said.json().pop().unwrap_or_else(|| panic!("no summary: {said:?}"));
        let failed = tasks / 3;
        let code_of = |task: &serde_json::Value| task["exit_code"].as_i64();
        assert!(said.json().iter().filter(|task| task["state"] == "succeeded").all(|task| code_of(task) == Some(0)));
        assert_eq!((&summary["succeeded"], &summary["failed"]), (&(tasks - failed).into(), &failed.into()), "{said:?}");
        let starts = self.starts();
        let mut lost_lines = 0;
        for task in self.place.tasks(&[]) {
            let id = task["id"].as_str().unwrap();
            let number: u32 = id.strip_prefix("task-").unwrap().parse().unwrap();
            lost_lines += lines_lost(id, number, &self.place.read(&format!("logs/{id}.stdout")));
            let attempts = self.place.lts(&["show", id, "--json"]).json()[0]["attempts"].as_array().cloned().unwrap();
            let lost = attempts.iter().filter(|attempt| attempt["failure"]["kind"] == "lost").count();
            let started = starts.get(id).copied().unwrap_or_default();
            assert!((1..=1 + lost).contains(&started), "{id} runs again only if its engine has lost it: {task}");
            if number % 3 == 2 {
                assert_eq!(task["failure"]["exit_code"], CODE, "{task}");
            }
        }
        assert_eq!(starts.len(), tasks as usize, "each has run: {starts:?}");
        (starts.values().map(|times| times - 1).sum(), lost_lines)
    }

    /// Nothing is left on the engine, as soon as a scheduler has looked twice.
    fn assert_nothing_stays(&self) {
        let since = Stopwatch::start();
        while !self.containers().is_empty() {
            assert!(since.elapsed() < CLEAN_WITHIN, "containers are left: {}", self.containers());
            let reaper = self.lts(&["run", "--", "sleep", "3"]);
            assert_eq!(reaper.code, 0, "{reaper:?}");
        }
    }

    /// The labels of this place's containers. The engine is asked past everything of ours.
    fn containers(&self) -> String {
        let socket = self.engine.strip_prefix("unix://").unwrap();
        let out = self.place.path("out");
        let all = Command::new("curl")
            .args(["-sSf", "--unix-socket", socket, "http://engine/containers/json?all=1"])
            .output()
            .unwrap();
        assert!(all.status.success(), "{}", String::from_utf8_lossy(&all.stderr));
        let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
        let shows_out = |mount: &serde_json::Value| mount["Source"].as_str() == out.to_str();
        let ours =
            all.as_array().unwrap().iter().filter(|found| found["Mounts"].as_array().unwrap().iter().any(shows_out));
        ours.map(|found| format!("{} ", found["Labels"]["lts.task"])).collect()
    }
}

/// How many lines a log lacks; what it has is in order, once each, and whole.
fn lines_lost(id: &str, task: u32, log: &str) -> u32 {
    let ending = format!(" of {task}");
    let number = |line: &str| line.strip_prefix("line ")?.strip_suffix(&ending)?.parse::<u32>().ok();
    let numbers: Vec<Option<u32>> = log.lines().map(number).collect();
    assert!(numbers.iter().all(Option::is_some) && numbers.is_sorted_by(|a, b| a < b), "{id}: {log}");
    LINES - u32::try_from(numbers.len()).unwrap()
}

/// An engine of a test's own.
struct Engine {
    directory: TempDir,
    live_restore: bool,
    image: String,
}

impl Engine {
    fn start(live_restore: bool) -> Self {
        let mut engine = Engine { directory: TempDir::new().unwrap(), live_restore, image: String::new() };
        let variables = engine.run("start");
        let image = variables.lines().find_map(|line| line.strip_prefix("export LTS_TEST_DOCKER_IMAGE="));
        engine.image = image.unwrap().to_owned();
        engine
    }

    fn address(&self) -> String {
        format!("unix://{}/e/docker.sock", self.directory.path().display())
    }

    fn run(&self, command: &str) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/servers/docker");
        let mut run = Command::new(script);
        run.arg(command).arg(self.directory.path().join("e")).env_remove("LIVE_RESTORE").env_remove("TCP");
        if self.live_restore {
            run.env("LIVE_RESTORE", "1");
        }
        let output = run.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills dockerd as a crash would, and starts it again.
    fn kill(&self) {
        let pid = fs::read_to_string(self.directory.path().join("e/dockerd.pid")).unwrap();
        let pid: i32 = pid.trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let lives = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            std::thread::yield_now();
        }
        self.run("start");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.run("stop");
    }
}

#[test]
fn a_container_is_run_like_a_command() {
    let image = variable("LTS_TEST_DOCKER_IMAGE");
    let dock = Dock::new(&variable("LTS_TEST_DOCKER_HOST"), &image);
    let run = ["run", "--id", "x", "--env", "A=b c", "--docker", &image, "--", "sh", "-c", "echo $A; exit 7"];
    let said = dock.lts(&run);
    assert_eq!((said.code, said.stdout.as_str()), (7, "b c\n"), "{said:?}");
    assert_eq!(dock.place.lts(&["logs", "x"]).stdout, "b c\n");
    let table = dock.place.lts(&["ls"]).stdout;
    assert!(table.contains(&format!("docker run {image} sh -c 'echo $A; exit 7'")), "{table}");
    let missing = dock.lts(&["run", "--docker", &image, "--", "no-such-program"]);
    assert!(missing.code == 127 && missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[test]
fn without_an_engine_the_run_says_where_it_looked() {
    let place = Place::new();
    let mut run = place.command(&["run", "--docker", "busybox", "--", "true"]);
    run.env("DOCKER_HOST", "unix:///nowhere/docker.sock").env_remove("LTS_DOCKER_CONFIG");
    let said = said(run.output().unwrap());
    assert!(said.code == 6 && said.stderr.contains("unix:///nowhere/docker.sock"), "{said:?}");
}

#[test]
fn a_killed_scheduler_finds_its_containers_again() {
    let (tasks, kills) = (count(TASKS), count(KILLS));
    let engine = Engine::start(false);
    let dock = Dock::new(&engine.address(), &engine.image);
    dock.write_batch(tasks);
    let mut moments = Moments::new();
    for _ in 0..kills {
        let batch = dock.start(&dock.batch());
        moments.pass(KILL_MAX);
        batch.kill();
    }
    let said = dock.lts(&dock.batch());
    assert_eq!(dock.check(tasks, &said), (0, 0), "each runs once, its log is whole: {:?}", dock.starts());
    dock.assert_nothing_stays();
    println!("counted: {kills} kills of a scheduler with {tasks} containers: each ran once, its log whole");
}

/// Kills the engine under a batch; answers how many runs were repeated, and how many lines are lost.
fn engine_killed(live_restore: bool, kills: u32) -> (usize, u32) {
    let tasks = count(ENGINE_TASKS);
    let engine = Engine::start(live_restore);
    let dock = Dock::new(&engine.address(), &engine.image);
    dock.write_batch(tasks);
    let mut moments = Moments::new();
    let batch = dock.start(&dock.batch());
    for _ in 0..kills {
        wait(Duration::from_secs(1));
        moments.pass(KILL_MAX);
        engine.kill();
    }
    let said = batch.end();
    let (repeated, lost_lines) = dock.check(tasks, &said);
    // What an engine has read and not yet written goes with it, and what a container that ends without it has left in
    // its pipes. What there is must be in order, once each: that is checked for each log.
    dock.assert_nothing_stays();
    (repeated, lost_lines)
}

#[test]
fn an_engine_that_dies_under_live_restore_costs_nothing_that_it_remembers() {
    let kills = count(ENGINE_KILLS);
    // An engine that is killed just when it takes note of an exit code has lost it.
    let (repeated, lines) = engine_killed(true, kills);
    println!("counted: {kills} kills of an engine under live-restore: {repeated} runs repeated, {lines} lines lost");
}

#[test]
fn an_engine_that_takes_its_containers_along_is_no_failure_of_theirs() {
    // Each loss of a run in a row counts against it, up to five.
    let kills = count(ENGINE_KILLS);
    let (repeated, lines) = engine_killed(false, kills);
    println!("counted: {kills} kills of an engine with its containers: {repeated} runs repeated, {lines} lines lost");
}
