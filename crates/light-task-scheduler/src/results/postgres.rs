//! Results and logs in a PostgreSQL database: the one that the tasks are in, or another.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Row;

use super::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, short_hash, stored, unwritten, verify};
use crate::database::engine::Engine;
use crate::database::postgres::{Access, Database, Migrations, Purpose, Session, Target, Trouble, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::Inspection;
use crate::task::{Payload, ResultRef, TaskId};

const MIGRATIONS: Migrations =
    Migrations { component: "results", steps: &[include_str!("migrations/0001_results_postgres.sql")] };
/// The schema unless the URL names one: that of the tasks.
const SCHEMA: &str = "lts";
/// Most connections of one handle.
const CONNECTIONS: u32 = 4;

const SAVE: &str = "INSERT INTO {s}.results (key, bytes) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes WHERE results.bytes <> excluded.bytes";
const LOAD: &str = "SELECT bytes FROM {s}.results WHERE key = $1";
const DELETE: &str = "DELETE FROM {s}.results WHERE key = $1";
const LOG_LEN: &str = "SELECT start + octet_length(bytes) FROM {s}.logs
    WHERE id = $1 AND execution = $2 AND stream = $3 ORDER BY start DESC LIMIT 1";
const APPEND: &str = "INSERT INTO {s}.logs (id, execution, stream, start, bytes) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
// Rows follow each other without a gap: the first one to read is the last that starts at or before the offset.
const READ_LOG: &str = "SELECT start, bytes FROM {s}.logs
    WHERE id = $1 AND execution = $2 AND stream = $3 AND start < $5 AND start >= (
        SELECT max(start) FROM {s}.logs WHERE id = $1 AND execution = $2 AND stream = $3 AND start <= $4)
    ORDER BY start";
const DELETE_LOGS: &str = "DELETE FROM {s}.logs WHERE id = $1";

/// A database and the thread that drives its connections.
#[derive(Debug, Clone)]
struct Link(Arc<(Engine, Arc<Database>)>);

impl Link {
    fn access(url: &str) -> Result<Access> {
        let target = Target::parse(url)?;
        Ok(Access {
            schema: target.schema.clone().unwrap_or_else(|| SCHEMA.to_owned()),
            pgbouncer: target.pgbouncer,
            may_migrate: target.may_migrate,
            time_stopped: false,
            connections: CONNECTIONS,
            target,
        })
    }

    async fn open(url: &str) -> Result<Self> {
        let (database, engine) = Database::open(Link::access(url)?, MIGRATIONS).await?;
        Ok(Link(Arc::new((engine, database))))
    }

    /// Does work in a transaction of its own, again if it meets others.
    async fn run<T, F>(&self, work: impl Fn(Session<'static>) -> F + Send + Sync + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Work<T>> + Send,
    {
        let (engine, database) = &*self.0;
        let database = Arc::clone(database);
        let repeated = async move {
            let mut tries = 0;
            loop {
                let once = async { work(database.begin(Purpose::Work).await?).await };
                match database.within(Purpose::Work, once).await {
                    Ok(done) => return Ok(done),
                    Err(trouble) if database.may_try_again(&trouble, &mut tries).await => {}
                    Err(trouble) => return Err(database.explain(trouble)),
                }
            }
        };
        engine.run(repeated).await
    }

    fn place(&self) -> &str {
        self.0.1.place()
    }
}

/// Results as rows of the table `results`.
///
/// A save is committed when it returns. Any number of processes may use the database. It is opened by a URL
/// as [`PostgresStore`](crate::PostgresStore) takes it; the tables are in the schema `lts` unless the URL has a
/// `schema=`.
#[derive(Debug, Clone)]
pub struct PostgresResults {
    link: Link,
}

impl PostgresResults {
    /// Opens the database, and creates the tables if there are none. Fails as opening a
    /// [`PostgresStore`](crate::PostgresStore) does.
    pub async fn open(url: &str) -> Result<Self> {
        Ok(PostgresResults { link: Link::open(url).await? })
    }
}

#[async_trait]
impl ResultStore for PostgresResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        // The key names the content: no save can replace a result by another one, and saving again mends a row.
        let key = format!("{id}/{execution}/{}", short_hash(result.as_bytes()));
        let (reference, payload) = (stored(key.clone(), result), result.clone());
        self.link
            .run(move |mut session| {
                let query = session.query(SAVE).bind(key.clone()).bind(payload.as_bytes().to_vec());
                async move {
                    query.execute(session.connection()).await?;
                    session.commit().await
                }
            })
            .await?;
        Ok(reference)
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        let key = match result {
            ResultRef::Inline(payload) => return Ok(payload.clone()),
            // No key of ours has it, and PostgreSQL refuses it.
            ResultRef::Stored { key, .. } => key.replace('\0', "\u{fffd}"),
        };
        let missing = Error::new(ErrorKind::NotFound, format!("no result `{key}` at {}", self.link.place()));
        let load = self.link.run(move |mut session| {
            let query = session.query(LOAD).bind(key.clone());
            async move {
                let row = query.fetch_optional(session.connection()).await?;
                session.commit().await?;
                Ok(row.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose()?)
            }
        });
        let bytes = load.await?.ok_or(missing)?;
        verify(result, &bytes)?;
        Ok(Payload::from_bytes(bytes))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.replace('\0', "\u{fffd}");
        self.link
            .run(move |mut session| {
                let query = session.query(DELETE).bind(key.clone());
                async move {
                    query.execute(session.connection()).await?;
                    session.commit().await
                }
            })
            .await
    }
}

/// Logs as rows of the table `logs`, one for each append.
///
/// An append is committed when it returns. It is opened as [`PostgresResults`] are.
#[derive(Debug, Clone)]
pub struct PostgresLogs {
    link: Link,
}

impl PostgresLogs {
    /// Opens the database, and creates the tables if there are none. Fails as opening a
    /// [`PostgresStore`](crate::PostgresStore) does.
    pub async fn open(url: &str) -> Result<Self> {
        Ok(PostgresLogs { link: Link::open(url).await? })
    }

    /// Looks at the tables of results and logs without opening them: nothing is made or migrated. Fails as
    /// opening them does.
    pub async fn inspect(url: &str) -> Result<Inspection> {
        Link::access(url)?.inspect(&[MIGRATIONS]).await
    }
}

#[async_trait]
impl LogStore for PostgresLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        let (log, bytes) = (log.clone(), Arc::<[u8]>::from(bytes));
        self.link
            .run(move |session| {
                let (log, bytes) = (log.clone(), Arc::clone(&bytes));
                async move { append(session, &log, offset, &bytes).await }
            })
            .await
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        let (log, len) = (log.clone(), len.min(LOG_CHUNK_BYTES_MAX));
        self.link
            .run(move |session| {
                let log = log.clone();
                async move { read_log(session, &log, offset, len).await }
            })
            .await
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        let log = log.clone();
        self.link
            .run(move |mut session| {
                let log = log.clone();
                async move {
                    let len = log_len(&mut session, &log).await?;
                    session.commit().await?;
                    Ok(len)
                }
            })
            .await
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        let id = id.to_string();
        self.link
            .run(move |mut session| {
                let query = session.query(DELETE_LOGS).bind(id.clone());
                async move {
                    query.execute(session.connection()).await?;
                    session.commit().await
                }
            })
            .await
    }
}

