//! Results and logs in an SQLite file: a file of their own, or the one that the tasks are in.
//!
//! The tables carry names and a version of their own, so that they can share a file with anything.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::{LOG_CHUNK_BYTES_MAX, LogKey, LogStore, ResultStore, blocking, short_hash, stored, unwritten, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::task::{Payload, ResultRef, TaskId};

/// The version of the tables below; another one in the file is refused.
const SCHEMA_VERSION: i64 = 1;
/// How long a call waits for other writers of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Results as rows of the table `lts_results`.
///
/// A save has reached the disk when it returns (`synchronous=FULL`). Several processes may use the file.
#[derive(Debug, Clone)]
pub struct SqliteResults {
    database: Database,
}

impl SqliteResults {
    /// Results in the SQLite file `path`, which is created if it is missing.
    ///
    /// Fails as [`Incompatible`](crate::ErrorKind::Incompatible) if the file is none of SQLite's or its tables are
    /// of another version.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(SqliteResults { database: Database::open(path.into(), Synchronous::Full).await? })
    }
}

#[async_trait]
impl ResultStore for SqliteResults {
    async fn save(&self, id: &TaskId, execution: u64, result: &Payload) -> Result<ResultRef> {
        // The key names the content: no save can replace a result by another one, and saving again mends a row.
        let key = format!("{id}/{execution}/{}", short_hash(result.as_bytes()));
        let reference = stored(key.clone(), result);
        let payload = result.clone();
        self.database
            .write("save a result", move |database| {
                let sql = "INSERT OR REPLACE INTO lts_results (key, bytes) VALUES (?1, ?2)";
                Ok(database.prepare_cached(sql)?.execute(params![key, payload.as_bytes()])?)
            })
            .await?;
        Ok(reference)
    }

    async fn load(&self, result: &ResultRef) -> Result<Payload> {
        let key = match result {
            ResultRef::Inline(payload) => return Ok(payload.clone()),
            ResultRef::Stored { key, .. } => key.clone(),
        };
        let missing =
            Error::new(ErrorKind::NotFound, format!("no result `{key}` in {}", self.database.path().display()));
        let read = self.database.run("load a result", move |database| {
            let sql = "SELECT bytes FROM lts_results WHERE key = ?1";
            Ok(database.prepare_cached(sql)?.query_row([key], |row| row.get::<_, Vec<u8>>(0)).optional()?)
        });
        let bytes = read.await?.ok_or(missing)?;
        verify(result, &bytes)?;
        Ok(Payload::from_bytes(bytes))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.database
            .write("delete a result", move |database| {
                Ok(database.prepare_cached("DELETE FROM lts_results WHERE key = ?1")?.execute([key])?)
            })
            .await
            .map(drop)
    }
}

/// Logs as rows of the table `lts_logs`, one for each append.
///
/// What was appended survives the end of this process. It is not flushed to the disk at every append
/// (`synchronous=NORMAL`): a power failure may cost the last seconds of a log.
#[derive(Debug, Clone)]
pub struct SqliteLogs {
    database: Database,
}

impl SqliteLogs {
    /// Logs in the SQLite file `path`, which is created if it is missing.
    ///
    /// Fails as [`Incompatible`](crate::ErrorKind::Incompatible) if the file is none of SQLite's or its tables are
    /// of another version.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(SqliteLogs { database: Database::open(path.into(), Synchronous::Normal).await? })
    }
}

#[async_trait]
impl LogStore for SqliteLogs {
    async fn append(&self, log: &LogKey, offset: u64, bytes: &[u8]) -> Result<u64> {
        let (log, bytes) = (log.clone(), bytes.to_vec());
        self.database
            .write("write a log", move |database| {
                let len = log_len(database, &log)?;
                let new = unwritten(&log, len, offset, &bytes)?;
                if !new.is_empty() {
                    let sql = "INSERT INTO lts_logs (id, execution, stream, start, bytes) VALUES (?1, ?2, ?3, ?4, ?5)";
                    let (id, execution, stream) = columns(&log);
                    database.prepare_cached(sql)?.execute(params![id, execution, stream, len.cast_signed(), new])?;
                }
                Ok(len + new.len() as u64)
            })
            .await
    }

    async fn read(&self, log: &LogKey, offset: u64, len: usize) -> Result<Vec<u8>> {
        let log = log.clone();
        let len = len.min(LOG_CHUNK_BYTES_MAX);
        self.database.run("read a log", move |database| Ok(read_log(database, &log, offset, len)?)).await
    }

    async fn len(&self, log: &LogKey) -> Result<u64> {
        let log = log.clone();
        self.database.run("read a log", move |database| Ok(log_len(database, &log)?)).await
    }

    async fn delete(&self, id: &TaskId) -> Result<()> {
        let id = id.to_string();
        self.database
            .write("delete logs", move |database| {
                Ok(database.prepare_cached("DELETE FROM lts_logs WHERE id = ?1")?.execute([id])?)
            })
            .await
            .map(drop)
    }
}

/// A log's name as the columns `id`, `execution` and `stream`.
fn columns(log: &LogKey) -> (String, i64, &'static str) {
    (log.id.to_string(), log.execution.cast_signed(), log.stream.as_str())
}

fn log_len(database: &Connection, log: &LogKey) -> rusqlite::Result<u64> {
    let sql = "SELECT start + length(bytes) FROM lts_logs
               WHERE id = ?1 AND execution = ?2 AND stream = ?3 ORDER BY start DESC LIMIT 1";
    let len = database.prepare_cached(sql)?.query_row(columns(log), |row| row.get::<_, i64>(0)).optional()?;
    Ok(len.unwrap_or(0).cast_unsigned())
}

