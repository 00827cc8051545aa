//! The query language of lists and bulk actions: `state:failed queue:video error:"no space" attempt:>2 created:<1h`.
//!
//! | term | selects |
//! |---|---|
//! | `state:failed,cancelled` | by state; also `scheduled`, `retrying`, `cancelling` |
//! | `queue:video` `kind:process` | by queue, by kind |
//! | `label.batch:nightly` | by label |
//! | `id:01jx` or just `01jx` | ids that begin so |
//! | `created:<1h` `created:>1h` | younger or older than that |
//! | `created:>=2026-11-01T00:00:00Z` | since then; `<` before then |
//! | `attempt:>2` | by the number of attempts: `2`, `>2`, `>=2`, `<2`, `<=2` |
//! | `worker:0193` | whose worker's id begins so |
//! | `error:"no space"` | whose failure contains that, whatever the case |
//! | `payload.user.id:7` | whose payload has this value there |
//!
//! Within quotes `\"` is a quote and `\\` a backslash. All terms must hold. Those of the first five rows are looked up by the store; the others are checked on the tasks that
//! it finds, a bounded number of them for one answer.

use std::cmp::Ordering;
use std::time::Duration;

use light_task_scheduler::store::{Cursor, PAGE_MAX, TaskQuery};
use light_task_scheduler::{Name, State, Store, Task, TaskId, Timestamp};
use serde_json::Value;

use super::access::Caller;
use super::problem::{FieldError, Problem, Result};
use super::task::phase;
use crate::duration::parse_duration;
use crate::output::did_you_mean;

/// Most tasks that are looked at for one answer, where the store cannot look up what is asked: some 25 ms.
const LOOKED_AT_MAX: usize = 5_000;
/// How much larger each page of the store is than the one before, while an answer is not full.
const PAGE_GROWTH: usize = 4;
/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 2_048;
/// What a term may begin with.
const FIELDS: [&str; 10] =
    ["state", "queue", "kind", "id", "created", "attempt", "worker", "error", "label.NAME", "payload.PATH"];
/// States for people that are no states of their own.
const PHASES: [&str; 3] = ["scheduled", "retrying", "cancelling"];

/// Which tasks are meant.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Filter {
    /// What the store looks up.
    pub(crate) stored: TaskQuery,
    /// What is checked on each task that it finds.
    tests: Vec<Test>,
    /// Queues beyond which nothing is seen.
    scope: Option<Vec<Name>>,
}

/// What is checked on a task.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    /// In one of these states, of which some are for people only.
    Phases(Vec<String>),
    /// So many attempts.
    Attempt(Comparison, u32),
    /// A worker whose id begins so.
    Worker(String),
    /// A failure that contains this, in lower case.
    Error(String),
    /// A payload that has this text at this place.
    Payload(Vec<String>, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::AtMost => ordering.is_le(),
            Comparison::Equal => ordering.is_eq(),
            Comparison::AtLeast => ordering.is_ge(),
            Comparison::More => ordering.is_gt(),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Newest first.
    pub(crate) tasks: Vec<Task>,
    /// Where to go on; `None`: that was all. There may be a place to go on at though nothing more is found.
    pub(crate) next: Option<Cursor>,
}

impl Filter {
    /// Reads a query, as somebody asks who may see some queues.
    pub(crate) fn parse(text: &str, caller: &Caller, now: Timestamp) -> Result<Filter> {
        let fault = |message: String| Problem::of_fields(vec![FieldError { pointer: "q".to_owned(), message }]);
        if text.len() > QUERY_BYTES_MAX {
            return Err(fault(format!("the query is longer than {QUERY_BYTES_MAX} bytes")));
        }
        let scope = caller.queues.as_ref().map(|queues| queues.to_vec());
        let mut filter = Filter { scope, ..Filter::default() };
        for term in terms(text).map_err(&fault)? {
            filter.add(&term, now).map_err(&fault)?;
        }
        match (&filter.stored.queue, filter.scope.as_deref()) {
            (Some(queue), _) => caller.check_queue(queue)?,
            (None, Some([only])) => filter.stored.queue = Some(only.clone()),
            _ => {}
        }
        Ok(filter)
    }

