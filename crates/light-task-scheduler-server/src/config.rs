//! How the server is configured: one TOML file, over it `LTS_…` variables, over them the command line.
//!
//! ```toml
//! listen = "127.0.0.1:7600"      # LTS_LISTEN
//! store = "./lts.db"             # LTS_STORE
//! tokens = "./lts-tokens.json"   # LTS_TOKENS: without it only this host is served
//! base_path = ""                 # LTS_BASE_PATH
//! name = "production"            # LTS_NAME
//! read_only = false              # LTS_READ_ONLY
//! concurrency = 8                # LTS_CONCURRENCY; 0: run nothing here, only serve
//! queues = []                    # LTS_QUEUES: those whose tasks run here; none: all
//!
//! [queue.video]
//! concurrency = 2
//! rate = "10/m"
//! timeout = "1h"
//! retry = { max_attempts = 3, min_delay = "1s", max_delay = "10m" }
//!
//! [retention]
//! after = "7d"
//! states = ["succeeded", "cancelled"]
//!
//! [process]
//! programs = ["/usr/bin/ffmpeg"] # default: any
//!
//! [docker]
//! config = "./docker.json"       # as LTS_DOCKER_CONFIG
//!
//! [http]
//! open = false                   # whether tasks may name URLs of their own
//! private = false                # whether calls may go to private networks
//! networks = ["10.1.0.0/16"]
//!
//! [http.callbacks]               # without it services are only asked how their jobs stand
//! url = "https://lts.example"    # LTS_CALLBACKS_URL: where services reach this server, with its base path
//! key = { file = "./key" }       # LTS_CALLBACKS_KEY holds it; the same for every server of one store
//!
//! [http.service.maps]
//! preset = "ogc"
//! endpoints = ["https://maps.example/ogc"]
//! headers = { Authorization = { env = "MAPS_TOKEN", prefix = "Bearer " } }
//! signing = { env = "MAPS_SIGNING" } # whsec_…: what it reports must be signed with it (Standard Webhooks)
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use light_task_scheduler::executor::http::{Egress, HttpConfig, Secret, Service};
use light_task_scheduler::scheduler::Retention;
use light_task_scheduler::{Config, Name, QueueSettings, State};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::{Defaults, QueueDefaults, Retry, Span, in_words};
use crate::callbacks::{CallbackFlags, CallbackTable, Callbacks};
use crate::duration::parse_rate;
use crate::exit::{Problem, Result};
use crate::store_url::{STORE_DEFAULT, StoreUrl};

/// Where the server listens if nobody says otherwise.
pub(crate) const LISTEN_DEFAULT: &str = "127.0.0.1:7600";
/// The file that is read if none is named and it is there.
const FILE_DEFAULT: &str = "lts.toml";
/// Fewest tasks at once if nobody says otherwise.
const CONCURRENCY_MIN: usize = 4;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    listen: Option<String>,
    store: Option<String>,
    tokens: Option<String>,
    base_path: Option<String>,
    name: Option<String>,
    read_only: Option<bool>,
    concurrency: Option<usize>,
    queues: Option<Vec<String>>,
    queue: BTreeMap<String, Queue>,
    retention: Option<Keep>,
    process: Process,
    docker: Docker,
    http: Http,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Queue {
    concurrency: Option<u32>,
    rate: Option<String>,
    timeout: Option<Span>,
    retry: Option<Retry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keep {
    after: Span,
    #[serde(default)]
    states: Option<Vec<State>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Process {
    programs: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Docker {
    config: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    open: bool,
    private: bool,
    networks: Vec<String>,
    callbacks: CallbackTable,
    service: BTreeMap<String, Remote>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    preset: String,
    endpoints: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    signing: Option<Secret>,
}

/// What the command line says; `None`: nothing.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Flags {
    /// The file of settings [default: ./lts.toml, if it is there]
    #[arg(long, env = "LTS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The store: a path, sqlite:PATH, postgres://…, mysql://…, redis://…, or cached+ before one of them [default: ./lts.db]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The file of tokens; without one only this host is served
    #[arg(long, value_name = "FILE")]
    tokens: Option<String>,
    /// The path under which everything is served, for example /lts
    #[arg(long, value_name = "PATH")]
    base_path: Option<String>,
    /// How this installation is called in the console
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Let nothing be changed through the API
    #[arg(long)]
    read_only: bool,
    /// How many tasks run here at once; 0: none, only serve [default: twice the cores, at least 4]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Only run tasks of these queues [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    queues: Option<Vec<String>>,
    #[command(flatten)]
    callbacks: CallbackFlags,
}

/// A setting and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: String,
}

/// Everything that is set.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Setting<SocketAddr>,
    pub(crate) store: Setting<String>,
    pub(crate) tokens: Setting<Option<String>>,
    pub(crate) base_path: Setting<String>,
    pub(crate) name: Setting<String>,
    pub(crate) read_only: Setting<bool>,
    pub(crate) concurrency: Setting<usize>,
    pub(crate) queues: Setting<Vec<String>>,
    pub(crate) callbacks: Callbacks,
    file: File,
    /// The file that was read, if any.
    pub(crate) path: Option<PathBuf>,
}