fn read_log(database: &Connection, log: &LogKey, offset: u64, len: usize) -> rusqlite::Result<Vec<u8>> {
    // Rows follow each other without a gap: the first one to read is the last that starts at or before `offset`.
    let sql = "SELECT start, bytes FROM lts_logs
               WHERE id = ?1 AND execution = ?2 AND stream = ?3 AND start < ?5 AND start >= (
                   SELECT max(start) FROM lts_logs WHERE id = ?1 AND execution = ?2 AND stream = ?3 AND start <= ?4)
               ORDER BY start";
    let (id, execution, stream) = columns(log);
    let from = i64::try_from(offset).unwrap_or(i64::MAX);
    let end = from.saturating_add(i64::try_from(len).unwrap_or(i64::MAX));
    let mut statement = database.prepare_cached(sql)?;
    let mut rows = statement.query(params![id, execution, stream, from, end])?;
    let mut read = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(1)?.as_blob()?;
        let skip = usize::try_from(from.saturating_sub(row.get(0)?)).unwrap_or(0).min(bytes.len());
        let take = (len - read.len()).min(bytes.len() - skip);
        read.extend_from_slice(&bytes[skip..skip + take]);
    }
    Ok(read)
}

/// When a commit has reached the disk.
#[derive(Debug, Clone, Copy)]
enum Synchronous {
    /// Before it returns.
    Full,
    /// Some time later; the file is whole in any case.
    Normal,
}

/// One connection, used by one blocking call at a time.
#[derive(Debug, Clone)]
struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    async fn open(path: PathBuf, synchronous: Synchronous) -> Result<Self> {
        let open = move || {
            let connection = connect(&path, synchronous).map_err(|e| e.into_error("open", &path))?;
            Ok(Database(Arc::new(Inner { path, connection: Mutex::new(connection) })))
        };
        blocking(open).await
    }

    fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs `work` on the connection, off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        blocking(move || {
            // A panic in between leaves a connection whose transaction was rolled back: usable.
            let mut connection = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(|e| e.into_error(what, &inner.path))
        })
        .await
    }

    /// Runs `work` in a transaction that holds the write lock from its first statement on: one that began as
    /// a reader could not wait for another writer.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        self.run(what, move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }
}

fn connect(path: &Path, synchronous: Synchronous) -> Result<Connection, Trouble> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let level = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", level)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    transaction.execute("INSERT OR IGNORE INTO lts_results_schema (one, version) VALUES (1, ?1)", [SCHEMA_VERSION])?;
    let version: i64 = transaction.query_row("SELECT version FROM lts_results_schema", [], |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        return Err(Trouble::Ours(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the results in {} have schema {version}, this program knows {SCHEMA_VERSION}; use the program that wrote them",
                path.display()
            ),
        )));
    }
    transaction.commit()?;
    Ok(connection)
}

/// What can go wrong inside a call: SQLite's trouble has yet to learn the path and the purpose.
enum Trouble {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Sqlite(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Ours(error)
    }
}

impl Trouble {
    fn into_error(self, what: &str, path: &Path) -> Error {
        let error = match self {
            Trouble::Ours(error) => return error,
            Trouble::Sqlite(error) => error,
        };
        let (kind, advice) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                (ErrorKind::Unavailable, "; another program is writing for long, try again")
            }
            Some(ErrorCode::DiskFull) => (ErrorKind::Full, "; free some space on that disk"),
            Some(ErrorCode::NotADatabase) => (ErrorKind::Incompatible, "; name another file"),
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                (ErrorKind::Invalid, "; check that its directory exists and that this user may write there")
            }
            Some(ErrorCode::SystemIoFailure) => (ErrorKind::Unavailable, ""),
            Some(ErrorCode::TooBig) => (ErrorKind::Full, "; keep results of this size in a directory"),
            _ => (ErrorKind::Internal, ""),
        };
        Error::new(kind, format!("cannot {what} in {}: {error}{advice}", path.display())).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Stream;

    #[tokio::test]
    async fn a_file_that_is_not_sqlite_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        let notes = "these are my notes, do not lose them. ".repeat(100);
        std::fs::write(&path, &notes).unwrap();
        assert_eq!(SqliteResults::open(&path).await.unwrap_err().kind(), ErrorKind::Incompatible);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
    }

    #[tokio::test]
    async fn another_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        drop(SqliteResults::open(&path).await.unwrap());
        Connection::open(&path).unwrap().execute("UPDATE lts_results_schema SET version = 9", []).unwrap();
        let error = SqliteLogs::open(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("schema 9"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = SqliteResults::open("/no/such/directory/a.db").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("/no/such/directory/a.db"), "{error}");
    }

    #[tokio::test]
    async fn results_and_logs_share_a_file_and_its_own_version_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 42).unwrap();
        let results = SqliteResults::open(&path).await.unwrap();
        let logs = SqliteLogs::open(&path).await.unwrap();
        let log = LogKey { id: TaskId::new("a").unwrap(), execution: u64::MAX, stream: Stream::Stderr };
        assert_eq!(logs.append(&log, 0, b"x").await.unwrap(), 1);
        results.save(&log.id, u64::MAX, &Payload::from_bytes(*b"y")).await.unwrap();
        let version = results
            .database
            .run("look", |database| Ok(database.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?));
        assert_eq!(version.await.unwrap(), 42);
    }

    #[tokio::test]
    async fn a_result_has_reached_the_disk_when_it_is_saved() {
        let directory = tempfile::tempdir().unwrap();
        let results = SqliteResults::open(directory.path().join("a.db")).await.unwrap();
        let level = results
            .database
            .run("look", |database| Ok(database.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))?));
        const FULL: i64 = 2;
        assert_eq!(level.await.unwrap(), FULL);
    }
}
