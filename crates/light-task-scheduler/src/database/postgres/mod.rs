//! One PostgreSQL database: its connections, its transactions and its errors.
//!
//! | file | idea |
//! |---|---|
//! | `url` | where the server is |
//! | `error` | what errors mean |
//! | `migrate` | tables, version by version |

mod error;
mod migrate;
mod url;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};

pub(crate) use self::error::{Trouble, Work};
pub(crate) use self::migrate::{Migrations, migrate};
pub(crate) use self::url::Target;
use crate::database::engine::Engine;
use crate::database::send_at_once;
use crate::database::silence::{ANSWER_TIMEOUT, IDLE_TRANSACTION_MAX, PULSE_ANSWER_TIMEOUT, Trust};
use crate::error::{Error, Result};
use crate::inspection::Inspection;

/// Most bytes of a schema's name (PostgreSQL cuts longer ones).
const SCHEMA_BYTES_MAX: usize = 63;
/// How long to wait for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a heartbeat may wait for its connection: the next one tries again.
const PULSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first connection may take: there is somebody who waits for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most statements that one connection keeps prepared; there are fewer than these.
const STATEMENTS_MAX: usize = 256;
/// How often a transaction is tried again when others were in the way.
const CONFLICTS_MAX: u32 = 20;
/// The first pause before a transaction is tried again; it grows with each try.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
/// Stands for the quoted schema in a statement.
const SCHEMA: &str = "{s}";
/// Stands for the server's time in a statement, in microseconds since 1970.
const NOW: &str = "{now}";
const SERVERS_TIME: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

// Every statement is made for one index. Without these a plan that was made while the tables were small (it is kept)
// reads and sorts all that waits, until the next ANALYZE; and one that is made anew for each list of a thousand ids
// reads a small table as a whole for each of them.
macro_rules! made_for_indexes {
    (@each $form:ident) => {
        made_for_indexes!(@$form "enable_seqscan" "off", "enable_bitmapscan" "off", "enable_sort" "off",
            "enable_hashjoin" "off", "enable_mergejoin" "off", "jit" "off", "plan_cache_mode" "force_generic_plan")
    };
    (@pairs $($name:literal $value:literal),*) => { [$(($name, $value)),*] };
    (@locals $($name:literal $value:literal),*) => { concat!($("; SET LOCAL ", $name, " = ", $value),*) };
    ($form:ident) => { made_for_indexes!(@each $form) };
}
/// Whatever the server's default is: each statement sees what is committed when it begins.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// Behind a pooler a session's settings are not ours.
const BEGIN_POOLED: &str = concat!("BEGIN ISOLATION LEVEL READ COMMITTED", made_for_indexes!(locals));

/// How to use a server.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) target: Target,
    /// Holds all tables.
    pub(crate) schema: String,
    /// Behind a pooler that gives each transaction another connection.
    pub(crate) pgbouncer: bool,
    /// The server's time counts as 0: only for tests that compare every moment.
    pub(crate) time_stopped: bool,
    /// Most connections for everything but heartbeats and notifications.
    pub(crate) connections: u32,
    /// Whether tables may be made and changed.
    pub(crate) may_migrate: bool,
}

impl Access {
    fn check(&self) -> Result<()> {
        let schema = &self.schema;
        if schema.is_empty() || schema.len() > SCHEMA_BYTES_MAX || schema.contains('\0') || schema.starts_with("pg_") {
            return Err(Error::invalid(format!(
                "`{schema}` cannot be the name of a schema: 1 to {SCHEMA_BYTES_MAX} bytes, not beginning with pg_"
            )));
        }
        if self.connections == 0 {
            return Err(Error::invalid("connections is 0; the default is 8"));
        }
        Ok(())
    }

    /// Looks at the server and at the tables of these components, and changes nothing.
    pub(crate) async fn inspect(self, components: &'static [Migrations]) -> Result<Inspection> {
        self.check()?;
        let engine = Engine::start(|| async {})?;
        let work = async move {
            let Access { target, schema, .. } = &self;
            let mut connection = first_connection(&connect_options(&self), &target.place).await?;
            let found = migrate::inspect(&mut connection, schema, &target.place, components).await?;
            let _ = connection.close().await;
            Ok(found)
        };
        engine.run(work).await
    }
}

