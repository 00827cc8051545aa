//! The store in a PostgreSQL server: any number of processes on any number of hosts.
//!
//! | file | idea |
//! |---|---|
//! | `tx` | one transaction, and what a handle's transactions share |
//! | `rows` | tasks as rows |
//! | `lanes` | small numbers for queues and kinds |
//! | `insert`, `claim`, `apply`, `replicas`, `list`, `sweep` | the methods of the contract |
//! | `quick` | the two moves that nearly every task makes, in one statement each |
//! | `window` | `candidates` |
//! | `hints` | `changed` |
//!
//! Connections, migrations and errors are those of [`database::postgres`](crate::database::postgres).

mod apply;
mod claim;
mod hints;
mod insert;
mod lanes;
mod list;
mod quick;
mod replicas;
mod rows;
mod sweep;
mod tx;
mod window;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Acquire, Postgres, Transaction};

use self::hints::Hints;
use self::insert::Incoming;
use self::lanes::Lanes;
use self::tx::{Shared, Tx};
use crate::clock::{Clock, SystemClock, new_uuid};
use crate::database::engine::Engine;
use crate::database::postgres::{Access, Database, Migrations, Purpose, Session, Target, Work};
use crate::error::{Error, Result};
use crate::state::Command;
use crate::store::{
    Answer, BATCH_MAX, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery, check_batch,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

const MIGRATIONS: Migrations =
    Migrations { component: "tasks", steps: &[include_str!("../migrations/postgres/0001_tasks.sql")] };

/// How to use a server as a [`PostgresStore`].
#[derive(Clone)]
pub struct PostgresOptions {
    /// The schema that holds all tables; it is created if there is none. Default `lts`. A `schema=` in the URL
    /// goes before it.
    pub schema: String,
    /// Most connections for everything but heartbeats and notifications, which have one each. Default 8.
    pub connections: u32,
    /// There is a pooler between that gives each transaction another connection, such as PgBouncer in transaction
    /// mode. Then no statement is prepared by name, and instead of notifications there is polling. Default
    /// `false`; `pgbouncer=true` in the URL switches it on too.
    pub pgbouncer: bool,
    /// How often to look for changes by other processes, while somebody waits for any and no notification
    /// comes. Longer than 0, default 500 ms. Changes by this handle are seen at once.
    pub poll_interval: Duration,
    /// Where fresh ids come from. Times are the server's. Default [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// Microseconds added to the server's time: for tests that let time pass.
    #[doc(hidden)]
    pub time_offset: Arc<AtomicI64>,
    /// The offset is the time, which stands still otherwise: only for tests that compare every moment.
    #[doc(hidden)]
    pub time_stopped: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions {
            schema: "lts".to_owned(),
            connections: 8,
            pgbouncer: false,
            poll_interval: Duration::from_millis(500),
            clock: Arc::new(SystemClock),
            time_offset: Arc::default(),
            time_stopped: false,
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostgresOptions { schema, connections, pgbouncer, poll_interval, .. } = self;
        f.debug_struct("PostgresOptions")
            .field("schema", schema)
            .field("connections", connections)
            .field("pgbouncer", pgbouncer)
            .field("poll_interval", poll_interval)
            .finish_non_exhaustive()
    }
}

/// Keeps tasks in a PostgreSQL database (13 or later), shared by any number of processes on any number of hosts.
///
/// Accepted means committed; how durable that is, is the server's `synchronous_commit` (default: on the
/// disk). All tables are in one schema, so that several stores can share a database. A thread of its own
/// drives the connections: a busy or stopped runtime neither delays a heartbeat nor breaks a transaction.
///
/// Cloning is cheap; the connections are closed when the last clone is dropped.
///
/// ```no_run
/// use light_task_scheduler::{NewTask, PostgresStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::open("postgres://me:secret@localhost/work").await?;
/// store.insert(vec![NewTask::new("greet", "world")?]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    poll_interval: Duration,
}

/// Work on a transaction: plain functions, so that the work can be done again from its input.
type Job<I, T> = for<'t> fn(&'t mut Tx<'static>, &'t I) -> Pin<Box<dyn Future<Output = Work<T>> + Send + 't>>;

impl PostgresStore {
    /// Opens a database with the default options, and creates the tables if there are none.
    ///
    /// The URL is `postgres://user:password@host:port/database?parameters`. Two parameters are ours, `schema` and
    /// `pgbouncer`; the others are libpq's, such as `sslmode`.
    ///
    /// Fails as [`Invalid`](crate::ErrorKind::Invalid) if the URL, the user, the password or the database is
    /// wrong, as [`Unavailable`](crate::ErrorKind::Unavailable) if the server cannot be reached within 10 s or
    /// takes no writes, and as [`Incompatible`](crate::ErrorKind::Incompatible) if the server is too old or the
    /// tables are of a newer release. No error shows the password.
    pub async fn open(url: &str) -> Result<Self> {
        PostgresStore::open_with(url, PostgresOptions::default()).await
    }

