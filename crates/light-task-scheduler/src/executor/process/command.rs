//! What a command is: the payload of a task of the process executor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::launcher::LAUNCHER_VARIABLE;
use crate::error::{Error, Result};

/// Most arguments of a command, its name included.
pub const ARGUMENTS_MAX: usize = 10_000;
/// The variables that a command inherits from the scheduler unless its `env_allow` says otherwise.
pub const ENV_ALLOW_DEFAULT: [&str; 10] =
    ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"];
/// In `env_allow`: every variable of the scheduler.
pub const ENV_ALLOW_ALL: &str = "*";
/// The variable that names the execution in the environment of all that a command starts.
pub const EXECUTION_VARIABLE: &str = "LTS_EXECUTION";
/// Where programs are looked for if the command has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// A command to run. No shell is involved unless `argv` names one.
///
/// ```
/// use light_task_scheduler::NewTask;
/// use light_task_scheduler::executor::process::CommandSpec;
///
/// # fn main() -> Result<(), light_task_scheduler::Error> {
/// let task = NewTask::new("process", &CommandSpec::new(["sh", "-c", "echo hello"]))?;
/// # let _ = task;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// The program and its arguments. A program without a `/` is looked for in the command's `PATH`.
    pub argv: Vec<String>,
    /// Variables to set, over those inherited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of the variables to inherit from the scheduler; [`ENV_ALLOW_ALL`] among them: all.
    /// Default: [`ENV_ALLOW_DEFAULT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_allow: Option<Vec<String>>,
    /// The directory to run in. Default: that in which the scheduler was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// What it reads on its standard input. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Bounds set by the kernel. Default: those of the scheduler.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub rlimits: Limits,
    /// How much it yields to others: 0 to 19. Default: as the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<u8>,
}

/// Bounds on a command, as `setrlimit` sets them: each process it starts inherits them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds of processor time (`RLIMIT_CPU`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<u64>,
    /// Bytes of address space (`RLIMIT_AS`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes in any one file it writes (`RLIMIT_FSIZE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Processes of its user (`RLIMIT_NPROC`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes of a core dump (`RLIMIT_CORE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Those that are set, as the kernel names them.
    pub(super) fn set(&self) -> Vec<(rustix::process::Resource, &'static str, u64)> {
        use rustix::process::Resource;
        [
            (Resource::Cpu, "cpu_s", self.cpu_s),
            (Resource::As, "address_space_bytes", self.address_space_bytes),
            (Resource::Nofile, "open_files", self.open_files),
            (Resource::Fsize, "file_bytes", self.file_bytes),
            (Resource::Nproc, "processes", self.processes),
            (Resource::Core, "core_bytes", self.core_bytes),
        ]
        .into_iter()
        .filter_map(|(resource, name, limit)| limit.map(|limit| (resource, name, limit)))
        .collect()
    }
}

