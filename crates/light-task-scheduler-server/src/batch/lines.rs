//! The lines of a batch file, and what task each of them is. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use light_task_scheduler::executor::docker::DockerSpec;
use light_task_scheduler::executor::http::HttpJob;
use light_task_scheduler::executor::process::{CommandSpec, Limits};
use light_task_scheduler::{Name, NewTask, Payload, RetryPolicy, TaskId};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::command::{DOCKER_KIND, HTTP_KIND, KIND, SHELL, inherit_environment};
use crate::duration::parse_duration;
use crate::output::{did_you_mean, hex};

/// The label that names a task's batch.
pub(crate) const BATCH_LABEL: &str = "batch";
/// The label that names a task's output files, where its line gives a name.
pub(crate) const NAME_LABEL: &str = "name";
/// How many bytes of a file's hash name its batch.
const BATCH_HASH_BYTES: usize = 6;
/// How many bytes of a line's hash are its task's id: those of a UUID.
const ID_BYTES: usize = 16;
/// Longest name of a task: as a file name it gets an ending.
const NAME_BYTES_MAX: usize = 100;

/// What all tasks of a batch have in common unless their line says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// The batch's name.
    pub(crate) batch: String,
    /// The queue.
    pub(crate) queue: Name,
    /// The bound of each attempt.
    pub(crate) timeout: Option<Duration>,
    /// Attempts beyond the first.
    pub(crate) retries: u32,
    /// Where the commands run, absolute.
    pub(crate) cwd: PathBuf,
}

/// What a JSON line may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    argv: Option<Vec<String>>,
    command: Option<String>,
    id: Option<String>,
    name: Option<String>,
    priority: Option<i32>,
    timeout: Option<String>,
    retries: Option<u32>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    stdin: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    rlimits: Limits,
    docker: Option<DockerSpec>,
    http: Option<HttpJob>,
}

/// The names of [`Fields`], for whoever mistypes one.
const FIELDS: [&str; 14] = [
    "argv", "command", "id", "name", "priority", "timeout", "retries", "env", "cwd", "stdin", "labels", "rlimits",
    "docker", "http",
];

/// The lines that are tasks, with their numbers, the first is 1: blank lines and comments (`# …`) are not.
pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let numbered = file.split(|byte| *byte == b'\n').zip(1_u32..);
    numbered.filter_map(|(line, number)| {
        let line = line.trim_ascii();
        (!line.is_empty() && !line.starts_with(b"#")).then_some((number, line))
    })
}

/// Names a batch after the content of its file.
pub(crate) fn batch_of(file: &[u8]) -> String {
    hex(&Sha256::digest(file)[..BATCH_HASH_BYTES])
}

/// The task of a line, or what is wrong with the line.
pub(crate) fn parse(number: u32, line: &[u8], defaults: &Defaults) -> Result<NewTask, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let fields = if is_json(text) { read_json(text)? } else { shell(text) };
    let (kind, payload) = match (&fields.docker, &fields.http) {
        (Some(_), Some(_)) => return Err("it has both `docker` and `http`; one says what to run".to_owned()),
        (Some(spec), None) => container(spec, &fields)?,
        (None, Some(job)) => remote(job, &fields)?,
        (None, None) => command(&fields, defaults)?,
    };
    let id = match &fields.id {
        Some(id) => TaskId::new(id),
        None => id_of(&defaults.batch, number, line),
    };
    let kind = Name::new(kind).map_err(in_words)?;
    let mut task = NewTask { id: Some(id.map_err(in_words)?), ..NewTask::with_payload(kind, payload) };
    task.queue = defaults.queue.clone();
    task.priority = fields.priority.unwrap_or(0);
    task = task.label(BATCH_LABEL, &defaults.batch).map_err(in_words)?;
    for (name, value) in &fields.labels {
        if [BATCH_LABEL, NAME_LABEL].contains(&name.as_str()) {
            return Err(format!("the label `{name}` is set by lts"));
        }
        task = task.label(name, value).map_err(in_words)?;
    }
    if let Some(name) = &fields.name {
        check_name(name)?;
        task = task.label(NAME_LABEL, name).map_err(in_words)?;
    }
    let timeout = fields.timeout.as_deref().map(parse_duration).transpose()?.or(defaults.timeout);
    if let Some(timeout) = timeout {
        task = task.timeout(timeout);
    }
    let retries = fields.retries.unwrap_or(defaults.retries);
    if retries > 0 {
        task = task.retry(RetryPolicy::attempts(retries.saturating_add(1)));
    }
    task.check().map_err(in_words)?;
    Ok(task)
}

