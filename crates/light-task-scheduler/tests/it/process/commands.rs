//! What a command is given, and what is told of its end.

use std::path::PathBuf;

use light_task_scheduler::executor::process::{CommandSpec, Limits, ProcessConfig};
use light_task_scheduler::{Executor, FailureKind, NewTask, ProcessExecutor};

use super::support::{end_of, executor, failure, refusal, result, run_of, sh};

#[tokio::test]
async fn success_says_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = end_of(&executor(dir.path()), &sh("printf out; printf errors >&2")).await;
    let result = result(&outcome);
    assert_eq!((result.exit_code, result.stdout_bytes, result.stderr_bytes), (0, 3, 6));
    assert!(result.max_rss_kib > 0);
}

#[tokio::test]
async fn an_exit_code_is_a_failure_with_the_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let failure = failure(end_of(&executor(dir.path()), &sh("echo first >&2; echo no disk >&2; exit 3")).await);
    assert_eq!((failure.message.as_str(), failure.exit_code), ("exit code 3: no disk", Some(3)));
    assert_eq!((failure.kind, failure.fatal), (FailureKind::Error, false));
}

#[tokio::test]
async fn a_signal_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let failure = failure(end_of(&executor(dir.path()), &sh("kill -SEGV $$")).await);
    assert_eq!((failure.message.as_str(), failure.exit_code), ("killed by signal 11 SIGSEGV", Some(139)));
}

#[tokio::test]
async fn what_cannot_start_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let text = dir.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    let said = async |spec: CommandSpec| refusal(&executor, &spec).await.message;
    assert_eq!(said(CommandSpec::new(["fooo"])).await, "no such program: fooo");
    assert_eq!(said(CommandSpec::new(["/no/such"])).await, "no such program: /no/such");
    assert_eq!(said(CommandSpec::new(["/tmp"])).await, "not a program: /tmp");
    let path = text.to_str().unwrap();
    assert_eq!(said(CommandSpec::new([path])).await, format!("not executable: {path}"));
    let cwd = CommandSpec { cwd: Some(PathBuf::from("/no/dir")), ..CommandSpec::new(["true"]) };
    assert_eq!(said(cwd).await, "no such directory: /no/dir");
    assert!(said(CommandSpec::new(Vec::<String>::new())).await.contains("argv is empty"));
    let namespaces: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(namespaces.len(), 1);
    assert_eq!(std::fs::read_dir(&namespaces[0]).unwrap().count(), 0, "nothing is left of them");
}

#[tokio::test]
async fn only_the_programs_that_are_allowed_are_run() {
    let dir = tempfile::tempdir().unwrap();
    let config = ProcessConfig { programs: Some(vec!["/bin/true".to_owned()]), ..super::support::config(dir.path()) };
    let executor = ProcessExecutor::new(config).unwrap();
    assert!(result(&end_of(&executor, &CommandSpec::new(["/bin/true"])).await).exit_code == 0);
    // Neither another program, nor the same by a name that a task's own PATH could lead elsewhere.
    for argv in ["/bin/false", "true", "/bin/../bin/true"] {
        let spec = CommandSpec::new([argv]);
        let early = executor.prepare(&NewTask::new("process", &spec).unwrap()).await.unwrap_err();
        assert!(early.to_string().contains("may not be run here; allowed are /bin/true"), "{early}");
        assert_eq!(refusal(&executor, &spec).await.message, early.to_string());
    }
}

#[tokio::test]
async fn a_file_that_is_no_program_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, "echo hello\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let executor = executor(dir.path());
    let spec = CommandSpec::new([path.to_str().unwrap()]);
    assert!(refusal(&executor, &spec).await.message.contains("#!/bin/sh"));
    std::fs::write(&path, "#!/no/interpreter\n").unwrap();
    assert!(refusal(&executor, &spec).await.message.contains("no interpreter"));
}

#[tokio::test]
async fn the_environment_is_a_list_of_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    // CARGO_MANIFEST_DIR is in the environment of every test.
    let mut spec =
        sh(r#"test -z "$CARGO_MANIFEST_DIR" && test -n "$PATH" && test "$MINE" = "a b" && test -z "$LTS_LAUNCHER""#);
    spec.env.insert("MINE".into(), "a b".into());
    result(&end_of(&executor, &spec).await);
    let script = r#"test -n "$CARGO_MANIFEST_DIR" && test -z "$HOME" && test "$LTS_EXECUTION" = "$0""#;
    let mark = run_of("task", 1, &sh("")).execution_name();
    let mut allowed = CommandSpec::new(["sh", "-c", script, mark.as_str()]);
    allowed.env_allow = Some(vec!["PATH".into(), "CARGO_MANIFEST_DIR".into()]);
    result(&end_of(&executor, &allowed).await);
}

#[tokio::test]
async fn directory_and_input_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let here = dir.path().canonicalize().unwrap();
    let mut spec = sh(&format!(r#"test "$(pwd)" = "{}" && test "$(cat)" = "hello""#, here.display()));
    spec.cwd = Some(here);
    spec.stdin = Some("hello".into());
    result(&end_of(&executor, &spec).await);
    result(&end_of(&executor, &sh(r#"test -z "$(cat)""#)).await);
}

#[tokio::test]
async fn an_input_larger_than_a_message_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let spec = CommandSpec { stdin: Some("x".repeat(900_000)), ..sh("test $(wc -c) = 900000") };
    result(&end_of(&executor(dir.path()), &spec).await);
}

#[tokio::test]
async fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let mut spec = sh("test $(ulimit -n) = 33 && test $(ulimit -t) = 7 && test $(ulimit -c) = 0 && test $(nice) = 5");
    spec.rlimits = Limits { open_files: Some(33), cpu_s: Some(7), core_bytes: Some(0), ..Limits::default() };
    spec.nice = Some(5);
    result(&end_of(&executor, &spec).await);

    let mut spinning = sh("while :; do :; done");
    spinning.rlimits.cpu_s = Some(1);
    let failure = failure(end_of(&executor, &spinning).await);
    assert!(failure.message.contains("killed by signal"), "{}", failure.message);

    let mut writing = CommandSpec::new(["dd", "if=/dev/zero", "of=big", "bs=1k", "count=9"]);
    writing.cwd = Some(dir.path().into());
    writing.rlimits.file_bytes = Some(4096);
    assert_eq!(super::support::failure(end_of(&executor, &writing).await).exit_code, Some(128 + 25));
}

#[tokio::test]
async fn arguments_are_not_read_by_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let spec = CommandSpec::new(["test", "$(echo x) * \"é", "=", "$(echo x) * \"é"]);
    result(&end_of(&executor(dir.path()), &spec).await);
}

#[tokio::test]
async fn every_signal_is_as_usual() {
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    // The C library keeps the signals 32 and 33 to itself, and has every program it spawns ignore them.
    let script = r#"while read name value; do case $name in SigBlk:|SigIgn:)
        test $((0x$value & 0x7fffffff)) = 0 || exit 1;; esac; done </proc/self/status"#;
    result(&end_of(&executor, &sh(script)).await);
    let limited = CommandSpec { nice: Some(1), ..sh(script) };
    result(&end_of(&executor, &limited).await);
}
