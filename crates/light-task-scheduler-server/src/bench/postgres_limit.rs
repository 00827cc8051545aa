//! The physical limit on PostgreSQL: raw batched statements on one narrow table, as durable as the server is set, rows
//! kept.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::task::JoinSet;

use light_task_scheduler::{Error, Result};

use super::PAYLOAD_BYTES;
use super::ground::Limit;
use super::measure::Watch;

/// Rows in one statement, which is a transaction of its own.
const BATCH: u64 = 1_000;
/// How many connections share the work: what is best depends on the server, so the better counts.
const CLIENTS: [u64; 2] = [1, 2];

/// What a queue needs and no more: one partial index, in the order of claims.
const TABLE: &str = "
    DROP TABLE IF EXISTS t;
    CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload bytea NOT NULL,
                    state smallint NOT NULL DEFAULT 0, priority integer NOT NULL DEFAULT 0,
                    run_at bigint NOT NULL DEFAULT 0);
    CREATE INDEX t_claim ON t (priority, run_at, id) WHERE state = 0;";
const INSERT: &str = "INSERT INTO t (payload) SELECT unnest($1)";
/// The limit is [`BATCH`], written out: so the planner knows it.
const CLAIM: &str = "UPDATE t SET state = 1 WHERE id = ANY(ARRAY(
        SELECT id FROM t WHERE state = 0 ORDER BY priority, run_at, id LIMIT 1000 FOR UPDATE SKIP LOCKED))
    RETURNING id, payload";
const DONE: &str = "UPDATE t SET state = 2 WHERE id = ANY($1)";

/// Measures in a schema that is there and empty, and leaves one table in it.
pub(super) async fn raw(url: &str, schema: &str, rows: u64) -> Result<Limit> {
    let failed = |error| Error::internal(format!("the raw PostgreSQL benchmark failed: {error}"));
    let options = PgConnectOptions::from_str(url).map_err(failed)?;
    let options = options.options([("search_path", schema)]).disable_statement_logging();
    let mut best = Limit { enqueue: 0.0, drain: 0.0 };
    for clients in CLIENTS {
        best = best.best(measure(&options, clients, rows / BATCH).await.map_err(failed)?);
    }
    Ok(best)
}

async fn measure(options: &PgConnectOptions, clients: u64, batches: u64) -> sqlx::Result<Limit> {
    let mut first = options.connect().await?;
    sqlx::raw_sql(TABLE).execute(&mut first).await?;
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(options.connect().await?);
    }
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    for (connection, client) in connections.into_iter().zip(0..) {
        work.spawn(insert(connection, batches / clients + u64::from(client < batches % clients)));
    }
    let connections = all(work).await?;
    let enqueue = watch.rate(batches * BATCH);
    // As the server does by itself, but for when it pleases: without it no plan is worth much.
    sqlx::raw_sql("ANALYZE t").execute(&mut first).await?;
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    for connection in connections {
        work.spawn(drain(connection));
    }
    all(work).await?;
    let drain = watch.rate(batches * BATCH);
    let done: i64 = sqlx::query_scalar("SELECT count(*) FROM t WHERE state = 2").fetch_one(&mut first).await?;
    first.close().await?;
    match u64::try_from(done) {
        Ok(done) if done == batches * BATCH => Ok(Limit { enqueue, drain }),
        _ => Err(sqlx::Error::Protocol(format!("only {done} of {} rows were drained", batches * BATCH))),
    }
}

/// Waits for all of them.
async fn all(mut work: JoinSet<sqlx::Result<PgConnection>>) -> sqlx::Result<Vec<PgConnection>> {
    let mut connections = Vec::new();
    while let Some(ended) = work.join_next().await {
        connections.push(ended.map_err(|error| sqlx::Error::Protocol(error.to_string()))??);
    }
    Ok(connections)
}

async fn insert(mut connection: PgConnection, batches: u64) -> sqlx::Result<PgConnection> {
    let payloads = vec![[7_u8; PAYLOAD_BYTES].as_slice(); BATCH as usize];
    for _ in 0..batches {
        sqlx::query(INSERT).bind(&payloads).execute(&mut connection).await?;
    }
    Ok(connection)
}

async fn drain(mut connection: PgConnection) -> sqlx::Result<PgConnection> {
    loop {
        let claimed: Vec<(i64, Vec<u8>)> = sqlx::query_as(CLAIM).fetch_all(&mut connection).await?;
        if claimed.is_empty() {
            return Ok(connection);
        }
        let ids: Vec<i64> = claimed.iter().map(|(id, _)| *id).collect();
        sqlx::query(DONE).bind(&ids).execute(&mut connection).await?;
    }
}