/// A log's name as the columns `id`, `execution` and `stream`.
fn columns(log: &LogKey) -> (String, i64, &'static str) {
    (log.id.to_string(), log.execution.cast_signed(), log.stream.as_str())
}

async fn log_len(session: &mut Session<'_>, log: &LogKey) -> Work<u64> {
    let (id, execution, stream) = columns(log);
    let query = session.query(LOG_LEN).bind(id).bind(execution).bind(stream);
    let row = query.fetch_optional(session.connection()).await?;
    Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.unwrap_or(0).cast_unsigned())
}

async fn append(mut session: Session<'_>, log: &LogKey, offset: u64, bytes: &[u8]) -> Work<u64> {
    let len = log_len(&mut session, log).await?;
    let new = unwritten(log, len, offset, bytes)?;
    if !new.is_empty() {
        let (id, execution, stream) = columns(log);
        let query = session.query(APPEND).bind(id).bind(execution).bind(stream).bind(len.cast_signed()).bind(new);
        // Another writer has written at this place meanwhile: look again what is missing.
        if query.execute(session.connection()).await?.rows_affected() == 0 {
            return Err(Trouble::Again);
        }
    }
    session.commit().await?;
    Ok(len + new.len() as u64)
}

async fn read_log(mut session: Session<'_>, log: &LogKey, offset: u64, len: usize) -> Work<Vec<u8>> {
    let (id, execution, stream) = columns(log);
    let from = i64::try_from(offset).unwrap_or(i64::MAX);
    let end = from.saturating_add(i64::try_from(len).unwrap_or(i64::MAX));
    let query = session.query(READ_LOG).bind(id).bind(execution).bind(stream).bind(from).bind(end);
    let found = query.fetch_all(session.connection()).await?;
    session.commit().await?;
    let mut read = Vec::new();
    for row in &found {
        let (start, bytes): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let skip = usize::try_from(from.saturating_sub(start)).unwrap_or(0).min(bytes.len());
        let take = (len - read.len()).min(bytes.len() - skip);
        read.extend_from_slice(&bytes[skip..skip + take]);
    }
    Ok(read)
}