impl Flags {
    /// Reads the file and the variables, and says what holds.
    pub(crate) fn settle(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Settings> {
        let path = match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(FILE_DEFAULT)).filter(|path| path.exists()),
        };
        let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let source = Sources { variable: &variable, file: path.as_deref() };
        let listen = source.text("LTS_LISTEN", &self.listen, &file.listen, LISTEN_DEFAULT);
        let settings = Settings {
            listen: listen.read("listen", |text| {
                text.parse().map_err(|_| format!("{text:?} is no address such as {LISTEN_DEFAULT} or [::1]:7600"))
            })?,
            store: source.text("LTS_STORE", &self.store, &file.store, STORE_DEFAULT),
            tokens: source
                .text("LTS_TOKENS", &self.tokens, &file.tokens, "")
                .map(|text| Some(text).filter(|t| !t.is_empty())),
            base_path: source
                .text("LTS_BASE_PATH", &self.base_path, &file.base_path, "")
                .read("base_path", base_path)?,
            name: source.text("LTS_NAME", &self.name, &file.name, ""),
            read_only: source.parsed("LTS_READ_ONLY", &self.read_only.then_some(true), &file.read_only, false)?,
            concurrency: source.parsed(
                "LTS_CONCURRENCY",
                &self.concurrency,
                &file.concurrency,
                concurrency_default(),
            )?,
            queues: source.list("LTS_QUEUES", &self.queues, &file.queues),
            callbacks: self.callbacks.settle(&source, &file.http.callbacks),
            file,
            path,
        };
        settings.check()?;
        Ok(settings)
    }
}

fn base_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~/".contains(c);
    if !path.is_empty() && (!path.starts_with('/') || !path.chars().all(plain) || path.contains("//")) {
        return Err(format!("{text:?} is no path such as /lts"));
    }
    Ok(path.to_owned())
}

/// Reads TOML; what is wrong is said with its line, and what was probably meant.
fn read_file(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::usage(format!("cannot read the settings in {}: {error}", path.display())))?;
    parse(&text).map_err(|(line, why)| Problem::usage(format!("{}:{line}: {why}", path.display())))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (text[..at].matches('\n').count() + 1, in_words(error.message()))
    })
}

/// Where settings come from.
pub(crate) struct Sources<'a> {
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The file that was read, if any.
    pub(crate) file: Option<&'a Path>,
}

