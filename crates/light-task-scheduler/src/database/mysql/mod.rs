//! One database of a MariaDB or MySQL server: its connections, its transactions and its errors.
//!
//! | file | idea |
//! |---|---|
//! | `url` | where the server is |
//! | `sql` | statements from templates |
//! | `error` | what errors mean |
//! | `migrate` | tables, version by version |

mod error;
mod migrate;
pub(crate) mod sql;
mod url;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySql, MySqlConnection, MySqlPool, Transaction};

pub(crate) use self::error::{Trouble, Work};
pub(crate) use self::migrate::{Migrations, migrate};
pub(crate) use self::url::Target;
use crate::database::engine::Engine;
use crate::database::send_at_once;
use crate::database::silence::{ANSWER_TIMEOUT, IDLE_TRANSACTION_MAX, PULSE_ANSWER_TIMEOUT, Trust};
use crate::error::{Error, Result};
use crate::inspection::Inspection;

/// Most bytes of a prefix: with it no name of a table or an index is longer than a server takes (64).
const PREFIX_BYTES_MAX: usize = 40;
/// How long to wait for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first connection may take: there is somebody who waits for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most statements that one connection keeps prepared.
const STATEMENTS_MAX: usize = 128;
/// How often a transaction is tried again when others were in the way.
const CONFLICTS_MAX: u32 = 20;
/// As how many tries one counts that has waited for a lock in vain: four of them are enough.
const WAITED: u32 = CONFLICTS_MAX / 4;
/// The first pause before a transaction is tried again; it grows with each try.
const CONFLICT_PAUSE: Duration = Duration::from_millis(2);
/// What every connection of a pool is set to, once and for all: each statement sees what is committed when it
/// begins, nothing is ever cut to fit, and who holds a lock for 5 s makes others begin anew. {idle} is how long, in
/// seconds, a transaction is kept in which nothing more is asked; MySQL can only end a session that is idle, in a
/// transaction or not.
const SETTINGS: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION innodb_lock_wait_timeout = 5
    /*M!100300 , SESSION idle_transaction_timeout = {idle} */ /*!80000 , SESSION wait_timeout = {idle} */";

/// How to use a server.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) target: Target,
    /// Begins the names of all tables.
    pub(crate) prefix: String,
    /// Most connections for everything but heartbeats.
    pub(crate) connections: u32,
    /// Whether tables may be made and changed.
    pub(crate) may_migrate: bool,
}

impl Access {
    fn check(&self) -> Result<()> {
        let Access { prefix, connections, .. } = self;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.chars().all(plain) {
            return Err(Error::invalid(format!(
                "`{prefix}` cannot begin the names of tables: at most {PREFIX_BYTES_MAX} of a to z, 0 to 9 and _"
            )));
        }
        if *connections == 0 {
            return Err(Error::invalid("connections is 0; the default is 8"));
        }
        Ok(())
    }

    /// Looks at the server and at the tables of these components, and changes nothing.
    pub(crate) async fn inspect(self, components: &'static [Migrations]) -> Result<Inspection> {
        self.check()?;
        let engine = Engine::start(|| async {})?;
        let work = async move {
            let Access { target, prefix, .. } = &self;
            let mut connection = first_connection(&connect_options(target), &target.place).await?;
            let found = migrate::inspect(&mut connection, prefix, &target.place, components).await?;
            let _ = connection.close().await;
            Ok(found)
        };
        engine.run(work).await
    }
}

/// A database, open for work. All of it runs on its [`Engine`].
pub(crate) struct Database {
    pool: MySqlPool,
    /// One connection apart, so that a heartbeat never waits for a free one.
    pulse: MySqlPool,
    trust: Trust,
    place: String,
    prefix: String,
    statements: sql::Statements,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// For what a connection is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Anything that may wait for a free connection.
    Work,
    /// A sign of life.
    Pulse,
}

