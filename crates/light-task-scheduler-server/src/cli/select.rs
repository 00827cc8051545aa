//! Which store: what those subcommands ask for that run tasks, or are about stores.

use clap::Args;
use light_task_scheduler::State;

use crate::exit::Result;
use crate::open::Opened;
use crate::store_url::{STORE_DEFAULT, StoreUrl};

/// The store to work on.
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

    /// Opens it, or creates it.
    pub(crate) async fn open_or_create(&self) -> Result<Opened> {
        self.store.open().await
    }
}

/// Reads `failed,cancelled`.
pub(crate) fn parse_state(text: &str) -> Result<State, String> {
    text.parse().map_err(|error: light_task_scheduler::Error| error.to_string())
}