    /// Opens a database.
    pub async fn open_with(url: &str, options: PostgresOptions) -> Result<Self> {
        let PostgresOptions { schema, connections, pgbouncer, poll_interval, clock, time_offset, time_stopped } =
            options;
        if poll_interval.is_zero() {
            return Err(Error::invalid("poll_interval is 0; the default is 500 ms"));
        }
        let target = Target::parse(url)?;
        let schema = target.schema.clone().unwrap_or(schema);
        let pgbouncer = pgbouncer || target.pgbouncer;
        let access = Access { target, schema, pgbouncer, time_stopped, connections };
        let (database, engine) = Database::open(access, MIGRATIONS).await?;
        let shared = Arc::new(Shared {
            database,
            lanes: Lanes::default(),
            hints: Hints::new(new_uuid(&*clock)),
            time_offset,
            empty_claims: Mutex::default(),
        });
        engine.spawn(hints::tell(Arc::clone(&shared)));
        Ok(PostgresStore { inner: Arc::new(Inner { engine, shared, clock, poll_interval }) })
    }

    /// Takes tasks in within the caller's own transaction: they are there if and when it commits, together with
    /// what else it writes. The database must be this store's; the connection may be anybody's.
    ///
    /// Answers as [`Store::insert`] does. A failure leaves the transaction as it was before this call.
    ///
    /// ```no_run
    /// # async fn order(store: light_task_scheduler::PostgresStore, pool: sqlx::PgPool)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use light_task_scheduler::NewTask;
    ///
    /// let mut transaction = pool.begin().await?;
    /// sqlx::query("INSERT INTO orders (id) VALUES (7)").execute(&mut *transaction).await?;
    /// store.insert_in(&mut transaction, vec![NewTask::new("confirm", &7)?]).await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn insert_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Result<Inserted>>> {
        check_batch(tasks.len())?;
        let incoming = self.incoming(tasks);
        let Inner { shared, .. } = &*self.inner;
        let database = &shared.database;
        let mut tries = 0;
        loop {
            // A savepoint: what meets another transaction is done again.
            let begun = transaction.begin().await.map_err(|e| database.explain(e.into()))?;
            let mut tx = Tx::new(Session::within(begun, Arc::clone(database)), Arc::clone(shared));
            match insert::insert(&mut tx, &incoming).await {
                Ok(answers) => {
                    // What the caller may still undo is not kept here, and told by the commit itself.
                    let told = hints::tell_at_commit(&mut tx).await;
                    let done = match told {
                        Ok(()) => tx.session.commit().await,
                        Err(trouble) => Err(trouble),
                    };
                    return done.map(|()| answers).map_err(|trouble| database.explain(trouble));
                }
                Err(trouble) => {
                    drop(tx);
                    if !database.may_try_again(&trouble, &mut tries).await {
                        return Err(database.explain(trouble));
                    }
                }
            }
        }
    }

    fn incoming(&self, tasks: Vec<NewTask>) -> Vec<Incoming> {
        let clock = &*self.inner.clock;
        let incoming = |mut task: NewTask| {
            let given = task.id.take();
            Incoming { fresh: given.is_none(), id: given.unwrap_or_else(|| TaskId::generate(clock)), task }
        };
        tasks.into_iter().map(incoming).collect()
    }

    /// Does work in a transaction of its own, again if it meets others.
    async fn write<I, T>(&self, purpose: Purpose, input: I, job: Job<I, T>) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.inner.shared);
        let work = async move {
            let mut tries = 0;
            loop {
                match write_once(&shared, purpose, &input, job).await {
                    Ok(done) => return Ok(done),
                    Err(trouble) if shared.database.may_try_again(&trouble, &mut tries).await => {}
                    Err(trouble) => return Err(shared.database.explain(trouble)),
                }
            }
        };
        self.inner.engine.run(work).await
    }

    /// Does work that only reads.
    async fn read<I, T>(&self, input: I, job: Job<I, T>) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.inner.shared);
        let work = async move {
            let mut dead = 0;
            loop {
                match read_once(&shared, &input, job).await {
                    Ok(done) => return Ok(done),
                    // A connection died while nobody used it. To read again does no harm.
                    Err(trouble) if trouble.is_disconnected() && dead < shared.database.connections() => dead += 1,
                    Err(trouble) => return Err(shared.database.explain(trouble)),
                }
            }
        };
        self.inner.engine.run(work).await
    }
}

