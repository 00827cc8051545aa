//! The simulator: thousands of schedules with crashes, partitions, pauses and lost answers, each from one seed.
//!
//! A failing run prints the command that repeats it exactly, with a trace.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use light_task_scheduler::testing::bugs::Bug;
use light_task_scheduler::testing::sim::{Fault, FaultCounts, Options, Outcome, Violation, simulate};

/// How many schedules a run of the suite simulates; `SIM_SCHEDULES` changes it.
const SCHEDULES: u64 = 10_000;
/// Within how many schedules a seeded bug must be found.
const BUG_SCHEDULES: u64 = 20_000;
const THREADS: u64 = 2;

/// Seeds that have failed once: they run first, for ever.
const FAILED_ONCE: &str = include_str!("seeds.txt");

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

fn run(seed: u64, bug: Option<Bug>) -> Outcome {
    simulate(Options { seed, bug, trace: false }).unwrap()
}

fn failed_once() -> Vec<u64> {
    let words = FAILED_ONCE.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next());
    words.map(|word| word.parse().unwrap()).collect()
}

/// What many runs have shown.
#[derive(Default)]
struct Tally {
    runs: u64,
    calls: u64,
    faults: FaultCounts,
    violations: BTreeMap<u64, Violation>,
}

/// Simulates these seeds side by side, until all are done or enough have failed.
fn run_all(seeds: &[u64], bug: Option<Bug>, enough: usize) -> Tally {
    let (next, tally) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Tally::default())));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, SeqCst) as usize) {
                    let outcome = run(*seed, bug);
                    let mut tally = tally.lock().unwrap();
                    tally.runs += 1;
                    tally.calls += outcome.calls;
                    tally.faults.add(&outcome.faults);
                    tally.violations.extend(outcome.violation.map(|violation| (*seed, violation)));
                    if tally.violations.len() >= enough {
                        return;
                    }
                }
            });
        }
    });
    std::mem::take(&mut *tally.lock().unwrap())
}

fn describe(seed: u64, violation: &Violation) -> String {
    format!(
        "seed {seed} breaks {}: {}\nrepeat it with a trace: SIM_SEED={seed} cargo nextest run \
         -p light-task-scheduler --features testing --no-capture one_schedule_with_a_trace",
        violation.rule, violation.message
    )
}

#[test]
fn no_schedule_breaks_a_rule() {
    let count = number("SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds: Vec<u64> = failed_once().into_iter().chain(first..first + count).collect();
    let tally = run_all(&seeds, None, 10);
    let failures: Vec<String> = tally.violations.iter().map(|(seed, violation)| describe(*seed, violation)).collect();
    println!("counted: {} simulated schedules, {} calls of the store", tally.runs, tally.calls);
    for fault in Fault::ALL {
        println!("{:>10}  {fault:?}", tally.faults.of(fault));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A fault that never happened was never tested.
    assert_eq!(tally.faults.missing(), [], "faults that never happened in {} schedules", tally.runs);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..50 {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Simulates `SIM_SEED` (default: 0), with the bug `SIM_BUG` if it is set, and prints what happens.
#[test]
fn one_schedule_with_a_trace() {
    let seed = number("SIM_SEED").unwrap_or(0);
    let bug = std::env::var("SIM_BUG").ok().map(|name| {
        let named = |bug: &Bug| format!("{bug:?}") == name;
        Bug::ALL.into_iter().find(named).unwrap_or_else(|| panic!("{name} is not one of {:?}", Bug::ALL))
    });
    let outcome = simulate(Options { seed, bug, trace: true }).unwrap();
    for line in &outcome.trace {
        println!("{line}");
    }
    assert!(!outcome.trace.is_empty());
    assert!(bug.is_some() || outcome.violation.is_none(), "{:?}", outcome.violation);
}

#[test]
fn every_seeded_bug_is_found() {
    let seeds: Vec<u64> = (0..BUG_SCHEDULES).collect();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let tally = run_all(&seeds, Some(bug), 1);
        match tally.violations.first_key_value() {
            Some((seed, violation)) => {
                println!("{bug:?} -> found after {} schedules by {} (seed {seed})", tally.runs, violation.rule);
            }
            None => missed.push(bug),
        }
    }
    println!("counted: {} of {} seeded bugs found", Bug::ALL.len() - missed.len(), Bug::ALL.len());
    assert_eq!(missed, [], "bugs that {BUG_SCHEDULES} schedules have not found");
}
