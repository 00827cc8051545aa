//! What contradicts itself in a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::names::Names;
use super::open;
use super::rows;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::sql::ids::Place;
use crate::store::sql::verify::{NAMED_MAX, QUESTIONS, lost_reports, lost_reports_in_words};

/// The numbers of tasks, as they are kept and as they are.
const TALLIES: &str = "SELECT stage, lane, SUM(kept), SUM(is_so) FROM (
        SELECT stage, lane, n AS kept, 0 AS is_so FROM tallies
        UNION ALL SELECT stage, lane, 0, COUNT(*) FROM tasks GROUP BY stage, lane)
    GROUP BY stage, lane HAVING SUM(kept) <> SUM(is_so)";
/// Bytes beside the rows that a row says are there and are not, or have another length.
const MISSING_BYTES: &str = "SELECT w.seq FROM (
        SELECT seq, 0 AS part, payload AS len FROM tasks WHERE typeof(payload) = 'integer'
        UNION ALL SELECT seq, 1, output FROM tasks WHERE typeof(output) = 'integer'
        UNION ALL SELECT seq, 2, result FROM tasks WHERE typeof(result) = 'integer') AS w
    LEFT JOIN blobs AS b ON b.key = 4 * w.seq + w.part
    WHERE b.key IS NULL OR length(b.bytes) <> w.len LIMIT ?1";
/// Bytes beside the rows that no row speaks of.
const LOST_BYTES: &str = "SELECT COUNT(*) FROM blobs AS b LEFT JOIN tasks AS t ON t.seq = b.key / 4
    WHERE typeof(CASE b.key % 4 WHEN 0 THEN t.payload WHEN 1 THEN t.output WHEN 2 THEN t.result END) <> 'integer'";
const LAST_NUMBER: &str = "SELECT COUNT(*) FROM tasks WHERE seq > (SELECT seq FROM meta)";

/// Looks at a file, on a thread of its own: it may take long.
pub(super) async fn verify(path: PathBuf) -> Result<Vec<String>> {
    let (reply, answer) = oneshot::channel();
    let work = move || drop(reply.send(look(&path)));
    std::thread::Builder::new()
        .name("lts-sqlite-verify".to_owned())
        .spawn(work)
        .map_err(|e| Error::unavailable(format!("cannot start a thread: {e}")).with_source(e))?;
    answer.await.unwrap_or_else(|_| Err(Error::internal("the thread that verifies a store has ended")))
}

fn look(path: &Path) -> Result<Vec<String>> {
    let connection = open::reader(path)?;
    // One transaction: all questions are asked of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let mut problems = broken_pages(&transaction)?;
    problems.extend(schema(&open::objects(&transaction)?, &open::expected_objects()?));
    if !problems.is_empty() {
        // What is asked of broken tables says nothing.
        return Ok(problems);
    }
    problems.extend(tasks(&transaction)?);
    problems.extend(beside(&transaction)?);
    Ok(problems)
}

fn broken_pages(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({NAMED_MAX})"))?;
    let said = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(said.into_iter().filter(|said| said != "ok").map(|said| format!("the file is broken: {said}")).collect())
}

fn schema(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) -> Vec<String> {
    let problem = |(name, sql): (&String, &String)| match found.get(name) {
        None => Some(format!("the table or index {name} is missing")),
        Some(found) if found != sql => Some(format!("the table or index {name} is not as this program makes it")),
        Some(_) => None,
    };
    expected.iter().filter_map(problem).collect()
}

fn tasks(connection: &Connection) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for question in QUESTIONS {
        let mut statement = connection.prepare(&question.statement("", "key"))?;
        let seqs = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        problems.extend(question.sentences(&ids(connection, &seqs)?));
    }
    Ok(problems)
}

/// What is kept beside the tasks.
fn beside(connection: &Connection) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut tallies = connection.prepare(TALLIES)?;
    let mut rows = tallies.query([])?;
    while let Some(row) = rows.next()? {
        let (stage, lane, kept, is): (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        problems.push(format!("the tally of stage {stage} and lane {lane} is {kept} instead of {is}"));
    }
    let mut missing = connection.prepare(MISSING_BYTES)?;
    let seqs = missing.query_map([NAMED_MAX as i64], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let missing = ids(connection, &seqs)?;
    problems.extend(missing.iter().map(|task| format!("bytes of task {task} are missing or cut")));
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let lost = count(LOST_BYTES)?;
    problems.extend((lost > 0).then(|| format!("{lost} values are kept of tasks that do not have them")));
    let above = count(LAST_NUMBER)?;
    problems.extend((above > 0).then(|| format!("{above} tasks have numbers that were never given")));
    problems.extend(lost_reports_in_words(count(&lost_reports(""))?));
    Ok(problems)
}

/// The ids of the tasks in these rows.
fn ids(connection: &Connection, seqs: &[i64]) -> Result<Vec<String>> {
    let mut names = Names::default();
    let mut statement = connection.prepare("SELECT id, created_at FROM tasks WHERE seq = ?1")?;
    let mut ids = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let found = statement.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (id, created_at): (Option<String>, i64) = found.unwrap_or_default();
        ids.push(match id {
            Some(id) => id,
            None => {
                let place = Place { seq: *seq, created_at: Timestamp::from_micros(created_at) };
                rows::id(connection, &mut names, rusqlite::types::ValueRef::Null, place)?.to_string()
            }
        });
    }
    Ok(ids)
}
