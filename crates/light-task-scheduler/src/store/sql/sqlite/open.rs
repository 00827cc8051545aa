//! Opening the file: connections, settings and migrations.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Durability, SqliteOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Inspection, Schema};

/// Older versions can corrupt a file in WAL mode that two connections check-point at once.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// "LTS1": says in the file's header whose it is.
const APPLICATION_ID: i32 = 0x4c54_5331;
/// Each brings the schema from the version of its index to the next. Never changed, only added to.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/sqlite/0001_tasks.sql"), include_str!("../migrations/sqlite/0002_drains.sql")];

/// How long to wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 64 << 10;
/// Page cache of a reader, in KiB.
const READER_CACHE_KIB: i64 = 8 << 10;
/// The log is copied back into the file when it has this many pages (16 MiB).
const CHECKPOINT_PAGES: i64 = 4_096;
/// A longer log is cut after it was copied back, in bytes (64 MiB).
const LOG_BYTES_MAX: i64 = 64 << 20;
/// Prepared statements kept per connection; there are fewer than these.
const STATEMENTS_MAX: usize = 128;

/// The directory beside the file in which the replicas keep their locks.
pub(super) fn lock_directory(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-replicas");
    PathBuf::from(name)
}

/// The absolute path of the file, so that a later change of the working directory does no harm.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(Error::invalid("an SQLite store needs a file; use MemoryStore for one in memory"));
    }
    std::path::absolute(path)
        .map_err(|e| Error::invalid(format!("{} is not a usable path: {e}", path.display())).with_source(e))
}

/// Opens the file for writing. If it `may_migrate`, creates it if there is none, and brings its schema up to date.
pub(super) fn writer(path: &Path, durability: Durability, may_migrate: bool) -> Result<Connection> {
    named(path, try_writer(path, durability, MIGRATIONS, may_migrate))
}

/// Opens the file for reading.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    named(path, try_reader(path))
}

/// Says in an error which file it is about.
fn named<T>(path: &Path, opened: Result<T>) -> Result<T> {
    opened.map_err(|e| Error::new(e.kind(), format!("cannot open {}: {e}", path.display())).with_source(e))
}

/// Looks at a file that is there, and changes nothing.
pub(super) fn inspect(path: &Path, options: &SqliteOptions) -> Result<Inspection> {
    if !path.exists() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no file {}", path.display())));
    }
    let schemas = vec![named(path, try_reader(path).and_then(|connection| schema(&connection, MIGRATIONS.len())))?];
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Ok(Inspection {
        engine: "SQLite".to_owned(),
        version: rusqlite::version().to_owned(),
        durability: match options.durability {
            Durability::Full => "always (synchronous = FULL)".to_owned(),
            Durability::Relaxed => "relaxed (synchronous = NORMAL)".to_owned(),
        },
        schemas,
        bytes: Some(bytes(path) + bytes(Path::new(&log))),
    })
}

/// What a schema consists of: the statement that made each table and index.
pub(super) fn objects(connection: &Connection) -> Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let objects = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(objects.collect::<rusqlite::Result<_>>()?)
}

/// What the schema should consist of.
pub(super) fn expected_objects() -> Result<BTreeMap<String, String>> {
    let connection = Connection::open_in_memory()?;
    MIGRATIONS.iter().try_for_each(|step| connection.execute_batch(step))?;
    objects(&connection)
}

fn try_writer(path: &Path, durability: Durability, migrations: &[&str], may_migrate: bool) -> Result<Connection> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        let found = rusqlite::version();
        return Err(Error::new(
            ErrorKind::Incompatible,
            format!("SQLite {found} can corrupt data; use 3.51.3 or later"),
        ));
    }
    let create = if may_migrate { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    // Two processes that create one file at the same time would get in each other's way.
    let _one_at_a_time = opening_lock(path)?;
    let mut connection = connect(path, flags() | create)?;
    let is_current = schema(&connection, migrations.len())?.check("it", may_migrate)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    if !is_current {
        migrate(&mut connection, migrations)?;
    }
    Ok(connection)
}

fn try_reader(path: &Path) -> Result<Connection> {
    let connection = connect(path, flags())?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Without it SQLite plans a statement anew whenever another value is bound to its `LIMIT`: twice in each claim.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    // Each connection belongs to one thread, so SQLite's own mutexes are not needed.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Held while a process opens the file; released when dropped.
fn opening_lock(path: &Path) -> Result<File> {
    let directory = lock_directory(path);
    let lock = fs::create_dir_all(&directory)
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("open.lock")));
    let locked = lock.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("the directory {} cannot be used: {e}", directory.display())).with_source(e)
    })
}

/// The version of the schema, of which `needed` is known. Refuses files of other programs.
fn schema(connection: &Connection, needed: usize) -> Result<Schema> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || objects != 0) {
        let message = "it is an SQLite database of another program; choose another path";
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    Ok(Schema::new("tasks", usize::try_from(version).unwrap_or(0), needed))
}

/// Brings the schema up to date: all missing steps in one transaction.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, now that nobody else can write.
    let found = schema(&transaction, migrations.len())?;
    if found.check("it", true)? {
        return Ok(());
    }
    for step in migrations.iter().skip(found.found) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", i64::try_from(migrations.len()).unwrap_or(i64::MAX))?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_schema_is_brought_up_to_date_and_a_newer_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let later = "CREATE TABLE later (x INTEGER) STRICT; INSERT INTO later VALUES (1);";
        let steps = [MIGRATIONS, &[later]].concat();
        let (before, after) = (MIGRATIONS.len(), steps.len());
        drop(try_writer(&path, Durability::Full, MIGRATIONS, true).unwrap());
        let old = try_writer(&path, Durability::Full, &steps, false).unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Incompatible);
        assert!(
            old.to_string().contains(&format!("version {before}")) && old.to_string().contains("lts store migrate"),
            "{old}"
        );
        let connection = try_writer(&path, Durability::Full, &steps, true).unwrap();
        assert_eq!(schema(&connection, after).unwrap(), Schema::new("tasks", after, after));
        connection.query_row("SELECT x FROM later", [], |row| row.get::<_, i64>(0)).unwrap();
        drop(connection);
        drop(try_writer(&path, Durability::Full, &steps, false).unwrap());
        assert_eq!(inspect(&path, &SqliteOptions::default()).unwrap().schemas, [Schema::new("tasks", after, before)]);
        let refused = writer(&path, Durability::Full, true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        assert!(refused.to_string().contains(&format!("tasks.db: it has version {after}")), "{refused}");
    }

    #[test]
    fn who_may_not_migrate_makes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        assert!(writer(&path, Durability::Full, false).is_err());
        assert_eq!(inspect(&path, &SqliteOptions::default()).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!path.exists());
        File::create(&path).unwrap();
        let empty = writer(&path, Durability::Full, false).unwrap_err();
        assert!(empty.to_string().contains("it has no tasks yet"), "{empty}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_step_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let steps = [MIGRATIONS[0], "CREATE TABLE later (x INTEGER) STRICT; nonsense"];
        drop(try_writer(&path, Durability::Full, &steps[..1], true).unwrap());
        assert!(try_writer(&path, Durability::Full, &steps, true).is_err());
        let connection = try_writer(&path, Durability::Full, &steps[..1], true).unwrap();
        assert_eq!(schema(&connection, 1).unwrap().found, 1);
        assert!(connection.prepare("SELECT * FROM later").is_err());
    }
}