    fn add(&mut self, term: &str, now: Timestamp) -> Result<(), String> {
        let Some((field, value)) = term.split_once(':') else {
            return self.prefix(term);
        };
        if value.is_empty() {
            return Err(format!("`{term}` has no value"));
        }
        let name = |text: &str| Name::new(text).map_err(|error| error.to_string());
        match field {
            "state" => self.states(value)?,
            "queue" => self.stored.queue = Some(name(value)?),
            "kind" => self.stored.kind = Some(name(value)?),
            "id" => self.prefix(value)?,
            "created" => self.created(value, now)?,
            "attempt" => {
                let (comparison, number) = comparison(value);
                let number = number.parse().map_err(|_| format!("`{number}` is not a number of attempts"))?;
                self.tests.push(Test::Attempt(comparison, number));
            }
            "worker" => self.tests.push(Test::Worker(value.to_owned())),
            "error" => self.tests.push(Test::Error(value.to_lowercase())),
            _ => match field.split_once('.') {
                Some(("label", label)) => self.stored.labels.push((name(label)?, value.to_owned())),
                Some(("payload", path)) => {
                    let path = path.split('.').map(str::to_owned).collect();
                    self.tests.push(Test::Payload(path, value.to_owned()));
                }
                _ => return Err(unknown_field(field)),
            },
        }
        Ok(())
    }

    fn prefix(&mut self, text: &str) -> Result<(), String> {
        // What is no id is no beginning of one either.
        TaskId::new(text).map_err(|error| error.to_string())?;
        self.stored.id_prefix = Some(text.to_owned());
        Ok(())
    }

    fn states(&mut self, value: &str) -> Result<(), String> {
        let words: Vec<&str> = value.split(',').collect();
        for word in &words {
            let state = match *word {
                "scheduled" | "retrying" => State::Waiting,
                "cancelling" => State::Running,
                word => word.parse().map_err(|error: light_task_scheduler::Error| error.to_string())?,
            };
            self.stored.states.push(state);
        }
        if words.iter().any(|word| PHASES.contains(word)) {
            self.tests.push(Test::Phases(words.into_iter().map(str::to_owned).collect()));
        }
        Ok(())
    }

    fn created(&mut self, value: &str, now: Timestamp) -> Result<(), String> {
        let (comparison, text) = comparison(value);
        let younger = matches!(comparison, Comparison::Less | Comparison::AtMost);
        if let Ok(age) = parse_duration(text) {
            // An age: the younger, the later.
            let at = now - age;
            if younger {
                self.stored.created_from = Some(at);
            } else {
                self.stored.created_before = Some(at);
            }
            return Ok(());
        }
        let at: Timestamp = text
            .parse()
            .map_err(|_| format!("`{text}` is neither an age such as 1h nor a time such as 2026-11-22T17:00:00Z"))?;
        if younger {
            self.stored.created_before = Some(at);
        } else {
            self.stored.created_from = Some(at);
        }
        Ok(())
    }

    fn holds(&self, task: &Task, now: Timestamp) -> bool {
        let seen = self.scope.as_ref().is_none_or(|queues| queues.contains(&task.spec.queue));
        seen && self.tests.iter().all(|test| test.holds(task, now))
    }

