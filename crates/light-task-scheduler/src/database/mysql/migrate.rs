//! Tables, version by version.
//!
//! A statement that makes or changes a table commits by itself here: each step is a list of statements, and the
//! version counts the statements that were executed, so that a step that was interrupted goes on where it stopped.
//! Executing one twice does no harm. One that alters a table does all of it or nothing.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::error::{Trouble, Work, is_altered};
use super::sql::with_prefix;
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Inspection, Schema};

/// Oldest servers that can do what the statements need (`SKIP LOCKED`): major and minor number.
const MARIADB_MIN: (u32, u32) = (10, 6);
const MYSQL_MIN: (u32, u32) = (8, 0);
/// What one statement or one row may take: the largest row has an output and a result of 4 MiB each.
const PACKET_BYTES_MIN: i64 = 16 << 20;
/// Separates the statements of a step.
const SEPARATOR: &str = ";\n";
/// In a statement that alters a table.
const ALTER: &str = "ALTER TABLE";
/// Seconds to wait for another process that makes the tables.
const PATIENCE: i64 = 60;

/// The steps that make and change the tables of one component.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migrations {
    /// Whose tables they are: several components may share a database, each with a version of its own.
    pub(crate) component: &'static str,
    /// What `{p}` stands for: all steps, one after the other. Never changed, only added to.
    pub(crate) steps: &'static [&'static str],
}

impl Migrations {
    fn statements(self) -> Vec<&'static str> {
        let all = self.steps.iter().flat_map(|step| step.split(SEPARATOR));
        all.map(str::trim).filter(|statement| !statement.is_empty()).collect()
    }
}

/// Brings the tables up to date: all missing statements, one process at a time.
pub(crate) async fn migrate(
    connection: &mut MySqlConnection,
    prefix: &str,
    place: &str,
    migrations: Migrations,
    may_migrate: bool,
) -> Result<()> {
    let name = format!("{prefix}versions");
    let migrated = async {
        check_server(connection).await?;
        // Most of the time there is nothing to do, and nobody need wait.
        let found = version_of(connection, prefix, migrations).await?;
        if found.check(tables(prefix), may_migrate)? {
            return Ok(());
        }
        // A lock of this session: the connection is not of a pool and is closed after this.
        let lock = "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '/', ?)), ?)";
        let row = sqlx::query(lock).bind(&name).bind(PATIENCE).fetch_one(&mut *connection).await?;
        if row.try_get::<Option<i64>, _>(0)? != Some(1) {
            return Err(Trouble::Ours(Error::unavailable("another process is making the tables; try again")));
        }
        make(connection, prefix, migrations).await
    };
    migrated.await.map_err(|trouble: Trouble| trouble.into_error(place))
}

/// Looks at the server and at the tables of these components, and changes nothing.
pub(crate) async fn inspect(
    connection: &mut MySqlConnection,
    prefix: &str,
    place: &str,
    components: &[Migrations],
) -> Result<Inspection> {
    let inspected = async {
        let asked = "SELECT CAST(VERSION() AS BINARY), CAST(@@innodb_flush_log_at_trx_commit AS SIGNED),
            (SELECT CAST(SUM(data_length + index_length) AS SIGNED) FROM information_schema.tables
                WHERE table_schema = DATABASE() AND LEFT(table_name, ?) = ?)";
        let query = sqlx::query(asked).bind(i64::try_from(prefix.len()).unwrap_or(0)).bind(prefix);
        let row = query.fetch_one(&mut *connection).await?;
        let version = String::from_utf8_lossy(row.try_get(0)?).into_owned();
        let durability = match row.try_get::<i64, _>(1)? {
            1 => "always (innodb_flush_log_at_trx_commit = 1)".to_owned(),
            other => format!("every second (innodb_flush_log_at_trx_commit = {other})"),
        };
        let mut schemas = Vec::with_capacity(components.len());
        for migrations in components {
            schemas.push(version_of(connection, prefix, *migrations).await?);
        }
        let engine = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" }.to_owned();
        let bytes = row.try_get::<Option<i64>, _>(2)?.map(i64::cast_unsigned);
        Ok(Inspection { engine, version, durability, schemas, bytes })
    };
    inspected.await.map_err(|trouble: Trouble| trouble.into_error(place))
}

