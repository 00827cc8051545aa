//! Reading: by id, page by page, counts and queues.

use std::collections::{BTreeMap, HashMap};

use sqlx::Row;

use super::aside::is_rare;
use super::insert::element;
use super::lanes;
use super::rows::{self, TASK_COLUMNS, active, task_columns};
use super::tx::{Tx, text};
use crate::database::mysql::Work;
use crate::error::Error;
use crate::store::sql::codec::{self, SCHEDULED, unreadable};
use crate::store::sql::ids;
use crate::store::sql::texts::{self, label};
use crate::store::{Cursor, PAGE_MAX, Page, QueueCounts, QueueSettings, TaskQuery};
use crate::task::{Name, State, Task, TaskId};

/// A page ends early once its payloads and outputs have this many bytes (64 MiB).
const PAGE_BYTES_MAX: i64 = 64 << 20;

const BY_ID: &str =
    concat!("SELECT ", task_columns!(), " FROM {p}tasks AS t FORCE INDEX (PRIMARY) WHERE t.seq IN ({*?*})");
const COUNTS: &str =
    "SELECT lane, stage, COUNT(*), CAST(SUM(CASE WHEN stage = -1 AND run_at > ? THEN 1 ELSE 0 END) AS SIGNED)
    FROM {p}tasks FORCE INDEX (tasks_ready) GROUP BY lane, stage";
// Nobody registers while this is locked, and no claim is in progress while every replica is.
const ENTRANCE: &str = "SELECT 1 FROM {p}versions WHERE component = 'tasks' FOR UPDATE";
const REPLICAS: &str = "SELECT 1 FROM {p}replicas WHERE dead = 0 ORDER BY id FOR UPDATE";
const SET: &str = "INSERT INTO {p}queues (name, settings, limited, paused) VALUES (?, ?, ?, ?)
    ON DUPLICATE KEY UPDATE settings = VALUES(settings), limited = VALUES(limited), paused = VALUES(paused)";
const QUEUES: &str = "SELECT name, settings FROM {p}queues
    UNION ALL SELECT DISTINCT queue, NULL FROM {p}lanes WHERE queue NOT IN (SELECT name FROM {p}queues) ORDER BY 1";

/// Reads tasks by id.
pub(super) async fn get(tx: &mut Tx<'_>, ids: &[TaskId]) -> Work<Vec<Option<Task>>> {
    let found = rows::find(tx, BY_ID, ids.iter()).await?;
    let mut by_id: HashMap<TaskId, Task> = HashMap::with_capacity(found.len());
    for (_, task) in rows::tasks(tx, &found).await? {
        by_id.insert(task.id.clone(), task);
    }
    Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())
}

/// One value of a query.
enum Value {
    Number(i64),
    Bytes(Vec<u8>),
}

impl Value {
    fn text(text: impl Into<String>) -> Self {
        Value::Bytes(text.into().into_bytes())
    }
}

/// Lists tasks, newest first.
pub(super) async fn list(tx: &mut Tx<'_>, query: &TaskQuery) -> Work<Page> {
    let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
    let tables = tables(&query.states);
    let (condition, values) = condition(tx.shared.salt, query);
    // One row more than the page holds, to see whether there is another page. The lengths are added up without the
    // bytes, which are fetched for the page alone.
    let sql = format!(
        concat!(
            "SELECT ",
            task_columns!(),
            ", p.more FROM (SELECT seq, ahead, more FROM (
                SELECT seq, SUM(bytes) OVER (ORDER BY seq DESC) - bytes AS ahead, COUNT(*) OVER () AS more FROM (
                    SELECT t.seq, LENGTH(t.payload) + COALESCE(LENGTH(t.output), 0) AS bytes
                    FROM {} WHERE {} ORDER BY t.seq DESC LIMIT ?) AS a) AS b
                WHERE ahead <= ? ORDER BY seq DESC LIMIT ?) AS p JOIN {{p}}tasks AS t ON t.seq = p.seq"
        ),
        tables, condition
    );
    let mut bound = tx.session.database().dynamic(&sql);
    for value in values {
        bound = match value {
            Value::Number(number) => bound.bind(number),
            Value::Bytes(bytes) => bound.bind(bytes),
        };
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found =
        bound.bind(limit.saturating_add(1)).bind(PAGE_BYTES_MAX).bind(limit).fetch_all(tx.connection()).await?;
    found.sort_by_cached_key(|row| std::cmp::Reverse(row.try_get::<i64, _>(0).ok()));
    let mut page = Page::default();
    if let Some(last) = found.last() {
        let all: i64 = last.try_get(TASK_COLUMNS)?;
        let is_last = usize::try_from(all) == Ok(found.len());
        let seq: i64 = last.try_get(0)?;
        page.next = (!is_last).then(|| Cursor::at(seq.cast_unsigned()));
    }
    page.tasks = rows::tasks(tx, &found).await?.into_iter().map(|(_, task)| task).collect();
    Ok(page)
}