/// A database, open for work. All of it runs on its [`Engine`].
pub(crate) struct Database {
    pool: PgPool,
    /// One connection apart, so that a heartbeat never waits for a free one.
    pulse: PgPool,
    trust: Trust,
    place: String,
    schema: String,
    quoted: String,
    pgbouncer: bool,
    time_stopped: bool,
    /// Statements with the schema in them, by the constants they were made from.
    statements: RwLock<HashMap<&'static str, Arc<str>>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// For what a connection is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Anything that may wait for a free connection.
    Work,
    /// The same, in one statement that does no harm if it is executed again.
    Statement,
    /// A sign of life.
    Pulse,
}

impl Database {
    /// Connects, brings the tables up to date, and returns the database with the thread that drives it.
    pub(crate) async fn open(access: Access, migrations: Migrations) -> Result<(Arc<Self>, Engine)> {
        access.check()?;
        let (schema, place) = (access.schema.clone(), access.target.place.clone());
        let options = connect_options(&access);
        let trust = Trust::default();
        let port = options.get_port();
        let pool = |connections| {
            let trust = trust.clone();
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                // A dead connection is found by the BEGIN that is sent anyway, and replaced.
                .test_before_acquire(false)
                .after_connect(move |_, _| {
                    send_at_once(port);
                    Box::pin(std::future::ready(Ok(())))
                })
                .after_release(move |_, _| Box::pin(std::future::ready(trust.check())))
        };
        let (work, pulse) = (pool(access.connections), pool(1).acquire_timeout(PULSE_TIMEOUT));
        let (ready, opened) = tokio::sync::oneshot::channel();
        let last = move || async move {
            if let Ok(database) = opened.await {
                let database: Arc<Database> = database;
                tokio::join!(database.pool.close(), database.pulse.close());
            }
        };
        let engine = Engine::start(last)?;
        let database = engine
            .run(async move {
                // Not from a pool: its error says why, where a pool's says only that it took too long.
                let mut first = first_connection(&options, &place).await?;
                migrate(&mut first, &schema, &place, migrations, access.may_migrate).await?;
                let _ = first.close().await;
                let (pool, pulse) = (work.connect_lazy_with(options.clone()), pulse.connect_lazy_with(options));
                Ok(Arc::new(Database {
                    pool,
                    pulse,
                    trust,
                    place,
                    quoted: quoted(&schema),
                    schema,
                    pgbouncer: access.pgbouncer,
                    time_stopped: access.time_stopped,
                    statements: RwLock::default(),
                }))
            })
            .await?;
        let _ = ready.send(Arc::clone(&database));
        Ok((database, engine))
    }