async fn write_once<I, T>(shared: &Arc<Shared>, purpose: Purpose, input: &I, job: Job<I, T>) -> Work<T> {
    let work = async {
        let mut tx = Tx::new(shared.database.begin(purpose).await?, Arc::clone(shared));
        let done = job(&mut tx, input).await?;
        tx.commit().await?;
        Ok(done)
    };
    shared.database.within(purpose, work).await
}

async fn read_once<I, T>(shared: &Arc<Shared>, input: &I, job: Job<I, T>) -> Work<T> {
    let work = async {
        let mut tx = Tx::new(shared.database.reading().await?, Arc::clone(shared));
        let done = job(&mut tx, input).await?;
        tx.commit().await?;
        Ok(done)
    };
    shared.database.within(Purpose::Work, work).await
}

impl From<PostgresStore> for Arc<dyn Store> {
    fn from(store: PostgresStore) -> Self {
        Arc::new(store)
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { priority: true, durable: true, shared: true, multi_host: true }
    }

    async fn insert(&self, tasks: Vec<NewTask>) -> Result<Vec<Result<Inserted>>> {
        check_batch(tasks.len())?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Purpose::Work, self.incoming(tasks), |tx, tasks| Box::pin(insert::insert(tx, tasks))).await
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        self.read(request, |tx, request| Box::pin(window::candidates(tx, request))).await
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<Claim> {
        request.check()?;
        // More come with the next claim: its time has passed already.
        request.limit = request.limit.min(BATCH_MAX);
        self.write(Purpose::Work, request, |tx, request| Box::pin(claim::claim(tx, request))).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        check_batch(changes.len())?;
        self.write(Purpose::Work, changes, |tx, changes| Box::pin(apply::apply(tx, changes))).await
    }

    async fn command(&self, commands: Vec<(TaskId, Command)>) -> Result<Vec<Answer>> {
        check_batch(commands.len())?;
        self.write(Purpose::Work, commands, |tx, commands| Box::pin(apply::command(tx, commands))).await
    }

    async fn post_reports(&self, reports: Vec<Report>) -> Result<Vec<bool>> {
        check_batch(reports.len())?;
        self.write(Purpose::Work, reports, |tx, reports| Box::pin(apply::post_reports(tx, reports))).await
    }

    async fn register(&self, replica: NewReplica) -> Result<()> {
        self.write(Purpose::Work, replica, |tx, replica| Box::pin(replicas::register(tx, replica))).await
    }

    async fn heartbeat(&self, heartbeat: Heartbeat) -> Result<HeartbeatReply> {
        self.write(Purpose::Pulse, heartbeat, |tx, heartbeat| Box::pin(replicas::heartbeat(tx, heartbeat))).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.write(Purpose::Work, replica, |tx, replica| Box::pin(replicas::leave(tx, replica))).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        self.read((), |tx, ()| Box::pin(replicas::replicas(tx))).await
    }

    async fn rescue(&self, mut request: RescueRequest) -> Result<Rescued> {
        request.limit = request.limit.min(BATCH_MAX);
        self.write(Purpose::Work, request, |tx, request| Box::pin(replicas::rescue(tx, request))).await
    }

    async fn get(&self, ids: &[TaskId]) -> Result<Vec<Option<Task>>> {
        check_batch(ids.len())?;
        self.read(ids.to_vec(), |tx, ids| Box::pin(list::get(tx, ids))).await
    }

    async fn list(&self, query: &TaskQuery) -> Result<Page> {
        self.read(query.clone(), |tx, query| Box::pin(list::list(tx, query))).await
    }

    async fn counts(&self) -> Result<Vec<QueueCounts>> {
        self.read((), |tx, ()| Box::pin(list::counts(tx))).await
    }

    async fn set_queue(&self, queue: Name, settings: QueueSettings) -> Result<()> {
        settings.check()?;
        self.write(Purpose::Work, (queue, settings), |tx, queue| Box::pin(list::set_queue(tx, queue))).await
    }

    async fn queues(&self) -> Result<Vec<(Name, QueueSettings)>> {
        self.read((), |tx, ()| Box::pin(list::queues(tx))).await
    }

    async fn sweep(&self, request: SweepRequest) -> Result<Sweep> {
        self.write(Purpose::Work, request, |tx, request| Box::pin(sweep::sweep(tx, request))).await
    }

    async fn changed(&self, seen: Changes) -> Changes {
        let Inner { engine, shared, poll_interval, .. } = &*self.inner;
        if shared.hints.begins_to_listen() {
            engine.spawn(hints::listen(Arc::clone(shared), *poll_interval));
        }
        let mut known = shared.hints.subscribe();
        match known.wait_for(|now| *now != seen).await {
            Ok(now) => *now,
            // The sender lives as long as this store.
            Err(_) => seen,
        }
    }
}

#[cfg(test)]
mod tests;
