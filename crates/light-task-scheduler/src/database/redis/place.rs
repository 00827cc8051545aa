//! Where the server is: a URL, taken apart.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::tls;
use crate::error::{Error, Result};

/// The forms of a URL, for messages.
const FORMS: &str = "the forms are redis://[user:password@]host[:port][/database], the same with rediss:// for TLS, \
    redis+sentinel://[user:password@]host:port,host:port/master and redis+cluster://[user:password@]host:port,host:port";

/// How the nodes that are named lead to the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// The one node has it.
    Direct,
    /// They are sentinels, which know the master of this name.
    Sentinels { master: String },
    /// They are some nodes of a cluster.
    Cluster,
}

/// Where the server is. Its password is in no output.
#[derive(Clone)]
pub(crate) struct Place {
    way: Way,
    nodes: Vec<ConnectionInfo>,
    shown: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Place {
    /// Takes a URL apart.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let refused = |why: &str| Error::invalid(format!("this is not the URL of a Redis server: {why}; {FORMS}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| refused("it has no scheme"))?;
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (format!("{login}@"), rest),
            None => (String::new(), rest),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let way = match scheme {
            "redis" | "valkey" | "rediss" | "valkeys" => Way::Direct,
            "redis+cluster" | "valkey+cluster" => Way::Cluster,
            "redis+sentinel" | "valkey+sentinel" if path.is_empty() => {
                return Err(refused("the name of the master is missing after the sentinels"));
            }
            "redis+sentinel" | "valkey+sentinel" => Way::Sentinels { master: path.to_owned() },
            _ => return Err(refused(&format!("its scheme is {scheme}"))),
        };
        let database = if way == Way::Direct && !path.is_empty() { format!("/{path}") } else { String::new() };
        let tls = tls::demanded(matches!(scheme, "rediss" | "valkeys"), query)?;
        let (scheme, query) = (if tls.is_some() { "rediss" } else { "redis" }, tls::others(query));
        // A message of the parser may quote the URL: it is not passed on.
        let node = |host: &str| format!("{scheme}://{login}{host}{database}{query}").into_connection_info();
        let hosts: Vec<&str> = if way == Way::Direct { vec![hosts] } else { hosts.split(',').collect() };
        let nodes: Result<Vec<_>> =
            hosts.iter().map(|host| node(host).map_err(|_| refused("host, port or database cannot be read"))).collect();
        let shown = format!("{}{}", hosts.join(","), if path.is_empty() { String::new() } else { format!("/{path}") });
        let nodes = match tls {
            Some(files) => nodes?.into_iter().map(|node| files.encrypt(node)).collect::<Result<_>>()?,
            None => nodes?,
        };
        Ok(Place { way, nodes, shown })
    }

    /// For messages.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    pub(crate) fn nodes(&self) -> &[ConnectionInfo] {
        &self.nodes
    }

    /// The node without user, password and database: sentinels have none of the master's.
    pub(crate) fn without_login(node: &ConnectionInfo) -> ConnectionInfo {
        node.clone().set_redis_settings(RedisConnectionInfo::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_taken_apart() {
        let direct = Place::parse("redis://me:se@cret@localhost:7000/3").unwrap();
        assert_eq!((direct.way(), direct.shown()), (&Way::Direct, "localhost:7000/3"));
        let sentinels = Place::parse("redis+sentinel://a:1,b:2/main").unwrap();
        assert_eq!((sentinels.way(), sentinels.nodes().len()), (&Way::Sentinels { master: "main".to_owned() }, 2));
        let cluster = Place::parse("redis+cluster://a:1,b:2,c:3").unwrap();
        assert_eq!((cluster.way(), cluster.nodes().len(), cluster.shown()), (&Way::Cluster, 3, "a:1,b:2,c:3"));
    }

    #[test]
    fn no_message_shows_the_password() {
        for bad in [
            "redis://u:secret@host:notaport",
            "http://u:secret@host",
            "redis+sentinel://u:secret@a:1",
            "secret",
            "rediss://u:secret@host?ssl-ca=/nowhere",
            "redis://u:secret@host?ssl-ca=/nowhere",
        ] {
            let error = Place::parse(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let place = Place::parse("redis://u:secret@host").unwrap();
        assert!(!format!("{place:?}").contains("secret"));
    }
}
