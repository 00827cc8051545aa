//! What `--store` names. Pure: nothing is opened here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where tasks are kept if nobody says otherwise.
pub(crate) const STORE_DEFAULT: &str = "./lts.db";
/// What a `--store` may be, for people.
const FORMS: &str = "a path, sqlite:PATH, memory:, postgres://…, mysql://…, redis://…, or cached+ before one of them";

/// What a `--store` says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// A file.
    Sqlite(FileUrl),
    /// This process.
    Memory,
    /// A server.
    Server(ServerUrl),
    /// A window in memory in front of another one.
    Cached(Box<StoreUrl>),
    /// Nothing of use, for this reason. Kept for later: the command line's own message would repeat the URL, in
    /// which a password may be.
    Unusable(String),
}

/// A file, by its path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FileUrl {
    pub(crate) path: PathBuf,
    /// Whether its schema may be made or brought up to date.
    pub(crate) migrate: bool,
}

/// A server, by its URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// Which kind of server.
    pub(crate) engine: Engine,
    /// As given, but without `namespace=` and `migrate=`.
    pub(crate) url: String,
    /// What sets apart the tasks of several users of one server.
    pub(crate) namespace: Option<String>,
    /// Whether its tables may be made or brought up to date.
    pub(crate) migrate: bool,
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    MySql,
    Postgres,
    Redis,
}

impl FromStr for StoreUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(parse(text).unwrap_or_else(StoreUrl::Unusable))
    }
}

fn parse(text: &str) -> Result<StoreUrl, String> {
    if text.is_empty() {
        return Err(format!("the store is empty; give {FORMS}"));
    }
    let is_scheme = |text: &str| {
        text.len() > 1
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    };
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return Ok(StoreUrl::Sqlite(FileUrl { path: text.into(), migrate: true }));
    };
    if let Some(inner) = text.strip_prefix("cached+") {
        return match parse(inner)? {
            StoreUrl::Memory => Err("a store in memory needs no cache; write memory:".to_owned()),
            StoreUrl::Cached(_) => Err("one cache is enough".to_owned()),
            inner => Ok(StoreUrl::Cached(Box::new(inner))),
        };
    }
    match (scheme, rest) {
        ("memory", "" | "//") => Ok(StoreUrl::Memory),
        ("memory", _) => Err("a store in memory has no name; write memory:".to_owned()),
        ("sqlite", path) => {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            match path.strip_prefix("//").unwrap_or(path) {
                "" => Err("the store has no path; write sqlite:PATH".to_owned()),
                path => Ok(StoreUrl::Sqlite(FileUrl { path: path.into(), migrate: may_migrate(query)? })),
            }
        }
        ("postgres" | "postgresql", _) => Ok(StoreUrl::Server(ServerUrl::new(Engine::Postgres, text)?)),
        ("mysql" | "mariadb", _) => Ok(StoreUrl::Server(ServerUrl::new(Engine::MySql, text)?)),
        ("redis" | "rediss" | "valkey" | "valkeys" | "redis+cluster" | "redis+sentinel", _) => {
            Ok(StoreUrl::Server(ServerUrl::new(Engine::Redis, text)?))
        }
        (scheme, _) => {
            Err(format!("this program has no store for `{scheme}:`; give {FORMS} (a file of that name: ./…)"))
        }
    }
}

/// The value of a parameter in a query, the last one if there are several.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).next_back()
}

/// What `migrate=` says in a query.
fn may_migrate(query: &str) -> Result<bool, String> {
    match parameter(query, "migrate") {
        None | Some("true" | "1" | "") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err("migrate= in the URL of the store is neither true nor false".to_owned()),
    }
}

impl StoreUrl {
    /// The same store, whose schema may or may not be made or brought up to date.
    pub(crate) fn with_migration(self, migrate: bool) -> Self {
        match self {
            StoreUrl::Sqlite(file) => StoreUrl::Sqlite(FileUrl { migrate, ..file }),
            StoreUrl::Server(server) => StoreUrl::Server(ServerUrl { migrate, ..server }),
            StoreUrl::Cached(inner) => StoreUrl::Cached(Box::new(inner.with_migration(migrate))),
            other => other,
        }
    }

    /// The store without the window in front of it.
    pub(crate) fn durable(&self) -> &StoreUrl {
        match self {
            StoreUrl::Cached(inner) => inner,
            other => other,
        }
    }
}

impl ServerUrl {
    fn new(engine: Engine, text: &str) -> Result<Self, String> {
        const OURS: [&str; 2] = ["namespace", "migrate"];
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let is_theirs = |pair: &&str| !pair.is_empty() && !OURS.contains(&pair.split('=').next().unwrap_or(pair));
        let theirs: Vec<&str> = query.split('&').filter(is_theirs).collect();
        let namespace = parameter(query, "namespace").map(str::to_owned);
        let migrate = may_migrate(query)?;
        let query = if theirs.is_empty() { String::new() } else { format!("?{}", theirs.join("&")) };
        Ok(ServerUrl { engine, url: format!("{address}{query}"), namespace, migrate })
    }