impl CommandSpec {
    /// A command with these arguments and nothing else set.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        CommandSpec { argv: argv.into_iter().map(Into::into).collect(), ..CommandSpec::default() }
    }

    /// Refuses what could never run, all problems in one sentence.
    pub fn check(&self) -> Result<()> {
        const NICE_MAX: u8 = 19;
        let mut problems = Vec::new();
        match self.argv.first() {
            None => problems.push("argv is empty; its first element names the program".to_owned()),
            Some(program) if program.is_empty() => problems.push("the program's name is empty".to_owned()),
            Some(_) => {}
        }
        if self.argv.len() > ARGUMENTS_MAX {
            problems.push(format!("{} arguments, more than {ARGUMENTS_MAX}", self.argv.len()));
        }
        if let Some(at) = self.argv.iter().position(|argument| argument.contains('\0')) {
            problems.push(format!("argument {at} has a NUL character, which no program can be given"));
        }
        for (name, value) in &self.env {
            if !is_variable(name) {
                problems.push(format!("{name:?} is no name of a variable"));
            } else if name == EXECUTION_VARIABLE {
                problems.push(format!("{EXECUTION_VARIABLE} is set by the scheduler and by nobody else"));
            }
            if value.contains('\0') {
                problems.push(format!("the variable {name} has a NUL character in its value"));
            }
        }
        for name in self.env_allow.iter().flatten().filter(|name| !is_variable(name)) {
            problems.push(format!("{name:?} in env_allow is no name of a variable"));
        }
        if let Some(cwd) = &self.cwd
            && (cwd.as_os_str().is_empty() || cwd.as_os_str().as_encoded_bytes().contains(&0))
        {
            problems.push("cwd is empty or has a NUL character".to_owned());
        }
        if self.nice.is_some_and(|nice| nice > NICE_MAX) {
            problems.push(format!("nice is over {NICE_MAX}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("; "))) }
    }

    /// The command's environment, out of `inherited`.
    pub(super) fn environment(
        &self,
        inherited: impl Iterator<Item = (OsString, OsString)>,
        execution: &str,
    ) -> BTreeMap<OsString, OsString> {
        let allowed = |name: &OsString| match &self.env_allow {
            Some(names) => names.iter().any(|allowed| allowed == ENV_ALLOW_ALL || name == allowed.as_str()),
            None => ENV_ALLOW_DEFAULT.iter().any(|allowed| name == allowed),
        };
        // The launcher's own variable would make a launcher of any scheduler that the command starts.
        let ours = |name: &OsString| name == LAUNCHER_VARIABLE;
        let mut env: BTreeMap<_, _> = inherited.filter(|(name, _)| allowed(name) && !ours(name)).collect();
        env.extend(self.env.iter().map(|(name, value)| (name.into(), value.into())));
        env.insert(EXECUTION_VARIABLE.into(), execution.into());
        env
    }

    /// The file to execute, or why there is none. `env` is the command's own.
    pub(super) fn program(&self, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf, String> {
        let name = self.argv.first().map_or("", String::as_str);
        if let Some(cwd) = &self.cwd
            && !cwd.is_dir()
        {
            return Err(format!("no such directory: {}", cwd.display()));
        }
        if name.contains('/') {
            // Relative to the directory that it runs in, as every shell has it.
            let path = self.cwd.as_deref().unwrap_or(Path::new("")).join(name);
            return match path.metadata() {
                Ok(found) if found.is_file() => runnable(&path, name).map(|()| PathBuf::from(name)),
                Ok(_) => Err(format!("not a program: {name}")),
                Err(_) => Err(format!("no such program: {name}")),
            };
        }
        let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_else(|| PATH_DEFAULT.into());
        let found: Vec<_> =
            std::env::split_paths(&path).map(|directory| directory.join(name)).filter(|path| path.is_file()).collect();
        match found.iter().find(|path| runnable(path, name).is_ok()) {
            Some(program) => Ok(program.clone()),
            None if found.is_empty() => Err(format!("no such program: {name}")),
            None => Err(format!("not executable: {}", found[0].display())),
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn runnable(path: &Path, name: &str) -> Result<(), String> {
    const ANY_EXECUTE: u32 = 0o111;
    match path.metadata() {
        Ok(found) if found.permissions().mode() & ANY_EXECUTE != 0 => Ok(()),
        _ => Err(format!("not executable: {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_all_its_problems() {
        let bad = CommandSpec {
            argv: vec!["a".into(), "b\0".into()],
            env: BTreeMap::from([("A=B".into(), "x".into()), (EXECUTION_VARIABLE.into(), "y".into())]),
            cwd: Some(PathBuf::new()),
            nice: Some(20),
            ..CommandSpec::default()
        };
        let message = bad.check().unwrap_err().to_string();
        for part in ["argument 1", "A=B", "set by the scheduler", "cwd", "nice"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(CommandSpec::new(Vec::<String>::new()).check().unwrap_err().to_string().contains("argv is empty"));
        assert!(CommandSpec::new([""]).check().is_err());
        assert!(CommandSpec::new(["true", ""]).check().is_ok(), "an empty argument is an argument");
    }

    #[test]
    fn unknown_fields_are_refused() {
        for bad in [r#"{"argv":["a"],"cmd":1}"#, r#"{"argv":["a"],"rlimits":{"memory":1}}"#, r#"{"env":{}}"#] {
            assert!(serde_json::from_str::<CommandSpec>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_is_what_is_allowed_and_set() {
        let inherited = || {
            [("PATH", "/bin"), ("SECRET", "s"), ("HOME", "/h")]
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
        };
        let mut spec = CommandSpec::new(["x"]);
        spec.env.insert("HOME".into(), "/other".into());
        let env = spec.environment(inherited(), "n/i/1");
        let shown: Vec<_> = env.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
        assert_eq!(shown, ["HOME=/other", "LTS_EXECUTION=n/i/1", "PATH=/bin"]);
        spec.env_allow = Some(vec!["SECRET".into()]);
        assert!(spec.environment(inherited(), "n/i/1").contains_key(std::ffi::OsStr::new("SECRET")));
        assert!(!spec.environment(inherited(), "n/i/1").contains_key(std::ffi::OsStr::new("PATH")));
        spec.env_allow = Some(vec![ENV_ALLOW_ALL.into()]);
        let launcher = [(LAUNCHER_VARIABLE.into(), "1".into())];
        let env = spec.environment(inherited().chain(launcher), "n/i/1");
        assert_eq!(env.len(), 4, "all three and the execution: {env:?}");
    }
}