    /// Finds up to `limit` tasks from this place on.
    pub(crate) async fn find(
        &self,
        store: &dyn Store,
        from: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Found> {
        let mut query = TaskQuery { cursor: from, limit: limit.min(PAGE_MAX), ..self.stored.clone() };
        let mut found = Found { tasks: Vec::new(), next: from };
        let mut looked_at = 0;
        while found.tasks.len() < limit && looked_at < LOOKED_AT_MAX {
            let wanted = limit - found.tasks.len();
            let listed = store.list(&query).await?;
            let seen = listed.tasks.len();
            let (places, held): (Vec<usize>, Vec<Task>) =
                listed.tasks.into_iter().enumerate().filter(|(_, task)| self.holds(task, now)).unzip();
            if held.len() > wanted {
                // Only a page has a place to go on at: one that ends with the last that is wanted. It is shorter.
                query.limit = places[wanted - 1] + 1;
                continue;
            }
            looked_at += seen;
            // A short page: the store has looked at as many as it does at once.
            let enough = seen < query.limit;
            found.next = listed.next;
            query.cursor = listed.next;
            // Where few of them are asked for, more are read at a time; where all are, no more than is still wanted.
            let most = if held.len() == seen { wanted - seen } else { PAGE_MAX };
            query.limit = (query.limit * PAGE_GROWTH).min(most).clamp(1, PAGE_MAX);
            found.tasks.extend(held);
            if found.next.is_none() || enough {
                break;
            }
        }
        Ok(found)
    }
}

impl Test {
    fn holds(&self, task: &Task, now: Timestamp) -> bool {
        let record = &task.record;
        match self {
            Test::Phases(phases) => {
                let shown = phase(task, now);
                phases.iter().any(|phase| phase == shown || *phase == record.state.as_str())
            }
            Test::Attempt(comparison, number) => comparison.holds(record.attempt.cmp(number)),
            Test::Worker(prefix) => record.owner.is_some_and(|owner| owner.to_string().starts_with(prefix)),
            Test::Error(text) => record.failure().is_some_and(|failure| failure.message.to_lowercase().contains(text)),
            Test::Payload(path, text) => task.spec.payload.parse::<Value>().is_ok_and(|value| {
                let place = path.iter().try_fold(&value, |value, step| match value {
                    Value::Array(items) => items.get(step.parse::<usize>().ok()?),
                    value => value.get(step),
                });
                match place {
                    Some(Value::String(found)) => found == text,
                    Some(Value::Array(_) | Value::Object(_)) | None => false,
                    Some(found) => serde_json::to_string(found).is_ok_and(|shown| shown == *text),
                }
            }),
        }
    }
}

/// A text as one value of a term, whatever is in it.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Cuts a query at its blanks, except within quotes.
fn terms(text: &str) -> Result<Vec<String>, String> {
    let mut terms = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted && letters.peek().is_some_and(|next| matches!(next, '"' | '\\')) => {
                let escaped = letters.next();
                terms.last_mut().into_iter().for_each(|term| term.extend(escaped));
            }
            '"' => quoted = !quoted,
            blank if blank.is_whitespace() && !quoted => terms.push(String::new()),
            letter => terms.last_mut().into_iter().for_each(|term| term.push(letter)),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    terms.retain(|term| !term.is_empty());
    Ok(terms)
}

fn comparison(value: &str) -> (Comparison, &str) {
    let signs = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::More),
        ("=", Comparison::Equal),
    ];
    let found = signs.into_iter().find_map(|(sign, comparison)| Some((comparison, value.strip_prefix(sign)?)));
    found.unwrap_or((Comparison::Equal, value))
}

fn unknown_field(field: &str) -> String {
    match did_you_mean(field, &FIELDS) {
        Some(meant) => format!("unknown `{field}:`; did you mean `{meant}:`?"),
        None => format!("unknown `{field}:`; a term begins with {}", FIELDS.join(", ")),
    }
}

/// How long a page of a list may be asked to be, and is if nothing is asked.
pub(crate) fn page_size(asked: Option<usize>, default: usize) -> Result<usize> {
    match asked {
        None => Ok(default),
        Some(size) if (1..=PAGE_MAX).contains(&size) => Ok(size),
        Some(size) => Err(Problem::of_fields(vec![FieldError {
            pointer: "limit".to_owned(),
            message: format!("{size} is not 1 to {PAGE_MAX}"),
        }])),
    }
}

/// A place in a list, as text.
pub(crate) fn cursor_text(cursor: Cursor) -> String {
    format!("c{:x}", cursor.insertion())
}

/// Reads a place in a list.
pub(crate) fn parse_cursor(text: &str) -> Result<Cursor> {
    let number = text.strip_prefix('c').and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.map(Cursor::at).ok_or_else(|| {
        let message = "it is not a cursor; pass back what `next` gave".to_owned();
        Problem::of_fields(vec![FieldError { pointer: "cursor".to_owned(), message }])
    })
}