/// The condition of a query, and the values in it.
fn condition(salt: i64, query: &TaskQuery) -> (String, Vec<Value>) {
    let (mut terms, mut values) = (vec!["TRUE".to_owned()], Vec::new());
    let mut term = |text: &str, value: Value| {
        values.push(value);
        terms.push(text.to_owned());
    };
    if let Some(cursor) = query.cursor {
        term("t.seq < ?", Value::Number(i64::try_from(cursor.insertion()).unwrap_or(i64::MAX)));
    }
    if let Some(queue) = &query.queue {
        term("t.lane IN (SELECT id FROM {p}lanes WHERE queue = ?)", Value::text(queue.as_str()));
    }
    if let Some(kind) = &query.kind {
        term("t.lane IN (SELECT id FROM {p}lanes WHERE kind = ?)", Value::text(kind.as_str()));
    }
    for (name, value) in &query.labels {
        term("LOCATE(?, t.labels) > 0", Value::text(element(&label(name, value))));
    }
    for (text, time) in [("t.created_at >= ?", query.created_from), ("t.created_at < ?", query.created_before)] {
        if let Some(time) = time {
            term(text, Value::Number(time.as_micros()));
        }
    }
    if let Some(prefix) = query.id_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        // No text has such a byte in it, so that every id that begins with the prefix is below prefix + it.
        const ABOVE_ALL: u8 = 0xff;
        let mut end = prefix.as_bytes().to_vec();
        end.push(ABOVE_ALL);
        values.extend([Value::text(prefix), Value::Bytes(end)]);
        // Those that say where their row is: read in the order of the rows, as there is no index on their beginnings.
        let made = ids::places(salt, prefix).map_or(String::new(), |(created_at, seqs)| {
            let (from, to) = (created_at.start().as_micros(), created_at.end().as_micros());
            let seqs = format!("t.seq BETWEEN {} AND {}", seqs.start(), seqs.end());
            format!(" OR t.id IS NULL AND t.created_at BETWEEN {from} AND {to} AND {seqs}")
        });
        terms.push(format!("(t.seq IN (SELECT task FROM {{p}}ids WHERE id >= ? AND id < ?){made})"));
    }
    if !query.states.is_empty() {
        terms.push(format!("t.stage IN ({})", numbers(&stages(&query.states))));
    }
    (terms.join(" AND "), values)
}

/// The tables from which tasks in these states, of which there may be few, are read as `t`.
pub(super) fn tables(states: &[State]) -> String {
    let stages = stages(states);
    let are_all = |those: fn(i64) -> bool| !stages.is_empty() && stages.iter().copied().all(those);
    if are_all(is_rare) {
        let stages = numbers(&stages);
        format!("{{p}}rare AS r STRAIGHT_JOIN {{p}}tasks AS t ON t.seq = r.task AND r.stage IN ({stages})")
    } else if are_all(rows::is_active) {
        active!().to_owned()
    } else {
        "{p}tasks AS t".to_owned()
    }
}

/// The stages of tasks in these states.
fn stages(states: &[State]) -> Vec<i64> {
    let scheduled = states.contains(&State::Waiting).then_some(SCHEDULED);
    states.iter().map(|state| *state as i64).chain(scheduled).collect()
}

/// Numbers as a list in a statement.
fn numbers(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// How many tasks each queue has in each state.
pub(super) async fn counts(tx: &mut Tx<'_>) -> Work<Vec<QueueCounts>> {
    let now = tx.now().await?;
    let found = tx.query(COUNTS).bind(now.as_micros()).fetch_all(tx.connection()).await?;
    let mut counts: BTreeMap<Name, QueueCounts> = BTreeMap::new();
    for row in &found {
        let (number, stage): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let queue = lanes::lane(tx, number).await?.queue;
        let (all, scheduled): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let new = QueueCounts { queue: queue.clone(), by_state: Default::default(), scheduled: 0 };
        let counts = counts.entry(queue).or_insert(new);
        let state = codec::state(stage)?;
        *counts.by_state.get_mut(state as usize).ok_or_else(|| unreadable("stage", stage))? += all.cast_unsigned();
        counts.scheduled += scheduled.cast_unsigned();
    }
    Ok(counts.into_values().collect())
}

/// Creates a queue or replaces its settings; what its rate limit has counted stays. No claim is in progress then:
/// a pause that was answered is in force.
pub(super) async fn set_queue(tx: &mut Tx<'_>, (queue, settings): &(Name, QueueSettings)) -> Work<()> {
    let json = serde_json::to_vec(settings).map_err(|e| Error::internal(format!("settings as JSON: {e}")))?;
    tx.query(ENTRANCE).fetch_optional(tx.connection()).await?;
    tx.query(REPLICAS).fetch_all(tx.connection()).await?;
    let query = tx.query(SET).bind(queue.as_str().as_bytes().to_vec()).bind(json);
    query.bind(settings.concurrency.is_some()).bind(settings.paused).execute(tx.connection()).await?;
    tx.hint.work = true;
    Ok(())
}

/// Every queue that has settings or has ever had a task.
pub(super) async fn queues(tx: &mut Tx<'_>) -> Work<Vec<(Name, QueueSettings)>> {
    let mut queues = Vec::new();
    for row in tx.query(QUEUES).fetch_all(tx.connection()).await? {
        let json: Option<&[u8]> = row.try_get(1)?;
        queues.push((Name::new(text(row.try_get(0)?)?)?, json.map(texts::settings).transpose()?.unwrap_or_default()));
    }
    Ok(queues)
}
