//! `lts context`: names for the servers and stores that one works with.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::exit::{ERROR, NOT_FOUND, OK, Problem, Result};
use crate::output::{self, FormArgs, did_you_mean};

/// Who may read the file: there are tokens in it.
const FILE_MODE: u32 = 0o600;

/// Names servers and stores, so that commands need not be told them; kept in ~/.config/lts/config.toml.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts context set prod --server https://lts.example.org --token lts_… --production
  lts context set here --store ./lts.db
  lts context use prod
  lts context ls

Which one holds: --server or --store, else --context, else LTS_SERVER or LTS_STORE, else LTS_CONTEXT, else the one in use.")]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Lists them; * marks the one in use
    Ls {
        #[command(flatten)]
        form: FormArgs,
    },
    /// Uses one from now on; without a name: none
    Use {
        /// Its name
        name: Option<String>,
    },
    /// Makes one, or changes what is given of it
    Set {
        /// Its name
        name: String,
        /// The server
        #[arg(long, value_name = "URL", conflicts_with = "store")]
        server: Option<String>,
        /// The store
        #[arg(long, value_name = "URL")]
        store: Option<String>,
        /// The token for the server; - reads it from stdin
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
        /// Ask before anything is changed there; --production=false ends that
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        production: Option<bool>,
    },
    /// Shows one, without its token
    Show {
        /// Its name [default: the one in use]
        name: Option<String>,
        #[command(flatten)]
        form: FormArgs,
    },
    /// Forgets one
    Rm {
        /// Its name
        name: String,
    },
}

/// A named server or store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Context {
    /// The server; or
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// The token for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Ask before anything is changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) production: bool,
}

/// The file of contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    contexts: BTreeMap<String, Context>,
}

/// Where the file is: as the XDG base directories have it.
fn path() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(variable("HOME")?.join(".config")));
    base.map(|base| base.join("lts/config.toml"))
        .ok_or_else(|| Problem::usage("neither XDG_CONFIG_HOME nor HOME says where contexts are kept"))
}

impl Contexts {
    /// Reads the file; without one there are none.
    pub(crate) fn read() -> Result<Contexts> {
        let Ok(path) = path() else { return Ok(Contexts::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Contexts::parse(&text).map_err(|why| Problem::usage(format!("{}: {why}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(Problem::new(ERROR, format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Reads the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Contexts, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    /// The one with this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Context> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match did_you_mean(name, &known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "`lts context set` makes one".to_owned(),
            };
            Problem::new(NOT_FOUND, format!("there is no context {name}; {hint}"))
        })
    }

    fn write(&self) -> Result<()> {
        let path = path()?;
        let failed =
            |error: &dyn std::fmt::Display| Problem::new(ERROR, format!("cannot write {}: {error}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        // Whole or not at all: another command may read it at this moment.
        let fresh = directory.join(format!(".config.toml.{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&fresh);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|error| failed(&error))
    }
}

/// Runs it.
pub(crate) async fn run(args: ContextArgs) -> Result<u8> {
    let mut contexts = Contexts::read()?;
    match args.ask {
        Ask::Ls { form } => list(&contexts, &form)?,
        Ask::Use { name } => {
            if let Some(name) = &name {
                contexts.find(name)?;
            }
            contexts.current = name;
            contexts.write()?;
        }
        Ask::Set { name, server, store, token, production } => {
            let token = token.map(secret).transpose()?;
            let context = contexts.contexts.entry(name.clone()).or_default();
            context.change(server, store, token, production);
            if context.server.is_none() && context.store.is_none() {
                return Err(Problem::usage(format!("say where {name} is: --server or --store")));
            }
            contexts.write()?;
        }
        Ask::Show { name, form } => show(&contexts, name, &form)?,
        Ask::Rm { name } => {
            contexts.find(&name)?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.write()?;
        }
    }
    Ok(OK)
}

/// A token as it is given; `-`: what stdin says, so that no history of a shell keeps it.
fn secret(text: String) -> Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Problem::new(ERROR, format!("cannot read the token from stdin: {error}")))?;
    Ok(line.trim().to_owned())
}

impl Context {
    fn change(
        &mut self,
        server: Option<String>,
        store: Option<String>,
        token: Option<String>,
        production: Option<bool>,
    ) {
        if server.is_some() {
            (self.server, self.store) = (server, None);
        } else if store.is_some() {
            (self.server, self.store) = (None, store);
        }
        self.token = token.or(self.token.take());
        self.production = production.unwrap_or(self.production);
    }

    fn place(&self) -> String {
        // As a store is shown everywhere: without its password.
        let store = self.store.as_ref().map(|store| {
            let Ok(url) = store.parse::<crate::store_url::StoreUrl>();
            url.to_string()
        });
        self.server.clone().or(store).unwrap_or_default()
    }

    fn as_json(&self, name: &str, current: bool) -> serde_json::Value {
        let kind = if self.server.is_some() { "server" } else { "store" };
        serde_json::json!({ "name": name, "current": current, kind: self.place(), "token": self.token.is_some(),
            "production": self.production })
    }
}

fn list(contexts: &Contexts, form: &FormArgs) -> Result<()> {
    let all = contexts.contexts.iter();
    let all: Vec<_> =
        all.map(|(name, context)| context.as_json(name, contexts.current.as_ref() == Some(name))).collect();
    let place =
        |value: &serde_json::Value| value["server"].as_str().or(value["store"].as_str()).unwrap_or("").to_owned();
    output::Listing::new("name")
        .column("", |value| if value["current"] == true { "*" } else { "" }.to_owned())
        .column("NAME", |value| output::text(&value["name"]))
        .column("PRODUCTION", |value| if value["production"] == true { "yes" } else { "" }.to_owned())
        .column("TOKEN", |value| if value["token"] == true { "yes" } else { "" }.to_owned())
        .column("WHERE", place)
        .print(form.form(), &all)
}

fn show(contexts: &Contexts, name: Option<String>, form: &FormArgs) -> Result<()> {
    let Some(name) = name.or_else(|| contexts.current.clone()) else {
        return Err(Problem::new(NOT_FOUND, "no context is in use; `lts context use NAME` says which"));
    };
    let value = contexts.find(&name)?.as_json(&name, contexts.current.as_ref() == Some(&name));
    output::one(form.form(), "name", &value, || {
        let lines = ["name", "server", "store", "token", "production", "current"];
        let known = lines.into_iter().filter(|line| !value[*line].is_null());
        known.map(|line| (line.to_owned(), output::text(&value[line]))).collect()
    })
}
