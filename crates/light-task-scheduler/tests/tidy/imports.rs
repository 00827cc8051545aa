//! The direction of imports: values ← store | executor | results ← scheduler; backends know only contracts.

use std::collections::BTreeMap;

use crate::scan::{paths, spell_out, words};

/// A module of the library and the names it takes from elsewhere.
pub(crate) struct Module {
    /// From the root of the sources.
    file: String,
    /// Its path in the crate: `["store", "memory"]`.
    path: Vec<String>,
    code: String,
}

impl Module {
    /// The module in `file`, of which `code` is the part outside comments, literals and tests.
    pub(crate) fn new(file: &str, code: &str) -> Self {
        let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let path = name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect();
        Module { file: file.to_owned(), path, code: code.to_owned() }
    }
}

/// The part of the crate that a module belongs to.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// Plain values and pure functions.
    Value,
    /// A contract: its trait and the values of it.
    Contract(String),
    /// One implementation of a contract.
    Backend(String, String),
    /// Connections to a kind of server, shared by the backends that keep something there.
    Link,
    Scheduler,
    /// Conformance suites, simulator: may use everything.
    Testing,
    /// `lib.rs`, and programs of their own.
    Root,
}

const VALUES: [&str; 8] = ["task", "state", "retry", "rate", "error", "clock", "crypto", "inspection"];
const CONTRACTS: [&str; 3] = ["store", "executor", "results"];

/// The one backend that the scheduler's face names, for the shortcut `Builder::functions`.
const SHORTCUT: (&str, &str) = ("scheduler/mod.rs", "crate::executor::FunctionExecutor");

fn part(path: &[String]) -> Option<Part> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    Some(match names.as_slice() {
        [] | ["bin", ..] => Part::Root,
        [name, ..] if VALUES.contains(name) => Part::Value,
        // `ext` is the convenience on top of the contract's trait, `leftovers` a rule for all its backends.
        [name] | [name, "ext" | "leftovers"] if CONTRACTS.contains(name) => Part::Contract((*name).to_owned()),
        [name, backend, ..] if CONTRACTS.contains(name) => Part::Backend((*name).to_owned(), (*backend).to_owned()),
        ["database", ..] => Part::Link,
        ["scheduler", ..] => Part::Scheduler,
        ["testing", ..] => Part::Testing,
        // Small programs over the public face.
        _ => return None,
    })
}

/// The table: may `from` import from `to`?
fn allowed(from: &Part, to: &Part) -> bool {
    let executor_may = |contract: &str, to: &Part| {
        contract == "executor" && matches!(to, Part::Contract(name) if name == "store" || name == "results")
    };
    match (from, to) {
        (Part::Root | Part::Testing, _) | (_, Part::Value) => true,
        (Part::Value, _) => false,
        (Part::Link | Part::Backend(..), Part::Link) => true,
        (Part::Link, _) => false,
        (Part::Contract(from), to) => executor_may(from, to) || matches!(to, Part::Contract(to) if from == to),
        (Part::Backend(contract, _), Part::Contract(to)) if contract == to => true,
        (Part::Backend(..), Part::Backend(..)) => from == to,
        (Part::Backend(contract, _), to) => executor_may(contract, to),
        (Part::Scheduler, to) => matches!(to, Part::Scheduler | Part::Contract(_)),
    }
}

