//! Killed at random moments and run again, a batch loses nothing and runs nothing twice.

use std::time::Duration;

use crate::support::Place;
use crate::witness::{Moments, check, lines};

/// How often the batch is killed, unless `LTS_KILLS` says otherwise.
const KILLS_DEFAULT: u32 = 2;
/// How many commands there are for each kill: enough that it finds some running.
const COMMANDS_PER_KILL: u32 = 12;
/// How long each command takes.
const COMMAND: Duration = Duration::from_millis(100);
/// The latest moment of a kill after the start of the program.
const KILL_MAX: Duration = Duration::from_millis(400);

#[test]
fn killed_at_random_moments_every_task_ends_once() {
    let kills: u32 = std::env::var("LTS_KILLS").map_or(KILLS_DEFAULT, |text| text.parse().unwrap());
    let tasks = kills.max(1) * COMMANDS_PER_KILL;
    let place = Place::new();
    place.write("f", &lines(tasks, COMMAND));
    let mut moments = Moments::new();
    for kill in 0..kills {
        let batch = place.start(&["batch", "f", "--concurrency", "4"]);
        let moment = moments.pass(KILL_MAX);
        batch.kill();
        println!(
            "kill {}: after {moment:?}, {} lines in the witness file",
            kill + 1,
            place.read("witness").lines().count()
        );
    }
    let said = place.lts(&["batch", "f", "--concurrency", "4"]);
    assert_eq!((said.code, said.counts()), (0, [tasks, tasks, 0, 0]), "{said:?}");
    check(&place.read("witness"), tasks, 4);
    place.assert_no_process_stays();
    println!("counted: {kills} kills, {tasks} tasks: each ran once and ended once");
}