impl Sources<'_> {
    pub(crate) fn text(
        &self,
        name: &str,
        flag: &Option<String>,
        file: &Option<String>,
        default: &str,
    ) -> Setting<String> {
        let default = || Setting { value: default.to_owned(), origin: "default".to_owned() };
        self.found(name, flag, file).unwrap_or_else(default)
    }

    fn list(&self, name: &str, flag: &Option<Vec<String>>, file: &Option<Vec<String>>) -> Setting<Vec<String>> {
        let text =
            self.found(name, &flag.as_ref().map(|list| list.join(",")), &file.as_ref().map(|list| list.join(",")));
        let default = Setting { value: String::new(), origin: "default".to_owned() };
        let split =
            |text: String| text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        text.unwrap_or(default).map(split)
    }

    fn parsed<T: Copy + ToString + std::str::FromStr>(
        &self,
        name: &str,
        flag: &Option<T>,
        file: &Option<T>,
        default: T,
    ) -> Result<Setting<T>> {
        let text = self.found(name, &flag.map(|value| value.to_string()), &file.map(|value| value.to_string()));
        match text {
            Some(text) => text.read(name, |text| text.parse().map_err(|_| format!("{text:?} is not understood"))),
            None => Ok(Setting { value: default, origin: "default".to_owned() }),
        }
    }

    fn found(&self, name: &str, flag: &Option<String>, file: &Option<String>) -> Option<Setting<String>> {
        let from = |value: String, origin: String| Setting { value, origin };
        flag.clone()
            .map(|value| from(value, "command line".to_owned()))
            .or_else(|| self.variable(name).map(|value| from(value, name.to_owned())))
            .or_else(|| file.clone().map(|value| from(value, self.file())))
    }

    /// Whether a variable says something.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.variable(name).is_some()
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// How the file is called.
    pub(crate) fn file(&self) -> String {
        self.file.map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl<T> Setting<T> {
    pub(crate) fn of(value: T, origin: &str) -> Self {
        Setting { value, origin: origin.to_owned() }
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

impl Setting<String> {
    fn read<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Setting<T>> {
        match read(&self.value) {
            Ok(value) => Ok(Setting { value, origin: self.origin.clone() }),
            Err(why) => Err(Problem::usage(format!("{name} ({}): {why}", self.origin))),
        }
    }
}

impl Settings {
    /// Everything that can be known to be wrong before anything is opened.
    fn check(&self) -> Result<()> {
        if !is_this_host(self.listen.value.ip()) && self.tokens.value.is_none() {
            return Err(Problem::usage(format!(
                "refusing to listen on {} without tokens: anybody there could run commands here; \
                 make some with `lts token create` and name their file with --tokens",
                self.listen.value
            )));
        }
        self.scheduler()?;
        self.http()?;
        self.defaults()?;
        Ok(())
    }

    /// The store that is named.
    pub(crate) fn store(&self) -> StoreUrl {
        let Ok(url) = self.store.value.parse::<StoreUrl>();
        url
    }

    /// How the scheduler of this process behaves.
    pub(crate) fn scheduler(&self) -> Result<Config> {
        let mut config = Config {
            // 0 means that nothing runs here; then there are no executors, and no slot is ever used.
            concurrency: self.concurrency.value.max(1),
            replica_name: format!("lts server, pid {}", std::process::id()),
            ..Config::default()
        };
        for queue in &self.queues.value {
            config.queues.push(Name::new(queue)?);
        }
        for (name, queue) in &self.file.queue {
            let rate = queue.rate.as_deref().map(parse_rate).transpose().map_err(|why| self.wrong(name, &why))?;
            if queue.concurrency.is_some() || rate.is_some() {
                let settings = QueueSettings { concurrency: queue.concurrency, rate, paused: false };
                config.queue_settings.push((Name::new(name)?, settings));
            }
        }
        config.retention = self.file.retention.as_ref().map(|keep| Retention {
            states: keep.states.clone().unwrap_or_else(|| vec![State::Succeeded, State::Failed, State::Cancelled]),
            older_than: keep.after.0,
            except_label: None,
        });
        config.check()?;
        Ok(config)
    }

    fn wrong(&self, queue: &str, why: &str) -> Problem {
        let path = self.path.as_deref().unwrap_or(Path::new(FILE_DEFAULT)).display();
        Problem::usage(format!("{path}: queue {queue}: {why}"))
    }

    /// What tasks get that do not say it themselves.
    pub(crate) fn defaults(&self) -> Result<Defaults> {
        let mut defaults = Defaults::default();
        for (name, queue) in &self.file.queue {
            let retry = queue.retry.map(light_task_scheduler::RetryPolicy::from);
            if let Some(problem) = retry.and_then(|retry| retry.problems().into_iter().next()) {
                return Err(self.wrong(name, &problem));
            }
            let timeout: Option<Duration> = queue.timeout.map(|span| span.0);
            defaults.queues.insert(Name::new(name)?, QueueDefaults { timeout, retry });
        }
        Ok(defaults)
    }

    /// The programs that tasks may run.
    pub(crate) fn programs(&self) -> Option<Vec<String>> {
        self.file.process.programs.clone()
    }

    /// The file that describes the engines for containers.
    pub(crate) fn docker(&self) -> Option<&Path> {
        self.file.docker.config.as_deref()
    }

    /// Which remote services there are, and where calls may go.
    pub(crate) fn http(&self) -> Result<HttpConfig> {
        let http = &self.file.http;
        let mut config = HttpConfig {
            open: http.open,
            egress: Egress { private: http.private, networks: http.networks.clone() },
            callbacks: self.callbacks.config(&self.base_path.value)?,
            ..HttpConfig::default()
        };
        for (name, remote) in &http.service {
            let mut service = Service::preset(&remote.preset, remote.endpoints.clone())?;
            service.headers = remote.headers.clone();
            service.signing = remote.signing.clone();
            config.services.insert(Name::new(name)?, service);
        }
        Ok(config)
    }
}

/// How many tasks run at once if nobody says otherwise: commands wait as much as they compute.
pub(crate) fn concurrency_default() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(CONCURRENCY_MIN)
}

/// Whether nobody else can reach it.
pub(crate) fn is_this_host(address: IpAddr) -> bool {
    address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(file: &str, flags: Flags, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lts.toml");
        std::fs::write(&path, file).unwrap();
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Flags { config: Some(path), ..flags }.settle(variable).map_err(|problem| problem.message)
    }

    #[test]
    fn the_command_line_wins_over_variables_and_they_over_the_file() {
        let flags = Flags { name: Some("flag".to_owned()), ..Flags::default() };
        let variables = [("LTS_NAME", "variable"), ("LTS_CONCURRENCY", "7")];
        let file = "name = \"file\"\nconcurrency = 3\nbase_path = \"/lts/\"";
        let settings = settle(file, flags, &variables).unwrap();
        assert_eq!((settings.name.value.as_str(), settings.name.origin.as_str()), ("flag", "command line"));
        assert_eq!((settings.concurrency.value, settings.concurrency.origin.as_str()), (7, "LTS_CONCURRENCY"));
        assert_eq!(settings.base_path.value, "/lts");
        assert!(settings.base_path.origin.ends_with("lts.toml"));
        assert_eq!(settings.store.origin, "default");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (file, why) in [
            ("\nlistne = \"x\"", "lts.toml:2: unknown `listne`; did you mean `listen`?"),
            ("listen = \"nowhere\"", "no address"),
            ("listen = \"0.0.0.0:7600\"", "without tokens"),
            ("base_path = \"lts\"", "no path such as /lts"),
            ("[queue.video]\nrate = \"fast\"", "queue video: `fast` is not a rate"),
            ("[queue.video]\nconcurrency = 0", "concurrency is 0"),
            ("[queue.video]\ntimeout = \"soon\"", "not a duration"),
            ("[queue.video]\nretry = { max_attempts = 0 }", "max_attempts"),
            ("[http.service.maps]\npreset = \"ogcc\"\nendpoints = []", "ogcc"),
            ("[retention]\nafter = \"7d\"\nstates = [\"running\"]", "not an end"),
            ("store = ", "lts.toml:1"),
        ] {
            let error = settle(file, Flags::default(), &[]).unwrap_err();
            assert!(error.contains(why), "{file}: {error}");
        }
        assert!(settle("", Flags::default(), &[("LTS_CONCURRENCY", "many")]).unwrap_err().contains("LTS_CONCURRENCY"));
    }

    #[test]
    fn queues_get_limits_and_defaults() {
        let file = "[queue.video]\nconcurrency = 2\nrate = \"10/m\"\ntimeout = \"1h\"\nretry = { max_attempts = 3 }";
        let settings = settle(file, Flags::default(), &[]).unwrap();
        let (name, limits) = settings.scheduler().unwrap().queue_settings.remove(0);
        assert_eq!((name.as_str(), limits.concurrency, limits.rate.unwrap().count), ("video", Some(2), 10));
        let defaults = settings.defaults().unwrap();
        let video = defaults.queues.values().next().unwrap();
        assert_eq!((video.timeout, video.retry.unwrap().max_attempts), (Some(Duration::from_secs(3_600)), 3));
    }
}
