//! The tasks of one batch file: read, checked as a whole, and compared with what is in the store.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use light_task_scheduler::store::BATCH_MAX;
use light_task_scheduler::{Name, NewTask, State, Store, Task, TaskId};

use crate::batch::lines::{Defaults, lines, parse};
use crate::batch::plan::{Mode, Todo, decide};
use crate::exit::{CONFLICT, Problem, Result};
use crate::patience::patiently;

/// How many tasks are read, inserted or changed in one call of the store.
pub(crate) const CHUNK: usize = 1_000;
const _: () = assert!(CHUNK <= BATCH_MAX);
/// How many bad lines are shown; the rest is counted.
const PROBLEMS_SHOWN: usize = 20;

/// One task of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its id.
    pub(crate) id: TaskId,
    /// Its line's number, the first is 1.
    pub(crate) line: u32,
    start: usize,
    len: usize,
    /// The state in which the store had it when we began.
    pub(crate) found: Option<State>,
}

/// All tasks of the file, in its order.
#[derive(Debug)]
pub(crate) struct Roster {
    file: Vec<u8>,
    defaults: Defaults,
    entries: Vec<Entry>,
    /// The places of the entries, found by their ids. A map would have a second copy of a million ids.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// What the store knew of a batch.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The queues of tasks that were there and have not ended.
    pub(crate) queues: BTreeSet<Name>,
    /// Some task that will run was stored with other bounds than are asked for now.
    pub(crate) other_options: bool,
}

impl Roster {
    /// Reads every line; refuses the file if any is bad.
    pub(crate) fn read(file: Vec<u8>, source: &str, defaults: Defaults) -> Result<Self> {
        // As many as there may be: a vector that grows by doubling is in memory twice, and too long in the end.
        let lines_max = file.iter().filter(|byte| **byte == b'\n').count() + 1;
        let mut roster = Roster {
            file: Vec::new(),
            defaults,
            entries: Vec::with_capacity(lines_max),
            places: HashTable::with_capacity(lines_max),
            hasher: DefaultHashBuilder::default(),
        };
        let mut problems = Problems::new("cannot be run");
        for (line, text) in lines(&file) {
            match parse(line, text, &roster.defaults) {
                Ok(NewTask { id: Some(id), payload, .. }) => {
                    let Some(first) = roster.index(&id) else {
                        let start = text.as_ptr().addr() - file.as_ptr().addr();
                        roster.add(Entry { id, line, start, len: text.len(), found: None });
                        continue;
                    };
                    // The same task twice is one task; two tasks cannot share an id.
                    let first = &roster.entries[first];
                    let text = &file[first.start..first.start + first.len];
                    let same = parse(first.line, text, &roster.defaults).is_ok_and(|task| task.payload == payload);
                    if !same {
                        problems.add(line, format!("the id `{id}` is that of another command on line {}", first.line));
                    }
                }
                Ok(_) => problems.add(line, "it has no id".to_owned()),
                Err(why) => problems.add(line, why),
            }
        }
        roster.file = file;
        problems.into_result(source, crate::exit::USAGE).map(|()| roster)
    }

    fn add(&mut self, entry: Entry) {
        // There are not more entries than lines, which are counted so.
        let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(&entry.id);
        self.entries.push(entry);
        let hash_again = |place: &u32| self.hasher.hash_one(&self.entries[*place as usize].id);
        self.places.insert_unique(hash, place, hash_again);
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All tasks, in order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where a task is in the order, if it is of this batch.
    pub(crate) fn index(&self, id: &TaskId) -> Option<usize> {
        let is_it = |place: &u32| self.entries[*place as usize].id == *id;
        self.places.find(self.hasher.hash_one(id), is_it).map(|place| *place as usize)
    }

    /// The task of an entry, made anew from its line.
    pub(crate) fn task(&self, entry: &Entry) -> Result<NewTask> {
        let text = &self.file[entry.start..entry.start + entry.len];
        parse(entry.line, text, &self.defaults).map_err(|why| Problem::usage(format!("line {}: {why}", entry.line)))
    }

    /// Looks up every task in the store, before anything is changed there; refuses ids that are taken.
    pub(crate) async fn survey(&mut self, store: &dyn Store, mode: Mode, source: &str) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut problems = Problems::new("cannot be run");
        // A store without tasks has none of these. It is asked once, and not for each thousand of a large file.
        let counts = patiently(|| store.counts()).await?;
        if counts.iter().all(|counts| counts.by_state.iter().sum::<u64>() == 0) {
            return Ok(survey);
        }
        for start in (0..self.entries.len()).step_by(CHUNK) {
            let end = (start + CHUNK).min(self.entries.len());
            let ids: Vec<TaskId> = self.entries[start..end].iter().map(|entry| entry.id.clone()).collect();
            for (offset, found) in patiently(|| store.get(&ids)).await?.into_iter().enumerate() {
                let Some(found) = found else { continue };
                let wanted = self.task(&self.entries[start + offset])?;
                let entry = &mut self.entries[start + offset];
                if let Some(why) = conflict(&wanted, &found) {
                    problems.add(entry.line, why);
                }
                entry.found = Some(found.record.state);
                if !matches!(decide(entry.found, mode), Todo::Done(_)) {
                    survey.other_options |= bounds(&wanted) != (found.timeout(), found.retry_policy());
                    survey.queues.insert(found.spec.queue);
                }
            }
        }
        problems.into_result(source, CONFLICT)?;
        Ok(survey)
    }
}

