//! What batch and run have in common about commands, containers and jobs of remote services.

use light_task_scheduler::executor::docker::DockerSpec;
use light_task_scheduler::executor::http::HttpJob;
use light_task_scheduler::executor::process::{CommandSpec, ENV_ALLOW_ALL};
use light_task_scheduler::{Failure, Task};

/// The kind of every task that is a command.
pub(crate) const KIND: &str = "process";
/// The kind of every task that is a container.
pub(crate) const DOCKER_KIND: &str = "docker";
/// The kind of every task that is a job of a remote service.
pub(crate) const HTTP_KIND: &str = "http";
/// How a shell command is run.
pub(crate) const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// What an exit code says of a signal: so much is added to it.
const SIGNAL_BASE: i32 = 128;

/// Lets a command inherit the whole environment, as from a shell: whoever types `export A=1` means it.
pub(crate) fn inherit_environment(spec: &mut CommandSpec) {
    spec.env_allow = Some(vec![ENV_ALLOW_ALL.to_owned()]);
}

/// A task's command, as one would type it; empty if the task is none.
pub(crate) fn shown(task: &Task) -> String {
    let payload = &task.spec.payload;
    if task.spec.kind.as_str() == DOCKER_KIND {
        return payload.parse::<DockerSpec>().map(|spec| shown_container(&spec)).unwrap_or_default();
    }
    if task.spec.kind.as_str() == HTTP_KIND {
        return payload.parse::<HttpJob>().map(|job| shown_job(&job)).unwrap_or_default();
    }
    payload.parse::<CommandSpec>().map(|spec| typed(&spec.argv)).unwrap_or_default()
}

fn shown_container(spec: &DockerSpec) -> String {
    let words = spec.entrypoint.iter().flatten().chain(&spec.cmd).cloned().collect::<Vec<_>>();
    ["docker run", &spec.image, &typed(&words)].join(" ").trim_end().to_owned()
}

fn shown_job(job: &HttpJob) -> String {
    // Without the query: there may be a secret in it.
    let url = job.url.as_deref().unwrap_or_default().split('?').next().unwrap_or_default();
    let service = job.service.as_ref().map(|name| name.as_str()).or(job.preset.as_deref()).unwrap_or_default();
    format!("{service} {url}{}", job.path).trim_end().to_owned()
}

/// Arguments as one would type them.
pub(crate) fn typed(argv: &[String]) -> String {
    match argv {
        [shell, option, line] if [shell.as_str(), option.as_str()] == SHELL => line.clone(),
        _ => argv.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// The signal that ended a command, if one did.
pub(crate) fn signal_of(failure: &Failure) -> Option<i32> {
    signal_in(failure.exit_code, &failure.message)
}

/// The same, of a failure's parts.
pub(crate) fn signal_in(exit_code: Option<i32>, message: &str) -> Option<i32> {
    // A shell may exit with 128 + n by itself: only the words tell the two apart.
    let code = exit_code.filter(|code| *code > SIGNAL_BASE)?;
    message.contains(&format!("killed by signal {}", code - SIGNAL_BASE)).then_some(code - SIGNAL_BASE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use light_task_scheduler::FailureKind;

    #[test]
    fn arguments_are_shown_as_typed() {
        let typed = |argv: &[&str]| typed(&argv.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(typed(&["/bin/sh", "-c", "a | b"]), "a | b");
        assert_eq!(typed(&["echo", "a b", "", "it's", "-n"]), r"echo 'a b' '' 'it'\''s' -n");
    }

    #[test]
    fn a_container_is_shown_as_typed() {
        let spec = DockerSpec { entrypoint: Some(vec!["echo".into()]), ..DockerSpec::new("a:1", ["b c"]) };
        assert_eq!(shown_container(&spec), "docker run a:1 echo 'b c'");
        assert_eq!(shown_container(&DockerSpec::new("a", Vec::<String>::new())), "docker run a");
    }

    #[test]
    fn a_job_is_shown_without_the_query_of_its_url() {
        assert_eq!(shown_job(&HttpJob::at("ogc", "http://host/p?token=x").path("/q")), "ogc http://host/p/q");
        assert_eq!(shown_job(&HttpJob::new("tiles").unwrap()), "tiles");
    }

    #[test]
    fn an_exit_code_of_a_shell_is_no_signal() {
        let failure = |message: &str, code| Failure { exit_code: code, ..Failure::new(FailureKind::Error, message) };
        assert_eq!(signal_of(&failure("killed by signal 9 SIGKILL", Some(137))), Some(9));
        assert_eq!(signal_of(&failure("exit code 137", Some(137))), None);
        assert_eq!(signal_of(&failure("no such program", None)), None);
    }
}
