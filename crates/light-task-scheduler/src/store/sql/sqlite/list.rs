//! Reading: by id, page by page, counts and queues.

use std::ops::RangeInclusive;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::error::unreadable;
use super::names::Names;
use super::rows::{self, Finder, SCHEDULED, task_columns};
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::store::sql::ids;
use crate::store::{Cursor, PAGE_MAX, Page, QueueCounts, QueueSettings, TaskQuery};
use crate::task::{Name, State, Task, TaskId};

/// A page ends early once its payloads and outputs have this many bytes (64 MiB).
const PAGE_BYTES_MAX: usize = 64 << 20;
/// A prefix of this many bytes is selective enough to look ids up by it.
const SELECTIVE_PREFIX_BYTES: usize = 8;
/// If more ids than this may begin with it, going through all tasks, newest first, fills a page sooner.
const LOOKED_UP_MAX: i64 = 10_000;
/// How many tasks are looked at for a page, if there is no index of what is asked: 10 to 30 ms. A page may be short for it.
pub(super) const LOOKED_AT_MAX: i64 = 50_000;
/// The index of held, failed and cancelled tasks.
const RARE: &str = "tasks_rare";

/// Reads tasks by id.
pub(super) fn get(connection: &Connection, names: &mut Names, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
    let mut by_id = Finder::tasks(connection)?;
    ids.iter().map(|id| Ok(by_id.task(names, id)?.map(|(_, task)| task))).collect()
}

/// Lists tasks, newest first.
pub(super) fn list(connection: &Connection, names: &mut Names, query: &TaskQuery) -> Result<Page> {
    let limit = if query.limit == 0 { PAGE_MAX } else { query.limit.min(PAGE_MAX) };
    let mut page = Page::default();
    let Some(Statement { sql, values, goes_on_at }) = statement(connection, names, query, limit)? else {
        return Ok(page);
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut bytes, mut last) = (0, 0);
    page.next = goes_on_at.map(Cursor::at);
    while let Some(row) = rows.next()? {
        if page.tasks.len() == limit || bytes > PAGE_BYTES_MAX {
            page.next = Some(Cursor::at(last));
            break;
        }
        let (stored, task) = rows::task(connection, names, row)?;
        bytes += task.spec.payload.len() + task.record.output().map_or(0, |output| output.len());
        last = stored.seq.cast_unsigned();
        page.tasks.push(task);
    }
    Ok(page)
}

/// What finds a page.
struct Statement {
    sql: String,
    values: Vec<Value>,
    /// The place behind what it looks at, unless that is all.
    goes_on_at: Option<u64>,
}

/// The statement of a query; `None`: nothing can match.
fn statement(connection: &Connection, names: &mut Names, query: &TaskQuery, limit: usize) -> Result<Option<Statement>> {
    let (mut terms, mut values) = (Vec::new(), Vec::new());
    let end = query.cursor.map_or(i64::MAX, |cursor| i64::try_from(cursor.insertion()).unwrap_or(i64::MAX));
    let mut seqs = 0..=end.saturating_sub(1);
    if let Some(created) = seqs_created(connection, query.created_from, query.created_before)? {
        seqs = *created.start()..=*created.end().min(seqs.end());
    }
    let lanes = match query.queue.is_some() || query.kind.is_some() {
        true => Some(lanes(connection, query)?),
        false => None,
    };
    let stages = stages(&query.states);
    if tallied(connection, lanes.as_deref(), stages.all.as_deref())? == 0 {
        return Ok(None);
    }
    terms.extend(lanes.map(|lanes| format!("lane IN ({})", numbers(&lanes))));
    terms.extend(stages.term());
    for (name, value) in &query.labels {
        // Not a JSON path: a name may have any character in it.
        let label = "EXISTS (SELECT 1 FROM json_each(options, '$.labels') WHERE key = ? AND value = ?)";
        terms.push(label.to_owned());
        values.extend([Value::Text(name.to_string()), Value::Text(value.clone())]);
    }
    let mut few = terms.is_empty();
    if let Some(prefix) = query.id_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        // No character sorts after the last one, and an id that begins with the prefix is below prefix + it.
        values.extend([Value::Text(prefix.to_owned()), Value::Text(format!("{prefix}{}", char::MAX))]);
        let made = made_here(connection, names, prefix)?;
        few = prefix.len() >= SELECTIVE_PREFIX_BYTES
            && made.as_ref().is_none_or(|made| made.end().saturating_sub(*made.start()) <= LOOKED_UP_MAX);
        terms.push(if few {
            let made = made
                .map(|made| format!(" UNION ALL SELECT seq FROM tasks WHERE {} AND id IS NULL", within("seq", made)));
            format!(
                "seq IN (SELECT seq FROM tasks INDEXED BY tasks_id WHERE id >= ? AND id < ?{})",
                made.unwrap_or_default()
            )
        } else {
            // The signs keep it from going by these columns: it would read all that match before it puts them in order.
            let made = made.map(|made| format!(" OR {} AND +id IS NULL", within("+seq", made)));
            format!("(+id >= ? AND +id < ?{})", made.unwrap_or_default())
        });
    }
    few = few || stages.index.is_some() && tallied(connection, None, stages.all.as_deref())? <= LOOKED_AT_MAX;
    let goes_on_at = if few { None } else { part(connection, &mut seqs)? };
    terms.push(within("seq", seqs));
    let index = stages.index.filter(|_| few && query.id_prefix.is_none());
    let sql = format!(
        concat!("SELECT ", task_columns!(), " FROM tasks{} WHERE {} ORDER BY seq DESC LIMIT {}"),
        index.map(|index| format!(" INDEXED BY {index}")).unwrap_or_default(),
        terms.join(" AND "),
        limit + 1
    );
    Ok(Some(Statement { sql, values, goes_on_at }))
}