    /// The URL with another parameter, unless it has one of that name.
    pub(crate) fn with_parameter(&self, name: &str, value: &str) -> String {
        if self.parameter(name).is_some() {
            return self.url.clone();
        }
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}{name}={value}", self.url)
    }

    /// The value of a parameter of the URL; empty if it has none.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        parameter(self.url.split_once('?').map_or("", |(_, query)| query), name)
    }

    /// Without these parameters.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        let (address, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let kept = query.split('&').filter(|pair| !names.contains(&pair.split('=').next().unwrap_or("")));
        let query = kept.collect::<Vec<_>>().join("&");
        let url = if query.is_empty() { address.to_owned() } else { format!("{address}?{query}") };
        ServerUrl { url, ..self.clone() }
    }

    /// The URL with another database.
    pub(crate) fn with_database(&self, name: &str) -> String {
        let (address, query) = self.url.split_once('?').map_or((&*self.url, ""), |(address, query)| (address, query));
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        let joint = if query.is_empty() { "" } else { "?" };
        format!("{scheme}://{authority}/{name}{joint}{query}")
    }

    /// Without user and password: the same for all who use the same tasks, and fit to be shown.
    pub(crate) fn identity(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
        // Parameters may hold a password too.
        let path = path.split('?').next().unwrap_or("");
        let namespace = self.namespace.as_deref().map_or(String::new(), |name| format!("?namespace={name}"));
        format!("{scheme}://{hosts}/{path}{namespace}")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(file) => write!(f, "{}", file.path.display()),
            StoreUrl::Memory => f.write_str("memory:"),
            StoreUrl::Server(server) => f.write_str(&server.identity()),
            StoreUrl::Cached(inner) => write!(f, "cached+{inner}"),
            StoreUrl::Unusable(_) => f.write_str("an unusable store"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_schemes_are_told_apart() {
        let file = |path: &str| StoreUrl::Sqlite(FileUrl { path: path.into(), migrate: true });
        let sqlite = |path: &str| Ok(file(path));
        for path in ["lts.db", "./a:b", "/tmp/x y.db", "c:d", "数.db", "what?migrate=false"] {
            assert_eq!(path.parse(), sqlite(path), "{path}");
        }
        assert_eq!("sqlite:lts.db".parse(), sqlite("lts.db"));
        assert_eq!("sqlite:///tmp/a".parse(), sqlite("/tmp/a"));
        assert_eq!("memory:".parse(), Ok(StoreUrl::Memory));
        assert_eq!(parse("cached+sqlite:a.db"), Ok(StoreUrl::Cached(Box::new(file("a.db")))));
        assert_eq!(parse("sqlite:a.db?migrate=false"), Ok(file("a.db").with_migration(false)));
        for (bad, why) in [
            ("", "empty"),
            ("sqlite:", "no path"),
            ("memory:x", "no name"),
            ("cached+memory:", "needs no cache"),
            ("sqlite:a.db?migrate=maybe", "neither true nor false"),
            ("mysql://h/d?migrate=maybe", "neither true nor false"),
            ("mongodb://h/d", "no store for `mongodb:`"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_servers_url_keeps_its_secrets() {
        for text in [
            "postgres://me:s3cret@host:5433/work?sslmode=disable&namespace=mine&password=s3cret",
            "cached+redis://:s3cret@host/1?namespace=mine",
            "redis+sentinel://me:s3cret@a:1,b:2/main",
            "rediss://me:s3cret@host?namespace=mine",
            "mongodb://me:s3cret@host/d",
        ] {
            let url: StoreUrl = text.parse().unwrap_or_else(|never| match never {});
            let StoreUrl::Unusable(why) = &url else {
                assert!(!format!("{url} {url:?}").contains("s3cret"), "{url}");
                continue;
            };
            assert!(!why.contains("s3cret"), "{why}");
        }
        let server =
            ServerUrl::new(Engine::Postgres, "postgres://me:x@host:5433/work?a=1&namespace=mine&b=2&migrate=0")
                .unwrap();
        assert!(!server.migrate);
        assert_eq!(server.url, "postgres://me:x@host:5433/work?a=1&b=2");
        assert_eq!(server.namespace.as_deref(), Some("mine"));
        assert_eq!(server.identity(), "postgres://host:5433/work?namespace=mine");
        assert_eq!(server.with_parameter("c", "3"), "postgres://me:x@host:5433/work?a=1&b=2&c=3");
        assert_eq!(server.with_parameter("b", "3"), server.url);
        assert_eq!((server.parameter("b"), server.parameter("c")), (Some("2"), None));
        assert_eq!(server.without(&["a", "c"]).url, "postgres://me:x@host:5433/work?b=2");
        assert_eq!(server.without(&["a", "b"]).url, "postgres://me:x@host:5433/work");
        assert_eq!(server.with_database("new"), "postgres://me:x@host:5433/new?a=1&b=2");
        let bare = ServerUrl::new(Engine::MySql, "mysql://host").unwrap();
        assert_eq!(bare.with_database("new"), "mysql://host/new");
    }
}