impl Database {
    /// Connects, brings the tables up to date, and returns the database with the thread that drives it.
    pub(crate) async fn open(access: Access, migrations: Migrations) -> Result<(Arc<Self>, Engine)> {
        access.check()?;
        let Access { target, prefix, connections, may_migrate } = access;
        let options = connect_options(&target);
        let place = target.place;
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
                migrate(&mut first, &prefix, &place, migrations, may_migrate).await?;
                let _ = first.close().await;
                let trust = Trust::default();
                let pool = |connections| {
                    pool(connections, options.get_port(), trust.clone()).connect_lazy_with(options.clone())
                };
                let (pool, pulse) = (pool(connections), pool(1));
                Ok(Arc::new(Database { pool, pulse, trust, place, prefix, statements: sql::Statements::default() }))
            })
            .await?;
        let _ = ready.send(Arc::clone(&database));
        Ok((database, engine))
    }

    /// Where the server is, without the password.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Most connections for everything but heartbeats.
    pub(crate) fn connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// A statement from a template, with so many of its repeated parts.
    pub(crate) fn query<'q>(&self, template: &'static str, repeated: usize) -> Query<'q, MySql, MySqlArguments> {
        let sql = self.statements.get(template, &self.prefix, repeated);
        sqlx::query(AssertSqlSafe(sql))
    }

    /// A statement that was put together for one call; values are bound, never written into it, so that there are few.
    pub(crate) fn dynamic<'q>(&self, sql: &str) -> Query<'q, MySql, MySqlArguments> {
        sqlx::query(AssertSqlSafe(sql::with_prefix(sql, &self.prefix)))
    }

    /// A connection for one read: each of its statements sees what is committed when it begins.
    pub(crate) async fn reading(self: &Arc<Self>) -> Work<Session<'static>> {
        Ok(Session { link: Link::Plain(self.pool.acquire().await?), database: Arc::clone(self) })
    }

    /// Does work on a session, unless the server falls silent in the middle of it: then nothing of it is used again,
    /// and what it has done is not known.
    pub(crate) async fn within<T>(&self, purpose: Purpose, work: impl Future<Output = Work<T>>) -> Work<T> {
        let most = match purpose {
            Purpose::Work => ANSWER_TIMEOUT,
            Purpose::Pulse => PULSE_ANSWER_TIMEOUT,
        };
        self.trust.within(most, work).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(self: &Arc<Self>, purpose: Purpose) -> Work<Session<'static>> {
        let pool = match purpose {
            Purpose::Work => &self.pool,
            Purpose::Pulse => &self.pulse,
        };
        // A connection that died while nobody used it is replaced: nothing was sent on it yet.
        let mut dead = 0;
        loop {
            match pool.begin().await.map_err(Trouble::from) {
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
        *tries += if trouble.has_waited() { WAITED } else { 1 };
        let pause = CONFLICT_PAUSE * *tries;
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        true
    }

    /// Says what a trouble means.
    pub(crate) fn explain(&self, trouble: Trouble) -> Error {
        trouble.into_error(&self.place)
    }
}

/// A connection, in a transaction or not.
pub(crate) struct Session<'c> {
    link: Link<'c>,
    database: Arc<Database>,
}

enum Link<'c> {
    Plain(PoolConnection<MySql>),
    Begun(Transaction<'c, MySql>),
}

impl<'c> Session<'c> {
    /// A transaction that somebody else has begun: committing it here ends its innermost level.
    pub(crate) fn within(transaction: Transaction<'c, MySql>, database: Arc<Database>) -> Self {
        Session { link: Link::Begun(transaction), database }
    }

    /// The database that it is a session of.
    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// A statement from a template, with so many of its repeated parts.
    pub(crate) fn query<'q>(&self, template: &'static str, repeated: usize) -> Query<'q, MySql, MySqlArguments> {
        self.database.query(template, repeated)
    }

    /// What to execute statements on.
    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
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

    /// Undoes it, if there is a transaction, and waits until that is done.
    pub(crate) async fn undo(self) -> Work<()> {
        match self.link {
            Link::Plain(_) => Ok(()),
            Link::Begun(transaction) => Ok(transaction.rollback().await?),
        }
    }
}

fn connect_options(target: &Target) -> MySqlConnectOptions {
    target.options.clone().statement_cache_capacity(STATEMENTS_MAX).pipes_as_concat(false)
}

fn pool(connections: u32, port: u16, trust: Trust) -> MySqlPoolOptions {
    let settings: Arc<str> = SETTINGS.replace("{idle}", &IDLE_TRANSACTION_MAX.as_secs().to_string()).into();
    MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A dead connection is found by the BEGIN that is sent anyway, and replaced.
        .test_before_acquire(false)
        .after_release(move |_, _| Box::pin(std::future::ready(trust.check())))
        .after_connect(move |connection, _| {
            let settings = AssertSqlSafe(settings.to_string());
            send_at_once(port);
            Box::pin(async move { sqlx::raw_sql(settings).execute(connection).await.map(drop) })
        })
}

async fn first_connection(options: &MySqlConnectOptions, place: &str) -> Result<MySqlConnection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(e)) => Err(error::explain(e, place)),
        Err(_) => Err(Error::unavailable(format!(
            "MySQL at {place}: no answer in {} s; check that the server runs and can be reached",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}
