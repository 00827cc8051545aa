//! Commands that leave a trace, and what the traces must look like whatever was killed meanwhile.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::mpsc;
use std::time::Duration;

/// A batch of commands that note their start and their end in the file `witness`.
pub(crate) fn lines(tasks: u32, takes: Duration) -> String {
    let seconds = takes.as_secs_f64();
    let line = |task| format!("echo start {task} $$ >> witness; sleep {seconds}; echo end {task} $$ >> witness\n");
    (0..tasks).map(line).collect()
}

/// Each task started once and ended once, by the same process, and never more than `limit` ran at once.
pub(crate) fn check(witness: &str, tasks: u32, limit: usize) {
    let mut seen: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    let mut running = 0_usize;
    for line in witness.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, pid] = words[..] else { panic!("half a line: {line:?}") };
        seen.entry(task).or_default().push((what, pid));
        running = if what == "start" { running + 1 } else { running - 1 };
        assert!(running <= limit, "{running} at once where {limit} may be, at {line:?}");
    }
    for task in 0..tasks {
        let events = seen.get(task.to_string().as_str()).unwrap_or_else(|| panic!("task {task} never ran"));
        let [("start", started), ("end", ended)] = events[..] else { panic!("task {task}: {events:?}") };
        assert_eq!(started, ended, "task {task}");
    }
}

/// Random moments and choices, from `LTS_SEED` if it is given: splitmix64.
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        let seed = std::env::var("LTS_SEED").map_or_else(|_| random(), |text| text.parse().unwrap());
        println!("LTS_SEED={seed}");
        Moments(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Lets a random time below `most` pass, and says which.
    pub(crate) fn pass(&mut self, most: Duration) -> Duration {
        let time = Duration::from_micros(self.number() % u64::try_from(most.as_micros()).unwrap());
        wait(time);
        time
    }
}

/// Lets time pass. The moment of a fault is what these tests vary: any will do, and none is hoped for.
pub(crate) fn wait(time: Duration) {
    let (_never, wait) = mpsc::channel::<()>();
    let _ = wait.recv_timeout(time);
}

/// Measures real time: these tests are about real processes.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "real time is what is measured")]
    pub(crate) fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    #[allow(clippy::disallowed_methods, reason = "real time is what is measured")]
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
