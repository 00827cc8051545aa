//! Opens what `--store` names: the tasks, the logs, and the place where commands run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::docker::{DockerConfig, DockerExecutor};
use light_task_scheduler::executor::http::{CallbackConfig, Egress, HttpConfig, HttpExecutor};
use light_task_scheduler::executor::process::{ProcessConfig, ProcessExecutor};
use light_task_scheduler::results::{DirectoryLogs, MySqlLogs, PostgresLogs, RedisLogs, RemoteLogs, short_hash};
use light_task_scheduler::scheduler::Builder;
use light_task_scheduler::store::redis::RedisOptions;
use light_task_scheduler::store::sql::{MySqlOptions, PostgresOptions, SqliteOptions};
use light_task_scheduler::{
    CachedStore, Config, Inspection, LogStore, MemoryStore, MySqlStore, Name, PostgresStore, RedisStore, RemoteStore,
    Scheduler, SqliteStore, Store,
};
use tempfile::TempDir;

use crate::command::{DOCKER_KIND, HTTP_KIND, KIND};
use crate::exit::{ERROR, NOT_FOUND, Problem, Result};
use crate::output;
use crate::store_url::{Engine, FileUrl, ServerUrl, StoreUrl};

/// Nobody can adopt a command of a store in memory: it is stopped when this program has died for so long.
const MEMORY_ORPHAN_AFTER: Duration = Duration::from_secs(2);
/// A command whose scheduler has died is stopped after so long unless another one on its host takes it up:
/// those on other hosts wait for that before they try its task again.
const SERVER_ORPHAN_AFTER: Duration = Duration::from_secs(30);
/// What is said to whoever looks for a store in memory.
const IN_MEMORY: &str = "a store in memory is seen by the process that has it, and by no other";
/// The namespace on a server if the URL names none.
const NAMESPACE_DEFAULT: &str = "lts";
/// The variable that names the file in which the engines for containers are described, and what tasks may ask of them.
const DOCKER_CONFIG_VARIABLE: &str = "LTS_DOCKER_CONFIG";

/// An open store and what belongs to it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The tasks.
    pub(crate) store: Arc<dyn Store>,
    /// What commands wrote.
    pub(crate) logs: Arc<dyn LogStore>,
    runs: PathBuf,
    /// Names the store to engines that several stores use.
    installation: String,
    orphan_after: Option<Duration>,
    /// Removed when this is dropped: the files of a store in memory.
    _temporary: Option<TempDir>,
}

impl StoreUrl {
    /// Opens it, and creates it if there is none.
    pub(crate) async fn open(&self) -> Result<Opened> {
        match self {
            StoreUrl::Sqlite(file) => open_sqlite(file).await,
            StoreUrl::Memory => open_memory().await,
            StoreUrl::Server(server) => open_server(server).await,
            StoreUrl::Cached(inner) => {
                let opened = Box::pin(inner.open()).await?;
                Ok(Opened { store: Arc::new(CachedStore::new(opened.store)), ..opened })
            }
            StoreUrl::Unusable(why) => Err(Problem::usage(why)),
        }
    }

    /// Opens it only if it is there: looking must not make an empty store.
    pub(crate) async fn open_existing(&self) -> Result<Opened> {
        self.must_exist()?;
        self.open().await
    }

    /// Looks at it, and changes nothing.
    pub(crate) async fn inspect(&self) -> Result<Inspection> {
        self.must_exist()?;
        match self.durable() {
            StoreUrl::Sqlite(file) => Ok(SqliteStore::inspect(&file.path, &SqliteOptions::default())?),
            StoreUrl::Server(server) => inspect_server(server).await,
            StoreUrl::Unusable(why) => Err(Problem::usage(why)),
            StoreUrl::Memory | StoreUrl::Cached(_) => Err(Problem::usage(IN_MEMORY)),
        }
    }

    /// Looks for what contradicts itself in it.
    pub(crate) async fn verify(&self) -> Result<Vec<String>> {
        self.must_exist()?;
        let problems = match self.durable() {
            StoreUrl::Sqlite(file) => sqlite(file)?.verify().await,
            StoreUrl::Server(server) => match server.engine {
                Engine::Postgres => PostgresStore::open(&server.sql_url()?).await?.verify().await,
                Engine::MySql => MySqlStore::open(&server.sql_url()?).await?.verify().await,
                Engine::Redis => RedisStore::open_with(&server.url, redis_options(server)).await?.verify().await,
            },
            StoreUrl::Unusable(why) => return Err(Problem::usage(why)),
            StoreUrl::Memory | StoreUrl::Cached(_) => return Err(Problem::usage(IN_MEMORY)),
        };
        Ok(problems?)
    }

    fn must_exist(&self) -> Result<()> {
        match self.durable() {
            StoreUrl::Sqlite(FileUrl { path, .. }) if !path.exists() => Err(Problem::new(
                NOT_FOUND,
                format!("there is no store at {}; `lts batch` and `lts run` make one", path.display()),
            )),
            StoreUrl::Memory => Err(Problem::usage(IN_MEMORY)),
            _ => Ok(()),
        }
    }
}

