//! The scripts: one file each in `lua/`.

use std::sync::LazyLock;

use super::compose::compose;
use crate::database::redis::Script;

/// What a script may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reads only.
    Reads,
    /// Writes, and is refused while the server is above its `maxmemory`.
    Grows,
    /// Writes even then: it ends tasks, frees room, or keeps replicas alive.
    Always,
}

const PRELUDE: &str = include_str!("lua/prelude.lua");
const STEP: &str = include_str!("lua/step.lua");

fn script(kind: Kind, parts: &[&str]) -> Script {
    let flags = match kind {
        Kind::Reads => " flags=no-writes",
        Kind::Grows => "",
        Kind::Always => " flags=allow-oom",
    };
    let files: Vec<_> = [&[PRELUDE], parts].concat();
    Script::new(format!("#!lua{flags}\n{}", compose(&files)))
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) apply: Script,
    pub(super) candidates: Script,
    pub(super) claim: Script,
    pub(super) command: Script,
    pub(super) counts: Script,
    pub(super) erase: Script,
    pub(super) get: Script,
    pub(super) insert: Script,
    pub(super) list: Script,
    pub(super) queue: Script,
    pub(super) queues: Script,
    pub(super) replica: Script,
    pub(super) replicas: Script,
    pub(super) report: Script,
    pub(super) rescue: Script,
    pub(super) sweep: Script,
    pub(super) verify: Script,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    apply: script(Kind::Always, &[STEP, include_str!("lua/apply.lua")]),
    candidates: script(Kind::Reads, &[include_str!("lua/candidates.lua")]),
    claim: script(Kind::Always, &[STEP, include_str!("lua/claim.lua")]),
    command: script(Kind::Always, &[STEP, include_str!("lua/command.lua")]),
    counts: script(Kind::Reads, &[include_str!("lua/counts.lua")]),
    erase: script(Kind::Always, &[include_str!("lua/erase.lua")]),
    get: script(Kind::Reads, &[include_str!("lua/get.lua")]),
    insert: script(Kind::Grows, &[include_str!("lua/insert.lua")]),
    list: script(Kind::Reads, &[include_str!("lua/list.lua")]),
    queue: script(Kind::Always, &[include_str!("lua/queue.lua")]),
    queues: script(Kind::Reads, &[include_str!("lua/queues.lua")]),
    replica: script(Kind::Always, &[include_str!("lua/replica.lua")]),
    replicas: script(Kind::Reads, &[include_str!("lua/replicas.lua")]),
    report: script(Kind::Grows, &[include_str!("lua/report.lua")]),
    rescue: script(Kind::Always, &[STEP, include_str!("lua/rescue.lua")]),
    sweep: script(Kind::Always, &[include_str!("lua/sweep.lua")]),
    verify: script(Kind::Reads, &[include_str!("lua/verify.lua")]),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_may_do() {
        assert!(SCRIPTS.get.code().starts_with("#!lua flags=no-writes\n"));
        assert!(SCRIPTS.insert.code().starts_with("#!lua\n"));
        assert!(SCRIPTS.apply.code().starts_with("#!lua flags=allow-oom\n"));
    }
}