/// How errors call the tables of a prefix.
fn tables(prefix: &str) -> String {
    format!("the database, in its tables {prefix}*,")
}

async fn make(connection: &mut MySqlConnection, prefix: &str, migrations: Migrations) -> Work<()> {
    let statements = migrations.statements();
    let found = version_of(connection, prefix, migrations).await?;
    found.check(tables(prefix), true)?;
    let mut done = found.found;
    if done == 0 {
        let begin = "CREATE TABLE IF NOT EXISTS {p}versions (
            component VARBINARY(100) NOT NULL PRIMARY KEY, version INT NOT NULL) ENGINE=InnoDB";
        sqlx::raw_sql(AssertSqlSafe(with_prefix(begin, prefix))).execute(&mut *connection).await?;
        let first = with_prefix("INSERT IGNORE INTO {p}versions VALUES (?, 0)", prefix);
        sqlx::query(AssertSqlSafe(first)).bind(migrations.component.as_bytes()).execute(&mut *connection).await?;
    }
    let mark = with_prefix("UPDATE {p}versions SET version = ? WHERE component = ?", prefix);
    for statement in &statements[done.min(statements.len())..] {
        done += 1;
        let made = sqlx::raw_sql(AssertSqlSafe(with_prefix(statement, prefix))).execute(&mut *connection).await;
        // Altered before an interruption: MySQL cannot be asked to add a column only if it is not there.
        if let Some(error) = made.err().filter(|error| !(statement.contains(ALTER) && is_altered(error))) {
            return Err(error.into());
        }
        let reached = i64::try_from(done).unwrap_or(i64::MAX);
        let update = sqlx::query(AssertSqlSafe(mark.clone())).bind(reached).bind(migrations.component.as_bytes());
        update.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn check_server(connection: &mut MySqlConnection) -> Work<()> {
    let found = "SELECT CAST(VERSION() AS BINARY), CAST(@@max_allowed_packet AS SIGNED)";
    let row = sqlx::query(found).fetch_one(connection).await?;
    let (version, packet) = (String::from_utf8_lossy(row.try_get(0)?).into_owned(), row.try_get::<i64, _>(1)?);
    let incompatible = |message| Err(Error::new(ErrorKind::Incompatible, message).into());
    let (name, least) = if version.contains("MariaDB") { ("MariaDB", MARIADB_MIN) } else { ("MySQL", MYSQL_MIN) };
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < least {
        return incompatible(format!("{name} {version} is too old; use {}.{} or later", least.0, least.1));
    }
    if packet < PACKET_BYTES_MIN {
        return incompatible(format!(
            "the server's max_allowed_packet is {packet} bytes; set it to {PACKET_BYTES_MIN} or more"
        ));
    }
    Ok(())
}

/// How many statements were executed; 0: there are no tables.
async fn version_of(connection: &mut MySqlConnection, prefix: &str, migrations: Migrations) -> Work<Schema> {
    let of = |found| Schema::new(migrations.component, found, migrations.statements().len());
    let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let known = sqlx::query(there).bind(format!("{prefix}versions")).fetch_optional(&mut *connection).await?;
    if known.is_none() {
        return Ok(of(0));
    }
    let read = with_prefix("SELECT version FROM {p}versions WHERE component = ?", prefix);
    let query = sqlx::query(AssertSqlSafe(read)).bind(migrations.component.as_bytes());
    let row = query.fetch_optional(connection).await?;
    let version = row.map(|row| row.try_get::<i64, _>(0)).transpose()?.unwrap_or(0);
    Ok(of(usize::try_from(version).unwrap_or(0)))
}