/// The kind and the payload of a line that is a command.
fn command(fields: &Fields, defaults: &Defaults) -> Result<(&'static str, Payload), String> {
    let argv = match (&fields.argv, &fields.command) {
        (Some(argv), None) => argv.clone(),
        (None, Some(command)) => SHELL.iter().map(|part| (*part).to_owned()).chain([command.clone()]).collect(),
        (Some(_), Some(_)) => return Err("it has both `argv` and `command`; one says what to run".to_owned()),
        (None, None) => return Err("it has no `argv`, for example {\"argv\": [\"gzip\", \"a.txt\"]}".to_owned()),
    };
    let (env, stdin, rlimits) = (fields.env.clone(), fields.stdin.clone(), fields.rlimits);
    let mut spec = CommandSpec { argv, env, stdin, rlimits, ..CommandSpec::default() };
    spec.cwd = Some(fields.cwd.as_ref().map_or_else(|| defaults.cwd.clone(), |cwd| defaults.cwd.join(cwd)));
    inherit_environment(&mut spec);
    spec.check().map_err(in_words)?;
    Ok((KIND, Payload::json(&spec).map_err(in_words)?))
}

/// The kind and the payload of a line that is a container.
fn container(spec: &DockerSpec, fields: &Fields) -> Result<(&'static str, Payload), String> {
    refuse_command(fields, "a container says in `docker` what it runs, and how")?;
    spec.check().map_err(in_words)?;
    Ok((DOCKER_KIND, Payload::json(spec).map_err(in_words)?))
}

/// The kind and the payload of a line that is a job of a remote service.
fn remote(job: &HttpJob, fields: &Fields) -> Result<(&'static str, Payload), String> {
    refuse_command(fields, "a job says in `http` where it runs, and on what")?;
    job.check().map_err(in_words)?;
    Ok((HTTP_KIND, Payload::json(job).map_err(in_words)?))
}

fn refuse_command(fields: &Fields, instead: &str) -> Result<(), String> {
    let of_commands = [
        ("argv", fields.argv.is_some()),
        ("command", fields.command.is_some()),
        ("env", !fields.env.is_empty()),
        ("cwd", fields.cwd.is_some()),
        ("stdin", fields.stdin.is_some()),
        ("rlimits", fields.rlimits != Limits::default()),
    ];
    if let Some((name, _)) = of_commands.into_iter().find(|(_, is_there)| *is_there) {
        return Err(format!("`{name}` is for commands; {instead}"));
    }
    Ok(())
}

fn in_words(error: light_task_scheduler::Error) -> String {
    error.to_string()
}

/// A shell group `{ a; b; }` begins with a brace too, but no shell command begins like an object.
fn is_json(text: &str) -> bool {
    text.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}']))
}

fn shell(text: &str) -> Fields {
    Fields {
        argv: None,
        command: Some(text.to_owned()),
        id: None,
        name: None,
        priority: None,
        timeout: None,
        retries: None,
        env: BTreeMap::new(),
        cwd: None,
        stdin: None,
        labels: BTreeMap::new(),
        rlimits: Limits::default(),
        docker: None,
        http: None,
    }
}

fn read_json(text: &str) -> Result<Fields, String> {
    let error = match serde_json::from_str(text) {
        Ok(fields) => return Ok(fields),
        Err(error) => error,
    };
    // Only now is the slower look worth its price: which field is it, and what was meant?
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    let unknown = object.ok().and_then(|object| object.keys().find(|key| !FIELDS.contains(&key.as_str())).cloned());
    Err(match unknown {
        Some(unknown) => match did_you_mean(&unknown, &FIELDS) {
            Some(known) => format!("unknown field `{unknown}`; did you mean `{known}`?"),
            None => format!("unknown field `{unknown}`; the fields are {}", FIELDS.join(", ")),
        },
        None => format!("it is not a task in JSON: {}", without_place(&error.to_string())),
    })
}