/// Cuts off what is more than may be looked at for one page, the oldest; answers where to go on.
fn part(connection: &Connection, seqs: &mut RangeInclusive<i64>) -> Result<Option<u64>> {
    // Apart, each is found at one end of the table.
    const ENDS: &str = "SELECT coalesce((SELECT min(seq) FROM tasks), 0), coalesce((SELECT max(seq) FROM tasks), 0)";
    let (lowest, highest): (i64, i64) =
        connection.prepare_cached(ENDS)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (first, last) = (*seqs.start().max(&lowest), *seqs.end().min(&highest));
    let from = last.saturating_sub(LOOKED_AT_MAX - 1);
    if from <= first {
        return Ok(None);
    }
    *seqs = from..=last;
    Ok(Some(from.cast_unsigned()))
}

/// How many tasks are in these lanes and stages; `None`: in any.
fn tallied(connection: &Connection, lanes: Option<&[i64]>, stages: Option<&[i64]>) -> Result<i64> {
    let within = |column: &str, values: Option<&[i64]>| match values {
        Some(values) => format!("{column} IN ({})", numbers(values)),
        None => "TRUE".to_owned(),
    };
    let sql = format!(
        "SELECT coalesce(sum(n), 0) FROM tallies WHERE {} AND {}",
        within("lane", lanes),
        within("stage", stages)
    );
    Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

/// The rows whose ids were made here and begin so; `None`: no id does.
fn made_here(connection: &Connection, names: &mut Names, prefix: &str) -> Result<Option<RangeInclusive<i64>>> {
    let Some((created_at, seqs)) = ids::places(names.salt(connection)?, prefix) else { return Ok(None) };
    let (first, last) = (*created_at.start(), *created_at.end());
    let found = seqs_created(connection, Some(first), Some(last + Duration::from_micros(1)))?.unwrap_or(seqs.clone());
    Ok(Some(*found.start().max(seqs.start())..=*found.end().min(seqs.end())))
}

fn within(column: &str, range: RangeInclusive<i64>) -> String {
    format!("{column} BETWEEN {} AND {}", range.start(), range.end())
}

/// The numbers of the rows that were created in a span of time; `None`: there is no bound. Later rows have
/// higher numbers and never an earlier time, so they are found by halving, without an index.
fn seqs_created(
    connection: &Connection,
    from: Option<Timestamp>,
    before: Option<Timestamp>,
) -> Result<Option<RangeInclusive<i64>>> {
    if from.is_none() && before.is_none() {
        return Ok(None);
    }
    let first = from.map_or(Ok(0), |from| first_created(connection, from))?;
    let end = before.map_or(Ok(i64::MAX), |before| first_created(connection, before))?;
    Ok(Some(first..=end.saturating_sub(1)))
}

/// The lowest number above those of all rows that were created before this time.
fn first_created(connection: &Connection, time: Timestamp) -> Result<i64> {
    const FROM: &str = "SELECT seq, created_at FROM tasks WHERE seq >= ?1 ORDER BY seq LIMIT 1";
    const LAST: &str = "SELECT coalesce(max(seq), 0) FROM tasks";
    let mut from = connection.prepare_cached(FROM)?;
    let (mut low, mut high) = (0, 1 + connection.prepare_cached(LAST)?.query_row([], |row| row.get::<_, i64>(0))?);
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = from.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((seq, created_at)) if created_at < time.as_micros() => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The lanes of a query's queue and kind.
fn lanes(connection: &Connection, query: &TaskQuery) -> Result<Vec<i64>> {
    const LANES: &str = "SELECT id FROM lanes WHERE (?1 IS NULL OR queue = ?1) AND (?2 IS NULL OR kind = ?2)";
    let name = |name: &Option<Name>| name.as_ref().map(|name| name.as_str().to_owned());
    let lanes = connection
        .prepare_cached(LANES)?
        .query_map((name(&query.queue), name(&query.kind)), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(lanes)
}

/// Where tasks in some states are.
struct Stages {
    /// `None`: any.
    all: Option<Vec<i64>>,
    /// An index that has them all, and few others.
    index: Option<&'static str>,
}

impl Stages {
    /// The condition, in the words of the partial index, which then can be used.
    fn term(&self) -> Option<String> {
        let all = format!("stage IN ({})", numbers(self.all.as_deref()?));
        Some(match self.index {
            Some(RARE) => format!("(stage = 0 OR stage >= 5) AND {all}"),
            Some(_) => format!("stage IN (2, 3) AND {all}"),
            None => all,
        })
    }
}

fn stages(states: &[State]) -> Stages {
    if states.is_empty() {
        return Stages { all: None, index: None };
    }
    let mut all: Vec<i64> = states.iter().map(|state| *state as i64).collect();
    let only = |allowed: &[i64]| all.iter().all(|stage| allowed.contains(stage));
    let index = match () {
        () if only(&[0, 5, 6]) => Some(RARE),
        () if only(&[2, 3]) => Some("tasks_active"),
        () => None,
    };
    if states.contains(&State::Waiting) {
        all.push(SCHEDULED);
    }
    Stages { all: Some(all), index }
}

pub(super) fn numbers(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// How many tasks each queue has in each state, from the tallies.
pub(super) fn counts(connection: &Connection, now: Timestamp) -> Result<Vec<QueueCounts>> {
    const TALLIES: &str = "SELECT queue, stage, sum(n) FROM tallies JOIN lanes ON lanes.id = lane
        GROUP BY queue, stage ORDER BY queue";
    // Nobody has claimed since these became due.
    const DUE: &str = "SELECT queue, sum((SELECT count(*) FROM tasks INDEXED BY tasks_scheduled
        WHERE tasks.lane = tallies.lane AND tasks.stage = -1 AND run_at <= ?1))
        FROM tallies JOIN lanes ON lanes.id = lane WHERE tallies.stage = -1 GROUP BY queue";
    let mut counts: Vec<QueueCounts> = Vec::new();
    let mut statement = connection.prepare_cached(TALLIES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (queue, stage, n): (_, i64, i64) = (rows::text(row, 0)?, row.get(1)?, row.get(2)?);
        if counts.last().is_none_or(|last| last.queue.as_str() != queue) {
            let queue = Name::new(queue)?;
            counts.push(QueueCounts { queue, by_state: Default::default(), scheduled: 0 });
        }
        let Some(last) = counts.last_mut() else { continue };
        let state = if stage == SCHEDULED { State::Waiting as i64 } else { stage };
        let place = usize::try_from(state).ok().and_then(|state| last.by_state.get_mut(state));
        *place.ok_or_else(|| unreadable("stage", stage))? += n.cast_unsigned();
        last.scheduled += if stage == SCHEDULED { n.cast_unsigned() } else { 0 };
    }
    let mut statement = connection.prepare_cached(DUE)?;
    let mut rows = statement.query([now.as_micros()])?;
    while let Some(row) = rows.next()? {
        let (queue, due) = (rows::text(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned());
        for counts in counts.iter_mut().filter(|counts| counts.queue.as_str() == queue) {
            counts.scheduled -= due.min(counts.scheduled);
        }
    }
    Ok(counts)
}

/// Creates a queue or replaces its settings; what its rate limit has counted stays.
pub(super) fn set_queue(tx: &mut Tx<'_>, queue: &Name, settings: &QueueSettings) -> Result<()> {
    const SET: &str = "INSERT INTO queues (name, settings) VALUES (?1, ?2)
        ON CONFLICT (name) DO UPDATE SET settings = excluded.settings";
    let json = serde_json::to_string(settings).map_err(|e| Error::internal(format!("settings as JSON: {e}")))?;
    tx.connection.prepare_cached(SET)?.execute([queue.as_str(), &json])?;
    tx.limits_changed();
    tx.hint.work = true;
    Ok(())
}

/// Reads a queue's settings.
pub(super) fn settings(json: &str) -> Result<QueueSettings> {
    serde_json::from_str(json).map_err(|e| unreadable("settings of a queue", e))
}

/// Every queue that has settings or has ever had a task.
pub(super) fn queues(connection: &Connection) -> Result<Vec<(Name, QueueSettings)>> {
    const QUEUES: &str = "SELECT name, settings FROM queues
        UNION ALL SELECT DISTINCT queue, NULL FROM lanes WHERE queue NOT IN (SELECT name FROM queues) ORDER BY 1";
    let mut queues = Vec::new();
    let mut statement = connection.prepare_cached(QUEUES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let json: Option<String> = row.get(1)?;
        let settings = json.as_deref().map(settings).transpose()?.unwrap_or_default();
        queues.push((Name::new(rows::text(row, 0)?)?, settings));
    }
    Ok(queues)
}
