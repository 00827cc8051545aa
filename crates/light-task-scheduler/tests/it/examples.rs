//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Cargo builds examples beside the directory of the test binary.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(built.exists(), "{} is not built", built.display());
    built
}

fn run(name: &str, argument: Option<&Path>) -> String {
    let Output { status, stdout, stderr } = Command::new(example(name)).args(argument).output().unwrap();
    assert!(status.success(), "{name}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn quickstart_adds() {
    assert_eq!(run("quickstart", None), "1 + 2 = 3\n");
}

#[test]
fn add_ends_the_same_way_with_all_three_trackings() {
    let printed = run("add", None);
    let ends: Vec<&str> = printed.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(ends, ["20 of 20 sums after 35 attempts"; 3], "{printed}");
}

#[cfg(feature = "docker")]
#[test]
fn docker_adds_and_stops_what_takes_too_long() {
    let mut docker = Command::new(example("docker"));
    docker.env("DOCKER_HOST", crate::servers::docker_engine().address).env_remove("DOCKER_TLS_VERIFY");
    let Output { status, stdout, stderr } = docker.arg(crate::servers::docker_image()).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let printed = String::from_utf8(stdout).unwrap();
    let expected = "1 + 1 = 2\n2 + 2 = 4\n3 + 3 = 6\n4 + 4 = 8\nthe slow one: failed after 2 attempts\n";
    assert_eq!(printed, expected);
}

#[cfg(feature = "sqlite")]
#[test]
fn durable_goes_on_after_a_kill() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("durable.db");
    let mut first = Command::new(example("durable")).arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "square-0 = 0\n", "the first has ended, others run or wait");
    first.kill().unwrap();
    first.wait().unwrap();

    let printed = run("durable", Some(&file));
    let expected: Vec<String> = (0..100).map(|n| format!("square-{n} = {}", n * n)).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
