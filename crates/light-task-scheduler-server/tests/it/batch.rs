//! `lts batch`: counts, outputs, resumption, and the ways to end it.

use std::fs;
use std::io::BufRead;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::support::{Place, Running, said};
use crate::witness::wait;

#[test]
fn counts_outputs_and_failures_are_right() {
    let place = Place::new();
    let lines = "# a comment\n\necho one; echo two >&2\n{\"argv\":[\"echo\",\"a  b\"],\"name\":\"named\"}\n\
                 echo bad >&2; exit 3\nkill -9 $$\n{\"argv\":[\"sleep\",\"60\"],\"timeout\":\"100ms\",\"id\":\"late\"}\n";
    let said = place.write("f", lines).lts(&["batch", "f", "--output", "out", "--joblog", "log", "-j", "2"]);
    assert_eq!((said.code, said.counts()), (1, [5, 2, 3, 0]), "{said:?}");
    for words in ["line 5, id ", "exit code 3: bad", "signal 9", "line 7, id late", "timeout"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(place.read("out/named.stdout"), "a  b\n");
    let files: Vec<_> = fs::read_dir(place.path("out")).unwrap().flatten().collect();
    assert_eq!(files.len(), 10, "two for each, and nothing else: {files:?}");
    let log = place.read("log");
    assert!(log.starts_with("Seq\tId\tStart\tRuntime\tExit\tSignal\tState\tCommand\n"), "{log}");
    let fields = |seq: &str| -> Vec<&str> {
        let line = log.lines().find(|line| line.starts_with(&format!("{seq}\t")));
        line.unwrap_or_else(|| panic!("{seq}: {log}")).split('\t').skip(4).collect()
    };
    assert_eq!(fields("3"), ["0", "0", "succeeded", "echo one; echo two >&2"]);
    assert_eq!(fields("5"), ["3", "0", "failed", "echo bad >&2; exit 3"]);
    assert_eq!(fields("6"), ["137", "9", "failed", "kill -9 $$"]);
}

#[test]
fn a_done_batch_says_so_and_runs_again_only_if_told() {
    let place = Place::new();
    place.write("f", "echo x >> witness\ntest -e fixed && echo y >> witness\n");
    assert_eq!(place.lts(&["batch", "f"]).counts(), [2, 1, 1, 0]);
    let again = place.lts(&["batch", "f", "--json"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("is done already") && again.stderr.contains("--again"), "{again:?}");
    place.write("fixed", "");
    let retried = place.lts(&["batch", "f", "--retry-failed"]);
    assert_eq!((retried.code, retried.counts()), (0, [2, 2, 0, 0]));
    assert_eq!(place.read("witness"), "x\ny\n", "what had succeeded was not run again");
    let done = place.lts(&["batch", "f"]);
    assert_eq!((done.code, done.counts()), (0, [2, 2, 0, 0]));
    assert!(done.stderr.contains("is done already"), "{done:?}");
    assert_eq!(place.lts(&["batch", "f", "--again"]).counts(), [2, 2, 0, 0]);
    assert_eq!(place.read("witness").len(), 8, "all ran once more");
}

#[test]
fn two_files_do_not_collide_and_the_name_finds_a_batch() {
    let place = Place::new();
    place.write("f", "echo >> witness\n").write("g", "echo >> witness\n# another file\n");
    for args in [&["batch", "f"][..], &["batch", "g"], &["batch", "f", "--name", "n"]] {
        assert_eq!(place.lts(args).code, 0);
    }
    assert_eq!(place.read("witness").len(), 3);
    assert_eq!(place.tasks(&["--batch", "n"]).len(), 1);
    // Under its name, a line that stays where it was is the same task.
    place.write("f", "echo >> witness\necho more\n");
    assert_eq!(place.lts(&["batch", "f", "--name", "n"]).counts(), [2, 2, 0, 0]);
    assert_eq!(place.read("witness").len(), 3);
}

#[test]
fn json_is_one_object_per_task_and_a_summary() {
    let place = Place::new();
    place.write("f", "true\nexit 4\n");
    let said = place.lts(&["batch", "f", "--json", "-j", "1"]);
    let objects = said.json();
    assert_eq!(objects.len(), 3, "{said:?}");
    assert_eq!(
        (&objects[0]["line"], &objects[0]["state"], &objects[0]["exit_code"]),
        (&1.into(), &"succeeded".into(), &0.into())
    );
    assert_eq!((&objects[1]["exit_code"], &objects[1]["earlier"]), (&4.into(), &false.into()));
    let summary = &objects[2];
    assert_eq!((&summary["tasks"], &summary["failed"], &summary["unfinished"]), (&2.into(), &1.into(), &0.into()));
    let again = place.lts(&["batch", "f", "--json"]).json();
    assert_eq!((again.len(), &again[0]["earlier"]), (3, &true.into()));
}

#[test]
fn stdin_environment_and_memory() {
    use std::io::Write;
    let place = Place::new();
    let mut command = place.command(&["batch", "-", "--store", "memory:", "--output", "out", "--concurrency", "3"]);
    command.env("GREETING", "hello").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"command\":\"echo $GREETING $MORE\",\"id\":\"x\",\"env\":{\"MORE\":\"world\"}}\n")
        .unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.counts()), (0, [1, 1, 0, 0]), "{said:?}");
    assert_eq!(place.read("out/x.stdout"), "hello world\n");
    assert!(!place.path("lts.db").exists());
}

