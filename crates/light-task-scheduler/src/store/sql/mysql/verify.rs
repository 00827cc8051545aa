//! What contradicts itself in a database.

use sqlx::Row;

use super::rows;
use super::tx::{Tx, text};
use crate::database::mysql::Work;
use crate::store::sql::verify::{QUESTIONS, lost_reports, lost_reports_in_words, queue_problem};

/// Begins the names of the tables.
const TABLES: &str = "{p}";
/// All questions are asked of the same moment.
const BEGIN: [&str; 2] =
    ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"];
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
    for question in QUESTIONS {
        // A list with a limit is not allowed as such, but it is as a table.
        let named = format!(
            "SELECT t.id, t.seq, t.created_at FROM {{p}}tasks AS t JOIN ({}) AS f ON f.seq = t.seq ORDER BY t.id, t.seq",
            question.statement(TABLES, "id")
        );
        let found = tx.session.database().dynamic(&named).fetch_all(tx.connection()).await?;
        let salt = tx.shared.salt;
        let id = |row| Ok(rows::id(salt, row, [0, 1, 2])?.to_string());
        let ids = found.iter().map(id).collect::<Work<Vec<String>>>()?;
        problems.extend(question.sentences(&ids));
    }
    let lost = tx.session.database().dynamic(&lost_reports(TABLES)).fetch_one(tx.connection()).await?;
    problems.extend(lost_reports_in_words(lost.try_get(0)?));
    for row in tx.session.database().dynamic(QUEUES).fetch_all(tx.connection()).await? {
        let (name, settings) = (text(row.try_get(0)?)?, text(row.try_get(1)?)?);
        let (limited, paused): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        problems.extend(queue_problem(name, settings, limited != 0, paused != 0));
    }
    Ok(problems)
}
