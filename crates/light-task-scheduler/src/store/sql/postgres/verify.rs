//! What contradicts itself in a database.

use sqlx::Row;

use super::rows;
use super::tx::Tx;
use crate::database::postgres::Work;
use crate::store::sql::verify::{QUESTIONS, lost_reports, lost_reports_in_words, queue_problem};

/// Begins the names of the tables.
const TABLES: &str = "{s}.";
/// All questions are asked of the same moment. They are about all rows, for which no index is of use.
const SETTINGS: [&str; 4] = [
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
    "SET LOCAL enable_seqscan = on",
    "SET LOCAL enable_hashjoin = on",
    "SET LOCAL enable_sort = on",
];
const QUEUES: &str = "SELECT name, settings, limited, paused FROM {s}.queues ORDER BY name";

/// Looks for contradictions.
pub(super) async fn verify(tx: &mut Tx<'_>) -> Work<Vec<String>> {
    for setting in SETTINGS {
        sqlx::raw_sql(setting).execute(tx.connection()).await?;
    }
    let mut problems = Vec::new();
    for question in QUESTIONS {
        let named = format!(
            "SELECT t.id, t.seq, t.created_at FROM {{s}}.tasks AS t WHERE t.seq IN ({}) ORDER BY t.id, t.seq",
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
        problems.extend(queue_problem(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    }
    Ok(problems)
}