/// The parser counts lines within the one line that it sees.
fn without_place(error: &str) -> String {
    match error.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} (column {column})"),
        None => error.to_owned(),
    }
}

/// A task without an id of its own is found again by its batch, its place and its text.
fn id_of(batch: &str, number: u32, line: &[u8]) -> light_task_scheduler::Result<TaskId> {
    let mut hash = Sha256::new();
    // The length keeps the end of the name from being taken for the beginning of the number.
    hash.update(u64::try_from(batch.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(batch);
    hash.update(number.to_le_bytes());
    hash.update(line);
    let digest = hash.finalize();
    let text = hex(&digest[..ID_BYTES]);
    // In the form of a UUID (version 8: made of a hash) it is kept in 16 bytes.
    TaskId::new(&format!("{}-{}-8{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..]))
}

fn check_name(name: &str) -> Result<(), String> {
    let bad = name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.');
    if bad || name.contains('/') || name.chars().any(char::is_control) {
        return Err(format!(
            "the name {name:?} cannot be a file name: 1 to {NAME_BYTES_MAX} bytes, no `/`, no dot in front"
        ));
    }
    Ok(())
}

/// Where the output of a task goes within the output directory, without its ending.
pub(crate) fn file_stem(id: &TaskId, name: Option<&str>) -> String {
    /// Longest escaped id kept whole.
    const STEM_BYTES_MAX: usize = 200;
    if let Some(name) = name {
        return name.to_owned();
    }
    let text = id.to_string();
    let mut stem = String::with_capacity(text.len());
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'.' if place > 0 => stem.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => stem.push(char::from(byte)),
            _ => stem.push_str(&format!("%{byte:02X}")),
        }
    }
    if stem.len() > STEM_BYTES_MAX {
        stem = format!("{}~{}", &stem[..STEM_BYTES_MAX / 2], hex(&Sha256::digest(&text)[..ID_BYTES]));
    }
    stem
}

/// The directory that commands run in: this one.
pub(crate) fn current_directory() -> Result<PathBuf, String> {
    let cwd = std::env::current_dir().map_err(|error| format!("the current directory cannot be found: {error}"))?;
    if cwd.to_str().is_none() {
        return Err(format!("the current directory {} is not UTF-8 text", Path::new(&cwd).display()));
    }
    Ok(cwd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            batch: "b".to_owned(),
            queue: Name::new("q").unwrap(),
            timeout: Some(Duration::from_secs(9)),
            retries: 2,
            cwd: PathBuf::from("/srv"),
        }
    }

    fn parsed(line: &str) -> Result<(NewTask, CommandSpec), String> {
        let task = parse(1, line.as_bytes(), &defaults())?;
        let spec = task.payload.parse().unwrap();
        Ok((task, spec))
    }

    #[test]
    fn blank_lines_and_comments_keep_their_numbers() {
        let found: Vec<_> =
            lines(b"a\n\n  # no\n\tb\r\n").map(|(n, line)| (n, String::from_utf8_lossy(line))).collect();
        assert_eq!(found, [(1, "a".into()), (4, "b".into())]);
    }

    #[test]
    fn a_shell_line_gets_the_defaults() {
        let (task, spec) = parsed("echo 'a b' | wc -c").unwrap();
        assert_eq!(spec.argv, ["/bin/sh", "-c", "echo 'a b' | wc -c"]);
        assert_eq!(spec.cwd, Some("/srv".into()));
        let options = task.options.unwrap();
        assert_eq!(options.timeout, Some(Duration::from_secs(9)));
        assert_eq!(options.retry.unwrap().max_attempts, 3);
        assert_eq!(options.labels[&Name::new("batch").unwrap()], "b");
        assert!(parsed("{ echo a; echo b; }").unwrap().1.argv[2].starts_with('{'), "a shell group is no JSON");
    }

    #[test]
    fn a_json_line_overrides_them() {
        let line = r#"{"argv": ["gzip", "-9"], "id": "x", "name": "n", "priority": -3, "timeout": "1m", "retries": 0,
            "env": {"A": "1"}, "cwd": "sub", "stdin": "hello", "labels": {"l": "v"}}"#
            .replace('\n', " ");
        let (task, spec) = parsed(&line).unwrap();
        assert_eq!(spec.argv, ["gzip", "-9"]);
        assert_eq!(
            (spec.cwd, spec.stdin, spec.env["A"].as_str()),
            (Some("/srv/sub".into()), Some("hello".into()), "1")
        );
        assert_eq!((task.id.unwrap().to_string().as_str(), task.priority), ("x", -3));
        let options = task.options.unwrap();
        assert_eq!((options.timeout, options.retry), (Some(Duration::from_secs(60)), None));
        assert_eq!(options.labels.len(), 3);
    }

    #[test]
    fn a_line_may_be_a_container() {
        let line = r#"{"docker": {"image": "busybox:1", "cmd": ["echo", "a"], "cpus": 0.5}, "id": "x"}"#;
        let task = parse(1, line.as_bytes(), &defaults()).unwrap();
        assert_eq!(task.kind.as_str(), "docker");
        let spec: DockerSpec = task.payload.parse().unwrap();
        assert_eq!(spec, DockerSpec { cpus: Some(0.5), ..DockerSpec::new("busybox:1", ["echo", "a"]) });
        assert_eq!(task.options.unwrap().timeout, Some(Duration::from_secs(9)), "it has the defaults of all tasks");
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, why) in [
            (r#"{"argvv": ["a"]}"#, "unknown field `argvv`; did you mean `argv`?"),
            (r#"{"argv": ["a"], "colour": 1}"#, "the fields are argv, command"),
            (r#"{"argv": "a"}"#, "invalid type"),
            (r#"{"argv": ["a"]"#, "EOF"),
            (r#"{"argv": []}"#, "argv is empty"),
            ("{}", "no `argv`"),
            (r#"{"argv": ["a"], "command": "b"}"#, "both"),
            (r#"{"argv": ["a"], "timeout": "3"}"#, "no unit"),
            (r#"{"argv": ["a"], "retries": -1}"#, "invalid value"),
            (r#"{"argv": ["a"], "id": ""}"#, "task id"),
            (r#"{"argv": ["a"], "name": "../x"}"#, "file name"),
            (r#"{"argv": ["a"], "labels": {"batch": "x"}}"#, "set by lts"),
            (r#"{"argv": ["a"], "env": {"A=B": "x"}}"#, "no name of a variable"),
            (r#"{"docker": {"image": "a b"}}"#, "no name of an image"),
            (r#"{"docker": {"image": "a", "devices": []}}"#, "unknown field `devices`"),
            (r#"{"docker": {"image": "a"}, "argv": ["a"]}"#, "`argv` is for commands"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(parse(1, b"echo \xff", &defaults()).unwrap_err().contains("UTF-8"));
        let big = format!("echo {}", "x".repeat(2 << 20));
        assert!(parsed(&big).unwrap_err().contains("more than 1048576"));
    }

    #[test]
    fn ids_depend_on_batch_number_and_line() {
        let id = |batch, number, line: &str| id_of(batch, number, line.as_bytes()).unwrap();
        let first = id("b", 1, "x");
        assert_eq!(first, id("b", 1, "x"));
        for other in [id("c", 1, "x"), id("b", 2, "x"), id("b", 1, "y")] {
            assert_ne!(first, other);
        }
        assert_eq!(first.to_string().len(), 36);
        assert_ne!(batch_of(b"a"), batch_of(b"b"));
    }

    #[test]
    fn any_id_makes_a_file_name() {
        let stem = |id: &str| file_stem(&TaskId::new(id).unwrap(), None);
        assert_eq!(stem("a/b c"), "a%2Fb%20c");
        assert_eq!(stem(".."), "%2E.");
        assert!(stem(&"/".repeat(200)).len() <= 200);
        assert_eq!(file_stem(&TaskId::new("a").unwrap(), Some("n")), "n");
    }
}
