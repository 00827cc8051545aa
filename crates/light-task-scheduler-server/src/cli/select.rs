//! Which store, and which tasks: what most subcommands ask for.

use clap::Args;
use light_task_scheduler::store::TaskQuery;
use light_task_scheduler::{State, Store, Task, TaskId};

use crate::exit::{CONFLICT, NOT_FOUND, Problem, Result};
use crate::open::Opened;
use crate::store_url::{STORE_DEFAULT, StoreUrl};

/// How many tasks with the same beginning are named when it is not unique.
const SHOWN_MAX: usize = 5;

/// The store to look at.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The store: a path, sqlite:PATH, postgres://…, mysql://…, redis://…, or cached+ before one of them
    #[arg(long, env = "LTS_STORE", hide_env_values = true, value_name = "URL", default_value = STORE_DEFAULT)]
    store: StoreUrl,
}

impl StoreArgs {
    /// What it is.
    pub(crate) fn url(&self) -> &StoreUrl {
        &self.store
    }

    /// Opens it, and does not create it.
    pub(crate) async fn open(&self) -> Result<Opened> {
        self.store.open_existing().await
    }

    /// Opens it, or creates it.
    pub(crate) async fn open_or_create(&self) -> Result<Opened> {
        self.store.open().await
    }
}

/// The task with this id, or the only one whose id begins so.
pub(crate) async fn find(store: &dyn Store, text: &str) -> Result<Task> {
    let missing = || Problem::new(NOT_FOUND, format!("there is no task {text}"));
    // What is no id is no beginning of one either.
    let Ok(id) = TaskId::new(text) else { return Err(missing()) };
    if let Some(task) = store.get(&[id]).await?.into_iter().next().flatten() {
        return Ok(task);
    }
    let query = TaskQuery { id_prefix: Some(text.to_owned()), limit: SHOWN_MAX + 1, ..TaskQuery::default() };
    let mut found = store.list(&query).await?.tasks;
    match found.len() {
        0 => Err(missing()),
        1 => found.pop().ok_or_else(missing),
        _ => {
            let more = if found.len() > SHOWN_MAX { ", …" } else { "" };
            let ids: Vec<String> = found.iter().take(SHOWN_MAX).map(|task| task.id.to_string()).collect();
            Err(Problem::new(CONFLICT, format!("several tasks begin with {text}: {}{more}", ids.join(", "))))
        }
    }
}

/// All of these tasks; none if one of them is not there.
pub(crate) async fn find_all(store: &dyn Store, texts: &[String]) -> Result<Vec<Task>> {
    let mut tasks = Vec::with_capacity(texts.len());
    for text in texts {
        tasks.push(find(store, text).await?);
    }
    Ok(tasks)
}

/// Reads `failed,cancelled`.
pub(crate) fn parse_state(text: &str) -> Result<State, String> {
    text.parse().map_err(|error: light_task_scheduler::Error| error.to_string())
}
