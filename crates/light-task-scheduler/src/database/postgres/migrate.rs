//! Tables, version by version.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::error::{Trouble, Work};
use super::{SCHEMA, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Oldest server that is known to work, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 130_000;

/// The steps that make and change the tables of one component.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migrations {
    /// Whose tables they are: several components may share a schema, each with a version of its own.
    pub(crate) component: &'static str,
    /// Each brings the tables from the version of its index to the next. Never changed, only added to.
    pub(crate) steps: &'static [&'static str],
}

/// Brings the tables of a schema up to date: all missing steps in one transaction, one process at a time.
pub(crate) async fn migrate(
    connection: &mut PgConnection,
    schema: &str,
    place: &str,
    migrations: Migrations,
) -> Result<()> {
    try_migrate(connection, schema, migrations).await.map_err(|trouble| trouble.into_error(place))
}

async fn try_migrate(connection: &mut PgConnection, schema: &str, migrations: Migrations) -> Work<()> {
    let mut transaction = connection.begin().await?;
    check_server(&mut transaction).await?;
    // Most of the time there is nothing to do, and nobody need wait.
    if version(&mut transaction, schema, migrations).await? == migrations.steps.len() {
        return Ok(transaction.rollback().await?);
    }
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(lock)
        .bind(format!("light-task-scheduler {schema}"))
        .persistent(false)
        .execute(&mut *transaction)
        .await?;
    let done = version(&mut transaction, schema, migrations).await?;
    let quoted = quoted(schema);
    if done == 0 {
        let begin = format!(
            "CREATE SCHEMA IF NOT EXISTS {quoted};
             CREATE TABLE IF NOT EXISTS {quoted}.versions (component text PRIMARY KEY, version integer NOT NULL);
             INSERT INTO {quoted}.versions VALUES ('{}', 0) ON CONFLICT DO NOTHING",
            migrations.component
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *transaction).await?;
    }
    for step in &migrations.steps[done.min(migrations.steps.len())..] {
        sqlx::raw_sql(AssertSqlSafe(step.replace(SCHEMA, &quoted))).execute(&mut *transaction).await?;
    }
    let now = format!("UPDATE {quoted}.versions SET version = $1 WHERE component = $2");
    let reached = i32::try_from(migrations.steps.len()).unwrap_or(i32::MAX);
    let update = sqlx::query(AssertSqlSafe(now)).bind(reached).bind(migrations.component).persistent(false);
    update.execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

async fn check_server(connection: &mut PgConnection) -> Work<()> {
    let found = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let row = sqlx::query(found).persistent(false).fetch_one(connection).await?;
    let (number, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if number < SERVER_VERSION_MIN {
        let message = format!("PostgreSQL {} is too old; use 13 or later", number / 10_000);
        return Err(Error::new(ErrorKind::Incompatible, message).into());
    }
    if encoding != "UTF8" {
        let message = format!("the database has the encoding {encoding}; use one with UTF8");
        return Err(Error::new(ErrorKind::Incompatible, message).into());
    }
    Ok(())
}

/// The version of the tables; 0: there are none.
async fn version(connection: &mut PgConnection, schema: &str, migrations: Migrations) -> Work<usize> {
    let there = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'versions'";
    let known = sqlx::query(there).bind(schema).persistent(false).fetch_optional(&mut *connection).await?;
    if known.is_none() {
        return Ok(0);
    }
    let read = format!("SELECT version FROM {}.versions WHERE component = $1", quoted(schema));
    let query = sqlx::query(AssertSqlSafe(read)).bind(migrations.component).persistent(false);
    let row = query.fetch_optional(connection).await?;
    let version = row.map(|row| row.try_get::<i32, _>(0)).transpose()?.unwrap_or(0);
    let known = migrations.steps.len();
    match usize::try_from(version) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(Trouble::Ours(Error::new(
            ErrorKind::Incompatible,
            format!(
                "the schema {schema} has version {version} of the {}, this program knows {known}; use a newer release",
                migrations.component
            ),
        ))),
    }
}