fn bounds(task: &NewTask) -> (Option<std::time::Duration>, light_task_scheduler::RetryPolicy) {
    let options = task.options.as_ref();
    (options.and_then(|options| options.timeout), options.and_then(|options| options.retry).unwrap_or_default())
}

/// Why a task of the store is not the one of this line, though it has its id.
fn conflict(wanted: &NewTask, found: &Task) -> Option<String> {
    use light_task_scheduler::executor::process::CommandSpec;
    if wanted.kind == found.spec.kind && wanted.payload == found.spec.payload {
        return None;
    }
    let id = &found.id;
    let specs = (wanted.payload.parse::<CommandSpec>().ok(), found.spec.payload.parse::<CommandSpec>().ok());
    if let (Some(wanted), Some(found)) = specs
        && wanted == (CommandSpec { cwd: wanted.cwd.clone(), ..found.clone() })
    {
        let there = found.cwd.unwrap_or_default();
        return Some(format!(
            "task {id} was begun in the directory {}; run it from there, or give the batch another --name",
            there.display()
        ));
    }
    Some(format!("the id `{id}` is in the store already, with another command; choose another id"))
}

/// Bad lines: all of them are named at once.
struct Problems {
    what: &'static str,
    shown: Vec<String>,
    count: usize,
}

impl Problems {
    fn new(what: &'static str) -> Self {
        Problems { what, shown: Vec::new(), count: 0 }
    }

    fn add(&mut self, line: u32, why: String) {
        self.count += 1;
        if self.shown.len() < PROBLEMS_SHOWN {
            self.shown.push(format!("  line {line}: {why}"));
        }
    }

    fn into_result(mut self, source: &str, code: u8) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        if self.count > self.shown.len() {
            self.shown.push(format!("  … and {} more", self.count - self.shown.len()));
        }
        let lines = if self.count == 1 { "1 line".to_owned() } else { format!("{} lines", self.count) };
        let message = format!("{lines} of {source} {}; nothing was stored\n{}", self.what, self.shown.join("\n"));
        Err(Problem::new(code, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Roster> {
        let defaults = Defaults {
            batch: "b".to_owned(),
            queue: Name::new("q").unwrap(),
            timeout: None,
            retries: 0,
            cwd: "/".into(),
        };
        Roster::read(text.as_bytes().to_vec(), "f", defaults)
    }

    #[test]
    fn every_line_is_a_task_and_the_same_task_twice_is_one() {
        let line = r#"{"argv": ["a"], "id": "x"}"#;
        let roster = read(&format!("true\n\ntrue\n{line}\n{line}\n")).unwrap();
        assert_eq!(roster.entries().iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(roster.index(&TaskId::new("x").unwrap()), Some(2));
        assert_eq!(roster.task(&roster.entries()[2]).unwrap().id.unwrap().to_string(), "x");
    }

    #[test]
    fn all_bad_lines_are_named() {
        let bad = "true\n{\"argvv\": 1}\n{\"argv\": [\"a\"], \"id\": \"x\"}\n{\"argv\": [\"b\"], \"id\": \"x\"}";
        let problem = read(bad).unwrap_err();
        assert_eq!(problem.code, crate::exit::USAGE);
        for part in ["2 lines of f", "nothing was stored", "line 2: unknown field", "line 4: the id `x`", "on line 3"] {
            assert!(problem.message.contains(part), "{part}: {problem}");
        }
        let many = read(&"{}\n".repeat(PROBLEMS_SHOWN + 2)).unwrap_err();
        assert!(many.message.ends_with("… and 2 more"), "{many}");
    }
}
