//! The work that people have: checksums and compressions of files, some of which fail, and some of which never end.
//! Killed at random moments and run again, a batch of them loses nothing, runs nothing twice, and leaves nothing behind.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::Place;
use crate::witness::{Moments, check_where};

/// How often the batch is killed, unless `LTS_KILLS` says otherwise.
const KILLS_DEFAULT: u32 = 2;
/// How many commands there are for each kill: enough that it finds some running. 20 kills make 1,000.
const COMMANDS_PER_KILL: u32 = 50;
/// How many run at once.
const LIMIT: &str = "4";
/// The latest moment of a kill after the start of the program.
const KILL_MAX: Duration = Duration::from_millis(800);
/// Of so many commands one fails, and one runs until its timeout.
const PERIOD: u32 = 25;
/// How many files there are, and the bytes of each.
const FILES: u32 = 16;
const FILE_BYTES: usize = 400_000;

/// What a command is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Checksum,
    Compress,
    /// Exits with 1.
    Fail,
    /// Runs until its timeout.
    Overrun,
}

fn work(task: u32) -> Work {
    match (task % PERIOD, task % 2) {
        (7, _) => Work::Fail,
        (19, _) => Work::Overrun,
        (_, 0) => Work::Checksum,
        _ => Work::Compress,
    }
}

fn file(task: u32) -> String {
    format!("data/{}", task % FILES)
}

/// A command that notes its start and its end, which it never comes to if it overruns.
fn line(task: u32) -> String {
    let file = file(task);
    let (command, timeout) = match work(task) {
        Work::Checksum => (format!("sha256sum {file}"), "1m"),
        Work::Compress => (format!("gzip -c {file} > gz/{task}.gz && sha256sum < {file}"), "1m"),
        Work::Fail => (format!("gzip -t {file}"), "1m"),
        Work::Overrun => (format!("while sha256sum {file} >> spun; do :; done"), "400ms"),
    };
    let noted =
        format!("echo start {task} $$ >> witness; {command}; code=$?; echo end {task} $$ >> witness; exit $code");
    format!("{}\n", serde_json::json!({ "id": format!("t{task}"), "command": noted, "timeout": timeout }))
}

/// Files of words, which can be compressed, no two of them the same.
fn generate(place: &Place) {
    fs::create_dir_all(place.path("data")).unwrap();
    fs::create_dir_all(place.path("gz")).unwrap();
    for number in 0..FILES {
        let mut numbers = Moments::of(number.into());
        let mut text = String::with_capacity(FILE_BYTES);
        while text.len() < FILE_BYTES {
            let number = numbers.number();
            write!(text, "{:x} {} ", number % 4_096, number >> 44).unwrap();
        }
        fs::write(place.path(&format!("data/{number}")), text).unwrap();
    }
}

/// The checksums, by another way.
fn checksums(place: &Place) -> BTreeMap<String, String> {
    let files: Vec<String> = (0..FILES).map(file).collect();
    let output = Command::new("sha256sum").args(&files).current_dir(place.path("")).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let pairs = lines.lines().filter_map(|line| line.split_once("  "));
    pairs.map(|(sum, file)| (file.to_owned(), sum.to_owned())).collect()
}

fn check_outputs(place: &Place, tasks: u32) {
    let sums = checksums(place);
    for task in 0..tasks {
        let (file, stdout) = (file(task), place.read(&format!("out/t{task}.stdout")));
        match work(task) {
            Work::Checksum => assert_eq!(stdout, format!("{}  {file}\n", sums[&file]), "task {task}"),
            Work::Compress => {
                assert_eq!(stdout, format!("{}  -\n", sums[&file]), "task {task}");
                let gzip = Command::new("gzip").arg("-dc").arg(place.path(&format!("gz/{task}.gz"))).output().unwrap();
                assert!(gzip.stdout == fs::read(place.path(&file)).unwrap(), "task {task} compressed another file");
            }
            Work::Fail => {
                let stderr = place.read(&format!("out/t{task}.stderr"));
                assert!(stdout.is_empty() && stderr.contains("not in gzip format"), "task {task}: {stderr:?}");
            }
            Work::Overrun => assert!(place.path(&format!("out/t{task}.stdout")).exists(), "task {task}"),
        }
    }
}

/// Each task has one line in the job log, with the end that it must have.
fn check_joblog(log: &str, tasks: u32) {
    let mut seen = HashSet::new();
    for line in log.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let task: u32 = fields[1].strip_prefix('t').unwrap().parse().unwrap();
        assert!(seen.insert(task), "task {task} ended twice");
        match work(task) {
            Work::Checksum | Work::Compress => assert_eq!(fields[4..7], ["0", "0", "succeeded"], "{line}"),
            Work::Fail => assert_eq!(fields[4..7], ["1", "0", "failed"], "{line}"),
            Work::Overrun => assert_eq!(fields[6], "failed", "{line}"),
        }
    }
    assert_eq!(seen.len(), tasks as usize, "each task has ended");
}

#[test]
fn real_commands_killed_at_random_moments_end_once_with_the_right_outputs() {
    let kills: u32 = std::env::var("LTS_KILLS").map_or(KILLS_DEFAULT, |text| text.parse().unwrap());
    let tasks = kills.max(1) * COMMANDS_PER_KILL;
    let place = Place::new();
    generate(&place);
    place.write("f", &(0..tasks).map(line).collect::<String>());
    let args = ["batch", "f", "--concurrency", LIMIT, "--output", "out", "--joblog", "log"];
    let mut moments = Moments::new();
    let mut hits = 0;
    for kill in 0..kills {
        let batch = place.start(&args);
        let moment = moments.pass(KILL_MAX);
        batch.kill();
        let ended = place.read("log").lines().count().saturating_sub(1);
        hits += u32::from(ended < tasks as usize);
        println!("kill {}: after {moment:?}, {ended} of {tasks} had ended", kill + 1);
    }
    let said = place.lts(&args);
    let count =
        |wanted: &[Work]| u32::try_from((0..tasks).filter(|task| wanted.contains(&work(*task))).count()).unwrap();
    let (succeeded, failed) = (count(&[Work::Checksum, Work::Compress]), count(&[Work::Fail, Work::Overrun]));
    assert_eq!((said.code, said.counts()), (1, [tasks, succeeded, failed, 0]), "{said:?}");
    place.assert_no_process_stays();
    check_where(&place.read("witness"), tasks, LIMIT.parse().unwrap(), |task| work(task) != Work::Overrun).unwrap();
    check_outputs(&place, tasks);
    check_joblog(&place.read("log"), tasks);
    let stored = place.tasks(&[]);
    assert_eq!(stored.len(), tasks as usize);
    for task in &stored {
        let number = task["id"].as_str().unwrap()[1..].parse().unwrap();
        let timed_out = task["failure"]["kind"] == "timeout";
        assert_eq!(timed_out, work(number) == Work::Overrun, "{task}");
    }
    println!(
        "counted: {kills} kills, {hits} of them amid the work, {tasks} real commands: each ran once and ended once"
    );
}
