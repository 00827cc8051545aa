//! Which rows contradict each other: questions that are the same for every SQL store.

#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::store::QueueSettings;

/// Most rows that are named for one question.
pub(super) const NAMED_MAX: usize = 100;

/// Stands for what begins the name of a table.
const TABLE: &str = "{t}";
/// Stands for the column of `replicas` by which tasks name their owner.
const OWNER: &str = "{owner}";

/// A question, and what is wrong with each task that is an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    sql: &'static str,
    /// What is said behind the name of the task.
    pub(super) says: &'static str,
}

impl Question {
    /// The statement; `tables` begins the names of the tables, `owner` is the column that tasks refer to. Its first
    /// column is the number of a row of `tasks`. One more row than is named, to see whether there are more.
    pub(super) fn statement(&self, tables: &str, owner: &str) -> String {
        let limit = NAMED_MAX + 1;
        format!("{} LIMIT {limit}", self.sql.replace(TABLE, tables).replace(OWNER, owner))
    }

    /// A sentence for each task that was found.
    pub(super) fn sentences(&self, found: &[String]) -> impl Iterator<Item = String> {
        let named = found.iter().take(NAMED_MAX).map(|task| format!("task {task} {}", self.says));
        let more = (found.len() > NAMED_MAX).then(|| format!("more than {NAMED_MAX} tasks: each {}", self.says));
        named.chain(more)
    }
}

pub(super) const fn ask(says: &'static str, sql: &'static str) -> Question {
    Question { sql, says }
}

/// All of them. The numbers are stages and flags as `codec` has them.
pub(super) const QUESTIONS: &[Question] = &[
    ask("is in no state there is", "SELECT t.seq FROM {t}tasks AS t WHERE t.stage < -1 OR t.stage > 6"),
    ask(
        "is of a queue and kind that are not there",
        "SELECT t.seq FROM {t}tasks AS t WHERE NOT EXISTS (SELECT 1 FROM {t}lanes AS l WHERE l.id = t.lane)",
    ),
    ask(
        "runs without an owner, a run or a start",
        "SELECT t.seq FROM {t}tasks AS t
        WHERE t.stage = 2 AND (t.owner IS NULL OR t.run < 1 OR t.execution < 1 OR t.started_at IS NULL)",
    ),
    ask("has an execution after its run", "SELECT t.seq FROM {t}tasks AS t WHERE t.execution > t.run"),
    ask(
        "runs for a replica that is not there",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.stage IN (2, 3) AND t.owner IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM {t}replicas AS r WHERE r.{owner} = t.owner)",
    ),
    ask(
        "was taken by a claim that its owner has not made",
        "SELECT t.seq FROM {t}tasks AS t JOIN {t}replicas AS r ON r.{owner} = t.owner
        WHERE t.stage IN (2, 3) AND t.claim > r.claim",
    ),
    ask(
        "has ended without an end, or has an end and goes on",
        "SELECT t.seq FROM {t}tasks AS t
        WHERE (t.stage >= 4 AND t.finished_at IS NULL) OR (t.stage < 4 AND t.finished_at IS NOT NULL)",
    ),
    ask(
        "succeeded and has no result",
        "SELECT t.seq FROM {t}tasks AS t
        WHERE t.stage = 4 AND t.result IS NULL AND (t.details IS NULL OR t.details NOT LIKE '%\"result\":%')",
    ),
    ask(
        "has a report that is not there",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.flags & 4 <> 0
        AND NOT EXISTS (SELECT 1 FROM {t}reports AS r WHERE r.task = t.seq)",
    ),
    ask(
        "has a report and does not run",
        "SELECT t.seq FROM {t}tasks AS t JOIN {t}reports AS r ON r.task = t.seq
        WHERE t.stage <> 2 OR t.flags & 4 = 0",
    ),
    ask("is there although it was removed", "SELECT t.seq FROM {t}tasks AS t JOIN {t}tombstones AS b ON b.id = t.id"),
    ask(
        "has an id that another task has too",
        "SELECT t.seq FROM {t}tasks AS t JOIN (SELECT id FROM {t}tasks WHERE id IS NOT NULL
            GROUP BY id HAVING COUNT(*) > 1) AS d ON d.id = t.id",
    ),
];

/// Reports of rows that are not there: a number each.
const LOST_REPORTS: &str =
    "SELECT COUNT(*) FROM {t}reports AS r WHERE NOT EXISTS (SELECT 1 FROM {t}tasks AS t WHERE t.seq = r.task)";

/// The statement of [`LOST_REPORTS`].
pub(super) fn lost_reports(tables: &str) -> String {
    LOST_REPORTS.replace(TABLE, tables)
}

/// What is said of so many lost reports.
pub(super) fn lost_reports_in_words(count: i64) -> Option<String> {
    (count > 0).then(|| format!("{count} reports are of tasks that are not there"))
}

/// What is wrong with the row of a queue, whose settings are kept as JSON and, in part, in columns.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) fn queue_problem(name: &str, settings: &str, limited: bool, paused: bool) -> Option<String> {
    match serde_json::from_str::<QueueSettings>(settings) {
        Err(e) => Some(format!("the settings of queue {name} cannot be read: {e}")),
        Ok(settings) if (settings.concurrency.is_some(), settings.paused) != (limited, paused) => {
            Some(format!("the columns of queue {name} are not its settings"))
        }
        Ok(_) => None,
    }
}