#[test]
fn retries_are_made_and_rates_are_kept() {
    let place = Place::new();
    place.write("f", "echo >> witness; test $(wc -l < witness) -ge 2\n");
    let retried = place.lts(&["batch", "f", "--retries", "2"]);
    assert_eq!((retried.code, place.read("witness").len()), (0, 2), "{retried:?}");
    place.write("g", &"true\n".repeat(6));
    let said = place.lts(&["batch", "g", "--rate", "20/s", "--json"]);
    let mut starts: Vec<i64> = said.json()[..6]
        .iter()
        .map(|task| {
            task["started_at"].as_str().unwrap().parse::<light_task_scheduler::Timestamp>().unwrap().as_micros()
        })
        .collect();
    starts.sort_unstable();
    assert!(starts[5] - starts[0] >= 249_000, "six starts at 20/s: {starts:?}");
}

#[test]
fn fail_fast_cancels_the_rest() {
    let place = Place::new();
    place.write("f", &format!("exit 1\nsleep 60\n{}", "echo >> witness\n".repeat(3_000)));
    let said = place.lts(&["batch", "f", "--fail-fast", "--concurrency", "2", "--queue", "q"]);
    let [tasks, succeeded, failed, cancelled] = said.counts();
    assert_eq!((said.code, tasks, failed, succeeded + failed + cancelled), (1, 3_002, 1, 3_002), "{said:?}");
    assert!(cancelled > 0, "{said:?}");
    // One that was stopped may have written before.
    assert!(place.read("witness").len() >= succeeded as usize && place.read("witness").len() < 3_000);
    place.assert_no_process_stays();
    let rerun = place.lts(&["batch", "f"]);
    assert_eq!(rerun.counts()[2], 1, "what was not even stored runs now, what was cancelled does not: {rerun:?}");
}

/// A batch whose first command waits for `go`, having said so through `ready`; others come after it.
fn waiting_batch() -> Place {
    let place = Place::new();
    place.fifo("ready");
    place.fifo("go");
    place
        .write("f", "echo begun >> witness; echo > ready; read x < go; echo done >> witness\necho second >> witness\n");
    place
}

#[test]
fn ctrl_c_drains() {
    drained_by(|_, batch| batch.signal(Signal::INT));
}

#[test]
fn an_operator_drains_it_from_afar() {
    drained_by(|place, batch| {
        let listed = place.lts(&["worker", "ls", "--json"]).json();
        let drained = place.lts(&["worker", "drain", listed[0]["id"].as_str().unwrap()]);
        assert_eq!(drained.code, 0, "{drained:?}");
        batch.hear("an operator has this batch drain");
    });
}

/// What has begun ends, and the rest is left to the next run.
fn drained_by(how: impl FnOnce(&Place, &mut Running)) {
    let place = waiting_batch();
    let mut batch = place.start(&["batch", "f", "--concurrency", "1"]);
    place.read("ready");
    how(&place, &mut batch);
    batch.hear("draining");
    fs::write(place.path("go"), "go\n").unwrap();
    let said = batch.end();
    assert_eq!((said.code, said.counts()), (130, [2, 1, 0, 0]), "{said:?}");
    assert!(said.stderr.contains("1 tasks are not finished"), "{said:?}");
    assert_eq!(place.read("witness"), "begun\ndone\n");
    let rest = place.lts(&["batch", "f"]);
    assert_eq!((rest.code, rest.counts()), (0, [2, 2, 0, 0]), "{rest:?}");
    assert_eq!(place.read("witness"), "begun\ndone\nsecond\n");
}