/// How long a request that waits may be held.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use light_task_scheduler::{MemoryStore, NewTask};

    fn filter(text: &str) -> Result<Filter, String> {
        let now = Timestamp::from_micros(10_000_000_000);
        Filter::parse(text, &Caller::anybody(), now).map_err(|problem| problem.detail)
    }

    #[test]
    fn terms_become_what_the_store_looks_up() {
        let found = filter(r#"state:failed,cancelled queue:video label.batch:"a b" created:<1h 01jx"#).unwrap().stored;
        assert_eq!(found.states, [State::Failed, State::Cancelled]);
        assert_eq!(found.queue.unwrap().as_str(), "video");
        assert_eq!(found.labels[0].1, "a b");
        assert_eq!(found.created_from.unwrap().as_micros(), 6_400_000_000);
        assert_eq!(found.id_prefix.as_deref(), Some("01jx"));
        let since = filter("created:>=1970-01-01T01:00:00Z").unwrap().stored;
        assert_eq!(since.created_from.unwrap().as_micros(), 3_600_000_000);
        assert_eq!(filter("").unwrap(), Filter::default());
    }

    #[test]
    fn any_text_can_be_a_value() {
        for text in ["a b", r#"say "hi""#, r"C:\dir\", r#"\""#, "a:b"] {
            let found = filter(&format!("label.x:{} queue:q", quoted(text))).unwrap().stored;
            assert_eq!((found.labels[0].1.as_str(), found.queue.unwrap().as_str()), (text, "q"));
        }
    }

    #[test]
    fn bad_terms_say_what_is_wrong() {
        for (text, why) in [
            ("stat:failed", "did you mean `state:`"),
            ("state:done", "not a state"),
            ("colour:red", "begins with"),
            ("queue:", "no value"),
            (r#"error:"x"#, "quote"),
            ("created:yesterday", "neither an age"),
            ("attempt:many", "not a number"),
        ] {
            let error = filter(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn what_the_store_cannot_look_up_is_checked() {
        let store = MemoryStore::by_priority();
        let payloads = [r#"{"user": {"id": 7}}"#, r#"{"user": {"id": 77}}"#, r#"{"user": [7, "x"]}"#, "no json"];
        let tasks = payloads.map(|payload| {
            let payload = light_task_scheduler::Payload::from_bytes(payload.as_bytes());
            NewTask::with_payload(Name::new("k").unwrap(), payload)
        });
        store.insert(tasks.to_vec()).await.unwrap();
        let count = async |text: &str| {
            let filter = filter(text).unwrap();
            filter.find(&store, None, 10, Timestamp::default()).await.unwrap().tasks.len()
        };
        assert_eq!(count("payload.user.id:7").await, 1);
        assert_eq!(count("payload.user.1:x").await, 1);
        assert_eq!(count("attempt:<1").await, 4);
        assert_eq!(count("attempt:>0").await, 0);
        assert_eq!(count("error:x").await, 0);
    }

    #[tokio::test]
    async fn what_is_checked_is_found_once_whatever_lies_between() {
        let store = MemoryStore::by_priority();
        // Many at once, then few and far between, then many again.
        let wanted = |number: usize| !(40..3_000).contains(&number) || number.is_multiple_of(500);
        let tasks = (0..3_100).map(|number| {
            let payload = format!(r#"{{"wanted": {}}}"#, wanted(number));
            let payload = light_task_scheduler::Payload::from_bytes(payload.as_bytes());
            let mut task = NewTask::with_payload(Name::new("k").unwrap(), payload);
            task.id = Some(TaskId::new(&format!("t{number}")).unwrap());
            task
        });
        for part in tasks.collect::<Vec<_>>().chunks(1_000) {
            store.insert(part.to_vec()).await.unwrap();
        }
        let filter = filter("payload.wanted:true").unwrap();
        for limit in [1, 7, 50, 1_500] {
            let (mut ids, mut at) = (Vec::new(), None);
            loop {
                let found = filter.find(&store, at, limit, Timestamp::default()).await.unwrap();
                assert!(found.tasks.len() <= limit, "{limit}");
                ids.extend(found.tasks.iter().map(|task| task.id.to_string()));
                at = found.next;
                if at.is_none() {
                    break;
                }
            }
            let mut expected: Vec<String> =
                (0..3_100).filter(|number| wanted(*number)).map(|number| format!("t{number}")).collect();
            // The newest come first.
            expected.reverse();
            assert_eq!(ids, expected, "{limit}");
        }
    }

    #[test]
    fn cursors_are_passed_back_unchanged() {
        for number in [0, 1, u64::MAX] {
            assert_eq!(parse_cursor(&cursor_text(Cursor::at(number))).unwrap().insertion(), number);
        }
        assert!(parse_cursor("12").is_err() && parse_cursor("cx").is_err());
    }
}
