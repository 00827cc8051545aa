//! The physical limit on MariaDB and MySQL: raw batched statements on one narrow table, as durable as the server is
//! set, rows kept.

use std::fmt::Write;
use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection};
use tokio::task::JoinSet;

use light_task_scheduler::{Error, Result};

use super::PAYLOAD_BYTES;
use super::ground::Limit;
use super::measure::Watch;

/// Rows in one statement.
const BATCH: u64 = 1_000;
/// How many connections share the work: what is best depends on the server, so the better counts.
const CLIENTS: [u64; 2] = [1, 2];

/// What a queue needs and no more: one index, in the order of claims.
const TABLE: [&str; 2] = [
    "DROP TABLE IF EXISTS t",
    "CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, payload VARBINARY(200) NOT NULL,
                     state TINYINT NOT NULL DEFAULT 0, priority INT NOT NULL DEFAULT 0,
                     run_at BIGINT NOT NULL DEFAULT 0, KEY t_claim (state, priority, run_at, id)) ENGINE=InnoDB",
];
/// Claims must not lock the gaps between rows.
const SETTINGS: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
/// The limit is [`BATCH`].
const CLAIM: &str = "SELECT id, payload FROM t WHERE state = 0 ORDER BY priority, run_at, id LIMIT 1000
    FOR UPDATE SKIP LOCKED";

/// Measures in a database that is there and empty, and leaves one table in it.
pub(super) async fn raw(url: &str, rows: u64) -> Result<Limit> {
    let failed = |error| Error::internal(format!("the raw MariaDB benchmark failed: {error}"));
    let options = MySqlConnectOptions::from_str(url).map_err(failed)?.disable_statement_logging();
    let mut best = Limit { enqueue: 0.0, drain: 0.0 };
    for clients in CLIENTS {
        best = best.best(measure(&options, clients, rows / BATCH).await.map_err(failed)?);
    }
    Ok(best)
}

async fn measure(options: &MySqlConnectOptions, clients: u64, batches: u64) -> sqlx::Result<Limit> {
    let mut first = options.connect().await?;
    for statement in TABLE {
        sqlx::raw_sql(statement).execute(&mut first).await?;
    }
    let mut connections = Vec::new();
    for _ in 0..clients {
        let mut connection = options.connect().await?;
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
        connections.push(connection);
    }
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    for (connection, client) in connections.into_iter().zip(0..) {
        work.spawn(insert(connection, batches / clients + u64::from(client < batches % clients)));
    }
    let connections = all(work).await?;
    let enqueue = watch.rate(batches * BATCH);
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    for connection in connections {
        work.spawn(drain(connection));
    }
    all(work).await?;
    let drain = watch.rate(batches * BATCH);
    let done: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM t WHERE state = 2").fetch_one(&mut first).await?;
    first.close().await?;
    match u64::try_from(done) {
        Ok(done) if done == batches * BATCH => Ok(Limit { enqueue, drain }),
        _ => Err(sqlx::Error::Protocol(format!("only {done} of {} rows were drained", batches * BATCH))),
    }
}

/// Waits for all of them.
async fn all(mut work: JoinSet<sqlx::Result<MySqlConnection>>) -> sqlx::Result<Vec<MySqlConnection>> {
    let mut connections = Vec::new();
    while let Some(ended) = work.join_next().await {
        connections.push(ended.map_err(|error| sqlx::Error::Protocol(error.to_string()))??);
    }
    Ok(connections)
}

async fn insert(mut connection: MySqlConnection, batches: u64) -> sqlx::Result<MySqlConnection> {
    let sql = format!("INSERT INTO t (payload) VALUES (?){}", ",(?)".repeat(BATCH as usize - 1));
    let payload = [7_u8; PAYLOAD_BYTES];
    for _ in 0..batches {
        let query = (0..BATCH).fold(sqlx::query(AssertSqlSafe(sql.clone())), |query, _| query.bind(payload.as_slice()));
        query.execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn drain(mut connection: MySqlConnection) -> sqlx::Result<MySqlConnection> {
    loop {
        let mut transaction = connection.begin().await?;
        let claimed: Vec<(i64, Vec<u8>)> = sqlx::query_as(CLAIM).fetch_all(&mut *transaction).await?;
        let Some(ids) = list(&claimed) else {
            transaction.rollback().await?;
            return Ok(connection);
        };
        // Numbers, written out: the server takes them faster than as a thousand parameters.
        let mark = |state| AssertSqlSafe(format!("UPDATE t SET state = {state} WHERE id IN ({ids})"));
        sqlx::raw_sql(mark(1)).execute(&mut *transaction).await?;
        transaction.commit().await?;
        sqlx::raw_sql(mark(2)).execute(&mut connection).await?;
    }
}

/// Their ids with commas between; none if there are none.
fn list(claimed: &[(i64, Vec<u8>)]) -> Option<String> {
    let ((first, _), others) = claimed.split_first()?;
    let mut list = first.to_string();
    for (id, _) in others {
        let _ = write!(list, ",{id}");
    }
    Some(list)
}
