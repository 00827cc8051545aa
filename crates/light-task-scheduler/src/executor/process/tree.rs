//! Finding processes: by descent, and by the mark in their environment.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::command::EXECUTION_VARIABLE;

/// One process, as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: i32,
    ended: bool,
}

/// All that descend from `root`, itself not among them, nearest first. Those that have ended are left out.
pub(super) fn descendants(root: Pid) -> io::Result<Vec<Pid>> {
    Ok(descending_from(&[root], &processes()?))
}

/// All that carry the mark of this execution, and all that descend from them.
pub(super) fn marked(execution: &str) -> io::Result<Vec<Pid>> {
    let all = processes()?;
    let mut found: Vec<Pid> = all.iter().filter(|p| !p.ended && is_marked(p.pid, execution)).map(|p| p.pid).collect();
    let below = descending_from(&found, &all);
    found.extend(below.into_iter().filter(|pid| !found.contains(pid)).collect::<Vec<_>>());
    Ok(found)
}

/// Sends `signal` to each; one that is gone is no matter.
pub(super) fn signal_all(pids: &[Pid], signal: Signal) {
    for &pid in pids {
        let _ = kill_process(pid, signal);
        if signal == Signal::TERM {
            // One that is stopped hears nothing before it is continued.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

fn descending_from(roots: &[Pid], all: &[Process]) -> Vec<Pid> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents: Vec<i32> = roots.iter().map(|root| root.as_raw_nonzero().get()).collect();
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid.as_raw_nonzero().get());
            found.push(*process);
        }
    }
    found.into_iter().filter(|process| !process.ended).map(|process| process.pid).collect()
}

fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process that ends while we look is one less to find.
        if let Ok(stat) = std::fs::read(entry.path().join("stat"))
            && let Some((parent, ended)) = parse_stat(&stat)
        {
            found.push(Process { pid, parent, ended });
        }
    }
    Ok(found)
}

/// Parent and whether it has ended, out of `/proc/PID/stat`.
fn parse_stat(stat: &[u8]) -> Option<(i32, bool)> {
    // The name in parentheses may hold anything, parentheses too; the fields after the last one are plain.
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, matches!(state, "Z" | "X")))
}

fn is_marked(pid: Pid, execution: &str) -> bool {
    let Ok(environment) = std::fs::read(Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("environ"))
    else {
        return false;
    };
    environment.split(|&byte| byte == 0).any(|variable| {
        variable.strip_prefix(EXECUTION_VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
            == Some(execution.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parse_stat(b"12 (a) Z (b) S 7 12 12 0"), Some((7, false)));
        assert_eq!(parse_stat(b"12 (x) Z 1 12"), Some((1, true)));
        assert_eq!(parse_stat(b"garbage"), None);
    }

    #[test]
    fn descent_goes_through_the_ended() {
        let pid = |raw| Pid::from_raw(raw).unwrap();
        let all = [(2, 1, false), (3, 2, true), (4, 3, false), (5, 9, false)].map(|(id, parent, ended)| Process {
            pid: pid(id),
            parent,
            ended,
        });
        assert_eq!(descending_from(&[pid(1)], &all), [pid(2), pid(4)]);
    }
}