async fn open_memory() -> Result<Opened> {
    let temporary = tempfile::tempdir()
        .map_err(|error| Problem::new(ERROR, format!("no temporary directory for logs: {error}")))?;
    Ok(Opened {
        store: Arc::new(MemoryStore::by_priority()),
        logs: Arc::new(DirectoryLogs::open(temporary.path().join("logs")).await?),
        runs: temporary.path().join("runs"),
        installation: installation_of(temporary.path().as_os_str().as_encoded_bytes()),
        orphan_after: Some(MEMORY_ORPHAN_AFTER),
        _temporary: Some(temporary),
    })
}

fn sqlite(file: &FileUrl) -> Result<SqliteStore> {
    let options = SqliteOptions { migrate: file.migrate, ..SqliteOptions::default() };
    Ok(SqliteStore::open_with(&file.path, options)?)
}

async fn open_sqlite(file: &FileUrl) -> Result<Opened> {
    let path = &file.path;
    let beside = |what: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(what);
        PathBuf::from(name)
    };
    // A mistyped path must not become a tree of directories.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        return Err(Problem::usage(format!("there is no directory {} for the store", parent.display())));
    }
    let store = Arc::new(sqlite(file)?);
    let logs = Arc::new(DirectoryLogs::open(beside("-logs")).await?);
    // However it was named: the same file, the same containers.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let installation = installation_of(&[b"file:", whole.as_os_str().as_encoded_bytes()].concat());
    Ok(Opened { store, logs, runs: beside("-runs"), installation, orphan_after: None, _temporary: None })
}

async fn open_server(server: &ServerUrl) -> Result<Opened> {
    let runs = runs_of(&server.identity())?;
    let (store, logs): (Arc<dyn Store>, Arc<dyn LogStore>) = match server.engine {
        Engine::Postgres => {
            let url = server.sql_url()?;
            (Arc::new(PostgresStore::open(&url).await?), Arc::new(PostgresLogs::open(&url).await?))
        }
        Engine::MySql => {
            let url = server.sql_url()?;
            (Arc::new(MySqlStore::open(&url).await?), Arc::new(MySqlLogs::open(&url).await?))
        }
        Engine::Redis => {
            let options = redis_options(server);
            let logs = RedisLogs::open(&server.url, &options.namespace).await?;
            (Arc::new(RedisStore::open_with(&server.url, options).await?), Arc::new(logs))
        }
    };
    let installation = installation_of(server.identity().as_bytes());
    Ok(Opened { store, logs, runs, installation, orphan_after: Some(SERVER_ORPHAN_AFTER), _temporary: None })
}

/// Opens the store of an `lts server`, for a worker of it.
pub(crate) async fn open_remote(url: &str, token: Option<&str>) -> Result<(Opened, RemoteStore)> {
    let store = RemoteStore::open(url, token).await?;
    let identity = url.trim_end_matches('/');
    let opened = Opened {
        store: Arc::new(store.clone()),
        logs: Arc::new(RemoteLogs::open(url, token)?),
        runs: runs_of(identity)?,
        installation: installation_of(identity.as_bytes()),
        orphan_after: Some(SERVER_ORPHAN_AFTER),
        _temporary: None,
    };
    Ok((opened, store))
}

/// What sets apart the containers of one store: short, since it is a part of their labels.
fn installation_of(identity: &[u8]) -> String {
    const LETTERS: usize = 12;
    short_hash(identity)[..LETTERS].to_owned()
}

/// The file that the variable names, if it is set.
fn docker_file() -> Option<PathBuf> {
    std::env::var_os(DOCKER_CONFIG_VARIABLE).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// How containers are run: as this file says, or the one that the variable names, if it is set.
fn docker_config(file: Option<&Path>) -> Result<DockerConfig> {
    let (file, named_by) = match file {
        Some(file) => (file.to_owned(), "the setting docker.config"),
        None => match docker_file() {
            Some(file) => (file, DOCKER_CONFIG_VARIABLE),
            None => return Ok(DockerConfig::default()),
        },
    };
    let unusable = |why: String| Problem::usage(format!("{named_by} names {}: {why}", file.display()));
    let text = std::fs::read(&file).map_err(|error| unusable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))
}

/// What tasks may ask for.
#[derive(Debug)]
pub(crate) struct Executors {
    /// Nothing is run by this process.
    pub(crate) none: bool,
    /// The programs that may be run; `None`: any.
    pub(crate) programs: Option<Vec<String>>,
    /// The file that describes the engines for containers.
    pub(crate) docker: Option<PathBuf>,
    /// Calls remote services.
    pub(crate) http: HttpExecutor,
}

impl Executors {
    /// Whoever runs this program says what is run and where calls go: to services in the same network too.
    pub(crate) async fn trusting(callbacks: Option<CallbackConfig>) -> Result<Self> {
        let http = HttpConfig { open: true, egress: Egress::private(), callbacks, ..HttpConfig::default() };
        Ok(Executors { none: false, programs: None, docker: None, http: services(http).await? })
    }
}

