//! Where a replica lives, so that another one on the same host can prove its death without waiting for its lease.
//!
//! A process number alone proves nothing: it is used again, and every container counts from 1. So a home names the
//! boot of the host, the namespaces in which numbers and times are counted, and when the process started. Only who
//! shares all of these may say that the process is gone. A namespace's number is used again only once all of
//! its processes have ended.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One process, told apart from every other one that ever was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Home {
    place: Place,
    pid: u32,
    /// When it started, in the kernel's ticks since the boot: a number that is used again has another.
    started: u64,
}

/// In which world a process number means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Virtual machines that were cloned while they ran share a boot, but for their names.
    host: String,
    boot: String,
    pids: String,
    times: String,
    /// Others may not see, or keep elsewhere, what a process has left on the host.
    user: u32,
}

/// Whether a process that lives at `ours` sees that the one whose home a store has kept does not live any more.
pub(crate) fn proves_dead(ours: Option<&Home>, kept: Option<&str>) -> bool {
    let other = kept.and_then(Home::from_text);
    ours.zip(other).is_some_and(|(ours, other)| ours.proves_dead(&other))
}

impl Home {
    /// That of this process. `None`: this system does not tell, or does not show all processes.
    pub(crate) fn here() -> Option<Self> {
        let pid = std::process::id();
        // The list of another namespace's processes, or one without those of other users, lacks some that live.
        let lists_us = fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&pid.to_string()));
        if !lists_us || hides_processes(&fs::read_to_string("/proc/self/mountinfo").ok()?) {
            return None;
        }
        let place = Place {
            host: line("/proc/sys/kernel/hostname")?,
            boot: line("/proc/sys/kernel/random/boot_id")?,
            pids: link("/proc/self/ns/pid")?,
            // Older kernels have no such namespaces.
            times: link("/proc/self/ns/time").unwrap_or_default(),
            user: owner_of("/proc/self")?,
        };
        Some(Home { place, pid, started: Stat::parse(&line("/proc/self/stat")?)?.started })
    }

    /// As a store keeps it.
    pub(crate) fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// From what a store has kept. `None`: a release that writes another form has; then nothing is proven.
    fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether this process, which lives here, sees that the other one does not live any more.
    fn proves_dead(&self, other: &Home) -> bool {
        self.place == other.place && other.has_ended()
    }

    fn has_ended(&self) -> bool {
        let stat = match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => stat,
            Err(error) => return error.kind() == ErrorKind::NotFound,
        };
        let Some(stat) = Stat::parse(&stat) else { return false };
        // A process whose first thread has ended looks like one that nobody has buried yet: count its threads.
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid)).map(Iterator::count);
        stat.started != self.started || (stat.is_over && threads().is_ok_and(|threads| threads <= 1))
    }
}

/// What is of interest in `/proc/…/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// It has ended, and nobody has asked for its exit code yet.
    is_over: bool,
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program, in parentheses, may have anything in it.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_over = matches!(fields.next()?, "Z" | "X");
        // The 22nd of all fields; the state is the third.
        Some(Stat { is_over, started: fields.nth(18)?.parse().ok()? })
    }
}

/// Whether `/proc` is mounted so that the processes of others are not seen.
fn hides_processes(mounts: &str) -> bool {
    let hides = |option: &str| option.strip_prefix("hidepid=").is_some_and(|value| !["0", "off"].contains(&value));
    let of_proc = |mount: &&str| mount.split(' ').nth(4) == Some("/proc");
    mounts.lines().filter(of_proc).any(|mount| mount.split([' ', ',']).any(hides))
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn link(path: &str) -> Option<String> {
    Some(fs::read_link(path).ok()?.to_str()?.to_owned())
}

#[cfg(unix)]
fn owner_of(path: &str) -> Option<u32> {
    Some(std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).ok()?))
}

#[cfg(not(unix))]
fn owner_of(_: &str) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn here() -> Home {
        Home::here().expect("these tests run where processes can be told apart")
    }

    /// A process that lives until it is killed.
    fn process() -> (Child, Home) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let stat = Stat::parse(&line(&format!("/proc/{}/stat", child.id())).unwrap()).unwrap();
        let home = Home { pid: child.id(), started: stat.started, ..here() };
        (child, home)
    }

    #[test]
    fn a_process_is_dead_once_it_has_ended_and_not_before() {
        let (mut child, home) = process();
        assert!(!here().proves_dead(&home) && !here().proves_dead(&here()));
        child.kill().unwrap();
        // Not buried yet: its parent has not asked for its end.
        while !here().proves_dead(&home) {
            std::thread::yield_now();
        }
        assert!(Stat::parse(&line(&format!("/proc/{}/stat", home.pid)).unwrap()).unwrap().is_over);
        child.wait().unwrap();
        assert!(here().proves_dead(&home));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let before = Home { started: here().started - 1, ..here() };
        assert!(here().proves_dead(&before));
    }

    #[test]
    fn nothing_is_proven_of_another_host_boot_namespace_or_user() {
        let (mut child, gone) = process();
        child.kill().unwrap();
        child.wait().unwrap();
        let place = || gone.place.clone();
        let other = || "other".to_owned();
        for place in [
            Place { host: other(), ..place() },
            Place { boot: other(), ..place() },
            Place { pids: other(), ..place() },
            Place { times: other(), ..place() },
            Place { user: place().user + 1, ..place() },
        ] {
            assert!(!here().proves_dead(&Home { place, ..gone.clone() }));
        }
        assert!(here().proves_dead(&gone));
    }

    #[test]
    fn a_home_comes_back_from_its_text_and_another_form_proves_nothing() {
        let text = here().to_text().unwrap();
        assert_eq!(Home::from_text(&text), Some(here()));
        assert_eq!(Home::from_text(&text.replacen('{', "{\"more\":1,", 1)), None);
        assert_eq!(Home::from_text("4711"), None);
    }

    #[test]
    fn the_state_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) R (b) Z 1 42 42 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 7777 0 0";
        assert_eq!(Stat::parse(stat), Some(Stat { is_over: true, started: 7_777 }));
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn hidden_processes_are_noticed() {
        let mount = |options| format!("24 30 0:22 / /proc rw,nosuid shared:14 - proc proc {options}\n");
        assert!(!hides_processes(&mount("rw")) && !hides_processes(&mount("rw,hidepid=0")));
        assert!(hides_processes(&mount("rw,gid=4,hidepid=2")) && hides_processes(&mount("rw,hidepid=invisible")));
        let elsewhere = mount("rw,hidepid=2").replace(" /proc ", " /other/proc ");
        assert!(!hides_processes(&elsewhere));
    }
}