    /// Where the server is, without the password.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The name of the schema that holds the tables.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Whether there is a pooler between: no notifications, no statement outside a transaction.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pgbouncer
    }

    /// The most connections that may have died unnoticed.
    pub(crate) fn connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// A statement from a constant in which `{s}` stands for the schema, and `{now}` for the server's time.
    pub(crate) fn query<'q>(&self, template: &'static str) -> Query<'q, Postgres, PgArguments> {
        let known = self.statements.read().unwrap_or_else(PoisonError::into_inner).get(template).cloned();
        let sql = known.unwrap_or_else(|| {
            let sql: Arc<str> = self.with_schema(template).into();
            self.statements.write().unwrap_or_else(PoisonError::into_inner).insert(template, Arc::clone(&sql));
            sql
        });
        sqlx::query(AssertSqlSafe(sql)).persistent(!self.pgbouncer)
    }

    /// A statement that was put together for one call; values are bound, never written into it.
    pub(crate) fn dynamic<'q>(&self, sql: &str) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(self.with_schema(sql))).persistent(false)
    }

    /// Writes the schema and the server's time into a statement.
    pub(crate) fn with_schema(&self, sql: &str) -> String {
        let now = if self.time_stopped { "0::bigint" } else { SERVERS_TIME };
        sql.replace(SCHEMA, &self.quoted).replace(NOW, now)
    }

    /// A connection for one statement, which is a transaction: in another one only where the connection may change after each.
    pub(crate) async fn reading(self: &Arc<Self>) -> Work<Session<'static>> {
        self.begin(Purpose::Statement).await
    }

    /// Does work on a session, unless the server falls silent in the middle of it: then nothing of it is used again,
    /// and what it has done is not known.
    pub(crate) async fn within<T>(&self, purpose: Purpose, work: impl Future<Output = Work<T>>) -> Work<T> {
        let most = match purpose {
            Purpose::Work | Purpose::Statement => ANSWER_TIMEOUT,
            Purpose::Pulse => PULSE_ANSWER_TIMEOUT,
        };
        self.trust.within(most, work).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(self: &Arc<Self>, purpose: Purpose) -> Work<Session<'static>> {
        let begin = if self.pgbouncer { BEGIN_POOLED } else { BEGIN };
        let pool = match purpose {
            Purpose::Statement if !self.pgbouncer => {
                let link = Link::Plain(self.pool.acquire().await?);
                return Ok(Session { link, database: Arc::clone(self) });
            }
            Purpose::Work | Purpose::Statement => &self.pool,
            Purpose::Pulse => &self.pulse,
        };
        // A connection that died while nobody used it is replaced: nothing was sent on it yet.
        let mut dead = 0;
        loop {
            match pool.begin_with(begin).await.map_err(Trouble::from) {
                Ok(transaction) => return Ok(Session { link: Link::Begun(transaction), database: Arc::clone(self) }),
                Err(trouble) if trouble.is_disconnected() && dead < pool.options().get_max_connections() => dead += 1,
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Waits before a transaction that met others is tried again; `false`: it was tried often enough.
    pub(crate) async fn may_try_again(&self, trouble: &Trouble, tries: &mut u32) -> bool {
        if !trouble.is_conflict() || *tries >= CONFLICTS_MAX {
            return false;
        }
        *tries += 1;
        let pause = CONFLICT_PAUSE * *tries;
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        true
    }

    /// Says what a trouble means.
    pub(crate) fn explain(&self, trouble: Trouble) -> Error {
        trouble.into_error(&self.place)
    }

    /// A connection that hears the notifications of a channel.
    pub(crate) async fn listen(&self, channel: &str) -> Work<PgListener> {
        let options = (*self.pool.connect_options()).clone();
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let mut listener = PgListener::connect_with(&own.connect_with(options).await?).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }
}

/// A connection, in a transaction or not.
pub(crate) struct Session<'c> {
    link: Link<'c>,
    database: Arc<Database>,
}

enum Link<'c> {
    Plain(PoolConnection<Postgres>),
    Begun(Transaction<'c, Postgres>),
}

impl<'c> Session<'c> {
    /// A transaction that somebody else has begun: committing it here ends its innermost level.
    pub(crate) fn within(transaction: Transaction<'c, Postgres>, database: Arc<Database>) -> Self {
        Session { link: Link::Begun(transaction), database }
    }

    /// The database that it is a session of.
    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// A statement from a constant.
    pub(crate) fn query<'q>(&self, template: &'static str) -> Query<'q, Postgres, PgArguments> {
        self.database.query(template)
    }

    /// What to execute statements on.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match &mut self.link {
            Link::Plain(connection) => connection,
            Link::Begun(transaction) => transaction,
        }
    }

    /// Commits, if there is a transaction. Dropping a session instead undoes it.
    pub(crate) async fn commit(self) -> Work<()> {
        match self.link {
            Link::Plain(_) => Ok(()),
            Link::Begun(transaction) => Ok(transaction.commit().await?),
        }
    }
}

/// A name as a statement takes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn connect_options(access: &Access) -> PgConnectOptions {
    let options = access.target.options.clone();
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("light-task-scheduler"),
    };
    if access.pgbouncer {
        // A pooler refuses settings that it does not know, and forgets prepared statements.
        return options.statement_cache_capacity(0).extra_float_digits(None);
    }
    let idle_max = IDLE_TRANSACTION_MAX.as_millis().to_string();
    let options = options.options([("idle_in_transaction_session_timeout", idle_max.as_str())]);
    options.statement_cache_capacity(STATEMENTS_MAX).options(made_for_indexes!(pairs))
}

async fn first_connection(options: &PgConnectOptions, place: &str) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(e)) => Err(error::explain(e, place)),
        Err(_) => Err(Error::unavailable(format!(
            "PostgreSQL at {place}: no answer in {} s; check that the server runs and can be reached",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}
