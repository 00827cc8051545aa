//! What contradicts itself in a database.

use sqlx::Row;

use super::rows;
use super::tx::{Tx, text};
use crate::database::mysql::Work;
use crate::store::sql::verify::{QUESTIONS, Question, ask, lost_reports, lost_reports_in_words, queue_problem};

/// Begins the names of the tables.
const TABLES: &str = "{p}";
/// All questions are asked of the same moment.
const BEGIN: [&str; 2] =
    ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"];
/// The table of tasks, and the same as the questions take it: with nulls where there is nothing.
const ROWS: &str = "{p}tasks AS t";
const TASKS: &str = "(SELECT seq, lane, stage, flags, run, execution, claim, details, id,
    NULLIF(owner, x'00000000000000000000000000000000') AS owner, NULLIF(started_at, 0) AS started_at,
    NULLIF(finished_at, 0) AS finished_at, CASE WHEN flags & 8 THEN 'null' ELSE result END AS result
    FROM {p}tasks) AS t";
/// What this store alone has: rows aside of those of tasks.
const ASIDE: &[Question] = &[
    ask(
        "is not found by its id",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM {t}ids AS i WHERE i.id = t.id AND i.task = t.seq)",
    ),
    ask(
        "has a deadline that no claim sees",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.deadline IS NOT NULL AND t.stage < 2
        AND NOT EXISTS (SELECT 1 FROM {t}deadlines AS d WHERE d.task = t.seq AND d.deadline = t.deadline)",
    ),
    ask(
        "is not listed among those of its state",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.stage IN (0, 5, 6)
        AND NOT EXISTS (SELECT 1 FROM {t}rare AS r WHERE r.stage = t.stage AND r.task = t.seq)",
    ),
    ask(
        "has the result null and another one, or no result",
        "SELECT t.seq FROM {t}tasks AS t WHERE t.flags & 8 <> 0 AND (t.result IS NOT NULL OR t.stage NOT IN (3, 4))",
    ),
];
/// Rows aside that belong to no task, or not to one as it is.
const LOST: [(&str, &str); 3] = [
    (
        "SELECT COUNT(*) FROM {p}ids AS i
        WHERE NOT EXISTS (SELECT 1 FROM {p}tasks AS t WHERE t.seq = i.task AND t.id = i.id)",
        "ids lead to tasks that do not have them",
    ),
    (
        "SELECT COUNT(*) FROM {p}deadlines AS d WHERE NOT EXISTS (SELECT 1 FROM {p}tasks AS t
            WHERE t.seq = d.task AND t.deadline = d.deadline AND t.stage < 2)",
        "deadlines are of tasks that do not wait for them",
    ),
    (
        "SELECT COUNT(*) FROM {p}rare AS r
        WHERE r.stage NOT IN (0, 5, 6) OR NOT EXISTS (SELECT 1 FROM {p}tasks AS t WHERE t.seq = r.task AND t.stage = r.stage)",
        "tasks are listed among those of a state that they are not in",
    ),
];
const QUEUES: &str = "SELECT name, settings, limited, paused FROM {p}queues ORDER BY name";

/// Looks for contradictions, on a connection without a transaction.
pub(super) async fn verify(tx: &mut Tx<'_>) -> Work<Vec<String>> {
    for statement in BEGIN {
        sqlx::raw_sql(statement).execute(tx.connection()).await?;
    }
    let found = look(tx).await;
    // Whatever came of it: the connection goes back to the others.
    sqlx::raw_sql("ROLLBACK").execute(tx.connection()).await?;
    found
}

async fn look(tx: &mut Tx<'_>) -> Work<Vec<String>> {
    let mut problems = Vec::new();
    let shared = QUESTIONS.iter().map(|question| question.statement(TABLES, "id").replace(ROWS, TASKS));
    let own = ASIDE.iter().map(|question| question.statement(TABLES, "id"));
    for (statement, question) in shared.chain(own).zip(QUESTIONS.iter().chain(ASIDE)) {
        // A list with a limit is not allowed as such, but it is as a table.
        let named = format!(
            "SELECT t.id, t.seq, t.created_at FROM {{p}}tasks AS t JOIN ({statement}) AS f ON f.seq = t.seq ORDER BY t.id, t.seq"
        );
        let found = tx.session.database().dynamic(&named).fetch_all(tx.connection()).await?;
        let salt = tx.shared.salt;
        let id = |row| Ok(rows::id(salt, row, [0, 1, 2])?.to_string());
        let ids = found.iter().map(id).collect::<Work<Vec<String>>>()?;
        problems.extend(question.sentences(&ids));
    }
    let lost = tx.session.database().dynamic(&lost_reports(TABLES)).fetch_one(tx.connection()).await?;
    problems.extend(lost_reports_in_words(lost.try_get(0)?));
    for (count, says) in LOST {
        let count: i64 = tx.session.database().dynamic(count).fetch_one(tx.connection()).await?.try_get(0)?;
        problems.extend((count > 0).then(|| format!("{count} {says}")));
    }
    for row in tx.session.database().dynamic(QUEUES).fetch_all(tx.connection()).await? {
        let (name, settings) = (text(row.try_get(0)?)?, text(row.try_get(1)?)?);
        let (limited, paused): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        problems.extend(queue_problem(name, settings, limited != 0, paused != 0));
    }
    Ok(problems)
}
