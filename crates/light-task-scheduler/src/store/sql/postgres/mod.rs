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
//! | `verify` | what contradicts itself |
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
mod verify;
mod window;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Acquire, Postgres, Row, Transaction};

use self::tx::{Shared, Tx};
use crate::clock::{SystemClock, new_uuid};
use crate::database::engine::Engine;
use crate::database::home::Home;
use crate::database::postgres::{Access, Database, Migrations, Purpose, Session, Target, Work};
use crate::error::{Error, Result};
use crate::inspection::Inspection;
use crate::state::Command;
use crate::store::sql::floors::Floors;
use crate::store::sql::gather::{Answers, Gather, SMALL};
use crate::store::sql::hints::Hints;
use crate::store::sql::incoming::{Incoming, incoming};
use crate::store::sql::lanes::Lanes;
use crate::store::sql::plan::EmptyClaims;
use crate::store::sql::tally;
use crate::store::{
    Answer, BATCH_MAX, Candidates, CandidatesRequest, Capabilities, Change, Changes, Claim, ClaimRequest, Heartbeat,
    HeartbeatReply, Inserted, NewReplica, Page, QueueCounts, QueueSettings, ReplicaStatus, Report, RescueRequest,
    Rescued, Store, Sweep, SweepRequest, TaskQuery, check_batch,
};
use crate::task::{Name, NewTask, ReplicaId, Task, TaskId};

const MIGRATIONS: Migrations = Migrations {
    component: "tasks",
    steps: &[
        include_str!("../migrations/postgres/0001_tasks.sql"),
        include_str!("../migrations/postgres/0002_tallies.sql"),
        include_str!("../migrations/postgres/0003_homes.sql"),
        include_str!("../migrations/postgres/0004_ids.sql"),
        include_str!("../migrations/postgres/0005_drains.sql"),
        include_str!("../migrations/postgres/0006_no_index_of_ends.sql"),
    ],
};

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
    /// How often to look for changes by other processes, while somebody waits for any and there are no
    /// notifications; a fifth of it later, unless a claim that finds nothing has looked before. Beside notifications
    /// every 5 s. Longer than 0, default 500 ms. Changes by this handle are seen at once.
    pub poll_interval: Duration,
    /// Make the tables if there are none, and bring older ones up to date. Default `true`; without it they are
    /// refused as [`Incompatible`](crate::ErrorKind::Incompatible), so that an operator can choose the moment.
    /// `migrate=false` in the URL switches it off too.
    pub migrate: bool,
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
            migrate: true,
            time_offset: Arc::default(),
            time_stopped: false,
        }
    }
}

impl PostgresOptions {
    /// How to use the server of a URL, whose parameters go before these options.
    fn access(&self, url: &str) -> Result<Access> {
        let target = Target::parse(url)?;
        Ok(Access {
            schema: target.schema.clone().unwrap_or_else(|| self.schema.clone()),
            pgbouncer: self.pgbouncer || target.pgbouncer,
            may_migrate: self.migrate && target.may_migrate,
            time_stopped: self.time_stopped,
            connections: self.connections,
            target,
        })
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostgresOptions { schema, connections, pgbouncer, poll_interval, migrate, .. } = self;
        f.debug_struct("PostgresOptions")
            .field("schema", schema)
            .field("connections", connections)
            .field("pgbouncer", pgbouncer)
            .field("poll_interval", poll_interval)
            .field("migrate", migrate)
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
    poll_interval: Duration,
}

/// Work on a transaction: plain functions, so that the work can be done again from its input.
type Job<I, T> = for<'t> fn(&'t mut Tx<'static>, &'t I) -> Pin<Box<dyn Future<Output = Work<T>> + Send + 't>>;