/// What calls remote services. A key that cannot be used is found out now, not by the first job.
pub(crate) async fn services(http: HttpConfig) -> Result<HttpExecutor> {
    if let Some(callbacks) = &http.callbacks {
        callbacks.check().await?;
    }
    Ok(HttpExecutor::new(http)?)
}

async fn inspect_server(server: &ServerUrl) -> Result<Inspection> {
    let (mut inspection, logs) = match server.engine {
        Engine::Postgres => {
            let url = server.sql_url()?;
            let tasks = PostgresStore::inspect(&url, &PostgresOptions::default()).await?;
            (tasks, PostgresLogs::inspect(&url).await?.schemas)
        }
        Engine::MySql => {
            let url = server.sql_url()?;
            let tasks = MySqlStore::inspect(&url, &MySqlOptions::default()).await?;
            (tasks, MySqlLogs::inspect(&url).await?.schemas)
        }
        Engine::Redis => (RedisStore::inspect(&server.url, &redis_options(server)).await?, Vec::new()),
    };
    inspection.schemas.extend(logs);
    Ok(inspection)
}

fn redis_options(server: &ServerUrl) -> RedisOptions {
    RedisOptions { namespace: server.namespace().to_owned(), migrate: server.migrate, ..RedisOptions::default() }
}

impl ServerUrl {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT)
    }

    /// The URL as the library takes it for an SQL server.
    fn sql_url(&self) -> Result<String> {
        let migrated = ServerUrl { url: self.with_parameter("migrate", &self.migrate.to_string()), ..self.clone() };
        match self.engine {
            Engine::Postgres => Ok(migrated.with_parameter("schema", self.namespace())),
            _ if self.namespace.is_some() => {
                Err(Problem::usage("a store in MySQL or MariaDB has no namespace; use a database of its own"))
            }
            _ => Ok(migrated.url),
        }
    }
}

/// The directory on this host for the commands of a server's tasks, the same for all who use these tasks.
fn runs_of(identity: &str) -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("LTS_STATE_DIR")
        .or_else(|| variable("XDG_STATE_HOME").map(|state| state.join("lts")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/lts")))
        .ok_or_else(|| {
            Problem::usage("neither LTS_STATE_DIR nor HOME says where running commands are kept; set one")
        })?;
    Ok(state.join(short_hash(identity.as_bytes())))
}

impl Opened {
    /// Starts a scheduler for this store's commands, containers and jobs of remote services.
    pub(crate) async fn scheduler(&self, config: Config) -> Result<Scheduler> {
        self.scheduler_with(config, Executors::trusting(None).await?).await
    }

    /// The same, with what tasks may ask for.
    pub(crate) async fn scheduler_with(&self, config: Config, executors: Executors) -> Result<Scheduler> {
        let builder = Scheduler::builder(self.store.clone());
        if executors.none {
            return Ok(builder.config(config).start().await?);
        }
        let builder = self.commands(builder, executors.programs, Some(&config.namespace))?;
        let builder = builder.executor(HTTP_KIND, Arc::new(executors.http));
        let builder = match self.containers_as(executors.docker.as_deref()) {
            Ok(docker) => self.reaped(builder, docker, &config.namespace),
            Err(problem) if executors.docker.is_some() || docker_file().is_some() => return Err(problem),
            // Commands need no engine: whoever has a `DOCKER_HOST` that only other programs understand can run them.
            Err(problem) => {
                output::note(&format!("note: containers cannot be run: {problem}"));
                builder
            }
        };
        Ok(builder.config(config).start().await?)
    }

    /// Runs this store's commands too, and stops those of this namespace that no task owns.
    pub(crate) fn commands(
        &self,
        builder: Builder,
        programs: Option<Vec<String>>,
        sweeping: Option<&Name>,
    ) -> Result<Builder> {
        let process = ProcessConfig { orphan_after: self.orphan_after, programs, ..ProcessConfig::new(&self.runs) };
        let process = ProcessExecutor::new(process)?.with_logs(self.logs.clone());
        let process = match sweeping {
            Some(namespace) => process.sweeping(namespace, self.store.clone()),
            None => process,
        };
        Ok(builder.executor(KIND, Arc::new(process)))
    }

    /// Runs this store's containers too, and removes those that no task owns.
    pub(crate) fn reaped(&self, builder: Builder, docker: DockerExecutor, namespace: &Name) -> Builder {
        builder.executor(DOCKER_KIND, Arc::new(docker.reaping(namespace, self.store.clone())))
    }

    /// What runs this store's containers. No engine is asked yet.
    pub(crate) fn containers(&self) -> Result<DockerExecutor> {
        self.containers_as(None)
    }

    fn containers_as(&self, file: Option<&Path>) -> Result<DockerExecutor> {
        let config = DockerConfig { installation: self.installation.clone(), ..docker_config(file)? };
        Ok(DockerExecutor::new(config)?.with_logs(self.logs.clone()))
    }

    /// Whether tasks outlive this process.
    pub(crate) fn is_durable(&self) -> bool {
        self.store.capabilities().durable
    }
}
