//! Reading: by id, page by page, counts and queues.

use std::collections::{BTreeMap, HashMap};

use sqlx::Row;

use super::lanes;
use super::rows::{self, TASK_COLUMNS, task_columns};
use super::tx::{Tx, has_id, now};
use crate::database::postgres::Work;
use crate::error::Error;
use crate::store::sql::codec::{self, SCHEDULED, unreadable};
use crate::store::sql::ids;
use crate::store::sql::texts::{self, label};
use crate::store::{Cursor, PAGE_MAX, Page, QueueCounts, QueueSettings, TaskQuery};
use crate::task::{Name, State, Task, TaskId};

/// A page ends early once its payloads and outputs have this many bytes (64 MiB).
const PAGE_BYTES_MAX: i64 = 64 << 20;

const BY_ID: &str = concat!("SELECT ", task_columns!(), " FROM {s}.tasks AS t WHERE ", has_id!());
/// Of the delayed tasks those that have become due since the last claim, which few are, count as waiting.
pub(super) const COUNTS: &str = concat!(
    "SELECT c.lane, c.stage, c.n, CASE WHEN c.stage = -1 THEN c.n - (SELECT count(*) FROM {s}.tasks AS t
        WHERE t.lane = c.lane AND t.stage = -1 AND t.run_at <= n.now) ELSE 0 END, c.rows
    FROM (SELECT lane, stage, sum(n)::bigint AS n, count(*) AS rows FROM {s}.tallies GROUP BY lane, stage) AS c,
    (SELECT ",
    now!(),
    " + $1 AS now OFFSET 0) AS n WHERE c.n <> 0"
);
const SET: &str = "INSERT INTO {s}.queues (name, settings, limited, paused) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, limited = excluded.limited, paused = excluded.paused";
const LOCK_SETTINGS: &str = "SELECT pg_advisory_xact_lock($1)";
const QUEUES: &str = "SELECT name, settings FROM {s}.queues
    UNION ALL SELECT DISTINCT queue, NULL FROM {s}.lanes WHERE queue NOT IN (SELECT name FROM {s}.queues) ORDER BY 1";

/// Reads tasks by id.
pub(super) async fn get(tx: &mut Tx<'_>, ids: &[TaskId]) -> Work<Vec<Option<Task>>> {
    let found = tx.of_ids(BY_ID, ids.iter()).fetch_all(tx.connection()).await?;
    let mut by_id: HashMap<TaskId, Task> = HashMap::with_capacity(found.len());
    for (_, task) in rows::tasks(tx, &found).await? {
        by_id.insert(task.id.clone(), task);
    }
    Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())
}

/// One value of a query.
enum Value {
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

/// Lists tasks, newest first.
pub(super) async fn list(tx: &mut Tx<'_>, query: &TaskQuery) -> Work<Page> {
    let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
    let (condition, values) = condition(tx.shared.salt, query);
    // One row more than the page holds, to see whether there is another page.
    let sql = format!(
        concat!(
            "SELECT ",
            task_columns!(),
            ", more FROM (SELECT *, sum(bytes) OVER (ORDER BY seq DESC) - bytes AS before, count(*) OVER () AS more FROM (
                SELECT *, octet_length(payload) + coalesce(octet_length(output), 0) AS bytes
                FROM {{s}}.tasks AS t WHERE {} ORDER BY t.seq DESC LIMIT {}) AS t) AS t
            WHERE before <= {} ORDER BY t.seq DESC LIMIT {}"
        ),
        condition,
        limit + 1,
        PAGE_BYTES_MAX,
        limit
    );
    let mut bound = tx.session.database().dynamic(&sql);
    for value in values {
        bound = match value {
            Value::Number(number) => bound.bind(number),
            Value::Text(text) => bound.bind(text),
            Value::Texts(texts) => bound.bind(texts),
        };
    }
    let found = bound.fetch_all(tx.connection()).await?;
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
        terms.push(text.replace('?', &format!("${}", values.len())));
    };
    if let Some(cursor) = query.cursor {
        term("t.seq < ?", Value::Number(i64::try_from(cursor.insertion()).unwrap_or(i64::MAX)));
    }
    if let Some(queue) = &query.queue {
        term("t.lane IN (SELECT id FROM {s}.lanes WHERE queue = ?)", Value::Text(queue.to_string()));
    }
    if let Some(kind) = &query.kind {
        term("t.lane IN (SELECT id FROM {s}.lanes WHERE kind = ?)", Value::Text(kind.to_string()));
    }
    if !query.labels.is_empty() {
        let wanted = query.labels.iter().map(|(name, value)| label(name, value)).collect();
        term("t.labels @> ?::text[]", Value::Texts(wanted));
    }
    for (text, time) in [("t.created_at >= ?", query.created_from), ("t.created_at < ?", query.created_before)] {
        if let Some(time) = time {
            term(text, Value::Number(time.as_micros()));
        }
    }
    if let Some(prefix) = query.id_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        // An id has no such character; no text with one can be sent.
        if prefix.contains('\0') {
            terms.push("FALSE".to_owned());
            return (terms.join(" AND "), values);
        }
        // No character sorts after the last one, and an id that begins with the prefix is below prefix + it.
        values.extend([Value::Text(prefix.to_owned()), Value::Text(format!("{prefix}{}", char::MAX))]);
        let given = format!("t.id >= ${} AND t.id < ${}", values.len() - 1, values.len());
        // Those that say where their row is: read in the order of the rows, as there is no index on their beginnings.
        let made = ids::places(salt, prefix).map_or(String::new(), |(created_at, seqs)| {
            let (from, to) = (created_at.start().as_micros(), created_at.end().as_micros());
            let places =
                format!("t.created_at BETWEEN {from} AND {to} AND t.seq BETWEEN {} AND {}", seqs.start(), seqs.end());
            format!(" OR t.id IS NULL AND {places}")
        });
        terms.push(format!("({given}{made})"));
    }
    if !query.states.is_empty() {
        terms.extend(stages(&query.states));
    }
    (terms.join(" AND "), values)
}