impl PostgresStore {
    /// Opens a database with the default options, and creates the tables if there are none.
    ///
    /// The URL is `postgres://user:password@host:port/database?parameters`. Three parameters are ours, `schema`,
    /// `pgbouncer` and `migrate`; the others are libpq's, such as `sslmode`
    /// (`prefer` by default; with feature `tls`: `require`, `verify-ca`, `verify-full`) and `sslrootcert` (a file in PEM
    /// beside the certificates that the system trusts).
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
        let access = options.access(url)?;
        let PostgresOptions { poll_interval, time_offset, .. } = options;
        if poll_interval.is_zero() {
            return Err(Error::invalid("poll_interval is 0; the default is 500 ms"));
        }
        let (database, engine) = Database::open(access, MIGRATIONS).await?;
        let salt = salt(&engine, Arc::clone(&database)).await?;
        let shared = Arc::new(Shared {
            database,
            salt,
            home: Home::here(),
            lanes: Lanes::default(),
            hints: Hints::default(),
            origin: new_uuid(&SystemClock),
            time_offset,
            empty_claims: EmptyClaims::default(),
            gather: Gather::default(),
            floors: Floors::default(),
            swept: AtomicI64::default(),
        });
        engine.spawn(hints::tell(Arc::clone(&shared)));
        Ok(PostgresStore { inner: Arc::new(Inner { engine, shared, poll_interval }) })
    }

    /// Looks at a database without opening it as a store: nothing is made or migrated. Fails as opening it does.
    pub async fn inspect(url: &str, options: &PostgresOptions) -> Result<Inspection> {
        options.access(url)?.inspect(&[MIGRATIONS]).await
    }

    /// Looks for contradictions between the tasks and all that is kept of them, and answers a sentence for each;
    /// there should be none. Reads everything, in one transaction; may be used at any time.
    pub async fn verify(&self) -> Result<Vec<String>> {
        self.write(Purpose::Work, (), |tx, ()| Box::pin(verify::verify(tx))).await
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
        let incoming = incoming(tasks);
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
                    let done = match hints::tell_at_commit(&mut tx).await {
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

    /// Does work in a transaction of its own, again if it meets others.
    async fn write<I, T>(&self, purpose: Purpose, input: I, job: Job<I, T>) -> Result<T>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.inner.shared);
        let work = async move {
            write(&shared, purpose, &input, job).await.map_err(|trouble| shared.database.explain(trouble))
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

/// The salt of the ids that are made in this database.
async fn salt(engine: &Engine, database: Arc<Database>) -> Result<i64> {
    let read = async move {
        let asked = async {
            let mut session = database.reading().await?;
            let row = session.query("SELECT salt FROM {s}.salt").fetch_one(session.connection()).await?;
            session.commit().await?;
            Ok(i64::from(row.try_get::<i32, _>(0)?))
        };
        database.within(Purpose::Work, asked).await.map_err(|trouble| database.explain(trouble))
    };
    engine.run(read).await
}

/// Takes tasks in, as a job.
const INSERT: Job<Vec<Incoming>, Answers> = |tx, tasks| Box::pin(insert::insert(tx, tasks));

/// Writes what waits, group by group, until nothing does.
async fn write_groups(shared: Arc<Shared>) {
    while let Some(mut group) = shared.gather.next() {
        match write(&shared, Purpose::Work, &group.tasks, INSERT).await {
            Ok(answers) => group.answer(Ok(answers)),
            // Nothing was written, maybe because of one call: the others are not to suffer.
            Err(trouble)
                if trouble.is_refusal()
                    && let Some(alone) = group.split() =>
            {
                for group in alone {
                    let answers = write(&shared, Purpose::Work, &group.tasks, INSERT).await;
                    group.answer(answers.map_err(|trouble| shared.database.explain(trouble)));
                }
            }
            Err(trouble) => group.answer(Err(shared.database.explain(trouble))),
        }
    }
}

/// Does work in a transaction of its own, again if it meets others.
async fn write<I, T>(shared: &Arc<Shared>, purpose: Purpose, input: &I, job: Job<I, T>) -> Work<T> {
    let (mut tries, mut dead) = (0, 0);
    loop {
        match write_once(shared, purpose, input, job).await {
            // A connection died while nobody used it.
            Err(trouble)
                if purpose == Purpose::Statement
                    && trouble.is_disconnected()
                    && dead < shared.database.connections() =>
            {
                dead += 1;
            }
            Err(trouble) if shared.database.may_try_again(&trouble, &mut tries).await => {}
            done => return done,
        }
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
        let tasks = incoming(tasks);
        let Inner { engine, shared, .. } = &*self.inner;
        if tasks.len() > SMALL {
            return self.write(Purpose::Work, tasks, INSERT).await;
        }
        let (answer, needs_writer) = shared.gather.join(tasks);
        if needs_writer {
            engine.spawn(write_groups(Arc::clone(shared)));
        }
        let gone = |_| Error::internal("a database call did not finish");
        answer.await.map_err(gone)?
    }

    async fn candidates(&self, request: CandidatesRequest) -> Result<Candidates> {
        self.read(request, |tx, request| Box::pin(window::candidates(tx, request))).await
    }

    async fn claim(&self, mut request: ClaimRequest) -> Result<Claim> {
        request.check()?;
        // More come with the next claim: its time has passed already.
        request.limit = request.limit.min(BATCH_MAX);
        let request = Arc::new(request);
        let shared = &self.inner.shared;
        // Most claims of an idle replica find nothing: one statement tells that, without a transaction.
        if shared.empty_claims.is_quiet(request.replica, request.number, shared.hints.work()) {
            let peek = self.read(Arc::clone(&request), |tx, request| Box::pin(claim::peek(tx, request)));
            if let Some(claim) = peek.await? {
                return Ok(claim);
            }
        }
        let taken = self.write(Purpose::Work, request, |tx, request| Box::pin(claim::claim(tx, request)));
        let (mut claim, reading) = taken.await?;
        if let Some(reading) = reading {
            claim.tasks = reading.tasks().await.map_err(|trouble| shared.database.explain(trouble))?;
        }
        Ok(claim)
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Answer>> {
        check_batch(changes.len())?;
        // Most are successes, which one statement writes. What it leaves is looked at in a transaction.
        let changes: Arc<[Change]> = changes.into();
        let quick =
            self.write(Purpose::Statement, Arc::clone(&changes), |tx, changes| Box::pin(quick::complete(tx, changes)));
        let answers = quick.await?;
        if answers.iter().all(Option::is_some) {
            return Ok(answers.into_iter().flatten().collect());
        }
        self.write(Purpose::Work, (changes, answers), |tx, (changes, answers)| {
            Box::pin(apply::apply_rest(tx, changes, answers))
        })
        .await
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

    async fn drain(&self, replica: ReplicaId) -> Result<()> {
        self.write(Purpose::Work, replica, |tx, replica| Box::pin(replicas::drain(tx, *replica))).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaStatus>> {
        self.read((), |tx, ()| Box::pin(replicas::replicas(tx))).await
    }

    async fn rescue(&self, mut request: RescueRequest) -> Result<Rescued> {
        request.limit = request.limit.min(BATCH_MAX);
        let request = Arc::new(request);
        // Most of the time nobody is to be declared dead, and nothing has lost its owner.
        if request.suspects.is_empty() {
            let peek = self.read(Arc::clone(&request), |tx, request| Box::pin(replicas::peek(tx, request)));
            if let Some(rescued) = peek.await? {
                return Ok(rescued);
            }
        }
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
        let (counts, rows) = self.read((), |tx, ()| Box::pin(list::counts(tx))).await?;
        if rows > tally::ROWS_READ_MAX {
            // No sweeper has done it for long.
            self.write(Purpose::Work, (), |tx, ()| Box::pin(sweep::fold(tx))).await?;
        }
        Ok(counts)
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