/// Every import that goes the wrong way, as `file:line: what`.
pub(crate) fn problems(modules: &[Module]) -> Vec<String> {
    let exports = Exports::of(modules);
    let mut problems = Vec::new();
    for module in modules {
        let Some(from) = part(&module.path) else {
            problems
                .push(format!("{}:1: a new top-level module; give it a place in the tidy test's table", module.file));
            continue;
        };
        for (line, path) in paths(&module.code) {
            let Some(target) = exports.resolve(&module.path, &path) else { continue };
            if (module.file.as_str(), path.join("::").as_str()) == SHORTCUT {
                continue;
            }
            // A contract's module hands its own backends out.
            let own_child = target.starts_with(&module.path) && matches!(from, Part::Contract(_));
            if !own_child && part(&target).is_some_and(|to| !allowed(&from, &to)) {
                problems.push(format!(
                    "{}:{line}: {} must not import {}; see the direction of imports in ARCHITECTURE.md",
                    module.file,
                    module.path.join("::"),
                    path.join("::")
                ));
            }
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// Where names really come from: the modules there are, and what each re-exports.
struct Exports<'a> {
    modules: &'a [Module],
    /// (module, name) → the path that it stands for.
    aliases: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl<'a> Exports<'a> {
    fn of(modules: &'a [Module]) -> Self {
        let mut aliases = BTreeMap::new();
        for module in modules {
            for start in words(&module.code, "pub use") {
                let statement = module.code[start + "pub use".len()..].split(';').next().unwrap_or_default();
                let mut spelled = Vec::new();
                spell_out(statement, &[], &mut spelled);
                for path in spelled {
                    let Some(name) = path.last().cloned() else { continue };
                    let mut full = module.path.clone();
                    match path[0].as_str() {
                        "crate" => full = path[1..].to_vec(),
                        "self" => full.extend_from_slice(&path[1..]),
                        _ => full.extend(path),
                    }
                    aliases.insert((module.path.clone(), name), full);
                }
            }
        }
        Exports { modules, aliases }
    }

    /// The module that `path`, as written in the module `at`, comes from; `None` if it is not of this crate.
    fn resolve(&self, at: &[String], path: &[String]) -> Option<Vec<String>> {
        let mut full = at.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (full, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {}
            _ => return None,
        }
        while rest.first().is_some_and(|part| part == "super") {
            full.pop();
            rest = &rest[1..];
        }
        full.extend_from_slice(rest);
        // A name may be handed on several times; a circle ends with the bound.
        const HANDED_ON_MAX: usize = 8;
        for _ in 0..HANDED_ON_MAX {
            let module = self.module_of(&full);
            let Some(name) = full.get(module.len()) else { return Some(module) };
            match self.aliases.get(&(module.clone(), name.clone())) {
                Some(alias) => full = alias.clone(),
                None => return Some(module),
            }
        }
        None
    }

    /// The longest beginning of `path` that is a module.
    fn module_of(&self, path: &[String]) -> Vec<String> {
        let is_module = |len: &usize| self.modules.iter().any(|module| module.path == path[..*len]);
        (0..=path.len()).rev().find(is_module).map_or(Vec::new(), |len| path[..len].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, code: &str) -> usize {
        let modules = [
            Module::new("lib.rs", "pub use store::{MemoryStore, Store}; pub use task::Task;"),
            Module::new("task.rs", ""),
            Module::new("store/mod.rs", "mod memory; pub use memory::MemoryStore; pub use self::sql::SqlStore;"),
            Module::new("store/memory.rs", ""),
            Module::new("store/sql/mod.rs", "mod dialect;"),
            Module::new("store/sql/dialect.rs", ""),
            Module::new("results/mod.rs", ""),
            Module::new("database/mod.rs", ""),
            Module::new("executor/mod.rs", "use crate::store::Report; pub use function::FunctionExecutor;"),
            Module::new("executor/function.rs", ""),
            Module::new("scheduler/mod.rs", ""),
            Module::new(file, code),
        ];
        problems(&modules).len()
    }

    #[test]
    fn what_may_be_imported() {
        for (file, code) in [
            ("store/cached.rs", "use crate::store::Store; use crate::Task; use super::{Store, Page};"),
            ("store/sql/sqlite.rs", "use super::dialect::Limit; use crate::task::Task;"),
            ("store/sql/postgres.rs", "use crate::database::postgres::Session;"),
            ("executor/process.rs", "use crate::results::{LogStore, LogKey}; use crate::store::Said;"),
            ("scheduler/run.rs", "use crate::{store::Store, executor::Executor}; use super::config::Config;"),
            ("testing/faulty.rs", "use crate::store::MemoryStore; use crate::scheduler::Scheduler;"),
            ("scheduler/mod.rs", "use crate::executor::FunctionExecutor;"),
            ("retry.rs", "use std::time::Duration; use serde::Serialize; use crate::task::Task;"),
        ] {
            assert_eq!(check(file, code), 0, "{file}: {code}");
        }
    }

    #[test]
    fn what_must_not_be_imported() {
        for (file, code) in [
            ("retry.rs", "use crate::store::Store;"),
            ("state.rs", "fn f() { crate::executor::Run::x() }"),
            ("store/cached.rs", "use super::memory::Maps;"),
            ("store/cached.rs", "use crate::store::MemoryStore;"),
            ("store/cached.rs", "use crate::MemoryStore;"),
            ("store/cached.rs", "use crate::scheduler::Scheduler;"),
            ("store/cached.rs", "use crate::results::ResultStore;"),
            ("executor/process.rs", "use crate::{task::Task, store::{self, memory::Maps}};"),
            ("executor/process.rs", "use super::function::Context;"),
            ("scheduler/run.rs", "use crate::store::{Store, MemoryStore};"),
            ("scheduler/run.rs", "use crate::executor::function::FunctionExecutor;"),
            ("scheduler/run.rs", "use crate::executor::FunctionExecutor;"),
            ("scheduler/run.rs", "use crate::testing::TestClock;"),
            ("database/postgres.rs", "use crate::store::Store;"),
            ("scheduler/run.rs", "use crate::database::postgres::Session;"),
            ("helpers.rs", "use std::fmt;"),
        ] {
            assert_eq!(check(file, code), 1, "{file}: {code}");
        }
    }
}