#[test]
fn ctrl_c_twice_stops_and_gives_back() {
    let place = waiting_batch();
    let mut batch = place.start(&["batch", "f", "--concurrency", "1"]);
    place.read("ready");
    batch.signal(Signal::INT);
    batch.hear("draining");
    batch.signal(Signal::INT);
    let said = batch.end();
    assert_eq!((said.code, said.counts()), (130, [2, 0, 0, 0]), "{said:?}");
    place.assert_no_process_stays();
    assert_eq!(place.tasks(&["--state", "waiting"]).len(), 2, "both were given back");
    let rest = place.start(&["batch", "f"]);
    place.read("ready");
    fs::write(place.path("go"), "go\n").unwrap();
    assert_eq!(rest.end().counts(), [2, 2, 0, 0]);
}

#[test]
fn after_a_kill_the_running_command_is_adopted() {
    let place = waiting_batch();
    let batch = place.start(&["batch", "f", "--concurrency", "1", "--joblog", "log"]);
    place.read("ready");
    batch.kill();
    let resumed = place.start(&["batch", "f", "--joblog", "log", "--output", "out"]);
    fs::write(place.path("go"), "go\n").unwrap();
    let said = resumed.end();
    assert_eq!((said.code, said.counts()), (0, [2, 2, 0, 0]), "{said:?}");
    let mut lines: Vec<String> = place.read("witness").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["begun", "done", "second"], "nothing ran twice");
    assert_eq!(place.read("log").lines().count(), 3);
}

#[test]
fn two_processes_share_a_batch() {
    let place = Place::new();
    place.write("f", &"echo >> witness\n".repeat(200));
    let (one, two) = (place.start(&["batch", "f"]), place.start(&["batch", "f"]));
    for said in [one.end(), two.end()] {
        assert_eq!((said.code, said.counts()), (0, [200, 200, 0, 0]), "{said:?}");
    }
    assert_eq!(place.read("witness").len(), 200, "each ran once");
}

#[test]
fn logs_are_followed_while_the_batch_runs_and_cancel_stops_it() {
    let place = Place::new();
    place.fifo("ready");
    place.write("f", "{\"command\":\"echo hello; echo > ready; sleep 60\",\"id\":\"long\"}\n");
    let batch = place.start(&["batch", "f"]);
    place.read("ready");
    let mut logs = place.start(&["logs", "-f", "lo"]);
    let mut line = String::new();
    logs.stdout().read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n", "it is shown while the command runs");
    assert_eq!(place.tasks(&["--state", "running"]).len(), 1);
    let cancelled = place.lts(&["cancel", "lo"]);
    assert_eq!((cancelled.code, cancelled.stdout.as_str()), (0, "long cancelled\n"), "{cancelled:?}");
    let said = batch.end();
    assert_eq!((said.code, said.counts()), (1, [1, 0, 0, 1]), "{said:?}");
    assert_eq!(logs.wait(), 0, "the end of the task is the end of following");
    place.assert_no_process_stays();
}

/// A batch of one command that takes its time to die and says so; then the scheduler is killed.
fn killed_while(timeout: &str, stop: impl FnOnce(&Place)) -> Place {
    let place = Place::new();
    for name in ["ready", "dying", "go"] {
        place.fifo(name);
    }
    let command = "echo start >> witness; test -e again && exit 0; \
                   trap 'echo > dying; read x < go; exit 3' TERM; echo > ready; while :; do sleep 0.01; done";
    place.write("f", &format!("{}\n", serde_json::json!({ "command": command, "timeout": timeout })));
    let batch = place.start(&["batch", "f"]);
    place.read("ready");
    stop(&place);
    place.read("dying");
    batch.kill();
    fs::write(place.path("go"), "go\n").unwrap();
    place.assert_no_process_stays();
    place.write("again", "");
    place
}

#[test]
fn what_ran_out_of_time_is_not_run_again_if_the_scheduler_dies_while_it_stops() {
    let place = killed_while("100ms", |_| {});
    let said = place.lts(&["batch", "f"]);
    assert_eq!((said.code, said.counts()), (1, [1, 0, 1, 0]), "{said:?}");
    assert!(said.stderr.contains("longer than its timeout of 100ms"), "{said:?}");
    assert_eq!(place.read("witness"), "start\n", "it had its time");
}

#[test]
fn what_somebody_else_stopped_is_run_again_however_late_it_is() {
    let place = killed_while("2s", |place| {
        let [supervisor] = place.processes_called("lts-supervisor")[..] else { panic!("one supervisor") };
        kill_process(supervisor, Signal::TERM).unwrap();
    });
    // Its time is up by now.
    wait(Duration::from_secs(2));
    let said = place.lts(&["batch", "f"]);
    assert_eq!((said.code, said.counts()), (0, [1, 1, 0, 0]), "{said:?}");
    assert_eq!(place.read("witness"), "start\nstart\n");
}