/// The terms for these states. The literal lists are those of partial indexes, which then can be used.
fn stages(states: &[State]) -> Vec<String> {
    let mut stages: Vec<i64> = states.iter().map(|state| *state as i64).collect();
    let only = |allowed: &[i64]| stages.iter().all(|stage| allowed.contains(stage));
    let mut terms = Vec::new();
    if only(&[0, 5, 6]) {
        terms.push("t.stage IN (0, 5, 6)".to_owned());
    } else if only(&[2, 3]) {
        terms.push("t.stage IN (2, 3)".to_owned());
    }
    if states.contains(&State::Waiting) {
        stages.push(SCHEDULED);
    }
    terms.push(format!("t.stage IN ({})", numbers(&stages)));
    terms
}

/// Numbers as a list in a statement.
pub(super) fn numbers(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// How many tasks each queue has in each state, and how many rows were added up.
pub(super) async fn counts(tx: &mut Tx<'_>) -> Work<(Vec<QueueCounts>, i64)> {
    let found = tx.query(COUNTS).bind(tx.shared.offset()).fetch_all(tx.connection()).await?;
    let (mut counts, mut rows): (BTreeMap<Name, QueueCounts>, i64) = (BTreeMap::new(), 0);
    for row in &found {
        let (number, stage): (i32, i16) = (row.try_get(0)?, row.try_get(1)?);
        let queue = lanes::lane(tx, number).await?.queue;
        let (all, scheduled): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let new = QueueCounts { queue: queue.clone(), by_state: Default::default(), scheduled: 0 };
        let counts = counts.entry(queue).or_insert(new);
        let state = codec::state(stage.into())?;
        *counts.by_state.get_mut(state as usize).ok_or_else(|| unreadable("stage", stage))? += all.cast_unsigned();
        counts.scheduled += scheduled.cast_unsigned();
        rows += row.try_get::<i64, _>(4)?;
    }
    Ok((counts.into_values().collect(), rows))
}

/// The lock on the settings of all queues of a schema: shared by claims, held alone to change them.
pub(super) fn settings_lock(tx: &Tx<'_>) -> i64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let name = format!("light-task-scheduler queues {}", tx.session.database().schema());
    name.bytes().fold(OFFSET, add).cast_signed()
}

/// Creates a queue or replaces its settings; what its rate limit has counted stays.
pub(super) async fn set_queue(tx: &mut Tx<'_>, (queue, settings): &(Name, QueueSettings)) -> Work<()> {
    let json = serde_json::to_string(settings).map_err(|e| Error::internal(format!("settings as JSON: {e}")))?;
    tx.query(LOCK_SETTINGS).bind(settings_lock(tx)).execute(tx.connection()).await?;
    let query =
        tx.query(SET).bind(queue.as_str()).bind(json).bind(settings.concurrency.is_some()).bind(settings.paused);
    query.execute(tx.connection()).await?;
    tx.hint.work = true;
    Ok(())
}

/// Every queue that has settings or has ever had a task.
pub(super) async fn queues(tx: &mut Tx<'_>) -> Work<Vec<(Name, QueueSettings)>> {
    let mut queues = Vec::new();
    for row in tx.query(QUEUES).fetch_all(tx.connection()).await? {
        let json: Option<&str> = row.try_get(1)?;
        queues.push((
            Name::new(row.try_get(0)?)?,
            json.map(|json| texts::settings(json.as_bytes())).transpose()?.unwrap_or_default(),
        ));
    }
    Ok(queues)
}
