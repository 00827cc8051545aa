//! Killed at random moments and run again, a batch loses nothing and runs nothing twice.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::Place;

/// How often the batch is killed, unless `LTS_KILLS` says otherwise.
const KILLS_DEFAULT: u32 = 2;
/// How many commands there are for each kill: enough that it finds some running.
const COMMANDS_PER_KILL: u32 = 12;
/// How long each command takes, in milliseconds.
const COMMAND_MS: u32 = 100;
/// The latest moment of a kill after the start of the program, in milliseconds.
const KILL_MS_MAX: u64 = 400;

#[test]
fn killed_at_random_moments_every_task_ends_once() {
    let kills: u32 = std::env::var("LTS_KILLS").map_or(KILLS_DEFAULT, |text| text.parse().unwrap());
    let tasks = kills.max(1) * COMMANDS_PER_KILL;
    let place = Place::new();
    let seconds = f64::from(COMMAND_MS) / 1e3;
    let line = |task| format!("echo start {task} $$ >> witness; sleep {seconds}; echo end {task} $$ >> witness\n");
    place.write("f", &(0..tasks).map(line).collect::<String>());
    let mut moments = Moments::new();
    for kill in 0..kills {
        let batch = place.start(&["batch", "f", "--concurrency", "4"]);
        let moment = moments.draw();
        // The moment of the kill is what is tested here: any will do.
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        let _ = wait.recv_timeout(moment);
        batch.kill();
        println!(
            "kill {}: after {moment:?}, {} lines in the witness file",
            kill + 1,
            place.read("witness").lines().count()
        );
    }
    let said = place.lts(&["batch", "f", "--concurrency", "4"]);
    assert_eq!((said.code, said.counts()), (0, [tasks, tasks, 0, 0]), "{said:?}");
    check(&place.read("witness"), tasks);
    assert_eq!(place.processes(), Vec::<String>::new(), "no process is left");
    println!("counted: {kills} kills, {tasks} tasks: each ran once and ended once");
}

/// Each task started once and ended once, by the same process.
fn check(witness: &str, tasks: u32) {
    let mut seen: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for line in witness.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, pid] = words[..] else { panic!("half a line: {line:?}") };
        seen.entry(task).or_default().push((what, pid));
    }
    for task in 0..tasks {
        let events = seen.get(task.to_string().as_str()).unwrap_or_else(|| panic!("task {task} never ran"));
        let [("start", started), ("end", ended)] = events[..] else { panic!("task {task}: {events:?}") };
        assert_eq!(started, ended, "task {task}");
    }
}

/// The moments of the kills, from `LTS_SEED` if it is given: splitmix64.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let random = || RandomState::new().build_hasher().finish();
        let seed = std::env::var("LTS_SEED").map_or_else(|_| random(), |text| text.parse().unwrap());
        println!("LTS_SEED={seed}");
        Moments(seed)
    }

    fn draw(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis((mixed ^ (mixed >> 31)) % KILL_MS_MAX)
    }
}
