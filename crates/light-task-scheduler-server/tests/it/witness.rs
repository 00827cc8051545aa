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
    check_where(witness, tasks, limit, |_| true).unwrap();
}

/// The same where some tasks come to no end of their own: they only started, once, and count for no limit.
pub(crate) fn check_where(
    witness: &str,
    tasks: u32,
    limit: usize,
    comes_to_its_end: impl Fn(u32) -> bool,
) -> Result<(), String> {
    let mut seen: HashMap<u32, Vec<(&str, &str)>> = HashMap::new();
    let mut running = 0_usize;
    for line in witness.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, pid] = words[..] else { return Err(format!("half a line: {line:?}")) };
        let task: u32 = task.parse().map_err(|_| format!("no task: {line:?}"))?;
        seen.entry(task).or_default().push((what, pid));
        match what {
            "start" => running += usize::from(comes_to_its_end(task)),
            _ => running = running.checked_sub(1).ok_or_else(|| format!("an end without a start: {line:?}"))?,
        }
        if running > limit {
            return Err(format!("{running} at once where {limit} may be, at {line:?}"));
        }
    }
    for task in 0..tasks {
        match (seen.remove(&task).unwrap_or_default().as_slice(), comes_to_its_end(task)) {
            ([("start", started), ("end", ended)], true) if started == ended => {}
            ([("start", _)], false) => {}
            (events, _) => return Err(format!("task {task}: {events:?}")),
        }
    }
    if seen.is_empty() { Ok(()) } else { Err(format!("unknown tasks: {seen:?}")) }
}

/// Random moments and choices, from `LTS_SEED` if it is given: splitmix64.
pub(crate) struct Moments(u64);

impl Moments {
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        let seed = std::env::var("LTS_SEED").map_or_else(|_| random(), |text| text.parse().unwrap());
        println!("LTS_SEED={seed}");
        Moments::of(seed)
    }

    pub(crate) fn of(seed: u64) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_is_seen() {
        let good = "start 0 7\nstart 1 8\nend 1 8\nend 0 7\n";
        assert_eq!(check_where(good, 2, 2, |_| true), Ok(()));
        for (bad, limit, why) in [
            (good, 1, "2 at once"),
            ("start 0 7\nend 0 7\nstart 0 9\nend 0 9\nstart 1 8\nend 1 8\n", 2, "task 0"),
            ("start 0 7\nend 0 7\nend 1 8\n", 2, "an end without a start"),
            ("start 0 7\nend 0 8\nstart 1 8\nend 1 8\n", 2, "task 0"),
            ("start 0 7\nend 0 7\n", 2, "task 1: []"),
            ("start 0 7\nend 0 7\nstart 1", 2, "half a line"),
            ("start 0 7\nend 0 7\nstart 1 8\nend 1 8\nstart 2 8\nend 2 8\n", 2, "unknown"),
        ] {
            let error = check_where(bad, 2, limit, |_| true).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let cut = "start 0 7\nend 0 7\nstart 1 8\n";
        assert!(check_where(cut, 2, 1, |task| task == 0).is_ok());
        assert!(check_where(cut, 2, 1, |_| true).is_err() && check_where(good, 2, 2, |task| task == 0).is_err());
    }
}
