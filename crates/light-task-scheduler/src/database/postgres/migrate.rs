//! Tables, version by version.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::error::Work;
use super::{SCHEMA, quoted};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Inspection, Schema};

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
    may_migrate: bool,
) -> Result<()> {
    let migrated = try_migrate(connection, schema, migrations, may_migrate).await;
    migrated.map_err(|trouble| trouble.into_error(place))
}

/// Looks at the server and at the tables of these components, and changes nothing.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    schema: &str,
    place: &str,
    components: &[Migrations],
) -> Result<Inspection> {
    try_inspect(connection, schema, components).await.map_err(|trouble| trouble.into_error(place))
}

async fn try_inspect(connection: &mut PgConnection, schema: &str, components: &[Migrations]) -> Work<Inspection> {
    let asked = "SELECT current_setting('server_version'), current_setting('synchronous_commit'),
        current_setting('fsync'), (SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r')";
    let row = sqlx::query(asked).bind(schema).persistent(false).fetch_one(&mut *connection).await?;
    let (version, synchronous, fsync): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let bytes: Option<i64> = row.try_get(3)?;
    let durability = match (synchronous.as_str(), fsync.as_str()) {
        (_, "off") => "volatile (fsync = off)".to_owned(),
        ("off", _) => "relaxed (synchronous_commit = off)".to_owned(),
        _ => format!("always (synchronous_commit = {synchronous})"),
    };
    let mut schemas = Vec::with_capacity(components.len());
    for migrations in components {
        schemas.push(version_of(&mut *connection, schema, *migrations).await?);
    }
    Ok(Inspection {
        engine: "PostgreSQL".to_owned(),
        version,
        durability,
        schemas,
        bytes: bytes.map(i64::cast_unsigned),
    })
}

async fn try_migrate(
    connection: &mut PgConnection,
    schema: &str,
    migrations: Migrations,
    may_migrate: bool,
) -> Work<()> {
    let place = format!("the schema {schema}");
    let mut transaction = connection.begin().await?;
    check_server(&mut transaction).await?;
    // Most of the time there is nothing to do, and nobody need wait.
    if version_of(&mut transaction, schema, migrations).await?.check(&place, may_migrate)? {
        return Ok(transaction.rollback().await?);
    }
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(lock)
        .bind(format!("light-task-scheduler {schema}"))
        .persistent(false)
        .execute(&mut *transaction)
        .await?;
    let found = version_of(&mut transaction, schema, migrations).await?;
    found.check(&place, may_migrate)?;
    let done = found.found;
    let quoted = quoted(schema);
    if done == 0 {
        // Who may use a schema that is there need not be allowed to make one.
        let there = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
        let found = sqlx::query(there).bind(schema).persistent(false).fetch_optional(&mut *transaction).await?;
        if found.is_none() {
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {quoted}"))).execute(&mut *transaction).await?;
        }
        let begin = format!(
            "CREATE TABLE IF NOT EXISTS {quoted}.versions (component text PRIMARY KEY, version integer NOT NULL);
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
async fn version_of(connection: &mut PgConnection, schema: &str, migrations: Migrations) -> Work<Schema> {
    let of = |found| Schema::new(migrations.component, found, migrations.steps.len());
    let there = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'versions'";
    let known = sqlx::query(there).bind(schema).persistent(false).fetch_optional(&mut *connection).await?;
    if known.is_none() {
        return Ok(of(0));
    }
    let read = format!("SELECT version FROM {}.versions WHERE component = $1", quoted(schema));
    let query = sqlx::query(AssertSqlSafe(read)).bind(migrations.component).persistent(false);
    let row = query.fetch_optional(connection).await?;
    let version = row.map(|row| row.try_get::<i32, _>(0)).transpose()?.unwrap_or(0);
    Ok(of(usize::try_from(version).unwrap_or(0)))
}
