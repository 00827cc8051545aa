//! Opens what `--store` names: the tasks, the logs, and the place where commands run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::executor::process::{ProcessConfig, ProcessExecutor};
use light_task_scheduler::results::DirectoryLogs;
use light_task_scheduler::{Executor, LogStore, MemoryStore, SqliteStore, Store};
use tempfile::TempDir;

use crate::exit::{ERROR, NOT_FOUND, Problem, Result};

/// Where tasks are kept if nobody says otherwise.
pub(crate) const STORE_DEFAULT: &str = "./lts.db";
/// Nobody can adopt a command of a store in memory: it is stopped when this program has died for so long.
const MEMORY_ORPHAN_AFTER: Duration = Duration::from_secs(2);

/// What a `--store` says. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// This process.
    Memory,
}

impl std::str::FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the store is empty; give a path, sqlite:PATH or memory:".to_owned());
        }
        let is_scheme = |text: &str| {
            text.len() > 1
                && text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
        };
        match text.split_once(':') {
            Some(("memory", "" | "//")) => Ok(StoreUrl::Memory),
            Some(("memory", rest)) => {
                Err(format!("a store in memory has no name, but `{rest}` is given; write memory:"))
            }
            Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("the store has no path; write sqlite:PATH".to_owned()),
                path => Ok(StoreUrl::Sqlite(path.into())),
            },
            Some((scheme, _)) if is_scheme(scheme) => Err(format!(
                "this program has no store for `{scheme}:`; it has sqlite:PATH (or just a path) and memory: \
                 (a file of that name is ./{text})"
            )),
            _ => Ok(StoreUrl::Sqlite(text.into())),
        }
    }
}

/// An open store and what belongs to it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The tasks.
    pub(crate) store: Arc<dyn Store>,
    /// What commands wrote.
    pub(crate) logs: Arc<dyn LogStore>,
    runs: PathBuf,
    /// Removed when this is dropped: the files of a store in memory.
    temporary: Option<TempDir>,
}

impl StoreUrl {
    /// Opens it, and creates it if there is none.
    pub(crate) async fn open(&self) -> Result<Opened> {
        match self {
            StoreUrl::Sqlite(path) => open_sqlite(path).await,
            StoreUrl::Memory => {
                let temporary = tempfile::tempdir()
                    .map_err(|error| Problem::new(ERROR, format!("no temporary directory for logs: {error}")))?;
                let logs = Arc::new(DirectoryLogs::open(temporary.path().join("logs")).await?);
                let runs = temporary.path().join("runs");
                Ok(Opened { store: Arc::new(MemoryStore::by_priority()), logs, runs, temporary: Some(temporary) })
            }
        }
    }

    /// Opens it only if it is there: looking must not make an empty store.
    pub(crate) async fn open_existing(&self) -> Result<Opened> {
        match self {
            StoreUrl::Sqlite(path) if !path.exists() => Err(Problem::new(
                NOT_FOUND,
                format!("there is no store at {}; `lts batch` and `lts run` make one", path.display()),
            )),
            StoreUrl::Memory => {
                Err(Problem::usage("a store in memory is seen by the process that has it, and by no other"))
            }
            _ => self.open().await,
        }
    }
}

async fn open_sqlite(path: &Path) -> Result<Opened> {
    let beside = |what: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(what);
        PathBuf::from(name)
    };
    // A mistyped path must not become a tree of directories.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        return Err(Problem::usage(format!("there is no directory {} for the store", parent.display())));
    }
    let store = Arc::new(SqliteStore::open(path)?);
    let logs = Arc::new(DirectoryLogs::open(beside("-logs")).await?);
    Ok(Opened { store, logs, runs: beside("-runs"), temporary: None })
}

impl Opened {
    /// What runs this store's commands.
    pub(crate) fn executor(&self) -> Result<Arc<dyn Executor>> {
        let mut config = ProcessConfig::new(&self.runs);
        config.orphan_after = self.temporary.as_ref().map(|_| MEMORY_ORPHAN_AFTER);
        Ok(Arc::new(ProcessExecutor::new(config)?.with_logs(self.logs.clone())))
    }

    /// Whether tasks outlive this process.
    pub(crate) fn is_durable(&self) -> bool {
        self.store.capabilities().durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_schemes_are_told_apart() {
        let sqlite = |path: &str| Ok(StoreUrl::Sqlite(path.into()));
        for path in ["lts.db", "./a:b", "/tmp/x y.db", "c:d", "数.db"] {
            assert_eq!(path.parse(), sqlite(path), "{path}");
        }
        assert_eq!("sqlite:lts.db".parse(), sqlite("lts.db"));
        assert_eq!("sqlite:///tmp/a".parse(), sqlite("/tmp/a"));
        assert_eq!("memory:".parse(), Ok(StoreUrl::Memory));
        for (bad, why) in [
            ("", "empty"),
            ("sqlite:", "no path"),
            ("memory:x", "no name"),
            ("postgres://h/d", "no store for `postgres:`"),
        ] {
            let error = bad.parse::<StoreUrl>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
